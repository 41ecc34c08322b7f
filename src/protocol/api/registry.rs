//! Topics and peers as the index knows them, and what a peer tells the index.

use serde::{Deserialize, Serialize};

use super::{Api, Done, Request, request};
use crate::time::Timestamp;
use crate::types::{Address, LeaderEpoch, PeerId, PeerName, TopicId, TopicName, TopicPattern};

/// Whether a peer can be reached, as far as the index knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PeerState {
    /// Its lease is valid.
    Online,
    /// It said that it ends.
    Offline,
    /// Its lease ran out.
    Down,
}

impl std::fmt::Display for PeerState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Online => "online",
            Self::Offline => "offline",
            Self::Down => "down",
        })
    }
}

/// Where a topic is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicLocation {
    /// The topic's name.
    pub name: TopicName,
    /// Its id.
    pub id: TopicId,
    /// Its leader epoch.
    pub epoch: LeaderEpoch,
    /// Identity of its host.
    pub peer: PeerId,
    /// Name of its host.
    pub peer_name: PeerName,
    /// Address of its host.
    pub address: Address,
    /// Whether the host can be reached.
    pub state: PeerState,
    /// Since when it is in that state.
    pub since: Timestamp,
}

/// Who hosts a topic?
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lookup {
    /// Its name.
    pub name: TopicName,
    /// A peer answers from its own topics only, without asking others.
    pub local_only: bool,
}
request!(Lookup => TopicLocation);

/// Which topics are there? In the order of their names, page by page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListTopics {
    /// Which names.
    pub pattern: TopicPattern,
    /// Last name of the page before.
    pub after: Option<TopicName>,
    /// Most entries wanted, at most [`limits::PAGE_ENTRIES_MAX`](crate::limits::PAGE_ENTRIES_MAX).
    pub limit: u32,
}
request!(ListTopics => TopicPage);

/// One page of [`ListTopics`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicPage {
    /// The entries.
    pub topics: Vec<TopicLocation>,
    /// Whether more follow.
    pub more: bool,
}

/// How busy a peer is, as it tells with every heartbeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct PeerLoad {
    /// Topics hosted.
    pub topics: u64,
    /// Bytes stored and live.
    pub stored_bytes: u64,
    /// Published bytes per second, over the last heartbeat.
    pub bytes_in_per_second: u64,
    /// Fetched bytes per second, over the last heartbeat.
    pub bytes_out_per_second: u64,
    /// Open connections.
    pub connections: u64,
    /// Free bytes on its file system.
    pub disk_free_bytes: u64,
}

/// A peer as the index knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerInfo {
    /// Identity.
    pub id: PeerId,
    /// Name.
    pub name: PeerName,
    /// Where clients reach it.
    pub address: Address,
    /// Whether it can be reached.
    pub state: PeerState,
    /// Since when.
    pub since: Timestamp,
    /// Topics registered by it.
    pub topics: u64,
    /// Names on which it and another peer are in conflict: of topics it stores whose
    /// names belong to others, and of topics of its own whose names others want. Some of many.
    pub conflicts: Vec<TopicName>,
    /// What it last told of its load.
    pub load: PeerLoad,
}

/// Which peers are there?
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListPeers {}
request!(ListPeers => Vec<PeerInfo>);

/// Which peer should host a new topic of that name?
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlaceTopic {
    /// The name to be; an existing one is answered with `TopicExists`.
    pub name: TopicName,
    /// The peer it should be on, if the client minds.
    pub on: Option<PeerName>,
}
request!(PlaceTopic => Placement);

/// The chosen peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    /// Identity.
    pub peer: PeerId,
    /// Name.
    pub name: PeerName,
    /// Address.
    pub address: Address,
}

/// Unregister a peer that will not come back; its topics' names are free again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetirePeer {
    /// Its name.
    pub name: PeerName,
}
request!(RetirePeer => Retired);

/// What retiring did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retired {
    /// How many names are free again.
    pub topics: u64,
}

// --- peer to index ---------------------------------------------------------------

/// Tells processes of one identity apart: random, made at each start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Nonce(pub [u8; 16]);

