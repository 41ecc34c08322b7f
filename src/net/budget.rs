//! What the servers of a process share: the memory of requests and answers in
//! flight, counted in bytes, and connections.
//!
//! Two pools per process, one for requests and one for answers, so that the
//! order "request, then answer" is the only one in which memory is waited for.
//! Waiting is first come, first served: a large request is not starved by small
//! ones. An answer that may be shorter than was asked for does not wait behind
//! others: where the pool is used up it gets a little of a third one, of which no
//! connection gets much, so that clients who take no answers do not hold up those who do.
//!
//! A poll holds its request's bytes for as long as it waits for news, a minute perhaps. Those that wait may hold half of
//! what there is for requests; one more is answered almost at once, so that polls never keep out everything else.
//!
//! Whoever holds bytes of a pool and waits for its own socket looks at
//! [`Pool::is_pressed`] every [`PACE_EVERY`](limits::PACE_EVERY). While others
//! wait, a transfer that moved less than [`PACE_BYTES_MIN`](limits::PACE_BYTES_MIN)
//! is cut off; otherwise it has the patience of the ordinary timeouts.
//!
//! Connections are counted here too, over all servers of the process: each takes
//! a file descriptor, and the store must never find that none is left.
//!
//! The count is of bytes asked for; what the allocator adds, or a buffer has beyond its frames, is not in it. An
//! answer larger than its reservation is not refused but goes uncounted where
//! the pool is empty: its connection takes no further request until it is written.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::sync::Semaphore;

use crate::buffers::Buffers;
use crate::figures::{Collected, catalogue};
use crate::limits;

/// The pools of a process.
#[derive(Debug)]
pub struct Budget {
    /// Requests, from admission until their answers are written.
    pub requests: Pool,
    /// Answers, from the moment they are asked for until they are written.
    pub answers: Pool,
    /// Short answers while `answers` is used up; nobody waits for it.
    pub spare: Pool,
    /// The part of `requests` that polls may hold while there is nothing to answer with; nobody waits for it.
    pub polls: Pool,
    /// What requests are received into.
    pub(super) buffers: Arc<Buffers>,
    /// Connections open now.
    connections: AtomicUsize,
    /// How many there may be.
    connections_max: usize,
}

impl Default for Budget {
    fn default() -> Self {
        Self::new(
            limits::PROCESS_REQUEST_BYTES_MAX,
            limits::PROCESS_ANSWER_BYTES_MAX,
        )
    }
}

impl Budget {
    /// A budget of so many bytes of requests and of answers.
    pub fn new(request_bytes: usize, answer_bytes: usize) -> Self {
        Self {
            requests: Pool::new(request_bytes),
            answers: Pool::new(answer_bytes),
            spare: Pool::new(limits::PROCESS_SPARE_BYTES_MAX),
            polls: Pool::new(request_bytes / 2),
            buffers: Arc::new(Buffers::new(limits::RECEIVE_BUFFERS_KEPT_BYTES)),
            connections: AtomicUsize::new(0),
            connections_max: connections_by_descriptors(),
        }
    }

    /// How many connections the servers of the process may have together.
    pub fn connections_max(&self) -> usize {
        self.connections_max
    }

    /// Tells how much of it is in use.
    pub fn collect(&self, into: &mut Collected) {
        into.number(&catalogue::CONNECTIONS_MAX, self.connections_max as u64);
        let pools = [
            ("requests", &self.requests),
            ("answers", &self.answers),
            ("spare", &self.spare),
            ("polls", &self.polls),
        ];
        for (name, pool) in pools {
            let mut tell = |metric, number: usize| {
                into.family(metric).number([name.into()], number as u64);
            };
            tell(&catalogue::MEMORY_LIMIT, pool.capacity);
            tell(&catalogue::MEMORY_USED, pool.capacity - pool.free_bytes());
            tell(&catalogue::MEMORY_WAITING, pool.waiting());
        }
        let (kept, kept_max) = self.buffers.kept_bytes();
        let mut tell = |metric, number: usize| {
            into.family(metric)
                .number(["buffers".into()], number as u64);
        };
        tell(&catalogue::MEMORY_LIMIT, kept_max);
        tell(&catalogue::MEMORY_USED, kept);
    }

    /// Whether there may be one more.
    pub(super) fn has_connection(&self) -> bool {
        self.connections.load(Ordering::Relaxed) < self.connections_max
    }

    pub(super) fn connected(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn disconnected(&self) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Lets this process have as many file descriptors as it may; the usual 1,024 are for programs that wait with
/// `select`.
pub fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let raised = Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        };
        // Where it is not allowed, there are fewer connections.
        let _ = setrlimit(Resource::Nofile, raised);
    }
}

/// What fits into this process's file descriptors beside everything else.
fn connections_by_descriptors() -> usize {
    let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let left = usize::try_from(descriptors)
        .unwrap_or(usize::MAX)
        .saturating_sub(limits::DESCRIPTORS_KEPT);
    left.clamp(limits::CONNECTIONS_MIN, limits::CONNECTIONS_MAX)
}

