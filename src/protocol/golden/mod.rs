//! Golden vectors: what every body looks like in bytes, pinned in
//! `data/fixtures/protocol/vectors.txt`.
//!
//! A change of these bytes is a change of the protocol. A vector is a line
//! `[name]` and hexadecimal lines up to the next one; `#` begins a comment.
//! Each is compared in both directions: what the code encodes, and what it
//! decodes. For lz4 and zstd only decoding is pinned, because another version of
//! a compressor may rightly find other bytes for the same records.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::api::{Api, Done, Hello, Ping, Request};
use super::batch::{
    BatchBuilder, BatchError, CheckedBatch, Compression, Header, Origin, Record, RecordToSend,
};
use super::codec::Malformed;
use super::data::{
    Credit, Fetch, FetchItem, Fetched, Publish, PublishExpecting, Published, StoredBatch, Stream,
};
use super::error::ApiError;
use super::frame::{Frame, FrameHeader};
use super::taken::Taken;
use crate::limits;
use crate::types::{Durability, Gap, GapReason, LeaderEpoch, Offset, ProducerId, Sequence};

mod consumers;
mod errors;
mod later;
mod samples;

pub(super) use errors::errors;
pub(super) use samples::samples;
use samples::{gap, hello, hello_answer, id, time, topic, topic_id};

const VECTORS: &str = include_str!("../../../data/fixtures/protocol/vectors.txt");

/// The vectors by name.
pub(super) fn vectors() -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::<String, Vec<u8>>::new();
    let mut name = String::new();
    for line in VECTORS.lines() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if let Some(new) = line.strip_prefix('[') {
            name = new.trim_end_matches(']').to_owned();
            let twice = found.insert(name.clone(), Vec::new());
            assert!(twice.is_none(), "{name} stands there twice");
        } else if !line.is_empty() {
            let digits: String = line.split_whitespace().collect();
            let bytes = (0..digits.len()).step_by(2);
            let bytes = bytes.map(|at| u8::from_str_radix(&digits[at..at + 2], 16));
            let bytes: Vec<u8> = bytes.collect::<Result<_, _>>().expect("hexadecimal");
            found.get_mut(&name).expect("a name first").extend(bytes);
        }
    }
    found
}

fn records() -> Vec<Record> {
    let header = |name: &str, value: &'static [u8]| Header {
        name: name.to_owned(),
        value: Bytes::from_static(value),
    };
    let record = |more, key: Option<&'static [u8]>, value: &'static [u8]| Record {
        timestamp: time(more),
        key: key.map(Bytes::from_static),
        headers: Vec::new(),
        value: Bytes::from_static(value),
    };
    let mut with_headers = record(-2, None, b"earlier, with headers");
    with_headers.headers = vec![header("größe", b"3.4"), header("", b"\x00\xff")];
    let quake = record(0, Some(b"ci38110719"), b"magnitude 3.4, magnitude 3.4, magnitude 3.4, magnitude 3.4, magnitude 3.4, magnitude 3.4, magnitude 3.4, magnitude 3.4, magnitude 3.4, magnitude 3.4");
    vec![quake, with_headers, record(200, Some(b""), b"")]
}

fn batch(compression: Compression) -> Bytes {
    batch_that_lives(compression, None)
}

/// The same records, as long as they live.
fn batch_that_lives(compression: Compression, ttl: Option<Duration>) -> Bytes {
    let mut builder = BatchBuilder::new(compression);
    for record in &records() {
        let record = RecordToSend {
            timestamp: record.timestamp,
            key: record.key.as_deref(),
            headers: &record.headers,
            value: &record.value,
        };
        builder.try_push(&record).expect("it fits");
    }
    let origin = Origin {
        producer: ProducerId::from_bytes(id(0x40)),
        first: Sequence::new(7),
        ttl,
        ..Origin::default()
    };
    builder.build_as(&origin).expect("there are records")
}

fn batch_for_a_minute() -> Bytes {
    batch_that_lives(Compression::None, Some(Duration::from_secs(60)))
}

