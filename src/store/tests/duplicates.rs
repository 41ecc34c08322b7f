//! A batch that was stored is a duplicate, whatever rule came after it.

use super::retention::{fill, of_producer};
use super::snapshots::beginning_is_gone;
use super::*;
use crate::protocol::api::{Nonce, ProducerInfo};
use crate::protocol::batch::Origin;
use crate::topic::Opening;

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

fn named(epoch: ProducerInfo, first: u64, values: &[&[u8]]) -> CheckedBatch {
    let mut builder = BatchBuilder::new(Compression::None);
    for value in values {
        let record = RecordToSend {
            timestamp: Timestamp::from_millis(7),
            key: None,
            headers: &[],
            value,
        };
        builder.try_push(&record).expect("it fits");
    }
    let origin = Origin {
        producer: ProducerId::from_bytes([9; 16]),
        epoch: epoch.epoch,
        first: Sequence::new(first),
        ..Origin::default()
    };
    let bytes = builder.build_as(&origin).expect("it builds");
    CheckedBatch::check(bytes, limits::MESSAGE_BYTES_MAX).expect("it is sound")
}

fn opening(nonce: u8) -> Opening {
    Opening {
        producer: ProducerId::from_bytes([9; 16]),
        nonce: Nonce([nonce; 16]),
        at: None,
    }
}

/// What is known of a name, whether the catalog is there or has to be built from the journal, with or without a
/// state snapshot in it.
#[tokio::test]
async fn a_name_is_known_whatever_the_state_is_built_from() {
    for (rebuilt, snapshot) in [(false, false), (true, false), (true, true)] {
        let dir = tempfile::tempdir().expect("a scratch directory");
        let (store, _) = open(dir.path());
        let id = create(&store, "a", Durability::Fsync).await;
        let other = create(&store, "other", Durability::Fsync).await;
        if snapshot {
            fill(&store, other, 0..800, 10_000).await;
        }
        let first = store.open_producer(id, opening(1)).await.expect("made");
        publish(&store, id, named(first.clone(), 0, &[b"0", b"1"])).await;
        let second = store.open_producer(id, opening(2)).await.expect("made");
        assert_eq!(second.next_sequence, Sequence::new(2));
        publish(&store, id, named(second.clone(), 2, &[b"2"])).await;
        if snapshot {
            fill(&store, other, 800..1000, 10_000).await;
            let deleted = store.delete_topic(name("other"), None).await;
            deleted.expect("deleted");
            beginning_is_gone(&store, dir.path()).await;
        }
        let before = store.describe_producer(id, opening(1).producer).await;
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
        let after = store.describe_producer(id, opening(1).producer).await;
        assert_eq!(after, before);
        let again = publish(&store, id, named(first.clone(), 0, &[b"0", b"1"])).await;
        assert!(again.duplicate, "what a process before stored is stored");
        let epoch = LeaderEpoch::new(1);
        let fenced = store.publish(id, epoch, named(first, 3, &[b"x"])).await;
        assert_eq!(fenced.expect_err("fenced").name(), "ProducerFenced");
        assert!(
            publish(&store, id, named(second.clone(), 2, &[b"2"]))
                .await
                .duplicate
        );
        publish(&store, id, named(second, 3, &[b"3"])).await;
        let asked_again = store.open_producer(id, opening(2)).await.expect("known");
        assert_eq!(asked_again.next_sequence, Sequence::new(4));
        assert_eq!(asked_again.last_offset, Some(Offset::new(3)));
        store.stop().expect("a clean stop");
    }
}

/// Among too many producers a name may go; it is not taken for a new one then, nor after a restart.
#[tokio::test]
async fn a_name_that_had_to_go_is_told_to_whoever_comes_back() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let (store, _) = open(dir.path());
    let id = create(&store, "a", Durability::Fsync).await;
    let first = store.open_producer(id, opening(1)).await.expect("made");
    publish(&store, id, named(first.clone(), 0, &[b"0"])).await;
    tokio::time::sleep(Duration::from_millis(5)).await;
    let mut waiting = Vec::new();
    for n in 0..limits::PRODUCERS_PER_TOPIC_MAX {
        let (sender, receiver) = oneshot::channel();
        let done: Done<Published> = Box::new(|outcome| drop(sender.send(outcome)));
        let batch = of_producer(n);
        store.append(id, LeaderEpoch::new(1), batch, done);
        waiting.push(receiver);
    }
    for receiver in waiting {
        receiver.await.expect("answered").expect("stored");
    }
    let epoch = LeaderEpoch::new(1);
    for restarted in [false, true] {
        let (store, _) = match restarted {
            false => (store.clone(), None),
            true => {
                store.stop().expect("a clean stop");
                let (store, opened) = open(dir.path());
                (store, Some(opened))
            }
        };
        let late = store
            .publish(id, epoch, named(first.clone(), 1, &[b"1"]))
            .await;
        assert_eq!(late, Err(ApiError::ProducerForgotten));
        let back = store.open_producer(id, opening(2)).await;
        assert_eq!(back, Err(ApiError::ProducerForgotten));
        if restarted {
            let at = Opening {
                at: Some(Sequence::new(1)),
                ..opening(3)
            };
            let told = store.open_producer(id, at).await.expect("told where");
            assert!(told.epoch > first.epoch, "nobody's of before");
            publish(&store, id, named(told, 1, &[b"1"])).await;
            store.stop().expect("a clean stop");
        }
    }
}
