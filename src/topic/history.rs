//! What moved a subscription otherwise than by a commit, and going back behind the last such change.
//!
//! ```text
//!   created at 0 ── commits ──► 40 ── seek ──► 0 ── commits ──► 7 ── undo ──► 40 ── undo ──► 7
//!                                    ╰ from 40                       ╰ from 7        ╰ from 40
//! ```
//!
//! Each change remembers where the subscription stood just before it. To undo is
//! to go there, which is a change as well. Retention that overtakes a subscription
//! is none: the committed offset stays where it is, and the next reader is told
//! the gap.

use super::model::Topic;
use crate::limits;
use crate::protocol::api::{Author, ChangeKind, PlaceChange};
use crate::protocol::error::ApiError;
use crate::time::Timestamp;
use crate::types::{Generation, Offset, SubscriptionName};

/// When and by whom something is changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authored {
    /// When, by the host's clock.
    pub when: Timestamp,
    /// By whom.
    pub author: Author,
}

impl Authored {
    /// Now, by this process itself.
    pub fn by_this_program(when: Timestamp) -> Self {
        Self {
            when,
            author: Author::this_program(),
        }
    }
}

/// What undoing means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Undo {
    /// The change that is undone.
    pub change: PlaceChange,
    /// Where the subscription stands.
    pub from: Offset,
    /// Where it goes: where it stood before the change, or the nearest that the topic has.
    pub to: Offset,
}

impl Topic {
    /// The latest changes of a subscription's place, oldest first.
    pub fn history(&self, name: &SubscriptionName) -> &[PlaceChange] {
        self.histories
            .get(name)
            .map_or(&[], |history| &history.changes)
    }

    /// Keeps a change; beyond so many the oldest is forgotten.
    pub(super) fn note_change(
        &mut self,
        name: &SubscriptionName,
        (kind, from, to): (ChangeKind, Option<Offset>, Offset),
        by: Authored,
    ) {
        let Some(row) = self.subscriptions.get(name) else {
            return;
        };
        let generation = row.generation;
        let changes = &mut self.histories.entry(name.clone()).or_default().changes;
        let surplus = (changes.len() + 1).saturating_sub(limits::HISTORY_CHANGES_MAX);
        changes.drain(..surplus);
        changes.push(PlaceChange {
            when: by.when,
            kind,
            from,
            to,
            generation,
            author: by.author,
        });
    }

    /// What undoing the last change means now; `readable_end` is where readers stop. With a generation, only while
    /// the subscription still has it.
    pub fn plan_undo(
        &self,
        name: &SubscriptionName,
        generation: Option<Generation>,
        readable_end: Offset,
    ) -> Result<Undo, ApiError> {
        let current = self.subscription(name)?;
        if let Some(given) = generation
            && given != current.generation
        {
            return Err(ApiError::StaleGeneration {
                given,
                current: current.generation,
            });
        }
        let nothing = |reason: &str| ApiError::NothingToUndo {
            topic: self.row.name.clone(),
            name: name.clone(),
            reason: reason.to_owned(),
        };
        let Some(change) = self.history(name).last() else {
            return Err(nothing("has no history: it was never moved"));
        };
        let Some(before) = change.from else {
            return Err(nothing("was never moved since it was made"));
        };
        Ok(Undo {
            change: change.clone(),
            from: current.committed,
            to: before.min(readable_end).max(self.row.start),
        })
    }

