//! What moved a subscription otherwise than by a commit, and going back.

use serde::{Deserialize, Serialize};

use super::{Api, Request, SubscriptionInfo, request};
use crate::limits;
use crate::time::Timestamp;
use crate::types::{Generation, Offset, SubscriptionName, TopicName};

/// The latest changes of a subscription's place that were not ordinary commits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubscriptionHistory {
    /// Topic.
    pub topic: TopicName,
    /// Name.
    pub name: SubscriptionName,
}
request!(SubscriptionHistory => HistoryOfSubscription);

/// The subscription and its latest changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryOfSubscription {
    /// The subscription now.
    pub subscription: SubscriptionInfo,
    /// The changes, oldest first, at most [`limits::HISTORY_CHANGES_MAX`].
    pub changes: Vec<PlaceChange>,
}

/// A change of a committed offset that was not an ordinary commit. Stored in this form too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlaceChange {
    /// When, by the host's clock.
    pub when: Timestamp,
    /// What it was.
    pub kind: ChangeKind,
    /// Where the subscription stood; none when it was made.
    pub from: Option<Offset>,
    /// Where it stood then.
    pub to: Offset,
    /// The generation it got with it.
    pub generation: Generation,
    /// Who asked for it.
    pub author: Author,
}

/// What changed the place of a subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChangeKind {
    /// The subscription was made.
    Created,
    /// It was moved.
    Seek,
    /// The change before was undone.
    Undo,
}

impl std::fmt::Display for ChangeKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Created => "created",
            Self::Seek => "seek",
            Self::Undo => "undo",
        })
    }
}

/// Who asked for a change, as far as the host can tell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Author {
    /// What the client called itself in its hello, cut to [`limits::AUTHOR_BYTES_MAX`].
    pub client: String,
    /// Where it connected from; empty for the process that keeps the subscription.
    pub address: String,
}

impl Author {
    /// A client of that name, connected from there.
    pub fn new(client: &str, address: String) -> Self {
        let cut =
            |text: &str| text[..text.floor_char_boundary(limits::AUTHOR_BYTES_MAX)].to_owned();
        Self {
            client: cut(client),
            address: cut(&address),
        }
    }

    /// This program itself.
    pub fn this_program() -> Self {
        Self::new(
            concat!("tidings ", env!("CARGO_PKG_VERSION")),
            String::new(),
        )
    }
}

/// Go back to where the subscription stood before the last change that was not an ordinary commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UndoSubscription {
    /// Topic.
    pub topic: TopicName,
    /// Name.
    pub name: SubscriptionName,
    /// Only if it still has this generation: then asking again undoes nothing twice.
    pub generation: Option<Generation>,
    /// Only tell what would happen.
    pub dry_run: bool,
}
request!(UndoSubscription => Undone);

/// What going back did or would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Undone {
    /// The change that is undone.
    pub change: PlaceChange,
    /// Where the subscription stood.
    pub from: Offset,
    /// Where it stands now, or would: where it stood before the change, or the nearest the topic still has.
    pub to: Offset,
    /// The subscription now.
    pub subscription: SubscriptionInfo,
}
