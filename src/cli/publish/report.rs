//! What came of what `pub` sent: acknowledgements as they come, and what is told at the end.

use std::fmt;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use serde::Serialize;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::Publish;
use super::recipe::Recipe;
use crate::cli::fail::{Failure, Result};
use crate::cli::output::Output;
use crate::cli::tally::Tally;
use crate::cli::{Context, STALL_TOLD_AFTER, output};
use crate::client::{Ack, ClientError, RunAck};
use crate::types::{Durability, Offset, TopicName};

/// Acknowledgements that may wait to be looked at.
const ACKS_WAITING_MAX: usize = 65_536;

/// What came of everything that was sent.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    tally: Tally,
    /// Acknowledged.
    acknowledged: u64,
    /// Acknowledged, and there before, as messages of the same ids.
    duplicates: u64,
    /// Sent and known not to be stored.
    refused: u64,
    /// Sent, and nobody knows.
    unknown: u64,
    /// Why the first one failed.
    first_error: Option<ClientError>,
}

impl Outcome {
    fn acknowledged(&mut self, offset: Offset, durability: Durability, duplicate: bool) {
        self.tally.add(offset, durability);
        self.acknowledged += 1;
        self.duplicates += u64::from(duplicate);
    }

    fn failed(&mut self, count: u64, error: ClientError) {
        match error {
            ClientError::OutcomeUnknown { .. } => self.unknown += count,
            _ => self.refused += count,
        }
        self.first_error.get_or_insert(error);
    }

    /// What came of messages that were sent as one batch.
    pub async fn of_whole(ack: RunAck, stall: &Stall) -> Self {
        let mut outcome = Self::default();
        let count = ack.count() as u64;
        match stall.acknowledged(ack).await {
            Ok(run) => {
                let offsets = run.offsets.start.get()..run.offsets.end.get();
                for offset in offsets {
                    let offset = Offset::new(offset);
                    outcome.acknowledged(offset, run.durability, false);
                }
            }
            Err(error) => outcome.failed(count, error),
        }
        outcome
    }
}

#[derive(Debug, Serialize)]
struct Report<'a> {
    topic: &'a TopicName,
    records: u64,
    duplicates: u64,
    first_offset: Option<Offset>,
    end_offset: Option<Offset>,
    durability: Option<Durability>,
    /// Of the last one, where they are delivered later.
    #[serde(skip_serializing_if = "Option::is_none")]
    deliver_at: Option<String>,
}

/// Tells people that acknowledgements do not come, and that they come again.
pub(super) struct Stall {
    pub output: Output,
    pub progress: ProgressBar,
    pub topic: TopicName,
    pub full: watch::Receiver<bool>,
    pub timeout: Duration,
}

impl Stall {
    async fn acknowledged<T>(
        &self,
        ack: impl Future<Output = std::result::Result<T, ClientError>>,
    ) -> std::result::Result<T, ClientError> {
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
pub(super) fn collector(stall: Stall) -> (mpsc::Sender<Ack>, JoinHandle<Outcome>) {
    let (to, mut acks) = mpsc::channel::<Ack>(ACKS_WAITING_MAX);
    let task = tokio::spawn(async move {
        let mut outcome = Outcome::default();
        while let Some(ack) = acks.recv().await {
            match stall.acknowledged(ack).await {
                Ok(acked) => {
                    outcome.acknowledged(acked.offset, acked.durability, acked.duplicate);
                    stall.progress.inc(1);
                }
                Err(error) => {
                    outcome.failed(1, error);
                    // No more is sent; what was sent is still counted.
                    acks.close();
                }
            }
        }
        outcome
    });
    (to, task)
}

pub(super) fn progress(context: &Context) -> ProgressBar {
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

/// What people are told after everything was acknowledged.
fn told(
    (topic, stored_in): (&TopicName, &TopicName),
    recipe: &Recipe,
    tally: &Tally,
    (count, duplicates): (u64, u64),
) -> String {
    let due = recipe.last_due().filter(|_| count > 0);
    let offsets = match (tally.first_offset(), tally.end_offset(), due) {
        (Some(first), Some(end), None) => format!(", offsets {first}..{end}"),
        // The topic does not have them yet.
        (Some(first), Some(end), Some(_)) => format!(", offsets {first}..{end} of {stored_in}"),
        _ => String::new(),
    };
    let durability = tally
        .durability()
        .map_or_else(String::new, |d| format!(", {d}"));
    // A message that is known keeps the time it was published with first.
    let keeps = due.map_or("", |_| ", with its own time");
    let known = match duplicates {
        0 => String::new(),
        1 => format!("; 1 was there already{keeps}"),
        n => format!("; {} were there already{keeps}", output::number(n)),
    };
    let what = match (due, count) {
        (None, _) => format!("published {count} to {topic}"),
        (Some(due), 1) => format!("stored 1 for {topic}, to be delivered at {due}"),
        (Some(due), _) => {
            format!("stored {count} for {topic}, the last one to be delivered at {due}")
        }
    };
    format!("{what}{offsets}{durability}{known}")
}

/// Tells what came of it; only if everything was acknowledged is it a success.
pub(super) fn report(
    (args, recipe, stored_in): (&Publish, &Recipe, &TopicName),
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
            output::number(outcome.acknowledged),
            output::count(count, "message")
        );
        return Err(super::with_hint(Failure { message, ..failure }));
    }
    context.output.note(told(
        (topic, stored_in),
        recipe,
        &outcome.tally,
        (outcome.acknowledged, outcome.duplicates),
    ));
    let due = recipe.last_due().filter(|_| outcome.acknowledged > 0);
    let report = Report {
        topic,
        records: outcome.acknowledged,
        duplicates: outcome.duplicates,
        first_offset: tally.first_offset(),
        end_offset: tally.end_offset(),
        durability: tally.durability(),
        deliver_at: due.map(|due| due.to_string()),
    };
    let name = context.output.name_line(topic);
    context.output.value(&report, &name)
}
