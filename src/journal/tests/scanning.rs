//! What the walker says about segments to which things happened.

use std::fs::OpenOptions;

use super::super::compose::Group;
use super::super::directory::SlotHandle;
use super::super::group::{Claim, GroupFault};
use super::super::header::{FIRST_POSITION, Kind, SlotHeader};
use super::super::place::Place;
use super::super::scan::{Payloads, SegmentReader, Step, Unreadable};
use super::super::slot::PrepareOptions;
use super::super::testing::{
    Groups, Scratch, batch, claim, flip, records, scratch_directories, state, topic,
};
use crate::limits::{MIB, SCAN_BYTES, SLOT_BYTES_MIN};

/// What a walk says, in short.
#[derive(Debug, PartialEq, Eq)]
enum Said {
    Whole(u64),
    /// A group with so many readable entries, bad payloads and broken stretches.
    Hurt(u64, usize, usize, usize),
    Unreadable(u32, Unreadable),
    End,
}

fn say(step: &Step<'_>) -> Said {
    match step {
        Step::Group(group) if group.is_whole() => Said::Whole(group.header.number),
        Step::Group(group) => {
            let bad = group.entries.iter().filter(|e| !e.payload_ok).count();
            Said::Hurt(
                group.header.number,
                group.entries.len(),
                bad,
                group.broken.len(),
            )
        }
        Step::Unreadable { position, why } => Said::Unreadable(*position, *why),
        Step::EndOfSlot => Said::End,
    }
}

/// Walks until there is no next group.
fn walk(reader: &mut SegmentReader) -> Vec<Said> {
    let mut said = Vec::new();
    loop {
        said.push(say(&reader.step().expect("a readable file")));
        if !matches!(said.last(), Some(Said::Whole(_) | Said::Hurt(..))) {
            return said;
        }
    }
}

fn walk_segment(slot: &SlotHandle, header: &SlotHeader) -> Vec<Said> {
    walk(&mut SegmentReader::new(
        SlotHandle::clone(slot),
        header,
        Payloads::Verify,
    ))
}

fn nothing_at(position: u32) -> Said {
    Said::Unreadable(position, GroupFault::Magic.into())
}

#[test]
fn walks_to_the_end_of_what_was_written() {
    for keep in scratch_directories() {
        let scratch = Scratch::with(keep, SLOT_BYTES_MIN);
        let (slot, header) = scratch.segment(1, Kind::Stream);
        let mut groups = Groups::new(&slot, &header);
        let payload = batch(&[7; 5000]);
        for i in 0..5 {
            let base = i * 10;
            let pieces = [&payload[..]];
            let entries = [
                records(topic(1), base, 10, &pieces),
                state(topic(2), i + 1, &[b"operations"]),
            ];
            groups.write(&[claim(1)], &entries);
        }
        slot.sync_data().expect("a sync");
        let mut said = walk_segment(&slot, &header);
        assert_eq!(said.pop(), Some(nothing_at(groups.position)));
        assert_eq!(said, (1..=5).map(Said::Whole).collect::<Vec<_>>());
    }
}

#[test]
fn shows_entries_as_they_were_written() {
    let scratch = Scratch::new();
    let (slot, header) = scratch.segment(1, Kind::Stream);
    let payload = batch(b"a batch");
    let pieces = [&payload[..]];
    let entries = [
        records(topic(1), 40, 10, &pieces),
        state(topic(0), 1, &[b"operations"]),
    ];
    let written = Groups::new(&slot, &header).write(&[claim(3)], &entries);
    let mut reader = SegmentReader::new(slot, &header, Payloads::Verify);
    let Ok(Step::Group(group)) = reader.step() else {
        panic!("the group was written");
    };
    assert_eq!((group.place, group.end), (written.place(), written.end()));
    assert_eq!(group.claims, [claim(3)]);
    let headers: Vec<_> = group.entries.iter().map(|e| e.header).collect();
    assert_eq!(headers, entries.map(|e| e.header()));
    assert_eq!(group.entries[0].payload, payload);
    assert_eq!(group.entries[1].payload, b"operations");
    assert!(!group.device_failed);
}

