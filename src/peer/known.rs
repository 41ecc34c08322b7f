//! What the index told: who the other peers are, and which names are in conflict.
//!
//! A conflict is a topic that is stored here under a name which belongs to
//! another topic. It stays stored and unpublished until somebody renames one of
//! the two or the holder lets the name go. The peer finds the latter out by
//! looking: a few of the names are looked up beside each heartbeat, and where one
//! is free everything is told anew, so that the index decides by its own rules
//! who gets it.
//!
//! Invariants:
//!
//! 1. A conflict is logged when it is new and when it is over, not each time it
//!    is told.
//! 2. However many conflicts and peers there are, a heartbeat costs a bounded
//!    number of questions.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use tracing::{error, info, warn};

use crate::limits;
use crate::protocol::api::{Conflict, PeerInfo};
use crate::types::{PeerId, TopicId, TopicName};

/// What the index told.
#[derive(Default)]
pub(super) struct Known {
    conflicts: RwLock<HashMap<TopicId, Conflict>>,
    peers: RwLock<Vec<PeerInfo>>,
    looking: Mutex<Looking>,
}

/// When to look again.
#[derive(Default)]
struct Looking {
    /// When the peers were listed last; `None`: they are to be listed now.
    listed: Option<Instant>,
    /// Where among the conflicts the next look begins.
    next_conflict: usize,
    /// Telling everything for the sake of a free name did not help; not again before this.
    tell_not_before: Option<Instant>,
    /// Names held here that other peers store topics under as well.
    contested: BTreeSet<TopicName>,
}

impl Known {
    fn looking(&self) -> MutexGuard<'_, Looking> {
        self.looking.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // --- peers ---------------------------------------------------------------

    /// The other peers, as told last.
    pub fn peers(&self) -> Vec<PeerInfo> {
        self.peers
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Somebody was met: if it is not one of the peers known, they are listed again soon.
    pub fn meet(&self, peer: PeerId) {
        let peers = self.peers.read().unwrap_or_else(PoisonError::into_inner);
        if !peers.iter().any(|known| known.id == peer) {
            self.list_soon();
        }
    }

    /// The peers are to be listed again with the next heartbeat.
    pub fn list_soon(&self) {
        self.looking().listed = None;
    }

    /// Whether it is time to list the peers.
    pub fn wants_list(&self) -> bool {
        let listed = self.looking().listed;
        listed.is_none_or(|at| at.elapsed() >= limits::PEERS_LISTED_EVERY)
    }

    /// Takes over a list of all peers, `own` among them.
    pub fn note_peers(&self, mut peers: Vec<PeerInfo>, own: PeerId) {
        let of_own = peers.iter().position(|peer| peer.id == own);
        let of_own = of_own.map(|at| peers.remove(at).conflicts);
        peers.truncate(limits::PEERS_MAX);
        *self.peers.write().unwrap_or_else(PoisonError::into_inner) = peers;
        let stored: BTreeSet<TopicName> = self.names();
        let contested: BTreeSet<TopicName> = of_own
            .into_iter()
            .flatten()
            .filter(|name| !stored.contains(name))
            .collect();
        let mut looking = self.looking();
        looking.listed = Some(Instant::now());
        for name in contested.difference(&looking.contested) {
            warn!(
                topic = %name,
                "another peer stores a topic under a name that belongs to one here: rename one of them"
            );
        }
        looking.contested = contested;
    }

    // --- conflicts -----------------------------------------------------------

    /// The conflict a topic is in, if it is.
    pub fn conflict(&self, id: TopicId) -> Option<Conflict> {
        self.conflicts
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&id)
            .cloned()
    }

    fn names(&self) -> BTreeSet<TopicName> {
        let conflicts = self
            .conflicts
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        conflicts.values().map(|c| c.name.clone()).collect()
    }

    /// Takes over the conflicts that the index told: these, and no others.
    pub fn note_conflicts(&self, told: Vec<Conflict>) {
        let told: HashMap<TopicId, Conflict> = told
            .into_iter()
            .map(|conflict| (conflict.id, conflict))
            .collect();
        let mut known = self
            .conflicts
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        for conflict in told.values().filter(|new| known.get(&new.id) != Some(*new)) {
            error!(
                topic = %conflict.name,
                holder = %conflict.holder,
                "the name of a stored topic belongs to another topic: rename one of them"
            );
        }
        for over in known.values().filter(|old| !told.contains_key(&old.id)) {
            info!(topic = %over.name, "the conflict over the name of a stored topic is over");
        }
        *known = told;
    }

    /// The topic has a name of its own now, or is gone.
    pub fn settle(&self, id: TopicId) {
        let over = self
            .conflicts
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&id);
        if let Some(over) = over {
            info!(topic = %over.name, "the conflict over the name of a stored topic is over");
        }
    }

    /// The conflicts to look after now: a few, and others the next time.
    pub fn some_conflicts(&self) -> Vec<Conflict> {
        let mut looking = self.looking();
        if looking
            .tell_not_before
            .is_some_and(|at| Instant::now() < at)
        {
            return Vec::new();
        }
        let conflicts = self
            .conflicts
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        let count = conflicts.len().min(limits::CONFLICTS_LOOKED_AT_ONCE);
        let from = looking.next_conflict.checked_rem(conflicts.len());
        looking.next_conflict = looking.next_conflict.wrapping_add(count);
        let from = from.unwrap_or_default();
        let all = conflicts.values().chain(conflicts.values());
        all.skip(from).take(count).cloned().collect()
    }

    /// Everything was told for the sake of this conflict. If it is one still, that waits a while.
    pub fn told_for(&self, id: TopicId) {
        let helped = self.conflict(id).is_none();
        let wait: Duration = limits::CONFLICT_RETRIED_EVERY;
        self.looking().tell_not_before = (!helped).then(|| Instant::now() + wait);
    }
}
