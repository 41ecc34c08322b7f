//! The export format: topics with everything that belongs to them, in one stream of bytes.
//!
//! `docs/export-format.md` draws every byte. In short: sixteen bytes that say what it is and in
//! which version, then sections, each with its own checksum that covers its place in the file as
//! well, then a last section without which the file is not whole.
//!
//! ```text
//!   preamble | Export | (Topic (Subscription History?)* (ConsumerGroup ConsumerPage*)* Batch* TopicEnd)* | End
//! ```
//!
//! The format knows nothing of slots, groups, rows or sled, so it outlives all of them. Record
//! batches are carried as they were published; their own format has a version of its own.
//!
//! Invariants
//! 1. Every byte is covered by a checksum, or is compared with the only value it may have.
//! 2. A file that was cut anywhere, or whose sections were reordered, left out or repeated, is not
//!    taken for a whole one.
//! 3. Nothing in the file decides what is reserved: lengths are bounded before they are believed.
//! 4. [`check`] accepts only what can be imported: offsets dense up to gaps, names once, bounds kept.

mod check;
mod read;
mod write;

use std::io;

use bytes::Bytes;
use thiserror::Error;

pub use check::{CheckedExport, CheckedTopic, ThinnedTopic, check};
pub use read::ExportReader;
pub use write::ExportWriter;

use crate::journal::crc32c;
use crate::protocol::api::PlaceChange;
use crate::time::Timestamp;
use crate::topic::consumers::{ConsumerGroupRow, ConsumerPageRow};
use crate::types::{
    Gap, Generation, LeaderEpoch, Offset, PeerId, SubscriptionName, TopicId, TopicName,
    TopicSettings,
};

/// What an export begins with: a byte no text has, its name, and line ends that a transfer as text would change.
const MAGIC: &[u8; 8] = b"\x89TDX\r\n\x1a\n";
/// The version written, and the only one read.
pub const EXPORT_VERSION: u32 = 1;
const PREAMBLE_BYTES: u64 = 16;
const SECTION_HEADER_BYTES: usize = 12;

const EXPORT: u8 = 1;
const TOPIC: u8 = 2;
const SUBSCRIPTION: u8 = 3;
const BATCH: u8 = 4;
const TOPIC_END: u8 = 5;
const END: u8 = 6;
const HISTORY: u8 = 7;
const CONSUMER_GROUP: u8 = 8;
const CONSUMER_PAGE: u8 = 9;

/// Why a file is no export, or not a whole one.
#[derive(Debug, Error)]
pub enum ExportFault {
    /// Something else.
    #[error("the file is no export: it does not begin like one")]
    Magic,
    /// Written by another version of the program.
    #[error(
        "the file has export format {found}, this program reads {EXPORT_VERSION}: use a program that knows {found}"
    )]
    Version {
        /// The version found.
        found: u32,
    },
    /// It ends too early.
    #[error("the file was cut: it ends at byte {at}, in the middle of an export")]
    Truncated {
        /// How long it is.
        at: u64,
    },
    /// Bytes changed, or sections are not where they were written.
    #[error("the checksum of the section at byte {at} does not match: the file was changed")]
    Checksum {
        /// Where the section begins.
        at: u64,
    },
    /// The checksum is right and what it says makes no sense.
    #[error("the section at byte {at} makes no sense: {what}")]
    Malformed {
        /// Where the section begins.
        at: u64,
        /// What is wrong.
        what: String,
    },
    /// Bytes after the end.
    #[error("there are bytes after the end of the export, from byte {at} on")]
    LeftOver {
        /// Where the export ends.
        at: u64,
    },
    /// The file could not be read.
    #[error("cannot read the export: {0}")]
    Io(#[from] io::Error),
}

/// Where an export comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportInfo {
    /// When it was made.
    pub created: Timestamp,
    /// The peer that held the topics.
    pub peer: PeerId,
    /// Its name.
    pub peer_name: String,
    /// The program that wrote it.
    pub program: String,
    /// Number of topics.
    pub topics: u32,
}

/// A topic without its records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportedTopic {
    /// Its id where it was; an import gives a new one.
    pub id: TopicId,
    /// Its name.
    pub name: TopicName,
    /// Leader epoch.
    pub epoch: LeaderEpoch,
    /// When it was created.
    pub created: Timestamp,
    /// Settings.
    pub settings: TopicSettings,
    /// First offset kept.
    pub start: Offset,
    /// Next offset to be given.
    pub end: Offset,
    /// Last generation given to a subscription.
    pub generation: Generation,
    /// When its last record was appended.
    pub last_append: Option<Timestamp>,
    /// Offsets in `[start, end)` without records, in order.
    pub gaps: Vec<Gap>,
}

/// A subscription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportedSubscription {
    /// Its name.
    pub name: SubscriptionName,
    /// Generation.
    pub generation: Generation,
    /// Next offset to read.
    pub committed: Offset,
    /// When it was made.
    pub created: Timestamp,
    /// When it was last committed.
    pub last_commit: Option<Timestamp>,
    /// Nothing is handed out through it for now.
    pub paused: bool,
    /// It vanishes when nobody uses it for so many milliseconds.
    pub expire_ms: Option<u64>,
}

/// What moved the subscription before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportedHistory {
    /// The changes, oldest first.
    pub changes: Vec<PlaceChange>,
}
/// A consumer group; its pages follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportedGroup {
    /// Its name.
    pub name: SubscriptionName,
    /// What is known of it.
    pub row: ConsumerGroupRow,
}

/// A page of offsets of the group before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportedPage {
    /// Its number.
    pub page: u64,
    /// What became of its offsets.
    pub row: ConsumerPageRow,
}

/// A record batch and where it stood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportedBatch {
    /// Offset of its first record.
    pub base: Offset,
    /// Leader epoch under which it was appended.
    pub epoch: LeaderEpoch,
    /// When it was appended.
    pub append_time: Timestamp,
    /// The batch as published.
    pub batch: Bytes,
}

/// What a topic's records come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TopicTotals {
    /// Subscriptions.
    pub subscriptions: u64,
    /// Batches.
    pub batches: u64,
    /// Records.
    pub records: u64,
    /// Bytes of the batches.
    pub bytes: u64,
}

/// One section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Section {
    /// First of all.
    Export(ExportInfo),
    /// A topic begins.
    Topic(ExportedTopic),
    /// A subscription of that topic.
    Subscription(ExportedSubscription),
    /// What moved that subscription.
    History(ExportedHistory),
    /// A consumer group of that topic.
    ConsumerGroup(ExportedGroup),
    /// A page of that group.
    ConsumerPage(ExportedPage),
    /// Some of its records.
    Batch(ExportedBatch),
    /// The topic ends.
    TopicEnd(TopicTotals),
    /// The export ends: how many topics and sections came before.
    End {
        /// Topics.
        topics: u32,
        /// Sections.
        sections: u64,
    },
}

/// A field of a section, or what is wrong with it.
type Field<T> = Result<T, String>;

/// CRC-32C over the place in the file, the kind, the length and the body.
fn section_crc(ordinal: u64, kind: u8, pieces: &[&[u8]]) -> u32 {
    let length: usize = pieces.iter().map(|piece| piece.len()).sum();
    let mut covered = Vec::with_capacity(13 + length);
    covered.extend(ordinal.to_le_bytes());
    covered.push(kind);
    covered.extend(
        u32::try_from(length)
            .expect("sections are bounded")
            .to_le_bytes(),
    );
    pieces
        .iter()
        .for_each(|piece| covered.extend_from_slice(piece));
    crc32c(&covered)
}
