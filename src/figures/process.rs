//! What the operating system counts of this process.

use super::catalogue as all;
use super::sample::Collected;
use crate::process;

/// The figures of this process.
pub fn of_process() -> Collected {
    let used = process::figures();
    let mut collected = Collected::default();
    collected.number(&all::PROCESS_MEMORY, used.rss_bytes);
    collected.number(&all::PROCESS_CPU, used.cpu_ms * 1_000);
    collected.number(&all::PROCESS_START, process::started_micros());
    collected.number(&all::PROCESS_WRITTEN, used.disk_written_bytes);
    collected
}

/// Its file descriptors, which are counted one by one.
pub fn of_descriptors(collected: &mut Collected) {
    let (open, max) = process::descriptors();
    collected.number(&all::PROCESS_FDS, open);
    collected.number(&all::PROCESS_FDS_MAX, max);
}
