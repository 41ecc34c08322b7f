//! The load: publishers that share out the topics, paced or as fast as it goes.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::BytesMut;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::cli::bench::alarm::{Alarm, Clock, Due};
use crate::cli::bench::ledger::{Numbers, Stamp};
use crate::cli::bench::progress::Counter;
use crate::cli::bench::report::Latencies;
use crate::cli::fail::{Failure, Result};
use crate::client::{Ack, Client, ClientError, Message, Publisher, PublisherOptions, RunAck};
use crate::types::TopicName;

/// Single messages handed on together at most.
const CHUNK_MAX: usize = 64;
/// How long the first publisher may take to be ready, and each way of a publisher to a topic.
const READY_AFTER: Duration = Duration::from_millis(100);
const READY_AFTER_PER_LANE: Duration = Duration::from_millis(2);

/// What is to be published.
#[derive(Debug, Clone)]
pub struct Load {
    /// The ways in, shared out among the publishers.
    pub clients: Vec<Client>,
    /// Tells this run's messages from others.
    pub run: u64,
    /// Where to.
    pub topics: Vec<TopicName>,
    /// How many publishers.
    pub publishers: u32,
    /// Bytes of a payload.
    pub size: usize,
    /// Messages sent with one call.
    pub batch: usize,
    /// Messages of one publisher that may be unacknowledged.
    pub in_flight: usize,
    /// Messages per second, of all publishers.
    pub rate: Option<f64>,
    /// How long.
    pub duration: Duration,
    /// How many at most, of all publishers.
    pub messages_max: Option<u64>,
    /// Ends it early.
    pub stop: CancellationToken,
    /// Counts acknowledged messages for who watches.
    pub counter: Counter,
}

/// What came of it.
#[derive(Debug)]
pub struct Loaded {
    /// From the first message to the last acknowledgement.
    pub elapsed: Duration,
    /// Messages handed to publishers.
    pub sent: u64,
    /// What each publisher had acknowledged.
    pub acknowledged: Vec<Numbers>,
    /// From the moment a message was due to its acknowledgement.
    pub latencies: Latencies,
    /// Why the first one that failed did.
    pub first_error: Option<ClientError>,
}

impl Loaded {
    /// Number of acknowledged messages.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.iter().map(Numbers::count).sum()
    }
}

/// What the tasks of one publisher find out together.
#[derive(Debug)]
struct Books {
    acknowledged: Numbers,
    latencies: Latencies,
    first_error: Option<ClientError>,
    /// When the last acknowledgement came.
    last: Option<Instant>,
    counter: Counter,
}

type SharedBooks = Arc<Mutex<Books>>;

