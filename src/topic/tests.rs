//! Decisions against models that are as simple as can be, with random operations; a seed that fails is printed.

pub(crate) mod worlds;

use std::collections::BTreeMap;

use super::*;
use crate::protocol::error::ApiError;
use crate::time::Timestamp;
use crate::types::{
    LeaderEpoch, Offset, ProducerId, Retention, Sequence, SubscriptionName, TopicId, TopicSettings,
    WhenFull,
};

/// A deterministic source of numbers.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % n.max(1)
    }

    fn maybe(&mut self, n: u64) -> Option<u64> {
        (self.below(3) > 0).then(|| 1 + self.below(n))
    }
}

fn topic(settings: TopicSettings) -> Topic {
    let name = "quakes.ci".parse().expect("a good name");
    let row = TopicRow::new(name, LeaderEpoch::new(1), settings, Timestamp::default());
    Topic::new(TopicId::from_bytes([1; 16]), row)
}

/// Batches that a topic holds, and those it was ever sent under a producer id.
#[derive(Default)]
struct Held {
    /// Offset, count and bytes.
    batches: Vec<(u64, u64, u64)>,
    end: u64,
    sent: Vec<(BatchFacts, u64)>,
}

impl Held {
    fn records(&self, start: u64) -> u64 {
        let of =
            |(base, count, _): &(u64, u64, u64)| (base + count).saturating_sub(start.max(*base));
        self.batches.iter().map(of).sum()
    }

    fn bytes(&self) -> u64 {
        self.batches.iter().map(|(.., bytes)| bytes).sum()
    }
}

/// One topic that refuses when it is full, filled and emptied at random.
fn fill_and_empty(seed: u64, steps: u64) {
    let mut dice = Dice(seed);
    let retention = Retention {
        bytes: dice.maybe(3_000),
        records: dice.maybe(60),
        ..Retention::default()
    };
    let settings = TopicSettings {
        retention,
        when_full: WhenFull::Refuse,
        ..TopicSettings::default()
    };
    let (bytes_max, records_max) = (
        retention.bytes.unwrap_or(u64::MAX),
        retention.records.unwrap_or(u64::MAX),
    );
    let (mut topic, mut held) = (topic(settings), Held::default());
    let producer = ProducerId::from_bytes([7; 16]);
    for step in 0..steps {
        let what = format!("seed {seed}, step {step}");
        let start = topic.row.start.get();
        match dice.below(10) {
            // Room comes from somewhere.
            0 | 1 => {
                let to = start + dice.below(held.end - start + 1);
                held.batches.retain(|(base, count, _)| base + count > to);
                let kept = held.bytes();
                topic.advance_start(Offset::new(to), kept);
            }
            // One that is stored is sent again.
            2 if !held.sent.is_empty() => {
                let recent = held.sent.len() - held.sent.len().min(20);
                let at = recent + dice.below((held.sent.len() - recent) as u64) as usize;
                let (facts, base) = held.sent[at];
                let duplicate = Admission::Duplicate {
                    base: Offset::new(base),
                    end: Offset::new(base + u64::from(facts.count)),
                };
                assert_eq!(
                    topic.admit(LeaderEpoch::new(1), &facts),
                    Ok(duplicate),
                    "{what}"
                );
            }
            _ => {
                let sequence = held
                    .sent
                    .last()
                    .map_or(0, |(last, _)| last.first.get() + u64::from(last.count));
                let count = 1 + dice.below(12);
                let facts = BatchFacts {
                    producer,
                    first: Sequence::new(sequence),
                    count: count as u32,
                    bytes: 64 + count * dice.below(40),
                    ..BatchFacts::default()
                };
                let never = facts.bytes > bytes_max || count > records_max;
                let fits = held.bytes() + facts.bytes <= bytes_max
                    && held.records(start) + count <= records_max;
                match topic.admit(LeaderEpoch::new(1), &facts) {
                    Ok(Admission::Append(base)) => {
                        assert!(fits && !never, "{what}: {facts:?}");
                        assert_eq!(base.get(), held.end, "{what}");
                        topic.appended(&facts, base, Timestamp::default());
                        held.batches.push((held.end, count, facts.bytes));
                        held.sent.push((facts, held.end));
                        held.end += count;
                    }
                    Err(ApiError::TopicFull { records, bytes, .. }) => {
                        assert!(!fits && !never, "{what}: {facts:?}");
                        let found = (held.records(start), held.bytes());
                        assert_eq!((records, bytes), found, "{what}");
                    }
                    Err(ApiError::BadBatch { .. }) => assert!(never, "{what}: {facts:?}"),
                    other => panic!("{what}: {other:?}"),
                }
            }
        }
        assert!(topic.row.bytes <= bytes_max, "{what}");
        assert!(topic.row.records() <= records_max, "{what}");
    }
}

