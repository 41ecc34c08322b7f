//! Connections: what index servers, peers and clients share of the network.
//!
//! ```text
//!   listener ── accepts, counts, refuses ──► connection ── frames, hello, admission ──► Service
//!                                               ▲                                         │
//!                                               └───── outbox ◄── Reply (any thread) ◄────┘
//!   dial ── hello ──► link: correlation, pipelining ──► the same frames from the other side
//! ```
//!
//! A request with one answer has a [`Reply`] at the server and a [`Pending`] at the client; one with many
//! has an [`Outlet`] and an [`Inlet`], and between them the client's credit (`streams`).
//!
//! The listening socket and the stop signal are handed in from outside; nothing
//! here decides what a request means. A server implements [`Service`].
//!
//! Invariants:
//!
//! 1. **Every admitted request is answered exactly once**, or as a stream and then ended once.
//!    A [`Reply`] that is dropped answers with an error; a lost request cannot hang a client.
//! 2. **A place in the outgoing queue belongs to each admitted request**, so
//!    answering never waits and can be done from any thread. What a stream sends is paid for
//!    by the client's credit and out of the budgets before it exists.
//! 3. **Memory is bounded**: requests from admission, and answers from the
//!    moment they are asked for, are paid for out of a budget per connection and
//!    one of the process ([`budget`]). Who finds it empty waits, and the server stops
//!    reading; who reads a topic and takes its answers gets a little meanwhile.
//! 4. **Waiting for memory ends.** A holder of request memory may wait for
//!    answer memory, never for more request memory; a holder of answer memory
//!    waits for nothing but its socket, and while others wait a socket that does
//!    not move is closed.
//! 5. **What one connection does costs that connection**: a bad frame gets an
//!    error frame and a close, a slow one a deadline.
//!
//! Absent on purpose: TLS, Unix sockets, and any knowledge of topics.

pub mod budget;
pub mod dial;
pub mod figures;
pub mod listener;
pub mod shutdown;

mod admission;
mod body;
mod connection;
mod context;
mod inlet;
mod link;
mod outbox;
mod outlet;
mod reader;
mod service;
mod streams;

pub use body::Body;
pub use context::{Timeouts, Traffic};
pub use dial::{CallError, Connection, DialOptions, Pending};
pub use figures::Surroundings;
pub use inlet::Inlet;
pub use listener::Server;
pub use outlet::{Outlet, Place};
pub use service::{Call, ClientInfo, Handling, Later, Reply, Service};
pub use streams::Ending;

#[cfg(test)]
mod tests;
