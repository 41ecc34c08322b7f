//! What consumer groups need of a store: their rows, records in order, and changes in one step.
//!
//! The store keeps what is durable. Who holds what is known to whoever serves a group, and that is one for each group; what
//! it decided comes here as rows, one change after the other.

use tokio::sync::watch;

use super::Store;
use super::command::{Change, Command, Context, Done};
use super::naming::Named;
use super::retention::{Plan, discard, holds};
use super::topics::append_time_at;
use crate::limits;
use crate::protocol::api::{ConsumerGroupChanges, Position};
use crate::protocol::batch::CheckedBatch;
use crate::protocol::data::{Fetch, FetchItem};
use crate::protocol::error::ApiError;
use crate::time::Timestamp;
use crate::topic::consumers::{ConsumerGroupRow, ConsumerPageRow, Flush};
use crate::topic::{RowKey, Topic};
use crate::types::{IdDigest, Offset, SubscriptionName, TopicId, TopicName};

/// The rows of a consumer group.
#[derive(Debug, Clone)]
pub struct ConsumerRows {
    /// The group's row.
    pub row: ConsumerGroupRow,
    /// Its pages, in order.
    pub pages: Vec<(u64, ConsumerPageRow)>,
}

/// What lies in a topic from an offset on.
#[derive(Debug, Clone)]
pub struct Stretch {
    /// Batches and gaps, in order; the first batch may begin before.
    pub items: Vec<FetchItem>,
    /// The offset behind them.
    pub next: Offset,
}

impl Store {
    /// Makes a consumer group; the id of its topic.
    ///
    /// # Errors
    /// `TopicNotFound`, `ConsumerGroupExists`, `SubscriptionExists`, `TooManyConsumerGroups`, `OffsetOutOfRange`,
    /// `InvalidArgument`.
    pub async fn create_consumer_group(
        &self,
        (topic, name): (TopicName, SubscriptionName),
        from: Position,
        options: ConsumerGroupChanges,
    ) -> Result<TopicId, ApiError> {
        let found = self.find_offset(topic, from).await?;
        let id = found.id;
        self.change(id, move |context| {
            let made = (found.offset, options, context.now);
            context.state.create_consumer_group(id, &name, made)?;
            Ok((id, group_keys(id, name)))
        })
        .await
    }

    /// Removes a consumer group with all that is known in it.
    ///
    /// # Errors
    /// `UnknownTopicId`, `ConsumerGroupNotFound`.
    pub async fn delete_consumer_group(
        &self,
        id: TopicId,
        name: SubscriptionName,
    ) -> Result<(), ApiError> {
        self.change(id, move |context| {
            context.state.delete_consumer_group(id, &name)?;
            Ok(((), vec![RowKey::ConsumerGroup(id, name)]))
        })
        .await
    }

    /// Moves a consumer group.
    ///
    /// # Errors
    /// `UnknownTopicId`, `ConsumerGroupNotFound`.
    pub async fn seek_consumer_group(
        &self,
        id: TopicId,
        name: SubscriptionName,
        to: Offset,
    ) -> Result<(), ApiError> {
        self.change(id, move |context| {
            context.state.seek_consumer_group(id, &name, to)?;
            Ok(((), group_keys(id, name)))
        })
        .await
    }

    /// What is durable of a consumer group.
    ///
    /// # Errors
    /// `UnknownTopicId`, `ConsumerGroupNotFound`.
    pub async fn consumer_rows(
        &self,
        id: TopicId,
        name: SubscriptionName,
    ) -> Result<ConsumerRows, ApiError> {
        self.change(id, move |context| {
            let topic = context.state.topic(id)?;
            let row = topic.consumer_group(&name)?.clone();
            let pages = topic.consumers.pages_of(row.generation);
            let rows = ConsumerRows {
                pages: pages.map(|(page, row)| (page, row.clone())).collect(),
                row,
            };
            Ok((rows, Vec::new()))
        })
        .await
    }

