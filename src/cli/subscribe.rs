//! `tidings sub` and `tidings pull`: messages of a topic onto stdout. A pattern is
//! [followed](super::following).
//!
//! A durable subscription is committed up to what has been written out and not
//! further: after each write the position is noted, and the commit names it. So
//! a crash in between shows some messages again and hides none.

use std::cell::Cell;
use std::convert::Infallible;
use std::time::Duration;

use clap::Args;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::cli::fail::{Failure, Result};
use crate::cli::following;
use crate::cli::member::{self, GroupFlags};
use crate::cli::message::{Message, Printer};
use crate::cli::output::{self, Output};
use crate::cli::values::{self, Template};
use crate::cli::{Context, STALL_TOLD_AFTER, signals};
use crate::client::{ClientError, Delivery, Subscriber, SubscriberOptions};
use crate::protocol::api::Position;
use crate::protocol::error::ApiError;
use crate::types::{Offset, SubscriptionName, TopicName, TopicPattern};

/// What was written out is committed at least so often.
pub(super) const COMMIT_EVERY: Duration = Duration::from_secs(1);
/// Messages taken at once, before what was printed is written out.
pub(super) const MESSAGES_AT_ONCE: usize = 4096;

/// Arguments of `sub`.
#[derive(Debug, Args)]
pub struct Subscribe {
    /// The topic, or a pattern: '*' stands for one token, a last '>' for one or more; all topics that match are
    /// followed, on all peers, and those made later from their beginning
    #[arg(value_name = "TOPIC|PATTERN")]
    topic: TopicPattern,
    /// Read through this durable subscription, of each topic, and commit what was printed
    #[arg(long = "as", value_name = "NAME")]
    pub(super) name: Option<SubscriptionName>,
    /// If the subscription has to be made: remove it by itself when nobody uses it for so long
    #[arg(long, value_name = "DURATION", requires = "name", value_parser = values::duration)]
    pub(super) expire: Option<Duration>,
    /// Where to begin: beginning, end, OFFSET, -N, a duration back from now, or a time; a durable
    /// subscription that exists goes on where it stopped [default: end]
    #[arg(long, value_name = "PLACE", allow_hyphen_values = true)]
    #[arg(value_parser = values::position)]
    pub(super) from: Option<Position>,
    /// Stop after so many messages
    #[arg(short = 'n', value_name = "N", value_parser = values::count)]
    pub(super) count: Option<u64>,
    /// Stop where the topic ends now, or all that match do
    #[arg(long)]
    pub(super) until_end: bool,
    /// Give up when the topic's peer is away, or nobody answers at first, for so long; a pattern that need not end
    /// goes on with the topics of other peers instead
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = values::duration)]
    pub(super) timeout: Duration,
    #[command(flatten)]
    pub(super) look: Look,
    #[command(flatten)]
    group: GroupFlags,
}

/// Arguments of `pull`.
#[derive(Debug, Args)]
pub struct Pull {
    /// The topic
    topic: TopicPattern,
    /// The durable subscription
    #[arg(long = "as", value_name = "NAME")]
    name: SubscriptionName,
    /// At most so many messages
    #[arg(short = 'n', value_name = "MAX", value_parser = values::count)]
    count: Option<u64>,
    /// Wait so long for a first message
    #[arg(long, value_name = "DURATION", value_parser = values::duration)]
    wait: Option<Duration>,
    /// Make the subscription, if it does not exist, at: beginning, end, OFFSET, -N, a duration
    /// back from now, or a time
    #[arg(long, value_name = "PLACE", allow_hyphen_values = true)]
    #[arg(value_parser = values::position)]
    from: Option<Position>,
    /// Leave the subscription where it is
    #[arg(long)]
    no_commit: bool,
    /// Give up when the topic's peer is away for so long
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = values::duration)]
    timeout: Duration,
    #[command(flatten)]
    look: Look,
}

