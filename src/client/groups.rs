//! Administering consumer groups and their dead letters. Sent as in `admin`: a change once, a question again.

use crate::client::cluster::Effect;
use crate::client::{Client, ClientError, NewGroup};
use crate::limits;
use crate::protocol::api::{
    ConsumerGroupChanges, ConsumerGroupInfo, CreateConsumerGroup, DeleteConsumerGroup,
    DescribeConsumerGroup, ListConsumerGroups, PeerInfo, Position, ReplayDeadLetters,
    ReplayedDeadLetters, SeekConsumerGroup, SetConsumerGroup, SoughtConsumerGroup,
};
use crate::types::{Address, Offset, SubscriptionName, TopicName};

impl Client {
    /// Makes a consumer group; with `if_not_exists` an existing one is answered as it is.
    pub async fn create_group(
        &self,
        topic: &TopicName,
        name: &SubscriptionName,
        new: &NewGroup,
        if_not_exists: bool,
    ) -> Result<ConsumerGroupInfo, ClientError> {
        let request = CreateConsumerGroup {
            topic: topic.clone(),
            name: name.clone(),
            from: new.from,
            options: new.options.clone(),
            if_not_exists,
        };
        self.change(topic, &request).await
    }

    /// Changes options; they hold from the next delivery on.
    pub async fn set_group(
        &self,
        topic: &TopicName,
        name: &SubscriptionName,
        changes: ConsumerGroupChanges,
    ) -> Result<ConsumerGroupInfo, ClientError> {
        let request = SetConsumerGroup {
            topic: topic.clone(),
            name: name.clone(),
            changes,
        };
        self.change(topic, &request).await
    }

    /// Everything about one group.
    pub async fn describe_group(
        &self,
        topic: &TopicName,
        name: &SubscriptionName,
    ) -> Result<ConsumerGroupInfo, ClientError> {
        let request = DescribeConsumerGroup {
            topic: topic.clone(),
            name: name.clone(),
        };
        self.question(topic, &request).await
    }

    /// Removes a group; its dead-letter topic stays.
    pub async fn delete_group(
        &self,
        topic: &TopicName,
        name: &SubscriptionName,
    ) -> Result<(), ClientError> {
        let request = DeleteConsumerGroup {
            topic: topic.clone(),
            name: name.clone(),
        };
        self.change(topic, &request).await.map(|_| ())
    }

    /// Moves a group, or only tells where it would go: what is before that place is settled then, what follows is not.
    pub async fn seek_group(
        &self,
        topic: &TopicName,
        name: &SubscriptionName,
        to: Position,
        dry_run: bool,
    ) -> Result<SoughtConsumerGroup, ClientError> {
        let request = SeekConsumerGroup {
            topic: topic.clone(),
            name: name.clone(),
            to,
            dry_run,
        };
        self.change(topic, &request).await
    }

    /// All groups of one topic, by name.
    pub async fn list_groups(
        &self,
        topic: &TopicName,
    ) -> Result<Vec<ConsumerGroupInfo>, ClientError> {
        let page = self
            .question(topic, &list_request(Some(topic), &[]))
            .await?;
        if !page.more {
            return Ok(page.groups);
        }
        let location = self.cluster.locate(topic).await?;
        self.list_groups_at(&location.address, Some(topic), page.groups)
            .await
    }

    /// The groups of all topics, by topic and name; and the peers whose groups are not among them, because they did not
    /// answer.
    pub async fn list_all_groups(
        &self,
    ) -> Result<(Vec<ConsumerGroupInfo>, Vec<(PeerInfo, ClientError)>), ClientError> {
        let ask = |client: Self, address: Address| async move {
            client.list_groups_at(&address, None, Vec::new()).await
        };
        let (mut all, mut silent) = (Vec::new(), Vec::new());
        for (peer, answer) in self.at_all_peers(ask).await? {
            match answer {
                Ok(found) => all.extend(found),
                Err(error) => silent.push((peer, error)),
            }
        }
        all.sort_by(|a: &ConsumerGroupInfo, b| (&a.topic, &a.name).cmp(&(&b.topic, &b.name)));
        Ok((all, silent))
    }

    async fn list_groups_at(
        &self,
        peer: &Address,
        topic: Option<&TopicName>,
        mut all: Vec<ConsumerGroupInfo>,
    ) -> Result<Vec<ConsumerGroupInfo>, ClientError> {
        loop {
            let page = self.cluster.call(peer, &list_request(topic, &all)).await;
            let page = page.map_err(|error| Effect::Reads.error(error))?;
            let is_last = !page.more || page.groups.is_empty();
            all.extend(page.groups);
            if is_last {
                return Ok(all);
            }
        }
    }

    /// Publishes the dead letters before that offset again where they came from, and removes them, in one durable step
    /// for each origin. Does as many as one step takes: go on until `next` is `before`.
    pub async fn replay_dead_letters(
        &self,
        dead_letters: &TopicName,
        before: Offset,
    ) -> Result<ReplayedDeadLetters, ClientError> {
        let request = ReplayDeadLetters {
            topic: dead_letters.clone(),
            before,
        };
        self.change(dead_letters, &request).await
    }
}

fn list_request(topic: Option<&TopicName>, before: &[ConsumerGroupInfo]) -> ListConsumerGroups {
    ListConsumerGroups {
        topic: topic.cloned(),
        after: before
            .last()
            .map(|last| (last.topic.clone(), last.name.clone())),
        limit: limits::PAGE_ENTRIES_MAX as u32,
    }
}
