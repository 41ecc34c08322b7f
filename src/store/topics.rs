//! What can be asked of a store beside appending and fetching: topics and their subscriptions.
//!
//! Everything here runs on the writer's thread and is answered when it is
//! durable, questions too: an answer never tells of something that a power cut
//! could take back.

use std::sync::Arc;

use super::finding;
use super::history::authored;
use super::reader::{self, ReadRequest};
use super::retention::{self, Plan, discard};
use super::shared::{Shared, TopicShared};
use super::{Context, Store};
use crate::limits;
use crate::protocol::api::{
    Commit, Committed, CreateSubscription, FoundOffset, Position, Sought, StoredTopic,
    SubscriptionInfo, TopicChanges, TopicInfo,
};
use crate::protocol::data::FetchItem;
use crate::protocol::error::ApiError;
use crate::time::Timestamp;
use crate::topic::{CommitFacts, NewSubscription, RowKey, SubscriptionRow, Topic, TopicRow};
use crate::types::{
    Compaction, Durability, Gap, LeaderEpoch, Offset, SubscriptionName, TopicId, TopicName,
    TopicSettings,
};

/// A topic to be made.
#[derive(Debug, Clone)]
pub struct NewTopic {
    /// Name.
    pub name: TopicName,
    /// Id.
    pub id: TopicId,
    /// Leader epoch.
    pub epoch: LeaderEpoch,
    /// Settings.
    pub settings: TopicSettings,
}

impl Store {
    /// The id of the topic of that name.
    ///
    /// # Errors
    /// `TopicNotFound`.
    pub fn id_of(&self, name: &TopicName) -> Result<TopicId, ApiError> {
        let found = self.shared.topics().by_name.get(name).copied();
        found.ok_or_else(|| ApiError::TopicNotFound { name: name.clone() })
    }

    /// Name, id and epoch of every topic, in the order of their names.
    pub fn stored_topics(&self) -> Vec<StoredTopic> {
        let topics = self.shared.topics();
        let with_epoch = |(name, id): (&TopicName, &TopicId)| {
            let epoch = topics.by_id.get(id)?.epoch();
            Some(StoredTopic {
                name: name.clone(),
                id: *id,
                epoch,
            })
        };
        topics.by_name.iter().filter_map(with_epoch).collect()
    }

    /// One topic as the index is told of it.
    pub fn stored_topic(&self, name: &TopicName) -> Option<StoredTopic> {
        let topics = self.shared.topics();
        let id = *topics.by_name.get(name)?;
        Some(StoredTopic {
            name: name.clone(),
            id,
            epoch: topics.by_id.get(&id)?.epoch(),
        })
    }

    /// Whether there is a topic of that id.
    pub fn stores(&self, id: TopicId) -> bool {
        self.shared.topics().by_id.contains_key(&id)
    }

    /// How many topics there are.
    pub fn topic_count(&self) -> usize {
        self.shared.topics().by_id.len()
    }

    /// Makes a topic, durably.
    ///
    /// # Errors
    /// `TopicExists`, `TooManyTopics`, `DiskReserve`, `InvalidArgument`.
    pub async fn create_topic(&self, new: NewTopic) -> Result<TopicInfo, ApiError> {
        if let Some(refusal) = self.refusal() {
            return Err(refusal);
        }
        let id = new.id;
        self.change(id, move |context| {
            context.state.check_ids(id, new.settings.ids)?;
            check_compaction(new.settings.compaction)?;
            context.state.create_topic(
                id,
                TopicRow::new(new.name, new.epoch, new.settings, context.now),
            )?;
            let topic = context.state.topic(id)?;
            let shared = context.shared.publish_topic(topic, None);
            Ok((info(topic, &shared), vec![RowKey::Topic(id)]))
        })
        .await
    }

