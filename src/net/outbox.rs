//! What waits to be written to a socket, and the writing of it.
//!
//! Frames are pushed from any thread without waiting. What is small is copied
//! next to what was pushed before, what is large stays where it is: a frame
//! needs neither an allocation nor a place in a queue. One task writes. It takes
//! a round, which is all that waits up to about
//! [`WRITE_ROUND_BYTES`](limits::WRITE_ROUND_BYTES), with vectored writes: many
//! answers, one system call, and what they held is let go all at once. The task
//! is woken only when nothing waited.
//!
//! How many frames may wait is decided before they come to be: see invariant 2
//! of [`net`](crate::net).

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::AsyncWriteExt;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::Notify;

use crate::limits;
use crate::net::budget::Pace;
use crate::net::context::Context;
use crate::protocol::frame::FrameHeader;

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

/// What is let go, or remembered, when frames were written: one thing for all frames of a round.
pub(super) trait Ticket {
    /// Adds that of a frame behind those that are in it.
    fn join(&mut self, later: Self);
}

impl Ticket for () {
    fn join(&mut self, (): Self) {}
}

/// A frame to be written, and its ticket.
#[derive(Debug)]
pub(super) struct Outgoing<'a, T> {
    pub header: FrameHeader,
    pub body: Parts<'a>,
    pub ticket: T,
}

impl<T> Outgoing<'_, T> {
    pub fn new(header: FrameHeader, body: Body, ticket: T) -> Self {
        let body = Parts::Kept(body);
        Self {
            header,
            body,
            ticket,
        }
    }
}

/// A body as it is handed over.
#[derive(Debug)]
pub(super) enum Parts<'a> {
    /// To be kept as long as it is needed.
    Kept(Body),
    /// To be copied, one behind the other.
    Lent(&'a [&'a [u8]]),
}

impl From<Body> for Parts<'_> {
    fn from(body: Body) -> Self {
        Self::Kept(body)
    }
}

impl Parts<'_> {
    pub fn len(&self) -> usize {
        match self {
            Self::Kept(body) => body.len(),
            Self::Lent(parts) => parts.iter().map(|part| part.len()).sum(),
        }
    }

    /// Copies all of it.
    fn copy_to(&self, bytes: &mut BytesMut) {
        match self {
            Self::Kept(Body(Pieces::Inline(length, inline))) => {
                bytes.extend_from_slice(&inline[..usize::from(*length)]);
            }
            Self::Kept(Body(Pieces::One(piece))) => bytes.extend_from_slice(piece),
            Self::Kept(Body(Pieces::Many(pieces))) => {
                pieces
                    .iter()
                    .for_each(|piece| bytes.extend_from_slice(piece));
            }
            Self::Lent(parts) => parts.iter().for_each(|part| bytes.extend_from_slice(part)),
        }
    }

    /// The same behind `copied`, as pieces: only small ones are copied.
    fn into_pieces(self, mut copied: BytesMut) -> Vec<Bytes> {
        let mut all = Vec::new();
        let pieces = match self {
            Self::Kept(Body(Pieces::One(piece))) => vec![piece],
            Self::Kept(Body(Pieces::Many(pieces))) => pieces,
            Self::Kept(Body(Pieces::Inline(..))) | Self::Lent(_) => {
                self.copy_to(&mut copied);
                Vec::new()
            }
        };
        for piece in pieces {
            if piece.len() <= limits::COALESCE_BYTES_MAX {
                copied.extend_from_slice(&piece);
            } else {
                if !copied.is_empty() {
                    all.push(copied.split().freeze());
                }
                all.push(piece);
            }
        }
        if !copied.is_empty() {
            all.push(copied.freeze());
        }
        all
    }
}

/// Frames that are written together.
#[derive(Debug)]
struct Round<T> {
    pieces: VecDeque<Bytes>,
    bytes: usize,
    ticket: T,
}

/// What waits between those who answer and the one who writes.
#[derive(Debug)]
pub(super) struct Outbox<T> {
    queue: Mutex<Queue<T>>,
    /// Bytes queued or being written.
    bytes: AtomicUsize,
    wake: Notify,
}

#[derive(Debug)]
struct Queue<T> {
    rounds: VecDeque<Round<T>>,
    /// What was copied for the last round and follows its pieces.
    copied: BytesMut,
    /// Nothing more is taken in.
    is_closed: bool,
}

impl<T: Ticket> Queue<T> {
    /// Adds a frame of so many bytes; who calls adds those.
    fn open_round(&mut self, bytes: usize, ticket: T) {
        match self.rounds.back_mut() {
            Some(round) if round.bytes < limits::WRITE_ROUND_BYTES => {
                round.bytes += bytes;
                round.ticket.join(ticket);
            }
            _ => {
                self.end_copied();
                self.rounds.push_back(Round {
                    pieces: VecDeque::new(),
                    bytes,
                    ticket,
                });
            }
        }
    }

    /// Makes what was copied a piece of the last round.
    fn end_copied(&mut self) {
        if let Some(round) = self.rounds.back_mut()
            && !self.copied.is_empty()
        {
            round.pieces.push_back(self.copied.split().freeze());
        }
    }
}

