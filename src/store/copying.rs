//! Copying what lives in segments into cold ones, which nothing names yet.
//!
//! A part of the extents at a time: their bytes are [gathered](super::extents),
//! checked and written, by topic and offset. What dies meanwhile is left out, and so are
//! single records that the [sieve](super::sieve) has a verdict on.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::extents::{ExtentReader, Unread, Wanted};
use super::pool::{Prepared, SlotPool};
use super::segments::Segment;
use super::shared::{Shared, count};
use super::sieve::{Sieve, Sifted, Sifting};
use crate::journal::{
    ColdWriter, EntryHeader, EntryKind, EntryToWrite, ExtentRead, Footer, JournalError, Kind,
    check_extent,
};
use crate::limits;
use crate::topic::SegmentRow;
use crate::types::{Offset, TopicId};

/// A cold segment that is on the disk and not yet named by anything.
pub(super) struct Output {
    pub prepared: Prepared,
    pub row: SegmentRow,
    pub footer: Arc<Footer>,
}

/// What takes the place of the sources.
pub(super) struct Copies {
    /// What lives in them is in these.
    pub outputs: Vec<Output>,
    /// But for this.
    pub sifted: Vec<Sifted>,
    /// Something that was to go is still there.
    pub is_partial: bool,
}

/// What is to be copied.
pub(super) struct Job {
    pub sources: Vec<Arc<Segment>>,
    pub sieve: Sieve,
    /// It is worth as many slots as it gives back: readers have less to read.
    pub may_be_even: bool,
}

/// How copying went.
pub(super) enum Copied {
    /// All is on the disk.
    Done(Copies),
    /// This segment cannot be read whole.
    Damaged { segment: u64, what: String },
    /// It took as many slots as it would give back, or the store is ending.
    Dropped,
}

/// Bounds how fast copying goes.
pub(super) struct Pace<'a> {
    /// Bytes per second, which may change meanwhile.
    pub bytes_per_second: &'a AtomicU64,
    /// Whether to give up.
    pub stopping: &'a dyn Fn() -> bool,
}

impl Pace<'_> {
    /// Waits until so many bytes since then are no faster than they should be; false: it is time to end.
    pub fn rest(&self, begun: Instant, bytes: u64) -> bool {
        loop {
            let rate = self.bytes_per_second.load(Ordering::Relaxed).max(1);
            let due = Duration::from_millis(bytes.saturating_mul(1000) / rate);
            let left = due.saturating_sub(begun.elapsed());
            if left.is_zero() || (self.stopping)() {
                return !(self.stopping)();
            }
            std::thread::sleep(left.min(Duration::from_millis(5)));
        }
    }
}

/// An extent to copy.
#[derive(Debug, Clone, Copy)]
struct Live {
    topic: TopicId,
    wanted: Wanted,
    from: Offset,
}

/// Copies what lives in the sources into as many cold segments as it takes.
pub(super) fn copy(
    shared: &Shared,
    pool: &SlotPool,
    job: &Job,
    pace: &Pace<'_>,
) -> Result<Copied, JournalError> {
    let sources = &job.sources[..];
    let outputs = Outputs {
        shared,
        pool,
        done: Vec::new(),
        current: None,
        unsynced: 0,
    };
    let mut copying = Copying {
        shared,
        sources,
        pace,
        begun: Instant::now(),
        bytes: 0,
        copied: (TopicId::zero(), Offset::ZERO),
        sifting: Sifting::new(job.sieve.clone()),
        outputs,
    };
    let outcome = copying.run();
    let (mut outputs, sifting) = (copying.outputs, copying.sifting);
    let most = sources.len() + usize::from(job.may_be_even);
    let outcome = match outcome {
        Ok(()) if outputs.done.len() < most => {
            return Ok(Copied::Done(Copies {
                outputs: std::mem::take(&mut outputs.done),
                is_partial: sifting.is_partial,
                sifted: sifting.into_sifted(),
            }));
        }
        Ok(()) | Err(Ended::Stopped) => Ok(Copied::Dropped),
        Err(Ended::Damaged { segment, what }) => Ok(Copied::Damaged { segment, what }),
        Err(Ended::Failed(error)) => Err(error),
    };
    outputs.give_back();
    outcome
}

/// Why copying, or reading for it, ended before its end.
pub(super) enum Ended {
    /// The store is ending, or a source cannot be looked into.
    Stopped,
    Damaged {
        segment: u64,
        what: String,
    },
    Failed(JournalError),
}

