//! Kills of real servers under real clients.
//!
//! `peers`: the peer is killed at random moments while 8 publishers and two durable subscribers go
//! on; nobody tells them. In the end every acknowledged message is at its offset, each message is
//! there at most once, a publisher's messages are in its order, and no committed offset moved back.
//!
//! `index`: the index server is killed the same way while topics are made and deleted through it,
//! and some times its whole directory goes too. Acknowledged topics are found again, deleted ones
//! are not, and publishers that know their peer notice nothing.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tidings::client::{
    Ack, Client, ClientError, ConnectOptions, Delivery, Message, NewTopic, PublisherOptions,
    SubscriberOptions,
};
use tidings::limits;
use tidings::protocol::api::{Position, TopicChanges};
use tidings::types::{Durability, Retention, SubscriptionName, TopicId, TopicName, TopicSettings};

use super::Options;
use super::server::Server;
use crate::run::disk;
use crate::words::{Dice, mix};

pub const PUBLISHERS: u64 = 8;
/// The last of them is an `os` topic.
pub const TOPICS: u64 = 5;
const UNANSWERED: usize = 300;
/// How long the index believes a silent peer to be there.
const LEASE: &str = "2s";
pub const PATIENCE: Duration = Duration::from_secs(60);

pub type Outcome<T> = Result<T, String>;

pub fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

pub fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// By offset: publisher and number.
pub type Records = BTreeMap<u64, (u64, u64)>;

/// What reading a topic brought.
#[derive(Default)]
pub struct Found {
    pub records: Records,
    /// First and last of what is missing.
    gaps: Vec<(u64, u64)>,
    /// Up to where it was read.
    pub end: u64,
}

impl Found {
    /// Whether readers were told that it is missing.
    pub fn is_told_missing(&self, offset: u64) -> bool {
        let mut gaps = self.gaps.iter();
        gaps.any(|(from, to)| (*from..*to).contains(&offset))
    }
}

/// How the load is put on.
#[derive(Debug, Clone)]
pub struct Pressure {
    /// Without progress for so long, clients give up.
    pub timeout: Duration,
    /// Each publisher rests so long after some messages.
    pub rest: Duration,
    /// The second topic keeps records for so long.
    pub age: Option<Duration>,
}

impl Default for Pressure {
    fn default() -> Self {
        Self {
            timeout: limits::NO_PROGRESS_TIMEOUT_DEFAULT,
            rest: Duration::ZERO,
            age: None,
        }
    }
}

/// Messages between two rests.
const BURST: u64 = 20;

/// What publishers and subscribers were told.
#[derive(Default)]
pub struct Told {
    /// By topic, then offset: publisher and number.
    pub acknowledged: BTreeMap<TopicName, Records>,
    /// Numbers nobody knows about.
    pub unknown: BTreeSet<(TopicName, u64, u64)>,
    committed: BTreeMap<TopicName, u64>,
    /// A sync failed on purpose.
    pub may_lose_os: bool,
    wrong: Option<String>,
}

pub struct Load {
    pub client: Client,
    pub told: Mutex<Told>,
    stop: AtomicBool,
    rest: Duration,
    pub answered: AtomicU64,
    /// Messages by publisher, as far as they were taken.
    pub sent: [AtomicU64; PUBLISHERS as usize],
    /// Acknowledgements by publisher.
    pub acked: [AtomicU64; PUBLISHERS as usize],
    /// What subscribers got.
    pub delivered: [AtomicU64; TOPICS as usize],
    /// Topics the publishers send to.
    pub names: Vec<TopicName>,
}

fn topic_name(text: &str) -> TopicName {
    text.parse().expect("a good name")
}

impl Load {
    async fn new(index: &str, pressure: &Pressure) -> Outcome<Arc<Self>> {
        let seeds = vec![index.parse().map_err(text)?];
        let options = ConnectOptions::new(seeds).with_timeout(pressure.timeout);
        let client = Client::connect(options).await.map_err(text)?;
        let names: Vec<TopicName> = (0..TOPICS).map(|n| topic_name(&format!("k.{n}"))).collect();
        for (n, name) in names.iter().enumerate() {
            let os = n as u64 == TOPICS - 1;
            let age = pressure.age.filter(|_| n == 1);
            let new = NewTopic {
                settings: TopicSettings {
                    retention: Retention {
                        age_ms: age.map(|age| age.as_millis() as u64),
                        ..Retention::default()
                    },
                    durability: if os {
                        Durability::Os
                    } else {
                        Durability::Fsync
                    },
                    ..TopicSettings::default()
                },
                ..NewTopic::new(name.clone())
            };
            client.create_topic(&new).await.map_err(text)?;
        }
        Ok(Arc::new(Self {
            client,
            told: Mutex::default(),
            stop: AtomicBool::new(false),
            rest: pressure.rest,
            answered: AtomicU64::new(0),
            sent: Default::default(),
            acked: Default::default(),
            delivered: Default::default(),
            names,
        }))
    }