#[test]
fn a_full_slot_ends() {
    let scratch = Scratch::new();
    let (slot, header) = scratch.segment(1, Kind::Stream);
    let mut groups = Groups::new(&slot, &header);
    let room = SLOT_BYTES_MIN as usize - FIRST_POSITION as usize - 72 - 56 - 4;
    groups.write_batch(topic(1), 0, &vec![1; room]);
    assert_eq!(walk_segment(&slot, &header), [Said::Whole(1), Said::End]);
}

#[test]
fn groups_larger_than_the_window_pass() {
    let scratch = Scratch::large();
    let (slot, header) = scratch.segment(1, Kind::Stream);
    let mut groups = Groups::new(&slot, &header);
    for (i, bytes) in [100, SCAN_BYTES + MIB, 200, SCAN_BYTES, 300]
        .into_iter()
        .enumerate()
    {
        groups.write_batch(topic(1), i as u64 * 10, &vec![3; bytes]);
    }
    let mut said = walk_segment(&slot, &header);
    assert_eq!(said.pop(), Some(nothing_at(groups.position)));
    assert_eq!(said, (1..=5).map(Said::Whole).collect::<Vec<_>>());
}

/// One group with a claim and two entries, written between two others.
fn three_groups(scratch: &Scratch) -> (SlotHandle, SlotHeader, [Group; 3]) {
    let (slot, header) = scratch.segment(1, Kind::Stream);
    let mut groups = Groups::new(&slot, &header);
    let payload = batch(b"seven");
    let pieces = [&payload[..]];
    let first = groups.write_batch(topic(1), 0, b"before");
    let entries = [
        records(topic(1), 10, 10, &pieces),
        state(topic(2), 1, &[b"operation"]),
    ];
    let second = groups.write(&[claim(1)], &entries);
    let third = groups.write_batch(topic(1), 20, b"after");
    slot.sync_data().expect("a sync");
    (slot, header, [first, second, third])
}

/// What has to be said if the bit in the middle group changed that lies `at` bytes into it.
fn verdict_on(at: u32, group: &Group) -> Vec<Said> {
    let after = Said::Whole(3);
    let (claims, entry) = (72 + 32, 56);
    let first_payload = claims + entry..claims + entry + 9;
    let second_header = first_payload.end..first_payload.end + entry;
    let position = group.place().position;
    let middle = match at {
        0..4 => return vec![Said::Unreadable(position, GroupFault::Magic.into())],
        4..104 => return vec![Said::Unreadable(position, GroupFault::Checksum.into())],
        _ if at >= group.header().length => Said::Whole(2),
        _ if first_payload.contains(&at) => Said::Hurt(2, 2, 1, 0),
        _ if at < first_payload.start || second_header.contains(&at) => Said::Hurt(2, 1, 0, 1),
        _ => Said::Hurt(2, 2, 1, 0),
    };
    vec![middle, after]
}

#[test]
fn every_changed_bit_on_the_disk_gets_the_right_verdict() {
    let scratch = Scratch::new();
    let (slot, header, [_, group, last]) = three_groups(&scratch);
    let mut reader = SegmentReader::new(SlotHandle::clone(&slot), &header, Payloads::Verify);
    for at in 0..group.header().length + 3 {
        for bit in [0, 3, 7] {
            let position = group.place().position + at;
            flip(scratch.file(&slot), position, 1 << bit);
            reader.switch(SlotHandle::clone(&slot), &header);
            let mut expected = vec![Said::Whole(1)];
            expected.extend(verdict_on(at, &group));
            if expected.last() == Some(&Said::Whole(3)) {
                expected.push(nothing_at(last.end().position));
            }
            assert_eq!(walk(&mut reader), expected, "bit {bit} of byte {at}");
            flip(scratch.file(&slot), position, 1 << bit);
        }
    }
}

