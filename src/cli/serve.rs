//! `tidings up` and `tidings serve`: the servers as processes.
//!
//! A server prints one line on stdout once it accepts connections, so that a
//! script that started it with port 0 learns the address; everything else goes
//! to the log on stderr. The first Ctrl-C or SIGTERM ends it gracefully, a
//! second one at once.

use std::error::Error;
use std::io::{self, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::cli::fail::{Failure, Result};
use crate::cli::flags::{IndexFlags, PeerFlags, UpFlags};
use crate::cli::signals;
use crate::client::{Client, ConnectOptions};
use crate::figures::Board;
use crate::http;
use crate::index::{Index, IndexError, IndexOptions};
use crate::limits;
use crate::net::Surroundings;
use crate::net::budget::raise_descriptor_limit;
use crate::peer::{Peer, PeerOptions};
use crate::protocol::api::PeerState;
use crate::store::StoreOptions;
use crate::types::{Address, PeerId, PeerName};

const INDEX_LISTEN: &str = "127.0.0.1:7400";
const PEER_LISTEN: &str = "127.0.0.1:7401";
/// How long a peer's ready line waits for its registration.
const REGISTRATION_PATIENCE: Duration = Duration::from_secs(5);

impl PeerFlags {
    /// What the peer is told; `bound` is where it listens.
    fn options(self, bound: SocketAddr, indexes: Vec<Address>) -> Result<PeerOptions> {
        let usual = StoreOptions::new(self.data_dir.unwrap_or_else(|| "data/peer".into()));
        let in_memory = |size: u64| {
            usize::try_from(size).map_err(|_| Failure::usage(format!("{size} bytes are too many")))
        };
        let tail_cache = self.tail_cache.map(in_memory).transpose()?;
        let message_max = self.message_max.map(in_memory).transpose()?;
        let store = StoreOptions {
            name: self.name,
            slot_bytes: self.slot_size.unwrap_or(usual.slot_bytes),
            tail_cache_bytes: tail_cache.unwrap_or(usual.tail_cache_bytes),
            reserve_bytes: self.reserve,
            ..usual
        };
        let advertise = self.advertise.unwrap_or_else(|| bound.into());
        let usual = PeerOptions::new(store, advertise);
        Ok(PeerOptions {
            indexes,
            heartbeat: self.heartbeat.unwrap_or(usual.heartbeat),
            leave: self.leave,
            message_bytes_max: message_max.unwrap_or(usual.message_bytes_max),
            ..usual
        })
    }
}

fn failed(error: impl std::fmt::Display) -> Failure {
    Failure::server(error.to_string())
}

/// Opens a store where that may block.
async fn opened<T: Send + 'static, E: Error + Send + 'static>(
    open: impl FnOnce() -> std::result::Result<T, E> + Send + 'static,
) -> Result<T> {
    let opened = tokio::task::spawn_blocking(open).await;
    opened.map_err(failed)?.map_err(not_opened)
}

fn not_opened(error: impl Error + 'static) -> Failure {
    let failure = failed(&error);
    let causes = std::iter::successors(Some(&error as &dyn Error), |&cause| cause.source());
    let mut io = causes.filter_map(|cause| cause.downcast_ref::<io::Error>());
    match io.any(|cause| cause.kind() == io::ErrorKind::StorageFull) {
        true => failure.hint(
            "make room there; a new peer takes less of it with smaller journal files: `tidings serve peer --slot-size 4MiB`",
        ),
        false => failure,
    }
}

/// What every server does first; answers what Ctrl-C and SIGTERM cancel.
fn begin() -> Result<CancellationToken> {
    raise_descriptor_limit();
    signals::listen()
}

/// `tidings serve index`.
pub async fn index(flags: IndexFlags) -> Result {
    let stop = begin()?;
    let (listener, bound) = bind(flags.listen.as_deref().unwrap_or(INDEX_LISTEN)).await?;
    let watched = Watched::start(flags.http.as_deref(), &["index"]).await?;
    let index = open_index(flags, bound).await?;
    let served = index.serve_with(listener, stop, watched.surroundings.clone());
    ready(&format!("index {bound}"));
    served.await.map_err(failed)
}

/// What the servers of this process share, and the listener for those who watch them.
struct Watched {
    surroundings: Surroundings,
    _listening: Option<AbortOnDropHandle<()>>,
}

impl Watched {
    /// Answers from now on, if that is wanted: also while the servers, which are of these roles, are being opened.
    async fn start(listen: Option<&str>, roles: &[&'static str]) -> Result<Self> {
        let surroundings = Surroundings {
            board: Arc::new(Board::expecting(roles)),
            ..Surroundings::default()
        };
        let Some(listen) = listen else {
            return Ok(Self {
                surroundings,
                _listening: None,
            });
        };
        let (listener, bound) = bind(listen).await?;
        let listening = tokio::spawn(http::serve(listener, surroundings.clone()));
        ready(&format!("http {bound}"));
        Ok(Self {
            surroundings,
            _listening: Some(AbortOnDropHandle::new(listening)),
        })
    }
}

async fn open_index(flags: IndexFlags, bound: SocketAddr) -> Result<Index> {
    let data_dir = flags.data_dir.unwrap_or_else(|| "data/index".into());
    let options = IndexOptions {
        lease: flags.lease.unwrap_or(limits::LEASE_DEFAULT),
        indexes: told_to_clients(bound),
        ..IndexOptions::new(data_dir)
    };
    opened(|| Index::open(options)).await
}

/// `tidings serve peer`.
pub async fn peer(flags: PeerFlags, indexes: Vec<Address>) -> Result {
    let stop = begin()?;
    let listener = peer_listener(&flags).await?;
    let watched = Watched::start(flags.http.as_deref(), &["peer"]).await?;
    serve_peer((flags, listener), indexes, (stop, &watched.surroundings)).await
}

/// `tidings up`.
pub async fn up(flags: UpFlags) -> Result {
    // Before the index is there: half a cluster that goes away again is of no use.
    check_advertised(
        flags.listen.as_deref().unwrap_or(PEER_LISTEN),
        flags.advertise.as_ref(),
    )?;
    let stop = begin()?;
    let data_dir = flags.data_dir.unwrap_or_else(|| "data".into());
    let (listener, bound) = bind(flags.index_listen.as_deref().unwrap_or(INDEX_LISTEN)).await?;
    let watched = Watched::start(flags.http.as_deref(), &["index", "peer"]).await?;
    let index = IndexFlags {
        data_dir: Some(data_dir.join("index")),
        ..IndexFlags::default()
    };
    let index = open_index(index, bound).await?;
    let surroundings = &watched.surroundings;
    // Of its own: the index ends after the peer, which tells it that it goes.
    let index_stop = CancellationToken::new();
    let served = index.serve_with(listener, index_stop.clone(), surroundings.clone());
    let indexing = tokio::spawn(served);
    ready(&format!("index {bound}"));
    let peer = PeerFlags {
        data_dir: Some(data_dir.join("peer")),
        listen: flags.listen,
        advertise: flags.advertise,
        name: flags.name,
        ..PeerFlags::default()
    };
    let peering = peer_beside_index(peer, bound, (stop.clone(), surroundings));
    let (peered, indexed) = side_by_side(peering, indexing, (&stop, &index_stop)).await;
    peered.and(indexed)
}

/// The peer of `tidings up`.
async fn peer_beside_index(
    flags: PeerFlags,
    index: SocketAddr,
    (stop, surroundings): (CancellationToken, &Surroundings),
) -> Result {
    let mut index = index;
    if index.ip().is_unspecified() {
        index.set_ip(match index {
            SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    let listener = peer_listener(&flags).await?;
    serve_peer((flags, listener), vec![index.into()], (stop, surroundings)).await
}

/// Opens a peer that has its port, and serves.
async fn serve_peer(
    (flags, listener): (PeerFlags, (TcpListener, SocketAddr)),
    indexes: Vec<Address>,
    (stop, surroundings): (CancellationToken, &Surroundings),
) -> Result {
    let peer = OpenPeer::open(flags, listener, indexes).await?;
    let telling = tokio::spawn(peer.introduction.clone().tell());
    let served = peer
        .peer
        .serve_with(peer.listener, stop, surroundings.clone());
    let served = served.await;
    telling.abort();
    served.map_err(failed)
}

/// Runs both until both have ended; when one ends, the other is asked to.
async fn side_by_side(
    peering: impl Future<Output = Result>,
    mut indexing: JoinHandle<std::result::Result<(), IndexError>>,
    (stop, index_stop): (&CancellationToken, &CancellationToken),
) -> (Result, Result) {
    tokio::pin!(peering);
    let early = tokio::select! {
        peered = &mut peering => Err(peered),
        indexed = &mut indexing => Ok(indexed),
    };
    let (peered, indexed) = match early {
        Err(peered) => {
            index_stop.cancel();
            (peered, indexing.await)
        }
        Ok(indexed) => {
            stop.cancel();
            (peering.await, indexed)
        }
    };
    let indexed = indexed.map_err(failed);
    (peered, indexed.and_then(|served| served.map_err(failed)))
}

/// A peer whose store is open and whose port is taken.
struct OpenPeer {
    peer: Peer,
    listener: TcpListener,
    introduction: Introduction,
}

impl OpenPeer {
    async fn open(
        flags: PeerFlags,
        (listener, bound): (TcpListener, SocketAddr),
        indexes: Vec<Address>,
    ) -> Result<Self> {
        let options = flags.options(bound, indexes.clone())?;
        let advertise = options.advertise.clone();
        let (peer, _) = opened(|| Peer::open(options)).await?;
        let introduction = Introduction {
            id: peer.id(),
            name: peer.name().clone(),
            bound,
            advertise,
            indexes,
        };
        Ok(Self {
            peer,
            listener,
            introduction,
        })
    }
}

/// Takes the port of a peer.
async fn peer_listener(flags: &PeerFlags) -> Result<(TcpListener, SocketAddr)> {
    let listen = flags.listen.as_deref().unwrap_or(PEER_LISTEN);
    check_advertised(listen, flags.advertise.as_ref())?;
    bind(listen).await
}

/// What is told when a peer is ready.
#[derive(Debug, Clone)]
struct Introduction {
    id: PeerId,
    name: PeerName,
    bound: SocketAddr,
    advertise: Address,
    indexes: Vec<Address>,
}

impl Introduction {
    /// Prints the ready line: once the index lists the peer, so that what a script
    /// does next finds it; without an index at once.
    async fn tell(self) {
        // Over the patience it serves unregistered, and says so in its log.
        let _ = tokio::time::timeout(REGISTRATION_PATIENCE, self.registered()).await;
        ready(&format!("peer {} {}", self.name, self.bound));
    }

    async fn registered(&self) {
        let options = ConnectOptions::new(self.indexes.clone());
        let Ok(client) = Client::connect(options).await else {
            return;
        };
        while let Ok(peers) = client.list_peers().await {
            let is_listed = peers.iter().any(|peer| {
                peer.id == self.id
                    && peer.address == self.advertise
                    && peer.state == PeerState::Online
            });
            if is_listed {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Opens a listening socket; answers its address, with the port that was picked.
async fn bind(listen: &str) -> Result<(TcpListener, SocketAddr)> {
    let explain = |error: io::Error| {
        let failure = Failure::server(format!("cannot listen on {listen}: {error}"));
        match error.kind() {
            io::ErrorKind::AddrInUse => failure
                .hint("another process uses that port; name another one, or port 0 for a free one"),
            _ => failure,
        }
    };
    let listener = TcpListener::bind(listen).await.map_err(explain)?;
    let bound = listener.local_addr().map_err(explain)?;
    Ok((listener, bound))
}

/// The own address, for clients to remember; nobody can use a wildcard.
fn told_to_clients(bound: SocketAddr) -> Vec<Address> {
    match bound.ip().is_unspecified() {
        true => Vec::new(),
        false => vec![bound.into()],
    }
}

/// Whether clients elsewhere can do nothing with the address listened on.
fn is_wildcard(listen: &str) -> bool {
    let host = listen.rsplit_once(':').map_or(listen, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host.parse::<std::net::IpAddr>()
        .is_ok_and(|ip| ip.is_unspecified())
}

/// Insists on an address that clients can use.
fn check_advertised(listen: &str, advertise: Option<&Address>) -> Result {
    if advertise.is_none() && is_wildcard(listen) {
        return Err(Failure::usage(format!(
            "--listen {listen} accepts connections on every address, but clients need one to \
             come to"
        ))
        .hint("--advertise HOST:PORT says where clients reach this peer"));
    }
    Ok(())
}

/// Tells whoever started us that connections are accepted.
fn ready(line: &str) {
    let mut out = io::stdout().lock();
    // A server whose starter does not listen serves all the same.
    let _ = writeln!(out, "ready {line}").and_then(|()| out.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_needs_an_address_to_advertise() {
        for wildcard in ["0.0.0.0:7401", "[::]:0"] {
            assert_eq!(
                check_advertised(wildcard, None).map_err(|f| f.status),
                Err(2)
            );
            let advertised = "node:7401".parse().expect("good");
            assert_eq!(check_advertised(wildcard, Some(&advertised)), Ok(()));
        }
        assert_eq!(check_advertised("127.0.0.1:0", None), Ok(()));
        assert_eq!(check_advertised("localhost:7401", None), Ok(()));
    }
}
