//! `tidings bench`, asked for JSON, and `tidings serve index`.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;
use tidings::types::Address;
use tokio::process::{Child, Command};
use tokio::time::Instant;

use super::Options;
use crate::server::{self, Server};
use crate::systems::tidings::{command, connect};

/// How often an index is asked how many topics it has by now.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How long registering may take.
const PATIENCE: Duration = Duration::from_secs(300);
/// Longer than everything that is measured meanwhile.
const HELD_FOR: &str = "12h";

/// Measures with the program's own `bench`.
pub async fn bench(options: &Options, index: &Address, arguments: &[&str]) -> Result<Value> {
    let scratch = server::scratch(&options.dir)?;
    let mut command = bench_command(options, index, &scratch)?;
    let output = command.args(arguments).output().await?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "{arguments:?} ended with {}: {said}",
        output.status
    );
    serde_json::from_slice(&output.stdout).with_context(|| format!("no JSON of {arguments:?}"))
}

fn bench_command(options: &Options, index: &Address, scratch: &TempDir) -> Result<Command> {
    let mut command = command(&options.program, scratch.path())?;
    command
        .args(["bench", "--quiet", "--output", "json", "--index"])
        .arg(index.as_str())
        .stdin(Stdio::null())
        .kill_on_drop(true);
    Ok(command)
}

/// A number in what `bench` found, by its path.
pub fn number(found: &Value, path: &str) -> Result<f64> {
    let value = found.pointer(path).and_then(Value::as_f64);
    value.with_context(|| format!("there is no number {path} in {found}"))
}

/// An index server of its own.
#[derive(Debug)]
pub struct Index {
    /// The process.
    pub server: Server,
    /// Where it is.
    pub address: Address,
}

impl Index {
    /// Starts one with its data in `dir`.
    pub async fn start(options: &Options, dir: TempDir) -> Result<Self> {
        let mut command = command(&options.program, dir.path())?;
        command
            .args(["serve", "index", "--listen", "127.0.0.1:0"])
            .args(["--log", "warn", "--data-dir"])
            .arg(dir.path().join("data"));
        let mut server = Server::start(command, dir)?;
        let address = server.says(ready).await?.parse()?;
        Ok(Self { server, address })
    }

    /// Kills it and starts it again; how long that took until it was ready.
    pub async fn restart(self, options: &Options) -> Result<(Self, Duration)> {
        let dir = self.server.kill().await?;
        let began = Instant::now();
        let index = Self::start(options, dir).await?;
        Ok((index, began.elapsed()))
    }

    /// Topics that are registered.
    pub async fn topics(&self) -> Result<u64> {
        let peers = connect(&self.address).await?.list_peers().await?;
        Ok(peers.iter().map(|peer| peer.topics).sum())
    }
}

fn ready(log: &str) -> Option<String> {
    let line = log
        .lines()
        .find_map(|line| line.strip_prefix("ready index "));
    Some(line?.trim().to_owned())
}

/// A process that has registered topics at an index, and keeps them registered as long as it lives.
#[derive(Debug)]
pub struct Holder {
    process: Child,
    _scratch: TempDir,
}

impl Holder {
    /// Registers so many.
    pub async fn register(options: &Options, index: &Index, topics: u32) -> Result<Self> {
        let scratch = server::scratch(&options.dir)?;
        let mut command = bench_command(options, &index.address, &scratch)?;
        let topics_text = topics.to_string();
        // It has to ask for something as long as it holds them.
        let process = command
            .args(["lookup", "--topics", &topics_text, "--clients", "1"])
            .args(["--rate", "1", "--duration", HELD_FOR])
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .process_group(0)
            .spawn()?;
        let mut holder = Self {
            process,
            _scratch: scratch,
        };
        let deadline = Instant::now() + PATIENCE;
        while index.topics().await? < u64::from(topics) {
            let ended = holder.process.try_wait()?;
            ensure!(ended.is_none(), "registering ended with {ended:?}");
            ensure!(
                Instant::now() < deadline,
                "{topics} topics were not registered within {PATIENCE:?}"
            );
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(holder)
    }
}
