//! What the store counts while it works, and what it tells of its topics.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use metrics::{Counter, Histogram};
use tokio_util::task::AbortOnDropHandle;

use super::Store;
use super::command::Context;
use super::reader::ReadResult;
use super::shared::{Shared, TopicShared};
use super::staging::StagedEntry;
use crate::figures::{Registry, catalogue};
use crate::journal::EntryKind;
use crate::limits;
use crate::protocol::error::ApiError;
use crate::topic::State;
use crate::types::{Offset, SubscriptionName, TopicId, TopicName};

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
    /// Rows of the state by kind, as of the last time somebody counted them.
    subscriptions: AtomicU64,
    producers: AtomicU64,
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
            subscriptions: AtomicU64::new(0),
            producers: AtomicU64::new(0),
            registry,
        }
    }
}

impl Meters {
    /// A group was written, of so many bytes.
    pub fn group(&self, entries: &[StagedEntry], bytes: usize) {
        let batches = entries
            .iter()
            .filter(|entry| entry.kind == EntryKind::Records);
        let (records, payload) = batches.fold((0, 0), |(records, payload), batch| {
            let more = batch.payload.len() as u64;
            (records + u64::from(batch.records), payload + more)
        });
        self.records_in.increment(records);
        self.bytes_in.increment(payload);
        self.group_bytes.record(bytes as f64);
        self.group_entries.record(entries.len() as f64);
    }

    /// The journal was synced.
    pub fn synced(&self, took: Duration) {
        self.sync.record(took.as_secs_f64());
    }

    /// A fetch was answered.
    pub fn fetched(&self, topic: &TopicShared, read: &ReadResult) {
        if read.records > 0 {
            self.records_out.increment(read.records);
            self.bytes_out.increment(read.bytes as u64);
            topic.through.went_out(read.records, read.bytes as u64);
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

    /// Counts what there is in the state; returns the number of its rows.
    pub fn take_stock(&self, state: &State) -> u64 {
        let stock = state.stock();
        let set = |to: &AtomicU64, count| to.store(count, Ordering::Relaxed);
        set(&self.subscriptions, stock.subscriptions);
        set(&self.producers, stock.producers);
        stock.rows()
    }

    /// Subscriptions and producers there are.
    pub fn stock(&self) -> (u64, u64) {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        (of(&self.subscriptions), of(&self.producers))
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
}

/// A topic as whoever watches it sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicFigures {
    /// Its id.
    pub id: TopicId,
    /// Its name.
    pub name: Arc<str>,
    /// Records stored since the start of the process, and bytes of their batches.
    pub records_in: u64,
    /// See `records_in`.
    pub bytes_in: u64,
    /// Records handed to readers since then, and bytes of their batches.
    pub records_out: u64,
    /// See `records_out`.
    pub bytes_out: u64,
    /// Live bytes.
    pub bytes: u64,
    /// First offset kept.
    pub start: Offset,
    /// First offset not readable yet.
    pub end: Offset,
}

impl TopicFigures {
    fn of(name: &TopicName, topic: &TopicShared) -> Self {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Self {
            id: topic.id,
            name: name.as_str().into(),
            records_in: of(&topic.through.records_in),
            bytes_in: of(&topic.through.bytes_in),
            records_out: of(&topic.through.records_out),
            bytes_out: of(&topic.through.bytes_out),
            bytes: topic.bytes(),
            start: topic.start(),
            end: topic.readable_end(),
        }
    }
}

/// Where a subscription stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Its topic.
    pub topic: TopicId,
    /// Its name.
    pub name: SubscriptionName,
    /// Next offset to read.
    pub committed: Offset,
}

impl Store {
    /// The recorder of this node: further parts of it count there too.
    pub fn registry(&self) -> &Arc<Registry> {
        &self.shared.meters.registry
    }

    /// The first topics by name, at most `max`.
    pub fn topic_figures(&self, max: usize) -> Vec<TopicFigures> {
        let topics = self.shared.topics();
        let told = topics.by_name.iter().take(max);
        told.filter_map(|(name, id)| Some(TopicFigures::of(name, topics.by_id.get(id)?)))
            .collect()
    }

    /// Where the subscriptions of these topics stand, at most `max` of them. The writer tells: it may be waiting
    /// for the disk, but for all of them only once.
    ///
    /// # Errors
    /// The store stopped.
    pub async fn standings(
        &self,
        topics: &[TopicId],
        max: usize,
    ) -> Result<Vec<Standing>, ApiError> {
        let chunks = topics.chunks(limits::STANDINGS_TOPICS_AT_ONCE);
        let asked: Vec<_> = chunks
            .map(|some| {
                let (store, some) = (self.clone(), some.to_vec());
                let asking = async move {
                    let telling = move |context: &mut Context<'_>| {
                        Ok((standings_of(context.state, &some, max), Vec::new()))
                    };
                    store.change(TopicId::zero(), telling).await
                };
                AbortOnDropHandle::new(tokio::spawn(asking))
            })
            .collect();
        let mut standings = Vec::new();
        for told in asked {
            standings.extend(told.await.map_err(|_| self.stopped_error())??);
        }
        standings.truncate(max);
        Ok(standings)
    }
}

fn standings_of(state: &State, topics: &[TopicId], max: usize) -> Vec<Standing> {
    let known = topics.iter().filter_map(|id| state.topic(*id).ok());
    let all = known.flat_map(|topic| {
        let subscriptions = topic.subscriptions.iter();
        subscriptions.map(|(name, row)| Standing {
            topic: topic.id,
            name: name.clone(),
            committed: row.committed,
        })
    });
    all.take(max).collect()
}

impl Shared {
    /// Counts the rows of the state, for the reclaimer and for people.
    pub fn take_stock(&self, state: &State) {
        let rows = self.meters.take_stock(state);
        self.rows.store(rows, Ordering::Release);
    }
}
