//! One topic: its row, its subscriptions, its producers, and the decisions on publishing.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use super::batch::{Admission, BatchFacts, Terms};
use super::consumers::Consumers;
use super::ids::{Ids, page_of};
use super::producers;
use super::purges::PurgeRow;
use super::rows::{HistoryRow, ProducerRow, QuarantineRow, RowKey, SubscriptionRow, TopicRow};
use crate::limits;
use crate::protocol::error::ApiError;
use crate::time::Timestamp;
use crate::types::{
    Durability, Gap, GapReason, IdDigest, LeaderEpoch, Offset, ProducerId, SubscriptionName,
    TopicId, WhenFull,
};

/// One topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic {
    /// Its id.
    pub id: TopicId,
    /// Its row.
    pub row: TopicRow,
    /// Its subscriptions.
    pub subscriptions: BTreeMap<SubscriptionName, SubscriptionRow>,
    /// What moved them.
    pub histories: BTreeMap<SubscriptionName, HistoryRow>,
    /// Its producers.
    pub producers: HashMap<ProducerId, ProducerRow>,
    /// Its consumer groups.
    pub consumers: Consumers,
    /// The message ids it remembers.
    pub ids: Ids,
    /// Purges of keys that are under way, by number.
    pub purges: BTreeMap<u64, PurgeRow>,
}

impl Topic {
    /// A topic with nothing in it but its row.
    pub fn new(id: TopicId, row: TopicRow) -> Self {
        Self {
            id,
            row,
            subscriptions: BTreeMap::new(),
            histories: BTreeMap::new(),
            producers: HashMap::new(),
            consumers: Consumers::default(),
            ids: Ids::default(),
            purges: BTreeMap::new(),
        }
    }

    /// The names of the rows that belong to it, each before what belongs to it in turn.
    pub fn keys(&self) -> impl Iterator<Item = RowKey> {
        let id = self.id;
        let subscriptions = self.subscriptions.keys();
        let subscriptions = subscriptions.map(move |name| RowKey::Subscription(id, name.clone()));
        let producers = self.producers.keys();
        let producers = producers.map(move |&producer| RowKey::Producer(id, producer));
        let histories = self.histories.keys();
        let histories = histories.map(move |name| RowKey::History(id, name.clone()));
        let groups = self.consumers.groups();
        let groups = groups.map(move |(name, _)| RowKey::ConsumerGroup(id, name.clone()));
        let pages = self.consumers.pages();
        let pages = pages.map(move |(generation, page)| RowKey::ConsumerPage(id, generation, page));
        let of_subscriptions = subscriptions.chain(histories);
        let of_groups = groups.chain(pages);
        let ids = self.ids.pages().map(move |page| RowKey::Ids(id, page));
        let purges = self.purges.keys();
        let purges = purges.map(move |&number| RowKey::Purge(id, number));
        let of_publishers = producers.chain(ids).chain(purges);
        of_subscriptions.chain(of_publishers).chain(of_groups)
    }

    /// Whether anybody was told of something in it: a message, a position, a producer's epoch.
    pub fn is_used(&self) -> bool {
        let is_read = !self.subscriptions.is_empty() || self.consumers.count().0 > 0;
        self.row.end > Offset::ZERO || is_read || !self.producers.is_empty()
    }

    /// Refuses to publish, and to change what is kept, while the end is uncertain. Subscriptions are not refused:
    /// what is intact can be read, so reading it is worth remembering.
    pub fn check_writable(&self) -> Result<(), ApiError> {
        match self.row.quarantine {
            Some(quarantine) => Err(ApiError::TopicQuarantined {
                name: self.row.name.clone(),
                end: quarantine.intact_end,
            }),
            None => Ok(()),
        }
    }

    /// Refuses a request that carries another leader epoch than the topic has.
    pub fn check_epoch(&self, given: LeaderEpoch) -> Result<(), ApiError> {
        if given == self.row.epoch {
            Ok(())
        } else {
            Err(ApiError::StaleEpoch {
                given,
                current: self.row.epoch,
            })
        }
    }

