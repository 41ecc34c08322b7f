//! Index servers and their clients over real sockets, on real directories.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc as channel;
use std::time::Instant;

use tokio::task::{JoinHandle, JoinSet};

use super::keeper::Keep;
use super::*;
use crate::net::{CallError, Connection, DialOptions, Pending};
use crate::protocol::api::{
    Api, ClaimTopic, ConfirmTopic, CreateTopic, Depart, DropTopic, Heartbeat, ListPeers,
    ListTopics, Lookup, Nonce, PeerInfo, PeerLoad, PeerState, Ping, PlaceTopic, RegisterPeer,
    RegisterTopics, RegisteredTopics, Request, RetirePeer, Role, StoredTopic, TopicLocation, Watch,
};
use crate::protocol::error::ApiError;
use crate::registry::rows::Changes;
use crate::types::{LeaderEpoch, PeerId, TopicId, TopicName, TopicPattern, TopicSettings};

const SOON: Duration = Duration::from_secs(30);

/// An index server in this process.
struct Running {
    address: Address,
    stop: CancellationToken,
    task: JoinHandle<Result<(), IndexError>>,
}

impl Running {
    async fn start(dir: &Path) -> Self {
        Self::start_with(IndexOptions::new(dir)).await
    }

    async fn start_with(options: IndexOptions) -> Self {
        let opening = tokio::task::spawn_blocking(move || Index::open(options));
        Self::serve(opening.await.expect("no panic").expect("opens")).await
    }

    async fn serve(index: Index) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound").into();
        let stop = CancellationToken::new();
        let task = tokio::spawn(index.serve(listener, stop.clone()));
        Self {
            address,
            stop,
            task,
        }
    }

    async fn connect(&self) -> Connection {
        let options = DialOptions {
            client: "test".to_owned(),
            timeout: SOON,
        };
        Connection::connect(&self.address, &options)
            .await
            .expect("connects")
    }

    async fn stop(self) {
        self.stop.cancel();
        self.task.await.expect("no panic").expect("ends well");
    }
}

async fn ask<R: Request>(connection: &Connection, request: R) -> Result<R::Answer, ApiError> {
    match connection.call(&request, SOON).await {
        Ok(answer) => Ok(answer),
        Err(CallError::Api(error)) => Err(error),
        Err(other) => panic!("{other}"),
    }
}

async fn submit<R: Request>(connection: &Connection, request: R) -> Pending {
    let body = request.encode().expect("small");
    connection.submit(R::API, body).await.expect("sent")
}

async fn answer<R: Request>(pending: Pending) -> R::Answer {
    R::decode_answer(&pending.await.expect("answered")).expect("decodes")
}

fn name(text: &str) -> TopicName {
    text.parse().expect("a good name")
}

fn topic(text: &str, id: u32) -> StoredTopic {
    let mut bytes = [7; 16];
    bytes[..4].copy_from_slice(&id.to_be_bytes());
    StoredTopic {
        name: name(text),
        id: TopicId::from_bytes(bytes),
        epoch: LeaderEpoch::new(1),
    }
}

/// A process that behaves as a peer does, as far as the index sees it.
struct FakePeer {
    id: PeerId,
    name: String,
    nonce: Nonce,
    index: Connection,
}

impl FakePeer {
    /// Named peers have the same identity wherever they appear; each `FakePeer` is another process.
    async fn new(running: &Running, name: &str) -> Self {
        static PROCESSES: AtomicU8 = AtomicU8::new(0);
        let mut id = [0; 16];
        id[..name.len()].copy_from_slice(name.as_bytes());
        Self {
            id: PeerId::from_bytes(id),
            name: name.to_owned(),
            nonce: Nonce([PROCESSES.fetch_add(1, Ordering::Relaxed); 16]),
            index: running.connect().await,
        }
    }

    async fn registered(running: &Running, name: &str, topics: &[StoredTopic]) -> Self {
        let peer = Self::new(running, name).await;
        peer.introduce().await.expect("registers");
        let told = peer.list(topics).await.expect("lists");
        assert!(told.conflicts.is_empty(), "{told:?}");
        peer
    }

    async fn introduce(&self) -> Result<u64, ApiError> {
        let request = RegisterPeer {
            peer: self.id,
            name: self.name.parse().expect("good"),
            address: format!("{}.example:7401", self.name).parse().expect("good"),
            nonce: self.nonce,
            load: PeerLoad::default(),
        };
        ask(&self.index, request)
            .await
            .map(|answer| answer.lease_ms)
    }

