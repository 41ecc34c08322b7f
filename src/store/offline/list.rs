//! What is in a directory: topics, subscriptions, segments, formats, identity.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use super::OfflineError;
use super::image::{Image, SegmentView};
use crate::catalog::Applied;
use crate::journal::{FORMAT_VERSION, Kind};
use crate::store::is_peer_dir;
use crate::topic::consumers::ConsumerGroupRow;
use crate::topic::{HistoryRow, PeerRow, SubscriptionRow, TopicRow};
use crate::types::{SubscriptionName, TopicId, TopicName};

/// Whose directory it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DirKind {
    /// A peer's: `journal/` and `catalog/`.
    Peer,
    /// An index server's: `registry/`.
    Index,
}

impl fmt::Display for DirKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Peer => "a peer's directory",
            Self::Index => "an index server's directory",
        })
    }
}

/// Tells whose directory it is.
///
/// # Errors
/// If it holds no store.
pub fn kind_of(dir: &Path) -> Result<DirKind, OfflineError> {
    if is_peer_dir(dir) {
        return Ok(DirKind::Peer);
    }
    if is_index_dir(dir) {
        return Ok(DirKind::Index);
    }
    let below = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut near: Vec<String> = below
        .map(|entry| entry.path())
        .filter(|path| is_peer_dir(path) || is_index_dir(path))
        .map(|path| path.display().to_string())
        .collect();
    near.sort();
    Err(OfflineError::NoStore {
        dir: dir.to_owned(),
        hint: match near.is_empty() {
            true => String::new(),
            false => format!("; there is {}", near.join(" and ")),
        },
    })
}

fn is_index_dir(dir: &Path) -> bool {
    dir.join("registry").is_dir() || dir.join("registry.ruined-1").is_dir()
}

/// How a slot is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SegmentUse {
    /// Full, with a footer and a row.
    Sealed,
    /// Being filled when the store was last open.
    Open,
    /// It holds nothing that anybody needs.
    Free,
    /// Its header cannot be read.
    Unreadable,
}

impl fmt::Display for SegmentUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sealed => "sealed",
            Self::Open => "open",
            Self::Free => "free",
            Self::Unreadable => "unreadable",
        })
    }
}

/// A slot of the journal and the segment in it.
#[derive(Debug, Clone)]
pub struct ListedSegment {
    /// The slot: the number in the file's name.
    pub slot: u32,
    /// The segment's number, if the header can be read.
    pub segment: Option<u64>,
    /// What the segment is for.
    pub kind: Option<Kind>,
    /// How the slot is used.
    pub used: SegmentUse,
    /// Bytes of contents, headers of the slot excluded.
    pub contents_bytes: u64,
    /// First and last group, if it has any.
    pub groups: Option<(u64, u64)>,
    /// Something in it is known to be unreadable.
    pub damaged: bool,
}

/// A topic and its subscriptions.
#[derive(Debug, Clone)]
pub struct ListedTopic {
    /// Its id.
    pub id: TopicId,
    /// Its row.
    pub row: TopicRow,
    /// Its subscriptions by name.
    pub subscriptions: Vec<(SubscriptionName, SubscriptionRow)>,
    /// What moved them, of those of which it is known.
    pub histories: BTreeMap<SubscriptionName, HistoryRow>,
    /// Its consumer groups by name, and how many records of each are not settled.
    pub consumer_groups: Vec<(SubscriptionName, ConsumerGroupRow, u64)>,
}

impl ListedTopic {
    /// Its name.
    pub fn name(&self) -> &TopicName {
        &self.row.name
    }

    /// Records kept: its offsets without the gaps among them.
    pub fn records(&self) -> u64 {
        self.row.records()
    }
}

/// What is in a peer's directory.
#[derive(Debug, Clone)]
pub struct Listing {
    /// The peer.
    pub peer: PeerRow,
    /// Format of the journal's slots.
    pub journal_format: u32,
    /// Format of the catalog, if it can be read.
    pub catalog_format: Option<u32>,
    /// Up to where the catalog follows the journal.
    pub applied: Option<Applied>,
    /// Why the catalog is not to be believed; empty if it is. The rest then comes from the journal.
    pub catalog_faults: Vec<String>,
    /// Size of a slot, in bytes.
    pub slot_bytes: u32,
    /// The last process stopped cleanly.
    pub clean_stop: bool,
    /// Why a torn tail will be cut at the next start, if one will.
    pub torn: Option<String>,
    /// What recovery says is damaged, one line each.
    pub damage: Vec<String>,
    /// The topics by name.
    pub topics: Vec<ListedTopic>,
    /// The slots by number.
    pub segments: Vec<ListedSegment>,
}

/// Lists a peer's directory.
///
/// # Errors
/// If it cannot be read, or a server works there.
pub fn list(dir: &Path) -> Result<Listing, OfflineError> {
    let image = Image::open(dir)?;
    let topics = image.topics().map(|topic| ListedTopic {
        id: topic.id,
        row: topic.row.clone(),
        subscriptions: topic.subscriptions.clone().into_iter().collect(),
        histories: topic.histories.clone(),
        consumer_groups: topic
            .consumers
            .groups()
            .map(|(name, row)| {
                let unsettled = topic.consumers.unsettled(row, topic.row.end);
                (name.clone(), row.clone(), unsettled)
            })
            .collect(),
    });
    let listing = Listing {
        peer: image.state().peer().clone(),
        journal_format: FORMAT_VERSION,
        catalog_format: image.catalog.format,
        applied: image.catalog.applied,
        catalog_faults: image.catalog.faults.clone(),
        slot_bytes: image.journal.slot_bytes(),
        clean_stop: image.walked.clean_stop,
        torn: image.walked.torn.clone(),
        damage: image.walked.damage.clone(),
        topics: topics.collect(),
        segments: segments(&image),
    };
    image.check_undisturbed()?;
    Ok(listing)
}

pub(super) fn segments(image: &Image) -> Vec<ListedSegment> {
    let mut listed = Vec::new();
    for slot in &image.slots {
        let header = slot.header.header();
        let mut held = image.segments.values();
        let view = held.rfind(|view| view.header.slot == slot.id);
        let segment = match (view, header) {
            (Some(view), _) => in_use(view, image),
            (None, Some(header)) => ListedSegment {
                segment: Some(header.segment),
                kind: Some(header.kind),
                ..unused(slot.id, SegmentUse::Free)
            },
            (None, None) if slot.is_unused() => unused(slot.id, SegmentUse::Free),
            (None, None) => unused(slot.id, SegmentUse::Unreadable),
        };
        listed.push(segment);
    }
    listed
}

fn unused(slot: u32, used: SegmentUse) -> ListedSegment {
    ListedSegment {
        slot,
        segment: None,
        kind: None,
        used,
        contents_bytes: 0,
        groups: None,
        damaged: used == SegmentUse::Unreadable,
    }
}

fn in_use(view: &SegmentView, image: &Image) -> ListedSegment {
    let groups = match (&view.row, image.walked.contents.get(&view.number)) {
        (Some(row), _) => (row.first_group, row.last_group),
        (None, Some(contents)) => (contents.first_group, contents.last_group),
        (None, None) => (0, 0),
    };
    ListedSegment {
        slot: view.header.slot,
        segment: Some(view.number),
        kind: Some(view.header.kind),
        used: match view.row {
            Some(_) => SegmentUse::Sealed,
            None => SegmentUse::Open,
        },
        contents_bytes: u64::from(view.end - crate::journal::FIRST_POSITION.min(view.end)),
        groups: (groups.0 > 0).then_some(groups),
        damaged: view.damaged,
    }
}
