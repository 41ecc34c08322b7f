//! Random lives of two topics from which single records go, compacted, expired or purged, beside a model of them.
//!
//! Real is what decides and what writes: the survey, the sieve, thinned batches, purges, counts and rows, and what
//! readers are told. In the place of the disk stand lists of entries, of clocks a number, and of the threads a step that
//! is done, left lying, or given up. After each step every offset is told as the model has it.

mod copies;
mod disk;
mod model;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use bytes::Bytes;

use self::disk::{Disk, Reading};
use super::*;
use crate::journal::{CheckedEntry, EntryHeader, EntryKind, Extent, StoredEntry};
use crate::protocol::batch::{Origin, Piece};
use crate::store::cold::may_be_thinned;
use crate::store::copying::Ended;
use crate::store::lifetimes::Moments;
use crate::store::retention::removed_in;
use crate::store::shared::Purges;
use crate::store::sieve::{Sieve, Sifted, Sifting};
use crate::store::survey::{Found, Run, Source, Surveying, Take, find, moments, runs_of};
use crate::store::told::told;
use crate::topic::tests::worlds::{self, Random, Seen, World};
use crate::topic::{BatchFacts, Row, RowChange, RowKey, State, Topic, TopicRow};
use crate::types::Compaction;

const TOPICS: [TopicId; 2] = [TopicId::from_bytes([1; 16]), TopicId::from_bytes([2; 16])];
const EPOCH: LeaderEpoch = LeaderEpoch::new(1);

fn index(id: TopicId) -> usize {
    usize::from(id != TOPICS[0])
}

fn time(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis)
}

/// A pass that was read.
struct Pass {
    topic: usize,
    found: Found,
    left: BTreeSet<u64>,
    model: model::Pass,
}

/// A copy that has not taken its sources' place yet.
struct Copied {
    sources: Vec<u64>,
    outputs: Vec<Vec<StoredEntry>>,
    sifted: Vec<Sifted>,
    /// What goes by the model.
    gone: Vec<(usize, u64, GapReason)>,
}

/// What a crash leaves.
struct Saved {
    disk: Disk,
    rows: Vec<(Vec<u8>, Vec<u8>)>,
    model: [model::Topic; 2],
}

struct Thinning {
    random: Random,
    now: i64,
    is_trusted: bool,
    disk: Disk,
    state: State,
    model: [model::Topic; 2],
    pass: Option<Pass>,
    copied: Option<Copied>,
    saved: Saved,
    seen: Seen,
}

fn rows(state: &State) -> Vec<(Vec<u8>, Vec<u8>)> {
    let keys = state.all_keys().into_iter();
    let row = |key: RowKey| Some((key.encode(), state.row(&key)?.encode()));
    let mut rows: Vec<_> = keys.filter_map(row).collect();
    rows.sort();
    rows
}

fn purges_of(topic: &Topic) -> Purges {
    topic.purges.iter().map(|(n, purge)| (*n, *purge)).collect()
}

impl Thinning {
    fn topic(&self, index: usize) -> &Topic {
        self.state.topic(TOPICS[index]).expect("it is there")
    }

    fn topic_mut(&mut self, index: usize) -> &mut Topic {
        self.state.topic_mut(TOPICS[index]).expect("it is there")
    }

    fn below(&mut self, n: u64) -> u64 {
        self.random.below(n)
    }

    fn any(&mut self) -> usize {
        // The first one mostly: a topic is compacted by what it got since.
        usize::from(self.random.one_in(3))
    }

    fn trusted(&self) -> Option<i64> {
        self.is_trusted.then_some(self.now)
    }

    fn any_key(&mut self) -> Vec<u8> {
        // An empty key is one.
        match self.below(7) {
            0 => Vec::new(),
            n => format!("key {n}").into_bytes(),
        }
    }

    // --- operations --------------------------------------------------------------

