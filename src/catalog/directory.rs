//! The directory a store lives in: how it comes to be, and how it is replaced.
//!
//! ```text
//! catalog/            the store. Has this name only once it is complete and synced
//! catalog.building/   one being made; worth nothing
//! catalog.ruined-1/   what `catalog/` was before it was replaced; kept for a person
//! ```
//!
//! (and the same with `registry`.) Making one, step by step, with what a crash
//! after the step leaves and what the next start makes of it:
//!
//! 1. A ruined `catalog/` is renamed to `catalog.ruined-N` and the parent synced.
//!    *Crash during:* either name; the store is found as ruined as it was, or as
//!    in 2. *Crash after:* no `catalog/`, but one that was set aside: [`State::Lost`],
//!    to be rebuilt, and never taken for a place where nothing ever was.
//!    This comes first, so that a start that dies while it opens or replaces a
//!    ruined store does not open that store again.
//! 2. A left-over `catalog.building/` is removed. It never was the store.
//!    *Crash:* part of it is left; removed by the next attempt.
//! 3. The new store is written into `catalog.building/`, its meta row agreeing
//!    with its rows at every moment; closed; every file and directory in it synced.
//!    *Crash:* as after 1 (or as if nothing ever was, for a first store).
//! 4. `catalog.building` is renamed to `catalog`. *Crash before the rename is
//!    durable:* as in 3: built again. Its contents were synced before, so under
//!    its new name they are whole.
//! 5. The parent is synced. Only now the caller may rely on it.
//! 6. Of those set aside all but the newest [`limits::RUINED_STORES_KEPT`] are
//!    deleted: a store that is ruined again and again must not fill the disk.
//!    *Crash:* part of an old one is left; removed by the next replacement.
//!
//! Invariants:
//!
//! 1. A directory called `catalog` was complete and synced when it got the name.
//!    So one without a meta row has lost it.
//! 2. What was the store is deleted only after a newer one is whole and durable,
//!    and never the newest that were set aside.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::error::CatalogError;
use super::kind::StoreKind;
use super::lock::DirLock;
use crate::limits;

/// What is found where a store should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum State {
    /// A store.
    Present,
    /// Nothing, and nothing ever was.
    Absent,
    /// Nothing, but a store that was set aside.
    Lost { set_aside: PathBuf },
}

/// The places of one store in a data directory.
#[derive(Debug, Clone)]
pub(super) struct Places {
    parent: PathBuf,
    name: &'static str,
}

impl Places {
    pub(super) fn new(data_dir: &Path, kind: StoreKind) -> Self {
        Self {
            parent: data_dir.to_path_buf(),
            name: kind.dir_name(),
        }
    }

    /// Where the store lives.
    pub(super) fn store(&self) -> PathBuf {
        self.parent.join(self.name)
    }

    /// The data directory.
    pub(super) fn parent(&self) -> &Path {
        &self.parent
    }

    /// What counts its changes.
    pub(super) fn seen(&self) -> PathBuf {
        self.parent.join(format!("{}.seen", self.name))
    }

    fn building(&self) -> PathBuf {
        self.parent.join(format!("{}.building", self.name))
    }

    fn ruined(&self, number: u32) -> PathBuf {
        self.parent.join(format!("{}.ruined-{number}", self.name))
    }

    pub(super) fn state(&self) -> Result<State, CatalogError> {
        if exists(&self.store())? {
            return Ok(State::Present);
        }
        let last = self.next_ruined()?.checked_sub(1).filter(|&n| n > 0);
        Ok(match last {
            Some(number) => State::Lost {
                set_aside: self.ruined(number),
            },
            None => State::Absent,
        })
    }

    /// The number after the highest in use.
    fn next_ruined(&self) -> Result<u32, CatalogError> {
        let last = self.ruined_numbers()?.pop();
        Ok(last.map_or(1, |last| last.saturating_add(1)))
    }