#[test]
fn trusting_payloads_does_not_trust_headers() {
    let scratch = Scratch::new();
    let (slot, header, [_, group, _]) = three_groups(&scratch);
    let payload = group.place().position + 72 + 32 + 56;
    flip(scratch.file(&slot), payload, 1);
    let mut reader = SegmentReader::new(SlotHandle::clone(&slot), &header, Payloads::Trust);
    assert_eq!(walk(&mut reader)[..3], [1, 2, 3].map(Said::Whole));
    flip(scratch.file(&slot), payload - 1, 1);
    reader.switch(slot, &header);
    assert_eq!(walk(&mut reader)[1], Said::Hurt(2, 1, 0, 1));
}

#[test]
fn goes_on_behind_a_torn_middle() {
    let scratch = Scratch::new();
    let (slot, header) = scratch.segment(1, Kind::Stream);
    let mut groups = Groups::new(&slot, &header);
    let written: Vec<_> = (0..6)
        .map(|i| groups.write_batch(topic(1), i * 10, &[5; 3000]))
        .collect();
    slot.sync_data().expect("a sync");
    for lost in [2, 3] {
        flip(scratch.file(&slot), written[lost].place().position + 40, 4);
    }
    let mut reader = SegmentReader::new(slot, &header, Payloads::Verify);
    let said = walk(&mut reader);
    let torn_at = written[2].place().position;
    let torn = Said::Unreadable(torn_at, GroupFault::Checksum.into());
    assert_eq!(said, [Said::Whole(1), Said::Whole(2), torn]);
    assert_eq!(reader.place().position, torn_at, "the reader stays");

    let found = reader
        .find_after(torn_at + header.sector, 2)
        .expect("a readable file");
    let found = found.expect("group 5 is whole");
    assert_eq!((found.place, found.header.number), (written[4].place(), 5));
    reader.seek(found.place.position, Some(5));
    assert_eq!(walk(&mut reader)[..2], [Said::Whole(5), Said::Whole(6)]);
    let none = reader.find_after(written[5].end().position, 2);
    assert_eq!(none.expect("a readable file"), None);
}

#[test]
fn an_earlier_life_of_the_slot_is_never_seen() {
    for keep in scratch_directories() {
        let scratch = Scratch::with(keep, SLOT_BYTES_MIN);
        let (slot, first_life) = scratch.segment(1, Kind::Stream);
        let mut groups = Groups::new(&slot, &first_life);
        for i in 0..8 {
            groups.write_batch(topic(1), i * 10, &[5; 600]);
        }
        let second_life = scratch.header(slot.id(), 2, Kind::Stream);
        slot.prepare(&second_life, PrepareOptions::default())
            .expect("a reused slot");
        assert_eq!(
            walk_segment(&slot, &second_life),
            [Said::Unreadable(
                FIRST_POSITION,
                GroupFault::Checksum.into()
            )]
        );
        let mut groups = Groups::new(&slot, &second_life);
        groups.write_batch(topic(1), 0, &[6; 600]);
        let stale = Said::Unreadable(groups.position, GroupFault::Checksum.into());
        assert_eq!(walk_segment(&slot, &second_life), [Said::Whole(1), stale]);
        let mut reader = SegmentReader::new(slot, &second_life, Payloads::Verify);
        let none = reader.find_after(groups.position, 0);
        assert_eq!(none.expect("a readable file"), None);
    }
}

#[test]
fn a_payload_that_looks_like_a_group_is_never_taken_for_one() {
    let scratch = Scratch::new();
    let (slot, header) = scratch.segment(1, Kind::Stream);
    let mut groups = Groups::new(&slot, &header);
    let real = groups.write(&[claim(1)], &[state(topic(1), 1, &[b"operations"])]);

    // A real group of this very segment, as it lies on the disk, with a higher number, and one
    // made for the right place with everything but the salt: each at a sector boundary.
    let sector = header.sector as usize;
    let guess = SlotHeader {
        salt: super::super::checksum::Salt::from_bytes([0; 16]),
        ..header
    };
    let mut forger = Groups::new(&slot, &guess);
    forger.number = 50;
    forger.previous_end = real.end();
    let inner = (groups.position as usize + 72 + 56 + 4).next_multiple_of(sector);
    let before_inner = inner - (groups.position as usize + 72 + 56 + 4);
    forger.position = u32::try_from(inner + sector).expect("small");
    let forged = forger.build(&[claim(1)], &[state(topic(1), 2, &[b"forged"])]);
    let mut content = vec![0; before_inner];
    content.extend(real.disk_bytes());
    content.resize(before_inner + sector, 0);
    content.extend(forged.disk_bytes());
    let outer = groups.write_batch(topic(1), 0, &content);

    // The outer group is destroyed, so the search has to look at every sector of it.
    flip(scratch.file(&slot), outer.place().position + 16, 1);
    let on_disk = slot
        .read_at(
            u32::try_from(inner).expect("small"),
            4,
            super::super::slot::Via::Direct,
        )
        .expect("a read");
    assert_eq!(on_disk.as_slice(), b"TGRP", "the forgery lies at a sector");
    let mut reader = SegmentReader::new(slot, &header, Payloads::Verify);
    let none = reader.find_after(outer.place().position, 0);
    assert_eq!(none.expect("a readable file"), None);
}

