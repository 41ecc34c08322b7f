//! Where a topic's records lie.
//!
//! Extents of segments that have no footer yet are kept here whole. Of sealed
//! segments only the number is kept, with the first offset of each run that the
//! topic has in it; the extents are looked up in the footer.

use std::collections::VecDeque;

use crate::journal::Extent;
use crate::types::Offset;

/// An extent in a segment without a footer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct OpenExtent {
    pub segment: u64,
    pub extent: Extent,
}

/// Records from `base` on, up to where the next run begins, are in `segment`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    pub base: Offset,
    pub segment: u64,
}

/// Where to look for an offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// In this extent.
    Open(OpenExtent),
    /// Perhaps in the footer of this segment; if not there, nothing is known before `next`.
    Sealed { segment: u64, next: Option<Offset> },
    /// Nowhere; the next offset that is somewhere.
    Nowhere { next: Option<Offset> },
}

impl Place {
    /// The segment it names.
    pub fn segment(&self) -> Option<u64> {
        match self {
            Self::Open(open) => Some(open.segment),
            Self::Sealed { segment, .. } => Some(*segment),
            Self::Nowhere { .. } => None,
        }
    }
}

/// The places of one topic, in the order of offsets.
#[derive(Debug, Default)]
pub(super) struct TopicIndex {
    runs: Vec<Run>,
    open: VecDeque<OpenExtent>,
}

impl TopicIndex {
    /// Notes a new extent at the end.
    pub fn push_open(&mut self, segment: u64, extent: Extent) {
        self.open.push_back(OpenExtent { segment, extent });
    }

    /// Notes a run of a sealed segment, at its place.
    pub fn insert_run(&mut self, run: Run) {
        let at = self
            .runs
            .partition_point(|old| (old.base, old.segment) < (run.base, run.segment));
        self.runs.insert(at, run);
    }

    /// Replaces the open extents of a segment by its runs.
    pub fn seal(&mut self, segment: u64, runs: impl IntoIterator<Item = Run>) {
        for run in runs {
            self.insert_run(run);
        }
        self.open.retain(|open| open.segment != segment);
    }

    /// Puts runs in the place of those of `gone`, in one step; nothing below `start` matters.
    pub fn replace(&mut self, gone: &[u64], runs: Vec<Run>, start: Offset) {
        self.runs.retain(|run| !gone.contains(&run.segment));
        self.runs.extend(runs);
        self.runs
            .sort_unstable_by_key(|run| (run.base, run.segment));
        self.trim(start);
    }

    /// Forgets what lies wholly below `start`.
    pub fn trim(&mut self, start: Offset) {
        while self
            .open
            .front()
            .is_some_and(|open| open.extent.end() <= start)
            && self.runs.is_empty()
        {
            self.open.pop_front();
        }
        let keep = self
            .runs
            .partition_point(|run| run.base <= start)
            .saturating_sub(1);
        self.runs.drain(..keep);
    }

    /// Where `offset` is.
    pub fn find(&self, offset: Offset) -> Place {
        let at = self.open.partition_point(|open| open.extent.base <= offset);
        let next_open = self.open.get(at).map(|open| open.extent.base);
        if let Some(open) = at.checked_sub(1).and_then(|at| self.open.get(at))
            && offset < open.extent.end()
        {
            return Place::Open(*open);
        }
        let at = self.runs.partition_point(|run| run.base <= offset);
        let next = self
            .runs
            .get(at)
            .map(|run| run.base)
            .into_iter()
            .chain(next_open)
            .min();
        match at.checked_sub(1).and_then(|at| self.runs.get(at)) {
            Some(run) => Place::Sealed {
                segment: run.segment,
                next,
            },
            None => Place::Nowhere { next },
        }
    }

    /// The segment without a footer that has the first offset below `end` of those that have none.
    pub fn find_open_below(&self, end: Offset) -> Option<u64> {
        let first = self.open.front().filter(|open| open.extent.base < end);
        first.map(|open| open.segment)
    }

    /// The runs, in the order of offsets.
    pub fn runs(&self) -> &[Run] {
        &self.runs
    }

    /// The last open extent for which `holds`, and the first for which it does not, given that it holds for those
    /// before and for none after.
    pub fn open_around(&self, holds: impl Fn(&Extent) -> bool) -> (Option<Extent>, Option<Extent>) {
        let at = self.open.partition_point(|open| holds(&open.extent));
        let extent = |at: usize| self.open.get(at).map(|open| open.extent);
        (at.checked_sub(1).and_then(extent), extent(at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Timestamp;

    fn extent(base: u64, records: u64) -> Extent {
        Extent {
            base: Offset::new(base),
            records: u32::try_from(records).expect("small"),
            position: 8192,
            length: 100,
            entries: 1,
            first_time: Timestamp::default(),
            last_time: Timestamp::default(),
        }
    }

    #[test]
    fn finds_records_and_names_the_holes() {
        let mut index = TopicIndex::default();
        index.push_open(7, extent(0, 10));
        index.push_open(7, extent(10, 10));
        index.push_open(8, extent(30, 5));
        assert!(
            matches!(index.find(Offset::new(15)), Place::Open(open) if open.extent.base.get() == 10)
        );
        assert_eq!(
            index.find(Offset::new(20)),
            Place::Nowhere {
                next: Some(Offset::new(30))
            }
        );
        assert_eq!(index.find(Offset::new(35)), Place::Nowhere { next: None });
        index.seal(
            7,
            [Run {
                base: Offset::new(0),
                segment: 7,
            }],
        );
        let sealed = Place::Sealed {
            segment: 7,
            next: Some(Offset::new(30)),
        };
        assert_eq!(index.find(Offset::new(15)), sealed);
        assert_eq!(index.find(Offset::new(20)), sealed);
        index.trim(Offset::new(25));
        assert_eq!(index.runs().len(), 1, "the run may reach up to 30");
        index.replace(&[7], Vec::new(), Offset::new(25));
        assert_eq!(
            index.find(Offset::ZERO),
            Place::Nowhere {
                next: Some(Offset::new(30))
            }
        );
    }
}
