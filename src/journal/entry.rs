//! Entries: their headers, and what the payloads that are not messages say (section 4 of `docs/storage-format.md`).

use thiserror::Error;

use super::checksum::{Crc, Seed};
use super::fields::{array, get_i64, get_u32, get_u64, is_zero, put};
use crate::limits::ENTRY_BYTES_MAX;
use crate::time::Timestamp;
use crate::types::{LeaderEpoch, TopicId};

/// Length of an entry header, in bytes.
pub const ENTRY_HEADER_BYTES: usize = 56;

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EntryKind {
    /// A record batch.
    Records,
    /// Operations on rows of the state.
    State,
    /// A state snapshot begins.
    SnapshotBegin,
    /// A state snapshot ends.
    SnapshotEnd,
}

impl EntryKind {
    const fn to_byte(self) -> u8 {
        match self {
            Self::Records => 1,
            Self::State => 2,
            Self::SnapshotBegin => 3,
            Self::SnapshotEnd => 4,
        }
    }

    const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Records),
            2 => Some(Self::State),
            3 => Some(Self::SnapshotBegin),
            4 => Some(Self::SnapshotEnd),
            _ => None,
        }
    }
}

/// The header of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EntryHeader {
    /// What the entry is.
    pub kind: EntryKind,
    /// Length of the payload, in bytes.
    pub payload_bytes: u32,
    /// Checksum of the payload; for records that of the batch, which the batch repeats in its first four bytes.
    pub payload_crc: u32,
    /// The topic; zero for facts about the peer.
    pub topic: TopicId,
    /// Base offset (records) or state number (state entries); 0 for the marks of a snapshot.
    pub number: u64,
    /// The topic's leader epoch when it was appended.
    pub epoch: LeaderEpoch,
    /// Number of records; 0 unless the kind is records.
    pub records: u32,
    /// When it was appended, by the host's clock.
    pub append_time: Timestamp,
}

/// Why bytes are not an entry header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum EntryFault {
    /// There are fewer bytes than an entry header has.
    #[error("the bytes end inside an entry header")]
    Short,
    /// Not an entry header, not of this place, or changed.
    #[error("the entry header's checksum does not match")]
    Checksum,
    /// The checksum is right and a value makes no sense.
    #[error("the entry header's {what} makes no sense")]
    Value {
        /// The field.
        what: &'static str,
    },
}

impl EntryHeader {
    /// Length of header and payload, in bytes.
    pub fn entry_bytes(&self) -> u32 {
        // Within limits: `check` bounds the payload.
        self.payload_bytes + ENTRY_HEADER_BYTES as u32
    }

    /// First number after this entry: the end offset of records, the next state number otherwise.
    pub fn end_number(&self) -> u64 {
        self.number + u64::from(self.records.max(1))
    }

    /// The bytes of the header at `position` of the segment.
    pub fn encode(&self, seed: &Seed, position: u32) -> [u8; ENTRY_HEADER_BYTES] {
        if let Err(fault) = self.check() {
            panic!("an entry header that could not be read back: {fault}");
        }
        let mut bytes = [0; ENTRY_HEADER_BYTES];
        bytes[4] = self.kind.to_byte();
        put(&mut bytes, 8, &self.payload_bytes.to_le_bytes());
        put(&mut bytes, 12, &self.payload_crc.to_le_bytes());
        put(&mut bytes, 16, &self.topic.to_bytes());
        put(&mut bytes, 32, &self.number.to_le_bytes());
        put(&mut bytes, 40, &self.epoch.get().to_le_bytes());
        put(&mut bytes, 44, &self.records.to_le_bytes());
        put(&mut bytes, 48, &self.append_time.as_millis().to_le_bytes());
        let crc = seed.crc(position, &bytes[4..]);
        put(&mut bytes, 0, &crc.to_le_bytes());
        bytes
    }

    /// Reads and checks the header at the start of `bytes`, which lie at `position` of the segment.
    ///
    /// # Errors
    /// Says why it is none.
    pub fn decode(bytes: &[u8], seed: &Seed, position: u32) -> Result<Self, EntryFault> {
        let bytes = bytes.get(..ENTRY_HEADER_BYTES).ok_or(EntryFault::Short)?;
        if seed.crc(position, &bytes[4..]) != get_u32(bytes, 0) {
            return Err(EntryFault::Checksum);
        }
        Self::decode_trusted(bytes)
    }

    /// Reads a header from memory that this process wrote: values are checked, the checksum is not.
    ///
    /// # Errors
    /// Says why it is none.
    pub fn decode_trusted(bytes: &[u8]) -> Result<Self, EntryFault> {
        let bytes = bytes.get(..ENTRY_HEADER_BYTES).ok_or(EntryFault::Short)?;
        if !is_zero(&bytes[5..8]) {
            return Err(EntryFault::Value { what: "zero field" });
        }
        let header = Self {
            kind: EntryKind::from_byte(bytes[4]).ok_or(EntryFault::Value { what: "kind" })?,
            payload_bytes: get_u32(bytes, 8),
            payload_crc: get_u32(bytes, 12),
            topic: TopicId::from_bytes(array(bytes, 16)),
            number: get_u64(bytes, 32),
            epoch: LeaderEpoch::new(get_u32(bytes, 40)),
            records: get_u32(bytes, 44),
            append_time: Timestamp::from_millis(get_i64(bytes, 48)),
        };
        header.check()?;
        Ok(header)
    }

