//! Consumer groups as they are served: one desk for each that somebody uses.
//!
//! ```text
//!   take    ──> line ──> read ──> lock: assign ──> answer
//!   settle  ──> lock: decide ──────────────────────────────> answered when durable
//!   clock   ──> lock: deadlines, back-offs     │
//!                                              v
//!                    turn: [ flush | dead letters | seek | delete ] ──> store
//! ```
//!
//! Invariants, beside C1 to C9 of `docs/consumer-groups.md`:
//!
//! 1. There is one desk of a group at a time, and only it changes the rows of its group.
//! 2. One change of these rows is on its way at a time: what is written last is the newest.
//! 3. No lock is held over a wait, but the turn and the line, which are waited for by waiting.
//! 4. What a peer that ends, or was displaced, takes away from its members is no failure of theirs.
//!
//! Deliberately missing: who may take, and members on several peers: a topic has one host.

mod burying;
mod desk;
mod managing;
mod meters;
pub(in crate::peer) mod reading;
mod replaying;
mod requests;
mod settling;
mod taking;
pub(in crate::peer) mod unpacked;

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::directory::Directory;
use super::registrar::Registrar;
use crate::limits;
use crate::net::shutdown::CancellationToken;
use crate::protocol::error::ApiError;
use crate::store::Store;
use crate::topic::later::target_of;
use crate::types::{Offset, SubscriptionName, TopicId};
use desk::{Clock, Desk};
use unpacked::Unpacked;

type Place = (TopicId, SubscriptionName);

/// How many desks can be set up at the same time.
const LOADING: usize = 16;

/// All desks of a peer.
pub(super) struct Desks {
    store: Store,
    registrar: Arc<Registrar>,
    directory: Arc<Directory>,
    stop: CancellationToken,
    clock: Clock,
    desks: Mutex<HashMap<Place, Arc<Desk>>>,
    loading: [tokio::sync::Mutex<()>; LOADING],
    creating: tokio::sync::Mutex<()>,
    unpacked: Unpacked,
    /// What all groups remember, as of the last look.
    pieces: AtomicUsize,
    meters: meters::ConsumerMeters,
}

impl Desks {
    /// No desk yet. `stop`: the peer ends.
    pub fn new(
        store: Store,
        (registrar, directory): (Arc<Registrar>, Arc<Directory>),
        stop: CancellationToken,
    ) -> Arc<Self> {
        Arc::new(Self {
            meters: meters::ConsumerMeters::new(store.registry()),
            store,
            registrar,
            directory,
            stop,
            clock: Clock::new(),
            desks: Mutex::default(),
            loading: std::array::from_fn(|_| tokio::sync::Mutex::default()),
            creating: tokio::sync::Mutex::default(),
            unpacked: Unpacked::default(),
            pieces: AtomicUsize::new(0),
        })
    }

    fn desks(&self) -> MutexGuard<'_, HashMap<Place, Arc<Desk>>> {
        self.desks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The desk of a group, if there is one.
    fn at_work(&self, topic: TopicId, name: &SubscriptionName) -> Option<Arc<Desk>> {
        let found = self.desks().get(&(topic, name.clone())).cloned();
        found.filter(|desk| !desk.closed.is_cancelled())
    }

    /// The desk of a group, set up if there is none.
    async fn desk(
        self: &Arc<Self>,
        topic: TopicId,
        name: &SubscriptionName,
    ) -> Result<Arc<Desk>, ApiError> {
        if let Some(desk) = self.at_work(topic, name) {
            return Ok(desk);
        }
        check_not_reserved(name)?;
        let place = (topic, name.clone());
        let mut hasher = DefaultHasher::new();
        place.hash(&mut hasher);
        let _alone = self.loading[hasher.finish() as usize % LOADING]
            .lock()
            .await;
        if let Some(desk) = self.at_work(topic, name) {
            return Ok(desk);
        }
        let rows = self.store.consumer_rows(topic, name.clone()).await?;
        let desk = Arc::new(Desk::new(topic, name.clone(), rows, self.clock));
        self.desks().insert(place, desk.clone());
        tokio::spawn(self.clone().flush_on(desk.clone()));
        Ok(desk)
    }

