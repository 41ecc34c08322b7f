//! A histogram of fixed classes: what it takes does not grow with what is recorded.

use std::sync::atomic::{AtomicU64, Ordering};

use metrics::HistogramFn;

use super::sample::Value;

/// How many values fell into each class, and their sum.
#[derive(Debug)]
pub(super) struct Classes {
    /// Upper bounds, in ticks.
    bounds: &'static [u64],
    /// Ticks of the base unit.
    ticks: f64,
    /// One more than bounds: for what is above all of them.
    counts: Box<[AtomicU64]>,
    sum: AtomicU64,
}

impl Classes {
    pub fn new(bounds: &'static [u64], ticks: u64) -> Self {
        Self {
            bounds,
            ticks: ticks as f64,
            counts: (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect(),
            sum: AtomicU64::new(0),
        }
    }

    /// What was recorded so far. The sum may be of a value more or less than the counts are.
    pub fn value(&self) -> Value {
        let counts = self.counts.iter();
        Value::Histogram {
            counts: counts.map(|count| count.load(Ordering::Relaxed)).collect(),
            sum: self.sum.load(Ordering::Relaxed),
        }
    }
}

impl HistogramFn for Classes {
    fn record(&self, value: f64) {
        // To the next tick. A cast of a float stops at the bounds of the integer, and makes 0 of what is no number.
        let ticks = (value * self.ticks + 0.5) as u64;
        let class = self.bounds.partition_point(|&bound| bound < ticks);
        self.counts[class].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(ticks, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_belongs_to_its_class() {
        let classes = Classes::new(&[10, 20], 1_000_000);
        for micros in [0.0, 10.0, 11.0, 20.0, 21.0, 4_000_000.0] {
            classes.record(micros / 1e6);
        }
        let counts = vec![2, 2, 2];
        let sum = 4_000_062;
        assert_eq!(classes.value(), Value::Histogram { counts, sum });
    }

    #[test]
    fn what_is_no_number_does_no_harm() {
        let classes = Classes::new(&[10], 1);
        classes.record(f64::NAN);
        classes.record(-1.0);
        let counts = vec![2, 0];
        assert_eq!(classes.value(), Value::Histogram { counts, sum: 0 });
    }
}
