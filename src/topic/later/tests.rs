//! A schedule against what it is to do: random histories of publishing, delivering, cancelling, moving and crashing.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::protocol::api::ConsumerGroupOptions;
use crate::topic::consumers::{ConsumerGroupRow, ConsumerPageRow, Flush};
use crate::types::{Generation, IdDigest};

/// A deterministic source of numbers.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % n.max(1)
    }
}

fn new_row() -> ConsumerGroupRow {
    let options = ConsumerGroupOptions {
        ack_deadline_ms: 1,
        deliveries_max: 0,
        backoff_ms: Vec::new(),
        unacked_max: 1,
        ordered_by_key: false,
        dead_letters: "dead.t".parse().expect("good"),
    };
    ConsumerGroupRow::new(Generation::new(1), Offset::ZERO, options, at(0))
}

fn at(millis: u64) -> Timestamp {
    Timestamp::from_millis(millis as i64)
}

/// What is durable.
struct Disk {
    row: ConsumerGroupRow,
    pages: BTreeMap<u64, ConsumerPageRow>,
    /// The companion: time and number of each record; none where something is missing.
    companion: Vec<Option<(u64, u64)>>,
    target: Vec<u64>,
}

impl Disk {
    fn load(&self) -> Schedule {
        Schedule::load(self.row.clone(), self.pages.clone().into_iter())
    }

    /// Rows as the state keeps them.
    fn put(&mut self, flush: &Flush) {
        assert!(flush.row.floor >= self.row.floor, "the floor never falls");
        self.row = flush.row.clone();
        for (page, content) in &flush.pages {
            match content {
                Some(content) => _ = self.pages.insert(*page, content.clone()),
                None => _ = self.pages.remove(page),
            }
        }
        self.pages = self.pages.split_off(&self.row.floor_page());
    }
}

struct Walk {
    dice: Dice,
    disk: Disk,
    schedule: Schedule,
    now: u64,
    /// What became of each number: its time, and whether it was cancelled.
    known: BTreeMap<u64, (u64, bool)>,
}

const BOUNDS: StepBounds = StepBounds {
    records: 40,
    bytes: 4_000,
};

impl Walk {
    fn new(seed: u64) -> Self {
        let disk = Disk {
            row: new_row(),
            pages: BTreeMap::new(),
            companion: Vec::new(),
            target: Vec::new(),
        };
        Self {
            dice: Dice(seed),
            schedule: disk.load(),
            disk,
            now: 1,
            known: BTreeMap::new(),
        }
    }

    fn take_in(&mut self) {
        self.schedule.pass_settled();
        while let Some(record) = self
            .disk
            .companion
            .get(self.schedule.cursor().get() as usize)
        {
            match *record {
                Some((due, number)) => {
                    let told = Told {
                        at: at(due),
                        number: Some(Offset::new(number)),
                    };
                    let bytes = 50;
                    let id = Some(IdDigest::of(&number.to_be_bytes()));
                    self.schedule.take_in(told, Pending { bytes, id });
                }
                None => self.schedule.pass(self.schedule.cursor().next()),
            }
        }
    }

    /// One durable step, or a crash before or after it.
    fn step(&mut self, settling: &[Due], then: impl FnOnce(&mut Self)) {
        let flush = self.schedule.compose(settling, at(self.now));
        match self.dice.below(20) {
            0 => return self.crash(),
            fate => {
                self.disk.put(&flush);
                then(self);
                if fate == 1 {
                    return self.crash();
                }
            }
        }
        self.schedule.settled(settling, &flush);
    }

    fn crash(&mut self) {
        self.schedule = self.disk.load();
        self.take_in();
    }

    fn deliver(&mut self) {
        self.take_in();
        let chosen = self.schedule.due(at(self.now), BOUNDS);
        assert!(chosen.is_sorted(), "in their order");
        let Some(last) = chosen.last() else {
            return;
        };
        let (last, of_step): (Due, BTreeSet<Due>) = (*last, chosen.iter().copied().collect());
        let left = self.schedule.after(None).map(|(due, _)| *due);
        let left: Vec<Due> = left.filter(|due| !of_step.contains(due)).collect();
        assert!(left.iter().all(|due| *due > last), "the earliest first");
        self.step(&chosen, |walk| {
            let numbers = chosen.iter().map(|due| due.number.get());
            walk.disk.target.extend(numbers);
        });
    }

    fn cancel(&mut self) {
        self.take_in();
        let numbers = self.known.len() as u64;
        let number = self.dice.below(numbers);
        let Some((&number, _)) = self.known.iter().nth(number as usize) else {
            return;
        };
        let found = match self.dice.below(2) {
            0 => self.schedule.of_number(Offset::new(number)),
            _ => self.schedule.of_id(IdDigest::of(&number.to_be_bytes())),
        };
        let (_, cancelled) = self.known[&number];
        let is_pending = !cancelled && !self.disk.target.contains(&number);
        assert_eq!(found.len(), usize::from(is_pending), "{number}");
        if is_pending {
            self.step(&found, |walk| {
                walk.known.entry(number).and_modify(|known| known.1 = true);
            });
        }
    }

    fn move_old(&mut self) {
        self.take_in();
        let chosen = self.schedule.to_move(BOUNDS, 300);
        if !chosen.is_empty() {
            self.step(&chosen, |walk| {
                let moved = chosen.iter();
                let moved = moved.map(|due| Some((due.at.as_millis() as u64, due.number.get())));
                walk.disk.companion.extend(moved);
            });
            self.take_in();
        }
    }

