//! One group in the making: decisions are taken, bytes are not yet placed.
//!
//! Commands are decided in the order they came. Their entries are then sorted
//! by topic, stably, so that each topic is one run in the group; the order
//! within a topic stays the order of arrival.

use std::sync::Arc;

use bytes::Bytes;

use super::command::{Append, Change, Context, Done};
use super::shared::{Shared, TopicShared};
use crate::journal::{Claim, ENTRY_HEADER_BYTES, EntryKind, EntryToWrite, StateOp, payload_crc};
use crate::protocol::batch::CheckedBatch;
use crate::protocol::data::Published;
use crate::protocol::error::ApiError;
use crate::time::Timestamp;
use crate::topic::{Admission, BatchFacts, RowKey, State, Terms};
use crate::types::{Durability, LeaderEpoch, Offset, ProducerId, StateNumber, TopicId};

/// An entry whose place is not known yet.
pub(super) struct StagedEntry {
    pub kind: EntryKind,
    pub topic: TopicId,
    pub number: u64,
    pub epoch: LeaderEpoch,
    pub records: u32,
    pub append_time: Timestamp,
    pub payload: Bytes,
    pub crc: u32,
}

impl StagedEntry {
    /// Bytes it takes in a group.
    pub fn bytes(&self) -> usize {
        ENTRY_HEADER_BYTES + self.payload.len()
    }

    /// The entry as the group builder takes it; `pieces` is `[&payload]`.
    pub fn to_write<'a>(&self, pieces: &'a [&'a [u8]]) -> EntryToWrite<'a> {
        EntryToWrite {
            kind: self.kind,
            topic: self.topic,
            number: self.number,
            epoch: self.epoch,
            records: self.records,
            append_time: self.append_time,
            payload: pieces,
            payload_crc: self.crc,
        }
    }
}

/// Whom to tell when a group is durable, or written where that is enough.
pub(super) enum Waiter {
    /// A publisher.
    Append(Done<Published>, Published),
    /// Whoever asked for a change.
    Change(Box<dyn FnOnce(Result<(), ApiError>) + Send>),
}

impl Waiter {
    /// Tells the outcome.
    pub fn tell(self, outcome: Result<(), ApiError>) {
        match self {
            Self::Append(done, published) => done(outcome.map(|()| published)),
            Self::Change(done) => done(outcome),
        }
    }
}

/// What a group does to a topic.
pub(super) struct Touched {
    pub topic: TopicId,
    /// `None` for the peer, and for a topic that was deleted.
    pub shared: Option<Arc<TopicShared>>,
    /// Where readers may go once the group is durable.
    pub end: Offset,
    /// The end that is claimed: a higher one only while the topic is quarantined.
    pub claimed_end: Offset,
    pub state: StateNumber,
    pub durability: Durability,
    /// Bytes of its live batches.
    pub bytes: u64,
}

impl Touched {
    /// What a later group says about it.
    pub fn claim(&self) -> Claim {
        Claim {
            topic: self.topic,
            durable_end: self.claimed_end,
            state: self.state,
        }
    }
}

/// A group in the making.
#[derive(Default)]
pub(super) struct Staging {
    pub entries: Vec<StagedEntry>,
    pub waiters: Vec<Waiter>,
    /// Publishers of `os` topics whose offsets lie below the durable bound: told once it is written.
    pub early: Vec<Waiter>,
    pub bytes: usize,
    /// Batches that were there: by their sequences, by the ids of their messages.
    pub duplicates: [u64; 2],
    /// Topics that got their first message with a time to live.
    pub expiring: Vec<TopicId>,
    /// Wall clock and monotonic clock agree.
    pub clock_is_trusted: bool,
}

impl Staging {
    /// Whether it would write nothing.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn push(&mut self, entry: StagedEntry) {
        self.bytes += entry.bytes();
        self.entries.push(entry);
    }

