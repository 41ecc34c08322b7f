//! Retention: which records of a topic may go, by age, bytes, number and interest.
//!
//! ```text
//!   start               to                              durable end
//!     |   may go        |           kept                     |
//!     v                 v                                    v
//!  ---[=================|====================================)---> offsets
//! ```
//!
//! A step is *planned* beside the writer, from footers and open extents, and
//! *decided* by the writer, as a change of the topic's row: replay never looks
//! at a clock or at a size. A plan holds for the start it was made at; if that
//! moved meanwhile the writer drops the plan and the next look makes another.
//!
//! 1. Nothing at or above the durable end goes.
//! 2. Records are counted exactly, gaps excluded; bytes and age to the batch.
//!    The newest batch stays whatever the bytes say: a topic that cannot keep
//!    what was just published would be of no use to anybody.
//! 3. What goes is a prefix: a batch goes if it or any later one does.
//! 4. Bytes are those of the batches that are live in part or whole, so what a
//!    step takes away is what the batches added that end at or below `to`.
//! 5. Nothing expires while the clocks contradict each other ([`ClockWatch`]).
//! 6. For want of interest goes only what lies below the lowest position in the
//!    topic ([`Topic::lowest_position`]), which the writer told for the plan and
//!    looks at again when it decides: a position that has fallen since (a seek, a
//!    new subscription) undoes the plan. Where nobody holds a position nothing
//!    goes on that account. Age, bytes and number ask nobody: records go although
//!    somebody has not read them, and the reader is told.
//! 7. What cannot be looked up now (no descriptor left) stays, and all behind it: the
//!    next look goes on from there. What is damaged for good is passed over.
//! 8. Where a full topic refuses, bytes and number discard nothing
//!    ([`TopicSettings::discards`](crate::types::TopicSettings::discards)).

use std::time::{Duration, Instant};

use super::finding::not_now;
use super::index::Place as Where;
use super::reader::{pieces_from_disk, pieces_from_memory};
use super::segments::Segment;
use super::shared::{Shared, TopicShared};
use crate::journal::{Extent, ExtentRead, JournalError, Piece, StoredEntry};
use crate::limits;
use crate::protocol::batch::{
    BatchHeader, CheckedBatch, Piece as BatchPiece, expand, time_to_live,
};
use crate::protocol::error::ApiError;
use crate::time::Timestamp;
use crate::topic::Topic;
use crate::types::{Gap, Offset, Retention};

/// What may go of a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Plan {
    /// The start the plan was made at.
    pub from: Offset,
    /// The start to come; `from` if nothing may go.
    pub to: Offset,
    /// Bytes of the batches that go.
    pub dropped: u64,
    /// Offsets below `to` whose records were taken away before.
    pub removed: u64,
    /// As of so many times that batches of the topic were written anew: what was counted holds for these only.
    pub thinnings: u64,
    /// When the oldest batch kept will be too old, if it ever will.
    pub due: Option<Timestamp>,
    /// The lowest position it relies on: what lies below was confirmed.
    pub confirmed: Option<Offset>,
}

/// Why something could not be looked into.
enum Unread {
    /// Another segment has its records now: it is to be found again.
    Moved,
    /// It cannot be read now.
    Failed(JournalError),
}

impl From<JournalError> for Unread {
    fn from(error: JournalError) -> Self {
        Self::Failed(error)
    }
}

/// What a plan is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Terms {
    /// What is kept.
    pub retention: Retention,
    /// The lowest position in the topic, where what is confirmed goes and somebody holds one.
    pub confirmed: Option<Offset>,
    /// The time; `None` while the clock cannot be trusted.
    pub now: Option<Timestamp>,
    /// Whether what begins the topic may have a time to live that is over.
    pub may_be_over: bool,
}

/// What goes: a batch that meets any of these.
#[derive(Debug, Clone, Copy)]
struct Limits {
    /// Ends at or below this offset.
    below: Offset,
    /// Was appended before.
    before: Option<Timestamp>,
    /// Has a time to live that is over by then, or no record left.
    over: Option<Timestamp>,
    /// Whether there may be messages with a time to live, over or not.
    have_ttl: bool,
    /// Begins among the oldest so many bytes.
    excess: u64,
    /// Nothing above goes.
    end: Offset,
    /// Extents to pass over.
    extents: usize,
}

