//! Rows in the database, counted and summed: what a peer's catalog and an index
//! server's registry have in common.
//!
//! A store is a set of rows, key bytes to value bytes, opaque here, and a meta
//! row ([`super::meta`]). A change is a [`Delta`]; it is applied in one atomic
//! batch together with the meta row that counts and sums the rows after it.
//! Opening reads every row, checks it, counts, sums, and compares.
//!
//! Invariants:
//!
//! 1. When `apply` returns, the delta is on the disk, whole; when it fails with an
//!    error that [stops](CatalogError::stops), it is there whole or not at all, and
//!    nothing more is written by this process.
//! 2. [`Verdict::Sound`] and [`Verdict::Fresh`] are said only of rows that are
//!    exactly those after some applied delta: the last one, or, where the database
//!    lost its end, an earlier one, whose applied position stands beside them.
//! 3. The database is touched on its own thread only ([`Watched`]).
//! 4. A store that was found unsound is closed and never written to.
//!
//! Deliberately missing: reading single rows. Both roles keep their state in
//! memory and read a store once, when they start.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::check::{Check, KnownMeta, Loaded, Verdict, Visit, unsound};
use super::directory::{Places, State, check_free_space, copy_tree, size_bytes};
use super::error::CatalogError;
use super::kind::StoreKind;
use super::lock::DirLock;
use super::meta::{Applied, FORMAT};
use super::rows::{Delta, MetaRow, Row, Rows};
use super::seen::{self, Counter};
use super::sled_db::SledDb;
use super::steps;
use super::watched::Watched;
use crate::limits;

/// How to open a store. [`Default`] is right for both roles.
#[derive(Debug, Clone, Copy)]
pub struct OpenOptions {
    /// Cache of the database, in bytes; it takes a multiple.
    pub cache_bytes: u64,
    /// A change that takes longer ends in [`CatalogError::SyncTimedOut`].
    pub sync_timeout: Duration,
    /// Opening the database may take so long before it counts as ruined.
    pub open_timeout: Duration,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self {
            cache_bytes: limits::SLED_CACHE_BYTES,
            sync_timeout: limits::SYNC_TIMEOUT,
            open_timeout: limits::SLED_OPEN_TIMEOUT,
        }
    }
}

/// An open store, or, if it was found unsound, none.
pub(super) struct RowStore {
    watched: Option<Watched<Rows>>,
    /// Of a registry, once it takes changes.
    counter: Option<Counter>,
    path: PathBuf,
    options: OpenOptions,
}

impl RowStore {
    /// Opens the store of that kind, or makes it where nothing ever was.
    pub(super) fn open(
        lock: &DirLock,
        kind: StoreKind,
        options: OpenOptions,
    ) -> Result<(Self, Loaded), CatalogError> {
        let mut rows = Vec::new();
        let (store, loaded) = Self::open_each(lock, kind, options, &mut |row| rows.push(row))?;
        Ok((store, Loaded { rows, ..loaded }))
    }

    /// Like [`Self::open`], but hands over the rows one by one instead of together.
    pub(super) fn open_each(
        lock: &DirLock,
        kind: StoreKind,
        options: OpenOptions,
        visit: Visit<'_>,
    ) -> Result<(Self, Loaded), CatalogError> {
        let places = Places::new(lock.dir(), kind);
        match places.state()? {
            State::Present => Self::load(&places, kind, options, visit),
            State::Absent => {
                seen::forget(&places)?;
                build(&places, kind, options, Contents::default())?;
                let (store, mut loaded) = Self::load(&places, kind, options, visit)?;
                if loaded.verdict == Verdict::Sound {
                    loaded.verdict = Verdict::Fresh;
                }
                Ok((store, loaded))
            }
            State::Lost { set_aside } => {
                let reason = format!("it was set aside as {}", set_aside.display());
                Ok((Self::none(&places, options), unsound(vec![reason])))
            }
        }
    }

