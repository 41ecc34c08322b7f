//! Topics at their host.

use serde::{Deserialize, Serialize};

use super::{Api, Done, PeerLoad, Request, request};
use crate::time::Timestamp;
use crate::types::{
    Compaction, Gap, LeaderEpoch, Offset, PeerId, PeerName, RememberIds, Retention, TopicId,
    TopicName, TopicPattern, TopicSettings, WhenFull,
};

/// Create a topic here. The peer claims the name, makes it durable and confirms it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateTopic {
    /// Name.
    pub name: TopicName,
    /// Settings.
    pub settings: TopicSettings,
    /// Answer with the existing topic of that name here instead of `TopicExists`.
    pub if_not_exists: bool,
}
request!(CreateTopic => CreatedTopic);

/// The topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreatedTopic {
    /// All about it.
    pub topic: TopicInfo,
    /// Whether this request made it.
    pub created: bool,
}

/// Everything a host knows about one of its topics.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicInfo {
    /// Name.
    pub name: TopicName,
    /// Id.
    pub id: TopicId,
    /// Leader epoch.
    pub epoch: LeaderEpoch,
    /// Settings.
    pub settings: TopicSettings,
    /// First offset kept.
    pub start_offset: Offset,
    /// First offset readers cannot have yet.
    pub end_offset: Offset,
    /// First offset that is not on the disk yet.
    pub durable_end_offset: Offset,
    /// Live bytes of record batches.
    pub bytes: u64,
    /// When it was created.
    pub created: Timestamp,
    /// When its last record was appended.
    pub last_append: Option<Timestamp>,
    /// Number of subscriptions.
    pub subscriptions: u64,
    /// Publishing is refused until the loss is accepted.
    pub quarantined: bool,
    /// The name belongs to another topic at the index; this one is stored, unpublished.
    pub conflict: bool,
    /// Offsets inside `[start, end)` that no reader will see.
    pub gaps: Vec<Gap>,
    /// How many others have no message any more: it was compacted, expired or purged.
    pub removed: u64,
    /// Below this offset each key has one message.
    pub compacted_offset: Offset,
    /// Purges of keys whose bytes are not all gone yet.
    pub purges: u32,
}

/// Delete a topic and everything in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeleteTopic {
    /// Name.
    pub name: TopicName,
    /// If given, only a topic of this id is meant.
    pub id: Option<TopicId>,
}
request!(DeleteTopic => Done);

/// Everything about one topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DescribeTopic {
    /// Name.
    pub name: TopicName,
}
request!(DescribeTopic => TopicInfo);

/// Everything about all topics stored here, in the order of their names, page by page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DescribeTopics {
    /// Which names.
    pub pattern: TopicPattern,
    /// Last name of the page before.
    pub after: Option<TopicName>,
    /// Most entries wanted.
    pub limit: u32,
}
request!(DescribeTopics => TopicInfoPage);

/// One page of [`DescribeTopics`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicInfoPage {
    /// The entries.
    pub topics: Vec<TopicInfo>,
    /// Whether more follow.
    pub more: bool,
}

/// Change settings; they replace the old ones whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetTopic {
    /// Name.
    pub name: TopicName,
    /// What changes.
    pub changes: TopicChanges,
}
request!(SetTopic => TopicInfo);

/// Changes of settings: `None` leaves one as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct TopicChanges {
    /// Durability.
    pub durability: Option<crate::types::Durability>,
    /// Age kept, in milliseconds; `Some(None)` removes the bound.
    pub retain_age_ms: Option<Option<u64>>,
    /// Bytes kept.
    pub retain_bytes: Option<Option<u64>>,
    /// Records kept.
    pub retain_records: Option<Option<u64>>,
    /// Whether what every subscription confirmed is discarded.
    pub retain_interest: Option<bool>,
    /// What happens when it is full.
    pub when_full: Option<WhenFull>,
    /// How long message ids are remembered, in milliseconds.
    pub remember_ids_for_ms: Option<Option<u64>>,
    /// How many message ids are remembered.
    pub remember_ids_max: Option<Option<u64>>,
    /// Whether older messages of a key go.
    pub compact: Option<bool>,
    /// How long deletions are kept, in milliseconds.
    pub tombstone_age_ms: Option<Option<u64>>,
}

