//! Messages that are delivered later: publishing, listing and cancelling them.

use bytes::Bytes;

use crate::client::cluster::{Effect, Lane};
use crate::client::route::Route;
use crate::client::{Ack, Client, ClientError, Header, Message, Publisher, PublisherOptions};
use crate::limits;
use crate::protocol::api::{
    CancelLater, CancelledLater, LaterChoice, LaterMessage, LaterPage, LaterPlace, LaterTopic,
    ListLater, OpenLater, PeerInfo,
};
use crate::protocol::error::ApiError;
use crate::time::Timestamp;
use crate::topic::later::DELIVER_AT;
use crate::types::{Address, TopicName};

/// Publishes messages that become visible at a time of their own.
///
/// What it is acknowledged is durable, and waits in the companion of the topic, `later.TOPIC`; the offset that an
/// acknowledgement tells is the message's number there, by which it can be [cancelled](Client::cancel_later).
///
/// ```no_run
/// # async fn example(client: tidings::client::Client) -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
/// use tidings::client::{Message, PublisherOptions};
/// use tidings::time::Timestamp;
///
/// let later = client.delayed_publisher(&"orders".parse()?, PublisherOptions::default()).await?;
/// let at = Timestamp::now().after(Duration::from_secs(600));
/// let acked = later.send(Message::new("remind them"), at).await?.await?;
/// println!("number {}", acked.offset);
/// later.close().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct DelayedPublisher {
    publisher: Publisher,
}

impl DelayedPublisher {
    /// The companion, in which the messages wait.
    pub fn stored_in(&self) -> &TopicName {
        self.publisher.topic()
    }

    /// Takes a message as [`Publisher::send`] does, to be delivered at `at`; one whose time has passed is delivered at once.
    ///
    /// # Errors
    /// As there, and for a message with a time to live: that would count while it waits.
    pub async fn send(&self, message: Message, at: Timestamp) -> Result<Ack, ClientError> {
        if message.ttl.is_some() {
            return Err(ClientError::from(ApiError::InvalidArgument {
                what: "message".to_owned(),
                reason: "one that is delivered later has no time to live".to_owned(),
            }));
        }
        self.publisher.send(message.due_at(at)).await
    }

    /// As [`Publisher::flush`].
    pub async fn flush(&self) -> Result<(), ClientError> {
        self.publisher.flush().await
    }

    /// As [`Publisher::close`].
    pub async fn close(self) -> Result<(), ClientError> {
        self.publisher.close().await
    }

    /// The publisher to the companion: for messages that [say](Message::due_at) when they are due. One that does not is
    /// delivered at once.
    pub fn into_publisher(self) -> Publisher {
        self.publisher
    }
}

impl Message {
    /// With the header that says when it is to be delivered, for a [`DelayedPublisher`]. Anywhere else it says nothing.
    #[must_use]
    pub fn due_at(mut self, at: Timestamp) -> Self {
        let header = Header {
            name: DELIVER_AT.to_owned(),
            value: Bytes::from(at.as_millis().to_string()),
        };
        self.headers.insert(0, header);
        self
    }
}

/// Delayed messages that are pending.
#[derive(Debug, Clone, Default)]
pub struct DelayedMessages {
    /// The topics they are for.
    pub topics: Vec<LaterTopic>,
    /// The earliest ones.
    pub messages: Vec<LaterMessage>,
    /// Peers that did not answer: what they have is missing.
    pub silent: Vec<(PeerInfo, ClientError)>,
}

impl Client {
    /// Begins to publish messages to a topic, which must exist, that are delivered later.
    pub async fn delayed_publisher(
        &self,
        topic: &TopicName,
        options: PublisherOptions,
    ) -> Result<DelayedPublisher, ClientError> {
        let timeout = options.timeout.unwrap_or(self.cluster.options.timeout);
        let location = self.cluster.locate_anew(topic).await?;
        let request = OpenLater { topic: location.id };
        let mut route = Route::new(self.cluster.clone(), location, Lane::Control, timeout);
        let opened = route.insist(&request).await?;
        let publisher = self.publisher(&opened.name, options).await?;
        Ok(DelayedPublisher { publisher })
    }

    /// The earliest pending messages of a topic, at most so many.
    pub async fn list_later(
        &self,
        topic: &TopicName,
        most: usize,
    ) -> Result<DelayedMessages, ClientError> {
        let mut found = DelayedMessages::default();
        loop {
            let request = request(Some(topic), &found.messages, most);
            let page = self.question(topic, &request).await?;
            if !add(&mut found, page, most) {
                return Ok(found);
            }
        }
    }

    /// The earliest pending messages of all topics, at most so many.
    pub async fn list_all_later(&self, most: usize) -> Result<DelayedMessages, ClientError> {
        let ask = move |client: Self, address: Address| async move {
            client.list_later_at(&address, most).await
        };
        let mut all = DelayedMessages::default();
        for (peer, answer) in self.at_all_peers(ask).await? {
            match answer {
                Ok(found) => {
                    all.topics.extend(found.topics);
                    all.messages.extend(found.messages);
                }
                Err(error) => all.silent.push((peer, error)),
            }
        }
        all.topics.sort_by(|a, b| a.topic.cmp(&b.topic));
        all.messages.sort_by_cached_key(place);
        all.messages.truncate(most);
        Ok(all)
    }

    async fn list_later_at(
        &self,
        peer: &Address,
        most: usize,
    ) -> Result<DelayedMessages, ClientError> {
        let mut found = DelayedMessages::default();
        loop {
            let request = request(None, &found.messages, most);
            let page = self.cluster.call(peer, &request).await;
            let page = page.map_err(|error| Effect::Reads.error(error))?;
            if !add(&mut found, page, most) {
                return Ok(found);
            }
        }
    }

    /// Cancels pending messages of a topic, durably: they are never delivered.
    pub async fn cancel_later(
        &self,
        topic: &TopicName,
        which: LaterChoice,
    ) -> Result<CancelledLater, ClientError> {
        let request = CancelLater {
            topic: topic.clone(),
            which,
        };
        self.change(topic, &request).await
    }
}

fn place(message: &LaterMessage) -> LaterPlace {
    LaterPlace {
        at: message.at,
        stored_in: message.stored_in.clone(),
        number: message.number,
    }
}

fn request(topic: Option<&TopicName>, before: &[LaterMessage], most: usize) -> ListLater {
    let left = most.saturating_sub(before.len());
    ListLater {
        topic: topic.cloned(),
        after: before.last().map(place),
        limit: u32::try_from(left.min(limits::DELAYED_PER_PAGE_MAX)).unwrap_or(u32::MAX),
    }
}

/// Adds a page; whether there are more that are wanted.
fn add(found: &mut DelayedMessages, page: LaterPage, most: usize) -> bool {
    if found.messages.is_empty() {
        found.topics = page.topics;
    }
    let is_last = !page.more || page.messages.is_empty();
    found.messages.extend(page.messages);
    !is_last && found.messages.len() < most
}
