//! Reading a topic: following it record by record, and committing what was consumed.
//!
//! ```text
//!      committed        position          fetched            readable end
//!          │                │                 │                    │
//!   ───────┴────────────────┴─────────────────┴────────────────────┴──►
//!           handed out       at hand            asked for in advance
//! ```
//!
//! A subscriber has no task of its own. While the records at hand are being handed
//! out, the next fetch is on its way already: at most two answers are held. Every
//! method may be dropped while it waits; nothing is lost or handed out twice.
//!
//! Invariants:
//!
//! 1. Offsets handed out follow each other; a [`Gap`] covers what is missing.
//!    Anything else is [`ClientError::UnexplainedGap`], and the position stays.
//! 2. A record is handed out only from a batch whose checksum holds.
//! 3. A commit never covers what was not handed out, unless the caller names the offset.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::client::cluster::{Effect, Lane};
use crate::client::route::Route;
use crate::client::{Client, ClientError};
use crate::limits;
use crate::net::{CallError, Connection, Pending};
use crate::protocol::api::{
    Api, Commit, CreateSubscription, DescribeSubscription, FindOffset, Position, Request,
    SubscriptionInfo, TopicLocation,
};
use crate::protocol::batch::{BatchError, CheckedBatch, Header, RecordRef, Records};
use crate::protocol::data::{Fetch, FetchItem, Fetched, StoredBatch};
use crate::protocol::error::ApiError;
use crate::time::Timestamp;
use crate::types::{Gap, Offset, SubscriptionName, TopicId, TopicName};

/// How to subscribe.
#[derive(Debug, Clone)]
pub struct SubscriberOptions {
    /// The durable subscription to read through; without one the place is not kept.
    pub name: Option<SubscriptionName>,
    /// Without a name: where to begin, at the end if not told. With a name: where the subscription
    /// begins if it has to be made; if not told, it must exist.
    pub from: Option<Position>,
    /// Bytes asked for at once, at most [`limits::FETCH_BYTES_MAX`]; a larger batch comes whole.
    pub max_bytes: usize,
    /// Ask for the next records while those at hand are handed out.
    pub prefetch: bool,
    /// Pass over damaged records with a gap instead of an error.
    pub pass_damage: bool,
    /// How long the host may be away; the client's timeout if not told.
    pub timeout: Option<Duration>,
}

impl Default for SubscriberOptions {
    fn default() -> Self {
        Self {
            name: None,
            from: None,
            max_bytes: limits::SUBSCRIBER_FETCH_BYTES_DEFAULT,
            prefetch: true,
            pass_damage: false,
            timeout: None,
        }
    }
}

impl SubscriberOptions {
    /// A passing reader that begins at a place.
    pub fn passing(from: Position) -> Self {
        Self {
            from: Some(from),
            ..Self::default()
        }
    }

    /// Through a durable subscription, which is made at `from` if it does not exist.
    pub fn durable(name: SubscriptionName, from: Option<Position>) -> Self {
        Self {
            name: Some(name),
            from,
            ..Self::default()
        }
    }
}

/// What a subscriber is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delivery {
    /// The next record.
    Record(ReceivedRecord),
    /// Offsets that it will never see.
    Gap(Gap),
}

/// A record with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceivedRecord {
    /// Its offset.
    pub offset: Offset,
    /// When its host appended it.
    pub append_time: Timestamp,
    /// When it was made, by its publisher's clock.
    pub timestamp: Timestamp,
    /// Its key.
    pub key: Option<Bytes>,
    /// Its headers.
    pub headers: Vec<Header>,
    /// Its payload.
    pub value: Bytes,
}

/// What a subscriber has at hand, looked at where it lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeliveryRef<'a> {
    /// The next record.
    Record(ReceivedRef<'a>),
    /// Offsets that it will never see.
    Gap(Gap),
}

/// A record with its place, in the memory that it was received in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReceivedRef<'a> {
    /// Its offset.
    pub offset: Offset,
    /// When its host appended it.
    pub append_time: Timestamp,
    /// Timestamp, key, headers and payload.
    pub record: RecordRef<'a>,
}

