//! Thinned and hollow batches, and those with a time to live, in a real store: readers and tools against a model.

use std::io::Cursor;
use std::time::Duration;

use super::*;
use crate::limits;
use crate::protocol::batch::{
    BatchBuilder, CheckedBatch, Compression, Origin, RecordToSend, Removed, Thin, hollow, thin,
};
use crate::protocol::data::{Fetch, FetchItem, Fetched};
use crate::store::offline::tdx::{
    ExportInfo, ExportWriter, ExportedBatch, ExportedTopic, Section, TopicTotals,
};
use crate::store::tests::fetch;
use crate::time::Timestamp;
use crate::types::{GapReason, Generation, LeaderEpoch, PeerId};

/// What an offset has: its value, or why there is none.
type Told = Result<Vec<u8>, GapReason>;

/// A topic as it should be read.
#[derive(Default)]
struct Model {
    /// What is stored.
    stored: Vec<Told>,
    /// What readers get: less, where a time to live is over.
    told: Vec<Told>,
    times: Vec<Timestamp>,
    batches: Vec<ExportedBatch>,
}

const REASONS: [GapReason; 3] = [GapReason::Compacted, GapReason::Expired, GapReason::Purged];

/// A batch of a publisher.
fn plain(values: &[Vec<u8>], how: Compression, ttl: Option<Duration>) -> CheckedBatch {
    let mut builder = BatchBuilder::new(how);
    for value in values {
        let record = RecordToSend {
            timestamp: Timestamp::from_millis(7),
            key: Some(b"key"),
            headers: &[],
            value,
        };
        builder.try_push(&record).expect("it fits");
    }
    let origin = Origin {
        ttl,
        ..Origin::default()
    };
    let built = builder.build_as(&origin).expect("records");
    CheckedBatch::check(built, limits::MESSAGE_BYTES_MAX).expect("sound")
}

impl Model {
    /// Batches out of which much was taken, over some minutes that ended an hour ago.
    fn new(random: &mut Random) -> Self {
        let mut model = Self::default();
        let begin = Timestamp::now().before(Duration::from_secs(2 * 3600));
        for n in 0..120 {
            let time = begin.after(Duration::from_secs(n / 3));
            model.push(random, time);
        }
        model
    }

    fn push(&mut self, random: &mut Random, time: Timestamp) {
        let base = self.stored.len() as u64;
        let how = [Compression::None, Compression::Lz4, Compression::Zstd];
        let how = how[random.below(3) as usize];
        // Of the first batch something stays: otherwise the start would move, at some time while it is read.
        let is_first = self.batches.is_empty();
        let over = random.below(4) == 0 && !is_first;
        let ttl = match (over, random.below(3)) {
            (true, _) => Some(Duration::from_millis(1)),
            (false, 0) => Some(Duration::from_secs(10 * 24 * 3600)),
            (false, _) => None,
        };
        let count = 1 + random.below(30);
        let values: Vec<Vec<u8>> = (0..count).map(|n| value(9, base + n, 40)).collect();
        let batch = plain(&values, how, ttl);
        let one_of = match is_first {
            true => u64::MAX,
            false => [1, 2, 5, u64::MAX][random.below(4) as usize],
        };
        let gone: Vec<Option<GapReason>> = (0..count)
            .map(|_| (random.below(one_of) == 0).then(|| REASONS[random.below(3) as usize]))
            .collect();
        let leading = match random.below(5) {
            0 => vec![Removed {
                count: 3,
                reason: GapReason::Purged,
            }],
            _ => Vec::new(),
        };
        let thinned = thin(&leading, &batch, |at, _| gone[at as usize]).expect("sound");
        let bytes = match thinned {
            Thin::Whole => batch.bytes().clone(),
            Thin::Rest { batch, .. } => batch,
            Thin::Nothing { holes, .. } => hollow(&holes, batch.header()).expect("some"),
        };
        let holes = leading.iter().map(|hole| (hole.count, hole.reason));
        for (count, reason) in holes {
            for _ in 0..count {
                self.stored.push(Err(reason));
                self.told.push(Err(reason));
            }
        }
        for (value, gone) in values.into_iter().zip(gone) {
            let stored = gone.map_or(Ok(value), Err);
            let is_over = over && stored.is_ok();
            self.stored.push(stored.clone());
            self.told.push(match is_over {
                true => Err(GapReason::Expired),
                false => stored,
            });
        }
        self.times.resize(self.stored.len(), time);
        self.batches.push(ExportedBatch {
            base: Offset::new(base),
            epoch: LeaderEpoch::new(1),
            append_time: time,
            batch: bytes,
        });
    }

