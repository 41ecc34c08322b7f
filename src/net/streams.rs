//! The streams of one connection, on the server's side: what each may still send, and the signs of life.
//!
//! ```text
//!   client ── credit ──► account ──► Outlet ── frames ──► outbox ──► client
//!                           ▲           │                    ▲
//!                   one per stream      └ paid for like      └── keep-alives, one task
//!                                         any answer             per connection
//! ```
//!
//! Invariants:
//!
//! 1. **Nothing is sent without credit.** An answer goes out while there is credit in bytes and in records, and takes
//!    off what it has; so a client holds at most what it gave, and one answer more. Credit only adds up: a sum
//!    that would be too large is the largest there is.
//! 2. **Nothing is sent without memory**: what is on its way out is paid for out of the budgets for answers
//!    ([`budget`](crate::net::budget)), and let go when written. While a stream waits for credit or for something
//!    to send it holds no such memory, and while it waits for memory it holds none of it.
//! 3. **A stream ends once**, with a last answer or an error, and nothing of it follows: it leaves the list before
//!    its end is queued, and keep-alives are queued with the list locked.
//! 4. **Each side knows whether the other lives.** Where a connection with streams has sent nothing for the shortest
//!    time any of them asked for, one of them gets an empty answer; nothing is added to what is not taken. A client of
//!    which nothing is heard for [`CLIENT_SILENCE_MAX`](limits::CLIENT_SILENCE_MAX) loses its streams.
//!    Time is counted in looks: a process that was suspended itself does not blame the other side.
//!
//! | what happens | what becomes of a stream |
//! |---|---|
//! | the client dies, or the connection breaks | it is dropped with the connection |
//! | the client takes nothing from the socket | its answers use up credit or memory; then the client is cut off as slow readers are |
//! | the client gives no credit | it stays, holds no memory, and costs keep-alives |
//! | the client is suspended | it gets `ClientSilent`, whenever it reads that |
//! | the client closes its sending side | `Unanswered`, as for a long poll |
//! | the process has no memory for answers | it waits its turn, or gets a little, as fetches do |
//! | the server stops | `ShuttingDown` |
//! | what it reads is gone or goes elsewhere | the error that says so |

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};

use crate::limits;
use crate::net::admission::{Shared, Ticket};
use crate::net::outbox::{Outbox, Outgoing};
use crate::protocol::api::{Done, StreamCredit};
use crate::protocol::data::Credit;
use crate::protocol::error::ApiError;
use crate::protocol::frame::FrameHeader;

/// Why a stream ends although it could go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The client wants no more of it.
    Unwanted,
    /// Nothing was heard of the client for so long.
    Silent(Duration),
}

/// What a stream may still send. Below zero: an answer was larger than what was left.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Account {
    bytes: i64,
    records: i64,
    pub ending: Option<Ending>,
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

impl Account {
    fn give(&mut self, credit: Credit) {
        self.bytes = self.bytes.saturating_add(signed(credit.bytes));
        self.records = self.records.saturating_add(signed(credit.records));
    }

    pub fn spend(&mut self, spent: Credit) {
        self.bytes = self.bytes.saturating_sub(signed(spent.bytes));
        self.records = self.records.saturating_sub(signed(spent.records));
    }

    /// Whether something may be sent.
    pub fn has_credit(&self) -> bool {
        self.bytes > 0 && self.records > 0
    }

    /// Records that may be sent.
    pub fn records(&self) -> u64 {
        u64::try_from(self.records).unwrap_or(0)
    }
}

/// An open stream.
#[derive(Debug)]
struct Entry {
    header: FrameHeader,
    account: Arc<watch::Sender<Account>>,
}

#[derive(Debug, Default)]
struct Open {
    streams: HashMap<u32, Entry>,
    /// The shortest time that was asked for since there were none.
    keep_alive: Duration,
    /// There is a task that keeps them alive.
    is_tended: bool,
}

/// The streams of a connection.
#[derive(Debug, Default)]
pub(super) struct Streams {
    open: Mutex<Open>,
    /// Those whose end is not written yet.
    count: AtomicUsize,
    /// They are to be looked after more often than so far.
    sooner: Notify,
}

impl Streams {
    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many there are, counted until their last answer is written.
    pub fn count(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }

    pub fn counted(&self) {
        self.count.fetch_add(1, Ordering::SeqCst);
    }

    pub fn uncounted(&self, streams: usize) {
        self.count.fetch_sub(streams, Ordering::SeqCst);
    }

    /// Lets a stream send more, or ends it.
    pub fn credit(&self, given: StreamCredit) -> Result<Done, ApiError> {
        let StreamCredit {
            stream,
            bytes,
            records,
            end,
        } = given;
        let open = self.lock();
        let entry = open.streams.get(&stream);
        let entry = entry.ok_or(ApiError::UnknownStream { stream })?;
        entry.account.send_modify(|account| {
            account.give(Credit { bytes, records });
            if end {
                account.ending = Some(Ending::Unwanted);
            }
        });
        Ok(Done {})
    }

    fn close(&self, correlation: u32) {
        self.lock().streams.remove(&correlation);
    }

    /// How often they are looked after; `None`: there are none, and who did it is done.
    fn tended_every(&self) -> Option<Duration> {
        let mut open = self.lock();
        if open.streams.is_empty() {
            open.is_tended = false;
            return None;
        }
        Some(open.keep_alive)
    }

    /// Sends one of them an empty answer; whether there is one.
    fn keep_alive(&self, outbox: &Outbox<Option<Ticket>>) -> bool {
        let open = self.lock();
        let Some(entry) = open.streams.values().next() else {
            return false;
        };
        outbox.push(empty(entry.header)).is_ok()
    }

