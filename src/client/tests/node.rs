//! A node in memory: hosts topics and answers lookups, with faults on demand. It can
//! be killed and started again on the same address with everything it stored.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::group_node::Group;
use crate::client::{Client, ConnectOptions};
use crate::limits;
use crate::net::Timeouts;
use crate::net::{Call, Handling, Reply, Server, Service};
use crate::protocol::api::*;
use crate::protocol::batch::CheckedBatch;
use crate::protocol::data::{
    Fetch, FetchItem, Fetched, Publish, PublishExpecting, Published, StoredBatch, Stream,
};
use crate::protocol::error::ApiError;
use crate::time::Timestamp;
use crate::types::{
    Address, Durability, Gap, GapReason, Generation, IdDigest, LeaderEpoch, Offset, PeerId,
    ProducerId, Sequence, SubscriptionName, TopicId, TopicName, TopicSettings,
};

mod ends;
mod reading;

/// Longest wait of a test for anything.
pub const SOON: Duration = Duration::from_secs(20);

/// What is done to the next publish instead of storing and answering it.
#[derive(Debug, Clone)]
pub enum Fault {
    /// Nothing: it is served as usual.
    Serve,
    /// Refused.
    Refuse(ApiError),
    /// Stored, and never answered.
    StoreSilently,
    /// Neither stored nor answered.
    Ignore,
}

/// What is done to the next answers to fetches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FetchFault {
    /// One batch in the middle is left out.
    LeaveOut,
    /// One byte of a batch is changed.
    Corrupt,
}

#[derive(Default)]
struct Producer {
    next: u64,
    /// First sequence, count, base offset.
    kept: VecDeque<(u64, u64, Offset)>,
}

pub struct Topic {
    pub id: TopicId,
    pub epoch: LeaderEpoch,
    pub start: Offset,
    pub end: Offset,
    pub batches: Vec<StoredBatch>,
    pub gaps: Vec<Gap>,
    pub subscriptions: BTreeMap<SubscriptionName, SubscriptionInfo>,
    pub groups: BTreeMap<SubscriptionName, Group>,
    producers: HashMap<ProducerId, Producer>,
    ids: HashMap<IdDigest, Offset>,
    /// It is hosted there now.
    pub moved: Option<(PeerInfo, LeaderEpoch)>,
}

impl Topic {
    fn new(id: u8) -> Self {
        Self {
            id: TopicId::from_bytes([id; 16]),
            epoch: LeaderEpoch::new(1),
            start: Offset::ZERO,
            end: Offset::ZERO,
            batches: Vec::new(),
            gaps: Vec::new(),
            subscriptions: BTreeMap::new(),
            groups: BTreeMap::new(),
            producers: HashMap::new(),
            ids: HashMap::new(),
            moved: None,
        }
    }

    /// Everything stored, as text.
    pub fn values(&self) -> Vec<String> {
        let mut values = Vec::new();
        for stored in &self.batches {
            let batch = CheckedBatch::check(stored.batch.clone(), limits::MESSAGE_BYTES_MAX);
            for record in batch.expect("whole").records().expect("readable") {
                let value = record.expect("readable").value;
                values.push(String::from_utf8_lossy(&value).into_owned());
            }
        }
        values
    }

    /// How many producers published to it.
    pub fn producers(&self) -> usize {
        self.producers.len()
    }

    pub fn forget_producers(&mut self) {
        self.producers.clear();
    }

