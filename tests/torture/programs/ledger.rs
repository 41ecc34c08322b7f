//! What members of a group were given and said, and what has to follow from it.
//!
//! | of a record is known | then |
//! |---|---|
//! | an acknowledgement that counted | no other verdict counted, and it is no dead letter |
//! | a rejection that counted | no other verdict counted, and it is one dead letter |
//! | neither | it is one dead letter, or somebody died or lost his connection over an acknowledgement of it |
//!
//! In a group ordered by key the verdicts that counted were said in the order of the records of a key. And no record
//! that may be had waits for longer than a deadline, the longest back-off and five seconds.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::cluster::{Outcome, lock};

/// A verdict that ends a record's way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Final {
    Ack,
    Reject,
}

/// A member, and which of its lives.
pub type Who = (u64, u64);

const NOBODY: Who = (u64::MAX, 0);

/// What somebody was given, said or learned of a record.
#[derive(Debug, Clone, Copy)]
pub enum Happened {
    Published,
    Given,
    /// He says nothing of it, to see it taken from him.
    Held,
    /// He says nothing of it, for he holds one before it.
    Behind,
    Nak,
    Ack,
    Reject,
    Counted,
    Refused,
    Unknown,
    Died,
}

/// What is known of one record.
#[derive(Debug)]
struct Entry {
    key: u64,
    /// All of it in order, with the milliseconds since the beginning, for whoever has to find out what went wrong.
    story: Vec<(u64, Who, Happened)>,
    /// When something was last heard of it.
    heard: Instant,
    counted: Vec<(Final, u64)>,
    /// Whoever spoke of it last died before he knew whether it counted.
    may_be_settled: bool,
    dead: u64,
    given: u64,
}

/// How much of everything there was.
#[derive(Debug, Default, Clone, Copy)]
pub struct Counts {
    pub given: u64,
    pub again: u64,
    pub acked: u64,
    pub rejected: u64,
    pub dead: u64,
    pub unknown: u64,
}

/// One group's ledger.
pub struct Ledger {
    pub is_ordered: bool,
    /// Longer than this nothing waits that may be had.
    pub patience: Duration,
    begun: Instant,
    entries: Mutex<BTreeMap<u64, Entry>>,
    said: AtomicU64,
    wrong: Mutex<Option<String>>,
}

impl Ledger {
    pub fn new(is_ordered: bool, patience: Duration) -> Self {
        Self {
            is_ordered,
            patience,
            begun: Instant::now(),
            entries: Mutex::default(),
            said: AtomicU64::new(0),
            wrong: Mutex::default(),
        }
    }

    pub fn wrong(&self, what: String) {
        lock(&self.wrong).get_or_insert(what);
    }

    pub fn check(&self) -> Outcome<()> {
        lock(&self.wrong).clone().map_or(Ok(()), Err)
    }

    fn at(&self, (offset, key): (u64, u64), event: (Who, Happened), note: impl FnOnce(&mut Entry)) {
        let mut entries = lock(&self.entries);
        let entry = entries.entry(offset).or_insert_with(|| Entry {
            key,
            story: Vec::new(),
            heard: Instant::now(),
            counted: Vec::new(),
            may_be_settled: false,
            dead: 0,
            given: 0,
        });
        entry.heard = Instant::now();
        let at = self.begun.elapsed().as_millis() as u64;
        entry.story.push((at, event.0, event.1));
        note(entry);
    }

    /// It is stored.
    pub fn published(&self, record: (u64, u64)) {
        self.at(record, (NOBODY, Happened::Published), |_| {});
    }

    /// Somebody was given it.
    pub fn given(&self, record: (u64, u64), who: Who) {
        self.at(record, (who, Happened::Given), |entry| entry.given += 1);
    }

    /// Nothing that changes what has to follow.
    pub fn told(&self, record: (u64, u64), who: Who, what: Happened) {
        self.at(record, (who, what), |_| {});
    }

    /// A place in the order in which all verdicts were said.
    pub fn say(&self) -> u64 {
        self.said.fetch_add(1, Ordering::Relaxed)
    }

    /// A verdict said at that place counted.
    pub fn counted(&self, record: (u64, u64), who: Who, (verdict, said): (Final, u64)) {
        self.at(record, (who, Happened::Counted), |entry| {
            entry.counted.push((verdict, said));
            if entry.counted.len() > 1 {
                self.wrong(format!("{}: settled more than once: {entry:?}", record.0));
            }
        });
    }

    /// Nobody will know whether what was said of it counted.
    pub fn unknown(&self, record: (u64, u64), who: Who) {
        self.at(record, (who, Happened::Unknown), |entry| {
            entry.may_be_settled = true;
        });
    }

    /// It is a dead letter.
    pub fn died(&self, record: (u64, u64)) {
        self.at(record, (NOBODY, Happened::Died), |entry| {
            entry.dead += 1;
            if entry.dead > 1 {
                self.wrong(format!("{}: {} dead letters", record.0, entry.dead));
            }
        });
    }

    /// No record that may be had waits for too long; since `calm` nothing was wrong with the peer.
    pub fn check_stalls(&self, calm: Instant) -> Outcome<()> {
        let now = Instant::now();
        let mut keys: BTreeMap<u64, u64> = BTreeMap::new();
        for (offset, entry) in &*lock(&self.entries) {
            let waited = now - entry.heard.max(calm);
            if !entry.counted.is_empty()
                || entry.dead > 0
                || (entry.may_be_settled && waited > self.patience)
            {
                continue;
            }
            let is_behind = self.is_ordered && keys.insert(entry.key, *offset).is_some();
            if !is_behind && waited > self.patience {
                return Err(format!("{offset}: nobody has it for {waited:?}; {entry:?}"));
            }
        }
        Ok(())
    }

    /// Every record before `end` went one way.
    pub fn check_all(&self, end: u64) -> Outcome<Counts> {
        let entries = lock(&self.entries);
        let mut counts = Counts::default();
        let mut last_of: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
        for offset in 0..end {
            let Some(entry) = entries.get(&offset) else {
                return Err(format!("{offset}: it is there, and nobody ever saw it"));
            };
            let verdict = entry.counted.first().copied();
            let is_right = match (verdict, entry.dead) {
                (Some((Final::Ack, _)), 0) | (Some((Final::Reject, _)), 1) => {
                    entry.counted.len() == 1
                }
                (None, 1) => true,
                (None, 0) => entry.may_be_settled,
                _ => false,
            };
            if !is_right {
                return Err(format!(
                    "{offset}: it went no way or more than one: {entry:?}"
                ));
            }
            counts.given += entry.given;
            counts.again += entry.given.saturating_sub(1);
            counts.dead += entry.dead;
            match verdict {
                Some((Final::Ack, _)) => counts.acked += 1,
                Some((Final::Reject, _)) => counts.rejected += 1,
                None => counts.unknown += u64::from(entry.dead == 0),
            }
            if let Some((_, said)) = verdict
                && self.is_ordered
                && let Some((before, said_before)) = last_of.insert(entry.key, (offset, said))
                && said_before > said
            {
                let key = entry.key;
                return Err(format!(
                    "key {key}: {offset} was settled before {before}; {:?}; {entry:?}",
                    entries.get(&before)
                ));
            }
        }
        Ok(counts)
    }
}
