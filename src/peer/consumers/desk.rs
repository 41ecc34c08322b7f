//! The desk of one consumer group: its state machine behind a lock, and who waits for it.
//!
//! The lock is held for decisions only, never over a read, a write or a wait. Changes of the group's rows go one after the
//! other, whatever they are (the turn): so the rows that are written last are the newest ones.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::{Notify, watch};

use crate::limits;
use crate::net::ClientInfo;
use crate::net::shutdown::CancellationToken;
use crate::protocol::api::{
    ConsumerGroupInfo, ConsumerMemberInfo, JoinConsumerGroup, LeaveConsumerGroup,
};
use crate::protocol::error::ApiError;
use crate::store::ConsumerRows;
use crate::time::Timestamp;
use crate::topic::consumers::{Fresh, Group, Now, Slot};
use crate::types::{
    Generation, LeaderEpoch, MemberId, Offset, SubscriptionName, TopicId, TopicName,
};

/// The two clocks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock(Instant);

impl Clock {
    pub fn new() -> Self {
        Self(Instant::now())
    }

    pub fn now(&self) -> Now {
        Now {
            steady: u64::try_from(self.0.elapsed().as_millis()).unwrap_or(u64::MAX),
            wall: Timestamp::now(),
        }
    }
}

/// Where a member sits.
#[derive(Debug, Clone)]
pub(super) struct Seat {
    pub slot: Slot,
    /// The connection that joined.
    client: Arc<ClientInfo>,
    /// Its takes have something to look at.
    pub wake: Arc<Notify>,
    /// How many of its takes were answered.
    answers: Arc<AtomicU64>,
    /// It is not a member any more.
    pub left: CancellationToken,
}

impl Seat {
    /// Number of the answer that is made now. Those that give something out are made one after the other, in line.
    pub fn next_answer(&self) -> u64 {
        1 + self.answers.fetch_add(1, Ordering::Relaxed)
    }
}

/// What the lock is around.
pub(super) struct Inner {
    pub group: Group,
    seats: HashMap<MemberId, Seat>,
    /// Why it is closed.
    ended: Option<ApiError>,
    /// What keeps dead letters from being written.
    pub trouble: Option<String>,
    /// Dead letters are written just now, or not tried again before then.
    pub burying: bool,
    pub bury_after: Instant,
    /// The next take begins with new records.
    pub new_first: bool,
    used: Instant,
}

/// The desk of a group.
pub(super) struct Desk {
    pub topic: TopicId,
    pub name: SubscriptionName,
    pub clock: Clock,
    inner: Mutex<Inner>,
    /// Changes of the rows, one after the other.
    pub turn: tokio::sync::Mutex<()>,
    /// Takes, one after the other.
    pub line: tokio::sync::Mutex<()>,
    pub flush_wanted: Notify,
    durable: watch::Sender<u64>,
    pub closed: CancellationToken,
}

impl Desk {
    pub fn new(topic: TopicId, name: SubscriptionName, rows: ConsumerRows, clock: Clock) -> Self {
        let pages = rows.pages.iter().map(|(page, row)| (*page, row));
        let group = Group::load(rows.row, pages, clock.now());
        let used = Instant::now();
        let inner = Inner {
            group,
            seats: HashMap::new(),
            ended: None,
            trouble: None,
            burying: false,
            bury_after: used,
            new_first: false,
            used,
        };
        Self {
            topic,
            name,
            clock,
            inner: Mutex::new(inner),
            turn: tokio::sync::Mutex::default(),
            line: tokio::sync::Mutex::default(),
            flush_wanted: Notify::new(),
            durable: watch::Sender::new(0),
            closed: CancellationToken::new(),
        }
    }

