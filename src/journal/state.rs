//! Payloads of state entries: operations on rows, and the end of a state snapshot. Pure.
//!
//! ```text
//! state         version u8 = 1 | count u32 | operation*
//! put           1 u8 | key length u16 | key | value length u32 | value
//! delete        2 u8 | key length u16 | key
//! snapshot end  segment u64 | position u32 | group u64 | rows u64
//! ```
//!
//! Operations carry absolute values, so applying an entry twice changes nothing (J10). All
//! operations of an entry count or none: decoding gives all of them or an error.

use thiserror::Error;

use super::fields::{get_u32, get_u64, to_u32, to_usize};
use super::header::SnapshotAt;
use super::place::Place;
use crate::limits::{
    ENTRY_BYTES_MAX, STATE_KEY_BYTES_MAX, STATE_OPERATIONS_MAX, STATE_VALUE_BYTES_MAX,
};

const VERSION: u8 = 1;
const PUT: u8 = 1;
const DELETE: u8 = 2;
/// Version and count.
const PREFIX_BYTES: usize = 5;
/// Length of the payload of a snapshot's end, in bytes.
const SNAPSHOT_END_BYTES: usize = 28;

/// One operation on a row of the state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StateOp {
    /// The row has this value now.
    Put {
        /// The row's key.
        key: Vec<u8>,
        /// Its value.
        value: Vec<u8>,
    },
    /// The row is gone.
    Delete {
        /// The row's key.
        key: Vec<u8>,
    },
}

/// Why operations cannot be encoded, or a payload is not one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum StateFault {
    /// The payload is cut short, or longer than what it says.
    #[error("the state payload has another length than it says")]
    Length,
    /// Another version of the payload.
    #[error("the state payload has version {found}, expected {VERSION}: use a newer program")]
    Version {
        /// The version found.
        found: u8,
    },
    /// An unknown operation.
    #[error("unknown state operation {found}")]
    Operation {
        /// Its number.
        found: u8,
    },
    /// More than a bound allows.
    #[error("{what} of {found} is above the bound of {bound}")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// Its size or number.
        found: usize,
        /// The bound.
        bound: usize,
    },
}

fn bounded(what: &'static str, found: usize, bound: usize) -> Result<(), StateFault> {
    if found <= bound {
        Ok(())
    } else {
        Err(StateFault::TooLarge { what, found, bound })
    }
}

impl StateOp {
    /// The row's key.
    pub fn key(&self) -> &[u8] {
        match self {
            Self::Put { key, .. } | Self::Delete { key } => key,
        }
    }

    /// Length of the operation in a payload, in bytes.
    pub fn encoded_bytes(&self) -> usize {
        match self {
            Self::Put { key, value } => 7 + key.len() + value.len(),
            Self::Delete { key } => 3 + key.len(),
        }
    }

    /// Encodes operations as the payload of one entry.
    ///
    /// # Errors
    /// If a key, a value, their number or their sum is above its bound.
    pub fn encode_all(operations: &[Self]) -> Result<Vec<u8>, StateFault> {
        bounded(
            "number of operations",
            operations.len(),
            STATE_OPERATIONS_MAX,
        )?;
        let length = PREFIX_BYTES + operations.iter().map(Self::encoded_bytes).sum::<usize>();
        bounded("payload", length, ENTRY_BYTES_MAX)?;
        let mut payload = Vec::with_capacity(length);
        payload.push(VERSION);
        payload.extend(to_u32(operations.len()).to_le_bytes());
        for operation in operations {
            operation.encode(&mut payload)?;
        }
        assert_eq!(payload.len(), length, "the length was computed beforehand");
        Ok(payload)
    }

    fn encode(&self, payload: &mut Vec<u8>) -> Result<(), StateFault> {
        bounded("key", self.key().len(), STATE_KEY_BYTES_MAX)?;
        let key_length =
            u16::try_from(self.key().len()).expect("the bound of keys is below 64 KiB");
        let tag = match self {
            Self::Put { .. } => PUT,
            Self::Delete { .. } => DELETE,
        };
        payload.push(tag);
        payload.extend(key_length.to_le_bytes());
        payload.extend(self.key());
        if let Self::Put { value, .. } = self {
            bounded("value", value.len(), STATE_VALUE_BYTES_MAX)?;
            payload.extend(to_u32(value.len()).to_le_bytes());
            payload.extend(value);
        }
        Ok(())
    }

