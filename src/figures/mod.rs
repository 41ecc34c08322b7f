//! Figures: what a node counts, in one place, for whoever watches it.
//!
//! ```text
//!   catalogue ── what there is to be counted: name, kind, unit, labels, meaning
//!       │
//!   Registry ──► handles of the `metrics` crate, kept by whoever counts: one atomic operation each
//!       │
//!   Source   ──► Collected: the registry's figures, and what is computed when somebody asks
//!       │             │
//!   Board    ◄────────┴──► Prometheus text, the answer to `Metrics`
//! ```
//!
//! A node makes a [`Registry`] and hands it to its parts as a recorder of the
//! `metrics` crate; each keeps the handles it needs. What can be computed (lag,
//! free space, topics) is not counted but computed when somebody asks, by the
//! node's [`Source`]. The [`Board`] knows the sources of a process.
//!
//! Invariants:
//!
//! 1. Nothing is counted that is not in the [`catalogue`], which the documentation
//!    lists too; a test compares them with a running peer.
//! 2. Counting is an atomic operation on a handle that is at hand: no lock, no look-up, no
//!    allocation, and once per batch, group or fetch, never per message.
//! 3. What belongs to a topic is kept beside the topic and goes with it.
//! 4. Times are counted in whole microseconds, so that sums are exact.
//!
//! Deliberately missing: a global recorder (an index and a peer in one process count
//! apart), pushing to anywhere, and summaries.

mod board;
pub mod catalogue;
mod histogram;
mod process;
mod registry;
mod sample;
mod text;
mod together;

pub use board::{Board, Collecting, Shown, Source};
pub use catalogue::{Kind, Metric, Unit};
pub use process::{of_descriptors, of_process};
pub use registry::Registry;
pub use sample::{Collected, Family, Label, Sample, Value};
pub use text::{CONTENT_TYPE, amount};
pub use together::Together;
