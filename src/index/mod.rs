//! The index server: who hosts what.
//!
//! ```text
//!   connections                        keeper (one thread)
//!   ------------                       -------------------
//!   Register.. Claim.. Heartbeat ----> takes all that waits, applies it to the
//!     bounded queue                    registry's State, writes the union of the
//!                                      changed rows with one sync,
//!   Lookup ListTopics ListPeers <----- shows it in the Directory,
//!     read lock, short                 answers everybody
//!   Watch: long poll <---------------- tells the new version
//! ```
//!
//! Invariants:
//!
//! 1. **One thread owns the state and the store** (`keeper`). It may block on
//!    the disk; nobody waits for it but those whose commands it has.
//! 2. **An answer that relied on a change goes out after the change is durable**,
//!    refusals included: what they are based on could otherwise be taken back.
//! 3. **What is not durable is not shown** (`published`): lookups, listings and
//!    watches read the directory, which is brought up to date after the sync.
//! 4. **Lookups never wait for the disk.** They share a lock with the keeper only
//!    while it copies changed entries, at most [`limits::SHOW_BUCKETS_MAX`] buckets
//!    of some 15 topics at a time.
//! 5. **A store that fails ends the process**: after a failed or over-long write
//!    nobody knows what is on the disk, so nothing is answered from it any more.
//! 6. **Leases run by a clock that never jumps**, from ticks in the same queue as
//!    the heartbeats, so a heartbeat that came first counts first.
//! 7. **A long list holds nobody up.** It is taken step by step, and what else waits is
//!    applied, written and answered between two steps; what is true after each, and what
//!    a crash leaves, is argued in `registry::jobs`.
//!
//! A readers' lock rather than copies swapped in and out: at a million topics a
//! copy is 100 MB, and a read lock costs an uncontended atomic operation, which
//! is little beside decoding the request and writing the answer.
//!
//! The registry is derived from what peers store. A store that is damaged or
//! gone is therefore no disaster: an unsound one is set aside and the index
//! starts empty, and at their next heartbeats the peers register again.
//!
//! Deliberately missing: more than one index server; the commands are already
//! what an agreed log would carry.

mod figures;
mod keeper;
mod published;
mod service;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::MissedTickBehavior;
use tracing::{error, info, warn};

use crate::catalog::{
    CatalogError, DirLock, LockError, OpenOptions, RegistryStore, StoreKind, Verdict, check_role,
};
use crate::figures::{Registry, Together, catalogue};
use crate::limits;
use crate::net::shutdown::CancellationToken;
use crate::net::{Server, Surroundings, Traffic};
use crate::registry::rows::Loader;
use crate::registry::{Command, Directory, Settings};
use crate::types::Address;
use figures::{IndexFigures, ROLE};
use keeper::{Clock, Keeper, Opened, Waiting};
use published::Published;
use service::IndexService;

/// What can be chosen about an index server.
#[derive(Debug, Clone)]
pub struct IndexOptions {
    /// Where it keeps its registry; made if it is missing.
    pub data_dir: PathBuf,
    /// A peer that gives no sign of life for so long is down.
    pub lease: Duration,
    /// The index servers of this cluster, told to clients: usually its own address.
    pub indexes: Vec<Address>,
    /// How the store is opened.
    pub store: OpenOptions,
}

impl IndexOptions {
    /// The usual choices for a data directory.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            lease: limits::LEASE_DEFAULT,
            indexes: Vec::new(),
            store: OpenOptions::default(),
        }
    }

    fn settings(&self) -> Settings {
        Settings {
            lease: self.lease,
            claim_kept: limits::CLAIM_KEPT_FOR,
            stall: self.lease / 2,
            step_entries: limits::INDEX_STEP_ENTRIES,
        }
    }

    /// Several in a lease and in the time that counts as a stall.
    fn tick_every(&self) -> Duration {
        (self.lease / 8).clamp(limits::TICK_EVERY_MIN, limits::TICK_EVERY_MAX)
    }
}

/// Why an index server could not start, or ended.
#[derive(Debug, Error)]
pub enum IndexError {
    /// The data directory cannot be used. Nothing was changed.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The registry could not be opened, or a change of it failed: then what of it
    /// reached the disk is unknown, and nothing that relied on it was answered.
    #[error("the registry: {0}")]
    Store(#[from] CatalogError),
    /// The system gives no thread.
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
    /// A defect of this program ended the keeper; the registry on disk is sound.
    #[error("the thread that keeps the registry ended by a panic")]
    Panicked,
}

/// An index server whose registry is open, ready to serve.
pub struct Index {
    published: Arc<Published>,
    commands: mpsc::Sender<Waiting>,
    ended: oneshot::Receiver<Result<(), CatalogError>>,
    registry: Arc<Registry>,
    options: IndexOptions,
}

impl Index {
    /// Locks the data directory and loads the registry. Blocks.
    pub fn open(options: IndexOptions) -> Result<Self, IndexError> {
        let lock = DirLock::acquire(&options.data_dir)?;
        check_role(&lock, StoreKind::Index)?;
        let clock = Clock::start();
        let opened = open_store(&lock, &options, &clock)?;
        Self::start(options, opened, (lock, clock))
    }

