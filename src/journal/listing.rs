//! What a footer lists of one topic, whole or in parts (section 5 of `docs/storage-format.md`). Pure.
//!
//! ```text
//!   footer:  head │ topics, by id │ extents, by topic and offset
//!                        │ find          ▲
//!                        └───────────────┘ a Listing: those of one topic
//! ```
//!
//! A footer has one checksum, for all of it. A [`Listing`] that was read without the rest is *unchecked*: its numbers agree with
//! each other, and what it leads to is checked entry by entry, so nothing wrong comes of it; but that something is missing or
//! damaged may only be believed of a checked one.

use std::convert::Infallible;
use std::ops::Range;

use bytes::Bytes;
use thiserror::Error;

use super::entry::{ENTRY_HEADER_BYTES, EntryHeader};
use super::fields::{array, get_i64, get_u32, get_u64, to_usize};
use super::header::FIRST_POSITION;
use crate::limits::{ENTRY_BYTES_MAX, EXTENT_BYTES_MAX};
use crate::time::Timestamp;
use crate::types::{Offset, TopicId};

/// Length of a footer's fixed part, in bytes.
pub const FOOTER_HEADER_BYTES: usize = 40;
pub(super) const TOPIC_BYTES: usize = 72;
pub(super) const EXTENT_BYTES: usize = 40;
pub(super) const MAGIC: &[u8; 4] = b"TFTR";

/// A run of neighbouring record entries of one topic, with offsets that follow one another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Offset of its first record.
    pub base: Offset,
    /// Number of its records.
    pub records: u32,
    /// Position of its first entry header.
    pub position: u32,
    /// Length of all its entries with their headers, in bytes.
    pub length: u32,
    /// Number of its entries.
    pub entries: u32,
    /// Append time of its first entry.
    pub first_time: Timestamp,
    /// Append time of its last entry.
    pub last_time: Timestamp,
}

impl Extent {
    /// The extent of one entry at `position`.
    pub fn of_entry(entry: &EntryHeader, position: u32) -> Self {
        Self {
            base: Offset::new(entry.number),
            records: entry.records,
            position,
            length: entry.entry_bytes(),
            entries: 1,
            first_time: entry.append_time,
            last_time: entry.append_time,
        }
    }

    /// First offset after it.
    pub fn end(&self) -> Offset {
        self.base.saturating_add(u64::from(self.records))
    }

    /// Where it lies.
    pub fn range(&self) -> Range<u32> {
        self.position..self.position + self.length
    }

    /// Bytes of its record batches, entry headers excluded.
    pub fn payload_bytes(&self) -> u64 {
        u64::from(self.length) - u64::from(self.entries) * ENTRY_HEADER_BYTES as u64
    }

    /// Joins `next` if it begins where this ends, in offsets and on the disk, and both together
    /// are not too large for one read.
    pub fn join(&mut self, next: &Self) -> bool {
        let length = self.length + next.length;
        let joined = self.end() == next.base
            && self.position + self.length == next.position
            && to_usize(length) <= EXTENT_BYTES_MAX
            && self.records.checked_add(next.records).is_some();
        if joined {
            self.records += next.records;
            self.length = length;
            self.entries += next.entries;
            self.last_time = next.last_time;
        }
        joined
    }
}

/// What a segment holds of one topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TopicSummary {
    /// The topic.
    pub topic: TopicId,
    /// Number of its extents.
    pub extents: u32,
    /// Its first offset in the segment.
    pub base: Offset,
    /// First offset after its last in the segment.
    pub end: Offset,
    /// Number of its records: less than `end - base` where offsets are missing.
    pub records: u64,
    /// Bytes of its record batches, entry headers excluded.
    pub bytes: u64,
    /// Append time of its first record.
    pub first_time: Timestamp,
    /// Append time of its last record.
    pub last_time: Timestamp,
}

/// Why bytes are not a footer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum FooterFault {
    /// There are fewer bytes than the footer has.
    #[error("the bytes end inside the footer")]
    Short,
    /// Nothing there that looks like a footer.
    #[error("no footer found")]
    Magic,
    /// Not a footer of this place and this life of the slot, or changed.
    #[error("the footer's checksum does not match")]
    Checksum,
    /// The checksum is right and a value makes no sense.
    #[error("the footer's {what} makes no sense")]
    Value {
        /// The field.
        what: &'static str,
    },
}

/// Length of a footer of so many topics and extents, in bytes, padding excluded.
pub const fn footer_bytes(topics: usize, extents: usize) -> usize {
    FOOTER_HEADER_BYTES + topics * TOPIC_BYTES + extents * EXTENT_BYTES
}

