//! The thread that owns the registry.
//!
//! One round: take everything that waits, apply it, write what changed with one
//! sync, show it, answer. Batches form by themselves at the disk's own pace:
//! while one sync runs, commands gather for the next. A round in which nothing
//! durable changed (heartbeats) touches no disk.
//!
//! What takes long (a list of a million topics) is begun by its command and gone on with
//! by one step in every round; its reply is kept until it is done. So the longest
//! that anybody waits for the keeper is two rounds, and a round is bounded by
//! [`limits::INDEX_BATCH_MAX`] commands, [`limits::INDEX_BATCH_TOPICS_MAX`] topics in
//! parts of lists, and a step of [`limits::INDEX_STEP_ENTRIES`] entries. When the server
//! stops, what is not done stays undone; its peer will tell it again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use metrics::Histogram;
use tokio::sync::mpsc::{self, error::TryRecvError};
use tracing::{info, warn};

use super::published::Published;
use crate::catalog::{CatalogError, RegistryStore};
use crate::limits;
use crate::net::Reply;
use crate::protocol::api;
use crate::protocol::error::ApiError;
use crate::registry::rows::{Changes, Layout};
use crate::registry::{Answer, Command, Effects, Event, JobNumber, Millis, Now, State};
use crate::time::Timestamp;

/// A command and who waits for its answer.
pub(super) struct Waiting {
    command: Command,
    reply: Option<Reply>,
}

impl Waiting {
    pub(super) fn new(command: Command, reply: Reply) -> Self {
        Self {
            command,
            reply: Some(reply),
        }
    }

    pub(super) fn unanswered(command: Command) -> Self {
        Self {
            command,
            reply: None,
        }
    }

    /// Topics that applying it has to take in.
    fn topics(&self) -> usize {
        match &self.command {
            Command::RegisterTopics(part) => part.topics.len(),
            _ => 0,
        }
    }

    /// Gives it back without having applied it.
    pub(super) fn refuse(self, error: &ApiError) {
        if let Some(reply) = self.reply {
            reply.error(error);
        }
    }
}

/// Both clocks.
pub(super) struct Clock {
    started: Instant,
}

impl Clock {
    pub(super) fn start() -> Self {
        Self {
            started: Instant::now(),
        }
    }

    pub(super) fn now(&self) -> Now {
        Now {
            ticks: Millis::new(0).after(self.started.elapsed()),
            wall: Timestamp::now(),
        }
    }
}

/// What keeps rows: the store on the disk, or, in tests, one that waits or fails on demand.
pub(super) trait Keep: Send {
    /// Sets and removes rows in one atomic step; returns when that is on the disk.
    fn apply(&mut self, changes: Changes) -> Result<(), CatalogError>;

    /// Why nothing new should be taken in, if it should not.
    fn reserve(&self) -> Result<(), ApiError> {
        Ok(())
    }

    /// Closes the files.
    fn close(self: Box<Self>) -> Result<(), CatalogError>;
}

impl Keep for RegistryStore {
    fn apply(&mut self, changes: Changes) -> Result<(), CatalogError> {
        self.apply(changes.puts, changes.deletes)
    }

    fn reserve(&self) -> Result<(), ApiError> {
        match self.check_space() {
            Err(CatalogError::NoSpace {
                free_bytes,
                needed_bytes,
                ..
            }) => Err(ApiError::DiskReserve {
                free_bytes,
                needed_bytes,
            }),
            // A disk that does not tell will do so when it is written to.
            _ => Ok(()),
        }
    }

    fn close(self: Box<Self>) -> Result<(), CatalogError> {
        (*self).close()
    }
}

/// The registry in memory and on the disk.
pub(super) struct Opened {
    pub(super) state: State,
    pub(super) layout: Layout,
    pub(super) store: Box<dyn Keep>,
    /// What loading found to be written anew.
    pub(super) repairs: Effects,
}

pub(super) struct Keeper {
    state: State,
    layout: Layout,
    store: Box<dyn Keep>,
    repairs: Effects,
    published: Arc<Published>,
    clock: Clock,
    commit: Histogram,
    /// Who waits for the end of a job.
    later: BTreeMap<JobNumber, Reply>,
}

impl Keeper {
    /// A keeper that records with `commit` how long changes take.
    pub(super) fn new(
        opened: Opened,
        published: Arc<Published>,
        (clock, commit): (Clock, Histogram),
    ) -> Self {
        Self {
            state: opened.state,
            layout: opened.layout,
            store: opened.store,
            repairs: opened.repairs,
            published,
            clock,
            commit,
            later: BTreeMap::new(),
        }
    }

    /// Works until nobody can send a command any more, or the store fails.
    pub(super) fn run(&mut self, mut waiting: mpsc::Receiver<Waiting>) -> Result<(), CatalogError> {
        let repairs = std::mem::take(&mut self.repairs);
        self.persist(&repairs)?;
        let mut batch = Vec::new();
        while self.gather(&mut waiting, &mut batch) {
            if let Err(error) = self.round(batch.drain(..)) {
                waiting.close();
                let refusal = ApiError::stopped(&error);
                while let Ok(next) = waiting.try_recv() {
                    next.refuse(&refusal);
                }
                return Err(error);
            }
        }
        Ok(())
    }