    async fn list(&self, topics: &[StoredTopic]) -> Result<RegisteredTopics, ApiError> {
        let mut parts: Vec<&[StoredTopic]> = topics.chunks(limits::PAGE_ENTRIES_MAX).collect();
        if parts.is_empty() {
            parts.push(&[]);
        }
        let mut told = Err(ApiError::NotRegistered);
        for (part, topics) in parts.iter().enumerate() {
            let request = RegisterTopics {
                peer: self.id,
                nonce: self.nonce,
                part: u32::try_from(part).expect("few"),
                last: part + 1 == parts.len(),
                topics: topics.to_vec(),
            };
            told = Ok(ask(&self.index, request).await?);
        }
        told
    }

    async fn beat(&self) -> Result<(), ApiError> {
        let (peer, nonce) = (self.id, self.nonce);
        let load = PeerLoad::default();
        let request = Heartbeat { peer, nonce, load };
        ask(&self.index, request).await.map(|_| ())
    }

    async fn depart(&self, leave: bool) -> Result<(), ApiError> {
        let (peer, nonce) = (self.id, self.nonce);
        let request = Depart { peer, nonce, leave };
        ask(&self.index, request).await.map(|_| ())
    }

    fn claim(&self, topic: &StoredTopic) -> ClaimTopic {
        ClaimTopic {
            peer: self.id,
            nonce: self.nonce,
            name: topic.name.clone(),
            id: topic.id,
        }
    }

    fn confirm(&self, topic: &StoredTopic) -> ConfirmTopic {
        ConfirmTopic {
            peer: self.id,
            nonce: self.nonce,
            name: topic.name.clone(),
            id: topic.id,
            epoch: topic.epoch,
        }
    }

    async fn create(&self, topic: &StoredTopic) -> Result<(), ApiError> {
        let claimed = ask(&self.index, self.claim(topic)).await?;
        assert_eq!(claimed.epoch, topic.epoch);
        ask(&self.index, self.confirm(topic)).await.map(|_| ())
    }

    async fn drop_topic(&self, topic: &StoredTopic) -> Result<(), ApiError> {
        let request = DropTopic {
            peer: self.id,
            nonce: self.nonce,
            name: topic.name.clone(),
            id: topic.id,
        };
        ask(&self.index, request).await.map(|_| ())
    }
}

async fn lookup(connection: &Connection, text: &str) -> Result<TopicLocation, ApiError> {
    let request = Lookup {
        name: name(text),
        local_only: false,
    };
    ask(connection, request).await
}

async fn list(connection: &Connection, pattern: &str, limit: u32) -> (Vec<String>, bool) {
    let request = ListTopics {
        pattern: pattern.parse().expect("good"),
        after: None,
        limit,
    };
    let page = ask(connection, request).await.expect("a list");
    let names = page.topics.iter().map(|topic| topic.name.to_string());
    (names.collect(), page.more)
}

async fn peers(connection: &Connection) -> Vec<PeerInfo> {
    ask(connection, ListPeers {}).await.expect("a list")
}

fn watch(version: u64, pattern: &str, wait: Duration) -> Watch {
    Watch {
        version,
        pattern: pattern.parse().expect("good"),
        max_wait_ms: u32::try_from(wait.as_millis()).expect("short"),
    }
}

#[tokio::test]
async fn a_topic_is_claimed_confirmed_found_listed_and_dropped() {
    let dir = tempfile::tempdir().expect("a directory");
    let running = Running::start(dir.path()).await;
    let client = running.connect().await;
    assert_eq!(client.hello().role, Role::Index);
    ask(&client, Ping {}).await.expect("there");
    let place = |on: Option<&str>| PlaceTopic {
        name: name("quakes.ci"),
        on: on.map(|peer| peer.parse().expect("good")),
    };
    assert_eq!(ask(&client, place(None)).await, Err(ApiError::NoPeerOnline));
    let alpha = FakePeer::registered(&running, "alpha", &[]).await;
    let beta = FakePeer::registered(&running, "beta", &[]).await;
    assert_eq!(
        ask(&client, place(None)).await.expect("placed").peer,
        alpha.id
    );
    assert_eq!(
        ask(&client, place(Some("beta")))
            .await
            .expect("placed")
            .peer,
        beta.id
    );

    let quakes = topic("quakes.ci", 1);
    ask(&alpha.index, alpha.claim(&quakes))
        .await
        .expect("granted");
    let refused = ask(&beta.index, beta.claim(&topic("quakes.ci", 2))).await;
    assert_eq!(refused.expect_err("taken").name(), "ClaimPending");
    let unknown = lookup(&client, "quakes.ci").await;
    assert_eq!(unknown.expect_err("not yet").name(), "TopicNotFound");
    ask(&alpha.index, alpha.confirm(&quakes))
        .await
        .expect("published");
    let found = lookup(&client, "quakes.ci").await.expect("there");
    assert_eq!(
        (found.id, found.peer, found.state),
        (quakes.id, alpha.id, PeerState::Online)
    );
    assert_eq!(found.address.as_str(), "alpha.example:7401");

    for (n, text) in ["quakes.nc", "orders", "quakes.ak"].into_iter().enumerate() {
        beta.create(&topic(text, 10 + u32::try_from(n).expect("few")))
            .await
            .expect("created");
    }
    let (names, more) = list(&client, "quakes.*", 10).await;
    assert_eq!(
        (names.as_slice(), more),
        (
            ["quakes.ak", "quakes.ci", "quakes.nc"]
                .map(String::from)
                .as_slice(),
            false
        )
    );
    let (names, more) = list(&client, ">", 2).await;
    assert_eq!(
        (names.as_slice(), more),
        (["orders", "quakes.ak"].map(String::from).as_slice(), true)
    );
    assert!(!list(&client, ">", 4).await.1);

    alpha.drop_topic(&quakes).await.expect("dropped");
    assert!(lookup(&client, "quakes.ci").await.is_err());
    beta.create(&topic("quakes.ci", 30))
        .await
        .expect("the name is free");
    running.stop().await;
}

