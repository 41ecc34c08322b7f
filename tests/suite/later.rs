//! Messages that are delivered later, whatever happens until then.

use std::time::{Duration, Instant};

use serde_json::Value;
use tidings::time::Timestamp;

use crate::cluster::Cluster;
use crate::support::Up;

/// What takes longer does not happen.
const SOON: Duration = Duration::from_secs(60);

/// A moment, as people write it.
fn in_millis(millis: u64) -> String {
    Timestamp::now()
        .after(Duration::from_millis(millis))
        .to_string()
}

/// The payloads of that many messages, as they come.
fn read(run: impl Fn(&[&str]) -> String, topic: &str, count: usize) -> Vec<String> {
    let count = count.to_string();
    let found = run(&["sub", topic, "--from", "beginning", "-n", &count]);
    found.lines().map(str::to_owned).collect()
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + SOON;
    while !holds() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn end_of(info: &Value) -> u64 {
    info["end_offset"].as_u64().expect("its host tells")
}

#[test]
fn they_come_in_the_order_of_their_times_and_those_that_are_cancelled_do_not() {
    let up = Up::start();
    let create = ["topic", "create", "orders", "--remember-ids-for", "1d"];
    up.run(&create).ok();
    let (late, soon) = (in_millis(2_500), in_millis(1_500));
    let last = up.run(&[
        "pub",
        "orders",
        "last",
        "-k",
        "k",
        "--deliver-at",
        &late,
        "-o",
        "json",
    ]);
    let last = last.json();
    assert_eq!(
        (&last["first_offset"], &last["deliver_at"]),
        (&0.into(), &late.as_str().into())
    );
    let first = up.run(&["pub", "orders", "first", "-H", "a:b", "--deliver-at", &soon]);
    let told = first.stderr.clone();
    first.ok();
    let expected = format!(
        "stored 1 for orders, to be delivered at {soon}, offsets 1..2 of later.orders, fsync"
    );
    assert!(told.contains(&expected), "{told}");
    for _ in 0..2 {
        let again = ["pub", "orders", "never", "--id", "n", "--deliver-at", "+1h"];
        up.run(&again).ok();
    }
    up.run(&["pub", "orders", "nor this", "--deliver-at", "2100-01-01"])
        .ok();
    let listed = up.run(&["later", "ls", "orders", "-o", "json"]).json();
    let payloads: Vec<&str> = listed
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|message| message["payload"].as_str())
        .collect();
    assert_eq!(payloads, ["first", "last", "never", "nor this"]);
    assert_eq!(
        (&listed[2]["id"], &listed[2]["offset"]),
        (&"n".into(), &2.into())
    );

    let one = up.run(&["later", "cancel", "orders", "n", "-o", "json"]);
    assert_eq!(one.json()["cancelled"], 1);
    let error = up
        .run(&["later", "cancel", "orders", "n", "-o", "json"])
        .json_error();
    assert_eq!(error["name"], "NotPending");
    assert!(
        error["message"].to_string().contains("cancelled before"),
        "{error}"
    );
    up.run(&["later", "cancel", "orders", "--offset", "3"]).ok();

    let found = up
        .run(&[
            "sub",
            "orders",
            "--from",
            "beginning",
            "-n",
            "2",
            "-o",
            "json",
        ])
        .ok();
    let found: Vec<Value> = found
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    let of = |n: usize, field: &str| found[n][field].clone();
    assert_eq!(
        (of(0, "payload"), of(1, "payload")),
        ("first".into(), "last".into())
    );
    assert_eq!(
        (of(0, "headers")["a"].clone(), of(1, "key")),
        ("b".into(), "k".into())
    );
    let due: Timestamp = Timestamp::from_millis(
        of(1, "headers")["tidings-deliver-at"]
            .as_str()
            .and_then(|at| at.parse().ok())
            .expect("it tells when it was meant"),
    );
    assert_eq!(due.to_string(), late);
    assert!(Timestamp::now() >= due, "not before its time");
    until("nothing is pending", || {
        up.run(&["later", "ls", "-o", "json"]).json() == Value::Array(Vec::new())
    });
    let info = up.run(&["topic", "info", "orders", "-o", "json"]).json();
    assert_eq!(end_of(&info), 2);
    // It gives its disk space back by itself.
    until("the companion is empty", || {
        let info = up
            .run(&["topic", "info", "later.orders", "-o", "json"])
            .json();
        info["records"] == 0
    });
    up.stop();
}

