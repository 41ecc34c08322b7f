//! The index server's store: rows as in the catalog, without a journal behind them.
//!
//! The registry decides, this keeps. When [`RegistryStore::apply`] has returned,
//! what it was given survives a power cut, and only then may the index answer
//! what depends on it. A registry that is lost or unsound is replaced by an
//! empty one ([`RegistryStore::replace`]) and filled again by the peers.
//!
//! Invariants: those of [`super::row_store`].

use std::path::Path;

use super::check::Loaded;
use super::error::CatalogError;
use super::kind::StoreKind;
use super::lock::DirLock;
use super::row_store::{Contents, OpenOptions, RowStore};
use super::rows::{Delta, Row};

/// The registry's rows on the disk.
pub struct RegistryStore {
    store: RowStore,
}

impl RegistryStore {
    /// Opens `registry/` in the locked directory, or makes it where nothing ever was.
    /// With [`Verdict::Unsound`](super::Verdict::Unsound) the store takes no changes and has to be replaced.
    pub fn open(lock: &DirLock, options: OpenOptions) -> Result<(Self, Loaded), CatalogError> {
        let (store, loaded) = RowStore::open(lock, StoreKind::Index, options)?;
        Ok((Self { store }, loaded))
    }

    /// Like [`Self::open`], but hands the rows over one by one, in key order, so
    /// that they need not all lie in memory beside what is made of them.
    /// [`Loaded::rows`] is empty. They are worth something only if the verdict,
    /// which comes last, says so.
    pub fn open_each(
        lock: &DirLock,
        options: OpenOptions,
        mut visit: impl FnMut(Row),
    ) -> Result<(Self, Loaded), CatalogError> {
        let (store, loaded) = RowStore::open_each(lock, StoreKind::Index, options, &mut visit)?;
        Ok((Self { store }, loaded))
    }

    /// Sets rows and removes others in one atomic step (removals first); returns
    /// when that is on the disk. Blocks: for a thread of its own.
    pub fn apply(&mut self, puts: Vec<Row>, deletes: Vec<Vec<u8>>) -> Result<(), CatalogError> {
        self.store.apply(Delta {
            puts,
            deletes,
            applied: None,
        })
    }

    /// Whether there is room for more: short of it a store is better not given anything new, for a write
    /// that fails stops it.
    ///
    /// # Errors
    /// `NoSpace` if there is not.
    pub fn check_space(&self) -> Result<(), CatalogError> {
        self.store.check_space()
    }

    /// Sets an existing store aside, where the newest few are kept, and makes one of `rows`.
    pub fn replace(
        lock: &DirLock,
        options: OpenOptions,
        rows: Vec<Row>,
    ) -> Result<Self, CatalogError> {
        let contents = Contents {
            rows,
            applied: None,
        };
        let store = RowStore::replace(lock, StoreKind::Index, options, contents)?;
        Ok(Self { store })
    }

    /// Reads a copy of the store in `data_dir`, where nothing is written.
    pub fn read_copy(data_dir: &Path) -> Result<Loaded, CatalogError> {
        RowStore::read_copy(data_dir, StoreKind::Index, OpenOptions::default())
    }

    /// Closes the files and waits for that. Dropping does the same, silently.
    pub fn close(self) -> Result<(), CatalogError> {
        self.store.close()
    }
}
