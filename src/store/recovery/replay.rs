//! The replay: what the groups of the walk do to the state.
//!
//! State entries put rows as they were then; record entries move the end of
//! their topic. Entries up to the catalog's position are in the state already;
//! of them only the places of records are noted. What was claimed and is not
//! there is found by comparing claims with the state at the end (J11).

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::walk::{KeptEntry, KeptGroup};
use crate::journal::{Claim, EntryKind, FooterBuilder, Place, SnapshotAt, SnapshotEnd, StateOp};
use crate::limits;
use crate::protocol::batch::{BatchHeader, CheckedBatch};
use crate::topic::{BatchFacts, Row, RowChange, RowKey, State};
use crate::types::{Offset, StateNumber, TopicId};

/// What a walked segment holds.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    pub footer: FooterBuilder,
    pub first_group: u64,
    pub last_group: u64,
    /// End of the last group in it, padding included.
    pub end: u32,
    /// Something in it cannot be read.
    pub damaged: bool,
}

/// The state in the making.
pub(crate) struct Replay {
    pub state: State,
    /// Groups up to this number are in the state already.
    applied: u64,
    pub contents: BTreeMap<u64, Contents>,
    pub claims: HashMap<TopicId, Claim>,
    /// Topics that any walked group touched.
    pub touched: BTreeSet<TopicId>,
    /// Topics whose deletion any walked group holds, also one that is in the state already: earlier
    /// claims in the same segment still speak of them.
    deleted: BTreeSet<TopicId>,
    /// State numbers that are missing below one that is there.
    missing_states: HashMap<TopicId, StateNumber>,
    /// Before these offsets batches are lost, and it is not known whose. Told to the topics at the end: rows
    /// that come later in the journal know nothing of it.
    missed: HashMap<TopicId, Offset>,
    /// What was found wrong, one line each.
    pub damage: Vec<String>,
    /// Topics that were claimed, and nothing says that they ever were: their creation cannot be read.
    lost_topics: Vec<TopicId>,
    /// Set where the state is built from a snapshot.
    snapshot: Option<FromSnapshot>,
    /// The peer's state numbers go on from what the state has; from a snapshot on they begin with any.
    number_known: bool,
}

/// How far the snapshot is that the state is built from.
#[derive(Debug)]
struct FromSnapshot {
    begin: SnapshotAt,
    /// Rows there should be after the group with the end.
    rows: Option<u64>,
    fault: Option<String>,
    complete: bool,
}

impl Replay {
    /// A replay onto `state`, which has everything up to group `applied`.
    pub fn new(state: State, applied: u64) -> Self {
        Self {
            state,
            applied,
            contents: BTreeMap::new(),
            claims: HashMap::new(),
            touched: BTreeSet::new(),
            deleted: BTreeSet::new(),
            missing_states: HashMap::new(),
            missed: HashMap::new(),
            damage: Vec::new(),
            lost_topics: Vec::new(),
            snapshot: None,
            number_known: true,
        }
    }

    /// Nothing is known but what the snapshot that begins there will say.
    pub fn begin_at_snapshot(&mut self, begin: SnapshotAt) {
        self.number_known = false;
        self.snapshot = Some(FromSnapshot {
            begin,
            rows: None,
            fault: None,
            complete: false,
        });
    }

    /// Whether the state is built from a snapshot.
    pub fn is_from_snapshot(&self) -> bool {
        self.snapshot.is_some()
    }

    /// Why the snapshot the state is built from does not hold all of it, if that is so.
    pub fn snapshot_fault(&self) -> Option<String> {
        let snapshot = self.snapshot.as_ref()?;
        match &snapshot.fault {
            Some(fault) => Some(fault.clone()),
            None if snapshot.complete => None,
            None => Some("its end cannot be found".to_owned()),
        }
    }

    /// Something that belongs to the snapshot, as long as that is not complete, is wrong.
    fn blame_snapshot(&mut self, group: u64) {
        if let Some(snapshot) = &mut self.snapshot
            && !snapshot.complete
            && group >= snapshot.begin.group
            && snapshot.fault.is_none()
        {
            snapshot.fault = Some(format!("group {group} of it cannot be read whole"));
        }
    }

