//! Administering topics, subscriptions and peers: one method per request, sent to
//! whoever answers it.
//!
//! A request that changes something is sent once. If its answer is lost the result
//! is [`ClientError::OutcomeUnknown`]; questions are asked again elsewhere.

use std::time::Duration;

use tokio::task::JoinSet;

use crate::client::cluster::{Effect, Lane};
use crate::client::{Client, ClientError, backoff::Backoff};
use crate::limits;
use crate::net::CallError;
use crate::protocol::api::{
    AcceptLoss, Changes, CreateSubscription, CreateTopic, CreatedTopic, DeleteSubscription,
    DeleteTopic, DescribeSubscription, DescribeTopic, DescribeTopics, Figures, FiguresAnswer,
    FindOffset, FoundOffset, HistoryOfSubscription, ListPeers, ListSubscriptions, ListTopics,
    MetricFamily, MetricPlace, Metrics, PeerInfo, PeerState, PeerStatus, PeerStatusAnswer,
    PlaceTopic, Position, PurgeKey, PurgeTopic, RenameTopic, Request, RetirePeer, Retired,
    SeekSubscription, SetSubscription, SetTopic, Sought, SubscriptionChanges, SubscriptionHistory,
    SubscriptionInfo, TopicChanges, TopicInfo, TopicLocation, UndoSubscription, Undone, Watch,
};
use crate::protocol::error::ApiError;
use crate::types::{
    Address, Gap, Generation, PeerName, SubscriptionName, TopicId, TopicName, TopicPattern,
    TopicSettings,
};

/// How long creating a topic waits for somebody else who is creating it just now.
const CLAIM_PATIENCE: Duration = Duration::from_secs(2);

/// A topic to be created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewTopic {
    /// Its name.
    pub name: TopicName,
    /// The peer that is to host it; otherwise the one with the least load.
    pub on: Option<PeerName>,
    /// Its settings.
    pub settings: TopicSettings,
    /// An existing topic of that name will do, whatever its host and settings.
    pub if_not_exists: bool,
}

impl NewTopic {
    /// On the peer with the least load, with the usual settings.
    pub fn new(name: TopicName) -> Self {
        Self {
            name,
            on: None,
            settings: TopicSettings::default(),
            if_not_exists: false,
        }
    }
}

/// A topic as the directory and as its host know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicReport {
    /// Where it is.
    pub location: TopicLocation,
    /// What its host says, or why it does not.
    pub info: Result<TopicInfo, ClientError>,
}

impl Client {
    // --- the directory -------------------------------------------------------

    /// Who hosts a topic? Asks the directory, not the own memory.
    pub async fn lookup(&self, topic: &TopicName) -> Result<TopicLocation, ClientError> {
        self.cluster.lookup(topic).await
    }

    /// All topics whose names match, in the order of their names.
    pub async fn list_topics(
        &self,
        pattern: &TopicPattern,
    ) -> Result<Vec<TopicLocation>, ClientError> {
        let mut all: Vec<TopicLocation> = Vec::new();
        loop {
            let request = ListTopics {
                pattern: pattern.clone(),
                after: all.last().map(|topic| topic.name.clone()),
                limit: limits::PAGE_ENTRIES_MAX as u32,
            };
            let page = self.cluster.ask(&request, Effect::Reads).await?;
            let is_last = !page.more || page.topics.is_empty();
            all.extend(page.topics);
            if is_last {
                return Ok(all);
            }
        }
    }

    /// All peers the index knows.
    pub async fn list_peers(&self) -> Result<Vec<PeerInfo>, ClientError> {
        self.cluster.ask(&ListPeers {}, Effect::Reads).await
    }

    /// Unregisters a peer that will not come back; the names of its topics are free again.
    pub async fn retire_peer(&self, peer: &PeerName) -> Result<Retired, ClientError> {
        let request = RetirePeer { name: peer.clone() };
        self.cluster.ask(&request, Effect::Changes).await
    }

    /// How is that peer?
    pub async fn peer_status(&self, peer: &PeerName) -> Result<PeerStatusAnswer, ClientError> {
        let found = self.find_peer(peer).await?;
        self.at_peer(&found, &PeerStatus {}, Effect::Reads).await
    }

