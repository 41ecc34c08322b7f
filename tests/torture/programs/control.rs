//! Asking the library in front of a running server for faults, and hearing what it did.
//!
//! `shim.c` has the file mapped; here it is read and written, eight bytes at a time.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use super::cluster::{Outcome, text};

/// A number in the file, as `struct control` has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub enum Word {
    /// Which files the next three concern.
    Where,
    /// Microseconds that syncs wait.
    Hold,
    /// Syncs that are to fail.
    FailSyncs,
    /// Writes that are to fail.
    FailWrites,
    /// There is no space.
    Full,
    /// Nanoseconds by which the wall clock is off.
    Clock,
    /// Syncs that were made to wait, or wait now.
    Holds,
    /// Calls that failed.
    Failed,
    /// Syncs of a file one of whose syncs had failed.
    Again,
    /// Calls that found no space.
    Refused,
    /// How often the shifted clock was read.
    Clocks,
    /// Bytes that failed syncs took with them.
    Lost,
}

/// Words in the file.
const WORDS: usize = 16;

/// Which files: bits for [`Word::Where`]. The slots of the journal.
pub const JOURNAL: u64 = 1;
/// sled's.
pub const CATALOG: u64 = 2;
/// The directory of the slots.
pub const NAMES: u64 = 8;
/// Holds are for writes as well.
pub const WRITES: u64 = 16;

/// The file of one server.
pub struct Control(File);

impl Control {
    pub fn path(dir: &Path, kind: &str) -> PathBuf {
        dir.join(format!("{kind}.control"))
    }

    /// Made before the server is started.
    pub fn new(dir: &Path, kind: &str) -> Outcome<Self> {
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(true);
        let this = Self(options.open(Self::path(dir, kind)).map_err(text)?);
        this.reset()?;
        Ok(this)
    }

    /// No fault, and nothing counted.
    pub fn reset(&self) -> Outcome<()> {
        self.0.write_all_at(&[0; WORDS * 8], 0).map_err(text)
    }

    pub fn set(&self, word: Word, value: u64) -> Outcome<()> {
        self.0
            .write_all_at(&value.to_le_bytes(), word as u64 * 8)
            .map_err(text)
    }

    pub fn get(&self, word: Word) -> Outcome<u64> {
        let mut bytes = [0; 8];
        self.0
            .read_exact_at(&mut bytes, word as u64 * 8)
            .map_err(text)?;
        Ok(u64::from_le_bytes(bytes))
    }
}
