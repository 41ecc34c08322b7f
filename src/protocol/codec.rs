//! The one way control bodies and stored rows become bytes: bincode 1.3.3 with
//! fixed-width little-endian integers, a size limit, and no trailing bytes.
//!
//! A size limit is always given, because a length field in hostile input must
//! not decide how much is reserved.

use bincode::{ErrorKind, Options};
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

/// A text as [`encode`] writes it: one after the other.
pub struct EncodedText<'a> {
    /// How long it is.
    pub length: [u8; 8],
    /// The text.
    pub bytes: &'a [u8],
}

/// The parts of an encoded text, given its bytes, for who puts bodies together. The encoding of a struct is
/// that of its fields, one after the other.
pub fn text(bytes: &[u8]) -> EncodedText<'_> {
    EncodedText {
        length: (bytes.len() as u64).to_le_bytes(),
        bytes,
    }
}

/// The bytes of the text that an encoding begins with; not checked to be one.
pub fn text_at_front(bytes: &[u8]) -> Option<&[u8]> {
    let (length, rest) = bytes.split_first_chunk()?;
    rest.get(..usize::try_from(u64::from_le_bytes(*length)).ok()?)
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
            reason: reason(&error),
        })
}

/// What is wrong with the bytes, in words of ours: the decoder's name its own insides, or nothing at all.
fn reason(error: &ErrorKind) -> String {
    match error {
        ErrorKind::Io(_) => "it ends too early, or a length in it is false".to_owned(),
        ErrorKind::SizeLimit => "it or a length in it is beyond what is allowed".to_owned(),
        ErrorKind::InvalidUtf8Encoding(error) => {
            let good = error.valid_up_to();
            format!("a text in it is not UTF-8 from byte {good} on")
        }
        ErrorKind::InvalidBoolEncoding(byte) => format!("a bool of {byte}: 0 or 1 was expected"),
        ErrorKind::InvalidTagEncoding(byte) => {
            format!("an option of {byte}: 0 or 1 was expected")
        }
        ErrorKind::Custom(text) if text.starts_with("Slice had bytes remaining") => {
            "bytes are left over after its end".to_owned()
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason<T: DeserializeOwned + std::fmt::Debug>(bytes: &[u8]) -> String {
        let decoded = decode::<T>(bytes, 1_000, "test");
        decoded.expect_err("it is malformed").reason
    }

    #[test]
    fn the_text_at_the_front_is_found_and_nothing_beyond_the_end() {
        let bytes = encode(&("a name", true), 100, "test").expect("it encodes");
        assert_eq!(text_at_front(&bytes), Some(&b"a name"[..]));
        for end in 0..bytes.len() - 1 {
            assert_eq!(text_at_front(&bytes[..end]), None, "{end}");
        }
        assert_eq!(text_at_front(&[0xff; 20]), None);
    }

    #[test]
    fn reasons_say_what_was_found() {
        let too_early = "it ends too early, or a length in it is false";
        assert_eq!(reason::<u32>(&[1, 2, 3]), too_early);
        assert_eq!(reason::<String>(&[200, 0, 0, 0, 0, 0, 0, 0]), too_early);
        assert_eq!(reason::<Vec<u64>>(&[9, 0, 0, 0, 0, 0, 0, 0]), too_early);
        let huge = [0xff; 8];
        assert!(reason::<String>(&huge).contains("a length in it"));
        assert_eq!(reason::<u8>(&[1, 2]), "bytes are left over after its end");
        assert_eq!(reason::<bool>(&[2]), "a bool of 2: 0 or 1 was expected");
        assert_eq!(
            reason::<Option<u8>>(&[7, 1]),
            "an option of 7: 0 or 1 was expected"
        );
        let text = [2, 0, 0, 0, 0, 0, 0, 0, b'a', 0xff];
        assert_eq!(
            reason::<String>(&text),
            "a text in it is not UTF-8 from byte 1 on"
        );
    }
}