    fn publish(&mut self) {
        let (which, now) = (self.any(), self.now);
        let how = [Compression::None, Compression::Lz4, Compression::Zstd];
        let how = how[self.below(16).saturating_sub(13) as usize];
        let lives = self.random.one_in(4).then(|| 1 + self.below(150));
        let count = 1 + self.below(6);
        let base = self.model[which].end();
        let stored = self.topic(which).append_time(time(now)).as_millis();
        let mut builder = BatchBuilder::new(how);
        for at in base..base + count {
            let key = (!self.random.one_in(8)).then(|| self.any_key());
            let value = match self.below(4) {
                0 => Vec::new(),
                n => format!("{which} {at} {now} {}", "more ".repeat(n as usize * 3)).into_bytes(),
            };
            let record = model::Record {
                key,
                value,
                sent: now - self.below(20) as i64,
                stored,
                over: lives.map(|lives| stored + lives as i64),
                batch: base,
                gone: None,
            };
            let to_send = RecordToSend {
                timestamp: time(record.sent),
                key: record.key.as_deref(),
                headers: &[],
                value: &record.value,
            };
            builder.try_push(&to_send).expect("it fits");
            self.model[which].records.push(record);
        }
        let origin = Origin {
            ttl: lives.map(Duration::from_millis),
            ..Origin::default()
        };
        let payload = builder.build_as(&origin).expect("it builds");
        self.append(which, (base, count as u32), payload, time(stored));
        let row = &mut self.topic_mut(which).row;
        row.thinned.has_ttl |= lives.is_some();
    }

    fn append(&mut self, which: usize, range: (u64, u32), payload: Bytes, stored: Timestamp) {
        let (base, records) = range;
        let facts = BatchFacts {
            count: records,
            bytes: payload.len() as u64,
            ..BatchFacts::default()
        };
        let topic = self.topic_mut(which);
        let admitted = topic.admit(EPOCH, &facts).expect("admitted");
        let expected = crate::topic::Admission::Append(Offset::new(base));
        assert_eq!(admitted, expected);
        topic.appended(&facts, Offset::new(base), stored);
        let crc = payload.first_chunk().map(|crc| u32::from_le_bytes(*crc));
        let header = EntryHeader {
            kind: EntryKind::Records,
            payload_bytes: payload.len() as u32,
            payload_crc: crc.expect("a batch has a header"),
            topic: TOPICS[which],
            number: base,
            epoch: EPOCH,
            records,
            append_time: stored,
        };
        self.disk.open.push(StoredEntry {
            position: 0,
            header,
            payload,
        });
        if self.disk.open.len() >= 6 {
            self.disk.seal();
        }
    }

    fn pass_time(&mut self) {
        self.now += self.below(60) as i64;
        match self.below(12) {
            0 => self.now -= self.below(200) as i64,
            1 => self.is_trusted = false,
            _ => self.is_trusted = true,
        }
    }

    /// The start moves, whatever made it.
    fn discard(&mut self) {
        let which = self.any();
        let (start, end) = (self.model[which].start, self.model[which].end());
        let most = match self.below(12) {
            0 => end - start,
            _ => (end - start) / 4,
        };
        let to = start + self.below(most + 1);
        let entries = self.disk.of(TOPICS[which], Offset::new(start));
        let removed = |entry: &&StoredEntry| removed_in(entry, Offset::new(start), Offset::new(to));
        let removed: u64 = entries.iter().map(removed).sum();
        let stays = entries.iter().filter(|e| e.header.end_number() > to);
        let bytes = stays.map(|e| u64::from(e.header.payload_bytes)).sum();
        let topic = self.topic_mut(which);
        let moved = topic.advance_start(Offset::new(to), bytes);
        assert_eq!(moved, to > start);
        if moved {
            topic.pass_removed(removed);
            self.seen.note("discarded");
        }
        self.model[which].start = to;
    }

    fn purge(&mut self) {
        let (which, key) = (self.any(), self.any_key());
        let (now, salt) = (time(self.now), [self.below(250) as u8; 16]);
        let number = self.topic_mut(which).purge_key((&key, salt), now);
        let end = self.model[which].end();
        let number = number.expect("few are under way");
        self.model[which].purges.insert(number, (key, end));
    }

    /// Compaction is set on and off, and how long deletions are kept.
    fn set(&mut self) {
        let which = self.any();
        // A copy that is on its way may take away what is to stay by then.
        let on = self.copied.is_none() && !self.random.one_in(3);
        let age = [0, 30, 100, 500][self.below(4) as usize];
        self.topic_mut(which).row.settings.compaction = Compaction {
            on,
            tombstone_age_ms: Some(age),
        };
        let model = &mut self.model[which];
        (model.compacts, model.tombstone_age) = (on, age as i64);
    }

