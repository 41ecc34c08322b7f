//! `tidings bench`: how fast, how late, and whether all of it is there.
//!
//! Against a cluster that is named, or against one of its own in a scratch
//! directory. The load is made of publishers that share out the topics among
//! them; with a rate it is an open loop: each message has a moment at which it
//! is due, and its latency counts from there, so that a stalled server shows in
//! the numbers instead of slowing the load down.
//!
//! The topics are called `bench.RUN.N`, made for the run and removed after it.

mod ledger;
mod load;
mod report;
mod sampler;
mod scratch;

use std::time::Duration;

use clap::{Args, Subcommand};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::cli::fail::{Failure, Result};
use crate::cli::{Context, output, signals, values};
use crate::client::{Client, Delivery, NewTopic, Subscriber, SubscriberOptions};
use crate::limits;
use crate::protocol::api::Position;
use crate::types::{Durability, Offset, TopicName, TopicSettings};
use ledger::{Ledger, STAMP_BYTES, Stamp};
use load::{Load, Loaded};
use report::{Latencies, Measured};
use sampler::Sampler;
pub use scratch::Scratch;

/// What is written at most before reading is measured, in bytes.
const FILL_BYTES_MAX: u64 = 1 << 30;
/// Rate of `latency` unless told otherwise, in messages per second.
const LATENCY_RATE_DEFAULT: f64 = 1000.0;
/// How long messages may be under way after the last one was sent.
const PATIENCE: Duration = Duration::from_secs(30);

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// How fast messages are published, and how long an acknowledgement takes
    #[command(after_help = "\
Examples:
  tidings bench publish
  tidings bench publish --topics 100 --publishers 8 --size 1KiB --duration 30s --verify
  tidings bench publish --publishers 8 --size 100 --batch 1000
  tidings bench publish --rate 5000/s -o json
  tidings bench publish --index 10.0.0.1:7400")]
    Publish(Shape),
    /// How fast messages are read back, after publishing them
    #[command(after_help = "\
Examples:
  tidings bench read --topics 4 --size 1KiB --duration 5s --verify")]
    Read(Shape),
    /// How long a message takes from its publisher to a subscriber
    #[command(after_help = "\
Examples:
  tidings bench latency --rate 2000/s
  tidings bench latency --durability os --publishers 4 -o json")]
    Latency(Shape),
}

impl Verb {
    fn shape(&self) -> &Shape {
        match self {
            Self::Publish(shape) | Self::Read(shape) | Self::Latency(shape) => shape,
        }
    }
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
    /// How long to publish; 'read' publishes 1 GiB at most
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = values::duration)]
    duration: Duration,
    /// Durability of the topics: fsync or os
    #[arg(long, value_name = "DURABILITY", default_value = "fsync")]
    durability: Durability,
    /// Read everything back: is it all there, once, in order?
    #[arg(long)]
    verify: bool,
}

/// Runs a verb against the cluster of the context.
pub async fn run(verb: Verb, context: &Context) -> Result {
    let shape = verb.shape().clone();
    if shape.size < STAMP_BYTES as u64 {
        return Err(Failure::usage(format!(
            "--size {}: at least {STAMP_BYTES} bytes are needed to tell messages apart",
            shape.size
        )));
    }
    let most = limits::MESSAGE_BYTES_MAX as u64;
    if shape.size > most {
        let (size, most) = (output::bytes(shape.size), output::bytes(most));
        let what = format!("--size {size}: no message is larger than {most}");
        return Err(Failure::usage(what));
    }
    let stop = signals::listen()?;
    let bench = Bench::prepare(shape, context, stop).await?;
    let measured = match verb {
        Verb::Publish(_) => bench.publish().await,
        Verb::Read(_) => bench.read().await,
        Verb::Latency(_) => bench.latency().await,
    };
    bench.clean_up().await;
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
struct Bench<'a> {
    shape: Shape,
    context: &'a Context,
    client: &'a Client,
    run: u64,
    topics: Vec<TopicName>,
    stop: CancellationToken,
}

type Outcome = Result<(Measured, Loaded)>;

