//! What is pending in one companion. Pure: time comes as an argument.

use std::collections::{BTreeMap, BTreeSet};

use super::Told;
use crate::limits;
use crate::time::Timestamp;
use crate::topic::consumers::{ConsumerGroupRow, ConsumerPageRow, Flush, page_of, page_start};
use crate::types::{IdDigest, Offset};

/// When a message is due, and which one it is: delayed messages are delivered in this order (D4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Due {
    /// Its time.
    pub at: Timestamp,
    /// Its number.
    pub number: Offset,
    /// Where it lies: somebody may have made up a number that another one has.
    pub offset: Offset,
}

/// A pending message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pending {
    /// Key, headers and value together, in bytes.
    pub bytes: u32,
    /// What stands for its id, if it has one.
    pub id: Option<IdDigest>,
}

/// How much one step takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepBounds {
    /// Most messages.
    pub records: usize,
    /// Most bytes; one message goes whatever it has.
    pub bytes: usize,
}

/// The pending messages of one companion.
#[derive(Debug, Clone)]
pub struct Schedule {
    row: ConsumerGroupRow,
    cursor: Offset,
    by_time: BTreeMap<Due, Pending>,
    by_offset: BTreeMap<Offset, Due>,
    /// Pages that the cursor has not passed yet, as they were read.
    ahead: BTreeMap<u64, ConsumerPageRow>,
    /// Those that the target refuses for good, for a while not tried again.
    aside: BTreeSet<Due>,
}

impl Schedule {
    /// That of rows. Nothing is known of what is pending until the records were taken in.
    pub fn load(
        row: ConsumerGroupRow,
        pages: impl Iterator<Item = (u64, ConsumerPageRow)>,
    ) -> Self {
        Self {
            cursor: row.floor,
            row,
            by_time: BTreeMap::new(),
            by_offset: BTreeMap::new(),
            ahead: pages.collect(),
            aside: BTreeSet::new(),
        }
    }

    /// The first offset that was not taken in.
    pub fn cursor(&self) -> Offset {
        self.cursor
    }

    /// The first offset that is not settled.
    pub fn floor(&self) -> Offset {
        let first = self.by_offset.first_key_value();
        first.map_or(self.cursor, |(offset, _)| *offset)
    }

    /// How many are pending.
    pub fn len(&self) -> usize {
        self.by_time.len()
    }

    /// Whether nothing is.
    pub fn is_empty(&self) -> bool {
        self.by_time.is_empty()
    }

    /// How many are set aside.
    pub fn aside(&self) -> usize {
        self.aside.len()
    }

    // --- taking in ---------------------------------------------------------------

    /// Takes in the record at the cursor, and moves on.
    pub fn take_in(&mut self, told: Told, pending: Pending) {
        let offset = self.cursor;
        if !self.was_settled(offset) {
            let due = Due {
                at: told.at,
                number: told.number.unwrap_or(offset),
                offset,
            };
            self.by_time.insert(due, pending);
            self.by_offset.insert(offset, due);
        }
        self.pass(offset.next());
    }

    /// Whether the rows said so.
    fn was_settled(&self, offset: Offset) -> bool {
        let page = page_of(offset);
        let at = offset.since(page_start(page)) as u8;
        self.ahead.get(&page).is_some_and(|row| row.is_settled(at))
    }

    /// Whether that is known to be settled without looking at the record; a page that is wholly settled is passed at once.
    pub fn pass_settled(&mut self) {
        while self.was_settled(self.cursor) {
            self.pass(self.cursor.next());
        }
    }

    /// There are no records between the cursor and `to`.
    pub fn pass(&mut self, to: Offset) {
        self.cursor = self.cursor.max(to);
        let page = page_of(self.cursor);
        if self
            .ahead
            .first_key_value()
            .is_some_and(|(first, _)| *first < page)
        {
            self.ahead = self.ahead.split_off(&page);
        }
    }

    /// What lies before `start` is gone from the topic: how many of those were pending (D6).
    pub fn begin_at(&mut self, start: Offset) -> u64 {
        let kept = self.by_offset.split_off(&start);
        let gone = std::mem::replace(&mut self.by_offset, kept);
        for due in gone.values() {
            self.by_time.remove(due);
            self.aside.remove(due);
        }
        self.pass(start);
        let count = gone.len() as u64;
        self.row.skipped = self.row.skipped.saturating_add(count);
        count
    }

    // --- choosing ------------------------------------------------------------------

    /// When the earliest one is due that is not set aside.
    pub fn next_due(&self) -> Option<Timestamp> {
        self.in_order().map(|(due, _)| due.at).next()
    }

    /// All that are not set aside, the earliest first.
    fn in_order(&self) -> impl Iterator<Item = (&Due, &Pending)> {
        let all = self.by_time.iter();
        all.filter(|(due, _)| self.aside.is_empty() || !self.aside.contains(due))
    }

    /// What one step delivers: the earliest that are due, in their order.
    pub fn due(&self, now: Timestamp, bounds: StepBounds) -> Vec<Due> {
        let due = self.in_order().take_while(|(due, _)| due.at <= now);
        within(due, bounds)
    }