    fn publish(&mut self, bytes: Bytes, expected: Option<Offset>) -> Result<Published, ApiError> {
        let batch = CheckedBatch::check(bytes, limits::MESSAGE_BYTES_DEFAULT)?;
        let header = *batch.header();
        let (first, count) = (header.first_sequence.get(), header.record_count.into());
        let published = |base: Offset, duplicate| Published {
            base_offset: base,
            end_offset: base.saturating_add(count),
            durability: Durability::Fsync,
            duplicate,
        };
        let base = self.end;
        if let Some(id) = batch.id() {
            let first = *self.ids.entry(id).or_insert(base);
            if first == base {
                self.store(batch);
            }
            return Ok(published(first, first != base));
        }
        let is_known = self.producers.contains_key(&header.producer);
        if !is_known && first != 0 {
            return Err(ApiError::UnknownProducer);
        }
        let producer = self.producers.entry(header.producer).or_default();
        if first < producer.next {
            let kept = producer.kept.iter().find(|kept| kept.0 == first);
            return match kept {
                Some((_, kept_count, base)) => {
                    assert_eq!(*kept_count, count, "a retry has the same records");
                    Ok(published(*base, true))
                }
                None => Err(ApiError::DuplicateTooOld {
                    given: header.first_sequence,
                    oldest: Sequence::new(producer.kept.front().map_or(0, |kept| kept.0)),
                }),
            };
        }
        if first > producer.next {
            return Err(ApiError::SequenceGap {
                expected: Sequence::new(producer.next),
                given: header.first_sequence,
            });
        }
        if let Some(expected) = expected.filter(|end| *end != base) {
            let found = base;
            return Err(ApiError::UnexpectedEnd { expected, found });
        }
        producer.next += count;
        producer.kept.push_back((first, count, base));
        if producer.kept.len() > limits::PRODUCER_BATCHES_KEPT {
            producer.kept.pop_front();
        }
        self.store(batch);
        Ok(published(base, false))
    }

    fn store(&mut self, batch: CheckedBatch) {
        let base = self.end;
        self.end = base.saturating_add(batch.header().record_count.into());
        self.batches.push(StoredBatch {
            base_offset: base,
            epoch: self.epoch,
            append_time: Timestamp::now(),
            batch: batch.into_bytes(),
        });
    }

    /// Puts a gap at the end, as an unclean stop of an `os` topic does.
    pub fn lose(&mut self, records: u64) {
        let (from, to) = (self.end, self.end.saturating_add(records));
        self.gaps.push(Gap {
            from,
            to,
            reason: GapReason::Lost,
        });
        self.end = to;
    }

    /// Discards records from the front up to one inside a batch, as retention does; tells which
    /// is the first one kept.
    pub fn discard_into_a_batch(&mut self) -> Offset {
        let records = |stored: &StoredBatch| {
            let header = crate::protocol::batch::BatchHeader::parse(&stored.batch);
            header.expect("stored").record_count
        };
        let large = self.batches.iter().position(|stored| records(stored) > 1);
        self.batches.drain(..large.expect("a batch of several"));
        let to = self.batches[0].base_offset.next();
        self.gaps.push(Gap {
            from: self.start,
            to,
            reason: GapReason::Discarded,
        });
        self.start = to;
        to
    }

    fn fetch(&self, fetch: &Fetch) -> Result<Fetched, ApiError> {
        if fetch.offset > self.end {
            return Err(ApiError::OffsetOutOfRange {
                requested: fetch.offset,
                start: self.start,
                end: self.end,
            });
        }
        let mut items: Vec<(Offset, FetchItem)> = Vec::new();
        for gap in &self.gaps {
            items.push((gap.to, FetchItem::Gap(*gap)));
        }
        for stored in &self.batches {
            let header = crate::protocol::batch::BatchHeader::parse(&stored.batch);
            let count = header.expect("stored").record_count;
            let end = stored.base_offset.saturating_add(count.into());
            items.push((end, FetchItem::Batch(stored.clone())));
        }
        items.sort_by_key(|(end, _)| *end);
        let mut fetched = Fetched {
            start_offset: self.start,
            end_offset: self.end,
            next_offset: fetch.offset,
            items: Vec::new(),
        };
        let mut bytes = 0;
        for (end, item) in items.into_iter().filter(|(end, _)| *end > fetch.offset) {
            let size = match &item {
                FetchItem::Batch(stored) => stored.batch.len(),
                FetchItem::Gap(_) => 0,
            };
            if bytes > 0 && bytes + size > fetch.max_bytes as usize {
                break;
            }
            bytes += size;
            fetched.next_offset = end;
            fetched.items.push(item);
        }
        Ok(fetched)
    }

