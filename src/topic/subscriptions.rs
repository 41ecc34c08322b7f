//! Decisions on subscriptions: durable, named cursors on one topic.

use super::history::Authored;
use super::model::Topic;
use super::rows::SubscriptionRow;
use crate::limits;
use crate::protocol::api::ChangeKind;
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

    /// Makes a subscription that begins at `from`. A new one has a generation nobody had (T5).
    pub fn create_subscription(
        &mut self,
        name: &SubscriptionName,
        from: Offset,
        by: Authored,
    ) -> Result<(), ApiError> {
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
            committed: from,
            created: by.when,
            last_commit: None,
        };
        self.subscriptions.insert(name.clone(), row);
        // Whatever a subscription of that name went through before is not this one's.
        self.histories.remove(name);
        self.note_change(name, (ChangeKind::Created, None, from), by);
        Ok(())
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
        let groups = self.consumers.groups().map(|(_, row)| row.floor);
        positions.chain(groups).min()
    }

    /// A generation that nothing of this topic ever had (T5).
    pub(super) fn next_generation(&mut self) -> Generation {
        self.row.generation = self.row.generation.next();
        self.row.generation
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
