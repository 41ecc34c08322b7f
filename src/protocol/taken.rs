//! The answer to [`TakeRecords`](crate::protocol::api::TakeRecords): raw, like that to a fetch.
//!
//! ```text
//! answer   ack deadline u64 (ms) | number u64 | item*
//! item     append time i64 | runs u32 | length u32 | run* | record batch
//! run      first offset u64 | count u32 | delivery u32
//! ```
//!
//! The records of a batch are those of its runs, in their order: together the runs count as many records as the batch
//! holds. A batch that is given out whole is the bytes that were published; of another one the host makes a batch of the
//! records given out. An answer without items says that the wait was over. The deadline is the one that holds for what is
//! given out with it: the group's may have been changed since its member joined.
//!
//! Answers to takes that are on the way together may arrive in another order than that in which their records were given
//! out. The number tells it, and whoever keeps order takes them in by it: otherwise a record could be handed out before an
//! older one of its key.

use bytes::{Buf, BufMut, Bytes};

use super::batch::BatchHeader;
use super::codec::Malformed;
use crate::time::Timestamp;
use crate::types::Offset;

/// Bytes of the answer before its items.
pub const TAKEN_HEADER_BYTES: usize = 16;
/// Bytes of an item before its runs.
pub const ITEM_HEADER_BYTES: usize = 16;
/// Bytes of a run.
pub const RUN_BYTES: usize = 16;

/// The answer: what its member holds from now on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Taken {
    /// How long they may be held without a word, in milliseconds.
    pub ack_deadline_ms: u64,
    /// The how many-eth answer of this membership it is; the first is 1, and none is left out.
    pub number: u64,
    /// The batches, in the order in which they were taken.
    pub items: Vec<TakenItem>,
}

/// Records of one batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TakenItem {
    /// When the host appended them.
    pub append_time: Timestamp,
    /// Their offsets, rising.
    pub runs: Vec<TakenRun>,
    /// A record batch of just these records. Only its header has been looked at.
    pub batch: Bytes,
}

/// Offsets that follow each other, and were delivered equally often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TakenRun {
    /// The first one.
    pub first: Offset,
    /// How many: at least one.
    pub count: u32,
    /// The number of this delivery: 1 is the first. A settlement names it.
    pub delivery: u32,
}

impl TakenRun {
    /// The offset after the last one.
    pub const fn end(&self) -> Offset {
        self.first.saturating_add(self.count as u64)
    }
}

impl Taken {
    /// Encodes the answer as pieces to be written one after the other; the batches are not copied.
    pub fn encode(&self) -> Vec<Bytes> {
        let mut pieces = Vec::with_capacity(1 + 2 * self.items.len());
        let mut header = Vec::with_capacity(TAKEN_HEADER_BYTES);
        header.put_u64_le(self.ack_deadline_ms);
        header.put_u64_le(self.number);
        pieces.push(Bytes::from(header));
        for item in &self.items {
            let mut head = Vec::with_capacity(ITEM_HEADER_BYTES + RUN_BYTES * item.runs.len());
            head.put_i64_le(item.append_time.as_millis());
            head.put_u32_le(
                u32::try_from(item.runs.len()).expect("a batch has no more runs than records"),
            );
            head.put_u32_le(u32::try_from(item.batch.len()).expect("a batch is below 4 GiB"));
            for run in &item.runs {
                head.put_u64_le(run.first.get());
                head.put_u32_le(run.count);
                head.put_u32_le(run.delivery);
            }
            pieces.extend([Bytes::from(head), item.batch.clone()]);
        }
        pieces
    }

    /// Decodes the answer; the batches share its memory.
    pub fn decode(mut body: Bytes) -> Result<Self, Malformed> {
        need(&body, TAKEN_HEADER_BYTES)?;
        let (ack_deadline_ms, number) = (body.get_u64_le(), body.get_u64_le());
        let mut items = Vec::new();
        while !body.is_empty() {
            items.push(get_item(&mut body)?);
        }
        Ok(Self {
            ack_deadline_ms,
            number,
            items,
        })
    }
}

fn malformed(reason: String) -> Malformed {
    let what = "TakeRecords";
    Malformed { what, reason }
}

fn need(body: &Bytes, bytes: usize) -> Result<(), Malformed> {
    match body.len() < bytes {
        true => Err(malformed("it ends too early".to_owned())),
        false => Ok(()),
    }
}