/// Plans a step of retention. With an error it ends where something cannot be looked up now: more may go.
pub(super) fn plan(
    shared: &Shared,
    topic: &TopicShared,
    terms: Terms,
) -> (Plan, Option<JournalError>) {
    let retention = terms.retention;
    let (start, end) = (topic.start(), topic.durable_end());
    let age = retention.age_ms.map(Duration::from_millis);
    let (surplus, uncounted) = retention
        .records
        .map_or((start, None), |records| nth_record(shared, topic, records));
    let limits = Limits {
        below: surplus.max(terms.confirmed.unwrap_or(start)),
        before: terms.now.zip(age).map(|(now, age)| now.before(age)),
        over: terms.now.filter(|_| terms.may_be_over),
        have_ttl: terms.may_be_over,
        excess: retention
            .bytes
            .map_or(0, |bytes| topic.bytes().saturating_sub(bytes)),
        end,
        extents: limits::RETENTION_EXTENTS_MAX,
    };
    let walk = Walk::new(shared, topic, limits).run();
    let by_age = walk.oldest.zip(age).map(|(oldest, age)| oldest.after(age));
    let by_ttl = walk.over.filter(|_| terms.may_be_over);
    let plan = Plan {
        due: by_age.into_iter().chain(by_ttl).min(),
        confirmed: terms.confirmed,
        ..walk.plan
    };
    (plan, uncounted.or(walk.failed))
}

/// Bytes of the batches that go when everything below `to` does, and the start that holds for.
///
/// # Errors
/// `NotReadableNow`: some of it cannot be looked up now, so nobody knows how many bytes it has.
pub(super) fn plan_purge(
    shared: &Shared,
    topic: &TopicShared,
    to: Offset,
) -> Result<Plan, ApiError> {
    let limits = Limits {
        below: to,
        before: None,
        over: None,
        have_ttl: false,
        excess: 0,
        end: to,
        extents: usize::MAX,
    };
    let walk = Walk::new(shared, topic, limits).run();
    match walk.failed {
        None => Ok(walk.plan),
        Some(error) => Err(not_now(&error)),
    }
}

/// Lets go of what a plan says. The plan was made at this start.
pub(super) fn discard(topic: &mut Topic, plan: &Plan) -> bool {
    debug_assert_eq!(topic.row.start, plan.from, "plans hold for one start");
    let kept = topic.row.bytes.saturating_sub(plan.dropped);
    let moved = topic.advance_start(plan.to, kept);
    if moved {
        topic.pass_removed(plan.removed);
    }
    moved
}

/// Whether what a plan counted is so still.
pub(super) fn holds(plan: &Plan, topic: &Topic, shared: &Shared) -> bool {
    let thinnings = shared.topic(topic.id).map(|shared| shared.thinnings());
    topic.row.start == plan.from && thinnings == Some(plan.thinnings)
}

/// The offset from which on there are so many records. Where records were taken out of the middle, batches tell; with an
/// error one of them cannot be read now, and there are at least so many from the offset on.
fn nth_record(
    shared: &Shared,
    topic: &TopicShared,
    records: u64,
) -> (Offset, Option<JournalError>) {
    let (start, end) = (topic.start(), topic.durable_end());
    let gaps = topic.gaps();
    let (removed, thinned_end) = topic.thinned();
    let all = nth_from_end(&gaps, end, records);
    if removed == 0 || all >= thinned_end {
        return (all, None);
    }
    let missing = gaps.iter().map(|gap| {
        let (from, to) = (gap.from.max(start), gap.to.min(end));
        to.since(from)
    });
    let there = end
        .since(start)
        .saturating_sub(missing.sum::<u64>() + removed);
    let mut surplus = there.saturating_sub(records);
    let mut at = start;
    while surplus > 0 && at < end {
        let (extent, pieces) = match extent_and_pieces(shared, topic, at) {
            Ok(Some(found)) => found,
            Ok(None) => break,
            Err(error) => return (at, Some(error)),
        };
        // What lay in a segment that is ruined counts, as it does above.
        let ruined = unaccounted(&gaps, at, extent.base);
        if surplus <= ruined {
            return (at.saturating_add(surplus), None);
        }
        surplus -= ruined;
        let from = at;
        at = extent.end();
        for piece in pieces {
            match nth_in(&piece, from.max(start), &mut surplus) {
                Some(found) => return (found, None),
                None => at = at.max(piece.to()),
            }
        }
    }
    (at.min(end), None)
}

