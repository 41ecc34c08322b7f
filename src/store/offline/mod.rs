//! Tools for data directories in which no server runs.
//!
//! ```text
//!   list  dump  verify  stats  export        repair  import  migrate
//!        \    \    |    /    /                  |       |       |
//!         read ── Image                       Store::open, under the lock
//!                   |                               |
//!      recovery::inspect, journal (read only)    everything a peer does at a start
//! ```
//!
//! Reading tools look at an `Image`: the state as the next start
//! would make it, from the same recovery code, of a stopped store or of a copy
//! of a running one. They write nothing, nowhere in the directory: slots are
//! opened for reading, the catalog is read from a scratch copy, because opening
//! a database writes to it.
//!
//! Tools that change something take the directory's lock, do what a peer does
//! when it starts, and write by the same writer. There is no second
//! implementation of the stream's rules here.
//!
//! Invariants
//! 1. A reading tool changes no byte and makes no file in the directory.
//! 2. Nothing here works while a server holds the lock; it is refused with the
//!    server's process id. A server that was started while a tool was reading is
//!    noticed at the end, and what was read is not passed off as one state.
//! 3. No tool deletes anything that was a store: it is renamed.
//! 4. What cannot be read is told, by file, position, topic and offsets, and
//!    never left out in silence.
//!
//! Deliberately missing: sockets, formats for people (the command line's), and
//! the index server's decisions.

mod dump;
mod export;
mod image;
mod import;
mod list;
mod read;
mod registry;
mod repair;
mod report;
mod stats;
pub mod tdx;
#[cfg(test)]
mod tests;
mod verify;
mod work;

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

pub use dump::{DumpOptions, DumpSummary, Dumped, dump};
pub use export::{ExportOptions, ExportedSummary, export};
pub use image::check_journal_format;
pub use import::{Imported, import};
pub use list::{DirKind, ListedSegment, ListedTopic, Listing, SegmentUse, kind_of, list};
pub use registry::{RegistryEntry, RegistryListing, list_registry};
pub use report::{Checked, Finding, Repaired, Verified};
pub use stats::{SegmentStats, Stats, TopicStats, Weight, stats};

use super::open::OpenError;
use super::recovery::RecoveryError;
use crate::catalog::{CatalogError, DirLock, Holder, LockError};
use crate::journal::JournalError;
use crate::types::TopicName;

/// Why a tool did not do its work.
#[derive(Debug, Error)]
pub enum OfflineError {
    /// Neither a peer's nor an index server's directory.
    #[error("{} holds no store: expected a journal, a catalog or a registry in it{hint}", dir.display())]
    NoStore {
        /// The directory.
        dir: PathBuf,
        /// Where there is one, if that is near.
        hint: String,
    },
    /// The tool does not work on such a directory.
    #[error("{} is {found}: {what}", dir.display())]
    WrongKind {
        /// The directory.
        dir: PathBuf,
        /// Whose it is.
        found: DirKind,
        /// What the tool is for.
        what: &'static str,
    },
    /// A server works there.
    #[error("{} is in use by {holder}: stop it, or work on a copy of the directory", dir.display())]
    InUse {
        /// The directory.
        dir: PathBuf,
        /// Who.
        holder: Holder,
    },
    /// There is no such topic.
    #[error("there is no topic {name} in {}", dir.display())]
    NoTopic {
        /// Its name.
        name: TopicName,
        /// The directory.
        dir: PathBuf,
    },
    /// A file could not be used.
    #[error("cannot {action}: {source}")]
    Io {
        /// What was tried.
        action: String,
        /// What the system said.
        source: io::Error,
    },
    /// The lock.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The catalog or the registry.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// An export is not whole, or not for this program. Nothing was changed.
    #[error(transparent)]
    Export(#[from] tdx::ExportFault),
    /// The stream.
    #[error(transparent)]
    Recovery(#[from] RecoveryError),
    /// The store does not open, or failed afterwards.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// It cannot be done, and why. Nothing was changed.
    #[error("{0}")]
    Refused(String),
}

impl OfflineError {
    fn io(action: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let action = action.into();
        move |source| Self::Io { action, source }
    }
}

/// Refuses a directory in which somebody works (invariant 2).
fn refuse_if_used(dir: &Path) -> Result<(), OfflineError> {
    match DirLock::holder(dir) {
        None => Ok(()),
        Some(holder) => Err(OfflineError::InUse {
            dir: dir.to_owned(),
            holder,
        }),
    }
}

/// Verifies a directory.
///
/// # Errors
/// If it cannot be read, or a server works there. Whatever is wrong with its contents is a finding.
pub fn verify(dir: &Path) -> Result<Verified, OfflineError> {
    match kind_of(dir)? {
        DirKind::Peer => verify::verify(dir),
        DirKind::Index => registry::verify(dir),
    }
}

/// Repairs a directory; with `dry_run` only tells what would be done.
///
/// # Errors
/// If a server works there, or it is beyond repair: the message says what is missing.
pub fn repair(dir: &Path, dry_run: bool) -> Result<Repaired, OfflineError> {
    refuse_if_used(dir)?;
    match kind_of(dir)? {
        DirKind::Peer => repair::repair(dir, dry_run),
        DirKind::Index => registry::repair(dir, dry_run),
    }
}