    /// Consumer groups of one topic, or of all, by topic and name; and whether more follow.
    ///
    /// # Errors
    /// Only if the store has stopped.
    pub async fn consumer_groups(
        &self,
        only: Option<TopicId>,
        after: Option<(TopicName, SubscriptionName)>,
        limit: u32,
    ) -> Result<(Vec<Named>, bool), ApiError> {
        let limit = (limit as usize).clamp(1, limits::DESCRIBED_PER_PAGE_MAX);
        let mut found = self.named_after(only, after, limit, groups_of).await?;
        let more = found.len() > limit;
        found.truncate(limit);
        Ok((found, more))
    }

    /// Groups in which records are on their way to the dead letters: they go on at the start of a peer.
    ///
    /// # Errors
    /// Only if the store has stopped.
    pub async fn dying_groups(&self) -> Result<Vec<(TopicId, SubscriptionName)>, ApiError> {
        self.change(TopicId::zero(), move |context| {
            let groups = context.state.topics().flat_map(|topic| {
                let groups = topic.consumers.groups();
                groups.map(move |(name, row)| (topic, name, row))
            });
            let dying = groups.filter(|(topic, _, row)| {
                let mut pages = topic.consumers.pages_of(row.generation);
                pages.any(|(_, page)| page.failed.iter().any(|failed| failed.dies()))
            });
            let dying = dying.map(|(topic, name, _)| (topic.id, name.clone()));
            Ok((dying.collect(), Vec::new()))
        })
        .await
    }

    /// Makes rows of a group durable.
    ///
    /// # Errors
    /// `UnknownTopicId`, `ConsumerGroupNotFound`, `StaleGeneration`: the group is not what it was.
    pub async fn settle_consumers(
        &self,
        id: TopicId,
        name: SubscriptionName,
        flush: Flush,
    ) -> Result<(), ApiError> {
        self.change_with(id, None, flush.bytes(), move |context| {
            let keys = context.state.settle_consumers(id, &name, flush)?;
            Ok(((), keys))
        })
        .await
    }

    /// The same together with a batch for another topic: after any crash both are there, or neither (C6).
    ///
    /// # Errors
    /// What publishing the batch is refused with, too.
    pub async fn bury(
        &self,
        (id, name): (TopicId, SubscriptionName),
        flush: Flush,
        batch: (TopicId, CheckedBatch),
    ) -> Result<(), ApiError> {
        self.change_with(id, Some(batch), flush.bytes(), move |context| {
            let keys = context.state.settle_consumers(id, &name, flush)?;
            Ok(((), keys))
        })
        .await
    }

