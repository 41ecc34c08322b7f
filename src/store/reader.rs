//! Reading: from an offset on, in order, without a hole (J9).
//!
//! What the tail cache has is handed out as slices of the groups that were
//! written; the rest comes from the disk, checked entry by entry. Offsets that
//! are missing are a gap or an error, never passed over. What leaves here is plain
//! batches: thinned ones, and those whose time is over, become what they
//! [stand for](super::told).

use std::ops::Range;
use std::time::Instant;

use bytes::Bytes;

use super::index::Place as Where;
use super::segments::Segment;
use super::shared::{Purges, Shared, TopicShared};
use super::together::{self, Together};
use super::told::{concern, is_plain, told};
use super::windows;
use crate::journal::{
    ENTRY_HEADER_BYTES, Extent, ExtentRead, JournalError, Listing, Piece, Place, StoredEntry,
    Stretch, read_extent, read_from_group,
};
use crate::limits;
use crate::protocol::batch::{BatchHeader, Piece as Part};
use crate::protocol::data::{FetchItem, StoredBatch};
use crate::protocol::error::ApiError;
use crate::types::{Gap, GapReason, Offset};

/// What to read.
#[derive(Debug, Clone, Copy)]
pub(super) struct ReadRequest {
    pub from: Offset,
    /// Most bytes of batches, all together; the first batch comes whatever its size.
    pub max_bytes: usize,
    /// Tell damage as a gap instead of an error.
    pub pass_damage: bool,
    /// Only look into memory.
    pub memory_only: bool,
    /// Batches as they lie, thinned or over: for whoever wants to know when they were appended.
    pub as_stored: bool,
}

/// What was read.
#[derive(Debug)]
pub(super) struct ReadResult {
    pub items: Vec<FetchItem>,
    pub next: Offset,
    /// Records in it.
    pub records: u64,
    pub bytes: usize,
    /// There is more, and waiting for still more does not bring it.
    pub is_full: bool,
    /// The purges of keys it took into account.
    pub purges: Purges,
}

/// Why nothing was read.
pub(super) enum ReadError {
    /// It is on the disk, and only memory was to be looked at.
    NotInMemory,
    /// The answer is an error.
    Api(ApiError),
}

impl From<ApiError> for ReadError {
    fn from(error: ApiError) -> Self {
        Self::Api(error)
    }
}

/// Where the walk over a topic stands.
struct Reading<'a> {
    shared: &'a Shared,
    topic: &'a TopicShared,
    purges: Purges,
    request: ReadRequest,
    end: Offset,
    at: Offset,
    items: Vec<FetchItem>,
    records: u64,
    bytes: usize,
    /// Bytes of what was read and is told as a gap.
    passed: usize,
    is_full: bool,
    together: Together,
    /// Of the segment read last, by its number.
    listing: Option<(u64, Listing)>,
    /// Extents that were in memory, and those that had to be read.
    hits: u64,
    misses: u64,
}

/// Reads records of `topic` up to its readable end.
pub(super) fn read(
    shared: &Shared,
    topic: &TopicShared,
    request: ReadRequest,
) -> Result<ReadResult, ReadError> {
    let (start, end) = (topic.start(), topic.readable_end());
    if request.from > end {
        return Err(ApiError::OffsetOutOfRange {
            requested: request.from,
            start,
            end,
        }
        .into());
    }
    let mut reading = Reading {
        end,
        ..Reading::new(shared, topic, request)
    };
    if reading.at < start {
        reading.gap(start, GapReason::Discarded);
    }
    let gaps = topic.gaps();
    while reading.at < end && !reading.is_full {
        if let Some(gap) = gaps
            .iter()
            .find(|gap| gap.from <= reading.at && reading.at < gap.to)
        {
            reading.gap(gap.to, gap.reason);
            continue;
        }
        match reading.step() {
            Ok(true) => {}
            Ok(false) => break,
            // What was found so far is an answer; the error comes with the next request.
            Err(_) if !reading.items.is_empty() => {
                reading.is_full = true;
                break;
            }
            Err(error) => return Err(error),
        }
    }
    shared.meters.looked_up(reading.hits, reading.misses);
    if reading.bytes <= limits::ANSWER_COPIED_BYTES_MAX {
        copy(&mut reading.items);
    }
    Ok(ReadResult {
        items: reading.items,
        next: reading.at,
        records: reading.records,
        bytes: reading.bytes,
        is_full: reading.is_full,
        purges: reading.purges,
    })
}

