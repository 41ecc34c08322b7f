//! Topics whose records lie far apart, beside those of others: what a footer lists of one is read without the rest of it.

use std::os::unix::fs::FileExt;

use super::retention::{until_sealed, value};
use super::*;
use crate::journal::{Footer, footer_bytes};

const SLOT_BYTES: u64 = 4 << 20;
/// Records of each topic.
const RECORDS: u64 = 1_200;
const TOPICS: usize = 16;
const BYTES: usize = 20;

fn open(dir: &Path) -> Store {
    let options = StoreOptions {
        slot_bytes: SLOT_BYTES,
        ..options(dir)
    };
    Store::open(&options).expect("the store opens").0
}

/// Topics that were written in turn, a record of each at a time, and are on the disk only.
pub(in crate::store) async fn striped(dir: &Path) -> (Store, Vec<TopicId>) {
    let store = open(dir);
    let mut ids = Vec::new();
    for number in 0..TOPICS {
        ids.push(create(&store, &format!("t{number}"), Durability::Fsync).await);
    }
    for n in 0..RECORDS {
        let mut waiting = Vec::new();
        for id in &ids {
            let (sender, receiver) = oneshot::channel();
            let done: Done<Published> = Box::new(|outcome| drop(sender.send(outcome)));
            let batch = batch(0, 0, &[&value(n, BYTES)]);
            store.append(*id, LeaderEpoch::new(1), batch, done);
            waiting.push(receiver);
        }
        // Those of a topic that are on their way at once lie together.
        for receiver in waiting {
            receiver.await.expect("answered").expect("stored");
        }
    }
    until_sealed(&store).await;
    store.stop().expect("a clean stop");
    drop(store);
    (open(dir), ids)
}

/// Reads a topic to its end. Each batch is the one that was published there, and nothing is passed over silently.
/// How many records are damaged.
async fn read_all(store: &Store, id: TopicId) -> u64 {
    let (mut at, mut damaged) = (0, 0);
    while at < RECORDS {
        let request = Fetch {
            pass_damage: true,
            ..fetch(id, at)
        };
        let fetched = store.fetch(request).await.expect("it can be read");
        for item in &fetched.items {
            match item {
                FetchItem::Batch(stored) => {
                    assert_eq!(stored.base_offset.get(), at);
                    let batch = CheckedBatch::check_crc(stored.batch.clone());
                    for record in batch.expect("as published").records().expect("records") {
                        assert_eq!(record.expect("a record").value, value(at, BYTES));
                        at += 1;
                    }
                }
                FetchItem::Gap(gap) => {
                    assert_eq!((gap.from.get(), gap.reason), (at, GapReason::Damaged));
                    damaged += gap.to.get() - at;
                    at = gap.to.get();
                }
            }
        }
        assert_eq!(fetched.next_offset.get(), at);
    }
    assert_eq!(at, RECORDS);
    damaged
}

#[tokio::test]
async fn a_long_footer_is_read_in_parts_until_that_is_more_than_all_of_it() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let (store, ids) = striped(dir.path()).await;
    let segments = store.shared.segments.all();
    let sealed = segments.first().expect("a segment");
    assert!(sealed.row.is_some());
    let footers = &store.shared.segments;
    footers.forget_footers();
    for reader in 1..=limits::FOOTER_PARTS_MAX {
        let id = ids[reader as usize % ids.len()];
        let fetched = store.fetch(fetch(id, 10)).await.expect("read");
        assert_eq!(fetched.items.len(), fetched.next_offset.get() as usize - 10);
        assert!(!footers.is_kept(sealed.number), "after {reader}");
    }
    store.fetch(fetch(ids[0], 10)).await.expect("read");
    assert!(footers.is_kept(sealed.number));
    assert_eq!(read_all(&store, ids[0]).await, 0);
    store.stop().expect("a clean stop");
}

