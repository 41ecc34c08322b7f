//! `tidings group`: members that share the messages of a topic.

mod options;
mod row;

use clap::{Args, Subcommand};

use crate::cli::Context;
use crate::cli::confirm;
use crate::cli::fail::{Failure, Result};
use crate::cli::output;
use crate::cli::values;
use crate::client::{ClientError, NewGroup};
use crate::protocol::api::{
    ConsumerGroupChanges, ConsumerGroupInfo, PeerInfo, PeerState, Position,
};
use crate::types::{SubscriptionName, TopicName};
pub use options::NewFlags;
use options::OptionFlags;
use row::GroupRow;

/// The fields of `-o json`, for the help of every verb that prints a group.
macro_rules! fields {
    () => {
        "

-o json: {\"topic\",\"name\",\"generation\",\"options\":{\"ack_deadline_ms\",\"max_deliveries\",\"backoff_ms\",
\"max_unacked\",\"ordered_by\",\"dead_letters\"},\"created\",\"start_offset\",\"end_offset\",\"floor\",\"unsettled\",
\"in_flight\",\"failed\",\"dying\",\"lag_seconds\",\"acknowledged\",\"dead\",\"skipped\",\"last_settled\",\"stuck\",
\"members\":[{\"id\",\"client\",\"since\",\"in_flight\"}]}"
    };
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Create a group
    #[command(
        visible_alias = "add",
        after_help = concat!("\
Examples:
  tidings group create orders billing
  tidings group create orders billing --from beginning --ordered-by key --max-deliveries 5 --backoff 1s,10s,1m",
            fields!())
    )]
    Create(Create),
    /// List the groups of a topic, or all
    #[command(
        visible_alias = "list",
        after_help = concat!("\
Examples:
  tidings group ls
  tidings group ls orders -o json", fields!())
    )]
    Ls(Ls),
    /// Show everything about one group, with its members
    #[command(
        visible_alias = "show",
        after_help = concat!("\
Examples:
  tidings group info orders billing", fields!())
    )]
    Info(One),
    /// Change the options of a group; they hold from the next delivery on
    #[command(after_help = concat!("\
Examples:
  tidings group set orders billing --ack-deadline 2m --max-unacked 100
  tidings group set orders billing --max-deliveries 0", fields!()))]
    Set(Set),
    /// Move a group: what is before that place is settled then, everything from there on comes (again)
    #[command(after_help = "\
Examples:
  tidings group seek orders billing --to beginning --dry-run
  tidings group seek orders billing --to 2026-03-01T12:00:00Z
  tidings group seek orders billing --to end

-o json: as of 'group info'; with --dry-run {\"topic\",\"name\",\"from\",\"to\",\"dry_run\"}")]
    Seek(Seek),
    /// Remove a group; its dead letters stay where they are
    #[command(
        visible_alias = "delete",
        after_help = concat!("\
Examples:
  tidings group rm orders billing --force", fields!())
    )]
    Rm(Rm),
}

/// Arguments of `create`.
#[derive(Debug, Args)]
pub struct Create {
    #[command(flatten)]
    group: One,
    /// Where it begins: beginning, end, OFFSET, -N, a duration back from now, or a time
    #[arg(
        long,
        value_name = "PLACE",
        default_value = "end",
        allow_hyphen_values = true
    )]
    #[arg(value_parser = values::position)]
    from: Position,
    /// Accept a group that exists already, as it is
    #[arg(long)]
    if_not_exists: bool,
    #[command(flatten)]
    options: NewFlags,
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
    /// The topic
    topic: TopicName,
    /// Name of the group
    #[arg(value_name = "GROUP")]
    name: SubscriptionName,
}

/// Arguments of `set`.
#[derive(Debug, Args)]
pub struct Set {
    #[command(flatten)]
    group: One,
    #[command(flatten)]
    options: OptionFlags,
}

/// Arguments of `seek`.
#[derive(Debug, Args)]
pub struct Seek {
    #[command(flatten)]
    group: One,
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
    #[command(flatten)]
    group: One,
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
        Verb::Set(args) => set(args, context).await,
        Verb::Seek(args) => seek(args, context).await,
        Verb::Rm(args) => rm(args, context).await,
    }
}

