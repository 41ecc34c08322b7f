//! Slot files and their directory.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use super::super::directory::{JournalDir, JournalOptions};
use super::super::error::JournalError;
use super::super::footer::SegmentEnd;
use super::super::gather::FooterBuilder;
use super::super::header::{FIRST_POSITION, HeaderFault, Kind};
use super::super::listing::{FooterFault, Listing, footer_bytes};
use super::super::place::round_up;
use super::super::scan::{Payloads, SegmentReader, Step, Unreadable};
use super::super::slot::{Access, Listed, PrepareOptions, Slot, SlotContext, Via};
use super::super::testing::{Groups, Scratch, batch, flip, records, scratch_directories, topic};
use crate::limits::{MIB, SLOT_BYTES_MIN, SLOTS_OPEN_MAX};
use crate::types::{Offset, TopicId};

fn reopen(scratch: &Scratch) -> (JournalDir, Vec<super::super::directory::ListedSlot>) {
    JournalDir::open(&scratch.path, &JournalOptions::default()).expect("the same journal")
}

#[test]
fn a_prepared_slot_has_its_size_two_headers_and_zeros() {
    for keep in scratch_directories() {
        let scratch = Scratch::with(keep, SLOT_BYTES_MIN);
        let (slot, header) = scratch.segment(1, Kind::Stream);
        assert_eq!(slot.read_header().expect("a file").copies, [Ok(header); 2]);
        let bytes = fs::read(scratch.file(&slot)).expect("the file");
        assert_eq!(bytes.len() as u64, SLOT_BYTES_MIN);
        assert_eq!(bytes[..512], header.encode());
        assert_eq!(bytes[4096..4608], header.encode());
        assert!(bytes[8192..].iter().all(|b| *b == 0));
    }
}

#[test]
fn one_ruined_copy_of_the_header_is_enough_to_lose() {
    let scratch = Scratch::new();
    let (slot, header) = scratch.segment(1, Kind::Stream);
    for position in [0, 4096] {
        flip(scratch.file(&slot), position + 50, 2);
        let copies = slot.read_header().expect("a file");
        assert_eq!(copies.header(), Some(&header));
        assert!(!copies.agree());
        slot.write_header(&header).expect("a written header");
        assert!(slot.read_header().expect("a file").agree());
    }
    for position in [0, 4096] {
        flip(scratch.file(&slot), position + 50, 2);
    }
    let (_, listed) = reopen(&scratch);
    assert_eq!(listed[0].header.header(), None);
    assert_eq!(listed[0].fault(), Some(HeaderFault::Checksum));
    assert!(!listed[0].is_unused(), "it was used and must not be reused");
}

#[test]
fn a_slot_that_was_never_prepared_is_unused() {
    let scratch = Scratch::new();
    scratch.segment(1, Kind::Stream);
    scratch.directory.create_slot().expect("a new slot");
    let sized = scratch.directory.create_slot().expect("a new slot");
    let file = OpenOptions::new().write(true).open(sized.path());
    file.and_then(|f| f.set_len(SLOT_BYTES_MIN))
        .expect("a size");
    let (directory, listed) = reopen(&scratch);
    let unused: Vec<_> = listed.iter().map(|slot| slot.is_unused()).collect();
    assert_eq!(unused, [false, true, true]);
    assert_eq!(listed[1].file_bytes, 0);
    assert!(listed.iter().all(|slot| slot.fault().is_none()));
    assert_eq!(directory.create_slot().expect("the next").id(), 4);
}

#[test]
fn a_renamed_slot_is_told() {
    let scratch = Scratch::new();
    let (slot, _) = scratch.segment(1, Kind::Stream);
    fs::rename(scratch.file(&slot), scratch.path.join("slot-00000009")).expect("a rename");
    let (_, listed) = reopen(&scratch);
    let fault = HeaderFault::OtherSlot {
        expected: 9,
        found: 1,
    };
    assert_eq!((listed[0].id, listed[0].fault()), (9, Some(fault)));
}

#[test]
fn an_existing_journal_keeps_its_sizes() {
    let scratch = Scratch::new();
    scratch.segment(1, Kind::Stream);
    let options = JournalOptions {
        slot_bytes: Some(4 * MIB as u32),
        ..JournalOptions::default()
    };
    let (directory, _) = JournalDir::open(&scratch.path, &options).expect("the same journal");
    assert_eq!(u64::from(directory.slot_bytes()), SLOT_BYTES_MIN);
    assert_eq!(directory.sector(), scratch.directory.sector());
}

