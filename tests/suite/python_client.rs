//! The client in Python, written from `docs/protocol.md` alone, proves the page.

use std::path::Path;
use std::process::{Command, Output};

use crate::support::Up;

fn run(arguments: &[&str]) -> Output {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    Command::new("python3")
        .arg("tests/python/prove.py")
        .args(arguments)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .current_dir(root)
        .output()
        .expect("python3 is installed; tests/run does it on Debian")
}

fn succeeds(arguments: &[&str]) {
    let output = run(arguments);
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn it_encodes_and_decodes_the_golden_vectors() {
    succeeds(&["--self-test", "data/fixtures/protocol/vectors.txt"]);
}

#[test]
fn it_creates_publishes_and_pulls_at_a_real_peer() {
    let up = Up::start();
    succeeds(&[&up.index]);
    // Any peer is as good an entrance as the index.
    succeeds(&[&up.peer]);
    up.stop();
}