/// Everything that does not go through bincode, by name.
fn raw() -> Vec<(&'static str, Vec<u8>)> {
    let request = [
        &Publish::header(topic_id(), LeaderEpoch::new(4))[..],
        &batch(Compression::None),
    ]
    .concat();
    let expecting = [
        &PublishExpecting::header(topic_id(), LeaderEpoch::new(4), Offset::new(1_707))[..],
        &batch(Compression::None),
    ]
    .concat();
    let error = ApiError::TopicNotFound { name: topic() }.encode();
    let part = Ok(fetched().encode().concat());
    vec![
        ("frame.hello", frame(1, 0, 0, hello().encode())),
        (
            "frame.hello-answer",
            frame(1, 1, 0, Hello::encode_answer(&hello_answer())),
        ),
        ("frame.ping", frame(2, 0, 1, Ping {}.encode())),
        (
            "frame.ping-answer",
            frame(2, 1, 1, Ping::encode_answer(&Done {})),
        ),
        ("frame.error", frame(10, 3, 0x0102_0304, Ok(error))),
        ("batch.none", batch(Compression::None).to_vec()),
        ("batch.lz4", batch(Compression::Lz4).to_vec()),
        ("batch.zstd", batch(Compression::Zstd).to_vec()),
        ("batch.ttl", batch_for_a_minute().to_vec()),
        ("Publish.request", request),
        ("Publish.answer", published().encode().to_vec()),
        ("PublishExpecting.request", expecting),
        ("PublishExpecting.answer", published().encode().to_vec()),
        ("Fetch.request", fetch().encode()),
        ("Fetch.answer", fetched().encode().concat()),
        ("Fetch.answer-gaps", gaps().encode().concat()),
        ("Stream.request", stream().encode()),
        ("Stream.answer", fetched().encode().concat()),
        ("frame.stream-answer", frame(52, 5, 1, part)),
        ("frame.stream-keep-alive", frame(52, 5, 1, Ok(Vec::new()))),
        (
            "TakeRecords.answer",
            consumers::taken(batch(Compression::None)).encode().concat(),
        ),
    ]
}

fn frame(api: u16, flags: u8, correlation: u32, body: Result<Vec<u8>, Malformed>) -> Vec<u8> {
    let header = FrameHeader {
        api,
        version: 1,
        flags,
        correlation,
    };
    let body = body.expect("samples are small").into();
    Frame { header, body }.encode()
}

fn published() -> Published {
    Published {
        base_offset: Offset::new(1_707),
        end_offset: Offset::new(1_710),
        durability: Durability::Os,
        duplicate: true,
    }
}

fn fetch() -> Fetch {
    Fetch {
        topic: topic_id(),
        epoch: LeaderEpoch::new(4),
        offset: Offset::new(20),
        max_bytes: 1 << 20,
        min_bytes: 1,
        max_wait_ms: 5_000,
        pass_damage: true,
    }
}

fn stream() -> Stream {
    Stream {
        topic: topic_id(),
        epoch: LeaderEpoch::new(4),
        offset: Offset::new(20),
        max_bytes: 1 << 20,
        credit: Credit {
            bytes: 1 << 22,
            records: 1 << 16,
        },
        keep_alive_ms: 300,
        pass_damage: true,
    }
}

fn fetched() -> Fetched {
    Fetched {
        start_offset: Offset::new(10),
        end_offset: Offset::new(40),
        next_offset: Offset::new(33),
        items: vec![
            FetchItem::Gap(gap(GapReason::Damaged)),
            FetchItem::Batch(StoredBatch {
                base_offset: Offset::new(30),
                epoch: LeaderEpoch::new(4),
                append_time: time(500),
                batch: batch(Compression::None),
            }),
        ],
    }
}

/// An answer with every reason there is.
fn gaps() -> Fetched {
    let gap = |(from, reason)| {
        FetchItem::Gap(Gap {
            from: Offset::new(from),
            to: Offset::new(from + 1),
            reason,
        })
    };
    let reasons = [
        GapReason::Discarded,
        GapReason::Lost,
        GapReason::Damaged,
        GapReason::Compacted,
        GapReason::Expired,
        GapReason::Purged,
    ];
    Fetched {
        start_offset: Offset::new(21),
        end_offset: Offset::new(26),
        next_offset: Offset::new(26),
        items: (20..).zip(reasons).map(gap).collect(),
    }
}

#[test]
fn bodies_are_the_bytes_they_always_were() {
    let vectors = vectors();
    let mut different = String::new();
    let mut compare = |name: &str, bytes: &[u8]| {
        if vectors.get(name).map(Vec::as_slice) != Some(bytes) {
            let _ = writeln!(different, "\n[{name}]\n{}", hex(bytes));
        }
    };
    for (name, bytes) in raw() {
        if !["batch.lz4", "batch.zstd"].contains(&name) || !vectors.contains_key(name) {
            compare(name, &bytes);
        }
    }
    for sample in samples() {
        compare(&sample.name, &sample.bytes);
    }
    for error in errors() {
        compare(&format!("error.{}", error.name()), &error.encode());
    }
    assert!(different.is_empty(), "the code encodes:{different}");
}

