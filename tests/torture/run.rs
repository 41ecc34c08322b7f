//! Running a driver, killing it, and keeping what is needed to look at a failure.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use crate::disk::Disk;
use crate::model::{Event, Figures, Model};
use crate::words::{Dice, End, Plan, Said, mix};

/// A driver that says nothing for so long hangs.
const SILENCE_MAX: Duration = Duration::from_secs(90);
/// Lines on their way from a driver.
const LINES_WAITING: usize = 4096;

/// How a driver comes to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kill<'a> {
    /// By itself, as the plan says.
    Never,
    /// When it has been there for so long, or at work, with recovery behind it.
    After { after: Duration, working: bool },
    /// Instead of its n-th call that changes a file; `torn`: a part of a write is made.
    AtCall { number: u64, torn: bool },
    /// The same, together with the file system it works on: `cut` executed on `mount` takes
    /// everything away that is not on the device.
    WithDisk {
        after: Duration,
        working: bool,
        cut: &'a Path,
        mount: &'a Path,
    },
}

/// What a driver left.
#[derive(Debug)]
pub struct Life {
    pub said: Vec<Said>,
    /// It was killed, as opposed to having ended by itself.
    pub killed: bool,
    pub errors: String,
}

impl Life {
    /// Whether recovery ended before death came.
    pub fn opened(&self) -> bool {
        self.said
            .iter()
            .any(|said| matches!(said, Said::Opened { .. }))
    }
}

/// The preloaded library, made with the C compiler when it is first needed; `None` without one.
pub fn shim() -> Option<&'static Path> {
    static MADE: OnceLock<Option<PathBuf>> = OnceLock::new();
    MADE.get_or_init(|| compile("shim.c", "torture-shim.so", &["-shared", "-fPIC"]))
        .as_deref()
}

/// Compiles a C file that lies beside this one.
pub fn compile(source: &str, made: &str, flags: &[&str]) -> Option<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/torture")
        .join(source);
    let made =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-{made}", std::process::id()));
    let status = Command::new("cc")
        .args(["-O1", "-Wall", "-Werror"])
        .args(flags)
        .arg("-o")
        .arg(&made)
        .arg(&source)
        .status();
    match status {
        Ok(status) if status.success() => Some(made),
        _ => {
            println!(
                "!!! SKIPPED what needs {}: cc cannot compile it here",
                source.display()
            );
            None
        }
    }
}

/// Lives one driver. Errors are about the harness's claims: it hung, or it panicked.
pub fn live(plan: &Plan, kill: Kill<'_>, log: Option<&Path>) -> Result<Life, String> {
    let mut command = Command::new(std::env::current_exe().expect("this program has a path"));
    command
        .arg("driver")
        .env(
            "RUST_LOG",
            std::env::var("TORTURE_LOG").unwrap_or_else(|_| "error".to_owned()),
        )
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    if log.is_some() || matches!(kill, Kill::AtCall { .. }) {
        preload(&mut command, plan, kill, log);
    }
    let mut child = command.spawn().expect("the driver starts");
    let mut input = child.stdin.take().expect("piped");
    let text = serde_json::to_string(plan).expect("it has a text form");
    // A driver that died at once has not read all of it.
    let _ = input.write_all(text.as_bytes());
    drop(input);
    let errors = collect(child.stderr.take().expect("piped"));
    let lines = follow(child.stdout.take().expect("piped"));
    let (said, end) = listen(&lines, &mut child, kill);
    let status = child.wait().expect("it ends");
    let errors = errors.recv().unwrap_or_default();
    if end == Ending::Silent {
        let seconds = SILENCE_MAX.as_secs();
        return Err(format!("the driver said nothing for {seconds} s\n{errors}"));
    }
    // sled panics where its file system is gone.
    if errors.contains("panicked") && !matches!(kill, Kill::WithDisk { .. }) {
        return Err(format!("the driver panicked:\n{errors}"));
    }
    let mut said = said;
    if let Kill::WithDisk { .. } = kill {
        // A disk that is gone is told as damage; after the power is back there must be none.
        let gone = |said: &Said| match said {
            Said::NotOpened(_) => true,
            Said::Damage(lines) => !lines.is_empty(),
            Said::Wrong(what) => what.starts_with("reading"),
            _ => false,
        };
        let known = said.iter().position(gone).unwrap_or(said.len());
        said.truncate(known);
        // No slot can be prepared on it: until that is known for what it is, it is told as want of space.
        said.retain(|said| match said {
            Said::Refused { why, .. } | Said::NotDone(why) => !why.starts_with("DiskReserve"),
            _ => true,
        });
    }
    Ok(Life {
        said,
        // One whose disk was taken away may have ended by itself before the signal came.
        killed: end == Ending::Killed || !status.success(),
        errors,
    })
}

