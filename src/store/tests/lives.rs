//! Subscriptions that are paused and resumed, and those that vanish when nobody uses them.

use super::retention::{fill, until};
use super::*;
use crate::protocol::api::{
    CreateSubscription, SetSubscription, SubscriptionChanges, SubscriptionInfo, WatchSubscription,
    WatchSubscriptions,
};
use crate::types::SubscriptionName;

/// The shortest time to expire.
const LIFE: Duration = limits::SUBSCRIPTION_EXPIRE_MIN;
/// What takes longer does not happen.
const SOON: Duration = Duration::from_secs(30);

fn subscription() -> SubscriptionName {
    "s".parse().expect("a good name")
}

/// Looks often, so that a test need not wait long.
fn eager(dir: &Path) -> StoreOptions {
    StoreOptions {
        reclaim_every: Duration::from_millis(5),
        ..options(dir)
    }
}

async fn make(store: &Store, expire: Option<Duration>) -> Result<SubscriptionInfo, ApiError> {
    let request = CreateSubscription {
        topic: name("a"),
        name: subscription(),
        from: Position::Beginning,
        if_not_exists: true,
        expire_ms: expire.map(|life| life.as_millis() as u64),
    };
    store.make_subscription(request).await
}

async fn change(store: &Store, changes: SubscriptionChanges) -> Result<SubscriptionInfo, ApiError> {
    let request = SetSubscription {
        topic: name("a"),
        name: subscription(),
        changes,
    };
    store.set_subscription(request).await
}

async fn pause(store: &Store, paused: bool) {
    let changes = SubscriptionChanges {
        paused: Some(paused),
        ..SubscriptionChanges::default()
    };
    let info = change(store, changes).await.expect("set");
    assert_eq!(info.paused, paused);
}

async fn described(store: &Store) -> Result<SubscriptionInfo, ApiError> {
    store.describe_subscription(name("a"), subscription()).await
}

fn watch(topic: TopicId, paused: bool, wait: Duration) -> WatchSubscription {
    WatchSubscription {
        topic,
        name: subscription(),
        paused,
        max_wait_ms: wait.as_millis() as u32,
    }
}

async fn commit(store: &Store, id: TopicId, offset: u64) -> u64 {
    let commit = Commit {
        topic: id,
        name: subscription(),
        generation: described(store).await.expect("there").generation,
        offset: Offset::new(offset),
    };
    store.commit(commit).await.expect("committed").offset.get()
}

