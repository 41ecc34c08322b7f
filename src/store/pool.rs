//! Slots, ready before they are needed.
//!
//! A thread keeps one stream slot prepared: header written, size set, file and
//! directory synced (J13). The writer takes it when its segment is full and
//! never waits for a file to be made, unless it is faster than the disk can
//! make files. Free slots are used again before new ones are made; those that
//! nobody takes for a while are deleted, but for a few.
//!
//! Every header names the latest usable snapshot. Where a new one comes up while
//! a slot is ready, that slot is prepared once more, so that soon a durable header
//! names it: before that nothing may be freed on its account. A slot is deleted
//! only while the ready one names that snapshot and has the highest number: so no
//! number is given twice, and the snapshot is found, whatever else is gone.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::shared::{Shared, count};
use crate::journal::{
    JournalError, Kind, PrepareOptions, Resume, Salt, Seed, SlotHandle, SlotHeader, SnapshotAt,
};
use crate::limits;
use crate::types::PeerId;

/// A slot that may be written.
#[derive(Clone)]
pub(super) struct Prepared {
    pub slot: SlotHandle,
    pub header: SlotHeader,
}

impl Prepared {
    /// What goes into every checksum in it.
    pub fn seed(&self) -> Seed {
        Seed {
            salt: self.header.salt,
            segment: self.header.segment,
        }
    }
}

#[derive(Default)]
struct Inner {
    ready: Option<Prepared>,
    /// Free slots, and since when.
    free: BTreeMap<u32, Instant>,
    /// The latest one that a durable header names.
    named: Option<SnapshotAt>,
    snapshot: Option<SnapshotAt>,
    stopping: bool,
    /// The store is asked to stop: nobody waits any more for a disk that is full.
    ending: bool,
    /// Why the last attempt to prepare a slot failed.
    trouble: Option<String>,
}

/// The slots that hold nothing.
pub(super) struct SlotPool {
    shared: Arc<Shared>,
    peer: PeerId,
    next_segment: AtomicU64,
    /// Free space below which publishing is refused, in bytes.
    reserve_bytes: u64,
    inner: Mutex<Inner>,
    changed: Condvar,
}

/// How long to wait after a failed attempt: the disk may have room again.
const RETRY_AFTER: Duration = Duration::from_millis(200);
/// How often surplus slots are looked for.
const LOOK_EVERY: Duration = Duration::from_millis(500);

