//! The tools that only read.

use super::*;

/// A copy as of one moment: nothing was written while it was taken.
fn settled_copy(dir: &Path) -> tempfile::TempDir {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    loop {
        let before = files(dir);
        let copy = copy_of(dir);
        if files(dir) == before {
            return copy;
        }
        assert!(
            std::time::Instant::now() < deadline,
            "the store never rests"
        );
    }
}

/// Runs every reading tool; the directory is afterwards what it was.
fn read_everything(dir: &Path) -> (Listing, Verified, Stats) {
    let before = files(dir);
    let listing = list(dir).expect("a list");
    let verified = verify(dir).expect("verified");
    let stats = stats(dir).expect("stats");
    contents(dir);
    let options = ExportOptions {
        topics: listing.topics.iter().map(|t| t.name().clone()).collect(),
        pass_damage: true,
    };
    export(dir, &options, std::io::sink()).expect("an export");
    crate::catalog::plan(dir).expect("a plan");
    assert!(files(dir) == before, "a reading tool changed the directory");
    (listing, verified, stats)
}

#[tokio::test]
async fn a_stopped_store_is_listed_verified_and_measured() {
    let sample = sample().await;
    let (listing, verified, stats) = read_everything(sample.dir.path());
    assert!(verified.is_sound(), "{:#?}", verified.findings);
    assert!(verified.notes.is_empty(), "{:?}", verified.notes);
    assert!(verified.checked.groups > 300 && verified.checked.entries > 450);
    assert!(listing.clean_stop && listing.catalog_faults.is_empty());
    assert_eq!(
        (listing.journal_format, listing.catalog_format),
        (1, Some(1))
    );
    let names: Vec<&str> = listing.topics.iter().map(|t| t.name().as_str()).collect();
    assert_eq!(names, ["empty", "quakes.ci", "quakes.nc"]);
    assert_eq!(listing.topics[2].records(), 269);
    assert!(
        listing
            .segments
            .iter()
            .any(|s| s.used == SegmentUse::Sealed)
    );
    let ci = &sample.contents.topics["quakes.ci"];
    assert_eq!((ci.records.len(), ci.missing.len()), (300, 0));
    for n in 0..150 {
        assert_eq!(ci.records[&(2 * n)].1, value(0, 2 * n, 6000));
        assert_eq!(ci.records[&(2 * n + 1)].1, value(0, 2 * n + 1, 300));
    }
    assert_eq!(sample.contents.subscriptions.len(), 3);
    let billing = ("quakes.ci".to_owned(), "billing".to_owned());
    let billing = &sample.contents.subscriptions[&billing];
    assert_eq!((billing.committed.get(), billing.generation.get()), (77, 2));
    assert_eq!((billing.paused, billing.expire_ms), (true, Some(3_600_000)));

    let of = |name: &str| {
        let named = |t: &&TopicStats| t.name.as_ref().is_some_and(|n| n.as_str() == name);
        stats.topics.iter().find(named).expect("listed").weight
    };
    assert!(of("quakes.ci").live_bytes > 150 * 6300 && of("quakes.ci").dead_bytes == 0);
    assert!(of("quakes.nc").dead_bytes > 10 * 6300);
    assert_eq!(of("empty"), Weight::default());
    let deleted = stats
        .topics
        .iter()
        .find(|t| t.name.is_none())
        .expect("gone");
    assert!(deleted.weight.dead_bytes > 150 * 6300);
    let by_segment: u64 = stats.segments.iter().map(|s| s.weight.live_bytes).sum();
    assert_eq!(by_segment, stats.weight.live_bytes);
    assert!(stats.amplification().expect("something lives") > 1.0);
}

#[tokio::test]
async fn a_copy_of_a_running_store_reads_like_what_a_start_would_find() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let (store, _) = open(dir.path());
    fill(&store).await;
    let copy = settled_copy(dir.path());
    let refused = list(dir.path()).expect_err("in use");
    let text = refused.to_string();
    assert!(
        text.contains(&format!("process {}", std::process::id())),
        "{text}"
    );
    for refused in [
        verify(dir.path()).err(),
        stats(dir.path()).err(),
        import(&options(dir.path()), std::io::Cursor::new(Vec::new())).err(),
    ] {
        assert!(refused.is_some());
    }
    store.stop().expect("a clean stop");
    drop(store);

    let (listing, verified, _) = read_everything(copy.path());
    assert!(!listing.clean_stop);
    assert!(verified.is_sound(), "{:#?}", verified.findings);
    assert!(!verified.notes.is_empty());
    let found = contents(copy.path());
    assert_eq!(found.topics["quakes.ci"].records.len(), 300);
    assert_eq!(found.topics["quakes.nc"].records.len(), 269);
    assert_eq!(found.subscriptions.len(), 3);
}

#[tokio::test]
async fn a_dump_gives_the_range_that_was_asked_for() {
    let sample = sample().await;
    let dump_of = |from: u64, to: u64| {
        let mut offsets = Vec::new();
        let options = DumpOptions {
            topic: Some(name("quakes.nc")),
            from: Some(Offset::new(from)),
            to: Some(Offset::new(to)),
        };
        let summary = dump(sample.dir.path(), &options, &mut |item| {
            if let Dumped::Record { offset, .. } = item {
                offsets.push(offset.get());
            }
            Ok(())
        });
        assert_eq!(summary.expect("a dump").records, offsets.len() as u64);
        offsets
    };
    assert_eq!(dump_of(40, 43), [40, 41, 42]);
    assert_eq!(dump_of(0, 33), [31, 32], "what was purged stays purged");
    assert_eq!(dump_of(298, 1000), [298, 299]);
    assert_eq!(dump_of(1000, 2000), [0; 0]);
    let options = DumpOptions {
        topic: Some(name("nothing")),
        ..DumpOptions::default()
    };
    let missing = dump(sample.dir.path(), &options, &mut |_| Ok(()));
    assert!(matches!(missing, Err(OfflineError::NoTopic { .. })));
}

#[test]
fn a_directory_without_a_store_is_told_with_where_one_is() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    std::fs::create_dir_all(dir.path().join("peer/journal")).expect("made");
    let error = kind_of(dir.path()).expect_err("no store").to_string();
    assert!(
        error.contains("there is ") && error.contains("/peer"),
        "{error}"
    );
    assert_eq!(
        kind_of(&dir.path().join("peer")).expect("a peer"),
        DirKind::Peer
    );
}
