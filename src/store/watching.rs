//! What the store tells of its topics to those who watch it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio_util::task::AbortOnDropHandle;

use super::Store;
use super::command::Context;
use super::shared::{Shared, TopicShared};
use crate::figures::Registry;
use crate::limits;
use crate::protocol::error::ApiError;
use crate::topic::State;
use crate::types::{Offset, SubscriptionName, TopicId, TopicName};

/// A topic as whoever watches it sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicFigures {
    /// Its id.
    pub id: TopicId,
    /// Its name.
    pub name: Arc<str>,
    /// Records stored since the start of the process, and bytes of their batches.
    pub records_in: u64,
    /// See `records_in`.
    pub bytes_in: u64,
    /// Records handed to readers since then, and bytes of their batches.
    pub records_out: u64,
    /// See `records_out`.
    pub bytes_out: u64,
    /// Live bytes.
    pub bytes: u64,
    /// First offset kept.
    pub start: Offset,
    /// First offset not readable yet.
    pub end: Offset,
}

impl TopicFigures {
    fn of(name: &TopicName, topic: &TopicShared) -> Self {
        let ((records_in, bytes_in), (records_out, bytes_out)) = topic.through.all();
        Self {
            id: topic.id,
            name: name.as_str().into(),
            records_in,
            bytes_in,
            records_out,
            bytes_out,
            bytes: topic.bytes(),
            start: topic.start(),
            end: topic.readable_end(),
        }
    }
}

/// Where a subscription stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Its topic.
    pub topic: TopicId,
    /// Its name.
    pub name: SubscriptionName,
    /// Next offset to read.
    pub committed: Offset,
    /// Nothing is handed out through it for now.
    pub paused: bool,
}

/// How much of a consumer group is open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupStanding {
    /// Its topic.
    pub topic: TopicId,
    /// Its name.
    pub name: SubscriptionName,
    /// Records that are not settled, durably.
    pub unsettled: u64,
}

impl Store {
    /// The recorder of this node: further parts of it count there too.
    pub fn registry(&self) -> &Arc<Registry> {
        &self.shared.meters.registry
    }

    /// The first topics by name, at most `max`.
    pub fn topic_figures(&self, max: usize) -> Vec<TopicFigures> {
        let topics = self.shared.topics();
        let told = topics.by_name.iter().take(max);
        told.filter_map(|(name, id)| Some(TopicFigures::of(name, topics.by_id.get(id)?)))
            .collect()
    }

    /// Where the subscriptions of these topics stand, at most `max` of them. The writer tells: it may be waiting
    /// for the disk, but for all of them only once.
    ///
    /// # Errors
    /// The store stopped.
    pub async fn standings(
        &self,
        topics: &[TopicId],
        max: usize,
    ) -> Result<Vec<Standing>, ApiError> {
        self.of_topics(topics, max, standings_of).await
    }

    /// How much of the consumer groups of these topics is open, at most `max` of them; likewise.
    ///
    /// # Errors
    /// The store stopped.
    pub async fn group_standings(
        &self,
        topics: &[TopicId],
        max: usize,
    ) -> Result<Vec<GroupStanding>, ApiError> {
        self.of_topics(topics, max, group_standings_of).await
    }

    async fn of_topics<T: Send + 'static>(
        &self,
        topics: &[TopicId],
        max: usize,
        tell: fn(&State, &[TopicId], usize) -> Vec<T>,
    ) -> Result<Vec<T>, ApiError> {
        let chunks = topics.chunks(limits::STANDINGS_TOPICS_AT_ONCE);
        let asked: Vec<_> = chunks
            .map(|some| {
                let (store, some) = (self.clone(), some.to_vec());
                let asking = async move {
                    let telling = move |context: &mut Context<'_>| {
                        Ok((tell(context.state, &some, max), Vec::new()))
                    };
                    store.change(TopicId::zero(), telling).await
                };
                AbortOnDropHandle::new(tokio::spawn(asking))
            })
            .collect();
        let mut standings = Vec::new();
        for told in asked {
            standings.extend(told.await.map_err(|_| self.stopped_error())??);
        }
        standings.truncate(max);
        Ok(standings)
    }
}

fn standings_of(state: &State, topics: &[TopicId], max: usize) -> Vec<Standing> {
    let known = topics.iter().filter_map(|id| state.topic(*id).ok());
    let all = known.flat_map(|topic| {
        let subscriptions = topic.subscriptions.iter();
        subscriptions.map(|(name, row)| Standing {
            topic: topic.id,
            name: name.clone(),
            committed: row.committed,
            paused: row.paused,
        })
    });
    all.take(max).collect()
}

fn group_standings_of(state: &State, topics: &[TopicId], max: usize) -> Vec<GroupStanding> {
    let known = topics.iter().filter_map(|id| state.topic(*id).ok());
    let all = known.flat_map(|topic| {
        let groups = topic.consumers.groups();
        groups.map(|(name, row)| GroupStanding {
            topic: topic.id,
            name: name.clone(),
            unsettled: topic.consumers.unsettled(row, topic.row.end),
        })
    });
    all.take(max).collect()
}

impl Shared {
    /// Counts the rows of the state, for the reclaimer and for people.
    pub fn take_stock(&self, state: &State) {
        let rows = self.meters.take_stock(state);
        self.rows.store(rows, Ordering::Release);
    }
}
