//! The writer: the one thread that gives offsets and writes the journal.
//!
//! It takes all that waits, decides, gathers entries into a group, writes the
//! group with one call and hands it to the sync thread; then it takes what
//! came meanwhile. The disk sets the pace, so there is no timer and nothing is
//! held back when the disk is idle.
//!
//! ```text
//!   commands -> [ decide | stage | place ] -> write -> sync thread -> answers
//!                    ^ State                    |
//!                    `-- claims of synced groups-'
//! ```

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

use super::applier::{ApplierStatus, Delta};
use super::command::{Command, Done, SnapshotWritten};
use super::keeper::{KeeperJob, SealJob};
use super::pool::{Prepared, SlotPool};
use super::queue::{Queue, Taken};
use super::segments::Segment;
use super::shared::Shared;
use super::snapshot::Emission;
use super::staging::{Staging, Touched};
use super::sync::Written;
use crate::catalog::Applied;
use crate::journal::{
    Claim, EntryHeader, EntryKind, Extent, FIRST_POSITION, FooterBuilder, Group, GroupBuilder,
    GroupStart, Kind, Place,
};
use crate::limits;
use crate::protocol::error::ApiError;
use crate::time::Timestamp;
use crate::topic::State;
use crate::types::{Durability, Offset, TopicId};

/// The segment being filled.
pub(super) struct OpenSegment {
    pub prepared: Prepared,
    pub position: u32,
    pub footer: FooterBuilder,
    pub first_group: u64,
}

impl OpenSegment {
    /// A segment with nothing in it.
    pub fn new(prepared: Prepared) -> Self {
        Self {
            prepared,
            position: FIRST_POSITION,
            footer: FooterBuilder::default(),
            first_group: 0,
        }
    }

    /// A segment that recovery wrote the first groups of.
    fn going_on(prepared: Prepared, position: u32, first_group: u64) -> Self {
        Self {
            position,
            first_group,
            ..Self::new(prepared)
        }
    }

    /// Whether a group of so many bytes and entries fits, with the footer it would need.
    fn has_room(&self, group_bytes: usize, entries: usize) -> bool {
        let sector = self.prepared.header.sector as usize;
        let end = self.position as usize + group_bytes.next_multiple_of(sector);
        let entries = entries + limits::FOOTER_SPARE_EXTENTS;
        let footer = self.footer.length_after(entries).next_multiple_of(sector);
        end + footer <= self.prepared.header.slot_bytes as usize
    }
}

/// How far the recorded bound of an `os` topic reaches on the disk.
#[derive(Default)]
struct OsBound {
    durable: Offset,
    pending: Option<(u64, Offset)>,
}

/// Everything the writer owns.
pub(super) struct Writer {
    pub state: State,
    pub shared: Arc<Shared>,
    pub queue: Arc<Queue>,
    pub pool: Arc<SlotPool>,
    pub syncer: SyncSender<Written>,
    pub keeper: SyncSender<KeeperJob>,
    pub applier: Arc<ApplierStatus>,
    pub open: OpenSegment,
    /// Number and end of the last group of the stream.
    pub last_group: u64,
    pub previous_end: Place,
    /// Claims that no group carries yet, by the group that made them.
    pub unclaimed: VecDeque<(u64, Vec<Claim>)>,
    pub pending: VecDeque<Command>,
    pub group_bytes: usize,
    /// The `synced` of the last group.
    claimed: u64,
    claims_max: usize,
    /// Segments that are full and have no row yet.
    unsealed: BTreeSet<u64>,
    bounds: HashMap<TopicId, OsBound>,
    /// Who wants a snapshot that has not begun.
    snapshot_wanted: Option<Done<SnapshotWritten>>,
    emission: Option<Emission>,
    last_capture: Instant,
    /// A full segment got its row: with the catalog past it no start has to walk through it.
    capture_due: bool,
    /// A claim of something is worth a mark of its own.
    mark_due: bool,
    last_write: Instant,
}

/// What a new writer begins with.
pub(super) struct WriterParts {
    pub state: State,
    pub shared: Arc<Shared>,
    pub queue: Arc<Queue>,
    pub pool: Arc<SlotPool>,
    pub syncer: SyncSender<Written>,
    pub keeper: SyncSender<KeeperJob>,
    pub applier: Arc<ApplierStatus>,
    pub open: Prepared,
    pub last_group: u64,
    pub previous_end: Place,
}

/// The catalog follows at least so often while something changes.
const CAPTURE_EVERY: Duration = Duration::from_secs(1);

