//! A record batch, as far as its place is concerned, and the decision on it.

use crate::types::{Offset, ProducerId, Sequence};

/// What the host has to know of a record batch to place it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchFacts {
    /// Producer, or zero.
    pub producer: ProducerId,
    /// Sequence of the first record.
    pub first: Sequence,
    /// Number of records, at least one.
    pub count: u32,
    /// Bytes of the batch.
    pub bytes: u64,
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
