//! Bytes that changed, files that are gone: it is named, and repaired as far as it can be.

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;

use super::*;
use crate::store::tests::values;

/// Changes one bit of a file.
fn flip(path: &Path, at: u64, bit: u64) {
    let file = OpenOptions::new().read(true).write(true).open(path);
    let file = file.expect("the file");
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).expect("a byte");
    file.write_all_at(&[byte[0] ^ (1 << bit)], at)
        .expect("changed");
}

/// Opens the store as a peer does and reads everything; what is missing is told, nothing else differs.
async fn serves_all_but_damage(dir: &Path, expected: &Contents, what: &str) -> u64 {
    let (store, _) = open(dir);
    let mut missing = 0;
    for (topic, of_topic) in &expected.topics {
        let id = store
            .id_of(&name(topic))
            .unwrap_or_else(|e| panic!("{what}: {topic}: {e}"));
        let (read, lost) = read_passing(&store, id, of_topic.start).await;
        // The batch the start lies in comes whole.
        for (offset, found) in read.range(of_topic.start..) {
            let (_, value) = &of_topic.records[offset];
            assert!(value == found, "{what}: {topic}/{offset} has other bytes");
        }
        for offset in of_topic.records.keys() {
            let told = lost.contains(offset);
            assert!(
                read.contains_key(offset) || told,
                "{what}: {topic}/{offset} is nowhere"
            );
        }
        missing += of_topic.records.keys().filter(|n| lost.contains(n)).count() as u64;
    }
    for ((topic, subscription), row) in &expected.subscriptions {
        let found = store
            .describe_subscription(name(topic), subscription.parse().expect("good"))
            .await
            .unwrap_or_else(|e| panic!("{what}: {topic}/{subscription}: {e}"));
        assert_eq!(
            found.committed_offset, row.committed,
            "{what}: {topic}/{subscription}"
        );
    }
    store.stop().expect("a clean stop");
    missing
}

/// Every record of a topic, and the offsets that are told as missing.
async fn read_passing(
    store: &Store,
    topic: TopicId,
    from: u64,
) -> (BTreeMap<u64, Vec<u8>>, BTreeSet<u64>) {
    use crate::protocol::batch::CheckedBatch;
    use crate::protocol::data::{Fetch, FetchItem};
    let (mut read, mut lost) = (BTreeMap::new(), BTreeSet::new());
    let mut at = from;
    loop {
        let fetch = Fetch {
            pass_damage: true,
            ..crate::store::tests::fetch(topic, at)
        };
        let fetched = store.fetch(fetch).await.expect("readable");
        for item in &fetched.items {
            match item {
                FetchItem::Gap(gap) => lost.extend(gap.from.get()..gap.to.get()),
                FetchItem::Batch(batch) => {
                    let checked = CheckedBatch::check_crc(batch.batch.clone()).expect("whole");
                    let records = checked.records().expect("records");
                    for (n, record) in (batch.base_offset.get()..).zip(records) {
                        read.insert(n, record.expect("a record").value.to_vec());
                    }
                }
            }
        }
        at = fetched.next_offset.get();
        if at >= fetched.end_offset.get() {
            return (read, lost);
        }
    }
}

/// The bytes of slots that belong to somebody: the contents of segments in use, footers and headers.
fn used_bytes(dir: &Path) -> Vec<(PathBuf, u64)> {
    let image = image::Image::open(dir).expect("an image");
    let mut used = Vec::new();
    for segment in image.segments.values() {
        let footer = segment
            .row
            .map_or(0, |row| row.footer_position + row.footer_length);
        let end = segment.end.max(footer);
        used.push((
            dir.join(image.slot_name(segment.header.slot)),
            u64::from(end),
        ));
    }
    used
}

