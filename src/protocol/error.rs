//! What can be answered instead of what was asked for.
//!
//! Every error has a stable number and name, says whether the same request may
//! succeed later, and carries fields a program can act on. On the wire it is
//! [`ErrorBody`]; a client that does not know a number still has the text.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::limits;
use crate::protocol::codec::{self, Malformed};
use crate::types::{
    Address, Generation, LeaderEpoch, MemberId, Offset, PeerName, ProducerEpoch, Sequence,
    SubscriptionName, TopicId, TopicName,
};

/// An error as one node answers it to another. The order of the variants is
/// part of the protocol: new ones go to the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Error)]
pub enum ApiError {
    /// The frame is not one of this protocol; the connection is closed after it.
    #[error("bad frame: {reason}")]
    BadFrame {
        /// What was expected and what was found.
        reason: String,
    },
    /// No such request at this node.
    #[error("unknown request {api}")]
    UnknownApi {
        /// The number that was sent.
        api: u16,
    },
    /// The request or the protocol exists, but not in this version.
    #[error("version {given} of {what} is not supported: this node speaks {min} to {max}")]
    UnsupportedVersion {
        /// "protocol" or the request's name.
        what: String,
        /// What was asked for.
        given: u16,
        /// Oldest version spoken here.
        min: u16,
        /// Newest version spoken here.
        max: u16,
    },
    /// A request came before the hello.
    #[error("the first frame must be a hello")]
    HelloRequired,
    /// A frame longer than the limit the hello answer told.
    #[error("frame of {bytes} bytes: at most {max} are allowed")]
    FrameTooLarge {
        /// Length that was announced.
        bytes: u64,
        /// Length that is allowed.
        max: u64,
    },
    /// A body that does not decode.
    #[error("malformed {what}: {reason}")]
    Malformed {
        /// What it was to be.
        what: String,
        /// What is wrong.
        reason: String,
    },
    /// The node is full.
    #[error("too many connections: this node takes {max}")]
    TooManyConnections {
        /// How many it takes.
        max: u64,
    },
    /// The request belongs to the other kind of node.
    #[error("{request} is answered by {answered_by}, and this is {this_is}")]
    WrongRole {
        /// Name of the request.
        request: String,
        /// "an index server" or "a peer".
        answered_by: String,
        /// "an index server" or "a peer".
        this_is: String,
    },
    /// The node is ending; ask again when it is back.
    #[error("the node is shutting down")]
    ShuttingDown,
    /// No topic of that name is known.
    #[error("topic {name} does not exist")]
    TopicNotFound {
        /// The name asked for.
        name: TopicName,
    },
    /// No topic of that id is stored here (any more).
    #[error("topic id {id} is not stored here: the topic was deleted, or moved")]
    UnknownTopicId {
        /// The id asked for.
        id: TopicId,
    },
    /// A topic of that name exists already.
    #[error("topic {name} exists already")]
    TopicExists {
        /// The name.
        name: TopicName,
    },
    /// The topic lives elsewhere: go there.
    #[error("topic {name} is hosted by peer {peer} at {address}")]
    NotHosted {
        /// The topic.
        name: TopicName,
        /// Name of the peer that hosts it.
        peer: PeerName,
        /// Its address.
        address: Address,
        /// Leader epoch of that fact.
        epoch: LeaderEpoch,
    },
    /// The request carries another leader epoch than the topic has.
    #[error("stale leader epoch {given}: the topic is at {current}")]
    StaleEpoch {
        /// What was sent.
        given: LeaderEpoch,
        /// What holds.
        current: LeaderEpoch,
    },
    /// The end of the topic is uncertain after damage; it is readable, not writable.
    #[error(
        "topic {name} is quarantined: records from offset {end} on were lost to damage; \
         'tidings topic accept-loss {name}' goes on without them"
    )]
    TopicQuarantined {
        /// The topic.
        name: TopicName,
        /// End of what is intact.
        end: Offset,
    },
    /// The name belongs to another topic at the index; this one is stored, unpublished, and can be renamed.
    #[error("the name {name} belongs to another topic, hosted by {holder}; rename this one")]
    NameConflict {
        /// The name.
        name: TopicName,
        /// Who hosts the topic that holds it.
        holder: PeerName,
    },
    /// The peer hosts as many topics as it takes.
    #[error("too many topics: this peer takes {max}")]
    TooManyTopics {
        /// How many it takes.
        max: u64,
    },
    /// A record batch that is not what it says.
    #[error("bad record batch: {reason}")]
    BadBatch {
        /// What was expected and found.
        reason: String,
    },
    /// A message above the limit.
    #[error("message of {bytes} bytes: at most {max} are allowed")]
    MessageTooLarge {
        /// Its size.
        bytes: u64,
        /// The limit.
        max: u64,
    },
    /// Records before these are missing; they may be on their way.
    #[error("sequence gap: expected {expected}, found {given}")]
    SequenceGap {
        /// Next sequence of this producer.
        expected: Sequence,
        /// What was sent.
        given: Sequence,
    },
    /// A retry of something so old that nobody remembers whether it was stored.
    #[error(
        "sequence {given} is too old to tell whether it was stored: the oldest remembered is {oldest}"
    )]
    DuplicateTooOld {
        /// What was sent.
        given: Sequence,
        /// Oldest sequence remembered.
        oldest: Sequence,
    },
    /// The producer is not (or no longer) known and does not start at sequence 0.
    #[error("unknown producer: it expired, or its first batch did not arrive")]
    UnknownProducer,
    /// Too little free space; reading, committing and deleting go on.
    #[error(
        "nothing new is stored: {free_bytes} bytes are free on the node's disk, {needed_bytes} are kept in reserve"
    )]
    DiskReserve {
        /// Free on the file system.
        free_bytes: u64,
        /// Kept free.
        needed_bytes: u64,
    },
    /// The offset is not in the topic.
    #[error("offset {requested} is out of range: the topic holds [{start}, {end})")]
    OffsetOutOfRange {
        /// What was asked for.
        requested: Offset,
        /// First offset kept.
        start: Offset,
        /// First offset not readable yet.
        end: Offset,
    },
    /// Stored bytes changed after they were durable.
    #[error("offsets [{from}, {to}) are damaged on disk")]
    Damaged {
        /// First damaged offset.
        from: Offset,
        /// First offset after the damage.
        to: Offset,
    },
    /// No such subscription.
    #[error("subscription {name} on topic {topic} does not exist")]
    SubscriptionNotFound {
        /// The topic.
        topic: TopicName,
        /// The subscription.
        name: SubscriptionName,
    },
    /// A subscription of that name exists already.
    #[error("subscription {name} on topic {topic} exists already")]
    SubscriptionExists {
        /// The topic.
        topic: TopicName,
        /// The subscription.
        name: SubscriptionName,
    },
    /// The subscription was moved or made anew since; read its position again.
    #[error(
        "stale generation {given}: it is at {current} now, the subscription or consumer group was moved or made anew"
    )]
    StaleGeneration {
        /// What was sent.
        given: Generation,
        /// What holds.
        current: Generation,
    },
    /// A commit of records that are not readable yet.
    #[error("commit of offset {offset} is past the readable end {end}")]
    CommitPastEnd {
        /// What was sent.
        offset: Offset,
        /// The readable end.
        end: Offset,
    },
    /// The topic has as many subscriptions as it takes.
    #[error("too many subscriptions: a topic takes {max}")]
    TooManySubscriptions {
        /// How many it takes.
        max: u64,
    },
    /// Nothing can be created or renamed while no index answers.
    #[error("no index server answers: {reason}")]
    IndexUnavailable {
        /// What was tried.
        reason: String,
    },
    /// No peer of that name.
    #[error("peer {name} is not known to the index")]
    PeerNotFound {
        /// The name.
        name: PeerName,
    },
    /// No peer is online to host a topic.
    #[error("no peer is online: start one with 'tidings serve peer'")]
    NoPeerOnline,
    /// A newer process registered with the same identity: two processes run on copies of one directory.
    #[error("displaced: another process registered as this peer; was its data directory copied?")]
    Displaced,
    /// The index does not know the peer (any more); it has to register again.
    #[error("this peer is not registered")]
    NotRegistered,
    /// Another peer has that name.
    #[error("the peer name {name} is taken by another peer")]
    PeerNameTaken {
        /// The name.
        name: PeerName,
    },
    /// Someone else is creating a topic of that name just now.
    #[error("the name {name} is being claimed by another peer")]
    ClaimPending {
        /// The name.
        name: TopicName,
    },
    /// The peer that hosts it is not reachable now; its data is on its disk.
    #[error("peer {peer} is {state}: its topics are on its disk and come back with it")]
    PeerNotOnline {
        /// The peer.
        peer: PeerName,
        /// "offline" or "down".
        state: String,
    },
    /// The storage failed and the process is ending.
    #[error("storage stopped: {reason}")]
    StorageStopped {
        /// What failed.
        reason: String,
    },
    /// An argument that parses but makes no sense.
    #[error("invalid {what}: {reason}")]
    InvalidArgument {
        /// Which one.
        what: String,
        /// Why.
        reason: String,
    },
    /// An error of a newer node that this one has no variant for.
    #[error("{message}")]
    Other {
        /// Its number.
        code: u16,
        /// Its text.
        message: String,
        /// Whether it may be retried.
        retryable: bool,
    },
    /// The node gave the request up after taking it; whether it took effect is unknown.
    #[error("the request was given up without an answer: it may or may not have taken effect")]
    Unanswered,
    /// There is no loss to accept.
    #[error("topic {name} is not quarantined: it has no loss to accept")]
    NotQuarantined {
        /// The topic.
        name: TopicName,
    },
    /// The connection has no such stream (any more).
    #[error("this connection has no stream {stream}: it ended, or never was")]
    UnknownStream {
        /// The correlation that was given.
        stream: u32,
    },
    /// One stream more than a connection, or the node, may have.
    #[error("too many streams: {max} may be open")]
    TooManyStreams {
        /// How many it takes.
        max: u64,
    },
    /// Nothing was heard of a client with streams, which were ended therefore.
    #[error("the stream was ended: nothing was heard of the client for {silent_ms} ms")]
    ClientSilent {
        /// For how long.
        silent_ms: u64,
    },
    /// The topic refuses what is above its bounds, and this is; room comes with a purge, with age, or when
    /// subscriptions confirm.
    #[error(
        "topic {name} is full: it holds {records} messages in {bytes} bytes, and more would pass its bounds"
    )]
    TopicFull {
        /// The topic.
        name: TopicName,
        /// Records it holds.
        records: u64,
        /// Bytes of their batches.
        bytes: u64,
    },
    /// There is no change of a subscription's place to go back behind.
    #[error("there is nothing to undo: subscription {name} on topic {topic} {reason}")]
    NothingToUndo {
        /// The topic.
        topic: TopicName,
        /// The subscription.
        name: SubscriptionName,
        /// What was found.
        reason: String,
    },
    /// No such consumer group.
    #[error("consumer group {name} on topic {topic} does not exist")]
    ConsumerGroupNotFound {
        /// The topic.
        topic: TopicName,
        /// The group.
        name: SubscriptionName,
    },
    /// A consumer group of that name exists already; a subscription of the topic cannot have its name either.
    #[error("a consumer group {name} on topic {topic} exists already")]
    ConsumerGroupExists {
        /// The topic.
        topic: TopicName,
        /// The group.
        name: SubscriptionName,
    },
    /// The topic has as many consumer groups as it takes.
    #[error("too many consumer groups: a topic takes {max}")]
    TooManyConsumerGroups {
        /// How many it takes.
        max: u64,
    },
    /// The consumer group has as many members as it takes.
    #[error("too many members: a consumer group takes {max}")]
    TooManyMembers {
        /// How many it takes.
        max: u64,
    },
    /// Whoever takes or settles did not join on this connection, or its membership has ended.
    #[error("{member} is not a member of consumer group {name} on this connection: join first")]
    NotAMember {
        /// The group.
        name: SubscriptionName,
        /// Who it was.
        member: MemberId,
    },
    /// A record that a replay cannot publish again; those before it were.
    #[error("dead letter at offset {offset} cannot be replayed: {reason}")]
    NotReplayable {
        /// Which one.
        offset: Offset,
        /// Why.
        reason: String,
    },
    /// The topic does not end where the publisher expected it to.
    #[error(
        "the topic was expected to end at {expected}, and it ends at {found}: nothing was stored"
    )]
    UnexpectedEnd {
        /// What was sent.
        expected: Offset,
        /// The offset that the next record gets.
        found: Offset,
    },
    /// Another process goes on under the producer's name: this one stores nothing more.
    #[error(
        "fenced: another publisher goes on under this producer's name, it has epoch {current} and this one {given}"
    )]
    ProducerFenced {
        /// Epoch of the batch.
        given: ProducerEpoch,
        /// That of the newest process.
        current: ProducerEpoch,
    },
    /// The topic has forgotten named producers, and does not know this one.
    #[error(
        "nothing is known of this producer any more: it was not used for 7 days, or too many others were; \
         say where it goes on"
    )]
    ProducerForgotten,
    /// A message with an id, for a topic that would not know it again.
    #[error(
        "topic {name} remembers no message ids: 'tidings topic set {name} remember-ids-for=1d' lets it remember them"
    )]
    IdsNotRemembered {
        /// The topic.
        name: TopicName,
    },
    /// As many messages as the peer takes wait for their time; room comes when some are delivered or cancelled.
    #[error(
        "too many delayed messages: {max} wait for their time on this peer, and it takes no more"
    )]
    TooManyDelayed {
        /// How many it takes, about.
        max: u64,
    },
    /// More waits for the node's disk than it lets wait; nothing was done.
    #[error(
        "{max} requests wait for the disk already, and this one was not taken: try again in a while"
    )]
    Busy {
        /// How many may wait.
        max: u64,
    },
    /// What has to be read for it cannot be read at the moment: a file cannot be opened. Nothing was done.
    #[error(
        "what lies on the node's disk cannot be read at the moment, and nothing was done: {reason}"
    )]
    NotReadableNow {
        /// What failed.
        reason: String,
    },
}

