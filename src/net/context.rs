//! What all connections of a server share: its counts, its patience, its end.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::limits;
use crate::net::budget::Budget;

/// What a server has seen on its connections since it started.
#[derive(Debug, Default)]
pub struct Traffic {
    connections: AtomicUsize,
    accepted: AtomicU64,
    refused: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
}

impl Traffic {
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

/// How patient a server is.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// From the first byte of a connection to its hello.
    pub hello: Duration,
    /// From the first to the last byte of a frame.
    pub frame: Duration,
    /// Without a byte of its answers taken.
    pub write_stall: Duration,
    /// For requests in flight when the server stops.
    pub shutdown_grace: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            hello: limits::HELLO_TIMEOUT,
            frame: limits::FRAME_TIMEOUT,
            write_stall: limits::WRITE_STALL_TIMEOUT,
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