    fn export(&self) -> Vec<u8> {
        let records = self.stored.iter().filter(|told| told.is_ok()).count();
        let bytes = self.batches.iter().map(|batch| batch.batch.len() as u64);
        let info = ExportInfo {
            created: Timestamp::now(),
            peer: PeerId::from_bytes([1; 16]),
            peer_name: "alder".to_owned(),
            program: "a test".to_owned(),
            topics: 1,
        };
        let topic = ExportedTopic {
            id: TopicId::from_bytes([2; 16]),
            name: name("thin"),
            epoch: LeaderEpoch::new(1),
            created: Timestamp::from_millis(1),
            settings: TopicSettings::default(),
            start: Offset::ZERO,
            end: Offset::new(self.stored.len() as u64),
            generation: Generation::default(),
            last_append: self.times.last().copied(),
            gaps: Vec::new(),
        };
        let totals = TopicTotals {
            subscriptions: 0,
            batches: self.batches.len() as u64,
            records: records as u64,
            bytes: bytes.sum(),
        };
        let mut writer = ExportWriter::new(Vec::new()).expect("memory");
        let batches = self.batches.iter().cloned().map(Section::Batch);
        let sections = [Section::Export(info), Section::Topic(topic)];
        let sections = sections.into_iter().chain(batches);
        for section in sections.chain([Section::TopicEnd(totals)]) {
            writer.section(&section).expect("memory");
        }
        writer.finish(1).expect("memory")
    }

    /// What an answer says, against what it should say from `from` on.
    fn check(&self, fetched: &Fetched, from: u64) {
        let mut at = from;
        let mut last = None;
        for item in &fetched.items {
            match item {
                FetchItem::Gap(gap) => {
                    assert_eq!(gap.from.get(), at, "nothing is left out");
                    assert_ne!(last, Some(gap.reason), "neighbouring gaps are one");
                    for offset in at..gap.to.get() {
                        assert_eq!(self.told[offset as usize], Err(gap.reason), "{offset}");
                    }
                    at = gap.to.get();
                    last = Some(gap.reason);
                }
                FetchItem::Batch(stored) => {
                    last = None;
                    let base = stored.base_offset.get();
                    assert!(base == at || (at == from && base < at), "{base} at {at}");
                    let batch = stored.batch.clone();
                    let batch = CheckedBatch::check(batch, limits::MESSAGE_BYTES_MAX);
                    let batch = batch.expect("what a publisher could have sent");
                    let mut end = base;
                    for record in batch.records().expect("sound") {
                        let record = record.expect("sound").value.to_vec();
                        assert_eq!(self.told[end as usize], Ok(record), "{end}");
                        assert_eq!(stored.append_time, self.times[end as usize]);
                        end += 1;
                    }
                    assert!(end > at, "a batch of what was read before");
                    at = end;
                }
            }
        }
        assert_eq!(fetched.next_offset.get(), at);
        assert!(at > from, "an answer says something");
    }
}

/// The store, from a file that holds what the model says.
fn store_of(model: &Model) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let imported = import(&options(dir.path()), Cursor::new(model.export()));
    imported.expect("imported");
    dir
}

#[tokio::test]
async fn readers_get_plain_batches_and_gaps_wherever_they_begin() {
    let seed = 20_261_126;
    let mut random = Random::new(seed);
    let model = Model::new(&mut random);
    let dir = store_of(&model);
    let (store, _) = open(dir.path());
    let id = store.id_of(&name("thin")).expect("there");
    for from in 0..model.told.len() as u64 {
        for max_bytes in [1, 300, 4_000, 1 << 20] {
            let asked = Fetch {
                max_bytes,
                ..fetch(id, from)
            };
            let fetched = store.fetch(asked).await.expect("it can be read");
            model.check(&fetched, from);
            let batches = fetched.items.iter().filter_map(|item| match item {
                FetchItem::Batch(stored) => Some(stored.batch.len()),
                FetchItem::Gap(_) => None,
            });
            let (bytes, count) = batches.fold((0, 0), |(sum, n), bytes| (sum + bytes, n + 1));
            assert!(bytes <= max_bytes as usize || count == 1, "seed {seed}");
        }
    }
    let mut times: Vec<i64> = model.times.iter().map(|time| time.as_millis()).collect();
    times.dedup();
    for time in times.iter().flat_map(|time| [time - 1, *time, time + 1]) {
        let time = Timestamp::from_millis(time);
        let expected = model.times.partition_point(|at| *at < time);
        let found = store.find_offset(name("thin"), Position::Time(time)).await;
        assert_eq!(found.expect("found").offset.get(), expected as u64);
    }
    let there = model.stored.iter().enumerate();
    let there: Vec<usize> = there
        .filter(|(_, told)| told.is_ok())
        .map(|(n, _)| n)
        .collect();
    for back in 1..=there.len() + 3 {
        let expected = there.len().checked_sub(back).map_or(0, |nth| there[nth]);
        let place = Position::Back(back as u64);
        let found = store.find_offset(name("thin"), place).await.expect("found");
        assert_eq!(found.offset.get(), expected as u64, "{back} from the end");
    }
    store.stop().expect("a clean stop");
}