    /// After a group: if the snapshot's end was in it, all rows have to be there.
    fn check_snapshot_rows(&mut self) {
        let found = self.state.row_count();
        if let Some(snapshot) = &mut self.snapshot
            && let Some(expected) = snapshot.rows.take()
        {
            snapshot.complete = true;
            if found != expected && snapshot.fault.is_none() {
                let fault = format!("it should hold {expected} rows and holds {found}");
                snapshot.fault = Some(fault);
            }
        }
    }

    /// Applies a group that lies where its segment keeps it.
    pub fn group(&mut self, group: &KeptGroup) {
        self.note_place(group);
        if !group.whole {
            self.blame_snapshot(group.header.number);
            self.contents
                .entry(group.place.segment)
                .or_default()
                .damaged = true;
            self.damage.push(format!(
                "group {} at {}: some entries cannot be read",
                group.header.number, group.place
            ));
        }
        let contents = self.contents.entry(group.place.segment).or_default();
        for entry in &group.entries {
            contents.footer.add(&entry.header, entry.position);
        }
        self.claims(group.header.synced, &group.claims);
        for entry in &group.entries {
            self.touched.insert(entry.header.topic);
            if group.header.number > self.applied {
                self.entry(entry);
            }
            self.note_deletion(entry);
        }
        self.check_snapshot_rows();
    }

    fn note_deletion(&mut self, entry: &KeptEntry) {
        let id = entry.header.topic;
        if entry.header.kind != EntryKind::State
            || !entry.payload_ok
            || self.state.topic(id).is_ok()
        {
            return;
        }
        let key = RowKey::Topic(id).encode();
        let deletes = |operation: &StateOp| matches!(operation, StateOp::Delete { key: found } if *found == key);
        if StateOp::decode_all(&entry.payload).is_ok_and(|all| all.iter().any(deletes)) {
            self.deleted.insert(id);
        }
    }

    /// Takes note of what a group says of those up to `synced`; of groups that do not count themselves too.
    /// Keeps the highest: groups that are copied repeat claims that are older than those of cut ones.
    pub fn claims(&mut self, synced: u64, claims: &[Claim]) {
        for claim in claims {
            // Of groups that are in the state already nothing is missing. A topic that is not there was deleted
            // by then, though the claim of its deletion may not have been written any more.
            let settled = synced <= self.applied && self.state.topic(claim.topic).is_err();
            if !claim.topic.is_zero() && settled {
                continue;
            }
            let known = self.claims.entry(claim.topic).or_insert(*claim);
            known.durable_end = known.durable_end.max(claim.durable_end);
            known.state = known.state.max(claim.state);
        }
    }

    fn note_place(&mut self, group: &KeptGroup) {
        let contents = self.contents.entry(group.place.segment).or_default();
        if contents.first_group == 0 {
            contents.first_group = group.header.number;
        }
        contents.last_group = group.header.number;
        contents.end = group.end.position;
    }

    /// Groups that were durable cannot be read. Which of the segments held them is not known, so all of them
    /// are kept as they are (J14).
    pub fn missing(&mut self, first: u64, next: u64, place: Place, segments: &[u64]) {
        self.blame_snapshot(first);
        for &segment in segments {
            let row = self.state.segments().get(&segment);
            let ends_before = segment == place.segment
                && row.is_some_and(|row| row.end == place.position && !row.damaged);
            if !ends_before {
                self.contents.entry(segment).or_default().damaged = true;
            }
        }
        self.damage.push(format!(
            "groups {first} to {} at {place} cannot be read",
            next - 1
        ));
    }

    fn entry(&mut self, entry: &KeptEntry) {
        match entry.header.kind {
            EntryKind::Records => self.records(entry),
            EntryKind::State => self.state_entry(entry),
            EntryKind::SnapshotBegin => {}
            EntryKind::SnapshotEnd => {
                if let Some(snapshot) = &mut self.snapshot
                    && let Ok(end) = SnapshotEnd::decode(&entry.payload)
                    && end.begin == snapshot.begin
                    && entry.payload_ok
                {
                    snapshot.rows = Some(end.rows);
                }
            }
        }
    }

