//! `tidings topic`: topics as people see them.
//!
//! What is shown of a topic comes from two places: the index knows who hosts it
//! and whether that peer can be reached, the host knows everything else. When
//! the host does not answer, the index's part is shown and the rest is `null`
//! (`-` in tables), because an absent peer must not hide its topics.

use std::collections::BTreeMap;

use clap::{Args, Subcommand};
use serde::Serialize;

use crate::cli::Context;
use crate::cli::confirm;
use crate::cli::fail::Result;
use crate::cli::output::{self, Column, Output, Row, left, right};
use crate::cli::values;
use crate::client::{ClientError, NewTopic, TopicReport};
use crate::protocol::api::{PeerState, Position, TopicChanges, TopicInfo, TopicLocation};
use crate::protocol::error::ApiError;
use crate::time::Timestamp;
use crate::types::{
    Address, Durability, Gap, LeaderEpoch, Offset, PeerName, Retention, TopicId, TopicName,
    TopicPattern, TopicSettings,
};

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
  tidings topic info quakes.ci -o json"
    )]
    Info(One),
    /// Change settings of a topic; 'none' removes a bound
    #[command(after_help = "\
Examples:
  tidings topic set quakes.ci retain-age=30d
  tidings topic set quakes.ci durability=os retain-bytes=none")]
    Set(Set),
    /// Give a topic another name
    #[command(after_help = "\
Examples:
  tidings topic rename quakes.ci quakes.california")]
    Rename(Rename),
    /// Discard the messages before an offset or a time
    #[command(after_help = "\
Examples:
  tidings topic purge quakes.ci --before 1200 --force
  tidings topic purge quakes.ci --before 30d --force
  tidings topic purge quakes.ci --before end --force")]
    Purge(Purge),
    /// Delete topics with all their messages and subscriptions
    #[command(
        visible_alias = "delete",
        after_help = "\
Examples:
  tidings topic rm quakes.ci --force"
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

/// Settings of a new topic.
#[derive(Debug, Clone, Copy, Args)]
pub struct SettingsFlags {
    /// What an acknowledgement means: fsync or os [default: fsync]
    #[arg(long, value_name = "DURABILITY")]
    durability: Option<Durability>,
    /// Discard messages older than this [default: none]
    #[arg(long, value_name = "DURATION", value_parser = retain_age)]
    retain_age: Option<u64>,
    /// Discard the oldest messages beyond so many bytes [default: none]
    #[arg(long, value_name = "SIZE", value_parser = retain_bytes)]
    retain_bytes: Option<u64>,
    /// Discard the oldest messages beyond so many [default: none]
    #[arg(long, value_name = "N", value_parser = retain_records)]
    retain_records: Option<u64>,
}

impl SettingsFlags {
    fn settings(self) -> TopicSettings {
        TopicSettings {
            durability: self.durability.unwrap_or_default(),
            retention: Retention {
                age_ms: self.retain_age,
                bytes: self.retain_bytes,
                records: self.retain_records,
            },
        }
    }
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
}

/// Arguments of `purge`.
#[derive(Debug, Args)]
pub struct Purge {
    /// Name of the topic
    name: TopicName,
    /// The first message to keep: an offset, a time, a duration back from now, -N, or end
    #[arg(long, value_name = "OFFSET|TIME", value_parser = values::position)]
    #[arg(allow_hyphen_values = true)]
    before: Position,
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

// --- settings --------------------------------------------------------------------

/// A setting as `topic options` shows it.
#[derive(Debug, Serialize)]
struct Setting {
    name: &'static str,
    default: &'static str,
    values: &'static str,
    meaning: &'static str,
}

const SETTINGS: &[Setting] = &[
    Setting {
        name: "durability",
        default: "fsync",
        values: "fsync, os",
        meaning: "an acknowledged message is on the disk (fsync) or with the operating system (os)",
    },
    Setting {
        name: "retain-age",
        default: "none",
        values: "1ms or more, none",
        meaning: "messages older than this are discarded",
    },
    Setting {
        name: "retain-bytes",
        default: "none",
        values: "1 or more bytes, none",
        meaning: "the oldest messages beyond so many stored bytes are discarded",
    },
    Setting {
        name: "retain-records",
        default: "none",
        values: "1 or more, none",
        meaning: "the oldest messages beyond so many are discarded",
    },
];

impl Row for &Setting {
    const COLUMNS: &'static [Column] = &[
        left("SETTING"),
        left("DEFAULT"),
        left("VALUES"),
        left("MEANING"),
    ];

    fn name(&self) -> String {
        self.name.to_owned()
    }

