//! The tools on real stores.

mod damage;
mod moving;
mod reading;
mod registry;
mod snapshot;
mod thinned;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use super::*;
use crate::protocol::api::{Commit, Position, SetSubscription, SubscriptionChanges, TopicChanges};
use crate::store::tests::{batch, copy_dir, create, name, open, publish};
use crate::store::{Store, StoreOptions};
use crate::topic::SubscriptionRow;
use crate::types::{Durability, Offset, SubscriptionName, TopicId, TopicSettings, WhenFull};

/// A stopped store with several topics in several segments, and what is in it.
pub(super) struct Sample {
    pub dir: tempfile::TempDir,
    pub contents: Contents,
}

/// Everything a person could miss after a repair or an import.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Contents {
    /// By topic: first offset, end, and every record with its append time.
    pub topics: BTreeMap<String, TopicContents>,
    /// By topic and name.
    pub subscriptions: BTreeMap<(String, String), SubscriptionRow>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct TopicContents {
    pub settings: TopicSettings,
    pub start: u64,
    pub end: u64,
    pub records: BTreeMap<u64, (i64, Vec<u8>)>,
    pub missing: Vec<(u64, u64, String)>,
}

pub(super) fn options(dir: &Path) -> StoreOptions {
    StoreOptions {
        slot_bytes: 1 << 20,
        reserve_bytes: Some(0),
        // Images are compared with what runs.
        reclaim: false,
        ..StoreOptions::new(dir)
    }
}

/// Bytes that do not repeat, different for each topic and offset.
pub(super) fn value(topic: u64, n: u64, length: usize) -> Vec<u8> {
    let mut random = Random::new(topic << 32 | n);
    std::iter::repeat_with(|| random.next().to_le_bytes())
        .flatten()
        .take(length)
        .collect()
}

/// A small generator whose seed is printed where it matters.
pub(super) struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(1))
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

pub(super) async fn fill(store: &Store) -> HashMap<&'static str, TopicId> {
    let mut ids = HashMap::new();
    for (topic, durability) in [
        ("quakes.ci", Durability::Fsync),
        ("quakes.nc", Durability::Os),
        ("gone", Durability::Fsync),
        ("empty", Durability::Fsync),
    ] {
        ids.insert(topic, create(store, topic, durability).await);
    }
    for n in 0..150_u64 {
        for (at, topic) in ["quakes.ci", "quakes.nc", "gone"].into_iter().enumerate() {
            let values = [
                value(at as u64, 2 * n, 6000),
                value(at as u64, 2 * n + 1, 300),
            ];
            let values: Vec<&[u8]> = values.iter().map(Vec::as_slice).collect();
            publish(store, ids[topic], batch(1 + at as u8, 2 * n, &values)).await;
        }
        if n == 100 {
            subscribe(store, "quakes.ci", "billing", 77).await;
            subscribe(store, "quakes.nc", "audit", 5).await;
            subscribe(store, "quakes.ci", "late", 0).await;
            set_all(store).await;
        }
    }
    store
        .delete_topic(name("gone"), None)
        .await
        .expect("deleted");
    store
        .purge_topic(name("quakes.nc"), Position::Offset(Offset::new(31)))
        .await
        .expect("purged");
    ids.remove("gone");
    ids
}

/// Sets what is not as it is by default, where nothing is discarded for it.
async fn set_all(store: &Store) {
    let changes = TopicChanges {
        retain_bytes: Some(Some(1 << 40)),
        retain_interest: Some(true),
        when_full: Some(WhenFull::Refuse),
        remember_ids_for_ms: Some(Some(60_000)),
        remember_ids_max: Some(Some(500)),
        compact: Some(true),
        tombstone_age_ms: Some(Some(5_000)),
        ..TopicChanges::default()
    };
    let set = store.set_topic(name("empty"), changes).await;
    set.expect("set");
    let request = SetSubscription {
        topic: name("quakes.ci"),
        name: "billing".parse().expect("good"),
        changes: SubscriptionChanges {
            paused: Some(true),
            expire_ms: Some(Some(3_600_000)),
        },
    };
    store.set_subscription(request).await.expect("set");
}

async fn subscribe(store: &Store, topic: &str, subscription: &str, committed: u64) {
    let subscription: SubscriptionName = subscription.parse().expect("good");
    let made = store
        .create_subscription(
            name(topic),
            subscription.clone(),
            Position::Beginning,
            false,
        )
        .await
        .expect("made");
    let moved = store
        .seek(
            name(topic),
            subscription.clone(),
            Position::Offset(Offset::new(1)),
            false,
        )
        .await
        .expect("moved");
    assert!(moved.subscription.generation > made.generation);
    let commit = Commit {
        topic: made.topic_id,
        name: subscription,
        generation: moved.subscription.generation,
        offset: Offset::new(committed.max(1)),
    };
    store.commit(commit).await.expect("committed");
}

/// The store, filled and stopped cleanly.
pub(super) async fn sample() -> Sample {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let (store, _) = open(dir.path());
    fill(&store).await;
    store.stop().expect("a clean stop");
    drop(store);
    let contents = contents(dir.path());
    Sample { dir, contents }
}

/// What `dump` and `list` say is in a directory.
pub(super) fn contents(dir: &Path) -> Contents {
    let listing = list(dir).expect("a list");
    let mut found = Contents::default();
    for topic in &listing.topics {
        let of_topic = found.topics.entry(topic.name().to_string()).or_default();
        of_topic.start = topic.row.start.get();
        of_topic.end = topic.row.end.get();
        of_topic.settings = topic.row.settings;
        for (name, row) in &topic.subscriptions {
            let key = (topic.name().to_string(), name.to_string());
            found.subscriptions.insert(key, row.clone());
        }
    }
    dump(dir, &DumpOptions::default(), &mut |item| {
        match item {
            Dumped::Record {
                topic,
                offset,
                append_time,
                record,
                ..
            } => {
                let of_topic = found.topics.get_mut(topic.as_str()).expect("listed");
                let record = (append_time.as_millis(), record.value.to_vec());
                assert!(
                    of_topic.records.insert(offset.get(), record).is_none(),
                    "{offset} twice"
                );
            }
            Dumped::Missing { topic, gap } => {
                let of_topic = found.topics.get_mut(topic.as_str()).expect("listed");
                let gap = (gap.from.get(), gap.to.get(), gap.reason.to_string());
                of_topic.missing.push(gap);
            }
        }
        Ok(())
    })
    .expect("a dump");
    found
}

/// Every file below, with its bytes.
pub(super) fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(dir).expect("a listing") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.insert(path.clone(), Vec::new());
            found.extend(files(&path));
        } else {
            let bytes = std::fs::read(&path).expect("a file");
            found.insert(path, bytes);
        }
    }
    found
}

pub(super) fn copy_of(dir: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().expect("a scratch directory");
    copy_dir(dir, copy.path());
    copy
}
