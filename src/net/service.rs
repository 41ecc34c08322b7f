//! The seam between connections and the servers: what a request is handed over
//! as, and how it is answered.
//!
//! [`Service::call`] runs on the connection's reading task and must not block.
//! It answers through the [`Reply`] at once, keeps the `Reply` for a callback on
//! any thread (publishing does, without a task or an allocation), or returns a
//! future that the connection runs. A request with many answers turns its reply
//! into an [`Outlet`](super::Outlet).

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use crate::limits;
use crate::net::admission::Ticket;
use crate::net::body::{Body, Parts};
use crate::net::context::Traffic;
use crate::net::outbox::Outgoing;
use crate::protocol::api::{Api, HelloAnswer, Request};
use crate::protocol::error::ApiError;
use crate::protocol::frame::FrameHeader;

/// Who is at the other end of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientInfo {
    /// What it calls itself, for logs.
    pub name: String,
    /// Where it connects from.
    pub address: SocketAddr,
    /// Protocol version that was agreed on.
    pub protocol: u16,
}

/// A request that was admitted: a known one, answered by this role, in a version that is spoken.
#[derive(Debug, Clone)]
pub struct Call {
    /// Which request.
    pub api: Api,
    /// Version of its body.
    pub version: u8,
    /// Its body, in the memory it was received in.
    pub body: Bytes,
    /// Who asks.
    pub client: Arc<ClientInfo>,
}

impl Call {
    /// Decodes the body.
    pub fn decode<R: Request>(&self) -> Result<R, ApiError> {
        R::decode(&self.body).map_err(ApiError::from)
    }
}

/// Work that a connection runs.
pub type Later = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What a service did with a call.
#[must_use]
pub enum Handling {
    /// The reply was used, or handed to somebody who will.
    Answered,
    /// This will use the reply; once begun it goes on to its end although the client goes away, and is given time for that
    /// when the server stops.
    Finish(Later),
    /// This will use the reply; it only waits for something (a long poll, a stream) and is dropped as soon as
    /// the server stops or the client goes away. Its reply then says so.
    Wait(Later),
}

impl Handling {
    /// Answers a control request at once.
    pub fn answer<R: Request>(reply: Reply, result: Result<R::Answer, ApiError>) -> Self {
        reply.send::<R>(result);
        Self::Answered
    }

    /// Runs `work` and answers with what it returns.
    pub fn finish<R: Request>(
        reply: Reply,
        work: impl Future<Output = Result<R::Answer, ApiError>> + Send + 'static,
    ) -> Self {
        Self::Finish(Box::pin(async move { reply.send::<R>(work.await) }))
    }
}

/// What answers the requests of one kind of server.
pub trait Service: Send + Sync + 'static {
    /// Whether [`Service::foresee`] does anything.
    const FORESEES: bool = false;

    /// What the hello is answered with; the protocol version is filled in by the connection.
    fn hello(&self) -> HelloAnswer;

    /// Handles a request. Must not block and should be short: the connection reads on afterwards.
    fn call(self: &Arc<Self>, call: Call, reply: Reply) -> Handling;

    /// Requests that are there and come next, in their order, at most
    /// [`limits::REQUESTS_FORESEEN_MAX`], none of them looked at yet: whoever fetches from memory what
    /// all of them will need waits for it once. Changes nothing.
    fn foresee(&self, _requests: &[(FrameHeader, &[u8])]) {}
}

/// The duty to answer one request, exactly once. Dropping it answers with
/// [`ApiError::Unanswered`], or [`ApiError::ShuttingDown`] when the server stops.
#[derive(Debug)]
pub struct Reply {
    ticket: Option<Ticket>,
    header: FrameHeader,
    /// When the request was taken in, if its time counts.
    began: Option<Instant>,
}

impl Reply {
    pub(super) fn new(ticket: Ticket, header: FrameHeader) -> Self {
        Self {
            ticket: Some(ticket),
            header,
            began: Traffic::is_timed(header.api).then(Instant::now),
        }
    }

    pub(super) fn header(&self) -> FrameHeader {
        self.header
    }

    pub(super) fn ticket(&mut self) -> Option<&mut Ticket> {
        self.ticket.as_mut()
    }
    /// Cancelled when the connection is over, for what lasts as long as it.
    pub fn gone(&self) -> CancellationToken {
        match &self.ticket {
            Some(ticket) => ticket.shared.gone.clone(),
            None => CancellationToken::new(),
        }
    }