/// How many offsets in `[from, to)` are not known to be missing.
fn unaccounted(gaps: &[Gap], from: Offset, to: Offset) -> u64 {
    let missing = gaps
        .iter()
        .map(|gap| gap.to.min(to).since(gap.from.max(from)));
    to.since(from).saturating_sub(missing.sum())
}

/// Where in a piece the records end of which so many are superfluous; none if there are more behind it. Of a damaged
/// one nobody knows which of its offsets had a record: all count, so nothing that can be read goes for it.
fn nth_in(piece: &Piece, from: Offset, surplus: &mut u64) -> Option<Offset> {
    let runs = match piece {
        Piece::Entry(entry) => records_of(entry),
        Piece::Damaged { from, to } => vec![(*from, *to)],
    };
    for (first, to) in runs {
        let first = first.max(from);
        let here = to.since(first);
        if *surplus < here {
            return Some(first.saturating_add(*surplus));
        }
        *surplus -= here;
    }
    (*surplus == 0).then(|| piece.to())
}

/// The runs of offsets of a batch that have a record. Of one that cannot be read, all.
fn records_of(entry: &StoredEntry) -> Vec<(Offset, Offset)> {
    let (base, end) = (
        Offset::new(entry.header.number),
        Offset::new(entry.header.end_number()),
    );
    let is_thinned =
        BatchHeader::parse(&entry.payload).is_ok_and(|header| header.thinned.is_some());
    let pieces = match is_thinned {
        true => CheckedBatch::check_crc(entry.payload.clone()).and_then(|b| expand(base, &b)),
        false => return vec![(base, end)],
    };
    let Ok(pieces) = pieces else {
        return vec![(base, end)];
    };
    let mut runs = Vec::new();
    let mut at = base;
    for piece in pieces {
        if let BatchPiece::Gap(gap) = piece {
            runs.push((at, gap.from));
            at = gap.to;
        }
    }
    runs.push((at, end));
    runs.retain(|(from, to)| from < to);
    runs
}

/// How many offsets of a batch in a range have no record any more.
pub(super) fn removed_in(entry: &StoredEntry, from: Offset, to: Offset) -> u64 {
    let (base, end) = (
        Offset::new(entry.header.number),
        Offset::new(entry.header.end_number()),
    );
    let (from, to) = (from.max(base), to.min(end));
    let runs = records_of(entry);
    let there = runs
        .iter()
        .map(|(first, last)| (*last).min(to).since((*first).max(from)));
    to.since(from).saturating_sub(there.sum())
}

/// The offset from which on there are `records` records before `end`; what is missing does not count.
fn nth_from_end(gaps: &[Gap], end: Offset, records: u64) -> Offset {
    let (mut wanted, mut at) = (records, end.get());
    for gap in gaps.iter().rev().filter(|gap| gap.from < end) {
        let here = at.saturating_sub(gap.to.get());
        if here >= wanted {
            break;
        }
        wanted -= here;
        at = at.min(gap.from.get());
    }
    Offset::new(at.saturating_sub(wanted))
}

/// A batch, as far as retention is concerned.
#[derive(Debug, Clone, Copy)]
struct Batch {
    end: Offset,
    time: Timestamp,
    bytes: u64,
    /// Offsets from the start on whose records were taken away.
    removed: u64,
    /// When its time to live is over, if it has one.
    over: Option<Timestamp>,
    /// It has no record left.
    is_hollow: bool,
}

/// Goes over a topic from its start on, taking what may go.
struct Walk<'a> {
    shared: &'a Shared,
    topic: &'a TopicShared,
    limits: Limits,
    plan: Plan,
    /// Why it ended early.
    failed: Option<JournalError>,
    /// Append time of the first batch that stays.
    oldest: Option<Timestamp>,
    /// When the time of that one is over, if it has one.
    over: Option<Timestamp>,
    /// Below this batches may be thinned: only they tell how many records they have.
    thinned_end: Offset,
}

