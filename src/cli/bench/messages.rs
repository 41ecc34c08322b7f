//! `publish`, `read`, `latency` and, in `group`, groups: messages through topics made for the run.

use std::time::Duration;

use clap::Args;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::cli::bench::alarm::Due;
use crate::cli::bench::ledger::{Ledger, STAMP_BYTES, Stamp};
use crate::cli::bench::load::{Load, Loaded};
use crate::cli::bench::progress::{Counter, Goal, Progress};
use crate::cli::bench::report::{Latencies, Measured};
use crate::cli::bench::sampler::Sampler;
use crate::cli::bench::topics::Topics;
use crate::cli::fail::{Failure, Result};
use crate::cli::{Context, output, values};
use crate::client::{Client, Delivery, DeliveryRef, Subscriber, SubscriberOptions};
use crate::limits;
use crate::protocol::api::Position;
use crate::types::{Durability, Offset, TopicName};

/// What is written at most before reading is measured, in bytes.
pub(super) const FILL_BYTES_MAX: u64 = 1 << 30;
/// Rate of `latency` unless told otherwise, in messages per second.
const LATENCY_RATE_DEFAULT: f64 = 1000.0;
/// How long messages may be under way after the last one was sent.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is measured with messages.
#[derive(Debug, Clone)]
pub enum Kind {
    /// How fast they are published.
    Publish,
    /// How fast they are read back.
    Read,
    /// How long they take.
    Latency,
    /// How fast members of a group share them.
    Group(Crew),
}

/// What the load looks like.
#[derive(Debug, Clone, Args)]
pub struct Shape {
    /// Number of topics, shared out among the publishers
    #[arg(long, value_name = "N", default_value_t = 1)]
    #[arg(value_parser = values::number_up_to::<100_000>)]
    topics: u32,
    /// Number of publishers
    #[arg(long, value_name = "N", default_value_t = 1)]
    #[arg(value_parser = values::number_up_to::<10_000>)]
    publishers: u32,
    /// Size of a message
    #[arg(long, value_name = "SIZE", default_value = "1KiB", value_parser = values::size)]
    size: u64,
    /// Messages sent with one call; 1: each by itself, with an acknowledgement of its own
    #[arg(long, value_name = "N", default_value_t = 1)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=65_536))]
    batch: u32,
    /// Messages of one publisher that may be unacknowledged
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    #[arg(value_parser = values::number_up_to::<1_000_000>)]
    in_flight: u32,
    /// Messages per second, all publishers together [default: as fast as it goes; latency: 1000/s]
    #[arg(long, value_name = "N/s", value_parser = values::rate)]
    rate: Option<f64>,
    /// How long to publish; 'read' and 'group' publish 1 GiB at most
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = values::duration)]
    duration: Duration,
    /// Durability of the topics: fsync or os
    #[arg(long, value_name = "DURABILITY", default_value = "fsync")]
    durability: Durability,
    /// Read everything back: is it all there, once, in order?
    #[arg(long)]
    verify: bool,
}

/// What the groups look like.
#[derive(Debug, Clone, Args)]
pub struct Crew {
    #[command(flatten)]
    pub(super) shape: Shape,
    /// Members of each topic's group
    #[arg(long, value_name = "N", default_value_t = 8)]
    #[arg(value_parser = values::number_up_to::<1_000>)]
    pub(super) members: u32,
    /// Most messages that one member holds
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    #[arg(value_parser = values::number_up_to::<{ limits::UNACKED_MAX }>)]
    pub(super) max_unacked: u32,
}

impl Shape {
    /// Messages per second, if not as fast as it goes.
    pub(super) const fn rate(&self) -> Option<f64> {
        self.rate
    }

    /// Bytes of a message.
    pub(super) const fn size(&self) -> u64 {
        self.size
    }

    /// Whether everything is to be looked at.
    pub(super) const fn verify(&self) -> bool {
        self.verify
    }

    fn check(&self) -> Result {
        if self.size < STAMP_BYTES as u64 {
            return Err(Failure::usage(format!(
                "--size {}: at least {STAMP_BYTES} bytes are needed to tell messages apart",
                self.size
            )));
        }
        let most = limits::MESSAGE_BYTES_MAX as u64;
        if self.size > most {
            let (size, most) = (output::bytes(self.size), output::bytes(most));
            let what = format!("--size {size}: no message is larger than {most}");
            return Err(Failure::usage(what));
        }
        Ok(())
    }
}

