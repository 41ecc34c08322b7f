//! Reading the records of an extent for a client.
//!
//! One read of the disk, then every entry is checked: its header against salt, segment and
//! position, its topic, its offset against where the entry before it ended, its payload against
//! the batch's checksum. The payloads handed out are slices of what was read, without a copy.
//!
//! Invariant (J9): what comes out covers the asked range from its start to the end of the extent,
//! in order and without a hole; offsets that cannot be read are a [`Piece::Damaged`], never
//! skipped. It is asserted before anything is handed out.

use std::ops::Range;

use bytes::Bytes;

use super::buffer::{BufferPool, SharedBuffer};
use super::compose::Group;
use super::entry::{ENTRY_HEADER_BYTES, EntryHeader, EntryKind};
use super::error::JournalError;
use super::fields::to_usize;
use super::header::SlotHeader;
use super::listing::Extent;
use super::place::{round_down, round_up};
use super::slot::{Slot, Via};
use super::walk::{EntryWalk, Walked};
use crate::limits::SECTOR_BYTES_MAX;
use crate::types::{Offset, TopicId};

/// What to read.
#[derive(Debug, Clone, Copy)]
pub struct ExtentRead {
    /// The topic the records must be of.
    pub topic: TopicId,
    /// The extent.
    pub extent: Extent,
    /// Entries that lie wholly below are left out. A batch that begins below and ends above is given whole.
    pub from: Offset,
}

/// A part of what was asked for.
#[derive(Debug, Clone)]
pub enum Piece {
    /// A batch that was checked.
    Entry(StoredEntry),
    /// Offsets `[from, to)` cannot be read: their bytes changed after they were written.
    Damaged {
        /// First unreadable offset.
        from: Offset,
        /// First offset after them.
        to: Offset,
    },
}

impl Piece {
    /// First offset of the piece.
    pub fn from(&self) -> Offset {
        match self {
            Self::Entry(entry) => Offset::new(entry.header.number),
            Self::Damaged { from, .. } => *from,
        }
    }

    /// First offset after the piece.
    pub fn to(&self) -> Offset {
        match self {
            Self::Entry(entry) => Offset::new(entry.header.end_number()),
            Self::Damaged { to, .. } => *to,
        }
    }
}

/// A record batch as it is stored.
#[derive(Debug, Clone)]
pub struct StoredEntry {
    /// Where its header lies in the slot.
    pub position: u32,
    /// Its header.
    pub header: EntryHeader,
    /// The batch, as it came from the publisher.
    pub payload: Bytes,
}

/// Bytes of a segment as the disk gave them, not yet checked.
#[derive(Debug, Clone)]
pub struct Stretch {
    /// From a sector's start to where it was asked for. The rest of the last sector is in the buffer too, but of a segment
    /// that is still written it may not have been there yet.
    range: Range<u32>,
    /// Fewer than the range has where the file ends. What lies behind is of an earlier use of the memory.
    got: usize,
    buffer: SharedBuffer,
}

impl Stretch {
    /// Reads the positions of `range`, in one piece, into memory of `buffers`.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn read(
        slot: &Slot,
        range: Range<u32>,
        (via, buffers): (Via, &BufferPool),
    ) -> Result<Self, JournalError> {
        let start = round_down(range.start, SECTOR_BYTES_MAX);
        let end = round_up(range.end, SECTOR_BYTES_MAX);
        let mut buffer = buffers.take(to_usize(end - start));
        let target = &mut buffer.as_mut_slice()[..to_usize(end - start)];
        let got = slot.read_into(target, start, via)?;
        Ok(Self {
            range: start..range.end,
            got,
            buffer: buffer.freeze(),
        })
    }

    /// Whether a whole extent lies in it.
    pub fn covers(&self, extent: &Extent) -> bool {
        self.range.start <= extent.position && extent.position + extent.length <= self.range.end
    }

    /// What is asked for of an extent that lies in it, each entry checked.
    pub fn pieces(&self, header: &SlotHeader, read: &ExtentRead) -> Vec<Piece> {
        let Extent {
            position, length, ..
        } = read.extent;
        assert!(self.covers(&read.extent), "the extent was read");
        let from = to_usize(position - self.range.start);
        let to = self.got.min(from + to_usize(length));
        let bytes = self.buffer.bytes().slice(from.min(to)..to);
        let walk = EntryWalk::new(&bytes, position, Some(header.seed()));
        Pieces::new(read, &bytes, true).collect(walk)
    }

    /// The memory it takes.
    pub fn buffer(&self) -> &SharedBuffer {
        &self.buffer
    }

    /// The memory, to be used again when nobody reads it any more.
    pub fn into_buffer(self) -> SharedBuffer {
        self.buffer
    }
}

