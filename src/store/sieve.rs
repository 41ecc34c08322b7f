//! The sieve: what single records go while segments are copied.
//!
//! ```text
//!   sources   [A0 A1 A2][A3 A4][A5 A6 A7]     A1, A3, A4, A5 are to go
//!   copies    [A0 .. A2]      [..  .. .. A6 A7]
//!                               the holes of a batch of which nothing is left stand in the next one
//! ```
//!
//! A topic about which there is a [`Verdict`] has its batches written anew
//! without what goes ([`thin`]): offsets stay, holes say why they are there.
//! Batches without such records, and those that cannot be read, are copied byte
//! for byte.
//!
//! 1. What comes out of a topic spans the offsets that went in, without a hole that
//!    nobody explains (C1 in `docs/storage-format.md`).
//! 2. What was taken away is noted by offset, so that the writer can tell what
//!    concerns offsets that are still there when it decides (C6).
//! 3. Nothing is noted of what was not written.

use std::collections::HashMap;

use bytes::Bytes;

use super::shared::Purges;
use crate::journal::{CheckedEntry, EntryHeader, JournalError};
use crate::limits;
use crate::protocol::batch::{BatchHeader, CheckedBatch, Removed, Thin, hollow, thin};
use crate::time::Timestamp;
use crate::topic::Topic;
use crate::topic::compaction::{Cleaning, Keyed};
use crate::types::{GapReason, Offset, TopicId};

/// What goes of a topic.
#[derive(Debug, Clone, Default)]
pub(super) struct Verdict {
    /// By compaction.
    pub cleaning: Option<Cleaning>,
    /// What has a time to live that is over by then.
    pub expired: Option<Timestamp>,
    /// By purges of keys.
    pub purges: Option<Purges>,
}

impl Verdict {
    /// Why a record goes, if it does.
    pub fn judge(&self, record: &Keyed<'_>, is_over: bool) -> Option<GapReason> {
        let mut purges = self.purges.iter().flat_map(|purges| purges.iter());
        if purges.any(|(_, purge)| purge.covers(record.at, record.key)) {
            return Some(GapReason::Purged);
        }
        if is_over {
            return Some(GapReason::Expired);
        }
        self.cleaning.as_ref()?.judge(record)
    }

    /// Whether the time of a batch is over.
    fn is_over(&self, header: &EntryHeader, batch: &CheckedBatch) -> bool {
        let end = batch.ttl().map(|ttl| header.append_time.after(ttl));
        end.zip(self.expired).is_some_and(|(end, now)| end <= now)
    }
}

/// The topics of which something goes.
#[derive(Debug, Clone, Default)]
pub(super) struct Sieve {
    verdicts: HashMap<TopicId, Verdict>,
}

impl Sieve {
    /// What goes of a topic, to be added to, if there is room for one more.
    pub fn of(&mut self, topic: TopicId) -> Option<&mut Verdict> {
        let is_known = self.verdicts.contains_key(&topic);
        let has_room = is_known || self.verdicts.len() < limits::SIFTED_TOPICS_MAX;
        has_room.then(|| self.verdicts.entry(topic).or_default())
    }
}

/// What a copy took out of a topic.
#[derive(Debug)]
pub(super) struct Sifted {
    pub topic: TopicId,
    /// Something went by compaction.
    pub is_compacted: bool,
    /// No batch at or above this was written anew.
    pub end: Offset,
    /// Offsets that lost their record, in order.
    holes: Vec<(u64, u64)>,
    /// By how much the bytes of batches changed, by the end of a batch.
    bytes: Vec<(u64, i64)>,
}

impl Sifted {
    fn new(topic: TopicId) -> Self {
        Self {
            topic,
            is_compacted: false,
            end: Offset::ZERO,
            holes: Vec::new(),
            bytes: Vec::new(),
        }
    }

