//! Values of rows as earlier versions wrote them: read, never written.
//!
//! A row of version 1 means what it meant: what its fields did not say is what was so before they could.

use serde::Deserialize;

use super::rows::{self, QuarantineRow};
use crate::time::Timestamp;
use crate::types::{
    Compaction, Durability, Gap, Generation, LeaderEpoch, Offset, ProducerEpoch, RememberIds,
    Retention, StateNumber, TopicName, TopicSettings, WhenFull,
};

/// Bounds of version 1: nothing was discarded for having been confirmed.
#[derive(Debug, Deserialize)]
struct Bounds {
    age_ms: Option<u64>,
    bytes: Option<u64>,
    records: Option<u64>,
}

/// Settings of version 1: a full topic discarded the oldest.
#[derive(Debug, Deserialize)]
struct Settings {
    durability: Durability,
    retention: Bounds,
}

impl From<Settings> for TopicSettings {
    fn from(of: Settings) -> Self {
        Self {
            durability: of.durability,
            retention: Retention {
                age_ms: of.retention.age_ms,
                bytes: of.retention.bytes,
                records: of.retention.records,
                interest: false,
            },
            when_full: WhenFull::DiscardOldest,
            ids: RememberIds::default(),
            compaction: Compaction::default(),
        }
    }
}

/// Settings of version 2: nothing was compacted.
#[derive(Debug, Deserialize)]
struct Settings2 {
    durability: Durability,
    retention: Retention,
    when_full: WhenFull,
    ids: RememberIds,
}

impl From<Settings2> for TopicSettings {
    fn from(of: Settings2) -> Self {
        Self {
            durability: of.durability,
            retention: of.retention,
            when_full: of.when_full,
            ids: of.ids,
            compaction: Compaction::default(),
        }
    }
}

/// Facts about a topic, version 1.
#[derive(Debug, Deserialize)]
pub(super) struct TopicRow {
    name: TopicName,
    epoch: LeaderEpoch,
    settings: Settings,
    created: Timestamp,
    start: Offset,
    end: Offset,
    bytes: u64,
    state_number: StateNumber,
    accepted_state: StateNumber,
    generation: Generation,
    bound: Option<Offset>,
    quarantine: Option<QuarantineRow>,
    gaps: Vec<Gap>,
    last_append: Option<Timestamp>,
    jump_before: Option<Offset>,
}

impl From<TopicRow> for rows::TopicRow {
    fn from(of: TopicRow) -> Self {
        Self {
            name: of.name,
            epoch: of.epoch,
            settings: of.settings.into(),
            created: of.created,
            start: of.start,
            end: of.end,
            bytes: of.bytes,
            state_number: of.state_number,
            accepted_state: of.accepted_state,
            generation: of.generation,
            bound: of.bound,
            quarantine: of.quarantine,
            gaps: of.gaps,
            last_append: of.last_append,
            jump_before: of.jump_before,
            producer_epoch: ProducerEpoch::ZERO,
            names_forgotten: false,
            thinned: rows::ThinnedRow::default(),
        }
    }
}

/// Facts about a topic, version 2: nothing was taken out of its middle.
#[derive(Debug, Deserialize)]
pub(super) struct TopicRow2 {
    name: TopicName,
    epoch: LeaderEpoch,
    settings: Settings2,
    created: Timestamp,
    start: Offset,
    end: Offset,
    bytes: u64,
    state_number: StateNumber,
    accepted_state: StateNumber,
    generation: Generation,
    bound: Option<Offset>,
    quarantine: Option<QuarantineRow>,
    gaps: Vec<Gap>,
    last_append: Option<Timestamp>,
    jump_before: Option<Offset>,
    producer_epoch: ProducerEpoch,
    names_forgotten: bool,
}

impl From<TopicRow2> for rows::TopicRow {
    fn from(of: TopicRow2) -> Self {
        Self {
            name: of.name,
            epoch: of.epoch,
            settings: of.settings.into(),
            created: of.created,
            start: of.start,
            end: of.end,
            bytes: of.bytes,
            state_number: of.state_number,
            accepted_state: of.accepted_state,
            generation: of.generation,
            bound: of.bound,
            quarantine: of.quarantine,
            gaps: of.gaps,
            last_append: of.last_append,
            jump_before: of.jump_before,
            producer_epoch: of.producer_epoch,
            names_forgotten: of.names_forgotten,
            thinned: rows::ThinnedRow::default(),
        }
    }
}

/// Facts about a subscription, version 1: none was paused, none expired.
#[derive(Debug, Deserialize)]
pub(super) struct SubscriptionRow {
    generation: Generation,
    committed: Offset,
    created: Timestamp,
    last_commit: Option<Timestamp>,
}

impl From<SubscriptionRow> for rows::SubscriptionRow {
    fn from(of: SubscriptionRow) -> Self {
        Self {
            generation: of.generation,
            committed: of.committed,
            created: of.created,
            last_commit: of.last_commit,
            paused: false,
            expire_ms: None,
        }
    }
}
