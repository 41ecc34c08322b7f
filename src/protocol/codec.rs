//! The one way control bodies and stored rows become bytes: bincode 1.3.3 with
//! fixed-width little-endian integers, a size limit, and no trailing bytes.
//!
//! A size limit is always given, because a length field in hostile input must
//! not decide how much is reserved.

use bincode::Options;
use serde::{Serialize, de::DeserializeOwned};
use thiserror::Error;

/// Bytes that do not decode as what they should be.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("malformed {what}: {reason}")]
pub struct Malformed {
    /// What was expected ("Hello", "topic row").
    pub what: &'static str,
    /// What is wrong with it.
    pub reason: String,
}

fn options(limit: usize) -> impl Options {
    bincode::DefaultOptions::new()
        .with_fixint_encoding()
        .with_little_endian()
        .with_limit(limit as u64)
        .reject_trailing_bytes()
}

/// Encodes `value`; `limit` bounds the result, in bytes.
pub fn encode<T: Serialize>(
    value: &T,
    limit: usize,
    what: &'static str,
) -> Result<Vec<u8>, Malformed> {
    options(limit).serialize(value).map_err(|error| Malformed {
        what,
        reason: error.to_string(),
    })
}

/// Decodes exactly all of `bytes`; `limit` bounds what may be reserved, in bytes.
pub fn decode<T: DeserializeOwned>(
    bytes: &[u8],
    limit: usize,
    what: &'static str,
) -> Result<T, Malformed> {
    options(limit)
        .deserialize(bytes)
        .map_err(|error| Malformed {
            what,
            reason: error.to_string(),
        })
}
