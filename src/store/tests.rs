//! The store as a whole, on a real disk.

use std::path::Path;

use super::*;
use crate::protocol::api::{Commit, Position, TopicChanges};
use crate::protocol::batch::{BatchBuilder, CheckedBatch, Compression, RecordToSend};
use crate::protocol::data::{Fetch, FetchItem, Fetched};
use crate::time::Timestamp;
use crate::types::{
    Durability, Gap, GapReason, LeaderEpoch, ProducerId, Sequence, TopicName, TopicSettings,
};

mod ahead;
mod cold;
mod compacting;
mod consumers;
mod copier;
mod duplicates;
mod fetching;
mod full;
mod ids;
mod interest;
mod lifetimes;
pub(super) mod listings;
mod lives;
mod naming;
mod passing;
mod pieces;
mod places;
mod reserve;
pub(super) mod retention;
pub(super) mod snapshots;
mod stuck;
mod subscribing;
mod thinning;
mod unreadable;

pub(super) fn options(dir: &Path) -> StoreOptions {
    StoreOptions {
        slot_bytes: 1 << 20,
        reserve_bytes: Some(0),
        ..StoreOptions::new(dir)
    }
}

pub(super) fn open(dir: &Path) -> (Store, Opened) {
    Store::open(&options(dir)).expect("the store opens")
}

pub(super) fn name(text: &str) -> TopicName {
    text.parse().expect("a good name")
}

pub(super) fn batch(producer: u8, first: u64, values: &[&[u8]]) -> CheckedBatch {
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
    let producer = if producer == 0 {
        ProducerId::zero()
    } else {
        ProducerId::from_bytes([producer; 16])
    };
    let bytes = builder
        .build(producer, Sequence::new(first))
        .expect("it builds");
    CheckedBatch::check(bytes, limits::MESSAGE_BYTES_MAX).expect("it is sound")
}

pub(super) async fn create(store: &Store, text: &str, durability: Durability) -> TopicId {
    let id = TopicId::from_bytes(random_id());
    let settings = TopicSettings {
        durability,
        ..TopicSettings::default()
    };
    let new = NewTopic {
        name: name(text),
        id,
        epoch: LeaderEpoch::new(1),
        settings,
    };
    store.create_topic(new).await.expect("it is made");
    id
}

pub(super) async fn publish(store: &Store, id: TopicId, batch: CheckedBatch) -> Published {
    store
        .publish(id, LeaderEpoch::new(1), batch)
        .await
        .expect("it is stored")
}

pub(super) fn fetch(topic: TopicId, from: u64) -> Fetch {
    Fetch {
        topic,
        epoch: LeaderEpoch::new(1),
        offset: Offset::new(from),
        max_bytes: 1 << 20,
        min_bytes: 1,
        max_wait_ms: 0,
        pass_damage: false,
    }
}

/// Every value of the topic from an offset on, with its offset.
pub(super) async fn values(store: &Store, topic: TopicId, from: u64) -> Vec<(u64, Vec<u8>)> {
    let mut found = Vec::new();
    let mut at = from;
    loop {
        let fetched = store.fetch(fetch(topic, at)).await.expect("it can be read");
        for item in &fetched.items {
            let FetchItem::Batch(stored) = item else {
                continue;
            };
            let checked =
                CheckedBatch::check_crc(stored.batch.clone()).expect("as it was published");
            let records = checked.records().expect("records");
            for (offset, record) in (stored.base_offset.get()..).zip(records) {
                found.push((offset, record.expect("a record").value.to_vec()));
            }
        }
        if fetched.next_offset == fetched.end_offset {
            return found;
        }
        at = fetched.next_offset.get();
    }
}

/// A copy of the directory as a crash would leave it: nothing is closed or flushed. All files of one moment:
/// if anything changed while they were copied, they are copied again.
pub(super) fn crashed_copy(dir: &Path) -> tempfile::TempDir {
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    loop {
        let (copy, before) = (
            tempfile::tempdir().expect("a scratch directory"),
            stamps(dir),
        );
        let copied = try_copy_dir(dir, copy.path());
        if let (Ok(()), Ok(before), Ok(after)) = (copied, before, stamps(dir))
            && before == after
        {
            return copy;
        }
        assert!(
            std::time::Instant::now() < deadline,
            "the directory never rests"
        );
    }
}

