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
//! it; every message's own acknowledgement says what became of it. Messages with ids
//! have no sequence: where the host refuses one for a while (its disk or the topic is full,
//! too much waits), it is sent again, and those behind it may be stored before it. Who needs their order
//! waits for each acknowledgement.

mod ack;
mod bounds;
mod buffer;
mod sender;
mod ttl;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;

use crate::client::cluster::Lane;
use crate::client::route::Route;
use crate::client::{Client, ClientError, Compression, Header};
use crate::limits;
use crate::protocol::api::{Nonce, OpenProducer};
use crate::protocol::batch::{Origin, RecordToSend};
use crate::protocol::error::ApiError;
use crate::time::Timestamp;
use crate::types::{Offset, ProducerEpoch, ProducerId, ProducerName, Sequence, TopicId, TopicName};

use ack::Receipt;
pub use ack::{Ack, Acked, AckedRun, RunAck};
use buffer::{Buffer, Whole};
use sender::Sender;
pub use ttl::TimeToLive;

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
    /// Messages in a full batch, as far as the protocol allows. In a topic that refuses when it is full both are less
    /// where its bounds are small.
    pub batch_records_max: usize,
    /// Bytes of messages that may wait or be unanswered before [`Publisher::send`] waits.
    pub memory_bytes_max: usize,
    /// Without progress for so long, what waits fails; the client's timeout if not told.
    pub timeout: Option<Duration>,
    /// Publish under this name: go on after what was stored under it before. Such a publisher ends with the
    /// first message that is not stored, or when another one begins under its name
    /// ([`ProducerFenced`](ApiError::ProducerFenced)).
    pub producer: Option<ProducerName>,
    /// Where a named producer goes on, whatever its host knows of it.
    pub resume_at: Option<Sequence>,
}

impl PublisherOptions {
    /// Under a name, otherwise as usual.
    pub fn named(producer: ProducerName) -> Self {
        Self {
            producer: Some(producer),
            ..Self::default()
        }
    }
}

