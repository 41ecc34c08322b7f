//! Cold segments: what lives in mostly dead segments, copied together.
//!
//! ```text
//!   segment 7   [A1 . . . B4 .]  \
//!   segment 9   [. . A2 . . . .]  >  cold 31  [A1 A2 | B4 | C8 C9]   sorted by topic and offset
//!   segment 12  [. C8 C9 . . .]  /
//! ```
//!
//! [`look`] counts what lives where, [`choose`] says what is worth copying,
//! [`copy`] copies it, [`swap`] lets the writer put the cold segments in the
//! place of their sources, in one state entry.
//!
//! 1. Sources lie wholly before the catalog's durable position and the usable
//!    snapshot's begin, or are cold: no walk along the stream needs them.
//! 2. A cold segment is durable, footer and all, before an entry names it. Until
//!    then its slot is free: a crash leaves nothing to clean up.
//! 3. What lives only gets less: a start never falls and an id never returns. So
//!    a copy made of what lived then holds all that lives when it is put in.
//! 4. Every copied batch is checked by its own checksum on the way. What cannot be
//!    read ends the copying: its segment is marked as damaged, and stays (J14).
//! 5. Readers find either the source or the copy: the topic's index changes in one
//!    step, before the source is taken out of the table of segments, and its slot
//!    is not touched while somebody reads it (J7).

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::command::Context;
use super::index::Run;
use super::keeper::runs;
use super::pool::{Prepared, SlotPool};
use super::segments::{Pin, Segment};
use super::shared::{Shared, TopicShared};
use crate::journal::{
    ColdWriter, EntryKind, EntryToWrite, Extent, ExtentRead, FIRST_POSITION, Footer, JournalError,
    Kind, Piece, StoredEntry, Via, footer_bytes, read_extent,
};
use crate::limits;
use crate::protocol::error::ApiError;
use crate::topic::{RowKey, SegmentRow};
use crate::types::{Offset, TopicId};

/// What of a sealed segment lives.
#[derive(Debug, Clone)]
pub(super) struct Usage {
    pub number: u64,
    pub row: SegmentRow,
    /// Bytes it would take elsewhere: live entries with their headers, and their part of a footer.
    pub live_bytes: u64,
}

impl Usage {
    /// Whether it is no part of the stream.
    pub fn is_cold(&self) -> bool {
        self.row.kind == 3
    }

    /// Whether nothing in it lives.
    pub fn is_dead(&self) -> bool {
        self.live_bytes == 0
    }
}

/// Counts what lives in every sealed segment. One that cannot be looked into counts as wholly live.
pub(super) fn look(shared: &Shared) -> Vec<Usage> {
    // The segments first: a topic is published before any of its records can be in a sealed one.
    let segments = shared.segments.all();
    let starts: HashMap<TopicId, Offset> = {
        let topics = shared.topics();
        let start_of = |(id, topic): (&TopicId, &Arc<TopicShared>)| (*id, topic.start());
        topics.by_id.iter().map(start_of).collect()
    };
    let mut usages = Vec::new();
    for segment in segments {
        let Some(row) = segment.row else { continue };
        let footer = shared.segments.footer_once(&segment, &shared.dir);
        let live_bytes = match footer {
            Ok(Some(footer)) => live_bytes(&footer, &starts),
            Ok(None) | Err(_) => u64::from(shared.dir.slot_bytes()),
        };
        usages.push(Usage {
            number: segment.number,
            row,
            live_bytes,
        });
    }
    usages
}

fn live_bytes(footer: &Footer, starts: &HashMap<TopicId, Offset>) -> u64 {
    let mut bytes = 0;
    for summary in footer.topics() {
        let start = starts.get(&summary.topic);
        let Some(&start) = start.filter(|start| summary.end > **start) else {
            continue;
        };
        let live = footer.extents_of(summary.topic).filter(|e| e.end() > start);
        let (mut extents, mut length) = (0, 0);
        for extent in live {
            extents += 1;
            length += u64::from(extent.length);
        }
        if extents > 0 {
            bytes += length + footer_bytes(1, extents) as u64;
        }
    }
    bytes
}

/// What is worth copying together: the segments, and how many slots that gives back.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Choice {
    pub sources: Vec<u64>,
    pub gain: u64,
}

