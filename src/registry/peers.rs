//! The peers of the registry: identities, names, processes, leases and load.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::table::{PeerNumber, bucket_of};
use super::{Millis, Now};
use crate::limits;
use crate::protocol::api::{Nonce, PeerLoad, PeerState, RegisterPeer, StoredTopic};
use crate::protocol::error::ApiError;
use crate::time::Timestamp;
use crate::types::{Address, LeaderEpoch, PeerId, PeerName, TopicId, TopicName};

/// A peer as the registry keeps it.
#[derive(Debug, Clone)]
pub(super) struct Peer {
    pub(super) id: PeerId,
    pub(super) name: PeerName,
    pub(super) address: Address,
    pub(super) state: PeerState,
    pub(super) since: Timestamp,
    /// The process that is this peer now.
    pub(super) nonce: Nonce,
    /// Processes that were displaced, oldest first, at most [`limits::NONCES_KEPT_MAX`].
    pub(super) displaced: Vec<Nonce>,
    /// Whether its full list of topics was taken since it registered. Stored: a
    /// registration that a crash interrupted is asked for again.
    pub(super) listed: bool,

    // From here on: not stored.
    /// When the lease runs out; it counts while the peer is online.
    pub(super) lease_ends: Millis,
    pub(super) load: PeerLoad,
    /// Topics that were to be placed here since it last told its load.
    pub(super) placed: u64,
    /// The list of topics that is coming in or being taken.
    pub(super) incoming: Option<Incoming>,
}

/// A list of topics that comes in or is being taken.
#[derive(Debug, Clone, Default)]
pub(super) struct Incoming {
    pub(super) next_part: u32,
    /// By the buckets of their names: the order in which they are taken. What was taken is gone from here.
    topics: BTreeMap<(u32, TopicId), (TopicName, LeaderEpoch)>,
    /// Which bucket an id is in, until the list is complete: its last mention counts.
    ids: BTreeMap<TopicId, u32>,
    pub(super) meanwhile: Meanwhile,
}

/// What the peer confirmed and dropped since it registered: the list may have been made before or after it.
#[derive(Debug, Clone, Default)]
pub(super) struct Meanwhile {
    confirmed: BTreeMap<TopicId, (TopicName, LeaderEpoch)>,
    dropped: BTreeSet<(TopicId, TopicName)>,
}

impl Meanwhile {
    pub(super) fn confirmed(&mut self, topic: &StoredTopic) {
        self.dropped.remove(&(topic.id, topic.name.clone()));
        let named = (topic.name.clone(), topic.epoch);
        self.confirmed.insert(topic.id, named);
    }

    pub(super) fn dropped(&mut self, name: &TopicName, id: TopicId) {
        self.dropped.insert((id, name.clone()));
    }

    pub(super) fn len(&self) -> usize {
        self.confirmed.len() + self.dropped.len()
    }

    /// Whether it says that the topic has that name.
    pub(super) fn says(&self, id: TopicId, name: &TopicName) -> bool {
        let confirmed = self.confirmed.get(&id);
        confirmed.is_some_and(|(there, _)| there == name) && !self.denies(id, name)
    }

    /// Whether it says that the topic does not have that name any more.
    fn denies(&self, id: TopicId, name: &TopicName) -> bool {
        let renamed = self.confirmed.get(&id).is_some_and(|(new, _)| new != name);
        // Nothing is dropped on most days: then no name is copied to ask.
        renamed || (!self.dropped.is_empty() && self.dropped.contains(&(id, name.clone())))
    }
}

impl Incoming {
    /// How many entries it keeps in memory.
    pub(super) fn len(&self) -> usize {
        self.topics.len() + self.meanwhile.len()
    }

    /// How many topics of the list there are in it.
    pub(super) fn topics(&self) -> usize {
        self.topics.len()
    }

    /// Forgets the list, and not what happened meanwhile.
    pub(super) fn begin_again(&mut self) {
        self.next_part = 0;
        self.topics.clear();
        self.ids.clear();
    }