type Stamps = std::collections::BTreeMap<PathBuf, (u64, std::time::SystemTime)>;

/// Size and time of the last change of every file.
fn stamps(dir: &Path) -> std::io::Result<Stamps> {
    let mut found = Stamps::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        let metadata = std::fs::metadata(&path)?;
        if metadata.is_dir() {
            found.extend(stamps(&path)?);
        } else {
            found.insert(path, (metadata.len(), metadata.modified()?));
        }
    }
    Ok(found)
}

pub(super) fn copy_dir(from: &Path, to: &Path) {
    try_copy_dir(from, to).expect("a directory nobody changes");
}

fn try_copy_dir(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            try_copy_dir(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

#[tokio::test]
async fn what_was_published_is_there_after_a_restart() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let (store, opened) = open(dir.path());
    assert!(opened.fresh);
    let id = create(&store, "quakes.ci", Durability::Fsync).await;
    let first = publish(&store, id, batch(1, 0, &[b"a", b"b"])).await;
    assert_eq!(
        (
            first.base_offset.get(),
            first.end_offset.get(),
            first.duplicate
        ),
        (0, 2, false)
    );
    let again = publish(&store, id, batch(1, 0, &[b"a", b"b"])).await;
    assert_eq!(
        (
            again.base_offset.get(),
            again.end_offset.get(),
            again.duplicate
        ),
        (0, 2, true)
    );
    store.stop().expect("a clean stop");
    drop(store);

    let (store, opened) = open(dir.path());
    assert!(
        opened.clean_stop && opened.rebuilt.is_none() && opened.torn.is_none(),
        "{opened:?}"
    );
    assert_eq!(
        values(&store, id, 0).await,
        [(0, b"a".to_vec()), (1, b"b".to_vec())]
    );
    let third = publish(&store, id, batch(1, 2, &[b"c"])).await;
    assert_eq!(third.base_offset.get(), 2);
    let again = publish(&store, id, batch(1, 0, &[b"a", b"b"])).await;
    assert!(again.duplicate, "a retry is recognised across the restart");
    store.stop().expect("a clean stop");
}

#[tokio::test]
async fn a_crash_at_any_moment_loses_nothing_acknowledged() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let (store, _) = open(dir.path());
    let id = create(&store, "quakes.ci", Durability::Fsync).await;
    let mut expected = Vec::new();
    for round in 0..5_u64 {
        for n in 0..20 {
            let value = format!("{round}/{n}").into_bytes();
            publish(&store, id, batch(1, round * 20 + n, &[&value])).await;
            expected.push((round * 20 + n, value));
        }
        let mut copy = crashed_copy(dir.path());
        for restart in 0..3 {
            let (copied, opened) = open(copy.path());
            assert!(!opened.clean_stop, "restart {restart}: {opened:?}");
            assert_eq!(
                values(&copied, id, 0).await,
                expected,
                "round {round}, restart {restart}"
            );
            assert!(copied.damage().is_empty(), "{:?}", copied.damage());
            let next = crashed_copy(copy.path());
            copied.stop().expect("a clean stop");
            copy = next;
        }
    }
    store.stop().expect("a clean stop");
}

