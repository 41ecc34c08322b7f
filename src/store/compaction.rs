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
use super::shared::{Purges, Shared};
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
    /// None where it is not compacted.
    terms: Option<Terms>,
    /// Purges of keys that are under way.
    purges: Purges,
    /// First offset in a sealed segment that may not be copied yet.
    held: Option<Offset>,
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
    fn new(terms: Option<Terms>, purges: Purges) -> Self {
        Self {
            terms,
            purges,
            held: None,
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
        self.terms.is_some() && dirty > 0 && dirty * 100 >= bytes * limits::COMPACTION_DIRTY_PERCENT
    }

    /// Where the purges end.
    fn purged_to(&self) -> Option<Offset> {
        self.purges.iter().map(|(_, purge)| purge.end).max()
    }

    /// Whether what is purged lies in a sealed segment that may not be copied yet.
    fn is_purge_held(&self) -> bool {
        self.purged_to()
            .zip(self.held)
            .is_some_and(|(end, held)| held < end)
    }

    /// Whether deletions that were kept may go.
    fn has_old_deletions(&self, now: Option<Timestamp>) -> bool {
        let due = self
            .terms
            .and_then(|terms| Some(terms.tombstones?.after(terms.tombstone_age)));
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
    /// Purges that are done; none if it was compacted.
    pub purged: Vec<u64>,
}

/// What is to be done now.
pub(super) enum Step {
    /// Nothing.
    None,
    /// What was written last is to be sealed, if it is this segment.
    Seal(u64),
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
    /// Looks what lies where, if something changed. The usages are those of that version of the table of segments.
    pub fn measure(
        &mut self,
        shared: &Shared,
        (usages, version): (&[Usage], u64),
        horizons: Horizons,
    ) {
        let versions = (
            shared.compacted.version.load(Ordering::Acquire)
                + shared.purges_changed.load(Ordering::Acquire),
            version,
            horizons,
        );
        let is_early = (self.measure_after).is_some_and(|after| Instant::now() < after);
        if self.measured == Some(versions) || is_early {
            return;
        }
        let terms = shared.compacted.all();
        let begun = Instant::now();
        let purges = |id: TopicId| {
            let topic = shared.topic(id);
            topic.map_or_else(|| Purges::from([]), |topic| topic.purges())
        };
        let purging = shared.purging();
        let compacted = terms.into_iter().map(|(id, terms)| (id, Some(terms)));
        let all: BTreeMap<TopicId, Option<Terms>> = purging
            .into_iter()
            .map(|id| (id, None))
            .chain(compacted)
            .collect();
        self.standings = all
            .into_iter()
            .map(|(id, terms)| (id, Standing::new(terms, purges(id))))
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
            let is_held = !usage.is_cold() && usage.number >= horizon;
            if usage.row.damaged || is_held {
                let held = standing.held.unwrap_or(summary.base);
                standing.held = Some(held.min(summary.base));
            }
            if usage.row.damaged {
                standing.is_damaged = true;
            } else if usage.is_cold() || usage.number < horizon {
                let compacted = standing.terms.map_or(Offset::ZERO, |terms| terms.compacted);
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

    /// Whether a purge waits for a snapshot.
    pub fn is_purge_held(&self) -> bool {
        let held = |of: &Standing| !of.is_damaged && of.is_purge_held();
        self.standings.values().any(held)
    }

    /// What is to be done next, by this clock where it can be trusted.
    pub fn step(&mut self, shared: &Shared, now: Option<Timestamp>) -> Step {
        let Some(pass) = &mut self.pass else {
            return self.begin(shared, now);
        };
        let is_purge = (pass.found.as_ref()).is_some_and(|found| found.verdict.purges.is_some());
        if !is_purge && pass.found.is_some() && !shared.compacted.has(pass.topic) {
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
                compacted: found.end,
                tombstones: found.tombstones,
                purged: (found.verdict.purges.iter())
                    .flat_map(|purges| purges.iter().map(|(number, _)| *number))
                    .collect(),
            }),
        }
    }

    fn begin(&mut self, shared: &Shared, now: Option<Timestamp>) -> Step {
        if self.rest_until.is_some_and(|until| Instant::now() < until) {
            return Step::None;
        }
        // A segment that came since, sealed or copied, may hold what is then taken for read.
        let version = self.measured.map(|(_, version, _)| version);
        if version != Some(shared.segments.version()) {
            return Step::None;
        }
        if let Some(step) = self.begin_purge(shared) {
            return step;
        }
        let is_due = |(id, of): &(&TopicId, &Standing)| {
            let since = self.dirty_since.get(*id);
            let is_old = since.is_some_and(|since| since.elapsed() >= limits::COMPACTION_DIRTY_FOR);
            // What is measured may be older than what another pass has made of it.
            let is_known =
                of.terms.is_some() && shared.compacted.lock().get(*id) == of.terms.as_ref();
            let wants = of.is_dirty_with(0) || is_old || of.has_old_deletions(now);
            is_known && wants && !of.is_damaged && !of.segments.is_empty()
        };
        let due = self.standings.iter().filter(is_due);
        let Some((id, standing)) = due.max_by_key(|(_, of)| of.dirty) else {
            return Step::None;
        };
        let Some(terms) = standing.terms else {
            return Step::None;
        };
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
            purges: None,
        })
    }

    /// A topic with purges of which all may be copied is read; what is in the way of another is sealed.
    fn begin_purge(&mut self, shared: &Shared) -> Option<Step> {
        let purging = shared.purging();
        let wanting = (self.standings.iter())
            .filter(|(id, of)| purging.contains(*id) && !of.is_damaged && !of.is_purge_held());
        for (id, standing) in wanting {
            let (Some(topic), Some(end)) = (shared.topic(*id), standing.purged_to()) else {
                continue;
            };
            // What is measured may be older than the purges, or than what another pass did.
            if topic.purges() != standing.purges {
                continue;
            }
            let open = topic.index().find_open_below(end);
            if let Some(segment) = open {
                return Some(Step::Seal(segment));
            }
            // What is on its way to the disk lies in no segment yet, and one that was sealed just now was not
            // measured: neither would be read, and what lies there would come back when the purge is done.
            let is_measured = self.measured.map(|(_, version, _)| version);
            if topic.durable_end() < end || is_measured != Some(shared.segments.version()) {
                continue;
            }
            self.pass = Some(Pass {
                topic: *id,
                found: None,
                left: BTreeSet::new(),
            });
            return Some(Step::Survey(Surveying {
                topic: *id,
                segments: standing.segments.clone(),
                compacted: Offset::ZERO,
                end,
                tombstones_before: None,
                keys_max: 0,
                purges: Some(standing.purges.clone()),
            }));
        }
        None
    }

    /// What was found in the topic that is being compacted.
    pub fn surveyed(&mut self, found: Found) {
        if let Some(pass) = &mut self.pass {
            tracing::debug!(
                topic = %pass.topic, to = %found.end, segments = found.segments.len(),
                "a topic was read to be copied without some of its records"
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
        // First of all: a sieve takes so many topics, and what of this one is not taken away would pass for gone.
        if let Some(found) = &pass.found
            && let Some(verdict) = sieve.of(pass.topic)
        {
            *verdict = found.verdict.clone();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::sieve::Verdict;
    use super::*;
    use crate::topic::PurgeRow;

    /// What a copy leaves in a topic for want of room in the sieve would pass for erased at the end of its pass.
    #[test]
    fn what_a_purge_was_read_for_goes_whoever_else_is_purged() {
        let topic = TopicId::from_bytes([9; 16]);
        let purge = PurgeRow::new((b"ann", [7; 16]), Offset::new(10), Timestamp::default());
        let compaction = Compaction {
            pass: Some(Pass {
                topic,
                found: Some(Found {
                    verdict: Verdict {
                        purges: Some([(1, purge)].into()),
                        ..Verdict::default()
                    },
                    end: Offset::new(10),
                    segments: vec![3],
                    tombstones: None,
                }),
                left: BTreeSet::from([3]),
            }),
            ..Compaction::default()
        };
        let mut sieve = Sieve::default();
        compaction.add_to(&mut sieve);
        for n in 0..limits::SIFTED_TOPICS_MAX {
            let mut id = [1; 16];
            id[..8].copy_from_slice(&n.to_le_bytes());
            let _ = sieve.of(TopicId::from_bytes(id));
        }
        let verdict = sieve.of(topic).expect("there is room for it");
        assert!(
            verdict
                .purges
                .as_ref()
                .is_some_and(|purges| purges.len() == 1)
        );
    }
}
