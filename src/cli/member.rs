//! `tidings sub --group`: messages of a topic that members share, onto stdout.
//!
//! A message is acknowledged when it has been written out, not before: whatever
//! happens in between, it is shown again, here or at another member.

use std::time::Duration;

use clap::Args;
use tokio_util::sync::CancellationToken;

use crate::cli::fail::{Failure, Result};
use crate::cli::group::NewFlags;
use crate::cli::message::{Message, Printer};
use crate::cli::output::{self, Output};
use crate::cli::subscribe::Absence;
use crate::cli::{Context, signals};
use crate::client::{
    ClientError, Member, MemberDelivery, MemberOptions, Missed, NewGroup, NotSettled,
};
use crate::limits;
use crate::protocol::api::Position;
use crate::protocol::error::ApiError;
use crate::types::{SubscriptionName, TopicName};

/// Messages taken at once, before what was printed is written out.
const MESSAGES_AT_ONCE: usize = 4096;
/// Nothing came for so long: time to ask whether anything is unsettled, and to tell what did not count.
const IDLE: Duration = Duration::from_millis(100);

/// Flags of `sub` about groups.
#[derive(Debug, Args)]
pub struct GroupFlags {
    /// Share the topic with the other members of this group: each message goes to one of them. It is acknowledged
    /// when it was printed. The group is made if it does not exist; then --from and the options of a group count
    #[arg(long, value_name = "NAME", conflicts_with_all = ["name", "pass_damage"])]
    pub group: Option<SubscriptionName>,
    #[command(flatten)]
    options: NewFlags,
}

impl GroupFlags {
    /// Refuses options of a group where there is none.
    pub fn check(&self) -> Result {
        match (&self.group, self.options.first_given()) {
            (None, Some(flag)) => Err(Failure::usage(format!(
                "{flag} is for a group: give --group NAME as well"
            ))),
            _ => Ok(()),
        }
    }
}

/// What `sub` was asked for beside.
pub struct Wanted {
    /// The topic.
    pub topic: TopicName,
    /// Where the group begins if it is made.
    pub from: Option<Position>,
    /// Stop after so many messages.
    pub count: Option<u64>,
    /// Stop when nothing is unsettled.
    pub until_end: bool,
    /// How long the peer may be away.
    pub timeout: Duration,
    /// Prints them.
    pub printer: Printer,
}

/// Runs `sub --group`.
pub async fn sub(
    wanted: Wanted,
    name: SubscriptionName,
    flags: &GroupFlags,
    context: &Context,
) -> Result {
    let stop = signals::listen()?;
    let buffer = limits::MEMBER_BUFFER_RECORDS_DEFAULT as u64;
    let buffer = wanted.count.map_or(buffer, |count| count.min(buffer));
    let joining = async {
        let options = MemberOptions {
            create: new_group(&wanted, &name, flags, context).await?,
            buffer_records: buffer as usize,
            // Whoever reads what is printed may be slow; the deadline is for those who work on it.
            keep: true,
            timeout: Some(wanted.timeout),
            ..MemberOptions::default()
        };
        let client = &context.client;
        let member = client.join_group(&wanted.topic, &name, options).await?;
        Ok::<_, Failure>(member)
    };
    let Some(member) = stop.run_until_cancelled(joining).await else {
        return Ok(());
    };
    let member = member?;
    let absence = Absence::new(member.watch_absence(), &context.output, wanted.timeout);
    let mut flow = Flow {
        member,
        wanted,
        context,
        printed: 0,
    };
    let flowed = tokio::select! {
        flowed = flow.run(&stop) => flowed,
        never = absence.tell() => match never {},
    };
    absence.tell_end();
    let left = flow.member.leave().await;
    flowed?;
    tell(&left?, &context.output);
    Ok(())
}

/// How to make the group, if it does not exist. What happens to the flags about that is said, because it would surprise
/// otherwise.
async fn new_group(
    wanted: &Wanted,
    name: &SubscriptionName,
    flags: &GroupFlags,
    context: &Context,
) -> Result<Option<NewGroup>> {
    let output = &context.output;
    match context.client.describe_group(&wanted.topic, name).await {
        Ok(found) => {
            let given = flags
                .options
                .first_given()
                .or(wanted.from.map(|_| "--from"));
            if let Some(flag) = given {
                output.note(format!(
                    "group {name} exists and goes on at offset {}, {flag} does nothing; \
                     'tidings group seek' moves it, 'tidings group set' changes its options",
                    found.floor
                ));
            }
            Ok(None)
        }
        Err(ClientError::Api(ApiError::ConsumerGroupNotFound { .. })) => {
            let from = wanted.from.unwrap_or(Position::End);
            let place = match from {
                Position::End => "at the end",
                _ => "where --from says",
            };
            output.note(format!("group {name} is new, it begins {place}"));
            let options = flags.options.changes();
            Ok(Some(NewGroup { from, options }))
        }
        Err(error) => Err(error.into()),
    }
}

/// Messages on their way from a member to stdout.
struct Flow<'a> {
    member: Member,
    wanted: Wanted,
    context: &'a Context,
    printed: u64,
}

impl Flow<'_> {
    async fn run(&mut self, stop: &CancellationToken) -> Result {
        loop {
            let most = match self.wanted.count {
                Some(count) => count
                    .saturating_sub(self.printed)
                    .min(MESSAGES_AT_ONCE as u64),
                None => MESSAGES_AT_ONCE as u64,
            };
            if most == 0 {
                return Ok(());
            }
            let given = tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                given = self.member.next_many(most as usize) => given?,
                () = tokio::time::sleep(IDLE) => {
                    if self.is_over(stop).await? {
                        return Ok(());
                    }
                    continue;
                }
            };
            self.print(&given)?;
        }
    }

    fn print(&mut self, given: &[MemberDelivery]) -> Result {
        for MemberDelivery {
            record, delivery, ..
        } in given
        {
            self.wanted.printer.print(&Message {
                topic: &self.wanted.topic,
                offset: record.offset,
                timestamp: record.timestamp,
                key: record.key.as_deref(),
                headers: &record.headers,
                payload: &record.value,
                delivery: Some(*delivery),
                expires: None,
            })?;
        }
        self.wanted.printer.flush()?;
        for given in given {
            self.member.ack(given);
        }
        self.printed += given.len() as u64;
        Ok(())
    }

    /// Tells what did not count so far, and whether there is nothing more to wait for.
    async fn is_over(&self, stop: &CancellationToken) -> Result<bool> {
        let settled = tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(true),
            settled = self.member.settle() => settled?,
        };
        tell(&settled, &self.context.output);
        if !self.wanted.until_end {
            return Ok(false);
        }
        let client = &self.context.client;
        match client
            .describe_group(&self.wanted.topic, self.member.group())
            .await
        {
            Ok(group) => Ok(group.unsettled == 0),
            // The member waits for the peer, as long as --timeout says.
            Err(error) if error.is_retryable() => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

/// Names what was printed and comes again, or may.
fn tell(not_settled: &[NotSettled], output: &Output) {
    for not in not_settled.iter().filter(|not| !not.why.is_settled()) {
        let (first, count) = (not.first, not.count);
        let end = first.saturating_add(count.into());
        let why = match not.why {
            Missed::Unknown => "it is not known whether they are settled: they may come again",
            Missed::NotHeld(_) | Missed::Over => "they were not held any more, and come again",
        };
        let printed = output::count(count.into(), "message");
        output.warn(format!("{printed} printed, offsets {first}..{end}: {why}"));
    }
}
