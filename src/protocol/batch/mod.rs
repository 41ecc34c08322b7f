//! Record batches: what a publisher sends, the journal stores and a reader gets,
//! the same bytes all the way.
//!
//! ```text
//!  0  crc u32              CRC-32C of everything after these 4 bytes
//!  4  magic u16            0x4254
//!  6  format version u8    1
//!  7  attributes u8        bits 0-2 compression (0 none, 1 lz4, 2 zstd), bit 4 its record has an id,
//!                          bit 5 it has a time to live, bit 6 it is thinned, the rest 0
//!  8  length u32           bytes after this 64-byte header
//! 12  record count u32
//! 16  unpacked length u32  bytes of the records before compression
//! 20  producer epoch u32   0: the producer has no name
//! 24  base timestamp i64   milliseconds; what the records' deltas count from
//! 32  max timestamp i64    the newest record's
//! 40  producer id 16       zero: not idempotent
//! 56  first sequence u64   of the first record; the others follow densely
//! 64  time to live u64     milliseconds from when it was stored; only with bit 5
//!     holes                only in a [thinned](mod@thin) batch, which has other fields at 40 to 64
//!     records              one compressed block, or as they are
//! ```
//!
//! little endian. A record, in varints (LEB128, minimal, at most 10 bytes):
//!
//! ```text
//! length varint            bytes after this varint
//! attributes u8            0
//! timestamp delta          zigzag varint
//! key                      varint 0 = none, else its length + 1, then the key
//! header count varint      then per header: length, name (UTF-8), length, value
//! value                    the rest of the record
//! ```
//!
//! # Model
//!
//! Plain bytes become a [`CheckedBatch`] in one of two ways. [`CheckedBatch::check`]
//! believes nothing: it verifies the checksum and walks every record. A peer does
//! this once, before a batch is admitted. [`CheckedBatch::check_crc`] is for bytes
//! that were admitted before and come back from a disk or a peer; it verifies the
//! header and the checksum and leaves the records to the reader, which reports
//! what it cannot read instead of panicking.
//!
//! # Invariants
//!
//! 1. Every byte of a checked batch is covered by its checksum, or is the checksum.
//! 2. A batch has exactly one reading: varints are minimal, reserved bits are zero,
//!    nothing is left over after the last record, and one compressed block or frame
//!    holds them all.
//! 3. Nothing in hostile input decides what is reserved: the unpacked length is
//!    bounded, and refused where the packed bytes could not possibly fill it,
//!    before any memory is taken for it.
//! 4. Checking an uncompressed batch allocates nothing; a compressed one, its
//!    unpacked records. Never anything per record.
//!
//! Missing on purpose: offsets and leader epochs. The host gives them, they stand
//! beside the batch (in the journal's entry, in a fetch answer), and so the bytes
//! and their checksum stay those of the publisher.

mod build;
mod compress;
mod header;
mod part;
mod read;
mod record;
mod thin;

use std::time::Duration;

use bytes::Bytes;
use thiserror::Error;

use crate::limits;
use crate::protocol::error::ApiError;
use crate::time::Timestamp;
use crate::types::IdDigest;

pub use build::{BatchBuilder, Origin, PushError, RecordToSend, renumber};
pub use compress::Compression;
pub use header::{
    BATCH_MAGIC, BATCH_VERSION, BatchHeader, HEADER_BYTES, TTL_BYTES, Thinned, is_plain,
    time_to_live,
};
pub use part::OpenedBatch;
pub use read::{Record, Records};
pub use record::{Header, Headers, RecordRef};
pub use thin::{Piece, Removed, Thin, expand, hollow, thin};

