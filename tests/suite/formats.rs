//! Stores that earlier versions wrote, kept as they were: this version opens them and finds all that was in them.
//!
//! `data/fixtures/stores/README.md` says what is in each, and how they are made.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Map, Value, json};
use tempfile::TempDir;
use tidings::catalog::Catalog;
use tidings::protocol::api::{Api, DescribeTopic};
use tidings::protocol::batch::{BatchBuilder, Compression, RecordToSend};
use tidings::protocol::data::{Publish, Published};
use tidings::time::Timestamp;
use tidings::topic::{Row, RowKey};
use tidings::types::{ProducerId, Sequence};

use crate::cluster::Cluster;
use crate::support::{Ran, command, run_with};
use crate::wire::Wire;

/// Directory to write the fixture of the present format to; see the README there.
const WRITE_TO: &str = "FIXTURE_STORES_TO";
/// The one producer whose id is known.
const PRODUCER: ProducerId = ProducerId::from_bytes([7; 16]);

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data/fixtures/stores")
}

fn data(dir: &Path, args: &[&str]) -> Ran {
    let mut command = command(dir);
    command.arg("data").args(args);
    run_with(command, b"")
}

/// A field of a tar header: text up to the first zero.
fn field(header: &[u8], at: usize, length: usize) -> &str {
    let text = header[at..at + length].split(|byte| *byte == 0).next();
    std::str::from_utf8(text.unwrap_or_default())
        .expect("text")
        .trim()
}

/// Unpacks a packed tar archive (plain files and directories, short names).
fn unpack(archive: &Path, to: &Path) {
    let packed = std::fs::File::open(archive).expect("the fixture is there");
    let mut bytes = Vec::new();
    let mut decoder = zstd::Decoder::new(packed).expect("packed with zstd");
    decoder.read_to_end(&mut bytes).expect("whole");
    let mut rest = &bytes[..];
    while rest.len() >= 512 && rest[0] != 0 {
        let (header, after) = rest.split_at(512);
        let length = u64::from_str_radix(field(header, 124, 12), 8).expect("a length");
        let length = usize::try_from(length).expect("it is in memory");
        let path = to.join(field(header, 0, 100));
        match header[156] {
            b'5' => std::fs::create_dir_all(&path).expect("made"),
            b'0' => std::fs::write(&path, &after[..length]).expect("written"),
            other => panic!("a tar entry of kind {other}: only files and directories expected"),
        }
        rest = &after[length.next_multiple_of(512)..];
    }
}

fn pack(dir: &Path, archive: &Path) {
    let tar = Command::new("tar")
        .args([
            "--format=ustar",
            "--sort=name",
            "--owner=0",
            "--group=0",
            "-cf",
            "-",
        ])
        .args(["peer", "index"])
        .current_dir(dir)
        .output()
        .expect("tar is there");
    assert!(tar.status.success(), "{tar:?}");
    let packed = zstd::encode_all(&tar.stdout[..], 19).expect("packed");
    std::fs::write(archive, packed).expect("written");
}

/// Publishes one record under a producer id that is known.
fn publish_as_producer(cluster: &Cluster, topic: &str) {
    let mut wire = Wire::greet(&cluster.peer.address);
    let name = topic.parse().expect("a name");
    let info = wire.ask(&DescribeTopic { name }).expect("it is here");
    let mut builder = BatchBuilder::new(Compression::None);
    let record = RecordToSend {
        timestamp: Timestamp::from_millis(1_700_000_000_000),
        key: Some(b"of a known producer"),
        headers: &[],
        value: b"sequence 0",
    };
    builder.try_push(&record).expect("it fits");
    let batch = builder.build(PRODUCER, Sequence::ZERO).expect("a batch");
    let body = [&Publish::header(info.id, info.epoch)[..], &batch].concat();
    let answer = wire.ask_raw(Api::Publish as u16, &body).expect("stored");
    assert!(!Published::decode(answer).expect("an answer").duplicate);
}

