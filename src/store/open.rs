//! Opening a store: lock, catalog, journal, recovery, threads, and nothing served before all of it is durable.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use thiserror::Error;
use tokio::sync::Semaphore;

use super::applier::{Applier, ApplierStatus};
use super::asker::{Asker, Stop};
use super::command::{Change, Command, Context};
use super::copier::copier;
use super::keeper::{Keeper, publish_sealed};
use super::pool::SlotPool;
use super::queue::Queue;
use super::reclaim::Reclaimer;
use super::recovery::{Base, Layout, Recovered, RecoveryError, recover};
use super::segments::Segment;
use super::shared::Shared;
use super::sync::Syncer;
use super::watchdog;
use super::writer::{Writer, WriterParts, refuse_command};
use super::{Opened, StopWhenDropped, Store, StoreOptions};
use crate::catalog::{
    Applied, Catalog, CatalogError, DirLock, Loaded, LockError, OpenOptions, StoreKind, Verdict,
    check_role,
};
use crate::journal::{JournalDir, JournalError, JournalOptions, ListedSlot};
use crate::limits;
use crate::protocol::codec::Malformed;
use crate::protocol::error::ApiError;
use crate::time::Timestamp;
use crate::topic::{PeerRow, Row, RowChange, RowKey, State};
use crate::types::{PeerId, PeerName, StateNumber, TopicId};

