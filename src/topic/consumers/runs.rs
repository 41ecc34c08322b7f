//! What is known and not settled: runs of offsets that share everything.
//!
//! The offsets between floor and cursor that no run holds are settled. So what a group remembers grows with what is open,
//! not with what is done, and to settle the oldest records moves the floor without looking at anything else.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Milliseconds of a clock that never goes back, from any beginning.
pub type Millis = u64;
/// A time that does not come.
pub(super) const NEVER: Millis = Millis::MAX;
/// A member, as long as it is one; never given twice.
pub type Slot = u32;
/// What stands for a key: equal keys have equal ones. Different keys with one are only ordered among each other.
pub type Key = u64;

/// Offsets that follow each other, and of which the same is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Run {
    /// The offset after the last one.
    pub end: u64,
    /// How many deliveries failed.
    pub failed: u32,
    /// How many there were, as far as is remembered.
    pub given: u32,
    /// The key; then it is one record.
    pub key: Option<Key>,
    pub place: Place,
}

/// Where a record is that is not settled (C5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// In flight.
    Held { member: Slot, until: Millis },
    /// Can be given out.
    Ready,
    /// Waits for its back-off.
    Later { until: Millis },
    /// Waits for what is older of its key.
    Parked,
    /// On its way to the dead letters.
    Dying { reason: Option<Arc<str>> },
}

/// How many records are where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Counts {
    pub all: u64,
    pub held: u64,
    /// Failed, and not in flight.
    pub failed: u64,
    pub parked: u64,
    pub dying: u64,
}

/// All runs, by their first offset; no two overlap.
#[derive(Debug, Clone, Default)]
pub(super) struct Runs {
    map: BTreeMap<u64, Run>,
    /// When something happens to which run.
    due: BTreeSet<(Millis, u64)>,
    ready: BTreeSet<u64>,
    dying: BTreeSet<u64>,
    counts: Counts,
    /// Records in flight, by member; none without any.
    held: BTreeMap<Slot, u64>,
}

impl Runs {
    /// Adds a run.
    pub fn insert(&mut self, first: u64, run: Run) {
        debug_assert!(first < run.end, "a run has a record");
        debug_assert!(
            run.key.is_none() || run.end == first + 1,
            "a key is one record's"
        );
        let records = run.end - first;
        self.counts.all += records;
        match &run.place {
            Place::Held { member, until } => {
                self.counts.held += records;
                *self.held.entry(*member).or_default() += records;
                if *until != NEVER {
                    self.due.insert((*until, first));
                }
            }
            Place::Ready => _ = self.ready.insert(first),
            Place::Later { until } => _ = self.due.insert((*until, first)),
            Place::Parked => self.counts.parked += records,
            Place::Dying { .. } => {
                self.counts.dying += records;
                self.dying.insert(first);
            }
        }
        if run.is_failed() {
            self.counts.failed += records;
        }
        let before = self.map.insert(first, run);
        debug_assert!(before.is_none(), "an offset is in one run (C5)");
    }

    /// Takes a run out.
    pub fn remove(&mut self, first: u64) -> Option<Run> {
        let run = self.map.remove(&first)?;
        let records = run.end - first;
        self.counts.all -= records;
        match &run.place {
            Place::Held { member, until } => {
                self.counts.held -= records;
                self.let_go(*member, records);
                self.due.remove(&(*until, first));
            }
            Place::Ready => _ = self.ready.remove(&first),
            Place::Later { until } => _ = self.due.remove(&(*until, first)),
            Place::Parked => self.counts.parked -= records,
            Place::Dying { .. } => {
                self.counts.dying -= records;
                self.dying.remove(&first);
            }
        }
        if run.is_failed() {
            self.counts.failed -= records;
        }
        Some(run)
    }

    fn let_go(&mut self, member: Slot, records: u64) {
        if let Some(held) = self.held.get_mut(&member) {
            *held -= records;
            if *held == 0 {
                self.held.remove(&member);
            }
        }
    }

    /// Takes `[from, to)` out of the run that begins at `first` and holds it; the rest stays as it is.
    pub fn cut(&mut self, first: u64, (from, to): (u64, u64)) -> Option<Run> {
        let run = self.remove(first)?;
        debug_assert!(first <= from && from < to && to <= run.end);
        if first < from {
            let end = from;
            self.insert(first, Run { end, ..run.clone() });
        }
        if to < run.end {
            self.insert(to, run.clone());
        }
        Some(Run { end: to, ..run })
    }

    /// The first run that ends after `offset`: the one that holds it, or the next.
    pub fn at_or_after(&self, offset: u64) -> Option<(u64, &Run)> {
        if let Some((first, run)) = self.map.range(..=offset).next_back()
            && run.end > offset
        {
            return Some((*first, run));
        }
        let next = self.map.range(offset..).next();
        next.map(|(first, run)| (*first, run))
    }

    /// The runs that have something in `[from, to)`, in order.
    pub fn within(&self, from: u64, to: u64) -> impl Iterator<Item = (u64, &Run)> {
        let first = self.at_or_after(from).map_or(from, |(first, _)| first);
        let found = self.map.range(first..to.max(first));
        found.map(|(first, run)| (*first, run))
    }

    /// The run that begins there.
    pub fn get(&self, first: u64) -> Option<&Run> {
        self.map.get(&first)
    }

    /// The oldest offset of all.
    pub fn first(&self) -> Option<u64> {
        self.map.first_key_value().map(|(first, _)| *first)
    }

    /// How many runs there are: what they cost.
    pub fn len(&self) -> usize {
        self.map.len()
    }

    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Records that a member holds.
    pub fn held_by(&self, member: Slot) -> u64 {
        self.held.get(&member).copied().unwrap_or(0)
    }

    /// The runs a member holds, in order.
    pub fn of_member(&self, member: Slot) -> Vec<u64> {
        let is_held =
            |run: &Run| matches!(run.place, Place::Held { member: by, .. } if by == member);
        let of_member = self.map.iter().filter(|(_, run)| is_held(run));
        match self.held.contains_key(&member) {
            true => of_member.map(|(first, _)| *first).collect(),
            false => Vec::new(),
        }
    }

    /// The first run whose time has come.
    pub fn first_due(&self, now: Millis) -> Option<u64> {
        let (until, first) = self.due.first()?;
        (*until <= now).then_some(*first)
    }

    /// Whether anything waits for a time.
    pub fn waits(&self) -> bool {
        !self.due.is_empty()
    }

    /// The runs that can be given out, the oldest first.
    pub fn ready(&self) -> impl Iterator<Item = u64> {
        self.ready.iter().copied()
    }

    /// The runs that die, the oldest first.
    pub fn dying(&self) -> impl Iterator<Item = u64> {
        self.dying.iter().copied()
    }

    /// All runs, in order.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &Run)> {
        self.map.iter().map(|(first, run)| (*first, run))
    }
}

impl Run {
    fn is_failed(&self) -> bool {
        let waits = !matches!(self.place, Place::Held { .. } | Place::Dying { .. });
        self.failed > 0 && waits
    }
}
