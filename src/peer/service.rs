//! Requests to a peer: publishing answers from the store's threads without a
//! task of its own, everything else is a short future.

use std::sync::Arc;
use std::time::Duration;

use super::PeerOptions;
use super::consumers::Desks;
use super::creating::create_topic;
use super::directory::Directory;
use super::ends::EndsService;
use super::figures::PeerFigures;
use super::later::Later;
use super::registrar::{Registrar, unavailable};
use crate::limits;
use crate::net::{Body, Call, CallError, Handling, Reply, Service};
use crate::protocol::api::{
    AcceptLoss, AcceptedLoss, Api, Author, Commit, CreateSubscription, CreateTopic, CreatedTopic,
    DeleteSubscription, DeleteTopic, DescribeProducer, DescribeSubscription, DescribeTopic,
    DescribeTopics, Done, Figures, FindOffset, HelloAnswer, ListPeers, ListSubscriptions,
    ListTopics, Lookup, Metrics, OpenProducer, PROTOCOL_MAX, PeerInfo, PeerState, PeerStatus, Ping,
    PlaceTopic, ProducerInfo, PurgeKey, PurgeTopic, RenameTopic, Request, RetirePeer, Role,
    SeekSubscription, SetSubscription, SetTopic, StoredTopic, SubscriptionHistory, TopicInfo,
    TopicLocation, TopicPage, UndoSubscription, WatchSubscription, WatchSubscriptions,
};
use crate::protocol::batch::CheckedBatch;
use crate::protocol::data::{Fetch, Publish, PublishExpecting, Published, Stream};
use crate::protocol::error::ApiError;
use crate::store::Store;
use crate::topic::{Opening, Terms};
use crate::types::{Address, LeaderEpoch, TopicName};

/// Answers requests to a peer.
pub(super) struct PeerService {
    pub(super) store: Store,
    registrar: Arc<Registrar>,
    directory: Arc<Directory>,
    pub(super) consumers: Arc<Desks>,
    pub(super) later: Arc<Later>,
    hello: HelloAnswer,
    message_bytes_max: usize,
    advertise: Address,
    figures: Arc<PeerFigures>,
    ends: EndsService,
}

impl PeerService {
    pub fn new(
        store: Store,
        (registrar, directory): (Arc<Registrar>, Arc<Directory>),
        (figures, consumers, later): (Arc<PeerFigures>, Arc<Desks>, Arc<Later>),
        options: &PeerOptions,
    ) -> Self {
        let small = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let hello = HelloAnswer {
            protocol: PROTOCOL_MAX,
            role: Role::Peer,
            node: store.peer(),
            name: store.name().to_string(),
            server: concat!("tidings ", env!("CARGO_PKG_VERSION")).to_owned(),
            features: 0,
            frame_bytes_max: small(limits::FRAME_BYTES_MAX),
            message_bytes_max: small(options.message_bytes_max),
            requests_unanswered_max: small(limits::REQUESTS_UNANSWERED_MAX),
            publishes_unanswered_max: small(limits::PUBLISHES_UNANSWERED_MAX),
            indexes: options.indexes.clone(),
        };
        Self {
            directory,
            consumers,
            later,
            hello,
            message_bytes_max: options.message_bytes_max,
            advertise: options.advertise.clone(),
            figures,
            ends: EndsService::new(store.clone()),
            store,
            registrar,
        }
    }

    /// The batch is checked here, on the connection's thread; the answer comes from the store's.
    fn publish(&self, call: Call, reply: Reply) -> Handling {
        match Publish::decode(call.body) {
            Ok(publish) => {
                let terms = publish.epoch.into();
                self.append(publish, terms, reply)
            }
            Err(error) => refuse(reply, &error.into()),
        }
    }

    fn publish_expecting(&self, call: Call, reply: Reply) -> Handling {
        match PublishExpecting::decode(call.body) {
            Ok(expecting) => {
                let terms = Terms {
                    expected_end: Some(expecting.expected_end),
                    ..expecting.publish.epoch.into()
                };
                self.append(expecting.publish, terms, reply)
            }
            Err(error) => refuse(reply, &error.into()),
        }
    }

