//! The stores: a peer's catalog and an index server's registry, in sled.
//!
//! ```text
//!   Catalog   RegistryStore        what the roles see
//!        \     /
//!        RowStore                  rows, counted and summed; verdicts     row_store.rs rows.rs check.rs
//!           |                      meta row, migrations                   meta.rs migrate.rs
//!        Watched                   a thread of its own, and a watch       watched.rs
//!           |
//!        SledDb                    sled, made safe; checked values        sled_db.rs value.rs
//!        directory                 names, syncs and swaps                 directory.rs
//! ```
//!
//! A catalog is derived: the journal holds every fact, and what a catalog says
//! together with its [`Applied`] position is what the journal says up to there.
//! So the answer to a catalog in doubt is always to build another from the
//! journal ([`Catalog::replace`]), and all that is needed here is to notice.
//!
//! Everything that changes a store takes a [`DirLock`], so it cannot be called
//! without one. Everything here blocks; callers use a thread of their own.
//!
//! Invariants: those of `row_store`, `directory` and `sled_db`.
//!
//! Deliberately missing: any knowledge of what the rows mean.

mod check;
mod directory;
mod error;
mod kind;
mod lock;
mod meta;
mod migrate;
mod registry_store;
mod row_store;
mod rows;
mod seen;
mod sled_db;
mod steps;
mod value;
mod watched;

use std::path::Path;

pub use check::{Loaded, Verdict};
pub use directory::check_role;
pub use error::CatalogError;
pub use kind::StoreKind;
pub use lock::{DirLock, Holder, LOCK_FILE, LockError};
pub use meta::{Applied, FORMAT};
pub use migrate::{Plan, Step, plan, run};
pub use registry_store::RegistryStore;
pub use row_store::OpenOptions;
pub use rows::{Delta, Row};

use row_store::{Contents, RowStore};

/// A peer's catalog.
pub struct Catalog {
    store: RowStore,
}

impl Catalog {
    /// Opens `catalog/` in the locked directory, or makes it where nothing ever was.
    ///
    /// With [`Verdict::Unsound`] the catalog takes no changes and has to be
    /// [replaced](Self::replace); that is no error, because it is what the journal is for.
    /// A store of a later format, of another role, or that the system keeps from us, is.
    pub fn open(lock: &DirLock, options: OpenOptions) -> Result<(Self, Loaded), CatalogError> {
        let (store, loaded) = RowStore::open(lock, StoreKind::Peer, options)?;
        Ok((Self { store }, loaded))
    }

    /// Applies `delta` in one atomic step; returns when it is on the disk. Blocks.
    ///
    /// After an error that [stops](CatalogError::stops) the process has to end:
    /// what reached the disk is unknown, and the next start finds out.
    pub fn apply(&mut self, delta: Delta) -> Result<(), CatalogError> {
        self.store.apply(delta)
    }

    /// Applies one delta after the other, each in one atomic step; returns when all of them are on the disk. A crash
    /// before leaves the first ones.
    pub fn apply_all(&mut self, deltas: Vec<Delta>) -> Result<(), CatalogError> {
        self.store.apply_all(deltas)
    }

    /// Makes a new catalog of `rows`, which the journal says up to `applied`.
    ///
    /// The old one is renamed to `catalog.ruined-N` first; the newest
    /// [`limits::RUINED_STORES_KEPT`](crate::limits::RUINED_STORES_KEPT) of those stay.
    /// The new one is built aside, synced, and gets its name last. A crash at any
    /// moment leaves the old catalog, or none ([`Verdict::Unsound`], so the next
    /// start builds it again), or the new one whole.
    pub fn replace(
        lock: &DirLock,
        options: OpenOptions,
        rows: Vec<Row>,
        applied: Option<Applied>,
    ) -> Result<Self, CatalogError> {
        let contents = Contents { rows, applied };
        let store = RowStore::replace(lock, StoreKind::Peer, options, contents)?;
        Ok(Self { store })
    }

    /// Reads a copy of the catalog in `data_dir`, where nothing is written.
    /// For a stopped store, or a copy of a running one.
    pub fn read_copy(data_dir: &Path) -> Result<Loaded, CatalogError> {
        RowStore::read_copy(data_dir, StoreKind::Peer, OpenOptions::default())
    }

    /// Closes the files and waits for that. Dropping does the same, silently.
    pub fn close(self) -> Result<(), CatalogError> {
        self.store.close()
    }
}

#[cfg(test)]
mod tests;