/// Chooses among `candidates`, those with the least in them first. `tight`: more space is taken than should be.
pub(super) fn choose(candidates: &[&Usage], slot_bytes: u64, tight: bool) -> Choice {
    let percent = if tight {
        limits::COLD_LIVE_PERCENT_TIGHT
    } else {
        limits::COLD_LIVE_PERCENT
    };
    // Room for headers, and for the end of the contents and the footer to be rounded up.
    let room = slot_bytes - u64::from(FIRST_POSITION) - 2 * u64::from(limits::SECTOR_BYTES_MAX);
    let mut sorted: Vec<&&Usage> = candidates
        .iter()
        .filter(|usage| usage.live_bytes * 100 <= slot_bytes * percent)
        .collect();
    sorted.sort_by_key(|usage| (usage.live_bytes, usage.number));
    sorted.truncate(limits::COLD_SOURCES_MAX);
    let (mut best, mut best_count, mut bytes) = (0, 0, 0);
    for (at, usage) in sorted.iter().enumerate() {
        bytes += usage.live_bytes;
        let outputs = bytes.div_ceil(room);
        if outputs > limits::COLD_OUTPUTS_MAX {
            break;
        }
        let gain = (at as u64 + 1).saturating_sub(outputs);
        if gain > best {
            (best, best_count) = (gain, at + 1);
        }
    }
    Choice {
        sources: sorted[..best_count]
            .iter()
            .map(|usage| usage.number)
            .collect(),
        gain: best,
    }
}

/// A cold segment that is on the disk and not yet named by anything.
pub(super) struct Output {
    prepared: Prepared,
    row: SegmentRow,
    footer: Arc<Footer>,
}

/// How copying went.
pub(super) enum Copied {
    /// What lives in the sources is in these.
    Done(Vec<Output>),
    /// This segment cannot be read whole.
    Damaged { segment: u64, what: String },
    /// It took as many slots as it would give back, or the store is ending.
    Dropped,
}

/// Bounds how fast copying goes.
pub(super) struct Pace<'a> {
    /// Bytes per second; `None`: as fast as the disk.
    pub bytes_per_second: Option<u64>,
    /// Whether to give up.
    pub stopping: &'a dyn Fn() -> bool,
}

/// An extent to copy, and the source it lies in.
struct Live {
    topic: TopicId,
    extent: Extent,
    from: Offset,
    source: usize,
}

/// Copies what lives in the sources into as many cold segments as it takes.
pub(super) fn copy(
    shared: &Shared,
    pool: &SlotPool,
    sources: &[Arc<Segment>],
    pace: &Pace<'_>,
) -> Result<Copied, JournalError> {
    let mut outputs = Outputs {
        shared,
        pool,
        done: Vec::new(),
        current: None,
        unsynced: 0,
    };
    let outcome = copy_into(&mut outputs, shared, sources, pace);
    match outcome {
        Ok(None) if outputs.done.len() < sources.len() => {
            Ok(Copied::Done(std::mem::take(&mut outputs.done)))
        }
        outcome => {
            outputs.give_back();
            outcome.map(|stopped| stopped.unwrap_or(Copied::Dropped))
        }
    }
}

