//! Compaction by key with real processes: what readers are told, what a kill does to it, and that the space comes back.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::cluster::Cluster;

const SOON: Duration = Duration::from_secs(60);
const KEYS: u64 = 6;
/// Versions of each key that one round publishes, of 4 KB each: all together more than two journal files.
const VERSIONS: u64 = 400;

/// Publishes further versions of each key, one key after the other; the last one of each.
fn publish(cluster: &Cluster, end: &mut u64) -> BTreeMap<String, u64> {
    let mut newest = BTreeMap::new();
    for key in 0..KEYS {
        let key = format!("key-{key}");
        let line = |n: u64| format!("{n}-{}\n", "x".repeat(4_000));
        let lines: String = (*end..*end + VERSIONS).map(line).collect();
        let told = cluster.feed(&["pub", "state", "--key", &key], lines.as_bytes());
        told.ok();
        *end += VERSIONS;
        newest.insert(key, *end - 1);
    }
    newest
}

fn info(cluster: &Cluster) -> Value {
    cluster
        .run(&["topic", "info", "state", "-o", "json"])
        .json()
}

fn number(of: &Value, field: &str) -> u64 {
    of[field].as_u64().expect("its host tells")
}

/// What a reader from the beginning gets: the newest value of each key. Offsets rise, and what is missing was told.
fn read(cluster: &Cluster) -> BTreeMap<String, u64> {
    let flags = [
        "sub",
        "state",
        "--from",
        "beginning",
        "--until-end",
        "-o",
        "json",
    ];
    let (mut newest, mut before) = (BTreeMap::new(), None);
    for line in cluster.run(&flags).ok().lines() {
        let message: Value = serde_json::from_str(line).expect("json");
        let offset = number(&message, "offset");
        assert!(before < Some(offset), "{offset} behind {before:?}");
        before = Some(offset);
        let payload = message["payload"].as_str().expect("text");
        let version = payload.split('-').next().and_then(|n| n.parse().ok());
        let version: u64 = version.expect("a number");
        assert_eq!(version, offset, "each message says where it stands");
        let key = message["key"].as_str().expect("text").to_owned();
        newest.insert(key, version);
    }
    newest
}

fn until(what: &str, cluster: &Cluster, holds: impl Fn(&Value) -> bool) -> Value {
    let deadline = Instant::now() + SOON;
    loop {
        let now = info(cluster);
        if holds(&now) {
            return now;
        }
        assert!(Instant::now() < deadline, "{what}: {now}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_compacted_topic_keeps_the_newest_of_each_key_whatever_is_killed() {
    let mut cluster = Cluster::start();
    cluster.run(&["topic", "create", "state"]).ok();
    let mut end = 0;
    let mut newest = BTreeMap::new();
    for round in 0..4_u64 {
        newest = publish(&cluster, &mut end);
        if round == 0 {
            let set = ["topic", "set", "state", "compact=on"];
            cluster.run(&set).ok();
        }
        // At another moment of a pass each time.
        std::thread::sleep(Duration::from_millis(700 * round));
        assert_eq!(read(&cluster), newest);
        cluster.peer.kill();
        cluster.restart_peer();
        assert_eq!(read(&cluster), newest);
    }
    let compacted = until("it is compacted", &cluster, |now| {
        number(now, "records") < end / 3 && number(now, "bytes") < 16 << 20
    });
    assert_eq!(number(&compacted, "end_offset"), end);
    assert_eq!(
        number(&compacted, "records") + number(&compacted, "removed"),
        end
    );
    assert_eq!(read(&cluster), newest);
    let told = cluster.run(&["sub", "state", "--from", "beginning", "--until-end"]);
    assert!(told.stderr.contains("compacted"), "{}", told.stderr);
    cluster.peer.stop();
    let verified = cluster.run(&["data", "verify", "peer"]);
    verified.ok();
    cluster.restart_peer();
    assert_eq!(read(&cluster), newest);
    cluster.peer.stop();
    cluster.index.stop();
}

/// Keys out of the messages themselves, a deletion among them.
#[test]
fn keys_are_read_from_the_messages() {
    let cluster = Cluster::start();
    let publish = ["pub", "prices", "--create", "-q", "--key-from"];
    let before = [&publish[..], &["before:\\t"]].concat();
    cluster
        .feed(&before, b"rye\t17.20\noats\ta\tb\nrye\t\n")
        .ok();
    let json = [&publish[..], &["json:of.truck"]].concat();
    cluster.feed(&json, b"{\"of\":{\"truck\":38}}\n").ok();
    let read = [
        "sub",
        "prices",
        "--from",
        "beginning",
        "--until-end",
        "-q",
        "-f",
        "%k|%p%n",
    ];
    let expected = "rye|17.20\noats|a\tb\nrye|\n38|{\"of\":{\"truck\":38}}\n";
    assert_eq!(cluster.run(&read).ok(), expected);

    let error = cluster
        .feed(&json, b"{\"of\":{\"truck\":1}}\n{\"of\":7}\n")
        .fails(2);
    assert!(
        error.contains("message 2 has no key where --key-from says"),
        "{error}"
    );
    let error = cluster.feed(&before, b"\t17.20\n").fails(2);
    assert!(error.contains("message 1 has no key"), "{error}");
    let both = ["pub", "prices", "--key", "a", "--key-from", "json:id", "x"];
    cluster.run(&both).fails(2);
    cluster
        .run(&["pub", "prices", "--key-from", "payload", "x"])
        .fails(2);
}

#[test]
fn a_key_is_purged_for_good() {
    let mut cluster = Cluster::start();
    cluster.run(&["topic", "create", "state"]).ok();
    for key in ["ann", "bob", "ann"] {
        cluster.run(&["pub", "state", "--key", key, "hello"]).ok();
    }
    let purge = ["topic", "purge", "state", "--key", "ann"];
    let forced = [&purge[..], &["--force"]].concat();
    cluster.run(&forced).ok();
    let keys = |cluster: &Cluster| {
        let flags = ["sub", "state", "--from", "beginning", "--until-end"];
        cluster.run(&[&flags[..], &["-f", "%k%n"]].concat())
    };
    let told = keys(&cluster);
    assert!(told.stderr.contains("purged"), "{}", told.stderr);
    assert_eq!(told.ok(), "bob\n");
    cluster.run(&["pub", "state", "--key", "ann", "again"]).ok();
    cluster.peer.kill();
    cluster.restart_peer();
    assert_eq!(keys(&cluster).ok(), "bob\nann\n");
    let erased = until("it is erased", &cluster, |now| number(now, "purges") == 0);
    assert_eq!(number(&erased, "removed"), 2);
    assert_eq!(keys(&cluster).ok(), "bob\nann\n");
    let both = [&purge[..], &["--before", "1"]].concat();
    cluster.run(&both).fails(2);
    cluster.peer.stop();
    cluster.index.stop();
}
