//! From entry to entry, with and without groups between them.

use super::super::cold::ColdWriter;
use super::super::directory::SlotHandle;
use super::super::entries::{EntryScanner, Passed};
use super::super::header::{FIRST_POSITION, Kind, SlotHeader};
use super::super::testing::{Groups, Scratch, batch, flip, records, topic};

/// The entries found: base offset and whether the payload is whole.
fn found(slot: &SlotHandle, header: &SlotHeader, end: u32) -> Vec<(u64, bool)> {
    let slot = SlotHandle::clone(slot);
    let mut scanner = EntryScanner::new(slot, header, FIRST_POSITION..end);
    let mut found = Vec::new();
    let mut at = FIRST_POSITION;
    while let Some(passed) = scanner.step().expect("a readable file") {
        let (start, next) = match &passed {
            Passed::Entry(entry) => {
                found.push((entry.header.number, entry.payload_ok));
                (entry.position, entry.position + entry.header.entry_bytes())
            }
            Passed::NoEntry(range) => (range.start, range.end),
        };
        assert_eq!(start, at, "every byte is passed once");
        at = next;
    }
    assert_eq!(at, end.max(FIRST_POSITION));
    found
}

fn three_groups(scratch: &Scratch) -> (SlotHandle, SlotHeader, Vec<u32>) {
    let (slot, header) = scratch.segment(7, Kind::Stream);
    let mut groups = Groups::new(&slot, &header);
    let mut starts = Vec::new();
    for n in 0..3 {
        starts.push(groups.position);
        let payload = batch(&vec![n as u8; 70_000]);
        let more = batch(b"more");
        let (payload, more) = ([&payload[..]], [&more[..]]);
        let entries = [
            records(topic(1), n * 20, 10, &payload),
            records(topic(1), n * 20 + 10, 10, &more),
        ];
        groups.write(&[], &entries);
    }
    starts.push(groups.position);
    (slot, header, starts)
}

#[test]
fn entries_are_found_in_whatever_state_their_groups_are() {
    let scratch = Scratch::new();
    let (slot, header, starts) = three_groups(&scratch);
    let all: Vec<(u64, bool)> = (0..6).map(|n| (n * 10, true)).collect();
    assert_eq!(found(&slot, &header, starts[3]), all);
    assert_eq!(found(&slot, &header, FIRST_POSITION), []);
    assert_eq!(found(&slot, &header, starts[1]), all[..2]);
    // The header of the second group, then of its first entry, then that one's payload.
    flip(slot.path(), starts[1] + 20, 1);
    assert_eq!(found(&slot, &header, starts[3]), all);
    flip(slot.path(), starts[1] + 72 + 20, 1);
    assert_eq!(
        found(&slot, &header, starts[3]),
        [&all[..2], &all[3..]].concat()
    );
    flip(slot.path(), starts[2] + 72 + 56 + 9, 1);
    let mut hurt = [&all[..2], &all[3..]].concat();
    hurt[3].1 = false;
    assert_eq!(found(&slot, &header, starts[3]), hurt);
}

#[test]
fn a_cold_segment_is_passed_from_end_to_end() {
    let scratch = Scratch::new();
    let (slot, header) = scratch.segment(9, Kind::Cold);
    let mut writer = ColdWriter::new(SlotHandle::clone(&slot), &header);
    let mut positions = Vec::new();
    for n in 0..40 {
        let payload = batch(&vec![n as u8; 9_000]);
        let payload = [&payload[..]];
        let entry = records(topic(2), n * 3, 3, &payload);
        positions.push(writer.push(&entry).expect("written"));
    }
    let footer = writer.finish().expect("finished").footer;
    let end = footer.segment_end().contents_end;
    let all: Vec<(u64, bool)> = (0..40).map(|n| (n * 3, true)).collect();
    assert_eq!(found(&slot, &header, end), all);
    flip(slot.path(), positions[17], 4);
    assert_eq!(
        found(&slot, &header, end),
        [&all[..17], &all[18..]].concat()
    );
    let other_life = SlotHeader {
        segment: 10,
        ..header
    };
    assert_eq!(
        found(&slot, &other_life, end),
        [],
        "nothing of another life passes"
    );
}
