//! One record inside the unpacked records of a batch.

use bytes::{BufMut, Bytes};

use crate::limits;
use crate::time::Timestamp;

/// Least bytes of a record: length, attributes, timestamp, no key, no headers, no value.
pub(super) const RECORD_BYTES_MIN: u32 = 5;

/// What is wrong with a record.
type Problem = &'static str;

/// A name with a value, beside the payload of a message.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Header {
    /// The name; several headers of a message may have the same.
    pub name: String,
    /// The value: any bytes.
    pub value: Bytes,
}

/// A record, borrowed from its batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordRef<'a> {
    /// When it was made, by the publisher's clock.
    pub timestamp: Timestamp,
    /// The key, if it has one. An empty key is one.
    pub key: Option<&'a [u8]>,
    /// The payload.
    pub value: &'a [u8],
    headers: Headers<'a>,
    message_bytes: usize,
}

impl<'a> RecordRef<'a> {
    /// The headers, in the order they were given.
    pub const fn headers(&self) -> Headers<'a> {
        self.headers
    }

    /// Key, headers and value together, in bytes: what the limit of a message counts.
    pub const fn message_bytes(&self) -> usize {
        self.message_bytes
    }

    /// Takes the record at the start of `rest`, checking all of it.
    pub(super) fn parse(rest: &mut &'a [u8], base: Timestamp) -> Result<Self, Problem> {
        let mut body = take_counted(rest)?;
        let body = &mut body;
        if take(body, 1)? != [0] {
            return Err("an attribute is set, and none is defined");
        }
        let delta = unzigzag(take_varint(body)?);
        let timestamp = base
            .as_millis()
            .checked_add(delta)
            .ok_or("its timestamp is out of range")?;
        let key = take_key(body)?;
        let headers = Headers::parse(body)?;
        let message_bytes = key.map_or(0, <[u8]>::len) + headers.bytes + body.len();
        Ok(Self {
            timestamp: Timestamp::from_millis(timestamp),
            key,
            value: body,
            headers,
            message_bytes,
        })
    }
}

/// The headers of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Headers<'a> {
    rest: &'a [u8],
    left: usize,
    bytes: usize,
}

impl<'a> Headers<'a> {
    /// Takes count and headers off the start of `body`, checking each.
    fn parse(body: &mut &'a [u8]) -> Result<Self, Problem> {
        let left = take_varint(body)?;
        if left > limits::HEADERS_MAX as u64 {
            return Err("it has more than 256 headers");
        }
        let rest = *body;
        let mut bytes = 0;
        for _ in 0..left {
            let (name, value) = take_header(body)?;
            bytes += name.len() + value.len();
        }
        let left = left as usize;
        Ok(Self { rest, left, bytes })
    }
}

impl<'a> Iterator for Headers<'a> {
    type Item = (&'a str, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        Some(take_header(&mut self.rest).expect("headers were checked with their record"))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Headers<'_> {}

// --- reading -----------------------------------------------------------------

fn take<'a>(rest: &mut &'a [u8], bytes: usize) -> Result<&'a [u8], Problem> {
    let (head, tail) = rest
        .split_at_checked(bytes)
        .ok_or("it ends too early, or a length in it is false")?;
    *rest = tail;
    Ok(head)
}

/// Takes a length and so many bytes.
fn take_counted<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], Problem> {
    let bytes = take_varint(rest)?;
    take(rest, usize::try_from(bytes).unwrap_or(usize::MAX))
}

fn take_key<'a>(body: &mut &'a [u8]) -> Result<Option<&'a [u8]>, Problem> {
    match take_varint(body)? {
        0 => Ok(None),
        more if more - 1 > limits::KEY_BYTES_MAX as u64 => Err("its key is above 64 KiB"),
        more => take(body, more as usize - 1).map(Some),
    }
}

fn take_header<'a>(body: &mut &'a [u8]) -> Result<(&'a str, &'a [u8]), Problem> {
    let name = take_counted(body)?;
    let name = std::str::from_utf8(name).map_err(|_| "the name of a header is not UTF-8")?;
    Ok((name, take_counted(body)?))
}

pub(super) fn take_varint(rest: &mut &[u8]) -> Result<u64, Problem> {
    if let [byte @ 0..0x80, tail @ ..] = *rest {
        *rest = tail;
        return Ok(u64::from(*byte));
    }
    take_long_varint(rest)
}

fn take_long_varint(rest: &mut &[u8]) -> Result<u64, Problem> {
    let mut value = 0;
    for (index, &byte) in rest.iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte < 0x80 {
            return if byte == 0 {
                Err("a varint in it is longer than needed")
            } else if index == 9 && byte > 1 {
                Err("a varint in it is above 64 bits")
            } else {
                *rest = &rest[index + 1..];
                Ok(value)
            };
        }
    }
    Err("a varint in it does not end")
}

const fn unzigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -((value & 1).cast_signed())
}

// --- writing -----------------------------------------------------------------

/// The unsigned form of a signed number, small for small amounts of either sign.
pub(super) const fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

/// How many bytes `value` takes.
pub(super) const fn varint_bytes(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

/// Writes a varint.
pub(super) fn put_varint(out: &mut impl BufMut, mut value: u64) {
    while value >= 0x80 {
        out.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

/// Writes a length and the bytes.
pub(super) fn put_counted(out: &mut impl BufMut, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.put_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_round_trip_at_every_width() {
        for shift in 0..64 {
            for value in [1_u64 << shift, (1 << shift) - 1, u64::MAX >> shift] {
                let mut bytes = Vec::new();
                put_varint(&mut bytes, value);
                assert_eq!(bytes.len(), varint_bytes(value), "{value}");
                let mut rest = &bytes[..];
                assert_eq!(take_varint(&mut rest), Ok(value));
                assert!(rest.is_empty());
                assert_eq!(zigzag(unzigzag(value)), value);
            }
        }
    }

    #[test]
    fn varints_that_are_long_or_endless_are_refused() {
        let ten = |last| [&[0xff; 9][..], &[last]].concat();
        for bad in [
            vec![],
            vec![0x80],
            vec![0x80, 0],
            vec![0xff, 0x80, 0],
            ten(2),
            ten(0),
            ten(0x81),
            vec![0x80; 11],
        ] {
            assert!(take_varint(&mut &bad[..]).is_err(), "{bad:?}");
        }
        assert_eq!(take_varint(&mut &ten(1)[..]), Ok(u64::MAX));
    }
}
