//! What waits to be written to a socket, and the writing of it.
//!
//! Frames are pushed from any thread without waiting; one task writes them. It
//! takes all that waits (up to [`WRITE_ROUND_BYTES`](limits::WRITE_ROUND_BYTES)),
//! copies small pieces next to each other and leaves large ones where they are,
//! and hands the lot to vectored writes: many answers, one system call. The
//! task is woken only when the queue was empty.
//!
//! How many frames may wait is decided before they come to be: see invariant 2
//! of [`net`](crate::net).

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::AsyncWriteExt;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::Notify;

use crate::limits;
use crate::net::budget::Pace;
use crate::net::context::Context;
use crate::protocol::frame::{FrameHeader, PREFIX_BYTES};

/// Longest body kept without an allocation, in bytes: an acknowledgement fits.
const INLINE_BYTES: usize = 30;

/// A body in pieces that are written one after the other, not copied together.
#[derive(Debug, Clone)]
pub struct Body(Pieces);

#[derive(Debug, Clone)]
enum Pieces {
    Inline(u8, [u8; INLINE_BYTES]),
    One(Bytes),
    Many(Vec<Bytes>),
}

impl Body {
    /// Copies `bytes`; up to 30 of them need no allocation.
    pub fn copy(bytes: &[u8]) -> Self {
        if bytes.len() > INLINE_BYTES {
            return Self(Pieces::One(Bytes::copy_from_slice(bytes)));
        }
        let mut inline = [0; INLINE_BYTES];
        inline[..bytes.len()].copy_from_slice(bytes);
        Self(Pieces::Inline(bytes.len() as u8, inline))
    }

