//! A store that a newer program has written to: everybody refuses it by name of
//! both formats, and leaves it as it is. (A start took the newer slot for a
//! damaged one, and asked for a copy to restore.)

use std::path::Path;

use crc_fast::{CrcAlgorithm, checksum};
use tempfile::TempDir;

use crate::support::{Up, command, run_with};

/// Where a slot's header keeps its format and its checksum, and where its copies are.
const FORMAT_AT: usize = 8;
const CRC_AT: usize = 508;
const COPIES_AT: [usize; 2] = [0, 4096];

/// Gives a slot the next format, as a newer program would.
fn make_newer(slot: &Path) {
    let mut bytes = std::fs::read(slot).expect("readable");
    for at in COPIES_AT {
        let copy = &mut bytes[at..at + 512];
        copy[FORMAT_AT] += 1;
        let crc = checksum(CrcAlgorithm::Crc32Iscsi, &copy[..CRC_AT]);
        let crc = u32::try_from(crc).expect("32 bits");
        copy[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
    }
    std::fs::write(slot, bytes).expect("writable");
}

fn names(dir: &Path) -> Vec<String> {
    let entries = dir.read_dir().expect("readable");
    let names = entries.map(|entry| entry.expect("readable").file_name());
    let mut names: Vec<_> = names
        .map(|name| name.to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

#[test]
fn a_newer_journal_is_refused_and_left_alone() {
    let up = Up::start();
    up.run(&["pub", "t", "--create", "x"]).ok();
    let kept = TempDir::new().expect("a scratch directory");
    let data = up.dir.path().join("data");
    up.stop_with(|| std::fs::rename(&data, kept.path().join("data")).expect("moved"));
    let peer = kept.path().join("data/peer");
    make_newer(&peer.join("journal/slot-00000001"));
    let before = names(&peer);
    for args in [
        &["serve", "peer", "--listen", "127.0.0.1:0"][..],
        &["data", "ls", "data/peer"],
        &["data", "verify", "data/peer"],
        &["data", "repair", "data/peer"],
        &["data", "migrate", "data/peer"],
        &["data", "dump", "data/peer"],
    ] {
        let mut command = command(kept.path());
        command.args(args);
        let text = run_with(command, b"").fails(1);
        assert!(
            text.contains("slot-00000001 has format 2, this program knows 1: use a newer program"),
            "{args:?}: {text}"
        );
    }
    assert_eq!(names(&peer), before);
}