    fn append(&self, publish: Publish, terms: Terms, reply: Reply) -> Handling {
        // Another process has the identity: what it stored is not known here.
        if self.registrar.is_displaced() {
            return refuse(reply, &ApiError::Displaced);
        }
        match self.checked(&publish) {
            Ok(batch) => {
                let done = move |outcome: Result<Published, ApiError>| {
                    reply.send_raw(outcome.map(|published| Body::copy(&published.encode())));
                };
                self.store
                    .append(publish.topic, terms, batch, Box::new(done));
                Handling::Answered
            }
            Err(refusal) => self.refuse_new(publish, refusal, reply),
        }
    }

    /// Refuses a batch, unless it was stored before: the rule may have been another then, and the
    /// batch is one whose acknowledgement was lost.
    fn refuse_new(&self, publish: Publish, refusal: ApiError, reply: Reply) -> Handling {
        let batch = match CheckedBatch::check(publish.batch, limits::MESSAGE_BYTES_MAX) {
            Ok(batch) if !batch.header().producer.is_zero() || batch.id().is_some() => batch,
            _ => return refuse(reply, &refusal),
        };
        let store = self.store.clone();
        Handling::Finish(Box::pin(async move {
            let known = store.stored_before(publish.topic, publish.epoch, &batch);
            let answer = match known.await {
                Ok(Some(published)) => Ok(Body::copy(&published.encode())),
                Ok(None) => Err(refusal),
                Err(error) => Err(error),
            };
            reply.send_raw(answer);
        }))
    }

    fn checked(&self, publish: &Publish) -> Result<CheckedBatch, ApiError> {
        if let Some(conflict) = self.registrar.conflict(publish.topic) {
            return Err(ApiError::NameConflict {
                name: conflict.name,
                holder: conflict.holder,
            });
        }
        let bytes_max = limits::batch_bytes_max(self.message_bytes_max);
        if publish.batch.len() > bytes_max {
            let reason = format!(
                "{} bytes, at most {bytes_max} are allowed",
                publish.batch.len()
            );
            return Err(ApiError::BadBatch { reason });
        }
        let batch = CheckedBatch::check(publish.batch.clone(), self.message_bytes_max)?;
        self.later.admits(publish.topic, batch.ttl().is_some())?;
        Ok(batch)
    }

    async fn open_producer(&self, asked: OpenProducer) -> Result<ProducerInfo, ApiError> {
        // Another process has the identity: what it gives out is not known here.
        if self.registrar.is_displaced() {
            return Err(ApiError::Displaced);
        }
        let opening = Opening {
            producer: asked.producer,
            nonce: asked.nonce,
            at: asked.at,
        };
        self.store.open_producer(asked.topic, opening).await
    }

    /// Memory for the answer is asked for only when there is something to answer with.
    async fn fetch(&self, fetch: Fetch, mut reply: Reply) {
        let deadline = match fetch.min_bytes {
            0 => Duration::ZERO,
            _ => reply.may_wait(fetch.max_wait_ms),
        };
        let started = tokio::time::Instant::now();
        if !deadline.is_zero() {
            let readable = self.store.until_readable(&fetch);
            let _ = tokio::time::timeout_at(started + deadline, readable).await;
            reply.restart_clock();
        }
        let wanted = (fetch.max_bytes as usize).clamp(1, limits::FETCH_BYTES_MAX);
        let granted = reply.reserve_up_to(wanted).await;
        let left = deadline.saturating_sub(started.elapsed());
        let max_wait_ms = if fetch.min_bytes > 1 {
            u32::try_from(left.as_millis()).unwrap_or(u32::MAX)
        } else {
            0
        };
        let fetched = self
            .store
            .fetch(Fetch {
                max_wait_ms,
                max_bytes: u32::try_from(granted).unwrap_or(u32::MAX),
                ..fetch
            })
            .await;
        reply.send_raw(fetched.map(|fetched| Body::from(fetched.encode())));
    }

    async fn create(&self, request: CreateTopic) -> Result<CreatedTopic, ApiError> {
        if let Ok(existing) = self.store.describe_topic(request.name.clone()).await {
            return if request.if_not_exists {
                Ok(CreatedTopic {
                    topic: self.with_conflict(existing),
                    created: false,
                })
            } else {
                Err(ApiError::TopicExists { name: request.name })
            };
        }
        let parts = (&self.store, &*self.registrar, &*self.directory);
        let topic = create_topic(parts, request).await?;
        Ok(CreatedTopic {
            topic,
            created: true,
        })
    }