impl SlotPool {
    /// A pool without slots; `next_segment` is above every number given so far.
    pub fn new(shared: Arc<Shared>, peer: PeerId, next_segment: u64, reserve_bytes: u64) -> Self {
        Self {
            shared,
            peer,
            next_segment: AtomicU64::new(next_segment),
            reserve_bytes,
            inner: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Prepares a slot now, on the calling thread. The segment gets the next number.
    pub fn prepare(&self, kind: Kind, resume: Option<Resume>) -> Result<Prepared, JournalError> {
        let id = self.lock().free.pop_first().map(|(id, _)| id);
        let prepared = self.prepare_in(id, kind, resume)?;
        let reused = usize::from(id.is_some());
        count(&self.shared.reclaimed.slots_reused, reused);
        Ok(prepared)
    }

    /// The same in this slot, or in a new one.
    fn prepare_in(
        &self,
        id: Option<u32>,
        kind: Kind,
        resume: Option<Resume>,
    ) -> Result<Prepared, JournalError> {
        let snapshot = self.lock().snapshot;
        let prepared = self.prepare_slot(id, kind, resume, snapshot);
        if let Err(error) = &prepared {
            self.stop_after(error);
        }
        let mut inner = self.lock();
        match (&prepared, id) {
            (Ok(_), _) => inner.note_named(snapshot),
            (Err(_), Some(id)) => _ = inner.free.insert(id, Instant::now()),
            (Err(_), None) => {}
        }
        prepared
    }

    fn prepare_slot(
        &self,
        id: Option<u32>,
        kind: Kind,
        resume: Option<Resume>,
        snapshot: Option<SnapshotAt>,
    ) -> Result<Prepared, JournalError> {
        let slot = match id {
            Some(id) => self.shared.dir.slot(id)?,
            None => self.shared.dir.create_slot()?,
        };
        let header = SlotHeader {
            sector: self.shared.dir.sector(),
            slot_bytes: self.shared.dir.slot_bytes(),
            slot: slot.id(),
            kind,
            segment: self.next_segment.fetch_add(1, Ordering::AcqRel),
            salt: Salt::random().map_err(JournalError::io("read random bytes for", slot.path()))?,
            peer: self.peer,
            resume,
            snapshot,
        };
        let prepared = slot.prepare(
            &header,
            PrepareOptions {
                zero_fill: id.is_none(),
            },
        );
        let may_remove = |error: &JournalError| id.is_none() && !error.is_failed_sync();
        if prepared.as_ref().is_err_and(may_remove) {
            // A file that could not be made whole takes space and serves nobody. Removing it syncs, so after a
            // failed sync it is left for the next start to find.
            if let Err(error) = self.shared.dir.remove_slot(slot.id()) {
                self.stop_after(&error);
            }
        }
        prepared.map(|()| Prepared { slot, header })
    }

    /// How long a free slot too many waits for somebody who takes it; where space is short, not at all.
    fn kept_for(&self) -> Duration {
        let shared = &self.shared;
        if shared.is_short_of_space() {
            return Duration::ZERO;
        }
        let given_back_every = shared.reclaim_every.max(shared.snapshot_rest());
        given_back_every * limits::FREE_SLOT_KEPT_LOOKS
    }

    fn last_given(&self) -> u64 {
        self.next_segment.load(Ordering::Acquire) - 1
    }

    /// The prepared stream slot; waits until there is one. `None` when the pool stops.
    pub fn take(&self) -> Option<Prepared> {
        let mut inner = self.lock();
        loop {
            if let Some(ready) = inner.ready.take() {
                self.changed.notify_all();
                return Some(ready);
            }
            if inner.stopping || (inner.ending && inner.trouble.is_some()) {
                return None;
            }
            inner = self
                .changed
                .wait(inner)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Gives a slot back whose segment holds nothing that anybody needs (J7).
    pub fn release(&self, slot: u32) {
        self.lock().free.insert(slot, Instant::now());
        self.changed.notify_all();
    }

    /// The latest usable snapshot, for the header of the ready slot and all to come.
    pub fn set_snapshot(&self, snapshot: Option<SnapshotAt>) {
        self.lock().snapshot = snapshot;
        self.changed.notify_all();
    }

    /// Whether a durable header names this snapshot or a later one.
    pub fn names(&self, snapshot: &SnapshotAt) -> bool {
        let named = self.lock().named;
        named.is_some_and(|named| named.group >= snapshot.group)
    }

    /// Number of slots that hold nothing, the prepared one included.
    pub fn free_slots(&self) -> usize {
        let inner = self.lock();
        inner.free.len() + usize::from(inner.ready.is_some())
    }

    /// Why no slot can be prepared, if that is so.
    pub fn trouble(&self) -> Option<String> {
        self.lock().trouble.clone()
    }

    /// Whether so many slots can be taken without touching the part of the reserve that the catalog needs really free:
    /// without that no start would open it.
    pub fn has_room_for(&self, slots: u64) -> bool {
        let new = slots.saturating_sub(self.free_slots() as u64);
        let bytes = new.saturating_mul(self.shared.dir.slot_bytes().into());
        let free = self.shared.dir.free_bytes().unwrap_or(0);
        new == 0 || free.saturating_sub(bytes) >= self.reserve_beside_slots()
    }

    /// What of the reserve is not for slots, in bytes.
    fn reserve_beside_slots(&self) -> u64 {
        let slot_bytes = u64::from(self.shared.dir.slot_bytes());
        self.reserve_bytes.saturating_sub(2 * slot_bytes)
    }

    /// Below the reserve publishing is refused, so that reclaiming always has room to work (J15). Looked at
    /// after each slot that was made, since that is what takes space, and from time to time.
    pub fn check_reserve(&self) {
        let Ok(free) = self.shared.dir.free_bytes() else {
            return;
        };
        let slot_bytes = u64::from(self.shared.dir.slot_bytes());
        let slots = self.free_slots() as u64 * slot_bytes;
        // Slots that are ready serve the journal; the catalog needs its part of the reserve really free.
        let reached = free < self.reserve_beside_slots()
            || free.saturating_add(slots) < self.reserve_bytes
            || self.trouble().is_some();
        let shared = &self.shared;
        shared.reserve_free.store(free, Ordering::Relaxed);
        shared
            .reserve_needed
            .store(self.reserve_bytes, Ordering::Relaxed);
        let before = shared.reserve_reached.swap(reached, Ordering::AcqRel);
        if reached != before {
            tracing::warn!(
                free,
                reserve = self.reserve_bytes,
                refused = reached,
                "disk reserve: publishing changes"
            );
        }
    }

    /// Keeps one slot ready until the pool stops. Runs on a thread of its own.
    pub fn run(self: &Arc<Self>) {
        loop {
            let mut inner = self.lock();
            let work = loop {
                if inner.stopping {
                    return;
                }
                if let Some(work) = inner.next_work(self.last_given(), self.kept_for()) {
                    break work;
                }
                let look_every = LOOK_EVERY.min(self.shared.reclaim_every);
                let waited = self.changed.wait_timeout(inner, look_every);
                inner = waited.unwrap_or_else(PoisonError::into_inner).0;
            };
            drop(inner);
            match work {
                Work::Prepare => self.keep_ready(self.prepare(Kind::Stream, None)),
                Work::Again(slot) => {
                    self.keep_ready(self.prepare_in(Some(slot), Kind::Stream, None))
                }
                Work::Delete(slot) => self.delete(slot),
            }
        }
    }

    fn keep_ready(&self, prepared: Result<Prepared, JournalError>) {
        let mut inner = self.lock();
        match prepared {
            Ok(prepared) => {
                inner.trouble = None;
                inner.ready = Some(prepared);
                self.changed.notify_all();
                drop(inner);
            }
            Err(error) => {
                if inner.trouble.is_none() {
                    tracing::warn!(%error, "cannot prepare a journal slot, trying again");
                }
                inner.trouble = Some(error.to_string());
                drop(inner);
                self.check_reserve();
                let waited = self.changed.wait_timeout(self.lock(), RETRY_AFTER);
                drop(waited.unwrap_or_else(PoisonError::into_inner));
            }
        }
        self.check_reserve();
    }

    fn delete(&self, slot: u32) {
        match self.shared.dir.remove_slot(slot) {
            Ok(()) => count(&self.shared.reclaimed.slots_deleted, 1),
            // It is still there, or its name may come back after a power cut: free either way, at the next start.
            Err(error) => {
                tracing::warn!(%error, "cannot delete a free journal slot");
                self.stop_after(&error);
            }
        }
    }

    /// What a failed sync did not bring to the disk may never get there, and the next one need not say so: no
    /// other is tried (J12). Anything else may be better next time.
    fn stop_after(&self, error: &JournalError) {
        if error.is_failed_sync() {
            self.shared.fail(&error.to_string());
            self.stop();
        }
    }

    /// The store is about to stop: the writer waits no more for a slot that cannot be made.
    pub fn give_up(&self) {
        self.lock().ending = true;
        self.changed.notify_all();
    }

    /// Ends [`run`](Self::run) and every wait.
    pub fn stop(&self) {
        self.lock().stopping = true;
        self.changed.notify_all();
    }
}

/// What there is to do for the pool's thread.
enum Work {
    /// Prepare the slot that is taken next.
    Prepare,
    /// Prepare the slot that was ready once more: there is a newer snapshot to name, or a higher number was given.
    Again(u32),
    /// Delete a free slot.
    Delete(u32),
}

impl Inner {
    fn note_named(&mut self, snapshot: Option<SnapshotAt>) {
        self.named = self
            .named
            .into_iter()
            .chain(snapshot)
            .max_by_key(|at| at.group);
    }

    /// What to do next. `last_given` is the highest segment number so far, `kept_for` how long a free slot waits
    /// to be used again.
    fn next_work(&mut self, last_given: u64, kept_for: Duration) -> Option<Work> {
        let Some(ready) = self.ready.as_ref().map(|ready| ready.header) else {
            return Some(Work::Prepare);
        };
        let unused = |since: &Instant| since.elapsed() >= kept_for;
        let mut surplus = self
            .free
            .iter()
            .rev()
            .take(self.free.len().saturating_sub(limits::FREE_SLOTS_KEPT));
        let to_delete = surplus
            .find(|(_, since)| unused(since))
            .map(|(&slot, _)| slot);
        let is_newest = ready.segment == last_given;
        if ready.snapshot != self.snapshot || (to_delete.is_some() && !is_newest) {
            // The writer waits meanwhile, as it waits for one to be prepared.
            self.ready = None;
            return Some(Work::Again(ready.slot));
        }
        self.free.remove(&to_delete?);
        to_delete.map(Work::Delete)
    }
}