impl TopicChanges {
    /// The settings after the changes.
    pub fn apply(&self, to: TopicSettings) -> TopicSettings {
        TopicSettings {
            durability: self.durability.unwrap_or(to.durability),
            retention: Retention {
                age_ms: self.retain_age_ms.unwrap_or(to.retention.age_ms),
                bytes: self.retain_bytes.unwrap_or(to.retention.bytes),
                records: self.retain_records.unwrap_or(to.retention.records),
                interest: self.retain_interest.unwrap_or(to.retention.interest),
            },
            when_full: self.when_full.unwrap_or(to.when_full),
            ids: RememberIds {
                for_ms: self.remember_ids_for_ms.unwrap_or(to.ids.for_ms),
                max: self.remember_ids_max.unwrap_or(to.ids.max),
            },
            compaction: Compaction {
                on: self.compact.unwrap_or(to.compaction.on),
                tombstone_age_ms: (self.tombstone_age_ms).unwrap_or(to.compaction.tombstone_age_ms),
            },
        }
    }
}

/// Give a topic another name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenameTopic {
    /// Its name.
    pub name: TopicName,
    /// The name it gets.
    pub new: TopicName,
}
request!(RenameTopic => TopicInfo);

/// Discard records up to a place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PurgeTopic {
    /// Name.
    pub name: TopicName,
    /// The first record to keep.
    pub before: Position,
}
request!(PurgeTopic => TopicInfo);

/// Erase the records of a key that are there now: from the answer on nobody gets them, and their bytes go as soon as the
/// segments they are in can be copied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PurgeKey {
    /// Topic.
    pub name: TopicName,
    /// The key.
    pub key: Vec<u8>,
}
request!(PurgeKey => TopicInfo);

/// End a quarantine: the topic goes on at its claimed end, what is missing becomes a gap.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcceptLoss {
    /// Name.
    pub name: TopicName,
}
request!(AcceptLoss => AcceptedLoss);

/// What was given up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcceptedLoss {
    /// The missing offsets.
    pub gap: Gap,
}

/// A place in a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Position {
    /// The first record kept.
    Beginning,
    /// After the last readable record.
    End,
    /// That offset.
    Offset(Offset),
    /// So many records before the end.
    Back(u64),
    /// Behind the last record appended before that time: the first one appended at or after it, or the gap in front
    /// of that.
    Time(Timestamp),
}

/// Turn a place into an offset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FindOffset {
    /// Topic.
    pub topic: TopicName,
    /// Place.
    pub position: Position,
}
request!(FindOffset => FoundOffset);

/// The offset, and the topic it belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundOffset {
    /// Topic id.
    pub id: TopicId,
    /// Leader epoch.
    pub epoch: LeaderEpoch,
    /// The offset, inside `[start, end]` of the topic.
    pub offset: Offset,
    /// First offset kept.
    pub start_offset: Offset,
    /// First offset not readable yet.
    pub end_offset: Offset,
}

/// How is this peer?
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerStatus {}
request!(PeerStatus => PeerStatusAnswer);

/// What a peer tells of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerStatusAnswer {
    /// Identity.
    pub id: PeerId,
    /// Name.
    pub name: PeerName,
    /// Program version.
    pub version: String,
    /// When the process started.
    pub started: Timestamp,
    /// Its load.
    pub load: PeerLoad,
    /// Resident memory, in bytes.
    pub rss_bytes: u64,
    /// Processor time used, in milliseconds.
    pub cpu_ms: u64,
    /// Bytes of record batches taken since the start.
    pub payload_bytes: u64,
    /// Bytes the process caused to be written to the disk since the start.
    pub disk_written_bytes: u64,
    /// Number of journal segments.
    pub segments: u64,
    /// Bytes the journal takes on disk.
    pub journal_bytes: u64,
    /// Damage found, one line each.
    pub damage: Vec<String>,
    /// Whether the index answers.
    pub index_reachable: bool,
}