    async fn delete(&self, request: DeleteTopic) -> Result<Done, ApiError> {
        let deleted = self
            .store
            .delete_topic(request.name.clone(), request.id)
            .await;
        let id = self.or_redirect(&request.name, deleted).await?;
        self.registrar.settle(id);
        self.registrar.release(&request.name, id).await;
        // Where messages for it are still pending their companion stays: nothing is lost in silence.
        if let Some((name, companion)) = self.later.empty_companion(id).await
            && self
                .store
                .delete_topic(name.clone(), Some(companion))
                .await
                .is_ok()
        {
            self.registrar.settle(companion);
            self.registrar.release(&name, companion).await;
        }
        Ok(Done {})
    }

    async fn purge_key(&self, asked: PurgeKey) -> Result<TopicInfo, ApiError> {
        let purged = self.store.purge_key(asked.name.clone(), asked.key);
        let purged = purged.await;
        if purged.is_ok() {
            // What was unpacked before still holds messages of the key.
            self.consumers.forget_unpacked();
            self.later.forget_unpacked();
        }
        self.or_redirect(&asked.name, purged).await
    }

    /// Renames a topic, and after it the companion in which its delayed messages lie, if that can be.
    async fn rename(&self, request: RenameTopic) -> Result<TopicInfo, ApiError> {
        let new = request.new.clone();
        let info = self.rename_one(request).await?;
        if let Some(renaming) = self.later.renaming(info.id, &new).await {
            let companion = renaming.name.clone();
            if let Err(error) = self.rename_one(renaming).await {
                tracing::warn!(%companion, %error, "a companion keeps its name, though its topic was renamed");
            }
            self.later.changed(info.id);
        }
        Ok(info)
    }

    async fn rename_one(&self, request: RenameTopic) -> Result<TopicInfo, ApiError> {
        let Some(stored) = self.store.stored_topic(&request.name) else {
            return Err(self.directory.redirect(&request.name).await);
        };
        let (id, stored_epoch) = (stored.id, stored.epoch);
        if self.store.id_of(&request.new).is_ok() {
            return Err(ApiError::TopicExists { name: request.new });
        }
        let epoch = self.registrar.claim(&request.new, id).await?;
        let info = match self.rename_stored(&request, stored, epoch).await {
            Ok(info) => info,
            Err(error) => {
                self.registrar.release(&request.new, id).await;
                if epoch > stored_epoch {
                    // That may have been set already.
                    self.registrar.tell_again();
                }
                return Err(error);
            }
        };
        match self.registrar.confirm(&request.new, id, epoch).await {
            // It is published under its new name, whatever became of the old one.
            Ok(()) => self.registrar.settle(id),
            // The topic has its new name; the index hears of it with the next registration.
            Err(_) => self.registrar.tell_again(),
        }
        Ok(self.with_conflict(info))
    }

    /// The name, and the epoch that the index granted with it: it tells both to clients.
    async fn rename_stored(
        &self,
        request: &RenameTopic,
        stored: StoredTopic,
        epoch: LeaderEpoch,
    ) -> Result<TopicInfo, ApiError> {
        if epoch > stored.epoch {
            self.store.set_epoch(stored.id, epoch).await?;
        }
        let renamed = self
            .store
            .rename_topic(request.name.clone(), request.new.clone());
        renamed.await
    }

    /// An answer about a topic that is not stored here tells where it is.
    pub(super) async fn or_redirect<T>(
        &self,
        name: &TopicName,
        outcome: Result<T, ApiError>,
    ) -> Result<T, ApiError> {
        match outcome {
            Err(ApiError::TopicNotFound { .. }) => Err(self.directory.redirect(name).await),
            outcome => outcome,
        }
    }

    async fn describe(&self, name: TopicName) -> Result<TopicInfo, ApiError> {
        let described = self.store.describe_topic(name.clone()).await;
        self.or_redirect(&name, described)
            .await
            .map(|info| self.with_conflict(info))
    }

    fn with_conflict(&self, info: TopicInfo) -> TopicInfo {
        TopicInfo {
            conflict: self.registrar.conflict(info.id).is_some(),
            ..info
        }
    }

    async fn lookup(&self, request: Lookup) -> Result<TopicLocation, ApiError> {
        match self.directory.own(&request.name) {
            Some(own) => Ok(own),
            None if request.local_only => Err(ApiError::TopicNotFound { name: request.name }),
            None => self.directory.find(&request.name).await,
        }
    }

    /// From the index; without one, what is here.
    async fn list_topics(&self, request: ListTopics) -> Result<TopicPage, ApiError> {
        match self.registrar.ask(&request).await {
            Ok(page) => Ok(page),
            Err(CallError::Api(error)) => Err(error),
            Err(_) => Ok(self.own_topics(&request)),
        }
    }

