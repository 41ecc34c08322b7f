//! The rows of consumer groups.

use serde::{Deserialize, Serialize};

use crate::limits;
use crate::protocol::api::ConsumerGroupOptions;
use crate::time::Timestamp;
use crate::types::{Generation, Offset};

/// Facts about a consumer group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsumerGroupRow {
    /// Generation; the pages of another one are none of its own.
    pub generation: Generation,
    /// Everything before is settled.
    pub floor: Offset,
    /// Options.
    pub options: ConsumerGroupOptions,
    /// When it was made.
    pub created: Timestamp,
    /// Records acknowledged since then.
    pub acknowledged: u64,
    /// Records moved to the dead letters since then.
    pub dead: u64,
    /// Offsets that were gone before anybody had settled them.
    pub skipped: u64,
    /// When something was last settled.
    pub last_settled: Option<Timestamp>,
}

impl ConsumerGroupRow {
    /// That of a group that is made now, and begins at `floor`.
    pub fn new(
        generation: Generation,
        floor: Offset,
        options: ConsumerGroupOptions,
        created: Timestamp,
    ) -> Self {
        Self {
            generation,
            floor,
            options,
            created,
            acknowledged: 0,
            dead: 0,
            skipped: 0,
            last_settled: None,
        }
    }

    /// The page that the floor is in: pages before it say nothing.
    pub fn floor_page(&self) -> u64 {
        page_of(self.floor)
    }
}

/// The page an offset is in.
pub const fn page_of(offset: Offset) -> u64 {
    offset.get() / limits::CONSUMER_PAGE_OFFSETS
}

/// The first offset of a page.
pub const fn page_start(page: u64) -> Offset {
    Offset::new(page.saturating_mul(limits::CONSUMER_PAGE_OFFSETS))
}

/// What became of the offsets of one page, as far as the floor does not say it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ConsumerPageRow {
    /// A bit for each offset that is settled, the lowest first.
    pub settled: [u64; 4],
    /// The offsets that failed and are not settled, rising.
    pub failed: Vec<FailedRow>,
}

impl ConsumerPageRow {
    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        self.settled == [0; 4] && self.failed.is_empty()
    }

    /// Whether the offset at that place is settled.
    pub fn is_settled(&self, at: u8) -> bool {
        self.settled[usize::from(at / 64)] & 1 << (at % 64) != 0
    }

    /// Notes that the offsets at the places `[from, to)` are settled; 256 is the end.
    pub fn settle(&mut self, from: u16, to: u16) {
        for (word, bits) in (0..).zip(&mut self.settled) {
            let (first, end) = (word * 64, word * 64 + 64);
            let (from, to) = (from.max(first), to.min(end));
            if from < to {
                *bits |= u64::MAX >> (64 - (to - from)) << (from - first);
            }
        }
    }
}

/// An offset that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedRow {
    /// Its place in the page.
    pub at: u8,
    /// How often it failed; the highest bit says that it is to die.
    marks: u16,
    /// Before this it is not given out again.
    pub until: Timestamp,
    /// How long that was when it failed: whatever became of the clock, it waits no longer, in milliseconds.
    pub delay_ms: u32,
}

const DIES: u16 = 1 << 15;

impl FailedRow {
    /// An offset that failed so often, and whether it is to die of it.
    pub fn new(at: u8, times: u32, dies: bool) -> Self {
        let times = u16::try_from(times).unwrap_or(DIES).min(DIES - 1);
        Self {
            at,
            marks: times | if dies { DIES } else { 0 },
            until: Timestamp::from_millis(0),
            delay_ms: 0,
        }
    }

    /// How often it failed.
    pub fn times(&self) -> u32 {
        u32::from(self.marks & !DIES)
    }

    /// Whether it is on its way to the dead letters.
    pub fn dies(&self) -> bool {
        self.marks & DIES != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_those_of_their_places() {
        for (from, to) in [
            (0, 1),
            (0, 256),
            (63, 65),
            (64, 128),
            (255, 256),
            (5, 5),
            (1, 200),
        ] {
            let mut page = ConsumerPageRow::default();
            page.settle(from, to);
            for at in 0..=255_u8 {
                let expected = (from..to).contains(&u16::from(at));
                assert_eq!(page.is_settled(at), expected, "{at} of [{from}, {to})");
            }
            assert_eq!(page.is_empty(), from == to);
        }
    }

    #[test]
    fn marks_keep_both() {
        for (times, dies) in [(0, true), (1, false), (10_000, true), (32_767, false)] {
            let row = FailedRow::new(9, times, dies);
            assert_eq!((row.times(), row.dies()), (times, dies));
        }
        assert_eq!(FailedRow::new(9, u32::MAX, true).times(), 32_767);
    }
}
