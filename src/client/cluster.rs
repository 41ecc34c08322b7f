//! What a client knows of the cluster: whom to ask, who hosts what, and the
//! connections to them.
//!
//! *Directory* questions (who hosts T, which peers are there) go to the seeds,
//! then to index servers that peers told of, then to peers known as hosts; the
//! one that answered last is asked first. A known location is used until its host
//! says otherwise or cannot be reached; when nobody can answer a lookup the old
//! location stays.
//!
//! Connections are shared per address and *lane*, so that a long answer to a
//! fetch does not stand before the acknowledgements of a publisher.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::client::{ClientError, ConnectOptions};
use crate::limits;
use crate::net::{CallError, Connection, DialOptions};
use crate::protocol::api::{
    DescribeTopic, HelloAnswer, Lookup, PeerState, Request, Role, TopicLocation,
};
use crate::protocol::error::ApiError;
use crate::types::{Address, TopicName};

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Lane {
    Control,
    Publish,
    Fetch,
    /// Long polls about subscriptions: what waits there must not fill the way of what does not.
    Attend,
}

/// Whether a request changes something: then a lost answer is an unknown outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    Reads,
    Changes,
}

impl Effect {
    pub fn error(self, error: CallError) -> ClientError {
        match self {
            Self::Reads => ClientError::of_read(error),
            Self::Changes => ClientError::of_change(error),
        }
    }
}

/// The place of one connection in the pool.
#[derive(Debug, Default)]
struct Slot {
    connection: Option<Connection>,
    /// How dialling failed last: those who waited for it meanwhile share the result.
    failure: Option<(Instant, CallError)>,
}

type Pool = HashMap<(Address, Lane), Arc<tokio::sync::Mutex<Slot>>>;

/// What the clones of a client share.
#[derive(Debug)]
pub(super) struct Cluster {
    pub options: ConnectOptions,
    /// Who answered first, and what it said.
    seed: (Address, HelloAnswer),
    pool: Mutex<Pool>,
    locations: Mutex<HashMap<TopicName, TopicLocation>>,
    /// Seeds and index servers learned of, the one that answered last in front.
    directory: Mutex<Vec<Address>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn dial_options(options: &ConnectOptions) -> DialOptions {
    DialOptions {
        client: options.name.clone(),
        timeout: limits::DIAL_TIMEOUT.min(options.timeout),
    }
}

impl Cluster {
    pub async fn connect(options: ConnectOptions) -> Result<Self, ClientError> {
        let mut failures = Failures::default();
        for address in &options.seeds {
            match Connection::connect(address, &dial_options(&options)).await {
                Ok(connection) => return Ok(Self::new(options, connection)),
                Err(error) => failures.add(error),
            }
        }
        Err(failures.into_error(Effect::Reads))
    }

    fn new(options: ConnectOptions, connection: Connection) -> Self {
        let seed = connection.hello().clone();
        let address = connection.address().clone();
        let slot = Slot {
            connection: Some(connection),
            failure: None,
        };
        let slot = Arc::new(tokio::sync::Mutex::new(slot));
        let cluster = Self {
            directory: Mutex::new(options.seeds.clone()),
            options,
            pool: Mutex::new(HashMap::from([((address.clone(), Lane::Control), slot)])),
            locations: Mutex::default(),
            seed: (address, seed),
        };
        cluster.learn_directory(&cluster.seed.0, &cluster.seed.1);
        cluster
    }

    pub fn seed(&self) -> &(Address, HelloAnswer) {
        &self.seed
    }

    /// Puts `first` in front, and what it tells of index servers behind.
    fn learn_directory(&self, first: &Address, hello: &HelloAnswer) {
        let mut directory = lock(&self.directory);
        if directory.first() != Some(first) {
            directory.retain(|address| address != first);
            directory.insert(0, first.clone());
        }
        drop(directory);
        self.learn_indexes(hello);
    }