    fn info(&self, name: &TopicName) -> TopicInfo {
        TopicInfo {
            name: name.clone(),
            id: self.id,
            epoch: self.epoch,
            settings: TopicSettings::default(),
            start_offset: self.start,
            end_offset: self.end,
            durable_end_offset: self.end,
            bytes: 0,
            created: Timestamp::default(),
            last_append: None,
            subscriptions: self.subscriptions.len() as u64,
            quarantined: false,
            conflict: false,
            gaps: self.gaps.clone(),
            removed: 0,
            compacted_offset: Offset::ZERO,
            purges: 0,
        }
    }

    pub fn find(&self, position: Position) -> Offset {
        match position {
            Position::Beginning | Position::Time(_) => self.start,
            Position::End => self.end,
            Position::Offset(offset) => offset.clamp(self.start, self.end),
            Position::Back(n) => Offset::new(self.end.get().saturating_sub(n)).max(self.start),
        }
    }
}

/// What a node holds; survives its death.
pub struct Disk {
    pub topics: BTreeMap<TopicName, Topic>,
    pub faults: VecDeque<Fault>,
    pub fetch_fault: Option<FetchFault>,
    pub publishes: u64,
    /// Control requests are taken and never answered.
    pub is_silent: bool,
    /// Subscriptions are not made here now.
    pub makes_no_subscriptions: bool,
    unanswered: Vec<Reply>,
    /// What this node knows of other nodes' topics.
    pub elsewhere: BTreeMap<TopicName, TopicLocation>,
    pub peers: Vec<PeerInfo>,
    pub lookups: u64,
    /// Streams that were opened here.
    pub streams: u64,
    /// Topics of which something became new, in order.
    pub news: Vec<TopicName>,
    /// Topics whose ends moved, in order.
    pub moves: Vec<TopicId>,
    /// Ends that were told.
    pub ends_told: u64,
    /// Topics made here: no two ever have the same id.
    pub made: u8,
}

impl Disk {
    /// Whether somebody waits for an answer that does not come.
    pub fn is_waited_for(&self) -> bool {
        !self.unanswered.is_empty()
    }
}

/// A node: the service in front of a disk.
pub struct Node {
    role: Role,
    pub info: PeerInfo,
    indexes: Vec<Address>,
    disk: Mutex<Disk>,
    pub(super) changed: Notify,
}

