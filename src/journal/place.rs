//! Places in the journal, and sector arithmetic.

use std::fmt;

/// A byte in the journal: a segment and a position in its slot. Ordered as the segments are numbered.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Place {
    /// The segment's number; 0 stands for no place at all.
    pub segment: u64,
    /// The position in the slot, in bytes.
    pub position: u32,
}

impl Place {
    /// No place: where the group before the first one "ended".
    pub const NONE: Self = Self {
        segment: 0,
        position: 0,
    };

    /// The place at `position` of `segment`.
    pub const fn new(segment: u64, position: u32) -> Self {
        Self { segment, position }
    }

    /// Whether this is [`Place::NONE`].
    pub fn is_none(self) -> bool {
        self == Self::NONE
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.segment, self.position)
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// The first multiple of `sector` that is not below `position`.
pub fn round_up(position: u32, sector: u32) -> u32 {
    position
        .checked_next_multiple_of(sector)
        .expect("positions lie below the largest slot, far from the end of 32 bits")
}

/// The last multiple of `sector` that is not above `position`.
pub fn round_down(position: u32, sector: u32) -> u32 {
    position - position % sector
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_is_segment_then_position() {
        assert!(Place::new(1, 9000) < Place::new(2, 8192));
        assert!(Place::new(2, 8192) < Place::new(2, 8193));
        assert!(Place::NONE.is_none() && !Place::new(1, 0).is_none());
    }

    #[test]
    fn rounds_to_sectors() {
        assert_eq!(
            [0, 1, 512, 513].map(|p| round_up(p, 512)),
            [0, 512, 512, 1024]
        );
        assert_eq!(
            [0, 1, 512, 1023].map(|p| round_down(p, 512)),
            [0, 0, 512, 512]
        );
    }
}
