//! Consumer groups: members share the records of a topic. What is promised, and why it holds, is in
//! `docs/consumer-groups.md`; C1 to C9 below refer to it.

mod rows;
mod stock;

pub use rows::{ConsumerGroupRow, ConsumerPageRow, FailedRow, page_of, page_start};
pub use stock::Consumers;
