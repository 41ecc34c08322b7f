//! How many changes a registry has taken, told beside it.
//!
//! The database's recovery passes over what it cannot read, and what is left may be whole in itself: the
//! registry as it was some changes ago. A peer's catalog has the journal to be compared with; a registry has
//!
//! ```text
//! registry.seen     changes u64 | crc u32 of them
//! ```
//!
//! Little endian. It is written after a change is on the disk, and never synced. So after a power cut it says
//! less, or nothing; it never says more than the registry held. Where it says nothing, nothing is known.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;

use crc_fast::{CrcAlgorithm, checksum};

use super::directory::Places;
use super::error::CatalogError;

const BYTES: usize = 12;

/// How many changes the store in these places took at least.
pub(super) fn read(places: &Places) -> Option<u64> {
    let bytes = fs::read(places.seen()).ok()?;
    let changes = u64::from_le_bytes(*bytes.first_chunk()?);
    (bytes == encode(changes)).then_some(changes)
}

/// The store that follows begins with none. What cannot be removed is written over: it would make every store that
/// follows one that lacks changes.
pub(super) fn forget(places: &Places) -> Result<(), CatalogError> {
    let path = places.seen();
    match fs::remove_file(&path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(_) => fs::write(&path, encode(0))
            .map_err(|source| CatalogError::io("remove or write over", &path, source)),
    }
}

fn encode(changes: u64) -> [u8; BYTES] {
    let mut bytes = [0; BYTES];
    bytes[..8].copy_from_slice(&changes.to_le_bytes());
    let crc = checksum(CrcAlgorithm::Crc32Iscsi, &bytes[..8]) as u32;
    bytes[8..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// Counts the changes of one store.
pub(super) struct Counter {
    file: Option<File>,
}

impl Counter {
    /// Opens the file. Without it a registry works as well; only a loss is noticed later, or not here.
    pub(super) fn open(places: &Places) -> Self {
        let path = places.seen();
        let options = File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path);
        let file = options.inspect_err(
            |error| tracing::warn!(path = %path.display(), %error, "cannot count the changes of the registry"),
        );
        Self { file: file.ok() }
    }

    /// So many are on the disk.
    pub(super) fn tell(&mut self, changes: u64) {
        let written = match &self.file {
            Some(file) => file.write_all_at(&encode(changes), 0),
            None => return,
        };
        if let Err(error) = written {
            tracing::warn!(%error, "the changes of the registry are not counted any more");
            self.file = None;
        }
    }
}
