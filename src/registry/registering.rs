//! A peer introduces itself and tells all topics it stores.
//!
//! ```text
//!   RegisterPeer, RegisterTopics 0, 1, 2, ... last
//!   |<-- the old list counts ------------------->|<-- the new one counts
//! ```
//!
//! Parts are kept in memory and count all at once, so a registration that breaks
//! off changes nothing, and a lookup never sees half of a list. What the peer
//! confirms or drops after `RegisterPeer` is applied to the list at the end, so
//! the peer may make the list at any moment after it sent that.

use std::collections::BTreeSet;

use super::Now;
use super::peers::{Incoming, Meanwhile};
use super::state::{Effects, Event, State};
use super::table::{Entry, Kind, PeerNumber, Slot};
use crate::limits;
use crate::protocol::api::{
    Conflict, RegisterPeer, RegisterTopics, Registered, RegisteredTopics, StoredTopic,
};
use crate::protocol::error::ApiError;
use crate::types::TopicId;

impl State {
    pub(super) fn register_peer(
        &mut self,
        request: RegisterPeer,
        now: Now,
        effects: &mut Effects,
    ) -> Result<Registered, ApiError> {
        let lease = self.settings.lease;
        let introduced = self.peers.introduce(request, now, lease)?;
        self.incoming -= introduced.forgotten;
        let peer = self.peers.at(introduced.number);
        effects.peers.insert(introduced.number);
        if introduced.displaced {
            effects.events.push(Event::Displaced {
                peer: peer.name.clone(),
            });
        }
        effects.events.push(Event::Registered {
            peer: peer.name.clone(),
            id: peer.id,
            address: peer.address.clone(),
        });
        Ok(Registered {
            lease_ms: u64::try_from(lease.as_millis()).unwrap_or(u64::MAX),
        })
    }

    pub(super) fn register_topics(
        &mut self,
        request: RegisterTopics,
        now: Now,
        effects: &mut Effects,
    ) -> Result<RegisteredTopics, ApiError> {
        let number = self.peers.process(request.peer, request.nonce)?;
        self.check_part(number, &request)?;
        self.incoming += request.topics.len();
        let peer = self.peers.at_mut(number);
        let incoming = peer.incoming.get_or_insert_default();
        if request.part == 0 {
            self.incoming -= incoming.topics.len();
            incoming.topics = Vec::new();
            incoming.next_part = 0;
        }
        incoming.topics.extend(request.topics);
        incoming.next_part += 1;
        if !request.last {
            return Ok(RegisteredTopics {
                conflicts: Vec::new(),
            });
        }
        let list = peer.incoming.take().unwrap_or_default();
        self.incoming -= list.len();
        peer.listed = true;
        effects.peers.insert(number);
        Ok(self.replace_list(number, list, now, effects))
    }

    fn check_part(&self, number: PeerNumber, request: &RegisterTopics) -> Result<(), ApiError> {
        let wrong = |what: &str, reason| ApiError::InvalidArgument {
            what: what.to_owned(),
            reason,
        };
        let count = request.topics.len();
        if count > limits::PAGE_ENTRIES_MAX {
            let max = limits::PAGE_ENTRIES_MAX;
            let reason = format!("at most {max} topics were expected, {count} found");
            return Err(wrong("part of a list of topics", reason));
        }
        let incoming = self.peers.at(number).incoming.as_ref();
        let came = match (request.part, incoming) {
            (0, _) => 0,
            (part, Some(incoming)) if part == incoming.next_part => incoming.topics.len(),
            // The list began before the index was restarted.
            (_, None) => return Err(ApiError::NotRegistered),
            (part, Some(incoming)) => {
                let next = incoming.next_part;
                let reason =
                    format!("part {next} was expected, {part} found: begin again with part 0");
                return Err(wrong("part of a list of topics", reason));
            }
        };
        let too_many = |max: usize| Err(ApiError::TooManyTopics { max: max as u64 });
        let others = self.topics.len() - self.topics.of_peer(number).len();
        if came + count > limits::TOPICS_PER_PEER_MAX {
            too_many(limits::TOPICS_PER_PEER_MAX)
        } else if others + came + count > limits::INDEX_ENTRIES_MAX
            || self.incoming + count > limits::INDEX_ENTRIES_MAX
        {
            too_many(limits::INDEX_ENTRIES_MAX)
        } else {
            Ok(())
        }
    }

    /// The whole list has come: it replaces what was known of that peer.
    fn replace_list(
        &mut self,
        peer: PeerNumber,
        incoming: Incoming,
        now: Now,
        effects: &mut Effects,
    ) -> RegisteredTopics {
        let list = settled(incoming);
        self.remove_unlisted(peer, &list, effects);
        let topics = list.len();
        let mut conflicts = Vec::new();
        let mut conflicts_untold = 0;
        for topic in list {
            let (name, id) = (topic.name.clone(), topic.id);
            let Some(holder) = self.place(peer, topic, now, effects) else {
                continue;
            };
            if conflicts.len() < limits::CONFLICTS_TOLD_MAX {
                let holder = self.peer_name(holder);
                conflicts.push(Conflict { name, id, holder });
            } else {
                conflicts_untold += 1;
            }
        }
        effects.events.push(Event::Listed {
            peer: self.peer_name(peer),
            topics,
            conflicts: conflicts.clone(),
            conflicts_untold,
        });
        RegisteredTopics { conflicts }
    }

