//! What is counted of consumer groups.

use metrics::Counter;

use crate::figures::{Registry, catalogue};

/// The handles to count with.
pub(super) struct ConsumerMeters {
    redelivered: Counter,
    dead_lettered: Counter,
}

impl ConsumerMeters {
    pub fn new(registry: &Registry) -> Self {
        Self {
            redelivered: catalogue::REDELIVERED.counter(registry),
            dead_lettered: catalogue::DEAD_LETTERED.counter(registry),
        }
    }

    /// So many records were given out that had been given out before.
    pub fn redelivered(&self, records: u64) {
        if records > 0 {
            self.redelivered.increment(records);
        }
    }

    /// So many dead letters were written.
    pub fn dead_lettered(&self, records: u64) {
        self.dead_lettered.increment(records);
    }
}
