//! Consumer groups: members share the records of a topic. What they promise, and why it holds, is
//! `docs/consumer-groups.md`.
//!
//! A member joins, takes and settles. [`TakeRecords`] is answered raw: see [`taken`](crate::protocol::taken).

use serde::{Deserialize, Serialize};

use super::{Api, Done, Position, Request, request};
use crate::limits;
use crate::protocol::codec::{self, Malformed};
use crate::time::Timestamp;
use crate::types::{
    Generation, LeaderEpoch, MemberId, Offset, SubscriptionName, TopicId, TopicName,
};

/// How a group hands out, and how often.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsumerGroupOptions {
    /// How long a member may hold a record without a word about it, in milliseconds.
    pub ack_deadline_ms: u64,
    /// After so many failed deliveries a record goes to the dead-letter topic; 0: never.
    pub deliveries_max: u32,
    /// How long a record waits after its first, second, … failed delivery, in milliseconds; the last one holds for
    /// all further ones, none at all means at once.
    pub backoff_ms: Vec<u64>,
    /// Most records that one member holds.
    pub unacked_max: u32,
    /// Records of one key are never at two members, and are given out in their order.
    pub ordered_by_key: bool,
    /// Where dead letters go: a topic on the same peer, made when the first one comes.
    pub dead_letters: TopicName,
}

/// Options as a person gives them: `None` leaves one as it is, or at its default.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ConsumerGroupChanges {
    /// See [`ConsumerGroupOptions::ack_deadline_ms`].
    pub ack_deadline_ms: Option<u64>,
    /// See [`ConsumerGroupOptions::deliveries_max`].
    pub deliveries_max: Option<u32>,
    /// See [`ConsumerGroupOptions::backoff_ms`].
    pub backoff_ms: Option<Vec<u64>>,
    /// See [`ConsumerGroupOptions::unacked_max`].
    pub unacked_max: Option<u32>,
    /// See [`ConsumerGroupOptions::ordered_by_key`]; only when the group is made.
    pub ordered_by_key: Option<bool>,
    /// See [`ConsumerGroupOptions::dead_letters`]; by default `dead.TOPIC.GROUP`.
    pub dead_letters: Option<TopicName>,
}

/// Make a consumer group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateConsumerGroup {
    /// Topic.
    pub topic: TopicName,
    /// Name: not that of a subscription of the topic.
    pub name: SubscriptionName,
    /// Where it begins.
    pub from: Position,
    /// Its options.
    pub options: ConsumerGroupChanges,
    /// Answer with the existing one instead of `ConsumerGroupExists`; its options stay.
    pub if_not_exists: bool,
}
request!(CreateConsumerGroup => ConsumerGroupInfo);

/// Change options; they hold from the next delivery on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetConsumerGroup {
    /// Topic.
    pub topic: TopicName,
    /// Name.
    pub name: SubscriptionName,
    /// What changes.
    pub changes: ConsumerGroupChanges,
}
request!(SetConsumerGroup => ConsumerGroupInfo);

/// Everything about one group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DescribeConsumerGroup {
    /// Topic.
    pub topic: TopicName,
    /// Name.
    pub name: SubscriptionName,
}
request!(DescribeConsumerGroup => ConsumerGroupInfo);

/// What a host knows about a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsumerGroupInfo {
    /// Topic.
    pub topic: TopicName,
    /// Topic id.
    pub topic_id: TopicId,
    /// The topic's leader epoch.
    pub epoch: LeaderEpoch,
    /// Name.
    pub name: SubscriptionName,
    /// Generation that members must carry.
    pub generation: Generation,
    /// Options.
    pub options: ConsumerGroupOptions,
    /// When it was made.
    pub created: Timestamp,
    /// First offset the topic keeps.
    pub start_offset: Offset,
    /// First offset not readable yet.
    pub end_offset: Offset,
    /// First offset that is not settled.
    pub floor: Offset,
    /// Records between floor and end that are not settled, those in flight included.
    pub unsettled: u64,
    /// Of these: held by members.
    pub in_flight: u64,
    /// Of these: failed, and waiting to be delivered again.
    pub failed: u64,
    /// Of these: on their way to the dead-letter topic.
    pub dying: u64,
    /// Age of the oldest record not settled, in milliseconds; 0 when there is none.
    pub lag_ms: u64,
    /// Records acknowledged since the group was made.
    pub acknowledged: u64,
    /// Records moved to the dead-letter topic since the group was made.
    pub dead: u64,
    /// Offsets that were gone before anybody had settled them: discarded, lost or damaged.
    pub skipped: u64,
    /// When something was last settled.
    pub last_settled: Option<Timestamp>,
    /// What keeps records from going on, for people: a dead-letter topic that cannot be made, a record far behind.
    pub stuck: Option<String>,
    /// The members now, at most [`limits::CONSUMER_MEMBERS_MAX`]; a list of groups tells none.
    pub members: Vec<ConsumerMemberInfo>,
}

/// One member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsumerMemberInfo {
    /// Its id, chosen by itself.
    pub id: MemberId,
    /// What its client calls itself, and where it connects from.
    pub client: String,
    /// When it joined.
    pub since: Timestamp,
    /// Records it holds.
    pub in_flight: u64,
}

/// All groups of a topic, or of the peer; ordered by topic and name, page by page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListConsumerGroups {
    /// Only of this topic.
    pub topic: Option<TopicName>,
    /// Last entry of the page before.
    pub after: Option<(TopicName, SubscriptionName)>,
    /// Most entries wanted.
    pub limit: u32,
}
request!(ListConsumerGroups => ConsumerGroupPage);

