//! What one write and one fdatasync cost, by the way the file came to be.
//!
//! Repeats the measurement behind `docs/adr/0001-journal-writes-o-direct-into-prepared-slots.md`:
//! groups of one size are written one after the other into files of 64 MiB, each synced before the
//! next is written, by one thread.
//!
//! ```text
//! cargo bench --bench disk -- [DIRECTORY]
//! ```
//!
//! Without `--bench` (as `cargo test --benches` calls it) it only makes a few writes of each kind,
//! to see that it runs.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FallocateFlags, OFlags};
use tidings::journal::AlignedBuffer;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;
const FILE_BYTES: usize = 64 * MIB;

/// How the file came to be.
#[derive(Clone, Copy, PartialEq)]
enum Origin {
    /// Empty: every write makes it longer.
    Growing,
    /// Of full size, its blocks reserved and never written.
    Fallocated,
    /// Filled with zeros beforehand.
    Zeroed,
    /// Zeroed, then written once from end to end: a reused slot.
    Overwritten,
}

/// One line of the table.
struct Way {
    name: &'static str,
    origin: Origin,
    direct: bool,
}

const fn way(name: &'static str, origin: Origin, direct: bool) -> Way {
    Way {
        name,
        origin,
        direct,
    }
}

const WAYS: [Way; 8] = [
    way("growing, page cache", Origin::Growing, false),
    way("growing, O_DIRECT", Origin::Growing, true),
    way("fallocate, page cache", Origin::Fallocated, false),
    way("fallocate, O_DIRECT", Origin::Fallocated, true),
    way("zero-filled, page cache", Origin::Zeroed, false),
    way("zero-filled, O_DIRECT", Origin::Zeroed, true),
    way("overwritten, page cache", Origin::Overwritten, false),
    way("overwritten, O_DIRECT", Origin::Overwritten, true),
];

/// Sizes of a group, and how many are written.
const SIZES: [(usize, usize); 4] = [
    (4 * KIB, 2000),
    (64 * KIB, 2000),
    (256 * KIB, 1000),
    (MIB, 384),
];

/// What was measured of one line at one size.
struct Figures {
    latencies: Vec<Duration>,
    bytes: usize,
    cpu: Duration,
}

impl Figures {
    fn percentile(&self, per_mille: usize) -> u128 {
        let at = (self.latencies.len() - 1) * per_mille / 1000;
        self.latencies[at].as_micros()
    }

    fn megabytes_per_second(&self) -> f64 {
        let seconds: Duration = self.latencies.iter().sum();
        self.bytes as f64 / 1e6 / seconds.as_secs_f64()
    }

    fn cpu_seconds_per_gib(&self) -> f64 {
        self.cpu.as_secs_f64() / (self.bytes as f64 / (1024 * MIB) as f64)
    }
}

fn main() -> io::Result<()> {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let whole = arguments.iter().any(|argument| argument == "--bench");
    arguments.retain(|argument| !argument.starts_with("--"));
    let above = arguments
        .pop()
        .map_or_else(std::env::temp_dir, PathBuf::from);
    let scratch = tempfile::tempdir_in(above)?;

    println!("write + fdatasync in {}", scratch.path().display());
    println!("p50 µs / p99 µs (MB/s; CPU s per GiB)\n");
    println!("| file | 4 KiB | 64 KiB | 256 KiB | 1 MiB |\n|---|---|---|---|---|");
    for way in &WAYS {
        let mut row = format!("| {} |", way.name);
        for (bytes, count) in SIZES {
            let count = if whole { count } else { 3 };
            row += &match measure(scratch.path(), way, bytes, count) {
                Ok(figures) => cell(&figures),
                Err(error) => format!(" {error} |"),
            };
        }
        println!("{row}");
    }
    Ok(())
}

fn cell(figures: &Figures) -> String {
    format!(
        " {} / {} ({:.0}; {:.2}) |",
        figures.percentile(500),
        figures.percentile(990),
        figures.megabytes_per_second(),
        figures.cpu_seconds_per_gib(),
    )
}

fn measure(directory: &Path, way: &Way, bytes: usize, count: usize) -> io::Result<Figures> {
    let mut buffer = AlignedBuffer::new(bytes);
    for (i, byte) in buffer.as_mut_slice().iter_mut().enumerate() {
        *byte = (i * 31 % 251) as u8;
    }
    let per_file = FILE_BYTES / bytes;
    let mut latencies = Vec::with_capacity(count);
    let mut cpu = Duration::ZERO;
    while latencies.len() < count {
        let path = directory.join("slot");
        let file = make_file(&path, way)?;
        let cpu_before = cpu_time()?;
        for i in 0..per_file.min(count - latencies.len()) {
            let before = Instant::now();
            file.write_all_at(buffer.as_slice(), (i * bytes) as u64)?;
            file.sync_data()?;
            latencies.push(before.elapsed());
        }
        cpu += cpu_time()?.saturating_sub(cpu_before);
        fs::remove_file(&path)?;
    }
    latencies.sort_unstable();
    Ok(Figures {
        bytes: bytes * count,
        latencies,
        cpu,
    })
}

/// Makes the file as the line says and has it on the disk before anything is measured.
fn make_file(path: &Path, way: &Way) -> io::Result<File> {
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
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    if way.direct {
        let flag = i32::try_from(OFlags::DIRECT.bits()).map_err(io::Error::other)?;
        options.custom_flags(flag);
    }
    let file = options.open(path)?;
    for pass in 0..passes {
        let mut chunk = AlignedBuffer::new(MIB);
        chunk.as_mut_slice().fill(pass);
        for position in (0..FILE_BYTES).step_by(MIB) {
            file.write_all_at(chunk.as_slice(), position as u64)?;
        }
        file.sync_all()?;
    }
    plain.sync_all()?;
    File::open(path.parent().unwrap_or(path))?.sync_all()?;
    Ok(file)
}

/// Time this thread was on a processor, in the kernel too.
fn cpu_time() -> io::Result<Duration> {
    let text = fs::read_to_string("/proc/thread-self/schedstat")?;
    let nanos = text.split(' ').next().and_then(|n| n.parse().ok());
    nanos
        .map(Duration::from_nanos)
        .ok_or(io::ErrorKind::InvalidData.into())
}
