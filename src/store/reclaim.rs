//! The reclaimer: gives back the space of what nobody can read any more.
//!
//! ```text
//!   starts move, topics go ─> segments die ─> row deleted ─> slot released ─> reused or unlinked
//!        (expiry)                 |  or copied (cold)  ^
//!                                 └─ held back by the snapshot: a new one
//! ```
//!
//! One thread, which sleeps most of the time, less where segments fill fast, and another that copies
//! ([`copier`](super::copier)), which nothing here waits for. They compute; the
//! writer decides, as with every change. In what order, and why that is safe:
//!
//! 1. A segment's row is deleted when nothing in it lives, and its number lies
//!    below the segments of the catalog's durable position and of the usable
//!    snapshot's begin: no walk begins at or before it. (Cold segments are in no
//!    walk.) What is dead stays dead, so it does not matter that the writer decides
//!    a little later.
//! 2. What made it dead (a start that moved, a deletion) is earlier in the stream.
//! 3. The slot goes to the pool when the entry that deleted the row is claimed and
//!    the catalog has applied it, fsynced: whatever is lost now, no recovery finds
//!    the row again. And when nobody reads the segment.
//! 4. A snapshot is relied on when it is usable ([`snapshot`](super::snapshot)) and
//!    a durable header names it. So a catalog that is lost is built again from
//!    there, and one that fell back behind it is known to be too old.
//! 5. Segments marked as damaged are never given up nor copied (J14).
//! 6. All of it goes on while publishing is refused for want of space (J15); then
//!    it goes on at full speed.
//!
//! Deliberately missing: punching holes, shrinking files.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::asker::{Asker, Reply};
use super::cold::{self, Choice, Leaving, Need, Usage, choose};
use super::command::SnapshotWritten;
use super::compaction::{Compaction, Finished, Step};
use super::copier::{Copies, Outcome};
use super::copying::{self, Copied, slots_of};
use super::expiry::Expiry;
use super::lifetimes::{Lifetimes, topics_in};
use super::motion::Motion;
use super::recovery::row_of_at;
use super::segments::Segment;
use super::shared::count;
use super::sieve::Sieve;
use super::snapshot::verify;
use super::survey::Surveyed;
use crate::journal::{JournalError, SnapshotAt};
use crate::limits;
use crate::protocol::error::ApiError;
use crate::topic::RowKey;
use crate::types::TopicId;

/// How far the next snapshot is.
enum Phase {
    /// None is under way.
    Idle,
    /// The writer writes one.
    Writing(Reply<SnapshotWritten>),
    /// It is durable; its claim and the catalog are waited for.
    Claiming(SnapshotWritten),
    /// It was read back; a durable header that names it is waited for.
    Naming(SnapshotWritten),
}

/// When was looked, how long that took, and the newest segment then.
#[derive(Default)]
struct Look {
    ended: Option<Instant>,
    took: Duration,
    newest: u64,
}

/// The reclaimer's side of things.
pub(super) struct Reclaimer {
    asker: Asker,
    expiry: Expiry,
    /// The snapshot that is relied on.
    snapshot: Option<SnapshotAt>,
    phase: Phase,
    snapshot_begun: Option<Instant>,
    /// None is begun before.
    snapshot_after: Instant,
    snapshot_bytes: u64,
    usages: Vec<Usage>,
    motion: Motion,
    /// What the usages were counted from: discards, the table of segments, and what moves.
    looked_at: Option<(u64, u64, u64)>,
    /// The newest segment of the stream, and since when it is sealed, if it was not found at the start.
    newest: (u64, Option<Instant>),
    /// Not to be looked again before: looking at many segments takes long.
    look_after: Instant,
    /// The last look at what retention says of records.
    records: Look,
    /// `None`: nothing is copied.
    copies: Option<Copies>,
    copy_after: Instant,
    compaction: Compaction,
    lifetimes: Lifetimes,
}

