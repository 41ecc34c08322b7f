//! Consumer groups on a real socket and a real disk.

use std::path::Path;

use super::*;
use crate::protocol::batch::CheckedBatch;
use crate::protocol::data::FetchItem;
use crate::protocol::dead::Obituary;
use crate::protocol::taken::Taken;
use crate::types::{Generation, MemberId, SubscriptionName};

mod burying;
mod purging;

/// A member on a connection of its own.
struct Consumer {
    connection: Connection,
    topic: TopicId,
    group: SubscriptionName,
    generation: Generation,
    member: MemberId,
}

/// What was taken of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Got {
    offset: u64,
    delivery: u32,
    key: Option<Vec<u8>>,
    value: Vec<u8>,
}

fn group(text: &str) -> SubscriptionName {
    text.parse().expect("a good name")
}

impl Running {
    async fn make_group(&self, options: ConsumerGroupChanges) -> ConsumerGroupInfo {
        self.make("g", options).await.expect("made")
    }

    async fn make(
        &self,
        named: &str,
        options: ConsumerGroupChanges,
    ) -> Result<ConsumerGroupInfo, ApiError> {
        self.ask(CreateConsumerGroup {
            topic: name("t"),
            name: group(named),
            from: Position::Beginning,
            options,
            if_not_exists: false,
        })
        .await
    }

    async fn info(&self) -> ConsumerGroupInfo {
        let (topic, name) = (name("t"), group("g"));
        let described = self.ask(DescribeConsumerGroup { topic, name }).await;
        described.expect("it is there")
    }

    async fn put(&self, topic: TopicId, keys: &[&str]) {
        let mut builder = BatchBuilder::new(Compression::None);
        for (n, key) in keys.iter().enumerate() {
            let value = format!("{key}{n}");
            let record = RecordToSend {
                timestamp: Timestamp::from_millis(7 + n as i64),
                key: (!key.is_empty()).then_some(key.as_bytes()),
                headers: &[],
                value: value.as_bytes(),
            };
            builder.try_push(&record).expect("it fits");
        }
        let built = builder.build(ProducerId::zero(), Sequence::ZERO);
        let published = self.publish(topic, &built.expect("it builds")).await;
        published.expect("stored");
    }

    async fn connect(&self) -> Connection {
        let dial = DialOptions {
            client: "a member".to_owned(),
            timeout: SOON,
        };
        let connected = Connection::connect(self.connection.address(), &dial);
        connected.await.expect("it answers")
    }

    async fn member(&self, id: u8) -> Consumer {
        let info = self.info().await;
        self.member_of(&info, id).await
    }

    async fn member_of(&self, info: &ConsumerGroupInfo, id: u8) -> Consumer {
        let consumer = Consumer {
            connection: self.connect().await,
            topic: info.topic_id,
            group: info.name.clone(),
            generation: info.generation,
            member: MemberId::from_bytes([id; 16]),
        };
        consumer.join().await.expect("joined");
        consumer
    }

    /// The records of a topic.
    async fn read_all(&self, topic: &str) -> Vec<crate::protocol::batch::Record> {
        let info = self.describe(topic).await.expect("it is there");
        let fetched = self.fetch(Fetch {
            topic: info.id,
            epoch: info.epoch,
            offset: info.start_offset,
            max_bytes: 1 << 20,
            min_bytes: 0,
            max_wait_ms: 0,
            pass_damage: false,
        });
        let mut found = Vec::new();
        for item in fetched.await.expect("readable").items {
            if let FetchItem::Batch(stored) = item {
                let batch = CheckedBatch::check(stored.batch, limits::MESSAGE_BYTES_MAX);
                let records = batch.expect("good").records().expect("it unpacks");
                found.extend(records.map(|record| record.expect("good")));
            }
        }
        found
    }
}

impl Consumer {
    async fn call<R: Request>(&self, request: R) -> Result<R::Answer, ApiError> {
        match self.connection.call(&request, SOON).await {
            Ok(answer) => Ok(answer),
            Err(CallError::Api(error)) => Err(error),
            Err(error) => panic!("{error}"),
        }
    }