impl<T> Default for Outbox<T> {
    fn default() -> Self {
        Self {
            queue: Mutex::new(Queue {
                rounds: VecDeque::new(),
                copied: BytesMut::new(),
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
            queue.copied = BytesMut::new();
            std::mem::take(&mut queue.rounds)
        };
        self.wake.notify_one();
        drop(forgotten);
    }
}

impl<T: Ticket> Outbox<T> {
    /// Queues a frame; gives its ticket back when nothing will be written any more.
    pub fn push(&self, frame: Outgoing<'_, T>) -> Result<(), T> {
        let body_bytes = frame.body.len();
        let prefix = frame.header.encode(body_bytes);
        let bytes = prefix.len() + body_bytes;
        if body_bytes <= limits::COALESCE_BYTES_MAX {
            return self.add(bytes, frame.ticket, |queue| {
                queue.copied.extend_from_slice(&prefix);
                frame.body.copy_to(&mut queue.copied);
                if queue.copied.len() >= limits::COPIED_BYTES_MAX {
                    queue.end_copied();
                }
            });
        }
        // Nobody waits while a long one is lined up.
        let pieces = frame.body.into_pieces(BytesMut::from(&prefix[..]));
        self.add(bytes, frame.ticket, |queue| {
            queue.end_copied();
            if let Some(round) = queue.rounds.back_mut() {
                round.pieces.extend(pieces);
            }
        })
    }

    fn add(&self, bytes: usize, ticket: T, add: impl FnOnce(&mut Queue<T>)) -> Result<(), T> {
        let was_empty = {
            let mut queue = self.lock();
            if queue.is_closed {
                return Err(ticket);
            }
            let was_empty = queue.rounds.is_empty();
            self.bytes.fetch_add(bytes, Ordering::Relaxed);
            queue.open_round(bytes, ticket);
            add(&mut queue);
            was_empty
        };
        if was_empty {
            self.wake.notify_one();
        }
        Ok(())
    }

    /// What is to be written next; `Err` with whether more can come if that is nothing.
    fn take(&self) -> Result<Round<T>, bool> {
        let mut queue = self.lock();
        if queue.rounds.len() == 1 {
            queue.end_copied();
        }
        if let Some(round) = queue.rounds.pop_front() {
            return Ok(round);
        }
        // Nothing is kept for a connection that only lies there.
        queue.rounds = VecDeque::new();
        queue.copied = BytesMut::new();
        Err(!queue.is_closed)
    }
}

/// Writes an outbox to one half of a socket.
#[derive(Debug)]
pub(super) struct Writer {
    half: OwnedWriteHalf,
    timeout: Duration,
    server: Option<Arc<Context>>,
}

impl Writer {
    pub fn new(half: OwnedWriteHalf) -> Self {
        Self {
            half,
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

    /// Writes until the outbox is finished or the socket fails. `taken` sees the ticket of frames before
    /// any byte of them is written. Either way the outbox takes nothing in afterwards.
    pub async fn run<T: Ticket>(
        mut self,
        outbox: &Outbox<T>,
        taken: impl FnMut(&T),
    ) -> io::Result<()> {
        let _abort = AbortAtEnd(outbox);
        self.write_rounds(outbox, taken).await?;
        self.half.shutdown().await
    }

    async fn write_rounds<T: Ticket>(
        &mut self,
        outbox: &Outbox<T>,
        mut taken: impl FnMut(&T),
    ) -> io::Result<()> {
        loop {
            match outbox.take() {
                Ok(mut round) => {
                    taken(&round.ticket);
                    self.write(&mut round.pieces).await?;
                    outbox.bytes.fetch_sub(round.bytes, Ordering::Relaxed);
                }
                Err(true) => outbox.wake.notified().await,
                Err(false) => return Ok(()),
            }
        }
    }

    async fn write(&self, pieces: &mut VecDeque<Bytes>) -> io::Result<()> {
        let mut pace = None;
        tokio::task::coop::consume_budget().await;
        while !pieces.is_empty() {
            match self.try_write(pieces) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(bytes) => {
                    self.count(bytes, &mut pace);
                    advance(pieces, bytes);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.wait(pace.get_or_insert_with(|| Pace::new(self.timeout)))
                        .await?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn try_write(&self, pieces: &VecDeque<Bytes>) -> io::Result<usize> {
        let mut slices = [IoSlice::new(&[]); limits::WRITE_PIECES_MAX];
        let count = pieces.len().min(slices.len());
        for (slice, piece) in slices.iter_mut().zip(pieces) {
            *slice = IoSlice::new(piece);
        }
        self.half.try_write_vectored(&slices[..count])
    }

    fn count(&self, bytes: usize, pace: &mut Option<Pace>) {
        if let Some(pace) = pace {
            pace.moved(bytes);
            pace.extend(self.timeout);
        }
        if let Some(server) = &self.server {
            server.traffic.sent(bytes);
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

/// Forgets the first `bytes` bytes.
fn advance(pieces: &mut VecDeque<Bytes>, mut bytes: usize) {
    while let Some(piece) = pieces.front_mut() {
        if bytes < piece.len() {
            piece.advance(bytes);
            return;
        }
        bytes -= piece.len();
        pieces.pop_front();
    }
}

/// However the writing ends, nobody queues for it any more.
struct AbortAtEnd<'a, T>(&'a Outbox<T>);

impl<T> Drop for AbortAtEnd<'_, T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
