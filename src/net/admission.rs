//! How many requests, and how many bytes, a connection may have in flight.

use std::mem::take;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::limits;
use crate::net::budget::Pool;
use crate::net::context::Context;
use crate::net::outbox::{self, Outbox};
use crate::net::reader::Heard;
use crate::net::streams::Streams;

/// What the two tasks of a connection and its unanswered requests share.
#[derive(Debug)]
pub(super) struct Shared {
    pub outbox: Outbox<Option<Ticket>>,
    pub server: Arc<Context>,
    unanswered: AtomicUsize,
    request_bytes: AtomicUsize,
    answers: Pool,
    /// Unanswered requests that have their memory from the spare pool.
    spare_answers: AtomicUsize,
    /// Requests that wait for news and would whatever others do.
    polls_kept: AtomicUsize,
    /// The reader waits for one of the above to fall.
    reader_waits: AtomicBool,
    released: Notify,
    pub streams: Streams,
    /// What was received.
    pub heard: Heard,
    /// Ends long polls and streams: the server stops, or the client sends nothing more.
    pub polls: CancellationToken,
    /// The connection is over.
    pub gone: CancellationToken,
}

impl Shared {
    pub fn new(server: Arc<Context>) -> Arc<Self> {
        Arc::new(Self {
            outbox: Outbox::default(),
            unanswered: AtomicUsize::new(0),
            request_bytes: AtomicUsize::new(0),
            answers: Pool::new(limits::CONNECTION_ANSWER_BYTES_MAX),
            spare_answers: AtomicUsize::new(0),
            polls_kept: AtomicUsize::new(0),
            reader_waits: AtomicBool::new(false),
            released: Notify::new(),
            streams: Streams::default(),
            heard: Heard::default(),
            polls: server.stop.child_token(),
            gone: server.cut.child_token(),
            server,
        })
    }

    /// Waits until `condition` holds; it is looked at whenever a ticket is let go.
    async fn until(&self, condition: impl Fn(&Self) -> bool) {
        if condition(self) {
            return;
        }
        while !condition(self) {
            let released = self.released.notified();
            self.reader_waits.store(true, Ordering::SeqCst);
            if !condition(self) {
                released.await;
            }
        }
        self.reader_waits.store(false, Ordering::SeqCst);
    }

    fn tell_reader(&self) {
        if self.reader_waits.load(Ordering::SeqCst) {
            self.released.notify_one();
        }
    }

    /// Waits until nothing is unanswered.
    pub async fn until_idle(&self) {
        self.until(|shared| shared.unanswered.load(Ordering::SeqCst) == 0)
            .await;
    }

    /// Admits a request of so many bytes, waiting for room.
    pub async fn admit(self: &Arc<Self>, bytes: usize) -> Ticket {
        let bytes = bytes.max(limits::REQUEST_BYTES_MIN);
        self.until(|shared| {
            let in_flight = shared.request_bytes.load(Ordering::SeqCst);
            let unanswered = shared.unanswered.load(Ordering::SeqCst);
            unanswered < limits::REQUESTS_UNANSWERED_MAX + shared.streams.count()
                && in_flight + bytes <= limits::CONNECTION_BYTES_IN_FLIGHT_MAX
                && shared.outbox.bytes() <= limits::CONNECTION_ANSWER_BYTES_MAX
        })
        .await;
        self.unanswered.fetch_add(1, Ordering::SeqCst);
        self.request_bytes.fetch_add(bytes, Ordering::SeqCst);
        let mut ticket = Ticket::of_part(self);
        (ticket.requests, ticket.request_bytes) = (1, bytes);
        ticket.request_taken = self.server.budget.requests.take(bytes).await.keep();
        ticket
    }
}

/// What an unanswered request or a part of an answer holds, or several of one connection together; let go when dropped.
#[derive(Debug)]
pub(super) struct Ticket {
    pub shared: Arc<Shared>,
    requests: usize,
    /// Those of the requests that are answered with a stream.
    streams: usize,
    /// Counted on the connection.
    request_bytes: usize,
    /// Taken from the process.
    request_taken: usize,
    /// Taken from both.
    answer_bytes: usize,
    /// Requests that have something from the spare pool, and how much.
    spares: usize,
    spare_bytes: usize,
    /// Taken from what polls may hold.
    poll_bytes: usize,
    /// Requests that wait without that.
    polls_kept: usize,
}

impl Ticket {
    /// That of an answer which does not end its request, so far without memory.
    pub fn of_part(shared: &Arc<Shared>) -> Self {
        Self {
            shared: shared.clone(),
            requests: 0,
            streams: 0,
            request_bytes: 0,
            request_taken: 0,
            answer_bytes: 0,
            spares: 0,
            spare_bytes: 0,
            poll_bytes: 0,
            polls_kept: 0,
        }
    }

