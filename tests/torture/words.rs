//! What driver and checker say to each other, and what records contain.
//!
//! The driver is this program, executed by itself with `driver` as its argument: it opens a store,
//! tells everything it finds there, works on it, and tells every intention before and every
//! acknowledgement after. It reads its [`Plan`] from its input and writes one [`Said`] per line.
//! A line leaves with one call, so what arrived was said before the process died.
//!
//! A record's value follows from its lane (topic and producer) and sequence: whoever reads it can
//! tell whether it is right without having kept it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};
use tidings::limits;
use tidings::protocol::batch::{BatchBuilder, CheckedBatch, Compression, RecordToSend};
use tidings::time::Timestamp;
use tidings::types::{ProducerId, Sequence, TopicId};

/// A topic's id, written as text.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Id(pub TopicId);

impl TryFrom<String> for Id {
    type Error = tidings::types::Invalid;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse().map(Self)
    }
}

impl From<Id> for String {
    fn from(id: Id) -> Self {
        id.0.to_string()
    }
}

impl std::fmt::Debug for Id {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Eight digits tell the topics of a test apart.
        f.write_str(&self.0.to_string()[..8])
    }
}

/// What a driver is to do.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Plan {
    pub dir: PathBuf,
    pub seed: u64,
    pub slot_bytes: u64,
    pub page_cache_only: bool,
    /// How many publish at once.
    pub publishers: u8,
    /// Batches each of them sends.
    pub batches: u32,
    /// Changes of state, one after the other.
    pub changes: u32,
    pub readers: u8,
    /// Many of the changes discard something.
    pub discards: bool,
    /// How often the reclaimer looks, in milliseconds.
    pub reclaim_every: u64,
    pub end: End,
    /// Where to begin to read each topic.
    pub from: BTreeMap<Id, u64>,
    /// First sequence of each lane that was not acknowledged.
    pub next: BTreeMap<Id, BTreeMap<u8, u64>>,
    /// Damage is expected: go on behind it, leave quarantined topics alone.
    pub damaged: bool,
}

/// How a driver ends that nobody killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum End {
    /// Stops the store.
    Clean,
    /// Ends the process at once.
    Abrupt,
    /// Waits until the store has done what it does when nothing comes, then ends the process.
    Idle,
}

/// A change of state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    Create {
        id: Id,
        name: String,
        os: bool,
    },
    Delete {
        id: Id,
        name: String,
    },
    Rename {
        id: Id,
        name: String,
        to: String,
    },
    Set {
        id: Id,
        name: String,
        os: bool,
        retain_records: Option<u64>,
    },
    Purge {
        id: Id,
        name: String,
        to: u64,
    },
    Subscribe {
        id: Id,
        topic: String,
        name: String,
    },
    Commit {
        id: Id,
        name: String,
        generation: u64,
        offset: u64,
    },
    Seek {
        id: Id,
        topic: String,
        name: String,
        to: u64,
    },
    Unsubscribe {
        id: Id,
        topic: String,
        name: String,
    },
}

/// Something that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Item {
    /// Base offset, records, producer, first sequence.
    Batch(u64, u32, u8, u64),
    Discarded(u64, u64),
    Lost(u64, u64),
    Damaged(u64, u64),
}

impl Item {
    pub fn range(&self) -> (u64, u64) {
        match *self {
            Self::Batch(base, count, ..) => (base, base + u64::from(count)),
            Self::Discarded(from, to) | Self::Lost(from, to) | Self::Damaged(from, to) => {
                (from, to)
            }
        }
    }
}

/// What a store did to give space back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Reclaimed {
    pub snapshots: u64,
    pub freed: u64,
    pub copied: u64,
    pub cold: u64,
    pub reused: u64,
    pub deleted: u64,
}

impl Reclaimed {
    pub fn add(&mut self, other: &Self) {
        self.snapshots += other.snapshots;
        self.freed += other.freed;
        self.copied += other.copied;
        self.cold += other.cold;
        self.reused += other.reused;
        self.deleted += other.deleted;
    }
}

/// One line of a driver.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Said {
    /// The store does not open.
    NotOpened(String),
    Opened {
        fresh: bool,
        clean: bool,
        torn: Option<String>,
        rebuilt: Option<String>,
        from_snapshot: bool,
        ms: u64,
    },
    Topic {
        id: Id,
        name: String,
        os: bool,
        retain_records: Option<u64>,
        start: u64,
        end: u64,
        quarantined: bool,
    },
    Subscription {
        id: Id,
        name: String,
        generation: u64,
        committed: u64,
    },
    /// Read while nobody wrote: what recovery left.
    Found {
        id: Id,
        items: Vec<Item>,
    },
    /// What the store names as damaged.
    Damage(Vec<String>),
    /// Everything that was found is told.
    AllFound,
    /// Read while others wrote.
    Read {
        id: Id,
        items: Vec<Item>,
    },
    Acknowledged {
        id: Id,
        producer: u8,
        first: u64,
        count: u32,
        base: u64,
        end: u64,
        os: bool,
        duplicate: bool,
    },
    /// A batch was refused; nothing may be wrong with it.
    Refused {
        id: Id,
        producer: u8,
        first: u64,
        why: String,
    },
    Intends(Change),
    /// The answer to the last intention: for subscriptions generation and committed offset, for topics the start.
    Done(u64, u64),
    NotDone(String),
    /// What was done to give space back, so far.
    Reclaimed(Reclaimed),
    /// Something is wrong for certain.
    Wrong(String),
    Stopped(Result<(), String>),
}

