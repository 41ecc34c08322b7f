//! What is known of work that is done step by step; `jobs` does it.

use std::collections::BTreeSet;

use super::table::PeerNumber;
use crate::protocol::api::Conflict;
use crate::types::{PeerName, TopicId};

/// Tells jobs apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct JobNumber(u64);

impl JobNumber {
    /// That number.
    pub(super) fn new(number: u64) -> Self {
        Self(number)
    }
}

/// Work that is done step by step.
pub(super) struct Job {
    pub(super) number: JobNumber,
    pub(super) peer: PeerNumber,
    /// All buckets before it are done.
    pub(super) next: u32,
    pub(super) work: Work,
}

pub(super) enum Work {
    List(Taking),
    Remove(Removing),
}

/// A list that is being taken.
#[derive(Default)]
pub(super) struct Taking {
    pub(super) topics: usize,
    pub(super) conflicts: Vec<Conflict>,
    pub(super) conflicts_untold: usize,
    /// What the peer had and did not list there, by bucket.
    pub(super) unlisted: BTreeSet<(u32, TopicId)>,
}

/// A peer that is being removed.
pub(super) struct Removing {
    pub(super) held: u64,
    /// The name that was to be retired; `None` if the peer leaves.
    pub(super) retired: Option<PeerName>,
}
