//! Reading many extents of segments to copy them, in few reads.
//!
//! ```text
//!   wanted, by topic:    A1 A2 B4 C8 C9
//!   where they lie:      7: [C8 . A1 B4 C9 .]     9: [A2 . . . .]
//!   read:                7: [C8 . A1 B4 C9]       9: [A2]
//! ```
//!
//! What is copied together is sorted by topic, and lies in the order it was
//! written in: a read for each extent would be one for a few hundred bytes. So
//! small extents are read for a part of the copy at once, by their place, with
//! what lies between them where that is little, and kept until they are written.
//!
//! 1. A part keeps at most [`COLD_GATHER_BYTES`](limits::COLD_GATHER_BYTES).
//! 2. Reading never costs more than a read for each extent: what lies between is
//!    read along only where that takes no longer.
//! 3. What cannot be read costs its own extent: a read of several is tried again,
//!    one by one.
//!
//! Deliberately missing: the page cache. What is copied in the background is not
//! what readers want soon.

use std::ops::Range;
use std::sync::Arc;

use super::segments::Segment;
use super::shared::{Shared, count};
use crate::journal::{AlignedBuffer, Extent, JournalError, Via, round_down, round_up};
use crate::limits::{self, SECTOR_BYTES_MAX};

/// An extent of one of the sources.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    /// Which one.
    pub source: usize,
    pub extent: Extent,
}

impl Wanted {
    /// Whether it is read together with others.
    pub fn is_small(&self) -> bool {
        self.extent.length <= limits::COLD_SMALL_BYTES
    }

    fn range(&self) -> Range<u32> {
        self.extent.position..self.extent.position + self.extent.length
    }
}

/// Why an extent was not read: the index of its source, and what happened.
pub(super) type Unread = (usize, JournalError);

/// Reads extents of segments that are pinned as long as this is there.
pub(super) struct ExtentReader<'a> {
    shared: &'a Shared,
    sources: &'a [Arc<Segment>],
    /// What was gathered: the extents' bytes one after the other.
    kept: Vec<u8>,
    window: AlignedBuffer,
}

impl<'a> ExtentReader<'a> {
    pub fn new(shared: &'a Shared, sources: &'a [Arc<Segment>]) -> Self {
        Self {
            shared,
            sources,
            kept: Vec::new(),
            window: AlignedBuffer::new(limits::COLD_READ_BYTES as usize),
        }
    }

    /// Reads all of these that are small and tells for each where it is kept. Calls `read` after every read, with
    /// the bytes it brought; where that says no, it ends early.
    pub fn gather(
        &mut self,
        wanted: &[Wanted],
        mut read: impl FnMut(u64) -> bool,
    ) -> Result<Vec<Range<usize>>, Unread> {
        self.kept.clear();
        let mut places = vec![0..0; wanted.len()];
        let mut order: Vec<usize> = (0..wanted.len())
            .filter(|at| wanted[*at].is_small())
            .collect();
        order.sort_unstable_by_key(|at| (wanted[*at].source, wanted[*at].extent.position));
        for together in windows(&order, wanted) {
            self.gather_window(wanted, together, &mut places)?;
            let bytes = together
                .iter()
                .map(|at| u64::from(wanted[*at].extent.length));
            if !read(bytes.sum()) {
                break;
            }
        }
        Ok(places)
    }

    fn gather_window(
        &mut self,
        wanted: &[Wanted],
        together: &[usize],
        places: &mut [Range<usize>],
    ) -> Result<(), Unread> {
        let Some((first, last)) = together.first().zip(together.last()) else {
            return Ok(());
        };
        let (source, begin) = (wanted[*first].source, wanted[*first].extent.position);
        let skipped = match self.read(source, begin..wanted[*last].range().end) {
            Ok((skipped, _)) => skipped,
            Err(_) if together.len() > 1 => {
                return together
                    .iter()
                    .try_for_each(|at| self.gather_window(wanted, &[*at], places));
            }
            Err(error) => return Err(error),
        };
        for at in together {
            let range = wanted[*at].range();
            let from = skipped + (range.start - begin) as usize;
            let to = from + (range.end - range.start) as usize;
            let kept = self.kept.len();
            self.kept
                .extend_from_slice(&self.window.as_slice()[from..to]);
            places[*at] = kept..self.kept.len();
        }
        Ok(())
    }

