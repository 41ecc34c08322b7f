//! Following all topics whose names match a pattern, wherever they are and whenever they are made.
//!
//! ```text
//!   index ── which topics, where ──► Topics ◄── whose ends moved ── each peer that hosts some
//!                                      │ those with more to read, in the order of their turns
//!                                      ▼
//!                      readers, so many at once ──► one turn after the other ──► the application
//! ```
//!
//! Ten thousand topics are not ten thousand readers. A bounded number of topics
//! has a [`Subscriber`] each; of the others it is only known where reading stands
//! and where they end, and each peer tells with one waiting request which ends
//! moved ([`WatchEnds`](crate::protocol::api::WatchEnds)). A topic that has more
//! gets a reader when its turn comes, in the place of one that waits for nothing
//! if need be. While there are no more topics than readers each keeps its own, and
//! a record comes as directly as from a subscriber of that topic.
//!
//! One task follows: the caller's, inside [`PatternSubscriber::next_event`]. Jobs
//! ask and wait beside it and hold nothing that is lost with them.
//!
//! Invariants:
//!
//! 1. Of each topic records and gaps are handed out in order, none twice, none left
//!    out: a reader always begins where handing out stands.
//! 2. A turn is bounded, and whoever has more waits behind all who wait: a busy
//!    topic does not keep others from being read.
//! 3. Memory is bounded by the number of readers, but for about a kibibyte a topic.
//! 4. What is followed is let go of only when its host does not know it any more,
//!    or when its name belongs to another. That the index is silent, or knows
//!    less than before, ends nothing.
//! 5. While the durable subscription on a topic is known to be paused nothing of that topic is handed out.
//! 6. A topic that is made later begins at its beginning. One that was there at the
//!    start and could not be reached then begins where it would have: at the end
//!    means at the time of the start.

mod commits;
mod events;
mod jobs;
mod schedule;
mod start;
mod topics;

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::{AbortHandle, Id, JoinSet};

use crate::client::backoff::Backoff;
use crate::client::{Client, ClientError, Delivery, Subscriber};
use crate::limits;
use crate::net::Connection;
use crate::protocol::api::Position;
use crate::time::Timestamp;
use crate::types::{Address, Offset, PeerName, SubscriptionName, TopicId, TopicName, TopicPattern};
use jobs::Outcome;
use topics::{Place, Topics};

/// How to follow topics.
#[derive(Debug, Clone, Default)]
pub struct PatternOptions {
    /// Read each topic through its durable subscription of this name, which is made if the topic has none; without a
    /// name no place is kept.
    pub name: Option<SubscriptionName>,
    /// Where topics that are there at the start begin, if they have no such subscription; at the end if not told.
    /// An offset that a topic does not hold is the nearest that it holds.
    pub from: Option<Position>,
    /// Stop where the topics that are there at the start end then.
    pub until_end: bool,
    /// Pass over damaged records with a gap instead of giving the topic up.
    pub pass_damage: bool,
    /// How long a peer may be away before what has to end ([`until_end`](Self::until_end)) fails; the client's
    /// timeout if not told. What need not end waits for as long as it takes.
    pub timeout: Option<Duration>,
}

/// What a pattern's subscriber is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PatternEvent {
    /// The next of one topic.
    Deliveries(TopicDeliveries),
    /// A topic that was not there at the start is followed from now on.
    Found(TopicName),
    /// A topic is followed no longer: it was deleted, or has another name.
    Gone(TopicName),
    /// Somebody moved the durable subscription on this topic; reading goes on there.
    Moved {
        /// The topic.
        topic: TopicName,
        /// Where it goes on.
        offset: Offset,
    },
    /// The durable subscription on this topic is paused: nothing of it is handed out until it is resumed.
    Paused(TopicName),
    /// It is resumed.
    Resumed(TopicName),
    /// This topic cannot be read on. The others can.
    Failed {
        /// The topic.
        topic: TopicName,
        /// Why.
        error: ClientError,
    },
    /// Everything that was to be read was handed out.
    Ended,
}

/// Records and gaps of one topic, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicDeliveries {
    /// The topic's name.
    pub topic: TopicName,
    /// Its id.
    pub id: TopicId,
    /// At least one.
    pub deliveries: Vec<Delivery>,
}

