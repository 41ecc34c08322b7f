//! Gathering a footer while a segment fills (section 5 of `docs/storage-format.md`). Pure.
//!
//! [`FooterBuilder`] knows at any time how large the footer will be, so that its space can be
//! counted while the segment fills, and where the records noted so far lie, so that a segment can
//! be read before it is sealed.

use std::collections::BTreeMap;

use super::checksum::Seed;
use super::entry::{EntryHeader, EntryKind};
use super::fields::{put, to_u32};
use super::footer::{Footer, SegmentEnd};
use super::listing::{
    EXTENT_BYTES, Extent, FOOTER_HEADER_BYTES, MAGIC, TOPIC_BYTES, TopicSummary, footer_bytes,
};
use crate::types::TopicId;

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

    /// Upper bound of that length after `runs` more runs of neighbouring entries, each of one
    /// topic and not above the bound of an extent, in bytes. A single entry is a run, however large.
    pub fn length_after(&self, runs: usize) -> usize {
        footer_bytes(self.topics.len() + runs, self.extents + runs)
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

fn encode_extent(bytes: &mut [u8], extent: &Extent) {
    put(bytes, 0, &extent.base.get().to_le_bytes());
    put(bytes, 8, &extent.records.to_le_bytes());
    put(bytes, 12, &extent.position.to_le_bytes());
    put(bytes, 16, &extent.length.to_le_bytes());
    put(bytes, 20, &extent.entries.to_le_bytes());
    put(bytes, 24, &extent.first_time.as_millis().to_le_bytes());
    put(bytes, 32, &extent.last_time.as_millis().to_le_bytes());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::journal::entry::ENTRY_HEADER_BYTES;
    use crate::journal::header::FIRST_POSITION;
    use crate::journal::listing::FooterFault;
    use crate::journal::testing::{batch, records, seed, topic};
    use crate::limits::EXTENT_BYTES_MAX;
    use crate::time::Timestamp;
    use crate::types::Offset;

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
