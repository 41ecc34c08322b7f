//! What was acknowledged: how many, which offsets, and with what durability.

use std::collections::BTreeMap;
use std::fmt;

use crate::types::{Durability, Offset};

/// Ranges shown to people before the rest is summed up.
const RANGES_SHOWN: usize = 8;

/// Acknowledgements added up.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    /// Half-open ranges by their start; none touches the next.
    ranges: BTreeMap<u64, u64>,
    records: u64,
    durability: Option<Durability>,
}

impl Tally {
    /// Adds one acknowledged message.
    pub fn add(&mut self, offset: Offset, durability: Durability) {
        let mut start = offset.get();
        let mut end = start.saturating_add(1);
        if let Some((&before, &before_end)) = self.ranges.range(..=start).next_back() {
            if before_end >= end {
                return;
            }
            if before_end == start {
                start = before;
            }
        }
        if let Some(after_end) = self.ranges.remove(&end) {
            end = after_end;
        }
        self.ranges.insert(start, end);
        self.records += 1;
        self.durability = match (self.durability, durability) {
            (Some(Durability::Os), _) | (_, Durability::Os) => Some(Durability::Os),
            _ => Some(Durability::Fsync),
        };
    }

    /// How many.
    pub const fn records(&self) -> u64 {
        self.records
    }

    /// The lowest offset.
    pub fn first_offset(&self) -> Option<Offset> {
        let (start, _) = self.ranges.first_key_value()?;
        Some(Offset::new(*start))
    }

    /// One more than the highest offset.
    pub fn end_offset(&self) -> Option<Offset> {
        let (_, end) = self.ranges.last_key_value()?;
        Some(Offset::new(*end))
    }

    /// The weakest durability among them.
    pub const fn durability(&self) -> Option<Durability> {
        self.durability
    }
}

impl fmt::Display for Tally {
    /// `offsets 0..5, 7..9`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.ranges.is_empty() {
            return f.write_str("no offsets");
        }
        f.write_str("offsets ")?;
        for (at, (start, end)) in self.ranges.iter().take(RANGES_SHOWN).enumerate() {
            let comma = if at == 0 { "" } else { ", " };
            write!(f, "{comma}{start}..{end}")?;
        }
        match self.ranges.len().saturating_sub(RANGES_SHOWN) {
            0 => Ok(()),
            more => write!(f, " and {more} more ranges"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(offsets: &[u64]) -> Tally {
        let mut tally = Tally::default();
        for &offset in offsets {
            tally.add(Offset::new(offset), Durability::Fsync);
        }
        tally
    }

    #[test]
    fn offsets_join_into_ranges_in_any_order() {
        assert_eq!(tally(&[0, 1, 2]).to_string(), "offsets 0..3");
        assert_eq!(tally(&[2, 0, 1]).to_string(), "offsets 0..3");
        assert_eq!(
            tally(&[5, 0, 4, 9]).to_string(),
            "offsets 0..1, 4..6, 9..10"
        );
        assert_eq!(tally(&[1, 1]).records(), 1);
        assert_eq!(tally(&[]).to_string(), "no offsets");
        let many: Vec<u64> = (0..20).map(|n| n * 2).collect();
        assert!(
            tally(&many)
                .to_string()
                .ends_with("14..15 and 12 more ranges")
        );
        let some = tally(&[7, 3]);
        assert_eq!(some.first_offset(), Some(Offset::new(3)));
        assert_eq!(some.end_offset(), Some(Offset::new(8)));
    }

    #[test]
    fn the_weakest_durability_counts() {
        let mut tally = tally(&[0]);
        assert_eq!(tally.durability(), Some(Durability::Fsync));
        tally.add(Offset::new(1), Durability::Os);
        tally.add(Offset::new(2), Durability::Fsync);
        assert_eq!(tally.durability(), Some(Durability::Os));
    }
}
