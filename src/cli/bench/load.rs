//! The load: publishers that share out the topics, paced or as fast as it goes.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::cli::bench::Due;
use crate::cli::bench::ledger::{Numbers, Stamp};
use crate::cli::bench::report::Latencies;
use crate::cli::fail::{Failure, Result};
use crate::client::{Ack, Client, ClientError, Message, Publisher, PublisherOptions};
use crate::types::TopicName;

/// What is to be published.
#[derive(Debug, Clone)]
pub struct Load {
    /// The way in.
    pub client: Client,
    /// Tells this run's messages from others.
    pub run: u64,
    /// Where to.
    pub topics: Vec<TopicName>,
    /// How many publishers.
    pub publishers: u32,
    /// Bytes of a payload.
    pub size: usize,
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
}

type SharedBooks = Arc<Mutex<Books>>;

fn with_books<T>(books: &SharedBooks, note: impl FnOnce(&mut Books) -> T) -> T {
    note(&mut books.lock().unwrap_or_else(PoisonError::into_inner))
}

/// A message under way.
struct UnderWay {
    ack: Ack,
    number: u64,
    due: Instant,
    _permit: OwnedSemaphorePermit,
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
        }
    }

    /// Publishes from now on.
    pub async fn run(&self) -> Result<Loaded> {
        self.run_from(Instant::now()).await
    }

    /// Publishes from that moment on.
    pub async fn run_from(&self, began: Instant) -> Result<Loaded> {
        let mut tasks = JoinSet::new();
        for publisher in 0..self.publishers {
            let load = self.clone();
            tasks.spawn(async move { (publisher, load.one_publisher(publisher, began).await) });
        }
        let mut loaded = Loaded {
            elapsed: Duration::ZERO,
            sent: 0,
            acknowledged: vec![Numbers::default(); self.publishers as usize],
            latencies: Latencies::new(),
            first_error: None,
        };
        while let Some(done) = tasks.join_next().await {
            let (publisher, outcome) = done.map_err(|error| Failure::server(error.to_string()))?;
            let (sent, books) = outcome?;
            loaded.sent += sent;
            with_books(&books, |books| {
                loaded.latencies.add(&books.latencies);
                loaded.acknowledged[publisher as usize] = std::mem::take(&mut books.acknowledged);
                if loaded.first_error.is_none() {
                    loaded.first_error = books.first_error.take();
                }
            });
        }
        loaded.elapsed = began.elapsed();
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

    async fn one_publisher(&self, publisher: u32, began: Instant) -> Result<(u64, SharedBooks)> {
        let books = Arc::new(Mutex::new(Books {
            acknowledged: Numbers::default(),
            latencies: Latencies::new(),
            first_error: None,
        }));
        let mut lanes = Vec::new();
        let mut collectors = JoinSet::new();
        for topic in self.topics_of(publisher) {
            let options = PublisherOptions::default();
            let sender = self.client.publisher(topic, options).await?;
            let (acks, collected) = mpsc::channel(self.in_flight);
            collectors.spawn(collect(collected, books.clone()));
            lanes.push((sender, acks));
        }
        let sent = self.send(publisher, began, &lanes).await;
        let mut close = Vec::new();
        for (sender, acks) in lanes {
            drop(acks);
            close.push(sender);
        }
        let (sent, error) = sent;
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

    /// Sends until the time is over; answers how many, and why it could not go on.
    async fn send(
        &self,
        publisher: u32,
        began: Instant,
        lanes: &[(Publisher, mpsc::Sender<UnderWay>)],
    ) -> (u64, Option<ClientError>) {
        let due = self.due(began);
        let room = Arc::new(Semaphore::new(self.in_flight));
        let share = self
            .messages_max
            .map(|max| max / u64::from(self.publishers));
        let end = began + self.duration;
        let mut payload = vec![b'.'; self.size];
        let mut number = 0;
        tokio::time::sleep_until(began).await;
        while share.is_none_or(|share| number < share) {
            let at = match self.rate {
                Some(_) => due.of(number),
                None => Instant::now(),
            };
            if at >= end {
                break;
            }
            let permit = tokio::select! {
                biased;
                () = self.stop.cancelled() => break,
                permit = admitted(at, &room) => permit,
            };
            let Some(permit) = permit else { break };
            let stamp = Stamp {
                run: self.run,
                publisher,
                number,
            };
            stamp.put(&mut payload);
            let (sender, acks) = &lanes[number as usize % lanes.len()];
            // Without a rate the latency counts from when there was room for it.
            let due = if self.rate.is_some() {
                at
            } else {
                Instant::now()
            };
            let message = Message::new(Bytes::copy_from_slice(&payload));
            let ack = match sender.send(message).await {
                Ok(ack) => ack,
                Err(error) => return (number, Some(error)),
            };
            number += 1;
            let under_way = UnderWay {
                ack,
                number: stamp.number,
                due,
                _permit: permit,
            };
            if acks.send(under_way).await.is_err() {
                break;
            }
        }
        (number, None)
    }
}

/// Waits for the moment and for room.
async fn admitted(at: Instant, room: &Arc<Semaphore>) -> Option<OwnedSemaphorePermit> {
    // A sleep takes a millisecond at least, even one that is over.
    if at > Instant::now() {
        tokio::time::sleep_until(at).await;
    }
    room.clone().acquire_owned().await.ok()
}

/// Awaits the acknowledgements of one publisher's messages to one topic.
async fn collect(mut messages: mpsc::Receiver<UnderWay>, books: SharedBooks) {
    while let Some(message) = messages.recv().await {
        let outcome = message.ack.await;
        let latency = message.due.elapsed();
        with_books(&books, |books| match outcome {
            Ok(_) => {
                books.acknowledged.insert(message.number);
                books.latencies.record(latency);
            }
            Err(error) => {
                books.first_error.get_or_insert(error);
            }
        });
    }
}