#[tokio::test]
async fn a_changed_byte_in_the_journal_is_named_and_repaired() {
    let sample = sample().await;
    let seed =
        std::env::var("TIDINGS_TEST_SEED").map_or(7_300_001, |s| s.parse().expect("a number"));
    let mut random = Random::new(seed);
    let (mut named, mut round) = (0, 0);
    // How much of the journal is padding depends on how publishing was grouped.
    while round < 10 || (named < 5 && round < 50) {
        round += 1;
        let copy = copy_of(sample.dir.path());
        let dir = copy.path();
        let used = used_bytes(dir);
        let (file, end) = &used[usize::try_from(random.below(used.len() as u64)).expect("small")];
        let at = random.below(*end);
        flip(file, at, random.below(8));
        let what = format!("seed {seed}, round {round}, {} at {at}", file.display());
        let verified = verify(dir).unwrap_or_else(|e| panic!("{what}: {e}"));
        let slot = file
            .file_name()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        let names_it = verified.findings.iter().any(|f| f.file.ends_with(&slot));
        named += u64::from(names_it);
        let before = contents(dir);
        let told = before.topics.values().any(|t| !t.missing.is_empty());
        assert!(names_it || !told, "{what}: {:?}", verified.findings);
        if !names_it {
            // Padding, or the last group, which nobody claims.
            assert_eq!(before, sample.contents, "{what}");
        }

        let planned = repair(dir, true).unwrap_or_else(|e| panic!("{what}: {e}"));
        let done = repair(dir, false).unwrap_or_else(|e| panic!("{what}: {e}"));
        assert_eq!(
            planned.is_nothing(),
            done.is_nothing(),
            "{what}: {planned:?} {done:?}"
        );
        let missing = serves_all_but_damage(dir, &sample.contents, &what).await;
        assert!(missing <= 2, "{what}: one batch at most, not {missing}");
        assert_eq!(done.left, [""; 0], "{what}");
        assert_eq!(verify(dir).expect("verified").findings, [], "{what}");
        let again = repair(dir, true).expect("planned");
        assert!(again.is_nothing(), "{what}: {again:?}");
    }
    assert!(
        named >= 5,
        "many bytes belong to somebody: {named} of {round}"
    );
}

#[tokio::test]
async fn a_changed_byte_in_the_catalog_costs_nothing() {
    let sample = sample().await;
    let seed =
        std::env::var("TIDINGS_TEST_SEED").map_or(7_300_002, |s| s.parse().expect("a number"));
    let mut random = Random::new(seed);
    for round in 0..10 {
        let copy = copy_of(sample.dir.path());
        let dir = copy.path();
        let file = dir.join("catalog/db");
        let length = std::fs::metadata(&file).expect("sled's file").len();
        let at = random.below(length);
        flip(&file, at, random.below(8));
        let what = format!("seed {seed}, round {round}, byte {at}");
        assert_eq!(contents(dir), sample.contents, "{what}");
        verify(dir).unwrap_or_else(|e| panic!("{what}: {e}"));
        repair(dir, false).unwrap_or_else(|e| panic!("{what}: {e}"));
        assert_eq!(contents(dir), sample.contents, "{what}");
        assert_eq!(verify(dir).expect("verified").findings, [], "{what}");
        let missing = serves_all_but_damage(dir, &sample.contents, &what).await;
        assert_eq!(missing, 0, "{what}");
    }
}

#[tokio::test]
async fn a_catalog_that_is_gone_or_garbage_is_built_again() {
    let sample = sample().await;
    let garbage = |dir: &Path| {
        let mut random = Random::new(3);
        for entry in std::fs::read_dir(dir.join("catalog")).expect("a listing") {
            let path = entry.expect("an entry").path();
            if path.is_file() {
                let bytes: Vec<u8> = (0..4096).map(|_| random.next().to_le_bytes()[0]).collect();
                std::fs::write(path, bytes).expect("written");
            }
        }
    };
    let gone = |dir: &Path| std::fs::remove_dir_all(dir.join("catalog")).expect("removed");
    for ruin in [&garbage as &dyn Fn(&Path), &gone] {
        let copy = copy_of(sample.dir.path());
        ruin(copy.path());
        let verified = verify(copy.path()).expect("verified");
        assert!(verified.findings.iter().all(|f| f.file == "catalog") && !verified.is_sound());
        assert_eq!(
            contents(copy.path()),
            sample.contents,
            "the journal says it all"
        );
        let planned = repair(copy.path(), true).expect("planned");
        assert!(
            planned.steps[0].starts_with("catalog: set aside"),
            "{planned:?}"
        );
        let done = repair(copy.path(), false).expect("repaired");
        assert_eq!((&done.steps, &done.lost), (&planned.steps, &planned.lost));
        assert_eq!(verify(copy.path()).expect("verified").findings, []);
        let missing = serves_all_but_damage(copy.path(), &sample.contents, "catalog").await;
        assert_eq!(missing, 0);
    }
}

