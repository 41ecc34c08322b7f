//! `tidings sub` of a pattern: messages of all topics that match onto stdout.
//!
//! As with one topic, a durable subscription is committed up to what has been
//! written out and not further: what was printed is written before a commit.

use std::convert::Infallible;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::cli::fail::{Failure, Result};
use crate::cli::message::{Message, Printer};
use crate::cli::output::{self, Output};
use crate::cli::subscribe::{COMMIT_EVERY, MESSAGES_AT_ONCE, Subscribe};
use crate::cli::{Context, STALL_TOLD_AFTER, signals};
use crate::client::{
    ClientError, Delivery, PatternEvent, PatternOptions, PatternSubscriber, TopicDeliveries,
};
use crate::types::{PeerName, SubscriptionName, TopicPattern};

/// Messages on their way from many topics to stdout.
struct Following<'a> {
    subscriber: PatternSubscriber,
    printer: Printer,
    output: &'a Output,
    name: Option<SubscriptionName>,
    /// Patience with peers that are away when something has to end.
    timeout: Duration,
    commits: bool,
    /// Something was handed out since the last commit.
    is_dirty: bool,
    /// Something was printed and not written out.
    is_waiting: bool,
    /// Writing failed: of what was handed out last nobody knows what was seen.
    is_torn: bool,
    printed: u64,
    failed: Option<ClientError>,
}

/// Follows all topics that match.
pub(super) async fn follow(pattern: &TopicPattern, args: Subscribe, context: &Context) -> Result {
    let stop = signals::listen()?;
    let printer = Printer::new(context.output.format, args.look.template)?;
    let options = PatternOptions {
        name: args.name.clone(),
        from: args.from,
        until_end: args.until_end,
        pass_damage: args.look.pass_damage,
        timeout: Some(args.timeout),
    };
    let opening = context.client.pattern_subscriber(pattern, options);
    let Some(subscriber) = stop.run_until_cancelled(opening).await else {
        return Ok(());
    };
    let subscriber = subscriber?;
    let how = (args.name.is_some(), args.until_end);
    tell_start(pattern, &subscriber, how, &context.output);
    let away = subscriber.watch_away();
    let mut following = Following {
        subscriber,
        printer,
        output: &context.output,
        name: args.name.clone(),
        timeout: args.timeout,
        commits: args.name.is_some(),
        is_dirty: false,
        is_waiting: false,
        is_torn: false,
        printed: 0,
        failed: None,
    };
    tokio::select! {
        followed = following.run(args.count, &stop) => followed,
        never = tell_absence(away, &context.output) => match never {},
    }
}

fn tell_start(
    pattern: &TopicPattern,
    subscriber: &PatternSubscriber,
    (is_durable, until_end): (bool, bool),
    output: &Output,
) {
    let started = subscriber.started();
    let topics = output::count(started.topics as u64, "topic");
    output.note(match (started.topics, until_end) {
        (0, true) => format!("no topic matches {pattern}"),
        (0, false) => format!("following {pattern}: no topic matches yet"),
        (_, true) => format!("reading {topics} to their ends"),
        (_, false) => format!("following {topics}, and those to come"),
    });
    if is_durable && started.topics > 0 {
        output.note(format!(
            "goes on where it stopped on {} of them, is new on {}",
            started.resumed,
            started.made()
        ));
    }
}

/// Tells people which peers are away, and that they are back.
async fn tell_absence(mut away: watch::Receiver<Vec<PeerName>>, output: &Output) -> Infallible {
    loop {
        let changed = away.wait_for(|away| !away.is_empty()).await.is_ok();
        if !changed {
            std::future::pending::<()>().await;
        }
        let back = away.wait_for(|away| away.is_empty());
        if let Ok(back) = tokio::time::timeout(STALL_TOLD_AFTER, back).await {
            drop(back);
            continue;
        }
        let names: Vec<String> = away.borrow().iter().map(PeerName::to_string).collect();
        let names = names.join(", ");
        output.note(format!(
            "away: {names}; their topics wait, the others go on"
        ));
        let _ = away.wait_for(|away| away.is_empty()).await;
        output.note(format!("back: {names}"));
    }
}