    /// Number of bytes.
    pub fn len(&self) -> usize {
        match &self.0 {
            Pieces::Inline(length, _) => usize::from(*length),
            Pieces::One(bytes) => bytes.len(),
            Pieces::Many(pieces) => pieces.iter().map(Bytes::len).sum(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self(Pieces::One(bytes))
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Self {
        Self(Pieces::One(bytes.into()))
    }
}

impl From<Vec<Bytes>> for Body {
    fn from(pieces: Vec<Bytes>) -> Self {
        Self(Pieces::Many(pieces))
    }
}

/// A frame to be written, and what is let go when it was.
#[derive(Debug)]
pub(super) struct Outgoing<T> {
    prefix: [u8; PREFIX_BYTES],
    body: Body,
    pub ticket: T,
}

impl<T> Outgoing<T> {
    pub fn new(header: FrameHeader, body: Body, ticket: T) -> Self {
        Self {
            prefix: header.encode(body.len()),
            body,
            ticket,
        }
    }

    fn bytes(&self) -> usize {
        PREFIX_BYTES + self.body.len()
    }
}

/// The queue between those who answer and the one who writes.
#[derive(Debug)]
pub(super) struct Outbox<T> {
    queue: Mutex<Queue<T>>,
    /// Bytes queued or being written.
    bytes: AtomicUsize,
    wake: Notify,
}

#[derive(Debug)]
struct Queue<T> {
    frames: VecDeque<Outgoing<T>>,
    /// Nothing more is taken in.
    is_closed: bool,
}

impl<T> Default for Outbox<T> {
    fn default() -> Self {
        Self {
            queue: Mutex::new(Queue {
                frames: VecDeque::new(),
                is_closed: false,
            }),
            bytes: AtomicUsize::new(0),
            wake: Notify::new(),
        }
    }
}

impl<T> Outbox<T> {
    fn lock(&self) -> MutexGuard<'_, Queue<T>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a frame; gives it back when nothing will be written any more.
    pub fn push(&self, frame: Outgoing<T>) -> Result<(), Outgoing<T>> {
        let bytes = frame.bytes();
        let was_empty = {
            let mut queue = self.lock();
            if queue.is_closed {
                return Err(frame);
            }
            let was_empty = queue.frames.is_empty();
            self.bytes.fetch_add(bytes, Ordering::Relaxed);
            queue.frames.push_back(frame);
            was_empty
        };
        if was_empty {
            self.wake.notify_one();
        }
        Ok(())
    }

    /// Bytes queued or being written.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Takes nothing more in; what is queued is still written.
    pub fn finish(&self) {
        self.lock().is_closed = true;
        self.wake.notify_one();
    }

    /// Takes nothing more in and forgets what is queued.
    pub fn abort(&self) {
        let forgotten = {
            let mut queue = self.lock();
            queue.is_closed = true;
            std::mem::take(&mut queue.frames)
        };
        self.wake.notify_one();
        drop(forgotten);
    }

    /// Moves what waits to `round`, up to a round's bytes; whether more can come.
    fn take(&self, round: &mut VecDeque<Outgoing<T>>) -> bool {
        let mut queue = self.lock();
        if self.bytes() <= limits::WRITE_ROUND_BYTES {
            std::mem::swap(&mut queue.frames, round);
        } else {
            let mut bytes = 0;
            while bytes < limits::WRITE_ROUND_BYTES
                && let Some(frame) = queue.frames.pop_front()
            {
                bytes += frame.bytes();
                round.push_back(frame);
            }
        }
        if round.is_empty() && queue.frames.capacity() > 16 {
            queue.frames = VecDeque::new();
        }
        !(round.is_empty() && queue.is_closed)
    }
}

/// Writes an outbox to one half of a socket.
#[derive(Debug)]
pub(super) struct Writer {
    half: OwnedWriteHalf,
    scratch: BytesMut,
    pieces: VecDeque<Bytes>,
    timeout: Duration,
    server: Option<Arc<Context>>,
}

impl Writer {
    pub fn new(half: OwnedWriteHalf) -> Self {
        Self {
            half,
            scratch: BytesMut::new(),
            pieces: VecDeque::new(),
            timeout: limits::WRITE_STALL_TIMEOUT,
            server: None,
        }
    }

    /// Writes for a server: counts, and cuts slow readers off early while others wait for memory.
    pub fn of(mut self, server: Arc<Context>) -> Self {
        self.timeout = server.timeouts.write_stall;
        self.server = Some(server);
        self
    }

    /// Writes until the outbox is finished or the socket fails. `taken` sees frames before any
    /// byte of them is written. Either way the outbox takes nothing in afterwards.
    pub async fn run<T>(
        mut self,
        outbox: &Outbox<T>,
        taken: impl FnMut(&VecDeque<Outgoing<T>>),
    ) -> io::Result<()> {
        let _abort = AbortAtEnd(outbox);
        self.write_rounds(outbox, taken).await?;
        self.half.shutdown().await
    }

    async fn write_rounds<T>(
        &mut self,
        outbox: &Outbox<T>,
        mut taken: impl FnMut(&VecDeque<Outgoing<T>>),
    ) -> io::Result<()> {
        let mut round = VecDeque::new();
        while outbox.take(&mut round) {
            if round.is_empty() {
                (round, self.pieces) = (VecDeque::new(), VecDeque::new());
                self.scratch = BytesMut::new();
                outbox.wake.notified().await;
                continue;
            }
            taken(&round);
            let bytes = self.gather(&round);
            self.write_pieces().await?;
            outbox.bytes.fetch_sub(bytes, Ordering::Relaxed);
            round.clear();
        }
        Ok(())
    }

    /// Lines the frames up as pieces; returns their bytes.
    fn gather<T>(&mut self, round: &VecDeque<Outgoing<T>>) -> usize {
        let mut bytes = 0;
        for frame in round {
            bytes += frame.bytes();
            self.scratch.extend_from_slice(&frame.prefix);
            match &frame.body.0 {
                Pieces::Inline(length, inline) => self
                    .scratch
                    .extend_from_slice(&inline[..usize::from(*length)]),
                Pieces::One(piece) => self.add(piece),
                Pieces::Many(pieces) => pieces.iter().for_each(|piece| self.add(piece)),
            }
        }
        self.end_scratch();
        bytes
    }

    fn add(&mut self, piece: &Bytes) {
        if piece.len() <= limits::COALESCE_BYTES_MAX {
            self.scratch.extend_from_slice(piece);
        } else {
            self.end_scratch();
            self.pieces.push_back(piece.clone());
        }
    }

    fn end_scratch(&mut self) {
        if !self.scratch.is_empty() {
            self.pieces.push_back(self.scratch.split().freeze());
        }
    }

    async fn write_pieces(&mut self) -> io::Result<()> {
        let mut pace = None;
        tokio::task::coop::consume_budget().await;
        while !self.pieces.is_empty() {
            match self.try_write() {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(bytes) => self.advance(bytes, &mut pace),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.wait(pace.get_or_insert_with(|| Pace::new(self.timeout)))
                        .await?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn try_write(&self) -> io::Result<usize> {
        let mut slices = [IoSlice::new(&[]); limits::WRITE_PIECES_MAX];
        let count = self.pieces.len().min(slices.len());
        for (slice, piece) in slices.iter_mut().zip(&self.pieces) {
            *slice = IoSlice::new(piece);
        }
        self.half.try_write_vectored(&slices[..count])
    }

    fn advance(&mut self, mut bytes: usize, pace: &mut Option<Pace>) {
        if let Some(pace) = pace {
            pace.moved(bytes);
            pace.extend(self.timeout);
        }
        if let Some(server) = &self.server {
            server.traffic.sent(bytes);
        }
        while let Some(piece) = self.pieces.front_mut() {
            if bytes < piece.len() {
                let _ = piece.split_to(bytes);
                return;
            }
            bytes -= piece.len();
            self.pieces.pop_front();
        }
    }

    async fn wait(&self, pace: &mut Pace) -> io::Result<()> {
        let pressed = || {
            let server = self.server.as_ref();
            server.is_some_and(|server| server.budget.answers.is_pressed())
        };
        loop {
            match tokio::time::timeout_at(pace.next_look(), self.half.writable()).await {
                Ok(ready) => return ready,
                Err(_) if pace.is_too_slow(pressed()) => {
                    return Err(io::Error::new(
                        io::ErrorKind::TimedOut,
                        "the other side does not take its answers",
                    ));
                }
                Err(_) => {}
            }
        }
    }
}

/// However the writing ends, nobody queues for it any more.
struct AbortAtEnd<'a, T>(&'a Outbox<T>);

impl<T> Drop for AbortAtEnd<'_, T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
