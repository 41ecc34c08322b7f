//! Compaction by key: which records of a topic go because a newer one has their key.
//!
//! ```text
//!   start          compacted            clean end        end
//!     |  each key     |   any number      |               |
//!     |  once         |   of times        |  not looked   |
//!     [a1 . . b1 . c1 | a2 d1 a3 . b(gone)|  at           )
//!      ^                ^
//!      goes for a3, which is in the map; b1 goes too, its deletion stays for a while
//! ```
//!
//! A *pass* remembers the newest offset of each key from `compacted` to the clean end, takes away
//! what stands in front of one of them, and moves `compacted` to the clean end when nothing is
//! left that was to go.
//!
//! 1. A record goes only for one of the same key behind it, which this pass has seen.
//! 2. A record without a key never goes. One with a key and no payload is a *deletion*.
//! 3. A deletion goes when it is old enough and lies below where the pass began: an earlier pass has
//!    left nothing of its key in front of it. So nothing that was deleted comes back.
//! 4. Keys are known by 128 bits of a hash under random keys: two of them do not meet by chance, and
//!    nobody who chooses keys can make them meet.
//!
//! Time, and the random keys, come in as arguments.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use crate::time::Timestamp;
use crate::types::{GapReason, Offset};

/// The newest offset of each key, of a bounded number of them.
#[derive(Debug)]
pub struct KeyMap {
    hashers: [RandomState; 2],
    newest: HashMap<[u64; 2], Offset>,
    max: usize,
}

impl KeyMap {
    /// Remembers at most `max` keys; `hashers` were made for it alone.
    pub fn new(hashers: [RandomState; 2], max: usize) -> Self {
        Self {
            hashers,
            newest: HashMap::new(),
            max,
        }
    }

    fn hash(&self, key: &[u8]) -> [u64; 2] {
        [0, 1].map(|at: usize| self.hashers[at].hash_one(key))
    }

    /// A record of that key stands there. False: it is another key, and there is no room.
    pub fn note(&mut self, key: &[u8], at: Offset) -> bool {
        let hash = self.hash(key);
        if let Some(newest) = self.newest.get_mut(&hash) {
            *newest = at.max(*newest);
            return true;
        }
        let has_room = self.newest.len() < self.max;
        if has_room {
            self.newest.insert(hash, at);
        }
        has_room
    }

    /// Where the newest record of that key stands, if one was noted.
    pub fn newest(&self, key: &[u8]) -> Option<Offset> {
        self.newest.get(&self.hash(key)).copied()
    }

    /// How many keys it knows.
    pub fn len(&self) -> usize {
        self.newest.len()
    }

    /// Whether it knows none.
    pub fn is_empty(&self) -> bool {
        self.newest.is_empty()
    }
}

/// What a pass takes away.
#[derive(Debug, Clone)]
pub struct Cleaning {
    /// The keys it has seen.
    pub keys: Arc<KeyMap>,
    /// Nothing at or above goes.
    pub end: Offset,
    /// `compacted` when it began.
    pub compacted: Offset,
    /// Deletions go that were appended before; `None`: none goes now.
    pub tombstones_before: Option<Timestamp>,
}

/// A record, as far as compaction is concerned.
#[derive(Debug, Clone, Copy)]
pub struct Keyed<'a> {
    /// Where it stands.
    pub at: Offset,
    /// When it was appended.
    pub appended: Timestamp,
    /// Its key, if it has one.
    pub key: Option<&'a [u8]>,
    /// Whether it has no payload.
    pub is_empty: bool,
}

impl Keyed<'_> {
    /// Whether it says that its key is gone.
    pub fn is_deletion(&self) -> bool {
        self.key.is_some() && self.is_empty
    }
}