    /// Whether the last topic is meant, which may lose what a sync does not cover.
    pub fn is_os(&self, topic: &TopicName) -> bool {
        *topic == self.names[(TOPICS - 1) as usize]
    }

    /// Messages of `fsync` topics that were acknowledged.
    pub fn acked_durably(&self) -> u64 {
        let is_os = |publisher: &usize| *publisher as u64 % TOPICS == TOPICS - 1;
        let publishers = (0..self.acked.len()).filter(|publisher| !is_os(publisher));
        publishers
            .map(|publisher| self.acked[publisher].load(Ordering::Relaxed))
            .sum()
    }

    pub fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn wrong(&self, what: String) {
        lock(&self.told).wrong.get_or_insert(what);
    }

    pub fn check(&self) -> Outcome<()> {
        lock(&self.told).wrong.clone().map_or(Ok(()), Err)
    }

    async fn publish(self: Arc<Self>, publisher: u64) {
        let topic = self.names[(publisher % TOPICS) as usize].clone();
        let made = self
            .client
            .publisher(&topic, PublisherOptions::default())
            .await;
        let handle = match made {
            Ok(handle) => handle,
            Err(error) => return self.wrong(format!("publisher {publisher}: {error}")),
        };
        let mut waiting: VecDeque<(u64, Ack)> = VecDeque::new();
        let mut number = 0;
        while !self.stopped() {
            let padding = (mix(number) % 400) as usize;
            let value = format!("{publisher} {number} {}", "x".repeat(padding));
            match handle.send(Message::new(value)).await {
                Ok(ack) => waiting.push_back((number, ack)),
                Err(error) => self.wrong(format!("publisher {publisher}: {error}")),
            }
            number += 1;
            self.sent[publisher as usize].store(number, Ordering::Relaxed);
            if !self.rest.is_zero() && number % BURST == 0 {
                tokio::time::sleep(self.rest).await;
            }
            while waiting.len() >= UNANSWERED
                || waiting.front().is_some_and(|(_, ack)| ack.is_settled())
            {
                let Some((number, ack)) = waiting.pop_front() else {
                    break;
                };
                self.note(&topic, publisher, number, ack.await);
            }
        }
        for (number, ack) in waiting {
            let outcome = ack.await;
            self.note(&topic, publisher, number, outcome);
        }
    }

    fn note(
        &self,
        topic: &TopicName,
        publisher: u64,
        number: u64,
        outcome: Result<tidings::client::Acked, ClientError>,
    ) {
        self.answered.fetch_add(1, Ordering::Relaxed);
        let mut told = lock(&self.told);
        match outcome {
            Ok(acked) => {
                self.acked[publisher as usize].fetch_add(1, Ordering::Relaxed);
                let offsets = told.acknowledged.entry(topic.clone()).or_default();
                let before = offsets.insert(acked.offset.get(), (publisher, number));
                if let Some(before) = before {
                    let offset = acked.offset;
                    told.wrong = Some(format!(
                        "J6: {topic} {offset}: acknowledged to {before:?} and to {publisher}, {number}"
                    ));
                }
            }
            Err(ClientError::OutcomeUnknown { .. }) => {
                told.unknown.insert((topic.clone(), publisher, number));
            }
            Err(error) => told.wrong = Some(format!("publisher {publisher}, {number}: {error}")),
        }
    }