/// How messages look, and what happens where there are none.
#[derive(Debug, Args)]
pub(super) struct Look {
    /// Report damaged messages as a gap and go on, instead of stopping there
    #[arg(long)]
    pub(super) pass_damage: bool,
    /// Print each message so: %t topic, %o offset, %T time, %k key, %h headers, %p payload,
    /// %n newline, %% percent
    #[arg(short = 'f', value_name = "FORMAT", value_parser = values::template)]
    pub(super) template: Option<Template>,
}

/// When to stop.
#[derive(Debug, Clone, Copy)]
struct Until {
    /// So many messages.
    count: Option<u64>,
    /// This offset.
    end: Option<Offset>,
}

/// What to do when somebody else has moved the subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moved {
    GoThere,
    Fail,
}

/// Messages on their way from a subscriber to stdout.
struct Flow<'a> {
    subscriber: Subscriber,
    printer: Printer,
    output: &'a Output,
    /// Everything before it has been written out.
    written: Offset,
    /// Everything before it has been committed.
    committed: Offset,
    commits: bool,
    moved: Moved,
    printed: u64,
    /// A commit failed, after all the patience there is.
    gave_up: bool,
}

/// Runs `sub`.
pub async fn sub(args: Subscribe, context: &Context) -> Result {
    args.group.check()?;
    let Some(topic) = args.topic.as_name() else {
        if args.group.group.is_some() {
            return Err(Failure::usage(format!(
                "--group goes with one topic, and {} is a pattern of many",
                args.topic
            )));
        }
        if args.expire.is_some() {
            return Err(Failure::usage(
                "--expire goes with one topic: make the subscriptions of a pattern with \
                 'tidings subscription create TOPIC --as NAME --expire DURATION'",
            ));
        }
        let pattern = args.topic.clone();
        return following::follow(&pattern, args, context).await;
    };
    let printer = Printer::new(context.output.format, args.look.template)?;
    if let Some(name) = args.group.group.clone() {
        let wanted = member::Wanted {
            topic,
            from: args.from,
            count: args.count,
            until_end: args.until_end,
            timeout: args.timeout,
            printer,
        };
        return member::sub(wanted, name, &args.group, context).await;
    }
    let stop = signals::listen()?;
    let opening = async {
        let mut options = match args.name {
            None => SubscriberOptions::passing(args.from.unwrap_or(Position::End)),
            Some(name) => {
                let from = begin(&topic, &name, args.from, context).await?;
                SubscriberOptions::durable(name, from)
            }
        };
        options.pass_damage = args.look.pass_damage;
        options.timeout = Some(args.timeout);
        options.expire = args.expire;
        open(&topic, options, context).await
    };
    let Some(subscriber) = stop.run_until_cancelled(opening).await else {
        return Ok(());
    };
    let subscriber = subscriber?;
    let until = Until {
        count: args.count,
        end: args.until_end.then(|| subscriber.end_offset()),
    };
    let pause = Pause::of(&subscriber, &context.output);
    let absence = Absence::new(subscriber.watch_absence(), &context.output, args.timeout);
    let mut flow = Flow::new(subscriber, printer, &context.output);
    let flowed = tokio::select! {
        flowed = flow.run(until, &stop) => flowed,
        never = absence.tell() => match never {},
        never = pause.tell() => match never {},
    };
    // The first thing that came may have been the last that was wanted.
    absence.tell_end();
    flowed
}

/// Tells people that the topic's peer is away, and that it is back.
pub(super) struct Absence<'a> {
    away: watch::Receiver<bool>,
    output: &'a Output,
    timeout: Duration,
    /// They know that it is away, and not that it is back.
    is_told: Cell<bool>,
}

impl<'a> Absence<'a> {
    /// Of the peer of which `away` tells.
    pub fn new(away: watch::Receiver<bool>, output: &'a Output, timeout: Duration) -> Self {
        Self {
            away,
            output,
            timeout,
            is_told: Cell::new(false),
        }
    }

