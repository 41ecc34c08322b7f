//! The journal's disk format and the IO on its files.

pub mod buffer;
pub mod checksum;
pub mod cold;
pub mod directory;
pub mod entry;
pub mod error;
mod fields;
pub mod footer;
pub mod group;
pub mod header;
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
mod window;

pub use buffer::{AlignedBuffer, BufferPool, SharedBuffer};
pub use checksum::{Salt, Seed};
pub use cold::{ColdSegment, ColdWriter};
pub use directory::{JournalDir, JournalOptions, ListedSlot, SlotHandle};
pub use entry::{ENTRY_HEADER_BYTES, EntryHeader, EntryKind, payload_crc};
pub use error::JournalError;
pub use footer::{Extent, Footer, FooterBuilder, FooterFault, SegmentEnd, TopicSummary};
pub use group::{Claim, EntryToWrite, Group, GroupBuilder, GroupHeader, GroupStart};
pub use header::{FIRST_POSITION, HeaderCopies, HeaderFault, Kind, Resume, SlotHeader, SnapshotAt};
pub use place::{Place, round_down, round_up};
pub use read::{ExtentRead, Piece, StoredEntry, read_extent, read_from_group};
pub use scan::{FoundGroup, Payloads, ScannedEntry, ScannedGroup, SegmentReader, Step, Unreadable};
pub use slot::{Block, PrepareOptions, Slot, Via};
pub use state::{SnapshotEnd, StateFault, StateOp};
