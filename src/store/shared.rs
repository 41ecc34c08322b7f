//! What the writer, the sync thread, the keeper and the readers share.
//!
//! Per topic a handful of numbers and the index; per store the tail cache, the
//! open segments and the failure. The writer is the only one that adds or
//! removes topics. Ends only grow (J2), so they are published without a lock.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::ReclaimFigures;
use super::attendance::Attendance;
use super::compaction::Compacted;
use super::index::TopicIndex;
use super::meters::{Meters, Through};
use super::moves::Moves;
use super::retention::ClockWatch;
use super::segments::Segments;
use super::tail::TailCache;
use super::together::Helpers;
use super::windows::Windows;
use crate::journal::{BufferPool, JournalDir};
use crate::limits;
use crate::protocol::error::ApiError;
use crate::time::Timestamp;
use crate::topic::{PurgeRow, State, Topic};
use crate::types::{Gap, LeaderEpoch, Offset, Retention, TopicId, TopicName};

/// What readers need of a topic.
pub(super) struct TopicShared {
    pub id: TopicId,
    name: RwLock<TopicName>,
    epoch: AtomicU32,
    start: AtomicU64,
    durable_end: AtomicU64,
    /// Bytes of its live record batches.
    bytes: AtomicU64,
    /// Those of all topics.
    all_bytes: Arc<AtomicU64>,
    readable_end: watch::Sender<u64>,
    gaps: RwLock<Arc<[Gap]>>,
    /// Offsets inside `[start, end)` whose records were taken away, and where the last such batch may end.
    thinned: Mutex<(u64, Offset)>,
    /// How often that was done in this process.
    thinnings: AtomicU64,
    /// Purges of keys that are under way, by number.
    purges: RwLock<Purges>,
    index: RwLock<TopicIndex>,
    /// Counts changes of positions in it, where what is confirmed goes.
    moves: AtomicU64,
    /// Counted for people.
    pub through: Through,
}

/// Purges of keys that are under way, with their numbers.
pub(super) type Purges = Arc<[(u64, PurgeRow)]>;

fn purges_of(topic: &Topic) -> Purges {
    topic.purges.iter().map(|(n, purge)| (*n, *purge)).collect()
}

impl TopicShared {
    /// A topic as recovery or creation left it: everything it has is durable. Its bytes are counted
    /// by the first [`follow`](Self::follow).
    fn new(topic: &Topic, all_bytes: Arc<AtomicU64>) -> Self {
        let readable = match topic.row.quarantine {
            Some(quarantine) => quarantine.intact_end,
            None => topic.row.end,
        };
        Self {
            id: topic.id,
            name: RwLock::new(topic.row.name.clone()),
            epoch: AtomicU32::new(topic.row.epoch.get()),
            start: AtomicU64::new(topic.row.start.get()),
            durable_end: AtomicU64::new(topic.row.end.get()),
            bytes: AtomicU64::new(0),
            all_bytes,
            readable_end: watch::Sender::new(readable.get()),
            gaps: RwLock::new(topic.row.gaps.clone().into()),
            thinned: Mutex::new((topic.row.thinned.removed, topic.row.thinned.end)),
            thinnings: AtomicU64::new(0),
            purges: RwLock::new(purges_of(topic)),
            index: RwLock::default(),
            moves: AtomicU64::new(0),
            through: Through::default(),
        }
    }

