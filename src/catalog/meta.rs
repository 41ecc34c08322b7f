//! The meta row: what the store is, and what it must hold to be whole.
//!
//! ```text
//! kind u8 | format u32 | the rest, as the format says
//! ```
//!
//! Little endian. The first five bytes never change, so that a store of any
//! format can be refused by name. The rest of format 1 is [`Totals`] in bincode.
//!
//! Invariant: the meta row changes in the same atomic batch as the rows it
//! counts. So it agrees with them at every point a crash can leave, and where
//! it does not, rows were lost or changed.

use serde::{Deserialize, Serialize};

use super::kind::StoreKind;
use super::value::row_hash;
use crate::protocol::codec::{self, Malformed};

/// The format this program reads and writes: the number of the last step in `migrations/`.
pub const FORMAT: u32 = 1;

/// Bytes a meta row may take: it is some fifty.
const META_BYTES_MAX: usize = 256;
const HEAD_BYTES: usize = 5;

/// The position in the journal up to which a catalog holds everything.
///
/// Opaque to this module. Ordered, because the journal is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Applied {
    /// Segment number.
    pub segment: u64,
    /// Position in the segment, in bytes.
    pub position: u32,
    /// Number of the first group not applied, or of the last applied: the caller's choice.
    pub group: u64,
}

/// How many rows there are, what they hash to, and how far the journal was applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Totals {
    /// Number of rows.
    pub rows: u64,
    /// Wrapping sum of the hashes of all rows: the order does not matter, and a
    /// changed row costs one subtraction and one addition.
    pub sum: u64,
    /// Changes applied since the store was made. A number to tell points apart by.
    pub changes: u64,
    /// Where replay of the journal begins; `None` before the first change.
    pub applied: Option<Applied>,
}

impl Totals {
    pub(super) fn add(&mut self, key: &[u8], value: &[u8]) {
        self.rows = self.rows.wrapping_add(1);
        self.sum = self.sum.wrapping_add(row_hash(key, value));
    }

    pub(super) fn remove(&mut self, key: &[u8], value: &[u8]) {
        self.rows = self.rows.wrapping_sub(1);
        self.sum = self.sum.wrapping_sub(row_hash(key, value));
    }
}

/// The first five bytes, which mean the same in every format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub kind: StoreKind,
    pub format: u32,
}

impl Head {
    pub(super) fn decode(payload: &[u8]) -> Result<Self, Malformed> {
        let Some(&[kind, a, b, c, d]) = payload.first_chunk::<HEAD_BYTES>() else {
            return Err(malformed(format!("{} bytes", payload.len())));
        };
        Ok(Self {
            kind: StoreKind::from_code(kind)
                .ok_or_else(|| malformed(format!("kind {kind}, expected 1 or 2")))?,
            format: u32::from_le_bytes([a, b, c, d]),
        })
    }
}

/// The payload of the meta row of format 1.
pub(super) fn encode(head: Head, totals: &Totals) -> Vec<u8> {
    let mut payload = vec![head.kind.code()];
    payload.extend_from_slice(&head.format.to_le_bytes());
    payload.extend(
        codec::encode(totals, META_BYTES_MAX, "meta row").expect("four numbers fit the limit"),
    );
    payload
}

/// The totals in the payload of a meta row of format 1.
pub(super) fn decode_totals(payload: &[u8]) -> Result<Totals, Malformed> {
    let rest = payload
        .get(HEAD_BYTES..)
        .ok_or_else(|| malformed(format!("{} bytes", payload.len())))?;
    codec::decode(rest, META_BYTES_MAX, "meta row")
}

fn malformed(reason: String) -> Malformed {
    Malformed {
        what: "meta row",
        reason,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_of_format_one_are_these() {
        let head = Head {
            kind: StoreKind::Peer,
            format: 1,
        };
        let totals = Totals {
            rows: 2,
            sum: 3,
            changes: 4,
            applied: Some(Applied {
                segment: 5,
                position: 6,
                group: 7,
            }),
        };
        let payload = encode(head, &totals);
        #[rustfmt::skip]
        let expected = [
            1, 1, 0, 0, 0,
            2, 0, 0, 0, 0, 0, 0, 0,
            3, 0, 0, 0, 0, 0, 0, 0,
            4, 0, 0, 0, 0, 0, 0, 0,
            1, 5, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0,
        ];
        assert_eq!(payload, expected);
        assert_eq!(Head::decode(&payload), Ok(head));
        assert_eq!(decode_totals(&payload), Ok(totals));
    }

    #[test]
    fn a_cut_meta_row_is_malformed_at_every_length() {
        let head = Head {
            kind: StoreKind::Index,
            format: 1,
        };
        let payload = encode(head, &Totals::default());
        for length in 0..payload.len() {
            let cut = &payload[..length];
            assert!(
                Head::decode(cut).is_err() || decode_totals(cut).is_err(),
                "{length} bytes pass"
            );
        }
    }

    #[test]
    fn totals_do_not_depend_on_the_order() {
        let rows: [(&[u8], &[u8]); 3] = [(b"a", b"1"), (b"b", b"2"), (b"c", b"3")];
        let mut one = Totals::default();
        let mut other = Totals::default();
        rows.iter().for_each(|(key, value)| one.add(key, value));
        rows.iter()
            .rev()
            .for_each(|(key, value)| other.add(key, value));
        other.add(b"d", b"4");
        assert_ne!(one, other);
        other.remove(b"d", b"4");
        assert_eq!(one, other);
    }
}