impl<'a> Reading<'a> {
    fn new(shared: &'a Shared, topic: &'a TopicShared, request: ReadRequest) -> Self {
        Self {
            shared,
            topic,
            purges: topic.purges(),
            request,
            end: topic.readable_end(),
            at: request.from,
            items: Vec::new(),
            records: 0,
            bytes: 0,
            passed: 0,
            is_full: false,
            together: Together::default(),
            listing: None,
            hits: 0,
            misses: 0,
        }
    }
}

impl Reading<'_> {
    fn gap(&mut self, to: Offset, reason: GapReason) {
        let gap = Gap {
            from: self.at,
            to,
            reason,
        };
        match self.items.last_mut() {
            Some(FetchItem::Gap(last)) if last.to == gap.from && last.reason == reason => {
                last.to = to
            }
            _ => self.items.push(FetchItem::Gap(gap)),
        }
        self.at = to;
    }

    /// Reads the extent at the current offset. False: it is time to stop.
    fn step(&mut self) -> Result<bool, ReadError> {
        let place = self.topic.index().find(self.at);
        match place {
            Where::Open(open) => match self.pieces(open.segment, open.extent)? {
                Some(pieces) => self.take(pieces),
                None => self.moved(open.segment, open.extent.end()),
            },
            Where::Sealed { segment, next } => self.sealed(segment, next),
            Where::Nowhere { next } => self.damaged(next.unwrap_or(self.end)),
        }
    }

    fn sealed(&mut self, number: u64, next: Option<Offset>) -> Result<bool, ReadError> {
        let next = next.unwrap_or(self.end);
        // A segment that was just replaced is found in another place the next time.
        let Some(segment) = self.shared.segments.get(number) else {
            return self.moved(number, next);
        };
        if self.request.memory_only {
            return Err(ReadError::NotInMemory);
        }
        let listing = match self.listing(&segment) {
            Ok(Some(listing)) => listing,
            Ok(None) => return self.damaged(next),
            Err(error) => return self.unreadable(&segment, &error, next),
        };
        // The extent that holds the offset, or the next one after it.
        let found = listing.from(self.at).next();
        let holding = found.filter(|extent| extent.base <= self.at);
        if holding.is_some_and(|extent| self.is_enough_before(&extent)) {
            return Ok(false);
        }
        let pieces = holding.map(|extent| self.pieces_from_disk(&segment, extent, Some(&listing)));
        let is_sound = || match &pieces {
            Some(Ok(pieces)) => !pieces.iter().any(|p| matches!(p, Piece::Damaged { .. })),
            Some(Err(_)) | None => false,
        };
        if !listing.is_checked() && !is_sound() {
            // It may be the footer that is wrong. With the whole of it that is known.
            return match self.check_listing(&segment) {
                Ok(true) => self.sealed(number, Some(next)),
                Ok(false) => self.damaged(next),
                Err(error) => self.unreadable(&segment, &error, next),
            };
        }
        match pieces {
            Some(pieces) => self.take(pieces?),
            None => self.damaged(found.map_or(next, |extent| extent.base.min(next))),
        }
    }

    /// What a segment holds of the topic. `None`: it is not sealed.
    fn listing(&mut self, segment: &Segment) -> Result<Option<Listing>, JournalError> {
        if let Some((of, listing)) = &self.listing
            && *of == segment.number
        {
            return Ok(Some(listing.clone()));
        }
        let (segments, dir) = (&self.shared.segments, &self.shared.dir);
        let listing = match segments.listing(segment, dir, self.topic.id) {
            // What it says of this topic may be intact.
            Err(error) if error.is_damage() => {
                report_footer(self.shared, segment, &error);
                let part = segments.part(segment, dir, self.topic.id);
                Some(part.ok_or(error)?)
            }
            listing => listing?,
        };
        self.listing = listing.clone().map(|listing| (segment.number, listing));
        Ok(listing)
    }

    /// Reads the whole footer, so that what it does not list is missing. False: it is not sealed.
    fn check_listing(&mut self, segment: &Segment) -> Result<bool, JournalError> {
        self.together = Together::default();
        let (segments, dir) = (&self.shared.segments, &self.shared.dir);
        let footer = segments.footer(segment, dir)?;
        self.listing = footer.map(|footer| (segment.number, footer.listing(self.topic.id)));
        Ok(self.listing.is_some())
    }

    /// The index named a segment that is gone by now: freed, or replaced by a cold one.
    fn moved(&mut self, number: u64, next: Offset) -> Result<bool, ReadError> {
        if self.topic.is_elsewhere(self.at, number) {
            return Ok(true);
        }
        // It is not listed as readable at all: its slot holds something else.
        self.damaged(next)
    }

    /// An extent is read as a whole. One of which only a part would go into this answer is left to the next,
    /// or most of what a catch-up reads would be read twice.
    fn is_enough_before(&mut self, extent: &Extent) -> bool {
        let (bytes, max) = (self.bytes, self.request.max_bytes);
        let all = usize::try_from(extent.payload_bytes()).unwrap_or(usize::MAX);
        let is_enough = bytes > 0 && bytes >= max / 2 && bytes.saturating_add(all) > max;
        self.is_full |= is_enough;
        is_enough
    }

    /// `None`: the segment is gone.
    fn pieces(&mut self, segment: u64, extent: Extent) -> Result<Option<Vec<Piece>>, ReadError> {
        let read = ExtentRead {
            topic: self.topic.id,
            extent,
            from: self.at,
        };
        if let Some(pieces) = pieces_from_memory(self.shared, segment, &read) {
            self.hits += 1;
            return Ok(Some(pieces));
        }
        if self.request.memory_only {
            return Err(ReadError::NotInMemory);
        }
        if self.is_enough_before(&extent) {
            return Ok(Some(Vec::new()));
        }
        match self.shared.segments.get(segment) {
            Some(segment) => self.pieces_from_disk(&segment, extent, None).map(Some),
            None => Ok(None),
        }
    }

    fn pieces_from_disk(
        &mut self,
        segment: &Segment,
        extent: Extent,
        listing: Option<&Listing>,
    ) -> Result<Vec<Piece>, ReadError> {
        let read = ExtentRead {
            topic: self.topic.id,
            extent,
            from: self.at,
        };
        let (segment_number, position) = (segment.number, extent.position);
        if let Some(pieces) = self.together.take(segment_number, position) {
            self.misses += 1;
            return Ok(pieces);
        }
        if let Some(window) = self.shared.windows.get(segment.number, &extent) {
            return Ok(window.pieces(&segment.header, &read));
        }
        let range = match listing {
            Some(listing) => windows::range(listing.from(extent.base)),
            None => extent.range(),
        };
        self.misses += 1;
        let alone = listing.filter(|_| range == extent.range());
        if let Some(listing) = alone
            && self.together.is_worth_it()
        {
            self.read_together(segment, listing, extent.base);
            if let Some(pieces) = self.together.take(segment_number, position) {
                return Ok(pieces);
            }
        }
        let began = Instant::now();
        let pieces = pieces_of_window(self.shared, segment, &read, range);
        if alone.is_some() {
            self.together.took(began.elapsed());
        }
        pieces.map_err(|error| {
            tracing::error!(segment = segment.number, %error, "cannot read a segment");
            ApiError::Damaged {
                from: self.at,
                to: extent.end(),
            }
            .into()
        })
    }

    fn read_together(&mut self, segment: &Segment, listing: &Listing, from: Offset) {
        let (shared, topic) = (self.shared, self.topic.id);
        let left = self.request.max_bytes.saturating_sub(self.bytes);
        let extents = together::alone(listing, from, left);
        if extents.len() < 2 {
            return;
        }
        let read = |extent: Extent| {
            let read = ExtentRead {
                topic,
                extent,
                from: extent.base,
            };
            pieces_of_window(shared, segment, &read, extent.range()).ok()
        };
        self.together
            .read(&shared.read_helpers, segment.number, &extents, read);
    }

    /// Takes pieces up to the readable end and the wanted bytes. False: stop here.
    fn take(&mut self, pieces: Vec<Piece>) -> Result<bool, ReadError> {
        let before = self.at;
        for piece in pieces {
            if self.at >= self.end {
                return Ok(false);
            }
            match piece {
                Piece::Entry(entry) => {
                    let to = Offset::new(entry.header.end_number());
                    if to <= self.at {
                        continue;
                    }
                    if to > self.end {
                        return Ok(false);
                    }
                    let is_plain = is_plain(&entry.payload) && !concern(&self.purges, &entry);
                    let goes_on = match self.request.as_stored || is_plain {
                        true => self.batch(stored(entry), to),
                        false => self.special(&entry)?,
                    };
                    if !goes_on {
                        return Ok(false);
                    }
                }
                Piece::Damaged { to, .. } if to <= self.at => {}
                Piece::Damaged { to, .. } => _ = self.damaged(to)?,
            }
        }
        Ok(self.at > before)
    }

    /// Takes a batch that ends at `to`. False: it is left to the next answer.
    fn batch(&mut self, stored: StoredBatch, to: Offset) -> bool {
        let bytes = self.bytes + stored.batch.len();
        if self.bytes > 0 && bytes > self.request.max_bytes {
            self.is_full = true;
            return false;
        }
        self.bytes = bytes;
        self.records += to.since(stored.base_offset);
        self.items.push(FetchItem::Batch(stored));
        self.at = to;
        true
    }

    /// Takes what a batch that is thinned, or has a time to live, stands for.
    fn special(&mut self, entry: &StoredEntry) -> Result<bool, ReadError> {
        let (before, end) = (self.bytes, Offset::new(entry.header.end_number()));
        let parts = match told(entry, &self.purges, || self.shared.trusted_now()) {
            Ok(parts) => parts,
            Err(error) => {
                let (topic, offset) = (self.topic.id, entry.header.number);
                tracing::error!(%topic, offset, %error, "a stored batch contradicts itself");
                return self.damaged(end);
            }
        };
        for part in parts {
            if self.items.len() >= limits::READ_ITEMS_MAX {
                self.is_full = true;
                return Ok(false);
            }
            match part {
                Part::Gap(gap) if gap.to <= self.at => {}
                Part::Gap(gap) => self.gap(gap.to, gap.reason),
                Part::Batch(base_offset, batch) => {
                    let count = BatchHeader::parse_prefix(&batch).map_or(0, |h| h.record_count);
                    let to = base_offset.saturating_add(count.into());
                    let stored = StoredBatch {
                        base_offset,
                        epoch: entry.header.epoch,
                        append_time: entry.header.append_time,
                        batch,
                    };
                    if to > self.at && !self.batch(stored, to) {
                        return Ok(false);
                    }
                }
            }
        }
        debug_assert_eq!(self.at, end, "what is told covers what there was");
        if self.bytes == before {
            self.passed += entry.payload.len() + ENTRY_HEADER_BYTES;
        }
        // Of what is gone there may be any amount: whoever waits for an answer is told how far it was looked through.
        self.is_full |= self.passed >= limits::READ_PASSED_BYTES_MAX;
        Ok(!self.is_full)
    }

    /// Offsets up to `to` cannot be had.
    fn damaged(&mut self, to: Offset) -> Result<bool, ReadError> {
        let start = self.topic.start();
        if self.at < start {
            // They were discarded while this read was under way, and their segment with them.
            self.gap(start, GapReason::Discarded);
            return Ok(true);
        }
        if self.shared.topic(self.topic.id).is_none() {
            return Err(ApiError::UnknownTopicId { id: self.topic.id }.into());
        }
        let to = to.min(self.end).max(self.at.next());
        if self.request.pass_damage {
            self.gap(to, GapReason::Damaged);
            return Ok(true);
        }
        if self.items.is_empty() {
            let name = self.topic.id;
            self.shared.report_damage(format!(
                "topic id {name}: offsets [{}, {to}) cannot be read",
                self.at
            ));
        }
        Err(ApiError::Damaged { from: self.at, to }.into())
    }

    fn unreadable(
        &mut self,
        segment: &Segment,
        error: &JournalError,
        next: Offset,
    ) -> Result<bool, ReadError> {
        if !error.is_damage() {
            // It passes. Told as a gap it would be gone for good for whoever asked.
            tracing::error!(segment = segment.number, %error, "cannot read a footer now");
            let (from, to) = (self.at, next);
            return Err(ApiError::Damaged { from, to }.into());
        }
        report_footer(self.shared, segment, error);
        self.damaged(next)
    }
}