    pub fn name(&self) -> TopicName {
        let name = self.name.read();
        name.unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn epoch(&self) -> LeaderEpoch {
        LeaderEpoch::new(self.epoch.load(Ordering::Acquire))
    }

    pub fn start(&self) -> Offset {
        Offset::new(self.start.load(Ordering::Acquire))
    }

    pub fn durable_end(&self) -> Offset {
        Offset::new(self.durable_end.load(Ordering::Acquire))
    }

    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Acquire)
    }

    pub fn set_bytes(&self, bytes: u64) {
        let before = self.bytes.swap(bytes, Ordering::AcqRel);
        if bytes >= before {
            self.all_bytes.fetch_add(bytes - before, Ordering::Relaxed);
        } else {
            self.all_bytes.fetch_sub(before - bytes, Ordering::Relaxed);
        }
    }

    pub fn readable_end(&self) -> Offset {
        Offset::new(*self.readable_end.borrow())
    }

    /// Told whenever the readable end grows, when the epoch changes, and once more when the topic is deleted.
    pub fn watch_end(&self) -> watch::Receiver<u64> {
        self.readable_end.subscribe()
    }

    /// Everything below `end` is on the disk.
    pub fn set_durable(&self, end: Offset) {
        self.durable_end.fetch_max(end.get(), Ordering::AcqRel);
    }

    /// Readers may have everything below `end`. Returns whether that is more than before.
    fn set_readable(&self, end: Offset) -> bool {
        self.readable_end.send_if_modified(|readable| {
            let grows = end.get() > *readable;
            *readable = end.get().max(*readable);
            grows
        })
    }

    /// Wakes whoever waits for the end, so that it finds the topic gone.
    pub fn wake(&self) {
        self.readable_end.send_modify(|_| {});
    }

    /// Takes over what a change of state made of the topic. Returns whether its start moved.
    pub fn follow(&self, topic: &Topic) -> bool {
        let epoch = topic.row.epoch.get();
        if self.epoch.swap(epoch, Ordering::AcqRel) != epoch {
            // Whoever waits under another one waits in vain.
            self.wake();
        }
        if self.name() != topic.row.name {
            let mut name = self.name.write().unwrap_or_else(PoisonError::into_inner);
            *name = topic.row.name.clone();
        }
        self.set_bytes(topic.row.bytes);
        let start = self
            .start
            .fetch_max(topic.row.start.get(), Ordering::AcqRel);
        *self.gaps.write().unwrap_or_else(PoisonError::into_inner) = topic.row.gaps.clone().into();
        let thinned = (topic.row.thinned.removed, topic.row.thinned.end);
        *self.thinned.lock().unwrap_or_else(PoisonError::into_inner) = thinned;
        let known = self.purges();
        let known = known.iter().map(|(number, purge)| (number, purge));
        if !known.eq(&topic.purges) {
            *self.purges.write().unwrap_or_else(PoisonError::into_inner) = purges_of(topic);
        }
        self.index_mut().trim(topic.row.start);
        start < topic.row.start.get()
    }

    /// Offsets inside `[start, end)` whose records were taken away, and an offset at and above which no batch is
    /// thinned.
    pub fn thinned(&self) -> (u64, Offset) {
        *self.thinned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Purges of keys that are under way.
    pub fn purges(&self) -> Purges {
        let purges = self.purges.read();
        purges.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether nothing was purged since these were under way: not whether they are the same again.
    pub fn has_purges(&self, purges: &Purges) -> bool {
        Arc::ptr_eq(&self.purges(), purges)
    }

    /// Batches of it were written anew, without some of their records.
    pub fn was_thinned(&self) {
        self.thinnings.fetch_add(1, Ordering::AcqRel);
    }

    /// How often that happened: what was counted of its batches before holds no more.
    pub fn thinnings(&self) -> u64 {
        self.thinnings.load(Ordering::Acquire)
    }

    /// How often positions in it moved.
    pub fn moves(&self) -> u64 {
        self.moves.load(Ordering::Acquire)
    }

    /// Missing offsets, in order.
    pub fn gaps(&self) -> Arc<[Gap]> {
        self.gaps
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Whether a segment that is gone was replaced: its place is elsewhere by now.
    pub fn is_elsewhere(&self, at: Offset, segment: u64) -> bool {
        self.index().find(at).segment() != Some(segment)
    }

    pub fn index(&self) -> RwLockReadGuard<'_, TopicIndex> {
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn index_mut(&self) -> RwLockWriteGuard<'_, TopicIndex> {
        self.index.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The topics by id and by name.
#[derive(Default)]
pub(super) struct Topics {
    pub by_id: HashMap<TopicId, Arc<TopicShared>>,
    pub by_name: BTreeMap<TopicName, TopicId>,
}

/// What was done to give space back, counted for people.
#[derive(Default)]
pub(super) struct Reclaimed {
    pub snapshots: AtomicU64,
    pub segments_freed: AtomicU64,
    pub segments_copied: AtomicU64,
    pub cold_segments: AtomicU64,
    pub bytes_copied: AtomicU64,
    pub compactions: AtomicU64,
    pub records_removed: AtomicU64,
    pub bytes_removed: AtomicU64,
    /// Reads it took to copy them.
    pub copy_reads: AtomicU64,
    pub slots_reused: AtomicU64,
    pub slots_deleted: AtomicU64,
}

impl Reclaimed {
    pub fn figures(&self) -> ReclaimFigures {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        ReclaimFigures {
            snapshots: of(&self.snapshots),
            segments_freed: of(&self.segments_freed),
            segments_copied: of(&self.segments_copied),
            cold_segments: of(&self.cold_segments),
            bytes_copied: of(&self.bytes_copied),
            compactions: of(&self.compactions),
            records_removed: of(&self.records_removed),
            bytes_removed: of(&self.bytes_removed),
            slots_reused: of(&self.slots_reused),
            slots_deleted: of(&self.slots_deleted),
        }
    }
}

/// Adds to a counter that nothing is decided by.
pub(super) fn count(counter: &AtomicU64, by: usize) {
    counter.fetch_add(by as u64, Ordering::Relaxed);
}

/// Everything shared.
pub(super) struct Shared {
    pub dir: JournalDir,
    pub tail: TailCache,
    /// Memory for what is read from the disk.
    pub read_buffers: BufferPool,
    pub windows: Windows,
    pub read_helpers: Helpers,
    pub segments: Segments,
    topics: RwLock<Topics>,
    /// Number of the last group that is on the disk.
    pub synced_group: AtomicU64,
    /// Number of the last group that a durable later group says is on the disk.
    pub claimed_group: AtomicU64,
    /// Counts what made records dead: starts that moved, topics that were deleted.
    pub discards: AtomicU64,
    /// Rows of the state, as of the last time the catalog was brought up to date.
    pub rows: AtomicU64,
    /// Segments that could be given up, as far as was looked; `u64::MAX` before the first look.
    pub reclaimable: AtomicU64,
    /// How often the reclaimer looks.
    pub reclaim_every: Duration,
    /// Bytes copied per second while there is space enough.
    pub copy_rate: AtomicU64,
    /// Keys a pass of compaction remembers at most.
    pub compaction_keys: AtomicU64,
    /// What it did.
    pub reclaimed: Reclaimed,
    /// The topics that do not keep everything.
    retained: Mutex<HashMap<TopicId, Retention>>,
    /// The topics that are compacted.
    pub compacted: Compacted,
    /// The topics that had messages with a time to live.
    expiring: Mutex<HashSet<TopicId>>,
    /// The topics in which purges of keys are under way.
    purging: Mutex<HashSet<TopicId>>,
    /// How often purges were asked for or done.
    pub purges_changed: AtomicU64,
    /// What people should know that is no damage, by subject.
    notices: Mutex<BTreeMap<&'static str, String>>,
    /// Who reads through subscriptions, and when those that expire were used.
    pub attendance: Attendance,
    /// What is counted while working.
    pub meters: Meters,
    /// Which readable ends moved.
    pub moves: Moves,
    /// Bytes of the live record batches of all topics, kept as they change: a sum over a million
    /// topics at each heartbeat would be felt.
    live_bytes: Arc<AtomicU64>,
    /// Wall clock and monotonic clock as they were at the start.
    clocks: ClockWatch,
    /// Wall clock and monotonic clock have parted: nothing expires by age.
    pub clocks_apart: AtomicBool,
    /// Free bytes, and what has to be free for publishing to go on, as of the last look; everything and nothing before.
    pub reserve_free: AtomicU64,
    pub reserve_needed: AtomicU64,
    pub reserve_reached: AtomicBool,
    damage: Mutex<Vec<String>>,
    failure: watch::Sender<Option<String>>,
}

impl Shared {
    pub fn new(dir: JournalDir, tail_bytes: usize, reclaim_every: Duration) -> Self {
        Self {
            dir,
            tail: TailCache::new(tail_bytes),
            read_buffers: BufferPool::new(limits::READ_BUFFERS_KEPT_BYTES)
                .with_large_max(limits::READ_BUFFERS_LARGE_MAX),
            windows: Windows::default(),
            read_helpers: Helpers::default(),
            segments: Segments::default(),
            topics: RwLock::default(),
            synced_group: AtomicU64::new(0),
            claimed_group: AtomicU64::new(0),
            discards: AtomicU64::new(0),
            rows: AtomicU64::new(0),
            reclaimable: AtomicU64::new(u64::MAX),
            reclaim_every: reclaim_every.max(limits::RECLAIM_EVERY_MIN),
            copy_rate: AtomicU64::new(limits::COLD_BYTES_PER_SECOND),
            compaction_keys: AtomicU64::new(limits::COMPACTION_KEYS_MAX as u64),
            reclaimed: Reclaimed::default(),
            retained: Mutex::default(),
            compacted: Compacted::default(),
            expiring: Mutex::default(),
            purging: Mutex::default(),
            purges_changed: AtomicU64::new(0),
            notices: Mutex::default(),
            attendance: Attendance::default(),
            meters: Meters::default(),
            moves: Moves::default(),
            live_bytes: Arc::default(),
            clocks: ClockWatch::new(Timestamp::now(), Instant::now()),
            clocks_apart: AtomicBool::new(false),
            reserve_free: AtomicU64::new(u64::MAX),
            reserve_needed: AtomicU64::new(0),
            reserve_reached: AtomicBool::new(false),
            damage: Mutex::default(),
            failure: watch::Sender::new(None),
        }
    }

    /// Whether publishing is refused for want of space, or will be soon.
    pub fn is_short_of_space(&self) -> bool {
        let slots = limits::SHORT_OF_SPACE_SLOTS * u64::from(self.dir.slot_bytes());
        let needed = self.reserve_needed.load(Ordering::Relaxed);
        let free = self.reserve_free.load(Ordering::Relaxed);
        self.refusal().is_some() || free < needed.saturating_add(slots)
    }

    /// How long to rest between state snapshots at the least: they cost so much for each row. Where space is short, not at
    /// all.
    pub fn snapshot_rest(&self) -> Duration {
        if self.is_short_of_space() {
            return Duration::ZERO;
        }
        let rows = self.rows.load(Ordering::Acquire);
        let rows = u32::try_from(rows).unwrap_or(u32::MAX);
        let rest = limits::SNAPSHOT_REST_PER_ROW.saturating_mul(rows);
        rest.min(limits::SNAPSHOT_REST_MAX)
    }

    /// The wall clock, unless it jumped: then nothing is over.
    pub fn trusted_now(&self) -> Option<Timestamp> {
        let now = Timestamp::now();
        let apart = self.clocks.apart(now, Instant::now());
        apart.is_none().then_some(now)
    }

    pub fn topics(&self) -> RwLockReadGuard<'_, Topics> {
        self.topics.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn topics_mut(&self) -> RwLockWriteGuard<'_, Topics> {
        self.topics.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn topic(&self, id: TopicId) -> Option<Arc<TopicShared>> {
        self.topics().by_id.get(&id).cloned()
    }

    /// Adds a topic, or takes over its new name and facts.
    pub fn publish_topic(&self, topic: &Topic, old_name: Option<&TopicName>) -> Arc<TopicShared> {
        let mut topics = self.topics_mut();
        if let Some(old) = old_name
            && topics.by_name.get(old) == Some(&topic.id)
        {
            topics.by_name.remove(old);
        }
        topics.by_name.insert(topic.row.name.clone(), topic.id);
        let shared = topics
            .by_id
            .entry(topic.id)
            .or_insert_with(|| Arc::new(TopicShared::new(topic, self.live_bytes.clone())))
            .clone();
        drop(topics);
        if shared.follow(topic) {
            self.discards.fetch_add(1, Ordering::AcqRel);
        }
        let mut retained = self.retained();
        let discards = topic.row.settings.discards();
        if discards.keeps_everything() {
            retained.remove(&topic.id);
        } else {
            retained.insert(topic.id, discards);
        }
        drop(retained);
        self.compacted.follow(topic);
        // While the end of a topic is uncertain nothing of it goes.
        let is_certain = topic.row.quarantine.is_none();
        let sets = [
            (&self.expiring, topic.row.thinned.has_ttl),
            (&self.purging, !topic.purges.is_empty()),
        ];
        for (set, is_in) in sets {
            let mut set = set.lock().unwrap_or_else(PoisonError::into_inner);
            match is_in && is_certain {
                true => _ = set.insert(topic.id),
                false => _ = set.remove(&topic.id),
            }
        }
        shared
    }

    /// A position in the topic moved, came or went: perhaps more of it is confirmed by all.
    pub fn position_moved(&self, state: &State, id: TopicId) {
        let matters = |topic: &Topic| topic.row.settings.retention.interest;
        if state.topic(id).is_ok_and(matters)
            && let Some(shared) = self.topics().by_id.get(&id)
        {
            shared.moves.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// Readers of a topic may have everything below `end`.
    pub fn set_readable(&self, topic: &TopicShared, end: Offset) {
        if topic.set_readable(end) {
            self.moves.record(topic.id);
        }
    }

    fn retained(&self) -> MutexGuard<'_, HashMap<TopicId, Retention>> {
        self.retained.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The topic had a message with a time to live.
    pub fn expires(&self, topic: TopicId) {
        let mut expiring = self.expiring.lock().unwrap_or_else(PoisonError::into_inner);
        expiring.insert(topic);
    }

    /// The topics that had such messages.
    pub fn expiring(&self) -> HashSet<TopicId> {
        let expiring = self.expiring.lock().unwrap_or_else(PoisonError::into_inner);
        expiring.clone()
    }

    /// The topics in which purges of keys are under way.
    pub fn purging(&self) -> HashSet<TopicId> {
        let purging = self.purging.lock().unwrap_or_else(PoisonError::into_inner);
        purging.clone()
    }

    /// The topics that do not keep everything, and what they keep.
    pub fn topics_with_retention(&self) -> Vec<(Arc<TopicShared>, Retention)> {
        let mut retained: HashMap<_, _> = self.retained().clone();
        for id in self.expiring() {
            retained.entry(id).or_default();
        }
        let topics = self.topics();
        let known = retained.into_iter();
        known
            .filter_map(|(id, retention)| Some((topics.by_id.get(&id)?.clone(), retention)))
            .collect()
    }

    /// Forgets a topic.
    pub fn remove_topic(&self, topic: &Topic) {
        let mut topics = self.topics_mut();
        if topics.by_name.get(&topic.row.name) == Some(&topic.id) {
            topics.by_name.remove(&topic.row.name);
        }
        let gone = topics.by_id.remove(&topic.id);
        drop(topics);
        self.retained().remove(&topic.id);
        self.compacted.forget(topic.id);
        let mut expiring = self.expiring.lock().unwrap_or_else(PoisonError::into_inner);
        expiring.remove(&topic.id);
        drop(expiring);
        let mut purging = self.purging.lock().unwrap_or_else(PoisonError::into_inner);
        purging.remove(&topic.id);
        drop(purging);
        self.attendance.forget_topic(topic.id);
        self.discards.fetch_add(1, Ordering::AcqRel);
        if let Some(gone) = gone {
            gone.set_bytes(0);
            gone.wake();
        }
    }

    /// Bytes of the live record batches of all topics.
    pub fn live_bytes(&self) -> u64 {
        self.live_bytes.load(Ordering::Relaxed)
    }

    /// Notes damage, one line for people.
    pub fn report_damage(&self, mut line: String) {
        // A line may name a path, which may be as long as it likes; all lines go into one answer.
        let end = line.floor_char_boundary(limits::DAMAGE_LINE_BYTES_MAX);
        line.truncate(end);
        let mut damage = self.damage.lock().unwrap_or_else(PoisonError::into_inner);
        if damage.len() < limits::DAMAGE_LINES_MAX && !damage.contains(&line) {
            tracing::error!(damage = %line, "damage found in the store");
            damage.push(line);
        }
    }

    pub fn damage(&self) -> Vec<String> {
        self.damage
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Says something to people that is no damage, or that it is over. The log has it too.
    pub fn notice(&self, subject: &'static str, line: Option<String>) {
        let mut notices = self.notices.lock().unwrap_or_else(PoisonError::into_inner);
        match line {
            Some(line) => {
                if notices.get(subject) != Some(&line) {
                    tracing::warn!(subject, notice = %line, "notice");
                }
                notices.insert(subject, line);
            }
            None => {
                if notices.remove(subject).is_some() {
                    tracing::info!(subject, "the notice no longer holds");
                }
            }
        }
    }

    pub fn notices(&self) -> Vec<String> {
        let notices = self.notices.lock().unwrap_or_else(PoisonError::into_inner);
        notices.values().cloned().collect()
    }

    /// Why nothing can be published now.
    pub fn refusal(&self) -> Option<ApiError> {
        let reached = self.reserve_reached.load(Ordering::Acquire);
        reached.then(|| ApiError::DiskReserve {
            free_bytes: self.reserve_free.load(Ordering::Relaxed),
            needed_bytes: self.reserve_needed.load(Ordering::Relaxed),
        })
    }

    /// Stops the store: nothing more is written or acknowledged (J12). The first reason counts.
    pub fn fail(&self, reason: &str) {
        self.failure.send_if_modified(|failure| {
            let first = failure.is_none();
            if first {
                tracing::error!(reason, "storage stopped");
                *failure = Some(reason.to_owned());
            }
            first
        });
    }

    pub fn failure(&self) -> Option<String> {
        self.failure.borrow().clone()
    }

    pub fn watch_failure(&self) -> watch::Receiver<Option<String>> {
        self.failure.subscribe()
    }
}
