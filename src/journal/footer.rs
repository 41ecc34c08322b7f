//! Footers: where the records of each topic lie in a sealed segment (section 5 of `docs/storage-format.md`). Pure.
//!
//! [`Footer`] keeps the encoded bytes and searches in them, so a cached footer costs what it costs
//! on the disk. [`super::gather`] makes footers.

use std::ops::Range;

use bytes::Bytes;
use thiserror::Error;

use super::checksum::Seed;
use super::entry::{ENTRY_HEADER_BYTES, EntryHeader};
use super::fields::{array, get_i64, get_u32, get_u64, to_usize};
use super::header::FIRST_POSITION;
use crate::limits::EXTENT_BYTES_MAX;
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

/// What is known of a segment when it is sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentEnd {
    /// Where its contents end, padding included.
    pub contents_end: u32,
    /// First and last group; zeros in a cold segment.
    pub groups: (u64, u64),
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

fn decode_extent(bytes: &[u8]) -> Extent {
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

/// A checked footer, as compact in memory as on the disk.
#[derive(Clone, Debug)]
pub struct Footer {
    bytes: Bytes,
    topics: usize,
    extents: usize,
}

impl Footer {
    /// The length of the footer that its first bytes tell, not yet to be believed.
    ///
    /// # Errors
    /// If they are not the first bytes of a footer.
    pub fn peek_length(bytes: &[u8]) -> Result<u32, FooterFault> {
        let bytes = bytes.get(..FOOTER_HEADER_BYTES).ok_or(FooterFault::Short)?;
        if &bytes[..4] != MAGIC {
            return Err(FooterFault::Magic);
        }
        Ok(get_u32(bytes, 8))
    }

    /// Reads and checks the footer at the start of `bytes`, which lie at `position` of the segment.
    ///
    /// # Errors
    /// Says why there is none.
    pub fn decode(bytes: Bytes, seed: &Seed, position: u32) -> Result<Self, FooterFault> {
        let length = to_usize(Self::peek_length(&bytes)?);
        if length < FOOTER_HEADER_BYTES {
            return Err(FooterFault::Checksum);
        }
        if bytes.len() < length {
            return Err(FooterFault::Short);
        }
        let bytes = bytes.slice(..length);
        if seed.crc(position, &bytes[8..]) != get_u32(&bytes, 4) {
            return Err(FooterFault::Checksum);
        }
        let footer = Self {
            topics: to_usize(get_u32(&bytes, 12)),
            extents: to_usize(get_u32(&bytes, 16)),
            bytes,
        };
        footer.check(position)?;
        Ok(footer)
    }

    fn check(&self, position: u32) -> Result<(), FooterFault> {
        let bad = |what| Err(FooterFault::Value { what });
        // In 64 bits, so that false numbers cannot wrap around.
        let length = FOOTER_HEADER_BYTES as u64
            + self.topics as u64 * TOPIC_BYTES as u64
            + self.extents as u64 * EXTENT_BYTES as u64;
        if length != self.bytes.len() as u64 {
            return bad("length");
        }
        if !(FIRST_POSITION..=position).contains(&self.segment_end().contents_end) {
            return bad("end of contents");
        }
        let mut first = 0;
        let mut before: Option<TopicId> = None;
        for at in 0..self.topics {
            let (summary, first_extent) = self.topic_row(at);
            if before.is_some_and(|b| b >= summary.topic) {
                return bad("order of topics");
            }
            if first_extent != first || summary.extents == 0 {
                return bad("index of extents");
            }
            before = Some(summary.topic);
            first += to_usize(summary.extents);
            if first > self.extents {
                return bad("index of extents");
            }
            self.check_extents(&summary, first_extent)?;
        }
        if first == self.extents {
            Ok(())
        } else {
            bad("number of extents")
        }
    }

    fn check_extents(&self, summary: &TopicSummary, first: usize) -> Result<(), FooterFault> {
        let bad = |what| Err(FooterFault::Value { what });
        let contents_end = u64::from(self.segment_end().contents_end);
        let (mut offset, mut position, mut records) = (summary.base, FIRST_POSITION, 0);
        for at in first..first + to_usize(summary.extents) {
            let extent = self.extent(at);
            let end = u64::from(extent.position) + u64::from(extent.length);
            if extent.base < offset || extent.position < position || end > contents_end {
                return bad("order of extents");
            }
            let headers = u64::from(extent.entries) * ENTRY_HEADER_BYTES as u64;
            let counted = extent.entries > 0 && extent.records >= extent.entries;
            if !counted || u64::from(extent.length) <= headers {
                return bad("extent");
            }
            offset = extent.end();
            position = extent.position + extent.length;
            records += u64::from(extent.records);
        }
        if self.extent(first).base == summary.base
            && offset == summary.end
            && records == summary.records
        {
            Ok(())
        } else {
            bad("topic")
        }
    }

    /// The bytes, to be written at a sector boundary and padded with zeros.
    pub fn as_bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Its own checksum, which the catalog remembers.
    pub fn crc(&self) -> u32 {
        get_u32(&self.bytes, 4)
    }

    /// Where the contents end and which groups they are.
    pub fn segment_end(&self) -> SegmentEnd {
        SegmentEnd {
            contents_end: get_u32(&self.bytes, 20),
            groups: (get_u64(&self.bytes, 24), get_u64(&self.bytes, 32)),
        }
    }

    /// What the segment holds of each topic, by topic id.
    pub fn topics(&self) -> impl ExactSizeIterator<Item = TopicSummary> + '_ {
        (0..self.topics).map(|at| self.topic_row(at).0)
    }

    /// What the segment holds of `topic`.
    pub fn topic(&self, topic: TopicId) -> Option<TopicSummary> {
        self.find(topic).map(|(summary, _)| summary)
    }

    /// The extents of `topic`, by offset.
    pub fn extents_of(&self, topic: TopicId) -> impl ExactSizeIterator<Item = Extent> + '_ {
        let (count, first) = self.find(topic).map_or((0, 0), |(summary, first)| {
            (to_usize(summary.extents), first)
        });
        (first..first + count).map(|at| self.extent(at))
    }

    /// The extent of `topic` that holds `offset`, or else the first one after it.
    pub fn extent_at(&self, topic: TopicId, offset: Offset) -> Option<Extent> {
        self.extents_from(topic, offset).next()
    }

    /// The same and those that follow.
    pub fn extents_from(
        &self,
        topic: TopicId,
        offset: Offset,
    ) -> impl ExactSizeIterator<Item = Extent> + '_ {
        let (count, first) = self.find(topic).map_or((0, 0), |(summary, first)| {
            (to_usize(summary.extents), first)
        });
        let before = partition_point(count, |i| self.extent(first + i).end() <= offset);
        (first + before..first + count).map(|at| self.extent(at))
    }

    /// The last extent of `topic` for which `holds`, and the first for which it does not, given that it holds for
    /// those before and for none after.
    pub fn split(
        &self,
        topic: TopicId,
        holds: impl Fn(&Extent) -> bool,
    ) -> (Option<Extent>, Option<Extent>) {
        let (count, first) = self.find(topic).map_or((0, 0), |(summary, first)| {
            (to_usize(summary.extents), first)
        });
        let at = partition_point(count, |i| holds(&self.extent(first + i)));
        let before = at.checked_sub(1).map(|i| self.extent(first + i));
        (before, (at < count).then(|| self.extent(first + at)))
    }

    fn find(&self, topic: TopicId) -> Option<(TopicSummary, usize)> {
        let at = partition_point(self.topics, |i| self.topic_row(i).0.topic < topic);
        let row = (at < self.topics).then(|| self.topic_row(at))?;
        (row.0.topic == topic).then_some(row)
    }

    fn topic_row(&self, at: usize) -> (TopicSummary, usize) {
        let row = &self.bytes[FOOTER_HEADER_BYTES + at * TOPIC_BYTES..][..TOPIC_BYTES];
        (decode_topic(row), to_usize(get_u32(row, 16)))
    }

    fn extent(&self, at: usize) -> Extent {
        let start = FOOTER_HEADER_BYTES + self.topics * TOPIC_BYTES;
        decode_extent(&self.bytes[start + at * EXTENT_BYTES..][..EXTENT_BYTES])
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