    /// The numbers in use, in order.
    fn ruined_numbers(&self) -> Result<Vec<u32>, CatalogError> {
        let prefix = format!("{}.ruined-", self.name);
        let mut numbers = Vec::new();
        let failed = |source| CatalogError::io("read", &self.parent, source);
        for entry in fs::read_dir(&self.parent).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            let number = name
                .to_str()
                .and_then(|name| name.strip_prefix(&prefix)?.parse::<u32>().ok());
            numbers.extend(number);
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// Step 6: deletes all but the newest that were set aside. What fails is
    /// tried again the next time: the new store is whole, and that is what counts.
    pub(super) fn remove_old_ruined(&self) {
        let numbers = self.ruined_numbers().unwrap_or_default();
        let surplus = numbers.len().saturating_sub(limits::RUINED_STORES_KEPT);
        for &number in &numbers[..surplus] {
            let path = self.ruined(number);
            match fs::remove_dir_all(&path) {
                Ok(()) => {
                    tracing::info!(store = %path.display(), "deleted a store that was set aside long ago");
                }
                Err(error) => {
                    tracing::warn!(store = %path.display(), %error, "cannot delete a store that was set aside");
                }
            }
        }
    }

    /// Step 1: renames the store out of the way, if there is one.
    pub(super) fn set_aside(&self) -> Result<Option<PathBuf>, CatalogError> {
        if !exists(&self.store())? {
            return Ok(None);
        }
        let aside = self.ruined(self.next_ruined()?);
        rename(&self.store(), &aside)?;
        sync_dir(&self.parent)?;
        tracing::warn!(store = %self.store().display(), aside = %aside.display(), "set a store aside");
        Ok(Some(aside))
    }

    /// Step 2: the path to build at, with nothing there.
    pub(super) fn clear_building(&self) -> Result<PathBuf, CatalogError> {
        let building = self.building();
        if exists(&building)? {
            fs::remove_dir_all(&building)
                .map_err(|source| CatalogError::io("remove", &building, source))?;
        }
        Ok(building)
    }

    /// The end of step 3, and steps 4 and 5.
    pub(super) fn publish(&self) -> Result<(), CatalogError> {
        sync_tree(&self.building())?;
        rename(&self.building(), &self.store())?;
        sync_dir(&self.parent)
    }
}

/// Refuses a directory in which a server of another kind lives and none of this one: a mistyped path must not
/// found a second store beside the first.
pub fn check_role(lock: &DirLock, kind: StoreKind) -> Result<(), CatalogError> {
    let lives = |kind: StoreKind| -> Result<bool, CatalogError> {
        let other_marks = match kind {
            StoreKind::Peer => exists(&lock.dir().join("journal"))?,
            StoreKind::Index => false,
        };
        Ok(other_marks || Places::new(lock.dir(), kind).state()? != State::Absent)
    };
    if lives(kind)? {
        return Ok(());
    }
    for found in StoreKind::ALL.into_iter().filter(|other| *other != kind) {
        if lives(found)? {
            return Err(CatalogError::WrongKind {
                path: lock.dir().to_path_buf(),
                found,
                expected: kind,
            });
        }
    }
    Ok(())
}

fn exists(path: &Path) -> Result<bool, CatalogError> {
    path.try_exists()
        .map_err(|source| CatalogError::io("look at", path, source))
}

fn rename(from: &Path, to: &Path) -> Result<(), CatalogError> {
    fs::rename(from, to).map_err(|source| CatalogError::io("rename", from, source))
}

/// Makes the entries of `dir` durable.
pub(super) fn sync_dir(dir: &Path) -> Result<(), CatalogError> {
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(|source| sync_failed(dir, &source))
}

/// Makes everything in `dir` durable, and then its entries.
fn sync_tree(dir: &Path) -> Result<(), CatalogError> {
    for entry in entries(dir)? {
        if entry.is_dir() {
            sync_tree(&entry)?;
        } else {
            File::open(&entry)
                .and_then(|file| file.sync_all())
                .map_err(|source| sync_failed(&entry, &source))?;
        }
    }
    sync_dir(dir)
}

fn sync_failed(path: &Path, source: &io::Error) -> CatalogError {
    CatalogError::SyncFailed {
        path: path.to_path_buf(),
        reason: format!("fsync: {source}"),
    }
}

/// Copies a store for reading: plain files and one level of directories, which is all it has.
pub(super) fn copy_tree(from: &Path, to: &Path) -> Result<(), CatalogError> {
    fs::create_dir(to).map_err(|source| CatalogError::io("create", to, source))?;
    for entry in entries(from)? {
        let name = entry.file_name().expect("an entry has a name");
        if entry.is_dir() {
            copy_tree(&entry, &to.join(name))?;
        } else {
            fs::copy(&entry, to.join(name))
                .map_err(|source| CatalogError::io("copy", &entry, source))?;
        }
    }
    Ok(())
}

/// Bytes of all files in `dir`.
pub(super) fn size_bytes(dir: &Path) -> Result<u64, CatalogError> {
    let mut bytes = 0;
    for entry in entries(dir)? {
        bytes += if entry.is_dir() {
            size_bytes(&entry)?
        } else {
            fs::metadata(&entry)
                .map_err(|source| CatalogError::io("look at", &entry, source))?
                .len()
        };
    }
    Ok(bytes)
}

fn entries(dir: &Path) -> Result<Vec<PathBuf>, CatalogError> {
    fs::read_dir(dir)
        .and_then(|found| found.map(|entry| Ok(entry?.path())).collect())
        .map_err(|source| CatalogError::io("read", dir, source))
}

/// Refuses a step that needs `more_bytes` beyond what an open store always needs.
pub(super) fn check_free_space(dir: &Path, more_bytes: u64) -> Result<(), CatalogError> {
    let stat = rustix::fs::statvfs(dir)
        .map_err(|errno| CatalogError::io("look at the free space of", dir, errno.into()))?;
    let free_bytes = stat.f_bavail.saturating_mul(stat.f_frsize);
    let needed_bytes = limits::SLED_FREE_BYTES_MIN.saturating_add(more_bytes);
    if free_bytes < needed_bytes {
        return Err(CatalogError::NoSpace {
            path: dir.to_path_buf(),
            needed_bytes,
            free_bytes,
        });
    }
    Ok(())
}
