//! A store that compacts a topic all the time, killed at one call after the other.
//!
//! What a record holds follows from its offset, so whoever reads needs no memory of what was published: keys come
//! again and again, some of them as deletions. Demanded is, after each death and after the life behind it: no offset
//! unexplained, no record with other bytes, every acknowledged record there or compacted, of each key the newest
//! one there (a deletion may be gone, and then all before it are), the topic beside it untouched.

use std::collections::HashMap;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tidings::limits;
use tidings::protocol::batch::{BatchBuilder, CheckedBatch, Compression, RecordToSend};
use tidings::protocol::data::{Fetch, FetchItem};
use tidings::store::{NewTopic, Store, StoreOptions};
use tidings::time::Timestamp;
use tidings::types::{
    Compaction, GapReason, LeaderEpoch, Offset, ProducerId, Sequence, TopicId, TopicSettings,
};

use super::Options;
use crate::disk::calls_made;
use crate::run::{memory, shim};
use crate::words::{Dice, mix};

const EPOCH: LeaderEpoch = LeaderEpoch::new(1);
/// Records of a batch.
const BATCH: u64 = 150;
/// Batches that a life publishes to each topic.
const BATCHES: u64 = 40;
/// Keys there are.
const KEYS: u64 = 700;
/// How long a life waits for a pass after its last batch.
const PASS_WITHIN: Duration = Duration::from_secs(3);

/// The topic that is compacted, and one that is not.
const TOPICS: [(&str, TopicId); 2] = [
    ("keyed", TopicId::from_bytes([7; 16])),
    ("beside", TopicId::from_bytes([8; 16])),
];

/// The key and the payload of a record, empty for a deletion.
fn record(topic: TopicId, at: u64) -> (u64, Vec<u8>) {
    let salt = mix(at ^ u64::from(topic.to_bytes()[0]) << 40);
    let key = salt % KEYS;
    let value = match (salt >> 32) % 12 {
        0 => Vec::new(),
        length => format!("{at} {salt}").repeat(length as usize).into_bytes(),
    };
    (key, value)
}

/// `reclaim`: whether it compacts; whoever compares does not want anything to change meanwhile.
fn open(dir: &Path, reclaim: bool) -> Result<Store, String> {
    let options = StoreOptions {
        slot_bytes: 1 << 20,
        reserve_bytes: Some(0),
        tail_cache_bytes: 4 * limits::MIB,
        reclaim,
        reclaim_every: Duration::from_millis(3),
        ..StoreOptions::new(dir)
    };
    let opened = Store::open(&options).map_err(|error| format!("it does not open: {error}"))?;
    Ok(opened.0)
}

fn runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let built = builder.worker_threads(2).enable_all().build();
    built.expect("a runtime")
}

// --- the process that is killed ----------------------------------------------

/// Its whole life: publishes, says what was acknowledged, waits for a pass, and ends without a word.
pub fn live(dir: &str) {
    let store = match open(Path::new(dir), true) {
        Ok(store) => store,
        Err(why) => return println!("wrong {why}"),
    };
    runtime().block_on(work(&store));
    std::process::exit(0);
}

