//! Several small extents of a topic, read at the same time.
//!
//! What many topics were sent together lies together: the next extent of one of them is far behind the last, and each is a
//! read of its own. A disk does many of those in the time of one. So once a read of one extent took as long as a disk
//! takes, the ones after it are read side by side, as far as they go into the answer:
//!
//! ```text
//!   alone:     ■────■────■────■────        together:  ■────
//!                                                     ■────
//!                                                     ■────  by the reader and helpers, while there are any
//! ```
//!
//! Where the page cache has them they are read one after the other, without helpers.
//!
//! Invariants:
//!
//! 1. What is handed out is what a read of that extent alone would have given: same segment, same bytes, each entry checked.
//! 2. An extent that could not be read is not handed out: it is read again by itself, and its error told in its place.
//! 3. All readers together have at most [`limits::READ_HELPERS_MAX`] helpers. Nobody waits for one.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use tokio::sync::Semaphore;

use super::windows;
use crate::journal::{Extent, Listing, Piece};
use crate::limits;
use crate::types::Offset;

/// The helpers of all readers.
pub(super) struct Helpers(Semaphore);

impl Default for Helpers {
    fn default() -> Self {
        Self(Semaphore::new(limits::READ_HELPERS_MAX))
    }
}

impl Helpers {
    /// Does all of `work`, which is numbered, with helpers if some are free; also how many did it. What failed is `None`.
    fn share<T: Send>(
        &self,
        count: usize,
        work: impl Fn(usize) -> Option<T> + Sync,
    ) -> (Vec<Option<T>>, usize) {
        let wanted = count.saturating_sub(1).min(limits::READ_HELPERS_OF_ONE_MAX);
        let permits: Vec<_> = (0..wanted)
            .map_while(|_| self.0.try_acquire().ok())
            .collect();
        let next = AtomicUsize::new(0);
        let take = || {
            let mut done = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= count {
                    return done;
                }
                done.push((number, work(number)));
            }
        };
        let mut all: Vec<_> = (0..count).map(|_| None).collect();
        let at_once = thread::scope(|scope| {
            let helper = || {
                thread::Builder::new()
                    .name("tidings-read".to_owned())
                    .spawn_scoped(scope, take)
            };
            // Without a thread there is a helper less.
            let helpers: Vec<_> = permits.iter().map_while(|_| helper().ok()).collect();
            let at_once = 1 + helpers.len();
            let mut done = take();
            // One that panicked did less.
            done.extend(
                helpers
                    .into_iter()
                    .filter_map(|helper| helper.join().ok())
                    .flatten(),
            );
            for (number, result) in done {
                all[number] = result;
            }
            at_once
        });
        (all, at_once)
    }
}

/// What was read of extents that come next, for one answer.
#[derive(Default)]
pub(super) struct Together {
    /// By place: the segment's number, the extent's position, and what is in it.
    read: VecDeque<(u64, u32, Vec<Piece>)>,
    /// How long one took when they were read last.
    took: Duration,
}

impl Together {
    /// What was read of the extent at that place; what comes before it is let go.
    pub fn take(&mut self, segment: u64, position: u32) -> Option<Vec<Piece>> {
        while let Some((of, at, _)) = self.read.front() {
            let (is_of_it, at) = (*of == segment, *at);
            if is_of_it && at > position {
                return None;
            }
            let (_, _, pieces) = self.read.pop_front()?;
            if is_of_it && at == position {
                return Some(pieces);
            }
        }
        None
    }

    /// Extents that were read and not taken yet.
    #[cfg(test)]
    pub fn at_hand(&self) -> usize {
        self.read.len()
    }

    /// An extent that lies alone was read, which took so long.
    pub fn took(&mut self, time: Duration) {
        self.took = time;
    }

    /// Whether a read takes as long as a disk does.
    pub fn is_worth_it(&self) -> bool {
        self.took >= limits::READ_TAKES_A_DISK
    }

    /// Reads extents of a segment at the same time.
    pub fn read(
        &mut self,
        helpers: &Helpers,
        segment: u64,
        extents: &[Extent],
        read: impl Fn(Extent) -> Option<Vec<Piece>> + Sync,
    ) {
        let began = std::time::Instant::now();
        let (found, at_once) = helpers.share(extents.len(), |number| read(extents[number]));
        // As long as each of them would have taken alone.
        self.took = began.elapsed() * at_once as u32 / extents.len().max(1) as u32;
        let with_places = extents.iter().zip(found);
        self.read = with_places
            .filter_map(|(extent, pieces)| Some((segment, extent.position, pieces?)))
            .collect();
    }
}

/// The extents from `from` on that are worth reading at the same time: each lies alone, and their payload is at
/// most `bytes_max`.
pub(super) fn alone(listing: &Listing, from: Offset, bytes_max: usize) -> Vec<Extent> {
    let mut bytes = 0_u64;
    let lies_alone = |extent: &Extent| {
        let is_alone = windows::range(listing.from(extent.base)) == extent.range();
        is_alone && extent.length < limits::READ_AROUND_BYTES_MIN
    };
    listing
        .from(from)
        .take(limits::READ_TOGETHER_MAX)
        .take_while(|extent| {
            bytes += extent.payload_bytes();
            bytes <= bytes_max as u64 && lies_alone(extent)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    #[test]
    fn helpers_do_all_of_it_at_the_same_time() {
        let helpers = Helpers::default();
        let most = 1 + limits::READ_HELPERS_OF_ONE_MAX;
        let all_there = Barrier::new(most);
        let (done, at_once) = helpers.share(most * 3, |number| {
            // Passed only if as many are here at once.
            all_there.wait();
            (number != 4).then_some(number)
        });
        let expected: Vec<_> = (0..most * 3).map(|n| (n != 4).then_some(n)).collect();
        assert_eq!((done, at_once), (expected, most));
    }

    #[test]
    fn without_helpers_the_reader_does_it_alone() {
        let helpers = Helpers::default();
        let all = helpers.0.try_acquire_many(limits::READ_HELPERS_MAX as u32);
        let all = all.expect("nobody else has one");
        let me = thread::current().id();
        let (by, at_once) = helpers.share(20, |_| Some(thread::current().id()));
        assert_eq!((by, at_once), (vec![Some(me); 20], 1));
        drop(all);
        assert_eq!(helpers.0.available_permits(), limits::READ_HELPERS_MAX);
    }

    #[test]
    fn a_helper_that_panics_leaves_its_part_undone() {
        let helpers = Helpers::default();
        let me = thread::current().id();
        let both_there = Barrier::new(2);
        let (done, _) = helpers.share(2, |number| {
            both_there.wait();
            assert_eq!(thread::current().id(), me, "only the reader");
            Some(number)
        });
        assert_eq!(done.iter().flatten().count(), 1);
        assert_eq!(helpers.0.available_permits(), limits::READ_HELPERS_MAX);
    }

    #[test]
    fn what_lies_before_is_let_go_and_what_follows_is_not() {
        let mut together = Together::default();
        for position in [8192, 20_000, 40_000] {
            together.read.push_back((7, position, Vec::new()));
        }
        assert!(together.take(7, 20_000).is_some());
        assert!(together.take(7, 20_000).is_none(), "once");
        assert!(together.take(7, 30_000).is_none(), "it was not read");
        assert!(together.take(7, 40_000).is_some());
        together.read.push_back((7, 8192, Vec::new()));
        assert!(together.take(8, 4096).is_none(), "another segment");
        assert_eq!(together.at_hand(), 0);
    }
}