impl ApiError {
    /// Nothing is stored any more, for that reason.
    pub fn stopped(reason: &(impl ToString + ?Sized)) -> Self {
        Self::StorageStopped {
            reason: reason.to_string(),
        }
    }

    /// The same behind a change that is durable already: what says that nothing was done would not be true.
    pub fn after_a_change(self) -> Self {
        match self {
            Self::Busy { .. } | Self::NotReadableNow { .. } => Self::Unanswered,
            other => other,
        }
    }

    /// The stable number and name.
    const fn identity(&self) -> (u16, &'static str) {
        match self {
            Self::BadFrame { .. } => (1, "BadFrame"),
            Self::UnknownApi { .. } => (2, "UnknownApi"),
            Self::UnsupportedVersion { .. } => (3, "UnsupportedVersion"),
            Self::HelloRequired => (4, "HelloRequired"),
            Self::FrameTooLarge { .. } => (5, "FrameTooLarge"),
            Self::Malformed { .. } => (6, "Malformed"),
            Self::TooManyConnections { .. } => (7, "TooManyConnections"),
            Self::WrongRole { .. } => (8, "WrongRole"),
            Self::ShuttingDown => (9, "ShuttingDown"),
            Self::TopicNotFound { .. } => (20, "TopicNotFound"),
            Self::UnknownTopicId { .. } => (21, "UnknownTopicId"),
            Self::TopicExists { .. } => (22, "TopicExists"),
            Self::NotHosted { .. } => (23, "NotHosted"),
            Self::StaleEpoch { .. } => (24, "StaleEpoch"),
            Self::TopicQuarantined { .. } => (25, "TopicQuarantined"),
            Self::NameConflict { .. } => (26, "NameConflict"),
            Self::TooManyTopics { .. } => (27, "TooManyTopics"),
            Self::NotQuarantined { .. } => (28, "NotQuarantined"),
            Self::TopicFull { .. } => (29, "TopicFull"),
            Self::BadBatch { .. } => (30, "BadBatch"),
            Self::MessageTooLarge { .. } => (31, "MessageTooLarge"),
            Self::SequenceGap { .. } => (32, "SequenceGap"),
            Self::DuplicateTooOld { .. } => (33, "DuplicateTooOld"),
            Self::UnknownProducer => (34, "UnknownProducer"),
            Self::DiskReserve { .. } => (35, "DiskReserve"),
            Self::UnexpectedEnd { .. } => (36, "UnexpectedEnd"),
            Self::ProducerFenced { .. } => (37, "ProducerFenced"),
            Self::ProducerForgotten => (38, "ProducerForgotten"),
            Self::IdsNotRemembered { .. } => (39, "IdsNotRemembered"),
            Self::OffsetOutOfRange { .. } => (40, "OffsetOutOfRange"),
            Self::Damaged { .. } => (41, "Damaged"),
            Self::UnknownStream { .. } => (42, "UnknownStream"),
            Self::TooManyStreams { .. } => (43, "TooManyStreams"),
            Self::ClientSilent { .. } => (44, "ClientSilent"),
            Self::SubscriptionNotFound { .. } => (50, "SubscriptionNotFound"),
            Self::SubscriptionExists { .. } => (51, "SubscriptionExists"),
            Self::StaleGeneration { .. } => (52, "StaleGeneration"),
            Self::CommitPastEnd { .. } => (53, "CommitPastEnd"),
            Self::TooManySubscriptions { .. } => (54, "TooManySubscriptions"),
            Self::NothingToUndo { .. } => (55, "NothingToUndo"),
            Self::ConsumerGroupNotFound { .. } => (70, "ConsumerGroupNotFound"),
            Self::ConsumerGroupExists { .. } => (71, "ConsumerGroupExists"),
            Self::TooManyConsumerGroups { .. } => (72, "TooManyConsumerGroups"),
            Self::TooManyMembers { .. } => (73, "TooManyMembers"),
            Self::NotAMember { .. } => (74, "NotAMember"),
            Self::NotReplayable { .. } => (75, "NotReplayable"),
            Self::IndexUnavailable { .. } => (60, "IndexUnavailable"),
            Self::PeerNotFound { .. } => (61, "PeerNotFound"),
            Self::NoPeerOnline => (62, "NoPeerOnline"),
            Self::Displaced => (63, "Displaced"),
            Self::NotRegistered => (64, "NotRegistered"),
            Self::PeerNameTaken { .. } => (65, "PeerNameTaken"),
            Self::ClaimPending { .. } => (66, "ClaimPending"),
            Self::PeerNotOnline { .. } => (67, "PeerNotOnline"),
            Self::StorageStopped { .. } => (80, "StorageStopped"),
            Self::InvalidArgument { .. } => (81, "InvalidArgument"),
            Self::Unanswered => (82, "Unanswered"),
            Self::TooManyDelayed { .. } => (83, "TooManyDelayed"),
            Self::Busy { .. } => (84, "Busy"),
            Self::NotReadableNow { .. } => (85, "NotReadableNow"),
            Self::Other { code, .. } => (*code, "Other"),
        }
    }

