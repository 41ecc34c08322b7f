//! `tidings subscription`: durable cursors on topics.

use clap::{Args, Subcommand};
use serde::Serialize;

use crate::cli::Context;
use crate::cli::confirm;
use crate::cli::fail::Result;
use crate::cli::history;
use crate::cli::output::{self, Column, Row, left, right};
use crate::cli::values;
use crate::protocol::api::{PeerState, Position, SubscriptionInfo};
use crate::time::Timestamp;
use crate::types::{Generation, Offset, SubscriptionName, TopicName};

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Create a subscription
    #[command(
        visible_alias = "add",
        after_help = "\
Examples:
  tidings subscription create quakes.ci --as map
  tidings subscription create quakes.ci --as audit --from 2h"
    )]
    Create(Create),
    /// List the subscriptions of a topic, or all
    #[command(
        visible_alias = "list",
        after_help = "\
Examples:
  tidings subscription ls
  tidings subscription ls quakes.ci -o json"
    )]
    Ls(Ls),
    /// Show everything about one subscription
    #[command(
        visible_alias = "show",
        after_help = "\
Examples:
  tidings subscription info quakes.ci map"
    )]
    Info(One),
    /// Move a subscription to another place in its topic
    #[command(after_help = "\
Examples:
  tidings subscription seek quakes.ci map --to beginning --dry-run
  tidings subscription seek quakes.ci map --to -100
  tidings subscription seek quakes.ci map --to 2026-03-01T12:00:00Z")]
    Seek(Seek),
    /// Show what moved a subscription, other than commits: when, who, from where to where
    #[command(after_help = "\
Examples:
  tidings subscription history quakes.ci map
  tidings subscription history quakes.ci map -o json")]
    History(One),
    /// Go back to where a subscription stood before it was last moved
    #[command(after_help = "\
Examples:
  tidings subscription undo quakes.ci map --dry-run
  tidings subscription undo quakes.ci map

An undo moves the subscription too, so a second one takes the first back.")]
    Undo(history::Undo),
    /// Remove a subscription
    #[command(
        visible_alias = "delete",
        after_help = "\
Examples:
  tidings subscription rm quakes.ci map --force"
    )]
    Rm(Rm),
}

/// Arguments of `create`.
#[derive(Debug, Args)]
pub struct Create {
    /// The topic
    topic: TopicName,
    /// Name of the subscription
    #[arg(long = "as", value_name = "NAME")]
    name: SubscriptionName,
    /// Where it begins: beginning, end, OFFSET, -N, a duration back from now, or a time
    #[arg(
        long,
        value_name = "PLACE",
        default_value = "end",
        allow_hyphen_values = true
    )]
    #[arg(value_parser = values::position)]
    from: Position,
    /// Accept a subscription that exists already
    #[arg(long)]
    if_not_exists: bool,
}

/// Arguments of `ls`.
#[derive(Debug, Args)]
pub struct Ls {
    /// Only those of this topic
    topic: Option<TopicName>,
}

/// One subscription.
#[derive(Debug, Args)]
pub struct One {
    /// The topic
    pub(super) topic: TopicName,
    /// Name of the subscription
    pub(super) name: SubscriptionName,
}

/// Arguments of `seek`.
#[derive(Debug, Args)]
pub struct Seek {
    /// The topic
    topic: TopicName,
    /// Name of the subscription
    name: SubscriptionName,
    /// Where to: beginning, end, OFFSET, -N, a duration back from now, or a time
    #[arg(long, value_name = "PLACE", allow_hyphen_values = true)]
    #[arg(value_parser = values::position)]
    to: Position,
    /// Only tell what would happen
    #[arg(long)]
    dry_run: bool,
}

/// Arguments of `rm`.
#[derive(Debug, Args)]
pub struct Rm {
    /// The topic
    topic: TopicName,
    /// Name of the subscription
    name: SubscriptionName,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
}

/// A subscription as it is shown.
#[derive(Debug, Serialize)]
pub(super) struct SubscriptionRow {
    topic: TopicName,
    name: SubscriptionName,
    committed_offset: Offset,
    start_offset: Offset,
    end_offset: Offset,
    lag_records: u64,
    lag_seconds: f64,
    generation: Generation,
    #[serde(serialize_with = "output::as_text")]
    created: Timestamp,
    #[serde(serialize_with = "output::as_text_or_null")]
    last_commit: Option<Timestamp>,
}

impl From<SubscriptionInfo> for SubscriptionRow {
    fn from(info: SubscriptionInfo) -> Self {
        Self {
            lag_records: info.end_offset.since(info.committed_offset),
            lag_seconds: info.lag_ms as f64 / 1000.0,
            topic: info.topic,
            name: info.name,
            committed_offset: info.committed_offset,
            start_offset: info.start_offset,
            end_offset: info.end_offset,
            generation: info.generation,
            created: info.created,
            last_commit: info.last_commit,
        }
    }
}

impl SubscriptionRow {
    fn lag_time(&self) -> String {
        match self.lag_records {
            0 => "-".to_owned(),
            _ => output::duration(std::time::Duration::from_secs_f64(self.lag_seconds)),
        }
    }
}

