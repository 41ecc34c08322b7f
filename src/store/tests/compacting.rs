//! Compaction by key: what stays, what is told of the rest, that it is counted, and that a crash at any moment harms nothing.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use super::retention::{info, journal_bytes, slots, until, value};
use super::*;
use crate::protocol::batch::{Piece, expand};

/// A keyed message; no value: a deletion.
pub(super) type Message = (Option<Vec<u8>>, Vec<u8>);

fn key(n: u64) -> Vec<u8> {
    format!("key-{n}").into_bytes()
}

fn keyed(messages: &[Message]) -> CheckedBatch {
    let mut builder = BatchBuilder::new(Compression::None);
    for (key, value) in messages {
        let record = RecordToSend {
            timestamp: Timestamp::from_millis(7),
            key: key.as_deref(),
            headers: &[],
            value,
        };
        builder.try_push(&record).expect("it fits");
    }
    let bytes = builder.build(ProducerId::zero(), Sequence::new(0));
    CheckedBatch::check(bytes.expect("it builds"), limits::MESSAGE_BYTES_MAX).expect("sound")
}

fn compacts(age: Option<u64>) -> TopicChanges {
    TopicChanges {
        compact: Some(true),
        tombstone_age_ms: age.map(Some),
        ..TopicChanges::default()
    }
}

async fn set(store: &Store, topic: &str, changes: TopicChanges) {
    store.set_topic(name(topic), changes).await.expect("set");
}

/// All records from an offset on, and the gaps; every offset is in one of them, in order.
pub(super) async fn all(
    store: &Store,
    id: TopicId,
    from: u64,
) -> (BTreeMap<u64, Message>, Vec<Gap>) {
    let (mut found, mut gaps) = (BTreeMap::new(), Vec::new());
    let mut at = from;
    loop {
        let fetched = store.fetch(fetch(id, at)).await.expect("it can be read");
        let mut next = at;
        for item in &fetched.items {
            let pieces = match item {
                FetchItem::Gap(gap) => vec![Piece::Gap(*gap)],
                FetchItem::Batch(stored) => {
                    let batch = CheckedBatch::check_crc(stored.batch.clone()).expect("sound");
                    expand(stored.base_offset, &batch).expect("well-formed")
                }
            };
            for piece in pieces {
                match piece {
                    Piece::Gap(gap) => {
                        assert!(gap.from.get() <= next, "a jump from {next} to {gap:?}");
                        next = next.max(gap.to.get());
                        gaps.push(gap);
                    }
                    Piece::Batch(base, bytes) => {
                        assert!(base.get() <= next, "a jump from {next} to {base}");
                        let batch = CheckedBatch::check_crc(bytes).expect("sound");
                        for (offset, record) in
                            (base.get()..).zip(batch.records().expect("records"))
                        {
                            let record = record.expect("a record");
                            let key = record.key.map(|key| key.to_vec());
                            found.insert(offset, (key, record.value.to_vec()));
                            next = next.max(offset + 1);
                        }
                    }
                }
            }
        }
        assert_eq!(next.max(at), fetched.next_offset.get(), "from {at}");
        if fetched.next_offset == fetched.end_offset {
            return (found, gaps);
        }
        at = fetched.next_offset.get();
    }
}

/// What was published, to be compared with what is left.
#[derive(Default)]
struct Published {
    all: Vec<Message>,
}

impl Published {
    async fn publish(&mut self, store: &Store, id: TopicId, messages: Vec<Message>) {
        super::publish(store, id, keyed(&messages)).await;
        self.all.extend(messages);
    }

    /// Versions of `keys` keys, one after the other, two in a batch, of so many bytes each.
    async fn fill(&mut self, store: &Store, id: TopicId, (keys, rounds): (u64, u64), bytes: usize) {
        for _ in 0..rounds {
            for n in (0..keys).step_by(2) {
                let at = self.all.len() as u64;
                let messages = (0..2).map(|i| (Some(key(n + i)), value(at + i, bytes)));
                self.publish(store, id, messages.collect()).await;
            }
        }
    }

    /// What is there is what was published there, and of each key at least the newest.
    async fn check(&self, store: &Store, id: TopicId) -> usize {
        let (found, gaps) = all(store, id, 0).await;
        let mut newest: BTreeMap<&[u8], u64> = BTreeMap::new();
        for (at, (key, value)) in (0..).zip(&self.all) {
            match key {
                Some(key) => _ = newest.insert(key, at),
                None => assert!(found.contains_key(&at), "{at} has no key and is gone"),
            }
            if let Some(message) = found.get(&at) {
                assert!(
                    (key, value) == (&message.0, &message.1),
                    "another message at {at}"
                );
            }
        }
        for (key, at) in newest {
            let key = String::from_utf8_lossy(key);
            assert!(
                found.contains_key(&at),
                "the newest of {key}, at {at}, is gone"
            );
        }
        let reasons = gaps.iter().all(|gap| gap.reason == GapReason::Compacted);
        assert!(reasons, "{gaps:?}");
        found.len()
    }
}

