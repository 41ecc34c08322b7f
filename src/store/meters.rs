//! What the store counts while it works.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use metrics::{Counter, Histogram};

use crate::figures::{Registry, catalogue};
use crate::topic::State;

/// The handles that the store's threads count with.
pub(super) struct Meters {
    pub registry: Arc<Registry>,
    records_in: Counter,
    bytes_in: Counter,
    records_out: Counter,
    bytes_out: Counter,
    group_bytes: Histogram,
    group_entries: Histogram,
    sync: Histogram,
    tail_hits: Counter,
    tail_misses: Counter,
    reads_ahead: Counter,
    subscriptions_expired: Counter,
    repeated: Counter,
    known_ids: Counter,
    /// Rows of the state by kind, as of the last time somebody counted them.
    subscriptions: AtomicU64,
    producers: AtomicU64,
    consumer_groups: AtomicU64,
    ids: AtomicU64,
}

impl Default for Meters {
    fn default() -> Self {
        let registry: Arc<Registry> = Arc::default();
        let all = &*registry;
        Self {
            records_in: catalogue::RECORDS_IN.counter(all),
            bytes_in: catalogue::BYTES_IN.counter(all),
            records_out: catalogue::RECORDS_OUT.counter(all),
            bytes_out: catalogue::BYTES_OUT.counter(all),
            group_bytes: catalogue::GROUP_BYTES.histogram(all),
            group_entries: catalogue::GROUP_ENTRIES.histogram(all),
            sync: catalogue::SYNC.histogram(all),
            tail_hits: catalogue::TAIL_HITS.counter(all),
            tail_misses: catalogue::TAIL_MISSES.counter(all),
            reads_ahead: catalogue::READ_AHEAD.counter(all),
            subscriptions_expired: catalogue::SUBSCRIPTIONS_EXPIRED.counter(all),
            repeated: catalogue::REPEATED.counter(all),
            known_ids: catalogue::KNOWN_IDS.counter(all),
            subscriptions: AtomicU64::new(0),
            producers: AtomicU64::new(0),
            consumer_groups: AtomicU64::new(0),
            ids: AtomicU64::new(0),
            registry,
        }
    }
}

impl Meters {
    /// A group was written, of so many bytes.
    pub fn group(&self, entries: usize, bytes: usize) {
        self.group_bytes.record(bytes as f64);
        self.group_entries.record(entries as f64);
    }

    /// So many records were stored, in batches of so many bytes.
    pub fn came_in(&self, records: u64, bytes: u64) {
        self.records_in.increment(records);
        self.bytes_in.increment(bytes);
    }

    /// The journal was synced.
    pub fn synced(&self, took: Duration) {
        self.sync.record(took.as_secs_f64());
    }

    /// A fetch was answered.
    pub fn fetched(&self, through: &Through, (records, bytes): (u64, u64)) {
        if records > 0 {
            self.records_out.increment(records);
            self.bytes_out.increment(bytes);
            through.went_out(records, bytes);
        }
    }

    /// Pieces were read from memory and from files.
    pub fn looked_up(&self, hits: u64, misses: u64) {
        if hits > 0 {
            self.tail_hits.increment(hits);
        }
        if misses > 0 {
            self.tail_misses.increment(misses);
        }
    }

    /// An answer had been read ahead.
    pub fn was_ahead(&self) {
        self.reads_ahead.increment(1);
    }

    /// A subscription expired.
    pub fn subscription_expired(&self) {
        self.subscriptions_expired.increment(1);
    }

    /// Counts what there is in the state; returns the number of its rows.
    pub fn take_stock(&self, state: &State) -> u64 {
        let stock = state.stock();
        let set = |to: &AtomicU64, count| to.store(count, Ordering::Relaxed);
        set(&self.subscriptions, stock.subscriptions);
        set(&self.producers, stock.producers);
        set(&self.consumer_groups, stock.consumer_groups);
        set(&self.ids, stock.ids);
        stock.rows()
    }

    /// Batches came that were there: by their sequences, by the ids of their messages.
    pub fn were_known(&self, [repeated, known_ids]: [u64; 2]) {
        if repeated > 0 {
            self.repeated.increment(repeated);
        }
        if known_ids > 0 {
            self.known_ids.increment(known_ids);
        }
    }

    /// Subscriptions, producers and consumer groups there are.
    pub fn stock(&self) -> (u64, u64, u64) {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let groups = of(&self.consumer_groups);
        (of(&self.subscriptions), of(&self.producers), groups)
    }

    /// Message ids there are.
    pub fn ids(&self) -> u64 {
        self.ids.load(Ordering::Relaxed)
    }
}

/// What went through a topic since the start.
#[derive(Debug, Default)]
pub(super) struct Through {
    records_in: AtomicU64,
    bytes_in: AtomicU64,
    records_out: AtomicU64,
    bytes_out: AtomicU64,
}

impl Through {
    pub fn came_in(&self, records: u64, bytes: u64) {
        self.records_in.fetch_add(records, Ordering::Relaxed);
        self.bytes_in.fetch_add(bytes, Ordering::Relaxed);
    }

    fn went_out(&self, records: u64, bytes: u64) {
        self.records_out.fetch_add(records, Ordering::Relaxed);
        self.bytes_out.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Records and bytes that came in, and those that went out.
    pub fn all(&self) -> ((u64, u64), (u64, u64)) {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        (
            (of(&self.records_in), of(&self.bytes_in)),
            (of(&self.records_out), of(&self.bytes_out)),
        )
    }
}
