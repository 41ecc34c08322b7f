//! The header of a slot: what its present life is (section 2 of `docs/storage-format.md`).

use thiserror::Error;

use super::checksum::{Salt, Seed, crc32c};
use super::fields::{array, get_u32, get_u64, is_zero, put};
use super::place::Place;
use crate::limits::{
    SECTOR_BYTES_MAX, SECTOR_BYTES_MIN, SLOT_BYTES_MAX, SLOT_BYTES_MIN, SLOT_HEADERS_BYTES,
};
use crate::types::PeerId;

/// Length of one copy of the header, in bytes.
pub const SLOT_HEADER_BYTES: usize = 512;
/// Positions of the two copies: in different sectors, whatever the sector is.
pub const SLOT_HEADER_POSITIONS: [u32; 2] = [0, 4096];
/// Where a segment's contents begin.
pub const FIRST_POSITION: u32 = SLOT_HEADERS_BYTES;
/// Version of the format of slots and of everything in them.
pub const FORMAT_VERSION: u32 = 1;

const MAGIC: &[u8; 8] = b"TIDSLOT1";
const CRC_AT: usize = 508;

/// What a segment is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Groups in stream order, as the writer made them.
    Stream,
    /// Groups found unclaimed, copied by a recovery; counts only if a stream segment names it.
    Recovery,
    /// Live entries of mostly dead segments, without groups; counts only if a state entry put its row.
    Cold,
}

impl Kind {
    const fn to_byte(self) -> u8 {
        match self {
            Self::Stream => 1,
            Self::Recovery => 2,
            Self::Cold => 3,
        }
    }

    const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Stream),
            2 => Some(Self::Recovery),
            3 => Some(Self::Cold),
            _ => None,
        }
    }
}

/// Says that a recovery happened and where the stream goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resume {
    /// Where the void begins: nothing of the stream from here to the recovery's segments is ever looked at.
    pub void_from: Place,
    /// First and last recovery segment that replace the void; `None` if nothing was copied.
    pub recovery: Option<(u64, u64)>,
    /// The number of the first group of this segment; all groups before it are durable.
    pub first_group: u64,
}

/// The begin of a state snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapshotAt {
    /// Where its begin entry lies.
    pub place: Place,
    /// The number of the group it begins in.
    pub group: u64,
}

/// The header of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotHeader {
    /// The sector groups are aligned to, in bytes.
    pub sector: u32,
    /// Size of the slot, in bytes.
    pub slot_bytes: u32,
    /// The number in the file's name.
    pub slot: u32,
    /// What the segment is for.
    pub kind: Kind,
    /// The segment's number: rises with every use of any slot, never given twice.
    pub segment: u64,
    /// Mixed into every checksum of this life of the slot.
    pub salt: Salt,
    /// The peer the slot belongs to.
    pub peer: PeerId,
    /// Set where this stream segment resumes the stream after a recovery.
    pub resume: Option<Resume>,
    /// The latest usable state snapshot when the segment began.
    pub snapshot: Option<SnapshotAt>,
}

/// Why a copy of a slot header does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum HeaderFault {
    /// Nothing but zeros: the slot was made but never prepared.
    #[error("the header is blank")]
    Blank,
    /// The file ends before the header does.
    #[error("the file ends inside the header")]
    Short,
    /// The first bytes are something else.
    #[error("no slot header found")]
    Magic,
    /// The header's bytes changed.
    #[error("the header's checksum does not match")]
    Checksum,
    /// Written by a newer version of the program.
    #[error(
        "the slot has format {found}, this program knows up to {FORMAT_VERSION}: use a newer one"
    )]
    Version {
        /// The version found.
        found: u32,
    },
    /// The file was copied or renamed: its name says one slot, its header another.
    #[error("the header is that of slot {found}, expected slot {expected}: was the file renamed?")]
    OtherSlot {
        /// The slot the file's name says.
        expected: u32,
        /// The slot the header says.
        found: u32,
    },
    /// The checksum is right and a value makes no sense.
    #[error("the header's {what} makes no sense")]
    Value {
        /// The field.
        what: &'static str,
    },
    /// The device could not read it.
    #[error("the device could not read the header")]
    Device,
}

