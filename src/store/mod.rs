//! The peer's storage engine: one log for all topics, one sync for all that waits.
//!
//! ```text
//!   append, change ──> queue ──> writer ──> sync thread ──> answers
//!                                  │ full segment   │ rows, once durable
//!                                  v                v
//!                               keeper           applier ──> sled
//!   fetch ──> tail cache, index, segments (any thread)
//! ```
//!
//! A watchdog notices when the disk hangs. Four threads own four things: the writer the state and the stream's end, the
//! sync thread the durable position, the keeper the sealed segments, the
//! applier the catalog. Two more give space back, the reclaimer and the copier, which ask the writer. What they tell each other is bounded; readers touch
//! only what is published in `shared`. The format and the argument for it are
//! in `docs/storage-format.md`; J1 to J15 below refer to it.
//!
//! Deliberately missing: sockets, names at the index, who may do what.

mod ahead;
mod applier;
mod asker;
mod attendance;
mod attending;
mod cold;
mod command;
mod compaction;
mod consumers;
mod copier;
mod copying;
mod expiry;
mod extents;
mod fetch;
mod finding;
mod history;
mod index;
mod keeper;
mod lifetimes;
mod meters;
mod motion;
mod moves;
mod naming;
pub mod offline;
mod open;
mod pool;
mod producers;
mod queue;
mod reader;
mod reclaim;
mod recovery;
mod retention;
mod segments;
mod shared;
mod sieve;
mod snapshot;
mod staging;
mod survey;
mod sync;
mod tail;
#[cfg(test)]
mod tests;
mod together;
mod told;
mod topics;
mod watchdog;
mod watching;
mod windows;
mod writer;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{Semaphore, oneshot, watch};

pub use command::Done;
pub use consumers::{ConsumerRows, Stretch};
pub use open::{OpenError, is_peer_dir, random_id};
pub use recovery::RecoveryError;
pub use topics::NewTopic;
pub use watching::{GroupStanding, Standing, TopicFigures};

use crate::figures::{Value, catalogue};
use crate::limits;
use crate::protocol::api::Author;
use crate::protocol::batch::CheckedBatch;
use crate::protocol::data::Published;
use crate::protocol::error::ApiError;
use crate::topic::{RowKey, Terms};
use crate::types::{Offset, PeerId, PeerName, TopicId};
use command::{Append, Change, Command, Context};
use queue::{Queue, Refused};
use shared::{Shared, TopicShared};

/// How a store is opened.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// The peer's data directory.
    pub data_dir: PathBuf,
    /// Name of the peer, for a directory that is made now or to rename one; `None` keeps the name, or makes one.
    pub name: Option<PeerName>,
    /// Size of a journal slot for a new journal, in bytes.
    pub slot_bytes: u64,
    /// Recently written groups kept in memory, in bytes.
    pub tail_cache_bytes: usize,
    /// Free space below which publishing is refused, in bytes; `None`: two slots and 64 MiB.
    pub reserve_bytes: Option<u64>,
    /// Never write around the page cache.
    pub page_cache_only: bool,
    /// Discard what retention says, and give back space.
    pub reclaim: bool,
    /// How often that is looked at: how long at the most something superfluous goes unnoticed, and how far apart
    /// state snapshots are at the least.
    pub reclaim_every: Duration,
}

impl StoreOptions {
    /// The defaults for a directory.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            name: None,
            slot_bytes: limits::SLOT_BYTES_DEFAULT,
            tail_cache_bytes: limits::TAIL_CACHE_BYTES_DEFAULT,
            reserve_bytes: None,
            page_cache_only: false,
            reclaim: true,
            reclaim_every: limits::RECLAIM_EVERY_DEFAULT,
        }
    }
}

/// What opening found, for the log and for people.
#[derive(Debug, Clone)]
pub struct Opened {
    /// The directory was made just now.
    pub fresh: bool,
    /// The process before stopped cleanly.
    pub clean_stop: bool,
    /// The catalog was built again from the journal, and why.
    pub rebuilt: Option<String>,
    /// It was built from a state snapshot, since the journal does not reach back to its first group or need not.
    pub from_snapshot: bool,
    /// A torn tail was cut, and why.
    pub torn: Option<String>,
    /// Groups that were replayed.
    pub groups: u64,
    /// How long it took.
    pub took: Duration,
}

