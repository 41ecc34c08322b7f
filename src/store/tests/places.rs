//! Finding the place of a time, held against a walk over all batches; and what moved subscriptions, over restarts.

use super::cold::{has_cold, mixed};
use super::retention::{fill, until};
use super::*;
use crate::protocol::api::{
    Author, ChangeKind, PlaceChange, SubscriptionHistory, UndoSubscription, Undone,
};
use crate::types::SubscriptionName;

/// First offset, end and append time of every batch that can be read.
async fn batches(store: &Store, id: TopicId) -> Vec<(u64, u64, Timestamp)> {
    let (mut found, mut at) = (Vec::new(), 0);
    loop {
        let asked = Fetch {
            pass_damage: true,
            ..fetch(id, at)
        };
        let fetched = store.fetch(asked).await.expect("it can be read");
        for item in &fetched.items {
            if let FetchItem::Batch(stored) = item {
                let header = CheckedBatch::check_crc(stored.batch.clone()).expect("sound");
                let base = stored.base_offset.get();
                let end = base + u64::from(header.header().record_count);
                found.push((base, end, stored.append_time));
            }
        }
        if fetched.next_offset == fetched.end_offset {
            return found;
        }
        at = fetched.next_offset.get();
    }
}

/// Every time at which something was appended, and those just beside it, lead to where a walk leads.
async fn check_times(store: &Store, topic: &str, id: TopicId) {
    let batches = batches(store, id).await;
    assert!(!batches.is_empty());
    let start = store.find_offset(name(topic), Position::Beginning).await;
    let start = start.expect("found").offset.get();
    let mut times: Vec<i64> = batches.iter().map(|(.., time)| time.as_millis()).collect();
    times.dedup();
    let beside = times.iter().flat_map(|time| [time - 1, *time, time + 1]);
    let all: std::collections::BTreeSet<i64> = beside.chain([0, i64::MAX]).collect();
    for time in all {
        let before = batches.iter().filter(|(.., at)| at.as_millis() < time);
        let expected = before.map(|(_, end, _)| *end).max().unwrap_or(0).max(start);
        let position = Position::Time(Timestamp::from_millis(time));
        let found = store.find_offset(name(topic), position).await;
        let found = found.expect("found").offset.get();
        assert_eq!(found, expected, "time {time} of {topic}");
    }
    let end = batches.last().map_or(0, |(_, end, _)| *end);
    let offsets = batches.iter().flat_map(|(base, end, _)| *base..*end);
    let offsets: Vec<u64> = offsets.filter(|offset| *offset >= start).collect();
    for back in [0, 1, 2, 7, 50, 100, 10_000] {
        let nth = offsets.len().checked_sub(back);
        let expected = nth.map_or(start, |nth| offsets.get(nth).copied().unwrap_or(end));
        let position = Position::Back(back as u64);
        let found = store.find_offset(name(topic), position).await;
        let found = found.expect("found").offset.get();
        assert_eq!(found, expected, "{back} from the end of {topic}");
    }
}

#[tokio::test]
async fn a_time_leads_to_the_record_wherever_it_lies() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let (store, small, _) = mixed(dir.path()).await;
    for (n, id) in small.iter().enumerate() {
        check_times(&store, &format!("small-{n}"), *id).await;
    }
    // From inside a batch on, too.
    let ids = [create(&store, "many", Durability::Fsync).await];
    for n in 0..40_u64 {
        let values = vec![&b"x"[..]; 1 + (n as usize * 7) % 23];
        publish(&store, ids[0], batch(0, 0, &values)).await;
    }
    check_times(&store, "many", ids[0]).await;
    let before = Position::Offset(Offset::new(100));
    store.purge_topic(name("many"), before).await.expect("done");
    check_times(&store, "many", ids[0]).await;
    // Copied together into cold segments, and after a restart.
    let deleted = store.delete_topic(name("large"), None).await;
    deleted.expect("deleted");
    until("records are copied", || has_cold(&store)).await;
    check_times(&store, "small-2", small[2]).await;
    store.stop().expect("a clean stop");
    drop(store);
    let (store, _) = open(dir.path());
    for (n, id) in small.iter().enumerate() {
        check_times(&store, &format!("small-{n}"), *id).await;
    }
    check_times(&store, "many", ids[0]).await;
    store.stop().expect("a clean stop");
}

#[tokio::test]
async fn a_time_inside_a_gap_leads_to_the_gap() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let (store, _) = open(dir.path());
    let id = create(&store, "a", Durability::Os).await;
    fill(&store, id, 0..50, 100).await;
    let copy = crashed_copy(dir.path());
    store.stop().expect("a clean stop");
    let (copied, _) = open(copy.path());
    // What an os topic may have lost was appended after the last record there is.
    let last = batches(&copied, id).await.last().expect("some").2;
    let after = Position::Time(Timestamp::from_millis(last.as_millis() + 1));
    let found = copied.find_offset(name("a"), after).await.expect("found");
    assert_eq!(found.offset.get(), 50);
    assert!(found.end_offset.get() > 50, "there is a gap");
    until("time goes by", || Timestamp::now() > last).await;
    fill(&copied, id, 0..5, 100).await;
    check_times(&copied, "a", id).await;
    copied.stop().expect("a clean stop");
}

