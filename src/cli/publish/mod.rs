//! `tidings pub`: messages from the command line, a file or stdin into a topic.
//!
//! The publisher batches, pipelines and retries; here messages are read, paced
//! and counted. Acknowledgements are awaited beside the sending, in order, so
//! that what is reported was acknowledged and nothing else.

mod feed;
mod recipe;
mod report;

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use clap::{Args, ValueEnum};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::cli::fail::{Failure, Result};
use crate::cli::{Context, note_waiting, output, signals, values};
use crate::client::{
    self, Ack, ClientError, Compression, DelayedPublisher, Message, NewTopic, Publisher,
    PublisherOptions, TimeToLive,
};
use crate::limits;
use crate::types::{Offset, ProducerName, Sequence, TopicName};
use feed::{Feed, Pace};
use recipe::{IdPlace, KeyPlace, Recipe};
use report::{Outcome, Stall, collector, progress, report};

/// Arguments of `pub`.
#[derive(Debug, Args)]
pub struct Publish {
    /// The topic
    topic: TopicName,
    /// The messages [default: the lines of stdin]
    #[arg(value_name = "MESSAGE", conflicts_with_all = ["file", "lines", "whole"])]
    messages: Vec<String>,
    /// Create the topic if it does not exist
    #[arg(long)]
    create: bool,
    /// Key of every message
    #[arg(short, long)]
    key: Option<String>,
    /// Where each message has its key: json:FIELD, or before:TEXT, which is taken off with the text behind it
    #[arg(long, value_name = "PLACE", value_parser = recipe::key_place, conflicts_with = "key")]
    key_from: Option<KeyPlace>,
    /// Header of every message; may be given more than once
    #[arg(short = 'H', long = "header", value_name = "NAME:VALUE", value_parser = values::header)]
    headers: Vec<(String, String)>,
    /// Read messages from a file
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// One message a line; this is the default
    #[arg(long, conflicts_with = "whole")]
    lines: bool,
    /// All of it is one message
    #[arg(long)]
    whole: bool,
    /// Publish so many times what is given as arguments or with --whole
    #[arg(long, value_name = "N", default_value_t = 1, hide_default_value = true)]
    #[arg(value_parser = values::count)]
    count: u64,
    /// At most so many messages per second
    #[arg(long, value_name = "N/s", value_parser = values::rate)]
    rate: Option<f64>,
    /// All of it is one batch: every message is stored, or none
    #[arg(long, conflicts_with = "rate")]
    atomic: bool,
    /// Store it, as one batch, only if the topic ends at this offset
    #[arg(long, value_name = "OFFSET", value_parser = values::offset, conflicts_with = "rate")]
    expect_end: Option<Offset>,
    /// Publish under this name: go on after what was published under it before, given the same input again
    #[arg(long, value_name = "NAME")]
    producer: Option<ProducerName>,
    /// So many messages of the input are published already, whatever the peer knows of the name
    #[arg(long, value_name = "N", requires = "producer")]
    producer_at: Option<u64>,
    /// Id of the message: one that the topic remembers is not stored again
    #[arg(long, value_name = "ID", conflicts_with_all = ["atomic", "expect_end", "producer", "id_from"])]
    id: Option<String>,
    /// Where each message has its id: payload, key, header:NAME or json:FIELD
    #[arg(long, value_name = "PLACE", value_parser = recipe::id_place)]
    #[arg(conflicts_with_all = ["atomic", "expect_end", "producer"])]
    id_from: Option<IdPlace>,
    /// Stored now and delivered at this time, or so long after it was read: 2026-03-01T12:00:00Z, +10m
    #[arg(long, value_name = "TIME|+D", value_parser = values::when, allow_hyphen_values = true)]
    #[arg(conflicts_with_all = ["atomic", "expect_end"])]
    deliver_at: Option<values::When>,
    /// Gone for every reader so long after it was stored, by the clock of its host: 1 ms to ten years
    #[arg(long, value_name = "DURATION", value_parser = values::time_to_live)]
    #[arg(conflicts_with = "deliver_at")]
    ttl: Option<TimeToLive>,
    /// How batches are compressed: none, lz4 or zstd [default: none]
    #[arg(long, value_name = "CODEC", hide_possible_values = true)]
    compress: Option<Codec>,
    /// Give up after so long without progress, or without a first connection
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = values::duration)]
    pub(super) timeout: Duration,
}

/// How batches are compressed.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Codec {
    None,
    Lz4,
    Zstd,
}

impl From<Codec> for Compression {
    fn from(codec: Codec) -> Self {
        match codec {
            Codec::None => Self::None,
            Codec::Lz4 => Self::Lz4,
            Codec::Zstd => Self::Zstd,
        }
    }
}