    /// The stable number.
    pub const fn code(&self) -> u16 {
        self.identity().0
    }

    /// The stable name.
    pub const fn name(&self) -> &'static str {
        self.identity().1
    }

    /// Whether the same request may succeed later, or at another address.
    pub const fn is_retryable(&self) -> bool {
        match self {
            Self::ShuttingDown
            | Self::TooManyConnections { .. }
            | Self::NotHosted { .. }
            | Self::StaleEpoch { .. }
            | Self::SequenceGap { .. }
            | Self::DiskReserve { .. }
            | Self::TopicFull { .. }
            | Self::IndexUnavailable { .. }
            | Self::NoPeerOnline
            | Self::NotRegistered
            | Self::ClaimPending { .. }
            | Self::PeerNotOnline { .. }
            | Self::TooManyStreams { .. }
            | Self::TooManyDelayed { .. }
            | Self::Busy { .. }
            | Self::NotReadableNow { .. }
            | Self::ClientSilent { .. }
            | Self::StorageStopped { .. } => true,
            Self::Other { retryable, .. } => *retryable,
            _ => false,
        }
    }

    /// Encodes the body of an error frame.
    pub fn encode(&self) -> Vec<u8> {
        let detail =
            codec::encode(self, limits::HELLO_FRAME_BYTES_MAX, "error").unwrap_or_default();
        let mut message = self.to_string();
        message.truncate(message.floor_char_boundary(ERROR_TEXT_BYTES_MAX));
        let body = ErrorBody {
            code: self.code(),
            retryable: self.is_retryable(),
            message,
            detail,
        };
        codec::encode(&body, limits::CONTROL_BYTES_MAX, "error")
            .expect("an error body is bounded by its parts")
    }

    /// Decodes the body of an error frame; unknown numbers become [`ApiError::Other`].
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let body: ErrorBody = codec::decode(bytes, limits::CONTROL_BYTES_MAX, "error")?;
        match codec::decode::<Self>(&body.detail, limits::HELLO_FRAME_BYTES_MAX, "error detail") {
            Ok(error) if error.code() == body.code => Ok(error),
            _ => Ok(Self::Other {
                code: body.code,
                message: body.message,
                retryable: body.retryable,
            }),
        }
    }
}