/// Measures and prints what was found.
pub async fn run(
    (kind, shape): (Kind, Shape),
    context: &Context,
    stop: CancellationToken,
) -> Result {
    shape.check()?;
    let made = (shape.topics, shape.durability);
    let bench = Bench {
        topics: Topics::create(&context.client, &context.output, made).await?,
        shape,
        context,
        client: &context.client,
        stop,
    };
    let measured = match kind {
        Kind::Publish => bench.publish().await,
        Kind::Read => bench.read().await,
        Kind::Latency => bench.latency().await,
        Kind::Group(crew) => bench.group(&crew).await,
    };
    bench.topics.remove(&context.output).await;
    let (measured, loaded) = measured?;
    // There is nothing to read in a table of zeros.
    if measured.acknowledged > 0 || loaded.first_error.is_none() {
        measured.print(&context.output)?;
    }
    judge(&measured, loaded)
}

/// A measurement that found something wrong is a failure, after it was printed.
fn judge(measured: &Measured, loaded: Loaded) -> Result {
    let missing = loaded.sent - loaded.acknowledged();
    if let Some(error) = loaded.first_error {
        let failure = Failure::from(error);
        let message = match loaded.sent {
            0 => failure.message,
            sent => format!(
                "{missing} of {sent} messages were not acknowledged: {}",
                failure.message
            ),
        };
        return Err(Failure { message, ..failure });
    }
    match measured.verdict {
        Some(verdict) if !verdict.is_clean() => Err(Failure::check(format!(
            "{} messages lost, {} duplicated, {} out of order",
            verdict.lost, verdict.duplicated, verdict.out_of_order
        ))),
        _ => Ok(()),
    }
}

/// A measurement with its topics.
pub(super) struct Bench<'a> {
    pub(super) shape: Shape,
    pub(super) context: &'a Context,
    pub(super) client: &'a Client,
    pub(super) topics: Topics,
    pub(super) stop: CancellationToken,
}

pub(super) type Outcome = Result<(Measured, Loaded)>;

impl Bench<'_> {
    pub(super) fn load(&self, rate: Option<f64>, bytes_max: Option<u64>) -> Load {
        Load {
            clients: vec![self.client.clone()],
            run: self.topics.run,
            topics: self.topics.names.clone(),
            publishers: self.shape.publishers,
            size: self.shape.size as usize,
            batch: self.shape.batch as usize,
            in_flight: self.shape.in_flight as usize,
            rate,
            duration: self.shape.duration,
            messages_max: bytes_max.map(|bytes| bytes / self.shape.size),
            stop: self.stop.clone(),
            counter: Counter::default(),
        }
    }

    /// Shows how far that load is.
    pub(super) fn watch(&self, load: &mut Load, what: &str) -> Progress {
        let goal = ("acknowledged", Goal::Time(self.shape.duration));
        let progress = Progress::start(&self.context.output, what, goal);
        load.counter = progress.counter();
        progress
    }

    pub(super) fn ledger(&self) -> Ledger {
        Ledger::new(self.topics.run, self.shape.publishers)
    }

    /// Of everything that was acknowledged.
    fn payload_bytes(&self, loaded: &Loaded) -> u64 {
        loaded.acknowledged() * self.shape.size
    }

    async fn publish(&self) -> Outcome {
        let sampler = Sampler::start(self.client.clone()).await;
        let mut load = self.load(self.shape.rate, None);
        let progress = self.watch(&mut load, "publishing");
        let loaded = load.run().await?;
        drop(progress);
        let server = sampler.stop(self.payload_bytes(&loaded)).await;
        let verdict = match self.shape.verify {
            true => {
                let (ledger, _) = self.read_all("reading everything back", &loaded).await?;
                Some(ledger.verdict(&loaded.acknowledged))
            }
            false => None,
        };
        let measured = Measured {
            elapsed: loaded.elapsed,
            records: loaded.sent,
            bytes: loaded.sent * self.shape.size,
            acknowledged: loaded.acknowledged(),
            latencies: loaded.latencies.clone(),
            latency_of: "an acknowledgement",
            server,
            verdict,
        };
        Ok((measured, loaded))
    }

    async fn read(&self) -> Outcome {
        let mut load = self.load(self.shape.rate, Some(FILL_BYTES_MAX));
        let progress = self.watch(&mut load, "publishing what will be read");
        let loaded = load.run().await?;
        drop(progress);
        let sampler = Sampler::start(self.client.clone()).await;
        let began = Instant::now();
        let (ledger, latencies) = self.read_all("reading", &loaded).await?;
        let elapsed = began.elapsed();
        let server = sampler.stop(0).await;
        let measured = Measured {
            elapsed,
            records: ledger.records,
            bytes: ledger.records * self.shape.size,
            acknowledged: loaded.acknowledged(),
            latencies,
            latency_of: "waiting for the next messages",
            server,
            verdict: self
                .shape
                .verify
                .then(|| ledger.verdict(&loaded.acknowledged)),
        };
        Ok((measured, loaded))
    }

    /// Reads all topics at once, each from its beginning to its end.
    async fn read_all(&self, what: &str, loaded: &Loaded) -> Result<(Ledger, Latencies)> {
        let goal = ("read", Goal::Count(loaded.acknowledged()));
        let progress = Progress::start(&self.context.output, what, goal);
        let mut readers = JoinSet::new();
        for topic in &self.topics.names {
            readers.spawn(read_topic(
                self.client.clone(),
                topic.clone(),
                (self.ledger(), progress.counter()),
            ));
        }
        let mut ledger = self.ledger();
        let mut latencies = Latencies::new();
        while let Some(read) = readers.join_next().await {
            let (part, waits) = read.map_err(|error| Failure::server(error.to_string()))??;
            ledger.add(part);
            latencies.add(&waits);
        }
        Ok((ledger, latencies))
    }

    async fn latency(&self) -> Outcome {
        let rate = self.shape.rate.unwrap_or(LATENCY_RATE_DEFAULT);
        let mut load = self.load(Some(rate), None);
        let mut subscribers = Vec::new();
        for topic in &self.topics.names {
            let options = SubscriberOptions::passing(Position::End);
            subscribers.push(self.client.subscriber(topic, options).await?);
        }
        let sampler = Sampler::start(self.client.clone()).await;
        let began = load.soon();
        let due = load.due(began);
        let mut readers = JoinSet::new();
        let all_sent = CancellationToken::new();
        for subscriber in subscribers {
            let client = self.client.clone();
            readers.spawn(follow(
                client,
                subscriber,
                (self.ledger(), due),
                all_sent.clone(),
            ));
        }
        let progress = self.watch(&mut load, "publishing and subscribing");
        let loaded = load.run_from(began).await?;
        drop(progress);
        let server = sampler.stop(self.payload_bytes(&loaded)).await;
        all_sent.cancel();
        let mut ledger = self.ledger();
        let mut latencies = Latencies::new();
        while let Some(read) = readers.join_next().await {
            let (part, some) = read.map_err(|error| Failure::server(error.to_string()))??;
            ledger.add(part);
            latencies.add(&some);
        }
        let verdict = match self.shape.verify {
            true => Some(ledger.verdict(&loaded.acknowledged)),
            false => None,
        };
        let measured = Measured {
            elapsed: loaded.elapsed,
            records: ledger.records,
            bytes: ledger.records * self.shape.size,
            acknowledged: loaded.acknowledged(),
            latencies,
            latency_of: "a message from publisher to subscriber",
            server,
            verdict,
        };
        Ok((measured, loaded))
    }
}

