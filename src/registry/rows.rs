//! The registry as stored bytes.
//!
//! The store keeps rows, key bytes to value bytes, and knows nothing about them:
//!
//! ```text
//!   key                            value
//!   1 | number u16               a peer
//!   2 | bucket u16 | part u32    the entries whose names fall into that bucket,
//!                                in as many parts as their size asks for
//!   3                            a change is being written in several batches
//! ```
//!
//! Integers in keys are big endian, so in the order of the keys every peer comes
//! before the entries that name it. Each value is a version byte and then bincode
//! (see `protocol::codec`):
//!
//! ```text
//!   part: 1 | count u64 | { name | id 16 | epoch u32 | peer u16 | kind u8 } ...
//!   peer: 1 | id 16 | name | address | state u8 | since i64
//!           | nonce 16 | count u64 | { displaced nonce 16 } ... | listed u8
//! ```
//!
//! Text is its length (u64) and its bytes. Checksums are the store's business. A
//! value stays below [`limits::REGISTRY_ROW_BYTES_MAX`]; a bucket has one part
//! until the registry holds some millions of topics. The value of the mark 3 is a
//! version byte: it is set with the first of several batches and removed with the
//! last, so who finds it knows that only some of them were written.
//!
//! Not stored, and so not there after a restart: loads, lists that were coming
//! in, and when leases and claims end; both get a whole period from the start.
//!
//! What cannot be read, or contradicts the rest, is left out and counted. The
//! registry is derived from what peers store, so the cure for that, and for the
//! mark, is to have them all tell it again: no peer of such a registry counts as
//! listed, and the next heartbeat of each is answered with `NotRegistered`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::Now;
use super::peers::Peer;
use super::state::{Effects, Settings, State};
use super::table::{Entry, Kind, PeerNumber, bucket_of};
use crate::limits;
use crate::protocol::api::{Nonce, PeerLoad, PeerState};
use crate::protocol::codec::{self, Malformed};
use crate::time::Timestamp;
use crate::types::{Address, LeaderEpoch, PeerId, PeerName, TopicId, TopicName};

/// Version of the values.
const VERSION: u8 = 1;
const PEER_KEY: u8 = 1;
const BUCKET_KEY: u8 = 2;
const UNFINISHED_KEY: [u8; 1] = [3];
/// Version and count.
const PART_HEAD_BYTES: usize = 1 + 8;
/// What an entry takes beside its name.
const ENTRY_BYTES: usize = 8 + 16 + 4 + 2 + 1;

/// A row: key and value.
pub type Row = (Vec<u8>, Vec<u8>);

/// Rows to write and keys to remove, together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// Rows to set.
    pub puts: Vec<Row>,
    /// Keys of rows to remove.
    pub deletes: Vec<Vec<u8>>,
}

/// What of the store has to be remembered to write it.
pub struct Layout {
    /// How many parts each bucket has.
    parts: Vec<u32>,
    /// Buckets with parts that do not follow on those, and their numbers.
    strays: BTreeMap<u32, Vec<u32>>,
    /// Whether the mark of an unfinished change is there.
    unfinished: bool,
    batch_bytes_max: usize,
}

/// What was found while loading.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Loaded {
    /// Rows that did not decode, one line each.
    pub unreadable: Vec<String>,
    /// Entries left out: of an unknown peer, or in contradiction to another.
    pub left_out: usize,
    /// Only some batches of the last change were written.
    pub unfinished: bool,
    /// What has to be written so that the store is whole again.
    pub effects: Effects,
}

#[derive(Serialize)]
struct EntryRef<'a> {
    name: &'a TopicName,
    id: TopicId,
    epoch: LeaderEpoch,
    peer: u16,
    kind: u8,
}

/// The same, read.
#[derive(Deserialize)]
struct EntryRow {
    name: TopicName,
    id: TopicId,
    epoch: LeaderEpoch,
    peer: u16,
    kind: u8,
}

#[derive(Serialize, Deserialize)]
struct PeerRow {
    id: PeerId,
    name: PeerName,
    address: Address,
    state: u8,
    since: Timestamp,
    nonce: Nonce,
    displaced: Vec<Nonce>,
    listed: bool,
}