async fn until_gone(store: &Store) {
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    while described(store).await.is_ok() {
        assert!(std::time::Instant::now() < deadline, "it does not expire");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn expired(store: &Store) -> u64 {
    use crate::figures::catalogue;
    let registry = store.registry();
    registry.value(&catalogue::SUBSCRIPTIONS_EXPIRED).sum()
}

#[tokio::test]
async fn a_pause_lasts_and_leaves_the_position_alone() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let (store, _) = open(dir.path());
    let id = create(&store, "a", Durability::Fsync).await;
    fill(&store, id, 0..10, 10).await;
    let made = make(&store, None).await.expect("made");
    assert!(!made.paused);
    pause(&store, true).await;
    // What was handed out may be confirmed, under the generation it had.
    assert_eq!(commit(&store, id, 4).await, 4);
    let crashed = crashed_copy(dir.path());
    store.stop().expect("a clean stop");
    for dir in [crashed.path(), dir.path()] {
        let (store, _) = open(dir);
        let found = described(&store).await.expect("there");
        assert!(found.paused);
        assert_eq!(found.committed_offset.get(), 4);
        assert_eq!(found.generation, made.generation);
        pause(&store, false).await;
        assert_eq!(commit(&store, id, 7).await, 7);
        store.stop().expect("a clean stop");
        drop(store);
        let (store, _) = open(dir);
        assert!(!described(&store).await.expect("there").paused);
        store.stop().expect("a clean stop");
    }
}

#[tokio::test]
async fn who_attends_is_told_at_once_and_counted() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let (store, _) = open(dir.path());
    let id = create(&store, "a", Durability::Fsync).await;
    make(&store, None).await.expect("made");
    let soon = Duration::from_secs(60);
    let attend = |paused: bool| {
        let store = store.clone();
        tokio::spawn(async move { store.watch_subscription(watch(id, paused, soon)).await })
    };
    let (first, second) = (attend(false), attend(false));
    let deadline = std::time::Instant::now() + soon;
    while described(&store).await.expect("there").readers < 2 {
        assert!(std::time::Instant::now() < deadline, "both attend");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    pause(&store, true).await;
    for attending in [first, second] {
        let told = attending.await.expect("no panic").expect("it is there");
        assert!(told.paused);
    }
    assert_eq!(described(&store).await.expect("there").readers, 0);
    // Who knows something else is told without a wait, who knows it after the wait.
    let wrong = store.watch_subscription(watch(id, false, soon)).await;
    assert!(wrong.expect("there").paused);
    let short = Duration::from_millis(10);
    let right = store.watch_subscription(watch(id, true, short)).await;
    assert!(right.expect("there").paused);
    // It goes, and with it what waits; so does what waits for something that never was.
    let attending = attend(true);
    while described(&store).await.expect("there").readers < 1 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let deleted = store.delete_subscription(name("a"), subscription());
    deleted.await.expect("gone");
    for gone in [
        attending.await.expect("no panic"),
        attend(true).await.expect("no panic"),
    ] {
        assert!(
            matches!(gone, Err(ApiError::SubscriptionNotFound { .. })),
            "{gone:?}"
        );
    }
    store.stop().expect("a clean stop");
}

#[tokio::test]
async fn what_nobody_uses_expires_and_holds_nothing_back() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let (store, _) = Store::open(&eager(dir.path())).expect("opens");
    let id = create(&store, "a", Durability::Fsync).await;
    let keep = TopicChanges {
        retain_interest: Some(true),
        ..TopicChanges::default()
    };
    store.set_topic(name("a"), keep).await.expect("set");
    let lasting: SubscriptionName = "lasting".parse().expect("a good name");
    let end = Position::End;
    fill(&store, id, 0..10, 10).await;
    let refused = make(&store, Some(LIFE - Duration::from_millis(1))).await;
    assert!(matches!(refused, Err(ApiError::InvalidArgument { .. })));
    make(&store, Some(LIFE)).await.expect("made");
    let made = store.create_subscription(name("a"), lasting.clone(), end, false);
    made.await.expect("made");
    let begun = std::time::Instant::now();
    // Looking at it is no use.
    until_gone(&store).await;
    assert!(begun.elapsed() >= LIFE - Duration::from_millis(50));
    assert_eq!(expired(&store), 1);
    let shared = store.shared_topic(id).expect("there");
    until("nothing is held back", || shared.start().get() == 10).await;
    let kept = store.describe_subscription(name("a"), lasting).await;
    assert_eq!(kept.expect("it does not expire").expires_in_ms, None);
    // Gone it stays, whatever comes.
    let crashed = crashed_copy(dir.path());
    store.stop().expect("a clean stop");
    let (store, _) = open(crashed.path());
    assert!(described(&store).await.is_err());
    store.stop().expect("a clean stop");
}

