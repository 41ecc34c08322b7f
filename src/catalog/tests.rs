//! Stores on real disks: kept, killed, damaged, replaced.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::*;

mod damage;
mod swap;

fn scratch() -> tempfile::TempDir {
    tempfile::tempdir().expect("a scratch directory")
}

fn locked(dir: &Path) -> DirLock {
    DirLock::acquire(dir).expect("nobody else is here")
}

fn at(group: u64) -> Applied {
    Applied {
        segment: 1 + group / 10,
        position: u32::try_from(group * 512).expect("small"),
        group,
    }
}

fn row(key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Row {
    (key.as_ref().to_vec(), value.as_ref().to_vec())
}

/// A deterministic source of numbers; tests print the seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.roll() % end
    }
}

/// What a store should hold, and the deltas that get it there.
#[derive(Default, Clone)]
struct Model {
    rows: BTreeMap<Vec<u8>, Vec<u8>>,
    group: u64,
}

impl Model {
    /// Some puts, some deletes, of rows with values up to the limit.
    fn next(&mut self, dice: &mut Dice) -> Delta {
        self.group += 1;
        let mut delta = Delta {
            applied: Some(at(self.group)),
            ..Delta::default()
        };
        for _ in 0..=dice.below(40) {
            let key = format!("row-{:04}", dice.below(400)).into_bytes();
            if dice.below(5) == 0 {
                delta.deletes.push(key);
            } else {
                let length = match dice.below(20) {
                    0 => 4096,
                    _ => dice.below(300),
                };
                let value: Vec<u8> = (0..length).map(|_| dice.roll() as u8).collect();
                delta.puts.push((key, value));
            }
        }
        for key in &delta.deletes {
            self.rows.remove(key);
        }
        self.rows.extend(delta.puts.iter().cloned());
        delta
    }

    fn rows(&self) -> Vec<Row> {
        self.rows.clone().into_iter().collect()
    }
}

fn copy_dir(from: &Path, to: &Path) {
    directory::copy_tree(from, to).expect("copied");
    let _ = fs::remove_file(to.join(LOCK_FILE));
}

/// Every file below `dir` with its contents.
fn photograph(dir: &Path) -> BTreeMap<std::path::PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(dir).expect("readable") {
        let path = entry.expect("readable").path();
        if path.is_dir() {
            files.extend(photograph(&path));
            files.insert(path, Vec::new());
        } else {
            let bytes = fs::read(&path).expect("readable");
            files.insert(path, bytes);
        }
    }
    files
}

#[test]
fn a_fresh_store_is_fresh_once() {
    let dir = scratch();
    let lock = locked(dir.path());
    let (catalog, loaded) = Catalog::open(&lock, OpenOptions::default()).expect("opens");
    assert_eq!(loaded.verdict, Verdict::Fresh);
    assert_eq!(loaded.rows, []);
    assert_eq!(loaded.applied, None);
    assert_eq!(loaded.format, Some(FORMAT));
    catalog.close().expect("closes");
    let (_, loaded) = Catalog::open(&lock, OpenOptions::default()).expect("opens");
    assert_eq!(loaded.verdict, Verdict::Sound);
    assert_eq!(loaded.rows, []);
}

#[test]
fn reopening_keeps_everything() {
    let dir = scratch();
    let lock = locked(dir.path());
    let mut dice = Dice(11);
    let mut model = Model::default();
    for _ in 0..6 {
        let (mut catalog, loaded) = Catalog::open(&lock, OpenOptions::default()).expect("opens");
        assert!(loaded.verdict.is_usable(), "{:?}", loaded.verdict);
        assert_eq!(loaded.rows, model.rows());
        assert_eq!(loaded.applied, (model.group > 0).then(|| at(model.group)));
        for _ in 0..10 {
            catalog.apply(model.next(&mut dice)).expect("applied");
        }
        catalog.close().expect("closes");
    }
}

