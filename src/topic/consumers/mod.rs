//! Consumer groups: members share the records of a topic. What is promised, and why it holds, is in
//! `docs/consumer-groups.md`; C1 to C9 below refer to it.
//!
//! ```text
//!   Consumers   the rows, as they are durable: part of the state
//!   Group       one group at work: members, what they hold, what is settled
//! ```
//!
//! Whoever works with a group makes a [`Group`] of its rows, decides in it, and has what changed [composed](Group::compose)
//! into rows that become part of the state, one step after the other. Nobody else changes the rows of a group meanwhile.
//!
//! Absent on purpose: records (they are named by their offsets, and keys by what stands for them), waiting, and answers.

mod admin;
mod ahead;
mod dirt;
mod flush;
mod group;
mod keys;
mod rows;
mod runs;
mod settle;
mod stock;
mod take;
#[cfg(test)]
mod tests;

pub use admin::{changed_options, new_options};
pub use ahead::Now;
pub use flush::Flush;
pub use group::{Group, Member, Tally};
pub use rows::{ConsumerGroupRow, ConsumerPageRow, FailedRow, page_of, page_start};
pub use runs::{Key, Millis, Slot};
pub use settle::Dying;
pub use stock::Consumers;
pub use take::{Fresh, Offer, Taker};