/// Looking takes at most one part in so many of the time, as long as [`LOOK_REST_MAX`] allows.
const LOOK_SHARE: u32 = 20;
/// The same where segments fill fast. Most of what a look takes then is waiting for the writer behind the publishers.
const LOOK_SHARE_PRESSED: u32 = 3;
/// A look that took long because the disk had other things to do says little about the next one.
const LOOK_REST_MAX: Duration = Duration::from_secs(10);
/// After copying brought nothing, or a snapshot was of no use, it is not tried again for so long.
const COPY_BACKOFF: Duration = Duration::from_secs(60);
/// After what was copied could not take its sources' place.
const REFUSED_BACKOFF: Duration = Duration::from_secs(1);
/// How fast starts move is seen over so many looks.
const MOTION_LOOKS: u32 = 2;
/// What they pass within so many looks is waited for.
const GOING_LOOKS: u32 = 10;
/// When no segment came to be within so many looks, there is nothing else to do.
const QUIET_LOOKS: u32 = 10;

impl Reclaimer {
    pub fn new(asker: Asker, snapshot: Option<SnapshotAt>, copies: Option<Copies>) -> Self {
        let every = asker.shared.reclaim_every;
        Self {
            asker,
            expiry: Expiry::new(),
            snapshot,
            phase: Phase::Idle,
            snapshot_begun: None,
            snapshot_after: Instant::now(),
            snapshot_bytes: 0,
            usages: Vec::new(),
            motion: Motion::new(every * MOTION_LOOKS, every * GOING_LOOKS),
            looked_at: None,
            newest: (0, None),
            look_after: Instant::now(),
            records: Look::default(),
            copies,
            copy_after: Instant::now(),
            compaction: Compaction::default(),
            lifetimes: Lifetimes::default(),
        }
    }

    /// Runs until it is told to stop.
    pub fn run(mut self) {
        let stop = self.asker.stop.clone();
        let every = self.asker.shared.reclaim_every;
        let (mut next_expiry, mut next_round) = (Instant::now(), Instant::now());
        loop {
            let is_due = next_expiry <= Instant::now();
            let is_pressed = !is_due && self.is_pressed();
            if is_due || is_pressed {
                self.look_at_records(is_pressed);
            }
            if is_due {
                next_expiry = Instant::now() + every;
            }
            if is_due || is_pressed || next_round <= Instant::now() {
                self.round();
                next_round = Instant::now() + self.rest();
            }
            let rest = next_round.saturating_duration_since(Instant::now());
            let failed = self.asker.shared.failure().is_some();
            if stop.wait(rest.min(self.soon())) || failed {
                return;
            }
        }
    }

    /// How long to rest from one round to the next.
    fn rest(&self) -> Duration {
        let every = self.asker.shared.reclaim_every;
        let idle = matches!(self.phase, Phase::Idle)
            && !self.asker.is_releasing()
            && !self.copies.as_ref().is_some_and(Copies::is_busy);
        match idle {
            true => every,
            false => limits::RECLAIM_EVERY_BUSY.min(every),
        }
    }

    /// After how long it is looked again where segments fill fast.
    fn soon(&self) -> Duration {
        let soon = self.asker.shared.reclaim_every / limits::RECLAIM_PRESSED_SPEED;
        soon.max(limits::RECLAIM_EVERY_MIN)
    }

    /// Looks what retention says of records; unless they are all it is looked at, of everything else, too.
    fn look_at_records(&mut self, of_records_alone: bool) {
        let (begun, newest) = (Instant::now(), self.asker.shared.segments.newest());
        match of_records_alone {
            true => self.expiry.look_at_records(&mut self.asker),
            false => self.expiry.look(&mut self.asker),
        }
        self.records = Look {
            ended: Some(Instant::now()),
            took: begun.elapsed(),
            newest,
        };
    }

    /// Whether segments fill so fast that what they push out is to be given back sooner than at the next look.
    fn is_pressed(&self) -> bool {
        let Look {
            ended,
            took,
            newest,
        } = self.records;
        let filled = self.asker.shared.segments.newest().saturating_sub(newest);
        let rest = self.soon().max(took.saturating_mul(LOOK_SHARE_PRESSED));
        filled >= limits::RECLAIM_SEGMENTS_PRESSED
            && ended.is_none_or(|ended| ended.elapsed() >= rest)
    }

