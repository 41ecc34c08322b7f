//! One slot file: preparing, writing, syncing and reading it.
//!
//! A slot is read and written in one of two ways. *Direct* is O_DIRECT where the file system has
//! it: memory, positions and lengths aligned, nothing left in the page cache. *Cached* goes
//! through the page cache; where there is no O_DIRECT both are the same. As long as a segment is
//! written it is only read directly, so that no cached page can be older than the disk; the pages
//! of an earlier life are dropped before the slot is used again.
//!
//! Invariants
//! 1. Nothing but [`Slot::prepare`] and [`Slot::write_header`] writes before position 8192.
//! 2. Nothing is written at or beyond the slot's size, so a file never grows after it was prepared (J13).
//! 3. [`Slot::prepare`] returns only after the file, its size and its directory entry are synced (J13).
//! 4. Writes are whole sectors.
//!
//! Missing on purpose: retries. After a failed write or sync nobody knows what is on the disk; the
//! caller stops (J12).

use std::fs::{File, OpenOptions};
use std::io;
use std::num::NonZeroU64;
use std::ops::Range;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use rustix::fs::{Advice, FallocateFlags, OFlags};

use super::buffer::AlignedBuffer;
use super::error::JournalError;
use super::fields::{put, to_u32, to_usize};
use super::footer::Footer;
use super::header::{FIRST_POSITION, HeaderCopies, HeaderFault, SLOT_HEADER_POSITIONS, SlotHeader};
use super::listing::{FOOTER_HEADER_BYTES, FooterFault, Head, Listing};
use super::place::{round_down, round_up};
use super::watch::DiskWatch;
use crate::limits::{
    FOOTER_BYTES_FIRST, SECTOR_BYTES_MAX, SECTOR_BYTES_MIN, SLOT_HEADERS_BYTES, ZERO_FILL_BYTES,
};
use crate::types::TopicId;

/// How a slot is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Via {
    /// As it is written: O_DIRECT where the file system has it. For segments not yet sealed.
    Direct,
    /// Through the page cache. For sealed segments.
    Cached,
}

/// How a slot is prepared.
#[derive(Debug, Clone, Copy, Default)]
pub struct PrepareOptions {
    /// Fill it with zeros beforehand, so that what is written later overwrites blocks that have a
    /// place already. For new files; a reused slot has its blocks.
    pub zero_fill: bool,
}

/// How the files of a directory are opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Access {
    /// O_DIRECT works here.
    pub direct: bool,
    /// What positions and lengths of direct reads and writes are multiples of, in bytes.
    pub direct_align: u32,
    /// Nothing may be written.
    pub read_only: bool,
}

/// One slot file. Descriptors are opened when they are first needed.
#[derive(Debug)]
pub struct Slot {
    id: u32,
    path: PathBuf,
    slot_bytes: u32,
    access: Access,
    directory: Arc<File>,
    watch: Arc<DiskWatch>,
    direct: OnceLock<File>,
    cached: OnceLock<File>,
}

/// What a slot needs to know of its directory.
#[derive(Debug, Clone)]
pub(super) struct SlotContext {
    pub directory: Arc<File>,
    pub access: Access,
    pub slot_bytes: u32,
    pub watch: Arc<DiskWatch>,
}

impl Slot {
    pub(super) fn new(id: u32, path: PathBuf, context: SlotContext) -> Self {
        Self {
            id,
            path,
            slot_bytes: context.slot_bytes,
            access: context.access,
            directory: context.directory,
            watch: context.watch,
            direct: OnceLock::new(),
            cached: OnceLock::new(),
        }
    }

    /// The number in the file's name.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The size of the slots of this directory, in bytes.
    pub fn slot_bytes(&self) -> u32 {
        self.slot_bytes
    }

    /// Gives the slot a new life: drops the cached pages of the old one, sets the size, fills it
    /// with zeros if asked to, writes both copies of the header, syncs file and directory.
    ///
    /// # Errors
    /// If any of it fails; then the slot may hold either header or none.
    pub fn prepare(
        &self,
        header: &SlotHeader,
        options: PrepareOptions,
    ) -> Result<(), JournalError> {
        let file = self.file(Via::Direct)?;
        self.drop_cached_pages()?;
        self.set_size(file)?;
        if options.zero_fill {
            self.fill_with_zeros(file)?;
        }
        self.write_header(header)?;
        self.watch
            .during("sync", || file.sync_all())
            .map_err(JournalError::sync(&self.path))?;
        self.watch
            .during("sync", || self.directory.sync_all())
            .map_err(JournalError::sync(&self.path))
    }

