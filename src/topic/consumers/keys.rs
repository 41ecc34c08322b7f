//! Order by key: the records of each key that are known and not settled, in order.
//!
//! ```text
//!   chain of a key    [ held | held | not held | not held ]
//!                       all at one member        the first of these goes out when nothing is held
//! ```
//!
//! Those in flight are a front part of the chain (C7). What was read and cannot be given out yet is *parked*.

use std::collections::{BTreeMap, VecDeque};

use super::runs::{Key, Slot};

/// The records of one key.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Chain {
    /// Offsets, rising.
    pub offsets: VecDeque<u64>,
    /// How many of them, from the front, are in flight.
    pub held: usize,
    /// At whom.
    pub holder: Option<Slot>,
}

impl Chain {
    /// Whether the next record of this key can go to that member now.
    pub fn is_open_to(&self, member: Slot) -> bool {
        self.held == self.offsets.len() && (self.held == 0 || self.holder == Some(member))
    }

    /// Notes that one more record from the front is in flight at that member.
    pub fn hold(&mut self, member: Slot) {
        debug_assert!(self.held < self.offsets.len());
        debug_assert!(self.held == 0 || self.holder == Some(member));
        self.held += 1;
        self.holder = Some(member);
    }

    /// Takes a record out; tells where it was.
    pub fn remove(&mut self, offset: u64) -> Option<usize> {
        let at = self.offsets.binary_search(&offset).ok()?;
        self.offsets.remove(at);
        if at < self.held {
            self.hold_only(self.held - 1);
        }
        Some(at)
    }

    /// Only so many from the front are in flight.
    pub fn hold_only(&mut self, held: usize) {
        self.held = held;
        if held == 0 {
            self.holder = None;
        }
    }
}

/// All chains; none without a record.
#[derive(Debug, Clone, Default)]
pub(super) struct Keys(BTreeMap<Key, Chain>);

impl Keys {
    pub fn get(&self, key: Key) -> Option<&Chain> {
        self.0.get(&key)
    }

    pub fn get_mut(&mut self, key: Key) -> Option<&mut Chain> {
        self.0.get_mut(&key)
    }

    /// Adds the newest record of a key.
    pub fn push(&mut self, key: Key, offset: u64) -> &mut Chain {
        let chain = self.0.entry(key).or_default();
        debug_assert!(chain.offsets.back().is_none_or(|last| *last < offset));
        chain.offsets.push_back(offset);
        chain
    }

    /// Whether the next record of the key can go to that member now.
    pub fn is_open_to(&self, key: Key, member: Slot) -> bool {
        self.get(key).is_none_or(|chain| chain.is_open_to(member))
    }

    /// Forgets a key without records.
    pub fn tidy(&mut self, key: Key) {
        if self
            .0
            .get(&key)
            .is_some_and(|chain| chain.offsets.is_empty())
        {
            self.0.remove(&key);
        }
    }

    #[cfg(test)]
    pub fn iter(&self) -> impl Iterator<Item = (Key, &Chain)> {
        self.0.iter().map(|(key, chain)| (*key, chain))
    }
}
