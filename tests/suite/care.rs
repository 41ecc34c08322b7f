//! Publishing with care, from outside: one batch, an expected end, a producer that goes on.

use std::io::Write;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;

use crate::cluster::Cluster;
use crate::support::{Ran, Up, run_with, signal};

/// Longest wait for anything.
const SOON: Duration = Duration::from_secs(60);

fn lines(count: usize) -> String {
    (0..count).map(|n| format!("line {n:06}\n")).collect()
}

/// Everything in a topic, one line each.
fn stored(cluster: &Cluster, topic: &str) -> String {
    let all = ["sub", topic, "--from", "beginning", "--until-end", "-q"];
    cluster.run(&all).ok()
}

fn end_of(cluster: &Cluster, topic: &str) -> u64 {
    let info = cluster.run(&["topic", "info", topic, "-o", "json"]).json();
    info["end_offset"].as_u64().expect("it runs")
}

#[test]
fn all_lines_are_stored_or_none() {
    let up = Up::start();
    up.run(&["topic", "create", "orders"]).ok();
    for codec in ["none", "lz4", "zstd"] {
        let args = [
            "pub",
            "orders",
            "--atomic",
            "--compress",
            codec,
            "-o",
            "json",
        ];
        let told = up.feed(&args, lines(3000).as_bytes()).json();
        assert_eq!(told["records"], 3000);
    }
    // Twice what one batch of this peer holds.
    let long = format!("{}\n", "x".repeat(1000)).repeat(2200);
    let error = up
        .feed(&["pub", "orders", "--atomic"], long.as_bytes())
        .fails(1);
    assert!(error.contains("send fewer at once"), "{error}");
    let packed = ["pub", "orders", "--atomic", "--compress", "zstd"];
    up.feed(&packed, long.as_bytes()).ok();
    let error = up.feed(&packed, "y\n".repeat(70_000).as_bytes()).fails(2);
    assert!(error.contains("more than one batch holds"), "{error}");
    let error = up.feed(&["pub", "orders", "--atomic"], b"").fails(1);
    assert!(error.contains("holds no message"), "{error}");
    let info = up.run(&["topic", "info", "orders", "-o", "json"]).json();
    assert_eq!(info["end_offset"], 3 * 3000 + 2200);
    up.stop();
}

/// Of many who saw the same end one is stored.
#[test]
fn of_those_who_expect_the_same_end_one_is_stored() {
    let up = Up::start();
    up.run(&["topic", "create", "ledger"]).ok();
    for end in [0, 1, 2_u64] {
        let racers: Vec<_> = (0..6)
            .map(|racer| {
                let (end, payload) = (end.to_string(), format!("entry of {racer}"));
                let args = [
                    "pub",
                    "ledger",
                    &payload,
                    "--expect-end",
                    &end,
                    "-o",
                    "json",
                ];
                let command = up.command(&args);
                std::thread::spawn(move || run_with(command, b""))
            })
            .collect();
        let ran: Vec<Ran> = racers
            .into_iter()
            .map(|racer| racer.join().expect("no panic"))
            .collect();
        let (done, refused): (Vec<Ran>, Vec<Ran>) =
            ran.into_iter().partition(|ran| ran.status == 0);
        assert_eq!(done.len(), 1, "{done:?}");
        for ran in refused {
            let error = ran.json_error();
            assert_eq!(
                (&error["code"], &error["name"]),
                (&json!(36), &json!("UnexpectedEnd"))
            );
        }
    }
    let error = up
        .run(&["pub", "ledger", "x", "--expect-end", "9"])
        .fails(1);
    assert!(
        error.contains("expected to end at 9, and it ends at 3"),
        "{error}"
    );
    up.stop();
}

/// A publisher of a file, killed and started again, at a peer that is killed as well: every line once, in order.
#[test]
fn a_named_producer_goes_on_until_every_line_is_there_once() {
    let mut cluster = Cluster::start();
    cluster.run(&["topic", "create", "import"]).ok();
    let count = 60_000;
    let input = cluster.dir.path().join("input");
    std::fs::write(&input, lines(count)).expect("written");
    let args = [
        "pub",
        "import",
        "--file",
        input.to_str().expect("text"),
        "--producer",
        "nightly",
        "--rate",
        "30000/s",
        "-q",
    ];
    let start = |cluster: &Cluster| -> Child {
        let mut command = cluster.command(&args);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().expect("it starts")
    };
    let deadline = Instant::now() + SOON;
    for (round, peer_too) in [false, true, false, true].into_iter().enumerate() {
        let mut publisher = start(&cluster);
        let goal = (round as u64 + 1) * 9_000;
        while end_of(&cluster, "import") < goal && publisher.try_wait().expect("ours").is_none() {
            assert!(Instant::now() < deadline, "it gets on");
        }
        if peer_too {
            cluster.peer.kill();
            cluster.restart_peer();
        }
        signal(&publisher, Signal::KILL);
        publisher.wait().expect("it is gone");
    }
    // While the last run publishes the peer is killed once more, and the publisher is not.
    let mut last = start(&cluster);
    while end_of(&cluster, "import") < 50_000 && last.try_wait().expect("ours").is_none() {
        assert!(Instant::now() < deadline, "it gets on");
    }
    cluster.peer.kill();
    cluster.restart_peer();
    assert!(last.wait().expect("it ends").success());
    assert_eq!(stored(&cluster, "import"), lines(count));
    // Once more there is nothing to do; and another input is noticed where it is shorter.
    let again = [
        "pub",
        "import",
        "--file",
        args[3],
        "--producer",
        "nightly",
        "-o",
        "json",
    ];
    let ran = cluster.run(&again);
    assert!(
        ran.stderr.contains("has published 60,000 messages"),
        "{ran:?}"
    );
    assert_eq!(ran.json()["records"], 0);
    let error = cluster.feed(&["pub", "import", "--producer", "nightly"], b"one\ntwo\n");
    assert!(error.fails(2).contains("the input has 2 messages"));
    assert_eq!(end_of(&cluster, "import"), count as u64);
}