    /// Tells it as it changes, for ever.
    pub async fn tell(&self) -> Infallible {
        let mut away = self.away.clone();
        loop {
            until_it_is(true, &mut away).await;
            let back = until_it_is(false, &mut away);
            if tokio::time::timeout(STALL_TOLD_AFTER, back).await.is_err() {
                self.output.note(format!(
                    "the topic's peer is away, trying for up to {}",
                    output::duration(self.timeout)
                ));
                self.is_told.set(true);
                until_it_is(false, &mut away).await;
                self.tell_end();
            }
        }
    }

    /// Tells that it is back, if that is so and still to be told.
    pub fn tell_end(&self) {
        if !*self.away.borrow() && self.is_told.replace(false) {
            self.output.note("the topic's peer is back");
        }
    }
}

/// Waits; for ever, if nothing is told any more.
async fn until_it_is(wanted: bool, told: &mut watch::Receiver<bool>) {
    if told.wait_for(|is_so| *is_so == wanted).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Tells people that the subscription is paused, and that it goes on.
struct Pause<'a> {
    /// `None` without a durable subscription.
    paused: Option<watch::Receiver<bool>>,
    resume: String,
    output: &'a Output,
}

impl<'a> Pause<'a> {
    fn of(subscriber: &Subscriber, output: &'a Output) -> Self {
        let name = subscriber
            .subscription()
            .map(|found| found.name.to_string());
        Self {
            paused: subscriber.watch_pause(),
            resume: format!(
                "'tidings subscription resume {} {}'",
                subscriber.topic(),
                name.unwrap_or_default()
            ),
            output,
        }
    }

    fn is_paused(&self) -> bool {
        self.paused.as_ref().is_some_and(|paused| *paused.borrow())
    }

    async fn begins(&self) {
        match self.paused.clone() {
            Some(mut paused) => until_it_is(true, &mut paused).await,
            None => std::future::pending().await,
        }
    }

    fn note(&self) {
        self.output.note(format!(
            "the subscription is paused, {} lets it go on",
            self.resume
        ));
    }

    async fn tell(&self) -> Infallible {
        loop {
            self.begins().await;
            self.note();
            if let Some(mut paused) = self.paused.clone() {
                until_it_is(false, &mut paused).await;
            }
            self.output.note("the subscription goes on");
        }
    }
}

/// Where a durable subscription begins if it has to be made. What happens to
/// `--from` is said, because it would surprise otherwise.
async fn begin(
    topic: &TopicName,
    name: &SubscriptionName,
    from: Option<Position>,
    context: &Context,
) -> Result<Option<Position>> {
    let found = context.client.describe_subscription(topic, name).await;
    match (found, from) {
        (Ok(found), Some(_)) => {
            context.output.note(format!(
                "subscription {name} exists and goes on at offset {}; \
                 'tidings subscription seek' moves it",
                found.committed_offset
            ));
            Ok(None)
        }
        (Ok(_), None) => Ok(None),
        (Err(ClientError::Api(ApiError::SubscriptionNotFound { .. })), from) => {
            let from = from.unwrap_or(Position::End);
            let place = match from {
                Position::End => "it begins at the end".to_owned(),
                _ => "it begins where --from says".to_owned(),
            };
            context
                .output
                .note(format!("subscription {name} is new, {place}"));
            Ok(Some(from))
        }
        (Err(error), _) => Err(error.into()),
    }
}

async fn open(
    topic: &TopicName,
    options: SubscriberOptions,
    context: &Context,
) -> Result<Subscriber> {
    let subscriber = context.client.subscriber(topic, options).await?;
    warn_of_quarantine(topic, context).await;
    Ok(subscriber)
}

