//! The state and the one way to change it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::job::{Job, JobNumber};
use super::peers::{Peer, Peers};
#[cfg(test)]
use super::table::Kind;
use super::table::{Entry, PeerNumber, Slot, Table, bucket_of};
use super::{Millis, Now};
use crate::protocol::api::{
    ClaimTopic, Claimed, ConfirmTopic, Conflict, Depart, Done, DropTopic, Heartbeat, PeerInfo,
    PeerState, PlaceTopic, Placement, RegisterPeer, RegisterTopics, Registered, RegisteredTopics,
    RetirePeer, Retired,
};
use crate::protocol::error::ApiError;
use crate::types::{Address, PeerId, PeerName};

/// How long things last at this index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// A peer that gives no sign of life for so long is down.
    pub lease: Duration,
    /// A claim that is not confirmed for so long ends.
    pub claim_kept: Duration,
    /// Ticks further apart than this mean that the index itself was stopped;
    /// that time is not counted against anybody's lease.
    pub stall: Duration,
    /// After so many entries, and the rest of a bucket, a step ends: see [`State::step`].
    pub step_entries: usize,
}

/// What may change the registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// A peer introduces itself.
    RegisterPeer(RegisterPeer),
    /// A part of its list of topics.
    RegisterTopics(RegisterTopics),
    /// A peer lives.
    Heartbeat(Heartbeat),
    /// A peer ends.
    Depart(Depart),
    /// A peer asks for a name.
    ClaimTopic(ClaimTopic),
    /// The claimed topic is durable.
    ConfirmTopic(ConfirmTopic),
    /// A topic or a claim is gone.
    DropTopic(DropTopic),
    /// A peer will not come back.
    RetirePeer(RetirePeer),
    /// Which peer should host a new topic?
    PlaceTopic(PlaceTopic),
    /// Time has passed.
    Tick,
}

/// What a command is answered with, once its effects are durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// To `RegisterPeer`.
    Registered(Registered),
    /// To `RegisterTopics`.
    RegisteredTopics(RegisteredTopics),
    /// To `ClaimTopic`.
    Claimed(Claimed),
    /// To `RetirePeer`.
    Retired(Retired),
    /// To `PlaceTopic`.
    Placement(Placement),
    /// To everything else.
    Done(Done),
    /// It takes longer than a step: the answer is that of the job, in [`Effects::done`] of a later step.
    Later(JobNumber),
}

/// What commands changed, gathered over as many of them as one likes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Effects {
    /// Buckets of entries whose rows have to be written again, and then shown.
    pub buckets: BTreeSet<u32>,
    /// Peers whose rows have to be written again (or removed), and then shown.
    pub peers: BTreeSet<PeerNumber>,
    /// Peers of which only the load changed: nothing to write, only to show.
    pub loads: BTreeSet<PeerNumber>,
    /// What is worth a line in the log, in order.
    pub events: Vec<Event>,
    /// Jobs that came to an end, and what they are answered with.
    pub done: Vec<(JobNumber, Result<Answer, ApiError>)>,
}

impl Effects {
    /// Whether answers have to wait for the disk.
    pub fn need_disk(&self) -> bool {
        !self.buckets.is_empty() || !self.peers.is_empty()
    }
}

/// What is worth telling the person who runs the index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A peer introduced itself.
    Registered {
        /// Its name.
        peer: PeerName,
        /// Its identity.
        id: PeerId,
        /// Where it is.
        address: Address,
    },
    /// Another process took over the identity of a living one.
    Displaced {
        /// The peer of which there are two processes.
        peer: PeerName,
    },
    /// A peer told all its topics.
    Listed {
        /// The peer.
        peer: PeerName,
        /// How many it stores.
        topics: usize,
        /// Those of them whose names belong to others.
        conflicts: Vec<Conflict>,
        /// How many conflicts were not told, there being more than [`crate::limits::CONFLICTS_TOLD_MAX`].
        conflicts_untold: usize,
    },
    /// A peer changed its state without registering.
    State {
        /// The peer.
        peer: PeerName,
        /// What it is now.
        state: PeerState,
    },
    /// A peer is unregistered.
    Retired {
        /// The peer.
        peer: PeerName,
        /// How many names became free.
        topics: u64,
    },
}

/// The registry.
pub struct State {
    pub(super) settings: Settings,
    pub(super) peers: Peers,
    pub(super) topics: Table,
    /// When claims end.
    pub(super) claims: BTreeMap<Slot, Millis>,
    /// Topics in lists that are coming in or being taken, over all peers.
    pub(super) incoming: usize,
    /// What is under way, in turns.
    pub(super) jobs: VecDeque<Job>,
    pub(super) last_job: u64,
    last_tick: Millis,
}

impl State {
    /// An empty registry.
    pub fn new(settings: Settings, now: Now) -> Self {
        Self {
            settings,
            peers: Peers::default(),
            topics: Table::new(true),
            claims: BTreeMap::new(),
            incoming: 0,
            jobs: VecDeque::new(),
            last_job: 0,
            last_tick: now.ticks,
        }
    }

