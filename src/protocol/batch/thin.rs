//! Thinned batches: what the host keeps of a batch when records out of its middle go.
//!
//! ```text
//!   40 producer id 16        zero
//!   56 span u32              offsets it takes, with and without a record
//!   60 hole bytes u32        of the holes, which stand in front of the records
//!   .. holes                 each: records since the hole before varint, offsets varint, reason u8
//!   .. records               those that are left, maybe none
//! ```
//!
//! Its offsets are those of the batch it was: nothing moves. So the journal, whose entries tell how
//! many offsets they take, has no hole, and no offset is missing without somebody saying why. Only a
//! host makes such a batch, and none leaves it: a reader gets plain batches, and gaps between them.
//!
//! A hole has at least one offset, and neighbouring holes have different reasons: there is one way
//! to write what is gone.

use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};

use super::compress::Packer;
use super::header::TTL_BYTES;
use super::record::{put_varint, take_varint};
use super::{BatchError, BatchHeader, CheckedBatch, Compression, HEADER_BYTES, RecordRef, Thinned};
use crate::limits;
use crate::time::Timestamp;
use crate::types::{Gap, GapReason, Offset, ProducerEpoch, ProducerId, Sequence};

/// Offsets, one after the other, whose records are gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Removed {
    /// How many.
    pub count: u32,
    /// Why.
    pub reason: GapReason,
}

/// What is left of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Thin {
    /// All of it: the batch stays as it is.
    Whole,
    /// Some of it, in this batch. Its first offset lies before that of the batch it was by as many as were leading.
    Rest {
        /// The batch.
        batch: Bytes,
        /// How many of the records it had are gone now.
        removed: u32,
    },
    /// Nothing. These are its offsets, behind those that were leading: to be told by the batch after it,
    /// or a [hollow](hollow) one.
    Nothing {
        /// All that is gone, what was leading in front.
        holes: Vec<Removed>,
        /// How many of the records it had are gone now.
        removed: u32,
    },
}

/// A part of what a batch stands for, as readers get it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// A plain batch that begins at this offset.
    Batch(Offset, Bytes),
    /// Offsets that are gone.
    Gap(Gap),
}

/// A hole, with its place: so many records stand between it and the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Hole {
    records: u32,
    removed: Removed,
}

