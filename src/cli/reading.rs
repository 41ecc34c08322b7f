//! What reads text from outside, for the programs in `fuzz/` and their corpora, which hand it what nobody would type.
//!
//! No interface: it is what the command line happens to be made of.

use bytes::Bytes;
use tokio::sync::mpsc;

use super::config::File;
use super::{input, values};

pub use values::{
    count, duration, header, listen, offset, period, position, rate, size, template, time,
};

/// Reads a configuration file, and shows what it says.
///
/// # Errors
/// What is wrong with it.
pub fn config(text: &str) -> Result<String, String> {
    let file = File::parse(text)?;
    let indexes = file.index_of_file().map_err(|failure| failure.message)?;
    Ok(format!("{file:?} {indexes:?}"))
}

/// The lines of standard input, if it comes in pieces of that many bytes.
///
/// # Errors
/// If one is longer than a message may be.
pub fn lines(bytes: &[u8], piece: usize) -> Result<Vec<Bytes>, String> {
    // As many hand-overs as there can be, for nobody takes them meanwhile.
    let (to, mut messages) = mpsc::channel(bytes.len() + 1);
    input::read_lines(Pieces { bytes, piece }, "stdin", &to).map_err(|failure| failure.message)?;
    drop(to);
    let mut lines = Vec::new();
    while let Some(some) = messages.blocking_recv() {
        lines.extend(some.map_err(|failure| failure.message)?);
    }
    Ok(lines)
}

/// Delivers so many bytes with each read.
struct Pieces<'a> {
    bytes: &'a [u8],
    piece: usize,
}

impl std::io::Read for Pieces<'_> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let length = self.piece.min(into.len()).min(self.bytes.len());
        let (now, rest) = self.bytes.split_at(length);
        into[..length].copy_from_slice(now);
        self.bytes = rest;
        Ok(length)
    }
}
