//! Putting groups together (section 3 of `docs/storage-format.md`). Pure.
//!
//! [`GroupBuilder`] fills a buffer that goes to the disk as it is; payloads are copied once. The
//! finished [`Group`] shares that memory with readers at the tail.

use super::buffer::{AlignedBuffer, SharedBuffer};
use super::checksum::{Crc, Seed};
use super::entry::{ENTRY_HEADER_BYTES, EntryHeader, EntryKind};
use super::fields::{put, to_u32, to_usize};
use super::group::{CLAIM_BYTES, Claim, FLAG_CLEAN_STOP, GROUP_HEADER_BYTES, GroupHeader, MAGIC};
use super::place::{Place, round_up};
use crate::time::Timestamp;
use crate::types::{LeaderEpoch, TopicId};

/// What a group begins with.
#[derive(Debug, Clone, Copy)]
pub struct GroupStart<'a> {
    /// Salt and number of the segment.
    pub seed: Seed,
    /// The segment's sector, in bytes.
    pub sector: u32,
    /// Where the group will lie, at a sector boundary.
    pub position: u32,
    /// Its number.
    pub number: u64,
    /// Where the group before it ended.
    pub previous_end: Place,
    /// Every group up to this number is on the disk.
    pub synced: u64,
    /// The host's wall clock.
    pub wall: Timestamp,
    /// Whether the process stops cleanly after this group.
    pub clean_stop: bool,
    /// What the groups synced since the group before made durable.
    pub claims: &'a [Claim],
}

/// An entry to be written.
#[derive(Debug, Clone, Copy)]
pub struct EntryToWrite<'a> {
    /// What it is.
    pub kind: EntryKind,
    /// The topic; zero for facts about the peer.
    pub topic: TopicId,
    /// Base offset or state number.
    pub number: u64,
    /// The topic's leader epoch.
    pub epoch: LeaderEpoch,
    /// Number of records; 0 unless the kind is records.
    pub records: u32,
    /// Append time by the host's clock.
    pub append_time: Timestamp,
    /// The payload, in pieces that are copied one after the other.
    pub payload: &'a [&'a [u8]],
    /// Its checksum, as [`super::entry::payload_crc`] computes it.
    pub payload_crc: u32,
}

impl EntryToWrite<'_> {
    /// Length of the payload, in bytes.
    pub fn payload_bytes(&self) -> usize {
        self.payload.iter().map(|piece| piece.len()).sum()
    }

    /// The header it gets.
    pub fn header(&self) -> EntryHeader {
        EntryHeader {
            kind: self.kind,
            payload_bytes: to_u32(self.payload_bytes()),
            payload_crc: self.payload_crc,
            topic: self.topic,
            number: self.number,
            epoch: self.epoch,
            records: self.records,
            append_time: self.append_time,
        }
    }

    /// Writes header and payload to the start of `target`; the entry will lie at `position`.
    /// Gives back the header's bytes and the length of the whole.
    pub(super) fn copy_to(
        &self,
        target: &mut [u8],
        seed: &Seed,
        position: u32,
    ) -> ([u8; ENTRY_HEADER_BYTES], usize) {
        let header = self.header().encode(seed, position);
        put(target, 0, &header);
        let mut at = ENTRY_HEADER_BYTES;
        for piece in self.payload {
            put(target, at, piece);
            at += piece.len();
        }
        (header, at)
    }
}

/// Puts a group together.
#[derive(Debug)]
pub struct GroupBuilder {
    buffer: AlignedBuffer,
    header: GroupHeader,
    seed: Seed,
    sector: u32,
    position: u32,
    length: usize,
    entry_headers_crc: Crc,
}

impl GroupBuilder {
    /// Bytes a group without entries takes, padding excluded.
    pub const fn empty_bytes(claims: usize) -> usize {
        GROUP_HEADER_BYTES + claims * CLAIM_BYTES
    }

