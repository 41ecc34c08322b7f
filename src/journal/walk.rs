//! From entry to entry through bytes of a segment. Pure.
//!
//! Where no entry header can be read, its length is not known either; every later byte is then
//! tried. Nothing but an entry header of exactly this place passes (J4), so an entry that is found
//! that way is a real one, and a bad header costs its own entry only.

use std::ops::Range;

use super::checksum::Seed;
use super::entry::{ENTRY_HEADER_BYTES, EntryFault, EntryHeader};
use super::fields::{is_zero, to_u32, to_usize};

/// What the walk comes by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Walked {
    /// An entry whose header is right and which lies within the bytes.
    Entry { position: u32, header: EntryHeader },
    /// Positions in which no entry can be read.
    Broken(Range<u32>),
}

/// Walks the entries in `bytes`, which lie at `position` of the segment.
#[derive(Debug, Clone)]
pub(super) struct EntryWalk<'a> {
    pub bytes: &'a [u8],
    pub position: u32,
    /// `None`: the bytes are memory of this process, checksums are not looked at.
    pub seed: Option<Seed>,
    /// Where in `bytes` the next entry begins.
    pub at: usize,
}

impl<'a> EntryWalk<'a> {
    pub(super) fn new(bytes: &'a [u8], position: u32, seed: Option<Seed>) -> Self {
        Self {
            bytes,
            position,
            seed,
            at: 0,
        }
    }

    fn header_at(&self, at: usize) -> Result<EntryHeader, EntryFault> {
        let bytes = &self.bytes[at..];
        let header = match &self.seed {
            Some(seed) => EntryHeader::decode(bytes, seed, self.position + to_u32(at))?,
            None => EntryHeader::decode_trusted(bytes)?,
        };
        if to_usize(header.entry_bytes()) > bytes.len() {
            return Err(EntryFault::Value { what: "length" });
        }
        Ok(header)
    }

    /// The next place after `at` where an entry header can be read, or the end.
    fn next_header_after(&self, at: usize) -> usize {
        let last = self.bytes.len().saturating_sub(ENTRY_HEADER_BYTES);
        let candidates = (at + 1..=last).filter(|at| looks_like_header(&self.bytes[*at..]));
        let mut found = candidates.filter(|at| self.seed.is_some() && self.header_at(*at).is_ok());
        found.next().unwrap_or(self.bytes.len())
    }
}

/// A look at five bytes that spares most checksums: kind and zeros.
fn looks_like_header(bytes: &[u8]) -> bool {
    (1..=4).contains(&bytes[4]) && is_zero(&bytes[5..8])
}

impl Iterator for EntryWalk<'_> {
    type Item = Walked;

    fn next(&mut self) -> Option<Walked> {
        if self.at >= self.bytes.len() {
            return None;
        }
        let position = self.position + to_u32(self.at);
        if let Ok(header) = self.header_at(self.at) {
            self.at += to_usize(header.entry_bytes());
            return Some(Walked::Entry { position, header });
        }
        self.at = self.next_header_after(self.at);
        Some(Walked::Broken(position..self.position + to_u32(self.at)))
    }
}
