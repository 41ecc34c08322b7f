//! Record batches, as publishers send them and as they are stored.

use bytes::Bytes;
use tidings::limits;
use tidings::protocol::batch::{
    BATCH_MAGIC, BATCH_VERSION, BatchBuilder, BatchError, CheckedBatch, Compression, HEADER_BYTES,
    Header, Origin, Piece, Record, RecordToSend, Removed, Thin, expand, hollow, thin,
};
use tidings::time::Timestamp;
use tidings::types::{GapReason, Offset, ProducerEpoch, ProducerId, Sequence};

use super::{Input, names_an_error};

/// Where the fields of a header lie.
const ATTRIBUTES: usize = 7;
const HAS_TTL: u8 = 0x20;
const THINNED: u8 = 0x40;
const LENGTH: usize = 8;
const COUNT: usize = 12;
const UNPACKED: usize = 16;

/// Most bytes of a message in here: small, so that the limit is met.
const MESSAGE_BYTES_MAX: usize = 4096;

/// A batch. The first byte says what is done with the rest before it is read: bit 0, the header is made to fit it;
/// bit 1, the rest is a recipe for records of which a batch is built.
pub fn batch(data: &[u8]) {
    let Some((&how, rest)) = data.split_first() else {
        return;
    };
    match how % 4 {
        0 => check(Bytes::copy_from_slice(rest)),
        1 => check(fitted(rest)),
        _ => built(rest, how),
    }
}

/// Packed records of one batch: how they are packed, how many bytes and records they claim to be, then themselves.
///
/// Unpacking takes no more memory than a batch may have, and gives exactly what was claimed or an error.
pub fn packed(data: &[u8]) {
    let mut input = Input(data);
    let (how, unpacked, count) = (input.byte(), input.u32(), input.u32());
    let mut header = [0; HEADER_BYTES];
    header[ATTRIBUTES] = 1 + how % 2;
    header[COUNT..UNPACKED].copy_from_slice(&(count % 1024 + 1).to_le_bytes());
    let unpacked = unpacked % limits::BATCH_BYTES_UNPACKED_MAX as u32;
    header[UNPACKED..UNPACKED + 4].copy_from_slice(&unpacked.to_le_bytes());
    check(fitted(&[&header[..], input.0].concat()));
}

/// The bytes with a header that has magic, version, lengths and checksum right.
fn fitted(bytes: &[u8]) -> Bytes {
    let mut batch = bytes.to_vec();
    if batch.len() < HEADER_BYTES {
        batch.resize(HEADER_BYTES, 0);
    }
    let length = u32::try_from(batch.len() - HEADER_BYTES).expect("inputs are small");
    batch[4..6].copy_from_slice(&BATCH_MAGIC.to_le_bytes());
    batch[6] = BATCH_VERSION;
    batch[LENGTH..COUNT].copy_from_slice(&length.to_le_bytes());
    if batch[ATTRIBUTES] & 7 == 0 {
        let of_ttl = if batch[ATTRIBUTES] & HAS_TTL > 0 {
            8
        } else {
            0
        };
        let of_holes = match batch[ATTRIBUTES] & THINNED {
            0 => 0,
            _ => u32::from_le_bytes([batch[60], batch[61], batch[62], batch[63]]),
        };
        let records = length.saturating_sub(of_ttl).saturating_sub(of_holes);
        batch[UNPACKED..UNPACKED + 4].copy_from_slice(&records.to_le_bytes());
    }
    let crc = tidings::journal::crc32c(&batch[4..]);
    batch[..4].copy_from_slice(&crc.to_le_bytes());
    batch.into()
}

fn check(bytes: Bytes) {
    let published = CheckedBatch::check(bytes.clone(), MESSAGE_BYTES_MAX);
    let checked = CheckedBatch::check_stored(bytes.clone(), MESSAGE_BYTES_MAX);
    match &checked {
        Ok(batch) => {
            assert_eq!(batch.bytes(), &bytes);
            let is_thinned = batch.header().thinned.is_some();
            assert_eq!(
                published.is_err(),
                is_thinned,
                "of publishers only plain ones"
            );
            thinned(batch);
        }
        Err(error) => {
            assert_eq!(published.as_ref().err(), Some(error));
            names_an_error(error);
        }
    }
    // Stored batches are looked at less closely, and their records one by one.
    match CheckedBatch::check_crc(bytes) {
        Ok(stored) => records(&stored, checked.err().as_ref()),
        Err(error) => assert_eq!(checked.err(), Some(error)),
    }
}