    /// Everything that peer counts.
    pub async fn metrics(&self, peer: &PeerName) -> Result<Vec<MetricFamily>, ClientError> {
        let found = self.find_peer(peer).await?;
        let mut families: Vec<MetricFamily> = Vec::new();
        let mut after = None;
        loop {
            let limit = limits::PAGE_ENTRIES_MAX as u32;
            let request = Metrics { after, limit };
            let page = self.at_peer(&found, &request, Effect::Reads).await?;
            let more = page.more;
            for family in page.families {
                match families.last_mut() {
                    // A family that goes on.
                    Some(last) if last.name == family.name => last.samples.extend(family.samples),
                    _ => families.push(family),
                }
            }
            let next = end_of(&families);
            // A peer that tells the same again would be asked for ever.
            if !more || next == request.after {
                return Ok(families);
            }
            after = next;
        }
    }

    /// What the node at that address uses and counts.
    pub async fn figures(&self, node: &Address) -> Result<FiguresAnswer, ClientError> {
        let answer = self.cluster.call(node, &Figures {}).await;
        answer.map_err(|error| Effect::Reads.error(error))
    }

    async fn find_peer(&self, peer: &PeerName) -> Result<PeerInfo, ClientError> {
        let peers = self.list_peers().await?;
        let found = peers.into_iter().find(|info| info.name == *peer);
        found.ok_or_else(|| ApiError::PeerNotFound { name: peer.clone() }.into())
    }

    /// Sends a request to that peer and nobody else.
    async fn at_peer<R: Request>(
        &self,
        peer: &PeerInfo,
        request: &R,
        effect: Effect,
    ) -> Result<R::Answer, ClientError> {
        let answer = match self.reach(peer).await {
            Ok(()) => self.cluster.call(&peer.address, request).await,
            Err(error) => Err(error),
        };
        match answer {
            Ok(answer) => Ok(answer),
            Err(CallError::Unreachable { .. }) if peer.state != PeerState::Online => {
                Err(ClientError::Api(ApiError::PeerNotOnline {
                    peer: peer.name.clone(),
                    state: peer.state.to_string(),
                }))
            }
            Err(error) => Err(effect.error(error)),
        }
    }

    /// Makes sure that it is that peer which answers at its address: ports are used again, and
    /// what is meant for one peer must not be done by another.
    async fn reach(&self, peer: &PeerInfo) -> Result<(), CallError> {
        let connection = self
            .cluster
            .connection(&peer.address, Lane::Control)
            .await?;
        let found = connection.hello();
        match found.node == peer.id {
            true => Ok(()),
            false => Err(CallError::Unreachable {
                address: peer.address.clone(),
                reason: format!("{} was expected there, {} answers", peer.name, found.name),
            }),
        }
    }

    /// The same about a topic that this peer stores: a redirect means that it does not.
    async fn own_topic<R: Request>(
        &self,
        peer: &PeerInfo,
        request: &R,
        effect: Effect,
    ) -> Result<R::Answer, ClientError> {
        match self.at_peer(peer, request, effect).await {
            Err(ClientError::Api(ApiError::NotHosted { name, .. })) => {
                Err(ApiError::TopicNotFound { name }.into())
            }
            answer => answer,
        }
    }

    /// Waits at most `wait` for changes of the registry after `version` (0: none seen yet) that
    /// concern topics matching `pattern`. Answered by index servers.
    pub async fn watch(
        &self,
        version: u64,
        pattern: &TopicPattern,
        wait: Duration,
    ) -> Result<Changes, ClientError> {
        let wait = wait.min(limits::FETCH_WAIT_MAX);
        let request = Watch {
            version,
            pattern: pattern.clone(),
            max_wait_ms: u32::try_from(wait.as_millis()).unwrap_or(u32::MAX),
        };
        let timeout = wait + limits::ANSWER_TIMEOUT;
        self.cluster.ask_index(&request, timeout).await
    }

    // --- topics --------------------------------------------------------------