impl Writer {
    /// A writer that goes on after `last_group`.
    pub fn new(parts: WriterParts) -> Self {
        let slot_bytes = parts.open.header.slot_bytes as usize;
        let bounds = parts
            .state
            .topics()
            .filter_map(|topic| {
                let durable = topic.row.bound?;
                Some((
                    topic.id,
                    OsBound {
                        durable,
                        pending: None,
                    },
                ))
            })
            .collect();
        Self {
            group_bytes: limits::GROUP_BYTES_TARGET.min(slot_bytes / 8),
            claimed: parts.last_group,
            claims_max: limits::CLAIMS_PER_GROUP_MAX.min(slot_bytes / 256),
            unsealed: BTreeSet::new(),
            unclaimed: VecDeque::new(),
            pending: VecDeque::new(),
            bounds,
            snapshot_wanted: None,
            emission: None,
            // The first capture comes with the first group: recovery's work need not be done again.
            last_capture: Instant::now() - CAPTURE_EVERY,
            capture_due: false,
            mark_due: true,
            last_write: Instant::now(),
            open: OpenSegment::going_on(parts.open, parts.previous_end.position, parts.last_group),
            state: parts.state,
            shared: parts.shared,
            queue: parts.queue,
            pool: parts.pool,
            syncer: parts.syncer,
            keeper: parts.keeper,
            applier: parts.applier,
            last_group: parts.last_group,
            previous_end: parts.previous_end,
        }
    }

    /// Runs until the queue stops, then writes and syncs the mark of a clean stop.
    pub fn run(mut self) {
        self.publish_open_segment();
        loop {
            let patience = self.patience();
            let taken = self.queue.take(&mut self.pending, patience);
            if let Some(reason) = self.shared.failure() {
                return self.refuse_all(&reason);
            }
            match taken {
                Taken::Stopped => break,
                Taken::Some if self.pending.is_empty() && self.emission.is_none() => self.idle(),
                Taken::Some => self.write_pending(),
            }
            self.capture(false);
        }
        self.stop_cleanly();
    }

    /// How long to wait for something to come.
    fn patience(&self) -> Duration {
        if !self.pending.is_empty() || self.emission.is_some() {
            Duration::ZERO
        } else if self.mark_due {
            limits::IDLE_MARK_AFTER
        } else {
            CAPTURE_EVERY
        }
    }

    /// Nothing came for a while: claim what was written, so that damage to it cannot pass for a torn tail.
    fn idle(&mut self) {
        let synced = self.shared.synced_group.load(Ordering::Acquire);
        if self.mark_due && synced >= self.last_group {
            self.write_group(Staging::default(), false);
            // One mark holds so many claims; what is left gets another.
            self.mark_due = self.has_unclaimed();
        }
    }

    fn has_unclaimed(&self) -> bool {
        self.unclaimed.iter().any(|(_, claims)| !claims.is_empty())
    }

    fn write_pending(&mut self) {
        let mut staging = Staging {
            clock_is_trusted: !self.shared.clocks_apart.load(Ordering::Relaxed),
            ..Staging::default()
        };
        let now = Timestamp::now();
        while let Some(command) = self.next_command(&staging) {
            match command {
                Command::Append(append) if let Some(refusal) = self.shared.refusal() => {
                    staging.refuse_new(&self.state, append, refusal)
                }
                Command::Append(append) => {
                    let bound = self.durable_bound(append.topic);
                    staging.append(&mut self.state, append, bound, now);
                }
                Command::Change(change) => {
                    staging.change(&mut self.state, change, &self.shared, now)
                }
                Command::Snapshot(done) => self.snapshot_wanted = Some(done),
                Command::Seal(segment) => self.seal(segment),
            }
        }
        self.shared.meters.were_known(staging.duplicates);
        self.emit_snapshot(&mut staging);
        if staging.is_empty() {
            self.tell_in_order(staging);
            // Questions write nothing, and may come all the time.
            if self.last_write.elapsed() >= limits::IDLE_MARK_AFTER {
                self.idle();
            }
        } else {
            self.write_group(staging, false);
            self.mark_due = true;
            self.last_write = Instant::now();
        }
    }

    /// The next command that still goes into this group.
    fn next_command(&mut self, staging: &Staging) -> Option<Command> {
        let bytes = match self.pending.front()? {
            Command::Append(append) => append.batch.bytes().len(),
            Command::Change(change) => change.bytes(),
            Command::Snapshot(_) | Command::Seal(_) => 0,
        };
        let fits = staging.is_empty() || staging.bytes + bytes <= self.group_bytes;
        if fits { self.pending.pop_front() } else { None }
    }