/// Why bytes are not a record batch. Whatever was to be done with them was not done.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BatchError {
    /// Shorter than a header.
    #[error("{bytes} bytes are no batch: its header alone has {HEADER_BYTES}")]
    TooShort {
        /// How many there are.
        bytes: usize,
    },
    /// Something else than a batch.
    #[error("magic {found:#06x} instead of {BATCH_MAGIC:#06x}")]
    Magic {
        /// What stands there.
        found: u16,
    },
    /// A format that this version does not know.
    #[error("format version {found}: this node knows {BATCH_VERSION}")]
    Version {
        /// What stands there.
        found: u8,
    },
    /// An unknown compression, or a reserved bit that is set.
    #[error("unknown attributes {found:#04x}")]
    Attributes {
        /// What stands there.
        found: u8,
    },
    /// A record that should have an id.
    #[error("the id of a message: {problem}")]
    Id {
        /// What is wrong.
        problem: &'static str,
    },
    /// A time to live that nothing can have.
    #[error("a time to live of {found} ms: expected 1 ms to ten years")]
    Ttl {
        /// What stands there.
        found: u64,
    },
    /// What is told of records that are gone is wrong, or told by a publisher.
    #[error("the holes of a thinned batch: {problem}")]
    Holes {
        /// What is wrong.
        problem: &'static str,
    },
    /// An epoch of nobody.
    #[error("the header tells producer epoch {found} and no producer")]
    Epoch {
        /// What stands there.
        found: u32,
    },
    /// The lengths in the header disagree with the bytes.
    #[error("the header tells {told} bytes of {what}, found {found}")]
    Length {
        /// Of what.
        what: &'static str,
        /// By the header.
        told: u64,
        /// In truth.
        found: u64,
    },
    /// Larger than a batch may be.
    #[error("batch of {bytes} bytes, unpacked: at most {max} are allowed")]
    TooLarge {
        /// Its size.
        bytes: u64,
        /// The limit.
        max: u64,
    },
    /// No records, or too many, or more than the bytes could hold.
    #[error("record count {found}: expected 1 to {max}")]
    Count {
        /// What the header tells.
        found: u32,
        /// The limit, by rule or by the bytes there are.
        max: u32,
    },
    /// The sequences of the records would overflow.
    #[error("first sequence {first} leaves no room for {count} records")]
    SequenceOverflow {
        /// Of the first record.
        first: u64,
        /// How many there are.
        count: u32,
    },
    /// Bytes changed on their way or at rest.
    #[error("checksum {told:#010x} in the header, {found:#010x} over the bytes")]
    Crc {
        /// In the header.
        told: u32,
        /// Over the bytes.
        found: u32,
    },
    /// The records do not unpack.
    #[error("the records do not unpack: {reason}")]
    Unpack {
        /// What is wrong.
        reason: String,
    },
    /// The records do not pack; the builder keeps them.
    #[error("the records could not be compressed: {reason}")]
    Pack {
        /// What is wrong.
        reason: String,
    },
    /// A record that is not what it says.
    #[error("record {index}: {problem}")]
    Record {
        /// Which one, from 0.
        index: u32,
        /// What is wrong.
        problem: &'static str,
    },
    /// A record above the limit of a message.
    #[error("message of {bytes} bytes: at most {max} are allowed")]
    MessageTooLarge {
        /// Key, headers and value together.
        bytes: u64,
        /// The limit.
        max: u64,
    },
    /// Bytes after the last record.
    #[error("{bytes} bytes are left over after the last record")]
    LeftOver {
        /// How many.
        bytes: u64,
    },
    /// The maximum timestamp is not that of the newest record.
    #[error("the header tells a newest timestamp of {told} ms, the records have {found} ms")]
    MaxTimestamp {
        /// In the header.
        told: i64,
        /// Of the newest record.
        found: i64,
    },
}

impl From<BatchError> for ApiError {
    fn from(error: BatchError) -> Self {
        match error {
            BatchError::MessageTooLarge { bytes, max } => Self::MessageTooLarge { bytes, max },
            other => Self::BadBatch {
                reason: other.to_string(),
            },
        }
    }
}

/// A whole batch whose checksum holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckedBatch {
    bytes: Bytes,
    header: BatchHeader,
    /// Of its one record; looked for only where the header says that there is one.
    id: Option<IdDigest>,
}

impl CheckedBatch {
    /// Checks everything that a publisher may send, records included. `message_bytes_max` bounds key,
    /// headers and value of each record together.
    pub fn check(bytes: Bytes, message_bytes_max: usize) -> Result<Self, BatchError> {
        Self::check_stored(bytes, message_bytes_max)?.unthinned()
    }

    /// Checks header and checksum of what a host sends to its readers, which is never thinned.
    pub fn check_sent(bytes: Bytes) -> Result<Self, BatchError> {
        Self::check_crc(bytes)?.unthinned()
    }

    fn unthinned(self) -> Result<Self, BatchError> {
        match self.header.thinned {
            None => Ok(self),
            Some(_) => Err(BatchError::Holes {
                problem: "only the host of a topic makes such a batch, and keeps it",
            }),
        }
    }

