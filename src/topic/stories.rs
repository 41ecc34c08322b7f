//! Random lives of a topic with named producers and message ids, beside an obvious model, with a crash now and
//! then: what is read back from rows of any moment and the journal behind them is what was there.

use std::collections::{BTreeMap, HashMap};

use super::ids::page_of;
use super::producers::Opening;
use super::rows::{Row, RowKey, TopicRow};
use super::state::{RowChange, State};
use super::{Admission, BatchFacts, PeerRow, Terms};
use crate::limits;
use crate::protocol::api::Nonce;
use crate::protocol::error::ApiError;
use crate::time::Timestamp;
use crate::types::{
    IdDigest, LeaderEpoch, Offset, PeerId, ProducerEpoch, ProducerId, RememberIds, Sequence,
    StateNumber, TopicId, TopicSettings,
};

const TOPIC: TopicId = TopicId::from_bytes([1; 16]);
const EPOCH: LeaderEpoch = LeaderEpoch::new(1);
const NAMES: u64 = 3;
const IDS: u64 = 400;
const IDS_KEPT: u64 = 150;

/// Numbers from a seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, most: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.0 >> 33) % most
    }
}

/// What the journal holds.
enum Entry {
    Batch(BatchFacts, Offset, Timestamp),
    Rows(Vec<(RowKey, Option<Row>)>),
}

/// A process that publishes under a name.
#[derive(Clone)]
struct Process {
    name: u64,
    epoch: ProducerEpoch,
    next: u64,
    /// First sequence, count, and where it was stored.
    sent: Vec<(u64, u32, Offset)>,
}

type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

struct Story {
    seed: u64,
    dice: Dice,
    state: State,
    journal: Vec<Entry>,
    /// The rows before each entry of the journal, now and then.
    catalogs: Vec<(usize, Rows)>,
    processes: Vec<Process>,
    nonces: u8,
    // The model.
    /// By name: newest epoch and next sequence; none: it was never there, or was forgotten.
    names: HashMap<u64, (ProducerEpoch, u64)>,
    forgot: bool,
    ids: HashMap<u64, Offset>,
    seen: Vec<(u64, Offset)>,
    end: u64,
    now: i64,
}

fn state() -> State {
    let peer = PeerRow {
        id: PeerId::from_bytes([2; 16]),
        name: "p".parse().expect("good"),
        created: Timestamp::default(),
        state_number: StateNumber::ZERO,
        accepted_state: StateNumber::ZERO,
        snapshot: None,
    };
    State::new(peer)
}

fn producer(name: u64) -> ProducerId {
    ProducerId::from_bytes([name as u8 + 10; 16])
}

impl Story {
    fn new(seed: u64) -> Self {
        let mut state = state();
        let settings = TopicSettings {
            ids: RememberIds {
                for_ms: None,
                max: Some(IDS_KEPT),
            },
            ..TopicSettings::default()
        };
        let name = "t".parse().expect("good");
        let row = TopicRow::new(name, EPOCH, settings, Timestamp::default());
        state.create_topic(TOPIC, row).expect("made");
        Self {
            seed,
            dice: Dice(seed),
            state,
            journal: Vec::new(),
            catalogs: Vec::new(),
            processes: Vec::new(),
            nonces: 0,
            names: HashMap::new(),
            forgot: false,
            ids: HashMap::new(),
            seen: Vec::new(),
            end: 0,
            now: 0,
        }
    }

    fn rows(&self) -> Rows {
        let keys = self.state.all_keys().into_iter();
        let row = |key: RowKey| Some((key.encode(), self.state.row(&key)?.encode()));
        keys.filter_map(row).collect()
    }

    fn note_rows(&mut self, keys: Vec<RowKey>) {
        let rows = keys.into_iter().map(|key| {
            let row = self.state.row(&key);
            (key, row)
        });
        let rows = rows.collect();
        self.journal.push(Entry::Rows(rows));
    }

    fn admit(&mut self, facts: &BatchFacts) -> Result<Admission, ApiError> {
        let terms = Terms::from(EPOCH);
        let topic = self.state.topic_mut(TOPIC).expect("there");
        let admitted = topic.admit(terms, facts);
        if let Ok(Admission::Append(base)) = admitted {
            assert_eq!(base.get(), self.end, "seed {}", self.seed);
            let time = Timestamp::from_millis(self.now);
            topic.appended(facts, base, time);
            self.journal.push(Entry::Batch(*facts, base, time));
            self.end += u64::from(facts.count);
        }
        admitted
    }