    /// A snapshot goes into the groups that are written anyway, a little in each. It begins when every
    /// segment but the open one has its row: nobody has to read what lies before it to know what there is.
    fn emit_snapshot(&mut self, staging: &mut Staging) {
        if self.emission.is_none() && self.all_sealed() {
            let wanted = self.snapshot_wanted.take();
            self.emission = wanted.map(|done| Emission::new(&self.state, done));
        }
        let Some(emission) = &mut self.emission else {
            return;
        };
        if !emission.is_complete() {
            // Also behind a batch of half a slot, the largest there is: under full load nothing else may come.
            emission.fill(&mut self.state, staging, self.group_bytes);
        } else if let Some(emission) = self.emission.take() {
            emission.finish(&mut self.state, staging, self.last_group + 1);
        }
    }

    fn all_sealed(&mut self) -> bool {
        let before = self.unsealed.len();
        self.unsealed
            .retain(|number| !self.state.segments().contains_key(number));
        self.capture_due |= before > self.unsealed.len();
        self.unsealed.is_empty()
    }

    /// Answers that need no entry of their own still wait for what came before them.
    fn tell_in_order(&mut self, staging: Staging) {
        debug_assert!(staging.early.is_empty(), "an early answer has an entry");
        if staging.waiters.is_empty() {
            return;
        }
        if self.shared.synced_group.load(Ordering::Acquire) >= self.last_group {
            for waiter in staging.waiters {
                waiter.tell(Ok(()));
            }
        } else {
            self.hand_over(Written {
                group: self.last_group,
                claims: 0,
                slot: None,
                waiters: staging.waiters,
                ends: Vec::new(),
                delta: None,
            });
        }
    }

    /// The bound below which an `os` topic's offsets may be acknowledged at once.
    fn durable_bound(&mut self, id: TopicId) -> Offset {
        self.forget_bound_of_an_earlier_life(id);
        let Some(bound) = self.bounds.get_mut(&id) else {
            return Offset::ZERO;
        };
        if let Some((group, pending)) = bound.pending
            && group <= self.shared.synced_group.load(Ordering::Acquire)
        {
            bound.durable = bound.durable.max(pending);
            bound.pending = None;
        }
        bound.durable
    }

    /// Places, writes and hands over a group.
    fn write_group(&mut self, mut staging: Staging, clean_stop: bool) {
        let synced = self
            .shared
            .synced_group
            .load(Ordering::Acquire)
            .min(self.last_group);
        let (synced, claims) = self.take_claims(synced);
        let bytes = GroupBuilder::empty_bytes(claims.len()) + staging.bytes;
        if !self.open.has_room(bytes, staging.entries.len()) && !self.switch_segment() {
            // What was decided is in the state and will not be in the journal: nothing may follow (J8, J12).
            let reason = "the disk is full and the journal has no slot to write to";
            self.shared.fail(reason);
            return refuse(staging, reason);
        }
        (staging.expiring.iter()).for_each(|topic| self.shared.expires(*topic));
        let touched = staging.touched(&self.state, &self.shared);
        let (group, headers) = self.build(&staging, &claims, synced, clean_stop);
        // They were copied: what they were received into can be used again while the disk writes.
        let entries = std::mem::take(&mut staging.entries).len();
        if let Err(error) = self
            .open
            .prepared
            .slot
            .write_at(group.disk_bytes(), group.place().position)
        {
            self.shared.fail(&error.to_string());
            return refuse(staging, &error.to_string());
        }
        self.advance(&group, &touched);
        self.publish(&group, &touched, &headers);
        for waiter in staging.early {
            waiter.tell(Ok(()));
        }
        self.shared.meters.group(entries, group.disk_bytes().len());
        let ends = touched
            .into_iter()
            .filter_map(|touched| Some((touched.shared?, touched.end)))
            .collect();
        self.hand_over(Written {
            group: group.number(),
            claims: synced,
            slot: Some(self.open.prepared.slot.clone()),
            waiters: staging.waiters,
            ends,
            delta: None,
        });
    }

