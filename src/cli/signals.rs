//! Ctrl-C and SIGTERM.
//!
//! The first one asks: the returned token is cancelled, and whoever works
//! finishes what it began. The second one ends the process at once.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::cli::fail::{Failure, Result};

/// Exit status of a process that was told twice.
const TOLD_TWICE: i32 = 1;

/// Starts to listen; the token is cancelled by the first signal.
pub fn listen() -> Result<CancellationToken> {
    let stop = CancellationToken::new();
    let register = |kind| {
        signal(kind).map_err(|error| Failure::server(format!("signals cannot be caught: {error}")))
    };
    let mut interrupt = register(SignalKind::interrupt())?;
    let mut terminate = register(SignalKind::terminate())?;
    let cancelled = stop.clone();
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if cancelled.is_cancelled() {
                std::process::exit(TOLD_TWICE);
            }
            cancelled.cancel();
        }
    });
    Ok(stop)
}