impl<'a> Walk<'a> {
    fn new(shared: &'a Shared, topic: &'a TopicShared, limits: Limits) -> Self {
        let start = topic.start();
        let plan = Plan {
            from: start,
            to: start,
            dropped: 0,
            removed: 0,
            thinnings: topic.thinnings(),
            due: None,
            confirmed: None,
        };
        Self {
            shared,
            topic,
            limits,
            plan,
            failed: None,
            oldest: None,
            over: None,
            thinned_end: match topic.thinned() {
                (0, _) => Offset::ZERO,
                (_, end) => end,
            },
        }
    }

    /// Takes what may go.
    fn run(mut self) -> Self {
        for _ in 0..self.limits.extents {
            match self.step() {
                // What moved is found again.
                Ok(true) | Err(Unread::Moved) => {}
                Ok(false) => break,
                Err(Unread::Failed(error)) => {
                    self.failed = Some(error);
                    break;
                }
            }
        }
        self
    }

    /// Takes the next extent, or what of it may go. False: that was all.
    fn step(&mut self) -> Result<bool, Unread> {
        let next = match self.plan.to < self.limits.end {
            true => extent_from(self.shared, self.topic, self.plan.to)?,
            false => None,
        };
        if let Some((segment, extent)) = next.filter(|(_, next)| next.base < self.limits.end)
            && self.take(segment, extent)?
        {
            return Ok(true);
        }
        // Records are counted, so the start may come to lie inside a batch, which stays live.
        let below = self.limits.below.min(self.limits.end);
        self.plan.removed += self.removed_before(below)?;
        self.plan.to = self.plan.to.max(below);
        Ok(false)
    }

    /// Takes the extent, or the batches of it that may go. False: something of it stays.
    fn take(&mut self, segment: u64, extent: Extent) -> Result<bool, Unread> {
        let is_whole = extent.base >= self.plan.to && extent.end() <= self.limits.end;
        let bytes = self.plan.dropped + extent.payload_bytes();
        let by_bytes = bytes <= self.limits.excess && extent.end() < self.limits.end;
        let before = self.limits.before;
        let by_age = before.is_some_and(|before| extent.last_time < before);
        if is_whole && (extent.end() <= self.limits.below || by_bytes || by_age) {
            if extent.base < self.thinned_end {
                let batches = self.batches(segment, extent)?;
                self.plan.removed += batches.iter().map(|batch| batch.removed).sum::<u64>();
            }
            self.plan.dropped = bytes;
            self.plan.to = extent.end();
            return Ok(true);
        }
        self.oldest = Some(extent.first_time);
        let in_part = extent.base < self.limits.below
            || self.plan.dropped < self.limits.excess
            || self.limits.over.is_some()
            || before.is_some_and(|before| extent.first_time < before);
        Ok(in_part && self.take_batches(segment, extent)?)
    }

    fn take_batches(&mut self, segment: u64, extent: Extent) -> Result<bool, Unread> {
        for batch in self.batches(segment, extent)? {
            if batch.end > self.limits.end || !self.may_go(&batch) {
                self.oldest = Some(batch.time);
                self.over = batch.over;
                return Ok(false);
            }
            self.plan.dropped += batch.bytes;
            self.plan.removed += batch.removed;
            self.plan.to = batch.end;
        }
        Ok(true)
    }

    /// How many records were lost before between the batches that go and an offset inside one that stays.
    fn removed_before(&self, below: Offset) -> Result<u64, JournalError> {
        let (mut at, mut removed) = (self.plan.to, 0);
        while at < below.min(self.thinned_end) {
            let Some((extent, pieces)) = extent_and_pieces(self.shared, self.topic, at)? else {
                break;
            };
            for piece in pieces {
                if let Piece::Entry(entry) = &piece {
                    removed += removed_in(entry, self.plan.to, below);
                }
            }
            at = extent.end().max(at.next());
        }
        Ok(removed)
    }

    fn may_go(&self, batch: &Batch) -> bool {
        let by_bytes = self.plan.dropped < self.limits.excess && batch.end < self.limits.end;
        let is_over = |now| batch.is_hollow || batch.over.is_some_and(|over| over <= now);
        batch.end <= self.limits.below
            || by_bytes
            || self.limits.over.is_some_and(is_over)
            || self.limits.before.is_some_and(|before| batch.time < before)
    }