    // --- passes --------------------------------------------------------------------

    /// What is to be done next of a pass, as the reclaimer has it done.
    fn go_on(&mut self) {
        if self.copied.is_some() {
            return self.swap();
        }
        let Some(pass) = &mut self.pass else {
            return self.begin();
        };
        let is_purge = pass.found.verdict.purges.is_some();
        if !is_purge && !self.model[pass.topic].compacts {
            self.pass = None;
            return;
        }
        let sealed = &self.disk.sealed;
        pass.left.retain(|number| sealed.contains_key(number));
        let left: Vec<u64> = pass.left.iter().copied().collect();
        match left.is_empty() {
            true => self.finish(),
            false => {
                let some = 1 + self.below(left.len().min(3) as u64) as usize;
                self.copy(left[..some].to_vec());
            }
        }
    }

    fn begin(&mut self) {
        let which = self.any();
        let purges = purges_of(self.topic(which));
        let is_purge = !purges.is_empty() && self.random.one_in(2);
        if !is_purge && !self.model[which].compacts {
            return;
        }
        let purged_to = purges.iter().map(|(_, purge)| purge.end).max();
        let is_open = |entry: &StoredEntry| {
            entry.header.topic == TOPICS[which]
                && Some(Offset::new(entry.header.number)) < purged_to
        };
        if is_purge && self.disk.open.iter().any(is_open) {
            self.disk.seal();
        }
        let room = 1 + self.below(9) as usize;
        let sealed = self.disk.sealed_end(TOPICS[which]);
        let now = self.trusted();
        let topic = self.topic(which);
        let age = topic.row.settings.compaction.tombstone_age();
        let compacted = topic.row.thinned.compacted;
        let what = Surveying {
            topic: topic.id,
            segments: self.disk.sealed.keys().copied().collect(),
            compacted,
            end: match purged_to {
                Some(end) if is_purge => end,
                _ => Offset::new(sealed).max(compacted),
            },
            tombstones_before: now.map(|now| time(now).before(age)),
            keys_max: room,
            purges: is_purge.then(|| purges.clone()),
        };
        let runs = self.disk.runs(topic.id, &what.segments);
        let disk = &self.disk;
        let Ok(found) = find(&mut Reading { disk, topic }, &what, &runs) else {
            panic!("nothing is damaged");
        };
        let model = match is_purge {
            true => model::Pass::default(),
            false => self.model[which].pass(sealed, room, now),
        };
        self.check_found(which, &found, &model);
        let left = found.segments.iter().copied().collect();
        self.pass = Some(Pass {
            topic: which,
            found,
            left,
            model,
        });
    }

    /// What was found is what goes by the model, and lies there.
    fn check_found(&mut self, which: usize, found: &Found, pass: &model::Pass) {
        let (model, is_purge) = (&self.model[which], found.verdict.purges.is_some());
        let start = Offset::new(model.start);
        let mut segments = BTreeSet::new();
        for (number, entries) in &self.disk.sealed {
            for entry in entries {
                let header = &entry.header;
                if header.topic != TOPICS[which] || header.end_number() <= start.get() {
                    continue;
                }
                let goes = |at: u64| match is_purge {
                    true => model.is_there(at) && model.is_purged(at),
                    false => pass.doomed.contains(&at),
                };
                if (header.number..header.end_number()).any(goes) {
                    segments.insert(*number);
                }
            }
        }
        let of_found: BTreeSet<u64> = found.segments.iter().copied().collect();
        assert_eq!(of_found, segments, "where something goes");
        if is_purge {
            self.seen.note("purge read");
            return;
        }
        let end = found.end.get();
        let fits = pass.end.0 <= end && end <= pass.end.1;
        assert!(fits, "clean up to {end}, not {:?}", pass.end);
        let tombstones = pass.tombstones.map(time);
        assert_eq!(found.tombstones, tombstones, "the newest deletion left");
        self.seen.note("pass read");
        if pass.end.1 < self.disk.sealed_end(TOPICS[which]) {
            self.seen.note("keys without room");
        }
    }

