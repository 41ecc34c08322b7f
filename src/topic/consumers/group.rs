//! One consumer group: who holds what, and what is settled. Pure: time comes as an argument.
//!
//! ```text
//!      floor                        cursor               end
//!        |                            |                   |
//!  ------[ run )....[ run )..[ run )..)-------------------)--->
//!  settled  open  settled             not looked at yet
//! ```
//!
//! Everything below the floor is settled (C1), and what lies between floor and cursor in no run. A record that is in a run is
//! in one place (C5): in flight at one member (C3), ready, waiting for its back-off or its key, or dying.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::ahead::{Ahead, Now};
use super::dirt::Dirt;
use super::keys::Keys;
use super::rows::{ConsumerGroupRow, ConsumerPageRow, page_of};
use super::runs::{Key, Millis, NEVER, Place, Run, Runs, Slot};
use crate::limits;
use crate::protocol::api::ConsumerGroupOptions;
use crate::time::Timestamp;
use crate::types::{Generation, MemberId, Offset};

/// A member of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its id, chosen by its client.
    pub id: MemberId,
    /// When it joined.
    pub since: Timestamp,
}

/// Why a record is not held any more, though it is not settled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Cause {
    /// Its member refused it, for so long.
    Refused(Option<Millis>),
    /// Its member said that nobody should get it again, and why, if that is kept.
    Rejected(Option<Arc<str>>),
    /// Its deadline has passed.
    Overdue,
    /// Its member was lost.
    Lost,
    /// Its member gave it back: it is as if it had not been delivered.
    GivenBack,
}

/// How many records are where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Between the floor and the end of the topic, and not settled.
    pub unsettled: u64,
    /// In flight.
    pub in_flight: u64,
    /// Failed, and waiting.
    pub failed: u64,
    /// On their way to the dead letters.
    pub dying: u64,
}

/// A consumer group.
#[derive(Debug, Clone)]
pub struct Group {
    pub(super) row: ConsumerGroupRow,
    pub(super) cursor: u64,
    pub(super) runs: Runs,
    pub(super) keys: Keys,
    pub(super) ahead: Ahead,
    pub(super) dirt: Dirt,
    /// Long intervals without records that the cursor passed.
    pub(super) passed: Vec<(u64, u64)>,
    pub(super) news: bool,
    members: BTreeMap<Slot, Member>,
    next_slot: Slot,
}

impl Group {
    /// A group as its rows say. Nobody holds anything.
    pub fn load<'a>(
        row: ConsumerGroupRow,
        pages: impl Iterator<Item = (u64, &'a ConsumerPageRow)>,
        now: Now,
    ) -> Self {
        let mut ahead = Ahead::default();
        let mut dirt = Dirt::default();
        for (page, content) in pages {
            ahead.read(page, content, (row.floor, now));
            dirt.is_stored(page);
        }
        let mut group = Self {
            cursor: row.floor.get(),
            runs: Runs::default(),
            keys: Keys::default(),
            ahead,
            dirt,
            passed: Vec::new(),
            news: false,
            members: BTreeMap::new(),
            next_slot: 0,
            row,
        };
        group.kill_what_failed_too_often();
        group.move_cursor(group.cursor);
        group
    }

    /// Its options.
    pub fn options(&self) -> &ConsumerGroupOptions {
        &self.row.options
    }

    /// Changes its options. What failed as often as is allowed now dies.
    pub fn set_options(&mut self, options: ConsumerGroupOptions) {
        self.row.options = options;
        self.kill_what_failed_too_often();
        self.dirt.change();
        self.news = true;
    }

    fn kill_what_failed_too_often(&mut self) {
        let max = self.row.options.deliveries_max;
        if max == 0 {
            return;
        }
        self.ahead.kill(max);
        let is_over = |run: &Run| {
            let waits = !matches!(run.place, Place::Held { .. } | Place::Dying { .. });
            run.failed >= max && waits
        };
        let over = self.runs.iter().filter(|(_, run)| is_over(run));
        let over: Vec<u64> = over.map(|(first, _)| first).collect();
        for first in over {
            if let Some(run) = self.runs.remove(first) {
                self.dirt.touch(first, run.end);
                let place = Place::Dying { reason: None };
                self.runs.insert(first, Run { place, ..run });
            }
        }
    }