    /// What the groups up to `synced` made durable and no group says yet (J3); the latest value of each
    /// topic. What does not fit is left for the next group, and `synced` says less.
    fn take_claims(&mut self, synced: u64) -> (u64, Vec<Claim>) {
        let mut latest: HashMap<TopicId, Claim> = HashMap::new();
        let mut through = self.claimed;
        while let Some((group, claims)) = self.unclaimed.front() {
            if *group > synced
                || (!latest.is_empty() && latest.len() + claims.len() > self.claims_max)
            {
                break;
            }
            through = *group;
            latest.extend(claims.iter().map(|claim| (claim.topic, *claim)));
            self.unclaimed.pop_front();
        }
        self.claimed = through;
        (through, latest.into_values().collect())
    }

    fn build(
        &self,
        staging: &Staging,
        claims: &[Claim],
        synced: u64,
        clean_stop: bool,
    ) -> (Group, Vec<(u32, EntryHeader)>) {
        let bytes = GroupBuilder::empty_bytes(claims.len()) + staging.bytes;
        let sector = self.open.prepared.header.sector;
        let buffer = self
            .shared
            .tail
            .pool()
            .take(bytes.next_multiple_of(sector as usize));
        let mut builder = GroupBuilder::begin(
            buffer,
            &GroupStart {
                seed: self.open.prepared.seed(),
                sector,
                position: self.open.position,
                number: self.last_group + 1,
                previous_end: self.previous_end,
                synced,
                wall: Timestamp::now(),
                clean_stop,
                claims,
            },
        );
        let mut records = Vec::with_capacity(staging.entries.len());
        for entry in &staging.entries {
            let pieces = [&entry.payload[..]];
            let to_write = entry.to_write(&pieces);
            let position = builder.push(&to_write);
            if entry.kind == EntryKind::Records {
                records.push((position, to_write.header()));
            }
        }
        (builder.finish(), records)
    }

    /// Moves the stream's end over the written group.
    fn advance(&mut self, group: &Group, touched: &[Touched]) {
        if self.open.first_group == 0 {
            self.open.first_group = group.number();
        }
        self.open.position = group.end().position;
        self.previous_end = group.end();
        self.last_group = group.number();
        self.unclaimed.push_back((
            self.last_group,
            touched.iter().map(Touched::claim).collect(),
        ));
        if let Some(emission) = &mut self.emission {
            emission.note_group(group.place(), group.number());
        }
        self.note_bounds(touched);
    }

    /// A topic that was made `fsync` lost its bound; made `os` again it has none before a new one is durable.
    fn forget_bound_of_an_earlier_life(&mut self, id: TopicId) {
        let has_bound = |topic: &crate::topic::Topic| topic.row.bound.is_some();
        if !self.state.topic(id).is_ok_and(has_bound) {
            self.bounds.remove(&id);
        }
    }

    fn note_bounds(&mut self, touched: &[Touched]) {
        for touched in touched {
            self.forget_bound_of_an_earlier_life(touched.topic);
        }
        for touched in touched
            .iter()
            .filter(|touched| touched.durability == Durability::Os)
        {
            let Some(bound) = self
                .state
                .topic(touched.topic)
                .ok()
                .and_then(|topic| topic.row.bound)
            else {
                continue;
            };
            let known = self.bounds.entry(touched.topic).or_default();
            let latest = known.pending.map_or(known.durable, |(_, pending)| pending);
            if bound > latest {
                known.pending = Some((self.last_group, bound));
            }
        }
    }

    /// Lets readers find the group; those of `os` topics may have it already.
    fn publish(&mut self, group: &Group, touched: &[Touched], records: &[(u32, EntryHeader)]) {
        self.shared.tail.push(group.clone());
        let mut records = records.iter().peekable();
        let mut all = (0, 0);
        for touched in touched {
            let mut extents: Vec<Extent> = Vec::new();
            let (mut count, mut bytes) = (0, 0);
            while let Some((position, header)) =
                records.next_if(|(_, header)| header.topic == touched.topic)
            {
                count += u64::from(header.records);
                bytes += u64::from(header.payload_bytes);
                self.open.footer.add(header, *position);
                join(&mut extents, Extent::of_entry(header, *position));
            }
            all = (all.0 + count, all.1 + bytes);
            let Some(shared) = &touched.shared else {
                continue;
            };
            if !extents.is_empty() {
                shared.through.came_in(count, bytes);
                let mut index = shared.index_mut();
                extents
                    .into_iter()
                    .for_each(|extent| index.push_open(group.place().segment, extent));
            }
            shared.set_bytes(touched.bytes);
            let durable = self
                .bounds
                .get(&touched.topic)
                .map_or(Offset::ZERO, |bound| bound.durable);
            if touched.durability == Durability::Os && touched.end <= durable {
                self.shared.set_readable(shared, touched.end);
            }
        }
        self.shared.meters.came_in(all.0, all.1);
    }

