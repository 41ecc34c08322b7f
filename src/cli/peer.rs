//! `tidings peer`: the peers of a cluster.

use clap::{Args, Subcommand};
use serde::Serialize;

use crate::cli::Context;
use crate::cli::confirm;
use crate::cli::fail::Result;
use crate::cli::metrics;
use crate::cli::output::{self, Column, Format, Row, left, right};
use crate::protocol::api::{PeerInfo, PeerLoad, PeerState, PeerStatusAnswer};
use crate::protocol::error::ApiError;
use crate::time::Timestamp;
use crate::types::{Address, PeerId, PeerName, TopicName};

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// List peers
    #[command(
        visible_alias = "list",
        after_help = "\
Examples:
  tidings peer ls
  tidings peer ls -o json"
    )]
    Ls,
    /// Show everything about one peer
    #[command(
        visible_alias = "show",
        after_help = "\
Examples:
  tidings peer info peer-1
  tidings peer info peer-1 -o json
  tidings peer info peer-1 --metrics"
    )]
    Info(Info),
    /// Unregister a peer that will not come back; the names of its topics are free again
    #[command(after_help = "\
Examples:
  tidings peer retire peer-1 --force")]
    Retire(Retire),
}

/// Arguments of `info`.
#[derive(Debug, Args)]
pub struct Info {
    /// Name of the peer; with --metrics not needed where there is only one
    #[arg(required_unless_present = "metrics")]
    name: Option<PeerName>,
    /// Everything the peer counts, as GET /metrics has it
    #[arg(long)]
    metrics: bool,
}

/// Arguments of `retire`.
#[derive(Debug, Args)]
pub struct Retire {
    /// Name of the peer
    name: PeerName,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
}

/// A peer: what the index knows, and what it tells itself if it answers.
#[derive(Debug, Serialize)]
struct PeerRow {
    name: PeerName,
    #[serde(serialize_with = "output::as_text")]
    id: PeerId,
    address: Address,
    state: PeerState,
    #[serde(serialize_with = "output::as_text")]
    since: Timestamp,
    topics: u64,
    conflicts: Vec<TopicName>,
    /// Who has each of those names, where that is known.
    #[serde(skip)]
    holders: Vec<Option<PeerName>>,
    load: PeerLoad,
    #[serde(skip_serializing_if = "Option::is_none")]
    process: Option<Process>,
}

/// What a peer tells of its process and its storage.
#[derive(Debug, Serialize)]
struct Process {
    version: String,
    #[serde(serialize_with = "output::as_text")]
    started: Timestamp,
    rss_bytes: u64,
    cpu_ms: u64,
    payload_bytes: u64,
    disk_written_bytes: u64,
    segments: u64,
    journal_bytes: u64,
    index_reachable: bool,
    damage: Vec<String>,
}

impl PeerRow {
    fn new(info: PeerInfo, status: Option<PeerStatusAnswer>) -> Self {
        Self {
            name: info.name,
            id: info.id,
            address: info.address,
            state: info.state,
            since: info.since,
            topics: info.topics,
            conflicts: info.conflicts,
            holders: Vec::new(),
            load: status.as_ref().map_or(info.load, |status| status.load),
            process: status.map(|status| Process {
                version: status.version,
                started: status.started,
                rss_bytes: status.rss_bytes,
                cpu_ms: status.cpu_ms,
                payload_bytes: status.payload_bytes,
                disk_written_bytes: status.disk_written_bytes,
                segments: status.segments,
                journal_bytes: status.journal_bytes,
                index_reachable: status.index_reachable,
                damage: status.damage,
            }),
        }
    }
}

impl PeerRow {
    fn conflict_text(&self, name: &TopicName, holder: Option<&PeerName>) -> String {
        let own = &self.name;
        match holder {
            Some(holder) if holder == own => {
                format!(
                    "{name} is here, and another peer stores a topic of that name: 'tidings topic ls {name}'"
                )
            }
            Some(holder) => format!(
                "{name} belongs to a topic on {holder}: 'tidings topic rename {name} NEW --on {own}'"
            ),
            None => format!("{name} is the name of two topics: 'tidings topic ls {name}'"),
        }
    }
}