/// Killed at any moment between storing and delivering: each is delivered once, and in order.
#[test]
fn a_peer_that_is_killed_again_and_again_delivers_each_once() {
    const COUNT: usize = 12_000;
    let mut cluster = Cluster::start();
    cluster.run(&["topic", "create", "jobs"]).ok();
    let batch = |from: usize, to: usize| -> String {
        (from..to).map(|n| format!("job {n:05}\n")).collect()
    };
    // The later half is published first.
    let half = COUNT / 2;
    let (first, second) = (in_millis(4_000), in_millis(4_500));
    let later = ["pub", "jobs", "--deliver-at", &second];
    cluster.feed(&later, batch(half, COUNT).as_bytes()).ok();
    cluster.peer.kill();
    cluster.restart_peer();
    let sooner = ["pub", "jobs", "--deliver-at", &first];
    cluster.feed(&sooner, batch(0, half).as_bytes()).ok();
    cluster
        .run(&["later", "cancel", "jobs", "--offset", "7"])
        .ok();
    cluster.peer.kill();
    // What comes due while the peer is away is delivered when it is back.
    until("they are due", || Timestamp::now().to_string() > second);
    let mut kills = 0;
    loop {
        cluster.restart_peer();
        let info = cluster.run(&["topic", "info", "jobs", "-o", "json"]).json();
        if end_of(&info) >= COUNT as u64 - 1 {
            break;
        }
        assert!(kills < 50, "{info}");
        kills += 1;
        cluster.peer.kill();
        if kills == 20 {
            cluster.restart_peer();
            break;
        }
    }
    let found = read(|args| cluster.run(args).ok(), "jobs", COUNT - 1);
    let mut expected: Vec<String> = batch(0, COUNT).lines().map(str::to_owned).collect();
    expected.remove(half + 7);
    assert_eq!(found, expected);
    let pending = cluster.run(&["later", "ls", "-o", "json"]).json();
    assert_eq!(pending, Value::Array(Vec::new()));
    let end = end_of(&cluster.run(&["topic", "info", "jobs", "-o", "json"]).json());
    assert_eq!(end, COUNT as u64 - 1, "none came twice");
    cluster.peer.stop();
    cluster.index.stop();
}

#[test]
fn a_full_topic_gets_them_when_there_is_room() {
    let up = Up::start();
    let flags = ["--retain-records", "10", "--when-full", "refuse"];
    let create = [
        "topic", "create", "few", flags[0], flags[1], flags[2], flags[3],
    ];
    up.run(&create).ok();
    let lines: String = (0..30).map(|n| format!("{n}\n")).collect();
    up.feed(&["pub", "few", "--deliver-at", "+100ms"], lines.as_bytes())
        .ok();
    until("as many as there is room for", || {
        end_of(&up.run(&["topic", "info", "few", "-o", "json"]).json()) == 10
    });
    until("it says why the others wait", || {
        let told = up.run(&["later", "ls", "few"]).stderr;
        told.contains("those for few wait: topic few is full")
    });
    let found = up.run(&["peer", "info", &up.peer_name, "--metrics"]).ok();
    let blocked = found
        .lines()
        .find(|line| line.starts_with("tidings_delayed_blocked_topics"));
    assert!(
        blocked.is_some_and(|line| line.ends_with(" 1")),
        "{blocked:?}"
    );
    up.run(&["topic", "set", "few", "retain-records=none"]).ok();
    let found = read(|args| up.run(args).ok(), "few", 30);
    assert_eq!(found.join("\n") + "\n", lines);
    up.stop();
}