    /// Adds the next part. Sorted first: trees are several times as fast to fill in their order.
    pub(super) fn extend(&mut self, mut part: Vec<StoredTopic>) {
        part.sort_by_key(|topic| topic.id);
        for topic in &part {
            let bucket = bucket_of(&topic.name);
            if let Some(earlier) = self.ids.insert(topic.id, bucket)
                && earlier != bucket
            {
                self.topics.remove(&(earlier, topic.id));
            }
        }
        let placed = |topic: StoredTopic| {
            let place = (bucket_of(&topic.name), topic.id);
            (place, (topic.name, topic.epoch))
        };
        let mut part: Vec<_> = part.into_iter().map(placed).collect();
        part.sort_by_key(|&(place, _)| place);
        let ids = &self.ids;
        part.retain(|((bucket, id), _)| ids.get(id) == Some(bucket));
        self.topics.extend(part);
        self.next_part += 1;
    }

    /// The list is complete: what was confirmed meanwhile belongs to it.
    pub(super) fn complete(&mut self) {
        self.ids = BTreeMap::new();
        for (id, (name, epoch)) in &self.meanwhile.confirmed {
            let place = (bucket_of(name), *id);
            self.topics.insert(place, (name.clone(), *epoch));
        }
    }

    /// The bucket of the next topics to be taken.
    pub(super) fn next_bucket(&self) -> Option<u32> {
        let ((bucket, _), _) = self.topics.first_key_value()?;
        Some(*bucket)
    }

    /// Takes the topics in that bucket out, in the order of their ids.
    pub(super) fn take(&mut self, bucket: u32) -> Vec<StoredTopic> {
        let mut taken = Vec::new();
        while let Some(first) = self.topics.first_entry()
            && first.key().0 == bucket
        {
            let ((_, id), (name, epoch)) = first.remove_entry();
            if !self.meanwhile.denies(id, &name) {
                taken.push(StoredTopic { name, id, epoch });
            }
        }
        taken
    }
}

impl Peer {
    fn new(request: RegisterPeer, now: Now, lease: Duration) -> Self {
        Self {
            id: request.peer,
            name: request.name,
            address: request.address,
            state: PeerState::Online,
            since: now.wall,
            nonce: request.nonce,
            displaced: Vec::new(),
            listed: false,
            lease_ends: now.ticks.after(lease),
            load: request.load,
            placed: 0,
            incoming: Some(Incoming::default()),
        }
    }

    /// Puts it into `state`; whether that is news.
    pub(super) fn enter(&mut self, state: PeerState, now: Now) -> bool {
        let changed = self.state != state;
        if changed {
            self.state = state;
            self.since = now.wall;
        }
        changed
    }

    /// Takes a sign of life; whether the peer was not online before.
    pub(super) fn renew(&mut self, load: PeerLoad, now: Now, lease: Duration) -> bool {
        self.lease_ends = now.ticks.after(lease);
        self.load = load;
        self.placed = 0;
        self.enter(PeerState::Online, now)
    }
}

/// All peers, by number, identity and name.
#[derive(Default)]
pub(super) struct Peers {
    slots: Vec<Option<Peer>>,
    ids: BTreeMap<PeerId, PeerNumber>,
    names: BTreeMap<PeerName, PeerNumber>,
}

/// What became of a peer that introduced itself.
pub(super) struct Introduced {
    pub(super) number: PeerNumber,
    /// Another process of the same identity was thought to be alive.
    pub(super) displaced: bool,
    /// Entries that an interrupted list of it had in memory.
    pub(super) forgotten: usize,
}

impl Peers {
    pub(super) fn get(&self, number: PeerNumber) -> Option<&Peer> {
        self.slots.get(number.index())?.as_ref()
    }

    pub(super) fn get_mut(&mut self, number: PeerNumber) -> Option<&mut Peer> {
        self.slots.get_mut(number.index())?.as_mut()
    }

    /// A peer that is known to exist: entries never outlive their peers (invariant 3).
    pub(super) fn at(&self, number: PeerNumber) -> &Peer {
        self.get(number).expect("an entry's peer exists")
    }

    /// The same, to change it.
    pub(super) fn at_mut(&mut self, number: PeerNumber) -> &mut Peer {
        self.get_mut(number).expect("an entry's peer exists")
    }

