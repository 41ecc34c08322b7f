//! What an index server's directory holds.

use serde::Serialize;
use serde_json::json;

use super::show::{lines, sections};
use crate::cli::fail::Result;
use crate::cli::output::{self, Column, Format, Output, Row, card, left, right, table};
use crate::protocol::api::PeerInfo;
use crate::registry;
use crate::store::offline::{RegistryEntry, RegistryListing};
use crate::types::{LeaderEpoch, TopicId, TopicName};

#[derive(Debug, Serialize)]
struct EntryLine {
    name: TopicName,
    #[serde(serialize_with = "output::as_text")]
    id: TopicId,
    epoch: LeaderEpoch,
    peer: String,
    address: String,
    state: &'static str,
}

impl From<&RegistryEntry> for EntryLine {
    fn from(entry: &RegistryEntry) -> Self {
        Self {
            name: entry.name.clone(),
            id: entry.id,
            epoch: entry.epoch,
            peer: entry.peer.to_string(),
            address: entry.address.to_string(),
            state: match entry.kind {
                registry::Kind::Held => "held",
                registry::Kind::Claim => "claimed",
                registry::Kind::Conflict => "conflict",
            },
        }
    }
}

impl Row for EntryLine {
    const COLUMNS: &'static [Column] = &[
        left("TOPIC"),
        left("STATE"),
        left("PEER"),
        left("ADDRESS"),
        right("EPOCH"),
        left("ID"),
    ];

    fn name(&self) -> String {
        self.name.to_string()
    }

    fn cells(&self) -> Vec<String> {
        vec![
            self.name(),
            self.state.to_owned(),
            self.peer.clone(),
            self.address.clone(),
            self.epoch.to_string(),
            self.id.to_string(),
        ]
    }

    fn card(&self) -> Vec<(&'static str, String)> {
        vec![("name", self.name())]
    }
}

#[derive(Debug, Serialize)]
struct PeerLine {
    name: String,
    id: String,
    address: String,
    state: String,
    since: String,
    topics: u64,
}

impl From<&PeerInfo> for PeerLine {
    fn from(peer: &PeerInfo) -> Self {
        Self {
            name: peer.name.to_string(),
            id: peer.id.to_string(),
            address: peer.address.to_string(),
            state: peer.state.to_string(),
            since: peer.since.to_string(),
            topics: peer.topics,
        }
    }
}

impl Row for PeerLine {
    const COLUMNS: &'static [Column] = &[
        left("PEER"),
        left("ADDRESS"),
        left("STATE"),
        left("SINCE"),
        right("TOPICS"),
        left("ID"),
    ];

    fn name(&self) -> String {
        self.name.clone()
    }

    fn cells(&self) -> Vec<String> {
        vec![
            self.name(),
            self.address.clone(),
            self.state.clone(),
            self.since.clone(),
            output::number(self.topics),
            self.id.clone(),
        ]
    }

    fn card(&self) -> Vec<(&'static str, String)> {
        vec![("name", self.name())]
    }
}

/// `data ls` of an index server.
pub fn registry(listing: &RegistryListing, output: &Output) -> Result {
    let peers: Vec<PeerLine> = listing.peers.iter().map(PeerLine::from).collect();
    let entries: Vec<EntryLine> = listing.entries.iter().map(EntryLine::from).collect();
    for fault in &listing.faults {
        output.warn(format!("the registry is not to be believed: {fault}"));
    }
    if output.format == Format::Name {
        return output.raw(lines(entries.iter().map(Row::name)).as_bytes());
    }
    let document = json!({
        "kind": "index",
        "registry_format": listing.format,
        "registry_faults": listing.faults,
        "peers": peers,
        "topics": entries,
    });
    let format = output::or_dash(listing.format, |format| format.to_string());
    let head = card(&[("index server", "registry".to_owned()), ("format", format)]);
    output.value(
        &document,
        &sections(&[head, table(&peers), table(&entries)]),
    )
}

/// `data stats` of an index server.
pub fn registry_stats(listing: &RegistryListing, output: &Output) -> Result {
    let (peers, topics) = (listing.peers.len() as u64, listing.entries.len() as u64);
    let document = json!({
        "kind": "index",
        "peers": peers,
        "topics": topics,
        "rows": listing.rows,
        "registry_bytes": listing.bytes,
    });
    if output.format == Format::Name {
        let names = listing.entries.iter().map(|entry| entry.name.to_string());
        return output.raw(lines(names).as_bytes());
    }
    let text = card(&[
        ("peers", output::number(peers)),
        ("topics", output::number(topics)),
        ("rows", output::number(listing.rows)),
        ("on disk", output::bytes(listing.bytes)),
    ]);
    output.value(&document, &text)
}

/// `data dump` of an index server: what it says about each name, one a line.
pub fn entries(listing: &RegistryListing, output: &Output) -> Result {
    let entries: Vec<EntryLine> = listing.entries.iter().map(EntryLine::from).collect();
    if output.format != Format::Json {
        return output.list(&entries);
    }
    let encode = |entry| serde_json::to_string(entry).expect("our own types always encode");
    output.raw(lines(entries.iter().map(encode)).as_bytes())
}
