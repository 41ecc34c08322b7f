//! How the reclaimer asks the writer for changes, and waits for them to be durable.

use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use super::applier::ApplierStatus;
use super::cold::Given;
use super::command::{Change, Command, Context, Done, SnapshotWritten};
use super::pool::SlotPool;
use super::queue::Queue;
use super::segments::Pin;
use super::shared::Shared;
use crate::protocol::error::ApiError;
use crate::topic::RowKey;
use crate::types::TopicId;

/// The outcome of something asked for, and the group it was durable with.
pub(super) type Reply<T> = Receiver<(Result<T, ApiError>, u64)>;

/// Ends the reclaimer.
#[derive(Default)]
pub(super) struct Stop {
    stopped: Mutex<bool>,
    told: Condvar,
}

impl Stop {
    /// Ends every wait.
    pub fn stop(&self) {
        *self.stopped.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.told.notify_all();
    }

    /// Whether it is time to end.
    pub fn is_stopped(&self) -> bool {
        *self.stopped.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits; true if it is time to end.
    pub fn wait(&self, time: Duration) -> bool {
        let stopped = self.stopped.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self
            .told
            .wait_timeout_while(stopped, time, |stopped| !*stopped);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

/// A slot on its way to the pool.
struct Releasing {
    /// The group with the entry that gave it up.
    group: u64,
    slot: u32,
    pin: Pin,
}

/// Asks the writer, and hands freed slots to the pool when nothing can need them any more.
pub(super) struct Asker {
    pub shared: Arc<Shared>,
    pub pool: Arc<SlotPool>,
    pub stop: Arc<Stop>,
    pub applier: Arc<ApplierStatus>,
    queue: Arc<Queue>,
    releasing: Vec<Releasing>,
}

/// While an answer is waited for, slots are released so often: the writer may be waiting for one.
const RELEASE_EVERY: Duration = Duration::from_millis(20);

impl Asker {
    pub fn new(
        shared: Arc<Shared>,
        pool: Arc<SlotPool>,
        applier: Arc<ApplierStatus>,
        queue: Arc<Queue>,
    ) -> Self {
        Self {
            shared,
            pool,
            stop: Arc::default(),
            applier,
            queue,
            releasing: Vec::new(),
        }
    }

    /// Asks for a change; `None` if the writer takes no more.
    pub fn push<T, F>(&self, topic: TopicId, decide: F) -> Option<Reply<T>>
    where
        T: Send + 'static,
        F: FnOnce(&mut Context<'_>) -> Result<(T, Vec<RowKey>), ApiError> + Send + 'static,
    {
        let (sender, reply) = sync_channel(1);
        let done = self.done(sender);
        let change = Change::new(topic, decide, done);
        self.queue
            .push_own(Command::Change(change))
            .then_some(reply)
    }

    /// Asks for a snapshot.
    pub fn push_snapshot(&self) -> Option<Reply<SnapshotWritten>> {
        let (sender, reply) = sync_channel(1);
        let done = self.done(sender);
        self.queue
            .push_own(Command::Snapshot(done))
            .then_some(reply)
    }

    /// Asks for a segment to be sealed although it is not full, if it is the one being written.
    pub fn push_seal(&self, segment: u64) {
        self.queue.push_own(Command::Seal(segment));
    }

    fn done<T: Send + 'static>(&self, sender: SyncSender<(Result<T, ApiError>, u64)>) -> Done<T> {
        let shared = self.shared.clone();
        Box::new(move |outcome| {
            // Called when its group was synced and none after it.
            let group = shared.synced_group.load(Ordering::Acquire);
            // Whoever asked may have gone.
            let _ = sender.send((outcome, group));
        })
    }

    /// Waits for the outcome; `None` if there will be none.
    pub fn wait<T>(&mut self, reply: Reply<T>) -> Option<(Result<T, ApiError>, u64)> {
        loop {
            match reply.recv_timeout(RELEASE_EVERY) {
                Ok(outcome) => return Some(outcome),
                Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) => self.release(),
            }
        }
    }

    /// Asks and waits.
    pub fn ask<T, F>(&mut self, topic: TopicId, decide: F) -> Option<(Result<T, ApiError>, u64)>
    where
        T: Send + 'static,
        F: FnOnce(&mut Context<'_>) -> Result<(T, Vec<RowKey>), ApiError> + Send + 'static,
    {
        let reply = self.push(topic, decide)?;
        self.wait(reply)
    }

    /// Takes care of slots that an entry in `group` gave up.
    pub fn given(&mut self, given: Given, group: u64) {
        let releasing = |(slot, pin)| Releasing { group, slot, pin };
        self.releasing.extend(given.into_iter().map(releasing));
    }

    /// Releases the slots whose entry is claimed by a durable group and applied by the catalog, so that neither
    /// a torn tail nor a catalog that is built again brings their segments back, and that nobody reads (J7).
    pub fn release(&mut self) {
        let applied = self.applier.applied().group;
        if self.releasing.iter().any(|slot| slot.group > applied) {
            self.applier.hurry();
        }
        let safe = applied.min(self.shared.claimed_group.load(Ordering::Acquire));
        self.releasing.retain(|releasing| {
            let kept = releasing.group > safe || releasing.pin.is_held();
            if !kept {
                self.pool.release(releasing.slot);
            }
            kept
        });
    }

    /// Whether slots wait only for what gave them up to be claimed and applied, which takes no reader's time.
    pub fn is_about_to_release(&self) -> bool {
        let safe = self
            .applier
            .applied()
            .group
            .min(self.shared.claimed_group.load(Ordering::Acquire));
        self.releasing.iter().any(|slot| slot.group > safe)
    }

    /// Whether slots wait to be released.
    pub fn is_releasing(&self) -> bool {
        !self.releasing.is_empty()
    }
}