    async fn join(&self) -> Result<Done, ApiError> {
        self.call(JoinConsumerGroup {
            topic: self.topic,
            name: self.group.clone(),
            generation: self.generation,
            member: self.member,
        })
        .await
    }

    async fn leave(&self) {
        let left = self.call(LeaveConsumerGroup {
            topic: self.topic,
            name: self.group.clone(),
            member: self.member,
        });
        left.await.expect("left");
    }

    async fn take(&self, records: u32, wait_ms: u32) -> Result<Vec<Got>, ApiError> {
        let request = TakeRecords {
            topic: self.topic,
            name: self.group.clone(),
            generation: self.generation,
            member: self.member,
            records,
            bytes: 1 << 20,
            wait_ms,
        };
        let body = Bytes::from(request.encode().expect("small"));
        match self.connection.call_raw(Api::TakeRecords, body, SOON).await {
            Ok(answer) => Ok(all_of(Taken::decode(answer).expect("well formed"))),
            Err(CallError::Api(error)) => Err(error),
            Err(error) => panic!("{error}"),
        }
    }

    /// Takes until so many came.
    async fn takes(&self, records: usize) -> Vec<Got> {
        let mut all = Vec::new();
        let deadline = tokio::time::Instant::now() + SOON;
        while all.len() < records {
            let left = (records - all.len()) as u32;
            all.extend(self.take(left, 500).await.expect("a member"));
            assert!(tokio::time::Instant::now() < deadline, "only {all:?} came");
        }
        all
    }

    async fn say(&self, got: &[Got], verdict: Verdict) -> Vec<NotHeld> {
        let run = |got: &Got| SettledRun {
            first: Offset::new(got.offset),
            count: 1,
            delivery: got.delivery,
            verdict: verdict.clone(),
        };
        self.settle(got.iter().map(run).collect())
            .await
            .expect("a member")
    }

    async fn settle(&self, runs: Vec<SettledRun>) -> Result<Vec<NotHeld>, ApiError> {
        let settled = self.call(SettleRecords {
            topic: self.topic,
            name: self.group.clone(),
            generation: self.generation,
            member: self.member,
            runs,
        });
        settled.await.map(|settled| settled.not_held)
    }
}

fn all_of(taken: Taken) -> Vec<Got> {
    let mut all = Vec::new();
    for item in taken.items {
        let batch = CheckedBatch::check(item.batch, limits::MESSAGE_BYTES_MAX);
        let mut records = batch.expect("a good batch").records().expect("it unpacks");
        for run in item.runs {
            for offset in run.first.get()..run.end().get() {
                let record = records.next().expect("as many records").expect("good");
                all.push(Got {
                    offset,
                    delivery: run.delivery,
                    key: record.key.map(|key| key.to_vec()),
                    value: record.value.to_vec(),
                });
            }
        }
        assert!(records.is_over(), "more records than runs");
    }
    all
}

fn offsets(got: &[Got]) -> Vec<(u64, u32)> {
    got.iter().map(|got| (got.offset, got.delivery)).collect()
}

fn nak() -> Verdict {
    Verdict::Nak { delay_ms: Some(0) }
}

fn options() -> ConsumerGroupChanges {
    ConsumerGroupChanges {
        backoff_ms: Some(Vec::new()),
        ..ConsumerGroupChanges::default()
    }
}

async fn begin(dir: &Path) -> (Running, TopicId) {
    let peer = start(dir, |_| ()).await;
    eventually("registered", async || peer.index.lock().registered).await;
    let topic = peer.create("t").await.expect("made").topic.id;
    (peer, topic)
}