    /// Creates a topic; with [`if_not_exists`](NewTopic::if_not_exists) an existing one is
    /// answered instead.
    pub async fn create_topic(&self, topic: &NewTopic) -> Result<CreatedTopic, ClientError> {
        let mut backoff = Backoff::new();
        loop {
            let error = match self.try_create_topic(topic).await {
                Err(ClientError::Api(error)) => error,
                result => return result,
            };
            match error {
                ApiError::TopicExists { .. } if topic.if_not_exists => {
                    let topic = self.describe_topic(&topic.name).await?.info?;
                    let created = false;
                    return Ok(CreatedTopic { topic, created });
                }
                ApiError::ClaimPending { .. }
                    if topic.if_not_exists && backoff.since().elapsed() < CLAIM_PATIENCE =>
                {
                    tokio::time::sleep(backoff.pause()).await;
                }
                error => return Err(error.into()),
            }
        }
    }

    async fn try_create_topic(&self, topic: &NewTopic) -> Result<CreatedTopic, ClientError> {
        let place = PlaceTopic {
            name: topic.name.clone(),
            on: topic.on.clone(),
        };
        let placement = self.cluster.ask(&place, Effect::Reads).await?;
        let create = CreateTopic {
            name: topic.name.clone(),
            settings: topic.settings,
            if_not_exists: topic.if_not_exists,
        };
        self.cluster.forget(&topic.name);
        let created = self.cluster.call(&placement.address, &create).await;
        created.map_err(ClientError::of_change)
    }

    /// Deletes a topic with all its records and subscriptions.
    pub async fn delete_topic(&self, topic: &TopicName) -> Result<(), ClientError> {
        self.delete(topic, None).await
    }

    /// Deletes a topic if it is still the one of that id: one that was made under the name since then stays.
    pub async fn delete_topic_of(&self, topic: &TopicName, id: TopicId) -> Result<(), ClientError> {
        self.delete(topic, Some(id)).await
    }

    async fn delete(&self, topic: &TopicName, id: Option<TopicId>) -> Result<(), ClientError> {
        let name = topic.clone();
        self.change(topic, &DeleteTopic { name, id }).await?;
        self.cluster.forget(topic);
        Ok(())
    }

    /// Everything about one topic. Fails if its host does not answer.
    pub async fn describe_topic(&self, topic: &TopicName) -> Result<TopicReport, ClientError> {
        let request = DescribeTopic {
            name: topic.clone(),
        };
        let info = self.question(topic, &request).await?;
        // It was asked for at the place that is known now.
        let location = self.cluster.locate(topic).await?;
        Ok(TopicReport {
            location,
            info: Ok(info),
        })
    }

    /// What that peer stores under that name, be the name its own or another topic's: the way to a
    /// topic in conflict, which the directory does not lead to.
    pub async fn describe_topic_on(
        &self,
        peer: &PeerName,
        topic: &TopicName,
    ) -> Result<TopicReport, ClientError> {
        let peer = self.find_peer(peer).await?;
        let request = DescribeTopic {
            name: topic.clone(),
        };
        let info = self.own_topic(&peer, &request, Effect::Reads).await?;
        Ok(report_of(peer, info))
    }

    /// Gives another name to what that peer stores under this one.
    pub async fn rename_topic_on(
        &self,
        peer: &PeerName,
        topic: &TopicName,
        new: &TopicName,
    ) -> Result<TopicReport, ClientError> {
        let peer = self.find_peer(peer).await?;
        let request = RenameTopic {
            name: topic.clone(),
            new: new.clone(),
        };
        let info = self.own_topic(&peer, &request, Effect::Changes).await?;
        self.cluster.forget(topic);
        self.cluster.forget(new);
        Ok(report_of(peer, info))
    }

    /// Deletes what that peer stores under that name, if it is the topic of that id.
    pub async fn delete_topic_on(
        &self,
        peer: &PeerName,
        topic: &TopicName,
        id: TopicId,
    ) -> Result<(), ClientError> {
        let peer = self.find_peer(peer).await?;
        let request = DeleteTopic {
            name: topic.clone(),
            id: Some(id),
        };
        self.own_topic(&peer, &request, Effect::Changes).await?;
        self.cluster.forget(topic);
        Ok(())
    }