    /// What the answer took is counted from now on: before, there was nothing to answer with.
    pub fn restart_clock(&mut self) {
        self.began = self.began.map(|_| Instant::now());
    }

    /// How long this request may wait for something to answer with: as long as it asks, but no longer than anybody may,
    /// and hardly at all where those that wait hold as much memory as they may.
    pub fn may_wait(&mut self, asked_ms: u32) -> Duration {
        let asked = Duration::from_millis(asked_ms.into()).min(limits::FETCH_WAIT_MAX);
        let ticket = self.ticket.as_mut().filter(|_| !asked.is_zero());
        match ticket.is_none_or(Ticket::may_wait) {
            true => asked,
            false => asked.min(limits::POLL_WAIT_CROWDED),
        }
    }

    /// The same in milliseconds.
    pub fn may_wait_ms(&mut self, asked_ms: u32) -> u32 {
        u32::try_from(self.may_wait(asked_ms).as_millis()).unwrap_or(asked_ms)
    }

    /// Waits until `bytes` of answer may be held in memory. To be called before anything larger
    /// than [`limits::ANSWER_BYTES_UNRESERVED_MAX`] is read or built (fetches, long polls); the
    /// listings' answers are reserved before the service is called.
    pub async fn reserve(&mut self, bytes: usize) {
        if let Some(ticket) = &mut self.ticket
            && bytes > limits::ANSWER_BYTES_UNRESERVED_MAX
        {
            ticket.reserve_answer(bytes).await;
        }
    }

    /// The same for an answer that may be shorter than `bytes`: it does not wait behind those whose clients take
    /// none of theirs. Tells how long it may be.
    pub async fn reserve_up_to(&mut self, bytes: usize) -> usize {
        match &mut self.ticket {
            Some(ticket) if bytes > limits::ANSWER_BYTES_UNRESERVED_MAX => {
                ticket.reserve_up_to(bytes).await
            }
            _ => bytes,
        }
    }

    /// Answers. Never waits; from any thread.
    pub fn answer(mut self, body: impl Into<Body>) {
        self.stop_clock();
        self.finish(self.header.answer(), body.into().into());
    }

    /// Answers with a copy of these bytes, one behind the other. Never waits; from any thread.
    pub fn answer_copied(mut self, parts: &[&[u8]]) {
        self.stop_clock();
        self.finish(self.header.answer(), Parts::Lent(parts));
    }

    fn stop_clock(&self) {
        if let (Some(began), Some(ticket)) = (self.began, &self.ticket) {
            let traffic = &ticket.shared.server.traffic;
            traffic.answered(self.header.api, began.elapsed());
        }
    }

    /// Answers with an error. Never waits; from any thread.
    pub fn error(mut self, error: &ApiError) {
        self.fail(error);
    }

    fn fail(&mut self, error: &ApiError) {
        if let Some(ticket) = &self.ticket {
            ticket.shared.server.traffic.failed(error);
        }
        self.finish(self.header.error(), Body::from(error.encode()).into());
    }

    /// Answers a control request. Never waits; from any thread.
    pub fn send<R: Request>(self, result: Result<R::Answer, ApiError>) {
        let encoded = result.and_then(|answer| R::encode_answer(&answer).map_err(ApiError::from));
        match encoded {
            Ok(body) => self.answer(body),
            Err(error) => self.error(&error),
        }
    }

    /// Answers with a body or an error. Never waits; from any thread.
    pub fn send_raw(self, result: Result<impl Into<Body>, ApiError>) {
        match result {
            Ok(body) => self.answer(body),
            Err(error) => self.error(&error),
        }
    }

    fn finish(&mut self, header: FrameHeader, body: Parts<'_>) {
        if let Some(mut ticket) = self.ticket.take() {
            ticket.settle_answer(body.len());
            let shared = ticket.shared.clone();
            let ticket = Some(ticket);
            // Refused when the connection is gone: nobody is left to be told.
            let _ = shared.outbox.push(Outgoing {
                header,
                body,
                ticket,
            });
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if let Some(ticket) = &self.ticket {
            let error = match ticket.shared.server.stop.is_cancelled() {
                true => ApiError::ShuttingDown,
                false => ApiError::Unanswered,
            };
            // Whoever has gone away, or waited for news when the server ended, did not meet with an error.
            let is_lost = !ticket.shared.gone.is_cancelled() && !ticket.shared.polls.is_cancelled();
            match is_lost {
                true => self.fail(&error),
                false => self.finish(self.header.error(), Body::from(error.encode()).into()),
            }
        }
    }
}
