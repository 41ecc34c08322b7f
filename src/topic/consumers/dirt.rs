//! What changed and is not written yet.
//!
//! Every change has a number. A page that changed waits in a line, with the number of its first change, until it is
//! composed; whoever wants to know that something is durable asks for the number of its last change.

use std::collections::{BTreeSet, HashSet, VecDeque};

use crate::limits;

/// Pages beyond the first and the last that are noted of one interval.
const PAGES_NOTED_MAX: u64 = 256;

/// The changed pages, in the order they are written in.
#[derive(Debug, Clone, Default)]
pub(super) struct Dirt {
    version: u64,
    /// Changes up to this were composed.
    composed: u64,
    line: VecDeque<(u64, u64)>,
    in_line: HashSet<u64>,
    /// Pages that have a row, as far as was composed.
    stored: BTreeSet<u64>,
}

impl Dirt {
    /// The number of the last change.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Whether something is to be written.
    pub fn is_dirty(&self) -> bool {
        self.version > self.composed
    }

    /// Pages that have rows.
    pub fn stored(&self) -> usize {
        self.stored.len()
    }

    /// Notes that a page has a row.
    pub fn is_stored(&mut self, page: u64) {
        self.stored.insert(page);
    }

    /// Something changed that only the group's row tells.
    pub fn change(&mut self) {
        self.version += 1;
    }

    /// Something changed in `[from, to)`. Of a long interval, one in which there never was a record, the pages
    /// in the middle are not written: whoever reads it again finds as much.
    pub fn touch(&mut self, from: u64, to: u64) {
        self.version += 1;
        let (first, last) = (
            from / limits::CONSUMER_PAGE_OFFSETS,
            (to - 1) / limits::CONSUMER_PAGE_OFFSETS,
        );
        if last - first > PAGES_NOTED_MAX {
            self.note(first);
            self.note(last);
        } else {
            (first..=last).for_each(|page| self.note(page));
        }
    }

    fn note(&mut self, page: u64) {
        if self.in_line.insert(page) {
            self.line.push_back((self.version, page));
        }
    }

    /// The next page to be written.
    pub fn next(&mut self) -> Option<u64> {
        let (_, page) = self.line.pop_front()?;
        self.in_line.remove(&page);
        Some(page)
    }

    /// This page is written out of its turn.
    pub fn take(&mut self, page: u64) {
        if self.in_line.remove(&page) {
            self.line.retain(|(_, waiting)| *waiting != page);
        }
    }

    /// Notes whether a composed page has a row from now on; returns whether that is to be written.
    pub fn composed_page(&mut self, page: u64, has_row: bool) -> bool {
        match has_row {
            true => {
                self.stored.insert(page);
                true
            }
            false => self.stored.remove(&page),
        }
    }

    /// Pages before that one went with the floor.
    pub fn forget_before(&mut self, page: u64) {
        self.stored = self.stored.split_off(&page);
    }

    /// All pages for which there was room were composed: what was changed up to the returned number is in them.
    pub fn composed(&mut self) -> (u64, u64) {
        let before = self.composed;
        self.composed = match self.line.front() {
            Some((version, _)) => version - 1,
            None => self.version,
        };
        (before, self.composed)
    }

    /// What was composed was not written.
    pub fn undo(&mut self, before: u64, pages: impl DoubleEndedIterator<Item = u64>) {
        for page in pages.rev() {
            self.take(page);
            self.in_line.insert(page);
            self.line.push_front((before + 1, page));
            self.stored.insert(page);
        }
        self.composed = before;
    }
}
