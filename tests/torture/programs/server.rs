//! A real server as a process that is stopped, killed and started again.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::cluster::{Outcome, text};
use super::control::Control;

/// A server process.
pub struct Server {
    kind: &'static str,
    command: Vec<String>,
    environment: Vec<(&'static str, PathBuf)>,
    log: PathBuf,
    /// What of the log is of earlier lives, in bytes.
    log_before: u64,
    pub listen: String,
    child: Option<Child>,
}

impl Server {
    /// Starts one; with this library in front of it, if one is named, and told by a file `KIND.control`.
    pub fn new(
        kind: &'static str,
        dir: &Path,
        more: &[&str],
        shim: Option<&Path>,
    ) -> Outcome<Self> {
        let data = dir.join(kind);
        let mut command: Vec<String> = ["serve", kind, "--log", "warn", "--data-dir"]
            .map(str::to_owned)
            .into();
        command.push(data.display().to_string());
        command.extend(more.iter().map(|word| (*word).to_owned()));
        let preload = |shim: &Path| {
            vec![
                ("LD_PRELOAD", shim.to_owned()),
                ("SHIM_DIR", data.clone()),
                ("SHIM_CONTROL", Control::path(dir, kind)),
            ]
        };
        let mut this = Self {
            kind,
            command,
            environment: shim.map(preload).unwrap_or_default(),
            log: dir.join(format!("{kind}.log")),
            log_before: 0,
            listen: "127.0.0.1:0".to_owned(),
            child: None,
        };
        this.start()?;
        Ok(this)
    }

    /// Starts it and waits until it accepts connections; from then on always at the same address.
    pub fn start(&mut self) -> Outcome<()> {
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.log)
            .map_err(text)?;
        self.log_before = log.metadata().map_err(text)?.len();
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidings"));
        command
            .args(&self.command)
            .args(["--listen", &self.listen])
            .envs(self.environment.iter().map(|(name, value)| (*name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log);
        let mut child = command.spawn().map_err(text)?;
        let out = child.stdout.take().expect("piped");
        self.child = Some(child);
        let mut line = String::new();
        BufReader::new(out).read_line(&mut line).map_err(text)?;
        let address = line
            .split_whitespace()
            .last()
            .filter(|_| line.starts_with("ready"));
        match address {
            Some(address) => {
                self.listen = address.to_owned();
                Ok(())
            }
            None => Err(format!(
                "the {} did not start: {line:?}, see {}",
                self.kind,
                self.log.display()
            )),
        }
    }

    pub fn kill(&mut self) -> Outcome<()> {
        if let Some(status) = self.ended()? {
            return Err(format!(
                "the {} had ended by itself: {status}, see {}",
                self.kind,
                self.log.display()
            ));
        }
        if let Some(mut child) = self.child.take() {
            child.kill().map_err(text)?;
            child.wait().map_err(text)?;
        }
        Ok(())
    }

    /// Sends it a signal that does not end it.
    pub fn signal(&self, signal: Signal) -> Outcome<()> {
        let child = self.child.as_ref().ok_or("nobody to send a signal to")?;
        kill_process(Pid::from_child(child), signal).map_err(text)
    }

    /// Whether it ended by itself, and how.
    pub fn ended(&mut self) -> Outcome<Option<ExitStatus>> {
        let status = match &mut self.child {
            Some(child) => child.try_wait().map_err(text)?,
            None => None,
        };
        if status.is_some() {
            self.child = None;
        }
        Ok(status)
    }

    /// Waits so long for it to end by itself.
    pub async fn ends_within(&mut self, time: Duration) -> Outcome<Option<ExitStatus>> {
        let start = Instant::now();
        loop {
            let status = self.ended()?;
            if status.is_some() || start.elapsed() >= time {
                return Ok(status);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// What it said on stderr in its present life, or its last.
    pub fn said(&self) -> Outcome<String> {
        let mut log = fs::File::open(&self.log).map_err(text)?;
        log.seek(SeekFrom::Start(self.log_before)).map_err(text)?;
        let mut said = Vec::new();
        log.read_to_end(&mut said).map_err(text)?;
        Ok(String::from_utf8_lossy(&said).into_owned())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}