    /// Records move the end of their topic, once (T2).
    fn records(&mut self, entry: &KeptEntry) {
        let id = entry.header.topic;
        let base = Offset::new(entry.header.number);
        // Records of a topic that is not there: it is deleted later in the stream, or was before the catalog's position.
        let Ok(topic) = self.state.topic_mut(id) else {
            return;
        };
        let facts = facts_of(entry);
        if base < topic.row.end {
            // The catalog takes a large change in pieces: a kill between them leaves this row newer than the
            // position, and those of its producers perhaps not (T3).
            topic.recall(&facts, base, entry.header.append_time);
            if let Some(row) = topic.row_of(&facts, base) {
                self.state.mark_dirty(row);
            }
            return;
        }
        if base > topic.row.end {
            let (from, to) = (topic.row.end, base);
            self.damage.push(format!(
                "topic {}: records [{from}, {to}) are missing",
                topic.row.name
            ));
            note_missed(&mut self.missed, id, base);
        }
        topic.appended(&facts, base, entry.header.append_time);
        let row = topic.row_of(&facts, base);
        if !entry.payload_ok {
            // Whose batch it was is not known, so any of the known producers may have got that far.
            note_missed(&mut self.missed, id, topic.row.end);
        }
        if let Some(row) = row {
            self.state.mark_dirty(row);
        }
    }

    fn state_entry(&mut self, entry: &KeptEntry) {
        let id = entry.header.topic;
        let number = StateNumber::new(entry.header.number);
        if id.is_zero() && !self.number_known {
            self.number_known = true;
            self.state
                .set_state_number(id, StateNumber::new(number.get().saturating_sub(1)));
        }
        let operations = if entry.payload_ok {
            StateOp::decode_all(&entry.payload).ok()
        } else {
            None
        };
        let Some(operations) = operations else {
            self.damage
                .push(format!("state entry {number} of {id} cannot be read"));
            return;
        };
        let before = self.state.state_number(id);
        if let Some(before) = before
            && number > before.next()
        {
            let missing = self.missing_states.entry(id).or_default();
            *missing = (*missing).max(StateNumber::new(number.get() - 1));
        }
        for operation in operations {
            match decode(operation) {
                Ok(change) => {
                    self.note_skipped(&change);
                    self.state.apply(change);
                }
                Err(error) => self
                    .damage
                    .push(format!("state entry {number} of {id}: {error}")),
            }
        }
        self.state.set_state_number(id, number);
    }

    /// A row that knows of records the walk did not meet: they lay in something that cannot be read. The row
    /// is no repair; but the end it names is right, and the offsets before it are not given again.
    fn note_skipped(&mut self, change: &RowChange) {
        let RowChange {
            key: RowKey::Topic(id),
            row: Some(Row::Topic(row)),
        } = change
        else {
            return;
        };
        let Ok(topic) = self.state.topic(*id) else {
            return;
        };
        let (from, to) = (topic.row.end, row.end);
        // Where offsets were given up, by an unclean stop or by somebody, the row says so itself.
        let told = row.gaps.iter().any(|gap| gap.from <= from && to <= gap.to);
        if from < to && !told {
            self.damage.push(format!(
                "topic {}: records [{from}, {to}) are missing",
                row.name
            ));
            note_missed(&mut self.missed, *id, to);
        }
    }

    /// Facts about the peer as a whole that were durable and cannot be read.
    pub fn missing_facts(&self) -> Vec<String> {
        let fault = self
            .snapshot_fault()
            .map(|fault| format!("the state snapshot is not whole: {fault}"));
        fault.into_iter().chain(self.missing_numbers()).collect()
    }

    fn missing_numbers(&self) -> Option<String> {
        let peer = self.state.peer();
        let claimed = self
            .claims
            .get(&TopicId::zero())
            .map(|claim| claim.state)
            .unwrap_or_default();
        let skipped = self
            .missing_states
            .get(&TopicId::zero())
            .copied()
            .unwrap_or_default();
        let tail = if peer.state_number < claimed {
            claimed
        } else {
            StateNumber::ZERO
        };
        let missing = skipped.max(tail);
        if missing <= peer.accepted_state {
            return None;
        }
        Some(format!(
            "facts about the peer up to number {missing} were durable and cannot be read"
        ))
    }

    /// Goes on without them.
    pub fn accept_missing_facts(&mut self, missing: Vec<String>) {
        if missing.is_empty() {
            return;
        }
        self.damage.extend(missing);
        let claimed = self
            .claims
            .get(&TopicId::zero())
            .map(|claim| claim.state)
            .unwrap_or_default();
        let row = self.state.peer_mut();
        row.state_number = row.state_number.max(claimed);
        row.accepted_state = row.state_number;
    }

