//! Walking a segment from group to group (section 6 of `docs/storage-format.md`).
//!
//! A [`SegmentReader`] tells what lies at a position of one segment: a group, something
//! unreadable, or the end of the slot. What follows from that (where the stream goes on, whether
//! the end is torn or damaged) is decided above, where claims and all segments are known.
//!
//! Model: a group counts as *found* when its header and claims match their checksum, which
//! includes salt, segment and position (J4), and it has the number and the end of the group before
//! that were expected. Then its length is known too, and the walk goes on behind it, whatever its
//! entries look like. Of its entries each says for itself whether its header and payload are right.
//!
//! Memory: one buffer of a few MiB, larger only while a larger group passes. What a step shows is
//! borrowed from it until the next step.

use std::ops::Range;

use thiserror::Error;

use super::checksum::{Crc, Seed};
use super::directory::SlotHandle;
use super::entry::{ENTRY_HEADER_BYTES, EntryHeader};
use super::error::JournalError;
use super::fields::{to_u32, to_usize};
use super::group::{Claim, GROUP_HEADER_BYTES, GroupFault, GroupHeader};
use super::header::{FIRST_POSITION, SlotHeader};
use super::place::{Place, round_up};
use super::slot::Via;
use super::walk::{EntryWalk, Walked};
use super::window::Window;

/// Whether the checksums of payloads are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Payloads {
    /// Every payload is checked.
    Verify,
    /// Payloads are taken as they are; headers are always checked.
    Trust,
}

/// What lies at a position.
#[derive(Debug)]
pub enum Step<'a> {
    /// A group; the reader stands behind it now.
    Group(ScannedGroup<'a>),
    /// No group that could come next; the reader stays.
    Unreadable {
        /// Where it was looked for.
        position: u32,
        /// What is there instead.
        why: Unreadable,
    },
    /// No group fits into the rest of the slot.
    EndOfSlot,
}

/// Why there is no group that could come next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Unreadable {
    /// No group header of this place.
    #[error(transparent)]
    Header(#[from] GroupFault),
    /// A group, but not the expected one.
    #[error("the group has number {found}, expected {expected}")]
    Number {
        /// The number expected.
        expected: u64,
        /// The number found.
        found: u64,
    },
    /// A group with the right number that follows another group than the one before it here.
    #[error("the group says the one before it ended at {found}, expected {expected}")]
    PreviousEnd {
        /// Where the group before it ended.
        expected: Place,
        /// Where it says that one ended.
        found: Place,
    },
    /// A right header with a length beyond the slot.
    #[error("the group goes on beyond the slot")]
    BeyondSlot,
    /// The file was cut before this position.
    #[error("the file ends before the group")]
    BeyondFile,
    /// The device could not read the header.
    #[error("the device could not read the group's header")]
    Device,
}

/// A group as it was found.
#[derive(Debug)]
pub struct ScannedGroup<'a> {
    /// Where it lies.
    pub place: Place,
    /// Where it ends, padding included.
    pub end: Place,
    /// Its header.
    pub header: GroupHeader,
    /// Its claims.
    pub claims: Vec<Claim>,
    /// The entries that could be read, in order.
    pub entries: Vec<ScannedEntry<'a>>,
    /// Positions where entries should be and cannot be read.
    pub broken: Vec<Range<u32>>,
    /// The device could not read all of it; what is missing counts as broken.
    pub device_failed: bool,
}

impl ScannedGroup<'_> {
    /// Whether nothing is wrong with it, as far as was looked.
    pub fn is_whole(&self) -> bool {
        self.broken.is_empty() && self.entries.iter().all(|entry| entry.payload_ok)
    }
}

/// An entry as it was found: its header is right.
#[derive(Debug, Clone, Copy)]
pub struct ScannedEntry<'a> {
    /// Where its header lies.
    pub position: u32,
    /// The header.
    pub header: EntryHeader,
    /// The payload.
    pub payload: &'a [u8],
    /// Whether the payload matches its checksum; always true where payloads are trusted.
    pub payload_ok: bool,
}

/// A group found by searching; only its header was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundGroup {
    /// Where it lies.
    pub place: Place,
    /// Its header.
    pub header: GroupHeader,
    /// Its claims.
    pub claims: Vec<Claim>,
}

/// What the next group is expected to be.
#[derive(Debug, Clone, Copy, Default)]
struct Expected {
    number: Option<u64>,
    previous_end: Option<Place>,
}

/// Walks one segment after another, from group to group.
#[derive(Debug)]
pub struct SegmentReader {
    window: Window,
    seed: Seed,
    sector: u32,
    slot_bytes: u32,
    position: u32,
    expected: Expected,
    payloads: Payloads,
}

impl SegmentReader {
    /// Stands before the first group of the segment that `header` describes.
    pub fn new(slot: SlotHandle, header: &SlotHeader, payloads: Payloads) -> Self {
        Self {
            window: Window::new(slot, Via::Direct),
            seed: header.seed(),
            sector: header.sector,
            slot_bytes: header.slot_bytes,
            position: FIRST_POSITION,
            expected: Expected::default(),
            payloads,
        }
    }

    /// Goes to the first group of another segment, keeping the memory.
    pub fn switch(&mut self, slot: SlotHandle, header: &SlotHeader) {
        self.window.switch(slot, Via::Direct);
        self.seed = header.seed();
        self.sector = header.sector;
        self.slot_bytes = header.slot_bytes;
        self.seek(FIRST_POSITION, None);
    }

    /// Goes to `position`, a sector boundary; the group there must have the given number, if one is given.
    pub fn seek(&mut self, position: u32, number: Option<u64>) {
        assert!(position >= FIRST_POSITION && position.is_multiple_of(self.sector));
        self.position = position;
        self.expected = Expected {
            number,
            previous_end: None,
        };
    }