/// `None`: all of it is copied and durable.
fn copy_into(
    outputs: &mut Outputs<'_>,
    shared: &Shared,
    sources: &[Arc<Segment>],
    pace: &Pace<'_>,
) -> Result<Option<Copied>, JournalError> {
    let damaged = |segment: &Segment, what: String| Copied::Damaged {
        segment: segment.number,
        what,
    };
    let mut live = Vec::new();
    for (source, segment) in sources.iter().enumerate() {
        match shared.segments.footer_once(segment, &shared.dir) {
            Ok(Some(footer)) => gather(shared, &footer, source, &mut live),
            Ok(None) => return Ok(Some(Copied::Dropped)),
            Err(error) if error.is_damage() => {
                return Ok(Some(damaged(segment, error.to_string())));
            }
            Err(error) => return Err(error),
        }
    }
    live.sort_by_key(|live| (live.topic, live.extent.base));
    let begun = Instant::now();
    let mut bytes = 0;
    // Where a repair put copies beside their originals, one of each is enough.
    let mut copied = (TopicId::zero(), Offset::ZERO);
    for live in live {
        if (pace.stopping)() {
            return Ok(Some(Copied::Dropped));
        }
        let segment = &sources[live.source];
        let read = ExtentRead {
            topic: live.topic,
            extent: live.extent,
            from: live.from,
        };
        // Around the page cache: what is copied in the background is not what readers want soon.
        let how = (Via::Direct, &shared.read_buffers);
        let slot = segment.slot(&shared.dir)?;
        let pieces = match read_extent(&slot, &segment.header, &read, how) {
            Ok(pieces) => pieces,
            Err(error) if error.is_damage() => {
                return Ok(Some(damaged(segment, error.to_string())));
            }
            Err(error) => return Err(error),
        };
        for piece in pieces {
            match piece {
                Piece::Entry(entry)
                    if copied.0 == live.topic && entry.header.number < copied.1.get() => {}
                Piece::Entry(entry) => {
                    outputs.push(live.topic, &entry)?;
                    copied = (live.topic, Offset::new(entry.header.end_number()));
                }
                Piece::Damaged { from, to } => {
                    let what = format!("topic id {}: offsets [{from}, {to})", live.topic);
                    return Ok(Some(damaged(segment, what)));
                }
            }
        }
        bytes += u64::from(live.extent.length);
        rest(begun, bytes, pace);
    }
    outputs.finish()?;
    Ok(None)
}

/// Waits until copying is no faster than it should be.
fn rest(begun: Instant, bytes: u64, pace: &Pace<'_>) {
    let Some(rate) = pace.bytes_per_second else {
        return;
    };
    let due = begun + Duration::from_millis(bytes * 1000 / rate);
    while Instant::now() < due && !(pace.stopping)() {
        std::thread::sleep(
            Duration::from_millis(5).min(due.saturating_duration_since(Instant::now())),
        );
    }
}