    /// Its generation.
    pub fn generation(&self) -> Generation {
        self.row.generation
    }

    /// Facts about it, as they are now.
    pub fn row(&self) -> ConsumerGroupRow {
        ConsumerGroupRow {
            floor: self.floor(),
            ..self.row.clone()
        }
    }

    /// The first offset that is not settled.
    pub fn floor(&self) -> Offset {
        Offset::new(self.runs.first().unwrap_or(self.cursor))
    }

    /// The first offset that was not looked at.
    pub fn cursor(&self) -> Offset {
        Offset::new(self.cursor)
    }

    /// How many records are where, in a topic that ends there.
    pub fn tally(&self, end: Offset) -> Tally {
        let counts = self.runs.counts();
        let (settled, failed, dying) = self.ahead.counts();
        let ahead = end
            .get()
            .saturating_sub(self.cursor)
            .saturating_sub(settled);
        Tally {
            unsettled: counts.all + ahead,
            in_flight: counts.held,
            failed: counts.failed + failed,
            dying: counts.dying + dying,
        }
    }

    /// What it costs to remember it, in pieces.
    pub fn weight(&self) -> usize {
        self.runs.len() + self.ahead.len()
    }

    /// Whether there is something that its members wait for, since the last question.
    pub fn take_news(&mut self) -> bool {
        std::mem::take(&mut self.news)
    }

    /// Whether anything happens by itself.
    pub fn waits(&self) -> bool {
        self.runs.waits()
    }

    // --- members -------------------------------------------------------------

    /// Adds a member.
    pub fn join(&mut self, id: MemberId, now: Now) -> Slot {
        let slot = self.next_slot;
        self.next_slot += 1;
        let since = now.wall;
        self.members.insert(slot, Member { id, since });
        slot
    }

    /// The members, with how much each holds.
    pub fn members(&self) -> impl Iterator<Item = (Slot, &Member, u64)> {
        let all = self.members.iter();
        all.map(|(slot, member)| (*slot, member, self.runs.held_by(*slot)))
    }

    /// Whether that is a member.
    pub fn has(&self, slot: Slot) -> bool {
        self.members.contains_key(&slot)
    }

    /// Removes a member. What it held counts as failed if it was lost, and not if it left.
    pub fn leave(&mut self, slot: Slot, lost: bool, now: Now) {
        let cause = if lost { Cause::Lost } else { Cause::GivenBack };
        self.members.remove(&slot);
        for first in self.runs.of_member(slot) {
            // A record that was taken back behind one of its key is not held any more.
            if let Some(end) = self.held_end(first, slot) {
                self.drop_piece(first, (first, end), &cause, now);
            }
        }
        self.news = true;
    }

    fn held_end(&self, first: u64, slot: Slot) -> Option<u64> {
        let run = self.runs.get(first)?;
        matches!(run.place, Place::Held { member, .. } if member == slot).then_some(run.end)
    }

    // --- time ----------------------------------------------------------------

    /// What waited until now fails, or waits no more.
    pub fn tick(&mut self, now: Now) {
        while let Some(first) = self.runs.first_due(now.steady) {
            let Some(run) = self.runs.get(first) else {
                return;
            };
            let (end, key) = (run.end, run.key);
            if matches!(run.place, Place::Held { .. }) {
                self.drop_piece(first, (first, end), &Cause::Overdue, now);
            } else if let Some(run) = self.runs.remove(first) {
                let place = match key {
                    Some(_) => Place::Parked,
                    None => Place::Ready,
                };
                self.runs.insert(first, Run { place, ..run });
                self.news = true;
                key.into_iter().for_each(|key| self.refresh(key));
            }
        }
    }

    /// `[from, to)`, a part of a run that is in flight, is not any more.
    pub(super) fn drop_piece(
        &mut self,
        first: u64,
        (from, to): (u64, u64),
        cause: &Cause,
        now: Now,
    ) {
        let Some(run) = self.runs.cut(first, (from, to)) else {
            return;
        };
        let failed = match cause {
            Cause::GivenBack => run.failed,
            _ => {
                self.dirt.touch(from, to);
                run.failed.saturating_add(1)
            }
        };
        let place = self.place_after(failed, cause, now);
        let (key, place) = match run.key {
            // It becomes ready when it is its turn.
            Some(key) if place == Place::Ready => (Some(key), Place::Parked),
            key => (key, place),
        };
        if let Some(key) = key {
            self.take_back_after(key, from);
        }
        let dropped = Run {
            failed,
            place,
            ..run
        };
        self.runs.insert(from, dropped);
        key.into_iter().for_each(|key| self.refresh(key));
        self.news = true;
    }

