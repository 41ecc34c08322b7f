//! Reading ahead: while one answer is on its way to a reader, the next is read from the disk.
//!
//! A reader is known by where it goes on: whoever asks from exactly the offset at which an answer from the
//! disk ended reads in order, and what follows is read before it asks. It asks for less, comes from elsewhere,
//! or not at all: then what was read is let go after a while.
//!
//! Invariants:
//!
//! 1. What was read ahead is handed out only for the very request it was read for, and only once.
//! 2. It is not handed out if the topic begins after that offset by now, or a key was purged meanwhile: what was
//!    discarded or purged is told as such.
//! 3. At most [`limits::READ_AHEAD_BYTES_MAX`] are asked for in advance, all readers together.
//! 4. An error or an empty answer is never handed out: the request is then read as if nothing had been read ahead.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::task::JoinHandle;

use super::reader::{ReadError, ReadRequest, ReadResult};
use super::shared::TopicShared;
use crate::limits;
use crate::types::{Offset, TopicId};

/// Answers that were not asked for yet.
#[derive(Default)]
pub(super) struct ReadAhead {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    begun: Vec<Begun>,
    /// Counts them.
    number: u64,
    /// What they may take.
    bytes: usize,
    /// Where readers in order go on, the latest last.
    places: VecDeque<(TopicId, Offset)>,
}

/// A read that was begun.
struct Begun {
    number: u64,
    topic: TopicId,
    request: ReadRequest,
    reading: JoinHandle<Result<ReadResult, ReadError>>,
}

impl State {
    fn remove(&mut self, wanted: impl Fn(&Begun) -> bool) -> Option<Begun> {
        let at = self.begun.iter().position(wanted)?;
        let begun = self.begun.swap_remove(at);
        self.bytes -= begun.request.max_bytes;
        Some(begun)
    }
}

impl ReadAhead {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers that wait for their readers.
    #[cfg(test)]
    pub fn waiting(&self) -> usize {
        self.lock().begun.len()
    }

    /// The answer to `request`, if it was read ahead.
    pub async fn take(&self, topic: &TopicShared, request: &ReadRequest) -> Option<ReadResult> {
        let begun = self.lock().remove(|begun| {
            begun.topic == topic.id
                && begun.request.from == request.from
                && begun.request.pass_damage == request.pass_damage
        })?;
        if begun.request.max_bytes > request.max_bytes {
            return None;
        }
        let result = begun.reading.await.ok()?.ok()?;
        let purges_are_known = topic.purges() == result.purges;
        let is_current =
            topic.start() <= request.from && !result.items.is_empty() && purges_are_known;
        is_current.then_some(result)
    }

    /// Whether a reader that asked from `from` reads in order, has more to read, and more may be read ahead.
    pub fn goes_on(&self, topic: TopicId, from: Offset, result: &ReadResult) -> bool {
        if !result.is_full || result.next <= from {
            return false;
        }
        let mut state = self.lock();
        let known = state.places.iter().rposition(|p| *p == (topic, from));
        if let Some(at) = known {
            state.places.remove(at);
        } else if state.places.len() >= limits::READ_AHEAD_READERS_MAX {
            state.places.pop_front();
        }
        state.places.push_back((topic, result.next));
        known.is_some() && state.bytes < limits::READ_AHEAD_BYTES_MAX
    }

    /// Reads for `request` on a thread that may block.
    pub fn begin(
        self: &Arc<Self>,
        topic: TopicId,
        request: ReadRequest,
        read: impl FnOnce() -> Result<ReadResult, ReadError> + Send + 'static,
    ) {
        let mut state = self.lock();
        if state.bytes + request.max_bytes > limits::READ_AHEAD_BYTES_MAX {
            return;
        }
        state.bytes += request.max_bytes;
        state.number += 1;
        let number = state.number;
        state.begun.push(Begun {
            number,
            topic,
            request,
            reading: tokio::task::spawn_blocking(read),
        });
        drop(state);
        let this = Arc::downgrade(self);
        tokio::spawn(async move {
            tokio::time::sleep(limits::READ_AHEAD_KEPT).await;
            if let Some(this) = this.upgrade() {
                let late = this.lock().remove(|begun| begun.number == number);
                drop(late);
            }
        });
    }
}
