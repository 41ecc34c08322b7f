//! Working in a consumer group: taking records, and saying what became of them.
//!
//! ```text
//!   host ── taken, two long polls ──► buffer ── next() ──► held by the application
//!    ▲                                                            │ ack, nak, reject, extend
//!    └────────── runs, a few requests on the way ◄── verdicts ◄───┘
//! ```
//!
//! A [`Member`] has one task, the keeper (`keeper`), and a connection that it shares with nobody: a membership lasts as
//! long as its connection, so whatever ends the member gives back what it holds. What it knows is in `state`, which
//! knows of no task and no socket.
//!
//! Invariants:
//!
//! 1. **A verdict goes where its record came from.** It is for one delivery of one membership. After a reconnect the
//!    member joins under a new id; what was taken before it is not held any more, and verdicts on it are reported, not sent.
//! 2. **Nothing is settled that was not handed out.** Acknowledging up to an offset means those that this member was
//!    given and holds.
//! 3. **What was said is never lost in silence**: it is durable, or [`settle`](Member::settle) names it.
//! 4. **Memory is bounded**: a buffer of records and bytes, and one verdict for each record held.
//! 5. **A record that waits in the buffer is not failed**: its deadline is extended while the application is alive,
//!    which is while it takes or says something within one deadline, or wants to [keep](MemberOptions::keep) what it has.
//!    For one that is not, what waits fails once, and nothing more is taken until it is there again.

mod keeper;
mod state;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::client::cluster::{Effect, Lane};
use crate::client::route::Route;
use crate::client::{Client, ClientError, ReceivedRecord};
use crate::limits;
use crate::protocol::api::{
    ConsumerGroupChanges, ConsumerGroupInfo, CreateConsumerGroup, DescribeConsumerGroup, Instead,
    Position, Verdict,
};
use crate::protocol::error::ApiError;
use crate::types::{Offset, SubscriptionName, TopicId, TopicName};
use keeper::Keeper;
use state::{Bounds, State};

/// How to make a group that does not exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewGroup {
    /// Where it begins.
    pub from: Position,
    /// Its options, as far as they are not the usual ones.
    pub options: ConsumerGroupChanges,
}

/// How to be a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberOptions {
    /// Makes the group if it does not exist; without it, it must.
    pub create: Option<NewGroup>,
    /// Most records taken and not handed out yet. Whoever takes long over each wants few, so that others get them.
    pub buffer_records: usize,
    /// Most bytes of them, unless one record alone is larger.
    pub buffer_bytes: usize,
    /// Extend the deadline of what the application holds as long as this member lives.
    pub keep: bool,
    /// How long the host may be away; the client's timeout if not told.
    pub timeout: Option<Duration>,
}

impl Default for MemberOptions {
    fn default() -> Self {
        Self {
            create: None,
            buffer_records: limits::MEMBER_BUFFER_RECORDS_DEFAULT,
            buffer_bytes: limits::MEMBER_BUFFER_BYTES_DEFAULT,
            keep: false,
            timeout: None,
        }
    }
}

impl MemberOptions {
    /// Of a group that is made at `from` with the usual options if it does not exist.
    pub fn creating(from: Position) -> Self {
        let options = ConsumerGroupChanges::default();
        Self {
            create: Some(NewGroup { from, options }),
            ..Self::default()
        }
    }
}

/// A record that was given to a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberDelivery {
    /// The record with its place.
    pub record: ReceivedRecord,
    /// The how many-eth time it is given to somebody, as far as the host remembers; the first is 1.
    pub delivery: u32,
    /// Without a word about it until then, it is given to somebody else. In a group ordered by key later, if it is not the
    /// oldest of its key.
    pub deadline: Instant,
    /// Which membership of this member it was given to.
    membership: u64,
}

impl MemberDelivery {
    /// Its offset.
    pub const fn offset(&self) -> Offset {
        self.record.offset
    }
}

/// Records of which what was said did not count, or may not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotSettled {
    /// The first one.
    pub first: Offset,
    /// How many follow each other.
    pub count: u32,
    /// What is known of them.
    pub why: Missed,
}

/// Why a verdict did not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missed {
    /// The host says that this delivery was over, and what the record is instead. Only [`Instead::Settled`] is done with.
    NotHeld(Instead),
    /// It was said of a delivery that this member knew to be over: said before, overdue, or of a membership before this.
    /// Nothing was sent.
    Over,
    /// The connection was lost before the host answered: it is settled, or comes again.
    Unknown,
}

impl Missed {
    /// Whether the record is done with all the same.
    pub const fn is_settled(self) -> bool {
        matches!(self, Self::NotHeld(Instead::Settled))
    }
}

