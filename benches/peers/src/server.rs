//! A server under measurement: one process in a scratch directory, and what it uses.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// How long a server may take to accept connections, and to be gone after it was killed.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often a server is looked at while it starts.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// How often its resident memory is looked at.
const SAMPLE_EVERY: Duration = Duration::from_millis(50);
/// Lines of its log that are shown when it does not start.
const LOG_LINES_SHOWN: usize = 20;
/// Clock ticks per second in `/proc/PID/stat`, fixed for user space on Linux.
const TICKS_PER_SECOND: f64 = 100.0;
/// What `statfs` calls a file system in memory.
const TMPFS_MAGIC: i64 = 0x0102_1994;

/// Makes a scratch directory below `above`, which must be on a disk.
pub fn scratch(above: &Path) -> Result<TempDir> {
    fs::create_dir_all(above).with_context(|| format!("cannot make {}", above.display()))?;
    let kind = rustix::fs::statfs(above)?.f_type;
    if kind as i64 == TMPFS_MAGIC {
        bail!(
            "{} is in memory: name a directory on a disk with --dir",
            above.display()
        );
    }
    let scratch = TempDir::with_prefix_in("peers-", above);
    scratch.with_context(|| format!("no scratch directory in {}", above.display()))
}

/// A port that was free a moment ago.
pub fn free_port() -> Result<u16> {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0))?;
    Ok(listener.local_addr()?.port())
}

/// A process that does not outlive this.
#[derive(Debug)]
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // Waited for, so that its directory can be removed after it; one that is gone already is fine.
        let _ = self.0.start_kill();
        let deadline = std::time::Instant::now() + PATIENCE;
        while matches!(self.0.try_wait(), Ok(None)) && std::time::Instant::now() < deadline {
            std::thread::sleep(LOOK_EVERY);
        }
    }
}

/// The running process; dropping it kills it and removes its directory.
#[derive(Debug)]
pub struct Server {
    process: Process,
    pid: u32,
    log: PathBuf,
    // Removed after the process is gone: fields are dropped in their order.
    dir: TempDir,
}

