//! The server's side of one connection: hello, admission, and its end.
//!
//! ```text
//!   hello ──► open ──┬─► finished   the client closed; what it asked for is still answered
//!                    ├─► refused    a bad frame: error frame, close
//!                    ├─► stopped    the server ends: in-flight requests are answered, close
//!                    └─► broken     the socket failed, or was cut
//! ```
//!
//! Two tasks: one reads, admits and calls the service, one writes. A request is
//! admitted when the connection has fewer than
//! [`REQUESTS_UNANSWERED_MAX`](limits::REQUESTS_UNANSWERED_MAX) unanswered ones,
//! few enough bytes of requests and of answers in flight, and the process has
//! memory for it. Otherwise the reader waits, and with it the client's TCP stream.
//! A [`Ticket`] holds what was admitted and lets it go when the answer is written.
//! Credit for [`streams`](super::streams) is taken here; no service hears of it.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use tokio::net::TcpStream;
use tracing::debug;

use crate::limits;
use crate::net::admission::{Shared, Ticket};
use crate::net::context::{Context, Tally};
use crate::net::outbox::{Outgoing, Writer};
use crate::net::reader::{FrameReader, ReadError};
use crate::net::service::{Call, ClientInfo, Handling, Reply, Service};
use crate::protocol::api::{
    AnsweredBy, Api, Hello, MAGIC, PROTOCOL_MAX, PROTOCOL_MIN, Request, Role, StreamCredit,
};
use crate::protocol::error::ApiError;
use crate::protocol::frame::{FrameHeader, HEADER_BYTES, Prefix};

/// The only version of every request so far.
const REQUEST_VERSION: u8 = 1;

/// How the reading side ended.
enum End {
    /// The client has closed its sending side.
    Finished,
    /// It gets this error, and a close.
    Refused(ApiError, u32),
    /// The server stops and nothing is in flight.
    Stopped,
    /// There is nobody to tell.
    Broken,
}

impl From<ReadError> for End {
    fn from(error: ReadError) -> Self {
        debug!(%error, "a connection ends");
        match error {
            ReadError::Io(_) => Self::Broken,
            // What came before the broken frame was whole, and is answered.
            ReadError::Truncated => Self::Finished,
            ReadError::TooSlow { correlation } => {
                let reason = error.to_string();
                Self::Refused(ApiError::BadFrame { reason }, correlation)
            }
            ReadError::Frame { error, correlation } => Self::Refused(refusal(error), correlation),
        }
    }
}

fn refusal(error: crate::protocol::frame::FrameError) -> ApiError {
    use crate::protocol::frame::FrameError;
    match error {
        FrameError::TooShort { .. } => ApiError::BadFrame {
            reason: error.to_string(),
        },
        FrameError::TooLarge { length, max } => ApiError::FrameTooLarge {
            bytes: length.into(),
            max: max as u64,
        },
    }
}

/// The header of an error about the connection.
pub(super) fn connection_error(correlation: u32) -> FrameHeader {
    FrameHeader::request(Api::Hello as u16, REQUEST_VERSION, correlation).error()
}

/// Serves one connection to its end.
pub(super) async fn serve<S: Service>(
    service: Arc<S>,
    server: Arc<Context>,
    stream: TcpStream,
    address: SocketAddr,
) {
    let (read, write) = stream.into_split();
    let shared = Shared::new(server.clone());
    let writing = server.tracker.spawn({
        let (shared, writer) = (shared.clone(), Writer::new(write).of(server.clone()));
        async move {
            let written = writer.run(&shared.outbox, |_| {});
            if let Some(Err(error)) = shared.gone.run_until_cancelled(written).await {
                debug!(%error, "writing to a connection ended");
            }
            // What could not be written is let go, and no reader waits for it.
            shared.outbox.abort();
            shared.gone.cancel();
        }
    });
    let mut reading = Reading {
        reader: FrameReader::new(read, limits::HELLO_FRAME_BYTES_MAX)
            .of(server)
            .telling(shared.heard.clone()),
        shared: shared.clone(),
        service,
        address,
    };
    let gone = &shared.gone;
    let end = gone.run_until_cancelled(reading.run()).await;
    gone.run_until_cancelled(wind_up(&shared, end.unwrap_or(End::Broken)))
        .await;
    if !gone.is_cancelled() {
        // The writer closes its side after the last frame; then the client may close its own.
        shared.outbox.finish();
        let _ = writing.await;
        reading.reader.drain().await;
    }
    gone.cancel();
    shared.outbox.abort();
}

async fn wind_up(shared: &Shared, end: End) {
    match end {
        End::Stopped => {}
        End::Broken => shared.gone.cancel(),
        End::Refused(error, correlation) => {
            shared.server.traffic.refused();
            let header = connection_error(correlation);
            let frame = Outgoing::new(header, error.encode().into(), None);
            let _ = shared.outbox.push(frame);
        }
        End::Finished => {
            shared.polls.cancel();
            let idle = shared.until_idle();
            let _ = tokio::time::timeout(limits::HALF_CLOSE_TIMEOUT, idle).await;
        }
    }
}