    /// Waits while the sync thread is too far behind: that bounds the memory of groups in flight.
    fn hand_over(&mut self, written: Written) {
        if let Err(lost) = self.syncer.send(written) {
            for waiter in lost.0.waiters {
                waiter.tell(Err(ApiError::stopped("the sync thread is gone")));
            }
        }
    }

    /// Goes on in the next slot; the full segment gets its footer beside the writing.
    fn switch_segment(&mut self) -> bool {
        let Some(prepared) = self.pool.take() else {
            return false;
        };
        let full = std::mem::replace(&mut self.open, OpenSegment::new(prepared));
        self.publish_open_segment();
        self.unsealed.insert(full.prepared.header.segment);
        let job = SealJob {
            prepared: full.prepared,
            end: full.position,
            footer: full.footer,
            groups: (full.first_group, self.last_group),
        };
        if self.keeper.send(KeeperJob::Seal(job)).is_err() {
            tracing::debug!("the keeper is gone, the segment is sealed at the next start");
        }
        true
    }

    /// Goes on in the next slot, if this segment is being written and has something in it.
    fn seal(&mut self, segment: u64) {
        if self.open.prepared.header.segment == segment && self.open.first_group != 0 {
            self.switch_segment();
        }
    }

    fn publish_open_segment(&self) {
        let header = self.open.prepared.header;
        debug_assert_ne!(header.kind, Kind::Cold, "the writer fills stream segments");
        self.shared.segments.put(Segment::new(header, None));
    }

    /// Hands the changed rows to the catalog, once they are durable.
    fn capture(&mut self, now_or_never: bool) {
        let due = now_or_never
            || self.capture_due
            || self.applier.is_hurried()
            || self.last_capture.elapsed() >= CAPTURE_EVERY;
        if !due || !self.state.is_dirty() {
            return;
        }
        // The catalog never passes the end of a segment whose row it does not have: what lies
        // before its position and has no row is free.
        if !self.all_sealed() || !self.applier.begin() {
            return;
        }
        self.last_capture = Instant::now();
        self.capture_due = false;
        self.shared.take_stock(&self.state);
        let applied = Applied {
            segment: self.previous_end.segment,
            position: self.previous_end.position,
            group: self.last_group,
        };
        let delta = Delta {
            changes: self.state.take_dirty(),
            applied,
        };
        self.hand_over(Written {
            group: self.last_group,
            claims: 0,
            slot: None,
            waiters: Vec::new(),
            ends: Vec::new(),
            delta: Some(delta),
        });
    }

    fn stop_cleanly(mut self) {
        let wait = |done: &dyn Fn() -> bool, shared: &Shared| {
            while !done() && shared.failure().is_none() {
                std::thread::sleep(Duration::from_millis(1));
            }
        };
        let shared = self.shared.clone();
        let last = self.last_group;
        wait(
            &|| shared.synced_group.load(Ordering::Acquire) >= last,
            &shared,
        );
        while self.has_unclaimed() && shared.failure().is_none() {
            self.write_group(Staging::default(), false);
        }
        self.write_group(Staging::default(), true);
        let applier = self.applier.clone();
        wait(&|| !applier.is_busy(), &shared);
        self.capture(true);
        wait(&|| !applier.is_busy(), &shared);
    }

    fn refuse_all(&mut self, reason: &str) {
        let mut commands = std::mem::take(&mut self.pending);
        commands.append(&mut self.queue.drain());
        for command in commands {
            refuse_command(command, &ApiError::stopped(reason));
        }
    }
}

/// Tells whoever asked why nothing was done.
pub(super) fn refuse_command(command: Command, why: &ApiError) {
    match command {
        Command::Append(append) => (append.done as Done<_>)(Err(why.clone())),
        Command::Change(change) => _ = (change.run)(Err(why.clone())),
        Command::Snapshot(done) => done(Err(why.clone())),
        Command::Seal(_) => {}
    }
}

fn refuse(staging: Staging, reason: &str) {
    for waiter in staging.waiters.into_iter().chain(staging.early) {
        waiter.tell(Err(ApiError::stopped(reason)));
    }
}

/// Adds an extent, as part of the one before it where it follows on.
fn join(extents: &mut Vec<Extent>, next: Extent) {
    if !extents.last_mut().is_some_and(|last| last.join(&next)) {
        extents.push(next);
    }
}
