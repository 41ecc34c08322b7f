//! What came from a host and was not handed out: checked, in order, without a hole.

use std::collections::VecDeque;

use super::delivery::{Delivery, ReceivedRecord, ReceivedRef};
use crate::client::ClientError;
use crate::protocol::batch::{BatchError, CheckedBatch, Records};
use crate::protocol::data::{FetchItem, StoredBatch};
use crate::time::Timestamp;
use crate::types::{Gap, Offset};

/// One answer, as far as it was not handed out.
#[derive(Debug)]
pub(super) struct AtHand {
    items: VecDeque<Item>,
    pub current: Option<Current>,
    /// The offset after all of it.
    pub end: Offset,
}

#[derive(Debug)]
enum Item {
    Batch(StoredBatch, CheckedBatch),
    Gap(Gap),
}

/// What comes next of it.
pub(super) enum Next {
    Record,
    Gap(Gap),
    Nothing,
}

/// A batch that is being handed out.
#[derive(Debug)]
pub(super) struct Current {
    records: Records,
    next_offset: Offset,
    append_time: Timestamp,
    /// What ended it, if no call has told yet.
    failed: Option<BatchError>,
}

impl AtHand {
    pub fn starting_at(offset: Offset) -> Self {
        Self {
            items: VecDeque::new(),
            current: None,
            end: offset,
        }
    }

    pub fn is_empty(&self) -> bool {
        let is_over = |current: &Current| current.records.is_over() && current.failed.is_none();
        self.items.is_empty() && self.current.as_ref().is_none_or(is_over)
    }

    /// Whether the next batch may begin before where it is wanted: a stream may start inside a
    /// batch, and so may what follows a gap, because records are discarded one by one.
    fn may_start_inside(&self) -> bool {
        self.is_empty() || matches!(self.items.back(), Some(Item::Gap(_)))
    }

    /// Adds what a host answered; tells how many records that are. It must go on where the last item
    /// ended, but for a batch that may begin earlier.
    pub fn add(&mut self, item: FetchItem) -> Result<u64, ClientError> {
        let expected = self.end;
        let (from, item) = match item {
            FetchItem::Batch(stored) => {
                let batch = CheckedBatch::check_sent(stored.batch.clone())?;
                (stored.base_offset, Item::Batch(stored, batch))
            }
            FetchItem::Gap(gap) => (gap.from, Item::Gap(gap)),
        };
        let (to, records) = match &item {
            Item::Batch(_, batch) => {
                let records = batch.header().record_count.into();
                (from.saturating_add(records), records)
            }
            Item::Gap(gap) => (gap.to, 0),
        };
        if from > expected {
            let found = from;
            return Err(ClientError::UnexplainedGap { expected, found });
        }
        if to <= expected || (from < expected && !self.may_start_inside()) {
            return Err(ClientError::Malformed {
                what: "an answer with records".to_owned(),
                reason: format!("offsets [{from}, {to}) where {expected} was expected"),
            });
        }
        self.end = to;
        self.items.push_back(match item {
            Item::Gap(gap) => Item::Gap(Gap {
                from: expected,
                ..gap
            }),
            batch @ Item::Batch(..) => batch,
        });
        Ok(records)
    }

    /// Appends the records of the current batch from `position` on, up to `max` deliveries in all. Answers the
    /// position after them; `None` if there are none, or the next thing is something else.
    pub fn take_records(
        &mut self,
        position: Offset,
        max: usize,
        deliveries: &mut Vec<Delivery>,
    ) -> Option<Offset> {
        let current = self.current.as_mut().filter(|current| {
            // What lies before the position is passed over one by one, and so is an error met.
            current.next_offset >= position && current.failed.is_none()
        })?;
        let before = deliveries.len();
        deliveries.reserve(current.records.size_hint().1.unwrap_or(0).min(max - before));
        while deliveries.len() < max
            && let Some(delivery) = current.next()
        {
            match delivery {
                Ok(delivery) => deliveries.push(delivery),
                Err(error) => {
                    current.failed = Some(error);
                    break;
                }
            }
        }
        (deliveries.len() > before).then_some(current.next_offset)
    }

    /// The next record from `position` on, or gap.
    pub fn take(&mut self, position: Offset) -> Result<Option<Delivery>, ClientError> {
        Ok(match self.advance(position)? {
            Next::Nothing => None,
            Next::Gap(gap) => Some(Delivery::Gap(gap)),
            Next::Record => match &mut self.current {
                Some(current) => current.next().transpose()?,
                None => None,
            },
        })
    }

