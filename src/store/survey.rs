//! Reading a topic before it is compacted: its newest keys, and in which segments something goes for them.
//!
//! ```text
//!   compacted ──────> clean end     1. the newest offset of each key, as many as there is room for
//!   start ──────────> clean end     2. what stands in front of one of them, by segment
//! ```
//!
//! Runs on the copier's thread, at its rate: nothing waits for it. It changes
//! nothing. A segment is looked up when it is read and not held in between: one
//! that was freed meanwhile had nothing that lived.

use std::hash::RandomState;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use super::copying::{Ended, Pace};
use super::extents::{ExtentReader, Wanted};
use super::lifetimes::{Moments, Unread};
use super::segments::Segment;
use super::shared::{Purges, Shared};
use super::sieve::Verdict;
use crate::journal::{EntryHeader, Extent, ExtentRead, JournalError, check_extent};
use crate::limits;
use crate::protocol::batch::{CheckedBatch, thin};
use crate::time::Timestamp;
use crate::topic::compaction::{Cleaning, KeyMap, Keyed};
use crate::types::{Offset, TopicId};

/// What is to be read.
#[derive(Debug, Clone)]
pub(super) struct Surveying {
    pub topic: TopicId,
    /// The segments with something of it that may be copied.
    pub segments: Vec<u64>,
    /// Below this it was cleaned before.
    pub compacted: Offset,
    /// Where what lies in those segments ends.
    pub end: Offset,
    /// Deletions go that were appended before.
    pub tombstones_before: Option<Timestamp>,
    /// Keys to be remembered at most.
    pub keys_max: usize,
    /// It is read for these, and not to be compacted.
    pub purges: Option<Purges>,
}

/// What was found.
pub(super) enum Surveyed {
    /// What goes, and from where.
    Done(Found),
    /// This segment cannot be read whole.
    Damaged { segment: u64, what: String },
    /// The store is ending, or a segment cannot be looked into.
    Dropped,
}

/// What goes, and from where.
#[derive(Debug)]
pub(super) struct Found {
    pub verdict: Verdict,
    /// Up to where it was read.
    pub end: Offset,
    /// The segments with something that goes.
    pub segments: Vec<u64>,
    /// Append time of the newest deletion that stays.
    pub tombstones: Option<Timestamp>,
}

/// Reads a topic.
pub(super) fn survey(
    shared: &Shared,
    what: &Surveying,
    pace: &Pace<'_>,
) -> Result<Surveyed, JournalError> {
    let mut reading = Reading {
        shared,
        what,
        pace,
        begun: Instant::now(),
        bytes: 0,
    };
    match reading.run() {
        Ok(found) => Ok(Surveyed::Done(found)),
        Err(Ended::Stopped) => Ok(Surveyed::Dropped),
        Err(Ended::Damaged { segment, what }) => Ok(Surveyed::Damaged { segment, what }),
        Err(Ended::Failed(error)) => Err(error),
    }
}

/// Reads when what of a segment is over.
pub(super) fn lifetimes(shared: &Shared, of: &Unread, pace: &Pace<'_>) -> Moments {
    let mut all = Vec::new();
    for topic in &of.topics {
        let what = Surveying {
            topic: *topic,
            segments: vec![of.segment],
            compacted: Offset::ZERO,
            end: Offset::new(u64::MAX),
            tombstones_before: None,
            keys_max: 0,
            purges: None,
        };
        let mut reading = Reading {
            shared,
            what: &what,
            pace,
            begun: Instant::now(),
            bytes: 0,
        };
        // What cannot be read is not known to be over; whoever copies it finds out why.
        let Ok(runs) = reading.runs() else { continue };
        moments(&mut reading, &runs, &mut all);
    }
    Moments::new(all)
}

/// When which bytes of these runs are over, as far as they can be read.
pub(super) fn moments(source: &mut impl Source, runs: &[Run], all: &mut Vec<(Timestamp, u64)>) {
    for run in runs {
        let read = source.batches(run, Offset::ZERO, &mut |header, batch| {
            let end = batch.ttl().map(|ttl| header.append_time.after(ttl));
            all.extend(end.map(|end| (end, u64::from(header.entry_bytes()))));
            ControlFlow::Continue(())
        });
        if read.is_err() {
            break;
        }
    }
}

