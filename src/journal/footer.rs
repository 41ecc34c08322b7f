//! Footers: where the records of each topic lie in a sealed segment (section 5 of `docs/storage-format.md`). Pure.
//!
//! [`FooterBuilder`] gathers entries while a segment fills and knows at any time how large the
//! footer will be. [`Footer`] keeps the encoded bytes and searches in them, so a cached footer
//! costs what it costs on the disk.

use std::collections::BTreeMap;

use bytes::Bytes;
use thiserror::Error;

use super::checksum::Seed;
use super::entry::{ENTRY_HEADER_BYTES, EntryHeader, EntryKind};
use super::fields::{array, get_i64, get_u32, get_u64, put, to_u32, to_usize};
use super::header::FIRST_POSITION;
use crate::limits::EXTENT_BYTES_MAX;
use crate::time::Timestamp;
use crate::types::{Offset, TopicId};

/// Length of a footer's fixed part, in bytes.
pub const FOOTER_HEADER_BYTES: usize = 40;
const TOPIC_BYTES: usize = 72;
const EXTENT_BYTES: usize = 40;
const MAGIC: &[u8; 4] = b"TFTR";

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
            first_time: entry.append_time,
            last_time: entry.append_time,
        }
    }

    /// First offset after it.
    pub fn end(&self) -> Offset {
        self.base.saturating_add(u64::from(self.records))
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

#[derive(Debug, Default)]
struct TopicExtents {
    bytes: u64,
    extents: Vec<Extent>,
}

/// Gathers what a footer will say.
#[derive(Debug, Default)]
pub struct FooterBuilder {
    topics: BTreeMap<TopicId, TopicExtents>,
    extents: usize,
}

/// Length of a footer of so many topics and extents, in bytes, padding excluded.
pub const fn footer_bytes(topics: usize, extents: usize) -> usize {
    FOOTER_HEADER_BYTES + topics * TOPIC_BYTES + extents * EXTENT_BYTES
}

impl FooterBuilder {
    /// Notes an entry written at `position`; anything but records is passed over.
    ///
    /// The entries of a topic come in the order of their offsets.
    pub fn add(&mut self, entry: &EntryHeader, position: u32) {
        if entry.kind != EntryKind::Records {
            return;
        }
        let extent = Extent::of_entry(entry, position);
        let of_topic = self.topics.entry(entry.topic).or_default();
        of_topic.bytes += u64::from(entry.payload_bytes);
        if let Some(last) = of_topic.extents.last_mut() {
            assert!(last.end() <= extent.base, "offsets of a topic rise");
            assert!(last.position < extent.position, "so do positions");
            if last.join(&extent) {
                return;
            }
        }
        of_topic.extents.push(extent);
        self.extents += 1;
    }

    /// Length of the footer if it were made now, in bytes, padding excluded.
    pub fn length(&self) -> usize {
        footer_bytes(self.topics.len(), self.extents)
    }

    /// Upper bound of that length after `entries` more entries of any topics, in bytes.
    pub fn length_after(&self, entries: usize) -> usize {
        footer_bytes(self.topics.len() + entries, self.extents + entries)
    }

    /// Whether no records were noted.
    pub fn is_empty(&self) -> bool {
        self.topics.is_empty()
    }

    /// The topics noted so far.
    pub fn topics(&self) -> impl ExactSizeIterator<Item = TopicId> + '_ {
        self.topics.keys().copied()
    }

    /// What was noted of a topic so far.
    pub fn topic(&self, topic: TopicId) -> Option<TopicSummary> {
        self.topics.get(&topic).and_then(|of| of.summary(topic))
    }

    /// The extents of a topic so far, by offset.
    pub fn extents_of(&self, topic: TopicId) -> &[Extent] {
        self.topics.get(&topic).map_or(&[], |of| &of.extents)
    }

    /// The footer, to be written at `position`.
    pub fn finish(&self, end: &SegmentEnd, seed: &Seed, position: u32) -> Footer {
        assert!(
            end.contents_end <= position,
            "a footer follows the contents"
        );
        let mut bytes = vec![0; self.length()];
        put(&mut bytes, 0, MAGIC);
        put(&mut bytes, 8, &to_u32(self.length()).to_le_bytes());
        put(&mut bytes, 12, &to_u32(self.topics.len()).to_le_bytes());
        put(&mut bytes, 16, &to_u32(self.extents).to_le_bytes());
        put(&mut bytes, 20, &end.contents_end.to_le_bytes());
        put(&mut bytes, 24, &end.groups.0.to_le_bytes());
        put(&mut bytes, 32, &end.groups.1.to_le_bytes());
        self.encode_rows(&mut bytes);
        let crc = seed.crc(position, &bytes[8..]);
        put(&mut bytes, 4, &crc.to_le_bytes());
        Footer::decode(bytes.into(), seed, position).expect("what was just built reads back")
    }

    fn encode_rows(&self, bytes: &mut [u8]) {
        let mut topic_at = FOOTER_HEADER_BYTES;
        let mut extent_at = FOOTER_HEADER_BYTES + self.topics.len() * TOPIC_BYTES;
        let mut first = 0;
        for (topic, of_topic) in &self.topics {
            let summary = of_topic.summary(*topic).expect("a topic has an extent");
            encode_topic(
                &mut bytes[topic_at..topic_at + TOPIC_BYTES],
                &summary,
                first,
            );
            topic_at += TOPIC_BYTES;
            first += summary.extents;
            for extent in &of_topic.extents {
                encode_extent(&mut bytes[extent_at..extent_at + EXTENT_BYTES], extent);
                extent_at += EXTENT_BYTES;
            }
        }
        assert_eq!(extent_at, bytes.len(), "the length was computed beforehand");
    }
}

