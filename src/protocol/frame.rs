//! Frames: how requests and answers are told apart on a stream of bytes.
//!
//! ```text
//! length u32 | api u16 | version u8 | flags u8 | correlation u32 | body
//! ```
//!
//! Little endian; `length` counts what follows it, so it is at least 8. An
//! answer repeats api, version and correlation of its request and has bit 0 of
//! the flags set; an error has bit 1 too, and its body is an
//! [`ErrorBody`](crate::protocol::error::ErrorBody). An answer that is not the last
//! to its request has bit 2. The other bits are 0.
//! Correlation 0 is the hello's; an error with correlation 0 after the hello is
//! about the connection and not about one request.
//!
//! Invariants:
//!
//! 1. A length is compared with the limit before anything is reserved for it.
//! 2. "Not enough bytes yet" is `Ok(None)`, never an error.
//! 3. A frame shares the memory it was received in; nothing is copied.
//!
//! Absent on purpose: sockets, timeouts and the meaning of a body.

use bytes::{Buf, Bytes, BytesMut};
use thiserror::Error;

/// Bytes of the length field.
pub const LENGTH_BYTES: usize = 4;
/// Bytes between the length field and the body: the smallest length.
pub const HEADER_BYTES: usize = 8;
/// Bytes before the body.
pub const PREFIX_BYTES: usize = LENGTH_BYTES + HEADER_BYTES;

/// Flag: this answers a request.
pub const FLAG_ANSWER: u8 = 1;
/// Flag, only together with [`FLAG_ANSWER`]: the body is an error.
pub const FLAG_ERROR: u8 = 2;
/// Flag, only together with [`FLAG_ANSWER`] and without [`FLAG_ERROR`]: more answers to this request follow.
pub const FLAG_MORE: u8 = 4;

/// Bytes that cannot be a frame; nothing after them can be understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum FrameError {
    /// The length does not cover the header.
    #[error("frame length {length}: at least {HEADER_BYTES} expected")]
    TooShort {
        /// The length found.
        length: u32,
    },
    /// The length is above the limit.
    #[error("frame length {length}: at most {max} expected")]
    TooLarge {
        /// The length found.
        length: u32,
        /// The limit.
        max: usize,
    },
}

/// What stands before a body, its length apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHeader {
    /// Number of the request.
    pub api: u16,
    /// Version of the body.
    pub version: u8,
    /// [`FLAG_ANSWER`], [`FLAG_ERROR`] and [`FLAG_MORE`].
    pub flags: u8,
    /// Chosen by the client, repeated in the answer.
    pub correlation: u32,
}

impl FrameHeader {
    /// The header of a request.
    pub const fn request(api: u16, version: u8, correlation: u32) -> Self {
        Self {
            api,
            version,
            flags: 0,
            correlation,
        }
    }

    /// The header of the answer to this request.
    #[must_use]
    pub const fn answer(self) -> Self {
        Self {
            flags: FLAG_ANSWER,
            ..self
        }
    }

    /// The header of an answer to this request that more follow.
    #[must_use]
    pub const fn answer_with_more(self) -> Self {
        Self {
            flags: FLAG_ANSWER | FLAG_MORE,
            ..self
        }
    }

    /// The header of an error that answers this request.
    #[must_use]
    pub const fn error(self) -> Self {
        Self {
            flags: FLAG_ANSWER | FLAG_ERROR,
            ..self
        }
    }

    /// Whether this is an answer, an error included.
    pub const fn is_answer(self) -> bool {
        self.flags & FLAG_ANSWER != 0
    }

    /// Whether the body is an error.
    pub const fn is_error(self) -> bool {
        self.flags & FLAG_ERROR != 0
    }

    /// Whether more answers to the same request follow this one.
    pub const fn has_more(self) -> bool {
        self.flags & FLAG_MORE != 0
    }

    /// Whether the flags are ones that are defined: none, answer, answer with error, answer with more.
    pub const fn flags_are_known(self) -> bool {
        const ERROR: u8 = FLAG_ANSWER | FLAG_ERROR;
        const MORE: u8 = FLAG_ANSWER | FLAG_MORE;
        matches!(self.flags, 0 | FLAG_ANSWER | ERROR | MORE)
    }

    /// The bytes before a body of `body_bytes` bytes.
    pub fn encode(self, body_bytes: usize) -> [u8; PREFIX_BYTES] {
        let length =
            u32::try_from(HEADER_BYTES + body_bytes).expect("bodies are bounded far below 4 GiB");
        let mut prefix = [0; PREFIX_BYTES];
        prefix[..4].copy_from_slice(&length.to_le_bytes());
        prefix[4..6].copy_from_slice(&self.api.to_le_bytes());
        prefix[6] = self.version;
        prefix[7] = self.flags;
        prefix[8..].copy_from_slice(&self.correlation.to_le_bytes());
        prefix
    }
}

/// The start of a frame: enough to decide whether to receive the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefix {
    /// The header.
    pub header: FrameHeader,
    /// Bytes of the body.
    pub body_bytes: usize,
}

