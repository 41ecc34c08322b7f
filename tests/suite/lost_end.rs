//! A topic whose end was damaged: what is still served, what is refused, and how it goes on.

use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::support::{command, signal};

/// Groups begin at multiples of it, on any disk.
const SECTOR: usize = 512;

/// The messages at offsets 5 to 7.
const LOST: [&str; 3] = ["lost one", "lost two", "lost three"];

/// Overwrites the header of the group that holds `text`.
fn lose_group_with(journal: &Path, text: &[u8]) {
    for entry in std::fs::read_dir(journal).expect("a journal") {
        let path = entry.expect("an entry").path();
        let mut bytes = Vec::new();
        let mut file = OpenOptions::new().read(true).write(true).open(&path);
        let file = file.as_mut().expect("a slot");
        file.read_to_end(&mut bytes).expect("readable");
        let Some(at) = bytes.windows(text.len()).position(|found| found == text) else {
            continue;
        };
        let starts = (0..=at / SECTOR).rev().map(|sector| sector * SECTOR);
        let group = starts
            .into_iter()
            .find(|start| bytes[*start..].starts_with(b"TGRP"));
        let group = group.expect("a group begins before it") as u64;
        file.seek(SeekFrom::Start(group)).expect("a place in it");
        file.write_all(&[0xee; SECTOR]).expect("writable");
        return;
    }
    panic!(
        "nothing in the journal says {}",
        String::from_utf8_lossy(text)
    );
}

/// A subscriber that follows, and what it has said.
struct Follower {
    child: Child,
    lines: Vec<std::sync::mpsc::Receiver<String>>,
}

impl Follower {
    fn start(cluster: &Cluster, args: &[&str]) -> Self {
        let mut command = command(cluster.dir.path());
        command
            .args(args)
            .env("TIDINGS_INDEX", &cluster.index.address);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("it starts");
        let out: Box<dyn Read + Send> = Box::new(child.stdout.take().expect("piped"));
        let notes: Box<dyn Read + Send> = Box::new(child.stderr.take().expect("piped"));
        let lines = [out, notes].map(|pipe| {
            let (to, lines) = std::sync::mpsc::channel();
            std::thread::spawn(move || {
                for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                    // Nobody listens any more when the test is over.
                    let _ = to.send(line);
                }
            });
            lines
        });
        let lines = lines.into();
        Self { child, lines }
    }

    /// The next line on stdout (0) or stderr (1).
    fn line(&self, stream: usize) -> String {
        let line = self.lines[stream].recv_timeout(Duration::from_secs(20));
        line.expect("a line in time")
    }

    fn stop(mut self) {
        signal(&self.child, Signal::TERM);
        let status = self.child.wait().expect("it ends");
        assert!(status.success(), "{status}");
    }
}

fn info(cluster: &Cluster, topic: &str) -> Value {
    cluster.run(&["topic", "info", topic, "-o", "json"]).json()
}

fn committed(cluster: &Cluster, name: &str) -> Value {
    let info = ["subscription", "info", "hurt", name, "-o", "json"];
    cluster.run(&info).json()["committed_offset"].clone()
}

/// A peer that has lost offsets 5 to 8 of one topic, and the catalog that would have known how much it had.
fn damaged() -> Cluster {
    let mut cluster = Cluster::start();
    cluster.run(&["topic", "create", "hurt", "well"]).ok();
    cluster.feed(&["pub", "hurt"], b"a\nb\nc\nd\ne\n").ok();
    cluster
        .run(&[
            "subscription",
            "create",
            "hurt",
            "--as",
            "old",
            "--from",
            "1",
        ])
        .ok();
    let ahead = [
        "subscription",
        "create",
        "hurt",
        "--as",
        "ahead",
        "--from",
        "1",
    ];
    cluster.run(&ahead).ok();
    // One after the other, so that each is in a group of its own.
    for lost in LOST {
        cluster.run(&["pub", "hurt", lost]).ok();
    }
    // A commit alone: it says nothing of where the topic ends.
    cluster
        .run(&["pull", "hurt", "--as", "ahead", "-n", "6"])
        .ok();
    cluster.feed(&["pub", "well"], b"1\n2\n").ok();
    cluster.peer.stop();
    let peer = cluster.dir.path().join("peer");
    for lost in LOST {
        lose_group_with(&peer.join("journal"), lost.as_bytes());
    }
    std::fs::remove_dir_all(peer.join("catalog")).expect("removed");
    cluster.restart_peer();
    cluster
}

