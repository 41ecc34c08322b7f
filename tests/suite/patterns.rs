//! `sub PATTERN` with real processes: all topics that match, on all peers, those made later too; through deaths of
//! peers and index; durable ones go on where they were.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::cluster::{Cluster, Server};
use crate::support::{Up, command, run_with, signal};

/// Longest wait for anything.
const SOON: Duration = Duration::from_secs(60);

/// A `sub` that runs, and what it has said.
struct Sub {
    child: Child,
    out: Arc<Mutex<Vec<String>>>,
    notes: Arc<Mutex<Vec<String>>>,
}

impl Sub {
    /// Starts it, and waits until it follows.
    fn start(mut command: Command) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let out = gather(child.stdout.take().expect("it is piped"));
        let notes = gather(child.stderr.take().expect("it is piped"));
        let sub = Self { child, out, notes };
        sub.until_note("following ");
        sub
    }

    fn until(&self, what: &str, holds: impl Fn(&[String]) -> bool) {
        let deadline = Instant::now() + SOON;
        while !holds(&self.out.lock().expect("no panic")) {
            let told = || self.out.lock().expect("no panic").len();
            let notes = || self.notes.lock().expect("no panic").join("\n");
            assert!(
                Instant::now() < deadline,
                "{what}: {} lines; {}",
                told(),
                notes()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn until_note(&self, text: &str) {
        let deadline = Instant::now() + SOON;
        loop {
            let notes = self.notes.lock().expect("no panic").join("\n");
            if notes.contains(text) {
                return;
            }
            assert!(Instant::now() < deadline, "no '{text}' in: {notes}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until so many messages of a topic came; `%t %o` lines.
    fn until_count(&self, topic: &str, count: usize) {
        let of_topic = |line: &&String| line.split(' ').next() == Some(topic);
        self.until(topic, |lines| {
            lines.iter().filter(of_topic).count() >= count
        });
    }

    /// Ends it as Ctrl-C would; offsets by topic, in the order in which they came.
    fn stop(mut self) -> BTreeMap<String, Vec<u64>> {
        signal(&self.child, Signal::TERM);
        let status = self.child.wait().expect("it ends");
        assert!(status.success(), "{status}");
        offsets(&self.out.lock().expect("no panic"))
    }
}

impl Drop for Sub {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn gather(from: impl std::io::Read + Send + 'static) -> Arc<Mutex<Vec<String>>> {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let to = lines.clone();
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            to.lock().expect("no panic").push(line);
        }
    });
    lines
}

fn offsets(lines: &[String]) -> BTreeMap<String, Vec<u64>> {
    let mut found: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for line in lines {
        let (topic, offset) = line.split_once(' ').expect("a topic and an offset");
        let offset = offset.parse().expect("an offset");
        found.entry(topic.to_owned()).or_default().push(offset);
    }
    found
}

fn dense(offsets: &[u64], expected: std::ops::Range<u64>) {
    assert!(offsets.iter().copied().eq(expected), "{offsets:?}");
}

fn sub(dir: &Path, index: &str, args: &[&str]) -> Command {
    let mut command = command(dir);
    command.arg("sub").args(args).env("TIDINGS_INDEX", index);
    command.args(["-f", "%t %o%n"]);
    command
}

fn lines(count: usize) -> Vec<u8> {
    (0..count)
        .flat_map(|n| format!("{n}\n").into_bytes())
        .collect()
}

fn publish(cluster: &Cluster, topic: &str, count: usize) {
    cluster.feed(&["pub", topic, "-q"], &lines(count)).ok();
}

/// Another peer of that cluster.
fn second_peer(cluster: &Cluster) -> Server {
    let mut serve = command(cluster.dir.path());
    serve.args(["serve", "peer", "--data-dir", "peer2", "--name", "two"]);
    serve.args(["--listen", "127.0.0.1:0", "--index", &cluster.index.address]);
    serve.args(["--slot-size", "4MiB", "--log", "error"]);
    Server::start(serve)
}

fn create(cluster: &Cluster, topic: &str, on: &str) {
    let create = ["topic", "create", topic, "-q", "--on", on];
    cluster.run(&create).ok();
}

fn first_peer(cluster: &Cluster) -> String {
    let peers = cluster.run(&["peer", "ls", "-o", "json"]).json();
    let peers = peers.as_array().expect("peers").clone();
    let first = peers.iter().find(|peer| peer["name"] != "two");
    first.expect("one")["name"]
        .as_str()
        .expect("a name")
        .to_owned()
}

#[test]
fn a_pattern_is_followed_over_peers_through_deaths_and_as_topics_come_and_go() {
    let mut cluster = Cluster::start();
    let _two = second_peer(&cluster);
    let one = first_peer(&cluster);
    for (topic, on) in [("q.a", one.as_str()), ("q.b", "two"), ("other", "two")] {
        create(&cluster, topic, on);
        publish(&cluster, topic, 5);
    }
    let following = Sub::start(sub(
        cluster.dir.path(),
        &cluster.index.address,
        &["q.>", "--from", "beginning"],
    ));
    following.until_count("q.a", 5);
    following.until_count("q.b", 5);
    publish(&cluster, "q.b", 10);
    following.until_count("q.b", 15);
    // Made later, on either peer, and full before anybody may have noticed.
    for (topic, on) in [("q.c", "two"), ("q.d.e", one.as_str())] {
        create(&cluster, topic, on);
        publish(&cluster, topic, 200);
        following.until_count(topic, 200);
    }
    cluster.run(&["topic", "rm", "q.c", "--force", "-q"]).ok();
    following.until_note("q.c is gone");

    cluster.peer.kill();
    publish(&cluster, "q.b", 5);
    following.until_count("q.b", 20);
    cluster.restart_peer();
    publish(&cluster, "q.a", 5);
    following.until_count("q.a", 10);

    cluster.index.kill();
    let through = ["pub", "q.b", "-q", "--peer", &_two.address];
    let mut publishing = command(cluster.dir.path());
    publishing.args(through);
    run_with(publishing, &lines(5)).ok();
    following.until_count("q.b", 25);
    cluster.restart_index();
    // The peers are back at the index when they have told it everything.
    let deadline = Instant::now() + SOON;
    while cluster.run(&["topic", "create", "q.late", "-q"]).status != 0 {
        assert!(Instant::now() < deadline, "the peers do not come back");
        std::thread::sleep(Duration::from_millis(50));
    }
    publish(&cluster, "q.late", 7);
    following.until_count("q.late", 7);
    let told = following.stop();
    for (topic, end) in [
        ("q.a", 10),
        ("q.b", 25),
        ("q.c", 200),
        ("q.d.e", 200),
        ("q.late", 7),
    ] {
        dense(&told[topic], 0..end);
    }
    assert_eq!(told.len(), 5, "{:?}", told.keys());
}

#[test]
fn a_durable_pattern_loses_nothing_over_kills() {
    let up = Up::start();
    let names: Vec<String> = (0..20).map(|n| format!("q.{n}")).collect();
    for name in &names {
        up.run(&["topic", "create", name, "-q"]).ok();
    }
    let args = ["q.*", "--as", "map", "--from", "beginning"];
    let mut told: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for round in 0..3_u64 {
        let mut following = Sub::start(sub(up.dir.path(), &up.index, &args));
        for name in &names {
            up.feed(&["pub", name, "-q"], &lines(50)).ok();
        }
        let goal = (round + 1) * 50;
        let is_there = |lines: &[String]| {
            let now = offsets(lines);
            names.iter().all(|name| {
                let last = now.get(name).and_then(|offsets| offsets.last());
                let before = told.get(name).and_then(|offsets| offsets.last());
                last.or(before).is_some_and(|last| *last + 1 >= goal)
            })
        };
        following.until("everything", is_there);
        // In the middle of everything; what was not committed comes again.
        following.child.kill().expect("killed");
        following.child.wait().expect("it ends");
        for (topic, offsets) in offsets(&following.out.lock().expect("no panic")) {
            let first = offsets[0];
            dense(&offsets, first..first + offsets.len() as u64);
            let known = told.entry(topic).or_default();
            assert!(first <= known.len() as u64, "nothing is left out");
            known.truncate(first as usize);
            known.extend(offsets);
        }
    }
    for name in &names {
        dense(&told[name], 0..150);
    }
    // Made while nobody follows: from its beginning, without being told so.
    up.run(&["topic", "create", "q.new", "-q"]).ok();
    up.feed(&["pub", "q.new", "-q"], &lines(9)).ok();
    let resumed = sub(
        up.dir.path(),
        &up.index,
        &["q.*", "--as", "map", "--until-end"],
    );
    let ran = run_with(resumed, b"");
    assert!(
        ran.stderr
            .contains("goes on where it stopped on 20 of them, is new on 1"),
        "{ran:?}"
    );
    let rest = offsets(&ran.ok().lines().map(str::to_owned).collect::<Vec<_>>());
    dense(&rest["q.new"], 0..9);
    let again = sub(
        up.dir.path(),
        &up.index,
        &["q.*", "--as", "map", "--until-end"],
    );
    assert_eq!(run_with(again, b"").ok(), "", "all of it is committed");
    let info = ["subscription", "info", "q.new", "map", "-o", "json"];
    assert_eq!(up.run(&info).json()["committed_offset"], 9);
    up.stop();
}

/// What was to be written when the pipe broke was confirmed, and never seen by anybody.
#[test]
fn what_nobody_took_out_of_the_pipe_is_not_confirmed() {
    let up = Up::start();
    up.run(&["topic", "create", "q.a", "-q"]).ok();
    up.feed(&["pub", "q.a", "-q"], &lines(50)).ok();
    let args = ["q.*", "--as", "map", "--from", "beginning", "--until-end"];
    let mut unread = sub(up.dir.path(), &up.index, &args)
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program starts");
    // Long before anything is written.
    drop(unread.stdout.take());
    let status = unread.wait().expect("it ends");
    assert!(status.success(), "{status}");
    let read = run_with(sub(up.dir.path(), &up.index, &args), b"");
    let told = offsets(&read.ok().lines().map(str::to_owned).collect::<Vec<_>>());
    dense(told.get("q.a").map_or(&[], Vec::as_slice), 0..50);
    up.stop();
}

#[test]
fn a_thousand_topics_are_read_to_their_ends_and_followed() {
    let up = Up::start();
    let names: Vec<String> = (0..1_000).map(|n| format!("t.{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    up.run(&[&["topic", "create", "-q"][..], &names].concat())
        .ok();
    assert_eq!(
        up.run(&["topic", "ls", "t.*", "-o", "name"])
            .ok()
            .lines()
            .count(),
        1_000
    );
    for name in names.iter().step_by(50) {
        up.feed(&["pub", name, "-q"], &lines(300)).ok();
    }
    let to_end = ["t.*", "--from", "beginning", "--until-end"];
    let ran = run_with(sub(up.dir.path(), &up.index, &to_end), b"").ok();
    let told = offsets(&ran.lines().map(str::to_owned).collect::<Vec<_>>());
    assert_eq!(told.len(), 20);
    told.values().for_each(|offsets| dense(offsets, 0..300));
    let some = run_with(
        sub(
            up.dir.path(),
            &up.index,
            &["t.*", "--from", "-1", "-n", "7"],
        ),
        b"",
    );
    assert_eq!(some.ok().lines().count(), 7);
    let following = Sub::start(sub(up.dir.path(), &up.index, &["t.>"]));
    for name in ["t.0", "t.17", "t.999", "t.500"] {
        up.run(&["pub", name, "x", "-q"]).ok();
        following.until_count(name, 1);
    }
    following.stop();
    up.stop();
}

#[test]
fn what_a_pattern_prints_and_refuses() {
    let up = Up::start();
    up.run(&["topic", "create", "q.a", "q.b", "-q"]).ok();
    up.run(&["pub", "q.a", "one", "-q"]).ok();
    up.run(&["pub", "q.b", "two", "-q"]).ok();
    let to_end = ["sub", "q.*", "--from", "beginning", "--until-end"];
    let plain = up.run(&to_end).ok();
    let mut plain: Vec<&str> = plain.lines().collect();
    plain.sort_unstable();
    assert_eq!(plain, ["one", "two"], "the payload and a newline");
    let json = up.run(&[&to_end[..], &["-o", "json"]].concat()).ok();
    let topics = json.lines().map(|line| {
        let value: Value = serde_json::from_str(line).expect("an object a line");
        value["topic"].as_str().expect("a topic").to_owned()
    });
    let mut topics: Vec<String> = topics.collect();
    topics.sort();
    assert_eq!(topics, ["q.a", "q.b"]);
    // A gap names its topic.
    up.run(&[
        "subscription",
        "create",
        "q.a",
        "--as",
        "g",
        "--from",
        "0",
        "-q",
    ])
    .ok();
    up.run(&["topic", "purge", "q.a", "--before", "end", "--force", "-q"])
        .ok();
    let ran = up.run(&["sub", "q.*", "--as", "g", "--until-end"]);
    assert!(
        ran.stderr.contains("gap: q.a: offsets 0..1 are discarded"),
        "{ran:?}"
    );
    let nothing = up.run(&["sub", "nothing.*", "--until-end"]);
    assert!(
        nothing.stderr.contains("no topic matches nothing.*"),
        "{nothing:?}"
    );
    assert_eq!(nothing.ok(), "");
    let pull = up.run(&["pull", "q.*", "--as", "m"]).fails(2);
    assert!(
        pull.contains("tidings sub 'q.*' --as m --until-end"),
        "{pull}"
    );
    up.run(&["sub", "q.*.>.b"]).fails(2);
    up.stop();
}