#[tokio::test]
async fn what_is_acknowledged_never_comes_again_and_the_rest_does() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let (peer, topic) = begin(dir.path()).await;
    peer.make_group(options()).await;
    peer.put(topic, &[""; 10]).await;
    let member = peer.member(1).await;
    let got = member.take(6, 0).await.expect("a member");
    assert_eq!(offsets(&got), (0..6).map(|n| (n, 1)).collect::<Vec<_>>());
    assert_eq!(got[3].value, b"3");
    assert_eq!(member.say(&got[..2], Verdict::Ack).await, []);
    assert_eq!(member.say(&got[4..5], Verdict::Ack).await, []);
    let info = peer.info().await;
    assert_eq!(
        (info.floor.get(), info.unsettled, info.in_flight),
        (2, 7, 3)
    );
    assert_eq!((info.acknowledged, info.members.len()), (3, 1));
    peer.stop().await;

    let peer = start(dir.path(), |_| ()).await;
    let member = peer.member(2).await;
    let got = member.takes(7).await;
    let expected = [2, 3, 5, 6, 7, 8, 9].map(|n| (n, 1));
    assert_eq!(
        offsets(&got),
        expected,
        "a peer that stops is nobody's failure"
    );
    assert_eq!(member.say(&got, Verdict::Ack).await, []);
    assert_eq!(peer.info().await.floor, Offset::new(10));
    assert_eq!(member.take(5, 0).await.expect("a member"), []);
    // A take waits for what comes.
    let (taken, ()) = tokio::join!(member.take(5, 10_000), peer.put(topic, &["", ""]));
    assert_eq!(offsets(&taken.expect("a member")), [(10, 1), (11, 1)]);
    peer.stop().await;
}

#[tokio::test]
async fn what_fails_comes_again_with_its_count() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let (peer, topic) = begin(dir.path()).await;
    peer.make_group(ConsumerGroupChanges {
        ack_deadline_ms: Some(600),
        deliveries_max: Some(0),
        ..options()
    })
    .await;
    peer.put(topic, &[""; 4]).await;
    let (first, second) = (peer.member(1).await, peer.member(2).await);
    let got = first.takes(4).await;
    let began = tokio::time::Instant::now();
    // Refused, refused for a while, acknowledged; the last one is overdue.
    assert_eq!(first.say(&got[..1], nak()).await, []);
    let later = Verdict::Nak {
        delay_ms: Some(200),
    };
    assert_eq!(first.say(&got[1..2], later).await, []);
    assert_eq!(first.say(&got[2..3], Verdict::Ack).await, []);
    let mut seen = Vec::new();
    while seen.len() < 3 {
        let again = second.takes(1).await;
        let offset = again[0].offset as usize;
        let waited = offset != 1 || began.elapsed() >= Duration::from_millis(200);
        assert!(waited, "it was to wait");
        // The first member is too late now.
        let late = first.say(&got[offset..=offset], Verdict::Ack).await;
        assert_eq!(late[0].instead, Instead::Elsewhere);
        assert_eq!(second.say(&again, Verdict::Ack).await, []);
        seen.extend(offsets(&again));
    }
    seen.sort_unstable();
    assert_eq!(seen, [(0, 2), (1, 2), (3, 2)]);
    let late = first.say(&got[3..], Verdict::Ack).await;
    assert_eq!(late[0].instead, Instead::Settled);
    // A word now and then keeps a record.
    peer.put(topic, &[""]).await;
    let got = first.takes(1).await;
    for _ in 0..8 {
        tokio::time::sleep(Duration::from_millis(150)).await;
        assert_eq!(first.say(&got, Verdict::Extend).await, []);
    }
    assert_eq!(first.say(&got, Verdict::Ack).await, []);
    peer.stop().await;
}

#[tokio::test]
async fn a_member_that_is_lost_or_leaves_gives_back_what_it_held() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let (peer, topic) = begin(dir.path()).await;
    peer.make_group(ConsumerGroupChanges {
        deliveries_max: Some(2),
        ..options()
    })
    .await;
    peer.put(topic, &[""; 2]).await;
    let other = peer.member(9).await;
    // Leaving is no failure, as often as one likes; the number of the delivery is another each time.
    for n in 1..=3 {
        let member = peer.member(n).await;
        let got = member.takes(2).await;
        assert_eq!(offsets(&got), [(0, n.into()), (1, n.into())]);
        member.leave().await;
        let refused = member.take(1, 0).await.expect_err("it left");
        assert_eq!(refused.name(), "NotAMember");
    }
    assert_eq!(peer.info().await.failed, 0);
    let member = peer.member(4).await;
    let got = member.takes(2).await;
    member.connection.close();
    drop(member);
    let again = other.takes(2).await;
    assert_eq!(offsets(&again), [(0, 5), (1, 5)]);
    assert_eq!(offsets(&got), [(0, 4), (1, 4)]);
    assert_eq!(other.say(&again, Verdict::Ack).await, []);
    assert_eq!(peer.info().await.dead, 0);
    peer.stop().await;
}

