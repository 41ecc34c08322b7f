//! Batches with a time to live, as readers of a store meet them.

use super::retention::until;
use super::*;
use crate::protocol::batch::Origin;

/// A batch that lives for so many milliseconds.
fn passing(ttl_ms: u64, value: &[u8]) -> CheckedBatch {
    let mut builder = BatchBuilder::new(Compression::None);
    let record = RecordToSend {
        timestamp: Timestamp::from_millis(7),
        key: None,
        headers: &[],
        value,
    };
    builder.try_push(&record).expect("it fits");
    let origin = Origin {
        ttl: Some(Duration::from_millis(ttl_ms)),
        ..Origin::default()
    };
    let bytes = builder.build_as(&origin).expect("it builds");
    CheckedBatch::check(bytes, limits::MESSAGE_BYTES_MAX).expect("it is sound")
}

fn expired(from: u64, to: u64) -> FetchItem {
    FetchItem::Gap(Gap {
        from: Offset::new(from),
        to: Offset::new(to),
        reason: GapReason::Expired,
    })
}

/// What was read before a long poll began to wait is looked at again before it is answered.
#[tokio::test]
async fn what_is_over_when_a_long_poll_ends_is_not_answered() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let (store, _) = open(dir.path());
    let id = create(&store, "a", Durability::Fsync).await;
    publish(&store, id, passing(300, b"soon over")).await;
    publish(&store, id, passing(1 << 30, b"for long")).await;
    let asked = Fetch {
        min_bytes: 1 << 20,
        max_wait_ms: 600,
        ..fetch(id, 0)
    };
    let fetched = store.fetch(asked).await.expect("an answer");
    assert_eq!(fetched.items[0], expired(0, 1));
    assert!(matches!(&fetched.items[1], FetchItem::Batch(stored) if stored.base_offset.get() == 1));
    assert_eq!((fetched.items.len(), fetched.next_offset.get()), (2, 2));
    store.stop().expect("a clean stop");
}

/// However much is over: an answer comes after a part of it, tells how far it was looked through, and the next goes on there.
#[tokio::test]
async fn a_lot_that_is_over_is_told_a_part_at_a_time() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    // Nothing is given back meanwhile: of what is gone from the journal there is nothing to look through.
    let options = StoreOptions {
        reclaim_every: Duration::from_secs(600),
        ..options(dir.path())
    };
    let (store, _) = Store::open(&options).expect("the store opens");
    let id = create(&store, "a", Durability::Fsync).await;
    // In front of it something that stays: else it may be discarded at any moment.
    publish(&store, id, batch(0, 0, &[b"first"])).await;
    let large = vec![b'x'; 40_000];
    let count = (3 * limits::READ_PASSED_BYTES_MAX / large.len()) as u64;
    for _ in 0..count {
        publish(&store, id, passing(1, &large)).await;
    }
    publish(&store, id, batch(0, 0, &[b"kept"])).await;
    let last = Timestamp::now();
    until("the last one is over", || {
        Timestamp::now().since(last) > Duration::from_millis(2)
    })
    .await;
    let (mut at, mut answers) = (1, 0);
    while at <= count {
        let fetched = store.fetch(fetch(id, at)).await.expect("an answer");
        let to = fetched.next_offset.get().min(count + 1);
        assert_eq!(fetched.items[0], expired(at, to));
        (at, answers) = (to, answers + 1);
    }
    assert!((3..=5).contains(&answers), "{answers} answers");
    let kept = [(0, b"first".to_vec()), (count + 1, b"kept".to_vec())];
    assert_eq!(values(&store, id, 0).await, kept);
    let place = Position::Time(last.after(Duration::from_secs(3600)));
    let found = store.find_offset(name("a"), place).await.expect("found");
    assert_eq!(found.offset.get(), count + 2);
    store.stop().expect("a clean stop");
}
