//! Companions come with the first delayed message of a topic, and go with the topic.

use std::sync::Arc;

use super::Later;
use super::mover::Mover;
use crate::peer::creating::create_topic;
use crate::protocol::api::{
    ConsumerGroupChanges, CreateTopic, OpenLater, OpenedLater, Position, RenameTopic, TopicInfo,
};
use crate::protocol::error::ApiError;
use crate::topic::later::{COMPANION, group_of};
use crate::types::{Offset, Retention, TopicId, TopicName, TopicSettings};

fn invalid(reason: String) -> ApiError {
    ApiError::InvalidArgument {
        what: "delayed message".to_owned(),
        reason,
    }
}

/// The name of the companion of a topic of that name.
fn companion_of(target: &TopicName) -> Result<TopicName, ApiError> {
    format!("{COMPANION}{target}").parse().map_err(|_| {
        invalid(format!(
            "{COMPANION}{target}, where it would wait, is too long a name"
        ))
    })
}

impl Later {
    /// The companion of a topic, made if it is not there.
    pub async fn open(self: &Arc<Self>, request: OpenLater) -> Result<OpenedLater, ApiError> {
        self.discover().await?;
        let target = request.topic;
        let name = self.store.topic_name(target).await?;
        if self.movers().of_companion.contains_key(&target) {
            return Err(invalid(format!(
                "{name} holds delayed messages itself: publish to the topic they are meant for"
            )));
        }
        // Two publishers may want the same one.
        let _one_at_a_time = self.creating.lock().await;
        let known = self.movers().of_target.get(&target).cloned();
        let id = match known {
            Some(mover) => mover.companion,
            None => self.make(target, &name).await?,
        };
        let name = self.store.topic_name(id).await?;
        Ok(OpenedLater { id, name })
    }

    async fn make(
        self: &Arc<Self>,
        target: TopicId,
        name: &TopicName,
    ) -> Result<TopicId, ApiError> {
        let companion = self.companion(target, name).await?;
        let (id, name) = (companion.id, companion.name.clone());
        let options = ConsumerGroupChanges {
            deliveries_max: Some(0),
            // It never has any; but a name made of all three might be too long.
            dead_letters: Some(
                format!("dead.{COMPANION}{target}")
                    .parse()
                    .map_err(ApiError::from)?,
            ),
            ..ConsumerGroupChanges::default()
        };
        let place = (name, group_of(target));
        let made = self
            .store
            .create_consumer_group(place, Position::Beginning, options);
        match made.await {
            Ok(_) | Err(ApiError::ConsumerGroupExists { .. }) => {}
            Err(error) => return Err(error),
        }
        self.begin(id, target).await?;
        Ok(id)
    }

    /// The topic of the companion's name: a new one, or one that was made for it and never used.
    async fn companion(&self, id: TopicId, target: &TopicName) -> Result<TopicInfo, ApiError> {
        let name = companion_of(target)?;
        let of_target = self.store.describe_topic(target.clone()).await?.settings;
        match self.store.describe_topic(name.clone()).await {
            Ok(there) if there.end_offset == Offset::ZERO && self.mover(there.id).is_none() => {
                return Ok(there);
            }
            Ok(there) => {
                if self
                    .store
                    .consumer_rows(there.id, group_of(id))
                    .await
                    .is_ok()
                {
                    return Ok(there);
                }
                let reason = match self.mover(there.id).is_some() {
                    true => "holds delayed messages of another topic, which was renamed or deleted",
                    false => "is a topic of its own",
                };
                return Err(invalid(format!(
                    "{name}, where it would wait, {reason}: rename or remove it"
                )));
            }
            Err(_) => {}
        }
        let request = CreateTopic {
            name,
            settings: TopicSettings {
                retention: Retention {
                    interest: true,
                    ..Retention::default()
                },
                ids: of_target.ids,
                ..TopicSettings::default()
            },
            if_not_exists: true,
        };
        let parts = (&self.store, &*self.registrar, &*self.directory);
        create_topic(parts, request).await
    }

    /// The companion of a topic that was deleted, if nothing is pending in it: it is to be deleted too.
    pub async fn empty_companion(&self, target: TopicId) -> Option<(TopicName, TopicId)> {
        let mover = self.movers().of_target.get(&target).cloned()?;
        let is_empty = self.is_empty(&mover).await;
        match is_empty {
            true => {
                let name = self.store.topic_name(mover.companion).await.ok()?;
                Some((name, mover.companion))
            }
            false => {
                mover.wake();
                None
            }
        }
    }

    async fn is_empty(&self, mover: &Mover) -> bool {
        let _turn = mover.turn.lock().await;
        self.take_in(mover).await.is_ok() && mover.lock().schedule.is_empty()
    }

    /// How the companion of a topic is to be renamed after its topic was.
    pub async fn renaming(&self, target: TopicId, new: &TopicName) -> Option<RenameTopic> {
        let mover = self.movers().of_target.get(&target).cloned()?;
        let name = self.store.topic_name(mover.companion).await.ok()?;
        let new = companion_of(new).ok()?;
        Some(RenameTopic { name, new })
    }

    /// Something about a topic changed, because of which its messages may have waited.
    pub fn changed(&self, target: TopicId) {
        if let Some(mover) = self.movers().of_target.get(&target) {
            mover.wake();
        }
    }
}
