//! What the rows said of offsets that the cursor has not come to yet.
//!
//! A group that is read back knows which offsets were settled and which failed, but not what keys they have: that it
//! learns when it gets there. So it begins at its floor, and passes over what is settled.

use std::collections::{BTreeMap, BTreeSet};

use super::rows::{ConsumerPageRow, page_start};
use super::runs::Millis;
use crate::limits;
use crate::time::Timestamp;
use crate::types::Offset;

/// Now, by the two clocks there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// The one that never goes back: all waiting is by it.
    pub steady: Millis,
    /// The one that people have: what is written is by it.
    pub wall: Timestamp,
}

/// An offset that failed before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Failed {
    pub times: u32,
    pub dies: bool,
    pub until: Millis,
}

/// Offsets from the cursor on.
#[derive(Debug, Clone, Default)]
pub(super) struct Ahead {
    /// Settled intervals: the end by the first; no two touch.
    settled: BTreeMap<u64, u64>,
    settled_count: u64,
    failed: BTreeMap<u64, Failed>,
    dying: BTreeSet<u64>,
}

impl Ahead {
    /// Takes in a page.
    pub fn read(&mut self, page: u64, row: &ConsumerPageRow, (floor, now): (Offset, Now)) {
        let start = page_start(page).get();
        for at in 0..limits::CONSUMER_PAGE_OFFSETS {
            let offset = start + at;
            if offset >= floor.get() && row.is_settled(at as u8) {
                self.settle(offset, offset + 1);
            }
        }
        for failed in &row.failed {
            let offset = start + u64::from(failed.at);
            if offset < floor.get() || row.is_settled(failed.at) {
                continue;
            }
            let left = failed
                .until
                .as_millis()
                .saturating_sub(now.wall.as_millis());
            let left = u64::try_from(left).unwrap_or(0).min(failed.delay_ms.into());
            let failed = Failed {
                times: failed.times(),
                dies: failed.dies(),
                until: now.steady.saturating_add(left),
            };
            self.put_failed(offset, failed);
        }
    }

    fn put_failed(&mut self, offset: u64, failed: Failed) {
        self.failed.insert(offset, failed);
        match failed.dies {
            true => _ = self.dying.insert(offset),
            false => _ = self.dying.remove(&offset),
        }
    }

    /// Offsets that failed so often die.
    pub fn kill(&mut self, times: u32) {
        for (offset, failed) in &mut self.failed {
            if failed.times >= times {
                failed.dies = true;
                self.dying.insert(*offset);
            }
        }
    }

    /// `[from, to)` is settled.
    pub fn settle(&mut self, from: u64, to: u64) {
        let (mut first, mut end) = (from, to);
        while let Some((&before, &until)) = self.settled.range(..=end).next_back()
            && until >= first
        {
            self.settled.remove(&before);
            self.settled_count -= until - before;
            (first, end) = (first.min(before), end.max(until));
        }
        self.settled.insert(first, end);
        self.settled_count += end - first;
        let gone: Vec<u64> = self.failed.range(from..to).map(|(at, _)| *at).collect();
        for offset in gone {
            self.failed.remove(&offset);
            self.dying.remove(&offset);
        }
    }

    /// Where the settled offsets end that `offset` is among.
    pub fn settled_to(&self, offset: u64) -> Option<u64> {
        let (_, end) = self.settled.range(..=offset).next_back()?;
        (*end > offset).then_some(*end)
    }

    /// The next offset after `offset` of which something is known, settled or failed.
    pub fn next_known(&self, offset: u64) -> u64 {
        let settled = self.settled.range(offset..).next().map(|(first, _)| *first);
        let failed = self.failed.range(offset..).next().map(|(at, _)| *at);
        settled.into_iter().chain(failed).min().unwrap_or(u64::MAX)
    }

    pub fn failed(&self, offset: u64) -> Option<Failed> {
        self.failed.get(&offset).copied()
    }

    /// The failed offsets in `[from, to)`.
    pub fn failed_within(&self, from: u64, to: u64) -> impl Iterator<Item = (u64, Failed)> {
        let found = self.failed.range(from..to.max(from));
        found.map(|(at, failed)| (*at, *failed))
    }

    /// The settled intervals that have something in `[from, to)`, cut to it.
    pub fn settled_within(&self, from: u64, to: u64) -> impl Iterator<Item = (u64, u64)> {
        let before = self.settled.range(..from).next_back();
        let first = before
            .filter(|(_, end)| **end > from)
            .map_or(from, |(first, _)| *first);
        let found = self.settled.range(first..to.max(first));
        found.map(move |(first, end)| ((*first).max(from), (*end).min(to)))
    }

    /// The offsets that die.
    pub fn dying(&self) -> impl Iterator<Item = u64> {
        self.dying.iter().copied()
    }

    /// Forgets everything before `cursor`.
    pub fn forget_before(&mut self, cursor: u64) {
        while let Some((&first, &end)) = self.settled.first_key_value()
            && first < cursor
        {
            self.settled.remove(&first);
            self.settled_count -= end - first;
            if end > cursor {
                self.settled.insert(cursor, end);
                self.settled_count += end - cursor;
            }
        }
        while let Some((&at, _)) = self.failed.first_key_value()
            && at < cursor
        {
            self.failed.remove(&at);
            self.dying.remove(&at);
        }
    }

    /// How many offsets are settled, failed, and of these on their way to the dead letters.
    pub fn counts(&self) -> (u64, u64, u64) {
        let dying = self.dying.len() as u64;
        (self.settled_count, self.failed.len() as u64 - dying, dying)
    }

    /// What is remembered, in pieces.
    pub fn len(&self) -> usize {
        self.settled.len() + self.failed.len()
    }
}
