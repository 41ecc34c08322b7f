//! What all connections of a server share: its counts, its patience, its end.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use metrics::{Histogram, NoopRecorder, Recorder};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::figures::{Collected, catalogue};
use crate::limits;
use crate::net::budget::Budget;
use crate::protocol::api::Api;
use crate::protocol::error::ApiError;

/// Numbers of requests and of errors are below it.
const NUMBERS: usize = 128;
const _: () = {
    let mut at = 0;
    while at < Api::ALL.len() {
        assert!((Api::ALL[at] as usize) < NUMBERS);
        at += 1;
    }
};

/// What a server has seen on its connections since it started.
#[derive(Debug)]
pub struct Traffic {
    connections: AtomicUsize,
    accepted: AtomicU64,
    refused: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    streams: AtomicUsize,
    keep_alives_missed: AtomicU64,
    /// Requests, by their number.
    requests: [AtomicU64; NUMBERS],
    /// Errors answered, by their number; at 0 those that have none of ours.
    errors: [AtomicU64; NUMBERS],
    names: [OnceLock<&'static str>; NUMBERS],
    publish: Histogram,
    fetch: Histogram,
}

impl Default for Traffic {
    /// Times are not recorded.
    fn default() -> Self {
        Self::new(&NoopRecorder)
    }
}

impl Traffic {
    /// Nothing yet; times are recorded with that recorder.
    pub fn new(recorder: &dyn Recorder) -> Self {
        let zero = || AtomicU64::new(0);
        Self {
            connections: AtomicUsize::new(0),
            accepted: zero(),
            refused: zero(),
            bytes_in: zero(),
            bytes_out: zero(),
            streams: AtomicUsize::new(0),
            keep_alives_missed: zero(),
            requests: std::array::from_fn(|_| zero()),
            errors: std::array::from_fn(|_| zero()),
            names: std::array::from_fn(|_| OnceLock::new()),
            publish: catalogue::PUBLISH.histogram(recorder),
            fetch: catalogue::FETCH.histogram(recorder),
        }
    }

    /// Tells all of it, as that of a node of this role.
    pub fn collect(&self, role: &Arc<str>, into: &mut Collected) {
        let mut node = |metric, number| into.family(metric).number([role.clone()], number);
        node(&catalogue::CONNECTIONS, self.connections() as u64);
        node(&catalogue::ACCEPTED, self.accepted());
        node(&catalogue::REFUSED, self.refusals());
        node(&catalogue::RECEIVED, self.bytes_in());
        node(&catalogue::SENT, self.bytes_out());
        node(&catalogue::STREAMS, self.streams() as u64);
        let missed = self.keep_alives_missed.load(Ordering::Relaxed);
        node(&catalogue::KEEP_ALIVES_MISSED, missed);
        for &api in Api::ALL {
            let count = self.requests[api as usize].load(Ordering::Relaxed);
            if count > 0 {
                let labels = [role.clone(), api.name().into()];
                into.family(&catalogue::REQUESTS).number(labels, count);
            }
        }
        for (code, count) in self.errors.iter().enumerate() {
            let count = count.load(Ordering::Relaxed);
            if count > 0 {
                let name = self.names[code].get().copied().unwrap_or("Other");
                let labels = [role.clone(), code.to_string().into(), name.into()];
                into.family(&catalogue::ERRORS).number(labels, count);
            }
        }
    }

    fn requested(&self, api: Api, count: u64) {
        self.requests[api as usize].fetch_add(count, Ordering::Relaxed);
    }

    pub(super) fn failed(&self, error: &ApiError) {
        let code = usize::from(error.code());
        let code = if code < NUMBERS { code } else { 0 };
        self.errors[code].fetch_add(1, Ordering::Relaxed);
        if self.names[code].get().is_none() {
            // Another thread may have been first; it says the same.
            let _ = self.names[code].set(error.name());
        }
    }

    /// A request of which the time counts was answered.
    pub(super) fn answered(&self, api: u16, took: Duration) {
        if Api::is_publish(api) {
            self.publish.record(took.as_secs_f64());
        } else {
            self.fetch.record(took.as_secs_f64());
        }
    }

    /// Whether it matters how long an answer to that request takes. Looking at the clock costs as much as
    /// answering the cheapest ones.
    pub(super) fn is_timed(api: u16) -> bool {
        Api::is_publish(api) || api == Api::Fetch as u16
    }

    /// Connections open now.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Connections accepted.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Connections refused, or closed because of a bad frame.
    pub fn refusals(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Bytes received.
    pub fn bytes_in(&self) -> u64 {
        self.bytes_in.load(Ordering::Relaxed)
    }

    /// Bytes sent.
    pub fn bytes_out(&self) -> u64 {
        self.bytes_out.load(Ordering::Relaxed)
    }

    /// Streams open now.
    pub fn streams(&self) -> usize {
        self.streams.load(Ordering::Relaxed)
    }

    pub(super) fn stream_opened(&self) {
        self.streams.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn stream_closed(&self) {
        self.streams.fetch_sub(1, Ordering::Relaxed);
    }

    /// So many streams were ended because nothing was heard of their clients.
    pub(super) fn keep_alives_missed(&self, streams: u64) {
        self.keep_alives_missed
            .fetch_add(streams, Ordering::Relaxed);
    }

    pub(super) fn accepted_one(&self) {
        self.accepted.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn opened(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn closed(&self) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn received(&self, bytes: usize) {
        self.bytes_in.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn sent(&self, bytes: usize) {
        self.bytes_out.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }
}

/// Requests that a connection has taken in and not yet added to those of its server: one addition for many,
/// and always up to date when the connection waits for more.
#[derive(Debug)]
pub(super) struct Tally {
    traffic: Arc<Traffic>,
    api: Api,
    count: u64,
}

impl Tally {
    pub fn new(traffic: Arc<Traffic>) -> Self {
        Self {
            traffic,
            api: Api::Ping,
            count: 0,
        }
    }

    /// One more.
    pub fn note(&mut self, api: Api) {
        if api != self.api || self.count >= limits::REQUESTS_TALLIED_MAX {
            self.add();
            self.api = api;
        }
        self.count += 1;
    }

    /// Adds them.
    pub fn add(&mut self) {
        if self.count > 0 {
            self.traffic.requested(self.api, self.count);
            self.count = 0;
        }
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        self.add();
    }
}

/// How patient a server is.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// From the first byte of a connection to its hello.
    pub hello: Duration,
    /// From the first to the last byte of a frame.
    pub frame: Duration,
    /// Without a byte of its answers taken.
    pub write_stall: Duration,
    /// Without a byte from a client with streams.
    pub client_silence: Duration,
    /// For requests in flight when the server stops.
    pub shutdown_grace: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            hello: limits::HELLO_TIMEOUT,
            frame: limits::FRAME_TIMEOUT,
            write_stall: limits::WRITE_STALL_TIMEOUT,
            client_silence: limits::CLIENT_SILENCE_MAX,
            shutdown_grace: limits::SHUTDOWN_GRACE,
        }
    }
}

/// What all connections of a server share.
#[derive(Debug)]
pub(super) struct Context {
    pub budget: Arc<Budget>,
    pub traffic: Arc<Traffic>,
    pub timeouts: Timeouts,
    /// Nothing new is begun.
    pub stop: CancellationToken,
    /// Everything is dropped.
    pub cut: CancellationToken,
    pub tracker: TaskTracker,
}
