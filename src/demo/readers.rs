//! The demo's subscribers: each follows every topic through a durable subscription and writes down what it got.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::client::{Client, Delivery, SubscriberOptions};
use crate::protocol::api::Position;
use crate::types::{SubscriptionName, TopicName};

/// What a subscriber got of a topic: offsets and keys in the order they came.
pub(super) type Diary = BTreeMap<TopicName, Vec<(u64, String)>>;

/// How a subscriber reads.
#[derive(Clone)]
pub(super) struct Reading {
    pub client: Client,
    pub name: SubscriptionName,
    /// Time it takes over each record.
    pub pace: Duration,
}

/// A subscriber with one task for each topic.
pub(super) struct Reader {
    reading: Reading,
    diary: Arc<Mutex<Diary>>,
    stop: CancellationToken,
    tasks: JoinSet<Result<()>>,
}

impl Reader {
    /// Follows `topics` from their beginnings, or from where the subscription stands.
    pub fn start(reading: Reading, topics: &[TopicName], diary: Arc<Mutex<Diary>>) -> Self {
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        for topic in topics {
            tasks.spawn(follow(
                reading.clone(),
                topic.clone(),
                diary.clone(),
                stop.clone(),
            ));
        }
        Self {
            reading,
            diary,
            stop,
            tasks,
        }
    }

    /// Ends every task after what it has in hand is committed.
    pub async fn stop(mut self) -> Result<Reading> {
        self.stop.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            ended.context("a subscriber's task panicked")??;
        }
        Ok(self.reading)
    }

    /// How many records it got so far.
    pub fn count(&self) -> usize {
        self.diary
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
            .map(Vec::len)
            .sum()
    }
}

async fn follow(
    reading: Reading,
    topic: TopicName,
    diary: Arc<Mutex<Diary>>,
    stop: CancellationToken,
) -> Result<()> {
    let options = SubscriberOptions {
        name: Some(reading.name.clone()),
        from: Some(Position::Beginning),
        ..SubscriberOptions::default()
    };
    let mut subscriber = reading.client.subscriber(&topic, options).await?;
    while let Some(delivery) = stop.run_until_cancelled(subscriber.next()).await {
        match delivery? {
            Delivery::Record(record) => {
                let key =
                    String::from_utf8_lossy(record.key.as_deref().unwrap_or_default()).into_owned();
                tokio::time::sleep(reading.pace).await;
                let mut diary = diary.lock().unwrap_or_else(PoisonError::into_inner);
                diary
                    .entry(topic.clone())
                    .or_default()
                    .push((record.offset.get(), key));
            }
            Delivery::Gap(gap) => bail!(
                "{topic}: offsets [{}, {}) are {}",
                gap.from,
                gap.to,
                gap.reason
            ),
        }
    }
    subscriber.commit().await?;
    Ok(())
}
