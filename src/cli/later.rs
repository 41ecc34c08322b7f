//! `tidings later`: messages that are to be delivered later. They lie in topics that are ordinary in every way.

use std::time::Duration;

use clap::{Args, Subcommand};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use crate::cli::confirm;
use crate::cli::dlq::one_line;
use crate::cli::fail::{Failure, Result};
use crate::cli::group::why_silent;
use crate::cli::message::bytes_entry;
use crate::cli::output::{self, Column, Row, left, right};
use crate::cli::{Context, values};
use crate::limits;
use crate::protocol::api::{LaterChoice, LaterMessage, LaterTopic};
use crate::time::Timestamp;
use crate::types::{Offset, TopicName};

/// Messages that are listed where nobody said how many.
const LISTED: u64 = 100;

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// List messages that are to be delivered later, the earliest first
    #[command(
        visible_alias = "list",
        after_help = "\
Examples:
  tidings later ls
  tidings later ls orders -n 10
  tidings later ls orders -o json

-o json: [{\"topic\",\"offset\",\"deliver_at\",\"id\",\"key\",\"payload\",\"payload_bytes\",\"timestamp\",\"stored_in\"}]; offset is the
one in stored_in that the message was acknowledged with. Of key and payload 256 bytes are shown; where they are not UTF-8
they are in \"key_base64\" and \"payload_base64\" instead"
    )]
    Ls(Ls),
    /// Cancel messages before they are delivered, by their id, their offset, or all of a topic
    #[command(after_help = "\
Examples:
  tidings later cancel orders reminder-17
  tidings later cancel orders --offset 5
  tidings later cancel orders --all --force

-o json: {\"topic\",\"cancelled\"}. One that was delivered or cancelled before, or never there, is the error NotPending")]
    Cancel(Cancel),
}

/// Arguments of `ls`.
#[derive(Debug, Args)]
pub struct Ls {
    /// Only those of this topic
    topic: Option<TopicName>,
    /// At most so many
    #[arg(short = 'n', value_name = "N", value_parser = values::count, default_value_t = LISTED)]
    count: u64,
}

/// Arguments of `cancel`.
#[derive(Debug, Args)]
pub struct Cancel {
    /// The topic they would be delivered to
    topic: TopicName,
    #[command(flatten)]
    which: Which,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
}

/// Which messages.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Which {
    /// The one that was published with this id
    id: Option<String>,
    /// The one that was acknowledged with this offset
    #[arg(long, value_name = "N", value_parser = values::offset)]
    offset: Option<Offset>,
    /// All there are now
    #[arg(long)]
    all: bool,
}

/// A pending message as it is shown.
struct MessageRow(LaterMessage);

/// A text of which only the beginning is there: a character that was cut is left out.
fn beginning(bytes: &[u8]) -> &[u8] {
    match std::str::from_utf8(bytes) {
        Err(error) if error.error_len().is_none() && bytes.len() == limits::DELAYED_SHOWN_BYTES => {
            &bytes[..error.valid_up_to()]
        }
        _ => bytes,
    }
}

impl Serialize for MessageRow {
    fn serialize<S: Serializer>(&self, to: S) -> std::result::Result<S::Ok, S::Error> {
        let message = &self.0;
        let mut map = to.serialize_map(None)?;
        map.serialize_entry("topic", &message.topic)?;
        map.serialize_entry("offset", &message.number)?;
        map.serialize_entry("deliver_at", &format_args!("{}", message.at))?;
        match message.id.as_deref() {
            Some(id) => bytes_entry(&mut map, ("id", "id_base64"), id)?,
            None => map.serialize_entry("id", &None::<()>)?,
        }
        match message.key.as_deref().map(beginning) {
            Some(key) => bytes_entry(&mut map, ("key", "key_base64"), key)?,
            None => map.serialize_entry("key", &None::<()>)?,
        }
        let payload = beginning(&message.payload);
        bytes_entry(&mut map, ("payload", "payload_base64"), payload)?;
        map.serialize_entry("payload_bytes", &message.payload_bytes)?;
        map.serialize_entry("timestamp", &format_args!("{}", message.timestamp))?;
        map.serialize_entry("stored_in", &message.stored_in)?;
        map.end()
    }
}

