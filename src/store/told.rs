//! What readers are told of a stored batch that is more than its records.
//!
//! Most batches go out as they lie. Two kinds do not, and one look at a byte tells them apart
//! ([`is_plain`]): a *thinned* one stands for plain batches with gaps between them, and one whose
//! *time to live* is over stands for a gap.
//!
//! 1. Whether a time to live is over is asked when an answer is made, by the append time of the batch and
//!    the clock of this host; the publisher's has no part in it.
//! 2. While the wall clock and the steady one contradict each other nothing is over
//!    ([`ClockWatch`](super::retention::ClockWatch)), as with age.
//! 3. What is told covers the offsets of the entry once, in order and without a hole (J9).

use super::shared::Purges;
use crate::journal::StoredEntry;
use crate::protocol::batch::{
    BatchError, BatchHeader, CheckedBatch, Piece, Removed, Thin, expand, thin, time_to_live,
};
use crate::time::Timestamp;
use crate::types::{Gap, GapReason, Offset};

pub(super) use crate::protocol::batch::is_plain;

/// What an entry stands for as of `now`, which is no time where the clock cannot be trusted.
///
/// # Errors
/// Where the batch is not what its checksum vouches for.
pub(super) fn told(
    entry: &StoredEntry,
    purges: &Purges,
    now: impl FnOnce() -> Option<Timestamp>,
) -> Result<Vec<Piece>, BatchError> {
    let purged = match concern(purges, entry) {
        true => purged(entry, purges)?,
        false => None,
    };
    let mut pieces = match purged {
        Some(pieces) => pieces,
        None => parts(entry)?,
    };
    if is_over(entry.header.append_time, &entry.payload, now) {
        let mut to = Offset::new(entry.header.end_number());
        for piece in pieces.iter_mut().rev() {
            let from = begin_of(piece);
            if let Piece::Batch(..) = piece {
                let reason = GapReason::Expired;
                *piece = Piece::Gap(Gap { from, to, reason });
            }
            to = from;
        }
    }
    Ok(pieces)
}

/// The entry without the records that purges of their keys mean; none where they mean none of them.
///
/// # Errors
/// Where the batch is not what its checksum vouches for.
pub(super) fn purged(
    entry: &StoredEntry,
    purges: &Purges,
) -> Result<Option<Vec<Piece>>, BatchError> {
    let base = Offset::new(entry.header.number);
    let batch = CheckedBatch::check_crc(entry.payload.clone())?;
    let thinned = thin(&[], &batch, |delta, record| {
        let at = base.saturating_add(u64::from(delta));
        let mut all = purges.iter();
        let is_meant = all.any(|(_, purge)| purge.covers(at, record.key));
        is_meant.then_some(GapReason::Purged)
    })?;
    match thinned {
        Thin::Whole | Thin::Rest { removed: 0, .. } | Thin::Nothing { removed: 0, .. } => Ok(None),
        Thin::Rest { batch, .. } => expand(base, &CheckedBatch::check_crc(batch)?).map(Some),
        Thin::Nothing { holes, .. } => {
            let mut from = base;
            let gap = |hole: Removed| {
                let to = from.saturating_add(hole.count.into());
                let reason = hole.reason;
                Piece::Gap(Gap {
                    from: std::mem::replace(&mut from, to),
                    to,
                    reason,
                })
            };
            Ok(Some(holes.into_iter().map(gap).collect()))
        }
    }
}

/// What an entry holds, whatever time it is: plain batches, and gaps.
///
/// # Errors
/// Where the batch is not what its checksum vouches for.
pub(super) fn parts(entry: &StoredEntry) -> Result<Vec<Piece>, BatchError> {
    let base = Offset::new(entry.header.number);
    let header = BatchHeader::parse(&entry.payload)?;
    if header.span() != entry.header.records {
        let problem = "they and its records are not what its entry tells";
        return Err(BatchError::Holes { problem });
    }
    match header.thinned {
        None => Ok(vec![Piece::Batch(base, entry.payload.clone())]),
        Some(_) => expand(base, &CheckedBatch::check_crc(entry.payload.clone())?),
    }
}

/// Whether purges of keys may mean something in an entry.
pub(super) fn concern(purges: &Purges, entry: &StoredEntry) -> bool {
    (purges.iter()).any(|(_, purge)| entry.header.number < purge.end.get())
}

fn begin_of(piece: &Piece) -> Offset {
    match piece {
        Piece::Batch(base, _) => *base,
        Piece::Gap(gap) => gap.from,
    }
}

/// Whether the records of a batch lived long enough, given when they were stored.
pub(super) fn is_over(
    stored: Timestamp,
    batch: &[u8],
    now: impl FnOnce() -> Option<Timestamp>,
) -> bool {
    let end = time_to_live(batch).map(|ttl| stored.after(ttl));
    end.is_some_and(|end| now().is_some_and(|now| end <= now))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::protocol::batch::{BatchBuilder, Compression, Origin, RecordToSend};

    fn batch(ttl: Option<Duration>) -> bytes::Bytes {
        let mut builder = BatchBuilder::new(Compression::None);
        let record = RecordToSend {
            timestamp: Timestamp::from_millis(9),
            key: None,
            headers: &[],
            value: b"value",
        };
        builder.try_push(&record).expect("it fits");
        let origin = Origin {
            ttl,
            ..Origin::default()
        };
        builder.build_as(&origin).expect("a record")
    }

    #[test]
    fn a_batch_is_over_from_its_last_moment_on_if_the_clock_can_be_trusted() {
        let stored = Timestamp::from_millis(1_000);
        let second = batch(Some(Duration::from_secs(1)));
        assert!(!is_plain(&second));
        for (now, expected) in [(0, false), (1_999, false), (2_000, true), (9_000, true)] {
            let now = || Some(Timestamp::from_millis(now));
            assert_eq!(is_over(stored, &second, now), expected);
        }
        assert!(!is_over(stored, &second, || None), "the clock jumped");
        let forever = batch(None);
        assert!(is_plain(&forever));
        let unasked = || panic!("what has no time to live asks no clock");
        assert!(!is_over(stored, &forever, unasked));
    }
}
