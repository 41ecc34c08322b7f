//! What people do to subscriptions: real, and in the model.

use super::*;

impl Subscribing {
    /// A place, where it was found a moment ago, and where that is now.
    pub fn any_place(&mut self, id: TopicId) -> (Position, Offset, u64) {
        let (start, readable) = {
            let topic = &self.model.topics[&id];
            (topic.start, topic.readable)
        };
        let found = self.random.between(start.saturating_sub(3), readable);
        match self.random.one_in(3) {
            true => (Position::Beginning, Offset::new(found), start),
            false => {
                let place = Position::Offset(Offset::new(found));
                (place, Offset::new(found), found)
            }
        }
    }

    pub fn create(&mut self, id: TopicId) {
        let (name, by, expire_ms) = (self.any_name(), self.by(), self.any_expire());
        let (place, found, to) = self.any_place(id);
        let topic = self.state.topic_mut(id).expect("it is there");
        let from = settled(topic, place, found);
        let new = NewSubscription { from, expire_ms };
        let made = topic.create_subscription(&name, new, by.clone());
        let row = topic.subscription(&name).ok().cloned();
        let model = &self.model.topics[&id];
        let mut refused = Vec::new();
        refused.extend((expire_ms == Some(999)).then_some("InvalidArgument"));
        refused.extend(model.subscriptions.get(&name).map(|_| "SubscriptionExists"));
        refused.extend(model.groups.get(&name).map(|_| "ConsumerGroupExists"));
        if !is_made(made, &refused) {
            return;
        }
        let row = row.expect("made just now");
        let generation = self.is_new(id, row.generation);
        let now = self.now();
        self.entries
            .follow(id, &name, expire_ms.map(Duration::from_millis), now);
        self.entries.note_pause(id, &name, row.paused);
        let change = change((ChangeKind::Created, None, to), generation, &by);
        let subscription = Subscription {
            generation,
            committed: to,
            created: self.wall,
            last_commit: None,
            paused: false,
            expire_ms,
            history: vec![change],
            used: self.steady,
            readers: Vec::new(),
        };
        let of_topic = &mut self.model_mut(id).subscriptions;
        of_topic.insert(name.clone(), subscription);
        self.write(subscription_keys(id, &name));
        self.seen.note("made");
    }

    pub fn delete(&mut self, id: TopicId) {
        let name = self.any_name();
        let deleted = self.topic_mut(id).delete_subscription(&name);
        let refused = self.unknown(id, &name);
        if is_made(deleted, &refused) {
            self.forget(id, &name);
        }
    }

    /// All who hold a position go.
    pub fn delete_all(&mut self, any: TopicId) {
        // Of one of which something is to go, if there is one.
        let planned = self.plan.as_ref().map(|plan| plan.id);
        let is_there = |id: &TopicId| self.model.topics.contains_key(id);
        let id = planned.filter(is_there).unwrap_or(any);
        let model = self.model.topics[&id].clone();
        for name in model.subscriptions.into_keys() {
            let deleted = self.topic_mut(id).delete_subscription(&name);
            deleted.expect("it is there");
            self.forget(id, &name);
        }
        for name in model.groups.into_keys() {
            self.delete_group(id, name);
        }
    }

    pub fn delete_group(&mut self, id: TopicId, name: SubscriptionName) {
        let deleted = self.state.delete_consumer_group(id, &name);
        deleted.expect("it is there");
        self.model_mut(id).groups.remove(&name);
        self.write(vec![RowKey::ConsumerGroup(id, name)]);
    }

