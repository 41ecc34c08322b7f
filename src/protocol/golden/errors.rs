//! One error of each kind, with fields.

use super::consumers;
use super::samples::{address, peer_name, subscription, topic, topic_id};
use crate::protocol::error::ApiError;
use crate::types::*;

/// Every error that travels, in the order of their numbers; `Other` does not.
pub(in crate::protocol) fn errors() -> Vec<ApiError> {
    let mut all = connection_errors();
    all.extend(topic_errors());
    all.extend(data_errors());
    all.extend(subscription_errors());
    all.extend(index_errors());
    all.extend(consumers::errors());
    all.extend(node_errors());
    all
}

fn connection_errors() -> Vec<ApiError> {
    let (reason, what) = ("flags 4".to_owned(), "protocol".to_owned());
    vec![
        ApiError::BadFrame { reason },
        ApiError::UnknownApi { api: 999 },
        ApiError::UnsupportedVersion {
            what,
            given: 9,
            min: 1,
            max: 1,
        },
        ApiError::HelloRequired,
        ApiError::FrameTooLarge {
            bytes: 1 << 30,
            max: 4_096,
        },
        ApiError::Malformed {
            what: "Lookup".to_owned(),
            reason: "it ends too early".to_owned(),
        },
        ApiError::TooManyConnections { max: 12_000 },
        ApiError::WrongRole {
            request: "Publish".to_owned(),
            answered_by: "a peer".to_owned(),
            this_is: "an index server".to_owned(),
        },
        ApiError::ShuttingDown,
    ]
}

fn topic_errors() -> Vec<ApiError> {
    vec![
        ApiError::TopicNotFound { name: topic() },
        ApiError::UnknownTopicId { id: topic_id() },
        ApiError::TopicExists { name: topic() },
        ApiError::NotHosted {
            name: topic(),
            peer: peer_name(),
            address: address(),
            epoch: LeaderEpoch::new(4),
        },
        ApiError::StaleEpoch {
            given: LeaderEpoch::new(3),
            current: LeaderEpoch::new(4),
        },
        ApiError::TopicQuarantined {
            name: topic(),
            end: Offset::new(42),
        },
        ApiError::NameConflict {
            name: topic(),
            holder: peer_name(),
        },
        ApiError::TooManyTopics { max: 1_000_000 },
        ApiError::NotQuarantined { name: topic() },
        ApiError::TopicFull {
            name: topic(),
            records: 1_697,
            bytes: 123_456,
        },
    ]
}

fn data_errors() -> Vec<ApiError> {
    vec![
        ApiError::BadBatch {
            reason: "record 0: its key is above 64 KiB".to_owned(),
        },
        ApiError::MessageTooLarge {
            bytes: 1_048_577,
            max: 1_048_576,
        },
        ApiError::SequenceGap {
            expected: Sequence::new(5),
            given: Sequence::new(6),
        },
        ApiError::DuplicateTooOld {
            given: Sequence::new(1),
            oldest: Sequence::new(5),
        },
        ApiError::UnknownProducer,
        ApiError::DiskReserve {
            free_bytes: 1_000,
            needed_bytes: 2_000,
        },
        ApiError::UnexpectedEnd {
            expected: Offset::new(1_707),
            found: Offset::new(1_710),
        },
        ApiError::ProducerFenced {
            given: ProducerEpoch::new(3),
            current: ProducerEpoch::new(4),
        },
        ApiError::ProducerForgotten,
        ApiError::IdsNotRemembered { name: topic() },
        ApiError::OffsetOutOfRange {
            requested: Offset::new(9),
            start: Offset::new(1),
            end: Offset::new(5),
        },
        ApiError::Damaged {
            from: Offset::new(20),
            to: Offset::new(30),
        },
        ApiError::UnknownStream { stream: 7 },
        ApiError::TooManyStreams { max: 1_024 },
        ApiError::ClientSilent { silent_ms: 30_000 },
    ]
}

fn subscription_errors() -> Vec<ApiError> {
    vec![
        ApiError::SubscriptionNotFound {
            topic: topic(),
            name: subscription(),
        },
        ApiError::SubscriptionExists {
            topic: topic(),
            name: subscription(),
        },
        ApiError::StaleGeneration {
            given: Generation::new(4),
            current: Generation::new(5),
        },
        ApiError::CommitPastEnd {
            offset: Offset::new(9),
            end: Offset::new(5),
        },
        ApiError::TooManySubscriptions { max: 10_000 },
        ApiError::NothingToUndo {
            topic: topic(),
            name: subscription(),
            reason: "was never moved".to_owned(),
        },
    ]
}

fn index_errors() -> Vec<ApiError> {
    let reason = "127.0.0.1:7400 refused the connection".to_owned();
    vec![
        ApiError::IndexUnavailable { reason },
        ApiError::PeerNotFound { name: peer_name() },
        ApiError::NoPeerOnline,
        ApiError::Displaced,
        ApiError::NotRegistered,
        ApiError::PeerNameTaken { name: peer_name() },
        ApiError::ClaimPending { name: topic() },
        ApiError::PeerNotOnline {
            peer: peer_name(),
            state: "down".to_owned(),
        },
    ]
}

fn node_errors() -> Vec<ApiError> {
    vec![
        ApiError::StorageStopped {
            reason: "a sync took longer than 60 s".to_owned(),
        },
        ApiError::InvalidArgument {
            what: "limit".to_owned(),
            reason: "0 entries".to_owned(),
        },
        ApiError::Unanswered,
        ApiError::TooManyDelayed { max: 1_000_000 },
        ApiError::Busy { max: 65_536 },
        ApiError::NotReadableNow {
            reason: "cannot open journal/slot-00000007: too many open files".to_owned(),
        },
    ]
}
