//! Message ids: known again whatever became of the messages, the process and the catalog.

use super::retention::fill;
use super::snapshots::beginning_is_gone;
use super::*;
use crate::protocol::batch::{Header, Origin};
use crate::topic::RowKey;
use crate::types::RememberIds;

fn with_id(id: &str, value: &[u8]) -> CheckedBatch {
    let mut builder = BatchBuilder::new(Compression::None);
    let headers = [Header {
        name: "tidings-id".to_owned(),
        value: id.as_bytes().to_vec().into(),
    }];
    let record = RecordToSend {
        timestamp: Timestamp::from_millis(7),
        key: None,
        headers: &headers,
        value,
    };
    builder.try_push(&record).expect("it fits");
    let origin = Origin {
        has_id: true,
        ..Origin::default()
    };
    let bytes = builder.build_as(&origin).expect("it builds");
    CheckedBatch::check(bytes, limits::MESSAGE_BYTES_MAX).expect("it is sound")
}

async fn set(store: &Store, text: &str, ids: RememberIds) -> Result<(), ApiError> {
    let changes = TopicChanges {
        remember_ids_for_ms: Some(ids.for_ms),
        remember_ids_max: Some(ids.max),
        ..TopicChanges::default()
    };
    store.set_topic(name(text), changes).await.map(|_| ())
}

fn last(max: u64) -> RememberIds {
    RememberIds {
        for_ms: None,
        max: Some(max),
    }
}

/// Publishes ids `range`; tells of how many it was the first time.
async fn publish_ids(store: &Store, id: TopicId, range: std::ops::Range<u64>) -> usize {
    let mut waiting = Vec::new();
    for n in range {
        let (sender, receiver) = oneshot::channel();
        let done: Done<Published> = Box::new(|outcome| drop(sender.send(outcome)));
        store.append(
            id,
            LeaderEpoch::new(1),
            with_id(&format!("{n}"), b"x"),
            done,
        );
        waiting.push(receiver);
    }
    let mut new = 0;
    for receiver in waiting {
        let published = receiver.await.expect("answered").expect("stored");
        new += usize::from(!published.duplicate);
    }
    new
}

async fn remembered(store: &Store, id: TopicId) -> u64 {
    let counted = store.change(id, move |context| {
        Ok((context.state.topic(id)?.ids.count(), Vec::new()))
    });
    counted.await.expect("counted")
}

#[tokio::test]
async fn ids_are_known_whatever_the_state_is_built_from() {
    for (rebuilt, snapshot) in [(false, false), (true, false), (true, true)] {
        let dir = tempfile::tempdir().expect("a scratch directory");
        let (store, _) = open(dir.path());
        let id = create(&store, "a", Durability::Fsync).await;
        let other = create(&store, "other", Durability::Fsync).await;
        if snapshot {
            fill(&store, other, 0..800, 10_000).await;
        }
        let early = store
            .publish(id, LeaderEpoch::new(1), with_id("0", b"x"))
            .await;
        assert_eq!(early, Err(ApiError::IdsNotRemembered { name: name("a") }));
        set(&store, "a", last(1000)).await.expect("set");
        assert_eq!(publish_ids(&store, id, 0..1500).await, 1500);
        store
            .purge_topic(name("a"), Position::End)
            .await
            .expect("purged");
        if snapshot {
            fill(&store, other, 800..1000, 10_000).await;
            let deleted = store.delete_topic(name("other"), None).await;
            deleted.expect("deleted");
            beginning_is_gone(&store, dir.path()).await;
        }
        store.stop().expect("a clean stop");
        drop(store);
        if rebuilt {
            std::fs::remove_dir_all(dir.path().join("catalog")).expect("removed");
        }
        let (store, opened) = open(dir.path());
        assert_eq!(
            (opened.rebuilt.is_some(), opened.from_snapshot),
            (rebuilt, snapshot)
        );
        assert_eq!(
            publish_ids(&store, id, 500..1500).await,
            0,
            "{rebuilt} {snapshot}"
        );
        let again = publish(&store, id, with_id("1499", b"another text")).await;
        assert_eq!(again.base_offset.get(), 1499, "where the first one was");
        // The oldest are forgotten.
        assert_eq!(publish_ids(&store, id, 0..300).await, 300);
        store.stop().expect("a clean stop");
        drop(store);
        let findings = crate::store::offline::verify(dir.path())
            .expect("readable")
            .findings;
        assert!(findings.is_empty(), "{findings:?}");
    }
}

#[tokio::test]
async fn of_two_in_one_group_the_second_is_a_duplicate() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let (store, _) = open(dir.path());
    let id = create(&store, "a", Durability::Fsync).await;
    set(&store, "a", last(1000)).await.expect("set");
    for round in 0..20 {
        let ids = (0..40).map(|n| format!("{round} {}", n % 10));
        let mut waiting = Vec::new();
        for text in ids {
            let (sender, receiver) = oneshot::channel();
            let done: Done<Published> = Box::new(|outcome| drop(sender.send(outcome)));
            store.append(id, LeaderEpoch::new(1), with_id(&text, b"x"), done);
            waiting.push(receiver);
        }
        for (n, receiver) in (0..).zip(waiting) {
            let published = receiver.await.expect("answered").expect("stored");
            assert_eq!(published.duplicate, n >= 10);
            assert_eq!(published.base_offset.get(), round * 10 + n % 10);
        }
    }
    store.stop().expect("a clean stop");
}

