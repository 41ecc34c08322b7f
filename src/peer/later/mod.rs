//! Delayed messages: they lie in the companion of their topic, and are moved when their time has come.
//!
//! ```text
//!   publish ──> companion ──> take in ──> schedule ── due ──> read ──> one step: batch for the target + settled rows
//!                                            │
//!   list, cancel ────────────────────────────┘
//! ```
//!
//! Invariants, beside D1 to D9 of `docs/delayed.md`:
//!
//! 1. There is one [`Mover`] of a companion, and only it changes the rows of the companion's group (D7).
//! 2. Whatever changes what is pending has the mover's turn: taking in, delivering, cancelling, moving to the end.
//! 3. No lock is held over a wait, but the turn, which is waited for by waiting.
//! 4. A mover with nothing pending waits for its companion's end and costs nothing.
//!
//! Deliberately missing: companions on other peers than their targets. One step is one journal's.

mod asking;
mod meters;
mod mover;
mod opening;
mod reading;
mod requests;
mod steps;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use tokio::sync::OnceCell;

use super::consumers::unpacked::Unpacked;
use super::directory::Directory;
use super::registrar::Registrar;
use crate::limits;
use crate::net::shutdown::CancellationToken;
use crate::protocol::error::ApiError;
use crate::store::Store;
use crate::time::Timestamp;
use crate::topic::later::{Clocks, Steady, target_of};
use crate::types::TopicId;
use meters::DelayedMeters;
use mover::Mover;

/// The movers by the companions' ids, and by the targets'.
#[derive(Default)]
struct Movers {
    of_companion: HashMap<TopicId, Arc<Mover>>,
    of_target: HashMap<TopicId, Arc<Mover>>,
}

/// All delayed messages of a peer.
pub(super) struct Later {
    store: Store,
    registrar: Arc<Registrar>,
    directory: Arc<Directory>,
    stop: CancellationToken,
    clocks: Clocks,
    movers: RwLock<Movers>,
    /// There is a mover: publishers look no further where there is none.
    any: AtomicBool,
    discovered: OnceCell<()>,
    creating: tokio::sync::Mutex<()>,
    unpacked: Unpacked,
    /// Messages that are pending and taken in, of all companions.
    pending: AtomicU64,
    meters: DelayedMeters,
}

impl Later {
    /// Nothing is known yet. `stop`: the peer ends.
    pub fn new(
        store: Store,
        (registrar, directory): (Arc<Registrar>, Arc<Directory>),
        stop: CancellationToken,
    ) -> Arc<Self> {
        Arc::new(Self {
            meters: DelayedMeters::new(store.registry()),
            store,
            registrar,
            directory,
            stop,
            clocks: Clocks::new(Timestamp::now(), steady()),
            movers: RwLock::default(),
            any: AtomicBool::new(false),
            discovered: OnceCell::new(),
            creating: tokio::sync::Mutex::default(),
            unpacked: Unpacked::default(),
            pending: AtomicU64::new(0),
        })
    }

    /// Messages were taken out of what is stored: batches that were unpacked before still have them.
    pub fn forget_unpacked(&self) {
        self.unpacked.clear();
    }

    fn movers(&self) -> RwLockReadGuard<'_, Movers> {
        self.movers.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn movers_mut(&self) -> RwLockWriteGuard<'_, Movers> {
        self.movers.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The mover of a topic: as a target, or as a companion.
    fn mover(&self, id: TopicId) -> Option<Arc<Mover>> {
        let movers = self.movers();
        let found = movers.of_target.get(&id);
        found.or_else(|| movers.of_companion.get(&id)).cloned()
    }

    fn all(&self) -> Vec<Arc<Mover>> {
        self.movers().of_companion.values().cloned().collect()
    }

    /// Whether a batch for that topic is taken: no more delayed messages come where as many as can be remembered wait, and
    /// none that might not live until it is due.
    pub fn admits(&self, topic: TopicId, has_ttl: bool) -> Result<(), ApiError> {
        if !self.any.load(Ordering::Relaxed) {
            return Ok(());
        }
        let found = self.movers().of_companion.get(&topic).cloned();
        let Some(mover) = found else {
            return Ok(());
        };
        if has_ttl {
            let what = "time to live".to_owned();
            let reason = "a message that is delivered later has none".to_owned();
            return Err(ApiError::InvalidArgument { what, reason });
        }
        let (_, end) = self.store.range_of(topic)?;
        let waiting = end.get().saturating_sub(mover.cursor());
        let known = self.pending.load(Ordering::Relaxed).saturating_add(waiting);
        match known < limits::DELAYED_MAX {
            true => Ok(()),
            false => Err(ApiError::TooManyDelayed {
                max: limits::DELAYED_MAX,
            }),
        }
    }

