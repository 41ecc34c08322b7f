//! Names: claimed, confirmed, dropped.
//!
//! ```text
//!   free --claim--> claimed --confirm--> held --drop--> free
//!                      |                  |
//!                      +-- 10 s, drop     +-- claimed with the same id by another peer
//!                      v                      while the host is not online, confirmed:
//!                     free                    moves, epoch + 1
//! ```
//!
//! Every command here may come twice, because its answer was lost, and then
//! does nothing the second time. A confirmation may come after its claim ended:
//! it counts if the name is still free.

use super::peers::Meanwhile;
use super::state::{Effects, State};
use super::table::{Entry, Kind, PeerNumber, Slot, bucket_of};
use super::{Millis, Now};
use crate::limits;
use crate::protocol::api::{ClaimTopic, ConfirmTopic, DropTopic, PeerState, StoredTopic};
use crate::protocol::error::ApiError;
use crate::types::{LeaderEpoch, PeerName, TopicId, TopicName};

impl State {
    pub(super) fn claim_topic(
        &mut self,
        request: ClaimTopic,
        now: Now,
        effects: &mut Effects,
    ) -> Result<LeaderEpoch, ApiError> {
        let peer = self.peers.process(request.peer, request.nonce)?;
        if let Some(slot) = self.topics.find(&request.name, Kind::Held) {
            let held = self.topics.get(slot);
            if held.id == request.id && held.peer == peer {
                return Ok(held.epoch);
            }
            if held.id != request.id || self.is_online(held.peer) {
                return Err(ApiError::TopicExists { name: request.name });
            }
        }
        let ends = now.ticks.after(self.settings.claim_kept);
        let claim = self.topics.find(&request.name, Kind::Claim);
        if let Some(slot) = claim {
            let claim = self.topics.get(slot);
            if claim.peer == peer && claim.id == request.id {
                return self.renew_claim(slot, ends, effects);
            }
            if self.is_live(slot, now.ticks) {
                return Err(ApiError::ClaimPending { name: request.name });
            }
        }
        let epoch = self.epoch_at(peer, request.id)?;
        self.check_room(peer)?;
        if let Some(ended) = claim {
            self.remove_entry(ended, effects);
        }
        let claim = Entry {
            name: request.name,
            kind: Kind::Claim,
            id: request.id,
            epoch,
            peer,
        };
        let slot = self.insert_entry(claim, effects);
        self.claims.insert(slot, ends);
        Ok(epoch)
    }

    fn renew_claim(
        &mut self,
        slot: Slot,
        ends: Millis,
        effects: &mut Effects,
    ) -> Result<LeaderEpoch, ApiError> {
        let claim = self.topics.get(slot);
        let epoch = self.epoch_at(claim.peer, claim.id)?.max(claim.epoch);
        if epoch > claim.epoch {
            effects.buckets.insert(bucket_of(&claim.name));
            self.topics.set_epoch(slot, epoch);
        }
        self.claims.insert(slot, ends);
        Ok(epoch)
    }

    pub(super) fn confirm_topic(
        &mut self,
        request: ConfirmTopic,
        now: Now,
        effects: &mut Effects,
    ) -> Result<(), ApiError> {
        let peer = self.peers.process(request.peer, request.nonce)?;
        let stale = |current| ApiError::StaleEpoch {
            given: request.epoch,
            current,
        };
        if let Some(slot) = self.topics.find(&request.name, Kind::Held) {
            let held = self.topics.get(slot);
            if held.id != request.id {
                return Err(self.name_conflict(request.name, held.peer));
            }
            if held.peer == peer {
                let behind = request.epoch < held.epoch;
                return if behind {
                    Err(stale(held.epoch))
                } else {
                    Ok(())
                };
            }
        }
        let claim = self.topics.find(&request.name, Kind::Claim);
        let granted = claim.map(|slot| self.topics.get(slot));
        let epoch = match granted {
            Some(claim) if claim.peer == peer && claim.id == request.id => {
                // The host may have come back since the claim was granted.
                self.epoch_at(peer, request.id)?.max(claim.epoch)
            }
            Some(_) if claim.is_some_and(|slot| self.is_live(slot, now.ticks)) => {
                return Err(ApiError::ClaimPending { name: request.name });
            }
            _ => {
                self.check_room(peer)?;
                self.epoch_at(peer, request.id)?
            }
        };
        if request.epoch < epoch {
            return Err(stale(epoch));
        }
        if let Some(slot) = claim {
            self.remove_entry(slot, effects);
        }
        self.hold(peer, request, effects);
        Ok(())
    }