impl SlotHeader {
    /// Salt and number for the checksums of this segment.
    pub fn seed(&self) -> Seed {
        Seed {
            salt: self.salt,
            segment: self.segment,
        }
    }

    /// The bytes of one copy.
    pub fn encode(&self) -> [u8; SLOT_HEADER_BYTES] {
        if let Err(fault) = self.check() {
            panic!("a slot header that could not be read back: {fault}");
        }
        let mut bytes = [0; SLOT_HEADER_BYTES];
        put(&mut bytes, 0, MAGIC);
        put(&mut bytes, 8, &FORMAT_VERSION.to_le_bytes());
        put(&mut bytes, 12, &self.sector.to_le_bytes());
        put(&mut bytes, 16, &u64::from(self.slot_bytes).to_le_bytes());
        put(&mut bytes, 24, &self.slot.to_le_bytes());
        bytes[28] = self.kind.to_byte();
        put(&mut bytes, 32, &self.segment.to_le_bytes());
        put(&mut bytes, 40, &self.salt.to_bytes());
        put(&mut bytes, 56, &self.peer.to_bytes());
        if let Some(resume) = &self.resume {
            encode_resume(&mut bytes, resume);
        }
        if let Some(snapshot) = &self.snapshot {
            put(&mut bytes, 120, &snapshot.place.segment.to_le_bytes());
            put(&mut bytes, 128, &snapshot.place.position.to_le_bytes());
            put(&mut bytes, 136, &snapshot.group.to_le_bytes());
        }
        let crc = crc32c(&bytes[..CRC_AT]);
        put(&mut bytes, CRC_AT, &crc.to_le_bytes());
        bytes
    }

    /// Reads one copy from the file of slot `slot`.
    ///
    /// # Errors
    /// Says why the copy does not count.
    pub fn decode(bytes: &[u8], slot: u32) -> Result<Self, HeaderFault> {
        let bytes = bytes.get(..SLOT_HEADER_BYTES).ok_or(HeaderFault::Short)?;
        if is_zero(bytes) {
            return Err(HeaderFault::Blank);
        }
        if &bytes[..8] != MAGIC {
            return Err(HeaderFault::Magic);
        }
        if crc32c(&bytes[..CRC_AT]) != get_u32(bytes, CRC_AT) {
            return Err(HeaderFault::Checksum);
        }
        let version = get_u32(bytes, 8);
        if version != FORMAT_VERSION {
            return Err(HeaderFault::Version { found: version });
        }
        let zeros = [29..32, 73..80, 92..96, 132..136, 144..CRC_AT];
        if !zeros.into_iter().all(|range| is_zero(&bytes[range])) {
            return Err(HeaderFault::Value { what: "zero field" });
        }
        let header = Self::decode_fields(bytes)?;
        header.check()?;
        if header.slot != slot {
            return Err(HeaderFault::OtherSlot {
                expected: slot,
                found: header.slot,
            });
        }
        Ok(header)
    }

    fn decode_fields(bytes: &[u8]) -> Result<Self, HeaderFault> {
        let bad = |what| HeaderFault::Value { what };
        Ok(Self {
            sector: get_u32(bytes, 12),
            slot_bytes: u32::try_from(get_u64(bytes, 16)).map_err(|_| bad("slot size"))?,
            slot: get_u32(bytes, 24),
            kind: Kind::from_byte(bytes[28]).ok_or(bad("kind"))?,
            segment: get_u64(bytes, 32),
            salt: Salt::from_bytes(array(bytes, 40)),
            peer: PeerId::from_bytes(array(bytes, 56)),
            resume: decode_resume(bytes)?,
            snapshot: decode_snapshot(bytes)?,
        })
    }

    /// What holds for every header, written or read.
    fn check(&self) -> Result<(), HeaderFault> {
        let bad = |what| Err(HeaderFault::Value { what });
        let sectors = SECTOR_BYTES_MIN..=SECTOR_BYTES_MAX;
        if !self.sector.is_power_of_two() || !sectors.contains(&self.sector) {
            return bad("sector");
        }
        let sizes = SLOT_BYTES_MIN..=SLOT_BYTES_MAX;
        if !sizes.contains(&u64::from(self.slot_bytes))
            || !self.slot_bytes.is_multiple_of(SECTOR_BYTES_MAX)
        {
            return bad("slot size");
        }
        if self.slot == 0 {
            return bad("slot id");
        }
        if self.segment == 0 {
            return bad("segment number");
        }
        self.check_resume()
    }