#[tokio::test]
async fn nobody_settles_what_it_does_not_hold() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let (peer, topic) = begin(dir.path()).await;
    peer.make_group(options()).await;
    peer.put(topic, &[""; 3]).await;
    let (member, other) = (peer.member(1).await, peer.member(2).await);
    let got = member.takes(2).await;
    let run = |first, count, delivery| SettledRun {
        first: Offset::new(first),
        count,
        delivery,
        verdict: Verdict::Ack,
    };
    let instead = async |consumer: &Consumer, run| {
        let not_held = consumer.settle(vec![run]).await.expect("a member");
        let told = not_held.iter().map(|n| (n.first.get(), n.count, n.instead));
        told.collect::<Vec<_>>()
    };
    use Instead::{Elsewhere, Settled, Untouched};
    assert_eq!(instead(&other, run(0, 2, 1)).await, [(0, 2, Elsewhere)]);
    assert_eq!(instead(&member, run(0, 1, 7)).await, [(0, 1, Elsewhere)]);
    assert_eq!(instead(&member, run(2, 9, 1)).await, [(2, 9, Untouched)]);
    assert_eq!(instead(&member, run(u64::MAX, 1, 1)).await, []);
    assert_eq!(member.say(&got, Verdict::Ack).await, []);
    let twice = instead(&member, run(0, 4, 1)).await;
    assert_eq!(twice, [(0, 2, Settled), (2, 2, Untouched)]);
    // Who is not a member, or is one elsewhere, is told so.
    let stranger = Consumer {
        connection: peer.connect().await,
        group: group("g"),
        ..member
    };
    let refused = stranger
        .settle(vec![run(2, 1, 1)])
        .await
        .expect_err("a stranger");
    assert_eq!(refused.name(), "NotAMember");
    assert_eq!(
        stranger.join().await.expect_err("the id").name(),
        "InvalidArgument"
    );
    let too_much = vec![run(0, u32::MAX, 1)];
    assert_eq!(
        other.settle(too_much).await.expect_err("much").name(),
        "InvalidArgument"
    );
    assert_eq!(peer.info().await.floor, Offset::new(2));
    peer.stop().await;
}

#[tokio::test]
async fn records_of_a_key_are_at_one_member_and_in_order() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let (peer, topic) = begin(dir.path()).await;
    peer.make_group(ConsumerGroupChanges {
        ordered_by_key: Some(true),
        ..options()
    })
    .await;
    peer.put(topic, &["a", "b", "a", "c", "", "a", "b"]).await;
    let (first, second) = (peer.member(1).await, peer.member(2).await);
    let one = first.takes(1).await;
    assert_eq!(offsets(&one), [(0, 1)]);
    // The other records of "a" wait for it; everything else goes.
    let others = second.takes(4).await;
    assert_eq!(offsets(&others), [(1, 1), (3, 1), (4, 1), (6, 1)]);
    assert_eq!(second.take(9, 0).await.expect("a member"), []);
    // A record that fails takes the later ones of its key with it.
    assert_eq!(second.say(&others[..1], nak()).await, []);
    let taken_back = second.say(&others[3..], Verdict::Ack).await;
    assert_eq!(taken_back[0].instead, Instead::Waiting);
    let again = first.takes(2).await;
    assert_eq!(offsets(&again), [(1, 2), (6, 2)]);
    assert_eq!(first.say(&one, Verdict::Ack).await, []);
    let rest = second.takes(2).await;
    assert_eq!(offsets(&rest), [(2, 1), (5, 1)]);
    assert_eq!(rest[1].key.as_deref(), Some(&b"a"[..]));
    assert_eq!(second.say(&rest, Verdict::Ack).await, []);
    assert_eq!(second.say(&others[1..3], Verdict::Ack).await, []);
    assert_eq!(first.say(&again, Verdict::Ack).await, []);
    assert_eq!(peer.info().await.floor, Offset::new(7));
    peer.stop().await;
}

