//! Export and import.

use std::io::Cursor;

use super::*;
use crate::store::tests::{fetch, values};

fn exported(dir: &Path, topics: &[&str]) -> Vec<u8> {
    let options = ExportOptions {
        topics: topics.iter().map(|topic| name(topic)).collect(),
        pass_damage: false,
    };
    let mut bytes = Vec::new();
    export(dir, &options, &mut bytes).expect("an export");
    bytes
}

#[tokio::test]
async fn an_import_brings_back_what_was_exported() {
    let sample = sample().await;
    let topics = ["quakes.nc", "empty", "quakes.ci"];
    let bytes = exported(sample.dir.path(), &topics);
    let new = tempfile::tempdir().expect("a scratch directory");
    let target = new.path().join("peer");
    let imported = import(&options(&target), Cursor::new(&bytes)).expect("imported");
    assert_eq!(imported.len(), 3);
    assert_eq!(imported[0].offsets, (Offset::new(31), Offset::new(300)));
    assert_eq!(contents(&target), sample.contents);
    let verified = verify(&target).expect("verified");
    assert!(verified.is_sound(), "{:#?}", verified.findings);
    assert_eq!(exported(&target, &topics)[16..].len(), bytes[16..].len());

    // It is a topic like any other: it can be read, written to, and lost with the catalog.
    let (store, _) = open(&target);
    let id = store.id_of(&name("quakes.ci")).expect("there");
    let read = values(&store, id, 0).await;
    assert_eq!(read.len(), 300);
    assert_eq!(read[8].1, value(0, 8, 6000));
    let published = publish(&store, id, batch(9, 0, &[b"new"])).await;
    assert_eq!(published.base_offset.get(), 300);
    let purged = store
        .fetch(fetch(store.id_of(&name("quakes.nc")).expect("there"), 0))
        .await;
    assert_eq!(purged.expect("readable").start_offset.get(), 31);
    store.stop().expect("a clean stop");
    drop(store);
    std::fs::remove_dir_all(target.join("catalog")).expect("removed");
    let (store, opened) = open(&target);
    assert!(opened.rebuilt.is_some());
    assert_eq!(values(&store, id, 0).await.len(), 301);
    store.stop().expect("a clean stop");
}

#[tokio::test]
async fn an_import_into_a_store_in_use_by_others_leaves_them_alone() {
    let sample = sample().await;
    let bytes = exported(sample.dir.path(), &["quakes.ci"]);
    let other = tempfile::tempdir().expect("a scratch directory");
    let (store, _) = open(other.path());
    let id = create(&store, "mine", Durability::Fsync).await;
    publish(&store, id, batch(1, 0, &[b"one"])).await;
    store.stop().expect("a clean stop");
    drop(store);
    import(&options(other.path()), Cursor::new(&bytes)).expect("imported");
    let found = contents(other.path());
    assert_eq!(
        found.topics["quakes.ci"],
        sample.contents.topics["quakes.ci"]
    );
    assert_eq!(found.topics["mine"].records.len(), 1);

    let before = files(other.path());
    let again = import(&options(other.path()), Cursor::new(&bytes)).expect_err("it exists");
    assert!(again.to_string().contains("quakes.ci exists"), "{again}");
    assert!(
        files(other.path()) == before,
        "a refused import changed something"
    );
}

#[tokio::test]
async fn a_file_that_was_cut_or_changed_is_refused_before_anything_is_written() {
    let sample = sample().await;
    let bytes = exported(sample.dir.path(), &["quakes.nc", "empty"]);
    let new = tempfile::tempdir().expect("a scratch directory");
    let target = new.path().join("peer");
    let seed = 20_260_101;
    let mut random = Random::new(seed);
    let refuse = |bytes: &[u8], what: &str| {
        let refused = import(&options(&target), Cursor::new(bytes));
        assert!(
            matches!(refused, Err(OfflineError::Export(_))),
            "seed {seed}, {what}: {refused:?}"
        );
        assert!(
            !target.exists(),
            "seed {seed}, {what}: something was written"
        );
    };
    for _ in 0..60 {
        let length = usize::try_from(random.below(bytes.len() as u64)).expect("small");
        refuse(&bytes[..length], &format!("cut to {length}"));
        let mut changed = bytes.clone();
        let at = usize::try_from(random.below(bytes.len() as u64)).expect("small");
        changed[at] ^= 1 << random.below(8);
        refuse(&changed, &format!("byte {at} changed"));
    }
    for at in 0..400 {
        for bit in 0..8 {
            let mut changed = bytes.clone();
            changed[at] ^= 1 << bit;
            refuse(&changed, &format!("bit {bit} of byte {at}"));
        }
    }
    let longer = [&bytes[..], b"x"].concat();
    refuse(&longer, "a byte too many");
    for found in [0_u32, 2] {
        let mut other = bytes.clone();
        other[8..12].copy_from_slice(&found.to_le_bytes());
        let refused = import(&options(&target), Cursor::new(&other)).expect_err("another version");
        let text = refused.to_string();
        assert!(
            text.contains(&format!("format {found}")) && text.contains("reads 1"),
            "{text}"
        );
    }
    import(&options(&target), Cursor::new(&bytes)).expect("the whole file is fine");
}

