//! Connecting to a node, and what is done with a connection: ask, and be sent streams.
//!
//! ```text
//!   Connection::connect ── hello ──► Connection ── submit, call ──► one answer    Pending
//!                                        │     └── open_stream ───► many answers  Inlet
//!                                        └── link: correlation, both directions of the socket
//! ```
//!
//! A connection ends when its last handle is dropped. Reconnecting is not done
//! here: whoever knows what may be repeated does it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use thiserror::Error;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use crate::limits;
use crate::net::body::Body;
use crate::net::inlet::Inlet;
use crate::net::link::{Link, Taker};
use crate::net::listener;
use crate::net::outbox::Writer;
use crate::net::reader::{FrameReader, ReadError};
use crate::protocol::api::{Api, Hello, HelloAnswer, MAGIC, PROTOCOL_MAX, PROTOCOL_MIN, Request};
use crate::protocol::codec::Malformed;
use crate::protocol::data::Stream;
use crate::protocol::error::ApiError;
use crate::protocol::frame::FrameHeader;
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
        self.0.close();
    }
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
        self.link().address()
    }

    /// What the other side said of itself.
    pub fn hello(&self) -> &HelloAnswer {
        self.link().hello()
    }

    /// Whether it has ended.
    pub fn is_closed(&self) -> bool {
        self.link().is_closed()
    }

    /// Waits until it has ended.
    pub async fn closed(&self) {
        self.link().closed().await;
    }

    /// Ends it now; waiting callers are told.
    pub fn close(&self) {
        self.link().close();
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
        let (answer, receiver) = oneshot::channel();
        let taker = Taker::One(answer);
        self.link().submit(api, body.into(), taker).await?;
        Ok(Pending {
            receiver,
            connection: self.clone(),
        })
    }

    /// Opens a stream, as [`submit`](Self::submit) does; what comes of it is taken from what it returns.
    pub async fn open_stream(&self, stream: &Stream) -> Result<Inlet, CallError> {
        let incoming = Arc::default();
        let taker = Taker::Stream(Arc::clone(&incoming));
        incoming.allow(stream.credit.bytes);
        let body = stream.encode().into();
        let correlation = self.link().submit(Api::Stream, body, taker).await?;
        Ok(Inlet::new(self.clone(), correlation, incoming))
    }

    pub(super) fn link(&self) -> &Link {
        &self.0.0
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
            answer.unwrap_or_else(|_| Err(self.connection.link().lost("it was closed".to_owned())))
        })
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
    let link = Arc::new(Link::new(address.clone(), hello));
    tokio::spawn({
        let link = link.clone();
        async move { link.run(reader, writer).await }
    });
    Connection(Arc::new(Handle(link)))
}