    fn open(&mut self) {
        let name = self.dice.below(NAMES);
        let known = self.names.get(&name).copied();
        let at = match self.dice.below(6) {
            0 => Some(self.dice.below(50)),
            _ => None,
        };
        self.nonces = self.nonces.wrapping_add(1);
        let opening = Opening {
            producer: producer(name),
            nonce: Nonce([self.nonces; 16]),
            at: at.map(Sequence::new),
        };
        let topic = self.state.topic_mut(TOPIC).expect("there");
        let opened = topic.open_producer(&opening, Timestamp::from_millis(self.now));
        if known.is_none() && at.is_none() && self.forgot {
            assert_eq!(
                opened,
                Err(ApiError::ProducerForgotten),
                "seed {}",
                self.seed
            );
            return;
        }
        assert_eq!(opened, Ok(true), "seed {}", self.seed);
        let row = &topic.producers[&producer(name)];
        let next = at.or(known.map(|(_, next)| next)).unwrap_or(0);
        assert_eq!(row.next_sequence().get(), next, "seed {}", self.seed);
        let epoch = row.epoch();
        let older = self.processes.iter().map(|process| process.epoch);
        assert!(older.max() < Some(epoch), "given once, seed {}", self.seed);
        self.names.insert(name, (epoch, next));
        self.processes.push(Process {
            name,
            epoch,
            next,
            sent: Vec::new(),
        });
        self.note_rows(vec![
            RowKey::Topic(TOPIC),
            RowKey::Producer(TOPIC, producer(name)),
        ]);
    }

    fn of_process(&self, process: &Process, first: u64, count: u32) -> BatchFacts {
        BatchFacts {
            producer: producer(process.name),
            producer_epoch: process.epoch,
            first: Sequence::new(first),
            count,
            bytes: 10,
            id: None,
        }
    }

    /// A process sends its next batch: only the newest one of a name is stored, and at the next sequence.
    fn send(&mut self) {
        if self.processes.is_empty() {
            return;
        }
        // Mostly one of the newest: the others are fenced.
        let among = match self.dice.below(4) {
            0 => self.processes.len() as u64,
            _ => NAMES.min(self.processes.len() as u64),
        };
        let which = self.processes.len() - 1 - self.dice.below(among) as usize;
        let process = self.processes[which].clone();
        let count = 1 + self.dice.below(4) as u32;
        let facts = self.of_process(&process, process.next, count);
        let admitted = self.admit(&facts);
        let current = self.names.get(&process.name).copied();
        let seed = self.seed;
        match current {
            Some((epoch, next)) if epoch == process.epoch => {
                assert_eq!(process.next, next, "seed {seed}");
                let Ok(Admission::Append(base)) = admitted else {
                    panic!("{admitted:?}, seed {seed}");
                };
                let next = next + u64::from(count);
                self.names.insert(process.name, (epoch, next));
                self.processes[which].next = next;
                self.processes[which].sent.push((process.next, count, base));
            }
            Some(_) => {
                let error = admitted.expect_err("a newer process has the name");
                assert_eq!(error.name(), "ProducerFenced", "seed {seed}");
            }
            None => assert_eq!(admitted, Err(ApiError::ProducerForgotten), "seed {seed}"),
        }
    }

    /// What was stored comes again: it is known as what it was, or nobody can tell; it is never stored twice.
    fn retry(&mut self) {
        if self.processes.is_empty() {
            return;
        }
        let which = self.dice.below(self.processes.len() as u64) as usize;
        let process = self.processes[which].clone();
        if process.sent.is_empty() {
            return;
        }
        let sent = self.dice.below(process.sent.len() as u64) as usize;
        let (first, count, base) = process.sent[sent];
        match self.admit(&self.of_process(&process, first, count)) {
            Ok(Admission::Duplicate { base: found, end }) => {
                assert_eq!(
                    (found, end.since(found)),
                    (base, count.into()),
                    "seed {}",
                    self.seed
                );
            }
            Ok(Admission::Append(_)) => panic!("stored twice, seed {}", self.seed),
            Err(error) => {
                let is_last = sent + 1 == process.sent.len();
                let current = self.names.get(&process.name);
                let is_newest = current.is_some_and(|(epoch, _)| *epoch == process.epoch);
                assert!(!(is_last && is_newest), "{error}, seed {}", self.seed);
            }
        }
    }

