//! Making, changing, telling of, moving and removing groups, and who belongs to them.

use std::sync::Arc;

use super::Desks;
use super::desk::{OfTopic, told};
use crate::net::ClientInfo;
use crate::net::shutdown::CancellationToken;
use crate::protocol::api::{
    ConsumerGroupInfo, ConsumerGroupPage, CreateConsumerGroup, DeleteConsumerGroup, Done,
    JoinConsumerGroup, LeaveConsumerGroup, ListConsumerGroups, SeekConsumerGroup, SetConsumerGroup,
    SoughtConsumerGroup,
};
use crate::protocol::error::ApiError;
use crate::topic::consumers::{Group, changed_options};
use crate::types::{MemberId, SubscriptionName, TopicId, TopicName};

impl Desks {
    /// Makes a group.
    pub async fn create(
        self: &Arc<Self>,
        request: CreateConsumerGroup,
    ) -> Result<ConsumerGroupInfo, ApiError> {
        let (topic, name) = (request.topic, request.name);
        super::check_not_reserved(&name)?;
        let place = (topic.clone(), name.clone());
        let made = self
            .store
            .create_consumer_group(place, request.from, request.options);
        match made.await {
            Ok(_) => {}
            Err(ApiError::ConsumerGroupExists { .. }) if request.if_not_exists => {}
            Err(error) => return Err(error),
        }
        let described = self.describe(&topic, &name).await;
        described.map_err(ApiError::after_a_change)
    }

    /// Changes options.
    pub async fn set(
        self: &Arc<Self>,
        request: SetConsumerGroup,
    ) -> Result<ConsumerGroupInfo, ApiError> {
        let id = self.store.id_of(&request.topic)?;
        let desk = self.desk(id, &request.name).await?;
        let version = {
            let mut inner = desk.open()?;
            let before = inner.group.options();
            let options = changed_options(&request.topic, before, request.changes)?;
            inner.group.set_options(options);
            desk.decided(&mut inner);
            inner.group.version()
        };
        desk.wait_durable(version).await?;
        self.describe(&request.topic, &request.name).await
    }

    /// Everything about a group; what is told is durable.
    pub async fn describe(
        self: &Arc<Self>,
        topic: &TopicName,
        name: &SubscriptionName,
    ) -> Result<ConsumerGroupInfo, ApiError> {
        let id = self.store.id_of(topic)?;
        let desk = self.desk(id, name).await?;
        let info = desk.info(&self.of_topic(id, topic)?);
        let version = desk.lock().group.version();
        desk.wait_durable(version).await?;
        self.with_lag(info).await
    }

    fn of_topic(&self, id: TopicId, name: &TopicName) -> Result<OfTopic, ApiError> {
        let (start, end) = self.store.range_of(id)?;
        let stored = self.store.stored_topic(name);
        let epoch = stored.map(|stored| stored.epoch).unwrap_or_default();
        Ok(OfTopic {
            id,
            name: name.clone(),
            epoch,
            start,
            end,
        })
    }

    /// Adds the age of the oldest record that is not settled.
    async fn with_lag(&self, info: ConsumerGroupInfo) -> Result<ConsumerGroupInfo, ApiError> {
        let lag_ms = match info.unsettled > 0 && info.floor < info.end_offset {
            true => self.store.age_at(info.topic_id, info.floor).await?,
            false => 0,
        };
        Ok(ConsumerGroupInfo { lag_ms, ..info })
    }

    /// Groups, by topic and name. Those that nobody uses get no desk for it.
    pub async fn list(
        self: &Arc<Self>,
        request: ListConsumerGroups,
    ) -> Result<ConsumerGroupPage, ApiError> {
        let only = request.topic.as_ref();
        let only = only.map(|name| self.store.id_of(name)).transpose()?;
        let mut after = request.after;
        loop {
            let listed = self
                .store
                .consumer_groups(only, after.take(), request.limit);
            let (listed, more) = listed.await?;
            after = listed
                .last()
                .map(|last| (last.topic.clone(), last.name.clone()));
            let mut groups = Vec::with_capacity(listed.len());
            for group in listed {
                match self.listed(group.id, &group.topic, &group.name).await {
                    Ok(info) => groups.push(info),
                    // It went meanwhile.
                    Err(
                        ApiError::UnknownTopicId { .. } | ApiError::ConsumerGroupNotFound { .. },
                    ) => {}
                    Err(error) => return Err(error),
                }
            }
            // An empty page would be the last one.
            if !groups.is_empty() || !more {
                return Ok(ConsumerGroupPage { groups, more });
            }
        }
    }

