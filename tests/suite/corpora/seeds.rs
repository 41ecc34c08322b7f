//! What the fuzzer begins with: the golden vectors, the parts of real stores, and a change of each kind.

use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tidings::catalog::{self, DirLock, RegistryStore};
use tidings::limits;
use tidings::protocol::api::{Position, TopicChanges};
use tidings::protocol::batch::{CheckedBatch, Removed, Thin, hollow, thin};
use tidings::store::offline::{self, ExportOptions};
use tidings::store::{NewTopic, Store, StoreOptions};
use tidings::types::{
    Durability, GapReason, LeaderEpoch, ProducerId, Retention, TopicId, TopicName, TopicSettings,
};

use super::targets::found::{self, runtime};
use super::targets::{self, Scene, named, scenes};

/// Directory to write the seeds to, one below it for each target; `scenes` in it for the stores.
const WRITE_TO: &str = "FUZZ_SEEDS_TO";
const EPOCH: LeaderEpoch = LeaderEpoch::new(1);

// --- seeds -------------------------------------------------------------------------

type Seeds = Vec<(&'static str, Vec<u8>)>;

/// The golden vectors by name.
fn vectors() -> Vec<(String, Vec<u8>)> {
    let text = include_str!("../../../data/fixtures/protocol/vectors.txt");
    let mut found: Vec<(String, Vec<u8>)> = Vec::new();
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if let Some(name) = line.strip_prefix('[') {
            found.push((name.trim_end_matches(']').to_owned(), Vec::new()));
        } else if let Some((_, bytes)) = found.last_mut() {
            let pairs = (0..line.len()).step_by(2);
            bytes.extend(pairs.map(|at| u8::from_str_radix(&line[at..at + 2], 16).expect("hex")));
        }
    }
    found
}

fn with(first: &[u8], rest: &[u8]) -> Vec<u8> {
    [first, rest].concat()
}

fn of_vectors(seeds: &mut Seeds) {
    for (name, bytes) in vectors() {
        let parts = name.rsplit_once('.').expect("two parts");
        match parts {
            ("frame", _) => {
                seeds.push(("frame", with(&[0, 5], &bytes)));
                seeds.push(("frame", with(&[1, 255], &bytes.repeat(2))));
            }
            ("batch" | "refused", _) => {
                seeds.push(("batch", with(&[0], &bytes)));
                seeds.push(("batch", with(&[1], &bytes)));
                if parts.0 == "batch" {
                    of_thinned(seeds, &bytes);
                }
            }
            ("error", _) => {
                seeds.push(("hello", bytes.clone()));
                seeds.push(("body", with(&[255, 0], &bytes)));
            }
            (request, side) => {
                if request == "Hello" {
                    seeds.push(("hello", bytes.clone()));
                }
                let input = targets::input_of(request, side == "answer", &bytes);
                seeds.push(("body", input.expect("a request")));
            }
        }
        if let ("batch", how @ ("lz4" | "zstd")) = parts {
            let fields = [bytes[16], bytes[17], bytes[18], bytes[19], 2, 0, 0, 0];
            let how = u8::from(how == "zstd");
            seeds.push(("packed", [&[how], &fields[..], &bytes[64..]].concat()));
        }
    }
    let recipe = b"\x1f\x01\x04name\x05value\x01\x03key\x05hello\x00\x02\x03abc";
    seeds.push(("batch", with(&[2], recipe)));
}

/// Batches out of which records were taken.
fn of_thinned(seeds: &mut Seeds, batch: &[u8]) {
    let batch = CheckedBatch::check(batch.to_vec().into(), limits::MESSAGE_BYTES_MAX);
    let batch = batch.expect("a golden one is sound");
    let leading = [Removed {
        count: 300,
        reason: GapReason::Expired,
    }];
    for goes in [0, 1, 2] {
        let outcome = thin(&leading, &batch, |delta, _| {
            (delta != goes).then_some(GapReason::Compacted)
        });
        let Ok(Thin::Rest { batch, .. }) = outcome else {
            panic!("a record is left: {outcome:?}");
        };
        seeds.push(("batch", with(&[0], &batch)));
    }
    let hollow = hollow(&leading, batch.header()).expect("it spans some");
    seeds.push(("batch", with(&[0], &hollow)));
}

