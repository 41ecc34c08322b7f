//! SKELETON: signatures only.
#![allow(missing_docs, unused_variables, clippy::todo)]
use super::directory::SlotHandle;
use super::entry::EntryHeader;
use super::error::JournalError;
use super::group::{Claim, GroupFault, GroupHeader};
use super::header::SlotHeader;
use super::place::Place;
use std::ops::Range;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Payloads {
    Verify,
    Trust,
}

#[derive(Debug)]
pub struct SegmentReader {}

#[derive(Debug)]
pub enum Step<'a> {
    Group(ScannedGroup<'a>),
    Unreadable { position: u32, why: Unreadable },
    EndOfSlot,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unreadable {
    Header(GroupFault),
    /// A whole group, but another number than expected.
    Number {
        found: u64,
    },
    /// It names another end of the group before than where that ended.
    PreviousEnd {
        found: Place,
    },
    /// It says it goes on beyond the slot.
    BeyondSlot,
    /// The file ends before it does.
    BeyondFile,
    /// The device could not read it.
    Device,
}

/// Borrowed from the reader's buffer until the next step.
#[derive(Debug)]
pub struct ScannedGroup<'a> {
    pub place: Place,
    pub end: Place,
    pub header: GroupHeader,
    pub claims: Vec<Claim>,
    pub entries: Vec<ScannedEntry<'a>>,
    /// Positions where entries should be and none can be read: empty in a whole group.
    pub broken: Vec<Range<u32>>,
}
impl ScannedGroup<'_> {
    /// Nothing broken, no bad payload.
    pub fn is_whole(&self) -> bool {
        todo!()
    }
}

#[derive(Debug, Clone, Copy)]
pub struct ScannedEntry<'a> {
    pub position: u32,
    pub header: EntryHeader,
    pub payload: &'a [u8],
    /// Always true where payloads are trusted.
    pub payload_ok: bool,
}

impl SegmentReader {
    pub fn new(slot: SlotHandle, header: &SlotHeader, payloads: Payloads) -> Self {
        todo!()
    }
    /// Goes on at `position`; the group there must have this number (`None`: any).
    pub fn seek(&mut self, position: u32, expected: Option<u64>) {
        todo!()
    }
    pub fn next(&mut self) -> Result<Step<'_>, JournalError> {
        todo!()
    }
    /// The first group at or after sector boundary `from` with a number above `above`, its header checked only.
    pub fn find_after(
        &mut self,
        from: u32,
        above: u64,
    ) -> Result<Option<FoundGroup>, JournalError> {
        todo!()
    }
}

#[derive(Debug, Clone, Copy)]
pub struct FoundGroup {
    pub place: Place,
    pub header: GroupHeader,
}
