//! `tidings pub`: messages from the command line, a file or stdin into a topic.
//!
//! The publisher batches, pipelines and retries; here messages are read, paced
//! and counted. Acknowledgements are awaited beside the sending, in order, so
//! that what is reported was acknowledged and nothing else.

use std::fmt;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use serde::Serialize;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::cli::fail::{Failure, Result};
use crate::cli::input::{self, Messages, Source};
use crate::cli::output::Output;
use crate::cli::tally::Tally;
use crate::cli::{Context, STALL_TOLD_AFTER, note_waiting, output, signals, values};
use crate::client::{
    self, Ack, Acked, ClientError, Compression, Header, Message, NewTopic, Publisher,
    PublisherOptions,
};
use crate::types::{Durability, Offset, TopicName};

/// Acknowledgements that may wait to be looked at.
const ACKS_WAITING_MAX: usize = 65_536;

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

/// What is published, some messages at a time.
#[derive(Debug)]
enum Feed {
    /// The same messages, so many times more.
    Given(Vec<Bytes>, u64),
    /// All of the input, so many times.
    Whole(Messages, u64),
    /// Lines as they come.
    Lines(Messages),
}

impl Feed {
    fn new(args: &Publish, context: &Context) -> Result<Self> {
        if !args.messages.is_empty() {
            let messages = args.messages.iter().map(|text| Bytes::from(text.clone()));
            return Ok(Self::Given(messages.collect(), args.count));
        }
        let source = match &args.file {
            Some(path) => Source::File(path.clone()),
            None => Source::Stdin,
        };
        if matches!(source, Source::Stdin) && std::io::stdin().is_terminal() {
            context.output.note(match args.whole {
                true => "reading one message from the terminal, Ctrl-D ends it",
                false => "reading messages from the terminal, one a line, Ctrl-D ends",
            });
        }
        match (args.whole, args.count) {
            (true, count) => Ok(Self::Whole(input::start(source, true)?, count)),
            (false, 1) => Ok(Self::Lines(input::start(source, false)?)),
            (false, _) => Err(Failure::usage(
                "--count repeats messages given as arguments, or one given with --whole",
            )),
        }
    }

    /// The next messages; `None` at the end.
    async fn next(&mut self) -> Result<Option<Vec<Bytes>>> {
        match self {
            Self::Given(_, 0) => Ok(None),
            Self::Given(messages, left) => {
                *left -= 1;
                Ok(Some(messages.clone()))
            }
            Self::Lines(messages) => messages.recv().await.transpose(),
            Self::Whole(messages, count) => {
                let Some(message) = messages.recv().await.transpose()? else {
                    return Ok(None);
                };
                *self = Self::Given(message, *count);
                // At most one level deep: what is given is not read.
                Box::pin(self.next()).await
            }
        }
    }
}

/// Lets messages through at a steady rate, making up for delays.
#[derive(Debug)]
struct Pace {
    rate: Option<f64>,
    began: Instant,
    passed: u64,
}

impl Pace {
    fn new(rate: Option<f64>) -> Self {
        Self {
            rate,
            began: Instant::now(),
            passed: 0,
        }
    }

    async fn wait(&mut self) {
        if let Some(rate) = self.rate {
            let due = self.began + Duration::from_secs_f64(self.passed as f64 / rate);
            // A sleep takes a millisecond at least, even one that is over.
            if due > Instant::now() {
                tokio::time::sleep_until(due).await;
            }
            self.passed += 1;
        }
    }
}

/// What came of everything that was sent.
#[derive(Debug, Default)]
struct Outcome {
    tally: Tally,
    /// Sent and known not to be stored.
    refused: u64,
    /// Sent, and nobody knows.
    unknown: u64,
    /// Why the first one failed.
    first_error: Option<ClientError>,
}

impl Outcome {
    fn failed(&mut self, error: ClientError) {
        match error {
            ClientError::OutcomeUnknown { .. } => self.unknown += 1,
            _ => self.refused += 1,
        }
        self.first_error.get_or_insert(error);
    }
}

#[derive(Debug, Serialize)]
struct Report<'a> {
    topic: &'a TopicName,
    records: u64,
    first_offset: Option<Offset>,
    end_offset: Option<Offset>,
    durability: Option<Durability>,
}

/// Runs `pub`.
pub async fn run(args: Publish, context: &Context) -> Result {
    let stop = signals::listen()?;
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
        ..PublisherOptions::default()
    };
    let publisher = context.client.publisher(&args.topic, options).await?;
    let progress = progress(context);
    let stall = Stall {
        output: context.output,
        progress: progress.clone(),
        topic: args.topic.clone(),
        full: publisher.watch_full(),
        timeout: args.timeout,
    };
    let (acks, collector) = collector(stall);
    let sent = send_all(&args, feed, &publisher, acks, &stop).await;
    // What is under way is finished whatever ended the sending.
    let closed = publisher.close().await;
    let outcome = collector
        .await
        .map_err(|error| Failure::server(error.to_string()))?;
    progress.finish_and_clear();
    report(&args, sent, closed.err(), outcome, context)
}