    /// The batches of an extent that end above the start. What is damaged counts as one; the first such weighs what the
    /// sound ones do not.
    fn batches(&self, segment: u64, extent: Extent) -> Result<Vec<Batch>, Unread> {
        // One of a single entry says all there is to ask, if no records were taken out of it and none have a time to live:
        // topics that keep little are looked at without reading any of it.
        if extent.entries == 1 && extent.base >= self.thinned_end && !self.limits.have_ttl {
            return Ok(vec![Batch {
                end: extent.end(),
                time: extent.last_time,
                bytes: extent.payload_bytes(),
                removed: 0,
                over: None,
                is_hollow: false,
            }]);
        }
        let pieces = pieces_of(self.shared, self.topic, (segment, extent, extent.base))?;
        let sound = pieces.iter().map(|piece| match piece {
            Piece::Entry(entry) => u64::from(entry.header.payload_bytes),
            Piece::Damaged { .. } => 0,
        });
        let mut lost = extent.payload_bytes().saturating_sub(sound.sum());
        let (from, may_be_thinned) = (self.plan.to, extent.base < self.thinned_end);
        let batch = |piece: Piece| match piece {
            Piece::Entry(entry) => Batch {
                end: Offset::new(entry.header.end_number()),
                time: entry.header.append_time,
                bytes: u64::from(entry.header.payload_bytes),
                removed: match may_be_thinned {
                    true => removed_in(&entry, from, piece_end(&entry)),
                    false => 0,
                },
                over: time_to_live(&entry.payload).map(|ttl| entry.header.append_time.after(ttl)),
                is_hollow: may_be_thinned && is_hollow(&entry),
            },
            Piece::Damaged { to, .. } => Batch {
                end: to,
                time: extent.last_time,
                bytes: std::mem::take(&mut lost),
                removed: 0,
                over: None,
                is_hollow: false,
            },
        };
        let batches = pieces.into_iter().map(batch);
        Ok(batches.filter(|batch| batch.end > from).collect())
    }
}

fn is_hollow(entry: &StoredEntry) -> bool {
    BatchHeader::parse(&entry.payload).is_ok_and(|header| header.record_count == 0)
}

fn piece_end(entry: &StoredEntry) -> Offset {
    Offset::new(entry.header.end_number())
}

/// What of an extent of a segment ends above an offset, from memory or the disk.
fn pieces_of(
    shared: &Shared,
    topic: &TopicShared,
    (segment, extent, from): (u64, Extent, Offset),
) -> Result<Vec<Piece>, Unread> {
    let read = ExtentRead {
        topic: topic.id,
        extent,
        from,
    };
    if let Some(pieces) = pieces_from_memory(shared, segment, &read) {
        return Ok(pieces);
    }
    let from = from.max(extent.base);
    let damaged = || {
        let to = extent.end();
        vec![Piece::Damaged { from, to }]
    };
    match shared.segments.get(segment) {
        None if topic.is_elsewhere(from, segment) => Err(Unread::Moved),
        None => Ok(damaged()),
        Some(segment) => match pieces_from_disk(shared, &segment, &read) {
            Err(error) if error.is_damage() => Ok(damaged()),
            pieces => Ok(pieces?),
        },
    }
}

/// The extent that holds `at`, or the first one after it, and what of it ends above `at`.
fn extent_and_pieces(
    shared: &Shared,
    topic: &TopicShared,
    at: Offset,
) -> Result<Option<(Extent, Vec<Piece>)>, JournalError> {
    loop {
        let Some((segment, extent)) = extent_from(shared, topic, at)? else {
            return Ok(None);
        };
        match pieces_of(shared, topic, (segment, extent, at)) {
            Ok(pieces) => return Ok(Some((extent, pieces))),
            Err(Unread::Moved) => {}
            Err(Unread::Failed(error)) => return Err(error),
        }
    }
}