    pub(super) fn all(&self) -> impl Iterator<Item = (PeerNumber, &Peer)> {
        let numbered = |(at, peer): (usize, _)| Some((PeerNumber::new(at)?, peer));
        self.slots
            .iter()
            .enumerate()
            .filter_map(move |(at, peer)| numbered((at, peer.as_ref()?)))
    }

    pub(super) fn len(&self) -> usize {
        self.ids.len()
    }

    pub(super) fn by_id(&self, id: PeerId) -> Option<PeerNumber> {
        self.ids.get(&id).copied()
    }

    pub(super) fn by_name(&self, name: &PeerName) -> Option<PeerNumber> {
        self.names.get(name).copied()
    }

    /// In the order of their names.
    pub(super) fn by_names(&self) -> impl Iterator<Item = PeerNumber> + '_ {
        self.names.values().copied()
    }

    /// The peer that `nonce` is the living process of.
    pub(super) fn process(&self, id: PeerId, nonce: Nonce) -> Result<PeerNumber, ApiError> {
        let number = self.by_id(id).ok_or(ApiError::NotRegistered)?;
        let peer = self.at(number);
        if peer.displaced.contains(&nonce) {
            return Err(ApiError::Displaced);
        }
        if peer.nonce != nonce || peer.state == PeerState::Offline {
            return Err(ApiError::NotRegistered);
        }
        Ok(number)
    }

    /// Takes an introduction: a new peer, a new process of a known one, or the same process again.
    pub(super) fn introduce(
        &mut self,
        request: RegisterPeer,
        now: Now,
        lease: Duration,
    ) -> Result<Introduced, ApiError> {
        let known = self.by_id(request.peer);
        if let Some(number) = known
            && self.at(number).displaced.contains(&request.nonce)
        {
            return Err(ApiError::Displaced);
        }
        if let Some(other) = self.by_name(&request.name)
            && Some(other) != known
        {
            return Err(ApiError::PeerNameTaken { name: request.name });
        }
        match known {
            Some(number) => Ok(self.reintroduce(number, request, now, lease)),
            None => {
                let number = self.free_number()?;
                self.put(number, Peer::new(request, now, lease));
                Ok(Introduced {
                    number,
                    displaced: false,
                    forgotten: 0,
                })
            }
        }
    }

    fn reintroduce(
        &mut self,
        number: PeerNumber,
        request: RegisterPeer,
        now: Now,
        lease: Duration,
    ) -> Introduced {
        let old = self.take(number).expect("a known peer");
        let mut new = Peer::new(request, now, lease);
        new.displaced.clone_from(&old.displaced);
        let other = old.nonce != new.nonce;
        if other {
            if new.displaced.len() == limits::NONCES_KEPT_MAX {
                new.displaced.remove(0);
            }
            new.displaced.push(old.nonce);
        }
        if old.state == PeerState::Online {
            new.since = old.since;
        }
        self.put(number, new);
        Introduced {
            number,
            displaced: other && old.state == PeerState::Online,
            forgotten: old.incoming.map_or(0, |incoming| incoming.len()),
        }
    }

    fn free_number(&self) -> Result<PeerNumber, ApiError> {
        let free = self.slots.iter().position(Option::is_none);
        PeerNumber::new(free.unwrap_or(self.slots.len())).ok_or_else(|| ApiError::InvalidArgument {
            what: "registration".to_owned(),
            reason: format!(
                "this index takes {} peers: retire one that will not come back",
                limits::PEERS_MAX
            ),
        })
    }

    /// Puts a peer in place; its identity and its name are free.
    pub(super) fn put(&mut self, number: PeerNumber, peer: Peer) {
        if self.slots.len() <= number.index() {
            self.slots.resize_with(number.index() + 1, || None);
        }
        self.ids.insert(peer.id, number);
        self.names.insert(peer.name.clone(), number);
        self.slots[number.index()] = Some(peer);
    }

    /// Removes a peer; its entries have to be gone.
    pub(super) fn take(&mut self, number: PeerNumber) -> Option<Peer> {
        let peer = self.slots.get_mut(number.index())?.take()?;
        self.ids.remove(&peer.id);
        self.names.remove(&peer.name);
        Some(peer)
    }
}
