//! Starts on stores whose files were changed.
//!
//! The rules are those of `docs/storage-format.md`: exactly what was published is served, or what is missing is named;
//! no start panics, hangs, or ends the next one; the second start finds what the first one found.

use std::path::Path;
use std::sync::OnceLock;

use tidings::catalog::{self, DirLock, RegistryStore, StoreKind, Verdict, check_role};
use tidings::protocol::error::ApiError;
use tidings::store::offline;
use tidings::store::{NewTopic, OpenError, Store};
use tidings::types::{GapReason, LeaderEpoch, TopicId, TopicName, TopicSettings};

use super::found::{Found, FoundItem, FoundTopic, options, publish, read_all, runtime};
use super::scene::{Changed, Scene, index_scene, scenes};
use super::{Input, names_an_error};

/// A change of the journal: the first byte chooses the store, the rest what is changed.
pub fn journal(data: &[u8]) {
    with_changed(data, "journal", |scene| {
        let dir = scene.store.set_up();
        let Some((store, found)) = open(&scene, dir.path()) else {
            return;
        };
        go_on(&scene, &store, &found);
        open_again(&scene, dir.path(), &found);
    });
}

/// A change of the catalog, from which nothing may follow: the journal has everything.
pub fn catalog(data: &[u8]) {
    with_changed(data, "catalog", |scene| {
        let dir = scene.store.set_up();
        let Some((store, found)) = open(&scene, dir.path()) else {
            panic!("without its catalog the store does not open");
        };
        assert!(found.damage.is_empty(), "damage: {:?}", found.damage);
        assert_eq!(found.topics, scene.was.topics);
        assert_eq!(found.subscriptions, scene.was.subscriptions);
        go_on(&scene, &store, &found);
        open_again(&scene, dir.path(), &found);
    });
}

/// A changed store, and what was in it before.
struct Damaged {
    store: Scene,
    was: &'static Found,
    changed: Changed,
    /// Whether what was changed is the journal.
    in_journal: bool,
}

impl Damaged {
    /// Whether all that is missing has to be told: always, unless a second fault may have taken what tells it.
    fn must_tell(&self) -> bool {
        !self.in_journal || self.changed != Changed::Much
    }
}

fn with_changed(data: &[u8], part: &str, work: impl FnOnce(Damaged)) {
    let mut input = Input(data);
    let number = usize::from(input.byte()) % scenes().len();
    let (store, changed) = scenes()[number].changed(part, input);
    work(Damaged {
        store,
        was: before(number),
        changed,
        in_journal: part == "journal",
    });
}

/// What is in a store that nobody changed.
fn before(number: usize) -> &'static Found {
    static FOUND: [OnceLock<Found>; 3] = [const { OnceLock::new() }; 3];
    FOUND[number].get_or_init(|| {
        let dir = scenes()[number].set_up();
        let (store, _) = Store::open(&options(dir.path())).expect("nothing is wrong with it");
        let found = read_all(&store);
        store.stop().expect("stopped");
        assert_eq!(found.damage, [""; 0], "damage where there is none");
        found
    })
}

/// Opens it and compares; `None` where it rightly refuses.
fn open(scene: &Damaged, dir: &Path) -> Option<(Store, Found)> {
    let (store, _) = match Store::open(&options(dir)) {
        Ok(opened) => opened,
        Err(error) => {
            refused(scene, &error);
            // Not a different story each time, and no start makes the next one worse.
            let again = Store::open(&options(dir)).map(drop);
            refused(scene, &again.expect_err("it opens after all"));
            return None;
        }
    };
    let found = read_all(&store);
    for (id, topic) in &found.topics {
        match scene.was.topics.get(id) {
            Some(was) => same_or_told(scene, was, topic, &found),
            None => told(scene, &found, &topic.name, "a topic came back"),
        }
    }
    let lost = |id: &&TopicId| !found.topics.contains_key(id);
    for id in scene.was.topics.keys().filter(lost) {
        told(scene, &found, &id.to_string(), "a topic is gone");
    }
    for (key, was) in &scene.was.subscriptions {
        if found.subscriptions.get(key) != Some(was) {
            told(scene, &found, &key.1, "a subscription is another");
        }
    }
    if scene.changed == Changed::Nothing {
        assert_eq!(&found, scene.was);
    }
    Some((store, found))
}