/// Why a store cannot be opened. Nothing that was stored is lost by it.
#[derive(Debug, Error)]
pub enum OpenError {
    /// Another process works in the directory, or it cannot be used at all.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The catalog cannot be used.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The journal cannot be used.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// Recovery could not do its work.
    #[error(transparent)]
    Recovery(#[from] RecoveryError),
    /// A setting makes no sense.
    #[error("{0}")]
    Unsuitable(String),
    /// The store failed before it was open.
    #[error("the store failed while opening: {0}")]
    Failed(String),
}

/// Threads behind the writer may lag by so many groups; then the writer waits.
const GROUPS_IN_FLIGHT: usize = 16;
/// Blocking reads at once.
const READERS: usize = 16;
/// What opening waits for is a handful of syncs.
const OPEN_PATIENCE: Duration = Duration::from_secs(120);

pub(super) fn open(options: &StoreOptions) -> Result<(Store, Opened), OpenError> {
    open_with(options, false)
}

/// Goes on although facts about the peer as a whole are lost, and reports them as damage.
pub(super) fn open_accepting(options: &StoreOptions) -> Result<(Store, Opened), OpenError> {
    open_with(options, true)
}

fn open_with(options: &StoreOptions, accept: bool) -> Result<(Store, Opened), OpenError> {
    let start = Instant::now();
    let lock = DirLock::acquire(&options.data_dir)?;
    check_role(&lock, StoreKind::Peer)?;
    let (dir, slots) = open_journal(options)?;
    let layout = Layout::new(&slots);
    let (catalog, loaded) = open_catalog(&lock, &layout)?;
    check_journal_is_there(&layout, &loaded, options)?;
    let base = base_of(&loaded, &layout, options);
    let (base, mut rebuilt) = match base {
        Ok(base) => (base, None),
        Err(reason) => (empty_base(&layout, options), Some(reason)),
    };
    let accepting = |base| Base {
        accept_missing_facts: accept,
        ..base
    };
    let fresh = layout.is_fresh() && loaded.rows.is_empty();
    let shared = Arc::new(Shared::new(
        dir,
        options.tail_cache_bytes,
        options.reclaim_every,
    ));
    let recovered = match recover(&shared.dir, &layout, accepting(base), shared.tail.pool()) {
        Err(RecoveryError::StaleCatalog { segment }) => {
            // sled went back to an older state of its own: the journal knows better.
            rebuilt = Some(format!(
                "it stands at segment {segment}, which the journal does not have"
            ));
            recover(
                &shared.dir,
                &layout,
                accepting(empty_base(&layout, options)),
                shared.tail.pool(),
            )?
        }
        outcome => outcome?,
    };
    let catalog = match &rebuilt {
        Some(reason) if !fresh => {
            tracing::warn!(%reason, "the catalog is rebuilt from the journal");
            rebuild_catalog(catalog, &lock, &recovered)?
        }
        _ => catalog
            .ok_or_else(|| OpenError::Unsuitable("the catalog cannot be opened".to_owned()))?,
    };
    let opened = Opened {
        fresh,
        clean_stop: recovered.clean_stop,
        from_snapshot: rebuilt.is_some() && recovered.from_snapshot,
        rebuilt: rebuilt.filter(|_| !fresh),
        torn: recovered.torn.clone(),
        groups: recovered.groups,
        took: Duration::ZERO,
    };
    let store = start_store(Parts {
        options,
        lock,
        shared,
        catalog,
        recovered,
    })?;
    Ok((
        store,
        Opened {
            took: start.elapsed(),
            ..opened
        },
    ))
}

/// An empty directory in place of the journal makes no new peer of an old catalog.
fn check_journal_is_there(
    layout: &Layout,
    loaded: &Loaded,
    options: &StoreOptions,
) -> Result<(), OpenError> {
    if !layout.is_fresh() || loaded.rows.is_empty() {
        return Ok(());
    }
    Err(OpenError::Unsuitable(format!(
        "the catalog knows of {} rows and {} holds no segment: is the disk of the journal mounted? \
         To begin anew, move both away",
        loaded.rows.len(),
        options.data_dir.join("journal").display()
    )))
}

fn open_journal(options: &StoreOptions) -> Result<(JournalDir, Vec<ListedSlot>), OpenError> {
    let bounds = limits::SLOT_BYTES_MIN..=limits::SLOT_BYTES_MAX;
    if !bounds.contains(&options.slot_bytes) || !options.slot_bytes.is_multiple_of(4096) {
        return Err(OpenError::Unsuitable(format!(
            "slot size {}: expected a multiple of 4096 from {} to {} bytes",
            options.slot_bytes,
            limits::SLOT_BYTES_MIN,
            limits::SLOT_BYTES_MAX
        )));
    }
    let journal = JournalOptions {
        slot_bytes: u32::try_from(options.slot_bytes).ok(),
        page_cache_only: options.page_cache_only,
        read_only: false,
    };
    Ok(JournalDir::open(
        &options.data_dir.join("journal"),
        &journal,
    )?)
}

/// A catalog that cannot be opened at all is rebuilt like one that is unsound; one of a newer format is not.
fn open_catalog(lock: &DirLock, layout: &Layout) -> Result<(Option<Catalog>, Loaded), OpenError> {
    match Catalog::open(lock, OpenOptions::default()) {
        Ok((catalog, loaded)) => Ok((Some(catalog), loaded)),
        Err(error @ CatalogError::Ruined { .. }) if !layout.is_fresh() => {
            let verdict = Verdict::Unsound {
                reasons: vec![error.to_string()],
            };
            Ok((
                None,
                Loaded {
                    rows: Vec::new(),
                    applied: None,
                    verdict,
                    format: None,
                },
            ))
        }
        Err(error) => Err(error.into()),
    }
}

/// The state as the catalog has it, or why it cannot be believed.
pub(super) fn base_of(
    loaded: &Loaded,
    layout: &Layout,
    options: &StoreOptions,
) -> Result<Base, String> {
    if let Verdict::Unsound { reasons } = &loaded.verdict {
        return Err(reasons.join("; "));
    }
    let Some(applied) = loaded.applied.filter(|_| !loaded.rows.is_empty()) else {
        return Err("it is empty".to_owned());
    };
    let mut state = state_of(&loaded.rows).map_err(|error| error.to_string())?;
    if let Some(name) = &options.name
        && state.peer().name != *name
    {
        state.peer_mut().name = name.clone();
    }
    let _ = layout;
    Ok(Base {
        state,
        applied: Some(applied),
        accept_missing_facts: false,
    })
}

/// Puts rows together to a state.
pub(super) fn state_of(rows: &[(Vec<u8>, Vec<u8>)]) -> Result<State, Malformed> {
    let mut state = State::new(new_peer(PeerId::zero(), placeholder_name()));
    for (key, value) in rows {
        let key = RowKey::decode(key)?;
        let row = Row::decode(&key, value)?;
        state.apply(RowChange {
            key,
            row: Some(row),
        });
    }
    if state.peer().id.is_zero() {
        return Err(Malformed {
            what: "catalog",
            reason: "it has no row about the peer".to_owned(),
        });
    }
    state.take_dirty();
    // A deletion of many rows that a kill interrupted left some that belong to nothing: they are deleted now.
    for (key, _) in rows {
        let key = RowKey::decode(key)?;
        if state.row(&key).is_none() {
            state.mark_dirty(key);
        }
    }
    Ok(state)
}

/// An empty state for the peer the journal belongs to, or for a new one.
pub(super) fn empty_base(layout: &Layout, options: &StoreOptions) -> Base {
    let id = layout
        .owner()
        .unwrap_or_else(|| PeerId::from_bytes(random_id()));
    let name = options.name.clone().unwrap_or_else(|| default_name(id));
    Base {
        state: State::new(new_peer(id, name)),
        applied: None,
        accept_missing_facts: false,
    }
}

fn new_peer(id: PeerId, name: PeerName) -> PeerRow {
    PeerRow {
        id,
        name,
        created: Timestamp::now(),
        state_number: StateNumber::ZERO,
        accepted_state: StateNumber::ZERO,
        snapshot: None,
    }
}

fn placeholder_name() -> PeerName {
    "peer".parse().expect("a fixed name that is a token")
}

/// `peer-` and the first eight digits of the identity.
fn default_name(id: PeerId) -> PeerName {
    let digits = id.to_string();
    format!("peer-{}", &digits[..8])
        .parse()
        .expect("a token of letters, digits and a dash")
}

/// 16 random bytes from the operating system.
pub fn random_id() -> [u8; 16] {
    let mut id = [0; 16];
    getrandom::fill(&mut id)
        .expect("the operating system has random bytes; without them no id is safe");
    id
}

fn rebuild_catalog(
    old: Option<Catalog>,
    lock: &DirLock,
    recovered: &Recovered,
) -> Result<Catalog, OpenError> {
    if let Some(old) = old {
        // What it cannot write at its end does not matter: it is set aside.
        let _ = old.close();
    }
    let rows = recovered.state.all_keys().into_iter().filter_map(|key| {
        let row = recovered.state.row(&key)?;
        Some((key.encode(), row.encode()))
    });
    let applied = Applied {
        segment: recovered.end.segment,
        position: recovered.end.position,
        group: recovered.last_group,
    };
    Ok(Catalog::replace(
        lock,
        OpenOptions::default(),
        rows.collect(),
        Some(applied),
    )?)
}

struct Parts<'a> {
    options: &'a StoreOptions,
    lock: DirLock,
    shared: Arc<Shared>,
    catalog: Catalog,
    recovered: Recovered,
}