/// What lies at the sector boundaries of the journals, and the rows of their state entries.
fn of_stores(seeds: &mut Seeds) {
    const MAGICS: [&[u8]; 3] = [b"TIDSLOT1", b"TGRP", b"TFTR"];
    for scene in scenes() {
        let slots = scene
            .files
            .iter()
            .filter(|(name, _)| name.starts_with("journal"));
        for bytes in slots.map(|(_, bytes)| bytes) {
            let mut seen = [0; 3];
            for at in (0..bytes.len()).step_by(512) {
                let kind = MAGICS
                    .iter()
                    .position(|magic| bytes[at..].starts_with(magic));
                let Some(kind) = kind.filter(|kind| seen[*kind] < 3) else {
                    continue;
                };
                seen[kind] += 1;
                let length = if kind == 0 { 512 } else { 400 };
                let part = &bytes[at..(at + length).min(bytes.len())];
                let which = [0, 1, 3][kind];
                seeds.push(("journal_parts", with(&[which], part)));
                if kind == 1 {
                    of_group(seeds, &bytes[at..]);
                }
            }
        }
    }
}

/// The first entry of a group, and what is in it.
fn of_group(seeds: &mut Seeds, group: &[u8]) {
    let number =
        |at: usize| u32::from_le_bytes(group[at..at + 4].try_into().expect("four")) as usize;
    let entry = number(12);
    if number(36) == 0 {
        return;
    }
    let (kind, length) = (group[entry + 4], number(entry + 8));
    seeds.push(("journal_parts", with(&[2], &group[entry..entry + 56])));
    let payload = &group[entry + 56..entry + 56 + length];
    if kind != 2 || length > 2_000 {
        return;
    }
    seeds.push(("journal_parts", with(&[4], payload)));
    let operations = tidings::journal::StateOp::decode_all(payload).expect("it is stored");
    let mut rows = vec![0];
    for operation in operations {
        if let tidings::journal::StateOp::Put { key, value } = operation {
            put_row(&mut rows, &key, &value);
        }
    }
    seeds.push(("rows", rows));
}

fn put_row(to: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    to.push(u8::try_from(key.len()).expect("short"));
    to.extend(key);
    to.extend(u16::try_from(value.len()).expect("short").to_le_bytes());
    to.extend(value);
}

fn of_registry(seeds: &mut Seeds) {
    let dir = targets::index_scene().set_up();
    let loaded = RegistryStore::read_copy(dir.path()).expect("it is whole");
    let mut all = vec![1];
    for (key, value) in loaded.rows {
        put_row(&mut all, &key, &value);
    }
    seeds.push(("rows", all));
}

fn of_exports(seeds: &mut Seeds) {
    for scene in scenes() {
        let dir = scene.set_up();
        for topic in offline::list(dir.path()).expect("it is whole").topics {
            let options = ExportOptions {
                topics: vec![topic.row.name.clone()],
                ..ExportOptions::default()
            };
            let mut file = Cursor::new(Vec::new());
            offline::export(dir.path(), &options, &mut file).expect("exported");
            let file = file.into_inner();
            if file.len() < 20_000 {
                seeds.push(("export", with(&[0], &file)));
                seeds.push(("export", with(&[7], &file)));
            }
        }
    }
}

fn of_texts(seeds: &mut Seeds) {
    let names = [
        "quakes.ci",
        "a.*.>\na.b.c",
        "*\nx",
        "127.0.0.1:7400",
        "[::1]:65535",
        "peer-1",
        "lz4",
        "os",
        "101112131415161718191a1b1c1d1e1f",
    ];
    seeds.extend(names.map(|text| ("names", text.into())));
    let values = [
        "64KiB",
        "1.5GB",
        "1h30m",
        "250ms",
        "0.5s",
        "2026-03-01T12:00:00Z",
        "1970-01-02",
        "-12",
        "beginning",
        "500/s",
        "name:value",
        "[::]:7401",
        "%o\\t%k: %p%n",
        "18446744073709551615",
    ];
    seeds.extend(values.map(|text| ("command_line", with(&[1], text.as_bytes()))));
    let lines = [
        "topic\ncreate\nquakes.ci\n--retain-bytes\n10GiB",
        "pub\nquakes.ci\n-k\na\n-H\nb:c\n--rate\n5/s\nhello",
        "sub\nquakes.ci\n--from\n-10\n-f\n%o %p",
        "serve\npeer\n--index\na:1,b:2\n--slot-size\n4MiB",
        "subscription\nseek\na\nb\n--to\n2h",
        "data\nverify\ndir\n-o\njson",
        "bench\npublish\n--verify",
        "help\ntopic",
    ];
    seeds.extend(lines.map(|text| ("command_line", with(&[0], text.as_bytes()))));
    seeds.push(("command_line", with(&[2, 3], b"first\n\nthird\r\nlast")));
    let files = [
        "index = \"a:1,b:2\"\nlog = \"debug\"\n[serve.peer]\nlisten = \"0.0.0.0:7401\"\nadvertise = \"node:7401\"\ndata-dir = \"d\"\nleave = true\nslot-size = \"4MiB\"\n[serve.index]\nlease = \"20s\"\n",
        "index = [\"a:1\", \"[::1]:2\"]\n[up]\nindex-listen = \"127.0.0.1:0\"\nname = 'x'\n",
        "peer = \"a:1\" # comment\nlog-format = \"json\"\nserve = { peer = { heartbeat = \"2s\", message-max = \"1MiB\" } }\n",
    ];
    seeds.extend(files.map(|text| ("config", text.into())));
}