#[tokio::test]
async fn an_import_goes_nowhere_it_was_not_meant_to() {
    let sample = sample().await;
    let bytes = exported(sample.dir.path(), &["empty"]);
    let dir = tempfile::tempdir().expect("a scratch directory");
    std::fs::write(dir.path().join("thesis.txt"), "do not touch").expect("written");
    let refused = import(&options(dir.path()), Cursor::new(&bytes)).expect_err("not a store");
    assert!(refused.to_string().contains("thesis.txt"), "{refused}");
    let index = tempfile::tempdir().expect("a scratch directory");
    std::fs::create_dir(index.path().join("registry")).expect("made");
    let refused = import(&options(index.path()), Cursor::new(&bytes)).expect_err("an index");
    assert!(
        matches!(refused, OfflineError::WrongKind { .. }),
        "{refused}"
    );
}

/// Settles a few records of a group, and lets some fail, as whoever serves it would.
async fn work_in_group(store: &Store, id: TopicId) {
    use crate::protocol::api::{ConsumerGroupChanges, Position, SettledRun, Verdict};
    use crate::topic::consumers::{Group, Now, Offer, Taker};
    use crate::types::MemberId;

    let workers: crate::types::SubscriptionName = "workers".parse().expect("good");
    let place = (name("jobs"), workers.clone());
    let options = ConsumerGroupChanges::default();
    let made = store.create_consumer_group(place, Position::Beginning, options);
    made.await.expect("made");
    let rows = store
        .consumer_rows(id, workers.clone())
        .await
        .expect("there");
    let now = Now {
        steady: 1,
        wall: crate::time::Timestamp::now(),
    };
    let mut group = Group::load(rows.row, std::iter::empty(), now);
    let member = group.join(MemberId::zero(), now);
    let offer = Offer {
        base: Offset::ZERO,
        count: 6,
        keys: &[],
    };
    let taker = Taker {
        member,
        records: 6,
        now,
    };
    assert_eq!(group.give_new(offer, taker).len(), 1);
    let reason = "bad".to_owned();
    let said = [
        (1, Verdict::Ack),
        (
            2,
            Verdict::Nak {
                delay_ms: Some(60_000),
            },
        ),
        (3, Verdict::Reject { reason }),
        (5, Verdict::Ack),
    ];
    for (offset, verdict) in said {
        let run = SettledRun {
            first: Offset::new(offset),
            count: 1,
            delivery: 1,
            verdict,
        };
        group.settle(member, &run, now, &mut Vec::new());
    }
    let flush = group.compose(&[], now).expect("something changed");
    let written = store.settle_consumers(id, workers, flush);
    written.await.expect("written");
}

#[tokio::test]
async fn consumer_groups_go_along_and_are_seen_by_the_tools() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let (store, _) = open(dir.path());
    let id = create(&store, "jobs", Durability::Fsync).await;
    publish(
        &store,
        id,
        batch(1, 0, &[b"0", b"1", b"2", b"3", b"4", b"5"]),
    )
    .await;
    work_in_group(&store, id).await;
    let workers: crate::types::SubscriptionName = "workers".parse().expect("good");
    let before = store
        .consumer_rows(id, workers.clone())
        .await
        .expect("there");
    assert_eq!((before.row.floor, before.pages.len()), (Offset::ZERO, 1));
    assert_eq!(before.pages[0].1.failed.len(), 2);
    store.stop().expect("a clean stop");
    drop(store);
    let listed = crate::store::offline::list(dir.path()).expect("listed");
    let (found, _, unsettled) = &listed.topics[0].consumer_groups[0];
    assert_eq!((found, *unsettled), (&workers, 4));

    let bytes = exported(dir.path(), &["jobs"]);
    let new = tempfile::tempdir().expect("a scratch directory");
    let target = new.path().join("peer");
    import(&options(&target), Cursor::new(&bytes)).expect("imported");
    let verified = verify(&target).expect("verified");
    assert!(verified.is_sound(), "{:#?}", verified.findings);
    // Once from its catalog, once from its journal alone.
    for _ in 0..2 {
        let (store, _) = open(&target);
        let id = store.id_of(&name("jobs")).expect("there");
        let after = store
            .consumer_rows(id, workers.clone())
            .await
            .expect("there");
        assert_eq!((&after.row, &after.pages), (&before.row, &before.pages));
        store.stop().expect("a clean stop");
        drop(store);
        std::fs::remove_dir_all(target.join("catalog")).expect("removed");
    }
}
