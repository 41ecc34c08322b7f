use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::*;
use crate::limits;
use crate::types::{ProducerEpoch, ProducerId, Sequence};

const ALL: [Compression; 3] = [Compression::None, Compression::Lz4, Compression::Zstd];
const MESSAGE_MAX: usize = limits::MESSAGE_BYTES_DEFAULT;

fn record(timestamp: i64, key: Option<&'static str>, value: &[u8]) -> Record {
    Record {
        timestamp: Timestamp::from_millis(timestamp),
        key: key.map(|key| Bytes::from_static(key.as_bytes())),
        headers: Vec::new(),
        value: Bytes::copy_from_slice(value),
    }
}

fn some_records() -> Vec<Record> {
    let mut with_headers = record(1_005, Some(""), b"");
    with_headers.headers = vec![
        Header {
            name: "größe".to_owned(),
            value: Bytes::from_static(&[0xff, 0]),
        },
        Header {
            name: String::new(),
            value: Bytes::new(),
        },
    ];
    vec![
        record(1_000, Some("ci38110719"), &b"magnitude ".repeat(20)),
        record(-7, None, b"before the first"),
        with_headers,
    ]
}

fn to_send(record: &Record) -> RecordToSend<'_> {
    RecordToSend {
        timestamp: record.timestamp,
        key: record.key.as_deref(),
        headers: &record.headers,
        value: &record.value,
    }
}

fn build(compression: Compression, records: &[Record]) -> Bytes {
    let mut builder = BatchBuilder::new(compression);
    for record in records {
        builder.try_push(&to_send(record)).expect("it fits");
    }
    let producer = ProducerId::from_bytes([7; 16]);
    builder
        .build(producer, Sequence::new(41))
        .expect("there are records")
}

fn check(bytes: impl Into<Bytes>) -> Result<CheckedBatch, BatchError> {
    CheckedBatch::check(bytes.into(), MESSAGE_MAX)
}

fn read(batch: &CheckedBatch) -> Vec<Record> {
    let records = batch.records().expect("it unpacks");
    records
        .collect::<Result<_, _>>()
        .expect("every record reads")
}

/// A batch with a right checksum around whatever the header and the payload claim.
struct Forged {
    attributes: u8,
    count: u32,
    unpacked: u32,
    base: i64,
    newest: i64,
    payload: Vec<u8>,
}

impl Forged {
    fn plain(count: u32, payload: &[u8]) -> Self {
        Self {
            attributes: 0,
            count,
            unpacked: payload.len() as u32,
            base: 0,
            newest: 0,
            payload: payload.to_vec(),
        }
    }

    fn packed(attributes: u8, unpacked: usize, payload: Vec<u8>) -> Self {
        Self {
            attributes,
            unpacked: unpacked as u32,
            ..Self::plain(1, &payload)
        }
    }

    fn bytes(&self) -> Vec<u8> {
        let header = BatchHeader {
            crc: 0,
            compression: Compression::None,
            length: self.payload.len() as u32,
            record_count: self.count,
            unpacked_length: self.unpacked,
            base_timestamp: Timestamp::from_millis(self.base),
            max_timestamp: Timestamp::from_millis(self.newest),
            producer: ProducerId::zero(),
            producer_epoch: ProducerEpoch::ZERO,
            first_sequence: Sequence::ZERO,
            has_id: false,
            has_ttl: false,
            thinned: None,
        };
        let mut bytes = [&[0; HEADER_BYTES][..], &self.payload].concat();
        header.seal(&mut bytes);
        bytes[7] = self.attributes;
        reseal(bytes)
    }

    fn check(&self) -> Result<CheckedBatch, BatchError> {
        check(self.bytes())
    }
}

