//! Recovery: from what lies on the disk to a state that can go on.
//!
//! `docs/storage-format.md`, section 8, is the argument; this is the order of
//! the steps. [`layout`] reads headers, [`walk`] follows the stream, [`replay`]
//! builds the state, [`rewrite`] makes what was found durable and commits it.
//! Every start does the same, after a clean stop too: there is one path.

mod layout;
mod replay;
mod rewrite;
mod walk;

use std::collections::{BTreeSet, HashMap};

use thiserror::Error;

pub(crate) use layout::Layout;
pub(crate) use replay::{Contents, Replay};
pub(crate) use rewrite::seal;
pub(crate) use walk::{End, Found, KeptGroup, Walk};

use crate::catalog::Applied;
use crate::journal::{BufferPool, Footer, JournalDir, JournalError, Place, SlotHeader, SnapshotAt};
use crate::store::pool::Prepared;
use crate::topic::{SnapshotRow, State};
use crate::types::PeerId;

/// Why a store cannot be opened.
#[derive(Debug, Error)]
pub enum RecoveryError {
    /// The disk does not do what it should.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// A slot of another peer lies in the directory.
    #[error(
        "slot {slot} belongs to peer {found}, this directory to {expected}: were directories mixed?"
    )]
    OtherPeer {
        /// The slot.
        slot: u32,
        /// Whose it is.
        found: PeerId,
        /// Whose it should be.
        expected: PeerId,
    },
    /// The catalog names a position that the journal does not have.
    #[error("the catalog stands at segment {segment}, which the journal does not have")]
    StaleCatalog {
        /// The segment.
        segment: u64,
    },
    /// The catalog cannot be built again: the journal does not reach back far enough.
    #[error(
        "the catalog is lost and the journal neither begins at the beginning nor knows a state snapshot: \
         restore the directory from a copy"
    )]
    NoHistory,
    /// Facts about the peer as a whole are lost.
    #[error("{}; 'tidings data repair' goes on without them and says what is lost", .0.join("; "))]
    MissingFacts(Vec<String>),
}

/// What recovery begins with.
pub(crate) struct Base {
    /// The catalog's rows, or an empty state.
    pub state: State,
    /// The catalog's position; `None` to build the state from the journal alone.
    pub applied: Option<Applied>,
    /// Go on although facts about the peer are missing.
    pub accept_missing_facts: bool,
}

/// A sealed segment that readers may look into.
pub(crate) struct SealedSegment {
    pub number: u64,
    pub header: SlotHeader,
}

/// What recovery ends with: the state, and where the stream goes on.
pub(crate) struct Recovered {
    pub state: State,
    pub prepared: Prepared,
    pub last_group: u64,
    pub end: Place,
    /// Footers of the segments that were sealed just now.
    pub footers: Vec<(u64, Footer)>,
    pub sealed: Vec<SealedSegment>,
    pub free: BTreeSet<u32>,
    pub next_segment: u64,
    pub snapshot: Option<SnapshotAt>,
    /// The process before this one stopped cleanly.
    pub clean_stop: bool,
    pub damage: Vec<String>,
    /// Why a torn tail was cut, if one was.
    pub torn: Option<String>,
    /// Groups that were walked over, for the log.
    pub groups: u64,
    /// The state was built from a state snapshot.
    pub from_snapshot: bool,
}

/// Walks and replays; writes nothing.
pub(crate) fn inspect(
    dir: &JournalDir,
    layout: &Layout,
    base: Base,
) -> Result<(Replay, End, u64), RecoveryError> {
    let Some((first, durable, applied)) = starting_point(layout, &base)? else {
        let end = End {
            durable: 0,
            durable_end: Place::NONE,
            tail: Vec::new(),
            cut_claims: Vec::new(),
            torn: None,
            clean_stop: true,
        };
        return Ok((Replay::new(base.state, 0), end, 1));
    };
    let mut replay = Replay::new(base.state, applied);
    if base.applied.is_none()
        && let Some(snapshot) = layout.snapshot().filter(|at| at.group == applied + 1)
    {
        replay.begin_at_snapshot(snapshot);
    }
    let end = Walk::new(dir, layout, first, durable)?.run(&mut |found| match found {
        Found::Claimed(group) => replay.group(&group),
        Found::Missing {
            first,
            next,
            place,
            segments,
        } => replay.missing(first, next, place, &segments),
    })?;
    for group in &end.tail {
        replay.claims(group.header.synced, &group.claims);
    }
    for cut in &end.cut_claims {
        replay.claims(cut.synced, &cut.claims);
    }
    Ok((replay, end, first))
}

