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

use std::fmt;
use std::path::{Path, PathBuf};

use super::check::Verdict;
use super::directory::{Places, State};
use super::error::CatalogError;
use super::lock::DirLock;
use super::meta::{StoreKind, Totals};
use super::row_store::{OpenOptions, RowStore};
use super::rows::Rows;

#[path = "../../migrations/m0001_initial.rs"]
mod m0001_initial;

const MIGRATIONS: &[Migration] = &[m0001_initial::MIGRATION];

/// The format this program reads and writes.
pub const FORMAT: u32 = MIGRATIONS[MIGRATIONS.len() - 1].number;

const _: () = {
    let mut at = 0;
    while at < MIGRATIONS.len() {
        assert!(MIGRATIONS[at].number as usize == at + 1, "invariant 1");
        at += 1;
    }
};

/// One step.
pub(super) struct Migration {
    /// The format it leads to.
    number: u32,
    /// What it does, for people.
    description: &'static str,
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

/// One step, as shown to a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The format it leads to.
    pub number: u32,
    /// What it does.
    pub description: &'static str,
}

/// What migrating a store means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Whose store it is.
    pub kind: StoreKind,
    /// Where it is.
    pub path: PathBuf,
    /// Its format.
    pub format: u32,
    /// What it lacks, in order; empty if it is up to date.
    pub steps: Vec<Step>,
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} has format {}", self.path.display(), self.format)?;
        for step in &self.steps {
            write!(f, ", {}: {}", step.number, step.description)?;
        }
        Ok(())
    }
}

/// What [`run`] would do to the stores in `data_dir`. Writes nothing there: it looks at copies.
pub fn plan(data_dir: &Path) -> Result<Vec<Plan>, CatalogError> {
    let mut plans = Vec::new();
    for kind in StoreKind::ALL {
        let places = Places::new(data_dir, kind);
        if places.state()? != State::Present {
            continue;
        }
        let loaded = RowStore::read_copy(data_dir, kind, OpenOptions::default())?;
        if let Verdict::Unsound { reasons } = loaded.verdict {
            return Err(CatalogError::Ruined {
                path: places.store(),
                reasons,
            });
        }
        let format = loaded.format.unwrap_or(FORMAT);
        let steps = pending(format).iter().map(|step| Step {
            number: step.number,
            description: step.description,
        });
        plans.push(Plan {
            kind,
            path: places.store(),
            format,
            steps: steps.collect(),
        });
    }
    Ok(plans)
}

/// Brings the stores in the locked directory to [`FORMAT`] and says what was
/// done. A store that lacks nothing is not touched.
pub fn run(lock: &DirLock) -> Result<Vec<Plan>, CatalogError> {
    let plans = plan(lock.dir())?;
    for plan in plans.iter().filter(|plan| !plan.steps.is_empty()) {
        let (store, loaded) = RowStore::open(lock, plan.kind, OpenOptions::default())?;
        if let Verdict::Unsound { reasons } = loaded.verdict {
            return Err(CatalogError::Ruined {
                path: plan.path.clone(),
                reasons,
            });
        }
        store.close()?;
    }
    Ok(plans)
}
