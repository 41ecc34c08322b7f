//! What is left of topics from which single records go, in the most obvious form: an entry for each offset there ever was.
//!
//! By sections 9 and 10 of `docs/storage-format.md`, and `docs/retention.md`.

use std::collections::{BTreeMap, BTreeSet};

use crate::types::GapReason;

/// A record that was stored.
#[derive(Debug, Clone)]
pub struct Record {
    pub key: Option<Vec<u8>>,
    pub value: Vec<u8>,
    /// By the publisher's clock, and by the host's.
    pub sent: i64,
    pub stored: i64,
    /// When its time to live is over.
    pub over: Option<i64>,
    /// First offset of the batch it came in.
    pub batch: u64,
    /// Why it was taken away, if it was.
    pub gone: Option<GapReason>,
}

impl Record {
    fn is_deletion(&self) -> bool {
        self.key.is_some() && self.value.is_empty()
    }

    fn is_over(&self, now: Option<i64>) -> bool {
        self.over.zip(now).is_some_and(|(over, now)| over <= now)
    }
}

/// A topic.
#[derive(Debug, Clone, Default)]
pub struct Topic {
    pub records: Vec<Record>,
    pub start: u64,
    pub compacts: bool,
    pub tombstone_age: i64,
    pub compacted: u64,
    /// By number: keys, and where what is meant ends.
    pub purges: BTreeMap<u64, (Vec<u8>, u64)>,
}

/// What a pass of compaction finds.
#[derive(Debug, Clone, Default)]
pub struct Pass {
    /// The clean end lies between these; no record does.
    pub end: (u64, u64),
    pub doomed: BTreeSet<u64>,
    /// When the newest deletion left was stored.
    pub tombstones: Option<i64>,
}

impl Topic {
    pub fn end(&self) -> u64 {
        self.records.len() as u64
    }

    fn at(&self, at: u64) -> &Record {
        &self.records[at as usize]
    }

    pub fn is_there(&self, at: u64) -> bool {
        self.at(at).gone.is_none()
    }

    /// Records there are.
    pub fn count(&self) -> u64 {
        (self.start..self.end())
            .filter(|at| self.is_there(*at))
            .count() as u64
    }

    pub fn is_purged(&self, at: u64) -> bool {
        let key = self.at(at).key.as_ref();
        let mut all = self.purges.values();
        all.any(|(purged, end)| at < *end && key == Some(purged))
    }

    /// What a reader is told of an offset, at that time if the clock can be trusted.
    pub fn told(&self, at: u64, now: Option<i64>) -> Result<&Record, GapReason> {
        let record = self.at(at);
        match record.gone {
            Some(reason) => Err(reason),
            None if self.is_purged(at) => Err(GapReason::Purged),
            None if record.is_over(now) => Err(GapReason::Expired),
            None => Ok(record),
        }
    }

    /// Where the batch begins in which the start is: batches go whole.
    fn first(&self) -> u64 {
        let first = self.records.get(self.start as usize);
        first.map_or(self.start, |record| record.batch)
    }

    /// A pass over what is sealed, with room for so many keys (C2, C4).
    pub fn pass(&self, sealed: u64, room: usize, now: Option<i64>) -> Pass {
        let mut newest: BTreeMap<&[u8], u64> = BTreeMap::new();
        let mut end = (sealed.max(self.compacted), sealed.max(self.compacted));
        let (mut at, mut read_to) = (self.first().max(self.compacted), self.compacted);
        while at < sealed {
            // Batch by batch, as far as there is room for all keys of one.
            let batch = self.at(at).batch;
            let mut fits = true;
            while at < sealed && self.at(at).batch == batch {
                if let (true, Some(key)) = (self.is_there(at), &self.at(at).key) {
                    let has_room = newest.contains_key(&key[..]) || newest.len() < room;
                    fits &= has_room;
                    if has_room {
                        newest.insert(key, at);
                    }
                }
                at += 1;
            }
            if !fits {
                end = (read_to, batch.max(self.compacted));
                break;
            }
            read_to = match (batch..at).rfind(|at| self.is_there(*at)) {
                Some(last) => read_to.max(last + 1),
                None => read_to,
            };
        }
        let mut pass = Pass {
            end,
            ..Pass::default()
        };
        for at in (self.first()..end.1).filter(|at| self.is_there(*at)) {
            let record = self.at(at);
            let Some(key) = &record.key else { continue };
            let is_older = newest.get(&key[..]).is_some_and(|newest| *newest > at);
            let is_old = now.is_some_and(|now| record.stored < now - self.tombstone_age);
            if is_older || record.is_deletion() && at < self.compacted && is_old {
                pass.doomed.insert(at);
            } else if record.is_deletion() {
                pass.tombstones = pass.tombstones.max(Some(record.stored));
            }
        }
        pass
    }

    /// Why a record goes from a segment that is copied now, if it does (C9, C10).
    pub fn goes(&self, at: u64, now: Option<i64>, pass: Option<&Pass>) -> Option<GapReason> {
        if !self.is_there(at) {
            None
        } else if self.is_purged(at) {
            Some(GapReason::Purged)
        } else if self.at(at).is_over(now) {
            Some(GapReason::Expired)
        } else {
            let goes = pass.is_some_and(|pass| pass.doomed.contains(&at));
            goes.then_some(GapReason::Compacted)
        }
    }

    /// What is promised to readers, however it came about.
    pub fn check(&self) {
        let mut newest: BTreeMap<&[u8], u64> = BTreeMap::new();
        let mut below: BTreeMap<&[u8], u64> = BTreeMap::new();
        let mut left: BTreeMap<&[u8], u64> = BTreeMap::new();
        for (at, record) in (0..).zip(&self.records) {
            if let Some(key) = &record.key {
                newest.insert(key, at);
            }
        }
        for at in self.start..self.end() {
            let record = self.at(at);
            let is_compacted = record.gone == Some(GapReason::Compacted);
            let Some(key) = &record.key else {
                assert!(!is_compacted, "{at} has no key and is compacted");
                continue;
            };
            if is_compacted && newest[&key[..]] == at {
                assert!(record.is_deletion(), "the newest of its key, {at}, is gone");
            }
            if is_compacted && record.is_deletion() && newest[&key[..]] == at {
                let before = left.get(&key[..]);
                assert_eq!(before, None, "what {at} deleted comes back");
            }
            if record.gone.is_none() {
                left.insert(key, at);
            }
            if record.gone.is_none() && at < self.compacted {
                let before = below.insert(key, at);
                assert_eq!(before, None, "{at}: twice below {}", self.compacted);
            }
        }
    }
}
