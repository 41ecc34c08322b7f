//! A peer on a real socket and a real disk, with an index that does what a test wants.

mod consumers;
mod leaving;

use std::collections::HashSet;
use std::sync::Mutex;

use bytes::Bytes;
use tokio::sync::Notify;

use super::*;
use crate::net::{Call, CallError, Connection, DialOptions, Handling, Reply, Service};
use crate::protocol::api::*;
use crate::protocol::batch::{BatchBuilder, Compression, RecordToSend};
use crate::protocol::data::{Fetch, Fetched, Publish, Published};
use crate::protocol::error::ApiError;
use crate::time::Timestamp;
use crate::types::{
    LeaderEpoch, Offset, ProducerId, Sequence, TopicId, TopicName, TopicPattern, TopicSettings,
};

/// Longest wait of a test for anything.
const SOON: Duration = Duration::from_secs(20);

/// What the index was asked and answers.
#[derive(Default)]
struct FakeIndex {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    asked: Vec<Api>,
    /// Names that belong to somebody else.
    taken: HashSet<TopicName>,
    registered: bool,
    /// Connections to the peer, as of its last heartbeat.
    connections: u64,
    /// No name is granted.
    refuse_claims: bool,
    /// So many lists are not taken, of a peer that is heard from then on.
    refuse_lists: usize,
    lists_taken: usize,
    /// What is said of a name, claims aside, is answered when this is told: refused,
    /// unless nothing is held any more.
    hold_names: Option<Arc<Notify>>,
}

impl FakeIndex {
    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().expect("no test panics with it")
    }

    fn count(&self, api: Api) -> usize {
        self.lock().asked.iter().filter(|&&a| a == api).count()
    }

    fn conflicts(&self, topics: &[StoredTopic]) -> Vec<Conflict> {
        let taken = &self.lock().taken;
        let in_conflict = topics.iter().filter(|topic| taken.contains(&topic.name));
        in_conflict
            .map(|topic| Conflict {
                name: topic.name.clone(),
                id: topic.id,
                holder: "other".parse().expect("good"),
            })
            .collect()
    }
}

impl Service for FakeIndex {
    fn hello(&self) -> HelloAnswer {
        HelloAnswer {
            protocol: PROTOCOL_MAX,
            role: Role::Index,
            node: PeerId::zero(),
            name: "index".to_owned(),
            server: "fake".to_owned(),
            features: 0,
            frame_bytes_max: limits::FRAME_BYTES_MAX as u32,
            message_bytes_max: limits::MESSAGE_BYTES_DEFAULT as u32,
            requests_unanswered_max: limits::REQUESTS_UNANSWERED_MAX as u32,
            publishes_unanswered_max: limits::PUBLISHES_UNANSWERED_MAX as u32,
            indexes: Vec::new(),
        }
    }

    fn call(self: &Arc<Self>, call: Call, reply: Reply) -> Handling {
        self.lock().asked.push(call.api);
        let known = || match self.lock().registered {
            true => Ok(Done {}),
            false => Err(ApiError::NotRegistered),
        };
        let held = self.lock().hold_names.clone();
        match call.api {
            Api::RegisterPeer => {
                Handling::answer::<RegisterPeer>(reply, Ok(Registered { lease_ms: 10_000 }))
            }
            Api::RegisterTopics if self.lock().refuse_lists > 0 => {
                self.lock().refuse_lists -= 1;
                self.lock().registered = true;
                Handling::answer::<RegisterTopics>(reply, Err(ApiError::ShuttingDown))
            }
            Api::RegisterTopics => {
                let asked = call.decode::<RegisterTopics>().expect("well formed");
                let conflicts = self.conflicts(&asked.topics);
                let this = self.clone();
                Handling::finish::<RegisterTopics>(reply, async move {
                    // As long as an index takes that has something to write.
                    tokio::time::sleep(Duration::from_millis(30)).await;
                    this.lock().registered = true;
                    this.lock().lists_taken += 1;
                    Ok(RegisteredTopics { conflicts })
                })
            }
            Api::Heartbeat => {
                let asked = call.decode::<Heartbeat>().expect("well formed");
                self.lock().connections = asked.load.connections;
                Handling::answer::<Heartbeat>(reply, known())
            }
            Api::ClaimTopic if self.lock().refuse_claims => {
                let name = call.decode::<ClaimTopic>().expect("well formed").name;
                Handling::answer::<ClaimTopic>(reply, Err(ApiError::TopicExists { name }))
            }
            Api::ClaimTopic => {
                let claimed = known().map(|_| Claimed {
                    epoch: LeaderEpoch::new(1),
                });
                Handling::answer::<ClaimTopic>(reply, claimed)
            }
            Api::ConfirmTopic if held.is_some() => self.answer_later::<ConfirmTopic>(reply, held),
            Api::ConfirmTopic => Handling::answer::<ConfirmTopic>(reply, known()),
            Api::DropTopic if held.is_some() => self.answer_later::<DropTopic>(reply, held),
            Api::DropTopic => Handling::answer::<DropTopic>(reply, known()),
            Api::Depart => Handling::answer::<Depart>(reply, Ok(Done {})),
            Api::ListPeers => Handling::answer::<ListPeers>(reply, Ok(Vec::new())),
            Api::Lookup => {
                let name = call.decode::<Lookup>().expect("well formed").name;
                let answer = match self.lock().taken.contains(&name) {
                    true => Ok(elsewhere(name)),
                    false => Err(ApiError::TopicNotFound { name }),
                };
                Handling::answer::<Lookup>(reply, answer)
            }
            other => panic!("no test has the peer ask {}", other.name()),
        }
    }
}

