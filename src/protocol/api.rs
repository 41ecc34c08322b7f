//! Requests and answers: who may send what to whom.
//!
//! A control request is a struct with [`Request`]; its answer is another. Both
//! are encoded by [`codec`]. `Publish` and `Fetch` are
//! raw and live in [`data`](crate::protocol::data). Within a version of a
//! request its fields never change; a new field means a new version.

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::limits;
use crate::protocol::codec::{self, Malformed};
use crate::time::Timestamp;
use crate::types::{
    Address, Gap, Generation, LeaderEpoch, Offset, PeerId, PeerName, Retention, SubscriptionName,
    TopicId, TopicName, TopicPattern, TopicSettings,
};

/// First bytes of every hello: `TIDE`.
pub const MAGIC: [u8; 4] = *b"TIDE";
/// Oldest protocol version spoken.
pub const PROTOCOL_MIN: u16 = 1;
/// Newest protocol version spoken.
pub const PROTOCOL_MAX: u16 = 1;

/// Who answers a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnsweredBy {
    /// Index servers and peers.
    Both,
    /// Index servers only.
    Index,
    /// Peers only.
    Peer,
}

macro_rules! apis {
    ($($(#[$doc:meta])* $name:ident = $number:literal by $by:ident,)*) => {
        /// The requests, by their number on the wire.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u16)]
        pub enum Api {
            $($(#[$doc])* $name = $number,)*
        }

        impl Api {
            /// All of them, in order.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The request of that number.
            pub const fn from_number(number: u16) -> Option<Self> {
                match number {
                    $($number => Some(Self::$name),)*
                    _ => None,
                }
            }

            /// Its name.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)*
                }
            }

            /// Who answers it.
            pub const fn answered_by(self) -> AnsweredBy {
                match self {
                    $(Self::$name => AnsweredBy::$by,)*
                }
            }
        }
    };
}

apis! {
    /// Opens a connection.
    Hello = 1 by Both,
    /// Is anybody there?
    Ping = 2 by Both,
    /// What does this node use and count?
    Figures = 3 by Both,
    /// Everything this node counts, for whoever watches it.
    Metrics = 4 by Both,
    /// Who hosts a topic?
    Lookup = 10 by Both,
    /// Which topics are there, and who hosts them?
    ListTopics = 11 by Both,
    /// Which peers are there?
    ListPeers = 12 by Both,
    /// Which peer should host a new topic?
    PlaceTopic = 13 by Both,
    /// Unregister a peer that will not come back.
    RetirePeer = 14 by Both,
    /// A peer introduces itself.
    RegisterPeer = 20 by Index,
    /// A part of the list of topics that a registering peer stores.
    RegisterTopics = 21 by Index,
    /// A peer lives.
    Heartbeat = 22 by Index,
    /// A peer ends gracefully, or leaves for good.
    Depart = 23 by Index,
    /// A peer asks for a name.
    ClaimTopic = 24 by Index,
    /// The claimed topic is durable at the peer.
    ConfirmTopic = 25 by Index,
    /// A topic, or one name of it, is gone.
    DropTopic = 26 by Index,
    /// Wait for changes of the registry.
    Watch = 27 by Index,
    /// Create a topic here.
    CreateTopic = 40 by Peer,
    /// Delete a topic.
    DeleteTopic = 41 by Peer,
    /// Everything about one topic.
    DescribeTopic = 42 by Peer,
    /// The same for all topics stored here.
    DescribeTopics = 43 by Peer,
    /// Change settings.
    SetTopic = 44 by Peer,
    /// Give a topic another name.
    RenameTopic = 45 by Peer,
    /// Discard old records.
    PurgeTopic = 46 by Peer,
    /// End a quarantine.
    AcceptLoss = 47 by Peer,
    /// Turn a place ("the last 10", "an hour ago") into an offset.
    FindOffset = 48 by Peer,
    /// How is this peer?
    PeerStatus = 49 by Peer,
    /// Append a record batch.
    Publish = 50 by Peer,
    /// Read record batches.
    Fetch = 51 by Peer,
    /// Make a subscription.
    CreateSubscription = 60 by Peer,
    /// Remove one.
    DeleteSubscription = 61 by Peer,
    /// Everything about one subscription.
    DescribeSubscription = 62 by Peer,
    /// The same for all of a topic, or of the peer.
    ListSubscriptions = 63 by Peer,
    /// Move one.
    SeekSubscription = 64 by Peer,
    /// Confirm what was consumed.
    Commit = 65 by Peer,
}

/// A control request: its number, version and answer.
pub trait Request: Serialize + DeserializeOwned + Send + 'static {
    /// Its number on the wire.
    const API: Api;
    /// The version of its body and of its answer's.
    const VERSION: u8 = 1;
    /// What is answered.
    type Answer: Serialize + DeserializeOwned + Send + 'static;

    /// Encodes the body.
    fn encode(&self) -> Result<Vec<u8>, Malformed> {
        codec::encode(self, limits::CONTROL_BYTES_MAX, Self::API.name())
    }

    /// Decodes the body.
    fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        codec::decode(bytes, limits::CONTROL_BYTES_MAX, Self::API.name())
    }

    /// Encodes the body of an answer.
    fn encode_answer(answer: &Self::Answer) -> Result<Vec<u8>, Malformed> {
        codec::encode(answer, limits::CONTROL_BYTES_MAX, Self::API.name())
    }

    /// Decodes the body of an answer.
    fn decode_answer(bytes: &[u8]) -> Result<Self::Answer, Malformed> {
        codec::decode(bytes, limits::CONTROL_BYTES_MAX, Self::API.name())
    }
}

