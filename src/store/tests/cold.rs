//! Cold segments, and space on disk: what lives is copied together, byte for byte, and nothing grows without end.

use super::retention::{check, fill, info, journal_bytes, slots, until, until_sealed};
use super::*;

/// The segments that hold something, with their kind.
fn kinds(store: &Store) -> Vec<(u64, u8)> {
    let segments = store.shared.segments.all();
    let rows = segments
        .iter()
        .filter_map(|s| Some((s.number, s.row?.kind)));
    rows.collect()
}

pub(super) fn has_cold(store: &Store) -> bool {
    kinds(store).iter().any(|(_, kind)| *kind == 3)
}

/// A store whose segments each hold a little of several topics, and much of one that is to be deleted.
pub(super) async fn mixed(dir: &Path) -> (Store, Vec<TopicId>, u64) {
    let (store, _) = open(dir);
    let mut small = Vec::new();
    for n in 0..5 {
        small.push(create(&store, &format!("small-{n}"), Durability::Fsync).await);
    }
    let large = create(&store, "large", Durability::Fsync).await;
    for round in 0..20_u64 {
        for id in &small {
            fill(&store, *id, round * 8..round * 8 + 8, 2_000).await;
        }
        fill(&store, large, round * 80..round * 80 + 80, 10_000).await;
    }
    (store, small, 160)
}

pub(super) async fn check_small(store: &Store, small: &[TopicId], end: u64) {
    for id in small {
        check(store, *id, 0..end, 2_000).await;
        check(store, *id, end / 2..end, 2_000).await;
    }
    assert!(store.damage().is_empty(), "{:?}", store.damage());
}

#[tokio::test]
async fn what_lives_is_copied_together_and_read_back() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let (store, small, end) = mixed(dir.path()).await;
    let full = slots(dir.path());
    assert!(full > 16, "{full} slots");
    store
        .delete_topic(name("large"), None)
        .await
        .expect("deleted");
    // Copies of the directory at moments before, while and after segments are swapped.
    let mut copies = Vec::new();
    let live: u64 = small.len() as u64 * end * 2_200;
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    while journal_bytes(dir.path()) > live * 3 / 2 + (6 << 20) {
        assert!(
            std::time::Instant::now() < deadline,
            "{} bytes for {live} live ones",
            journal_bytes(dir.path())
        );
        if copies.len() < 24 {
            copies.push(crashed_copy(dir.path()));
        }
        check_small(&store, &small, end).await;
        tokio::time::sleep(Duration::from_millis(60)).await;
    }
    assert!(has_cold(&store), "{:?}", kinds(&store));
    // By time, across segments that are sorted otherwise than the stream.
    let middle = values(&store, small[2], 77).await;
    assert_eq!(middle.len(), 83);
    copies.push(crashed_copy(dir.path()));
    store.stop().expect("a clean stop");
    drop(store);
    for (at, copy) in copies.iter().enumerate() {
        if at % 3 == 2 {
            std::fs::remove_dir_all(copy.path().join("catalog")).expect("removed");
        }
        let (store, _) = open(copy.path());
        check_small(&store, &small, end).await;
        fill(&store, small[0], end..end + 5, 2_000).await;
        check(&store, small[0], 0..end + 5, 2_000).await;
        store.stop().expect("a clean stop");
    }
    let (store, _) = open(dir.path());
    check_small(&store, &small, end).await;
    store.stop().expect("a clean stop");
}

#[tokio::test]
async fn times_are_found_in_cold_segments() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let (store, _) = open(dir.path());
    let id = create(&store, "a", Durability::Fsync).await;
    let large = create(&store, "large", Durability::Fsync).await;
    let mut times = Vec::new();
    for round in 0..12_u64 {
        times.push(Timestamp::now());
        fill(&store, id, round * 5..round * 5 + 5, 2_000).await;
        fill(&store, large, round * 90..round * 90 + 90, 10_000).await;
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    store
        .delete_topic(name("large"), None)
        .await
        .expect("deleted");
    until("segments are copied together", || has_cold(&store)).await;
    until("and given up", || slots(dir.path()) <= 6).await;
    for (round, time) in (0_u64..).zip(times) {
        let found = store.find_offset(name("a"), Position::Time(time)).await;
        assert_eq!(found.expect("found").offset.get(), round * 5);
    }
    store.stop().expect("a clean stop");
}