    /// Decodes the payload of a state entry: all operations or none.
    ///
    /// # Errors
    /// Says why the payload is none.
    pub fn decode_all(payload: &[u8]) -> Result<Vec<Self>, StateFault> {
        let mut reader = Reader { rest: payload };
        let version = reader.byte()?;
        if version != VERSION {
            return Err(StateFault::Version { found: version });
        }
        let count = to_usize(get_u32(reader.take(4)?, 0));
        bounded("number of operations", count, STATE_OPERATIONS_MAX)?;
        // Each operation has at least three bytes: a false count reserves nothing the payload does not pay for.
        let mut operations = Vec::with_capacity(count.min(payload.len() / 3));
        for _ in 0..count {
            operations.push(reader.operation()?);
        }
        if reader.rest.is_empty() {
            Ok(operations)
        } else {
            Err(StateFault::Length)
        }
    }
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], StateFault> {
        let (taken, rest) = self
            .rest
            .split_at_checked(length)
            .ok_or(StateFault::Length)?;
        self.rest = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, StateFault> {
        Ok(self.take(1)?[0])
    }

    fn operation(&mut self) -> Result<StateOp, StateFault> {
        let tag = self.byte()?;
        if tag != PUT && tag != DELETE {
            return Err(StateFault::Operation { found: tag });
        }
        let key_length = self.take(2)?;
        let key_length = usize::from(u16::from_le_bytes([key_length[0], key_length[1]]));
        bounded("key", key_length, STATE_KEY_BYTES_MAX)?;
        let key = self.take(key_length)?.to_vec();
        if tag == DELETE {
            return Ok(StateOp::Delete { key });
        }
        let value_length = to_usize(get_u32(self.take(4)?, 0));
        bounded("value", value_length, STATE_VALUE_BYTES_MAX)?;
        let value = self.take(value_length)?.to_vec();
        Ok(StateOp::Put { key, value })
    }
}

/// What the end of a state snapshot says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapshotEnd {
    /// Where it began.
    pub begin: SnapshotAt,
    /// How many rows it holds.
    pub rows: u64,
}

impl SnapshotEnd {
    /// The payload.
    pub fn encode(&self) -> [u8; SNAPSHOT_END_BYTES] {
        let mut bytes = [0; SNAPSHOT_END_BYTES];
        bytes[..8].copy_from_slice(&self.begin.place.segment.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.begin.place.position.to_le_bytes());
        bytes[12..20].copy_from_slice(&self.begin.group.to_le_bytes());
        bytes[20..].copy_from_slice(&self.rows.to_le_bytes());
        bytes
    }

    /// Reads the payload.
    ///
    /// # Errors
    /// If it has another length.
    pub fn decode(payload: &[u8]) -> Result<Self, StateFault> {
        if payload.len() != SNAPSHOT_END_BYTES {
            return Err(StateFault::Length);
        }
        Ok(Self {
            begin: SnapshotAt {
                place: Place::new(get_u64(payload, 0), get_u32(payload, 8)),
                group: get_u64(payload, 12),
            },
            rows: get_u64(payload, 20),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(key: &[u8], value: &[u8]) -> StateOp {
        StateOp::Put {
            key: key.to_vec(),
            value: value.to_vec(),
        }
    }

    fn delete(key: &[u8]) -> StateOp {
        StateOp::Delete { key: key.to_vec() }
    }

    #[test]
    fn operations_round_trip_byte_by_byte() {
        let operations = [put(b"k", b"value"), delete(b"gone"), put(b"", b"")];
        let payload = StateOp::encode_all(&operations).expect("within bounds");
        let expected = [
            &[1, 3, 0, 0, 0][..],
            &[1, 1, 0, b'k', 5, 0, 0, 0],
            b"value",
            &[2, 4, 0],
            b"gone",
            &[1, 0, 0, 0, 0, 0, 0],
        ];
        assert_eq!(payload, expected.concat());
        assert_eq!(StateOp::decode_all(&payload), Ok(operations.to_vec()));
    }

    #[test]
    fn all_operations_or_none() {
        let payload = StateOp::encode_all(&[put(b"k", b"v"), delete(b"d")]).expect("within bounds");
        for length in 0..payload.len() {
            let cut = StateOp::decode_all(&payload[..length]);
            assert_eq!(cut, Err(StateFault::Length), "{length} bytes");
        }
        let longer = [&payload[..], &[0]].concat();
        assert_eq!(StateOp::decode_all(&longer), Err(StateFault::Length));
        let mut unknown = payload.clone();
        unknown[5] = 3;
        assert_eq!(
            StateOp::decode_all(&unknown),
            Err(StateFault::Operation { found: 3 })
        );
        let mut newer = payload;
        newer[0] = 2;
        assert_eq!(
            StateOp::decode_all(&newer),
            Err(StateFault::Version { found: 2 })
        );
    }

    #[test]
    fn bounds_hold_on_both_sides() {
        let key = vec![1; STATE_KEY_BYTES_MAX];
        let value = vec![2; STATE_VALUE_BYTES_MAX];
        let largest = [put(&key, &value)];
        let payload = StateOp::encode_all(&largest).expect("just within bounds");
        assert_eq!(StateOp::decode_all(&payload), Ok(largest.to_vec()));
        let too_large = [
            put(&vec![1; STATE_KEY_BYTES_MAX + 1], b""),
            put(b"", &vec![1; STATE_VALUE_BYTES_MAX + 1]),
        ];
        for operation in too_large {
            let refused = StateOp::encode_all(&[operation]);
            assert!(matches!(refused, Err(StateFault::TooLarge { .. })));
        }
        let false_count = [1, 0xff, 0xff, 0xff, 0xff];
        let refused = StateOp::decode_all(&false_count);
        assert!(matches!(refused, Err(StateFault::TooLarge { .. })));
    }

    #[test]
    fn snapshot_ends_round_trip() {
        let end = SnapshotEnd {
            begin: SnapshotAt {
                place: Place::new(3, 8192),
                group: 99,
            },
            rows: 1234,
        };
        assert_eq!(SnapshotEnd::decode(&end.encode()), Ok(end));
        assert_eq!(SnapshotEnd::decode(&[0; 27]), Err(StateFault::Length));
    }
}