impl Node {
    pub fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().expect("no test panicked with it")
    }

    pub fn location(&self, name: &TopicName) -> Option<TopicLocation> {
        let disk = self.disk();
        let topic = disk.topics.get(name).filter(|t| t.moved.is_none());
        let local = topic.map(|topic| TopicLocation {
            name: name.clone(),
            id: topic.id,
            epoch: topic.epoch,
            peer: self.info.id,
            peer_name: self.info.name.clone(),
            address: self.info.address.clone(),
            state: PeerState::Online,
            since: Timestamp::default(),
        });
        local.or_else(|| disk.elsewhere.get(name).cloned())
    }

    /// Runs `change` on a topic and wakes those who wait for records.
    pub fn change<T>(&self, name: &TopicName, change: impl FnOnce(&mut Topic) -> T) -> T {
        let mut disk = self.disk();
        let topic = disk.topics.get_mut(name).expect("it is here");
        let result = change(topic);
        let id = topic.id;
        disk.moves.push(id);
        drop(disk);
        self.changed.notify_waiters();
        result
    }

    fn publish(&self, call: &Call, reply: Reply) {
        let body = call.body.clone();
        let (publish, expected) = match call.api {
            Api::PublishExpecting => {
                let expecting = PublishExpecting::decode(body).expect("well-formed");
                (expecting.publish, Some(expecting.expected_end))
            }
            _ => (Publish::decode(body).expect("well-formed"), None),
        };
        let mut disk = self.disk();
        disk.publishes += 1;
        let fault = disk.faults.pop_front().unwrap_or(Fault::Serve);
        match fault {
            Fault::Refuse(error) => return reply.error(&error),
            Fault::Ignore => return disk.unanswered.push(reply),
            Fault::Serve | Fault::StoreSilently => {}
        }
        let result = match check_topic(&mut disk, publish.topic, publish.epoch) {
            Ok((_, topic)) => topic.publish(publish.batch, expected),
            Err(error) => Err(error),
        };
        if result.is_ok() {
            disk.moves.push(publish.topic);
        }
        if matches!(fault, Fault::StoreSilently) {
            return disk.unanswered.push(reply);
        }
        drop(disk);
        self.changed.notify_waiters();
        reply.send_raw(result.map(|published| crate::net::Body::copy(&published.encode())));
    }

    async fn watch_subscription(self: Arc<Self>, call: Call, reply: Reply) {
        let watch: WatchSubscription = call.decode().expect("well-formed");
        let wait = Duration::from_millis(watch.max_wait_ms.into());
        let deadline = tokio::time::Instant::now() + wait;
        loop {
            let changed = self.changed.notified();
            let mut changed = std::pin::pin!(changed);
            changed.as_mut().enable();
            let paused = self.paused(&watch);
            let is_late = tokio::time::Instant::now() >= deadline;
            if is_late || paused != Ok(watch.paused) {
                let watched = paused.map(|paused| WatchedSubscription { paused });
                return reply.send::<WatchSubscription>(watched);
            }
            let _ = tokio::time::timeout_at(deadline, changed).await;
        }
    }

    async fn watch_subscriptions(self: Arc<Self>, call: Call, reply: Reply) {
        let watch: WatchSubscriptions = call.decode().expect("well-formed");
        let wait = Duration::from_millis(watch.max_wait_ms.into());
        let deadline = tokio::time::Instant::now() + wait;
        loop {
            let changed = self.changed.notified();
            let mut changed = std::pin::pin!(changed);
            changed.as_mut().enable();
            let is_paused = |topic: &Topic| {
                let found = topic.subscriptions.get(&watch.name);
                found.is_some_and(|subscription| subscription.paused)
            };
            let mut paused: Vec<TopicId> = {
                let disk = self.disk();
                let paused = disk.topics.iter();
                let paused =
                    paused.filter(|(name, topic)| watch.pattern.matches(name) && is_paused(topic));
                paused.map(|(_, topic)| topic.id).collect()
            };
            paused.sort_unstable();
            let is_late = tokio::time::Instant::now() >= deadline;
            if is_late || paused != watch.paused {
                let watched = WatchedSubscriptions { paused };
                return reply.send::<WatchSubscriptions>(Ok(watched));
            }
            let _ = tokio::time::timeout_at(deadline, changed).await;
        }
    }

    fn paused(&self, watch: &WatchSubscription) -> Result<bool, ApiError> {
        let mut disk = self.disk();
        let (topic, found) = check_topic(&mut disk, watch.topic, LeaderEpoch::new(0))?;
        let name = watch.name.clone();
        match found.subscriptions.get(&name) {
            Some(subscription) => Ok(subscription.paused),
            None => Err(ApiError::SubscriptionNotFound { topic, name }),
        }
    }
    fn control(&self, call: &Call, reply: Reply) {
        let mut disk = self.disk();
        if disk.is_silent {
            return disk.unanswered.push(reply);
        }
        drop(disk);
        let Some(reply) = self.consumers(call, reply) else {
            return;
        };
        match call.api {
            Api::Ping => reply.send::<Ping>(Ok(Done {})),
            Api::Lookup => self.answer(call, reply, Self::lookup),
            Api::ListTopics => self.answer(call, reply, Self::list_topics),
            Api::ListPeers => self.answer(call, reply, |node, _: ListPeers| {
                Ok(node.disk().peers.clone())
            }),
            Api::PlaceTopic => self.answer(call, reply, Self::place),
            Api::CreateTopic => self.answer(call, reply, Self::create),
            Api::DescribeTopic => self.answer(call, reply, |node, request: DescribeTopic| {
                node.named(&request.name, |topic| topic.info(&request.name))
            }),
            Api::DescribeTopics => self.answer(call, reply, Self::describe_topics),
            Api::FindOffset => self.answer(call, reply, Self::find_offset),
            Api::CreateSubscription => self.answer(call, reply, Self::create_subscription),
            Api::DescribeSubscription => self.answer(call, reply, Self::describe_subscription),
            Api::SeekSubscription => self.answer(call, reply, Self::seek),
            Api::Commit => self.answer(call, reply, Self::commit),
            other => reply.error(&ApiError::UnknownApi { api: other as u16 }),
        }
    }

    pub(super) fn answer<R: Request>(
        &self,
        call: &Call,
        reply: Reply,
        serve: impl FnOnce(&Self, R) -> Result<R::Answer, ApiError>,
    ) {
        reply.send::<R>(call.decode().and_then(|request| serve(self, request)));
    }

    fn lookup(&self, request: Lookup) -> Result<TopicLocation, ApiError> {
        self.disk().lookups += 1;
        let name = request.name;
        self.location(&name).ok_or(ApiError::TopicNotFound { name })
    }

    pub(super) fn named<T>(
        &self,
        name: &TopicName,
        use_it: impl FnOnce(&mut Topic) -> T,
    ) -> Result<T, ApiError> {
        let mut disk = self.disk();
        match disk.topics.get_mut(name) {
            Some(topic) => match &topic.moved {
                Some((peer, epoch)) => Err(not_hosted(name, peer, *epoch)),
                None => Ok(use_it(topic)),
            },
            None => Err(ApiError::TopicNotFound { name: name.clone() }),
        }
    }

    fn list_topics(&self, request: ListTopics) -> Result<TopicPage, ApiError> {
        let names: Vec<TopicName> = {
            let disk = self.disk();
            disk.topics
                .keys()
                .chain(disk.elsewhere.keys())
                .cloned()
                .collect()
        };
        let mut names: Vec<TopicName> = names
            .into_iter()
            .filter(|name| request.pattern.matches(name))
            .filter(|name| request.after.as_ref().is_none_or(|after| name > after))
            .collect();
        names.sort();
        // Small pages, whatever was asked for.
        let more = names.len() > 3;
        names.truncate(3);
        let topics = names.iter().filter_map(|name| self.location(name));
        Ok(TopicPage {
            topics: topics.collect(),
            more,
        })
    }

    fn describe_topics(&self, request: DescribeTopics) -> Result<TopicInfoPage, ApiError> {
        let disk = self.disk();
        let mut topics: Vec<TopicInfo> = disk
            .topics
            .iter()
            .filter(|(name, _)| request.pattern.matches(name))
            .filter(|(name, _)| request.after.as_ref().is_none_or(|after| *name > after))
            .map(|(name, topic)| topic.info(name))
            .collect();
        let more = topics.len() > 2;
        topics.truncate(2);
        Ok(TopicInfoPage { topics, more })
    }

    fn place(&self, request: PlaceTopic) -> Result<Placement, ApiError> {
        if self.location(&request.name).is_some() {
            let name = request.name;
            return Err(ApiError::TopicExists { name });
        }
        let disk = self.disk();
        let wanted = |peer: &&PeerInfo| request.on.as_ref().is_none_or(|on| *on == peer.name);
        let peer = disk.peers.iter().find(wanted);
        let peer = peer.ok_or(ApiError::NoPeerOnline)?;
        Ok(Placement {
            peer: peer.id,
            name: peer.name.clone(),
            address: peer.address.clone(),
        })
    }

    fn create(&self, request: CreateTopic) -> Result<CreatedTopic, ApiError> {
        let mut disk = self.disk();
        let id = 200 + disk.made;
        disk.made += 1;
        let topic = Topic::new(id);
        let info = topic.info(&request.name);
        disk.topics.insert(request.name, topic);
        Ok(CreatedTopic {
            topic: info,
            created: true,
        })
    }

    fn find_offset(&self, request: FindOffset) -> Result<FoundOffset, ApiError> {
        self.named(&request.topic, |topic| FoundOffset {
            id: topic.id,
            epoch: topic.epoch,
            offset: topic.find(request.position),
            start_offset: topic.start,
            end_offset: topic.end,
        })
    }

    fn create_subscription(
        &self,
        request: CreateSubscription,
    ) -> Result<SubscriptionInfo, ApiError> {
        if self.disk().makes_no_subscriptions {
            return Err(ApiError::Unanswered);
        }
        self.named(&request.topic, |topic| {
            let offset = topic.find(request.from);
            let (id, epoch, start, end) = (topic.id, topic.epoch, topic.start, topic.end);
            let entry = topic.subscriptions.entry(request.name.clone());
            let subscription = entry.or_insert_with(|| SubscriptionInfo {
                topic: request.topic.clone(),
                topic_id: id,
                epoch,
                name: request.name.clone(),
                committed_offset: offset,
                generation: Generation::new(1),
                start_offset: start,
                end_offset: end,
                lag_ms: 0,
                created: Timestamp::default(),
                last_commit: None,
                paused: false,
                expire_ms: request.expire_ms,
                expires_in_ms: None,
                readers: 0,
            });
            subscription.end_offset = end;
            subscription.clone()
        })
    }

    fn subscription<T>(
        &self,
        topic: &TopicName,
        name: &SubscriptionName,
        use_it: impl FnOnce(&mut SubscriptionInfo) -> T,
    ) -> Result<T, ApiError> {
        self.named(topic, |found| {
            found
                .subscriptions
                .get_mut(name)
                .map(use_it)
                .ok_or_else(|| ApiError::SubscriptionNotFound {
                    topic: topic.clone(),
                    name: name.clone(),
                })
        })?
    }

    fn describe_subscription(
        &self,
        request: DescribeSubscription,
    ) -> Result<SubscriptionInfo, ApiError> {
        self.subscription(&request.topic, &request.name, |found| found.clone())
    }

    fn seek(&self, request: SeekSubscription) -> Result<Sought, ApiError> {
        let to = self.named(&request.topic, |topic| topic.find(request.to))?;
        self.subscription(&request.topic, &request.name, |found| {
            let from = found.committed_offset;
            if !request.dry_run {
                found.committed_offset = to;
                found.generation = found.generation.next();
            }
            let subscription = found.clone();
            Sought {
                from,
                to,
                subscription,
            }
        })
    }

    fn commit(&self, request: Commit) -> Result<Committed, ApiError> {
        let mut disk = self.disk();
        let (name, topic) = check_topic(&mut disk, request.topic, LeaderEpoch::new(0))?;
        let Some(subscription) = topic.subscriptions.get_mut(&request.name) else {
            let (topic, name) = (name, request.name);
            return Err(ApiError::SubscriptionNotFound { topic, name });
        };
        if subscription.generation != request.generation {
            return Err(ApiError::StaleGeneration {
                given: request.generation,
                current: subscription.generation,
            });
        }
        let offset = subscription.committed_offset.max(request.offset);
        subscription.committed_offset = offset;
        Ok(Committed { offset })
    }
}

