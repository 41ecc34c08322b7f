//! Publishers: what is stored, what is acknowledged, and whether the two agree.

use std::time::Duration;

use super::node::{Fault, Running, SOON, name};
use crate::client::{Ack, Client, ClientError, Compression, Message, Publisher, PublisherOptions};
use crate::limits;
use crate::protocol::error::ApiError;
use crate::types::{LeaderEpoch, Offset, Sequence};

/// Small batches, so that a few messages make a pipeline.
fn small_batches() -> PublisherOptions {
    PublisherOptions {
        batch_bytes: 200,
        ..PublisherOptions::default()
    }
}

async fn publisher(client: &Client, options: PublisherOptions) -> Publisher {
    let publisher = client.publisher(&name("t"), options).await;
    publisher.expect("the topic is there")
}

async fn send(publisher: &Publisher, range: std::ops::Range<usize>) -> Vec<Ack> {
    let mut acks = Vec::new();
    for n in range {
        let ack = publisher
            .send(Message::new(format!("message {n:05}")))
            .await;
        acks.push(ack.expect("taken"));
    }
    acks
}

async fn outcome(ack: Ack) -> Result<Offset, ClientError> {
    let acked = tokio::time::timeout(SOON, ack).await.expect("in time");
    acked.map(|acked| acked.offset)
}