    fn round(&mut self) {
        self.asker.release();
        self.let_go_of_windows();
        self.forget_gone();
        self.look_at_motion();
        self.look();
        let now = self.asker.shared.trusted_now();
        self.lifetimes.apply(&mut self.usages, now);
        let horizons = (self.horizon(), self.asker.applier.applied().segment);
        if let Some((_, version, _)) = self.looked_at {
            let usages = (&self.usages[..], version);
            (self.compaction).measure(&self.asker.shared, usages, horizons);
        }
        self.step_snapshot();
        self.free();
        self.copy();
    }

    /// Memory of those who caught up is nobody's when they have.
    fn let_go_of_windows(&self) {
        let shared = &self.asker.shared;
        let Some(before) = Instant::now().checked_sub(limits::READ_WINDOWS_KEPT) else {
            return;
        };
        drop(shared.windows.let_go(before));
    }

    /// What was given up need not be looked at again to be known as gone.
    fn forget_gone(&mut self) {
        let segments = &self.asker.shared.segments;
        self.usages
            .retain(|usage| segments.get(usage.number).is_some());
        self.lifetimes.retain(&self.asker.shared);
    }

    fn look_at_motion(&mut self) {
        let now = Instant::now();
        if self.motion.is_due(now) {
            let topics = self.asker.shared.topics_with_retention();
            let starts = topics.iter().map(|(topic, _)| (topic.id, topic.start()));
            self.motion.look(starts, now);
        }
    }

    /// Counts again what lives, if something changed.
    fn look(&mut self) {
        let shared = &self.asker.shared;
        let now_is = (
            shared.discards.load(Ordering::Acquire),
            shared.segments.version(),
            self.motion.version(),
        );
        let begun = Instant::now();
        if self.looked_at == Some(now_is) || begun < self.look_after {
            return;
        }
        self.usages = cold::look(shared, &self.motion);
        self.note_newest();
        self.looked_at = Some(now_is);
        self.look_after = Instant::now() + (begun.elapsed() * LOOK_SHARE).min(LOOK_REST_MAX);
        let dead = self.sound().filter(|usage| usage.is_dead()).count() as u64;
        let gain = self.choice(u64::MAX).gain;
        let reclaimable = &self.asker.shared.reclaimable;
        reclaimable.store(dead + gain, Ordering::Release);
    }

    fn note_newest(&mut self) {
        let stream = self.usages.iter().filter(|usage| !usage.is_cold());
        let newest = stream.map(|usage| usage.number).max().unwrap_or(0);
        if newest > self.newest.0 {
            // What a start finds did not come to be just now.
            let since = self.looked_at.is_some().then(Instant::now);
            self.newest = (newest, since);
        }
    }

    fn sound(&self) -> impl Iterator<Item = &Usage> {
        self.usages.iter().filter(|usage| !usage.row.damaged)
    }

    /// Stream segments below are needed by no walk.
    fn horizon(&self) -> u64 {
        let snapshot = self.snapshot.map_or(0, |at| at.place.segment);
        self.asker.applier.applied().segment.min(snapshot)
    }

    /// What is worth copying of the segments below a horizon.
    fn choice(&self, horizon: u64) -> Choice {
        let need = self.need();
        let candidates: Vec<&Usage> = self
            .sound()
            .filter(|usage| !usage.is_dead() && (usage.is_cold() || usage.number < horizon))
            .filter(|usage| self.is_starved() || !usage.is_going())
            .collect();
        choose(&candidates, self.slot_bytes(), need)
    }

    fn slot_bytes(&self) -> u64 {
        u64::from(self.asker.shared.dir.slot_bytes())
    }

    fn need(&self) -> Need {
        let quiet = QUIET_LOOKS * self.asker.shared.reclaim_every;
        let is_quiet = self.newest.1.is_none_or(|since| since.elapsed() >= quiet);
        match self.is_tight() {
            _ if self.is_starved() => Need::All,
            true if is_quiet => Need::All,
            true => Need::More,
            false => Need::Little,
        }
    }

    /// Whether sealed segments in which something lives take more space than they should. Those that are dead
    /// are given back anyway.
    fn is_tight(&self) -> bool {
        let living = self.usages.iter().filter(|usage| !usage.is_dead());
        let (slots, live) = living.fold((0, 0), |(slots, live), usage| {
            (slots + 1, live + usage.staying_bytes())
        });
        let spare = limits::SPACE_SLOTS * self.slot_bytes();
        slots * self.slot_bytes() * 100 > live * limits::SPACE_PERCENT + spare * 100
    }

