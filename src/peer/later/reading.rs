//! Reading a companion: what is new in it, and the messages that are due.

use std::sync::Arc;

use bytes::Bytes;

use super::Later;
use super::mover::Mover;
use crate::limits;
use crate::peer::consumers::reading::span;
use crate::peer::consumers::unpacked::AsOf;
use crate::protocol::batch::{CheckedBatch, Header, OpenedBatch, RecordRef, RecordToSend};
use crate::protocol::data::{FetchItem, StoredBatch};
use crate::protocol::error::ApiError;
use crate::time::Timestamp;
use crate::topic::later::{Due, NUMBER, Pending, Told};
use crate::types::{IdDigest, Offset};

/// A message as it lies in its companion.
#[derive(Debug, Clone)]
pub(super) struct Letter {
    pub due: Due,
    pub timestamp: Timestamp,
    pub key: Option<Bytes>,
    pub headers: Vec<Header>,
    pub value: Bytes,
}

impl Letter {
    fn of(due: Due, record: &RecordRef<'_>) -> Self {
        let headers = record.headers().map(|(name, value)| Header {
            name: name.to_owned(),
            value: Bytes::copy_from_slice(value),
        });
        Self {
            due,
            timestamp: record.timestamp,
            key: record.key.map(Bytes::copy_from_slice),
            headers: headers.collect(),
            value: Bytes::copy_from_slice(record.value),
        }
    }

    /// As its target gets it: without the number it had where it waited.
    pub fn delivered(mut self) -> Self {
        self.headers.retain(|header| header.name != NUMBER);
        self
    }

    /// As it lies in its companion anew: with its number.
    pub fn moved(mut self) -> Self {
        self.headers.retain(|header| header.name != NUMBER);
        let header = Header {
            name: NUMBER.to_owned(),
            value: Bytes::from(self.due.number.to_string()),
        };
        self.headers.insert(0, header);
        self
    }

    /// What goes into a batch.
    pub fn to_send(&self) -> RecordToSend<'_> {
        RecordToSend {
            timestamp: self.timestamp,
            key: self.key.as_deref(),
            headers: &self.headers,
            value: &self.value,
        }
    }

    /// Its id, if it has one.
    pub fn id(&self) -> Option<&[u8]> {
        let is_id = |header: &&Header| header.name == limits::MESSAGE_ID_HEADER;
        let header = self.headers.iter().find(is_id)?;
        Some(&header.value)
    }
}

fn pending(record: &RecordRef<'_>) -> Pending {
    let mut headers = record.headers();
    let id = headers.find(|(name, _)| *name == limits::MESSAGE_ID_HEADER);
    Pending {
        bytes: u32::try_from(record.message_bytes()).unwrap_or(u32::MAX),
        id: id.map(|(_, id)| IdDigest::of(id)),
    }
}

impl Later {
    /// Takes in what is readable of a companion by now. The caller has the turn.
    pub(super) async fn take_in(&self, mover: &Mover) -> Result<(), ApiError> {
        let (start, end) = self.store.range_of(mover.companion)?;
        let gone = mover.lock().schedule.begin_at(start);
        if gone > 0 {
            let companion = mover.companion;
            tracing::warn!(%companion, messages = gone, "delayed messages were discarded before they were due");
            self.meters.lost(gone);
        }
        loop {
            let cursor = {
                let mut inner = mover.lock();
                inner.schedule.pass_settled();
                mover.note(&inner, &self.pending);
                inner.schedule.cursor()
            };
            if cursor >= end {
                return Ok(());
            }
            let bytes = limits::BATCH_BYTES_MAX;
            let as_of = self.unpacked.as_of();
            let read = self.store.stretch(mover.companion, cursor, bytes).await?;
            for item in &read.items {
                self.take_in_item(mover, item, as_of);
            }
            let mut inner = mover.lock();
            // Whatever was not told of there is not.
            inner.schedule.pass(read.next);
            if inner.schedule.cursor() <= cursor {
                return Ok(());
            }
        }
    }

    fn take_in_item(&self, mover: &Mover, item: &FetchItem, read: AsOf) {
        let (first, end) = span(item);
        let opened = match item {
            FetchItem::Batch(stored) => self.opened(mover, (stored, read)),
            FetchItem::Gap(_) => None,
        };
        let mut inner = mover.lock();
        let schedule = &mut inner.schedule;
        if let Some(opened) = opened {
            while schedule.cursor() >= first && schedule.cursor() < end {
                let place = schedule.cursor().since(first);
                match opened.record(u32::try_from(place).unwrap_or(u32::MAX)) {
                    Some(record) => schedule.take_in(Told::of(record.headers()), pending(&record)),
                    None => schedule.pass(end),
                }
            }
        }
        schedule.pass(end);
    }

    /// The messages that were chosen, in their order; and those that are not there any more.
    pub(super) async fn letters(
        &self,
        mover: &Mover,
        chosen: &[Due],
    ) -> Result<(Vec<Letter>, Vec<Due>), ApiError> {
        let mut by_place = chosen.to_vec();
        by_place.sort_unstable_by_key(|due| due.offset);
        let (mut letters, mut lost) = (Vec::with_capacity(chosen.len()), Vec::new());
        let mut last: Option<(Offset, Arc<OpenedBatch>)> = None;
        for due in by_place {
            let holds = |(base, opened): &(Offset, Arc<OpenedBatch>)| {
                due.offset.since(*base) < u64::from(opened.count()) && due.offset >= *base
            };
            if !last.as_ref().is_some_and(holds) {
                last = self.batch_at(mover, due.offset).await?;
            }
            let record = last.as_ref().and_then(|(base, opened)| {
                let place = u32::try_from(due.offset.since(*base)).unwrap_or(u32::MAX);
                opened.record(place)
            });
            match record {
                Some(record) => letters.push(Letter::of(due, &record)),
                None => lost.push(due),
            }
        }
        letters.sort_by_key(|letter| letter.due);
        Ok((letters, lost))
    }

    /// The batch that a message lies in. None: it is gone, or damaged.
    async fn batch_at(
        &self,
        mover: &Mover,
        offset: Offset,
    ) -> Result<Option<(Offset, Arc<OpenedBatch>)>, ApiError> {
        // Those that are due together may lie far apart, and be wanted by one step after the other.
        let (start, _) = self.store.range_of(mover.companion)?;
        let kept = self.unpacked.holding(mover.companion, offset);
        if let Some(kept) = kept.filter(|_| offset >= start) {
            return Ok(Some(kept));
        }
        let as_of = self.unpacked.as_of();
        let read = self.store.stretch(mover.companion, offset, 1).await?;
        let Some(FetchItem::Batch(stored)) = read.items.first() else {
            return Ok(None);
        };
        let opened = self.opened(mover, (stored, as_of));
        Ok(opened.map(|opened| (stored.base_offset, opened)))
    }

    fn opened(
        &self,
        mover: &Mover,
        (stored, read): (&StoredBatch, AsOf),
    ) -> Option<Arc<OpenedBatch>> {
        let key = (mover.companion, stored.base_offset);
        if let Some(opened) = self.unpacked.get(key) {
            return Some(opened);
        }
        let checked = CheckedBatch::check_crc(stored.batch.clone());
        match checked.and_then(|batch| OpenedBatch::open(&batch)) {
            Ok(opened) => Some(self.unpacked.keep(key, Arc::new(opened), read)),
            Err(error) => {
                let (companion, offset) = key;
                tracing::error!(%companion, %offset, %error, "a stored batch cannot be unpacked");
                None
            }
        }
    }
}