/// A change of each kind to each of the stores.
fn of_changes(seeds: &mut Seeds) {
    for kind in 0..8_u8 {
        for store in 0..3_u8 {
            let one = |file: u8, block: u8| {
                [
                    store, kind, file, block, 0, 20, 0, 0x10, block, 3, 1, 5, 0, 0, 0,
                ]
            };
            seeds.push(("journal", one(0, 16 + kind).to_vec()));
            seeds.push(("journal", one(1, kind).to_vec()));
            seeds.push(("catalog", one(1, kind.wrapping_mul(40)).to_vec()));
            seeds.push(("tools", one(store, 17).to_vec()));
            seeds.push(("tools", with(&[store | 0x80], &one(1, 9)[1..])));
        }
        seeds.push((
            "registry",
            vec![kind, 1, kind.wrapping_mul(20), 0, 9, 0, 0x40, 2, 3, 1, 5],
        ));
    }
    for target in ["journal", "catalog", "tools"] {
        seeds.extend((0..3).map(|store| (target, vec![store])));
    }
    seeds.push(("registry", Vec::new()));
}

fn all_seeds() -> Seeds {
    let mut seeds = Vec::new();
    of_vectors(&mut seeds);
    of_stores(&mut seeds);
    of_registry(&mut seeds);
    of_exports(&mut seeds);
    of_texts(&mut seeds);
    of_changes(&mut seeds);
    seeds
}

/// Writes the seeds where they are wanted; elsewhere there is nothing to do, for asking them all takes longer than asking
/// those the fuzzer kept.
#[test]
fn the_seeds_can_be_made_again() {
    let seeds = all_seeds();
    for target in targets::TARGETS {
        let seeds = seeds.iter().filter(|(name, _)| *name == target.name);
        assert!(seeds.count() > 0, "no seed for {}", target.name);
    }
    let Some(to) = std::env::var_os(WRITE_TO).map(PathBuf::from) else {
        return;
    };
    for (number, (name, bytes)) in seeds.iter().enumerate() {
        let target = named(name).expect("a target");
        let dir = to.join(target.name);
        fs::create_dir_all(&dir).expect("made");
        fs::write(dir.join(format!("seed-{number:04}")), bytes).expect("written");
    }
}

// --- stores ------------------------------------------------------------------------

fn options(dir: &Path) -> StoreOptions {
    StoreOptions {
        name: Some("peer-1".parse().expect("a name")),
        reclaim: true,
        reclaim_every: Duration::from_millis(5),
        ..found::options(dir)
    }
}

fn topic(number: u8) -> TopicId {
    TopicId::from_bytes([number; 16])
}

fn name(text: &str) -> TopicName {
    text.parse().expect("a name")
}

fn create(store: &Store, number: u8, text: &str, settings: TopicSettings) {
    let new = NewTopic {
        name: name(text),
        id: topic(number),
        epoch: EPOCH,
        settings,
    };
    runtime().block_on(store.create_topic(new)).expect("made");
}

/// Publishes batches of one producer, each as long as it says; their sequences go on from `first`.
fn publish(store: &Store, number: u8, first: u64, lengths: &[usize]) {
    let producer = ProducerId::from_bytes([number; 16]);
    for (sequence, length) in (first..).zip(lengths) {
        let text = format!("record {sequence} of topic {number}, ");
        let value: Vec<u8> = text.bytes().cycle().take(*length).collect();
        let batch = found::batch(producer, sequence, &[&value]);
        let batch = CheckedBatch::check(batch, limits::MESSAGE_BYTES_MAX).expect("sound");
        let published = runtime().block_on(store.publish(topic(number), EPOCH, batch));
        published.expect("stored");
    }
}