    /// Whether publishing is refused for want of space.
    fn is_starved(&self) -> bool {
        self.asker.shared.refusal().is_some()
    }

    fn free(&mut self) {
        let (horizon, applied) = (self.horizon(), self.asker.applier.applied().segment);
        let waits = |usage: &Usage| usage.is_dead() && !usage.is_cold() && usage.number >= applied;
        if self.sound().any(waits) {
            self.asker.applier.hurry();
        }
        let dead: Vec<Usage> = self
            .sound()
            .filter(|usage| usage.is_dead() && (usage.is_cold() || usage.number < horizon))
            .take(limits::SEGMENTS_FREED_AT_ONCE)
            .cloned()
            .collect();
        if dead.is_empty() {
            return;
        }
        tracing::debug!(segments = dead.len(), "freeing segments");
        let leaving = Leaving::new(&self.asker.shared, dead);
        let freed = self
            .asker
            .ask(TopicId::zero(), |context| Ok(cold::free(context, leaving)));
        if let Some((Ok(given), group)) = freed {
            count(&self.asker.shared.reclaimed.segments_freed, given.len());
            self.asker.given(given, group);
        }
    }

    /// Takes what was copied, and lets the next be copied: on a thread of its own, nothing here waits for it.
    fn copy(&mut self) {
        let done = self.copies.as_mut().and_then(Copies::take_done);
        match done {
            None => {}
            Some(Outcome::Copied(usages, how)) => self.copied(usages, how),
            Some(Outcome::Surveyed(how)) => self.surveyed(how),
            Some(Outcome::Lifetimes(segment, moments)) => {
                self.lifetimes.note(segment, moments);
            }
        }
        self.forget_gone();
        let rate = self.bytes_per_second();
        if let Some(copies) = &self.copies {
            copies.set_rate(rate);
        }
        self.begin_copy();
    }

    fn copied(&mut self, usages: Vec<Usage>, how: Result<Copied, JournalError>) {
        if !matches!(how, Ok(Copied::Done(_))) {
            self.compaction.give_up(COPY_BACKOFF);
        }
        match how {
            Ok(Copied::Done(copies)) => self.swap(usages, copies),
            Ok(Copied::Damaged { segment, what }) => self.mark_damaged(segment, &what),
            Ok(Copied::Dropped) => self.copy_after = Instant::now() + COPY_BACKOFF,
            Err(error) => {
                tracing::warn!(%error, "cannot copy segments together, trying again later");
                self.copy_after = Instant::now() + COPY_BACKOFF;
            }
        }
    }

    fn surveyed(&mut self, how: Result<Surveyed, JournalError>) {
        match how {
            Ok(Surveyed::Done(found)) => return self.compaction.surveyed(found),
            Ok(Surveyed::Damaged { segment, what }) => self.mark_damaged(segment, &what),
            Ok(Surveyed::Dropped) => {}
            Err(error) => {
                tracing::warn!(%error, "cannot read a topic to compact it, trying again later");
            }
        }
        self.compaction.give_up(COPY_BACKOFF);
    }

    fn begin_copy(&mut self) {
        let is_free = self.copies.as_ref().is_some_and(|c| !c.is_busy());
        if !is_free || Instant::now() < self.copy_after || self.asker.stop.is_stopped() {
            return;
        }
        let choice = self.choice(self.horizon());
        // While publishing is refused what gives back most comes first.
        if (choice.gain == 0 || !self.is_starved()) && self.step_compaction() {
            return;
        }
        if choice.gain > 0 {
            let slots = (choice.sources.len() as u64).saturating_sub(choice.gain);
            self.copy_these(&choice.sources, slots, false);
        } else if let Some(copies) = &mut self.copies
            && let Some(unread) = self.lifetimes.unread(&self.asker.shared, &self.usages)
        {
            copies.begin_lifetimes(unread);
        }
    }