impl FakeIndex {
    fn answer_later<R>(self: &Arc<Self>, reply: Reply, held: Option<Arc<Notify>>) -> Handling
    where
        R: Request<Answer = Done>,
    {
        let this = self.clone();
        Handling::finish::<R>(reply, async move {
            if let Some(held) = held {
                held.notified().await;
            }
            match this.lock().hold_names {
                Some(_) => Err(ApiError::ShuttingDown),
                None => Ok(Done {}),
            }
        })
    }
}

fn elsewhere(name: TopicName) -> TopicLocation {
    TopicLocation {
        name,
        id: TopicId::from_bytes([9; 16]),
        epoch: LeaderEpoch::new(1),
        peer: PeerId::from_bytes([9; 16]),
        peer_name: "other".parse().expect("good"),
        address: "127.0.0.1:1".parse().expect("good"),
        state: PeerState::Online,
        since: Timestamp::from_millis(1),
    }
}

/// A running peer, and its index.
struct Running {
    index: Arc<FakeIndex>,
    store: Store,
    address: Address,
    connection: Connection,
    stop: CancellationToken,
    serving: tokio::task::JoinHandle<Result<(), PeerError>>,
}

async fn listen() -> (TcpListener, Address) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound").to_string();
    (listener, address.parse().expect("an address"))
}

async fn start(dir: &std::path::Path, choose: impl FnOnce(&mut PeerOptions)) -> Running {
    let stop = CancellationToken::new();
    let index: Arc<FakeIndex> = Arc::default();
    let (listener, index_address) = listen().await;
    let server = Server::new(index.clone(), stop.child_token());
    tokio::spawn(async move { server.run(listener).await });

    let (listener, address) = listen().await;
    let store = StoreOptions {
        slot_bytes: 1 << 20,
        reserve_bytes: Some(0),
        ..StoreOptions::new(dir)
    };
    let mut options = PeerOptions {
        indexes: vec![index_address],
        heartbeat: Duration::from_millis(10),
        message_bytes_max: 100_000,
        ..PeerOptions::new(store, address.clone())
    };
    choose(&mut options);
    let (peer, _) = Peer::open(options).expect("it opens");
    let store = peer.store().clone();
    let serving = tokio::spawn(peer.serve(listener, stop.clone()));
    let dial = DialOptions {
        client: "a test".to_owned(),
        timeout: SOON,
    };
    let connection = Connection::connect(&address, &dial)
        .await
        .expect("it answers");
    Running {
        index,
        store,
        address,
        connection,
        stop,
        serving,
    }
}

impl Running {
    async fn ask<R: Request>(&self, request: R) -> Result<R::Answer, ApiError> {
        match self.connection.call(&request, SOON).await {
            Ok(answer) => Ok(answer),
            Err(CallError::Api(error)) => Err(error),
            Err(error) => panic!("{error}"),
        }
    }

    async fn create(&self, topic: &str) -> Result<CreatedTopic, ApiError> {
        self.ask(CreateTopic {
            name: name(topic),
            settings: TopicSettings::default(),
            if_not_exists: false,
        })
        .await
    }

    async fn describe(&self, topic: &str) -> Result<TopicInfo, ApiError> {
        self.ask(DescribeTopic { name: name(topic) }).await
    }

