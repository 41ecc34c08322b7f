//! `tidings dlq`: dead letters of groups. They lie in topics that are ordinary in every way.

use clap::{Args, Subcommand};
use serde::Serialize;

use crate::cli::confirm;
use crate::cli::fail::{Failure, Result};
use crate::cli::message::Message;
use crate::cli::output::{self, Column, Format, Row, left, right};
use crate::cli::{Context, group, values};
use crate::client::{ClientError, Delivery, ReceivedRecord, SubscriberOptions};
use crate::protocol::api::{ConsumerGroupInfo, Position, TopicInfo};
use crate::protocol::dead::Obituary;
use crate::protocol::error::ApiError;
use crate::time::Timestamp;
use crate::types::{Offset, SubscriptionName, TopicName};

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// List the groups that have dead letters
    #[command(
        visible_alias = "list",
        after_help = "\
Examples:
  tidings dlq ls
  tidings dlq ls orders -o json

-o json: [{\"topic\",\"group\",\"dead_letters\",\"messages\",\"since\"}], where dead_letters is the topic they lie in"
    )]
    Ls(Ls),
    /// Print the dead letters of a group, the oldest first, with the reason, how often they were delivered, and their origin
    #[command(after_help = "\
Examples:
  tidings dlq show orders billing
  tidings dlq show orders billing -n 1 -o json

-o json: one object a line, {\"topic\",\"offset\",\"timestamp\",\"key\",\"headers\",\"payload\",\"died\",\"reason\",\"deliveries\",
\"origin_topic\",\"origin_offset\",\"group\"}; topic and offset are where it lies now")]
    Show(Show),
    /// Publish the oldest dead letters again where they came from, and remove them here, in one durable step
    #[command(after_help = "\
Examples:
  tidings dlq replay orders billing -n 1
  tidings dlq replay orders billing --all --dry-run

-o json: {\"topic\",\"group\",\"dead_letters\",\"replayed\",\"left\"}; with --dry-run also \"dry_run\"")]
    Replay(Replay),
    /// Discard the oldest dead letters of a group
    #[command(after_help = "\
Examples:
  tidings dlq drop orders billing -n 10
  tidings dlq drop orders billing --all --force

-o json: {\"topic\",\"group\",\"dead_letters\",\"dropped\",\"left\"}; with --dry-run also \"dry_run\"")]
    Drop(Drop),
}

/// Arguments of `ls`.
#[derive(Debug, Args)]
pub struct Ls {
    /// Only those of this topic
    topic: Option<TopicName>,
}

/// One group.
#[derive(Debug, Args)]
pub struct One {
    /// The topic of the group
    topic: TopicName,
    /// Name of the group
    #[arg(value_name = "GROUP")]
    name: SubscriptionName,
}

/// Arguments of `show`.
#[derive(Debug, Args)]
pub struct Show {
    #[command(flatten)]
    group: One,
    /// At most so many
    #[arg(short = 'n', value_name = "N", value_parser = values::count)]
    count: Option<u64>,
}

/// How many.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct HowMany {
    /// The oldest so many
    #[arg(short = 'n', value_name = "N", value_parser = values::count)]
    count: Option<u64>,
    /// All there are now
    #[arg(long)]
    all: bool,
}

/// Arguments of `replay`.
#[derive(Debug, Args)]
pub struct Replay {
    #[command(flatten)]
    group: One,
    #[command(flatten)]
    how_many: HowMany,
    /// Only tell what would happen
    #[arg(long)]
    dry_run: bool,
}

/// Arguments of `drop`.
#[derive(Debug, Args)]
pub struct Drop {
    #[command(flatten)]
    group: One,
    #[command(flatten)]
    how_many: HowMany,
    /// Only tell what would happen
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
}

/// The dead letters of one group, as they are listed.
#[derive(Debug, Serialize)]
struct LettersRow {
    topic: TopicName,
    group: SubscriptionName,
    dead_letters: TopicName,
    messages: u64,
    #[serde(serialize_with = "output::as_text_or_null")]
    since: Option<Timestamp>,
}

impl Row for LettersRow {
    const COLUMNS: &'static [Column] = &[
        left("TOPIC"),
        left("GROUP"),
        left("DEAD LETTERS IN"),
        right("MESSAGES"),
        left("NEWEST"),
    ];

    fn name(&self) -> String {
        self.group.to_string()
    }

    fn cells(&self) -> Vec<String> {
        vec![
            self.topic.to_string(),
            self.name(),
            self.dead_letters.to_string(),
            output::number(self.messages),
            output::or_dash(self.since, output::ago),
        ]
    }

    fn card(&self) -> Vec<(&'static str, String)> {
        vec![
            ("topic", self.topic.to_string()),
            ("group", self.name()),
            ("dead letters in", self.dead_letters.to_string()),
            ("messages", output::number(self.messages)),
        ]
    }
}

