//! Which topic is compacted next, and how far its pass is.
//!
//! ```text
//!   measured ── due ──> read ────────> copied, some segments at a time ──> compacted moves
//!   (footers)           (survey)       each swapped in one step
//! ```
//!
//! What is worth it is seen in footers: how many bytes of a topic lie in segments
//! that may be copied, and how many of them no pass has read. Everything else
//! is the copier's and the writer's. One topic at a time; a pass that is broken off
//! costs what it has read, and what it has swapped stays.
//!
//! The argument is C1 to C9 in `docs/storage-format.md`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::cold::Usage;
use super::shared::Shared;
use super::sieve::Sieve;
use super::survey::{Found, Surveying};
use crate::limits;
use crate::time::Timestamp;
use crate::topic::Topic;
use crate::types::{Offset, TopicId};

/// What is known of a topic that is compacted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Terms {
    /// Below this it is clean.
    pub compacted: Offset,
    /// Append time of the newest deletion left there.
    pub tombstones: Option<Timestamp>,
    /// How long deletions are kept.
    pub tombstone_age: Duration,
}

/// The topics that are compacted.
#[derive(Default)]
pub(super) struct Compacted {
    topics: Mutex<HashMap<TopicId, Terms>>,
    version: AtomicU64,
}

impl Compacted {
    fn lock(&self) -> MutexGuard<'_, HashMap<TopicId, Terms>> {
        self.topics.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes over what a change of state made of the topic.
    pub fn follow(&self, topic: &Topic) {
        let compaction = topic.row.settings.compaction;
        let terms = (compaction.on && topic.row.quarantine.is_none()).then_some(Terms {
            compacted: topic.row.thinned.compacted,
            tombstones: topic.row.thinned.tombstones,
            tombstone_age: compaction.tombstone_age(),
        });
        let mut topics = self.lock();
        let before = match terms {
            Some(terms) => topics.insert(topic.id, terms),
            None => topics.remove(&topic.id),
        };
        if before != terms {
            self.version.fetch_add(1, Ordering::AcqRel);
        }
    }

    pub fn forget(&self, topic: TopicId) {
        self.lock().remove(&topic);
    }

    fn all(&self) -> BTreeMap<TopicId, Terms> {
        self.lock()
            .iter()
            .map(|(id, terms)| (*id, *terms))
            .collect()
    }

    fn has(&self, topic: TopicId) -> bool {
        self.lock().contains_key(&topic)
    }
}

/// Segments below which a walk needs none, and up to which the catalog has them.
pub(super) type Horizons = (u64, u64);

/// What lies where of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Standing {
    terms: Terms,
    /// Segments that may be copied.
    segments: Vec<u64>,
    /// Bytes in them, and those that no pass has read.
    bytes: u64,
    dirty: u64,
    /// Where what lies in them ends.
    end: Offset,
    /// Bytes in sealed segments that may be copied after another snapshot.
    waiting: u64,
    is_damaged: bool,
}

impl Standing {
    fn new(terms: Terms) -> Self {
        Self {
            terms,
            segments: Vec::new(),
            bytes: 0,
            dirty: 0,
            end: Offset::ZERO,
            waiting: 0,
            is_damaged: false,
        }
    }

    /// Whether enough of it would be new with the segments that wait.
    fn is_dirty_with(&self, waiting: u64) -> bool {
        let (dirty, bytes) = (self.dirty + waiting, self.bytes + waiting);
        dirty > 0 && dirty * 100 >= bytes * limits::COMPACTION_DIRTY_PERCENT
    }

    /// Whether deletions that were kept may go.
    fn has_old_deletions(&self, now: Option<Timestamp>) -> bool {
        let due = (self.terms.tombstones).map(|time| time.after(self.terms.tombstone_age));
        due.zip(now).is_some_and(|(due, now)| due < now)
    }
}

/// A topic that is being compacted.
#[derive(Debug)]
struct Pass {
    topic: TopicId,
    /// Where it began, and what it takes away; none while the topic is read.
    found: Option<Found>,
    /// What is still to be copied.
    left: BTreeSet<u64>,
}

/// A pass that came to its end.
pub(super) struct Finished {
    pub topic: TopicId,
    pub compacted: Offset,
    pub tombstones: Option<Timestamp>,
}

/// What is to be done now.
pub(super) enum Step {
    /// Nothing.
    None,
    /// A topic is to be read.
    Survey(Surveying),
    /// Some of these, the first at any rate.
    Copy(Vec<u64>),
    /// A pass is at its end.
    Finish(Finished),
}

/// The reclaimer's side of it.
#[derive(Default, Debug)]
pub(super) struct Compaction {
    standings: BTreeMap<TopicId, Standing>,
    /// What they were measured from.
    measured: Option<(u64, u64, Horizons)>,
    measure_after: Option<Instant>,
    /// Since when topics have something that no pass has read.
    dirty_since: HashMap<TopicId, Instant>,
    pass: Option<Pass>,
    /// No pass begins before.
    rest_until: Option<Instant>,
}

impl Compaction {
    /// Looks what lies where, if something changed.
    pub fn measure(&mut self, shared: &Shared, usages: &[Usage], horizons: Horizons) {
        let versions = (
            shared.compacted.version.load(Ordering::Acquire),
            shared.segments.version(),
            horizons,
        );
        let is_early = (self.measure_after).is_some_and(|after| Instant::now() < after);
        if self.measured == Some(versions) || is_early {
            return;
        }
        let terms = shared.compacted.all();
        let begun = Instant::now();
        self.standings = terms
            .into_iter()
            .map(|(id, terms)| (id, Standing::new(terms)))
            .collect();
        if !self.standings.is_empty() {
            usages
                .iter()
                .for_each(|usage| self.add(shared, usage, horizons));
        }
        self.measured = Some(versions);
        let every = limits::COMPACTION_LOOK_EVERY.min(shared.reclaim_every);
        self.measure_after = Some(Instant::now() + every.max(begun.elapsed() * 20));
        let standings = &self.standings;
        let is_dirty = |id: &TopicId| standings.get(id).is_some_and(|of| of.dirty > 0);
        self.dirty_since.retain(|id, _| is_dirty(id));
        for id in standings.keys().filter(|id| is_dirty(id)) {
            self.dirty_since.entry(*id).or_insert_with(Instant::now);
        }
    }