/// Reads one topic. Made by [`Client::subscriber`].
///
/// ```no_run
/// # async fn example(client: tidings::client::Client) -> Result<(), Box<dyn std::error::Error>> {
/// use tidings::client::{Delivery, SubscriberOptions};
/// use tidings::protocol::api::Position;
///
/// let options = SubscriberOptions::durable("billing".parse()?, Some(Position::Beginning));
/// let mut subscriber = client.subscriber(&"orders.eu".parse()?, options).await?;
/// loop {
///     match subscriber.next().await? {
///         Delivery::Record(record) => println!("{}: {:?}", record.offset, record.value),
///         Delivery::Gap(gap) => println!("{} to {} are {}", gap.from, gap.to, gap.reason),
///     }
///     subscriber.commit().await?;
/// }
/// # }
/// ```
#[derive(Debug)]
pub struct Subscriber {
    client: Client,
    topic: TopicName,
    options: SubscriberOptions,
    route: Route,
    subscription: Option<SubscriptionInfo>,
    /// The next offset to hand out.
    position: Offset,
    start: Offset,
    end: Offset,
    at_hand: AtHand,
    asked: Option<Asked>,
}

/// What was fetched and not handed out.
#[derive(Debug)]
struct AtHand {
    items: VecDeque<Item>,
    current: Option<Current>,
    /// The offset after all of it.
    end: Offset,
}

#[derive(Debug)]
enum Item {
    Batch(StoredBatch, CheckedBatch),
    Gap(Gap),
}

/// What comes next of it.
enum Next {
    Record,
    Gap(Gap),
    Nothing,
}

/// A batch that is being handed out.
#[derive(Debug)]
struct Current {
    records: Records,
    next_offset: Offset,
    append_time: Timestamp,
    /// What ended it, if no call has told yet.
    failed: Option<BatchError>,
}

/// A fetch on its way.
#[derive(Debug)]
struct Asked {
    answer: Pending,
    connection: Connection,
    deadline: Instant,
}

impl Client {
    /// Subscribes to a topic.
    pub async fn subscriber(
        &self,
        topic: &TopicName,
        options: SubscriberOptions,
    ) -> Result<Subscriber, ClientError> {
        let timeout = options.timeout.unwrap_or(self.cluster.options.timeout);
        let location = self.cluster.locate(topic).await?;
        let mut subscriber = Subscriber {
            client: self.clone(),
            topic: topic.clone(),
            route: Route::new(self.cluster.clone(), location, Lane::Fetch, timeout),
            subscription: None,
            position: Offset::ZERO,
            start: Offset::ZERO,
            end: Offset::ZERO,
            at_hand: AtHand::starting_at(Offset::ZERO),
            asked: None,
            options,
        };
        subscriber.begin().await?;
        Ok(subscriber)
    }
}

impl Subscriber {
    /// The topic's name.
    pub fn topic(&self) -> &TopicName {
        &self.topic
    }

    /// The topic's id: a topic made anew under the same name is another one.
    pub fn topic_id(&self) -> TopicId {
        self.route.location().id
    }

    /// Whether the topic's host is away, as it changes. Reading goes on by itself when it is back;
    /// this is for telling somebody who waits.
    pub fn watch_absence(&self) -> watch::Receiver<bool> {
        self.route.watch()
    }

    /// The next offset to be handed out.
    pub fn position(&self) -> Offset {
        self.position
    }

    /// The first offset that was not readable when the host last told.
    pub fn end_offset(&self) -> Offset {
        self.end
    }

    /// The first offset the topic kept when the host last told.
    pub fn start_offset(&self) -> Offset {
        self.start
    }

    /// The durable subscription as it was last seen.
    pub fn subscription(&self) -> Option<&SubscriptionInfo> {
        self.subscription.as_ref()
    }

    /// Waits for the next record or gap, over reconnects and restarts of the host.
    pub async fn next(&mut self) -> Result<Delivery, ClientError> {
        loop {
            if let Some(delivery) = self.take()? {
                return Ok(delivery);
            }
            self.fill().await?;
        }
    }

    /// The same for at most that long; `None` if nothing came.
    pub async fn next_within(&mut self, wait: Duration) -> Result<Option<Delivery>, ClientError> {
        match tokio::time::timeout(wait, self.next()).await {
            Ok(delivery) => delivery.map(Some),
            Err(_) => Ok(None),
        }
    }

    /// Waits for at least one, and gives what is at hand, at most `max` (and at least 1).
    pub async fn next_many(&mut self, max: usize) -> Result<Vec<Delivery>, ClientError> {
        let mut deliveries = vec![self.next().await?];
        while deliveries.len() < max {
            if let Some(next) = self
                .at_hand
                .take_records(self.position, max, &mut deliveries)
            {
                self.position = next;
                continue;
            }
            match self.take() {
                Ok(Some(delivery)) => deliveries.push(delivery),
                Ok(None) => break,
                // What came before it is good; the error comes again with the next call.
                Err(_) => break,
            }
        }
        Ok(deliveries)
    }

