//! Retention of each kind, purging and deletion: what goes, what is told, and that the space comes back.

use super::*;
use crate::store::segments::Segment;
use crate::types::SubscriptionName;

/// Waits until something is so; long enough for a busy machine.
pub(in crate::store) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(std::time::Instant::now() < deadline, "waited for: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Waits until every segment that is full has its footer.
pub(super) async fn until_sealed(store: &Store) {
    until("all full segments are sealed", || {
        let segments = store.shared.segments.all();
        let mut full = segments.iter().rev().skip(1);
        full.all(|segment| segment.row.is_some())
    })
    .await;
}

/// Bytes the journal's files take.
pub(super) fn journal_bytes(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir.join("journal")).expect("a journal");
    entries
        .filter_map(|entry| Some(entry.ok()?.metadata().ok()?.len()))
        .sum()
}

pub(super) fn slots(dir: &Path) -> u64 {
    journal_bytes(dir) >> 20
}

async fn keep(store: &Store, topic: &str, changes: TopicChanges) {
    store.set_topic(name(topic), changes).await.expect("set");
}

pub(super) async fn info(store: &Store, topic: &str) -> crate::protocol::api::TopicInfo {
    store.describe_topic(name(topic)).await.expect("described")
}

async fn start_of(store: &Store, topic: &str) -> u64 {
    info(store, topic).await.start_offset.get()
}

