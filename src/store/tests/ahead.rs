//! Readers in order find their next answer read ahead, and never a wrong one.

use super::retention::{fill, until, value};
use super::*;
use crate::journal::Via;

const BYTES: usize = 2000;
const RECORDS: u64 = 2000;

/// A topic of some MiB that is on the disk only.
async fn on_disk(dir: &Path) -> (Store, TopicId) {
    let (store, _) = open(dir);
    let id = create(&store, "orders", Durability::Fsync).await;
    fill(&store, id, 0..RECORDS, BYTES).await;
    store.stop().expect("a clean stop");
    drop(store);
    let (store, _) = open(dir);
    (store, id)
}

async fn read(store: &Store, id: TopicId, from: u64, max_bytes: u32) -> Fetched {
    let request = Fetch {
        max_bytes,
        ..fetch(id, from)
    };
    store.fetch(request).await.expect("it can be read")
}

/// The answers that were read ahead so far.
fn ahead(store: &Store) -> u64 {
    let registry = &store.shared.meters.registry;
    registry.value(&catalogue::READ_AHEAD).sum()
}

/// Checks every value of an answer and gives the offset after it.
fn check(fetched: &Fetched, from: u64) -> u64 {
    let mut at = from;
    for item in &fetched.items {
        let FetchItem::Batch(stored) = item else {
            panic!("a gap in a topic without one: {item:?}");
        };
        assert_eq!(stored.base_offset.get(), at);
        let batch = CheckedBatch::check_crc(stored.batch.clone()).expect("as published");
        for record in batch.records().expect("records") {
            assert_eq!(record.expect("a record").value, value(at, BYTES));
            at += 1;
        }
    }
    assert_eq!(fetched.next_offset.get(), at);
    at
}

/// Two requests in order from `from`; what follows is being read when they are answered.
async fn two_in_order(store: &Store, id: TopicId, from: u64, max_bytes: u32) -> u64 {
    let next = check(&read(store, id, from, max_bytes).await, from);
    check(&read(store, id, next, max_bytes).await, next)
}

#[tokio::test]
async fn a_reader_in_order_is_read_ahead_of() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let (store, id) = on_disk(dir.path()).await;
    let mut at = two_in_order(&store, id, 0, 100_000).await;
    assert_eq!(ahead(&store), 0, "nobody knew that it goes on");
    let mut answers = 0;
    while at < RECORDS {
        at = check(&read(&store, id, at, 100_000).await, at);
        answers += 1;
    }
    assert!(answers > 20);
    assert_eq!(ahead(&store), answers);
    let files = store.shared.meters.registry.value(&catalogue::TAIL_MISSES);
    let segments = store.shared.segments.count() as u64;
    assert!(
        files.sum() <= 2 * segments,
        "{} reads of {segments} segments for {answers} answers",
        files.sum()
    );
    store.stop().expect("a clean stop");
}

/// Reads in order until a whole chain of answers is at hand.
async fn with_a_chain(store: &Store, id: TopicId) -> u64 {
    let at = two_in_order(store, id, 0, 100_000).await;
    let at = check(&read(store, id, at, 100_000).await, at);
    let most = limits::READ_AHEAD_ANSWERS_MAX;
    until("a chain", || store.ahead.waiting() == most).await;
    at
}

#[tokio::test]
async fn who_comes_for_it_is_read_ahead_of_further() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let (store, id) = on_disk(dir.path()).await;
    let mut at = with_a_chain(&store, id).await;
    // What one reader came for is gone; who follows it reads for itself, and reads ahead once.
    let before = ahead(&store);
    let again = check(&read(&store, id, 0, 100_000).await, 0);
    assert_eq!(ahead(&store), before);
    assert!(again < at);
    let most = limits::READ_AHEAD_ANSWERS_MAX as u64;
    for answer in 1..=2 * most {
        at = check(&read(&store, id, at, 100_000).await, at);
        assert_eq!(ahead(&store), before + answer);
        assert!(store.ahead.waiting() as u64 <= most);
    }
    store.stop().expect("a clean stop");
}

#[tokio::test]
async fn what_is_purged_is_not_handed_out_of_a_chain() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let (store, id) = on_disk(dir.path()).await;
    let at = with_a_chain(&store, id).await;
    let before = ahead(&store);
    let start = Offset::new(at + 5);
    let purged = store
        .purge_topic(name("orders"), Position::Offset(start))
        .await;
    purged.expect("it is purged");
    let fetched = read(&store, id, at, 100_000).await;
    assert!(matches!(fetched.items[0], FetchItem::Gap(gap) if gap.to == start));
    assert_eq!(ahead(&store), before);
    // From where the chain's second answer begins nothing was purged.
    let mut at = fetched.next_offset.get();
    while at < RECORDS {
        at = check(&read(&store, id, at, 100_000).await, at);
    }
    store.stop().expect("a clean stop");
}

