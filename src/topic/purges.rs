//! Purges of a key: whose records nobody gets any more, and that are erased as soon as their segments can be copied.
//!
//! What is kept is no key but a hash of it under a salt of its own: a purge is often asked for somebody whose
//! key nobody may keep.

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;
use crate::types::{IdDigest, Offset};

/// A purge that is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PurgeRow {
    /// In front of the key where it is hashed.
    pub salt: [u8; 16],
    /// What stands for the key.
    pub key: IdDigest,
    /// Records at or above this offset are not meant.
    pub end: Offset,
    /// When it was asked for.
    pub asked: Timestamp,
}

impl PurgeRow {
    /// A purge of the records of a key below `end`.
    pub fn new((key, salt): (&[u8], [u8; 16]), end: Offset, asked: Timestamp) -> Self {
        Self {
            salt,
            key: IdDigest::salted(&salt, key),
            end,
            asked,
        }
    }

    /// Whether a record is meant.
    pub fn covers(&self, at: Offset, key: Option<&[u8]>) -> bool {
        let is_of_key = |key| IdDigest::salted(&self.salt, key) == self.key;
        at < self.end && key.is_some_and(is_of_key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_covers_its_key_below_its_end() {
        let purge = PurgeRow::new((b"ann", [7; 16]), Offset::new(10), Timestamp::default());
        assert!(purge.covers(Offset::new(9), Some(b"ann")));
        assert!(
            !purge.covers(Offset::new(10), Some(b"ann")),
            "it came later"
        );
        assert!(!purge.covers(Offset::new(9), Some(b"anna")));
        assert!(!purge.covers(Offset::new(9), None));
        let empty = PurgeRow::new((b"", [7; 16]), Offset::new(10), Timestamp::default());
        assert!(empty.covers(Offset::ZERO, Some(b"")), "an empty key is one");
        assert!(!empty.covers(Offset::ZERO, None));
    }
}
