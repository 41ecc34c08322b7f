//! CRC-32C, and the seed that ties a checksum to one place of one life of one slot.

use std::fmt;

use crc_fast::{CrcAlgorithm, Digest};

/// CRC-32C (Castagnoli) of `bytes`.
pub fn crc32c(bytes: &[u8]) -> u32 {
    narrow(crc_fast::checksum(CrcAlgorithm::Crc32Iscsi, bytes))
}

/// A CRC-32C that is taken piece by piece.
pub(super) struct Crc(Digest);

impl fmt::Debug for Crc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Crc({:08x})", self.value())
    }
}

impl Crc {
    pub(super) fn new() -> Self {
        Self(Digest::new(CrcAlgorithm::Crc32Iscsi))
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub(super) fn value(&self) -> u32 {
        narrow(self.0.finalize())
    }
}

/// A 32-bit CRC comes out of the library in 64 bits.
fn narrow(crc: u64) -> u32 {
    u32::try_from(crc).expect("a 32-bit crc fits into 32 bits")
}

/// What one life of a slot mixes into its checksums: 128 random bits nobody outside the peer learns.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Salt([u8; 16]);

impl Salt {
    /// Wraps 16 random bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The 16 bytes.
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0
    }

    /// A new salt from the operating system's randomness.
    ///
    /// # Errors
    /// Where the operating system gives none.
    pub fn random() -> std::io::Result<Self> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).map_err(std::io::Error::other)?;
        Ok(Self(bytes))
    }
}

impl fmt::Debug for Salt {
    /// Hides the value: whoever knows a salt can forge a group inside a message.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Salt(..)")
    }
}

/// Salt and segment number: together with a position they start every checksum of a segment (J4).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Seed {
    /// The salt of the segment.
    pub salt: Salt,
    /// The number of the segment.
    pub segment: u64,
}

/// Bytes of salt, segment number and position.
const PREFIX_BYTES: usize = 28;

impl Seed {
    /// The checksum of `bytes` at `position` of this segment.
    pub fn crc(&self, position: u32, bytes: &[u8]) -> u32 {
        let prefix = self.prefix(position);
        // Entry headers are many and short: one call over a copy on the stack beats a digest.
        let mut joined = [0; 128];
        let total = PREFIX_BYTES + bytes.len();
        if let Some(joined) = joined.get_mut(..total) {
            joined[..PREFIX_BYTES].copy_from_slice(&prefix);
            joined[PREFIX_BYTES..].copy_from_slice(bytes);
            return crc32c(joined);
        }
        let mut crc = Crc::new();
        crc.update(&prefix);
        crc.update(bytes);
        crc.value()
    }

    fn prefix(&self, position: u32) -> [u8; PREFIX_BYTES] {
        let mut prefix = [0; PREFIX_BYTES];
        prefix[..16].copy_from_slice(&self.salt.0);
        prefix[16..24].copy_from_slice(&self.segment.to_le_bytes());
        prefix[24..].copy_from_slice(&position.to_le_bytes());
        prefix
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_castagnoli() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn depends_on_salt_segment_and_position() {
        let seed = Seed {
            salt: Salt([7; 16]),
            segment: 3,
        };
        let other_salt = Seed {
            salt: Salt([8; 16]),
            ..seed
        };
        let other_segment = Seed { segment: 4, ..seed };
        for bytes in [&b"short"[..], &[5; 1000]] {
            let crc = seed.crc(8192, bytes);
            assert_ne!(crc, seed.crc(8704, bytes));
            assert_ne!(crc, other_salt.crc(8192, bytes));
            assert_ne!(crc, other_segment.crc(8192, bytes));
            let joined = [&seed.prefix(8192)[..], bytes].concat();
            assert_eq!(crc, crc32c(&joined), "both ways of computing agree");
        }
    }
}
