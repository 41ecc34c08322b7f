//! What a directory holds, line by line.

use serde::Serialize;

use crate::cli::output::{self, Column, Row, left, right};
use crate::cli::subscription::history::ChangeRow;
use crate::journal::Kind;
use crate::store::offline::{
    ListedSegment, ListedTopic, SegmentStats, SegmentUse, TopicStats, Weight,
};
use crate::time::Timestamp;
use crate::topic::SubscriptionRow;
use crate::topic::consumers::ConsumerGroupRow;
use crate::types::{
    Durability, Gap, Generation, LeaderEpoch, Offset, Retention, SubscriptionName, TopicId,
    TopicName, WhenFull,
};

#[derive(Debug, Serialize)]
pub(super) struct TopicLine {
    name: TopicName,
    #[serde(serialize_with = "output::as_text")]
    id: TopicId,
    epoch: LeaderEpoch,
    start_offset: Offset,
    end_offset: Offset,
    records: u64,
    bytes: u64,
    durability: Durability,
    retention: Retention,
    when_full: WhenFull,
    #[serde(serialize_with = "output::as_text")]
    created: Timestamp,
    #[serde(serialize_with = "output::as_text_or_null")]
    last_append: Option<Timestamp>,
    subscriptions: u64,
    quarantined: bool,
    gaps: Vec<Gap>,
}

impl From<&ListedTopic> for TopicLine {
    fn from(topic: &ListedTopic) -> Self {
        let row = &topic.row;
        Self {
            name: row.name.clone(),
            id: topic.id,
            epoch: row.epoch,
            start_offset: row.start,
            end_offset: row.end,
            records: topic.records(),
            bytes: row.bytes,
            durability: row.settings.durability,
            retention: row.settings.retention,
            when_full: row.settings.when_full,
            created: row.created,
            last_append: row.last_append,
            subscriptions: topic.subscriptions.len() as u64,
            quarantined: row.quarantine.is_some(),
            gaps: row.gaps.clone(),
        }
    }
}

impl Row for TopicLine {
    const COLUMNS: &'static [Column] = &[
        left("TOPIC"),
        right("START"),
        right("END"),
        right("MESSAGES"),
        right("SIZE"),
        right("SUBS"),
        left("DURABILITY"),
        left("LAST MESSAGE"),
        left("NOTE"),
    ];

    fn name(&self) -> String {
        self.name.to_string()
    }

    fn cells(&self) -> Vec<String> {
        vec![
            self.name(),
            self.start_offset.to_string(),
            self.end_offset.to_string(),
            output::number(self.records),
            output::bytes(self.bytes),
            output::number(self.subscriptions),
            self.durability.to_string(),
            output::or_dash(self.last_append, |time| time.to_string()),
            match (self.quarantined, self.gaps.len() as u64) {
                (true, _) => "quarantined".to_owned(),
                (false, 0) => String::new(),
                (false, n) => output::count(n, "gap"),
            },
        ]
    }

    fn card(&self) -> Vec<(&'static str, String)> {
        vec![("name", self.name())]
    }
}

#[derive(Debug, Serialize)]
pub(super) struct SubscriptionLine {
    topic: TopicName,
    name: SubscriptionName,
    committed_offset: Offset,
    end_offset: Offset,
    lag_records: u64,
    generation: Generation,
    #[serde(serialize_with = "output::as_text")]
    created: Timestamp,
    #[serde(serialize_with = "output::as_text_or_null")]
    last_commit: Option<Timestamp>,
    paused: bool,
    expire_ms: Option<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    history: Vec<ChangeRow>,
}

impl SubscriptionLine {
    pub(super) fn new(
        topic: &ListedTopic,
        (name, row): &(SubscriptionName, SubscriptionRow),
    ) -> Self {
        let history = topic.histories.get(name);
        let history = history.map_or(&[][..], |history| &history.changes);
        Self {
            history: history.iter().map(ChangeRow::from).collect(),
            topic: topic.row.name.clone(),
            name: name.clone(),
            committed_offset: row.committed,
            end_offset: topic.row.end,
            lag_records: topic.row.end.since(row.committed),
            generation: row.generation,
            created: row.created,
            last_commit: row.last_commit,
            paused: row.paused,
            expire_ms: row.expire_ms,
        }
    }
}

impl Row for SubscriptionLine {
    const COLUMNS: &'static [Column] = &[
        left("SUBSCRIPTION"),
        left("TOPIC"),
        right("COMMITTED"),
        right("LAG"),
        right("GENERATION"),
        left("LAST COMMIT"),
        left("NOTE"),
    ];

    fn name(&self) -> String {
        self.name.to_string()
    }

    fn cells(&self) -> Vec<String> {
        vec![
            self.name(),
            self.topic.to_string(),
            self.committed_offset.to_string(),
            output::number(self.lag_records),
            self.generation.to_string(),
            output::or_dash(self.last_commit, |time| time.to_string()),
            match self.paused {
                true => "paused".to_owned(),
                false => String::new(),
            },
        ]
    }

    fn card(&self) -> Vec<(&'static str, String)> {
        vec![("name", self.name())]
    }
}

#[derive(Debug, Serialize)]
pub(super) struct GroupLine {
    topic: TopicName,
    name: SubscriptionName,
    floor: Offset,
    unsettled: u64,
    acknowledged: u64,
    dead: u64,
    skipped: u64,
    generation: Generation,
    #[serde(serialize_with = "output::as_text")]
    created: Timestamp,
}

