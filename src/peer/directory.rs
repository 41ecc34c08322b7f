//! Who hosts what, as far as this peer can find out.
//!
//! Its own topics first, then the index, then, while no index answers, what was
//! learnt before and what the other peers say. So a client that knows any peer
//! gets along without an index.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::limits;
use crate::net::{CallError, Connection};
use crate::protocol::api::{Lookup, PeerState, TopicLocation};
use crate::protocol::error::ApiError;
use crate::store::Store;
use crate::time::Timestamp;
use crate::types::{Address, TopicName};

use super::registrar::{Registrar, dial_options};

/// An answer of the index is believed for so long without asking again.
const FRESH_FOR: Duration = Duration::from_secs(1);
/// How long another peer may take to say what it has.
const PEER_TIMEOUT: Duration = Duration::from_secs(1);

/// Finds topics.
pub(super) struct Directory {
    store: Store,
    registrar: Arc<Registrar>,
    advertise: Address,
    started: Timestamp,
    cache: Mutex<HashMap<TopicName, (TopicLocation, Instant)>>,
}

impl Directory {
    pub fn new(store: Store, registrar: Arc<Registrar>, advertise: Address) -> Self {
        Self {
            store,
            registrar,
            advertise,
            started: Timestamp::now(),
            cache: Mutex::default(),
        }
    }

    /// Where a topic is that is stored here. One whose name belongs to another topic is not what is
    /// meant by the name.
    pub fn own(&self, name: &TopicName) -> Option<TopicLocation> {
        let stored = self.store.stored_topic(name)?;
        if self.registrar.conflict(stored.id).is_some() {
            return None;
        }
        Some(TopicLocation {
            name: name.clone(),
            id: stored.id,
            epoch: stored.epoch,
            peer: self.store.peer(),
            peer_name: self.store.name().clone(),
            address: self.advertise.clone(),
            state: PeerState::Online,
            since: self.started,
        })
    }

    /// Where a topic is.
    pub async fn find(&self, name: &TopicName) -> Result<TopicLocation, ApiError> {
        if let Some(own) = self.own(name) {
            return Ok(own);
        }
        if let Some(fresh) = self.cached(name, FRESH_FOR) {
            return Ok(fresh);
        }
        match self
            .registrar
            .ask(&Lookup {
                name: name.clone(),
                local_only: false,
            })
            .await
        {
            Ok(location) => {
                self.registrar.meet(location.peer);
                self.remember(&location);
                Ok(location)
            }
            Err(CallError::Api(error)) => {
                self.cache().remove(name);
                Err(error)
            }
            Err(error) => self.find_without_index(name, &error).await,
        }
    }

    async fn find_without_index(
        &self,
        name: &TopicName,
        error: &CallError,
    ) -> Result<TopicLocation, ApiError> {
        if let Some(old) = self.cached(name, Duration::MAX) {
            return Ok(old);
        }
        let mut asking = tokio::task::JoinSet::new();
        for peer in self
            .registrar
            .known_peers()
            .into_iter()
            .take(limits::PEERS_ASKED_MAX)
        {
            asking.spawn(ask_peer(peer.address, name.clone()));
        }
        while let Some(answer) = asking.join_next().await {
            if let Ok(Some(location)) = answer {
                self.remember(&location);
                return Ok(location);
            }
        }
        Err(ApiError::IndexUnavailable {
            reason: error.to_string(),
        })
    }

    fn cached(&self, name: &TopicName, within: Duration) -> Option<TopicLocation> {
        let cache = self.cache();
        let (location, at) = cache.get(name)?;
        (at.elapsed() <= within).then(|| location.clone())
    }

    fn remember(&self, location: &TopicLocation) {
        let mut cache = self.cache();
        if cache.len() >= limits::LOCATIONS_CACHED_MAX {
            // Rarely full, and any entry can be asked for again.
            cache.clear();
        }
        cache.insert(location.name.clone(), (location.clone(), Instant::now()));
    }

    fn cache(&self) -> std::sync::MutexGuard<'_, HashMap<TopicName, (TopicLocation, Instant)>> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What to answer for a topic that is not stored here.
    pub async fn redirect(&self, name: &TopicName) -> ApiError {
        match self.find(name).await {
            Ok(location) if location.peer == self.store.peer() => {
                ApiError::TopicNotFound { name: name.clone() }
            }
            Ok(location) => ApiError::NotHosted {
                name: location.name,
                peer: location.peer_name,
                address: location.address,
                epoch: location.epoch,
            },
            Err(error) => error,
        }
    }
}

async fn ask_peer(address: Address, name: TopicName) -> Option<TopicLocation> {
    let options = dial_options();
    let connection = Connection::connect(&address, &options);
    let connection = tokio::time::timeout(PEER_TIMEOUT, connection)
        .await
        .ok()?
        .ok()?;
    connection
        .call(
            &Lookup {
                name,
                local_only: true,
            },
            PEER_TIMEOUT,
        )
        .await
        .ok()
}
