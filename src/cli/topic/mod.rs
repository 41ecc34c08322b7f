//! `tidings topic`: topics as people see them.
//!
//! What is shown of a topic comes from two places: the index knows who hosts it
//! and whether that peer can be reached, the host knows everything else. When
//! the host does not answer, the index's part is shown and the rest is `null`
//! (`-` in tables), because an absent peer must not hide its topics.
//!
//! A topic whose name belongs to another one (a peer came back after its name
//! was taken) is in *conflict*: it is listed with that state, and the name leads
//! to the other one everywhere. `--on PEER` says which of the two is meant.

mod row;
mod settings;

use std::collections::BTreeMap;

use clap::{Args, Subcommand};

use crate::cli::Context;
use crate::cli::confirm;
use crate::cli::fail::Result;
use crate::cli::later;
use crate::cli::output::{self, Format};
use crate::cli::values;
use crate::client::{ClientError, NewTopic, TopicReport};
use crate::protocol::api::{PeerState, Position};
use crate::protocol::error::ApiError;
use crate::types::{PeerName, TopicName, TopicPattern};
use row::{TopicRow, retention_text};
pub use settings::options;
use settings::{Change, SettingsFlags, change, merged};

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Create topics
    #[command(
        visible_alias = "add",
        after_help = "\
Examples:
  tidings topic create quakes.ci quakes.nc
  tidings topic create metrics --durability os --retain-age 7d --retain-bytes 10GiB
  tidings topic create jobs --retain-interest --retain-records 100000 --when-full refuse
  tidings topic create prices --compact --tombstone-age 7d
  tidings topic create quakes.ak --on peer-2 --if-not-exists"
    )]
    Create(Create),
    /// List topics
    #[command(
        visible_alias = "list",
        after_help = "\
Examples:
  tidings topic ls
  tidings topic ls 'quakes.*' -o json"
    )]
    Ls(Ls),
    /// Show everything about one topic
    #[command(
        visible_alias = "show",
        after_help = "\
Examples:
  tidings topic info quakes.ci
  tidings topic info quakes.ci -o json
  tidings topic info quakes.ci --on peer-2          what that peer stores under the name"
    )]
    Info(One),
    /// Change settings of a topic; 'none' removes a bound
    #[command(after_help = "\
Examples:
  tidings topic set quakes.ci retain-age=30d
  tidings topic set quakes.ci durability=os retain-bytes=none
  tidings topic set jobs retain-interest=on when-full=refuse")]
    Set(Set),
    /// Give a topic another name
    #[command(after_help = "\
Examples:
  tidings topic rename quakes.ci quakes.california
  tidings topic rename quakes.ci quakes.old --on peer-2     ends a conflict over the name")]
    Rename(Rename),
    /// Discard the messages before an offset or a time
    #[command(after_help = "\
Examples:
  tidings topic purge quakes.ci --before 1200 --force
  tidings topic purge quakes.ci --before 30d --force
  tidings topic purge quakes.ci --before end --force
  tidings topic purge customers --key ann@example.org --force")]
    Purge(Purge),
    /// Delete topics with all their messages and subscriptions
    #[command(
        visible_alias = "delete",
        after_help = "\
Examples:
  tidings topic rm quakes.ci --force
  tidings topic rm quakes.ci --on peer-2 --force    what that peer stores under the name"
    )]
    Rm(Rm),
    /// End a quarantine: go on without what was lost to damage
    #[command(after_help = "\
Examples:
  tidings topic accept-loss quakes.ci --force")]
    AcceptLoss(AcceptLossArgs),
    /// Show every setting, its default and its bounds
    #[command(after_help = "\
Examples:
  tidings topic options")]
    Options,
}

/// Arguments of `create`.
#[derive(Debug, Args)]
pub struct Create {
    /// Names of the topics
    #[arg(required = true, value_name = "NAME")]
    names: Vec<TopicName>,
    /// The peer to create them on [default: the one with the least load]
    #[arg(long, value_name = "PEER")]
    on: Option<PeerName>,
    #[command(flatten)]
    settings: SettingsFlags,
    /// Accept topics that exist already
    #[arg(long)]
    if_not_exists: bool,
}

/// Arguments of `ls`.
#[derive(Debug, Args)]
pub struct Ls {
    /// Only these: '*' is one token, a last '>' one or more
    pattern: Option<TopicPattern>,
}

/// One topic.
#[derive(Debug, Args)]
pub struct One {
    /// Name of the topic
    name: TopicName,
    #[command(flatten)]
    store: OnPeer,
}

/// Which of two topics of one name is meant.
#[derive(Debug, Args)]
pub struct OnPeer {
    /// What this peer stores under the name, even where the name belongs to another topic
    #[arg(long, value_name = "PEER")]
    on: Option<PeerName>,
}

/// Arguments of `set`.
#[derive(Debug, Args)]
pub struct Set {
    /// Name of the topic
    name: TopicName,
    /// What to change; 'tidings topic options' lists the settings
    #[arg(required = true, value_name = "SETTING=VALUE", value_parser = change)]
    changes: Vec<Change>,
}