fn gather(shared: &Shared, footer: &Footer, source: usize, live: &mut Vec<Live>) {
    for summary in footer.topics() {
        let Some(topic) = shared.topic(summary.topic) else {
            continue;
        };
        let start = topic.start();
        let extents = footer.extents_of(summary.topic);
        live.extend(extents.filter(|e| e.end() > start).map(|extent| Live {
            topic: summary.topic,
            extent,
            from: extent.base.max(start),
            source,
        }));
    }
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
    fn push(&mut self, topic: TopicId, entry: &StoredEntry) -> Result<(), JournalError> {
        let payload = [&entry.payload[..]];
        let entry = EntryToWrite {
            kind: EntryKind::Records,
            topic,
            number: entry.header.number,
            epoch: entry.header.epoch,
            records: entry.header.records,
            append_time: entry.header.append_time,
            payload: &payload,
            payload_crc: entry.header.payload_crc,
        };
        let full =
            |(_, writer): &(Prepared, ColdWriter)| !writer.has_room_for(entry.payload_bytes());
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
        self.unsynced += entry.payload_bytes() as u64;
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

/// Slots that are free once nobody reads them and the entry that says so can no longer be lost.
pub(super) type Given = Vec<(u32, Pin)>;

/// Segments to be given up, and the topics that have something in them.
#[derive(Debug, Clone)]
pub(super) struct Leaving {
    usages: Vec<Usage>,
    /// First offset after the last that any of them has of the topic.
    topics: BTreeMap<TopicId, Offset>,
}

impl Leaving {
    /// Looks the topics up, so that the writer need not. What cannot be looked into stays.
    pub fn new(shared: &Shared, usages: Vec<Usage>) -> Self {
        let mut leaving = Self {
            usages: Vec::with_capacity(usages.len()),
            topics: BTreeMap::new(),
        };
        for usage in usages {
            let segment = shared.segments.get(usage.number);
            let footer = segment.map(|segment| shared.segments.footer_once(&segment, &shared.dir));
            if let Some(Ok(Some(footer))) = footer {
                for summary in footer.topics() {
                    let end = leaving.topics.entry(summary.topic).or_default();
                    *end = summary.end.max(*end);
                }
                leaving.usages.push(usage);
            }
        }
        leaving
    }
}

/// On the writer's thread: the cold segments take the place of their sources.
pub(super) fn swap(
    context: &mut Context<'_>,
    sources: Leaving,
    outputs: Vec<Output>,
) -> Result<(Given, Vec<RowKey>), ApiError> {
    let as_it_was = |usage: &Usage| context.state.segments().get(&usage.number) == Some(&usage.row);
    if !sources.usages.iter().all(as_it_was) {
        return Err(ApiError::InvalidArgument {
            what: "segments".to_owned(),
            reason: "they changed while they were copied".to_owned(),
        });
    }
    let mut keys = Vec::new();
    let mut new_runs: BTreeMap<TopicId, Vec<Run>> = BTreeMap::new();
    for output in outputs {
        let number = output.prepared.header.segment;
        for summary in output.footer.topics() {
            let found = runs(number, output.footer.extents_of(summary.topic));
            new_runs.entry(summary.topic).or_default().extend(found);
        }
        context.state.put_segment(number, output.row);
        let segment = Segment::new(output.prepared.header, Some(output.row));
        context.shared.segments.put(segment);
        context.shared.segments.keep(number, output.footer);
        keys.push(RowKey::Segment(number));
    }
    let given = give_up(context, sources, new_runs, &mut keys);
    Ok((given, keys))
}

/// On the writer's thread: segments in which nothing lives are given up. If anything in them does, all stay.
pub(super) fn free(context: &mut Context<'_>, mut dead: Leaving) -> (Given, Vec<RowKey>) {
    let lives = |(id, end): (&TopicId, &Offset)| {
        let topic = context.state.topic(*id);
        topic.is_ok_and(|topic| topic.row.start < *end)
    };
    if dead.topics.iter().any(lives) {
        return (Vec::new(), Vec::new());
    }
    let segments = context.state.segments();
    dead.usages
        .retain(|usage| segments.get(&usage.number) == Some(&usage.row));
    let mut keys = Vec::new();
    let given = give_up(context, dead, BTreeMap::new(), &mut keys);
    (given, keys)
}

/// Takes the segments out of the state, the topics' indexes and the table, in this order.
fn give_up(
    context: &mut Context<'_>,
    leaving: Leaving,
    mut new_runs: BTreeMap<TopicId, Vec<Run>>,
    keys: &mut Vec<RowKey>,
) -> Given {
    let shared = context.shared;
    let numbers: Vec<u64> = leaving.usages.iter().map(|usage| usage.number).collect();
    for id in leaving.topics.into_keys() {
        if let Some(topic) = shared.topic(id) {
            let runs = new_runs.remove(&id).unwrap_or_default();
            topic.index_mut().replace(&numbers, runs, topic.start());
        }
    }
    let mut given = Vec::new();
    for usage in leaving.usages {
        context.state.remove_segment(usage.number);
        keys.push(RowKey::Segment(usage.number));
        if let Some(pin) = shared.segments.remove(usage.number) {
            given.push((usage.row.slot, pin));
        }
    }
    given
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(number: u64, live_percent: u64) -> Usage {
        let row = SegmentRow {
            slot: 1,
            kind: 1,
            salt: [0; 16],
            end: 0,
            footer_position: 0,
            footer_length: 0,
            first_group: 1,
            last_group: 1,
            damaged: false,
        };
        Usage {
            number,
            row,
            live_bytes: live_percent << 20,
        }
    }

    fn choice(percents: &[u64], tight: bool) -> (Vec<u64>, u64) {
        let usages: Vec<Usage> = (1..).zip(percents).map(|(n, p)| usage(n, *p)).collect();
        let candidates: Vec<&Usage> = usages.iter().collect();
        let chosen = choose(&candidates, 100 << 20, tight);
        (chosen.sources, chosen.gain)
    }

    #[test]
    fn copying_has_to_give_back_more_slots_than_it_takes() {
        assert_eq!(choice(&[], false), (vec![], 0));
        assert_eq!(choice(&[10], false), (vec![], 0), "one for one is no gain");
        assert_eq!(
            choice(&[10, 70], false),
            (vec![], 0),
            "mostly live ones stay"
        );
        assert_eq!(choice(&[49, 49], false), (vec![1, 2], 1));
        assert_eq!(choice(&[40, 1, 90, 2], false), (vec![2, 4, 1], 2));
        assert_eq!(choice(&[60, 60, 60], false), (vec![], 0));
        assert_eq!(choice(&[60, 60, 60], true), (vec![1, 2, 3], 1));
        let many = vec![1; 200];
        let (sources, gain) = choice(&many, false);
        assert_eq!((sources.len(), gain), (64, 63), "so many at once");
    }
}
