//! One process per data directory.
//!
//! The file `LOCK` is locked with `flock`, which the kernel lets go when the
//! process ends, however it ends. Inside stands the process id, for the person
//! who is told that the directory is in use. The text proves nothing: only the
//! kernel's lock counts, so a file left behind by a killed process is harmless.
//!
//! Invariants:
//!
//! 1. While a [`DirLock`] lives, no other process has one of the same directory.
//! 2. The file is never removed: removing it would let two processes lock two
//!    different files of the same name.
//!
//! Deliberately missing: waiting for the lock. Who comes second is told and goes.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use thiserror::Error;

/// Name of the lock file in a data directory.
pub const LOCK_FILE: &str = "LOCK";

/// A reading tool asks by taking a shared lock for some microseconds; so a
/// refusal is asked again this often, this far apart, before it is believed.
const ATTEMPTS: u32 = 5;
const ATTEMPT_EVERY: Duration = Duration::from_millis(10);

/// Why a data directory could not be locked. Nothing was changed.
#[derive(Debug, Error)]
pub enum LockError {
    /// Another process works in the directory.
    #[error(
        "{} is in use by {holder}: one process at a time may work there; stop it or choose another directory",
        dir.display()
    )]
    Held {
        /// The data directory.
        dir: PathBuf,
        /// Who holds it.
        holder: Holder,
    },
    /// The path exists and is no directory.
    #[error("{} is not a directory: a data directory was expected there", dir.display())]
    NotADirectory {
        /// The path.
        dir: PathBuf,
    },
    /// The directory or its lock file cannot be used.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// With which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// The process that holds a data directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holder {
    /// Its process id; `None` if it has not written it yet, or in a form we do not know.
    pub pid: Option<u32>,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.pid {
            Some(pid) => write!(f, "process {pid}"),
            None => write!(f, "another process"),
        }
    }
}

/// The right to work in a data directory, held until it is dropped.
///
/// Everything here that changes a store takes a `&DirLock`, so that none of it
/// can be called without one.
#[derive(Debug)]
pub struct DirLock {
    file: File,
    dir: PathBuf,
}

impl DirLock {
    /// Locks `dir`, which is created if it is missing.
    pub fn acquire(dir: &Path) -> Result<Self, LockError> {
        create_dir(dir)?;
        let path = dir.join(LOCK_FILE);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(|source| io_error("open", &path, source))?;
        if !try_exclusive(&file).map_err(|source| io_error("lock", &path, source))? {
            return Err(LockError::Held {
                dir: dir.to_path_buf(),
                holder: read_holder(&mut file),
            });
        }
        write_pid(&mut file).map_err(|source| io_error("write", &path, source))?;
        Ok(Self {
            file,
            dir: dir.to_path_buf(),
        })
    }

    /// The data directory this locks.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Who works in `dir` at this moment, if anybody. Writes nothing; the
    /// question is put by a shared lock that is given back at once.
    pub fn holder(dir: &Path) -> Option<Holder> {
        let mut file = File::open(dir.join(LOCK_FILE)).ok()?;
        match flock(&file, FlockOperation::NonBlockingLockShared) {
            Ok(()) => {
                let _ = flock(&file, FlockOperation::Unlock);
                None
            }
            Err(_) => Some(read_holder(&mut file)),
        }
    }
}

impl Drop for DirLock {
    fn drop(&mut self) {
        // Only so that nobody reads the id of a process that has left. Closing
        // the file is what gives the lock back.
        let _ = self.file.set_len(0);
    }
}

fn create_dir(dir: &Path) -> Result<(), LockError> {
    match fs::metadata(dir) {
        Ok(found) if !found.is_dir() => Err(LockError::NotADirectory {
            dir: dir.to_path_buf(),
        }),
        Ok(_) => Ok(()),
        Err(_) => {
            let missing = dir.ancestors().take_while(|dir| !dir.exists());
            let missing: Vec<&Path> = missing.filter(|dir| *dir != Path::new("")).collect();
            fs::create_dir_all(dir).map_err(|source| match source.kind() {
                io::ErrorKind::NotADirectory => LockError::NotADirectory {
                    dir: dir.to_path_buf(),
                },
                _ => io_error("create the directory", dir, source),
            })?;
            sync_parents(&missing)
        }
    }
}

/// What is written in a directory is lost with it, if a power cut takes its name.
fn sync_parents(created: &[&Path]) -> Result<(), LockError> {
    for dir in created {
        let parent = dir.parent().filter(|parent| *parent != Path::new(""));
        let parent = parent.unwrap_or(Path::new("."));
        File::open(parent)
            .and_then(|parent| parent.sync_all())
            .map_err(|source| io_error("sync", parent, source))?;
    }
    Ok(())
}

