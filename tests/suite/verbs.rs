//! Every verb against a running cluster: right and wrong, for people and for programs.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{Reserved, Up, command, ready, run_with, signal};

/// Objects on the lines of JSON Lines.
fn json_lines(text: &str) -> Vec<Value> {
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e} in {line}")))
        .collect()
}

/// Waits for a condition, but not for ever.
fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(
            began.elapsed() < Duration::from_secs(20),
            "{what}: not within 20 s"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn topics_from_creation_to_removal() {
    let up = Up::start();
    let empty = up.run(&["topic", "ls"]);
    assert!(empty.stderr.contains("topic create"), "{empty:?}");
    assert_eq!(empty.ok(), "");
    assert_eq!(up.run(&["topic", "ls", "-o", "json"]).json(), json!([]));

    let created = up.run(&["topic", "create", "quakes.ci", "quakes.nc"]);
    assert!(
        created.stderr.contains("created quakes.ci on "),
        "{created:?}"
    );
    assert_eq!(created.ok(), "");
    let made = up.run(&[
        "topic",
        "create",
        "logs",
        "--durability",
        "os",
        "--retain-age",
        "7d",
        "--retain-bytes",
        "10GiB",
        "--retain-records",
        "1000",
        "-o",
        "json",
    ]);
    let made = &made.json()[0];
    assert_eq!(made["durability"], "os");
    let retention = json!({"age_ms": 604_800_000_u64, "bytes": 10_737_418_240_u64, "records": 1000, "interest": false});
    assert_eq!(made["retention"], retention);

    let again = up
        .run(&["topic", "create", "logs", "-o", "json"])
        .json_error();
    assert_eq!(
        (&again["code"], &again["name"]),
        (&json!(22), &json!("TopicExists"))
    );
    up.run(&["topic", "create", "logs", "--if-not-exists"]).ok();
    let text = up.run(&["topic", "create", "x", "--on", "nobody"]).fails(1);
    assert!(
        text.starts_with("error: peer nobody is not known"),
        "{text}"
    );

    let names = up.run(&["topic", "ls", "quakes.*", "-o", "name"]).ok();
    assert_eq!(names, "quakes.ci\nquakes.nc\n");
    let table = up.run(&["topic", "ls"]).ok();
    let lines: Vec<&str> = table.lines().collect();
    assert!(lines[0].starts_with("NAME ") && lines.len() == 4, "{table}");
    assert!(
        lines[1].starts_with("logs ") && lines[1].contains(" online "),
        "{table}"
    );

    shows_everything_promised(&up);
    changes_settings_and_names(&up);

    let gone = up.run(&["topic", "rm", "logs", "quakes.nc", "--force"]);
    assert!(
        gone.stderr.contains("deleted logs\ndeleted quakes.nc"),
        "{gone:?}"
    );
    let error = up
        .run(&["topic", "info", "logs", "-o", "json"])
        .json_error();
    assert_eq!(error["name"], "TopicNotFound");
    let text = up.run(&["topic", "rm", "quakes.ca", "logs"]).fails(1);
    assert!(text.contains("hint: "), "{text}");
    assert_eq!(
        up.run(&["topic", "ls", "-o", "name"]).ok(),
        "quakes.ca\n",
        "a list with a wrong name removed something"
    );
    up.stop();
}

fn shows_everything_promised(up: &Up) {
    let info = up.run(&["topic", "info", "quakes.ci", "-o", "json"]).json();
    let listed = up.run(&["topic", "ls", "quakes.ci", "-o", "json"]).json();
    assert_eq!(listed, json!([info]));
    assert_eq!(info["name"], "quakes.ci");
    assert_eq!(info["id"].as_str().map(str::len), Some(32));
    assert_eq!(info["peer"], up.peer_name);
    assert_eq!(info["address"], up.peer);
    assert_eq!(info["state"], "online");
    for zero in ["start_offset", "end_offset", "records", "subscriptions"] {
        assert_eq!(info[zero], 0, "{zero}");
    }
    assert!(info["epoch"].is_u64() && info["bytes"].is_u64(), "{info}");
    assert_eq!(info["durability"], "fsync");
    assert!(info["retention"].is_object());
    assert!(
        info["created"]
            .as_str()
            .is_some_and(|time| time.ends_with('Z'))
    );
    let card = up.run(&["topic", "info", "quakes.ci"]).ok();
    assert!(
        card.contains("keeps ") && card.contains("everything"),
        "{card}"
    );
}

fn changes_settings_and_names(up: &Up) {
    let set = [
        "topic",
        "set",
        "quakes.ci",
        "durability=os",
        "retain-records=5",
    ];
    let set = up.run(&set);
    assert!(
        set.stderr.contains("os, keeps at most 5 messages"),
        "{set:?}"
    );
    up.run(&["topic", "set", "quakes.ci", "retain-records=none"])
        .ok();
    let both = ["retain-interest=on", "when-full=refuse"];
    let set = up.run(&["topic", "set", "quakes.ci", both[0], both[1]]);
    assert!(
        set.stderr
            .contains("os, keeps what is not confirmed; refuses more when full"),
        "{set:?}"
    );
    let back = ["retain-interest=none", "when-full=discard-oldest"];
    up.run(&["topic", "set", "quakes.ci", back[0], back[1]])
        .ok();
    let info = up.run(&["topic", "info", "quakes.ci", "-o", "json"]).json();
    assert_eq!(info["durability"], "os");
    assert_eq!(info["retention"]["records"], Value::Null);

    up.run(&["topic", "rename", "quakes.ci", "quakes.ca"]).ok();
    let renamed = up.run(&["topic", "info", "quakes.ca", "-o", "json"]).json();
    assert_eq!(renamed["id"], info["id"]);
    up.run(&["topic", "info", "quakes.ci"]).fails(1);
    up.run(&["topic", "rename", "quakes.ca", "logs"]).fails(1);
}

#[test]
fn publishing_tells_what_was_stored() {
    let up = Up::start();
    let error = up.run(&["pub", "a", "x", "-o", "json"]).json_error();
    assert_eq!(error["name"], "TopicNotFound");

    let first = up.run(&["pub", "a", "--create", "one", "two"]);
    assert_eq!(first.stderr, "published 2 to a, offsets 0..2, fsync\n");
    assert_eq!(first.ok(), "");
    let lines = up.feed(&["pub", "a", "-o", "json"], b"three\n\nfive");
    let expected = json!({"topic": "a", "records": 3, "duplicates": 0, "first_offset": 2, "end_offset": 5,
                          "durability": "fsync"});
    assert_eq!(lines.json(), expected);
    let whole = up.feed(&["pub", "a", "--whole", "--count", "2"], b"six\nseven\n");
    assert_eq!(whole.stderr, "published 2 to a, offsets 5..7, fsync\n");
    let file = up.dir.path().join("lines.txt");
    std::fs::write(&file, "eight\nnine\n").expect("writable");
    let from_file = up.run(&[
        "pub",
        "a",
        "--file",
        "lines.txt",
        "--compress",
        "zstd",
        "-q",
    ]);
    assert_eq!(from_file.stderr, "");
    from_file.ok();
    let nothing = up.feed(&["pub", "a", "-o", "json"], b"");
    assert_eq!(nothing.json()["records"], 0);

    let all = ["sub", "a", "--from", "beginning", "--until-end"];
    assert_eq!(
        up.run(&all).ok(),
        "one\ntwo\nthree\n\nfive\nsix\nseven\n\nsix\nseven\n\neight\nnine\n"
    );

    for wrong in [
        &["pub", "a", "x", "--file", "lines.txt"][..],
        &["pub", "a", "--count", "2"],
        &["pub", "a", "x", "--rate", "fast"],
        &["pub", "a", "x", "-H", "no-colon"],
        &["pub", "a", "x", "--compress", "gzip"],
    ] {
        up.run(wrong).fails(2);
    }
    up.run(&["pub", "a", "--file", "absent.txt"]).fails(1);
    let large = vec![b'x'; 1024 * 1024 + 1];
    let error = up
        .feed(&["pub", "a", "--whole", "-o", "json"], &large)
        .json_error();
    assert_eq!(
        (&error["code"], &error["name"]),
        (&json!(31), &json!("MessageTooLarge"))
    );
    let message = error["message"].as_str().unwrap_or_default();
    assert!(message.contains("0 of 1 message"), "{message}");
    let limit = vec![b'x'; 1024 * 1024];
    up.feed(&["pub", "a", "--whole"], &limit).ok();
}

#[test]
fn messages_are_printed_as_asked() {
    let up = Up::start();
    up.run(&[
        "pub", "t", "--create", "-k", "k1", "-H", "a:1", "-H", "b:2", "hello",
    ])
    .ok();
    up.feed(&["pub", "t", "--whole"], &[0xff, 0x00]).ok();

    let all = ["sub", "t", "--from", "beginning", "--until-end"];
    let with = |more: &[&'static str]| up.run(&[&all[..], more].concat());
    let lines = json_lines(&with(&["-o", "json"]).ok());
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[0]["topic"], "t");
    assert_eq!(lines[0]["offset"], 0);
    assert_eq!(lines[0]["key"], "k1");
    assert_eq!(lines[0]["headers"], json!({"a": "1", "b": "2"}));
    assert_eq!(lines[0]["payload"], "hello");
    assert!(
        lines[0]["timestamp"]
            .as_str()
            .is_some_and(|time| time.ends_with('Z'))
    );
    assert_eq!(lines[1]["payload_base64"], "/wA=");
    assert_eq!(lines[1]["key"], Value::Null);
    assert_eq!(
        with(&["-n", "1", "-f", "%t/%o %k [%h] %p%n"]).ok(),
        "t/0 k1 [a:1,b:2] hello\n"
    );
    let yaml = with(&["-n", "1", "-o", "yaml"]).ok();
    assert!(yaml.starts_with("---\ntopic: t\n"), "{yaml}");
    with(&["-o", "name"]).fails(2);
    with(&["-o", "json", "-f", "%p"]).fails(2);
    with(&["-f", "%q"]).fails(2);
    with(&["-n", "0"]).fails(2);

    let from = |place: &str| {
        let ran = up.run(&["sub", "t", "--from", place, "--until-end", "-f", "%o "]);
        ran.ok()
    };
    assert_eq!(from("-1"), "1 ");
    assert_eq!(from("1"), "1 ");
    assert_eq!(from("1h"), "0 1 ");
    assert_eq!(from("end"), "");
    assert_eq!(from("1970-01-01"), "0 1 ");
    up.run(&["sub", "absent", "--until-end"]).fails(1);
}

#[test]
fn pulling_goes_on_where_it_stopped() {
    let up = Up::start();
    up.run(&["topic", "create", "t"]).ok();
    let text = up.run(&["pull", "t", "--as", "s"]).fails(1);
    assert!(text.contains("subscription create t --as s"), "{text}");
    let none = up.run(&["pull", "t", "--as", "s", "--from", "beginning"]);
    assert_eq!(
        (none.stdout.as_str(), none.stderr.as_str()),
        ("", "nothing new\n")
    );

    up.feed(&["pub", "t"], b"a\nb\nc\nd\n").ok();
    let pull = |more: &[&'static str]| {
        up.run(&[&["pull", "t", "--as", "s"][..], more].concat())
            .ok()
    };
    assert_eq!(pull(&["--no-commit"]), "a\nb\nc\nd\n");
    assert_eq!(pull(&["-n", "3"]), "a\nb\nc\n");
    assert_eq!(pull(&[]), "d\n");
    assert_eq!(pull(&[]), "");
    let began = Instant::now();
    assert_eq!(pull(&["--wait", "300ms"]), "");
    assert!(began.elapsed() >= Duration::from_millis(300));

    let waiting = up
        .command(&["pull", "t", "--as", "s", "--wait", "20s"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program starts");
    up.run(&["pub", "t", "e"]).ok();
    let output = waiting.wait_with_output().expect("it ends");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "e\n");
    let info = up
        .run(&["subscription", "info", "t", "s", "-o", "json"])
        .json();
    assert_eq!(
        (&info["committed_offset"], &info["lag_records"]),
        (&json!(5), &json!(0))
    );
}

#[test]
fn following_commits_what_it_printed() {
    let up = Up::start();
    up.run(&["topic", "create", "t"]).ok();
    let mut follower = up
        .command(&["sub", "t", "--as", "map"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let committed = || {
        let info = up.run(&["subscription", "info", "t", "map", "-o", "json"]);
        let value: Option<Value> = serde_json::from_str(&info.stdout).ok();
        value.and_then(|info| info["committed_offset"].as_u64())
    };
    eventually("the subscription is made", || committed() == Some(0));
    up.run(&["pub", "t", "one"]).ok();
    let mut printed = BufReader::new(follower.stdout.take().expect("piped")).lines();
    let line = printed.next().map(|line| line.expect("text"));
    assert_eq!(line.as_deref(), Some("one"));
    eventually("it commits while it runs", || committed() == Some(1));
    up.run(&["pub", "t", "two"]).ok();
    let line = printed.next().map(|line| line.expect("text"));
    assert_eq!(line.as_deref(), Some("two"));
    signal(&follower, Signal::INT);
    let output = follower.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{output:?}");
    let notes = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(notes.contains("subscription map is new"), "{notes}");
    assert_eq!(committed(), Some(2));

    let again = up.run(&[
        "sub",
        "t",
        "--as",
        "map",
        "--from",
        "beginning",
        "--until-end",
    ]);
    assert!(again.stderr.contains("goes on at offset 2"), "{again:?}");
    assert_eq!(again.ok(), "");
}

#[test]
fn a_reader_that_leaves_ends_a_subscriber_in_silence() {
    let up = Up::start();
    let lines: String = (0..200_000).map(|n| format!("message {n}\n")).collect();
    up.feed(&["pub", "t", "--create"], lines.as_bytes()).ok();
    let mut child = up
        .command(&["sub", "t", "--from", "beginning"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let first = BufReader::new(child.stdout.take().expect("piped"))
        .lines()
        .next();
    assert_eq!(first.expect("a line").expect("text"), "message 0");
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
}

#[test]
fn subscriptions_are_listed_moved_and_removed() {
    let up = Up::start();
    up.feed(&["pub", "t", "--create"], b"a\nb\nc\n").ok();
    up.run(&["subscription", "create", "t", "--as", "s1"]).ok();
    up.run(&[
        "subscription",
        "create",
        "t",
        "--as",
        "s2",
        "--from",
        "beginning",
    ])
    .ok();
    let error = up
        .run(&["subscription", "create", "t", "--as", "s1", "-o", "json"])
        .json_error();
    assert_eq!(error["name"], "SubscriptionExists");
    up.run(&[
        "subscription",
        "create",
        "t",
        "--as",
        "s1",
        "--if-not-exists",
    ])
    .ok();
    assert_eq!(
        up.run(&["subscription", "ls", "t", "-o", "name"]).ok(),
        "s1\ns2\n"
    );
    assert_eq!(
        up.run(&["subscription", "ls", "-o", "name"]).ok(),
        "s1\ns2\n"
    );
    let table = up.run(&["subscription", "ls", "t"]).ok();
    assert!(
        table.starts_with("TOPIC ") && table.lines().count() == 3,
        "{table}"
    );

    let info = up
        .run(&["subscription", "info", "t", "s2", "-o", "json"])
        .json();
    assert_eq!(info["topic"], "t");
    assert_eq!(info["name"], "s2");
    assert_eq!(info["committed_offset"], 0);
    assert_eq!(info["end_offset"], 3);
    assert_eq!(info["lag_records"], 3);
    assert!(info["lag_seconds"].is_number() && info["created"].is_string());
    assert!(info.get("last_commit").is_some());

    let seek = ["subscription", "seek", "t", "s2", "--to", "-1"];
    let dry = up.run(&[&seek[..], &["--dry-run"]].concat());
    assert!(
        dry.stderr.contains("would move from offset 0 to 2"),
        "{dry:?}"
    );
    let moved = up.run(&seek);
    assert!(
        moved.stderr.contains("moved from offset 0 to 2"),
        "{moved:?}"
    );
    assert_eq!(up.run(&["pull", "t", "--as", "s2"]).ok(), "c\n");

    let history = ["subscription", "history", "t", "s2"];
    let told = up.run(&[&history[..], &["-o", "json"]].concat()).json();
    assert_eq!(
        (&told[0]["change"], &told[0]["from"]),
        (&json!("created"), &Value::Null)
    );
    assert_eq!(
        (&told[1]["change"], &told[1]["from"]),
        (&json!("seek"), &json!(0))
    );
    assert_eq!(told[1]["to"], 2);
    let client = told[1]["client"].as_str().expect("a name");
    assert!(client.starts_with("tidings"), "{client}");
    assert!(
        told[1]["address"]
            .as_str()
            .expect("an address")
            .starts_with("127.0.0.1:")
    );
    let undo = ["subscription", "undo", "t", "s2"];
    let dry = up.run(&[&undo[..], &["--dry-run"]].concat());
    assert!(
        dry.stderr.contains("would go back from offset 3 to 0"),
        "{dry:?}"
    );
    let undone = up.run(&undo);
    assert!(
        undone.stderr.contains("went back from offset 3 to 0"),
        "{undone:?}"
    );
    assert!(undone.stderr.contains("undoes the seek of "), "{undone:?}");
    assert_eq!(up.run(&["pull", "t", "--as", "s2"]).ok(), "a\nb\nc\n");
    let again = up.run(&undo);
    assert!(
        again.stderr.contains("went back from offset 3 to 3"),
        "{again:?}"
    );
    assert!(again.stderr.contains("undoes the undo of "), "{again:?}");
    assert_eq!(up.run(&history).ok().lines().count(), 5);

    up.run(&["subscription", "rm", "t", "s2", "--force"]).ok();
    let error = up
        .run(&["subscription", "rm", "t", "s2", "-o", "json"])
        .json_error();
    assert_eq!(
        (&error["code"], &error["name"]),
        (&json!(50), &json!("SubscriptionNotFound"))
    );
}

#[test]
fn old_messages_are_purged_and_the_gap_is_told() {
    let up = Up::start();
    up.feed(&["pub", "t", "--create"], b"a\nb\nc\n").ok();
    up.run(&[
        "subscription",
        "create",
        "t",
        "--as",
        "s",
        "--from",
        "beginning",
    ])
    .ok();
    let purged = up.run(&["topic", "purge", "t", "--before", "2"]);
    assert!(
        purged.stderr.contains("discarded 2 messages of t"),
        "{purged:?}"
    );
    let pulled = up.run(&["pull", "t", "--as", "s"]);
    assert!(
        pulled.stderr.contains("gap: offsets 0..2 are discarded"),
        "{pulled:?}"
    );
    assert_eq!(pulled.ok(), "c\n");
    up.run(&["topic", "purge", "t", "--before", "end"]).ok();
    let info = up.run(&["topic", "info", "t", "-o", "json"]).json();
    assert_eq!(
        (&info["start_offset"], &info["records"]),
        (&json!(3), &json!(0))
    );
}

#[test]
fn peers_are_listed_and_described() {
    let up = Up::start();
    let peers = up.run(&["peer", "ls", "-o", "json"]).json();
    assert_eq!(peers[0]["name"], up.peer_name);
    assert_eq!(peers[0]["state"], "online");
    let table = up.run(&["peer", "ls"]).ok();
    assert!(
        table.contains(&up.peer) && table.contains(" online "),
        "{table}"
    );
    let info = up
        .run(&["peer", "info", &up.peer_name, "-o", "json"])
        .json();
    assert_eq!(info["address"], up.peer);
    assert_eq!(info["process"]["version"], env!("CARGO_PKG_VERSION"));
    let text = up.run(&["peer", "info", "nobody"]).fails(1);
    assert!(text.contains("hint: 'tidings peer ls'"), "{text}");
    up.run(&["peer", "retire", "nobody", "--force"]).fails(1);
}

#[test]
fn any_peer_is_a_way_in() {
    let up = Up::start();
    let mut through_peer = command(up.dir.path());
    through_peer.args(["--peer", &up.peer, "topic", "create", "t"]);
    run_with(through_peer, b"").ok();
    let mut from_environment = command(up.dir.path());
    from_environment
        .env("TIDINGS_PEER", &up.peer)
        .args(["pub", "t", "x"]);
    run_with(from_environment, b"").ok();
    std::fs::write(
        up.dir.path().join("tidings.toml"),
        format!("peer = {:?}\n", up.peer),
    )
    .expect("writable");
    let mut from_file = command(up.dir.path());
    from_file.args(["sub", "t", "--from", "beginning", "--until-end"]);
    assert_eq!(run_with(from_file, b"").ok(), "x\n");
}

#[test]
fn topics_of_a_stopped_peer_are_still_known() {
    let up = Up::start();
    let mut second = command(up.dir.path());
    second.args([
        "serve",
        "peer",
        "--name",
        "second",
        "--listen",
        "127.0.0.1:0",
    ]);
    second.args([
        "--index",
        &up.index,
        "--data-dir",
        "second",
        "--log",
        "warn",
    ]);
    let (mut child, lines) = ready(second, 1);
    assert!(
        lines[0].starts_with("ready peer second 127.0.0.1:"),
        "{lines:?}"
    );
    up.run(&["topic", "create", "t", "--on", "second"]).ok();
    up.run(&["pub", "t", "x"]).ok();
    signal(&child, Signal::TERM);
    assert!(child.wait().expect("it ends").success());
    let info = up.run(&["topic", "info", "t", "-o", "json"]).json();
    assert_eq!(
        (&info["state"], &info["peer"]),
        (&json!("offline"), &json!("second"))
    );
    for unknown in ["start_offset", "end_offset", "records", "bytes", "created"] {
        assert_eq!(info[unknown], Value::Null, "{unknown}");
    }
    let listed = up.run(&["topic", "ls", "-o", "json"]).json();
    assert_eq!(listed, json!([info]));
    let pull = ["pull", "t", "--as", "s", "--timeout", "100ms", "-o", "json"];
    assert_eq!(up.run(&pull).json_error()["name"], "PeerNotOnline");
    let retired = up.run(&["peer", "retire", "second", "--force"]);
    assert!(retired.stderr.contains("which frees 1 name"), "{retired:?}");
    up.run(&["topic", "info", "t"]).fails(1);
}

#[test]
fn servers_refuse_what_cannot_work() {
    let up = Up::start();
    let run = |args: &[&str]| {
        let mut command = command(up.dir.path());
        command.args(args);
        run_with(command, b"")
    };
    let text = run(&["serve", "index", "--listen", &up.index]).fails(1);
    assert!(
        text.contains("cannot listen") && text.contains("hint: "),
        "{text}"
    );
    let text = run(&[
        "serve",
        "peer",
        "--listen",
        "127.0.0.1:0",
        "--data-dir",
        "data/peer",
    ])
    .fails(1);
    assert!(text.contains("in use by process"), "{text}");
    let text = run(&[
        "serve",
        "peer",
        "--listen",
        "0.0.0.0:0",
        "--data-dir",
        "other",
    ])
    .fails(2);
    assert!(text.contains("--advertise"), "{text}");
    std::fs::write(up.dir.path().join("file"), "").expect("writable");
    let text = run(&[
        "serve",
        "index",
        "--listen",
        "127.0.0.1:0",
        "--data-dir",
        "file",
    ])
    .fails(1);
    assert!(text.contains("file"), "{text}");
    run(&["serve", "index", "--index", "127.0.0.1:1"]).fails(2);
    run(&["serve", "index", "--lease", "10"]).fails(2);
    run(&["up", "-o", "json"]).fails(2);
    run(&["up", "--log", "loud"]).fails(2);
}

#[test]
fn a_measurement_has_the_promised_fields() {
    let up = Up::start();
    for verb in ["publish", "read", "latency"] {
        let args = [
            "bench",
            verb,
            "--duration",
            "500ms",
            "--topics",
            "3",
            "--publishers",
            "2",
        ];
        let ran = up.run(&[&args[..], &["--verify", "--rate", "2000/s", "-o", "json"]].concat());
        let report = ran.json();
        assert!(
            report["records"].as_u64().is_some_and(|n| n > 100),
            "{verb}: {report}"
        );
        for zero in ["lost", "duplicated", "out_of_order"] {
            assert_eq!(report[zero], 0, "{verb}: {zero}");
        }
        for field in ["p50", "p99", "p999", "max"] {
            assert!(report["latency_us"][field].is_u64(), "{verb}: {field}");
        }
        for field in ["records_per_second", "bytes_per_second", "acknowledged"] {
            assert!(report[field].is_number(), "{verb}: {field}");
        }
        assert!(
            report["server"]["rss_bytes_max"]
                .as_u64()
                .is_some_and(|n| n > 0),
            "{verb}"
        );
    }
    let table = up
        .run(&["bench", "publish", "--duration", "200ms", "--topics", "2"])
        .ok();
    assert!(
        table.contains("p99.9") && table.contains("records"),
        "{table}"
    );
    assert_eq!(
        up.run(&["topic", "ls", "-o", "name"]).ok(),
        "",
        "topics stay behind"
    );
    up.run(&["bench", "publish", "--size", "1"]).fails(2);
    up.run(&["bench", "publish", "--topics", "0"]).fails(2);
}

#[test]
fn a_measurement_brings_its_own_cluster() {
    let dir = tempfile::TempDir::new().expect("a scratch directory");
    let mut bench = command(dir.path());
    bench.args(["bench", "publish", "--duration", "200ms", "-o", "json"]);
    let report = run_with(bench, b"").json();
    assert!(
        report["acknowledged"].as_u64().is_some_and(|n| n > 0),
        "{report}"
    );
}

/// A script that starts servers and then publishes need not know when they are ready.
#[test]
fn publishing_waits_for_a_first_connection() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let port = Reserved::new();
    let address = port.address();
    let tidings = |args: &[&str]| {
        let mut command = command(dir.path());
        command.args(args).env("TIDINGS_INDEX", &address);
        command
    };
    let quick = Instant::now();
    let error = run_with(tidings(&["topic", "ls", "-o", "json"]), b"").json_error();
    assert_eq!(error["name"], "Unreachable");
    for verb in [["pub", "t", "a"], ["sub", "t", "-n1"]] {
        let args = [&verb[..], &["--timeout", "200ms", "-o", "json", "-q"]].concat();
        assert_eq!(
            run_with(tidings(&args), b"").json_error()["name"],
            "Unreachable"
        );
    }
    assert!(quick.elapsed() < Duration::from_secs(10));

    let mut publishing = tidings(&["pub", "t", "--create", "a"])
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut told = BufReader::new(publishing.stderr.take().expect("piped")).lines();
    let waits = told.next().expect("a note").expect("text");
    assert!(
        waits.contains(&address) && waits.contains("trying for up to 1m, Ctrl-C gives up"),
        "{waits}"
    );
    let hint = told.next().expect("a hint").expect("text");
    assert!(
        hint.starts_with("hint: ") && hint.contains("'tidings up' starts"),
        "{hint}"
    );
    let mut up = tidings(&["up", "--listen", "127.0.0.1:0", "--log", "off"]);
    up.args(["--index-listen", &address])
        .env_remove("TIDINGS_INDEX");
    drop(port);
    let (mut servers, _) = ready(up, 2);
    // Perhaps it waits once more, for the peer: the index is there first.
    let told: Vec<String> = told.map(|line| line.expect("text")).collect();
    signal(&servers, Signal::TERM);
    assert!(servers.wait().expect("it ends").success());
    let expected = "published 1 to t, offsets 0..1, fsync";
    assert_eq!(told.last().map(String::as_str), Some(expected), "{told:?}");
    assert!(publishing.wait().expect("it ends").success());
}
