//! Making, changing and moving consumer groups, and writing what was decided in them.

use super::flush::Flush;
use super::rows::ConsumerGroupRow;
use crate::limits;
use crate::protocol::api::{ConsumerGroupChanges, ConsumerGroupOptions};
use crate::protocol::error::ApiError;
use crate::time::Timestamp;
use crate::topic::{Row, RowChange, RowKey, State, Topic};
use crate::types::{Offset, SubscriptionName, TopicId, TopicName};

fn invalid(what: &str, reason: String) -> ApiError {
    let what = what.to_owned();
    ApiError::InvalidArgument { what, reason }
}

fn check(what: &str, given: u64, (min, max): (u64, u64)) -> Result<(), ApiError> {
    match (min..=max).contains(&given) {
        true => Ok(()),
        false => Err(invalid(
            what,
            format!("{given}: {min} to {max} are allowed"),
        )),
    }
}

/// The options of a group that is made now.
pub fn new_options(
    topic: &TopicName,
    group: &SubscriptionName,
    changes: ConsumerGroupChanges,
) -> Result<ConsumerGroupOptions, ApiError> {
    let dead_letters = match changes.dead_letters.clone() {
        Some(name) => name,
        None => format!("dead.{topic}.{group}").parse().map_err(|_| {
            let reason =
                format!("dead.{topic}.{group} is too long a name: name another topic for them");
            invalid("dead letters", reason)
        })?,
    };
    let millis = |time: std::time::Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let defaults = ConsumerGroupOptions {
        ack_deadline_ms: millis(limits::ACK_DEADLINE_DEFAULT),
        deliveries_max: limits::DELIVERIES_DEFAULT,
        backoff_ms: limits::BACKOFF_MS_DEFAULT.to_vec(),
        unacked_max: limits::UNACKED_DEFAULT,
        ordered_by_key: changes.ordered_by_key.unwrap_or(false),
        dead_letters,
    };
    changed_options(topic, &defaults, changes)
}

/// Options after a change.
pub fn changed_options(
    topic: &TopicName,
    before: &ConsumerGroupOptions,
    changes: ConsumerGroupChanges,
) -> Result<ConsumerGroupOptions, ApiError> {
    let asked = changes.ordered_by_key;
    if asked.is_some_and(|asked| asked != before.ordered_by_key) {
        let reason = "it can only be chosen when a group is made".to_owned();
        return Err(invalid("order by key", reason));
    }
    let options = ConsumerGroupOptions {
        ack_deadline_ms: changes.ack_deadline_ms.unwrap_or(before.ack_deadline_ms),
        deliveries_max: changes.deliveries_max.unwrap_or(before.deliveries_max),
        backoff_ms: changes
            .backoff_ms
            .unwrap_or_else(|| before.backoff_ms.clone()),
        unacked_max: changes.unacked_max.unwrap_or(before.unacked_max),
        ordered_by_key: before.ordered_by_key,
        dead_letters: changes
            .dead_letters
            .unwrap_or_else(|| before.dead_letters.clone()),
    };
    let millis = |time: std::time::Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let deadlines = (
        millis(limits::ACK_DEADLINE_MIN),
        millis(limits::ACK_DEADLINE_MAX),
    );
    check("ack deadline", options.ack_deadline_ms, deadlines)?;
    let deliveries = (0, limits::DELIVERIES_MAX.into());
    check("most deliveries", options.deliveries_max.into(), deliveries)?;
    check(
        "most unacknowledged",
        options.unacked_max.into(),
        (1, limits::UNACKED_MAX.into()),
    )?;
    let steps = (0, limits::BACKOFF_STEPS_MAX as u64);
    check(
        "number of back-off steps",
        options.backoff_ms.len() as u64,
        steps,
    )?;
    for step in &options.backoff_ms {
        check("back-off", *step, (0, millis(limits::BACKOFF_MAX)))?;
    }
    if options.dead_letters == *topic {
        let reason = "a topic cannot be where its own dead letters go".to_owned();
        return Err(invalid("dead letters", reason));
    }
    Ok(options)
}

impl Topic {
    /// The consumer group of that name.
    pub fn consumer_group(&self, name: &SubscriptionName) -> Result<&ConsumerGroupRow, ApiError> {
        let found = self.consumers.group(name);
        found.ok_or_else(|| ApiError::ConsumerGroupNotFound {
            topic: self.row.name.clone(),
            name: name.clone(),
        })
    }

    fn new_consumer_group(
        &mut self,
        name: &SubscriptionName,
        from: Offset,
        (changes, now): (ConsumerGroupChanges, Timestamp),
    ) -> Result<ConsumerGroupRow, ApiError> {
        let (topic, name) = (self.row.name.clone(), name.clone());
        if self.consumers.group(&name).is_some() {
            return Err(ApiError::ConsumerGroupExists { topic, name });
        }
        if self.subscriptions.contains_key(&name) {
            return Err(ApiError::SubscriptionExists { topic, name });
        }
        if self.consumers.count().0 >= limits::CONSUMER_GROUPS_PER_TOPIC_MAX {
            return Err(ApiError::TooManyConsumerGroups {
                max: limits::CONSUMER_GROUPS_PER_TOPIC_MAX as u64,
            });
        }
        let options = new_options(&topic, &name, changes)?;
        let generation = self.next_generation();
        Ok(ConsumerGroupRow::new(generation, from, options, now))
    }
}

impl State {
    /// Makes a consumer group that begins at `from`. Its name is no subscription's.
    pub fn create_consumer_group(
        &mut self,
        id: TopicId,
        name: &SubscriptionName,
        (from, changes, now): (Offset, ConsumerGroupChanges, Timestamp),
    ) -> Result<(), ApiError> {
        let topic = self.topic_mut(id)?;
        let row = topic.new_consumer_group(name, from, (changes, now))?;
        self.put_consumer_group(id, name, Some(row));
        Ok(())
    }

    /// Removes a consumer group with its pages.
    pub fn delete_consumer_group(
        &mut self,
        id: TopicId,
        name: &SubscriptionName,
    ) -> Result<(), ApiError> {
        self.topic(id)?.consumer_group(name)?;
        self.put_consumer_group(id, name, None);
        Ok(())
    }

    /// Moves a consumer group, forward or back: under its new generation nothing from `to` on is settled (C8).
    pub fn seek_consumer_group(
        &mut self,
        id: TopicId,
        name: &SubscriptionName,
        to: Offset,
    ) -> Result<(), ApiError> {
        let topic = self.topic_mut(id)?;
        let row = topic.consumer_group(name)?.clone();
        let generation = topic.next_generation();
        let moved = ConsumerGroupRow {
            generation,
            floor: to,
            ..row
        };
        self.put_consumer_group(id, name, Some(moved));
        Ok(())
    }

    /// Puts rows that were composed; the names of all of them, the group's first. Refused where the group is
    /// not what it was when they were composed.
    pub fn settle_consumers(
        &mut self,
        id: TopicId,
        name: &SubscriptionName,
        flush: Flush,
    ) -> Result<Vec<RowKey>, ApiError> {
        let current = self.topic(id)?.consumer_group(name)?.generation;
        let given = flush.row.generation;
        if given != current {
            return Err(ApiError::StaleGeneration { given, current });
        }
        let mut keys = vec![RowKey::ConsumerGroup(id, name.clone())];
        self.put_consumer_group(id, name, Some(flush.row));
        for (page, row) in flush.pages {
            let key = RowKey::ConsumerPage(id, given, page);
            let row = row.map(Row::ConsumerPage);
            keys.push(key.clone());
            self.apply(RowChange { key, row });
        }
        Ok(keys)
    }
}