fn try_exclusive(file: &File) -> io::Result<bool> {
    for attempt in 0..ATTEMPTS {
        if attempt > 0 {
            thread::sleep(ATTEMPT_EVERY);
        }
        match flock(file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(true),
            Err(rustix::io::Errno::WOULDBLOCK) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(false)
}

fn write_pid(file: &mut File) -> io::Result<()> {
    let text = format!("{}\n", std::process::id());
    file.seek(SeekFrom::Start(0))?;
    file.write_all(text.as_bytes())?;
    // Written first and cut afterwards: a reader in between finds our id, never nothing.
    file.set_len(text.len() as u64)
}

fn read_holder(file: &mut File) -> Holder {
    let mut text = String::new();
    let read = file
        .seek(SeekFrom::Start(0))
        .and_then(|_| file.take(32).read_to_string(&mut text));
    let first = text.lines().next().unwrap_or_default();
    Holder {
        pid: read.ok().and_then(|_| first.trim().parse().ok()),
    }
}

fn io_error(action: &'static str, path: &Path, source: io::Error) -> LockError {
    LockError::Io {
        action,
        path: path.to_path_buf(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn the_second_one_is_told_who_is_first() {
        let dir = tempfile::tempdir().expect("scratch");
        let lock = DirLock::acquire(dir.path()).expect("free");
        let error = DirLock::acquire(dir.path()).expect_err("held");
        let pid = std::process::id();
        let LockError::Held { holder, .. } = &error else {
            panic!("{error:?}");
        };
        assert_eq!(holder.pid, Some(pid));
        assert!(
            error.to_string().contains(&format!("process {pid}")),
            "{error}"
        );
        drop(lock);
        DirLock::acquire(dir.path()).expect("free again");
    }

    #[test]
    fn the_holder_is_seen_without_a_trace() {
        let dir = tempfile::tempdir().expect("scratch");
        assert_eq!(DirLock::holder(dir.path()), None);
        assert_eq!(fs::read_dir(dir.path()).expect("readable").count(), 0);
        let lock = DirLock::acquire(dir.path()).expect("free");
        let holder = DirLock::holder(dir.path()).expect("held");
        assert_eq!(holder.pid, Some(std::process::id()));
        assert!(
            DirLock::acquire(dir.path()).is_err(),
            "asking gave it back too much"
        );
        drop(lock);
        assert_eq!(DirLock::holder(dir.path()), None);
    }

    /// A killed process leaves its id behind, of which nothing follows.
    #[test]
    fn a_stale_file_is_harmless() {
        let dir = tempfile::tempdir().expect("scratch");
        fs::write(dir.path().join(LOCK_FILE), "1\n").expect("writable");
        assert_eq!(DirLock::holder(dir.path()), None);
        let _lock = DirLock::acquire(dir.path()).expect("nobody holds it");
        let text = fs::read_to_string(dir.path().join(LOCK_FILE)).expect("readable");
        assert_eq!(text, format!("{}\n", std::process::id()));
    }

    #[test]
    fn garbage_in_the_file_is_another_process() {
        let dir = tempfile::tempdir().expect("scratch");
        let _lock = DirLock::acquire(dir.path()).expect("free");
        fs::write(dir.path().join(LOCK_FILE), [0xff, 0xfe, 0]).expect("writable");
        let holder = DirLock::holder(dir.path()).expect("held");
        assert_eq!(holder.pid, None);
        assert_eq!(holder.to_string(), "another process");
    }

    #[test]
    fn a_file_in_place_of_the_directory_is_named() {
        let dir = tempfile::tempdir().expect("scratch");
        let file = dir.path().join("file");
        fs::write(&file, "").expect("writable");
        for path in [file.clone(), file.join("below")] {
            let error = DirLock::acquire(&path).expect_err("no directory");
            assert!(
                matches!(error, LockError::NotADirectory { .. }),
                "{error:?}"
            );
        }
    }

    #[test]
    fn the_directory_is_created() {
        let dir = tempfile::tempdir().expect("scratch");
        let deep = dir.path().join("a/b");
        let lock = DirLock::acquire(&deep).expect("created");
        assert_eq!(lock.dir(), deep);
    }

    const CHILD_DIR: &str = "TIDINGS_TEST_LOCK_DIR";

    /// Plays both parts: started again with the variable set, it is the first process.
    #[test]
    fn another_process_is_named_and_its_death_frees_the_directory() {
        if let Some(dir) = std::env::var_os(CHILD_DIR) {
            let _lock = DirLock::acquire(Path::new(&dir)).expect("free");
            println!("locked");
            // Until the other end is closed or we are killed.
            let _ = io::stdin().read_to_end(&mut Vec::new());
            return;
        }
        let dir = tempfile::tempdir().expect("scratch");
        let name =
            "catalog::lock::tests::another_process_is_named_and_its_death_frees_the_directory";
        let mut child = Command::new(std::env::current_exe().expect("ourselves"))
            .args([name, "--exact", "--nocapture"])
            .env(CHILD_DIR, dir.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("starts");
        let stdout = child.stdout.take().expect("piped");
        let locked = BufReader::new(stdout)
            .lines()
            .any(|line| line.expect("text").contains("locked"));
        assert!(locked, "the other process did not lock");
        let holder = DirLock::holder(dir.path()).expect("held");
        assert_eq!(holder.pid, Some(child.id()));
        let error = DirLock::acquire(dir.path()).expect_err("held");
        assert!(
            error.to_string().contains(&child.id().to_string()),
            "{error}"
        );
        child.kill().expect("killed");
        child.wait().expect("ended");
        assert_eq!(DirLock::holder(dir.path()), None);
        DirLock::acquire(dir.path()).expect("free, although the file still names it");
    }
}
