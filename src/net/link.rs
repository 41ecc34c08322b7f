//! The client's end of a connection: many requests at once, and who waits for which answer.
//!
//! Requests are written in the order in which [`Link::submit`] took them and
//! answered in any order, matched by correlation. A caller that goes away leaves
//! its request to be answered to nobody; the connection goes on. When the
//! connection ends every waiting caller is told whether its request may have
//! reached the other side.
//!
//! Invariants:
//!
//! 1. No more requests are unanswered than the hello answer allows; one more waits. A stream is not
//!    counted once it stands, nor is the credit for it, which is little and answered at once.
//! 2. [`CallError::Unreachable`] means that no byte of the request was written.
//! 3. While there are streams, each side hears of the other: a node of which nothing came for
//!    [`STREAMS_SILENT_LOOKS`](limits::STREAMS_SILENT_LOOKS) looks is taken for dead and the connection ends; the node
//!    is sent a credit of nothing every [`CLIENT_ALIVE_EVERY`](limits::CLIENT_ALIVE_EVERY), whatever the
//!    application does meanwhile. Looks are counted, not time: a process that was suspended, or a runtime
//!    that was kept busy, has received what came meanwhile before it looks again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::limits;
use crate::net::body::Body;
use crate::net::dial::CallError;
use crate::net::inlet::Incoming;
use crate::net::outbox::{Outbox, Outgoing, Ticket, Writer};
use crate::net::reader::{FrameReader, Heard, ReadError};
use crate::protocol::api::{Api, HelloAnswer, Request, StreamCredit};
use crate::protocol::error::ApiError;
use crate::protocol::frame::{FrameHeader, HEADER_BYTES};
use crate::types::Address;

/// What the handles of a connection and its task share.
#[derive(Debug)]
pub(super) struct Link {
    address: Address,
    hello: HelloAnswer,
    outbox: Outbox<Sent>,
    waiting: Mutex<Waiting>,
    slots: Arc<Semaphore>,
    closed: CancellationToken,
    heard: Heard,
    /// There is a stream where there was none.
    streaming: Notify,
}

/// The last of the requests that were handed to the writer: they are numbered in that order.
#[derive(Debug)]
struct Sent(u64);

impl Ticket for Sent {
    fn join(&mut self, later: Self) {
        *self = later;
    }
}

#[derive(Debug, Default)]
struct Waiting {
    last_correlation: u32,
    calls: HashMap<u32, Waiter>,
    /// Those of the calls that are streams.
    streams: usize,
    /// Requests numbered, and those of them that may have been sent.
    numbered: u64,
    sent: u64,
    /// Why the connection ended.
    end: Option<String>,
}

#[derive(Debug)]
struct Waiter {
    api: Api,
    taker: Taker,
    /// Among the requests of the connection, from 1 on.
    number: u64,
    /// Kept until the answer comes, whether or not somebody waits for it: the server counts so.
    slot: Option<OwnedSemaphorePermit>,
}

/// Who takes what is answered.
#[derive(Debug)]
pub(super) enum Taker {
    One(oneshot::Sender<Result<Bytes, CallError>>),
    Stream(Arc<Incoming>),
    Nobody,
}

impl Taker {
    /// The last answer.
    fn finish(self, answer: Result<Bytes, CallError>) {
        match self {
            // Whoever does not wait any more does not want it.
            Self::One(waiting) => _ = waiting.send(answer),
            Self::Stream(incoming) => incoming.finish(answer),
            Self::Nobody => {}
        }
    }
}

impl Waiting {
    fn remove(&mut self, correlation: u32) -> Option<Waiter> {
        let waiter = self.calls.remove(&correlation)?;
        if matches!(waiter.taker, Taker::Stream(_)) {
            self.streams -= 1;
        }
        Some(waiter)
    }

    /// Any stream.
    fn stream(&self) -> Option<u32> {
        let is_stream = |waiter: &Waiter| matches!(waiter.taker, Taker::Stream(_));
        let mut streams = self.calls.iter().filter(|(_, waiter)| is_stream(waiter));
        streams.next().map(|(&correlation, _)| correlation)
    }
}

impl Link {
    pub fn new(address: Address, hello: HelloAnswer) -> Self {
        let slots = hello.requests_unanswered_max as usize;
        let slots = slots.clamp(1, limits::REQUESTS_UNANSWERED_MAX);
        Self {
            address,
            hello,
            outbox: Outbox::default(),
            waiting: Mutex::default(),
            slots: Arc::new(Semaphore::new(slots)),
            closed: CancellationToken::new(),
            heard: Heard::default(),
            streaming: Notify::new(),
        }
    }

