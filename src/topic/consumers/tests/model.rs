//! Random operations on a group, beside a model of it that is slow and obvious: one entry for each offset.
//!
//! How far it goes, and from which seed, is told by [`worlds`].

use std::collections::BTreeMap;

use super::super::runs::{NEVER, Place};
use super::super::*;
use crate::limits;
use crate::protocol::api::{ConsumerGroupOptions, Instead, NotHeld, SettledRun, Verdict};
use crate::protocol::taken::TakenRun;
use crate::time::Timestamp;
use crate::topic::tests::worlds::{self, Random, World};
use crate::types::{Generation, MemberId, Offset};

/// What the model knows of a record.
#[derive(Debug, Clone, PartialEq)]
struct Record {
    key: Option<Key>,
    spot: Spot,
    failed: u32,
    given: u32,
    /// What a member was told: settled, how often failed, dies.
    promised: (bool, u32, bool),
}

#[derive(Debug, Clone, PartialEq)]
enum Spot {
    Settled,
    Held { by: Slot, until: Option<Millis> },
    Open { until: Millis },
    Dying,
}

struct Groups {
    random: Random,
    now: Now,
    group: Group,
    stock: Consumers,
    records: Vec<Record>,
    start: u64,
    /// What becomes a promise when that version is durable.
    decided: BTreeMap<u64, Vec<u64>>,
}

fn name() -> crate::types::SubscriptionName {
    "group".parse().expect("good")
}

impl Groups {
    fn below(&mut self, n: u64) -> u64 {
        self.random.below(n)
    }

    fn options(&self) -> &ConsumerGroupOptions {
        self.group.options()
    }

    fn end(&self) -> Offset {
        Offset::new(self.records.len() as u64)
    }

    fn any_member(&mut self) -> Option<Slot> {
        let slots: Vec<Slot> = self.group.members().map(|(slot, ..)| slot).collect();
        let at = self.below(slots.len().max(1) as u64) as usize;
        slots.get(at).copied()
    }

    fn publish(&mut self) {
        for _ in 0..self.below(40) {
            let key = self.below(6);
            let is_keyed = key < 5 && self.options().ordered_by_key;
            self.records.push(Record {
                key: is_keyed.then_some(key),
                spot: Spot::Open { until: 0 },
                failed: 0,
                given: 0,
                promised: (false, 0, false),
            });
        }
    }

    // --- the model ---------------------------------------------------------------

    /// The oldest open record of a key.
    fn front(&self, key: Key) -> Option<usize> {
        let mut all = self.records.iter();
        all.position(|record| record.key == Some(key) && record.spot != Spot::Settled)
    }

    fn drop_record(&mut self, at: usize, counts: bool, spot: Spot) {
        self.records[at].failed += u32::from(counts);
        let max = self.options().deliveries_max;
        let dies = counts && max > 0 && self.records[at].failed >= max;
        self.records[at].spot = if dies { Spot::Dying } else { spot };
        self.take_back_after(at);
    }

    /// What is in flight of its key behind a record that is over, and was not acknowledged.
    fn take_back_after(&mut self, at: usize) {
        if let Some(key) = self.records[at].key {
            for record in self.records.iter_mut().skip(at + 1) {
                if record.key == Some(key) && matches!(record.spot, Spot::Held { .. }) {
                    record.spot = Spot::Open { until: 0 };
                }
            }
        }
    }

    fn settled(&mut self, at: usize) {
        self.records[at].spot = Spot::Settled;
        let until = self.now.steady + self.options().ack_deadline_ms;
        if let Some(front) = self.records[at].key.and_then(|key| self.front(key))
            && let Spot::Held {
                until: none @ None, ..
            } = &mut self.records[front].spot
        {
            *none = Some(until);
        }
    }

    fn backoff(&self, at: usize) -> Spot {
        let steps = &self.options().backoff_ms;
        let failed = self.records[at].failed as usize + 1;
        let delay = failed
            .min(steps.len())
            .checked_sub(1)
            .map_or(0, |step| steps[step]);
        self.later(delay)
    }

