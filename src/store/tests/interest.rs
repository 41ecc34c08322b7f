//! What every subscription has confirmed goes; nothing else does on that account.

use super::retention::{check, fill, info, until};
use super::*;
use crate::types::{Generation, SubscriptionName};

fn subscription(text: &str) -> SubscriptionName {
    text.parse().expect("a good name")
}

/// Looks often, so that a test need not wait long.
fn eager(dir: &Path) -> StoreOptions {
    StoreOptions {
        reclaim_every: Duration::from_millis(5),
        ..options(dir)
    }
}

async fn keep_what_is_wanted(store: &Store, topic: &str) {
    let changes = TopicChanges {
        retain_interest: Some(true),
        ..TopicChanges::default()
    };
    store.set_topic(name(topic), changes).await.expect("set");
}

async fn subscribe(store: &Store, named: &str, from: Position) -> u64 {
    let made = store.create_subscription(name("a"), subscription(named), from, false);
    made.await.expect("made").committed_offset.get()
}

async fn commit(store: &Store, id: TopicId, named: &str, offset: u64) {
    let found = store.describe_subscription(name("a"), subscription(named));
    let generation: Generation = found.await.expect("there").generation;
    let commit = Commit {
        topic: id,
        name: subscription(named),
        generation,
        offset: Offset::new(offset),
    };
    store.commit(commit).await.expect("committed");
}

async fn until_start(store: &Store, id: TopicId, start: u64) {
    let shared = store.shared_topic(id).expect("there");
    until(&format!("it starts at {start}"), || {
        let now = shared.start().get();
        assert!(now <= start, "it starts at {now}, not at {start}");
        now == start
    })
    .await;
}

/// Waits until the reclaimer has looked some times more; it looks at one topic after the other, so when the start of
/// another one has moved it has seen this one.
async fn until_looked(store: &Store, other: TopicId, end: &mut u64) {
    for _ in 0..2 {
        fill(store, other, *end..*end + 1, 10).await;
        *end += 1;
        until_start(store, other, *end).await;
    }
}

#[tokio::test]
async fn the_slowest_decides_and_nobody_means_everybody() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let (store, _) = Store::open(&eager(dir.path())).expect("opens");
    let id = create(&store, "a", Durability::Fsync).await;
    let other = create(&store, "other", Durability::Fsync).await;
    let aged = TopicChanges {
        retain_age_ms: Some(Some(1)),
        ..TopicChanges::default()
    };
    store.set_topic(name("other"), aged).await.expect("set");
    let mut looked = 0;
    keep_what_is_wanted(&store, "a").await;
    fill(&store, id, 0..100, 10).await;
    until_looked(&store, other, &mut looked).await;
    assert_eq!(info(&store, "a").await.start_offset.get(), 0);
    assert_eq!(subscribe(&store, "fast", Position::Beginning).await, 0);
    assert_eq!(subscribe(&store, "slow", Position::Beginning).await, 0);
    commit(&store, id, "fast", 90).await;
    until_looked(&store, other, &mut looked).await;
    assert_eq!(info(&store, "a").await.start_offset.get(), 0);
    commit(&store, id, "slow", 40).await;
    until_start(&store, id, 40).await;
    check(&store, id, 40..100, 10).await;
    // A new one begins where the topic does, and holds it there; one that goes back finds what is left.
    assert_eq!(subscribe(&store, "new", Position::Beginning).await, 40);
    commit(&store, id, "slow", 100).await;
    commit(&store, id, "fast", 100).await;
    until_looked(&store, other, &mut looked).await;
    assert_eq!(info(&store, "a").await.start_offset.get(), 40);
    let deleted = store.delete_subscription(name("a"), subscription("new"));
    deleted.await.expect("gone");
    until_start(&store, id, 100).await;
    assert_eq!(info(&store, "a").await.bytes, 0);
    fill(&store, id, 100..110, 10).await;
    // Without the last one everything stays again.
    for named in ["fast", "slow"] {
        let deleted = store.delete_subscription(name("a"), subscription(named));
        deleted.await.expect("gone");
    }
    until_looked(&store, other, &mut looked).await;
    check(&store, id, 100..110, 10).await;
    store.stop().expect("a clean stop");
}

#[tokio::test]
async fn bounds_go_over_those_who_are_slow_and_they_are_told() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let (store, _) = Store::open(&eager(dir.path())).expect("opens");
    let id = create(&store, "a", Durability::Fsync).await;
    keep_what_is_wanted(&store, "a").await;
    let few = TopicChanges {
        retain_records: Some(Some(10)),
        ..TopicChanges::default()
    };
    store.set_topic(name("a"), few).await.expect("set");
    subscribe(&store, "slow", Position::Beginning).await;
    fill(&store, id, 0..30, 10).await;
    until_start(&store, id, 20).await;
    let fetched = store.fetch(fetch(id, 0)).await.expect("told");
    let gap = Gap {
        from: Offset::new(0),
        to: Offset::new(20),
        reason: GapReason::Discarded,
    };
    assert_eq!(fetched.items.first(), Some(&FetchItem::Gap(gap)));
    commit(&store, id, "slow", 25).await;
    until_start(&store, id, 25).await;
    store.stop().expect("a clean stop");
}