/// Arguments of `rename`.
#[derive(Debug, Args)]
pub struct Rename {
    /// Its name
    name: TopicName,
    /// The name it gets
    new: TopicName,
    #[command(flatten)]
    store: OnPeer,
}

/// Arguments of `purge`.
#[derive(Debug, Args)]
pub struct Purge {
    /// Name of the topic
    name: TopicName,
    /// The first message to keep: an offset, a time, a duration back from now, -N, or end
    #[arg(long, value_name = "OFFSET|TIME", value_parser = values::position)]
    #[arg(allow_hyphen_values = true, required_unless_present = "key")]
    before: Option<Position>,
    /// Erase all messages of this key that are there now instead
    #[arg(long, value_name = "KEY", conflicts_with = "before")]
    key: Option<String>,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
}

/// Arguments of `rm`.
#[derive(Debug, Args)]
pub struct Rm {
    /// Names of the topics
    #[arg(required = true, value_name = "NAME")]
    names: Vec<TopicName>,
    #[command(flatten)]
    store: OnPeer,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
}

/// Arguments of `accept-loss`.
#[derive(Debug, Args)]
pub struct AcceptLossArgs {
    /// Name of the topic
    name: TopicName,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
}

/// Runs a verb.
pub async fn run(verb: Verb, context: &Context) -> Result {
    match verb {
        Verb::Create(args) => create(args, context).await,
        Verb::Ls(args) => ls(args, context).await,
        Verb::Info(args) => context
            .output
            .one(&row_on(&args.store, &args.name, context).await?),
        Verb::Set(args) => set(args, context).await,
        Verb::Rename(args) => rename(args, context).await,
        Verb::Purge(args) => purge(args, context).await,
        Verb::Rm(args) => rm(args, context).await,
        Verb::AcceptLoss(args) => accept_loss(args, context).await,
        Verb::Options => options(&context.output),
    }
}

async fn create(args: Create, context: &Context) -> Result {
    let mut rows = Vec::new();
    let mut all_made = Ok(());
    for name in &args.names {
        match create_one(name, &args, context).await {
            Ok(row) => rows.push(row),
            Err(failure) => {
                all_made = Err(failure);
                break;
            }
        }
    }
    // What was made is told even if the next could not be.
    if all_made.is_ok() || !rows.is_empty() {
        context.output.done(&rows)?;
    }
    all_made
}

async fn create_one(name: &TopicName, args: &Create, context: &Context) -> Result<TopicRow> {
    let topic = NewTopic {
        name: name.clone(),
        on: args.on.clone(),
        settings: args.settings.settings(),
        if_not_exists: args.if_not_exists,
    };
    let made = context.client.create_topic(&topic).await?;
    let row = row(name, context).await?;
    context.output.note(match made.created {
        true => format!(
            "created {name} on {}, {}",
            row.peer, topic.settings.durability
        ),
        false => format!("{name} exists already, on {}", row.peer),
    });
    Ok(row)
}

async fn ls(args: Ls, context: &Context) -> Result {
    let pattern = args.pattern.unwrap_or_else(TopicPattern::all);
    let reports = context.client.describe_topics(&pattern).await?;
    if reports.is_empty() {
        context.output.note(match pattern == TopicPattern::all() {
            true => "no topics yet: 'tidings topic create NAME' makes one".to_owned(),
            false => format!("no topic matches {pattern}"),
        });
    }
    note_silent_hosts(&reports, context);
    note_conflicts(&reports, context);
    let rows: Vec<_> = reports.into_iter().map(TopicRow::from).collect();
    context.output.list(&rows)
}

/// Says once for each peer that should have answered why it did not.
fn note_silent_hosts(reports: &[TopicReport], context: &Context) {
    let silent: BTreeMap<_, _> = reports
        .iter()
        .filter(|report| report.location.state == PeerState::Online)
        .filter_map(|report| Some((&report.location.peer_name, report.info.as_ref().err()?)))
        .collect();
    for (peer, error) in silent {
        context
            .output
            .note(format!("{peer} does not answer: {error}"));
    }
}

/// Says what to do about names that two topics want.
fn note_conflicts(reports: &[TopicReport], context: &Context) {
    let in_conflict = |report: &&TopicReport| report.info.as_ref().is_ok_and(|info| info.conflict);
    for report in reports.iter().filter(in_conflict) {
        let (name, peer) = (&report.location.name, &report.location.peer_name);
        context.output.note(format!(
            "{name} on {peer} is stored under a name that belongs to another topic: 'tidings topic rename {name} NEW --on {peer}' gives it one of its own"
        ));
    }
}

/// One topic, or what one peer stores under its name.
async fn row_on(store: &OnPeer, name: &TopicName, context: &Context) -> Result<TopicRow> {
    match &store.on {
        Some(peer) => Ok(context.client.describe_topic_on(peer, name).await?.into()),
        None => row(name, context).await,
    }
}