/// The one fact a start cannot do without is named; and nothing else keeps it from starting, one fault given.
fn refused(scene: &Damaged, error: &OpenError) {
    names_an_error(error);
    let text = error.to_string();
    assert!(
        !scene.must_tell() || text.contains("facts about the peer"),
        "one changed place, and the store does not open: {text}"
    );
}

fn told(scene: &Damaged, found: &Found, what: &impl std::fmt::Display, how: &str) {
    let quarantine = found.topics.values().any(|topic| topic.quarantined);
    assert!(
        !scene.must_tell() || quarantine || !found.damage.is_empty(),
        "{how} and nobody says so: {what}"
    );
}

/// Every batch is the one that was published at its place; where there is none, somebody says why.
fn same_or_told(scene: &Damaged, was: &FoundTopic, now: &FoundTopic, found: &Found) {
    if now.name != was.name {
        told(scene, found, &was.name, "a topic has another name");
    }
    same_bytes(was, now);
    for (base, item) in &was.items {
        let FoundItem::Batch(..) = item else { continue };
        for offset in (*base).max(was.start)..item.end(*base) {
            match now.at(offset) {
                Some((_, FoundItem::Batch(..))) => {}
                Some((_, FoundItem::Gap(_, GapReason::Damaged))) => {}
                _ if now.quarantined => {}
                missing => {
                    let what = format!("{} at {offset}: {missing:?}", was.name);
                    told(scene, found, &what, "a record is gone");
                }
            }
        }
    }
}

fn same_bytes(was: &FoundTopic, now: &FoundTopic) {
    for (base, item) in &now.items {
        // What was purged may come back where the purge was damaged: nobody here remembers it.
        if let FoundItem::Batch(bytes, _) = item
            && *base >= was.start
            && let Some((at, FoundItem::Batch(published, _))) = was.at(*base)
        {
            assert_eq!(
                (at, published),
                (*base, bytes),
                "{} has other bytes",
                was.name
            );
        }
    }
}

/// Works on: every topic takes records that is not in quarantine, new topics are made, and it stops.
fn go_on(scene: &Damaged, store: &Store, found: &Found) {
    for (id, topic) in &found.topics {
        match publish(store, *id, topic.epoch) {
            Ok(published) => {
                assert!(!topic.quarantined && !published.duplicate);
                assert!(
                    published.base_offset.get() >= topic.end,
                    "an offset is given twice"
                );
            }
            Err(ApiError::TopicQuarantined { .. }) => assert!(topic.quarantined),
            Err(error) => panic!("{}: {error}", topic.name),
        }
    }
    let made = runtime().block_on(store.create_topic(made_after()));
    made.expect("a new topic can be made");
    if let Err(error) = store.stop() {
        panic!("it does not stop: {error}, after {:?}", scene.changed);
    }
}

fn made_after() -> NewTopic {
    NewTopic {
        name: "made.after".parse::<TopicName>().expect("a name"),
        id: TopicId::from_bytes([0xaf; 16]),
        epoch: LeaderEpoch::new(1),
        settings: TopicSettings::default(),
    }
}

/// The next start finds what this one found, and what was added.
fn open_again(scene: &Damaged, dir: &Path, before: &Found) {
    let opened = Store::open(&options(dir));
    let (store, opened) = opened.unwrap_or_else(|error| panic!("it does not open again: {error}"));
    assert!(opened.clean_stop && opened.torn.is_none(), "{opened:?}");
    let after = read_all(&store);
    store.stop().expect("it stopped before");
    let made = after.topics.len() - before.topics.len();
    assert!(made == 1 && after.topics.contains_key(&made_after().id));
    for (id, topic) in &before.topics {
        let now = &after.topics[id];
        assert_eq!(
            (&now.name, now.quarantined),
            (&topic.name, topic.quarantined),
            "after {:?}",
            scene.changed
        );
        for offset in now.start..topic.end {
            let (was, is) = (topic.at(offset), now.at(offset));
            let same = match (was, is) {
                (Some((_, FoundItem::Gap(_, was))), Some((_, FoundItem::Gap(_, is)))) => was == is,
                (was, is) => was == is,
            };
            assert!(same, "{} at {offset}: it was {was:?}, now {is:?}", now.name);
        }
        let new = (topic.end..now.end).filter_map(|offset| now.at(offset));
        let batches = new.filter(|(_, item)| matches!(item, FoundItem::Batch(..)));
        assert_eq!(
            batches.count(),
            usize::from(!topic.quarantined),
            "{}",
            now.name
        );
    }
    for (key, subscription) in &before.subscriptions {
        assert_eq!(after.subscriptions.get(key), Some(subscription), "{key:?}");
    }
}