    async fn publish(&self, topic: TopicId, batch: &Bytes) -> Result<Published, ApiError> {
        let mut body = Publish::header(topic, LeaderEpoch::new(1)).to_vec();
        body.extend_from_slice(batch);
        match self
            .connection
            .call_raw(Api::Publish, Bytes::from(body), SOON)
            .await
        {
            Ok(answer) => Ok(Published::decode(answer).expect("well formed")),
            Err(CallError::Api(error)) => Err(error),
            Err(error) => panic!("{error}"),
        }
    }

    async fn fetch(&self, fetch: Fetch) -> Result<Fetched, ApiError> {
        let body = Bytes::from(fetch.encode());
        match self.connection.call_raw(Api::Fetch, body, SOON).await {
            Ok(answer) => Ok(Fetched::decode(answer).expect("well formed")),
            Err(CallError::Api(error)) => Err(error),
            Err(error) => panic!("{error}"),
        }
    }

    async fn stop(self) {
        self.stop.cancel();
        self.serving.await.expect("no panic").expect("a clean stop");
    }
}

fn name(text: &str) -> TopicName {
    text.parse().expect("a good name")
}

fn batch(first: u64, bytes: usize) -> Bytes {
    let mut builder = BatchBuilder::new(Compression::None);
    let record = RecordToSend {
        timestamp: Timestamp::from_millis(7),
        key: None,
        headers: &[],
        value: &vec![b'x'; bytes],
    };
    builder.try_push(&record).expect("it fits");
    let producer = ProducerId::from_bytes([7; 16]);
    builder
        .build(producer, Sequence::new(first))
        .expect("it builds")
}

async fn eventually<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let deadline = tokio::time::Instant::now() + SOON;
    while !holds().await {
        assert!(tokio::time::Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_heartbeat_does_not_ask_for_all_peers() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let peer = start(dir.path(), |_| ()).await;
    eventually("heartbeats", async || {
        peer.index.count(Api::Heartbeat) >= 20
    })
    .await;
    assert_eq!(peer.index.count(Api::ListPeers), 1, "once, on connecting");
    // A host that is not known is worth asking.
    peer.index.lock().taken.insert(name("quakes.nc"));
    let lookup = Lookup {
        name: name("quakes.nc"),
        local_only: false,
    };
    peer.ask(lookup).await.expect("it is elsewhere");
    eventually("another list", async || {
        peer.index.count(Api::ListPeers) == 2
    })
    .await;
    peer.stop().await;
}

#[tokio::test]
async fn one_registration_at_a_time_serves_all_who_want_one() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let peer = start(dir.path(), |_| ()).await;
    eventually("registered", async || peer.index.lock().registered).await;
    for round in 0..3 {
        // An index that lost everything, found out by the heartbeat and by several claims at once.
        peer.index.lock().asked.clear();
        peer.index.lock().registered = false;
        let names: Vec<String> = (0..4).map(|n| format!("round-{round}.{n}")).collect();
        let made = tokio::join!(
            peer.create(&names[0]),
            peer.create(&names[1]),
            peer.create(&names[2]),
            peer.create(&names[3]),
        );
        assert!(made.0.is_ok() && made.1.is_ok() && made.2.is_ok() && made.3.is_ok());
        let asked = peer.index.lock().asked.clone();
        let registering: Vec<Api> = asked
            .into_iter()
            .filter(|api| matches!(api, Api::RegisterPeer | Api::RegisterTopics))
            .collect();
        assert_eq!(
            registering,
            [Api::RegisterPeer, Api::RegisterTopics],
            "round {round}"
        );
    }
    peer.stop().await;
}

/// A peer that had introduced itself was heard by the index, which then never got to know its topics.
#[tokio::test]
async fn a_list_that_was_not_taken_is_told_again() {
    for is_found_by_a_claim in [false, true] {
        let dir = tempfile::tempdir().expect("a scratch directory");
        let peer = start(dir.path(), |_| ()).await;
        eventually("registered", async || peer.index.lock().registered).await;
        peer.index.lock().lists_taken = 0;
        peer.index.lock().refuse_lists = 1;
        peer.index.lock().registered = false;
        if is_found_by_a_claim {
            let _ = peer.create("quakes.ci").await;
        }
        eventually("told again", async || peer.index.lock().lists_taken > 0).await;
        assert_eq!(peer.index.lock().refuse_lists, 0);
        peer.stop().await;
    }
}