    /// Sets the store aside, if there is one, and makes a new one of `contents`.
    pub(super) fn replace(
        lock: &DirLock,
        kind: StoreKind,
        options: OpenOptions,
        contents: Contents,
    ) -> Result<Self, CatalogError> {
        let places = Places::new(lock.dir(), kind);
        contents.check_space(&places)?;
        // First of all: where it stays, nothing has been touched yet.
        seen::forget(&places)?;
        places.set_aside()?;
        build(&places, kind, options, contents)?;
        let (store, loaded) = Self::load(&places, kind, options, &mut |_| ())?;
        match loaded.verdict {
            Verdict::Unsound { reasons } => Err(CatalogError::Ruined {
                path: places.store(),
                reasons,
            }),
            Verdict::Sound | Verdict::Fresh => {
                places.remove_old_ruined();
                Ok(store)
            }
        }
    }

    /// Reads a copy of the store in `data_dir`, which is only looked at.
    pub(super) fn read_copy(
        data_dir: &Path,
        kind: StoreKind,
        options: OpenOptions,
    ) -> Result<Loaded, CatalogError> {
        match Places::new(data_dir, kind).state()? {
            State::Present => {}
            State::Absent => {
                return Ok(Loaded {
                    verdict: Verdict::Fresh,
                    ..unsound(Vec::new())
                });
            }
            State::Lost { set_aside } => {
                let reason = format!("it was set aside as {}", set_aside.display());
                return Ok(unsound(vec![reason]));
            }
        }
        let scratch = scratch_copy(data_dir, kind)?;
        let copy = Places::new(scratch.path(), kind);
        let mut rows = Vec::new();
        let (mut store, loaded) = Self::load(&copy, kind, options, &mut |row| rows.push(row))?;
        let loaded = store.refuse_older(&Places::new(data_dir, kind), kind, loaded)?;
        store.close()?;
        Ok(Loaded { rows, ..loaded })
    }

    /// Applies the delta; returns when it is on the disk.
    pub(super) fn apply(&mut self, delta: Delta) -> Result<(), CatalogError> {
        self.apply_all(vec![delta])
    }

    /// Applies one delta after the other; returns when all of them are on the disk. Some are synced together, but not all
    /// of many: sled overwrites in place what it freed, and what replaced it may lie in a part of the file that only a sync
    /// makes last.
    pub(super) fn apply_all(&mut self, deltas: Vec<Delta>) -> Result<(), CatalogError> {
        let limit = self.options.sync_timeout;
        let count = deltas.len();
        let mut changes = None;
        for (delta, number) in deltas.into_iter().zip(1..) {
            delta.check_size()?;
            changes = Some(self.watched()?.run("a change", limit, move |rows| {
                rows.apply(
                    delta,
                    number == count || number % limits::STORE_PIECES_SYNCED == 0,
                )?;
                Ok(rows.changes())
            })?);
        }
        if let (Some(counter), Some(changes)) = (&mut self.counter, changes) {
            counter.tell(changes);
        }
        Ok(())
    }

    /// Whether there is room for more.
    pub(super) fn check_space(&self) -> Result<(), CatalogError> {
        check_free_space(&self.path, 0)
    }

    /// Closes the files and waits for that.
    pub(super) fn close(self) -> Result<(), CatalogError> {
        self.watched.map_or(Ok(()), Watched::close)
    }

    fn none(places: &Places, options: OpenOptions) -> Self {
        Self {
            watched: None,
            counter: None,
            path: places.store(),
            options,
        }
    }

    fn watched(&mut self) -> Result<&mut Watched<Rows>, CatalogError> {
        let path = &self.path;
        self.watched.as_mut().ok_or_else(|| {
            CatalogError::ruined(path, "it was found unsound and has to be replaced")
        })
    }