fn preload(command: &mut Command, plan: &Plan, kill: Kill<'_>, log: Option<&Path>) {
    let shim = shim().expect("asked for before");
    command.env("LD_PRELOAD", shim).env("SHIM_DIR", &plan.dir);
    if let Some(log) = log {
        let _ = fs::remove_file(log);
        command.env("SHIM_LOG", log);
        // Some lives have slow disks.
        if plan.seed.is_multiple_of(3) {
            command.env("SHIM_SLOW", "3000");
        }
    }
    if let Kill::AtCall { number, torn } = kill {
        command.env("SHIM_KILL", number.to_string());
        command.env("SHIM_TORN", if torn { "1" } else { "0" });
    }
}

/// What ended the listening to a driver.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// It ended before anything was done to it.
    Own,
    /// It was killed, or its disk taken away.
    Killed,
    /// It said nothing for too long.
    Silent,
}

/// Hears everything until the driver is gone, and kills it when it is time.
fn listen(lines: &Receiver<String>, child: &mut Child, kill: Kill<'_>) -> (Vec<Said>, Ending) {
    let mut said = Vec::new();
    let start = Instant::now();
    let mut heard = start;
    let mut opened = None;
    let mut killed = false;
    loop {
        let silence = SILENCE_MAX.saturating_sub(heard.elapsed());
        let patience = match kill {
            _ if killed => silence,
            Kill::After { working, .. } | Kill::WithDisk { working, .. }
                if working && opened.is_none() =>
            {
                silence
            }
            Kill::After { after, working } | Kill::WithDisk { after, working, .. } => {
                let since = opened.filter(|_| working).unwrap_or(start);
                after.saturating_sub(since.elapsed())
            }
            _ => silence,
        };
        match lines.recv_timeout(patience) {
            Ok(line) => {
                heard = Instant::now();
                opened.get_or_insert(heard);
                let parsed = serde_json::from_str(&line);
                said.push(parsed.unwrap_or_else(|error| Said::Wrong(format!("{error}: {line}"))));
            }
            Err(RecvTimeoutError::Disconnected) if killed => return (said, Ending::Killed),
            Err(RecvTimeoutError::Disconnected) => return (said, Ending::Own),
            Err(RecvTimeoutError::Timeout) => {
                if let Kill::WithDisk { cut, mount, .. } = kill {
                    let status = Command::new(cut).arg(mount).status();
                    assert!(
                        status.is_ok_and(|status| status.success()),
                        "the power is cut"
                    );
                }
                // What it said before it died still comes.
                let _ = child.kill();
                let planned = matches!(kill, Kill::After { .. } | Kill::WithDisk { .. });
                let hung = !planned || heard.elapsed() >= SILENCE_MAX;
                if hung {
                    return (said, Ending::Silent);
                }
                killed = true;
            }
        }
    }
}

/// The lines of a driver, whole ones only: death may cut the last.
fn follow(from: impl std::io::Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = sync_channel(LINES_WAITING);
    std::thread::spawn(move || {
        let mut from = BufReader::new(from);
        let mut line = String::new();
        while from.read_line(&mut line).is_ok_and(|n| n > 0) && line.ends_with('\n') {
            if sender.send(std::mem::take(&mut line)).is_err() {
                return;
            }
        }
    });
    receiver
}

fn collect(mut from: impl std::io::Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = sync_channel(1);
    std::thread::spawn(move || {
        let mut text = Vec::new();
        let _ = from.read_to_end(&mut text);
        let _ = sender.send(String::from_utf8_lossy(&text).into_owned());
    });
    receiver
}

/// One directory, everything that is known of it, and how to tell about it.
pub struct Subject {
    pub dir: PathBuf,
    pub model: Model,
    pub dice: Dice,
    seed: u64,
    rounds: u64,
    scratch: PathBuf,
    program: &'static str,
}

/// How much a driver does.
#[derive(Debug, Clone, Copy)]
pub struct Work {
    pub publishers: u8,
    pub batches: u32,
    pub changes: u32,
    pub readers: u8,
    pub end: End,
}

impl Work {
    /// Opens and tells, nothing more.
    pub const LOOK: Self = Self {
        publishers: 0,
        batches: 0,
        changes: 0,
        readers: 0,
        end: End::Clean,
    };

