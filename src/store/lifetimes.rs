//! What of sealed segments has a time to live, and when that is over.
//!
//! A batch whose time is over is told as a gap at once; its bytes are still there.
//! When they are to go is seen only in the batches themselves, so each sealed
//! segment with something of a topic that has such batches is read once in the life
//! of a process, at the copier's rate, and what was found is kept: per segment some
//! moments, and how many bytes are over by each. So segments are chosen for copying
//! as if those bytes were dead, and the [sieve](super::sieve) leaves them out.
//!
//! Invariant: too little is taken for over, never too much. A segment that was not
//! read yet has nothing that is.

use std::collections::{HashMap, HashSet};

use super::cold::Usage;
use super::shared::Shared;
use crate::limits;
use crate::time::Timestamp;
use crate::types::TopicId;

/// Bytes whose time is over by a moment, moment by moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Moments(Vec<(Timestamp, u64)>);

impl Moments {
    /// Of batches that are over at these moments, so many bytes each.
    pub fn new(mut all: Vec<(Timestamp, u64)>) -> Self {
        all.sort_unstable();
        // What is over earlier than its neighbours is counted with the last of them.
        let together = all.len().div_ceil(limits::LIFETIME_MOMENTS_MAX).max(1);
        let moment = |part: &[(Timestamp, u64)]| {
            let bytes = part.iter().map(|(_, bytes)| bytes).sum();
            part.last().map(|(last, _)| (*last, bytes))
        };
        Self(all.chunks(together).filter_map(moment).collect())
    }

    /// Bytes that are over by then.
    pub fn over(&self, now: Timestamp) -> u64 {
        let over = self.0.iter().take_while(|(moment, _)| *moment <= now);
        over.map(|(_, bytes)| bytes).sum()
    }
}

/// A segment that is to be read, and the topics in it that may have such batches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unread {
    pub segment: u64,
    pub topics: Vec<TopicId>,
}

/// What was found in the segments that were read.
#[derive(Debug, Default)]
pub(super) struct Lifetimes {
    known: HashMap<u64, Moments>,
}

impl Lifetimes {
    /// A segment that was not read yet and has something of such a topic.
    pub fn unread(&mut self, shared: &Shared, usages: &[Usage]) -> Option<Unread> {
        let expiring = shared.expiring();
        if expiring.is_empty() {
            return None;
        }
        let unread = usages
            .iter()
            .filter(|usage| !usage.row.damaged && !usage.is_dead());
        for usage in unread {
            if self.known.contains_key(&usage.number) {
                continue;
            }
            // One that cannot be looked into does not keep the others from it.
            let Some(topics) = topics_in(shared, usage.number, &expiring) else {
                continue;
            };
            if !topics.is_empty() {
                return Some(Unread {
                    segment: usage.number,
                    topics,
                });
            }
            // A topic that has none yet has none in what is sealed.
            self.known.insert(usage.number, Moments::default());
        }
        None
    }

    /// Notes what was found in a segment; nothing, where it could not be read.
    pub fn note(&mut self, segment: u64, moments: Moments) {
        self.known.insert(segment, moments);
    }

    /// Forgets segments that are gone.
    pub fn retain(&mut self, shared: &Shared) {
        self.known
            .retain(|segment, _| shared.segments.get(*segment).is_some());
    }

    /// Says of each segment how much of it is over.
    pub fn apply(&self, usages: &mut [Usage], now: Option<Timestamp>) {
        for usage in usages {
            let known = self.known.get(&usage.number).zip(now);
            usage.over_bytes = known.map_or(0, |(moments, now)| moments.over(now));
        }
    }
}

/// Those of the topics that a segment has something of. None: it cannot be looked into now.
pub(super) fn topics_in(
    shared: &Shared,
    segment: u64,
    topics: &HashSet<TopicId>,
) -> Option<Vec<TopicId>> {
    let segment = shared.segments.get(segment)?;
    let footer = shared.segments.footer_once(&segment, &shared.dir).ok()??;
    let ids = footer.topics().map(|summary| summary.topic);
    Some(ids.filter(|id| topics.contains(id)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_is_more_over_than_is() {
        let at = |ms: i64| Timestamp::from_millis(ms);
        let all: Vec<_> = (0..1000_i64).rev().map(|n| (at(n * 10), 3)).collect();
        let moments = Moments::new(all);
        assert!(moments.0.len() <= limits::LIFETIME_MOMENTS_MAX);
        let mut before = 0;
        for now in [-1, 0, 5, 500, 4_999, 9_990, 20_000] {
            let over = moments.over(at(now));
            let truth = if now < 0 {
                0
            } else {
                (now as u64 / 10 + 1).min(1000) * 3
            };
            assert!(
                before <= over && over <= truth,
                "{over} of {truth} at {now}"
            );
            before = over;
        }
        assert_eq!(before, 3000);
        assert_eq!(Moments::new(Vec::new()).over(at(9)), 0);
    }
}