    /// Passes over what lies before `position`, and tells what comes then. A record is the next of the current batch.
    pub fn advance(&mut self, position: Offset) -> Result<Next, ClientError> {
        loop {
            if let Some(current) = &mut self.current {
                if let Some(error) = current.failed.take() {
                    return Err(error.into());
                }
                while current.next_offset < position
                    && let Some(passed) = current.next_ref()
                {
                    passed?;
                }
                if !current.records.is_over() {
                    return Ok(Next::Record);
                }
                self.current = None;
            }
            match self.items.pop_front() {
                None => return Ok(Next::Nothing),
                Some(Item::Gap(gap)) => return Ok(Next::Gap(gap)),
                Some(Item::Batch(stored, batch)) => {
                    self.current = Some(Current {
                        records: batch.records()?,
                        next_offset: stored.base_offset,
                        append_time: stored.append_time,
                        failed: None,
                    });
                }
            }
        }
    }
}

impl Current {
    fn next(&mut self) -> Option<Result<Delivery, BatchError>> {
        let record = self.records.next()?;
        let offset = self.next_offset;
        Some(record.map(|record| {
            // Only past what was good: an error is about this offset.
            self.next_offset = offset.next();
            Delivery::Record(ReceivedRecord {
                offset,
                append_time: self.append_time,
                timestamp: record.timestamp,
                key: record.key,
                headers: record.headers,
                value: record.value,
            })
        }))
    }

    /// The same, borrowed. An error is told again by the next call: nothing behind it may be handed out.
    pub fn next_ref(&mut self) -> Option<Result<ReceivedRef<'_>, BatchError>> {
        let record = self.records.next_ref()?;
        let offset = self.next_offset;
        match &record {
            Ok(_) => self.next_offset = offset.next(),
            Err(error) => self.failed = Some(error.clone()),
        }
        Some(record.map(|record| ReceivedRef {
            offset,
            append_time: self.append_time,
            record,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::batch::{BatchBuilder, Compression, RecordToSend};
    use crate::types::{LeaderEpoch, ProducerId, Sequence};

    /// Three records, of which the last is none although the checksum holds.
    fn at_hand() -> AtHand {
        let mut builder = BatchBuilder::new(Compression::None);
        for value in ["one", "two", "three"] {
            let record = RecordToSend {
                timestamp: Timestamp::from_millis(0),
                key: None,
                headers: &[],
                value: value.as_bytes(),
            };
            assert!(builder.push_within(&record, 1_000));
        }
        let batch = builder.build(ProducerId::zero(), Sequence::ZERO);
        let mut bytes = batch.expect("built").to_vec();
        // The attributes of the last record: its value, and four bytes before it.
        let at = bytes.len() - "three".len() - 4;
        bytes[at] = 1;
        let crc = crc_fast::crc32_iscsi(&bytes[4..]);
        bytes[..4].copy_from_slice(&crc.to_le_bytes());
        let mut at_hand = AtHand::starting_at(Offset::ZERO);
        let stored = StoredBatch {
            base_offset: Offset::ZERO,
            epoch: LeaderEpoch::new(1),
            append_time: Timestamp::from_millis(0),
            batch: bytes.into(),
        };
        at_hand.add(FetchItem::Batch(stored)).expect("it follows");
        at_hand
    }

    #[test]
    fn the_position_stays_before_a_record_that_is_none() {
        let mut at_hand = at_hand();
        let first = at_hand.take(Offset::ZERO).expect("good").expect("there");
        assert!(matches!(first, Delivery::Record(record) if record.value == "one"));
        let mut deliveries = Vec::new();
        let next = at_hand.take_records(Offset::new(1), 10, &mut deliveries);
        assert_eq!(next, Some(Offset::new(2)));
        assert_eq!(deliveries.len(), 1);
        assert!(!at_hand.is_empty(), "the error is to be told");
        at_hand.take(Offset::new(2)).expect_err("it is no record");
    }

    #[test]
    fn in_place_the_same() {
        let mut at_hand = at_hand();
        assert!(matches!(at_hand.advance(Offset::ZERO), Ok(Next::Record)));
        let current = at_hand.current.as_mut().expect("a batch");
        for offset in 0..2 {
            let received = current.next_ref().expect("there").expect("good");
            assert_eq!(received.offset.get(), offset);
        }
        current.next_ref().expect("there").expect_err("no record");
        assert_eq!(current.next_offset.get(), 2);
        let again = at_hand.advance(Offset::new(2));
        assert!(again.is_err(), "nothing behind it is handed out");
    }
}
