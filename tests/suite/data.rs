//! `tidings data` on the directories of servers that were stopped.

use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{Ran, Up, command, run_with};

/// Runs a verb in a directory.
fn data(dir: &Path, args: &[&str]) -> Ran {
    fed(dir, args, b"")
}

fn fed(dir: &Path, args: &[&str], input: &[u8]) -> Ran {
    let mut command = command(dir);
    command.arg("data").args(args);
    run_with(command, input)
}

/// The bytes a verb writes to stdout.
fn bytes_of(dir: &Path, args: &[&str]) -> Vec<u8> {
    let output = command(dir).arg("data").args(args).output();
    let output = output.expect("the program runs");
    assert!(output.status.success(), "{output:?}");
    output.stdout
}

/// A cluster with two topics and a subscription, stopped; what is left is its directory.
fn stopped() -> TempDir {
    let up = Up::start();
    up.run(&["topic", "create", "quakes.ci", "quakes.nc"]).ok();
    let lines: String = (0..40).map(|n| format!("event {n}\n")).collect();
    up.feed(
        &["pub", "quakes.ci", "-k", "ci", "-H", "net:ci"],
        lines.as_bytes(),
    )
    .ok();
    up.run(&["pub", "quakes.nc", "only one"]).ok();
    let pulled = [
        "pull",
        "quakes.ci",
        "--as",
        "billing",
        "--from",
        "beginning",
        "-n",
        "25",
    ];
    up.run(&pulled).ok();

    // A server that runs is not disturbed.
    for verb in ["ls", "verify", "stats", "repair"] {
        let text = data(up.dir.path(), &[verb, "data/peer"]).fails(1);
        assert!(text.contains("is in use by process "), "{verb}: {text}");
    }
    let error = data(up.dir.path(), &["ls", "data/index", "-o", "json"]).json_error();
    assert_eq!(error["name"], "DataDirectory");

    let kept = TempDir::new().expect("a scratch directory");
    let dir = up.dir.path().join("data");
    up.stop_with(|| std::fs::rename(&dir, kept.path().join("data")).expect("moved"));
    kept
}

#[test]
fn every_verb_on_the_directories_of_a_stopped_cluster() {
    let dir = stopped();
    let dir = dir.path();

    let text = data(dir, &["ls", "data"]).fails(1);
    assert!(text.contains("data/index and data/peer"), "{text}");
    let listed = data(dir, &["ls", "data/peer", "-o", "json"]).json();
    assert_eq!(
        (
            &listed["kind"],
            &listed["journal_format"],
            &listed["catalog_format"]
        ),
        (&json!("peer"), &json!(1), &json!(1))
    );
    assert_eq!(listed["clean_stop"], true);
    assert_eq!(listed["topics"][0]["name"], "quakes.ci");
    assert_eq!(listed["topics"][0]["records"], 40);
    assert_eq!(listed["subscriptions"][0]["committed_offset"], 25);
    assert_eq!(listed["subscriptions"][0]["lag_records"], 15);
    assert_eq!(listed["segments"][0]["kind"], "stream");
    let names = data(dir, &["ls", "data/peer", "-o", "name"]).ok();
    assert_eq!(names, "quakes.ci\nquakes.nc\n");
    let table = data(dir, &["ls", "data/peer"]).ok();
    for head in ["TOPIC ", "SUBSCRIPTION ", "SLOT "] {
        assert!(table.contains(head), "{table}");
    }
    let index = data(dir, &["ls", "data/index", "-o", "json"]).json();
    assert_eq!(index["kind"], "index");
    assert_eq!(index["topics"][1]["name"], "quakes.nc");
    assert_eq!(index["peers"][0]["topics"], 2);

    for store in ["data/peer", "data/index"] {
        assert_eq!(data(dir, &["verify", store]).ok(), "");
        let verified = data(dir, &["verify", store, "-o", "json"]).json();
        assert_eq!(verified["findings"], json!([]), "{store}");
        data(dir, &["stats", store]).ok();
        let planned = data(dir, &["migrate", store, "--dry-run", "-o", "json"]).json();
        assert_eq!(planned[0]["steps"], json!([]), "{store}");
        data(dir, &["migrate", store]).ok();
        let repaired = data(dir, &["repair", store, "--dry-run"]);
        assert!(
            repaired.stderr.contains("nothing to repair"),
            "{repaired:?}"
        );
        repaired.ok();
    }
    let stats = data(dir, &["stats", "data/peer", "-o", "json"]).json();
    assert!(stats["live_bytes"].as_u64() > Some(40 * 8), "{stats}");
    assert!(stats["amplification"].as_f64() > Some(1.0), "{stats}");

    dumps(dir);
    moves(dir);
    wrong_usage(dir);
}