    /// Gives the name to the topic, takes the topic's other name away, and lets
    /// a former host keep its copy as a conflict.
    fn hold(&mut self, peer: PeerNumber, request: ConfirmTopic, effects: &mut Effects) {
        self.take_name(peer, request.id, effects);
        if let Some(slot) = self.topics.find_id(request.id, Kind::Held) {
            self.set_aside(slot, effects);
        }
        let topic = StoredTopic {
            name: request.name,
            id: request.id,
            epoch: request.epoch,
        };
        self.note_meanwhile(peer, |meanwhile| meanwhile.confirmed(&topic), effects);
        let held = Entry {
            name: topic.name,
            kind: Kind::Held,
            id: topic.id,
            epoch: topic.epoch,
            peer,
        };
        self.insert_entry(held, effects);
    }

    /// A holder becomes one who stores a topic whose name leads elsewhere.
    pub(super) fn set_aside(&mut self, slot: Slot, effects: &mut Effects) {
        effects
            .buckets
            .insert(bucket_of(&self.topics.get(slot).name));
        self.topics.set_kind(slot, Kind::Conflict);
    }

    /// Takes from the topic whatever name it has at that peer, claims aside.
    pub(super) fn take_name(&mut self, peer: PeerNumber, id: TopicId, effects: &mut Effects) {
        let own = |slot: &Slot| {
            let entry = self.topics.get(*slot);
            entry.peer == peer && entry.kind != Kind::Claim
        };
        let slots: Vec<Slot> = self.topics.of_id(id).filter(own).collect();
        for slot in slots {
            self.remove_entry(slot, effects);
        }
    }

    pub(super) fn drop_topic(
        &mut self,
        request: &DropTopic,
        effects: &mut Effects,
    ) -> Result<(), ApiError> {
        let peer = self.peers.process(request.peer, request.nonce)?;
        let slots: Vec<Slot> = self.topics.named(&request.name).collect();
        for slot in slots {
            let entry = self.topics.get(slot);
            if entry.peer == peer && entry.id == request.id {
                self.remove_entry(slot, effects);
            }
        }
        let dropped = |meanwhile: &mut Meanwhile| meanwhile.dropped(&request.name, request.id);
        self.note_meanwhile(peer, dropped, effects);
        Ok(())
    }

    /// Remembers what happens while a list comes in or is taken. A list during which more
    /// happens than a peer may have topics is forgotten; the peer sends it again.
    fn note_meanwhile(
        &mut self,
        peer: PeerNumber,
        note: impl FnOnce(&mut Meanwhile),
        effects: &mut Effects,
    ) {
        let room = self.incoming < limits::INDEX_ENTRIES_MAX;
        let Some(incoming) = self.peers.at_mut(peer).incoming.as_mut() else {
            return;
        };
        if incoming.meanwhile.len() < limits::TOPICS_PER_PEER_MAX && room {
            let before = incoming.len();
            note(&mut incoming.meanwhile);
            self.incoming = self.incoming + incoming.len() - before;
        } else {
            self.forget_incoming(peer, effects);
        }
    }

    /// The epoch of a topic at that peer, as the index grants it: what the peer
    /// has if it stores the topic already, and above what any other peer has.
    fn epoch_at(&self, peer: PeerNumber, id: TopicId) -> Result<LeaderEpoch, ApiError> {
        let mut epoch = LeaderEpoch::ZERO.next();
        for slot in self.topics.of_id(id) {
            let entry = self.topics.get(slot);
            if entry.kind == Kind::Held && entry.peer != peer && self.is_online(entry.peer) {
                return Err(self.name_conflict(entry.name.clone(), entry.peer));
            }
            epoch = epoch.max(match entry.kind {
                Kind::Claim => LeaderEpoch::ZERO,
                _ if entry.peer == peer => entry.epoch,
                _ => entry.epoch.next(),
            });
        }
        Ok(epoch)
    }

    fn check_room(&self, peer: PeerNumber) -> Result<(), ApiError> {
        let too_many = |max: usize| ApiError::TooManyTopics { max: max as u64 };
        if self.topics.of_peer(peer).len() >= limits::TOPICS_PER_PEER_MAX {
            return Err(too_many(limits::TOPICS_PER_PEER_MAX));
        }
        if self.topics.len() >= limits::INDEX_ENTRIES_MAX {
            return Err(too_many(limits::INDEX_ENTRIES_MAX));
        }
        Ok(())
    }

    fn is_online(&self, peer: PeerNumber) -> bool {
        self.peers.at(peer).state == PeerState::Online
    }

    /// Whether a claim has not ended, though no tick may have removed it yet.
    pub(super) fn is_live(&self, claim: Slot, now: Millis) -> bool {
        self.claims.get(&claim).is_some_and(|&ends| ends > now)
    }

    pub(super) fn peer_name(&self, peer: PeerNumber) -> PeerName {
        self.peers.at(peer).name.clone()
    }

    fn name_conflict(&self, name: TopicName, holder: PeerNumber) -> ApiError {
        ApiError::NameConflict {
            name,
            holder: self.peer_name(holder),
        }
    }
}