/// A dead letter as it is shown. Somebody may have published something else there: of that nothing is known.
#[derive(Debug, Serialize)]
struct LetterRow<'a> {
    #[serde(flatten)]
    message: Message<'a>,
    #[serde(serialize_with = "output::as_text_or_null")]
    died: Option<Timestamp>,
    reason: Option<&'a str>,
    deliveries: Option<u32>,
    origin_topic: Option<&'a TopicName>,
    origin_offset: Option<Offset>,
    group: Option<&'a SubscriptionName>,
}

impl Row for LetterRow<'_> {
    const COLUMNS: &'static [Column] = &[
        right("OFFSET"),
        left("CAME FROM"),
        right("DELIVERIES"),
        left("DIED"),
        left("REASON"),
        left("KEY"),
        left("PAYLOAD"),
    ];

    fn name(&self) -> String {
        self.message.offset.to_string()
    }

    fn cells(&self) -> Vec<String> {
        let origin = self.origin_topic.map_or_else(
            || "?".to_owned(),
            |topic| {
                format!(
                    "{topic} {}",
                    output::or_dash(self.origin_offset, |offset| offset.to_string())
                )
            },
        );
        vec![
            self.name(),
            origin,
            output::or_dash(self.deliveries, |deliveries| deliveries.to_string()),
            output::or_dash(self.died, output::ago),
            one_line(self.reason.unwrap_or("-").as_bytes()),
            output::or_dash(self.message.key, one_line),
            one_line(self.message.payload),
        ]
    }

    fn card(&self) -> Vec<(&'static str, String)> {
        vec![("offset", self.name())]
    }
}

/// Longest text in a cell, in characters.
const CELL_CHARS_MAX: usize = 60;

/// What fits into a cell, with nothing that steers a terminal.
pub(super) fn one_line(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut line: String = text
        .chars()
        .take(CELL_CHARS_MAX)
        .flat_map(|character| {
            let shown: Vec<char> = match character.is_control() {
                true => character.escape_default().collect(),
                false => vec![character],
            };
            shown
        })
        .collect();
    if text.chars().nth(CELL_CHARS_MAX).is_some() {
        line.push('…');
    }
    line
}

/// Runs a verb.
pub async fn run(verb: Verb, context: &Context) -> Result {
    match verb {
        Verb::Ls(args) => ls(args, context).await,
        Verb::Show(args) => show(args, context).await,
        Verb::Replay(args) => replay(args, context).await,
        Verb::Drop(args) => discard(args, context).await,
    }
}

async fn ls(args: Ls, context: &Context) -> Result {
    let groups = match &args.topic {
        Some(topic) => context.client.list_groups(topic).await?,
        None => group::list_all(context).await?,
    };
    let mut rows = Vec::new();
    for group in groups {
        // Whoever never buried anything is not looked after.
        let letters = match group.dead {
            0 => None,
            _ => letters_of(&group, context).await?,
        };
        if let Some(letters) = letters.filter(|letters| letters.start_offset < letters.end_offset) {
            rows.push(LettersRow {
                topic: group.topic,
                group: group.name,
                messages: letters.end_offset.since(letters.start_offset),
                since: letters.last_append,
                dead_letters: letters.name,
            });
        }
    }
    if rows.is_empty() {
        context.output.note("no dead letters");
    }
    context.output.list(&rows)
}