    /// Removes what the peer no longer stores under that name. Its claims stay:
    /// they are for topics it has not made yet. Conflicts are found anew.
    fn remove_unlisted(&mut self, peer: PeerNumber, list: &[StoredTopic], effects: &mut Effects) {
        let is_listed = |entry: &Entry| {
            list.binary_search_by_key(&entry.id, |topic| topic.id)
                .is_ok_and(|at| list[at].name == entry.name)
        };
        let gone = |slot: &Slot| {
            let entry = self.topics.get(*slot);
            match entry.kind {
                Kind::Held => !is_listed(entry),
                Kind::Conflict => true,
                Kind::Claim => false,
            }
        };
        let slots: Vec<Slot> = self.topics.of_peer(peer).filter(gone).collect();
        for slot in slots {
            self.remove_entry(slot, effects);
        }
    }

    /// Registers one stored topic; if its name or its id belongs to another,
    /// notes the conflict and says who that is.
    fn place(
        &mut self,
        peer: PeerNumber,
        topic: StoredTopic,
        now: Now,
        effects: &mut Effects,
    ) -> Option<PeerNumber> {
        let by_name = self.topics.find(&topic.name, Kind::Held);
        let same = by_name.filter(|&slot| self.topics.get(slot).id == topic.id);
        if let Some(slot) = same
            && self.topics.get(slot).peer == peer
        {
            self.raise_epoch(slot, &topic, effects);
            return None;
        }
        let holder = match self.holder(peer, &topic, now) {
            Some(Holder::Older(slot)) => {
                self.set_aside(slot, effects);
                None
            }
            Some(Holder::Other(holder)) => Some(holder),
            None => None,
        };
        // An ended claim, or the peer's own for this very topic.
        if holder.is_none()
            && let Some(claim) = self.topics.find(&topic.name, Kind::Claim)
        {
            self.remove_entry(claim, effects);
        }
        let entry = Entry {
            name: topic.name,
            kind: match holder {
                None => Kind::Held,
                Some(_) => Kind::Conflict,
            },
            id: topic.id,
            epoch: topic.epoch,
            peer,
        };
        self.insert_entry(entry, effects);
        holder
    }

    /// Who stands between the topic and its name.
    fn holder(&self, peer: PeerNumber, topic: &StoredTopic, now: Now) -> Option<Holder> {
        if let Some(slot) = self.topics.find(&topic.name, Kind::Held) {
            let held = self.topics.get(slot);
            if held.id != topic.id {
                return Some(Holder::Other(held.peer));
            }
        }
        if let Some(slot) = self.topics.find(&topic.name, Kind::Claim)
            && self.is_live(slot, now.ticks)
        {
            let claim = self.topics.get(slot);
            if claim.peer != peer || claim.id != topic.id {
                return Some(Holder::Other(claim.peer));
            }
        }
        let slot = self.topics.find_id(topic.id, Kind::Held)?;
        let held = self.topics.get(slot);
        Some(if topic.epoch > held.epoch {
            Holder::Older(slot)
        } else {
            Holder::Other(held.peer)
        })
    }

    fn raise_epoch(&mut self, slot: Slot, topic: &StoredTopic, effects: &mut Effects) {
        if self.topics.get(slot).epoch < topic.epoch {
            self.topics.set_epoch(slot, topic.epoch);
            effects.buckets.insert(super::bucket_of(&topic.name));
        }
    }
}

/// What stands between a returning topic and its name.
enum Holder {
    /// The same topic at an older epoch, elsewhere: it gives way.
    Older(Slot),
    /// Another topic, another peer's claim, or a newer epoch of this one: it stays.
    Other(PeerNumber),
}

/// The list with what happened meanwhile, sorted by id, each id once: the last
/// mention counts.
fn settled(incoming: Incoming) -> Vec<StoredTopic> {
    let mut list = incoming.topics;
    let mut dropped: BTreeSet<(TopicId, String)> = BTreeSet::new();
    for event in incoming.meanwhile {
        match event {
            Meanwhile::Confirmed(topic) => {
                dropped.remove(&(topic.id, topic.name.to_string()));
                list.push(topic);
            }
            Meanwhile::Dropped(name, id) => {
                dropped.insert((id, name.into()));
            }
        }
    }
    // The sort is stable, so of one id the last mention is the last of its run.
    list.sort_by_key(|topic| topic.id);
    list.reverse();
    list.dedup_by_key(|topic| topic.id);
    list.reverse();
    if !dropped.is_empty() {
        list.retain(|topic| !dropped.contains(&(topic.id, topic.name.to_string())));
    }
    list
}