    /// What holds for every header, written or read.
    fn check(&self) -> Result<(), EntryFault> {
        let bad = |what| Err(EntryFault::Value { what });
        if self.payload_bytes as usize > ENTRY_BYTES_MAX {
            return bad("length");
        }
        if (self.kind == EntryKind::Records) != (self.records > 0) {
            return bad("number of records");
        }
        if self.kind == EntryKind::Records && self.topic.is_zero() {
            return bad("topic");
        }
        // Marks are no facts: they take no number, so they can be lost without a fact missing.
        let is_mark = matches!(self.kind, EntryKind::SnapshotBegin | EntryKind::SnapshotEnd);
        if self.kind != EntryKind::Records && (self.number == 0) != is_mark {
            return bad("state number");
        }
        if self
            .number
            .checked_add(u64::from(self.records.max(1)))
            .is_none()
        {
            return bad("offset");
        }
        Ok(())
    }

    /// Whether `payload` is what the header says: length and checksum.
    pub fn payload_matches(&self, payload: &[u8]) -> bool {
        payload.len() == self.payload_bytes as usize
            && payload_crc(self.kind, &[payload]) == Some(self.payload_crc)
    }
}

/// The checksum of a payload that lies in pieces, as its entry header holds it.
///
/// A record batch brings its own, over all but its first four bytes, which repeat it:
/// `None` if they do not, or if there are not as many.
pub fn payload_crc(kind: EntryKind, pieces: &[&[u8]]) -> Option<u32> {
    let mut crc = Crc::new();
    let mut own = [0; 4];
    let own_bytes = if kind == EntryKind::Records {
        own.len()
    } else {
        0
    };
    let mut seen = 0;
    for piece in pieces {
        let (head, rest) = piece.split_at(piece.len().min(own_bytes - seen));
        put(&mut own, seen, head);
        seen += head.len();
        crc.update(rest);
    }
    let value = crc.value();
    let fits = seen == own_bytes && (own_bytes == 0 || own == value.to_le_bytes());
    fits.then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::testing::{batch, records, seed, topic};

    fn header() -> EntryHeader {
        let payload = batch(b"some records");
        records(topic(4), 1000, 17, &[&payload]).header()
    }

    #[test]
    fn round_trips_and_knows_its_place() {
        let bytes = header().encode(&seed(), 8264);
        assert_eq!(EntryHeader::decode(&bytes, &seed(), 8264), Ok(header()));
        let elsewhere = EntryHeader::decode(&bytes, &seed(), 8265);
        assert_eq!(elsewhere, Err(EntryFault::Checksum));
        let later = Seed {
            segment: 8,
            ..seed()
        };
        let later = EntryHeader::decode(&bytes, &later, 8264);
        assert_eq!(later, Err(EntryFault::Checksum));
        assert_eq!(header().end_number(), 1017);
        assert_eq!(header().entry_bytes(), 56 + 16);
    }

    #[test]
    fn every_changed_bit_is_noticed() {
        let good = header().encode(&seed(), 8192);
        for bit in 0..good.len() * 8 {
            let mut bytes = good;
            bytes[bit / 8] ^= 1 << (bit % 8);
            let verdict = EntryHeader::decode(&bytes, &seed(), 8192);
            assert_eq!(verdict, Err(EntryFault::Checksum), "bit {bit}");
        }
        for length in 0..good.len() {
            let verdict = EntryHeader::decode(&good[..length], &seed(), 8192);
            assert_eq!(verdict, Err(EntryFault::Short));
        }
    }

    #[test]
    fn every_changed_bit_of_a_payload_is_noticed() {
        let good = batch(b"some records");
        for bit in 0..good.len() * 8 {
            let mut payload = good.clone();
            payload[bit / 8] ^= 1 << (bit % 8);
            assert!(!header().payload_matches(&payload), "bit {bit}");
        }
        assert!(header().payload_matches(&good));
        assert!(!header().payload_matches(&good[..15]));
    }

    #[test]
    fn pieces_have_the_checksum_of_the_whole() {
        let payload = batch(b"some records");
        let whole = payload_crc(EntryKind::Records, &[&payload]);
        assert_eq!(whole, Some(header().payload_crc));
        for cut in 0..payload.len() {
            let (a, b) = payload.split_at(cut);
            assert_eq!(payload_crc(EntryKind::Records, &[a, b]), whole);
            let state = payload_crc(EntryKind::State, &[a, b]);
            assert_eq!(state, payload_crc(EntryKind::State, &[&payload]));
        }
        assert_eq!(payload_crc(EntryKind::Records, &[b"abc"]), None);
        assert_eq!(payload_crc(EntryKind::Records, &[b"no batch"]), None);
    }

    #[test]
    #[should_panic(expected = "could not be read back: the entry header's number of records")]
    fn a_batch_without_records_is_never_written() {
        let none = EntryHeader {
            records: 0,
            ..header()
        };
        none.encode(&seed(), 8192);
    }
}