    fn check_resume(&self) -> Result<(), HeaderFault> {
        let Some(resume) = self.resume else {
            return Ok(());
        };
        let recovery_is_fine = resume.recovery.is_none_or(|(first, last)| {
            resume.void_from.segment < first && first <= last && last < self.segment
        });
        let fine = self.kind == Kind::Stream
            && resume.void_from.segment < self.segment
            && resume.first_group > 0
            && recovery_is_fine;
        if fine {
            Ok(())
        } else {
            Err(HeaderFault::Value { what: "resume" })
        }
    }
}

fn encode_resume(bytes: &mut [u8], resume: &Resume) {
    let (first, last) = resume.recovery.unwrap_or((0, 0));
    bytes[72] = 1;
    put(bytes, 80, &resume.void_from.segment.to_le_bytes());
    put(bytes, 88, &resume.void_from.position.to_le_bytes());
    put(bytes, 96, &first.to_le_bytes());
    put(bytes, 104, &last.to_le_bytes());
    put(bytes, 112, &resume.first_group.to_le_bytes());
}

fn decode_resume(bytes: &[u8]) -> Result<Option<Resume>, HeaderFault> {
    let bad = Err(HeaderFault::Value { what: "resume" });
    match bytes[72] {
        0 if is_zero(&bytes[80..120]) => return Ok(None),
        1 => {}
        _ => return bad,
    }
    let recovery = match (get_u64(bytes, 96), get_u64(bytes, 104)) {
        (0, 0) => None,
        (0, _) | (_, 0) => return bad,
        pair => Some(pair),
    };
    Ok(Some(Resume {
        void_from: Place::new(get_u64(bytes, 80), get_u32(bytes, 88)),
        recovery,
        first_group: get_u64(bytes, 112),
    }))
}

fn decode_snapshot(bytes: &[u8]) -> Result<Option<SnapshotAt>, HeaderFault> {
    if is_zero(&bytes[120..144]) {
        return Ok(None);
    }
    let at = SnapshotAt {
        place: Place::new(get_u64(bytes, 120), get_u32(bytes, 128)),
        group: get_u64(bytes, 136),
    };
    if at.place.segment == 0 || at.group == 0 {
        return Err(HeaderFault::Value { what: "snapshot" });
    }
    Ok(Some(at))
}

/// What the two copies of a slot's header say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeaderCopies {
    /// Copies A and B.
    pub copies: [Result<SlotHeader, HeaderFault>; 2],
}

impl HeaderCopies {
    /// The header that counts: the valid one, of two valid ones that with the higher segment number,
    /// of two with the same number the stream's: a recovery was just declaring its segment part of it.
    pub fn header(&self) -> Option<&SlotHeader> {
        let valid = self.copies.iter().filter_map(|copy| copy.as_ref().ok());
        valid.max_by_key(|header| (header.segment, header.kind == Kind::Stream))
    }

    /// Whether the slot was made but never prepared: nothing of it was ever used.
    pub fn is_blank(&self) -> bool {
        let blank =
            |copy: &Result<_, _>| matches!(copy, Err(HeaderFault::Blank | HeaderFault::Short));
        self.copies.iter().all(blank)
    }

