//! Duplicates: what a producer's last batches were, and what a new one is to them.

use std::collections::HashMap;

use super::batch::{Admission, BatchFacts};
use super::model::Topic;
use super::rows::{NamedProducer, ProducerBatch, ProducerRow};
use crate::limits;
use crate::protocol::api::Nonce;
use crate::protocol::error::ApiError;
use crate::time::Timestamp;
use crate::types::{Offset, ProducerEpoch, ProducerId, Sequence};

/// Those that did not publish since `before`, at most `max` of them.
pub(super) fn unused(producers: &Producers, before: Timestamp, max: usize) -> Vec<ProducerId> {
    let unused = producers.iter();
    let unused = unused.filter(|(_, row)| row.last_used < before);
    unused.map(|(&id, _)| id).take(max).collect()
}

/// Those to forget because there are too many: the longest unused, several at once. None while there is room.
pub(super) fn surplus(producers: &Producers) -> Vec<ProducerId> {
    if producers.len() <= limits::PRODUCERS_PER_TOPIC_MAX {
        return Vec::new();
    }
    let uses = producers.iter().map(|(&id, row)| (row.last_used, id));
    let mut by_use: Vec<(Timestamp, ProducerId)> = uses.collect();
    by_use.sort_unstable();
    by_use.truncate(limits::PRODUCERS_FORGOTTEN_AT_ONCE);
    by_use.into_iter().map(|(_, id)| id).collect()
}

/// Since when one of several topics' producers must have published to be remembered, so that at most `max`
/// are. `None` while there is room for all.
pub(super) fn kept_since<'a>(
    topics: impl Iterator<Item = &'a Producers> + Clone,
    max: usize,
) -> Option<Timestamp> {
    let count: usize = topics.clone().map(HashMap::len).sum();
    if count <= max {
        return None;
    }
    let rows = topics.flat_map(HashMap::values);
    let mut uses: Vec<Timestamp> = rows.map(|row| row.last_used).collect();
    let (_, oldest_kept, _) = uses.select_nth_unstable(count - max);
    Some(*oldest_kept)
}

impl ProducerRow {
    /// The sequence its next batch starts at.
    pub fn next_sequence(&self) -> Sequence {
        let opened = || self.named.as_ref().map_or(Sequence::ZERO, |named| named.at);
        let after = |last: &ProducerBatch| last.first.saturating_add(u64::from(last.count));
        self.batches.last().map_or_else(opened, after)
    }

    /// The newest process of it; zero without a name.
    pub fn epoch(&self) -> ProducerEpoch {
        self.named
            .as_ref()
            .map_or(ProducerEpoch::ZERO, |named| named.epoch)
    }

    /// The offset of its last record that is known.
    pub fn last_offset(&self) -> Option<Offset> {
        let last = self.batches.last()?;
        Some(last.base.saturating_add(u64::from(last.count) - 1))
    }
}

/// The producers of a topic.
pub(super) type Producers = HashMap<ProducerId, ProducerRow>;

/// `None`: append it. Otherwise it is a duplicate, or refused.
pub(super) fn check(
    known: Option<&ProducerRow>,
    batch: &BatchFacts,
    jump_before: Option<Offset>,
) -> Result<Option<Admission>, ApiError> {
    let is_named = batch.producer_epoch != ProducerEpoch::ZERO;
    let Some(producer) = known else {
        return match batch.first {
            _ if is_named => Err(ApiError::ProducerForgotten),
            Sequence::ZERO => Ok(None),
            _ => Err(ApiError::UnknownProducer),
        };
    };
    let same = |old: &&ProducerBatch| {
        old.first == batch.first && old.count == batch.count && old.epoch == batch.producer_epoch
    };
    let stored = || {
        let old = producer.batches.iter().rev().find(same)?;
        Some(Admission::Duplicate {
            base: old.base,
            end: old.base.saturating_add(u64::from(old.count)),
        })
    };
    let current = producer.epoch();
    if batch.producer_epoch != current {
        return match stored() {
            Some(duplicate) => Ok(Some(duplicate)),
            None if batch.producer_epoch < current => Err(ApiError::ProducerFenced {
                given: batch.producer_epoch,
                current,
            }),
            // Its beginning was lost.
            None => Err(ApiError::ProducerForgotten),
        };
    }
    let next = producer.next_sequence();
    if batch.first == next || (batch.first > next && may_jump(producer, jump_before)) {
        return Ok(None);
    }
    if batch.first > next {
        return Err(ApiError::SequenceGap {
            expected: next,
            given: batch.first,
        });
    }
    match stored() {
        Some(duplicate) => Ok(Some(duplicate)),
        None => Err(ApiError::DuplicateTooOld {
            given: batch.first,
            oldest: producer.batches.first().map_or(next, |oldest| oldest.first),
        }),
    }
}

