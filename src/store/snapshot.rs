//! State snapshots: the whole state in the stream, so that what lies before can be let go of.
//!
//! ```text
//!   group   k                      k+1               …            e
//!           | begin, peer, rows    | rows, rows      | rows       | peer, end |
//!             between them whatever publishers and subscribers do
//! ```
//!
//! The writer emits rows as ordinary state entries, some in every group, so
//! nobody waits for a snapshot. A rebuild of the catalog starts at group `k` with
//! nothing and arrives at the same state as everybody else.
//!
//! 1. Each row is emitted as it is at its place in the stream; rows deleted since
//!    the begin are passed over. Later changes follow as ordinary entries, which
//!    the replay applies on top. So every order of change and emission is right.
//! 2. A topic's row comes before what belongs to it, that of a consumer group before its pages; and whoever changes a
//!    page writes the group's row in front of it. What the replay
//!    meets of a topic before that row is contained in it.
//! 3. The marks are no facts and take no number; rows take their topic's next one.
//! 4. The end names the begin and the number of rows after the group it is in.
//! 5. A snapshot is *usable* when its end is durable, a durable group claims it,
//!    the catalog has applied it, and a replay of what lies on the disk from its
//!    first to its last group found all of them whole and as many rows. Nothing
//!    of a usable snapshot can be cut by a recovery, since all of it is known to
//!    be durable; one that a crash interrupts before is never used.
//! 6. It is relied on when a durable slot header names it: then the begin is
//!    found without the catalog.

use std::collections::VecDeque;

use super::command::{Done, SnapshotWritten};
use super::recovery::{KeptGroup, Replay};
use super::shared::Shared;
use super::staging::{Staging, Waiter};
use crate::journal::{
    EntryKind, FIRST_POSITION, Kind, Payloads, Place, SegmentReader, SnapshotAt, SnapshotEnd, Step,
};
use crate::limits;
use crate::time::Timestamp;
use crate::topic::{RowKey, State};
use crate::types::{LeaderEpoch, StateNumber, TopicId};

/// A snapshot being written. The writer owns it.
pub(super) struct Emission {
    done: Done<SnapshotWritten>,
    begin: Option<SnapshotAt>,
    begun: bool,
    segments: VecDeque<u64>,
    topics: VecDeque<TopicId>,
    /// What is left of the topic whose row was emitted last.
    of_topic: VecDeque<RowKey>,
    bytes: u64,
}

impl Emission {
    /// A snapshot of `state`; `done` is told when its end is durable.
    pub fn new(state: &State, done: Done<SnapshotWritten>) -> Self {
        Self {
            done,
            begin: None,
            begun: false,
            segments: state.segments().keys().copied().collect(),
            topics: state.topics().map(|topic| topic.id).collect(),
            of_topic: VecDeque::new(),
            bytes: 0,
        }
    }

    /// Adds the next rows to the group in the making.
    pub fn fill(&mut self, state: &mut State, staging: &mut Staging, group_bytes: usize) {
        let now = Timestamp::now();
        let bound = staging.bytes + limits::SNAPSHOT_GROUP_BYTES.min(group_bytes / 2);
        let before = staging.bytes;
        if !self.begun {
            self.begun = true;
            push_mark(staging, EntryKind::SnapshotBegin, Vec::new(), now);
            push_rows(state, staging, TopicId::zero(), vec![RowKey::Peer], now);
        }
        while staging.bytes < bound
            && let Some((topic, keys)) = self.next_rows(state)
        {
            push_rows(state, staging, topic, keys, now);
        }
        self.bytes += (staging.bytes - before) as u64;
    }

    /// Whether only the end is missing, and where the begin is known.
    pub fn is_complete(&self) -> bool {
        let empty = self.segments.is_empty() && self.topics.is_empty() && self.of_topic.is_empty();
        empty && self.begin.is_some()
    }

    /// Notes where a group with part of the snapshot came to lie.
    pub fn note_group(&mut self, place: Place, number: u64) {
        if self.begun && self.begin.is_none() {
            self.begin = Some(SnapshotAt {
                place,
                group: number,
            });
        }
    }