#[tokio::test]
async fn what_cannot_be_consumed_is_a_dead_letter_and_can_be_replayed() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let (peer, topic) = begin(dir.path()).await;
    peer.make_group(ConsumerGroupChanges {
        deliveries_max: Some(2),
        ..options()
    })
    .await;
    peer.put(topic, &["a", "b", "c"]).await;
    let member = peer.member(1).await;
    let got = member.takes(3).await;
    let reason = "größer als erlaubt".to_owned();
    assert_eq!(member.say(&got[..1], Verdict::Reject { reason }).await, []);
    assert_eq!(member.say(&got[1..2], Verdict::Ack).await, []);
    assert_eq!(member.say(&got[2..], nak()).await, []);
    let again = member.takes(1).await;
    assert_eq!(offsets(&again), [(2, 2)]);
    assert_eq!(member.say(&again, nak()).await, []);
    eventually("two dead letters", async || peer.info().await.dead == 2).await;
    let info = peer.info().await;
    assert_eq!((info.floor.get(), info.dying, info.unsettled), (3, 0, 0));
    let letters = peer.read_all("dead.t.g").await;
    let mut told = Vec::new();
    for letter in &letters {
        let headers = letter
            .headers
            .iter()
            .map(|h| (h.name.as_str(), &h.value[..]));
        let of = Obituary::of(headers).expect("a dead letter");
        assert_eq!((of.topic, of.group), (name("t"), group("g")));
        told.push((of.offset.get(), of.deliveries, of.reason));
    }
    told.sort();
    assert_eq!(told[0], (0, 1, "größer als erlaubt".to_owned()));
    assert_eq!(told[1], (2, 2, "delivered 2 times".to_owned()));
    let replayed = peer.ask(ReplayDeadLetters {
        topic: name("dead.t.g"),
        before: Offset::new(9),
    });
    let replayed = replayed.await.expect("replayed");
    assert_eq!((replayed.next.get(), replayed.replayed), (2, 2));
    assert_eq!(
        peer.describe("dead.t.g")
            .await
            .expect("there")
            .start_offset
            .get(),
        2
    );
    let mut values: Vec<_> = member
        .takes(2)
        .await
        .into_iter()
        .map(|got| got.value)
        .collect();
    values.sort();
    assert_eq!(values, [&b"a0"[..], b"c2"]);
    assert!(
        peer.read_all("t")
            .await
            .iter()
            .all(|record| record.headers.is_empty())
    );
    peer.stop().await;
}

#[tokio::test]
async fn where_dead_letters_cannot_be_written_everything_else_goes_on() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let (peer, topic) = begin(dir.path()).await;
    peer.make_group(options()).await;
    // The name of another peer's topic: the index will not grant it.
    peer.index.lock().registered = true;
    peer.store
        .purge_topic(name("t"), Position::End)
        .await
        .expect("empty");
    peer.index.lock().taken.insert(name("dead.t.g"));
    peer.index.lock().refuse_claims = true;
    peer.put(topic, &["", ""]).await;
    let member = peer.member(1).await;
    let got = member.takes(2).await;
    let reason = "bad".to_owned();
    assert_eq!(
        member.say(&got[..1], Verdict::Reject { reason }).await,
        [],
        "it is durable"
    );
    assert_eq!(member.say(&got[1..], Verdict::Ack).await, []);
    eventually("it is told", async || peer.info().await.stuck.is_some()).await;
    let info = peer.info().await;
    assert_eq!((info.dying, info.dead, info.unsettled), (1, 0, 1));
    peer.stop().await;
    // It still dies after a restart, and without anybody taking anything.
    let peer = start(dir.path(), |_| ()).await;
    eventually("registered", async || peer.index.lock().registered).await;
    eventually("a dead letter", async || peer.info().await.dead == 1).await;
    assert_eq!(peer.read_all("dead.t.g").await.len(), 1);
    peer.stop().await;
}