    /// The same for what a host may have stored: it may be thinned.
    pub fn check_stored(bytes: Bytes, message_bytes_max: usize) -> Result<Self, BatchError> {
        let batch = Self::check_crc(bytes)?;
        thin::holes(&batch)?;
        let walk = |records: &[u8]| batch.header.walk(records, message_bytes_max);
        let packed = batch.packed();
        let id = match batch.header.compression {
            Compression::None => walk(packed)?,
            how => walk(&compress::unpack(
                how,
                packed,
                batch.header.unpacked_length,
            )?)?,
        };
        Ok(Self { id, ..batch })
    }

    /// Checks header and checksum: enough for bytes that a peer checked whole
    /// before it admitted them. A record that is wrong nevertheless is an error
    /// of [`records`](Self::records) or of its iteration.
    pub fn check_crc(bytes: Bytes) -> Result<Self, BatchError> {
        let header = BatchHeader::parse(&bytes)?;
        let found = crc_fast::crc32_iscsi(&bytes[4..]);
        if header.crc != found {
            let told = header.crc;
            return Err(BatchError::Crc { told, found });
        }
        let id = None;
        let batch = Self { bytes, header, id };
        match batch.ttl() {
            Some(ttl) if !(limits::TTL_MIN..=limits::TTL_MAX).contains(&ttl) => {
                let found = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
                Err(BatchError::Ttl { found })
            }
            _ => Ok(batch),
        }
    }

    /// How long its records live, from when they were stored; `None`: for as long as the topic keeps them.
    pub fn ttl(&self) -> Option<Duration> {
        time_to_live(&self.bytes)
    }

    /// What the header says.
    pub const fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// What stands for the id of its one record, if it has one and was [checked](Self::check) whole.
    pub const fn id(&self) -> Option<IdDigest> {
        self.id
    }

    /// Header and records, as they are sent and stored.
    pub const fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The bytes, for whoever goes on without the header.
    pub fn into_bytes(self) -> Bytes {
        self.bytes
    }

    /// Unpacks the records, which share the batch's memory unless it is compressed.
    pub fn records(&self) -> Result<Records, BatchError> {
        let unpacked = match self.header.compression {
            Compression::None => self.bytes.slice(self.records_at()..),
            how => compress::unpack(how, self.packed(), self.header.unpacked_length)?.into(),
        };
        Ok(Records::new(unpacked, &self.header))
    }

    fn packed(&self) -> &[u8] {
        &self.bytes[self.records_at()..]
    }

    /// Where the records begin: the header was checked to leave that much.
    const fn records_at(&self) -> usize {
        HEADER_BYTES + self.header.front_bytes()
    }
}

impl BatchHeader {
    /// Walks all records against what the header tells of them; finds the id of one that has one.
    fn walk(
        &self,
        records: &[u8],
        message_bytes_max: usize,
    ) -> Result<Option<IdDigest>, BatchError> {
        let mut rest = records;
        let mut newest = i64::MIN;
        for index in 0..self.record_count {
            let record = RecordRef::parse(&mut rest, self.base_timestamp)
                .map_err(|problem| BatchError::Record { index, problem })?;
            if record.message_bytes() > message_bytes_max {
                return Err(BatchError::MessageTooLarge {
                    bytes: record.message_bytes() as u64,
                    max: message_bytes_max as u64,
                });
            }
            newest = newest.max(record.timestamp.as_millis());
        }
        if !rest.is_empty() {
            let bytes = rest.len() as u64;
            return Err(BatchError::LeftOver { bytes });
        }
        if self.record_count > 0 && self.max_timestamp != Timestamp::from_millis(newest) {
            let told = self.max_timestamp.as_millis();
            let found = newest;
            return Err(BatchError::MaxTimestamp { told, found });
        }
        match self.has_id {
            true => self.id_in(records).map(Some),
            false => Ok(None),
        }
    }

    /// The id of the one record.
    fn id_in(&self, mut records: &[u8]) -> Result<IdDigest, BatchError> {
        let record = RecordRef::parse(&mut records, self.base_timestamp);
        let record = record.map_err(|problem| BatchError::Record { index: 0, problem })?;
        let mut ids = record
            .headers()
            .filter(|(name, _)| *name == limits::MESSAGE_ID_HEADER);
        let id = ids.next().map(|(_, id)| id);
        let problem = match id {
            None => "the batch says that its record has one, and there is no header tidings-id",
            Some(_) if ids.next().is_some() => "there are several headers tidings-id",
            Some(id) if !(1..=limits::MESSAGE_ID_BYTES_MAX).contains(&id.len()) => {
                "it has 1 to 255 bytes"
            }
            Some(id) => return Ok(IdDigest::of(id)),
        };
        Err(BatchError::Id { problem })
    }
}

#[cfg(test)]
mod tests;
