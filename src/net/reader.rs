//! Frames from a socket.
//!
//! An idle connection has no buffer: it is taken when bytes are there and
//! given back when all of them are used up. The buffer grows with the bytes that
//! arrive, not with the length that was announced. Frames share the buffer they
//! were read into; a server reads into it again when nobody holds one of them.
//!
//! A frame must be whole [`FRAME_TIMEOUT`](limits::FRAME_TIMEOUT) after the
//! reader first had to wait for the rest of it. There is no timeout between frames.

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use thiserror::Error;
use tokio::io::AsyncReadExt;
use tokio::net::tcp::OwnedReadHalf;

use crate::buffers::{Buffer, Buffers};
use crate::limits;
use crate::net::budget::Pace;
use crate::net::context::Context;
use crate::protocol::frame::{self, FrameError, FrameHeader, Prefix};

/// Why no further frame can be read.
#[derive(Debug, Error)]
pub(super) enum ReadError {
    #[error("reading failed: {0}")]
    Io(#[from] io::Error),
    #[error("{error}")]
    Frame {
        error: FrameError,
        /// Of the bad frame, 0 if it was not received.
        correlation: u32,
    },
    #[error("the connection ended inside a frame")]
    Truncated,
    #[error("a frame was not received in time")]
    TooSlow {
        /// Of the slow frame, 0 if it was not received.
        correlation: u32,
    },
}

/// How much was received on a connection; clones count together.
#[derive(Debug, Clone, Default)]
pub(super) struct Heard(Arc<AtomicU64>);

impl Heard {
    /// Bytes so far.
    pub fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn add(&self, bytes: usize) {
        self.0.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

/// Reads frames from one half of a socket. All of it is safe to cancel.
#[derive(Debug)]
pub(super) struct FrameReader {
    half: OwnedReadHalf,
    buffer: Buffer,
    /// Where it comes from and goes to, at a server.
    buffers: Option<Arc<Buffers>>,
    /// What to reserve for the next read; follows what arrives.
    chunk: usize,
    frame_bytes_max: usize,
    pace: Option<Pace>,
    timeout: Duration,
    server: Option<Arc<Context>>,
    heard: Heard,
}

impl FrameReader {
    pub fn new(half: OwnedReadHalf, frame_bytes_max: usize) -> Self {
        Self {
            half,
            buffer: Buffer::default(),
            buffers: None,
            chunk: limits::READ_BUFFER_BYTES_MIN,
            frame_bytes_max,
            pace: None,
            timeout: limits::FRAME_TIMEOUT,
            server: None,
            heard: Heard::default(),
        }
    }

    /// Counts what it receives there.
    pub fn telling(mut self, heard: Heard) -> Self {
        self.heard = heard;
        self
    }

    /// Reads for a server: counts, and cuts slow frames off early while others wait for memory.
    pub fn of(mut self, server: Arc<Context>) -> Self {
        self.timeout = server.timeouts.frame;
        self.buffers = Some(server.budget.buffers.clone());
        self.server = Some(server);
        self
    }

    pub fn set_frame_bytes_max(&mut self, max: usize) {
        self.frame_bytes_max = max;
    }

    /// Whether all of that frame is here already.
    pub fn has(&self, prefix: &Prefix) -> bool {
        self.buffer.bytes.len() >= prefix.frame_bytes()
    }

    /// The start of the next frame if it is here already.
    pub fn prefix_at_hand(&self) -> Option<Prefix> {
        Prefix::parse(&self.buffer.bytes, self.frame_bytes_max)
            .ok()
            .flatten()
    }

    /// The frames that are here already, whole, without taking them.
    pub fn frames_at_hand(&self) -> impl Iterator<Item = (FrameHeader, &[u8])> {
        let mut rest = &self.buffer.bytes[..];
        std::iter::from_fn(move || {
            let prefix = Prefix::parse(rest, self.frame_bytes_max).ok()??;
            let (frame, others) = rest.split_at_checked(prefix.frame_bytes())?;
            rest = others;
            Some((prefix.header, &frame[frame::PREFIX_BYTES..]))
        })
    }

    /// The start of the next frame, without taking it; `None` at an end between frames.
    pub async fn prefix(&mut self) -> Result<Option<Prefix>, ReadError> {
        loop {
            match Prefix::parse(&self.buffer.bytes, self.frame_bytes_max) {
                Ok(Some(prefix)) => return Ok(Some(prefix)),
                Ok(None) => {}
                Err(error) => {
                    let correlation = self.correlation();
                    return Err(ReadError::Frame { error, correlation });
                }
            }
            if self.fill(frame::PREFIX_BYTES).await? == 0 {
                return match self.buffer.bytes.is_empty() {
                    true => Ok(None),
                    false => Err(ReadError::Truncated),
                };
            }
        }
    }

    /// The rest of the frame that `prefix` begins.
    pub async fn body(&mut self, prefix: &Prefix) -> Result<Bytes, ReadError> {
        loop {
            if let Some(body) = prefix.take_body(&mut self.buffer.bytes) {
                self.pace = None;
                return Ok(body);
            }
            if self.fill(prefix.frame_bytes()).await? == 0 {
                return Err(ReadError::Truncated);
            }
        }
    }

    /// Reads and forgets until the other side closes, for at most [`limits::CLOSE_TIMEOUT`]:
    /// closing a socket with unread bytes would destroy what was just written to it.
    pub async fn drain(mut self) {
        let until_end = async {
            loop {
                self.buffer.bytes.clear();
                if !matches!(self.fill(limits::READ_BUFFER_BYTES_MIN).await, Ok(1..)) {
                    return;
                }
            }
        };
        let _ = tokio::time::timeout(limits::CLOSE_TIMEOUT, until_end).await;
    }

    /// The correlation of a bad frame, if it came along with the length.
    fn correlation(&mut self) -> u32 {
        if self.buffer.bytes.len() < frame::PREFIX_BYTES {
            let room = self.make_room(frame::PREFIX_BYTES);
            if let Ok(bytes) = self.half.try_read_buf(&mut self.buffer.bytes) {
                self.count(bytes, room);
            }
        }
        frame::correlation_of(&self.buffer.bytes).unwrap_or(0)
    }

    /// Receives some bytes; 0 at the end. `frame_bytes` is how many the frame at the front has.
    async fn fill(&mut self, frame_bytes: usize) -> Result<usize, ReadError> {
        loop {
            // Each time: a read is also put off when it is the turn of others, and looks as if nothing was there.
            tokio::task::coop::consume_budget().await;
            if self.buffer.bytes.is_empty() {
                self.change_buffer(None);
                self.pace = None;
                self.half.readable().await?;
            }
            if let Some(bytes) = self.fill_at_hand(frame_bytes).await? {
                return Ok(bytes);
            }
            if !self.buffer.bytes.is_empty() {
                self.wait_for_rest(frame_bytes).await?;
            }
        }
    }

    /// Receives what is there now, `None` if that is nothing. A read that leaves room has taken all of it: the
    /// next one waits for more, and no system call is made only to be told that there is none.
    async fn fill_at_hand(&mut self, frame_bytes: usize) -> io::Result<Option<usize>> {
        let room = self.make_room(frame_bytes);
        let mut reading = pin!(self.half.read_buf(&mut self.buffer.bytes));
        match poll_fn(|context| Poll::Ready(reading.as_mut().poll(context))).await {
            Poll::Ready(Ok(bytes)) => {
                self.count(bytes, room);
                Ok(Some(bytes))
            }
            Poll::Ready(Err(error)) => Err(error),
            Poll::Pending => Ok(None),
        }
    }

    /// Reserves what the next read needs; how much that is.
    fn make_room(&mut self, frame_bytes: usize) -> usize {
        let missing = frame_bytes.saturating_sub(self.buffer.bytes.len());
        let spare = self.buffer.bytes.capacity() - self.buffer.bytes.len();
        if spare < missing.min(self.chunk / 4).max(1) {
            // Doubling, so that a large frame is moved at most once per byte on average.
            let step = self.buffer.bytes.len().max(limits::READ_BUFFER_BYTES_MAX);
            let room = missing.min(step).max(self.chunk / 4);
            let bytes = (self.buffer.bytes.len() + room).max(self.chunk);
            if bytes > limits::BUFFER_KEPT_BYTES_MAX {
                self.buffer.grow(room);
            } else if !self.buffer.bytes.try_reclaim(room) {
                self.change_buffer(Some(bytes));
            }
        }
        self.buffer.bytes.capacity() - self.buffer.bytes.len()
    }

    /// Goes on in another buffer of that length, with what is not taken yet; or in none.
    fn change_buffer(&mut self, bytes: Option<usize>) {
        let take = |bytes| match &self.buffers {
            Some(buffers) => buffers.take(bytes),
            None => Buffer::new(bytes),
        };
        let mut next = bytes.map_or_else(Buffer::default, take);
        next.bytes.extend_from_slice(&self.buffer.bytes);
        let done = std::mem::replace(&mut self.buffer, next);
        if let Some(buffers) = &self.buffers {
            buffers.give(done);
        }
    }

    fn count(&mut self, bytes: usize, room: usize) {
        if bytes == room {
            self.chunk = (self.chunk * 2).min(limits::READ_BUFFER_BYTES_MAX);
        } else if bytes < self.chunk / 4 {
            self.chunk = (self.chunk / 2).max(limits::READ_BUFFER_BYTES_MIN);
        }
        if let Some(pace) = &mut self.pace {
            pace.moved(bytes);
        }
        self.heard.add(bytes);
        if let Some(server) = &self.server {
            server.traffic.received(bytes);
        }
    }

    async fn wait_for_rest(&mut self, frame_bytes: usize) -> Result<(), ReadError> {
        // A small frame is paid for when it is whole: being slow takes nothing from others.
        let is_paid = frame_bytes > limits::READ_BUFFER_BYTES_MIN;
        let server = self.server.as_ref().filter(|_| is_paid);
        let pressed = || server.is_some_and(|server| server.budget.requests.is_pressed());
        let pace = self.pace.get_or_insert_with(|| Pace::new(self.timeout));
        loop {
            match tokio::time::timeout_at(pace.next_look(), self.half.readable()).await {
                Ok(ready) => return Ok(ready?),
                Err(_) if pace.is_too_slow(pressed()) => {
                    return Err(ReadError::TooSlow {
                        correlation: frame::correlation_of(&self.buffer.bytes).unwrap_or(0),
                    });
                }
                Err(_) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;
    use tokio::net::tcp::OwnedWriteHalf;
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::protocol::frame::{Frame, PREFIX_BYTES};

    /// The end that writes, and a reader as of a server.
    async fn connected(kept: usize) -> (OwnedWriteHalf, FrameReader) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let address = listener.local_addr().expect("bound");
        let (near, far) = tokio::join!(TcpStream::connect(address), listener.accept());
        let (half, _) = far.expect("accepted").0.into_split();
        let mut reader = FrameReader::new(half, limits::FRAME_BYTES_MAX);
        reader.buffers = Some(Arc::new(Buffers::new(kept)));
        (near.expect("connected").into_split().1, reader)
    }

    fn kept(reader: &FrameReader) -> usize {
        let buffers = reader.buffers.as_ref();
        buffers.map_or(0, |buffers| buffers.kept_bytes().0)
    }

    async fn read(reader: &mut FrameReader) -> Bytes {
        let prefix = reader.prefix().await.expect("a frame").expect("no end");
        reader.body(&prefix).await.expect("all of it")
    }

    /// Whatever buffer a frame lies in, wherever it begins: what is held stays what it was, and what is held by nobody is
    /// used again.
    #[tokio::test]
    async fn frames_that_are_held_stay_what_they_are() {
        const FRAMES: u8 = 60;
        let (mut writer, mut reader) = connected(4 * limits::MIB).await;
        let bytes = |number: u8| 60_000 + usize::from(number) * 1_777;
        let frame = move |number: u8| Frame {
            header: FrameHeader::request(2, number, 5),
            body: vec![number; bytes(number)].into(),
        };
        let writing = tokio::spawn(async move {
            for number in (0..FRAMES).chain(0..FRAMES) {
                // All that is at hand, or a piece that ends somewhere.
                let whole = frame(number).encode();
                let (front, rest) = whole.split_at(whole.len() / usize::from(number % 3 + 1));
                writer.write_all(front).await.expect("open");
                writer.write_all(rest).await.expect("open");
            }
            writer
        });
        let is_right = |body: &Bytes, number: u8| {
            body.len() == bytes(number) && body.iter().all(|byte| *byte == number)
        };
        let mut held = Vec::new();
        for number in 0..FRAMES {
            held.push(read(&mut reader).await);
            assert!(is_right(&held[usize::from(number)], number));
            // Every other one is let go after a while.
            if number % 2 == 1 && number > 20 {
                held[usize::from(number) - 20] = Bytes::new();
            }
        }
        for number in 0..FRAMES {
            let body = &held[usize::from(number)];
            assert!(body.is_empty() || is_right(body, number));
        }
        drop(held);
        for number in 0..FRAMES {
            let body = read(&mut reader).await;
            assert!(is_right(&body, number));
        }
        assert!((1..=4 * limits::MIB).contains(&kept(&reader)));
        drop(writing.await.expect("it ends"));
    }

    #[tokio::test]
    async fn who_waits_between_frames_has_no_buffer() {
        let (mut writer, mut reader) = connected(4 * limits::MIB).await;
        let frame = Frame {
            header: FrameHeader::request(2, 1, 5),
            body: vec![7; 200_000].into(),
        };
        for _ in 0..10 {
            writer.write_all(&frame.encode()).await.expect("open");
            let body = read(&mut reader).await;
            assert_eq!(body, frame.body);
            drop(body);
            let waiting = tokio::time::timeout(Duration::from_millis(50), reader.prefix());
            assert!(waiting.await.is_err(), "there is no further frame");
            assert_eq!(reader.buffer.bytes.capacity(), 0);
            assert!(kept(&reader) >= 200_000 + PREFIX_BYTES);
        }
        // Those that it grew through the first time; it needs no others.
        assert!(kept(&reader) < limits::MIB, "{}", kept(&reader));
    }
}