fn decode_topic(bytes: &[u8]) -> TopicSummary {
    TopicSummary {
        topic: TopicId::from_bytes(array(bytes, 0)),
        extents: get_u32(bytes, 20),
        base: Offset::new(get_u64(bytes, 24)),
        end: Offset::new(get_u64(bytes, 32)),
        records: get_u64(bytes, 40),
        bytes: get_u64(bytes, 48),
        first_time: Timestamp::from_millis(get_i64(bytes, 56)),
        last_time: Timestamp::from_millis(get_i64(bytes, 64)),
    }
}

pub(super) fn decode_extent(bytes: &[u8]) -> Extent {
    Extent {
        base: Offset::new(get_u64(bytes, 0)),
        records: get_u32(bytes, 8),
        position: get_u32(bytes, 12),
        length: get_u32(bytes, 16),
        entries: get_u32(bytes, 20),
        first_time: Timestamp::from_millis(get_i64(bytes, 24)),
        last_time: Timestamp::from_millis(get_i64(bytes, 32)),
    }
}

/// What the fixed part of a footer tells, with numbers that agree with each other.
#[derive(Debug, Clone, Copy)]
pub(super) struct Head {
    /// Of all of it, in bytes.
    pub length: usize,
    pub topics: usize,
    pub extents: usize,
    pub contents_end: u32,
}

impl Head {
    /// The length that the first bytes of a footer tell, not yet to be believed.
    pub fn peek_length(bytes: &[u8]) -> Result<u32, FooterFault> {
        let bytes = bytes.get(..FOOTER_HEADER_BYTES).ok_or(FooterFault::Short)?;
        if &bytes[..4] != MAGIC {
            return Err(FooterFault::Magic);
        }
        Ok(get_u32(bytes, 8))
    }

    /// Reads the fixed part of a footer that lies at `position`.
    pub fn decode(bytes: &[u8], position: u32) -> Result<Self, FooterFault> {
        let bad = |what| Err(FooterFault::Value { what });
        let head = Self {
            length: to_usize(Self::peek_length(bytes)?),
            topics: to_usize(get_u32(bytes, 12)),
            extents: to_usize(get_u32(bytes, 16)),
            contents_end: get_u32(bytes, 20),
        };
        // In 64 bits, so that false numbers cannot wrap around.
        let length = FOOTER_HEADER_BYTES as u64
            + head.topics as u64 * TOPIC_BYTES as u64
            + head.extents as u64 * EXTENT_BYTES as u64;
        if length != head.length as u64 {
            return bad("length");
        }
        if !(FIRST_POSITION..=position).contains(&head.contents_end) {
            return bad("end of contents");
        }
        Ok(head)
    }

    /// What it lists of `topic`, unchecked. `part` reads of the footer what lies in a range from its start, and less only where
    /// the file ends.
    pub fn listing<E>(
        &self,
        topic: TopicId,
        mut part: impl FnMut(Range<usize>) -> Result<Bytes, E>,
    ) -> Result<Result<Listing, FooterFault>, E> {
        let topics = part(self.topics())?;
        if topics.len() < self.topics().len() {
            return Ok(Err(FooterFault::Short));
        }
        let found = find_topic(&topics, topic);
        let range = match &found {
            Some((summary, first)) => self.extents(*first, to_usize(summary.extents)),
            None => self.extents(0, 0),
        };
        let Some(range) = range else {
            let what = "index of extents";
            return Ok(Err(FooterFault::Value { what }));
        };
        let summary = found.map(|(summary, _)| summary);
        let extents = part(range)?;
        Ok(Listing::unchecked(
            extents,
            summary.as_ref(),
            self.contents_end,
        ))
    }

    /// Where the topics are, from its start.
    pub fn topics(&self) -> Range<usize> {
        FOOTER_HEADER_BYTES..FOOTER_HEADER_BYTES + self.topics * TOPIC_BYTES
    }

    /// Where `count` extents from number `first` on are, from its start. `None`: it has fewer.
    pub fn extents(&self, first: usize, count: usize) -> Option<Range<usize>> {
        let end = first
            .checked_add(count)
            .filter(|end| *end <= self.extents)?;
        let start = self.topics().end;
        Some(start + first * EXTENT_BYTES..start + end * EXTENT_BYTES)
    }
}

/// A row of the topics, and the number of its first extent.
pub(super) fn topic_row(topics: &[u8], at: usize) -> (TopicSummary, usize) {
    let row = &topics[at * TOPIC_BYTES..][..TOPIC_BYTES];
    (decode_topic(row), to_usize(get_u32(row, 16)))
}

/// The row of `topic`.
pub(super) fn find_topic(topics: &[u8], topic: TopicId) -> Option<(TopicSummary, usize)> {
    let count = topics.len() / TOPIC_BYTES;
    let at = partition_point(count, |i| topic_row(topics, i).0.topic < topic);
    let row = (at < count).then(|| topic_row(topics, at))?;
    (row.0.topic == topic).then_some(row)
}