#[tokio::test]
async fn a_slot_is_not_reused_while_somebody_reads_it() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let (store, small, end) = mixed(dir.path()).await;
    let pinned = store.shared.segments.all();
    let pinned: Vec<_> = pinned
        .into_iter()
        .filter(|s| s.row.is_some())
        .take(3)
        .collect();
    let read = |segment: &std::sync::Arc<segments::Segment>| {
        let slot = segment.slot(&store.shared.dir).expect("still there");
        let block = slot.read_at(0, slot.slot_bytes(), crate::journal::Via::Direct);
        block.expect("readable").as_slice().to_vec()
    };
    let before: Vec<Vec<u8>> = pinned.iter().map(read).collect();
    store
        .delete_topic(name("large"), None)
        .await
        .expect("deleted");
    until("the pinned segments are replaced", || {
        pinned
            .iter()
            .all(|segment| store.shared.segments.get(segment.number).is_none())
    })
    .await;
    let churn = create(&store, "churn", Durability::Fsync).await;
    fill(&store, churn, 0..500, 10_000).await;
    until("others are reused or gone", || slots(dir.path()) <= 16).await;
    let after: Vec<Vec<u8>> = pinned.iter().map(read).collect();
    assert!(before == after, "a slot changed under its reader");
    let paths: Vec<_> = pinned
        .iter()
        .map(|segment| {
            segment
                .slot(&store.shared.dir)
                .expect("there")
                .path()
                .to_owned()
        })
        .collect();
    drop(pinned);
    store
        .delete_topic(name("churn"), None)
        .await
        .expect("deleted");
    until("the space is back", || slots(dir.path()) <= 8).await;
    let again = create(&store, "again", Durability::Fsync).await;
    fill(&store, again, 0..500, 10_000).await;
    for (path, before) in paths.iter().zip(&before) {
        let now = std::fs::read(path).unwrap_or_default();
        assert!(
            now.get(..8192) != Some(&before[..8192]),
            "given up once nobody reads it"
        );
    }
    check_small(&store, &small, end).await;
    store.stop().expect("a clean stop");
}

#[tokio::test]
async fn a_damaged_segment_stays_as_it_is() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let (store, small, end) = mixed(dir.path()).await;
    // So that the next start need not walk over the segment and finds nothing itself.
    until_sealed(&store).await;
    // One byte of a batch of a topic that lives, in a segment that is mostly dead.
    let segments = store.shared.segments.all();
    let (segment, extent) = segments
        .iter()
        .filter_map(|segment| {
            let footer = store.shared.segments.footer(segment, &store.shared.dir);
            let extent = footer.expect("readable")?.extents_of(small[0]).next()?;
            Some((segment, extent))
        })
        .nth(1)
        .expect("a sealed segment with something of it");
    let slot = segment.slot(&store.shared.dir).expect("there");
    let (path, at) = (slot.path().to_owned(), extent.position as usize + 300);
    drop((slot, segments));
    store.stop().expect("a clean stop");
    drop(store);
    let mut bytes = std::fs::read(&path).expect("readable");
    assert_eq!(bytes[at], b'.');
    bytes[at] ^= 1;
    std::fs::write(&path, &bytes).expect("written");
    let (store, opened) = open(dir.path());
    assert!(opened.rebuilt.is_none(), "{opened:?}");
    store
        .delete_topic(name("large"), None)
        .await
        .expect("deleted");
    until("the others are copied", || {
        has_cold(&store) && slots(dir.path()) <= 9
    })
    .await;
    let marked = || {
        let segments = store.shared.segments.all();
        let damaged = segments
            .iter()
            .filter(|s| s.row.is_some_and(|row| row.damaged));
        damaged.count()
    };
    assert_eq!(
        (marked(), store.damage().len()),
        (1, 1),
        "{:?}",
        store.damage()
    );
    // A start that walked through it has put its footer behind the contents, at the end of the slot.
    let segments = store.shared.segments.all();
    let damaged = segments.iter().filter_map(|segment| segment.row);
    let damaged = damaged
        .filter(|row| row.damaged)
        .map(|row| row.end as usize);
    let contents = damaged.max().expect("marked");
    let now = std::fs::read(&path).expect("there");
    let changed = now[..contents]
        .iter()
        .zip(&bytes)
        .position(|(now, before)| now != before);
    assert_eq!(
        (changed, now.len()),
        (None, bytes.len()),
        "{path:?} changed: {:?}",
        store.damage()
    );
    let mut damaged = 0;
    for id in &small {
        let mut request = fetch(*id, 0);
        request.pass_damage = true;
        request.max_bytes = 8 << 20;
        let fetched = store.fetch(request).await.expect("read");
        let gap = |item: &&FetchItem| matches!(item, FetchItem::Gap(_));
        damaged += fetched.items.iter().filter(gap).count();
        assert_eq!(fetched.next_offset.get(), end);
    }
    assert_eq!(damaged, 1, "one flipped bit costs one batch");
    store.stop().expect("a clean stop");
    drop(store);
    let (store, _) = open(dir.path());
    check(&store, small[1], 0..end, 2_000).await;
    assert!(path.exists(), "it stays across restarts");
    store.stop().expect("a clean stop");
}

