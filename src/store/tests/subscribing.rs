//! Random lives of subscriptions, beside a model of them.
//!
//! Real are the decisions, the rows, and what is known of who reads. In the place of the journal stands a list of rows
//! as they were written, in that of the catalog rows of some moment, and the clocks are numbers. After each step
//! everything there is to know of every subscription is as the model has it; now and then only rows are left.

mod model;
mod moves;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use self::model::{Change, Model, Subscription};
use super::*;
use crate::protocol::api::{Author, ChangeKind, ConsumerGroupChanges, SubscriptionChanges};
use crate::protocol::error::ApiError;
use crate::store::attendance::Entries;
use crate::store::topics::{settled, subscription_keys};
use crate::topic::tests::worlds::{self, Random, Seen, World};
use crate::topic::{
    Authored, CommitFacts, NewSubscription, PeerRow, Row, RowChange, RowKey, State, Topic, TopicRow,
};
use crate::types::{Generation, PeerId, StateNumber, SubscriptionName};

/// That of a peer that has nothing yet.
pub(super) fn empty_state() -> State {
    State::new(PeerRow {
        id: PeerId::from_bytes([9; 16]),
        name: "p".parse().expect("good"),
        created: Timestamp::default(),
        state_number: StateNumber::ZERO,
        accepted_state: StateNumber::ZERO,
        snapshot: None,
    })
}

type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

/// A name of a row, and its value, if it has one now.
type Written = (Vec<u8>, Option<Vec<u8>>);

/// What is to go because all have confirmed it.
struct Plan {
    id: TopicId,
    from: Offset,
    confirmed: Offset,
}

struct Subscribing {
    random: Random,
    state: State,
    entries: Entries,
    begun: Instant,
    /// Milliseconds of the clock that never jumps, and of the other one.
    steady: u64,
    wall: i64,
    model: Model,
    made: u8,
    plan: Option<Plan>,
    /// What was found to have expired, and is not decided yet.
    expired: Vec<(TopicId, SubscriptionName)>,
    /// Readers of subscriptions that are gone.
    stale: Vec<(TopicId, SubscriptionName, u64)>,
    // What outlasts a crash.
    journal: Vec<Written>,
    /// So much of it is durable.
    synced: usize,
    /// The model as of then.
    saved: Model,
    /// Rows of some moments, each as of so much of the journal.
    catalogs: Vec<(usize, Rows)>,
    seen: Seen,
}

impl Subscribing {
    fn below(&mut self, n: u64) -> u64 {
        self.random.below(n)
    }

    fn now(&self) -> Instant {
        self.begun + Duration::from_millis(self.steady)
    }

    fn any_topic(&mut self) -> Option<TopicId> {
        let all: Vec<TopicId> = self.model.topics.keys().copied().collect();
        self.random.of(&all).copied()
    }

    fn any_name(&mut self) -> SubscriptionName {
        // The first one mostly, so that it has a long history.
        let names = ["billing", "mail", "map", "audit"];
        let which = self.below(8).saturating_sub(4) as usize;
        names[which].parse().expect("good")
    }

    fn any_expire(&mut self) -> Option<u64> {
        [None, None, Some(1_000), Some(1_500), Some(4_000), Some(999)][self.below(6) as usize]
    }

    fn by(&mut self) -> Authored {
        let client = format!("client {}", self.below(5));
        Authored {
            when: Timestamp::from_millis(self.wall),
            author: Author::new(&client, "127.0.0.1:5000".to_owned()),
        }
    }

    fn topic_mut(&mut self, id: TopicId) -> &mut Topic {
        self.state.topic_mut(id).expect("it is there")
    }

    fn model_mut(&mut self, id: TopicId) -> &mut model::Topic {
        self.model.topics.get_mut(&id).expect("it is there")
    }

    /// A generation that was given is one that nothing had before (T5).
    fn is_new(&mut self, id: TopicId, generation: Generation) -> u64 {
        let all = &mut self.model_mut(id).generations;
        let last = all.last().copied();
        assert!(Some(generation.get()) > last, "{generation} after {last:?}");
        all.insert(generation.get());
        generation.get()
    }