#[tokio::test]
async fn a_lease_runs_out_and_a_heartbeat_renews_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut options = IndexOptions::new(dir.path());
    options.lease = Duration::from_millis(400);
    let running = Running::start_with(options).await;
    let client = running.connect().await;
    let alpha = FakePeer::registered(&running, "alpha", &[topic("a", 1)]).await;
    let beta = FakePeer::registered(&running, "beta", &[topic("b", 2)]).await;
    assert_eq!(beta.introduce().await, Ok(400));
    beta.list(&[topic("b", 2)]).await.expect("lists");
    let began = Instant::now();
    // Beta goes on, alpha does not.
    while lookup(&client, "a").await.expect("known").state == PeerState::Online {
        assert!(began.elapsed() < SOON, "a lease has to end");
        beta.beat().await.expect("lives");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let down = lookup(&client, "a").await.expect("its data is on its disk");
    assert_eq!((down.state, down.peer), (PeerState::Down, alpha.id));
    alpha.beat().await.expect("it was only out of reach");
    assert_eq!(
        lookup(&client, "a").await.expect("known").state,
        PeerState::Online
    );
    alpha.depart(false).await.expect("goes offline");
    assert_eq!(
        lookup(&client, "a").await.expect("known").state,
        PeerState::Offline
    );
    running.stop().await;
}

#[tokio::test]
async fn a_restarted_index_knows_what_it_knew() {
    let dir = tempfile::tempdir().expect("a directory");
    let running = Running::start(dir.path()).await;
    let old = FakePeer::registered(&running, "alpha", &[]).await;
    let alpha = FakePeer::registered(&running, "alpha", &[topic("a", 1)]).await;
    let beta = FakePeer::registered(&running, "beta", &[topic("b", 2)]).await;
    alpha.create(&topic("c", 3)).await.expect("created");
    beta.depart(false).await.expect("goes offline");
    let told = peers(&running.connect().await).await;
    running.stop().await;

    let running = Running::start(dir.path()).await;
    let client = running.connect().await;
    let loads_apart = |peers: Vec<PeerInfo>| {
        let apart = |peer| PeerInfo {
            load: PeerLoad::default(),
            ..peer
        };
        peers.into_iter().map(apart).collect::<Vec<_>>()
    };
    assert_eq!(loads_apart(peers(&client).await), loads_apart(told));
    assert_eq!(list(&client, ">", 10).await.0, ["a", "b", "c"]);
    // Nobody has to register again, and who was displaced is still displaced.
    let alpha = FakePeer {
        index: running.connect().await,
        ..alpha
    };
    alpha.beat().await.expect("known");
    let old = FakePeer {
        index: running.connect().await,
        ..old
    };
    assert_eq!(old.beat().await, Err(ApiError::Displaced));
    running.stop().await;
}

#[tokio::test]
async fn an_index_that_lost_its_directory_is_filled_again() {
    let dir = tempfile::tempdir().expect("a directory");
    let running = Running::start(dir.path()).await;
    let alpha = FakePeer::registered(&running, "alpha", &[topic("a", 1)]).await;
    running.stop().await;
    let other = tempfile::tempdir().expect("an empty directory");
    let running = Running::start(other.path()).await;
    let client = running.connect().await;
    let alpha = FakePeer {
        index: running.connect().await,
        ..alpha
    };
    assert!(lookup(&client, "a").await.is_err());
    assert_eq!(alpha.beat().await, Err(ApiError::NotRegistered));
    alpha.introduce().await.expect("registers");
    let mut stored = topic("a", 1);
    stored.epoch = LeaderEpoch::new(5);
    alpha.list(&[stored]).await.expect("lists");
    let found = lookup(&client, "a").await.expect("known again");
    assert_eq!(
        found.epoch,
        LeaderEpoch::new(5),
        "epochs go on where they were"
    );
    running.stop().await;
}