async fn until_start(store: &Store, topic: &str, start: u64) {
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    loop {
        let now = start_of(store, topic).await;
        if now == start {
            return;
        }
        assert!(now < start, "{topic} starts at {now}, not at {start}");
        assert!(
            std::time::Instant::now() < deadline,
            "{topic} starts at {now}, waiting for {start}"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Publishes batches of one record each, `bytes` long, beginning with their number.
pub(in crate::store) async fn fill(
    store: &Store,
    id: TopicId,
    numbers: std::ops::Range<u64>,
    bytes: usize,
) {
    let mut waiting = Vec::new();
    for n in numbers {
        let (sender, receiver) = oneshot::channel();
        let done: Done<Published> = Box::new(|outcome| drop(sender.send(outcome)));
        store.append(
            id,
            LeaderEpoch::new(1),
            batch(0, 0, &[&value(n, bytes)]),
            done,
        );
        waiting.push(receiver);
        if waiting.len() == 32 {
            for receiver in waiting.drain(..) {
                receiver.await.expect("answered").expect("stored");
            }
        }
    }
    for receiver in waiting {
        receiver.await.expect("answered").expect("stored");
    }
}

pub(super) fn value(n: u64, bytes: usize) -> Vec<u8> {
    let mut value = n.to_string().into_bytes();
    value.resize(bytes.max(value.len()), b'.');
    value
}

/// Every offset from `from` on is there, with the value [`fill`] gave it.
pub(super) async fn check(store: &Store, id: TopicId, range: std::ops::Range<u64>, bytes: usize) {
    let found = values(store, id, range.start).await;
    let expected: Vec<u64> = range.collect();
    let offsets: Vec<u64> = found.iter().map(|(offset, _)| *offset).collect();
    assert_eq!(offsets, expected);
    let wrong = found
        .iter()
        .find(|(offset, got)| *got != value(*offset, bytes));
    assert_eq!(wrong.map(|(offset, _)| offset), None, "another value");
}

#[tokio::test]
async fn so_many_records_are_kept_exactly() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let (store, _) = open(dir.path());
    let id = create(&store, "a", Durability::Fsync).await;
    for n in 0..30 {
        publish(
            &store,
            id,
            batch(
                0,
                0,
                &[&value(3 * n, 9), &value(3 * n + 1, 9), &value(3 * n + 2, 9)],
            ),
        )
        .await;
    }
    let changes = TopicChanges {
        retain_records: Some(Some(10)),
        ..TopicChanges::default()
    };
    keep(&store, "a", changes).await;
    until_start(&store, "a", 80).await;
    let fetched = store.fetch(fetch(id, 5)).await.expect("told");
    let gap = Gap {
        from: Offset::new(5),
        to: Offset::new(80),
        reason: GapReason::Discarded,
    };
    assert_eq!(fetched.items.first(), Some(&FetchItem::Gap(gap)));
    assert_eq!(fetched.start_offset.get(), 80);
    let kept = store.fetch(fetch(id, 80)).await.expect("read");
    let FetchItem::Batch(first) = &kept.items[0] else {
        panic!("a batch, not {:?}", kept.items[0]);
    };
    assert_eq!(
        first.base_offset.get(),
        78,
        "the batch it starts inside of comes whole"
    );
    let bytes = info(&store, "a").await.bytes;
    let whole = batch(0, 0, &[&value(1, 9), &value(2, 9), &value(3, 9)])
        .bytes()
        .len() as u64;
    assert_eq!(bytes, 4 * whole);
    publish(&store, id, batch(0, 0, &[b"x"])).await;
    until_start(&store, "a", 81).await;
    store.stop().expect("a clean stop");
    let (store, _) = open(dir.path());
    assert_eq!(start_of(&store, "a").await, 81);
    store.stop().expect("a clean stop");
}

#[tokio::test]
async fn so_many_bytes_are_kept_to_the_batch() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let (store, _) = open(dir.path());
    let id = create(&store, "a", Durability::Fsync).await;
    fill(&store, id, 0..500, 10_000).await;
    let one = batch(0, 0, &[&value(1, 10_000)]).bytes().len() as u64;
    assert_eq!(info(&store, "a").await.bytes, 500 * one);
    let changes = TopicChanges {
        retain_bytes: Some(Some(100 * one + one / 2)),
        ..TopicChanges::default()
    };
    keep(&store, "a", changes).await;
    until_start(&store, "a", 400).await;
    assert_eq!(info(&store, "a").await.bytes, 100 * one);
    check(&store, id, 400..500, 10_000).await;
    let tiny = TopicChanges {
        retain_bytes: Some(Some(1)),
        ..TopicChanges::default()
    };
    keep(&store, "a", tiny).await;
    until_start(&store, "a", 499).await;
    check(&store, id, 499..500, 10_000).await;
    // Five segments were filled; nothing lives in all but the last.
    until("the slots of the dead segments are gone", || {
        slots(dir.path()) <= 5
    })
    .await;
    assert!(store.damage().is_empty(), "{:?}", store.damage());
    store.stop().expect("a clean stop");
    let (store, _) = open(dir.path());
    check(&store, id, 499..500, 10_000).await;
    store.stop().expect("a clean stop");
}

#[tokio::test]
async fn old_batches_go_and_young_ones_stay() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let (store, _) = open(dir.path());
    let id = create(&store, "a", Durability::Fsync).await;
    let subscription: SubscriptionName = "slow".parse().expect("good");
    let made = store.create_subscription(name("a"), subscription, Position::Beginning, false);
    assert_eq!(made.await.expect("made").committed_offset.get(), 0);
    fill(&store, id, 0..300, 5_000).await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    fill(&store, id, 300..310, 5_000).await;
    let changes = TopicChanges {
        retain_age_ms: Some(Some(1_200)),
        ..TopicChanges::default()
    };
    keep(&store, "a", changes).await;
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    while start_of(&store, "a").await < 310 {
        assert!(
            std::time::Instant::now() < deadline,
            "the young ones come of age too"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let overtaken = store
        .describe_subscription(name("a"), "slow".parse().expect("good"))
        .await
        .expect("there");
    assert_eq!(
        overtaken.committed_offset.get(),
        0,
        "a subscription is not moved"
    );
    let fetched = store.fetch(fetch(id, 0)).await.expect("told");
    let gap = Gap {
        from: Offset::new(0),
        to: Offset::new(310),
        reason: GapReason::Discarded,
    };
    assert_eq!(fetched.items, [FetchItem::Gap(gap)]);
    assert_eq!(info(&store, "a").await.bytes, 0);
    fill(&store, id, 310..311, 5_000).await;
    check(&store, id, 310..311, 5_000).await;
    assert!(store.notices().is_empty(), "{:?}", store.notices());
    store.stop().expect("a clean stop");
}

/// What is pushed out by a fast publisher makes room for what follows, and does not wait for the next look.
#[tokio::test]
async fn where_segments_fill_fast_space_comes_back_before_the_next_look() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let every = Duration::from_secs(40);
    let options = StoreOptions {
        reclaim_every: every,
        ..options(dir.path())
    };
    let begun = std::time::Instant::now();
    let (store, _) = Store::open(&options).expect("opens");
    let id = create(&store, "a", Durability::Fsync).await;
    let changes = TopicChanges {
        retain_bytes: Some(Some(1_000_000)),
        ..TopicChanges::default()
    };
    keep(&store, "a", changes).await;
    fill(&store, id, 0..1500, 10_000).await;
    let full = slots(dir.path());
    assert!(full >= 15, "{full} slots");
    until("most is dead and given up", || {
        store.figures().segments <= 4
    })
    .await;
    assert!(begun.elapsed() < every, "it was not the next look");
    until("slots are free", || store.figures().free_slots >= 8).await;
    fill(&store, id, 1500..2000, 10_000).await;
    // One may have been on its way to being made when they were counted.
    assert!(slots(dir.path()) <= full + 1, "they are used again");
    store.stop().expect("a clean stop");
}

#[tokio::test]
async fn purged_and_deleted_topics_give_their_space_back() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let (store, _) = open(dir.path());
    let gone = create(&store, "gone", Durability::Fsync).await;
    let purged = create(&store, "purged", Durability::Fsync).await;
    let kept = create(&store, "kept", Durability::Fsync).await;
    fill(&store, kept, 0..20, 10_000).await;
    fill(&store, gone, 0..600, 10_000).await;
    fill(&store, purged, 0..600, 10_000).await;
    fill(&store, kept, 20..40, 10_000).await;
    let full = slots(dir.path());
    assert!(full >= 12, "{full} slots");
    store
        .delete_topic(name("gone"), None)
        .await
        .expect("deleted");
    let to = Position::Offset(Offset::new(590));
    let told = store.purge_topic(name("purged"), to).await.expect("purged");
    assert_eq!(told.start_offset.get(), 590);
    let one = batch(0, 0, &[&value(1, 10_000)]).bytes().len() as u64;
    assert_eq!(told.bytes, 10 * one);
    until("the space is back", || slots(dir.path()) <= 6).await;
    check(&store, kept, 0..40, 10_000).await;
    check(&store, purged, 590..600, 10_000).await;
    assert!(store.damage().is_empty(), "{:?}", store.damage());
    let copy = crashed_copy(dir.path());
    store.stop().expect("a clean stop");
    for dir in [dir.path(), copy.path()] {
        let (store, _) = open(dir);
        check(&store, kept, 0..40, 10_000).await;
        check(&store, purged, 590..600, 10_000).await;
        assert!(store.damage().is_empty(), "{:?}", store.damage());
        store.stop().expect("a clean stop");
    }
}

