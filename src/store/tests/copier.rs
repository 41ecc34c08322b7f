//! Copying on a thread of its own: nothing waits for it, and it reads much at once.

use std::sync::atomic::Ordering;

use super::cold::{check_small, has_cold, mixed};
use super::retention::{check, fill, slots, until, value};
use super::*;

/// Copies hardly at all from now on.
fn hold(store: &Store) {
    store.shared.copy_rate.store(1, Ordering::Relaxed);
}

fn let_go(store: &Store) {
    let rate = limits::COLD_BYTES_PER_SECOND;
    store.shared.copy_rate.store(rate, Ordering::Relaxed);
}

fn reads(store: &Store) -> u64 {
    store.shared.reclaimed.copy_reads.load(Ordering::Relaxed)
}

/// A store that has begun to copy what lives beside a topic that was deleted, and does not get on with it.
async fn held(dir: &Path) -> (Store, Vec<TopicId>, u64) {
    let (store, small, end) = mixed(dir).await;
    hold(&store);
    let gone = store.delete_topic(name("large"), None).await;
    gone.expect("deleted");
    until("copying has begun", || reads(&store) > 0).await;
    (store, small, end)
}

#[tokio::test]
async fn what_is_dead_is_freed_while_something_is_copied() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let (store, small, end) = held(dir.path()).await;
    let before = store.shared.reclaimed.figures();
    let full = slots(dir.path());
    for round in 0..3_u64 {
        let churn = create(&store, "churn", Durability::Fsync).await;
        fill(&store, churn, 0..600, 10_000).await;
        let gone = store.delete_topic(name("churn"), None).await;
        gone.expect("deleted");
        until("its segments are freed", || {
            let now = store.shared.reclaimed.figures();
            now.segments_freed >= before.segments_freed + 4 * (round + 1)
        })
        .await;
    }
    until("and their space is back", || slots(dir.path()) <= full + 4).await;
    let after = store.shared.reclaimed.figures();
    assert_eq!(after.segments_copied, before.segments_copied);
    assert!(!has_cold(&store), "nothing was copied to the end");
    check_small(&store, &small, end).await;
    let copy = crashed_copy(dir.path());
    // It ends although something is copied.
    store.stop().expect("a clean stop");
    drop(store);
    for dir in [copy.path(), dir.path()] {
        let (store, _) = open(dir);
        check_small(&store, &small, end).await;
        until("now it is copied", || has_cold(&store)).await;
        check_small(&store, &small, end).await;
        store.stop().expect("a clean stop");
    }
}

#[tokio::test]
async fn a_source_that_died_while_it_was_copied_is_freed_and_kept_until_then() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let (store, small, end) = held(dir.path()).await;
    let numbers = || {
        let segments = store.shared.segments.all();
        segments.iter().map(|s| s.number).collect::<Vec<_>>()
    };
    let sources = numbers();
    // All but one die, and with them the first half of the sources.
    for n in 1..5 {
        let gone = store.delete_topic(name(&format!("small-{n}")), None).await;
        gone.expect("deleted");
    }
    let purge = store
        .purge_topic(name("small-0"), Position::Offset(Offset::new(end / 2)))
        .await;
    purge.expect("purged");
    let half = sources[sources.len() / 2 - 2];
    until("the first half is freed", || {
        numbers().iter().all(|number| *number >= half)
    })
    .await;
    assert!(
        slots(dir.path()) as usize >= sources.len(),
        "the copier still reads them"
    );
    check(&store, small[0], end / 2..end, 2_000).await;
    let copy = crashed_copy(dir.path());
    let_go(&store);
    until("the space is back", || slots(dir.path()) <= 7).await;
    check(&store, small[0], end / 2..end, 2_000).await;
    assert!(store.damage().is_empty(), "{:?}", store.damage());
    store.stop().expect("a clean stop");
    drop(store);
    for dir in [copy.path(), dir.path()] {
        let (store, _) = open(dir);
        check(&store, small[0], end / 2..end, 2_000).await;
        store.stop().expect("a clean stop");
    }
}

/// One record to each of the topics, all of them at once.
async fn one_each(store: &Store, topics: &[TopicId], n: u64) {
    let mut waiting = Vec::new();
    for id in topics {
        let (sender, receiver) = oneshot::channel();
        let done: Done<Published> = Box::new(|outcome| drop(sender.send(outcome)));
        let batch = batch(0, 0, &[&value(n, 100)]);
        store.append(*id, LeaderEpoch::new(1), batch, done);
        waiting.push(receiver);
    }
    for receiver in waiting {
        receiver.await.expect("answered").expect("stored");
    }
}

#[tokio::test]
async fn thousands_of_tiny_extents_cost_few_reads() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let (store, _) = open(dir.path());
    let mut topics = Vec::new();
    for n in 0..200 {
        topics.push(create(&store, &format!("tiny-{n}"), Durability::Fsync).await);
    }
    let large = create(&store, "large", Durability::Fsync).await;
    for round in 0..12_u64 {
        one_each(&store, &topics, round).await;
        fill(&store, large, round * 80..round * 80 + 80, 10_000).await;
    }
    let gone = store.delete_topic(name("large"), None).await;
    gone.expect("deleted");
    until("the space is back", || slots(dir.path()) <= 6).await;
    assert!(has_cold(&store));
    let figures = store.shared.reclaimed.figures();
    let reads = reads(&store);
    // Each source once or twice; some of them were copied twice.
    assert!(
        reads <= 3 * figures.segments_copied,
        "{reads} reads: {figures:?}"
    );
    for id in &topics {
        check(&store, *id, 0..12, 100).await;
    }
    assert!(store.damage().is_empty(), "{:?}", store.damage());
    store.stop().expect("a clean stop");
}