    /// Forgets a desk that is closed.
    fn forget(&self, desk: &Arc<Desk>) {
        let mut desks = self.desks();
        let place = (desk.topic, desk.name.clone());
        if desks
            .get(&place)
            .is_some_and(|known| Arc::ptr_eq(known, desk))
        {
            desks.remove(&place);
        }
    }

    /// Serves nobody any more: the peer has answered what it was asked, and ends.
    pub fn close(&self) {
        let desks: Vec<Arc<Desk>> = self.desks().values().cloned().collect();
        for desk in desks {
            desk.close(ApiError::ShuttingDown);
        }
    }

    /// How many records members hold, of each group that somebody uses.
    pub fn in_flight(&self) -> HashMap<(TopicId, SubscriptionName), u64> {
        let desks: Vec<Arc<Desk>> = self.desks().values().cloned().collect();
        let of = |desk: Arc<Desk>| {
            let tally = desk.lock().group.tally(Offset::ZERO);
            ((desk.topic, desk.name.clone()), tally.in_flight)
        };
        desks.into_iter().map(of).collect()
    }

    /// Whether there is room to remember more records.
    fn has_room(&self) -> bool {
        self.pieces.load(Ordering::Relaxed) < limits::CONSUMER_PIECES_MAX
    }

    /// Another process has the identity: what was settled there is not known here.
    fn check_displaced(&self) -> Result<(), ApiError> {
        match self.registrar.is_displaced() {
            true => Err(ApiError::Displaced),
            false => Ok(()),
        }
    }

    /// Looks at the clock until the peer ends.
    pub async fn run(self: Arc<Self>) {
        for (topic, name) in self.store.dying_groups().await.unwrap_or_default() {
            // One that cannot be served is served when somebody asks for it, or not at all.
            let _ = self.desk(topic, &name).await;
        }
        let mut every = tokio::time::interval(limits::CONSUMER_TICK);
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while self.stop.run_until_cancelled(every.tick()).await.is_some() {
            let desks: Vec<Arc<Desk>> = self.desks().values().cloned().collect();
            let mut pieces = 0;
            for desk in &desks {
                pieces += self.look_after(desk);
            }
            self.pieces.store(pieces, Ordering::Relaxed);
            if desks.is_empty() {
                self.unpacked.clear();
            }
        }
    }

    /// Messages were taken out of what is stored: batches that were unpacked before still have them.
    pub fn forget_unpacked(&self) {
        self.unpacked.clear();
    }

    /// What time does at a desk; how much it remembers.
    fn look_after(self: &Arc<Self>, desk: &Arc<Desk>) -> usize {
        if let Err(error) = self.check_displaced() {
            desk.close(error);
            return 0;
        }
        let (start, _) = match self.store.range_of(desk.topic) {
            Ok(range) => range,
            Err(gone) => {
                desk.close(gone);
                return 0;
            }
        };
        let pieces = {
            let mut inner = desk.lock();
            let now = desk.clock.now();
            inner.group.begin_at(start, now);
            inner.group.tick(now);
            desk.decided(&mut inner);
            inner.group.weight() + inner.group.pages()
        };
        self.bury_at(desk);
        if desk.retire(limits::CONSUMER_DESK_KEPT) {
            return 0;
        }
        pieces
    }
}

/// The group of a companion is changed by whoever delivers what is in it, and by nobody else (D7).
fn check_not_reserved(name: &SubscriptionName) -> Result<(), ApiError> {
    match target_of(name) {
        None => Ok(()),
        Some(_) => Err(ApiError::InvalidArgument {
            what: "consumer group".to_owned(),
            reason: format!("{name} delivers delayed messages: 'tidings later' is about those"),
        }),
    }
}