impl Server {
    /// Starts a program that keeps its data in `dir` and logs into a file there.
    pub fn start(mut command: Command, dir: TempDir) -> Result<Self> {
        let log = dir.path().join("log");
        let output = File::create(&log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            // Of its own group: Ctrl-C ends us, and we end it.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {command:?}"))?;
        let pid = child.id().context("the server ended at once")?;
        Ok(Self {
            process: Process(child),
            pid,
            log,
            dir,
        })
    }

    /// Where its data is.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Waits until it accepts connections on a port.
    pub async fn accepts(&mut self, port: u16) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            self.check(deadline)?;
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    /// Waits until `found` finds what it looks for in the log.
    pub async fn says<T>(&mut self, found: impl Fn(&str) -> Option<T>) -> Result<T> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = found(&fs::read_to_string(&self.log)?) {
                return Ok(found);
            }
            self.check(deadline)?;
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    fn check(&mut self, deadline: Instant) -> Result<()> {
        if let Some(status) = self.process.0.try_wait()? {
            bail!("the server ended with {status}: {}", self.last_words());
        }
        if Instant::now() > deadline {
            bail!(
                "the server is not ready after {PATIENCE:?}: {}",
                self.last_words()
            );
        }
        Ok(())
    }

    /// The end of its log.
    pub fn last_words(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join("\n")
    }

    /// Kills it and waits until it is gone; its directory is left as it was at that moment.
    pub async fn kill(mut self) -> Result<TempDir> {
        self.process.0.start_kill()?;
        tokio::time::timeout(PATIENCE, self.process.0.wait())
            .await
            .context("the server did not go away when killed")??;
        Ok(self.dir)
    }

    /// Kills it and waits until it is gone, and until what it left is off the disk.
    pub async fn end(self) -> Result<()> {
        let dir = self.kill().await?;
        let above = dir.path().parent().map(Path::to_path_buf);
        dir.close()?;
        if let Some(above) = above {
            // What one system left to be written must not be in the way of the next.
            rustix::fs::syncfs(File::open(above)?)?;
        }
        Ok(())
    }

    /// Bytes of disk that its directory takes.
    pub fn disk_bytes(&self) -> u64 {
        allocated(self.dir.path())
    }

    /// Resident memory, the most there ever was.
    pub fn peak_bytes(&self) -> Result<u64> {
        Ok(field(&format!("/proc/{}/status", self.pid), "VmHWM:")? * 1024)
    }

    /// What it has used up to now.
    pub fn used(&self) -> Result<Used> {
        Used::of(self.pid)
    }

    /// Watches it as long as it says.
    pub fn watch(&self, mut watched: Watched) -> JoinHandle<Result<Used>> {
        let pid = self.pid;
        tokio::spawn(async move {
            tokio::time::sleep_until(watched.begin).await;
            let first = Used::of(pid)?;
            let mut rss_bytes = first.rss_bytes;
            while Instant::now() < watched.end {
                let next = watched.end.min(Instant::now() + SAMPLE_EVERY);
                tokio::select! {
                    _ = &mut watched.stopped => break,
                    () = tokio::time::sleep_until(next) => {}
                }
                rss_bytes = rss_bytes.max(resident(pid)?);
            }
            let last = Used::of(pid)?;
            Ok(Used {
                rss_bytes: rss_bytes.max(last.rss_bytes),
                ..last.since(&first)
            })
        })
    }
}

/// How long a server is watched.
#[derive(Debug)]
pub struct Watched {
    /// From then on.
    pub begin: Instant,
    /// Till then,
    pub end: Instant,
    /// or until this is sent or dropped.
    pub stopped: oneshot::Receiver<()>,
}

/// What a process used.
#[derive(Debug, Clone, Copy, Default)]
pub struct Used {
    /// Resident memory, the most that was seen.
    pub rss_bytes: u64,
    /// Processor time, in the kernel too, with that of children that have ended.
    pub cpu_seconds: f64,
    /// Bytes it made the kernel write to disks.
    pub written_bytes: u64,
    /// Bytes it made the kernel read from disks.
    pub read_bytes: u64,
}

impl Used {
    /// What this process has used up to now.
    pub fn own() -> Result<Self> {
        Self::of(std::process::id())
    }

    fn of(pid: u32) -> Result<Self> {
        Ok(Self {
            rss_bytes: resident(pid)?,
            cpu_seconds: cpu_seconds(pid)?,
            written_bytes: field(&format!("/proc/{pid}/io"), "write_bytes:")?,
            read_bytes: field(&format!("/proc/{pid}/io"), "read_bytes:")?,
        })
    }

    /// What came since.
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            rss_bytes: self.rss_bytes,
            cpu_seconds: self.cpu_seconds - earlier.cpu_seconds,
            written_bytes: self.written_bytes.saturating_sub(earlier.written_bytes),
            read_bytes: self.read_bytes.saturating_sub(earlier.read_bytes),
        }
    }
}

fn resident(pid: u32) -> Result<u64> {
    Ok(field(&format!("/proc/{pid}/status"), "VmRSS:")? * 1024)
}

/// The number after a word in a file of `/proc`.
fn field(path: &str, word: &str) -> Result<u64> {
    let text = fs::read_to_string(path)?;
    let mut words = text.split_ascii_whitespace().skip_while(|&w| w != word);
    let number = words.nth(1).and_then(|number| number.parse().ok());
    number.with_context(|| format!("{path} has no number after {word}"))
}

fn cpu_seconds(pid: u32) -> Result<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The program's name, in parentheses, may hold anything; utime is the 12th field after it.
    let rest = text.rsplit(')').next().unwrap_or_default();
    let numbers = rest.split_ascii_whitespace().skip(11).take(4);
    let ticks: u64 = numbers.filter_map(|n| n.parse::<u64>().ok()).sum();
    Ok(ticks as f64 / TICKS_PER_SECOND)
}

fn allocated(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        // What goes away while it is looked at takes nothing.
        .filter_map(|entry| Some((entry.path(), entry.metadata().ok()?)))
        .map(|(path, meta)| match meta.is_dir() {
            true => allocated(&path),
            false => meta.blocks() * 512,
        })
        .sum()
}