#[tokio::test]
async fn segments_fill_are_sealed_and_read_back() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let (store, _) = open(dir.path());
    let ids = [
        create(&store, "a", Durability::Fsync).await,
        create(&store, "b", Durability::Os).await,
    ];
    let value = vec![7; 10_000];
    for n in 0..600_u64 {
        let outcomes = ids.map(|id| publish(&store, id, batch(1, n, &[&value])));
        for outcome in outcomes {
            assert_eq!(outcome.await.base_offset.get(), n);
        }
    }
    assert!(store.figures().segments > 8, "{:?}", store.figures());
    for id in ids {
        let found = values(&store, id, 0).await;
        assert_eq!(found.len(), 600);
        assert!(
            found
                .iter()
                .enumerate()
                .all(|(n, (offset, got))| *offset == n as u64 && *got == value)
        );
    }
    let copy = crashed_copy(dir.path());
    store.stop().expect("a clean stop");
    let (copied, _) = open(copy.path());
    assert_eq!(values(&copied, ids[0], 0).await.len(), 600);
    let fetched = copied.fetch(fetch(ids[1], 600)).await.expect("readable");
    let gap = Gap {
        from: Offset::new(600),
        to: fetched.end_offset,
        reason: GapReason::Lost,
    };
    assert_eq!(
        fetched.items,
        [FetchItem::Gap(gap)],
        "an os topic goes on at its bound"
    );
    let next = publish(&copied, ids[1], batch(1, 700, &[b"x"])).await;
    assert_eq!(next.base_offset, gap.to);
    copied.stop().expect("a clean stop");
}

#[tokio::test]
async fn the_catalog_is_rebuilt_from_the_journal() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let (store, _) = open(dir.path());
    let id = create(&store, "orders", Durability::Fsync).await;
    for n in 0..300_u64 {
        publish(&store, id, batch(1, n, &[&[1; 8000]])).await;
    }
    let made = store
        .create_subscription(
            name("orders"),
            "billing".parse().expect("good"),
            Position::Beginning,
            false,
        )
        .await
        .expect("made");
    let commit = Commit {
        topic: id,
        name: made.name.clone(),
        generation: made.generation,
        offset: Offset::new(123),
    };
    assert_eq!(
        store.commit(commit).await.expect("committed").offset.get(),
        123
    );
    store
        .set_topic(
            name("orders"),
            TopicChanges {
                retain_records: Some(Some(900)),
                ..TopicChanges::default()
            },
        )
        .await
        .expect("set");
    store.stop().expect("a clean stop");
    let peer = store.peer();
    drop(store);
    std::fs::remove_dir_all(dir.path().join("catalog")).expect("removed");

    let (store, opened) = open(dir.path());
    assert!(opened.rebuilt.is_some(), "{opened:?}");
    assert_eq!(store.peer(), peer);
    assert_eq!(values(&store, id, 0).await.len(), 300);
    let found = store
        .describe_subscription(name("orders"), made.name)
        .await
        .expect("there");
    assert_eq!(found.committed_offset.get(), 123);
    let info = store.describe_topic(name("orders")).await.expect("there");
    assert_eq!(info.settings.retention.records, Some(900));
    assert!(
        publish(&store, id, batch(1, 299, &[&[1; 8000]]))
            .await
            .duplicate,
        "producers are remembered"
    );
    store.stop().expect("a clean stop");
}

/// Changes the first byte of `value` wherever a journal slot holds it.
fn spoil(dir: &Path, value: &[u8]) {
    for entry in std::fs::read_dir(dir.join("journal")).expect("a listing") {
        let path = entry.expect("an entry").path();
        let mut bytes = std::fs::read(&path).expect("a slot");
        let found = bytes.windows(value.len()).position(|bytes| bytes == value);
        if let Some(at) = found {
            bytes[at] ^= 1;
            std::fs::write(&path, bytes).expect("written");
        }
    }
}

/// A fetch that began at a damaged record answered with nothing and the same offset, for ever.
#[tokio::test]
async fn a_damaged_record_is_an_error_and_can_be_passed() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let (store, _) = open(dir.path());
    let id = create(&store, "quakes.ci", Durability::Fsync).await;
    for (n, value) in [&b"first"[..], b"the one to be spoilt", b"last"]
        .into_iter()
        .enumerate()
    {
        publish(&store, id, batch(1, n as u64, &[value])).await;
    }
    store.stop().expect("a clean stop");
    drop(store);
    spoil(dir.path(), b"the one to be spoilt");

    let (store, _) = open(dir.path());
    let start = store.fetch(fetch(id, 0)).await.expect("the first is whole");
    assert_eq!((start.items.len(), start.next_offset.get()), (1, 1));
    let damaged = ApiError::Damaged {
        from: Offset::new(1),
        to: Offset::new(2),
    };
    assert_eq!(store.fetch(fetch(id, 1)).await, Err(damaged));
    let passing = Fetch {
        pass_damage: true,
        ..fetch(id, 1)
    };
    let rest = store.fetch(passing).await.expect("passed over");
    let gap = Gap {
        from: Offset::new(1),
        to: Offset::new(2),
        reason: GapReason::Damaged,
    };
    assert_eq!(rest.items[0], FetchItem::Gap(gap));
    assert_eq!((rest.items.len(), rest.next_offset.get()), (2, 3));
    store.stop().expect("a clean stop");
}

