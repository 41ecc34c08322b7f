//! The 64 bytes in front of the records.

use std::time::Duration;

use bytes::{Buf, BufMut};

use super::record::RECORD_BYTES_MIN;
use super::{BatchError, Compression};
use crate::limits;
use crate::time::Timestamp;
use crate::types::{ProducerEpoch, ProducerId, Sequence};

/// Length of the header, in bytes.
pub const HEADER_BYTES: usize = 64;
/// What every batch has after its checksum: `TB`, read as a number.
pub const BATCH_MAGIC: u16 = 0x4254;
/// The format written, and the only one known.
pub const BATCH_VERSION: u8 = 1;

/// What a batch says of itself. Consistent in itself and with the length of the
/// batch; only the checksum tells whether it is what was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchHeader {
    /// CRC-32C of everything after it.
    pub crc: u32,
    /// How the records are packed.
    pub compression: Compression,
    /// Bytes after the header.
    pub length: u32,
    /// Number of records: at least 1, at most [`limits::BATCH_RECORDS_MAX`].
    pub record_count: u32,
    /// Bytes of the records before compression.
    pub unpacked_length: u32,
    /// What the timestamps of the records count from, by the publisher's clock.
    pub base_timestamp: Timestamp,
    /// The newest record's timestamp.
    pub max_timestamp: Timestamp,
    /// Who published it; zero for a publisher that is not idempotent.
    pub producer: ProducerId,
    /// Which of the processes of a named producer; zero without a name.
    pub producer_epoch: ProducerEpoch,
    /// Sequence of the first record. Means nothing without a producer.
    pub first_sequence: Sequence,
    /// Its one record has an id, in a header of its own.
    pub has_id: bool,
    /// Its records live for a while only, which stands behind the header.
    pub has_ttl: bool,
    /// What it is told of the records that are gone out of its middle. Only the host makes such a batch.
    pub thinned: Option<Thinned>,
}

/// What the header of a thinned batch tells where others have their first sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Thinned {
    /// Number of offsets, with and without a record: at most [`limits::THINNED_SPAN_MAX`].
    pub span: u32,
    /// Bytes of the holes, in front of the records.
    pub hole_bytes: u32,
}

/// The bits of the attributes that say so.
const HAS_ID: u8 = 0x10;
const HAS_TTL: u8 = 0x20;
const THINNED: u8 = 0x40;

/// Bytes of a time to live, behind the header.
pub const TTL_BYTES: usize = 8;

/// Whether readers get a stored batch as it lies, at any time: it is not thinned, and has no time to live. One look
/// at its attributes.
pub fn is_plain(batch: &[u8]) -> bool {
    let attributes = batch.get(7).copied().unwrap_or_default();
    attributes & (HAS_TTL | THINNED) == 0
}

/// The time to live of a stored batch, if it has one.
pub fn time_to_live(batch: &[u8]) -> Option<Duration> {
    let attributes = batch.get(7).copied().unwrap_or_default();
    let front = batch
        .get(HEADER_BYTES..)
        .filter(|_| attributes & HAS_TTL != 0);
    let ttl = front?.first_chunk::<TTL_BYTES>()?;
    Some(Duration::from_millis(u64::from_le_bytes(*ttl)))
}

impl BatchHeader {
    /// Reads the header of a whole batch.
    pub fn parse(batch: &[u8]) -> Result<Self, BatchError> {
        let header = Self::parse_prefix(batch)?;
        let found = (batch.len() - HEADER_BYTES) as u64;
        let told = u64::from(header.length);
        if told == found {
            Ok(header)
        } else {
            let what = "records";
            Err(BatchError::Length { what, told, found })
        }
    }

    /// Reads the header at the start of `bytes`, whatever follows it.
    pub fn parse_prefix(bytes: &[u8]) -> Result<Self, BatchError> {
        let Some(mut fields) = bytes.get(..HEADER_BYTES) else {
            let bytes = bytes.len();
            return Err(BatchError::TooShort { bytes });
        };
        let crc = fields.get_u32_le();
        let (compression, attributes) = read_format(&mut fields)?;
        let length = fields.get_u32_le();
        let record_count = fields.get_u32_le();
        let unpacked_length = fields.get_u32_le();
        let producer_epoch = ProducerEpoch::new(fields.get_u32_le());
        let header = Self {
            crc,
            compression,
            length,
            record_count,
            unpacked_length,
            base_timestamp: Timestamp::from_millis(fields.get_i64_le()),
            max_timestamp: Timestamp::from_millis(fields.get_i64_le()),
            producer: ProducerId::from_bytes(fields.get_u128().to_be_bytes()),
            producer_epoch,
            first_sequence: Sequence::new(fields.get_u64_le()),
            has_id: attributes & HAS_ID != 0,
            has_ttl: attributes & HAS_TTL != 0,
            thinned: None,
        };
        let header = match attributes & THINNED {
            0 => header,
            _ => header.as_thinned(),
        };
        header.check()?;
        Ok(header)
    }

    /// Reads what others have as their first sequence.
    fn as_thinned(self) -> Self {
        let both = self.first_sequence.get();
        let (span, hole_bytes) = (both as u32, (both >> 32) as u32);
        Self {
            first_sequence: Sequence::ZERO,
            thinned: Some(Thinned { span, hole_bytes }),
            ..self
        }
    }

