//! A record batch, as far as its place is concerned, and the decision on it.

use crate::time::Timestamp;
use crate::types::{IdDigest, LeaderEpoch, Offset, ProducerEpoch, ProducerId, Sequence};

/// What a request to publish holds the topic against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// The leader epoch the topic is at.
    pub epoch: LeaderEpoch,
    /// Where it ends, if that matters to the publisher.
    pub expected_end: Option<Offset>,
    /// Ids of messages appended before this are forgotten.
    pub ids_since: Option<Timestamp>,
}

impl From<LeaderEpoch> for Terms {
    fn from(epoch: LeaderEpoch) -> Self {
        Self {
            epoch,
            expected_end: None,
            ids_since: None,
        }
    }
}

/// What the host has to know of a record batch to place it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BatchFacts {
    /// Producer, or zero.
    pub producer: ProducerId,
    /// Which process of a named producer, or zero.
    pub producer_epoch: ProducerEpoch,
    /// Sequence of the first record.
    pub first: Sequence,
    /// Number of records, at least one.
    pub count: u32,
    /// Bytes of the batch.
    pub bytes: u64,
    /// Of its one record, if it has an id.
    pub id: Option<IdDigest>,
}

/// The decision on a record batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// Append it at this offset.
    Append(Offset),
    /// It is there already, in `[base, end)`.
    Duplicate {
        /// First offset it got.
        base: Offset,
        /// Offset after its last record.
        end: Offset,
    },
}
