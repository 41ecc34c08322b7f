//! The servers of the demo: real processes, started, killed and started again.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// How long a server may take to accept connections.
const READY_WITHIN: Duration = Duration::from_secs(30);

/// A server process that can be killed and started again on the same directory and address.
pub(super) struct ServerProcess {
    name: String,
    arguments: Vec<String>,
    data_dir: PathBuf,
    /// An empty configuration.
    config: PathBuf,
    log: PathBuf,
    address: String,
    child: Option<Child>,
}

impl ServerProcess {
    /// Starts an index server on a free port.
    pub async fn index(scratch: &Path) -> Result<Self> {
        let arguments = ["serve", "index"];
        Self::start(scratch, "index", arguments.map(str::to_owned).to_vec()).await
    }

    /// Starts a peer on a free port.
    pub async fn peer(scratch: &Path, name: &str, index: &str) -> Result<Self> {
        let arguments = [
            "serve",
            "peer",
            "--name",
            name,
            "--index",
            index,
            "--slot-size",
            "8MiB",
        ];
        Self::start(scratch, name, arguments.map(str::to_owned).to_vec()).await
    }

    async fn start(scratch: &Path, name: &str, arguments: Vec<String>) -> Result<Self> {
        let config = scratch.join("tidings.toml");
        std::fs::write(&config, "")
            .with_context(|| format!("cannot write {}", config.display()))?;
        let mut server = Self {
            name: name.to_owned(),
            arguments,
            config,
            data_dir: scratch.join(name),
            log: scratch.join(format!("{name}.log")),
            address: "127.0.0.1:0".to_owned(),
            child: None,
        };
        server.launch().await?;
        Ok(server)
    }

    /// Where it listens.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The number of the process.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref()?.id()
    }

    /// SIGKILL: no goodbye, no flush, nothing finished.
    pub async fn kill(&mut self) -> Result<()> {
        let mut child = self.child.take().context("it is not running")?;
        child
            .kill()
            .await
            .with_context(|| format!("cannot kill {}", self.name))
    }

    /// Starts it again on the same directory and address. Tells how long it took to accept connections.
    pub async fn launch(&mut self) -> Result<Duration> {
        let begun = Instant::now();
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(&self.log);
        let log = log.with_context(|| format!("cannot write {}", self.log.display()))?;
        let mut command =
            Command::new(std::env::current_exe().context("cannot find this program")?);
        // Nothing that is set up around us may reach the servers: the story is the same everywhere.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("TIDINGS_") {
                command.env_remove(name);
            }
        }
        let mut child = command
            .args(&self.arguments)
            .args(["--listen", &self.address, "--data-dir"])
            .arg(&self.data_dir)
            .arg("--config")
            .arg(&self.config)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", self.name))?;
        let stdout = child.stdout.take().context("its output is not readable")?;
        let ready =
            tokio::time::timeout(READY_WITHIN, BufReader::new(stdout).lines().next_line()).await;
        let Ok(Ok(Some(line))) = ready else {
            bail!(
                "{} did not start, its log is {}",
                self.name,
                self.log.display()
            );
        };
        let address = line.rsplit(' ').next().unwrap_or_default();
        if !line.starts_with("ready ") || address.is_empty() {
            bail!("{} said {line:?} instead of that it is ready", self.name);
        }
        self.address = address.to_owned();
        self.child = Some(child);
        Ok(begun.elapsed())
    }

    /// SIGTERM, and waits until it has ended by itself.
    pub async fn stop(&mut self) -> Result<()> {
        let Some(mut child) = self.child.take() else {
            return Ok(());
        };
        let pid = child
            .id()
            .and_then(|pid| i32::try_from(pid).ok())
            .and_then(rustix::process::Pid::from_raw);
        if let Some(pid) = pid {
            rustix::process::kill_process(pid, rustix::process::Signal::TERM)
                .context("cannot signal it")?;
        }
        let status = tokio::time::timeout(READY_WITHIN, child.wait()).await;
        match status.with_context(|| format!("{} did not end", self.name))?? {
            status if status.success() => Ok(()),
            status => bail!(
                "{} ended with {status}, its log is {}",
                self.name,
                self.log.display()
            ),
        }
    }
}