    /// Decides on a batch. Changes nothing; [`appended`](Self::appended) does once it is in the group.
    pub fn admit(
        &self,
        terms: impl Into<Terms>,
        batch: &BatchFacts,
    ) -> Result<Admission, ApiError> {
        let terms = terms.into();
        self.check_epoch(terms.epoch)?;
        let known = if let Some(id) = batch.id {
            self.check_id(id, terms.ids_since)
        } else if batch.producer.is_zero() {
            Ok(None)
        } else {
            let known = self.producers.get(&batch.producer);
            producers::check(known, batch, self.row.jump_before)
        };
        // What is stored is stored, whatever is refused now; but not what a quarantine has made uncertain.
        let is_intact = |end: Offset| {
            (self.row.quarantine).is_none_or(|quarantine| end <= quarantine.intact_end)
        };
        if let Ok(Some(Admission::Duplicate { base, end })) = known
            && is_intact(end)
        {
            return Ok(Admission::Duplicate { base, end });
        }
        self.check_writable()?;
        known?;
        if let Some(expected) = terms.expected_end
            && expected != self.row.end
        {
            let found = self.row.end;
            return Err(ApiError::UnexpectedEnd { expected, found });
        }
        self.check_room(batch)?;
        match self.row.end.checked_add(u64::from(batch.count)) {
            Some(_) => Ok(Admission::Append(self.row.end)),
            None => Err(ApiError::BadBatch {
                reason: "the topic is out of offsets".to_owned(),
            }),
        }
    }

    /// Refuses a batch that would pass a bound of a topic which discards nothing to make room (T6).
    fn check_room(&self, batch: &BatchFacts) -> Result<(), ApiError> {
        if self.row.settings.when_full == WhenFull::DiscardOldest {
            return Ok(());
        }
        let (bytes_max, records_max) = {
            let kept = &self.row.settings.retention;
            let or_any = |bound: Option<u64>| bound.unwrap_or(u64::MAX);
            (or_any(kept.bytes), or_any(kept.records))
        };
        let count = u64::from(batch.count);
        if batch.bytes > bytes_max || count > records_max {
            // Waiting would not help: not even an empty topic has room for it.
            let name = &self.row.name;
            return Err(ApiError::BadBatch {
                reason: format!(
                    "a batch of {count} records in {} bytes never fits into {name}, which refuses what is above \
                     its bounds: publish smaller batches",
                    batch.bytes
                ),
            });
        }
        let (bytes, records) = (self.row.bytes, self.row.records());
        let has_room = bytes_max.saturating_sub(bytes) >= batch.bytes
            && records_max.saturating_sub(records) >= count;
        match has_room {
            true => Ok(()),
            false => Err(ApiError::TopicFull {
                name: self.row.name.clone(),
                records,
                bytes,
            }),
        }
    }

    /// Whether a message of that id is there.
    fn check_id(
        &self,
        id: IdDigest,
        since: Option<Timestamp>,
    ) -> Result<Option<Admission>, ApiError> {
        if !self.row.settings.ids.is_on() {
            let name = self.row.name.clone();
            return Err(ApiError::IdsNotRemembered { name });
        }
        let duplicate = |base: Offset| Admission::Duplicate {
            base,
            end: base.next(),
        };
        Ok(self.ids.find(id, since).map(duplicate))
    }

    /// Notes that the batch stands at `[base, base + count)`. Used when it is written, and at replay.
    pub fn appended(&mut self, batch: &BatchFacts, base: Offset, now: Timestamp) {
        let end = base.saturating_add(u64::from(batch.count));
        self.row.end = self.row.end.max(end);
        self.row.bytes = self.row.bytes.saturating_add(batch.bytes);
        self.row.last_append = self.row.last_append.max(Some(now));
        self.recall(batch, base, now);
    }

    /// Notes whose batch stands at `base`, below the end: the row of the topic may be newer than those of its
    /// producers.
    pub fn recall(&mut self, batch: &BatchFacts, base: Offset, now: Timestamp) {
        if let Some(id) = batch.id
            && self.row.settings.ids.is_on()
        {
            self.ids.remember(id, base, now);
        }
        if !batch.producer.is_zero() {
            producers::remember(&mut self.producers, batch, base, now);
        }
    }

    /// The row that changes with a batch at `base`, beside the topic's.
    pub fn row_of(&self, batch: &BatchFacts, base: Offset) -> Option<RowKey> {
        match batch.id {
            Some(_) => Some(RowKey::Ids(self.id, page_of(base))),
            None if batch.producer.is_zero() => None,
            None => Some(RowKey::Producer(self.id, batch.producer)),
        }
    }

    /// Before when ids are forgotten, if it is now `now`.
    pub fn ids_since(&self, now: Timestamp) -> Option<Timestamp> {
        let kept = self.row.settings.ids.for_ms.map(Duration::from_millis);
        kept.map(|kept| self.append_time(now).before(kept))
    }