    /// Begins a group at the start of `buffer`, which holds at least the header and the claims.
    pub fn begin(mut buffer: AlignedBuffer, start: &GroupStart<'_>) -> Self {
        assert_eq!(start.position % start.sector, 0, "groups begin at sectors");
        let length = Self::empty_bytes(start.claims.len());
        assert!(length <= buffer.capacity(), "header and claims fit");
        for (i, claim) in start.claims.iter().enumerate() {
            put(buffer.as_mut_slice(), Self::empty_bytes(i), &claim.encode());
        }
        let header = GroupHeader {
            length: 0,
            header_length: to_u32(length),
            number: start.number,
            previous_end: start.previous_end,
            entries: 0,
            synced: start.synced,
            wall: start.wall,
            clean_stop: start.clean_stop,
            entry_headers_crc: 0,
        };
        Self {
            buffer,
            header,
            seed: start.seed,
            sector: start.sector,
            position: start.position,
            length,
            entry_headers_crc: Crc::new(),
        }
    }

    /// Length so far, in bytes, padding excluded.
    pub fn length(&self) -> usize {
        self.length
    }

    /// Length with one more entry of so large a payload, in bytes, padding excluded.
    pub fn length_after(&self, payload_bytes: usize) -> usize {
        self.length + ENTRY_HEADER_BYTES + payload_bytes
    }

    /// Whether the buffer holds one more entry of so large a payload, padding included.
    pub fn has_room_for(&self, payload_bytes: usize) -> bool {
        let length = self.length_after(payload_bytes);
        length.next_multiple_of(to_usize(self.sector)) <= self.buffer.capacity()
    }

    /// Number of entries so far.
    pub fn entries(&self) -> u32 {
        self.header.entries
    }

    /// Appends an entry, copying its payload, and tells the position of its header in the slot.
    ///
    /// The caller has asked [`Self::has_room_for`]; without room it panics.
    pub fn push(&mut self, entry: &EntryToWrite<'_>) -> u32 {
        assert!(
            self.has_room_for(entry.payload_bytes()),
            "room was asked for"
        );
        let position = self.position + to_u32(self.length);
        let target = &mut self.buffer.as_mut_slice()[self.length..];
        let (header, length) = entry.copy_to(target, &self.seed, position);
        self.entry_headers_crc.update(&header);
        self.length += length;
        self.header.entries += 1;
        position
    }

    /// Ends the group: pads it with zeros and writes its header.
    pub fn finish(mut self) -> Group {
        let length = to_u32(self.length);
        let padded = to_usize(round_up(length, self.sector));
        self.header.length = length;
        self.header.entry_headers_crc = self.entry_headers_crc.value();
        if let Err(fault) = self.header.check() {
            panic!("a group that could not be read back: {fault}");
        }
        // The buffer may hold an earlier group.
        self.buffer.as_mut_slice()[self.length..padded].fill(0);
        let header_length = to_usize(self.header.header_length);
        let header = &mut self.buffer.as_mut_slice()[..header_length];
        encode_header(header, &self.header);
        let crc = self.seed.crc(self.position, &header[8..]);
        put(header, 4, &crc.to_le_bytes());
        Group {
            place: Place::new(self.seed.segment, self.position),
            header: self.header,
            padded,
            buffer: self.buffer.freeze(),
        }
    }
}

/// Writes all fields of the header but its checksum; the claims are there.
fn encode_header(bytes: &mut [u8], header: &GroupHeader) {
    let claims = (bytes.len() - GROUP_HEADER_BYTES) / CLAIM_BYTES;
    let flags = if header.clean_stop {
        FLAG_CLEAN_STOP
    } else {
        0
    };
    put(bytes, 0, MAGIC);
    put(bytes, 8, &header.length.to_le_bytes());
    put(bytes, 12, &header.header_length.to_le_bytes());
    put(bytes, 16, &header.number.to_le_bytes());
    put(bytes, 24, &header.previous_end.segment.to_le_bytes());
    put(bytes, 32, &header.previous_end.position.to_le_bytes());
    put(bytes, 36, &header.entries.to_le_bytes());
    put(bytes, 40, &header.synced.to_le_bytes());
    put(bytes, 48, &header.wall.as_millis().to_le_bytes());
    put(bytes, 56, &flags.to_le_bytes());
    put(bytes, 60, &to_u32(claims).to_le_bytes());
    put(bytes, 64, &header.entry_headers_crc.to_le_bytes());
    put(bytes, 68, &[0; 4]);
}