    fn own_topics(&self, request: &ListTopics) -> TopicPage {
        let limit = (request.limit as usize).clamp(1, limits::PAGE_ENTRIES_MAX);
        let stored = self.store.stored_topics();
        let after = |name: &TopicName| request.after.as_ref().is_none_or(|after| name > after);
        let mut matching = stored
            .iter()
            .filter(|topic| after(&topic.name) && request.pattern.matches(&topic.name));
        let topics = matching
            .by_ref()
            .take(limit)
            .filter_map(|topic| self.directory.own(&topic.name))
            .collect();
        TopicPage {
            topics,
            more: matching.next().is_some(),
        }
    }

    async fn list_peers(&self) -> Result<Vec<PeerInfo>, ApiError> {
        match self.registrar.ask(&ListPeers {}).await {
            Ok(peers) => Ok(peers),
            Err(CallError::Api(error)) => Err(error),
            Err(_) => {
                let mut peers = self.registrar.known_peers();
                peers.push(self.own_info());
                peers.sort_by(|a, b| a.name.cmp(&b.name));
                Ok(peers)
            }
        }
    }

    fn own_info(&self) -> PeerInfo {
        PeerInfo {
            id: self.store.peer(),
            name: self.store.name().clone(),
            address: self.advertise.clone(),
            state: PeerState::Online,
            since: self.figures.started(),
            topics: self.store.topic_count() as u64,
            conflicts: Vec::new(),
            load: self.registrar.load(),
        }
    }

    /// Questions that only the index can answer.
    async fn forward<R: Request>(&self, request: R) -> Result<R::Answer, ApiError> {
        self.registrar.ask(&request).await.map_err(unavailable)
    }
}

/// Decodes a request and answers with what the expression makes of it.
macro_rules! answer {
    ($call:expr, $reply:expr, $this:expr, $request:ty, |$peer:ident, $asked:ident| $work:expr) => {
        match $call.decode::<$request>() {
            Ok($asked) => {
                let $peer = $this.clone();
                Handling::finish::<$request>($reply, async move { $work })
            }
            Err(error) => refuse($reply, &error),
        }
    };
}

impl Service for PeerService {
    fn hello(&self) -> HelloAnswer {
        self.hello.clone()
    }

    fn call(self: &Arc<Self>, call: Call, reply: Reply) -> Handling {
        match call.api {
            Api::Publish => self.publish(call, reply),
            Api::PublishExpecting => self.publish_expecting(call, reply),
            Api::Fetch => match Fetch::decode(call.body.clone()) {
                Ok(fetch) => {
                    let this = self.clone();
                    Handling::Wait(Box::pin(async move { this.fetch(fetch, reply).await }))
                }
                Err(error) => refuse(reply, &error.into()),
            },
            Api::Stream => match Stream::decode(call.body.clone()) {
                Ok(stream) => Handling::Wait(Box::pin(self.clone().stream(stream, reply))),
                Err(error) => refuse(reply, &error.into()),
            },
            Api::Commit => answer!(call, reply, self, Commit, |peer, asked| peer
                .store
                .commit(asked)
                .await),
            Api::DescribeProducer | Api::OpenProducer => self.call_about_producers(&call, reply),
            Api::Ping => Handling::answer::<Ping>(reply, call.decode().map(|Ping {}| Done {})),
            Api::Figures => {
                let answer = call.decode().map(|Figures {}| self.figures.answer());
                Handling::answer::<Figures>(reply, answer)
            }
            Api::PeerStatus => {
                let answer = call.decode().map(|PeerStatus {}| self.figures.status());
                Handling::answer::<PeerStatus>(reply, answer)
            }
            Api::Metrics => answer!(call, reply, self, Metrics, |peer, asked| peer
                .figures
                .page(asked)
                .await),
            Api::Lookup | Api::ListTopics | Api::ListPeers | Api::PlaceTopic | Api::RetirePeer => {
                self.call_about_cluster(&call, reply)
            }
            Api::CreateSubscription
            | Api::DeleteSubscription
            | Api::DescribeSubscription
            | Api::ListSubscriptions
            | Api::SetSubscription
            | Api::SeekSubscription => self.call_about_subscriptions(&call, reply),
            Api::SubscriptionHistory | Api::UndoSubscription => {
                self.call_about_histories(&call, reply)
            }
            Api::WatchSubscription => self.watch_subscription(&call, reply),
            Api::WatchSubscriptions => self.watch_subscriptions(&call, reply),
            Api::CreateConsumerGroup
            | Api::SetConsumerGroup
            | Api::DescribeConsumerGroup
            | Api::ListConsumerGroups
            | Api::DeleteConsumerGroup
            | Api::SeekConsumerGroup
            | Api::JoinConsumerGroup
            | Api::TakeRecords
            | Api::SettleRecords
            | Api::LeaveConsumerGroup
            | Api::ReplayDeadLetters => self.call_about_consumers(&call, reply),
            Api::OpenLater | Api::ListLater | Api::CancelLater => {
                self.call_about_later(&call, reply)
            }
            Api::WatchEnds => match call.decode() {
                Ok(request) => self.ends.watch(request, reply),
                Err(error) => refuse(reply, &error),
            },
            _ => self.call_about_topics(&call, reply),
        }
    }
}

