//! What jobs came back with, and what follows from it.

use tokio::task::Id;

use super::jobs::{Discovery, Ends, Looked, Outcome, Placed};
use super::topics::{Activity, News, Place};
use super::{Host, PatternEvent, PatternSubscriber, Phase, Turn};
use crate::client::backoff::Backoff;
use crate::client::{ClientError, Delivery, Subscriber};
use crate::limits;
use crate::protocol::api::{Changes, Position, TopicLocation};
use crate::protocol::error::ApiError;
use crate::types::{Address, Gap, GapReason, Offset, TopicId};

impl Host {
    pub(super) fn new(location: &TopicLocation) -> Self {
        Self {
            name: location.peer_name.clone(),
            known: None,
            job: None,
            attending: None,
            unattended: None,
            trouble: None,
            suspicion: None,
            topics: 0,
            open: 0,
        }
    }

    pub(super) fn is_away(&self) -> bool {
        self.trouble.is_some()
    }
}

impl PatternSubscriber {
    /// Takes in what a job came back with, unless nobody waits for it any more.
    pub(super) fn settle(&mut self, job: Id, outcome: Outcome) {
        match outcome {
            Outcome::Found(discovery) if self.index.job == Some(job) => {
                self.index.job = None;
                self.discovered(discovery);
            }
            Outcome::Ends(address, told) => {
                let host = self.hosts.get_mut(&address);
                let current = host.filter(|host| host.job.as_ref().is_some_and(|j| j.id() == job));
                if let Some(host) = current {
                    host.job = None;
                    self.heard(&address, told);
                }
            }
            Outcome::Attended(address, told) => {
                let host = self.hosts.get_mut(&address);
                let current =
                    host.filter(|host| host.attending.as_ref().is_some_and(|j| j.id() == job));
                if let Some(host) = current {
                    host.attending = None;
                    self.attended(&address, told);
                }
            }
            Outcome::Found(_) => {}
            Outcome::Placed(id, told) if self.frees(id, job) => self.placed(id, told),
            Outcome::Read(id, reader, found) if self.frees(id, job) => self.read(id, reader, found),
            Outcome::Away(id) if self.frees(id, job) => {
                self.set_activity(id, Activity::Resting);
                self.suspect_host_of(id);
            }
            Outcome::NotOpened(id, error) if self.frees(id, job) => self.trouble_with(id, error),
            Outcome::Looked(id, found) if self.frees(id, job) => self.looked(id, found),
            Outcome::Placed(..)
            | Outcome::Read(..)
            | Outcome::Away(_)
            | Outcome::NotOpened(..)
            | Outcome::Looked(..) => {}
        }
    }

    /// Whether this is the job that works on the topic; it is done now.
    fn frees(&mut self, id: TopicId, job: Id) -> bool {
        let is_current = self.busy.get(&id).is_some_and(|busy| busy.job.id() == job);
        is_current && self.busy.remove(&id).is_some()
    }

    // --- which topics --------------------------------------------------------

    fn discovered(&mut self, discovery: Discovery) {
        let answered = matches!(discovery, Discovery::All(..) | Discovery::Changed(_));
        match answered {
            true => self.index.trouble = None,
            false => _ = self.index.trouble.get_or_insert_with(Backoff::new),
        }
        match discovery {
            Discovery::All(version, all) => {
                self.index.version = Some(version);
                self.take_in_late(&all);
                self.index.knows_all = true;
            }
            Discovery::Changed(changes) => self.changed(changes),
            // Whoever tells less than everything has not said that the rest is gone, nor whose a name is.
            Discovery::Some(mut some) => {
                let is_new = |found: &TopicLocation| {
                    let known = self.topics.id_of(&found.name);
                    known.is_none_or(|id| id == found.id)
                };
                some.retain(is_new);
                self.take_in_late(&some);
            }
            Discovery::Nothing => {}
        }
    }

    fn take_in_late(&mut self, found: &[TopicLocation]) {
        let place = self.place_of_late();
        for location in found {
            if self.take_in(location, place) {
                self.note(PatternEvent::Found(location.name.clone()));
            }
        }
    }