    /// Waits for something to be [at hand](Self::next_at_hand).
    pub async fn ready(&mut self) -> Result<(), ClientError> {
        while self.at_hand.is_empty() {
            self.fill().await?;
        }
        Ok(())
    }

    /// The next record or gap if it is here already, without copying or counting anything: the fastest way to read
    /// much. `None`: wait until more is [ready](Self::ready).
    ///
    /// ```no_run
    /// # async fn example(mut subscriber: tidings::client::Subscriber) -> Result<(), Box<dyn std::error::Error>> {
    /// use tidings::client::DeliveryRef;
    ///
    /// let mut bytes = 0;
    /// loop {
    ///     subscriber.ready().await?;
    ///     while let Some(delivery) = subscriber.next_at_hand()? {
    ///         if let DeliveryRef::Record(received) = delivery {
    ///             bytes += received.record.value.len();
    ///         }
    ///     }
    /// }
    /// # }
    /// ```
    pub fn next_at_hand(&mut self) -> Result<Option<DeliveryRef<'_>>, ClientError> {
        match self.at_hand.advance(self.position) {
            Ok(Next::Record) => {}
            Ok(Next::Gap(gap)) => {
                self.position = gap.to;
                return Ok(Some(DeliveryRef::Gap(gap)));
            }
            Ok(Next::Nothing) => return Ok(None),
            Err(error) => {
                self.forget();
                return Err(error);
            }
        }
        let next = self.at_hand.current.as_mut().and_then(Current::next_ref);
        next.transpose()?
            .map(|received| {
                self.position = received.offset.next();
                Ok(DeliveryRef::Record(received))
            })
            .transpose()
    }

    /// Confirms everything handed out so far, durably. Answers the committed offset.
    pub async fn commit(&mut self) -> Result<Offset, ClientError> {
        self.commit_to(self.position).await
    }

    /// Confirms everything before `offset`, durably. `StaleGeneration` means that the subscription
    /// was moved or made anew by somebody: see [`reload`](Self::reload).
    pub async fn commit_to(&mut self, offset: Offset) -> Result<Offset, ClientError> {
        let Some(subscription) = &self.subscription else {
            return Err(not_durable());
        };
        let request = Commit {
            topic: self.topic_id(),
            name: subscription.name.clone(),
            generation: subscription.generation,
            offset,
        };
        let committed = self.route.insist(&request).await?;
        if let Some(subscription) = &mut self.subscription {
            subscription.committed_offset = committed.offset;
        }
        Ok(committed.offset)
    }

    /// Goes on reading at a place; moves the durable subscription there, if there is one.
    pub async fn seek(&mut self, to: Position) -> Result<Offset, ClientError> {
        let offset = match &self.subscription {
            Some(subscription) => {
                let name = subscription.name.clone();
                let sought = self
                    .client
                    .seek_subscription(&self.topic, &name, to, false)
                    .await?;
                self.check_id(sought.subscription.topic_id)?;
                self.subscription = Some(sought.subscription);
                sought.to
            }
            None => {
                let found = self.client.find_offset(&self.topic, to).await?;
                self.check_id(found.id)?;
                (self.start, self.end) = (found.start_offset, found.end_offset);
                found.offset
            }
        };
        self.go_to(offset);
        Ok(offset)
    }

    /// Reads the subscription's position and generation anew and goes on there: after somebody
    /// else moved it.
    pub async fn reload(&mut self) -> Result<Offset, ClientError> {
        let Some(subscription) = &self.subscription else {
            return Err(not_durable());
        };
        let request = DescribeSubscription {
            topic: self.topic.clone(),
            name: subscription.name.clone(),
        };
        let subscription = self.route.insist(&request).await?;
        self.check_id(subscription.topic_id)?;
        Ok(self.resume(subscription))
    }

    // --- where to read -------------------------------------------------------

    async fn begin(&mut self) -> Result<(), ClientError> {
        loop {
            match self.try_begin().await {
                Ok(()) => {
                    self.route.progress();
                    return Ok(());
                }
                Err(error) => self.route.wait_after(error).await?,
            }
        }
    }

    async fn try_begin(&mut self) -> Result<(), ClientError> {
        let (topic, from) = (self.topic.clone(), self.options.from);
        let Some(name) = self.options.name.clone() else {
            let position = from.unwrap_or(Position::End);
            let found = self.ask_host(&FindOffset { topic, position }).await?;
            self.point_to(found.id).await?;
            (self.start, self.end) = (found.start_offset, found.end_offset);
            self.go_to(found.offset);
            return Ok(());
        };
        let subscription = match from {
            Some(from) => {
                let if_not_exists = true;
                let request = CreateSubscription {
                    topic,
                    name,
                    from,
                    if_not_exists,
                };
                self.ask_host(&request).await?
            }
            None => self.ask_host(&DescribeSubscription { topic, name }).await?,
        };
        self.point_to(subscription.topic_id).await?;
        self.resume(subscription);
        Ok(())
    }

    /// Asks the host something that may be repeated: making a subscription that may exist is, too.
    async fn ask_host<R: Request>(&self, request: &R) -> Result<R::Answer, ClientError> {
        let cluster = &self.client.cluster;
        cluster.at_host(&self.topic, request, Effect::Reads).await
    }

    /// Takes the route to the topic that answered, which need not be the one that was remembered.
    async fn point_to(&mut self, id: TopicId) -> Result<(), ClientError> {
        if self.topic_id() == id {
            return Ok(());
        }
        let location: TopicLocation = self.client.cluster.lookup(&self.topic).await?;
        self.route = self.route.moved_to(location);
        self.check_id(id)
    }

    fn check_id(&self, id: TopicId) -> Result<(), ClientError> {
        if id == self.topic_id() {
            return Ok(());
        }
        let id = self.topic_id();
        Err(ApiError::UnknownTopicId { id }.into())
    }

    fn resume(&mut self, subscription: SubscriptionInfo) -> Offset {
        (self.start, self.end) = (subscription.start_offset, subscription.end_offset);
        let offset = subscription.committed_offset;
        self.subscription = Some(subscription);
        self.go_to(offset);
        offset
    }

    fn go_to(&mut self, offset: Offset) {
        self.position = offset;
        self.forget();
    }

    /// Drops what was fetched or asked for; the next fetch begins at the position.
    fn forget(&mut self) {
        self.at_hand = AtHand::starting_at(self.position);
        self.asked = None;
    }

    // --- handing out ---------------------------------------------------------

    /// The next thing at hand.
    fn take(&mut self) -> Result<Option<Delivery>, ClientError> {
        match self.at_hand.take(self.position) {
            Ok(Some(delivery)) => {
                self.position = match &delivery {
                    Delivery::Record(record) => record.offset.next(),
                    Delivery::Gap(gap) => gap.to,
                };
                Ok(Some(delivery))
            }
            Ok(None) => Ok(None),
            Err(error) => {
                self.forget();
                Err(error)
            }
        }
    }

    /// Gets more, or fails when the patience is over. May return without anything new.
    async fn fill(&mut self) -> Result<(), ClientError> {
        if self.asked.is_none()
            && let Err(error) = self.ask().await
        {
            return self.route.recover(error).await;
        }
        let Some(asked) = &mut self.asked else {
            return Ok(());
        };
        let answer = match tokio::time::timeout_at(asked.deadline, &mut asked.answer).await {
            Ok(answer) => answer,
            Err(_) => {
                // Whoever does not even answer a long poll is asked anew over another connection.
                asked.connection.close();
                Err(CallError::TimedOut {
                    address: asked.connection.address().clone(),
                    after: self.route.answer_timeout(),
                    may_be_sent: true,
                })
            }
        };
        self.asked = None;
        match answer {
            Ok(body) => {
                self.route.progress();
                if let Err(error) = self.accept(body) {
                    self.forget();
                    return Err(error);
                }
                if self.options.prefetch && !self.at_hand.is_empty() {
                    // A failure comes up again when the records at hand are used up.
                    let _ = self.ask().await;
                }
                Ok(())
            }
            Err(error) => self.route.recover(error).await,
        }
    }

    /// Sends the next fetch.
    async fn ask(&mut self) -> Result<(), CallError> {
        let connection = self.route.connection().await?;
        let answer_timeout = self.route.answer_timeout();
        let wait = limits::SUBSCRIBER_WAIT.min(answer_timeout);
        let location = self.route.location();
        let fetch = Fetch {
            topic: location.id,
            epoch: location.epoch,
            offset: self.at_hand.end,
            max_bytes: self.options.max_bytes.clamp(1, limits::FETCH_BYTES_MAX) as u32,
            min_bytes: 1,
            max_wait_ms: wait.as_millis() as u32,
            pass_damage: self.options.pass_damage,
        };
        let answer = connection.submit(Api::Fetch, fetch.encode()).await?;
        self.asked = Some(Asked {
            answer,
            connection,
            deadline: Instant::now() + wait + answer_timeout,
        });
        Ok(())
    }

    /// Checks an answer and puts it at hand.
    fn accept(&mut self, body: Bytes) -> Result<(), ClientError> {
        let fetched = Fetched::decode(body)?;
        (self.start, self.end) = (fetched.start_offset, fetched.end_offset);
        for item in fetched.items {
            self.at_hand.add(item)?;
        }
        let (expected, found) = (self.at_hand.end, fetched.next_offset);
        if found == expected {
            return Ok(());
        }
        Err(ClientError::UnexplainedGap { expected, found })
    }
}