macro_rules! request {
    ($name:ident => $answer:ty) => {
        impl Request for $name {
            const API: Api = Api::$name;
            type Answer = $answer;
        }
    };
}

/// The empty answer: it is done, durably where that means something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {}

// --- hello -------------------------------------------------------------------

/// Opens a connection. Its first four bytes are [`MAGIC`] in every version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`MAGIC`].
    pub magic: [u8; 4],
    /// Oldest protocol version the client speaks.
    pub protocol_min: u16,
    /// Newest protocol version the client speaks.
    pub protocol_max: u16,
    /// Name and version of the client program, for logs; at most 255 bytes.
    pub client: String,
    /// Optional abilities of the client, none defined yet: 0.
    pub features: u64,
}
request!(Hello => HelloAnswer);

/// What kind of node answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Keeps the registry.
    Index,
    /// Hosts topics.
    Peer,
}

/// The node behind the connection, and its limits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HelloAnswer {
    /// Protocol version of everything that follows.
    pub protocol: u16,
    /// Index server or peer.
    pub role: Role,
    /// Identity of the node; zero for an index server.
    pub node: PeerId,
    /// Its name; `index` for an index server.
    pub name: String,
    /// Name and version of the server program.
    pub server: String,
    /// Optional abilities of the server, none defined yet: 0.
    pub features: u64,
    /// Largest frame it takes, in bytes.
    pub frame_bytes_max: u32,
    /// Largest message it takes, in bytes.
    pub message_bytes_max: u32,
    /// Most unanswered requests per connection before it stops reading.
    pub requests_unanswered_max: u32,
    /// Most unanswered publishes per producer for which it remembers retries.
    pub publishes_unanswered_max: u32,
    /// Index servers it knows.
    pub indexes: Vec<Address>,
}

/// Is anybody there?
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ping {}
request!(Ping => Done);

/// What does this node use, and what does it count?
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Figures {}
request!(Figures => FiguresAnswer);

/// Figures of a node by name. Not every node has every figure, and further names may come; those
/// there are now are in the page of the protocol.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FiguresAnswer {
    /// Tells the process from others: nodes of one process use the same memory.
    pub process: Nonce,
    /// The figures.
    pub figures: Vec<Figure>,
}

/// One figure of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Figure {
    /// Its name, with its unit at the end.
    pub name: String,
    /// How much it is now, or since the process started.
    pub value: u64,
}

impl FiguresAnswer {
    /// Adds a figure.
    pub fn add(&mut self, name: &str, value: u64) {
        self.figures.push(Figure {
            name: name.to_owned(),
            value,
        });
    }