fn passes(store: &Store) -> u64 {
    store.shared.reclaimed.compactions.load(Ordering::Relaxed)
}

async fn until_compacted(store: &Store, to: u64) {
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    loop {
        let at = info(store, "a").await.compacted_offset.get();
        if at >= to {
            return;
        }
        let is_late = std::time::Instant::now() > deadline;
        assert!(!is_late, "compacted up to {at}, {} passes", passes(store));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// What the topic's row says is what is there.
async fn check_counts(store: &Store, topic: &str, id: TopicId) {
    let info = info(store, topic).await;
    let (found, _) = all(store, id, info.start_offset.get()).await;
    let there = found.range(info.start_offset.get()..).count() as u64;
    let offsets = info.end_offset.since(info.start_offset);
    assert_eq!(offsets - info.removed, there, "{info:?}");
    let mut bytes = 0;
    let mut at = info.start_offset.get();
    while at < info.end_offset.get() {
        let fetched = store.fetch(fetch(id, at)).await.expect("it can be read");
        at = fetched.next_offset.get();
        for item in fetched.items {
            if let FetchItem::Batch(stored) = item {
                bytes += stored.batch.len() as u64;
            }
        }
    }
    assert!(
        bytes <= info.bytes + (1 << 16),
        "{bytes} bytes are read of {}",
        info.bytes
    );
}

#[tokio::test]
async fn of_each_key_the_newest_stays_and_the_space_comes_back() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let (store, _) = open(dir.path());
    let id = create(&store, "a", Durability::Fsync).await;
    let other = create(&store, "b", Durability::Fsync).await;
    let mut published = Published::default();
    published
        .publish(&store, id, vec![(None, b"first".to_vec())])
        .await;
    super::retention::fill(&store, other, 0..50, 2_000).await;
    published.fill(&store, id, (20, 60), 10_000).await;
    super::retention::fill(&store, other, 50..100, 2_000).await;
    published.fill(&store, id, (4, 2), 10_000).await;
    let full = slots(dir.path());
    assert!(full > 12, "{full} slots");
    let before = info(&store, "a").await;
    set(&store, "a", compacts(None)).await;
    until("it is compacted", || passes(&store) > 0).await;
    until("and its space is back", || slots(dir.path()) < full / 2).await;
    let left = published.check(&store, id).await;
    assert!(left < published.all.len() / 3, "{left} are left");
    super::retention::check(&store, other, 0..100, 2_000).await;
    let after = info(&store, "a").await;
    assert!(after.bytes < before.bytes / 2, "{} bytes", after.bytes);
    assert!(after.compacted_offset.get() > 0 && after.removed > 0);
    check_counts(&store, "a", id).await;
    // Whatever becomes of the process and the catalog.
    let copy = crashed_copy(dir.path());
    std::fs::remove_dir_all(copy.path().join("catalog")).expect("removed");
    store.stop().expect("a clean stop");
    drop(store);
    for dir in [copy.path(), dir.path()] {
        let (store, _) = open(dir);
        let again = info(&store, "a").await;
        assert_eq!((again.bytes, again.removed), (after.bytes, after.removed));
        published.check(&store, id).await;
        check_counts(&store, "a", id).await;
        super::retention::check(&store, other, 0..100, 2_000).await;
        assert!(store.damage().is_empty(), "{:?}", store.damage());
        store.stop().expect("a clean stop");
    }
}

#[tokio::test]
async fn a_deletion_goes_after_its_time_and_what_it_deleted_does_not_come_back() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let (store, _) = open(dir.path());
    let id = create(&store, "a", Durability::Fsync).await;
    set(&store, "a", compacts(Some(3_600_000))).await;
    let mut published = Published::default();
    published.fill(&store, id, (10, 20), 10_000).await;
    let deletions = (0..5).map(|n| (Some(key(n)), Vec::new())).collect();
    published.publish(&store, id, deletions).await;
    // Of other keys, so that what lies before is sealed.
    for n in 0..60 {
        let message = (Some(key(100 + n)), value(n, 20_000));
        published.publish(&store, id, vec![message]).await;
    }
    until_compacted(&store, 205).await;
    let (found, _) = all(&store, id, 0).await;
    let of = |n: u64| found.values().filter(move |(k, _)| *k == Some(key(n)));
    for n in 0..5 {
        let values: Vec<&[u8]> = of(n).map(|(_, value)| &value[..]).collect();
        assert_eq!(values, [b""], "only the deletion of {n} is left");
    }
    set(&store, "a", compacts(Some(1_000))).await;
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    loop {
        let (found, _) = all(&store, id, 0).await;
        let of = |n: u64| found.values().filter(move |(k, _)| *k == Some(key(n)));
        let values: Vec<&Message> = (0..5).flat_map(of).collect();
        assert!(
            values.iter().all(|(_, value)| value.is_empty()),
            "something came back"
        );
        if values.is_empty() {
            break;
        }
        assert!(
            std::time::Instant::now() < deadline,
            "{} are left",
            values.len()
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let (found, _) = all(&store, id, 0).await;
    for n in 5..10 {
        let of = found.values().filter(|(k, _)| *k == Some(key(n)));
        assert_eq!(of.count(), 1, "{n} was not deleted");
    }
    check_counts(&store, "a", id).await;
    store.stop().expect("a clean stop");
}

#[tokio::test]
async fn with_more_keys_than_are_remembered_it_goes_on_where_it_was() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let (store, _) = open(dir.path());
    store.shared.compaction_keys.store(7, Ordering::Relaxed);
    let id = create(&store, "a", Durability::Fsync).await;
    set(&store, "a", compacts(None)).await;
    let mut published = Published::default();
    let messages = |from: u64| {
        let version = move |n: u64| (Some(key(from + n % 4)), value(n, 10_000));
        (0..100).map(version).collect::<Vec<Message>>()
    };
    for group in 0..5 {
        for message in messages(group * 4) {
            published.publish(&store, id, vec![message]).await;
        }
    }
    let bytes = info(&store, "a").await.bytes;
    until_compacted(&store, 250).await;
    assert!(passes(&store) > 1, "there is room for two groups of keys");
    let left = published.check(&store, id).await;
    assert!(left < 300, "{left} are left");
    assert!(info(&store, "a").await.bytes < bytes);
    check_counts(&store, "a", id).await;
    store.stop().expect("a clean stop");
}

#[tokio::test]
async fn retention_counts_what_is_there() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let (store, _) = open(dir.path());
    let id = create(&store, "a", Durability::Fsync).await;
    set(&store, "a", compacts(None)).await;
    let mut published = Published::default();
    for n in 0..200_u64 {
        // Every third one has no key and stays.
        let message = |i: u64| match i {
            0 => (None, value(3 * n, 4_000)),
            i => (Some(key(n * i % 7)), value(3 * n + i, 4_000)),
        };
        published
            .publish(&store, id, (0..3).map(message).collect())
            .await;
    }
    until("it is compacted", || passes(&store) > 0).await;
    let before = info(&store, "a").await;
    let there = before.end_offset.since(before.start_offset) - before.removed;
    assert!(there < 500, "{there} are left");
    check_counts(&store, "a", id).await;
    for records in [there - 1, there - 7, there - 50, 100, 20] {
        let changes = TopicChanges {
            retain_records: Some(Some(records)),
            ..TopicChanges::default()
        };
        set(&store, "a", changes).await;
        let deadline = std::time::Instant::now() + Duration::from_secs(60);
        loop {
            let now = info(&store, "a").await;
            let left = now.end_offset.since(now.start_offset) - now.removed;
            if left == records {
                break;
            }
            assert!(left > records, "{left} are left of {records}");
            assert!(std::time::Instant::now() < deadline, "{left} of {records}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        check_counts(&store, "a", id).await;
    }
    let end = info(&store, "a").await.end_offset;
    for to in [end.get() - 17, end.get()] {
        let to = Position::Offset(Offset::new(to));
        store.purge_topic(name("a"), to).await.expect("purged");
        check_counts(&store, "a", id).await;
    }
    let empty = info(&store, "a").await;
    assert_eq!((empty.bytes, empty.removed), (0, 0));
    store.stop().expect("a clean stop");
}

#[tokio::test]
async fn a_crash_at_any_moment_of_a_pass_harms_nothing() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let options = StoreOptions {
        reclaim_every: Duration::from_millis(10),
        ..options(dir.path())
    };
    let (store, _) = Store::open(&options).expect("it opens");
    let id = create(&store, "a", Durability::Fsync).await;
    let mut published = Published::default();
    published.fill(&store, id, (30, 16), 10_000).await;
    // Slow enough for several looks at it.
    store.shared.copy_rate.store(8 << 20, Ordering::Relaxed);
    set(&store, "a", compacts(None)).await;
    let mut copies = Vec::new();
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    while passes(&store) == 0 || copies.len() < 8 {
        assert!(
            std::time::Instant::now() < deadline,
            "{} passes",
            passes(&store)
        );
        if copies.len() < 16 {
            copies.push(crashed_copy(dir.path()));
        }
        published.check(&store, id).await;
        tokio::time::sleep(Duration::from_millis(40)).await;
    }
    store.stop().expect("a clean stop");
    drop(store);
    for (at, copy) in copies.iter().enumerate() {
        if at % 3 == 2 {
            std::fs::remove_dir_all(copy.path().join("catalog")).expect("removed");
        }
        let (store, _) = open(copy.path());
        published.check(&store, id).await;
        check_counts(&store, "a", id).await;
        assert!(store.damage().is_empty(), "{:?}", store.damage());
        store.stop().expect("a clean stop");
    }
    assert!(journal_bytes(dir.path()) > 0);
}

/// All records of a key that a reader gets.
async fn of_key(store: &Store, id: TopicId, n: u64) -> Vec<u64> {
    let (found, _) = all(store, id, 0).await;
    let of_key = found.iter().filter(|(_, (k, _))| *k == Some(key(n)));
    of_key.map(|(at, _)| *at).collect()
}

#[tokio::test]
async fn a_key_that_was_purged_is_read_by_nobody_and_its_bytes_go() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let (store, _) = open(dir.path());
    let id = create(&store, "a", Durability::Fsync).await;
    let mut published = Published::default();
    published.fill(&store, id, (10, 30), 10_000).await;
    let (before, _) = all(&store, id, 0).await;
    let answer = store.purge_key(name("a"), key(3)).await.expect("purged");
    assert_eq!(answer.purges, 1);
    assert!(of_key(&store, id, 3).await.is_empty(), "at once");
    let (found, gaps) = all(&store, id, 0).await;
    assert_eq!(found.len(), before.len() - 30);
    assert!(
        gaps.iter().all(|gap| gap.reason == GapReason::Purged),
        "{gaps:?}"
    );
    // What comes later is another matter.
    published.fill(&store, id, (10, 1), 10_000).await;
    assert_eq!(of_key(&store, id, 3).await, [303]);
    let copy = crashed_copy(dir.path());
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    while info(&store, "a").await.purges > 0 {
        assert!(std::time::Instant::now() < deadline, "it is not erased");
        assert_eq!(of_key(&store, id, 3).await, [303]);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    store.stop().expect("a clean stop");
    drop(store);
    for dir in [copy.path(), dir.path()] {
        let (store, _) = open(dir);
        assert_eq!(of_key(&store, id, 3).await, [303]);
        let (found, _) = all(&store, id, 0).await;
        for n in [0, 1, 2, 4, 9] {
            assert_eq!(
                of_key(&store, id, n).await.len(),
                31,
                "{n} in {}",
                found.len()
            );
        }
        check_counts_of_purged(&store, id).await;
        store.stop().expect("a clean stop");
    }
}

/// A fetch that waited for more answered with what it had read before.
#[tokio::test]
async fn what_was_purged_or_discarded_while_a_fetch_waited_is_not_answered_with() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let (store, _) = open(dir.path());
    let id = create(&store, "a", Durability::Fsync).await;
    for n in [1, 2, 1] {
        let value = b"value".to_vec();
        publish(&store, id, keyed(&[(Some(key(n)), value)])).await;
    }
    let waiting = Fetch {
        min_bytes: 1 << 20,
        max_wait_ms: 1_000,
        ..fetch(id, 0)
    };
    let told = |fetched: Fetched| {
        let told = fetched.items.into_iter().map(|item| match item {
            FetchItem::Batch(batch) => (batch.base_offset.get(), None),
            FetchItem::Gap(gap) => (gap.from.get(), Some(gap.reason)),
        });
        told.collect::<Vec<_>>()
    };
    let purge = store.purge_key(name("a"), key(1));
    let (fetched, purged) = tokio::join!(store.fetch(waiting), purge);
    purged.expect("purged");
    let purged = Some(GapReason::Purged);
    let expected = [(0, purged), (1, None), (2, purged)];
    assert_eq!(told(fetched.expect("read")), expected);
    publish(&store, id, keyed(&[(None, b"value".to_vec())])).await;
    let next = Fetch {
        offset: Offset::new(3),
        ..waiting
    };
    let discard = store.purge_topic(name("a"), Position::Offset(Offset::new(4)));
    let (fetched, discarded) = tokio::join!(store.fetch(next), discard);
    discarded.expect("discarded");
    let expected = [(3, Some(GapReason::Discarded))];
    assert_eq!(told(fetched.expect("read")), expected);
    store.stop().expect("a clean stop");
}

async fn check_counts_of_purged(store: &Store, id: TopicId) {
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    while info(store, "a").await.purges > 0 {
        assert!(std::time::Instant::now() < deadline, "it is not erased");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    check_counts(store, "a", id).await;
    assert_eq!(info(store, "a").await.removed, 30);
}