    fn later(&self, delay: Millis) -> Spot {
        let until = if delay == 0 {
            0
        } else {
            self.now.steady + delay
        };
        Spot::Open { until }
    }

    /// Whether a record should go out to whoever has room.
    fn is_due(&self, at: usize) -> bool {
        let record = &self.records[at];
        let is_first = record.key.is_none_or(|key| self.front(key) == Some(at));
        let is_open = matches!(record.spot, Spot::Open { until } if until <= self.now.steady);
        is_first && is_open && at as u64 >= self.start
    }

    // --- operations --------------------------------------------------------------

    fn leave(&mut self) {
        let Some(slot) = self.any_member() else {
            return;
        };
        let lost = self.below(2) == 0;
        self.group.leave(slot, lost, self.now);
        for at in 0..self.records.len() {
            if matches!(self.records[at].spot, Spot::Held { by, .. } if by == slot) {
                let first = self.records[at].failed == 0;
                let spot = match lost && !first {
                    true => self.backoff(at),
                    false => self.later(0),
                };
                self.drop_record(at, lost, spot);
                if lost {
                    self.note_decided(at as u64);
                }
            }
        }
    }

    fn take(&mut self) {
        let Some(member) = self.any_member() else {
            return;
        };
        let wanted = self.group.room(member).min(1 + self.below(50));
        let mut taker = Taker {
            member,
            records: wanted,
            now: self.now,
        };
        self.group.tick(self.now);
        self.follow_time();
        for chosen in self.group.choose(taker.records) {
            let given = self.group.give_again(chosen, taker);
            taker.records -= self.given(member, &given);
        }
        let keys: Vec<Option<Key>> = self.records.iter().map(|record| record.key).collect();
        while taker.records > 0 && self.group.fresh(self.end()) == Fresh::There {
            let base = self.group.cursor();
            let count = (1 + self.below(30)).min(self.end().since(base));
            let first = base.get() as usize;
            let offer = Offer {
                base,
                count: count as u32,
                keys: &keys[first..first + count as usize],
            };
            let given = self.group.give_new(offer, taker);
            taker.records -= self.given(member, &given);
        }
        if taker.records > 0 {
            let missed = (0..self.records.len()).find(|at| self.is_due(*at));
            assert_eq!(missed, None, "nobody has it, though a member has room (C5)");
        }
    }

    /// Holds what was given against the model; how many records it was.
    fn given(&mut self, member: Slot, runs: &[TakenRun]) -> u64 {
        let mut count = 0;
        for run in runs {
            for offset in run.first.get()..run.end().get() {
                let at = offset as usize;
                count += 1;
                let key = self.records[at].key;
                let front = key.and_then(|key| self.front(key));
                if let (Some(key), Some(front)) = (key, front) {
                    let before = self.records[front..at].iter();
                    let open = before.filter(|r| r.key == Some(key) && r.spot != Spot::Settled);
                    let others =
                        open.filter(|r| !matches!(r.spot, Spot::Held { by, .. } if by == member));
                    assert_eq!(
                        others.count(),
                        0,
                        "{offset}: older ones of its key are not there (C7)"
                    );
                }
                let until = self.now.steady + self.options().ack_deadline_ms;
                let is_first = front.is_none_or(|front| front == at);
                let record = &mut self.records[at];
                let Spot::Open { until: wait } = record.spot else {
                    panic!("{offset} was given out as {record:?} (C1, C3)");
                };
                assert!(wait <= self.now.steady, "{offset} came before its back-off");
                record.given += 1;
                assert_eq!(record.given, run.delivery, "{offset}");
                let until = is_first.then_some(until);
                record.spot = Spot::Held { by: member, until };
            }
        }
        count
    }