/// The segment the walk begins in, the last group known to be durable, and the last group the state has.
fn starting_point(layout: &Layout, base: &Base) -> Result<Option<(u64, u64, u64)>, RecoveryError> {
    if let Some(applied) = base.applied {
        // What lies before the latest snapshot may be gone, even where some of it is still there.
        let before_snapshot = layout.snapshot().is_some_and(|at| applied.group < at.group);
        if !layout.is_stream(applied.segment) || before_snapshot {
            return Err(RecoveryError::StaleCatalog {
                segment: applied.segment,
            });
        }
        return Ok(Some((applied.segment, applied.group, applied.group)));
    }
    if layout.is_fresh() {
        return Ok(None);
    }
    if let Some(snapshot) = layout
        .snapshot()
        .filter(|snapshot| layout.is_stream(snapshot.place.segment))
    {
        return Ok(Some((
            snapshot.place.segment,
            snapshot.group,
            snapshot.group - 1,
        )));
    }
    match layout.resume_at(Place::NONE) {
        Some(first) => Ok(Some((first, 0, 0))),
        None => Err(RecoveryError::NoHistory),
    }
}

/// The whole recovery. On return everything the state says is durable in the journal.
pub(crate) fn recover(
    dir: &JournalDir,
    layout: &Layout,
    base: Base,
    buffers: &BufferPool,
) -> Result<Recovered, RecoveryError> {
    let peer = base.state.peer().id;
    layout.check_owner(peer)?;
    let before: BTreeSet<u32> = base.state.segments().values().map(|row| row.slot).collect();
    let accept = base.accept_missing_facts;
    let known = base.state.peer().snapshot.as_ref().map(at_of_row);
    let snapshot = newest(layout.snapshot(), known);
    let (mut replay, end, first) = inspect(dir, layout, base)?;
    let first_of_stream = replay.contents.keys().next().copied().unwrap_or(first);
    let groups = replay
        .contents
        .values()
        .map(|contents| contents.last_group + 1 - contents.first_group)
        .sum();

    let missing = replay.missing_facts();
    if !missing.is_empty() && !accept {
        return Err(RecoveryError::MissingFacts(missing));
    }
    if !missing.is_empty() {
        rewrite::adopt(layout, &mut replay);
    }
    replay.accept_missing_facts(missing);

    rewrite::remove_blank(dir, layout, &before, &replay.state)?;
    rewrite::settle_headers(dir, layout, first_of_stream)?;
    let mut slots = rewrite::Slots {
        dir,
        peer,
        free: rewrite::free_slots(layout, &before, &replay.state, first_of_stream),
        next_segment: next_segment(layout, &replay.state),
        snapshot,
    };
    let continued = rewrite::continue_stream(&mut slots, &end, &mut replay, buffers)?;
    let next_segment = slots.next_segment;

    replay.judge();
    replay.keep_what_is_lost();
    let footers = seal_walked(dir, layout, &mut replay)?;
    let sealed = sealed_segments(dir, layout, &mut replay);
    let free = free_after(layout, &replay.state, &continued.prepared);
    Ok(Recovered {
        free,
        sealed,
        footers,
        next_segment,
        // One that was walked over just now may have been cut in the middle.
        snapshot: newest(
            snapshot,
            replay.state.peer().snapshot.as_ref().map(at_of_row),
        ),
        clean_stop: end.clean_stop,
        torn: end.torn,
        groups,
        from_snapshot: replay.is_from_snapshot(),
        damage: replay.damage,
        state: replay.state,
        prepared: continued.prepared,
        last_group: continued.last_group,
        end: continued.end,
    })
}

