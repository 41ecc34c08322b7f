//! What can go wrong on the disk.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// The journal's files could not be used.
#[derive(Debug, Error)]
pub enum JournalError {
    /// A call to the file system failed. After a failed write or sync nothing is known of the bytes concerned.
    #[error("cannot {action} {path}: {source}", path = path.display())]
    Io {
        /// What was tried ("sync", "write").
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The directory's slots do not fit together, or not to what was asked. Nothing was changed.
    #[error("{path}: {what}", path = path.display())]
    Unsuitable {
        /// The file or directory.
        path: PathBuf,
        /// What was expected, what was found and what to do.
        what: String,
    },
    /// A slot was written by a later version of this program. Nothing was changed.
    #[error(
        "{path} has format {found}, this program knows {known}: use a newer program",
        path = path.display()
    )]
    Newer {
        /// The slot's file.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The newest format this program knows.
        known: u32,
    },
}

/// What a sync that failed tried.
const SYNC: &str = "sync";

impl JournalError {
    /// Makes the error of a failed call: what was tried, and on which file or directory.
    pub fn io<'a>(
        action: &'static str,
        path: &'a Path,
    ) -> impl FnOnce(io::Error) -> Self + use<'a> {
        move |source| Self::Io {
            action,
            path: path.to_owned(),
            source,
        }
    }

    /// Makes the error of a sync that failed.
    pub fn sync(path: &Path) -> impl FnOnce(io::Error) -> Self + use<'_> {
        Self::io(SYNC, path)
    }

    /// Whether a sync failed. The next one may succeed and say nothing of what this one lost (J12).
    pub fn is_failed_sync(&self) -> bool {
        matches!(self, Self::Io { action, .. } if *action == SYNC)
    }

    /// Whether it speaks of what lies on the disk. Others pass: no descriptor left, no memory.
    pub fn is_damage(&self) -> bool {
        use rustix::io::Errno;
        let Some(error) = self.io_error() else {
            return true;
        };
        let of_the_disk = [
            Errno::IO,
            Errno::REMOTEIO,
            Errno::ILSEQ,
            Errno::BADMSG,
            Errno::NODATA,
            Errno::UCLEAN,
            Errno::NOENT,
        ];
        error.kind() == io::ErrorKind::UnexpectedEof
            || Errno::from_io_error(error).is_some_and(|errno| of_the_disk.contains(&errno))
    }

    /// What the operating system said, if it was asked.
    pub fn io_error(&self) -> Option<&io::Error> {
        match self {
            Self::Io { source, .. } => Some(source),
            Self::Unsuitable { .. } | Self::Newer { .. } => None,
        }
    }
}