#[test]
fn a_full_topic_is_never_fuller_than_its_bounds() {
    for seed in 1..=200 {
        fill_and_empty(seed, 500);
    }
}

/// Positions come, go, rise and fall at random.
fn positions(seed: u64, steps: u64) {
    let mut dice = Dice(seed);
    let by = || crate::topic::Authored::by_this_program(Timestamp::default());
    let mut topic = topic(TopicSettings::default());
    topic.row.end = Offset::new(1_000);
    let mut places: BTreeMap<SubscriptionName, u64> = BTreeMap::new();
    for step in 0..steps {
        let what = format!("seed {seed}, step {step}");
        let named: SubscriptionName = format!("s{}", dice.below(6)).parse().expect("a good name");
        let to = dice.below(1_001);
        match dice.below(8) {
            0 => {
                let new = NewSubscription::at(Offset::new(to));
                let made = topic.create_subscription(&named, new, by());
                assert_eq!(made.is_ok(), !places.contains_key(&named), "{what}");
                places.entry(named).or_insert(to);
            }
            1 => {
                let removed = topic.delete_subscription(&named).is_ok();
                assert_eq!(removed, places.remove(&named).is_some(), "{what}");
            }
            2 => {
                let moved = topic.seek(&named, Offset::new(to), by()).is_ok();
                assert_eq!(moved, places.contains_key(&named), "{what}");
                places.entry(named).and_modify(|place| *place = to);
            }
            _ => {
                let generation = topic.subscription(&named).map(|row| row.generation);
                let facts = CommitFacts {
                    generation: generation.unwrap_or_default(),
                    offset: Offset::new(to),
                    readable_end: topic.row.end,
                };
                // One that is not there refuses; another test says how.
                let _ = topic.commit(&named, facts, Timestamp::default());
                places
                    .entry(named)
                    .and_modify(|place| *place = to.max(*place));
            }
        }
        let lowest = places.values().min().copied().map(Offset::new);
        assert_eq!(topic.lowest_position(), lowest, "{what}");
    }
}

#[test]
fn the_lowest_position_is_that_of_the_slowest() {
    for seed in 1..=50 {
        positions(seed, 1_000);
    }
}

#[test]
fn rows_of_former_versions_are_read_as_what_they_were() {
    let id = TopicId::from_bytes([1; 16]);
    let now = topic(TopicSettings::default()).row;
    let mut bytes = Row::Topic(now.clone().into()).encode();
    // Version 2 had neither the two options of compaction behind its settings, nor what was taken away at the end.
    bytes.truncate(bytes.len() - 26);
    let at = 1 + 8 + now.name.as_str().len() + 4 + 4 + 3;
    bytes[0] = 2;
    bytes.drain(at + 7..at + 9);
    assert_eq!(
        Row::decode(&RowKey::Topic(id), &bytes),
        Ok(Row::Topic(now.clone().into()))
    );
    // Version 1 had neither the byte of interest, nor the choice for a full topic, nor two options of ids, behind
    // three bounds that are none; nor, at the end, what is known of named producers.
    bytes.truncate(bytes.len() - 5);
    bytes[0] = 1;
    bytes.drain(at..at + 7);
    assert_eq!(
        Row::decode(&RowKey::Topic(id), &bytes),
        Ok(Row::Topic(now.into()))
    );
    // Nor had a subscription the byte of a pause and that of no time to expire.
    let row = SubscriptionRow {
        generation: crate::types::Generation::new(3),
        committed: Offset::new(7),
        created: Timestamp::default(),
        last_commit: None,
        paused: false,
        expire_ms: None,
    };
    let key = RowKey::Subscription(id, "map".parse().expect("a good name"));
    let mut former = Row::Subscription(row.clone()).encode();
    former[0] = 1;
    former.truncate(former.len() - 2);
    assert_eq!(Row::decode(&key, &former), Ok(Row::Subscription(row)));
    bytes[0] = 4;
    let newer = Row::decode(&RowKey::Topic(id), &bytes).expect_err("nobody knows it");
    assert_eq!(newer.reason, "version 4, this program knows up to 3");
}