/// How following began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PatternStart {
    /// Topics that matched.
    pub topics: usize,
    /// Those of them with a subscription of the name.
    pub resumed: usize,
    /// Those of them whose peers could not be reached.
    pub away: usize,
}

/// Reads all topics that match. Made by [`Client::pattern_subscriber`].
///
/// ```no_run
/// # async fn example(client: tidings::client::Client) -> Result<(), Box<dyn std::error::Error>> {
/// use tidings::client::{PatternEvent, PatternOptions};
///
/// let options = PatternOptions {
///     name: Some("billing".parse()?),
///     ..PatternOptions::default()
/// };
/// let mut orders = client.pattern_subscriber(&"orders.>".parse()?, options).await?;
/// loop {
///     if let PatternEvent::Deliveries(some) = orders.next_event(1_000).await? {
///         println!("{} of {}", some.deliveries.len(), some.topic);
///         orders.commit().await?;
///     }
/// }
/// # }
/// ```
#[derive(Debug)]
pub struct PatternSubscriber {
    client: Client,
    pattern: TopicPattern,
    options: PatternOptions,
    /// When following began; with a durable subscription, when its name was first used on one of the topics.
    since: Timestamp,
    started: PatternStart,
    phase: Phase,
    topics: Topics,
    hosts: HashMap<Address, Host>,
    /// Topics that wait for their turn.
    queue: VecDeque<TopicId>,
    jobs: JoinSet<Outcome>,
    /// What works on which topic.
    busy: HashMap<TopicId, Busy>,
    index: Index,
    turn: Option<Turn>,
    notes: VecDeque<PatternEvent>,
    /// Topics of which more was handed out than is committed.
    dirty: HashSet<TopicId>,
    /// Topics that have not reached their goals.
    unreached: usize,
    away: watch::Sender<Vec<PeerName>>,
}

/// How far it has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Hosts say where topics end, and where subscriptions stand.
    Hearing,
    /// Places are found that are not known by that.
    Placing,
    /// It has begun.
    Following,
}

/// What is known from the index.
#[derive(Debug, Default)]
struct Index {
    version: Option<u64>,
    /// Everything was told at least once: what is new is really new.
    knows_all: bool,
    job: Option<Id>,
    trouble: Option<Backoff>,
}

/// A peer that hosts topics which match.
#[derive(Debug)]
struct Host {
    name: PeerName,
    /// The connection on which it told of ends, and up to which version.
    known: Option<(Connection, u64)>,
    job: Option<AbortHandle>,
    /// Tells on which of its topics the durable subscription is paused.
    attending: Option<AbortHandle>,
    /// That failed lately.
    unattended: Option<Backoff>,
    /// It is away, since when.
    trouble: Option<Backoff>,
    /// Something there failed, and it is asked whether it is away.
    suspicion: Option<Backoff>,
    topics: usize,
    /// Topics with a job or a reader.
    open: usize,
}

/// A job that works on a topic.
#[derive(Debug)]
struct Busy {
    job: AbortHandle,
    since: Instant,
    /// It waits for records; otherwise it finds something out.
    reads: bool,
}

/// What one topic's reader brought, as far as it was not handed out.
#[derive(Debug)]
struct Turn {
    id: TopicId,
    topic: TopicName,
    deliveries: VecDeque<Delivery>,
    reader: Box<Subscriber>,
}

impl Client {
    /// Follows all topics that match. Returns when the place of each is known whose peer can be reached: what is
    /// published from then on is handed out.
    pub async fn pattern_subscriber(
        &self,
        pattern: &TopicPattern,
        options: PatternOptions,
    ) -> Result<PatternSubscriber, ClientError> {
        let mut subscriber = PatternSubscriber::new(self.clone(), pattern.clone(), options);
        subscriber.start().await?;
        Ok(subscriber)
    }
}

impl PatternSubscriber {
    fn new(client: Client, pattern: TopicPattern, options: PatternOptions) -> Self {
        Self {
            client,
            pattern,
            options,
            since: Timestamp::now(),
            started: PatternStart::default(),
            phase: Phase::Hearing,
            topics: Topics::default(),
            hosts: HashMap::new(),
            queue: VecDeque::new(),
            jobs: JoinSet::new(),
            busy: HashMap::new(),
            index: Index::default(),
            turn: None,
            notes: VecDeque::new(),
            dirty: HashSet::new(),
            unreached: 0,
            away: watch::Sender::new(Vec::new()),
        }
    }