    fn learn_indexes(&self, hello: &HelloAnswer) {
        let mut directory = lock(&self.directory);
        for index in &hello.indexes {
            if !directory.contains(index) && directory.len() < limits::PEERS_ASKED_AT_ONCE {
                directory.push(index.clone());
            }
        }
    }

    // --- connections ---------------------------------------------------------

    /// An open connection, dialled if need be. May be dropped while it waits: the dialling goes on, and who asks next
    /// has what comes of it.
    pub async fn connection(&self, address: &Address, lane: Lane) -> Result<Connection, CallError> {
        let asked = Instant::now();
        let mut slot = self.slot(address, lane).lock_owned().await;
        if let Some(connection) = slot.connection.as_ref().filter(|open| !open.is_closed()) {
            return Ok(connection.clone());
        }
        if let Some((at, failure)) = &slot.failure
            && *at > asked
        {
            return Err(failure.clone());
        }
        let (to, options) = (address.clone(), dial_options(&self.options));
        let dialling = tokio::spawn(async move {
            let dialled = Connection::connect(&to, &options).await;
            slot.connection = dialled.as_ref().ok().cloned();
            slot.failure = dialled.as_ref().err().map(|e| (Instant::now(), e.clone()));
            dialled
        });
        dialling.await.unwrap_or_else(|error| {
            Err(CallError::Unreachable {
                address: address.clone(),
                reason: error.to_string(),
            })
        })
    }

    /// A connection that is shared with nobody: what lasts as long as it ends with its owner.
    pub async fn dial(&self, address: &Address) -> Result<Connection, CallError> {
        Connection::connect(address, &dial_options(&self.options)).await
    }

    fn slot(&self, address: &Address, lane: Lane) -> Arc<tokio::sync::Mutex<Slot>> {
        let mut pool = lock(&self.pool);
        if pool.len() >= limits::CONNECTIONS_POOLED_CHECK {
            pool.retain(|_, slot| {
                let in_use = Arc::strong_count(slot) > 1;
                let slot = slot.try_lock();
                let open = |slot: &Slot| slot.connection.as_ref().is_some_and(|c| !c.is_closed());
                in_use || slot.is_ok_and(|slot| open(&slot))
            });
        }
        pool.entry((address.clone(), lane)).or_default().clone()
    }

    /// Sends a control request to one node.
    pub async fn call<R: Request>(
        &self,
        address: &Address,
        request: &R,
    ) -> Result<R::Answer, CallError> {
        let timeout = limits::ANSWER_TIMEOUT.min(self.options.timeout);
        let connection = self.connection(address, Lane::Control).await?;
        let answer = connection.call(request, timeout).await;
        if matches!(answer, Err(CallError::TimedOut { .. })) {
            // Whoever does not answer for so long is asked anew over another connection.
            connection.close();
        }
        answer
    }

    // --- the directory -------------------------------------------------------

    /// Asks whoever knows: seeds, index servers, then hosts that are known.
    pub async fn ask<R: Request>(
        &self,
        request: &R,
        effect: Effect,
    ) -> Result<R::Answer, ClientError> {
        let mut failures = Failures::default();
        for address in self.directory() {
            match self.call(&address, request).await {
                Ok(answer) => {
                    self.prefer(&address).await;
                    return Ok(answer);
                }
                Err(CallError::Api(error)) if !goes_elsewhere(&error) => return Err(error.into()),
                Err(error) if effect == Effect::Changes && error.may_have_taken_effect() => {
                    return Err(effect.error(error));
                }
                Err(error) => failures.add(error),
            }
        }
        Err(failures.into_error(effect))
    }