impl From<JournalError> for Ended {
    fn from(error: JournalError) -> Self {
        Self::Failed(error)
    }
}

struct Copying<'a> {
    shared: &'a Shared,
    sources: &'a [Arc<Segment>],
    pace: &'a Pace<'a>,
    begun: Instant,
    /// So many were read.
    bytes: u64,
    /// Where a repair put copies beside their originals, one of each is enough: up to here a topic is copied.
    copied: (TopicId, Offset),
    sifting: Sifting,
    outputs: Outputs<'a>,
}

impl Copying<'_> {
    /// On return all of it is copied and durable.
    fn run(&mut self) -> Result<(), Ended> {
        let mut live = Vec::new();
        for source in 0..self.sources.len() {
            self.find(source, &mut live)?;
        }
        live.sort_unstable_by_key(|live| (live.topic, live.wanted.extent.base, live.wanted.source));
        let mut reader = ExtentReader::new(self.shared, self.sources);
        let mut rest = &live[..];
        while !rest.is_empty() {
            let (part, later) = rest.split_at(length_of_part(rest));
            self.part(&mut reader, part)?;
            rest = later;
        }
        let Self {
            sifting, outputs, ..
        } = self;
        sifting.flush(&mut |header, payload| outputs.push(header, payload))?;
        Ok(outputs.finish()?)
    }

    /// Finds what lives in a source.
    fn find(&self, source: usize, live: &mut Vec<Live>) -> Result<(), Ended> {
        let segment = &self.sources[source];
        let footer = match self.shared.segments.footer_once(segment, &self.shared.dir) {
            Ok(footer) => footer.ok_or(Ended::Stopped)?,
            Err(error) => return Err(self.unread((source, error))),
        };
        for summary in footer.topics() {
            let Some(topic) = self.shared.topic(summary.topic) else {
                continue;
            };
            let start = topic.start();
            if summary.end <= start {
                continue;
            }
            let extents = footer.extents_of(summary.topic);
            live.extend(extents.filter(|e| e.end() > start).map(|extent| Live {
                topic: summary.topic,
                wanted: Wanted { source, extent },
                from: start,
            }));
        }
        Ok(())
    }

    fn unread(&self, (source, error): Unread) -> Ended {
        if error.is_damage() {
            Ended::Damaged {
                segment: self.sources[source].number,
                what: error.to_string(),
            }
        } else {
            Ended::Failed(error)
        }
    }

    fn part(&mut self, reader: &mut ExtentReader<'_>, part: &[Live]) -> Result<(), Ended> {
        let part = self.still_living(part);
        let wanted: Vec<Wanted> = part.iter().map(|live| live.wanted).collect();
        let places = reader.gather(&wanted, |bytes| self.rest(bytes));
        let places = places.map_err(|unread| self.unread(unread))?;
        for (live, place) in part.iter().zip(places) {
            if (self.pace.stopping)() {
                return Err(Ended::Stopped);
            }
            if live.wanted.is_small() {
                self.push(live, reader.kept(place))?;
            } else {
                let bytes = reader.one(&live.wanted);
                let bytes = bytes.map_err(|unread| self.unread(unread))?;
                self.push(live, bytes)?;
                self.rest(u64::from(live.wanted.extent.length));
            }
        }
        Ok(())
    }

    /// What of a part did not die since it was found: what is dead stays dead, and need not be copied.
    fn still_living(&self, part: &[Live]) -> Vec<Live> {
        let mut of_last: Option<(TopicId, Option<Offset>)> = None;
        let lives = |live: &Live| {
            let start = match of_last {
                Some((topic, start)) if topic == live.topic => start,
                _ => self.shared.topic(live.topic).map(|topic| topic.start()),
            };
            of_last = Some((live.topic, start));
            let from = live.from.max(start?);
            (live.wanted.extent.end() > from).then_some(Live { from, ..*live })
        };
        part.iter().filter_map(lives).collect()
    }

    fn push(&mut self, live: &Live, bytes: &[u8]) -> Result<(), Ended> {
        let segment = &self.sources[live.wanted.source];
        let read = ExtentRead {
            topic: live.topic,
            extent: live.wanted.extent,
            from: live.from,
        };
        let entries =
            check_extent(bytes, &segment.header, &read).map_err(|lost| Ended::Damaged {
                segment: segment.number,
                what: format!(
                    "topic id {}: offsets [{}, {})",
                    live.topic, lost.start, lost.end
                ),
            })?;
        for entry in entries {
            let is_copied =
                self.copied.0 == live.topic && entry.header.number < self.copied.1.get();
            if !is_copied {
                let Self {
                    sifting, outputs, ..
                } = self;
                sifting.sift(&entry, &mut |header, payload| outputs.push(header, payload))?;
                self.copied = (live.topic, Offset::new(entry.header.end_number()));
            }
        }
        count(
            &self.shared.reclaimed.bytes_copied,
            live.wanted.extent.length as usize,
        );
        Ok(())
    }

    /// Counts what was read, and waits until that is no faster than it should be; false: it is time to end.
    fn rest(&mut self, bytes: u64) -> bool {
        self.bytes += bytes;
        self.pace.rest(self.begun, self.bytes)
    }
}

