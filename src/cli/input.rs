//! Messages from stdin or a file: one a line, or all of it one.
//!
//! A thread of its own reads, because reading may block for ever. It hands over
//! what one read delivered, whole lines only, so that a fast file costs few
//! hand-overs and a slow pipe loses no time. The hand-over is bounded: when the
//! publisher waits, the thread waits, and the file is not read on.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use bytes::{Bytes, BytesMut};
use tokio::sync::mpsc;

use crate::cli::fail::{Failure, Result};
use crate::limits;

/// Bytes asked for in one read.
const READ_BYTES: usize = 256 * 1024;
/// Hand-overs that may wait.
const HANDED_OVER_MAX: usize = 4;

/// Where messages come from.
#[derive(Debug, Clone)]
pub enum Source {
    /// Standard input.
    Stdin,
    /// A file.
    File(PathBuf),
}

impl Source {
    /// How errors call it.
    fn name(&self) -> String {
        match self {
            Self::Stdin => "stdin".to_owned(),
            Self::File(path) => path.display().to_string(),
        }
    }

    fn open(&self) -> io::Result<Box<dyn Read + Send>> {
        Ok(match self {
            Self::Stdin => Box::new(io::stdin()),
            Self::File(path) => Box::new(open_file(path)?),
        })
    }
}

/// Opens a file; a directory opens too, and would fail with a worse message later.
fn open_file(path: &Path) -> io::Result<File> {
    let file = File::open(path)?;
    match file.metadata()?.is_dir() {
        true => Err(io::ErrorKind::IsADirectory.into()),
        false => Ok(file),
    }
}

/// What is read, some messages at a time.
pub type Messages = mpsc::Receiver<Result<Vec<Bytes>>>;

/// Starts to read. `whole` makes one message of everything.
pub fn start(source: Source, whole: bool) -> Result<Messages> {
    let name = source.name();
    let from = source.open().map_err(|error| Failure::io(&name, &error))?;
    let (to, messages) = mpsc::channel(HANDED_OVER_MAX);
    let read = move || {
        let result = match whole {
            true => read_whole(from, &name, &to),
            false => read_lines(from, &name, &to),
        };
        if let Err(failure) = result {
            // Nobody receives any more when the publisher has failed already.
            let _ = to.blocking_send(Err(failure));
        }
    };
    std::thread::Builder::new()
        .name("input".to_owned())
        .spawn(read)
        .map_err(|error| Failure::io("input thread", &error))?;
    Ok(messages)
}

fn read_whole(from: impl Read, name: &str, to: &mpsc::Sender<Result<Vec<Bytes>>>) -> Result {
    let mut all = Vec::new();
    from.take(limits::MESSAGE_BYTES_MAX as u64 + 1)
        .read_to_end(&mut all)
        .map_err(|error| Failure::io(name, &error))?;
    if all.len() > limits::MESSAGE_BYTES_MAX {
        return Err(Failure::usage(format!(
            "{name} is longer than the largest message, {} bytes",
            limits::MESSAGE_BYTES_MAX
        )));
    }
    let _ = to.blocking_send(Ok(vec![all.into()]));
    Ok(())
}

pub(super) fn read_lines(
    mut from: impl Read,
    name: &str,
    to: &mpsc::Sender<Result<Vec<Bytes>>>,
) -> Result {
    let mut rest = BytesMut::new();
    let mut lines_before = 0;
    loop {
        let start = rest.len();
        rest.resize(start + READ_BYTES, 0);
        let read = loop {
            match from.read(&mut rest[start..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => break result.map_err(|error| Failure::io(name, &error))?,
            }
        };
        rest.truncate(start + read);
        let lines = match read {
            0 if rest.is_empty() => return Ok(()),
            // The last line may lack its end.
            0 => vec![rest.split().freeze()],
            _ => take_lines(&mut rest, start),
        };
        lines_before += lines.len();
        if rest.len() > limits::MESSAGE_BYTES_MAX {
            return Err(Failure::usage(format!(
                "line {} of {name} is longer than the largest message, {} bytes",
                lines_before + 1,
                limits::MESSAGE_BYTES_MAX
            )));
        }
        if !lines.is_empty() && to.blocking_send(Ok(lines)).is_err() {
            return Ok(());
        }
    }
}

/// Takes all whole lines off `rest`, without their ends; nothing before
/// `searched` holds one.
fn take_lines(rest: &mut BytesMut, searched: usize) -> Vec<Bytes> {
    let Some(last) = rest[searched..].iter().rposition(|&byte| byte == b'\n') else {
        return Vec::new();
    };
    let whole = rest.split_to(searched + last + 1).freeze();
    let mut lines = Vec::new();
    let mut start = 0;
    for (at, _) in whole.iter().enumerate().filter(|(_, byte)| **byte == b'\n') {
        lines.push(whole.slice(start..at));
        start = at + 1;
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Delivers its parts one read at a time.
    struct Parts(Vec<&'static [u8]>);

    impl Read for Parts {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            if self.0.is_empty() {
                return Ok(0);
            }
            let part = self.0.remove(0);
            into[..part.len()].copy_from_slice(part);
            Ok(part.len())
        }
    }

    fn lines(parts: &[&'static [u8]]) -> Vec<String> {
        let (to, mut messages) = mpsc::channel(100);
        read_lines(Parts(parts.to_vec()), "parts", &to).expect("readable");
        drop(to);
        let mut lines = Vec::new();
        while let Some(some) = messages.blocking_recv() {
            let some = some.expect("readable");
            lines.extend(
                some.iter()
                    .map(|line| String::from_utf8_lossy(line).into_owned()),
            );
        }
        lines
    }

    #[test]
    fn lines_are_found_however_they_arrive() {
        assert_eq!(lines(&[b"a\nb\n"]), ["a", "b"]);
        assert_eq!(lines(&[b"a", b"b\nc", b"\n"]), ["ab", "c"]);
        assert_eq!(lines(&[b"a\n\nb"]), ["a", "", "b"]);
        assert_eq!(lines(&[b"\n"]), [""]);
        assert!(lines(&[]).is_empty());
    }

    #[test]
    fn what_is_larger_than_any_message_is_refused_while_it_is_read() {
        let endless = || io::repeat(b'x');
        let (to, _messages) = mpsc::channel(1);
        let failure = read_lines(endless(), "x", &to).expect_err("too long");
        assert!(
            failure.message.contains("line 1 of x"),
            "{}",
            failure.message
        );
        assert!(read_whole(endless(), "x", &to).is_err());
    }
}