/// The topic of that id, if it is here and the epoch (0: any) is not stale.
pub(super) fn check_topic(
    disk: &mut Disk,
    id: TopicId,
    epoch: LeaderEpoch,
) -> Result<(TopicName, &mut Topic), ApiError> {
    let found = disk.topics.iter_mut().find(|(_, topic)| topic.id == id);
    let (name, topic) = found.ok_or(ApiError::UnknownTopicId { id })?;
    if let Some((peer, epoch)) = &topic.moved {
        return Err(not_hosted(name, peer, *epoch));
    }
    if epoch.get() != 0 && epoch != topic.epoch {
        return Err(ApiError::StaleEpoch {
            given: epoch,
            current: topic.epoch,
        });
    }
    Ok((name.clone(), topic))
}

fn not_hosted(name: &TopicName, peer: &PeerInfo, epoch: LeaderEpoch) -> ApiError {
    ApiError::NotHosted {
        name: name.clone(),
        peer: peer.name.clone(),
        address: peer.address.clone(),
        epoch,
    }
}

impl Service for Node {
    fn hello(&self) -> HelloAnswer {
        HelloAnswer {
            protocol: 0,
            role: self.role,
            node: self.info.id,
            name: self.info.name.to_string(),
            server: "node in memory".to_owned(),
            features: 0,
            frame_bytes_max: limits::FRAME_BYTES_MAX as u32,
            message_bytes_max: limits::MESSAGE_BYTES_DEFAULT as u32,
            requests_unanswered_max: limits::REQUESTS_UNANSWERED_MAX as u32,
            publishes_unanswered_max: limits::PUBLISHES_UNANSWERED_MAX as u32,
            indexes: self.indexes.clone(),
        }
    }