async fn create(args: Create, context: &Context) -> Result {
    let One { topic, name } = &args.group;
    let new = NewGroup {
        from: args.from,
        options: args.options.changes(),
    };
    let created = context
        .client
        .create_group(topic, name, &new, args.if_not_exists);
    let row = GroupRow::from(created.await?);
    let floor = row.floor();
    let note = format!("group {name} on {topic} stands at offset {floor}");
    context.output.note(note);
    context.output.done_one(&row)
}

async fn ls(args: Ls, context: &Context) -> Result {
    let groups = match &args.topic {
        Some(topic) => context.client.list_groups(topic).await?,
        None => list_all(context).await?,
    };
    if groups.is_empty() {
        context.output.note(match &args.topic {
            Some(topic) => format!("no groups: 'tidings group create {topic} NAME' makes one"),
            None => "no groups".to_owned(),
        });
    }
    let mut rows = Vec::new();
    for listed in groups {
        // A list tells no members. Where the group has gone meanwhile, what was listed is good enough.
        let told = context
            .client
            .describe_group(&listed.topic, &listed.name)
            .await;
        rows.push(GroupRow::from(told.unwrap_or(listed)));
    }
    context.output.list(&rows)
}

/// Those of all peers. What a peer that is away would have told is missing, and that is said.
pub async fn list_all(context: &Context) -> Result<Vec<ConsumerGroupInfo>> {
    let (groups, silent) = context.client.list_all_groups().await?;
    for (peer, error) in silent.iter().filter(|(peer, _)| peer.topics > 0) {
        let why = why_silent(peer, error);
        let name = &peer.name;
        context
            .output
            .note(format!("without the groups on {name}, which {why}"));
    }
    Ok(groups)
}

pub(super) fn why_silent(peer: &PeerInfo, error: &ClientError) -> String {
    match peer.state {
        PeerState::Online => format!("does not answer: {error}"),
        state => format!("is {state}"),
    }
}

async fn info(args: One, context: &Context) -> Result {
    let info = context
        .client
        .describe_group(&args.topic, &args.name)
        .await?;
    context.output.one(&GroupRow::from(info))
}

async fn set(args: Set, context: &Context) -> Result {
    let changes = args.options.changes();
    if changes == ConsumerGroupChanges::default() {
        return Err(Failure::usage("no option to change was given")
            .hint("'tidings group set --help' shows them"));
    }
    let One { topic, name } = &args.group;
    let info = context.client.set_group(topic, name, changes).await?;
    context
        .output
        .note(format!("changed group {name} on {topic}"));
    context.output.done_one(&GroupRow::from(info))
}

async fn seek(args: Seek, context: &Context) -> Result {
    let One { topic, name } = &args.group;
    let sought = context
        .client
        .seek_group(topic, name, args.to, args.dry_run);
    let sought = sought.await?;
    let moves = match (args.dry_run, sought.to.cmp(&sought.from)) {
        (true, _) => "would move",
        (false, std::cmp::Ordering::Equal) => "stays",
        (false, _) => "moved",
    };
    let (from, to) = (sought.from, sought.to);
    let left = output::count(sought.group.end_offset.since(to), "message");
    let note = format!("group {name} {moves} from offset {from} to {to}, {left} before the end");
    context.output.note(note);
    match args.dry_run {
        true => {
            let plan = serde_json::json!({
                "topic": topic,
                "name": name,
                "from": from,
                "to": to,
                "dry_run": true,
            });
            let line = context.output.name_line(name);
            context.output.value(&plan, &line)
        }
        false => context.output.done_one(&GroupRow::from(sought.group)),
    }
}

async fn rm(args: Rm, context: &Context) -> Result {
    let One { topic, name } = &args.group;
    let info = context.client.describe_group(topic, name).await?;
    confirm::destruction(
        args.force,
        &format!(
            "This removes group {name} on {topic}, which has {} and {} unsettled.",
            output::count(info.members.len() as u64, "member"),
            output::count(info.unsettled, "message"),
        ),
    )?;
    context.client.delete_group(topic, name).await?;
    context
        .output
        .note(format!("removed group {name} from {topic}"));
    context.output.done_one(&GroupRow::from(info))
}