    /// The state machine, to decide in.
    pub fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The same, unless the desk is closed.
    pub fn open(&self) -> Result<MutexGuard<'_, Inner>, ApiError> {
        let inner = self.lock();
        match &inner.ended {
            Some(ended) => Err(ended.clone()),
            None => Ok(inner),
        }
    }

    /// After decisions: wakes whoever has to know of them.
    pub fn decided(&self, inner: &mut Inner) {
        if inner.group.take_news() {
            inner
                .seats
                .values()
                .for_each(|seat| seat.wake.notify_waiters());
        }
        if inner.group.is_dirty() {
            self.flush_wanted.notify_one();
        }
    }

    /// Nobody is served here any more; the first reason counts.
    pub fn close(&self, reason: ApiError) {
        let mut inner = self.lock();
        if inner.ended.is_none() {
            inner.ended = Some(reason);
        }
        drop(inner);
        self.closed.cancel();
    }

    /// Closes a desk that nobody uses and that has nothing to do.
    pub fn retire(&self, idle: std::time::Duration) -> bool {
        let mut inner = self.lock();
        let at_rest = inner.seats.is_empty()
            && !inner.burying
            && !inner.group.is_dirty()
            && !inner.group.has_dying();
        let retires = at_rest && inner.used.elapsed() >= idle && self.turn.try_lock().is_ok();
        if retires && inner.ended.is_none() {
            inner.ended = Some(ApiError::NotAMember {
                name: self.name.clone(),
                member: MemberId::zero(),
            });
            self.closed.cancel();
        }
        retires
    }

    // --- members -------------------------------------------------------------------

    /// Adds a member, for as long as its connection lasts.
    pub fn join(
        &self,
        request: &JoinConsumerGroup,
        client: &Arc<ClientInfo>,
    ) -> Result<Option<Seat>, ApiError> {
        let mut inner = self.open()?;
        check_generation(&inner.group, request.generation)?;
        inner.used = Instant::now();
        if let Some(seat) = inner.seats.get(&request.member) {
            return match Arc::ptr_eq(&seat.client, client) {
                true => Ok(None),
                false => Err(ApiError::InvalidArgument {
                    what: "member".to_owned(),
                    reason: "another connection joined with that id".to_owned(),
                }),
            };
        }
        if inner.seats.len() >= limits::CONSUMER_MEMBERS_MAX {
            let max = limits::CONSUMER_MEMBERS_MAX as u64;
            return Err(ApiError::TooManyMembers { max });
        }
        let seat = Seat {
            slot: inner.group.join(request.member, self.clock.now()),
            client: client.clone(),
            wake: Arc::new(Notify::new()),
            answers: Arc::default(),
            left: CancellationToken::new(),
        };
        inner.seats.insert(request.member, seat.clone());
        Ok(Some(seat))
    }

    /// Ends a membership by its own wish.
    pub fn leave(
        &self,
        request: &LeaveConsumerGroup,
        client: &Arc<ClientInfo>,
    ) -> Result<(), ApiError> {
        let mut inner = self.open()?;
        let seat = self.seat_of(&inner, request.member, client)?;
        self.remove(&mut inner, (request.member, seat.slot), false);
        Ok(())
    }

    /// The connection of a member is gone.
    pub fn lost(&self, member: MemberId, slot: Slot, counts: bool) {
        let mut inner = self.lock();
        if inner
            .seats
            .get(&member)
            .is_some_and(|seat| seat.slot == slot)
        {
            self.remove(&mut inner, (member, slot), counts);
        }
    }

    fn remove(&self, inner: &mut Inner, (member, slot): (MemberId, Slot), lost: bool) {
        if let Some(seat) = inner.seats.remove(&member) {
            seat.left.cancel();
        }
        inner.used = Instant::now();
        inner.group.leave(slot, lost, self.clock.now());
        self.decided(inner);
    }

    fn seat_of(
        &self,
        inner: &Inner,
        member: MemberId,
        client: &Arc<ClientInfo>,
    ) -> Result<Seat, ApiError> {
        let seat = inner.seats.get(&member);
        let seat = seat.filter(|seat| Arc::ptr_eq(&seat.client, client));
        seat.cloned().ok_or_else(|| self.not_a_member(member))
    }

    pub fn not_a_member(&self, member: MemberId) -> ApiError {
        let name = self.name.clone();
        ApiError::NotAMember { name, member }
    }

    /// Where a member sits, and the group, for what it asks.
    pub fn seated(
        &self,
        (member, generation): (MemberId, Generation),
        client: &Arc<ClientInfo>,
    ) -> Result<(MutexGuard<'_, Inner>, Seat), ApiError> {
        let inner = self.open()?;
        check_generation(&inner.group, generation)?;
        let seat = self.seat_of(&inner, member, client)?;
        Ok((inner, seat))
    }

    // --- what is durable --------------------------------------------------------------

    /// Changes up to that number are durable.
    pub fn is_durable(&self, version: u64) -> bool {
        *self.durable.borrow() >= version
    }

    /// Notes that changes up to that number are durable.
    pub fn set_durable(&self, version: u64) {
        self.durable
            .send_modify(|durable| *durable = version.max(*durable));
    }

    /// Waits until changes up to that number are durable.
    pub async fn wait_durable(&self, version: u64) -> Result<(), ApiError> {
        let mut durable = self.durable.subscribe();
        tokio::select! {
            biased;
            reached = durable.wait_for(|durable| *durable >= version) => {
                reached.map(drop).map_err(|_| ApiError::Unanswered)
            }
            () = self.closed.cancelled() => Err(self.ended()),
        }
    }

    /// Why it is closed.
    pub fn ended(&self) -> ApiError {
        self.lock().ended.clone().unwrap_or(ApiError::Unanswered)
    }

    // --- what is told -------------------------------------------------------------------

    /// Everything about the group; the age of its oldest open record is left out.
    pub fn info(&self, of: &OfTopic) -> ConsumerGroupInfo {
        let inner = self.lock();
        let seats: HashMap<Slot, &Seat> =
            inner.seats.values().map(|seat| (seat.slot, seat)).collect();
        let members = inner
            .group
            .members()
            .filter_map(|(slot, member, in_flight)| {
                let client = &seats.get(&slot)?.client;
                Some(ConsumerMemberInfo {
                    id: member.id,
                    client: format!("{} {}", client.name, client.address),
                    since: member.since,
                    in_flight,
                })
            });
        ConsumerGroupInfo {
            members: members.collect(),
            stuck: inner
                .trouble
                .clone()
                .or_else(|| stuck(&inner.group, of.end)),
            ..told(of, &self.name, &inner.group)
        }
    }
}

