//! A lost catalog whose state snapshot is damaged: what is still there has to stay there.

use std::time::Duration;

use super::*;
use crate::journal::{FIRST_POSITION, JournalDir, JournalOptions, SnapshotAt};
use crate::store::tests::retention::{fill, until};
use crate::store::tests::snapshots::shrunk;

/// The contents of every sealed segment, as the image sees them.
fn sealed_contents(dir: &Path) -> Vec<Vec<u8>> {
    let image = image::Image::open(dir).expect("an image");
    let sealed = image.segments.values().filter(|s| s.row.is_some());
    sealed
        .map(|segment| {
            let bytes = std::fs::read(dir.join(image.slot_name(segment.header.slot)));
            let end = segment.row.expect("sealed").end as usize;
            bytes.expect("read")[FIRST_POSITION as usize..end].to_vec()
        })
        .collect()
}

/// What nobody writes over: slots with a row, and what was set aside.
fn kept_files(dir: &Path) -> Vec<Vec<u8>> {
    let image = image::Image::open(dir).expect("an image");
    let sealed = image.segments.values().filter(|s| s.row.is_some());
    let slots = sealed.map(|segment| dir.join(image.slot_name(segment.header.slot)));
    let aside = std::fs::read_dir(dir.join("journal/damaged")).into_iter();
    let aside = aside.flatten().map(|entry| entry.expect("an entry").path());
    slots
        .chain(aside)
        .map(|path| std::fs::read(path).expect("read"))
        .collect()
}

/// The latest snapshot that a header names, and the slot it begins in.
fn named(dir: &Path) -> (u32, SnapshotAt) {
    let reading = JournalOptions {
        read_only: true,
        ..JournalOptions::default()
    };
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    let slots = loop {
        // The store may run, and remove a free slot between its being listed and its being looked at.
        match JournalDir::open(&dir.join("journal"), &reading) {
            Ok((_, slots)) => break slots,
            Err(error) => assert!(std::time::Instant::now() < deadline, "{error}"),
        }
    };
    let headers = || slots.iter().filter_map(|slot| slot.header.header());
    let named = headers().filter_map(|header| header.snapshot);
    let snapshot = named.max_by_key(|at| at.group).expect("one is named");
    let mut segments = headers().filter(|header| header.segment == snapshot.place.segment);
    (
        segments.next().expect("its segment is there").slot,
        snapshot,
    )
}

/// Segments that no row named any more counted as free: the repair wrote over some and unlinked others.
#[tokio::test]
async fn a_repair_without_a_whole_snapshot_keeps_every_segment() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let (store, _) = shrunk(dir.path()).await;
    let first = named(dir.path()).1;
    // What was copied together so far has its rows in the next snapshot and nowhere else.
    let other = create(&store, "more", Durability::Fsync).await;
    fill(&store, other, 0..600, 10_000).await;
    store
        .delete_topic(name("more"), None)
        .await
        .expect("deleted");
    until("the next snapshot", || {
        named(dir.path()).1.group > first.group
    })
    .await;
    store.stop().expect("a clean stop");
    drop(store);
    let before = sealed_contents(dir.path());
    assert!(before.len() > 1, "{} sealed segments", before.len());
    // The first group of the latest snapshot cannot be read.
    let (slot, snapshot) = named(dir.path());
    let path = dir.path().join(format!("journal/slot-{slot:08}"));
    let mut bytes = std::fs::read(&path).expect("read");
    bytes[snapshot.place.position as usize + 40] ^= 1;
    std::fs::write(&path, &bytes).expect("written");
    std::fs::remove_dir_all(dir.path().join("catalog")).expect("removed");

    let refused = Store::open(&options(dir.path()))
        .map(|_| ())
        .expect_err("facts are missing");
    assert!(refused.to_string().contains("snapshot"), "{refused}");
    let done = repair(dir.path(), false).expect("repaired");
    assert!(!done.lost.is_empty(), "{done:?}");
    let kept = kept_files(dir.path());
    for (n, contents) in before.iter().enumerate() {
        let is_kept = kept.iter().any(|file| path_holds(file, contents));
        let is_spoilt = kept.iter().any(|file| is_damaged_group(file, contents));
        assert!(
            is_kept || is_spoilt,
            "segment {n} of {} counts as free",
            before.len()
        );
    }
    let (store, _) = open(dir.path());
    store.stop().expect("a clean stop");
}

fn path_holds(file: &[u8], contents: &[u8]) -> bool {
    file.get(FIRST_POSITION as usize..FIRST_POSITION as usize + contents.len()) == Some(contents)
}

/// The one with the damage differs by it.
fn is_damaged_group(file: &[u8], contents: &[u8]) -> bool {
    let here = file.get(FIRST_POSITION as usize..FIRST_POSITION as usize + contents.len());
    here.is_some_and(|here| here.iter().zip(contents).filter(|(a, b)| a != b).count() == 1)
}