#[tokio::test]
async fn a_store_without_damage_is_left_alone() {
    let sample = sample().await;
    let before = files(sample.dir.path());
    let planned = repair(sample.dir.path(), true).expect("planned");
    assert!(planned.is_nothing(), "{planned:?}");
    assert!(
        files(sample.dir.path()) == before,
        "a dry run changed something"
    );
    let done = repair(sample.dir.path(), false).expect("repaired");
    assert!(done.is_nothing(), "{done:?}");
    let (store, _) = open(sample.dir.path());
    let id = store.id_of(&name("quakes.ci")).expect("there");
    assert_eq!(values(&store, id, 0).await.len(), 300);
    store.stop().expect("a clean stop");
}

#[tokio::test]
async fn a_slot_of_a_newer_format_is_refused_by_name_of_both_versions() {
    let sample = sample().await;
    let slot = used_bytes(sample.dir.path()).remove(0).0;
    let mut bytes = std::fs::read(&slot).expect("read");
    for at in [0, 4096] {
        bytes[at + 8..at + 12].copy_from_slice(&9_u32.to_le_bytes());
        let crc = crate::journal::crc32c(&bytes[at..at + 508]);
        bytes[at + 508..at + 512].copy_from_slice(&crc.to_le_bytes());
    }
    std::fs::write(&slot, &bytes).expect("written");
    let before = files(sample.dir.path());
    for refused in [
        list(sample.dir.path()).err(),
        verify(sample.dir.path()).err(),
        repair(sample.dir.path(), false).err(),
    ] {
        let text = refused.expect("newer").to_string();
        assert!(
            text.contains("format 9") && text.contains("knows 1"),
            "{text}"
        );
    }
    assert!(
        files(sample.dir.path()) == before,
        "a refusal changed something"
    );
}

/// A sealed segment that has records of `topic`: its file, its number, and one of its extents.
fn sealed_with(dir: &Path, topic: &str) -> (PathBuf, u64, crate::journal::Extent) {
    if let Some(found) = look_for_sealed(dir, topic) {
        return found;
    }
    // A process that stops before its full segments have their rows leaves that to the next start.
    let (store, _) = open(dir);
    store.stop().expect("a clean stop");
    look_for_sealed(dir, topic).expect("a start gives every segment its row")
}

fn look_for_sealed(dir: &Path, topic: &str) -> Option<(PathBuf, u64, crate::journal::Extent)> {
    let image = image::Image::open(dir).expect("an image");
    let id = image.topic(&name(topic)).expect("there").id;
    let sealed = image.segments.values().filter(|s| s.row.is_some());
    sealed.into_iter().find_map(|segment| {
        let extents = image.extents(segment).expect("extents");
        let (_, extent) = extents.iter().find(|(of, _)| *of == id)?;
        let file = dir.join(image.slot_name(segment.header.slot));
        Some((file, segment.number, *extent))
    })
}

#[tokio::test]
async fn a_repair_that_was_interrupted_goes_on() {
    let sample = sample().await;
    let dir = sample.dir.path();
    let (file, number, _) = sealed_with(dir, "quakes.ci");
    let slot = file
        .file_name()
        .expect("a name")
        .to_string_lossy()
        .into_owned();
    std::fs::create_dir(dir.join("journal/damaged")).expect("made");
    let aside = dir.join(format!("journal/damaged/{slot}.segment-{number}"));
    std::fs::rename(&file, &aside).expect("moved");
    assert!(
        contents(dir).topics["quakes.ci"].missing.len() == 1,
        "its records are told as missing"
    );
    let planned = repair(dir, true).expect("planned");
    assert!(planned.steps[0].contains("moved back"), "{planned:?}");
    assert!(aside.exists(), "a dry run changes nothing");
    let done = repair(dir, false).expect("repaired");
    assert!(done.left.is_empty() && done.lost.is_empty(), "{done:?}");
    assert_eq!(verify(dir).expect("verified").findings, []);
    let missing = serves_all_but_damage(dir, &sample.contents, "brought back").await;
    assert_eq!(missing, 0);
}

