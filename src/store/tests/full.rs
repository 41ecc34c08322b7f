//! Topics that refuse when they are full: never above a bound, a batch whole or not at all, room comes back.

use super::retention::{fill, info, until, value};
use super::*;
use crate::types::WhenFull;

async fn refuses(store: &Store, topic: &str, bytes: Option<u64>, records: Option<u64>) {
    let changes = TopicChanges {
        retain_bytes: Some(bytes),
        retain_records: Some(records),
        when_full: Some(WhenFull::Refuse),
        ..TopicChanges::default()
    };
    store.set_topic(name(topic), changes).await.expect("set");
}

async fn try_publish(store: &Store, id: TopicId, batch: CheckedBatch) -> Result<u64, ApiError> {
    let published = store.publish(id, LeaderEpoch::new(1), batch).await;
    published.map(|published| published.base_offset.get())
}

/// Records and bytes that a refusal says the topic holds.
fn held(outcome: Result<u64, ApiError>) -> (u64, u64) {
    match outcome {
        Err(ApiError::TopicFull { records, bytes, .. }) => (records, bytes),
        other => panic!("TopicFull, not {other:?}"),
    }
}

#[tokio::test]
async fn no_record_too_many_and_what_is_stored_is_stored() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let (store, _) = open(dir.path());
    let id = create(&store, "a", Durability::Fsync).await;
    refuses(&store, "a", None, Some(5)).await;
    let two = |first| batch(1, first, &[b"x", b"y"]);
    assert_eq!(try_publish(&store, id, two(0)).await, Ok(0));
    assert_eq!(try_publish(&store, id, two(2)).await, Ok(2));
    let bytes = 2 * two(0).bytes().len() as u64;
    assert_eq!(held(try_publish(&store, id, two(4)).await), (4, bytes));
    let again = store.publish(id, LeaderEpoch::new(1), two(2)).await;
    assert!(again.expect("it is there").duplicate);
    assert_eq!(try_publish(&store, id, batch(1, 4, &[b"z"])).await, Ok(4));
    assert_eq!(
        held(try_publish(&store, id, batch(0, 0, &[b"z"])).await).0,
        5
    );
    let never = try_publish(&store, id, batch(0, 0, &[&b"z"[..]; 6])).await;
    assert!(matches!(never, Err(ApiError::BadBatch { .. })), "{never:?}");
    // As it is after a crash, and after a stop.
    let crashed = crashed_copy(dir.path());
    store.stop().expect("a clean stop");
    for dir in [crashed.path(), dir.path()] {
        let (store, _) = open(dir);
        assert_eq!(held(try_publish(&store, id, two(5)).await).0, 5);
        store
            .purge_topic(name("a"), Position::Offset(Offset::new(3)))
            .await
            .expect("purged");
        assert_eq!(try_publish(&store, id, two(5)).await, Ok(5));
        assert_eq!(held(try_publish(&store, id, two(7)).await).0, 4);
        store.stop().expect("a clean stop");
    }
}

#[tokio::test]
async fn many_at_once_fill_it_to_the_byte_and_no_further() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let (store, _) = open(dir.path());
    let id = create(&store, "a", Durability::Os).await;
    let one = batch(0, 0, &[&value(1, 100)]).bytes().len() as u64;
    refuses(&store, "a", Some(70 * one + one / 2), None).await;
    let publishing: Vec<_> = (0..200)
        .map(|n| {
            let store = store.clone();
            tokio::spawn(
                async move { try_publish(&store, id, batch(0, 0, &[&value(n, 100)])).await },
            )
        })
        .collect();
    let (mut stored, mut refused) = (0, 0);
    for one in publishing {
        match one.await.expect("no panic") {
            Ok(_) => stored += 1,
            outcome => {
                refused += 1;
                assert_eq!(held(outcome).0, 70);
            }
        }
    }
    assert_eq!((stored, refused), (70, 130));
    assert_eq!(info(&store, "a").await.bytes, 70 * one);
    store.stop().expect("a clean stop");
}

#[tokio::test]
async fn what_it_holds_stays_until_something_else_makes_room() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let (store, _) = open(dir.path());
    let id = create(&store, "a", Durability::Fsync).await;
    fill(&store, id, 0..20, 10).await;
    // A bound below what is there discards nothing here, unlike that of a topic beside it.
    let other = create(&store, "b", Durability::Fsync).await;
    fill(&store, other, 0..20, 10).await;
    refuses(&store, "a", None, Some(3)).await;
    let three = TopicChanges {
        retain_records: Some(Some(3)),
        ..TopicChanges::default()
    };
    store.set_topic(name("b"), three).await.expect("set");
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    while info(&store, "b").await.start_offset.get() < 17 {
        assert!(std::time::Instant::now() < deadline, "b keeps 3");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let kept = info(&store, "a").await;
    assert_eq!((kept.start_offset.get(), kept.end_offset.get()), (0, 20));
    assert_eq!(
        held(try_publish(&store, id, batch(0, 0, &[b"x"])).await).0,
        20
    );
    // Age goes on discarding, and makes room.
    let age = TopicChanges {
        retain_age_ms: Some(Some(1)),
        ..TopicChanges::default()
    };
    store.set_topic(name("a"), age).await.expect("set");
    let shared = store.shared_topic(id).expect("there");
    until("everything is too old", || shared.start().get() == 20).await;
    assert_eq!(try_publish(&store, id, batch(0, 0, &[b"x"])).await, Ok(20));
    store.stop().expect("a clean stop");
}
