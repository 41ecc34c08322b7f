//! What changed lately, for those who watch.
//!
//! ```text
//!        first                                   version
//!          | change | change | change | change |    |
//!          |<- at most limits::WATCH_CHANGES_KEPT ->|
//! ```
//!
//! Every change of what a directory shows has a number, one above the last. A
//! watcher that has seen version `v` is told the changes after `v`, or, where
//! those are forgotten, to list everything anew. Versions begin at a number
//! that grows from one start of the index to the next, so a version of an
//! earlier life is recognised as too old.

use std::collections::VecDeque;

use super::table::PeerNumber;
use crate::limits;
use crate::types::TopicName;

/// What may look different now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Changed {
    /// The topic of that name, if there is one.
    Topic(TopicName),
    /// The state, name or address of a peer, and with it all of its topics.
    Peer(PeerNumber),
}

/// The last changes.
pub(super) struct Changes {
    version: u64,
    kept: VecDeque<Changed>,
}

impl Changes {
    pub(super) fn new(version: u64) -> Self {
        Self {
            version,
            kept: VecDeque::new(),
        }
    }

    pub(super) fn version(&self) -> u64 {
        self.version
    }

    pub(super) fn push(&mut self, changed: Changed) {
        if self.kept.len() == limits::WATCH_CHANGES_KEPT {
            self.kept.pop_front();
        }
        self.kept.push_back(changed);
        self.version += 1;
    }

    /// The changes after `version`; `None` if they are not known (any more).
    pub(super) fn after(&self, version: u64) -> Option<impl Iterator<Item = &Changed>> {
        let behind = usize::try_from(self.version.checked_sub(version)?).ok()?;
        let skip = self.kept.len().checked_sub(behind)?;
        Some(self.kept.iter().skip(skip))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_the_last_changes_and_that_it_forgot_the_others() {
        let mut changes = Changes::new(1_000);
        let peer = |n: usize| Changed::Peer(PeerNumber::new(n % 100).expect("small"));
        for n in 0..limits::WATCH_CHANGES_KEPT + 5 {
            changes.push(peer(n));
        }
        let end = changes.version();
        assert_eq!(end, 1_005 + limits::WATCH_CHANGES_KEPT as u64);
        let count = |version| changes.after(version).map(Iterator::count);
        assert_eq!(count(end), Some(0));
        assert_eq!(count(end - 3), Some(3));
        assert_eq!(count(1_005), Some(limits::WATCH_CHANGES_KEPT));
        assert_eq!(count(1_004), None);
        assert_eq!(count(end + 1), None, "a version of another life");
        let last: Vec<_> = changes.after(end - 1).expect("known").collect();
        assert_eq!(last, [&peer(limits::WATCH_CHANGES_KEPT + 4)]);
    }
}
