//! Where topics end, for whoever follows many of them.

use serde::{Deserialize, Serialize};

use super::{Api, Request, request};
use crate::types::{Offset, TopicId, TopicName, TopicPattern};

/// Wait until the readable ends of topics stored here move, at most `max_wait_ms`. Whoever has seen nothing on this
/// connection is told all of them at once, page by page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchEnds {
    /// Version that was told last on this connection; 0 for none.
    pub version: u64,
    /// Which topics.
    pub pattern: TopicPattern,
    /// Where the page before ended.
    pub after: Option<TopicName>,
    /// Longest wait, in milliseconds, at most [`limits::FETCH_WAIT_MAX`](crate::limits::FETCH_WAIT_MAX).
    pub max_wait_ms: u32,
}
request!(WatchEnds => TopicEnds);

/// The ends that moved, or all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicEnds {
    /// What is told up to here; pass it to the next watch. Of several pages the first one's counts.
    pub version: u64,
    /// Whether this is a page of all that match, because what moved since is not known.
    pub all: bool,
    /// The topics.
    pub ends: Vec<TopicEnd>,
    /// Where the next page begins, if there is one.
    pub next: Option<TopicName>,
}

/// What a topic holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicEnd {
    /// Topic.
    pub id: TopicId,
    /// First offset kept.
    pub start_offset: Offset,
    /// First offset not readable yet.
    pub end_offset: Offset,
}