fn reseal(mut bytes: Vec<u8>) -> Vec<u8> {
    let crc = crc_fast::crc32_iscsi(&bytes[4..]);
    bytes[..4].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// The smallest record: no key, no headers, no value.
const EMPTY_RECORD: [u8; 5] = [4, 0, 0, 0, 0];

#[test]
fn batches_round_trip_in_every_compression() {
    for compression in ALL {
        let records = some_records();
        let batch = check(build(compression, &records)).expect("it is good");
        let header = batch.header();
        assert_eq!(header.compression, compression);
        assert_eq!(header.record_count, 3);
        assert_eq!(header.base_timestamp.as_millis(), 1_000);
        assert_eq!(header.max_timestamp.as_millis(), 1_005);
        assert_eq!(header.producer, ProducerId::from_bytes([7; 16]));
        assert_eq!(header.next_sequence(), Sequence::new(44));
        assert_eq!(header.batch_bytes(), batch.bytes().len());
        assert_eq!(read(&batch), records);
        let again = CheckedBatch::check_crc(batch.bytes().clone()).expect("it is good");
        assert_eq!(read(&again), records);
    }
}

#[test]
fn what_does_not_shrink_goes_uncompressed() {
    for compression in ALL {
        let batch = check(build(compression, &[record(0, None, b"short")])).expect("good");
        assert_eq!(batch.header().compression, Compression::None);
    }
}

#[test]
fn a_builder_makes_one_batch_after_the_other() {
    for compression in ALL {
        let mut builder = BatchBuilder::new(compression);
        for round in 0..3_u8 {
            assert!(builder.is_empty());
            let record = record(i64::from(round), None, &[round; 300]);
            builder.try_push(&to_send(&record)).expect("it fits");
            let bytes = builder.build(ProducerId::zero(), Sequence::ZERO);
            let batch = check(bytes.expect("one record")).expect("good");
            assert_eq!(read(&batch), [record]);
        }
        let nothing = builder.build(ProducerId::zero(), Sequence::ZERO);
        assert!(matches!(nothing, Err(BatchError::Count { found: 0, .. })));
    }
}

#[test]
fn a_builder_tells_its_length_beforehand() {
    let mut builder = BatchBuilder::new(Compression::None);
    let records = some_records();
    for record in &records {
        let record = to_send(record);
        let after = builder.len_bytes() + record.encoded_bytes(records[0].timestamp);
        assert!(builder.fits(&record, after));
        assert!(builder.is_empty() || !builder.fits(&record, after - 1));
        builder.try_push(&record).expect("it fits");
        assert_eq!(builder.len_bytes(), after);
    }
    let length = builder.len_bytes();
    let batch = builder.build(ProducerId::zero(), Sequence::ZERO);
    assert_eq!(batch.expect("records").len(), length);
}

#[test]
fn a_builder_refuses_what_fits_nowhere_and_keeps_the_rest() {
    let mut builder = BatchBuilder::new(Compression::None);
    let good = record(i64::MAX, Some("k"), b"v");
    builder.try_push(&to_send(&good)).expect("it fits");

    let far = record(-2, None, b"");
    assert_eq!(builder.try_push(&to_send(&far)), Err(PushError::Full));

    let large = record(0, None, &vec![0; limits::MESSAGE_BYTES_MAX + 1]);
    let refused = builder.try_push(&to_send(&large));
    let too_large = |bytes| {
        PushError::Refused(BatchError::MessageTooLarge {
            bytes,
            max: bytes - 1,
        })
    };
    assert_eq!(refused, Err(too_large(large.value.len() as u64)));

    let key = vec![0; limits::KEY_BYTES_MAX + 1];
    let keyed = RecordToSend {
        key: Some(&key),
        ..to_send(&good)
    };
    assert!(matches!(
        builder.try_push(&keyed),
        Err(PushError::Refused(_))
    ));
    let header = Header {
        name: "h".to_owned(),
        value: Bytes::new(),
    };
    let headers = vec![header; limits::HEADERS_MAX + 1];
    let headed = RecordToSend {
        headers: &headers,
        ..to_send(&good)
    };
    assert!(matches!(
        builder.try_push(&headed),
        Err(PushError::Refused(_))
    ));
    let overflow = builder.build(ProducerId::zero(), Sequence::new(u64::MAX));
    assert!(matches!(overflow, Err(BatchError::SequenceOverflow { .. })));

    let batch = builder.build(ProducerId::zero(), Sequence::ZERO);
    assert_eq!(read(&check(batch.expect("one")).expect("good")), [good]);
}

#[test]
fn the_largest_message_fits_and_one_more_record_does_not() {
    let mut builder = BatchBuilder::new(Compression::None);
    let headers = vec![
        Header {
            name: "name".to_owned(),
            value: Bytes::from_static(&[1; 252]),
        };
        limits::HEADERS_MAX
    ];
    let value = vec![0; limits::MESSAGE_BYTES_MAX - limits::KEY_BYTES_MAX - 256 * 256];
    let largest = RecordToSend {
        timestamp: Timestamp::from_millis(5),
        key: Some(&[2; limits::KEY_BYTES_MAX]),
        headers: &headers,
        value: &value,
    };
    assert_eq!(largest.message_bytes(), limits::MESSAGE_BYTES_MAX);
    builder.try_push(&largest).expect("it fits");
    assert_eq!(builder.try_push(&largest), Err(PushError::Full));
    let bytes = builder.build(ProducerId::zero(), Sequence::ZERO);
    let bytes = bytes.expect("one record");
    assert!(bytes.len() <= limits::BATCH_BYTES_MAX);
    assert!(CheckedBatch::check(bytes.clone(), limits::MESSAGE_BYTES_MAX).is_ok());
    let below = limits::MESSAGE_BYTES_MAX - 1;
    assert_eq!(
        CheckedBatch::check(bytes, below),
        Err(BatchError::MessageTooLarge {
            bytes: below as u64 + 1,
            max: below as u64,
        })
    );
}

#[test]
fn every_truncation_and_every_longer_batch_is_refused() {
    for compression in ALL {
        let bytes = build(compression, &some_records());
        for cut in 0..bytes.len() {
            assert!(check(bytes.slice(..cut)).is_err(), "cut at {cut}");
        }
        let longer = [&bytes[..], &[0]].concat();
        assert!(check(longer).is_err());
    }
}

#[test]
fn every_flipped_bit_is_refused() {
    for compression in ALL {
        let bytes = build(compression, &some_records());
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut flipped = bytes.to_vec();
                flipped[at] ^= 1 << bit;
                let flipped = Bytes::from(flipped);
                assert!(check(flipped.clone()).is_err(), "byte {at} bit {bit}");
                assert!(CheckedBatch::check_crc(flipped).is_err());
            }
        }
    }
}