    fn add(&mut self, shared: &Shared, usage: &Usage, (horizon, applied): Horizons) {
        let Some(segment) = shared.segments.get(usage.number) else {
            return;
        };
        let footer = shared.segments.footer_once(&segment, &shared.dir);
        let Ok(Some(footer)) = footer else {
            // It may have something of any of them.
            (self.standings.values_mut()).for_each(|standing| standing.is_damaged = true);
            return;
        };
        for summary in footer.topics() {
            let Some(standing) = self.standings.get_mut(&summary.topic) else {
                continue;
            };
            let start = shared.topic(summary.topic).map(|topic| topic.start());
            let Some(start) = start.filter(|start| summary.end > *start) else {
                continue;
            };
            if usage.row.damaged {
                standing.is_damaged = true;
            } else if usage.is_cold() || usage.number < horizon {
                let compacted = standing.terms.compacted;
                for extent in footer.extents_of(summary.topic) {
                    let bytes = extent.payload_bytes();
                    standing.bytes += if extent.end() > start { bytes } else { 0 };
                    standing.dirty += match extent.end() > start.max(compacted) {
                        true => bytes,
                        false => 0,
                    };
                }
                standing.segments.push(usage.number);
                standing.end = standing.end.max(summary.end);
            } else if usage.number < applied {
                standing.waiting += summary.bytes;
            }
        }
    }

    /// Bytes of topics that would be compacted if a snapshot let go of the segments they are in.
    pub fn waiting_bytes(&self) -> u64 {
        let due = |of: &&Standing| !of.is_damaged && of.waiting > 0 && of.is_dirty_with(of.waiting);
        let waiting = self.standings.values().filter(due);
        waiting.map(|standing| standing.waiting).sum()
    }

    /// What is to be done next, by this clock where it can be trusted.
    pub fn step(&mut self, shared: &Shared, now: Option<Timestamp>) -> Step {
        let Some(pass) = &mut self.pass else {
            return self.begin(shared, now);
        };
        if !shared.compacted.has(pass.topic) {
            self.pass = None;
            return Step::None;
        }
        pass.left
            .retain(|number| shared.segments.get(*number).is_some());
        match &pass.found {
            // It is being read.
            None => Step::None,
            Some(_) if !pass.left.is_empty() => Step::Copy(pass.left.iter().copied().collect()),
            Some(found) => Step::Finish(Finished {
                topic: pass.topic,
                compacted: found.cleaning.end,
                tombstones: found.tombstones,
            }),
        }
    }

    fn begin(&mut self, shared: &Shared, now: Option<Timestamp>) -> Step {
        if self.rest_until.is_some_and(|until| Instant::now() < until) {
            return Step::None;
        }
        let is_due = |(id, of): &(&TopicId, &Standing)| {
            let since = self.dirty_since.get(*id);
            let is_old = since.is_some_and(|since| since.elapsed() >= limits::COMPACTION_DIRTY_FOR);
            // What is measured may be older than what another pass has made of it.
            let is_known = shared.compacted.lock().get(*id) == Some(&of.terms);
            let wants = of.is_dirty_with(0) || is_old || of.has_old_deletions(now);
            is_known && wants && !of.is_damaged && !of.segments.is_empty()
        };
        let due = self.standings.iter().filter(is_due);
        let Some((id, standing)) = due.max_by_key(|(_, of)| of.dirty) else {
            return Step::None;
        };
        let terms = standing.terms;
        self.pass = Some(Pass {
            topic: *id,
            found: None,
            left: BTreeSet::new(),
        });
        Step::Survey(Surveying {
            topic: *id,
            segments: standing.segments.clone(),
            compacted: terms.compacted,
            end: standing.end.max(terms.compacted),
            tombstones_before: now.map(|now| now.before(terms.tombstone_age)),
            keys_max: shared.compaction_keys.load(Ordering::Relaxed) as usize,
        })
    }

    /// What was found in the topic that is being compacted.
    pub fn surveyed(&mut self, found: Found) {
        if let Some(pass) = &mut self.pass {
            tracing::debug!(
                topic = %pass.topic, keys = found.cleaning.keys.len(), to = %found.cleaning.end,
                segments = found.segments.len(), "a topic was read to be compacted"
            );
            pass.left = found.segments.iter().copied().collect();
            pass.found = Some(found);
        }
    }

    /// Gives the pass up, and begins none for a while.
    pub fn give_up(&mut self, rest: Duration) {
        if self.pass.take().is_some() {
            self.rest_until = Some(Instant::now() + rest);
        }
    }

    /// The pass has come to its end, and that is durable.
    pub fn finished(&mut self) {
        self.pass = None;
        self.measured = None;
    }

    /// Whether a topic is being compacted.
    pub fn is_busy(&self) -> bool {
        self.pass.is_some()
    }

    /// What every copy takes away meanwhile.
    pub fn add_to(&self, sieve: &mut Sieve) {
        let Some(pass) = &self.pass else { return };
        let cleaning = pass.found.as_ref().map(|found| &found.cleaning);
        if let Some(cleaning) = cleaning
            && let Some(verdict) = sieve.of(pass.topic)
        {
            verdict.cleaning = Some(cleaning.clone());
        }
    }
}
