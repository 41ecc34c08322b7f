//! Rows of a group, as it is now.

use super::ahead::Now;
use super::group::Group;
use super::rows::{ConsumerGroupRow, ConsumerPageRow, FailedRow, page_of, page_start};
use super::runs::{Millis, Place};
use crate::limits;
use crate::time::Timestamp;
use crate::types::Offset;

/// Rows to be written in one step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flush {
    /// The group's row.
    pub row: ConsumerGroupRow,
    /// Pages with their rows; `None` where one has none any more.
    pub pages: Vec<(u64, Option<ConsumerPageRow>)>,
    /// Changes up to this number are durable with it.
    pub through: u64,
    /// And up to this without it.
    before: u64,
}

impl Flush {
    /// The rows of whoever settles without a [`Group`]: pages from the floor's on, as they are to be.
    pub fn of(row: ConsumerGroupRow, pages: Vec<(u64, ConsumerPageRow)>) -> Self {
        let says = |(page, content): (u64, ConsumerPageRow)| {
            let says = says_more(&content, page, row.floor);
            (page, says.then_some(content))
        };
        let pages = pages.into_iter().map(says).collect();
        Self {
            row,
            pages,
            through: 0,
            before: 0,
        }
    }

    /// Bytes of its rows, about.
    pub fn bytes(&self) -> usize {
        let row = |row: &Option<ConsumerPageRow>| row.as_ref().map_or(0, page_bytes);
        let pages = self.pages.iter();
        2 * limits::KIB + pages.map(|(_, page)| 48 + row(page)).sum::<usize>()
    }
}

fn page_bytes(page: &ConsumerPageRow) -> usize {
    48 + 15 * page.failed.len()
}

impl Group {
    /// The number of the last change: whoever asked for it is answered when that is durable.
    pub fn version(&self) -> u64 {
        self.dirt.version()
    }

    /// Whether something is to be written.
    pub fn is_dirty(&self) -> bool {
        self.dirt.is_dirty()
    }

    /// How many pages have rows.
    pub fn pages(&self) -> usize {
        self.dirt.stored()
    }

    /// The rows that changed, as they are now, as far as one step takes them. `burying`: rising offsets of dying records that
    /// are settled by the same step. `None` where nothing changed. To be followed by [`undo`](Self::undo) if it is not written.
    pub fn compose(&mut self, burying: &[Offset], now: Now) -> Option<Flush> {
        if !self.dirt.is_dirty() && burying.is_empty() {
            return None;
        }
        let row = ConsumerGroupRow {
            dead: self.row.dead.saturating_add(burying.len() as u64),
            ..self.row()
        };
        let floor_page = row.floor_page();
        self.dirt.forget_before(floor_page);
        let mut flush = Flush {
            row,
            pages: Vec::new(),
            through: 0,
            before: 0,
        };
        for offset in burying {
            let page = page_of(*offset);
            if flush.pages.last().is_none_or(|(last, _)| *last != page) {
                self.dirt.take(page);
                self.compose_page(page, burying, now, &mut flush);
            }
        }
        while flush.bytes() < limits::CONSUMER_FLUSH_BYTES
            && flush.pages.len() < limits::CONSUMER_FLUSH_PAGES_MAX
            && let Some(page) = self.dirt.next()
        {
            if page >= floor_page {
                self.compose_page(page, burying, now, &mut flush);
            }
        }
        (flush.before, flush.through) = self.dirt.composed();
        Some(flush)
    }

    fn compose_page(&mut self, page: u64, burying: &[Offset], now: Now, flush: &mut Flush) {
        let row = self.page(page, burying, now);
        let says = says_more(&row, page, flush.row.floor);
        if self.dirt.composed_page(page, says) {
            flush.pages.push((page, says.then_some(row)));
        }
    }

    /// What was composed was not written.
    pub fn undo(&mut self, flush: &Flush) {
        let pages = flush.pages.iter().map(|(page, _)| *page);
        self.dirt.undo(flush.before, pages);
    }

    /// One page, as it is now.
    pub(super) fn page(&self, page: u64, burying: &[Offset], now: Now) -> ConsumerPageRow {
        let start = page_start(page).get();
        let end = start.saturating_add(limits::CONSUMER_PAGE_OFFSETS);
        let is_buried = |offset: u64| burying.binary_search(&Offset::new(offset)).is_ok();
        let mut row = ConsumerPageRow::default();
        // What lies before the cursor and in no run is settled.
        let mut at = start;
        for (first, run) in self.runs.within(start, end) {
            let (first, to) = (first.max(start), run.end.min(end));
            settle(&mut row, start, (at, first));
            at = to;
            let (dies, until) = match &run.place {
                Place::Dying { .. } => (true, 0),
                Place::Later { until } => (false, *until),
                _ => (false, 0),
            };
            if run.failed > 0 || dies {
                for offset in (first..to).filter(|offset| !is_buried(*offset)) {
                    let failed = FailedRow::new((offset - start) as u8, run.failed, dies);
                    row.failed.push(waiting(failed, until, now));
                }
            }
        }
        settle(&mut row, start, (at, self.cursor.min(end)));
        let ahead = self.cursor.max(start);
        for (from, to) in self.ahead.settled_within(ahead, end) {
            settle(&mut row, start, (from, to));
        }
        for (offset, known) in self.ahead.failed_within(ahead, end) {
            if !is_buried(offset) {
                let failed = FailedRow::new((offset - start) as u8, known.times, known.dies);
                row.failed.push(waiting(failed, known.until, now));
            }
        }
        for offset in burying.iter().map(|offset| offset.get()) {
            if (start..end).contains(&offset) {
                settle(&mut row, start, (offset, offset + 1));
            }
        }
        row
    }
}

fn settle(row: &mut ConsumerPageRow, start: u64, (from, to): (u64, u64)) {
    if from < to {
        row.settle((from - start) as u16, (to - start) as u16);
    }
}

/// With the time it waits for, as people's clock has it.
fn waiting(mut failed: FailedRow, until: Millis, now: Now) -> FailedRow {
    let left = until.saturating_sub(now.steady);
    if left == 0 {
        return failed;
    }
    let delay_ms = u32::try_from(left).unwrap_or(u32::MAX);
    let until = now.wall.as_millis().saturating_add(i64::from(delay_ms));
    failed.until = Timestamp::from_millis(until);
    failed.delay_ms = delay_ms;
    failed
}

/// Whether a page says something that the floor does not.
fn says_more(row: &ConsumerPageRow, page: u64, floor: Offset) -> bool {
    let below = floor.get().saturating_sub(page_start(page).get());
    let mut of_floor = ConsumerPageRow::default();
    of_floor.settle(0, u16::try_from(below).unwrap_or(u16::MAX).min(256));
    row.settled != of_floor.settled || !row.failed.is_empty()
}