#[tokio::test]
async fn what_was_purged_meanwhile_is_not_handed_out() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let (store, id) = on_disk(dir.path()).await;
    let at = two_in_order(&store, id, 0, 100_000).await;
    let before = Offset::new(at + 5);
    let purged = store
        .purge_topic(name("orders"), Position::Offset(before))
        .await;
    purged.expect("it is purged");
    let fetched = read(&store, id, at, 100_000).await;
    let gap = Gap {
        from: Offset::new(at),
        to: before,
        reason: GapReason::Discarded,
    };
    assert_eq!(fetched.items[0], FetchItem::Gap(gap));
    assert_eq!(ahead(&store), 0);
    store.stop().expect("a clean stop");
}

/// Only the same request is answered with it: the same place, no more bytes, damage told the same way.
#[tokio::test]
async fn another_request_is_read_for_itself() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let (store, id) = on_disk(dir.path()).await;
    let at = two_in_order(&store, id, 0, 100_000).await;
    let less = read(&store, id, at, 10_000).await;
    assert!(check(&less, at) <= at + 5, "no more than 10,000 bytes");
    let elsewhere = two_in_order(&store, id, 1000, 100_000).await;
    check(
        &read(&store, id, elsewhere + 1, 100_000).await,
        elsewhere + 1,
    );
    let passing = Fetch {
        pass_damage: true,
        ..fetch(id, elsewhere)
    };
    let passing = store.fetch(passing).await.expect("it can be read");
    check(&passing, elsewhere);
    assert_eq!(ahead(&store), 0);
    store.stop().expect("a clean stop");
}

#[tokio::test]
async fn what_nobody_asks_for_is_let_go() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let (store, id) = on_disk(dir.path()).await;
    let at = two_in_order(&store, id, 0, 100_000).await;
    assert_eq!(store.ahead.waiting(), 1);
    assert!(store.ahead.bytes() >= 100_000);
    until("it is let go", || store.ahead.waiting() == 0).await;
    assert_eq!(store.ahead.bytes(), 0);
    check(&read(&store, id, at, 100_000).await, at);
    assert_eq!(ahead(&store), 0);
    store.stop().expect("a clean stop");
}

/// The first time around the page cache, then through it; small pieces always through it, and what is not sealed never.
#[tokio::test]
async fn a_sealed_segment_is_read_around_the_page_cache_once() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let (store, _) = on_disk(dir.path()).await;
    let segments = store.shared.segments.all();
    let piece = limits::READ_AROUND_BYTES_MIN;
    let mut sealed = 0;
    for segment in segments {
        let Some(row) = segment.row else {
            assert_eq!([1, piece].map(|bytes| segment.via(bytes)), [Via::Direct; 2]);
            continue;
        };
        sealed += 1;
        let pieces = row.footer_position.div_ceil(piece);
        for _ in 0..pieces {
            assert_eq!(segment.via(piece - 1), Via::Cached);
            assert_eq!(segment.via(piece), Via::Direct);
        }
        assert_eq!(segment.via(piece), Via::Cached);
    }
    assert!(sealed >= 3, "{sealed} sealed segments");
    store.stop().expect("a clean stop");
}

/// Memory of those who caught up is given back when nobody reads any more, and not before.
#[tokio::test]
async fn windows_are_let_go_when_nobody_reads() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let (store, id) = on_disk(dir.path()).await;
    let began = std::time::Instant::now();
    check(&read(&store, id, 0, 1_000_000).await, 0);
    let windows = &store.shared.windows;
    let kept = windows.bytes();
    assert!(kept > 0);
    assert!(windows.let_go(began).is_empty(), "it was read since");
    assert_eq!(windows.bytes(), kept);
    let later = std::time::Instant::now() + Duration::from_millis(1);
    assert!(!windows.let_go(later).is_empty());
    assert_eq!(windows.bytes(), 0);
    assert!(windows.let_go(later).is_empty(), "nothing is left");
    check(&read(&store, id, 0, 1_000_000).await, 0);
    assert_eq!(windows.bytes(), kept, "as if nothing had been");
    store.stop().expect("a clean stop");
}