/// Runs `pub`.
pub async fn run(args: Publish, context: &Context) -> Result {
    let stop = signals::listen()?;
    let recipe = Recipe::new(&args)?;
    let feed = Feed::new(&args, context)?;
    if args.create {
        let topic = NewTopic {
            if_not_exists: true,
            ..NewTopic::new(args.topic.clone())
        };
        let waiting = |error: &ClientError| note_waiting(&context.output, error, args.timeout);
        // The index may be there before the first peer is.
        client::insist(args.timeout, waiting, async || {
            context.client.create_topic(&topic).await
        })
        .await?;
    }
    let options = PublisherOptions {
        compression: args.compress.map_or(Compression::None, Compression::from),
        timeout: Some(args.timeout),
        producer: args.producer.clone(),
        resume_at: args.producer_at.map(Sequence::new),
        ..PublisherOptions::default()
    };
    let publisher = match args.deliver_at {
        None => context.client.publisher(&args.topic, options).await,
        Some(_) => {
            let delayed = context.client.delayed_publisher(&args.topic, options);
            delayed.await.map(DelayedPublisher::into_publisher)
        }
    };
    let publisher = publisher.map_err(|error| with_hint(error.into()))?;
    let feed = feed.without(publisher.resumed_at().get());
    let stored_in = publisher.topic().clone();
    note_resumed(&args, &publisher, context);
    let progress = progress(context);
    let stall = Stall {
        output: context.output,
        progress: progress.clone(),
        topic: args.topic.clone(),
        full: publisher.watch_full(),
        timeout: args.timeout,
    };
    let (sent, closed, outcome) = if args.is_one_batch() {
        let (sent, outcome) = send_whole(&args, &recipe, feed, (&publisher, &stall), &stop).await;
        (sent, publisher.close().await, outcome)
    } else {
        let (acks, collector) = collector(stall);
        let sent = send_each(&args, &recipe, feed, (&publisher, acks), &stop).await;
        // What is under way is finished whatever ended the sending.
        let closed = publisher.close().await;
        let outcome = collector.await;
        let outcome = outcome.map_err(|error| Failure::server(error.to_string()))?;
        (sent, closed, outcome)
    };
    progress.finish_and_clear();
    report(
        (&args, &recipe, &stored_in),
        sent,
        closed.err(),
        outcome,
        context,
    )
}

/// What people need to know before the first message.
fn note_resumed(args: &Publish, publisher: &Publisher, context: &Context) {
    let before = publisher.resumed_at().get();
    if let Some(name) = &args.producer
        && before > 0
    {
        context.output.note(format!(
            "{name} has published {} to {} before: the first {before} of the input are passed over",
            output::count(before, "message"),
            args.topic
        ));
    }
}

/// What to do where the producer's name is in the way.
fn with_hint(failure: Failure) -> Failure {
    match failure.name.as_str() {
        "ProducerForgotten" => failure.hint(
            "look how far the input was published, then say so: --producer-at N passes over the first N messages, \
             --producer-at 0 publishes all of them",
        ),
        "ProducerFenced" => failure.hint("one process at a time publishes under a name"),
        _ => failure,
    }
}

impl Publish {
    fn is_one_batch(&self) -> bool {
        self.atomic || self.expect_end.is_some()
    }
}

/// How many messages were handed over, and what ended it early.
type Sent = std::result::Result<u64, (u64, Failure)>;

/// Sends one message after the other.
async fn send_each(
    args: &Publish,
    recipe: &Recipe,
    mut feed: Feed,
    (publisher, acks): (&Publisher, mpsc::Sender<Ack>),
    stop: &CancellationToken,
) -> Sent {
    let mut pace = Pace::new(args.rate);
    let mut sent = 0;
    loop {
        let payloads = match next(&mut feed, stop).await {
            Ok(Some(payloads)) => payloads,
            Ok(None) => return Ok(sent),
            Err(failure) => return Err((sent, failure)),
        };
        for payload in payloads {
            tokio::select! {
                biased;
                () = stop.cancelled() => return Err((sent, Failure::interrupted("interrupted"))),
                () = pace.wait() => {}
            }
            // The one that is refused counts among those that were to be published.
            let message = recipe.message(payload, sent);
            let message = message.map_err(|failure| (sent + 1, failure))?;
            let ack = publisher.send(message).await;
            let ack = ack.map_err(|error| (sent + 1, Failure::from(error)))?;
            sent += 1;
            if acks.send(ack).await.is_err() {
                // The collector stops at the first failure, and tells it.
                return Ok(sent);
            }
        }
    }
}

/// Sends everything as one batch, once all of it is there.
async fn send_whole(
    args: &Publish,
    recipe: &Recipe,
    feed: Feed,
    (publisher, stall): (&Publisher, &Stall),
    stop: &CancellationToken,
) -> (Sent, Outcome) {
    let messages = match gather(recipe, feed, stop).await {
        Ok(messages) => messages,
        Err(failure) => return (Err((0, failure)), Outcome::default()),
    };
    let count = messages.len() as u64;
    let ack = match args.expect_end {
        Some(end) => publisher.send_expecting(end, messages).await,
        None => publisher.send_all(messages).await,
    };
    match ack {
        Ok(ack) => (Ok(count), Outcome::of_whole(ack, stall).await),
        Err(error) => (Err((count, error.into())), Outcome::default()),
    }
}

/// All messages there are, as far as one batch may hold them.
async fn gather(recipe: &Recipe, mut feed: Feed, stop: &CancellationToken) -> Result<Vec<Message>> {
    let mut messages = Vec::new();
    let mut bytes = 0;
    while let Some(payloads) = next(&mut feed, stop).await? {
        for payload in payloads {
            bytes += payload.len();
            if bytes > limits::BATCH_BYTES_UNPACKED_MAX
                || messages.len() == limits::BATCH_RECORDS_MAX as usize
            {
                return Err(Failure::usage(format!(
                    "this is more than one batch holds, {} messages and {} bytes: leave out --atomic \
                     and --expect-end, or publish it in parts",
                    limits::BATCH_RECORDS_MAX,
                    limits::BATCH_BYTES_UNPACKED_MAX
                )));
            }
            messages.push(recipe.message(payload, messages.len() as u64)?);
        }
    }
    Ok(messages)
}

/// The next messages, unless somebody interrupts.
async fn next(feed: &mut Feed, stop: &CancellationToken) -> Result<Option<Vec<Bytes>>> {
    tokio::select! {
        biased;
        () = stop.cancelled() => Err(Failure::interrupted("interrupted")),
        next = feed.next() => next,
    }
}
