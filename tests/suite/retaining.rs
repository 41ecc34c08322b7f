//! What topics keep, by meaning: full ones refuse and go on, what everybody has confirmed goes.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::cluster::Cluster;
use crate::support::Up;

/// What takes longer does not happen.
const SOON: Duration = Duration::from_secs(30);

/// Where a topic begins and ends.
fn offsets(run: impl Fn(&[&str]) -> Value, topic: &str) -> (u64, u64) {
    let info = run(&["topic", "info", topic, "-o", "json"]);
    let of = |field: &str| info[field].as_u64().expect("its host tells");
    (of("start_offset"), of("end_offset"))
}

fn until_offsets(run: impl Fn(&[&str]) -> Value, topic: &str, expected: (u64, u64)) {
    let deadline = Instant::now() + SOON;
    loop {
        let found = offsets(&run, topic);
        if found == expected {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "{topic} holds {found:?}, not {expected:?}"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_full_topic_refuses_and_the_publisher_waits_for_room() {
    let up = Up::start();
    let bounds = ["--retain-records", "3", "--when-full", "refuse"];
    let create = [
        "topic", "create", "jobs", bounds[0], bounds[1], bounds[2], bounds[3],
    ];
    up.run(&create).ok();
    up.run(&["pub", "jobs", "a", "--count", "3"]).ok();
    let impatient = ["pub", "jobs", "b", "--timeout", "200ms", "-o", "json"];
    let error = up.run(&impatient).json_error();
    assert_eq!(
        (&error["code"], &error["name"], &error["retryable"]),
        (&29.into(), &"TopicFull".into(), &true.into())
    );
    assert!(
        error["message"].to_string().contains("holds 3 messages"),
        "{error}"
    );
    let never: String = (0..4).map(|n| format!("{n}\n")).collect();
    let whole = ["pub", "jobs", "--timeout", "200ms"];
    assert_eq!(up.feed(&whole, never.as_bytes()).status, 1);
    assert_eq!(offsets(|args| up.run(args).json(), "jobs"), (0, 3));

    let mut patient = up.command(&["pub", "jobs", "c", "--timeout", "60s"]);
    let mut patient = patient.stderr(Stdio::piped()).spawn().expect("it starts");
    let told = BufReader::new(patient.stderr.take().expect("it is piped"));
    let mut told = told.lines().map(|line| line.expect("text"));
    let waits = told.next().expect("it says that it waits");
    assert!(
        waits.contains("topic jobs is full, waiting for room for up to 1m"),
        "{waits}"
    );
    up.run(&["topic", "purge", "jobs", "--before", "2", "--force"])
        .ok();
    assert!(patient.wait().expect("it ends").success());
    let rest: Vec<String> = told.collect();
    assert!(rest.concat().contains("offsets 3..4"), "{rest:?}");
    assert_eq!(offsets(|args| up.run(args).json(), "jobs"), (2, 4));
    up.stop();
}

#[test]
fn what_everybody_confirmed_goes_and_makes_room() {
    let mut cluster = Cluster::start();
    let flags = [
        "--retain-interest",
        "--retain-records",
        "10",
        "--when-full",
        "refuse",
    ];
    let create = [
        "topic", "create", "jobs", flags[0], flags[1], flags[2], flags[3], flags[4],
    ];
    cluster.run(&create).ok();
    cluster.run(&["pub", "jobs", "a", "--count", "10"]).ok();
    for name in ["mail", "audit"] {
        let from = [
            "subscription",
            "create",
            "jobs",
            "--as",
            name,
            "--from",
            "beginning",
        ];
        cluster.run(&from).ok();
    }
    cluster.run(&["pull", "jobs", "--as", "mail"]).ok();
    cluster
        .run(&["pull", "jobs", "--as", "audit", "-n", "4"])
        .ok();
    until_offsets(|args| cluster.run(args).json(), "jobs", (4, 10));
    cluster.run(&["pub", "jobs", "b", "--count", "4"]).ok();
    let full = ["pub", "jobs", "c", "--timeout", "200ms"];
    assert!(cluster.run(&full).fails(1).contains("is full"));
    // A new reader finds what is there, and all of it is as it was after a restart.
    let new = [
        "subscription",
        "create",
        "jobs",
        "--as",
        "new",
        "--from",
        "beginning",
    ];
    assert!(cluster.run(&new).stderr.contains("stands at offset 4"));
    cluster.peer.stop();
    cluster.restart_peer();
    assert_eq!(offsets(|args| cluster.run(args).json(), "jobs"), (4, 14));
    let read = cluster.run(&["pull", "jobs", "--as", "new"]);
    assert_eq!(read.stderr, "");
    assert_eq!(read.ok(), "a\n".repeat(6) + &"b\n".repeat(4));
    // The last who was slow is gone.
    cluster.run(&["pull", "jobs", "--as", "mail"]).ok();
    cluster
        .run(&["subscription", "rm", "jobs", "audit", "--force"])
        .ok();
    until_offsets(|args| cluster.run(args).json(), "jobs", (14, 14));
    cluster.run(&["pub", "jobs", "c", "--count", "10"]).ok();
}
