//! Replaying dead letters: published again where they came from, and discarded, in one step.

use bytes::Bytes;

use super::Desks;
use super::reading::span;
use crate::limits;
use crate::protocol::api::{ReplayDeadLetters, ReplayedDeadLetters};
use crate::protocol::batch::{
    BatchBuilder, CheckedBatch, Compression, Header, OpenedBatch, RecordRef, RecordToSend,
};
use crate::protocol::data::FetchItem;
use crate::protocol::dead::{NAMES, Obituary};
use crate::protocol::error::ApiError;
use crate::types::{Offset, ProducerId, Sequence, TopicId, TopicName};

/// How often the start may move away under a replay before it gives up.
const ATTEMPTS: usize = 8;

/// Dead letters that go to one topic.
struct Letters {
    to: Option<TopicName>,
    builder: BatchBuilder,
    /// The first one that is left.
    next: Offset,
}

impl Desks {
    /// Replays the oldest dead letters, as many as go to one topic and fit into a batch.
    pub async fn replay(
        &self,
        request: ReplayDeadLetters,
    ) -> Result<ReplayedDeadLetters, ApiError> {
        self.check_displaced()?;
        let id = self.store.id_of(&request.topic)?;
        for _ in 0..ATTEMPTS {
            let (start, end) = self.store.range_of(id)?;
            let before = request.before.min(end);
            let mut letters = Letters {
                to: None,
                builder: BatchBuilder::new(Compression::None),
                next: start,
            };
            self.gather(id, before, &mut letters).await?;
            let (next, replayed) = (letters.next.max(start), letters.builder.count().into());
            if next == start {
                let next = next.max(before.min(start));
                return Ok(ReplayedDeadLetters { next, replayed: 0 });
            }
            let batch = self.batch_of(letters, start)?;
            if self.store.move_records(id, (start, next), batch).await? {
                return Ok(ReplayedDeadLetters { next, replayed });
            }
        }
        Err(ApiError::InvalidArgument {
            what: "replay".to_owned(),
            reason: "the dead letters are being discarded at the same time, try again".to_owned(),
        })
    }

    fn batch_of(
        &self,
        mut letters: Letters,
        start: Offset,
    ) -> Result<Option<(TopicId, CheckedBatch)>, ApiError> {
        let Some(origin) = letters.to else {
            return Ok(None);
        };
        let origin = match self.store.id_of(&origin) {
            Ok(origin) => origin,
            Err(_) => {
                let reason = format!("topic {origin}, where it came from, is not on this peer");
                return Err(ApiError::NotReplayable {
                    offset: start,
                    reason,
                });
            }
        };
        let built = letters.builder.build(ProducerId::zero(), Sequence::ZERO);
        let batch = built.and_then(|bytes| CheckedBatch::check(bytes, limits::MESSAGE_BYTES_MAX));
        Ok(Some((origin, batch?)))
    }

    /// Reads dead letters as long as they go together. What is missing is passed over.
    async fn gather(
        &self,
        id: TopicId,
        before: Offset,
        letters: &mut Letters,
    ) -> Result<(), ApiError> {
        while letters.next < before {
            let read = self
                .store
                .stretch(id, letters.next, limits::BATCH_BYTES_TARGET)
                .await?;
            if read.items.is_empty() {
                return Ok(());
            }
            for item in read.items {
                let (first, end) = span(&item);
                let FetchItem::Batch(stored) = item else {
                    letters.next = letters.next.max(end.min(before));
                    continue;
                };
                let batch = CheckedBatch::check_crc(stored.batch)?;
                let opened = OpenedBatch::open(&batch)?;
                let (from, to) = (letters.next.max(first), end.min(before));
                for offset in from.get()..to.get() {
                    let index = u32::try_from(offset - first.get()).unwrap_or(u32::MAX);
                    let goes_on = match opened.record(index) {
                        Some(record) => add(letters, &record, Offset::new(offset))?,
                        None => true,
                    };
                    if !goes_on {
                        return Ok(());
                    }
                    letters.next = Offset::new(offset + 1);
                }
            }
        }
        Ok(())
    }
}

/// Adds a dead letter without its headers. False: it does not go with those before it.
fn add(letters: &mut Letters, record: &RecordRef<'_>, offset: Offset) -> Result<bool, ApiError> {
    let Some(origin) = Obituary::origin_of(record.headers()) else {
        if !letters.builder.is_empty() {
            return Ok(false);
        }
        let reason = "it does not say which topic it came from".to_owned();
        return Err(ApiError::NotReplayable { offset, reason });
    };
    if letters.to.as_ref().is_some_and(|to| *to != origin) {
        return Ok(false);
    }
    let headers = without_first_of_each(record.headers());
    let again = RecordToSend {
        timestamp: record.timestamp,
        key: record.key,
        headers: &headers,
        value: record.value,
    };
    if !letters
        .builder
        .push_within(&again, limits::BATCH_BYTES_TARGET)
    {
        return Ok(false);
    }
    letters.to = Some(origin);
    Ok(true)
}

/// The headers that the record had before it died: only the newest ones that say so are taken off.
fn without_first_of_each<'a>(headers: impl Iterator<Item = (&'a str, &'a [u8])>) -> Vec<Header> {
    let mut seen = Vec::new();
    let mut kept = Vec::new();
    for (name, value) in headers {
        if NAMES.contains(&name) && !seen.contains(&name) {
            seen.push(name);
            continue;
        }
        kept.push(Header {
            name: name.to_owned(),
            value: Bytes::copy_from_slice(value),
        });
    }
    kept
}