fn start_store(parts: Parts<'_>) -> Result<Store, OpenError> {
    let Parts {
        options,
        lock,
        shared,
        catalog,
        recovered,
    } = parts;
    publish_recovered(&shared, &recovered);
    let peer = recovered.state.peer().id;
    let name = recovered.state.peer().name.clone();
    let (last_group, free) = (recovered.last_group, recovered.free.clone());
    let snapshot = recovered.snapshot;
    let left_behind = left_behind(&shared, &recovered);
    let status = Arc::new(ApplierStatus::new(Applied {
        segment: 0,
        position: 0,
        group: 0,
    }));
    let queue = Arc::new(Queue::default());
    // Slots that are free by the state alone are not touched before the catalog has it too (J7).
    let slots = 2 * u64::from(shared.dir.slot_bytes());
    let reserve = options
        .reserve_bytes
        .unwrap_or(slots + RESERVE_BESIDE_SLOTS);
    let next_segment = recovered.next_segment;
    let pool = Arc::new(SlotPool::new(shared.clone(), peer, next_segment, reserve));
    pool.set_snapshot(recovered.snapshot);
    queue_first(&queue, first_change(&recovered));
    let engine = Engine {
        shared: shared.clone(),
        queue: queue.clone(),
        pool: pool.clone(),
        status: status.clone(),
        lock: Arc::new(lock),
    };
    let asker = Asker::new(shared.clone(), pool.clone(), status.clone(), queue.clone());
    let mut threads = engine.start(catalog, recovered, asker.stop.clone())?;
    wait_until_applied(&shared, &status, last_group)?;
    free.into_iter().for_each(|slot| pool.release(slot));
    let run_pool = pool.clone();
    threads.push(engine.spawn("tidings-slots", move || run_pool.run())?);
    if options.reclaim {
        let (copier, copies) = copier(shared.clone(), pool.clone(), asker.stop.clone());
        threads.push(engine.spawn("tidings-copy", move || copier.run())?);
        threads.push(engine.spawn("tidings-reclaim", move || {
            Reclaimer::new(asker, snapshot, Some(copies)).run()
        })?);
        if left_behind >= limits::OPEN_RECLAIM_SEGMENTS {
            wait_until_reclaimed(&shared);
        }
    }
    Ok(Store {
        shared,
        _stop_when_dropped: Arc::new(StopWhenDropped(queue.clone(), pool.clone())),
        queue,
        pool,
        applier: status,
        readers: Arc::new(Semaphore::new(READERS)),
        ahead: Arc::default(),
        peer,
        name,
        author: None,
        stopped: Arc::new(AtomicBool::new(false)),
        threads: Arc::new(Mutex::new(threads)),
    })
}