    fn place_after(&self, failed: u32, cause: &Cause, now: Now) -> Place {
        let options = &self.row.options;
        let dies = options.deliveries_max > 0 && failed >= options.deliveries_max;
        let delay = match cause {
            Cause::GivenBack => 0,
            Cause::Rejected(reason) => {
                let reason = reason.clone();
                return Place::Dying { reason };
            }
            _ if dies => return Place::Dying { reason: None },
            Cause::Refused(Some(delay)) => *delay,
            // Nothing is known against it; but what kills its members should not kill them all at once.
            Cause::Lost if failed == 1 => 0,
            Cause::Refused(None) | Cause::Overdue | Cause::Lost => {
                let steps = &options.backoff_ms;
                let step = (failed.max(1) as usize).min(steps.len());
                step.checked_sub(1).map_or(0, |step| steps[step])
            }
        };
        match delay {
            0 => Place::Ready,
            delay => Place::Later {
                until: now.steady.saturating_add(delay).min(NEVER - 1),
            },
        }
    }

    // --- keys ----------------------------------------------------------------

    /// The record at `offset` is in flight no more; so are those of its key behind it (C7).
    pub(super) fn take_back_after(&mut self, key: Key, offset: u64) {
        let Some(chain) = self.keys.get_mut(key) else {
            return;
        };
        let at = chain.offsets.partition_point(|before| *before < offset);
        let behind: Vec<u64> = (chain.offsets.range(at.min(chain.held)..chain.held))
            .copied()
            .filter(|behind| *behind != offset)
            .collect();
        chain.hold_only(at.min(chain.held));
        for offset in behind {
            self.put(offset, Place::Parked);
        }
    }

    /// The first record of a key goes out when nothing of the key is in flight.
    pub(super) fn refresh(&mut self, key: Key) {
        let Some(chain) = self.keys.get(key) else {
            return;
        };
        let Some(&front) = chain.offsets.front() else {
            return self.keys.tidy(key);
        };
        let is_parked = |run: &Run| run.place == Place::Parked;
        if chain.held == 0 && self.runs.get(front).is_some_and(is_parked) {
            self.put(front, Place::Ready);
            self.news = true;
        }
    }

    /// Moves a record of a key to another place.
    pub(super) fn put(&mut self, offset: u64, place: Place) {
        if let Some(run) = self.runs.remove(offset) {
            self.runs.insert(offset, Run { place, ..run });
        }
    }

    /// The record at `offset` is not open any more.
    pub(super) fn unchain(&mut self, key: Key, offset: u64, now: Now) {
        let Some(chain) = self.keys.get_mut(key) else {
            return;
        };
        let was_front = chain.remove(offset) == Some(0);
        if was_front && chain.held > 0 {
            // Its deadline begins when it is its turn: behind others its member may not have begun with it.
            let front = chain.offsets[0];
            let until = self.deadline(now);
            if let Some(Place::Held { member, .. }) = self.runs.get(front).map(|run| &run.place) {
                let member = *member;
                self.put(front, Place::Held { member, until });
            }
        }
        self.refresh(key);
    }

    pub(super) fn deadline(&self, now: Now) -> Millis {
        let deadline = self.row.options.ack_deadline_ms;
        now.steady.saturating_add(deadline).min(NEVER - 1)
    }

    // --- the cursor ----------------------------------------------------------

    /// The cursor is at `to`, or behind what is settled from there on.
    pub(super) fn move_cursor(&mut self, to: u64) {
        self.cursor = self.ahead.settled_to(to).unwrap_or(to);
        self.ahead.forget_before(self.cursor);
        let floor = self.floor().get();
        self.passed.retain(|(_, end)| *end > floor);
    }

    /// How far the cursor is from the floor, in pages that may have rows.
    pub(super) fn window(&self) -> u64 {
        let pages = page_of(self.cursor()) - page_of(self.floor());
        let passed = self.passed.iter().map(|(first, end)| end - first);
        pages.saturating_sub(passed.sum::<u64>() / limits::CONSUMER_PAGE_OFFSETS)
    }
}