impl Row for MessageRow {
    const COLUMNS: &'static [Column] = &[
        left("DELIVER AT"),
        right("IN"),
        left("TOPIC"),
        right("OFFSET"),
        left("ID"),
        left("KEY"),
        left("PAYLOAD"),
    ];

    fn name(&self) -> String {
        self.0.number.to_string()
    }

    fn cells(&self) -> Vec<String> {
        let message = &self.0;
        let left = message.at.since(Timestamp::now());
        let text = |bytes: &Vec<u8>| one_line(beginning(bytes));
        vec![
            message.at.to_string(),
            match left.as_secs() {
                0 => "now".to_owned(),
                secs => output::duration(Duration::from_secs(secs)),
            },
            message.topic.to_string(),
            self.name(),
            output::or_dash(message.id.as_ref(), text),
            output::or_dash(message.key.as_ref(), text),
            text(&message.payload),
        ]
    }

    fn card(&self) -> Vec<(&'static str, String)> {
        vec![("offset", self.name())]
    }
}

/// Runs a verb.
pub async fn run(verb: Verb, context: &Context) -> Result {
    match verb {
        Verb::Ls(args) => ls(args, context).await,
        Verb::Cancel(args) => cancel(args, context).await,
    }
}

async fn ls(args: Ls, context: &Context) -> Result {
    let most = usize::try_from(args.count).unwrap_or(usize::MAX);
    let found = match &args.topic {
        Some(topic) => context.client.list_later(topic, most).await?,
        None => context.client.list_all_later(most).await?,
    };
    for (peer, error) in found.silent.iter().filter(|(peer, _)| peer.topics > 0) {
        let (name, why) = (&peer.name, why_silent(peer, error));
        context.output.note(format!(
            "without the delayed messages on {name}, which {why}"
        ));
    }
    for topic in &found.topics {
        if let Some(kept_by) = &topic.kept_by {
            let name = &topic.topic;
            context
                .output
                .note(format!("those for {name} wait: {kept_by}"));
        }
    }
    let pending: u64 = found.topics.iter().map(|topic| topic.pending).sum();
    let rows: Vec<MessageRow> = found.messages.into_iter().map(MessageRow).collect();
    match pending.saturating_sub(rows.len() as u64) {
        _ if rows.is_empty() => context.output.note("no delayed messages"),
        0 => {}
        more => context.output.note(format!(
            "the first {} of {}, {} more with -n {pending}",
            output::number(rows.len() as u64),
            output::count(pending, "delayed message"),
            output::number(more)
        )),
    }
    context.output.list(&rows)
}

async fn cancel(args: Cancel, context: &Context) -> Result {
    let topic = &args.topic;
    let (which, what) = match (args.which.id, args.which.offset) {
        (Some(id), _) => {
            let what = format!("of id {id}");
            (LaterChoice::Id(id.into_bytes()), what)
        }
        (None, Some(offset)) => (LaterChoice::Number(offset), format!("of offset {offset}")),
        (None, None) => {
            confirm_all(topic, args.force, context).await?;
            (LaterChoice::All, String::new())
        }
    };
    let is_all = which == LaterChoice::All;
    let told = context.client.cancel_later(topic, which).await?;
    if told.cancelled == 0 && !is_all {
        return Err(Failure::not_pending(match told.too_late {
            true => format!("the message {what} for {topic} was delivered, or cancelled before"),
            false => format!("no message {what} for {topic} is to be delivered later"),
        }));
    }
    let count = output::count(told.cancelled, "message");
    context
        .output
        .note(format!("cancelled {count} for {topic}"));
    let done = serde_json::json!({ "topic": topic, "cancelled": told.cancelled });
    let name = context.output.name_line(topic);
    context.output.value(&done, &name)
}

async fn confirm_all(topic: &TopicName, force: bool, context: &Context) -> Result {
    let found = context.client.list_later(topic, 0).await?;
    let pending = found.topics.iter().map(|topic| topic.pending).sum();
    let count = output::count(pending, "delayed message");
    confirm::destruction(force, &format!("This cancels {count} for {topic}."))
}

/// What is pending for a topic, if anything is. Where nobody says, nothing is said.
pub async fn pending_of(topic: &TopicName, context: &Context) -> Option<LaterTopic> {
    let found = context.client.list_later(topic, 0).await.ok()?;
    let mut topics = found.topics.into_iter();
    topics.find(|found| found.topic == *topic && found.pending > 0)
}