    /// The figure of that name, if the node has it.
    pub fn get(&self, name: &str) -> Option<u64> {
        let found = self.figures.iter().find(|figure| figure.name == name);
        found.map(|figure| figure.value)
    }
}

/// Everything this node counts, page by page, in the order of the page of the protocol.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metrics {
    /// Last series of the page before.
    pub after: Option<MetricPlace>,
    /// Most series wanted, at most [`limits::PAGE_ENTRIES_MAX`].
    pub limit: u32,
}
request!(Metrics => MetricsPage);

/// Which series of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetricPlace {
    /// Name of the figure.
    pub figure: String,
    /// Values of its labels.
    pub labels: Vec<String>,
}

/// One page of [`Metrics`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetricsPage {
    /// The series, by figure. The last figure may go on in the next page.
    pub families: Vec<MetricFamily>,
    /// Whether more follow.
    pub more: bool,
}

/// What kind of figure it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MetricKind {
    /// Only grows, from the start of the process on.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Values counted by size.
    Histogram,
}

/// Series of one figure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetricFamily {
    /// Its name, with its unit.
    pub name: String,
    /// Its kind.
    pub kind: MetricKind,
    /// What it means.
    pub help: String,
    /// How many of what is told make one of its unit: times are told in millionths of a second.
    pub ticks: u64,
    /// Names of its labels.
    pub labels: Vec<String>,
    /// Upper bounds of the classes of a histogram.
    pub bounds: Vec<u64>,
    /// The series, in the order of their labels.
    pub samples: Vec<MetricSample>,
}

/// One series.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetricSample {
    /// Values of the labels.
    pub labels: Vec<String>,
    /// How much it is; of a histogram the sum of its values.
    pub value: u64,
    /// Values in each class of a histogram, one class more than bounds.
    pub classes: Vec<u64>,
}

// --- topics and peers, as the index knows them ----------------------------------

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
    /// Most entries wanted, at most [`limits::PAGE_ENTRIES_MAX`].
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
    /// At most [`limits::PAGE_ENTRIES_MAX`] topics.
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

/// A peer asks for a name, for [`limits::CLAIM_KEPT_FOR`]. Claiming a second
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
    /// Longest wait, in milliseconds, at most [`limits::FETCH_WAIT_MAX`].
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

// --- topics at their host ----------------------------------------------------------

/// Create a topic here. The peer claims the name, makes it durable and confirms it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateTopic {
    /// Name.
    pub name: TopicName,
    /// Settings.
    pub settings: TopicSettings,
    /// Answer with the existing topic of that name here instead of `TopicExists`.
    pub if_not_exists: bool,
}
request!(CreateTopic => CreatedTopic);

/// The topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreatedTopic {
    /// All about it.
    pub topic: TopicInfo,
    /// Whether this request made it.
    pub created: bool,
}

/// Everything a host knows about one of its topics.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicInfo {
    /// Name.
    pub name: TopicName,
    /// Id.
    pub id: TopicId,
    /// Leader epoch.
    pub epoch: LeaderEpoch,
    /// Settings.
    pub settings: TopicSettings,
    /// First offset kept.
    pub start_offset: Offset,
    /// First offset readers cannot have yet.
    pub end_offset: Offset,
    /// First offset that is not on the disk yet.
    pub durable_end_offset: Offset,
    /// Live bytes of record batches.
    pub bytes: u64,
    /// When it was created.
    pub created: Timestamp,
    /// When its last record was appended.
    pub last_append: Option<Timestamp>,
    /// Number of subscriptions.
    pub subscriptions: u64,
    /// Publishing is refused until the loss is accepted.
    pub quarantined: bool,
    /// The name belongs to another topic at the index; this one is stored, unpublished.
    pub conflict: bool,
    /// Offsets inside `[start, end)` that no reader will see.
    pub gaps: Vec<Gap>,
}

/// Delete a topic and everything in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeleteTopic {
    /// Name.
    pub name: TopicName,
    /// If given, only a topic of this id is meant.
    pub id: Option<TopicId>,
}
request!(DeleteTopic => Done);