fn first_life(dir: &Path) {
    let (store, _) = Store::open(&options(dir)).expect("a new store");
    let settings = TopicSettings::default();
    create(&store, 1, "kept", settings);
    create(&store, 2, "gone", settings);
    let os = TopicSettings {
        durability: Durability::Os,
        ..settings
    };
    create(&store, 3, "of.os", os);
    let retention = Retention {
        records: Some(5),
        ..Retention::default()
    };
    create(
        &store,
        4,
        "short",
        TopicSettings {
            retention,
            ..settings
        },
    );
    for number in 1..=4 {
        publish(&store, number, 0, &[30, 400, 3, 90]);
    }
    let subscribe = store.create_subscription(
        name("kept"),
        "map".parse().expect("a name"),
        Position::Offset(tidings::types::Offset::new(2)),
        false,
    );
    runtime().block_on(subscribe).expect("made");
    runtime()
        .block_on(store.delete_topic(name("gone"), None))
        .expect("gone");
    store.stop().expect("stopped");
}

/// Fills segments that then hold hardly anything that lives, until the store gave some of it back.
fn fill(dir: &Path) {
    let mut next = 4;
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let (store, _) = Store::open(&options(dir)).expect("it opens");
        publish(&store, 4, next, &[200_000; 12]);
        publish(&store, 1, next, &[100; 12]);
        next += 12;
        let done = || {
            let figures = store.figures().reclaimed;
            figures.snapshots > 0 && figures.cold_segments > 0
        };
        let until = Instant::now() + Duration::from_secs(1);
        while !done() && Instant::now() < until {
            std::thread::yield_now();
        }
        let done = done();
        store.stop().expect("stopped");
        if done {
            return;
        }
        assert!(Instant::now() < deadline, "nothing was given back");
    }
}

fn copy(from: &Path) -> TempDir {
    Scene::of_directory(from).set_up()
}

fn pack(dir: &Path, archive: &Path) {
    let tar = Command::new("tar")
        .args([
            "--format=ustar",
            "--sort=name",
            "--owner=0",
            "--group=0",
            "--mtime=@0",
        ])
        .args(["--transform=s,^\\.,peer,", "-cf", "-", "."])
        .current_dir(dir)
        .output()
        .expect("tar is there");
    assert!(tar.status.success(), "{tar:?}");
    let packed = zstd::encode_all(&tar.stdout[..], 19).expect("packed");
    fs::write(archive, packed).expect("written");
}

/// A registry that took several changes, with the rows of a real one.
fn index_store() -> TempDir {
    let dir = targets::scratch();
    let lock = DirLock::acquire(dir.path()).expect("nobody else is here");
    let opened = RegistryStore::open(&lock, catalog::OpenOptions::default());
    let (mut store, _) = opened.expect("a new registry");
    let unpacked = Scene::first_index().set_up();
    let rows = RegistryStore::read_copy(unpacked.path())
        .expect("it is whole")
        .rows;
    for round in 0..3 {
        for (key, value) in &rows {
            let extra = (vec![8, round], vec![round; 300]);
            let puts = vec![(key.clone(), value.clone()), extra];
            store.apply(puts, Vec::new()).expect("taken");
        }
        let removed = vec![vec![8, round]];
        store.apply(Vec::new(), removed).expect("taken");
    }
    store.close().expect("closed");
    dir
}

/// Makes the stores that are broken: one with a past, killed while nothing was asked of it, and the same stopped later.
#[test]
fn the_scenes_can_be_made_again() {
    let Some(to) = std::env::var_os(WRITE_TO).map(PathBuf::from) else {
        return;
    };
    let dir = targets::scratch();
    first_life(dir.path());
    fill(dir.path());
    let quiet = StoreOptions {
        reclaim: false,
        ..options(dir.path())
    };
    let (store, _) = Store::open(&quiet).expect("it opens");
    publish(&store, 3, 4, &[10, 20]);
    std::thread::sleep(2 * limits::IDLE_MARK_AFTER);
    // Killed, recovered, which leaves a resume, worked on, and killed again.
    let dir = copy(dir.path());
    drop(store);
    let quiet = StoreOptions {
        reclaim: false,
        ..options(dir.path())
    };
    let (store, _) = Store::open(&quiet).expect("it recovers");
    let changes = TopicChanges {
        retain_records: Some(None),
        ..TopicChanges::default()
    };
    runtime()
        .block_on(store.set_topic(name("short"), changes))
        .expect("set");
    publish(&store, 3, 6, &[500]);
    std::thread::sleep(2 * limits::IDLE_MARK_AFTER);
    let killed = copy(dir.path());
    store.stop().expect("stopped");
    fs::create_dir_all(to.join("scenes")).expect("made");
    let index = index_store();
    let made = [
        (killed.path(), "killed"),
        (dir.path(), "stopped"),
        (index.path(), "index"),
    ];
    for (dir, archive) in made {
        pack(dir, &to.join(format!("scenes/{archive}.tar.zst")));
    }
}