    fn finish(&mut self) {
        let Some(pass) = self.pass.take() else { return };
        let Found {
            end,
            tombstones,
            verdict,
            ..
        } = pass.found;
        let model = &mut self.model[pass.topic];
        let mut of_topic = model.start..model.end();
        if let Some(purges) = verdict.purges {
            for (number, _) in purges.iter() {
                let (key, end) = model.purges.remove(number).expect("under way");
                let is_left = |at: u64| {
                    at < end
                        && model.is_there(at)
                        && model.records[at as usize].key == Some(key.clone())
                };
                assert_eq!(of_topic.clone().find(|at| is_left(*at)), None, "purged");
                let topic = self.state.topic_mut(TOPICS[pass.topic]);
                topic.expect("there").purges.remove(number);
            }
            return self.seen.note("purge finished");
        }
        let left = of_topic.find(|at| pass.model.doomed.contains(at) && model.is_there(*at));
        assert_eq!(left, None, "it was to go (C5)");
        model.compacted = model.compacted.max(end.get());
        self.topic_mut(pass.topic).cleaned(end, tombstones);
        self.seen.note("pass finished");
    }

    // --- crashes -------------------------------------------------------------------

    fn sync(&mut self) {
        self.saved = Saved {
            disk: self.disk.clone(),
            rows: rows(&self.state),
            model: self.model.clone(),
        };
    }

    /// Only what was durable is left: entries and rows.
    fn crash(&mut self) {
        self.pass = None;
        self.copied = None;
        self.disk = self.saved.disk.clone();
        self.model = self.saved.model.clone();
        let mut state = super::subscribing::empty_state();
        for (key, value) in &self.saved.rows {
            let key = RowKey::decode(key).expect("a key");
            let row = Some(Row::decode(&key, value).expect("a row"));
            state.apply(RowChange { key, row });
        }
        assert_eq!(rows(&state), self.saved.rows);
        self.state = state;
        self.seen.note("crashed");
    }

    // --- what is seen ----------------------------------------------------------------

    fn check(&self) {
        for which in 0..TOPICS.len() {
            self.check_topic(which);
            self.model[which].check();
        }
    }

    fn check_topic(&self, which: usize) {
        let (topic, model) = (self.topic(which), &self.model[which]);
        let (row, now) = (&topic.row, self.trusted());
        assert_eq!((row.start.get(), row.end.get()), (model.start, model.end()));
        assert_eq!(row.records(), model.count(), "{:?} (C6)", row.thinned);
        assert_eq!(row.thinned.compacted.get(), model.compacted);
        let entries = self.disk.of(topic.id, row.start);
        let bytes = entries.iter().map(|e| u64::from(e.header.payload_bytes));
        assert_eq!(row.bytes, bytes.sum::<u64>(), "bytes (C6)");
        let purges = purges_of(topic);
        let mut at = entries.first().map_or(model.end(), |e| e.header.number);
        assert!(at <= model.start || entries.is_empty(), "it begins at {at}");
        for entry in entries {
            assert_eq!(entry.header.number, at, "a hole, or the wrong order");
            let pieces = told(entry, &purges, || now.map(time)).expect("sound");
            for piece in &pieces {
                at = self.check_piece(which, entry, (piece, at));
            }
            let is_thinned = CheckedBatch::check_crc(entry.payload.clone());
            let is_thinned = is_thinned.expect("sound").header().thinned.is_some();
            assert!(
                !is_thinned || at <= row.thinned.end.get(),
                "thinned to {at}"
            );
            assert_eq!(entry.header.end_number(), at, "what the entry spans");
        }
        assert_eq!(at, model.end(), "nothing is missing at the end");
    }