#[test]
fn the_header_has_one_reading() {
    let good = build(Compression::None, &some_records()).to_vec();
    let with = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        check(reseal(bytes)).expect_err("it is wrong")
    };
    assert!(matches!(with(4, 0), BatchError::Magic { .. }));
    assert_eq!(with(6, 2), BatchError::Version { found: 2 });
    for attributes in [3, 7, 8, 0x80] {
        let found = attributes;
        assert_eq!(with(7, attributes), BatchError::Attributes { found });
    }
    assert!(matches!(with(8, 1), BatchError::Length { .. }));
    assert!(matches!(with(11, 0x7f), BatchError::TooLarge { .. }));
    assert!(matches!(with(12, 0), BatchError::Count { found: 0, .. }));
    assert!(matches!(with(16, 9), BatchError::Length { .. }));
    let mut nobodys = good.clone();
    nobodys[20] = 1;
    let named = check(reseal(nobodys.clone())).expect("an epoch of the producer");
    assert_eq!(named.header().producer_epoch.get(), 1);
    nobodys[40..56].fill(0);
    let nobodys = check(reseal(nobodys));
    assert_eq!(nobodys, Err(BatchError::Epoch { found: 1 }));
    let mut late = good.clone();
    late[56..64].copy_from_slice(&(u64::MAX - 1).to_le_bytes());
    let late = check(reseal(late));
    assert!(matches!(late, Err(BatchError::SequenceOverflow { .. })));
}

#[test]
fn false_counts_are_refused() {
    let three = EMPTY_RECORD.repeat(3);
    assert!(Forged::plain(3, &three).check().is_ok());
    let fewer = Forged::plain(2, &three).check();
    assert_eq!(fewer, Err(BatchError::LeftOver { bytes: 5 }));
    let more = Forged::plain(4, &three).check();
    assert_eq!(more, Err(BatchError::Count { found: 4, max: 3 }));
    let two_in_room_for_three = [&EMPTY_RECORD[..], &[9, 0, 0, 0, 0, 1, 2, 3, 4, 5]].concat();
    let record = Forged::plain(3, &two_in_room_for_three).check();
    assert!(matches!(record, Err(BatchError::Record { index: 2, .. })));
    let many = EMPTY_RECORD.repeat(limits::BATCH_RECORDS_MAX as usize + 1);
    let count = Forged::plain(limits::BATCH_RECORDS_MAX + 1, &many).check();
    assert!(matches!(count, Err(BatchError::Count { .. })));
    let most = &many[5..];
    assert!(
        Forged::plain(limits::BATCH_RECORDS_MAX, most)
            .check()
            .is_ok()
    );
}