impl Row for PeerRow {
    const COLUMNS: &'static [Column] = &[
        left("NAME"),
        left("ADDRESS"),
        left("STATE"),
        left("SINCE"),
        right("TOPICS"),
        right("STORED"),
        right("IN/S"),
        right("OUT/S"),
        right("CLIENTS"),
        right("FREE"),
    ];

    fn name(&self) -> String {
        self.name.to_string()
    }

    fn cells(&self) -> Vec<String> {
        let load = &self.load;
        vec![
            self.name(),
            self.address.to_string(),
            self.state.to_string(),
            output::ago(self.since),
            output::number(self.topics),
            output::bytes(load.stored_bytes),
            output::bytes(load.bytes_in_per_second),
            output::bytes(load.bytes_out_per_second),
            output::number(load.connections),
            output::bytes(load.disk_free_bytes),
        ]
    }

    fn card(&self) -> Vec<(&'static str, String)> {
        let load = &self.load;
        let mut lines = vec![
            ("name", self.name()),
            ("id", self.id.to_string()),
            ("address", self.address.to_string()),
            (
                "state",
                format!(
                    "{} since {} ({})",
                    self.state,
                    self.since,
                    output::ago(self.since)
                ),
            ),
            ("topics", output::number(self.topics)),
            ("stored", output::bytes(load.stored_bytes)),
            (
                "in",
                format!("{}/s", output::bytes(load.bytes_in_per_second)),
            ),
            (
                "out",
                format!("{}/s", output::bytes(load.bytes_out_per_second)),
            ),
            ("clients", output::number(load.connections)),
            ("disk free", output::bytes(load.disk_free_bytes)),
        ];
        for (at, name) in self.conflicts.iter().enumerate() {
            let holder = self.holders.get(at).and_then(Option::as_ref);
            lines.push(("conflict", self.conflict_text(name, holder)));
        }
        lines.extend(self.process.iter().flat_map(Process::card));
        lines
    }
}

impl Process {
    fn card(&self) -> Vec<(&'static str, String)> {
        let cpu = std::time::Duration::from_millis(self.cpu_ms);
        let mut lines = vec![
            ("version", self.version.clone()),
            (
                "started",
                format!("{} ({})", self.started, output::ago(self.started)),
            ),
            ("memory", output::bytes(self.rss_bytes)),
            ("processor", output::duration(cpu)),
            (
                "journal",
                format!(
                    "{}, {} in use",
                    output::bytes(self.journal_bytes),
                    output::count(self.segments, "segment")
                ),
            ),
            ("batches in", output::bytes(self.payload_bytes)),
            ("written", output::bytes(self.disk_written_bytes)),
            (
                "index",
                if self.index_reachable {
                    "reachable"
                } else {
                    "not reachable"
                }
                .to_owned(),
            ),
        ];
        lines.extend(self.damage.iter().map(|line| ("damage", line.clone())));
        lines
    }
}

/// Runs a verb.
pub async fn run(verb: Verb, context: &Context) -> Result {
    match verb {
        Verb::Ls => ls(context).await,
        Verb::Info(Info {
            name: Some(name),
            metrics: false,
        }) => info(name, context).await,
        Verb::Info(args) => metrics::show(args.name, context).await,
        Verb::Retire(args) => retire(args, context).await,
    }
}

async fn ls(context: &Context) -> Result {
    let peers = context.client.list_peers().await?;
    if peers.is_empty() {
        context
            .output
            .note("no peers yet: 'tidings serve peer' starts one");
    }
    let rows: Vec<_> = peers
        .into_iter()
        .map(|info| PeerRow::new(info, None))
        .collect();
    context.output.list(&rows)
}

async fn find(name: &PeerName, context: &Context) -> Result<PeerInfo> {
    let peers = context.client.list_peers().await?;
    let found = peers.into_iter().find(|peer| peer.name == *name);
    Ok(found.ok_or_else(|| ApiError::PeerNotFound { name: name.clone() })?)
}

async fn info(name: PeerName, context: &Context) -> Result {
    let info = find(&name, context).await?;
    let status = match context.client.peer_status(&name).await {
        Ok(status) => Some(status),
        Err(error) => {
            context.output.note(error);
            None
        }
    };
    let mut row = PeerRow::new(info, status);
    // For people; programs have the names and may look them up.
    if context.output.format == Format::Table {
        for name in &row.conflicts {
            let holder = context.client.lookup(name).await.ok();
            row.holders.push(holder.map(|at| at.peer_name));
        }
    }
    context.output.one(&row)
}

async fn retire(args: Retire, context: &Context) -> Result {
    let info = find(&args.name, context).await?;
    confirm::destruction(
        args.force,
        &format!(
            "This forgets peer {} and frees {} for others.",
            info.name,
            output::count(info.topics, "name")
        ),
    )?;
    let retired = context.client.retire_peer(&args.name).await?;
    context.output.note(format!(
        "retired {}, which frees {}",
        args.name,
        output::count(retired.topics, "name")
    ));
    context.output.done_one(&PeerRow::new(info, None))
}
