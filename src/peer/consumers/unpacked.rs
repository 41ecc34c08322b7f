//! Batches that were unpacked to give out a part of them, kept for the next part.
//!
//! A purge takes records out of stored batches and lets go of all that are kept. Who read one before that and unpacks
//! it after must not keep it: it says what it had read as of.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::limits;
use crate::protocol::batch::OpenedBatch;
use crate::types::{Offset, TopicId};

type Key = (TopicId, Offset);

/// The latest ones, of all groups.
#[derive(Default)]
pub(in crate::peer) struct Unpacked(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    batches: VecDeque<(Key, Arc<OpenedBatch>)>,
    /// How often all were let go.
    cleared: AsOf,
}

/// A moment between two times at which everything was let go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::peer) struct AsOf(u64);

impl Unpacked {
    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Now: to be asked before a batch is read.
    pub fn as_of(&self) -> AsOf {
        self.lock().cleared
    }

    /// One that is kept.
    pub fn get(&self, key: Key) -> Option<Arc<OpenedBatch>> {
        let kept = self.lock();
        let found = kept.batches.iter().find(|(known, _)| *known == key);
        found.map(|(_, batch)| batch.clone())
    }

    /// One that is kept and has the record at that offset, with its own first one.
    pub fn holding(&self, topic: TopicId, offset: Offset) -> Option<(Offset, Arc<OpenedBatch>)> {
        let kept = self.lock();
        let holds = |((of, base), batch): &&(Key, Arc<OpenedBatch>)| {
            *of == topic && *base <= offset && offset.since(*base) < u64::from(batch.count())
        };
        let found = kept.batches.iter().find(holds);
        found.map(|((_, base), batch)| (*base, batch.clone()))
    }

    /// Keeps one that was read then, and lets go of the oldest for it; if all were let go since, it is not kept.
    pub fn keep(&self, key: Key, batch: Arc<OpenedBatch>, read: AsOf) -> Arc<OpenedBatch> {
        let mut kept = self.lock();
        if kept.cleared != read {
            return batch;
        }
        kept.batches.push_back((key, batch.clone()));
        let mut bytes: usize = kept.batches.iter().map(|(_, batch)| batch.bytes()).sum();
        while bytes > limits::CONSUMER_UNPACKED_BYTES
            && let Some((_, oldest)) = kept.batches.pop_front()
        {
            bytes -= oldest.bytes();
        }
        batch
    }

    /// Lets go of all.
    pub fn clear(&self) {
        let mut kept = self.lock();
        kept.batches.clear();
        kept.cleared.0 += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::batch::{BatchBuilder, CheckedBatch, Compression, Origin, RecordToSend};
    use crate::time::Timestamp;

    /// One that was read before a purge and unpacked after it would have been given out until something else was.
    #[test]
    fn what_was_read_before_all_were_let_go_is_not_kept() {
        let mut builder = BatchBuilder::new(Compression::None);
        let record = RecordToSend {
            timestamp: Timestamp::from_millis(7),
            key: Some(b"k"),
            headers: &[],
            value: b"x",
        };
        builder.try_push(&record).expect("it fits");
        let bytes = builder.build_as(&Origin::default()).expect("it builds");
        let checked = CheckedBatch::check(bytes, limits::MESSAGE_BYTES_MAX).expect("sound");
        let batch = Arc::new(OpenedBatch::open(&checked).expect("it opens"));

        let unpacked = Unpacked::default();
        let key = (TopicId::zero(), Offset::new(3));
        let before = unpacked.as_of();
        unpacked.keep(key, batch.clone(), before);
        assert!(unpacked.get(key).is_some());
        unpacked.clear();
        unpacked.keep(key, batch.clone(), before);
        assert!(unpacked.get(key).is_none() && unpacked.holding(key.0, key.1).is_none());
        unpacked.keep(key, batch, unpacked.as_of());
        assert!(unpacked.get(key).is_some());
    }
}
