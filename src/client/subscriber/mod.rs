//! Reading a topic: following it record by record, and committing what was consumed.
//!
//! ```text
//!      committed        position          at hand              come or under way   readable end
//!          │                │                 │                        │                 │
//!   ───────┴────────────────┴─────────────────┴────────────────────────┴─────────────────┴──►
//!           handed out        one answer        bounded by the credit
//! ```
//!
//! A subscriber reads without a task of its own; one of a durable subscription has one that
//! [attends](super::attendance) it. The topic's host sends it a stream, ahead of what is asked of the subscriber,
//! as far as it was given credit; credit is renewed as what came is handed out ([`Feed`]). So who takes
//! records as fast as they come never waits for a round trip, and who takes none holds what
//! [`SubscriberOptions::window_bytes`] says and one answer. One answer at a time is looked into ([`AtHand`]). Every
//! method may be dropped while it waits; nothing is lost or handed out twice.
//!
//! A stream that ends, whatever the reason, is opened anew at the position: there, or where the topic is by then. That a
//! host died without a word is noticed on the connection, within two seconds.
//!
//! Invariants:
//!
//! 1. Offsets handed out follow each other; a [`Gap`] covers what is missing.
//!    Anything else is [`ClientError::UnexplainedGap`], and the position stays.
//! 2. A record is handed out only from a batch whose checksum holds.
//! 3. A commit never covers what was not handed out, unless the caller names the offset.
//! 4. What came before the subscriber was moved, or before an error, is not handed out after it.
//! 5. While its subscription is known to be paused nothing is handed out.

mod at_hand;
mod delivery;
mod feed;

pub use delivery::{Delivery, DeliveryRef, ReceivedRecord, ReceivedRef};

use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;

use crate::client::attendance::{Attendance, in_millis};
use crate::client::cluster::{Effect, Lane};
use crate::client::route::Route;
use crate::client::{Client, ClientError};
use crate::limits;
use crate::protocol::api::{
    Commit, CreateSubscription, DescribeSubscription, FindOffset, Position, Request,
    SubscriptionInfo, TopicLocation,
};
use crate::protocol::data::Fetched;
use crate::protocol::error::ApiError;
use crate::types::{Offset, SubscriptionName, TopicId, TopicName};
use at_hand::{AtHand, Current, Next};
use feed::Feed;

/// How to subscribe.
#[derive(Debug, Clone)]
pub struct SubscriberOptions {
    /// The durable subscription to read through; without one the place is not kept.
    pub name: Option<SubscriptionName>,
    /// Without a name: where to begin, at the end if not told. With a name: where the subscription
    /// begins if it has to be made; if not told, it must exist.
    pub from: Option<Position>,
    /// Bytes that come in one answer, at most [`limits::FETCH_BYTES_MAX`]; a larger batch comes whole.
    pub max_bytes: usize,
    /// Bytes that may have come, or be under way, before one more answer: what a slow application holds.
    pub window_bytes: usize,
    /// Pass over damaged records with a gap instead of an error.
    pub pass_damage: bool,
    /// How long the host may be away; the client's timeout if not told.
    pub timeout: Option<Duration>,
    /// If the subscription has to be made: it vanishes when nobody uses it for so long.
    pub expire: Option<Duration>,
}

impl Default for SubscriberOptions {
    fn default() -> Self {
        Self {
            name: None,
            from: None,
            max_bytes: limits::SUBSCRIBER_ANSWER_BYTES_DEFAULT,
            window_bytes: limits::SUBSCRIBER_WINDOW_BYTES_DEFAULT,
            pass_damage: false,
            timeout: None,
            expire: None,
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
    pub(super) attendance: Option<Attendance>,
    /// The next offset to hand out.
    position: Offset,
    start: Offset,
    end: Offset,
    at_hand: AtHand,
    feed: Option<Feed>,
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
            attendance: None,
            position: Offset::ZERO,
            start: Offset::ZERO,
            end: Offset::ZERO,
            at_hand: AtHand::starting_at(Offset::ZERO),
            feed: None,
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

    /// Waits for the next record or gap, over reconnects and restarts of the host, and while the subscription is
    /// paused.
    pub async fn next(&mut self) -> Result<Delivery, ClientError> {
        loop {
            self.resumed().await;
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
        while deliveries.len() < max && !self.is_paused() {
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
        loop {
            self.resumed().await;
            if !self.at_hand.is_empty() {
                return Ok(());
            }
            self.fill().await?;
        }
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
        if self.is_paused() {
            return Ok(None);
        }
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
        if let Some(attendance) = &mut self.attendance {
            attendance.go_on(&self.route, &subscription);
        }
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
                    expire_ms: self.options.expire.map(in_millis),
                };
                self.ask_host(&request).await?
            }
            None => self.ask_host(&DescribeSubscription { topic, name }).await?,
        };
        self.point_to(subscription.topic_id).await?;
        self.attendance = Some(Attendance::begin(&self.route, &subscription));
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

    /// Drops what came and the stream it came by; the next one begins at the position.
    fn forget(&mut self) {
        self.at_hand = AtHand::starting_at(self.position);
        self.feed = None;
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

    /// Gets more, or fails when the patience is over. To be called when nothing is at hand; may return without
    /// anything new.
    async fn fill(&mut self) -> Result<(), ClientError> {
        if self.feed.is_none() {
            let opened = Feed::open(&self.route, &self.options, self.at_hand.end).await;
            match opened {
                Ok(feed) => self.feed = Some(feed),
                Err(error) => return self.route.recover(error).await,
            }
        }
        let Some(feed) = &mut self.feed else {
            return Ok(());
        };
        match feed.next().await {
            Ok(body) => {
                self.route.progress();
                let accepted = self.accept(body);
                if accepted.is_err() {
                    self.forget();
                }
                accepted
            }
            Err(error) => {
                // A stream that stood was progress, however little came of it.
                if feed.is_open() {
                    self.route.progress();
                }
                self.feed = None;
                self.route.recover(error).await
            }
        }
    }

    /// Checks an answer and puts it at hand.
    fn accept(&mut self, body: Bytes) -> Result<(), ClientError> {
        let fetched = Fetched::decode(body)?;
        (self.start, self.end) = (fetched.start_offset, fetched.end_offset);
        let mut records = 0;
        for item in fetched.items {
            records += self.at_hand.add(item)?;
        }
        if let Some(feed) = &mut self.feed {
            feed.holds(records);
        }
        let (expected, found) = (self.at_hand.end, fetched.next_offset);
        if found == expected {
            return Ok(());
        }
        Err(ClientError::UnexplainedGap { expected, found })
    }
}

fn not_durable() -> ClientError {
    ClientError::Api(ApiError::InvalidArgument {
        what: "commit".to_owned(),
        reason: "this subscriber has no subscription: give it a name".to_owned(),
    })
}
