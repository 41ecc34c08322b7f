//! A peer: hosts topics, serves clients and other peers, tells the index what it has.
//!
//! ```text
//!   connections ──> service ──> store          publish, fetch, subscriptions: no index involved
//!                      │
//!                      ├──────> directory ──>  who hosts what: own topics, cache, index, other peers
//!                      └──────> registrar ──>  the index: register, heartbeat, claim, depart
//! ```
//!
//! Invariants:
//!
//! 1. **The peer is the truth about its topics.** What the index says is derived; a lost index is told everything again.
//! 2. **No index, no new names; all else goes on.** Publishing, reading, committing and deleting never ask the index.
//! 3. **A topic that is not here is a redirect or an error**, never a silent proxy.
//! 4. **A displaced process stops publishing**: two processes on copies of one directory never both append.
//! 5. **A store that failed ends the process**: what it would answer afterwards nobody could rely on.
//!
//! Deliberately missing: replication, moving topics, and who may do what.

mod consumers;
mod creating;
mod directory;
mod ends;
mod figures;
mod known;
mod later;
mod registrar;
mod service;
mod streaming;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::net::TcpListener;
use tracing::{error, info};

use crate::limits;
use crate::net::shutdown::CancellationToken;
use crate::net::{Server, Surroundings, Traffic};
use crate::store::{OpenError, Opened, Store, StoreOptions};
use crate::types::{Address, PeerId, PeerName};
use consumers::Desks;
use directory::Directory;
use figures::{Parts, PeerFigures, ROLE};
use later::Later;
use registrar::{Registrar, RegistrarOptions};
use service::PeerService;

/// What can be chosen about a peer.
#[derive(Debug, Clone)]
pub struct PeerOptions {
    /// Its storage.
    pub store: StoreOptions,
    /// Where clients and other peers reach it.
    pub advertise: Address,
    /// The index servers; none: it serves what it has, and nothing can be created.
    pub indexes: Vec<Address>,
    /// How often it tells the index that it lives.
    pub heartbeat: Duration,
    /// Leave for good when stopped: its topics' names are free again.
    pub leave: bool,
    /// Largest message taken, in bytes.
    pub message_bytes_max: usize,
}

impl PeerOptions {
    /// The usual choices.
    pub fn new(store: StoreOptions, advertise: Address) -> Self {
        Self {
            store,
            advertise,
            indexes: Vec::new(),
            heartbeat: limits::HEARTBEAT_EVERY_DEFAULT,
            leave: false,
            message_bytes_max: limits::MESSAGE_BYTES_DEFAULT,
        }
    }
}

/// Why a peer could not start, or ended.
#[derive(Debug, Error)]
pub enum PeerError {
    /// The store cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A choice makes no sense.
    #[error("{0}")]
    Unsuitable(String),
    /// The store failed; nothing was acknowledged after that.
    #[error("storage stopped: {0}")]
    Storage(String),
}

/// A peer whose store is open, ready to serve.
pub struct Peer {
    store: Store,
    options: PeerOptions,
}

impl Peer {
    /// Opens the store. Blocks: recovery happens here.
    pub fn open(options: PeerOptions) -> Result<(Self, Opened), PeerError> {
        check(&options)?;
        let (store, opened) = Store::open(&options.store)?;
        log_opened(&store, &opened);
        Ok((Self { store, options }, opened))
    }

    /// Its name.
    pub fn name(&self) -> &PeerName {
        self.store.name()
    }

    /// Its identity.
    pub fn id(&self) -> PeerId {
        self.store.peer()
    }

    /// Its store, for programs that host a peer themselves.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Serves until `stop` is cancelled, or the store fails. Then it finishes what is in flight, tells the
    /// index, and stops the store cleanly.
    pub async fn serve(
        self,
        listener: TcpListener,
        stop: CancellationToken,
    ) -> Result<(), PeerError> {
        self.serve_with(listener, stop, Surroundings::default())
            .await
    }

