//! The tail cache: the last groups as they were written, for readers that follow.
//!
//! The group buffers themselves are the cache; a read is a slice of one. What
//! falls out at the old end goes back to the pool of buffers, to be written
//! again once no reader holds it.

use std::collections::VecDeque;
use std::sync::{PoisonError, RwLock};

use crate::journal::{BufferPool, Group, Place};
use crate::limits;

/// Recently written groups, oldest first.
pub(super) struct TailCache {
    groups: RwLock<VecDeque<Group>>,
    bytes_max: usize,
    pool: BufferPool,
}

impl TailCache {
    /// A cache of at most `bytes_max`, counted by the size of the buffers.
    pub fn new(bytes_max: usize) -> Self {
        Self {
            groups: RwLock::default(),
            bytes_max,
            pool: BufferPool::new(limits::BUFFERS_KEPT_BYTES),
        }
    }

    /// Where the writer gets its buffers.
    pub fn pool(&self) -> &BufferPool {
        &self.pool
    }

    /// Adds a group.
    pub fn push(&self, group: Group) {
        let mut groups = self.groups.write().unwrap_or_else(PoisonError::into_inner);
        groups.push_back(group);
        let mut bytes: usize = groups.iter().map(|group| group.buffer().capacity()).sum();
        while bytes > self.bytes_max && groups.len() > 1 {
            if let Some(oldest) = groups.pop_front() {
                bytes -= oldest.buffer().capacity();
                self.pool.give(oldest.buffer().clone());
            }
        }
    }

    /// The group that holds what lies at `place`, if it is still here.
    pub fn get(&self, place: Place) -> Option<Group> {
        let groups = self.groups.read().unwrap_or_else(PoisonError::into_inner);
        let at = groups
            .partition_point(|group| group.place() <= place)
            .checked_sub(1)?;
        groups.get(at).filter(|group| place < group.end()).cloned()
    }

    /// Bytes of memory held by cached groups.
    pub fn bytes(&self) -> usize {
        let groups = self.groups.read().unwrap_or_else(PoisonError::into_inner);
        groups.iter().map(|group| group.buffer().capacity()).sum()
    }
}
