//! Going over the names of all topics, some at a time: there may be a million, and neither the writer nor whoever
//! else wants to know of topics waits until all were looked at.

use std::ops::Bound;

use super::topics::{info_of, subscription_info};
use super::{Context, Store};
use crate::limits;
use crate::protocol::api::{SubscriptionInfo, SubscriptionPage, TopicInfo, TopicInfoPage};
use crate::protocol::error::ApiError;
use crate::topic::Topic;
use crate::types::{SubscriptionName, TopicId, TopicName, TopicPattern};

/// Something that belongs to a topic and has a name beside others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// Its topic.
    pub id: TopicId,
    /// The topic's name.
    pub topic: TopicName,
    /// Its own.
    pub name: SubscriptionName,
}

/// A topic's name and its own, of the last one that was told.
pub(super) type After = Option<(TopicName, SubscriptionName)>;

/// The names of something in a topic, in their order.
pub(super) type NamesOf =
    for<'a> fn(&'a Topic) -> Box<dyn Iterator<Item = &'a SubscriptionName> + 'a>;

/// What was found among some topics.
struct Slice {
    found: Vec<Named>,
    /// The last topic that was looked at; none if that was the last there is.
    looked_at: Option<TopicName>,
}

impl Store {
    /// Everything about the topics that match, in the order of their names.
    ///
    /// # Errors
    /// Only if the store has stopped.
    pub async fn describe_topics(
        &self,
        pattern: TopicPattern,
        after: Option<TopicName>,
        limit: u32,
    ) -> Result<TopicInfoPage, ApiError> {
        let limit = (limit as usize).clamp(1, limits::DESCRIBED_PER_PAGE_MAX);
        let mut after = after;
        loop {
            let mut named = self.topics_matching(&pattern, after.take(), limit).await;
            let more = named.len() > limit;
            named.truncate(limit);
            after = named.last().map(|(name, _)| name.clone());
            let topics: Vec<TopicInfo> = self
                .change(TopicId::zero(), move |context| {
                    // What was deleted or renamed meanwhile is left out: the next page goes on behind the last name.
                    let there = named.iter().filter_map(|(name, id)| {
                        let info = info_of(context, *id).ok();
                        info.filter(|info| info.name == *name)
                    });
                    Ok((there.collect(), Vec::new()))
                })
                .await?;
            // An empty page would be the last one.
            if !topics.is_empty() || !more {
                return Ok(TopicInfoPage { topics, more });
            }
        }
    }

    /// Subscriptions of one topic, or of all, by topic and name.
    ///
    /// # Errors
    /// `TopicNotFound`.
    pub async fn list_subscriptions(
        &self,
        topic: Option<TopicName>,
        after: Option<(TopicName, SubscriptionName)>,
        limit: u32,
    ) -> Result<SubscriptionPage, ApiError> {
        let only = topic.map(|name| self.id_of(&name)).transpose()?;
        let limit = (limit as usize).clamp(1, limits::DESCRIBED_PER_PAGE_MAX);
        let mut after = after;
        let (infos, more) = loop {
            let mut named = self
                .named_after(only, after.take(), limit, subscriptions_of)
                .await?;
            let more = named.len() > limit;
            named.truncate(limit);
            after = named
                .last()
                .map(|last| (last.topic.clone(), last.name.clone()));
            let infos: Vec<SubscriptionInfo> = self
                .change(TopicId::zero(), move |context| {
                    // What was deleted or renamed meanwhile is left out.
                    let there = named.iter().filter_map(|one| {
                        let info = subscription_info(context, one.id, &one.name).ok();
                        info.filter(|info| info.topic == one.topic)
                    });
                    Ok((there.collect(), Vec::new()))
                })
                .await?;
            // An empty page would be the last one.
            if !infos.is_empty() || !more {
                break (infos, more);
            }
        };
        let mut subscriptions = Vec::with_capacity(infos.len());
        for info in infos {
            subscriptions.push(self.with_lag(info).await?);
        }
        Ok(SubscriptionPage {
            subscriptions,
            more,
        })
    }

    /// Topics that match, from the first one after `after`: at most so many, and one more if there are more.
    pub(super) async fn topics_matching(
        &self,
        pattern: &TopicPattern,
        mut after: Option<TopicName>,
        most: usize,
    ) -> Vec<(TopicName, TopicId)> {
        let mut found = Vec::new();
        loop {
            let mut looked_at = None;
            {
                let topics = self.shared.topics();
                let from = after.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
                let names = topics
                    .by_name
                    .range::<TopicName, _>((from, Bound::Unbounded));
                for (count, (name, id)) in names.enumerate() {
                    if found.len() > most {
                        return found;
                    }
                    if pattern.matches(name) {
                        found.push((name.clone(), *id));
                    }
                    if count + 1 == limits::NAMES_LOOKED_AT_ONCE {
                        looked_at = Some(name.clone());
                        break;
                    }
                }
            }
            if looked_at.is_none() {
                return found;
            }
            after = looked_at;
            tokio::task::yield_now().await;
        }
    }

    /// What topics have of a kind, by topic and name, from the first one after `after`: at most so many, and one more if
    /// there are more. Of one topic, or of all.
    ///
    /// # Errors
    /// `Busy`, or if the store has stopped.
    pub(super) async fn named_after(
        &self,
        only: Option<TopicId>,
        after: After,
        most: usize,
        of: NamesOf,
    ) -> Result<Vec<Named>, ApiError> {
        let mut found = Vec::new();
        let mut looked_at = None;
        loop {
            let (after, left) = (after.clone(), most + 1 - found.len());
            let slice = self
                .change(TopicId::zero(), move |context| {
                    let from = match &looked_at {
                        Some(last) => Bound::Excluded(last),
                        None => after
                            .as_ref()
                            .map_or(Bound::Unbounded, |(topic, _)| Bound::Included(topic)),
                    };
                    Ok((
                        slice(context, only, (from, after.as_ref()), left, of),
                        Vec::new(),
                    ))
                })
                .await?;
            found.extend(slice.found);
            looked_at = slice.looked_at;
            if looked_at.is_none() || found.len() > most {
                return Ok(found);
            }
        }
    }
}

fn slice(
    context: &Context<'_>,
    only: Option<TopicId>,
    (from, after): (Bound<&TopicName>, Option<&(TopicName, SubscriptionName)>),
    most: usize,
    of: NamesOf,
) -> Slice {
    let mut slice = Slice {
        found: Vec::new(),
        looked_at: None,
    };
    let mut look_at = |id: TopicId, topic_name: &TopicName| {
        let Ok(topic) = context.state.topic(id) else {
            return true;
        };
        let wanted = of(topic)
            .filter(|name| after.is_none_or(|(topic, last)| (topic, last) < (topic_name, *name)));
        let left = most - slice.found.len();
        slice.found.extend(wanted.take(left).map(|name| Named {
            id,
            topic: topic_name.clone(),
            name: name.clone(),
        }));
        slice.found.len() < most
    };
    if let Some(only) = only {
        if let Ok(topic) = context.state.topic(only) {
            look_at(only, &topic.row.name);
        }
        return slice;
    }
    for (count, (name, id)) in context.state.names_from(from).enumerate() {
        if !look_at(id, name) {
            break;
        }
        if count + 1 == limits::NAMES_LOOKED_AT_ONCE {
            slice.looked_at = Some(name.clone());
            break;
        }
    }
    slice
}

fn subscriptions_of(topic: &Topic) -> Box<dyn Iterator<Item = &SubscriptionName> + '_> {
    Box::new(topic.subscriptions.keys())
}
