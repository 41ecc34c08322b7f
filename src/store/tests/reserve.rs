//! The disk reserve (J15), on a file system of its own that really fills up.

use std::process::Command;

use super::retention::{check, value};
use super::*;

/// A small file system, unmounted when dropped.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// `None` where nobody may mount one.
    fn new(megabytes: u32) -> Option<Self> {
        let dir = tempfile::tempdir().expect("a scratch directory");
        let size = format!("size={megabytes}m");
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tidings-test"])
            .arg(dir.path())
            .output();
        match mount {
            Ok(output) if output.status.success() => Some(Self(dir)),
            _ => None,
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).output();
    }
}

#[tokio::test]
async fn under_the_reserve_publishing_stops_and_reclaiming_makes_room() {
    let Some(disk) = SmallDisk::new(40) else {
        eprintln!("SKIPPED: only root can mount the small disk that the disk reserve is tested on");
        return;
    };
    let options = StoreOptions {
        slot_bytes: 1 << 20,
        reserve_bytes: Some(8 << 20),
        ..StoreOptions::new(disk.0.path().join("peer"))
    };
    let (store, _) = Store::open(&options).expect("opens");
    let id = create(&store, "a", Durability::Fsync).await;
    let other = create(&store, "other", Durability::Fsync).await;
    let mut ends = [0_u64; 2];
    for cycle in 0..3 {
        // Fill it, both topics alike, until publishing is refused.
        'full: for _ in 0..10_000 {
            for (at, topic) in [id, other].into_iter().enumerate() {
                let next = batch(0, 0, &[&value(ends[at], 10_000)]);
                match store.publish(topic, LeaderEpoch::new(1), next).await {
                    Ok(published) => {
                        assert_eq!(published.base_offset.get(), ends[at]);
                        ends[at] += 1;
                    }
                    Err(ApiError::DiskReserve { .. }) => break 'full,
                    Err(error) => panic!("cycle {cycle}: {error}"),
                }
            }
        }
        assert!(store.refusal().is_some(), "cycle {cycle}: the disk is full");
        // Everything else goes on.
        let made = store.create_subscription(
            name("a"),
            format!("s{cycle}").parse().expect("good"),
            Position::Beginning,
            false,
        );
        made.await.expect("subscribing needs no reserve");
        let to = Position::Offset(Offset::new(ends[0] - 10));
        store.purge_topic(name("a"), to).await.expect("purged");
        if cycle == 1 {
            let to = Position::Offset(Offset::new(ends[1] - 10));
            store.purge_topic(name("other"), to).await.expect("purged");
        }
        let deadline = std::time::Instant::now() + Duration::from_secs(60);
        while store.refusal().is_some() {
            assert!(
                std::time::Instant::now() < deadline,
                "cycle {cycle}: {:?}",
                store.figures()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        check(&store, id, ends[0] - 10..ends[0], 10_000).await;
    }
    let start = store
        .describe_topic(name("other"))
        .await
        .expect("there")
        .start_offset
        .get();
    check(&store, other, start..ends[1], 10_000).await;
    assert!(store.damage().is_empty(), "{:?}", store.damage());
    store.stop().expect("a clean stop");
    drop(store);
    let (store, _) = Store::open(&options).expect("opens again");
    check(&store, other, start..ends[1], 10_000).await;
    store.stop().expect("a clean stop");
}