    pub fn address(&self) -> &Address {
        &self.address
    }

    pub fn hello(&self) -> &HelloAnswer {
        &self.hello
    }

    pub fn is_closed(&self) -> bool {
        self.closed.is_cancelled()
    }

    pub async fn closed(&self) {
        self.closed.cancelled().await;
    }

    pub fn close(&self) {
        self.closed.cancel();
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn lost(&self, reason: String) -> CallError {
        CallError::Lost {
            address: self.address.clone(),
            reason,
        }
    }

    fn unreachable(&self) -> CallError {
        let end = self.lock().end.clone();
        CallError::Unreachable {
            address: self.address.clone(),
            reason: end.unwrap_or_else(|| "the connection was closed".to_owned()),
        }
    }

    // --- requests --------------------------------------------------------------

    /// Queues a request, waiting while too many are unanswered; tells its correlation.
    pub async fn submit(&self, api: Api, body: Body, taker: Taker) -> Result<u32, CallError> {
        let (bytes, max) = (HEADER_BYTES + body.len(), self.hello.frame_bytes_max);
        if bytes > max as usize {
            return Err(CallError::Api(ApiError::FrameTooLarge {
                bytes: bytes as u64,
                max: max.into(),
            }));
        }
        let slot = tokio::select! {
            biased;
            slot = self.slots.clone().acquire_owned() => slot.expect("never closed"),
            () = self.closed.cancelled() => return Err(self.unreachable()),
        };
        let waiter = Waiter {
            api,
            taker,
            number: 0,
            slot: Some(slot),
        };
        self.enqueue(waiter, body)
    }

    /// Lets more of a stream come, or ends it. Never waits.
    pub fn credit(&self, credit: &StreamCredit) {
        let body = credit.encode().expect("numbers encode");
        let waiter = Waiter {
            api: Api::StreamCredit,
            taker: Taker::Nobody,
            number: 0,
            slot: None,
        };
        // Who takes from the stream is told when the connection has ended.
        let _ = self.enqueue(waiter, body.into());
    }

    fn enqueue(&self, mut waiter: Waiter, body: Body) -> Result<u32, CallError> {
        let api = waiter.api;
        // Kept until the request is queued: the numbers are in the order of the queue.
        let mut waiting = self.lock();
        if waiting.end.is_some() {
            drop(waiting);
            return Err(self.unreachable());
        }
        // 0 is the hello's; one still unanswered after four thousand million others is passed over.
        let mut correlation = waiting.last_correlation;
        loop {
            correlation = correlation.wrapping_add(1);
            if correlation != 0 && !waiting.calls.contains_key(&correlation) {
                break;
            }
        }
        waiting.last_correlation = correlation;
        waiting.numbered += 1;
        let number = waiting.numbered;
        let header = FrameHeader::request(api as u16, 1, correlation);
        // Refused when the connection has just ended.
        if self
            .outbox
            .push(Outgoing::new(header, body, Sent(number)))
            .is_err()
        {
            drop(waiting);
            return Err(self.unreachable());
        }
        waiter.number = number;
        if matches!(waiter.taker, Taker::Stream(_)) {
            waiting.streams += 1;
            self.streaming.notify_one();
        }
        waiting.calls.insert(correlation, waiter);
        Ok(correlation)
    }

    fn mark_sent(&self, Sent(last): &Sent) {
        self.lock().sent = *last;
    }

    // --- the connection's task -------------------------------------------------

    /// Writes requests and reads answers until the connection ends, and tells all who wait.
    pub async fn run(&self, reader: FrameReader, writer: Writer) {
        let reason = self.run_to_end(reader, writer).await;
        // The writer is gone: nothing that was not sent can be sent any more.
        self.outbox.abort();
        self.end(reason);
    }

    /// Tells everybody that the connection ended.
    fn end(&self, reason: String) {
        let (calls, sent) = {
            let mut waiting = self.lock();
            waiting.end = Some(reason.clone());
            waiting.streams = 0;
            (std::mem::take(&mut waiting.calls), waiting.sent)
        };
        self.closed.cancel();
        for waiter in calls.into_values() {
            let error = match waiter.number <= sent {
                true => self.lost(reason.clone()),
                false => self.unreachable(),
            };
            waiter.taker.finish(Err(error));
        }
    }

    /// Until one of the two directions fails; tells why it ended.
    async fn run_to_end(&self, reader: FrameReader, writer: Writer) -> String {
        let reader = reader.telling(self.heard.clone());
        let mut reading = std::pin::pin!(self.read_answers(reader));
        // Neither half goes first: each could keep the other from its turn.
        tokio::select! {
            reason = &mut reading => reason,
            reason = self.tend_streams() => reason,
            () = self.closed.cancelled() => "it was closed".to_owned(),
            written = writer.run(&self.outbox, |sent| self.mark_sent(sent)) => {
                let Err(error) = written else {
                    return "it was closed".to_owned();
                };
                // The other side may have said why before it closed.
                let said = tokio::time::timeout(limits::CLOSE_TIMEOUT, reading).await;
                said.unwrap_or_else(|_| format!("writing failed: {error}"))
            }
        }
    }

    /// Sees to invariant 3; tells that the other side is silent.
    async fn tend_streams(&self) -> String {
        let every = limits::STREAMS_WATCHED_EVERY;
        let mut looks = tokio::time::interval(every);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut heard, mut silent) = (self.heard.count(), 0);
        let mut untold = Duration::ZERO;
        loop {
            while self.lock().streams == 0 {
                self.streaming.notified().await;
                (silent, untold) = (0, Duration::ZERO);
                looks.reset();
            }
            looks.tick().await;
            let now = self.heard.count();
            silent = if now == heard { silent + 1 } else { 0 };
            heard = now;
            if silent >= limits::STREAMS_SILENT_LOOKS {
                let waited = every * limits::STREAMS_SILENT_LOOKS;
                return format!("nothing was heard of it for {} ms", waited.as_millis());
            }
            untold += every;
            if untold >= limits::CLIENT_ALIVE_EVERY {
                untold = Duration::ZERO;
                let stream = self.lock().stream();
                if let Some(stream) = stream {
                    self.credit(&StreamCredit {
                        stream,
                        bytes: 0,
                        records: 0,
                        end: false,
                    });
                }
            }
        }
    }

