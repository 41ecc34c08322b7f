//! What the loopback and one core can do, with nothing of a broker in it.

use std::hint::black_box;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use crc_fast::{CrcAlgorithm, checksum};
use serde::Serialize;

use crate::disk::cpu_time;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;
/// Bytes of one write to the socket.
const WRITE_BYTES: usize = 64 * KIB;
/// Bytes there and back.
const PING_BYTES: usize = 64;
/// Rounds between two looks at the clock.
const ROUNDS_PER_LOOK: usize = 64;

/// Bytes through the loopback, one connection, one thread at each end.
#[derive(Debug, Clone, Serialize)]
pub struct Throughput {
    /// Bytes that arrived in a second.
    pub bytes_per_second: f64,
    /// Processors busy at both ends together.
    pub cores: f64,
}

/// 64 bytes there and back over the loopback, blocking threads.
#[derive(Debug, Clone, Serialize)]
pub struct RoundTrip {
    /// Microseconds, median.
    pub p50_us: f64,
    /// Microseconds, 99th percentile.
    pub p99_us: f64,
}

/// What one core does with bytes.
#[derive(Debug, Clone, Serialize)]
pub struct Core {
    /// CRC-32C over 64 KiB, in the cache.
    pub crc_64kib_bytes_per_second: f64,
    /// CRC-32C over 100 B.
    pub crc_100b_bytes_per_second: f64,
    /// Copying 64 KiB, in the cache.
    pub copy_64kib_bytes_per_second: f64,
    /// Copying 64 MiB, out of the cache.
    pub copy_64mib_bytes_per_second: f64,
}

fn pair() -> io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let near = TcpStream::connect(listener.local_addr()?)?;
    let (far, _) = listener.accept()?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    Ok((near, far))
}

fn joined<T>(thread: thread::JoinHandle<io::Result<T>>) -> io::Result<T> {
    let panicked = |_| io::Error::other("a thread of the measurement panicked");
    thread.join().map_err(panicked)?
}

/// Writes of 64 KiB, for so long.
pub fn throughput(within: Duration) -> io::Result<Throughput> {
    let (mut near, mut far) = pair()?;
    let reader = thread::spawn(move || {
        let mut buffer = vec![0; MIB];
        let mut bytes = 0;
        let began = Instant::now();
        loop {
            let count = far.read(&mut buffer)?;
            if count == 0 {
                return Ok((bytes as f64 / began.elapsed().as_secs_f64(), cpu_time()?));
            }
            bytes += count;
        }
    });
    let cpu_before = cpu_time()?;
    let block = vec![7; WRITE_BYTES];
    let began = Instant::now();
    while began.elapsed() < within {
        near.write_all(&block)?;
    }
    drop(near);
    let (bytes_per_second, reader_cpu) = joined(reader)?;
    let seconds = began.elapsed().as_secs_f64();
    let cpu = cpu_time()?.saturating_sub(cpu_before) + reader_cpu;
    Ok(Throughput {
        bytes_per_second,
        cores: cpu.as_secs_f64() / seconds,
    })
}

/// There and back, one at a time, for so long.
pub fn round_trip(within: Duration) -> io::Result<RoundTrip> {
    let (mut near, mut far) = pair()?;
    let echo = thread::spawn(move || {
        let mut ping = [0; PING_BYTES];
        // The near end closes when it has enough.
        while far.read_exact(&mut ping).is_ok() {
            far.write_all(&ping)?;
        }
        Ok(())
    });
    let mut ping = [3; PING_BYTES];
    let mut latencies = Vec::new();
    let began = Instant::now();
    while began.elapsed() < within || latencies.is_empty() {
        let before = Instant::now();
        near.write_all(&ping)?;
        near.read_exact(&mut ping)?;
        latencies.push(before.elapsed());
    }
    drop(near);
    joined(echo)?;
    latencies.sort_unstable();
    let at =
        |per_mille: usize| latencies[(latencies.len() - 1) * per_mille / 1000].as_secs_f64() * 1e6;
    Ok(RoundTrip {
        p50_us: at(500),
        p99_us: at(990),
    })
}

/// Checksums and copies, each for so long.
pub fn core(within: Duration) -> io::Result<Core> {
    let mut from = vec![0; 64 * MIB];
    getrandom::fill(&mut from[..MIB]).map_err(io::Error::other)?;
    // Touched, so that no page is made while it is measured.
    let mut to = vec![1_u8; from.len()];
    let crc = |bytes: &[u8]| _ = black_box(checksum(CrcAlgorithm::Crc32Iscsi, black_box(bytes)));
    let crc_64kib = rate(within, 64 * KIB, || crc(&from[..64 * KIB]));
    let crc_100b = rate(within, 100, || crc(&from[..100]));
    let mut copy = |bytes: usize| {
        rate(within, bytes, || {
            to[..bytes].copy_from_slice(black_box(&from[..bytes]));
            black_box(&mut to);
        })
    };
    Ok(Core {
        crc_64kib_bytes_per_second: crc_64kib,
        crc_100b_bytes_per_second: crc_100b,
        copy_64kib_bytes_per_second: copy(64 * KIB),
        copy_64mib_bytes_per_second: copy(64 * MIB),
    })
}

/// Bytes per second of something that is done to so many bytes.
fn rate(within: Duration, bytes: usize, mut once: impl FnMut()) -> f64 {
    let rounds = if bytes < MIB { ROUNDS_PER_LOOK } else { 1 };
    let mut done = 0;
    let began = Instant::now();
    while began.elapsed() < within || done == 0 {
        (0..rounds).for_each(|_| once());
        done += rounds * bytes;
    }
    done as f64 / began.elapsed().as_secs_f64()
}