/// What is on the disk at any moment is what was applied: the directory is
/// copied from under a store that is never closed.
#[test]
fn a_killed_store_has_what_was_applied() {
    let dir = scratch();
    let lock = locked(dir.path());
    let mut dice = Dice(12);
    let mut model = Model::default();
    let (mut catalog, _) = Catalog::open(&lock, OpenOptions::default()).expect("opens");
    for _ in 0..8 {
        for _ in 0..5 {
            catalog.apply(model.next(&mut dice)).expect("applied");
        }
        let copies = scratch();
        let copy = copies.path().join("copy");
        copy_dir(dir.path(), &copy);
        let (_, loaded) = Catalog::open(&locked(&copy), OpenOptions::default()).expect("opens");
        assert_eq!(loaded.verdict, Verdict::Sound);
        assert_eq!(loaded.rows, model.rows());
        assert_eq!(loaded.applied, Some(at(model.group)));
    }
}

#[test]
fn the_last_word_of_a_delta_counts() {
    let dir = scratch();
    let lock = locked(dir.path());
    let (mut catalog, _) = Catalog::open(&lock, OpenOptions::default()).expect("opens");
    let delta = Delta {
        puts: vec![row("a", "1"), row("b", "1"), row("a", "2")],
        deletes: vec![b"b".to_vec(), b"never there".to_vec(), b"b".to_vec()],
        applied: Some(at(1)),
    };
    catalog.apply(delta).expect("applied");
    // Nothing changes, so nothing may go wrong in the totals either.
    catalog
        .apply(Delta {
            puts: vec![row("a", "2")],
            ..Delta::default()
        })
        .expect("applied");
    catalog.close().expect("closes");
    let (_, loaded) = Catalog::open(&lock, OpenOptions::default()).expect("opens");
    assert_eq!(loaded.verdict, Verdict::Sound);
    assert_eq!(loaded.rows, [row("a", "2"), row("b", "1")]);
    assert_eq!(loaded.applied, Some(at(1)));
}

#[test]
fn what_is_too_large_is_refused_and_changes_nothing() {
    let dir = scratch();
    let lock = locked(dir.path());
    let (mut catalog, _) = Catalog::open(&lock, OpenOptions::default()).expect("opens");
    let value = vec![7; crate::limits::SLED_VALUE_BYTES_MAX];
    let key = vec![7; crate::limits::SLED_KEY_BYTES_MAX];
    let good = (key.clone(), value.clone());
    let put = |puts: Vec<Row>| Delta {
        puts,
        ..Delta::default()
    };
    catalog
        .apply(put(vec![good.clone()]))
        .expect("at the limit");
    let long_value = row("x", [value.as_slice(), b"!"].concat());
    let long_key = row([key.as_slice(), b"!"].concat(), "x");
    for (bad, what) in [(long_value, "value"), (long_key, "key")] {
        let error = catalog
            .apply(put(vec![row("new", "1"), bad]))
            .expect_err("over the limit");
        assert!(!error.stops());
        assert!(error.to_string().contains(what), "{error}");
    }
    catalog.close().expect("closes");
    let (_, loaded) = Catalog::open(&lock, OpenOptions::default()).expect("opens");
    assert_eq!(loaded.rows, [good]);
    assert_eq!(loaded.verdict, Verdict::Sound);
}

/// Full leaves of the largest values and full inner pages of the longest keys
/// stay below the size from which pages become files that are never synced.
#[test]
fn the_limits_keep_every_page_in_the_log() {
    let dir = scratch();
    let lock = locked(dir.path());
    let (mut catalog, _) = Catalog::open(&lock, OpenOptions::default()).expect("opens");
    let rows: Vec<Row> = (0..3000_u32)
        .map(|n| {
            // Long keys that differ early, so that no common prefix is cut off.
            let mut key = n.wrapping_mul(2_654_435_761).to_be_bytes().to_vec();
            key.resize(crate::limits::SLED_KEY_BYTES_MAX, n as u8);
            (key, vec![n as u8; crate::limits::SLED_VALUE_BYTES_MAX])
        })
        .collect();
    for part in rows.chunks(500) {
        catalog
            .apply(Delta {
                puts: part.to_vec(),
                ..Delta::default()
            })
            .expect("applied");
    }
    let blobs = dir.path().join("catalog/blobs");
    assert_eq!(fs::read_dir(&blobs).expect("readable").count(), 0);
    // Emptying it merges pages, which may hold more than a split leaves.
    let deletes = rows.iter().step_by(3).chain(rows.iter().skip(1).step_by(3));
    catalog
        .apply(Delta {
            deletes: deletes.map(|(key, _)| key.clone()).collect(),
            ..Delta::default()
        })
        .expect("applied");
    assert_eq!(fs::read_dir(&blobs).expect("readable").count(), 0);
}

