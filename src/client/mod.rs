//! The client library: publish, subscribe and administer.
//!
//! ```no_run
//! use tidings::client::{Client, ConnectOptions, Message, NewTopic, PublisherOptions};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::connect(ConnectOptions::new(vec!["127.0.0.1:7400".parse()?])).await?;
//! let topic = "quakes.ci".parse()?;
//! client.create_topic(&NewTopic::new(topic)).await?;
//!
//! let topic = "quakes.ci".parse()?;
//! let publisher = client.publisher(&topic, PublisherOptions::default()).await?;
//! let ack = publisher.send(Message::new("a small one")).await?;
//! println!("stored at offset {}", ack.await?.offset);
//! publisher.close().await?;
//! # Ok(())
//! # }
//! ```
//!
//! A [`Client`] goes in through index servers or any peer, finds out who hosts a
//! topic, remembers it, and then talks to that peer directly. It is cheap to clone;
//! clones share connections and what they know.
//!
//! ```text
//!   Client ── admin calls ─────────────┐
//!     ├── Publisher ── one task ───────┼──► cluster: locations, connections ──► net::dial
//!     │     └ DelayedPublisher: to the companion of a topic
//!     ├── Subscriber ──────────────────┤
//!     │     └ a durable one: a task that attends its subscription
//!     ├── PatternSubscriber ── jobs ───┤
//!     └── Member ── one task ──────────┘
//! ```
//!
//! Invariants:
//!
//! 1. **An outcome is never guessed.** What may have been carried out and was not
//!    answered is [`ClientError::OutcomeUnknown`]; every other error means that
//!    nothing happened, or says what did.
//! 2. **A publisher's retries make no duplicates**: a batch goes out again only
//!    under the producer id and sequence it had, or after its host said that it is
//!    not stored.
//! 3. **A subscriber never jumps**: offsets follow each other, or a
//!    [`Gap`](crate::types::Gap) says what is missing, or there is an error.
//! 4. **Memory is bounded**: a publisher holds at most
//!    [`memory_bytes_max`](PublisherOptions::memory_bytes_max) and a sixteenth of it to build batches in, a subscriber
//!    [`window_bytes`](SubscriberOptions::window_bytes) and one answer, a member of a group
//!    the [buffer](MemberOptions::buffer_records) it is given.
//! 5. **What is known is used**: while no index answers, known locations go on working.
//!
//! Absent on purpose: blocking calls.

mod admin;
mod attendance;
mod backoff;
mod cluster;
mod error;
mod groups;
mod later;
mod member;
mod options;
mod pattern;
mod publisher;
mod route;
mod subscriber;

pub use admin::{NewTopic, TopicReport};
pub use error::ClientError;
pub use later::{DelayedMessages, DelayedPublisher};
pub use member::{Member, MemberDelivery, MemberOptions, Missed, NewGroup, NotSettled};
pub use options::ConnectOptions;
pub use pattern::{PatternEvent, PatternOptions, PatternStart, PatternSubscriber, TopicDeliveries};
pub use publisher::{
    Ack, Acked, AckedRun, Message, Publisher, PublisherOptions, RunAck, TimeToLive,
};
pub use subscriber::{
    Delivery, DeliveryRef, ReceivedRecord, ReceivedRef, Subscriber, SubscriberOptions,
};

pub use crate::protocol::batch::{Compression, Header};

use std::sync::Arc;
use std::time::Duration;

use crate::protocol::api::{HelloAnswer, Role};
use crate::types::Address;
use backoff::Backoff;
use cluster::Cluster;

/// A way into a cluster. See the [module](self).
#[derive(Debug, Clone)]
pub struct Client {
    cluster: Arc<Cluster>,
}

impl Client {
    /// Connects to the first of the seeds that answers.
    pub async fn connect(options: ConnectOptions) -> Result<Self, ClientError> {
        Ok(Self {
            cluster: Arc::new(Cluster::connect(options).await?),
        })
    }

    /// The same, trying on for at most `patience` while nobody answers. `waiting` is told once, why.
    pub async fn connect_within(
        options: ConnectOptions,
        patience: Duration,
        waiting: impl FnOnce(&ClientError),
    ) -> Result<Self, ClientError> {
        insist(patience, waiting, async || {
            Self::connect(options.clone()).await
        })
        .await
    }

    /// What the node said of itself through which this client came in: its role, its name, the
    /// index servers it knows.
    pub fn seed(&self) -> HelloAnswer {
        self.cluster.seed().1.clone()
    }

    /// Index servers: the one through which this client came in, or those of which the peer told.
    pub fn index_addresses(&self) -> Vec<Address> {
        let (address, hello) = self.cluster.seed();
        match hello.role {
            Role::Index => vec![address.clone()],
            Role::Peer => hello.indexes.clone(),
        }
    }
}

/// Repeats what fails and may succeed later, for at most `patience`. `waiting` is told once, why.
/// What is repeated never includes what may have been done: that is
/// [`OutcomeUnknown`](ClientError::OutcomeUnknown).
pub async fn insist<T>(
    patience: Duration,
    waiting: impl FnOnce(&ClientError),
    mut attempt: impl AsyncFnMut() -> Result<T, ClientError>,
) -> Result<T, ClientError> {
    let mut backoff = Backoff::new();
    let mut waiting = Some(waiting);
    loop {
        let error = match attempt().await {
            Err(error) if error.is_retryable() => error,
            outcome => return outcome,
        };
        let pause = backoff.pause();
        if backoff.since().elapsed() + pause > patience {
            return Err(error);
        }
        if let Some(waiting) = waiting.take() {
            waiting(&error);
        }
        tokio::time::sleep(pause).await;
    }
}

#[cfg(test)]
mod tests;
