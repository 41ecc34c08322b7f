//! Pauses between attempts: doubling, bounded, and never the same for all clients,
//! so that those who lost a peer together do not come back together.

use std::time::{Duration, Instant};

use crate::limits;

/// Attempts that go on failing, and since when.
#[derive(Debug)]
pub(super) struct Backoff {
    attempts: u32,
    since: Instant,
}

impl Backoff {
    /// Begins with a first failure now.
    pub fn new() -> Self {
        Self::after(Duration::ZERO)
    }

    /// Begins with a first failure that itself took so long.
    pub fn after(waited: Duration) -> Self {
        let now = Instant::now();
        Self {
            attempts: 0,
            since: now.checked_sub(waited).unwrap_or(now),
        }
    }

    /// Since when there is no progress.
    pub fn since(&self) -> Instant {
        self.since
    }

    /// How long to wait before the next attempt: half to all of the doubled pause.
    pub fn pause(&mut self) -> Duration {
        let factor = 1 << self.attempts.min(16);
        self.attempts += 1;
        let whole = (limits::RETRY_PAUSE_MIN * factor).min(limits::RETRY_PAUSE_MAX);
        whole / 2 + whole.mul_f64(f64::from(random_byte()) / 512.0)
    }
}

fn random_byte() -> u8 {
    let mut byte = [128];
    // Without randomness the pause is three quarters: worse spread, still right.
    let _ = getrandom::fill(&mut byte);
    byte[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_their_bound() {
        let mut backoff = Backoff::new();
        let first = backoff.pause();
        assert!(first >= limits::RETRY_PAUSE_MIN / 2 && first <= limits::RETRY_PAUSE_MIN);
        for _ in 0..100 {
            assert!(backoff.pause() <= limits::RETRY_PAUSE_MAX);
        }
        assert!(backoff.pause() >= limits::RETRY_PAUSE_MAX / 2);
    }
}
