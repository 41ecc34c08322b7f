//! A second registry, as simple as can be, to compare the real one with.
//!
//! It keeps facts in a list and finds everything by walking along it. Random
//! commands go to both; answers, facts, peers and the directory have to agree
//! after each. The seed of a failure is told, and `TIDINGS_SEED` repeats it.

use std::collections::BTreeMap;

use super::tests::{Bench, SETTINGS, nonce, peer_id, topic_id};
use super::{Answer, Command, Kind, Millis, bucket_of};
use crate::protocol::api::{
    ClaimTopic, Claimed, ConfirmTopic, Conflict, Depart, Done, DropTopic, Heartbeat, Lookup, Nonce,
    PeerLoad, PeerState, RegisterPeer, RegisterTopics, Registered, RegisteredTopics, Request,
    RetirePeer, Retired, StoredTopic,
};
use crate::protocol::error::ApiError;
use crate::types::{LeaderEpoch, PeerId, PeerName, TopicId, TopicName, TopicPattern};

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Fact {
    name: TopicName,
    kind: Kind,
    id: TopicId,
    epoch: LeaderEpoch,
    peer: PeerId,
    ends: Millis,
}

#[derive(Debug, Clone)]
struct Host {
    name: PeerName,
    nonces: Vec<Nonce>,
    state: PeerState,
    lease_ends: Millis,
    listed: bool,
    list: Option<List>,
}

#[derive(Debug, Clone, Default)]
struct List {
    parts: u32,
    topics: Vec<StoredTopic>,
    /// Confirmed since, or (with `None`) dropped.
    since: Vec<(TopicName, TopicId, Option<LeaderEpoch>)>,
}

#[derive(Default)]
struct Model {
    hosts: BTreeMap<PeerId, Host>,
    facts: Vec<Fact>,
    now: Millis,
}

type Result<T> = std::result::Result<T, ApiError>;

impl Model {
    fn find(&self, wanted: impl Fn(&Fact) -> bool) -> Option<Fact> {
        self.facts.iter().find(|fact| wanted(fact)).cloned()
    }

    fn held(&self, name: &TopicName) -> Option<Fact> {
        self.find(|fact| fact.kind == Kind::Held && fact.name == *name)
    }

    fn held_id(&self, id: TopicId) -> Option<Fact> {
        self.find(|fact| fact.kind == Kind::Held && fact.id == id)
    }

    fn claim(&self, name: &TopicName) -> Option<Fact> {
        self.find(|fact| fact.kind == Kind::Claim && fact.name == *name)
    }

    fn remove(&mut self, unwanted: impl Fn(&Fact) -> bool) {
        self.facts.retain(|fact| !unwanted(fact));
    }

    fn online(&self, peer: PeerId) -> bool {
        self.hosts[&peer].state == PeerState::Online
    }

    fn process(&self, peer: PeerId, nonce: Nonce) -> Result<()> {
        let host = self.hosts.get(&peer).ok_or(ApiError::NotRegistered)?;
        let newest = host.nonces.last() == Some(&nonce);
        if !newest && host.nonces.contains(&nonce) {
            Err(ApiError::Displaced)
        } else if newest && host.state != PeerState::Offline {
            Ok(())
        } else {
            Err(ApiError::NotRegistered)
        }
    }

    fn apply(&mut self, command: &Command) -> Result<Answer> {
        let done = |()| Answer::Done(Done {});
        match command {
            Command::RegisterPeer(request) => self.register(request),
            Command::RegisterTopics(request) => self
                .list(request)
                .map(|conflicts| Answer::RegisteredTopics(RegisteredTopics { conflicts })),
            Command::Heartbeat(request) => self.beat(request).map(done),
            Command::Depart(request) => self.depart(request).map(done),
            Command::ClaimTopic(request) => self
                .take_claim(request)
                .map(|epoch| Answer::Claimed(Claimed { epoch })),
            Command::ConfirmTopic(request) => self.confirm(request).map(done),
            Command::DropTopic(request) => self.give_up(request).map(done),
            Command::RetirePeer(request) => self.retire(&request.name),
            Command::PlaceTopic(_) => unreachable!("not generated"),
            Command::Tick => {
                self.tick();
                Ok(done(()))
            }
        }
    }