/// Figures of a running store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreFigures {
    /// Bytes of record batches taken since the start.
    pub payload_bytes: u64,
    /// Bytes of the live record batches of all topics.
    pub live_bytes: u64,
    /// Subscriptions of all topics, as of about a second ago.
    pub subscriptions: u64,
    /// Producers that are remembered, likewise.
    pub producers: u64,
    /// Consumer groups of all topics, likewise.
    pub consumer_groups: u64,
    /// Message ids that are remembered, likewise.
    pub message_ids: u64,
    /// Segments that hold something.
    pub segments: u64,
    /// Slots that hold nothing.
    pub free_slots: u64,
    /// Bytes of all slots.
    pub journal_bytes: u64,
    /// Free bytes of the file system.
    pub disk_free_bytes: u64,
    /// Syncs since the start.
    pub syncs: u64,
    /// Microseconds spent in them.
    pub sync_micros: u64,
    /// Bytes of memory in the tail cache.
    pub tail_cache_bytes: u64,
    /// Bytes of memory in what was read from segments lately.
    pub read_windows_bytes: u64,
    /// What was done to give space back.
    pub reclaimed: ReclaimFigures,
}

/// What the reclaimer did since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReclaimFigures {
    /// State snapshots that were written and came to be relied on.
    pub snapshots: u64,
    /// Segments given up because nothing in them lived.
    pub segments_freed: u64,
    /// Segments whose live records were copied into cold ones, and that were given up.
    pub segments_copied: u64,
    /// Cold segments written for that.
    pub cold_segments: u64,
    /// Bytes of records that were copied into them, with their headers.
    pub bytes_copied: u64,
    /// Passes of compaction that came to their end.
    pub compactions: u64,
    /// Records that were taken away on the way: compacted, expired, purged.
    pub records_removed: u64,
    /// Bytes of record batches that are less by that.
    pub bytes_removed: u64,
    /// Slots that held something and were used again.
    pub slots_reused: u64,
    /// Slots that held something and were deleted.
    pub slots_deleted: u64,
}

/// The handle of a store; clones share it. When the last one is dropped the store stops in the
/// background; [`Store::stop`] waits for that and tells how it went.
#[derive(Clone)]
pub struct Store {
    shared: Arc<Shared>,
    queue: Arc<Queue>,
    pool: Arc<pool::SlotPool>,
    applier: Arc<applier::ApplierStatus>,
    readers: Arc<Semaphore>,
    ahead: Arc<ahead::ReadAhead>,
    peer: PeerId,
    name: PeerName,
    /// Who asks through this handle.
    author: Option<Arc<Author>>,
    stopped: Arc<AtomicBool>,
    threads: Arc<std::sync::Mutex<Vec<JoinHandle<()>>>>,
    _stop_when_dropped: Arc<StopWhenDropped>,
}

/// How often a thread that should end is looked at.
const JOIN_EVERY: Duration = Duration::from_millis(1);

/// Ends the writer, and with it the other threads, when nobody can ask for anything any more.
struct StopWhenDropped(Arc<Queue>, Arc<pool::SlotPool>);

impl Drop for StopWhenDropped {
    fn drop(&mut self) {
        self.0.stop();
        self.1.give_up();
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store")
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}

impl Store {
    /// Opens the store in a directory, making it if it is not there. Blocks: recovery happens here.
    ///
    /// # Errors
    /// Everything that keeps a peer from starting, each with what to do about it.
    pub fn open(options: &StoreOptions) -> Result<(Self, Opened), OpenError> {
        open::open(options)
    }

    /// Identity of the peer.
    pub fn peer(&self) -> PeerId {
        self.peer
    }

    /// Name of the peer.
    pub fn name(&self) -> &PeerName {
        &self.name
    }