#[test]
fn sizes_that_do_not_fit_are_refused() {
    let keep = tempfile::tempdir().expect("a scratch directory");
    for slot_bytes in [0, 4096, 1 << 20 | 512, (1 << 30) + 4096] {
        let options = JournalOptions {
            slot_bytes: Some(slot_bytes),
            ..JournalOptions::default()
        };
        let refused = JournalDir::open(&keep.path().join("journal"), &options);
        assert!(matches!(refused, Err(JournalError::Unsuitable { .. })));
    }
    let scratch = Scratch::new();
    scratch.segment(1, Kind::Stream);
    let mut other = scratch.header(2, 2, Kind::Stream);
    other.slot_bytes *= 2;
    fs::write(scratch.path.join("slot-00000002"), other.encode()).expect("a foreign slot");
    let mixed = JournalDir::open(&scratch.path, &JournalOptions::default());
    let error = mixed.expect_err("two sizes").to_string();
    assert!(error.contains("expected one size"), "{error}");
}

#[test]
fn other_files_are_left_alone() {
    let scratch = Scratch::new();
    for name in [
        "slot-1",
        "slot-0000000x",
        "slot-00000000",
        "probe.txt",
        "slot-000000001",
    ] {
        File::create(scratch.path.join(name)).expect("a file");
    }
    let (directory, listed) = reopen(&scratch);
    assert_eq!(listed, []);
    assert_eq!(directory.create_slot().expect("the first").id(), 1);
    assert!(scratch.path.join("slot-1").exists());
}

#[test]
fn reads_at_any_position_and_up_to_the_end_of_the_file() {
    for keep in scratch_directories() {
        let scratch = Scratch::with(keep, SLOT_BYTES_MIN);
        let (slot, header) = scratch.segment(1, Kind::Stream);
        let pattern: Vec<u8> = (0..10_000_u32).map(|i| (i % 251) as u8).collect();
        slot.write_padded(&pattern, FIRST_POSITION, header.sector)
            .expect("a write");
        slot.sync_data().expect("a sync");
        for via in [Via::Direct, Via::Cached] {
            for (at, length) in [
                (0, 1),
                (1, 600),
                (511, 2),
                (4095, 4098),
                (9_999, 1),
                (77, 0),
            ] {
                let block = slot.read_at(FIRST_POSITION + at, length, via);
                let block = block.expect("a read");
                let expected = &pattern[at as usize..(at + length) as usize];
                assert_eq!(block.as_slice(), expected, "{length} bytes at {at}");
                assert_eq!(block.into_bytes(), expected);
            }
            let last = u32::try_from(SLOT_BYTES_MIN).expect("small") - 10;
            let block = slot.read_at(last, 20, via).expect("a read");
            assert_eq!(block.as_slice(), [0; 10]);
        }
    }
}

#[test]
#[should_panic(expected = "within the slot")]
fn a_slot_never_grows() {
    let scratch = Scratch::new();
    let (slot, _) = scratch.segment(1, Kind::Stream);
    let last = u32::try_from(SLOT_BYTES_MIN).expect("small") - 4096;
    slot.write_padded(&[1; 5000], last, 4096).ok();
}

#[test]
fn footers_are_read_where_they_are_and_nowhere_else() {
    let scratch = Scratch::new();
    let (slot, header) = scratch.segment(1, Kind::Stream);
    let mut groups = Groups::new(&slot, &header);
    let payload = batch(b"records");
    let pieces = [&payload[..]];
    let entry = records(topic(1), 0, 3, &pieces);
    let group = groups.write(&[], &[entry]);
    let mut builder = FooterBuilder::default();
    builder.add(
        &entry.header(),
        FIRST_POSITION + group.header().header_length,
    );
    let end = SegmentEnd {
        contents_end: groups.position,
        groups: (1, 1),
    };
    let footer = builder.finish(&end, &header.seed(), groups.position);
    slot.write_padded(footer.as_bytes(), groups.position, header.sector)
        .expect("a write");
    slot.sync_data().expect("a sync");
    let read = |position| {
        slot.read_footer(&header, position, Via::Cached)
            .expect("a file")
    };
    let found = read(groups.position).expect("the footer");
    assert_eq!(found.as_bytes(), footer.as_bytes());
    for position in [
        FIRST_POSITION,
        groups.position + header.sector,
        header.slot_bytes,
    ] {
        let nothing = read(position).map(|_| ());
        assert!(matches!(
            nothing,
            Err(FooterFault::Magic | FooterFault::Short)
        ));
    }
    flip(scratch.file(&slot), groups.position + 60, 1);
    assert_eq!(
        read(groups.position).map(|_| ()),
        Err(FooterFault::Checksum)
    );
}

