//! The demo is what a newcomer runs first: it has to end well, and to say so.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use tempfile::tempdir;

use crate::support::command;

#[test]
fn the_demo_loses_nothing_and_proves_it() {
    let dir = tempdir().expect("a scratch directory");
    let ran = command(dir.path()).arg("demo").output().expect("it runs");
    let story = String::from_utf8_lossy(&ran.stdout);
    assert!(
        ran.status.success(),
        "{story}\n{}",
        String::from_utf8_lossy(&ran.stderr)
    );
    assert_eq!(
        story.matches("exactly once, in order").count(),
        12,
        "one line for each network:\n{story}"
    );
    assert_eq!(
        story.matches("SIGKILL").count(),
        2,
        "a peer and the index are killed:\n{story}"
    );
    assert!(
        story.contains("Nothing was lost, nothing was doubled"),
        "{story}"
    );
    let left: Vec<_> = dir.path().read_dir().expect("a directory").collect();
    assert!(left.is_empty(), "it left something where it ran: {left:?}");
}

#[test]
fn a_reader_that_has_enough_ends_the_demo_in_silence() {
    let dir = tempdir().expect("a scratch directory");
    let scratch = tempdir().expect("a scratch directory");
    // What is set up around it is no part of the story.
    std::fs::write(dir.path().join("tidings.toml"), "no such = 'key'").expect("writable");
    let mut child = command(dir.path())
        .arg("demo")
        .env("TIDINGS_CONFIG", "absent.toml")
        .env("TIDINGS_INDEX", "nowhere")
        .env("TMPDIR", scratch.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it runs");
    let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
    let found = lines.any(|line| line.expect("text").starts_with("1. three processes"));
    assert!(found, "the servers start: {:?}", child.wait_with_output());
    drop(lines);
    let ran = child.wait_with_output().expect("it ends");
    let told = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success() && told.is_empty(), "{ran:?}");
    let left: Vec<_> = scratch.path().read_dir().expect("readable").collect();
    assert!(left.is_empty(), "{left:?}");
}