    /// Goes back behind the last change.
    pub fn undo(&mut self, name: &SubscriptionName, undo: &Undo, by: Authored) {
        self.put(name, (ChangeKind::Undo, undo.from, undo.to), by);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topic::{CommitFacts, TopicRow};
    use crate::types::{LeaderEpoch, TopicId, TopicSettings};

    const END: Offset = Offset::new(100);

    fn by(second: i64) -> Authored {
        Authored {
            when: Timestamp::from_millis(second * 1000),
            author: Author::new("map 1.0", "127.0.0.1:5000".to_owned()),
        }
    }

    fn topic() -> (Topic, SubscriptionName) {
        let name = "quakes.ci".parse().expect("good");
        let (settings, created) = (TopicSettings::default(), Timestamp::default());
        let mut row = TopicRow::new(name, LeaderEpoch::new(1), settings, created);
        row.end = END;
        let mut topic = Topic::new(TopicId::from_bytes([1; 16]), row);
        let name: SubscriptionName = "map".parse().expect("good");
        let made = topic.create_subscription(&name, Offset::new(5), by(1));
        made.expect("made");
        (topic, name)
    }

    fn commit(topic: &mut Topic, name: &SubscriptionName, offset: u64) {
        let commit = CommitFacts {
            generation: topic.subscription(name).expect("there").generation,
            offset: Offset::new(offset),
            readable_end: END,
        };
        let now = Timestamp::from_millis(9);
        topic.commit(name, commit, now).expect("good");
    }

    fn undo(topic: &mut Topic, name: &SubscriptionName) -> Undo {
        let undo = topic.plan_undo(name, None, END).expect("something");
        topic.undo(name, &undo, by(7));
        undo
    }

    #[test]
    fn what_is_no_commit_is_kept_and_can_be_undone_and_that_again() {
        let (mut topic, name) = topic();
        commit(&mut topic, &name, 40);
        assert_eq!(topic.history(&name).len(), 1, "a commit is no change");
        topic.seek(&name, Offset::ZERO, by(2)).expect("moved");
        commit(&mut topic, &name, 7);
        let back = undo(&mut topic, &name);
        assert_eq!((back.from.get(), back.to.get()), (7, 40));
        assert_eq!(back.change.kind, ChangeKind::Seek);
        let again = undo(&mut topic, &name);
        assert_eq!((again.from.get(), again.to.get()), (40, 7));
        let told: Vec<_> = topic
            .history(&name)
            .iter()
            .map(|c| (c.kind, c.from))
            .collect();
        let at = |offset| Some(Offset::new(offset));
        let expected = [
            (ChangeKind::Created, None),
            (ChangeKind::Seek, at(40)),
            (ChangeKind::Undo, at(7)),
            (ChangeKind::Undo, at(40)),
        ];
        assert_eq!(told, expected);
        let mut generations = topic.history(&name).iter().map(|change| change.generation);
        let current = topic.subscription(&name).expect("there").generation;
        assert!(generations.clone().is_sorted());
        assert_eq!(generations.next_back(), Some(current));
        assert_eq!(topic.history(&name)[1].author.client, "map 1.0");
    }

    #[test]
    fn nothing_to_undo_is_an_error_and_a_stale_generation_another() {
        let (mut topic, name) = topic();
        let refused = topic.plan_undo(&name, None, END);
        assert!(matches!(refused, Err(ApiError::NothingToUndo { .. })));
        let before = topic.subscription(&name).expect("there").generation;
        topic.seek(&name, END, by(2)).expect("moved");
        let late = topic.plan_undo(&name, Some(before), END);
        assert!(matches!(late, Err(ApiError::StaleGeneration { .. })));
        // As a store of the time before histories has it.
        topic.histories.clear();
        let refused = topic.plan_undo(&name, None, END);
        assert!(matches!(refused, Err(ApiError::NothingToUndo { .. })));
    }

    #[test]
    fn what_retention_has_discarded_is_not_gone_back_to() {
        let (mut topic, name) = topic();
        topic.seek(&name, END, by(2)).expect("moved");
        topic.advance_start(Offset::new(30), 0);
        let plan = topic.plan_undo(&name, None, END).expect("something");
        assert_eq!(
            (plan.change.from, plan.to.get()),
            (Some(Offset::new(5)), 30)
        );
        let short = topic.plan_undo(&name, None, Offset::new(20)).expect("some");
        assert_eq!(short.to.get(), 30, "never before the start");
    }

    #[test]
    fn only_the_newest_changes_are_kept_and_a_new_subscription_begins_anew() {
        let (mut topic, name) = topic();
        for offset in 0..50 {
            topic
                .seek(&name, Offset::new(offset), by(3))
                .expect("moved");
        }
        let kept = topic.history(&name);
        assert_eq!(kept.len(), limits::HISTORY_CHANGES_MAX);
        assert_eq!(kept.last().map(|change| change.to.get()), Some(49));
        topic.delete_subscription(&name).expect("removed");
        assert!(topic.histories.is_empty());
        let made = topic.create_subscription(&name, Offset::ZERO, by(4));
        made.expect("made");
        assert_eq!(topic.history(&name).len(), 1);
    }
}
