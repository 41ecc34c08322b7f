//! Answering one request with many frames.
//!
//! A service turns the [`Reply`] of a request into an [`Outlet`] and runs, as work that only waits
//! ([`Handling::Wait`](crate::net::Handling::Wait)), a loop: wait for credit, wait for something to send, take
//! memory for it ([`Outlet::place`]), read it, push it. Each step may be dropped: what it holds is given back,
//! and the stream ends as a dropped reply does. The invariants are those of [`streams`](super::streams).

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::net::admission::Ticket;
use crate::net::body::Body;
use crate::net::outbox::Outgoing;
use crate::net::service::Reply;
use crate::net::streams::{Account, Ending, Listed};
use crate::protocol::api::Api;
use crate::protocol::data::Credit;
use crate::protocol::error::ApiError;

/// The duty to answer one request again and again, and then to end that. Dropping it ends it as dropping
/// a [`Reply`] does.
#[derive(Debug)]
pub struct Outlet {
    // Dropped first: what ends a stream comes after everything else of it.
    listed: Listed,
    account: Arc<watch::Sender<Account>>,
    reply: Reply,
}

/// Memory for one answer of a stream.
#[derive(Debug)]
pub struct Place {
    ticket: Ticket,
    /// When there was something to send.
    began: Instant,
}

impl Place {
    /// Waits until an answer may be held in memory, as [`Reply::reserve_up_to`] does; tells how long it may be.
    pub async fn reserve_up_to(&mut self, bytes: usize) -> usize {
        self.ticket.reserve_up_to(bytes).await
    }

    /// Waits for memory for all of it; what was reserved before is given back first.
    pub async fn reserve(&mut self, bytes: usize) {
        self.ticket.reserve_answer(bytes).await;
    }
}

impl Reply {
    /// Answers with a stream from here on, which has that credit and asks for a sign of life so often. `None`: there
    /// are too many, and that was answered.
    pub fn into_outlet(mut self, credit: Credit, keep_alive: Duration) -> Option<Outlet> {
        let shared = self.ticket()?.shared.clone();
        match Listed::new(&shared, self.header(), (credit, keep_alive)) {
            Ok((listed, account)) => {
                self.ticket()?.become_stream();
                listed.greet();
                Some(Outlet {
                    listed,
                    account,
                    reply: self,
                })
            }
            Err(error) => {
                self.error(&error);
                None
            }
        }
    }
}

impl Outlet {
    /// Waits until something may be sent; tells how many records.
    pub async fn credit(&self) -> u64 {
        self.until(Account::has_credit).await.records()
    }

    /// Runs `work`, unless the stream has to end.
    pub async fn unless_ended<T>(&self, work: impl Future<Output = T>) -> Result<T, Ending> {
        let ended = self.until(|account| account.ending.is_some());
        tokio::select! {
            biased;
            account = ended => Err(account.ending.unwrap_or(Ending::Unwanted)),
            done = work => Ok(done),
        }
    }

    async fn until(&self, condition: impl Fn(&Account) -> bool) -> Account {
        let account = *self.account.borrow();
        if condition(&account) {
            return account;
        }
        let mut changes = self.account.subscribe();
        let met = changes.wait_for(|account| condition(account)).await;
        *met.expect("its sender is held here")
    }

    /// A place for an answer, without memory so far. To be taken when there is something to send: what it
    /// takes from here on is counted.
    pub fn place(&self) -> Place {
        Place {
            ticket: Ticket::of_part(self.listed.shared()),
            began: Instant::now(),
        }
    }

    /// Sends an answer that more follow. Never waits.
    pub fn push(&self, place: Place, body: impl Into<Body>, records: u64) {
        let Place { mut ticket, began } = place;
        let (shared, body) = (self.listed.shared(), body.into());
        let bytes = body.len();
        debug_assert!(bytes > 0, "an empty answer is a keep-alive");
        let spent = Credit {
            bytes: bytes as u64,
            records,
        };
        // Nobody waits for there being less.
        self.account.send_if_modified(|account| {
            account.spend(spent);
            false
        });
        ticket.settle_answer(bytes);
        let traffic = &shared.server.traffic;
        traffic.answered(Api::Stream as u16, began.elapsed());
        let header = self.reply.header().answer_with_more();
        let frame = Outgoing::new(header, body, Some(ticket));
        // Refused when the connection is gone: nobody is left to be told.
        let _ = shared.outbox.push(frame);
    }

    /// Ends it because it has to end.
    pub fn end(self, ending: Ending) {
        match ending {
            Ending::Unwanted => {
                let Self { listed, reply, .. } = self;
                drop(listed);
                reply.answer(Body::copy(&[]));
            }
            Ending::Silent(silence) => self.error(&ApiError::ClientSilent {
                silent_ms: u64::try_from(silence.as_millis()).unwrap_or(u64::MAX),
            }),
        }
    }

    /// Ends it with an error.
    pub fn error(self, error: &ApiError) {
        let Self { listed, reply, .. } = self;
        drop(listed);
        reply.error(error);
    }
}