/// A finished group: bytes for the disk, and memory that readers at the tail share.
#[derive(Debug, Clone)]
pub struct Group {
    place: Place,
    header: GroupHeader,
    padded: usize,
    buffer: SharedBuffer,
}

impl Group {
    /// Where it lies.
    pub fn place(&self) -> Place {
        self.place
    }

    /// Where it ends, padding included: where the next group of the slot begins.
    pub fn end(&self) -> Place {
        Place::new(
            self.place.segment,
            self.place.position + to_u32(self.padded),
        )
    }

    /// Its header.
    pub fn header(&self) -> &GroupHeader {
        &self.header
    }

    /// Its number.
    pub fn number(&self) -> u64 {
        self.header.number
    }

    /// Number of its entries.
    pub fn entries(&self) -> u32 {
        self.header.entries
    }

    /// What goes to the disk at [`Self::place`]: whole sectors, aligned.
    pub fn disk_bytes(&self) -> &[u8] {
        &self.buffer.as_ref()[..self.padded]
    }

    /// The memory it lies in, to count it and to give it back to the pool.
    pub fn buffer(&self) -> &SharedBuffer {
        &self.buffer
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::journal::fields::is_zero;
    use crate::journal::group::GroupFault;
    use crate::journal::testing::{batch, claim, records, seed, state, topic};
    use crate::journal::walk::{EntryWalk, Walked};

    fn start(claims: &[Claim]) -> GroupStart<'_> {
        GroupStart {
            seed: seed(),
            sector: 512,
            position: 9216,
            number: 12,
            previous_end: Place::new(7, 9216),
            synced: 10,
            wall: Timestamp::from_millis(1_700_000_000_123),
            clean_stop: true,
            claims,
        }
    }

    fn dirty_buffer() -> AlignedBuffer {
        let mut buffer = AlignedBuffer::new(8192);
        buffer.as_mut_slice().fill(0xee);
        buffer
    }

    fn sample(claims: &[Claim]) -> Group {
        let mut builder = GroupBuilder::begin(dirty_buffer(), &start(claims));
        let payload = batch(b"first");
        let first = builder.push(&records(topic(1), 5, 2, &[&payload]));
        assert_eq!(first, 9216 + 72 + 32 * to_u32(claims.len()));
        let room = builder.length_after(3);
        let second = builder.push(&state(topic(2), 9, &[b"a", b"bc"]));
        assert_eq!(second, first + 56 + 9);
        assert_eq!(builder.length(), room);
        builder.finish()
    }

    #[test]
    fn round_trips_with_its_claims() {
        for claims in [vec![], vec![claim(1)], vec![claim(1), claim(0), claim(9)]] {
            let group = sample(&claims);
            let bytes = group.disk_bytes();
            let (header, read) = GroupHeader::decode(bytes, &seed(), 9216).expect("a group");
            assert_eq!((&header, &read), (group.header(), &claims));
            assert_eq!((header.number, header.synced, header.entries), (12, 10, 2));
            assert!(header.clean_stop);
            assert_eq!(bytes.len() % 512, 0);
            let padding = &bytes[to_usize(header.length)..];
            assert!(is_zero(padding), "an earlier group shines through");
            assert_eq!(group.end().position, 9216 + to_u32(bytes.len()));
        }
    }

