//! Duplicates: what a producer's last batches were, and what a new one is to them.

use std::collections::HashMap;

use super::batch::{Admission, BatchFacts};
use super::rows::{ProducerBatch, ProducerRow};
use crate::limits;
use crate::protocol::error::ApiError;
use crate::time::Timestamp;
use crate::types::{Offset, ProducerId, Sequence};

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
        self.batches.last().map_or(Sequence::ZERO, |last| {
            last.first.saturating_add(u64::from(last.count))
        })
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
    let Some(producer) = known else {
        return if batch.first == Sequence::ZERO {
            Ok(None)
        } else {
            Err(ApiError::UnknownProducer)
        };
    };
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
    let same = |old: &&ProducerBatch| old.first == batch.first && old.count == batch.count;
    match producer.batches.iter().rev().find(same) {
        Some(old) => Ok(Some(Admission::Duplicate {
            base: old.base,
            end: old.base.saturating_add(u64::from(old.count)),
        })),
        None => Err(ApiError::DuplicateTooOld {
            given: batch.first,
            oldest: producer.batches.first().map_or(next, |oldest| oldest.first),
        }),
    }
}

/// Whether records of this producer may have been lost after its last remembered batch.
fn may_jump(producer: &ProducerRow, jump_before: Option<Offset>) -> bool {
    let last = producer
        .batches
        .last()
        .map_or(Offset::ZERO, |batch| batch.base);
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
        });
    if producer
        .batches
        .last()
        .is_some_and(|last| base <= last.base)
    {
        return;
    }
    producer.last_used = producer.last_used.max(now);
    if producer.batches.len() >= limits::PRODUCER_BATCHES_KEPT {
        producer.batches.remove(0);
    }
    producer.batches.push(ProducerBatch {
        first: batch.first,
        count: batch.count,
        base,
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(first: u64, count: u32) -> BatchFacts {
        BatchFacts {
            producer: ProducerId::from_bytes([1; 16]),
            first: Sequence::new(first),
            count,
            bytes: 1,
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
}