    /// False: there is nothing to be done for it now.
    fn step_compaction(&mut self) -> bool {
        let shared = &self.asker.shared;
        match self.compaction.step(shared, shared.trusted_now()) {
            Step::None => self.compaction.is_busy(),
            Step::Seal(segment) => {
                // One that is on its way to its footer is no longer written.
                self.asker.push_seal(segment);
                false
            }
            Step::Survey(what) => {
                if let Some(copies) = &mut self.copies {
                    copies.begin_survey(what);
                }
                true
            }
            Step::Copy(numbers) => {
                let sources = self.as_many(&numbers);
                let waits = |usage: &Usage| usage.is_dead() && numbers.contains(&usage.number);
                if !sources.is_empty() {
                    self.copy_these(&sources, sources.len() as u64, true);
                } else if !self.sound().any(waits) {
                    // One was found damaged, or is not looked at any more.
                    self.compaction.give_up(COPY_BACKOFF);
                }
                true
            }
            Step::Finish(finished) => {
                self.finish(finished);
                true
            }
        }
    }

    /// As many of these as fit into the slots that copying may take at once, the first at any rate.
    fn as_many(&self, numbers: &[u64]) -> Vec<u64> {
        let horizon = self.horizon();
        let room = self.slot_bytes() * limits::COLD_OUTPUTS_MAX;
        let mut bytes = 0;
        let usages = self
            .sound()
            .filter(|usage| numbers.contains(&usage.number) && !usage.is_dead())
            .filter(|usage| usage.is_cold() || usage.number < horizon);
        let fits = |usage: &&Usage| {
            let is_first = bytes == 0;
            bytes += usage.live_bytes;
            is_first || bytes <= room
        };
        let fitting = usages.take_while(fits).map(|usage| usage.number);
        fitting.take(limits::COLD_SOURCES_MAX).collect()
    }

    /// Copies segments, which takes so many slots.
    fn copy_these(&mut self, sources: &[u64], slots: u64, may_be_even: bool) {
        // For want of space what was copied gives its slots back before more are taken (J15).
        let is_short = self.is_starved() || !self.asker.pool.has_room_for(slots);
        if is_short && self.asker.is_about_to_release() {
            return;
        }
        let usages: Vec<Usage> = self
            .sound()
            .filter(|usage| sources.contains(&usage.number))
            .cloned()
            .collect();
        let sieve = self.sieve(sources);
        if let Some(copies) = &mut self.copies {
            copies.begin(&self.asker.shared, usages, (sieve, may_be_even));
        }
    }

    /// What goes while these are copied.
    fn sieve(&self, sources: &[u64]) -> Sieve {
        let mut sieve = Sieve::default();
        self.compaction.add_to(&mut sieve);
        let shared = &self.asker.shared;
        let (expiring, purging) = (shared.expiring(), shared.purging());
        let topics = |number: &u64| topics_in(shared, *number, &purging);
        for id in sources.iter().filter_map(topics).flatten() {
            if let (Some(topic), Some(verdict)) = (shared.topic(id), sieve.of(id)) {
                verdict.purges = Some(topic.purges());
            }
        }
        if let Some(now) = shared.trusted_now() {
            let topics = |number: &u64| topics_in(shared, *number, &expiring);
            for topic in sources.iter().filter_map(topics).flatten() {
                if let Some(verdict) = sieve.of(topic) {
                    verdict.expired = Some(now);
                }
            }
        }
        sieve
    }

    /// Nothing is left that was to go: the topic is clean up to there (C5).
    fn finish(&mut self, finished: Finished) {
        let (id, is_purge) = (finished.topic, !finished.purged.is_empty());
        let finished = self.asker.ask(id, move |context| {
            let topic = context.state.topic_mut(id)?;
            let mut keys = vec![RowKey::Topic(id)];
            if !finished.purged.is_empty() {
                for number in finished.purged {
                    topic.purges.remove(&number);
                    keys.push(RowKey::Purge(id, number));
                }
                context.shared.purges_changed.fetch_add(1, Ordering::AcqRel);
            } else {
                topic.cleaned(finished.compacted, finished.tombstones);
            }
            context.shared.publish_topic(topic, None);
            Ok(((), keys))
        });
        if matches!(finished, Some((Ok(()), _))) && !is_purge {
            count(&self.asker.shared.reclaimed.compactions, 1);
        }
        self.compaction.finished();
    }