impl Prefix {
    /// Reads the start of a frame; `Ok(None)` while there are not enough bytes.
    /// `frame_bytes_max` bounds the length, the length field excluded.
    pub fn parse(bytes: &[u8], frame_bytes_max: usize) -> Result<Option<Self>, FrameError> {
        let Some((mut length, mut rest)) = bytes.split_at_checked(LENGTH_BYTES) else {
            return Ok(None);
        };
        let length = length.get_u32_le();
        if (length as usize) < HEADER_BYTES {
            return Err(FrameError::TooShort { length });
        }
        if length as usize > frame_bytes_max {
            return Err(FrameError::TooLarge {
                length,
                max: frame_bytes_max,
            });
        }
        if rest.len() < HEADER_BYTES {
            return Ok(None);
        }
        Ok(Some(Self {
            header: FrameHeader {
                api: rest.get_u16_le(),
                version: rest.get_u8(),
                flags: rest.get_u8(),
                correlation: rest.get_u32_le(),
            },
            body_bytes: length as usize - HEADER_BYTES,
        }))
    }

    /// Bytes of the whole frame, the length field included.
    pub const fn frame_bytes(&self) -> usize {
        PREFIX_BYTES + self.body_bytes
    }

    /// Takes this frame's body from the front of `buffer`; `None` while it is not all there.
    pub fn take_body(&self, buffer: &mut BytesMut) -> Option<Bytes> {
        if buffer.len() < self.frame_bytes() {
            return None;
        }
        buffer.advance(PREFIX_BYTES);
        Some(buffer.split_to(self.body_bytes).freeze())
    }
}

/// A whole frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// The header.
    pub header: FrameHeader,
    /// The body.
    pub body: Bytes,
}

impl Frame {
    /// Takes a frame from the front of `buffer`; `Ok(None)` while it is not all there.
    pub fn parse(
        buffer: &mut BytesMut,
        frame_bytes_max: usize,
    ) -> Result<Option<Self>, FrameError> {
        let Some(prefix) = Prefix::parse(buffer, frame_bytes_max)? else {
            return Ok(None);
        };
        Ok(prefix.take_body(buffer).map(|body| Self {
            header: prefix.header,
            body,
        }))
    }

    /// The bytes of the frame.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(PREFIX_BYTES + self.body.len());
        bytes.extend_from_slice(&self.header.encode(self.body.len()));
        bytes.extend_from_slice(&self.body);
        bytes
    }
}

/// The header's bytes of a malformed frame's request, as far as they are known:
/// errors about a frame carry its correlation if it was received.
pub fn correlation_of(bytes: &[u8]) -> Option<u32> {
    bytes
        .get(8..PREFIX_BYTES)
        .and_then(|field| field.try_into().ok())
        .map(u32::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 1024;

    fn frame() -> Frame {
        Frame {
            header: FrameHeader {
                api: 0x0102,
                version: 3,
                flags: FLAG_ANSWER | FLAG_ERROR,
                correlation: 0x0405_0607,
            },
            body: Bytes::from_static(b"body"),
        }
    }

    #[test]
    fn the_layout_is_the_one_that_is_written_down() {
        let expected = [12, 0, 0, 0, 2, 1, 3, 3, 7, 6, 5, 4, b'b', b'o', b'd', b'y'];
        assert_eq!(frame().encode(), expected);
        assert_eq!(correlation_of(&expected), Some(0x0405_0607));
    }

    #[test]
    fn every_truncation_waits_for_more_and_takes_nothing() {
        let bytes = frame().encode();
        for cut in 0..bytes.len() {
            let mut buffer = BytesMut::from(&bytes[..cut]);
            assert_eq!(Frame::parse(&mut buffer, MAX), Ok(None), "cut at {cut}");
            assert_eq!(&buffer[..], &bytes[..cut], "cut at {cut} took bytes");
        }
        let mut buffer = BytesMut::from(&bytes[..]);
        assert_eq!(Frame::parse(&mut buffer, MAX), Ok(Some(frame())));
        assert!(buffer.is_empty());
    }

    #[test]
    fn frames_follow_each_other() {
        let mut buffer = BytesMut::new();
        for _ in 0..3 {
            buffer.extend_from_slice(&frame().encode());
        }
        for _ in 0..3 {
            assert_eq!(Frame::parse(&mut buffer, MAX), Ok(Some(frame())));
        }
        assert_eq!(Frame::parse(&mut buffer, MAX), Ok(None));
    }

    #[test]
    fn impossible_lengths_are_refused_on_their_fourth_byte() {
        for length in [0, 1, 7] {
            let mut buffer = BytesMut::from(&u32::to_le_bytes(length)[..]);
            assert_eq!(
                Frame::parse(&mut buffer, MAX),
                Err(FrameError::TooShort { length })
            );
        }
        for length in [MAX as u32 + 1, 1 << 30, u32::MAX] {
            let mut buffer = BytesMut::from(&u32::to_le_bytes(length)[..]);
            let capacity = buffer.capacity();
            assert_eq!(
                Frame::parse(&mut buffer, MAX),
                Err(FrameError::TooLarge { length, max: MAX })
            );
            assert_eq!(buffer.capacity(), capacity, "something was reserved");
        }
    }

    #[test]
    fn the_smallest_and_the_largest_frame_pass() {
        for body_bytes in [0, MAX - HEADER_BYTES] {
            let whole = Frame {
                header: FrameHeader::request(1, 1, 9),
                body: Bytes::from(vec![7; body_bytes]),
            };
            let mut buffer = BytesMut::from(&whole.encode()[..]);
            assert_eq!(Frame::parse(&mut buffer, MAX), Ok(Some(whole)));
        }
    }

    #[test]
    fn flags_are_none_answer_error_or_more() {
        let known: Vec<u8> = (0..=u8::MAX)
            .filter(|&flags| {
                FrameHeader {
                    flags,
                    ..frame().header
                }
                .flags_are_known()
            })
            .collect();
        assert_eq!(known, [0, 1, 3, 5]);
    }
}