#[test]
fn what_becomes_of_the_topic_becomes_of_its_companion() {
    let up = Up::start();
    up.run(&["topic", "create", "a"]).ok();
    up.run(&["pub", "a", "one", "--deliver-at", "+1h"]).ok();
    let names = || {
        let names = up.run(&["topic", "ls", "-o", "name"]).ok();
        names.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    up.run(&["topic", "rename", "a", "b"]).ok();
    assert_eq!(names(), ["b", "later.b"]);
    up.run(&["pub", "b", "two", "--deliver-at", "+1h"]).ok();
    let told = up.run(&["topic", "rm", "b", "--force"]).stderr;
    assert!(
        told.contains("left in later.b: 2 delayed messages for b"),
        "{told}"
    );
    assert_eq!(names(), ["later.b"]);
    // A new topic of that name does not get what was meant for another.
    up.run(&["topic", "create", "b"]).ok();
    let error = up
        .run(&["pub", "b", "x", "--deliver-at", "+1s", "-o", "json"])
        .json_error();
    assert!(
        error["message"].to_string().contains("of another topic"),
        "{error}"
    );
    // Nobody else settles what is in it, and none is delayed twice.
    let groups = up.run(&["group", "ls", "later.b", "-o", "name"]).ok();
    let group = groups.trim();
    assert!(group.starts_with("tidings-later-"), "{groups}");
    for args in [
        &["group", "rm", "later.b", group, "--force", "-o", "json"][..],
        &["group", "create", "b", group, "-o", "json"],
        &["sub", "later.b", "--group", group, "-n", "1", "-o", "json"],
        &["pub", "later.b", "x", "--deliver-at", "+1s", "-o", "json"],
    ] {
        let error = up.run(args).json_error();
        assert_eq!(error["name"], "InvalidArgument", "{args:?}: {error}");
    }
    up.run(&["topic", "rm", "later.b", "--force"]).ok();
    assert_eq!(names(), ["b"]);
    // With nothing pending it goes with its topic.
    up.run(&["pub", "b", "x", "--deliver-at", "+10ms"]).ok();
    assert_eq!(read(|args| up.run(args).ok(), "b", 1), ["x"]);
    assert_eq!(names(), ["b", "later.b"]);
    let told = up.run(&["topic", "rm", "b", "--force"]).stderr;
    assert!(!told.contains("delayed"), "{told}");
    assert_eq!(names(), Vec::<String>::new());
    up.stop();
}

#[test]
fn thousands_that_are_due_at_once_come_at_once() {
    const COUNT: usize = 50_000;
    let up = Up::start();
    up.run(&["topic", "create", "t"]).ok();
    let lines: String = (0..COUNT).map(|n| format!("message {n:08}\n")).collect();
    let due = in_millis(4_000);
    up.feed(&["pub", "t", "--deliver-at", &due], lines.as_bytes())
        .ok();
    let found = read(|args| up.run(args).ok(), "t", COUNT);
    assert!(found.join("\n") + "\n" == lines, "in order, each once");
    assert!(Timestamp::now().to_string() >= due);
    up.stop();
}

/// One message for next year holds neither the disk of those that were delivered since, nor its own place.
#[test]
fn what_waits_for_long_does_not_hold_the_disk() {
    let up = Up::start();
    up.run(&["topic", "create", "t"]).ok();
    up.run(&[
        "pub",
        "t",
        "next year",
        "--id",
        "y",
        "--deliver-at",
        "2100-01-01",
    ])
    .fails(1);
    up.run(&["topic", "set", "later.t", "remember-ids-for=1d"])
        .ok();
    up.run(&[
        "pub",
        "t",
        "next year",
        "--id",
        "y",
        "--deliver-at",
        "2100-01-01",
    ])
    .ok();
    let lines: String = (0..70_000).map(|n| format!("{n}\n")).collect();
    up.feed(&["pub", "t", "--deliver-at", "+1ms"], lines.as_bytes())
        .ok();
    let last = read(|args| up.run(args).ok(), "t", 70_000).pop();
    assert_eq!(last.as_deref(), Some("69999"));
    until(
        "the old one has moved, and what was before it has gone",
        || {
            let info = up.run(&["topic", "info", "later.t", "-o", "json"]).json();
            info["start_offset"].as_u64() >= Some(70_001)
        },
    );
    let listed = up.run(&["later", "ls", "t", "-o", "json"]).json();
    assert_eq!(
        (&listed[0]["offset"], &listed[0]["id"]),
        (&0.into(), &"y".into())
    );
    up.run(&["later", "cancel", "t", "--offset", "0"]).ok();
    up.stop();
}
