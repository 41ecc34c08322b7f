//! How much a fetch brings, and when it waits.

use std::pin::Pin;

use super::*;

/// Long enough that a test which waits it out has failed.
const FOREVER_MS: u32 = 60_000;

/// Well below that, and far above what an answer at once needs.
const AT_ONCE: Duration = Duration::from_secs(20);

/// A topic with four batches of so many bytes each.
async fn four_batches(store: &Store) -> (TopicId, usize) {
    let id = create(store, "orders", Durability::Fsync).await;
    let mut bytes = 0;
    for n in 0..4 {
        let batch = batch(0, 0, &[&[n; 50]]);
        bytes = batch.bytes().len();
        publish(store, id, batch).await;
    }
    (id, bytes)
}

async fn fetch_at_once(store: &Store, request: Fetch) -> Fetched {
    let fetched = tokio::time::timeout(AT_ONCE, store.fetch(request));
    fetched.await.expect("at once").expect("it can be read")
}

async fn brings_what_fits(store: &Store, id: TopicId, bytes: usize) {
    for (max_bytes, count) in [
        (0, 1),
        (bytes - 1, 1),
        (bytes, 1),
        (bytes + 1, 1),
        (2 * bytes - 1, 1),
        (2 * bytes, 2),
        (4 * bytes - 1, 3),
        (4 * bytes, 4),
    ] {
        let request = Fetch {
            max_bytes: u32::try_from(max_bytes).expect("small"),
            ..fetch(id, 0)
        };
        let fetched = fetch_at_once(store, request).await;
        assert_eq!(fetched.items.len(), count, "{max_bytes} of {bytes} each");
        assert_eq!(fetched.next_offset.get(), count as u64);
    }
}

/// Whoever asks for 8 MiB must not get those and the largest batch on top: the frame would be too large.
#[tokio::test]
async fn further_batches_come_only_as_long_as_they_fit() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let (store, _) = open(dir.path());
    let (id, bytes) = four_batches(&store).await;
    brings_what_fits(&store, id, bytes).await;
    store.stop().expect("a clean stop");
    drop(store);
    let (store, _) = open(dir.path());
    brings_what_fits(&store, id, bytes).await;
    store.stop().expect("a clean stop");
}

/// More would not fit, however long the wait.
#[tokio::test]
async fn a_full_answer_is_not_waited_with() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let (store, _) = open(dir.path());
    let (id, bytes) = four_batches(&store).await;
    for max_bytes in [bytes, 2 * bytes - 1, 3 * bytes + 1] {
        let request = Fetch {
            max_bytes: u32::try_from(max_bytes).expect("small"),
            min_bytes: u32::MAX,
            max_wait_ms: FOREVER_MS,
            ..fetch(id, 0)
        };
        let fetched = fetch_at_once(&store, request).await;
        assert_eq!(fetched.items.len(), max_bytes / bytes);
    }
    store.stop().expect("a clean stop");
}

#[tokio::test]
async fn a_fetch_of_no_bytes_at_least_does_not_wait() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let (store, _) = open(dir.path());
    let (id, _) = four_batches(&store).await;
    let request = Fetch {
        min_bytes: 0,
        max_wait_ms: FOREVER_MS,
        ..fetch(id, 4)
    };
    assert!(fetch_at_once(&store, request).await.items.is_empty());
    store.stop().expect("a clean stop");
}

/// Whether every batch of an answer is memory of its own.
async fn is_copied(store: &Store, id: TopicId, max_bytes: usize) -> bool {
    let request = Fetch {
        max_bytes: u32::try_from(max_bytes).expect("small"),
        ..fetch(id, 0)
    };
    let mut fetched = fetch_at_once(store, request).await;
    let unique = fetched.items.iter_mut().map(|item| match item {
        FetchItem::Batch(stored) => stored.batch.is_unique(),
        FetchItem::Gap(gap) => panic!("a gap in a topic without one: {gap:?}"),
    });
    let unique: Vec<bool> = unique.collect();
    assert!(unique.iter().all(|each| *each == unique[0]), "{unique:?}");
    unique[0]
}

/// Readers that take nothing of their small answers keep those, and not the groups and windows they were found in: the
/// memory they were granted is that of the answers.
#[tokio::test]
async fn a_small_answer_keeps_nothing_but_itself() {
    const BYTES: usize = 100_000;
    let all = limits::ANSWER_COPIED_BYTES_MAX + 2 * BYTES;
    let dir = tempfile::tempdir().expect("a scratch directory");
    let (store, _) = open(dir.path());
    let id = create(&store, "orders", Durability::Fsync).await;
    for n in 0..all / BYTES {
        publish(&store, id, batch(0, 0, &[&vec![n as u8; BYTES]])).await;
    }
    let small = limits::ANSWER_COPIED_BYTES_MAX;
    assert!(is_copied(&store, id, 1).await, "one batch from memory");
    assert!(is_copied(&store, id, small).await, "some from memory");
    assert!(!is_copied(&store, id, all).await, "many from memory");
    store.stop().expect("a clean stop");
    drop(store);
    let (store, _) = open(dir.path());
    assert!(is_copied(&store, id, 1).await, "one batch from the disk");
    assert!(is_copied(&store, id, small).await, "some from the disk");
    store.stop().expect("a clean stop");
}

/// A stream that waited at the end of a topic was not told that the topic had another epoch until a record came.
#[tokio::test]
async fn who_waits_for_records_is_told_of_another_epoch_and_of_the_end() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let (store, _) = open(dir.path());
    let id = create(&store, "orders", Durability::Fsync).await;
    let name = "orders".parse().expect("a name");
    let changes: [Pin<Box<dyn Future<Output = ()>>>; 2] = [
        Box::pin(async {
            let raised = store.set_epoch(id, LeaderEpoch::new(2)).await;
            raised.expect("it is here");
        }),
        Box::pin(async {
            store.delete_topic(name, Some(id)).await.expect("deleted");
        }),
    ];
    for ((epoch, error), change) in [(1, "StaleEpoch"), (2, "UnknownTopicId")]
        .into_iter()
        .zip(changes)
    {
        let waiting = Fetch {
            epoch: LeaderEpoch::new(epoch),
            ..fetch(id, 0)
        };
        assert_eq!(store.check_fetch(&waiting).await, Ok(()));
        let readable = store.until_readable(&waiting);
        let told = tokio::time::timeout(AT_ONCE, async { tokio::join!(readable, change) });
        told.await.expect("it is told at once");
        let found = store.check_fetch(&waiting).await.expect_err("it changed");
        assert_eq!(found.name(), error, "{found}");
    }
    store.stop().expect("a clean stop");
}
