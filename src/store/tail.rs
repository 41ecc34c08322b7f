//! The tail cache: the last groups as they were written, for readers that follow.
//!
//! The group buffers themselves are the cache; a read is a slice of one. What
//! falls out at the old end goes back to the pool of buffers, to be written
//! again once no reader holds it.

use std::collections::VecDeque;
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use crate::journal::{BufferPool, Group, Place};
use crate::limits;

/// Recently written groups.
pub(super) struct TailCache {
    kept: RwLock<Kept>,
    bytes_max: usize,
    pool: BufferPool,
}

#[derive(Default)]
struct Kept {
    /// Oldest first.
    groups: VecDeque<Group>,
    /// What their buffers take. There may be thousands: they are not asked each time.
    bytes: usize,
}

impl TailCache {
    /// A cache of at most `bytes_max`, counted by the size of the buffers.
    pub fn new(bytes_max: usize) -> Self {
        Self {
            kept: RwLock::default(),
            bytes_max,
            pool: BufferPool::new(limits::BUFFERS_KEPT_BYTES),
        }
    }

    /// Where the writer gets its buffers.
    pub fn pool(&self) -> &BufferPool {
        &self.pool
    }

    fn read(&self) -> RwLockReadGuard<'_, Kept> {
        self.kept.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a group.
    pub fn push(&self, group: Group) {
        let mut kept = self.kept.write().unwrap_or_else(PoisonError::into_inner);
        kept.bytes += group.buffer().capacity();
        kept.groups.push_back(group);
        while kept.bytes > self.bytes_max && kept.groups.len() > 1 {
            if let Some(oldest) = kept.groups.pop_front() {
                kept.bytes -= oldest.buffer().capacity();
                self.pool.give(oldest.buffer().clone());
            }
        }
    }

    /// The group that holds what lies at `place`, if it is still here.
    pub fn get(&self, place: Place) -> Option<Group> {
        let kept = self.read();
        let at = kept
            .groups
            .partition_point(|group| group.place() <= place)
            .checked_sub(1)?;
        let group = kept.groups.get(at);
        group.filter(|group| place < group.end()).cloned()
    }

    /// Bytes of memory held by cached groups.
    pub fn bytes(&self) -> usize {
        self.read().bytes
    }
}