/// The reading task's state.
struct Reading<S> {
    reader: FrameReader,
    shared: Arc<Shared>,
    service: Arc<S>,
    address: SocketAddr,
}

impl<S: Service> Reading<S> {
    async fn run(&mut self) -> End {
        match self.run_to_end().await {
            Ok(end) | Err(end) => end,
        }
    }

    async fn run_to_end(&mut self) -> Result<End, End> {
        let server = self.shared.server.clone();
        let hello = tokio::time::timeout(server.timeouts.hello, self.hello());
        let (client, role) = match server.stop.run_until_cancelled(hello).await {
            Some(Ok(Ok(Some(greeted)))) => greeted,
            Some(Ok(Ok(None))) => return Ok(End::Finished),
            Some(Ok(Err(end))) => return Err(end),
            Some(Err(_)) => return Err(End::Refused(ApiError::HelloRequired, 0)),
            None => return Err(End::Refused(ApiError::ShuttingDown, 0)),
        };
        let mut is_stopping = false;
        let mut tally = Tally::new(server.traffic.clone());
        let mut foreseen = 0;
        loop {
            let at_hand = self.reader.prefix_at_hand();
            if at_hand.is_none() {
                tally.add();
            }
            let prefix = match at_hand {
                Some(prefix) => prefix,
                None => tokio::select! {
                    biased;
                    () = server.stop.cancelled(), if !is_stopping => {
                        is_stopping = true;
                        continue;
                    }
                    prefix = self.reader.prefix() => match prefix? {
                        Some(prefix) => prefix,
                        None => return Ok(End::Finished),
                    },
                    () = self.shared.until_idle(), if is_stopping => return Ok(End::Stopped),
                },
            };
            if S::FORESEES {
                foreseen = match foreseen {
                    0 => self.foresee(),
                    more => more - 1,
                };
            }
            let (body, ticket) = self.admit(&prefix).await?;
            let reply = Reply::new(ticket, prefix.header);
            if is_stopping {
                reply.error(&ApiError::ShuttingDown);
                continue;
            }
            match check(prefix.header, role) {
                Ok(api) => {
                    tally.note(api);
                    self.call(api, body, (&client, reply)).await;
                }
                Err(error) => reply.error(&error),
            }
        }
    }

    /// The hello, answered; `None` if the client closed instead.
    async fn hello(&mut self) -> Result<Option<(Arc<ClientInfo>, Role)>, End> {
        let Some(prefix) = self.reader.prefix().await? else {
            return Ok(None);
        };
        let correlation = prefix.header.correlation;
        let refused = |error| End::Refused(error, correlation);
        if prefix.header.api != Api::Hello as u16 {
            return Err(refused(ApiError::HelloRequired));
        }
        let body = self.reader.body(&prefix).await?;
        let (hello, protocol) = check_hello(prefix.header, &body).map_err(refused)?;
        let mut answer = self.service.hello();
        answer.protocol = protocol;
        self.reader
            .set_frame_bytes_max(answer.frame_bytes_max as usize);
        let role = answer.role;
        let bytes = Hello::encode_answer(&answer).map_err(|error| refused(error.into()))?;
        let frame = Outgoing::new(prefix.header.answer(), bytes.into(), None);
        let _ = self.shared.outbox.push(frame);
        let client = ClientInfo {
            name: hello.client,
            address: self.address,
            protocol,
        };
        debug!(address = %client.address, name = ?client.name, "hello");
        Ok(Some((Arc::new(client), role)))
    }

    /// Tells the service what comes next; how many more than the first that is.
    fn foresee(&self) -> usize {
        const NONE: (FrameHeader, &[u8]) = (FrameHeader::request(0, 0, 0), &[]);
        let mut requests = [NONE; limits::REQUESTS_FORESEEN_MAX];
        let mut count = 0;
        for (place, request) in requests.iter_mut().zip(self.reader.frames_at_hand()) {
            *place = request;
            count += 1;
        }
        if count > 1 {
            self.service.foresee(&requests[..count]);
        }
        count.saturating_sub(1)
    }

    /// Receives and admits a request. One that is larger than the connection's own buffer is
    /// admitted first: memory is never filled before it was granted.
    async fn admit(&mut self, prefix: &Prefix) -> Result<(Bytes, Ticket), End> {
        check_frame(prefix)?;
        let bytes = prefix.frame_bytes();
        if bytes > limits::READ_BUFFER_BYTES_MIN && !self.reader.has(prefix) {
            let ticket = self.shared.admit(bytes).await;
            return Ok((self.reader.body(prefix).await?, ticket));
        }
        let body = self.reader.body(prefix).await?;
        Ok((body, self.shared.admit(bytes).await))
    }

