//! What reading brings, past the page cache.
//!
//! A file of 256 MiB is written and synced and then read with O_DIRECT: 1 MiB after the other from its
//! beginning, by one thread; and 4 KiB at places in no order, by one thread and by eight at once.
//!
//! A virtual disk may answer from its host's memory, the more so as the file was written a moment ago.
//! Then this is the limit of the host's memory, and what was written long ago is read more slowly.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::FallocateFlags;
use serde::Serialize;
use tidings::journal::AlignedBuffer;

use crate::disk::{KIB, MIB, open_direct};

const FILE_BYTES: usize = 256 * MIB;
/// Bytes of one read in a row.
const LONG_BYTES: usize = MIB;
/// Bytes of one read at random.
const SHORT_BYTES: usize = 4 * KIB;
/// Threads that read at random at once.
const THREADS: usize = 8;

/// What was measured.
#[derive(Debug, Clone, Serialize)]
pub struct Reads {
    /// 1 MiB after the other, one at a time.
    pub sequential_bytes_per_second: f64,
    /// 4 KiB at random, one at a time.
    pub one_at_a_time: Random,
    /// 4 KiB at random by 8 threads, each one at a time.
    pub eight_at_once: Random,
}

/// Reads of 4 KiB at random.
#[derive(Debug, Clone, Serialize)]
pub struct Random {
    /// Of all threads together.
    pub reads_per_second: f64,
    /// Microseconds of one read, median.
    pub p50_us: f64,
}

/// Makes a file below `directory` and reads it in each way for so long.
pub fn measure(directory: &Path, within: Duration) -> io::Result<Reads> {
    let file = Written::new(directory)?;
    Ok(Reads {
        sequential_bytes_per_second: file.in_a_row(within)?,
        one_at_a_time: file.at_random(1, within)?,
        eight_at_once: file.at_random(THREADS, within)?,
    })
}

/// Makes a file below `directory` and reads it 1 MiB after the other for so long; bytes per second.
pub fn sequential(directory: &Path, within: Duration) -> io::Result<f64> {
    Written::new(directory)?.in_a_row(within)
}

/// A file that is on the disk and not in the page cache. It has no name any more, and goes when it is dropped.
struct Written(File);

impl Written {
    fn new(directory: &Path) -> io::Result<Self> {
        let path = directory.join("read");
        let mut options = OpenOptions::new();
        let plain = options.write(true).create_new(true).open(&path)?;
        // In as few pieces as the file system has, like the slots of a store.
        rustix::fs::fallocate(&plain, FallocateFlags::empty(), 0, FILE_BYTES as u64)?;
        let file = open_direct(&path)?;
        fs::remove_file(&path)?;
        let mut chunk = AlignedBuffer::new(MIB);
        getrandom::fill(chunk.as_mut_slice()).map_err(io::Error::other)?;
        for position in (0..FILE_BYTES).step_by(MIB) {
            file.write_all_at(&chunk.as_slice()[..MIB], position as u64)?;
        }
        file.sync_all()?;
        Ok(Self(file))
    }

    /// From the beginning to the end, and again; bytes per second.
    fn in_a_row(&self, within: Duration) -> io::Result<f64> {
        // In a large page, as a store reads: for each page of 4 KiB the disk would be given a piece of its own.
        let mut buffer = AlignedBuffer::new(LONG_BYTES);
        let (mut position, mut bytes) = (0, 0);
        let began = Instant::now();
        while began.elapsed() < within || bytes == 0 {
            let into = &mut buffer.as_mut_slice()[..LONG_BYTES];
            self.0.read_exact_at(into, position as u64)?;
            position = (position + LONG_BYTES) % FILE_BYTES;
            bytes += LONG_BYTES;
        }
        Ok(bytes as f64 / began.elapsed().as_secs_f64())
    }

    fn at_random(&self, threads: usize, within: Duration) -> io::Result<Random> {
        let began = Instant::now();
        let each = thread::scope(|scope| {
            let readers: Vec<_> = (0..threads)
                .map(|_| scope.spawn(|| self.one_at_random(began, within)))
                .collect();
            let panicked = |_| io::Error::other("a thread of the measurement panicked");
            let joined = readers.into_iter();
            let joined = joined.map(|reader| reader.join().map_err(panicked)?);
            joined.collect::<io::Result<Vec<_>>>()
        })?;
        let seconds = began.elapsed().as_secs_f64();
        let mut latencies = each.concat();
        latencies.sort_unstable();
        let middle = latencies[(latencies.len() - 1) / 2];
        Ok(Random {
            reads_per_second: latencies.len() as f64 / seconds,
            p50_us: middle.as_secs_f64() * 1e6,
        })
    }

    /// How long each read of one thread took; at least one.
    fn one_at_random(&self, began: Instant, within: Duration) -> io::Result<Vec<Duration>> {
        let mut buffer = AlignedBuffer::new(SHORT_BYTES);
        let places = (FILE_BYTES / SHORT_BYTES) as u64;
        let mut latencies = Vec::new();
        while began.elapsed() < within || latencies.is_empty() {
            let place = getrandom::u64().map_err(io::Error::other)? % places;
            let before = Instant::now();
            let into = &mut buffer.as_mut_slice()[..SHORT_BYTES];
            self.0.read_exact_at(into, place * SHORT_BYTES as u64)?;
            latencies.push(before.elapsed());
        }
        Ok(latencies)
    }
}