    /// Number of offsets that it takes: of its records, and of those that are gone.
    pub const fn span(&self) -> u32 {
        match self.thinned {
            None => self.record_count,
            Some(thinned) => thinned.span,
        }
    }

    /// Bytes between the header and the records.
    pub const fn front_bytes(&self) -> usize {
        let ttl = if self.has_ttl { TTL_BYTES } else { 0 };
        match self.thinned {
            None => ttl,
            Some(thinned) => ttl + thinned.hole_bytes as usize,
        }
    }

    /// Length of the whole batch, in bytes.
    pub const fn batch_bytes(&self) -> usize {
        HEADER_BYTES + self.length as usize
    }

    /// The sequence after the last record's.
    pub const fn next_sequence(&self) -> Sequence {
        self.first_sequence.saturating_add(self.record_count as u64)
    }

    /// What can be told without looking at the records (invariant 3).
    pub(super) fn check(&self) -> Result<(), BatchError> {
        for length in [self.length, self.unpacked_length] {
            let bytes = u64::from(length) + HEADER_BYTES as u64;
            let max = limits::BATCH_BYTES_UNPACKED_MAX as u64;
            if bytes > max {
                return Err(BatchError::TooLarge { bytes, max });
            }
        }
        let front = self.front_bytes() as u64;
        let records = u64::from(self.length).checked_sub(front);
        let records = records.ok_or(BatchError::Length {
            what: "what stands in front of the records",
            told: front,
            found: self.length.into(),
        })?;
        let told = u64::from(self.unpacked_length);
        if self.compression == Compression::None && records != told {
            return Err(BatchError::Length {
                what: "unpacked records",
                told,
                found: records,
            });
        }
        let room = self.unpacked_length / RECORD_BYTES_MIN;
        let max = room.min(limits::BATCH_RECORDS_MAX);
        let min = u32::from(self.thinned.is_none());
        if !(min..=max).contains(&self.record_count) {
            let found = self.record_count;
            return Err(BatchError::Count { found, max });
        }
        self.check_thinned()?;
        if self.producer_epoch != ProducerEpoch::ZERO && self.producer.is_zero() {
            let found = self.producer_epoch.get();
            return Err(BatchError::Epoch { found });
        }
        if self.has_id && (self.record_count != 1 || !self.producer.is_zero()) {
            let problem = "a record with an id is alone in its batch, which has no producer";
            return Err(BatchError::Id { problem });
        }
        let count = self.record_count;
        match self.first_sequence.checked_add(count.into()) {
            Some(_) => Ok(()),
            None => Err(BatchError::SequenceOverflow {
                first: self.first_sequence.get(),
                count,
            }),
        }
    }

    /// A thinned batch is nobody's, and spans more than it has.
    fn check_thinned(&self) -> Result<(), BatchError> {
        let Some(thinned) = self.thinned else {
            return Ok(());
        };
        let problem = if !self.producer.is_zero() || self.has_id {
            "it has a producer or an id"
        } else if thinned.span <= self.record_count || thinned.span > limits::THINNED_SPAN_MAX {
            "it has no holes, or too many"
        } else {
            return Ok(());
        };
        Err(BatchError::Holes { problem })
    }

    /// Writes the header into the first [`HEADER_BYTES`] of a batch and sets the
    /// checksum over what follows it; `crc` of `self` is not looked at.
    pub(super) fn seal(&self, batch: &mut [u8]) {
        let mut fields = &mut batch[4..HEADER_BYTES];
        fields.put_u16_le(BATCH_MAGIC);
        fields.put_u8(BATCH_VERSION);
        let bit = |set, bit| if set { bit } else { 0 };
        let attributes = bit(self.has_id, HAS_ID)
            | bit(self.has_ttl, HAS_TTL)
            | bit(self.thinned.is_some(), THINNED);
        fields.put_u8(self.compression.bits() | attributes);
        fields.put_u32_le(self.length);
        fields.put_u32_le(self.record_count);
        fields.put_u32_le(self.unpacked_length);
        fields.put_u32_le(self.producer_epoch.get());
        fields.put_i64_le(self.base_timestamp.as_millis());
        fields.put_i64_le(self.max_timestamp.as_millis());
        fields.put_slice(&self.producer.to_bytes());
        fields.put_u64_le(match self.thinned {
            None => self.first_sequence.get(),
            Some(thinned) => u64::from(thinned.hole_bytes) << 32 | u64::from(thinned.span),
        });
        let crc = crc_fast::crc32_iscsi(&batch[4..]);
        batch[..4].copy_from_slice(&crc.to_le_bytes());
    }
}

/// Reads magic, version and attributes.
fn read_format(fields: &mut &[u8]) -> Result<(Compression, u8), BatchError> {
    let magic = fields.get_u16_le();
    if magic != BATCH_MAGIC {
        return Err(BatchError::Magic { found: magic });
    }
    let version = fields.get_u8();
    if version != BATCH_VERSION {
        return Err(BatchError::Version { found: version });
    }
    let attributes = fields.get_u8();
    let compression = Compression::from_bits(attributes & !(HAS_ID | HAS_TTL | THINNED));
    let compression = compression.ok_or(BatchError::Attributes { found: attributes })?;
    Ok((compression, attributes))
}