/// What the threads have in common.
struct Engine {
    shared: Arc<Shared>,
    queue: Arc<Queue>,
    pool: Arc<SlotPool>,
    status: Arc<ApplierStatus>,
    /// The directory belongs to this process until everything that writes has ended.
    lock: Arc<DirLock>,
}

impl Engine {
    fn start(
        &self,
        catalog: Catalog,
        recovered: Recovered,
        stop: Arc<Stop>,
    ) -> Result<Vec<JoinHandle<()>>, OpenError> {
        let (to_sync, written) = sync_channel(GROUPS_IN_FLIGHT);
        let (to_keeper, jobs) = sync_channel(GROUPS_IN_FLIGHT);
        let (to_applier, deltas) = sync_channel(1);
        self.shared.meters.take_stock(&recovered.state);
        // Not one of those that are waited for: it ends when the others have gone.
        let watched = Arc::downgrade(&self.shared);
        spawn("tidings-watch", move || watchdog::run(&watched))?;
        let writer = Writer::new(WriterParts {
            last_group: recovered.last_group,
            previous_end: recovered.end,
            open: recovered.prepared,
            state: recovered.state,
            shared: self.shared.clone(),
            queue: self.queue.clone(),
            pool: self.pool.clone(),
            syncer: to_sync,
            keeper: to_keeper,
            applier: self.status.clone(),
        });
        let shared = self.shared.clone();
        let syncer = Syncer {
            shared,
            written,
            catalog: to_applier,
        };
        let applier = Applier {
            catalog,
            deltas,
            status: self.status.clone(),
            shared: self.shared.clone(),
        };
        let keeper = Keeper {
            shared: self.shared.clone(),
            queue: self.queue.clone(),
            pool: self.pool.clone(),
            jobs,
        };
        let pool = self.pool.clone();
        Ok(vec![
            self.spawn("tidings-writer", move || {
                // However it ends: the others wait for it, and hold the lock of the directory.
                let _others = OnEnd(|| {
                    pool.stop();
                    stop.stop();
                });
                writer.run();
            })?,
            self.spawn("tidings-sync", move || syncer.run())?,
            self.spawn("tidings-catalog", move || applier.run())?,
            self.spawn("tidings-keeper", move || keeper.run())?,
        ])
    }

    fn spawn(
        &self,
        name: &str,
        work: impl FnOnce() + Send + 'static,
    ) -> Result<JoinHandle<()>, OpenError> {
        let (lock, shared, queue) = (self.lock.clone(), self.shared.clone(), self.queue.clone());
        let thread = name.to_owned();
        spawn(name, move || {
            if catch_unwind(AssertUnwindSafe(work)).is_err() {
                // What it owned is gone: whoever waits for it has to hear of it (J12).
                let reason = format!("the thread {thread} panicked");
                shared.fail(&reason);
                queue.stop();
                for command in queue.drain() {
                    refuse_command(command, &ApiError::stopped(&reason));
                }
            }
            drop(lock);
        })
    }
}

/// Does something when it goes, after a panic too.
struct OnEnd<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnEnd<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// Kept free beside two slots: room for the catalog to grow and be rebuilt, in bytes.
const RESERVE_BESIDE_SLOTS: u64 = 64 * limits::MIB as u64;

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, OpenError> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(work)
        .map_err(|error| OpenError::Unsuitable(format!("cannot start the thread {name}: {error}")))
}