    fn register(&mut self, request: &RegisterPeer) -> Result<Answer> {
        let old = self.hosts.get(&request.peer);
        let mut nonces = old.map(|host| host.nonces.clone()).unwrap_or_default();
        if nonces.contains(&request.nonce) && nonces.last() != Some(&request.nonce) {
            return Err(ApiError::Displaced);
        }
        let mut others = self.hosts.iter().filter(|(id, _)| **id != request.peer);
        if others.any(|(_, host)| host.name == request.name) {
            let name = request.name.clone();
            return Err(ApiError::PeerNameTaken { name });
        }
        if nonces.last() != Some(&request.nonce) {
            nonces.push(request.nonce);
        }
        let host = Host {
            name: request.name.clone(),
            nonces,
            state: PeerState::Online,
            lease_ends: self.now.after(SETTINGS.lease),
            listed: false,
            list: Some(List::default()),
        };
        self.hosts.insert(request.peer, host);
        Ok(Answer::Registered(Registered { lease_ms: 10_000 }))
    }

    fn beat(&mut self, request: &Heartbeat) -> Result<()> {
        self.process(request.peer, request.nonce)?;
        let lease_ends = self.now.after(SETTINGS.lease);
        let host = self.hosts.get_mut(&request.peer).expect("checked");
        if !host.listed && host.list.is_none() {
            return Err(ApiError::NotRegistered);
        }
        host.lease_ends = lease_ends;
        host.state = PeerState::Online;
        Ok(())
    }

    fn depart(&mut self, request: &Depart) -> Result<()> {
        let host = self.hosts.get_mut(&request.peer);
        match host {
            None if request.leave => return Ok(()),
            Some(host)
                if host.state == PeerState::Offline
                    && host.nonces.last() == Some(&request.nonce) => {}
            _ => self.process(request.peer, request.nonce)?,
        }
        if request.leave {
            self.facts.retain(|fact| fact.peer != request.peer);
            self.hosts.remove(&request.peer);
        } else if let Some(host) = self.hosts.get_mut(&request.peer) {
            host.state = PeerState::Offline;
            host.list = None;
        }
        Ok(())
    }

    fn retire(&mut self, name: &PeerName) -> Result<Answer> {
        let mut hosts = self.hosts.iter();
        let Some((&id, host)) = hosts.find(|(_, host)| host.name == *name) else {
            return Err(ApiError::PeerNotFound { name: name.clone() });
        };
        if host.state == PeerState::Online {
            return Err(ApiError::InvalidArgument {
                what: "peer".to_owned(),
                reason: String::new(),
            });
        }
        let of_it = |fact: &&Fact| fact.peer == id && fact.kind == Kind::Held;
        let topics = self.facts.iter().filter(of_it).count() as u64;
        self.remove(|fact| fact.peer == id);
        self.hosts.remove(&id);
        Ok(Answer::Retired(Retired { topics }))
    }

    fn tick(&mut self) {
        let now = self.now;
        for host in self.hosts.values_mut() {
            if host.state == PeerState::Online && host.lease_ends <= now {
                host.state = PeerState::Down;
                host.list = None;
            }
        }
        self.remove(|fact| fact.kind == Kind::Claim && fact.ends <= now);
    }

    fn epoch_at(&self, peer: PeerId, id: TopicId) -> Result<LeaderEpoch> {
        if let Some(held) = self.held_id(id)
            && held.peer != peer
            && self.online(held.peer)
        {
            let holder = self.hosts[&held.peer].name.clone();
            let name = held.name;
            return Err(ApiError::NameConflict { name, holder });
        }
        let stored = self
            .facts
            .iter()
            .filter(|fact| fact.id == id && fact.kind != Kind::Claim);
        let epochs = stored.map(|fact| fact.epoch.get() + u32::from(fact.peer != peer));
        Ok(LeaderEpoch::new(epochs.max().unwrap_or(0).max(1)))
    }