    pub fn unknown(&self, id: TopicId, name: &SubscriptionName) -> Vec<&'static str> {
        let is_known = self.model.topics[&id].subscriptions.contains_key(name);
        (!is_known)
            .then_some("SubscriptionNotFound")
            .into_iter()
            .collect()
    }

    pub fn forget(&mut self, id: TopicId, name: &SubscriptionName) {
        self.entries.remove(id, name);
        self.entries.note_pause(id, name, false);
        let gone = self.model_mut(id).subscriptions.remove(name);
        let readers = gone.expect("it is there").readers.into_iter();
        self.stale
            .extend(readers.map(|serial| (id, name.clone(), serial)));
        let history = RowKey::History(id, name.clone());
        self.write(vec![RowKey::Subscription(id, name.clone()), history]);
    }

    pub fn commit(&mut self, id: TopicId) {
        let (any, wall) = (self.any_name(), self.wall);
        let is_slowest = self.random.one_in(2);
        let model = &self.model.topics[&id];
        let slowest = model.subscriptions.iter();
        let slowest = slowest.min_by_key(|(_, of)| of.committed);
        let name = match slowest.filter(|_| is_slowest) {
            Some((name, _)) => name.clone(),
            None => any,
        };
        let known = model.subscriptions.get(&name).cloned();
        let (end, readable) = (model.end, model.readable);
        let all: Vec<u64> = model.generations.iter().copied().collect();
        let generation = match (&known, self.below(6)) {
            (Some(known), 1..) => known.generation,
            _ => self.random.of(&all).copied().unwrap_or(7),
        };
        let from = known.as_ref().map_or(0, |known| known.committed);
        let offset = match self.below(4) {
            0 => self.below(end + 4),
            _ => from.saturating_add(self.below(8)).saturating_sub(1),
        };
        let facts = CommitFacts {
            generation: Generation::new(generation),
            offset: Offset::new(offset),
            readable_end: Offset::new(readable),
        };
        let committed = self
            .topic_mut(id)
            .commit(&name, facts, Timestamp::from_millis(wall));
        let mut refused = self.unknown(id, &name);
        if let Some(known) = &known {
            refused.extend((known.generation != generation).then_some("StaleGeneration"));
            refused.extend((offset > readable).then_some("CommitPastEnd"));
        }
        let answer = committed.as_ref().ok().copied();
        if !is_made(committed, &refused) {
            return self.seen.note("commit refused");
        }
        let (steady, now) = (self.steady, self.now());
        let model = self.model_mut(id).subscriptions.get_mut(&name);
        let model = model.expect("it is there");
        let moves = offset > model.committed;
        if moves {
            (model.committed, model.last_commit) = (offset, Some(wall));
        }
        let expected = (Offset::new(model.committed), moves);
        assert_eq!(answer, Some(expected), "a commit of {offset}");
        model.used = steady;
        let is_paused = model.paused;
        self.entries.used(id, &name, now);
        if moves {
            self.write(vec![RowKey::Subscription(id, name)]);
            self.seen.note(match is_paused {
                true => "committed while paused",
                false => "committed",
            });
        }
    }

    pub fn seek(&mut self, id: TopicId) {
        let (name, by) = (self.any_name(), self.by());
        let (place, found, to) = self.any_place(id);
        let topic = self.topic_mut(id);
        let offset = settled(topic, place, found);
        let from = topic.seek(&name, offset, by.clone());
        let refused = self.unknown(id, &name);
        if is_made(from, &refused) {
            self.moved(id, &name, (ChangeKind::Seek, to, &by));
        }
    }

    /// A subscription was put elsewhere.
    pub fn moved(
        &mut self,
        id: TopicId,
        name: &SubscriptionName,
        (kind, to, by): (ChangeKind, u64, &Authored),
    ) {
        let row = self.state.topic(id).expect("there").subscription(name);
        let generation = row.expect("it is there").generation;
        let generation = self.is_new(id, generation);
        let (steady, now) = (self.steady, self.now());
        let of_topic = &mut self.model_mut(id).subscriptions;
        let model = of_topic.get_mut(name).expect("it is there");
        let from = Some(model.committed);
        let before = model.history.len();
        model.moved(change((kind, from, to), generation, by));
        let is_forgotten = model.history.len() == before;
        model.used = steady;
        self.entries.used(id, name, now);
        self.write(subscription_keys(id, name));
        self.seen.note(match is_forgotten {
            true => "moved, and the oldest change forgotten",
            false => "moved",
        });
    }

    pub fn undo(&mut self, id: TopicId) {
        let (name, by) = (self.any_name(), self.by());
        let model = &self.model.topics[&id];
        let known = model.subscriptions.get(&name).cloned();
        let generation = match (&known, self.below(4)) {
            (_, 0) => Some(self.below(9)),
            (Some(known), 1) => Some(known.generation),
            _ => None,
        };
        let model = &self.model.topics[&id];
        let (expected, readable) = (model.undone(&name, generation), model.readable);
        let topic = self.state.topic_mut(id).expect("it is there");
        let given = generation.map(Generation::new);
        let plan = topic.plan_undo(&name, given, Offset::new(readable));
        let (plan, to) = match (plan, expected) {
            (Ok(plan), Ok(to)) => (plan, to),
            (Err(error), Err(expected)) => {
                assert_eq!(error.name(), expected);
                return self.seen.note(expected);
            }
            (found, expected) => panic!("{found:?} for {expected:?}"),
        };
        let known = known.expect("it is there");
        assert_eq!((plan.from.get(), plan.to.get()), (known.committed, to));
        let last = known.history.last().expect("it was moved");
        assert_eq!(&told(&plan.change), last);
        // A dry run only tells.
        if self.random.one_in(4) {
            return;
        }
        self.topic_mut(id).undo(&name, &plan, by.clone());
        self.moved(id, &name, (ChangeKind::Undo, to, &by));
        self.seen.note("undone");
        let is_elsewhere = last.from != Some(to);
        if is_elsewhere {
            self.seen.note("undone to the nearest");
        }
    }

    pub fn set(&mut self, id: TopicId) {
        let name = self.any_name();
        let changes = SubscriptionChanges {
            paused: [None, Some(true), Some(false)][self.below(3) as usize],
            expire_ms: self.random.one_in(3).then(|| self.any_expire()),
        };
        let bad = changes.expire_ms == Some(Some(999));
        let set = self.topic_mut(id).set_subscription(&name, changes);
        let mut refused = self.unknown(id, &name);
        refused.extend((refused.is_empty() && bad).then_some("InvalidArgument"));
        let answer = set.as_ref().ok().copied();
        if !is_made(set, &refused) {
            return;
        }
        let row = self.state.topic(id).expect("there").subscription(&name);
        let row = row.expect("it is there").clone();
        let (steady, now) = (self.steady, self.now());
        self.entries
            .follow(id, &name, row.expire_ms.map(Duration::from_millis), now);
        self.entries.note_pause(id, &name, row.paused);
        let of_topic = &mut self.model_mut(id).subscriptions;
        let model = of_topic.get_mut(&name).expect("it is there");
        let before = (model.paused, model.expire_ms);
        model.paused = changes.paused.unwrap_or(model.paused);
        model.expire_ms = changes.expire_ms.unwrap_or(model.expire_ms);
        model.used = steady;
        let is_changed = before != (model.paused, model.expire_ms);
        assert_eq!(answer, Some(is_changed));
        if is_changed {
            self.write(vec![RowKey::Subscription(id, name)]);
            self.seen.note("set");
        }
    }

    /// It is of a store of the time before there were histories.
    pub fn lose_history(&mut self, id: TopicId) {
        let name = self.any_name();
        self.topic_mut(id).histories.remove(&name);
        if let Some(model) = self.model_mut(id).subscriptions.get_mut(&name) {
            model.history.clear();
        }
        self.write(vec![RowKey::History(id, name)]);
    }

    /// Groups hold positions as well.
    pub fn group(&mut self, id: TopicId) {
        // One of the names may be a subscription's.
        let name = ["audit", "workers"][self.below(2) as usize];
        let name: SubscriptionName = name.parse().expect("good");
        let (place, found, to) = self.any_place(id);
        let now = Timestamp::from_millis(self.wall);
        let known = self.model.topics[&id].groups.get(&name).copied();
        let topic = self.state.topic(id).expect("it is there");
        let from = settled(topic, place, found);
        match (known, self.below(3)) {
            (None, _) => {
                let changes = ConsumerGroupChanges::default();
                let made = self
                    .state
                    .create_consumer_group(id, &name, (from, changes, now));
                let is_taken = self.unknown(id, &name).is_empty();
                assert_eq!(made.is_err(), is_taken, "one name for both");
                if is_taken {
                    return;
                }
            }
            (Some(_), 0) => {
                return self.delete_group(id, name);
            }
            (Some(_), _) => {
                let moved = self.state.seek_consumer_group(id, &name, from);
                moved.expect("it is there");
            }
        }
        let row = self.state.topic(id).expect("there").consumer_group(&name);
        let generation = row.expect("it is there").generation;
        self.is_new(id, generation);
        self.model_mut(id).groups.insert(name.clone(), to);
        self.write(vec![RowKey::Topic(id), RowKey::ConsumerGroup(id, name)]);
    }
}

/// Whether it was done; if not it is refused for one of these reasons, and if it is, for none.
fn is_made<T: std::fmt::Debug>(answer: Result<T, ApiError>, refused: &[&str]) -> bool {
    match answer {
        Ok(answer) => {
            assert!(refused.is_empty(), "{answer:?}, though {refused:?}");
            true
        }
        Err(error) => {
            let name = error.name();
            assert!(refused.contains(&name), "{error}, not {refused:?}");
            false
        }
    }
}

fn change(
    (kind, from, to): (ChangeKind, Option<u64>, u64),
    generation: u64,
    by: &Authored,
) -> Change {
    Change {
        when: by.when.as_millis(),
        kind,
        from,
        to,
        generation,
        client: by.author.client.clone(),
    }
}