/// Makes the stores that the README describes, in `peer` and `index`, stopped.
fn make() -> Cluster {
    let mut cluster = Cluster::start();
    let run = |cluster: &Cluster, line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        cluster.run(&words).ok();
    };
    run(&cluster, "topic create quakes.ci logs draft gone");
    let bounds = "--retain-records 1000 --retain-bytes 10MiB";
    run(
        &cluster,
        &format!("topic create quakes.nc --durability os {bounds}"),
    );
    run(
        &cluster,
        "pub quakes.ci -k ci1 -H net:ci -H source:usgs first second",
    );
    let long = format!("long {}", "0123456789".repeat(300));
    for codec in ["lz4", "zstd"] {
        let args = ["pub", "quakes.ci", "-k", codec, "--compress", codec, &long];
        cluster.run(&args).ok();
    }
    publish_as_producer(&cluster, "quakes.ci");
    run(&cluster, "pub quakes.nc n0 n1 n2 n3 n4");
    run(&cluster, "pub logs l0 l1 l2");
    run(&cluster, "pub logs l3 l4 l5");
    run(
        &cluster,
        "subscription create logs --as late --from beginning",
    );
    run(&cluster, "topic purge logs --before 2 --force");
    run(&cluster, "pub draft o0 o1");
    run(&cluster, "topic rename draft orders.eu");
    run(&cluster, "pub gone nothing stays of this");
    run(&cluster, "topic rm gone --force");
    run(
        &cluster,
        "pull quakes.ci --as billing --from beginning -n 2",
    );
    run(&cluster, "subscription create quakes.ci --as map");
    run(
        &cluster,
        "subscription create quakes.nc --as audit --from 1",
    );
    run(&cluster, "subscription seek quakes.nc audit --to 3");
    cluster.peer.stop();
    cluster.restart_peer();
    run(&cluster, "pub quakes.ci -k later written-after-a-restart");
    cluster.peer.stop();
    cluster.index.stop();
    cluster
}

/// Everything the tools say about the stores in `dir`.
fn describe(dir: &Path) -> Value {
    let messages = data(dir, &["dump", "peer", "-o", "json"]).ok();
    let messages: Result<Vec<Value>, _> = messages.lines().map(serde_json::from_str).collect();
    json!({
        "peer": data(dir, &["ls", "peer", "-o", "json"]).json(),
        "index": data(dir, &["ls", "index", "-o", "json"]).json(),
        "messages": messages.expect("JSON Lines"),
        "producers": producers(dir),
    })
}

/// What is remembered of producers, by their ids: topic, and what they published last.
fn producers(dir: &Path) -> Value {
    let loaded = Catalog::read_copy(&dir.join("peer")).expect("a catalog");
    let mut producers = Map::new();
    for (key, value) in &loaded.rows {
        let key = RowKey::decode(key).expect("a key");
        let row = Row::decode(&key, value).expect("a row");
        if let (RowKey::Producer(topic, producer), Row::Producer(row)) = (&key, &row) {
            let batches = serde_json::to_value(&row.batches).expect("numbers");
            let known = json!({"topic": topic.to_string(), "batches": batches});
            producers.insert(producer.to_string(), known);
        }
    }
    producers.into()
}

/// The part of a description that is the same whenever the stores are made.
fn lasting(description: &Value) -> Value {
    let pick = |list: &Value, fields: &[&str]| -> Value {
        let list = list.as_array().expect("a list");
        let of = |item: &Value| -> Value {
            let fields = fields.iter().map(|field| item[*field].clone());
            fields.collect::<Vec<_>>().into()
        };
        list.iter().map(of).collect::<Vec<_>>().into()
    };
    let peer = &description["peer"];
    json!({
        "messages": pick(&description["messages"], &["topic", "offset", "key", "headers", "payload"]),
        "topics": pick(&peer["topics"], &["name", "start_offset", "end_offset", "durability", "retention"]),
        "subscriptions": pick(&peer["subscriptions"], &["topic", "name", "committed_offset"]),
        "registered": pick(&description["index"]["topics"], &["name", "epoch", "state"]),
        "producer": description["producers"][PRODUCER.to_string()]["batches"],
    })
}