    /// These rows go into the journal, as they are now.
    fn write(&mut self, keys: Vec<RowKey>) {
        for key in keys {
            let row = self.state.row(&key).map(|row| row.encode());
            self.journal.push((key.encode(), row));
        }
    }

    // --- topics --------------------------------------------------------------------

    fn create_topic(&mut self) {
        if self.model.topics.len() >= 2 {
            return;
        }
        self.made += 1;
        let id = TopicId::from_bytes([self.made; 16]);
        let named = name(&format!("topic.{}", self.below(3)));
        let mut settings = TopicSettings::default();
        settings.retention.interest = self.random.one_in(2);
        let created = Timestamp::from_millis(self.wall);
        let row = TopicRow::new(named.clone(), LeaderEpoch::new(1), settings, created);
        let is_taken = self.state.id_of(&named).is_ok();
        let made = self.state.create_topic(id, row);
        assert_eq!(made.is_err(), is_taken, "{named}");
        if is_taken {
            return;
        }
        let topic = model::Topic {
            interest: settings.retention.interest,
            ..model::Topic::default()
        };
        self.model.topics.insert(id, topic);
        self.write(vec![RowKey::Topic(id)]);
    }

    fn delete_topic(&mut self, id: TopicId) {
        self.state.delete_topic(id).expect("it is there");
        self.entries.remove_topic(id);
        let gone = self.model.topics.remove(&id).expect("it is there");
        for (name, of) in gone.subscriptions {
            let readers = of.readers.into_iter();
            self.stale
                .extend(readers.map(|serial| (id, name.clone(), serial)));
        }
        self.write(vec![RowKey::Topic(id)]);
        self.seen.note("topic deleted");
    }

    fn publish(&mut self, id: TopicId) {
        let (count, is_readable) = (self.below(12), self.random.one_in(2));
        let row = &mut self.topic_mut(id).row;
        row.end = row.end.saturating_add(count);
        let model = self.model_mut(id);
        model.end += count;
        if is_readable {
            model.readable = model.end;
        }
        self.write(vec![RowKey::Topic(id)]);
    }

    /// Retention that asks nobody, or a purge.
    fn discard(&mut self, id: TopicId) {
        let model = &self.model.topics[&id];
        let (start, readable) = (model.start, model.readable);
        let to = start + self.below((readable - start) / 2 + 1);
        self.topic_mut(id).advance_start(Offset::new(to), 0);
        self.model_mut(id).start = to;
        self.write(vec![RowKey::Topic(id)]);
    }

    /// The end of a topic becomes uncertain: readers stop before it.
    fn doubt_end(&mut self, id: TopicId) {
        let (start, readable) = {
            let model = &self.model.topics[&id];
            (model.start, model.readable)
        };
        self.model_mut(id).readable = self.random.between(start, readable);
    }

    /// What all have confirmed is planned to go (R2).
    fn plan(&mut self, id: TopicId) {
        let is_wanted = self.model.topics[&id].interest || self.random.one_in(5);
        if self.plan.is_some() || !is_wanted {
            return;
        }
        let topic = self.state.topic(id).expect("it is there");
        let lowest = self.model.topics[&id].lowest();
        assert_eq!(topic.lowest_position().map(Offset::get), lowest);
        self.plan = topic.lowest_position().map(|confirmed| Plan {
            id,
            from: topic.row.start,
            confirmed,
        });
    }

