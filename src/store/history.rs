//! Who asks for changes, what moved a subscription, and going back behind the last such change.

use std::sync::Arc;

use super::Store;
use super::command::Context;
use super::topics::{subscription_info, subscription_keys};
use crate::protocol::api::{
    Author, HistoryOfSubscription, SubscriptionHistory, UndoSubscription, Undone,
};
use crate::protocol::error::ApiError;
use crate::time::Timestamp;
use crate::topic::Authored;

impl Store {
    /// The same store, asked by that client: what it changes of subscriptions' places is kept under its name.
    #[must_use]
    pub fn asked_by(&self, author: Author) -> Self {
        Self {
            author: Some(Arc::new(author)),
            ..self.clone()
        }
    }

    pub(super) fn author(&self) -> Author {
        let given = self.author.as_deref().cloned();
        given.unwrap_or_else(Author::this_program)
    }

    /// A subscription and what moved it last.
    ///
    /// # Errors
    /// `TopicNotFound`, `SubscriptionNotFound`.
    pub async fn subscription_history(
        &self,
        asked: SubscriptionHistory,
    ) -> Result<HistoryOfSubscription, ApiError> {
        let id = self.id_of(&asked.topic)?;
        let found = self
            .change(id, move |context| {
                let subscription = subscription_info(context, id, &asked.name)?;
                let changes = context.state.topic(id)?.history(&asked.name).to_vec();
                let found = HistoryOfSubscription {
                    subscription,
                    changes,
                };
                Ok((found, Vec::new()))
            })
            .await?;
        Ok(HistoryOfSubscription {
            subscription: self.with_lag(found.subscription).await?,
            ..found
        })
    }

    /// Puts a subscription back to where it stood before the last change that was not an ordinary commit; a dry run
    /// only tells.
    ///
    /// # Errors
    /// `TopicNotFound`, `SubscriptionNotFound`, `StaleGeneration`, `NothingToUndo`.
    pub async fn undo_subscription(&self, asked: UndoSubscription) -> Result<Undone, ApiError> {
        let id = self.id_of(&asked.topic)?;
        let author = self.author();
        let readable_end = self.readable_end(id)?;
        let undone = self
            .change(id, move |context| {
                let name = &asked.name;
                let planned = context.state.topic(id)?;
                let undo = planned.plan_undo(name, asked.generation, readable_end)?;
                let mut keys = Vec::new();
                if !asked.dry_run {
                    let by = authored(context, author);
                    context.state.topic_mut(id)?.undo(name, &undo, by);
                    context.shared.position_moved(context.state, id);
                    context.shared.attendance.used(id, name);
                    keys = subscription_keys(id, name);
                }
                let undone = Undone {
                    change: undo.change,
                    from: undo.from,
                    to: undo.to,
                    subscription: subscription_info(context, id, name)?,
                };
                Ok((undone, keys))
            })
            .await?;
        Ok(Undone {
            subscription: self.with_lag(undone.subscription).await?,
            ..undone
        })
    }
}

/// A change by `author` at the time that the writer goes by.
pub(super) fn authored(context: &Context<'_>, author: Author) -> Authored {
    let when: Timestamp = context.now;
    Authored { when, author }
}
