//! Slots, ready before they are needed.
//!
//! A thread keeps one stream slot prepared: header written, size set, file and
//! directory synced (J13). The writer takes it when its segment is full and
//! never waits for a file to be made, unless it is faster than the disk can
//! make files. Free slots are used again before new ones are made.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::shared::Shared;
use crate::journal::{
    JournalError, Kind, PrepareOptions, Resume, Salt, Seed, SlotHandle, SlotHeader, SnapshotAt,
};
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
    free: BTreeSet<u32>,
    snapshot: Option<SnapshotAt>,
    stopping: bool,
    /// Why the last attempt to prepare a slot failed.
    trouble: Option<String>,
}

/// The slots that hold nothing.
pub(super) struct SlotPool {
    shared: Arc<Shared>,
    peer: PeerId,
    next_segment: AtomicU64,
    inner: Mutex<Inner>,
    changed: Condvar,
}

/// How long to wait after a failed attempt: the disk may have room again.
const RETRY_AFTER: Duration = Duration::from_millis(200);

impl SlotPool {
    /// A pool over `free` slots; `next_segment` is above every number given so far.
    pub fn new(shared: Arc<Shared>, peer: PeerId, next_segment: u64, free: BTreeSet<u32>) -> Self {
        let inner = Inner {
            free,
            ..Inner::default()
        };
        Self {
            shared,
            peer,
            next_segment: AtomicU64::new(next_segment),
            inner: Mutex::new(inner),
            changed: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Prepares a slot now, on the calling thread. The segment gets the next number.
    pub fn prepare(&self, kind: Kind, resume: Option<Resume>) -> Result<Prepared, JournalError> {
        let (id, snapshot) = {
            let mut inner = self.lock();
            (inner.free.pop_first(), inner.snapshot)
        };
        let prepared = self.prepare_slot(id, kind, resume, snapshot);
        if let (Err(_), Some(id)) = (&prepared, id) {
            self.lock().free.insert(id);
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
        if id.is_none() && prepared.is_err() {
            // A file that could not be made whole takes space and serves nobody.
            let _ = self.shared.dir.remove_slot(slot.id());
        }
        prepared.map(|()| Prepared { slot, header })
    }

    /// The prepared stream slot; waits until there is one. `None` when the pool stops.
    pub fn take(&self) -> Option<Prepared> {
        let mut inner = self.lock();
        loop {
            if let Some(ready) = inner.ready.take() {
                self.changed.notify_all();
                return Some(ready);
            }
            if inner.stopping {
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
        self.lock().free.insert(slot);
        self.changed.notify_all();
    }

    /// The latest usable snapshot, for the headers to come.
    pub fn set_snapshot(&self, snapshot: Option<SnapshotAt>) {
        self.lock().snapshot = snapshot;
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

    /// Keeps one slot ready until the pool stops. Runs on a thread of its own.
    pub fn run(self: &Arc<Self>) {
        loop {
            let mut inner = self.lock();
            while inner.ready.is_some() && !inner.stopping {
                inner = self
                    .changed
                    .wait(inner)
                    .unwrap_or_else(PoisonError::into_inner);
            }
            if inner.stopping {
                return;
            }
            drop(inner);
            let prepared = self.prepare(Kind::Stream, None);
            let mut inner = self.lock();
            match prepared {
                Ok(prepared) => {
                    inner.trouble = None;
                    inner.ready = Some(prepared);
                    self.changed.notify_all();
                }
                Err(error) => {
                    if inner.trouble.is_none() {
                        tracing::warn!(%error, "cannot prepare a journal slot, trying again");
                    }
                    inner.trouble = Some(error.to_string());
                    let waited = self.changed.wait_timeout(inner, RETRY_AFTER);
                    drop(waited.unwrap_or_else(PoisonError::into_inner));
                }
            }
        }
    }

    /// Ends [`run`](Self::run) and every wait.
    pub fn stop(&self) {
        self.lock().stopping = true;
        self.changed.notify_all();
    }
}
