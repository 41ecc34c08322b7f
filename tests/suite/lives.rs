//! Subscriptions that are paused, and those that vanish when nobody uses them, with real processes.

use std::io::{BufRead, BufReader, Lines};
use std::process::{Child, ChildStderr, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::cluster::Cluster;
use crate::support::signal;

/// What takes longer does not happen.
const SOON: Duration = Duration::from_secs(30);
/// Long enough to tell that nothing comes.
const QUIET: Duration = Duration::from_millis(500);

/// A reader that goes on until it is told to stop.
struct Reader {
    child: Child,
    out: Receiver<String>,
    told: Lines<BufReader<ChildStderr>>,
}

impl Reader {
    fn start(cluster: &Cluster, args: &[&str]) -> Self {
        let mut command: Command = crate::support::command(cluster.dir.path());
        command
            .args(args)
            .env("TIDINGS_INDEX", &cluster.index.address);
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let out = child.stdout.take().expect("it is piped");
        let told = BufReader::new(child.stderr.take().expect("it is piped")).lines();
        Self {
            child,
            out: lines(out),
            told,
        }
    }

    fn expect(&self, lines: &[&str]) {
        for line in lines {
            assert_eq!(self.out.recv_timeout(SOON).as_deref(), Ok(*line));
        }
    }

    fn expect_nothing(&self) {
        assert!(self.out.recv_timeout(QUIET).is_err());
    }

    /// The next thing it says that contains the text.
    fn says(&mut self, text: &str) {
        let mut found = self.told.by_ref().map(|line| line.expect("text"));
        assert!(
            found.any(|line| line.contains(text)),
            "it never says {text}"
        );
    }

    fn stop(mut self) {
        signal(&self.child, Signal::INT);
        let status = self.child.wait().expect("it ends");
        assert!(status.success(), "{status}");
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Its lines as they come; the channel holds as many as a test ever prints.
fn lines(out: ChildStdout) -> Receiver<String> {
    let (to, from) = sync_channel(1_000);
    std::thread::spawn(move || {
        for line in BufReader::new(out).lines().map_while(Result::ok) {
            if to.send(line).is_err() {
                return;
            }
        }
    });
    from
}

fn info(cluster: &Cluster, name: &str) -> Value {
    let info = ["subscription", "info", "t", name, "-o", "json"];
    cluster.run(&info).json()
}

/// Whether there is such a subscription.
fn exists(cluster: &Cluster, name: &str) -> bool {
    let names = cluster.run(&["subscription", "ls", "t", "-o", "name"]);
    names.ok().lines().any(|line| line == name)
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + SOON;
    while !holds() {
        assert!(Instant::now() < deadline, "waited for: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn paused_is_paused_for_everybody_also_over_restarts() {
    let mut cluster = Cluster::start();
    cluster.run(&["topic", "create", "t"]).ok();
    let mut reader = Reader::start(
        &cluster,
        &["sub", "t", "--as", "map", "--from", "beginning"],
    );
    reader.says("subscription map is new");
    cluster.run(&["pub", "t", "one"]).ok();
    reader.expect(&["one"]);
    until("it attends", || info(&cluster, "map")["readers"] == 1);
    let paused = cluster.run(&["subscription", "pause", "t", "map"]);
    assert!(
        paused
            .stderr
            .contains("subscription map is paused at offset"),
        "{paused:?}"
    );
    reader.says("the subscription is paused, 'tidings subscription resume t map'");
    cluster.run(&["pub", "t", "two"]).ok();
    reader.expect_nothing();
    // Those who come by get nothing, and are told why; what was handed out was confirmed.
    let pulled = cluster.run(&["pull", "t", "--as", "map"]);
    assert!(pulled.stderr.contains("is paused"), "{pulled:?}");
    assert_eq!(pulled.ok(), "");
    let patient = cluster.run(&["pull", "t", "--as", "map", "--wait", "100ms"]);
    assert!(patient.stderr.contains("is paused"), "{patient:?}");
    assert_eq!(patient.ok(), "");
    until("it commits", || {
        info(&cluster, "map")["committed_offset"] == 1
    });
    let listed = cluster.run(&["subscription", "ls"]).ok();
    assert!(listed.contains(" paused"), "{listed}");
    cluster.peer.kill();
    cluster.restart_peer();
    cluster.run(&["pub", "t", "three"]).ok();
    reader.expect_nothing();
    assert_eq!(info(&cluster, "map")["paused"], true);
    let resumed = cluster.run(&["subscription", "resume", "t", "map"]);
    assert!(
        resumed.stderr.contains("goes on from offset 1"),
        "{resumed:?}"
    );
    reader.says("the subscription goes on");
    reader.expect(&["two", "three"]);
    reader.stop();
    assert_eq!(info(&cluster, "map")["committed_offset"], 3);
}

/// Removed and made again while somebody reads through it: the reader goes on with the new one, and attends that.
#[test]
fn who_goes_on_with_another_of_that_name_attends_it() {
    let cluster = Cluster::start();
    cluster.run(&["topic", "create", "t"]).ok();
    let mut reader = Reader::start(&cluster, &["sub", "t", "--as", "map"]);
    reader.says("subscription map is new");
    until("it attends", || info(&cluster, "map")["readers"] == 1);
    let remove = ["subscription", "rm", "t", "map", "--force"];
    cluster.run(&remove).ok();
    let create = ["subscription", "create", "t", "--as", "map"];
    cluster
        .run(&[&create[..], &["--expire", "1h"]].concat())
        .ok();
    assert_eq!(info(&cluster, "map")["readers"], 0);
    cluster.run(&["pub", "t", "one"]).ok();
    reader.says("somebody moved the subscription");
    until("it attends", || info(&cluster, "map")["readers"] == 1);
    cluster.run(&["subscription", "pause", "t", "map"]).ok();
    reader.says("the subscription is paused");
    cluster.run(&["subscription", "resume", "t", "map"]).ok();
    reader.says("the subscription goes on");
    cluster.run(&["pub", "t", "two"]).ok();
    until("it commits", || {
        info(&cluster, "map")["committed_offset"] == 2
    });
    reader.stop();
}

#[test]
fn what_nobody_reads_vanishes_and_the_peers_absence_counts_for_nobody() {
    let mut cluster = Cluster::start();
    cluster
        .run(&["topic", "create", "t", "--retain-interest"])
        .ok();
    cluster.run(&["pub", "t", "one"]).ok();
    let create = [
        "subscription",
        "create",
        "t",
        "--as",
        "idle",
        "--expire",
        "1s",
    ];
    cluster.run(&create).ok();
    let args = [
        "sub",
        "t",
        "--as",
        "busy",
        "--from",
        "beginning",
        "--expire",
        "2s",
    ];
    let reader = Reader::start(&cluster, &args);
    reader.expect(&["one"]);
    until("nobody uses it", || !exists(&cluster, "idle"));
    // Read it stays, whether or not anything comes.
    let over = Instant::now() + Duration::from_secs(3);
    while Instant::now() < over {
        assert!(exists(&cluster, "busy"));
        std::thread::sleep(Duration::from_millis(100));
    }
    let found = info(&cluster, "busy");
    assert_eq!(
        (&found["expire_ms"], &found["expires_in_ms"]),
        (&2000.into(), &Value::Null)
    );
    // Longer away than it may be unused.
    cluster.peer.stop();
    std::thread::sleep(Duration::from_secs(3));
    cluster.restart_peer();
    assert!(exists(&cluster, "busy"));
    cluster.run(&["pub", "t", "two"]).ok();
    reader.expect(&["two"]);
    reader.stop();
    let left = info(&cluster, "busy")["expires_in_ms"].as_u64();
    assert!(left.is_some_and(|left| left <= 2_000), "{left:?}");
    let set = cluster.run(&["subscription", "set", "t", "busy", "expire=none"]);
    assert!(set.stderr.contains("subscription busy stays"), "{set:?}");
    std::thread::sleep(Duration::from_millis(2_500));
    assert!(exists(&cluster, "busy"));
    cluster
        .run(&["subscription", "set", "t", "busy", "expire=1s"])
        .ok();
    until("nobody uses it", || !exists(&cluster, "busy"));
    for wrong in [
        &["sub", "t", "--expire", "1s"][..],
        &["subscription", "set", "t", "busy", "colour=blue"],
    ] {
        cluster.run(wrong).fails(2);
    }
    let short = [
        "subscription",
        "create",
        "t",
        "--as",
        "x",
        "--expire",
        "1ms",
    ];
    let text = cluster.run(&short).fails(1);
    assert!(text.contains("at least 1000 ms expected"), "{text}");
}

#[test]
fn a_pattern_keeps_to_a_pause_and_keeps_what_it_reads_alive() {
    let cluster = Cluster::start();
    cluster.run(&["topic", "create", "q.a", "q.b"]).ok();
    for topic in ["q.a", "q.b"] {
        let make = [
            "subscription",
            "create",
            topic,
            "--as",
            "map",
            "--expire",
            "1s",
        ];
        cluster.run(&make).ok();
    }
    let mut reader = Reader::start(&cluster, &["sub", "q.*", "--as", "map"]);
    reader.says("following 2 topics");
    cluster.run(&["pub", "q.a", "one"]).ok();
    reader.expect(&["one"]);
    cluster.run(&["subscription", "pause", "q.a", "map"]).ok();
    reader.says("the subscription on q.a is paused, 'tidings subscription resume q.a map'");
    cluster.run(&["pub", "q.a", "two"]).ok();
    cluster.run(&["pub", "q.b", "three"]).ok();
    reader.expect(&["three"]);
    // Far beyond its time nothing came, and nobody is gone.
    std::thread::sleep(3 * Duration::from_secs(1));
    reader.expect_nothing();
    for topic in ["q.a", "q.b"] {
        cluster.run(&["subscription", "info", topic, "map"]).ok();
    }
    cluster.run(&["subscription", "resume", "q.a", "map"]).ok();
    reader.says("the subscription on q.a goes on");
    reader.expect(&["two"]);
    reader.stop();
    until("both are gone", || {
        let left = ["q.a", "q.b"].map(|topic| {
            let ls = cluster.run(&["subscription", "ls", topic, "-o", "name"]);
            ls.ok().lines().count()
        });
        left == [0, 0]
    });
}
