//! Whether the wall clock is believed.

use std::time::Duration;

use crate::limits;
use crate::time::Timestamp;

/// Milliseconds by a clock that never jumps.
pub type Steady = u64;

/// The two clocks, as they stood when they were first looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clocks {
    wall: Timestamp,
    steady: Steady,
}

impl Clocks {
    /// From here on both are expected to go on alike.
    pub const fn new(wall: Timestamp, steady: Steady) -> Self {
        Self { wall, steady }
    }

    /// How far the wall clock is ahead of where it should be, if that is too far for anything to be due by it. One that
    /// was set back only delays.
    pub fn ahead(&self, wall: Timestamp, steady: Steady) -> Option<Duration> {
        let passed = Duration::from_millis(steady.saturating_sub(self.steady));
        let ahead = wall.since(self.wall.after(passed));
        (ahead > limits::CLOCKS_APART_MAX).then_some(ahead)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_jump_forward_is_not_believed() {
        const HOUR: u64 = 3_600_000;
        let at = |hours: i64| Timestamp::from_millis(1_700_000_000_000 + hours * HOUR as i64);
        let clocks = Clocks::new(at(0), 5);
        let ahead = |wall, steady: u64| clocks.ahead(at(wall), 5 + steady * HOUR);
        assert_eq!(ahead(0, 0), None);
        assert_eq!(ahead(48, 48), None);
        assert_eq!(ahead(49, 48), None, "an hour is believed");
        assert_eq!(ahead(50, 48), Some(Duration::from_millis(2 * HOUR)));
        assert_eq!(ahead(-9, 48), None, "back only delays");
        assert_eq!(ahead(50, 50), None, "they agree again");
    }
}