/// Retention and restarts take nothing of what is known of a name.
#[test]
fn a_name_outlives_its_records_and_is_one_process_at_a_time() {
    let mut cluster = Cluster::start();
    cluster.run(&["topic", "create", "t"]).ok();
    let args = ["pub", "t", "--producer", "one", "-q"];
    cluster.feed(&args, lines(100).as_bytes()).ok();
    cluster
        .run(&["topic", "purge", "t", "--before", "end", "--force"])
        .ok();
    cluster.peer.kill();
    cluster.restart_peer();
    let mut command = cluster.command(&args);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut older = command.spawn().expect("it starts");
    let mut stdin = older.stdin.take().expect("piped");
    stdin.write_all(lines(101).as_bytes()).expect("taken");
    let deadline = Instant::now() + SOON;
    while end_of(&cluster, "t") < 101 {
        assert!(Instant::now() < deadline, "the new line is stored");
    }
    // Another process goes on under the name, and the older one is told.
    cluster.feed(&args, lines(102).as_bytes()).ok();
    stdin.write_all(b"too late\n").expect("taken");
    drop(stdin);
    let output = older.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(
        text.contains("another publisher goes on under this producer's name"),
        "{text}"
    );
    assert!(text.contains("one process at a time"), "{text}");
    assert_eq!(stored(&cluster, "t"), "line 000100\nline 000101\n");
    // From where somebody says.
    let from = ["pub", "t", "--producer", "one", "--producer-at", "1", "-q"];
    cluster.feed(&from, b"again\nnew\n").ok();
    assert_eq!(stored(&cluster, "t"), "line 000100\nline 000101\nnew\n");
}

/// A message that comes again under its id is the first one, also after a crash and when the first one is gone.
#[test]
fn a_message_of_a_known_id_is_not_stored_again() {
    let mut cluster = Cluster::start();
    cluster.run(&["topic", "create", "quakes"]).ok();
    let error = cluster.run(&["pub", "quakes", "x", "--id", "one"]).fails(1);
    assert!(error.contains("remembers no message ids"), "{error}");
    let set = [
        "topic",
        "set",
        "quakes",
        "remember-ids-for=1d",
        "remember-ids-max=5000",
    ];
    cluster.run(&set).ok();
    let info = cluster.run(&["topic", "info", "quakes"]).ok();
    assert!(
        info.contains("for 1d, of the last 5,000 at least"),
        "{info}"
    );
    let info = cluster
        .run(&["topic", "info", "quakes", "-o", "json"])
        .json();
    assert_eq!(
        info["remember_ids"],
        json!({"for_ms": 86_400_000, "max": 5000})
    );

    let file = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/data/samples/earthquakes.ndjson"
    );
    let publish = [
        "pub",
        "quakes",
        "--file",
        file,
        "--id-from",
        "json:id",
        "-o",
        "json",
    ];
    let first = cluster.run(&publish).json();
    assert_eq!(
        (&first["records"], &first["duplicates"]),
        (&json!(1707), &json!(0))
    );
    cluster.peer.kill();
    cluster.restart_peer();
    cluster
        .run(&["topic", "purge", "quakes", "--before", "1000", "--force"])
        .ok();
    let again = cluster.run(&publish).json();
    let expected = (&json!(1707), &json!(1707), &json!(1707));
    assert_eq!(
        (
            &again["records"],
            &again["duplicates"],
            &again["end_offset"]
        ),
        expected
    );
    assert_eq!(end_of(&cluster, "quakes"), 1707);

    let one = ["pub", "quakes", "-o", "json", "--id", "one", "first"];
    assert_eq!(cluster.run(&one).json()["duplicates"], 0);
    let one = ["pub", "quakes", "-o", "json", "--id", "one", "second"];
    let known = cluster.run(&one);
    assert!(known.stderr.contains("1 was there already"), "{known:?}");
    let known = known.json();
    assert_eq!(
        (&known["duplicates"], &known["first_offset"]),
        (&json!(1), &json!(1707))
    );
    let last = [
        "sub",
        "quakes",
        "--from",
        "-1",
        "--until-end",
        "-q",
        "-f",
        "%p %h%n",
    ];
    assert_eq!(cluster.run(&last).ok(), "first tidings-id:one\n");

    let error = cluster
        .feed(&["pub", "quakes", "--id", "one"], b"a\nb\n")
        .fails(2);
    assert!(error.contains("--id is for one message"), "{error}");
    let bad = ["pub", "quakes", "--id-from", "json:id"];
    let error = cluster.feed(&bad, b"{\"id\":7}\n{\"other\":8}\n").fails(2);
    assert!(error.contains("message 2 has no id"), "{error}");
    cluster
        .run(&[
            "topic",
            "set",
            "quakes",
            "remember-ids-for=none",
            "remember-ids-max=none",
        ])
        .ok();
    cluster.run(&["pub", "quakes", "x", "--id", "one"]).fails(1);
    cluster.peer.stop();
    let mut verify = crate::support::command(cluster.dir.path());
    verify.args(["data", "verify", "peer"]);
    assert_eq!(run_with(verify, b"").ok(), "");
}
