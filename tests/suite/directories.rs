//! Data directories that cannot be used: each server says why, and leaves them as they were.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tidings::journal::crc32c;

use crate::cluster::Cluster;
use crate::support::{Ran, command, run_with};

const PEER: [&str; 4] = ["serve", "peer", "--listen", "127.0.0.1:0"];
const INDEX: [&str; 4] = ["serve", "index", "--listen", "127.0.0.1:0"];

/// Starts a server that must refuse to; it has no index to tell.
fn start(dir: &Path, server: [&str; 4], data_dir: &str) -> Ran {
    let mut command = command(dir);
    command
        .args(server)
        .args(["--data-dir", data_dir, "--log", "error"]);
    command.env("TIDINGS_INDEX", "127.0.0.1:1");
    run_with(command, b"")
}

/// Insists that it fails with exactly one line, which says all of that.
#[track_caller]
fn says(ran: Ran, words: &[&str]) {
    assert_eq!(ran.stdout, "", "{ran:?}");
    let text = ran.fails(1);
    let lines = text.lines().filter(|line| !line.starts_with("hint: "));
    assert_eq!(lines.count(), 1, "{text}");
    for word in words {
        assert!(
            text.starts_with("error: ") && text.contains(word),
            "{word}: {text}"
        );
    }
}

/// A peer's and an index server's directory, stopped: `peer` and `index`.
fn stopped() -> Cluster {
    let mut cluster = Cluster::start();
    cluster.run(&["topic", "create", "t"]).ok();
    cluster.run(&["pub", "t", "kept"]).ok();
    cluster.peer.stop();
    cluster.index.stop();
    cluster
}

/// The names of everything in a directory, and how long each file is.
fn contents(dir: &Path) -> Vec<(String, u64)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        let name = path.display().to_string();
        if path.is_dir() {
            found.extend(contents(&path));
        } else {
            found.push((name, path.metadata().expect("a file").len()));
        }
    }
    found.sort();
    found
}

#[test]
fn a_second_process_is_told_who_is_the_first() {
    let cluster = Cluster::start();
    let dir = cluster.dir.path();
    let (peer, index) = (
        cluster.peer.pid().to_string(),
        cluster.index.pid().to_string(),
    );
    says(start(dir, PEER, "peer"), &["in use by process ", &peer]);
    says(start(dir, INDEX, "index"), &["in use by process ", &index]);
    says(start(dir, INDEX, "peer"), &["in use by process ", &peer]);
    let mut port = command(dir);
    port.args(["serve", "peer", "--listen", &cluster.peer.address]);
    port.args(["--data-dir", "another", "--log", "error"]);
    says(run_with(port, b""), &["cannot listen on ", "hint: "]);
    assert!(
        !dir.join("another").exists(),
        "nothing is made for a peer that cannot listen"
    );
    cluster.run(&["topic", "ls"]).ok();
}

#[test]
fn a_directory_has_one_role() {
    let cluster = stopped();
    let dir = cluster.dir.path();
    let before = contents(dir);
    says(
        start(dir, INDEX, "peer"),
        &["peer holds a peer's catalog", "choose another"],
    );
    says(
        start(dir, PEER, "index"),
        &["index holds an index server's registry"],
    );
    assert_eq!(contents(dir), before);
    // Nor where the catalog was lost, and the journal would be overlooked.
    std::fs::rename(dir.join("peer/catalog"), dir.join("aside")).expect("moved");
    says(start(dir, INDEX, "peer"), &["peer holds a peer's catalog"]);
    assert!(!dir.join("peer/registry").exists());
}

#[test]
fn a_file_is_no_directory() {
    let dir = TempDir::new().expect("a scratch directory");
    std::fs::write(dir.path().join("file"), "text").expect("writable");
    for server in [PEER, INDEX] {
        for place in ["file", "file/below"] {
            let words = [place, "is not a directory"];
            says(start(dir.path(), server, place), &words);
        }
    }
    let mut up = command(dir.path());
    up.args([
        "up",
        "--listen",
        "127.0.0.1:0",
        "--index-listen",
        "127.0.0.1:0",
    ]);
    up.args(["--data-dir", "file", "--log", "error"]);
    says(run_with(up, b""), &["is not a directory"]);
    let kept = std::fs::read(dir.path().join("file")).expect("still there");
    assert_eq!(kept, b"text");
}

/// Something mounted, until it is dropped.
struct Mounted(TempDir);

impl Mounted {
    /// `None` where nobody may mount.
    fn tmpfs(options: &str) -> Option<Self> {
        let dir = TempDir::new().expect("a scratch directory");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", options, "tidings-suite"]);
        let mounted = mount.arg(dir.path()).output();
        matches!(mounted, Ok(output) if output.status.success()).then(|| Self(dir))
    }

