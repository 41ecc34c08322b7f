//! Reading what may be given out, before it is known what will be.

use std::sync::Arc;

use super::Desks;
use super::desk::Desk;
use super::unpacked::AsOf;
use crate::limits;
use crate::protocol::batch::{BatchHeader, CheckedBatch, OpenedBatch};
use crate::protocol::data::{FetchItem, StoredBatch};
use crate::protocol::error::ApiError;
use crate::types::Offset;

/// What an attempt began with.
pub(super) struct Plan {
    pub again: Vec<(Offset, Offset)>,
    pub new: Option<Offset>,
    pub new_first: bool,
    pub records: u64,
    pub ordered: bool,
}

/// A batch of which something may be given out.
pub(super) struct Found {
    pub stored: StoredBatch,
    pub count: u32,
    pub opened: Option<Arc<OpenedBatch>>,
    pub wanted: Wanted,
    /// When it was read.
    pub read: AsOf,
}

pub(super) enum Wanted {
    /// These, which come again.
    Again(Vec<(Offset, Offset)>),
    /// From the cursor on, at most so many.
    New(u64),
}

/// What was read.
#[derive(Default)]
pub(super) struct Reading {
    pub found: Vec<Found>,
    /// Known records that are not there any more.
    pub lost: Vec<(Offset, Offset)>,
    /// Between these offsets, at the cursor or behind records found, there is nothing.
    pub passes: Vec<(Offset, Offset)>,
    /// Bytes of batches, as far as they may be given out.
    pub bytes: usize,
    pub records: u64,
}

impl Desks {
    /// Records that come again.
    pub(super) async fn read_again(
        &self,
        desk: &Desk,
        plan: &Plan,
        bytes: usize,
        reading: &mut Reading,
    ) -> Result<(), ApiError> {
        let (mut left, mut at) = (&plan.again[..], Offset::ZERO);
        for _ in 0..limits::CONSUMER_READS_MAX {
            let Some(&(from, to)) = left.first() else {
                return Ok(());
            };
            let from = from.max(at);
            let room = bytes.saturating_sub(reading.bytes);
            if room == 0 && reading.bytes > 0 {
                return Ok(());
            }
            // Of a single record just its batch: the next one chosen may lie far behind.
            let wanted = match to.since(from) {
                1 => 1,
                _ => room.clamp(1, limits::BATCH_BYTES_TARGET),
            };
            let as_of = self.unpacked.as_of();
            let read = self.store.stretch(desk.topic, from, wanted).await?;
            for item in read.items {
                let (first, end) = span(&item);
                let inside: Vec<(Offset, Offset)> = left
                    .iter()
                    .filter(|(from, to)| *from < end && *to > first)
                    .map(|(from, to)| ((*from).max(first), (*to).min(end)))
                    .collect();
                match item {
                    FetchItem::Gap(_) => reading.lost.extend(inside),
                    FetchItem::Batch(stored) => {
                        let wanted: u64 = inside.iter().map(|(from, to)| to.since(*from)).sum();
                        let count = u32::try_from(end.since(first)).unwrap_or(u32::MAX);
                        let part = wanted.min(count.into()) as usize;
                        reading.bytes += stored.batch.len() * part / (count.max(1) as usize);
                        reading.records += wanted;
                        reading.found.push(Found {
                            stored,
                            count,
                            opened: None,
                            wanted: Wanted::Again(inside),
                            read: as_of,
                        });
                    }
                }
            }
            if read.next <= from {
                return Ok(());
            }
            at = read.next;
            let done = left.iter().take_while(|(_, to)| *to <= at).count();
            left = &left[done..];
        }
        Ok(())
    }

    /// New records, from the cursor on.
    pub(super) async fn read_new(
        &self,
        desk: &Desk,
        plan: &Plan,
        bytes: usize,
        reading: &mut Reading,
    ) -> Result<(), ApiError> {
        let Some(cursor) = plan.new else {
            return Ok(());
        };
        let mut records = plan.records.saturating_sub(reading.records);
        let mut room = bytes.saturating_sub(reading.bytes);
        if records == 0 || (room == 0 && reading.bytes > 0) {
            return Ok(());
        }
        let as_of = self.unpacked.as_of();
        let read = self.store.stretch(desk.topic, cursor, room.max(1)).await?;
        for item in read.items {
            let (first, end) = span(&item);
            let stored = match item {
                FetchItem::Gap(gap) => {
                    reading.passes.push((gap.from, gap.to));
                    continue;
                }
                FetchItem::Batch(stored) => stored,
            };
            if records == 0 {
                break;
            }
            let mut found = Found {
                count: u32::try_from(end.since(first)).unwrap_or(u32::MAX),
                opened: None,
                wanted: Wanted::New(records),
                stored,
                read: as_of,
            };
            let length = found.stored.batch.len();
            if plan.ordered || length > room {
                found.opened = self.opened(desk, (&found.stored, found.read));
                let Some(opened) = &found.opened else {
                    // It cannot be unpacked, whatever its checksum says.
                    reading.passes.push((first.max(cursor), end));
                    continue;
                };
                let from = u32::try_from(cursor.since(first)).unwrap_or(0);
                let fitting =
                    u64::from(opened.fitting(from.min(found.count.saturating_sub(1)), room));
                if length > room {
                    found.wanted = Wanted::New(records.min(fitting));
                }
            }
            let ahead = end.since(first.max(cursor));
            reading.bytes += length.min(room);
            room = room.saturating_sub(length);
            reading.records += ahead.min(records);
            records = records.saturating_sub(ahead);
            reading.found.push(found);
        }
        Ok(())
    }

    /// A batch, unpacked; kept for a while, for what is left of it is asked for next.
    pub(super) fn opened(
        &self,
        desk: &Desk,
        (stored, read): (&StoredBatch, AsOf),
    ) -> Option<Arc<OpenedBatch>> {
        let key = (desk.topic, stored.base_offset);
        if let Some(opened) = self.unpacked.get(key) {
            return Some(opened);
        }
        let checked = CheckedBatch::check_crc(stored.batch.clone());
        let opened = checked.and_then(|batch| OpenedBatch::open(&batch));
        match opened {
            Ok(opened) => Some(self.unpacked.keep(key, Arc::new(opened), read)),
            Err(error) => {
                let (topic, offset) = (desk.topic, stored.base_offset);
                tracing::error!(%topic, %offset, %error, "a stored batch cannot be unpacked");
                None
            }
        }
    }
}

/// The offsets of an item.
pub(in crate::peer) fn span(item: &FetchItem) -> (Offset, Offset) {
    match item {
        FetchItem::Gap(gap) => (gap.from, gap.to),
        FetchItem::Batch(stored) => {
            let header = BatchHeader::parse_prefix(&stored.batch);
            let count = header.map_or(0, |header| header.record_count);
            let base = stored.base_offset;
            (base, base.saturating_add(count.into()))
        }
    }
}