    async fn read_answers(&self, mut reader: FrameReader) -> String {
        loop {
            match self.read_answer(&mut reader).await {
                Ok(true) => {}
                Ok(false) => return "the other side closed it".to_owned(),
                Err(reason) => return reason,
            }
        }
    }

    /// Whether there can be more.
    async fn read_answer(&self, reader: &mut FrameReader) -> Result<bool, String> {
        let text = |error: ReadError| error.to_string();
        let Some(prefix) = reader.prefix().await.map_err(text)? else {
            return Ok(false);
        };
        let body = reader.body(&prefix).await.map_err(text)?;
        let header = prefix.header;
        if header.has_more() && !header.is_error() {
            return self.take_part(header, body).map(|()| true);
        }
        let answer = match header.is_error() {
            true => match ApiError::decode(&body) {
                Ok(error) => Err(error),
                Err(error) => return Err(error.to_string()),
            },
            false => Ok(body),
        };
        let waiter = self.lock().remove(header.correlation);
        match (waiter, answer) {
            (Some(waiter), answer) if waiter.api as u16 == header.api && header.is_answer() => {
                waiter.taker.finish(answer.map_err(CallError::Api));
                Ok(true)
            }
            // About the connection, or about a request it could not make sense of.
            (Some(waiter), Err(error)) => {
                let reason = error.to_string();
                waiter.taker.finish(Err(CallError::Api(error)));
                Err(reason)
            }
            (None, Err(error)) => Err(error.to_string()),
            (Some(_) | None, _) => Err(not_made(header)),
        }
    }

    /// An answer that more follow.
    fn take_part(&self, header: FrameHeader, body: Bytes) -> Result<(), String> {
        let incoming = {
            let mut waiting = self.lock();
            let waiter = waiting.calls.get_mut(&header.correlation);
            let waiter = waiter.filter(|waiter| waiter.api as u16 == header.api);
            match waiter {
                Some(Waiter {
                    taker: Taker::Stream(incoming),
                    slot,
                    ..
                }) => {
                    *slot = None;
                    incoming.clone()
                }
                _ => return Err(not_made(header)),
            }
        };
        incoming.add(body)
    }
}

fn not_made(header: FrameHeader) -> String {
    format!(
        "an answer to a request that was not made: number {}, correlation {}",
        header.api, header.correlation
    )
}