/// Longest text of an error frame, in bytes.
const ERROR_TEXT_BYTES_MAX: usize = 1024;

/// The body of an error frame.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// Stable number.
    pub code: u16,
    /// Whether the same request may succeed later or elsewhere.
    pub retryable: bool,
    /// For people.
    pub message: String,
    /// For programs: the variant's index (u32) and its fields.
    pub detail: Vec<u8>,
}

impl From<Malformed> for ApiError {
    fn from(error: Malformed) -> Self {
        Self::Malformed {
            what: error.what.to_owned(),
            reason: error.reason,
        }
    }
}

impl From<crate::types::Invalid> for ApiError {
    fn from(error: crate::types::Invalid) -> Self {
        Self::InvalidArgument {
            what: error.what.to_owned(),
            reason: error.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_round_trip_and_unknown_ones_keep_their_text() {
        let error = ApiError::OffsetOutOfRange {
            requested: Offset::new(9),
            start: Offset::new(1),
            end: Offset::new(5),
        };
        assert_eq!(ApiError::decode(&error.encode()), Ok(error));
        let newer = ErrorBody {
            code: 999,
            retryable: true,
            message: "new".into(),
            detail: vec![9, 9],
        };
        let bytes = codec::encode(&newer, 1024, "error").expect("small");
        let decoded = ApiError::decode(&bytes).expect("decodes");
        assert_eq!((decoded.code(), decoded.is_retryable()), (999, true));
        assert_eq!(decoded.to_string(), "new");
    }
}