    /// Adds the end to the group in the making, which will have the given number. Nothing else is added to that group.
    pub fn finish(self, state: &mut State, staging: &mut Staging, number: u64) {
        let begin = self.begin.expect("the begin was written before the end");
        let now = Timestamp::now();
        // The catalog follows where rows change: with this one it comes to stand behind the end.
        push_rows(state, staging, TopicId::zero(), vec![RowKey::Peer], now);
        let rows = state.row_count();
        let end = SnapshotEnd { begin, rows }.encode().to_vec();
        push_mark(staging, EntryKind::SnapshotEnd, end, now);
        let written = SnapshotWritten {
            begin,
            end_group: number,
            rows,
            bytes: self.bytes,
            peer: state.peer().clone(),
        };
        let done = self.done;
        let waiter = Box::new(move |outcome: Result<(), _>| done(outcome.map(|()| written)));
        staging.waiters.push(Waiter::Change(waiter));
    }

    /// How many rows of the topic go into the next entry: those of ids are the largest, and go by fewer.
    fn rows_at_once(&self) -> usize {
        let is_of_ids = |key: &&RowKey| matches!(key, RowKey::Ids(..));
        let others = self.of_topic.iter().take_while(|key| !is_of_ids(key));
        match others.take(limits::SNAPSHOT_ENTRY_ROWS).count() {
            0 => (limits::SNAPSHOT_ENTRY_ROWS / 4).min(self.of_topic.len()),
            count => count,
        }
    }

    /// The rows of the next entry, all of one topic and all there.
    fn next_rows(&mut self, state: &State) -> Option<(TopicId, Vec<RowKey>)> {
        loop {
            let (topic, mut keys) = if !self.of_topic.is_empty() {
                let count = self.rows_at_once();
                let keys: Vec<RowKey> = self.of_topic.drain(..count).collect();
                (keys[0].topic(), keys)
            } else if !self.segments.is_empty() {
                let count = limits::SNAPSHOT_ENTRY_ROWS.min(self.segments.len());
                let keys = self.segments.drain(..count).map(RowKey::Segment).collect();
                (TopicId::zero(), keys)
            } else {
                let topic = self.topics.pop_front()?;
                self.of_topic = keys_of(state, topic);
                (topic, vec![RowKey::Topic(topic)])
            };
            if topic.is_zero() || state.topic(topic).is_ok() {
                keys.retain(|key| state.row(key).is_some());
                if !keys.is_empty() {
                    return Some((topic, keys));
                }
            }
        }
    }
}

/// The keys of a topic's rows but its own, as they are when its own is emitted.
fn keys_of(state: &State, id: TopicId) -> VecDeque<RowKey> {
    match state.topic(id) {
        Ok(topic) => topic.keys().collect(),
        Err(_) => VecDeque::new(),
    }
}

fn push_rows(
    state: &mut State,
    staging: &mut Staging,
    topic: TopicId,
    keys: Vec<RowKey>,
    now: Timestamp,
) {
    let number = state.take_state_number(topic);
    staging.push_rows(state, topic, number, &keys, now);
}

fn push_mark(staging: &mut Staging, kind: EntryKind, payload: Vec<u8>, now: Timestamp) {
    let (zero, number) = (TopicId::zero(), StateNumber::ZERO);
    staging.push_state(kind, zero, number, LeaderEpoch::ZERO, payload.into(), now);
}

/// Reads a snapshot back as a rebuild would. `Err` says what is wrong with it.
pub(super) fn verify(shared: &Shared, written: &SnapshotWritten) -> Result<(), String> {
    let mut replay = Replay::new(State::new(written.peer.clone()), written.begin.group - 1);
    replay.begin_at_snapshot(written.begin);
    let mut next = written.begin.group;
    let segments = shared.segments.all();
    let stream = segments.iter().filter(|segment| {
        segment.number >= written.begin.place.segment && segment.header.kind != Kind::Cold
    });
    for segment in stream {
        let slot = segment
            .slot(&shared.dir)
            .map_err(|error| error.to_string())?;
        let mut reader = SegmentReader::new(slot, &segment.header, Payloads::Verify);
        let from = if next == written.begin.group {
            written.begin.place.position
        } else {
            FIRST_POSITION
        };
        reader.seek(from, Some(next));
        while next <= written.end_group {
            let step = reader.step().map_err(|error| error.to_string())?;
            let Step::Group(group) = step else { break };
            replay.group(&KeptGroup::keep(&group));
            next += 1;
        }
    }
    if next <= written.end_group {
        return Err(format!("group {next} of it cannot be found"));
    }
    match (replay.snapshot_fault(), replay.damage.first()) {
        (None, None) => Ok(()),
        (Some(fault), _) => Err(fault),
        (None, Some(damage)) => Err(damage.clone()),
    }
}