/// What is told of the topic beside a group.
#[derive(Debug, Clone)]
pub(super) struct OfTopic {
    pub id: TopicId,
    pub name: TopicName,
    pub epoch: LeaderEpoch,
    pub start: Offset,
    pub end: Offset,
}

/// What a group says of itself.
pub(super) fn told(of: &OfTopic, name: &SubscriptionName, group: &Group) -> ConsumerGroupInfo {
    let (row, tally) = (group.row(), group.tally(of.end));
    ConsumerGroupInfo {
        topic: of.name.clone(),
        topic_id: of.id,
        epoch: of.epoch,
        name: name.clone(),
        generation: row.generation,
        options: row.options,
        created: row.created,
        start_offset: of.start,
        end_offset: of.end,
        floor: row.floor,
        unsettled: tally.unsettled,
        in_flight: tally.in_flight,
        failed: tally.failed,
        dying: tally.dying,
        lag_ms: 0,
        acknowledged: row.acknowledged,
        dead: row.dead,
        skipped: row.skipped,
        last_settled: row.last_settled,
        stuck: None,
        members: Vec::new(),
    }
}

/// What keeps a group from going on.
fn stuck(group: &Group, end: Offset) -> Option<String> {
    let floor = group.floor();
    match group.fresh(end) {
        Fresh::There | Fresh::AtEnd => None,
        Fresh::FarAhead => Some(format!(
            "offset {floor} is open, and the group goes no further ahead of it than to {}",
            group.cursor()
        )),
        Fresh::ManyParked => Some(format!(
            "{} records wait for older ones of their keys, the oldest open one is {floor}",
            limits::CONSUMER_PARKED_MAX
        )),
    }
}

fn check_generation(group: &Group, given: Generation) -> Result<(), ApiError> {
    let current = group.generation();
    match given == current {
        true => Ok(()),
        false => Err(ApiError::StaleGeneration { given, current }),
    }
}