    fn forget(&mut self) {
        let name = self.dice.below(NAMES);
        if self.names.remove(&name).is_none() {
            return;
        }
        self.forgot = true;
        let topic = self.state.topic_mut(TOPIC).expect("there");
        topic.forget_producers(&[producer(name)]);
        self.note_rows(vec![
            RowKey::Topic(TOPIC),
            RowKey::Producer(TOPIC, producer(name)),
        ]);
    }

    /// A message with an id: as the writer does it, what is superfluous is forgotten before.
    fn identified(&mut self) {
        let topic = self.state.topic_mut(TOPIC).expect("there");
        let surplus = topic.surplus_ids(None);
        if !surplus.is_empty() {
            let keys = topic.forget_ids(&surplus);
            self.note_rows(keys);
            self.seen
                .retain(|(_, offset)| !surplus.contains(&page_of(*offset)));
            let seen = &self.seen;
            self.ids.retain(|id, offset| seen.contains(&(*id, *offset)));
        }
        let id = self.dice.below(IDS);
        let facts = BatchFacts {
            count: 1,
            bytes: 10,
            id: Some(IdDigest::of(&id.to_le_bytes())),
            ..BatchFacts::default()
        };
        match (self.admit(&facts), self.ids.get(&id).copied()) {
            (Ok(Admission::Append(base)), None) => {
                self.ids.insert(id, base);
                self.seen.push((id, base));
            }
            (Ok(Admission::Duplicate { base, end }), Some(first)) => {
                assert_eq!((base, end), (first, first.next()), "seed {}", self.seed);
            }
            (found, expected) => panic!("{found:?}, {expected:?}, seed {}", self.seed),
        }
        let newest = self.seen.iter().rev().take(IDS_KEPT as usize);
        assert!(newest.clone().all(|(id, at)| self.ids[id] >= *at));
        let most = IDS_KEPT + limits::IDS_PER_PAGE;
        assert!(self.seen.len() as u64 <= most, "seed {}", self.seed);
    }

    /// The state as it is read back: rows of some moment, some of them of a later one, and the journal from the
    /// first moment on.
    fn crash(&mut self) {
        let count = self.catalogs.len() as u64;
        if count == 0 {
            return;
        }
        let older = self.dice.below(count) as usize;
        let newer = older + self.dice.below(count - older as u64) as usize;
        let (from, mut rows) = self.catalogs[older].clone();
        let (_, later) = self.catalogs[newer].clone();
        let keys: Vec<Vec<u8>> = rows.keys().chain(later.keys()).cloned().collect();
        for key in keys {
            if self.dice.below(2) == 0 {
                match later.get(&key) {
                    Some(value) => _ = rows.insert(key, value.clone()),
                    None => _ = rows.remove(&key),
                }
            }
        }
        let mut state = state();
        for (key, value) in &rows {
            let key = RowKey::decode(key).expect("a key");
            let row = Some(Row::decode(&key, value).expect("a row"));
            state.apply(RowChange { key, row });
        }
        for entry in &self.journal[from..] {
            match entry {
                Entry::Batch(facts, base, time) => {
                    let topic = state.topic_mut(TOPIC).expect("there");
                    match *base < topic.row.end {
                        true => topic.recall(facts, *base, *time),
                        false => topic.appended(facts, *base, *time),
                    }
                }
                Entry::Rows(changes) => {
                    for (key, row) in changes.clone() {
                        state.apply(RowChange { key, row });
                    }
                }
            }
        }
        let (found, expected) = (state.topic(TOPIC), self.state.topic(TOPIC));
        assert_eq!(found, expected, "seed {}", self.seed);
        self.state = state;
    }

    fn step(&mut self) {
        self.now += 1;
        match self.dice.below(100) {
            0..3 => self.open(),
            3 if self.dice.below(4) == 0 => self.forget(),
            4..40 => self.send(),
            40..55 => self.retry(),
            55..90 => self.identified(),
            90..94 => self.catalogs.push((self.journal.len(), self.rows())),
            94 => self.crash(),
            _ => {}
        }
        // Old moments are of no more use.
        if self.catalogs.len() > 12 {
            self.catalogs.remove(0);
        }
    }
}

#[test]
fn whatever_happens_what_is_known_is_what_happened() {
    for seed in 1..=12 {
        let mut story = Story::new(seed);
        for _ in 0..3_000 {
            story.step();
        }
        let (end, processes) = (story.end, story.processes.len());
        assert!(
            end > 500 && processes > 20,
            "{end}, {processes}, seed {seed}"
        );
    }
}