#[test]
fn records_that_are_not_what_they_say_are_refused() {
    let cases: &[(&str, &[u8])] = &[
        ("a length past the end", &[5, 0, 0, 0, 0]),
        ("a length that is too small", &[3, 0, 0, 0, 0]),
        (
            "a length above every bound",
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1],
        ),
        ("a length longer than needed", &[0x84, 0, 0, 0, 0, 0]),
        ("an attribute", &[4, 1, 0, 0, 0]),
        ("a key past the end", &[4, 0, 0, 3, 0]),
        ("a header count past the end", &[4, 0, 0, 0, 1]),
        ("257 headers", &[6, 0, 0, 0, 0x81, 2, 0]),
        ("a name that is not UTF-8", &[7, 0, 0, 0, 1, 1, 0xff, 0]),
        ("a name past the end", &[6, 0, 0, 0, 1, 9, 0]),
        ("a header value past the end", &[7, 0, 0, 0, 1, 1, b'a', 1]),
        ("an endless varint", &[5, 0, 0x80, 0x80, 0x80, 0x80]),
    ];
    for (name, payload) in cases {
        let checked = Forged::plain(1, payload).check();
        let refused = matches!(checked, Err(BatchError::Record { index: 0, .. }));
        assert!(refused, "{name}: {checked:?}");
    }
    let mut keyed = vec![0, 0];
    record::put_varint(&mut keyed, limits::KEY_BYTES_MAX as u64 + 2);
    keyed.resize(keyed.len() + limits::KEY_BYTES_MAX + 1, b'k');
    keyed.push(0);
    let mut payload = Vec::new();
    record::put_counted(&mut payload, &keyed);
    let too_long_a_key = Forged::plain(1, &payload).check();
    assert!(matches!(
        too_long_a_key,
        Err(BatchError::Record { index: 0, .. })
    ));
}

#[test]
fn timestamps_are_what_the_header_says() {
    let minus_one = [4, 0, 1, 0, 0];
    let wrong = Forged::plain(1, &minus_one).check();
    assert_eq!(wrong, Err(BatchError::MaxTimestamp { told: 0, found: -1 }));
    let right = Forged {
        newest: -1,
        ..Forged::plain(1, &minus_one)
    };
    assert!(right.check().is_ok());
    let overflow = Forged {
        base: i64::MIN,
        ..Forged::plain(1, &minus_one)
    };
    assert!(matches!(overflow.check(), Err(BatchError::Record { .. })));
}

#[test]
fn reading_an_unchecked_record_is_an_error_and_then_the_end() {
    for (count, payload) in [(2, [4, 0, 0, 0, 0, 4, 1, 0, 0, 0]), (1, [4; 10])] {
        let bytes = Forged::plain(count, &payload).bytes();
        let batch = CheckedBatch::check_crc(bytes.into()).expect("the checksum holds");
        let read: Vec<_> = batch.records().expect("not packed").collect();
        assert!(read.last().expect("an item").is_err());
        assert_eq!(read.iter().filter(|item| item.is_err()).count(), 1);
        assert_eq!(read.len() as u32, count);
    }
}

#[test]
fn lz4_bombs_are_refused_before_memory_is_taken() {
    let most = limits::BATCH_BYTES_UNPACKED_MAX - HEADER_BYTES;
    let bomb = Forged::packed(1, most, vec![0xff; 64]);
    assert!(matches!(bomb.check(), Err(BatchError::Unpack { .. })));
    let above = Forged::packed(1, most + 1, vec![0xff; 64]);
    assert!(matches!(above.check(), Err(BatchError::TooLarge { .. })));
    let zeros = vec![0; 100_000];
    let packed = lz4_flex::block::compress(&zeros);
    for false_length in [99_999, 100_001] {
        let false_length = Forged::packed(1, false_length, packed.clone());
        assert!(false_length.check().is_err());
    }
}

#[test]
fn zstd_bombs_are_refused_before_memory_is_taken() {
    let zeros = vec![0; 32 * limits::MIB];
    let told = zstd::bulk::compress(&zeros, 1).expect("it packs");
    let told = Forged::packed(2, 1_000, told);
    assert!(matches!(told.check(), Err(BatchError::Unpack { .. })));
    // A streaming encoder does not know the size beforehand, so the frame does not tell it.
    let untold = zstd::stream::encode_all(&zeros[..], 1).expect("it packs");
    for unpacked in [1_000, limits::BATCH_BYTES_UNPACKED_MAX - HEADER_BYTES] {
        let bomb = Forged::packed(2, unpacked, untold.clone());
        assert!(matches!(bomb.check(), Err(BatchError::Unpack { .. })));
    }
}

