//! The inputs in `fuzz/corpus/`, each asked what its target asks: without a fuzzer, so that neither rots.
//!
//! Here is also how their seeds and the stores of `fuzz/scenes/` are made; `fuzz/README.md` says when.

mod seeds;
#[path = "../../fuzz/src/targets/mod.rs"]
#[expect(dead_code, reason = "some of it only the fuzzer needs")]
mod targets;

use std::path::{Path, PathBuf};

use targets::{TARGETS, Target};

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

fn ask(target: &Target) {
    let corpus = fuzz().join("corpus").join(target.name);
    let entries = std::fs::read_dir(corpus).expect("every target has a corpus");
    let mut inputs: Vec<_> = entries
        .map(|entry| entry.expect("an entry").path())
        .collect();
    inputs.sort();
    assert!(!inputs.is_empty(), "the corpus of {} is empty", target.name);
    for path in inputs {
        // The test harness shows it if the next line panics.
        eprintln!("{}", path.display());
        (target.run)(&std::fs::read(&path).expect("an input"));
    }
}

/// Two tests, so that two processors have something to do.
fn ask_all(of_stores: bool) {
    let slow =
        |target: &&Target| ["journal", "catalog", "registry", "tools"].contains(&target.name);
    for target in TARGETS.iter().filter(|target| slow(target) == of_stores) {
        ask(target);
    }
}

#[test]
fn bytes_that_were_tried_before_are_tried_again() {
    ask_all(false);
}

#[test]
fn stores_that_were_broken_before_are_broken_again() {
    ask_all(true);
}

#[test]
fn every_target_has_its_program() {
    let manifest = std::fs::read_to_string(fuzz().join("Cargo.toml")).expect("a manifest");
    let programs = manifest.matches("[[bin]]").count();
    assert_eq!(programs, TARGETS.len());
    for Target { name, .. } in TARGETS {
        let program = fuzz().join(format!("fuzz_targets/{name}.rs"));
        let text = std::fs::read_to_string(program).expect("its program");
        assert!(
            text.contains(&format!("run(\"{name}\"")) && manifest.contains(&format!("\"{name}\""))
        );
        assert!(targets::named(name).is_some());
    }
}
