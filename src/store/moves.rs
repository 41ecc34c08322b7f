//! Which readable ends moved, for whoever follows many topics at once.
//!
//! ```text
//!   moves     … 41   42   43   44   45  │ 46, to come
//!   topic        a    b    a    c    a  │
//!                ▲ first kept         ▲ a watcher that has seen 43 is told of c and a
//! ```
//!
//! Each time an end moves it gets the next number, and the topic's id is kept
//! under it, a bounded number of the latest. A watcher says what it has seen and
//! is told what moved since, however many topics rest. While nobody asks nothing
//! is kept: that costs publishing one look at a flag.
//!
//! Invariant: a move that is not yet recorded when a watcher is told number `n`
//! gets a number above `n`, or its end is readable for the answer already.

use std::collections::{HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use tokio::time::Instant;

use super::Store;
use super::shared::TopicShared;
use crate::limits;
use crate::protocol::api::{TopicEnd, TopicEnds, WatchEnds};
use crate::types::{TopicId, TopicName};

/// The latest moves.
pub(super) struct Moves {
    is_wanted: AtomicBool,
    log: Mutex<Log>,
    latest: watch::Sender<u64>,
}

struct Log {
    moved: VecDeque<TopicId>,
    /// Number of the next one. Numbers begin above 0, which a watcher sends that has seen nothing.
    next: u64,
    /// Recorded since anybody asked.
    unasked: usize,
}

/// What moved after a number.
#[derive(Debug, PartialEq, Eq)]
struct Since {
    topics: Vec<TopicId>,
    /// Everything up to here is told.
    version: u64,
}

impl Default for Moves {
    fn default() -> Self {
        let log = Log {
            moved: VecDeque::new(),
            next: 2,
            unasked: 0,
        };
        Self {
            is_wanted: AtomicBool::new(false),
            log: Mutex::new(log),
            latest: watch::Sender::new(1),
        }
    }
}

impl Moves {
    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The readable end of that topic has moved, and readers see it.
    pub fn record(&self, topic: TopicId) {
        if !self.is_wanted.load(Ordering::SeqCst) {
            return;
        }
        let mut log = self.log();
        log.unasked += 1;
        if log.unasked > limits::MOVES_KEPT {
            log.forget();
            self.is_wanted.store(false, Ordering::SeqCst);
            return;
        }
        if log.moved.len() == limits::MOVES_KEPT {
            log.moved.pop_front();
        }
        log.moved.push_back(topic);
        log.next += 1;
        self.latest.send_replace(log.next - 1);
    }

    /// What moved after `version`, at most so many topics; `None` if that is not known, and `now` then.
    fn since(&self, version: u64, max: usize) -> Result<Since, u64> {
        let mut log = self.log();
        log.unasked = 0;
        if !self.is_wanted.swap(true, Ordering::SeqCst) {
            log.forget();
        }
        log.since(version, max).ok_or(log.next - 1)
    }
}

impl Log {
    /// From here on no number that was told before is known.
    fn forget(&mut self) {
        self.moved = VecDeque::new();
        self.next += 1;
    }

    fn since(&self, version: u64, max: usize) -> Option<Since> {
        let first = self.next - self.moved.len() as u64;
        if version + 1 < first || version >= self.next {
            return None;
        }
        let passed = usize::try_from(version + 1 - first).ok()?;
        let (mut topics, mut seen) = (Vec::new(), HashSet::new());
        let mut told = version;
        for topic in self.moved.range(passed..) {
            if topics.len() == max && !seen.contains(topic) {
                break;
            }
            if seen.insert(*topic) {
                topics.push(*topic);
            }
            told += 1;
        }
        Some(Since {
            topics,
            version: told,
        })
    }
}

impl Store {
    /// The topics that match and whose ends moved after the version the watcher has seen, or a page of all that
    /// match if it has seen none, or one that is too old.
    pub fn topic_ends(&self, asked: &WatchEnds) -> TopicEnds {
        let moves = &self.shared.moves;
        match moves.since(asked.version, limits::PAGE_ENTRIES_MAX) {
            Ok(since) if asked.version > 0 => {
                let topics = self.shared.topics();
                let known = since.topics.iter().filter_map(|id| topics.by_id.get(id));
                let matching = known.filter(|topic| asked.pattern.matches(&topic.name()));
                TopicEnds {
                    version: since.version,
                    all: false,
                    ends: matching.map(|topic| end_of(topic)).collect(),
                    next: None,
                }
            }
            Ok(Since { version, .. }) | Err(version) => self.page_of_ends(asked, version),
        }
    }

    fn page_of_ends(&self, asked: &WatchEnds, version: u64) -> TopicEnds {
        use std::ops::Bound::{Excluded, Unbounded};
        let topics = self.shared.topics();
        let after = asked.after.as_ref().map_or(Unbounded, Excluded);
        let mut ends = Vec::new();
        let mut next = None;
        let names = topics.by_name.range::<TopicName, _>((after, Unbounded));
        for (looked_at, (name, id)) in names.enumerate() {
            if looked_at == limits::PAGE_ENTRIES_MAX {
                break;
            }
            next = Some((looked_at + 1 == limits::PAGE_ENTRIES_MAX).then(|| name.clone()));
            if asked.pattern.matches(name)
                && let Some(topic) = topics.by_id.get(id)
            {
                ends.push(end_of(topic));
            }
        }
        TopicEnds {
            version,
            all: true,
            ends,
            next: next.flatten(),
        }
    }

    /// Those who wait for ends to move.
    pub fn ends_watchers(&self) -> usize {
        self.shared.moves.latest.receiver_count()
    }

    /// Waits until an end moves after `version`, or the time is over.
    pub async fn wait_for_moves(&self, version: u64, deadline: Instant) {
        let mut latest = self.shared.moves.latest.subscribe();
        let moved = latest.wait_for(|latest| *latest > version);
        let _ = tokio::time::timeout_at(deadline, moved).await;
    }
}

fn end_of(topic: &TopicShared) -> TopicEnd {
    let start_offset = topic.start();
    TopicEnd {
        id: topic.id,
        start_offset,
        end_offset: topic.readable_end().max(start_offset),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic(n: u8) -> TopicId {
        TopicId::from_bytes([n; 16])
    }

    #[test]
    fn a_watcher_is_told_each_topic_once_and_nothing_twice() {
        let moves = Moves::default();
        moves.record(topic(9));
        let begin = moves.since(0, 10).expect_err("nothing is known before");
        for n in [1, 2, 1, 3, 1] {
            moves.record(topic(n));
        }
        let since = moves.since(begin, 10).expect("known");
        assert_eq!(since.topics, [topic(1), topic(2), topic(3)]);
        let nothing = moves.since(since.version, 10).expect("known");
        assert_eq!((nothing.topics.len(), nothing.version), (0, since.version));
        let some = moves.since(begin, 2).expect("known");
        assert_eq!(some.topics, [topic(1), topic(2)]);
        let rest = moves.since(some.version, 2).expect("known");
        assert_eq!(rest.topics, [topic(3), topic(1)]);
        assert_eq!(rest.version, since.version);
    }

    #[test]
    fn who_is_too_far_behind_or_ahead_is_told_so() {
        let moves = Moves::default();
        let begin = moves.since(0, 10).expect_err("nothing is known");
        for _ in 0..2 {
            for _ in 0..limits::MOVES_KEPT / 2 + 1 {
                moves.record(topic(1));
            }
            let ahead = moves.since(u64::MAX - 1, 10);
            assert!(ahead.is_err());
        }
        assert!(moves.since(begin, 10).is_err(), "it is forgotten");
        assert!(moves.log().moved.len() <= limits::MOVES_KEPT);
    }

    #[test]
    fn nothing_is_kept_while_nobody_asks() {
        let moves = Moves::default();
        let begin = moves.since(0, 10).expect_err("nothing is known");
        for _ in 0..=limits::MOVES_KEPT {
            moves.record(topic(1));
        }
        assert!(!moves.is_wanted.load(Ordering::SeqCst));
        assert!(moves.log().moved.is_empty());
        moves.record(topic(1));
        assert!(moves.since(begin, 10).is_err(), "it missed something");
    }
}
