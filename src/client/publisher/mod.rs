//! Publishing: messages in, acknowledgements out.
//!
//! A publisher batches by itself, without a timer: what is sent while
//! [`PUBLISHER_BATCHES_SMALL`](crate::limits::PUBLISHER_BATCHES_SMALL) batches are unanswered waits and becomes the next
//! one, so a lone message goes at once and a flood goes in large batches. Full
//! batches are pipelined, in order, under one producer id with dense sequences;
//! the [`sender`] decides what is repeated when something goes wrong.
//!
//! Order: messages are stored in the order in which [`Publisher::send`] took them,
//! as long as none fails. After a failure the ones after it may be stored without
//! it; every message's own acknowledgement says what became of it.

mod ack;
mod buffer;
mod sender;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;

use crate::client::cluster::Lane;
use crate::client::route::Route;
use crate::client::{Client, ClientError, Compression, Header};
use crate::limits;
use crate::protocol::batch::RecordToSend;
use crate::protocol::error::ApiError;
use crate::time::Timestamp;
use crate::types::{TopicId, TopicName};

use ack::Receipt;
pub use ack::{Ack, Acked, AckedRun, RunAck};
use buffer::Buffer;
use sender::Sender;

/// How to publish.
#[derive(Debug, Clone)]
pub struct PublisherOptions {
    /// How batches are packed.
    pub compression: Compression,
    /// Batches that may be unanswered, from 1 to what the host allows.
    pub batches_in_flight_max: usize,
    /// Size of a full batch, in bytes before compression, as far as the host takes it; a single larger
    /// message makes one of its own.
    pub batch_bytes: usize,
    /// Bytes of messages that may wait or be unanswered before [`Publisher::send`] waits.
    pub memory_bytes_max: usize,
    /// Without progress for so long, what waits fails; the client's timeout if not told.
    pub timeout: Option<Duration>,
}

impl Default for PublisherOptions {
    fn default() -> Self {
        Self {
            compression: Compression::None,
            batches_in_flight_max: limits::PUBLISHER_BATCHES_IN_FLIGHT_DEFAULT,
            batch_bytes: limits::BATCH_BYTES_TARGET,
            memory_bytes_max: limits::PUBLISHER_BYTES_DEFAULT,
            timeout: None,
        }
    }
}

/// A message to be published.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Message {
    /// The key, if it has one; at most 64 KiB.
    pub key: Option<Bytes>,
    /// At most 256.
    pub headers: Vec<Header>,
    /// The payload.
    pub value: Bytes,
    /// When it was made; when it is sent, if not told.
    pub timestamp: Option<Timestamp>,
}

impl Message {
    /// Only a payload.
    pub fn new(value: impl Into<Bytes>) -> Self {
        Self {
            value: value.into(),
            ..Self::default()
        }
    }

    /// With a key.
    #[must_use]
    pub fn with_key(mut self, key: impl Into<Bytes>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// With one more header.
    #[must_use]
    pub fn with_header(mut self, name: impl Into<String>, value: impl Into<Bytes>) -> Self {
        self.headers.push(Header {
            name: name.into(),
            value: value.into(),
        });
        self
    }

    /// Made at that time.
    #[must_use]
    pub fn with_timestamp(mut self, timestamp: Timestamp) -> Self {
        self.timestamp = Some(timestamp);
        self
    }

    /// As it goes into a batch.
    fn to_send(&self, now: impl FnOnce() -> Timestamp) -> RecordToSend<'_> {
        RecordToSend {
            timestamp: self.timestamp.unwrap_or_else(now),
            key: self.key.as_deref(),
            headers: &self.headers,
            value: &self.value,
        }
    }

    /// What it takes of a publisher's memory.
    fn room_bytes(&self) -> usize {
        let header_bytes = |header: &Header| {
            header.name.len() + header.value.len() + limits::MESSAGE_BYTES_OVERHEAD
        };
        let headers: usize = self.headers.iter().map(header_bytes).sum();
        let key = self.key.as_ref().map_or(0, Bytes::len);
        key + headers + self.value.len() + limits::MESSAGE_BYTES_OVERHEAD
    }
}

/// Publishes to one topic. Made by [`Client::publisher`]; clones share everything.
///
/// When the last clone is dropped, what was sent is still delivered in the background;
/// [`close`](Self::close) waits for it.
///
/// ```no_run
/// # async fn example(client: tidings::client::Client) -> Result<(), Box<dyn std::error::Error>> {
/// use tidings::client::{Message, PublisherOptions};
///
/// let publisher = client.publisher(&"orders.eu".parse()?, PublisherOptions::default()).await?;
/// let mut acks = Vec::new();
/// for n in 0..1000 {
///     let message = Message::new(format!("order {n}")).with_key(format!("customer {}", n % 7));
///     acks.push(publisher.send(message).await?);
/// }
/// for ack in acks {
///     let acked = ack.await?;
///     println!("{} ({})", acked.offset, acked.durability);
/// }
/// publisher.close().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Publisher {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    topic: TopicName,
    topic_id: TopicId,
    buffer: Arc<Buffer>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.buffer.close(ClientError::Closed);
    }
}