impl Default for PublisherOptions {
    fn default() -> Self {
        Self {
            compression: Compression::None,
            batches_in_flight_max: limits::PUBLISHER_BATCHES_IN_FLIGHT_DEFAULT,
            batch_bytes: limits::BATCH_BYTES_TARGET,
            batch_records_max: limits::BATCH_RECORDS_MAX as usize,
            memory_bytes_max: limits::PUBLISHER_BYTES_DEFAULT,
            timeout: None,
            producer: None,
            resume_at: None,
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
    /// Its id, 1 to 255 bytes: a message of the same id that the topic remembers is not stored again. It
    /// travels as the header `tidings-id`.
    pub id: Option<Box<[u8]>>,
    /// How long it lives, from when it is stored; without one as long as its topic keeps it.
    pub ttl: Option<TimeToLive>,
}

// Messages are moved into futures and out of them, and what is larger is moved by a call: a tenth of the rate at which
// single messages are published, measured.
const _: () = assert!(size_of::<Message>() <= 128);

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

    /// With an id.
    #[must_use]
    pub fn with_id(mut self, id: impl Into<Bytes>) -> Self {
        self.id = Some(id.into().as_ref().into());
        self
    }

    /// Gone for every reader so long after it was stored.
    #[must_use]
    pub fn with_ttl(mut self, ttl: TimeToLive) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// With its id as a header, and no other one of that name.
    fn carrying_id(mut self) -> Result<Self, ClientError> {
        let id = Bytes::from(self.id.clone().unwrap_or_default());
        let most = limits::MESSAGE_ID_BYTES_MAX;
        if !(1..=most).contains(&id.len()) {
            let reason = format!("{} bytes: 1 to {most} expected", id.len());
            return Err(invalid("message id", reason));
        }
        self.headers
            .retain(|header| header.name != limits::MESSAGE_ID_HEADER);
        Ok(self.with_header(limits::MESSAGE_ID_HEADER, id))
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
    resumed_at: Sequence,
    is_named: bool,
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
        let location = self.cluster.locate_anew(topic).await?;
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
        let options = bounds::fit(options, &connection, topic).await;
        let origin = begin(&mut route, &options).await?;
        let resumed_at = origin.first;
        let is_named = options.producer.is_some();
        let buffer = Arc::new(Buffer::new(options, message_bytes_max));
        let sender = Sender::new(buffer.clone(), route, in_flight_max, origin);
        tokio::spawn(sender.run());
        let topic = topic.clone();
        Ok(Publisher {
            shared: Arc::new(Shared {
                topic,
                topic_id,
                resumed_at,
                is_named,
                buffer,
            }),
        })
    }
}

/// Who publishes, and what the first batch begins at.
async fn begin(route: &mut Route, options: &PublisherOptions) -> Result<Origin, ClientError> {
    let Some(name) = &options.producer else {
        return sender::fresh_producer().map(sender::unnamed);
    };
    let producer = ProducerId::of_name(name);
    // However often it is asked, to the host it is one process.
    let nonce = Nonce(sender::random_id()?);
    let request = OpenProducer {
        topic: route.location().id,
        producer,
        nonce,
        at: options.resume_at,
    };
    let opened = route.insist(&request).await?;
    if opened.epoch == ProducerEpoch::ZERO {
        return Err(ClientError::Malformed {
            what: "the answer to a named producer".to_owned(),
            reason: "it has no epoch".to_owned(),
        });
    }
    Ok(Origin {
        producer,
        epoch: opened.epoch,
        first: opened.next_sequence,
        has_id: false,
        ttl: None,
    })
}

fn invalid(what: &str, reason: String) -> ClientError {
    let what = what.to_owned();
    ApiError::InvalidArgument { what, reason }.into()
}

/// A message with an id travels alone: of several some might be known and others not.
fn refuse_ids(messages: &[Message]) -> Result<(), ClientError> {
    match messages.iter().any(|message| message.id.is_some()) {
        true => Err(invalid(
            "message id",
            "a message with an id is sent alone: send it with send()".to_owned(),
        )),
        false => Ok(()),
    }
}

fn check(options: &PublisherOptions) -> Result<(), ClientError> {
    let refuse = |what: &str, reason: String| Err(invalid(what, reason));
    let most = limits::PUBLISHES_UNANSWERED_MAX;
    if !(1..=most).contains(&options.batches_in_flight_max) {
        let found = options.batches_in_flight_max;
        return refuse(
            "number of batches in flight",
            format!("{found}: 1 to {most} expected"),
        );
    }
    if options.batch_records_max == 0 {
        return refuse("messages of a batch", "0 are none".to_owned());
    }
    if options.memory_bytes_max == 0 {
        return refuse("memory of a publisher", "0 bytes hold nothing".to_owned());
    }
    if options.resume_at.is_some() && options.producer.is_none() {
        let reason = "only a named producer goes on somewhere".to_owned();
        return refuse("place to resume at", reason);
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

    /// How many messages were published under the producer's name before: the next one taken is the one after
    /// them. 0 without a name.
    pub fn resumed_at(&self) -> Sequence {
        self.shared.resumed_at
    }

    /// Takes a message, waiting only for room in memory. What it returns resolves when the message
    /// is stored or has failed. An error here means that the message was not taken.
    ///
    /// A message with an id travels alone, and is stored unless the topic remembers its id: then the
    /// acknowledgement tells the offset of the first one, as a duplicate. A topic that remembers no ids
    /// refuses it ([`IdsNotRemembered`](ApiError::IdsNotRemembered)).
    pub async fn send(&self, message: Message) -> Result<Ack, ClientError> {
        let buffer = &self.shared.buffer;
        if message.id.is_some() {
            // Boxed: it is rare, and every message would be moved about with the room for it.
            return Box::pin(self.send_with_id(message)).await;
        }
        let room = buffer.room.take(message.room_bytes()).await;
        let ack = buffer.push(&message, room.bytes())?;
        room.keep();
        Ok(ack)
    }

    async fn send_with_id(&self, message: Message) -> Result<Ack, ClientError> {
        if self.shared.is_named {
            let reason =
                "a named producer knows its messages by their numbers: leave out one of the two";
            return Err(invalid("message id", reason.to_owned()));
        }
        let message = message.carrying_id()?;
        let buffer = &self.shared.buffer;
        let room = buffer.room.take(message.room_bytes()).await;
        let with_id = Whole {
            has_id: true,
            expected_end: None,
        };
        let ack = buffer.push_whole(&[message], with_id, room.bytes())?;
        room.keep();
        Ok(ack.of_first())
    }

    /// Takes messages as [`send`](Self::send) would one after the other, at a fraction of its cost a
    /// message. They are stored in their order; those that came to lie in one batch share an
    /// acknowledgement, so there are as many as batches were touched: one or two for what fits into one.
    /// Messages that live for different times lie in different batches.
    ///
    /// An error here means that no message was taken. Where the publisher is closed in the middle, the
    /// acknowledgements of those that were not taken say so.
    pub async fn send_batch(&self, messages: &[Message]) -> Result<Vec<RunAck>, ClientError> {
        let buffer = &self.shared.buffer;
        refuse_ids(messages)?;
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

    /// Takes messages as one record batch: all of them are stored, one after the other, or none is, and so
    /// they are found by everybody who reads. They share one acknowledgement. What is sent again is the
    /// same batch.
    ///
    /// Refused, with nothing sent, is what does not fit into one batch: with compression as far as the
    /// packed bytes do, which only the acknowledgement may tell. So are messages that live for different times.
    pub async fn send_all(&self, messages: Vec<Message>) -> Result<RunAck, ClientError> {
        self.send_whole(&messages, None).await
    }

    /// The same, only if the topic ends at `end`: the first message gets that offset, or the
    /// acknowledgement is [`UnexpectedEnd`](ApiError::UnexpectedEnd) and nothing is stored. Of several
    /// publishers that expect the same end one succeeds.
    ///
    /// A batch that was stored, and whose acknowledgement was lost, is acknowledged when it is sent again.
    pub async fn send_expecting(
        &self,
        end: Offset,
        messages: Vec<Message>,
    ) -> Result<RunAck, ClientError> {
        self.send_whole(&messages, Some(end)).await
    }

    async fn send_whole(
        &self,
        messages: &[Message],
        expected_end: Option<Offset>,
    ) -> Result<RunAck, ClientError> {
        let buffer = &self.shared.buffer;
        refuse_ids(messages)?;
        buffer.admit_all(messages)?;
        let bytes = messages.iter().map(Message::room_bytes).sum();
        let room = buffer.room.take(bytes).await;
        let whole = Whole {
            has_id: false,
            expected_end,
        };
        let ack = buffer.push_whole(messages, whole, room.bytes())?;
        room.keep();
        Ok(ack)
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