impl Layout {
    /// Of an empty store.
    pub fn new() -> Self {
        Self {
            parts: vec![0; limits::REGISTRY_BUCKETS],
            strays: BTreeMap::new(),
            unfinished: false,
            batch_bytes_max: limits::REGISTRY_BATCH_BYTES_MAX,
        }
    }

    #[cfg(test)]
    pub(super) fn cut_batches_at(&mut self, bytes: usize) {
        self.batch_bytes_max = bytes;
    }

    /// The rows that `effects` ask to be written, in batches of bounded size and
    /// nearly always in one. Several are bracketed by a mark.
    pub fn changed(&mut self, state: &State, effects: &Effects) -> Vec<Changes> {
        let mut batches = Batches::new(self.batch_bytes_max);
        for &bucket in &effects.buckets {
            self.change_bucket(state, bucket, &mut batches);
        }
        for &number in &effects.peers {
            match state.peers.get(number) {
                Some(peer) => batches.put(peer_key(number), peer_value(peer)),
                None => batches.delete(peer_key(number)),
            }
        }
        let several = batches.done.len() > 1;
        if several {
            let mark = (UNFINISHED_KEY.to_vec(), vec![VERSION]);
            batches.done[0].puts.push(mark);
        }
        if several || self.unfinished {
            batches.delete(UNFINISHED_KEY.to_vec());
            self.unfinished = false;
        }
        batches.done
    }

    fn change_bucket(&mut self, state: &State, bucket: u32, batches: &mut Batches) {
        let mut now = 0;
        for part in parts(state.bucket(bucket)) {
            batches.put(bucket_key(bucket, now), part);
            now += 1;
        }
        let before = std::mem::replace(&mut self.parts[bucket as usize], now);
        for part in now..before {
            batches.delete(bucket_key(bucket, part));
        }
        let strays = self.strays.remove(&bucket).unwrap_or_default();
        // Those below were just written over.
        for part in strays.into_iter().filter(|&part| part >= now) {
            batches.delete(bucket_key(bucket, part));
        }
    }
}

/// Batches that are being filled.
struct Batches {
    done: Vec<Changes>,
    bytes: usize,
    bytes_max: usize,
}

impl Batches {
    fn new(bytes_max: usize) -> Self {
        Self {
            done: vec![Changes::default()],
            bytes: 0,
            bytes_max,
        }
    }

    fn room_for(&mut self, bytes: usize) -> &mut Changes {
        self.bytes += bytes;
        if self.bytes > self.bytes_max {
            self.done.push(Changes::default());
            self.bytes = bytes;
        }
        self.done.last_mut().expect("never empty")
    }

    fn put(&mut self, key: Vec<u8>, value: Vec<u8>) {
        let bytes = key.len() + value.len();
        self.room_for(bytes).puts.push((key, value));
    }

    fn delete(&mut self, key: Vec<u8>) {
        self.room_for(key.len()).deletes.push(key);
    }
}

impl Default for Layout {
    fn default() -> Self {
        Self::new()
    }
}

fn bucket_key(bucket: u32, part: u32) -> Vec<u8> {
    let bucket = u16::try_from(bucket).expect("limits::REGISTRY_BUCKETS is 2^16");
    let mut key = vec![BUCKET_KEY];
    key.extend(bucket.to_be_bytes());
    key.extend(part.to_be_bytes());
    key
}

fn peer_key(number: PeerNumber) -> Vec<u8> {
    let mut key = vec![PEER_KEY];
    key.extend(short(number).to_be_bytes());
    key
}

fn short(number: PeerNumber) -> u16 {
    u16::try_from(number.index()).expect("limits::PEERS_MAX is below 2^16")
}

fn encode<T: Serialize>(value: &T, what: &'static str) -> Vec<u8> {
    let mut bytes = vec![VERSION];
    let body = codec::encode(value, limits::REGISTRY_ROW_BYTES_MAX, what);
    bytes.extend(body.expect("rows are cut to size, and peers are bounded by their parts"));
    bytes
}

fn decode<T: DeserializeOwned>(bytes: &[u8], what: &'static str) -> Result<T, Malformed> {
    match bytes.split_first() {
        Some((&VERSION, body)) => codec::decode(body, limits::REGISTRY_ROW_BYTES_MAX, what),
        Some((other, _)) => Err(malformed(
            what,
            format!("version {VERSION} was expected, {other} found"),
        )),
        None => Err(malformed(what, "it is empty".to_owned())),
    }
}