    /// Where the next step looks.
    pub fn place(&self) -> Place {
        Place::new(self.seed.segment, self.position)
    }

    /// Looks at what lies here, and goes behind it if it is a group.
    ///
    /// # Errors
    /// If the file cannot be read at all. What the device or the file does not have is a verdict.
    pub fn step(&mut self) -> Result<Step<'_>, JournalError> {
        let position = self.position;
        if !self.has_room_for_group() {
            return Ok(Step::EndOfSlot);
        }
        let (header, claims) = match self.look(position)? {
            Ok(found) => found,
            Err(why) => return Ok(Step::Unreadable { position, why }),
        };
        if let Err(why) = self.check_expected(&header) {
            return Ok(Step::Unreadable { position, why });
        }
        let end = position + round_up(header.length, self.sector);
        self.window.load(position, header.length)?;
        self.position = end;
        self.expected = Expected {
            number: Some(header.number + 1),
            previous_end: Some(self.place()),
        };
        Ok(Step::Group(self.show(position, header, claims)))
    }

    fn has_room_for_group(&self) -> bool {
        self.position + to_u32(GROUP_HEADER_BYTES) <= self.slot_bytes
    }

    /// The group header at `position`, or why there is none.
    fn look(
        &mut self,
        position: u32,
    ) -> Result<Result<(GroupHeader, Vec<Claim>), Unreadable>, JournalError> {
        let room = self.slot_bytes - position;
        let fixed = to_u32(GROUP_HEADER_BYTES);
        self.window.load(position, fixed)?;
        let length = match GroupHeader::peek_header_length(self.window.bytes(position, fixed)) {
            Ok(length) if length <= room => length,
            // Not believed yet, and it could not be right.
            Ok(_) => return Ok(Err(GroupFault::Checksum.into())),
            Err(fault) => return Ok(Err(self.blame(position, fixed, fault))),
        };
        self.window.load(position, length)?;
        let bytes = self.window.bytes(position, length);
        Ok(match GroupHeader::decode(bytes, &self.seed, position) {
            Ok((header, _)) if round_up(header.length, self.sector) > room => {
                Err(Unreadable::BeyondSlot)
            }
            Ok(found) => Ok(found),
            Err(fault) => Err(self.blame(position, length, fault)),
        })
    }

    /// Bytes that are zeros only because the device or the file did not have them are no verdict on the bytes.
    fn blame(&self, position: u32, length: u32, fault: GroupFault) -> Unreadable {
        if self.window.has_unreadable(position, length) {
            Unreadable::Device
        } else if self.window.is_beyond_file(position + length) {
            Unreadable::BeyondFile
        } else {
            fault.into()
        }
    }

    fn check_expected(&self, header: &GroupHeader) -> Result<(), Unreadable> {
        let found = header.number;
        if let Some(expected) = self.expected.number.filter(|n| *n != found) {
            return Err(Unreadable::Number { expected, found });
        }
        let found = header.previous_end;
        if let Some(expected) = self.expected.previous_end.filter(|p| *p != found) {
            return Err(Unreadable::PreviousEnd { expected, found });
        }
        Ok(())
    }

    /// Goes through the entries of a group that is in the window.
    fn show(&self, position: u32, header: GroupHeader, claims: Vec<Claim>) -> ScannedGroup<'_> {
        let first = position + header.header_length;
        let bytes = self
            .window
            .bytes(first, header.length - header.header_length);
        let mut entries = Vec::with_capacity(to_usize(header.entries));
        let mut broken = Vec::new();
        let mut headers_crc = Crc::new();
        for walked in EntryWalk::new(bytes, first, Some(self.seed)) {
            match walked {
                Walked::Broken(range) => broken.push(range),
                Walked::Entry { position, header } => {
                    let at = to_usize(position - first);
                    let payload = at + ENTRY_HEADER_BYTES..at + to_usize(header.entry_bytes());
                    headers_crc.update(&bytes[at..payload.start]);
                    entries.push(self.judge(position, header, &bytes[payload]));
                }
            }
        }
        let complete = entries.len() == to_usize(header.entries)
            && headers_crc.value() == header.entry_headers_crc;
        if broken.is_empty() && !complete {
            // Each entry is right for itself and yet they are not those the group was made of.
            broken.push(first..position + header.length);
        }
        ScannedGroup {
            place: Place::new(self.seed.segment, position),
            end: Place::new(
                self.seed.segment,
                position + round_up(header.length, self.sector),
            ),
            device_failed: self.window.has_unreadable(position, header.length),
            header,
            claims,
            entries,
            broken,
        }
    }

    fn judge<'a>(&self, position: u32, header: EntryHeader, payload: &'a [u8]) -> ScannedEntry<'a> {
        ScannedEntry {
            position,
            header,
            payload,
            payload_ok: self.payloads == Payloads::Trust || header.payload_matches(payload),
        }
    }

    /// The first group at or behind the sector boundary `from` whose number is above `above`.
    /// Every sector boundary is tried. Where the reader stands does not change.
    ///
    /// # Errors
    /// If the file cannot be read at all.
    pub fn find_after(
        &mut self,
        from: u32,
        above: u64,
    ) -> Result<Option<FoundGroup>, JournalError> {
        assert!(from >= FIRST_POSITION && from.is_multiple_of(self.sector));
        let mut position = from;
        while position + to_u32(GROUP_HEADER_BYTES) <= self.slot_bytes {
            if let Ok((header, claims)) = self.look(position)?
                && header.number > above
            {
                let place = Place::new(self.seed.segment, position);
                return Ok(Some(FoundGroup {
                    place,
                    header,
                    claims,
                }));
            }
            position += self.sector;
        }
        Ok(None)
    }
}