#[test]
fn open_slots_are_bounded_and_those_in_use_stay() {
    let scratch = Scratch::new();
    for _ in 0..SLOTS_OPEN_MAX + 20 {
        scratch.directory.create_slot().expect("a new slot");
    }
    let held = scratch.directory.slot(1).expect("it exists");
    for id in 2..=u32::try_from(SLOTS_OPEN_MAX + 20).expect("few") {
        scratch.directory.slot(id).expect("it exists");
    }
    assert!(scratch.directory.open_slots() <= SLOTS_OPEN_MAX);
    let again = scratch.directory.slot(1).expect("it exists");
    assert!(Arc::ptr_eq(&held, &again));
    assert!(scratch.directory.slot(100_000).is_err());
}

#[test]
fn a_removed_slot_is_gone_and_its_id_is_not_given_again() {
    let scratch = Scratch::new();
    let (slot, _) = scratch.segment(1, Kind::Stream);
    scratch.directory.remove_slot(slot.id()).expect("a removal");
    assert!(!scratch.path.join("slot-00000001").exists());
    assert!(scratch.directory.slot(1).is_err());
    assert_eq!(scratch.directory.create_slot().expect("the next").id(), 2);
}

#[test]
fn eight_hundred_headers_are_listed_by_id() {
    let scratch = Scratch::new();
    for id in 1..=800 {
        let header = scratch.header(id, u64::from(id), Kind::Stream).encode();
        let file = File::create(scratch.path.join(format!("slot-{id:08}"))).expect("a file");
        file.set_len(SLOT_BYTES_MIN).expect("a size");
        file.write_all_at(&header, 0).expect("copy a");
        file.write_all_at(&header, 4096).expect("copy b");
    }
    let listed = scratch.directory.list().expect("a listing");
    assert_eq!(listed.len(), 800);
    assert!(listed.iter().all(|slot| slot.header.agree()));
    assert!(listed.windows(2).all(|pair| pair[0].id + 1 == pair[1].id));
}

#[test]
fn reading_alone_writes_nothing() {
    let scratch = Scratch::new();
    let (slot, header) = scratch.segment(1, Kind::Stream);
    let before = fs::metadata(scratch.file(&slot))
        .expect("the file")
        .modified()
        .expect("a time");
    let options = JournalOptions {
        read_only: true,
        ..JournalOptions::default()
    };
    let (directory, listed) = JournalDir::open(&scratch.path, &options).expect("the journal");
    assert_eq!(listed[0].header.header(), Some(&header));
    let slot = directory.slot(1).expect("it exists");
    assert!(slot.prepare(&header, PrepareOptions::default()).is_err());
    let after = fs::metadata(slot.path())
        .expect("the file")
        .modified()
        .expect("a time");
    assert_eq!(before, after);
    let missing = JournalDir::open(&scratch.path.join("nothing"), &options);
    assert!(missing.is_err());
}

#[test]
fn free_space_is_told() {
    let scratch = Scratch::new();
    assert!(scratch.directory.free_bytes().expect("a number") > 0);
}