#[tokio::test]
async fn a_group_that_is_moved_or_gone_tells_its_members() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let (peer, topic) = begin(dir.path()).await;
    peer.make_group(options()).await;
    peer.put(topic, &[""; 3]).await;
    let member = peer.member(1).await;
    let got = member.takes(3).await;
    assert_eq!(member.say(&got, Verdict::Ack).await, []);
    let seek = |dry_run| SeekConsumerGroup {
        topic: name("t"),
        name: group("g"),
        to: Position::Offset(Offset::new(1)),
        dry_run,
    };
    let told = peer.ask(seek(true)).await.expect("told");
    assert_eq!(
        (told.from.get(), told.to.get(), told.group.floor.get()),
        (3, 1, 3)
    );
    let (waited, sought) = tokio::join!(member.take(1, 10_000), peer.ask(seek(false)));
    assert_eq!(waited.expect_err("moved").name(), "StaleGeneration");
    assert_eq!(sought.expect("moved").group.floor.get(), 1);
    let late = member.settle(Vec::new()).await.expect_err("moved");
    assert_eq!(late.name(), "StaleGeneration");
    let member = peer.member(2).await;
    assert_eq!(offsets(&member.takes(2).await), [(1, 1), (2, 1)]);
    let delete = DeleteConsumerGroup {
        topic: name("t"),
        name: group("g"),
    };
    let (waited, deleted) = tokio::join!(member.take(1, 10_000), peer.ask(delete.clone()));
    assert_eq!(waited.expect_err("gone").name(), "ConsumerGroupNotFound");
    deleted.expect("gone");
    assert_eq!(
        peer.ask(delete).await.expect_err("gone").name(),
        "ConsumerGroupNotFound"
    );
    // A group made anew begins anew.
    peer.make_group(options()).await;
    let member = peer.member(3).await;
    assert_eq!(member.takes(3).await.len(), 3);
    let drop_topic = DeleteTopic {
        name: name("t"),
        id: None,
    };
    let (waited, dropped) = tokio::join!(member.take(1, 10_000), peer.ask(drop_topic));
    assert_eq!(waited.expect_err("gone").name(), "UnknownTopicId");
    dropped.expect("gone");
    peer.stop().await;
}

#[tokio::test]
async fn names_are_shared_with_subscriptions_and_discarded_records_are_told() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let (peer, topic) = begin(dir.path()).await;
    peer.make_group(options()).await;
    let subscribe = |named: &str| CreateSubscription {
        topic: name("t"),
        name: group(named),
        from: Position::Beginning,
        expire_ms: None,
        if_not_exists: true,
    };
    let refused = peer.ask(subscribe("g")).await.expect_err("its name");
    assert_eq!(refused.name(), "ConsumerGroupExists");
    peer.ask(subscribe("s")).await.expect("made");
    let refused = peer.make("s", options()).await.expect_err("its name");
    assert_eq!(refused.name(), "SubscriptionExists");
    assert_eq!(
        peer.make("g", options()).await.expect_err("twice").name(),
        "ConsumerGroupExists"
    );

    peer.put(topic, &[""; 5]).await;
    let member = peer.member(1).await;
    let got = member.takes(2).await;
    peer.store
        .purge_topic(name("t"), Position::Offset(Offset::new(4)))
        .await
        .expect("purged");
    eventually("they are gone", async || peer.info().await.skipped == 4).await;
    let late = member.say(&got, Verdict::Ack).await;
    assert_eq!(late[0].instead, Instead::Settled);
    assert_eq!(offsets(&member.takes(1).await), [(4, 1)]);
    let page = peer.ask(ListConsumerGroups {
        topic: None,
        after: None,
        limit: 10,
    });
    let page = page.await.expect("listed");
    assert_eq!((page.groups.len(), page.more), (1, false));
    assert_eq!(
        (page.groups[0].in_flight, page.groups[0].members.len()),
        (1, 0)
    );
    peer.stop().await;
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a directory");
    for entry in std::fs::read_dir(from).expect("readable") {
        let entry = entry.expect("readable");
        let to = to.join(entry.file_name());
        match entry.file_type().expect("known").is_dir() {
            true => copy(&entry.path(), &to),
            // The database deletes files of its own while it works.
            false => _ = std::fs::copy(entry.path(), to),
        }
    }
}

