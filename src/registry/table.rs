//! The entries of the registry, packed for a million topics.
//!
//! ```text
//!  buckets by name (65,536)          entries (slots)                 per peer
//!  [ (tag, slot) (tag, slot) ] --->  name | id | epoch | peer | kind  <--- {(bucket, slot), ...}
//!  buckets by id   (65,536)   --->
//! ```
//!
//! An entry takes 64 bytes, its name included unless that is long; everything else
//! refers to it by a slot number of 32 bits. The buckets by name are the buckets of the store, so a
//! changed topic and the row that has to be written for it are found the same
//! way, and no second list of "what is in that row" exists. A bucket keeps 32
//! bits of each hash beside the slot: a search looks at one entry, not at all.
//! A peer's entries are in the order of their buckets: who goes through all of
//! them writes each row once.
//!
//! The hash is FNV-1a with a mixing step, without a key, because it decides
//! where a topic is stored. Somebody who chooses names on purpose can therefore
//! make one bucket long; that slows down who uses it and breaks nothing.

use std::collections::BTreeSet;
use std::hint::black_box;

use crate::limits;
use crate::types::{LeaderEpoch, TopicId, TopicName};

/// A peer's number inside one registry: small, and reused after a peer was retired.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerNumber(u16);

impl PeerNumber {
    /// Wraps a number; `None` if it is not below [`limits::PEERS_MAX`].
    pub fn new(number: usize) -> Option<Self> {
        (number < limits::PEERS_MAX).then(|| u16::try_from(number).map(Self).ok())?
    }

    /// The number as an index.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// What an entry says about its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The topic of that id has the name.
    Held,
    /// The name is granted to a peer that is making the topic.
    Claim,
    /// The peer stores a topic of that id under that name, which belongs to another.
    Conflict,
}

/// One fact about one name. A cache line each: whoever finds one reads one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
#[repr(align(64))]
pub struct Entry {
    /// The name.
    pub name: TopicName,
    /// What is said about it.
    pub kind: Kind,
    /// Id of the topic.
    pub id: TopicId,
    /// Its leader epoch.
    pub epoch: LeaderEpoch,
    /// The peer that holds, claims or stores it.
    pub peer: PeerNumber,
}

const _: () = assert!(size_of::<Option<Entry>>() == 64);

/// Where an entry is; good until it is removed.
pub(super) type Slot = u32;

/// 64 bits that depend on every byte, the same in every build for ever.
fn hash(bytes: &[u8]) -> u64 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for &byte in bytes {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

/// Bucket and tag of a hash: its upper 16 and its lower 32 bits.
#[allow(clippy::cast_possible_truncation)]
fn place(hash: u64) -> (usize, u32) {
    ((hash >> 48) as usize, hash as u32)
}

/// The bucket of the store that a name lives in, below [`limits::REGISTRY_BUCKETS`].
pub fn bucket_of(name: &TopicName) -> u32 {
    bucket_of_text(name.as_str())
}

pub(super) fn bucket_of_text(name: &str) -> u32 {
    u32::try_from(place(hash(name.as_bytes())).0).expect("16 bits")
}

fn short(bucket: usize) -> u16 {
    u16::try_from(bucket).expect("limits::REGISTRY_BUCKETS is 2^16")
}

/// Slots by hash.
struct Buckets(Vec<Vec<(u32, Slot)>>);

impl Buckets {
    fn new() -> Self {
        Self(vec![Vec::new(); limits::REGISTRY_BUCKETS])
    }

    /// Returns the bucket.
    fn insert(&mut self, key: &[u8], slot: Slot) -> u16 {
        let (bucket, tag) = place(hash(key));
        self.0[bucket].push((tag, slot));
        short(bucket)
    }

    /// Returns the bucket.
    fn remove(&mut self, key: &[u8], slot: Slot) -> u16 {
        let number = place(hash(key)).0;
        let bucket = &mut self.0[number];
        let at = bucket.iter().position(|&(_, there)| there == slot);
        bucket.swap_remove(at.expect("what was inserted is there"));
        short(number)
    }

    /// The slots that may have that key: all that have, and hardly any other.
    fn candidates<'a>(&'a self, key: &[u8]) -> impl Iterator<Item = Slot> + use<'a> {
        let (bucket, tag) = place(hash(key));
        let of_tag = move |&(other, slot): &(u32, Slot)| (other == tag).then_some(slot);
        self.0[bucket].iter().filter_map(of_tag)
    }
}

/// All entries, found by name, by peer and, where asked for, by id.
pub(super) struct Table {
    entries: Vec<Option<Entry>>,
    free: Vec<Slot>,
    names: Buckets,
    ids: Option<Buckets>,
    /// By the bucket of the name.
    peers: Vec<BTreeSet<(u16, Slot)>>,
}