/// Everything about one topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DescribeTopic {
    /// Name.
    pub name: TopicName,
}
request!(DescribeTopic => TopicInfo);

/// Everything about all topics stored here, in the order of their names, page by page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DescribeTopics {
    /// Which names.
    pub pattern: TopicPattern,
    /// Last name of the page before.
    pub after: Option<TopicName>,
    /// Most entries wanted.
    pub limit: u32,
}
request!(DescribeTopics => TopicInfoPage);

/// One page of [`DescribeTopics`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicInfoPage {
    /// The entries.
    pub topics: Vec<TopicInfo>,
    /// Whether more follow.
    pub more: bool,
}

/// Change settings; they replace the old ones whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetTopic {
    /// Name.
    pub name: TopicName,
    /// What changes.
    pub changes: TopicChanges,
}
request!(SetTopic => TopicInfo);

/// Changes of settings: `None` leaves one as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct TopicChanges {
    /// Durability.
    pub durability: Option<crate::types::Durability>,
    /// Age kept, in milliseconds; `Some(None)` removes the bound.
    pub retain_age_ms: Option<Option<u64>>,
    /// Bytes kept.
    pub retain_bytes: Option<Option<u64>>,
    /// Records kept.
    pub retain_records: Option<Option<u64>>,
}

impl TopicChanges {
    /// The settings after the changes.
    pub fn apply(&self, to: TopicSettings) -> TopicSettings {
        TopicSettings {
            durability: self.durability.unwrap_or(to.durability),
            retention: Retention {
                age_ms: self.retain_age_ms.unwrap_or(to.retention.age_ms),
                bytes: self.retain_bytes.unwrap_or(to.retention.bytes),
                records: self.retain_records.unwrap_or(to.retention.records),
            },
        }
    }
}

/// Give a topic another name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenameTopic {
    /// Its name.
    pub name: TopicName,
    /// The name it gets.
    pub new: TopicName,
}
request!(RenameTopic => TopicInfo);

/// Discard records up to a place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PurgeTopic {
    /// Name.
    pub name: TopicName,
    /// The first record to keep.
    pub before: Position,
}
request!(PurgeTopic => TopicInfo);

/// End a quarantine: the topic goes on at its claimed end, what is missing becomes a gap.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcceptLoss {
    /// Name.
    pub name: TopicName,
}
request!(AcceptLoss => AcceptedLoss);

/// What was given up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcceptedLoss {
    /// The missing offsets.
    pub gap: Gap,
}

/// A place in a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Position {
    /// The first record kept.
    Beginning,
    /// After the last readable record.
    End,
    /// That offset.
    Offset(Offset),
    /// So many records before the end.
    Back(u64),
    /// The first record appended at or after that time.
    Time(Timestamp),
}

/// Turn a place into an offset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FindOffset {
    /// Topic.
    pub topic: TopicName,
    /// Place.
    pub position: Position,
}
request!(FindOffset => FoundOffset);

/// The offset, and the topic it belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundOffset {
    /// Topic id.
    pub id: TopicId,
    /// Leader epoch.
    pub epoch: LeaderEpoch,
    /// The offset, inside `[start, end]` of the topic.
    pub offset: Offset,
    /// First offset kept.
    pub start_offset: Offset,
    /// First offset not readable yet.
    pub end_offset: Offset,
}

/// How is this peer?
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerStatus {}
request!(PeerStatus => PeerStatusAnswer);

/// What a peer tells of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerStatusAnswer {
    /// Identity.
    pub id: PeerId,
    /// Name.
    pub name: PeerName,
    /// Program version.
    pub version: String,
    /// When the process started.
    pub started: Timestamp,
    /// Its load.
    pub load: PeerLoad,
    /// Resident memory, in bytes.
    pub rss_bytes: u64,
    /// Processor time used, in milliseconds.
    pub cpu_ms: u64,
    /// Bytes of record batches taken since the start.
    pub payload_bytes: u64,
    /// Bytes the process caused to be written to the disk since the start.
    pub disk_written_bytes: u64,
    /// Number of journal segments.
    pub segments: u64,
    /// Bytes the journal takes on disk.
    pub journal_bytes: u64,
    /// Damage found, one line each.
    pub damage: Vec<String>,
    /// Whether the index answers.
    pub index_reachable: bool,
}

