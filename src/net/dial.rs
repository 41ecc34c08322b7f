//! The client's side of a connection: dialling, the hello, and many requests at once.
//!
//! Requests are written in the order in which [`Connection::submit`] took them and
//! answered in any order, matched by correlation. A caller that goes away leaves
//! its request to be answered to nobody; the connection goes on. When the
//! connection ends every waiting caller is told whether its request may have
//! reached the other side.
//!
//! Invariants:
//!
//! 1. No more requests are unanswered than the hello answer allows; one more waits.
//! 2. [`CallError::Unreachable`] means that no byte of the request was written.
//!
//! A connection ends when its last handle is dropped. Reconnecting is not done
//! here: whoever knows what may be repeated does it.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use thiserror::Error;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio_util::sync::CancellationToken;

use crate::limits;
use crate::net::body::Body;
use crate::net::listener;
use crate::net::outbox::{Outbox, Outgoing, Ticket, Writer};
use crate::net::reader::{FrameReader, ReadError};
use crate::protocol::api::{Api, Hello, HelloAnswer, MAGIC, PROTOCOL_MAX, PROTOCOL_MIN, Request};
use crate::protocol::codec::Malformed;
use crate::protocol::error::ApiError;
use crate::protocol::frame::{FrameHeader, HEADER_BYTES};
use crate::types::Address;

/// Why a call was not answered as hoped.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CallError {
    /// Nothing of the request was sent: nothing changed.
    #[error("{address} cannot be reached: {reason}")]
    Unreachable {
        /// Where to.
        address: Address,
        /// What failed.
        reason: String,
    },
    /// The request was sent, or a part of it, and the connection ended: whether it took effect is unknown.
    #[error("the connection to {address} was lost before the answer came: {reason}")]
    Lost {
        /// Where to.
        address: Address,
        /// What failed.
        reason: String,
    },
    /// No answer in time.
    #[error("{address} did not answer within {} ms", after.as_millis())]
    TimedOut {
        /// Where to.
        address: Address,
        /// How long was waited.
        after: Duration,
        /// Whether the request may have been sent: then its effect is unknown.
        may_be_sent: bool,
    },
    /// An answer that is none: whether the request took effect is unknown.
    #[error("{address} answered with something else than expected: {error}")]
    Malformed {
        /// Where to.
        address: Address,
        /// What is wrong.
        error: Malformed,
    },
    /// The other side refused.
    #[error(transparent)]
    Api(#[from] ApiError),
}

impl CallError {
    /// Whether the request may have been carried out all the same.
    pub const fn may_have_taken_effect(&self) -> bool {
        match self {
            Self::Unreachable { .. } => false,
            Self::TimedOut { may_be_sent, .. } => *may_be_sent,
            Self::Lost { .. } | Self::Malformed { .. } => true,
            Self::Api(error) => matches!(
                error,
                ApiError::Unanswered | ApiError::StorageStopped { .. }
            ),
        }
    }

    /// The refusal, if it is one.
    pub const fn as_api(&self) -> Option<&ApiError> {
        match self {
            Self::Api(error) => Some(error),
            _ => None,
        }
    }
}

/// How to dial.
#[derive(Debug, Clone)]
pub struct DialOptions {
    /// What the client calls itself, at most 255 bytes: `"tidings 0.1.0"`.
    pub client: String,
    /// Longest time for connecting and the hello together.
    pub timeout: Duration,
}

/// An open connection; clones share it. It closes when the last of them is dropped.
#[derive(Debug, Clone)]
pub struct Connection(Arc<Handle>);

/// Closes the connection when the last handle goes.
#[derive(Debug)]
struct Handle(Arc<Link>);

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.closed.cancel();
    }
}

#[derive(Debug)]
struct Link {
    address: Address,
    hello: HelloAnswer,
    outbox: Outbox<Sent>,
    waiting: Mutex<Waiting>,
    slots: Arc<Semaphore>,
    closed: CancellationToken,
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
    /// Requests numbered, and those of them that may have been sent.
    numbered: u64,
    sent: u64,
    /// Why the connection ended.
    end: Option<String>,
}

#[derive(Debug)]
struct Waiter {
    api: Api,
    answer: oneshot::Sender<Result<Bytes, CallError>>,
    /// Among the requests of the connection, from 1 on.
    number: u64,
    /// Kept until the answer comes, whether or not somebody waits for it: the server counts so.
    _slot: OwnedSemaphorePermit,
}