    /// Compares what was claimed of the topics with what is there.
    pub fn judge(&mut self) {
        for claim in self
            .claims
            .clone()
            .into_values()
            .filter(|claim| !claim.topic.is_zero())
        {
            self.judge_topic(claim);
        }
        for (id, before) in std::mem::take(&mut self.missed) {
            if let Ok(topic) = self.state.topic_mut(id) {
                topic.may_miss_batches_before(before);
            }
        }
        for (id, missing) in std::mem::take(&mut self.missing_states) {
            self.quarantine(id, Offset::ZERO, missing);
        }
    }

    fn judge_topic(&mut self, claim: Claim) {
        match self.state.topic(claim.topic) {
            Ok(topic) if claim.durable_end == Claim::DELETED_END => {
                let line = format!(
                    "topic {}: its deletion cannot be read, so it is still there",
                    topic.row.name
                );
                self.damage.push(line);
            }
            Ok(topic)
                if topic.row.end < claim.durable_end || topic.row.state_number < claim.state =>
            {
                self.quarantine(claim.topic, claim.durable_end, claim.state);
            }
            Ok(_) => {}
            Err(_) if claim.durable_end == Claim::DELETED_END => {}
            // The claim of its deletion was not written any more.
            Err(_) if self.deleted.contains(&claim.topic) => {}
            Err(_) => {
                self.lost_topics.push(claim.topic);
                self.damage.push(format!(
                    "topic id {}: its creation cannot be read",
                    claim.topic
                ));
            }
        }
    }

    /// Segments with records of topics that cannot be told from deleted ones are kept as if they were damaged.
    pub fn keep_what_is_lost(&mut self) {
        for contents in self.contents.values_mut() {
            let holds = |id: &TopicId| contents.footer.topic(*id).is_some();
            contents.damaged |= self.lost_topics.iter().any(holds);
        }
    }

    fn quarantine(&mut self, id: TopicId, claimed_end: Offset, claimed_state: StateNumber) {
        let Ok(topic) = self.state.topic_mut(id) else {
            return;
        };
        let accepted = topic.row.accepted_state;
        if claimed_end <= topic.row.end && claimed_state <= accepted {
            return;
        }
        let claimed_end = claimed_end.max(topic.row.end);
        topic.quarantine(claimed_end, claimed_state.max(topic.row.state_number));
        let (name, end) = (topic.row.name.clone(), topic.row.end);
        self.damage.push(format!(
            "topic {name} is quarantined: intact up to {end}, durable up to {claimed_end}"
        ));
    }
}

fn note_missed(missed: &mut HashMap<TopicId, Offset>, topic: TopicId, before: Offset) {
    let known = missed.entry(topic).or_default();
    *known = before.max(*known);
}

/// What a record entry says about its producer; of a damaged batch only the number of records is believed.
fn facts_of(entry: &KeptEntry) -> BatchFacts {
    let header = if entry.payload_ok {
        BatchHeader::parse(&entry.payload).ok()
    } else {
        None
    };
    BatchFacts {
        producer: header
            .as_ref()
            .map(|header| header.producer)
            .unwrap_or_default(),
        producer_epoch: header
            .as_ref()
            .map(|header| header.producer_epoch)
            .unwrap_or_default(),
        first: header
            .as_ref()
            .map(|header| header.first_sequence)
            .unwrap_or_default(),
        count: entry.header.records,
        bytes: u64::from(entry.header.payload_bytes),
        id: header
            .filter(|header| header.has_id)
            .and_then(|_| {
                let bytes = entry.payload.clone().into();
                CheckedBatch::check(bytes, limits::MESSAGE_BYTES_MAX).ok()
            })
            .and_then(|batch| batch.id()),
    }
}

fn decode(operation: StateOp) -> Result<RowChange, crate::protocol::codec::Malformed> {
    match operation {
        StateOp::Put { key, value } => {
            let key = RowKey::decode(&key)?;
            let row = Row::decode(&key, &value)?;
            Ok(RowChange {
                key,
                row: Some(row),
            })
        }
        StateOp::Delete { key } => Ok(RowChange {
            key: RowKey::decode(&key)?,
            row: None,
        }),
    }
}