    /// Everything about all topics whose names match, in the order of their names: those that
    /// the index lists, and those that peers store under a name that belongs to another.
    pub async fn describe_topics(
        &self,
        pattern: &TopicPattern,
    ) -> Result<Vec<TopicReport>, ClientError> {
        let listed = self.list_topics(pattern).await?;
        let answers = self
            .at_all_peers({
                let pattern = pattern.clone();
                move |client, address| {
                    let pattern = pattern.clone();
                    async move { client.describe_topics_at(&address, &pattern).await }
                }
            })
            .await?;
        Ok(merge_reports(listed, answers))
    }

    async fn describe_topics_at(
        &self,
        peer: &Address,
        pattern: &TopicPattern,
    ) -> Result<Vec<TopicInfo>, ClientError> {
        let mut all: Vec<TopicInfo> = Vec::new();
        loop {
            let request = DescribeTopics {
                pattern: pattern.clone(),
                after: all.last().map(|topic| topic.name.clone()),
                limit: limits::PAGE_ENTRIES_MAX as u32,
            };
            let page = self.cluster.call(peer, &request).await;
            let page = page.map_err(ClientError::of_read)?;
            let is_last = !page.more || page.topics.is_empty();
            all.extend(page.topics);
            if is_last {
                return Ok(all);
            }
        }
    }

    /// Changes settings; answers what holds now.
    pub async fn set_topic(
        &self,
        topic: &TopicName,
        changes: TopicChanges,
    ) -> Result<TopicInfo, ClientError> {
        let name = topic.clone();
        self.change(topic, &SetTopic { name, changes }).await
    }

    /// Gives a topic another name.
    pub async fn rename_topic(
        &self,
        topic: &TopicName,
        new: &TopicName,
    ) -> Result<TopicInfo, ClientError> {
        let request = RenameTopic {
            name: topic.clone(),
            new: new.clone(),
        };
        let info = self.change(topic, &request).await?;
        self.cluster.forget(topic);
        self.cluster.forget(new);
        Ok(info)
    }

    /// Discards the records before a place.
    pub async fn purge_topic(
        &self,
        topic: &TopicName,
        before: Position,
    ) -> Result<TopicInfo, ClientError> {
        let name = topic.clone();
        self.change(topic, &PurgeTopic { name, before }).await
    }

    /// Erases the records of a key that are there now.
    pub async fn purge_key(
        &self,
        topic: &TopicName,
        key: Vec<u8>,
    ) -> Result<TopicInfo, ClientError> {
        let name = topic.clone();
        self.change(topic, &PurgeKey { name, key }).await
    }

    /// Ends a quarantine and tells what is lost.
    pub async fn accept_loss(&self, topic: &TopicName) -> Result<Gap, ClientError> {
        let name = topic.clone();
        let accepted = self.change(topic, &AcceptLoss { name }).await?;
        Ok(accepted.gap)
    }

    /// Turns a place into an offset.
    pub async fn find_offset(
        &self,
        topic: &TopicName,
        position: Position,
    ) -> Result<FoundOffset, ClientError> {
        let request = FindOffset {
            topic: topic.clone(),
            position,
        };
        self.question(topic, &request).await
    }

    // --- subscriptions -------------------------------------------------------

    /// Makes a subscription that begins at a place.
    pub async fn create_subscription(
        &self,
        topic: &TopicName,
        name: &SubscriptionName,
        from: Position,
        if_not_exists: bool,
    ) -> Result<SubscriptionInfo, ClientError> {
        let request = CreateSubscription {
            topic: topic.clone(),
            name: name.clone(),
            from,
            if_not_exists,
            expire_ms: None,
        };
        self.make_subscription(&request).await
    }

    /// The same, with everything that can be said of a new one.
    pub async fn make_subscription(
        &self,
        new: &CreateSubscription,
    ) -> Result<SubscriptionInfo, ClientError> {
        self.change(&new.topic, new).await
    }

    /// Pauses a subscription, lets it go on, or says when it expires. May be repeated.
    pub async fn set_subscription(
        &self,
        topic: &TopicName,
        name: &SubscriptionName,
        changes: SubscriptionChanges,
    ) -> Result<SubscriptionInfo, ClientError> {
        let request = SetSubscription {
            topic: topic.clone(),
            name: name.clone(),
            changes,
        };
        self.change(topic, &request).await
    }