// --- subscriptions -------------------------------------------------------------------

/// Make a subscription.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateSubscription {
    /// Topic.
    pub topic: TopicName,
    /// Name.
    pub name: SubscriptionName,
    /// Where it begins.
    pub from: Position,
    /// Answer with the existing one instead of `SubscriptionExists`.
    pub if_not_exists: bool,
}
request!(CreateSubscription => SubscriptionInfo);

/// Everything about one subscription.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubscriptionInfo {
    /// Topic.
    pub topic: TopicName,
    /// Topic id.
    pub topic_id: TopicId,
    /// The topic's leader epoch.
    pub epoch: LeaderEpoch,
    /// Name.
    pub name: SubscriptionName,
    /// Next offset to read.
    pub committed_offset: Offset,
    /// Generation that commits must carry.
    pub generation: Generation,
    /// First offset the topic keeps.
    pub start_offset: Offset,
    /// First offset not readable yet.
    pub end_offset: Offset,
    /// Age of the oldest record not confirmed, in milliseconds; 0 when none waits.
    pub lag_ms: u64,
    /// When it was made.
    pub created: Timestamp,
    /// When it was last committed.
    pub last_commit: Option<Timestamp>,
}

/// Remove a subscription.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeleteSubscription {
    /// Topic.
    pub topic: TopicName,
    /// Name.
    pub name: SubscriptionName,
}
request!(DeleteSubscription => Done);

/// Everything about one subscription.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DescribeSubscription {
    /// Topic.
    pub topic: TopicName,
    /// Name.
    pub name: SubscriptionName,
}
request!(DescribeSubscription => SubscriptionInfo);

/// All subscriptions of a topic, or of the peer; ordered by topic and name, page by page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListSubscriptions {
    /// Only of this topic.
    pub topic: Option<TopicName>,
    /// Last entry of the page before.
    pub after: Option<(TopicName, SubscriptionName)>,
    /// Most entries wanted.
    pub limit: u32,
}
request!(ListSubscriptions => SubscriptionPage);

/// One page of [`ListSubscriptions`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubscriptionPage {
    /// The entries.
    pub subscriptions: Vec<SubscriptionInfo>,
    /// Whether more follow.
    pub more: bool,
}

/// Move a subscription.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeekSubscription {
    /// Topic.
    pub topic: TopicName,
    /// Name.
    pub name: SubscriptionName,
    /// Where to.
    pub to: Position,
    /// Only tell what would happen.
    pub dry_run: bool,
}
request!(SeekSubscription => Sought);

/// What the move did or would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sought {
    /// Where it stood.
    pub from: Offset,
    /// Where it stands now, or would.
    pub to: Offset,
    /// The subscription now.
    pub subscription: SubscriptionInfo,
}

/// Confirm everything before `offset`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commit {
    /// Topic.
    pub topic: TopicId,
    /// Subscription.
    pub name: SubscriptionName,
    /// Generation it was read under.
    pub generation: Generation,
    /// Next offset to read.
    pub offset: Offset,
}
request!(Commit => Committed);

/// The position now, durable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Committed {
    /// Highest committed offset of this generation.
    pub offset: Offset,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_find_their_requests_back() {
        for &api in Api::ALL {
            assert_eq!(Api::from_number(api as u16), Some(api));
        }
        assert_eq!(Api::from_number(0), None);
        assert_eq!(Api::from_number(u16::MAX), None);
    }

    #[test]
    fn bodies_refuse_trailing_bytes_and_every_truncation() {
        let lookup = Lookup {
            name: "quakes.ci".parse().expect("good"),
            local_only: true,
        };
        let bytes = lookup.encode().expect("small");
        assert_eq!(Lookup::decode(&bytes), Ok(lookup));
        for cut in 0..bytes.len() {
            assert!(
                Lookup::decode(&bytes[..cut]).is_err(),
                "cut at {cut} was accepted"
            );
        }
        let mut longer = bytes.clone();
        longer.push(0);
        assert!(Lookup::decode(&longer).is_err());
    }
}