    /// How many records it took at or above an offset.
    pub fn removed_from(&self, start: Offset) -> u64 {
        let part = |&(from, to): &(u64, u64)| to.saturating_sub(from.max(start.get()));
        self.holes.iter().map(part).sum()
    }

    /// By how much it changed the bytes of the batches that end above an offset.
    pub fn bytes_from(&self, start: Offset) -> i64 {
        let above = self.bytes.iter().filter(|(end, _)| *end > start.get());
        above.map(|(_, bytes)| bytes).sum()
    }

    /// What it took is counted no more by its topic; how many records and bytes that was of what still lives.
    pub fn count_off(&self, topic: &mut Topic) -> (u64, i64) {
        let start = topic.row.start;
        let (records, bytes) = (self.removed_from(start), self.bytes_from(start));
        topic.take_away(records, bytes, self.end);
        (records, bytes)
    }

    fn hole(&mut self, at: u64) {
        match self.holes.last_mut() {
            Some(last) if last.1 == at => last.1 = at + 1,
            _ => self.holes.push((at, at + 1)),
        }
    }

    fn changed(&mut self, end: u64, by: i64) {
        match self.bytes.last_mut() {
            Some(last) if last.0 == end => last.1 += by,
            _ => self.bytes.push((end, by)),
        }
    }

    fn noted(&self) -> usize {
        self.holes.len() + self.bytes.len()
    }
}

/// Holes of batches of which nothing is left, for the next batch of their topic.
struct Waiting {
    /// The entry of the last of them, with the first offset of them all.
    header: EntryHeader,
    like: BatchHeader,
    holes: Vec<Removed>,
}

impl Waiting {
    fn is_before(&self, next: &EntryHeader) -> bool {
        let span = next.end_number().saturating_sub(self.header.number);
        self.header.topic == next.topic
            && self.header.end_number() == next.number
            && span <= u64::from(limits::THINNED_SPAN_MAX)
            && self.holes.len() < limits::LEADING_HOLES_MAX
    }
}

/// Takes the entries of a copy, topic by topic and in order, and gives on what stays.
#[derive(Default)]
pub(super) struct Sifting {
    sieve: Sieve,
    waiting: Option<Waiting>,
    sifted: Vec<Sifted>,
    /// What of other topics is noted already.
    noted: usize,
    /// There was no room to note more: something that was to go is still there.
    pub is_partial: bool,
}

/// Takes an entry that is to be written.
pub(super) type Push<'a> = dyn FnMut(&EntryHeader, &[u8]) -> Result<(), JournalError> + 'a;

impl Sifting {
    pub fn new(sieve: Sieve) -> Self {
        Self {
            sieve,
            ..Self::default()
        }
    }

    /// Takes the next entry; gives on what can be written now.
    pub fn sift(
        &mut self,
        entry: &CheckedEntry<'_>,
        push: &mut Push<'_>,
    ) -> Result<(), JournalError> {
        if !(self.waiting.as_ref()).is_some_and(|waiting| waiting.is_before(&entry.header)) {
            self.flush(push)?;
        }
        if !self.thin(entry, push)? {
            self.flush(push)?;
            push(&entry.header, entry.payload)?;
        }
        Ok(())
    }

    /// Gives on what waits for a batch that does not come.
    pub fn flush(&mut self, push: &mut Push<'_>) -> Result<(), JournalError> {
        let Some(waiting) = self.waiting.take() else {
            return Ok(());
        };
        let batch = hollow(&waiting.holes, &waiting.like);
        let batch = batch.expect("bounded when it was put together");
        self.write(waiting.header, &batch, push)
    }

    /// What was taken away, by topic.
    pub fn into_sifted(self) -> Vec<Sifted> {
        let mut sifted = self.sifted;
        sifted.retain(|of| of.noted() > 0);
        sifted
    }