    fn take_claim(&mut self, request: &ClaimTopic) -> Result<LeaderEpoch> {
        let (peer, name, id) = (request.peer, &request.name, request.id);
        self.process(peer, request.nonce)?;
        match self.held(name) {
            Some(held) if held.id == id && held.peer == peer => return Ok(held.epoch),
            Some(held) if held.id != id || self.online(held.peer) => {
                return Err(ApiError::TopicExists { name: name.clone() });
            }
            _ => {}
        }
        let mut epoch = LeaderEpoch::ZERO;
        if let Some(claim) = self.claim(name) {
            let own = claim.peer == peer && claim.id == id;
            if !own && claim.ends > self.now {
                return Err(ApiError::ClaimPending { name: name.clone() });
            }
            if own {
                epoch = claim.epoch;
            }
        }
        let epoch = self.epoch_at(peer, id)?.max(epoch);
        self.remove(|fact| fact.kind == Kind::Claim && fact.name == *name);
        self.facts.push(Fact {
            name: name.clone(),
            kind: Kind::Claim,
            id,
            epoch,
            peer,
            ends: self.now.after(SETTINGS.claim_kept),
        });
        Ok(epoch)
    }

    fn confirm(&mut self, request: &ConfirmTopic) -> Result<()> {
        let (peer, name, id) = (request.peer, &request.name, request.id);
        self.process(peer, request.nonce)?;
        let stale = |current| ApiError::StaleEpoch {
            given: request.epoch,
            current,
        };
        match self.held(name) {
            Some(held) if held.id != id => {
                let holder = self.hosts[&held.peer].name.clone();
                let name = name.clone();
                return Err(ApiError::NameConflict { name, holder });
            }
            Some(held) if held.peer == peer && request.epoch < held.epoch => {
                return Err(stale(held.epoch));
            }
            Some(held) if held.peer == peer => return Ok(()),
            _ => {}
        }
        let mut granted = LeaderEpoch::ZERO;
        match self.claim(name) {
            Some(claim) if claim.peer == peer && claim.id == id => granted = claim.epoch,
            Some(claim) if claim.ends > self.now => {
                return Err(ApiError::ClaimPending { name: name.clone() });
            }
            _ => {}
        }
        let epoch = self.epoch_at(peer, id)?.max(granted);
        if request.epoch < epoch {
            return Err(stale(epoch));
        }
        self.remove(|fact| fact.kind == Kind::Claim && fact.name == *name);
        self.remove(|fact| fact.id == id && fact.peer == peer && fact.kind != Kind::Claim);
        self.set_aside(id);
        self.facts.push(Fact {
            name: name.clone(),
            kind: Kind::Held,
            id,
            epoch: request.epoch,
            peer,
            ends: Millis::default(),
        });
        if let Some(list) = &mut self.hosts.get_mut(&peer).expect("checked").list {
            list.since.push((name.clone(), id, Some(request.epoch)));
        }
        Ok(())
    }

    /// Whoever holds the id keeps it as a conflict only.
    fn set_aside(&mut self, id: TopicId) {
        for fact in &mut self.facts {
            if fact.id == id && fact.kind == Kind::Held {
                fact.kind = Kind::Conflict;
            }
        }
    }

    fn give_up(&mut self, request: &DropTopic) -> Result<()> {
        self.process(request.peer, request.nonce)?;
        self.remove(|fact| {
            fact.name == request.name && fact.id == request.id && fact.peer == request.peer
        });
        let host = self.hosts.get_mut(&request.peer).expect("checked");
        if let Some(list) = &mut host.list {
            list.since.push((request.name.clone(), request.id, None));
        }
        Ok(())
    }

    fn list(&mut self, request: &RegisterTopics) -> Result<Vec<Conflict>> {
        let peer = request.peer;
        self.process(peer, request.nonce)?;
        let lease_ends = self.now.after(SETTINGS.lease);
        let host = self.hosts.get_mut(&peer).expect("checked");
        let expected = host.list.as_ref().map(|list| list.parts);
        if request.part > 0 && expected.is_none() {
            return Err(ApiError::NotRegistered);
        }
        if request.part > 0 && expected != Some(request.part) {
            return Err(ApiError::InvalidArgument {
                what: "part of a list of topics".to_owned(),
                reason: String::new(),
            });
        }
        host.lease_ends = lease_ends;
        let list = host.list.get_or_insert_default();
        if request.part == 0 {
            list.topics.clear();
        }
        list.parts = request.part + 1;
        list.topics.extend(request.topics.iter().cloned());
        if !request.last {
            return Ok(Vec::new());
        }
        host.listed = true;
        let list = host.list.take().expect("just filled");
        Ok(self.replace(peer, list))
    }