    fn settle(&mut self) {
        let Some(member) = self.any_member() else {
            return;
        };
        let first = self.below(self.records.len() as u64 + 3);
        let first = match self.below(3) {
            0 => first,
            _ => self
                .group
                .runs
                .of_member(member)
                .first()
                .copied()
                .unwrap_or(first),
        };
        let given = self.records.get(first as usize).map(|record| record.given);
        let delivery = match (given, self.below(8)) {
            (Some(given), 1..) => given,
            _ => self.below(3) as u32,
        };
        let verdict = match self.below(10) {
            0..=4 => Verdict::Ack,
            5 | 6 => Verdict::Nak { delay_ms: None },
            7 => Verdict::Nak {
                delay_ms: Some(self.below(300)),
            },
            8 => Verdict::Reject {
                reason: "bad".to_owned(),
            },
            _ => Verdict::Extend,
        };
        let count = 1 + self.below(12) as u32;
        let said = SettledRun {
            first: Offset::new(first),
            count,
            delivery,
            verdict,
        };
        let mut not_held = Vec::new();
        self.group.settle(member, &said, self.now, &mut not_held);
        let mut refused = not_held.iter().flat_map(|run: &NotHeld| {
            let first = run.first.get();
            (first..first + u64::from(run.count)).map(|offset| (offset, run.instead))
        });
        for offset in first..first + u64::from(count) {
            if let Some(instead) = self.said(member, offset, &said) {
                assert_eq!(refused.next(), Some((offset, instead)), "of {said:?} (C4)");
            }
        }
        assert_eq!(refused.next(), None, "{said:?}");
    }

    /// What the model makes of it; what it is instead where it is refused.
    fn said(&mut self, member: Slot, offset: u64, said: &SettledRun) -> Option<Instead> {
        let at = offset as usize;
        let known = self.records.get(at).cloned();
        let untouched = offset >= self.group.cursor().get();
        let record = match known {
            None => return Some(Instead::Untouched),
            Some(record) => record,
        };
        match record.spot {
            Spot::Held { by, .. } if by == member && record.given == said.delivery => {}
            Spot::Held { .. } => return Some(Instead::Elsewhere),
            Spot::Settled | Spot::Dying => return Some(Instead::Settled),
            Spot::Open { .. } if untouched && record.failed == 0 => {
                return Some(Instead::Untouched);
            }
            Spot::Open { .. } => return Some(Instead::Waiting),
        }
        match &said.verdict {
            Verdict::Ack => self.settled(at),
            Verdict::Nak { delay_ms } => {
                let spot = match delay_ms {
                    Some(delay) => self.later(*delay),
                    None => self.backoff(at),
                };
                self.drop_record(at, true, spot);
            }
            Verdict::Reject { .. } => self.drop_record(at, true, Spot::Dying),
            Verdict::Extend => {
                let deadline = self.now.steady + self.options().ack_deadline_ms;
                if let Spot::Held {
                    until: Some(until), ..
                } = &mut self.records[at].spot
                {
                    *until = deadline;
                }
            }
        }
        self.note_decided(offset);
        None
    }

    fn note_decided(&mut self, offset: u64) {
        let version = self.group.version();
        self.decided.entry(version).or_default().push(offset);
    }

    fn pass_time(&mut self) {
        let millis = self.below(200);
        self.now.steady += millis;
        // People's clock goes as it likes.
        let wall = self.now.wall.as_millis() + self.below(400) as i64 - 100;
        self.now.wall = Timestamp::from_millis(wall);
        self.group.tick(self.now);
        self.follow_time();
    }

    /// What is overdue in the model fails there, the oldest first.
    fn follow_time(&mut self) {
        let mut overdue: Vec<(Millis, usize)> = Vec::new();
        for (at, record) in self.records.iter().enumerate() {
            if let Spot::Held {
                until: Some(until), ..
            } = record.spot
                && until <= self.now.steady
            {
                overdue.push((until, at));
            }
        }
        for (_, at) in overdue {
            if matches!(self.records[at].spot, Spot::Held { .. }) {
                let spot = self.backoff(at);
                self.drop_record(at, true, spot);
                self.note_decided(at as u64);
            }
        }
    }