    fn bytes_per_second(&self) -> Option<u64> {
        let rate = self.asker.shared.copy_rate.load(Ordering::Relaxed);
        if self.is_starved() {
            None
        } else if self.is_tight() {
            Some(rate.saturating_mul(4))
        } else {
            Some(rate)
        }
    }

    fn swap(&mut self, usages: Vec<Usage>, copies: copying::Copies) {
        tracing::debug!(
            from = usages.len(),
            to = copies.outputs.len(),
            "segments copied together"
        );
        let slots = slots_of(&copies.outputs);
        let (is_partial, may_be_even) = (copies.is_partial, !copies.sifted.is_empty());
        let sources = Leaving::new(&self.asker.shared, usages);
        let swapped = self.asker.ask(TopicId::zero(), move |context| {
            cold::swap(context, sources, (copies, may_be_even))
        });
        if is_partial || !matches!(swapped, Some((Ok(_), _))) {
            // What is left of it is not known any more.
            self.compaction.give_up(REFUSED_BACKOFF);
        }
        match swapped {
            Some((Ok(given), group)) => {
                let reclaimed = &self.asker.shared.reclaimed;
                count(&reclaimed.segments_copied, given.len());
                count(&reclaimed.cold_segments, slots.len());
                self.asker.given(given, group);
            }
            // Anything else may have been decided before the store stopped: the next start finds out.
            Some((Err(error @ ApiError::InvalidArgument { .. }), _)) => {
                tracing::debug!(%error, "what was copied does not take its sources' place");
                self.copy_after = Instant::now() + REFUSED_BACKOFF;
                slots
                    .into_iter()
                    .for_each(|slot| self.asker.pool.release(slot));
            }
            Some((Err(_), _)) | None => {}
        }
    }

    /// A segment that cannot be read whole stays as it is, whatever of it dies.
    fn mark_damaged(&mut self, number: u64, what: &str) {
        let told = self.usages.iter_mut().find(|usage| usage.number == number);
        if let Some(usage) = told {
            usage.row.damaged = true;
        }
        let marked = self.asker.ask(TopicId::zero(), move |context| {
            let Some(row) = context.state.segments().get(&number).copied() else {
                return Ok((false, Vec::new()));
            };
            let row = crate::topic::SegmentRow {
                damaged: true,
                ..row
            };
            context.state.put_segment(number, row);
            if let Some(segment) = context.shared.segments.get(number) {
                let segment = Segment::new(segment.header, Some(row));
                context.shared.segments.put(segment);
            }
            Ok((true, vec![RowKey::Segment(number)]))
        });
        // One that was freed meanwhile held nothing that lived.
        if !matches!(marked, Some((Ok(false), _))) {
            let line = format!("segment {number} cannot be read whole and is kept: {what}");
            self.asker.shared.report_damage(line);
        }
    }

    /// Whether a snapshot would let go of enough to be worth writing.
    fn wants_snapshot(&self) -> bool {
        let starved = self.is_starved();
        let (every, rest) = (
            self.asker.shared.reclaim_every,
            self.asker.shared.snapshot_rest(),
        );
        let has_rested = |rest: Duration| {
            starved || (self.snapshot_begun).is_none_or(|begun| begun.elapsed() >= rest)
        };
        if !has_rested(self.soon().max(rest)) || Instant::now() < self.snapshot_after {
            return false;
        }
        let from = self.snapshot.map_or(0, |at| at.place.segment);
        let applied = self.asker.applier.applied().segment;
        let is_held = |usage: &&Usage| !usage.is_cold() && (from..applied).contains(&usage.number);
        let dead = self.sound().filter(is_held).filter(|usage| usage.is_dead());
        let gain = self
            .choice(applied)
            .gain
            .saturating_sub(self.choice(self.horizon()).gain);
        let freed = dead.count() as u64 + gain;
        if freed < limits::RECLAIM_SEGMENTS_PRESSED && !has_rested(every.max(rest)) {
            return false;
        }
        let passed = self.usages.iter().filter(is_held).count() as u64;
        let rows = self.asker.shared.rows.load(Ordering::Acquire);
        let size = self.snapshot_bytes.max(rows * limits::SNAPSHOT_ROW_BYTES);
        let pays = |slots: u64| slots * self.slot_bytes() >= size * limits::SNAPSHOT_GAIN_MIN;
        // In want of space anything that gives back more than it takes is welcome, as long as there is room for
        // it: a snapshot that stops in the middle would take what commits and deletions need (J15).
        let room = self.asker.pool.free_slots() as u64 * self.slot_bytes() / 2;
        let helps = |slots: u64| starved && slots * self.slot_bytes() > 2 * size && size < room;
        let compacts = self.compaction.waiting_bytes() >= size * limits::SNAPSHOT_GAIN_MIN;
        compacts
            || self.compaction.is_purge_held()
            || (freed > 0 && (helps(freed) || pays(freed)))
            || (passed >= limits::SNAPSHOT_SEGMENTS_MAX && pays(passed))
    }