    async fn call(&self, api: Api, body: Bytes, (client, mut reply): (&Arc<ClientInfo>, Reply)) {
        if has_large_answer(api) {
            reply.reserve(limits::CONTROL_BYTES_MAX).await;
        }
        if api == Api::StreamCredit {
            let given = StreamCredit::decode(&body).map_err(ApiError::from);
            let taken = given.and_then(|given| self.shared.streams.credit(given));
            return reply.send::<StreamCredit>(taken);
        }
        let call = Call {
            api,
            version: REQUEST_VERSION,
            body,
            client: client.clone(),
        };
        let handling = match self.service.call(call, reply) {
            Handling::Answered => return,
            handling => handling,
        };
        let shared = self.shared.clone();
        self.shared.server.tracker.spawn(async move {
            // For a client that has gone nothing more is begun, although the end of its other requests has just
            // made room for this one.
            if shared.gone.is_cancelled() {
                return;
            }
            match handling {
                Handling::Answered => {}
                // Dropped between two steps it would leave them apart: stored and not told, or told and not stored.
                Handling::Finish(work) => {
                    shared.server.cut.run_until_cancelled(work).await;
                }
                // A poll that has its answer gives it, even when polls end.
                Handling::Wait(work) => tokio::select! {
                    biased;
                    () = shared.gone.cancelled() => {}
                    () = work => {}
                    () = shared.polls.cancelled() => {}
                },
            }
        });
    }
}

/// What is wrong with a frame so that nothing after it can be trusted.
fn check_frame(prefix: &Prefix) -> Result<(), End> {
    let header = prefix.header;
    let refused = |error| Err(End::Refused(error, header.correlation));
    if header.flags != 0 {
        let reason = format!("flags {} in a request: 0 expected", header.flags);
        return refused(ApiError::BadFrame { reason });
    }
    if header.api == Api::Hello as u16 {
        let reason = "a second hello: one opens a connection".to_owned();
        return refused(ApiError::BadFrame { reason });
    }
    if prefix.body_bytes > limits::CONTROL_BYTES_MAX && !Api::is_publish(header.api) {
        return refused(ApiError::FrameTooLarge {
            bytes: (HEADER_BYTES + prefix.body_bytes) as u64,
            max: (HEADER_BYTES + limits::CONTROL_BYTES_MAX) as u64,
        });
    }
    Ok(())
}

/// Whether a request is one that this node answers.
fn check(header: FrameHeader, role: Role) -> Result<Api, ApiError> {
    let Some(api) = Api::from_number(header.api) else {
        return Err(ApiError::UnknownApi { api: header.api });
    };
    if header.version != REQUEST_VERSION {
        return Err(unsupported(api.name(), header.version.into(), (1, 1)));
    }
    let name = |role| match role {
        Role::Index => "an index server".to_owned(),
        Role::Peer => "a peer".to_owned(),
    };
    match (api.answered_by(), role) {
        (AnsweredBy::Index, Role::Peer) | (AnsweredBy::Peer, Role::Index) => {
            Err(ApiError::WrongRole {
                request: api.name().to_owned(),
                answered_by: name(match role {
                    Role::Index => Role::Peer,
                    Role::Peer => Role::Index,
                }),
                this_is: name(role),
            })
        }
        _ => Ok(api),
    }
}

fn unsupported(what: &str, given: u16, (min, max): (u16, u16)) -> ApiError {
    ApiError::UnsupportedVersion {
        what: what.to_owned(),
        given,
        min,
        max,
    }
}

/// The hello and the newest protocol version that both sides speak.
fn check_hello(header: FrameHeader, body: &[u8]) -> Result<(Hello, u16), ApiError> {
    if header.flags != 0 || !body.starts_with(&MAGIC) {
        return Err(ApiError::BadFrame {
            reason: "a hello begins with TIDE".to_owned(),
        });
    }
    if header.version != REQUEST_VERSION {
        return Err(unsupported("Hello", header.version.into(), (1, 1)));
    }
    let hello = Hello::decode(body)?;
    if hello.client.len() > limits::CLIENT_NAME_BYTES_MAX {
        return Err(ApiError::InvalidArgument {
            what: "client name".to_owned(),
            reason: format!(
                "{} bytes: at most {} expected",
                hello.client.len(),
                limits::CLIENT_NAME_BYTES_MAX
            ),
        });
    }
    let newest = hello.protocol_max.min(PROTOCOL_MAX);
    if newest < hello.protocol_min.max(PROTOCOL_MIN) {
        let given = match hello.protocol_max < PROTOCOL_MIN {
            true => hello.protocol_max,
            false => hello.protocol_min,
        };
        return Err(unsupported("protocol", given, (PROTOCOL_MIN, PROTOCOL_MAX)));
    }
    Ok((hello, newest))
}

/// Requests whose answers may be large and come without a reservation of their own.
const fn has_large_answer(api: Api) -> bool {
    matches!(
        api,
        Api::Metrics
            | Api::ListTopics
            | Api::ListPeers
            | Api::DescribeTopics
            | Api::ListSubscriptions
            | Api::ListConsumerGroups
            | Api::DescribeConsumerGroup
    )
}