impl TopicExtents {
    fn summary(&self, topic: TopicId) -> Option<TopicSummary> {
        let (first, last) = (self.extents.first()?, self.extents.last()?);
        Some(TopicSummary {
            topic,
            extents: to_u32(self.extents.len()),
            base: first.base,
            end: last.end(),
            records: self.extents.iter().map(|e| u64::from(e.records)).sum(),
            bytes: self.bytes,
            first_time: first.first_time,
            last_time: last.last_time,
        })
    }
}

fn encode_topic(bytes: &mut [u8], summary: &TopicSummary, first_extent: u32) {
    put(bytes, 0, &summary.topic.to_bytes());
    put(bytes, 16, &first_extent.to_le_bytes());
    put(bytes, 20, &summary.extents.to_le_bytes());
    put(bytes, 24, &summary.base.get().to_le_bytes());
    put(bytes, 32, &summary.end.get().to_le_bytes());
    put(bytes, 40, &summary.records.to_le_bytes());
    put(bytes, 48, &summary.bytes.to_le_bytes());
    put(bytes, 56, &summary.first_time.as_millis().to_le_bytes());
    put(bytes, 64, &summary.last_time.as_millis().to_le_bytes());
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

fn encode_extent(bytes: &mut [u8], extent: &Extent) {
    put(bytes, 0, &extent.base.get().to_le_bytes());
    put(bytes, 8, &extent.records.to_le_bytes());
    put(bytes, 12, &extent.position.to_le_bytes());
    put(bytes, 16, &extent.length.to_le_bytes());
    put(bytes, 24, &extent.first_time.as_millis().to_le_bytes());
    put(bytes, 32, &extent.last_time.as_millis().to_le_bytes());
}

fn decode_extent(bytes: &[u8]) -> Extent {
    Extent {
        base: Offset::new(get_u64(bytes, 0)),
        records: get_u32(bytes, 8),
        position: get_u32(bytes, 12),
        length: get_u32(bytes, 16),
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
            if extent.records == 0 || to_usize(extent.length) <= ENTRY_HEADER_BYTES {
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
        let (summary, first) = self.find(topic)?;
        let count = to_usize(summary.extents);
        let before = partition_point(count, |i| self.extent(first + i).end() <= offset);
        (before < count).then(|| self.extent(first + before))
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::journal::testing::{batch, records, seed, topic};

    fn entry(of: u8, base: u64, count: u32, bytes: usize) -> EntryHeader {
        let payload = batch(&vec![0; bytes - 4]);
        let mut header = records(topic(of), base, count, &[&payload]).header();
        header.append_time = Timestamp::from_millis(i64::try_from(base).expect("small"));
        header
    }

    const END: SegmentEnd = SegmentEnd {
        contents_end: 1 << 20,
        groups: (5, 9),
    };
    const AT: u32 = 1 << 20;

    fn sample() -> FooterBuilder {
        let mut builder = FooterBuilder::default();
        builder.add(&entry(2, 100, 10, 44), 8192);
        builder.add(&entry(2, 110, 5, 44), 8292); // neighbours: joined
        builder.add(&entry(1, 0, 1, 44), 8392);
        builder.add(&entry(2, 115, 5, 44), 8492); // not a neighbour on the disk
        builder.add(&entry(2, 130, 5, 44), 8592); // a neighbour with a hole in the offsets
        builder
    }

    #[test]
    fn neighbours_are_one_extent() {
        let builder = sample();
        assert_eq!(builder.length(), footer_bytes(2, 4));
        let footer = builder.finish(&END, &seed(), AT);
        let extents: Vec<_> = footer.extents_of(topic(2)).collect();
        let told = extents
            .iter()
            .map(|e| (e.base.get(), e.records, e.position, e.length));
        let told: Vec<_> = told.collect();
        assert_eq!(
            told,
            [
                (100, 15, 8192, 200),
                (115, 5, 8492, 100),
                (130, 5, 8592, 100)
            ]
        );
        assert_eq!(extents, builder.extents_of(topic(2)));
        let summary = footer.topic(topic(2)).expect("it is there");
        assert_eq!((summary.base.get(), summary.end.get()), (100, 135));
        assert_eq!((summary.records, summary.bytes), (25, 4 * 44));
        assert_eq!(summary.last_time.as_millis(), 130);
        assert_eq!(footer.segment_end(), END);
        assert_eq!(
            footer.topics().map(|t| t.topic).collect::<Vec<_>>(),
            [topic(1), topic(2)]
        );
        assert_eq!(footer.topic(topic(3)), None);
        assert_eq!(footer.extents_of(topic(3)).len(), 0);
    }

    #[test]
    fn finds_the_extent_of_an_offset_or_the_next() {
        let footer = sample().finish(&END, &seed(), AT);
        let base = |offset| {
            let extent = footer.extent_at(topic(2), Offset::new(offset));
            extent.map(|extent| extent.base.get())
        };
        let cases = [
            (0, Some(100)),
            (100, Some(100)),
            (114, Some(100)),
            (115, Some(115)),
            (120, Some(130)),
            (134, Some(130)),
            (135, None),
        ];
        for (offset, expected) in cases {
            assert_eq!(base(offset), expected, "offset {offset}");
        }
    }

    #[test]
    fn extents_stay_small_enough_for_one_read() {
        let mut builder = FooterBuilder::default();
        let (half, mut position) = (EXTENT_BYTES_MAX / 2, FIRST_POSITION);
        for i in 0..5 {
            builder.add(&entry(1, i, 1, half - ENTRY_HEADER_BYTES), position);
            position += to_u32(half);
        }
        let lengths: Vec<_> = builder
            .extents_of(topic(1))
            .iter()
            .map(|e| e.length)
            .collect();
        let (whole, half) = (to_u32(EXTENT_BYTES_MAX), to_u32(half));
        assert_eq!(lengths, [whole, whole, half]);
    }

    #[test]
    fn every_changed_bit_and_every_cut_is_noticed() {
        let good = sample().finish(&END, &seed(), AT).as_bytes().clone();
        for bit in 0..good.len() * 8 {
            let mut bytes = good.to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let verdict = Footer::decode(bytes.into(), &seed(), AT);
            assert!(verdict.is_err(), "bit {bit}");
        }
        for length in 0..good.len() {
            let verdict = Footer::decode(good.slice(..length), &seed(), AT);
            assert_eq!(verdict.map(|_| ()), Err(FooterFault::Short));
        }
        let elsewhere = Footer::decode(good, &seed(), AT + 512);
        assert_eq!(elsewhere.map(|_| ()), Err(FooterFault::Checksum));
    }

    #[test]
    fn an_empty_segment_has_a_footer_too() {
        let builder = FooterBuilder::default();
        assert!(builder.is_empty());
        let footer = builder.finish(&END, &seed(), AT);
        assert_eq!(footer.topics().len(), 0);
        assert_eq!(footer.as_bytes().len(), FOOTER_HEADER_BYTES);
    }

    #[test]
    fn values_that_make_no_sense_are_refused_although_the_checksum_is_right() {
        let good = sample().finish(&END, &seed(), AT).as_bytes().to_vec();
        let topics = FOOTER_HEADER_BYTES;
        let extents = topics + 2 * TOPIC_BYTES;
        let cases = [
            12,
            16,
            20 + 3,
            topics + 16,
            topics + 20,
            topics + 24,
            topics + 40,
            extents + 8,
        ];
        for at in cases {
            let mut bytes = good.clone();
            bytes[at] = bytes[at].wrapping_add(1);
            let crc = seed().crc(AT, &bytes[8..]);
            put(&mut bytes, 4, &crc.to_le_bytes());
            let verdict = Footer::decode(bytes.into(), &seed(), AT).map(|_| ());
            assert!(
                matches!(verdict, Err(FooterFault::Value { .. })),
                "byte {at}: {verdict:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn any_entries_are_found_again(
            entries in prop::collection::vec((1_u8..5, 1_u32..50, 4_usize..300, 0_u32..3, 0_u64..2), 0..200),
        ) {
            let mut builder = FooterBuilder::default();
            let mut ends = [0_u64; 5];
            let mut position = FIRST_POSITION;
            let mut written = Vec::new();
            for (of, count, bytes, space, hole) in entries {
                position += space * 512;
                let base = ends[usize::from(of)] + hole * 7;
                let header = entry(of, base, count, bytes);
                prop_assert!(builder.length() <= builder.length_after(1));
                let bound = builder.length_after(1);
                builder.add(&header, position);
                prop_assert!(builder.length() <= bound);
                written.push((header, position));
                ends[usize::from(of)] = header.end_number();
                position += header.entry_bytes();
            }
            let footer = builder.finish(&END, &seed(), AT);
            prop_assert_eq!(footer.as_bytes().len(), builder.length());
            for (header, position) in written {
                let found = footer.extent_at(header.topic, Offset::new(header.number));
                let extent = found.expect("an extent for every entry");
                prop_assert!(extent.base.get() <= header.number);
                prop_assert!(header.end_number() <= extent.end().get());
                prop_assert!(extent.position <= position);
                prop_assert!(position + header.entry_bytes() <= extent.position + extent.length);
            }
        }
    }
}