/// Topic and producer: the sequence runs within it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lane {
    pub topic: Id,
    pub producer: u8,
}

const HEAD: usize = 25;
const FILLER_STEPS: usize = 8192;
const FILLER_BYTES: usize = 64 << 10;

/// Bytes that values are made of.
fn filler() -> &'static [u8] {
    static MADE: OnceLock<Vec<u8>> = OnceLock::new();
    MADE.get_or_init(|| {
        let words = (FILLER_STEPS + FILLER_BYTES) as u64 / 8;
        (0..words).flat_map(|n| mix(n).to_le_bytes()).collect()
    })
}

/// Good enough to make bytes of; not for secrets.
pub fn mix(mut x: u64) -> u64 {
    x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

impl Lane {
    fn salt(&self, sequence: u64, purpose: u64) -> u64 {
        let id = self.topic.0.to_bytes();
        let (a, b) = id.split_at(8);
        let word = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("eight bytes"));
        let topic = mix(word(a)) ^ word(b);
        mix(mix(topic ^ u64::from(self.producer)) ^ mix(sequence) ^ purpose)
    }

    pub fn producer_id(&self) -> ProducerId {
        ProducerId::from_bytes([self.producer + 1; 16])
    }

    /// How many records the batch has that begins with this sequence.
    pub fn count(&self, first: u64) -> u32 {
        let salt = self.salt(first, 1);
        let most = match salt.is_multiple_of(50) {
            // A batch has to fit into half of a slot.
            true if self.is_large() => 12,
            true => 60,
            false => 5,
        };
        u32::try_from(1 + (salt >> 8) % most).expect("small")
    }

    /// Every third topic has large messages, so that segments fill.
    fn is_large(&self) -> bool {
        self.topic.0.to_bytes()[1].is_multiple_of(3)
    }

    fn value(&self, sequence: u64) -> Vec<u8> {
        let salt = self.salt(sequence, 2);
        let length = match salt % 100 {
            0..60 if self.is_large() => (salt >> 8) % 40_000,
            0 => (salt >> 8) % 60_000,
            1..8 => (salt >> 8) % 6_000,
            _ => (salt >> 8) % 250,
        };
        let mut value = Vec::with_capacity(HEAD + length as usize);
        value.extend(self.topic.0.to_bytes());
        value.push(self.producer);
        value.extend(sequence.to_le_bytes());
        // From a table, at a place that follows from the record: tests are not optimised.
        let at = (salt >> 24) as usize % FILLER_STEPS;
        value.extend_from_slice(&filler()[at..at + length as usize]);
        value
    }

    /// The batch that begins with this sequence: always the same one.
    pub fn batch(&self, first: u64) -> CheckedBatch {
        let compression = match self.salt(first, 3) % 8 {
            0 => Compression::Lz4,
            1 => Compression::Zstd,
            _ => Compression::None,
        };
        let mut builder = BatchBuilder::new(compression);
        for sequence in first..first + u64::from(self.count(first)) {
            let record = RecordToSend {
                timestamp: Timestamp::from_millis(1),
                key: None,
                headers: &[],
                value: &self.value(sequence),
            };
            builder.try_push(&record).expect("it fits");
        }
        let bytes = builder
            .build(self.producer_id(), Sequence::new(first))
            .expect("it builds");
        CheckedBatch::check(bytes, limits::MESSAGE_BYTES_MAX).expect("it is sound")
    }
}

/// Whose batch this is, if every byte of it is as it was made.
pub fn recognise(topic: Id, batch: &CheckedBatch) -> Result<(Lane, u64), String> {
    let header = batch.header();
    let producer = header.producer.to_bytes()[0].wrapping_sub(1);
    let (lane, first) = (Lane { topic, producer }, header.first_sequence.get());
    if header.producer != lane.producer_id() || header.record_count != lane.count(first) {
        return Err(format!("a batch nobody sent: {header:?}"));
    }
    let records = batch.records().map_err(|error| error.to_string())?;
    for (sequence, record) in (first..).zip(records) {
        let record = record.map_err(|error| error.to_string())?;
        if record.value != lane.value(sequence) {
            return Err(format!(
                "record {sequence} of producer {producer} has other bytes"
            ));
        }
    }
    Ok((lane, first))
}

/// A small generator whose whole state is its seed.
#[derive(Debug, Clone)]
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// Below `n`.
    pub fn below(&mut self, n: u64) -> u64 {
        self.roll() % n.max(1)
    }

    /// In so many of a hundred cases.
    pub fn percent(&mut self, n: u64) -> bool {
        self.below(100) < n
    }

    pub fn pick<'a, T>(&mut self, among: &'a [T]) -> Option<&'a T> {
        let at = self.below(among.len() as u64) as usize;
        among.get(at)
    }
}
