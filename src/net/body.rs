//! Bodies of frames on their way out: kept or lent, in one piece or many.

use bytes::{Bytes, BytesMut};

use crate::limits;

/// Longest body kept without an allocation, in bytes: an acknowledgement fits.
const INLINE_BYTES: usize = 30;

/// A body in pieces that are written one after the other, not copied together.
#[derive(Debug, Clone)]
pub struct Body(Pieces);

#[derive(Debug, Clone)]
enum Pieces {
    Inline(u8, [u8; INLINE_BYTES]),
    One(Bytes),
    Many(Vec<Bytes>),
}

impl Body {
    /// Copies `bytes`; up to 30 of them need no allocation.
    pub fn copy(bytes: &[u8]) -> Self {
        if bytes.len() > INLINE_BYTES {
            return Self(Pieces::One(Bytes::copy_from_slice(bytes)));
        }
        let mut inline = [0; INLINE_BYTES];
        inline[..bytes.len()].copy_from_slice(bytes);
        Self(Pieces::Inline(bytes.len() as u8, inline))
    }

    /// Number of bytes.
    pub fn len(&self) -> usize {
        match &self.0 {
            Pieces::Inline(length, _) => usize::from(*length),
            Pieces::One(bytes) => bytes.len(),
            Pieces::Many(pieces) => pieces.iter().map(Bytes::len).sum(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self(Pieces::One(bytes))
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Self {
        Self(Pieces::One(bytes.into()))
    }
}

impl From<Vec<Bytes>> for Body {
    fn from(pieces: Vec<Bytes>) -> Self {
        Self(Pieces::Many(pieces))
    }
}

/// A body as it is handed over.
#[derive(Debug)]
pub(super) enum Parts<'a> {
    /// To be kept as long as it is needed.
    Kept(Body),
    /// To be copied, one behind the other.
    Lent(&'a [&'a [u8]]),
}

impl From<Body> for Parts<'_> {
    fn from(body: Body) -> Self {
        Self::Kept(body)
    }
}

impl Parts<'_> {
    pub fn len(&self) -> usize {
        match self {
            Self::Kept(body) => body.len(),
            Self::Lent(parts) => parts.iter().map(|part| part.len()).sum(),
        }
    }

    /// Copies all of it.
    pub fn copy_to(&self, bytes: &mut BytesMut) {
        match self {
            Self::Kept(Body(Pieces::Inline(length, inline))) => {
                bytes.extend_from_slice(&inline[..usize::from(*length)]);
            }
            Self::Kept(Body(Pieces::One(piece))) => bytes.extend_from_slice(piece),
            Self::Kept(Body(Pieces::Many(pieces))) => {
                pieces
                    .iter()
                    .for_each(|piece| bytes.extend_from_slice(piece));
            }
            Self::Lent(parts) => parts.iter().for_each(|part| bytes.extend_from_slice(part)),
        }
    }

    /// The same behind `copied`, as pieces: only small ones are copied.
    pub fn into_pieces(self, mut copied: BytesMut) -> Vec<Bytes> {
        let mut all = Vec::new();
        let pieces = match self {
            Self::Kept(Body(Pieces::One(piece))) => vec![piece],
            Self::Kept(Body(Pieces::Many(pieces))) => pieces,
            Self::Kept(Body(Pieces::Inline(..))) | Self::Lent(_) => {
                self.copy_to(&mut copied);
                Vec::new()
            }
        };
        for piece in pieces {
            if piece.len() <= limits::COALESCE_BYTES_MAX {
                copied.extend_from_slice(&piece);
            } else {
                if !copied.is_empty() {
                    all.push(copied.split().freeze());
                }
                all.push(piece);
            }
        }
        if !copied.is_empty() {
            all.push(copied.freeze());
        }
        all
    }
}
