//! The registry: which peers there are, and which of them hosts which topic.
//!
//! # Model
//!
//! ```text
//!   requests of peers and clients            bytes of the store
//!            |                                      ^
//!        Command  --->  State::apply(.., now) --> Effects: what changed
//!                              |                    |
//!                           Answer                  v once it is durable
//!            ^                               Directory: what is told
//!            |                                      |
//!   goes out once the effects are durable      lookups, listings, watches
//! ```
//!
//! [`State`] decides. [`State::apply`] is the only way it changes, and does the
//! same with the same commands in every process: one index server calls it with
//! what arrives, a replicated one will call it with an agreed log. A command that may
//! concern a million topics is only begun by it, and gone on with by
//! [`State::step`], between other commands (`jobs`). [`Directory`]
//! is a second copy, for reading: it is brought up to date only when a change is
//! durable, so nobody is told something that a crash takes back. [`rows`] turns
//! the state into stored bytes and back.
//!
//! The truth about a topic is at the peer that stores it; the registry is
//! derived, and a registry that lost all or some of its rows is filled again by
//! the peers. That is why no command here deletes a topic that somebody stores:
//! the worst that happens to it is that its name leads elsewhere.
//!
//! # Peers
//!
//! ```text
//!                RegisterPeer                    Depart
//!   (unknown) ----------------> online <------> offline
//!       ^                        |   ^   RegisterPeer
//!       | Depart{leave},   lease |   | Heartbeat, RegisterPeer
//!       | RetirePeer             v   |
//!       +---------------------- down
//! ```
//!
//! A process of a peer is known by its nonce. The newest `RegisterPeer` with a
//! new nonce wins; the nonce it replaced is remembered and answered `Displaced`
//! whatever it sends, also another `RegisterPeer`, so that two processes on
//! copies of one directory cannot take turns: the loser is told, and stops.
//!
//! # Names
//!
//! A name is *held* by at most one topic. A new one is *claimed* first, for ten
//! seconds. A peer that comes back with a topic whose name is taken by then has
//! a *conflict*: the topic stays stored, is listed under conflicts, and is
//! registered when it was renamed, or when it registers and the name is free.
//!
//! A topic id that two peers store (a directory restored from a backup on
//! another peer) belongs to the one that tells the higher leader epoch. Epochs
//! rise when a topic is claimed away from a peer that is not online.
//!
//! # Invariants
//!
//! 1. A name has at most one holder and at most one claim; where it has both,
//!    they carry the same topic id (the topic is about to change its host).
//! 2. A topic id is held under at most one name, by at most one peer.
//! 3. Every entry belongs to a peer of the registry, and a retired peer has none.
//! 4. Names of peers are unique, and so are their numbers.
//! 5. The nonce of a peer is not among those it displaced.
//! 6. A conflict is of a peer that does not hold that topic id.
//! 7. The leader epoch of a held topic never falls.
//! 8. Only `Tick` makes a peer down, and only after a whole lease without a sign
//!    of it, the time in which the index itself was stopped not counted.
//! 9. Claims and leases end by the monotonic clock; wall-clock time is only told.
//! 10. Everything that a [`Directory`] tells is, or was, in the state, durable.
//! 11. Rows read back give the same state, except for what is said in [`rows`].
//!
//! `State::check` asserts 1 to 6 after every step of the tests; the model test
//! compares 7 to 11 with a second, naive registry.
//!
//! # Deliberately missing
//!
//! Requests, sockets, the disk, the clock and randomness: `now` is an argument.
//! Removing peers that are down for long: only a person may say that they will
//! not come back. Settling a conflict by deleting. Memory of epochs of topics
//! that were dropped: a topic that comes back tells its own.

mod changes;
mod claims;
mod directory;
mod job;
mod jobs;
mod order;
mod peers;
mod places;
mod registering;
pub mod rows;
mod state;
mod table;

#[cfg(test)]
mod model;
#[cfg(test)]
mod stepwise;
#[cfg(test)]
mod tests;

use crate::time::Timestamp;

pub use directory::{Directory, Slice};
pub use job::JobNumber;
pub use state::{Answer, Command, Effects, Event, Settings, State};
pub use table::{Entry, Kind, PeerNumber, bucket_of};

/// Milliseconds of a clock that never jumps, since the process began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Millis(u64);

impl Millis {
    /// Wraps a number of milliseconds.
    pub const fn new(millis: u64) -> Self {
        Self(millis)
    }

    /// So much later, staying at the end of time.
    #[must_use]
    pub fn after(self, duration: std::time::Duration) -> Self {
        let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(millis))
    }

    /// How long this lies after `earlier`; zero if it does not.
    pub const fn since(self, earlier: Self) -> std::time::Duration {
        std::time::Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

/// The moment at which a command is applied, by both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// For leases and claims.
    pub ticks: Millis,
    /// For people.
    pub wall: Timestamp,
}