fn get_item(body: &mut Bytes) -> Result<TakenItem, Malformed> {
    need(body, ITEM_HEADER_BYTES)?;
    let append_time = Timestamp::from_millis(body.get_i64_le());
    let (count, length) = (body.get_u32_le() as usize, body.get_u32_le() as usize);
    need(body, RUN_BYTES.saturating_mul(count))?;
    let runs = get_runs(body, count)?;
    need(body, length)?;
    let batch = body.split_to(length);
    let header = BatchHeader::parse(&batch).map_err(|error| malformed(error.to_string()))?;
    let records: u64 = runs.iter().map(|run| u64::from(run.count)).sum();
    if records != u64::from(header.record_count) {
        let held = header.record_count;
        let reason = format!("runs of {records} records beside a batch of {held}");
        return Err(malformed(reason));
    }
    Ok(TakenItem {
        append_time,
        runs,
        batch,
    })
}

fn get_runs(body: &mut Bytes, count: usize) -> Result<Vec<TakenRun>, Malformed> {
    let mut runs = Vec::with_capacity(count);
    let mut after = Offset::ZERO;
    for _ in 0..count {
        let run = TakenRun {
            first: Offset::new(body.get_u64_le()),
            count: body.get_u32_le(),
            delivery: body.get_u32_le(),
        };
        let end = run.first.checked_add(run.count.into());
        match end.filter(|_| run.count > 0 && run.delivery > 0 && run.first >= after) {
            Some(end) => after = end,
            None => return Err(malformed(format!("{run:?} after offset {after}"))),
        }
        runs.push(run);
    }
    Ok(runs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::batch::{BatchBuilder, Compression, RecordToSend};
    use crate::types::{ProducerId, Sequence};

    fn batch(records: usize) -> Bytes {
        let mut builder = BatchBuilder::new(Compression::None);
        let record = RecordToSend {
            timestamp: Timestamp::from_millis(5),
            key: None,
            headers: &[],
            value: b"value",
        };
        for _ in 0..records {
            builder.try_push(&record).expect("it fits");
        }
        let built = builder.build(ProducerId::zero(), Sequence::ZERO);
        built.expect("there are records")
    }

    fn run(first: u64, count: u32, delivery: u32) -> TakenRun {
        TakenRun {
            first: Offset::new(first),
            count,
            delivery,
        }
    }

    fn item(runs: Vec<TakenRun>, records: usize) -> TakenItem {
        TakenItem {
            append_time: Timestamp::from_millis(99),
            runs,
            batch: batch(records),
        }
    }

    fn taken(items: Vec<TakenItem>) -> Taken {
        Taken {
            ack_deadline_ms: 30_000,
            number: 3,
            items,
        }
    }

    fn decoded(taken: &Taken) -> Result<Taken, Malformed> {
        Taken::decode(Bytes::from(taken.encode().concat()))
    }

    #[test]
    fn it_round_trips_and_refuses_every_truncation() {
        let first = item(vec![run(3, 2, 1), run(5, 1, 7)], 3);
        let both = taken(vec![first.clone(), item(vec![run(1, 1, 2)], 1)]);
        assert_eq!(decoded(&both), Ok(both.clone()));
        let bytes = both.encode().concat();
        let one = taken(vec![first]).encode().concat().len();
        let whole = [TAKEN_HEADER_BYTES, one];
        for cut in (0..bytes.len()).filter(|cut| !whole.contains(cut)) {
            let cut_off = Taken::decode(Bytes::copy_from_slice(&bytes[..cut]));
            assert!(cut_off.is_err(), "cut at {cut}");
        }
        assert_eq!(decoded(&taken(Vec::new())), Ok(taken(Vec::new())));
    }

    #[test]
    fn runs_that_make_no_sense_are_refused() {
        let bad = [
            vec![],
            vec![run(3, 0, 1), run(3, 2, 1)],
            vec![run(3, 2, 0)],
            vec![run(3, 1, 1), run(3, 1, 1)],
            vec![run(3, 1, 1), run(2, 1, 1)],
            vec![run(u64::MAX, 2, 1)],
            vec![run(3, 3, 1)],
            vec![run(3, 1, 1)],
            vec![run(0, u32::MAX, 1), run(u64::from(u32::MAX), 3, 1)],
        ];
        for runs in bad {
            let senseless = taken(vec![item(runs, 2)]);
            let error = decoded(&senseless).expect_err("it makes no sense");
            assert_eq!(error.what, "TakeRecords", "{senseless:?}");
        }
    }

    #[test]
    fn what_is_no_batch_is_refused() {
        let mut one = item(vec![run(3, 1, 1)], 1);
        one.batch = one.batch.slice(..one.batch.len() - 1);
        assert!(decoded(&taken(vec![one])).is_err());
    }
}