    /// Changes the registry, adds to `effects` what changed, and says what to
    /// answer when that is durable. After an error nothing has changed. What takes long is
    /// only begun ([`Answer::Later`]); [`Self::step`] goes on with it.
    pub fn apply(
        &mut self,
        command: Command,
        now: Now,
        effects: &mut Effects,
    ) -> Result<Answer, ApiError> {
        let done = |()| Answer::Done(Done {});
        refuse_zero(&command)?;
        match command {
            Command::RegisterPeer(request) => self
                .register_peer(request, now, effects)
                .map(Answer::Registered),
            Command::RegisterTopics(request) => self.register_topics(request, now, effects),
            Command::Heartbeat(request) => self.heartbeat(&request, now, effects).map(done),
            Command::Depart(request) => self.depart(&request, now, effects),
            Command::ClaimTopic(request) => self
                .claim_topic(request, now, effects)
                .map(|epoch| Answer::Claimed(Claimed { epoch })),
            Command::ConfirmTopic(request) => self.confirm_topic(request, now, effects).map(done),
            Command::DropTopic(request) => self.drop_topic(&request, effects).map(done),
            Command::RetirePeer(request) => self.retire_peer(request, now, effects),
            Command::PlaceTopic(request) => self.place_topic(&request).map(Answer::Placement),
            Command::Tick => {
                self.tick(now, effects);
                Ok(Answer::Done(Done {}))
            }
        }
    }

    fn heartbeat(
        &mut self,
        request: &Heartbeat,
        now: Now,
        effects: &mut Effects,
    ) -> Result<(), ApiError> {
        let number = self.peers.process(request.peer, request.nonce)?;
        let lease = self.settings.lease;
        let peer = self.peers.at_mut(number);
        if !peer.listed && peer.incoming.is_none() {
            return Err(ApiError::NotRegistered);
        }
        if peer.renew(request.load, now, lease) {
            self.tell_state(number, effects);
        } else {
            effects.loads.insert(number);
        }
        Ok(())
    }

    fn depart(
        &mut self,
        request: &Depart,
        now: Now,
        effects: &mut Effects,
    ) -> Result<Answer, ApiError> {
        let done = Answer::Done(Done {});
        let known = self.peers.by_id(request.peer);
        let number = match known {
            // It wants not to be registered, and it is not: a retry whose answer was lost.
            None if request.leave => return Ok(done),
            None => return Err(ApiError::NotRegistered),
            Some(number) => number,
        };
        let peer = self.peers.at(number);
        let again = peer.nonce == request.nonce && peer.state == PeerState::Offline;
        if !again {
            self.peers.process(request.peer, request.nonce)?;
        }
        if request.leave {
            return Ok(self.begin_removal((number, None), now, effects));
        }
        if self.peers.at_mut(number).enter(PeerState::Offline, now) {
            self.forget_incoming(number, effects);
            self.tell_state(number, effects);
        }
        Ok(done)
    }

    fn retire_peer(
        &mut self,
        request: RetirePeer,
        now: Now,
        effects: &mut Effects,
    ) -> Result<Answer, ApiError> {
        let number = self
            .peers
            .by_name(&request.name)
            .ok_or_else(|| ApiError::PeerNotFound {
                name: request.name.clone(),
            })?;
        // A living peer would register again with its next heartbeat, and the
        // names that were to be free would not be.
        if self.peers.at(number).state == PeerState::Online {
            return Err(ApiError::InvalidArgument {
                what: "peer".to_owned(),
                reason: format!(
                    "{} is online: stop it first, with --leave if it is not to come back; \
                     if it was killed, wait until its lease has run out",
                    request.name
                ),
            });
        }
        Ok(self.begin_removal((number, Some(request.name)), now, effects))
    }

    fn tick(&mut self, now: Now, effects: &mut Effects) {
        let gap = now.ticks.since(self.last_tick);
        self.last_tick = now.ticks;
        let numbers: Vec<PeerNumber> = self.peers.all().map(|(number, _)| number).collect();
        if gap > self.settings.stall {
            self.forgive(gap, &numbers);
        }
        for number in numbers {
            let peer = self.peers.at(number);
            let is_silent = peer.state == PeerState::Online && peer.lease_ends <= now.ticks;
            // Whose list is being taken waits for the answer.
            if is_silent && !self.has_job(number) {
                self.peers.at_mut(number).enter(PeerState::Down, now);
                self.forget_incoming(number, effects);
                self.tell_state(number, effects);
            }
        }
        let ended = |ends: &Millis| *ends <= now.ticks;
        let claims = self.claims.iter().filter(|(_, ends)| ended(ends));
        let slots: Vec<Slot> = claims.map(|(&slot, _)| slot).collect();
        for slot in slots {
            self.remove_entry(slot, effects);
        }
    }

    /// The index itself did not run for `gap`: what would have arrived then may still come.
    fn forgive(&mut self, gap: Duration, numbers: &[PeerNumber]) {
        for &number in numbers {
            let peer = self.peers.at_mut(number);
            peer.lease_ends = peer.lease_ends.after(gap);
        }
        for ends in self.claims.values_mut() {
            *ends = ends.after(gap);
        }
    }

