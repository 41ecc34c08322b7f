//! SKELETON: signatures only.
#![allow(missing_docs, unused_variables, clippy::todo)]
use super::buffer::AlignedBuffer;
use super::error::JournalError;
use super::footer::{Footer, FooterFault};
use super::header::{HeaderCopies, SlotHeader};
use bytes::Bytes;

/// How a slot is read: `Direct` is what the writer's mode is (O_DIRECT where allowed), `Cached` goes through the page cache: only for sealed segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Via {
    Direct,
    Cached,
}

#[derive(Debug, Clone, Copy, Default)]
pub struct PrepareOptions {
    pub zero_fill: bool,
}

#[derive(Debug)]
pub struct Slot {}

/// What was read: [`Block::into_bytes`] copies nothing. Shorter than asked only where the file ends.
#[derive(Debug)]
pub struct Block {}
impl Block {
    pub fn as_slice(&self) -> &[u8] {
        todo!()
    }
    pub fn into_bytes(self) -> Bytes {
        todo!()
    }
}

impl Slot {
    pub fn id(&self) -> u32 {
        todo!()
    }
    /// Writes both header copies, sets the size, zero-fills if asked, drops cached pages, syncs file and directory.
    pub fn prepare(
        &self,
        header: &SlotHeader,
        options: PrepareOptions,
    ) -> Result<(), JournalError> {
        todo!()
    }
    /// Writes both copies again as they are; the caller syncs.
    pub fn write_header(&self, header: &SlotHeader) -> Result<(), JournalError> {
        todo!()
    }
    pub fn read_header(&self) -> Result<HeaderCopies, JournalError> {
        todo!()
    }
    /// `bytes` aligned in memory and length (a `Group::disk_bytes`), position at a sector.
    pub fn write_at(&self, bytes: &[u8], position: u32) -> Result<(), JournalError> {
        todo!()
    }
    /// Any bytes: copied, padded with zeros to the sector, written (footers).
    pub fn write_padded(
        &self,
        bytes: &[u8],
        position: u32,
        sector: u32,
    ) -> Result<(), JournalError> {
        todo!()
    }
    pub fn sync_data(&self) -> Result<(), JournalError> {
        todo!()
    }
    pub fn read_at(&self, position: u32, length: u32, via: Via) -> Result<Block, JournalError> {
        todo!()
    }
    /// Into `buffer` from `position`, both aligned to 4096; gives the number of bytes up to the file's end.
    pub fn read_into(
        &self,
        buffer: &mut AlignedBuffer,
        position: u32,
        via: Via,
    ) -> Result<usize, JournalError> {
        todo!()
    }
    pub fn read_footer(
        &self,
        header: &SlotHeader,
        position: u32,
        via: Via,
    ) -> Result<Result<Footer, FooterFault>, JournalError> {
        todo!()
    }
}
