//! Messages that are delivered later: they lie in a companion of their topic until then.

use serde::{Deserialize, Serialize};

use super::{Api, Request, request};
use crate::time::Timestamp;
use crate::types::{Offset, TopicId, TopicName};

/// Where do messages of a topic go that are to be delivered later? The companion is made if it is not there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenLater {
    /// Id of the topic.
    pub topic: TopicId,
}
request!(OpenLater => OpenedLater);

/// The companion of a topic. Messages that are published there, with a header that says when, are delivered to the topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenedLater {
    /// Its id.
    pub id: TopicId,
    /// Its name.
    pub name: TopicName,
}

/// What is to be delivered later, the earliest first?
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListLater {
    /// Only to that topic. Also by the name of its companion, for one that is gone.
    pub topic: Option<TopicName>,
    /// Where the page before ended.
    pub after: Option<LaterPlace>,
    /// Most messages, at most [`limits::DELAYED_PER_PAGE_MAX`](crate::limits::DELAYED_PER_PAGE_MAX); 0: only the topics.
    pub limit: u32,
}
request!(ListLater => LaterPage);

/// A place in a list: messages are in this order.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LaterPlace {
    /// When the message is due.
    pub at: Timestamp,
    /// The companion it lies in.
    pub stored_in: TopicName,
    /// Its number.
    pub number: Offset,
}

/// A page of what is pending.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaterPage {
    /// Topics with pending messages, or with something that keeps them; of several pages the first one tells them.
    pub topics: Vec<LaterTopic>,
    /// Pending messages.
    pub messages: Vec<LaterMessage>,
    /// Whether more follow.
    pub more: bool,
}

/// A topic with delayed messages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaterTopic {
    /// Its name; if it is gone, what its companion's name says.
    pub topic: TopicName,
    /// Its id.
    pub topic_id: TopicId,
    /// Its companion.
    pub stored_in: TopicName,
    /// Messages that are pending.
    pub pending: u64,
    /// When the earliest is due.
    pub next: Option<Timestamp>,
    /// What keeps those that are due.
    pub kept_by: Option<String>,
}

/// A message that is to be delivered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaterMessage {
    /// The topic it goes to.
    pub topic: TopicName,
    /// The companion it lies in.
    pub stored_in: TopicName,
    /// Its number: the offset it was acknowledged with.
    pub number: Offset,
    /// When it is due.
    pub at: Timestamp,
    /// When it was made.
    pub timestamp: Timestamp,
    /// Its id.
    pub id: Option<Vec<u8>>,
    /// The beginning of its key.
    pub key: Option<Vec<u8>>,
    /// The beginning of its payload.
    pub payload: Vec<u8>,
    /// Bytes of the whole payload.
    pub payload_bytes: u64,
}

/// Deliver some of it never.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CancelLater {
    /// The topic, or its companion.
    pub topic: TopicName,
    /// Which messages.
    pub which: LaterChoice,
}
request!(CancelLater => CancelledLater);

/// Some of the pending messages of a topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum LaterChoice {
    /// The one of that id.
    Id(Vec<u8>),
    /// The one of that number.
    Number(Offset),
    /// All of them.
    All,
}

/// What was cancelled, durably.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CancelledLater {
    /// How many messages.
    pub cancelled: u64,
    /// None, but there was one: it was delivered, or cancelled before.
    pub too_late: bool,
}
