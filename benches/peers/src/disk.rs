//! What one write and one fdatasync cost, by the way the file came to be.
//!
//! Repeats the measurement behind `docs/adr/0001-journal-writes-o-direct-into-prepared-slots.md`:
//! groups of one size are written one after the other into files of 64 MiB, each synced before the
//! next is written, by one thread.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{FallocateFlags, OFlags};
use serde::Serialize;
use tidings::journal::AlignedBuffer;

pub(crate) const KIB: usize = 1024;
pub(crate) const MIB: usize = 1024 * KIB;
const FILE_BYTES: usize = 64 * MIB;

/// How the file came to be.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// Empty: every write makes it longer.
    Growing,
    /// Of full size, its blocks reserved and never written.
    Fallocated,
    /// Filled with zeros beforehand.
    Zeroed,
    /// Zeroed, then written once from end to end: a reused slot.
    Overwritten,
}

/// A kind of file and a way of writing it.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Way {
    /// What it is called in tables.
    pub name: &'static str,
    /// How the file came to be.
    pub origin: Origin,
    /// Past the page cache.
    pub direct: bool,
}

const fn way(name: &'static str, origin: Origin, direct: bool) -> Way {
    Way {
        name,
        origin,
        direct,
    }
}

/// As a store writes once its slots are used again.
pub const REUSED: Way = way("overwritten, O_DIRECT", Origin::Overwritten, true);

/// The lines of the table.
pub const WAYS: [Way; 8] = [
    way("growing, page cache", Origin::Growing, false),
    way("growing, O_DIRECT", Origin::Growing, true),
    way("fallocate, page cache", Origin::Fallocated, false),
    way("fallocate, O_DIRECT", Origin::Fallocated, true),
    way("zero-filled, page cache", Origin::Zeroed, false),
    way("zero-filled, O_DIRECT", Origin::Zeroed, true),
    way("overwritten, page cache", Origin::Overwritten, false),
    REUSED,
];

/// The smallest write that is measured.
pub const SMALL: (usize, usize) = (4 * KIB, 2000);
/// The largest write that is measured.
pub const LARGE: (usize, usize) = (MIB, 384);

/// The columns: bytes of a write, and how many are made at most.
pub const SIZES: [(usize, usize); 4] = [SMALL, (64 * KIB, 2000), (256 * KIB, 1000), LARGE];

/// What was measured of one way at one size.
#[derive(Debug, Clone, Serialize)]
pub struct Figures {
    /// The file and the way of writing it.
    #[serde(flatten)]
    pub way: Way,
    /// Bytes of one write.
    pub write_bytes: usize,
    /// How many were made.
    pub writes: usize,
    /// Microseconds of a write and its sync, median.
    pub p50_us: f64,
    /// The same, 99th percentile.
    pub p99_us: f64,
    /// Of writing and syncing, nothing else.
    pub bytes_per_second: f64,
    /// Time on a processor, in the kernel too.
    pub cpu_seconds_per_gib: f64,
}

impl Figures {
    fn new(way: Way, write_bytes: usize, mut latencies: Vec<Duration>, cpu: Duration) -> Self {
        latencies.sort_unstable();
        let at = |per_mille: usize| {
            let latency = latencies[(latencies.len() - 1) * per_mille / 1000];
            latency.as_secs_f64() * 1e6
        };
        let seconds: Duration = latencies.iter().sum();
        let bytes = (write_bytes * latencies.len()) as f64;
        Self {
            way,
            write_bytes,
            writes: latencies.len(),
            p50_us: at(500),
            p99_us: at(990),
            bytes_per_second: bytes / seconds.as_secs_f64(),
            cpu_seconds_per_gib: cpu.as_secs_f64() / (bytes / (1024 * MIB) as f64),
        }
    }
}

/// Writes and syncs in files of that kind below `directory`, at most `count` times and until the time
/// is over, at least once.
pub fn measure(
    directory: &Path,
    way: Way,
    (bytes, count): (usize, usize),
    within: Duration,
) -> io::Result<Figures> {
    let mut buffer = AlignedBuffer::new(bytes);
    getrandom::fill(buffer.as_mut_slice()).map_err(io::Error::other)?;
    // Large ones have more room than they were asked for.
    let payload = &buffer.as_slice()[..bytes];
    let per_file = FILE_BYTES / bytes;
    let mut latencies = Vec::with_capacity(count);
    let (mut cpu, mut spent) = (Duration::ZERO, Duration::ZERO);
    while latencies.len() < count && (spent < within || latencies.is_empty()) {
        let path = directory.join("slot");
        let file = make_file(&path, way)?;
        let cpu_before = cpu_time()?;
        for i in 0..per_file.min(count - latencies.len()) {
            let before = Instant::now();
            file.write_all_at(payload, (i * bytes) as u64)?;
            file.sync_data()?;
            latencies.push(before.elapsed());
            spent += before.elapsed();
            if spent >= within {
                break;
            }
        }
        cpu += cpu_time()?.saturating_sub(cpu_before);
        fs::remove_file(&path)?;
    }
    Ok(Figures::new(way, bytes, latencies, cpu))
}

/// Makes the file as the line says and has it on the disk before anything is measured.
fn make_file(path: &Path, way: Way) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(true);
    let plain = options.open(path)?;
    if way.origin != Origin::Growing {
        rustix::fs::fallocate(&plain, FallocateFlags::empty(), 0, FILE_BYTES as u64)?;
    }
    let passes = match way.origin {
        Origin::Growing | Origin::Fallocated => 0,
        Origin::Zeroed => 1,
        Origin::Overwritten => 2,
    };
    let file = match way.direct {
        true => open_direct(path)?,
        false => OpenOptions::new().read(true).write(true).open(path)?,
    };
    for pass in 0..passes {
        let mut chunk = AlignedBuffer::new(MIB);
        chunk.as_mut_slice().fill(pass);
        for position in (0..FILE_BYTES).step_by(MIB) {
            file.write_all_at(&chunk.as_slice()[..MIB], position as u64)?;
        }
        file.sync_all()?;
    }
    plain.sync_all()?;
    File::open(path.parent().unwrap_or(path))?.sync_all()?;
    Ok(file)
}

/// Opens a file to read and write it past the page cache.
pub(crate) fn open_direct(path: &Path) -> io::Result<File> {
    let flag = i32::try_from(OFlags::DIRECT.bits()).map_err(io::Error::other)?;
    let mut options = OpenOptions::new();
    options.read(true).write(true).custom_flags(flag).open(path)
}

/// Time this thread was on a processor, in the kernel too.
pub fn cpu_time() -> io::Result<Duration> {
    let text = fs::read_to_string("/proc/thread-self/schedstat")?;
    let nanos = text.split(' ').next().and_then(|n| n.parse().ok());
    nanos
        .map(Duration::from_nanos)
        .ok_or(io::ErrorKind::InvalidData.into())
}