    /// The list by the buckets of its names; of an id the last mention counts.
    fn replace(&mut self, peer: PeerId, list: List) -> Vec<Conflict> {
        let place = |name: &TopicName, id| (bucket_of(name), id);
        let mut topics: BTreeMap<(u32, TopicId), (TopicName, LeaderEpoch)> = BTreeMap::new();
        for topic in list.topics {
            topics.retain(|(_, there), _| *there != topic.id);
            let at = place(&topic.name, topic.id);
            topics.insert(at, (topic.name, topic.epoch));
        }
        let mut dropped = Vec::new();
        for (name, id, epoch) in list.since {
            dropped.retain(|there| *there != (id, name.clone()));
            match epoch {
                Some(epoch) => {
                    topics.retain(|(_, there), _| *there != id);
                    topics.insert(place(&name, id), (name, epoch));
                }
                None => dropped.push((id, name)),
            }
        }
        topics.retain(|(_, id), (name, _)| !dropped.contains(&(*id, name.clone())));
        let names: Vec<_> = topics
            .iter()
            .map(|((_, id), (name, _))| (*id, name.clone()))
            .collect();
        let mut conflicts = Vec::new();
        for ((_, id), (name, epoch)) in topics {
            self.remove(|fact| {
                let stale = fact.name == name && !names.contains(&(fact.id, fact.name.clone()));
                fact.peer == peer && fact.kind == Kind::Held && stale
            });
            if let Some(holder) = self.place(peer, id, (&name, epoch)) {
                let holder = self.hosts[&holder].name.clone();
                conflicts.push(Conflict { name, id, holder });
            }
        }
        self.remove(|fact| {
            let listed = names.contains(&(fact.id, fact.name.clone()));
            fact.peer == peer && fact.kind != Kind::Claim && !listed
        });
        conflicts
    }

    fn place(
        &mut self,
        peer: PeerId,
        id: TopicId,
        (name, epoch): (&TopicName, LeaderEpoch),
    ) -> Option<PeerId> {
        let own = |fact: &&mut Fact| {
            fact.kind == Kind::Held && fact.id == id && fact.peer == peer && fact.name == *name
        };
        if let Some(fact) = self.facts.iter_mut().find(own) {
            fact.epoch = fact.epoch.max(epoch);
            return None;
        }
        self.remove(|fact| fact.id == id && fact.peer == peer && fact.kind != Kind::Claim);
        let other_topic = self.held(name).filter(|held| held.id != id);
        let now = self.now;
        let own_claim = |claim: &Fact| claim.peer == peer && claim.id == id;
        let claim = self
            .claim(name)
            .filter(|claim| claim.ends > now && !own_claim(claim));
        let newer = self.held_id(id).filter(|held| held.epoch >= epoch);
        let holder = other_topic.or(claim).or(newer).map(|fact| fact.peer);
        if holder.is_none() {
            self.set_aside(id);
            self.remove(|fact| fact.kind == Kind::Claim && fact.name == *name);
        }
        self.facts.push(Fact {
            name: name.clone(),
            kind: if holder.is_none() {
                Kind::Held
            } else {
                Kind::Conflict
            },
            id,
            epoch,
            peer,
            ends: Millis::default(),
        });
        holder
    }

    /// A restart on what was stored.
    fn restart(&mut self) {
        for host in self.hosts.values_mut() {
            host.lease_ends = self.now.after(SETTINGS.lease);
            host.list = None;
        }
        for fact in &mut self.facts {
            if fact.kind == Kind::Claim {
                fact.ends = self.now.after(SETTINGS.claim_kept);
            }
        }
    }
}

