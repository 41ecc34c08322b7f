//! Whose turn it is: which topics have readers, and which hosts are asked for ends.

use std::time::{Duration, Instant};

use super::jobs::{self, Outcome, Reading};
use super::topics::{Activity, Place};
use super::{Busy, PatternSubscriber, Phase};
use crate::client::backoff::Backoff;
use crate::client::{Subscriber, SubscriberOptions};
use crate::limits;
use crate::protocol::api::{Position, WatchSubscriptions};
use crate::types::{Offset, TopicId};

impl PatternSubscriber {
    /// Has the next things done.
    pub(super) fn schedule(&mut self) {
        self.ask_index();
        self.ask_hosts();
        self.attend();
        self.fill_slots();
    }

    /// At each host that is there the durable subscriptions are attended: those that read through them are told of a
    /// pause, and the host that they are in use.
    fn attend(&mut self) {
        let Some(name) = &self.options.name else {
            return;
        };
        for (address, host) in &mut self.hosts {
            if host.attending.is_some() || host.topics == 0 || host.is_away() {
                continue;
            }
            let pause = host
                .unattended
                .as_mut()
                .map_or(Duration::ZERO, Backoff::pause);
            let there = self.topics.at(address).into_iter();
            let mut paused: Vec<TopicId> = there
                .filter(|id| self.topics.get(*id).is_some_and(|topic| topic.is_paused))
                .collect();
            paused.sort_unstable();
            paused.truncate(limits::PAUSED_TOLD_MAX);
            let watch = WatchSubscriptions {
                name: name.clone(),
                pattern: self.pattern.clone(),
                paused,
                max_wait_ms: limits::ATTENDANCE_WAIT.as_millis() as u32,
            };
            let (client, address) = (self.client.clone(), address.clone());
            host.attending = Some(self.jobs.spawn(async move {
                let told = jobs::attend(client, &address, watch, pause).await;
                Outcome::Attended(address, told)
            }));
        }
    }

    fn ask_index(&mut self) {
        if self.index.job.is_some() || self.options.until_end {
            return;
        }
        let pause = match &mut self.index.trouble {
            // Peers list everything anew each time, so the more there is the less often.
            Some(trouble) => {
                let pages = 1 + self.topics.len() / limits::PATTERN_LISTED_AT_ONCE;
                trouble.pause() + limits::PATTERN_LIST_EVERY * pages as u32
            }
            None => Duration::ZERO,
        };
        let (client, pattern, version) = (
            self.client.clone(),
            self.pattern.clone(),
            self.index.version,
        );
        let asking =
            async move { Outcome::Found(jobs::discover(client, pattern, (version, pause)).await) };
        self.index.job = Some(self.jobs.spawn(asking).id());
    }

    /// A host is asked which ends move as long as it has topics that nobody reads.
    pub(super) fn ask_hosts(&mut self) {
        for (address, host) in &mut self.hosts {
            let is_of_use = match &host.known {
                None => host.topics > 0,
                Some(_) => host.topics > host.open && !self.options.until_end,
            };
            if host.job.is_some() || !is_of_use {
                continue;
            }
            let suspicion = host.suspicion.as_mut().filter(|_| host.known.is_none());
            let trouble = host.trouble.as_mut().or(suspicion);
            let pause = match (trouble, &host.known) {
                (Some(trouble), _) => trouble.pause(),
                (None, Some(_)) => limits::PATTERN_GATHER,
                (None, None) => Duration::ZERO,
            };
            let (client, pattern) = (self.client.clone(), self.pattern.clone());
            let (address, known) = (address.clone(), host.known.clone());
            host.job = Some(self.jobs.spawn(async move {
                let of = (address.clone(), pattern);
                Outcome::Ends(address, jobs::watch_ends(client, of, known, pause).await)
            }));
        }
    }

    // --- turns ---------------------------------------------------------------

    /// Has a topic wait for its turn, if it has something to be read or found out.
    pub(super) fn enqueue(&mut self, id: TopicId) {
        let Some(topic) = self.topics.get(id) else {
            return;
        };
        // At the start places are found first, when what hosts say of them is known.
        let is_due = match (self.phase, topic.place) {
            (Phase::Hearing, _) => false,
            (Phase::Placing, place) => matches!(place, Place::Wanted(_)),
            (Phase::Following, _) => true,
        };
        if is_due && topic.wants_turn() {
            self.force_turn(id);
        }
    }

    /// The same without knowing whether there is something.
    pub(super) fn force_turn(&mut self, id: TopicId) {
        if self.topics.get(id).map(|topic| topic.activity) == Some(Activity::Resting) {
            self.set_activity(id, Activity::Queued);
            self.queue.push_back(id);
        }
    }

    pub(super) fn set_activity(&mut self, id: TopicId, new: Activity) {
        let Some(topic) = self.topics.get_mut(id) else {
            return;
        };
        if topic.activity == Activity::Stopped {
            return;
        }
        let old = std::mem::replace(&mut topic.activity, new);
        if let Some(host) = self.hosts.get_mut(&topic.host) {
            host.open += usize::from(new == Activity::Working);
            host.open -= usize::from(old == Activity::Working);
        }
    }