    /// Opens what is there, reads and checks all of it, and brings it to this program's format.
    fn load(
        places: &Places,
        kind: StoreKind,
        options: OpenOptions,
        visit: Visit<'_>,
    ) -> Result<(Self, Loaded), CatalogError> {
        let path = places.store();
        check_free_space(&path, 0)?;
        let mut store = match start(&path, kind, options) {
            Ok(watched) => Self {
                watched: Some(watched),
                counter: None,
                path,
                options,
            },
            Err(error) if speaks_of_damage(&error) => {
                return Ok((Self::none(places, options), unsound(reasons_of(error))));
            }
            Err(error) => return Err(error),
        };
        let checked = store.check_and_migrate(kind, visit);
        let checked = checked.and_then(|loaded| store.refuse_older(places, kind, loaded));
        let loaded = match checked {
            Ok(loaded) => loaded,
            Err(error) if speaks_of_damage(&error) => unsound(reasons_of(error)),
            Err(error) => return Err(error),
        };
        if !loaded.verdict.is_usable() {
            // Dropping closes it, unless it must not be touched any more.
            store.watched = None;
        } else if kind == StoreKind::Index {
            store.counter = Some(Counter::open(places));
        }
        Ok((store, loaded))
    }

    /// A registry that is sound, and not the last one that was: the database gave up what it could not read.
    fn refuse_older(
        &mut self,
        places: &Places,
        kind: StoreKind,
        loaded: Loaded,
    ) -> Result<Loaded, CatalogError> {
        if kind != StoreKind::Index || !loaded.verdict.is_usable() {
            return Ok(loaded);
        }
        let limit = self.options.sync_timeout;
        let found = self
            .watched()?
            .run("reading", limit, |rows| Ok(rows.changes()))?;
        Ok(match seen::read(places) {
            Some(seen) if seen > found => Loaded {
                verdict: Verdict::Unsound {
                    reasons: vec![format!(
                        "it is as it was after {found} changes, and it took {seen}: later ones are lost"
                    )],
                },
                ..loaded
            },
            _ => loaded,
        })
    }

    /// The rows are handed over once, in this program's format.
    fn check_and_migrate(
        &mut self,
        kind: StoreKind,
        visit: Visit<'_>,
    ) -> Result<Loaded, CatalogError> {
        let meta = self.read_meta(kind)?;
        let Ok((head, _)) = &meta else {
            return self.check(meta, visit);
        };
        let format = head.format;
        if steps::pending(format).is_empty() {
            return self.check(meta, visit);
        }
        let before = self.check(meta, &mut |_| ())?;
        if !before.verdict.is_usable() {
            return Ok(before);
        }
        // An upgrade may write every row once more beside the old ones.
        check_free_space(&self.path, size_bytes(&self.path)?)?;
        self.watched()?
            .run("a migration", limits::MIGRATION_TIMEOUT, |rows| {
                steps::upgrade(rows, false)
            })?;
        let meta = self.read_meta(kind)?;
        let after = self.check(meta, visit)?;
        Ok(Loaded {
            format: Some(format),
            ..after
        })
    }

    /// The meta row, or what is wrong with it; an error if the store is not for us.
    fn read_meta(&mut self, kind: StoreKind) -> Result<KnownMeta, CatalogError> {
        let limit = self.options.sync_timeout;
        let path = self.path.clone();
        let meta = self
            .watched()?
            .run("reading", limit, |rows| Ok(rows.read_meta()))?;
        match meta {
            MetaRow::Newer(found) => Err(CatalogError::Newer {
                path,
                found,
                known: FORMAT,
            }),
            MetaRow::Found(head, _) if head.kind != kind => Err(CatalogError::WrongKind {
                path,
                found: head.kind,
                expected: kind,
            }),
            MetaRow::Found(head, totals) => Ok(Ok((head, totals))),
            MetaRow::Missing => Ok(Err("its meta row is missing".to_owned())),
            MetaRow::Damaged(reason) => Ok(Err(format!("its meta row is damaged: {reason}"))),
        }
    }