    /// The peer changed its state: to the disk and to the log with it.
    fn tell_state(&self, number: PeerNumber, effects: &mut Effects) {
        let peer = self.peers.at(number);
        effects.peers.insert(number);
        effects.events.push(Event::State {
            peer: peer.name.clone(),
            state: peer.state,
        });
    }

    /// The list that was coming in or being taken does not count any more.
    pub(super) fn forget_incoming(&mut self, number: PeerNumber, effects: &mut Effects) {
        if let Some(incoming) = self.peers.at_mut(number).incoming.take() {
            self.incoming -= incoming.len();
        }
        self.break_off(number, effects);
    }

    pub(super) fn insert_entry(&mut self, entry: Entry, effects: &mut Effects) -> Slot {
        effects.buckets.insert(bucket_of(&entry.name));
        self.topics.insert(entry)
    }

    pub(super) fn remove_entry(&mut self, slot: Slot, effects: &mut Effects) -> Entry {
        let entry = self.topics.remove(slot);
        self.claims.remove(&slot);
        effects.buckets.insert(bucket_of(&entry.name));
        entry
    }

    /// Number of entries: held names, claims and conflicts.
    pub fn entries(&self) -> usize {
        self.topics.len()
    }

    /// Number of peers.
    pub fn peers(&self) -> usize {
        self.peers.len()
    }

    /// The entries in a bucket of the store, sorted.
    pub fn bucket(&self, bucket: u32) -> Vec<&Entry> {
        let slots = self.topics.in_bucket(bucket);
        let mut entries: Vec<&Entry> = slots.map(|slot| self.topics.get(slot)).collect();
        entries.sort_unstable();
        entries
    }

    /// The peer of that number as it is told, without what has to be counted.
    pub fn peer(&self, number: PeerNumber) -> Option<PeerInfo> {
        self.peers.get(number).map(info)
    }

    /// The numbers of all peers.
    pub fn peer_numbers(&self) -> impl Iterator<Item = PeerNumber> + '_ {
        self.peers.all().map(|(number, _)| number)
    }

    /// Asserts invariants 1 to 6 of the registry.
    #[cfg(test)]
    pub(super) fn check(&self) {
        for (slot, entry) in self.topics.all() {
            let same_kind =
                |other: &Entry| other.kind == entry.kind && entry.kind != Kind::Conflict;
            for other in self.topics.named(&entry.name) {
                let there = self.topics.get(other);
                assert!(other == slot || !same_kind(there), "1: {entry:?} {there:?}");
                assert!(
                    other == slot
                        || entry.kind == Kind::Conflict
                        || there.kind == Kind::Conflict
                        || entry.id == there.id,
                    "1: {entry:?} {there:?}"
                );
            }
            for other in self.topics.of_id(entry.id) {
                let there = self.topics.get(other);
                let both_held = entry.kind == Kind::Held && there.kind == Kind::Held;
                assert!(other == slot || !both_held, "2: {entry:?} {there:?}");
                assert!(
                    entry.kind != Kind::Conflict
                        || there.kind != Kind::Held
                        || entry.peer != there.peer,
                    "6: {entry:?} {there:?}"
                );
            }
            assert!(self.peers.get(entry.peer).is_some(), "3: {entry:?}");
            assert_eq!(
                self.claims.contains_key(&slot),
                entry.kind == Kind::Claim,
                "9: {entry:?}"
            );
        }
        for (number, peer) in self.peers.all() {
            assert_eq!(self.peers.by_name(&peer.name), Some(number), "4");
            assert_eq!(self.peers.by_id(peer.id), Some(number), "4");
            assert!(!peer.displaced.contains(&peer.nonce), "5");
        }
        assert_eq!(self.peers.by_names().count(), self.peers.len(), "4");
        let incoming = self
            .peers
            .all()
            .filter_map(|(_, peer)| peer.incoming.as_ref());
        assert_eq!(
            incoming.map(|list| list.len()).sum::<usize>(),
            self.incoming
        );
    }
}

/// A peer as it is told; `topics` and `conflicts` are counted by the [`super::Directory`].
fn info(peer: &Peer) -> PeerInfo {
    PeerInfo {
        id: peer.id,
        name: peer.name.clone(),
        address: peer.address.clone(),
        state: peer.state,
        since: peer.since,
        topics: 0,
        conflicts: Vec::new(),
        load: peer.load,
    }
}

/// All zero stands for nothing where an id may be missing: a peer or a topic that had it would be
/// mistaken for that.
fn refuse_zero(command: &Command) -> Result<(), ApiError> {
    let zero = match command {
        Command::RegisterPeer(request) if request.peer.is_zero() => "peer id",
        Command::RegisterTopics(request) if request.topics.iter().any(|t| t.id.is_zero()) => {
            "topic id"
        }
        Command::ClaimTopic(request) if request.id.is_zero() => "topic id",
        Command::ConfirmTopic(request) if request.id.is_zero() => "topic id",
        _ => return Ok(()),
    };
    Err(ApiError::InvalidArgument {
        what: zero.to_owned(),
        reason: "all zero is nobody's: a random one was expected".to_owned(),
    })
}
