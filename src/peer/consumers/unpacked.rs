//! Batches that were unpacked to give out a part of them, kept for the next part.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use crate::limits;
use crate::protocol::batch::OpenedBatch;
use crate::types::{Offset, TopicId};

type Key = (TopicId, Offset);

/// The latest ones, of all groups.
#[derive(Default)]
pub(in crate::peer) struct Unpacked(Mutex<VecDeque<(Key, Arc<OpenedBatch>)>>);

impl Unpacked {
    /// One that is kept.
    pub fn get(&self, key: Key) -> Option<Arc<OpenedBatch>> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = kept.iter().find(|(known, _)| *known == key);
        found.map(|(_, batch)| batch.clone())
    }

    /// One that is kept and has the record at that offset, with its own first one.
    pub fn holding(&self, topic: TopicId, offset: Offset) -> Option<(Offset, Arc<OpenedBatch>)> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let holds = |((of, base), batch): &&(Key, Arc<OpenedBatch>)| {
            *of == topic && *base <= offset && offset.since(*base) < u64::from(batch.count())
        };
        let found = kept.iter().find(holds);
        found.map(|((_, base), batch)| (*base, batch.clone()))
    }

    /// Keeps one, and lets go of the oldest for it.
    pub fn keep(&self, key: Key, batch: Arc<OpenedBatch>) -> Arc<OpenedBatch> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.push_back((key, batch.clone()));
        let mut bytes: usize = kept.iter().map(|(_, batch)| batch.bytes()).sum();
        while bytes > limits::CONSUMER_UNPACKED_BYTES
            && let Some((_, oldest)) = kept.pop_front()
        {
            bytes -= oldest.bytes();
        }
        batch
    }

    /// Lets go of all.
    pub fn clear(&self) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }
}
