//! The applier: follows the journal with the catalog, lazily.
//!
//! The writer captures the rows that changed, at a group boundary; the sync
//! thread hands them on once that group is durable (J8); this thread puts them
//! into sled together with the position, in one step, and makes that durable.
//! Only then may the journal forget what lies before the position (J7).

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, PoisonError};

use super::shared::Shared;
use crate::catalog::{Applied, Catalog};
use crate::topic::RowChange;

/// Rows that changed up to a place in the journal.
pub(super) struct Delta {
    pub changes: Vec<RowChange>,
    pub applied: Applied,
}

impl Delta {
    /// In steps small enough for the catalog: a snapshot touches every topic.
    fn into_catalog(self) -> Vec<crate::catalog::Delta> {
        let mut delta = crate::catalog::Delta {
            puts: Vec::new(),
            deletes: Vec::new(),
            applied: Some(self.applied),
        };
        for change in self.changes {
            match change.row {
                Some(row) => delta.puts.push((change.key.encode(), row.encode())),
                None => delta.deletes.push(change.key.encode()),
            }
        }
        delta.into_pieces()
    }
}

/// How far the catalog is.
pub(super) struct ApplierStatus {
    busy: AtomicBool,
    /// Somebody waits for the catalog to follow.
    hurry: AtomicBool,
    applied: Mutex<Applied>,
}

impl ApplierStatus {
    /// The catalog has `applied`, durably.
    pub fn new(applied: Applied) -> Self {
        Self {
            busy: AtomicBool::new(false),
            hurry: AtomicBool::new(false),
            applied: Mutex::new(applied),
        }
    }

    /// Claims the applier for one delta; false if one is under way.
    pub fn begin(&self) -> bool {
        !self.busy.swap(true, Ordering::AcqRel)
    }

    /// Asks for the next delta soon: slots wait for it.
    pub fn hurry(&self) {
        self.hurry.store(true, Ordering::Release);
    }

    /// Whether somebody asked for that.
    pub fn is_hurried(&self) -> bool {
        self.hurry.load(Ordering::Acquire)
    }

    /// Whether a delta is under way.
    pub fn is_busy(&self) -> bool {
        self.busy.load(Ordering::Acquire)
    }

    /// The durable position of the catalog.
    pub fn applied(&self) -> Applied {
        *self.applied.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn finish(&self, applied: Applied) {
        *self.applied.lock().unwrap_or_else(PoisonError::into_inner) = applied;
        self.hurry.store(false, Ordering::Release);
        self.busy.store(false, Ordering::Release);
    }
}

/// The applier's side of things.
pub(super) struct Applier {
    pub catalog: Catalog,
    pub deltas: Receiver<Delta>,
    pub status: Arc<ApplierStatus>,
    pub shared: Arc<Shared>,
}

impl Applier {
    /// Runs until the sync thread is gone, then closes the catalog.
    pub fn run(mut self) {
        while let Ok(delta) = self.deltas.recv() {
            let applied = delta.applied;
            if let Err(error) = self.catalog.apply_all(delta.into_catalog()) {
                self.shared
                    .fail(&format!("the catalog cannot be written: {error}"));
                return;
            }
            self.status.finish(applied);
        }
        if let Err(error) = self.catalog.close() {
            tracing::warn!(%error, "the catalog did not close cleanly; the journal makes up for it");
        }
    }
}