    /// Stages the rows as one state entry.
    pub fn push_rows(
        &mut self,
        state: &State,
        topic: TopicId,
        number: StateNumber,
        keys: &[RowKey],
        now: Timestamp,
    ) {
        let operations: Vec<StateOp> = keys
            .iter()
            .map(|key| match state.row(key) {
                Some(row) => StateOp::Put {
                    key: key.encode(),
                    value: row.encode(),
                },
                None => StateOp::Delete { key: key.encode() },
            })
            .collect();
        let payload = StateOp::encode_all(&operations)
            .expect("rows are bounded, and a change touches few of them");
        let epoch = state
            .topic(topic)
            .map_or(LeaderEpoch::ZERO, |topic| topic.row.epoch);
        self.push_state(EntryKind::State, topic, number, epoch, payload.into(), now);
    }

    /// Stages an entry that is not records.
    pub fn push_state(
        &mut self,
        kind: EntryKind,
        topic: TopicId,
        number: StateNumber,
        epoch: LeaderEpoch,
        payload: Bytes,
        now: Timestamp,
    ) {
        let crc =
            payload_crc(kind, &[&payload]).expect("a state payload of any length has a checksum");
        self.push(StagedEntry {
            kind,
            topic,
            number: number.get(),
            epoch,
            records: 0,
            append_time: now,
            payload,
            crc,
        });
    }

    /// Decides on a batch and stages it.
    pub fn append(
        &mut self,
        state: &mut State,
        mut append: Append,
        durable_bound: Offset,
        now: Timestamp,
    ) {
        let facts = facts_of(&append.batch);
        if facts.id.is_some() {
            self.see_to_ids(state, &mut append, now);
        }
        let admission = state
            .topic(append.topic)
            .and_then(|topic| topic.admit(append.terms, &facts));
        let base = match admission {
            Ok(Admission::Append(base)) => base,
            Ok(Admission::Duplicate { base, end }) => {
                self.duplicates[usize::from(facts.id.is_some())] += 1;
                let published = published_before(state, append.topic, base, end);
                self.waiters.push(Waiter::Append(append.done, published));
                return;
            }
            Err(error) => return (append.done)(Err(error)),
        };
        let published = self.push_records(state, (append.topic, append.batch), base, now);
        let durability = published.durability;
        let early = durability == Durability::Os && published.end_offset <= durable_bound;
        let waiter = Waiter::Append(append.done, published);
        if early {
            self.early.push(waiter)
        } else {
            self.waiters.push(waiter)
        }
    }

    /// Stages a batch that was admitted at `base`.
    fn push_records(
        &mut self,
        state: &mut State,
        (id, batch): (TopicId, CheckedBatch),
        base: Offset,
        now: Timestamp,
    ) -> Published {
        let facts = facts_of(&batch);
        self.raise_bound(state, id, facts.count, now);
        if batch.header().has_ttl {
            self.note_ttl(state, id, now);
        }
        let topic = state.topic_mut(id).expect("admitted just now");
        let append_time = topic.append_time(now);
        topic.appended(&facts, base, append_time);
        let epoch = topic.row.epoch;
        let published = Published {
            base_offset: base,
            end_offset: topic.row.end,
            durability: topic.row.settings.durability,
            duplicate: false,
        };
        let surplus = topic.surplus_producers();
        let row = topic.row_of(&facts, base);
        if let Some(row) = row {
            state.mark_dirty(row);
        }
        self.push(StagedEntry {
            kind: EntryKind::Records,
            topic: id,
            number: base.get(),
            epoch,
            records: facts.count,
            append_time,
            crc: batch.header().crc,
            payload: batch.into_bytes(),
        });
        if !surplus.is_empty() {
            self.forget_producers(state, id, &surplus, now);
        }
        published
    }

    /// Before a message with an id: what is remembered too long or too much is forgotten, and what is forgotten by
    /// its time is not found. While the clocks have parted time takes nothing.
    fn see_to_ids(&mut self, state: &mut State, append: &mut Append, now: Timestamp) {
        let id = append.topic;
        let Ok(topic) = state.topic(id) else {
            return;
        };
        let since = topic.ids_since(now).filter(|_| self.clock_is_trusted);
        append.terms.ids_since = since;
        let surplus = topic.surplus_ids(since);
        if !surplus.is_empty()
            && topic.check_writable().is_ok()
            && let Ok(topic) = state.topic_mut(id)
        {
            let keys = topic.forget_ids(&surplus);
            keys.iter().for_each(|key| state.mark_dirty(key.clone()));
            let number = state.take_state_number(id);
            self.push_rows(state, id, number, &keys, now);
        }
    }