/// The extents of one topic in a segment, by offset.
#[derive(Debug, Clone)]
pub struct Listing {
    bytes: Bytes,
    is_checked: bool,
}

impl Listing {
    /// Of a footer whose checksum is right.
    pub(super) fn checked(bytes: Bytes) -> Self {
        Self {
            bytes,
            is_checked: true,
        }
    }

    /// Read without the rest of its footer: the extents that `summary` is about, `None` if there are none.
    fn unchecked(
        bytes: Bytes,
        summary: Option<&TopicSummary>,
        contents_end: u32,
    ) -> Result<Self, FooterFault> {
        let listing = Self {
            bytes,
            is_checked: false,
        };
        if let Some(summary) = summary {
            if listing.len() != to_usize(summary.extents) || listing.len() == 0 {
                return Err(FooterFault::Short);
            }
            listing.check(summary, contents_end)?;
            // What is not checked decides over no more memory than a right one would.
            let is_too_long = |extent: Extent| {
                let one = extent.entries == 1;
                let most = if one {
                    ENTRY_BYTES_MAX + ENTRY_HEADER_BYTES
                } else {
                    EXTENT_BYTES_MAX
                };
                to_usize(extent.length) > most.max(EXTENT_BYTES_MAX)
            };
            if listing.clone().into_extents().any(is_too_long) {
                return Err(FooterFault::Value { what: "extent" });
            }
        }
        Ok(listing)
    }

    /// What a footer that lies at `position` lists of `topic`, out of its bytes and unchecked.
    ///
    /// # Errors
    /// Says why there is none.
    pub fn find(footer: &Bytes, position: u32, topic: TopicId) -> Result<Self, FooterFault> {
        let part = |range: Range<usize>| {
            let end = range.end.min(footer.len());
            Ok::<_, Infallible>(footer.slice(range.start.min(end)..end))
        };
        let Ok(listing) = Head::decode(footer, position)?.listing(topic, part);
        listing
    }

    /// Whether the checksum of its footer was right. If not, what it does not list may exist all the same.
    pub fn is_checked(&self) -> bool {
        self.is_checked
    }

    fn len(&self) -> usize {
        self.bytes.len() / EXTENT_BYTES
    }

    fn extent(&self, at: usize) -> Extent {
        decode_extent(&self.bytes[at * EXTENT_BYTES..][..EXTENT_BYTES])
    }

    /// All of them.
    pub(super) fn into_extents(self) -> impl ExactSizeIterator<Item = Extent> {
        (0..self.len()).map(move |at| self.extent(at))
    }

    /// The extents from the one on that holds `offset`, or else from the first one after it.
    pub fn from(&self, offset: Offset) -> impl ExactSizeIterator<Item = Extent> + '_ {
        let before = partition_point(self.len(), |i| self.extent(i).end() <= offset);
        (before..self.len()).map(|at| self.extent(at))
    }

    /// The last extent for which `holds`, and the first for which it does not, given that it holds for
    /// those before and for none after.
    pub(super) fn split(
        &self,
        holds: impl Fn(&Extent) -> bool,
    ) -> (Option<Extent>, Option<Extent>) {
        let at = partition_point(self.len(), |i| holds(&self.extent(i)));
        let before = at.checked_sub(1).map(|i| self.extent(i));
        (before, (at < self.len()).then(|| self.extent(at)))
    }

    /// Whether the extents follow one another, lie within the contents and are what the summary says.
    pub(super) fn check(
        &self,
        summary: &TopicSummary,
        contents_end: u32,
    ) -> Result<(), FooterFault> {
        let bad = |what| Err(FooterFault::Value { what });
        let contents_end = u64::from(contents_end);
        let (mut offset, mut position, mut records) = (summary.base, FIRST_POSITION, 0);
        let mut base = None;
        for extent in (0..self.len()).map(|at| self.extent(at)) {
            let end = u64::from(extent.position) + u64::from(extent.length);
            if extent.base < offset || extent.position < position || end > contents_end {
                return bad("order of extents");
            }
            let headers = u64::from(extent.entries) * ENTRY_HEADER_BYTES as u64;
            let counted = extent.entries > 0 && extent.records >= extent.entries;
            if !counted || u64::from(extent.length) <= headers {
                return bad("extent");
            }
            base = base.or(Some(extent.base));
            offset = extent.end();
            position = extent.position + extent.length;
            records += u64::from(extent.records);
        }
        if base == Some(summary.base) && offset == summary.end && records == summary.records {
            Ok(())
        } else {
            bad("topic")
        }
    }
}

/// The first of `count` places where `holds` is false, given that it is true before and false after.
fn partition_point(count: usize, holds: impl Fn(usize) -> bool) -> usize {
    let (mut low, mut high) = (0, count);
    while low < high {
        let middle = low + (high - low) / 2;
        if holds(middle) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    low
}