impl AtHand {
    fn starting_at(offset: Offset) -> Self {
        Self {
            items: VecDeque::new(),
            current: None,
            end: offset,
        }
    }

    fn is_empty(&self) -> bool {
        let is_over = |current: &Current| current.records.is_over() && current.failed.is_none();
        self.items.is_empty() && self.current.as_ref().is_none_or(is_over)
    }

    /// Whether the next batch may begin before where it is wanted: a fetch may start inside a
    /// batch, and so may what follows a gap, because records are discarded one by one.
    fn may_start_inside(&self) -> bool {
        self.is_empty() || matches!(self.items.back(), Some(Item::Gap(_)))
    }

    /// Adds what a host answered. It must go on where the last item ended, but for a batch that
    /// may begin earlier.
    fn add(&mut self, item: FetchItem) -> Result<(), ClientError> {
        let expected = self.end;
        let (from, item) = match item {
            FetchItem::Batch(stored) => {
                let batch = CheckedBatch::check_crc(stored.batch.clone())?;
                (stored.base_offset, Item::Batch(stored, batch))
            }
            FetchItem::Gap(gap) => (gap.from, Item::Gap(gap)),
        };
        let to = match &item {
            Item::Batch(_, batch) => from.saturating_add(batch.header().record_count.into()),
            Item::Gap(gap) => gap.to,
        };
        if from > expected {
            let found = from;
            return Err(ClientError::UnexplainedGap { expected, found });
        }
        if to <= expected || (from < expected && !self.may_start_inside()) {
            return Err(ClientError::Malformed {
                what: "the answer to a fetch".to_owned(),
                reason: format!("offsets [{from}, {to}) where {expected} was expected"),
            });
        }
        self.end = to;
        self.items.push_back(match item {
            Item::Gap(gap) => Item::Gap(Gap {
                from: expected,
                ..gap
            }),
            batch @ Item::Batch(..) => batch,
        });
        Ok(())
    }

