//! Messages with a time to live, from outside: there until it is over, then a gap, for everybody.

use std::time::{Duration, Instant};

use serde_json::Value;
use tidings::client::{Client, ConnectOptions, MemberOptions, Message, PublisherOptions};
use tidings::protocol::api::Position;

use crate::cluster::Cluster;
use crate::support::{Ran, Up};

const SOON: Duration = Duration::from_secs(30);

/// Waits for a condition, but not for ever.
fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < SOON, "{what}: not in time");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn all_of(cluster: &Cluster, topic: &str) -> Ran {
    cluster.run(&["sub", topic, "--from", "beginning", "--until-end"])
}

#[test]
fn a_message_is_there_until_its_time_is_over_and_a_gap_from_then_on() {
    let mut cluster = Cluster::start();
    cluster.run(&["topic", "create", "offers"]).ok();
    cluster.run(&["pub", "offers", "always"]).ok();
    let (began, ttl) = (Instant::now(), Duration::from_secs(8));
    let passing = ["pub", "offers", "today", "only", "--ttl", "8s"];
    cluster.run(&passing).ok();
    cluster
        .run(&["pub", "offers", "all week", "--ttl", "7d"])
        .ok();
    let before = all_of(&cluster, "offers");
    assert!(began.elapsed() < ttl, "the machine stands still");
    assert_eq!(before.stderr, "");
    assert_eq!(before.ok(), "always\ntoday\nonly\nall week\n");
    // A restart neither begins the time anew nor ends it.
    cluster.peer.kill();
    cluster.restart_peer();
    eventually("they are over", || {
        let found = all_of(&cluster, "offers");
        let is_over = found.stdout == "always\nall week\n";
        assert!(
            is_over || found.stdout == "always\ntoday\nonly\nall week\n",
            "{found:?}"
        );
        is_over
    });
    assert!(began.elapsed() >= ttl, "they lived as long as they should");
    let after = all_of(&cluster, "offers");
    let gap = "gap: offsets 1..3 are expired";
    assert!(after.stderr.contains(gap), "{after:?}");
    let pulled = [
        "pull", "offers", "--as", "late", "--from", "2", "-o", "json",
    ];
    let pulled = cluster.run(&pulled);
    assert!(
        pulled.stderr.contains("gap: offsets 2..3 are expired"),
        "{pulled:?}"
    );
    let line: Value = serde_json::from_str(&pulled.ok()).expect("one message");
    assert_eq!(
        (&line["offset"], &line["payload"]),
        (&3.into(), &"all week".into())
    );

    cluster.peer.stop();
    let dir = cluster.dir.path().join("peer");
    let dir = dir.to_str().expect("text");
    let dumped = cluster
        .run(&["data", "dump", dir, "offers", "-o", "json"])
        .ok();
    let expires: Vec<bool> = dumped
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON")["expires"].is_string())
        .collect();
    assert_eq!(expires.first(), Some(&false), "{dumped}");
    assert_eq!(expires.last(), Some(&true), "{dumped}");
    let told = cluster.run(&["data", "verify", dir]);
    assert_eq!(told.status, 0, "{told:?}");
}

#[test]
fn a_retry_of_what_is_over_is_a_duplicate_all_the_same() {
    let up = Up::start();
    up.run(&["topic", "create", "t", "--remember-ids-for", "1d"])
        .ok();
    // What is over may be discarded at any moment, but not behind something that stays.
    up.run(&["pub", "t", "it stays"]).ok();
    let publish = |args: &[&str]| {
        let all = [&["pub", "t", "--ttl", "1ms", "-o", "json"], args].concat();
        up.run(&all).json()
    };
    let first = publish(&["an order", "--id", "order-17"]);
    assert_eq!(first["first_offset"], 1);
    eventually("it is over", || {
        let all = up.run(&["sub", "t", "--from", "beginning", "--until-end"]);
        all.stderr.contains("offsets 1..2 are expired")
    });
    let again = publish(&["an order", "--id", "order-17"]);
    assert_eq!(
        (&again["duplicates"], &again["first_offset"]),
        (&1.into(), &1.into())
    );
    for (expected, end) in [(1, 3), (0, 3)] {
        let all = [
            "pub",
            "t",
            "--producer",
            "import",
            "--ttl",
            "1ms",
            "-o",
            "json",
        ];
        assert_eq!(up.feed(&all, b"line\n").json()["records"], expected);
        let info = up.run(&["topic", "info", "t", "-o", "json"]).json();
        assert_eq!(info["end_offset"], end);
    }
    up.stop();
}

#[test]
fn a_time_that_nothing_can_live_for_is_refused() {
    let up = Up::start();
    up.run(&["topic", "create", "t"]).ok();
    for bad in ["0s", "4000d", "soon", "-1s"] {
        let flag = format!("--ttl={bad}");
        let error = up.run(&["pub", "t", "x", &flag]).fails(2);
        assert!(
            error.contains("--ttl") && error.contains("expected"),
            "{error}"
        );
    }
    up.run(&["pub", "t", "x", "--ttl", "3650d"]).ok();
    up.run(&["pub", "t", "--atomic", "--ttl", "1h", "a", "b"])
        .ok();
    up.stop();
}

/// What a member holds when its time is over does not come again; what it acknowledges then counts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_goes_over_what_is_over() {
    let up = Up::start();
    up.run(&["topic", "create", "t"]).ok();
    let options = ConnectOptions::new(vec![up.index.parse().expect("an address")]);
    let client = Client::connect(options).await.expect("it runs");
    let (topic, group) = ("t".parse().expect("good"), "g".parse().expect("good"));
    let publisher = client.publisher(&topic, PublisherOptions::default()).await;
    let publisher = publisher.expect("the topic is there");
    let began = Instant::now();
    let ttl = Duration::from_secs(4);
    for n in 0..4 {
        let message = Message::new(format!("passing {n}"));
        let message = message.with_ttl(ttl.try_into().expect("good"));
        publisher
            .send(message)
            .await
            .expect("taken")
            .await
            .expect("stored");
    }
    let message = Message::new("lasting");
    publisher
        .send(message)
        .await
        .expect("taken")
        .await
        .expect("stored");
    let member = client
        .join_group(&topic, &group, MemberOptions::creating(Position::Beginning))
        .await
        .expect("it begins");
    let mut held = Vec::new();
    for n in 0..4 {
        let given = tokio::time::timeout(SOON, member.next()).await;
        let given = given.expect("in time").expect("a message");
        assert!(began.elapsed() < ttl, "the machine stands still");
        assert_eq!(given.record.value, format!("passing {n}"));
        held.push(given);
    }
    while began.elapsed() < ttl + Duration::from_millis(50) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // One is acknowledged late, the others are given back.
    member.ack(&held[0]);
    for given in &held[1..] {
        member.nak(given, Some(Duration::ZERO));
    }
    let given = tokio::time::timeout(SOON, member.next()).await;
    let given = given.expect("in time").expect("a message");
    assert_eq!(given.record.value, "lasting");
    member.ack(&given);
    member.settle().await.expect("settled");
    let info = || up.run(&["group", "info", "t", "g", "-o", "json"]).json();
    eventually("the rest was skipped", || info()["skipped"] == 3);
    assert_eq!(info()["acknowledged"], 2);
    member.leave().await.expect("left");
    up.stop();
}