    /// Ends all that were not told to end; how many that is.
    fn end_all(&self, ending: Ending) -> u64 {
        let open = self.lock();
        let mut ended = 0;
        for entry in open.streams.values() {
            let is_new = |account: &mut Account| {
                let is_new = account.ending.is_none();
                account.ending.get_or_insert(ending);
                is_new
            };
            ended += u64::from(entry.account.send_if_modified(is_new));
        }
        ended
    }
}

/// An answer without a byte: a sign of life.
fn empty(header: FrameHeader) -> Outgoing<'static, Option<Ticket>> {
    let body = bytes::Bytes::new().into();
    Outgoing::new(header.answer_with_more(), body, None)
}

/// A place in the list of a connection's streams; given up when dropped.
#[derive(Debug)]
pub(super) struct Listed {
    shared: Arc<Shared>,
    correlation: u32,
}

impl Listed {
    /// Lists a stream, and sees to it that the connection's streams are looked after.
    pub fn new(
        shared: &Arc<Shared>,
        header: FrameHeader,
        (credit, keep_alive): (Credit, Duration),
    ) -> Result<(Self, Arc<watch::Sender<Account>>), ApiError> {
        let keep_alive = keep_alive.clamp(limits::KEEP_ALIVE_MIN, limits::KEEP_ALIVE_MAX);
        let mut account = Account::default();
        account.give(credit);
        let account = Arc::new(watch::Sender::new(account));
        let correlation = header.correlation;
        let mut open = shared.streams.lock();
        let is_full = open.streams.len() >= limits::STREAMS_PER_CONNECTION_MAX;
        if is_full || shared.server.traffic.streams() >= limits::STREAMS_MAX {
            let max = match is_full {
                true => limits::STREAMS_PER_CONNECTION_MAX,
                false => limits::STREAMS_MAX,
            };
            return Err(ApiError::TooManyStreams { max: max as u64 });
        }
        if open.streams.contains_key(&correlation) {
            return Err(ApiError::InvalidArgument {
                what: "correlation".to_owned(),
                reason: format!("{correlation} is that of a stream that is open: take another one"),
            });
        }
        let before = open.keep_alive;
        open.keep_alive = match open.streams.is_empty() {
            true => keep_alive,
            false => open.keep_alive.min(keep_alive),
        };
        let entry = Entry {
            header,
            account: account.clone(),
        };
        open.streams.insert(correlation, entry);
        let is_tended = std::mem::replace(&mut open.is_tended, true);
        if is_tended && open.keep_alive < before {
            shared.streams.sooner.notify_one();
        }
        drop(open);
        if !is_tended {
            let (gone, tended) = (shared.gone.clone(), shared.clone());
            let tending = async move { gone.run_until_cancelled(tend(tended)).await };
            shared.server.tracker.spawn(tending);
        }
        shared.server.traffic.stream_opened();
        let shared = shared.clone();
        Ok((
            Self {
                shared,
                correlation,
            },
            account,
        ))
    }

    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Tells the client that the stream stands.
    pub fn greet(&self) {
        let open = self.shared.streams.lock();
        if let Some(entry) = open.streams.get(&self.correlation) {
            // Refused when the connection is gone: nobody is left to be told.
            let _ = self.shared.outbox.push(empty(entry.header));
        }
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.shared.streams.close(self.correlation);
        self.shared.server.traffic.stream_closed();
    }
}

/// Looks after the streams of a connection until there are none (invariant 4).
async fn tend(shared: Arc<Shared>) {
    let (streams, outbox) = (&shared.streams, &shared.outbox);
    let patience = shared.server.timeouts.client_silence;
    let mut sent = outbox.rounds();
    let mut heard = shared.heard.count();
    let mut silent = Duration::ZERO;
    while let Some(every) = streams.tended_every() {
        tokio::select! {
            () = tokio::time::sleep(every) => {}
            () = streams.sooner.notified() => continue,
        }
        // Where something waits to be written, that is the next sign of life.
        let is_quiet = outbox.rounds() == sent && outbox.bytes() == 0;
        sent = outbox.rounds();
        if is_quiet && streams.keep_alive(outbox) {
            // It is a round of its own, and does not stand for the next one.
            sent += 1;
        }
        let now = shared.heard.count();
        silent = match now == heard {
            true => silent + every,
            false => Duration::ZERO,
        };
        heard = now;
        if silent >= patience {
            let ended = streams.end_all(Ending::Silent(silent));
            shared.server.traffic.keep_alives_missed(ended);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credit_adds_up_to_the_largest_there_is() {
        let mut account = Account::default();
        assert!(!account.has_credit());
        let all = Credit {
            bytes: u64::MAX,
            records: u64::MAX,
        };
        account.give(all);
        account.give(all);
        account.spend(Credit {
            bytes: 1 << 40,
            records: 1 << 40,
        });
        assert!(account.has_credit());
        assert!(account.records() > u64::MAX / 4);
    }

    #[test]
    fn a_debt_is_paid_before_anything_is_sent() {
        let mut account = Account::default();
        let credit = |bytes, records| Credit { bytes, records };
        account.give(credit(10, 10));
        account.spend(credit(25, 1));
        assert!(!account.has_credit());
        account.give(credit(15, 0));
        assert!(!account.has_credit(), "nothing is left");
        account.give(credit(1, 0));
        assert!(account.has_credit());
        account.spend(credit(0, 9));
        assert!(!account.has_credit(), "no records are left");
        assert_eq!(account.records(), 0);
    }
}
