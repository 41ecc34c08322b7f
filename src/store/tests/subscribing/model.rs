//! What subscriptions are, in the most obvious form.
//!
//! By `docs/subscribing.md`, `docs/retention.md` and sections 5.6 of `docs/protocol.md` and 9 of `docs/storage-format.md`.

use std::collections::{BTreeMap, BTreeSet};

use crate::protocol::api::ChangeKind;
use crate::types::{SubscriptionName, TopicId};

/// As many changes are kept.
const CHANGES_KEPT: usize = 20;

/// A change of a place that was no commit.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    pub when: i64,
    pub kind: ChangeKind,
    pub from: Option<u64>,
    pub to: u64,
    pub generation: u64,
    pub client: String,
}

#[derive(Debug, Clone)]
pub struct Subscription {
    pub generation: u64,
    pub committed: u64,
    pub created: i64,
    pub last_commit: Option<i64>,
    pub paused: bool,
    pub expire_ms: Option<u64>,
    /// None: it is of the time before there were histories, and was not moved since.
    pub history: Vec<Change>,
    // What the process alone knows.
    pub used: u64,
    /// Serials of those who attend it.
    pub readers: Vec<u64>,
}

impl Subscription {
    pub fn moved(&mut self, change: Change) {
        (self.committed, self.generation) = (change.to, change.generation);
        self.history.push(change);
        let surplus = self.history.len().saturating_sub(CHANGES_KEPT);
        self.history.drain(..surplus);
    }

    pub fn is_expired(&self, steady: u64) -> bool {
        let unused = steady - self.used;
        let is_over = self.expire_ms.is_some_and(|ms| unused >= ms);
        self.readers.is_empty() && is_over
    }
}

#[derive(Debug, Clone, Default)]
pub struct Topic {
    pub start: u64,
    pub end: u64,
    /// Where readers stop.
    pub readable: u64,
    /// What all have confirmed goes.
    pub interest: bool,
    pub subscriptions: BTreeMap<SubscriptionName, Subscription>,
    /// Consumer groups, as far as they hold a position.
    pub groups: BTreeMap<SubscriptionName, u64>,
    /// All generations there ever were.
    pub generations: BTreeSet<u64>,
}

impl Topic {
    /// The least of all positions, if anybody holds one.
    pub fn lowest(&self) -> Option<u64> {
        let subscriptions = self.subscriptions.values().map(|of| of.committed);
        subscriptions.chain(self.groups.values().copied()).min()
    }

    /// Where undoing leads, or why it does not.
    pub fn undone(&self, name: &SubscriptionName, given: Option<u64>) -> Result<u64, &'static str> {
        let of = self.subscriptions.get(name).ok_or("SubscriptionNotFound")?;
        if given.is_some_and(|given| given != of.generation) {
            return Err("StaleGeneration");
        }
        let last = of.history.last().and_then(|change| change.from);
        let before = last.ok_or("NothingToUndo")?;
        // What is gone is not gone back to, and nobody stands where nobody may read.
        let nearest = before.min(self.readable);
        Ok(nearest.max(self.start))
    }
}

/// All topics, and what is known of them.
#[derive(Debug, Clone, Default)]
pub struct Model {
    pub topics: BTreeMap<TopicId, Topic>,
}

impl Model {
    pub fn all_used(&mut self, steady: u64) {
        let topics = self.topics.values_mut();
        let all = topics.flat_map(|topic| topic.subscriptions.values_mut());
        all.for_each(|of| of.used = steady);
    }

    /// The process ended: nobody reads, and everybody has the whole time.
    pub fn restarted(&mut self, steady: u64) {
        let topics = self.topics.values_mut();
        let all = topics.flat_map(|topic| topic.subscriptions.values_mut());
        for of in all {
            of.readers.clear();
            of.used = steady;
        }
    }
}
