//! What is told: a copy of the registry for reading.
//!
//! It holds what is durable, in a form made for lookups and ordered listings,
//! and is brought up to date bucket by bucket. It exists beside the state for
//! two reasons: an answer must not show what a crash could take back, and
//! readers must not wait while a command is applied or a row is written. The
//! price is a second copy, about 95 bytes a topic.
//!
//! No call here looks at more than a bounded number of entries, because readers
//! hold a lock meanwhile: a listing is walked in slices, and a watcher who would
//! have to be told too much is told to list instead.

use std::collections::{BTreeMap, BTreeSet};

use super::changes::{Changed, Changes};
use super::order::Order;
use super::state::{Effects, State};
use super::table::{Entry, Kind, PeerNumber, Slot, Table};
use crate::limits;
use crate::protocol::api::{self, PeerInfo, PeerState, TopicLocation};
use crate::protocol::codec;
use crate::types::{PeerName, TopicName, TopicPattern};

/// Entries that one call looks at, at most.
const SCAN_ENTRIES_MAX: usize = 1_024;

/// A part of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slice {
    /// What matched.
    pub topics: Vec<TopicLocation>,
    /// The name to go on after; `None` at the end of the listing.
    pub next: Option<TopicName>,
}

/// The registry as it is told.
pub struct Directory {
    topics: Table,
    order: Order,
    peers: Vec<Option<PeerInfo>>,
    /// What every location at a peer ends with, as it is sent.
    tails: Vec<Vec<u8>>,
    names: BTreeMap<PeerName, PeerNumber>,
    /// Entries of kind conflict, per peer that stores the topic.
    conflicts: BTreeMap<PeerNumber, BTreeSet<Slot>>,
    changes: Changes,
}

impl Directory {
    /// A copy of all of `state`. `version` has to be larger than any version
    /// that an earlier directory of this index has told.
    pub fn new(state: &State, version: u64) -> Self {
        let mut this = Self {
            topics: Table::new(false),
            order: Order::default(),
            peers: Vec::new(),
            tails: Vec::new(),
            names: BTreeMap::new(),
            conflicts: BTreeMap::new(),
            changes: Changes::new(version.max(1)),
        };
        for number in state.peer_numbers() {
            this.show_peer(state, number);
        }
        let mut held = Vec::with_capacity(state.entries());
        for (_, entry) in state.topics.all() {
            match entry.kind {
                Kind::Held => held.push(this.topics.insert(entry.clone())),
                Kind::Conflict => this.show_entry(entry),
                Kind::Claim => {}
            }
        }
        this.order = Order::build(held, &this.topics);
        this
    }

    /// Shows everything that `effects` names as it is in `state` now.
    pub fn show(&mut self, state: &State, effects: &Effects) {
        self.show_peers(state, effects);
        for &bucket in &effects.buckets {
            self.show_bucket(state, bucket);
        }
        self.hide_peers(state, effects);
    }

    /// The first step of [`Directory::show`]: peers that are new or changed.
    pub fn show_peers(&mut self, state: &State, effects: &Effects) {
        for &number in &effects.peers {
            self.show_peer(state, number);
        }
        for &number in &effects.loads {
            if let (Some(Some(old)), Some(new)) =
                (self.peers.get_mut(number.index()), state.peer(number))
            {
                old.load = new.load;
            }
        }
    }

    /// The second step, for each bucket: its entries.
    pub fn show_bucket(&mut self, state: &State, bucket: u32) {
        let mut new = state.bucket(bucket);
        new.retain(|entry| entry.kind != Kind::Claim);
        let old: Vec<Slot> = self.topics.in_bucket(bucket).collect();
        for slot in old {
            let old = self.topics.get(slot);
            let same = |new: &&Entry| {
                (new.kind, new.id, new.peer) == (old.kind, old.id, old.peer) && new.name == old.name
            };
            match new.iter().position(same) {
                None => self.hide_entry(slot),
                Some(at) => {
                    let new = new.swap_remove(at);
                    if new.epoch != old.epoch {
                        self.topics.set_epoch(slot, new.epoch);
                        self.changes.push(Changed::Topic(new.name.clone()));
                    }
                }
            }
        }
        for entry in new {
            self.show_entry(entry);
        }
    }

    /// The last step: peers that are gone, now that no entry names them.
    pub fn hide_peers(&mut self, state: &State, effects: &Effects) {
        for &number in &effects.peers {
            if state.peer(number).is_none() {
                self.forget_peer(number);
            }
        }
    }

