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

    /// The next record, borrowed. Errors only in batches that were not checked whole.
    pub fn next_ref(&mut self) -> Option<Result<RecordRef<'_>, BatchError>> {
        if self.index == self.count {
            return None;
        }
        let index = self.index;
        let mut rest = &self.unpacked[self.at..];
        let record = RecordRef::parse(&mut rest, self.base);
        let left = rest.len();
        self.at = self.unpacked.len() - left;
        self.index = if record.is_ok() {
            index + 1
        } else {
            self.count
        };
        if record.is_ok() && self.index == self.count && left > 0 {
            let bytes = left as u64;
            return Some(Err(BatchError::LeftOver { bytes }));
        }
        Some(record.map_err(|problem| BatchError::Record { index, problem }))
    }
}

impl Iterator for Records {
    type Item = Result<Record, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        // A second handle on the same memory, so that the borrowed record can be cut out of it.
        let whole = self.unpacked.clone();
        let record = match self.next_ref()? {
            Ok(record) => record,
            Err(error) => return Some(Err(error)),
        };
        let share = |bytes: &[u8]| whole.slice_ref(bytes);
        Some(Ok(Record {
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
        }))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = (self.count - self.index) as usize;
        (0, Some(left))
    }
}