    fn cells(&self) -> Vec<String> {
        [self.name, self.default, self.values, self.meaning]
            .map(str::to_owned)
            .to_vec()
    }

    fn card(&self) -> Vec<(&'static str, String)> {
        vec![(self.name, self.meaning.to_owned())]
    }
}

/// One change of a setting.
type Change = TopicChanges;

fn at_least_one(value: u64) -> std::result::Result<u64, String> {
    match value {
        0 => Err("0 would keep nothing: 'none' keeps everything, 'topic purge' empties".to_owned()),
        n => Ok(n),
    }
}

fn retain_age(text: &str) -> std::result::Result<u64, String> {
    let age = values::duration(text)?;
    at_least_one(u64::try_from(age.as_millis()).map_err(|e| e.to_string())?)
}

fn retain_bytes(text: &str) -> std::result::Result<u64, String> {
    at_least_one(values::size(text)?)
}

fn retain_records(text: &str) -> std::result::Result<u64, String> {
    let records = text.parse::<u64>();
    at_least_one(records.map_err(|_| "expected a number of messages".to_owned())?)
}

fn change(text: &str) -> std::result::Result<Change, String> {
    let Some((name, value)) = text.split_once('=') else {
        return Err("expected SETTING=VALUE such as retain-age=7d".to_owned());
    };
    let or_none = |parse: fn(&str) -> std::result::Result<u64, String>| match value {
        "none" => Ok(Some(None)),
        value => parse(value).map(|value| Some(Some(value))),
    };
    let mut change = TopicChanges::default();
    match name {
        "durability" => {
            change.durability = Some(value.parse::<Durability>().map_err(|e| e.to_string())?);
        }
        "retain-age" => change.retain_age_ms = or_none(retain_age)?,
        "retain-bytes" => change.retain_bytes = or_none(retain_bytes)?,
        "retain-records" => change.retain_records = or_none(retain_records)?,
        _ => {
            let known: Vec<_> = SETTINGS.iter().map(|setting| setting.name).collect();
            return Err(format!(
                "no such setting: expected one of {}",
                known.join(", ")
            ));
        }
    }
    Ok(change)
}

/// All changes as one; of two for the same setting the last counts.
fn merged(changes: &[Change]) -> TopicChanges {
    changes
        .iter()
        .fold(TopicChanges::default(), |all, one| TopicChanges {
            durability: one.durability.or(all.durability),
            retain_age_ms: one.retain_age_ms.or(all.retain_age_ms),
            retain_bytes: one.retain_bytes.or(all.retain_bytes),
            retain_records: one.retain_records.or(all.retain_records),
        })
}

/// Shows every setting.
pub fn options(output: &Output) -> Result {
    let settings: Vec<&Setting> = SETTINGS.iter().collect();
    output.list(&settings)
}

// --- a topic as it is shown --------------------------------------------------------

/// A topic: who hosts it, and what the host tells if it answers.
#[derive(Debug, Serialize)]
pub struct TopicRow {
    name: TopicName,
    #[serde(serialize_with = "output::as_text")]
    id: TopicId,
    peer: PeerName,
    address: Address,
    epoch: LeaderEpoch,
    state: PeerState,
    #[serde(serialize_with = "output::as_text")]
    since: Timestamp,
    start_offset: Option<Offset>,
    end_offset: Option<Offset>,
    durable_end_offset: Option<Offset>,
    records: Option<u64>,
    bytes: Option<u64>,
    durability: Option<Durability>,
    retention: Option<Retention>,
    #[serde(serialize_with = "output::as_text_or_null")]
    created: Option<Timestamp>,
    #[serde(serialize_with = "output::as_text_or_null")]
    last_append: Option<Timestamp>,
    subscriptions: Option<u64>,
    quarantined: Option<bool>,
    conflict: bool,
    gaps: Vec<Gap>,
}

impl From<TopicReport> for TopicRow {
    fn from(report: TopicReport) -> Self {
        Self::new(report.location, report.info.ok())
    }
}

impl TopicRow {
    /// Puts together what the index and what the host say.
    pub fn new(location: TopicLocation, info: Option<TopicInfo>) -> Self {
        let known = info.as_ref();
        Self {
            name: location.name,
            id: location.id,
            peer: location.peer_name,
            address: location.address,
            epoch: location.epoch,
            state: location.state,
            since: location.since,
            start_offset: known.map(|info| info.start_offset),
            end_offset: known.map(|info| info.end_offset),
            durable_end_offset: known.map(|info| info.durable_end_offset),
            records: known.map(records),
            bytes: known.map(|info| info.bytes),
            durability: known.map(|info| info.settings.durability),
            retention: known.map(|info| info.settings.retention),
            created: known.map(|info| info.created),
            last_append: known.and_then(|info| info.last_append),
            subscriptions: known.map(|info| info.subscriptions),
            quarantined: known.map(|info| info.quarantined),
            conflict: known.is_some_and(|info| info.conflict),
            gaps: info.map(|info| info.gaps).unwrap_or_default(),
        }
    }

