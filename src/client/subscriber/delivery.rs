//! What a subscriber hands out.

use bytes::Bytes;

use crate::protocol::batch::{Header, RecordRef};
use crate::time::Timestamp;
use crate::types::{Gap, Offset};

/// What a subscriber is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delivery {
    /// The next record.
    Record(ReceivedRecord),
    /// Offsets that it will never see.
    Gap(Gap),
}

/// A record with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceivedRecord {
    /// Its offset.
    pub offset: Offset,
    /// When its host appended it.
    pub append_time: Timestamp,
    /// When it was made, by its publisher's clock.
    pub timestamp: Timestamp,
    /// Its key.
    pub key: Option<Bytes>,
    /// Its headers.
    pub headers: Vec<Header>,
    /// Its payload.
    pub value: Bytes,
}

/// What a subscriber has at hand, looked at where it lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeliveryRef<'a> {
    /// The next record.
    Record(ReceivedRef<'a>),
    /// Offsets that it will never see.
    Gap(Gap),
}

/// A record with its place, in the memory that it was received in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReceivedRef<'a> {
    /// Its offset.
    pub offset: Offset,
    /// When its host appended it.
    pub append_time: Timestamp,
    /// Timestamp, key, headers and payload.
    pub record: RecordRef<'a>,
}
