//! A view of a slot that moves along, read in large pieces into memory that is used again.

use std::ops::Range;

use super::buffer::AlignedBuffer;
use super::directory::SlotHandle;
use super::error::JournalError;
use super::fields::{to_u32, to_usize};
use super::place::{round_down, round_up};
use super::slot::Via;
use crate::limits::{SCAN_BYTES, SCAN_BYTES_FIRST, SECTOR_BYTES_MAX};

/// Error numbers by which Linux says that a piece of a disk cannot be read: EIO, ENODATA, EILSEQ, EUCLEAN.
const UNREADABLE: [rustix::io::Errno; 4] = [
    rustix::io::Errno::IO,
    rustix::io::Errno::NODATA,
    rustix::io::Errno::ILSEQ,
    rustix::io::Errno::UCLEAN,
];

/// The part of a slot that is in memory.
#[derive(Debug)]
pub(super) struct Window {
    slot: SlotHandle,
    via: Via,
    buffer: AlignedBuffer,
    /// Where in the slot the buffer begins.
    start: u32,
    /// How much of the buffer is valid; behind the end of the file it is zeros.
    filled: usize,
    /// How much the next read takes: it grows while the window moves on.
    ahead: usize,
    /// Where the file ended, if a read came to it.
    file_end: Option<u32>,
    /// Sectors of the present window that the device could not read; they are zeros here.
    unreadable: Vec<Range<u32>>,
}

impl Window {
    pub(super) fn new(slot: SlotHandle, via: Via) -> Self {
        Self {
            slot,
            via,
            buffer: AlignedBuffer::new(SCAN_BYTES_FIRST),
            start: 0,
            filled: 0,
            ahead: SCAN_BYTES_FIRST,
            file_end: None,
            unreadable: Vec::new(),
        }
    }

    /// Looks at another slot, or at this one anew.
    pub(super) fn switch(&mut self, slot: SlotHandle, via: Via) {
        self.slot = slot;
        self.via = via;
        self.filled = 0;
        self.ahead = SCAN_BYTES_FIRST;
        self.file_end = None;
        self.unreadable.clear();
    }

    /// Brings `length` bytes at `position` into memory; what the file or the device does not have
    /// are zeros, which no checksum takes for anything.
    pub(super) fn load(&mut self, position: u32, length: u32) -> Result<(), JournalError> {
        let end = position + length;
        assert!(end <= self.slot.slot_bytes(), "within the slot");
        if position >= self.start && to_usize(end) <= to_usize(self.start) + self.filled {
            return Ok(());
        }
        let start = round_down(position, SECTOR_BYTES_MAX);
        let least = round_up(end, SECTOR_BYTES_MAX) - start;
        let rest = self.slot.slot_bytes() - start;
        let wanted = to_usize(rest).min(self.ahead.max(to_usize(least)));
        self.ahead = (self.ahead * 4).min(SCAN_BYTES);
        if self.buffer.capacity() < wanted {
            self.buffer = AlignedBuffer::new(wanted.max(self.ahead.min(SCAN_BYTES)));
        }
        self.fill(start, wanted)
    }

    /// The bytes of a range that was loaded.
    pub(super) fn bytes(&self, position: u32, length: u32) -> &[u8] {
        let at = to_usize(position - self.start);
        &self.buffer.as_slice()[..self.filled][at..at + to_usize(length)]
    }

    /// Whether the file ends before `position`.
    pub(super) fn is_beyond_file(&self, position: u32) -> bool {
        self.file_end.is_some_and(|end| position > end)
    }

    /// Whether the device could not read some of the range.
    pub(super) fn has_unreadable(&self, position: u32, length: u32) -> bool {
        let touches = |r: &Range<u32>| r.start < position + length && position < r.end;
        self.unreadable.iter().any(touches)
    }

    fn fill(&mut self, start: u32, wanted: usize) -> Result<(), JournalError> {
        self.filled = 0;
        self.start = start;
        self.unreadable.clear();
        let target = &mut self.buffer.as_mut_slice()[..wanted];
        let got = match self.slot.read_into(target, start, self.via) {
            Ok(got) => got,
            Err(error) if is_unreadable(&error) => self.fill_by_sectors(start, wanted)?,
            Err(error) => return Err(error),
        };
        if got < wanted {
            self.buffer.as_mut_slice()[got..wanted].fill(0);
            self.file_end = Some(start + to_u32(got));
        }
        self.filled = wanted;
        Ok(())
    }

    /// After the device refused the whole: reads what can be read.
    fn fill_by_sectors(&mut self, start: u32, wanted: usize) -> Result<usize, JournalError> {
        let step = to_usize(SECTOR_BYTES_MAX);
        for at in (0..wanted).step_by(step) {
            let position = start + to_u32(at);
            let target = &mut self.buffer.as_mut_slice()[at..at + step];
            match self.slot.read_into(target, position, self.via) {
                Ok(got) if got < step => return Ok(at + got),
                Ok(_) => {}
                Err(error) if is_unreadable(&error) => {
                    target.fill(0);
                    self.unreadable.push(position..position + SECTOR_BYTES_MAX);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(wanted)
    }
}

fn is_unreadable(error: &JournalError) -> bool {
    let number = error.io_error().and_then(std::io::Error::raw_os_error);
    number.is_some_and(|n| UNREADABLE.iter().any(|errno| errno.raw_os_error() == n))
}
