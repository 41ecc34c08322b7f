//! Batches that hold a part of the records of another one.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;

use bytes::{Bytes, BytesMut};

use super::record::RecordRef;
use super::{BatchError, BatchHeader, CheckedBatch, Compression, HEADER_BYTES};
use crate::time::Timestamp;
use crate::types::{ProducerId, Sequence};

/// A batch whose records were unpacked and found: any of them can be had, and batches of some of them made.
#[derive(Debug, Clone)]
pub struct OpenedBatch {
    header: BatchHeader,
    records: Bytes,
    found: Vec<Found>,
}

/// Where a record ends, and what is asked of it without looking at it again.
#[derive(Debug, Clone, Copy)]
struct Found {
    end: u32,
    time: i64,
    key: Option<u64>,
}

impl OpenedBatch {
    /// Unpacks a batch and walks over its records.
    ///
    /// # Errors
    /// Only where it was not [checked](CheckedBatch::check) whole before.
    pub fn open(batch: &CheckedBatch) -> Result<Self, BatchError> {
        let header = *batch.header();
        let records = batch.records()?.into_unpacked();
        let mut found = Vec::with_capacity(header.record_count as usize);
        let mut rest = &records[..];
        for index in 0..header.record_count {
            let record = RecordRef::parse(&mut rest, header.base_timestamp)
                .map_err(|problem| BatchError::Record { index, problem })?;
            let end = records.len() - rest.len();
            found.push(Found {
                end: u32::try_from(end).expect("unpacked batches are far below 4 GiB"),
                time: record.timestamp.as_millis(),
                key: record.key.map(stands_for),
            });
        }
        Ok(Self {
            header,
            records,
            found,
        })
    }

    /// How many records it has.
    pub fn count(&self) -> u32 {
        self.header.record_count
    }

    /// Bytes it keeps in memory, about.
    pub fn bytes(&self) -> usize {
        self.records.len() + self.found.len() * size_of::<Found>()
    }

    /// A number that stands for the key of each record: equal keys have equal ones.
    pub fn keys(&self) -> Vec<Option<u64>> {
        self.found.iter().map(|found| found.key).collect()
    }

    /// How many records from `first` on fit into a batch of so many bytes: one at least.
    pub fn fitting(&self, first: u32, bytes_max: usize) -> u32 {
        let start = self.start(first);
        let room = bytes_max.saturating_sub(HEADER_BYTES);
        let behind = &self.found[(first as usize).min(self.found.len())..];
        let fits = |found: &Found| (found.end - start) as usize <= room;
        u32::try_from(behind.partition_point(fits)).map_or(1, |count| count.max(1))
    }

    /// One record.
    pub fn record(&self, index: u32) -> Option<RecordRef<'_>> {
        let found = self.found.get(index as usize)?;
        let mut bytes = &self.records[self.start(index) as usize..found.end as usize];
        RecordRef::parse(&mut bytes, self.header.base_timestamp).ok()
    }

    /// A batch of the records in these ranges, rising, not empty and not compressed.
    pub fn part(&self, ranges: &[Range<u32>]) -> Bytes {
        let of = |range: &Range<u32>| {
            let end = self.start(range.end);
            self.start(range.start) as usize..end as usize
        };
        let length: usize = ranges.iter().map(|range| of(range).len()).sum();
        let mut batch = BytesMut::with_capacity(HEADER_BYTES + length);
        batch.resize(HEADER_BYTES, 0);
        let (mut count, mut newest) = (0, i64::MIN);
        for range in ranges {
            batch.extend_from_slice(&self.records[of(range)]);
            count += range.len() as u32;
            let found = &self.found[range.start as usize..range.end as usize];
            newest = found
                .iter()
                .fold(newest, |newest, found| newest.max(found.time));
        }
        let length = u32::try_from(length).expect("a part is no larger than the whole");
        let header = BatchHeader {
            crc: 0,
            compression: Compression::None,
            length,
            record_count: count,
            unpacked_length: length,
            max_timestamp: Timestamp::from_millis(newest),
            producer: ProducerId::zero(),
            first_sequence: Sequence::ZERO,
            has_ttl: false,
            thinned: None,
            ..self.header
        };
        header.seal(&mut batch);
        batch.freeze()
    }

    /// Where a record begins.
    fn start(&self, index: u32) -> u32 {
        let before = (index as usize).checked_sub(1);
        before
            .and_then(|before| self.found.get(before))
            .map_or(0, |found| found.end)
    }
}

/// The same for equal keys, in every process.
fn stands_for(key: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::super::{BatchBuilder, Header, RecordToSend};
    use super::*;
    use crate::limits;

    fn opened(compression: Compression, count: u32) -> OpenedBatch {
        let mut builder = BatchBuilder::new(compression);
        for n in 0..count {
            let key = [n as u8 % 3];
            let header = Header {
                name: "n".to_owned(),
                value: Bytes::from(n.to_string()),
            };
            let record = RecordToSend {
                timestamp: Timestamp::from_millis(1_000 - i64::from(n % 7)),
                key: (n % 4 > 0).then_some(&key[..]),
                headers: std::slice::from_ref(&header),
                value: &vec![n as u8; n as usize],
            };
            builder.try_push(&record).expect("it fits");
        }
        let built = builder.build(ProducerId::from_bytes([1; 16]), Sequence::new(5));
        let batch = CheckedBatch::check(built.expect("records"), limits::MESSAGE_BYTES_MAX);
        OpenedBatch::open(&batch.expect("good")).expect("good")
    }

    fn only(range: Range<u32>) -> Vec<Range<u32>> {
        std::iter::once(range).collect()
    }

    #[test]
    fn parts_hold_just_their_records_in_every_compression() {
        for compression in [Compression::None, Compression::Lz4, Compression::Zstd] {
            let opened = opened(compression, 40);
            for ranges in [
                only(0..1),
                only(39..40),
                only(0..40),
                vec![2..5, 5..6, 30..33],
            ] {
                let part = CheckedBatch::check(opened.part(&ranges), limits::MESSAGE_BYTES_MAX);
                let part = part.expect("a part is a batch");
                let mut records = part.records().expect("not compressed");
                for index in ranges.into_iter().flatten() {
                    let record = records.next_ref().expect("as many").expect("good");
                    assert_eq!(Some(record), opened.record(index));
                    assert_eq!(record.value.len(), index as usize);
                }
                assert!(records.is_over());
            }
        }
    }

    #[test]
    fn what_fits_fits_and_one_always_does() {
        let opened = opened(Compression::None, 40);
        for first in 0..40 {
            for bytes in [0, 70, 100, 300, 1_000, 1 << 20] {
                let count = opened.fitting(first, bytes);
                assert!(count >= 1 && first + count <= 40);
                let length = opened.part(&only(first..first + count)).len();
                assert!(
                    length <= bytes || count == 1,
                    "{count} from {first} in {bytes}"
                );
                if first + count < 40 {
                    let more = opened.part(&only(first..first + count + 1)).len();
                    assert!(more > bytes, "{count} from {first} in {bytes}");
                }
            }
        }
    }

    #[test]
    fn equal_keys_and_only_those_are_equal() {
        let opened = opened(Compression::None, 40);
        let keys = opened.keys();
        for (a, one) in keys.iter().enumerate() {
            assert_eq!(one.is_none(), a % 4 == 0);
            for (b, other) in keys.iter().enumerate().filter(|(_, other)| other.is_some()) {
                assert_eq!(one == other, one.is_some() && a % 3 == b % 3);
            }
        }
    }
}