    /// Refuses a batch, unless it was stored before.
    pub fn refuse_new(&mut self, state: &State, append: Append, refusal: ApiError) {
        let facts = facts_of(&append.batch);
        match stored_before(state, append.topic, append.terms, &facts) {
            Some(published) => self.waiters.push(Waiter::Append(append.done, published)),
            None => (append.done)(Err(refusal)),
        }
    }

    /// Forgets producers, the longest unused when there are too many.
    fn forget_producers(
        &mut self,
        state: &mut State,
        id: TopicId,
        producers: &[ProducerId],
        now: Timestamp,
    ) {
        if let Ok(topic) = state.topic_mut(id) {
            let row_too = topic.forget_producers(producers);
            let key = |&producer| RowKey::Producer(id, producer);
            let keys = producers.iter().map(key);
            let keys: Vec<RowKey> = keys.chain(row_too.then_some(RowKey::Topic(id))).collect();
            keys.iter().for_each(|key| state.mark_dirty(key.clone()));
            let number = state.take_state_number(id);
            self.push_rows(state, id, number, &keys, now);
        }
    }

    /// With its first message that has a time to live a topic's row says that there are such.
    fn note_ttl(&mut self, state: &mut State, id: TopicId, now: Timestamp) {
        let is_first = |topic: &crate::topic::Topic| !topic.row.thinned.has_ttl;
        if state.topic(id).is_ok_and(is_first)
            && let Ok(topic) = state.topic_mut(id)
        {
            topic.row.thinned.has_ttl = true;
            let number = state.take_state_number(id);
            self.push_rows(state, id, number, &[RowKey::Topic(id)], now);
            self.expiring.push(id);
        }
    }

    /// An `os` topic's offsets must stay below its recorded bound (J6).
    fn raise_bound(&mut self, state: &mut State, id: TopicId, count: u32, now: Timestamp) {
        let wanted = state
            .topic(id)
            .ok()
            .and_then(|topic| topic.bound_wanted(count));
        if let (Some(bound), Ok(topic)) = (wanted, state.topic_mut(id)) {
            topic.row.bound = Some(bound);
            let number = state.take_state_number(id);
            self.push_rows(state, id, number, &[RowKey::Topic(id)], now);
        }
    }

    /// Decides on a change and stages its rows, and the batch that goes with it. Where that is not admitted, nothing changes.
    pub fn change(&mut self, state: &mut State, change: Change, shared: &Shared, now: Timestamp) {
        let admitted = change
            .batch
            .as_ref()
            .map(|batch| admit(state, shared, batch));
        let base = match admitted.transpose() {
            Ok(base) => base,
            Err(refusal) => {
                (change.run)(Err(refusal));
                return;
            }
        };
        let mut context = Context { state, shared, now };
        let Some(staged) = (change.run)(Ok(&mut context)) else {
            return;
        };
        if let (Some(batch), Some(base)) = (change.batch, base) {
            self.push_records(state, batch, base, now);
        }
        self.waiters.push(Waiter::Change(staged.done));
        let moved = staged.keys.iter().filter(|key| key.holds_a_position());
        moved.for_each(|key| shared.position_moved(state, key.topic()));
        if !staged.keys.is_empty() {
            let of_change = |key: &RowKey| key.topic() == change.topic;
            let (own, others): (Vec<_>, Vec<_>) = staged.keys.into_iter().partition(of_change);
            self.push_rows(state, change.topic, staged.number, &own, now);
            self.push_others(state, &others, now);
        }
    }

    /// Rows of other topics that a change of the peer touched stand in entries of those topics: an entry of the
    /// peer would be applied before whatever the group has of them already (C3).
    fn push_others(&mut self, state: &mut State, keys: &[RowKey], now: Timestamp) {
        for keys in keys.chunk_by(|one, next| one.topic() == next.topic()) {
            let id = keys[0].topic();
            let number = state.take_state_number(id);
            self.push_rows(state, id, number, keys, now);
        }
    }