    /// Deletes a topic with everything in it, durably. With an id, only a topic of that id is meant.
    ///
    /// # Errors
    /// `TopicNotFound`.
    pub async fn delete_topic(
        &self,
        name: TopicName,
        id: Option<TopicId>,
    ) -> Result<TopicId, ApiError> {
        let found = self.id_of(&name)?;
        if id.is_some_and(|id| id != found) {
            return Err(ApiError::TopicNotFound { name });
        }
        self.change(found, move |context| {
            check_name(context, found, &name)?;
            let topic = context.state.delete_topic(found)?;
            context.shared.remove_topic(&topic);
            Ok((found, vec![RowKey::Topic(found)]))
        })
        .await
    }

    /// Deletes a topic that was made just now. False: somebody has published to it, or reads it, and it stays.
    ///
    /// # Errors
    /// `UnknownTopicId`.
    pub async fn take_back_topic(&self, id: TopicId) -> Result<bool, ApiError> {
        self.change(id, move |context| {
            if context.state.topic(id)?.is_used() {
                return Ok((false, Vec::new()));
            }
            let topic = context.state.delete_topic(id)?;
            context.shared.remove_topic(&topic);
            Ok((true, vec![RowKey::Topic(id)]))
        })
        .await
    }

    /// Everything about a topic.
    ///
    /// # Errors
    /// `TopicNotFound`.
    pub async fn describe_topic(&self, name: TopicName) -> Result<TopicInfo, ApiError> {
        let id = self.id_of(&name)?;
        self.change(id, move |context| Ok((info_of(context, id)?, Vec::new())))
            .await
    }

    /// Changes the settings of a topic.
    ///
    /// # Errors
    /// `TopicNotFound`, `TopicQuarantined`.
    pub async fn set_topic(
        &self,
        name: TopicName,
        changes: TopicChanges,
    ) -> Result<TopicInfo, ApiError> {
        let id = self.id_of(&name)?;
        let set = loop {
            // What was remembered before an earlier change that did not come to its end is not known again.
            self.forget_ids_left(id).await?;
            let set = self.change(id, move |context| {
                let topic = context.state.topic(id)?;
                let settings = changes.apply(topic.row.settings);
                let is_left = !topic.row.settings.ids.is_on() && topic.ids.page_count() > 0;
                if settings.ids.is_on() && is_left && topic.check_writable().is_ok() {
                    return Ok((None, Vec::new()));
                }
                context.state.check_ids(id, settings.ids)?;
                check_compaction(settings.compaction)?;
                let topic = context.state.topic_mut(id)?;
                topic.check_writable()?;
                topic.row.settings = settings;
                if settings.durability == Durability::Fsync {
                    // Every offset given under the bound is durable before this entry is.
                    topic.row.bound = None;
                }
                let shared = context.shared.publish_topic(topic, None);
                Ok((Some(info(topic, &shared)), vec![RowKey::Topic(id)]))
            });
            if let Some(set) = set.await? {
                break set;
            }
        };
        // The settings are durable, and that is what is answered; what is left goes before ids are on again.
        if let Err(error) = self.forget_ids_left(id).await {
            tracing::warn!(%name, %error, "message ids that nobody wants any more are left for now");
        }
        Ok(set)
    }

    /// Forgets all message ids of a topic that remembers none any more, a part with each change: there may be a page
    /// for every id, and more of them than a change may have rows.
    async fn forget_ids_left(&self, id: TopicId) -> Result<(), ApiError> {
        let mut is_all = false;
        while !is_all {
            is_all = self
                .change(id, move |context| {
                    let topic = context.state.topic_mut(id)?;
                    if topic.row.settings.ids.is_on() || topic.check_writable().is_err() {
                        return Ok((true, Vec::new()));
                    }
                    let most = limits::ID_PAGES_FORGOTTEN_BY_A_CHANGE;
                    let pages: Vec<u64> = topic.ids.pages().take(most).collect();
                    let keys = topic.forget_ids(&pages);
                    Ok((topic.ids.page_count() == 0, keys))
                })
                .await?;
        }
        Ok(())
    }

    /// Gives a topic another name.
    ///
    /// # Errors
    /// `TopicNotFound`, `TopicExists`.
    pub async fn rename_topic(
        &self,
        name: TopicName,
        new: TopicName,
    ) -> Result<TopicInfo, ApiError> {
        let id = self.id_of(&name)?;
        self.change(id, move |context| {
            check_name(context, id, &name)?;
            context.state.rename_topic(id, new)?;
            let topic = context.state.topic(id)?;
            let shared = context.shared.publish_topic(topic, Some(&name));
            Ok((info(topic, &shared), vec![RowKey::Topic(id)]))
        })
        .await
    }

