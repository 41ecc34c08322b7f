//! From entry to entry through a whole segment, whatever lies between the entries.
//!
//! The reader of groups ([`super::scan`]) tells what the stream is. This one asks another
//! question: which entries of this life of the slot can still be read, also where the header of
//! their group, or the entry before them, cannot? Nothing but an entry header of exactly this
//! place passes its checksum (J4), so whatever is found was written here. Group headers, claims
//! and padding are passed over like anything else that is no entry. Cold segments have no groups;
//! for them this is the only way to be read from end to end.
//!
//! Memory: one buffer of a few MiB, larger only while a larger entry passes.

use std::ops::Range;

use super::checksum::Seed;
use super::directory::SlotHandle;
use super::entry::{ENTRY_HEADER_BYTES, EntryHeader};
use super::error::JournalError;
use super::fields::{to_u32, to_usize};
use super::header::SlotHeader;
use super::scan::ScannedEntry;
use super::slot::Via;
use super::walk::looks_like_header;
use super::window::Window;
use crate::limits::SCAN_BYTES_FIRST;

/// What lies next in a segment.
#[derive(Debug)]
pub enum Passed<'a> {
    /// An entry whose header is right.
    Entry(ScannedEntry<'a>),
    /// No entry begins in these positions.
    NoEntry(Range<u32>),
}

/// Walks the entries of a segment, and of nothing else.
#[derive(Debug)]
pub struct EntryScanner {
    window: Window,
    seed: Seed,
    position: u32,
    end: u32,
}

impl EntryScanner {
    /// Stands at the start of `range` in the segment that `header` describes.
    pub fn new(slot: SlotHandle, header: &SlotHeader, range: Range<u32>) -> Self {
        Self {
            end: range.end.min(slot.slot_bytes()),
            window: Window::new(slot, Via::Cached),
            seed: header.seed(),
            position: range.start,
        }
    }

    /// What lies here; `None` at the end.
    ///
    /// # Errors
    /// If the file cannot be read at all.
    pub fn step(&mut self) -> Result<Option<Passed<'_>>, JournalError> {
        let position = self.position;
        if position >= self.end {
            return Ok(None);
        }
        let Some(header) = self.header_at(position)? else {
            self.position = self.next_header_after(position)?;
            return Ok(Some(Passed::NoEntry(position..self.position)));
        };
        let length = header.entry_bytes();
        self.window.load(position, length)?;
        self.position += length;
        let payload = &self.window.bytes(position, length)[ENTRY_HEADER_BYTES..];
        Ok(Some(Passed::Entry(ScannedEntry {
            position,
            header,
            payload,
            payload_ok: header.payload_matches(payload),
        })))
    }

    fn header_at(&mut self, position: u32) -> Result<Option<EntryHeader>, JournalError> {
        let length = to_u32(ENTRY_HEADER_BYTES);
        if position + length > self.end {
            return Ok(None);
        }
        self.window.load(position, length)?;
        Ok(self.judge(position, self.window.bytes(position, length)))
    }

    fn judge(&self, position: u32, bytes: &[u8]) -> Option<EntryHeader> {
        let header = EntryHeader::decode(bytes, &self.seed, position).ok()?;
        let end = u64::from(position) + u64::from(header.entry_bytes());
        (end <= u64::from(self.end)).then_some(header)
    }

    /// The next position after `position` where an entry header can be read, or the end.
    fn next_header_after(&mut self, position: u32) -> Result<u32, JournalError> {
        let header_bytes = to_u32(ENTRY_HEADER_BYTES);
        let mut from = position + 1;
        while from + header_bytes <= self.end {
            let length = (self.end - from).min(to_u32(SCAN_BYTES_FIRST));
            self.window.load(from, length)?;
            let bytes = self.window.bytes(from, length);
            let last = to_usize(length - header_bytes);
            let found = (0..=last).find(|&at| {
                looks_like_header(&bytes[at..])
                    && self.judge(from + to_u32(at), &bytes[at..]).is_some()
            });
            if let Some(at) = found {
                return Ok(from + to_u32(at));
            }
            from += to_u32(last) + 1;
        }
        Ok(self.end)
    }
}
