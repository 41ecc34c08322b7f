//! The recorder of a node: gives out handles, and knows what they were used for.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use metrics::{
    Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit as GivenUnit,
};

use super::catalogue::{Kind, Metric};
use super::histogram::Classes;
use super::sample::{Collected, Value};

#[derive(Debug, Clone)]
enum Storage {
    Counter(Arc<AtomicU64>),
    Histogram(Arc<Classes>),
}

impl Storage {
    fn value(&self) -> Value {
        match self {
            Self::Counter(count) => Value::Number(count.load(Ordering::Relaxed)),
            Self::Histogram(classes) => classes.value(),
        }
    }
}

/// What a node counts while it works: figures without labels, each one series.
///
/// What it is asked for that the catalogue does not have, or has with labels, gets a handle
/// that counts nothing: such figures are computed.
#[derive(Debug, Default)]
pub struct Registry {
    /// Looked into when a part of the node is made and when somebody asks, never while it works.
    known: Mutex<BTreeMap<&'static str, (&'static Metric, Storage)>>,
}

impl Registry {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, (&'static Metric, Storage)>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn storage(&self, key: &Key) -> Option<Storage> {
        let metric = Metric::find(key.name()).filter(|metric| metric.labels.is_empty())?;
        let new = match metric.kind {
            Kind::Counter => Storage::Counter(Arc::default()),
            Kind::Histogram(bounds) => {
                Storage::Histogram(Arc::new(Classes::new(bounds, metric.unit.ticks())))
            }
            Kind::Gauge => return None,
        };
        let mut known = self.lock();
        let (_, storage) = known.entry(metric.name).or_insert((metric, new));
        Some(storage.clone())
    }

    /// What was counted of one figure, 0 or nothing if nobody counts it.
    pub fn value(&self, metric: &Metric) -> Value {
        let known = self.lock();
        let found = known.get(metric.name);
        found.map_or(Value::Number(0), |(_, storage)| storage.value())
    }

    /// Tells all of it.
    pub fn collect(&self, into: &mut Collected) {
        for (metric, storage) in self.lock().values() {
            into.family(metric).add([], storage.value());
        }
    }
}

impl Recorder for Registry {
    fn describe_counter(&self, _: KeyName, _: Option<GivenUnit>, _: SharedString) {}

    fn describe_gauge(&self, _: KeyName, _: Option<GivenUnit>, _: SharedString) {}

    fn describe_histogram(&self, _: KeyName, _: Option<GivenUnit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        match self.storage(key) {
            Some(Storage::Counter(count)) => Counter::from_arc(count),
            _ => Counter::noop(),
        }
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        match self.storage(key) {
            Some(Storage::Histogram(classes)) => Histogram::from_arc(classes),
            _ => Histogram::noop(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::catalogue::{RECORDS_IN, REQUESTS, SYNC};

    #[test]
    fn handles_of_one_figure_count_together() {
        let registry = Registry::default();
        RECORDS_IN.counter(&registry).increment(2);
        RECORDS_IN.counter(&registry).increment(3);
        SYNC.histogram(&registry).record(0.000_25);
        assert_eq!(registry.value(&RECORDS_IN), Value::Number(5));
        assert_eq!(
            (registry.value(&SYNC).count(), registry.value(&SYNC).sum()),
            (1, 250)
        );
        let mut collected = Collected::default();
        registry.collect(&mut collected);
        let text = collected.to_text();
        assert!(text.contains("tidings_records_in_total 5\n"), "{text}");
        assert!(
            text.contains("tidings_journal_sync_seconds_bucket{le=\"0.0005\"} 1\n"),
            "{text}"
        );
    }

    #[test]
    fn what_is_computed_or_unknown_is_not_counted() {
        let registry = Registry::default();
        REQUESTS.counter(&registry).increment(1);
        SYNC.counter(&registry).increment(1);
        metrics::with_local_recorder(&registry, || metrics::counter!("foreign").increment(1));
        assert_eq!(registry.value(&REQUESTS), Value::Number(0));
        assert_eq!(registry.value(&SYNC).count(), 0);
    }
}