#[tokio::test]
async fn a_file_that_is_gone_becomes_gaps() {
    let sample = sample().await;
    let dir = sample.dir.path();
    let (file, ..) = sealed_with(dir, "quakes.ci");
    std::fs::remove_file(&file).expect("removed");
    let verified = verify(dir).expect("verified");
    let slot = file
        .file_name()
        .expect("a name")
        .to_string_lossy()
        .into_owned();
    let missing = |f: &Finding| f.file.ends_with(&slot) && f.what.contains("is missing");
    assert!(
        verified.findings.iter().any(missing),
        "{:?}",
        verified.findings
    );
    let lost = |f: &Finding| f.topic.as_deref() == Some("quakes.ci") && f.offsets.is_some();
    assert!(
        verified.findings.iter().any(lost),
        "{:?}",
        verified.findings
    );
    let done = repair(dir, false).expect("repaired");
    assert!(
        done.lost
            .iter()
            .any(|l| l.starts_with("topic quakes.ci, offsets")),
        "{done:?}"
    );
    assert_eq!(verify(dir).expect("verified").findings, []);
    let missing = serves_all_but_damage(dir, &sample.contents, "gone").await;
    assert!(missing > 20, "{missing}");
}

#[tokio::test]
async fn records_behind_a_ruined_group_header_survive_the_loss_of_the_catalog() {
    let sample = sample().await;
    let dir = sample.dir.path();
    let (file, _, extent) = sealed_with(dir, "quakes.ci");
    let group = u64::from(extent.position / 512 * 512);
    flip(&file, group + 20, 3);
    std::fs::remove_dir_all(dir.join("catalog")).expect("removed");
    let done = repair(dir, false).expect("repaired");
    let missing = serves_all_but_damage(dir, &sample.contents, "header").await;
    assert_eq!(missing, 0, "{done:?}");
    assert!(
        !done.lost.is_empty(),
        "facts in that group may be lost: {done:?}"
    );
    let kept = dir.join("journal/damaged");
    assert!(
        std::fs::read_dir(kept).expect("there").count() == 1,
        "the file is kept"
    );
}

#[tokio::test]
async fn a_damaged_cold_segment_is_replaced_by_another() {
    let sample = sample().await;
    let mut bytes = Vec::new();
    let wanted = ExportOptions {
        topics: vec![name("quakes.ci"), name("quakes.nc"), name("empty")],
        pass_damage: false,
    };
    export(sample.dir.path(), &wanted, &mut bytes).expect("an export");
    let new = tempfile::tempdir().expect("a scratch directory");
    let dir = new.path();
    import(&options(dir), std::io::Cursor::new(&bytes)).expect("imported");
    let (file, _, extent) = sealed_with(dir, "quakes.ci");
    flip(&file, u64::from(extent.position) + 20, 0);
    let verified = verify(dir).expect("verified");
    assert!(
        verified
            .findings
            .iter()
            .any(|f| f.topic.as_deref() == Some("quakes.ci"))
    );
    let refused = export(dir, &wanted, std::io::sink()).expect_err("damaged");
    assert!(refused.to_string().contains("--pass-damage"), "{refused}");
    let done = repair(dir, false).expect("repaired");
    assert_eq!(done.lost.len(), 1, "{done:?}");
    assert_eq!(verify(dir).expect("verified").findings, []);
    let missing = serves_all_but_damage(dir, &sample.contents, "cold").await;
    assert_eq!(missing, 2, "the batch whose header was hit");
    export(dir, &wanted, std::io::sink()).expect("the gap is known now");
}

#[tokio::test]
async fn a_torn_tail_is_cut_and_told() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let (store, _) = open(dir.path());
    fill(&store).await;
    let copy = copy_of(dir.path());
    store.stop().expect("a clean stop");
    let image = image::Image::open(copy.path()).expect("an image");
    let last = image.segments.values().next_back().expect("one");
    let file = copy.path().join(image.slot_name(last.header.slot));
    // Half of a group that nobody claims, behind the last one.
    let mut torn = std::fs::read(&file).expect("read");
    let at = last.end as usize;
    drop(image);
    torn[at..at + 4].copy_from_slice(b"TGRP");
    torn[at + 4..at + 400].fill(0x5a);
    std::fs::write(&file, &torn).expect("written");
    let before = contents(copy.path());
    let done = repair(copy.path(), false).expect("repaired");
    assert!(done.left.is_empty(), "{done:?}");
    assert_eq!(
        contents(copy.path()).topics["quakes.ci"],
        before.topics["quakes.ci"]
    );
    assert!(verify(copy.path()).expect("verified").is_sound());
}