/// Whatever is in the files, the index starts; what it lost is told again.
#[tokio::test]
async fn an_index_whose_store_is_damaged_sets_it_aside_and_starts_empty() {
    let dir = tempfile::tempdir().expect("a directory");
    let running = Running::start(dir.path()).await;
    let alpha = FakePeer::registered(&running, "alpha", &[topic("a", 1)]).await;
    running.stop().await;
    let file = dir.path().join("registry").join("db");
    let mut bytes = std::fs::read(&file).expect("the database");
    bytes.iter_mut().for_each(|byte| *byte = !*byte);
    std::fs::write(&file, bytes).expect("damaged");
    let running = Running::start(dir.path()).await;
    let alpha = FakePeer {
        index: running.connect().await,
        ..alpha
    };
    assert_eq!(alpha.beat().await, Err(ApiError::NotRegistered));
    alpha.introduce().await.expect("registers");
    alpha.list(&[topic("a", 1)]).await.expect("lists");
    assert!(lookup(&alpha.index, "a").await.is_ok());
    running.stop().await;
    let entries = std::fs::read_dir(dir.path()).expect("a directory");
    let names: BTreeSet<String> = entries
        .map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    assert!(
        names.iter().any(|name| name.starts_with("registry.")),
        "nothing is deleted: {names:?}"
    );
}

#[tokio::test]
async fn a_displaced_process_is_told_and_stays_displaced() {
    let dir = tempfile::tempdir().expect("a directory");
    let running = Running::start(dir.path()).await;
    let old = FakePeer::registered(&running, "alpha", &[topic("a", 1)]).await;
    let new = FakePeer::registered(&running, "alpha", &[topic("a", 1)]).await;
    assert_eq!(old.beat().await, Err(ApiError::Displaced));
    assert_eq!(old.introduce().await, Err(ApiError::Displaced));
    assert_eq!(old.list(&[]).await, Err(ApiError::Displaced));
    assert_eq!(old.depart(true).await, Err(ApiError::Displaced));
    new.beat().await.expect("the newest is served");
    assert!(lookup(&new.index, "a").await.is_ok());
    running.stop().await;
}

#[tokio::test]
async fn conflicts_are_told_to_everybody_and_settled_by_nobody() {
    let dir = tempfile::tempdir().expect("a directory");
    let running = Running::start(dir.path()).await;
    let alpha = FakePeer::registered(&running, "alpha", &[topic("a", 1)]).await;
    let beta = FakePeer::new(&running, "beta").await;
    beta.introduce().await.expect("registers");
    let told = beta
        .list(&[topic("a", 2), topic("b", 3)])
        .await
        .expect("lists");
    let [conflict] = told.conflicts.as_slice() else {
        panic!("one conflict: {told:?}");
    };
    assert_eq!(
        (conflict.name.as_str(), conflict.holder.as_str()),
        ("a", "alpha")
    );
    for peer in peers(&alpha.index).await {
        assert_eq!(peer.conflicts, [name("a")], "both sides");
    }
    assert_eq!(
        lookup(&alpha.index, "a").await.expect("known").peer,
        alpha.id
    );
    beta.create(&StoredTopic {
        name: name("a.beta"),
        ..topic("a", 2)
    })
    .await
    .expect("renamed");
    assert!(
        peers(&alpha.index)
            .await
            .iter()
            .all(|peer| peer.conflicts.is_empty())
    );
    let taken = FakePeer {
        name: "alpha".to_owned(),
        ..FakePeer::new(&running, "gamma").await
    };
    assert_eq!(
        taken.introduce().await.expect_err("taken").name(),
        "PeerNameTaken"
    );
    running.stop().await;
}

#[tokio::test]
async fn leaving_and_retiring_free_names() {
    let dir = tempfile::tempdir().expect("a directory");
    let running = Running::start(dir.path()).await;
    let client = running.connect().await;
    let alpha = FakePeer::registered(&running, "alpha", &[topic("a", 1), topic("b", 2)]).await;
    let beta = FakePeer::registered(&running, "beta", &[topic("c", 3)]).await;
    let retire = |text: &str| RetirePeer {
        name: text.parse().expect("good"),
    };
    let refused = ask(&client, retire("alpha")).await.expect_err("online");
    assert_eq!(refused.name(), "InvalidArgument");
    alpha.depart(false).await.expect("goes offline");
    assert_eq!(
        ask(&client, retire("alpha")).await.expect("retired").topics,
        2
    );
    assert_eq!(
        ask(&client, retire("alpha"))
            .await
            .expect_err("gone")
            .name(),
        "PeerNotFound"
    );
    beta.depart(true).await.expect("leaves");
    beta.depart(true).await.expect("has left");
    assert!(peers(&client).await.is_empty());
    assert!(list(&client, ">", 10).await.0.is_empty());
    running.stop().await;
    let running = Running::start(dir.path()).await;
    assert!(peers(&running.connect().await).await.is_empty(), "durably");
    running.stop().await;
}