    /// Sets the leader epoch the index gave.
    ///
    /// # Errors
    /// `UnknownTopicId`.
    pub async fn set_epoch(&self, id: TopicId, epoch: LeaderEpoch) -> Result<(), ApiError> {
        self.change(id, move |context| {
            let topic = context.state.topic_mut(id)?;
            topic.row.epoch = topic.row.epoch.max(epoch);
            context.shared.publish_topic(topic, None);
            Ok(((), vec![RowKey::Topic(id)]))
        })
        .await
    }

    /// Discards records up to a place.
    ///
    /// # Errors
    /// `TopicNotFound`, `TopicQuarantined`, `OffsetOutOfRange`.
    pub async fn purge_topic(
        &self,
        name: TopicName,
        before: Position,
    ) -> Result<TopicInfo, ApiError> {
        let to = self.find_offset(name.clone(), before).await?.offset;
        loop {
            let plan = self.plan_purge(self.id_of(&name)?, to).await?;
            let shared = self.shared.clone();
            let purged = self.change_topic(name.clone(), move |topic, _| {
                topic.check_writable()?;
                // Retention may have moved the start since, or compaction the batches; then all is counted anew.
                let holds = retention::holds(&plan, topic, &shared);
                Ok(holds && {
                    discard(topic, &plan);
                    true
                })
            });
            if let (info, true) = purged.await? {
                return Ok(info);
            }
        }
    }

    /// Erases the records of a key that are there now: nobody gets them from then on, and their bytes go with the
    /// next copy of their segments.
    ///
    /// # Errors
    /// `TopicNotFound`, `TopicQuarantined`, `InvalidArgument` while too many are under way.
    pub async fn purge_key(&self, name: TopicName, key: Vec<u8>) -> Result<TopicInfo, ApiError> {
        let id = self.id_of(&name)?;
        let salt = super::random_id();
        self.change(id, move |context| {
            let now = context.now;
            let topic = context.state.topic_mut(id)?;
            let number = topic.purge_key((&key, salt), now)?;
            let shared = context.shared.publish_topic(topic, None);
            context
                .shared
                .purges_changed
                .fetch_add(1, std::sync::atomic::Ordering::AcqRel);
            Ok((info(topic, &shared), vec![RowKey::Purge(id, number)]))
        })
        .await
    }

    /// Ends a quarantine; tells what is given up.
    ///
    /// # Errors
    /// `TopicNotFound`, `NotQuarantined`.
    pub async fn accept_loss(&self, name: TopicName) -> Result<Gap, ApiError> {
        let id = self.id_of(&name)?;
        self.change(id, move |context| {
            let topic = context.state.topic_mut(id)?;
            let gap = topic.accept_loss()?;
            // Readers are let past the gap once it is durable, like past records.
            context.shared.publish_topic(topic, None);
            Ok((gap, vec![RowKey::Topic(id)]))
        })
        .await
    }

    async fn change_topic<F, T>(
        &self,
        name: TopicName,
        decide: F,
    ) -> Result<(TopicInfo, T), ApiError>
    where
        F: FnOnce(&mut Topic, Timestamp) -> Result<T, ApiError> + Send + 'static,
        T: Send + 'static,
    {
        let id = self.id_of(&name)?;
        self.change(id, move |context| {
            let now = context.now;
            let topic = context.state.topic_mut(id)?;
            let decided = decide(topic, now)?;
            let shared = context.shared.publish_topic(topic, None);
            Ok(((info(topic, &shared), decided), vec![RowKey::Topic(id)]))
        })
        .await
    }