    fn flush(&mut self) {
        let Some(flush) = self.group.compose(&[], self.now) else {
            return;
        };
        match self.below(4) {
            0 => self.group.undo(&flush),
            _ => self.write(flush),
        }
    }

    fn write(&mut self, flush: Flush) {
        let generation = flush.row.generation;
        let before = self.stock.group(&name()).map(|row| row.floor);
        assert!(
            before <= Some(flush.row.floor),
            "the floor never falls (C8)"
        );
        let through = flush.through;
        self.stock.put_group(&name(), Some(flush.row));
        for (page, row) in flush.pages {
            match row {
                Some(row) => self.stock.put_page(generation, page, row),
                None => self.stock.remove_page(generation, page),
            }
        }
        let later = self.decided.split_off(&(through + 1));
        for offset in std::mem::replace(&mut self.decided, later)
            .into_values()
            .flatten()
        {
            let record = &mut self.records[offset as usize];
            let settled = record.spot == Spot::Settled;
            record.promised = (settled, record.failed, record.spot == Spot::Dying);
        }
    }

    fn bury(&mut self) {
        let max = 1 + self.below(5) as usize;
        let dying = self.group.dying(max);
        let mut offsets: Vec<Offset> = dying.iter().map(|dying| dying.offset).collect();
        offsets.sort_unstable();
        if offsets.is_empty() {
            return;
        }
        for offset in &offsets {
            let spot = &self.records[offset.get() as usize].spot;
            assert_eq!(*spot, Spot::Dying, "{offset}");
        }
        let flush = self
            .group
            .compose(&offsets, self.now)
            .expect("something to bury");
        if self.below(3) == 0 {
            return self.group.undo(&flush);
        }
        self.write(flush);
        for offset in offsets {
            self.group.bury(offset, self.now);
            let at = offset.get() as usize;
            self.settled(at);
            self.records[at].promised = (true, 0, false);
        }
    }

    /// Only the rows are left.
    fn crash(&mut self) {
        self.now.steady = 1 + self.below(1_000);
        let row = self.stock.group(&name()).expect("it is there").clone();
        let pages = self.stock.pages_of(row.generation);
        self.group = Group::load(row, pages, self.now);
        self.group.begin_at(Offset::new(self.start), self.now);
        self.decided.clear();
        let floor = self.group.floor().get();
        for (offset, record) in (0..).zip(&mut self.records) {
            let ahead = self.group.ahead.failed(offset);
            let settled =
                offset < floor.max(self.start) || self.group.ahead.settled_to(offset).is_some();
            let (was_settled, failed, dies) = record.promised;
            assert!(
                settled || !was_settled,
                "{offset} was answered as settled (C2)"
            );
            assert!(
                !settled || record.spot == Spot::Settled,
                "{offset} is settled by nobody"
            );
            let times = ahead.map_or(0, |known| known.times);
            let dying = ahead.is_some_and(|known| known.dies);
            assert!(
                settled || times >= failed,
                "{offset}: {times} of {failed} (C2)"
            );
            assert!(
                settled || times <= record.failed,
                "{offset}: {times} of {}",
                record.failed
            );
            assert!(
                settled || dying || !dies,
                "{offset} was answered as dying (C2)"
            );
            record.failed = times;
            record.given = times;
            record.promised = (settled, times, dying);
            record.spot = match (settled, dying) {
                (true, _) => Spot::Settled,
                (_, true) => Spot::Dying,
                _ => Spot::Open {
                    until: ahead.map_or(0, |known| known.until),
                },
            };
        }
    }

    fn discard(&mut self) {
        self.start +=
            self.below(self.records.len() as u64 + 1 - self.start.min(self.records.len() as u64));
        self.group.begin_at(Offset::new(self.start), self.now);
        for at in 0..self.start as usize {
            if matches!(self.records[at].spot, Spot::Held { .. }) {
                self.take_back_after(at);
            }
            if self.records[at].spot != Spot::Settled {
                self.settled(at);
            }
        }
    }