fn report_footer(shared: &Shared, segment: &Segment, error: &JournalError) {
    let number = segment.number;
    shared.report_damage(format!(
        "segment {number}: its footer cannot be read: {error}"
    ));
}

/// Pieces of an extent in a group that is still in memory.
pub(super) fn pieces_from_memory(
    shared: &Shared,
    segment: u64,
    read: &ExtentRead,
) -> Option<Vec<Piece>> {
    let place = Place::new(segment, read.extent.position);
    read_from_group(&shared.tail.get(place)?, read)
}

/// Pieces of an extent, out of a window that is read for it and kept for those who come next.
fn pieces_of_window(
    shared: &Shared,
    segment: &Segment,
    read: &ExtentRead,
    range: Range<u32>,
) -> Result<Vec<Piece>, JournalError> {
    let slot = segment.slot(&shared.dir)?;
    let length = range.end - range.start;
    let how = (segment.via(length), &shared.read_buffers);
    let window = match Stretch::read(&slot, range, how) {
        Ok(window) => window,
        // What follows may lie where the device cannot read, which is not this extent's fault.
        Err(_) if length > read.extent.length => Stretch::read(&slot, read.extent.range(), how)?,
        Err(error) => return Err(error),
    };
    let pieces = window.pieces(&segment.header, read);
    for window in shared.windows.keep(segment.number, window) {
        shared.read_buffers.give(window.into_buffer());
    }
    Ok(pieces)
}