#[tokio::test]
async fn what_is_used_stays() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let (store, _) = Store::open(&eager(dir.path())).expect("opens");
    let id = create(&store, "a", Durability::Fsync).await;
    fill(&store, id, 0..100, 10).await;
    make(&store, Some(LIFE)).await.expect("made");
    let pass = std::time::Instant::now() + LIFE * 2;
    let mut offset = 0;
    while std::time::Instant::now() < pass {
        offset += 1;
        commit(&store, id, offset).await;
        tokio::time::sleep(LIFE / 20).await;
    }
    // Attended it stays, although nothing is committed; and its time begins when that ends.
    let attended = store.watch_subscription(watch(id, false, LIFE * 2)).await;
    attended.expect("it is there all the time");
    let left = described(&store).await.expect("there").expires_in_ms;
    assert!(
        left.is_some_and(|left| left > LIFE.as_millis() as u64 / 2),
        "{left:?}"
    );
    // A restart gives everybody time to come back, however long it took.
    store.stop().expect("a clean stop");
    drop(store);
    tokio::time::sleep(LIFE * 2).await;
    let (store, _) = Store::open(&eager(dir.path())).expect("opens");
    let left = described(&store).await.expect("there").expires_in_ms;
    assert!(left.is_some_and(|left| left > 0), "{left:?}");
    // So does a process that stood still.
    store.shared.attendance.all_used();
    described(&store).await.expect("there");
    // What was set to stay stays.
    let never = SubscriptionChanges {
        expire_ms: Some(None),
        ..SubscriptionChanges::default()
    };
    assert_eq!(change(&store, never).await.expect("set").expire_ms, None);
    tokio::time::sleep(LIFE * 3 / 2).await;
    described(&store).await.expect("it does not expire");
    let again = SubscriptionChanges {
        expire_ms: Some(Some(LIFE.as_millis() as u64)),
        ..SubscriptionChanges::default()
    };
    change(&store, again).await.expect("set");
    until_gone(&store).await;
    store.stop().expect("a clean stop");
}

/// How the subscriptions of all topics stand that match, when they stand otherwise than told.
async fn watched(store: &Store, pattern: &str, paused: &[TopicId], wait: Duration) -> Vec<TopicId> {
    let watch = WatchSubscriptions {
        name: subscription(),
        pattern: pattern.parse().expect("a pattern"),
        paused: paused.to_vec(),
        max_wait_ms: wait.as_millis() as u32,
    };
    let watched = store.watch_subscriptions(watch).await;
    watched.expect("watched").paused
}

#[tokio::test]
async fn all_of_a_name_are_attended_at_once() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let (store, _) = open(dir.path());
    let id = create(&store, "a", Durability::Fsync).await;
    let other = create(&store, "other", Durability::Fsync).await;
    make(&store, None).await.expect("made");
    let short = Duration::from_millis(20);
    assert_eq!(watched(&store, ">", &[], short).await, []);
    // Whoever waits is told; that another name, or another topic, is meant makes no difference to it.
    let (told, ()) = tokio::join!(watched(&store, "a", &[], SOON), pause(&store, true));
    assert_eq!(told, [id]);
    assert_eq!(watched(&store, ">", &[id], short).await, [id]);
    assert_eq!(watched(&store, "other", &[], short).await, []);
    // What is not so any more, or never was, is put right.
    assert_eq!(watched(&store, ">", &[other], SOON).await, [id]);
    store.stop().expect("a clean stop");
    drop(store);
    let (store, _) = open(dir.path());
    assert_eq!(watched(&store, ">", &[], SOON).await, [id]);
    let known = [id];
    let (told, ()) = tokio::join!(watched(&store, ">", &known, SOON), pause(&store, false));
    assert_eq!(told, []);
    let too_many = vec![id; limits::PAUSED_TOLD_MAX + 1];
    let watch = WatchSubscriptions {
        name: subscription(),
        pattern: ">".parse().expect("a pattern"),
        paused: too_many,
        max_wait_ms: 1,
    };
    let refused = store.watch_subscriptions(watch).await;
    assert!(matches!(refused, Err(ApiError::InvalidArgument { .. })));
    store.stop().expect("a clean stop");
}

#[tokio::test]
async fn what_is_attended_by_its_name_does_not_expire() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let (store, _) = Store::open(&eager(dir.path())).expect("open");
    create(&store, "a", Durability::Fsync).await;
    let wait = LIFE + Duration::from_millis(500);
    // It is made while the poll waits, and lives as long as that does.
    let making = async {
        make(&store, Some(LIFE)).await.expect("made");
    };
    tokio::join!(watched(&store, ">", &[], wait), making);
    assert_eq!(expired(&store), 0);
    described(&store).await.expect("it was in use");
    until_gone(&store).await;
    store.stop().expect("a clean stop");
}