    /// And goes, if it is so still.
    fn decide(&mut self) {
        let Some(Plan {
            id,
            from,
            confirmed,
        }) = self.plan.take()
        else {
            return;
        };
        let Some(model) = self.model.topics.get_mut(&id) else {
            return;
        };
        let topic = self.state.topic_mut(id).expect("it is there");
        let holds = topic.row.start == from
            && topic.row.settings.retention.interest
            && topic.is_still_confirmed(confirmed);
        if holds {
            topic.advance_start(confirmed.min(Offset::new(model.readable)), 0);
        }
        let is_confirmed = model.lowest() >= Some(confirmed.get());
        let is_as_planned = model.start == from.get() && model.interest;
        assert_eq!(holds, is_as_planned && is_confirmed, "R2, R3");
        let start = topic.row.start.get();
        assert!(start == model.start || holds, "{start}");
        assert!(start == model.start || model.lowest() >= Some(start));
        if start > model.start {
            self.seen.note("discarded for want of interest");
        } else if is_as_planned && !is_confirmed {
            self.seen.note(match model.lowest() {
                Some(_) => "somebody moved back",
                None => "nobody was left",
            });
        }
        model.start = start;
        self.write(vec![RowKey::Topic(id)]);
    }

    // --- who reads, and time ----------------------------------------------------------

    fn attend(&mut self, id: TopicId) {
        let name = self.any_name();
        if self.unknown(id, &name).is_empty() {
            let (serial, _) = self.entries.enter(id, &name, self.now());
            let of_topic = &mut self.model_mut(id).subscriptions;
            let model = of_topic.get_mut(&name).expect("it is there");
            model.readers.push(serial);
        }
    }

    fn leave(&mut self, id: TopicId) {
        let (name, steady, now) = (self.any_name(), self.steady, self.now());
        // Of a subscription that has the name since it says nothing.
        if self.random.one_in(3)
            && let Some((id, name, serial)) = self.stale.pop()
        {
            return self.entries.leave(id, &name, serial, now);
        }
        let model = self.model_mut(id).subscriptions.get_mut(&name);
        if let Some(model) = model
            && let Some(serial) = model.readers.pop()
        {
            model.used = steady;
            self.entries.leave(id, &name, serial, now);
        }
    }

    fn pass_time(&mut self) {
        let millis = self.below(900);
        self.steady += millis;
        // People's clock goes as it likes.
        self.wall += self.below(2_000) as i64 - 200;
        if self.random.one_in(30) {
            self.entries.all_used(self.now());
            let steady = self.steady;
            self.model.all_used(steady);
        }
    }

    fn look_for_expired(&mut self) {
        self.expired = self.entries.expired(self.now(), 2);
    }

    /// What was found goes, if nobody used it meanwhile (S3).
    fn expire(&mut self) {
        for (id, name) in std::mem::take(&mut self.expired) {
            let Ok(topic) = self.state.topic_mut(id) else {
                continue;
            };
            let expires = topic
                .subscription(&name)
                .is_ok_and(|row| row.expire_ms.is_some());
            let now = self.begun + Duration::from_millis(self.steady);
            let goes = expires && self.entries.is_expired(id, &name, now);
            let model = self.model.topics[&id].subscriptions.get(&name);
            let is_expired = model.is_some_and(|of| of.is_expired(self.steady));
            assert_eq!(goes, is_expired, "{name}");
            match goes {
                true => {
                    topic.delete_subscription(&name).expect("it is there");
                    self.forget(id, &name);
                    self.seen.note("expired");
                }
                false => self.seen.note("used meanwhile"),
            }
        }
    }

    // --- crashes -------------------------------------------------------------------------

    fn sync(&mut self) {
        self.synced = self.journal.len();
        self.saved = self.model.clone();
        if self.random.one_in(3) {
            let keys = self.state.all_keys().into_iter();
            let row = |key: RowKey| Some((key.encode(), self.state.row(&key)?.encode()));
            self.catalogs
                .push((self.synced, keys.filter_map(row).collect()));
        }
        if self.catalogs.len() > 6 {
            self.catalogs.remove(0);
        }
        let read_back = self.read_back();
        for topic in self.state.topics() {
            assert_eq!(read_back.topic(topic.id), Ok(topic), "what its rows say");
        }
        assert_eq!(read_back.topics().count(), self.model.topics.len());
    }

