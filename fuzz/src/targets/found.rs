//! Everything that can be read in a store, in a form to compare.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::OnceLock;

use bytes::Bytes;
use tidings::limits;
use tidings::protocol::batch::{BatchBuilder, CheckedBatch, Compression, RecordToSend};
use tidings::protocol::data::{Fetch, FetchItem, Published};
use tidings::protocol::error::ApiError;
use tidings::store::{Store, StoreOptions};
use tidings::time::Timestamp;
use tidings::types::{
    GapReason, LeaderEpoch, Offset, ProducerId, Sequence, TopicId, TopicName, TopicPattern,
};
use tokio::runtime::Runtime;

/// Everything in a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its topics.
    pub topics: BTreeMap<TopicId, FoundTopic>,
    /// Topic and name, generation, and committed offset of its subscriptions.
    pub subscriptions: BTreeMap<(TopicId, String), (u64, u64)>,
    /// The damage it names.
    pub damage: Vec<String>,
}

/// A topic and its records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundTopic {
    /// Its name.
    pub name: TopicName,
    /// Its leader epoch.
    pub epoch: LeaderEpoch,
    /// First offset kept.
    pub start: u64,
    /// First offset not readable.
    pub end: u64,
    /// Whether nothing can be published to it.
    pub quarantined: bool,
    /// What there is from `start` to `end`, without holes, by its first offset.
    pub items: BTreeMap<u64, FoundItem>,
}

/// A batch, or offsets without one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FoundItem {
    /// A batch with so many records.
    Batch(Bytes, u64),
    /// Missing records up to an offset.
    Gap(u64, GapReason),
}

impl FoundItem {
    /// First offset after it, given where it begins.
    pub fn end(&self, base: u64) -> u64 {
        match self {
            Self::Batch(_, records) => base + records,
            Self::Gap(to, _) => *to,
        }
    }
}

impl FoundTopic {
    /// What is said of an offset: the batch that holds it with its base, or why there is none.
    pub fn at(&self, offset: u64) -> Option<(u64, &FoundItem)> {
        let (base, item) = self.items.range(..=offset).next_back()?;
        (offset < item.end(*base)).then_some((*base, item))
    }
}

/// The runtime everything is asked on.
pub fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .expect("a runtime")
    })
}

/// How stores are opened in here: as small as they can be, without a reserve that the scratch directory may not have, and
/// without retention, whose threads would make something else of the same input each time.
pub fn options(dir: &Path) -> StoreOptions {
    StoreOptions {
        slot_bytes: limits::SLOT_BYTES_MIN,
        reserve_bytes: Some(0),
        reclaim: false,
        tail_cache_bytes: limits::MIB,
        page_cache_only: true,
        ..StoreOptions::new(dir)
    }
}

/// Reads everything there is.
pub fn read_all(store: &Store) -> Found {
    runtime().block_on(async {
        let page = store
            .describe_topics(TopicPattern::all(), None, 500)
            .await
            .expect("topics can always be asked for");
        let mut topics = BTreeMap::new();
        for info in page.topics {
            let mut topic = FoundTopic {
                name: info.name,
                epoch: info.epoch,
                start: info.start_offset.get(),
                end: info.end_offset.get(),
                quarantined: info.quarantined,
                items: BTreeMap::new(),
            };
            read_topic(store, info.id, &mut topic).await;
            topics.insert(info.id, topic);
        }
        let page = store
            .list_subscriptions(None, None, 500)
            .await
            .expect("subscriptions can always be asked for");
        let subscriptions = page.subscriptions.into_iter().map(|info| {
            let key = (info.topic_id, info.name.to_string());
            (key, (info.generation.get(), info.committed_offset.get()))
        });
        Found {
            topics,
            subscriptions: subscriptions.collect(),
            damage: store.damage(),
        }
    })
}

/// A reader gets offsets in order and without holes, whatever happened to the store.
async fn read_topic(store: &Store, id: TopicId, topic: &mut FoundTopic) {
    let mut at = topic.start;
    while at < topic.end {
        let fetch = Fetch {
            topic: id,
            epoch: topic.epoch,
            offset: Offset::new(at),
            max_bytes: u32::MAX,
            min_bytes: 0,
            max_wait_ms: 0,
            pass_damage: true,
        };
        let fetched = store.fetch(fetch).await;
        let fetched = fetched.unwrap_or_else(|error| panic!("{} at {at}: {error}", topic.name));
        let next = fetched.next_offset.get();
        assert!(next > at, "reading {} at {at} goes nowhere", topic.name);
        for item in fetched.items {
            let (base, item) = match item {
                FetchItem::Gap(gap) => (gap.from.get(), FoundItem::Gap(gap.to.get(), gap.reason)),
                FetchItem::Batch(stored) => {
                    let batch = CheckedBatch::check(stored.batch, limits::MESSAGE_BYTES_MAX);
                    let batch = batch.unwrap_or_else(|error| panic!("{}: {error}", topic.name));
                    let records = u64::from(batch.header().record_count);
                    (
                        stored.base_offset.get(),
                        FoundItem::Batch(batch.into_bytes(), records),
                    )
                }
            };
            assert!(
                base <= at && item.end(base) > at,
                "{}: at {at} comes {base}..{}",
                topic.name,
                item.end(base)
            );
            at = item.end(base);
            topic.items.insert(base, item);
        }
        assert_eq!(at, next, "{}: the next offset is another", topic.name);
    }
}

/// Publishes one record.
pub fn publish(store: &Store, id: TopicId, epoch: LeaderEpoch) -> Result<Published, ApiError> {
    let batch = batch(
        ProducerId::from_bytes([0xee; 16]),
        0,
        &[b"after the damage"],
    );
    let batch = CheckedBatch::check(batch, limits::MESSAGE_BYTES_MAX).expect("just built");
    runtime().block_on(store.publish(id, epoch, batch))
}

/// A batch of such records.
pub fn batch(producer: ProducerId, first: u64, values: &[&[u8]]) -> Bytes {
    let mut builder = BatchBuilder::new(match first % 3 {
        0 => Compression::None,
        1 => Compression::Lz4,
        _ => Compression::Zstd,
    });
    for value in values {
        builder
            .try_push(&RecordToSend {
                timestamp: Timestamp::from_millis(1_700_000_000_000),
                key: None,
                headers: &[],
                value,
            })
            .expect("it fits");
    }
    builder
        .build(producer, Sequence::new(first))
        .expect("a batch")
}