    /// What was gathered.
    pub fn kept(&self, place: Range<usize>) -> &[u8] {
        &self.kept[place]
    }

    /// Reads one extent, whatever its size.
    pub fn one(&mut self, wanted: &Wanted) -> Result<&[u8], Unread> {
        let (skipped, length) = self.read(wanted.source, wanted.range())?;
        Ok(&self.window.as_slice()[skipped..skipped + length])
    }

    /// Reads a range into the window; tells where in it the range begins, and its length.
    fn read(&mut self, source: usize, range: Range<u32>) -> Result<(usize, usize), Unread> {
        let segment = &self.sources[source];
        let start = round_down(range.start, SECTOR_BYTES_MAX);
        let length = (round_up(range.end, SECTOR_BYTES_MAX) - start) as usize;
        if self.window.capacity() < length {
            self.window = AlignedBuffer::new(length);
        }
        let target = &mut self.window.as_mut_slice()[..length];
        let got = segment
            .slot(&self.shared.dir)
            .and_then(|slot| slot.read_into(target, start, Via::Direct))
            .map_err(|error| (source, error))?;
        // What the file does not have is no entry; what is left there of the last read must not pass for one.
        target[got..].fill(0);
        count(&self.shared.reclaimed.copy_reads, 1);
        Ok((
            (range.start - start) as usize,
            (range.end - range.start) as usize,
        ))
    }
}

/// Splits extents that are sorted by place into those that are read at once.
fn windows<'a>(order: &'a [usize], wanted: &'a [Wanted]) -> impl Iterator<Item = &'a [usize]> {
    let mut rest = order;
    std::iter::from_fn(move || {
        let first = wanted[*rest.first()?];
        let limit = round_down(first.extent.position, SECTOR_BYTES_MAX) + limits::COLD_READ_BYTES;
        let mut end = first.range().end;
        let fits = |at: &usize| {
            let next = &wanted[*at];
            let near = next.extent.position <= end.saturating_add(limits::COLD_SKIP_BYTES);
            let fits = next.source == first.source && near && next.range().end <= limit;
            if fits {
                end = end.max(next.range().end);
            }
            fits
        };
        let more = rest[1..].iter().map(fits).take_while(|fits| *fits).count();
        let (together, left) = rest.split_at(1 + more);
        rest = left;
        Some(together)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Timestamp;
    use crate::types::Offset;

    fn wanted(source: usize, position: u32, length: u32) -> Wanted {
        Wanted {
            source,
            extent: Extent {
                base: Offset::ZERO,
                records: 1,
                position,
                length,
                entries: 1,
                first_time: Timestamp::default(),
                last_time: Timestamp::default(),
            },
        }
    }

    fn reads(wanted: &[Wanted]) -> Vec<usize> {
        let order: Vec<usize> = (0..wanted.len()).collect();
        windows(&order, wanted).map(<[usize]>::len).collect()
    }

    #[test]
    fn neighbours_are_read_at_once_and_others_are_not() {
        assert!(reads(&[]).is_empty());
        let far = 8192 + 1000 + limits::COLD_SKIP_BYTES;
        assert_eq!(reads(&[wanted(0, 8192, 1000), wanted(0, far, 9)]), [2]);
        assert_eq!(
            reads(&[wanted(0, 8192, 1000), wanted(0, far + 1, 9)]),
            [1, 1]
        );
        assert_eq!(reads(&[wanted(0, 8192, 10), wanted(1, 8202, 10)]), [1, 1]);
        let dense: Vec<Wanted> = (0..10_000)
            .map(|n| wanted(0, 8192 + n * 1300, 1000))
            .collect();
        let found = reads(&dense);
        assert_eq!(found.iter().sum::<usize>(), dense.len());
        assert_eq!(found.len(), 13, "a MiB at once");
    }
}