    /// Takes what waits; waits for something if there is nothing to go on with. False when nobody can send
    /// anything any more.
    fn gather(&self, waiting: &mut mpsc::Receiver<Waiting>, batch: &mut Vec<Waiting>) -> bool {
        let first = match self.state.has_jobs() {
            false => waiting.blocking_recv(),
            true => match waiting.try_recv() {
                Ok(first) => Some(first),
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => None,
            },
        };
        let Some(first) = first else {
            return false;
        };
        let mut topics = first.topics();
        batch.push(first);
        while batch.len() < limits::INDEX_BATCH_MAX
            && topics < limits::INDEX_BATCH_TOPICS_MAX
            && let Ok(next) = waiting.try_recv()
        {
            topics += next.topics();
            batch.push(next);
        }
        true
    }

    /// Closes the store.
    pub(super) fn close(self) -> Result<(), CatalogError> {
        self.store.close()
    }

    fn round(&mut self, batch: impl Iterator<Item = Waiting>) -> Result<(), CatalogError> {
        let mut effects = Effects::default();
        let mut answers = Vec::new();
        for Waiting { command, reply } in batch {
            // New names are what a full disk can do without; leases, and names that go, are not.
            let refused = match command {
                Command::ClaimTopic(_) => self.store.reserve().err(),
                _ => None,
            };
            let answer = match refused {
                Some(error) => Err(error),
                None => self.state.apply(command, self.clock.now(), &mut effects),
            };
            match (answer, reply) {
                (Ok(Answer::Later(job)), Some(reply)) => drop(self.later.insert(job, reply)),
                (answer, reply) => answers.extend(reply.map(|reply| (reply, answer))),
            }
        }
        self.state.step(self.clock.now(), &mut effects);
        for (job, answer) in std::mem::take(&mut effects.done) {
            let reply = self.later.remove(&job);
            answers.extend(reply.map(|reply| (reply, answer)));
        }
        if let Err(error) = self.persist(&effects) {
            let refusal = ApiError::stopped(&error);
            let answered = answers.into_iter().map(|(reply, _)| reply);
            let later = std::mem::take(&mut self.later).into_values();
            answered
                .chain(later)
                .for_each(|reply| reply.error(&refusal));
            return Err(error);
        }
        self.published.show(&self.state, &effects);
        effects.events.iter().for_each(tell);
        for (reply, answer) in answers {
            send(reply, answer);
        }
        Ok(())
    }

    /// Returns when what changed is on the disk.
    fn persist(&mut self, effects: &Effects) -> Result<(), CatalogError> {
        if effects.need_disk() {
            let began = Instant::now();
            for changes in self.layout.changed(&self.state, effects) {
                self.store.apply(changes)?;
            }
            self.commit.record(began.elapsed().as_secs_f64());
        }
        Ok(())
    }
}

/// Every answer in the form its request asks for.
fn send(reply: Reply, answer: Result<Answer, ApiError>) {
    match answer {
        Ok(Answer::Done(answer)) => reply.send::<api::Heartbeat>(Ok(answer)),
        Ok(Answer::Registered(answer)) => reply.send::<api::RegisterPeer>(Ok(answer)),
        Ok(Answer::RegisteredTopics(answer)) => reply.send::<api::RegisterTopics>(Ok(answer)),
        Ok(Answer::Claimed(answer)) => reply.send::<api::ClaimTopic>(Ok(answer)),
        Ok(Answer::Retired(answer)) => reply.send::<api::RetirePeer>(Ok(answer)),
        Ok(Answer::Placement(answer)) => reply.send::<api::PlaceTopic>(Ok(answer)),
        // Never sent: its reply is kept for the job's own answer. Dropped, it would say that there is none.
        Ok(Answer::Later(_)) => drop(reply),
        Err(error) => reply.error(&error),
    }
}

fn tell(event: &Event) {
    match event {
        Event::Registered { peer, id, address } => {
            info!(%peer, %id, %address, "peer registered");
        }
        Event::Displaced { peer } => warn!(
            %peer,
            "a new process of a peer registered before the lease of the old one ran out; \
             if the old one lives on, its data directory was copied, and it will stop"
        ),
        Event::Listed {
            peer,
            topics,
            conflicts,
            conflicts_untold,
        } => {
            info!(%peer, topics, "peer told its topics");
            for conflict in conflicts.iter().take(limits::CONFLICTS_LOGGED_MAX) {
                let api::Conflict { name, id, holder } = conflict;
                warn!(%peer, topic = %name, %id, %holder, "the name of a stored topic belongs to another");
            }
            let more = conflicts.len().saturating_sub(limits::CONFLICTS_LOGGED_MAX);
            if more + conflicts_untold > 0 {
                warn!(%peer, conflicts = more + conflicts_untold, "and more names belong to others");
            }
        }
        Event::State { peer, state } => match state {
            api::PeerState::Down => warn!(%peer, "peer is down: its lease ran out"),
            api::PeerState::Online => info!(%peer, "peer is online again"),
            api::PeerState::Offline => info!(%peer, "peer went offline"),
        },
        Event::Retired { peer, topics } => {
            info!(%peer, topics, "peer unregistered, its names are free");
        }
    }
}