    /// Pages of ids to forget: superfluous, or too old. Some at a time.
    pub fn surplus_ids(&self, since: Option<Timestamp>) -> Vec<u64> {
        self.ids.surplus(self.row.settings.ids.most(), since)
    }

    /// Forgets pages of ids; returns their rows.
    pub fn forget_ids(&mut self, pages: &[u64]) -> Vec<RowKey> {
        let forget = |&page| {
            self.ids.forget(page);
            RowKey::Ids(self.id, page)
        };
        pages.iter().map(forget).collect()
    }

    /// Batches before this offset are lost and it is not known whose: producers seen last before it may go on
    /// at a higher sequence, once.
    pub fn may_miss_batches_before(&mut self, offset: Offset) {
        self.row.jump_before = self.row.jump_before.max(Some(offset));
    }

    /// The next append time: the clock's, but never before the last one given.
    pub fn append_time(&self, now: Timestamp) -> Timestamp {
        self.row.last_append.map_or(now, |last| last.max(now))
    }

    /// Moves the start of the topic; `bytes` is what stays. Returns whether anything changed.
    pub fn advance_start(&mut self, to: Offset, bytes: u64) -> bool {
        let to = to.min(self.row.end);
        if to <= self.row.start {
            return false;
        }
        self.row.start = to;
        self.row.bytes = if to == self.row.end {
            0
        } else {
            bytes.min(self.row.bytes)
        };
        self.row.gaps.retain(|gap| gap.to > to);
        true
    }

    /// From now on nobody gets the records of a key that are there; the number of the purge.
    pub fn purge_key(
        &mut self,
        (key, salt): (&[u8], [u8; 16]),
        now: Timestamp,
    ) -> Result<u64, ApiError> {
        self.check_writable()?;
        let max = limits::PURGES_PER_TOPIC_MAX;
        if self.purges.len() >= max {
            return Err(ApiError::InvalidArgument {
                what: "key".to_owned(),
                reason: format!(
                    "{max} purges of {} are under way: try again when one is done",
                    self.row.name
                ),
            });
        }
        let number = self.purges.keys().next_back().map_or(1, |last| last + 1);
        let purge = PurgeRow::new((key, salt), self.row.end, now);
        self.purges.insert(number, purge);
        Ok(number)
    }

    /// Records were taken out of its middle; no batch at or above `end` is thinned by that.
    pub fn take_away(&mut self, records: u64, bytes: i64, end: Offset) {
        let thinned = &mut self.row.thinned;
        thinned.removed = thinned.removed.saturating_add(records);
        thinned.end = thinned.end.max(end);
        self.row.bytes = self.row.bytes.saturating_add_signed(bytes);
    }

    /// Nothing is left below an offset that was to go by compaction; `tombstones` is when the newest deletion left
    /// there was appended. Unless it is not to be compacted any more.
    pub fn cleaned(&mut self, to: Offset, tombstones: Option<Timestamp>) {
        if self.row.settings.compaction.on && self.row.quarantine.is_none() {
            let thinned = &mut self.row.thinned;
            thinned.compacted = thinned.compacted.max(to);
            thinned.tombstones = tombstones;
        }
    }

    /// The start has passed so many offsets whose records were taken away before.
    pub fn pass_removed(&mut self, records: u64) {
        let thinned = &mut self.row.thinned;
        thinned.removed = match self.row.start < thinned.end {
            true => thinned.removed.saturating_sub(records),
            false => 0,
        };
    }

    /// Whether the recorded bound of an `os` topic has to move before `count` more records get offsets far ahead of it.
    pub fn bound_wanted(&self, count: u32) -> Option<Offset> {
        // Each unclean stop leaves a gap behind a bound. Where there is no room for more, records are
        // acknowledged once they are synced, as if the topic were `fsync`, until retention discards gaps.
        if self.row.settings.durability != Durability::Os || self.gaps_are_full() {
            return None;
        }
        let bound = self.row.bound.unwrap_or(Offset::ZERO);
        let needed = self
            .row
            .end
            .saturating_add(u64::from(count))
            .saturating_add(limits::OS_BOUND_AHEAD / 2);
        (bound < needed).then(|| {
            self.row
                .end
                .saturating_add(u64::from(count))
                .saturating_add(limits::OS_BOUND_AHEAD)
        })
    }

    /// After an unclean stop an `os` topic goes on at its bound; what lies between is a gap. Returns whether it moved.
    pub fn jump_to_bound(&mut self) -> bool {
        let Some(bound) = self.row.bound.take() else {
            return false;
        };
        if bound <= self.row.end {
            return true;
        }
        self.add_gap(Gap {
            from: self.row.end,
            to: bound,
            reason: GapReason::Lost,
        });
        self.row.end = bound;
        self.may_miss_batches_before(bound);
        true
    }