/// Sends everything; answers how many were handed over.
async fn send_all(
    args: &Publish,
    mut feed: Feed,
    publisher: &Publisher,
    acks: mpsc::Sender<Ack>,
    stop: &CancellationToken,
) -> std::result::Result<u64, (u64, Failure)> {
    let mut pace = Pace::new(args.rate);
    let key = args.key.clone().map(Bytes::from);
    let headers: Vec<Header> = args.headers.iter().map(header).collect();
    let mut sent = 0;
    loop {
        let payloads = tokio::select! {
            biased;
            () = stop.cancelled() => return Err((sent, Failure::interrupted("interrupted"))),
            next = feed.next() => match next {
                Ok(Some(payloads)) => payloads,
                Ok(None) => return Ok(sent),
                Err(failure) => return Err((sent, failure)),
            },
        };
        for payload in payloads {
            tokio::select! {
                biased;
                () = stop.cancelled() => return Err((sent, Failure::interrupted("interrupted"))),
                () = pace.wait() => {}
            }
            let message = Message {
                key: key.clone(),
                headers: headers.clone(),
                ..Message::new(payload)
            };
            let ack = publisher.send(message).await;
            // The one that is refused counts among those that were to be published.
            let ack = ack.map_err(|error| (sent + 1, Failure::from(error)))?;
            sent += 1;
            if acks.send(ack).await.is_err() {
                // The collector stops at the first failure, and tells it.
                return Ok(sent);
            }
        }
    }
}

fn header((name, value): &(String, String)) -> Header {
    Header {
        name: name.clone(),
        value: Bytes::from(value.clone()),
    }
}

/// Tells people that acknowledgements do not come, and that they come again.
struct Stall {
    output: Output,
    progress: ProgressBar,
    topic: TopicName,
    full: watch::Receiver<bool>,
    timeout: Duration,
}

impl Stall {
    async fn acknowledged(&self, ack: Ack) -> std::result::Result<Acked, ClientError> {
        tokio::pin!(ack);
        if let Ok(acked) = tokio::time::timeout(STALL_TOLD_AFTER, &mut ack).await {
            return acked;
        }
        let patience = output::duration(self.timeout);
        self.tell(&match *self.full.borrow() {
            true => format!(
                "topic {} is full, waiting for room for up to {patience}",
                self.topic
            ),
            false => format!(
                "no acknowledgement for {}, trying for up to {patience}",
                output::duration(STALL_TOLD_AFTER)
            ),
        });
        let acked = ack.await;
        if acked.is_ok() {
            self.tell("acknowledgements come again");
        }
        acked
    }

    fn tell(&self, text: &str) {
        self.progress.suspend(|| self.output.note(text));
    }
}

/// Awaits acknowledgements in the order of sending, until the sender is dropped.
fn collector(stall: Stall) -> (mpsc::Sender<Ack>, JoinHandle<Outcome>) {
    let (to, mut acks) = mpsc::channel::<Ack>(ACKS_WAITING_MAX);
    let task = tokio::spawn(async move {
        let mut outcome = Outcome::default();
        while let Some(ack) = acks.recv().await {
            match stall.acknowledged(ack).await {
                Ok(acked) => {
                    outcome.tally.add(acked.offset, acked.durability);
                    stall.progress.inc(1);
                }
                Err(error) => {
                    outcome.failed(error);
                    // No more is sent; what was sent is still counted.
                    acks.close();
                }
            }
        }
        outcome
    });
    (to, task)
}

fn progress(context: &Context) -> ProgressBar {
    if !context.output.shows_progress() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    if let Ok(style) = ProgressStyle::with_template("{human_pos} acknowledged, {rate}/s") {
        bar.set_style(
            style.with_key("rate", |state: &ProgressState, to: &mut dyn fmt::Write| {
                // What cannot be drawn is drawn next time.
                let _ = to.write_str(&output::number(state.per_sec() as u64));
            }),
        );
    }
    bar
}

/// Tells what came of it; only if everything was acknowledged is it a success.
fn report(
    args: &Publish,
    sent: std::result::Result<u64, (u64, Failure)>,
    closed: Option<ClientError>,
    outcome: Outcome,
    context: &Context,
) -> Result {
    let topic = &args.topic;
    let tally = &outcome.tally;
    let count = *sent.as_ref().unwrap_or_else(|(count, _)| count);
    let failure = outcome
        .first_error
        .or(closed)
        .map(Failure::from)
        .or(sent.err().map(|(_, failure)| failure));
    if let Some(failure) = failure {
        let unknown = match outcome.unknown {
            0 => String::new(),
            1 => "; of 1 it is not known whether it was stored".to_owned(),
            n => format!("; of {n} it is not known whether they were stored"),
        };
        let offsets = match tally.records() {
            0 => String::new(),
            _ => format!(", {tally}"),
        };
        let message = format!(
            "{}; acknowledged by {topic}: {} of {}{offsets}{unknown}",
            failure.message,
            output::number(tally.records()),
            output::count(count, "message")
        );
        return Err(Failure { message, ..failure });
    }
    let durability = tally
        .durability()
        .map_or_else(String::new, |d| format!(", {d}"));
    let offsets = match (tally.first_offset(), tally.end_offset()) {
        (Some(first), Some(end)) => format!(", offsets {first}..{end}"),
        _ => String::new(),
    };
    context.output.note(format!(
        "published {} to {topic}{offsets}{durability}",
        tally.records()
    ));
    let report = Report {
        topic,
        records: tally.records(),
        first_offset: tally.first_offset(),
        end_offset: tally.end_offset(),
        durability: tally.durability(),
    };
    let name = context.output.name_line(topic);
    context.output.value(&report, &name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn given_messages_are_repeated() {
        let mut feed = Feed::Given(vec![Bytes::from_static(b"a")], 2);
        let mut count = 0;
        while let Ok(Some(some)) = feed.next().await {
            count += some.len();
        }
        assert_eq!(count, 2);
    }

    #[tokio::test]
    async fn the_pace_is_kept_on_average() {
        let began = Instant::now();
        let mut pace = Pace::new(Some(500.0));
        for _ in 0..=25 {
            pace.wait().await;
        }
        assert!(began.elapsed() >= Duration::from_millis(50));
    }
}
