//! A kill between two pieces of a large change of the catalog: some rows are newer than its position.

use super::*;
use crate::catalog::{Catalog, Delta, OpenOptions};
use crate::topic::RowKey;

const PRODUCERS: u8 = 5;

/// A crashed store whose catalog knows of no record, and the rows it would have got.
async fn behind() -> (tempfile::TempDir, TopicId, Vec<(Vec<u8>, Vec<u8>)>) {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let (store, _) = open(dir.path());
    let id = create(&store, "orders", Durability::Fsync).await;
    store.stop().expect("a clean stop");
    drop(store);
    let old = tempfile::tempdir().expect("a scratch directory");
    copy_dir(&dir.path().join("catalog"), &old.path().join("catalog"));
    let (store, _) = open(dir.path());
    for round in 0..3 {
        for producer in 1..=PRODUCERS {
            let batch = batch(producer, round * 2, &[&[producer; 50], &[producer; 60]]);
            publish(&store, id, batch).await;
        }
    }
    store.stop().expect("a clean stop");
    drop(store);
    let rows = Catalog::read_copy(dir.path()).expect("readable").rows;
    std::fs::remove_dir_all(dir.path().join("catalog")).expect("removed");
    copy_dir(&old.path().join("catalog"), &dir.path().join("catalog"));
    (dir, id, rows)
}

fn put(dir: &Path, puts: Vec<(Vec<u8>, Vec<u8>)>) {
    let lock = crate::catalog::DirLock::acquire(dir).expect("nobody works there");
    let (mut catalog, _) = Catalog::open(&lock, OpenOptions::default()).expect("it opens");
    let delta = Delta {
        puts,
        deletes: Vec::new(),
        applied: None,
    };
    catalog.apply(delta).expect("applied");
    catalog.close().expect("closed");
}

/// The row of the topic was in the first piece and those of its producers were not, so a batch that was
/// published again was stored twice.
#[tokio::test]
async fn producers_are_known_whatever_piece_came_first() {
    let is_topic =
        |row: &&(Vec<u8>, Vec<u8>)| matches!(RowKey::decode(&row.0), Ok(RowKey::Topic(_)));
    let is_producer =
        |row: &&(Vec<u8>, Vec<u8>)| matches!(RowKey::decode(&row.0), Ok(RowKey::Producer(..)));
    for topic_first in [true, false] {
        let (dir, id, rows) = behind().await;
        let wanted: Vec<_> = match topic_first {
            true => rows.iter().filter(is_topic).cloned().collect(),
            false => rows.iter().filter(is_producer).cloned().collect(),
        };
        assert_eq!(
            wanted.len(),
            if topic_first {
                1
            } else {
                usize::from(PRODUCERS)
            }
        );
        put(dir.path(), wanted);
        let (store, _) = open(dir.path());
        assert_eq!(values(&store, id, 0).await.len(), 30);
        for round in 0..3 {
            for producer in 1..=PRODUCERS {
                let batch = batch(producer, round * 2, &[&[producer; 50], &[producer; 60]]);
                let again = publish(&store, id, batch).await;
                assert!(again.duplicate, "producer {producer}, round {round}");
            }
        }
        let next = publish(&store, id, batch(1, 6, &[b"next"])).await;
        assert_eq!((next.duplicate, next.base_offset.get()), (false, 30));
        assert!(store.damage().is_empty(), "{:?}", store.damage());
        store.stop().expect("a clean stop");
    }
}

/// An empty directory in place of the journal, such as one whose disk is not mounted, made a new peer of it.
#[tokio::test]
async fn a_catalog_without_its_journal_is_no_new_peer() {
    let (dir, ..) = behind().await;
    let aside = dir.path().join("aside");
    std::fs::rename(dir.path().join("journal"), &aside).expect("moved");
    let refused = Store::open(&options(dir.path()))
        .map(|_| ())
        .expect_err("refused");
    assert!(refused.to_string().contains("mounted"), "{refused}");
    std::fs::remove_dir_all(dir.path().join("journal")).expect("removed");
    std::fs::rename(aside, dir.path().join("journal")).expect("moved back");
    let (store, _) = open(dir.path());
    assert_eq!(store.topic_count(), 1);
    store.stop().expect("a clean stop");
}
