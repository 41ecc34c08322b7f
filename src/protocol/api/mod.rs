//! Requests and answers: who may send what to whom.
//!
//! A control request is a struct with [`Request`]; its answer is another. Both
//! are encoded by [`codec`]. `Publish`, `Fetch` and `Stream` are
//! raw and live in [`data`](crate::protocol::data), the answer to `TakeRecords` in
//! [`taken`](crate::protocol::taken). Within a version of a
//! request its fields never change; a new field means a new version.
//!
//! Here are the numbers of all requests and those that every node answers;
//! the others lie in a file for each subject.

mod consumers;
mod ends;
mod history;
mod later;
mod producers;
mod registry;
mod streams;
mod subscriptions;
mod topics;

pub use consumers::*;
pub use ends::*;
pub use history::*;
pub use later::*;
pub use producers::*;
pub use registry::*;
pub use streams::*;
pub use subscriptions::*;
pub use topics::*;

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::limits;
use crate::protocol::codec::{self, Malformed};
use crate::types::{Address, PeerId};

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

            /// Whether it brings a record batch to be stored: such bodies may be large.
            pub const fn is_publish(number: u16) -> bool {
                number == Self::Publish as u16 || number == Self::PublishExpecting as u16
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
    /// Be sent record batches as they come.
    Stream = 52 by Peer,
    /// Let more of a stream come, or end it.
    StreamCredit = 53 by Peer,
    /// Wait until ends of topics move.
    WatchEnds = 54 by Peer,
    /// What is remembered of a producer?
    DescribeProducer = 55 by Peer,
    /// Go on under a producer's name.
    OpenProducer = 56 by Peer,
    /// Append a record batch, if the topic ends where it is expected to.
    PublishExpecting = 57 by Peer,
    /// Erases the records of a key.
    PurgeKey = 59 by Peer,
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
    /// What moved one otherwise.
    SubscriptionHistory = 66 by Peer,
    /// Take the last such move back.
    UndoSubscription = 67 by Peer,
    /// Pause one, let it go on, or say when it expires.
    SetSubscription = 68 by Peer,
    /// Wait until one is paused or resumed, and say that it is read.
    WatchSubscription = 69 by Peer,
    /// Make a consumer group.
    CreateConsumerGroup = 70 by Peer,
    /// Change its options.
    SetConsumerGroup = 71 by Peer,
    /// Everything about one.
    DescribeConsumerGroup = 72 by Peer,
    /// All of a topic or of this peer.
    ListConsumerGroups = 73 by Peer,
    /// Remove one.
    DeleteConsumerGroup = 74 by Peer,
    /// Move one.
    SeekConsumerGroup = 75 by Peer,
    /// Become a member.
    JoinConsumerGroup = 76 by Peer,
    /// Take records as a member.
    TakeRecords = 77 by Peer,
    /// Say what became of them.
    SettleRecords = 78 by Peer,
    /// End a membership.
    LeaveConsumerGroup = 79 by Peer,
    /// Publish dead letters again.
    ReplayDeadLetters = 80 by Peer,
    /// Where do messages go that are to be delivered later?
    OpenLater = 81 by Peer,
    /// What is to be delivered later?
    ListLater = 82 by Peer,
    /// Deliver some of it never.
    CancelLater = 83 by Peer,
    /// Wait until subscriptions of a name are paused or resumed, and say that they are read.
    WatchSubscriptions = 85 by Peer,
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
use request;

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
