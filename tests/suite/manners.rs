//! What a demanding user notices: hints that fit, nothing half done in silence,
//! no colours in pipes, and no peer taken for another.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;

use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{Up, command, ready, run_with, signal, tidings};

#[test]
fn a_wrong_value_leads_to_the_help_of_its_verb() {
    for (line, verb) in [
        (&["topic", "create", "a/b"][..], "tidings topic create"),
        (&["-q", "sub", "t", "-n", "x"], "tidings sub"),
        (
            &["subs", "seek", "t", "s", "--to", "x"],
            "tidings subscription seek",
        ),
    ] {
        let text = tidings(line).fails(2);
        let hint = format!("hint: '{verb} --help' shows what is expected, with examples\n");
        assert!(text.ends_with(&hint), "{line:?}: {text}");
        assert!(!text.contains("invalid digit"), "{line:?}: {text}");
    }
    // Flags that stand together are understood in an error, too.
    let error = tidings(&["topic", "create", "a/b", "-qo", "json"]).json_error();
    assert_eq!(error["name"], "Usage");
}

#[test]
fn help_is_found_in_more_than_one_way() {
    let help = tidings(&["topic", "create", "--help"]).ok();
    assert_eq!(tidings(&["help", "topic", "create"]).ok(), help);
    assert_eq!(tidings(&["help"]).ok(), tidings(&["--help"]).ok());
    for (line, noun) in [
        (&["ls"][..], "tidings"),
        (&["topic", "help"], "tidings topic"),
    ] {
        let text = tidings(line).fails(2);
        let hint = format!("hint: '{noun} --help' shows what is expected, with examples\n");
        assert!(text.ends_with(&hint), "{line:?}: {text}");
    }
}

#[test]
fn nouns_show_examples_too() {
    for noun in ["topic", "peer", "subscription", "data", "bench", "serve"] {
        let help = tidings(&[noun, "--help"]).ok();
        assert!(
            help.contains(&format!("Examples:\n  tidings {noun} ")),
            "{help}"
        );
    }
}

#[test]
fn a_peer_that_is_online_is_not_retired() {
    let up = Up::start();
    let text = up
        .run(&["peer", "retire", &up.peer_name, "--force"])
        .fails(1);
    let expected = format!("error: {} is online: stop it first", up.peer_name);
    assert!(text.starts_with(&expected), "{text}");
    assert_eq!(
        up.run(&["peer", "ls", "-o", "name"]).ok(),
        up.peer_name.clone() + "\n"
    );
}

#[test]
fn half_of_a_list_is_told_with_the_failure() {
    let up = Up::start();
    up.run(&["topic", "create", "b", "-q"]).ok();
    let half = up.run(&["topic", "create", "a", "b", "c", "-q", "-o", "json"]);
    let made: Value = serde_json::from_str(&half.stdout).expect("what was made");
    assert_eq!(
        (made[0]["name"].as_str(), made[1].as_str()),
        (Some("a"), None)
    );
    assert_eq!(half.json_error()["name"], "TopicExists");
    assert_eq!(up.run(&["topic", "ls", "-o", "name"]).ok(), "a\nb\n");
    let text = up.run(&["topic", "purge", "a", "--before", "7"]).fails(1);
    assert!(text.contains("the topic holds 0..0\n"), "{text}");
    let text = up.run(&["topic", "rename", "a", "b"]).fails(1);
    assert!(
        text.contains("hint: 'tidings topic info b' shows it"),
        "{text}"
    );
}

#[test]
fn a_publisher_that_fails_counts_what_it_was_to_publish() {
    let up = Up::start();
    up.run(&["topic", "create", "t", "-q"]).ok();
    let large = vec![b'x'; 2 << 20];
    let text = up.feed(&["pub", "t", "--whole"], &large).fails(1);
    assert!(
        text.contains("; acknowledged by t: 0 of 1 message\n"),
        "{text}"
    );
    let mut lines = b"one\ntwo\n".to_vec();
    lines.extend_from_slice(&large);
    let text = up.feed(&["pub", "t"], &lines).fails(1);
    assert!(
        text.contains("; acknowledged by t: 2 of 3 messages, offsets 0..2\n"),
        "{text}"
    );
}

