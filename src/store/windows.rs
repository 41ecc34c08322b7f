//! What was read from segments lately, for those who go on from there.
//!
//! An answer takes what fits; the extent it stops in, and those read with it, are asked for next. Without this each of them
//! would be read once for every answer it is a part of. Readers that move together share what one of them read.
//!
//! When nobody has read from the disk for a while, all of it is let go.
//!
//! Segment numbers are never given twice, and what was written to a segment never changes, so what is kept cannot grow
//! old. Whether its offsets may still be read is the reader's matter.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::journal::{Extent, Stretch, round_down};
use crate::limits;

/// What to read at once for the first of some extents of a topic: those that follow as well, as far as they are most of
/// what lies there.
pub(super) fn range(extents: impl Iterator<Item = Extent>) -> Range<u32> {
    let mut range = 0..0;
    let mut wanted = 0;
    for extent in extents {
        let Range { start, end } = extent.range();
        if range.is_empty() {
            range = start..end;
        }
        if end > round_down(range.start, limits::SECTOR_BYTES_MAX) + limits::READ_WINDOW_BYTES {
            break;
        }
        wanted += extent.length;
        if wanted >= (end - range.start) / 2 {
            range.end = end;
        }
    }
    range
}

/// The windows read last.
#[derive(Default)]
pub(super) struct Windows {
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    /// With the number of their segment; the one used last is at the end.
    windows: VecDeque<(u64, Stretch)>,
    /// What their buffers take.
    bytes: usize,
    /// When one was last asked for or read.
    used: Option<Instant>,
}

impl Windows {
    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The window that holds an extent of a segment.
    pub fn get(&self, segment: u64, extent: &Extent) -> Option<Stretch> {
        let mut kept = self.lock();
        kept.used = Some(Instant::now());
        let holds = |(of, window): &(u64, Stretch)| *of == segment && window.covers(extent);
        let at = kept.windows.iter().rposition(holds)?;
        let found = kept.windows.remove(at)?;
        let window = found.1.clone();
        kept.windows.push_back(found);
        Some(window)
    }

    /// Keeps a window. Gives back those that are kept no longer.
    pub fn keep(&self, segment: u64, window: Stretch) -> Vec<Stretch> {
        let bytes = window.buffer().capacity();
        // Many small ones would take longer to look through than to read.
        if bytes < limits::READ_AROUND_BYTES_MIN as usize {
            return vec![window];
        }
        let mut gone = Vec::new();
        let mut kept = self.lock();
        kept.used = Some(Instant::now());
        kept.bytes += bytes;
        kept.windows.push_back((segment, window));
        while kept.bytes > limits::READ_WINDOWS_KEPT_BYTES && kept.windows.len() > 1 {
            let Some((_, oldest)) = kept.windows.pop_front() else {
                break;
            };
            kept.bytes -= oldest.buffer().capacity();
            gone.push(oldest);
        }
        gone
    }

    /// What the buffers of all of them take.
    pub fn bytes(&self) -> usize {
        self.lock().bytes
    }

    /// Gives everything back if nobody has read since `before`.
    pub fn let_go(&self, before: Instant) -> Vec<Stretch> {
        let mut kept = self.lock();
        if kept.used.is_none_or(|used| used >= before) {
            return Vec::new();
        }
        let windows = std::mem::take(&mut *kept).windows;
        windows.into_iter().map(|(_, window)| window).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Timestamp;
    use crate::types::Offset;

    /// Extents of those positions and lengths.
    fn extents<const N: usize>(places: [(u32, u32); N]) -> impl Iterator<Item = Extent> {
        places.into_iter().map(|(position, length)| Extent {
            base: Offset::new(u64::from(position)),
            records: 1,
            position,
            length,
            entries: 1,
            first_time: Timestamp::from_millis(0),
            last_time: Timestamp::from_millis(0),
        })
    }

    #[test]
    fn what_follows_is_read_along_if_it_is_most_of_what_lies_there() {
        let dense = [(8192, 10_000), (19_000, 10_000), (30_000, 500)];
        assert_eq!(range(extents(dense)), 8192..30_500);
        let sparse = [(8192, 1000), (19_000, 1000), (30_000, 1000)];
        assert_eq!(range(extents(sparse)), 8192..9192);
        let dense_again = [(8192, 1000), (19_000, 1000), (21_000, 12_000)];
        assert_eq!(range(extents(dense_again)), 8192..33_000);
    }

    #[test]
    fn no_more_than_a_window_unless_one_extent_is_more() {
        let window = limits::READ_WINDOW_BYTES;
        let long = [(8200, 1 << 20), (8200 + (1 << 20), (1 << 20) - 8)];
        assert_eq!(range(extents(long)), 8200..8192 + window);
        let too_long = [(8200, 1 << 20), (8200 + (1 << 20), (1 << 20) - 7)];
        assert_eq!(range(extents(too_long)), 8200..8200 + (1 << 20));
        let one = [(8200, 5 << 20), (8200 + (5 << 20), 10)];
        assert_eq!(range(extents(one)), 8200..8200 + (5 << 20));
    }
}
