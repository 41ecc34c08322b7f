//! A peer that is none: it tells the index of topics that nobody stores.
//!
//! Real ones would each cost the peer a claim and a sync. The index cannot tell
//! the difference, as long as there are heartbeats. It is full, as far as the
//! index knows, so no new topic is put on it; and it leaves in the end.

use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::cli::bench::progress::Counter;
use crate::cli::bench::topics;
use crate::cli::fail::{Failure, Result};
use crate::client::ClientError;
use crate::limits;
use crate::net::{CallError, Connection, DialOptions};
use crate::protocol::api::{
    Depart, Heartbeat, Nonce, PeerLoad, RegisterPeer, RegisterTopics, Request, StoredTopic,
};
use crate::types::{Address, LeaderEpoch, PeerId, PeerName, TopicId, TopicName};

/// How long the index may take with a part of a list, or with letting all of it go.
const PATIENCE: Duration = Duration::from_secs(600);
/// Heartbeats in one lease.
const BEATS_PER_LEASE: u32 = 4;
/// Nobody listens there.
const NOWHERE: &str = "127.0.0.1:9";

/// What is registered; [`leave`](Self::leave) ends it.
#[derive(Debug)]
pub struct Impostor {
    connection: Connection,
    id: PeerId,
    nonce: Nonce,
    /// Its name.
    pub name: PeerName,
    beating: JoinHandle<()>,
}

impl Impostor {
    /// Introduces a peer of that run.
    pub async fn introduce(index: &Address, run: u64) -> Result<Self> {
        let options = DialOptions {
            client: concat!("tidings bench ", env!("CARGO_PKG_VERSION")).to_owned(),
            timeout: limits::DIAL_TIMEOUT,
        };
        let connection = Connection::connect(index, &options).await.map_err(failed)?;
        let (id, nonce) = (
            PeerId::from_bytes(topics::random()?),
            Nonce(topics::random()?),
        );
        let name: PeerName = format!("bench-{run:016x}").parse().expect("made of tokens");
        let introduction = RegisterPeer {
            peer: id,
            name: name.clone(),
            address: NOWHERE.parse().expect("an address"),
            nonce,
            load: PeerLoad::default(),
        };
        let registered = ask(&connection, &introduction).await?;
        let every = Duration::from_millis(registered.lease_ms) / BEATS_PER_LEASE;
        let heartbeat = Heartbeat {
            peer: id,
            nonce,
            load: PeerLoad::default(),
        };
        let beating = tokio::spawn(beat(connection.clone(), heartbeat, every));
        Ok(Self {
            connection,
            id,
            nonce,
            name,
            beating,
        })
    }

    /// Tells that it stores all of those, as a peer does that starts. How long the index took.
    pub async fn register(
        &self,
        names: &[TopicName],
        (counter, stop): (Counter, &CancellationToken),
    ) -> Result<Duration> {
        let mut took = Duration::ZERO;
        let parts = names.chunks(limits::PAGE_ENTRIES_MAX);
        let last = parts.len().saturating_sub(1);
        for (n, names) in parts.enumerate() {
            if stop.is_cancelled() {
                return Err(Failure::interrupted("interrupted"));
            }
            let part = RegisterTopics {
                peer: self.id,
                nonce: self.nonce,
                part: u32::try_from(n).expect("topics are bounded"),
                last: n == last,
                topics: names.iter().map(stored).collect::<Result<_>>()?,
            };
            let began = Instant::now();
            let answer = ask(&self.connection, &part).await?;
            took += began.elapsed();
            counter.add(names.len() as u64);
            if let Some(conflict) = answer.conflicts.first() {
                let text = format!("{} belongs to {}", conflict.name, conflict.holder);
                return Err(Failure::check(text));
            }
        }
        Ok(took)
    }

    /// Leaves for good; its topics are gone then.
    pub async fn leave(self) -> Result {
        let depart = Depart {
            peer: self.id,
            nonce: self.nonce,
            leave: true,
        };
        let left = ask(&self.connection, &depart).await;
        self.beating.abort();
        left.map(drop).map_err(|failure| {
            let name = &self.name;
            let hint = format!("'tidings peer retire {name} --force' removes it and its topics");
            let message = format!("peer {name} stays behind: {}", failure.message);
            Failure { message, ..failure }.hint(hint)
        })
    }
}

fn stored(name: &TopicName) -> Result<StoredTopic> {
    Ok(StoredTopic {
        name: name.clone(),
        id: TopicId::from_bytes(topics::random()?),
        epoch: LeaderEpoch::new(1),
    })
}

/// Until it is aborted, or the index does not want it any more.
async fn beat(connection: Connection, heartbeat: Heartbeat, every: Duration) {
    loop {
        tokio::time::sleep(every).await;
        if connection.call(&heartbeat, PATIENCE).await.is_err() {
            return;
        }
    }
}

async fn ask<R: Request>(connection: &Connection, request: &R) -> Result<R::Answer> {
    connection.call(request, PATIENCE).await.map_err(failed)
}

fn failed(error: CallError) -> Failure {
    match error {
        CallError::Api(error) => ClientError::Api(error).into(),
        error => Failure::server(error.to_string()),
    }
}