#[test]
fn without_an_address_to_tell_nothing_starts() {
    let ran = tidings(&[
        "up",
        "--listen",
        "0.0.0.0:0",
        "--index-listen",
        "127.0.0.1:0",
    ]);
    assert_eq!(ran.stdout, "");
    assert!(ran.fails(2).contains("--advertise"));
}

/// A person who looks at a verb that waits is told what it waits for, and when that is over.
#[test]
fn who_waits_for_a_peer_says_so() {
    let up = Up::start();
    let serve = |listen: &str| {
        let mut serve = command(up.dir.path());
        serve.args(["serve", "peer", "--name", "alder", "--data-dir", "alder"]);
        serve.args(["--listen", listen, "--index", &up.index]);
        serve.args(["--slot-size", "4MiB", "--log", "off"]);
        let (child, lines) = ready(serve, 1);
        let address = lines[0].rsplit(' ').next().expect("an address").to_owned();
        (child, address)
    };
    let (mut peer, address) = serve("127.0.0.1:0");
    up.run(&["topic", "create", "t", "--on", "alder"]).ok();
    let mut following = up
        .command(&["sub", "t", "--from", "beginning", "-n", "2"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut publishing = up
        .command(&["pub", "t"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut stdin = publishing.stdin.take().expect("piped");
    let mut told = BufReader::new(publishing.stderr.take().expect("piped")).lines();
    stdin.write_all(b"one\n").expect("it reads");
    let mut read = BufReader::new(following.stdout.take().expect("piped")).lines();
    let first = read.next().expect("a line").expect("text");
    assert_eq!(first, "one");
    peer.kill().expect("it runs");
    peer.wait().expect("it ends");
    stdin.write_all(b"two\n").expect("it reads");
    let mut next = || told.next().expect("a note").expect("text");
    assert_eq!(next(), "no acknowledgement for 3s, trying for up to 1m");
    let (mut peer, _) = serve(&address);
    assert_eq!(next(), "acknowledgements come again");
    drop(stdin);
    assert_eq!(next(), "published 2 to t, offsets 0..2, fsync");
    assert!(publishing.wait().expect("it ends").success());
    let second = read.next().expect("a line").expect("text");
    assert_eq!(second, "two");
    let followed = following.wait_with_output().expect("it ends");
    assert!(followed.status.success(), "{followed:?}");
    assert_eq!(
        String::from_utf8_lossy(&followed.stderr),
        "the topic's peer is away, trying for up to 1m\nthe topic's peer is back\n"
    );
    signal(&peer, Signal::TERM);
    assert!(peer.wait().expect("it ends").success());
}

/// A peer was stopped, and another one listens where it did. It must not be asked, and above
/// all not be told, what is meant for the first.
#[test]
fn another_peer_at_the_same_address_is_not_taken_for_it() {
    let up = Up::start();
    let serve = |name: &str, listen: &str| {
        let mut serve = command(up.dir.path());
        serve.args(["serve", "peer", "--name", name, "--data-dir", name]);
        serve.args(["--listen", listen, "--index", &up.index]);
        serve.args(["--slot-size", "4MiB", "--log", "off"]);
        let (child, lines) = ready(serve, 1);
        let address = lines[0].rsplit(' ').next().expect("an address").to_owned();
        (child, address)
    };
    let (mut old, address) = serve("old", "127.0.0.1:0");
    up.run(&["topic", "create", "kept", "--on", "old"]).ok();
    signal(&old, Signal::TERM);
    assert!(old.wait().expect("it ends").success());
    let all = up.run(&["subscription", "ls"]);
    assert!(
        all.stderr
            .contains("without the subscriptions on old, which is offline\n"),
        "{all:?}"
    );
    let (mut new, _) = serve("new", &address);
    up.run(&["topic", "create", "t", "--on", "new"]).ok();

    let listed = up.run(&["topic", "ls", "-o", "json"]).json();
    let of = |at: usize| (listed[at]["name"].clone(), listed[at]["peer"].clone());
    assert_eq!(listed.as_array().map(Vec::len), Some(2), "{listed}");
    assert_eq!(of(0), (json!("kept"), json!("old")));
    assert_eq!(of(1), (json!("t"), json!("new")));
    let info = up.run(&["peer", "info", "old", "-o", "json"]);
    assert!(info.stderr.contains("peer old is offline"), "{info:?}");
    assert_eq!(info.json()["process"], Value::Null);
    let error = up
        .run(&["topic", "rm", "t", "--on", "old", "-o", "json"])
        .json_error();
    assert_eq!(error["name"], "PeerNotOnline");
    up.run(&["topic", "info", "t"]).ok();
    signal(&new, Signal::TERM);
    assert!(new.wait().expect("it ends").success());
}

#[test]
fn what_goes_through_a_pipe_has_no_colours() {
    let up = Up::start();
    up.run(&["pub", "t", "--create", "x"]).ok();
    for args in [
        &["--help"][..],
        &["topic", "ls"],
        &["topic", "info", "t"],
        &["topic", "nothing"],
        &["pub", "t", "y"],
        &["topic", "ls", "--log", "debug"],
    ] {
        let ran = up.run(args);
        assert!(!ran.stdout.contains('\x1b'), "{ran:?}");
        assert!(!ran.stderr.contains('\x1b'), "{ran:?}");
    }
}

#[test]
fn output_that_cannot_be_written_is_a_failure() {
    let up = Up::start();
    up.run(&["pub", "t", "--create", "x"]).ok();
    for args in [
        &["topic", "ls"][..],
        &["topic", "info", "t", "-o", "json"],
        &["sub", "t", "--from", "beginning", "--until-end"],
        &["pull", "t", "--as", "s", "--from", "beginning"],
    ] {
        let full = File::options()
            .write(true)
            .open("/dev/full")
            .expect("there");
        let output = up
            .command(args)
            .stdout(full)
            .stderr(Stdio::piped())
            .output()
            .expect("it runs");
        assert_eq!(output.status.code(), Some(1), "{args:?}: {output:?}");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(text.contains("stdout: No space left"), "{args:?}: {text}");
    }
    // What could not be written was not committed.
    let info = up.run(&["subscription", "info", "t", "s", "-o", "json"]);
    assert_eq!(info.json()["committed_offset"], 0);
}

#[test]
fn a_reader_of_a_directory_that_has_enough_ends_it_in_silence() {
    let up = Up::start();
    let lines: String = (0..50_000).map(|n| format!("message {n}\n")).collect();
    up.feed(&["pub", "t", "--create", "-q"], lines.as_bytes())
        .ok();
    let kept = TempDir::new().expect("a scratch directory");
    let data = up.dir.path().join("data");
    up.stop_with(|| std::fs::rename(&data, kept.path().join("data")).expect("moved"));
    for args in [
        &["data", "dump", "data/peer"][..],
        &["data", "export", "data/peer", "t"],
        &["data", "ls", "data/peer"],
    ] {
        let mut child = command(kept.path())
            .args(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        drop(child.stdout.take());
        let output = child.wait_with_output().expect("it ends");
        assert!(output.status.success(), "{args:?}: {output:?}");
        assert!(output.stderr.is_empty(), "{args:?}: {output:?}");
    }
    let verified = command(kept.path())
        .args(["data", "verify", "data/peer"])
        .output();
    assert!(verified.expect("it runs").status.success());
}

#[test]
fn messages_are_bytes_and_come_out_as_they_went_in() {
    let dir = TempDir::new().expect("a scratch directory");
    let up = Up::start();
    up.run(&["topic", "create", "csv", "binary", "-q"]).ok();
    let csv = "id,place\n1,\"Amboy, Washington\"\n2,Été\r\n";
    std::fs::write(dir.path().join("some.csv"), csv).expect("writable");
    let file = dir.path().join("some.csv");
    let file = file.to_str().expect("text");
    up.run(&["pub", "csv", "--file", file]).ok();
    let all = ["sub", "csv", "--from", "beginning", "--until-end"];
    assert_eq!(up.run(&all).ok(), csv);
    let bytes: Vec<u8> = (0..=255).collect();
    up.feed(&["pub", "binary", "--whole"], &bytes).ok();
    let raw = up
        .command(&[
            "sub",
            "binary",
            "--from",
            "beginning",
            "--until-end",
            "-f",
            "%p",
        ])
        .output()
        .expect("it runs");
    assert_eq!(raw.stdout, bytes);
    // What is no text in an argument is refused, not mangled: it goes through stdin.
    use std::os::unix::ffi::OsStrExt;
    let mut wrong = up.command(&["pub", "binary"]);
    wrong.arg(std::ffi::OsStr::from_bytes(&[0xff]));
    run_with(wrong, b"").fails(2);
}