    fn read_only(&self) {
        let mut mount = Command::new("mount");
        let status = mount.args(["-o", "remount,ro"]).arg(self.0.path()).status();
        assert!(status.expect("it ran a moment ago").success());
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // What cannot be unmounted now is so when its last file is closed.
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[test]
fn a_read_only_disk_is_named() {
    let Some(disk) = Mounted::tmpfs("size=64m") else {
        eprintln!("!!! SKIPPED: only root can mount the disk that is read-only here");
        return;
    };
    let cluster = stopped();
    for name in ["peer", "index"] {
        let from = cluster.dir.path().join(name);
        let copied = Command::new("cp")
            .arg("-r")
            .arg(from)
            .arg(disk.0.path())
            .status();
        assert!(copied.expect("cp is there").success());
    }
    disk.read_only();
    let dir = disk.0.path();
    for (server, place) in [
        (PEER, "peer"),
        (INDEX, "index"),
        (PEER, "new"),
        (INDEX, "new/er"),
    ] {
        says(start(dir, server, place), &[place, "Read-only file system"]);
    }
    // Looking is possible all the same.
    let mut verify = command(cluster.dir.path());
    verify.args(["data", "verify"]).arg(dir.join("peer"));
    run_with(verify, b"").ok();
    let mut dump = command(cluster.dir.path());
    dump.args(["data", "dump", "-f", "%p%n"])
        .arg(dir.join("peer"));
    assert_eq!(run_with(dump, b"").ok(), "kept\n");
}

#[test]
fn a_full_disk_is_named() {
    let Some(disk) = Mounted::tmpfs("size=3m") else {
        eprintln!("!!! SKIPPED: only root can mount the disk that is full here");
        return;
    };
    let words = ["of free space and has", "make room"];
    says(start(disk.0.path(), PEER, "peer"), &words);
    says(start(disk.0.path(), INDEX, "index"), &words);
    let Some(disk) = Mounted::tmpfs("size=24m") else {
        panic!("it could be mounted a moment ago");
    };
    // Room for a catalog, but not for the first file of a journal.
    let words = ["journal/slot-00000001", "No space left on device", "hint: "];
    says(start(disk.0.path(), PEER, "peer"), &words);
}

/// The index refuses new names before its disk is so full that it would have to end.
#[test]
fn an_index_on_a_full_disk_goes_on_with_the_names_it_has() {
    let Some(disk) = Mounted::tmpfs("size=8m") else {
        eprintln!("!!! SKIPPED: only root can mount the disk that is full here");
        return;
    };
    let dir = TempDir::new().expect("a scratch directory");
    std::os::unix::fs::symlink(disk.0.path(), dir.path().join("index")).expect("made");
    let cluster = Cluster::start_on(dir);
    cluster.run(&["topic", "create", "t"]).ok();
    let fill = disk.0.path().join("fill");
    std::fs::write(&fill, vec![1; 5 << 20]).expect("there is room");
    let error = cluster
        .run(&["topic", "create", "new", "-o", "json"])
        .json_error();
    assert_eq!(error["name"], "DiskReserve");
    cluster.run(&["pub", "t", "one"]).ok();
    cluster.run(&["topic", "rename", "t", "other"]).fails(1);
    assert_eq!(cluster.run(&["topic", "ls", "-o", "name"]).ok(), "t\n");
    std::fs::remove_file(&fill).expect("removed");
    cluster.run(&["topic", "create", "new"]).ok();
    cluster.run(&["topic", "rm", "t", "--force"]).ok();
    assert_eq!(cluster.run(&["topic", "ls", "-o", "name"]).ok(), "new\n");
}

/// Nothing that a later version wrote is taken for damage, cut, or built over.
#[test]
fn a_journal_of_a_later_format_is_refused_and_left_as_it_is() {
    let cluster = stopped();
    let dir = cluster.dir.path();
    let slot = dir.join("peer/journal/slot-00000001");
    let mut bytes = std::fs::read(&slot).expect("a slot");
    for copy in [0, 4096] {
        let header = &mut bytes[copy..copy + 512];
        header[8..12].copy_from_slice(&2_u32.to_le_bytes());
        let crc = crc32c(&header[..508]);
        header[508..].copy_from_slice(&crc.to_le_bytes());
        // One copy is enough: whoever wrote it may have been killed before the other.
        std::fs::write(&slot, &bytes).expect("writable");
        let before = contents(dir);
        let words = ["slot-00000001 has format 2", "knows 1", "newer program"];
        says(start(dir, PEER, "peer"), &words);
        for verb in ["ls", "verify", "repair", "stats", "dump"] {
            let mut tool = command(dir);
            tool.args(["data", verb, "peer"]);
            says(run_with(tool, b""), &words);
        }
        assert_eq!(contents(dir), before);
        assert_eq!(std::fs::read(&slot).expect("a slot"), bytes);
    }
}

#[test]
fn an_index_that_is_not_there_stops_nobody_but_is_named() {
    let cluster = stopped();
    let dir = cluster.dir.path();
    let mut peer = command(dir);
    peer.args(PEER)
        .args(["--data-dir", "peer", "--index", "127.0.0.1:1"]);
    let log = dir.join("alone.log");
    peer.stderr(std::fs::File::create(&log).expect("writable"));
    let peer = crate::cluster::Server::start(peer);
    let through = |args: &[&str]| {
        let mut through = command(dir);
        through.args(args).env("TIDINGS_PEER", &peer.address);
        run_with(through, b"")
    };
    through(&["pub", "t", "more"]).ok();
    let all = ["sub", "t", "--from", "beginning", "--until-end"];
    assert_eq!(through(&all).ok(), "kept\nmore\n");
    let error = through(&["topic", "create", "new", "-o", "json"]).json_error();
    assert_eq!(error["name"], "IndexUnavailable");
    let text = through(&["topic", "create", "new"]).fails(1);
    assert!(
        text.contains("127.0.0.1:1") && text.contains("hint: "),
        "{text}"
    );
    let began = Instant::now();
    let noted = || std::fs::read_to_string(&log).expect("a log");
    while !noted().contains("the index does not answer") {
        assert!(began.elapsed() < Duration::from_secs(10), "{}", noted());
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(noted().matches("the index does not answer").count(), 1);
}