    /// Notes missing offsets.
    pub fn add_gap(&mut self, gap: Gap) {
        self.row
            .gaps
            .retain(|old| old.to <= gap.from || old.from >= gap.to);
        self.row.gaps.push(gap);
        self.row.gaps.sort_by_key(|gap| gap.from);
    }

    /// The gap that covers `offset`, if one does.
    pub fn gap_at(&self, offset: Offset) -> Option<Gap> {
        self.row
            .gaps
            .iter()
            .copied()
            .find(|gap| gap.from <= offset && offset < gap.to)
    }

    /// Marks the end as uncertain.
    pub fn quarantine(&mut self, claimed_end: Offset, claimed_state: crate::types::StateNumber) {
        let row = QuarantineRow {
            intact_end: self.row.end,
            claimed_end,
            claimed_state,
        };
        self.row.quarantine = Some(match self.row.quarantine {
            Some(old) => QuarantineRow {
                intact_end: old.intact_end.min(row.intact_end),
                claimed_end: old.claimed_end.max(claimed_end),
                claimed_state: old.claimed_state.max(claimed_state),
            },
            None => row,
        });
        // What was lost may have given generations to subscriptions; none of them is given again (T5).
        self.row.generation = (self.row.generation).saturating_add(limits::GENERATIONS_LOST_MAX);
        // The same of the epochs of named producers.
        let epochs = (self.row.producer_epoch).saturating_add(limits::PRODUCER_EPOCHS_LOST_MAX);
        self.row.producer_epoch = epochs;
        // Later state entries go on above what was lost; the quarantine is what remembers the loss.
        self.row.state_number = self.row.state_number.max(claimed_state);
        self.row.accepted_state = self.row.accepted_state.max(claimed_state);
    }

    /// Ends the quarantine: the topic goes on at its claimed end, the missing part is a gap.
    pub fn accept_loss(&mut self) -> Result<Gap, ApiError> {
        let Some(quarantine) = self.row.quarantine else {
            return Err(ApiError::NotQuarantined {
                name: self.row.name.clone(),
            });
        };
        let gaps = self.row.gaps.len();
        if gaps >= limits::GAPS_ACCEPTED_MAX {
            return Err(ApiError::InvalidArgument {
                what: "topic".to_owned(),
                reason: format!(
                    "{} misses records in {gaps} places already, which is all that is remembered: what is left can be read, publish to \
                     another topic",
                    self.row.name
                ),
            });
        }
        self.row.quarantine = None;
        let from = quarantine.intact_end;
        let to = quarantine.claimed_end.max(from).max(self.row.end);
        let gap = Gap {
            from,
            to,
            reason: GapReason::Damaged,
        };
        if from < to {
            self.add_gap(gap);
        }
        self.row.end = to;
        self.row.accepted_state = self
            .row
            .accepted_state
            .max(quarantine.claimed_state)
            .max(self.row.state_number);
        self.row.state_number = self.row.state_number.max(quarantine.claimed_state);
        self.may_miss_batches_before(to);
        Ok(gap)
    }

    /// Whether one more gap would pass the limit.
    pub fn gaps_are_full(&self) -> bool {
        self.row.gaps.len() >= limits::GAPS_PER_TOPIC_MAX
    }

    /// Producers that did not publish since `before`, at most `max` of them.
    pub fn unused_producers(&self, before: Timestamp, max: usize) -> Vec<ProducerId> {
        producers::unused(&self.producers, before, max)
    }