impl Table {
    /// An empty table; only with `by_id` does [`Table::find_id`] find anything.
    pub(super) fn new(by_id: bool) -> Self {
        Self {
            entries: Vec::new(),
            free: Vec::new(),
            names: Buckets::new(),
            ids: by_id.then(Buckets::new),
            peers: Vec::new(),
        }
    }

    /// Number of entries.
    pub(super) fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    /// The entry in a slot that is in use.
    pub(super) fn get(&self, slot: Slot) -> &Entry {
        self.entries[slot as usize]
            .as_ref()
            .expect("slots are forgotten before their entries")
    }

    pub(super) fn set_epoch(&mut self, slot: Slot, epoch: LeaderEpoch) {
        if let Some(entry) = &mut self.entries[slot as usize] {
            entry.epoch = epoch;
        }
    }

    pub(super) fn set_kind(&mut self, slot: Slot, kind: Kind) {
        if let Some(entry) = &mut self.entries[slot as usize] {
            entry.kind = kind;
        }
    }

    pub(super) fn insert(&mut self, entry: Entry) -> Slot {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.entries.push(None);
            Slot::try_from(self.entries.len() - 1).expect("bounded by limits::INDEX_ENTRIES_MAX")
        });
        let bucket = self.names.insert(entry.name.as_bytes(), slot);
        if let Some(ids) = &mut self.ids {
            ids.insert(&entry.id.to_bytes(), slot);
        }
        let peer = entry.peer.index();
        if self.peers.len() <= peer {
            self.peers.resize_with(peer + 1, BTreeSet::new);
        }
        self.peers[peer].insert((bucket, slot));
        self.entries[slot as usize] = Some(entry);
        slot
    }

    pub(super) fn remove(&mut self, slot: Slot) -> Entry {
        let entry = self.entries[slot as usize]
            .take()
            .expect("slots are forgotten before their entries");
        let bucket = self.names.remove(entry.name.as_bytes(), slot);
        if let Some(ids) = &mut self.ids {
            ids.remove(&entry.id.to_bytes(), slot);
        }
        self.peers[entry.peer.index()].remove(&(bucket, slot));
        self.free.push(slot);
        entry
    }

    /// The entries of that name.
    pub(super) fn named<'a>(&'a self, name: &'a TopicName) -> impl Iterator<Item = Slot> + 'a {
        self.names
            .candidates(name.as_bytes())
            .filter(move |&slot| self.get(slot).name == *name)
    }

    /// The first entry of that name and kind.
    pub(super) fn find(&self, name: &TopicName, kind: Kind) -> Option<Slot> {
        self.named(name).find(|&slot| self.get(slot).kind == kind)
    }

    /// Fetches from memory what a search for each of those names will look at, of the first few of them. A name
    /// takes three steps, of which each has to wait for the one before. Where all names take the first step, then all
    /// the second, the processor waits for many at a time.
    pub(super) fn foresee<'a>(&self, names: impl Iterator<Item = &'a [u8]>) {
        let mut places = [(0, 0); limits::REQUESTS_FORESEEN_MAX];
        let mut count = 0;
        for (at, name) in places.iter_mut().zip(names) {
            *at = place(hash(name));
            count += 1;
        }
        let places = &places[..count];
        let bucket = |&(bucket, _): &(usize, u32)| &self.names.0[bucket];
        // Looked at all together: to keep each apart makes lookups measurably slower.
        let lengths = places.iter().map(|at| bucket(at).len());
        black_box(lengths.fold(0, usize::wrapping_add));
        let tags = |at| {
            let bucket: &Vec<(u32, Slot)> = bucket(at);
            let tag = |entry: Option<&(u32, Slot)>| entry.map_or(0, |&(tag, _)| tag);
            tag(bucket.first()) ^ tag(bucket.get(bucket.len() / 2)) ^ tag(bucket.last())
        };
        black_box(places.iter().map(tags).fold(0, |all, tag| all ^ tag));
        let found = |at: &(usize, u32)| {
            let slot = bucket(at).iter().find(|(tag, _)| *tag == at.1)?.1;
            Some(self.entries[slot as usize].is_some())
        };
        let found = places.iter().filter_map(found);
        black_box(found.fold(false, |all, is| all ^ is));
    }

    /// The entries of that id.
    pub(super) fn of_id(&self, id: TopicId) -> impl Iterator<Item = Slot> + '_ {
        let of_key = move |ids| Buckets::candidates(ids, &id.to_bytes());
        let slots = self.ids.iter().flat_map(of_key);
        slots.filter(move |&slot| self.get(slot).id == id)
    }

    /// The first entry of that id and kind.
    pub(super) fn find_id(&self, id: TopicId, kind: Kind) -> Option<Slot> {
        self.of_id(id).find(|&slot| self.get(slot).kind == kind)
    }

    fn peer(&self, peer: PeerNumber) -> &BTreeSet<(u16, Slot)> {
        static NONE: BTreeSet<(u16, Slot)> = BTreeSet::new();
        self.peers.get(peer.index()).unwrap_or(&NONE)
    }

    /// The entries of that peer, bucket by bucket.
    pub(super) fn of_peer(&self, peer: PeerNumber) -> impl ExactSizeIterator<Item = Slot> + '_ {
        self.peer(peer).iter().map(|&(_, slot)| slot)
    }

    /// The first bucket from `from` on that holds an entry of that peer.
    pub(super) fn next_bucket(&self, peer: PeerNumber, from: u32) -> Option<u32> {
        let from = u16::try_from(from).ok()?;
        let (bucket, _) = self.peer(peer).range((from, 0)..).next()?;
        Some(u32::from(*bucket))
    }

    /// The entries of that peer in that bucket.
    pub(super) fn of_peer_in(
        &self,
        peer: PeerNumber,
        bucket: u32,
    ) -> impl Iterator<Item = Slot> + '_ {
        let bucket = short(bucket as usize);
        let there = self.peer(peer).range((bucket, 0)..=(bucket, Slot::MAX));
        there.map(|&(_, slot)| slot)
    }

    /// The entries in that bucket of the store.
    pub(super) fn in_bucket(&self, bucket: u32) -> impl ExactSizeIterator<Item = Slot> + '_ {
        self.names.0[bucket as usize].iter().map(|&(_, slot)| slot)
    }

    /// All entries, in the order of their slots.
    pub(super) fn all(&self) -> impl Iterator<Item = (Slot, &Entry)> {
        let number = |at: usize| Slot::try_from(at).expect("bounded by limits::INDEX_ENTRIES_MAX");
        self.entries
            .iter()
            .enumerate()
            .filter_map(move |(at, entry)| Some((number(at), entry.as_ref()?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, id: u8, kind: Kind) -> Entry {
        Entry {
            name: name.parse().expect("good"),
            kind,
            id: TopicId::from_bytes([id; 16]),
            epoch: LeaderEpoch::new(1),
            peer: PeerNumber::new(usize::from(id)).expect("small"),
        }
    }

    #[test]
    fn entries_are_found_by_every_way_and_gone_after_removal() {
        let mut table = Table::new(true);
        let held = table.insert(entry("a.b", 1, Kind::Held));
        let conflict = table.insert(entry("a.b", 2, Kind::Conflict));
        let name: TopicName = "a.b".parse().expect("good");
        assert_eq!(table.find(&name, Kind::Held), Some(held));
        assert_eq!(table.find(&name, Kind::Conflict), Some(conflict));
        assert_eq!(table.find(&name, Kind::Claim), None);
        let two = TopicId::from_bytes([2; 16]);
        assert_eq!(table.find_id(two, Kind::Conflict), Some(conflict));
        let peer = PeerNumber::new(2).expect("small");
        assert_eq!(table.of_peer(peer).collect::<Vec<_>>(), [conflict]);
        assert_eq!(table.in_bucket(bucket_of(&name)).len(), 2);
        table.remove(held);
        assert_eq!(table.find(&name, Kind::Held), None);
        assert_eq!(table.len(), 1);
        assert_eq!(
            table.insert(entry("c", 3, Kind::Held)),
            held,
            "slots are used again"
        );
    }

    #[test]
    fn what_is_foreseen_may_be_there_or_not() {
        let mut table = Table::new(false);
        let names: Vec<String> = (0..100).map(|n| format!("t{n}")).collect();
        let bytes = || names.iter().map(String::as_bytes);
        table.foresee(bytes());
        let slot = table.insert(entry("t1", 1, Kind::Held));
        table.foresee(bytes());
        table.remove(slot);
        table.foresee(bytes());
        table.foresee(std::iter::empty());
        assert_eq!(table.len(), 0);
    }

    /// Stored registries depend on it: a topic is looked for where it was put.
    #[test]
    fn the_bucket_of_a_name_never_changes() {
        let buckets =
            ["a", "quakes.ci", "orders.eu.new"].map(|name| bucket_of(&name.parse().expect("good")));
        assert_eq!(buckets, [33_442, 29_969, 30_051]);
    }

    #[test]
    fn names_spread_over_the_buckets() {
        let mut used = BTreeSet::new();
        for n in 0..65_536 {
            used.insert(bucket_of(&format!("topic.{n:08}").parse().expect("good")));
        }
        // Thrown at random, 65,536 * (1 - 1/e) = 41,427 buckets are hit.
        assert!(
            (40_800..42_100).contains(&used.len()),
            "{} buckets",
            used.len()
        );
    }
}