    fn changed(&mut self, changes: Changes) {
        self.index.version = Some(changes.version);
        self.take_in_late(&changes.changed);
        for name in &changes.dropped {
            // A name that is gone may be one that a topic had before.
            if let Some(id) = self.topics.id_of(name) {
                self.doubt(id);
            }
        }
    }

    /// Follows a topic, or takes over where it is and what it is called now. Returns whether it is new.
    pub(super) fn take_in(&mut self, location: &TopicLocation, place: Position) -> bool {
        let id = location.id;
        if let Some(other) = self.topics.id_of(&location.name)
            && other != id
        {
            self.let_go(other);
        }
        if let Some(known) = self.topics.get(id) {
            let before = known.host.clone();
            if known.name == location.name && before == location.address {
                return false;
            }
            // Whatever reads it reads under the old name, or at the old place.
            self.stop_work(id);
            if let Some(old) = self.hosts.get_mut(&before) {
                old.topics -= 1;
            }
            // Where nothing is any more, nothing is missed.
            self.tell_away();
        }
        let news = self.topics.see(location, place);
        self.client.cluster.learn(location.clone());
        let entry = self.hosts.entry(location.address.clone());
        entry.or_insert_with(|| Host::new(location)).topics += 1;
        // A host that told of its topics before did so without this one.
        let is_told_of = self.hosts.get(&location.address);
        if is_told_of.is_some_and(|host| host.known.is_some() && !host.is_away()) {
            self.force_turn(id);
        }
        news == News::New
    }

    /// Follows a topic no longer.
    fn let_go(&mut self, id: TopicId) {
        self.stop_work(id);
        let Some(gone) = self.topics.remove(id) else {
            return;
        };
        if let Some(host) = self.hosts.get_mut(&gone.host) {
            host.topics -= 1;
        }
        self.tell_away();
        self.dirty.remove(&id);
        self.unreached = self.unreached.saturating_sub(usize::from(!gone.is_counted));
        self.note(PatternEvent::Gone(gone.name));
    }

    fn looked(&mut self, id: TopicId, found: Looked) {
        self.set_activity(id, Activity::Resting);
        if let Some(topic) = self.topics.get_mut(id) {
            topic.is_doubted = false;
        }
        let (found, is_there) = found;
        match found {
            Ok(location) if location.id == id => {
                self.take_in(&location, Position::Beginning);
                if is_there {
                    self.enqueue(id);
                }
            }
            Ok(other) => {
                self.let_go(id);
                // What has to end counts the topics of its start, and leaves others to the next time.
                let is_late = self.options.until_end && self.phase == Phase::Following;
                let is_wanted = self.pattern.matches(&other.name) && !is_late;
                if is_wanted && self.take_in(&other, Position::Beginning) {
                    self.note(PatternEvent::Found(other.name));
                }
            }
            Err(ClientError::Api(ApiError::TopicNotFound { .. })) => self.let_go(id),
            // Nobody knows: it is looked for again when its host tells of its topics.
            Err(_) => {}
        }
    }

    fn note(&mut self, note: PatternEvent) {
        let has_room = match note {
            // What is there at the start is no news; that it is paused is.
            PatternEvent::Found(_) | PatternEvent::Gone(_) => {
                self.phase == Phase::Following && self.notes.len() < limits::PATTERN_NOTES_MAX
            }
            PatternEvent::Paused(_) | PatternEvent::Resumed(_) => {
                self.notes.len() < limits::PATTERN_NOTES_MAX
            }
            _ => true,
        };
        if has_room {
            self.notes.push_back(note);
        }
    }

    // --- hosts ---------------------------------------------------------------

    /// Takes in where a host says its topics end, or that it does not.
    pub(super) fn heard(&mut self, address: &Address, told: Result<Ends, ClientError>) {
        let told = match told {
            Ok(told) => told,
            Err(_) => return self.lose_host(address),
        };
        let Some(host) = self.hosts.get_mut(address) else {
            return;
        };
        host.known = Some((told.connection, told.version));
        if host.trouble.take().is_some() {
            self.tell_away();
        }
        // A passing place is found here; a durable one is where its subscription is.
        let finds = told.all && self.options.name.is_none();
        let mut silent: std::collections::HashSet<TopicId> = match told.all {
            true => self.topics.at(address).into_iter().collect(),
            false => Default::default(),
        };
        for end in &told.ends {
            silent.remove(&end.id);
            if let Some(topic) = self.topics.get_mut(end.id) {
                topic.learn_end(end, finds);
                self.set_goal(end.id);
                self.enqueue(end.id);
            }
        }
        for id in silent {
            self.doubt(id);
        }
    }

