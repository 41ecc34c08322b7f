//! A segment of the stream of which nothing can be read any more.

use std::fs;
use std::os::unix::fs::FileExt;

use super::*;
use crate::journal::{FIRST_POSITION, Kind, SlotHeader};
use crate::store::offline::list;

/// The slot files of the stream's segments, in the order of the stream.
fn stream_files(dir: &Path) -> Vec<std::path::PathBuf> {
    let listing = list(dir).expect("a list");
    let mut segments: Vec<_> = listing
        .segments
        .iter()
        .filter(|segment| segment.kind == Some(Kind::Stream) && segment.contents_bytes > 0)
        .map(|segment| (segment.segment, segment.slot))
        .collect();
    segments.sort_unstable();
    let file = |(_, slot)| dir.join(format!("journal/slot-{slot:08}"));
    segments.into_iter().map(file).collect()
}

/// A bit flip in the header of a group of a segment's only readable group once left a segment with no
/// contents at all, and the start ended in a panic, again and again.
#[tokio::test]
async fn a_segment_without_a_readable_group_is_damage_and_no_crash() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let (store, _) = open(dir.path());
    let id = create(&store, "a", Durability::Fsync).await;
    let value = vec![7; 100_000];
    for n in 0..60 {
        publish(&store, id, batch(1, n, &[&value])).await;
    }
    store.stop().expect("a clean stop");
    drop(store);
    let files = stream_files(dir.path());
    assert!(files.len() > 4, "{files:?}");
    let file = fs::OpenOptions::new().write(true).open(&files[2]);
    let file = file.expect("a slot");
    let zeros = vec![0; (1 << 20) - FIRST_POSITION as usize];
    file.write_all_at(&zeros, FIRST_POSITION.into())
        .expect("written");
    drop(file);
    fs::remove_dir_all(dir.path().join("catalog")).expect("removed");
    for life in 0..3 {
        // It held facts about the peer too, so the first start has to be told to go on without them.
        let (store, _) = match life {
            0 => crate::store::open::open_accepting(&options(dir.path())).expect("it opens"),
            _ => open(dir.path()),
        };
        let mut at = 0;
        let (mut records, mut missing) = (0, 0);
        while at < 60 {
            let request = Fetch {
                pass_damage: true,
                ..fetch(id, at)
            };
            let fetched = store.fetch(request).await.expect("it can be read");
            for item in &fetched.items {
                match item {
                    FetchItem::Batch(_) => records += 1,
                    FetchItem::Gap(gap) => missing += gap.to.since(gap.from),
                }
            }
            at = fetched.next_offset.get();
        }
        assert_eq!(records + missing, 60, "nothing is passed over in silence");
        assert!((5..15).contains(&missing), "{missing} in that segment");
        store.stop().expect("a clean stop");
    }
}

/// Where damage split more extents than there is room for, the footer is left out rather than put over contents.
#[test]
fn a_footer_is_never_written_over_contents() {
    use crate::journal::{EntryHeader, EntryKind, FooterBuilder, JournalDir, JournalOptions, Salt};
    use crate::store::recovery::{Contents, seal};
    let dir = tempfile::tempdir().expect("a scratch directory");
    let options = JournalOptions {
        slot_bytes: Some(1 << 20),
        page_cache_only: false,
        read_only: false,
    };
    let journal = JournalDir::open(dir.path(), &options).expect("a journal").0;
    let slot = journal.create_slot().expect("a slot");
    let header = SlotHeader {
        sector: journal.sector(),
        slot_bytes: journal.slot_bytes(),
        slot: slot.id(),
        kind: Kind::Stream,
        segment: 1,
        salt: Salt::from_bytes([1; 16]),
        peer: PeerId::from_bytes([2; 16]),
        resume: None,
        snapshot: None,
    };
    let prepare = crate::journal::PrepareOptions { zero_fill: true };
    slot.prepare(&header, prepare).expect("prepared");
    let mut footer = FooterBuilder::default();
    for n in 0..200_u32 {
        let entry = EntryHeader {
            kind: EntryKind::Records,
            payload_bytes: 100,
            payload_crc: 0,
            topic: TopicId::from_bytes([3; 16]),
            number: u64::from(2 * n),
            epoch: LeaderEpoch::new(1),
            records: 1,
            append_time: Timestamp::default(),
        };
        footer.add(&entry, 8192 + 400 * n);
    }
    let end = header.slot_bytes - header.sector;
    assert!(footer.length() > header.sector as usize);
    let contents = Contents {
        footer,
        first_group: 1,
        last_group: 2,
        end,
        damaged: true,
    };
    let file = fs::read(slot.path()).expect("a file");
    let (row, footer) = seal(&slot, &header, contents).expect("sealed");
    assert_eq!(
        (row.end, row.footer_position, row.footer_length),
        (end, 0, 0)
    );
    assert_eq!(footer.topics().count(), 1, "this life has it");
    assert!(
        fs::read(slot.path()).expect("a file") == file,
        "nothing was written"
    );
}