    /// Sends a request that only index servers answer, and may be repeated, to the first that does.
    pub async fn ask_index<R: Request>(
        &self,
        request: &R,
        timeout: Duration,
    ) -> Result<R::Answer, ClientError> {
        let mut failures = Failures::default();
        for address in self.directory() {
            let connection = match self.connection(&address, Lane::Control).await {
                Ok(connection) if connection.hello().role == Role::Index => connection,
                Ok(peer) => {
                    self.learn_indexes(peer.hello());
                    continue;
                }
                Err(error) => {
                    failures.add(error);
                    continue;
                }
            };
            match connection.call(request, timeout).await {
                Ok(answer) => return Ok(answer),
                Err(error) => failures.add(error),
            }
        }
        if failures.is_empty() {
            let reason = "the nodes this client knows name none".to_owned();
            return Err(ApiError::IndexUnavailable { reason }.into());
        }
        Err(failures.into_error(Effect::Reads))
    }

    fn directory(&self) -> Vec<Address> {
        let mut addresses = lock(&self.directory).clone();
        let locations = lock(&self.locations);
        for location in locations.values() {
            if addresses.len() >= limits::PEERS_ASKED_AT_ONCE {
                break;
            }
            if !addresses.contains(&location.address) {
                addresses.push(location.address.clone());
            }
        }
        addresses
    }

    async fn prefer(&self, address: &Address) {
        if let Ok(connection) = self.connection(address, Lane::Control).await {
            self.learn_directory(address, connection.hello());
        }
    }

    // --- locations -----------------------------------------------------------

    /// The location used last, if there is one.
    pub fn known(&self, topic: &TopicName) -> Option<TopicLocation> {
        lock(&self.locations).get(topic).cloned()
    }

    pub fn learn(&self, location: TopicLocation) {
        let mut locations = lock(&self.locations);
        if locations.len() >= limits::LOCATIONS_CACHED_MAX {
            locations.clear();
        }
        locations.insert(location.name.clone(), location);
    }

    pub fn forget(&self, topic: &TopicName) {
        lock(&self.locations).remove(topic);
    }

    /// Asks the directory, and remembers the answer.
    pub async fn lookup(&self, topic: &TopicName) -> Result<TopicLocation, ClientError> {
        let request = Lookup {
            name: topic.clone(),
            local_only: false,
        };
        let location = self.ask(&request, Effect::Reads).await?;
        self.learn(location.clone());
        Ok(location)
    }

    /// The known location, or the directory's.
    pub async fn locate(&self, topic: &TopicName) -> Result<TopicLocation, ClientError> {
        match self.known(topic) {
            Some(location) => Ok(location),
            None => self.lookup(topic).await,
        }
    }

    /// Where the topic is, for somebody who stays with it. The host that is remembered is asked first: a topic that was
    /// deleted and made anew under its name is another one.
    pub async fn locate_anew(&self, topic: &TopicName) -> Result<TopicLocation, ClientError> {
        let Some(known) = self.known(topic) else {
            return self.lookup(topic).await;
        };
        let name = topic.clone();
        match self.call(&known.address, &DescribeTopic { name }).await {
            Ok(found) if found.id == known.id => Ok(known),
            Ok(_) => self.lookup(topic).await,
            Err(error) if error.as_api().is_some() && may_have_moved(&error) => {
                self.relocate(&known, &error).await
            }
            // Who waits for the host waits for it there.
            Err(_) => Ok(known),
        }
    }

    /// Where to go after `failed` did not do: where the host said, or where the directory says;
    /// while nobody knows better, the same place again.
    pub async fn relocate(
        &self,
        failed: &TopicLocation,
        error: &CallError,
    ) -> Result<TopicLocation, ClientError> {
        if let CallError::Api(ApiError::NotHosted { name, address, .. }) = error
            && let Ok(location) = self.lookup_at(name, address).await
        {
            return Ok(location);
        }
        match self.lookup(&failed.name).await {
            Ok(location) => Ok(location),
            Err(ClientError::Api(error)) if !error.is_retryable() => Err(error.into()),
            Err(_) => Ok(failed.clone()),
        }
    }