    /// The producers to forget because there are too many: the longest unused, several at once. None while
    /// there is room.
    pub fn surplus_producers(&self) -> Vec<ProducerId> {
        producers::surplus(&self.producers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topic::NewSubscription;
    use crate::types::{GapReason, LeaderEpoch, StateNumber, TopicSettings};

    fn os_topic() -> Topic {
        let settings = TopicSettings {
            durability: Durability::Os,
            ..TopicSettings::default()
        };
        let name = "quakes.ci".parse().expect("a good name");
        let row = TopicRow::new(name, LeaderEpoch::new(1), settings, Timestamp::default());
        Topic::new(TopicId::from_bytes([1; 16]), row)
    }

    #[test]
    fn in_quarantine_subscriptions_go_on_under_generations_that_cannot_have_been_lost() {
        let mut topic = os_topic();
        let (old, new) = (
            "old".parse().expect("a name"),
            "new".parse().expect("a name"),
        );
        let by = crate::topic::Authored::by_this_program(Timestamp::default());
        topic
            .create_subscription(&old, NewSubscription::at(Offset::ZERO), by.clone())
            .expect("made");
        let before = topic.subscription(&old).expect("there").generation;
        topic.quarantine(Offset::new(4), StateNumber::new(9));
        let kept = topic.subscription(&old).expect("there").generation;
        assert_eq!(kept, before, "what was read under it may be committed");
        topic
            .create_subscription(&new, NewSubscription::at(Offset::ZERO), by.clone())
            .expect("made");
        let given = topic.subscription(&new).expect("there").generation;
        assert!(given.get() > before.get() + limits::GENERATIONS_LOST_MAX);
        topic.seek(&old, Offset::ZERO, by).expect("moved");
        topic.delete_subscription(&new).expect("removed");
        assert!(matches!(
            topic.check_writable(),
            Err(ApiError::TopicQuarantined { .. })
        ));
    }

    #[test]
    fn of_those_who_expect_one_end_the_first_is_stored_and_stays_so() {
        let mut topic = os_topic();
        let facts = |producer, first| BatchFacts {
            producer: crate::types::ProducerId::from_bytes([producer; 16]),
            first: crate::types::Sequence::new(first),
            count: 2,
            bytes: 10,
            ..BatchFacts::default()
        };
        let at = |end| Terms {
            epoch: LeaderEpoch::new(1),
            expected_end: Some(Offset::new(end)),
            ids_since: None,
        };
        let append = Admission::Append(Offset::ZERO);
        assert_eq!(topic.admit(at(0), &facts(1, 0)), Ok(append));
        assert_eq!(topic.admit(at(0), &facts(2, 0)), Ok(append));
        topic.appended(&facts(1, 0), Offset::ZERO, Timestamp::default());
        let late = ApiError::UnexpectedEnd {
            expected: Offset::ZERO,
            found: Offset::new(2),
        };
        for producer in [0, 2] {
            assert_eq!(topic.admit(at(0), &facts(producer, 0)), Err(late.clone()));
        }
        // It is there, whatever came after it and whatever is expected of it now.
        topic.appended(&facts(2, 0), Offset::new(2), Timestamp::default());
        let duplicate = Admission::Duplicate {
            base: Offset::ZERO,
            end: Offset::new(2),
        };
        for end in [0, 2, 4, 9] {
            assert_eq!(topic.admit(at(end), &facts(1, 0)), Ok(duplicate));
        }
    }

    #[test]
    fn in_quarantine_only_what_is_intact_is_a_duplicate() {
        let mut topic = os_topic();
        let facts = |first| BatchFacts {
            producer: crate::types::ProducerId::from_bytes([1; 16]),
            first: crate::types::Sequence::new(first),
            count: 2,
            bytes: 10,
            ..BatchFacts::default()
        };
        topic.appended(&facts(0), Offset::ZERO, Timestamp::default());
        topic.quarantine(Offset::new(4), StateNumber::ZERO);
        // Part of a batch that reaches over what is intact may be what was lost.
        topic.appended(&facts(2), Offset::new(2), Timestamp::default());
        let epoch = LeaderEpoch::new(1);
        let duplicate = Admission::Duplicate {
            base: Offset::ZERO,
            end: Offset::new(2),
        };
        assert_eq!(topic.admit(epoch, &facts(0)), Ok(duplicate));
        for other in [2, 4, 9] {
            let refused = topic.admit(epoch, &facts(other));
            assert!(
                matches!(refused, Err(ApiError::TopicQuarantined { .. })),
                "{other}: {refused:?}"
            );
        }
    }

    /// Each unclean stop added a gap, until the row was too large to be written and the peer never started again.
    #[test]
    fn unclean_stops_without_number_leave_a_bounded_row() {
        let mut topic = os_topic();
        for _ in 0..1000 {
            if let Some(bound) = topic.bound_wanted(1) {
                topic.row.bound = Some(bound);
            }
            topic.row.end = topic.row.end.next();
            topic.jump_to_bound();
        }
        assert_eq!(topic.row.gaps.len(), limits::GAPS_PER_TOPIC_MAX);
        assert_eq!(topic.bound_wanted(1), None, "as if it were `fsync`");
        let lost = |gap: &Gap| gap.reason == GapReason::Lost;
        assert!(topic.row.gaps.iter().all(lost));
        // Retention makes room.
        topic.advance_start(topic.row.gaps[0].to, 0);
        assert!(topic.bound_wanted(1).is_some());
    }
}