fn with_books<T>(books: &SharedBooks, note: impl FnOnce(&mut Books) -> T) -> T {
    note(&mut books.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Messages of one publisher to one topic on their way.
struct UnderWay {
    acks: Vec<Waiting>,
    /// The number of the first, and how far apart the numbers are.
    first: u64,
    step: u64,
    /// When the first was due.
    due: Instant,
    /// Their room among those that may be unacknowledged.
    _room: OwnedSemaphorePermit,
}

/// One acknowledgement to come.
enum Waiting {
    One(Ack),
    Run(RunAck),
}

impl Waiting {
    fn count(&self) -> u64 {
        match self {
            Self::One(_) => 1,
            Self::Run(run) => run.count() as u64,
        }
    }

    fn is_settled(&self) -> bool {
        match self {
            Self::One(ack) => ack.is_settled(),
            Self::Run(run) => run.is_settled(),
        }
    }

    async fn outcome(self) -> std::result::Result<(), ClientError> {
        match self {
            Self::One(ack) => ack.await.map(drop),
            Self::Run(run) => run.await.map(drop),
        }
    }
}

/// The way of one publisher to one topic.
struct Lane {
    sender: Publisher,
    acks: mpsc::Sender<UnderWay>,
    /// What was sent and is not handed on to be awaited.
    held: Option<UnderWay>,
}

impl Load {
    /// When each publisher's messages are due, if there is a rate.
    pub fn due(&self, began: Instant) -> Due {
        let every = self
            .rate
            .map(|rate| Duration::from_secs_f64(f64::from(self.publishers) / rate));
        Due {
            began,
            every: every.unwrap_or_default(),
            batch: self.batch as u64,
        }
    }

    /// A moment at which every publisher will be ready.
    pub fn soon(&self) -> Instant {
        let lanes = self.topics.len().max(self.publishers as usize);
        Instant::now() + READY_AFTER + READY_AFTER_PER_LANE * u32::try_from(lanes).unwrap_or(0)
    }

    /// Publishes as soon as everybody is ready.
    pub async fn run(&self) -> Result<Loaded> {
        self.run_from(self.soon()).await
    }

    /// Publishes from that moment on.
    pub async fn run_from(&self, began: Instant) -> Result<Loaded> {
        let mut tasks = JoinSet::new();
        let clock = self.rate.map(|_| Clock::start()).transpose()?;
        for publisher in 0..self.publishers {
            let (load, alarm) = (self.clone(), clock.as_ref().map(Clock::alarm));
            tasks.spawn(async move {
                let published = load.one_publisher(publisher, (began, alarm)).await;
                (publisher, published)
            });
        }
        let mut loaded = Loaded {
            elapsed: Duration::ZERO,
            sent: 0,
            acknowledged: vec![Numbers::default(); self.publishers as usize],
            latencies: Latencies::new(),
            first_error: None,
        };
        let mut last = None;
        while let Some(done) = tasks.join_next().await {
            let (publisher, outcome) = done.map_err(|error| Failure::server(error.to_string()))?;
            let (sent, books) = outcome?;
            loaded.sent += sent;
            with_books(&books, |books| {
                last = last.max(books.last);
                loaded.latencies.add(&books.latencies);
                loaded.acknowledged[publisher as usize] = std::mem::take(&mut books.acknowledged);
                if loaded.first_error.is_none() {
                    loaded.first_error = books.first_error.take();
                }
            });
        }
        let last = last.unwrap_or_else(Instant::now);
        loaded.elapsed = last.saturating_duration_since(began);
        Ok(loaded)
    }

    /// The topics of one publisher: each topic has one at least, each publisher too.
    fn topics_of(&self, publisher: u32) -> Vec<&TopicName> {
        let (topics, publishers) = (self.topics.len(), self.publishers as usize);
        let publisher = publisher as usize;
        match topics >= publishers {
            true => self
                .topics
                .iter()
                .skip(publisher)
                .step_by(publishers)
                .collect(),
            false => vec![&self.topics[publisher % topics]],
        }
    }

    async fn one_publisher(
        &self,
        publisher: u32,
        start: (Instant, Option<Alarm>),
    ) -> Result<(u64, SharedBooks)> {
        let books = Arc::new(Mutex::new(Books {
            acknowledged: Numbers::default(),
            latencies: Latencies::new(),
            first_error: None,
            last: None,
            counter: self.counter.clone(),
        }));
        let client = &self.clients[publisher as usize % self.clients.len()];
        let mut lanes = Vec::new();
        let mut collectors = JoinSet::new();
        let topics = self.topics_of(publisher);
        for topic in topics {
            let options = PublisherOptions::default();
            let sender = client.publisher(topic, options).await?;
            let (acks, collected) = mpsc::channel(self.in_flight);
            collectors.spawn(collect(collected, books.clone()));
            let held = None;
            lanes.push(Lane { sender, acks, held });
        }
        let (sent, error) = self.send(publisher, start, &mut lanes).await;
        let mut close = Vec::new();
        for Lane { sender, acks, held } in lanes {
            if let Some(held) = held {
                // The collector takes all there is.
                let _ = acks.send(held).await;
            }
            close.push(sender);
        }
        for sender in close {
            // What failed is known from the acknowledgements.
            let _ = sender.close().await;
        }
        while collectors.join_next().await.is_some() {}
        if let Some(error) = error {
            with_books(&books, |books| {
                books.first_error.get_or_insert(error).clone()
            });
        }
        Ok((sent, books))
    }

    /// How many messages are handed on together to be awaited: the clock is read once for them, when
    /// the first is sent. With a rate each has a time of its own.
    fn chunk(&self, topics: usize) -> usize {
        match self.rate {
            Some(_) => 1,
            None => (self.in_flight / topics / 4).clamp(1, CHUNK_MAX),
        }
    }

    /// Sends until the time is over; answers how many, and why it could not go on.
    async fn send(
        &self,
        publisher: u32,
        (began, mut alarm): (Instant, Option<Alarm>),
        lanes: &mut [Lane],
    ) -> (u64, Option<ClientError>) {
        let due = self.due(began);
        let mut share = self
            .messages_max
            .map_or(u64::MAX, |max| max / u64::from(self.publishers));
        share -= share % self.batch as u64;
        let end = began + self.duration;
        let mut payloads = Payloads::new(self, publisher);
        let chunk = self.chunk(lanes.len());
        let room = Arc::new(Semaphore::new(self.in_flight));
        let share_of_room = chunk.max(self.batch).min(self.in_flight) as u32;
        let (mut number, mut turn) = (0, 0);
        tokio::time::sleep_until(began).await;
        while number < share {
            let count = lanes.len();
            let lane = &mut lanes[turn % count];
            turn += 1;
            if lane.held.is_none() {
                let at = self.rate.map(|_| due.of(number));
                if at.is_some_and(|at| at >= end) {
                    break;
                }
                let room = tokio::select! {
                    biased;
                    () = self.stop.cancelled() => break,
                    room = admitted((at, alarm.as_mut()), &room, share_of_room) => room,
                };
                let Some(room) = room else { break };
                // Without a rate the latency counts from when there was room.
                let due = at.unwrap_or_else(Instant::now);
                if due >= end {
                    break;
                }
                lane.held = Some(UnderWay {
                    acks: Vec::with_capacity(chunk),
                    first: number,
                    step: if self.batch > 1 { 1 } else { count as u64 },
                    due,
                    _room: room,
                });
            }
            let acks = match payloads.send(&lane.sender, number).await {
                Ok(acks) => acks,
                Err(error) => return (number, Some(error)),
            };
            number += self.batch as u64;
            let held = lane.held.as_mut().expect("it was begun above");
            held.acks.extend(acks);
            let is_full = self.batch > 1 || held.acks.len() >= chunk;
            if let Some(held) = lane.held.take_if(|_| is_full)
                && lane.acks.send(held).await.is_err()
            {
                break;
            }
        }
        (number, None)
    }
}

/// Waits for the moment and for room.
async fn admitted(
    (at, alarm): (Option<Instant>, Option<&mut Alarm>),
    room: &Arc<Semaphore>,
    messages: u32,
) -> Option<OwnedSemaphorePermit> {
    if let (Some(at), Some(alarm)) = (at, alarm) {
        alarm.at(at).await.ok()?;
    }
    room.clone().acquire_many_owned(messages).await.ok()
}

/// Makes the messages of one publisher and sends them.
struct Payloads {
    run: u64,
    publisher: u32,
    batch: usize,
    size: usize,
    /// What follows the stamp in each payload: random, so that nothing on the way can be clever about it.
    filling: Vec<u8>,
}

impl Payloads {
    fn new(load: &Load, publisher: u32) -> Self {
        let mut filling = vec![0; load.size];
        if getrandom::fill(&mut filling).is_err() {
            filling.fill(b'.');
        }
        Self {
            run: load.run,
            publisher,
            batch: load.batch,
            size: load.size,
            filling,
        }
    }

    fn put(&self, number: u64, into: &mut BytesMut) {
        let stamp = Stamp {
            run: self.run,
            publisher: self.publisher,
            number,
        };
        let start = into.len();
        into.extend_from_slice(&self.filling);
        stamp.put(&mut into[start..]);
    }

    /// Sends the message or the batch that begins with that number.
    async fn send(
        &mut self,
        sender: &Publisher,
        number: u64,
    ) -> std::result::Result<Vec<Waiting>, ClientError> {
        let mut bytes = BytesMut::with_capacity(self.size * self.batch);
        (0..self.batch as u64).for_each(|n| self.put(number + n, &mut bytes));
        let mut bytes = bytes.freeze();
        if self.batch == 1 {
            let ack = sender.send(Message::new(bytes)).await?;
            return Ok(vec![Waiting::One(ack)]);
        }
        let messages: Vec<Message> = (0..self.batch)
            .map(|_| Message::new(bytes.split_to(self.size)))
            .collect();
        let acks = sender.send_batch(&messages).await?;
        Ok(acks.into_iter().map(Waiting::Run).collect())
    }
}

/// Awaits the acknowledgements of one publisher's messages to one topic.
async fn collect(mut messages: mpsc::Receiver<UnderWay>, books: SharedBooks) {
    while let Some(under_way) = messages.recv().await {
        let mut numbers = (0..).map(|n| under_way.first + n * under_way.step);
        let mut latency = None;
        for ack in under_way.acks {
            let count = ack.count();
            // Who was settled before it was asked for was so by the time the one before it was.
            if !ack.is_settled() {
                latency = None;
            }
            let outcome = ack.outcome().await;
            let latency = *latency.get_or_insert_with(|| under_way.due.elapsed());
            with_books(&books, |books| match outcome {
                Ok(()) => {
                    let settled = numbers.by_ref().take(count as usize);
                    settled.for_each(|number| _ = books.acknowledged.insert(number));
                    books.latencies.record_many(latency, count);
                    books.last = books.last.max(Some(under_way.due + latency));
                    books.counter.add(count);
                }
                Err(error) => {
                    let _ = numbers.nth(count as usize - 1);
                    books.first_error.get_or_insert(error);
                }
            });
        }
    }
}