/// What goes of a topic that lies there.
pub(super) fn find(
    source: &mut impl Source,
    what: &Surveying,
    runs: &[Run],
) -> Result<Found, Ended> {
    if let Some(purges) = &what.purges {
        let verdict = Verdict {
            purges: Some(purges.clone()),
            ..Verdict::default()
        };
        return doomed(source, runs, (verdict, what.end));
    }
    let (keys, end) = keys(source, what, runs)?;
    let cleaning = Cleaning {
        keys: Arc::new(keys),
        end,
        compacted: what.compacted,
        tombstones_before: what.tombstones_before,
    };
    let verdict = Verdict {
        cleaning: Some(cleaning),
        ..Verdict::default()
    };
    doomed(source, runs, (verdict, end))
}

/// Extents of the topic that follow one another in a segment.
pub(super) struct Run {
    pub segment: u64,
    pub extents: Vec<Extent>,
}

/// What lies where of a topic, in the order of offsets.
pub(super) fn runs_of(mut all: Vec<(u64, Extent)>) -> Vec<Run> {
    all.sort_unstable_by_key(|(segment, extent)| (extent.base, *segment));
    let mut runs: Vec<Run> = Vec::new();
    for (segment, extent) in all {
        match runs.last_mut() {
            Some(run) if run.segment == segment => run.extents.push(extent),
            _ => runs.push(Run {
                segment,
                extents: vec![extent],
            }),
        }
    }
    runs
}

/// Where a topic is read.
pub(super) trait Source {
    /// The batches of a run that live and end above `from`.
    fn batches(
        &mut self,
        run: &Run,
        from: Offset,
        take: &mut Take<'_>,
    ) -> Result<ControlFlow<()>, Ended>;
}

struct Reading<'a> {
    shared: &'a Shared,
    what: &'a Surveying,
    pace: &'a Pace<'a>,
    begun: Instant,
    bytes: u64,
}

/// Gets a batch that was found whole; tells whether to go on.
pub(super) type Take<'a> = dyn FnMut(&EntryHeader, &CheckedBatch) -> ControlFlow<()> + 'a;

impl Reading<'_> {
    fn run(&mut self) -> Result<Found, Ended> {
        let runs = self.runs()?;
        let what = self.what;
        find(self, what, &runs)
    }

    /// Where the topic lies, in the order of offsets.
    fn runs(&self) -> Result<Vec<Run>, Ended> {
        let mut all: Vec<(u64, Extent)> = Vec::new();
        for number in &self.what.segments {
            let Some(segment) = self.shared.segments.get(*number) else {
                continue;
            };
            let footer = self.shared.segments.footer_once(&segment, &self.shared.dir);
            let footer = footer?.ok_or(Ended::Stopped)?;
            let extents = footer.extents_of(self.what.topic);
            all.extend(extents.map(|extent| (*number, extent)));
        }
        Ok(runs_of(all))
    }
}

impl Source for Reading<'_> {
    fn batches(
        &mut self,
        run: &Run,
        from: Offset,
        take: &mut Take<'_>,
    ) -> Result<ControlFlow<()>, Ended> {
        // One that is gone had nothing that lived.
        let (Some(topic), Some(segment)) = (
            self.shared.topic(self.what.topic),
            self.shared.segments.get(run.segment),
        ) else {
            return Ok(ControlFlow::Continue(()));
        };
        let from = from.max(topic.start());
        let wanted: Vec<Wanted> = run
            .extents
            .iter()
            .filter(|extent| extent.end() > from)
            .map(|extent| Wanted {
                source: 0,
                extent: *extent,
            })
            .collect();
        let shared = self.shared;
        let mut reader = ExtentReader::new(shared, std::slice::from_ref(&segment));
        let mut rest = &wanted[..];
        while !rest.is_empty() {
            let (part, later) = rest.split_at(length_of_part(rest));
            let unread = |(_, error): (usize, JournalError)| unread(&segment, error);
            let places = reader.gather(part, |bytes| self.rest(bytes));
            let places = places.map_err(unread)?;
            for (wanted, place) in part.iter().zip(places) {
                if (self.pace.stopping)() {
                    return Err(Ended::Stopped);
                }
                let flow = if wanted.is_small() {
                    self.extent(&segment, (wanted, from), reader.kept(place), take)?
                } else {
                    let bytes = reader.one(wanted).map_err(unread)?;
                    let flow = self.extent(&segment, (wanted, from), bytes, take)?;
                    self.rest(u64::from(wanted.extent.length));
                    flow
                };
                if flow.is_break() {
                    return Ok(flow);
                }
            }
            rest = later;
        }
        Ok(ControlFlow::Continue(()))
    }
}

