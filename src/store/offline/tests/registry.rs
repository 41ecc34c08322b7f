//! An index server's directory.

use super::*;
use crate::catalog::{DirLock, OpenOptions, RegistryStore};
use crate::protocol::api::{Nonce, PeerLoad, RegisterPeer, RegisterTopics, StoredTopic};
use crate::registry::rows::Layout;
use crate::registry::{Command, Effects, Kind, Millis, Now, Settings, State};
use crate::time::Timestamp;
use crate::types::{LeaderEpoch, PeerId};

/// A stopped index server's directory with two peers, one of which has topics.
fn index_dir() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let lock = DirLock::acquire(dir.path()).expect("locked");
    let (mut store, _) = RegistryStore::open(&lock, OpenOptions::default()).expect("open");
    let now = Now {
        ticks: Millis::new(1),
        wall: Timestamp::from_millis(1_700_000_000_000),
    };
    let settings = Settings {
        lease: crate::limits::LEASE_DEFAULT,
        claim_kept: crate::limits::CLAIM_KEPT_FOR,
        stall: crate::limits::LEASE_DEFAULT,
        step_entries: crate::limits::INDEX_STEP_ENTRIES,
    };
    let (mut state, mut layout) = (State::new(settings, now), Layout::new());
    let peer = |n: u8| {
        Command::RegisterPeer(RegisterPeer {
            peer: PeerId::from_bytes([n; 16]),
            name: format!("peer-{n}").parse().expect("good"),
            address: format!("127.0.0.1:740{n}").parse().expect("good"),
            nonce: Nonce([n; 16]),
            load: PeerLoad::default(),
        })
    };
    let topics = ["orders", "quakes.ci"].map(|topic| StoredTopic {
        name: name(topic),
        id: TopicId::from_bytes([topic.len() as u8; 16]),
        epoch: LeaderEpoch::new(3),
    });
    let list = Command::RegisterTopics(RegisterTopics {
        peer: PeerId::from_bytes([1; 16]),
        nonce: Nonce([1; 16]),
        part: 0,
        last: true,
        topics: topics.to_vec(),
    });
    for command in [peer(1), peer(2), list] {
        let mut effects = Effects::default();
        state.apply(command, now, &mut effects).expect("applied");
        state.step(now, &mut effects);
        for changes in layout.changed(&state, &effects) {
            store.apply(changes.puts, changes.deletes).expect("stored");
        }
    }
    store.close().expect("closed");
    dir
}

#[test]
fn a_registry_is_listed_and_verified() {
    let dir = index_dir();
    let before = files(dir.path());
    assert_eq!(kind_of(dir.path()).expect("a store"), DirKind::Index);
    let listing = list_registry(dir.path()).expect("a list");
    assert_eq!((listing.format, listing.faults.len()), (Some(1), 0));
    let peers: Vec<&str> = listing.peers.iter().map(|p| p.name.as_str()).collect();
    assert_eq!(peers, ["peer-1", "peer-2"]);
    let entries: Vec<(&str, &str, Kind)> = listing
        .entries
        .iter()
        .map(|e| (e.name.as_str(), e.peer.as_str(), e.kind))
        .collect();
    let expected = [
        ("orders", "peer-1", Kind::Held),
        ("quakes.ci", "peer-1", Kind::Held),
    ];
    assert_eq!(entries, expected);
    let verified = verify(dir.path()).expect("verified");
    assert!(verified.is_sound() && verified.checked.rows >= 3);
    assert!(repair(dir.path(), true).expect("planned").is_nothing());
    assert!(
        files(dir.path()) == before,
        "a reading tool changed the directory"
    );
}

#[test]
fn a_ruined_registry_is_set_aside_for_an_empty_one() {
    let dir = index_dir();
    let db = dir.path().join("registry/db");
    let ruined = vec![0xa5; 100_000];
    std::fs::write(&db, &ruined).expect("ruined");
    let verified = verify(dir.path()).expect("verified");
    assert!(verified.findings.iter().all(|f| f.file == "registry") && !verified.is_sound());
    let planned = repair(dir.path(), true).expect("planned");
    assert!(planned.steps[0].contains("set aside"), "{planned:?}");
    assert_eq!(
        std::fs::read(&db).expect("there"),
        ruined,
        "a dry run changes nothing"
    );
    assert_eq!(repair(dir.path(), false).expect("repaired"), planned);
    assert!(verify(dir.path()).expect("verified").is_sound());
    let aside = dir.path().join("registry.ruined-1/db");
    assert_eq!(
        std::fs::read(aside).expect("kept"),
        ruined,
        "nothing is deleted"
    );
    assert_eq!(list_registry(dir.path()).expect("a list").peers, []);
}
