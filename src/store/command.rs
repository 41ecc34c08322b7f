//! What the writer is asked to do, and how it answers.

use crate::journal::SnapshotAt;
use crate::protocol::batch::CheckedBatch;
use crate::protocol::data::Published;
use crate::protocol::error::ApiError;
use crate::time::Timestamp;
use crate::topic::{PeerRow, RowKey, State, Terms};
use crate::types::{StateNumber, TopicId};

use super::shared::Shared;

/// Called once with the outcome, on the writer's or the sync thread: it must not block.
pub type Done<T> = Box<dyn FnOnce(Result<T, ApiError>) + Send>;

/// One thing for the writer.
pub(super) enum Command {
    /// Append a record batch.
    Append(Append),
    /// Change the state.
    Change(Change),
    /// Write a state snapshot; told when its end is durable.
    Snapshot(Done<SnapshotWritten>),
    /// Go on in the next segment, if this one is being written.
    Seal(u64),
}

/// A snapshot that was written to its end.
#[derive(Debug, Clone)]
pub(super) struct SnapshotWritten {
    pub begin: SnapshotAt,
    /// Number of the group its end is in.
    pub end_group: u64,
    /// Rows of the state after that group.
    pub rows: u64,
    /// Bytes it took, about.
    pub bytes: u64,
    pub peer: PeerRow,
}

/// A record batch on its way.
pub(super) struct Append {
    pub topic: TopicId,
    pub terms: Terms,
    pub batch: CheckedBatch,
    pub done: Done<Published>,
}

/// What a change may look at and change.
pub(super) struct Context<'a> {
    pub state: &'a mut State,
    pub shared: &'a Shared,
    pub now: Timestamp,
}

/// What a change did: the rows to be written in one state entry, and whom to tell when that is durable.
pub(super) struct Staged {
    /// The rows, as they are now. None: nothing to write, but what came before has to be durable.
    pub keys: Vec<RowKey>,
    /// Number of the state entry, if there is one.
    pub number: StateNumber,
    /// Told the outcome.
    pub done: Box<dyn FnOnce(Result<(), ApiError>) + Send>,
}

type Run = Box<dyn FnOnce(Result<&mut Context<'_>, ApiError>) -> Option<Staged> + Send>;

/// A change of the state of one topic, or of the peer (the zero id).
pub(super) struct Change {
    /// Whose state numbers it takes.
    pub topic: TopicId,
    /// Decides and changes, or is told that it cannot; `None`: refused, and the asker knows.
    pub run: Run,
    /// A batch for another topic that is appended in the same group, or nothing is changed.
    pub batch: Option<(TopicId, CheckedBatch)>,
    /// Bytes of the rows it writes, about, where those are many.
    pub row_bytes: usize,
}

impl Change {
    /// A change by `decide`, which returns its answer and the rows it changed; `done` hears the
    /// refusal at once, the answer when it is durable.
    pub fn new<T, F>(topic: TopicId, decide: F, done: Done<T>) -> Self
    where
        T: Send + 'static,
        F: FnOnce(&mut Context<'_>) -> Result<(T, Vec<RowKey>), ApiError> + Send + 'static,
    {
        let run: Run = Box::new(move |context| {
            let context = match context {
                Ok(context) => context,
                Err(error) => {
                    done(Err(error));
                    return None;
                }
            };
            let before = context
                .state
                .state_number(topic)
                .unwrap_or(StateNumber::ZERO);
            match decide(context) {
                Ok((answer, keys)) => {
                    keys.iter()
                        .for_each(|key| context.state.mark_dirty(key.clone()));
                    let number = number_of(context.state, topic, before, !keys.is_empty());
                    Some(Staged {
                        keys,
                        number,
                        done: Box::new(move |outcome| done(outcome.map(|()| answer))),
                    })
                }
                Err(error) => {
                    done(Err(error));
                    None
                }
            }
        });
        Self {
            topic,
            run,
            batch: None,
            row_bytes: 0,
        }
    }

    /// With a batch that another topic gets in the same group: both are durable, or neither.
    pub fn with_batch(mut self, topic: TopicId, batch: CheckedBatch) -> Self {
        self.batch = Some((topic, batch));
        self
    }

    /// With the bytes that its rows take.
    pub fn with_rows(mut self, bytes: usize) -> Self {
        self.row_bytes = bytes;
        self
    }

    /// Bytes it adds to a group, about.
    pub fn bytes(&self) -> usize {
        let batch = self.batch.as_ref();
        self.row_bytes + batch.map_or(0, |(_, batch)| batch.bytes().len())
    }
}

/// The number of the state entry. A deletion is numbered too, though its topic is gone by then.
fn number_of(state: &mut State, topic: TopicId, before: StateNumber, wanted: bool) -> StateNumber {
    if !wanted {
        StateNumber::ZERO
    } else if state.state_number(topic).is_some() {
        state.take_state_number(topic)
    } else {
        before.next()
    }
}