    /// Holds a piece that begins at an offset against the model; where it ends.
    fn check_piece(&self, which: usize, entry: &StoredEntry, (piece, at): (&Piece, u64)) -> u64 {
        let (model, now) = (&self.model[which], self.trusted());
        match piece {
            Piece::Gap(gap) => {
                assert_eq!(gap.from.get(), at, "{gap:?}");
                for at in at.max(model.start)..gap.to.get() {
                    let told = model.told(at, now).map(|record| record.batch);
                    assert_eq!(told, Err(gap.reason), "{at}");
                }
                assert!(gap.to > gap.from);
                gap.to.get()
            }
            Piece::Batch(base, bytes) => {
                assert_eq!(base.get(), at);
                let batch = CheckedBatch::check(bytes.clone(), limits::MESSAGE_BYTES_MAX);
                let batch = batch.expect("as publishers send them");
                let mut end = at;
                for record in batch.records().expect("records") {
                    let record = record.expect("a record");
                    if end >= model.start {
                        let expected = model.told(end, now).expect("it is there");
                        assert_eq!(record.key.as_deref(), expected.key.as_deref(), "{end}");
                        assert_eq!(record.value, expected.value, "{end}");
                        assert_eq!(record.timestamp.as_millis(), expected.sent, "{end}");
                        let stored = entry.header.append_time.as_millis();
                        assert_eq!(stored, expected.stored, "{end}");
                        let ttl = batch.ttl().map(|ttl| stored + ttl.as_millis() as i64);
                        assert_eq!(ttl, expected.over, "{end}");
                    }
                    end += 1;
                }
                end
            }
        }
    }

    /// What is taken for over in a segment is over, and all of that where it is little.
    fn look(&mut self) {
        let now = self.now;
        let all: Vec<u64> = self.disk.sealed.keys().copied().collect();
        let Some(number) = self.random.of(&all).copied() else {
            return;
        };
        for which in 0..TOPICS.len() {
            let (topic, disk) = (self.topic(which), &self.disk);
            let mut found = Vec::new();
            let runs = disk.runs(topic.id, &[number]);
            moments(&mut Reading { disk, topic }, &runs, &mut found);
            let over = |entry: &&StoredEntry| {
                let is_live = entry.header.end_number() > self.model[which].start;
                let mut records = entry.header.number..entry.header.end_number();
                let is_over = |at: u64| {
                    let record = &self.model[which].records[at as usize];
                    record.gone.is_none() && record.over.is_some_and(|over| over <= now)
                };
                entry.header.topic == topic.id && is_live && records.any(is_over)
            };
            let over = disk.sealed[&number].iter().filter(over);
            let over: u64 = over.map(|e| u64::from(e.header.entry_bytes())).sum();
            assert_eq!(Moments::new(found).over(time(now)), over);
        }
    }
}

impl World for Thinning {
    const STEPS: u64 = 400;
    const WANTED: &'static [&'static str] = &[
        "discarded",
        "pass read",
        "keys without room",
        "pass finished",
        "purge read",
        "purge finished",
        "compacted",
        "deletion compacted",
        "expired",
        "purged",
        "swap refused",
        "copied for another reason",
        "given up half way",
        "crashed",
    ];

    fn new(mut random: Random) -> Self {
        let mut state = super::subscribing::empty_state();
        let mut model = [model::Topic::default(), model::Topic::default()];
        for (which, id) in TOPICS.into_iter().enumerate() {
            let age = [0, 30, 100, 500][random.below(4) as usize];
            let on = which == 0 || random.one_in(2);
            let settings = TopicSettings {
                compaction: Compaction {
                    on,
                    tombstone_age_ms: Some(age),
                },
                ..TopicSettings::default()
            };
            let row = TopicRow::new(name(["a", "b"][which]), EPOCH, settings, time(0));
            state.create_topic(id, row).expect("made");
            (model[which].compacts, model[which].tombstone_age) = (on, age as i64);
        }
        let saved = Saved {
            disk: Disk::default(),
            rows: rows(&state),
            model: model.clone(),
        };
        Self {
            random,
            now: 1_000_000,
            is_trusted: true,
            disk: Disk::default(),
            state,
            model,
            pass: None,
            copied: None,
            saved,
            seen: Seen::default(),
        }
    }

    fn step(&mut self) {
        match self.below(100) {
            0..32 => self.publish(),
            32..40 => self.pass_time(),
            40..44 => self.disk.seal(),
            44..48 => self.discard(),
            48 => self.purge(),
            49 => self.set(),
            50..80 => self.go_on(),
            80..86 => self.copy_some(),
            86 => self.free(),
            87 => self.give_up(),
            88 if self.random.one_in(3) => self.crash(),
            89..92 => self.look(),
            92..97 => self.sync(),
            _ => {}
        }
        self.check();
    }

    fn seen(&self) -> Option<&Seen> {
        Some(&self.seen)
    }
}

#[test]
fn of_topics_that_are_thinned_that_is_left_which_the_model_has() {
    worlds::walk::<Thinning>(6_000);
}
