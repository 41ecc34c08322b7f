//! Rows of consumer groups, and batches that go with them.

use super::*;
use crate::protocol::api::{ConsumerGroupChanges, SettledRun, Verdict};
use crate::store::ConsumerRows;
use crate::topic::consumers::{Group, Now, Offer, Taker};
use crate::types::{MemberId, SubscriptionName};

const NOW: Now = Now {
    steady: 1,
    wall: Timestamp::from_millis(1_000_000),
};

fn workers() -> SubscriptionName {
    "workers".parse().expect("good")
}

/// A topic with so many records, a group whose only member rejected all of them, and a topic for the letters.
async fn rejected(store: &Store, records: u32) -> (TopicId, TopicId, Group) {
    let jobs = create(store, "jobs", Durability::Fsync).await;
    let letters = create(store, "letters", Durability::Os).await;
    for n in 0..records {
        publish(store, jobs, batch(1, n.into(), &[b"job"])).await;
    }
    let options = ConsumerGroupChanges::default();
    let place = (name("jobs"), workers());
    let made = store.create_consumer_group(place, Position::Beginning, options);
    made.await.expect("made");
    let rows = store.consumer_rows(jobs, workers()).await.expect("there");
    let mut group = Group::load(rows.row, std::iter::empty(), NOW);
    let member = group.join(MemberId::zero(), NOW);
    let taker = Taker {
        member,
        records: records.into(),
        now: NOW,
    };
    let offer = Offer {
        base: Offset::ZERO,
        count: records,
        keys: &[],
    };
    group.give_new(offer, taker);
    let reason = "bad".to_owned();
    let all = SettledRun {
        first: Offset::ZERO,
        count: records,
        delivery: 1,
        verdict: Verdict::Reject { reason },
    };
    group.settle(member, &all, NOW, &mut Vec::new());
    (jobs, letters, group)
}

/// Buries one record, as whoever serves the group does.
async fn bury(
    store: &Store,
    (jobs, letters): (TopicId, TopicId),
    group: &mut Group,
) -> Result<(), ApiError> {
    let dead = group.dying(1)[0].offset;
    let flush = group.compose(&[dead], NOW).expect("something to bury");
    let letter = batch(0, 0, &[b"letter"]);
    let place = (jobs, workers());
    match store.bury(place, flush.clone(), (letters, letter)).await {
        Ok(()) => {
            group.bury(dead, NOW);
            Ok(())
        }
        Err(error) => {
            group.undo(&flush);
            Err(error)
        }
    }
}

/// How many records of a group are settled and how many die, by its rows.
fn settled(rows: &ConsumerRows) -> (u64, usize) {
    let floor = rows.row.floor.get();
    let (mut settled, mut dying) = (floor, 0);
    for (page, row) in &rows.pages {
        for at in 0..=255_u8 {
            let offset = page * 256 + u64::from(at);
            settled += u64::from(offset >= floor && row.is_settled(at));
        }
        dying += row.failed.iter().filter(|failed| failed.dies()).count();
    }
    (settled, dying)
}

/// There were bits without a letter, or letters without a bit, if the two were not one step.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_letter_and_what_settles_its_record_are_one_step_whenever_the_store_is_killed() {
    const RECORDS: u64 = 40;
    let dir = tempfile::tempdir().expect("a scratch directory");
    let (store, _) = open(dir.path());
    let (jobs, letters, mut group) = rejected(&store, RECORDS as u32).await;
    for buried in 0..RECORDS {
        let working = {
            let store = store.clone();
            tokio::spawn(async move {
                bury(&store, (jobs, letters), &mut group)
                    .await
                    .expect("buried");
                group
            })
        };
        // Before it is written, before it is synced, or after: whichever comes.
        let image = crashed_copy(dir.path());
        group = working.await.expect("no panic");
        let (found, _) = open(image.path());
        let rows = found.consumer_rows(jobs, workers()).await.expect("there");
        let written = found.describe_topic(name("letters")).await.expect("there");
        // An unclean stop of an `os` topic leaves a gap behind what is there.
        let gap: u64 = written.gaps.iter().map(|gap| gap.to.since(gap.from)).sum();
        let letters = written.end_offset.get() - gap;
        let (settled, dying) = settled(&rows);
        assert_eq!((settled, rows.row.dead), (letters, letters));
        assert!(
            [buried, buried + 1].contains(&letters),
            "{letters} of {buried}"
        );
        assert!(
            dying == 0 || dying as u64 + settled == RECORDS,
            "{dying} die of {settled}"
        );
        found.stop().expect("a clean stop");
    }
    store.stop().expect("a clean stop");
}

#[tokio::test]
async fn where_a_dead_letter_is_refused_nothing_is_settled() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let (store, _) = open(dir.path());
    let (jobs, letters, mut group) = rejected(&store, 3).await;
    let nowhere = TopicId::from_bytes([7; 16]);
    let refused = bury(&store, (jobs, nowhere), &mut group).await;
    assert_eq!(refused, Err(ApiError::UnknownTopicId { id: nowhere }));
    let rows = store.consumer_rows(jobs, workers()).await.expect("there");
    assert_eq!((settled(&rows), rows.row.dead), ((0, 0), 0));
    // Under the disk reserve nothing is published, and these are publishing.
    store.shared.reserve_reached.store(true, Ordering::Release);
    let refused = bury(&store, (jobs, letters), &mut group).await;
    assert_eq!(refused.expect_err("the reserve").name(), "DiskReserve");
    store.shared.reserve_reached.store(false, Ordering::Release);
    bury(&store, (jobs, letters), &mut group)
        .await
        .expect("buried");
    let rows = store.consumer_rows(jobs, workers()).await.expect("there");
    assert_eq!((settled(&rows), rows.row.dead), ((1, 2), 1));
    // Rows that were composed before the group was moved are no rows of it.
    let flush = group
        .compose(&[group.dying(1)[0].offset], NOW)
        .expect("something");
    store
        .seek_consumer_group(jobs, workers(), Offset::new(2))
        .await
        .expect("moved");
    let stale = store.settle_consumers(jobs, workers(), flush).await;
    assert_eq!(stale.expect_err("moved").name(), "StaleGeneration");
    let rows = store.consumer_rows(jobs, workers()).await.expect("there");
    assert_eq!((rows.row.floor.get(), rows.pages.len()), (2, 0));
    store.stop().expect("a clean stop");
    drop(store);
    let (store, _) = open(dir.path());
    let again = store.consumer_rows(jobs, workers()).await.expect("there");
    assert_eq!((again.row, again.pages), (rows.row, rows.pages));
    store.stop().expect("a clean stop");
}
