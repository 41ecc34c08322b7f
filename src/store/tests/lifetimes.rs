//! The disk space of messages whose time to live is over.

use super::compacting::all;
use super::retention::{check, fill, info, slots, until, value};
use super::*;
use crate::protocol::batch::Origin;

fn short_lived(n: u64, bytes: usize, ttl: Duration) -> CheckedBatch {
    let mut builder = BatchBuilder::new(Compression::None);
    let value = value(n, bytes);
    let record = RecordToSend {
        timestamp: Timestamp::from_millis(7),
        key: None,
        headers: &[],
        value: &value,
    };
    builder.try_push(&record).expect("it fits");
    let origin = Origin {
        ttl: Some(ttl),
        ..Origin::default()
    };
    let bytes = builder.build_as(&origin).expect("it builds");
    CheckedBatch::check(bytes, limits::MESSAGE_BYTES_MAX).expect("sound")
}

#[tokio::test]
async fn what_is_over_gives_its_space_back_out_of_the_middle_too() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let (store, _) = open(dir.path());
    let id = create(&store, "a", Durability::Fsync).await;
    // Every tenth stays, the first one too: the start cannot move.
    let ttl = Duration::from_secs(2);
    for n in 0..1200_u64 {
        match n % 10 {
            0 => fill(&store, id, n..n + 1, 10_000).await,
            _ => _ = publish(&store, id, short_lived(n, 10_000, ttl)).await,
        }
    }
    let full = slots(dir.path());
    assert!(full > 11, "{full} slots");
    let before = info(&store, "a").await;
    until("its space is back", || slots(dir.path()) <= 8).await;
    let (found, gaps) = all(&store, id, 0).await;
    let offsets: Vec<u64> = found.keys().copied().collect();
    let kept: Vec<u64> = (0..1200).step_by(10).collect();
    assert_eq!(offsets, kept);
    assert!(gaps.iter().all(|gap| gap.reason == GapReason::Expired));
    let after = info(&store, "a").await;
    assert!(after.bytes < before.bytes / 2, "{} bytes", after.bytes);
    assert!(after.removed > 300, "{} were taken away", after.removed);
    let copy = crashed_copy(dir.path());
    store.stop().expect("a clean stop");
    drop(store);
    for dir in [dir.path(), copy.path()] {
        let (store, _) = open(dir);
        let (found, _) = all(&store, id, 0).await;
        assert_eq!(found.len(), kept.len());
        store.stop().expect("a clean stop");
    }
}

#[tokio::test]
async fn a_start_moves_over_what_is_over() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let (store, _) = open(dir.path());
    let id = create(&store, "a", Durability::Fsync).await;
    let other = create(&store, "b", Durability::Fsync).await;
    fill(&store, other, 0..10, 2_000).await;
    for n in 0..50_u64 {
        publish(&store, id, short_lived(n, 1_000, Duration::from_secs(1))).await;
    }
    fill(&store, id, 50..60, 1_000).await;
    publish(&store, id, short_lived(60, 1_000, Duration::from_secs(1))).await;
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    while info(&store, "a").await.start_offset.get() < 50 {
        assert!(
            std::time::Instant::now() < deadline,
            "the start does not move"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let (found, gaps) = all(&store, id, 0).await;
    assert_eq!(found.len(), 10, "{gaps:?}");
    assert_eq!(info(&store, "a").await.start_offset.get(), 50);
    check(&store, other, 0..10, 2_000).await;
    store.stop().expect("a clean stop");
}