/// `SplitMix64`.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn below(&mut self, bound: u8) -> u8 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        u8::try_from((z ^ (z >> 31)) % u64::from(bound)).expect("below a byte")
    }

    fn name(&mut self) -> TopicName {
        let names = ["a", "b", "a.x", "a.y", "b.x", "c"];
        names[usize::from(self.below(6))].parse().expect("good")
    }

    fn epoch(&mut self) -> LeaderEpoch {
        LeaderEpoch::new(u32::from(self.below(4)) + 1)
    }

    fn peer_name(&mut self) -> &'static str {
        ["p", "q", "r"][usize::from(self.below(3))]
    }

    /// Identity and process; mostly the newest one.
    fn process(&mut self, newest: &BTreeMap<PeerId, u8>) -> (PeerId, Nonce) {
        let peer = peer_id(self.peer_name());
        let newest = newest.get(&peer).copied().unwrap_or(0);
        let back = if self.below(8) == 0 { self.below(3) } else { 0 };
        (peer, nonce(newest.saturating_sub(back)))
    }

    fn topics(&mut self) -> Vec<StoredTopic> {
        let count = self.below(4);
        let topic = |random: &mut Self| StoredTopic {
            name: random.name(),
            id: topic_id(1 + random.below(6)),
            epoch: random.epoch(),
        };
        (0..count).map(|_| topic(self)).collect()
    }

    pub(super) fn command(&mut self, newest: &mut BTreeMap<PeerId, u8>) -> Command {
        let (peer, nonce) = self.process(newest);
        let load = PeerLoad::default();
        match self.below(16) {
            0 | 1 => {
                let own = self.peer_name();
                let peer = peer_id(own);
                let name = if self.below(6) == 0 {
                    self.peer_name()
                } else {
                    own
                };
                let number = newest.entry(peer).or_default();
                // Fewer than the registry remembers, so that the model may remember all.
                if self.below(2) == 0 && *number < 20 {
                    *number += 1;
                }
                Command::RegisterPeer(RegisterPeer {
                    peer,
                    name: name.parse().expect("good"),
                    address: "h:1".parse().expect("good"),
                    nonce: super::tests::nonce(*number),
                    load,
                })
            }
            2 => Command::Depart(Depart {
                peer,
                nonce,
                leave: self.below(2) == 0,
            }),
            3 => Command::RetirePeer(RetirePeer {
                name: self.peer_name().parse().expect("good"),
            }),
            4..=6 => Command::RegisterTopics(RegisterTopics {
                peer,
                nonce,
                part: u32::from(self.below(3)),
                last: self.below(2) == 0,
                topics: self.topics(),
            }),
            7 | 8 => Command::Heartbeat(Heartbeat { peer, nonce, load }),
            9 => Command::DropTopic(DropTopic {
                peer,
                nonce,
                name: self.name(),
                id: topic_id(1 + self.below(6)),
            }),
            10..=12 => Command::ConfirmTopic(ConfirmTopic {
                peer,
                nonce,
                name: self.name(),
                id: topic_id(1 + self.below(6)),
                epoch: self.epoch(),
            }),
            _ => Command::ClaimTopic(ClaimTopic {
                peer,
                nonce,
                name: self.name(),
                id: topic_id(1 + self.below(6)),
            }),
        }
    }
}

/// Texts of refusals are not the model's business.
fn without_text(answer: Result<Answer>) -> Result<Answer> {
    answer.map_err(|error| match error {
        ApiError::InvalidArgument { what, .. } => ApiError::InvalidArgument {
            what,
            reason: String::new(),
        },
        other => other,
    })
}