/// A peer introduces itself; its topics follow in [`RegisterTopics`], and count
/// from the last part on. The newest registration of an identity wins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegisterPeer {
    /// Identity.
    pub peer: PeerId,
    /// Name.
    pub name: PeerName,
    /// Where clients reach it.
    pub address: Address,
    /// This process.
    pub nonce: Nonce,
    /// Its load.
    pub load: PeerLoad,
}
request!(RegisterPeer => Registered);

/// The index took the introduction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registered {
    /// Lease, in milliseconds: a heartbeat must come before it runs out.
    pub lease_ms: u64,
}

/// A topic that a registering peer stores.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredTopic {
    /// Name.
    pub name: TopicName,
    /// Id.
    pub id: TopicId,
    /// Leader epoch.
    pub epoch: LeaderEpoch,
}

/// A part of the full list of topics. The whole list replaces what the index had.
/// It has to be made after [`RegisterPeer`] was sent: what the peer confirms or
/// drops from then on is applied to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegisterTopics {
    /// Identity.
    pub peer: PeerId,
    /// This process.
    pub nonce: Nonce,
    /// Which part, from 0.
    pub part: u32,
    /// Whether it is the last one.
    pub last: bool,
    /// At most [`limits::PAGE_ENTRIES_MAX`](crate::limits::PAGE_ENTRIES_MAX) topics.
    pub topics: Vec<StoredTopic>,
}
request!(RegisterTopics => RegisteredTopics);

/// A name that belongs to another topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conflict {
    /// The name.
    pub name: TopicName,
    /// Id of the returning topic, which stays stored and unpublished.
    pub id: TopicId,
    /// Who hosts the topic that holds the name.
    pub holder: PeerName,
}

/// What the index made of the list; conflicts are told with the last part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegisteredTopics {
    /// Names held by others.
    pub conflicts: Vec<Conflict>,
}

/// A peer lives. `NotRegistered` asks it to register, `Displaced` tells it that another process did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// Identity.
    pub peer: PeerId,
    /// This process.
    pub nonce: Nonce,
    /// Its load.
    pub load: PeerLoad,
}
request!(Heartbeat => Done);

/// A peer ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Depart {
    /// Identity.
    pub peer: PeerId,
    /// This process.
    pub nonce: Nonce,
    /// For good: unregister it and free its topics' names. Otherwise it is offline.
    pub leave: bool,
}
request!(Depart => Done);

/// A peer asks for a name, for [`limits::CLAIM_KEPT_FOR`](crate::limits::CLAIM_KEPT_FOR). Claiming a second
/// name for an id is how a topic is renamed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimTopic {
    /// Identity.
    pub peer: PeerId,
    /// This process.
    pub nonce: Nonce,
    /// The name.
    pub name: TopicName,
    /// The id the topic has or will have.
    pub id: TopicId,
}
request!(ClaimTopic => Claimed);

/// The name is granted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claimed {
    /// Leader epoch of the topic at this host.
    pub epoch: LeaderEpoch,
}

/// The claimed topic is durable at the peer: publish the name. Another name of
/// the same id is dropped in the same step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfirmTopic {
    /// Identity.
    pub peer: PeerId,
    /// This process.
    pub nonce: Nonce,
    /// The name.
    pub name: TopicName,
    /// The id.
    pub id: TopicId,
    /// The epoch that was granted.
    pub epoch: LeaderEpoch,
}
request!(ConfirmTopic => Done);

/// A topic is gone, or a claim is given back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DropTopic {
    /// Identity.
    pub peer: PeerId,
    /// This process.
    pub nonce: Nonce,
    /// The name.
    pub name: TopicName,
    /// The id: a topic of another id under that name is left alone.
    pub id: TopicId,
}
request!(DropTopic => Done);

/// Wait for changes of the registry after `version`, at most `max_wait_ms`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watch {
    /// Version of the registry the client has seen; 0 for none.
    pub version: u64,
    /// Which topics.
    pub pattern: TopicPattern,
    /// Longest wait, in milliseconds, at most [`limits::FETCH_WAIT_MAX`](crate::limits::FETCH_WAIT_MAX).
    pub max_wait_ms: u32,
}
request!(Watch => Changes);

/// What changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changes {
    /// Version of the registry now; pass it to the next watch.
    pub version: u64,
    /// The index no longer knows what changed since: list everything anew.
    pub reset: bool,
    /// New or moved topics, and topics whose host changed its state.
    pub changed: Vec<TopicLocation>,
    /// Names that are gone.
    pub dropped: Vec<TopicName>,
}