    /// Discards what lies before `to` in one topic and appends a batch to another, in one step. False where the first one
    /// does not begin at `from` any more, or was compacted meanwhile: then nothing was done.
    ///
    /// # Errors
    /// `UnknownTopicId`, `TopicQuarantined`, and what publishing is refused with.
    pub async fn move_records(
        &self,
        id: TopicId,
        (from, to): (Offset, Offset),
        batch: Option<(TopicId, CheckedBatch)>,
    ) -> Result<bool, ApiError> {
        let plan: Plan = self.plan_purge(id, to).await?;
        if plan.from != from {
            return Ok(false);
        }
        let moved = self.change_with(id, batch, 0, move |context| {
            let topic = context.state.topic_mut(id)?;
            topic.check_writable()?;
            if !holds(&plan, topic, context.shared) {
                let (start, end) = (topic.row.start, topic.row.end);
                let requested = plan.from;
                return Err(ApiError::OffsetOutOfRange {
                    requested,
                    start,
                    end,
                });
            }
            discard(topic, &plan);
            context.shared.publish_topic(topic, None);
            Ok(((), vec![RowKey::Topic(id)]))
        });
        match moved.await {
            Ok(()) => Ok(true),
            Err(ApiError::OffsetOutOfRange { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn change_with<T, F>(
        &self,
        topic: TopicId,
        batch: Option<(TopicId, CheckedBatch)>,
        row_bytes: usize,
        decide: F,
    ) -> Result<T, ApiError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Context<'_>) -> Result<(T, Vec<RowKey>), ApiError> + Send + 'static,
    {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let done: Done<T> = Box::new(|outcome| drop(sender.send(outcome)));
        let change = Change::new(topic, decide, done).with_rows(row_bytes);
        let change = match batch {
            Some((topic, batch)) => change.with_batch(topic, batch),
            None => change,
        };
        self.push(Command::Change(change));
        receiver.await.unwrap_or_else(|_| Err(self.stopped_error()))
    }

    /// What lies in a topic from `from` on, damage as a gap; nothing where that is the end or behind it.
    ///
    /// # Errors
    /// `UnknownTopicId`.
    pub async fn stretch(
        &self,
        id: TopicId,
        from: Offset,
        max_bytes: usize,
    ) -> Result<Stretch, ApiError> {
        let topic = self.shared_topic(id)?;
        let fetch = Fetch {
            topic: id,
            epoch: topic.epoch(),
            offset: from,
            max_bytes: u32::try_from(max_bytes).unwrap_or(u32::MAX),
            min_bytes: 0,
            max_wait_ms: 0,
            pass_damage: true,
        };
        match self.read(&topic, &fetch).await {
            Ok(read) => Ok(Stretch {
                items: read.items,
                next: read.next,
            }),
            Err(ApiError::OffsetOutOfRange { .. }) => Ok(Stretch {
                items: Vec::new(),
                next: from,
            }),
            Err(error) => Err(error),
        }
    }

    /// Notes that records of a topic were handed out.
    pub fn handed_out(&self, id: TopicId, records: u64, bytes: u64) {
        if let Some(topic) = self.shared.topic(id) {
            self.shared.meters.fetched(&topic.through, (records, bytes));
        }
    }

    /// First offset kept, and first one not readable yet.
    ///
    /// # Errors
    /// `UnknownTopicId`.
    pub fn range_of(&self, id: TopicId) -> Result<(Offset, Offset), ApiError> {
        let topic = self.shared_topic(id)?;
        let start = topic.start();
        Ok((start, topic.readable_end().max(start)))
    }

    /// Told whenever the readable end grows, and once more when the topic is deleted.
    ///
    /// # Errors
    /// `UnknownTopicId`.
    pub fn watch_end(&self, id: TopicId) -> Result<watch::Receiver<u64>, ApiError> {
        Ok(self.shared_topic(id)?.watch_end())
    }

    /// Turns a place into an offset of a topic.
    ///
    /// # Errors
    /// `UnknownTopicId`, `OffsetOutOfRange`.
    pub async fn offset_of(&self, id: TopicId, position: Position) -> Result<Offset, ApiError> {
        let topic = self.shared_topic(id)?;
        self.resolve(&topic, position).await
    }

    /// Whether a topic remembers a message of that id.
    ///
    /// # Errors
    /// `UnknownTopicId`.
    pub async fn remembers_id(&self, id: TopicId, digest: IdDigest) -> Result<bool, ApiError> {
        self.change(id, move |context| {
            let found = context.state.topic(id)?.ids.find(digest, None);
            Ok((found.is_some(), Vec::new()))
        })
        .await
    }

    /// The name of a topic.
    ///
    /// # Errors
    /// `UnknownTopicId`.
    pub async fn topic_name(&self, id: TopicId) -> Result<TopicName, ApiError> {
        self.change(id, move |context| {
            Ok((context.state.topic(id)?.row.name.clone(), Vec::new()))
        })
        .await
    }

    /// Age of the record at an offset, or of the next one, in milliseconds.
    ///
    /// # Errors
    /// `UnknownTopicId`.
    pub async fn age_at(&self, id: TopicId, offset: Offset) -> Result<u64, ApiError> {
        let topic = self.shared_topic(id)?;
        let reading = self.on_disk(&topic, move |shared, topic| {
            Ok(append_time_at(shared, topic, offset))
        });
        let age = reading.await?.map(|time| Timestamp::now().since(time));
        let age = age.unwrap_or_default().as_millis();
        Ok(u64::try_from(age).unwrap_or(u64::MAX))
    }

    /// Largest batch that can be appended, in bytes.
    pub fn batch_bytes_max(&self) -> usize {
        (self.shared.dir.slot_bytes() as usize / 2).min(limits::BATCH_BYTES_MAX)
    }
}

fn group_keys(id: TopicId, name: SubscriptionName) -> Vec<RowKey> {
    // The topic's row carries the counter of generations.
    vec![RowKey::Topic(id), RowKey::ConsumerGroup(id, name)]
}

fn groups_of(topic: &Topic) -> Box<dyn Iterator<Item = &SubscriptionName> + '_> {
    Box::new(topic.consumers.groups().map(|(name, _)| name))
}
