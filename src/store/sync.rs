//! The sync thread: makes written groups durable, then tells everybody.
//!
//! It takes all groups that were written, syncs each slot among them once, in
//! stream order, and only then moves the durable ends and answers (J1, J2). A
//! group that is written while a sync runs waits for the next one, even if the
//! disk happened to take it along.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, SyncSender};
use std::time::Instant;

use super::applier::Delta;
use super::shared::{Shared, TopicShared};
use super::staging::Waiter;
use crate::journal::SlotHandle;
use crate::protocol::error::ApiError;
use crate::types::Offset;

/// A group whose write has returned.
pub(super) struct Written {
    pub group: u64,
    /// Every group up to this one is claimed once this group is durable.
    pub claims: u64,
    /// The slot it lies in; `None` if nothing was written but something has to be told in order.
    pub slot: Option<SlotHandle>,
    pub waiters: Vec<Waiter>,
    pub ends: Vec<(Arc<TopicShared>, Offset)>,
    /// Rows for the catalog, valid once this group is durable (J8).
    pub delta: Option<Delta>,
}

/// The sync thread's side of things.
pub(super) struct Syncer {
    pub shared: Arc<Shared>,
    pub written: Receiver<Written>,
    pub catalog: SyncSender<Delta>,
}

impl Syncer {
    /// Runs until the writer is gone.
    pub fn run(self) {
        while let Ok(first) = self.written.recv() {
            let mut batch = vec![first];
            batch.extend(self.written.try_iter());
            let outcome = match self.shared.failure() {
                Some(reason) => Err(reason),
                None => self.sync(&batch),
            };
            match outcome {
                Ok(()) => self.publish(batch),
                Err(reason) => {
                    self.shared.fail(&reason);
                    refuse(batch, &reason);
                }
            }
        }
    }

    fn sync(&self, batch: &[Written]) -> Result<(), String> {
        let mut done: Option<u32> = None;
        for slot in batch.iter().filter_map(|written| written.slot.as_ref()) {
            if done != Some(slot.id()) {
                self.sync_slot(slot)?;
                done = Some(slot.id());
            }
        }
        Ok(())
    }

    fn sync_slot(&self, slot: &SlotHandle) -> Result<(), String> {
        let start = Instant::now();
        let outcome = slot.sync_data();
        let took = start.elapsed();
        self.shared.meters.synced(took);
        match outcome {
            Err(error) => Err(error.to_string()),
            // It may have taken so long that the watchdog gave up.
            Ok(()) => self.shared.failure().map_or(Ok(()), Err),
        }
    }

    fn publish(&self, batch: Vec<Written>) {
        for written in batch {
            for (topic, end) in &written.ends {
                topic.set_durable(*end);
                self.shared.set_readable(topic, *end);
            }
            self.shared
                .synced_group
                .fetch_max(written.group, Ordering::AcqRel);
            self.shared
                .claimed_group
                .fetch_max(written.claims, Ordering::AcqRel);
            for waiter in written.waiters {
                waiter.tell(Ok(()));
            }
            if let Some(delta) = written.delta {
                // One delta at a time is under way, so this never waits; a catalog that is gone has failed the store.
                let _ = self.catalog.send(delta);
            }
        }
    }
}

fn refuse(batch: Vec<Written>, reason: &str) {
    for waiter in batch.into_iter().flat_map(|written| written.waiters) {
        waiter.tell(Err(ApiError::stopped(reason)));
    }
}