    /// Reads through a durable subscription and commits now and then.
    async fn subscribe(self: Arc<Self>, topic: TopicName) {
        let name: SubscriptionName = "reader".parse().expect("a good name");
        let options = SubscriberOptions::durable(name, Some(Position::Beginning));
        let mut subscriber = match self.client.subscriber(&topic, options).await {
            Ok(subscriber) => subscriber,
            Err(error) => return self.wrong(format!("subscriber of {topic}: {error}")),
        };
        let at = self.names.iter().position(|name| *name == topic);
        let delivered = &self.delivered[at.unwrap_or(0)];
        let mut next = 0;
        while !self.stopped() {
            let delivery = match subscriber.next_within(Duration::from_millis(100)).await {
                Ok(Some(delivery)) => delivery,
                Ok(None) => continue,
                Err(error) => return self.wrong(format!("subscriber of {topic}: {error}")),
            };
            delivered.fetch_add(1, Ordering::Relaxed);
            match delivery {
                Delivery::Record(record) if record.offset.get() == next => next += 1,
                Delivery::Gap(gap) if gap.from.get() == next => next = gap.to.get(),
                other => {
                    return self.wrong(format!("J9: subscriber of {topic} at {next}: {other:?}"));
                }
            }
            if next % 64 == 0 {
                match subscriber.commit().await {
                    Ok(offset) => {
                        _ = lock(&self.told)
                            .committed
                            .insert(topic.clone(), offset.get())
                    }
                    Err(error) => return self.wrong(format!("commit on {topic}: {error}")),
                }
            }
        }
    }

    /// Committed offsets are not behind what was answered.
    pub async fn check_committed(&self) -> Outcome<()> {
        let known = lock(&self.told).committed.clone();
        let name: SubscriptionName = "reader".parse().expect("a good name");
        for (topic, offset) in known {
            let info = self
                .client
                .describe_subscription(&topic, &name)
                .await
                .map_err(text)?;
            if info.committed_offset.get() < offset {
                return Err(format!(
                    "{topic}: committed {offset}, found {}",
                    info.committed_offset
                ));
            }
        }
        Ok(())
    }

    /// Reads everything and compares it with what was told, and with what was seen before.
    async fn check_all(&self, seen: &BTreeMap<TopicName, Records>) -> Outcome<(u64, u64)> {
        let (mut found, mut lost) = (0, 0);
        for topic in &self.names {
            let all = self.read(topic, Position::Beginning).await?;
            found += all.records.len() as u64;
            lost += self.check_topic(topic, &all)?;
            for (offset, before) in seen.get(topic).into_iter().flatten() {
                self.check_again(topic, (*offset, before), &all)?;
            }
        }
        Ok((found, lost))
    }

    /// J6: an offset has one content for ever; only an `os` topic may lose it.
    fn check_again(
        &self,
        topic: &TopicName,
        (offset, before): (u64, &(u64, u64)),
        all: &Found,
    ) -> Outcome<()> {
        let now = all.records.get(&offset);
        let lost = now.is_none() && self.is_os(topic) && all.is_told_missing(offset);
        if now == Some(before) || lost {
            return Ok(());
        }
        Err(format!(
            "J6: {topic} {offset}: {before:?} was read before, now {now:?}"
        ))
    }

    /// Everything from there on to the present end.
    pub async fn read(&self, topic: &TopicName, from: Position) -> Outcome<Found> {
        let info = self.client.describe_topic(topic).await.map_err(text)?;
        let end = info.info.map_err(text)?.end_offset;
        let options = SubscriberOptions::passing(from);
        let mut subscriber = self.client.subscriber(topic, options).await.map_err(text)?;
        let os = self.is_os(topic);
        let mut found = Found {
            end: end.get(),
            ..Found::default()
        };
        while subscriber.position() < end {
            match subscriber.next().await.map_err(text)? {
                Delivery::Record(record) => {
                    let value = String::from_utf8_lossy(&record.value).into_owned();
                    let mut words = value.split(' ').map(|word| word.parse::<u64>());
                    match (words.next(), words.next()) {
                        (Some(Ok(publisher)), Some(Ok(number))) => {
                            found
                                .records
                                .insert(record.offset.get(), (publisher, number));
                        }
                        _ => return Err(format!("{topic} {}: {value:?}", record.offset)),
                    }
                }
                Delivery::Gap(gap) if os => found.gaps.push((gap.from.get(), gap.to.get())),
                Delivery::Gap(gap) => return Err(format!("J1: {topic}: {gap:?}")),
            }
        }
        Ok(found)
    }

    /// J1: at this offset is what was acknowledged. False: it was lost as an `os` topic may lose it, with a
    /// sync that failed, and readers are told so.
    pub fn check_acked(
        &self,
        topic: &TopicName,
        (offset, sent): (u64, &(u64, u64)),
        all: &Found,
        may_lose_os: bool,
    ) -> Outcome<bool> {
        let found = all.records.get(&offset);
        if found == Some(sent) {
            return Ok(true);
        }
        if may_lose_os && self.is_os(topic) && all.is_told_missing(offset) {
            return Ok(false);
        }
        Err(format!(
            "J1: {topic} {offset}: acknowledged to {sent:?}, found {found:?}"
        ))
    }

