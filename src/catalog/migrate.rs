//! Migrating on request, and saying beforehand what it would do. The steps
//! themselves are in [`super::steps`], which every opening runs too.

use std::fmt;
use std::path::{Path, PathBuf};

use super::check::Verdict;
use super::directory::{Places, State};
use super::error::CatalogError;
use super::kind::StoreKind;
use super::lock::DirLock;
use super::meta::FORMAT;
use super::row_store::{OpenOptions, RowStore};
use super::steps::pending;

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