/// Reads one topic from its beginning to where it ends now.
async fn read_topic(
    client: Client,
    topic: TopicName,
    (mut ledger, counter): (Ledger, Counter),
) -> Result<(Ledger, Latencies)> {
    let options = SubscriberOptions::passing(Position::Beginning);
    let mut subscriber = client.subscriber(&topic, options).await?;
    let end = subscriber.end_offset();
    let mut highest = ledger.highest();
    let mut waits = Latencies::new();
    while subscriber.position() < end {
        let asked = Instant::now();
        subscriber.ready().await?;
        waits.record(asked.elapsed());
        let mut count = 0;
        while let Some(delivery) = subscriber.next_at_hand()? {
            if let DeliveryRef::Record(received) = delivery {
                count += 1;
                ledger.read(received.record.value, &mut highest);
            }
        }
        counter.add(count);
    }
    Ok((ledger, waits))
}

/// Follows one topic and takes the time of each message, until all were sent
/// and have come.
async fn follow(
    client: Client,
    mut subscriber: Subscriber,
    (mut ledger, due): (Ledger, Due),
    all_sent: CancellationToken,
) -> Result<(Ledger, Latencies)> {
    let topic = subscriber.topic().clone();
    let mut highest = ledger.highest();
    let mut latencies = Latencies::new();
    let mut end: Option<Offset> = None;
    while end.is_none_or(|end| subscriber.position() < end) {
        let deliveries = tokio::select! {
            () = all_sent.cancelled(), if end.is_none() => {
                end = Some(client.find_offset(&topic, Position::End).await?.offset);
                continue;
            }
            deliveries = tokio::time::timeout(PATIENCE, subscriber.next_many(4096)) => {
                match deliveries {
                    Ok(deliveries) => deliveries?,
                    Err(_) if end.is_some() => break,
                    Err(_) => continue,
                }
            }
        };
        let now = Instant::now();
        for delivery in &deliveries {
            if let Delivery::Record(record) = delivery {
                if let Some(stamp) = Stamp::get(&record.value) {
                    latencies.record(now.saturating_duration_since(due.of(stamp.number)));
                }
                ledger.read(&record.value, &mut highest);
            }
        }
    }
    Ok((ledger, latencies))
}
