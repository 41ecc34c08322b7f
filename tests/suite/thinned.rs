//! A topic out of which much was taken, at real processes: whoever reads it, in whichever way, gets what is left
//! and is told the rest.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tempfile::TempDir;
use tidings::client::{Client, ConnectOptions, MemberOptions};
use tidings::limits;
use tidings::protocol::api::Position;
use tidings::protocol::batch::{
    BatchBuilder, CheckedBatch, Compression, RecordToSend, Thin, hollow, thin,
};
use tidings::store::StoreOptions;
use tidings::store::offline::import;
use tidings::store::offline::tdx::{
    ExportInfo, ExportWriter, ExportedBatch, ExportedTopic, Section, TopicTotals,
};
use tidings::time::Timestamp;
use tidings::types::{
    GapReason, Generation, LeaderEpoch, Offset, PeerId, ProducerId, Sequence, TopicId,
    TopicSettings,
};

use crate::cluster::Cluster;

const SOON: Duration = Duration::from_secs(30);
const BATCHES: u64 = 60;
const RECORDS: u64 = 50;

/// Whether a record is gone. Every tenth batch has none left, every other tenth all.
fn reason(offset: u64) -> Option<GapReason> {
    match (offset / RECORDS % 10, offset % 7) {
        (3, _) => Some(GapReason::Compacted),
        (4, _) => None,
        (_, 0 | 1) => Some(GapReason::Compacted),
        (_, 4) => Some(GapReason::Purged),
        _ => None,
    }
}

fn value(offset: u64) -> String {
    format!("value {offset}")
}

/// A batch as a publisher sent it, and what its host has left of it.
fn thinned(base: u64) -> Bytes {
    let how = [Compression::None, Compression::Lz4, Compression::Zstd];
    let mut builder = BatchBuilder::new(how[(base / RECORDS % 3) as usize]);
    for offset in base..base + RECORDS {
        let (key, value) = (format!("key {}", offset % 5), value(offset));
        let record = RecordToSend {
            timestamp: Timestamp::from_millis(1_000 + offset as i64),
            key: Some(key.as_bytes()),
            headers: &[],
            value: value.as_bytes(),
        };
        builder.try_push(&record).expect("it fits");
    }
    let batch = builder.build(ProducerId::zero(), Sequence::ZERO);
    let batch = CheckedBatch::check(batch.expect("records"), limits::MESSAGE_BYTES_MAX);
    let batch = batch.expect("sound");
    match thin(&[], &batch, |at, _| reason(base + u64::from(at))).expect("sound") {
        Thin::Whole => batch.into_bytes(),
        Thin::Rest { batch, .. } => batch,
        Thin::Nothing { holes, .. } => hollow(&holes, batch.header()).expect("some"),
    }
}

fn export() -> Vec<u8> {
    let end = Offset::new(BATCHES * RECORDS);
    let time = Timestamp::now().before(Duration::from_secs(3600));
    let mut totals = TopicTotals::default();
    let batches = (0..BATCHES).map(|n| ExportedBatch {
        base: Offset::new(n * RECORDS),
        epoch: LeaderEpoch::new(1),
        append_time: time,
        batch: thinned(n * RECORDS),
    });
    let batches: Vec<ExportedBatch> = batches.collect();
    totals.batches = BATCHES;
    totals.records = left().len() as u64;
    totals.bytes = batches.iter().map(|batch| batch.batch.len() as u64).sum();
    let info = ExportInfo {
        created: time,
        peer: PeerId::from_bytes([1; 16]),
        peer_name: "alder".to_owned(),
        program: "a test".to_owned(),
        topics: 1,
    };
    let topic = ExportedTopic {
        id: TopicId::from_bytes([2; 16]),
        name: "thin.one".parse().expect("good"),
        epoch: LeaderEpoch::new(1),
        created: time,
        settings: TopicSettings::default(),
        start: Offset::ZERO,
        end,
        generation: Generation::default(),
        last_append: Some(time),
        gaps: Vec::new(),
    };
    let mut writer = ExportWriter::new(Vec::new()).expect("memory");
    let sections = [Section::Export(info), Section::Topic(topic)];
    let sections = sections
        .into_iter()
        .chain(batches.into_iter().map(Section::Batch));
    for section in sections.chain([Section::TopicEnd(totals)]) {
        writer.section(&section).expect("memory");
    }
    writer.finish(1).expect("memory")
}