/// Reads an extent of the segment that `header` describes, into memory of `buffers`.
///
/// # Errors
/// If the file cannot be read. Bytes that changed are no error but [`Piece::Damaged`].
pub fn read_extent(
    slot: &Slot,
    header: &SlotHeader,
    read: &ExtentRead,
    (via, buffers): (Via, &BufferPool),
) -> Result<Vec<Piece>, JournalError> {
    let stretch = Stretch::read(slot, read.extent.range(), (via, buffers))?;
    let pieces = stretch.pieces(header, read);
    buffers.give(stretch.into_buffer());
    Ok(pieces)
}

/// Reads an extent that lies in a group this process wrote: no checksums, no disk.
///
/// `None` if the extent does not lie in the group.
pub fn read_from_group(group: &Group, read: &ExtentRead) -> Option<Vec<Piece>> {
    let extent = &read.extent;
    let start = to_usize(extent.position.checked_sub(group.place().position)?);
    let end = start + to_usize(extent.length);
    if end > to_usize(group.header().length) {
        return None;
    }
    let bytes = group.buffer().bytes().slice(start..end);
    let walk = EntryWalk::new(&bytes, extent.position, None);
    Some(Pieces::new(read, &bytes, false).collect(walk))
}

/// Puts together what covers the asked range.
struct Pieces<'a> {
    read: &'a ExtentRead,
    /// The bytes come from the disk.
    verify: bool,
    bytes: &'a Bytes,
    /// Where the last piece ended.
    next: Offset,
    pieces: Vec<Piece>,
}

impl<'a> Pieces<'a> {
    fn new(read: &'a ExtentRead, bytes: &'a Bytes, verify: bool) -> Self {
        Self {
            read,
            verify,
            bytes,
            next: read.extent.base,
            pieces: Vec::new(),
        }
    }

    fn collect(mut self, walk: EntryWalk<'_>) -> Vec<Piece> {
        for walked in walk {
            // What is broken, or belongs elsewhere, is told by the hole it leaves.
            if let Walked::Entry { position, header } = walked
                && self.belongs(&header)
            {
                self.entry(position, header);
            }
        }
        self.damaged_until(self.read.extent.end());
        self.assert_dense();
        self.pieces
    }

    fn belongs(&self, header: &EntryHeader) -> bool {
        header.kind == EntryKind::Records
            && header.topic == self.read.topic
            && header.number >= self.next.get()
            && header.end_number() <= self.read.extent.end().get()
    }

    fn entry(&mut self, position: u32, header: EntryHeader) {
        self.damaged_until(Offset::new(header.number));
        let end = Offset::new(header.end_number());
        if end <= self.read.from {
            self.next = end;
            return;
        }
        let start = to_usize(position - self.read.extent.position);
        let payload = start + ENTRY_HEADER_BYTES..start + to_usize(header.entry_bytes());
        let payload = self.bytes.slice(payload);
        if self.verify && !header.payload_matches(&payload) {
            self.damaged_until(end);
            return;
        }
        self.next = end;
        self.pieces.push(Piece::Entry(StoredEntry {
            position,
            header,
            payload,
        }));
    }

    /// Tells the offsets from the last piece to `to` as damaged, joined with damage just before.
    fn damaged_until(&mut self, to: Offset) {
        let from = self.next.max(self.read.from);
        self.next = to;
        if from >= to {
            return;
        }
        match self.pieces.last_mut() {
            Some(Piece::Damaged { to: last, .. }) if *last == from => *last = to,
            _ => self.pieces.push(Piece::Damaged { from, to }),
        }
    }

    fn assert_dense(&self) {
        let Some(first) = self.pieces.first() else {
            assert!(
                self.read.from >= self.read.extent.end(),
                "J9: nothing is left out"
            );
            return;
        };
        let start = self.read.from.max(self.read.extent.base);
        assert!(first.from() <= start, "J9: the start is covered");
        let dense = self.pieces.windows(2).all(|p| p[0].to() == p[1].from());
        assert!(dense, "J9: no jump between pieces");
        assert_eq!(self.next, self.read.extent.end(), "J9: up to the end");
    }
}