#[tokio::test]
async fn fifty_restarts_do_not_grow_the_directory() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let (store, _) = open(dir.path());
    let id = create(&store, "a", Durability::Fsync).await;
    store.stop().expect("a clean stop");
    drop(store);
    let mut most = 0;
    for n in 0..50_u64 {
        let (store, _) = open(dir.path());
        fill(&store, id, n * 3..n * 3 + 3, 1_000).await;
        if n % 2 == 0 {
            store.stop().expect("a clean stop");
        } else {
            // As if killed: a copy of what is there goes on, in the same place.
            let copy = crashed_copy(dir.path());
            store.stop().expect("a clean stop");
            drop(store);
            std::fs::remove_dir_all(dir.path()).expect("removed");
            copy_dir(copy.path(), dir.path());
        }
        most = most.max(slots(dir.path()));
    }
    assert!(most <= 24, "{most} slots for 150 small records");
    let (store, _) = open(dir.path());
    check(&store, id, 0..150, 1_000).await;
    until("what the restarts left is given back", || {
        slots(dir.path()) <= 6
    })
    .await;
    check(&store, id, 0..150, 1_000).await;
    assert_eq!(info(&store, "a").await.end_offset.get(), 150);
    assert!(store.damage().is_empty(), "{:?}", store.damage());
    store.stop().expect("a clean stop");
}

#[tokio::test]
async fn a_topic_that_keeps_little_keeps_the_disk_small() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let (store, _) = open(dir.path());
    let id = create(&store, "a", Durability::Fsync).await;
    let slow = create(&store, "slow", Durability::Fsync).await;
    let changes = TopicChanges {
        retain_bytes: Some(Some(3 << 20)),
        ..TopicChanges::default()
    };
    store.set_topic(name("a"), changes).await.expect("set");
    let mut most = 0;
    for round in 0..40_u64 {
        fill(&store, id, round * 100..round * 100 + 100, 10_000).await;
        fill(&store, slow, round * 10..round * 10 + 10, 3_000).await;
        tokio::time::sleep(Duration::from_millis(150)).await;
        most = most.max(slots(dir.path()));
    }
    // 40 MiB passed through.
    assert!(most <= 26, "{most} slots at most");
    until("little is left", || slots(dir.path()) <= 11).await;
    let copied = store.shared.reclaimed.figures().bytes_copied;
    assert!(
        copied <= 12 << 20,
        "{copied} bytes copied to keep a tenth of that"
    );
    let start = info(&store, "a").await.start_offset.get();
    check(&store, id, start..4000, 10_000).await;
    check(&store, slow, 0..400, 3_000).await;
    assert!(store.damage().is_empty(), "{:?}", store.damage());
    store.stop().expect("a clean stop");
}
