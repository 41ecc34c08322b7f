//! Subscriptions: durable, named cursors on one topic.

use serde::{Deserialize, Serialize};

use super::{Api, Done, Position, Request, request};
use crate::time::Timestamp;
use crate::types::{
    Generation, LeaderEpoch, Offset, SubscriptionName, TopicId, TopicName, TopicPattern,
};

/// Make a subscription.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateSubscription {
    /// Topic.
    pub topic: TopicName,
    /// Name.
    pub name: SubscriptionName,
    /// Where it begins.
    pub from: Position,
    /// Answer with the existing one instead of `SubscriptionExists`.
    pub if_not_exists: bool,
    /// It vanishes when nobody uses it for so many milliseconds; `None`: it stays until it is removed.
    pub expire_ms: Option<u64>,
}
request!(CreateSubscription => SubscriptionInfo);

/// Everything about one subscription.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubscriptionInfo {
    /// Topic.
    pub topic: TopicName,
    /// Topic id.
    pub topic_id: TopicId,
    /// The topic's leader epoch.
    pub epoch: LeaderEpoch,
    /// Name.
    pub name: SubscriptionName,
    /// Next offset to read.
    pub committed_offset: Offset,
    /// Generation that commits must carry.
    pub generation: Generation,
    /// First offset the topic keeps.
    pub start_offset: Offset,
    /// First offset not readable yet.
    pub end_offset: Offset,
    /// Age of the oldest record not confirmed, in milliseconds; 0 when none waits.
    pub lag_ms: u64,
    /// When it was made.
    pub created: Timestamp,
    /// When it was last committed.
    pub last_commit: Option<Timestamp>,
    /// Nothing is handed out through it for now.
    pub paused: bool,
    /// It vanishes when nobody uses it for so many milliseconds.
    pub expire_ms: Option<u64>,
    /// Of these so many are left; `None` while it does not expire or somebody attends it.
    pub expires_in_ms: Option<u64>,
    /// Readers that attend it now.
    pub readers: u64,
}

/// Remove a subscription.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeleteSubscription {
    /// Topic.
    pub topic: TopicName,
    /// Name.
    pub name: SubscriptionName,
}
request!(DeleteSubscription => Done);

/// Everything about one subscription.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DescribeSubscription {
    /// Topic.
    pub topic: TopicName,
    /// Name.
    pub name: SubscriptionName,
}
request!(DescribeSubscription => SubscriptionInfo);

/// All subscriptions of a topic, or of the peer; ordered by topic and name, page by page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListSubscriptions {
    /// Only of this topic.
    pub topic: Option<TopicName>,
    /// Last entry of the page before.
    pub after: Option<(TopicName, SubscriptionName)>,
    /// Most entries wanted.
    pub limit: u32,
}
request!(ListSubscriptions => SubscriptionPage);

/// One page of [`ListSubscriptions`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubscriptionPage {
    /// The entries.
    pub subscriptions: Vec<SubscriptionInfo>,
    /// Whether more follow.
    pub more: bool,
}

/// Move a subscription.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeekSubscription {
    /// Topic.
    pub topic: TopicName,
    /// Name.
    pub name: SubscriptionName,
    /// Where to.
    pub to: Position,
    /// Only tell what would happen.
    pub dry_run: bool,
}
request!(SeekSubscription => Sought);

/// What the move did or would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sought {
    /// Where it stood.
    pub from: Offset,
    /// Where it stands now, or would.
    pub to: Offset,
    /// The subscription now.
    pub subscription: SubscriptionInfo,
}

/// Confirm everything before `offset`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commit {
    /// Topic.
    pub topic: TopicId,
    /// Subscription.
    pub name: SubscriptionName,
    /// Generation it was read under.
    pub generation: Generation,
    /// Next offset to read.
    pub offset: Offset,
}
request!(Commit => Committed);

/// The position now, durable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Committed {
    /// Highest committed offset of this generation.
    pub offset: Offset,
}

/// Change what can be set on a subscription.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetSubscription {
    /// Topic.
    pub topic: TopicName,
    /// Name.
    pub name: SubscriptionName,
    /// What changes.
    pub changes: SubscriptionChanges,
}
request!(SetSubscription => SubscriptionInfo);

/// Changes of a subscription: `None` leaves something as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct SubscriptionChanges {
    /// Whether it is paused.
    pub paused: Option<bool>,
    /// When it expires; `Some(None)`: never.
    pub expire_ms: Option<Option<u64>>,
}

/// Wait until a subscription is paused or resumed. While this waits the subscription is in use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchSubscription {
    /// Topic.
    pub topic: TopicId,
    /// Subscription.
    pub name: SubscriptionName,
    /// What the reader knows: answered as soon as it is otherwise.
    pub paused: bool,
    /// Longest wait, in milliseconds.
    pub max_wait_ms: u32,
}
request!(WatchSubscription => WatchedSubscription);

/// Wait until subscriptions of one name are paused or resumed, on all topics of a peer that match. While this waits
/// they are in use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchSubscriptions {
    /// Their name.
    pub name: SubscriptionName,
    /// Which topics.
    pub pattern: TopicPattern,
    /// The topics on which the reader knows them to be paused: answered as soon as it is otherwise. At most
    /// [`limits::PAUSED_TOLD_MAX`](crate::limits::PAUSED_TOLD_MAX).
    pub paused: Vec<TopicId>,
    /// Longest wait, in milliseconds.
    pub max_wait_ms: u32,
}
request!(WatchSubscriptions => WatchedSubscriptions);

/// How they are now, durably.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchedSubscriptions {
    /// The topics on which they are paused, by id; the first of them where there are very many.
    pub paused: Vec<TopicId>,
}

/// How it is now, durably.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchedSubscription {
    /// Whether it is paused.
    pub paused: bool,
}