/// The dead-letter topic of a group, if it is there.
async fn letters_of(group: &ConsumerGroupInfo, context: &Context) -> Result<Option<TopicInfo>> {
    let name = &group.options.dead_letters;
    match context
        .client
        .describe_topic(name)
        .await
        .and_then(|report| report.info)
    {
        Ok(info) => Ok(Some(info)),
        Err(ClientError::Api(ApiError::TopicNotFound { .. })) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Dead letters of a group that something is to be done with.
struct Chosen {
    topic: TopicName,
    group: SubscriptionName,
    dead_letters: TopicName,
    start: Offset,
    before: Offset,
    end: Offset,
}

impl Chosen {
    async fn find(group: One, count: Option<u64>, context: &Context) -> Result<Self> {
        let info = context
            .client
            .describe_group(&group.topic, &group.name)
            .await?;
        let letters = letters_of(&info, context).await?;
        let (start, end) = letters.map_or((Offset::ZERO, Offset::ZERO), |letters| {
            (letters.start_offset, letters.end_offset)
        });
        Ok(Self {
            topic: info.topic,
            group: info.name,
            dead_letters: info.options.dead_letters,
            start,
            before: count.map_or(end, |count| end.min(start.saturating_add(count))),
            end,
        })
    }

    fn count(&self) -> u64 {
        self.before.since(self.start)
    }

    fn left(&self) -> u64 {
        self.end.since(self.before)
    }

    /// Prints what was done with so many, or would be.
    fn tell(&self, what: &str, count: u64, dry_run: bool, context: &Context) -> Result {
        let mut told = serde_json::json!({
            "topic": self.topic,
            "group": self.group,
            "dead_letters": self.dead_letters,
            (what): count,
            "left": self.left(),
        });
        if dry_run {
            told["dry_run"] = true.into();
        }
        let line = context.output.name_line(&self.group);
        context.output.value(&told, &line)
    }
}

async fn show(args: Show, context: &Context) -> Result {
    if context.output.format == Format::Name {
        return Err(Failure::usage("messages have no names: use '-o json'"));
    }
    let chosen = Chosen::find(args.group, args.count, context).await?;
    if chosen.count() == 0 {
        let (topic, group) = (&chosen.topic, &chosen.group);
        context
            .output
            .note(format!("no dead letters of group {group} on {topic}"));
        return Ok(());
    }
    let options = SubscriberOptions::passing(Position::Offset(chosen.start));
    let mut subscriber = context
        .client
        .subscriber(&chosen.dead_letters, options)
        .await?;
    while subscriber.position() < chosen.before {
        let wanted = chosen
            .before
            .since(subscriber.position())
            .min(LETTERS_AT_ONCE);
        let mut records = Vec::new();
        for delivery in subscriber.next_many(wanted as usize).await? {
            match delivery {
                Delivery::Record(record) => records.push(record),
                Delivery::Gap(gap) => {
                    let (from, to, reason) = (gap.from, gap.to, gap.reason);
                    context
                        .output
                        .warn(format!("gap: offsets {from}..{to} are {reason}"));
                }
            }
        }
        print(&chosen.dead_letters, &records, context)?;
    }
    Ok(())
}

/// Dead letters in one table.
const LETTERS_AT_ONCE: u64 = 1000;

fn print(topic: &TopicName, records: &[ReceivedRecord], context: &Context) -> Result {
    let letters: Vec<Option<Obituary>> = records.iter().map(obituary).collect();
    let rows = records
        .iter()
        .zip(&letters)
        .map(|(record, letter)| LetterRow {
            message: Message {
                topic,
                offset: record.offset,
                timestamp: record.timestamp,
                key: record.key.as_deref(),
                headers: &record.headers,
                payload: &record.value,
                delivery: None,
                expires: None,
            },
            died: letter.as_ref().map(|letter| letter.time),
            reason: letter.as_ref().map(|letter| letter.reason.as_str()),
            deliveries: letter.as_ref().map(|letter| letter.deliveries),
            origin_topic: letter.as_ref().map(|letter| &letter.topic),
            origin_offset: letter.as_ref().map(|letter| letter.offset),
            group: letter.as_ref().map(|letter| &letter.group),
        });
    let mut text = String::new();
    match context.output.format {
        Format::Json => rows.for_each(|row| {
            text += &serde_json::to_string(&row).expect("our own types always encode");
            text.push('\n');
        }),
        Format::Yaml => rows.for_each(|row| {
            text += "---\n";
            text += &serde_yaml_ng::to_string(&row).expect("our own types always encode");
        }),
        _ => return context.output.list(&rows.collect::<Vec<_>>()),
    }
    context.output.raw(text.as_bytes())
}

fn obituary(record: &ReceivedRecord) -> Option<Obituary> {
    let headers = record.headers.iter();
    Obituary::of(headers.map(|header| (header.name.as_str(), &header.value[..])))
}

async fn replay(args: Replay, context: &Context) -> Result {
    let chosen = Chosen::find(args.group, args.how_many.count, context).await?;
    let topic = &chosen.topic;
    if args.dry_run {
        let count = chosen.count();
        let letters = output::count(count, "dead letter");
        context
            .output
            .note(format!("would publish {letters} to {topic} again"));
        return chosen.tell("replayed", count, true, context);
    }
    let (mut next, mut replayed) = (chosen.start, 0);
    while next < chosen.before {
        let step = context
            .client
            .replay_dead_letters(&chosen.dead_letters, chosen.before)
            .await?;
        replayed += step.replayed;
        if step.next <= next {
            return Err(Failure::server(format!(
                "the peer replayed nothing of {} from offset {next} on",
                chosen.dead_letters
            )));
        }
        next = step.next;
    }
    let letters = output::count(replayed, "dead letter");
    let left = output::number(chosen.left());
    context
        .output
        .note(format!("published {letters} to {topic} again, {left} left"));
    chosen.tell("replayed", replayed, false, context)
}

async fn discard(args: Drop, context: &Context) -> Result {
    let chosen = Chosen::find(args.group, args.how_many.count, context).await?;
    let (count, topic, group) = (chosen.count(), &chosen.topic, &chosen.group);
    let letters = output::count(count, "dead letter");
    if args.dry_run {
        context.output.note(format!(
            "would discard {letters} of group {group} on {topic}"
        ));
        return chosen.tell("dropped", count, true, context);
    }
    if count > 0 {
        confirm::destruction(
            args.force,
            &format!("This discards {letters} of group {group} on {topic}."),
        )?;
        let before = Position::Offset(chosen.before);
        context
            .client
            .purge_topic(&chosen.dead_letters, before)
            .await?;
    }
    let left = output::number(chosen.left());
    context.output.note(format!(
        "discarded {letters} of group {group} on {topic}, {left} left"
    ));
    chosen.tell("dropped", count, false, context)
}
