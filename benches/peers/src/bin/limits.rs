//! The limits of the machine that every figure of a broker stands under: loopback, disk, core.
//!
//! ```text
//! cargo run --release --manifest-path benches/peers/Cargo.toml --bin limits
//! cargo run --release --manifest-path benches/peers/Cargo.toml --bin limits -- --rounds 3 -o json
//! cargo run --release --manifest-path benches/peers/Cargo.toml --bin limits -- --only disk --only read --dir .
//! ```
//!
//! | | measured |
//! |---|---|
//! | loopback | one TCP connection with writes of 64 KiB: bytes per second, and how many cores both ends take; 64 bytes there and back |
//! | core | CRC-32C of 64 KiB and of 100 B, copying 64 KiB (in the cache) and 64 MiB (not in it) |
//! | disk | one write and its fdatasync, of 4 KiB to 1 MiB, into files that are new, preallocated, zero-filled or recycled, through the page cache and past it |
//! | read | past the page cache, from a file of 256 MiB written and synced just before: 1 MiB after the other, and 4 KiB at random, one at a time and by 8 threads at once |
//!
//! A virtual disk may answer reads from its host's memory, the more so as the file was written a moment
//! ago: then *read* is the limit of that memory, and what was written long ago is read more slowly.
//!
//! The table shows medians over the rounds. A limit is the best that this machine does: whatever
//! else runs on it makes the figures lower.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};
use comfy_table::{Table, presets};
use serde::Serialize;

use tidings_peers::disk::{self, Figures, SIZES, WAYS};
use tidings_peers::machine::{self, Core, RoundTrip, Throughput};
use tidings_peers::reads::{self, Reads};
use tidings_peers::report::median;
use tidings_peers::{install, server};

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// TCP over the loopback
    Loopback,
    /// Checksum and copy of one core
    Core,
    /// Write + fdatasync
    Disk,
    /// Reading from the disk
    Read,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Table,
    Json,
}

/// The limits of the machine: loopback, core, disk, read.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// How often everything is measured
    #[arg(long, value_name = "N", default_value_t = 3)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Seconds of each measurement
    #[arg(long, value_name = "S", default_value_t = 1.0, value_parser = seconds)]
    seconds: f64,
    /// Only this; may be repeated
    #[arg(long, value_name = "PART")]
    only: Vec<Part>,
    /// A directory on the disk in question [default: target/ of the checkout]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// How it is printed
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    output: Format,
}

/// One round.
#[derive(Debug, Default, Serialize)]
struct Limits {
    throughput: Option<Throughput>,
    round_trip: Option<RoundTrip>,
    core: Option<Core>,
    disk: Vec<Figures>,
    read: Option<Reads>,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let above = arguments.dir.clone();
    let above = above.unwrap_or_else(|| install::checkout().join("target"));
    let scratch = server::scratch(&above)?;
    let mut rounds = Vec::new();
    for round in 0..arguments.rounds {
        eprintln!("round {} of {}", round + 1, arguments.rounds);
        rounds.push(measure(&arguments, scratch.path())?);
    }
    match arguments.output {
        Format::Json => println!("{}", serde_json::to_string_pretty(&rounds)?),
        Format::Table => print(&rounds),
    }
    Ok(())
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.01..=3600.0).contains(&seconds) => Ok(seconds),
        _ => Err("0.01 to 3600 expected".to_owned()),
    }
}

fn measure(arguments: &Arguments, directory: &Path) -> Result<Limits> {
    let within = Duration::from_secs_f64(arguments.seconds);
    let wanted = |part| arguments.only.is_empty() || arguments.only.contains(&part);
    let mut limits = Limits::default();
    if wanted(Part::Loopback) {
        limits.throughput = Some(machine::throughput(within)?);
        limits.round_trip = Some(machine::round_trip(within)?);
    }
    if wanted(Part::Core) {
        limits.core = Some(machine::core(within)?);
    }
    if wanted(Part::Disk) {
        for way in WAYS {
            for size in SIZES {
                let figures = disk::measure(directory, way, size, within);
                limits.disk.push(figures.with_context(|| way.name)?);
            }
        }
    }
    if wanted(Part::Read) {
        limits.read = Some(reads::measure(directory, within).context("reading")?);
    }
    Ok(limits)
}

/// The median of what all rounds say; `None` where they say nothing.
fn middle(rounds: &[Limits], get: impl Fn(&Limits) -> Option<f64>) -> Option<f64> {
    median(rounds.iter().filter_map(get).collect())
}

