//! Decisions on subscriptions: durable, named cursors on one topic.

use super::history::Authored;
use super::model::Topic;
use super::rows::SubscriptionRow;
use crate::limits;
use crate::protocol::api::{ChangeKind, SubscriptionChanges};
use crate::protocol::error::ApiError;
use crate::time::Timestamp;
use crate::types::{Generation, Offset, SubscriptionName};

impl Topic {
    /// The subscription of that name.
    pub fn subscription(&self, name: &SubscriptionName) -> Result<&SubscriptionRow, ApiError> {
        self.subscriptions
            .get(name)
            .ok_or_else(|| ApiError::SubscriptionNotFound {
                topic: self.row.name.clone(),
                name: name.clone(),
            })
    }

    /// Makes a subscription. A new one has a generation nobody had (T5).
    pub fn create_subscription(
        &mut self,
        name: &SubscriptionName,
        new: NewSubscription,
        by: Authored,
    ) -> Result<(), ApiError> {
        check_expire(new.expire_ms)?;
        if self.subscriptions.contains_key(name) {
            return Err(ApiError::SubscriptionExists {
                topic: self.row.name.clone(),
                name: name.clone(),
            });
        }
        if self.consumers.group(name).is_some() {
            return Err(ApiError::ConsumerGroupExists {
                topic: self.row.name.clone(),
                name: name.clone(),
            });
        }
        if self.subscriptions.len() >= limits::SUBSCRIPTIONS_PER_TOPIC_MAX {
            return Err(ApiError::TooManySubscriptions {
                max: limits::SUBSCRIPTIONS_PER_TOPIC_MAX as u64,
            });
        }
        let generation = self.next_generation();
        let row = SubscriptionRow {
            generation,
            committed: new.from,
            created: by.when,
            last_commit: None,
            paused: false,
            expire_ms: new.expire_ms,
        };
        self.subscriptions.insert(name.clone(), row);
        // Whatever a subscription of that name went through before is not this one's.
        self.histories.remove(name);
        self.note_change(name, (ChangeKind::Created, None, new.from), by);
        Ok(())
    }

    /// Changes what can be set on a subscription. Returns whether anything changed. Its position and its generation
    /// stay: what was handed out before may be committed.
    pub fn set_subscription(
        &mut self,
        name: &SubscriptionName,
        changes: SubscriptionChanges,
    ) -> Result<bool, ApiError> {
        let row = self.subscription(name)?;
        let changed = SubscriptionRow {
            paused: changes.paused.unwrap_or(row.paused),
            expire_ms: changes.expire_ms.unwrap_or(row.expire_ms),
            ..row.clone()
        };
        if changed == *row {
            return Ok(false);
        }
        check_expire(changed.expire_ms)?;
        self.subscriptions.insert(name.clone(), changed);
        Ok(true)
    }

    /// Removes a subscription and its history.
    pub fn delete_subscription(&mut self, name: &SubscriptionName) -> Result<(), ApiError> {
        self.subscription(name)?;
        self.subscriptions.remove(name);
        self.histories.remove(name);
        Ok(())
    }

    /// Moves a subscription, forward or back, and makes late commits miss. Returns where it stood.
    pub fn seek(
        &mut self,
        name: &SubscriptionName,
        to: Offset,
        by: Authored,
    ) -> Result<Offset, ApiError> {
        let from = self.subscription(name)?.committed;
        self.put(name, (ChangeKind::Seek, from, to), by);
        Ok(from)
    }

    /// Puts a subscription elsewhere, under a new generation, and keeps a note of it (T7).
    pub(super) fn put(
        &mut self,
        name: &SubscriptionName,
        (kind, from, to): (ChangeKind, Offset, Offset),
        by: Authored,
    ) {
        let generation = self.next_generation();
        if let Some(row) = self.subscriptions.get_mut(name) {
            row.generation = generation;
            row.committed = to;
        }
        self.note_change(name, (kind, Some(from), to), by);
    }

    /// Confirms everything before `offset`. Returns the committed offset and whether it moved (T4).
    pub fn commit(
        &mut self,
        name: &SubscriptionName,
        commit: CommitFacts,
        now: Timestamp,
    ) -> Result<(Offset, bool), ApiError> {
        let current = self.subscription(name)?;
        if commit.generation != current.generation {
            return Err(ApiError::StaleGeneration {
                given: commit.generation,
                current: current.generation,
            });
        }
        if commit.offset > commit.readable_end {
            return Err(ApiError::CommitPastEnd {
                offset: commit.offset,
                end: commit.readable_end,
            });
        }
        if commit.offset <= current.committed {
            return Ok((current.committed, false));
        }
        if let Some(row) = self.subscriptions.get_mut(name) {
            row.committed = commit.offset;
            row.last_commit = Some(now);
        }
        Ok((commit.offset, true))
    }

    /// The lowest offset that somebody may still want: what lies below was confirmed by all who hold a position in
    /// the topic. `None`: nobody holds one, and who comes first must not find it empty. Whatever else holds a
    /// position belongs in here, and nowhere else. Looks at all of them: not for the path of a commit.
    pub fn lowest_position(&self) -> Option<Offset> {
        let positions = self.subscriptions.values().map(|row| row.committed);
        let floors = self.consumers.groups().map(|(_, row)| row.floor);
        positions.chain(floors).min()
    }

    /// Whether everything below is confirmed still by all who hold a position; they may have moved, or come, or
    /// nobody may be left who holds one.
    pub fn is_still_confirmed(&self, below: Offset) -> bool {
        self.lowest_position() >= Some(below)
    }

    /// A generation that nothing of this topic ever had (T5).
    pub(super) fn next_generation(&mut self) -> Generation {
        self.row.generation = self.row.generation.next();
        self.row.generation
    }
}

/// A subscription to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewSubscription {
    /// Where it begins.
    pub from: Offset,
    /// See [`SubscriptionRow::expire_ms`].
    pub expire_ms: Option<u64>,
}

impl NewSubscription {
    /// One that stays until it is removed.
    pub fn at(from: Offset) -> Self {
        let expire_ms = None;
        Self { from, expire_ms }
    }
}

/// A shorter time would take subscriptions from readers who only reconnect.
fn check_expire(expire_ms: Option<u64>) -> Result<(), ApiError> {
    let least = limits::SUBSCRIPTION_EXPIRE_MIN.as_millis();
    match expire_ms {
        Some(ms) if u128::from(ms) < least => Err(ApiError::InvalidArgument {
            what: "time to expire".to_owned(),
            reason: format!("{ms} ms: at least {least} ms expected"),
        }),
        _ => Ok(()),
    }
}

/// What a commit says, and what it is held against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommitFacts {
    /// Generation the records were read under.
    pub generation: Generation,
    /// Next offset to read.
    pub offset: Offset,
    /// Where readers stop now.
    pub readable_end: Offset,
}
