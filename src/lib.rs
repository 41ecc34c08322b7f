//! Tidings: a peer-to-peer publish/subscribe broker that keeps what it is told.
//!
//! Peers host topics and store every message; an index server keeps the
//! registry of peers and topics; clients ask once who hosts a topic and then
//! publish, subscribe and pull directly at that peer.
//!
//! The modules stand on floors; each uses only those before it in this list.

pub mod limits;
pub mod process;
pub mod time;
pub mod types;

mod buffers;

pub mod figures;

pub mod protocol;

pub mod registry;

pub mod topic;

pub mod journal;

pub mod catalog;

pub mod store;

pub mod net;

pub mod http;

pub mod client;

pub mod index;

pub mod peer;

pub mod demo;

pub mod cli;