    /// Turns a place into an offset inside `[start, end]`.
    ///
    /// # Errors
    /// `TopicNotFound`, `OffsetOutOfRange` for an offset outside.
    pub async fn find_offset(
        &self,
        name: TopicName,
        position: Position,
    ) -> Result<FoundOffset, ApiError> {
        let id = self.id_of(&name)?;
        let topic = self.shared_topic(id)?;
        let offset = self.resolve(&topic, position).await?;
        Ok(FoundOffset {
            id,
            epoch: topic.epoch(),
            offset,
            start_offset: topic.start(),
            end_offset: topic.readable_end(),
        })
    }

    pub(super) async fn resolve(
        &self,
        topic: &Arc<TopicShared>,
        position: Position,
    ) -> Result<Offset, ApiError> {
        let (start, end) = (topic.start(), topic.readable_end());
        match position {
            Position::Beginning => Ok(start),
            Position::End => Ok(end),
            Position::Back(0) => Ok(end),
            Position::Back(n) if n >= end.since(start) => Ok(start),
            Position::Back(n) => {
                let find = move |shared: &Shared, topic: &TopicShared| {
                    finding::offset_from_end(shared, topic, n)
                };
                self.on_disk(topic, find).await
            }
            Position::Offset(offset) if offset < start || offset > end => {
                Err(ApiError::OffsetOutOfRange {
                    requested: offset,
                    start,
                    end,
                })
            }
            Position::Offset(offset) => Ok(offset),
            Position::Time(time) => {
                self.on_disk(topic, move |shared, topic| {
                    finding::offset_at_time(shared, topic, time)
                })
                .await
            }
        }
    }

    pub(super) async fn plan_purge(&self, id: TopicId, to: Offset) -> Result<Plan, ApiError> {
        let topic = self.shared_topic(id)?;
        self.on_disk(&topic, move |shared, topic| {
            Ok(retention::plan_purge(shared, topic, to)?)
        })
        .await
    }

    /// Makes a subscription that stays until it is removed.
    ///
    /// # Errors
    /// As [`make_subscription`](Self::make_subscription).
    pub async fn create_subscription(
        &self,
        topic: TopicName,
        name: SubscriptionName,
        from: Position,
        if_not_exists: bool,
    ) -> Result<SubscriptionInfo, ApiError> {
        self.make_subscription(CreateSubscription {
            topic,
            name,
            from,
            if_not_exists,
            expire_ms: None,
        })
        .await
    }

    /// Makes a subscription.
    ///
    /// # Errors
    /// `TopicNotFound`, `SubscriptionExists`, `TooManySubscriptions`, `OffsetOutOfRange`, `InvalidArgument`.
    pub async fn make_subscription(
        &self,
        request: CreateSubscription,
    ) -> Result<SubscriptionInfo, ApiError> {
        let CreateSubscription {
            topic,
            name,
            from,
            if_not_exists,
            expire_ms,
        } = request;
        let found = self.find_offset(topic, from).await?;
        let (wanted, author) = (name.clone(), self.author());
        let created = self
            .change(found.id, move |context| {
                let by = authored(context, author);
                let topic = context.state.topic_mut(found.id)?;
                let from = settled(topic, from, found.offset);
                let new = NewSubscription { from, expire_ms };
                topic.create_subscription(&wanted, new, by)?;
                let row = topic.subscription(&wanted)?;
                context.shared.attendance.follow(found.id, &wanted, row);
                let keys = subscription_keys(found.id, &wanted);
                Ok((subscription_info(context, found.id, &wanted)?, keys))
            })
            .await;
        match created {
            Err(ApiError::SubscriptionExists { .. }) if if_not_exists => {
                self.shared.attendance.used(found.id, &name);
                self.describe(found.id, name).await
            }
            Ok(info) => self.with_lag(info).await,
            Err(error) => Err(error),
        }
    }

    /// Removes a subscription.
    ///
    /// # Errors
    /// `TopicNotFound`, `SubscriptionNotFound`.
    pub async fn delete_subscription(
        &self,
        topic: TopicName,
        name: SubscriptionName,
    ) -> Result<(), ApiError> {
        let id = self.id_of(&topic)?;
        self.change(id, move |context| {
            let topic = context.state.topic_mut(id)?;
            topic.delete_subscription(&name)?;
            context.shared.attendance.forget(id, &name);
            let history = RowKey::History(id, name.clone());
            Ok(((), vec![RowKey::Subscription(id, name), history]))
        })
        .await
    }