/// Pieces of an extent, read from the segment's slot and checked.
pub(super) fn pieces_from_disk(
    shared: &Shared,
    segment: &Segment,
    read: &ExtentRead,
) -> Result<Vec<Piece>, JournalError> {
    let slot = segment.slot(&shared.dir)?;
    let how = (segment.via(read.extent.length), &shared.read_buffers);
    read_extent(&slot, &segment.header, read, how)
}

/// Copies what is not copied yet. A slice keeps the whole group or window it lies in in memory for as long as its reader
/// takes: the less an answer is, the more that is than what its reader was granted.
fn copy(items: &mut [FetchItem]) {
    for item in items {
        if let FetchItem::Batch(stored) = item
            && stored.batch.len() > limits::SLICE_COPIED_BYTES_MAX
        {
            stored.batch = Bytes::copy_from_slice(&stored.batch);
        }
    }
}

/// A small batch is copied, also in a large answer, for the same reason.
fn stored(entry: StoredEntry) -> StoredBatch {
    let batch = match entry.payload.len() {
        small if small <= limits::SLICE_COPIED_BYTES_MAX => Bytes::copy_from_slice(&entry.payload),
        _ => entry.payload,
    };
    StoredBatch {
        base_offset: Offset::new(entry.header.number),
        epoch: entry.header.epoch,
        append_time: entry.header.append_time,
        batch,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::listings::striped;
    use crate::store::tests::{batch, create, open, publish};
    use crate::types::Durability;

    /// A group that shares the topic would have settled all of it.
    #[tokio::test]
    async fn what_cannot_be_read_now_is_no_gap() {
        let dir = tempfile::tempdir().expect("a scratch directory");
        let (store, _) = open(dir.path());
        let id = create(&store, "a", Durability::Fsync).await;
        publish(&store, id, batch(1, 0, &[b"x"])).await;
        let topic = store.shared.topic(id).expect("made");
        let segment = store.shared.segments.all().pop().expect("one");
        let request = ReadRequest {
            from: Offset::ZERO,
            max_bytes: 1000,
            pass_damage: true,
            memory_only: false,
            as_stored: false,
        };
        for (errno, is_gap) in [
            (rustix::io::Errno::NFILE, false),
            (rustix::io::Errno::IO, true),
        ] {
            let mut reading = Reading::new(&store.shared, &topic, request);
            let source = std::io::Error::from_raw_os_error(errno.raw_os_error());
            let error = JournalError::io("open", dir.path())(source);
            let told = reading.unreadable(&segment, &error, Offset::new(1));
            assert_eq!(
                (told.is_ok(), reading.items.len()),
                (is_gap, usize::from(is_gap))
            );
        }
        store.stop().expect("a clean stop");
    }

    /// Records that lie apart are read at the same time, and come as if they had been read one by one.
    #[tokio::test]
    async fn what_is_read_together_is_what_was_read_alone() {
        let dir = tempfile::tempdir().expect("a scratch directory");
        let (store, ids) = striped(dir.path()).await;
        let topic = store.shared.topic(ids[1]).expect("made");
        let request = ReadRequest {
            from: Offset::new(17),
            max_bytes: 200_000,
            pass_damage: false,
            memory_only: false,
            as_stored: false,
        };
        let Ok(alone) = read(&store.shared, &topic, request) else {
            panic!("it can be read");
        };
        let mut reading = Reading::new(&store.shared, &topic, request);
        let mut most = 0;
        while !reading.is_full && reading.at < alone.next {
            // However fast this disk is.
            reading.together.took(limits::READ_TAKES_A_DISK);
            assert!(matches!(reading.step(), Ok(true)));
            most = most.max(reading.together.at_hand());
        }
        assert_eq!(most, limits::READ_TOGETHER_MAX - 1);
        assert_eq!(reading.items, alone.items);
        assert_eq!((reading.at, reading.bytes), (alone.next, alone.bytes));
        store.stop().expect("a clean stop");
    }
}