    /// Appends the records of the current batch from `position` on, up to `max` deliveries in all. Answers the
    /// position after them; `None` if there are none, or the next thing is something else.
    fn take_records(
        &mut self,
        position: Offset,
        max: usize,
        deliveries: &mut Vec<Delivery>,
    ) -> Option<Offset> {
        let current = self.current.as_mut().filter(|current| {
            // What lies before the position is passed over one by one, and so is an error met.
            current.next_offset >= position && current.failed.is_none()
        })?;
        let before = deliveries.len();
        deliveries.reserve(current.records.size_hint().1.unwrap_or(0).min(max - before));
        while deliveries.len() < max
            && let Some(delivery) = current.next()
        {
            match delivery {
                Ok(delivery) => deliveries.push(delivery),
                Err(error) => {
                    current.failed = Some(error);
                    break;
                }
            }
        }
        (deliveries.len() > before).then_some(current.next_offset)
    }

    /// The next record from `position` on, or gap.
    fn take(&mut self, position: Offset) -> Result<Option<Delivery>, ClientError> {
        Ok(match self.advance(position)? {
            Next::Nothing => None,
            Next::Gap(gap) => Some(Delivery::Gap(gap)),
            Next::Record => match &mut self.current {
                Some(current) => current.next().transpose()?,
                None => None,
            },
        })
    }