/// A good batch is plain batches and gaps, one after the other, and so is what is left of it when records go.
fn thinned(batch: &CheckedBatch) {
    let before = pieces(batch, 0);
    let mut kept = 0;
    let leading = [Removed {
        count: 1 + batch.header().crc % 3,
        reason: GapReason::Purged,
    }];
    let leading = &leading[..(batch.header().crc >> 8) as usize % 2];
    let outcome = thin(leading, batch, |delta, record| {
        let goes = (record.value.len() as u32 ^ delta).is_multiple_of(2);
        kept += u64::from(!goes);
        goes.then_some(GapReason::Compacted)
    });
    let front: u32 = leading.iter().map(|removed| removed.count).sum();
    let spans = batch.header().span() + front;
    match outcome {
        Ok(Thin::Whole) => assert_eq!((kept, front), (before, 0)),
        Ok(Thin::Rest {
            batch: rest,
            removed,
        }) => {
            let rest = CheckedBatch::check_stored(rest, MESSAGE_BYTES_MAX).expect("it was made");
            assert_eq!(u64::from(removed) + kept, before);
            assert_eq!(rest.header().span(), spans);
            assert_eq!(pieces(&rest, 1 << 40), kept);
        }
        Ok(Thin::Nothing { holes, removed }) => {
            assert_eq!((u64::from(removed), kept), (before, 0));
            let gone: u32 = holes.iter().map(|removed| removed.count).sum();
            assert_eq!(gone, spans);
            if let Ok(hollow) = hollow(&holes, batch.header()) {
                let hollow = CheckedBatch::check_stored(hollow, MESSAGE_BYTES_MAX);
                assert_eq!(pieces(&hollow.expect("it was made"), 0), 0);
            }
        }
        Err(error) => {
            assert!(spans > limits::THINNED_SPAN_MAX, "{error}");
            names_an_error(&error);
        }
    }
}

/// Reads what it stands for, from an offset on; tells how many records that are.
fn pieces(batch: &CheckedBatch, base: u64) -> u64 {
    let (mut at, mut records) = (Offset::new(base), 0);
    for piece in expand(at, batch).expect("it was checked") {
        match piece {
            Piece::Gap(gap) => {
                assert!(gap.from == at && gap.to > at);
                at = gap.to;
            }
            Piece::Batch(first, bytes) => {
                assert_eq!(first, at);
                let plain = CheckedBatch::check(bytes, MESSAGE_BYTES_MAX).expect("a plain one");
                assert_eq!(plain.ttl(), batch.ttl());
                let count = u64::from(plain.header().record_count);
                at = at.saturating_add(count);
                records += count;
            }
        }
    }
    assert_eq!(at.get(), base + u64::from(batch.header().span()));
    assert_eq!(records, u64::from(batch.header().record_count));
    records
}