/// Makes the stores anew: what comes out is what the fixture says, so the recipe is the one in use. With
/// `FIXTURE_STORES_TO` the result is kept.
#[test]
fn the_stores_can_be_made_again() {
    let cluster = make();
    let description = describe(cluster.dir.path());
    if let Some(to) = std::env::var_os(WRITE_TO) {
        let to = Path::new(&to);
        let text = serde_json::to_string_pretty(&description).expect("JSON");
        std::fs::write(to.join("format-1.json"), text + "\n").expect("written");
        pack(cluster.dir.path(), &to.join("format-1.tar.zst"));
    }
    assert_eq!(lasting(&description), lasting(&expected("format-1")));
}

fn expected(name: &str) -> Value {
    let text = std::fs::read_to_string(fixtures().join(format!("{name}.json")));
    serde_json::from_str(&text.expect("it lies beside the fixture")).expect("JSON")
}

#[test]
fn a_store_of_format_1_is_opened_and_holds_what_it_held() {
    let dir = TempDir::new().expect("a scratch directory");
    unpack(&fixtures().join("format-1.tar.zst"), dir.path());
    for store in ["peer", "index"] {
        assert_eq!(data(dir.path(), &["verify", store]).ok(), "", "{store}");
    }
    assert_eq!(describe(dir.path()), expected("format-1"));
    let format = data(dir.path(), &["ls", "peer", "-o", "json"]).json();
    let format = (&format["journal_format"], &format["catalog_format"]).to_owned();
    assert_eq!(format, (&json!(1), &json!(1)));

    // And in use.
    let cluster = Cluster::start_on(dir);
    let read = |topic: &str| {
        let all = ["sub", topic, "--from", "beginning", "--until-end"];
        let read = cluster.run(&all);
        assert_eq!(read.stderr, "", "{topic}");
        read.ok()
    };
    let long = format!("long {}\n", "0123456789".repeat(300));
    let quakes = format!("first\nsecond\n{long}{long}sequence 0\nwritten-after-a-restart\n");
    assert_eq!(read("quakes.ci"), quakes);
    assert_eq!(read("quakes.nc"), "n0\nn1\nn2\nn3\nn4\n");
    assert_eq!(read("logs"), "l2\nl3\nl4\nl5\n");
    assert_eq!(read("orders.eu"), "o0\no1\n");
    let listed = cluster.run(&["topic", "ls", "-o", "name"]).ok();
    assert_eq!(listed, "logs\norders.eu\nquakes.ci\nquakes.nc\n");
    let nc = cluster
        .run(&["topic", "info", "quakes.nc", "-o", "json"])
        .json();
    assert_eq!(nc["durability"], "os");
    let retention = json!({"age_ms": null, "bytes": 10 << 20, "records": 1000, "interest": false});
    assert_eq!(nc["retention"], retention);
    goes_on(&cluster);
}

/// Subscriptions and topics go on where they stopped.
fn goes_on(cluster: &Cluster) {
    let subscriptions = cluster.run(&["subscription", "ls", "-o", "json"]).json();
    let of = |item: &Value| {
        let text = |field: &str| item[field].as_str().map(str::to_owned);
        (
            text("topic"),
            text("name"),
            item["committed_offset"].as_u64(),
        )
    };
    let found: Vec<_> = subscriptions
        .as_array()
        .expect("a list")
        .iter()
        .map(of)
        .collect();
    let expected = [
        ("logs", "late", 0),
        ("quakes.ci", "billing", 2),
        ("quakes.ci", "map", 5),
        ("quakes.nc", "audit", 3),
    ];
    let expected = expected.map(|(topic, name, committed)| {
        (
            Some(topic.to_owned()),
            Some(name.to_owned()),
            Some(committed),
        )
    });
    assert_eq!(found, expected);
    let late = cluster.run(&["pull", "logs", "--as", "late"]);
    assert!(
        late.stderr.contains("offsets 0..2 are discarded"),
        "{late:?}"
    );
    assert_eq!(late.ok(), "l2\nl3\nl4\nl5\n");
    assert_eq!(
        cluster.run(&["pull", "quakes.nc", "--as", "audit"]).ok(),
        "n3\nn4\n"
    );
    for (topic, offsets) in [
        ("quakes.ci", "6..7"),
        ("logs", "6..7"),
        ("orders.eu", "2..3"),
    ] {
        let published = cluster.run(&["pub", topic, "now"]);
        assert!(
            published.stderr.contains(&format!("offsets {offsets}")),
            "{published:?}"
        );
    }
}