    /// Whether both copies are valid and the same.
    pub fn agree(&self) -> bool {
        self.copies[0].is_ok() && self.copies[0] == self.copies[1]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> SlotHeader {
        SlotHeader {
            sector: 512,
            slot_bytes: 64 << 20,
            slot: 12,
            kind: Kind::Stream,
            segment: 40,
            salt: Salt::from_bytes(*b"0123456789abcdef"),
            peer: PeerId::from_bytes([6; 16]),
            resume: Some(Resume {
                void_from: Place::new(30, 9216),
                recovery: Some((38, 39)),
                first_group: 1001,
            }),
            snapshot: Some(SnapshotAt {
                place: Place::new(20, 8192),
                group: 700,
            }),
        }
    }

    #[test]
    fn round_trips() {
        let full = header();
        let plain = SlotHeader {
            kind: Kind::Cold,
            resume: None,
            snapshot: None,
            ..full
        };
        let nothing_copied = SlotHeader {
            resume: full.resume.map(|resume| Resume {
                recovery: None,
                ..resume
            }),
            ..full
        };
        for header in [full, plain, nothing_copied] {
            assert_eq!(SlotHeader::decode(&header.encode(), 12), Ok(header));
        }
    }

    #[test]
    fn lies_where_the_page_says() {
        let bytes = header().encode();
        assert_eq!(&bytes[..8], b"TIDSLOT1");
        assert_eq!(bytes[28], 1);
        assert_eq!(get_u64(&bytes, 32), 40);
        assert_eq!(&bytes[40..56], b"0123456789abcdef");
        assert_eq!((bytes[72], get_u64(&bytes, 80)), (1, 30));
        assert_eq!((get_u64(&bytes, 104), get_u64(&bytes, 112)), (39, 1001));
        assert_eq!((get_u64(&bytes, 120), get_u64(&bytes, 136)), (20, 700));
        assert_eq!(get_u32(&bytes, 508), crc32c(&bytes[..508]));
    }

    #[test]
    fn every_changed_bit_is_noticed() {
        let good = header().encode();
        for bit in 0..good.len() * 8 {
            let mut bytes = good;
            bytes[bit / 8] ^= 1 << (bit % 8);
            let expected = if bit < 64 {
                HeaderFault::Magic
            } else {
                HeaderFault::Checksum
            };
            assert_eq!(SlotHeader::decode(&bytes, 12), Err(expected), "bit {bit}");
        }
    }

    #[test]
    fn tells_why_a_copy_does_not_count() {
        let good = header().encode();
        assert_eq!(
            SlotHeader::decode(&good[..511], 12),
            Err(HeaderFault::Short)
        );
        assert_eq!(SlotHeader::decode(&[0; 512], 12), Err(HeaderFault::Blank));
        let renamed = HeaderFault::OtherSlot {
            expected: 13,
            found: 12,
        };
        assert_eq!(SlotHeader::decode(&good, 13), Err(renamed));
        let mut newer = good;
        newer[8] = 2;
        let crc = crc32c(&newer[..CRC_AT]);
        put(&mut newer, CRC_AT, &crc.to_le_bytes());
        assert_eq!(
            SlotHeader::decode(&newer, 12),
            Err(HeaderFault::Version { found: 2 })
        );
    }

    #[test]
    fn values_that_make_no_sense_are_refused_although_the_checksum_is_right() {
        let cases: [(usize, u8); 8] = [
            (12, 1),  // sector
            (16, 1),  // slot size
            (24, 0),  // slot
            (28, 4),  // kind
            (30, 1),  // zero field
            (32, 30), // segment not above those it names
            (72, 2),  // resume
            (96, 41), // first recovery segment above the last
        ];
        for (at, value) in cases {
            let mut bytes = header().encode();
            bytes[at] = value;
            let crc = crc32c(&bytes[..CRC_AT]);
            put(&mut bytes, CRC_AT, &crc.to_le_bytes());
            let verdict = SlotHeader::decode(&bytes, 12);
            assert!(verdict.is_err(), "byte {at}: {verdict:?}");
        }
    }

    #[test]
    fn of_two_valid_copies_the_younger_life_counts() {
        let older = header();
        let younger = SlotHeader {
            segment: 41,
            ..older
        };
        let pick = |a, b| HeaderCopies { copies: [a, b] }.header().copied();
        assert_eq!(pick(Ok(older), Ok(younger)), Some(younger));
        assert_eq!(pick(Ok(younger), Ok(older)), Some(younger));
        let not_yet_declared = SlotHeader {
            kind: Kind::Recovery,
            resume: None,
            ..older
        };
        assert_eq!(pick(Ok(not_yet_declared), Ok(older)), Some(older));
        assert_eq!(pick(Ok(older), Ok(not_yet_declared)), Some(older));
        assert_eq!(pick(Err(HeaderFault::Checksum), Ok(older)), Some(older));
        assert_eq!(pick(Ok(older), Err(HeaderFault::Device)), Some(older));
        assert_eq!(pick(Err(HeaderFault::Blank), Err(HeaderFault::Blank)), None);
    }
}