/// Every message of `range` is stored once, in order, at the acknowledged offset.
async fn assert_exact(host: &super::node::Node, acks: Vec<Ack>) {
    let count = acks.len();
    let mut offsets = Vec::new();
    for ack in acks {
        offsets.push(outcome(ack).await.expect("acknowledged").get());
    }
    let expected: Vec<String> = (0..count).map(|n| format!("message {n:05}")).collect();
    assert_eq!(host.change(&name("t"), |t| t.values()), expected);
    let dense: Vec<u64> = (0..count as u64).collect();
    assert_eq!(offsets, dense);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_are_stored_in_order_at_the_acknowledged_offsets() {
    for compression in [Compression::None, Compression::Lz4, Compression::Zstd] {
        let host = Running::peer("a", &["t"]).await;
        let options = PublisherOptions {
            compression,
            ..PublisherOptions::default()
        };
        let publisher = publisher(&host.client().await, options).await;
        let acks = send(&publisher, 0..20_000).await;
        publisher.flush().await.expect("all is well");
        assert!(acks.iter().all(Ack::is_settled));
        assert_exact(&host, acks).await;
        let batches = host.change(&name("t"), |topic| topic.batches.len());
        assert!(batches < 2_000, "{batches} batches for 20,000 messages");
        publisher.close().await.expect("all is well");
    }
}

fn messages(range: std::ops::Range<usize>) -> Vec<Message> {
    range
        .map(|n| Message::new(format!("message {n:05}")))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_sent_together_are_stored_in_order_and_share_acknowledgements() {
    let host = Running::peer("a", &["t"]).await;
    // Less memory than the messages take: they go in a part at a time.
    let options = PublisherOptions {
        batch_bytes: 4096,
        memory_bytes_max: 64 * 1024,
        ..PublisherOptions::default()
    };
    let publisher = publisher(&host.client().await, options).await;
    let mut next = 0;
    for (start, end) in [(0, 1), (1, 1500), (1500, 5000)] {
        let sent = messages(start..end);
        let acks = publisher.send_batch(&sent).await.expect("taken");
        assert!(acks.len() <= 2 + sent.len() / 100, "{} acks", acks.len());
        for ack in acks {
            let count = ack.count() as u64;
            let run = ack.await.expect("stored").offsets;
            assert_eq!(run, Offset::new(next)..Offset::new(next + count));
            next += count;
        }
        assert_eq!(next, end as u64, "each message is acknowledged");
    }
    let expected: Vec<String> = (0..5000).map(|n| format!("message {n:05}")).collect();
    assert_eq!(host.change(&name("t"), |topic| topic.values()), expected);
}

#[tokio::test]
async fn of_messages_sent_together_all_are_taken_or_none() {
    let host = Running::peer("a", &["t"]).await;
    let publisher = publisher(&host.client().await, PublisherOptions::default()).await;
    let mut sent = messages(0..3);
    sent.insert(1, Message::new(vec![0; limits::MESSAGE_BYTES_DEFAULT + 1]));
    let refused = publisher.send_batch(&sent).await;
    let max = limits::MESSAGE_BYTES_DEFAULT as u64;
    let expected = ApiError::MessageTooLarge {
        bytes: max + 1,
        max,
    };
    assert_eq!(refused.err(), Some(expected.into()));
    publisher.flush().await.expect("nothing to do");
    assert!(host.change(&name("t"), |topic| topic.values()).is_empty());
    assert!(publisher.send_batch(&[]).await.expect("nothing").is_empty());
    let other = publisher.clone();
    publisher.close().await.expect("all is well");
    let closed = other.send_batch(&messages(0..1)).await;
    assert_eq!(closed.err(), Some(ClientError::Closed));
}

#[tokio::test]
async fn a_lone_message_does_not_wait_for_others() {
    let host = Running::peer("a", &["t"]).await;
    let publisher = publisher(&host.client().await, PublisherOptions::default()).await;
    for n in 0..3 {
        let acks = send(&publisher, n..n + 1).await;
        for ack in acks {
            assert_eq!(outcome(ack).await, Ok(Offset::new(n as u64)));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_is_killed_in_the_middle_gets_everything_once() {
    let mut host = Running::peer("a", &["t"]).await;
    let publisher = publisher(&host.client().await, small_batches()).await;
    let sending = tokio::spawn({
        let publisher = publisher.clone();
        async move { send(&publisher, 0..30_000).await }
    });
    for kill in 1..=4 {
        while host.disk().publishes < kill * 300 {
            tokio::task::yield_now().await;
        }
        // Some batches are stored without an answer, some vanish with the process.
        host.plan([Fault::StoreSilently, Fault::StoreSilently, Fault::Ignore]);
        let publishes = host.disk().publishes;
        while host.disk().publishes < publishes + 3 {
            tokio::task::yield_now().await;
        }
        let node = host.kill().await;
        node.disk().faults.clear();
        tokio::time::sleep(Duration::from_millis(30)).await;
        host = Running::restart(node).await;
    }
    let acks = sending.await.expect("no panic");
    publisher.close().await.expect("everything is stored");
    assert_exact(&host, acks).await;
    let producers = host.change(&name("t"), |topic| topic.producers());
    assert_eq!(producers, 1, "retries keep their producer id");
}

#[tokio::test]
async fn an_answer_that_never_comes_is_asked_for_again() {
    let host = Running::peer("a", &["t"]).await;
    let client = host.client_with(Duration::from_millis(600)).await;
    host.plan([Fault::Serve, Fault::StoreSilently, Fault::Ignore]);
    let publisher = publisher(&client, small_batches()).await;
    let acks = send(&publisher, 0..100).await;
    publisher.flush().await.expect("stored in the end");
    assert_exact(&host, acks).await;
}

fn disk_reserve() -> ApiError {
    ApiError::DiskReserve {
        free_bytes: 1,
        needed_bytes: 2,
    }
}

#[tokio::test]
async fn a_full_disk_is_waited_for() {
    let host = Running::peer("a", &["t"]).await;
    host.plan(vec![Fault::Refuse(disk_reserve()); 7]);
    let publisher = publisher(&host.client().await, small_batches()).await;
    let acks = send(&publisher, 0..100).await;
    publisher.flush().await.expect("there is room in the end");
    assert_exact(&host, acks).await;
}

#[tokio::test]
async fn room_in_a_full_topic_is_waited_for_and_that_is_told() {
    let host = Running::peer("a", &["t"]).await;
    let full = ApiError::TopicFull {
        name: name("t"),
        records: 3,
        bytes: 300,
    };
    host.plan(vec![Fault::Refuse(full.clone()); 10_000]);
    let publisher = publisher(&host.client().await, small_batches()).await;
    let mut told = publisher.watch_full();
    assert!(!*told.borrow());
    let acks = send(&publisher, 0..100).await;
    let is_full = tokio::time::timeout(SOON, told.wait_for(|full| *full)).await;
    is_full.expect("in time").expect("it lives");
    host.disk().faults.clear();
    publisher.flush().await.expect("there is room in the end");
    assert!(!*told.borrow(), "it is told that there is room again");
    assert_exact(&host, acks).await;
    // Not for ever: nothing of it is stored, and that is certain.
    host.plan(vec![Fault::Refuse(full.clone()); 10_000]);
    let client = host.client_with(Duration::from_millis(200)).await;
    let publisher = client.publisher(&name("t"), small_batches()).await;
    let publisher = publisher.expect("there");
    for ack in send(&publisher, 0..10).await {
        assert_eq!(outcome(ack).await, Err(ClientError::Api(full.clone())));
    }
}

#[tokio::test]
async fn a_disk_that_stays_full_is_a_definite_failure() {
    let host = Running::peer("a", &["t"]).await;
    host.plan(vec![Fault::Refuse(disk_reserve()); 10_000]);
    let client = host.client_with(Duration::from_millis(200)).await;
    let publisher = publisher(&client, small_batches()).await;
    for ack in send(&publisher, 0..100).await {
        assert_eq!(outcome(ack).await, Err(ClientError::Api(disk_reserve())));
    }
    assert_eq!(
        publisher.flush().await,
        Err(ClientError::Api(disk_reserve()))
    );
    host.disk().faults.clear();
    let acks = send(&publisher, 0..100).await;
    publisher.flush().await.expect("it goes on");
    assert_exact(&host, acks).await;
}

#[tokio::test]
async fn what_may_be_stored_when_the_patience_ends_is_unknown() {
    let host = Running::peer("a", &["t"]).await;
    let client = host.client_with(Duration::from_millis(400)).await;
    let publisher = publisher(&client, small_batches()).await;
    host.plan(vec![Fault::StoreSilently; 10_000]);
    let acks = send(&publisher, 0..500).await;
    let (mut unknown, mut definite) = (0, 0);
    for ack in acks {
        match outcome(ack).await.expect_err("nothing was answered") {
            ClientError::OutcomeUnknown { .. } => unknown += 1,
            ClientError::Unreachable { .. } | ClientError::TimedOut { .. } => definite += 1,
            other => panic!("{other}"),
        }
    }
    let stored = host.change(&name("t"), |topic| topic.values().len());
    assert!(unknown >= stored, "{unknown} unknown, {stored} are stored");
    assert!(definite > 0, "what was never sent failed for certain");
    host.disk().faults.clear();
    for ack in send(&publisher, 0..10).await {
        outcome(ack).await.expect("it goes on");
    }
}

#[tokio::test]
async fn a_batch_refused_for_good_fails_alone() {
    let host = Running::peer("a", &["t"]).await;
    let publisher = publisher(&host.client().await, small_batches()).await;
    let refused = ApiError::BadBatch {
        reason: "it is green".to_owned(),
    };
    let mut faults = vec![Fault::Serve; 3];
    faults.push(Fault::Refuse(refused.clone()));
    host.plan(faults);
    let acks = send(&publisher, 0..500).await;
    assert_eq!(
        publisher.flush().await,
        Err(ClientError::Api(refused.clone()))
    );
    let mut stored = Vec::new();
    let mut failed = 0;
    for (n, ack) in acks.into_iter().enumerate() {
        match outcome(ack).await {
            Ok(offset) => stored.push((offset.get(), format!("message {n:05}"))),
            Err(error) => {
                assert_eq!(error, ClientError::Api(refused.clone()));
                failed += 1;
            }
        }
    }
    assert!((1..100).contains(&failed), "{failed} failed");
    let values = host.change(&name("t"), |topic| topic.values());
    let expected: Vec<_> = (0..).zip(values).collect();
    assert_eq!(stored, expected);
    let producers = host.change(&name("t"), |topic| topic.producers());
    assert_eq!(producers, 2, "what followed got a fresh id");
}

#[tokio::test]
async fn a_first_batch_refused_for_good_does_not_block_the_rest() {
    let host = Running::peer("a", &["t"]).await;
    let publisher = publisher(&host.client().await, small_batches()).await;
    host.plan([Fault::Refuse(ApiError::BadBatch {
        reason: "no".to_owned(),
    })]);
    let mut failed = 0;
    for ack in send(&publisher, 0..200).await {
        failed += usize::from(outcome(ack).await.is_err());
    }
    let stored = host.change(&name("t"), |topic| topic.values().len());
    assert_eq!((stored + failed, failed > 0), (200, true));
}

#[tokio::test]
async fn a_forgotten_producer_makes_retries_unknown_and_the_rest_goes_on() {
    for retry_says in [
        ApiError::UnknownProducer,
        ApiError::DuplicateTooOld {
            given: Sequence::new(1),
            oldest: Sequence::new(2),
        },
    ] {
        let host = Running::peer("a", &["t"]).await;
        let publisher = publisher(&host.client().await, PublisherOptions::default()).await;
        for ack in send(&publisher, 0..1).await {
            outcome(ack).await.expect("stored");
        }
        host.plan([Fault::StoreSilently, Fault::Refuse(retry_says)]);
        let acks = send(&publisher, 1..2).await;
        while host.disk().publishes < 2 {
            tokio::task::yield_now().await;
        }
        let node = host.kill().await;
        let host = Running::restart(node).await;
        for ack in acks {
            let error = outcome(ack).await.expect_err("nobody knows");
            assert_eq!(error.name(), "OutcomeUnknown", "{error}");
        }
        host.change(&name("t"), |topic| topic.forget_producers());
        for ack in send(&publisher, 2..3).await {
            outcome(ack).await.expect("under a fresh id");
        }
        let values = host.change(&name("t"), |topic| topic.values());
        assert_eq!(values, ["message 00000", "message 00001", "message 00002"]);
    }
}

#[tokio::test]
async fn a_topic_that_moves_is_followed() {
    let old = Running::peer("old", &["t"]).await;
    let new = Running::peer("newer", &["t"]).await;
    let client = old.client().await;
    let publisher = publisher(&client, small_batches()).await;
    let mut acks = send(&publisher, 0..50).await;
    publisher.flush().await.expect("stored");
    // Everything goes over: records, producers, the id; the epoch rises.
    let epoch = LeaderEpoch::new(2);
    old.change(&name("t"), |from| {
        new.change(&name("t"), |to| std::mem::swap(from, to));
        from.id = new.change(&name("t"), |to| to.id);
        from.moved = Some((new.info.clone(), epoch));
    });
    new.change(&name("t"), |topic| topic.epoch = epoch);
    acks.extend(send(&publisher, 50..100).await);
    publisher.flush().await.expect("stored at the new host");
    assert_exact(&new, acks).await;
}

#[tokio::test]
async fn a_stale_epoch_is_looked_up_again() {
    let host = Running::peer("a", &["t"]).await;
    let publisher = publisher(&host.client().await, PublisherOptions::default()).await;
    host.change(&name("t"), |topic| topic.epoch = LeaderEpoch::new(9));
    let acks = send(&publisher, 0..10).await;
    publisher.flush().await.expect("stored");
    assert_exact(&host, acks).await;
}

/// Where a topic is stays known, and its id with it: the first publisher that was made for one of the same name failed.
#[tokio::test]
async fn a_topic_made_anew_is_found_by_the_next_publisher() {
    for is_elsewhere in [false, true] {
        let host = Running::peer("a", &["t", "u"]).await;
        let other = Running::peer("b", &["t"]).await;
        let client = host.client_with(Duration::from_secs(2)).await;
        let first = publisher(&client, PublisherOptions::default()).await;
        first.close().await.expect("nothing was sent");
        let at = match is_elsewhere {
            true => {
                host.change(&name("t"), |topic| {
                    topic.moved = Some((other.info.clone(), LeaderEpoch::new(1)));
                });
                &other
            }
            false => {
                let mut disk = host.disk();
                let made_anew = disk.topics.remove(&name("u")).expect("it is there");
                disk.topics.insert(name("t"), made_anew);
                &host
            }
        };
        let publisher = publisher(&client, PublisherOptions::default()).await;
        let acks = send(&publisher, 0..3).await;
        publisher.flush().await.expect("stored");
        assert_exact(at, acks).await;
        let id = at.change(&name("t"), |topic| topic.id);
        assert_eq!(publisher.topic_id(), id);
    }
}

#[tokio::test]
async fn a_topic_made_anew_under_the_same_name_ends_the_publisher() {
    let host = Running::peer("a", &["t", "u"]).await;
    let client = host.client_with(Duration::from_secs(2)).await;
    let publisher = publisher(&client, PublisherOptions::default()).await;
    {
        let mut disk = host.disk();
        let other = disk.topics.remove(&name("u")).expect("it is there");
        disk.topics.insert(name("t"), other);
    }
    for ack in send(&publisher, 0..3).await {
        let error = outcome(ack).await.expect_err("it is another topic");
        assert_eq!(error.name(), "UnknownTopicId", "{error}");
    }
    let refused = publisher.send(Message::new("x")).await.expect_err("ended");
    assert_eq!(refused.name(), "UnknownTopicId");
}

#[tokio::test]
async fn messages_that_fit_nowhere_are_refused_at_once() {
    let host = Running::peer("a", &["t"]).await;
    let publisher = publisher(&host.client().await, PublisherOptions::default()).await;
    let largest = Message::new(vec![7; limits::MESSAGE_BYTES_DEFAULT]);
    let larger = Message::new(vec![7; limits::MESSAGE_BYTES_DEFAULT + 1]);
    let error = publisher.send(larger).await.expect_err("one byte too many");
    assert_eq!(error.name(), "MessageTooLarge");
    let long_key = Message::new("x").with_key(vec![1; limits::KEY_BYTES_MAX + 1]);
    let error = publisher.send(long_key).await.expect_err("too long");
    assert_eq!(error.name(), "BadBatch");
    let ack = publisher.send(largest).await.expect("the largest is taken");
    assert_eq!(outcome(ack).await, Ok(Offset::ZERO));
}

#[tokio::test]
async fn sending_waits_when_the_memory_is_full() {
    let host = Running::peer("a", &["t"]).await;
    let options = PublisherOptions {
        memory_bytes_max: 10_000,
        ..PublisherOptions::default()
    };
    let publisher = publisher(&host.client().await, options).await;
    host.plan(vec![Fault::Ignore; 10]);
    let filling = send(&publisher, 0..1_000);
    let filled = tokio::time::timeout(Duration::from_millis(200), filling).await;
    assert!(
        filled.is_err(),
        "1,000 messages do not fit into 10,000 bytes"
    );
    let node = host.kill().await;
    node.disk().faults.clear();
    let host = Running::restart(node).await;
    publisher.flush().await.expect("it went on");
    let acks = send(&publisher, 0..1_000).await;
    for ack in acks {
        outcome(ack).await.expect("stored");
    }
    drop(host);
}

#[tokio::test]
async fn dropping_a_publisher_still_delivers() {
    let host = Running::peer("a", &["t"]).await;
    let publisher = publisher(&host.client().await, small_batches()).await;
    let clone = publisher.clone();
    let acks = send(&publisher, 0..100).await;
    drop(publisher);
    drop(clone);
    assert_exact(&host, acks).await;
}

#[tokio::test]
async fn a_closed_publisher_takes_nothing() {
    let host = Running::peer("a", &["t"]).await;
    let publisher = publisher(&host.client().await, PublisherOptions::default()).await;
    let clone = publisher.clone();
    publisher.close().await.expect("nothing failed");
    let refused = clone.send(Message::new("x")).await;
    assert_eq!(refused.expect_err("closed"), ClientError::Closed);
}