    /// Stops whatever is done about a topic. What was read and not handed out is read again.
    pub(super) fn stop_work(&mut self, id: TopicId) {
        if let Some(busy) = self.busy.remove(&id) {
            busy.job.abort();
        }
        if self.turn.as_ref().is_some_and(|turn| turn.id == id) {
            self.turn = None;
        }
        // A place in the queue is passed over when it comes up.
        self.set_activity(id, Activity::Resting);
    }

    fn slots_taken(&self) -> usize {
        self.busy.len() + usize::from(self.turn.is_some())
    }

    /// Gives those who wait their turns, as long as there is room, or somebody who can give up his.
    pub(super) fn fill_slots(&mut self) {
        while let Some(&id) = self.queue.front() {
            let is_due = self.topics.get(id).map(|topic| topic.activity) == Some(Activity::Queued);
            if !is_due {
                self.queue.pop_front();
                continue;
            }
            if self.slots_taken() >= limits::PATTERN_READERS_MAX && !self.take_a_slot() {
                return;
            }
            self.queue.pop_front();
            self.begin(id);
        }
    }

    /// Ends the reader that has waited longest: of those that wait for nothing that is known to be there, or of those
    /// that get nothing although it is.
    fn take_a_slot(&mut self) -> bool {
        let given = self.busy.iter().filter(|(id, busy)| {
            let wants = self
                .topics
                .get(**id)
                .is_some_and(|topic| topic.wants_turn());
            busy.reads && (!wants || busy.since.elapsed() >= limits::PATTERN_TURN_PATIENCE)
        });
        let longest = given.min_by_key(|(_, busy)| busy.since);
        let Some(id) = longest.map(|(id, _)| *id) else {
            return false;
        };
        self.stop_work(id);
        self.enqueue(id);
        true
    }

    fn begin(&mut self, id: TopicId) {
        let Some(topic) = self.topics.get(id) else {
            return;
        };
        if topic.is_doubted {
            let of = (topic.name.clone(), topic.host.clone());
            return self.work_on(id, false, jobs::look(self.client.clone(), id, of));
        }
        let host = self.hosts.get(&topic.host);
        if host.is_none_or(super::Host::is_away) {
            // It is queued again when its host is back.
            return self.set_activity(id, Activity::Resting);
        }
        match topic.place {
            Place::Wanted(position) => {
                let (client, of) = (self.client.clone(), (id, topic.name.clone()));
                let name = self.options.name.clone();
                self.work_on(id, false, async move {
                    Outcome::Placed(id, jobs::place(client, of, name, position).await)
                });
            }
            // It is queued again when it is resumed.
            Place::At(_) if topic.is_paused => self.set_activity(id, Activity::Resting),
            Place::At(from) => self.read_on(id, from, None),
        }
    }

    fn work_on(
        &mut self,
        id: TopicId,
        reads: bool,
        work: impl Future<Output = Outcome> + Send + 'static,
    ) {
        self.set_activity(id, Activity::Working);
        let busy = Busy {
            job: self.jobs.spawn(work),
            since: Instant::now(),
            reads,
        };
        self.busy.insert(id, busy);
    }

    fn read_on(&mut self, id: TopicId, from: Offset, reader: Option<Box<Subscriber>>) {
        let Some(topic) = self.topics.get(id) else {
            return;
        };
        let left = topic.goal.map_or(u64::MAX, |goal| goal.since(from));
        let max = left.clamp(1, limits::PATTERN_TURN_RECORDS as u64) as usize;
        let reading = Reading {
            id,
            name: topic.name.clone(),
            reader,
            options: self.reader_options(from),
            max,
        };
        self.work_on(id, true, jobs::read(self.client.clone(), reading));
    }

    /// Few topics get much at once, many little: all together stay within the same memory.
    fn reader_options(&self, from: Offset) -> SubscriberOptions {
        let readers = self.topics.len().clamp(1, limits::PATTERN_READERS_MAX);
        let each = limits::PATTERN_BYTES / readers;
        SubscriberOptions {
            max_bytes: (each / 2).min(limits::SUBSCRIBER_ANSWER_BYTES_DEFAULT),
            window_bytes: each.min(limits::SUBSCRIBER_WINDOW_BYTES_DEFAULT),
            pass_damage: self.options.pass_damage,
            timeout: Some(limits::NO_PROGRESS_TIMEOUT_DEFAULT),
            ..SubscriberOptions::passing(Position::Offset(from))
        }
    }

    /// All of a turn was handed out: the reader goes on, or makes room for those who wait.
    pub(super) fn end_turn(&mut self) {
        let Some(turn) = self.turn.take() else {
            return;
        };
        let id = turn.id;
        let Some(topic) = self.topics.get(id) else {
            return;
        };
        let Place::At(from) = topic.place else {
            return self.set_activity(id, Activity::Resting);
        };
        let is_done = topic.has_reached_goal();
        let is_full = self.slots_taken() + 1 >= limits::PATTERN_READERS_MAX;
        if is_done || (is_full && !self.queue.is_empty()) {
            self.set_activity(id, Activity::Resting);
            return self.enqueue(id);
        }
        self.read_on(id, from, Some(turn.reader));
    }

    /// Finds out what became of a topic, whose host or index does not know it any more.
    pub(super) fn doubt(&mut self, id: TopicId) {
        self.stop_work(id);
        if let Some(topic) = self.topics.get_mut(id) {
            topic.is_doubted = true;
            self.force_turn(id);
        }
    }
}