    fn call(self: &Arc<Self>, call: Call, reply: Reply) -> Handling {
        match call.api {
            Api::Publish | Api::PublishExpecting => self.publish(&call, reply),
            Api::Stream => return Handling::Wait(Box::pin(self.clone().stream(call, reply))),
            Api::WatchSubscription => {
                return Handling::Wait(Box::pin(self.clone().watch_subscription(call, reply)));
            }
            Api::WatchSubscriptions => {
                return Handling::Wait(Box::pin(self.clone().watch_subscriptions(call, reply)));
            }
            Api::TakeRecords => return Handling::Wait(Box::pin(self.clone().take(call, reply))),
            Api::Watch => return Handling::Wait(Box::pin(self.clone().watch(call, reply))),
            Api::WatchEnds => {
                return Handling::Wait(Box::pin(self.clone().watch_ends(call, reply)));
            }
            _ => self.control(&call, reply),
        }
        Handling::Answered
    }
}

/// A node that runs.
pub struct Running {
    pub node: Arc<Node>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl std::ops::Deref for Running {
    type Target = Node;

    fn deref(&self) -> &Node {
        &self.node
    }
}

impl Running {
    /// A peer that hosts topics of these names.
    pub async fn peer(name: &str, topics: &[&str]) -> Self {
        Self::start(Role::Peer, name, topics, Vec::new()).await
    }

