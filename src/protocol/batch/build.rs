//! Making a batch: records are written in their final form as they are pushed,
//! behind room for the header, so an uncompressed batch is never copied again.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};

use super::compress::Packer;
use super::header::TTL_BYTES;
use super::record::{put_counted, put_varint, varint_bytes, zigzag};
use super::{BatchError, BatchHeader, Compression, HEADER_BYTES, Header};
use crate::buffers::Buffer;
use crate::limits;
use crate::time::Timestamp;
use crate::types::{ProducerEpoch, ProducerId, Sequence};

/// A buffer that grew above this for one large message is given back after it.
const BUFFER_BYTES_KEPT: usize = 4 * limits::BATCH_BYTES_TARGET;

/// Whose a batch is, and which of theirs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Origin {
    /// Who publishes it; zero: nobody who would publish it again.
    pub producer: ProducerId,
    /// Which process of a named producer; zero without a name.
    pub epoch: ProducerEpoch,
    /// Sequence of the first record.
    pub first: Sequence,
    /// The one record has an id, in a header `tidings-id`; then there is no producer.
    pub has_id: bool,
    /// How long its records live, from when they are stored.
    pub ttl: Option<Duration>,
}

/// A record on its way into a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordToSend<'a> {
    /// When it was made, by the publisher's clock.
    pub timestamp: Timestamp,
    /// The key, if it has one; at most [`limits::KEY_BYTES_MAX`].
    pub key: Option<&'a [u8]>,
    /// At most [`limits::HEADERS_MAX`].
    pub headers: &'a [Header],
    /// The payload.
    pub value: &'a [u8],
}

impl RecordToSend<'_> {
    /// Key, headers and value together, in bytes: what the limit of a message counts.
    pub fn message_bytes(&self) -> usize {
        let header_bytes = |header: &Header| header.name.len() + header.value.len();
        let headers: usize = self.headers.iter().map(header_bytes).sum();
        self.key.map_or(0, <[u8]>::len) + headers + self.value.len()
    }

    /// Bytes it takes in a batch with that base timestamp, before compression.
    pub fn encoded_bytes(&self, base: Timestamp) -> usize {
        let body = self.body_bytes(self.delta(base).unwrap_or(i64::MAX));
        varint_bytes(body as u64) + body
    }

    /// Its distance from `base`, if that is a number of milliseconds.
    fn delta(&self, base: Timestamp) -> Option<i64> {
        self.timestamp.as_millis().checked_sub(base.as_millis())
    }

    /// What its length field counts.
    fn body_bytes(&self, delta: i64) -> usize {
        let counted = |bytes: usize| varint_bytes(bytes as u64) + bytes;
        let key = match self.key {
            Some(key) => varint_bytes(key.len() as u64 + 1) + key.len(),
            None => 1,
        };
        let header_bytes =
            |header: &Header| counted(header.name.len()) + counted(header.value.len());
        let headers: usize = self.headers.iter().map(header_bytes).sum();
        1 + varint_bytes(zigzag(delta))
            + key
            + varint_bytes(self.headers.len() as u64)
            + headers
            + self.value.len()
    }

    /// What no batch may hold, whatever else is in it. `index` is the record's place, for the error.
    pub fn check(&self, index: u32) -> Result<(), BatchError> {
        let problem = |problem| Err(BatchError::Record { index, problem });
        if self
            .key
            .is_some_and(|key| key.len() > limits::KEY_BYTES_MAX)
        {
            return problem("its key is above 64 KiB");
        }
        if self.headers.len() > limits::HEADERS_MAX {
            return problem("it has more than 256 headers");
        }
        let bytes = self.message_bytes() as u64;
        let max = limits::MESSAGE_BYTES_MAX as u64;
        if bytes > max {
            return Err(BatchError::MessageTooLarge { bytes, max });
        }
        Ok(())
    }
}

/// Why a record was not taken; the batch is as it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PushError {
    /// It does not fit beside the others: build the batch, then push it again.
    #[error("the batch is full")]
    Full,
    /// It fits in no batch.
    #[error(transparent)]
    Refused(#[from] BatchError),
}

/// Collects records and makes batches of them, one after the other.
pub struct BatchBuilder {
    compression: Compression,
    /// Room for the header, then the records pushed so far; empty without records.
    buffer: Buffer,
    count: u32,
    base: Timestamp,
    newest: Timestamp,
    packer: Packer,
}

impl BatchBuilder {
    /// An empty one. Batches that compression would not make smaller go without it.
    pub fn new(compression: Compression) -> Self {
        Self {
            compression,
            buffer: Buffer::default(),
            count: 0,
            base: Timestamp::default(),
            newest: Timestamp::default(),
            packer: Packer::default(),
        }
    }

    /// Builds in there from now on. To be called where there is no record.
    pub(crate) fn build_in(&mut self, buffer: Buffer) {
        self.buffer = buffer;
    }

    /// What it builds in, for another one. Batches that were built may still hold it.
    pub(crate) fn take_buffer(&mut self) -> Buffer {
        std::mem::take(&mut self.buffer)
    }

    /// Number of records pushed since the last batch was built.
    pub const fn count(&self) -> u32 {
        self.count
    }

    /// Whether there is nothing to build.
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Length of the batch as it stands, header included, before compression.
    pub fn len_bytes(&self) -> usize {
        self.buffer.bytes.len().max(HEADER_BYTES)
    }

    /// Whether the batch with this record would have at most `bytes_max`, before
    /// compression. Any record fits into an empty one: it has to go somewhere.
    pub fn fits(&self, record: &RecordToSend<'_>, bytes_max: usize) -> bool {
        self.measure(record, bytes_max).is_some()
    }

