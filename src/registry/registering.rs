//! A peer introduces itself and tells all topics it stores.
//!
//! ```text
//!   RegisterPeer, RegisterTopics 0, 1, 2, ... last
//!   |<-- the old list counts ------------------->|<-- steps -->|<-- the new one counts
//! ```
//!
//! Parts are kept in memory and count only when the last one has come, so a
//! registration that breaks off changes nothing. Then the list is taken step by
//! step ([`super::jobs`]), and answered when all of it is there. What the peer
//! confirms or drops after `RegisterPeer` is applied to the list, so the peer may
//! make the list at any moment after it sent that.

use super::Now;
use super::state::{Answer, Effects, Event, State};
use super::table::{Entry, Kind, PeerNumber, Slot};
use crate::limits;
use crate::protocol::api::{
    Conflict, RegisterPeer, RegisterTopics, Registered, RegisteredTopics, StoredTopic,
};
use crate::protocol::error::ApiError;

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
        self.break_off(introduced.number, effects);
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
    ) -> Result<Answer, ApiError> {
        let number = self.peers.process(request.peer, request.nonce)?;
        self.check_part(number, &request)?;
        if request.part == 0 {
            self.break_off(number, effects);
        }
        let lease = self.settings.lease;
        let peer = self.peers.at_mut(number);
        // Who tells a long list has no time for heartbeats.
        peer.lease_ends = now.ticks.after(lease);
        let incoming = peer.incoming.get_or_insert_default();
        let before = incoming.len();
        if request.part == 0 {
            incoming.begin_again();
        }
        incoming.extend(request.topics);
        if request.last {
            incoming.complete();
        }
        self.incoming = self.incoming + incoming.len() - before;
        Ok(match request.last {
            true => self.begin_list(number, effects),
            false => Answer::RegisteredTopics(RegisteredTopics {
                conflicts: Vec::new(),
            }),
        })
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
        // One that is complete takes no more parts.
        let incoming = incoming.filter(|_| !self.has_job(number));
        let came = match (request.part, incoming) {
            (0, _) => 0,
            (part, Some(incoming)) if part == incoming.next_part => incoming.topics(),
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

    /// Registers one stored topic; if its name or its id belongs to another,
    /// notes the conflict and says who that is.
    pub(super) fn place(
        &mut self,
        peer: PeerNumber,
        topic: StoredTopic,
        now: Now,
        effects: &mut Effects,
    ) -> Option<Conflict> {
        let by_name = self.topics.find(&topic.name, Kind::Held);
        let same = by_name.filter(|&slot| self.topics.get(slot).id == topic.id);
        if let Some(slot) = same
            && self.topics.get(slot).peer == peer
        {
            self.raise_epoch(slot, &topic, effects);
            return None;
        }
        // Under another name, or in a conflict that may be none any more.
        self.take_name(peer, topic.id, effects);
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
        let conflict = holder.map(|holder| Conflict {
            name: topic.name.clone(),
            id: topic.id,
            holder: self.peer_name(holder),
        });
        let entry = Entry {
            name: topic.name,
            kind: match conflict {
                None => Kind::Held,
                Some(_) => Kind::Conflict,
            },
            id: topic.id,
            epoch: topic.epoch,
            peer,
        };
        self.insert_entry(entry, effects);
        conflict
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