    /// Asks the peer at `address` whether it hosts the topic, and remembers it if so.
    pub async fn lookup_at(
        &self,
        topic: &TopicName,
        address: &Address,
    ) -> Result<TopicLocation, CallError> {
        let request = Lookup {
            name: topic.clone(),
            local_only: true,
        };
        let location = self.call(address, &request).await?;
        self.learn(location.clone());
        Ok(location)
    }

    /// Sends a control request to the host of a topic, wherever that turns out to be.
    pub async fn at_host<R: Request>(
        &self,
        topic: &TopicName,
        request: &R,
        effect: Effect,
    ) -> Result<R::Answer, ClientError> {
        let mut is_fresh = self.known(topic).is_none();
        let mut location = self.locate(topic).await?;
        for _ in 0..limits::REDIRECTS_MAX {
            let error = match self.call(&location.address, request).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            if effect == Effect::Changes && error.may_have_taken_effect() {
                return Err(effect.error(error));
            }
            let is_redirect = matches!(error.as_api(), Some(ApiError::NotHosted { .. }));
            if !is_redirect && (is_fresh || !may_have_moved(&error)) {
                return Err(self.explain(&location, error, effect));
            }
            is_fresh = true;
            location = self.relocate(&location, &error).await?;
        }
        Err(ClientError::Unreachable {
            what: format!("the host of {topic}"),
            reason: format!("{} redirects led nowhere", limits::REDIRECTS_MAX),
        })
    }

    /// A host that does not answer and is known to be away is better explained by that.
    pub fn explain(
        &self,
        location: &TopicLocation,
        error: CallError,
        effect: Effect,
    ) -> ClientError {
        match error {
            CallError::Unreachable { .. } if location.state != PeerState::Online => {
                ClientError::Api(ApiError::PeerNotOnline {
                    peer: location.peer_name.clone(),
                    state: location.state.to_string(),
                })
            }
            error => effect.error(error),
        }
    }
}

/// Whether another node may answer what this one did not.
fn goes_elsewhere(error: &ApiError) -> bool {
    matches!(
        error,
        ApiError::ShuttingDown
            | ApiError::TooManyConnections { .. }
            | ApiError::IndexUnavailable { .. }
            | ApiError::WrongRole { .. }
            | ApiError::Unanswered
            | ApiError::StorageStopped { .. }
    )
}

/// Whether an error of a topic's supposed host may mean that it is hosted elsewhere.
pub(super) fn may_have_moved(error: &CallError) -> bool {
    match error {
        CallError::Api(error) => matches!(
            error,
            ApiError::TopicNotFound { .. }
                | ApiError::UnknownTopicId { .. }
                | ApiError::NotHosted { .. }
                | ApiError::StaleEpoch { .. }
                | ApiError::WrongRole { .. }
                | ApiError::ShuttingDown
                | ApiError::Displaced
        ),
        _ => true,
    }
}

/// What was tried without success; the most telling failure is reported.
#[derive(Default)]
struct Failures {
    refusal: Option<ApiError>,
    others: Vec<CallError>,
}

impl Failures {
    fn add(&mut self, error: CallError) {
        match error {
            CallError::Api(error) => {
                self.refusal.get_or_insert(error);
            }
            error => self.others.push(error),
        }
    }

    fn is_empty(&self) -> bool {
        self.refusal.is_none() && self.others.is_empty()
    }

    fn into_error(mut self, effect: Effect) -> ClientError {
        if let Some(error) = self.refusal {
            return error.into();
        }
        if self.others.len() == 1
            && let Some(only) = self.others.pop()
        {
            return effect.error(only);
        }
        let tried: Vec<String> = self.others.iter().map(CallError::to_string).collect();
        ClientError::Unreachable {
            what: "the cluster".to_owned(),
            reason: match tried.is_empty() {
                true => "no address was given: name an index server or a peer".to_owned(),
                false => tried.join("; "),
            },
        }
    }
}
