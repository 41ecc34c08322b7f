//! The end of a topic is lost to damage: who is told, what goes on, and how it ends.

use std::path::Path;
use std::process::{Child, Command};

use serde_json::json;
use tempfile::TempDir;

use crate::support::{Ran, command, ready, run_with};

/// An index and a peer that are killed, not stopped.
struct Killable {
    index: String,
    child: Child,
}

impl Killable {
    fn start(dir: &Path) -> Self {
        let mut up = command(dir);
        up.args(["up", "--name", "alder", "--log", "off"]);
        up.args(["--listen", "127.0.0.1:0", "--index-listen", "127.0.0.1:0"]);
        let (child, lines) = ready(up, 2);
        let index = lines
            .iter()
            .find_map(|line| line.strip_prefix("ready index "));
        let index = index.expect("its address").to_owned();
        Self { index, child }
    }

    fn command(&self, dir: &Path, args: &[&str]) -> Command {
        let mut command = command(dir);
        command.args(args).env("TIDINGS_INDEX", &self.index);
        command
    }
}

impl Drop for Killable {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Destroys the group that holds that payload.
fn destroy_group_of(dir: &Path, payload: &[u8]) {
    let path = dir.join("data/peer/journal/slot-00000001");
    let mut bytes = std::fs::read(&path).expect("readable");
    let mut windows = bytes.windows(payload.len());
    let at = windows.position(|window| window == payload);
    // A group begins at a sector, and this one is smaller than one.
    let group = at.expect("it was published") / 512 * 512;
    bytes[group..group + 64].fill(0);
    std::fs::write(&path, bytes).expect("writable");
}

/// Three messages in `quakes.ci`, the last of them lost, and two in `quakes.nc`.
fn damaged() -> TempDir {
    let dir = TempDir::new().expect("a scratch directory");
    let cluster = Killable::start(dir.path());
    let run = |args: &[&str]| run_with(cluster.command(dir.path(), args), b"").ok();
    run(&["topic", "create", "quakes.ci", "quakes.nc"]);
    for message in ["number 1", "number 2", "number 3"] {
        run(&["pub", "quakes.ci", message]);
    }
    // Claims what was published before it.
    run(&["pub", "quakes.nc", "other 1", "other 2"]);
    drop(cluster);
    destroy_group_of(dir.path(), b"number 3");
    // The journal has to tell all by itself.
    std::fs::remove_dir_all(dir.path().join("data/peer/catalog")).expect("removed");
    dir
}

#[test]
fn a_lost_end_is_told_by_every_verb_until_it_is_accepted() {
    let dir = damaged();
    let dir = dir.path();
    let offline = |args: &[&str]| {
        let mut command = command(dir);
        command.args(args);
        run_with(command, b"")
    };
    let found = offline(&["data", "verify", "data/peer"]);
    assert!(
        found
            .stdout
            .contains("topic quakes.ci is quarantined: intact up to 2, durable up to 3"),
        "{found:?}"
    );
    found.fails(1);
    let listed = offline(&["data", "ls", "data/peer"]).ok();
    let of_ci = listed.lines().find(|line| line.starts_with("quakes.ci "));
    assert!(
        of_ci.is_some_and(|line| line.ends_with("quarantined")),
        "{listed}"
    );

    let cluster = Killable::start(dir);
    let run = |args: &[&str]| -> Ran { run_with(cluster.command(dir, args), b"") };
    let table = run(&["topic", "ls"]).ok();
    assert_eq!(table.matches(" quarantined ").count(), 1, "{table}");
    let info = run(&["topic", "info", "quakes.ci", "-o", "json"]).json();
    assert_eq!(info["quarantined"], true);
    let error = run(&["pub", "quakes.ci", "x", "-o", "json"]).json_error();
    assert_eq!(error["name"], "TopicQuarantined");
    let text = run(&["pub", "quakes.ci", "x"]).fails(1);
    assert!(text.contains("topic accept-loss quakes.ci"), "{text}");
    let read = ["sub", "quakes.ci", "--from", "beginning", "--until-end"];
    let stopped = run(&read);
    assert!(
        stopped.stderr.contains("quakes.ci is quarantined"),
        "{stopped:?}"
    );
    assert_eq!(stopped.ok(), "number 1\nnumber 2\n");
    run(&["pub", "quakes.nc", "the others go on"]).ok();

    let accepted = run(&["topic", "accept-loss", "quakes.ci", "--force", "-o", "json"]).json();
    assert_eq!((&accepted["from"], &accepted["to"]), (&json!(2), &json!(3)));
    run(&["topic", "accept-loss", "quakes.ci"]).fails(1);
    let published = run(&["pub", "quakes.ci", "number 4", "-o", "json"]).json();
    assert_eq!(published["first_offset"], 3);
    let all = run(&read);
    assert!(
        all.stderr.contains("gap: offsets 2..3 are damaged"),
        "{all:?}"
    );
    assert_eq!(all.ok(), "number 1\nnumber 2\nnumber 4\n");
    let table = run(&["topic", "ls"]).ok();
    assert!(!table.contains("quarantined"), "{table}");
}

#[test]
fn accepting_a_loss_is_told_to_people_in_a_line() {
    let dir = damaged();
    let cluster = Killable::start(dir.path());
    let run = |args: &[&str]| run_with(cluster.command(dir.path(), args), b"");
    assert_eq!(
        run(&["topic", "accept-loss", "quakes.ci"]).ok(),
        "quakes.ci goes on at offset 3, without 1 message, offsets 2..3\n"
    );
}