    fn step_snapshot(&mut self) {
        let phase = std::mem::replace(&mut self.phase, Phase::Idle);
        self.phase = match phase {
            Phase::Idle if self.wants_snapshot() => {
                self.snapshot_begun = Some(Instant::now());
                self.asker
                    .push_snapshot()
                    .map_or(Phase::Idle, Phase::Writing)
            }
            Phase::Idle => Phase::Idle,
            Phase::Writing(reply) => match reply.try_recv() {
                Ok((Ok(written), _)) => Phase::Claiming(written),
                Ok((Err(_), _)) => Phase::Idle,
                Err(std::sync::mpsc::TryRecvError::Empty) => Phase::Writing(reply),
                Err(std::sync::mpsc::TryRecvError::Disconnected) => Phase::Idle,
            },
            Phase::Claiming(written) => self.claiming(written),
            Phase::Naming(written) => self.naming(written),
        };
    }

    fn claiming(&mut self, written: SnapshotWritten) -> Phase {
        let shared = &self.asker.shared;
        let claimed = shared.claimed_group.load(Ordering::Acquire);
        let applied = self.asker.applier.applied().group;
        if applied < written.end_group {
            self.asker.applier.hurry();
        }
        if claimed.min(applied) < written.end_group {
            return Phase::Claiming(written);
        }
        self.snapshot_bytes = written.bytes;
        match verify(shared, &written) {
            Ok(()) => {
                self.asker.pool.set_snapshot(Some(written.begin));
                Phase::Naming(written)
            }
            Err(fault) => {
                let at = written.begin.place;
                shared.report_damage(format!("the state snapshot at {at} is of no use: {fault}"));
                self.snapshot_after = Instant::now() + COPY_BACKOFF;
                Phase::Idle
            }
        }
    }

    fn naming(&mut self, written: SnapshotWritten) -> Phase {
        let begin = written.begin;
        if !self.asker.pool.names(&begin) {
            return Phase::Naming(written);
        }
        let put = self.asker.ask(TopicId::zero(), move |context| {
            context.state.peer_mut().snapshot = Some(row_of_at(&begin));
            Ok(((), vec![RowKey::Peer]))
        });
        if matches!(put, Some((Ok(()), _))) {
            tracing::debug!(at = %begin.place, rows = written.rows, bytes = written.bytes, "state snapshot");
            count(&self.asker.shared.reclaimed.snapshots, 1);
            self.snapshot = Some(begin);
        }
        Phase::Idle
    }
}

/// Writes a state snapshot and waits until it is relied on. For a store without a reclaimer; returns the
/// horizon: stream segments below are needed by no walk.
pub(super) fn snapshot_now(asker: Asker) -> Result<u64, String> {
    let mut reclaimer = Reclaimer::new(asker, None, None);
    let pushed = reclaimer.asker.push_snapshot();
    reclaimer.phase = Phase::Writing(pushed.ok_or("the store is ending")?);
    let deadline = Instant::now() + limits::SNAPSHOT_PATIENCE;
    while !matches!(reclaimer.phase, Phase::Idle) {
        reclaimer.step_snapshot();
        if let Some(reason) = reclaimer.asker.shared.failure() {
            return Err(reason);
        }
        if Instant::now() > deadline {
            return Err("a state snapshot did not become durable in time".to_owned());
        }
        std::thread::sleep(limits::RECLAIM_EVERY_BUSY);
    }
    match reclaimer.snapshot {
        Some(_) => Ok(reclaimer.horizon()),
        None => Err("a state snapshot could not be read back".to_owned()),
    }
}