/// One page of [`ListConsumerGroups`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsumerGroupPage {
    /// The entries.
    pub groups: Vec<ConsumerGroupInfo>,
    /// Whether more follow.
    pub more: bool,
}

/// Remove a group. Its dead-letter topic stays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeleteConsumerGroup {
    /// Topic.
    pub topic: TopicName,
    /// Name.
    pub name: SubscriptionName,
}
request!(DeleteConsumerGroup => Done);

/// Move a group: everything from there on is not settled, everything before it is. What members hold is taken from them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeekConsumerGroup {
    /// Topic.
    pub topic: TopicName,
    /// Name.
    pub name: SubscriptionName,
    /// Where to.
    pub to: Position,
    /// Only tell what would happen.
    pub dry_run: bool,
}
request!(SeekConsumerGroup => SoughtConsumerGroup);

/// What the move did or would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SoughtConsumerGroup {
    /// Where its floor was.
    pub from: Offset,
    /// Where it is now, or would be.
    pub to: Offset,
    /// The group now.
    pub group: ConsumerGroupInfo,
}

/// Become a member, until the connection ends, or [`LeaveConsumerGroup`], or the group is moved or gone: of that the takes
/// and settlements that come later tell. The membership belongs to the connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinConsumerGroup {
    /// Topic.
    pub topic: TopicId,
    /// Group.
    pub name: SubscriptionName,
    /// Its generation.
    pub generation: Generation,
    /// A random id, different for every membership.
    pub member: MemberId,
}
request!(JoinConsumerGroup => Done);

/// Take records, on the connection that joined. Answered raw when there is something, or when the wait is over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TakeRecords {
    /// Topic.
    pub topic: TopicId,
    /// Group.
    pub name: SubscriptionName,
    /// Its generation.
    pub generation: Generation,
    /// Who takes.
    pub member: MemberId,
    /// Most records wanted; the group's `unacked_max` holds as well.
    pub records: u32,
    /// Most bytes wanted; one record comes whatever its size.
    pub bytes: u32,
    /// Longest wait, in milliseconds.
    pub wait_ms: u32,
}

impl TakeRecords {
    /// Encodes the body.
    pub fn encode(&self) -> Result<Vec<u8>, Malformed> {
        codec::encode(self, limits::CONTROL_BYTES_MAX, Api::TakeRecords.name())
    }

    /// Decodes the body.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        codec::decode(bytes, limits::CONTROL_BYTES_MAX, Api::TakeRecords.name())
    }
}

/// Say what became of records that were taken. Answered when that is durable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettleRecords {
    /// Topic.
    pub topic: TopicId,
    /// Group.
    pub name: SubscriptionName,
    /// Its generation.
    pub generation: Generation,
    /// Who settles.
    pub member: MemberId,
    /// What became of what, at most [`limits::SETTLED_RUNS_MAX`].
    pub runs: Vec<SettledRun>,
}
request!(SettleRecords => SettledRecords);

/// Offsets that follow each other, taken with the same delivery number, and of which the same is said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettledRun {
    /// The first one.
    pub first: Offset,
    /// How many.
    pub count: u32,
    /// Number of the delivery they were taken with.
    pub delivery: u32,
    /// What is said.
    pub verdict: Verdict,
}

/// What a member says of a record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// Done with it.
    Ack,
    /// Not now: deliver it again.
    Nak {
        /// After so many milliseconds; after the group's back-off if not told.
        delay_ms: Option<u64>,
    },
    /// Never again: to the dead-letter topic.
    Reject {
        /// Why, for people; at most [`limits::REJECT_REASON_BYTES_MAX`].
        reason: String,
    },
    /// Still at it: the deadline begins anew.
    Extend,
}

/// What was not accepted of a settlement. All else is durable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettledRecords {
    /// Offsets that this member does not hold by that delivery.
    pub not_held: Vec<NotHeld>,
}

/// Offsets that are not held by who wanted to settle them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotHeld {
    /// The first one.
    pub first: Offset,
    /// How many.
    pub count: u32,
    /// What they are instead. Only what is settled is done with.
    pub instead: Instead,
}

/// What an offset is that somebody does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Instead {
    /// It is settled, durably: acknowledged before, among the dead letters, or gone from the topic.
    Settled,
    /// It waits to be given out again: its deadline had passed, or it was taken back behind an earlier one of its key.
    Waiting,
    /// It is in flight by another delivery, or at another member.
    Elsewhere,
    /// It has not been given to anybody since the host began to serve the group.
    Untouched,
}

/// End a membership: what it holds goes to others at once, and no delivery counts as failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaveConsumerGroup {
    /// Topic.
    pub topic: TopicId,
    /// Group.
    pub name: SubscriptionName,
    /// Who leaves.
    pub member: MemberId,
}
request!(LeaveConsumerGroup => Done);

/// Publish the oldest dead letters of a dead-letter topic to the topics they came from again, and remove them there, in one
/// durable step for each origin. Origins have to be on the same peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplayDeadLetters {
    /// The dead-letter topic.
    pub topic: TopicName,
    /// Dead letters before this offset.
    pub before: Offset,
}
request!(ReplayDeadLetters => ReplayedDeadLetters);

/// How far a replay came. One request replays as many as fit into a batch: ask again until `next` is `before`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplayedDeadLetters {
    /// The first dead letter that is left.
    pub next: Offset,
    /// How many were published again.
    pub replayed: u64,
}