/// How many of these make up a part: as many as may be gathered at once.
fn length_of_part(live: &[Live]) -> usize {
    let mut bytes = 0;
    let fits = |live: &&Live| {
        if live.wanted.is_small() {
            bytes += live.wanted.extent.length as usize;
        }
        bytes <= limits::COLD_GATHER_BYTES
    };
    live.iter().take_while(fits).count().max(1)
}

/// The cold segments being written.
struct Outputs<'a> {
    shared: &'a Shared,
    pool: &'a SlotPool,
    done: Vec<Output>,
    current: Option<(Prepared, ColdWriter)>,
    unsynced: u64,
}

impl Outputs<'_> {
    fn push(&mut self, header: &EntryHeader, payload: &[u8]) -> Result<(), JournalError> {
        let payload_bytes = payload.len();
        let payload = [payload];
        let entry = EntryToWrite {
            kind: EntryKind::Records,
            topic: header.topic,
            number: header.number,
            epoch: header.epoch,
            records: header.records,
            append_time: header.append_time,
            payload: &payload,
            payload_crc: header.payload_crc,
        };
        let full = |(_, writer): &(Prepared, ColdWriter)| !writer.has_room_for(payload_bytes);
        if self.current.as_ref().is_some_and(full) {
            self.finish()?;
        }
        if self.current.is_none() {
            let prepared = self.pool.prepare(Kind::Cold, None)?;
            let writer = ColdWriter::new(prepared.slot.clone(), &prepared.header);
            self.current = Some((prepared, writer));
        }
        let (prepared, writer) = self.current.as_mut().expect("made just now");
        let mut outcome = writer.push(&entry).map(|_| ());
        self.unsynced += payload_bytes as u64;
        if self.unsynced >= limits::COLD_SYNC_BYTES {
            self.unsynced = 0;
            outcome = outcome.and_then(|()| prepared.slot.sync_data());
        }
        outcome.inspect_err(|error| self.shared.fail(&error.to_string()))
    }

    /// Ends the segment being written; on return it is durable.
    fn finish(&mut self) -> Result<(), JournalError> {
        let Some((prepared, writer)) = self.current.take() else {
            return Ok(());
        };
        // After a failed write nothing more is written (J12).
        let written = writer.finish();
        let written = written.inspect_err(|error| self.shared.fail(&error.to_string()))?;
        let footer = written.footer;
        let row = SegmentRow {
            slot: prepared.header.slot,
            kind: 3,
            salt: prepared.header.salt.to_bytes(),
            end: footer.segment_end().contents_end,
            footer_position: written.footer_position,
            footer_length: u32::try_from(footer.as_bytes().len()).expect("a footer lies in a slot"),
            first_group: 0,
            last_group: 0,
            damaged: false,
        };
        self.done.push(Output {
            prepared,
            row,
            footer: Arc::new(footer),
        });
        Ok(())
    }

    /// Nothing names these slots, and nothing ever did.
    fn give_back(&mut self) {
        let done = self.done.drain(..).map(|output| output.prepared);
        let current = self.current.take().map(|(prepared, _)| prepared);
        for prepared in done.chain(current) {
            self.pool.release(prepared.header.slot);
        }
    }
}

/// The slots of outputs that were not put in.
pub(super) fn slots_of(outputs: &[Output]) -> Vec<u32> {
    outputs
        .iter()
        .map(|output| output.prepared.header.slot)
        .collect()
}
