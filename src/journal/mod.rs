//! The journal: the disk format of slot files, and the input and output on them.
//!
//! ```text
//!  slot file     header A  header B      group      group      group          footer
//!               |·········|·········|▉▉▉▉▉▉▉▉▉▉▉▉|▉▉▉▉▉▉▉|▉▉▉▉▉▉▉▉▉▉▉|▉▉▉▉|···········|
//!               0         4096      8192         sector boundaries                 slot size
//!
//!  group         header | claim* | entry header | payload | entry header | payload | … | zeros
//! ```
//!
//! `docs/storage-format.md` draws every byte; the numbers J1 to J15 are its invariants. This
//! module keeps to the bytes: it encodes and decodes, writes and reads, and says what it found.
//! What follows from it (which groups are durable, where the stream goes on, what is torn and what
//! is damage, when a slot is free) is decided by the storage engine above.
//!
//! Model
//! * *Pure*: [`header`], [`group`] and [`compose`], [`entry`], [`state`], [`footer`] and [`gather`], and the walk from entry to
//!   entry know bytes and no files. [`place`] and [`checksum`] are what they share.
//! * *Files*: [`directory`] knows which slots there are, [`slot`] one of them; [`scan`] walks
//!   groups, [`entries`] what can be read without them, [`read`] reads extents for clients, [`cold`]
//!   writes cold segments.
//! * *Memory*: [`buffer`]. The group that goes to the disk is the memory readers at the tail share.
//!
//! Invariants kept here
//! 1. J4: every checksum starts with the salt, the segment's number and the position, so nothing
//!    stale, misplaced or made by a publisher passes. Payloads are never searched for structure
//!    that is not checked this way.
//! 2. J9: [`read`] hands out an unbroken run of offsets, batches and damage, or nothing.
//! 3. J13: a slot that [`slot::Slot::prepare`] gave back has its size, its headers and its name on
//!    the disk; after that its file never grows, shrinks or moves.
//! 4. What is written could be read back: encoders check what decoders check, and panic.
//! 5. Lengths are believed after the checksum that covers them, never before.
//! 6. Sectors the device cannot read are told apart from bytes that changed.
//!
//! Writes, syncs, truncations, creations and removals go through the standard library, so that a
//! recorder in front of libc sees every one of them; only hints and questions (fallocate, fadvise,
//! statx, statvfs) go to the kernel by another way, and nothing depends on the hints.
//!
//! Missing on purpose: mmap (an error would be a signal, and O_DIRECT writes would go past it),
//! retries of writes and syncs (J12), compression (the publisher's), any lock between writer and
//! readers (what is in a group never changes once it is written).

pub mod buffer;
mod checked;
pub mod checksum;
pub mod cold;
pub mod compose;
pub mod directory;
pub mod entries;
pub mod entry;
pub mod error;
mod fields;
pub mod footer;
pub mod gather;
pub mod group;
pub mod header;
pub mod listing;
pub mod place;
mod probe;
pub mod read;
pub mod scan;
pub mod slot;
pub mod state;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod walk;
pub mod watch;
mod window;

pub use buffer::{AlignedBuffer, BufferPool, SharedBuffer};
pub use checked::{CheckedEntry, check_extent};
pub use checksum::{Salt, Seed, crc32c};
pub use cold::{ColdSegment, ColdWriter};
pub use compose::{EntryToWrite, Group, GroupBuilder, GroupStart};
pub use directory::{JournalDir, JournalOptions, ListedSlot, SlotHandle};
pub use entries::{EntryScanner, Passed};
pub use entry::{ENTRY_HEADER_BYTES, EntryFault, EntryHeader, EntryKind, payload_crc};
pub use error::JournalError;
pub use footer::{Footer, SegmentEnd};
pub use gather::FooterBuilder;
pub use group::{CLAIM_BYTES, Claim, GROUP_HEADER_BYTES, GroupFault, GroupHeader};
pub use header::{
    FIRST_POSITION, FORMAT_VERSION, HeaderCopies, HeaderFault, Kind, Resume, SlotHeader, SnapshotAt,
};
pub use listing::{Extent, FooterFault, Listing, TopicSummary, footer_bytes};
pub use place::{Place, round_down, round_up};
pub use read::{ExtentRead, Piece, StoredEntry, Stretch, read_extent, read_from_group};
pub use scan::{FoundGroup, Payloads, ScannedEntry, ScannedGroup, SegmentReader, Step, Unreadable};
pub use slot::{Block, Listed, PrepareOptions, Slot, Via};
pub use state::{SnapshotEnd, StateFault, StateOp};
pub use watch::{DiskWatch, LongestCall};