    /// Whether the request may wait for news, for as long as it likes.
    pub fn may_wait(&mut self) -> bool {
        if self.poll_bytes > 0 || self.polls_kept > 0 {
            return true;
        }
        let bytes = self.request_bytes.max(limits::POLL_BYTES_MIN);
        let kept = &self.shared.polls_kept;
        if bytes == limits::POLL_BYTES_MIN {
            if kept.fetch_add(1, Ordering::SeqCst) < limits::POLLS_KEPT {
                self.polls_kept = 1;
                return true;
            }
            kept.fetch_sub(1, Ordering::SeqCst);
        }
        let may = self.shared.server.budget.polls.try_take(bytes);
        if may {
            self.poll_bytes = bytes;
        }
        may
    }

    /// It does not wait for news any more.
    fn waited(&mut self) {
        let polls = &self.shared.server.budget.polls;
        polls.give(take(&mut self.poll_bytes));
        let kept = take(&mut self.polls_kept);
        self.shared.polls_kept.fetch_sub(kept, Ordering::SeqCst);
    }

    /// The request is answered with a stream: it holds no memory for as long as that lasts, and makes room
    /// for another one.
    pub fn become_stream(&mut self) {
        let shared = &self.shared;
        self.streams = 1;
        shared.streams.counted();
        shared
            .server
            .budget
            .requests
            .give(take(&mut self.request_taken));
        let bytes = take(&mut self.request_bytes);
        shared.request_bytes.fetch_sub(bytes, Ordering::SeqCst);
        shared.tell_reader();
    }

    /// Makes the reservation `bytes`. What was reserved before is given back first: a holder of
    /// answer memory never waits for more of it.
    pub async fn reserve_answer(&mut self, bytes: usize) {
        let (own, process) = (&self.shared.answers, &self.shared.server.budget.answers);
        let bytes = bytes.min(own.capacity()).min(process.capacity());
        if bytes <= self.answer_bytes {
            return;
        }
        self.give_answer(self.answer_bytes);
        self.give_spare();
        let (own, process) = (&self.shared.answers, &self.shared.server.budget.answers);
        let own = own.take(bytes).await;
        let process = process.take(bytes).await;
        self.answer_bytes = own.keep();
        process.keep();
    }

    /// Reserves `bytes` or, where the memory for answers is used up, what the spare pool has for one connection,
    /// and waits only where that is used up as well. Tells how much it is.
    pub async fn reserve_up_to(&mut self, bytes: usize) -> usize {
        let (own, budget) = (&self.shared.answers, &self.shared.server.budget);
        let bytes = bytes.min(own.capacity()).min(budget.answers.capacity());
        if own.try_take(bytes) {
            if budget.answers.try_take(bytes) {
                self.answer_bytes += bytes;
                return bytes;
            }
            own.give(bytes);
            if self.take_spare(bytes.min(limits::SPARE_ANSWER_BYTES)) {
                return self.spare_bytes;
            }
        }
        self.reserve_answer(bytes).await;
        self.answer_bytes
    }

    fn take_spare(&mut self, bytes: usize) -> bool {
        let (taken, spare) = (&self.shared.spare_answers, &self.shared.server.budget.spare);
        let has_room = taken.fetch_add(1, Ordering::SeqCst) < limits::SPARE_ANSWERS_MAX;
        if has_room && spare.try_take(bytes) {
            (self.spares, self.spare_bytes) = (1, bytes);
            return true;
        }
        taken.fetch_sub(1, Ordering::SeqCst);
        false
    }

    /// The answer has that size: gives back what it does not need, takes what it does if it is there.
    pub fn settle_answer(&mut self, bytes: usize) {
        self.waited();
        if bytes < self.answer_bytes {
            self.give_answer(self.answer_bytes - bytes);
        } else if bytes > self.answer_bytes.max(limits::ANSWER_BYTES_UNRESERVED_MAX)
            && bytes > self.spare_bytes
        {
            let more = bytes - self.answer_bytes;
            let (own, process) = (&self.shared.answers, &self.shared.server.budget.answers);
            if own.try_take(more) {
                if process.try_take(more) {
                    self.answer_bytes = bytes;
                } else {
                    own.give(more);
                }
            }
        }
    }

    fn give_answer(&mut self, bytes: usize) {
        if bytes == 0 {
            return;
        }
        self.answer_bytes -= bytes;
        // In the other order than they are taken: a connection never has more of the process than of its own.
        self.shared.server.budget.answers.give(bytes);
        self.shared.answers.give(bytes);
    }

    fn give_spare(&mut self) {
        if self.spares == 0 {
            return;
        }
        let shared = &self.shared;
        let spare = &shared.server.budget.spare;
        spare.give(take(&mut self.spare_bytes));
        let spares = take(&mut self.spares);
        shared.spare_answers.fetch_sub(spares, Ordering::SeqCst);
    }
}