#[tokio::test]
async fn watchers_hear_of_changes_and_of_time_passed() {
    let dir = tempfile::tempdir().expect("a directory");
    let running = Running::start(dir.path()).await;
    let client = running.connect().await;
    let first = ask(&client, watch(0, ">", SOON)).await.expect("answered");
    assert!(first.reset, "who has seen nothing lists everything");
    let alpha = FakePeer::registered(&running, "alpha", &[]).await;
    let waiting = submit(&client, watch(first.version, "quakes.*", SOON)).await;
    alpha.create(&topic("orders", 1)).await.expect("created");
    alpha.create(&topic("quakes.ci", 2)).await.expect("created");
    let seen = answer::<Watch>(waiting).await;
    assert_eq!(seen.changed.len(), 1, "{seen:?}");
    assert_eq!(seen.changed[0].name, name("quakes.ci"));
    let waiting = submit(&client, watch(seen.version, "quakes.*", SOON)).await;
    alpha
        .drop_topic(&topic("quakes.ci", 2))
        .await
        .expect("dropped");
    let seen = answer::<Watch>(waiting).await;
    assert_eq!(
        (seen.changed.len(), seen.dropped.as_slice()),
        (0, [name("quakes.ci")].as_slice())
    );
    let waiting = submit(&client, watch(seen.version, "orders", SOON)).await;
    alpha.depart(false).await.expect("goes offline");
    let seen = answer::<Watch>(waiting).await;
    assert_eq!(seen.changed[0].state, PeerState::Offline);
    let quiet = ask(&client, watch(seen.version, ">", Duration::from_millis(30))).await;
    let quiet = quiet.expect("answered");
    assert!(!quiet.reset && quiet.changed.is_empty() && quiet.dropped.is_empty());
    // A version of another life of the index.
    running.stop().await;
    let running = Running::start(dir.path()).await;
    let client = running.connect().await;
    let anew = ask(&client, watch(quiet.version, ">", SOON))
        .await
        .expect("answered");
    assert!(anew.reset && anew.version > quiet.version);
    // A watch does not hold up the end of the server.
    let waiting = submit(&client, watch(anew.version, ">", Duration::from_secs(60))).await;
    running.stop().await;
    assert!(waiting.await.is_err());
}

#[tokio::test]
async fn watches_are_bounded() {
    let dir = tempfile::tempdir().expect("a directory");
    let running = Running::start(dir.path()).await;
    let version = ask(&running.connect().await, watch(0, ">", SOON))
        .await
        .expect("answered")
        .version;
    let mut waiting = Vec::new();
    let mut clients = Vec::new();
    while waiting.len() < limits::WATCHERS_MAX {
        let client = running.connect().await;
        for _ in 0..512 {
            waiting.push(submit(&client, watch(version, ">", SOON)).await);
        }
        // Answered after them: they are all waiting now.
        ask(&client, Ping {}).await.expect("answered");
        clients.push(client);
    }
    let refused = ask(&clients[0], watch(version, ">", SOON)).await;
    assert_eq!(refused.expect_err("one more").name(), "TooManyConnections");
    let alpha = FakePeer::registered(&running, "alpha", &[]).await;
    alpha.create(&topic("a", 1)).await.expect("created");
    for pending in waiting {
        assert_eq!(answer::<Watch>(pending).await.changed.len(), 1);
    }
    running.stop().await;
}

#[tokio::test]
async fn many_clients_create_at_once_and_every_name_is_given_once() {
    let dir = tempfile::tempdir().expect("a directory");
    let running = Running::start(dir.path()).await;
    let mut clients = JoinSet::new();
    for n in 0..64_u32 {
        let peer = FakePeer::registered(&running, &format!("peer-{n}"), &[]).await;
        clients.spawn(async move {
            let mut won = 0;
            for m in 0..20 {
                peer.create(&topic(&format!("own.{n}.{m}"), 1_000 + n * 20 + m))
                    .await
                    .expect("its own");
                let fought = topic(&format!("fought.{m}"), 10_000 + n * 20 + m);
                won += u32::from(peer.create(&fought).await.is_ok());
            }
            won
        });
    }
    let won: u32 = clients.join_all().await.into_iter().sum();
    assert_eq!(won, 20, "each name that all wanted went to one of them");
    running.stop().await;
    let running = Running::start(dir.path()).await;
    let client = running.connect().await;
    assert_eq!(list(&client, "own.>", 10_000).await.0.len(), 64 * 20);
    assert_eq!(list(&client, "fought.>", 10_000).await.0.len(), 20);
    running.stop().await;
}

