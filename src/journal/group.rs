//! Groups: what one write and one sync made durable (section 3 of `docs/storage-format.md`). Pure.
//!
//! Here is the header with its claims; [`super::compose`] puts groups together, [`super::scan`]
//! walks them.

use thiserror::Error;

use super::checksum::Seed;
use super::entry::ENTRY_HEADER_BYTES;
use super::fields::{array, get_i64, get_u32, get_u64, is_zero, put, to_usize};
use super::place::Place;
use crate::time::Timestamp;
use crate::types::{Offset, StateNumber, TopicId};

/// Length of a group header without claims, in bytes.
pub const GROUP_HEADER_BYTES: usize = 72;
/// Length of a claim, in bytes.
pub const CLAIM_BYTES: usize = 32;

pub(super) const MAGIC: &[u8; 4] = b"TGRP";
pub(super) const FLAG_CLEAN_STOP: u32 = 1;

/// A topic is durable up to here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// The topic; zero for the peer itself.
    pub topic: TopicId,
    /// Its durable end offset.
    pub durable_end: Offset,
    /// Its last durable state number.
    pub state: StateNumber,
}

impl Claim {
    /// The end it names for a topic that was deleted.
    pub const DELETED_END: Offset = Offset::new(u64::MAX);

    pub(super) fn encode(&self) -> [u8; CLAIM_BYTES] {
        let mut bytes = [0; CLAIM_BYTES];
        put(&mut bytes, 0, &self.topic.to_bytes());
        put(&mut bytes, 16, &self.durable_end.get().to_le_bytes());
        put(&mut bytes, 24, &self.state.get().to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Self {
        Self {
            topic: TopicId::from_bytes(array(bytes, 0)),
            durable_end: Offset::new(get_u64(bytes, 16)),
            state: StateNumber::new(get_u64(bytes, 24)),
        }
    }
}

/// The header of a group, without its claims.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupHeader {
    /// Length without padding, in bytes.
    pub length: u32,
    /// Length of header and claims, in bytes.
    pub header_length: u32,
    /// Dense over the whole stream, from 1.
    pub number: u64,
    /// Where the group before it ended, padding included; [`Place::NONE`] for the first of all.
    pub previous_end: Place,
    /// Number of entries.
    pub entries: u32,
    /// Every group up to this number was on the disk when this one was composed.
    pub synced: u64,
    /// The host's wall clock when it was composed.
    pub wall: Timestamp,
    /// The process stopped cleanly after this group.
    pub clean_stop: bool,
    /// Checksum of all entry headers, one after the other.
    pub entry_headers_crc: u32,
}

/// Why bytes are not a group header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum GroupFault {
    /// There are fewer bytes than the header has or says it has.
    #[error("the bytes end inside the group header")]
    Short,
    /// Nothing there that looks like a group.
    #[error("no group header found")]
    Magic,
    /// Not a group of this place and this life of the slot, or changed.
    #[error("the group header's checksum does not match")]
    Checksum,
    /// The checksum is right and a value makes no sense.
    #[error("the group header's {what} makes no sense")]
    Value {
        /// The field.
        what: &'static str,
    },
}

impl GroupHeader {
    /// The length of header and claims that the first bytes of a group tell, not yet to be believed.
    ///
    /// # Errors
    /// If they are not the first bytes of a group.
    pub fn peek_header_length(bytes: &[u8]) -> Result<u32, GroupFault> {
        let bytes = bytes.get(..GROUP_HEADER_BYTES).ok_or(GroupFault::Short)?;
        if &bytes[..4] != MAGIC {
            return Err(GroupFault::Magic);
        }
        let claimed = u64::from(get_u32(bytes, 60)) * CLAIM_BYTES as u64;
        if u64::from(get_u32(bytes, 12)) != GROUP_HEADER_BYTES as u64 + claimed {
            // A broken length: whatever the checksum would cover, it would not match.
            return Err(GroupFault::Checksum);
        }
        Ok(get_u32(bytes, 12))
    }

    /// Reads and checks the header and the claims at the start of `bytes`, which lie at `position` of the segment.
    ///
    /// # Errors
    /// Says why there is no group.
    pub fn decode(
        bytes: &[u8],
        seed: &Seed,
        position: u32,
    ) -> Result<(Self, Vec<Claim>), GroupFault> {
        let header_length = Self::peek_header_length(bytes)?;
        let bytes = bytes
            .get(..to_usize(header_length))
            .ok_or(GroupFault::Short)?;
        if seed.crc(position, &bytes[8..]) != get_u32(bytes, 4) {
            return Err(GroupFault::Checksum);
        }
        let flags = get_u32(bytes, 56);
        let header = Self {
            length: get_u32(bytes, 8),
            header_length,
            number: get_u64(bytes, 16),
            previous_end: Place::new(get_u64(bytes, 24), get_u32(bytes, 32)),
            entries: get_u32(bytes, 36),
            synced: get_u64(bytes, 40),
            wall: Timestamp::from_millis(get_i64(bytes, 48)),
            clean_stop: flags & FLAG_CLEAN_STOP != 0,
            entry_headers_crc: get_u32(bytes, 64),
        };
        if flags & !FLAG_CLEAN_STOP != 0 {
            return Err(GroupFault::Value { what: "flags" });
        }
        if !is_zero(&bytes[68..72]) {
            return Err(GroupFault::Value { what: "zero field" });
        }
        header.check()?;
        let claims = bytes[GROUP_HEADER_BYTES..].chunks_exact(CLAIM_BYTES);
        Ok((header, claims.map(Claim::decode).collect()))
    }

    /// What holds for every header, written or read.
    pub(super) fn check(&self) -> Result<(), GroupFault> {
        let bad = |what| Err(GroupFault::Value { what });
        let entry_headers = u64::from(self.entries) * ENTRY_HEADER_BYTES as u64;
        if u64::from(self.length) < u64::from(self.header_length) + entry_headers {
            return bad("length");
        }
        if self.number == 0 {
            return bad("number");
        }
        if self.synced >= self.number {
            return bad("synced number");
        }
        if self.previous_end.is_none() != (self.number == 1) {
            return bad("end of the group before");
        }
        Ok(())
    }
}
