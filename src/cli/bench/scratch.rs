//! A cluster of our own: `tidings up` as a process in a directory that is thrown away.

use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::cli::fail::{Failure, Result};
use crate::types::Address;

/// How long the servers may take to accept connections, and to end.
const PATIENCE: Duration = Duration::from_secs(30);

/// The running process; dropping it kills it.
#[derive(Debug)]
pub struct Scratch {
    /// Address of its index.
    pub index: Address,
    child: Child,
    // Removed when everything above is gone.
    _dir: TempDir,
}

impl Scratch {
    /// Starts it and waits until it accepts connections.
    pub async fn start() -> Result<Self> {
        let dir = TempDir::with_prefix("tidings-bench-")
            .map_err(|error| Failure::io("scratch directory", &error))?;
        let mut child = spawn(dir.path()).map_err(|error| Failure::io("tidings up", &error))?;
        let index = match tokio::time::timeout(PATIENCE, ready_index(&mut child)).await {
            Ok(found) => found?,
            Err(_) => return Err(Failure::server("tidings up is not ready after 30s")),
        };
        Ok(Self {
            index,
            child,
            _dir: dir,
        })
    }

    /// Ends it as Ctrl-C would.
    pub async fn stop(mut self) -> Result {
        if let Some(pid) = self.child.id().and_then(|id| i32::try_from(id).ok())
            && let Some(pid) = rustix::process::Pid::from_raw(pid)
        {
            // A process that has just ended by itself is noticed by the wait below.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        match tokio::time::timeout(PATIENCE, self.child.wait()).await {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) => Err(ended(status)),
            Ok(Err(error)) => Err(Failure::io("tidings up", &error)),
            Err(_) => Err(Failure::server("tidings up did not end within 30s")),
        }
    }
}

fn ended(status: ExitStatus) -> Failure {
    Failure::server(format!("tidings up ended with {status}; its log is above"))
}

fn spawn(dir: &Path) -> std::io::Result<Child> {
    // An empty file, so that no configuration around us reaches the servers.
    let config = dir.join("tidings.toml");
    std::fs::write(&config, "")?;
    let mut command = Command::new(std::env::current_exe()?);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("TIDINGS_") {
            command.env_remove(name);
        }
    }
    command
        .args([
            "up",
            "--listen",
            "127.0.0.1:0",
            "--index-listen",
            "127.0.0.1:0",
        ])
        .args(["--log", "warn", "--config"])
        .arg(&config)
        .arg("--data-dir")
        .arg(dir.join("data"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        // Of its own group, so that Ctrl-C at us does not end it before the measurement does.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
}

/// Reads the ready lines of both servers and returns the index's address.
async fn ready_index(child: &mut Child) -> Result<Address> {
    let stdout = child.stdout.take().expect("it was asked for");
    let mut lines = BufReader::new(stdout).lines();
    let (mut index, mut peer) = (None, false);
    while index.is_none() || !peer {
        let line = lines.next_line().await;
        let Some(line) = line.map_err(|error| Failure::io("tidings up", &error))? else {
            let status = child.wait().await;
            return Err(ended(
                status.map_err(|error| Failure::io("tidings up", &error))?,
            ));
        };
        match line.split(' ').collect::<Vec<_>>()[..] {
            ["ready", "index", address] => index = address.parse().ok(),
            ["ready", "peer", _, _] => peer = true,
            _ => {}
        }
    }
    Ok(index.expect("the loop ends with one"))
}
