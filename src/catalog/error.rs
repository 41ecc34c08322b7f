//! What can go wrong with a store, named by what the caller can do about it.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use thiserror::Error;

use super::kind::StoreKind;

/// A store could not be opened, read or changed.
#[derive(Debug, Error)]
pub enum CatalogError {
    /// The file system refused. Before a change: nothing was changed.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// With which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Less free space than the step needs. Nothing was changed.
    #[error(
        "{} needs {needed_bytes} bytes of free space and has {free_bytes}: make room and try again",
        path.display()
    )]
    NoSpace {
        /// Where.
        path: PathBuf,
        /// What the step needs.
        needed_bytes: u64,
        /// What there is.
        free_bytes: u64,
    },
    /// Written by a later version of this program. Nothing was changed.
    #[error(
        "{} has format {found}, and this program knows formats up to {known}: use the version that wrote it, or a later one",
        path.display()
    )]
    Newer {
        /// The store.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The newest format this program knows.
        known: u32,
    },
    /// An index server's store where a peer's was expected, or the other way round.
    #[error("{} holds {found}, expected {expected}: one directory for each server; choose another", path.display())]
    WrongKind {
        /// The store.
        path: PathBuf,
        /// What it is.
        found: StoreKind,
        /// What it should be.
        expected: StoreKind,
    },
    /// A key, a value or a whole change is larger than its bound. Nothing was changed.
    #[error("a {what} of {bytes} bytes is over the limit of {limit}: split it")]
    TooLarge {
        /// "key", "value" or "change".
        what: &'static str,
        /// How large it is.
        bytes: usize,
        /// How large it may be.
        limit: usize,
    },
    /// The store cannot be trusted; it has to be built again.
    #[error("{} is ruined: {}", path.display(), reasons.join("; "))]
    Ruined {
        /// The store.
        path: PathBuf,
        /// Everything that was found.
        reasons: Vec<String>,
    },
    /// A write, flush or sync failed. What reached the disk is unknown: stop the process.
    #[error("a write to {} failed, what of it reached the disk is unknown: {reason}", path.display())]
    SyncFailed {
        /// The store.
        path: PathBuf,
        /// What was said.
        reason: String,
    },
    /// The disk did not answer in time. What reached it is unknown: stop the process.
    #[error(
        "{} did not finish {action} within {} s: the disk or the database hangs",
        path.display(),
        after.as_secs_f32()
    )]
    SyncTimedOut {
        /// The store.
        path: PathBuf,
        /// What was waited for.
        action: &'static str,
        /// How long.
        after: Duration,
    },
    /// The database panicked. What reached the disk is unknown: stop the process.
    #[error("the database at {} panicked: {message}", path.display())]
    Panicked {
        /// The store.
        path: PathBuf,
        /// The panic's message.
        message: String,
    },
    /// An earlier error stopped this store.
    #[error("{} was stopped by an earlier error", path.display())]
    Stopped {
        /// The store.
        path: PathBuf,
    },
}

impl CatalogError {
    /// Whether the state on the disk is now unknown, so that the process has to stop.
    pub fn stops(&self) -> bool {
        match self {
            Self::Io { .. }
            | Self::NoSpace { .. }
            | Self::Newer { .. }
            | Self::WrongKind { .. }
            | Self::TooLarge { .. } => false,
            Self::Ruined { .. }
            | Self::SyncFailed { .. }
            | Self::SyncTimedOut { .. }
            | Self::Panicked { .. }
            | Self::Stopped { .. } => true,
        }
    }

    pub(super) fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io {
            action,
            path: path.to_path_buf(),
            source,
        }
    }

    pub(super) fn ruined(path: &Path, reason: impl Into<String>) -> Self {
        Self::Ruined {
            path: path.to_path_buf(),
            reasons: vec![reason.into()],
        }
    }
}
