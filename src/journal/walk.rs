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
pub(super) fn looks_like_header(bytes: &[u8]) -> bool {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::testing::{batch, records, seed, topic};

    /// Three entries one after the other, and where each begins.
    fn three() -> (Vec<u8>, [usize; 4]) {
        let mut bytes = Vec::new();
        let mut starts = [0; 4];
        for (i, base) in [10, 11, 12].into_iter().enumerate() {
            let payload = batch(&vec![1; 30 + i]);
            let header = records(topic(1), base, 1, &[&payload]).header();
            bytes.extend(header.encode(&seed(), 8192 + to_u32(bytes.len())));
            bytes.extend(&payload);
            starts[i + 1] = bytes.len();
        }
        (bytes, starts)
    }

    fn bases(walk: EntryWalk<'_>) -> Vec<Result<u64, Range<u32>>> {
        walk.map(|walked| match walked {
            Walked::Entry { header, .. } => Ok(header.number),
            Walked::Broken(range) => Err(range),
        })
        .collect()
    }

    #[test]
    fn a_bad_header_costs_its_own_entry_only() {
        let (good, starts) = three();
        for bit in starts[1] * 8..(starts[1] + ENTRY_HEADER_BYTES) * 8 {
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let walk = EntryWalk::new(&bytes, 8192, Some(seed()));
            let broken = 8192 + to_u32(starts[1])..8192 + to_u32(starts[2]);
            assert_eq!(bases(walk), [Ok(10), Err(broken), Ok(12)], "bit {bit}");
        }
    }

    #[test]
    fn a_cut_is_told_to_the_byte() {
        let (good, starts) = three();
        for length in starts[2] + 1..starts[3] {
            let walk = EntryWalk::new(&good[..length], 8192, Some(seed()));
            let broken = 8192 + to_u32(starts[2])..8192 + to_u32(length);
            assert_eq!(bases(walk), [Ok(10), Ok(11), Err(broken)]);
        }
    }

    #[test]
    fn memory_is_walked_without_checksums() {
        let (mut bytes, _) = three();
        bytes[0] ^= 1;
        let walk = EntryWalk::new(&bytes, 8192, None);
        assert_eq!(bases(walk), [Ok(10), Ok(11), Ok(12)]);
    }
}
