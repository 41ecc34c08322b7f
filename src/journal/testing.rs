//! What the tests of this module share.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::buffer::AlignedBuffer;
use super::checksum::{Salt, Seed, crc32c};
use super::compose::{EntryToWrite, Group, GroupBuilder, GroupStart};
use super::directory::{JournalDir, JournalOptions, SlotHandle};
use super::entry::{EntryKind, payload_crc};
use super::group::Claim;
use super::header::{FIRST_POSITION, Kind, SlotHeader};
use super::place::Place;
use super::slot::PrepareOptions;
use crate::limits::{MIB, SLOT_BYTES_MIN};
use crate::time::Timestamp;
use crate::types::{LeaderEpoch, Offset, PeerId, StateNumber, TopicId};

pub(super) fn seed() -> Seed {
    Seed {
        salt: Salt::from_bytes([9; 16]),
        segment: 7,
    }
}

pub(super) fn topic(n: u8) -> TopicId {
    TopicId::from_bytes([n; 16])
}

pub(super) fn claim(n: u8) -> Claim {
    Claim {
        topic: topic(n),
        durable_end: Offset::new(100 + u64::from(n)),
        state: StateNumber::new(u64::from(n)),
    }
}

/// Bytes that pass for a record batch here: they begin with the checksum of the rest.
pub(super) fn batch(content: &[u8]) -> Vec<u8> {
    [&crc32c(content).to_le_bytes(), content].concat()
}

pub(super) fn records<'a>(
    topic: TopicId,
    base: u64,
    records: u32,
    payload: &'a [&'a [u8]],
) -> EntryToWrite<'a> {
    EntryToWrite {
        kind: EntryKind::Records,
        topic,
        number: base,
        epoch: LeaderEpoch::new(3),
        records,
        append_time: Timestamp::from_millis(1_700_000_000_000),
        payload,
        payload_crc: payload_crc(EntryKind::Records, payload).expect("a batch of `batch`"),
    }
}

pub(super) fn state<'a>(topic: TopicId, number: u64, payload: &'a [&'a [u8]]) -> EntryToWrite<'a> {
    EntryToWrite {
        kind: EntryKind::State,
        records: 0,
        number,
        payload_crc: payload_crc(EntryKind::State, payload).expect("any bytes"),
        ..records_template(topic, payload)
    }
}

fn records_template<'a>(topic: TopicId, payload: &'a [&'a [u8]]) -> EntryToWrite<'a> {
    EntryToWrite {
        kind: EntryKind::Records,
        topic,
        number: 0,
        epoch: LeaderEpoch::new(3),
        records: 1,
        append_time: Timestamp::from_millis(1_700_000_000_000),
        payload,
        payload_crc: 0,
    }
}

/// Where the file systems differ: a directory on a disk, and one in memory if there is one.
pub(super) fn scratch_directories() -> Vec<TempDir> {
    let on_disk = tempfile::tempdir().expect("a scratch directory");
    let in_memory = tempfile::tempdir_in("/dev/shm").ok();
    std::iter::once(on_disk).chain(in_memory).collect()
}

/// A journal in a scratch directory, with slots of the smallest size unless told otherwise.
pub(super) struct Scratch {
    pub directory: JournalDir,
    pub path: PathBuf,
    _keep: TempDir,
}

impl Scratch {
    pub(super) fn new() -> Self {
        Self::with(
            tempfile::tempdir().expect("a scratch directory"),
            SLOT_BYTES_MIN,
        )
    }

    pub(super) fn large() -> Self {
        let keep = tempfile::tempdir().expect("a scratch directory");
        Self::with(keep, 16 * MIB as u64)
    }

    pub(super) fn with(keep: TempDir, slot_bytes: u64) -> Self {
        let path = keep.path().join("journal");
        let options = JournalOptions {
            slot_bytes: Some(u32::try_from(slot_bytes).expect("a small slot")),
            ..JournalOptions::default()
        };
        let (directory, _) = JournalDir::open(&path, &options).expect("a new journal");
        Self {
            directory,
            path,
            _keep: keep,
        }
    }

    pub(super) fn header(&self, slot: u32, segment: u64, kind: Kind) -> SlotHeader {
        SlotHeader {
            sector: self.directory.sector(),
            slot_bytes: self.directory.slot_bytes(),
            slot,
            kind,
            segment,
            salt: Salt::from_bytes([u8::try_from(segment % 251).expect("below 251"); 16]),
            peer: PeerId::from_bytes([1; 16]),
            resume: None,
            snapshot: None,
        }
    }

    pub(super) fn segment(&self, segment: u64, kind: Kind) -> (SlotHandle, SlotHeader) {
        let slot = self.directory.create_slot().expect("a new slot");
        let header = self.header(slot.id(), segment, kind);
        slot.prepare(&header, PrepareOptions { zero_fill: true })
            .expect("a prepared slot");
        (slot, header)
    }

    pub(super) fn file<'a>(&self, slot: &'a SlotHandle) -> &'a Path {
        let path = self.path.join(format!("slot-{:08}", slot.id()));
        assert_eq!(path, slot.path(), "as the page names it");
        slot.path()
    }
}

/// Changes a byte of a file behind everybody's back.
pub(super) fn flip(path: &Path, position: u32, mask: u8) {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .expect("the file");
    let mut byte = [0];
    file.read_exact_at(&mut byte, u64::from(position))
        .expect("a byte");
    file.write_all_at(&[byte[0] ^ mask], u64::from(position))
        .expect("a changed byte");
}

/// Writes groups one after the other into a segment.
pub(super) struct Groups {
    slot: SlotHandle,
    header: SlotHeader,
    pub position: u32,
    pub number: u64,
    pub previous_end: Place,
}

impl Groups {
    pub(super) fn new(slot: &SlotHandle, header: &SlotHeader) -> Self {
        Self {
            slot: SlotHandle::clone(slot),
            header: *header,
            position: FIRST_POSITION,
            number: 1,
            previous_end: Place::NONE,
        }
    }

    pub(super) fn build(&self, claims: &[Claim], entries: &[EntryToWrite<'_>]) -> Group {
        let payloads: usize = entries.iter().map(EntryToWrite::payload_bytes).sum();
        let room = GroupBuilder::empty_bytes(claims.len()) + entries.len() * 56 + payloads;
        let start = GroupStart {
            seed: self.header.seed(),
            sector: self.header.sector,
            position: self.position,
            number: self.number,
            previous_end: self.previous_end,
            synced: self.number - 1,
            wall: Timestamp::from_millis(5),
            clean_stop: false,
            claims,
        };
        let mut builder = GroupBuilder::begin(AlignedBuffer::new(room), &start);
        for entry in entries {
            builder.push(entry);
        }
        builder.finish()
    }

    pub(super) fn write(&mut self, claims: &[Claim], entries: &[EntryToWrite<'_>]) -> Group {
        let group = self.build(claims, entries);
        self.slot
            .write_at(group.disk_bytes(), self.position)
            .expect("a written group");
        self.position = group.end().position;
        self.previous_end = group.end();
        self.number += 1;
        group
    }

    /// A group of one batch.
    pub(super) fn write_batch(&mut self, topic: TopicId, base: u64, content: &[u8]) -> Group {
        let payload = batch(content);
        self.write(&[], &[records(topic, base, 10, &[&payload])])
    }
}