    fn show_peer(&mut self, state: &State, number: PeerNumber) {
        let Some(new) = state.peer(number) else {
            return;
        };
        if self.peers.len() <= number.index() {
            self.peers.resize(number.index() + 1, None);
            self.tails.resize(number.index() + 1, Vec::new());
        }
        self.tails[number.index()] = tail(&new);
        let old = self.peers[number.index()].take();
        let told = |peer: &PeerInfo| (peer.id, peer.name.clone(), peer.state, peer.since);
        let is_news = old
            .as_ref()
            .is_none_or(|old| told(old) != told(&new) || old.address != new.address);
        if let Some(old) = old
            && self.names.get(&old.name) == Some(&number)
        {
            self.names.remove(&old.name);
        }
        self.names.insert(new.name.clone(), number);
        self.peers[number.index()] = Some(new);
        if is_news {
            self.changes.push(Changed::Peer(number));
        }
    }

    fn forget_peer(&mut self, number: PeerNumber) {
        let Some(old) = self.peers.get_mut(number.index()).and_then(Option::take) else {
            return;
        };
        if self.names.get(&old.name) == Some(&number) {
            self.names.remove(&old.name);
        }
    }

    fn show_entry(&mut self, entry: &Entry) {
        let slot = self.topics.insert(entry.clone());
        if entry.kind == Kind::Held {
            self.order.insert(slot, &self.topics);
            self.changes.push(Changed::Topic(entry.name.clone()));
        } else {
            self.conflicts.entry(entry.peer).or_default().insert(slot);
        }
    }

    fn hide_entry(&mut self, slot: Slot) {
        if self.topics.get(slot).kind == Kind::Held {
            self.order.remove(slot, &self.topics);
            let entry = self.topics.remove(slot);
            self.changes.push(Changed::Topic(entry.name));
            return;
        }
        let entry = self.topics.remove(slot);
        if let Some(slots) = self.conflicts.get_mut(&entry.peer) {
            slots.remove(&slot);
            if slots.is_empty() {
                self.conflicts.remove(&entry.peer);
            }
        }
    }

    /// Number of topics.
    pub fn topics(&self) -> usize {
        self.topics.len() - self.conflicts()
    }

    /// Number of stored topics whose names belong to others.
    pub fn conflicts(&self) -> usize {
        self.conflicts.values().map(BTreeSet::len).sum()
    }

    /// How many peers are in each state.
    pub fn peers_by_state(&self) -> [(PeerState, u64); 3] {
        let mut counts = [PeerState::Online, PeerState::Offline, PeerState::Down].map(|s| (s, 0));
        for peer in self.peers.iter().flatten() {
            for (state, count) in &mut counts {
                *count += u64::from(peer.state == *state);
            }
        }
        counts
    }

    /// Who hosts the topic of that name.
    pub fn lookup(&self, name: &TopicName) -> Option<TopicLocation> {
        self.location(self.topics.find(name, Kind::Held)?)
    }

    /// The same as the body of an answer. Put together from bytes that are there: to encode a
    /// location field by field takes several times as long as to find it, and to allocate for one as long.
    pub fn answer<R>(&self, name: &TopicName, with: impl FnOnce(&[&[u8]]) -> R) -> Option<R> {
        let entry = self.topics.get(self.topics.find(name, Kind::Held)?);
        let tail = self.tails.get(entry.peer.index())?;
        let (id, epoch) = (entry.id.to_bytes(), entry.epoch.get().to_le_bytes());
        let name = codec::text(entry.name.as_bytes());
        Some(with(&[&name.length, name.bytes, &id, &epoch, tail]))
    }

