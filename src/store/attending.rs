//! Attending all subscriptions of one name: what who follows a pattern does, with one long poll at each host.
//!
//! 1. What is told is durable: what was noted is told when the writer has answered after it.
//! 2. Those that expire are in use as long as the poll waits, also those that are made meanwhile.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::Store;
use super::attendance::Attending;
use crate::limits;
use crate::protocol::api::{WatchSubscriptions, WatchedSubscriptions};
use crate::protocol::error::ApiError;
use crate::types::TopicId;

impl Store {
    /// Waits until the subscriptions of a name are paused on other topics than the request says; for the time it
    /// says at most. Meanwhile they are in use.
    ///
    /// # Errors
    /// `InvalidArgument` for too many topics.
    pub async fn watch_subscriptions(
        &self,
        watch: WatchSubscriptions,
    ) -> Result<WatchedSubscriptions, ApiError> {
        if watch.paused.len() > limits::PAUSED_TOLD_MAX {
            return Err(ApiError::InvalidArgument {
                what: "paused".to_owned(),
                reason: format!("at most {} topics", limits::PAUSED_TOLD_MAX),
            });
        }
        let known: BTreeSet<TopicId> = watch.paused.iter().copied().collect();
        let wait = Duration::from_millis(u64::from(watch.max_wait_ms)).min(limits::FETCH_WAIT_MAX);
        let deadline = tokio::time::Instant::now() + wait;
        let mut news = self.shared.attendance.watch();
        let mut attending = BTreeMap::new();
        loop {
            news.mark_unchanged();
            let (mut paused, mut expiring) = self.shared.attendance.named(&watch.name);
            paused.retain(|id| self.matches(&watch, *id));
            expiring.retain(|id, _| self.matches(&watch, *id));
            self.attend(&watch, &expiring, &mut attending);
            while paused.len() > limits::PAUSED_TOLD_MAX {
                paused.pop_last();
            }
            if let Some(changed) = paused.symmetric_difference(&known).next() {
                self.settled(*changed).await?;
                let paused = paused.into_iter().collect();
                return Ok(WatchedSubscriptions { paused });
            }
            // What comes together is looked at together: each look goes over all that are noted.
            let changed = async {
                let changed = news.changed().await;
                tokio::time::sleep(limits::PATTERN_GATHER).await;
                changed
            };
            if tokio::time::timeout_at(deadline, changed).await.is_err() {
                return Ok(WatchedSubscriptions {
                    paused: watch.paused,
                });
            }
        }
    }

    fn matches(&self, watch: &WatchSubscriptions, id: TopicId) -> bool {
        let topic = self.shared.topic(id);
        topic.is_some_and(|topic| watch.pattern.matches(&topic.name()))
    }

    /// Keeps those in use that expire.
    fn attend(
        &self,
        watch: &WatchSubscriptions,
        expiring: &BTreeMap<TopicId, u64>,
        attending: &mut BTreeMap<TopicId, Attending>,
    ) {
        attending.retain(|id, one| expiring.get(id) == Some(&one.serial));
        for id in expiring.keys() {
            if let Entry::Vacant(vacant) = attending.entry(*id) {
                vacant.insert(Attending::begin(&self.shared, *id, &watch.name));
            }
        }
    }

    /// Waits until what was decided of a topic before is durable. One that is gone has nothing to wait for.
    async fn settled(&self, id: TopicId) -> Result<(), ApiError> {
        let asked = self.change(id, |_| Ok(((), Vec::new()))).await;
        match asked {
            Err(ApiError::UnknownTopicId { .. }) => Ok(()),
            other => other,
        }
    }
}