/// What is left, by offset.
fn left() -> BTreeMap<u64, String> {
    let left = (0..BATCHES * RECORDS).filter(|offset| reason(*offset).is_none());
    left.map(|offset| (offset, value(offset))).collect()
}

/// What is told as missing, in words.
fn gaps() -> Vec<String> {
    let mut gaps: Vec<(u64, u64, GapReason)> = Vec::new();
    for offset in 0..BATCHES * RECORDS {
        match (reason(offset), gaps.last_mut()) {
            (Some(reason), Some(last)) if (last.1, last.2) == (offset, reason) => last.1 += 1,
            (Some(reason), _) => gaps.push((offset, offset + 1, reason)),
            (None, _) => {}
        }
    }
    let in_words = |(from, to, reason)| format!("gap: offsets {from}..{to} are {reason}");
    gaps.into_iter().map(in_words).collect()
}

/// A cluster whose peer has that topic.
fn cluster() -> Cluster {
    let dir = TempDir::new().expect("a scratch directory");
    let options = StoreOptions {
        slot_bytes: 4 << 20,
        ..StoreOptions::new(dir.path().join("peer"))
    };
    import(&options, Cursor::new(export())).expect("imported");
    let cluster = Cluster::start_on(dir);
    // A peer accepts connections before the index has heard of all its topics.
    let deadline = Instant::now() + SOON;
    while !cluster
        .run(&["topic", "ls", "-o", "name"])
        .ok()
        .contains("thin.one")
    {
        assert!(Instant::now() < deadline, "the index never hears of it");
    }
    cluster
}

#[test]
fn readers_get_what_is_left_and_are_told_the_rest() {
    let mut cluster = cluster();
    let expected: String = left().values().map(|value| format!("{value}\n")).collect();
    for restart in [false, true] {
        if restart {
            cluster.peer.kill();
            cluster.restart_peer();
        }
        let all = ["sub", "thin.one", "--from", "beginning", "--until-end"];
        let read = cluster.run(&all);
        assert_eq!(read.stderr.lines().collect::<Vec<_>>(), gaps());
        assert_eq!(read.ok(), expected);
        let pattern = ["sub", "thin.*", "--from", "beginning", "--until-end", "-q"];
        assert_eq!(cluster.run(&pattern).ok(), expected);
    }
    let mut pulled = String::new();
    for _ in 0..expected.lines().count() / 400 + 2 {
        let some = [
            "pull",
            "thin.one",
            "--as",
            "s",
            "--from",
            "beginning",
            "-n",
            "400",
            "-q",
        ];
        pulled += &cluster.run(&some).ok();
    }
    assert_eq!(pulled, expected);
    cluster.peer.stop();
    let dumped = cluster.run(&["data", "dump", "peer", "thin.one", "-f", "%p%n"]);
    assert_eq!(dumped.ok(), expected);
    cluster.run(&["data", "verify", "peer"]).ok();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn groups_go_over_what_is_gone() {
    let cluster = cluster();
    let index = cluster.index.address.parse().expect("an address");
    let client = Client::connect(ConnectOptions::new(vec![index])).await;
    let (client, topic) = (client.expect("it runs"), "thin.one".parse().expect("good"));
    for (group, ordered) in [("any", false), ("by-key", true)] {
        let mut options = MemberOptions::creating(Position::Beginning);
        if let Some(group) = &mut options.create {
            group.options.ordered_by_key = Some(ordered);
        }
        let name = group.parse().expect("good");
        let member = client
            .join_group(&topic, &name, options)
            .await
            .expect("it begins");
        let mut found = BTreeMap::new();
        while found.len() < left().len() {
            let given = tokio::time::timeout(SOON, member.next()).await;
            let given = given.expect("in time").expect("a message");
            let value = String::from_utf8(given.record.value.to_vec()).expect("text");
            found.insert(given.record.offset.get(), value);
            member.ack(&given);
        }
        assert_eq!(found, left());
        member.settle().await.expect("settled");
        member.leave().await.expect("left");
        let info = ["group", "info", "thin.one", group, "-o", "json"];
        let info = cluster.run(&info).json();
        assert_eq!(info["acknowledged"], left().len());
        let gone = (BATCHES * RECORDS) as usize - left().len();
        // The last ones are passed when somebody asks for more.
        assert!(info["skipped"].as_u64() <= Some(gone as u64), "{info}");
    }
}