    /// Everything about one subscription.
    ///
    /// # Errors
    /// `TopicNotFound`, `SubscriptionNotFound`.
    pub async fn describe_subscription(
        &self,
        topic: TopicName,
        name: SubscriptionName,
    ) -> Result<SubscriptionInfo, ApiError> {
        self.describe(self.id_of(&topic)?, name).await
    }

    async fn describe(
        &self,
        id: TopicId,
        name: SubscriptionName,
    ) -> Result<SubscriptionInfo, ApiError> {
        let info = self
            .change(id, move |context| {
                Ok((subscription_info(context, id, &name)?, Vec::new()))
            })
            .await?;
        self.with_lag(info).await
    }

    /// Moves a subscription; a dry run only tells.
    ///
    /// # Errors
    /// `TopicNotFound`, `SubscriptionNotFound`, `OffsetOutOfRange`.
    pub async fn seek(
        &self,
        topic: TopicName,
        name: SubscriptionName,
        to: Position,
        dry_run: bool,
    ) -> Result<Sought, ApiError> {
        let found = self.find_offset(topic, to).await?;
        let (id, offset) = (found.id, found.offset);
        let author = self.author();
        let sought = self
            .change(id, move |context| {
                if dry_run {
                    let subscription = subscription_info(context, id, &name)?;
                    return Ok((
                        Sought {
                            from: subscription.committed_offset,
                            to: offset,
                            subscription,
                        },
                        Vec::new(),
                    ));
                }
                let by = authored(context, author);
                let topic = context.state.topic_mut(id)?;
                let offset = settled(topic, to, offset);
                let from = topic.seek(&name, offset, by)?;
                context.shared.attendance.used(id, &name);
                let subscription = subscription_info(context, id, &name)?;
                Ok((
                    Sought {
                        from,
                        to: offset,
                        subscription,
                    },
                    subscription_keys(id, &name),
                ))
            })
            .await?;
        let subscription = self.with_lag(sought.subscription).await?;
        Ok(Sought {
            subscription,
            ..sought
        })
    }

    /// Confirms what was consumed; answered when it is durable.
    ///
    /// # Errors
    /// `UnknownTopicId`, `SubscriptionNotFound`, `StaleGeneration`, `CommitPastEnd`.
    pub async fn commit(&self, commit: Commit) -> Result<Committed, ApiError> {
        let id = commit.topic;
        let facts = CommitFacts {
            generation: commit.generation,
            offset: commit.offset,
            readable_end: self.readable_end(id)?,
        };
        self.change(id, move |context| {
            let now = context.now;
            let topic = context.state.topic_mut(id)?;
            let (offset, moved) = topic.commit(&commit.name, facts, now)?;
            if topic.subscription(&commit.name)?.expire_ms.is_some() {
                context.shared.attendance.used(id, &commit.name);
            }
            let keys = if moved {
                vec![RowKey::Subscription(id, commit.name)]
            } else {
                Vec::new()
            };
            Ok((Committed { offset }, keys))
        })
        .await
    }

    /// Adds the age of the oldest record not confirmed.
    pub(super) async fn with_lag(
        &self,
        info: SubscriptionInfo,
    ) -> Result<SubscriptionInfo, ApiError> {
        if info.committed_offset >= info.end_offset {
            return Ok(info);
        }
        let Ok(topic) = self.shared_topic(info.topic_id) else {
            return Ok(info);
        };
        let from = info.committed_offset;
        let time = self
            .on_disk(&topic, move |shared, topic| {
                Ok(append_time_at(shared, topic, from))
            })
            .await?;
        let lag = time
            .map(|time| Timestamp::now().since(time))
            .unwrap_or_default();
        Ok(SubscriptionInfo {
            lag_ms: u64::try_from(lag.as_millis()).unwrap_or(u64::MAX),
            ..info
        })
    }
}