    /// Removes a subscription.
    pub async fn delete_subscription(
        &self,
        topic: &TopicName,
        name: &SubscriptionName,
    ) -> Result<(), ClientError> {
        let request = DeleteSubscription {
            topic: topic.clone(),
            name: name.clone(),
        };
        self.change(topic, &request).await.map(|_| ())
    }

    /// Everything about one subscription.
    pub async fn describe_subscription(
        &self,
        topic: &TopicName,
        name: &SubscriptionName,
    ) -> Result<SubscriptionInfo, ClientError> {
        let request = DescribeSubscription {
            topic: topic.clone(),
            name: name.clone(),
        };
        self.question(topic, &request).await
    }

    /// All subscriptions of one topic, by name.
    pub async fn list_subscriptions(
        &self,
        topic: &TopicName,
    ) -> Result<Vec<SubscriptionInfo>, ClientError> {
        let first = list_subscriptions_request(Some(topic), &[]);
        let page = self.question(topic, &first).await?;
        let location = self.cluster.locate(topic).await?;
        let all = page.subscriptions;
        match page.more {
            true => {
                self.list_subscriptions_at(&location.address, Some(topic), all)
                    .await
            }
            false => Ok(all),
        }
    }

    /// The subscriptions of all topics, by topic and name; and the peers whose subscriptions are
    /// not among them, because they did not answer.
    pub async fn list_all_subscriptions(
        &self,
    ) -> Result<(Vec<SubscriptionInfo>, Vec<(PeerInfo, ClientError)>), ClientError> {
        let answers = self
            .at_all_peers(|client, address| async move {
                let none = Vec::new();
                client.list_subscriptions_at(&address, None, none).await
            })
            .await?;
        let (mut all, mut silent) = (Vec::new(), Vec::new());
        for (peer, answer) in answers {
            match answer {
                Ok(found) => all.extend(found),
                Err(error) => silent.push((peer, error)),
            }
        }
        all.sort_by(|a: &SubscriptionInfo, b| (&a.topic, &a.name).cmp(&(&b.topic, &b.name)));
        Ok((all, silent))
    }

    async fn list_subscriptions_at(
        &self,
        peer: &Address,
        topic: Option<&TopicName>,
        mut all: Vec<SubscriptionInfo>,
    ) -> Result<Vec<SubscriptionInfo>, ClientError> {
        loop {
            let request = list_subscriptions_request(topic, &all);
            let page = self.cluster.call(peer, &request).await;
            let page = page.map_err(ClientError::of_read)?;
            let is_last = !page.more || page.subscriptions.is_empty();
            all.extend(page.subscriptions);
            if is_last {
                return Ok(all);
            }
        }
    }

    /// Moves a subscription, or only tells where it would go.
    pub async fn seek_subscription(
        &self,
        topic: &TopicName,
        name: &SubscriptionName,
        to: Position,
        dry_run: bool,
    ) -> Result<Sought, ClientError> {
        let request = SeekSubscription {
            topic: topic.clone(),
            name: name.clone(),
            to,
            dry_run,
        };
        self.change(topic, &request).await
    }

    /// A subscription and what moved it last, but for ordinary commits.
    pub async fn subscription_history(
        &self,
        topic: &TopicName,
        name: &SubscriptionName,
    ) -> Result<HistoryOfSubscription, ClientError> {
        let request = SubscriptionHistory {
            topic: topic.clone(),
            name: name.clone(),
        };
        self.question(topic, &request).await
    }

    /// Puts a subscription back to where it stood before the last such change, or only tells where that is. With a
    /// generation, only while it still has that one: then asking again does no harm.
    pub async fn undo_subscription(
        &self,
        topic: &TopicName,
        name: &SubscriptionName,
        generation: Option<Generation>,
        dry_run: bool,
    ) -> Result<Undone, ClientError> {
        let request = UndoSubscription {
            topic: topic.clone(),
            name: name.clone(),
            generation,
            dry_run,
        };
        self.change(topic, &request).await
    }

    // --- how -----------------------------------------------------------------

    pub(super) async fn question<R: Request>(
        &self,
        topic: &TopicName,
        request: &R,
    ) -> Result<R::Answer, ClientError> {
        self.cluster.at_host(topic, request, Effect::Reads).await
    }

