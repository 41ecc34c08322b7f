//! Keys, and the envelope around every value.
//!
//! ```text
//! key:    0            the meta row
//!         1 | row key  a row; the row key begins with the row's own kind
//!
//! value:  version u8 | crc u32 | payload
//! ```
//!
//! Little endian. `crc` is CRC-32C of: version, length of the key as u32, key,
//! payload. So a value that turns up under another key does not pass, nor does
//! one whose bytes changed below the database's own checksums, which recovery
//! uses to skip what it dislikes without a word.

use crc_fast::{CrcAlgorithm, Digest};

use super::error::CatalogError;
use crate::limits;

/// The envelope this program writes.
const ENVELOPE_VERSION: u8 = 1;
/// Bytes of the envelope before the payload.
pub(super) const ENVELOPE_BYTES: usize = 5;

/// A key of the database, as what it stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key<'a> {
    /// The one row about all the others.
    Meta,
    /// A row of the caller's, with the caller's key.
    Row(&'a [u8]),
}

impl<'a> Key<'a> {
    pub(super) fn encode(self) -> Vec<u8> {
        match self {
            Self::Meta => vec![0],
            Self::Row(key) => [&[1], key].concat(),
        }
    }

    pub(super) fn decode(bytes: &'a [u8]) -> Option<Self> {
        match bytes {
            [0] => Some(Self::Meta),
            [1, key @ ..] => Some(Self::Row(key)),
            _ => None,
        }
    }
}

/// Why a stored value is not what was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadValue {
    #[error("a value of {0} bytes is shorter than its envelope")]
    Short(usize),
    #[error("checksum {found:08x}, expected {expected:08x}")]
    Checksum { found: u32, expected: u32 },
    /// Intact, but written by a later version of this program.
    #[error("envelope version {0}, expected {ENVELOPE_VERSION}")]
    Newer(u8),
}

/// Puts the envelope around `payload`. Refuses what is over the limits.
pub(super) fn seal(key: &[u8], payload: &[u8]) -> Result<Vec<u8>, CatalogError> {
    check_size("key", key.len(), limits::SLED_KEY_BYTES_MAX + 1)?;
    check_size("value", payload.len(), limits::SLED_VALUE_BYTES_MAX)?;
    let mut value = Vec::with_capacity(ENVELOPE_BYTES + payload.len());
    value.push(ENVELOPE_VERSION);
    value.extend_from_slice(&checksum(ENVELOPE_VERSION, key, payload).to_le_bytes());
    value.extend_from_slice(payload);
    Ok(value)
}

/// The payload of a value found under `key`, if it is what was written there.
pub(super) fn unseal<'a>(key: &[u8], value: &'a [u8]) -> Result<&'a [u8], BadValue> {
    let Some((&[version, a, b, c, d], payload)) = value.split_first_chunk() else {
        return Err(BadValue::Short(value.len()));
    };
    let found = u32::from_le_bytes([a, b, c, d]);
    let expected = checksum(version, key, payload);
    if found != expected {
        return Err(BadValue::Checksum { found, expected });
    }
    if version != ENVELOPE_VERSION {
        return Err(BadValue::Newer(version));
    }
    Ok(payload)
}

fn check_size(what: &'static str, bytes: usize, limit: usize) -> Result<(), CatalogError> {
    if bytes > limit {
        return Err(CatalogError::TooLarge { what, bytes, limit });
    }
    Ok(())
}

fn checksum(version: u8, key: &[u8], payload: &[u8]) -> u32 {
    let mut digest = Digest::new(CrcAlgorithm::Crc32Iscsi);
    digest.update(&[version]);
    digest.update(&length(key));
    digest.update(key);
    digest.update(payload);
    // A 32-bit algorithm answers in the low half.
    digest.finalize() as u32
}

/// A 64-bit hash of one row, of which the meta row holds the sum over all rows.
///
/// The CRC alone would not do: it is linear, so two rows that exchange their
/// values leave a sum or xor of CRCs as it was. The mixing afterwards (the
/// finaliser of splitmix64) is not linear.
pub(super) fn row_hash(key: &[u8], payload: &[u8]) -> u64 {
    let mut digest = Digest::new(CrcAlgorithm::Crc64Nvme);
    digest.update(&length(key));
    digest.update(key);
    digest.update(payload);
    let mut hash = digest.finalize().wrapping_add(0x9e37_79b9_7f4a_7c15);
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

/// Tells key and payload apart: without it, moving a byte from one to the other would not show.
fn length(key: &[u8]) -> [u8; 4] {
    u32::try_from(key.len())
        .expect("keys are far below 4 GiB")
        .to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_passes_only_under_its_key() {
        let value = seal(b"\x01a", b"payload").expect("small");
        assert_eq!(unseal(b"\x01a", &value), Ok(&b"payload"[..]));
        assert!(matches!(
            unseal(b"\x01b", &value),
            Err(BadValue::Checksum { .. })
        ));
    }

    #[test]
    fn bytes_do_not_move_between_key_and_payload() {
        let value = seal(b"\x01ab", b"c").expect("small");
        let mut moved = value[..ENVELOPE_BYTES].to_vec();
        moved.extend_from_slice(b"bc");
        assert!(unseal(b"\x01a", &moved).is_err());
        assert_ne!(row_hash(b"ab", b"c"), row_hash(b"a", b"bc"));
    }

    #[test]
    fn every_changed_bit_is_seen() {
        let value = seal(b"\x01key", b"some payload").expect("small");
        for bit in 0..value.len() * 8 {
            let mut changed = value.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(unseal(b"\x01key", &changed).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn an_intact_value_of_a_later_envelope_is_told_from_damage() {
        let mut value = vec![2];
        value.extend_from_slice(&checksum(2, b"\x00", b"new").to_le_bytes());
        value.extend_from_slice(b"new");
        assert_eq!(unseal(b"\x00", &value), Err(BadValue::Newer(2)));
    }

    #[test]
    fn what_is_over_the_limits_is_refused() {
        let key = vec![1; limits::SLED_KEY_BYTES_MAX + 2];
        assert!(matches!(
            seal(&key, b""),
            Err(CatalogError::TooLarge { what: "key", .. })
        ));
        let value = vec![0; limits::SLED_VALUE_BYTES_MAX + 1];
        assert!(matches!(
            seal(b"\x01k", &value),
            Err(CatalogError::TooLarge { what: "value", .. })
        ));
        assert!(seal(&key[1..], &value[1..]).is_ok());
    }

    #[test]
    fn exchanged_values_change_the_sum_of_the_hashes() {
        let before = row_hash(b"a", b"1").wrapping_add(row_hash(b"b", b"2"));
        let after = row_hash(b"a", b"2").wrapping_add(row_hash(b"b", b"1"));
        assert_ne!(before, after);
    }

    #[test]
    fn keys_survive_the_way_there_and_back() {
        for key in [Key::Meta, Key::Row(b""), Key::Row(b"\x02topic")] {
            assert_eq!(Key::decode(&key.encode()), Some(key));
        }
        assert_eq!(Key::decode(b""), None);
        assert_eq!(Key::decode(b"\x00x"), None);
        assert_eq!(Key::decode(b"\x07x"), None);
    }
}