fn check_compaction(compaction: Compaction) -> Result<(), ApiError> {
    let min = limits::TOMBSTONES_KEPT_FOR_MIN;
    match compaction.tombstone_age() < min {
        false => Ok(()),
        true => Err(ApiError::InvalidArgument {
            what: "tombstone-age".to_owned(),
            reason: format!(
                "{} ms: {} ms or more are expected",
                compaction.tombstone_age().as_millis(),
                min.as_millis()
            ),
        }),
    }
}

/// A topic that was found by its name may have got another one before its turn.
fn check_name(context: &Context<'_>, id: TopicId, name: &TopicName) -> Result<(), ApiError> {
    let found = context.state.topic(id).ok();
    match found.is_some_and(|topic| topic.row.name == *name) {
        true => Ok(()),
        false => Err(ApiError::TopicNotFound { name: name.clone() }),
    }
}

pub(super) fn info_of(context: &Context<'_>, id: TopicId) -> Result<TopicInfo, ApiError> {
    let shared = context
        .shared
        .topic(id)
        .ok_or(ApiError::UnknownTopicId { id })?;
    Ok(info(context.state.topic(id)?, &shared))
}

fn info(topic: &Topic, shared: &TopicShared) -> TopicInfo {
    TopicInfo {
        name: topic.row.name.clone(),
        id: topic.id,
        epoch: topic.row.epoch,
        settings: topic.row.settings,
        start_offset: topic.row.start,
        end_offset: shared.readable_end().max(topic.row.start),
        durable_end_offset: shared.durable_end(),
        bytes: topic.row.bytes,
        created: topic.row.created,
        last_append: topic.row.last_append,
        subscriptions: topic.subscriptions.len() as u64,
        quarantined: topic.row.quarantine.is_some(),
        conflict: false,
        gaps: topic.row.gaps.clone(),
        removed: topic.row.thinned.removed,
        compacted_offset: topic.row.thinned.compacted,
        purges: u32::try_from(topic.purges.len()).unwrap_or(u32::MAX),
    }
}

/// The offset of a place that was found a moment ago: the beginning may have moved since, and whoever asks for it
/// is not to be told of a gap.
pub(super) fn settled(topic: &Topic, place: Position, found: Offset) -> Offset {
    match place {
        Position::Beginning => topic.row.start,
        _ => found,
    }
}

/// The rows of a subscription that was made or moved.
pub(super) fn subscription_keys(id: TopicId, name: &SubscriptionName) -> Vec<RowKey> {
    // The topic's row carries the counter of generations.
    vec![
        RowKey::Topic(id),
        RowKey::Subscription(id, name.clone()),
        RowKey::History(id, name.clone()),
    ]
}

pub(super) fn subscription_info(
    context: &Context<'_>,
    id: TopicId,
    name: &SubscriptionName,
) -> Result<SubscriptionInfo, ApiError> {
    let shared = context
        .shared
        .topic(id)
        .ok_or(ApiError::UnknownTopicId { id })?;
    let topic = context.state.topic(id)?;
    let row: &SubscriptionRow = topic.subscription(name)?;
    let (readers, left) = context.shared.attendance.of(id, name);
    Ok(SubscriptionInfo {
        topic: topic.row.name.clone(),
        topic_id: id,
        epoch: topic.row.epoch,
        name: name.clone(),
        committed_offset: row.committed,
        generation: row.generation,
        start_offset: topic.row.start,
        end_offset: shared.readable_end(),
        lag_ms: 0,
        created: row.created,
        last_commit: row.last_commit,
        paused: row.paused,
        expire_ms: row.expire_ms,
        expires_in_ms: left.map(|left| u64::try_from(left.as_millis()).unwrap_or(u64::MAX)),
        readers,
    })
}

pub(super) fn append_time_at(
    shared: &Shared,
    topic: &TopicShared,
    from: Offset,
) -> Option<Timestamp> {
    let request = ReadRequest {
        from: from.max(topic.start()),
        max_bytes: 1,
        pass_damage: true,
        memory_only: false,
        as_stored: true,
    };
    let result = reader::read(shared, topic, request).ok()?;
    result.items.into_iter().find_map(|item| match item {
        FetchItem::Batch(batch) => Some(batch.append_time),
        FetchItem::Gap(_) => None,
    })
}