/// An `os` topic that had been made `fsync` in between went by the bound of its first time: its records were
/// acknowledged and served although nothing on the disk said yet that they must not be given out twice.
#[tokio::test]
async fn an_os_topic_that_was_fsync_has_no_bound() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let (store, _) = open(dir.path());
    let id = create(&store, "quakes.ci", Durability::Os).await;
    publish(&store, id, batch(1, 0, &[b"a"])).await;
    for durability in [Durability::Fsync, Durability::Os] {
        let changes = TopicChanges {
            durability: Some(durability),
            ..TopicChanges::default()
        };
        let info = store.set_topic(name("quakes.ci"), changes).await;
        assert_eq!(info.expect("set").settings.durability, durability);
    }
    let before = store.figures().syncs;
    publish(&store, id, batch(1, 1, &[b"b"])).await;
    assert!(
        store.figures().syncs > before,
        "the new bound is durable before the record counts"
    );
    store.stop().expect("a clean stop");
}

/// A batch that was damaged before the catalog knew of it left its producer refused for ever: whose it was
/// cannot be told, and the producer's next sequence looked like a gap.
#[tokio::test]
async fn the_producer_of_a_damaged_batch_goes_on() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let (store, _) = open(dir.path());
    let id = create(&store, "quakes.ci", Durability::Fsync).await;
    let other = create(&store, "quakes.nc", Durability::Fsync).await;
    publish(&store, id, batch(1, 0, &[b"first"])).await;
    publish(&store, id, batch(1, 1, &[b"the one to be spoilt"])).await;
    // A row of the topic, written later, knows nothing of what will be damaged.
    let changes = TopicChanges::default();
    let set = store.set_topic(name("quakes.ci"), changes).await;
    assert_eq!(set.expect("set").id, id);
    // Two more groups: the first may have been written before the spoilt one was synced, the second claims it.
    publish(&store, other, batch(1, 0, &[b"a"])).await;
    publish(&store, other, batch(1, 1, &[b"b"])).await;
    let copy = crashed_copy(dir.path());
    store.stop().expect("a clean stop");
    spoil(copy.path(), b"the one to be spoilt");
    let (copied, _) = open(copy.path());
    let next = publish(&copied, id, batch(1, 2, &[b"next"])).await;
    assert_eq!(
        next.base_offset.get(),
        2,
        "the damaged offset is not given again"
    );
    assert!(matches!(
        copied.fetch(fetch(id, 1)).await,
        Err(ApiError::Damaged { .. })
    ));
    copied.stop().expect("a clean stop");
}

/// A topic was claimed while it lived; its deletion was durable when the process died, but no group
/// claimed that yet. Recovery took the old claim for a creation that cannot be read.
#[tokio::test]
async fn a_deletion_in_the_unclaimed_end_is_no_damage() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let (store, _) = open(dir.path());
    let gone = create(&store, "gone", Durability::Fsync).await;
    let stays = create(&store, "stays", Durability::Fsync).await;
    publish(&store, gone, batch(1, 0, &[b"a"])).await;
    publish(&store, stays, batch(1, 0, &[b"b"])).await;
    let deleted = store.delete_topic(name("gone"), Some(gone)).await;
    assert_eq!(deleted.expect("deleted"), gone);
    let copy = crashed_copy(dir.path());
    store.stop().expect("a clean stop");
    for _ in 0..2 {
        let (copied, _) = open(copy.path());
        assert_eq!(copied.damage(), Vec::<String>::new());
        assert_eq!(copied.topic_count(), 1);
        copied.stop().expect("a clean stop");
    }
}