#[test]
fn a_topic_with_a_lost_end_is_readable_up_to_there_until_the_loss_is_accepted() {
    let mut cluster = damaged();
    let hurt = info(&cluster, "hurt");
    assert_eq!(hurt["quarantined"], true, "{hurt}");
    let end = hurt["end_offset"].as_u64().expect("a number");
    assert_eq!(end, 5, "{hurt}");
    assert_eq!(info(&cluster, "well")["end_offset"], 2);

    // Others are served, this one is readable, and says no to messages at once.
    cluster.run(&["pub", "well", "3"]).ok();
    let all = ["sub", "hurt", "--from", "beginning", "--until-end"];
    assert!(cluster.run(&all).ok().starts_with("a\nb\nc\nd\ne\n"));
    let began = Instant::now();
    let refused = cluster
        .run(&["pub", "hurt", "x", "-o", "json"])
        .json_error();
    assert_eq!(refused["name"], "TopicQuarantined");
    assert!(began.elapsed() < Duration::from_secs(10));
    let text = cluster.run(&["pub", "hurt", "x"]).fails(1);
    assert!(text.contains("tidings topic accept-loss hurt"), "{text}");
    reads_through_subscriptions(&cluster, end);

    // It stays so, and what was read stays committed.
    cluster.peer.stop();
    cluster.restart_peer();
    assert_eq!(info(&cluster, "hurt")["quarantined"], true);
    assert_eq!(committed(&cluster, "old"), json!(end));
    assert_eq!(committed(&cluster, "new"), json!(3));

    let follower = Follower::start(&cluster, &["sub", "hurt", "--as", "old"]);
    assert!(follower.line(1).contains("hurt is quarantined"));
    let accepted = cluster.run(&["topic", "accept-loss", "hurt", "--force"]);
    let lost = format!(
        "hurt goes on at offset 8, without {} messages, offsets {end}..8\n",
        8 - end
    );
    assert_eq!(accepted.ok(), lost);
    let gap = follower.line(1);
    assert!(
        gap.contains(&format!("offsets {end}..8")) && gap.contains("damaged"),
        "{gap}"
    );
    let published = cluster.run(&["pub", "hurt", "after"]);
    assert_eq!(
        published.stderr,
        "published 1 to hurt, offsets 8..9, fsync\n"
    );
    assert_eq!(follower.line(0), "after");
    follower.stop();

    goes_on(&cluster, end);
    cluster.peer.kill();
    cluster.restart_peer();
    goes_on(&cluster, end);
}

/// Old and new subscriptions move as ever, up to the damage.
fn reads_through_subscriptions(cluster: &Cluster, end: u64) {
    let pulled = cluster.run(&["pull", "hurt", "--as", "old"]).ok();
    assert!(pulled.starts_with("b\nc\nd\ne\n"), "{pulled}");
    assert_eq!(committed(cluster, "old"), json!(end));
    // This one stands where messages were lost, which is no mistake of its own.
    let pulled = cluster.run(&["pull", "hurt", "--as", "ahead"]);
    assert!(
        pulled.stderr.contains("hurt is quarantined") && pulled.stdout.is_empty(),
        "{pulled:?}"
    );
    let waiting = ["pull", "hurt", "--as", "ahead", "--wait", "5s", "-q"];
    let text = cluster.run(&waiting).fails(1);
    assert!(
        text.contains("error: topic hurt is quarantined: records from offset 5 on"),
        "{text}"
    );
    assert_eq!(committed(cluster, "ahead"), json!(7));
    let new = [
        "pull",
        "hurt",
        "--as",
        "new",
        "--from",
        "beginning",
        "-n",
        "2",
    ];
    assert_eq!(cluster.run(&new).ok(), "a\nb\n");
    let seek = ["subscription", "seek", "hurt", "new", "--to", "3"];
    cluster.run(&seek).ok();
    let brief = ["subscription", "create", "hurt", "--as", "brief"];
    cluster.run(&brief).ok();
    let removed = ["subscription", "rm", "hurt", "brief", "--force"];
    cluster.run(&removed).ok();
}

/// The loss is accepted: nothing is refused any more, the gap stays told, and there is nothing more to accept.
fn goes_on(cluster: &Cluster, end: u64) {
    let hurt = info(cluster, "hurt");
    assert_eq!(hurt["quarantined"], false, "{hurt}");
    assert_eq!(
        hurt["gaps"],
        json!([{"from": end, "to": 8, "reason": "damaged"}])
    );
    assert_eq!(
        (&hurt["end_offset"], &hurt["records"]),
        (&json!(9), &json!(end + 1))
    );
    let all = ["sub", "hurt", "--from", "beginning", "--until-end"];
    let read = cluster.run(&all);
    assert!(
        read.stderr
            .contains(&format!("offsets {end}..8 are damaged")),
        "{read:?}"
    );
    let read = read.ok();
    assert!(
        read.starts_with("a\nb\nc\nd\ne\n") && read.ends_with("\nafter\n"),
        "{read}"
    );
    let again = cluster.run(&["topic", "accept-loss", "hurt", "--force"]);
    let text = again.fails(1);
    assert_eq!(
        text,
        "error: topic hurt is not quarantined: it has no loss to accept\n"
    );
    let error = cluster.run(&["topic", "accept-loss", "well", "--force", "-o", "json"]);
    assert_eq!(error.json_error()["name"], "NotQuarantined");
}