/// Whether records of this producer may have been lost after its last remembered batch.
fn may_jump(producer: &ProducerRow, jump_before: Option<Offset>) -> bool {
    let opened = producer.named.as_ref().map(|named| named.opened);
    let last = producer.batches.last().map(|batch| batch.base);
    let last = last.max(opened).unwrap_or_default();
    jump_before.is_some_and(|before| last < before)
}

/// Notes a batch that was appended at `base`. One that the row knows already, or that came before what it
/// knows, changes nothing: a replay may begin before the row was written.
pub(super) fn remember(
    producers: &mut Producers,
    batch: &BatchFacts,
    base: Offset,
    now: Timestamp,
) {
    let producer = producers
        .entry(batch.producer)
        .or_insert_with(|| ProducerRow {
            last_used: now,
            batches: Vec::new(),
            named: None,
        });
    let is_known = (producer.batches.last()).is_some_and(|last| base <= last.base);
    if is_known || batch.producer_epoch < producer.epoch() {
        return;
    }
    if batch.producer_epoch > producer.epoch() {
        // Only a replay gets here: what says how this process began is met later, or cannot be read.
        producer.named = Some(Box::new(NamedProducer {
            epoch: batch.producer_epoch,
            nonce: Nonce([0; 16]),
            opened: base,
            at: batch.first,
        }));
    }
    producer.last_used = producer.last_used.max(now);
    if producer.batches.len() >= limits::PRODUCER_BATCHES_KEPT {
        producer.batches.remove(0);
    }
    producer.batches.push(ProducerBatch {
        first: batch.first,
        count: batch.count,
        epoch: batch.producer_epoch,
        base,
    });
}

/// A process begins to publish under a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opening {
    /// Its id, made of the name.
    pub producer: ProducerId,
    /// Tells the process from others.
    pub nonce: Nonce,
    /// The sequence to go on at, whatever is known; `None`: after what was stored.
    pub at: Option<Sequence>,
}

impl Topic {
    /// Lets a process go on under a producer's name, and nobody else from now on. Asked again by the same one
    /// nothing changes. Returns whether anything did.
    pub fn open_producer(&mut self, opening: &Opening, now: Timestamp) -> Result<bool, ApiError> {
        let known = self.producers.get(&opening.producer);
        let named = known.and_then(|row| row.named.as_ref());
        if named.is_some_and(|named| named.nonce == opening.nonce) {
            return Ok(false);
        }
        self.check_writable()?;
        // A use like that of a batch: it never lies behind those before it.
        let now = self.append_time(now);
        if known.is_none() && opening.at.is_none() && self.row.names_forgotten {
            return Err(ApiError::ProducerForgotten);
        }
        let before = named.map_or(Sequence::ZERO, |named| named.at);
        // One counter for all names: a name that was forgotten gets no epoch that it had.
        let epoch = self.row.producer_epoch.next();
        self.row.producer_epoch = epoch;
        let opened = self.row.end;
        let row = self.producers.entry(opening.producer);
        let row = row.or_insert_with(|| ProducerRow {
            last_used: now,
            batches: Vec::new(),
            named: None,
        });
        if opening.at.is_some() {
            row.batches.clear();
        }
        row.last_used = row.last_used.max(now);
        row.named = Some(Box::new(NamedProducer {
            epoch,
            nonce: opening.nonce,
            opened,
            at: opening.at.unwrap_or(before),
        }));
        Ok(true)
    }

