//! Confirming what was handed out, topic by topic.

use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::events::is_away;
use super::jobs;
use super::topics::Place;
use super::{PatternEvent, PatternSubscriber};
use crate::client::{Client, ClientError};
use crate::limits;
use crate::protocol::api::{Commit, Committed};
use crate::protocol::error::ApiError;
use crate::types::{Address, Offset, TopicId};

impl PatternSubscriber {
    /// Confirms everything handed out so far, durably. Answers of how many topics something is not confirmed,
    /// because their peers are away: that is done with a later call.
    ///
    /// # Errors
    /// Without a durable subscription.
    pub async fn commit(&mut self) -> Result<usize, ClientError> {
        if self.options.name.is_none() {
            return Err(ClientError::Api(ApiError::InvalidArgument {
                what: "commit".to_owned(),
                reason: "this subscriber has no subscription: give it a name".to_owned(),
            }));
        }
        let mut waiting: Vec<TopicId> = self.dirty.iter().copied().collect();
        let mut asked = JoinSet::new();
        loop {
            while asked.len() < limits::PATTERN_READERS_MAX
                && let Some(id) = waiting.pop()
            {
                if let Some((host, commit)) = self.commit_of(id) {
                    let client = self.client.clone();
                    asked.spawn(async move { (id, send(client, host, &commit).await, commit) });
                }
            }
            match asked.join_next().await {
                Some(Ok((id, answer, commit))) => self.answered(id, answer, commit.offset).await,
                Some(Err(_)) => {}
                None => return Ok(self.dirty.len()),
            }
        }
    }

    /// The same, waiting at most so long for peers that are away to come back.
    ///
    /// # Errors
    /// Without a durable subscription.
    pub async fn commit_within(&mut self, patience: Duration) -> Result<usize, ClientError> {
        let deadline = Instant::now() + patience;
        loop {
            let left = self.commit().await?;
            let wait = deadline.saturating_duration_since(Instant::now());
            if left == 0 || wait.is_zero() {
                return Ok(left);
            }
            // Hosts are heard of, and nothing is read meanwhile.
            self.ask_hosts();
            let wait = wait.min(limits::PATTERN_LOOK_EVERY);
            match tokio::time::timeout(wait, self.jobs.join_next_with_id()).await {
                Ok(Some(Ok((job, outcome)))) => self.settle(job, outcome),
                Ok(None) => tokio::time::sleep(wait).await,
                Ok(Some(Err(_))) | Err(_) => {}
            }
        }
    }

    fn commit_of(&self, id: TopicId) -> Option<(Address, Commit)> {
        let topic = self.topics.get(id)?;
        let host = self.hosts.get(&topic.host)?;
        let (Place::At(offset), Some(cursor)) = (topic.place, topic.cursor) else {
            return None;
        };
        let commit = Commit {
            topic: id,
            name: self.options.name.clone()?,
            generation: cursor.generation,
            offset,
        };
        (!host.is_away()).then(|| (topic.host.clone(), commit))
    }

    async fn answered(
        &mut self,
        id: TopicId,
        answer: Result<Committed, ClientError>,
        offset: Offset,
    ) {
        match answer {
            Ok(committed) => {
                if let Some(topic) = self.topics.get_mut(id)
                    && let Some(cursor) = &mut topic.cursor
                {
                    cursor.committed = committed.offset;
                    if topic.place == Place::At(offset) {
                        self.dirty.remove(&id);
                    }
                }
            }
            Err(ClientError::Api(ApiError::StaleGeneration { .. })) => self.reload(id).await,
            Err(ClientError::Api(ApiError::UnknownTopicId { .. })) => {
                self.dirty.remove(&id);
                self.doubt(id);
            }
            Err(error) if is_away(&error) => self.suspect_host_of(id),
            Err(error) => {
                self.dirty.remove(&id);
                self.give_up(id, error);
            }
        }
    }

    /// Somebody moved the subscription: goes on there.
    async fn reload(&mut self, id: TopicId) {
        let (Some(topic), Some(name)) = (self.topics.get(id), self.options.name.clone()) else {
            return;
        };
        let topic = topic.name.clone();
        match jobs::existing(self.client.clone(), (id, topic.clone()), name).await {
            Ok(Some(found)) => {
                self.stop_work(id);
                self.dirty.remove(&id);
                self.go_on(id, &found);
                let offset = found.committed_offset;
                self.notes.push_back(PatternEvent::Moved { topic, offset });
                self.enqueue(id);
            }
            Ok(None) => {
                let name = self.options.name.clone();
                self.dirty.remove(&id);
                if let Some(name) = name {
                    let error = ApiError::SubscriptionNotFound { topic, name };
                    self.give_up(id, error.into());
                }
            }
            Err(error) => self.trouble_with_work(id, error),
        }
    }

    fn trouble_with_work(&mut self, id: TopicId, error: ClientError) {
        self.stop_work(id);
        if !is_away(&error) {
            self.dirty.remove(&id);
        }
        self.trouble_with(id, error);
    }
}

async fn send(client: Client, host: Address, commit: &Commit) -> Result<Committed, ClientError> {
    let after = limits::PATTERN_PATIENCE;
    let call = tokio::time::timeout(after, client.cluster.call(&host, commit));
    match call.await {
        Ok(answer) => answer.map_err(ClientError::of_read),
        Err(_) => Err(ClientError::TimedOut {
            what: host.to_string(),
            after,
        }),
    }
}
