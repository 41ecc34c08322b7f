//! What every node tells of its process, whatever else it counts.

use crate::process;
use crate::protocol::api::{FiguresAnswer, Nonce};

/// The figures of this process.
pub fn of_process() -> FiguresAnswer {
    let used = process::figures();
    let mut answer = FiguresAnswer {
        process: Nonce(process::id()),
        figures: Vec::new(),
    };
    answer.add("rss_bytes", used.rss_bytes);
    answer.add("cpu_ms", used.cpu_ms);
    answer.add("disk_written_bytes", used.disk_written_bytes);
    answer
}
