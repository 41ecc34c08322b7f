//! A disk that fills up under a running peer: what is refused, what goes on, and how it ends.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;
use tempfile::TempDir;

use crate::support::{Ran, command, ready, run_with, signal};

/// The peer's disk, in MiB, and the part of it that publishing leaves alone.
const DISK_MIB: u64 = 40;
const RESERVE: &str = "8MiB";
/// What one message carries: some thousand fill the disk.
const PAYLOAD_BYTES: usize = 16 << 10;

/// A small file system in memory, unmounted when dropped.
struct SmallDisk(TempDir);

impl SmallDisk {
    /// `None` where nobody may mount one.
    fn mount() -> Option<Self> {
        let dir = TempDir::new().expect("a scratch directory");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o"])
            .arg(format!("size={DISK_MIB}m"))
            .arg("tidings-suite")
            .arg(dir.path())
            .stderr(Stdio::null())
            .status();
        matches!(mounted, Ok(status) if status.success()).then(|| Self(dir))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

/// An index on an ordinary disk and a peer on a small one.
struct Cluster {
    dir: TempDir,
    index: String,
    servers: Vec<Child>,
}

impl Cluster {
    fn start(disk: &Path) -> Self {
        let dir = TempDir::new().expect("a scratch directory");
        let mut serve = command(dir.path());
        serve.args([
            "serve",
            "index",
            "--listen",
            "127.0.0.1:0",
            "--log",
            "error",
        ]);
        let (child, lines) = ready(serve, 1);
        let index = lines[0].split(' ').nth(2).expect("an address").to_owned();
        let mut this = Self {
            dir,
            index,
            servers: vec![child],
        };
        this.servers.push(this.peer(disk));
        this
    }

    fn peer(&self, disk: &Path) -> Child {
        let mut serve = command(self.dir.path());
        serve.args(["serve", "peer", "--listen", "127.0.0.1:0"]);
        serve.args(["--index", &self.index, "--log", "error"]);
        serve.args(["--slot-size", "1MiB", "--message-max", "128KiB"]);
        serve.args(["--reserve", RESERVE, "--data-dir"]);
        serve.arg(disk.join("peer"));
        ready(serve, 1).0
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = command(self.dir.path());
        command.args(args).env("TIDINGS_INDEX", &self.index);
        command
    }

    fn run(&self, args: &[&str]) -> Ran {
        run_with(self.command(args), b"")
    }

    /// Publishes until the disk is full, and insists that this is what it is told.
    fn fill(&self, topic: &str, payload: &str) {
        let publish = [
            "pub",
            topic,
            payload,
            "--count",
            "100000",
            "--timeout",
            "1s",
            "-o",
            "json",
            "-q",
        ];
        assert_eq!(self.run(&publish).json_error()["name"], "DiskReserve");
    }

    fn end_offset(&self, topic: &str) -> u64 {
        let info = self.run(&["topic", "info", topic, "-o", "json"]).json();
        info["end_offset"].as_u64().expect("a number")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for child in &mut self.servers {
            // It may have ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[test]
fn a_full_disk_refuses_to_publish_and_nothing_else() {
    let Some(disk) = SmallDisk::mount() else {
        eprintln!("!!! SKIPPED: only root can mount the small disk that is filled up here");
        return;
    };
    let mut cluster = Cluster::start(disk.0.path());
    cluster
        .run(&["topic", "create", "kept", "old", "older"])
        .ok();
    cluster.run(&["pub", "kept", "one", "two", "three"]).ok();
    let payload = "x".repeat(PAYLOAD_BYTES);
    cluster
        .run(&["pub", "older", &payload, "--count", "800", "-q"])
        .ok();
    cluster.fill("old", &payload);

    // Reading, committing, changing and describing go on.
    let read = ["sub", "kept", "--from", "beginning", "--until-end"];
    assert_eq!(cluster.run(&read).ok(), "one\ntwo\nthree\n");
    let through = [
        "pull",
        "kept",
        "--as",
        "s",
        "-n",
        "2",
        "--from",
        "beginning",
    ];
    assert_eq!(cluster.run(&through).ok(), "one\ntwo\n");
    cluster.run(&["topic", "set", "kept", "retain-age=7d"]).ok();
    // A new topic is there to be published to.
    let create = ["topic", "create", "new", "-o", "json"];
    assert_eq!(cluster.run(&create).json_error()["name"], "DiskReserve");
    assert_eq!(cluster.end_offset("kept"), 3);

    // Somebody waits with a message; space comes back, and it goes out by itself.
    let mut waiting = cluster.command(&["pub", "kept", "four", "--timeout", "60s", "-q"]);
    let mut waiting = waiting.spawn().expect("the program starts");
    std::thread::sleep(Duration::from_millis(300));
    assert!(
        waiting.try_wait().expect("a child").is_none(),
        "it is refused and waits"
    );
    let begun = Instant::now();
    cluster.run(&["topic", "rm", "old", "--force"]).ok();
    assert!(waiting.wait().expect("it ends").success());
    assert!(
        begun.elapsed() < Duration::from_secs(30),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(cluster.end_offset("kept"), 4);

    // Full again, killed, started again: still full, nothing is gone, and it frees itself once more.
    cluster.fill("older", &payload);
    let mut peer = cluster.servers.pop().expect("the peer");
    signal(&peer, Signal::KILL);
    peer.wait().expect("it ends");
    cluster.servers.push(cluster.peer(disk.0.path()));
    let through = [
        "pull",
        "kept",
        "--as",
        "s",
        "-n",
        "2",
        "--from",
        "beginning",
    ];
    assert_eq!(cluster.run(&through).ok(), "three\nfour\n");
    assert!(cluster.end_offset("older") > 800);
    cluster.run(&["topic", "rm", "older", "--force"]).ok();
    cluster.run(&["pub", "kept", "five"]).ok();
    let page = cluster.run(&["topic", "ls", "-o", "json"]).json();
    let names: Vec<_> = page
        .as_array()
        .expect("a list")
        .iter()
        .map(|topic| topic["name"].clone())
        .collect();
    assert_eq!(names, [json!("kept")]);
}