impl Connection {
    /// Connects to `address` and says hello.
    pub async fn connect(address: &Address, options: &DialOptions) -> Result<Self, CallError> {
        match tokio::time::timeout(options.timeout, dial(address, &options.client)).await {
            Ok(connection) => connection,
            Err(_) => Err(CallError::Unreachable {
                address: address.clone(),
                reason: format!("no hello within {} ms", options.timeout.as_millis()),
            }),
        }
    }

    /// Where it leads.
    pub fn address(&self) -> &Address {
        &self.0.0.address
    }

    /// What the other side said of itself.
    pub fn hello(&self) -> &HelloAnswer {
        &self.0.0.hello
    }

    /// Whether it has ended.
    pub fn is_closed(&self) -> bool {
        self.0.0.closed.is_cancelled()
    }

    /// Waits until it has ended.
    pub async fn closed(&self) {
        self.0.0.closed.cancelled().await;
    }

    /// Ends it now; waiting callers are told.
    pub fn close(&self) {
        self.0.0.closed.cancel();
    }

    /// Sends a control request and waits for its answer.
    pub async fn call<R: Request>(
        &self,
        request: &R,
        timeout: Duration,
    ) -> Result<R::Answer, CallError> {
        let body = request.encode().map_err(ApiError::from)?;
        let answer = self.call_raw(R::API, body, timeout).await?;
        R::decode_answer(&answer).map_err(|error| CallError::Malformed {
            address: self.address().clone(),
            error,
        })
    }

    /// Sends a request whose body is given and waits for the body of its answer.
    pub async fn call_raw(
        &self,
        api: Api,
        body: impl Into<Body>,
        timeout: Duration,
    ) -> Result<Bytes, CallError> {
        let mut may_be_sent = false;
        let call = async {
            let pending = self.submit(api, body).await?;
            may_be_sent = true;
            pending.await
        };
        match tokio::time::timeout(timeout, call).await {
            Ok(answer) => answer,
            Err(_) => Err(CallError::TimedOut {
                address: self.address().clone(),
                after: timeout,
                may_be_sent,
            }),
        }
    }

    /// Queues a request behind those before it, waiting while too many are unanswered. Nothing was
    /// sent if this fails or is dropped. The answer is awaited with what it returns.
    pub async fn submit(&self, api: Api, body: impl Into<Body>) -> Result<Pending, CallError> {
        let (link, body) = (&self.0.0, body.into());
        let (bytes, max) = (HEADER_BYTES + body.len(), link.hello.frame_bytes_max);
        if bytes > max as usize {
            return Err(CallError::Api(ApiError::FrameTooLarge {
                bytes: bytes as u64,
                max: max.into(),
            }));
        }
        let slot = tokio::select! {
            biased;
            slot = link.slots.clone().acquire_owned() => slot.expect("never closed"),
            () = link.closed.cancelled() => return Err(link.unreachable()),
        };
        let (answer, receiver) = oneshot::channel();
        let waiter = Waiter {
            api,
            answer,
            number: 0,
            _slot: slot,
        };
        link.enqueue(waiter, body)?;
        Ok(Pending {
            receiver,
            connection: self.clone(),
        })
    }
}

/// A request on its way; await it for its answer. Dropping it leaves the answer unread.
#[derive(Debug)]
#[must_use = "the answer comes when this is awaited"]
pub struct Pending {
    receiver: oneshot::Receiver<Result<Bytes, CallError>>,
    connection: Connection,
}

impl Future for Pending {
    type Output = Result<Bytes, CallError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.receiver).poll(context).map(|answer| {
            answer.unwrap_or_else(|_| Err(self.connection.0.0.lost("it was closed".to_owned())))
        })
    }
}

impl Link {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lost(&self, reason: String) -> CallError {
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

    fn enqueue(&self, mut waiter: Waiter, body: Body) -> Result<(), CallError> {
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
        waiting.calls.insert(correlation, waiter);
        Ok(())
    }

    fn mark_sent(&self, Sent(last): &Sent) {
        self.lock().sent = *last;
    }

    /// Tells everybody that the connection ended.
    fn end(&self, reason: String) {
        let (calls, sent) = {
            let mut waiting = self.lock();
            waiting.end = Some(reason.clone());
            (std::mem::take(&mut waiting.calls), waiting.sent)
        };
        self.closed.cancel();
        for waiter in calls.into_values() {
            let error = match waiter.number <= sent {
                true => self.lost(reason.clone()),
                false => self.unreachable(),
            };
            let _ = waiter.answer.send(Err(error));
        }
    }