#[test]
fn the_wrong_group_is_not_the_next() {
    let scratch = Scratch::new();
    let (slot, header, [first, second, _]) = three_groups(&scratch);
    let mut reader = SegmentReader::new(SlotHandle::clone(&slot), &header, Payloads::Verify);
    reader.seek(FIRST_POSITION, Some(5));
    let number = Unreadable::Number {
        expected: 5,
        found: 1,
    };
    assert_eq!(
        walk(&mut reader),
        [Said::Unreadable(FIRST_POSITION, number)]
    );

    let mut elsewhere = Groups::new(&slot, &header);
    elsewhere.position = second.place().position;
    elsewhere.number = 2;
    elsewhere.previous_end = Place::new(1, 123 * 512);
    elsewhere.write_batch(topic(1), 10, b"another history");
    let previous = Unreadable::PreviousEnd {
        expected: first.end(),
        found: elsewhere_end(),
    };
    let said = walk_segment(&slot, &header);
    let expected = Said::Unreadable(second.place().position, previous);
    assert_eq!(said, [Said::Whole(1), expected]);
}

fn elsewhere_end() -> Place {
    Place::new(1, 123 * 512)
}

#[test]
fn a_cut_file_is_told_apart_from_changed_bytes() {
    let scratch = Scratch::new();
    let (slot, header, [first, second, third]) = three_groups(&scratch);
    let cut = |position: u32| {
        let file = OpenOptions::new().write(true).open(scratch.file(&slot));
        let file = file.expect("the file");
        file.set_len(u64::from(position)).expect("a cut");
    };
    cut(third.place().position);
    let gone = Said::Unreadable(third.place().position, Unreadable::BeyondFile);
    let said = walk_segment(&slot, &header);
    assert_eq!(said, [Said::Whole(1), Said::Whole(2), gone]);

    cut(second.place().position + second.header().length - 4);
    let said = walk_segment(&slot, &header);
    assert_eq!(said[..2], [Said::Whole(1), Said::Hurt(2, 2, 1, 0)]);

    cut(first.place().position + 20);
    let gone = Said::Unreadable(first.place().position, Unreadable::BeyondFile);
    assert_eq!(walk_segment(&slot, &header), [gone]);
}

#[test]
fn claims_and_entries_may_be_many() {
    let scratch = Scratch::large();
    let (slot, header) = scratch.segment(1, Kind::Stream);
    let claims: Vec<Claim> = (0..100_000).map(|i| claim((i % 200) as u8)).collect();
    let payloads: Vec<_> = (0..20_000_u32).map(|i| batch(&i.to_le_bytes())).collect();
    let pieces: Vec<_> = payloads.iter().map(|p| [&p[..]]).collect();
    let entries: Vec<_> = (0_u64..)
        .zip(&pieces)
        .map(|(i, payload)| records(topic(1), i, 1, payload))
        .collect();
    let mut groups = Groups::new(&slot, &header);
    groups.write(&claims, &entries);
    let mut reader = SegmentReader::new(slot, &header, Payloads::Verify);
    let Ok(Step::Group(group)) = reader.step() else {
        panic!("the group was written");
    };
    assert_eq!((group.claims, group.entries.len()), (claims, 20_000));
    assert!(group.broken.is_empty());
}