/// Reads the records of a batch which a closer look would have refused with `refused`.
fn records(batch: &CheckedBatch, refused: Option<&BatchError>) {
    let count = batch.header().record_count as usize;
    let unpacked = match batch.records() {
        Ok(records) => records,
        // Holes are looked at before anything is unpacked.
        Err(_) if matches!(refused, Some(BatchError::Holes { .. })) => return,
        Err(error) => return assert_eq!(refused, Some(&error)),
    };
    let found: Vec<_> = unpacked.clone().collect();
    let mut borrowed = unpacked;
    for record in &found {
        let same = match (record, borrowed.next_ref()) {
            (Ok(owned), Some(Ok(borrowed))) => {
                let headers = owned.headers.iter().map(|h| (&h.name[..], &h.value[..]));
                owned.timestamp == borrowed.timestamp
                    && owned.key.as_deref() == borrowed.key
                    && owned.value == borrowed.value
                    && headers.eq(borrowed.headers())
            }
            (Err(owned), Some(Err(borrowed))) => *owned == borrowed,
            _ => false,
        };
        assert!(same, "a record reads in two ways: {record:?}");
    }
    assert!(borrowed.next_ref().is_none() && found.len() <= count);
    let whole: Result<Vec<Record>, BatchError> = found.into_iter().collect();
    match (whole, refused) {
        (Ok(records), None) => {
            assert_eq!(records.len(), count);
            if batch.header().thinned.is_none() {
                rebuilt(batch, &records);
            }
        }
        // What a reader of stored records does not look at.
        (
            Ok(_),
            Some(
                BatchError::MaxTimestamp { .. }
                | BatchError::Id { .. }
                | BatchError::MessageTooLarge { .. }
                | BatchError::Holes { .. },
            ),
        ) => {}
        (Err(error), Some(refused)) => {
            // Whichever of its faults is met first.
            names_an_error(&error);
            names_an_error(refused);
        }
        (found, refused) => panic!("{found:?} was read, and {refused:?} is said of the batch"),
    }
}

/// A batch has one reading, and records have one batch.
fn rebuilt(batch: &CheckedBatch, records: &[Record]) {
    let header = batch.header();
    let origin = Origin {
        producer: header.producer,
        epoch: header.producer_epoch,
        first: header.first_sequence,
        has_id: header.has_id,
        ttl: batch.ttl(),
    };
    let Some(again) = build(records, Compression::None, &origin) else {
        return;
    };
    let again = CheckedBatch::check(again, MESSAGE_BYTES_MAX).expect("its records were checked");
    if again.header().base_timestamp == header.base_timestamp
        && header.compression == Compression::None
    {
        assert_eq!(again.bytes(), batch.bytes());
    }
    let read: Vec<_> = again.records().expect("not packed").collect();
    let expected: Vec<_> = records.iter().cloned().map(Ok).collect();
    assert_eq!(read, expected);
}

/// `None` where the records stand further apart than any number of milliseconds.
fn build(records: &[Record], compression: Compression, origin: &Origin) -> Option<Bytes> {
    let mut builder = BatchBuilder::new(compression);
    for record in records {
        let pushed = builder.try_push(&RecordToSend {
            timestamp: record.timestamp,
            key: record.key.as_deref(),
            headers: &record.headers,
            value: &record.value,
        });
        if let Err(error) = pushed {
            names_an_error(&error);
            return None;
        }
    }
    builder.build_as(origin).ok()
}

/// What was put into a batch comes out of it, packed or not.
fn built(recipe: &[u8], how: u8) {
    let mut input = Input(recipe);
    let mut records = Vec::new();
    while !input.0.is_empty() && records.len() < 64 {
        let shape = input.byte();
        let headers = (0..shape & 3).map(|_| Header {
            name: input.text(),
            value: input.bytes(),
        });
        let headers = headers.collect();
        records.push(Record {
            timestamp: Timestamp::from_millis(match shape & 4 {
                0 => i64::from(input.byte()),
                _ => input.u64().cast_signed(),
            }),
            key: (shape & 8 != 0).then(|| input.bytes()),
            headers,
            // Repeated, so that packing has something to do.
            value: input.bytes().repeat(usize::from(shape >> 4) + 1).into(),
        });
    }
    let origin = Origin {
        producer: ProducerId::from_bytes([how; 16]),
        epoch: ProducerEpoch::new(u32::from(how & 1)),
        first: Sequence::new(7),
        has_id: false,
        ttl: None,
    };
    for compression in [Compression::None, Compression::Lz4, Compression::Zstd] {
        let Some(bytes) = build(&records, compression, &origin) else {
            continue;
        };
        let batch = CheckedBatch::check(bytes, limits::MESSAGE_BYTES_MAX).expect("just built");
        let read: Result<Vec<_>, _> = batch.records().expect("just packed").collect();
        assert_eq!(read.as_ref(), Ok(&records));
    }
}
