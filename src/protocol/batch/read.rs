//! Reading the records of a batch.

use bytes::Bytes;

use super::{BatchError, BatchHeader, Header, RecordRef};
use crate::time::Timestamp;

/// A record that keeps the memory of its batch alive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// When it was made, by the publisher's clock.
    pub timestamp: Timestamp,
    /// The key, if it has one. An empty key is one.
    pub key: Option<Bytes>,
    /// The headers, in the order they were given.
    pub headers: Vec<Header>,
    /// The payload.
    pub value: Bytes,
}

/// The records of one batch, in order. Iterating gives each as an owned
/// [`Record`] that shares the memory of all; [`next_ref`](Self::next_ref)
/// borrows instead. After an error there is no more.
#[derive(Debug, Clone)]
pub struct Records {
    unpacked: Bytes,
    /// Where in `unpacked` the next record begins.
    at: usize,
    index: u32,
    count: u32,
    base: Timestamp,
}

impl Records {
    pub(super) fn new(unpacked: Bytes, header: &BatchHeader) -> Self {
        Self {
            unpacked,
            at: 0,
            index: 0,
            count: header.record_count,
            base: header.base_timestamp,
        }
    }

    /// The memory that the records lie in.
    pub(super) fn into_unpacked(self) -> Bytes {
        self.unpacked
    }

    /// Whether there is no more.
    pub fn is_over(&self) -> bool {
        self.index == self.count
    }

    /// The next record, borrowed. Errors only in batches that were not checked whole.
    pub fn next_ref(&mut self) -> Option<Result<RecordRef<'_>, BatchError>> {
        if self.is_over() {
            return None;
        }
        let (record, left) = parse(&self.unpacked[self.at..], self.base);
        self.at = self.unpacked.len() - left;
        Some(passed(&mut self.index, self.count, left, record))
    }
}

fn parse(mut rest: &[u8], base: Timestamp) -> (Result<RecordRef<'_>, &'static str>, usize) {
    let record = RecordRef::parse(&mut rest, base);
    (record, rest.len())
}

/// Counts a record that was parsed, with so many bytes left behind it; an error is the end.
fn passed<T>(
    index: &mut u32,
    count: u32,
    left: usize,
    record: Result<T, &'static str>,
) -> Result<T, BatchError> {
    let this = *index;
    *index = if record.is_ok() { this + 1 } else { count };
    if record.is_ok() && *index == count && left > 0 {
        let bytes = left as u64;
        return Err(BatchError::LeftOver { bytes });
    }
    let index = this;
    record.map_err(|problem| BatchError::Record { index, problem })
}

impl Iterator for Records {
    type Item = Result<Record, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_over() {
            return None;
        }
        let (record, left) = parse(&self.unpacked[self.at..], self.base);
        let share = |bytes: &[u8]| self.unpacked.slice_ref(bytes);
        let record = record.map(|record| Record {
            timestamp: record.timestamp,
            key: record.key.map(share),
            headers: record
                .headers()
                .map(|(name, value)| Header {
                    name: name.to_owned(),
                    value: share(value),
                })
                .collect(),
            value: share(record.value),
        });
        self.at = self.unpacked.len() - left;
        Some(passed(&mut self.index, self.count, left, record))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = (self.count - self.index) as usize;
        (0, Some(left))
    }
}