#[tokio::test]
async fn tools_know_thinned_batches() {
    let mut random = Random::new(7);
    let model = Model::new(&mut random);
    let dir = store_of(&model);
    let found = contents(dir.path());
    let found = &found.topics["thin"];
    let mut gaps: Vec<(u64, u64, String)> = Vec::new();
    for (offset, told) in (0..).zip(&model.stored) {
        match (told, gaps.last_mut()) {
            (Ok(value), _) => assert_eq!(&found.records[&offset].1, value),
            (Err(reason), Some(last)) if last.1 == offset && last.2 == reason.to_string() => {
                last.1 += 1;
            }
            (Err(reason), _) => gaps.push((offset, offset + 1, reason.to_string())),
        }
    }
    assert_eq!(found.missing, gaps);
    let verified = verify(dir.path()).expect("verified");
    assert!(verified.is_sound(), "{:#?}", verified.findings);

    let checked = tdx::check(&model.export()[..]).expect("sound");
    let thinned = checked.topics[0].thinned;
    let missing = model.stored.iter().filter(|told| told.is_err()).count();
    assert_eq!(thinned.removed, missing as u64);
    assert!(thinned.has_ttl && thinned.end.get() <= model.stored.len() as u64);

    // What is exported is what was imported, and makes the same store again.
    let mut exported = Vec::new();
    let wanted = ExportOptions {
        topics: vec![name("thin")],
        pass_damage: false,
    };
    let summary = export(dir.path(), &wanted, &mut exported).expect("exported");
    let records = model.stored.iter().filter(|told| told.is_ok()).count();
    assert_eq!(summary[0].totals.records, records as u64);
    let other = tempfile::tempdir().expect("a scratch directory");
    import(&options(other.path()), Cursor::new(&exported)).expect("imported");
    assert_eq!(&contents(other.path()).topics["thin"], found);

    // From a part of the offsets on, in the middle of holes.
    for (from, to) in [(17, 40), (100, 101), (333, 700)] {
        let range = DumpOptions {
            topic: Some(name("thin")),
            from: Some(Offset::new(from)),
            to: Some(Offset::new(to)),
        };
        let mut at = from;
        dump(dir.path(), &range, &mut |item| {
            let (begins, ends) = match item {
                Dumped::Record { offset, .. } => (offset.get(), offset.get() + 1),
                Dumped::Missing { gap, .. } => (gap.from.get(), gap.to.get()),
            };
            assert_eq!(begins, at);
            at = ends;
            Ok(())
        })
        .expect("a dump");
        assert_eq!(at, to);
    }
}

/// Where `needle` lies in a file of the journal.
fn find(dir: &Path, needle: &[u8]) -> (PathBuf, usize) {
    let found = files(&dir.join("journal"))
        .into_iter()
        .find_map(|(path, bytes)| {
            let at = bytes.windows(needle.len()).position(|part| part == needle);
            at.map(|at| (path, at))
        });
    found.expect("it was imported")
}

/// Damage of what says which records are gone is damage of the batch: told, and never taken for other holes.
#[tokio::test]
async fn a_changed_byte_in_the_holes_is_found() {
    let mut random = Random::new(11);
    let model = Model::new(&mut random);
    let thinned = model.batches.iter().filter(|batch| {
        let checked = CheckedBatch::check_stored(batch.batch.clone(), limits::MESSAGE_BYTES_MAX);
        checked.expect("sound").header().thinned.is_some()
    });
    for batch in thinned.take(3) {
        let dir = store_of(&model);
        let (path, at) = find(dir.path(), &batch.batch);
        let mut bytes = std::fs::read(&path).expect("a file");
        bytes[at + batch.batch.len().min(66) - 1] ^= 1;
        std::fs::write(&path, bytes).expect("written");
        let verified = verify(dir.path()).expect("verified");
        let [finding] = &verified.findings[..] else {
            panic!("{:#?}", verified.findings);
        };
        assert_eq!(finding.offsets.map(|(from, _)| from), Some(batch.base));
        let (store, _) = open(dir.path());
        let id = store.id_of(&name("thin")).expect("there");
        let asked = Fetch {
            pass_damage: true,
            ..fetch(id, batch.base.get())
        };
        let fetched = store.fetch(asked).await.expect("an answer");
        let FetchItem::Gap(gap) = &fetched.items[0] else {
            panic!("{fetched:?}");
        };
        assert_eq!(gap.reason, GapReason::Damaged);
        store.stop().expect("a clean stop");
    }
}
