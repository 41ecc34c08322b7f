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

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::directory::{Places, State, check_free_space, copy_tree, size_bytes};
use super::error::CatalogError;
use super::lock::DirLock;
use super::meta::{self, Applied, Head, StoreKind, Totals};
use super::migrate;
use super::sled_db::{Batch, Chunk, SledDb};
use super::value::{BadValue, Key};
use super::watched::Watched;
use crate::limits;

/// A row: key and value, opaque to the store.
pub type Row = (Vec<u8>, Vec<u8>);

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

/// Changes to apply together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Delta {
    /// Rows to set. Of two with the same key the later counts.
    pub puts: Vec<Row>,
    /// Keys of rows to remove, before the puts. A key that is not there does no harm.
    pub deletes: Vec<Vec<u8>>,
    /// Up to where the journal is applied afterwards; `None` leaves it as it was.
    pub applied: Option<Applied>,
}

impl Delta {
    fn bytes(&self) -> usize {
        let puts: usize = self.puts.iter().map(|(k, v)| k.len() + v.len()).sum();
        let deletes: usize = self.deletes.iter().map(Vec::len).sum();
        puts + deletes
    }
}

/// The rows and their totals. Lives on the watched thread.
pub(super) struct Rows {
    db: SledDb,
    head: Head,
    totals: Totals,
}

/// The meta row, as far as it can be read.
pub(super) enum MetaRow {
    Missing,
    Found(Head, Totals),
    /// Intact, but of a format this program does not know.
    Newer(u32),
    Damaged(String),
}

impl Rows {
    pub(super) fn new(db: SledDb, kind: StoreKind) -> Self {
        Self {
            db,
            head: Head { kind, format: 0 },
            totals: Totals::default(),
        }
    }

    pub(super) fn head(&self) -> Head {
        self.head
    }

    pub(super) fn path(&self) -> &Path {
        self.db.path()
    }

    /// Whether there is no row at all, the meta row not counted.
    pub(super) fn is_empty(&self) -> bool {
        let chunk = self.db.scan(Some(&Key::Meta.encode()), 1);
        chunk.rows.is_empty() && chunk.broken.is_none()
    }

    /// Writes the meta row of a store of this format with these rows in it.
    pub(super) fn set_meta(&mut self, format: u32, totals: Totals) -> Result<(), CatalogError> {
        let head = Head {
            format,
            ..self.head
        };
        let mut batch = Batch::default();
        batch.put(&Key::Meta.encode(), &meta::encode(head, &totals))?;
        self.db.commit(batch)?;
        self.head = head;
        self.totals = totals;
        Ok(())
    }

    /// Reads the meta row and remembers it.
    fn read_meta(&mut self) -> MetaRow {
        let key = Key::Meta.encode();
        let payload = match self.db.get(&key) {
            Ok(Some(payload)) => payload,
            Ok(None) => return MetaRow::Missing,
            Err(CatalogError::Newer { found, .. }) => return MetaRow::Newer(found),
            Err(error) => return MetaRow::Damaged(error.to_string()),
        };
        let head = match Head::decode(&payload) {
            Ok(head) if head.format > migrate::FORMAT => return MetaRow::Newer(head.format),
            Ok(head) => head,
            Err(error) => return MetaRow::Damaged(error.to_string()),
        };
        match meta::decode_totals(&payload) {
            Ok(totals) => {
                self.head = head;
                self.totals = totals;
                MetaRow::Found(head, totals)
            }
            Err(error) => MetaRow::Damaged(error.to_string()),
        }
    }

    /// Applies `delta` and the meta row for it as one batch.
    fn apply(&mut self, delta: Delta, durably: bool) -> Result<(), CatalogError> {
        let applied = delta.applied;
        let mut totals = self.totals;
        let mut batch = Batch::default();
        let mut changed = false;
        for (key, new) in last_of_each(delta) {
            let key = Key::Row(&key).encode();
            let old = self.db.get(&key)?;
            if old == new {
                continue;
            }
            changed = true;
            if let Some(old) = &old {
                totals.remove(&key, old);
            }
            match &new {
                Some(new) => {
                    totals.add(&key, new);
                    batch.put(&key, new)?;
                }
                None => batch.delete(&key),
            }
        }
        totals.applied = applied.or(totals.applied);
        if !changed && totals.applied == self.totals.applied {
            return Ok(());
        }
        totals.changes = totals.changes.wrapping_add(1);
        batch.put(&Key::Meta.encode(), &meta::encode(self.head, &totals))?;
        self.db.write(batch)?;
        if durably {
            self.db.flush_durable()?;
        }
        self.totals = totals;
        Ok(())
    }
}

/// The last word of the delta on each key.
fn last_of_each(delta: Delta) -> BTreeMap<Vec<u8>, Option<Vec<u8>>> {
    let deletes = delta.deletes.into_iter().map(|key| (key, None));
    let puts = delta
        .puts
        .into_iter()
        .map(|(key, value)| (key, Some(value)));
    deletes.chain(puts).collect()
}