    /// Appends a batch. `done` hears the outcome when it is durable, or written where that is enough,
    /// on a thread of the store: it must not block. Batches of one topic get offsets in the order of the calls.
    pub fn append(
        &self,
        topic: TopicId,
        terms: impl Into<Terms>,
        batch: CheckedBatch,
        done: Done<Published>,
    ) {
        // Only the writer knows whether it was stored before: then it is no new batch, and refusing it
        // would be a lie. Where the writer may be waiting for the disk, an answer now is worth more.
        let has_identity = !batch.header().producer.is_zero() || batch.header().has_id;
        let may_be_known = has_identity && self.pool.trouble().is_none();
        let refusal = self.refusal().filter(|_| !may_be_known);
        if let Some(refusal) = refusal.or_else(|| self.too_large(&batch)) {
            return done(Err(refusal));
        }
        self.push(Command::Append(Append {
            topic,
            terms: terms.into(),
            batch,
            done,
        }));
    }

    /// [`append`](Self::append), to be awaited.
    ///
    /// # Errors
    /// What the host refuses it with. After `StorageStopped` the outcome is unknown.
    pub async fn publish(
        &self,
        topic: TopicId,
        terms: impl Into<Terms>,
        batch: CheckedBatch,
    ) -> Result<Published, ApiError> {
        let (sender, receiver) = oneshot::channel();
        self.append(
            topic,
            terms,
            batch,
            Box::new(|outcome| drop(sender.send(outcome))),
        );
        receiver.await.unwrap_or_else(|_| Err(self.stopped_error()))
    }

    /// Where a batch was stored before, if it is known that it was. For batches that a rule refuses
    /// which may have been another when they were stored.
    ///
    /// # Errors
    /// Only if the store has stopped.
    pub async fn stored_before(
        &self,
        topic: TopicId,
        terms: impl Into<Terms>,
        batch: &CheckedBatch,
    ) -> Result<Option<Published>, ApiError> {
        let terms = terms.into();
        let facts = staging::facts_of(batch);
        if facts.producer.is_zero() && facts.id.is_none() {
            return Ok(None);
        }
        self.change(topic, move |context| {
            let known = staging::stored_before(context.state, topic, terms, &facts);
            Ok((known, Vec::new()))
        })
        .await
    }

    /// Why nothing can be published now: checked before a batch is queued, so that it costs nothing.
    pub fn refusal(&self) -> Option<ApiError> {
        self.shared.refusal()
    }

    /// A batch has to fit into a slot with what is written around it.
    fn too_large(&self, batch: &CheckedBatch) -> Option<ApiError> {
        let max = self.shared.dir.slot_bytes() as usize / 2;
        (batch.bytes().len() > max).then(|| ApiError::BadBatch {
            reason: format!(
                "{} bytes are too many for a journal with slots of {} bytes: at most {max}",
                batch.bytes().len(),
                self.shared.dir.slot_bytes()
            ),
        })
    }

    fn push(&self, command: Command) {
        match self.queue.push(command) {
            Ok(()) => {}
            Err(Refused::Stopped(command)) => {
                writer::refuse_command(command, &ApiError::stopped(&self.stop_reason()));
            }
            Err(Refused::Full(command)) => {
                let max = limits::APPEND_COMMANDS_WAITING_MAX as u64;
                writer::refuse_command(command, &ApiError::Busy { max });
            }
        }
    }

    fn stop_reason(&self) -> String {
        self.shared
            .failure()
            .unwrap_or_else(|| "the peer is shutting down".to_owned())
    }

    fn stopped_error(&self) -> ApiError {
        ApiError::stopped(&self.stop_reason())
    }

    /// Runs `decide` on the writer's thread and answers when what it changed is durable.
    async fn change<T, F>(&self, topic: TopicId, decide: F) -> Result<T, ApiError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Context<'_>) -> Result<(T, Vec<RowKey>), ApiError> + Send + 'static,
    {
        let (sender, receiver) = oneshot::channel();
        let done: Done<T> = Box::new(|outcome| drop(sender.send(outcome)));
        self.push(Command::Change(Change::new(topic, decide, done)));
        receiver.await.unwrap_or_else(|_| Err(self.stopped_error()))
    }