/// Takes what `judge` gives a reason for out of a batch, which may be thinned already, with the
/// offsets `leading` in front. `judge` gets each record with its distance from the batch's own first
/// offset.
///
/// # Errors
/// Where the batch cannot be read, and where it would span more than [`limits::THINNED_SPAN_MAX`]: a
/// caller makes a hollow one before that.
pub fn thin(
    leading: &[Removed],
    batch: &CheckedBatch,
    mut judge: impl FnMut(u32, &RecordRef<'_>) -> Option<GapReason>,
) -> Result<Thin, BatchError> {
    let mut layout = Layout::default();
    for removed in leading {
        layout.remove(*removed);
    }
    let records = batch.records()?.into_unpacked();
    let mut rest = &records[..];
    let (mut index, mut delta, mut removed) = (0, 0, 0);
    for hole in holes(batch)?.into_iter().map(Some).chain([None]) {
        let until = hole.map_or(batch.header.record_count, |hole| index + hole.records);
        while index < until {
            let start = records.len() - rest.len();
            let record = RecordRef::parse(&mut rest, batch.header.base_timestamp)
                .map_err(|problem| BatchError::Record { index, problem })?;
            match judge(delta, &record) {
                None => layout.keep(start..records.len() - rest.len(), record.timestamp),
                Some(reason) => {
                    removed += 1;
                    layout.remove(Removed { count: 1, reason });
                }
            }
            (index, delta) = (index + 1, delta + 1);
        }
        if let Some(hole) = hole {
            layout.remove(hole.removed);
            delta += hole.removed.count;
        }
    }
    if layout.kept == 0 {
        let holes = layout.holes.iter().map(|hole| hole.removed).collect();
        return Ok(Thin::Nothing { holes, removed });
    }
    if removed == 0 && leading.is_empty() {
        return Ok(Thin::Whole);
    }
    let batch = layout.build(batch, &records)?;
    Ok(Thin::Rest { batch, removed })
}

/// A batch without records, for offsets that are gone, like one that stood there.
///
/// # Errors
/// Where it would span nothing, or more than [`limits::THINNED_SPAN_MAX`].
pub fn hollow(holes: &[Removed], like: &BatchHeader) -> Result<Bytes, BatchError> {
    let mut layout = Layout {
        newest: like.max_timestamp,
        ..Layout::default()
    };
    for removed in holes {
        layout.remove(*removed);
    }
    let header = BatchHeader {
        compression: Compression::None,
        has_ttl: false,
        ..*like
    };
    layout.seal(&header, None, &[], 0)
}

/// What a batch that begins at `base` stands for: plain batches, and gaps.
pub fn expand(base: Offset, batch: &CheckedBatch) -> Result<Vec<Piece>, BatchError> {
    if batch.header.thinned.is_none() {
        return Ok(vec![Piece::Batch(base, batch.bytes.clone())]);
    }
    let holes = holes(batch)?;
    let runs = runs(batch, &holes)?;
    let mut pieces = Vec::with_capacity(2 * holes.len() + 1);
    let mut at = base;
    let mut runs = runs.into_iter();
    let put = |pieces: &mut Vec<Piece>, at: &mut Offset, run: Option<Run>| {
        if let Some(run) = run.filter(|run| run.count > 0) {
            let count = run.count;
            pieces.push(Piece::Batch(*at, run.build(batch)));
            *at = at.saturating_add(count.into());
        }
    };
    for hole in &holes {
        put(&mut pieces, &mut at, runs.next());
        let to = at.saturating_add(hole.removed.count.into());
        pieces.push(Piece::Gap(Gap {
            from: at,
            to,
            reason: hole.removed.reason,
        }));
        at = to;
    }
    put(&mut pieces, &mut at, runs.next());
    Ok(pieces)
}

/// Reads the holes of a batch; of one that is not thinned, none.
pub(super) fn holes(batch: &CheckedBatch) -> Result<Vec<Hole>, BatchError> {
    let header = &batch.header;
    let Some(thinned) = header.thinned else {
        return Ok(Vec::new());
    };
    let wrong = |problem| BatchError::Holes { problem };
    let end = HEADER_BYTES + header.front_bytes();
    let start = end - thinned.hole_bytes as usize;
    let mut rest = &batch.bytes[start..end];
    let mut found: Vec<Hole> = Vec::new();
    let (mut records, mut offsets) = (0_u64, 0_u64);
    while !rest.is_empty() {
        let before = take_varint(&mut rest).map_err(wrong)?;
        let count = take_varint(&mut rest).map_err(wrong)?;
        let (&number, tail) = rest.split_first().ok_or(wrong("they end too early"))?;
        rest = tail;
        let reason = GapReason::numbered(number).ok_or(wrong("a reason that nobody knows"))?;
        records = records.saturating_add(before);
        offsets = offsets.saturating_add(count);
        let fits = records <= header.record_count.into() && offsets <= thinned.span.into();
        let again = before == 0 && found.last().is_some_and(|h| h.removed.reason == reason);
        if !fits || count == 0 || again {
            return Err(wrong("they do not fit its records"));
        }
        found.push(Hole {
            records: before as u32,
            removed: Removed {
                count: count as u32,
                reason,
            },
        });
    }
    match u64::from(header.record_count) + offsets == u64::from(thinned.span) {
        true => Ok(found),
        false => Err(wrong("they and its records are not what it spans")),
    }
}

/// Records that stand together.
struct Run {
    count: u32,
    records: Bytes,
    packed: Option<Bytes>,
    newest: Timestamp,
}

/// The runs of records before each hole and after the last, empty ones too.
fn runs(batch: &CheckedBatch, holes: &[Hole]) -> Result<Vec<Run>, BatchError> {
    let header = &batch.header;
    let records = batch.records()?.into_unpacked();
    let mut left = header.record_count;
    let mut counts: Vec<u32> = Vec::with_capacity(holes.len() + 1);
    for hole in holes {
        counts.push(hole.records);
        left -= hole.records;
    }
    counts.push(left);
    let mut rest = &records[..];
    let mut index = 0;
    let mut runs = Vec::with_capacity(counts.len());
    for count in counts {
        let start = records.len() - rest.len();
        let mut newest = i64::MIN;
        for _ in 0..count {
            let record = RecordRef::parse(&mut rest, header.base_timestamp)
                .map_err(|problem| BatchError::Record { index, problem })?;
            newest = newest.max(record.timestamp.as_millis());
            index += 1;
        }
        let is_all = count == header.record_count && header.compression != Compression::None;
        runs.push(Run {
            count,
            records: records.slice(start..records.len() - rest.len()),
            packed: is_all.then(|| batch.bytes.slice(batch.records_at()..)),
            newest: Timestamp::from_millis(newest),
        });
    }
    match rest.is_empty() {
        true => Ok(runs),
        false => Err(BatchError::LeftOver {
            bytes: rest.len() as u64,
        }),
    }
}

impl Run {
    /// A plain batch of these records; where they are all there are, as they are packed.
    fn build(self, batch: &CheckedBatch) -> Bytes {
        let ttl = batch.ttl_bytes();
        let body = self.packed.as_ref().unwrap_or(&self.records);
        let header = BatchHeader {
            compression: match self.packed {
                Some(_) => batch.header.compression,
                None => Compression::None,
            },
            length: length(ttl.len() + body.len()),
            record_count: self.count,
            unpacked_length: length(self.records.len()),
            max_timestamp: self.newest,
            thinned: None,
            ..batch.header
        };
        let mut bytes = BytesMut::with_capacity(HEADER_BYTES + ttl.len() + body.len());
        bytes.put_bytes(0, HEADER_BYTES);
        bytes.extend_from_slice(ttl);
        bytes.extend_from_slice(body);
        header.seal(&mut bytes);
        bytes.freeze()
    }
}

impl CheckedBatch {
    /// The time to live as it stands behind the header; empty where there is none.
    fn ttl_bytes(&self) -> &[u8] {
        let end = HEADER_BYTES + if self.header.has_ttl { TTL_BYTES } else { 0 };
        &self.bytes[HEADER_BYTES..end]
    }
}

/// What stays of records, and what does not.
#[derive(Default)]
struct Layout {
    holes: Vec<Hole>,
    /// Neighbouring records as one.
    ranges: Vec<Range<usize>>,
    kept: u32,
    /// Of those, since the last hole.
    since: u32,
    span: u64,
    newest: Timestamp,
}

impl Layout {
    fn keep(&mut self, range: Range<usize>, time: Timestamp) {
        self.newest = match self.kept {
            0 => time,
            _ => self.newest.max(time),
        };
        self.kept += 1;
        self.since += 1;
        self.span += 1;
        match self.ranges.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => self.ranges.push(range),
        }
    }

    fn remove(&mut self, removed: Removed) {
        self.span += u64::from(removed.count);
        let joins = |last: &&mut Hole| {
            let sum = last.removed.count.checked_add(removed.count);
            self.since == 0 && last.removed.reason == removed.reason && sum.is_some()
        };
        match self.holes.last_mut().filter(joins) {
            Some(last) => last.removed.count += removed.count,
            None => self.holes.push(Hole {
                records: std::mem::take(&mut self.since),
                removed,
            }),
        }
    }

    /// The batch of what stays, packed as the one it was.
    fn build(&self, of: &CheckedBatch, records: &[u8]) -> Result<Bytes, BatchError> {
        let mut kept = Vec::with_capacity(self.ranges.iter().map(Range::len).sum());
        for range in &self.ranges {
            kept.extend_from_slice(&records[range.clone()]);
        }
        let mut packer = Packer::default();
        let packed = packer.pack(of.header.compression, &kept)?;
        let header = BatchHeader {
            compression: match packed {
                Some(_) => of.header.compression,
                None => Compression::None,
            },
            ..of.header
        };
        let body = packed.unwrap_or(&kept);
        self.seal(&header, Some(of.ttl_bytes()), body, kept.len())
    }

    /// Puts it together: `like` tells compression, base timestamp and whether there is a time to live.
    fn seal(
        &self,
        like: &BatchHeader,
        ttl: Option<&[u8]>,
        body: &[u8],
        unpacked: usize,
    ) -> Result<Bytes, BatchError> {
        let max = limits::THINNED_SPAN_MAX;
        let span = u32::try_from(self.span).ok().filter(|&span| span <= max);
        let problem = "they would span too many offsets";
        let span = span.ok_or(BatchError::Holes { problem })?;
        let mut bytes = BytesMut::with_capacity(HEADER_BYTES + 4 * self.holes.len() + body.len());
        bytes.put_bytes(0, HEADER_BYTES);
        bytes.extend_from_slice(ttl.unwrap_or_default());
        let start = bytes.len();
        for hole in &self.holes {
            put_varint(&mut bytes, hole.records.into());
            put_varint(&mut bytes, hole.removed.count.into());
            bytes.put_u8(hole.removed.reason.number());
        }
        let hole_bytes = length(bytes.len() - start);
        bytes.extend_from_slice(body);
        let header = BatchHeader {
            crc: 0,
            length: length(bytes.len() - HEADER_BYTES),
            record_count: self.kept,
            unpacked_length: length(unpacked),
            max_timestamp: self.newest,
            producer: ProducerId::zero(),
            producer_epoch: ProducerEpoch::ZERO,
            first_sequence: Sequence::ZERO,
            has_id: false,
            thinned: Some(Thinned { span, hole_bytes }),
            ..*like
        };
        header.check()?;
        header.seal(&mut bytes);
        Ok(bytes.freeze())
    }
}

fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("a part of a batch is far below 4 GiB")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::{BatchBuilder, Origin, RecordToSend};
    use super::*;

    fn batch(compression: Compression, count: u32, ttl: Option<Duration>) -> CheckedBatch {
        let mut builder = BatchBuilder::new(compression);
        for n in 0..count {
            let value = format!("value {n} of many that look alike");
            let record = RecordToSend {
                timestamp: Timestamp::from_millis(1_000 - i64::from(n % 7)),
                key: Some(&[n as u8]),
                headers: &[],
                value: value.as_bytes(),
            };
            builder.try_push(&record).expect("it fits");
        }
        let origin = Origin {
            ttl,
            ..Origin::default()
        };
        let built = builder.build_as(&origin).expect("records");
        CheckedBatch::check(built, limits::MESSAGE_BYTES_MAX).expect("good")
    }

    /// What each offset has: the value, or why it is gone.
    type Model = Vec<Result<Bytes, GapReason>>;

    fn stored(bytes: Bytes) -> CheckedBatch {
        CheckedBatch::check(bytes.clone(), limits::MESSAGE_BYTES_MAX).expect_err("not published");
        CheckedBatch::check_sent(bytes.clone()).expect_err("not sent to readers");
        CheckedBatch::check_stored(bytes, limits::MESSAGE_BYTES_MAX).expect("good")
    }

    /// What pieces say, which have to follow one another from 100 on.
    fn model(batch: &CheckedBatch) -> Model {
        let mut model = Model::new();
        for piece in expand(Offset::new(100), batch).expect("good") {
            let at = Offset::new(100 + model.len() as u64);
            match piece {
                Piece::Gap(gap) => {
                    assert_eq!(gap.from, at);
                    model.extend((gap.from.get()..gap.to.get()).map(|_| Err(gap.reason)));
                }
                Piece::Batch(base, bytes) => {
                    assert_eq!(base, at);
                    let plain = CheckedBatch::check(bytes, limits::MESSAGE_BYTES_MAX);
                    let plain = plain.expect("what leaves the host is plain");
                    assert_eq!(plain.ttl(), batch.ttl());
                    let records = plain.records().expect("good");
                    model.extend(records.map(|record| Ok(record.expect("good").value)));
                }
            }
        }
        assert_eq!(model.len(), batch.header().span() as usize);
        model
    }

    /// Takes at random out of a batch until nothing is left, with a model beside it.
    #[test]
    fn what_is_taken_out_is_told_and_the_rest_stays() {
        let mut seed = 7_u64;
        let mut random = |below: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 33) % below
        };
        let reasons = [GapReason::Compacted, GapReason::Expired, GapReason::Purged];
        for round in 0..200 {
            let how = [Compression::None, Compression::Lz4, Compression::Zstd][round % 3];
            let ttl = (round % 2 == 0).then(|| Duration::from_millis(1 + random(1 << 30)));
            let mut batch = batch(how, 1 + random(60) as u32, ttl);
            let mut expected = model(&batch);
            for _ in 0..6 {
                let leading: Vec<Removed> = (0..random(3))
                    .map(|n| Removed {
                        count: 1 + random(5) as u32,
                        reason: reasons[n as usize % 2],
                    })
                    .collect();
                let one_of = 1 + random(4);
                let mut judged = 0;
                let outcome = thin(&leading, &batch, |delta, record| {
                    let before = expected[delta as usize].as_ref().expect("not gone yet");
                    assert_eq!(record.value, &before[..]);
                    let reason = reasons[random(3) as usize];
                    let goes = random(one_of) == 0;
                    if goes {
                        expected[delta as usize] = Err(reason);
                        judged += 1;
                    }
                    goes.then_some(reason)
                });
                let in_front = leading.iter().flat_map(|removed| {
                    std::iter::repeat_n(Err(removed.reason), removed.count as usize)
                });
                expected = in_front.chain(expected).collect();
                match outcome.expect("good") {
                    Thin::Whole => assert_eq!((judged, leading.len()), (0, 0)),
                    Thin::Rest {
                        batch: bytes,
                        removed,
                    } => {
                        assert_eq!(removed, judged);
                        batch = stored(bytes);
                        assert_eq!(batch.ttl(), ttl);
                    }
                    Thin::Nothing { holes, removed } => {
                        assert_eq!(removed, judged);
                        let hollow = hollow(&holes, batch.header()).expect("it spans something");
                        let hollow = stored(hollow);
                        assert_eq!(model(&hollow), expected);
                        assert!(expected.iter().all(Result::is_err));
                        break;
                    }
                }
                assert_eq!(model(&batch), expected, "round {round}");
            }
        }
    }

    #[test]
    fn a_false_word_about_holes_is_refused() {
        let outcome = thin(&[], &batch(Compression::None, 9, None), |delta, _| {
            (delta % 3 == 1).then_some(GapReason::Compacted)
        });
        let Ok(Thin::Rest { batch, .. }) = outcome else {
            panic!("{outcome:?}");
        };
        let good = stored(batch.clone());
        let front = HEADER_BYTES..HEADER_BYTES + good.header().front_bytes();
        let spans = 56..64;
        let mut refused = 0;
        for at in spans.chain(front) {
            for flip in [1, 2, 4, 8, 128] {
                let mut bytes = batch.to_vec();
                bytes[at] ^= flip;
                let crc = crc_fast::crc32_iscsi(&bytes[4..]);
                bytes[..4].copy_from_slice(&crc.to_le_bytes());
                let checked = CheckedBatch::check_stored(bytes.into(), limits::MESSAGE_BYTES_MAX);
                // Another reason, or the holes elsewhere: a batch as good.
                match checked {
                    Err(_) => refused += 1,
                    Ok(other) => assert_eq!(model(&other).len(), 9),
                }
            }
        }
        assert!(refused > 60, "{refused}");
    }

    #[test]
    fn too_many_offsets_are_refused() {
        let like = *batch(Compression::None, 1, None).header();
        let removed = |count| Removed {
            count,
            reason: GapReason::Compacted,
        };
        hollow(&[removed(limits::THINNED_SPAN_MAX)], &like).expect("so many");
        hollow(&[removed(limits::THINNED_SPAN_MAX), removed(1)], &like).expect_err("one more");
        hollow(&[removed(u32::MAX), removed(u32::MAX)], &like).expect_err("far more");
        hollow(&[], &like).expect_err("none");
    }

    #[test]
    fn a_time_to_live_nobody_can_have_is_refused() {
        for (ttl, is_good) in [(1, true), (0, false), (u64::MAX, false)] {
            let good = batch(Compression::None, 2, Some(Duration::from_secs(1)));
            let mut bytes = good.bytes().to_vec();
            bytes[HEADER_BYTES..HEADER_BYTES + TTL_BYTES].copy_from_slice(&ttl.to_le_bytes());
            let crc = crc_fast::crc32_iscsi(&bytes[4..]);
            bytes[..4].copy_from_slice(&crc.to_le_bytes());
            let checked = CheckedBatch::check(bytes.into(), limits::MESSAGE_BYTES_MAX);
            assert_eq!(checked.is_ok(), is_good, "{ttl}");
        }
    }
}