    pub async fn start(role: Role, name: &str, topics: &[&str], indexes: Vec<Address>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let info = PeerInfo {
            id: PeerId::from_bytes([name.len() as u8; 16]),
            name: name.parse().expect("a good name"),
            address: listener.local_addr().expect("bound").into(),
            state: PeerState::Online,
            since: Timestamp::default(),
            topics: topics.len() as u64,
            conflicts: Vec::new(),
            load: PeerLoad::default(),
        };
        let first = 20 * name.len() as u8;
        let named = |(id, topic): (u8, &&str)| (topic.parse().expect("good"), Topic::new(id));
        let disk = Disk {
            topics: (first..).zip(topics).map(named).collect(),
            faults: VecDeque::new(),
            fetch_fault: None,
            publishes: 0,
            is_silent: false,
            makes_no_subscriptions: false,
            unanswered: Vec::new(),
            elsewhere: BTreeMap::new(),
            peers: vec![info.clone()],
            lookups: 0,
            streams: 0,
            news: Vec::new(),
            moves: Vec::new(),
            ends_told: 0,
            made: 1,
        };
        let node = Arc::new(Node {
            role,
            info,
            indexes,
            disk: Mutex::new(disk),
            changed: Notify::new(),
        });
        Self::run(node, listener)
    }

    fn run(node: Arc<Node>, listener: TcpListener) -> Self {
        let stop = CancellationToken::new();
        let timeouts = Timeouts {
            shutdown_grace: Duration::ZERO,
            ..Timeouts::default()
        };
        let server = Server::new(node.clone(), stop.clone()).with_timeouts(timeouts);
        let task = tokio::spawn(server.run(listener));
        Self { node, stop, task }
    }

    /// Ends it without answering what is in flight.
    pub async fn kill(self) -> Arc<Node> {
        self.stop.cancel();
        self.task.await.expect("no panic");
        let mut disk = self.node.disk();
        disk.unanswered.clear();
        for topic in disk.topics.values_mut() {
            topic.groups.values_mut().for_each(Group::clear);
        }
        drop(disk);
        self.node
    }

    /// Starts it again on its address.
    pub async fn restart(node: Arc<Node>) -> Self {
        let address = node.info.address.as_str();
        let listener = TcpListener::bind(address).await.expect("its own port");
        Self::run(node, listener)
    }

    pub fn address(&self) -> Address {
        self.info.address.clone()
    }

    /// A client that came in here.
    pub async fn client(&self) -> Client {
        self.client_with(SOON).await
    }

    pub async fn client_with(&self, timeout: Duration) -> Client {
        let options = ConnectOptions::new(vec![self.address()]).with_timeout(timeout);
        Client::connect(options).await.expect("it runs")
    }

    /// Makes the next publishes fail.
    pub fn plan(&self, faults: impl IntoIterator<Item = Fault>) {
        self.disk().faults.extend(faults);
    }
}

pub fn name(text: &str) -> TopicName {
    text.parse().expect("a good name")
}