impl GroupLine {
    pub(super) fn new(
        topic: &ListedTopic,
        (name, row, unsettled): &(SubscriptionName, ConsumerGroupRow, u64),
    ) -> Self {
        Self {
            topic: topic.row.name.clone(),
            name: name.clone(),
            floor: row.floor,
            unsettled: *unsettled,
            acknowledged: row.acknowledged,
            dead: row.dead,
            skipped: row.skipped,
            generation: row.generation,
            created: row.created,
        }
    }
}

impl Row for GroupLine {
    const COLUMNS: &'static [Column] = &[
        left("GROUP"),
        left("TOPIC"),
        right("FLOOR"),
        right("UNSETTLED"),
        right("ACKNOWLEDGED"),
        right("DEAD"),
    ];

    fn name(&self) -> String {
        self.name.to_string()
    }

    fn cells(&self) -> Vec<String> {
        vec![
            self.name(),
            self.topic.to_string(),
            self.floor.to_string(),
            output::number(self.unsettled),
            output::number(self.acknowledged),
            output::number(self.dead),
        ]
    }

    fn card(&self) -> Vec<(&'static str, String)> {
        vec![("name", self.name())]
    }
}

#[derive(Debug, Serialize)]
pub(super) struct SegmentLine {
    slot: u32,
    segment: Option<u64>,
    kind: Option<&'static str>,
    #[serde(rename = "use", serialize_with = "output::as_text")]
    used: SegmentUse,
    contents_bytes: u64,
    groups: Option<(u64, u64)>,
    damaged: bool,
    #[serde(flatten)]
    weight: Option<WeightLine>,
}

#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct WeightLine {
    live_bytes: u64,
    dead_bytes: u64,
    topics: u64,
}

const fn kind_text(kind: Kind) -> &'static str {
    match kind {
        Kind::Stream => "stream",
        Kind::Recovery => "recovery",
        Kind::Cold => "cold",
    }
}

impl From<&ListedSegment> for SegmentLine {
    fn from(segment: &ListedSegment) -> Self {
        Self {
            slot: segment.slot,
            segment: segment.segment,
            kind: segment.kind.map(kind_text),
            used: segment.used,
            contents_bytes: segment.contents_bytes,
            groups: segment.groups,
            damaged: segment.damaged,
            weight: None,
        }
    }
}

impl From<&SegmentStats> for SegmentLine {
    fn from(stats: &SegmentStats) -> Self {
        Self {
            weight: Some(WeightLine {
                live_bytes: stats.weight.live_bytes,
                dead_bytes: stats.weight.dead_bytes,
                topics: stats.topics,
            }),
            ..Self::from(&stats.segment)
        }
    }
}

impl Row for SegmentLine {
    const COLUMNS: &'static [Column] = &[
        right("SLOT"),
        right("SEGMENT"),
        left("KIND"),
        left("USE"),
        right("CONTENTS"),
        right("LIVE"),
        right("DEAD"),
        right("TOPICS"),
        left("GROUPS"),
        left("NOTE"),
    ];

    fn name(&self) -> String {
        format!("slot-{:08}", self.slot)
    }

    fn cells(&self) -> Vec<String> {
        let weight = |of: fn(WeightLine) -> u64| {
            output::or_dash(self.weight, |weight| output::bytes(of(weight)))
        };
        vec![
            self.slot.to_string(),
            output::or_dash(self.segment, |number| number.to_string()),
            output::or_dash(self.kind, str::to_owned),
            self.used.to_string(),
            output::bytes(self.contents_bytes),
            weight(|weight| weight.live_bytes),
            weight(|weight| weight.dead_bytes),
            output::or_dash(self.weight, |weight| output::number(weight.topics)),
            output::or_dash(self.groups, |(first, last)| format!("{first}..{last}")),
            if self.damaged { "damaged" } else { "" }.to_owned(),
        ]
    }

    fn card(&self) -> Vec<(&'static str, String)> {
        vec![("slot", self.name())]
    }
}

#[derive(Debug, Serialize)]
pub(super) struct TopicWeight {
    name: Option<TopicName>,
    #[serde(serialize_with = "output::as_text")]
    id: TopicId,
    records: u64,
    live_bytes: u64,
    dead_bytes: u64,
    segments: u64,
}

impl From<&TopicStats> for TopicWeight {
    fn from(stats: &TopicStats) -> Self {
        let Weight {
            live_bytes,
            dead_bytes,
        } = stats.weight;
        Self {
            name: stats.name.clone(),
            id: stats.id,
            records: stats.records,
            live_bytes,
            dead_bytes,
            segments: stats.segments,
        }
    }
}

impl TopicWeight {
    /// Whether it still is a topic.
    pub(super) fn is_named(&self) -> bool {
        self.name.is_some()
    }
}

impl Row for TopicWeight {
    const COLUMNS: &'static [Column] = &[
        left("TOPIC"),
        right("MESSAGES"),
        right("LIVE"),
        right("DEAD"),
        right("SEGMENTS"),
    ];

    fn name(&self) -> String {
        match &self.name {
            Some(name) => name.to_string(),
            None => format!("(deleted {})", self.id),
        }
    }

    fn cells(&self) -> Vec<String> {
        vec![
            self.name(),
            output::number(self.records),
            output::bytes(self.live_bytes),
            output::bytes(self.dead_bytes),
            output::number(self.segments),
        ]
    }

    fn card(&self) -> Vec<(&'static str, String)> {
        vec![("name", self.name())]
    }
}