    /// The state, and what else a person must know at first sight.
    fn state_text(&self) -> String {
        if self.conflict {
            "conflict".to_owned()
        } else if self.quarantined == Some(true) {
            "quarantined".to_owned()
        } else {
            self.state.to_string()
        }
    }
}

/// Messages that readers can have: the offsets kept, without the gaps among them.
fn records(info: &TopicInfo) -> u64 {
    let missing: u64 = info
        .gaps
        .iter()
        .map(|gap| {
            let to = gap.to.min(info.end_offset);
            to.since(gap.from.max(info.start_offset))
        })
        .sum();
    info.end_offset
        .since(info.start_offset)
        .saturating_sub(missing)
}

fn retention_text(retention: Retention) -> String {
    let mut bounds = Vec::new();
    if let Some(ms) = retention.age_ms {
        bounds.push(output::duration(std::time::Duration::from_millis(ms)));
    }
    if let Some(bytes) = retention.bytes {
        bounds.push(output::bytes(bytes));
    }
    if let Some(records) = retention.records {
        bounds.push(output::count(records, "message"));
    }
    match bounds.is_empty() {
        true => "everything".to_owned(),
        false => format!("at most {}", bounds.join(", ")),
    }
}

impl Row for TopicRow {
    const COLUMNS: &'static [Column] = &[
        left("NAME"),
        left("PEER"),
        left("STATE"),
        right("MESSAGES"),
        right("SIZE"),
        right("SUBS"),
        left("DURABILITY"),
        left("LAST MESSAGE"),
    ];

    fn name(&self) -> String {
        self.name.to_string()
    }

    fn cells(&self) -> Vec<String> {
        let last = match (self.records, self.last_append) {
            (Some(_), None) => "never".to_owned(),
            (_, last) => output::or_dash(last, output::ago),
        };
        vec![
            self.name(),
            self.peer.to_string(),
            self.state_text(),
            output::or_dash(self.records, output::number),
            output::or_dash(self.bytes, output::bytes),
            output::or_dash(self.subscriptions, output::number),
            output::or_dash(self.durability, |durability| durability.to_string()),
            last,
        ]
    }

    fn card(&self) -> Vec<(&'static str, String)> {
        let mut lines = vec![
            ("name", self.name()),
            ("id", self.id.to_string()),
            ("peer", format!("{} at {}", self.peer, self.address)),
            (
                "state",
                format!(
                    "{} since {} ({})",
                    self.state_text(),
                    self.since,
                    output::ago(self.since)
                ),
            ),
            ("epoch", self.epoch.to_string()),
        ];
        if let (Some(start), Some(end), Some(records)) =
            (self.start_offset, self.end_offset, self.records)
        {
            lines.push(("offsets", format!("{start}..{end}")));
            lines.push(("messages", output::number(records)));
        }
        lines.extend(self.bytes.map(|bytes| ("size", output::bytes(bytes))));
        lines.extend(
            self.durability
                .map(|durability| ("durability", durability.to_string())),
        );
        lines.extend(
            self.retention
                .map(|retention| ("keeps", retention_text(retention))),
        );
        lines.extend(
            self.subscriptions
                .map(|n| ("subscriptions", output::number(n))),
        );
        lines.extend(self.created.map(|time| ("created", with_age(time))));
        lines.extend(
            self.last_append
                .map(|time| ("last message", with_age(time))),
        );
        for gap in &self.gaps {
            lines.push(("gap", format!("{}..{} {}", gap.from, gap.to, gap.reason)));
        }
        lines
    }
}

fn with_age(time: Timestamp) -> String {
    format!("{time} ({})", output::ago(time))
}

// --- verbs -------------------------------------------------------------------------

