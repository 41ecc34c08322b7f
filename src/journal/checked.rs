//! The entries of an extent, each checked, for whoever copies all of them or none. Pure.
//!
//! What is read for a client tells what is damaged and goes on behind it (`read`); a copy must not
//! go on: it would take the place of what it was made from.

use std::ops::Range;

use super::entry::{ENTRY_HEADER_BYTES, EntryHeader, EntryKind};
use super::fields::to_usize;
use super::header::SlotHeader;
use super::read::ExtentRead;
use super::walk::{EntryWalk, Walked};
use crate::types::Offset;

/// An entry whose header and batch were checked.
#[derive(Debug, Clone, Copy)]
pub struct CheckedEntry<'a> {
    /// Its header.
    pub header: EntryHeader,
    /// Its batch.
    pub payload: &'a [u8],
}

/// The entries of an extent, whose bytes these are, that end above `read.from`. What lies below is not missed.
///
/// # Errors
/// The first offsets from `read.from` on that cannot be read: their bytes changed after they were written, or are not
/// there.
pub fn check_extent<'a>(
    bytes: &'a [u8],
    header: &SlotHeader,
    read: &ExtentRead,
) -> Result<Vec<CheckedEntry<'a>>, Range<Offset>> {
    let end = read.extent.end();
    let mut next = read.extent.base;
    let mut entries = Vec::new();
    for walked in EntryWalk::new(bytes, read.extent.position, Some(header.seed())) {
        // What is broken, or belongs elsewhere, is told by the hole it leaves.
        let Walked::Entry { position, header } = walked else {
            continue;
        };
        let entry_end = Offset::new(header.end_number());
        let belongs = header.kind == EntryKind::Records
            && header.topic == read.topic
            && header.number >= next.get()
            && header.number < entry_end.get()
            && entry_end <= end;
        if !belongs {
            continue;
        }
        let base = Offset::new(header.number);
        let missed = next.max(read.from)..base;
        if !missed.is_empty() {
            return Err(missed);
        }
        if entry_end > read.from {
            let start = to_usize(position - read.extent.position);
            let payload =
                &bytes[start + ENTRY_HEADER_BYTES..start + to_usize(header.entry_bytes())];
            if !header.payload_matches(payload) {
                return Err(base.max(read.from)..entry_end);
            }
            entries.push(CheckedEntry { header, payload });
        }
        next = entry_end;
    }
    let missed = next.max(read.from)..end;
    if missed.is_empty() {
        Ok(entries)
    } else {
        Err(missed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::header::FIRST_POSITION;
    use crate::journal::header::Kind;
    use crate::journal::listing::Extent;
    use crate::journal::testing::{Scratch, batch, records, topic};

    /// Three neighbours, and where each ends.
    fn three(header: &SlotHeader) -> (Vec<u8>, Extent, Vec<usize>) {
        let (mut bytes, mut ends) = (Vec::new(), Vec::new());
        let mut extent: Option<Extent> = None;
        for n in 0..3_u8 {
            let payload = batch(&[n; 40]);
            let written = records(topic(1), 10 + u64::from(n), 1, &[&payload]).header();
            let position = FIRST_POSITION + u32::try_from(bytes.len()).expect("small");
            bytes.extend(written.encode(&header.seed(), position));
            bytes.extend(&payload);
            ends.push(bytes.len());
            let this = Extent::of_entry(&written, position);
            match &mut extent {
                Some(extent) => assert!(extent.join(&this), "neighbours"),
                None => extent = Some(this),
            }
        }
        (bytes, extent.expect("three"), ends)
    }

    fn check(
        header: &SlotHeader,
        bytes: &[u8],
        (extent, from): (Extent, u64),
    ) -> Result<Vec<u64>, Range<u64>> {
        let read = ExtentRead {
            topic: topic(1),
            extent,
            from: Offset::new(from),
        };
        let found = check_extent(bytes, header, &read);
        let numbers = found.map(|found| found.iter().map(|entry| entry.header.number).collect());
        numbers.map_err(|range| range.start.get()..range.end.get())
    }

    #[test]
    fn what_lives_comes_whole_or_not_at_all() {
        let header = Scratch::new().header(1, 7, Kind::Stream);
        let (bytes, extent, ends) = three(&header);
        let check = |bytes: &[u8], from| check(&header, bytes, (extent, from));
        assert_eq!(check(&bytes, 0), Ok(vec![10, 11, 12]));
        assert_eq!(check(&bytes, 11), Ok(vec![11, 12]));
        assert_eq!(check(&bytes, 13), Ok(vec![]));
        assert_eq!(check(&bytes[..ends[1]], 0), Err(12..13), "too short");
        assert_eq!(check(&bytes[..ends[1] + 9], 0), Err(12..13));
        for at in 0..bytes.len() {
            let mut bytes = bytes.clone();
            bytes[at] ^= 4;
            let hit = ends.iter().filter(|end| **end <= at).count() as u64 + 10;
            let damage = check(&bytes, 0).expect_err("one bit");
            assert_eq!(damage.start, hit, "byte {at}");
        }
        for at in [0, ENTRY_HEADER_BYTES - 1, ends[0] - 1] {
            let mut bytes = bytes.clone();
            bytes[at] ^= 1;
            assert_eq!(check(&bytes, 11), Ok(vec![11, 12]), "dead by then");
        }
        let mut bytes = bytes;
        bytes[ends[0]] ^= 1;
        assert_eq!(check(&bytes, 11), Err(11..12), "its own entry only");
        assert_eq!(check(&bytes, 12), Ok(vec![12]));
    }
}
