//! State snapshots: a lost catalog is built again although the beginning of the journal is gone.

use super::retention::{check, fill, slots};
use super::*;

/// Waits until the first segment is freed and the space of all that were is given back.
pub(super) async fn beginning_is_gone(store: &Store, dir: &Path) {
    // What lives takes part of two segments at most; beside them there are the open one and a ready one.
    let kept = limits::FREE_SLOTS_KEPT as u64 + 4;
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    while store.shared.segments.get(1).is_some() || slots(dir) > kept {
        let left = slots(dir);
        assert!(
            std::time::Instant::now() < deadline,
            "the beginning is there: {left} slots, {:?}, damage {:?}",
            store.shared.reclaimed.figures(),
            store.damage()
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A store of which most was discarded, so that the journal's beginning is gone.
pub(in crate::store) async fn shrunk(dir: &Path) -> (Store, TopicId) {
    let (store, _) = open(dir);
    let id = create(&store, "orders", Durability::Fsync).await;
    let other = create(&store, "other", Durability::Fsync).await;
    for n in 0..40_u64 {
        let text = format!("reader-{n}");
        let made = store
            .create_subscription(
                name("orders"),
                text.parse().expect("good"),
                Position::Beginning,
                false,
            )
            .await
            .expect("made");
        let commit = Commit {
            topic: id,
            name: made.name,
            generation: made.generation,
            offset: Offset::new(0),
        };
        store.commit(commit).await.expect("committed");
    }
    fill(&store, other, 0..800, 10_000).await;
    fill(&store, id, 0..100, 10_000).await;
    publish(&store, id, batch(9, 0, &[b"known"])).await;
    fill(&store, other, 800..1000, 10_000).await;
    let commit = Commit {
        topic: id,
        name: "reader-7".parse().expect("good"),
        generation: store
            .describe_subscription(name("orders"), "reader-7".parse().expect("good"))
            .await
            .expect("there")
            .generation,
        offset: Offset::new(77),
    };
    store.commit(commit).await.expect("committed");
    store
        .delete_topic(name("other"), None)
        .await
        .expect("deleted");
    beginning_is_gone(&store, dir).await;
    (store, id)
}

async fn check_all(store: &Store, id: TopicId) {
    let found = values(store, id, 0).await;
    assert_eq!(found.len(), 101);
    assert_eq!(found[100].1, b"known");
    let subscriptions = store
        .list_subscriptions(Some(name("orders")), None, 100)
        .await
        .expect("listed");
    assert_eq!(subscriptions.subscriptions.len(), 40);
    let committed: Vec<u64> = subscriptions
        .subscriptions
        .iter()
        .filter(|info| info.name.as_str() == "reader-7")
        .map(|info| info.committed_offset.get())
        .collect();
    assert_eq!(committed, [77]);
    assert_eq!(store.topic_count(), 1);
    assert!(publish(store, id, batch(9, 0, &[b"known"])).await.duplicate);
    assert!(store.damage().is_empty(), "{:?}", store.damage());
}

#[tokio::test]
async fn a_lost_catalog_is_built_from_the_snapshot() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let (store, id) = shrunk(dir.path()).await;
    check_all(&store, id).await;
    let copy = crashed_copy(dir.path());
    store.stop().expect("a clean stop");
    drop(store);
    for (dir, clean) in [(dir.path(), true), (copy.path(), false)] {
        for _ in 0..3 {
            std::fs::remove_dir_all(dir.join("catalog")).expect("removed");
            let (store, opened) = open(dir);
            assert!(opened.rebuilt.is_some(), "{opened:?}");
            assert!(opened.clean_stop || !clean, "{opened:?}");
            check_all(&store, id).await;
            store.stop().expect("a clean stop");
        }
    }
}

#[tokio::test]
async fn an_older_catalog_is_known_to_be_too_old() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let old = tempfile::tempdir().expect("a scratch directory");
    let (store, _) = open(dir.path());
    create(&store, "early", Durability::Fsync).await;
    store.stop().expect("a clean stop");
    drop(store);
    copy_dir(&dir.path().join("catalog"), &old.path().join("catalog"));
    let (store, id) = shrunk_again(dir.path()).await;
    store.stop().expect("a clean stop");
    drop(store);
    std::fs::remove_dir_all(dir.path().join("catalog")).expect("removed");
    copy_dir(&old.path().join("catalog"), &dir.path().join("catalog"));
    let (store, opened) = open(dir.path());
    assert!(opened.rebuilt.is_some(), "{opened:?}");
    check(&store, id, 0..30, 10_000).await;
    assert_eq!(store.topic_count(), 2);
    assert!(store.damage().is_empty(), "{:?}", store.damage());
    store.stop().expect("a clean stop");
}

async fn shrunk_again(dir: &Path) -> (Store, TopicId) {
    let (store, _) = open(dir);
    let id = create(&store, "late", Durability::Fsync).await;
    let other = create(&store, "other", Durability::Fsync).await;
    fill(&store, other, 0..800, 10_000).await;
    fill(&store, id, 0..30, 10_000).await;
    store
        .delete_topic(name("other"), None)
        .await
        .expect("deleted");
    beginning_is_gone(&store, dir).await;
    (store, id)
}

#[tokio::test]
async fn a_snapshot_that_was_interrupted_is_not_used() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let (store, id) = shrunk(dir.path()).await;
    // Copies at many moments while further snapshots are written.
    let other = create(&store, "more", Durability::Fsync).await;
    let mut copies = Vec::new();
    for round in 0..6_u64 {
        fill(&store, other, round * 150..round * 150 + 150, 10_000).await;
        let end = Position::Offset(Offset::new(round * 150 + 140));
        store.purge_topic(name("more"), end).await.expect("purged");
        for _ in 0..3 {
            copies.push(crashed_copy(dir.path()));
            tokio::time::sleep(Duration::from_millis(40)).await;
        }
    }
    store.stop().expect("a clean stop");
    for copy in copies {
        std::fs::remove_dir_all(copy.path().join("catalog")).expect("removed");
        let (store, opened) = open(copy.path());
        assert!(opened.rebuilt.is_some(), "{opened:?}");
        assert_eq!(values(&store, id, 0).await.len(), 101);
        assert!(store.damage().is_empty(), "{:?}", store.damage());
        store.stop().expect("a clean stop");
    }
}

/// Slots wait for claims. Whoever asked for a topic every 100 ms held them up for as long as nothing was written.
#[tokio::test]
async fn what_was_written_is_claimed_although_questions_never_end() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let (store, _) = open(dir.path());
    let id = create(&store, "a", Durability::Fsync).await;
    publish(&store, id, batch(0, 0, &[b"x"])).await;
    let written = store.shared.synced_group.load(Ordering::Acquire);
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while store.shared.claimed_group.load(Ordering::Acquire) < written {
        let is_late = std::time::Instant::now() > deadline;
        assert!(!is_late, "group {written} is not claimed");
        super::retention::info(&store, "a").await;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    store.stop().expect("a clean stop");
}