/// What it is called, its unit, and its median if it was measured.
type Line = (&'static str, &'static str, Option<f64>);

fn print(rounds: &[Limits]) {
    let mut table = new_table(&["limit", "median"]);
    let lines = [
        &loopback_lines(rounds)[..],
        &core_lines(rounds),
        &read_lines(rounds),
    ];
    for (name, unit, value) in lines.concat() {
        if let Some(value) = value {
            table.add_row([name.to_owned(), format!("{value:.2} {unit}")]);
        }
    }
    if table.row_count() > 0 {
        println!("{table}\n");
    }
    print_disk(rounds);
}

fn giga(value: f64) -> f64 {
    value / 1e9
}

fn loopback_lines(rounds: &[Limits]) -> [Line; 4] {
    let of_tcp =
        |get: fn(&Throughput) -> f64| middle(rounds, |one| one.throughput.as_ref().map(get));
    let of_trip =
        |get: fn(&RoundTrip) -> f64| middle(rounds, |one| one.round_trip.as_ref().map(get));
    let rate = of_tcp(|tcp| tcp.bytes_per_second).map(giga);
    let (p50, p99) = (of_trip(|trip| trip.p50_us), of_trip(|trip| trip.p99_us));
    [
        ("loopback TCP, 64 KiB writes", "GB/s", rate),
        ("  cores of both ends", "", of_tcp(|tcp| tcp.cores)),
        ("loopback round trip, p50", "µs", p50),
        ("loopback round trip, p99", "µs", p99),
    ]
}

fn core_lines(rounds: &[Limits]) -> [Line; 4] {
    let of = |get: fn(&Core) -> f64| middle(rounds, |one| one.core.as_ref().map(get)).map(giga);
    let crc_64kib = of(|core| core.crc_64kib_bytes_per_second);
    let crc_100b = of(|core| core.crc_100b_bytes_per_second);
    let copy_64kib = of(|core| core.copy_64kib_bytes_per_second);
    let copy_64mib = of(|core| core.copy_64mib_bytes_per_second);
    [
        ("CRC-32C, 64 KiB", "GB/s", crc_64kib),
        ("CRC-32C, 100 B", "GB/s", crc_100b),
        ("copy, 64 KiB", "GB/s", copy_64kib),
        ("copy, 64 MiB", "GB/s", copy_64mib),
    ]
}

fn read_lines(rounds: &[Limits]) -> [Line; 5] {
    let of = |get: fn(&Reads) -> f64| middle(rounds, |one| one.read.as_ref().map(get));
    let in_a_row = of(|read| read.sequential_bytes_per_second).map(giga);
    let one_rate = of(|read| read.one_at_a_time.reads_per_second);
    let eight_rate = of(|read| read.eight_at_once.reads_per_second);
    [
        ("read, 1 MiB after the other", "GB/s", in_a_row),
        ("read, 4 KiB at random, 1 at a time", "/s", one_rate),
        ("  p50", "µs", of(|read| read.one_at_a_time.p50_us)),
        ("read, 4 KiB at random, 8 at once", "/s", eight_rate),
        ("  p50", "µs", of(|read| read.eight_at_once.p50_us)),
    ]
}

fn print_disk(rounds: &[Limits]) {
    if rounds.iter().all(|one| one.disk.is_empty()) {
        return;
    }
    let mut table = new_table(&["file", "4 KiB", "64 KiB", "256 KiB", "1 MiB"]);
    for (row, way) in WAYS.iter().enumerate() {
        let cells = (0..SIZES.len()).map(|column| {
            let of = |get: fn(&Figures) -> f64| {
                let place = row * SIZES.len() + column;
                middle(rounds, |one| one.disk.get(place).map(get)).unwrap_or(f64::NAN)
            };
            format!(
                "{:.0} / {:.0} ({:.0}; {:.2})",
                of(|figures| figures.p50_us),
                of(|figures| figures.p99_us),
                of(|figures| figures.bytes_per_second) / 1e6,
                of(|figures| figures.cpu_seconds_per_gib),
            )
        });
        table.add_row(std::iter::once(way.name.to_owned()).chain(cells));
    }
    println!("write + fdatasync: p50 µs / p99 µs (MB/s; CPU s per GiB)\n\n{table}");
}

fn new_table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header(header.iter().copied());
    table
}
