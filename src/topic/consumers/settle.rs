//! What members say of what they hold, and the dead letters.

use std::sync::Arc;

use super::ahead::Now;
use super::group::{Cause, Group};
use super::runs::{Place, Run, Slot};
use crate::limits;
use crate::protocol::api::{Instead, NotHeld, SettledRun, Verdict};
use crate::types::Offset;

/// A record on its way to the dead letters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dying {
    /// Its offset.
    pub offset: Offset,
    /// How many deliveries failed.
    pub deliveries: u32,
    /// What its consumer said, if it did and that is still known.
    pub reason: Option<Arc<str>>,
}

impl Group {
    /// Decides on what a member says; what it does not hold by that delivery is told (C4).
    pub fn settle(
        &mut self,
        member: Slot,
        said: &SettledRun,
        now: Now,
        not_held: &mut Vec<NotHeld>,
    ) {
        let first = said.first.get();
        let end = first.saturating_add(said.count.into());
        let mut at = first;
        while at < end {
            let found = self
                .runs
                .at_or_after(at)
                .map(|(first, run)| (first, run.clone()));
            match found {
                Some((first, run)) if first <= at => {
                    let piece = (at, run.end.min(end));
                    let by = Place::is_held_by(&run.place, member);
                    if by && run.given == said.delivery {
                        self.decide((first, &run), piece, &said.verdict, now);
                    } else {
                        tell(not_held, piece, instead_of(&run.place));
                    }
                    at = piece.1;
                }
                next => {
                    let to = next.map_or(end, |(first, _)| first.min(end));
                    at = self.tell_of_no_run((at, to), not_held);
                }
            }
        }
    }

    /// Tells of the first offsets of an interval in which there is no run; returns where to go on.
    fn tell_of_no_run(&self, (at, end): (u64, u64), not_held: &mut Vec<NotHeld>) -> u64 {
        let settled = if at < self.cursor {
            Some(self.cursor)
        } else {
            self.ahead.settled_to(at)
        };
        let (to, instead) = match (settled, self.ahead.failed(at)) {
            (Some(to), _) => (to, Instead::Settled),
            (None, Some(failed)) if failed.dies => (at + 1, Instead::Settled),
            (None, Some(_)) => (at + 1, Instead::Waiting),
            (None, None) => (self.ahead.next_known(at), Instead::Untouched),
        };
        let to = to.min(end);
        tell(not_held, (at, to), instead);
        to
    }

    fn decide(
        &mut self,
        (first, run): (u64, &Run),
        piece: (u64, u64),
        verdict: &Verdict,
        now: Now,
    ) {
        match verdict {
            Verdict::Ack => {
                self.row.acknowledged = self.row.acknowledged.saturating_add(piece.1 - piece.0);
                self.row.last_settled = Some(now.wall);
                self.settle_piece(first, piece, now);
            }
            Verdict::Nak { delay_ms } => {
                self.drop_piece(first, piece, &Cause::Refused(*delay_ms), now);
            }
            Verdict::Reject { reason } => {
                // They are kept until the letters are written, which may not be possible for long.
                let is_kept = self.runs.counts().dying < limits::REJECT_REASONS_KEPT;
                let cause = Cause::Rejected(is_kept.then(|| Arc::from(reason.as_str())));
                self.drop_piece(first, piece, &cause, now);
            }
            Verdict::Extend => self.extend((first, run), piece, now),
        }
    }

    fn extend(&mut self, (first, run): (u64, &Run), piece: (u64, u64), now: Now) {
        let chain = run.key.and_then(|key| self.keys.get(key));
        if chain.is_some_and(|chain| chain.offsets.front() != Some(&piece.0)) {
            // Its deadline has not begun.
            return;
        }
        let until = self.deadline(now);
        if let (Some(run), Place::Held { member, .. }) = (self.runs.cut(first, piece), &run.place) {
            let place = Place::Held {
                member: *member,
                until,
            };
            self.runs.insert(piece.0, Run { place, ..run });
        }
    }

    /// `[from, to)`, a part of a run, is open no more.
    pub(super) fn settle_piece(&mut self, first: u64, (from, to): (u64, u64), now: Now) {
        if let Some(run) = self.runs.cut(first, (from, to)) {
            self.dirt.touch(from, to);
            if let Some(key) = run.key {
                self.unchain(key, from, now);
            }
        }
    }

    // --- dead letters ----------------------------------------------------------

    /// The records that die, at most so many.
    pub fn dying(&self, max: usize) -> Vec<Dying> {
        let known = self.runs.dying().filter_map(|first| {
            let run = self.runs.get(first)?;
            let Place::Dying { reason } = &run.place else {
                return None;
            };
            let each = (first..run.end).map(move |offset| Dying {
                offset: Offset::new(offset),
                deliveries: run.failed,
                reason: reason.clone(),
            });
            Some(each)
        });
        let ahead = self.ahead.dying().map(|offset| Dying {
            offset: Offset::new(offset),
            deliveries: self.ahead.failed(offset).map_or(0, |failed| failed.times),
            reason: None,
        });
        known.flatten().chain(ahead).take(max).collect()
    }

    /// Whether that record dies.
    pub fn dies(&self, offset: Offset) -> bool {
        let at = offset.get();
        match self.runs.at_or_after(at) {
            Some((first, run)) if first <= at => matches!(run.place, Place::Dying { .. }),
            _ => self.ahead.failed(at).is_some_and(|failed| failed.dies),
        }
    }

    /// Whether any record dies.
    pub fn has_dying(&self) -> bool {
        self.runs.dying().next().is_some() || self.ahead.dying().next().is_some()
    }

    /// The dead letter of that record is durable, and so is that it is settled.
    pub fn bury(&mut self, offset: Offset, now: Now) {
        let at = offset.get();
        if let Some((first, run)) = self.runs.at_or_after(at)
            && first <= at
        {
            if matches!(run.place, Place::Dying { .. }) {
                self.settle_piece(first, (at, at + 1), now);
            }
        } else if at >= self.cursor {
            self.ahead.settle(at, at + 1);
            self.dirt.touch(at, at + 1);
            self.move_cursor(self.cursor);
        }
        self.row.dead = self.row.dead.saturating_add(1);
        self.row.last_settled = Some(now.wall);
    }
}

impl Place {
    fn is_held_by(&self, by: Slot) -> bool {
        matches!(self, Self::Held { member, .. } if *member == by)
    }
}

/// What a record is that somebody does not hold.
fn instead_of(place: &Place) -> Instead {
    match place {
        Place::Held { .. } => Instead::Elsewhere,
        Place::Ready | Place::Later { .. } | Place::Parked => Instead::Waiting,
        // It is durable that it dies, when this is told.
        Place::Dying { .. } => Instead::Settled,
    }
}

fn tell(not_held: &mut Vec<NotHeld>, (from, to): (u64, u64), instead: Instead) {
    let count = u32::try_from(to - from).unwrap_or(u32::MAX);
    match not_held.last_mut() {
        Some(last)
            if last.instead == instead
                && last.first.get() + u64::from(last.count) == from
                && last.count.checked_add(count).is_some() =>
        {
            last.count += count;
        }
        _ => not_held.push(NotHeld {
            first: Offset::new(from),
            count,
            instead,
        }),
    }
}
