//! The listener for figures and health, for programs that watch this one.
//!
//! ```text
//!   GET /metrics   everything that is counted, as Prometheus text
//!   GET /healthz   200 while the process lives
//!   GET /readyz    200 while every node of the process serves, else 503 and why not
//! ```
//!
//! It listens from before the stored state is read until after the nodes have
//! ended: in between is when somebody wants to know. It shares nothing with the
//! connections of clients, neither memory nor limits.
//!
//! Invariants:
//!
//! 1. **It is bounded**: so many connections, each with one request, so many bytes of
//!    head, so much time. A body is not read.
//! 2. **Whoever holds a connection for nothing loses it to the next**: when there are too
//!    many, the oldest is closed. So nobody can keep a health check out.
//! 3. Figures are collected for one asker at a time, on a thread that may take its time.
//!
//! Deliberately missing: encryption, passwords, and anything that changes something. Who
//! must not see the names of topics must not reach the address.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tracing::{debug, warn};

use crate::figures::{self, Together};
use crate::limits;
use crate::net::Surroundings;

/// How long accepting pauses after it failed (no file descriptors left).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

const PLAIN: &str = "text/plain; charset=utf-8";

/// What is watched.
struct Watched {
    surroundings: Surroundings,
    text: Together<Bytes>,
}

/// Answers until it is dropped.
pub async fn serve(listener: TcpListener, surroundings: Surroundings) {
    let watched = Arc::new(Watched {
        surroundings,
        text: Together::default(),
    });
    let mut connections = JoinSet::new();
    let mut oldest_first = VecDeque::<AbortHandle>::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
        };
        match accepted {
            Ok((stream, address)) => {
                debug!(%address, "somebody asks for figures");
                make_room(&mut oldest_first);
                let connection = connection(stream, watched.clone());
                oldest_first.push_back(connections.spawn(connection));
            }
            Err(error) => {
                warn!(%error, "accepting a connection for figures failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Closes the oldest connection when there are as many as may be.
fn make_room(oldest_first: &mut VecDeque<AbortHandle>) {
    oldest_first.retain(|connection| !connection.is_finished());
    if oldest_first.len() >= limits::HTTP_CONNECTIONS_MAX
        && let Some(oldest) = oldest_first.pop_front()
    {
        oldest.abort();
    }
}

async fn connection(stream: TcpStream, watched: Arc<Watched>) {
    let answering = service_fn(move |request| {
        let watched = watched.clone();
        async move { Ok::<_, Infallible>(watched.answer(&request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits::HTTP_HEAD_TIMEOUT)
        .max_buf_size(limits::HTTP_HEAD_BYTES_MAX)
        .max_headers(limits::HTTP_HEADERS_MAX)
        .keep_alive(false)
        .half_close(true)
        .serve_connection(TokioIo::new(stream), answering);
    match tokio::time::timeout(limits::HTTP_TIMEOUT, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!(%error, "a connection for figures ended"),
        Err(_) => debug!("a connection for figures took too long"),
    }
}

impl Watched {
    async fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let is_reading = [Method::GET, Method::HEAD].contains(request.method());
        match request.uri().path() {
            "/metrics" | "/healthz" | "/readyz" if !is_reading => {
                let told = "this is only read: GET expected\n";
                let mut answer = plain(StatusCode::METHOD_NOT_ALLOWED, told);
                let allowed = HeaderValue::from_static("GET, HEAD");
                answer.headers_mut().insert(ALLOW, allowed);
                answer
            }
            "/metrics" => self.metrics().await,
            "/healthz" => plain(StatusCode::OK, "alive\n"),
            "/readyz" => self.readiness(),
            _ => {
                let told = "there is nothing here: /metrics, /healthz or /readyz expected\n";
                plain(StatusCode::NOT_FOUND, told)
            }
        }
    }

    async fn metrics(&self) -> Response<Full<Bytes>> {
        let surroundings = self.surroundings.clone();
        let text = self.text.get(async move {
            let collected = surroundings.collect_all().await;
            let text = tokio::task::spawn_blocking(move || collected.to_text());
            text.await.unwrap_or_default().into()
        });
        match text.await {
            Some(text) if !text.is_empty() => answer(StatusCode::OK, figures::CONTENT_TYPE, text),
            _ => plain(StatusCode::SERVICE_UNAVAILABLE, "the process ends\n"),
        }
    }

    fn readiness(&self) -> Response<Full<Bytes>> {
        let reasons = self.surroundings.board.unready();
        match reasons.is_empty() {
            true => plain(StatusCode::OK, "ready\n"),
            false => plain(StatusCode::SERVICE_UNAVAILABLE, reasons.join("\n") + "\n"),
        }
    }
}

fn plain(status: StatusCode, text: impl Into<Bytes>) -> Response<Full<Bytes>> {
    answer(status, PLAIN, text.into())
}

fn answer(status: StatusCode, kind: &'static str, body: Bytes) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::new(body));
    *answer.status_mut() = status;
    let kind = HeaderValue::from_static(kind);
    answer.headers_mut().insert(CONTENT_TYPE, kind);
    answer
}