    /// How it began.
    pub fn started(&self) -> PatternStart {
        self.started
    }

    /// Topics that are followed now.
    pub fn topics(&self) -> usize {
        self.topics.len()
    }

    /// Topics that are being read now.
    pub fn readers(&self) -> usize {
        self.busy.values().filter(|busy| busy.reads).count()
    }

    /// The peers that host topics which match and cannot be reached, as that changes.
    pub fn watch_away(&self) -> watch::Receiver<Vec<PeerName>> {
        self.away.subscribe()
    }

    /// Waits for the next record or gap of any topic.
    ///
    /// # Errors
    /// A topic that cannot be read on, and `Closed` at the end of what was to be read. The next call goes on.
    pub async fn next(&mut self) -> Result<(TopicName, Delivery), ClientError> {
        loop {
            match self.next_event(1).await? {
                PatternEvent::Deliveries(mut some) => {
                    if let Some(delivery) = some.deliveries.pop() {
                        return Ok((some.topic, delivery));
                    }
                }
                PatternEvent::Failed { error, .. } => return Err(error),
                PatternEvent::Ended => return Err(ClientError::Closed),
                PatternEvent::Found(_)
                | PatternEvent::Gone(_)
                | PatternEvent::Moved { .. }
                | PatternEvent::Paused(_)
                | PatternEvent::Resumed(_) => {}
            }
        }
    }

    /// Waits for something to happen: records and gaps of one topic, at most `max` (and at least 1), or news. May be
    /// dropped while it waits; nothing is lost.
    ///
    /// # Errors
    /// With [`until_end`](PatternOptions::until_end), a peer that has been away for too long.
    pub async fn next_event(&mut self, max: usize) -> Result<PatternEvent, ClientError> {
        loop {
            if let Some(note) = self.notes.pop_front() {
                return Ok(note);
            }
            if let Some(some) = self.hand_out(max.max(1)) {
                return Ok(PatternEvent::Deliveries(some));
            }
            self.end_turn();
            self.schedule();
            if self.options.until_end {
                if self.unreached == 0 {
                    return Ok(PatternEvent::Ended);
                }
                self.check_patience()?;
            }
            // Patience is looked at now and then.
            let next =
                tokio::time::timeout(limits::PATTERN_LOOK_EVERY, self.jobs.join_next_with_id());
            match next.await {
                Ok(Some(Ok((job, outcome)))) => self.settle(job, outcome),
                Ok(Some(Err(error))) if error.is_panic() => {
                    std::panic::resume_unwind(error.into_panic())
                }
                Ok(Some(Err(_))) | Err(_) => {}
                // Nothing is under way: nothing matches.
                Ok(None) => tokio::time::sleep(limits::PATTERN_LOOK_EVERY).await,
            }
        }
    }

    /// Takes what is next of the turn.
    fn hand_out(&mut self, max: usize) -> Option<TopicDeliveries> {
        let turn = self.turn.as_mut()?;
        let count = turn.deliveries.len().min(max);
        let deliveries: Vec<Delivery> = turn.deliveries.drain(..count).collect();
        let position = match deliveries.last()? {
            Delivery::Record(record) => record.offset.next(),
            Delivery::Gap(gap) => gap.to,
        };
        let (id, topic) = (turn.id, turn.topic.clone());
        if let Some(followed) = self.topics.get_mut(id) {
            followed.place = Place::At(position);
            if followed.cursor.is_some() {
                self.dirty.insert(id);
            }
            self.count_reached(id);
        }
        Some(TopicDeliveries {
            topic,
            id,
            deliveries,
        })
    }

    /// What has to end fails when a peer of it has been away for too long.
    fn check_patience(&self) -> Result<(), ClientError> {
        let timeout = self.options.timeout;
        let timeout = timeout.unwrap_or(self.client.cluster.options.timeout);
        let is_over = |host: &&Host| {
            let trouble = host.trouble.as_ref().filter(|_| host.topics > 0);
            trouble.is_some_and(|trouble| trouble.since().elapsed() >= timeout)
        };
        match self.hosts.values().find(is_over) {
            None => Ok(()),
            Some(host) => Err(ClientError::TimedOut {
                what: format!(
                    "waiting for peer {}, which hosts topics that match,",
                    host.name
                ),
                after: timeout,
            }),
        }
    }
}
