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
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::AsyncWriteExt;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::Notify;

use crate::limits;
use crate::net::body::{Body, Parts};
use crate::net::budget::Pace;
use crate::net::context::Context;
use crate::protocol::frame::FrameHeader;

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
    /// Rounds written.
    rounds: AtomicU64,
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
            rounds: AtomicU64::new(0),
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

    /// How often something was written.
    pub fn rounds(&self) -> u64 {
        self.rounds.load(Ordering::Relaxed)
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
                    outbox.rounds.fetch_add(1, Ordering::Relaxed);
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

#[cfg(test)]
mod tests {
    use super::*;

    impl Ticket for Vec<u32> {
        fn join(&mut self, mut later: Self) {
            self.append(&mut later);
        }
    }

    fn push(outbox: &Outbox<Vec<u32>>, correlation: u32, body: Parts<'_>) -> Vec<u8> {
        let header = FrameHeader::request(1, 1, correlation);
        let mut bytes = header.encode(body.len()).to_vec();
        let mut copied = BytesMut::new();
        body.copy_to(&mut copied);
        bytes.extend(copied);
        let ticket = vec![correlation];
        let frame = Outgoing {
            header,
            body,
            ticket,
        };
        outbox.push(frame).expect("it is open");
        bytes
    }

    #[test]
    fn frames_of_all_kinds_are_one_round_in_their_order() {
        let outbox = Outbox::default();
        let large = Bytes::from(vec![7; limits::COALESCE_BYTES_MAX + 1]);
        let pieces = [&b"front"[..], &large, b"back", &large].map(Bytes::copy_from_slice);
        let long: &[u8] = &large;
        let bodies: [Parts<'_>; 6] = [
            Body::copy(b"small").into(),
            Body::from(large.clone()).into(),
            Parts::Lent(&[b"in ", b"two"]),
            Body::from(pieces.to_vec()).into(),
            Parts::Lent(&[b"long: ", long]),
            Body::copy(b"").into(),
        ];
        let mut expected = Vec::new();
        for (number, body) in (0..).zip(bodies) {
            expected.extend(push(&outbox, number, body));
        }
        assert_eq!(outbox.bytes(), expected.len());
        let round = outbox.take().expect("there is one");
        assert_eq!(round.bytes, expected.len());
        assert_eq!(round.ticket, [0, 1, 2, 3, 4, 5]);
        assert_eq!(Vec::from(round.pieces).concat(), expected);
        assert_eq!(outbox.take().err(), Some(true), "more can come");
    }

    #[test]
    fn a_round_ends_where_it_is_long_enough() {
        let outbox = Outbox::default();
        let body = [1; limits::COALESCE_BYTES_MAX];
        let in_one = limits::WRITE_ROUND_BYTES.div_ceil(12 + body.len()) as u32;
        let mut expected = Vec::new();
        for number in 0..=in_one {
            expected.extend(push(&outbox, number, Parts::Lent(&[&body])));
        }
        let first = outbox.take().expect("there is one");
        assert_eq!(first.ticket, (0..in_one).collect::<Vec<_>>());
        let second = outbox.take().expect("there is another one");
        assert_eq!(second.ticket, [in_one]);
        let pieces = [Vec::from(first.pieces), Vec::from(second.pieces)].concat();
        assert_eq!(pieces.concat(), expected);
    }

    #[test]
    fn what_is_finished_is_still_written_and_what_is_aborted_is_not() {
        let outbox = Outbox::default();
        push(&outbox, 1, Body::copy(b"one").into());
        outbox.finish();
        let late = Outgoing::new(FrameHeader::request(1, 1, 2), Body::copy(b""), vec![2]);
        assert_eq!(outbox.push(late), Err(vec![2]));
        assert_eq!(outbox.take().expect("it is written").ticket, [1]);
        assert_eq!(outbox.take().err(), Some(false), "nothing can come");
        let outbox = Outbox::default();
        push(&outbox, 1, Body::copy(b"one").into());
        outbox.abort();
        assert_eq!(outbox.take().err(), Some(false));
    }
}