impl Reading<'_> {
    fn extent(
        &self,
        segment: &Segment,
        (wanted, from): (&Wanted, Offset),
        bytes: &[u8],
        take: &mut Take<'_>,
    ) -> Result<ControlFlow<()>, Ended> {
        let read = ExtentRead {
            topic: self.what.topic,
            extent: wanted.extent,
            from,
        };
        let entries =
            check_extent(bytes, &segment.header, &read).map_err(|lost| Ended::Damaged {
                segment: segment.number,
                what: format!(
                    "topic id {}: offsets [{}, {})",
                    read.topic, lost.start, lost.end
                ),
            })?;
        for entry in entries {
            let Ok(batch) = CheckedBatch::check_crc(Bytes::copy_from_slice(entry.payload)) else {
                continue;
            };
            if take(&entry.header, &batch).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Counts what was read, and waits until that is no faster than it should be; false: it is time to end.
    fn rest(&mut self, bytes: u64) -> bool {
        self.bytes += bytes;
        self.pace.rest(self.begun, self.bytes)
    }
}

/// The newest offset of each key from where was cleaned before, and up to where there was room for all of them.
fn keys(
    source: &mut impl Source,
    what: &Surveying,
    runs: &[Run],
) -> Result<(KeyMap, Offset), Ended> {
    let hashers = [RandomState::new(), RandomState::new()];
    let mut keys = KeyMap::new(hashers, what.keys_max);
    let compacted = what.compacted;
    let mut end = what.end;
    for run in runs {
        let flow = source.batches(run, compacted, &mut |header, batch| {
            let mut fits = true;
            let noted = each(header, batch, |record| {
                let key = record.key.filter(|_| record.at >= compacted);
                fits &= key.is_none_or(|key| keys.note(key, record.at));
            });
            // One whose records cannot be read takes nothing away, and is not taken away.
            match noted && !fits {
                false => ControlFlow::Continue(()),
                true => {
                    end = Offset::new(header.number).max(compacted);
                    ControlFlow::Break(())
                }
            }
        })?;
        if flow.is_break() {
            break;
        }
    }
    Ok((keys, end))
}

/// Where something goes by a verdict on what lies below `end`.
fn doomed(
    source: &mut impl Source,
    runs: &[Run],
    (verdict, end): (Verdict, Offset),
) -> Result<Found, Ended> {
    let mut segments: Vec<u64> = Vec::new();
    let mut tombstones: Option<Timestamp> = None;
    for run in runs {
        let mut goes = false;
        let _ = source.batches(run, Offset::ZERO, &mut |header, batch| {
            if header.number >= end.get() {
                return ControlFlow::Break(());
            }
            each(header, batch, |record| {
                if verdict.judge(record, false).is_some() {
                    goes = true;
                } else if record.is_deletion() && record.at < end {
                    tombstones = tombstones.max(Some(record.appended));
                }
            });
            ControlFlow::Continue(())
        })?;
        if goes && !segments.contains(&run.segment) {
            segments.push(run.segment);
        }
    }
    Ok(Found {
        verdict,
        end,
        segments,
        tombstones,
    })
}

/// Gives each record of a batch to `see`. False: they cannot be read.
fn each(header: &EntryHeader, batch: &CheckedBatch, mut see: impl FnMut(&Keyed<'_>)) -> bool {
    let walked = thin(&[], batch, |delta, record| {
        see(&Keyed {
            at: Offset::new(header.number + u64::from(delta)),
            appended: header.append_time,
            key: record.key,
            is_empty: record.value.is_empty(),
        });
        None
    });
    walked.is_ok()
}

fn unread(segment: &Segment, error: JournalError) -> Ended {
    match error.is_damage() {
        true => Ended::Damaged {
            segment: segment.number,
            what: error.to_string(),
        },
        false => Ended::Failed(error),
    }
}

/// How many of these are read at once.
fn length_of_part(wanted: &[Wanted]) -> usize {
    let mut bytes = 0;
    let fits = |wanted: &&Wanted| {
        if wanted.is_small() {
            bytes += wanted.extent.length as usize;
        }
        bytes <= limits::COLD_GATHER_BYTES
    };
    wanted.iter().take_while(fits).count().max(1)
}