fn malformed(what: &'static str, reason: String) -> Malformed {
    Malformed { what, reason }
}

/// The values of a bucket: its entries, cut into rows of bounded size.
fn parts(entries: Vec<&Entry>) -> Vec<Vec<u8>> {
    let mut parts: Vec<Vec<EntryRef<'_>>> = Vec::new();
    let mut bytes = 0;
    for entry in entries {
        let needed = ENTRY_BYTES + entry.name.as_str().len();
        if parts.is_empty() || bytes + needed > limits::REGISTRY_ROW_BYTES_MAX {
            parts.push(Vec::new());
            bytes = PART_HEAD_BYTES;
        }
        bytes += needed;
        parts.last_mut().expect("just pushed").push(row_of(entry));
    }
    let value = |part: &Vec<EntryRef<'_>>| encode(part, "registry bucket");
    parts.iter().map(value).collect()
}

fn row_of(entry: &Entry) -> EntryRef<'_> {
    EntryRef {
        name: &entry.name,
        id: entry.id,
        epoch: entry.epoch,
        peer: short(entry.peer),
        kind: match entry.kind {
            Kind::Held => 0,
            Kind::Claim => 1,
            Kind::Conflict => 2,
        },
    }
}

fn peer_value(peer: &Peer) -> Vec<u8> {
    let row = PeerRow {
        id: peer.id,
        name: peer.name.clone(),
        address: peer.address.clone(),
        state: match peer.state {
            PeerState::Online => 0,
            PeerState::Offline => 1,
            PeerState::Down => 2,
        },
        since: peer.since,
        nonce: peer.nonce,
        displaced: peer.displaced.clone(),
        listed: peer.listed,
    };
    encode(&row, "registry peer")
}

/// Makes a state of stored rows, one after the other in the order of their keys.
pub struct Loader {
    state: State,
    layout: Layout,
    loaded: Loaded,
    now: Now,
}

impl Loader {
    /// Nothing is loaded yet.
    pub fn new(settings: Settings, now: Now) -> Self {
        Self {
            state: State::new(settings, now),
            layout: Layout::new(),
            loaded: Loaded::default(),
            now,
        }
    }

    /// Takes the next row.
    pub fn take(&mut self, (key, value): Row) {
        if key.first() == Some(&PEER_KEY) {
            if let Err(error) = load_peer(&mut self.state, &key, &value, self.now) {
                self.loaded.note(&key, &error);
                self.loaded.effects.peers.extend(number_in(&key));
            }
            return;
        }
        if key == UNFINISHED_KEY {
            self.layout.unfinished = true;
            self.loaded.unfinished = true;
            return;
        }
        let Some((bucket, part)) = bucket_in(&key) else {
            let error = malformed("registry row", "its key is of no known kind".to_owned());
            self.loaded.note(&key, &error);
            return;
        };
        let next = &mut self.layout.parts[bucket as usize];
        if part == *next {
            *next += 1;
        } else {
            // A number decides how much there is to remove only where all below it were met.
            let reason = format!("it is part {part} of its bucket, {next} was expected");
            self.loaded
                .note(&key, &malformed("registry bucket", reason));
            self.layout.strays.entry(bucket).or_default().push(part);
            self.loaded.effects.buckets.insert(bucket);
        }
        match decode::<Vec<EntryRow>>(&value, "registry bucket") {
            Ok(rows) => load_entries(&mut self.state, bucket, rows, &mut self.loaded),
            Err(error) => {
                self.loaded.note(&key, &error);
                self.loaded.effects.buckets.insert(bucket);
            }
        }
    }

    /// The state, what is needed to write it, and what was found.
    pub fn finish(mut self) -> (State, Layout, Loaded) {
        start_claims(&mut self.state, self.now);
        let loaded = &self.loaded;
        if loaded.unfinished || loaded.left_out > 0 || !loaded.unreadable.is_empty() {
            ask_all_again(&mut self.state, &mut self.loaded.effects);
        }
        (self.state, self.layout, self.loaded)
    }
}

impl Loaded {
    fn note(&mut self, key: &[u8], error: &Malformed) {
        self.unreadable
            .push(format!("{error}, under {}", key.escape_ascii()));
    }
}