/// The first segment's footer as it is, the file it lies in, and where.
fn long_footer(store: &Store) -> (Arc<Footer>, std::fs::File, u64) {
    let segments = store.shared.segments.all();
    let sealed = segments.first().expect("a segment");
    let position = sealed.row.expect("sealed").footer_position;
    let footer = store.shared.segments.footer_once(sealed, &store.shared.dir);
    let footer = footer.expect("readable").expect("sealed");
    assert!(footer.as_bytes().len() > limits::FOOTER_BYTES_FIRST as usize);
    let slot = sealed.slot(&store.shared.dir).expect("there");
    let mut options = std::fs::OpenOptions::new();
    let file = options.read(true).write(true).open(slot.path());
    (footer, file.expect("the slot"), position.into())
}

/// What a part says is believed where it leads to the records, and nowhere else.
#[tokio::test]
async fn a_changed_footer_neither_hides_nor_invents_anything() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let (store, _) = striped(dir.path()).await;
    let (footer, file, position) = long_footer(&store);
    let topics: Vec<_> = footer.topics().collect();
    let read: Vec<_> = [topics[0], topics[7], topics[TOPICS - 1]].into();
    // The head, the row of each topic that is read and of the one before the last, and some extents of each.
    let mut places: Vec<usize> = (0..footer_bytes(0, 0)).step_by(5).collect();
    let mut first = 0;
    for (at, summary) in topics.iter().enumerate() {
        let extents = first..first + summary.extents as usize;
        first = extents.end;
        if ![0, 7, TOPICS - 2, TOPICS - 1].contains(&at) {
            continue;
        }
        places.extend((footer_bytes(at, 0)..footer_bytes(at + 1, 0)).step_by(11));
        for extent in [extents.start, extents.start + 1, extents.end - 1] {
            let of = |extent| footer_bytes(TOPICS, extent);
            places.extend((of(extent)..of(extent + 1)).step_by(9));
        }
    }
    let (mut whole, mut told) = (0, 0);
    for (turn, place) in places.into_iter().enumerate() {
        let mut byte = [0];
        let at = position + place as u64;
        file.read_exact_at(&mut byte, at).expect("read");
        let changed = [byte[0] ^ (1 << (turn % 8))];
        file.write_all_at(&changed, at).expect("written");
        for summary in read.iter().cycle().skip(turn % read.len()).take(2) {
            store.shared.segments.forget_footers();
            match read_all(&store, summary.topic).await {
                0 => whole += 1,
                // All of the segment: without its footer nobody knows what it holds.
                damaged => {
                    assert_eq!(damaged, summary.records, "byte {place} of the footer");
                    told += 1;
                }
            }
        }
        file.write_all_at(&byte, at).expect("written");
    }
    store.stop().expect("a clean stop");
    assert!(whole > told && told > 0, "{whole} read whole, {told} told");
}

/// Not now and then: whoever reads the whole footer is told that it is damaged, and the part is as good as before.
#[tokio::test]
async fn a_changed_row_of_another_topic_costs_a_reader_nothing() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let (store, _) = striped(dir.path()).await;
    let (footer, file, position) = long_footer(&store);
    let first = footer.topics().next().expect("a topic").topic;
    let at = position + footer_bytes(TOPICS - 1, 0) as u64 + 20;
    file.write_all_at(&[99], at).expect("written");
    store.shared.segments.forget_footers();
    for reader in 0..3 * limits::FOOTER_PARTS_MAX {
        let fetched = store.fetch(fetch(first, 10)).await.expect("read");
        let is_batch = |item: &FetchItem| matches!(item, FetchItem::Batch(_));
        assert!(fetched.items.iter().all(is_batch), "reader {reader}");
        assert!(fetched.next_offset.get() > 100);
    }
    let damage = store.damage();
    assert_eq!(damage.len(), 1, "{damage:?}");
    assert!(
        damage[0].contains("its footer cannot be read"),
        "{damage:?}"
    );
    store.stop().expect("a clean stop");
}
