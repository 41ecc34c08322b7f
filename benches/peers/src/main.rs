//! The same work on Tidings, Redis Streams and NATS JetStream, side by side on this machine.
//!
//! ```text
//! cargo run --release --manifest-path benches/peers/Cargo.toml
//! cargo run --release --manifest-path benches/peers/Cargo.toml -- --rounds 1 --seconds 1
//! cargo run --release --manifest-path benches/peers/Cargo.toml -- --only publish-100 --only latency --system nats --system tidings
//! ```
//!
//! It needs Linux, a disk and nothing else: `redis-server` and `nats-server` are found on the path, or
//! installed by `apt-get` where this runs as root on Debian; `tidings` is built from this checkout.
//! Every server is started here, on the loopback, with a port of its own and its data in a scratch
//! directory below `--dir`, and killed and removed after each measurement.
//!
//! What is measured, for every system alike:
//!
//! - Only acknowledged records count, and only those whose acknowledgement comes in the measured
//!   window, which begins when the load has run for `--warm` seconds. Afterwards the system must hold
//!   at least what it acknowledged, or the measurement has failed.
//! - Payloads are random bytes. A publisher has a connection of its own and at most `--in-flight`
//!   unacknowledged records, where the work does not say 1.
//! - Client and server share the machine. Server CPU, resident memory and written bytes are those of
//!   the server's process, taken from `/proc`, in the same window.
//! - Catch-up reads everything of a topic that was filled just before, once, from the beginning, with one
//!   reader. Its time includes opening the reader.
//! - End to end latency counts from the moment a message was due, at a fixed rate, until the one reader
//!   has it: a system that stalls does not slow the load down.
//!
//! What an acknowledgement means differs, and is the point: `tidings` and `redis-always` have the record
//! on the disk; `redis-everysec` syncs every second, `nats` every two minutes, `tidings-os` when the
//! operating system does, 200 ms later at most. `tidings-reused` is a store whose retention has been
//! at work, so that it writes into slots that were written before: the everyday state. Its topics keep
//! 128 MiB, and are written to for `--churn` seconds before.
//!
//! The systems alternate within each round; the tables show medians over the rounds and the ratio to
//! the best of the other systems. Nothing else should run on the machine meanwhile. The last table says
//! what part of the machine's limits ours reach; these are measured at the beginning of each round.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::{Parser, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};

use tidings_peers::install;
use tidings_peers::report::{Document, shares_table};
use tidings_peers::server;
use tidings_peers::side_by_side::{self, Options, Outcome};
use tidings_peers::systems::{Programs, System};
use tidings_peers::work::{Name, Work};

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Table,
    Json,
}

/// The same work on Tidings, Redis Streams and NATS JetStream, side by side.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// How often everything is measured
    #[arg(long, value_name = "N", default_value_t = 5)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Seconds of each measurement
    #[arg(long, value_name = "S", default_value_t = 4.0, value_parser = seconds)]
    seconds: f64,
    /// Seconds the load runs before it is measured
    #[arg(long, value_name = "S", default_value_t = 1.0, value_parser = seconds)]
    warm: f64,
    /// Seconds that slots are written and discarded before they count as reused
    #[arg(long, value_name = "S", default_value_t = 5.0, value_parser = seconds)]
    churn: f64,
    /// Only this work; may be repeated
    #[arg(long, value_name = "WORK")]
    only: Vec<Name>,
    /// Only this system; may be repeated
    #[arg(long, value_name = "NAME")]
    system: Vec<System>,
    /// Records of one publisher that may be unacknowledged
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    in_flight: u32,
    /// MiB of payload that are written to be read back, if that takes at most 3 x --seconds
    #[arg(long, value_name = "MIB", default_value_t = 256)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=65_536))]
    fill: u32,
    /// Messages per second of the end to end measurement
    #[arg(long, value_name = "N", default_value_t = 5000)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rate: u32,
    /// Our program [default: built from this checkout]
    #[arg(long, value_name = "PATH")]
    tidings: Option<PathBuf>,
    /// A directory on a disk for the scratch directories [default: target/ of the checkout]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// How it is printed
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    output: Format,
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.1..=3600.0).contains(&seconds) => Ok(seconds),
        _ => Err("0.1 to 3600 expected".to_owned()),
    }
}

/// What was named, or all there is.
fn chosen<T: ValueEnum>(named: &[T]) -> Vec<T> {
    match named {
        [] => T::value_variants().to_vec(),
        named => named.to_vec(),
    }
}

fn options(arguments: &Arguments) -> Options {
    let dir = arguments.dir.clone();
    let in_flight = arguments.in_flight as usize;
    let works = chosen(&arguments.only).into_iter();
    Options {
        works: works.map(|name| Work::new(name, in_flight)).collect(),
        systems: chosen(&arguments.system),
        rounds: arguments.rounds,
        measured: Duration::from_secs_f64(arguments.seconds),
        warm: Duration::from_secs_f64(arguments.warm),
        churn: Duration::from_secs_f64(arguments.churn),
        fill_bytes: u64::from(arguments.fill) << 20,
        rate: f64::from(arguments.rate),
        dir: dir.unwrap_or_else(|| install::checkout().join("target")),
    }
}

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let mut terminate = signal(SignalKind::terminate())?;
    // Whichever ends first; dropping the run ends its servers and removes their directories.
    tokio::select! {
        code = compare(&arguments) => code,
        _ = tokio::signal::ctrl_c() => Ok(ExitCode::from(130)),
        _ = terminate.recv() => Ok(ExitCode::from(143)),
    }
}

async fn compare(arguments: &Arguments) -> Result<ExitCode> {
    let options = options(arguments);
    // Before anything is built or installed: is that a disk?
    server::scratch(&options.dir)?.close()?;
    let programs = Programs::ready(&options.systems, arguments.tidings.as_deref())?;
    let versions = programs.versions();
    let minutes = options.estimate().as_secs_f64() / 60.0;
    eprintln!("{}; about {minutes:.0} minutes", versions.join("; "));
    let outcome = side_by_side::run(&options, &programs).await;
    print(arguments, &versions, &outcome)?;
    match outcome.failed {
        0 => Ok(ExitCode::SUCCESS),
        failed => {
            eprintln!("{failed} measurements failed");
            Ok(ExitCode::FAILURE)
        }
    }
}

fn print(arguments: &Arguments, versions: &[String], outcome: &Outcome) -> Result<()> {
    match arguments.output {
        Format::Json => {
            let document = Document {
                versions,
                rounds: arguments.rounds,
                seconds: arguments.seconds,
                works: &outcome.reports,
                limits: &outcome.limits,
                shares: &outcome.shares,
            };
            println!("{}", serde_json::to_string_pretty(&document)?);
        }
        Format::Table => {
            println!(
                "{}; medians of {} rounds\n",
                versions.join("; "),
                arguments.rounds
            );
            let reports = outcome.reports.iter();
            reports.for_each(|report| println!("{}", report.table()));
            if let Some(limits) = &outcome.limits.median {
                println!("{}", shares_table(limits, &outcome.shares));
            }
        }
    }
    Ok(())
}