impl Following<'_> {
    /// Prints until it is time to stop, then commits, whatever the reason was but that nobody saw what was printed.
    async fn run(&mut self, count: Option<u64>, stop: &CancellationToken) -> Result {
        let followed = self.flow(count, stop).await;
        if self.is_torn {
            return followed;
        }
        let committed = self.commit(self.timeout).await;
        followed.and(committed)?;
        match self.failed.take() {
            None => Ok(()),
            Some(error) => Err(error.into()),
        }
    }

    async fn flow(&mut self, count: Option<u64>, stop: &CancellationToken) -> Result {
        let mut commit_due = Instant::now() + COMMIT_EVERY;
        loop {
            let left = count.map(|count| count.saturating_sub(self.printed));
            let wanted = left.unwrap_or(u64::MAX).min(MESSAGES_AT_ONCE as u64) as usize;
            if wanted == 0 {
                return self.flush();
            }
            let event = tokio::select! {
                biased;
                () = stop.cancelled() => return self.flush(),
                event = self.subscriber.next_event(wanted) => Some(event?),
                // Nothing more is at hand.
                () = std::future::ready(()), if self.is_waiting => None,
                () = tokio::time::sleep_until(commit_due), if self.commits && self.is_dirty => None,
            };
            match event {
                Some(PatternEvent::Ended) => return self.flush(),
                Some(event) => self.take(event)?,
                None => self.flush()?,
            }
            if Instant::now() >= commit_due {
                self.commit(Duration::ZERO).await?;
                commit_due = Instant::now() + COMMIT_EVERY;
            }
        }
    }

    fn take(&mut self, event: PatternEvent) -> Result {
        match event {
            PatternEvent::Deliveries(some) => self.print(&some)?,
            PatternEvent::Found(topic) => self.output.note(format!("found {topic}")),
            PatternEvent::Gone(topic) => self.output.note(format!("{topic} is gone")),
            PatternEvent::Paused(topic) => {
                let name = self.name.as_ref().map(ToString::to_string);
                let name = name.unwrap_or_default();
                self.output.note(format!(
                    "the subscription on {topic} is paused, 'tidings subscription resume {topic} {name}' lets it go on"
                ));
            }
            PatternEvent::Resumed(topic) => {
                let note = format!("the subscription on {topic} goes on");
                self.output.note(note);
            }
            PatternEvent::Moved { topic, offset } => self.output.warn(format!(
                "somebody moved the subscription on {topic}: going on at offset {offset}"
            )),
            PatternEvent::Failed { topic, error } => {
                self.output
                    .warn(format!("{topic} is given up: {error}; the others go on"));
                self.failed.get_or_insert(error);
            }
            PatternEvent::Ended => {}
        }
        Ok(())
    }

    fn print(&mut self, some: &TopicDeliveries) -> Result {
        self.is_dirty = true;
        for delivery in &some.deliveries {
            match delivery {
                Delivery::Record(record) => {
                    self.printed += 1;
                    self.is_waiting = true;
                    let printed = self.printer.print(&Message {
                        topic: &some.topic,
                        offset: record.offset,
                        timestamp: record.timestamp,
                        key: record.key.as_deref(),
                        headers: &record.headers,
                        payload: &record.value,
                        delivery: None,
                        expires: None,
                    });
                    self.is_torn |= printed.is_err();
                    printed?;
                }
                Delivery::Gap(gap) => {
                    let (from, to, reason) = (gap.from, gap.to, gap.reason);
                    let topic = &some.topic;
                    self.output
                        .warn(format!("gap: {topic}: offsets {from}..{to} are {reason}"));
                }
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> Result {
        self.is_waiting = false;
        let written = self.printer.flush();
        self.is_torn |= written.is_err();
        written
    }

    /// Commits what was written out, waiting so long for peers that are away.
    async fn commit(&mut self, patience: Duration) -> Result {
        self.flush()?;
        if !self.commits || !self.is_dirty {
            return Ok(());
        }
        let left = self.subscriber.commit_within(patience).await?;
        self.is_dirty = left > 0;
        if left > 0 && !patience.is_zero() {
            return Err(Failure::from(ClientError::TimedOut {
                what: format!(
                    "confirming what was read of {}, whose peers are away,",
                    output::count(left as u64, "topic")
                ),
                after: patience,
            }));
        }
        Ok(())
    }
}
