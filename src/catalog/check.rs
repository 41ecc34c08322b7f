//! Reading a whole store and comparing it with what it says of itself.
//!
//! The database's recovery skips what it cannot read and says nothing. So each
//! value has its own checksum, keys must rise, and the rows must be as many, and
//! sum to as much, as the meta row says, which was written together with them.

use super::meta::{Applied, Head, Totals};
use super::rows::Row;
use super::sled_db::Verified;
use super::value::Key;
use crate::limits;

/// Takes the rows of a store one after the other, in key order.
pub(super) type Visit<'a> = &'a mut dyn FnMut(Row);

/// What opening found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Exactly the rows after some applied delta.
    Sound,
    /// There was nothing, and nothing was ever there; an empty store was made.
    Fresh,
    /// Not to be trusted. The store has to be replaced.
    Unsound {
        /// Everything that was found, at most [`limits::UNSOUND_REASONS_MAX`] and a count.
        reasons: Vec<String>,
    },
}

impl Verdict {
    /// Whether the rows may be used.
    pub fn is_usable(&self) -> bool {
        !matches!(self, Self::Unsound { .. })
    }
}

/// The contents of a store, as found by opening it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// All rows in key order. Of an unsound store those that passed their own
    /// checksum, for a person to look at and for nothing else.
    pub rows: Vec<Row>,
    /// Up to where the journal is in these rows; `None` if nothing was ever applied,
    /// in an index server's store, and where it is not known.
    pub applied: Option<Applied>,
    /// Whether to trust them.
    pub verdict: Verdict,
    /// The format the store had on the disk; `None` if that could not be read.
    pub format: Option<u32>,
}

/// The meta row, or what is wrong with it.
pub(super) type KnownMeta = Result<(Head, Totals), String>;

/// What a check has seen so far.
#[derive(Default)]
pub(super) struct Check {
    found: Totals,
    last: Option<Vec<u8>>,
    reasons: Vec<String>,
    more: usize,
}

impl Check {
    pub(super) fn add(&mut self, reason: impl Into<String>) {
        if self.reasons.len() < limits::UNSOUND_REASONS_MAX {
            self.reasons.push(reason.into());
        } else {
            self.more += 1;
        }
    }

    /// The next pair of the database; hands it over if it is an intact row.
    pub(super) fn row(&mut self, (key, payload): Verified, visit: Visit<'_>) {
        if self.last.as_ref().is_some_and(|last| *last >= key) {
            self.add(format!("the key {} is out of order", key.escape_ascii()));
        }
        match (Key::decode(&key), payload) {
            (Some(Key::Row(row_key)), Ok(value)) => {
                self.found.add(&key, &value);
                visit((row_key.to_vec(), value));
            }
            // Read before, by itself.
            (Some(Key::Meta), _) => {}
            (Some(Key::Row(row_key)), Err(bad)) => {
                self.add(format!("the value under {}: {bad}", row_key.escape_ascii()));
            }
            (None, _) => self.add(format!(
                "the key {} is of no known kind",
                key.escape_ascii()
            )),
        }
        self.last = Some(key);
    }

    pub(super) fn conclude(mut self, meta: KnownMeta) -> Loaded {
        let mut loaded = unsound(Vec::new());
        match meta {
            Err(reason) => self.add(reason),
            Ok((head, totals)) => {
                loaded.format = Some(head.format);
                loaded.applied = totals.applied;
                self.compare(&totals);
            }
        }
        if self.reasons.is_empty() {
            loaded.verdict = Verdict::Sound;
            return loaded;
        }
        if self.more > 0 {
            self.reasons.push(format!("and {} more", self.more));
        }
        loaded.verdict = Verdict::Unsound {
            reasons: self.reasons,
        };
        loaded
    }

    fn compare(&mut self, totals: &Totals) {
        let found = self.found;
        if found.rows != totals.rows {
            self.add(format!(
                "it has {} rows, and its meta row counts {}",
                found.rows, totals.rows
            ));
        } else if found.sum != totals.sum {
            self.add(format!(
                "its rows sum to {:016x}, and its meta row says {:016x}",
                found.sum, totals.sum
            ));
        }
    }
}

/// Not to be trusted, for these reasons.
pub(super) fn unsound(reasons: Vec<String>) -> Loaded {
    Loaded {
        rows: Vec::new(),
        applied: None,
        verdict: Verdict::Unsound { reasons },
        format: None,
    }
}
