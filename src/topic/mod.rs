//! The decisions about topics: which offset, duplicate or not, who may commit
//! what. Pure: no files, no clock, no randomness; time comes as an argument.
//!
//! [`State`] is everything a peer knows, [`Topic`] one topic in it. The storage
//! engine owns one `State` on its writer thread, asks it for decisions, writes
//! the rows it names into the journal and, at the next start, feeds the same
//! rows and record headers back in the same order.
//!
//! ```text
//!   start        committed             end
//!     |              |                  |
//!     v              v                  v
//!  ---[==============|==================)--> offsets, dense, given once
//!   discarded   consumed   not yet consumed
//! ```
//!
//! Invariants:
//!
//! - **T1** `start ≤ end`; both only grow.
//! - **T2** An offset is given once; replaying an entry gives the same one.
//! - **T3** A producer's sequences are appended in order, each once, as long as the producer is remembered.
//! - **T4** A committed offset never falls within a generation and never passes the readable end.
//! - **T5** Generations of a topic's subscriptions and consumer groups never repeat, not even those that were lost to damage.
//! - **T6** A topic that refuses when it is full never holds more bytes or records than its bounds; a batch is
//!   stored whole or not at all, and one that is stored already is no new one.
//! - **T7** Whatever changes a committed offset and is not a commit is kept with it: when, who, from where to where.
//! - **T8** Of the processes that publish under one name only the newest is stored; it goes on at the sequence
//!   after the last one stored. A name that was forgotten is never taken for a new one.
//! - **T9** A message id that is remembered stands for one message: another of that id is a duplicate of it.
//!
//! Absent on purpose: what is durable (the caller knows), and what lies where on the disk.

mod batch;
pub mod compaction;
pub mod consumers;
mod former;
mod history;
mod ids;
pub mod later;
mod model;
mod producers;
mod purges;
mod rows;
mod state;
#[cfg(test)]
mod stories;
mod subscriptions;
#[cfg(test)]
pub(crate) mod tests;

pub use batch::{Admission, BatchFacts, Terms};
pub use history::{Authored, Undo};
pub use ids::{IdPage, IdSeen};
pub use model::Topic;
pub use producers::Opening;
pub use purges::PurgeRow;
pub use rows::{
    HistoryRow, NamedProducer, PeerRow, ProducerBatch, ProducerRow, QuarantineRow, Row, RowKey,
    SegmentRow, SnapshotRow, SubscriptionRow, ThinnedRow, TopicRow,
};
pub use state::{RowChange, State};
pub use subscriptions::{CommitFacts, NewSubscription};
