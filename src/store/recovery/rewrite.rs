//! What recovery writes: the unclaimed tail again, the segment the stream goes
//! on in, and footers for what the walk went through.
//!
//! The order is the argument (J5, J13), each step durable before the next:
//!
//! 1. Headers of the walked segments as they are: this run may look at bytes
//!    that only the page cache has.
//! 2. The tail, copied into slots of kind recovery that nobody names yet.
//! 3. A slot of kind recovery with one group that claims every topic the walk
//!    came upon.
//! 4. The same slot's header again, now of kind stream and with the resume:
//!    from here on the recovery has happened. A crash before leaves slots that
//!    nothing names; the next recovery sees what this one saw.
//! 5. Footers, behind the contents of the walked segments.
//!
//! Only slots that are free by the catalog *and* by the replayed state, and
//! hold no evidence, are written before step 4.

use std::collections::BTreeSet;

use super::layout::Layout;
use super::replay::{Contents, Replay};
use super::walk::{End, KeptEntry, KeptGroup};
use crate::journal::{
    BufferPool, Claim, EntryToWrite, FIRST_POSITION, Footer, GroupBuilder, GroupStart, JournalDir,
    JournalError, Kind, Place, PrepareOptions, Resume, Salt, SegmentEnd, SlotHandle, SlotHeader,
    SnapshotAt, round_up,
};
use crate::limits;
use crate::store::pool::Prepared;
use crate::time::Timestamp;
use crate::topic::{SegmentRow, State};
use crate::types::{Offset, PeerId, TopicId};

/// Where the stream goes on.
pub(crate) struct Continued {
    pub prepared: Prepared,
    /// The group that was written first.
    pub last_group: u64,
    /// Where it ends.
    pub end: Place,
}

/// Takes slots that may be written during a recovery, and numbers that were never given.
pub(crate) struct Slots<'a> {
    pub dir: &'a JournalDir,
    pub peer: PeerId,
    pub free: BTreeSet<u32>,
    pub next_segment: u64,
    pub snapshot: Option<SnapshotAt>,
}

impl Slots<'_> {
    /// Prepares a slot; `goes_on`: the writer will fill it. A slot for copies only is not filled with zeros
    /// first, which is most of the work and serves nobody who waits for a start.
    fn prepare(&mut self, goes_on: bool) -> Result<Prepared, JournalError> {
        let reused = self.free.pop_first();
        let slot = match reused {
            Some(id) => self.dir.slot(id)?,
            None => self.dir.create_slot()?,
        };
        let header = SlotHeader {
            sector: self.dir.sector(),
            slot_bytes: self.dir.slot_bytes(),
            slot: slot.id(),
            kind: Kind::Recovery,
            segment: self.next_segment,
            salt: Salt::random().map_err(JournalError::io("read random bytes for", slot.path()))?,
            peer: self.peer,
            resume: None,
            snapshot: self.snapshot,
        };
        self.next_segment += 1;
        slot.prepare(
            &header,
            PrepareOptions {
                zero_fill: goes_on && reused.is_none(),
            },
        )?;
        Ok(Prepared { slot, header })
    }
}

/// Step 1: headers of stream segments from `first` on are written again as they are, and synced.
pub(crate) fn settle_headers(
    dir: &JournalDir,
    layout: &Layout,
    first: u64,
) -> Result<(), JournalError> {
    for number in layout.stream_from(first) {
        let header = layout.segments[&number];
        let slot = dir.slot(header.slot)?;
        slot.write_header(&header)?;
        slot.sync_data()?;
    }
    dir.sync()
}