/// The extent that holds `at`, or the first one after it, and its segment. A segment that is ruined is passed over.
fn extent_from(
    shared: &Shared,
    topic: &TopicShared,
    mut at: Offset,
) -> Result<Option<(u64, Extent)>, JournalError> {
    loop {
        let place = topic.index().find(at);
        let next = match place {
            Where::Open(open) => return Ok(Some((open.segment, open.extent))),
            Where::Nowhere { next } => next,
            Where::Sealed { segment, next } => match shared.segments.get(segment) {
                None if topic.is_elsewhere(at, segment) => continue,
                None => next,
                Some(sealed) => {
                    let extent = sealed_extent(shared, topic, &sealed, at)?;
                    let before_next = |extent: &Extent| next.is_none_or(|next| extent.base < next);
                    if let Some(extent) = extent.filter(before_next) {
                        return Ok(Some((segment, extent)));
                    }
                    next
                }
            },
        };
        match next {
            Some(next) => at = next,
            None => return Ok(None),
        }
    }
}

fn sealed_extent(
    shared: &Shared,
    topic: &TopicShared,
    segment: &Segment,
    at: Offset,
) -> Result<Option<Extent>, JournalError> {
    match shared.segments.footer(segment, &shared.dir) {
        Ok(footer) => Ok(footer.and_then(|footer| footer.extent_at(topic.id, at))),
        Err(error) if error.is_damage() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Compares the wall clock with one that never jumps.
#[derive(Debug)]
pub(super) struct ClockWatch {
    wall: Timestamp,
    steady: Instant,
}

impl ClockWatch {
    /// From here on both are expected to go on alike.
    pub fn new(wall: Timestamp, steady: Instant) -> Self {
        Self { wall, steady }
    }

    /// How far the two have parted, if that is too far to let anything expire.
    pub fn apart(&self, wall: Timestamp, steady: Instant) -> Option<Duration> {
        let expected = self
            .wall
            .after(steady.saturating_duration_since(self.steady));
        let apart = wall.since(expected).max(expected.since(wall));
        (apart > limits::CLOCKS_APART_MAX).then_some(apart)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::GapReason;

    fn gap(from: u64, to: u64) -> Gap {
        Gap {
            from: Offset::new(from),
            to: Offset::new(to),
            reason: GapReason::Lost,
        }
    }

    #[test]
    fn records_are_counted_without_what_is_missing() {
        let end = Offset::new(1000);
        let gaps = [gap(10, 20), gap(30, 990)];
        let cases = [
            (0, 1000),
            (4, 996),
            (10, 990),
            (11, 29),
            (20, 20),
            (21, 9),
            (30, 0),
            (99, 0),
        ];
        for (records, expected) in cases {
            let found = nth_from_end(&gaps, end, records).get();
            assert_eq!(found, expected, "{records} records");
        }
        assert_eq!(nth_from_end(&[], end, 7).get(), 993);
        assert_eq!(nth_from_end(&[gap(500, 1000)], end, 7).get(), 493);
    }

    #[test]
    fn what_is_damaged_counts_as_records() {
        let damaged = |from, to| Piece::Damaged {
            from: Offset::new(from),
            to: Offset::new(to),
        };
        let (start, mut surplus) = (Offset::new(10), 100);
        assert_eq!(nth_in(&damaged(0, 70), start, &mut surplus), None);
        assert_eq!(surplus, 40, "60 of them were there");
        let found = nth_in(&damaged(70, 200), start, &mut surplus);
        assert_eq!(found, Some(Offset::new(110)));

        let gaps = [gap(5, 10), gap(90, 120)];
        let at = |from, to| unaccounted(&gaps, Offset::new(from), Offset::new(to));
        assert_eq!((at(0, 100), at(8, 9), at(10, 90)), (85, 0, 80));
        assert_eq!((at(50, 40), at(120, 130)), (0, 10));
    }

    #[test]
    fn clocks_that_part_are_noticed_in_both_directions() {
        let (wall, steady) = (Timestamp::from_millis(1_000_000_000), Instant::now());
        let watch = ClockWatch::new(wall, steady);
        let hour = Duration::from_secs(3600);
        let later = steady + hour * 5;
        assert_eq!(watch.apart(wall.after(hour * 5), later), None);
        assert_eq!(
            watch.apart(wall.after(hour * 6), later),
            None,
            "an hour is allowed"
        );
        let jumped = watch.apart(wall.after(hour * 7), later);
        assert_eq!(jumped, Some(hour * 2));
        assert_eq!(watch.apart(wall.after(hour * 3), later), Some(hour * 2));
        assert_eq!(
            watch.apart(wall.after(hour * 5), later),
            None,
            "they agree again"
        );
    }
}