    /// Starts the keeper on a registry that is loaded.
    fn start(
        options: IndexOptions,
        opened: Opened,
        (lock, clock): (DirLock, Clock),
    ) -> Result<Self, IndexError> {
        let version = first_version(&clock);
        let directory = Directory::new(&opened.state, version);
        info!(
            data_dir = %options.data_dir.display(),
            topics = directory.topics(),
            peers = opened.state.peers(),
            "registry loaded"
        );
        let published = Arc::new(Published::new(directory));
        let (commands, waiting) = mpsc::channel(limits::INDEX_COMMANDS_WAITING_MAX);
        let (end, ended) = oneshot::channel();
        let registry: Arc<Registry> = Arc::default();
        let commit = catalogue::INDEX_COMMIT.histogram(&*registry);
        let mut keeper = Keeper::new(opened, published.clone(), (clock, commit));
        thread::Builder::new()
            .name("index-keeper".to_owned())
            .spawn(move || {
                let outcome = keeper.run(waiting);
                let outcome = outcome.and_then(|()| keeper.close());
                drop(lock);
                // Nobody listens if the server was given up before.
                let _ = end.send(outcome);
            })
            .map_err(IndexError::Thread)?;
        Ok(Self {
            published,
            commands,
            ended,
            registry,
            options,
        })
    }

    /// Serves until `stop` is cancelled, or the store fails.
    pub async fn serve(
        self,
        listener: TcpListener,
        stop: CancellationToken,
    ) -> Result<(), IndexError> {
        self.serve_with(listener, stop, Surroundings::default())
            .await
    }

    /// The same beside other servers of the process. It is on their board when this returns, and serves
    /// while what is returned is awaited.
    pub fn serve_with(
        self,
        listener: TcpListener,
        stop: CancellationToken,
        surroundings: Surroundings,
    ) -> impl Future<Output = Result<(), IndexError>> {
        let tick_every = self.options.tick_every();
        // Its own, so that a failing store can end the server and nobody else.
        let stop = stop.child_token();
        // Without times: those it counts are of publishing and fetching.
        let traffic: Arc<Traffic> = Arc::default();
        let figures = Arc::new(IndexFigures {
            published: self.published,
            registry: self.registry,
            traffic: traffic.clone(),
            surroundings: surroundings.clone(),
            told: Together::default(),
            watchers: Arc::new(Semaphore::new(limits::WATCHERS_MAX)),
            commands: self.commands.downgrade(),
            stop: stop.clone(),
        });
        let shown = surroundings.board.show(ROLE, figures.clone());
        let service = IndexService::new(figures, self.commands.clone(), self.options.indexes);
        let server = Server::new(Arc::new(service), stop.clone())
            .with_traffic(traffic)
            .with_budget(surroundings.budget.clone());
        let keeper = (self.commands, self.ended);
        async move {
            let _shown = shown;
            serve_to_end(server.run(listener), keeper, (tick_every, stop)).await
        }
    }
}

/// Serves and lets time pass until either the server or the keeper ends.
async fn serve_to_end(
    serving: impl Future<Output = ()>,
    (commands, mut ended): (
        mpsc::Sender<Waiting>,
        oneshot::Receiver<Result<(), CatalogError>>,
    ),
    (tick_every, stop): (Duration, CancellationToken),
) -> Result<(), IndexError> {
    tokio::pin!(serving);
    let early = tokio::select! {
        () = &mut serving => None,
        () = tick(&commands, tick_every) => None,
        outcome = &mut ended => Some(outcome),
    };
    if early.is_some() {
        error!("the registry can no longer be kept: the index server ends");
        stop.cancel();
        serving.await;
    }
    // The keeper ends when nobody can send it a command any more.
    drop(commands);
    let outcome = match early {
        Some(outcome) => outcome,
        None => ended.await,
    };
    match outcome {
        Ok(outcome) => outcome.map_err(IndexError::Store),
        Err(_) => Err(IndexError::Panicked),
    }
}

/// Lets time pass in the registry, for as long as somebody keeps it.
async fn tick(commands: &mpsc::Sender<Waiting>, every: Duration) {
    let mut interval = tokio::time::interval(every);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        // A full queue means that commands wait which have to count first.
        let _ = commands.try_send(Waiting::unanswered(Command::Tick));
    }
}

fn open_store(
    lock: &DirLock,
    options: &IndexOptions,
    clock: &Clock,
) -> Result<Opened, CatalogError> {
    let empty = || Loader::new(options.settings(), clock.now());
    let mut loader = empty();
    let (mut store, loaded) =
        RegistryStore::open_each(lock, options.store, |row| loader.take(row))?;
    if let Verdict::Unsound { reasons } = loaded.verdict {
        for reason in reasons {
            warn!(reason, "the stored registry is unsound");
        }
        warn!("the registry starts empty, the old one is set aside; peers will register again");
        // What came before the verdict is not to be trusted, and the files have to be closed.
        loader = empty();
        drop(store);
        store = RegistryStore::replace(lock, options.store, Vec::new())?;
    }
    let (state, layout, found) = loader.finish();
    for line in &found.unreadable {
        warn!(
            line,
            "a row of the registry was left out; peers will register again"
        );
    }
    if found.unfinished {
        warn!("a change of the registry was written in part only; peers will register again");
    }
    if found.left_out > 0 {
        let entries = found.left_out;
        warn!(
            entries,
            "entries of the registry were left out; peers will register again"
        );
    }
    Ok(Opened {
        state,
        layout,
        store: Box::new(store),
        repairs: found.effects,
    })
}

/// Above every version that an earlier process told: changes come slower than a
/// thousand in a millisecond.
fn first_version(clock: &Clock) -> u64 {
    u64::try_from(clock.now().wall.as_millis()).unwrap_or(0) << 10
}

/// Opens the registry off the async workers, says so, and serves.
pub async fn run(
    options: IndexOptions,
    listener: TcpListener,
    stop: CancellationToken,
    ready: impl FnOnce(),
) -> Result<(), IndexError> {
    let opening = tokio::task::spawn_blocking(move || Index::open(options));
    let index = opening.await.map_err(|_| IndexError::Panicked)??;
    ready();
    index.serve(listener, stop).await
}