#[test]
fn zstd_is_one_ordinary_frame() {
    let payload = [&[0xc8, 1, 0, 0, 0, 0][..], &[b'x'; 196]].concat();
    let frame = zstd::bulk::compress(&payload, 3).expect("it packs");
    let good = Forged::packed(2, payload.len(), frame.clone());
    assert!(good.check().is_ok());
    let streamed = zstd::stream::encode_all(&payload[..], 3).expect("it packs");
    assert!(Forged::packed(2, payload.len(), streamed).check().is_ok());

    let empty_frame = zstd::bulk::compress(&[], 3).expect("it packs");
    let skippable = [&[0x50, 0x2a, 0x4d, 0x18, 0, 0, 0, 0][..], &frame].concat();
    let mut dictionary = frame.clone();
    dictionary[4] |= 1;
    let window = |byte| vec![0x28, 0xb5, 0x2f, 0xfd, 0, byte, 3, 0, 0];
    for (name, packed) in [
        ("two frames", [&frame[..], &empty_frame].concat()),
        ("a byte after the frame", [&frame[..], &[0]].concat()),
        ("a skippable frame before it", skippable),
        ("a dictionary", dictionary),
        ("a window of 36 MiB", window(15 << 3 | 1)),
        ("the largest window", window(0xff)),
        ("no frame", vec![0; 10]),
        ("four bytes", frame[..4].to_vec()),
        ("five bytes", frame[..5].to_vec()),
        ("nothing", Vec::new()),
    ] {
        let checked = Forged::packed(2, payload.len(), packed).check();
        let refused = matches!(checked, Err(BatchError::Unpack { .. }));
        assert!(refused, "{name}: {checked:?}");
    }
}

#[test]
fn compressions_have_names() {
    for compression in ALL {
        assert_eq!(compression.to_string().parse(), Ok(compression));
        let json = serde_json::to_string(&compression).expect("it is text");
        assert_eq!(json, format!("\"{compression}\""));
    }
    assert!("gzip".parse::<Compression>().is_err());
}

#[test]
fn errors_become_answers() {
    let large = BatchError::MessageTooLarge { bytes: 2, max: 1 };
    assert_eq!(ApiError::from(large).name(), "MessageTooLarge");
    let other = ApiError::from(BatchError::LeftOver { bytes: 1 });
    assert_eq!(other.name(), "BadBatch");
}

fn any_record() -> impl Strategy<Value = Record> {
    let header = (".{0,8}", vec(any::<u8>(), 0..20));
    let header = header.prop_map(|(name, value)| Header {
        name,
        value: value.into(),
    });
    (
        // Half of the range, so that every distance is a number.
        i64::MIN / 2..=i64::MAX / 2,
        option::of(vec(any::<u8>(), 0..200)),
        vec(header, 0..4),
        vec(any::<u8>(), 0..400),
    )
        .prop_map(|(timestamp, key, headers, value)| Record {
            timestamp: Timestamp::from_millis(timestamp),
            key: key.map(Bytes::from),
            headers,
            value: value.into(),
        })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_records_round_trip(records in vec(any_record(), 1..30), which in 0..3_usize) {
        let batch = check(build(ALL[which], &records)).expect("it is good");
        prop_assert_eq!(read(&batch), records.clone());
        let mut borrowed = batch.records().expect("it unpacks");
        for record in &records {
            let found = borrowed.next_ref().expect("one more").expect("it reads");
            prop_assert_eq!(found.value, &record.value[..]);
            prop_assert_eq!(found.headers().len(), record.headers.len());
            prop_assert_eq!(found.message_bytes(), to_send(record).message_bytes());
        }
        prop_assert!(borrowed.next_ref().is_none());
    }

    #[test]
    fn any_bytes_are_refused_or_read_without_a_panic(
        payload in vec(any::<u8>(), 0..200), count in 0..40_u32, attributes in 0..3_u8,
        unpacked in 0..2_000_u32,
    ) {
        let unpacked = if attributes == 0 { payload.len() as u32 } else { unpacked };
        let forged = Forged { attributes, unpacked, ..Forged::plain(count, &payload) };
        let whole = forged.check();
        if let Ok(batch) = CheckedBatch::check_crc(forged.bytes().into()) {
            let all: Result<Vec<_>, _> = batch.records().and_then(Iterator::collect);
            prop_assert!(whole.is_err() || all.is_ok());
        }
    }

    #[test]
    fn damaged_records_behind_a_right_checksum_do_no_harm(
        at in any::<prop::sample::Index>(), byte: u8, which in 0..3_usize,
    ) {
        let mut bytes = build(ALL[which], &some_records()).to_vec();
        let at = HEADER_BYTES + at.index(bytes.len() - HEADER_BYTES);
        bytes[at] = byte;
        if let Ok(batch) = check(reseal(bytes)) {
            prop_assert_eq!(read(&batch).len(), 3);
        }
    }
}