/// Steps 2 to 4. The replay takes note of where the copies lie.
pub(crate) fn continue_stream(
    slots: &mut Slots<'_>,
    end: &End,
    replay: &mut Replay,
    buffers: &BufferPool,
) -> Result<Continued, JournalError> {
    let copies = if end.tail.iter().any(|group| group.header.entries > 0) {
        copy_tail(slots, end, replay, buffers)?
    } else {
        Copies {
            segments: None,
            end: end.durable_end,
            last_group: end.durable,
        }
    };
    let mut prepared = slots.prepare(true)?;
    let written = write_claims(&prepared, &copies, replay, buffers)?;
    let resume = Resume {
        void_from: end.durable_end,
        recovery: copies.segments,
        first_group: written.last_group,
    };
    prepared.header.kind = Kind::Stream;
    prepared.header.resume = Some(resume);
    prepared.slot.write_header(&prepared.header)?;
    prepared.slot.sync_data()?;
    Ok(Continued {
        prepared,
        last_group: written.last_group,
        end: written.end,
    })
}

struct Copies {
    segments: Option<(u64, u64)>,
    /// Where the stream ends with them.
    end: Place,
    last_group: u64,
}

fn copy_tail(
    slots: &mut Slots<'_>,
    end: &End,
    replay: &mut Replay,
    buffers: &BufferPool,
) -> Result<Copies, JournalError> {
    let mut into = slots.prepare(false)?;
    let first = into.header.segment;
    let mut copies = Copies {
        segments: None,
        end: end.durable_end,
        last_group: end.durable,
    };
    let mut position = FIRST_POSITION;
    for group in &end.tail {
        let contents = replay.contents.entry(into.header.segment).or_default();
        if !has_room(&into.header, position, contents, group) {
            into.slot.sync_data()?;
            into = slots.prepare(false)?;
            position = FIRST_POSITION;
        }
        let place = Place::new(into.header.segment, position);
        let copy = copy_group(&into, group, place, copies.end, buffers)?;
        into.slot.write_at(copy.disk_bytes(), position)?;
        position = copy.end().position;
        copies.end = copy.end();
        copies.last_group = group.header.number;
        note_copy(replay, group, place, copy.end());
        buffers.give(copy.buffer().clone());
    }
    into.slot.sync_data()?;
    copies.segments = Some((first, into.header.segment));
    Ok(copies)
}

fn has_room(header: &SlotHeader, position: u32, contents: &Contents, group: &KeptGroup) -> bool {
    let footer = contents
        .footer
        .length_after(group.entries.len() + limits::FOOTER_SPARE_EXTENTS)
        .next_multiple_of(header.sector as usize);
    let end =
        position as usize + (group.header.length as usize).next_multiple_of(header.sector as usize);
    end + footer <= header.slot_bytes as usize
}

fn copy_group(
    into: &Prepared,
    group: &KeptGroup,
    place: Place,
    previous_end: Place,
    buffers: &BufferPool,
) -> Result<crate::journal::Group, JournalError> {
    let sector = into.header.sector;
    let buffer = buffers.take((group.header.length as usize).next_multiple_of(sector as usize));
    let start = GroupStart {
        seed: into.seed(),
        sector,
        position: place.position,
        number: group.header.number,
        previous_end,
        synced: group.header.synced,
        wall: group.header.wall,
        // A copy never says that the process stopped cleanly: it did not stop after this recovery.
        clean_stop: false,
        claims: &group.claims,
    };
    let mut builder = GroupBuilder::begin(buffer, &start);
    for entry in &group.entries {
        builder.push(&to_write(entry, &[&entry.payload]));
    }
    Ok(builder.finish())
}

