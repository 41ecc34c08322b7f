//! The limits that the [shares](crate::shares) are taken of, measured in a few seconds.
//!
//! The program `limits` measures more of them, and for longer. `peers` measures these at the beginning
//! of each round, so that they are of the same hour as the figures that stand under them.

use std::fs::File;
use std::io;
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::report::median;
use crate::{disk, machine, reads, server};

/// How long each is measured.
const MEASURED: Duration = Duration::from_millis(500);
/// How long all of them take, the files that are made for it included.
pub const TAKE: Duration = Duration::from_secs(4);

/// What this machine does at best.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Limits {
    /// Processors.
    pub cores: f64,
    /// Bytes through one connection over the loopback, with writes of 64 KiB.
    pub loopback_bytes_per_second: f64,
    /// Microseconds of 64 bytes there and back over the loopback, median.
    pub round_trip_us: f64,
    /// Microseconds of a write of 4 KiB and its fdatasync, over old blocks and past the page cache, median.
    pub sync_us: f64,
    /// Bytes written so, each 1 MiB synced before the next is written.
    pub write_bytes_per_second: f64,
    /// Bytes read past the page cache, 1 MiB after the other.
    pub read_bytes_per_second: f64,
}

/// The limits of a run.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Rounds {
    /// As of each round; `None` if measuring failed.
    pub rounds: Vec<Option<Limits>>,
    /// The medians, each by itself.
    pub median: Option<Limits>,
}

impl Rounds {
    /// From what came of each round.
    pub fn new(rounds: Vec<Option<Limits>>) -> Self {
        let of = |get: fn(&Limits) -> f64| median(rounds.iter().flatten().map(get).collect());
        let all = || {
            Some(Limits {
                cores: of(|one| one.cores)?,
                loopback_bytes_per_second: of(|one| one.loopback_bytes_per_second)?,
                round_trip_us: of(|one| one.round_trip_us)?,
                sync_us: of(|one| one.sync_us)?,
                write_bytes_per_second: of(|one| one.write_bytes_per_second)?,
                read_bytes_per_second: of(|one| one.read_bytes_per_second)?,
            })
        };
        let median = all();
        Self { rounds, median }
    }
}

/// Measures them in a scratch directory below `above`. Blocks.
pub fn measure(above: &Path) -> Result<Limits> {
    let scratch = server::scratch(above)?;
    let limits = measure_in(scratch.path()).context("the limits of the machine")?;
    scratch.close()?;
    // What was left to be written must not be in the way of the first server.
    rustix::fs::syncfs(File::open(above)?)?;
    Ok(limits)
}

fn measure_in(directory: &Path) -> io::Result<Limits> {
    let small = disk::measure(directory, disk::REUSED, disk::SMALL, MEASURED)?;
    let large = disk::measure(directory, disk::REUSED, disk::LARGE, MEASURED)?;
    Ok(Limits {
        cores: thread::available_parallelism()?.get() as f64,
        loopback_bytes_per_second: machine::throughput(MEASURED)?.bytes_per_second,
        round_trip_us: machine::round_trip(MEASURED)?.p50_us,
        sync_us: small.p50_us,
        write_bytes_per_second: large.bytes_per_second,
        read_bytes_per_second: reads::sequential(directory, MEASURED)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_limit_has_a_median_of_its_own() {
        let limits = |sync_us: f64, read_bytes_per_second: f64| Limits {
            cores: 2.0,
            loopback_bytes_per_second: 3e9,
            round_trip_us: 100.0,
            sync_us,
            write_bytes_per_second: 1e9,
            read_bytes_per_second,
        };
        let rounds = [limits(200.0, 1e9), limits(300.0, 3e9), limits(100.0, 2e9)];
        let and_one_failed = rounds.map(Some).into_iter().chain([None]);
        let found = Rounds::new(and_one_failed.collect());
        assert_eq!(found.median, Some(limits(200.0, 2e9)));
        assert_eq!(Rounds::new(vec![None]).median, None);
    }
}