/// A batch of the n-th of many producers.
pub(super) fn of_producer(n: usize) -> CheckedBatch {
    let mut builder = BatchBuilder::new(Compression::None);
    let record = RecordToSend {
        timestamp: Timestamp::from_millis(7),
        key: None,
        headers: &[],
        value: b"x",
    };
    builder.try_push(&record).expect("it fits");
    let id = ProducerId::from_bytes((n as u128 + 1).to_be_bytes());
    let bytes = builder.build(id, Sequence::new(0)).expect("it builds");
    CheckedBatch::check(bytes, limits::MESSAGE_BYTES_MAX).expect("it is sound")
}

#[tokio::test]
async fn too_many_producers_the_longest_unused_are_forgotten() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let (store, _) = open(dir.path());
    let id = create(&store, "a", Durability::Fsync).await;
    let producer = of_producer;
    let max = limits::PRODUCERS_PER_TOPIC_MAX;
    let mut waiting = Vec::new();
    for n in 0..=max {
        let (sender, receiver) = oneshot::channel();
        let done: Done<Published> = Box::new(|outcome| drop(sender.send(outcome)));
        store.append(id, LeaderEpoch::new(1), producer(n), done);
        waiting.push(receiver);
        if n == 100 {
            // What comes later was used later.
            for receiver in waiting.drain(..) {
                receiver.await.expect("answered").expect("stored");
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    for receiver in waiting {
        receiver.await.expect("answered").expect("stored");
    }
    let late = publish(&store, id, producer(max)).await;
    assert!(late.duplicate, "a late one is known");
    let early = publish(&store, id, producer(0)).await;
    assert!(!early.duplicate, "an early one is forgotten");
    store.stop().expect("a clean stop");
    drop(store);
    let (store, _) = open(dir.path());
    assert!(publish(&store, id, producer(max)).await.duplicate);
    assert!(
        !publish(&store, id, producer(1)).await.duplicate,
        "after a restart too"
    );
    store.stop().expect("a clean stop");
}

/// What lies in a file that cannot be opened now is not let go of uncounted: the bytes it has would be told for as long
/// as the topic is not empty.
#[tokio::test]
async fn what_cannot_be_looked_up_now_stays() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let (store, _) = open(dir.path());
    let id = create(&store, "a", Durability::Fsync).await;
    fill(&store, id, 0..400, 10_000).await;
    until_sealed(&store).await;
    store.stop().expect("a clean stop");
    drop(store);
    let (store, _) = open(dir.path());
    let shared = &store.shared;
    let number = shared.topic(id).expect("there").index().runs()[1].segment;
    let segment = shared.segments.get(number).expect("there");
    let slot = shared.dir.slot(segment.slot_id).expect("there");
    let (file, aside) = (slot.path(), dir.path().join("aside"));
    std::fs::hard_link(file, &aside).expect("linked");
    // Nobody has it open or knows its footer, and what can be found says nothing of what lies on the disk.
    shared.dir.remove_slot(slot.id()).expect("removed");
    std::os::unix::fs::symlink(file, file).expect("a link to itself");
    until("nobody reads it", || Arc::strong_count(&slot) == 1).await;
    until("its footer is not known", || {
        shared.segments.remove(number).expect("there");
        let again = Segment::new(segment.header, segment.row);
        shared.segments.put(again);
        shared.segments.footer(&segment, &shared.dir).is_err()
    })
    .await;
    let refused = store
        .purge_topic(name("a"), Position::Offset(Offset::new(399)))
        .await;
    let refused = refused
        .expect_err("nobody knows how much that is")
        .to_string();
    assert!(
        refused.contains("cannot be read at the moment"),
        "{refused}"
    );
    keep(
        &store,
        "a",
        TopicChanges {
            retain_bytes: Some(Some(1)),
            ..TopicChanges::default()
        },
    )
    .await;
    let noticed = || {
        store
            .notices()
            .iter()
            .any(|line| line.contains("cannot be looked up now"))
    };
    until("it is told", noticed).await;
    let stuck = start_of(&store, "a").await;
    assert!((1..399).contains(&stuck), "it goes on up to there: {stuck}");
    std::fs::rename(&aside, file).expect("renamed");
    until_start(&store, "a", 399).await;
    let left = info(&store, "a").await;
    assert!(left.bytes < 11_000, "one batch: {}", left.bytes);
    until("it is over", || store.notices().is_empty()).await;
    assert!(store.damage().is_empty(), "{:?}", store.damage());
    store.stop().expect("a clean stop");
}

/// A damaged batch weighs what it weighed when it was appended.
#[tokio::test]
async fn what_is_damaged_is_counted_off_when_it_goes() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let (store, _) = open(dir.path());
    let values: Vec<Vec<u8>> = (0..40).map(|n| value(n, 5_000)).collect();
    for topic in ["a", "b"] {
        let id = create(&store, topic, Durability::Fsync).await;
        for (n, value) in values.iter().enumerate() {
            let told = [topic.as_bytes(), value].concat();
            publish(&store, id, batch(1, n as u64, &[&told])).await;
        }
    }
    store.stop().expect("a clean stop");
    drop(store);
    spoil(dir.path(), &[b"a", &values[7][..]].concat());
    let (store, _) = open(dir.path());
    let both = async || {
        let (a, b) = (info(&store, "a").await, info(&store, "b").await);
        assert_eq!(
            a.bytes, b.bytes,
            "after {} and {}",
            a.start_offset, b.start_offset
        );
        a.bytes
    };
    let mut before = both().await;
    // In front of it, over it, behind it.
    for at in [3, 20, 30] {
        for topic in ["a", "b"] {
            let place = Position::Offset(Offset::new(at));
            store.purge_topic(name(topic), place).await.expect("purged");
        }
        let left = both().await;
        assert!(left < before, "{left} of {before}");
        before = left;
    }
    store.stop().expect("a clean stop");
}