/// One topic. A host that does not answer leaves its part out; why is noted.
async fn row(name: &TopicName, context: &Context) -> Result<TopicRow> {
    let error = match context.client.describe_topic(name).await {
        Ok(report) => return Ok(report.into()),
        Err(error) => error,
    };
    let is_absent = matches!(
        error,
        ClientError::Unreachable { .. }
            | ClientError::TimedOut { .. }
            | ClientError::Api(ApiError::PeerNotOnline { .. })
    );
    if !is_absent {
        return Err(error.into());
    }
    let location = context.client.lookup(name).await?;
    context.output.note(&error);
    Ok(TopicRow::new(location, None))
}

async fn set(args: Set, context: &Context) -> Result {
    let changes = merged(&args.changes);
    let info = context.client.set_topic(&args.name, changes).await?;
    context.output.note(format!(
        "{}: {}, keeps {}",
        args.name,
        info.settings.durability,
        retention_text(info.settings)
    ));
    let row = row(&args.name, context).await?;
    context.output.done_one(&row)
}

async fn rename(args: Rename, context: &Context) -> Result {
    let (name, new) = (&args.name, &args.new);
    let row = match &args.store.on {
        Some(peer) => {
            let renamed = context.client.rename_topic_on(peer, name, new).await?;
            TopicRow::from(renamed)
        }
        None => {
            context.client.rename_topic(name, new).await?;
            row(new, context).await?
        }
    };
    context.output.note(format!("renamed {name} to {new}"));
    context.output.done_one(&row)
}

/// Erases the messages of a key.
async fn purge_key(args: &Purge, key: &str, context: &Context) -> Result {
    confirm::destruction(
        args.force,
        &format!(
            "This erases all messages of {} with the key {key}.",
            args.name
        ),
    )?;
    let name = &args.name;
    let info = context.client.purge_key(name, key.into()).await?;
    let end = info.end_offset;
    context.output.note(format!(
        "nobody gets messages of {name} with that key below offset {end} any more; their bytes go soon"
    ));
    let row = row(name, context).await?;
    context.output.done_one(&row)
}

async fn purge(args: Purge, context: &Context) -> Result {
    if let Some(key) = &args.key {
        return purge_key(&args, key, context).await;
    }
    let before = args.before.unwrap_or(Position::Beginning);
    let found = context.client.find_offset(&args.name, before).await?;
    let count = found.offset.since(found.start_offset);
    confirm::destruction(
        args.force,
        &format!(
            "This discards {} of {}, all before offset {}.",
            output::count(count, "message"),
            args.name,
            found.offset
        ),
    )?;
    // By the offset that was just found, so that what was confirmed is what is done.
    let before = Position::Offset(found.offset);
    let info = context.client.purge_topic(&args.name, before).await?;
    context.output.note(format!(
        "discarded {} of {}, it begins at offset {}",
        output::count(count, "message"),
        args.name,
        info.start_offset
    ));
    let row = row(&args.name, context).await?;
    context.output.done_one(&row)
}

async fn rm(args: Rm, context: &Context) -> Result {
    // All are looked at before the first is deleted: a misspelt name in the
    // middle of a list must not leave half of it done.
    let mut rows = Vec::new();
    for name in &args.names {
        rows.push(row_on(&args.store, name, context).await?);
    }
    let messages: u64 = rows.iter().filter_map(|row| row.records).sum();
    confirm::destruction(
        args.force,
        &format!(
            "This deletes {} with {}.",
            output::count(rows.len() as u64, "topic"),
            output::count(messages, "message")
        ),
    )?;
    for row in &rows {
        let pending = later::pending_of(&row.name, context).await;
        match &args.store.on {
            Some(peer) => {
                let (name, id) = (&row.name, row.id);
                context.client.delete_topic_on(peer, name, id).await?;
            }
            // It is the one that was asked about, or none.
            None => context.client.delete_topic_of(&row.name, row.id).await?,
        }
        context.output.note(format!("deleted {}", row.name));
        if let Some(left) = pending {
            context.output.warn(format!(
                "left in {}: {} for {}, which 'tidings topic rm {}' removes",
                left.stored_in,
                output::count(left.pending, "delayed message"),
                row.name,
                left.stored_in
            ));
        }
    }
    context.output.done(&rows)
}

async fn accept_loss(args: AcceptLossArgs, context: &Context) -> Result {
    confirm::destruction(
        args.force,
        &format!(
            "This gives up the messages of {} that were lost to damage.",
            args.name
        ),
    )?;
    let gap = context.client.accept_loss(&args.name).await?;
    if context.output.format == Format::Name {
        return context.output.value(&gap, &format!("{}\n", args.name));
    }
    context.output.value(
        &gap,
        &format!(
            "{} goes on at offset {}, without {}, offsets {}..{}\n",
            args.name,
            gap.to,
            output::count(gap.to.since(gap.from), "message"),
            gap.from,
            gap.to
        ),
    )
}