fn hex(bytes: &[u8]) -> String {
    let line = |line: &[u8]| {
        line.iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
    };
    bytes.chunks(40).map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_bytes_decode_to_what_they_always_did() {
    let vectors = vectors();
    for sample in samples() {
        let bytes = &vectors[&sample.name];
        assert!((sample.decodes)(bytes), "{}", sample.name);
    }
    for error in errors() {
        let bytes = &vectors[&format!("error.{}", error.name())];
        assert_eq!(ApiError::decode(bytes), Ok(error));
    }
    for name in vectors.keys().filter(|name| name.starts_with("frame.")) {
        let mut buffer = BytesMut::from(&vectors[name][..]);
        let frame = Frame::parse(&mut buffer, limits::HELLO_FRAME_BYTES_MAX);
        let frame = frame.expect("good").expect("whole");
        assert!(buffer.is_empty());
        assert_eq!(frame.encode(), vectors[name], "{name}");
    }
    let bytes = |name: &str| Bytes::from(vectors[name].clone());
    let publish = Publish::decode(bytes("Publish.request")).expect("whole");
    assert_eq!(
        (publish.topic, publish.epoch.get(), &publish.batch),
        (topic_id(), 4, &bytes("batch.none"))
    );
    let expecting = PublishExpecting::decode(bytes("PublishExpecting.request")).expect("whole");
    assert_eq!(expecting.expected_end, Offset::new(1_707));
    assert_eq!(expecting.publish, publish);
    for name in ["Publish.answer", "PublishExpecting.answer"] {
        assert_eq!(Published::decode(bytes(name)), Ok(published()));
    }
    assert_eq!(Fetch::decode(bytes("Fetch.request")), Ok(fetch()));
    assert_eq!(Fetched::decode(bytes("Fetch.answer")), Ok(fetched()));
    assert_eq!(Fetched::decode(bytes("Fetch.answer-gaps")), Ok(gaps()));
    let passing = CheckedBatch::check(bytes("batch.ttl"), limits::MESSAGE_BYTES_DEFAULT);
    let passing = passing.expect("it is good");
    assert_eq!(passing.ttl(), Some(Duration::from_secs(60)));
    assert_eq!(Stream::decode(bytes("Stream.request")), Ok(stream()));
    assert_eq!(Fetched::decode(bytes("Stream.answer")), Ok(fetched()));
    let taken = consumers::taken(bytes("batch.none"));
    assert_eq!(Taken::decode(bytes("TakeRecords.answer")), Ok(taken));
}

#[test]
fn batches_in_every_compression_hold_the_same_records() {
    let vectors = vectors();
    let all = [Compression::None, Compression::Lz4, Compression::Zstd];
    for compression in all {
        let bytes = vectors[&format!("batch.{compression}")].clone();
        let batch = CheckedBatch::check(bytes.into(), limits::MESSAGE_BYTES_DEFAULT);
        let batch = batch.expect("it is good");
        assert_eq!(batch.header().compression, compression);
        let read: Result<Vec<_>, _> = batch.records().expect("it unpacks").collect();
        assert_eq!(read.expect("every record reads"), records());
    }
}

#[test]
fn refused_batches_are_refused() {
    let vectors = vectors();
    let refused = vectors.keys().filter(|name| name.starts_with("refused."));
    let mut count = 0;
    for name in refused {
        let bytes = Bytes::from(vectors[name].clone());
        let checked = CheckedBatch::check(bytes, limits::MESSAGE_BYTES_DEFAULT);
        let error = checked.expect_err(name);
        let by_checksum = matches!(error, BatchError::Crc { .. });
        assert_eq!(by_checksum, name == "refused.checksum", "{name}: {error}");
        count += 1;
    }
    assert!(count >= 5);
}

#[test]
fn there_is_a_vector_for_everything_and_nothing_else() {
    let mut wanted: Vec<String> = raw().into_iter().map(|(name, _)| name.to_owned()).collect();
    for api in Api::ALL {
        for kind in ["request", "answer"] {
            wanted.push(format!("{}.{kind}", api.name()));
        }
    }
    wanted.extend(errors().iter().map(|e| format!("error.{}", e.name())));
    wanted.sort();
    wanted.dedup();
    let found: Vec<String> = vectors()
        .into_keys()
        .filter(|name| !name.starts_with("refused."))
        .collect();
    assert_eq!(found, wanted);
}
