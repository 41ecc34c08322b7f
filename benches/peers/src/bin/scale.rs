//! How Tidings holds up as things grow: more stored, more topics, more subscriptions, more connections,
//! readers that are behind. Everything is told as the ratio of *with* to *without*.
//!
//! ```text
//! cargo run --release --manifest-path benches/peers/Cargo.toml --bin scale
//! cargo run --release --manifest-path benches/peers/Cargo.toml --bin scale -- --only stored --stored 8GiB
//! cargo run --release --manifest-path benches/peers/Cargo.toml --bin scale -- --only bytes -o json
//! ```
//!
//! It needs Linux and a disk; `tidings` is built from this checkout. Every server is started here, on the
//! loopback, with its data in a scratch directory below `--dir`, and killed and removed after it.
//! Nothing else should run on the machine meanwhile.
//!
//! What each scenario does is at the top of its module in `src/scale/`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::{Parser, ValueEnum};
use serde::Serialize;
use tidings::net::budget::raise_descriptor_limit;
use tokio::signal::unix::{SignalKind, signal};

use tidings_peers::scale::report::Report;
use tidings_peers::scale::{self, Name, Options, Sizes};
use tidings_peers::{install, server};

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Table,
    Json,
}

/// How Tidings holds up as things grow, as ratios of with to without.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Only this scenario; may be repeated
    #[arg(long, value_name = "NAME")]
    only: Vec<Name>,
    #[command(flatten)]
    sizes: Sizes,
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

/// Everything, as JSON.
#[derive(Debug, Serialize)]
struct Document<'a> {
    version: &'a str,
    rounds: u32,
    seconds: f64,
    scenarios: &'a [Report],
}

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let mut terminate = signal(SignalKind::terminate())?;
    // Whichever ends first; dropping the run ends its servers and removes their directories.
    tokio::select! {
        code = measure(arguments) => code,
        _ = tokio::signal::ctrl_c() => Ok(ExitCode::from(130)),
        _ = terminate.recv() => Ok(ExitCode::from(143)),
    }
}

async fn measure(arguments: Arguments) -> Result<ExitCode> {
    // The servers are given what this process has.
    raise_descriptor_limit();
    let dir = arguments.dir.clone();
    let dir = dir.unwrap_or_else(|| install::checkout().join("target"));
    // Before anything is built: is that a disk?
    server::scratch(&dir)?.close()?;
    let program = install::tidings(arguments.tidings.as_deref())?;
    let version = install::version(&program);
    let options = Options {
        program,
        dir,
        sizes: arguments.sizes,
    };
    let names = match &arguments.only[..] {
        [] => Name::value_variants(),
        only => only,
    };
    tell_estimate(&version, &options, names);
    let reports = scale::run(&options, names).await;
    let sizes = &options.sizes;
    match arguments.output {
        Format::Json => {
            let document = Document {
                version: &version,
                rounds: sizes.rounds,
                seconds: sizes.seconds.as_secs_f64(),
                scenarios: &reports,
            };
            println!("{}", serde_json::to_string_pretty(&document)?);
        }
        Format::Table => {
            println!("{version}; medians (lowest – highest)\n");
            reports
                .iter()
                .for_each(|report| println!("{}", report.table()));
        }
    }
    let failed = reports.iter().any(|report| report.failed.is_some());
    Ok(if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

fn tell_estimate(version: &str, options: &Options, names: &[Name]) {
    let minutes = |time: Duration| time.as_secs_f64() / 60.0;
    let mut whole = Duration::ZERO;
    for name in names {
        let estimate = options.estimate(*name);
        whole += estimate;
        eprintln!("{}: about {:.1} minutes", name.key(), minutes(estimate));
    }
    eprintln!("{version}; about {:.0} minutes in all", minutes(whole));
}