#[tokio::test]
async fn lookups_are_pipelined() {
    let dir = tempfile::tempdir().expect("a directory");
    let running = Running::start(dir.path()).await;
    let topics: Vec<_> = (0..100).map(|n| topic(&format!("t.{n}"), n)).collect();
    let _alpha = FakePeer::registered(&running, "alpha", &topics).await;
    let client = running.connect().await;
    let mut waiting = Vec::new();
    for n in 0..2_000 {
        let text = format!("t.{}", n % 101);
        let request = Lookup {
            name: name(&text),
            local_only: false,
        };
        waiting.push((n, submit(&client, request).await));
        if waiting.len() == 1_000 {
            for (n, pending) in waiting.drain(..) {
                match pending.await {
                    Ok(body) => {
                        let found = Lookup::decode_answer(&body).expect("decodes");
                        assert_eq!(found.name, name(&format!("t.{}", n % 101)));
                    }
                    Err(CallError::Api(ApiError::TopicNotFound { name: missing })) => {
                        assert_eq!(missing, name("t.100"));
                    }
                    Err(other) => panic!("{other}"),
                }
            }
        }
    }
    running.stop().await;
}

#[tokio::test]
async fn strange_requests_are_refused_and_cost_nothing_more() {
    let dir = tempfile::tempdir().expect("a directory");
    let running = Running::start(dir.path()).await;
    let client = running.connect().await;
    let create = CreateTopic {
        name: name("a"),
        settings: TopicSettings::default(),
        if_not_exists: false,
    };
    assert_eq!(
        ask(&client, create).await.expect_err("a peer's").name(),
        "WrongRole"
    );
    for api in [
        Api::Lookup,
        Api::ListTopics,
        Api::Watch,
        Api::RegisterTopics,
        Api::Heartbeat,
    ] {
        let refused = client.call_raw(api, vec![255; 40], SOON).await;
        let error = refused.expect_err("garbage");
        assert_eq!(
            error.as_api().map(ApiError::name),
            Some("Malformed"),
            "{api:?}"
        );
    }
    let nobody = FakePeer::new(&running, "alpha").await;
    assert_eq!(nobody.beat().await, Err(ApiError::NotRegistered));
    assert_eq!(
        nobody.create(&topic("a", 1)).await,
        Err(ApiError::NotRegistered)
    );
    running.stop().await;
}

#[tokio::test]
async fn directories_that_cannot_be_used_are_named() {
    let dir = tempfile::tempdir().expect("a directory");
    let running = Running::start(dir.path()).await;
    let second = Index::open(IndexOptions::new(dir.path()))
        .err()
        .expect("in use");
    let text = second.to_string();
    assert!(text.contains(&std::process::id().to_string()), "{text}");
    let file = dir.path().join("LOCK");
    let error = Index::open(IndexOptions::new(&file)).err().expect("a file");
    assert!(error.to_string().contains("not a directory"), "{error}");
    let error = Index::open(IndexOptions::new("/proc/tidings"))
        .err()
        .expect("not writable");
    assert!(error.to_string().contains("/proc/tidings"), "{error}");
    running.stop().await;
    // Once it has ended, the directory is free.
    Running::start(dir.path()).await.stop().await;
}

/// A store that applies only what it is told to.
struct Gate {
    arrived: channel::SyncSender<usize>,
    verdicts: channel::Receiver<Result<(), CatalogError>>,
}

impl Keep for Gate {
    fn apply(&mut self, changes: Changes) -> Result<(), CatalogError> {
        // Once nobody listens any more, only verdicts count.
        let _ = self.arrived.send(changes.puts.len());
        self.verdicts.recv().expect("the test decides")
    }

    fn close(self: Box<Self>) -> Result<(), CatalogError> {
        Ok(())
    }
}

type Verdicts = channel::SyncSender<Result<(), CatalogError>>;

async fn start_gated(dir: &Path) -> (Running, channel::Receiver<usize>, Verdicts) {
    let options = IndexOptions::new(dir);
    let (arrived, arrivals) = channel::sync_channel(64);
    let (verdicts, decided) = channel::sync_channel(64);
    let (lock, clock) = (DirLock::acquire(dir).expect("free"), Clock::start());
    let (state, layout, _) = Loader::new(options.settings(), clock.now()).finish();
    let opened = Opened {
        state,
        layout,
        store: Box::new(Gate {
            arrived,
            verdicts: decided,
        }),
        repairs: crate::registry::Effects::default(),
    };
    let index = Index::start(options, opened, (lock, clock)).expect("starts");
    (Running::serve(index).await, arrivals, verdicts)
}