    /// Something failed at the host of a topic: it is asked anew for all ends, and says by that what is to be gone on
    /// with, or nothing. One topic may fail alone, so others are not disturbed.
    pub(super) fn suspect_host_of(&mut self, id: TopicId) {
        if let Some(topic) = self.topics.get(id)
            && let Some(host) = self.hosts.get_mut(&topic.host)
            && host.known.take().is_some()
        {
            if let Some(job) = host.job.take() {
                job.abort();
            }
            host.suspicion.get_or_insert_with(Backoff::new);
        }
    }

    /// A host is away: nobody waits for it but the one job that asks for its ends.
    fn lose_host(&mut self, address: &Address) {
        let Some(host) = self.hosts.get_mut(address) else {
            return;
        };
        host.known = None;
        if let Some(job) = host.job.take() {
            job.abort();
        }
        let is_news = host.trouble.is_none();
        host.trouble.get_or_insert_with(Backoff::new);
        let busy = self.busy.keys().copied();
        let there = busy.filter(|id| self.topics.get(*id).is_some_and(|t| t.host == *address));
        let there: Vec<TopicId> = there.collect();
        there.into_iter().for_each(|id| self.stop_work(id));
        if is_news {
            self.tell_away();
        }
    }

    pub(super) fn tell_away(&self) {
        let away = self.hosts.values();
        let away = away.filter(|host| host.is_away() && host.topics > 0);
        let mut names: Vec<_> = away.map(|host| host.name.clone()).collect();
        names.sort();
        names.dedup();
        self.away.send_if_modified(|told| {
            let is_news = *told != names;
            *told = names;
            is_news
        });
    }

    /// Takes in on which topics of a host the subscription is paused; what fails is asked again.
    fn attended(&mut self, address: &Address, told: Result<Vec<TopicId>, ClientError>) {
        let Some(host) = self.hosts.get_mut(address) else {
            return;
        };
        let paused: std::collections::HashSet<TopicId> = match told {
            Ok(paused) => paused.into_iter().collect(),
            Err(_) => {
                host.unattended.get_or_insert_with(Backoff::new);
                return;
            }
        };
        host.unattended = None;
        for id in self.topics.at(address) {
            self.pause(id, paused.contains(&id));
        }
    }

    /// The subscription on a topic is paused, or not.
    pub(super) fn pause(&mut self, id: TopicId, is_paused: bool) {
        let Some(topic) = self.topics.get_mut(id) else {
            return;
        };
        if std::mem::replace(&mut topic.is_paused, is_paused) == is_paused {
            return;
        }
        let name = topic.name.clone();
        match is_paused {
            true => {
                // What was brought and not handed out is read again.
                if !topic.is_doubted && matches!(topic.place, Place::At(_)) {
                    self.stop_work(id);
                }
                self.note(PatternEvent::Paused(name));
            }
            false => {
                self.note(PatternEvent::Resumed(name));
                self.force_turn(id);
            }
        }
    }

    // --- one topic -----------------------------------------------------------

    fn placed(&mut self, id: TopicId, told: Result<Placed, ClientError>) {
        self.set_activity(id, Activity::Resting);
        match told {
            Ok(Placed::Durable(found)) => self.go_on(id, &found),
            Ok(Placed::Passing(offset, end)) => {
                if let Some(topic) = self.topics.get_mut(id) {
                    topic.place = Place::At(offset);
                    topic.end = topic.end.max(end);
                }
            }
            Err(error) => return self.trouble_with(id, error),
        }
        self.set_goal(id);
        self.enqueue(id);
    }