    // --- invariants ------------------------------------------------------------

    fn check(&self) {
        let group = &self.group;
        let (floor, cursor) = (group.floor().get(), group.cursor().get());
        assert!(floor <= cursor, "{floor} {cursor}");
        let mut held = 0;
        for (offset, record) in (0..).zip(&self.records) {
            let run = group
                .runs
                .at_or_after(offset)
                .filter(|(first, _)| *first <= offset);
            let run = run.map(|(_, run)| run);
            if offset >= cursor {
                assert!(run.is_none() && !matches!(record.spot, Spot::Held { .. }));
                let settled = group.ahead.settled_to(offset).is_some();
                assert_eq!(settled, record.spot == Spot::Settled, "{offset}");
                continue;
            }
            let Some(run) = run else {
                assert_eq!(record.spot, Spot::Settled, "{offset} is in no run (C5)");
                continue;
            };
            assert_eq!(
                (run.failed, run.given),
                (record.failed, record.given),
                "{offset}"
            );
            let fits = match (&run.place, &record.spot) {
                (Place::Held { member, until }, Spot::Held { by, until: model }) => {
                    held += 1;
                    member == by && *until == model.unwrap_or(NEVER)
                }
                (Place::Ready, Spot::Open { until }) => *until <= self.now.steady,
                (Place::Later { until }, Spot::Open { until: model }) => until == model,
                (Place::Parked, Spot::Open { .. }) => record.key.is_some(),
                (Place::Dying { .. }, Spot::Dying) => true,
                _ => false,
            };
            assert!(fits, "{offset}: {run:?} is {record:?}");
        }
        assert_eq!(group.tally(self.end()).in_flight, held);
        for (key, chain) in group.keys.iter() {
            let front = self.front(key).map(|at| at as u64);
            assert_eq!(
                chain.offsets.front().copied(),
                front,
                "the chain of key {key}"
            );
        }
        let max = u64::from(self.options().unacked_max);
        assert!(group.members().all(|(.., holds)| holds <= max));
    }
}

impl World for Groups {
    fn new(mut random: Random) -> Self {
        let options = ConsumerGroupOptions {
            ack_deadline_ms: 100,
            deliveries_max: random.below(5) as u32,
            backoff_ms: [vec![], vec![50], vec![10, 500]][random.below(3) as usize].clone(),
            unacked_max: 1 + random.below(60) as u32,
            ordered_by_key: random.below(2) == 1,
            dead_letters: "dead".parse().expect("good"),
        };
        let now = Now {
            steady: 1,
            wall: Timestamp::from_millis(1_000_000),
        };
        let row = ConsumerGroupRow::new(Generation::new(1), Offset::ZERO, options, now.wall);
        let mut stock = Consumers::default();
        stock.put_group(&name(), Some(row.clone()));
        Self {
            group: Group::load(row, stock.pages_of(Generation::new(1)), now),
            random,
            now,
            stock,
            records: Vec::new(),
            start: 0,
            decided: BTreeMap::new(),
        }
    }

    fn step(&mut self) {
        match self.below(20) {
            0 | 1 => self.publish(),
            2 if self.group.members().count() < 5 => {
                let id = MemberId::from_bytes([self.below(250) as u8; 16]);
                self.group.join(id, self.now);
            }
            3 => self.leave(),
            4..=8 => self.take(),
            9..=13 => self.settle(),
            14 => self.pass_time(),
            15 | 16 => self.flush(),
            17 => self.bury(),
            18 if self.below(10) == 0 => self.crash(),
            19 if self.below(20) == 0 => self.discard(),
            _ => {}
        }
        self.check();
    }

    fn is_full(&self) -> bool {
        self.records.len() as u64 > 3 * limits::CONSUMER_PAGE_OFFSETS
    }
}

#[test]
fn a_group_does_what_its_model_does() {
    worlds::walk::<Groups>(20_000);
}
