//! This process: which one it is, and what it uses as the operating system counts it.

use std::sync::OnceLock;

use rustix::process::{Resource, getrlimit};

/// Tells this process from others: an index and a peer in one process say the same. All zeros if
/// there is no randomness.
pub fn id() -> [u8; 16] {
    static ID: OnceLock<[u8; 16]> = OnceLock::new();
    *ID.get_or_init(|| {
        let mut id = [0; 16];
        match getrandom::fill(&mut id) {
            Ok(()) => id,
            Err(_) => [0; 16],
        }
    })
}

/// Figures of this process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ProcessFigures {
    /// Resident memory, in bytes.
    pub rss_bytes: u64,
    /// Processor time, in milliseconds.
    pub cpu_ms: u64,
    /// Bytes the process caused to be written to a disk.
    pub disk_written_bytes: u64,
}

/// Reads them from `/proc`; what cannot be read is 0.
pub fn figures() -> ProcessFigures {
    let read =
        |name: &str| std::fs::read_to_string(format!("/proc/self/{name}")).unwrap_or_default();
    ProcessFigures {
        rss_bytes: rss_bytes(&read("statm")),
        cpu_ms: cpu_ms(&read("stat")),
        disk_written_bytes: disk_written_bytes(&read("io")),
    }
}

/// File descriptors in use, and how many there may be; what cannot be read is 0. Costs something with
/// very many of them.
pub fn descriptors() -> (u64, u64) {
    // The directory is read through one more.
    let open = std::fs::read_dir("/proc/self/fd").map_or(0, |dir| dir.count().saturating_sub(1));
    let max = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    (open as u64, max)
}

/// When the process started, in microseconds since 1970; 0 if that cannot be read.
pub fn started_micros() -> u64 {
    static STARTED: OnceLock<u64> = OnceLock::new();
    *STARTED.get_or_init(|| {
        let read =
            |name: &str| std::fs::read_to_string(format!("/proc/{name}")).unwrap_or_default();
        let per_second = rustix::param::clock_ticks_per_second();
        started(&read("self/stat"), &read("stat"), per_second).unwrap_or(0)
    })
}

/// From the ticks after the system's start that the process has, and when that was.
fn started(stat: &str, system: &str, per_second: u64) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let ticks: u64 = rest.split_whitespace().nth(19)?.parse().ok()?;
    let booted = system
        .lines()
        .find_map(|line| line.strip_prefix("btime "))?;
    let booted: u64 = booted.trim().parse().ok()?;
    Some(booted * 1_000_000 + ticks * 1_000_000 / per_second)
}

fn rss_bytes(statm: &str) -> u64 {
    let pages: u64 = statm
        .split_whitespace()
        .nth(1)
        .and_then(|word| word.parse().ok())
        .unwrap_or(0);
    pages * rustix::param::page_size() as u64
}

fn cpu_ms(stat: &str) -> u64 {
    // The name in the second field may hold blanks: count after the closing bracket.
    let Some((_, rest)) = stat.rsplit_once(')') else {
        return 0;
    };
    let mut fields = rest.split_whitespace().skip(11);
    let mut next = || {
        fields
            .next()
            .and_then(|word| word.parse::<u64>().ok())
            .unwrap_or(0)
    };
    let ticks = next() + next();
    ticks * 1000 / rustix::param::clock_ticks_per_second()
}

fn disk_written_bytes(io: &str) -> u64 {
    let value = |name: &str| {
        let line = io.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().parse::<u64>().ok()
    };
    value("write_bytes:")
        .unwrap_or(0)
        .saturating_sub(value("cancelled_write_bytes:").unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_fields_it_means() {
        let stat = "12 (a (b) c) S 1 1 1 0 -1 4 1 0 0 0 250 50 0 0 20 0 4 0 1 1 1";
        assert_eq!(
            cpu_ms(stat),
            300 * 1000 / rustix::param::clock_ticks_per_second()
        );
        let io = "rchar: 9\nwrite_bytes: 4096\ncancelled_write_bytes: 96\n";
        assert_eq!(disk_written_bytes(io), 4000);
        assert_eq!(rss_bytes("10 3 2"), 3 * rustix::param::page_size() as u64);
        assert_eq!(
            (rss_bytes(""), cpu_ms(""), disk_written_bytes("")),
            (0, 0, 0)
        );
    }

    #[test]
    fn the_start_is_that_of_the_system_and_some_ticks() {
        let stat = "12 (a (b) c) S 1 1 1 0 -1 4 1 0 0 0 250 50 0 0 20 0 4 0 4050 1 1";
        let system = "cpu 1 2 3\nbtime 1700000000\nprocesses 5\n";
        assert_eq!(started(stat, system, 100), Some(1_700_000_040_500_000));
        assert_eq!(started(stat, "", 100), None);
        assert_eq!(started("", system, 100), None);
    }

    #[test]
    fn this_process_uses_memory() {
        assert!(figures().rss_bytes > 0);
        let (open, max) = descriptors();
        assert!(open > 0 && open < max, "{open} of {max}");
        assert!(started_micros() > 1_700_000_000_000_000);
        assert_eq!(id(), id());
    }
}