    /// In page-cache mode the pages are the truth; in direct mode they may be of an earlier life.
    fn drop_cached_pages(&self) -> Result<(), JournalError> {
        if self.access.direct {
            let file = self.file(Via::Cached)?;
            rustix::fs::fadvise(file, 0, None, Advice::DontNeed).map_err(|errno| {
                JournalError::io("drop cached pages of", &self.path)(errno.into())
            })?;
        }
        Ok(())
    }

    fn set_size(&self, file: &File) -> Result<(), JournalError> {
        let metadata = file.metadata();
        let size = metadata
            .map_err(JournalError::io("look at", &self.path))?
            .len();
        if size != u64::from(self.slot_bytes) {
            let bytes = u64::from(self.slot_bytes);
            self.watch
                .during("write", || file.set_len(bytes))
                .map_err(JournalError::io("set the size of", &self.path))?;
        }
        Ok(())
    }

    fn fill_with_zeros(&self, file: &File) -> Result<(), JournalError> {
        // In one piece on the disk if the file system can; where it cannot, the writes do it.
        let size = u64::from(self.slot_bytes);
        let allocate = || rustix::fs::fallocate(file, FallocateFlags::empty(), 0, size);
        match self.watch.during("write", allocate) {
            Ok(()) | Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::INVAL) => {}
            Err(errno) => {
                return Err(JournalError::io("allocate", &self.path)(errno.into()));
            }
        }
        let zeros = AlignedBuffer::new(ZERO_FILL_BYTES);
        let mut position = FIRST_POSITION;
        while position < self.slot_bytes {
            let length = to_u32(ZERO_FILL_BYTES).min(self.slot_bytes - position);
            self.write_at(&zeros.as_slice()[..to_usize(length)], position)?;
            position += length;
        }
        Ok(())
    }

    /// Writes both copies of the header, without a sync.
    ///
    /// # Errors
    /// If the write fails.
    pub fn write_header(&self, header: &SlotHeader) -> Result<(), JournalError> {
        assert_eq!(header.slot, self.id, "the header is for this slot");
        assert_eq!(header.slot_bytes, self.slot_bytes, "and for this size");
        let mut buffer = AlignedBuffer::new(to_usize(SLOT_HEADERS_BYTES));
        for position in SLOT_HEADER_POSITIONS {
            put(buffer.as_mut_slice(), to_usize(position), &header.encode());
        }
        self.write_aligned(buffer.as_slice(), 0)
    }

    /// Reads both copies of the header and judges them. What the device cannot read, or the file
    /// does not have, is a verdict, not an error.
    ///
    /// # Errors
    /// If the file cannot be opened.
    pub fn read_header(&self) -> Result<HeaderCopies, JournalError> {
        self.header_via(Via::Direct)
    }

    /// Asks the system to fetch the header soon, so that many of them come at once.
    pub(super) fn expect_header(&self) -> Result<(), JournalError> {
        let file = self.file(Via::Cached)?;
        let length = NonZeroU64::new(u64::from(SLOT_HEADERS_BYTES));
        rustix::fs::fadvise(file, 0, length, Advice::WillNeed)
            .map_err(|errno| JournalError::io("read ahead in", &self.path)(errno.into()))
    }

    /// Reads the header that was expected, and leaves nothing in the page cache that could grow old.
    pub(super) fn read_expected_header(&self) -> Result<HeaderCopies, JournalError> {
        let copies = self.header_via(Via::Cached)?;
        self.drop_cached_pages()?;
        Ok(copies)
    }

    fn header_via(&self, via: Via) -> Result<HeaderCopies, JournalError> {
        self.file(via)?;
        let verdict = |block: &[u8]| SlotHeader::decode(block, self.id);
        let copies = match self.read_at(0, SLOT_HEADERS_BYTES, via) {
            Ok(block) => SLOT_HEADER_POSITIONS
                .map(|at| verdict(block.as_slice().get(to_usize(at)..).unwrap_or(&[]))),
            Err(_) => SLOT_HEADER_POSITIONS.map(|at| {
                let block = self.read_at(at, SECTOR_BYTES_MIN, via);
                block.map_or(Err(HeaderFault::Device), |b| verdict(b.as_slice()))
            }),
        };
        Ok(HeaderCopies { copies })
    }

    /// Writes whole sectors at `position`; the memory is that of an [`AlignedBuffer`] from its start.
    ///
    /// # Errors
    /// If the write fails; then nothing is known of these sectors.
    pub fn write_at(&self, bytes: &[u8], position: u32) -> Result<(), JournalError> {
        assert!(
            position >= FIRST_POSITION,
            "headers are written by `prepare`"
        );
        self.write_aligned(bytes, position)
    }

    fn write_aligned(&self, bytes: &[u8], position: u32) -> Result<(), JournalError> {
        let sector = to_usize(SECTOR_BYTES_MIN);
        assert!(bytes.len().is_multiple_of(sector), "whole sectors");
        assert_eq!(position % SECTOR_BYTES_MIN, 0, "at a sector");
        let end = u64::from(position) + bytes.len() as u64;
        assert!(end <= u64::from(self.slot_bytes), "within the slot");
        // A slot made on a disk with smaller sectors gets its footer through the page cache.
        let align = self.access.direct_align;
        let fits = position.is_multiple_of(align) && to_u32(bytes.len()).is_multiple_of(align);
        let via = if fits { Via::Direct } else { Via::Cached };
        let file = self.file(via)?;
        self.watch
            .during("write", || file.write_all_at(bytes, u64::from(position)))
            .map_err(JournalError::io("write", &self.path))
    }

    /// Copies `bytes`, pads them with zeros to a whole number of sectors, and writes them.
    ///
    /// # Errors
    /// As [`Self::write_at`].
    pub fn write_padded(
        &self,
        bytes: &[u8],
        position: u32,
        sector: u32,
    ) -> Result<(), JournalError> {
        let length = to_usize(round_up(to_u32(bytes.len()), sector));
        let mut buffer = AlignedBuffer::new(length);
        put(buffer.as_mut_slice(), 0, bytes);
        self.write_at(&buffer.as_slice()[..length], position)
    }

    /// Waits until everything written is on the disk.
    ///
    /// # Errors
    /// If the sync fails; then nothing is known of what was written since the last one.
    pub fn sync_data(&self) -> Result<(), JournalError> {
        let file = self.file(Via::Direct)?;
        self.watch
            .during("sync", || file.sync_data())
            .map_err(JournalError::sync(&self.path))
    }

    /// Reads `length` bytes from `position`: fewer only where the file ends.
    ///
    /// # Errors
    /// If the read fails.
    pub fn read_at(&self, position: u32, length: u32, via: Via) -> Result<Block, JournalError> {
        let start = round_down(position, SECTOR_BYTES_MAX);
        let end = round_up(position + length, SECTOR_BYTES_MAX);
        let mut buffer = AlignedBuffer::new(to_usize(end - start));
        let got = self.read_into(buffer.as_mut_slice(), start, via)?;
        let skip = to_usize(position - start);
        let length = got.saturating_sub(skip).min(to_usize(length));
        Ok(Block {
            buffer,
            start: skip,
            length,
        })
    }

    /// Fills `target` from `position` and tells how much of it the file had.
    ///
    /// Memory, length and position are multiples of 4096.
    ///
    /// # Errors
    /// If the read fails.
    pub fn read_into(
        &self,
        target: &mut [u8],
        position: u32,
        via: Via,
    ) -> Result<usize, JournalError> {
        assert_eq!(position % SECTOR_BYTES_MAX, 0, "an aligned position");
        assert!(
            target.len().is_multiple_of(to_usize(SECTOR_BYTES_MAX)),
            "and length"
        );
        read_full(self.file(via)?, target, u64::from(position))
            .map_err(JournalError::io("read", &self.path))
    }

    /// Reads the footer at `position`: `Ok(Err(..))` says why there is none.
    ///
    /// # Errors
    /// If the read fails.
    pub fn read_footer(
        &self,
        header: &SlotHeader,
        position: u32,
        via: Via,
    ) -> Result<Result<Footer, FooterFault>, JournalError> {
        let room = header.slot_bytes.saturating_sub(position);
        let first = self.read_at(position, room.min(to_u32(FOOTER_HEADER_BYTES)), via)?;
        let length = match Footer::peek_length(first.as_slice()) {
            Ok(length) if length <= room => length,
            Ok(_) => return Ok(Err(FooterFault::Checksum)),
            Err(fault) => return Ok(Err(fault)),
        };
        let block = self.read_at(position, length, via)?;
        Ok(Footer::decode(block.into_bytes(), &header.seed(), position))
    }

    /// Reads what the footer at `position` lists of `topic`, and as little else as can be: all of a short footer, of a longer one what
    /// leads there. `Ok(Err(..))` says why there is nothing.
    ///
    /// # Errors
    /// If a read fails.
    pub fn read_listing(
        &self,
        header: &SlotHeader,
        position: u32,
        topic: TopicId,
        via: Via,
    ) -> Result<Result<Listed, FooterFault>, JournalError> {
        let room = header.slot_bytes.saturating_sub(position);
        let first = self
            .read_at(position, room.min(FOOTER_BYTES_FIRST), via)?
            .into_bytes();
        let head = match Head::decode(&first, position) {
            Ok(head) if head.length <= to_usize(room) => head,
            Ok(_) => return Ok(Err(FooterFault::Checksum)),
            Err(fault) => return Ok(Err(fault)),
        };
        if head.length <= first.len() {
            // To be kept, and for that without what was read behind it.
            let first = Bytes::copy_from_slice(&first[..head.length]);
            let footer = Footer::decode(first, &header.seed(), position);
            return Ok(footer.map(Listed::Whole));
        }
        let part = |range: Range<usize>| match first.get(range.clone()) {
            Some(_) => Ok(first.slice(range)),
            None => {
                let (start, length) = (to_u32(range.start), to_u32(range.len()));
                let block = self.read_at(position + start, length, via)?;
                Ok(block.into_bytes())
            }
        };
        let listing = head.listing(topic, part)?;
        Ok(listing.map(Listed::Part))
    }

    /// The descriptor for one way of reading or writing, opened if it was not yet.
    fn file(&self, via: Via) -> Result<&File, JournalError> {
        let direct = self.access.direct && via == Via::Direct;
        let cell = if direct { &self.direct } else { &self.cached };
        if let Some(file) = cell.get() {
            return Ok(file);
        }
        let mut options = OpenOptions::new();
        options.read(true).write(!self.access.read_only);
        if direct {
            options.custom_flags(direct_flag());
        }
        let opened = options
            .open(&self.path)
            .map_err(JournalError::io("open", &self.path))?;
        // Another thread may have been faster: its descriptor serves, this one closes.
        Ok(cell.get_or_init(|| opened))
    }
}