    /// What one step moves to the end, if old messages hold too much, and more than `span_min` offsets: those at the
    /// lowest offsets.
    pub fn to_move(&self, bounds: StepBounds, span_min: u64) -> Vec<Due> {
        let span = self.cursor.since(self.floor());
        let few = (self.len() as u64).saturating_mul(limits::DELAYED_SPAN_FACTOR) < span;
        if span < span_min || !few {
            return Vec::new();
        }
        let all = self.by_offset.values();
        let known = all.filter_map(|due| self.by_time.get_key_value(due));
        within(known, bounds)
    }

    /// Pending ones, the earliest first.
    pub fn after(&self, after: Option<Due>) -> impl Iterator<Item = (&Due, &Pending)> {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = after.map_or(Unbounded, Excluded);
        self.by_time.range((from, Unbounded))
    }

    /// That one, if it is pending.
    pub fn at(&self, due: Due) -> Option<Due> {
        self.by_time.contains_key(&due).then_some(due)
    }

    /// The pending ones of that number.
    pub fn of_number(&self, number: Offset) -> Vec<Due> {
        let all = self.by_time.keys();
        all.filter(|due| due.number == number).copied().collect()
    }

    /// The pending ones of that id.
    pub fn of_id(&self, id: IdDigest) -> Vec<Due> {
        let all = self.by_time.iter();
        let of_id = all.filter(|(_, pending)| pending.id == Some(id));
        of_id.map(|(due, _)| *due).collect()
    }

    /// As many as one step settles without delivering them, of those that are given.
    pub fn fitting(&self, wanted: &[Due]) -> Vec<Due> {
        let known = wanted
            .iter()
            .filter_map(|due| self.by_time.get_key_value(due));
        let bounds = StepBounds {
            records: usize::MAX,
            bytes: usize::MAX,
        };
        within(known, bounds)
    }

    /// Sets one aside: its target never takes it, as it is now.
    pub fn set_aside(&mut self, due: Due) {
        if self.by_time.contains_key(&due) {
            self.aside.insert(due);
        }
    }

    /// Those that were set aside are tried again.
    pub fn try_all(&mut self) {
        self.aside.clear();
    }

    // --- settling --------------------------------------------------------------------

    /// The rows that settle these, as far as they are pending; to be followed by [`settled`](Self::settled) once they are
    /// durable. Until then nothing has changed.
    pub fn compose(&self, settling: &[Due], now: Timestamp) -> Flush {
        let gone: BTreeSet<Offset> = settling
            .iter()
            .filter(|due| self.by_time.contains_key(due))
            .map(|due| due.offset)
            .collect();
        let mut left = self
            .by_offset
            .keys()
            .filter(|offset| !gone.contains(offset));
        let floor = left.next().copied().unwrap_or(self.cursor);
        let row = ConsumerGroupRow {
            floor,
            acknowledged: self.row.acknowledged.saturating_add(gone.len() as u64),
            last_settled: Some(now),
            ..self.row.clone()
        };
        let pages: BTreeSet<u64> = gone.iter().map(|offset| page_of(*offset)).collect();
        let pages = pages.range(row.floor_page()..);
        let composed = pages.map(|page| (*page, self.page(*page, &gone))).collect();
        Flush::of(row, composed)
    }

    /// One page: of what was taken in everything is settled but what is pending.
    fn page(&self, page: u64, gone: &BTreeSet<Offset>) -> ConsumerPageRow {
        let start = page_start(page);
        let end = start.saturating_add(limits::CONSUMER_PAGE_OFFSETS);
        let taken_in = end.min(self.cursor);
        // What the cursor has not come to is as it was read.
        let mut row = self.ahead.get(&page).cloned().unwrap_or_default();
        let place = |offset: Offset| offset.since(start) as u16;
        let mut at = 0;
        for offset in self.by_offset.range(start..end).map(|(offset, _)| *offset) {
            if !gone.contains(&offset) {
                row.settle(at, place(offset));
                at = place(offset) + 1;
            }
        }
        row.settle(at, place(taken_in).max(at));
        row
    }

    /// What was composed is durable.
    pub fn settled(&mut self, settling: &[Due], flush: &Flush) {
        for due in settling {
            if self.by_time.remove(due).is_some() {
                self.by_offset.remove(&due.offset);
                self.aside.remove(due);
            }
        }
        debug_assert!(
            flush.row.floor <= self.floor(),
            "the floor never falls (D1)"
        );
        let skipped = self.row.skipped;
        self.row = ConsumerGroupRow {
            skipped,
            ..flush.row.clone()
        };
    }
}

/// The first ones that fit into one step, in messages, bytes, and pages of which rows are written.
fn within<'a>(all: impl Iterator<Item = (&'a Due, &'a Pending)>, bounds: StepBounds) -> Vec<Due> {
    let mut pages = BTreeSet::new();
    let mut bytes = 0_usize;
    let mut chosen = Vec::new();
    for (due, pending) in all {
        bytes = bytes.saturating_add(pending.bytes as usize + limits::DELAYED_OVERHEAD_BYTES);
        let is_over = bytes > bounds.bytes || chosen.len() >= bounds.records;
        if is_over && !chosen.is_empty() {
            break;
        }
        pages.insert(page_of(due.offset));
        if pages.len() > limits::DELAYED_STEP_PAGES_MAX {
            break;
        }
        chosen.push(*due);
    }
    chosen
}