    /// Writes requests and reads answers until one of the two fails; tells why it ended.
    async fn run(&self, reader: FrameReader, writer: Writer) -> String {
        let mut reading = std::pin::pin!(self.read_answers(reader));
        // Neither half goes first: each could keep the other from its turn.
        tokio::select! {
            reason = &mut reading => reason,
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
        let answer = match header.is_error() {
            true => match ApiError::decode(&body) {
                Ok(error) => Err(error),
                Err(error) => return Err(error.to_string()),
            },
            false => Ok(body),
        };
        let waiter = self.lock().calls.remove(&header.correlation);
        match (waiter, answer) {
            (Some(waiter), answer) if waiter.api as u16 == header.api && header.is_answer() => {
                let _ = waiter.answer.send(answer.map_err(CallError::Api));
                Ok(true)
            }
            // About the connection, or about a request it could not make sense of.
            (Some(waiter), Err(error)) => {
                let reason = error.to_string();
                let _ = waiter.answer.send(Err(CallError::Api(error)));
                Err(reason)
            }
            (None, Err(error)) => Err(error.to_string()),
            (Some(_) | None, _) => Err(format!(
                "an answer to a request that was not made: number {}, correlation {}",
                header.api, header.correlation
            )),
        }
    }
}

async fn dial(address: &Address, client: &str) -> Result<Connection, CallError> {
    let unreachable = |reason: String| CallError::Unreachable {
        address: address.clone(),
        reason,
    };
    let stream = TcpStream::connect(address.as_str())
        .await
        .and_then(|stream| listener::prepare(&stream).map(|()| stream))
        .map_err(|error| unreachable(error.to_string()))?;
    let (read, mut write) = stream.into_split();
    let mut reader = FrameReader::new(read, limits::FRAME_BYTES_MAX);
    let hello = Hello {
        magic: MAGIC,
        protocol_min: PROTOCOL_MIN,
        protocol_max: PROTOCOL_MAX,
        client: client.to_owned(),
        features: 0,
    };
    let body = hello.encode().map_err(ApiError::from)?;
    let header = FrameHeader::request(Api::Hello as u16, Hello::VERSION, 0);
    let mut frame = header.encode(body.len()).to_vec();
    frame.extend_from_slice(&body);
    // A node that refuses the connection may have closed it already: its reason is still to be read.
    let written = write.write_all(&frame).await;
    let answer = match read_hello(&mut reader).await {
        Ok(answer) => answer?,
        Err(reason) => {
            return Err(unreachable(match written {
                Ok(()) => reason,
                Err(error) => error.to_string(),
            }));
        }
    };
    Ok(start(address, answer, (reader, Writer::new(write))))
}

/// The hello answer, the refusal, or why there was neither.
async fn read_hello(reader: &mut FrameReader) -> Result<Result<HelloAnswer, ApiError>, String> {
    let text = |error: ReadError| error.to_string();
    let prefix = match reader.prefix().await.map_err(text)? {
        Some(prefix) => prefix,
        None => return Err("it closed the connection instead of a hello".to_owned()),
    };
    let body = reader.body(&prefix).await.map_err(text)?;
    if prefix.header.is_error() {
        return ApiError::decode(&body)
            .map(Err)
            .map_err(|error| error.to_string());
    }
    let answer = Hello::decode_answer(&body).map_err(|error| error.to_string())?;
    if !(PROTOCOL_MIN..=PROTOCOL_MAX).contains(&answer.protocol) {
        return Err(format!(
            "it answered in protocol version {}, {PROTOCOL_MIN} to {PROTOCOL_MAX} were offered",
            answer.protocol
        ));
    }
    Ok(Ok(answer))
}

fn start(
    address: &Address,
    hello: HelloAnswer,
    (reader, writer): (FrameReader, Writer),
) -> Connection {
    let slots = (hello.requests_unanswered_max as usize).clamp(1, limits::REQUESTS_UNANSWERED_MAX);
    let link = Arc::new(Link {
        address: address.clone(),
        hello,
        outbox: Outbox::default(),
        waiting: Mutex::default(),
        slots: Arc::new(Semaphore::new(slots)),
        closed: CancellationToken::new(),
    });
    tokio::spawn({
        let link = link.clone();
        async move {
            let reason = link.run(reader, writer).await;
            // The writer is gone: nothing that was not sent can be sent any more.
            link.outbox.abort();
            link.end(reason);
        }
    });
    Connection(Arc::new(Handle(link)))
}
