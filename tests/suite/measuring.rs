//! `tidings bench` beyond messages: what it tells, and that it leaves nothing behind.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::support::{Up, command, run_with, signal};

/// Asserts that these are all fields of an object, `a.b` for nested ones.
fn assert_has(value: &Value, fields: &[&str]) {
    for field in fields {
        let path = format!("/{}", field.replace('.', "/"));
        let found = value.pointer(&path);
        assert!(
            found.is_some_and(Value::is_number),
            "{field} of {value} is no number"
        );
    }
}

fn assert_nothing_left(up: &Up) {
    assert_eq!(up.run(&["topic", "ls", "-o", "name"]).ok(), "");
    let peers = up.run(&["peer", "ls", "-o", "name"]).ok();
    assert_eq!(peers, up.peer_name.clone() + "\n");
}

const LATENCY: [&str; 4] = [
    "latency_us.p50",
    "latency_us.p99",
    "latency_us.p999",
    "latency_us.max",
];

#[test]
fn lookups_of_topics_that_are_registered_for_it() {
    let up = Up::start();
    let args = "bench lookup --topics 300 --clients 3 --in-flight 8 --duration 300ms -o json";
    let ran = up.run(&args.split(' ').collect::<Vec<_>>());
    assert!(
        !ran.stderr.contains(['\r', '\x1b']),
        "a bar without a terminal: {:?}",
        ran.stderr
    );
    let report = ran.json();
    assert_has(&report, &LATENCY);
    assert_has(
        &report,
        &[
            "lookups_per_second",
            "registration_seconds",
            "server.rss_bytes_max",
            "server.cpu_seconds",
        ],
    );
    assert_eq!(
        (&report["topics"], &report["clients"]),
        (&300.into(), &3.into())
    );
    assert_eq!(report["lookups"], report["answered"]);
    assert!(report["lookups"].as_u64() > Some(24), "{report}");
    assert_nothing_left(&up);
    up.stop();
}

#[test]
fn lookups_at_a_rate_of_topics_that_are_there() {
    let up = Up::start();
    let lookup = |more: &[&str]| {
        let duration = ["bench", "lookup", "--existing", "--duration", "500ms"];
        up.run(&[&duration[..], more].concat())
    };
    let text = lookup(&[]).fails(1);
    assert!(text.contains("no topic to look up"), "{text}");
    up.run(&["topic", "create", "a", "b", "-q"]).ok();
    let report = lookup(&["--rate", "400/s", "--clients", "4", "-o", "json"]).json();
    assert_eq!(report["topics"], 2);
    assert!(report["registration_seconds"].is_null(), "{report}");
    assert_eq!(report["lookups"], report["answered"]);
    // Each has its moment, and all moments come.
    assert_eq!(report["lookups"], 200, "{report}");
    assert_eq!(up.run(&["topic", "ls", "-o", "name"]).ok(), "a\nb\n");
    up.stop();
}

/// Through a peer, too, and when it is ended by hand.
#[test]
fn lookups_that_are_interrupted_leave_nothing_behind() {
    let up = Up::start();
    let mut bench = command(up.dir.path());
    bench.args([
        "bench",
        "lookup",
        "--topics",
        "50",
        "--duration",
        "1h",
        "-q",
    ]);
    bench.args(["--peer", &up.peer]).stdout(Stdio::null());
    let mut bench = bench.spawn().expect("it starts");
    let deadline = Instant::now() + Duration::from_secs(30);
    while up.run(&["topic", "ls", "-o", "name"]).ok().is_empty() {
        assert!(Instant::now() < deadline, "nothing was registered");
    }
    signal(&bench, Signal::INT);
    assert!(bench.wait().expect("it ends").success());
    assert_nothing_left(&up);
    up.stop();
}

#[test]
fn connections_and_what_they_cost() {
    let up = Up::start();
    let args = "bench connections --connections 50 --publishers 9 --duration 200ms -o json";
    let report = up.run(&args.split(' ').collect::<Vec<_>>()).json();
    assert_has(&report, &LATENCY);
    assert_has(
        &report,
        &[
            "open_seconds",
            "accept_us.p99",
            "rss_bytes_before",
            "rss_bytes_with",
            "rss_bytes_per_connection",
            "latency_us_before.p50",
            "latency_us_before.p99",
            "server.sync_us_mean",
            "server.disk_bytes_per_payload_byte",
        ],
    );
    assert_eq!(report["connections"], 50);
    assert!(report["server"]["syncs"].as_u64() > Some(0), "{report}");
    for (crew, publishers) in [(0, 8), (1, 9)] {
        let crew = &report["publishers"][crew];
        assert_eq!(crew["publishers"], publishers);
        assert!(crew["records_per_second"].as_f64() > Some(0.0), "{report}");
    }
    assert_nothing_left(&up);
    up.stop();
}

/// Few descriptors for both sides: the server takes fewer connections then.
#[test]
fn more_connections_than_are_taken_are_a_failure_that_says_so() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let line = "ulimit -n 700 && exec \"$0\" bench connections --connections 1000 \
        --duration 10ms -q -o json";
    let mut shell = Command::new("sh");
    shell
        .current_dir(dir.path())
        .args(["-c", line, env!("CARGO_BIN_EXE_tidings")]);
    let failed = run_with(shell, b"");
    assert_eq!((failed.status, failed.stdout.as_str()), (1, ""));
    let error = failed.json_error();
    let message = error["message"].as_str().expect("a text");
    assert!(
        message.contains(" of 1,000 connections were opened: "),
        "{message}"
    );
    assert!(error["hint"].is_string(), "{error}");
}