    /// Sorts the entries by topic and tells what the group does to each.
    pub fn touched(&mut self, state: &State, shared: &Shared) -> Vec<Touched> {
        if self
            .entries
            .iter()
            .any(|entry| entry.topic != self.entries[0].topic)
        {
            self.entries.sort_by_key(|entry| entry.topic);
        }
        let mut touched: Vec<Touched> = Vec::new();
        let topics = shared.topics();
        for entry in &self.entries {
            if touched.last().is_none_or(|last| last.topic != entry.topic) {
                touched.push(touch(state, entry, topics.by_id.get(&entry.topic).cloned()));
            } else if let Some(last) = touched.last_mut()
                && entry.kind != EntryKind::Records
            {
                last.state = last.state.max(StateNumber::new(entry.number));
            }
        }
        touched
    }
}

/// Where a batch of the peer's own goes, under the rules for everybody's.
fn admit(
    state: &State,
    shared: &Shared,
    (id, batch): &(TopicId, CheckedBatch),
) -> Result<Offset, ApiError> {
    if let Some(refusal) = shared.refusal() {
        return Err(refusal);
    }
    let topic = state.topic(*id)?;
    match topic.admit(topic.row.epoch, &facts_of(batch))? {
        Admission::Append(base) => Ok(base),
        Admission::Duplicate { .. } => Err(ApiError::InvalidArgument {
            what: "batch".to_owned(),
            reason: "it was stored before".to_owned(),
        }),
    }
}

/// Where a batch was stored before, if that is known.
pub(super) fn stored_before(
    state: &State,
    topic: TopicId,
    terms: Terms,
    facts: &BatchFacts,
) -> Option<Published> {
    match state.topic(topic).ok()?.admit(terms, facts) {
        Ok(Admission::Duplicate { base, end }) => Some(published_before(state, topic, base, end)),
        Ok(Admission::Append(_)) | Err(_) => None,
    }
}

fn published_before(state: &State, topic: TopicId, base: Offset, end: Offset) -> Published {
    let topic = state.topic(topic);
    Published {
        base_offset: base,
        end_offset: end,
        durability: topic.map_or(Durability::Fsync, |topic| topic.row.settings.durability),
        duplicate: true,
    }
}

pub(super) fn facts_of(batch: &CheckedBatch) -> BatchFacts {
    let header = batch.header();
    BatchFacts {
        producer: header.producer,
        producer_epoch: header.producer_epoch,
        first: header.first_sequence,
        count: header.record_count,
        bytes: batch.bytes().len() as u64,
        id: batch.id(),
    }
}

fn touch(state: &State, entry: &StagedEntry, shared: Option<Arc<TopicShared>>) -> Touched {
    let id = entry.topic;
    let own = if entry.kind == EntryKind::Records {
        0
    } else {
        entry.number
    };
    let (end, number, durability, bytes) = match state.topic(id) {
        Ok(topic) => (
            topic.row.end,
            topic.row.state_number,
            topic.row.settings.durability,
            topic.row.bytes,
        ),
        Err(_) if id.is_zero() => {
            let number = state.peer().state_number;
            (Offset::ZERO, number, Durability::Fsync, 0)
        }
        Err(_) => (
            Claim::DELETED_END,
            StateNumber::new(own),
            Durability::Fsync,
            0,
        ),
    };
    // While the end is uncertain, what was claimed once is claimed again, so the loss stays told; and readers
    // stay where the records do.
    let quarantine = state.topic(id).ok().and_then(|topic| topic.row.quarantine);
    let readable_end = quarantine.map_or(end, |quarantine| end.min(quarantine.intact_end));
    let claimed_end = quarantine.map_or(end, |quarantine| end.max(quarantine.claimed_end));
    Touched {
        topic: id,
        shared,
        end: readable_end,
        claimed_end,
        state: number,
        durability,
        bytes,
    }
}