/// What a store that was killed now would have: a copy of its directory, opened.
async fn killed_now(dir: &Path) -> (ConsumerGroupInfo, usize) {
    let image = tempfile::tempdir().expect("a scratch directory");
    // The catalog is built anew from the journal.
    copy(&dir.join("journal"), &image.path().join("journal"));
    let peer = start(image.path(), |_| ()).await;
    let info = peer.info().await;
    let letters = match peer.describe("dead.t.g").await {
        Ok(topic) => topic.end_offset.get() as usize,
        Err(_) => 0,
    };
    peer.stop().await;
    (info, letters)
}

#[tokio::test]
async fn what_was_answered_is_there_whenever_the_peer_is_killed() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let (peer, topic) = begin(dir.path()).await;
    peer.make_group(ConsumerGroupChanges {
        deliveries_max: Some(3),
        ..options()
    })
    .await;
    peer.put(topic, &[""; 600]).await;
    let member = peer.member(1).await;
    let got = member.takes(600).await;
    assert_eq!(
        killed_now(dir.path()).await.0.unsettled,
        600,
        "a take leaves nothing behind"
    );
    assert_eq!(member.say(&got[..10], Verdict::Ack).await, []);
    assert_eq!(member.say(&got[300..310], Verdict::Ack).await, []);
    let (info, _) = killed_now(dir.path()).await;
    assert_eq!(
        (info.floor.get(), info.unsettled, info.acknowledged),
        (10, 580, 20)
    );
    let later = Verdict::Nak {
        delay_ms: Some(60_000),
    };
    assert_eq!(member.say(&got[20..22], later).await, []);
    let (info, _) = killed_now(dir.path()).await;
    assert_eq!((info.failed, info.in_flight, info.dead), (2, 0, 0));
    let reason = "bad".to_owned();
    assert_eq!(
        member.say(&got[30..33], Verdict::Reject { reason }).await,
        []
    );
    let (info, letters) = killed_now(dir.path()).await;
    assert_eq!(info.dying + info.dead, 3, "rejected for good");
    assert_eq!(info.dead as usize, letters, "letter and bit are one step");
    eventually("letters", async || peer.info().await.dead == 3).await;
    let (info, letters) = killed_now(dir.path()).await;
    assert_eq!((info.dead, info.dying, letters), (3, 0, 3));
    assert_eq!(info.unsettled, 577);
    peer.stop().await;
}

#[tokio::test]
async fn a_thousand_groups_on_one_topic() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let (peer, topic) = begin(dir.path()).await;
    peer.put(topic, &["", ""]).await;
    for n in 0..1_000 {
        let info = peer.make(&format!("g{n}"), options()).await.expect("made");
        let consumer = peer.member_of(&info, 1).await;
        let got = consumer.takes(2).await;
        assert_eq!(consumer.say(&got, Verdict::Ack).await, []);
    }
    let refused = peer.make("g0", options()).await.expect_err("twice");
    assert_eq!(refused.name(), "ConsumerGroupExists");
    let (mut after, mut told) = (None, 0);
    loop {
        let (topic, limit) = (Some(name("t")), 300);
        let page = peer
            .ask(ListConsumerGroups {
                topic,
                after,
                limit,
            })
            .await;
        let page = page.expect("listed");
        assert!(
            page.groups
                .iter()
                .all(|info| info.floor.get() == 2 && info.acknowledged == 2)
        );
        told += page.groups.len();
        if !page.more {
            break;
        }
        let last = page.groups.last().expect("not empty");
        after = Some((last.topic.clone(), last.name.clone()));
    }
    assert_eq!(told, 1_000);
    peer.stop().await;
}