/// Says that more was published than there is to read: nothing else would tell that from a topic at rest.
async fn warn_of_quarantine(topic: &TopicName, context: &Context) {
    // Reading goes on whether or not this is known; what keeps it from being known will be told by the reading.
    let Ok(Ok(info)) = (context.client.describe_topic(topic).await).map(|report| report.info)
    else {
        return;
    };
    if info.quarantined {
        let name = topic.clone();
        let end = info.end_offset;
        context
            .output
            .warn(ApiError::TopicQuarantined { name, end });
    }
}

/// Runs `pull`.
pub async fn pull(args: Pull, context: &Context) -> Result {
    let Some(topic) = args.topic.as_name() else {
        let (pattern, name) = (&args.topic, &args.name);
        return Err(Failure::usage(format!(
            "pull reads one topic, and '{pattern}' is a pattern; all that is new of all that match: \
             tidings sub '{pattern}' --as {name} --until-end"
        )));
    };
    let stop = signals::listen()?;
    let printer = Printer::new(context.output.format, args.look.template)?;
    let mut options = SubscriberOptions::durable(args.name, args.from);
    if args.count.is_some() {
        // One answer at a time: hardly more comes than is wanted.
        options.window_bytes = 1;
    }
    options.pass_damage = args.look.pass_damage;
    options.timeout = Some(args.timeout);
    let opening = open(&topic, options, context);
    let Some(subscriber) = stop.run_until_cancelled(opening).await else {
        return Ok(());
    };
    let subscriber = subscriber?;
    let pause = Pause::of(&subscriber, &context.output);
    let mut flow = Flow::new(subscriber, printer, &context.output);
    flow.commits = !args.no_commit;
    flow.moved = Moved::Fail;
    let waits = pause.is_paused() || flow.subscriber.position() >= flow.subscriber.end_offset();
    if let Some(wait) = args.wait.filter(|_| waits) {
        if pause.is_paused() {
            pause.note();
        }
        flow.first_within(wait, &stop).await?;
    }
    let until = Until {
        count: args.count,
        end: Some(flow.subscriber.end_offset()),
    };
    let flowed = tokio::select! {
        biased;
        flowed = flow.run(until, &stop) => flowed,
        // What comes after it is not waited for.
        () = pause.begins() => {
            pause.note();
            flow.commit().await
        }
    };
    flowed?;
    if flow.printed == 0 && !pause.is_paused() {
        context.output.note("nothing new");
    }
    Ok(())
}

impl<'a> Flow<'a> {
    fn new(subscriber: Subscriber, printer: Printer, output: &'a Output) -> Self {
        let position = subscriber.position();
        Self {
            commits: subscriber.subscription().is_some(),
            subscriber,
            printer,
            output,
            written: position,
            committed: position,
            moved: Moved::GoThere,
            printed: 0,
            gave_up: false,
        }
    }

    /// Prints until it is time to stop, then commits, whatever the reason was but a commit that failed.
    async fn run(&mut self, until: Until, stop: &CancellationToken) -> Result {
        let flowed = self.flow(until, stop).await;
        if self.gave_up {
            return flowed;
        }
        let committed = self.commit().await;
        flowed.and(committed)
    }

    /// Waits for something to come, and prints it.
    async fn first_within(&mut self, wait: Duration, stop: &CancellationToken) -> Result {
        tokio::select! {
            biased;
            () = stop.cancelled() => Ok(()),
            first = self.subscriber.next_within(wait) => match first? {
                Some(delivery) => {
                    self.print(&delivery)?;
                    self.flush(self.subscriber.position())
                }
                None => Ok(()),
            },
        }
    }