    fn read(
        &mut self,
        id: TopicId,
        reader: Box<Subscriber>,
        found: Result<Vec<Delivery>, ClientError>,
    ) {
        let deliveries = match found {
            Ok(deliveries) => deliveries,
            Err(error) => return self.trouble_with(id, error),
        };
        if let Some(topic) = self.topics.get_mut(id) {
            if let Some(host) = self.hosts.get_mut(&topic.host) {
                host.suspicion = None;
            }
            topic.end = topic.end.max(reader.end_offset());
            let goal = topic.goal.unwrap_or(Offset::new(u64::MAX));
            let is_wanted = |delivery: &Delivery| match delivery {
                Delivery::Record(record) => record.offset < goal,
                Delivery::Gap(gap) => gap.from < goal,
            };
            let wanted = deliveries.into_iter().take_while(is_wanted).collect();
            if self.turn.is_some() {
                // Somebody else's is not over: this one is read again.
                self.set_activity(id, Activity::Resting);
                return self.enqueue(id);
            }
            self.turn = Some(Turn {
                id,
                topic: topic.name.clone(),
                deliveries: wanted,
                reader,
            });
        }
    }

    /// What a failure means for a topic.
    pub(super) fn trouble_with(&mut self, id: TopicId, error: ClientError) {
        self.set_activity(id, Activity::Resting);
        match error {
            ClientError::Api(ApiError::UnknownTopicId { .. } | ApiError::TopicNotFound { .. }) => {
                self.doubt(id);
            }
            ClientError::Api(ApiError::OffsetOutOfRange {
                requested, start, ..
            }) if requested < start => self.overtaken(id, start),
            error if is_away(&error) => self.suspect_host_of(id),
            error => self.give_up(id, error),
        }
    }

    pub(super) fn give_up(&mut self, id: TopicId, error: ClientError) {
        self.stop_work(id);
        self.set_activity(id, Activity::Stopped);
        if let Some(topic) = self.topics.get_mut(id) {
            let was_counted = std::mem::replace(&mut topic.is_counted, true);
            let topic = topic.name.clone();
            self.unreached = self.unreached.saturating_sub(usize::from(!was_counted));
            self.note(PatternEvent::Failed { topic, error });
        }
    }

    /// Retention has discarded what came next while nobody read: a gap like any other.
    fn overtaken(&mut self, id: TopicId, start: Offset) {
        let Some(topic) = self.topics.get_mut(id) else {
            return;
        };
        let Place::At(from) = topic.place else {
            return;
        };
        let gap = Gap {
            from,
            to: start,
            reason: GapReason::Discarded,
        };
        topic.place = Place::At(start);
        let deliveries = vec![Delivery::Gap(gap)];
        let topic = topic.name.clone();
        if self.options.name.is_some() {
            self.dirty.insert(id);
        }
        self.notes
            .push_back(PatternEvent::Deliveries(super::TopicDeliveries {
                topic,
                id,
                deliveries,
            }));
        self.count_reached(id);
        self.enqueue(id);
    }

    /// In what has to end, a topic ends where it does now.
    pub(super) fn set_goal(&mut self, id: TopicId) {
        if !self.options.until_end || self.phase != Phase::Following {
            return;
        }
        if let Some(topic) = self.topics.get_mut(id)
            && topic.goal.is_none()
            && matches!(topic.place, Place::At(_))
        {
            topic.goal = Some(topic.end);
            self.count_reached(id);
        }
    }

    /// Counts a topic that has reached its goal, once.
    pub(super) fn count_reached(&mut self, id: TopicId) {
        if let Some(topic) = self.topics.get_mut(id)
            && !topic.is_counted
            && topic.has_reached_goal()
        {
            topic.is_counted = true;
            self.unreached = self.unreached.saturating_sub(1);
        }
    }
}

/// Whether a failure only means that the host is not there now.
pub(super) fn is_away(error: &ClientError) -> bool {
    error.is_retryable()
        || matches!(
            error,
            ClientError::Unreachable { .. }
                | ClientError::OutcomeUnknown { .. }
                | ClientError::TimedOut { .. }
                | ClientError::Api(ApiError::Unanswered | ApiError::Displaced)
        )
}
