//! A batch that was stored is a duplicate, whatever rule came after it.

use super::*;

#[tokio::test]
async fn under_the_reserve_a_retry_is_still_acknowledged() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let (store, _) = open(dir.path());
    let id = create(&store, "a", Durability::Fsync).await;
    let stored = publish(&store, id, batch(1, 0, &[b"one"])).await;
    store.stop().expect("a clean stop");
    drop(store);
    // More than any disk has free: publishing is refused from the start.
    let full = StoreOptions {
        reserve_bytes: Some(u64::MAX / 2),
        ..options(dir.path())
    };
    let (store, _) = Store::open(&full).expect("opens");
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while store.refusal().is_none() {
        assert!(
            std::time::Instant::now() < deadline,
            "the reserve is reached"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let epoch = LeaderEpoch::new(1);
    let again = store.publish(id, epoch, batch(1, 0, &[b"one"])).await;
    let again = again.expect("it is stored");
    assert!(again.duplicate);
    assert_eq!(again.base_offset, stored.base_offset);
    for new in [
        batch(1, 1, &[b"two"]),
        batch(2, 0, &[b"two"]),
        batch(0, 0, &[b"two"]),
    ] {
        let refused = store.publish(id, epoch, new).await;
        assert!(
            matches!(refused, Err(ApiError::DiskReserve { .. })),
            "{refused:?}"
        );
    }
    store.stop().expect("a clean stop");
}
