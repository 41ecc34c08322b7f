//! An index server's directory: the registry as it is stored.
//!
//! The registry is derived from what peers store, so there is little to repair:
//! one that cannot be believed is set aside, and the peers fill a new one within
//! a heartbeat.

use std::path::Path;

use super::report::{Repaired, Verified};
use super::{OfflineError, refuse_if_used};
use crate::catalog::{self, CatalogError, DirLock, OpenOptions, RegistryStore, Verdict};
use crate::limits;
use crate::protocol::api::PeerInfo;
use crate::registry::rows::Loader;
use crate::registry::{Kind, Millis, Now, Settings, State};
use crate::time::Timestamp;
use crate::types::{Address, LeaderEpoch, PeerName, TopicId, TopicName};

/// What the registry says about a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistryEntry {
    /// The name.
    pub name: TopicName,
    /// Held, claimed, or in conflict.
    pub kind: Kind,
    /// Id of the topic.
    pub id: TopicId,
    /// Its leader epoch.
    pub epoch: LeaderEpoch,
    /// Name of the peer.
    pub peer: PeerName,
    /// Where that peer was reached last.
    pub address: Address,
}

/// What is in an index server's directory.
#[derive(Debug, Clone)]
pub struct RegistryListing {
    /// Format of the store, if it can be read.
    pub format: Option<u32>,
    /// Why it is not to be believed; empty if it is.
    pub faults: Vec<String>,
    /// The peers by name.
    pub peers: Vec<PeerInfo>,
    /// What is said about names, by name.
    pub entries: Vec<RegistryEntry>,
    /// Rows of the store.
    pub rows: u64,
    /// Bytes of the store's files.
    pub bytes: u64,
}

/// Lists an index server's directory.
///
/// # Errors
/// If it cannot be read, or a server works there.
pub fn list_registry(dir: &Path) -> Result<RegistryListing, OfflineError> {
    refuse_if_used(dir)?;
    let loaded = read_rows(dir)?;
    let mut faults = match loaded.verdict {
        Verdict::Unsound { reasons } => reasons,
        Verdict::Sound | Verdict::Fresh => Vec::new(),
    };
    let now = Now {
        ticks: Millis::new(0),
        wall: Timestamp::now(),
    };
    let rows = loaded.rows.len() as u64;
    // Leases and claims are begun anew when rows are loaded; how long they would last is not shown.
    let settings = Settings {
        lease: limits::LEASE_DEFAULT,
        claim_kept: limits::CLAIM_KEPT_FOR,
        stall: limits::LEASE_DEFAULT,
        step_entries: limits::INDEX_STEP_ENTRIES,
    };
    let mut loader = Loader::new(settings, now);
    loaded.rows.into_iter().for_each(|row| loader.take(row));
    let (state, _, found) = loader.finish();
    faults.extend(found.unreadable);
    if found.left_out > 0 {
        faults.push(format!(
            "{} entries are of unknown peers or contradict others",
            found.left_out
        ));
    }
    let entries = entries(&state);
    let mut peers: Vec<PeerInfo> = state.peer_numbers().filter_map(|n| state.peer(n)).collect();
    for peer in &mut peers {
        let held = |e: &&RegistryEntry| e.kind == Kind::Held && e.peer == peer.name;
        peer.topics = entries.iter().filter(held).count() as u64;
    }
    peers.sort_by(|a, b| a.name.cmp(&b.name));
    let listing = RegistryListing {
        format: loaded.format,
        faults,
        peers,
        entries,
        rows,
        bytes: super::stats::size_of(&dir.join("registry")),
    };
    refuse_if_used(dir)?;
    Ok(listing)
}

fn entries(state: &State) -> Vec<RegistryEntry> {
    let buckets = u32::try_from(limits::REGISTRY_BUCKETS).expect("a small number");
    let mut entries = Vec::new();
    for entry in (0..buckets).flat_map(|bucket| state.bucket(bucket)) {
        let Some(peer) = state.peer(entry.peer) else {
            continue;
        };
        entries.push(RegistryEntry {
            name: entry.name.clone(),
            kind: entry.kind,
            id: entry.id,
            epoch: entry.epoch,
            peer: peer.name,
            address: peer.address,
        });
    }
    entries.sort_by(|a, b| (&a.name, a.kind).cmp(&(&b.name, b.kind)));
    entries
}

fn read_rows(dir: &Path) -> Result<catalog::Loaded, OfflineError> {
    match RegistryStore::read_copy(dir) {
        Ok(loaded) => Ok(loaded),
        Err(CatalogError::Ruined { reasons, .. }) => Ok(unsound(reasons)),
        Err(error @ CatalogError::Panicked { .. }) => Ok(unsound(vec![error.to_string()])),
        Err(error) => Err(error.into()),
    }
}

fn unsound(reasons: Vec<String>) -> catalog::Loaded {
    catalog::Loaded {
        rows: Vec::new(),
        applied: None,
        verdict: Verdict::Unsound { reasons },
        format: None,
    }
}

pub(super) fn verify(dir: &Path) -> Result<Verified, OfflineError> {
    let listing = list_registry(dir)?;
    let mut report = Verified::default();
    report.checked.rows = listing.rows;
    report.checked.topics = listing.entries.len() as u64;
    for fault in listing.faults {
        report.add("registry", fault);
    }
    Ok(report)
}

pub(super) fn repair(dir: &Path, dry_run: bool) -> Result<Repaired, OfflineError> {
    let listing = list_registry(dir)?;
    let mut report = Repaired::default();
    if listing.faults.is_empty() {
        return Ok(report);
    }
    report.steps.push(format!(
        "registry: set aside for an empty one, because {}",
        listing.faults.join("; ")
    ));
    report.lost.push(
        "nothing for good: each peer tells the index what it stores with its next heartbeat; names of peers that never come back are free"
            .to_owned(),
    );
    if !dry_run {
        let lock = DirLock::acquire(dir)?;
        RegistryStore::replace(&lock, OpenOptions::default(), Vec::new())?.close()?;
    }
    Ok(report)
}