fn dumps(dir: &Path) {
    let range = [
        "dump",
        "data/peer",
        "quakes.ci",
        "--from",
        "38",
        "-o",
        "json",
    ];
    let text = data(dir, &range).ok();
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).expect("an object a line"))
        .collect();
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[1]["offset"], 39);
    assert_eq!(lines[1]["payload"], "event 39");
    assert_eq!(
        (&lines[1]["key"], &lines[1]["headers"]["net"]),
        (&json!("ci"), &json!("ci"))
    );
    let text = data(dir, &["dump", "data/peer", "quakes.nc", "-f", "%o %p%n"]).ok();
    assert_eq!(text, "0 only one\n");
    assert_eq!(data(dir, &["dump", "data/peer"]).ok().lines().count(), 41);
    let text = data(dir, &["dump", "data/index", "-o", "json"]).ok();
    assert_eq!(text.lines().count(), 2);
    let text = data(dir, &["dump", "data/peer", "nothing"]).fails(1);
    assert!(text.contains("there is no topic nothing"), "{text}");
}

fn moves(dir: &Path) {
    let exported = bytes_of(dir, &["export", "data/peer", "quakes.ci", "quakes.nc"]);
    let text = fed(dir, &["import", "data/peer"], &exported).fails(1);
    assert!(text.contains("quakes.ci exists"), "{text}");
    let imported = fed(dir, &["import", "new", "-o", "json"], &exported).json();
    assert_eq!(imported[0]["name"], "quakes.ci");
    assert_eq!(data(dir, &["verify", "new"]).ok(), "");
    let listed = data(dir, &["ls", "new", "-o", "json"]).json();
    assert_eq!(listed["subscriptions"][0]["committed_offset"], 25);
    let dump = |store| data(dir, &["dump", store, "-o", "json"]).ok();
    assert_eq!(dump("new"), dump("data/peer"));

    let text = fed(dir, &["import", "newer"], &exported[..exported.len() - 7]).fails(1);
    assert!(text.contains("the file was cut"), "{text}");
    assert!(!dir.join("newer").exists());
    let text = data(dir, &["export", "data/index", "quakes.ci"]).fails(1);
    assert!(text.contains("an index server's directory"), "{text}");

    std::fs::remove_dir_all(dir.join("new/catalog")).expect("removed");
    let found = data(dir, &["verify", "new"]);
    assert_eq!(found.stdout, "catalog: it is missing\n");
    assert!(found.fails(1).contains("hint: 'tidings data repair"));
    let planned = data(dir, &["repair", "new", "--dry-run"]).ok();
    assert!(planned.starts_with("would do: catalog: "), "{planned}");
    let done = data(dir, &["repair", "new"]).ok();
    assert_eq!(done, planned.replace("would do", "done"));
    assert_eq!(data(dir, &["verify", "new"]).ok(), "");
    assert_eq!(dump("new"), dump("data/peer"));
}

fn wrong_usage(dir: &Path) {
    for wrong in [
        &["ls"][..],
        &["ls", "data/peer", "--index", "127.0.0.1:1"],
        &["export", "data/peer"],
        &["export", "data/peer", "quakes.ci", "-o", "json"],
        &["dump", "data/peer", "--from", "x"],
        &["dump", "data/index", "quakes.ci"],
    ] {
        data(dir, wrong).fails(2);
    }
    let text = data(dir, &["ls", "nowhere"]).fails(1);
    assert!(text.contains("nowhere holds no store"), "{text}");
}