#[test]
fn a_copy_is_read_without_a_trace() {
    let dir = scratch();
    assert_eq!(
        Catalog::read_copy(dir.path())
            .expect("nothing there")
            .verdict,
        Verdict::Fresh
    );
    let lock = locked(dir.path());
    let mut model = Model::default();
    let (mut catalog, _) = Catalog::open(&lock, OpenOptions::default()).expect("opens");
    let mut dice = Dice(13);
    for _ in 0..10 {
        catalog.apply(model.next(&mut dice)).expect("applied");
    }
    catalog.close().expect("closes");
    fs::write(dir.path().join("catalog/snap.00.generating"), "half").expect("writable");
    let before = photograph(dir.path());
    let loaded = Catalog::read_copy(dir.path()).expect("reads");
    assert_eq!(loaded.verdict, Verdict::Sound);
    assert_eq!(loaded.rows, model.rows());
    assert!(photograph(dir.path()) == before, "the original changed");
}

#[test]
fn an_index_store_is_no_catalog() {
    let dir = scratch();
    let lock = locked(dir.path());
    let (mut registry, _) = RegistryStore::open(&lock, OpenOptions::default()).expect("opens");
    registry
        .apply(vec![row("bucket", "topics")], vec![])
        .expect("applied");
    registry.close().expect("closes");
    let mut seen = Vec::new();
    let (registry, loaded) =
        RegistryStore::open_each(&lock, OpenOptions::default(), |row| seen.push(row))
            .expect("opens");
    assert_eq!(seen, [row("bucket", "topics")]);
    assert_eq!(loaded.rows, []);
    registry.close().expect("closes");
    let (_, loaded) = RegistryStore::open(&lock, OpenOptions::default()).expect("opens");
    assert_eq!(loaded.rows, [row("bucket", "topics")]);
    assert_eq!(loaded.applied, None);
    fs::rename(dir.path().join("registry"), dir.path().join("catalog")).expect("renamed");
    match Catalog::open(&lock, OpenOptions::default()) {
        Err(error @ CatalogError::WrongKind { .. }) => assert!(!error.stops()),
        other => panic!("{:?}", other.map(|(_, loaded)| loaded)),
    }
}

/// Splitting changes neither the result nor the order of deletes and puts.
#[test]
fn a_large_delta_goes_in_pieces() {
    let dir = scratch();
    let lock = locked(dir.path());
    let (mut catalog, _) = Catalog::open(&lock, OpenOptions::default()).expect("opens");
    let value = |n: u32| vec![n as u8; 4000];
    let delta = Delta {
        puts: (0..2500)
            .map(|n| row(format!("{:04}", n % 2000), value(n)))
            .collect(),
        deletes: (0..2000).map(|n| format!("{n:04}").into_bytes()).collect(),
        applied: Some(at(9)),
    };
    let error = catalog.apply(delta.clone()).expect_err("ten megabytes");
    assert!(!error.stops(), "{error}");
    let pieces = delta.into_pieces();
    assert!(pieces.len() > 2);
    let (last, others) = pieces.split_last().expect("some");
    assert!(others.iter().all(|piece| piece.applied.is_none()));
    assert_eq!(last.applied, Some(at(9)));
    catalog.apply_all(pieces).expect("small enough");
    catalog.close().expect("closes");
    let (_, loaded) = Catalog::open(&lock, OpenOptions::default()).expect("opens");
    assert_eq!(loaded.verdict, Verdict::Sound);
    assert_eq!(loaded.applied, Some(at(9)));
    assert_eq!(loaded.rows.len(), 2000);
    for (n, (_, found)) in (0..2000).zip(&loaded.rows) {
        let expected = value(if n < 500 { n + 2000 } else { n });
        assert!(*found == expected, "row {n}");
    }
}