impl Row for SubscriptionRow {
    const COLUMNS: &'static [Column] = &[
        left("TOPIC"),
        left("NAME"),
        right("COMMITTED"),
        right("END"),
        right("LAG"),
        right("BEHIND"),
        left("LAST COMMIT"),
    ];

    fn name(&self) -> String {
        self.name.to_string()
    }

    fn cells(&self) -> Vec<String> {
        vec![
            self.topic.to_string(),
            self.name(),
            self.committed_offset.to_string(),
            self.end_offset.to_string(),
            output::number(self.lag_records),
            self.lag_time(),
            self.last_commit
                .map_or_else(|| "never".to_owned(), output::ago),
        ]
    }

    fn card(&self) -> Vec<(&'static str, String)> {
        let with_age = |time: Timestamp| format!("{time} ({})", output::ago(time));
        vec![
            ("topic", self.topic.to_string()),
            ("name", self.name()),
            ("committed", format!("offset {}", self.committed_offset)),
            (
                "topic holds",
                format!("{}..{}", self.start_offset, self.end_offset),
            ),
            ("lag", output::count(self.lag_records, "message")),
            ("behind", self.lag_time()),
            ("generation", self.generation.to_string()),
            ("created", with_age(self.created)),
            (
                "last commit",
                self.last_commit
                    .map_or_else(|| "never".to_owned(), with_age),
            ),
        ]
    }
}

/// Runs a verb.
pub async fn run(verb: Verb, context: &Context) -> Result {
    match verb {
        Verb::Create(args) => create(args, context).await,
        Verb::Ls(args) => ls(args, context).await,
        Verb::Info(args) => info(args, context).await,
        Verb::Seek(args) => seek(args, context).await,
        Verb::History(args) => history::history(args, context).await,
        Verb::Undo(args) => history::undo(args, context).await,
        Verb::Rm(args) => rm(args, context).await,
    }
}

async fn create(args: Create, context: &Context) -> Result {
    let info = context
        .client
        .create_subscription(&args.topic, &args.name, args.from, args.if_not_exists)
        .await?;
    context.output.note(format!(
        "subscription {} on {} stands at offset {}",
        info.name, info.topic, info.committed_offset
    ));
    context.output.done_one(&SubscriptionRow::from(info))
}

async fn ls(args: Ls, context: &Context) -> Result {
    let infos = match &args.topic {
        Some(topic) => context.client.list_subscriptions(topic).await?,
        None => list_all(context).await?,
    };
    if infos.is_empty() {
        context.output.note(match &args.topic {
            Some(topic) => format!(
                "no subscriptions: 'tidings subscription create {topic} --as NAME' makes one"
            ),
            None => "no subscriptions".to_owned(),
        });
    }
    let rows: Vec<_> = infos.into_iter().map(SubscriptionRow::from).collect();
    context.output.list(&rows)
}

/// Those of all peers. What a peer that is away would have told is missing, and that is said.
async fn list_all(context: &Context) -> Result<Vec<SubscriptionInfo>> {
    let (infos, silent) = context.client.list_all_subscriptions().await?;
    for (peer, error) in silent.iter().filter(|(peer, _)| peer.topics > 0) {
        let why = match peer.state {
            PeerState::Online => format!("does not answer: {error}"),
            state => format!("is {state}"),
        };
        let name = &peer.name;
        context
            .output
            .note(format!("without the subscriptions on {name}, which {why}"));
    }
    Ok(infos)
}

async fn info(args: One, context: &Context) -> Result {
    let info = context
        .client
        .describe_subscription(&args.topic, &args.name)
        .await?;
    context.output.one(&SubscriptionRow::from(info))
}

async fn seek(args: Seek, context: &Context) -> Result {
    let sought = context
        .client
        .seek_subscription(&args.topic, &args.name, args.to, args.dry_run)
        .await?;
    let moves = match (args.dry_run, sought.to.cmp(&sought.from)) {
        (true, _) => "would move",
        (false, std::cmp::Ordering::Equal) => "stays",
        (false, _) => "moved",
    };
    let lag = sought.subscription.end_offset.since(sought.to);
    context.output.note(format!(
        "{} {moves} from offset {} to {}, {} before the end",
        args.name,
        sought.from,
        sought.to,
        output::count(lag, "message")
    ));
    let row = SubscriptionRow::from(sought.subscription);
    match args.dry_run {
        true => {
            let plan = serde_json::json!({
                "topic": args.topic,
                "name": args.name,
                "from": sought.from,
                "to": sought.to,
                "dry_run": true,
            });
            context
                .output
                .value(&plan, &context.output.name_line(&args.name))
        }
        false => context.output.done_one(&row),
    }
}

async fn rm(args: Rm, context: &Context) -> Result {
    let info = context
        .client
        .describe_subscription(&args.topic, &args.name)
        .await?;
    confirm::destruction(
        args.force,
        &format!(
            "This removes subscription {} on {}, which stands at offset {}.",
            info.name, info.topic, info.committed_offset
        ),
    )?;
    context
        .client
        .delete_subscription(&args.topic, &args.name)
        .await?;
    context.output.note(format!(
        "removed subscription {} from {}",
        args.name, args.topic
    ));
    context.output.done_one(&SubscriptionRow::from(info))
}