    fn act(&mut self) {
        match self.dice.below(12) {
            0..=4 => {
                for _ in 0..self.dice.below(30) {
                    let number = self.disk.companion.len() as u64;
                    let far = [30, 300, 5_000][self.dice.below(3) as usize];
                    let due = self.now + self.dice.below(far);
                    self.disk.companion.push(Some((due, number)));
                    self.known.insert(number, (due, false));
                }
            }
            5 => self.disk.companion.push(None),
            6 | 7 => self.now += self.dice.below(40),
            8 | 9 => self.deliver(),
            10 => self.cancel(),
            _ if self.dice.below(4) == 0 => self.crash(),
            _ => self.move_old(),
        }
    }

    fn check(&self) {
        let mut delivered = BTreeSet::new();
        for number in &self.disk.target {
            assert!(delivered.insert(*number), "{number} was delivered twice");
            let (due, cancelled) = self.known[number];
            assert!(due <= self.now, "{number} came too early");
            assert!(!cancelled, "{number} was cancelled, and delivered");
        }
        let pending: BTreeSet<u64> = self
            .schedule
            .after(None)
            .map(|(due, _)| due.number.get())
            .collect();
        assert_eq!(pending.len(), self.schedule.len(), "each once");
        for (number, (_, cancelled)) in &self.known {
            let taken_in = *number < self.schedule.cursor().get();
            let expected = taken_in && !cancelled && !delivered.contains(number);
            assert_eq!(pending.contains(number), expected, "{number}");
        }
    }
}

#[test]
fn each_is_delivered_once_in_order_and_not_before_its_time() {
    for seed in 1..=30 {
        let mut walk = Walk::new(seed);
        for step in 0..600 {
            walk.act();
            if step % 20 == 0 {
                walk.check();
            }
        }
        // In the end all of it is delivered.
        walk.now += 10_000;
        loop {
            walk.deliver();
            walk.take_in();
            if walk.schedule.is_empty() {
                break;
            }
        }
        walk.check();
        let settled = walk
            .known
            .values()
            .filter(|(_, cancelled)| *cancelled)
            .count();
        assert_eq!(
            walk.disk.target.len() + settled,
            walk.known.len(),
            "seed {seed}"
        );
        assert!(
            walk.disk.pages.len() <= 1,
            "seed {seed}: {:?}",
            walk.disk.pages
        );
    }
}

/// One message for next year holds neither the disk nor the rows of what was delivered since.
#[test]
fn what_waits_for_long_moves_on() {
    let mut walk = Walk::new(9);
    walk.disk.companion.push(Some((u64::MAX / 4, 0)));
    walk.known.insert(0, (u64::MAX / 4, false));
    let (mut span, mut pages) = (0, 0);
    for number in 1..20_000 {
        // What was moved has taken offsets, too.
        let offset = walk.disk.companion.len() as u64;
        assert!(offset >= number);
        walk.disk.companion.push(Some((walk.now, offset)));
        walk.known.insert(offset, (walk.now, false));
        walk.now += 1;
        if number % 30 == 0 {
            walk.deliver();
            walk.move_old();
            let end = walk.schedule.cursor();
            span = span.max(end.since(walk.schedule.floor()));
            pages = pages.max(walk.disk.pages.len());
        }
    }
    assert!(span < 1_000 && pages < 5, "{span} offsets, {pages} pages");
    walk.check();
    assert_eq!(
        walk.schedule.of_number(Offset::ZERO).len(),
        1,
        "under the number it had"
    );
}

#[test]
fn names_and_headers_are_read_as_they_are_written() {
    let target = TopicId::from_bytes([7; 16]);
    assert_eq!(target_of(&group_of(target)), Some(target));
    for other in ["tidings-later-", "tidings-later-7", "billing"] {
        assert_eq!(target_of(&other.parse().expect("good")), None, "{other}");
    }
    let told = |headers: &[(&'static str, &'static str)]| {
        Told::of(
            headers
                .iter()
                .map(|(name, value)| (*name, value.as_bytes())),
        )
    };
    let read = told(&[(NUMBER, "5"), (DELIVER_AT, "1700"), (DELIVER_AT, "9")]);
    let number = Some(Offset::new(5));
    let at = Timestamp::from_millis(1_700);
    assert_eq!(read, Told { at, number });
    let senseless = told(&[(NUMBER, "-5"), (DELIVER_AT, "tomorrow")]);
    let at = Timestamp::from_millis(i64::MIN);
    assert_eq!(senseless, Told { at, number: None }, "at once");
}

#[test]
fn what_is_set_aside_is_not_due_until_all_are_tried() {
    let mut schedule = Schedule::load(new_row(), std::iter::empty());
    let pending = Pending { bytes: 1, id: None };
    for due in [20, 10] {
        let (at, number) = (at(due), None);
        schedule.take_in(Told { at, number }, pending);
    }
    let first = schedule.due(at(99), BOUNDS)[0];
    assert_eq!((first.at, first.number), (at(10), Offset::new(1)));
    schedule.set_aside(first);
    assert_eq!(schedule.next_due(), Some(at(20)));
    assert_eq!((schedule.len(), schedule.aside()), (2, 1));
    schedule.try_all();
    assert_eq!(schedule.next_due(), Some(at(10)));
    assert_eq!(schedule.begin_at(Offset::new(1)), 1, "it was purged");
    assert_eq!((schedule.len(), schedule.floor()), (1, Offset::new(1)));
}
