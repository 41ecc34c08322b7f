//! sled 0.34.7, used safely. The only file that names it.
//!
//! What its source does, and what is done about it here:
//!
//! | sled | here |
//! |---|---|
//! | `flush` is `sync_file_range`, which does not make a grown file's size durable | an own descriptor of `db`, fsynced after every flush |
//! | the flusher thread logs a failed fsync and goes on | the kernel reports a write error once to every descriptor that was open when it happened; ours was open before sled's first write |
//! | values that make a page larger than a quarter segment go to files that are never synced | keys and values are refused above the bounds in `limits`, which keep every page below |
//! | a left-over `snap.*.generating` is taken for the newest snapshot, and open fails for ever | deleted before open |
//! | recovery skips what it cannot read, silently | values carry a checksum, the meta row counts and sums the rows; opening proves nothing, scanning does |
//! | garbage is collected only by the flusher thread | it is never switched off |
//! | a flush may wait for ever, open and drop may panic or hang | used only through [`Watched`](super::watched::Watched) |
//! | `conf` and directory entries are not synced | a store is built aside and synced as a whole before it gets its name; the directory is synced after every open |
//!
//! Invariants:
//!
//! 1. When [`SledDb::commit`] returns, the batch is on the disk, whole.
//! 2. Nothing is written that is over the bounds of a key or a value.
//! 3. A payload that leaves here stood under its key, unchanged.
//!
//! Deliberately missing: trees, transactions, merge operators, subscribers,
//! compression, `generate_id`. One tree, atomic batches, one writer.

use std::fs::{self, File};
use std::io;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::directory::sync_dir;
use super::error::CatalogError;
use super::value::{BadValue, seal, unseal};
use crate::limits;

const DATABASE_FILE: &str = "db";
const SNAPSHOT_PREFIX: &str = "snap.";
const UNFINISHED_SUFFIX: &str = ".generating";

/// sled hands its files back some time after it was dropped, so its own lock
/// may still be taken by the store this process closed a moment ago.
const LOCK_PATIENCE: Duration = Duration::from_secs(10);
const LOCK_RETRY_EVERY: Duration = Duration::from_millis(5);

/// An open database.
pub(super) struct SledDb {
    db: sled::Db,
    /// Only ever fsynced. Opened before sled opened the same file.
    sync: File,
    path: PathBuf,
}

/// Changes that are applied together or not at all.
#[derive(Default)]
pub(super) struct Batch {
    inner: sled::Batch,
}

impl Batch {
    /// Sets `key`, with the envelope around `payload`.
    pub(super) fn put(&mut self, key: &[u8], payload: &[u8]) -> Result<(), CatalogError> {
        self.inner.insert(key, seal(key, payload)?);
        Ok(())
    }

    pub(super) fn delete(&mut self, key: &[u8]) {
        self.inner.remove(key);
    }
}

/// A key with its payload, or with what is wrong with it.
pub(super) type Verified = (Vec<u8>, Result<Vec<u8>, BadValue>);

/// A stretch of the database in key order.
pub(super) struct Chunk {
    pub rows: Vec<Verified>,
    /// Whether there may be more behind the last of `rows`.
    pub more: bool,
    /// Set if the database could not be read any further.
    pub broken: Option<String>,
}

impl SledDb {
    /// Makes an empty database in `dir`, which must not exist yet.
    pub(super) fn create(dir: &Path, cache_bytes: u64) -> Result<Self, CatalogError> {
        fs::create_dir(dir).map_err(|source| CatalogError::io("create", dir, source))?;
        let file = dir.join(DATABASE_FILE);
        File::create_new(&file).map_err(|source| CatalogError::io("create", &file, source))?;
        Self::open(dir, cache_bytes)
    }