    /// The same beside other servers of the process.
    pub async fn serve_with(
        self,
        listener: TcpListener,
        stop: CancellationToken,
        surroundings: Surroundings,
    ) -> Result<(), PeerError> {
        // Its own, so that a failing store ends this server and nobody else's.
        let stop = stop.child_token();
        let traffic = Arc::new(Traffic::new(&**self.store.registry()));
        let registrar = Registrar::new(RegistrarOptions {
            store: self.store.clone(),
            traffic: traffic.clone(),
            advertise: self.options.advertise.clone(),
            indexes: self.options.indexes.clone(),
            heartbeat: self.options.heartbeat,
        });
        let directory = Arc::new(Directory::new(
            self.store.clone(),
            registrar.clone(),
            self.options.advertise.clone(),
        ));
        let of_index = (registrar.clone(), directory.clone());
        let consumers = Desks::new(self.store.clone(), of_index.clone(), stop.clone());
        let later = Later::new(self.store.clone(), of_index, stop.clone());
        let figures = Arc::new(PeerFigures::new(Parts {
            store: self.store.clone(),
            registrar: registrar.clone(),
            consumers: consumers.clone(),
            later: later.clone(),
            traffic: traffic.clone(),
            surroundings: surroundings.clone(),
            stop: stop.clone(),
        }));
        let _shown = surroundings.board.show(ROLE, figures.clone());
        let service = PeerService::new(
            self.store.clone(),
            (registrar.clone(), directory),
            (figures, consumers.clone(), later.clone()),
            &self.options,
        );
        let ticking = tokio::spawn(consumers.clone().run());
        let delivering = tokio::spawn(later.run());
        let registering = tokio::spawn(registrar.clone().run(stop.clone()));
        let failing = tokio::spawn(stop_on_failure(self.store.clone(), stop.clone()));
        let server = Server::new(Arc::new(service), stop.clone())
            .with_budget(surroundings.budget.clone())
            .with_traffic(traffic);
        server.run(listener).await;
        stop.cancel();
        failing.abort();
        let _ = registering.await;
        let _ = ticking.await;
        let _ = delivering.await;
        registrar.depart(self.options.leave).await;
        consumers.close();
        let store = self.store.clone();
        let stopped = tokio::task::spawn_blocking(move || store.stop()).await;
        match stopped {
            Ok(Ok(())) => {
                info!(peer = %self.store.name(), "peer stopped");
                Ok(())
            }
            Ok(Err(reason)) => Err(PeerError::Storage(reason)),
            Err(_) => Err(PeerError::Storage(
                "the thread that stops the store panicked".to_owned(),
            )),
        }
    }
}

fn check(options: &PeerOptions) -> Result<(), PeerError> {
    let message = options.message_bytes_max;
    if message == 0 || message > limits::MESSAGE_BYTES_MAX {
        return Err(PeerError::Unsuitable(format!(
            "largest message of {message} bytes: expected 1 to {} bytes",
            limits::MESSAGE_BYTES_MAX
        )));
    }
    let slot = options.store.slot_bytes;
    if (limits::batch_bytes_max(message) as u64).saturating_mul(4) > slot.saturating_mul(3) {
        return Err(PeerError::Unsuitable(format!(
            "a slot of {slot} bytes is too small for messages of {message} bytes: make the slots larger or the messages smaller"
        )));
    }
    Ok(())
}

fn log_opened(store: &Store, opened: &Opened) {
    let millis = u64::try_from(opened.took.as_millis()).unwrap_or(u64::MAX);
    info!(
        peer = %store.name(),
        id = %store.peer(),
        topics = store.topic_count(),
        groups = opened.groups,
        clean_stop = opened.clean_stop,
        millis,
        "store opened"
    );
    if let Some(torn) = &opened.torn {
        info!(reason = %torn, "a torn tail was cut: nothing of it had been acknowledged");
    }
}

/// Nothing can be served from a store that failed.
async fn stop_on_failure(store: Store, stop: CancellationToken) {
    let mut failure = store.watch_failure();
    if failure.wait_for(Option::is_some).await.is_ok() {
        error!("the store failed, the peer ends");
        stop.cancel();
    }
}
