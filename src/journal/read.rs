//! SKELETON: signatures only.
#![allow(missing_docs, unused_variables, clippy::todo)]
use super::entry::EntryHeader;
use super::error::JournalError;
use super::footer::Extent;
use super::group::Group;
use super::header::SlotHeader;
use super::slot::{Slot, Via};
use crate::types::{Offset, TopicId};
use bytes::Bytes;

#[derive(Debug, Clone, Copy)]
pub struct ExtentRead {
    pub topic: TopicId,
    pub extent: Extent,
    /// Entries wholly below are left out.
    pub from: Offset,
}

/// In order of offsets, without holes, covering `[from, extent end)`.
#[derive(Debug, Clone)]
pub enum Piece {
    Entry(StoredEntry),
    Damaged { from: Offset, to: Offset },
}

#[derive(Debug, Clone)]
pub struct StoredEntry {
    pub position: u32,
    pub header: EntryHeader,
    pub payload: Bytes,
}

/// One pread, then header, checksum, topic and offsets of every entry are checked.
pub fn read_extent(
    slot: &Slot,
    header: &SlotHeader,
    read: &ExtentRead,
    via: Via,
) -> Result<Vec<Piece>, JournalError> {
    todo!()
}

/// The same from a group in memory, without checksums.
pub fn read_from_group(group: &Group, read: &ExtentRead) -> Vec<Piece> {
    todo!()
}
