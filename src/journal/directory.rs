//! SKELETON: signatures only.
#![allow(missing_docs, unused_variables, clippy::todo)]
use super::error::JournalError;
use super::header::HeaderCopies;
use super::slot::Slot;
use std::path::Path;
use std::sync::Arc;

pub type SlotHandle = Arc<Slot>;

#[derive(Debug, Clone, Copy, Default)]
pub struct JournalOptions {
    /// For a new journal; an existing one keeps its own.
    pub slot_bytes: Option<u32>,
    /// Never O_DIRECT.
    pub page_cache_only: bool,
}

#[derive(Debug)]
pub struct ListedSlot {
    pub id: u32,
    pub file_bytes: u64,
    pub header: HeaderCopies,
}

#[derive(Debug)]
pub struct JournalDir {}

impl JournalDir {
    /// Opens or makes the directory, probes O_DIRECT and the sector, reads all headers.
    pub fn open(
        path: &Path,
        options: &JournalOptions,
    ) -> Result<(Self, Vec<ListedSlot>), JournalError> {
        todo!()
    }
    pub fn list(&self) -> Result<Vec<ListedSlot>, JournalError> {
        todo!()
    }
    pub fn slot_bytes(&self) -> u32 {
        todo!()
    }
    pub fn sector(&self) -> u32 {
        todo!()
    }
    pub fn is_direct(&self) -> bool {
        todo!()
    }
    /// Makes the next slot file, empty; `Slot::prepare` makes it usable.
    pub fn create_slot(&self) -> Result<SlotHandle, JournalError> {
        todo!()
    }
    /// An existing slot, from the cache of open ones or opened now.
    pub fn slot(&self, id: u32) -> Result<SlotHandle, JournalError> {
        todo!()
    }
    /// Unlinks a free slot's file and syncs the directory.
    pub fn remove_slot(&self, id: u32) -> Result<(), JournalError> {
        todo!()
    }
    pub fn sync(&self) -> Result<(), JournalError> {
        todo!()
    }
    pub fn free_bytes(&self) -> Result<u64, JournalError> {
        todo!()
    }
}
