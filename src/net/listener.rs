//! Accepting connections, counting them, and ending them all.
//!
//! The listening socket and the stop signal come from outside, so that tests
//! and programs decide about ports and signals. One connection more than the
//! limit is told so and closed; when too many are being told, it is closed
//! without a word.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::net::sockopt;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use crate::limits;
use crate::net::budget::Budget;
use crate::net::connection;
use crate::net::context::{Context, Timeouts, Traffic};
use crate::net::outbox::{Outbox, Outgoing, Writer};
use crate::net::reader::FrameReader;
use crate::net::service::Service;
use crate::protocol::error::ApiError;

/// How long accepting pauses after it failed (no file descriptors left).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How often that is logged while it lasts.
const ACCEPT_TOLD_EVERY: Duration = Duration::from_secs(10);

/// A server that is about to accept connections.
#[derive(Debug)]
pub struct Server<S> {
    service: Arc<S>,
    stop: CancellationToken,
    budget: Arc<Budget>,
    traffic: Arc<Traffic>,
    timeouts: Timeouts,
    connections_max: usize,
}

impl<S: Service> Server<S> {
    /// A server of `service` that ends when `stop` is cancelled.
    pub fn new(service: Arc<S>, stop: CancellationToken) -> Self {
        Self {
            service,
            stop,
            budget: Arc::default(),
            traffic: Arc::default(),
            timeouts: Timeouts::default(),
            connections_max: limits::CONNECTIONS_MAX,
        }
    }

    /// Shares `budget` with other servers of the process.
    #[must_use]
    pub fn with_budget(mut self, budget: Arc<Budget>) -> Self {
        self.budget = budget;
        self
    }

    /// Counts into `traffic`, which the service may have been given before.
    #[must_use]
    pub fn with_traffic(mut self, traffic: Arc<Traffic>) -> Self {
        self.traffic = traffic;
        self
    }

    /// Takes at most so many connections.
    #[must_use]
    pub fn with_connections_max(mut self, max: usize) -> Self {
        self.connections_max = max;
        self
    }

    /// Has other timeouts than the usual ones.
    #[must_use]
    pub fn with_timeouts(mut self, timeouts: Timeouts) -> Self {
        self.timeouts = timeouts;
        self
    }

    /// What is counted.
    pub fn traffic(&self) -> Arc<Traffic> {
        self.traffic.clone()
    }

    /// Accepts connections until stopped; returns when the last one has ended.
    pub async fn run(self, listener: TcpListener) {
        let context = Arc::new(Context {
            budget: self.budget.clone(),
            traffic: self.traffic.clone(),
            timeouts: self.timeouts,
            stop: self.stop.clone(),
            cut: CancellationToken::new(),
            tracker: TaskTracker::new(),
        });
        let accepting = self.accept_all(&context, listener);
        self.stop.run_until_cancelled(accepting).await;
        context.tracker.close();
        let grace = self.timeouts.shutdown_grace;
        let ended = tokio::time::timeout(grace, context.tracker.wait()).await;
        if ended.is_err() {
            warn!(
                connections = self.traffic.connections(),
                "cutting connections that did not end in time"
            );
        }
        context.cut.cancel();
        context.tracker.wait().await;
    }

    async fn accept_all(&self, context: &Arc<Context>, listener: TcpListener) {
        let refusals = Arc::new(tokio::sync::Semaphore::new(limits::REFUSALS_MAX));
        let mut quiet_until = Instant::now();
        loop {
            let (stream, address) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    if quiet_until <= Instant::now() {
                        warn!(%error, "accepting a connection failed, trying on");
                        quiet_until = Instant::now() + ACCEPT_TOLD_EVERY;
                    }
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            if let Err(error) = prepare(&stream) {
                debug!(%error, "a connection was gone before it was served");
                continue;
            }
            self.traffic.accepted_one();
            let has_room = self.traffic.connections() < self.connections_max;
            if has_room && self.budget.has_connection() {
                self.spawn(context, stream, address);
            } else {
                self.traffic.refused();
                if let Ok(permit) = refusals.clone().try_acquire_owned() {
                    let max = self.connections_max.min(self.budget.connections_max()) as u64;
                    let cut = context.cut.clone();
                    context.tracker.spawn(async move {
                        cut.run_until_cancelled(refuse(stream, max)).await;
                        drop(permit);
                    });
                }
            }
        }
    }

    fn spawn(&self, context: &Arc<Context>, stream: TcpStream, address: SocketAddr) {
        let open = Open::new(self.traffic.clone(), self.budget.clone());
        let (service, server) = (self.service.clone(), context.clone());
        context.tracker.spawn(async move {
            connection::serve(service, server, stream, address).await;
            drop(open);
        });
    }
}

/// Counts a connection while it lives.
struct Open(Arc<Traffic>, Arc<Budget>);

impl Open {
    fn new(traffic: Arc<Traffic>, budget: Arc<Budget>) -> Self {
        traffic.opened();
        budget.connected();
        Self(traffic, budget)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.closed();
        self.1.disconnected();
    }
}

/// Sets what every connection has: small frames go out at once, and a vanished
/// other side is noticed.
pub(super) fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, limits::KEEPALIVE_IDLE)?;
    sockopt::set_tcp_keepintvl(stream, limits::KEEPALIVE_EVERY)?;
    sockopt::set_tcp_keepcnt(stream, limits::KEEPALIVE_PROBES)?;
    Ok(())
}

/// Tells a connection that there are too many.
async fn refuse(stream: TcpStream, max: u64) {
    let (read, write) = stream.into_split();
    let outbox = Outbox::default();
    let error = ApiError::TooManyConnections { max };
    let header = connection::connection_error(0);
    let _ = outbox.push(Outgoing::new(header, error.encode().into(), ()));
    outbox.finish();
    if Writer::new(write).run(&outbox, |_| {}).await.is_ok() {
        let reader = FrameReader::new(read, limits::HELLO_FRAME_BYTES_MAX);
        reader.drain().await;
    }
}