fn to_write<'a>(entry: &KeptEntry, payload: &'a [&'a [u8]]) -> EntryToWrite<'a> {
    EntryToWrite {
        kind: entry.header.kind,
        topic: entry.header.topic,
        number: entry.header.number,
        epoch: entry.header.epoch,
        records: entry.header.records,
        append_time: entry.header.append_time,
        payload,
        payload_crc: entry.header.payload_crc,
    }
}

/// The copied group as if the walk had found it at its new place.
fn note_copy(replay: &mut Replay, group: &KeptGroup, place: Place, end: Place) {
    let mut moved = group.clone();
    let first = place.position + group.header.header_length;
    let mut position = first;
    for entry in &mut moved.entries {
        entry.position = position;
        position += entry.header.entry_bytes();
    }
    moved.place = place;
    moved.end = end;
    replay.group(&moved);
}

/// Step 3: groups that claim every topic the walk came upon, at least one.
fn write_claims(
    prepared: &Prepared,
    copies: &Copies,
    replay: &Replay,
    buffers: &BufferPool,
) -> Result<Continued, JournalError> {
    let claims = claims_of(replay);
    let mut written = Continued {
        prepared: prepared.clone(),
        last_group: copies.last_group,
        end: copies.end,
    };
    let mut position = FIRST_POSITION;
    let chunk = limits::CLAIMS_PER_GROUP_MAX.min(prepared.header.slot_bytes as usize / 256);
    let mut chunks: Vec<&[Claim]> = claims.chunks(chunk).collect();
    if chunks.is_empty() {
        chunks.push(&[]);
    }
    for claims in chunks {
        let sector = prepared.header.sector;
        let bytes = GroupBuilder::empty_bytes(claims.len()).next_multiple_of(sector as usize);
        let start = GroupStart {
            seed: prepared.seed(),
            sector,
            position,
            number: written.last_group + 1,
            previous_end: written.end,
            synced: copies.last_group,
            wall: Timestamp::now(),
            clean_stop: false,
            claims,
        };
        let group = GroupBuilder::begin(buffers.take(bytes), &start).finish();
        prepared.slot.write_at(group.disk_bytes(), position)?;
        position = group.end().position;
        written.last_group = group.number();
        written.end = group.end();
        buffers.give(group.buffer().clone());
    }
    prepared.slot.sync_data()?;
    Ok(written)
}

/// What is durable now of every topic the walk came upon, and never less than what was claimed.
fn claims_of(replay: &Replay) -> Vec<Claim> {
    let mut topics: BTreeSet<TopicId> = replay.touched.clone();
    topics.extend(replay.claims.keys());
    topics.into_iter().map(|id| claim_of(replay, id)).collect()
}

fn claim_of(replay: &Replay, topic: TopicId) -> Claim {
    let claimed = replay.claims.get(&topic);
    let (end, state) = match replay.state.topic(topic) {
        Ok(known) => (known.row.end, known.row.state_number),
        Err(_) if topic.is_zero() => (Offset::ZERO, replay.state.peer().state_number),
        Err(_) => (
            Claim::DELETED_END,
            claimed.map(|claim| claim.state).unwrap_or_default(),
        ),
    };
    let before = claimed.filter(|claim| claim.durable_end != Claim::DELETED_END);
    Claim {
        topic,
        durable_end: before.map_or(end, |claim| claim.durable_end.max(end)),
        state: before.map_or(state, |claim| claim.state.max(state)),
    }
}

/// Step 5: writes and syncs the footer of a segment, and tells its row.
pub(crate) fn seal(
    slot: &SlotHandle,
    header: &SlotHeader,
    contents: Contents,
) -> Result<(SegmentRow, Footer), JournalError> {
    // Of a segment in which no group can be read nothing is known but where its groups would begin.
    let end = contents.end.max(FIRST_POSITION);
    let position = footer_position(header, &contents);
    let groups = if header.kind == Kind::Cold {
        (0, 0)
    } else {
        (contents.first_group, contents.last_group)
    };
    // Damage can split more extents than room was kept for. Contents are never written over: then this life
    // alone has the footer, and to the next one the segment is one without, which a repair looks through.
    let has_room = end <= position;
    let footer = contents.footer.finish(
        &SegmentEnd {
            contents_end: end.min(position),
            groups,
        },
        &header.seed(),
        position,
    );
    if has_room {
        slot.write_padded(footer.as_bytes(), position, header.sector)?;
        slot.sync_data()?;
    }
    let length = u32::try_from(footer.as_bytes().len()).expect("a footer lies in a slot");
    let row = SegmentRow {
        slot: header.slot,
        kind: kind_byte(header.kind),
        salt: header.salt.to_bytes(),
        end,
        footer_position: if has_room { position } else { 0 },
        footer_length: if has_room { length } else { 0 },
        first_group: groups.0,
        last_group: groups.1,
        damaged: contents.damaged,
    };
    Ok((row, footer))
}

/// Behind the contents. Where those may go on beyond what can be read, at the very end of the slot:
/// the room for a footer was kept free there (J14).
fn footer_position(header: &SlotHeader, contents: &Contents) -> u32 {
    if contents.damaged {
        let length = u32::try_from(contents.footer.length()).expect("a footer lies in a slot");
        header.slot_bytes - round_up(length, header.sector)
    } else {
        round_up(contents.end, header.sector)
    }
}

/// The byte that stands for a kind in a segment's row.
pub(crate) fn kind_byte(kind: Kind) -> u8 {
    match kind {
        Kind::Stream => 1,
        Kind::Recovery => 2,
        Kind::Cold => 3,
    }
}

/// The kind a row's byte stands for.
pub(crate) fn kind_of_byte(byte: u8) -> Kind {
    match byte {
        2 => Kind::Recovery,
        3 => Kind::Cold,
        _ => Kind::Stream,
    }
}

/// Where rows may be lost, a segment without one is no free slot, and one whose topics are not known is not
/// dead: both may hold what lives. Each gets a row that calls it damaged, so that it is kept until somebody
/// looked at every entry in it (J14). Voids stay out: what they hold was cut, and its offsets were given again.
pub(crate) fn adopt(layout: &Layout, replay: &mut Replay) {
    for (number, row) in replay.state.segments().clone() {
        let damaged = true;
        replay
            .state
            .put_segment(number, SegmentRow { damaged, ..row });
    }
    for (&number, header) in &layout.segments {
        let known =
            replay.state.segments().contains_key(&number) || replay.contents.contains_key(&number);
        if known || !(header.kind == Kind::Cold || layout.is_stream(number)) {
            continue;
        }
        let row = SegmentRow {
            slot: header.slot,
            kind: kind_byte(header.kind),
            salt: header.salt.to_bytes(),
            end: layout.limit(number).unwrap_or(header.slot_bytes),
            footer_position: 0,
            footer_length: 0,
            first_group: 0,
            last_group: 0,
            damaged: true,
        };
        replay.state.put_segment(number, row);
        replay
            .damage
            .push(format!("segment {number}: what it holds is not known"));
    }
}

/// Slots that a recovery may write to: free before and after the replay, and no evidence of anything.
pub(crate) fn free_slots(
    layout: &Layout,
    before: &BTreeSet<u32>,
    state: &State,
    first_walked: u64,
) -> BTreeSet<u32> {
    let after: BTreeSet<u32> = state.segments().values().map(|row| row.slot).collect();
    let unused = |header: &&SlotHeader| match header.kind {
        Kind::Recovery => !layout.is_named(header.segment),
        Kind::Stream => header.segment < first_walked,
        // A cold segment without a row may be one whose row was cut just now.
        Kind::Cold => false,
    };
    let mut free: BTreeSet<u32> = layout
        .segments
        .values()
        .filter(unused)
        .map(|header| header.slot)
        .collect();
    free.retain(|slot| !before.contains(slot) && !after.contains(slot));
    free
}

/// Files that a kill left behind before they were slots: perhaps without the space that a slot has to own.
pub(crate) fn remove_blank(
    dir: &JournalDir,
    layout: &Layout,
    before: &BTreeSet<u32>,
    state: &State,
) -> Result<(), JournalError> {
    let rows = state.segments().values().map(|row| row.slot);
    let used: BTreeSet<u32> = rows.chain(before.iter().copied()).collect();
    for &slot in layout.blank.difference(&used) {
        dir.remove_slot(slot)?;
    }
    Ok(())
}