    async fn listed(
        &self,
        id: TopicId,
        topic: &TopicName,
        name: &SubscriptionName,
    ) -> Result<ConsumerGroupInfo, ApiError> {
        let of = self.of_topic(id, topic)?;
        let info = match self.at_work(id, name) {
            Some(desk) => ConsumerGroupInfo {
                members: Vec::new(),
                ..desk.info(&of)
            },
            None => {
                let rows = self.store.consumer_rows(id, name.clone()).await?;
                let pages = rows.pages.iter().map(|(page, row)| (*page, row));
                let mut group = Group::load(rows.row, pages, self.clock.now());
                group.begin_at(of.start, self.clock.now());
                told(&of, name, &group)
            }
        };
        self.with_lag(info).await
    }

    /// Removes a group.
    pub async fn delete(self: &Arc<Self>, request: DeleteConsumerGroup) -> Result<Done, ApiError> {
        let id = self.store.id_of(&request.topic)?;
        let desk = self.desk(id, &request.name).await?;
        let _turn = desk.turn.lock().await;
        drop(desk.open()?);
        self.store
            .delete_consumer_group(id, request.name.clone())
            .await?;
        desk.close(ApiError::ConsumerGroupNotFound {
            topic: request.topic,
            name: request.name,
        });
        self.forget(&desk);
        Ok(Done {})
    }

    /// Moves a group, or tells where it would be.
    pub async fn seek(
        self: &Arc<Self>,
        request: SeekConsumerGroup,
    ) -> Result<SoughtConsumerGroup, ApiError> {
        let id = self.store.id_of(&request.topic)?;
        let to = self.store.offset_of(id, request.to).await?;
        let desk = self.desk(id, &request.name).await?;
        let turn = desk.turn.lock().await;
        let (from, given) = {
            let inner = desk.open()?;
            (inner.group.floor(), inner.group.generation())
        };
        if !request.dry_run {
            self.store
                .seek_consumer_group(id, request.name.clone(), to)
                .await?;
            let rows = self.store.consumer_rows(id, request.name.clone()).await;
            // Whatever comes of it: what the desk knows is not so any more.
            desk.close(match rows {
                Ok(rows) => ApiError::StaleGeneration {
                    given,
                    current: rows.row.generation,
                },
                Err(error) => error.after_a_change(),
            });
            self.forget(&desk);
        }
        drop(turn);
        let described = self.describe(&request.topic, &request.name).await;
        let group = described.map_err(ApiError::after_a_change)?;
        Ok(SoughtConsumerGroup { from, to, group })
    }

    /// Makes somebody a member until its connection is gone.
    pub async fn join(
        self: &Arc<Self>,
        request: JoinConsumerGroup,
        (client, gone): (Arc<ClientInfo>, CancellationToken),
    ) -> Result<Done, ApiError> {
        self.check_displaced()?;
        let desk = self.desk(request.topic, &request.name).await?;
        let Some(seat) = desk.join(&request, &client)? else {
            return Ok(Done {});
        };
        let (desks, member): (_, MemberId) = (self.clone(), request.member);
        tokio::spawn(async move {
            tokio::select! {
                () = seat.left.cancelled() => {}
                () = desk.closed.cancelled() => {}
                // A peer that ends is nobody's failure.
                () = gone.cancelled() => desk.lost(member, seat.slot, !desks.stop.is_cancelled()),
            }
        });
        Ok(Done {})
    }

    /// Ends a membership.
    pub async fn leave(
        self: &Arc<Self>,
        request: LeaveConsumerGroup,
        client: Arc<ClientInfo>,
    ) -> Result<Done, ApiError> {
        let desk = self.desk(request.topic, &request.name).await?;
        match desk.leave(&request, &client) {
            Ok(()) | Err(ApiError::NotAMember { .. }) => Ok(Done {}),
            Err(error) => Err(error),
        }
    }
}