/// Everything that the two have to agree on.
fn compare(bench: &Bench, model: &Model) {
    let mut facts = Vec::new();
    for (slot, entry) in bench.state.topics.all() {
        facts.push(Fact {
            name: entry.name.clone(),
            kind: entry.kind,
            id: entry.id,
            epoch: entry.epoch,
            peer: bench.state.peers.at(entry.peer).id,
            ends: bench.state.claims.get(&slot).copied().unwrap_or_default(),
        });
    }
    facts.sort();
    let mut expected = model.facts.clone();
    expected.sort();
    assert_eq!(facts, expected);
    let told: Vec<_> = bench.directory.list_peers();
    assert_eq!(told.len(), model.hosts.len());
    for peer in told {
        let host = &model.hosts[&peer.id];
        assert_eq!((&peer.name, peer.state), (&host.name, host.state));
        let held = |fact: &&Fact| fact.peer == peer.id && fact.kind == Kind::Held;
        assert_eq!(peer.topics, expected.iter().filter(held).count() as u64);
        let in_conflict = |name: &TopicName| {
            let conflict = |fact: &Fact| fact.name == *name && fact.kind == Kind::Conflict;
            let concerned = |fact: &Fact| {
                fact.name == *name && fact.peer == peer.id && fact.kind != Kind::Claim
            };
            expected.iter().any(conflict)
                && (expected
                    .iter()
                    .any(|fact| concerned(fact) && fact.kind == Kind::Held)
                    || expected
                        .iter()
                        .any(|fact| concerned(fact) && conflict(fact)))
        };
        assert!(
            peer.conflicts.iter().all(in_conflict),
            "{:?}",
            peer.conflicts
        );
    }
    let listed = bench.directory.list(&TopicPattern::all(), None, 100).topics;
    let held: Vec<_> = expected
        .iter()
        .filter(|fact| fact.kind == Kind::Held)
        .collect();
    let shown: Vec<_> = listed
        .iter()
        .map(|topic| (&topic.name, topic.id, topic.epoch, topic.peer))
        .collect();
    let expected: Vec<_> = held
        .iter()
        .map(|fact| (&fact.name, fact.id, fact.epoch, fact.peer))
        .collect();
    assert_eq!(shown, expected);
    for topic in &listed {
        assert_eq!(bench.directory.lookup(&topic.name).as_ref(), Some(topic));
        let answer = bench.directory.answer(&topic.name, |parts| parts.concat());
        let answer = answer.expect("there");
        let encoded = Lookup::encode_answer(topic);
        assert_eq!(Ok(answer), encoded, "in the same bytes");
    }
}

/// A copy kept by somebody who only watches.
#[derive(Default)]
struct Follower {
    version: u64,
    topics: BTreeMap<TopicName, (TopicId, PeerState)>,
}

impl Follower {
    fn follow(&mut self, bench: &Bench) {
        let changes = bench.directory.changes(self.version, &TopicPattern::all());
        self.version = changes.version;
        let all = bench.directory.list(&TopicPattern::all(), None, 100).topics;
        if changes.reset {
            self.topics.clear();
        }
        let news = if changes.reset {
            all.clone()
        } else {
            changes.changed
        };
        for topic in news {
            self.topics.insert(topic.name, (topic.id, topic.state));
        }
        for name in changes.dropped {
            assert!(self.topics.remove(&name).is_some() || bench.directory.lookup(&name).is_none());
        }
        let there: BTreeMap<_, _> = all.into_iter().map(|t| (t.name, (t.id, t.state))).collect();
        assert_eq!(self.topics, there, "who watches knows what who lists knows");
    }
}

fn run(seed: u64, steps: usize) {
    let mut random = Random(seed);
    let mut bench = Bench::new();
    let mut model = Model::default();
    let mut follower = Follower::default();
    let mut newest = BTreeMap::new();
    let mut waited = 0;
    for _ in 0..steps {
        match random.below(64) {
            0 => {
                bench.restart();
                model.restart();
            }
            // Commands may come between the end of a lease or claim and the next tick.
            9 | 10 if waited < 2 => {
                waited += 1;
                let second = std::time::Duration::from_secs(1);
                bench.now.ticks = bench.now.ticks.after(second);
                model.now = bench.now.ticks;
            }
            1..=8 => {
                waited = 0;
                for _ in 0..=random.below(4) {
                    bench.pass(1);
                    model.now = bench.now.ticks;
                    model.tick();
                }
            }
            _ => {
                let command = random.command(&mut newest);
                let expected = without_text(model.apply(&command));
                let answer = without_text(bench.apply(command.clone()));
                assert_eq!(answer, expected, "{command:?}");
            }
        }
        compare(&bench, &model);
        if random.below(4) == 0 {
            follower.follow(&bench);
        }
    }
}

/// Where random tests begin: some seeds, or the one that `TIDINGS_SEED` gives.
pub(super) fn seeds() -> std::ops::Range<u64> {
    let given = std::env::var("TIDINGS_SEED").ok();
    let given: Option<u64> = given.map(|text| text.parse().expect("TIDINGS_SEED is a number"));
    let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let first = given.unwrap_or(u64::from(clock.expect("after 1970").subsec_nanos()));
    first..first + if given.is_some() { 1 } else { 40 }
}

#[test]
fn random_commands_do_what_a_simple_registry_does() {
    for seed in seeds() {
        let outcome = std::panic::catch_unwind(|| run(seed, 400));
        assert!(outcome.is_ok(), "repeat it with TIDINGS_SEED={seed}");
    }
}