/// Invariants 2, 3 and 4 of the index: until the disk has a change, nobody is
/// told of it, and lookups do not wait.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_told_before_it_is_durable() {
    let dir = tempfile::tempdir().expect("a directory");
    let (running, arrivals, verdicts) = start_gated(dir.path()).await;
    for _ in 0..2 {
        verdicts.send(Ok(())).expect("open");
    }
    let alpha = FakePeer::registered(&running, "alpha", &[topic("old", 1)]).await;
    for _ in 0..2 {
        arrivals
            .recv_timeout(SOON)
            .expect("registering was written");
    }
    let confirm = submit(&alpha.index, alpha.confirm(&topic("new", 2))).await;
    tokio::pin!(confirm);
    arrivals.recv_timeout(SOON).expect("is being written");
    // These arrive while the disk is busy, and will be one batch.
    let other = running.connect().await;
    let mut more = Vec::new();
    for n in 3..13 {
        more.push(submit(&other, alpha.confirm(&topic(&format!("more.{n}"), n))).await);
    }
    let refused = submit(&other, alpha.claim(&topic("new", 99))).await;
    let client = running.connect().await;
    for _ in 0..100 {
        assert!(lookup(&client, "old").await.is_ok(), "lookups do not wait");
        assert!(
            lookup(&client, "new").await.is_err(),
            "nothing is shown early"
        );
    }
    assert_eq!(list(&client, ">", 10).await.0, ["old"]);
    let early = tokio::time::timeout(Duration::from_millis(50), &mut confirm).await;
    assert!(early.is_err(), "nothing is answered early");
    verdicts.send(Ok(())).expect("open");
    confirm.await.expect("answered");
    assert!(lookup(&client, "new").await.is_ok());
    // A refusal waits too: what it is based on may not be durable.
    let rows = arrivals.recv_timeout(SOON).expect("the next batch");
    assert!(rows >= 10, "what waited is written at once: {rows} rows");
    verdicts.send(Ok(())).expect("open");
    for pending in more {
        pending.await.expect("answered");
    }
    let error = refused.await.expect_err("the name is taken");
    assert_eq!(error.as_api().map(ApiError::name), Some("TopicExists"));
    drop((arrivals, verdicts));
    running.stop().await;
}

/// A peer with very many topics registered them in one command, during which nobody else was served: with a
/// million of them no heartbeat was answered for ten seconds. Here the store is told when it may go on, so
/// what is counted is what lies between two of a long list's steps, and not time.
#[tokio::test(flavor = "multi_thread")]
async fn others_are_served_while_a_long_list_is_taken() {
    let dir = tempfile::tempdir().expect("a directory");
    let (running, arrivals, verdicts) = start_gated(dir.path()).await;
    for _ in 0..4 {
        verdicts.send(Ok(())).expect("open");
    }
    let old: Vec<_> = (0..50).map(|n| topic(&format!("t.{n}"), n)).collect();
    let alpha = FakePeer::registered(&running, "alpha", &old).await;
    let beta = FakePeer::registered(&running, "beta", &[]).await;
    for _ in 0..4 {
        arrivals.recv_timeout(SOON).expect("was written");
    }
    // What it had stays, under names of which some come first and some last.
    let topics: Vec<_> = (0..80_000).map(|n| topic(&format!("t.{n}"), n)).collect();
    let mut long = None;
    for (part, topics) in topics.chunks(limits::PAGE_ENTRIES_MAX).enumerate() {
        let request = RegisterTopics {
            peer: alpha.id,
            nonce: alpha.nonce,
            part: u32::try_from(part).expect("few"),
            last: part == 7,
            topics: topics.to_vec(),
        };
        long = Some(submit(&alpha.index, request).await);
    }
    let mut long = long.expect("eight parts");
    let client = running.connect().await;
    for n in 50..53 {
        arrivals
            .recv_timeout(SOON)
            .expect("a step is being written");
        let beat = Heartbeat {
            peer: beta.id,
            nonce: beta.nonce,
            load: PeerLoad::default(),
        };
        let beat = submit(&beta.index, beat).await;
        let claim = submit(
            &beta.index,
            beta.claim(&topic(&format!("b.{n}"), 100_000 + n)),
        )
        .await;
        // Answered after them: both are waiting for the keeper now.
        ask(&beta.index, Ping {}).await.expect("answered");
        for old in &old {
            let found = lookup(&client, old.name.as_str()).await.expect("it stays");
            assert_eq!((found.id, found.peer), (old.id, alpha.id));
        }
        verdicts.send(Ok(())).expect("open");
        arrivals.recv_timeout(SOON).expect("what they asked for");
        verdicts.send(Ok(())).expect("open");
        let served = async {
            (
                answer::<Heartbeat>(beat).await,
                answer::<ClaimTopic>(claim).await,
            )
        };
        let served = tokio::time::timeout(SOON, served).await;
        assert!(served.is_ok(), "two writes later");
    }
    let early = tokio::time::timeout(Duration::from_millis(1), &mut long).await;
    assert!(early.is_err(), "the list is not all on the disk");
    drop(arrivals);
    let opening = tokio::task::spawn_blocking(move || while verdicts.send(Ok(())).is_ok() {});
    assert!(answer::<RegisterTopics>(long).await.conflicts.is_empty());
    assert!(lookup(&client, "t.79999").await.is_ok());
    running.stop().await;
    opening.await.expect("no panic");
}