/// Runs a verb.
pub async fn run(verb: Verb, context: &Context) -> Result {
    match verb {
        Verb::Create(args) => create(args, context).await,
        Verb::Ls(args) => ls(args, context).await,
        Verb::Info(args) => context.output.one(&row(&args.name, context).await?),
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
    for name in args.names {
        let topic = NewTopic {
            name: name.clone(),
            on: args.on.clone(),
            settings: args.settings.settings(),
            if_not_exists: args.if_not_exists,
        };
        let made = context.client.create_topic(&topic).await?;
        let row = row(&name, context).await?;
        context.output.note(match made.created {
            true => format!(
                "created {name} on {}, {}",
                row.peer, topic.settings.durability
            ),
            false => format!("{name} exists already, on {}", row.peer),
        });
        rows.push(row);
    }
    context.output.done(&rows)
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
        retention_text(info.settings.retention)
    ));
    let row = row(&args.name, context).await?;
    context.output.done(&[row])
}

async fn rename(args: Rename, context: &Context) -> Result {
    context.client.rename_topic(&args.name, &args.new).await?;
    context
        .output
        .note(format!("renamed {} to {}", args.name, args.new));
    let row = row(&args.new, context).await?;
    context.output.done(&[row])
}

async fn purge(args: Purge, context: &Context) -> Result {
    let found = context.client.find_offset(&args.name, args.before).await?;
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
    context.output.done(&[row])
}

async fn rm(args: Rm, context: &Context) -> Result {
    // All are looked at before the first is deleted: a misspelt name in the
    // middle of a list must not leave half of it done.
    let mut rows = Vec::new();
    for name in &args.names {
        rows.push(row(name, context).await?);
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
        context.client.delete_topic(&row.name).await?;
        context.output.note(format!("deleted {}", row.name));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_changed_by_name() {
        let parse = |text| change(text).expect(text);
        assert_eq!(parse("durability=os").durability, Some(Durability::Os));
        assert_eq!(parse("retain-age=1s").retain_age_ms, Some(Some(1000)));
        assert_eq!(parse("retain-bytes=1KiB").retain_bytes, Some(Some(1024)));
        assert_eq!(parse("retain-records=none").retain_records, Some(None));
        for bad in [
            "durability",
            "durability=none",
            "retain-age=7",
            "retain-bytes=0",
            "retain-records=-1",
            "colour=blue",
        ] {
            assert!(change(bad).is_err(), "{bad} was accepted");
        }
        let all = merged(&[
            parse("retain-age=1s"),
            parse("retain-age=none"),
            parse("durability=os"),
        ]);
        assert_eq!(all.retain_age_ms, Some(None));
        assert_eq!(all.durability, Some(Durability::Os));
        assert_eq!(all.retain_bytes, None);
    }

    fn location() -> TopicLocation {
        TopicLocation {
            name: "quakes.ci".parse().expect("good"),
            id: TopicId::from_bytes([1; 16]),
            epoch: LeaderEpoch::new(2),
            peer: crate::types::PeerId::from_bytes([2; 16]),
            peer_name: "peer-1".parse().expect("good"),
            address: "127.0.0.1:7401".parse().expect("good"),
            state: PeerState::Down,
            since: Timestamp::from_millis(0),
        }
    }

    #[test]
    fn a_topic_of_an_absent_peer_shows_what_the_index_knows() {
        let row = TopicRow::new(location(), None);
        let json = serde_json::to_value(&row).expect("encodes");
        for field in [
            "start_offset",
            "end_offset",
            "records",
            "bytes",
            "durability",
            "created",
        ] {
            assert!(json[field].is_null(), "{field} is {}", json[field]);
        }
        assert_eq!(json["state"], "down");
        assert_eq!(json["peer"], "peer-1");
        assert_eq!(json["id"], "01".repeat(16));
        assert_eq!(
            row.cells()[3..],
            ["-", "-", "-", "-", "-"].map(str::to_owned)
        );
    }

    #[test]
    fn a_topic_of_a_present_peer_shows_everything_promised() {
        let gap = Gap {
            from: Offset::new(0),
            to: Offset::new(6),
            reason: crate::types::GapReason::Lost,
        };
        let info = TopicInfo {
            name: location().name,
            id: location().id,
            epoch: location().epoch,
            settings: TopicSettings::default(),
            start_offset: Offset::new(4),
            end_offset: Offset::new(10),
            durable_end_offset: Offset::new(10),
            bytes: 2048,
            created: Timestamp::from_millis(0),
            last_append: None,
            subscriptions: 3,
            quarantined: false,
            conflict: false,
            gaps: vec![gap],
        };
        let row = TopicRow::new(location(), Some(info));
        let json = serde_json::to_value(&row).expect("encodes");
        assert_eq!(json["records"], 4);
        assert_eq!(json["created"], "1970-01-01T00:00:00.000Z");
        assert_eq!(json["retention"]["age_ms"], serde_json::Value::Null);
        assert_eq!(json["subscriptions"], 3);
        assert_eq!(json["durability"], "fsync");
    }
}