    /// Forgets producers: their next batch has to begin at sequence 0 again. Returns whether one had a name: then
    /// the topic's row changed too.
    pub fn forget_producers(&mut self, ids: &[ProducerId]) -> bool {
        let mut named = false;
        for id in ids {
            let gone = self.producers.remove(id);
            named |= gone.is_some_and(|row| row.named.is_some());
        }
        let changed = named && !self.row.names_forgotten;
        self.row.names_forgotten |= named;
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::super::rows::TopicRow;
    use super::*;
    use crate::types::{LeaderEpoch, TopicId, TopicSettings};

    fn batch(first: u64, count: u32) -> BatchFacts {
        BatchFacts {
            producer: ProducerId::from_bytes([1; 16]),
            first: Sequence::new(first),
            count,
            bytes: 1,
            ..BatchFacts::default()
        }
    }

    fn producer_with(batches: &[(u64, u32, u64)]) -> ProducerRow {
        let mut producers = HashMap::new();
        for &(first, count, base) in batches {
            remember(
                &mut producers,
                &batch(first, count),
                Offset::new(base),
                Timestamp::default(),
            );
        }
        producers.into_values().next().expect("one producer")
    }

    #[test]
    fn a_producer_is_served_in_order_once_each() {
        let producer = producer_with(&[(0, 2, 10), (2, 3, 20)]);
        assert_eq!(check(Some(&producer), &batch(5, 1), None), Ok(None));
        let duplicate = Admission::Duplicate {
            base: Offset::new(20),
            end: Offset::new(23),
        };
        assert_eq!(
            check(Some(&producer), &batch(2, 3), None),
            Ok(Some(duplicate))
        );
        let gap = check(Some(&producer), &batch(6, 1), None).expect_err("a gap");
        assert_eq!(
            gap,
            ApiError::SequenceGap {
                expected: Sequence::new(5),
                given: Sequence::new(6)
            }
        );
        let odd = check(Some(&producer), &batch(1, 1), None).expect_err("never stored like that");
        assert_eq!(odd.name(), "DuplicateTooOld");
    }

    #[test]
    fn a_batch_is_remembered_once_and_in_order() {
        let known = producer_with(&[(0, 2, 10), (2, 3, 20)]);
        assert_eq!(
            producer_with(&[(0, 2, 10), (2, 3, 20), (0, 2, 10), (2, 3, 20)]),
            known
        );
    }

    #[test]
    fn an_unknown_producer_starts_at_zero() {
        assert_eq!(check(None, &batch(0, 1), None), Ok(None));
        assert_eq!(
            check(None, &batch(1, 1), None),
            Err(ApiError::UnknownProducer)
        );
    }

    #[test]
    fn only_so_many_batches_are_remembered() {
        let many: Vec<_> = (0..200).map(|n| (n, 1, n)).collect();
        let producer = producer_with(&many);
        assert_eq!(producer.batches.len(), limits::PRODUCER_BATCHES_KEPT);
        let error = check(Some(&producer), &batch(3, 1), None).expect_err("forgotten");
        assert_eq!(error.name(), "DuplicateTooOld");
    }

    #[test]
    fn of_too_many_the_latest_used_are_kept() {
        let mut topics = [Producers::new(), Producers::new()];
        for (topic, producers) in (0..).zip(&mut topics) {
            for n in 0..5_u8 {
                let batch = BatchFacts {
                    producer: ProducerId::from_bytes([n + 1; 16]),
                    ..batch(0, 1)
                };
                let used = Timestamp::from_millis(i64::from(10 * n + topic));
                remember(producers, &batch, Offset::ZERO, used);
            }
        }
        assert_eq!(kept_since(topics.iter(), 10), None);
        for max in 1..10 {
            let since = kept_since(topics.iter(), max).expect("too many");
            let rows = topics.iter().flat_map(Producers::values);
            assert_eq!(rows.filter(|row| row.last_used >= since).count(), max);
        }
    }

    #[test]
    fn after_an_unclean_stop_a_producer_may_jump_once() {
        let producer = producer_with(&[(0, 2, 10)]);
        let lost_below = Some(Offset::new(1000));
        assert_eq!(check(Some(&producer), &batch(9, 1), lost_below), Ok(None));
        let producer = producer_with(&[(0, 2, 10), (9, 1, 1000)]);
        assert!(check(Some(&producer), &batch(20, 1), lost_below).is_err());
    }

    fn topic() -> Topic {
        let (name, settings) = ("t".parse().expect("good"), TopicSettings::default());
        let row = TopicRow::new(name, LeaderEpoch::new(1), settings, Timestamp::default());
        Topic::new(TopicId::from_bytes([1; 16]), row)
    }

    fn opening(nonce: u8) -> Opening {
        Opening {
            producer: batch(0, 1).producer,
            nonce: Nonce([nonce; 16]),
            at: None,
        }
    }

    fn known(topic: &Topic) -> &ProducerRow {
        &topic.producers[&batch(0, 1).producer]
    }

    fn of_epoch(epoch: u32, first: u64, count: u32) -> BatchFacts {
        BatchFacts {
            producer_epoch: ProducerEpoch::new(epoch),
            ..batch(first, count)
        }
    }

    fn append(topic: &mut Topic, batch: &BatchFacts) {
        let admitted = topic.admit(LeaderEpoch::new(1), batch).expect("in order");
        let Admission::Append(base) = admitted else {
            panic!("{admitted:?}");
        };
        topic.appended(batch, base, Timestamp::default());
    }

    #[test]
    fn the_newest_process_of_a_name_goes_on_where_the_last_one_stopped() {
        let (mut topic, epoch) = (topic(), LeaderEpoch::new(1));
        let now = Timestamp::default();
        let early = topic.admit(epoch, &of_epoch(1, 0, 2));
        assert_eq!(early, Err(ApiError::ProducerForgotten), "not begun");
        assert_eq!(topic.open_producer(&opening(1), now), Ok(true));
        assert_eq!(topic.open_producer(&opening(1), now), Ok(false), "the same");
        append(&mut topic, &of_epoch(1, 0, 2));
        append(&mut topic, &of_epoch(1, 2, 3));
        assert_eq!(topic.open_producer(&opening(2), now), Ok(true));
        assert_eq!(known(&topic).next_sequence(), Sequence::new(5));
        // What the older one stored is stored; it stores nothing more.
        let duplicate = Admission::Duplicate {
            base: Offset::new(2),
            end: Offset::new(5),
        };
        assert_eq!(topic.admit(epoch, &of_epoch(1, 2, 3)), Ok(duplicate));
        let fenced = ApiError::ProducerFenced {
            given: ProducerEpoch::new(1),
            current: ProducerEpoch::new(2),
        };
        assert_eq!(topic.admit(epoch, &of_epoch(1, 5, 1)), Err(fenced.clone()));
        append(&mut topic, &of_epoch(2, 5, 1));
        // The same numbers, and not the same batch.
        assert_eq!(topic.admit(epoch, &of_epoch(1, 5, 1)), Err(fenced));
        // Nor does it come back by asking again, late.
        assert_eq!(topic.open_producer(&opening(2), now), Ok(false));
    }

    #[test]
    fn a_name_begins_where_it_is_told_to() {
        let (mut topic, now) = (topic(), Timestamp::default());
        topic.open_producer(&opening(1), now).expect("writable");
        append(&mut topic, &of_epoch(1, 0, 4));
        let at = |nonce, at| Opening {
            at: Some(Sequence::new(at)),
            ..opening(nonce)
        };
        topic.open_producer(&at(2, 0), now).expect("writable");
        assert_eq!(known(&topic).next_sequence(), Sequence::ZERO);
        append(&mut topic, &of_epoch(2, 0, 4));
        assert_eq!(topic.open_producer(&at(2, 0), now), Ok(false), "late");
        topic.open_producer(&at(3, 100), now).expect("writable");
        let gap = topic.admit(LeaderEpoch::new(1), &of_epoch(3, 0, 1));
        assert_eq!(gap.expect_err("begins at 100").name(), "DuplicateTooOld");
        topic.open_producer(&opening(4), now).expect("writable");
        append(&mut topic, &of_epoch(4, 100, 1));
        assert_eq!(known(&topic).next_sequence(), Sequence::new(101));
    }

    #[test]
    fn a_forgotten_name_is_not_taken_for_a_new_one() {
        let (mut topic, now) = (topic(), Timestamp::default());
        topic.open_producer(&opening(1), now).expect("writable");
        append(&mut topic, &of_epoch(1, 0, 4));
        let id = batch(0, 1).producer;
        assert!(topic.forget_producers(&[id]), "the topic's row says so");
        let forgotten = Err(ApiError::ProducerForgotten);
        assert_eq!(topic.open_producer(&opening(2), now), forgotten);
        let late = topic.admit(LeaderEpoch::new(1), &of_epoch(1, 4, 1));
        assert_eq!(late, Err(ApiError::ProducerForgotten));
        let at = Opening {
            at: Some(Sequence::new(4)),
            ..opening(2)
        };
        assert_eq!(topic.open_producer(&at, now), Ok(true));
        // No epoch twice: the process of before is not this one.
        let late = topic.admit(LeaderEpoch::new(1), &of_epoch(1, 4, 1));
        assert_eq!(late.expect_err("fenced").name(), "ProducerFenced");
        append(&mut topic, &of_epoch(2, 4, 1));
    }

    /// Its use was noted by a clock that had been set back, behind those of all others: where there were too many, who
    /// had just begun was forgotten in the same step, and told that he has no epoch.
    #[test]
    fn who_begins_is_not_the_longest_unused_whatever_the_clock_says() {
        let mut topic = topic();
        let most = limits::PRODUCERS_PER_TOPIC_MAX as u64;
        for n in 0..=most {
            let mut id = [2; 16];
            id[..8].copy_from_slice(&n.to_le_bytes());
            let one = BatchFacts {
                producer: ProducerId::from_bytes(id),
                ..batch(0, 1)
            };
            let at = Timestamp::from_millis(1_000_000 + n as i64);
            topic.appended(&one, Offset::new(n), at);
        }
        let set_back = Timestamp::from_millis(1_000);
        topic.open_producer(&opening(1), set_back).expect("room");
        let surplus = topic.surplus_producers();
        assert!(!surplus.is_empty());
        assert!(!surplus.contains(&opening(1).producer));
    }

    /// A replay may begin before the rows it begins with, and ends with the same ones.
    #[test]
    fn what_happened_before_a_row_was_written_changes_nothing() {
        let (mut topic, now) = (topic(), Timestamp::default());
        topic.open_producer(&opening(1), now).expect("writable");
        append(&mut topic, &of_epoch(1, 0, 4));
        let at = Opening {
            at: Some(Sequence::ZERO),
            ..opening(2)
        };
        topic.open_producer(&at, now).expect("writable");
        let before = topic.clone();
        topic.recall(&of_epoch(1, 0, 4), Offset::ZERO, now);
        assert_eq!(topic, before);
        append(&mut topic, &of_epoch(2, 0, 1));
        let before = topic.clone();
        topic.recall(&of_epoch(1, 0, 4), Offset::ZERO, now);
        topic.recall(&of_epoch(2, 0, 1), Offset::new(4), now);
        assert_eq!(topic, before);
    }

    #[test]
    fn a_name_may_jump_over_what_an_unclean_stop_took_since_it_began() {
        let (mut topic, now) = (topic(), Timestamp::default());
        topic.open_producer(&opening(1), now).expect("writable");
        let far = of_epoch(1, 9, 1);
        let epoch = LeaderEpoch::new(1);
        assert_eq!(
            topic.admit(epoch, &far).expect_err("a gap").name(),
            "SequenceGap"
        );
        topic.may_miss_batches_before(Offset::new(1000));
        append(&mut topic, &far);
        topic.row.end = Offset::new(1000);
        topic.open_producer(&opening(2), now).expect("writable");
        let far = topic.admit(epoch, &of_epoch(2, 20, 1));
        assert_eq!(far.expect_err("a gap").name(), "SequenceGap");
    }
}