/// A member of a consumer group. Made by [`Client::join_group`]. Several tasks may use it at once.
///
/// [`leave`](Self::leave) ends it well. Where it is dropped instead, what it holds goes to others at once, as after a
/// crash: each counts as a failed delivery.
///
/// ```no_run
/// # async fn example(client: tidings::client::Client) -> Result<(), Box<dyn std::error::Error>> {
/// # fn handle(_: &[u8]) -> Result<(), String> { Ok(()) }
/// use std::time::Duration;
/// use tidings::client::MemberOptions;
/// use tidings::protocol::api::Position;
///
/// let options = MemberOptions::creating(Position::Beginning);
/// let member = client.join_group(&"orders.eu".parse()?, &"billing".parse()?, options).await?;
/// for _ in 0..1000 {
///     let given = member.next().await?;
///     match handle(&given.record.value) {
///         Ok(()) => member.ack(&given),
///         Err(why) if given.delivery > 3 => member.reject(&given, why),
///         Err(_) => member.nak(&given, Some(Duration::from_secs(10))),
///     }
/// }
/// member.leave().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Member {
    topic: TopicName,
    topic_id: TopicId,
    name: SubscriptionName,
    shared: Arc<Shared>,
    away: watch::Receiver<bool>,
}

/// What the handle and the keeper share.
#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Something for the keeper to do.
    work: Notify,
    /// Records have come, or the end.
    arrived: Notify,
    /// Verdicts were answered, or the end.
    settled: Notify,
    /// The application wants to leave.
    leave: CancellationToken,
    /// The handle is gone.
    dropped: CancellationToken,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self, error: ClientError) {
        self.lock().end(error);
        self.arrived.notify_waiters();
        self.settled.notify_waiters();
    }
}

impl Client {
    /// Joins a consumer group. Waits for the topic's host as long as the timeout.
    pub async fn join_group(
        &self,
        topic: &TopicName,
        name: &SubscriptionName,
        options: MemberOptions,
    ) -> Result<Member, ClientError> {
        check(&options)?;
        let timeout = options.timeout.unwrap_or(self.cluster.options.timeout);
        let location = self.cluster.locate(topic).await?;
        let mut route = Route::new(self.cluster.clone(), location, Lane::Fetch, timeout);
        let group = loop {
            match self.open_group(topic, name, options.create.as_ref()).await {
                Ok(group) => break group,
                Err(error) => route.wait_after(error).await?,
            }
        };
        let topic_id = group.topic_id;
        if topic_id != route.location().id {
            // Not the topic that was remembered under this name.
            route = route.moved_to(self.cluster.lookup(topic).await?);
        }
        if topic_id != route.location().id {
            return Err(ApiError::UnknownTopicId { id: topic_id }.into());
        }
        let bounds = Bounds {
            records: options.buffer_records,
            bytes: options.buffer_bytes,
            keep: options.keep,
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(State::new(bounds, Instant::now())),
            work: Notify::new(),
            arrived: Notify::new(),
            settled: Notify::new(),
            leave: CancellationToken::new(),
            dropped: CancellationToken::new(),
        });
        let away = route.watch();
        let mut keeper = Keeper::new(shared.clone(), route, name.clone());
        let session = keeper.join().await?;
        tokio::spawn(keeper.run(session));
        Ok(Member {
            topic: topic.clone(),
            topic_id,
            name: name.clone(),
            shared,
            away,
        })
    }

    /// The group, made if that is wanted. May be repeated.
    async fn open_group(
        &self,
        topic: &TopicName,
        name: &SubscriptionName,
        new: Option<&NewGroup>,
    ) -> Result<ConsumerGroupInfo, ClientError> {
        let (topic, name) = (topic.clone(), name.clone());
        match new {
            Some(new) => {
                let request = CreateConsumerGroup {
                    topic: topic.clone(),
                    name,
                    from: new.from,
                    options: new.options.clone(),
                    if_not_exists: true,
                };
                self.cluster.at_host(&topic, &request, Effect::Reads).await
            }
            None => {
                let request = DescribeConsumerGroup {
                    topic: topic.clone(),
                    name,
                };
                self.cluster.at_host(&topic, &request, Effect::Reads).await
            }
        }
    }
}

fn check(options: &MemberOptions) -> Result<(), ClientError> {
    let most = limits::UNACKED_MAX as usize;
    let (records, bytes) = (options.buffer_records, options.buffer_bytes);
    let reason = match records {
        0 => format!("0 records: 1 to {most} expected"),
        records if records > most => format!("{records} records: 1 to {most} expected"),
        _ if bytes == 0 => "0 bytes hold nothing".to_owned(),
        _ => return Ok(()),
    };
    Err(ClientError::Api(ApiError::InvalidArgument {
        what: "buffer of a member".to_owned(),
        reason,
    }))
}

impl Member {
    /// The topic's name.
    pub fn topic(&self) -> &TopicName {
        &self.topic
    }

    /// The topic's id.
    pub fn topic_id(&self) -> TopicId {
        self.topic_id
    }

