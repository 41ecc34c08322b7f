//! The wire: frames, the hello, requests, errors and record batches. Pure, no IO.
//!
//! Every frame is
//!
//! ```text
//! length u32 | api u16 | version u8 | flags u8 | correlation u32 | body
//! ```
//!
//! little endian, `length` counting what follows it. Control bodies are encoded
//! by [`codec`]; `Publish` and the answers to `Fetch` and `TakeRecords` carry record batches raw.
//! `docs/protocol.md` specifies every byte; the vectors in `data/fixtures/protocol/`
//! pin them.
//!
//! Absent on purpose: sockets, time, randomness, and any type of a role.

pub mod api;
pub mod batch;
pub mod codec;
pub mod data;
pub mod dead;
pub mod error;
pub mod frame;
pub mod taken;

#[cfg(test)]
mod golden;
#[cfg(test)]
mod page;