/// Readers find everything below the stream's end: it is durable.
fn publish_recovered(shared: &Shared, recovered: &Recovered) {
    shared
        .synced_group
        .store(recovered.last_group, Ordering::Release);
    for topic in recovered.state.topics() {
        shared.publish_topic(topic, None);
        for (name, row) in &topic.subscriptions {
            shared.attendance.follow(topic.id, name, row);
        }
    }
    for line in &recovered.damage {
        shared.report_damage(line.clone());
    }
    let mut fresh: std::collections::HashMap<u64, &crate::journal::Footer> = recovered
        .footers
        .iter()
        .map(|(number, footer)| (*number, footer))
        .collect();
    for sealed in &recovered.sealed {
        let row = recovered.state.segments().get(&sealed.number).copied();
        let segment = Segment::new(sealed.header, row);
        let footer = match fresh.remove(&sealed.number) {
            Some(footer) => Ok(Some(Arc::new(footer.clone()))),
            None => shared.segments.footer(&segment, &shared.dir),
        };
        match footer {
            Ok(Some(footer)) => publish_sealed(shared, segment, footer),
            Ok(None) => {}
            Err(error) => {
                shared.report_damage(format!(
                    "segment {}: its footer cannot be read: {error}",
                    sealed.number
                ));
                shared.segments.put(segment);
            }
        }
    }
}

/// The first state entry of this life: segments that were sealed just now, `os` topics at their bounds, quarantines.
struct FirstChange {
    peer_keys: Vec<RowKey>,
    jumping: Vec<TopicId>,
    quarantined: Vec<TopicId>,
}

fn first_change(recovered: &Recovered) -> FirstChange {
    let mut peer_keys = vec![RowKey::Peer];
    peer_keys.extend(
        recovered
            .footers
            .iter()
            .map(|(number, _)| RowKey::Segment(*number)),
    );
    let jumps = |topic: &&crate::topic::Topic| topic.row.bound.is_some() && !recovered.clean_stop;
    FirstChange {
        peer_keys,
        jumping: recovered
            .state
            .topics()
            .filter(jumps)
            .map(|topic| topic.id)
            .collect(),
        quarantined: recovered
            .state
            .topics()
            .filter(|topic| topic.row.quarantine.is_some())
            .map(|topic| topic.id)
            .collect(),
    }
}

fn queue_first(queue: &Queue, first: FirstChange) {
    let push = |topic: TopicId, decide: Decide| {
        let change = Change::new(topic, decide, Box::new(|_: Result<(), ApiError>| {}));
        // A queue that was made just now takes all of it: the writer does not run yet.
        queue.push_own(Command::Change(change));
    };
    for id in first.quarantined {
        push(id, Box::new(move |_| Ok(((), vec![RowKey::Topic(id)]))));
    }
    for id in first.jumping {
        push(
            id,
            Box::new(move |context| {
                let topic = context.state.topic_mut(id)?;
                topic.jump_to_bound();
                let shared = context.shared.publish_topic(topic, None);
                shared.set_durable(topic.row.end);
                Ok(((), vec![RowKey::Topic(id)]))
            }),
        );
    }
    let keys = first.peer_keys;
    push(TopicId::zero(), Box::new(move |_| Ok(((), keys))));
}

type Decide = Box<dyn FnOnce(&mut Context<'_>) -> Result<((), Vec<RowKey>), ApiError> + Send>;

/// The catalog follows before anything is served: no later recovery has to look at what this one did.
fn wait_until_applied(
    shared: &Shared,
    status: &ApplierStatus,
    group: u64,
) -> Result<(), OpenError> {
    let deadline = Instant::now() + OPEN_PATIENCE;
    while status.applied().group <= group {
        if let Some(reason) = shared.failure() {
            return Err(OpenError::Failed(reason));
        }
        if Instant::now() > deadline {
            return Err(OpenError::Failed(
                "the catalog did not follow the journal within two minutes".to_owned(),
            ));
        }
        std::thread::sleep(Duration::from_micros(200));
    }
    Ok(())
}

/// Segments that a start left behind hardly filled: what is worth looking at before going on.
fn left_behind(shared: &Shared, recovered: &Recovered) -> u64 {
    let short = shared.dir.slot_bytes() / 4;
    let rows = recovered.state.segments().values();
    rows.filter(|row| row.end < short && !row.damaged).count() as u64
}

/// A peer that is killed again and again must not grow by every start: what the last ones left behind is given
/// back before anything is served, as far as that goes quickly.
fn wait_until_reclaimed(shared: &Shared) {
    let deadline = Instant::now() + limits::OPEN_RECLAIM_PATIENCE;
    while shared.reclaimable.load(Ordering::Acquire) >= limits::OPEN_RECLAIM_SEGMENTS
        && shared.failure().is_none()
        && Instant::now() < deadline
    {
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Whether a directory holds a peer's store.
pub fn is_peer_dir(dir: &Path) -> bool {
    dir.join("journal").is_dir() || dir.join("catalog").is_dir()
}