/// A number of bytes that can be taken and given back.
#[derive(Debug)]
pub struct Pool {
    free: Semaphore,
    capacity: usize,
    waiting: AtomicUsize,
}

impl Pool {
    /// A pool of `capacity` bytes, below 4 GiB.
    pub fn new(capacity: usize) -> Self {
        assert!(u32::try_from(capacity).is_ok(), "a pool is below 4 GiB");
        Self {
            free: Semaphore::new(capacity),
            capacity,
            waiting: AtomicUsize::new(0),
        }
    }

    /// Takes bytes, waiting for them in turn. More than the whole pool counts as the whole pool.
    pub async fn take(&self, bytes: usize) -> Taken<'_> {
        let bytes = bytes.min(self.capacity);
        if self.try_take(bytes) {
            return Taken { pool: self, bytes };
        }
        let _waiting = Waiting::new(&self.waiting);
        self.free
            .acquire_many(permits(bytes))
            .await
            .expect("the semaphore is never closed")
            .forget();
        Taken { pool: self, bytes }
    }

    /// Takes bytes if they are there.
    pub fn try_take(&self, bytes: usize) -> bool {
        match self.free.try_acquire_many(permits(bytes)) {
            Ok(permit) => {
                permit.forget();
                true
            }
            Err(_) => false,
        }
    }

    /// Gives bytes back.
    pub fn give(&self, bytes: usize) {
        if bytes > 0 {
            self.free.add_permits(bytes);
        }
    }

    /// Bytes in all.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Bytes that nobody holds.
    pub fn free_bytes(&self) -> usize {
        self.free.available_permits()
    }

    /// Whether somebody waits.
    pub fn is_pressed(&self) -> bool {
        self.waiting() > 0
    }

    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }
}

fn permits(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

/// Bytes taken; given back when dropped unless kept.
#[derive(Debug)]
pub struct Taken<'a> {
    pool: &'a Pool,
    bytes: usize,
}

impl Taken<'_> {
    /// How many there are.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Hands them to the caller, who gives them back; returns how many.
    pub fn keep(mut self) -> usize {
        std::mem::take(&mut self.bytes)
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.pool.give(self.bytes);
    }
}

struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Watches a transfer that has begun and cannot go on: is it still worth its memory?
#[derive(Debug)]
pub(super) struct Pace {
    deadline: Instant,
    window_end: Instant,
    moved: usize,
}

impl Pace {
    /// A transfer that begins to wait now and may take, or stall, for `patience`.
    pub fn new(patience: Duration) -> Self {
        let now = Instant::now();
        Self {
            deadline: now + patience,
            window_end: now + limits::PACE_EVERY,
            moved: 0,
        }
    }

    /// Bytes moved.
    pub fn moved(&mut self, bytes: usize) {
        self.moved += bytes;
    }

    /// Starts the patience anew: for transfers that may take any time but not stall.
    pub fn extend(&mut self, patience: Duration) {
        self.deadline = Instant::now() + patience;
    }

    /// When to look again.
    pub fn next_look(&self) -> tokio::time::Instant {
        self.deadline.min(self.window_end).into()
    }

    /// Whether to give up, asked at [`Pace::next_look`] or later.
    pub fn is_too_slow(&mut self, pressed: bool) -> bool {
        let now = Instant::now();
        if now >= self.deadline {
            return true;
        }
        if now < self.window_end {
            return false;
        }
        let moved = std::mem::take(&mut self.moved);
        self.window_end = now + limits::PACE_EVERY;
        pressed && moved < limits::PACE_BYTES_MIN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn bytes_are_taken_in_turn_and_given_back() {
        let pool = Pool::new(10);
        let first = pool.take(8).await;
        assert!(!pool.try_take(3) && !pool.is_pressed());
        let mut second = Box::pin(pool.take(100));
        tokio::select! {
            biased;
            _ = &mut second => panic!("there was not enough"),
            () = std::future::ready(()) => {}
        }
        assert!(pool.is_pressed());
        drop(first);
        assert_eq!(second.await.keep(), 10, "more than the pool is the pool");
        assert!(!pool.is_pressed());
        pool.give(10);
        assert_eq!(pool.free_bytes(), 10);
    }

    #[tokio::test]
    async fn a_dropped_waiter_holds_nothing() {
        let pool = Pool::new(10);
        let held = pool.take(10).await;
        let waiter = tokio::time::timeout(Duration::from_millis(5), pool.take(5)).await;
        assert!(waiter.is_err());
        assert!(!pool.is_pressed());
        drop(held);
        assert_eq!(pool.free_bytes(), 10);
    }

    #[test]
    fn a_pace_has_patience_until_others_wait() {
        let mut pace = Pace::new(Duration::from_secs(60));
        pace.window_end = Instant::now();
        assert!(!pace.is_too_slow(false));
        pace.window_end = Instant::now();
        assert!(pace.is_too_slow(true));
        pace.window_end = Instant::now();
        pace.moved(limits::PACE_BYTES_MIN);
        assert!(!pace.is_too_slow(true));
        pace.deadline = Instant::now();
        assert!(pace.is_too_slow(false));
    }
}