    /// Everything of a topic is as it was acknowledged; tells how much of an `os` topic is not.
    fn check_topic(&self, topic: &TopicName, all: &Found) -> Outcome<u64> {
        let told = lock(&self.told);
        let empty = BTreeMap::new();
        let acknowledged = told.acknowledged.get(topic).unwrap_or(&empty);
        let mut excused = BTreeSet::new();
        for (offset, sent) in acknowledged {
            if !self.check_acked(topic, (*offset, sent), all, told.may_lose_os)? {
                excused.insert(*sent);
            }
        }
        let mut next: BTreeMap<u64, u64> = BTreeMap::new();
        for (offset, &(publisher, number)) in &all.records {
            let expected = next.entry(publisher).or_default();
            if number < *expected {
                return Err(format!(
                    "{topic} {offset}: {publisher} has {number} again or late, after {expected}"
                ));
            }
            let skipped = (*expected..number).find(|n| {
                !told.unknown.contains(&(topic.clone(), publisher, *n))
                    && !excused.contains(&(publisher, *n))
            });
            if let Some(skipped) = skipped {
                return Err(format!(
                    "{topic} {offset}: {publisher} {skipped} is missing"
                ));
            }
            *expected = number + 1;
        }
        Ok(excused.len() as u64)
    }
}

/// Everything one program needs.
pub struct Stage {
    pub dir: PathBuf,
    pub index: Server,
    pub peer: Server,
    pub load: Arc<Load>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Stage {
    async fn set(name: &str, seed: u64) -> Outcome<Self> {
        let dir = Self::clear(name, seed)?;
        Self::set_in(dir, None, &Pressure::default()).await
    }

    /// An empty directory for it.
    pub fn clear(name: &str, seed: u64) -> Outcome<PathBuf> {
        let dir = disk().join(format!("{name}-{seed:x}"));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).map_err(text)?;
        Ok(dir)
    }

    /// With this library in front of both servers, if one is named.
    pub async fn set_in(dir: PathBuf, shim: Option<&Path>, pressure: &Pressure) -> Outcome<Self> {
        let index = Server::new("index", &dir, &["--lease", LEASE], shim)?;
        let more = [
            "--name",
            "p",
            "--heartbeat",
            "200ms",
            "--slot-size",
            "1MiB",
            "--message-max",
            "64KiB",
            "--reserve",
            "0",
            "--index",
            &index.listen,
        ];
        let peer = Server::new("peer", &dir, &more, shim)?;
        let load = Load::new(&index.listen, pressure).await?;
        let mut tasks = Vec::new();
        for publisher in 0..PUBLISHERS {
            tasks.push(tokio::spawn(load.clone().publish(publisher)));
        }
        for topic in [0, TOPICS - 1] {
            let topic = load.names[topic as usize].clone();
            tasks.push(tokio::spawn(load.clone().subscribe(topic)));
        }
        Ok(Self {
            dir,
            index,
            peer,
            load,
            tasks,
        })
    }

    /// Ends the load and compares everything.
    async fn strike(self) -> Outcome<String> {
        self.end(&BTreeMap::new()).await
    }

    /// The same; what was `seen` before is still there, or was an `os` topic's.
    pub async fn end(self, seen: &BTreeMap<TopicName, Records>) -> Outcome<String> {
        self.load.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            let ended = tokio::time::timeout(PATIENCE, task).await;
            ended
                .map_err(|_| "a publisher or subscriber does not end")?
                .map_err(text)?;
        }
        self.load.check()?;
        let (found, lost) = self.load.check_all(seen).await?;
        let told = lock(&self.load.told);
        let acknowledged: usize = told.acknowledged.values().map(BTreeMap::len).sum();
        let report = format!(
            "{acknowledged} messages acknowledged, {} unknown, {found} found",
            told.unknown.len()
        );
        drop(told);
        let _ = fs::remove_dir_all(&self.dir);
        Ok(match lost {
            0 => report,
            lost => format!("{report}, {lost} of the `os` topic lost with a sync and told"),
        })
    }
}

pub fn in_runtime<T>(work: impl Future<Output = Outcome<T>>) -> Outcome<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    runtime.map_err(text)?.block_on(work)
}