/// A change of an index server's registry: either exactly its rows are read, or it is unsound, says why, and can be replaced.
pub fn registry(data: &[u8]) {
    type Rows = Vec<catalog::Row>;
    static WAS: OnceLock<Rows> = OnceLock::new();
    let read = |scene: &Scene| {
        let dir = scene.set_up();
        let lock = DirLock::acquire(dir.path()).expect("nobody else is here");
        check_role(&lock, StoreKind::Index).expect("it is an index server's");
        let opened = RegistryStore::open(&lock, catalog::OpenOptions::default());
        let (store, loaded) = opened.expect("whatever is wrong is a verdict");
        let store = match &loaded.verdict {
            Verdict::Sound => store,
            Verdict::Fresh => panic!("a registry that was changed is taken for a new one"),
            Verdict::Unsound { reasons } => {
                assert!(!reasons.is_empty());
                reasons.iter().for_each(names_an_error);
                drop(store);
                RegistryStore::replace(&lock, catalog::OpenOptions::default(), Vec::new())
                    .expect("it can be replaced")
            }
        };
        let rows = (loaded.verdict == Verdict::Sound).then_some(loaded.rows);
        filled_again(&lock, store, rows.clone().unwrap_or_default());
        rows
    };
    let was = WAS.get_or_init(|| read(index_scene()).expect("nothing is wrong with it"));
    let (scene, _) = index_scene().changed("registry", Input(data));
    if let Some(rows) = read(&scene) {
        assert_eq!(&rows, was, "rows were changed and nobody says so");
    }
}

/// Takes a change and keeps it.
fn filled_again(lock: &DirLock, mut store: RegistryStore, mut rows: Vec<catalog::Row>) {
    let new = (vec![9, 9, 9], b"of a test".to_vec());
    store
        .apply(vec![new.clone()], Vec::new())
        .expect("it takes changes");
    store.close().expect("it closes");
    let opened = RegistryStore::open(lock, catalog::OpenOptions::default());
    let (store, loaded) = opened.expect("it opens again");
    match &loaded.verdict {
        // Damage where nothing was read, and something was written since: what was lost of it is told.
        Verdict::Unsound { reasons } => reasons.iter().for_each(names_an_error),
        _ => {
            rows.push(new);
            rows.sort();
            assert_eq!(loaded.rows, rows);
        }
    }
    store.close().expect("it closes");
}

/// The tools that look at a stopped store, on a changed one: they change nothing, fail with a text or tell what is there,
/// and a repaired store opens.
pub fn tools(data: &[u8]) {
    let mut input = Input(data);
    let choice = input.byte();
    let part = if choice & 0x80 == 0 {
        "journal"
    } else {
        "catalog"
    };
    let number = usize::from(choice & 0x7f) % scenes().len();
    let (scene, changed) = scenes()[number].changed(part, input);
    let dir = scene.set_up();
    let path = dir.path();
    let as_it_was = Scene::of_directory(path);
    let verified = offline::verify(path);
    let listed = offline::list(path);
    match &verified {
        Ok(verified) => {
            verified.findings.iter().for_each(|finding| {
                assert!(
                    !finding.what.is_empty() && !finding.file.is_empty(),
                    "{finding:?}"
                );
            });
            assert!(
                changed != Changed::Nothing || verified.is_sound(),
                "{verified:?}"
            );
        }
        Err(error) => names_an_error(error),
    }
    if let Err(error) = &listed {
        names_an_error(error);
    }
    if let Err(error) = offline::stats(path) {
        names_an_error(&error);
    }
    let unchanged = Scene::of_directory(path).files == as_it_was.files;
    assert!(unchanged, "a tool that reads has written");
    match offline::repair(path, false) {
        Ok(_) => repaired(path, before(number)),
        Err(error) => names_an_error(&error),
    }
}

/// A repaired store opens, and what is in it is what was published.
fn repaired(dir: &Path, was: &Found) {
    let opened = Store::open(&options(dir));
    let (store, _) = opened.unwrap_or_else(|error| panic!("repaired, and yet: {error}"));
    let found = read_all(&store);
    store.stop().expect("it stops");
    for (id, topic) in &found.topics {
        if let Some(was) = was.topics.get(id) {
            same_bytes(was, topic);
        }
    }
}