    /// False: the entry is to be copied as it is.
    fn thin(
        &mut self,
        entry: &CheckedEntry<'_>,
        push: &mut Push<'_>,
    ) -> Result<bool, JournalError> {
        let header = entry.header;
        let Some(verdict) = self.sieve.verdicts.get(&header.topic) else {
            return Ok(false);
        };
        let Ok(batch) = CheckedBatch::check_crc(Bytes::copy_from_slice(entry.payload)) else {
            return Ok(false);
        };
        let is_over = verdict.is_over(&header, &batch);
        let mut gone: Vec<(u64, GapReason)> = Vec::new();
        let leading = self.waiting.as_ref().map(|waiting| &waiting.holes[..]);
        let thinned = thin(leading.unwrap_or_default(), &batch, |delta, record| {
            let at = header.number + u64::from(delta);
            let keyed = Keyed {
                at: Offset::new(at),
                appended: header.append_time,
                key: record.key,
                is_empty: record.value.is_empty(),
            };
            let reason = verdict.judge(&keyed, is_over);
            gone.extend(reason.map(|reason| (at, reason)));
            reason
        });
        let thinned = match thinned {
            Ok(Thin::Whole) => return Ok(false),
            Ok(thinned) => thinned,
            // With what waits it would be too large.
            Err(_) if self.waiting.is_some() => {
                self.flush(push)?;
                return self.thin(entry, push);
            }
            Err(_) => {
                self.is_partial |= !gone.is_empty();
                return Ok(false);
            }
        };
        if self.is_full(header.topic) {
            self.is_partial |= !gone.is_empty();
            return Ok(false);
        }
        self.note(&header, &gone);
        let from = self.waiting.take();
        let first = from.map_or(header.number, |waiting| waiting.header.number);
        let whole = EntryHeader {
            number: first,
            records: u32::try_from(header.end_number() - first)
                .expect("bounded when it was joined"),
            ..header
        };
        match thinned {
            Thin::Rest { batch, .. } => self.write(whole, &batch, push)?,
            Thin::Nothing { holes, .. } => {
                self.waiting = Some(Waiting {
                    header: whole,
                    like: *batch.header(),
                    holes,
                });
            }
            Thin::Whole => {}
        }
        Ok(true)
    }

    fn write(
        &mut self,
        header: EntryHeader,
        batch: &Bytes,
        push: &mut Push<'_>,
    ) -> Result<(), JournalError> {
        let of = self.of(header.topic);
        of.changed(header.end_number(), batch.len() as i64);
        of.end = of.end.max(Offset::new(header.end_number()));
        let crc = batch.first_chunk().map(|crc| u32::from_le_bytes(*crc));
        let header = EntryHeader {
            payload_bytes: u32::try_from(batch.len()).expect("a batch is bounded"),
            payload_crc: crc.expect("a batch has a header"),
            ..header
        };
        push(&header, batch)
    }

    fn note(&mut self, header: &EntryHeader, gone: &[(u64, GapReason)]) {
        let of = self.of(header.topic);
        of.changed(header.end_number(), -i64::from(header.payload_bytes));
        of.is_compacted |= (gone.iter()).any(|(_, reason)| *reason == GapReason::Compacted);
        gone.iter().for_each(|(at, _)| of.hole(*at));
    }

    fn is_full(&self, topic: TopicId) -> bool {
        let last = self.sifted.last();
        let (here, others) = match last {
            Some(last) if last.topic == topic => (last.noted(), self.noted),
            last => (0, self.noted + last.map_or(0, Sifted::noted)),
        };
        here + others >= limits::SIFTED_MAX
    }

    /// The notes of a topic; entries come topic by topic.
    fn of(&mut self, topic: TopicId) -> &mut Sifted {
        if self.sifted.last().is_none_or(|last| last.topic != topic) {
            self.noted += self.sifted.last().map_or(0, Sifted::noted);
            self.sifted.push(Sifted::new(topic));
        }
        self.sifted.last_mut().expect("pushed just now")
    }
}