    fn shared_topic(&self, id: TopicId) -> Result<Arc<TopicShared>, ApiError> {
        self.shared.topic(id).ok_or(ApiError::UnknownTopicId { id })
    }

    /// Told the reason when the store fails: nothing is written or acknowledged any more, the process should end.
    pub fn watch_failure(&self) -> watch::Receiver<Option<String>> {
        self.shared.watch_failure()
    }

    /// Why the store failed, if it did.
    pub fn failure(&self) -> Option<String> {
        self.shared.failure()
    }

    /// Damage found so far, one line each.
    pub fn damage(&self) -> Vec<String> {
        self.shared.damage()
    }

    /// What people should know that is no damage, one line each.
    pub fn notices(&self) -> Vec<String> {
        self.shared.notices()
    }

    /// Figures for `peer info`.
    pub fn figures(&self) -> StoreFigures {
        let shared = &self.shared;
        let registry = &shared.meters.registry;
        let syncs = registry.value(&catalogue::SYNC);
        let (subscriptions, producers, consumer_groups) = shared.meters.stock();
        let segments = shared.segments.count() as u64;
        let free_slots = self.pool.free_slots() as u64;
        StoreFigures {
            payload_bytes: registry.value(&catalogue::BYTES_IN).sum(),
            live_bytes: shared.live_bytes(),
            subscriptions,
            producers,
            consumer_groups,
            message_ids: shared.meters.ids(),
            segments,
            free_slots,
            journal_bytes: (segments + free_slots) * u64::from(shared.dir.slot_bytes()),
            disk_free_bytes: shared.dir.free_bytes().unwrap_or(0),
            syncs: syncs.count(),
            sync_micros: syncs.sum(),
            tail_cache_bytes: shared.tail.bytes() as u64,
            read_windows_bytes: shared.windows.bytes() as u64,
            reclaimed: shared.reclaimed.figures(),
        }
    }

    /// For each class of the length of a sync its upper bound in microseconds, and how many syncs since the start took at
    /// most as long.
    pub fn syncs_within(&self) -> Vec<(u64, u64)> {
        let counted = self.shared.meters.registry.value(&catalogue::SYNC);
        let counts = match counted {
            Value::Histogram { counts, .. } => counts,
            Value::Number(_) => Vec::new(),
        };
        let mut within = 0;
        let bounds = catalogue::SYNC.bounds().iter();
        let classes = bounds.zip(counts).map(|(&bound, count)| {
            within += count;
            (bound, within)
        });
        classes.collect()
    }

    /// Finishes what was asked for, writes the mark of a clean stop, syncs, and ends the threads. Blocks.
    ///
    /// # Errors
    /// Why the store failed, before or while stopping.
    pub fn stop(&self) -> Result<(), String> {
        if !self.stopped.swap(true, Ordering::AcqRel) {
            self.queue.stop();
            self.pool.give_up();
            let threads = std::mem::take(
                &mut *self
                    .threads
                    .lock()
                    .unwrap_or_else(std::sync::PoisonError::into_inner),
            );
            self.join(threads);
        }
        self.shared.failure().map_or(Ok(()), Err)
    }

    /// Waits for the threads to end; when the store has failed not for long, since one may hang in the disk.
    fn join(&self, threads: Vec<JoinHandle<()>>) {
        let mut failed: Option<std::time::Instant> = None;
        for thread in threads {
            while !thread.is_finished() {
                if failed.is_none() && self.shared.failure().is_some() {
                    failed = Some(std::time::Instant::now());
                }
                if failed.is_some_and(|at| at.elapsed() > limits::STOP_AFTER_FAILURE) {
                    tracing::error!("a thread of the store does not end, it is left behind");
                    return;
                }
                std::thread::sleep(JOIN_EVERY);
            }
            if thread.join().is_err() {
                self.shared.fail("a thread of the store panicked");
            }
        }
    }

    fn readable_end(&self, id: TopicId) -> Result<Offset, ApiError> {
        Ok(self.shared_topic(id)?.readable_end())
    }
}