    /// Enough for segments to fill.
    pub const LONG: Self = Self {
        publishers: 4,
        batches: 70,
        changes: 60,
        readers: 1,
        end: End::Abrupt,
    };

    /// Changes enough that something can be given back, few records.
    pub const RECLAIMING: Self = Self {
        publishers: 3,
        batches: 20,
        changes: 40,
        readers: 1,
        end: End::Abrupt,
    };

    /// A little of everything.
    pub const SMALL: Self = Self {
        publishers: 3,
        batches: 12,
        changes: 12,
        readers: 1,
        end: End::Abrupt,
    };
}

impl Subject {
    /// A new directory below `scratch`.
    pub fn new(program: &'static str, scratch: &Path, seed: u64) -> Self {
        let scratch = scratch.join(format!("{program}-{seed:x}"));
        let dir = scratch.join("store");
        let _ = fs::remove_dir_all(&scratch);
        fs::create_dir_all(&dir).expect("a scratch directory");
        Self {
            dir,
            model: Model::default(),
            dice: Dice(seed),
            seed,
            rounds: 0,
            scratch,
            program,
        }
    }

    /// Where the calls of the driver are noted.
    pub fn log(&self) -> PathBuf {
        self.scratch.join("calls")
    }

    pub fn plan(&mut self, work: Work) -> Plan {
        Plan {
            dir: self.dir.clone(),
            seed: self.dice.roll(),
            slot_bytes: 1 << 20,
            page_cache_only: false,
            publishers: work.publishers,
            batches: work.batches,
            changes: work.changes,
            readers: work.readers,
            discards: self.dice.percent(60),
            // Some lives never look: most is left for the next one to find.
            reclaim_every: match self.dice.below(10) {
                0..2 => 60_000,
                2..7 => 1 + self.dice.below(10),
                _ => 10 + self.dice.below(100),
            },
            end: work.end,
            from: BTreeMap::new(),
            next: self.model.next(),
            damaged: false,
        }
    }

    /// The catalog is gone: the next start has to do without.
    pub fn lose_catalog(&mut self) {
        if fs::remove_dir_all(self.dir.join("catalog")).is_ok() {
            self.model.figures.catalogs_lost += 1;
        }
    }

    /// Another directory with the same past: `disk` is what this one held.
    pub fn copy(&self, disk: &Disk, name: u64) -> Self {
        let scratch = self.scratch.with_extension(format!("{name}"));
        let dir = scratch.join("store");
        disk.write_to(&dir);
        Self {
            dir,
            model: self.model.with_the_same_past(),
            dice: Dice(mix(self.seed ^ name)),
            seed: self.seed,
            rounds: 0,
            scratch,
            program: self.program,
        }
    }

    /// Lives one driver and checks everything it said; `event` is what happened before.
    pub fn round(
        &mut self,
        plan: &Plan,
        kill: Kill<'_>,
        noted: bool,
        event: Event,
    ) -> Result<Life, String> {
        self.rounds += 1;
        let log = self.log();
        let life =
            live(plan, kill, noted.then_some(&*log)).map_err(|why| self.failed(&why, &[]))?;
        match self.model.learn(&life.said, event, &plan.from) {
            Ok(()) => {
                self.model.figures.in_recovery += u64::from(life.killed && !life.opened());
                Ok(life)
            }
            Err(why) => Err(self.failed(&format!("{why}\n{}", life.errors), &life.said)),
        }
    }

    /// What to tell of a failure; the directory stays.
    fn failed(&self, why: &str, said: &[Said]) -> String {
        let told: Vec<String> = said.iter().map(|said| format!("{said:?}")).collect();
        let _ = fs::write(self.scratch.join("said"), told.join("\n"));
        let _ = fs::write(self.scratch.join("model"), format!("{:#?}", self.model));
        format!(
            "{} failed in round {} of seed {}: {why}\nkept in {}",
            self.program,
            self.rounds,
            self.seed,
            self.scratch.display()
        )
    }

    /// Removes the directory: nothing was wrong with it.
    pub fn done(self) -> Figures {
        let _ = fs::remove_dir_all(&self.scratch);
        self.model.figures
    }
}

/// Where directories are made that need no real disk.
pub fn memory() -> PathBuf {
    let shm = Path::new("/dev/shm");
    match std::env::var_os("TORTURE_DIR") {
        Some(dir) => dir.into(),
        None if shm.is_dir() => shm.join(format!("tidings-torture-{}", std::process::id())),
        None => disk(),
    }
}

/// Where directories are made on a disk.
pub fn disk() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("torture-{}", std::process::id()))
}
