//! What goes by itself soon, and need not be copied.
//!
//! ```text
//!   segments   [ 4 ][ 5 ][ 6 ][ 7 ][ 8 ][ 9 ]
//!   a topic    .......|===================>      its start moves on as fast as it is published to
//!                start ^------> within so long: 5 and 6 will be free of it
//! ```
//!
//! What a topic keeps moves through the segments. What its start passes soon, at
//! the speed it had lately, is given back at no cost; to copy it before would be
//! for nothing, or even hold it longer.
//!
//! Deliberately missing: any guess for a topic whose start does not move.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::types::{Offset, TopicId};

/// Where a topic's start was, and how far it got in the time before.
#[derive(Debug, Clone, Copy)]
struct Mark {
    start: Offset,
    at: Instant,
    moved: u64,
    within: Duration,
}

/// The speeds of the topics' starts.
#[derive(Debug)]
pub(super) struct Motion {
    marks: HashMap<TopicId, Mark>,
    /// Time from one look to the next.
    period: Duration,
    /// What is passed within so long goes soon.
    horizon: Duration,
    looked: Option<Instant>,
    /// Counts looks that found or left something moving.
    version: u64,
}

impl Motion {
    /// Looks every `period`.
    pub fn new(period: Duration, horizon: Duration) -> Self {
        Self {
            marks: HashMap::new(),
            period,
            horizon,
            looked: None,
            version: 0,
        }
    }

    /// Whether it is time for another look.
    pub fn is_due(&self, now: Instant) -> bool {
        let since = |looked| now.saturating_duration_since(looked);
        self.looked
            .is_none_or(|looked| since(looked) >= self.period)
    }

    /// Takes a look at the starts of all topics that discard something; others are forgotten.
    pub fn look(&mut self, starts: impl Iterator<Item = (TopicId, Offset)>, now: Instant) {
        let mut before = std::mem::take(&mut self.marks);
        let mut changed = false;
        for (topic, start) in starts {
            let last = before.remove(&topic);
            let moved = last.map_or(0, |last| start.get().saturating_sub(last.start.get()));
            let within = last.map_or(Duration::ZERO, |last| {
                now.saturating_duration_since(last.at)
            });
            changed |= moved > 0 || last.is_some_and(|last| last.moved > 0);
            let mark = Mark {
                start,
                at: now,
                moved,
                within,
            };
            self.marks.insert(topic, mark);
        }
        changed |= before.values().any(|mark| mark.moved > 0);
        self.version += u64::from(changed);
        self.looked = Some(now);
    }

    /// Rises when what goes soon may be something else.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Whether a topic's start, which is here, passes `end` soon.
    pub fn passes_soon(&self, topic: TopicId, start: Offset, end: Offset) -> bool {
        self.marks.get(&topic).is_some_and(|mark| {
            let left = u128::from(end.get().saturating_sub(start.get()));
            let far = u128::from(mark.moved) * self.horizon.as_millis();
            mark.moved > 0 && left * mark.within.as_millis() <= far
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_moves_passes_what_lies_before_it() {
        let second = Duration::from_secs(1);
        let mut motion = Motion::new(2 * second, 10 * second);
        let begin = Instant::now();
        let [moving, resting] = [1, 2].map(|n| TopicId::from_bytes([n; 16]));
        let mut look = |seconds: u32, start: u64| {
            let now = begin + second * seconds;
            assert!(motion.is_due(now));
            let starts = [(moving, start), (resting, 77)];
            let starts = starts.map(|(topic, start)| (topic, Offset::new(start)));
            motion.look(starts.into_iter(), now);
            assert!(!motion.is_due(now + second));
            let soon = |topic, start: u64, end: u64| {
                motion.passes_soon(topic, Offset::new(start), Offset::new(end))
            };
            assert!(!soon(resting, 77, 78));
            let passed = [1, 999, 1000, 1001].map(|far| soon(moving, start, start + far));
            (passed, motion.version())
        };
        assert_eq!(look(0, 50), ([false; 4], 0), "nothing is known");
        assert_eq!(look(2, 250), ([true, true, true, false], 1), "100 a second");
        assert_eq!(look(4, 1250).0, [true; 4], "500 a second");
        assert_eq!(look(6, 1250), ([false; 4], 3), "it stopped");
        assert_eq!(look(8, 1250), ([false; 4], 3), "and rests");
    }
}
