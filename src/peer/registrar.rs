//! The registrar: keeps the index told.
//!
//! One task registers, tells the whole list of topics, and sends heartbeats.
//! When the index does not know the peer (it lost its registry, or never had
//! it), everything is told again; when the index does not answer, the task
//! tries on, and nobody else notices. Claims for new names go over the same
//! connection, and may find out first that the index does not know the peer:
//! one registration runs at a time, and serves all who wanted one.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Mutex, Notify};
use tracing::{debug, error, info, warn};

use crate::limits;
use crate::net::shutdown::CancellationToken;
use crate::net::{CallError, Connection, DialOptions, Traffic};
use crate::protocol::api::{
    ClaimTopic, ConfirmTopic, Conflict, Depart, DropTopic, Heartbeat, ListPeers, Lookup, Nonce,
    PeerInfo, PeerLoad, RegisterPeer, RegisterTopics, Request, StoredTopic,
};
use crate::protocol::error::ApiError;
use crate::store::{Store, random_id};
use crate::types::{Address, LeaderEpoch, PeerId, TopicId, TopicName};

use super::known::Known;

/// What a registrar needs.
pub(super) struct RegistrarOptions {
    pub store: Store,
    pub traffic: Arc<Traffic>,
    pub advertise: Address,
    pub indexes: Vec<Address>,
    pub heartbeat: Duration,
}

/// The connection to the index, and what is known from it.
pub(super) struct Registrar {
    options: RegistrarOptions,
    nonce: Nonce,
    connection: Mutex<Option<Connection>>,
    /// The index has to be told everything again.
    stale: AtomicBool,
    reachable: AtomicBool,
    /// That the index does not answer was said; once is enough until it answers again.
    silence_noted: AtomicBool,
    displaced: AtomicBool,
    wake: Notify,
    /// Held while everything is told.
    registering: Mutex<()>,
    /// How often everything was told.
    registrations: AtomicU64,
    known: Known,
    rates: std::sync::Mutex<Rates>,
}

/// What the traffic was a while ago, and how much it was per second then.
struct Rates {
    at: Instant,
    bytes: [u64; 2],
    per_second: [u64; 2],
}

impl Rates {
    /// Bytes per second, in and out. Over a while: asked twice in a millisecond, it answers the same.
    fn over_a_while(&mut self, bytes: [u64; 2]) -> [u64; 2] {
        let passed = self.at.elapsed();
        if passed >= limits::RATES_OVER {
            let millis = u64::try_from(passed.as_millis()).unwrap_or(u64::MAX);
            for (n, bytes) in bytes.into_iter().enumerate() {
                let more = bytes.saturating_sub(self.bytes[n]);
                self.per_second[n] = more.saturating_mul(1000) / millis;
            }
            (self.at, self.bytes) = (Instant::now(), bytes);
        }
        self.per_second
    }
}

/// Notes, where it is dropped, that everything has to be told again.
struct HalfTold<'a>(&'a AtomicBool);

impl Drop for HalfTold<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Longest time an index may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Registering a hundred thousand topics makes the index write them all.
const REGISTER_TIMEOUT: Duration = Duration::from_secs(60);
/// Pause before the next attempt to reach an index, at first and at most.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(2);
/// Topics in one part of a registration: well below the largest control body.
const TOPICS_PER_PART: usize = 10_000;
const _: () = assert!(TOPICS_PER_PART <= limits::PAGE_ENTRIES_MAX);
const _: () = assert!(TOPICS_PER_PART * (limits::NAME_BYTES_MAX + 64) < limits::CONTROL_BYTES_MAX);

impl Registrar {
    /// A registrar that has told nobody yet.
    pub fn new(options: RegistrarOptions) -> Arc<Self> {
        Arc::new(Self {
            options,
            nonce: Nonce(random_id()),
            connection: Mutex::default(),
            stale: AtomicBool::new(true),
            reachable: AtomicBool::new(false),
            silence_noted: AtomicBool::new(false),
            displaced: AtomicBool::new(false),
            wake: Notify::new(),
            registering: Mutex::default(),
            registrations: AtomicU64::new(0),
            known: Known::default(),
            rates: std::sync::Mutex::new(Rates {
                at: Instant::now(),
                bytes: [0; 2],
                per_second: [0; 2],
            }),
        })
    }

