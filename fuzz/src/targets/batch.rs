//! Record batches, as publishers send them and as they are stored.

use bytes::Bytes;
use tidings::limits;
use tidings::protocol::batch::{
    BATCH_MAGIC, BATCH_VERSION, BatchBuilder, BatchError, CheckedBatch, Compression, HEADER_BYTES,
    Header, Origin, Record, RecordToSend,
};
use tidings::time::Timestamp;
use tidings::types::{ProducerEpoch, ProducerId, Sequence};

use super::{Input, names_an_error};

/// Where the fields of a header lie.
const ATTRIBUTES: usize = 7;
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
    if batch[ATTRIBUTES] == 0 {
        batch[UNPACKED..UNPACKED + 4].copy_from_slice(&length.to_le_bytes());
    }
    let crc = tidings::journal::crc32c(&batch[4..]);
    batch[..4].copy_from_slice(&crc.to_le_bytes());
    batch.into()
}

fn check(bytes: Bytes) {
    let checked = CheckedBatch::check(bytes.clone(), MESSAGE_BYTES_MAX);
    match &checked {
        Ok(batch) => assert_eq!(batch.bytes(), &bytes),
        Err(error) => names_an_error(error),
    }
    // Stored batches are looked at less closely, and their records one by one.
    match CheckedBatch::check_crc(bytes) {
        Ok(stored) => records(&stored, checked.err().as_ref()),
        Err(error) => assert_eq!(checked.err(), Some(error)),
    }
}

/// Reads the records of a batch which a closer look would have refused with `refused`.
fn records(batch: &CheckedBatch, refused: Option<&BatchError>) {
    let count = batch.header().record_count as usize;
    let unpacked = match batch.records() {
        Ok(records) => records,
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
            rebuilt(batch, &records);
        }
        // The one thing a reader of stored records does not compare.
        (Ok(_), Some(BatchError::MaxTimestamp { .. } | BatchError::MessageTooLarge { .. })) => {}
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