/// The peer is killed.
pub fn peers(options: Options) -> Outcome<String> {
    in_runtime(async {
        let mut dice = Dice(options.seed);
        let mut stage = Stage::set("peers", options.seed).await?;
        for round in 0..options.rounds {
            tokio::time::sleep(Duration::from_millis(20 + dice.below(500))).await;
            stage.peer.kill()?;
            stage.peer.start()?;
            let checked = async {
                stage.load.check_committed().await?;
                stage.load.check()
            };
            checked
                .await
                .map_err(|why| format!("round {round}: {why}; kept in {}", stage.dir.display()))?;
        }
        let dir = stage.dir.clone();
        let report = stage
            .strike()
            .await
            .map_err(|why| format!("{why}; kept in {}", dir.display()))?;
        Ok(format!("{} kills of the peer, {report}", options.rounds))
    })
}

/// Topics made and deleted through an index that comes and goes.
#[derive(Default)]
struct Directory {
    there: BTreeMap<TopicName, TopicId>,
    gone: BTreeSet<TopicName>,
}

async fn change_topics(load: Arc<Load>, directory: Arc<Mutex<Directory>>, round: u64) {
    let mut dice = Dice(round);
    let mut n = 0;
    while !load.stopped() {
        let known: Vec<TopicName> = lock(&directory).there.keys().cloned().collect();
        if known.len() > 40 || (known.len() > 5 && dice.percent(30)) {
            let Some(name) = dice.pick(&known).cloned() else {
                continue;
            };
            // Whatever is answered: it is not certain to be there any more.
            lock(&directory).there.remove(&name);
            if load.client.delete_topic(&name).await.is_ok() {
                lock(&directory).gone.insert(name);
            }
        } else {
            n += 1;
            let name = topic_name(&format!("made.{round}.{n}"));
            match load.client.create_topic(&NewTopic::new(name.clone())).await {
                Ok(made) => _ = lock(&directory).there.insert(name, made.topic.id),
                // It may be there or not.
                Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    }
}

/// Every topic that was made is found, every one that was deleted is not, soon.
async fn check_directory(load: &Load, known: &Directory) -> Outcome<()> {
    let start = Instant::now();
    loop {
        let mut why = None;
        for (name, id) in &known.there {
            match load.client.lookup(name).await {
                Ok(found) if found.id == *id => {}
                other => why = Some(format!("{name} of id {id}: {other:?}")),
            }
        }
        for name in &known.gone {
            match load.client.lookup(name).await {
                Err(ClientError::Api(error)) if error.name() == "TopicNotFound" => {}
                other => why = Some(format!("deleted {name}: {other:?}")),
            }
        }
        match why {
            None => return Ok(()),
            Some(why) if start.elapsed() > Duration::from_secs(10) => return Err(why),
            Some(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

/// The index server is killed; every seventh time its directory is lost.
pub fn index(options: Options) -> Outcome<String> {
    in_runtime(async {
        let mut dice = Dice(options.seed);
        let mut stage = Stage::set("index", options.seed).await?;
        let (mut lost, mut checked) = (0, 0);
        for round in 0..options.rounds {
            let directory: Arc<Mutex<Directory>> = Arc::default();
            let stop = stage.load.clone();
            let changing = tokio::spawn(change_topics(stop, directory.clone(), round));
            tokio::time::sleep(Duration::from_millis(50 + dice.below(400))).await;
            stage.index.kill()?;
            changing.abort();
            if round % 7 == 6 {
                fs::remove_dir_all(stage.dir.join("index")).map_err(text)?;
                lost += 1;
            }
            let before = stage.load.answered.load(Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(dice.below(300))).await;
            stage.index.start()?;
            let _ = changing.await;
            let known = std::mem::take(&mut *lock(&directory));
            checked += known.there.len() + known.gone.len();
            let outcome = async {
                check_directory(&stage.load, &known).await?;
                for name in known.there.keys() {
                    stage.load.client.delete_topic(name).await.map_err(text)?;
                }
                let changes = TopicChanges::default();
                stage
                    .load
                    .client
                    .set_topic(&stage.load.names[0], changes)
                    .await
                    .map_err(text)?;
                if stage.load.answered.load(Ordering::Relaxed) == before {
                    return Err("publishers stood still while there was no index".to_owned());
                }
                stage.load.check()
            };
            outcome
                .await
                .map_err(|why| format!("round {round}: {why}; kept in {}", stage.dir.display()))?;
        }
        let report = stage.strike().await?;
        Ok(format!(
            "{} kills of the index, {lost} with its directory, {checked} topics looked up, {report}",
            options.rounds
        ))
    })
}