    /// The record's distance from the base timestamp and its length, if it fits.
    fn measure(&self, record: &RecordToSend<'_>, bytes_max: usize) -> Option<(i64, usize)> {
        if self.is_empty() {
            return Some((0, record.body_bytes(0)));
        }
        let delta = record.delta(self.base)?;
        let body = record.body_bytes(delta);
        let bytes = self.len_bytes() + varint_bytes(body as u64) + body;
        (self.count < limits::BATCH_RECORDS_MAX && bytes <= bytes_max).then_some((delta, body))
    }

    /// Adds a record, copying its bytes, or leaves the batch as it is.
    pub fn try_push(&mut self, record: &RecordToSend<'_>) -> Result<(), PushError> {
        record.check(self.count)?;
        match self.push_within(record, limits::BATCH_BYTES_MAX) {
            true => Ok(()),
            false => Err(PushError::Full),
        }
    }

    /// Adds a record that was [checked](RecordToSend::check) if it [fits](Self::fits), and tells whether it did.
    pub fn push_within(&mut self, record: &RecordToSend<'_>, bytes_max: usize) -> bool {
        let Some(measured) = self.measure(record, bytes_max) else {
            return false;
        };
        if self.is_empty() {
            self.base = record.timestamp;
            self.newest = record.timestamp;
            self.buffer.bytes.put_bytes(0, HEADER_BYTES);
        }
        self.newest = self.newest.max(record.timestamp);
        self.count += 1;
        self.put(record, measured);
        true
    }

    fn put(&mut self, record: &RecordToSend<'_>, (delta, body): (i64, usize)) {
        let out = &mut self.buffer.bytes;
        out.reserve(varint_bytes(body as u64) + body);
        put_varint(out, body as u64);
        let start = out.len();
        out.put_u8(0);
        put_varint(out, zigzag(delta));
        match record.key {
            Some(key) => {
                put_varint(out, key.len() as u64 + 1);
                out.put_slice(key);
            }
            None => out.put_u8(0),
        }
        put_varint(out, record.headers.len() as u64);
        for header in record.headers {
            put_counted(out, header.name.as_bytes());
            put_counted(out, &header.value);
        }
        out.put_slice(record.value);
        debug_assert_eq!(out.len() - start, body, "a record has its length");
    }

    /// Makes the batch of a producer without a name and starts the next one.
    pub fn build(&mut self, producer: ProducerId, first: Sequence) -> Result<Bytes, BatchError> {
        self.build_as(&Origin {
            producer,
            first,
            ..Origin::default()
        })
    }

    /// Makes the batch and starts the next one. Fails without records, or where
    /// the sequences would overflow; then the records stay.
    pub fn build_as(&mut self, origin: &Origin) -> Result<Bytes, BatchError> {
        let first_sequence = origin.first;
        let (count, max) = (self.count, limits::BATCH_RECORDS_MAX);
        if count == 0 {
            return Err(BatchError::Count { found: 0, max });
        }
        if first_sequence.checked_add(count.into()).is_none() {
            let first = first_sequence.get();
            return Err(BatchError::SequenceOverflow { first, count });
        }
        let records = &self.buffer.bytes[HEADER_BYTES..];
        let packed = self.packer.pack(self.compression, records)?;
        let front = if origin.ttl.is_some() { TTL_BYTES } else { 0 };
        let header = BatchHeader {
            crc: 0,
            compression: packed.map_or(Compression::None, |_| self.compression),
            length: length(packed.unwrap_or(records)) + front as u32,
            record_count: count,
            unpacked_length: length(records),
            base_timestamp: self.base,
            max_timestamp: self.newest,
            producer: origin.producer,
            producer_epoch: origin.epoch,
            first_sequence,
            has_id: origin.has_id,
            has_ttl: origin.ttl.is_some(),
            thinned: None,
        };
        let mut batch = match (packed, origin.ttl) {
            (None, None) => self.buffer.split(),
            // The copy has the size of what is sent, and the large buffers stay here.
            (packed, ttl) => {
                let packed = packed.unwrap_or(records);
                let mut batch = BytesMut::with_capacity(HEADER_BYTES + front + packed.len());
                batch.put_bytes(0, HEADER_BYTES);
                if let Some(ttl) = ttl {
                    batch.put_u64_le(u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX));
                }
                batch.extend_from_slice(packed);
                batch
            }
        };
        header.seal(&mut batch);
        self.clear();
        Ok(batch.freeze())
    }

    /// Forgets the records pushed so far.
    pub fn clear(&mut self) {
        self.count = 0;
        if self.buffer.bytes.capacity() > BUFFER_BYTES_KEPT {
            self.buffer = Buffer::default();
        } else {
            self.buffer.bytes.clear();
        }
    }
}

/// The same records under another producer, who has no name, and sequence. Copies the batch only where its memory is
/// shared.
pub fn renumber(
    batch: Bytes,
    producer: ProducerId,
    first_sequence: Sequence,
) -> Result<Bytes, BatchError> {
    let header = BatchHeader {
        producer,
        producer_epoch: ProducerEpoch::ZERO,
        first_sequence,
        ..BatchHeader::parse(&batch)?
    };
    let count = header.record_count;
    if first_sequence.checked_add(count.into()).is_none() {
        let first = first_sequence.get();
        return Err(BatchError::SequenceOverflow { first, count });
    }
    let mut batch = batch
        .try_into_mut()
        .unwrap_or_else(|shared| BytesMut::from(&shared[..]));
    header.seal(&mut batch);
    Ok(batch.freeze())
}

fn length(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).expect("pushing bounds a batch far below 4 GiB")
}