impl PeerService {
    fn call_about_producers(self: &Arc<Self>, call: &Call, reply: Reply) -> Handling {
        if call.api == Api::OpenProducer {
            return answer!(call, reply, self, OpenProducer, |peer, asked| peer
                .open_producer(asked)
                .await);
        }
        answer!(call, reply, self, DescribeProducer, |peer, asked| peer
            .store
            .describe_producer(asked.topic, asked.producer)
            .await)
    }

    fn watch_subscription(&self, call: &Call, mut reply: Reply) -> Handling {
        match call.decode::<WatchSubscription>() {
            Ok(mut watch) => {
                watch.max_wait_ms = reply.may_wait_ms(watch.max_wait_ms);
                let store = self.store.clone();
                Handling::Wait(Box::pin(async move {
                    let watched = store.watch_subscription(watch).await;
                    reply.send::<WatchSubscription>(watched);
                }))
            }
            Err(error) => refuse(reply, &error),
        }
    }

    fn watch_subscriptions(&self, call: &Call, mut reply: Reply) -> Handling {
        match call.decode::<WatchSubscriptions>() {
            Ok(mut watch) => {
                watch.max_wait_ms = reply.may_wait_ms(watch.max_wait_ms);
                let store = self.store.clone();
                Handling::Wait(Box::pin(async move {
                    let watched = store.watch_subscriptions(watch).await;
                    reply.send::<WatchSubscriptions>(watched);
                }))
            }
            Err(error) => refuse(reply, &error),
        }
    }

    fn call_about_cluster(self: &Arc<Self>, call: &Call, reply: Reply) -> Handling {
        match call.api {
            Api::Lookup => answer!(call, reply, self, Lookup, |peer, asked| peer
                .lookup(asked)
                .await),
            Api::ListTopics => {
                answer!(call, reply, self, ListTopics, |peer, asked| peer
                    .list_topics(asked)
                    .await)
            }
            Api::ListPeers => answer!(call, reply, self, ListPeers, |peer, _asked| peer
                .list_peers()
                .await),
            Api::PlaceTopic => answer!(call, reply, self, PlaceTopic, |peer, asked| peer
                .forward(asked)
                .await),
            _ => answer!(call, reply, self, RetirePeer, |peer, asked| peer
                .forward(asked)
                .await),
        }
    }