/// An open store, or, if it was found unsound, none.
pub(super) struct RowStore {
    watched: Option<Watched<Rows>>,
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
        let places = Places::new(lock.dir(), kind);
        match places.state()? {
            State::Present => Self::load(&places, kind, options),
            State::Absent => {
                build(&places, kind, options, Contents::default())?;
                let (store, mut loaded) = Self::load(&places, kind, options)?;
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
        places.set_aside()?;
        build(&places, kind, options, contents)?;
        let (store, loaded) = Self::load(&places, kind, options)?;
        match loaded.verdict {
            Verdict::Unsound { reasons } => Err(CatalogError::Ruined {
                path: places.store(),
                reasons,
            }),
            Verdict::Sound | Verdict::Fresh => Ok(store),
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
        let (store, loaded) = Self::load(&Places::new(scratch.path(), kind), kind, options)?;
        store.close()?;
        Ok(loaded)
    }

    /// Applies the delta; returns when it is on the disk.
    pub(super) fn apply(&mut self, delta: Delta) -> Result<(), CatalogError> {
        let limit = self.options.sync_timeout;
        check_delta(&delta)?;
        self.watched()?
            .run("a change", limit, move |rows| rows.apply(delta, true))
    }

    /// Closes the files and waits for that.
    pub(super) fn close(self) -> Result<(), CatalogError> {
        self.watched.map_or(Ok(()), Watched::close)
    }

    fn none(places: &Places, options: OpenOptions) -> Self {
        Self {
            watched: None,
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
    ) -> Result<(Self, Loaded), CatalogError> {
        let path = places.store();
        check_free_space(&path, 0)?;
        let mut store = match start(&path, kind, options) {
            Ok(watched) => Self {
                watched: Some(watched),
                path,
                options,
            },
            Err(error) if error.stops() => {
                return Ok((
                    Self::none(places, options),
                    unsound(vec![error.to_string()]),
                ));
            }
            Err(error) => return Err(error),
        };
        let loaded = match store.check_and_migrate(kind) {
            Ok(loaded) => loaded,
            // A panic or an endless loop over damaged files.
            Err(error) if error.stops() => unsound(vec![error.to_string()]),
            Err(error) => return Err(error),
        };
        if !loaded.verdict.is_usable() {
            // Dropping closes it, unless it must not be touched any more.
            store.watched = None;
        }
        Ok((store, loaded))
    }

    fn check_and_migrate(&mut self, kind: StoreKind) -> Result<Loaded, CatalogError> {
        let loaded = self.check(kind)?;
        let format = loaded.format.unwrap_or(migrate::FORMAT);
        if !loaded.verdict.is_usable() || migrate::pending(format).is_empty() {
            return Ok(loaded);
        }
        // An upgrade may write every row once more beside the old ones.
        check_free_space(&self.path, size_bytes(&self.path)?)?;
        self.watched()?
            .run("a migration", limits::MIGRATION_TIMEOUT, |rows| {
                migrate::upgrade(rows, false)
            })?;
        let upgraded = self.check(kind)?;
        Ok(Loaded {
            format: Some(format),
            ..upgraded
        })
    }

    /// Reads everything and compares it with the meta row.
    fn check(&mut self, kind: StoreKind) -> Result<Loaded, CatalogError> {
        let limit = self.options.sync_timeout;
        let path = self.path.clone();
        let watched = self.watched()?;
        let meta = watched.run("reading", limit, |rows| Ok(rows.read_meta()))?;
        let mut findings = Findings::default();
        let known = match meta {
            MetaRow::Newer(found) => {
                return Err(CatalogError::Newer {
                    path,
                    found,
                    known: migrate::FORMAT,
                });
            }
            MetaRow::Found(head, _) if head.kind != kind => {
                return Err(CatalogError::WrongKind {
                    path,
                    found: head.kind,
                    expected: kind,
                });
            }
            MetaRow::Found(head, totals) => Some((head, totals)),
            MetaRow::Missing => {
                findings.add("its meta row is missing");
                None
            }
            MetaRow::Damaged(reason) => {
                findings.add(format!("its meta row is damaged: {reason}"));
                None
            }
        };
        let rows = scan(watched, limit, &mut findings)?;
        if let Some((_, totals)) = known {
            findings.compare(&rows, &totals);
        }
        Ok(Loaded {
            rows,
            applied: known.and_then(|(_, totals)| totals.applied),
            verdict: findings.verdict(),
            format: known.map(|(head, _)| head.format),
        })
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

/// All rows, chunk by chunk, so that the watch looks at each for itself.
fn scan(
    watched: &mut Watched<Rows>,
    limit: Duration,
    findings: &mut Findings,
) -> Result<Vec<Row>, CatalogError> {
    let mut rows: Vec<Row> = Vec::new();
    let mut last: Option<Vec<u8>> = None;
    loop {
        let after = last.clone();
        let chunk: Chunk = watched.run("reading", limit, move |rows| {
            Ok(rows.db.scan(after.as_deref(), limits::STORE_SCAN_BYTES))
        })?;
        for (key, payload) in chunk.rows {
            if last.as_ref().is_some_and(|last| *last >= key) {
                findings.add(format!("the key {} is out of order", key.escape_ascii()));
                return Ok(rows);
            }
            if let Some(row) = findings.look_at(&key, payload) {
                rows.push(row);
            }
            last = Some(key);
        }
        if let Some(reason) = chunk.broken {
            findings.add(format!("reading it broke off: {reason}"));
        }
        if !chunk.more {
            return Ok(rows);
        }
    }
}

/// What a new store is made of.
#[derive(Default)]
pub(super) struct Contents {
    pub rows: Vec<Row>,
    pub applied: Option<Applied>,
}

/// Steps 2 to 5 of [`super::directory`].
fn build(
    places: &Places,
    kind: StoreKind,
    options: OpenOptions,
    contents: Contents,
) -> Result<(), CatalogError> {
    let path = places.clear_building()?;
    let bytes: usize = contents.rows.iter().map(|(k, v)| k.len() + v.len()).sum();
    // Rewritten pages take up to three times what was written.
    check_free_space(places.parent(), 3 * bytes as u64)?;
    let dir = path.clone();
    let mut watched = Watched::start(&path, options.open_timeout, move || {
        let mut rows = Rows::new(SledDb::create(&dir, options.cache_bytes)?, kind);
        migrate::upgrade(&mut rows, true)?;
        Ok(rows)
    })?;
    let limit = options.sync_timeout;
    for delta in in_pieces(contents) {
        check_delta(&delta)?;
        watched.run("a change", limit, move |rows| rows.apply(delta, false))?;
    }
    watched.run("a flush", limit, |rows| rows.db.flush_durable())?;
    watched.close()?;
    places.publish()
}

/// Deltas of some [`limits::STORE_SCAN_BYTES`]; only the last carries the position.
fn in_pieces(contents: Contents) -> Vec<Delta> {
    let mut pieces = vec![Delta::default()];
    let mut bytes = 0;
    for (key, value) in contents.rows {
        bytes += key.len() + value.len();
        let last = pieces.last_mut().expect("never empty");
        last.puts.push((key, value));
        if bytes >= limits::STORE_SCAN_BYTES {
            bytes = 0;
            pieces.push(Delta::default());
        }
    }
    pieces.last_mut().expect("never empty").applied = contents.applied;
    pieces
}

fn check_delta(delta: &Delta) -> Result<(), CatalogError> {
    let bytes = delta.bytes();
    if bytes > limits::STORE_DELTA_BYTES_MAX {
        return Err(CatalogError::TooLarge {
            what: "change",
            bytes,
            limit: limits::STORE_DELTA_BYTES_MAX,
        });
    }
    Ok(())
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

fn unsound(reasons: Vec<String>) -> Loaded {
    Loaded {
        rows: Vec::new(),
        applied: None,
        verdict: Verdict::Unsound { reasons },
        format: None,
    }
}

/// What a check found wrong.
#[derive(Default)]
struct Findings {
    reasons: Vec<String>,
    more: usize,
}

impl Findings {
    fn add(&mut self, reason: impl Into<String>) {
        if self.reasons.len() < limits::UNSOUND_REASONS_MAX {
            self.reasons.push(reason.into());
        } else {
            self.more += 1;
        }
    }

    /// The row that a pair of the database stands for, if it is one and intact.
    fn look_at(&mut self, key: &[u8], payload: Result<Vec<u8>, BadValue>) -> Option<Row> {
        let row_key = match Key::decode(key) {
            Some(Key::Meta) => return None,
            Some(Key::Row(row_key)) => row_key,
            None => {
                self.add(format!(
                    "the key {} is of no known kind",
                    key.escape_ascii()
                ));
                return None;
            }
        };
        match payload {
            Ok(value) => Some((row_key.to_vec(), value)),
            Err(bad) => {
                self.add(format!("the value under {}: {bad}", row_key.escape_ascii()));
                None
            }
        }
    }

    fn compare(&mut self, rows: &[Row], totals: &Totals) {
        let mut found = Totals::default();
        for (key, value) in rows {
            found.add(&Key::Row(key).encode(), value);
        }
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

    fn verdict(mut self) -> Verdict {
        if self.reasons.is_empty() {
            return Verdict::Sound;
        }
        if self.more > 0 {
            self.reasons.push(format!("and {} more", self.more));
        }
        Verdict::Unsound {
            reasons: self.reasons,
        }
    }
}