    /// Reads everything and compares it with the meta row.
    fn check(&mut self, meta: KnownMeta, visit: Visit<'_>) -> Result<Loaded, CatalogError> {
        let limit = self.options.sync_timeout;
        let mut check = Check::default();
        let watched = self.watched()?;
        let mut last: Option<Vec<u8>> = None;
        // Chunk by chunk, so that the watch looks at each for itself.
        loop {
            let after = last.take();
            let chunk =
                watched.run(
                    "reading",
                    limit,
                    move |rows| Ok(rows.scan(after.as_deref())),
                )?;
            last = chunk.rows.last().map(|(key, _)| key.clone());
            for pair in chunk.rows {
                check.row(pair, visit);
            }
            if let Some(reason) = chunk.broken {
                check.add(format!("reading it broke off: {reason}"));
            }
            if !chunk.more {
                break;
            }
        }
        Ok(check.conclude(meta))
    }
}

/// Whether an error while opening or reading means that the store has to be
/// replaced: damaged files may also make the database panic or run for ever. A
/// write or sync that fails is another matter: the disk is not to be built on.
fn speaks_of_damage(error: &CatalogError) -> bool {
    matches!(
        error,
        CatalogError::Ruined { .. }
            | CatalogError::Panicked { .. }
            | CatalogError::SyncTimedOut { .. }
    )
}

/// What was found, without the place: a copy of the store may have been read in its stead.
fn reasons_of(error: CatalogError) -> Vec<String> {
    match error {
        CatalogError::Ruined { reasons, .. } => reasons,
        CatalogError::Panicked { message, .. } => vec![format!("the database panicked: {message}")],
        other => vec![other.to_string()],
    }
}

fn start(
    path: &Path,
    kind: StoreKind,
    options: OpenOptions,
) -> Result<Watched<Rows>, CatalogError> {
    let dir = path.to_path_buf();
    Watched::start(path, options.open_timeout, move || {
        Ok(Rows::new(SledDb::open(&dir, options.cache_bytes)?, kind))
    })
}

/// What a new store is made of.
#[derive(Default)]
pub(super) struct Contents {
    pub rows: Vec<Row>,
    pub applied: Option<Applied>,
}

impl Contents {
    /// Rewritten pages take up to three times what was written.
    fn check_space(&self, places: &Places) -> Result<(), CatalogError> {
        let bytes: usize = self.rows.iter().map(|(k, v)| k.len() + v.len()).sum();
        check_free_space(places.parent(), 3 * bytes as u64)
    }
}

/// Steps 2 to 5 of [`super::directory`].
fn build(
    places: &Places,
    kind: StoreKind,
    options: OpenOptions,
    contents: Contents,
) -> Result<(), CatalogError> {
    contents.check_space(places)?;
    let path = places.clear_building()?;
    let dir = path.clone();
    let mut watched = Watched::start(&path, options.open_timeout, move || {
        let mut rows = Rows::new(SledDb::create(&dir, options.cache_bytes)?, kind);
        steps::upgrade(&mut rows, true)?;
        Ok(rows)
    })?;
    let limit = options.sync_timeout;
    let delta = Delta {
        puts: contents.rows,
        deletes: Vec::new(),
        applied: contents.applied,
    };
    for delta in delta.cut(limits::STORE_BUILD_BYTES) {
        watched.run("a change", limit, move |rows| rows.apply(delta, false))?;
    }
    watched.run("a flush", limit, |rows| rows.flush_durable())?;
    watched.close()?;
    places.publish()
}

/// A copy of the store in a directory that vanishes with the returned value.
pub(super) fn scratch_copy(
    data_dir: &Path,
    kind: StoreKind,
) -> Result<tempfile::TempDir, CatalogError> {
    let scratch = tempfile::Builder::new()
        .prefix("tidings-scratch-")
        .tempdir()
        .map_err(|source| CatalogError::io("create", &std::env::temp_dir(), source))?;
    let from = Places::new(data_dir, kind).store();
    check_free_space(scratch.path(), size_bytes(&from)?)?;
    copy_tree(&from, &Places::new(scratch.path(), kind).store())?;
    Ok(scratch)
}