fn newest(a: Option<SnapshotAt>, b: Option<SnapshotAt>) -> Option<SnapshotAt> {
    a.into_iter().chain(b).max_by_key(|at| at.group)
}

fn next_segment(layout: &Layout, state: &State) -> u64 {
    let rows = state.segments().keys().next_back().copied().unwrap_or(0);
    layout.last_segment().max(rows) + 1
}

/// Gives every walked segment a footer and a row, also those that had one: it may have been in the page cache only.
fn seal_walked(
    dir: &JournalDir,
    layout: &Layout,
    replay: &mut Replay,
) -> Result<Vec<(u64, Footer)>, RecoveryError> {
    let mut footers = Vec::new();
    for (number, contents) in std::mem::take(&mut replay.contents) {
        // Copies made just now lie in slots whose headers the layout has not seen.
        let header = match layout.segments.get(&number) {
            Some(header) => *header,
            None => find_header(dir, number)?,
        };
        let (row, footer) = seal(&dir.slot(header.slot)?, &header, contents)?;
        replay.state.put_segment(number, row);
        footers.push((number, footer));
    }
    Ok(footers)
}

fn find_header(dir: &JournalDir, number: u64) -> Result<SlotHeader, JournalError> {
    let slots = dir.list()?;
    let header = slots
        .iter()
        .filter_map(|slot| slot.header.header())
        .find(|header| header.segment == number);
    Ok(*header
        .expect("a slot prepared by this recovery has the header that was written and synced"))
}

/// The segments with a row, with the header to read them by. A row whose slot holds something else is damage.
fn sealed_segments(dir: &JournalDir, layout: &Layout, replay: &mut Replay) -> Vec<SealedSegment> {
    let mut sealed = Vec::new();
    let mut lost = Vec::new();
    let in_slots: HashMap<u32, u64> = layout
        .segments
        .values()
        .map(|header| (header.slot, header.segment))
        .collect();
    for (&number, row) in replay.state.segments() {
        match in_slots.get(&row.slot) {
            Some(&held) if held > number => lost.push((number, row.slot)),
            _ => sealed.push(SealedSegment {
                number,
                header: header_of_row(dir, replay.state.peer().id, number, row),
            }),
        }
    }
    for (number, slot) in lost {
        replay.damage.push(format!(
            "segment {number}: its slot {slot} holds something else"
        ));
    }
    sealed
}

/// The header as the row remembers it: both copies on the disk may have been lost to damage.
pub(crate) fn header_of_row(
    dir: &JournalDir,
    peer: PeerId,
    number: u64,
    row: &crate::topic::SegmentRow,
) -> SlotHeader {
    SlotHeader {
        sector: dir.sector(),
        slot_bytes: dir.slot_bytes(),
        slot: row.slot,
        kind: rewrite::kind_of_byte(row.kind),
        segment: number,
        salt: crate::journal::Salt::from_bytes(row.salt),
        peer,
        resume: None,
        snapshot: None,
    }
}

fn free_after(layout: &Layout, state: &State, prepared: &Prepared) -> BTreeSet<u32> {
    let used: BTreeSet<u32> = state.segments().values().map(|row| row.slot).collect();
    let all = layout.segments.values().map(|header| header.slot);
    all.filter(|slot| !used.contains(slot) && *slot != prepared.header.slot)
        .collect()
}

/// Where a row says a snapshot begins.
fn at_of_row(row: &SnapshotRow) -> SnapshotAt {
    SnapshotAt {
        place: Place::new(row.segment, row.position),
        group: row.group,
    }
}

/// What the row about a snapshot says.
pub(crate) fn row_of_at(at: &SnapshotAt) -> SnapshotRow {
    SnapshotRow {
        segment: at.place.segment,
        position: at.place.position,
        group: at.group,
    }
}
