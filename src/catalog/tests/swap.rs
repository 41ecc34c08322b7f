//! Replacing a store, interrupted at every step, and the migrations' plan.

use super::*;

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(dir)
        .expect("readable")
        .map(|entry| {
            entry
                .expect("readable")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .filter(|name| name != LOCK_FILE)
        .collect();
    names.sort();
    names
}

fn verdict(lock: &DirLock) -> Verdict {
    Catalog::open(lock, OpenOptions::default())
        .expect("opens")
        .1
        .verdict
}

fn replaced(lock: &DirLock, rows: &[Row]) {
    let catalog = Catalog::replace(lock, OpenOptions::default(), rows.to_vec(), Some(at(5)));
    catalog.expect("replaced").close().expect("closes");
    let (_, loaded) = Catalog::open(lock, OpenOptions::default()).expect("opens");
    assert_eq!(loaded.verdict, Verdict::Sound);
    assert_eq!(loaded.rows, rows);
    assert_eq!(loaded.applied, Some(at(5)));
}

#[test]
fn replacing_keeps_the_old_one_aside() {
    let dir = scratch();
    let lock = locked(dir.path());
    assert_eq!(verdict(&lock), Verdict::Fresh);
    let before = photograph(&dir.path().join("catalog")).len();
    // Over several pieces, so that not one batch builds it.
    let rows: Vec<Row> = (0..2000)
        .map(|n| row(format!("{n:05}"), vec![n as u8; 1500]))
        .collect();
    replaced(&lock, &rows);
    assert_eq!(names(dir.path()), ["catalog", "catalog.ruined-1"]);
    assert_eq!(
        photograph(&dir.path().join("catalog.ruined-1")).len(),
        before
    );
    replaced(&lock, &rows[..1]);
    replaced(&lock, &[]);
    assert_eq!(
        names(dir.path()),
        ["catalog", "catalog.ruined-2", "catalog.ruined-3"],
        "only the newest are kept"
    );
    // The numbers go on, so that a name is never that of another ruin.
    replaced(&lock, &rows[..1]);
    assert_eq!(
        names(dir.path()),
        ["catalog", "catalog.ruined-3", "catalog.ruined-4"]
    );
}

/// After step 1: the old one set aside, nothing in its place. It is not fresh,
/// however often it is asked, and it stays to be replaced.
#[test]
fn a_crash_after_setting_aside_is_not_fresh() {
    let dir = scratch();
    let lock = locked(dir.path());
    assert_eq!(verdict(&lock), Verdict::Fresh);
    fs::rename(
        dir.path().join("catalog"),
        dir.path().join("catalog.ruined-7"),
    )
    .expect("renamed");
    for _ in 0..2 {
        let (mut catalog, loaded) = Catalog::open(&lock, OpenOptions::default()).expect("opens");
        let Verdict::Unsound { reasons } = loaded.verdict else {
            panic!("{:?}", loaded.verdict);
        };
        assert!(reasons[0].contains("catalog.ruined-7"), "{reasons:?}");
        let error = catalog.apply(Delta::default()).expect_err("there is none");
        assert!(matches!(error, CatalogError::Ruined { .. }), "{error}");
    }
    let copy = Catalog::read_copy(dir.path()).expect("reads");
    assert!(!copy.verdict.is_usable());
    replaced(&lock, &[row("a", "1")]);
    assert_eq!(names(dir.path()), ["catalog", "catalog.ruined-7"]);
}

/// In steps 2 and 3: some of a new store. It is never taken for one.
#[test]
fn a_crash_while_building_leaves_nothing_that_counts() {
    let dir = scratch();
    let lock = locked(dir.path());
    let building = dir.path().join("catalog.building");
    let rows = [row("a", "1")];
    let half_built = |with_db: bool| {
        fs::create_dir_all(building.join("blobs")).expect("created");
        fs::write(building.join("conf"), "half").expect("written");
        if with_db {
            fs::write(building.join("db"), vec![3; 5000]).expect("written");
        }
    };
    // Before there ever was a store: still fresh.
    half_built(false);
    assert_eq!(verdict(&lock), Verdict::Fresh);
    assert_eq!(names(dir.path()), ["catalog"]);
    // Between an old one set aside and the new one named.
    fs::rename(
        dir.path().join("catalog"),
        dir.path().join("catalog.ruined-1"),
    )
    .expect("renamed");
    half_built(true);
    assert!(!verdict(&lock).is_usable());
    replaced(&lock, &rows);
    assert_eq!(names(dir.path()), ["catalog", "catalog.ruined-1"]);
    // Beside a healthy one: it does not matter.
    half_built(true);
    let (_, loaded) = Catalog::open(&lock, OpenOptions::default()).expect("opens");
    assert_eq!(loaded.verdict, Verdict::Sound);
    assert_eq!(loaded.rows, rows);
}

/// In step 4, where the rename did not last: complete, under the wrong name.
/// It is built again rather than trusted.
#[test]
fn a_crash_before_the_rename_lasts_builds_again() {
    let dir = scratch();
    let lock = locked(dir.path());
    replaced(&lock, &[row("a", "1")]);
    fs::rename(
        dir.path().join("catalog"),
        dir.path().join("catalog.building"),
    )
    .expect("renamed");
    assert_eq!(verdict(&lock), Verdict::Fresh);
    assert_eq!(names(dir.path()), ["catalog"]);
}

#[test]
fn the_plan_of_current_stores_is_empty_and_touches_nothing() {
    let dir = scratch();
    assert_eq!(plan(dir.path()).expect("nothing there"), []);
    let lock = locked(dir.path());
    assert_eq!(verdict(&lock), Verdict::Fresh);
    RegistryStore::open(&lock, OpenOptions::default()).expect("opens");
    let before = photograph(dir.path());
    let plans = run(&lock).expect("runs");
    let kinds: Vec<StoreKind> = plans.iter().map(|plan| plan.kind).collect();
    assert_eq!(kinds, StoreKind::ALL);
    for plan in plans {
        assert_eq!(plan.format, FORMAT);
        assert_eq!(plan.steps, []);
    }
    assert!(photograph(dir.path()) == before, "the original changed");
}

/// The first step makes a meta row only for a store that is being made.
#[test]
fn a_lost_meta_row_is_not_made_anew() {
    let dir = scratch();
    let path = dir.path().join("made");
    let open = |path: &Path| sled_db::SledDb::open(path, 1 << 20).expect("opens");
    let db = sled_db::SledDb::create(&path, 1 << 20).expect("created");
    let mut rows = rows::Rows::new(db, StoreKind::Peer);
    let error = steps::upgrade(&mut rows, false).expect_err("it has a name, and no meta row");
    assert!(error.to_string().contains("meta row is missing"), "{error}");
    steps::upgrade(&mut rows, true).expect("fresh");
    assert_eq!(rows.head().format, FORMAT);
    steps::upgrade(&mut rows, true).expect("once more does no harm");
    drop(rows);
    // With a row in it, it is not fresh either, whatever its name.
    let db = open(&path);
    let mut batch = sled_db::Batch::default();
    batch.delete(&value::Key::Meta.encode());
    batch
        .put(&value::Key::Row(b"a").encode(), b"1")
        .expect("small");
    db.commit(batch).expect("committed");
    let mut rows = rows::Rows::new(db, StoreKind::Peer);
    steps::upgrade(&mut rows, true).expect_err("not empty");
}
