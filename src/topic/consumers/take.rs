//! Giving records out: those that come again, and new ones from the cursor on.
//!
//! What is to be given out is read first and assigned then, in one step with nothing to wait for between it and the answer
//! (C9): so a record is never in flight at a member that is not going to see it.

use super::ahead::Now;
use super::group::Group;
use super::runs::{Key, NEVER, Place, Run, Slot};
use crate::limits;
use crate::protocol::taken::TakenRun;
use crate::types::Offset;

/// Records that follow each other in the topic, read from it.
#[derive(Debug, Clone, Copy)]
pub struct Offer<'a> {
    /// Offset of the first one.
    pub base: Offset,
    /// How many there are.
    pub count: u32,
    /// What stands for the key of each; none without a key. Only in a group ordered by key.
    pub keys: &'a [Option<Key>],
}

/// Whether new records can be given out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fresh {
    /// From the cursor on.
    There,
    /// The cursor is at the end.
    AtEnd,
    /// The group is as far ahead of its oldest open record as it goes.
    FarAhead,
    /// As many records as are remembered wait for their keys.
    ManyParked,
}

/// Who takes, and how much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taker {
    /// The member.
    pub member: Slot,
    /// Most records.
    pub records: u64,
    /// Now.
    pub now: Now,
}

impl Group {
    /// How many more records a member may hold.
    pub fn room(&self, member: Slot) -> u64 {
        let max = u64::from(self.row.options.unacked_max);
        max.saturating_sub(self.runs.held_by(member))
    }

    /// Whether any record that comes again can be given out.
    pub fn has_ready(&self) -> bool {
        self.runs.ready().next().is_some()
    }

    /// Whether new records can be given out of a topic that ends there.
    pub fn fresh(&self, end: Offset) -> Fresh {
        if self.cursor >= end.get() {
            Fresh::AtEnd
        } else if self.window() >= limits::CONSUMER_PAGES_MAX {
            Fresh::FarAhead
        } else if self.runs.counts().parked >= limits::CONSUMER_PARKED_MAX {
            Fresh::ManyParked
        } else {
            Fresh::There
        }
    }

    /// The oldest records that come again and can be given out, at most so many: intervals, rising. Nothing changes.
    pub fn choose(&self, records: u64) -> Vec<(Offset, Offset)> {
        let (mut left, mut chosen) = (records, Vec::new());
        for first in self.runs.ready() {
            if left == 0 {
                break;
            }
            let Some(run) = self.runs.get(first) else {
                continue;
            };
            let to = run.end.min(first.saturating_add(left));
            left -= to - first;
            chosen.push((first, to));
            // What waits behind it for its key can go along.
            let chain = run.key.and_then(|key| self.keys.get(key));
            for offset in chain
                .into_iter()
                .flat_map(|chain| chain.offsets.iter().skip(1))
            {
                let is_parked = |run: &Run| run.place == Place::Parked;
                if left == 0 || !self.runs.get(*offset).is_some_and(is_parked) {
                    break;
                }
                left -= 1;
                chosen.push((*offset, offset + 1));
            }
        }
        chosen.sort_unstable();
        let mut merged: Vec<(Offset, Offset)> = Vec::new();
        for (from, to) in chosen {
            match merged.last_mut() {
                Some((_, end)) if end.get() == from => *end = Offset::new(to),
                _ => merged.push((Offset::new(from), Offset::new(to))),
            }
        }
        merged
    }

    /// Gives out what can be of `[from, to)`, records that come again; what was given.
    pub fn give_again(&mut self, (from, to): (Offset, Offset), taker: Taker) -> Vec<TakenRun> {
        let mut taken = Vec::new();
        let (mut at, mut left) = (from.get(), taker.records);
        while left > 0
            && let Some((first, run)) = self.runs.at_or_after(at)
            && first < to.get()
        {
            let (from, end) = (first.max(at), run.end.min(to.get()));
            at = end;
            if !self.may_go(from, run, taker.member) {
                continue;
            }
            let until = end.min(from.saturating_add(left));
            left -= until - from;
            if let Some(run) = self.runs.cut(first, (from, until)) {
                self.hold(from, run, taker, &mut taken);
            }
        }
        taken
    }

    fn may_go(&self, offset: u64, run: &Run, member: Slot) -> bool {
        match (&run.place, run.key.and_then(|key| self.keys.get(key))) {
            (Place::Ready, None) => true,
            (Place::Ready | Place::Parked, Some(chain)) => {
                let is_next = chain.offsets.get(chain.held) == Some(&offset);
                is_next && (chain.held == 0 || chain.holder == Some(member))
            }
            _ => false,
        }
    }

    /// Puts a run that is in no place in flight.
    fn hold(&mut self, first: u64, run: Run, taker: Taker, taken: &mut Vec<TakenRun>) {
        let mut until = self.deadline(taker.now);
        if let Some(chain) = run.key.and_then(|key| self.keys.get_mut(key)) {
            chain.hold(taker.member);
            if chain.held > 1 {
                until = NEVER;
            }
        }
        let given = run.given.saturating_add(1);
        push(taken, (first, run.end), given);
        let place = Place::Held {
            member: taker.member,
            until,
        };
        self.runs.insert(
            first,
            Run {
                given,
                place,
                ..run
            },
        );
    }