    /// What is read back from rows of some moment, some of a later one among them, and what was written since.
    fn read_back(&mut self) -> State {
        let count = self.catalogs.len() as u64;
        let older = self.below(count) as usize;
        let newer = older + self.below(count - older as u64) as usize;
        let (from, mut rows) = self.catalogs[older].clone();
        let later = self.catalogs[newer].1.clone();
        let keys: BTreeSet<Vec<u8>> = rows.keys().chain(later.keys()).cloned().collect();
        for key in keys {
            if self.random.one_in(2) {
                match later.get(&key) {
                    Some(value) => _ = rows.insert(key, value.clone()),
                    None => _ = rows.remove(&key),
                }
            }
        }
        let of_catalog = rows.into_iter().map(|(key, row)| (key, Some(row)));
        let written = self.journal[from..].iter().cloned();
        let mut state = empty_state();
        for (key, row) in of_catalog.chain(written) {
            let key = RowKey::decode(&key).expect("a key");
            let row = row.map(|row| Row::decode(&key, &row).expect("a row"));
            state.apply(RowChange { key, row });
        }
        state
    }

    /// Only what was durable is left.
    fn crash(&mut self) {
        self.journal.truncate(self.synced);
        self.state = self.read_back();
        self.model = self.saved.clone();
        self.model.restarted(self.steady);
        self.entries = Entries::default();
        let now = self.now();
        for topic in self.state.topics() {
            for (name, row) in &topic.subscriptions {
                let expire = row.expire_ms.map(Duration::from_millis);
                self.entries.follow(topic.id, name, expire, now);
                self.entries.note_pause(topic.id, name, row.paused);
            }
        }
        self.plan = None;
        self.expired.clear();
        self.stale.clear();
        self.seen.note("crashed");
    }

    // --- what is seen ----------------------------------------------------------------------

    fn check(&self) {
        assert_eq!(self.state.topics().count(), self.model.topics.len());
        for (id, model) in &self.model.topics {
            let topic = self.state.topic(*id).expect("it is there");
            let row = &topic.row;
            assert_eq!((row.start.get(), row.end.get()), (model.start, model.end));
            assert_eq!(topic.lowest_position().map(Offset::get), model.lowest());
            let groups = topic.consumers.groups();
            let groups = groups.map(|(name, row)| (name.clone(), row.floor.get()));
            assert_eq!(groups.collect::<BTreeMap<_, _>>(), model.groups);
            assert!(topic.subscriptions.keys().eq(model.subscriptions.keys()));
            for (name, model) in &model.subscriptions {
                self.check_subscription(topic, name, model);
            }
            let moved = model.subscriptions.iter();
            let moved = moved.filter(|(_, of)| !of.history.is_empty());
            assert!(topic.histories.keys().eq(moved.map(|(name, _)| name)));
        }
        self.check_attendance();
    }

    fn check_subscription(&self, topic: &Topic, name: &SubscriptionName, model: &Subscription) {
        let row = topic.subscription(name).expect("it is there");
        let found = (row.generation.get(), row.committed.get());
        assert_eq!(found, (model.generation, model.committed), "{name}");
        assert_eq!(row.created.as_millis(), model.created, "{name}");
        let last_commit = row.last_commit.map(Timestamp::as_millis);
        assert_eq!(last_commit, model.last_commit, "{name}");
        let found = (row.paused, row.expire_ms);
        assert_eq!(found, (model.paused, model.expire_ms), "{name}");
        let history: Vec<Change> = topic.history(name).iter().map(told).collect();
        assert_eq!(history, model.history, "{name}");
    }

