//! The steps from one format of a store to the next.
//!
//! Each step is a file in `migrations/`, with a number, which is the format it
//! leads to. A store says its format in its meta row; opening it runs the steps
//! it lacks, in order, holding the directory's lock and after a look at the free
//! space. A store of a format that no step here leads to is refused by name of
//! both formats.
//!
//! Invariants:
//!
//! 1. Steps are numbered 1, 2, 3, … without a hole, and a step that went out
//!    into the world never changes.
//! 2. A step is harmless to run twice: the meta row changes last, so a crash in
//!    the middle of a step runs it again.
//! 3. Only a store that was checked and found sound is migrated: a step would
//!    otherwise put a fresh checksum over damaged rows.
//!
//! Deliberately missing: steps back. A store is exported, or a copy was kept.

use super::error::CatalogError;
use super::meta::{FORMAT, Totals};
use super::rows::Rows;

#[path = "../../migrations/m0001_initial.rs"]
mod m0001_initial;

const MIGRATIONS: &[Migration] = &[m0001_initial::MIGRATION];

const _: () = {
    let mut at = 0;
    while at < MIGRATIONS.len() {
        assert!(MIGRATIONS[at].number as usize == at + 1, "invariant 1");
        at += 1;
    }
    assert!(
        FORMAT as usize == MIGRATIONS.len(),
        "the last step leads to it"
    );
};

/// One step.
pub(super) struct Migration {
    /// The format it leads to.
    pub number: u32,
    /// What it does, for people.
    pub description: &'static str,
    /// Does it.
    apply: fn(&mut Upgrade<'_>) -> Result<(), CatalogError>,
}

/// What a step may do to a store.
pub(super) struct Upgrade<'a> {
    rows: &'a mut Rows,
    being_made: bool,
}

impl Upgrade<'_> {
    /// The format of the store; 0 if it has no meta row.
    fn format(&self) -> u32 {
        self.rows.head().format
    }

    /// Whether the store is being made at this moment and has nothing in it.
    fn is_fresh(&self) -> bool {
        self.being_made && self.rows.is_empty()
    }

    /// Gives an empty store its first meta row.
    fn begin(&mut self, format: u32) -> Result<(), CatalogError> {
        self.rows.set_meta(format, Totals::default())
    }

    /// The error for a store that is not what the step expects.
    fn ruined(&self, reason: &str) -> CatalogError {
        CatalogError::ruined(self.rows.path(), reason)
    }
}

/// The steps that a store of that format lacks.
pub(super) fn pending(format: u32) -> &'static [Migration] {
    let done = (format as usize).min(MIGRATIONS.len());
    &MIGRATIONS[done..]
}

/// Runs the steps the store lacks. `being_made` says that it has no name yet.
pub(super) fn upgrade(rows: &mut Rows, being_made: bool) -> Result<(), CatalogError> {
    for step in pending(rows.head().format) {
        (step.apply)(&mut Upgrade { rows, being_made })?;
        tracing::info!(
            store = %rows.path().display(),
            format = step.number,
            step = step.description,
            "migrated"
        );
    }
    Ok(())
}