    pub(super) async fn change<R: Request>(
        &self,
        topic: &TopicName,
        request: &R,
    ) -> Result<R::Answer, ClientError> {
        self.cluster.at_host(topic, request, Effect::Changes).await
    }

    /// Asks all peers, some at a time; what each answered, or why it did not.
    pub(super) async fn at_all_peers<T, F>(
        &self,
        ask: impl Fn(Self, Address) -> F,
    ) -> Result<Vec<(PeerInfo, Result<T, ClientError>)>, ClientError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, ClientError>> + Send + 'static,
    {
        let mut waiting = self.list_peers().await?.into_iter();
        let mut asked = JoinSet::new();
        let mut answers = Vec::new();
        loop {
            while asked.len() < limits::PEERS_ASKED_AT_ONCE
                && let Some(peer) = waiting.next()
            {
                let client = self.clone();
                let answer = ask(self.clone(), peer.address.clone());
                asked.spawn(async move {
                    let answer = match client.reach(&peer).await {
                        Ok(()) => answer.await,
                        Err(error) => Err(ClientError::of_read(error)),
                    };
                    (peer, answer)
                });
            }
            match asked.join_next().await {
                Some(Ok(answer)) => answers.push(answer),
                Some(Err(error)) => {
                    return Err(ClientError::Malformed {
                        what: "the answer of a peer".to_owned(),
                        reason: error.to_string(),
                    });
                }
                None => return Ok(answers),
            }
        }
    }
}

fn list_subscriptions_request(
    topic: Option<&TopicName>,
    before: &[SubscriptionInfo],
) -> ListSubscriptions {
    ListSubscriptions {
        topic: topic.cloned(),
        after: before
            .last()
            .map(|last| (last.topic.clone(), last.name.clone())),
        limit: limits::PAGE_ENTRIES_MAX as u32,
    }
}

/// A topic as its host tells of it, wherever the directory leads.
fn report_of(peer: PeerInfo, info: TopicInfo) -> TopicReport {
    TopicReport {
        location: TopicLocation {
            name: info.name.clone(),
            id: info.id,
            epoch: info.epoch,
            peer: peer.id,
            peer_name: peer.name,
            address: peer.address,
            state: peer.state,
            since: peer.since,
        },
        info: Ok(info),
    }
}

/// Puts together what the index lists and what the peers say.
fn merge_reports(
    listed: Vec<TopicLocation>,
    answers: Vec<(PeerInfo, Result<Vec<TopicInfo>, ClientError>)>,
) -> Vec<TopicReport> {
    let mut infos = std::collections::HashMap::new();
    let mut silent = std::collections::HashMap::new();
    for (peer, answer) in answers {
        match answer {
            Ok(found) => {
                let stored = found.into_iter();
                infos.extend(stored.map(|info| ((peer.id, info.id), (peer.clone(), info))));
            }
            Err(error) => {
                silent.insert(peer.id, error);
            }
        }
    }
    let missing = |location: &TopicLocation| match silent.get(&location.peer) {
        _ if location.state != PeerState::Online => ClientError::Api(ApiError::PeerNotOnline {
            peer: location.peer_name.clone(),
            state: location.state.to_string(),
        }),
        Some(error) => error.clone(),
        None => ClientError::Api(ApiError::TopicNotFound {
            name: location.name.clone(),
        }),
    };
    let mut reports: Vec<TopicReport> = listed
        .into_iter()
        .map(|location| {
            let info = infos
                .remove(&(location.peer, location.id))
                .map(|(_, info)| info);
            let info = info.ok_or_else(|| missing(&location));
            TopicReport { location, info }
        })
        .collect();
    // What is left is stored, and not published by the index.
    let unpublished = infos.into_values();
    reports.extend(unpublished.map(|(peer, info)| report_of(peer, info)));
    reports
        .sort_by(|a, b| (&a.location.name, a.location.id).cmp(&(&b.location.name, b.location.id)));
    reports
}

/// The place of the last series told.
fn end_of(families: &[MetricFamily]) -> Option<MetricPlace> {
    let last = families.last()?;
    Some(MetricPlace {
        figure: last.name.clone(),
        labels: last.samples.last()?.labels.clone(),
    })
}