/// Extents whose footer cannot be read tell no time; what lies around them does.
#[tokio::test]
async fn a_segment_without_a_footer_is_passed_over() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let (store, _) = open(dir.path());
    let id = create(&store, "a", Durability::Fsync).await;
    for round in 0..8_u64 {
        fill(&store, id, round * 60..round * 60 + 60, 10_000).await;
    }
    until("segments are sealed", || {
        store
            .shared
            .segments
            .all()
            .iter()
            .filter(|s| s.row.is_some())
            .count()
            > 3
    })
    .await;
    let known = batches(&store, id).await;
    let sealed = store.shared.segments.all();
    let middle = sealed
        .iter()
        .filter(|s| s.row.is_some())
        .nth(1)
        .expect("one");
    store.shared.segments.remove(middle.number);
    let (_, end, time) = *known.last().expect("some");
    let position = Position::Time(time);
    let found = store.find_offset(name("a"), position).await.expect("found");
    let same = known
        .iter()
        .filter(|(.., at)| *at < time)
        .map(|b| b.1)
        .max();
    assert_eq!(found.offset.get(), same.expect("some"));
    assert!(found.offset.get() < end);
    store.stop().expect("a clean stop");
}

fn map() -> SubscriptionName {
    "map".parse().expect("a good name")
}

async fn history(store: &Store) -> Vec<PlaceChange> {
    let asked = SubscriptionHistory {
        topic: name("a"),
        name: map(),
    };
    store
        .subscription_history(asked)
        .await
        .expect("told")
        .changes
}

async fn undo(store: &Store) -> Result<Undone, ApiError> {
    let asked = UndoSubscription {
        topic: name("a"),
        name: map(),
        generation: None,
        dry_run: false,
    };
    store.undo_subscription(asked).await
}

#[tokio::test]
async fn what_moved_a_subscription_is_known_after_a_crash_and_can_be_undone() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let (store, _) = open(dir.path());
    let id = create(&store, "a", Durability::Fsync).await;
    fill(&store, id, 0..50, 100).await;
    let someone = store.asked_by(Author::new("ops 1", "10.0.0.7:4".to_owned()));
    let made = someone.create_subscription(name("a"), map(), Position::Beginning, false);
    let made = made.await.expect("made");
    assert!(matches!(
        undo(&store).await,
        Err(ApiError::NothingToUndo { .. })
    ));
    let commit = Commit {
        topic: id,
        name: map(),
        generation: made.generation,
        offset: Offset::new(20),
    };
    store.commit(commit).await.expect("committed");
    let sought = someone.seek(name("a"), map(), Position::End, false);
    sought.await.expect("moved");
    let copy = crashed_copy(dir.path());
    store.stop().expect("a clean stop");
    // As it was, and from the journal alone.
    for rebuilt in [false, true] {
        if rebuilt {
            std::fs::remove_dir_all(copy.path().join("catalog")).expect("removed");
        }
        let (store, _) = open(copy.path());
        let told = history(&store).await;
        let moves: Vec<_> = told.iter().map(|c| (c.kind, c.from, c.to.get())).collect();
        let seek = (ChangeKind::Seek, Some(Offset::new(20)), 50);
        assert_eq!(moves[..2], [(ChangeKind::Created, None, 0), seek]);
        assert_eq!(
            told[1].author,
            Author::new("ops 1", "10.0.0.7:4".to_owned())
        );
        let undone = undo(&store).await.expect("undone");
        let expected = if rebuilt { (20, 50) } else { (50, 20) };
        assert_eq!((undone.from.get(), undone.to.get()), expected);
        assert_eq!(undone.subscription.committed_offset, undone.to);
        store.stop().expect("a clean stop");
    }
    let (store, _) = open(copy.path());
    let removed = store.delete_subscription(name("a"), map());
    removed.await.expect("removed");
    let made = store.create_subscription(name("a"), map(), Position::End, false);
    made.await.expect("made");
    assert_eq!(history(&store).await.len(), 1, "a new history");
    store.stop().expect("a clean stop");
}

#[tokio::test]
async fn an_undo_goes_to_the_start_where_retention_has_discarded_the_place() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let (store, _) = open(dir.path());
    let id = create(&store, "a", Durability::Fsync).await;
    fill(&store, id, 0..50, 100).await;
    let made = store.create_subscription(name("a"), map(), Position::Beginning, false);
    made.await.expect("made");
    let sought = store.seek(name("a"), map(), Position::End, false).await;
    sought.expect("moved");
    let before = Position::Offset(Offset::new(30));
    store.purge_topic(name("a"), before).await.expect("purged");
    let undone = undo(&store).await.expect("undone");
    assert_eq!((undone.from.get(), undone.to.get()), (50, 30));
    assert_eq!(undone.change.from, Some(Offset::ZERO));
    store.stop().expect("a clean stop");
}