    /// Whether the index answered last time.
    pub fn is_reachable(&self) -> bool {
        self.reachable.load(Ordering::Acquire)
    }

    /// How often everything was told.
    pub fn registrations(&self) -> u64 {
        self.registrations.load(Ordering::Acquire)
    }

    /// Whether another process registered with this identity.
    pub fn is_displaced(&self) -> bool {
        self.displaced.load(Ordering::Acquire)
    }

    /// The conflict a topic is in, if it is: its name belongs to another topic.
    pub fn conflict(&self, id: TopicId) -> Option<Conflict> {
        self.known.conflict(id)
    }

    /// The topic has a name of its own now, or is gone.
    pub fn settle(&self, id: TopicId) {
        self.known.settle(id);
    }

    /// The other peers, as the index told last.
    pub fn known_peers(&self) -> Vec<PeerInfo> {
        self.known.peers()
    }

    /// A topic turned out to be at that peer: who it is should be known when the index does not answer.
    pub fn meet(&self, peer: PeerId) {
        if peer != self.options.store.peer() {
            self.known.meet(peer);
        }
    }

    /// Has the whole list told again: something changed that the index could not be told.
    pub fn tell_again(&self) {
        self.stale.store(true, Ordering::Release);
        self.wake.notify_one();
    }

    /// Registers and heartbeats until stopped.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        if self.options.indexes.is_empty() {
            return;
        }
        let mut retry = RETRY_FIRST;
        while !stop.is_cancelled() && !self.is_displaced() {
            let told = stop.run_until_cancelled(self.tell()).await;
            let pause = match told {
                None => return,
                Some(Ok(())) => {
                    retry = RETRY_FIRST;
                    self.options.heartbeat
                }
                Some(Err(error)) => {
                    self.note_failure(&error).await;
                    let pause = retry;
                    retry = (retry * 2)
                        .min(RETRY_MAX)
                        .min(self.options.heartbeat.max(RETRY_FIRST));
                    pause
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.wake.notified() => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// One heartbeat, or a registration where one is due.
    async fn tell(&self) -> Result<(), CallError> {
        if self.stale.swap(false, Ordering::AcqRel) {
            self.register(None).await?;
            self.learn_peers().await;
            return Ok(());
        }
        let seen = self.registrations.load(Ordering::Acquire);
        let heartbeat = Heartbeat {
            peer: self.options.store.peer(),
            nonce: self.nonce,
            load: self.load(),
        };
        match self.ask(&heartbeat).await {
            Ok(_) => {
                self.answered();
                self.look_after_conflicts().await?;
                self.learn_peers().await;
                Ok(())
            }
            Err(CallError::Api(ApiError::NotRegistered)) => {
                info!("the index does not know this peer, registering");
                self.register(Some(seen)).await
            }
            Err(error) => Err(error),
        }
    }

    fn answered(&self) {
        self.reachable.store(true, Ordering::Release);
        self.silence_noted.store(false, Ordering::Release);
    }

    async fn note_failure(&self, error: &CallError) {
        *self.connection.lock().await = None;
        self.reachable.store(false, Ordering::Release);
        match error {
            CallError::Api(ApiError::Displaced) => {
                self.displaced.store(true, Ordering::Release);
                error!(
                    "another process registered as this peer: publishing stops here; was the data directory copied?"
                );
            }
            CallError::Api(error) => warn!(%error, "the index refuses this peer"),
            error if !self.silence_noted.swap(true, Ordering::AcqRel) => {
                warn!(%error, "the index does not answer, going on without it")
            }
            error => debug!(%error, "the index still does not answer"),
        }
    }

    /// Tells the index everything. Not if that was done since `seen` registrations were counted: then
    /// whoever asks was answered before it.
    async fn register(&self, seen: Option<u64>) -> Result<(), CallError> {
        let _one_at_a_time = self.registering.lock().await;
        if seen.is_some_and(|seen| seen != self.registrations.load(Ordering::Acquire)) {
            return Ok(());
        }
        // Once introduced a peer is heard, whatever became of its list: nobody but itself knows that it has to
        // be told again, and whoever asked for it may go away in the middle.
        let half_told = HalfTold(&self.stale);
        self.tell_everything().await?;
        std::mem::forget(half_told);
        Ok(())
    }

    async fn tell_everything(&self) -> Result<(), CallError> {
        let store = &self.options.store;
        let introduction = RegisterPeer {
            peer: store.peer(),
            name: store.name().clone(),
            address: self.options.advertise.clone(),
            nonce: self.nonce,
            load: self.load(),
        };
        self.ask(&introduction).await?;
        let topics = store.stored_topics();
        let count = topics.len();
        let parts: Vec<Vec<StoredTopic>> = match count {
            0 => vec![Vec::new()],
            _ => topics
                .chunks(TOPICS_PER_PART)
                .map(<[StoredTopic]>::to_vec)
                .collect(),
        };
        let last = parts.len() - 1;
        for (n, topics) in parts.into_iter().enumerate() {
            let part = RegisterTopics {
                peer: store.peer(),
                nonce: self.nonce,
                part: u32::try_from(n).expect("a peer's topics are bounded"),
                last: n == last,
                topics,
            };
            let answer = self.ask_within(&part, REGISTER_TIMEOUT).await?;
            if n == last {
                self.known.note_conflicts(answer.conflicts);
            }
        }
        self.registrations.fetch_add(1, Ordering::AcqRel);
        self.answered();
        info!(peer = %store.name(), topics = count, "registered at the index");
        Ok(())
    }

    /// Tells everything again when the name of a topic in conflict is free.
    async fn look_after_conflicts(&self) -> Result<(), CallError> {
        for conflict in self.known.some_conflicts() {
            let lookup = Lookup {
                name: conflict.name.clone(),
                local_only: false,
            };
            match self.ask(&lookup).await {
                Err(CallError::Api(ApiError::TopicNotFound { .. })) => {
                    info!(topic = %conflict.name, "the name of a topic in conflict is free, registering");
                    self.register(None).await?;
                    self.known.told_for(conflict.id);
                    return Ok(());
                }
                Ok(_) | Err(CallError::Api(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Whom to ask when the index does not answer. Asked for now and then, see [`limits::PEERS_LISTED_EVERY`].
    async fn learn_peers(&self) {
        if self.known.wants_list()
            && let Ok(peers) = self.ask(&ListPeers {}).await
        {
            self.known.note_peers(peers, self.options.store.peer());
        }
    }

    /// Asks the index for a name.
    pub async fn claim(&self, name: &TopicName, id: TopicId) -> Result<LeaderEpoch, ApiError> {
        if self.is_displaced() {
            return Err(ApiError::Displaced);
        }
        let claim = ClaimTopic {
            peer: self.options.store.peer(),
            nonce: self.nonce,
            name: name.clone(),
            id,
        };
        let seen = self.registrations.load(Ordering::Acquire);
        match self.ask(&claim).await {
            Err(CallError::Api(ApiError::NotRegistered)) => {
                self.register(Some(seen)).await.map_err(unavailable)?;
                self.ask(&claim)
                    .await
                    .map(|claimed| claimed.epoch)
                    .map_err(unavailable)
            }
            outcome => outcome.map(|claimed| claimed.epoch).map_err(unavailable),
        }
    }

    /// The claimed topic is durable.
    ///
    /// Somebody else may have deleted or renamed it since, and told the index first: what this has put there is
    /// mended then.
    pub async fn confirm(
        &self,
        name: &TopicName,
        id: TopicId,
        epoch: LeaderEpoch,
    ) -> Result<(), ApiError> {
        let peer = self.options.store.peer();
        let confirm = ConfirmTopic {
            peer,
            nonce: self.nonce,
            name: name.clone(),
            id,
            epoch,
        };
        self.ask(&confirm).await.map_err(unavailable)?;
        let store = &self.options.store;
        if store.stored_topic(name).is_none_or(|topic| topic.id != id) {
            self.release(name, id).await;
            if store.stores(id) {
                // It has another name, which went when the index gave it this one.
                self.tell_again();
            }
        }
        Ok(())
    }

    /// A topic or a claim is gone. If the index cannot be told now, the next registration says so.
    pub async fn release(&self, name: &TopicName, id: TopicId) {
        if self.options.indexes.is_empty() {
            return;
        }
        let drop = DropTopic {
            peer: self.options.store.peer(),
            nonce: self.nonce,
            name: name.clone(),
            id,
        };
        if self.ask(&drop).await.is_err() {
            self.tell_again();
        }
    }

    /// Tells the index that this peer ends.
    pub async fn depart(&self, leave: bool) {
        if self.options.indexes.is_empty() || self.is_displaced() {
            return;
        }
        let depart = Depart {
            peer: self.options.store.peer(),
            nonce: self.nonce,
            leave,
        };
        // Going for good, it takes its names along.
        let patience = match leave {
            true => REGISTER_TIMEOUT,
            false => ANSWER_TIMEOUT,
        };
        if let Err(error) = self.ask_within(&depart, patience).await {
            warn!(%error, leave, "the index could not be told that this peer ends; its lease will run out");
        }
    }

    /// Asks the index something.
    pub async fn ask<R: Request>(&self, request: &R) -> Result<R::Answer, CallError> {
        self.ask_within(request, ANSWER_TIMEOUT).await
    }

    async fn ask_within<R: Request>(
        &self,
        request: &R,
        timeout: Duration,
    ) -> Result<R::Answer, CallError> {
        let connection = self.connect().await?;
        let answer = connection.call(request, timeout).await;
        if matches!(answer, Err(CallError::TimedOut { .. })) {
            // What does not answer is dialled anew, perhaps elsewhere.
            connection.close();
        }
        answer
    }

    async fn connect(&self) -> Result<Connection, CallError> {
        let mut held = self.connection.lock().await;
        if let Some(connection) = held.as_ref().filter(|connection| !connection.is_closed()) {
            return Ok(connection.clone());
        }
        let mut last = None;
        for address in &self.options.indexes {
            match Connection::connect(address, &dial_options()).await {
                Ok(connection) => {
                    *held = Some(connection.clone());
                    // Perhaps an index that was away for long, and knows others by now.
                    self.known.list_soon();
                    return Ok(connection);
                }
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| CallError::Unreachable {
            address: self.options.advertise.clone(),
            reason: "this peer was started without an index".to_owned(),
        }))
    }

    /// How busy the peer is.
    pub fn load(&self) -> PeerLoad {
        let (store, traffic) = (&self.options.store, &self.options.traffic);
        let figures = store.figures();
        let [bytes_in_per_second, bytes_out_per_second] = self
            .rates
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .over_a_while([traffic.bytes_in(), traffic.bytes_out()]);
        PeerLoad {
            topics: store.topic_count() as u64,
            // What `topic info` sums to, not the slots it lies in: a peer with no message has two of those.
            stored_bytes: figures.live_bytes,
            bytes_in_per_second,
            bytes_out_per_second,
            connections: traffic.connections() as u64,
            disk_free_bytes: figures.disk_free_bytes,
        }
    }
}

/// How this peer dials index servers and other peers.
pub(super) fn dial_options() -> DialOptions {
    DialOptions {
        client: concat!("tidings-peer ", env!("CARGO_PKG_VERSION")).to_owned(),
        timeout: ANSWER_TIMEOUT,
    }
}

/// What a failed question to the index means to whoever wanted to create or rename something.
pub(super) fn unavailable(error: CallError) -> ApiError {
    match error {
        CallError::Api(error) => error,
        error => ApiError::IndexUnavailable {
            reason: error.to_string(),
        },
    }
}