    /// The group's name.
    pub fn group(&self) -> &SubscriptionName {
        &self.name
    }

    /// Whether the topic's host is away, as it changes; for telling somebody who waits.
    pub fn watch_absence(&self) -> watch::Receiver<bool> {
        self.away.clone()
    }

    // --- taking --------------------------------------------------------------

    /// Waits for the next record, over reconnects and restarts of the host. May be dropped while it waits. An error is
    /// the end of this member: the group or the topic is gone, the host stayed away for too long, or it has left.
    pub async fn next(&self) -> Result<MemberDelivery, ClientError> {
        let mut one = self.next_many(1).await?;
        Ok(one.pop().expect("there is at least one"))
    }

    /// The same for at most that long; `None` if nothing came.
    pub async fn next_within(&self, wait: Duration) -> Result<Option<MemberDelivery>, ClientError> {
        match tokio::time::timeout(wait, self.next()).await {
            Ok(delivery) => delivery.map(Some),
            Err(_) => Ok(None),
        }
    }

    /// Waits for at least one, and gives what is at hand, at most `max` (and at least 1).
    pub async fn next_many(&self, max: usize) -> Result<Vec<MemberDelivery>, ClientError> {
        loop {
            let arrived = self.shared.arrived.notified();
            let mut arrived = std::pin::pin!(arrived);
            arrived.as_mut().enable();
            let (given, wanted) = {
                let mut state = self.shared.lock();
                let given = state.hand_out(max.max(1), Instant::now())?;
                (given, state.wants_more())
            };
            if wanted {
                self.shared.work.notify_one();
            }
            if !given.is_empty() {
                return Ok(given);
            }
            arrived.await;
        }
    }

    // --- what became of it ---------------------------------------------------

    /// Done with it: it is not given to anybody again. Sent in the background: [`settle`](Self::settle) waits for it.
    pub fn ack(&self, given: &MemberDelivery) {
        self.say(given, Verdict::Ack);
    }

    /// Done with all up to and including that offset which this member was given and holds. Tells how many.
    pub fn ack_up_to(&self, offset: Offset) -> u64 {
        let (count, is_news) = {
            let mut state = self.shared.lock();
            let count = state.ack_up_to(offset, Instant::now());
            (count, state.take_news())
        };
        if is_news {
            self.shared.work.notify_one();
        }
        count
    }

    /// Not now: it is given to somebody again, after `delay` or as the group's back-off says. Counts as a failed delivery.
    /// A delay longer than [`limits::BACKOFF_MAX`] is that long.
    pub fn nak(&self, given: &MemberDelivery, delay: Option<Duration>) {
        let delay = delay.map(|delay| delay.min(limits::BACKOFF_MAX));
        let delay_ms = delay.map(|delay| delay.as_millis() as u64);
        self.say(given, Verdict::Nak { delay_ms });
    }

    /// Never again: it goes to the dead letters, with the reason, which is cut to
    /// [`limits::REJECT_REASON_BYTES_MAX`].
    pub fn reject(&self, given: &MemberDelivery, reason: impl Into<String>) {
        let mut reason = reason.into();
        reason.truncate(reason.floor_char_boundary(limits::REJECT_REASON_BYTES_MAX));
        self.say(given, Verdict::Reject { reason });
    }

    /// Still at it: its deadline begins anew.
    pub fn extend(&self, given: &MemberDelivery) {
        self.say(given, Verdict::Extend);
    }

    fn say(&self, given: &MemberDelivery, verdict: Verdict) {
        let is_news = {
            let mut state = self.shared.lock();
            state.say(given, verdict, Instant::now());
            state.take_news()
        };
        if is_news {
            self.shared.work.notify_one();
        }
    }

    /// Waits until everything said so far is durable, and names what did not count since the last call: not held any
    /// more when it was said, or lost with a connection. Such records come again, to this or another member, but for those
    /// that are [settled](Missed::is_settled).
    pub async fn settle(&self) -> Result<Vec<NotSettled>, ClientError> {
        let target = self.shared.lock().hurry();
        self.shared.work.notify_one();
        loop {
            let settled = self.shared.settled.notified();
            let mut settled = std::pin::pin!(settled);
            settled.as_mut().enable();
            if let Some(not_settled) = self.shared.lock().settled_up_to(target)? {
                return Ok(not_settled);
            }
            settled.await;
        }
    }

    /// Settles what was said, gives back everything else without counting it as failed, and ends the membership. Names
    /// what did not count, as [`settle`](Self::settle) does.
    pub async fn leave(self) -> Result<Vec<NotSettled>, ClientError> {
        self.shared.leave.cancel();
        loop {
            let ended = self.shared.settled.notified();
            let mut ended = std::pin::pin!(ended);
            ended.as_mut().enable();
            if let Some(outcome) = self.shared.lock().left() {
                return outcome;
            }
            ended.await;
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.shared.dropped.cancel();
    }
}