    /// Fetches from memory what answers about those names need.
    pub fn foresee<'a>(&self, names: impl Iterator<Item = &'a [u8]>) {
        self.topics.foresee(names);
    }

    fn location(&self, slot: Slot) -> Option<TopicLocation> {
        let entry = self.topics.get(slot);
        let peer = self.peers.get(entry.peer.index())?.as_ref()?;
        Some(TopicLocation {
            name: entry.name.clone(),
            id: entry.id,
            epoch: entry.epoch,
            peer: peer.id,
            peer_name: peer.name.clone(),
            address: peer.address.clone(),
            state: peer.state,
            since: peer.since,
        })
    }

    /// The next topics that match, in the order of their names, at most `want`.
    /// Ends early, with where to go on, rather than look at too many.
    pub fn list(&self, pattern: &TopicPattern, after: Option<&TopicName>, want: usize) -> Slice {
        let prefix = literal_prefix(pattern);
        let after = after.map_or("", TopicName::as_str);
        let resumed = !after.is_empty() && after >= prefix;
        let from = if resumed { after } else { prefix };
        let mut topics = Vec::new();
        let slots = self.order.starting(from, resumed, &self.topics);
        for (scanned, slot) in slots.enumerate() {
            let name = &self.topics.get(slot).name;
            if !name.as_str().starts_with(prefix) {
                break;
            }
            if pattern.matches(name) {
                topics.extend(self.location(slot));
            }
            if topics.len() >= want || scanned + 1 >= SCAN_ENTRIES_MAX {
                let next = Some(name.clone());
                return Slice { topics, next };
            }
        }
        Slice { topics, next: None }
    }

    /// All peers, in the order of their names. Names in conflict are cut at
    /// [`limits::CONFLICTS_SHOWN_PER_PEER_MAX`] and [`limits::CONFLICTS_SHOWN_MAX`] in all.
    pub fn list_peers(&self) -> Vec<PeerInfo> {
        let mut conflicts = self.conflicts_by_peer();
        let info = |&number: &PeerNumber| {
            let mut peer = self.peers.get(number.index())?.clone()?;
            let stored = self.topics.of_peer(number).len();
            let unheld = self.conflicts.get(&number).map_or(0, BTreeSet::len);
            peer.topics = (stored - unheld) as u64;
            let names = conflicts.remove(&number).unwrap_or_default();
            peer.conflicts = names.into_iter().collect();
            Some(peer)
        };
        self.names.values().filter_map(info).collect()
    }

    /// Each conflict concerns who stores the topic and who holds its name.
    fn conflicts_by_peer(&self) -> BTreeMap<PeerNumber, BTreeSet<TopicName>> {
        let mut found: BTreeMap<PeerNumber, BTreeSet<TopicName>> = BTreeMap::new();
        let shown = self
            .conflicts
            .values()
            .flat_map(|slots| slots.iter().take(limits::CONFLICTS_SHOWN_PER_PEER_MAX));
        for &slot in shown.take(limits::CONFLICTS_SHOWN_MAX) {
            let entry = self.topics.get(slot);
            found
                .entry(entry.peer)
                .or_default()
                .insert(entry.name.clone());
            if let Some(held) = self.topics.find(&entry.name, Kind::Held) {
                let holder = found.entry(self.topics.get(held).peer).or_default();
                if holder.len() < limits::CONFLICTS_SHOWN_PER_PEER_MAX {
                    holder.insert(entry.name.clone());
                }
            }
        }
        found
    }

    /// The version now.
    pub fn version(&self) -> u64 {
        self.changes.version()
    }

    /// How many entries [`Directory::changes`] would tell; `None` for "list anew".
    pub fn count_changes(&self, version: u64, pattern: &TopicPattern) -> Option<usize> {
        self.changed_names(version, pattern)
            .map(|names| names.len())
    }

    /// What changed after `version` for names that match; possibly nothing.
    pub fn changes(&self, version: u64, pattern: &TopicPattern) -> api::Changes {
        let names = self.changed_names(version, pattern);
        let mut answer = api::Changes {
            version: self.version(),
            reset: names.is_none(),
            changed: Vec::new(),
            dropped: Vec::new(),
        };
        for name in names.into_iter().flatten() {
            match self.lookup(name) {
                Some(location) => answer.changed.push(location),
                None => answer.dropped.push(name.clone()),
            }
        }
        answer
    }

    /// `None` if they are not known, or too many to tell.
    fn changed_names(&self, version: u64, pattern: &TopicPattern) -> Option<BTreeSet<&TopicName>> {
        let mut names = BTreeSet::new();
        let mut peers = BTreeSet::new();
        for changed in self.changes.after(version)? {
            match changed {
                Changed::Topic(name) if pattern.matches(name) => {
                    names.insert(name);
                }
                Changed::Topic(_) => {}
                Changed::Peer(number) => {
                    peers.insert(*number);
                }
            }
        }
        let mut examined = 0;
        for number in peers {
            let slots = self.topics.of_peer(number);
            examined += slots.len();
            if examined > limits::PAGE_ENTRIES_MAX {
                return None;
            }
            let entries = slots.map(|slot| self.topics.get(slot));
            let held = entries.filter(|entry| entry.kind == Kind::Held);
            names.extend(
                held.map(|entry| &entry.name)
                    .filter(|name| pattern.matches(name)),
            );
        }
        (names.len() <= limits::PAGE_ENTRIES_MAX).then_some(names)
    }
}

/// The fields of a [`TopicLocation`] that all topics of a peer have in common: its last ones.
fn tail(peer: &PeerInfo) -> Vec<u8> {
    let fields = (peer.id, &peer.name, &peer.address, peer.state, peer.since);
    codec::encode(&fields, limits::CONTROL_BYTES_MAX, "location").expect("names are bounded")
}

/// What every matching name begins with.
fn literal_prefix(pattern: &TopicPattern) -> &str {
    let text = pattern.as_str();
    let end = text.find(['*', '>']).unwrap_or(text.len());
    &text[..end]
}
