//! `tidings subscription`: durable cursors on topics.

pub(super) mod history;
mod row;

use std::time::Duration;

use clap::{Args, Subcommand};

use row::{One, SubscriptionRow};

use crate::cli::Context;
use crate::cli::confirm;
use crate::cli::fail::Result;
use crate::cli::output;
use crate::cli::values;
use crate::protocol::api::{
    CreateSubscription, PeerState, Position, SubscriptionChanges, SubscriptionInfo,
};
use crate::types::{SubscriptionName, TopicName};

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Create a subscription
    #[command(
        visible_alias = "add",
        after_help = "\
Examples:
  tidings subscription create quakes.ci --as map
  tidings subscription create quakes.ci --as audit --from 2h
  tidings subscription create quakes.ci --as dashboard-7 --expire 10m"
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
    /// Change settings of a subscription; 'none' removes one
    #[command(after_help = "\
Examples:
  tidings subscription set quakes.ci map expire=1h
  tidings subscription set quakes.ci map expire=none")]
    Set(Set),
    /// Hand nothing out through a subscription until it is resumed
    #[command(after_help = "\
Examples:
  tidings subscription pause quakes.ci map")]
    Pause(One),
    /// Let a paused subscription go on
    #[command(after_help = "\
Examples:
  tidings subscription resume quakes.ci map")]
    Resume(One),
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
    /// Remove it by itself when nobody uses it for so long [default: never]
    #[arg(long, value_name = "DURATION", value_parser = values::duration)]
    expire: Option<Duration>,
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

/// Arguments of `set`.
#[derive(Debug, Args)]
pub struct Set {
    /// The topic
    topic: TopicName,
    /// Name of the subscription
    name: SubscriptionName,
    /// What to change: expire=DURATION or expire=none
    #[arg(required = true, value_name = "SETTING=VALUE", value_parser = change)]
    changes: Vec<SubscriptionChanges>,
}

/// Parses `SETTING=VALUE`.
fn change(text: &str) -> std::result::Result<SubscriptionChanges, String> {
    let expire = match text.split_once('=') {
        Some(("expire", "none")) => None,
        Some(("expire", value)) => Some(in_millis(values::duration(value)?)),
        _ => return Err("expected expire=DURATION or expire=none".to_owned()),
    };
    Ok(SubscriptionChanges {
        expire_ms: Some(expire),
        ..SubscriptionChanges::default()
    })
}

fn in_millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
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

/// Runs a verb.
pub async fn run(verb: Verb, context: &Context) -> Result {
    match verb {
        Verb::Create(args) => create(args, context).await,
        Verb::Ls(args) => ls(args, context).await,
        Verb::Info(args) => info(args, context).await,
        Verb::Seek(args) => seek(args, context).await,
        Verb::History(args) => history::history(args, context).await,
        Verb::Undo(args) => history::undo(args, context).await,
        Verb::Set(args) => set(args, context).await,
        Verb::Pause(args) => pause(args, true, context).await,
        Verb::Resume(args) => pause(args, false, context).await,
        Verb::Rm(args) => rm(args, context).await,
    }
}

async fn create(args: Create, context: &Context) -> Result {
    let new = CreateSubscription {
        topic: args.topic,
        name: args.name,
        from: args.from,
        if_not_exists: args.if_not_exists,
        expire_ms: args.expire.map(in_millis),
    };
    let info = context.client.make_subscription(&new).await?;
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

async fn set(args: Set, context: &Context) -> Result {
    // Of two for the same setting the last counts.
    let changes = args.changes.last().copied().unwrap_or_default();
    let info = context
        .client
        .set_subscription(&args.topic, &args.name, changes)
        .await?;
    let row = SubscriptionRow::from(info);
    let expires = row
        .expiry()
        .map_or_else(|| "stays".to_owned(), |expiry| format!("expires {expiry}"));
    context
        .output
        .note(format!("subscription {} {expires}", args.name));
    context.output.done_one(&row)
}

async fn pause(args: One, paused: bool, context: &Context) -> Result {
    let changes = SubscriptionChanges {
        paused: Some(paused),
        ..SubscriptionChanges::default()
    };
    let info = context
        .client
        .set_subscription(&args.topic, &args.name, changes)
        .await?;
    context.output.note(match paused {
        true => format!(
            "subscription {} is paused at offset {}",
            args.name, info.committed_offset
        ),
        false => format!(
            "subscription {} goes on from offset {}",
            args.name, info.committed_offset
        ),
    });
    context.output.done_one(&SubscriptionRow::from(info))
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