    fn call_about_topics(self: &Arc<Self>, call: &Call, reply: Reply) -> Handling {
        match call.api {
            Api::CreateTopic => answer!(call, reply, self, CreateTopic, |peer, asked| peer
                .create(asked)
                .await),
            Api::DeleteTopic => answer!(call, reply, self, DeleteTopic, |peer, asked| peer
                .delete(asked)
                .await),
            Api::DescribeTopic => {
                answer!(call, reply, self, DescribeTopic, |peer, asked| peer
                    .describe(asked.name)
                    .await)
            }
            Api::DescribeTopics => answer!(call, reply, self, DescribeTopics, |peer, asked| {
                let mut page = peer
                    .store
                    .describe_topics(asked.pattern, asked.after, asked.limit)
                    .await?;
                page.topics = page
                    .topics
                    .into_iter()
                    .map(|info| peer.with_conflict(info))
                    .collect();
                Ok(page)
            }),
            Api::SetTopic => answer!(call, reply, self, SetTopic, |peer, asked| {
                let set = peer
                    .store
                    .set_topic(asked.name.clone(), asked.changes)
                    .await
                    .inspect(|set| peer.later.changed(set.id));
                peer.or_redirect(&asked.name, set).await
            }),
            Api::RenameTopic => answer!(call, reply, self, RenameTopic, |peer, asked| peer
                .rename(asked)
                .await),
            Api::PurgeTopic => answer!(call, reply, self, PurgeTopic, |peer, asked| {
                let purged = peer
                    .store
                    .purge_topic(asked.name.clone(), asked.before)
                    .await
                    .inspect(|purged| peer.later.changed(purged.id));
                peer.or_redirect(&asked.name, purged).await
            }),
            Api::PurgeKey => answer!(call, reply, self, PurgeKey, |peer, asked| peer
                .purge_key(asked)
                .await),
            Api::AcceptLoss => answer!(call, reply, self, AcceptLoss, |peer, asked| {
                let accepted = peer.store.accept_loss(asked.name.clone()).await;
                peer.or_redirect(&asked.name, accepted)
                    .await
                    .map(|gap| AcceptedLoss { gap })
            }),
            Api::FindOffset => answer!(call, reply, self, FindOffset, |peer, asked| {
                let found = peer
                    .store
                    .find_offset(asked.topic.clone(), asked.position)
                    .await;
                peer.or_redirect(&asked.topic, found).await
            }),
            other => refuse(
                reply,
                &ApiError::WrongRole {
                    request: other.name().to_owned(),
                    answered_by: "an index server".to_owned(),
                    this_is: "a peer".to_owned(),
                },
            ),
        }
    }

    fn call_about_subscriptions(self: &Arc<Self>, call: &Call, reply: Reply) -> Handling {
        let author = author(call);
        match call.api {
            Api::CreateSubscription => {
                answer!(call, reply, self, CreateSubscription, |peer, asked| {
                    let topic = asked.topic.clone();
                    let made = peer.store.asked_by(author).make_subscription(asked).await;
                    peer.or_redirect(&topic, made).await
                })
            }
            Api::DeleteSubscription => {
                answer!(call, reply, self, DeleteSubscription, |peer, asked| {
                    let deleted = peer
                        .store
                        .delete_subscription(asked.topic.clone(), asked.name)
                        .await;
                    peer.or_redirect(&asked.topic, deleted)
                        .await
                        .map(|()| Done {})
                })
            }
            Api::DescribeSubscription => {
                answer!(call, reply, self, DescribeSubscription, |peer, asked| {
                    let described = peer
                        .store
                        .describe_subscription(asked.topic.clone(), asked.name)
                        .await;
                    peer.or_redirect(&asked.topic, described).await
                })
            }
            Api::ListSubscriptions => {
                answer!(call, reply, self, ListSubscriptions, |peer, asked| {
                    let topic = asked.topic.clone();
                    let listed = peer
                        .store
                        .list_subscriptions(asked.topic, asked.after, asked.limit)
                        .await;
                    match topic {
                        Some(topic) => peer.or_redirect(&topic, listed).await,
                        None => listed,
                    }
                })
            }
            Api::SetSubscription => answer!(call, reply, self, SetSubscription, |peer, asked| {
                let topic = asked.topic.clone();
                let set = peer.store.set_subscription(asked).await;
                peer.or_redirect(&topic, set).await
            }),
            _ => answer!(call, reply, self, SeekSubscription, |peer, asked| {
                let sought = peer
                    .store
                    .asked_by(author)
                    .seek(asked.topic.clone(), asked.name, asked.to, asked.dry_run)
                    .await;
                peer.or_redirect(&asked.topic, sought).await
            }),
        }
    }

    fn call_about_histories(self: &Arc<Self>, call: &Call, reply: Reply) -> Handling {
        if call.api == Api::SubscriptionHistory {
            return answer!(call, reply, self, SubscriptionHistory, |peer, asked| {
                let topic = asked.topic.clone();
                let told = peer.store.subscription_history(asked).await;
                peer.or_redirect(&topic, told).await
            });
        }
        let author = author(call);
        answer!(call, reply, self, UndoSubscription, |peer, asked| {
            let topic = asked.topic.clone();
            let store = peer.store.asked_by(author);
            peer.or_redirect(&topic, store.undo_subscription(asked).await)
                .await
        })
    }
}

fn author(call: &Call) -> Author {
    Author::new(&call.client.name, call.client.address.to_string())
}

fn refuse(reply: Reply, error: &ApiError) -> Handling {
    reply.error(error);
    Handling::Answered
}