/// Invariant 5: a store that fails ends the server, and nobody is told that it worked.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_fails_ends_the_server() {
    let dir = tempfile::tempdir().expect("a directory");
    let (running, _arrivals, verdicts) = start_gated(dir.path()).await;
    let failure = CatalogError::SyncTimedOut {
        path: dir.path().join("registry"),
        action: "a change",
        after: limits::SYNC_TIMEOUT,
    };
    verdicts.send(Err(failure)).expect("open");
    let alpha = FakePeer::new(&running, "alpha").await;
    let error = alpha.introduce().await.expect_err("not registered");
    assert_eq!(error.name(), "StorageStopped");
    let ended = tokio::time::timeout(SOON, running.task)
        .await
        .expect("it ends");
    let error = ended.expect("no panic").expect_err("with an error");
    assert!(error.to_string().contains("60 s"), "{error}");
}

/// Figures of a large registry. A small one unless `TIDINGS_BENCH_TOPICS` says how large.
#[tokio::test(flavor = "multi_thread")]
async fn a_large_registry_is_filled_found_and_loaded_again() {
    let given = std::env::var("TIDINGS_BENCH_TOPICS").ok();
    let count: u32 = given.map_or(20_000, |text| text.parse().expect("a number"));
    let dir = tempfile::tempdir().expect("a directory");
    let running = Running::start(dir.path()).await;
    let topics: Vec<_> = (0..count)
        .map(|n| topic(&format!("load.topic.{n:08}"), n))
        .collect();
    let before = resident_mib();
    let began = Instant::now();
    let alpha = FakePeer::registered(&running, "alpha", &topics).await;
    println!("{count} topics registered in {:?}", began.elapsed());
    let began = Instant::now();
    alpha.list(&topics).await.expect("again");
    println!("the same list again in {:?}", began.elapsed());
    println!("resident memory grew by {} MiB", resident_mib() - before);
    drop(topics);
    println!(
        "resident without the list: {} MiB more than before it",
        resident_mib() - before
    );
    lookup_rate(&running, count).await;
    let began = Instant::now();
    let client = running.connect().await;
    let none = list(&client, "*.nothing", 10).await;
    println!("a listing that matches nothing took {:?}", began.elapsed());
    assert!(none.0.is_empty());
    drop(alpha);
    running.stop().await;
    let began = Instant::now();
    let running = Running::start(dir.path()).await;
    println!("{count} topics loaded in {:?}", began.elapsed());
    println!("resident memory: {} MiB", resident_mib());
    let client = running.connect().await;
    let page = ListTopics {
        pattern: TopicPattern::all(),
        after: None,
        limit: u32::MAX,
    };
    let page = ask(&client, page).await.expect("a page");
    assert_eq!(
        page.topics.len(),
        limits::PAGE_ENTRIES_MAX.min(count as usize)
    );
    assert!(page.topics.is_sorted_by(|a, b| a.name < b.name));
    assert_eq!(peers(&client).await[0].topics, u64::from(count));
    running.stop().await;
}

/// Four connections, a thousand lookups on each unanswered at a time.
async fn lookup_rate(running: &Running, count: u32) {
    let rounds = if count > 100_000 { 200 } else { 2 };
    let mut clients = JoinSet::new();
    let began = Instant::now();
    for n in 0..4_u32 {
        let client = running.connect().await;
        clients.spawn(async move {
            let mut at = n * 7_919;
            for _ in 0..rounds {
                let mut waiting = Vec::with_capacity(1_000);
                for _ in 0..1_000 {
                    at = (at + 104_729) % count;
                    let text = format!("load.topic.{at:08}");
                    let request = Lookup {
                        name: name(&text),
                        local_only: false,
                    };
                    waiting.push((text, submit(&client, request).await));
                }
                for (text, pending) in waiting {
                    assert_eq!(answer::<Lookup>(pending).await.name.as_str(), text);
                }
            }
        });
    }
    clients.join_all().await;
    let took = began.elapsed();
    let lookups = f64::from(rounds) * 4_000.0;
    println!(
        "{:.0} lookups/s, clients in the same process",
        lookups / took.as_secs_f64()
    );
}

fn resident_mib() -> i64 {
    let text = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    let pages: i64 = text
        .split(' ')
        .nth(1)
        .and_then(|n| n.parse().ok())
        .expect("a number");
    pages * 4096 / (1 << 20)
}