impl<'a> Bench<'a> {
    async fn prepare(
        shape: Shape,
        context: &'a Context,
        stop: CancellationToken,
    ) -> Result<Bench<'a>> {
        let mut random = [0; 8];
        getrandom::fill(&mut random)
            .map_err(|error| Failure::server(format!("no randomness: {error}")))?;
        let run = u64::from_le_bytes(random);
        let mut topics = Vec::new();
        for n in 0..shape.topics {
            let name = format!("bench.{run:016x}.{n}");
            let name: TopicName = name.parse().expect("made of tokens");
            let settings = TopicSettings {
                durability: shape.durability,
                ..TopicSettings::default()
            };
            let topic = NewTopic {
                settings,
                ..NewTopic::new(name.clone())
            };
            context.client.create_topic(&topic).await?;
            topics.push(name);
        }
        Ok(Self {
            shape,
            context,
            client: &context.client,
            run,
            topics,
            stop,
        })
    }

    fn load(&self, rate: Option<f64>, bytes_max: Option<u64>) -> Load {
        Load {
            client: self.client.clone(),
            run: self.run,
            topics: self.topics.clone(),
            publishers: self.shape.publishers,
            size: self.shape.size as usize,
            batch: self.shape.batch as usize,
            in_flight: self.shape.in_flight as usize,
            rate,
            duration: self.shape.duration,
            messages_max: bytes_max.map(|bytes| bytes / self.shape.size),
            stop: self.stop.clone(),
        }
    }

    fn ledger(&self) -> Ledger {
        Ledger::new(self.run, self.shape.publishers)
    }

    fn note(&self, text: &str) {
        self.context.output.note(text);
    }

    async fn publish(&self) -> Outcome {
        self.note("publishing");
        let sampler = Sampler::start(self.client.clone()).await;
        let loaded = self.load(self.shape.rate, None).run().await?;
        let server = sampler.stop().await;
        let verdict = match self.shape.verify {
            true => {
                self.note("reading everything back");
                let (ledger, _) = self.read_all().await?;
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
        self.note("publishing what will be read");
        let load = self.load(self.shape.rate, Some(FILL_BYTES_MAX));
        let loaded = load.run().await?;
        self.note("reading");
        let sampler = Sampler::start(self.client.clone()).await;
        let began = Instant::now();
        let (ledger, latencies) = self.read_all().await?;
        let elapsed = began.elapsed();
        let server = sampler.stop().await;
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
    async fn read_all(&self) -> Result<(Ledger, Latencies)> {
        let mut readers = JoinSet::new();
        for topic in &self.topics {
            readers.spawn(read_topic(
                self.client.clone(),
                topic.clone(),
                self.ledger(),
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
        self.note("publishing and subscribing");
        let load = self.load(Some(rate), None);
        // Due moments count from here; a moment ahead, so that all are ready.
        let began = Instant::now() + Duration::from_millis(200);
        let due = load.due(began);
        let mut readers = JoinSet::new();
        let all_sent = CancellationToken::new();
        for topic in &self.topics {
            let options = SubscriberOptions::passing(Position::End);
            let subscriber = self.client.subscriber(topic, options).await?;
            let client = self.client.clone();
            readers.spawn(follow(
                client,
                subscriber,
                (self.ledger(), due),
                all_sent.clone(),
            ));
        }
        let sampler = Sampler::start(self.client.clone()).await;
        let loaded = load.run_from(began).await?;
        let server = sampler.stop().await;
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

    /// Removes the topics; what stays because of a failure is said.
    async fn clean_up(&self) {
        for topic in &self.topics {
            if let Err(error) = self.client.delete_topic(topic).await {
                self.context
                    .output
                    .warn(format!("topic {topic} stays behind: {error}"));
            }
        }
    }
}

/// Reads one topic from its beginning to where it ends now.
async fn read_topic(
    client: Client,
    topic: TopicName,
    mut ledger: Ledger,
) -> Result<(Ledger, Latencies)> {
    let options = SubscriberOptions::passing(Position::Beginning);
    let mut subscriber = client.subscriber(&topic, options).await?;
    let end = subscriber.end_offset();
    let mut highest = ledger.highest();
    let mut waits = Latencies::new();
    while subscriber.position() < end {
        let asked = Instant::now();
        let deliveries = subscriber.next_many(4096).await?;
        waits.record(asked.elapsed());
        for delivery in &deliveries {
            if let Delivery::Record(record) = delivery {
                ledger.read(&record.value, &mut highest);
            }
        }
    }
    Ok((ledger, waits))
}

/// When a message is due.
#[derive(Debug, Clone, Copy)]
struct Due {
    began: Instant,
    every: Duration,
    /// So many are due together, with the first of them.
    batch: u64,
}

impl Due {
    fn of(self, number: u64) -> Instant {
        let first = number - number % self.batch;
        self.began + self.every.mul_f64(first as f64)
    }
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
