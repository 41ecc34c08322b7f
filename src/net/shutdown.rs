//! Stopping: one signal for everything, and who gives it.
//!
//! A server ends in three steps. *Stop*: nothing new is accepted, new requests
//! are answered with `ShuttingDown`, long polls end at once. *Grace*: requests in
//! flight are finished. *Cut*: what is left after
//! [`SHUTDOWN_GRACE`](crate::limits::SHUTDOWN_GRACE) is closed.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
pub use tokio_util::sync::CancellationToken;

/// SIGINT and SIGTERM, caught from its creation on.
#[derive(Debug)]
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// Catches both signals from now on.
    pub fn catch() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// Waits for the next one and tells its name.
    pub async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
        }
    }

    /// Stops at the first signal; returns at the second one, when the caller should end at once.
    pub async fn stop_at_first(&mut self, stop: CancellationToken) {
        let name = self.next().await;
        tracing::info!(signal = name, "stopping; once more to end at once");
        stop.cancel();
        self.next().await;
    }
}