#[tokio::test]
async fn a_topic_gets_its_name_back_when_the_holder_lets_go() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let peer = start(dir.path(), |_| ()).await;
    let id = peer.create("quakes.ci").await.expect("made").topic.id;
    peer.publish(id, &batch(0, 10)).await.expect("stored");
    // The index forgets all, and the name is taken when the peer tells it.
    peer.index.lock().taken.insert(name("quakes.ci"));
    peer.index.lock().registered = false;
    let in_conflict = async || peer.describe("quakes.ci").await.expect("stored").conflict;
    eventually("a conflict", in_conflict).await;
    let refused = peer.publish(id, &batch(1, 10)).await;
    assert!(
        matches!(refused, Err(ApiError::NameConflict { .. })),
        "{refused:?}"
    );
    let again = peer
        .publish(id, &batch(0, 10))
        .await
        .expect("it was acknowledged");
    assert!(again.duplicate);
    // Whoever asks for the name means the other topic, also without an index.
    let lookup = |local_only| Lookup {
        name: name("quakes.ci"),
        local_only,
    };
    let found = peer.ask(lookup(false)).await.expect("it is elsewhere");
    assert_eq!(found.id, TopicId::from_bytes([9; 16]));
    let found = peer.ask(lookup(true)).await;
    assert!(
        matches!(found, Err(ApiError::TopicNotFound { .. })),
        "{found:?}"
    );

    peer.index.lock().taken.clear();
    eventually("the name is free", async || !in_conflict().await).await;
    peer.publish(id, &batch(1, 10))
        .await
        .expect("published again");
    peer.stop().await;
}

#[tokio::test]
async fn a_renamed_topic_is_usable_at_once() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let peer = start(dir.path(), |_| ()).await;
    let id = peer.create("quakes.ci").await.expect("made").topic.id;
    peer.index.lock().taken.insert(name("quakes.ci"));
    peer.index.lock().registered = false;
    let in_conflict = async || peer.describe("quakes.ci").await.expect("stored").conflict;
    eventually("a conflict", in_conflict).await;
    let rename = RenameTopic {
        name: name("quakes.ci"),
        new: name("quakes.old"),
    };
    let renamed = peer.ask(rename).await.expect("renamed");
    assert!(!renamed.conflict);
    peer.publish(id, &batch(0, 10)).await.expect("published");
    peer.stop().await;
}

/// The limit was lowered between a publish and its retry.
#[tokio::test]
async fn a_retry_of_a_stored_batch_is_not_refused_for_its_size() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let peer = start(dir.path(), |_| ()).await;
    let id = peer.create("quakes.ci").await.expect("made").topic.id;
    let stored = peer.publish(id, &batch(0, 90_000)).await.expect("stored");
    peer.stop().await;
    for limit in [80_000, 1_000] {
        let lower = |options: &mut PeerOptions| options.message_bytes_max = limit;
        let peer = start(dir.path(), lower).await;
        let again = peer
            .publish(id, &batch(0, 90_000))
            .await
            .expect("it is stored");
        assert!(again.duplicate);
        assert_eq!(again.base_offset, stored.base_offset);
        let new = peer.publish(id, &batch(1, 90_000)).await;
        let refused = matches!(
            new,
            Err(ApiError::MessageTooLarge { .. } | ApiError::BadBatch { .. })
        );
        assert!(refused, "{new:?}");
        peer.stop().await;
    }
}

#[tokio::test]
async fn the_load_is_what_the_topics_hold() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let peer = start(dir.path(), |_| ()).await;
    let stored = async || {
        peer.ask(PeerStatus {})
            .await
            .expect("told")
            .load
            .stored_bytes
    };
    assert_eq!(
        stored().await,
        0,
        "nothing is stored, whatever the slots take"
    );
    let a = peer.create("a").await.expect("made").topic.id;
    let b = peer.create("b").await.expect("made").topic.id;
    for n in 0..5 {
        peer.publish(a, &batch(n, 1000)).await.expect("stored");
        peer.publish(b, &batch(n, 100)).await.expect("stored");
    }
    let mut sum = 0;
    for topic in ["a", "b"] {
        sum += peer.describe(topic).await.expect("there").bytes;
    }
    assert!(sum > 5_500);
    assert_eq!(stored().await, sum);
    let before = Position::Offset(crate::types::Offset::new(3));
    let purge = PurgeTopic {
        name: name("a"),
        before,
    };
    let left = peer.ask(purge).await.expect("purged").bytes;
    let of_b = peer.describe("b").await.expect("there").bytes;
    assert_eq!(stored().await, left + of_b);
    let delete = DeleteTopic {
        name: name("b"),
        id: None,
    };
    peer.ask(delete).await.expect("deleted");
    assert_eq!(stored().await, left);
    assert_eq!(peer.store.figures().live_bytes, left);
    peer.stop().await;
    let peer = start(dir.path(), |_| ()).await;
    assert_eq!(peer.store.figures().live_bytes, left, "after a restart too");
    peer.stop().await;
}

