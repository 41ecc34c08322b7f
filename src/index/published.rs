//! What everybody may read: the directory behind a lock, and its version.

use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use tokio::sync::watch;

use crate::limits;
use crate::registry::{Directory, Effects, State};

/// The directory and the news of it.
pub(super) struct Published {
    directory: RwLock<Directory>,
    version: watch::Sender<u64>,
}

impl Published {
    pub(super) fn new(directory: Directory) -> Self {
        Self {
            version: watch::Sender::new(directory.version()),
            directory: RwLock::new(directory),
        }
    }

    /// For a short look: writers wait meanwhile.
    pub(super) fn read(&self) -> RwLockReadGuard<'_, Directory> {
        // A panic while it was written ends the keeper, and with it the process;
        // what is read until then is at worst out of date.
        self.directory
            .read()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Directory> {
        self.directory
            .write()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Versions, as they come.
    pub(super) fn versions(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    /// Shows what changed. A few changes appear together; very many (a peer with
    /// tens of thousands of topics) piece by piece, so that lookups go on between.
    pub(super) fn show(&self, state: &State, effects: &Effects) {
        if effects.buckets.len() <= limits::SHOW_BUCKETS_MAX {
            self.write().show(state, effects);
        } else {
            self.write().show_peers(state, effects);
            let buckets: Vec<u32> = effects.buckets.iter().copied().collect();
            for some in buckets.chunks(limits::SHOW_BUCKETS_MAX) {
                let mut directory = self.write();
                for &bucket in some {
                    directory.show_bucket(state, bucket);
                }
            }
            self.write().hide_peers(state, effects);
        }
        let version = self.read().version();
        self.version.send_if_modified(|known| {
            let news = *known != version;
            *known = version;
            news
        });
    }
}