    /// Gives out new records, those of the offer from the cursor on; what was given. The cursor passes over what is settled,
    /// and over what cannot be given to this member now.
    pub fn give_new(&mut self, offer: Offer<'_>, taker: Taker) -> Vec<TakenRun> {
        let (base, end) = (offer.base.get(), offer.base.get() + u64::from(offer.count));
        debug_assert!(base <= self.cursor, "records are offered in order");
        let (mut taken, mut left, mut at) = (Vec::new(), taker.records, self.cursor);
        while at < end && left > 0 && self.runs.counts().parked < limits::CONSUMER_PARKED_MAX {
            if let Some(to) = self.ahead.settled_to(at) {
                at = to;
                continue;
            }
            let known = self.ahead.failed(at);
            let key = match self.row.options.ordered_by_key {
                true => offer.keys.get((at - base) as usize).copied().flatten(),
                false => None,
            };
            let to = match known.is_some() || self.row.options.ordered_by_key {
                true => at + 1,
                false => end
                    .min(self.ahead.next_known(at))
                    .min(at.saturating_add(left)),
            };
            let run = Run {
                end: to,
                failed: known.map_or(0, |known| known.times),
                given: known.map_or(0, |known| known.times),
                key,
                place: match known {
                    Some(known) if known.dies => Place::Dying { reason: None },
                    Some(known) if known.until > taker.now.steady => {
                        Place::Later { until: known.until }
                    }
                    _ => Place::Ready,
                },
            };
            left -= self.meet(at, run, taker, &mut taken);
            at = to;
        }
        self.move_cursor(at);
        taken
    }

    /// A run that was met for the first time: in flight if it can be. How many records were given out.
    fn meet(&mut self, at: u64, run: Run, taker: Taker, taken: &mut Vec<TakenRun>) -> u64 {
        let records = run.end - at;
        let is_open = run
            .key
            .is_none_or(|key| self.keys.is_open_to(key, taker.member));
        if let Some(key) = run.key {
            self.keys.push(key, at);
        }
        if run.place != Place::Ready {
            self.runs.insert(at, run);
            0
        } else if is_open {
            self.hold(at, run, taker, taken);
            records
        } else {
            let place = Place::Parked;
            self.runs.insert(at, Run { place, ..run });
            0
        }
    }

    /// Between the cursor and `to` there are no records: they were discarded, lost, or are damaged.
    pub fn pass(&mut self, to: Offset) {
        let (from, to) = (self.cursor, to.get());
        if to <= from {
            return;
        }
        let settled = self.ahead.settled_within(from, to);
        let settled: u64 = settled.map(|(first, end)| end - first).sum();
        self.row.skipped = self.row.skipped.saturating_add(to - from - settled);
        self.dirt.touch(from, to);
        if to - from >= limits::CONSUMER_PAGE_OFFSETS {
            self.passed.push((from, to));
        }
        self.move_cursor(to);
    }

    /// Known records in `[from, to)` cannot be had any more. Where one is over without having been acknowledged its member may
    /// drop the later ones of its key, as after a failure: so they are taken back.
    pub fn lose(&mut self, (from, to): (Offset, Offset), now: Now) {
        let runs = self.runs.within(from.get(), to.get());
        let runs: Vec<u64> = runs.map(|(first, _)| first).collect();
        for first in runs {
            let Some(run) = self.runs.get(first) else {
                continue;
            };
            let piece = (first.max(from.get()), run.end.min(to.get()));
            if let (Place::Held { .. }, Some(key)) = (&run.place, run.key) {
                self.take_back_after(key, first);
            }
            self.row.skipped = self.row.skipped.saturating_add(piece.1 - piece.0);
            self.settle_piece(first, piece, now);
        }
        let ahead = (from.get().max(self.cursor), to.get());
        let known: Vec<u64> = (self.ahead.failed_within(ahead.0, ahead.1))
            .map(|(offset, _)| offset)
            .collect();
        for offset in known {
            self.ahead.settle(offset, offset + 1);
            self.dirt.touch(offset, offset + 1);
            self.row.skipped = self.row.skipped.saturating_add(1);
        }
        self.move_cursor(self.cursor);
    }

    /// The topic begins at `start` now: what lies before is gone.
    pub fn begin_at(&mut self, start: Offset, now: Now) {
        if self.floor() >= start {
            return;
        }
        self.lose((Offset::ZERO, start), now);
        self.pass(start);
    }
}

/// Adds to what was given, as part of the run before it where it goes on.
fn push(taken: &mut Vec<TakenRun>, (first, end): (u64, u64), delivery: u32) {
    let count = u32::try_from(end - first).expect("a run in flight is part of a batch");
    match taken.last_mut() {
        Some(last) if last.end().get() == first && last.delivery == delivery => last.count += count,
        _ => taken.push(TakenRun {
            first: Offset::new(first),
            count,
            delivery,
        }),
    }
}