impl Client {
    /// Begins to publish to a topic, which must exist. Waits for its host as long as the timeout.
    pub async fn publisher(
        &self,
        topic: &TopicName,
        options: PublisherOptions,
    ) -> Result<Publisher, ClientError> {
        check(&options)?;
        let timeout = options.timeout.unwrap_or(self.cluster.options.timeout);
        let location = self.cluster.locate(topic).await?;
        let (cluster, topic_id) = (self.cluster.clone(), location.id);
        let mut route = Route::new(cluster, location, Lane::Publish, timeout);
        let connection = loop {
            match route.connection().await {
                Ok(connection) => break connection,
                Err(error) => route.recover(error).await?,
            }
        };
        route.progress();
        let message_bytes_max = connection.hello().message_bytes_max as usize;
        let in_flight_max = options.batches_in_flight_max;
        let buffer = Arc::new(Buffer::new(options, message_bytes_max));
        let sender = Sender::new(buffer.clone(), route, in_flight_max)?;
        tokio::spawn(sender.run());
        let topic = topic.clone();
        Ok(Publisher {
            shared: Arc::new(Shared {
                topic,
                topic_id,
                buffer,
            }),
        })
    }
}

fn check(options: &PublisherOptions) -> Result<(), ClientError> {
    let refuse = |what: &str, reason: String| {
        Err(ClientError::Api(ApiError::InvalidArgument {
            what: what.to_owned(),
            reason,
        }))
    };
    let most = limits::PUBLISHES_UNANSWERED_MAX;
    if !(1..=most).contains(&options.batches_in_flight_max) {
        let found = options.batches_in_flight_max;
        return refuse(
            "number of batches in flight",
            format!("{found}: 1 to {most} expected"),
        );
    }
    if options.memory_bytes_max == 0 {
        return refuse("memory of a publisher", "0 bytes hold nothing".to_owned());
    }
    Ok(())
}

impl Publisher {
    /// The topic's name.
    pub fn topic(&self) -> &TopicName {
        &self.shared.topic
    }

    /// The topic's id.
    pub fn topic_id(&self) -> TopicId {
        self.shared.topic_id
    }

    /// Whether the topic is full and its host refuses more for now, as it changes. The publisher waits for room by
    /// itself, as long as its timeout; this is for telling somebody who waits.
    pub fn watch_full(&self) -> watch::Receiver<bool> {
        self.shared.buffer.watch_full()
    }

    /// Takes a message, waiting only for room in memory. What it returns resolves when the message
    /// is stored or has failed. An error here means that the message was not taken.
    pub async fn send(&self, message: Message) -> Result<Ack, ClientError> {
        let buffer = &self.shared.buffer;
        let room = buffer.room.take(message.room_bytes()).await;
        let ack = buffer.push(&message, room.bytes())?;
        room.keep();
        Ok(ack)
    }

    /// Takes messages as [`send`](Self::send) would one after the other, at a fraction of its cost a
    /// message. They are stored in their order; those that came to lie in one batch share an
    /// acknowledgement, so there are as many as batches were touched: one or two for what fits into one.
    ///
    /// An error here means that no message was taken. Where the publisher is closed in the middle, the
    /// acknowledgements of those that were not taken say so.
    pub async fn send_batch(&self, messages: &[Message]) -> Result<Vec<RunAck>, ClientError> {
        let buffer = &self.shared.buffer;
        buffer.admit_all(messages)?;
        let mut acks = Vec::with_capacity(2);
        let mut rest = messages;
        while !rest.is_empty() {
            let (now, later) = rest.split_at(self.taken_at_once(rest));
            let bytes = now.iter().map(Message::room_bytes).sum();
            let room = buffer.room.take(bytes).await;
            match buffer.push_all(now, room.bytes(), &mut acks) {
                Ok(()) => _ = room.keep(),
                Err(error) if acks.is_empty() => return Err(error),
                Err(error) => {
                    let count = u32::try_from(rest.len()).unwrap_or(u32::MAX);
                    acks.push(RunAck::new(Receipt::settled(Err(error)).into(), 0..count));
                    break;
                }
            }
            rest = later;
        }
        Ok(acks)
    }

    /// How many of the messages take room together: at least one, and not so many that they would wait for
    /// a room that only they fill.
    fn taken_at_once(&self, messages: &[Message]) -> usize {
        let room = self.shared.buffer.room.capacity() / 4;
        let mut bytes = 0;
        let fit = messages.iter().take_while(|message| {
            bytes += message.room_bytes();
            bytes <= room
        });
        fit.count().max(1)
    }

    /// Waits until every message taken so far is settled. Fails with the first failure since the
    /// last flush; the acknowledgements tell which messages it concerns.
    pub async fn flush(&self) -> Result<(), ClientError> {
        self.shared.buffer.flush().await
    }

    /// Takes no further messages, delivers those it has, and ends; fails as [`flush`](Self::flush)
    /// does. Clones are closed with it.
    pub async fn close(self) -> Result<(), ClientError> {
        let buffer = &self.shared.buffer;
        buffer.close(ClientError::Closed);
        let flushed = buffer.flush().await;
        buffer.ended().await;
        flushed
    }
}