/// O_DIRECT as [`OpenOptionsExt::custom_flags`] takes it.
pub(super) fn direct_flag() -> i32 {
    i32::try_from(OFlags::DIRECT.bits()).expect("the flag is a small number")
}

fn read_full(file: &File, target: &mut [u8], position: u64) -> io::Result<usize> {
    let mut got = 0;
    while got < target.len() {
        match file.read_at(&mut target[got..], position + got as u64) {
            Ok(0) => break,
            Ok(n) => {
                got += n;
                // Only the end of the file cuts a sector; to read on from there is an error with O_DIRECT.
                if !n.is_multiple_of(to_usize(SECTOR_BYTES_MIN)) {
                    break;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(got)
}

/// What was read of a footer.
#[derive(Debug)]
pub enum Listed {
    /// All of it.
    Whole(Footer),
    /// What it lists of the topic, unchecked.
    Part(Listing),
}

/// Bytes read from a slot.
#[derive(Debug)]
pub struct Block {
    buffer: AlignedBuffer,
    start: usize,
    length: usize,
}

impl Block {
    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        &self.buffer.as_slice()[self.start..self.start + self.length]
    }

    /// The bytes to keep, without a copy.
    pub fn into_bytes(self) -> Bytes {
        let all = self.buffer.freeze().bytes();
        all.slice(self.start..self.start + self.length)
    }
}