/// A long poll that cannot end well: the error is known at once.
#[tokio::test]
async fn a_fetch_that_nothing_can_answer_does_not_wait() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let peer = start(dir.path(), |_| ()).await;
    let id = peer.create("quakes.ci").await.expect("made").topic.id;
    peer.publish(id, &batch(0, 10)).await.expect("published");
    let at_end = Fetch {
        topic: id,
        epoch: LeaderEpoch::new(1),
        offset: Offset::new(1),
        max_bytes: 1 << 20,
        min_bytes: 1,
        max_wait_ms: 60_000,
        pass_damage: false,
    };
    let past = Fetch {
        offset: Offset::new(2),
        ..at_end
    };
    let answer = peer.fetch(past).await;
    assert!(
        matches!(answer, Err(ApiError::OffsetOutOfRange { .. })),
        "{answer:?}"
    );
    let stale = Fetch {
        epoch: LeaderEpoch::new(7),
        ..at_end
    };
    let answer = peer.fetch(stale).await;
    assert!(
        matches!(answer, Err(ApiError::StaleEpoch { .. })),
        "{answer:?}"
    );
    let no_minimum = Fetch {
        min_bytes: 0,
        ..at_end
    };
    let fetched = peer.fetch(no_minimum).await.expect("nothing, at once");
    assert!(fetched.items.is_empty());
    peer.stop().await;
}

/// What only the index knows is refused; what is here is told, also as a list.
#[tokio::test]
async fn without_an_index_a_peer_tells_what_it_has() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let peer = start(dir.path(), |_| ()).await;
    let id = peer.create("quakes.ci").await.expect("made").topic.id;
    peer.stop().await;
    // A port that is taken, so that nobody else comes to listen at it, and not listened at.
    let taken = tokio::net::TcpSocket::new_v4().expect("a socket");
    let any = "127.0.0.1:0".parse().expect("an address");
    taken.bind(any).expect("a port");
    let nobody = taken.local_addr().expect("bound").to_string();
    let nobody = nobody.parse().expect("an address");
    let peer = start(dir.path(), |options| options.indexes = vec![nobody]).await;
    let lookup = |topic, local_only| Lookup {
        name: name(topic),
        local_only,
    };
    let list = ListTopics {
        pattern: TopicPattern::all(),
        after: None,
        limit: 10,
    };
    let page = peer.ask(list).await.expect("its own topics");
    assert_eq!((page.topics.len(), page.more), (1, false));
    assert_eq!(page.topics[0].id, id);
    let peers = peer.ask(ListPeers {}).await.expect("itself");
    assert_eq!(peers.len(), 1);
    assert_eq!(peers[0].id, page.topics[0].peer);
    let found = peer.ask(lookup("quakes.ci", false)).await;
    assert_eq!(found.expect("its own topic").id, id);
    let absent = peer.ask(lookup("absent", true)).await;
    assert!(matches!(absent, Err(ApiError::TopicNotFound { .. })));

    let place = PlaceTopic {
        name: name("new"),
        on: None,
    };
    let retire = RetirePeer {
        name: "other".parse().expect("a peer name"),
    };
    for refused in [
        peer.ask(lookup("absent", false)).await.map(|_| ()),
        peer.describe("absent").await.map(|_| ()),
        peer.create("new").await.map(|_| ()),
        peer.ask(place).await.map(|_| ()),
        peer.ask(retire).await.map(|_| ()),
    ] {
        assert!(
            matches!(refused, Err(ApiError::IndexUnavailable { .. })),
            "{refused:?}"
        );
    }
    let status = peer.ask(PeerStatus {}).await.expect("it answers");
    assert!(!status.index_reachable);
    peer.publish(id, &batch(0, 10)).await.expect("published");
    peer.stop().await;
}