fn number_in(key: &[u8]) -> Option<PeerNumber> {
    let bytes: [u8; 2] = key.get(1..)?.try_into().ok()?;
    PeerNumber::new(usize::from(u16::from_be_bytes(bytes)))
}

fn bucket_in(key: &[u8]) -> Option<(u32, u32)> {
    let (&[BUCKET_KEY, high, low], part) = key.split_first_chunk()? else {
        return None;
    };
    let part = u32::from_be_bytes(part.try_into().ok()?);
    Some((u32::from(u16::from_be_bytes([high, low])), part))
}

fn load_peer(state: &mut State, key: &[u8], value: &[u8], now: Now) -> Result<(), Malformed> {
    const WHAT: &str = "registry peer";
    let wrong = |reason: &str| malformed(WHAT, reason.to_owned());
    let row: PeerRow = decode(value, WHAT)?;
    let number = number_in(key).ok_or_else(|| wrong("its number is out of range"))?;
    if state.peers.by_id(row.id).is_some() || state.peers.by_name(&row.name).is_some() {
        return Err(wrong("its id or name is another's"));
    }
    let peer = Peer {
        id: row.id,
        name: row.name,
        address: row.address,
        state: match row.state {
            0 => PeerState::Online,
            1 => PeerState::Offline,
            2 => PeerState::Down,
            _ => return Err(wrong("its state is unknown")),
        },
        since: row.since,
        nonce: row.nonce,
        displaced: row.displaced,
        listed: row.listed,
        lease_ends: now.ticks.after(state.settings.lease),
        load: PeerLoad::default(),
        placed: 0,
        incoming: None,
    };
    state.peers.put(number, peer);
    Ok(())
}

fn load_entries(state: &mut State, bucket: u32, rows: Vec<EntryRow>, loaded: &mut Loaded) {
    for row in rows {
        match accepted(state, bucket, row) {
            Some(entry) => {
                state.topics.insert(entry);
            }
            None => {
                loaded.left_out += 1;
                loaded.effects.buckets.insert(bucket);
            }
        }
    }
}

fn start_claims(state: &mut State, now: Now) {
    let ends = now.ticks.after(state.settings.claim_kept);
    let all = state.topics.all();
    let claims = all.filter(|(_, entry)| entry.kind == Kind::Claim);
    state.claims = claims.map(|(slot, _)| (slot, ends)).collect();
}

/// The entry, unless it would break an invariant of the registry.
fn accepted(state: &State, bucket: u32, row: EntryRow) -> Option<Entry> {
    let peer = PeerNumber::new(usize::from(row.peer))?;
    state.peers.get(peer)?;
    let kind = match row.kind {
        0 => Kind::Held,
        1 => Kind::Claim,
        2 => Kind::Conflict,
        _ => return None,
    };
    let entry = Entry {
        name: row.name,
        kind,
        id: row.id,
        epoch: row.epoch,
        peer,
    };
    let rival = |kind| {
        let slot = state.topics.find(&entry.name, kind)?;
        Some(state.topics.get(slot))
    };
    let fits = match kind {
        Kind::Held => {
            rival(Kind::Held).is_none()
                && rival(Kind::Claim).is_none_or(|claim| claim.id == entry.id)
                && state.topics.find_id(entry.id, Kind::Held).is_none()
        }
        Kind::Claim => {
            rival(Kind::Claim).is_none() && rival(Kind::Held).is_none_or(|held| held.id == entry.id)
        }
        Kind::Conflict => true,
    };
    let own_other = |slot| {
        let other = state.topics.get(slot);
        let either = kind == Kind::Conflict || other.kind == Kind::Conflict;
        either && other.kind != Kind::Claim && kind != Kind::Claim && other.peer == peer
    };
    let fits = fits && !state.topics.of_id(entry.id).any(own_other);
    (fits && bucket_of(&entry.name) == bucket).then_some(entry)
}

/// After a loss: every peer has to tell its list again.
fn ask_all_again(state: &mut State, effects: &mut Effects) {
    let numbers: Vec<PeerNumber> = state.peer_numbers().collect();
    for number in numbers {
        state.peers.at_mut(number).listed = false;
        effects.peers.insert(number);
    }
}