/// Where messages with ids lie far apart there is a page of ids for each of them, and more pages than one change may have
/// rows: to switch ids off ended the peer.
#[tokio::test]
async fn more_pages_than_fit_into_a_change_are_forgotten() {
    const PAGES: u64 = limits::STATE_OPERATIONS_MAX as u64 + 10;
    let dir = tempfile::tempdir().expect("a scratch directory");
    let (store, _) = open(dir.path());
    let id = create(&store, "a", Durability::Os).await;
    set(&store, "a", last(limits::IDS_PER_TOPIC_MAX))
        .await
        .expect("set");
    let apart = batch(0, 0, &[&b""[..]; limits::IDS_PER_PAGE as usize]);
    let mut waiting = Vec::new();
    for n in 0..PAGES {
        let one = (with_id(&format!("{n}"), b""), apart.clone());
        for batch in [one.0, one.1] {
            let (sender, receiver) = oneshot::channel();
            let done: Done<Published> = Box::new(|outcome| drop(sender.send(outcome)));
            store.append(id, LeaderEpoch::new(1), batch, done);
            waiting.push(receiver);
        }
        if n % 10_000 == 0 || n == PAGES - 1 {
            for receiver in waiting.drain(..) {
                receiver.await.expect("answered").expect("stored");
            }
        }
    }
    assert_eq!(remembered(&store, id).await, PAGES);
    set(&store, "a", RememberIds::default()).await.expect("off");
    assert_eq!(remembered(&store, id).await, 0);
    assert_eq!(store.failure(), None);
    store.stop().expect("a clean stop");
    drop(store);
    std::fs::remove_dir_all(dir.path().join("catalog")).expect("removed");
    let (store, _) = open(dir.path());
    set(&store, "a", last(1000)).await.expect("on again");
    assert_eq!(publish_ids(&store, id, 0..3).await, 3, "none is known");
    store.stop().expect("a clean stop");
}

/// A change that did not come to its end leaves pages behind: they are gone before ids are remembered again.
#[tokio::test]
async fn what_is_left_of_ids_is_forgotten_before_they_are_on_again() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let (store, _) = open(dir.path());
    let id = create(&store, "a", Durability::Fsync).await;
    set(&store, "a", last(1000)).await.expect("set");
    assert_eq!(publish_ids(&store, id, 0..300).await, 300);
    let interrupted = store.change(id, move |context| {
        context.state.topic_mut(id)?.row.settings.ids = RememberIds::default();
        Ok(((), vec![RowKey::Topic(id)]))
    });
    interrupted.await.expect("changed");
    store.stop().expect("a clean stop");
    drop(store);
    let (store, _) = open(dir.path());
    assert_eq!(remembered(&store, id).await, 300, "they are left");
    set(&store, "a", last(1000)).await.expect("on again");
    assert_eq!(publish_ids(&store, id, 0..300).await, 300);
    store.stop().expect("a clean stop");
}

#[tokio::test]
async fn what_is_promised_is_bounded_and_what_is_turned_off_is_forgotten() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let (store, _) = open(dir.path());
    let id = create(&store, "a", Durability::Fsync).await;
    create(&store, "b", Durability::Fsync).await;
    create(&store, "c", Durability::Fsync).await;
    for bad in [
        last(0),
        last(limits::IDS_PER_TOPIC_MAX + 1),
        RememberIds {
            for_ms: Some(1000),
            max: None,
        },
    ] {
        let refused = set(&store, "a", bad).await.expect_err("makes no sense");
        assert_eq!(refused.name(), "InvalidArgument", "{bad:?}");
    }
    set(&store, "a", last(limits::IDS_PER_TOPIC_MAX))
        .await
        .expect("set");
    set(&store, "b", last(limits::IDS_PER_TOPIC_MAX))
        .await
        .expect("set");
    let refused = set(&store, "c", last(1)).await.expect_err("too many");
    assert!(
        refused.to_string().contains("promised to other topics"),
        "{refused}"
    );
    assert_eq!(publish_ids(&store, id, 0..300).await, 300);
    set(&store, "a", RememberIds::default()).await.expect("off");
    set(&store, "c", last(1)).await.expect("room again");
    set(&store, "a", last(1000)).await.expect("on again");
    assert_eq!(
        publish_ids(&store, id, 0..300).await,
        300,
        "nothing is known"
    );
    store.stop().expect("a clean stop");
    drop(store);
    let (store, _) = open(dir.path());
    assert_eq!(publish_ids(&store, id, 0..300).await, 0);
    store.stop().expect("a clean stop");
}