    async fn flow(&mut self, until: Until, stop: &CancellationToken) -> Result {
        let mut commit_due = Instant::now() + COMMIT_EVERY;
        loop {
            let wanted = match until.wanted(self) {
                0 => return Ok(()),
                wanted => wanted,
            };
            let deliveries = tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                deliveries = self.subscriber.next_many(wanted) => deliveries?,
                () = tokio::time::sleep_until(commit_due), if self.is_dirty() => Vec::new(),
            };
            let (wanted, further) = until.split(&deliveries);
            for delivery in wanted {
                self.print(delivery)?;
            }
            let to = further.first().map_or(self.subscriber.position(), begin_of);
            self.flush(to)?;
            if Instant::now() >= commit_due {
                self.commit().await?;
                commit_due = Instant::now() + COMMIT_EVERY;
            }
        }
    }

    fn print(&mut self, delivery: &Delivery) -> Result {
        match delivery {
            Delivery::Record(record) => {
                self.printed += 1;
                self.printer.print(&Message {
                    topic: self.subscriber.topic(),
                    offset: record.offset,
                    timestamp: record.timestamp,
                    key: record.key.as_deref(),
                    headers: &record.headers,
                    payload: &record.value,
                    delivery: None,
                    expires: None,
                })
            }
            Delivery::Gap(gap) => {
                let (from, to, reason) = (gap.from, gap.to, gap.reason);
                self.output
                    .warn(format!("gap: offsets {from}..{to} are {reason}"));
                Ok(())
            }
        }
    }

    /// Writes out what was printed, which is everything before that offset.
    fn flush(&mut self, to: Offset) -> Result {
        self.printer.flush()?;
        self.written = to;
        Ok(())
    }

    fn is_dirty(&self) -> bool {
        self.commits && self.written != self.committed
    }

    async fn commit(&mut self) -> Result {
        if !self.is_dirty() {
            return Ok(());
        }
        match self.subscriber.commit_to(self.written).await {
            Ok(_) => self.committed = self.written,
            Err(ClientError::Api(ApiError::StaleGeneration { .. }))
                if self.moved == Moved::GoThere =>
            {
                let offset = self.subscriber.reload().await?;
                self.output.warn(format!(
                    "somebody moved the subscription: going on at offset {offset}"
                ));
                (self.written, self.committed) = (offset, offset);
            }
            Err(error) => {
                self.gave_up = true;
                return Err(error.into());
            }
        }
        Ok(())
    }
}

impl Until {
    /// How many more to take at once; 0 when it is time to stop.
    fn wanted(&self, flow: &Flow<'_>) -> usize {
        let left = self.count.map(|count| count.saturating_sub(flow.printed));
        let to_end = self.end.map(|end| end.since(flow.subscriber.position()));
        let wanted = left
            .unwrap_or(u64::MAX)
            .min(to_end.unwrap_or(u64::MAX))
            .min(MESSAGES_AT_ONCE as u64);
        wanted as usize
    }

    /// Parts what came from what lies behind the end: a gap is one of those that were asked for, and may be many offsets.
    fn split<'a>(&self, deliveries: &'a [Delivery]) -> (&'a [Delivery], &'a [Delivery]) {
        let is_before = |end: Offset| deliveries.partition_point(|next| begin_of(next) < end);
        deliveries.split_at(self.end.map_or(deliveries.len(), is_before))
    }
}

fn begin_of(delivery: &Delivery) -> Offset {
    match delivery {
        Delivery::Record(record) => record.offset,
        Delivery::Gap(gap) => gap.from,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Gap, GapReason};

    /// What was published after the end was looked up came along where there was a gap before it.
    #[test]
    fn what_lies_behind_the_end_is_not_wanted() {
        let gap = |from, to| {
            Delivery::Gap(Gap {
                from: Offset::new(from),
                to: Offset::new(to),
                reason: GapReason::Purged,
            })
        };
        let came = [gap(0, 90), gap(90, 95), gap(95, 100), gap(100, 101)];
        for (end, wanted) in [(None, 4), (Some(100), 3), (Some(92), 2), (Some(0), 0)] {
            let end = end.map(Offset::new);
            let until = Until { count: None, end };
            assert_eq!(until.split(&came), came.split_at(wanted), "{end:?}");
        }
    }
}