impl outbox::Ticket for Option<Ticket> {
    fn join(&mut self, later: Self) {
        match (self, later) {
            (Some(all), Some(mut later)) => {
                all.requests += take(&mut later.requests);
                all.streams += take(&mut later.streams);
                all.request_bytes += take(&mut later.request_bytes);
                all.request_taken += take(&mut later.request_taken);
                all.answer_bytes += take(&mut later.answer_bytes);
                all.spares += take(&mut later.spares);
                all.spare_bytes += take(&mut later.spare_bytes);
                all.poll_bytes += take(&mut later.poll_bytes);
                all.polls_kept += take(&mut later.polls_kept);
            }
            (none @ None, later) => *none = later,
            (Some(_), None) => {}
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.waited();
        // It may have been joined to another one.
        if self.requests == 0 && self.answer_bytes == 0 && self.spares == 0 {
            return;
        }
        self.give_answer(self.answer_bytes);
        self.give_spare();
        let shared = &self.shared;
        shared.server.budget.requests.give(self.request_taken);
        shared
            .request_bytes
            .fetch_sub(self.request_bytes, Ordering::SeqCst);
        if self.streams > 0 {
            // Before the requests: who admits never finds more room than there is.
            shared.streams.uncounted(self.streams);
        }
        shared.unanswered.fetch_sub(self.requests, Ordering::SeqCst);
        shared.tell_reader();
    }
}

#[cfg(test)]
mod tests {
    use tokio_util::task::TaskTracker;

    use super::*;
    use crate::net::budget::Budget;
    use crate::net::context::{Timeouts, Traffic};
    use crate::net::outbox::Ticket as _;

    fn shared() -> Arc<Shared> {
        shared_with(Budget::default())
    }

    fn shared_with(budget: Budget) -> Arc<Shared> {
        Shared::new(Arc::new(Context {
            budget: Arc::new(budget),
            traffic: Arc::new(Traffic::default()),
            timeouts: Timeouts::default(),
            stop: CancellationToken::new(),
            cut: CancellationToken::new(),
            tracker: TaskTracker::new(),
        }))
    }

    #[tokio::test]
    async fn what_waits_for_news_holds_half_of_the_memory_for_requests() {
        let budget = Budget::new(64 * limits::POLL_BYTES_MIN, limits::KIB);
        let shared = shared_with(budget);
        let mut kept = Vec::new();
        for _ in 0..limits::POLLS_KEPT {
            let mut ticket = shared.admit(1).await;
            assert!(ticket.may_wait() && ticket.may_wait());
            kept.push(ticket);
        }
        let mut waiting = Vec::new();
        for _ in 0..32 {
            let mut ticket = shared.admit(1).await;
            assert!(
                ticket.may_wait() && ticket.may_wait(),
                "it has room already"
            );
            waiting.push(ticket);
        }
        let mut late = shared.admit(1).await;
        assert!(!late.may_wait());
        waiting.pop().expect("32").settle_answer(10);
        assert!(late.may_wait(), "one has its answer");
        let mut large = shared.admit(2 * limits::POLL_BYTES_MIN).await;
        drop(waiting.pop());
        assert!(!large.may_wait(), "it counts as what it is");
        drop(waiting);
        assert!(large.may_wait());
        let mut again = shared.admit(1).await;
        drop((late, large, kept.pop()));
        assert!(again.may_wait());
        assert_eq!(again.poll_bytes, 0, "it would whatever others do");
        drop((again, kept));
        assert_eq!(shared.polls_kept.load(Ordering::SeqCst), 0);
        let polls = &shared.server.budget.polls;
        assert_eq!(polls.free_bytes(), polls.capacity());
    }

    #[tokio::test]
    async fn joined_tickets_let_go_of_everything_at_once() {
        let shared = shared();
        let budget = shared.server.budget.clone();
        let free = || {
            let pools = [&budget.requests, &budget.answers, &budget.spare];
            pools.map(Pool::free_bytes)
        };
        let all = free();
        let mut joined = None;
        for bytes in [1, 1_000, 100_000] {
            let mut ticket = shared.admit(bytes).await;
            ticket.reserve_answer(bytes).await;
            joined.join(Some(ticket));
        }
        let mut spare = shared.admit(1).await;
        assert!(spare.take_spare(limits::SPARE_ANSWER_BYTES));
        joined.join(Some(spare));
        joined.join(None);
        assert_eq!(shared.unanswered.load(Ordering::SeqCst), 4);
        let held = 2 * limits::REQUEST_BYTES_MIN + 101_000;
        assert_eq!(shared.request_bytes.load(Ordering::SeqCst), held);
        let taken = [held, 101_001, limits::SPARE_ANSWER_BYTES];
        let left: Vec<usize> = all.iter().zip(taken).map(|(a, t)| a - t).collect();
        assert_eq!(free()[..], left[..]);
        drop(joined);
        assert_eq!(free(), all);
        assert_eq!(shared.unanswered.load(Ordering::SeqCst), 0);
        assert_eq!(shared.request_bytes.load(Ordering::SeqCst), 0);
        assert_eq!(shared.spare_answers.load(Ordering::SeqCst), 0);
        tokio::time::timeout(limits::CLOSE_TIMEOUT, shared.until_idle())
            .await
            .expect("nothing is unanswered");
    }
}