#[tokio::test]
async fn the_space_comes_back() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let (store, _) = Store::open(&eager(dir.path())).expect("opens");
    let id = create(&store, "a", Durability::Fsync).await;
    keep_what_is_wanted(&store, "a").await;
    subscribe(&store, "s", Position::Beginning).await;
    fill(&store, id, 0..600, 10_000).await;
    assert!(super::retention::slots(dir.path()) >= 6);
    commit(&store, id, "s", 600).await;
    until("the slots of the dead segments are gone", || {
        super::retention::slots(dir.path()) <= 5
    })
    .await;
    store.stop().expect("a clean stop");
}

/// A deterministic source of numbers.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % n.max(1)
    }
}

/// What has to hold, in the most obvious form.
#[derive(Debug, Default)]
struct Model {
    start: u64,
    end: u64,
    places: std::collections::BTreeMap<String, u64>,
}

impl Model {
    /// Where the topic starts when everything that may go has gone.
    fn settle(&mut self) -> u64 {
        if let Some(lowest) = self.places.values().min() {
            self.start = self.start.max(*lowest);
        }
        self.start
    }

    fn any(&self, dice: &mut Dice) -> Option<String> {
        let at = dice.below(self.places.len() as u64) as usize;
        self.places.keys().nth(at).cloned()
    }
}

async fn one_step(store: &Store, id: TopicId, model: &mut Model, dice: &mut Dice) {
    match dice.below(10) {
        0..=3 => {
            let count = 1 + dice.below(5);
            let texts: Vec<Vec<u8>> = (model.end..model.end + count)
                .map(|n| super::retention::value(n, 10))
                .collect();
            let texts: Vec<&[u8]> = texts.iter().map(Vec::as_slice).collect();
            publish(store, id, batch(0, 0, &texts)).await;
            model.end += count;
        }
        4..=6 => {
            let Some(named) = model.any(dice) else { return };
            let from = model.places[&named].max(model.start);
            let to = from + dice.below(model.end - from + 1);
            commit(store, id, &named, to).await;
            let place = model.places.get_mut(&named).expect("it is there");
            *place = to.max(*place);
        }
        7 => {
            let named = format!("s{}", dice.below(4));
            if !model.places.contains_key(&named) {
                let begun = subscribe(store, &named, Position::Beginning).await;
                assert_eq!(begun, model.start);
                model.places.insert(named, begun);
            }
        }
        8 => {
            let Some(named) = model.any(dice) else { return };
            let to = model.start + dice.below(model.end - model.start + 1);
            let place = Position::Offset(Offset::new(to));
            let sought = store.seek(name("a"), subscription(&named), place, false);
            sought.await.expect("moved");
            model.places.insert(named, to);
        }
        _ => {
            let Some(named) = model.any(dice) else { return };
            let deleted = store.delete_subscription(name("a"), subscription(&named));
            deleted.await.expect("gone");
            model.places.remove(&named);
        }
    }
}

async fn walk(seed: u64, lives: u64, steps: u64) {
    // Shown if it fails.
    println!("seed {seed}");
    let (mut dice, mut model) = (Dice(seed), Model::default());
    let mut dir = tempfile::tempdir().expect("a scratch directory");
    let (mut store, _) = Store::open(&eager(dir.path())).expect("opens");
    let id = create(&store, "a", Durability::Fsync).await;
    keep_what_is_wanted(&store, "a").await;
    for _ in 0..lives {
        for _ in 0..steps {
            one_step(&store, id, &mut model, &mut dice).await;
            let start = model.settle();
            until_start(&store, id, start).await;
        }
        // It goes on from a clean stop, or from what a crash leaves.
        let crashed = (dice.below(2) == 0).then(|| crashed_copy(dir.path()));
        store.stop().expect("a clean stop");
        drop(store);
        dir = crashed.unwrap_or(dir);
        (store, _) = Store::open(&eager(dir.path())).expect("opens");
        // The batch that it starts inside of comes whole.
        let found = values(&store, id, model.start).await.into_iter();
        let found: Vec<_> = found.filter(|(offset, _)| *offset >= model.start).collect();
        let expected = (model.start..model.end).map(|n| (n, super::retention::value(n, 10)));
        assert_eq!(found, expected.collect::<Vec<_>>());
        for (named, place) in &model.places {
            let found = store.describe_subscription(name("a"), subscription(named));
            assert_eq!(found.await.expect("there").committed_offset.get(), *place);
        }
    }
    assert!(store.damage().is_empty(), "{:?}", store.damage());
    store.stop().expect("a clean stop");
}

#[tokio::test]
async fn whatever_they_do_it_is_as_the_model_says() {
    for seed in [1, 2, 3] {
        walk(seed, 4, 40).await;
    }
}