    /// Pending messages, and topics whose due ones cannot be delivered.
    pub fn standing(&self) -> (u64, u64) {
        let all = self.all();
        let pending = all.iter().map(|mover| mover.lock().schedule.len() as u64);
        let blocked = all.iter().filter(|mover| mover.lock().trouble.is_some());
        (pending.sum(), blocked.count() as u64)
    }

    /// Delivers until the peer ends.
    pub async fn run(self: Arc<Self>) {
        while let Err(error) = self.discover().await {
            tracing::error!(%error, "delayed messages cannot be found");
            let pause = tokio::time::sleep(limits::DELAYED_RETRY_MAX);
            if self.stop.run_until_cancelled(pause).await.is_none() {
                return;
            }
        }
        self.stop.cancelled().await;
    }

    /// Finds the companions that are there, once. What was begun before it failed is not begun again: of two movers each
    /// would deliver every message.
    async fn discover(self: &Arc<Self>) -> Result<(), ApiError> {
        let found = self.discovered.get_or_try_init(async || {
            let mut after = None;
            loop {
                let page = limits::DESCRIBED_PER_PAGE_MAX as u32;
                let (listed, more) = self.store.consumer_groups(None, after.take(), page).await?;
                after = listed
                    .last()
                    .map(|last| (last.topic.clone(), last.name.clone()));
                for group in listed {
                    let is_begun = self.movers().of_companion.contains_key(&group.id);
                    if let Some(target) = target_of(&group.name).filter(|_| !is_begun) {
                        self.begin_found(group.id, target).await?;
                    }
                }
                if !more {
                    return Ok(());
                }
            }
        });
        found.await.copied()
    }

    /// Begins to move what is in a companion, unless that went meanwhile.
    async fn begin_found(
        self: &Arc<Self>,
        companion: TopicId,
        target: TopicId,
    ) -> Result<(), ApiError> {
        match self.begin(companion, target).await {
            Err(ApiError::UnknownTopicId { .. } | ApiError::ConsumerGroupNotFound { .. }) => Ok(()),
            begun => begun,
        }
    }

    /// Begins to move what is in a companion.
    async fn begin(self: &Arc<Self>, companion: TopicId, target: TopicId) -> Result<(), ApiError> {
        let group = crate::topic::later::group_of(target);
        let rows = self.store.consumer_rows(companion, group.clone()).await?;
        let mover = Arc::new(Mover::new((companion, target), group, rows));
        let mut movers = self.movers_mut();
        movers.of_companion.insert(companion, mover.clone());
        movers.of_target.insert(target, mover.clone());
        drop(movers);
        self.any.store(true, Ordering::Relaxed);
        tokio::spawn(self.clone().tend(mover));
        Ok(())
    }

    /// Forgets a companion that is gone.
    async fn forget(&self, mover: &Arc<Mover>) {
        // Whoever has the turn after this finds that the companion is gone.
        let _turn = mover.turn.lock().await;
        mover.count(0, &self.pending);
        let mut movers = self.movers_mut();
        movers.of_companion.remove(&mover.companion);
        let of_target = movers.of_target.get(&mover.target);
        if of_target.is_some_and(|known| Arc::ptr_eq(known, mover)) {
            movers.of_target.remove(&mover.target);
        }
        self.any
            .store(!movers.of_companion.is_empty(), Ordering::Relaxed);
    }

    /// The wall clock, or how far it is ahead of where it should be.
    fn believed_now(&self) -> Result<Timestamp, Duration> {
        let now = Timestamp::now();
        match self.clocks.ahead(now, steady()) {
            Some(ahead) => Err(ahead),
            None => Ok(now),
        }
    }
}

/// Milliseconds by the clock that never jumps and goes on while the host is suspended.
fn steady() -> Steady {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let millis = time.tv_sec.saturating_mul(1_000) + time.tv_nsec / 1_000_000;
    u64::try_from(millis).unwrap_or(0)
}