    /// Passes over what lies before `position`, and tells what comes then. A record is the next of the current batch.
    fn advance(&mut self, position: Offset) -> Result<Next, ClientError> {
        loop {
            if let Some(current) = &mut self.current {
                if let Some(error) = current.failed.take() {
                    return Err(error.into());
                }
                while current.next_offset < position
                    && let Some(passed) = current.next_ref()
                {
                    passed?;
                }
                if !current.records.is_over() {
                    return Ok(Next::Record);
                }
                self.current = None;
            }
            match self.items.pop_front() {
                None => return Ok(Next::Nothing),
                Some(Item::Gap(gap)) => return Ok(Next::Gap(gap)),
                Some(Item::Batch(stored, batch)) => {
                    self.current = Some(Current {
                        records: batch.records()?,
                        next_offset: stored.base_offset,
                        append_time: stored.append_time,
                        failed: None,
                    });
                }
            }
        }
    }
}

impl Current {
    fn next(&mut self) -> Option<Result<Delivery, BatchError>> {
        let record = self.records.next()?;
        let offset = self.next_offset;
        Some(record.map(|record| {
            // Only past what was good: an error is about this offset.
            self.next_offset = offset.next();
            Delivery::Record(ReceivedRecord {
                offset,
                append_time: self.append_time,
                timestamp: record.timestamp,
                key: record.key,
                headers: record.headers,
                value: record.value,
            })
        }))
    }

    /// The same, borrowed. An error is told again by the next call: nothing behind it may be handed out.
    fn next_ref(&mut self) -> Option<Result<ReceivedRef<'_>, BatchError>> {
        let record = self.records.next_ref()?;
        let offset = self.next_offset;
        match &record {
            Ok(_) => self.next_offset = offset.next(),
            Err(error) => self.failed = Some(error.clone()),
        }
        Some(record.map(|record| ReceivedRef {
            offset,
            append_time: self.append_time,
            record,
        }))
    }
}

fn not_durable() -> ClientError {
    ClientError::Api(ApiError::InvalidArgument {
        what: "commit".to_owned(),
        reason: "this subscriber has no subscription: give it a name".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::batch::{BatchBuilder, Compression, RecordToSend};
    use crate::types::{LeaderEpoch, ProducerId, Sequence};

    /// Three records, of which the last is none although the checksum holds.
    fn at_hand() -> AtHand {
        let mut builder = BatchBuilder::new(Compression::None);
        for value in ["one", "two", "three"] {
            let record = RecordToSend {
                timestamp: Timestamp::from_millis(0),
                key: None,
                headers: &[],
                value: value.as_bytes(),
            };
            assert!(builder.push_within(&record, 1_000));
        }
        let batch = builder.build(ProducerId::zero(), Sequence::ZERO);
        let mut bytes = batch.expect("built").to_vec();
        // The attributes of the last record: its value, and four bytes before it.
        let at = bytes.len() - "three".len() - 4;
        bytes[at] = 1;
        let crc = crc_fast::crc32_iscsi(&bytes[4..]);
        bytes[..4].copy_from_slice(&crc.to_le_bytes());
        let mut at_hand = AtHand::starting_at(Offset::ZERO);
        let stored = StoredBatch {
            base_offset: Offset::ZERO,
            epoch: LeaderEpoch::new(1),
            append_time: Timestamp::from_millis(0),
            batch: bytes.into(),
        };
        at_hand.add(FetchItem::Batch(stored)).expect("it follows");
        at_hand
    }

    #[test]
    fn the_position_stays_before_a_record_that_is_none() {
        let mut at_hand = at_hand();
        let first = at_hand.take(Offset::ZERO).expect("good").expect("there");
        assert!(matches!(first, Delivery::Record(record) if record.value == "one"));
        let mut deliveries = Vec::new();
        let next = at_hand.take_records(Offset::new(1), 10, &mut deliveries);
        assert_eq!(next, Some(Offset::new(2)));
        assert_eq!(deliveries.len(), 1);
        assert!(!at_hand.is_empty(), "the error is to be told");
        at_hand.take(Offset::new(2)).expect_err("it is no record");
    }

    #[test]
    fn in_place_the_same() {
        let mut at_hand = at_hand();
        assert!(matches!(at_hand.advance(Offset::ZERO), Ok(Next::Record)));
        let current = at_hand.current.as_mut().expect("a batch");
        for offset in 0..2 {
            let received = current.next_ref().expect("there").expect("good");
            assert_eq!(received.offset.get(), offset);
        }
        current.next_ref().expect("there").expect_err("no record");
        assert_eq!(current.next_offset.get(), 2);
        let again = at_hand.advance(Offset::new(2));
        assert!(again.is_err(), "nothing behind it is handed out");
    }
}
