//! What is counted of delayed messages.

use std::time::Duration;

use metrics::{Counter, Histogram};

use crate::figures::{Registry, catalogue};

/// The handles to count with.
pub(super) struct DelayedMeters {
    delivered: Counter,
    cancelled: Counter,
    lost: Counter,
    lateness: Histogram,
}

impl DelayedMeters {
    pub fn new(registry: &Registry) -> Self {
        Self {
            delivered: catalogue::DELAYED_DELIVERED.counter(registry),
            cancelled: catalogue::DELAYED_CANCELLED.counter(registry),
            lost: catalogue::DELAYED_LOST.counter(registry),
            lateness: catalogue::DELAYED_LATENESS.histogram(registry),
        }
    }

    /// A step delivered so many; the first of them so late.
    pub fn delivered(&self, count: u64, late: Option<Duration>) {
        self.delivered.increment(count);
        if let Some(late) = late {
            self.lateness.record(late.as_secs_f64());
        }
    }

    /// So many were cancelled.
    pub fn cancelled(&self, count: u64) {
        self.cancelled.increment(count);
    }

    /// So many were gone from their companion before they were due.
    pub fn lost(&self, count: u64) {
        self.lost.increment(count);
    }
}