    /// Opens the database in `dir`. Says nothing about whether its contents are whole.
    pub(super) fn open(dir: &Path, cache_bytes: u64) -> Result<Self, CatalogError> {
        remove_unfinished_snapshots(dir)?;
        let file = dir.join(DATABASE_FILE);
        let sync = File::open(&file).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => CatalogError::ruined(dir, "its file db is missing"),
            _ => CatalogError::io("open", &file, source),
        })?;
        let this = Self {
            db: open_patiently(dir, cache_bytes)?,
            sync,
            path: dir.to_path_buf(),
        };
        this.flush_durable()?;
        sync_dir(dir)?;
        Ok(this)
    }

    /// The payload under `key`.
    pub(super) fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, CatalogError> {
        let found = self.db.get(key).map_err(|error| self.failed(&error))?;
        let Some(value) = found else {
            return Ok(None);
        };
        match unseal(key, &value) {
            Ok(payload) => Ok(Some(payload.to_vec())),
            Err(BadValue::Newer(version)) => Err(CatalogError::Newer {
                path: self.path.clone(),
                found: version.into(),
                known: super::meta::FORMAT,
            }),
            Err(bad) => Err(CatalogError::ruined(
                &self.path,
                format!("the value under {}: {bad}", key.escape_ascii()),
            )),
        }
    }

    /// Keys after `after` in order, some `bytes_max` bytes of them, each value verified.
    pub(super) fn scan(&self, after: Option<&[u8]>, bytes_max: usize) -> Chunk {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut chunk = Chunk {
            rows: Vec::new(),
            more: false,
            broken: None,
        };
        let mut bytes = 0;
        for item in self.db.range::<&[u8], _>((start, Bound::Unbounded)) {
            let (key, value) = match item {
                Ok(row) => row,
                Err(error) => {
                    chunk.broken = Some(error.to_string());
                    return chunk;
                }
            };
            bytes += key.len() + value.len();
            let payload = unseal(&key, &value).map(<[u8]>::to_vec);
            chunk.rows.push((key.to_vec(), payload));
            if bytes >= bytes_max {
                chunk.more = true;
                return chunk;
            }
        }
        chunk
    }

    /// Applies the batch and returns once it is on the disk.
    pub(super) fn commit(&self, batch: Batch) -> Result<(), CatalogError> {
        self.write(batch)?;
        self.flush_durable()
    }

    /// Applies the batch. It is on the disk, whole or not at all, after the next
    /// [`Self::flush_durable`].
    pub(super) fn write(&self, batch: Batch) -> Result<(), CatalogError> {
        self.db
            .apply_batch(batch.inner)
            .map_err(|error| self.failed(&error))
    }

    /// Returns once everything written is on the disk.
    pub(super) fn flush_durable(&self) -> Result<(), CatalogError> {
        self.db.flush().map_err(|error| self.failed(&error))?;
        self.sync
            .sync_all()
            .map_err(|error| CatalogError::SyncFailed {
                path: self.path.clone(),
                reason: format!("fsync: {error}"),
            })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// An error of an open database. Whatever it was about, sled keeps serving
    /// state that may never have reached the disk, so the process has to stop.
    fn failed(&self, error: &sled::Error) -> CatalogError {
        match error {
            sled::Error::Corruption { .. } => {
                CatalogError::ruined(&self.path, format!("sled: {error}"))
            }
            _ => CatalogError::SyncFailed {
                path: self.path.clone(),
                reason: format!("sled: {error}"),
            },
        }
    }
}

/// sled's reader takes these for snapshots and its writer does not finish them.
/// Safe only for who holds the directory: otherwise one may just be in the making.
fn remove_unfinished_snapshots(dir: &Path) -> Result<(), CatalogError> {
    let failed = |source| CatalogError::io("read", dir, source);
    for entry in fs::read_dir(dir).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with(SNAPSHOT_PREFIX) && name.ends_with(UNFINISHED_SUFFIX) {
            let path = entry.path();
            fs::remove_file(&path).map_err(|source| CatalogError::io("remove", &path, source))?;
            tracing::info!(path = %path.display(), "removed an unfinished snapshot");
        }
    }
    Ok(())
}

fn open_patiently(dir: &Path, cache_bytes: u64) -> Result<sled::Db, CatalogError> {
    let every_ms = u64::try_from(limits::SLED_FLUSH_EVERY.as_millis()).expect("a second");
    let config = sled::Config::new()
        .path(dir)
        .cache_capacity(cache_bytes)
        .mode(sled::Mode::LowSpace)
        .use_compression(false)
        .flush_every_ms(Some(every_ms));
    let started = Instant::now();
    loop {
        match config.open() {
            Ok(db) => return Ok(db),
            Err(error) if is_locked(&error) && started.elapsed() < LOCK_PATIENCE => {
                thread::sleep(LOCK_RETRY_EVERY);
            }
            Err(error) => return Err(open_error(dir, error)),
        }
    }
}

fn is_locked(error: &sled::Error) -> bool {
    matches!(error, sled::Error::Io(source) if source.to_string().starts_with("could not acquire lock"))
}

/// Tells a machine that refuses from files that are wrong: only the latter are
/// a reason to build the store anew.
fn open_error(dir: &Path, error: sled::Error) -> CatalogError {
    if is_locked(&error) {
        let source = io::Error::new(io::ErrorKind::WouldBlock, error.to_string());
        return CatalogError::io("open", dir, source);
    }
    match error {
        sled::Error::Io(source) if is_refusal(&source) => CatalogError::io("open", dir, source),
        error => CatalogError::ruined(dir, format!("sled does not open it: {error}")),
    }
}

fn is_refusal(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::PermissionDenied
            | io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded
            | io::ErrorKind::ReadOnlyFilesystem
            | io::ErrorKind::OutOfMemory
            | io::ErrorKind::Interrupted
    ) || matches!(
        Errno::from_io_error(error),
        Some(Errno::MFILE | Errno::NFILE)
    )
}