/// More topics than the first piece holds rows of.
#[test]
fn what_a_long_footer_lists_of_one_topic_is_read_without_the_rest() {
    let scratch = Scratch::with(
        tempfile::tempdir().expect("a directory"),
        8 * SLOT_BYTES_MIN,
    );
    let (slot, header) = scratch.segment(1, Kind::Stream);
    let payload = batch(b"records");
    let pieces = [&payload[..]];
    let (topics, each) = (2_000, 3);
    let two_mib = 2 << 20;
    let mut builder = FooterBuilder::default();
    let mut position = FIRST_POSITION;
    for turn in 0..each {
        for number in 0..topics {
            for base in [turn * 10, turn * 10 + 3] {
                let entry = records(wide_topic(number), base, 3, &pieces).header();
                builder.add(&entry, position);
                position += entry.entry_bytes();
            }
        }
    }
    let end = SegmentEnd {
        contents_end: position + two_mib,
        groups: (1, 1),
    };
    let position = round_up(end.contents_end, header.sector);
    let footer = builder.finish(&end, &header.seed(), position);
    slot.write_padded(footer.as_bytes(), position, header.sector)
        .expect("a write");
    let read = |topic| {
        let listed = slot.read_listing(&header, position, topic, Via::Cached);
        match listed.expect("a file").expect("a footer") {
            Listed::Part(listing) => listing,
            Listed::Whole(_) => panic!("it is long"),
        }
    };
    let extents = |listing: Listing| listing.from(Offset::ZERO).collect::<Vec<_>>();
    for number in [0, 1, 999, 1_818, 1_819, 1_820, topics - 1] {
        let topic = wide_topic(number);
        let listing = read(topic);
        assert!(!listing.is_checked());
        let expected = extents(footer.listing(topic));
        assert_eq!(expected.len() as u64, each);
        assert_eq!(extents(listing), expected, "topic {number}");
    }
    assert_eq!(extents(read(wide_topic(topics))), []);
    // One bit of a length, which would lead to a read of more than an extent of two entries may have.
    let of_first = footer_bytes(topics as usize, 0);
    let last = of_first + (each as usize - 1) * (footer_bytes(0, 1) - footer_bytes(0, 0));
    let high = position + u32::try_from(last).expect("small") + 16 + 2;
    flip(scratch.file(&slot), high, 1 << 5);
    let topic = footer.topics().next().expect("one").topic;
    let listed = slot.read_listing(&header, position, topic, Via::Cached);
    let fault = listed.expect("a file").map(|_| ());
    let what = "extent";
    assert_eq!(fault, Err(FooterFault::Value { what }));
}

fn wide_topic(number: u64) -> TopicId {
    let mut bytes = [7; TopicId::LEN];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    TopicId::from_bytes(bytes)
}

#[test]
fn a_footer_at_a_smaller_sector_than_the_disk_has_goes_through_the_page_cache() {
    let scratch = Scratch::new();
    let (slot, header) = scratch.segment(1, Kind::Stream);
    let context = SlotContext {
        directory: Arc::new(File::open(&scratch.path).expect("the directory")),
        access: Access {
            direct: scratch.directory.is_direct(),
            direct_align: 4096,
            read_only: false,
        },
        slot_bytes: header.slot_bytes,
        watch: Arc::default(),
    };
    let moved = Slot::new(slot.id(), slot.path().to_owned(), context);
    moved
        .write_padded(b"on 4096", FIRST_POSITION, 4096)
        .expect("a write");
    moved
        .write_padded(b"on 512", FIRST_POSITION + 512, 512)
        .expect("a write");
    moved.sync_data().expect("a sync");
    for via in [Via::Direct, Via::Cached] {
        let block = moved.read_at(FIRST_POSITION, 1024, via).expect("a read");
        assert_eq!(block.as_slice()[..7], *b"on 4096");
        assert_eq!(block.as_slice()[512..518], *b"on 512");
    }
}

/// Reading memory that is not mapped fails as a broken disk does.
fn unreadable_slot(scratch: &Scratch) -> Slot {
    let context = SlotContext {
        directory: Arc::new(File::open(&scratch.path).expect("the directory")),
        access: Access {
            direct: false,
            direct_align: 512,
            read_only: true,
        },
        slot_bytes: scratch.directory.slot_bytes(),
        watch: Arc::default(),
    };
    Slot::new(1, "/proc/self/mem".into(), context)
}

#[test]
fn what_the_device_cannot_read_is_told_apart() {
    let scratch = Scratch::new();
    let slot = unreadable_slot(&scratch);
    let copies = slot.read_header().expect("the file opens");
    assert_eq!(copies.copies, [Err(HeaderFault::Device); 2]);
    assert!(!copies.is_blank(), "it must not be taken for a free slot");
    assert!(slot.read_at(FIRST_POSITION, 10, Via::Cached).is_err());
    let header = scratch.header(1, 1, Kind::Stream);
    let mut reader = SegmentReader::new(Arc::new(slot), &header, Payloads::Verify);
    for _ in 0..2 {
        let Ok(Step::Unreadable { position, why }) = reader.step() else {
            panic!("nothing can be read");
        };
        assert_eq!((position, why), (FIRST_POSITION, Unreadable::Device));
    }
    assert_eq!(
        reader.find_after(FIRST_POSITION, 0).expect("a verdict"),
        None
    );
}