async fn work(store: &Store) {
    for (name, id) in TOPICS {
        let compaction = Compaction {
            on: name == "keyed",
            tombstone_age_ms: Some(1_000),
        };
        let made = store.create_topic(NewTopic {
            name: name.parse().expect("a name"),
            id,
            epoch: EPOCH,
            settings: TopicSettings {
                compaction,
                ..TopicSettings::default()
            },
        });
        // It is there from the life before.
        let _ = made.await;
    }
    for _ in 0..BATCHES {
        for (name, id) in TOPICS {
            if let Err(why) = publish(store, name, id).await {
                return println!("wrong {why}");
            }
        }
    }
    let begun = Instant::now();
    while store.figures().reclaimed.compactions == 0 && begun.elapsed() < PASS_WITHIN {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    println!("passes {}", store.figures().reclaimed.compactions);
}

async fn publish(store: &Store, name: &str, id: TopicId) -> Result<(), String> {
    let info = store.describe_topic(name.parse().expect("a name")).await;
    let first = info.map_err(|error| error.to_string())?.end_offset.get();
    let mut builder = BatchBuilder::new(match first / BATCH % 3 {
        0 => Compression::None,
        1 => Compression::Lz4,
        _ => Compression::Zstd,
    });
    for at in first..first + BATCH {
        let (key, value) = record(id, at);
        let record = RecordToSend {
            timestamp: Timestamp::from_millis(1),
            key: Some(&key.to_le_bytes()),
            headers: &[],
            value: &value,
        };
        builder.try_push(&record).expect("it fits");
    }
    let built = builder.build(ProducerId::zero(), Sequence::ZERO);
    let batch = CheckedBatch::check(built.expect("records"), limits::MESSAGE_BYTES_MAX);
    let published = store.publish(id, EPOCH, batch.expect("sound")).await;
    let published = published.map_err(|error| error.to_string())?;
    if published.base_offset.get() != first {
        return Err(format!("{name}: {first} became {}", published.base_offset));
    }
    println!("acked {name} {}", first + BATCH);
    let flushed = std::io::stdout().flush();
    flushed.map_err(|error| error.to_string())
}

// --- the one that looks ---------------------------------------------------------

/// What lives have said: the acknowledged ends, and how many passes came to their end.
#[derive(Debug, Clone, Default)]
struct Heard {
    ends: HashMap<String, u64>,
    passes: u64,
}

impl Heard {
    /// Lives one life; with a number it dies at that call.
    fn life(&mut self, dir: &Path, log: Option<&Path>, kill: Option<u64>) -> Result<(), String> {
        let mut command = Command::new(std::env::current_exe().expect("this program has a path"));
        command.arg("keyed").arg(dir).stdin(Stdio::null());
        if let Some(shim) = shim().filter(|_| log.is_some() || kill.is_some()) {
            command.env("LD_PRELOAD", shim).env("SHIM_DIR", dir);
        }
        if let Some(log) = log {
            command.env("SHIM_LOG", log);
        }
        if let Some(number) = kill {
            command.env("SHIM_KILL", number.to_string());
            command.env("SHIM_TORN", (number % 2).to_string());
        }
        let ended = command.output().expect("it starts");
        let errors = String::from_utf8_lossy(&ended.stderr);
        if errors.contains("panicked") {
            return Err(format!("it panicked: {errors}"));
        }
        for line in String::from_utf8_lossy(&ended.stdout).lines() {
            let words: Vec<&str> = line.split(' ').collect();
            match words[..] {
                ["acked", name, end] => {
                    let end = end.parse().map_err(|_| line.to_owned())?;
                    self.ends.insert(name.to_owned(), end);
                }
                ["passes", count] => self.passes += count.parse::<u64>().unwrap_or(0),
                // Death cuts a line.
                _ if !line.starts_with("wrong") => {}
                _ => return Err(line.to_owned()),
            }
        }
        Ok(())
    }
}

/// Reads everything back; how many records were compacted away.
fn check(dir: &Path, heard: &Heard) -> Result<u64, String> {
    let store = open(dir, false)?;
    let gone = runtime().block_on(async {
        let mut gone = 0;
        for (name, id) in TOPICS {
            let acked = heard.ends.get(name).copied().unwrap_or(0);
            gone += check_topic(&store, (name, id), acked).await?;
        }
        Ok::<u64, String>(gone)
    })?;
    store.stop().map_err(|error| error.to_string())?;
    Ok(gone)
}

async fn check_topic(
    store: &Store,
    (name, id): (&str, TopicId),
    acked: u64,
) -> Result<u64, String> {
    let info = store.describe_topic(name.parse().expect("a name")).await;
    let info = match info {
        Ok(info) => info,
        Err(_) if acked == 0 => return Ok(0),
        Err(error) => return Err(format!("{name}: {error}")),
    };
    let end = info.end_offset.get();
    if end < acked || info.start_offset != Offset::ZERO || info.quarantined {
        return Err(format!("{name}: {acked} were acknowledged, found {info:?}"));
    }
    let there = read(store, (name, id), end).await?;
    let records = there.iter().filter(|is_there| **is_there).count() as u64;
    let counted = end - info.removed;
    if records != counted {
        return Err(format!("{name}: {records} records, it counts {counted}"));
    }
    let mut newest: HashMap<u64, u64> = HashMap::new();
    for at in 0..end {
        newest.insert(record(id, at).0, at);
    }
    for at in 0..end {
        let (key, _) = record(id, at);
        let last = newest[&key];
        let is_deletion = record(id, last).1.is_empty();
        let is_gone = |at: u64| !there[at as usize];
        if is_gone(last) && (!is_deletion || !is_gone(at)) {
            return Err(format!(
                "{name}: of key {key} offset {last} is gone, and {at} is looked at"
            ));
        }
    }
    Ok(end - records)
}

/// Which offsets have a record; each that has one has the right one.
async fn read(store: &Store, (name, id): (&str, TopicId), end: u64) -> Result<Vec<bool>, String> {
    let mut there = Vec::new();
    while (there.len() as u64) < end {
        let at = there.len() as u64;
        let fetch = Fetch {
            topic: id,
            epoch: EPOCH,
            offset: Offset::new(at),
            max_bytes: 200 << 10,
            min_bytes: 1,
            max_wait_ms: 0,
            pass_damage: false,
        };
        let fetched = store.fetch(fetch).await;
        let fetched = fetched.map_err(|error| format!("{name} at {at}: {error}"))?;
        for item in fetched.items {
            take(item, (name, id), &mut there)?;
        }
        if there.len() as u64 != fetched.next_offset.get() || there.len() as u64 == at {
            return Err(format!("{name} at {at}: next is {}", fetched.next_offset));
        }
    }
    Ok(there)
}

fn take(item: FetchItem, (name, id): (&str, TopicId), there: &mut Vec<bool>) -> Result<(), String> {
    let at = there.len() as u64;
    match item {
        FetchItem::Gap(gap) => {
            let is_so = gap.reason == GapReason::Compacted && name == "keyed";
            if gap.from.get() != at || !is_so {
                return Err(format!("{name} at {at}: {gap:?}"));
            }
            there.resize(gap.to.get() as usize, false);
        }
        FetchItem::Batch(stored) => {
            let base = stored.base_offset.get();
            let batch = CheckedBatch::check(stored.batch, limits::MESSAGE_BYTES_MAX);
            let records = batch.and_then(|batch| batch.records());
            let records = records.map_err(|error| format!("{name} at {base}: {error}"))?;
            for (offset, found) in (base..).zip(records) {
                let found = found.map_err(|error| format!("{name} at {offset}: {error}"))?;
                let (key, value) = record(id, offset);
                let is_it =
                    found.key.as_deref() == Some(&key.to_le_bytes()) && found.value == value;
                if !is_it {
                    return Err(format!("{name} at {offset}: another record"));
                }
                if offset >= at {
                    if offset != there.len() as u64 {
                        return Err(format!("{name} at {offset}: {} was next", there.len()));
                    }
                    there.push(true);
                }
            }
        }
    }
    Ok(())
}

/// Kills a compacting store at calls spread over its life.
pub fn run(options: Options) -> Result<String, String> {
    if shim().is_none() {
        return Ok("skipped, nothing can be killed at a call here".to_owned());
    }
    let scratch = memory().join(format!("compaction-{:x}", options.seed));
    let _ = fs::remove_dir_all(&scratch);
    let (grown, dir) = (scratch.join("grown"), scratch.join("store"));
    fs::create_dir_all(&grown).expect("a scratch directory");
    let failed = |why: String, round: u64| {
        format!(
            "compaction failed in round {round}: {why}\nkept in {}",
            scratch.display()
        )
    };
    let mut past = Heard::default();
    for _ in 0..2 {
        past.life(&grown, None, None)
            .map_err(|why| failed(why, 0))?;
    }
    copy(&grown, &dir);
    let log = scratch.join("calls");
    let mut heard = past.clone();
    heard
        .life(&dir, Some(&log), None)
        .map_err(|why| failed(why, 0))?;
    let all = calls_made(&log) + 20;
    let (mut gone, mut passes) = (
        check(&dir, &heard).map_err(|why| failed(why, 0))?,
        heard.passes,
    );
    let mut dice = Dice(options.seed);
    for round in 1..=options.rounds {
        copy(&grown, &dir);
        let mut heard = past.clone();
        // Evenly spread, each a little elsewhere in every run.
        let each = (all / options.rounds).max(1);
        let number = 1 + ((round - 1) * each + dice.below(each)) % all;
        let lived = heard.life(&dir, None, Some(number)).and_then(|()| {
            if dice.below(4) == 0 {
                let _ = fs::remove_dir_all(dir.join("catalog"));
            }
            gone += check(&dir, &heard)?;
            heard.life(&dir, None, None)?;
            gone += check(&dir, &heard)?;
            passes += heard.passes - past.passes;
            Ok(())
        });
        lived.map_err(|why| failed(format!("killed at call {number}: {why}"), round))?;
    }
    let _ = fs::remove_dir_all(&scratch);
    let rounds = options.rounds;
    match gone > 0 && passes > 0 {
        true => Ok(format!(
            "{rounds} of some {all} calls, {passes} passes came to their end, {gone} records were found compacted"
        )),
        false => Err("nothing was ever compacted".to_owned()),
    }
}

/// A copy of a directory in the place of whatever is there.
fn copy(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    fs::create_dir_all(to).expect("a scratch directory");
    for entry in fs::read_dir(from).expect("it is there") {
        let entry = entry.expect("it can be listed");
        let to = to.join(entry.file_name());
        match entry.path().is_dir() {
            true => copy(&entry.path(), &to),
            false => _ = fs::copy(entry.path(), to).expect("copied"),
        }
    }
}