impl Cleaning {
    /// Why the record goes, if it does.
    pub fn judge(&self, record: &Keyed<'_>) -> Option<GapReason> {
        let key = record.key.filter(|_| record.at < self.end)?;
        let is_older = self.keys.newest(key).is_some_and(|at| at > record.at);
        let is_over = record.is_deletion()
            && record.at < self.compacted
            && self
                .tombstones_before
                .is_some_and(|before| record.appended < before);
        (is_older || is_over).then_some(GapReason::Compacted)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn map(max: usize) -> KeyMap {
        KeyMap::new([RandomState::new(), RandomState::new()], max)
    }

    #[test]
    fn a_full_map_still_takes_keys_it_knows() {
        let mut keys = map(2);
        assert!(keys.note(b"a", Offset::new(1)));
        assert!(keys.note(b"", Offset::new(2)), "an empty key is one");
        assert!(!keys.note(b"c", Offset::new(3)));
        assert!(keys.note(b"a", Offset::new(4)));
        assert!(keys.note(b"a", Offset::new(0)), "what is older is no news");
        assert_eq!(keys.newest(b"a"), Some(Offset::new(4)));
        assert_eq!(keys.newest(b""), Some(Offset::new(2)));
        assert_eq!((keys.newest(b"c"), keys.len()), (None, 2));
    }

    /// What is done to a topic.
    #[derive(Debug, Clone)]
    enum Step {
        Publish {
            key: Option<u8>,
            deletes: bool,
        },
        /// A pass with room for so many keys, that gets so far through its segments before a crash takes it.
        Pass {
            keys: usize,
            swapped: usize,
        },
        /// The start moves on by so many.
        Discard(u64),
        /// Time goes by.
        Rest(i64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => (prop::option::weighted(0.9, 0_u8..6), prop::bool::weighted(0.2))
                .prop_map(|(key, deletes)| Step::Publish { key, deletes }),
            2 => (1_usize..8, 0_usize..12).prop_map(|(keys, swapped)| Step::Pass { keys, swapped }),
            1 => (0_u64..4).prop_map(Step::Discard),
            1 => (0_i64..40).prop_map(Step::Rest),
        ]
    }

    #[derive(Debug, Clone, Copy)]
    struct Stored {
        key: Option<u8>,
        deletes: bool,
        appended: i64,
    }

    /// A topic in segments of three records each, which are swapped one after the other.
    #[derive(Default)]
    struct Model {
        /// All there ever were, by offset.
        all: Vec<Stored>,
        /// Those that are there.
        left: BTreeMap<u64, Stored>,
        start: u64,
        compacted: u64,
        now: i64,
    }

    const AGE: i64 = 30;
    const SEGMENT: u64 = 3;

    impl Model {
        fn cleaning(&self, room: usize) -> Cleaning {
            let sealed = self.all.len() as u64 / SEGMENT * SEGMENT;
            let (mut keys, mut end) = (map(room), self.compacted);
            for (&at, record) in self.left.range(self.compacted..sealed) {
                if record
                    .key
                    .is_some_and(|key| !keys.note(&[key], Offset::new(at)))
                {
                    break;
                }
                end = at + 1;
            }
            if self.left.range(end..sealed).next().is_none() {
                end = sealed.max(self.compacted);
            }
            Cleaning {
                keys: Arc::new(keys),
                end: Offset::new(end),
                compacted: Offset::new(self.compacted),
                tombstones_before: Some(Timestamp::from_millis(self.now - AGE)),
            }
        }

        fn pass(&mut self, room: usize, swapped: usize) {
            let cleaning = self.cleaning(room);
            let end = cleaning.end.get();
            let segments = end.div_ceil(SEGMENT) as usize;
            for segment in (0..segments as u64).take(swapped) {
                let range = segment * SEGMENT..(segment + 1) * SEGMENT;
                let goes = |at: u64, record: &Stored| {
                    let key = record.key.map(|key| [key]);
                    let keyed = Keyed {
                        at: Offset::new(at),
                        appended: Timestamp::from_millis(record.appended),
                        key: key.as_ref().map(|key| &key[..]),
                        is_empty: record.deletes,
                    };
                    cleaning.judge(&keyed).is_some()
                };
                self.left
                    .retain(|&at, record| !range.contains(&at) || !goes(at, record));
            }
            if swapped >= segments {
                self.compacted = self.compacted.max(end);
            }
        }

        fn run(&mut self, step: &Step) {
            match *step {
                Step::Publish { key, deletes } => {
                    let record = Stored {
                        key,
                        deletes,
                        appended: self.now,
                    };
                    self.left.insert(self.all.len() as u64, record);
                    self.all.push(record);
                }
                Step::Pass { keys, swapped } => self.pass(keys, swapped),
                Step::Discard(by) => {
                    self.start = (self.start + by).min(self.all.len() as u64);
                    self.left = self.left.split_off(&self.start);
                }
                Step::Rest(by) => self.now += by,
            }
        }

        /// What a reader is promised, whoever it is and wherever it begins.
        fn check(&self) -> Result<(), TestCaseError> {
            let mut newest: BTreeMap<u8, u64> = BTreeMap::new();
            for (at, record) in (0_u64..).zip(&self.all) {
                if let Some(key) = record.key {
                    newest.insert(key, at);
                }
                let without_key = record.key.is_none() && at >= self.start;
                prop_assert!(!without_key || self.left.contains_key(&at));
            }
            for (key, at) in newest.into_iter().filter(|(_, at)| *at >= self.start) {
                let of_key = self.left.iter().filter(|(_, r)| r.key == Some(key));
                let last = of_key.map(|(at, _)| *at).next_back();
                let record = self.all[at as usize];
                let is_over = record.deletes && record.appended < self.now - AGE;
                match last {
                    Some(last) => prop_assert_eq!(
                        last,
                        at,
                        "the newest of {} is gone, an older one is not",
                        key
                    ),
                    None => prop_assert!(is_over, "all of {} are gone", key),
                }
            }
            for (&at, record) in self.left.range(..self.compacted) {
                let again = self
                    .left
                    .range(at + 1..self.compacted)
                    .any(|(_, r)| r.key == record.key);
                prop_assert!(
                    record.key.is_none() || !again,
                    "{} twice below {}",
                    at,
                    self.compacted
                );
            }
            Ok(())
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn whatever_happens_the_newest_of_each_key_is_read(steps in prop::collection::vec(step(), 0..80)) {
            let mut model = Model::default();
            for step in &steps {
                model.run(step);
                model.check()?;
            }
        }
    }
}