    #[test]
    fn every_changed_bit_of_header_and_claims_is_noticed() {
        let group = sample(&[claim(1), claim(2)]);
        let header = group.disk_bytes()[..72 + 64].to_vec();
        for bit in 0..header.len() * 8 {
            let mut bytes = header.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let expected = if bit < 32 {
                GroupFault::Magic
            } else {
                GroupFault::Checksum
            };
            let verdict = GroupHeader::decode(&bytes, &seed(), 9216);
            assert_eq!(verdict, Err(expected), "bit {bit}");
        }
        for length in 0..header.len() {
            let verdict = GroupHeader::decode(&header[..length], &seed(), 9216);
            assert_eq!(verdict, Err(GroupFault::Short), "{length} bytes");
        }
    }

    #[test]
    fn belongs_to_one_place_of_one_life_of_one_slot() {
        let group = sample(&[]);
        let decode =
            |seed: &Seed, position| GroupHeader::decode(group.disk_bytes(), seed, position);
        let other_life = Seed {
            segment: 8,
            ..seed()
        };
        let other_slot = Seed {
            salt: crate::journal::checksum::Salt::from_bytes([1; 16]),
            ..seed()
        };
        assert!(decode(&seed(), 9216).is_ok());
        assert_eq!(decode(&seed(), 9728), Err(GroupFault::Checksum));
        assert_eq!(decode(&other_life, 9216), Err(GroupFault::Checksum));
        assert_eq!(decode(&other_slot, 9216), Err(GroupFault::Checksum));
    }

    #[test]
    fn a_claim_never_speaks_of_its_own_group() {
        let too_early = GroupStart {
            synced: 12,
            ..start(&[])
        };
        let builder = GroupBuilder::begin(AlignedBuffer::new(4096), &too_early);
        let refused = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| builder.finish()));
        assert!(refused.is_err());
    }

    #[test]
    fn knows_when_its_buffer_is_full() {
        let builder = GroupBuilder::begin(AlignedBuffer::new(4096), &start(&[]));
        assert!(builder.has_room_for(4096 - 72 - 56));
        assert!(!builder.has_room_for(4096 - 72 - 55));
    }

    proptest! {
        #[test]
        fn any_group_reads_back(
            sizes in prop::collection::vec((0_usize..2000, any::<bool>(), 0_u8..4), 0..12),
            claims in 0_u8..6,
            sector in prop::sample::select(vec![512_u32, 1024, 4096]),
        ) {
            let claims: Vec<_> = (0..claims).map(claim).collect();
            let start = GroupStart { sector, position: 12_288, ..start(&claims) };
            let mut builder = GroupBuilder::begin(AlignedBuffer::new(64 * 1024), &start);
            let payloads: Vec<_> = sizes.iter().map(|(size, ..)| batch(&vec![1; *size])).collect();
            let mut expected = Vec::new();
            for (i, ((_, is_state, of), payload)) in sizes.iter().zip(&payloads).enumerate() {
                let pieces = [&payload[..3], &payload[3..]];
                let entry = if *is_state {
                    state(topic(*of), i as u64 + 1, &pieces)
                } else {
                    records(topic(of + 1), i as u64, 1, &pieces)
                };
                let position = builder.push(&entry);
                expected.push(Walked::Entry { position, header: entry.header() });
            }
            let group = builder.finish();
            let (header, read) = GroupHeader::decode(group.disk_bytes(), &seed(), 12_288)
                .expect("a group");
            prop_assert_eq!(read, claims);
            let first = to_usize(header.header_length);
            let bytes = &group.disk_bytes()[first..to_usize(header.length)];
            let walk = EntryWalk::new(bytes, 12_288 + header.header_length, Some(seed()));
            prop_assert_eq!(walk.collect::<Vec<_>>(), expected);
        }

        #[test]
        fn garbage_is_never_a_group(mut bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            prop_assert!(GroupHeader::decode(&bytes, &seed(), 8192).is_err());
            if bytes.len() >= 4 {
                bytes[..4].copy_from_slice(MAGIC);
            }
            prop_assert!(GroupHeader::decode(&bytes, &seed(), 8192).is_err());
        }
    }
}