    fn check_attendance(&self) {
        let all = || {
            let topics = self.model.topics.iter();
            topics.flat_map(|(id, topic)| topic.subscriptions.iter().map(move |of| (*id, of)))
        };
        let mut found = self.entries.expired(self.now(), usize::MAX);
        found.sort();
        let expired = all().filter(|(_, (_, of))| of.is_expired(self.steady));
        let expired: Vec<_> = expired.map(|(id, (name, _))| (id, name.clone())).collect();
        assert_eq!(found, expired, "who has expired (S4, S5)");
        for name in ["billing", "mail", "map", "audit"] {
            let name: SubscriptionName = name.parse().expect("good");
            let of_name = || all().filter(|(_, (of, _))| **of == name);
            let paused = of_name().filter(|(_, (_, of))| of.paused);
            let paused: BTreeSet<TopicId> = paused.map(|(id, _)| id).collect();
            assert_eq!(self.entries.paused_of(&name), paused, "{name}");
            let expiring = of_name().filter(|(_, (_, of))| of.expire_ms.is_some());
            let expiring: BTreeSet<TopicId> = expiring.map(|(id, _)| id).collect();
            let found: BTreeSet<TopicId> = self.entries.expiring(&name).into_keys().collect();
            assert_eq!(found, expiring, "{name}");
        }
    }
}

/// As it is told.
fn told(change: &crate::protocol::api::PlaceChange) -> Change {
    Change {
        when: change.when.as_millis(),
        kind: change.kind,
        from: change.from.map(Offset::get),
        to: change.to.get(),
        generation: change.generation.get(),
        client: change.author.client.clone(),
    }
}

impl World for Subscribing {
    const STEPS: u64 = 1_000;
    const WANTED: &'static [&'static str] = &[
        "topic deleted",
        "discarded for want of interest",
        "somebody moved back",
        "nobody was left",
        "made",
        "committed",
        "committed while paused",
        "commit refused",
        "moved",
        "moved, and the oldest change forgotten",
        "undone",
        "undone to the nearest",
        "NothingToUndo",
        "StaleGeneration",
        "set",
        "expired",
        "used meanwhile",
        "crashed",
    ];

    fn new(random: Random) -> Self {
        let mut world = Self {
            random,
            state: empty_state(),
            entries: Entries::default(),
            begun: Instant::now(),
            steady: 1_000,
            wall: 1_000_000,
            model: Model::default(),
            made: 0,
            plan: None,
            expired: Vec::new(),
            stale: Vec::new(),
            journal: Vec::new(),
            synced: 0,
            saved: Model::default(),
            catalogs: vec![(0, Rows::new())],
            seen: Seen::default(),
        };
        world.create_topic();
        world
    }

    fn step(&mut self) {
        let dice = self.below(100);
        match (dice, self.any_topic()) {
            (0..2, _) => self.create_topic(),
            (2..8, _) => self.pass_time(),
            (8..11, _) => self.look_for_expired(),
            (11..14, _) => self.expire(),
            (14..16, _) => self.decide(),
            (16..20, _) => self.sync(),
            (20..22, Some(id)) => self.seek(id),
            (22, _) if self.random.one_in(2) => self.crash(),
            (23, Some(id)) if self.random.one_in(4) => self.delete_topic(id),
            (24..34, Some(id)) => self.publish(id),
            (34, Some(id)) if self.random.one_in(3) => self.doubt_end(id),
            (34, Some(id)) => self.discard(id),
            (35..39, Some(id)) => self.plan(id),
            (39..49, Some(id)) => self.create(id),
            (49, Some(id)) if self.random.one_in(3) => self.delete_all(id),
            (49, Some(id)) => self.delete(id),
            (50..68, Some(id)) => self.commit(id),
            (68, Some(id)) if self.random.one_in(4) => (0..15).for_each(|_| self.seek(id)),
            (68..73, Some(id)) => self.seek(id),
            (73..81, Some(id)) => self.undo(id),
            (81..87, Some(id)) => self.set(id),
            (87, Some(id)) if self.random.one_in(3) => self.lose_history(id),
            (88, Some(id)) => self.group(id),
            (89..94, Some(id)) => self.attend(id),
            (94.., Some(id)) => self.leave(id),
            _ => {}
        }
        self.check();
    }

    fn is_full(&self) -> bool {
        self.made > 200
    }

    fn seen(&self) -> Option<&Seen> {
        Some(&self.seen)
    }
}

#[test]
fn subscriptions_are_what_their_model_is() {
    worlds::walk::<Subscribing>(30_000);
}
