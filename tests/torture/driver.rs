//! The process that is killed: opens a store, tells what is there, works on it until it dies.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Write as _};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tidings::limits;
use tidings::protocol::api::{Commit, Position, TopicChanges, TopicInfo};
use tidings::protocol::batch::CheckedBatch;
use tidings::protocol::data::{Fetch, FetchItem, Fetched};
use tidings::protocol::error::ApiError;
use tidings::store::{NewTopic, Store, StoreOptions, random_id};
use tidings::types::{
    Durability, GapReason, Generation, LeaderEpoch, Offset, SubscriptionName, TopicId, TopicName,
    TopicPattern, TopicSettings,
};
use tokio::sync::Semaphore;

use crate::words::{Change, Dice, End, Id, Item, Lane, Plan, Reclaimed, Said, recognise};

const EPOCH: LeaderEpoch = LeaderEpoch::new(1);
/// Batches of one lane that wait for their acknowledgement at once.
const IN_FLIGHT: usize = 4;
/// Items in one line, so that a line is one write that a pipe takes whole.
const ITEMS_PER_LINE: usize = 24;
const TOPICS_WANTED: usize = 5;
const TOPICS_MAX: usize = 9;
/// How often the driver looks what was reclaimed.
const TELL_EVERY: Duration = Duration::from_millis(5);

/// Says one line.
fn say(said: &Said) {
    let mut line = serde_json::to_string(said).expect("it has a text form");
    line.push('\n');
    let mut out = std::io::stdout().lock();
    // Nobody listens any more only if the checker is gone.
    if out
        .write_all(line.as_bytes())
        .and_then(|()| out.flush())
        .is_err()
    {
        std::process::exit(3);
    }
}

/// What is known of a topic in here.
#[derive(Debug, Clone)]
struct Known {
    id: Id,
    name: String,
    os: bool,
    retain_records: Option<u64>,
    start: u64,
    end: u64,
    quarantined: bool,
}

impl From<&TopicInfo> for Known {
    fn from(info: &TopicInfo) -> Self {
        Self {
            id: Id(info.id),
            name: info.name.to_string(),
            os: info.settings.durability == Durability::Os,
            retain_records: info.settings.retention.records,
            start: info.start_offset.get(),
            end: info.end_offset.get(),
            quarantined: info.quarantined,
        }
    }
}

struct Driver {
    store: Store,
    plan: Plan,
    topics: Mutex<BTreeMap<Id, Known>>,
    /// Next sequence of every lane.
    next: Mutex<BTreeMap<Lane, u64>>,
    /// Lanes that were refused: their sequences are not in order any more.
    closed: Mutex<BTreeSet<Lane>>,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The whole life of a driver.
pub fn main() {
    let mut input = String::new();
    std::io::stdin()
        .read_to_string(&mut input)
        .expect("a plan comes in");
    let plan: Plan = serde_json::from_str(&input).expect("a plan");
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .init();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let options = StoreOptions {
        slot_bytes: plan.slot_bytes,
        page_cache_only: plan.page_cache_only,
        reserve_bytes: Some(0),
        tail_cache_bytes: 4 * limits::MIB,
        reclaim_every: Duration::from_millis(plan.reclaim_every),
        ..StoreOptions::new(&plan.dir)
    };
    let (store, opened) = match Store::open(&options) {
        Ok(opened) => opened,
        Err(error) => return say(&Said::NotOpened(error.to_string())),
    };
    say(&Said::Opened {
        fresh: opened.fresh,
        clean: opened.clean_stop,
        torn: opened.torn,
        rebuilt: opened.rebuilt,
        from_snapshot: opened.from_snapshot,
        ms: u64::try_from(opened.took.as_millis()).expect("not that long"),
    });
    let end = plan.end;
    let driver = Arc::new(Driver::new(store, plan));
    runtime.block_on(driver.clone().live());
    match end {
        End::Abrupt => {}
        End::Idle => std::thread::sleep(2 * limits::IDLE_MARK_AFTER),
        End::Clean => say(&Said::Stopped(driver.store.stop())),
    }
    driver.tell_reclaimed(Reclaimed::default());
    // What else runs here is of no interest; the store has stopped.
    std::process::exit(0);
}

impl Driver {
    fn new(store: Store, plan: Plan) -> Self {
        let next = plan
            .next
            .iter()
            .flat_map(|(&topic, lanes)| {
                let lane = move |(&producer, &next): (&u8, &u64)| (Lane { topic, producer }, next);
                lanes.iter().map(lane)
            })
            .collect();
        Self {
            store,
            plan,
            topics: Mutex::default(),
            next: Mutex::new(next),
            closed: Mutex::default(),
        }
    }

    async fn live(self: Arc<Self>) {
        self.tell_everything().await;
        let mut tasks = tokio::task::JoinSet::new();
        for publisher in 0..self.plan.publishers {
            tasks.spawn(self.clone().publisher(publisher));
        }
        let readers: Vec<_> = (0..self.plan.readers)
            .map(|reader| tokio::spawn(self.clone().reader(reader)))
            .collect();
        tasks.spawn(self.clone().changer());
        let teller = tokio::spawn(self.clone().tell_of_reclaiming());
        while let Some(ended) = tasks.join_next().await {
            if let Err(error) = ended {
                say(&Said::Wrong(format!("a task of the driver: {error}")));
            }
        }
        readers.iter().for_each(tokio::task::JoinHandle::abort);
        teller.abort();
    }

    /// Says what was done to give space back, as soon as something more was.
    async fn tell_of_reclaiming(self: Arc<Self>) {
        let mut told = Reclaimed::default();
        loop {
            tokio::time::sleep(TELL_EVERY).await;
            told = self.tell_reclaimed(told);
        }
    }

    fn tell_reclaimed(&self, told: Reclaimed) -> Reclaimed {
        let figures = self.store.figures().reclaimed;
        let now = Reclaimed {
            snapshots: figures.snapshots,
            freed: figures.segments_freed,
            copied: figures.segments_copied,
            cold: figures.cold_segments,
            reused: figures.slots_reused,
            deleted: figures.slots_deleted,
        };
        if now != told {
            say(&Said::Reclaimed(now));
        }
        now
    }

    fn open_topics(&self) -> Vec<Known> {
        let topics = lock(&self.topics);
        topics
            .values()
            .filter(|topic| !topic.quarantined)
            .cloned()
            .collect()
    }

    /// Tells all topics, records and subscriptions as they are before anything is changed.
    async fn tell_everything(&self) {
        let page = self
            .store
            .describe_topics(TopicPattern::all(), None, 500)
            .await
            .expect("topics are described");
        for info in page.topics {
            let known = self.tell_topic(info).await;
            lock(&self.topics).insert(known.id, known);
        }
        let page = self.store.list_subscriptions(None, None, 500).await;
        for info in page.expect("subscriptions are listed").subscriptions {
            say(&Said::Subscription {
                id: Id(info.topic_id),
                name: info.name.to_string(),
                generation: info.generation.get(),
                committed: info.committed_offset.get(),
            });
        }
        say(&Said::Damage(self.store.damage()));
        say(&Said::AllFound);
    }

    /// Tells a topic and its records. Retention goes on meanwhile: when it moved the start, the topic is
    /// looked at again, so that what is told belongs together.
    async fn tell_topic(&self, mut info: TopicInfo) -> Known {
        loop {
            let known = Known::from(&info);
            let items = self.read_records(&known).await;
            let start_moved =
                |item: &Item| matches!(item, Item::Discarded(_, to) if *to > known.start);
            if items.iter().any(start_moved) {
                let again = self.store.describe_topic(info.name).await;
                info = again.expect("it is there");
                continue;
            }
            say(&Said::Topic {
                id: known.id,
                name: known.name.clone(),
                os: known.os,
                retain_records: known.retain_records,
                start: known.start,
                end: known.end,
                quarantined: known.quarantined,
            });
            for items in items.chunks(ITEMS_PER_LINE) {
                let (id, items) = (known.id, items.to_vec());
                say(&Said::Found { id, items });
            }
            return known;
        }
    }

    async fn read_records(&self, topic: &Known) -> Vec<Item> {
        let mut at = self.plan.from.get(&topic.id).copied().unwrap_or(0);
        let mut found = Vec::new();
        while at < topic.end {
            let (items, next) = match self.store.fetch(fetch(topic.id, at, 0)).await {
                Ok(fetched) => (self.items(topic.id, &fetched), fetched.next_offset.get()),
                Err(ApiError::Damaged { from, to }) if self.plan.damaged => {
                    (vec![Item::Damaged(from.get(), to.get())], to.get())
                }
                Err(error) => {
                    let id = topic.id;
                    say(&Said::Wrong(format!("reading {id:?} at {at}: {error}")));
                    break;
                }
            };
            if next <= at {
                let id = topic.id;
                say(&Said::Wrong(format!("reading {id:?} at {at} goes nowhere")));
                break;
            }
            at = next;
            found.extend(items);
        }
        found
    }

    fn items(&self, id: Id, fetched: &Fetched) -> Vec<Item> {
        let to_item = |item: &FetchItem| match item {
            FetchItem::Gap(gap) => {
                let (from, to) = (gap.from.get(), gap.to.get());
                match gap.reason {
                    GapReason::Discarded
                    | GapReason::Compacted
                    | GapReason::Expired
                    | GapReason::Purged => Item::Discarded(from, to),
                    GapReason::Lost => Item::Lost(from, to),
                    GapReason::Damaged => Item::Damaged(from, to),
                }
            }
            FetchItem::Batch(stored) => {
                let base = stored.base_offset.get();
                let found = CheckedBatch::check_crc(stored.batch.clone())
                    .map_err(|error| error.to_string())
                    .and_then(|batch| Ok((recognise(id, &batch)?, batch.header().record_count)));
                match found {
                    Ok(((lane, first), count)) => Item::Batch(base, count, lane.producer, first),
                    Err(why) => {
                        say(&Said::Wrong(format!("{id:?} at {base}: {why}")));
                        Item::Damaged(base, base + 1)
                    }
                }
            }
        };
        fetched.items.iter().map(to_item).collect()
    }

    /// Follows the ends of all topics and tells what it sees.
    async fn reader(self: Arc<Self>, reader: u8) {
        let mut dice = Dice(self.plan.seed ^ (0x0ead + u64::from(reader)));
        let mut at: BTreeMap<Id, u64> = BTreeMap::new();
        loop {
            let topics = self.open_topics();
            let Some(topic) = dice.pick(&topics) else {
                tokio::time::sleep(Duration::from_millis(1)).await;
                continue;
            };
            let from = at.get(&topic.id).copied().unwrap_or(topic.end);
            let Ok(fetched) = self.store.fetch(fetch(topic.id, from, 3)).await else {
                continue;
            };
            let items = self.items(topic.id, &fetched);
            at.insert(topic.id, fetched.next_offset.get());
            for items in items.chunks(ITEMS_PER_LINE) {
                say(&Said::Read {
                    id: topic.id,
                    items: items.to_vec(),
                });
            }
        }
    }

    /// Sends batches to topics at random, several on the way at once, those of a lane in order.
    async fn publisher(self: Arc<Self>, producer: u8) {
        let mut dice = Dice(self.plan.seed ^ (0x9b15 + u64::from(producer)));
        let window = Arc::new(Semaphore::new(IN_FLIGHT));
        let mut sent = 0;
        while sent < self.plan.batches {
            let mut topics = self.open_topics();
            topics.retain(|topic| {
                (topic.id.0.to_bytes()[0] ^ producer) & 1 == 0 || self.plan.publishers < 4
            });
            let Some(topic) = dice.pick(&topics) else {
                tokio::time::sleep(Duration::from_millis(1)).await;
                // Where there is no topic for it, it has nothing to do.
                sent += 1;
                continue;
            };
            let lane = Lane {
                topic: topic.id,
                producer,
            };
            sent += 1;
            if lock(&self.closed).contains(&lane) {
                continue;
            }
            let permit = window.clone().acquire_owned().await;
            self.send(lane, permit.expect("never closed"));
        }
        // All permits back: all are answered.
        let all = window.acquire_many(u32::try_from(IN_FLIGHT).expect("small"));
        drop(all.await.expect("never closed"));
    }

    fn send(self: &Arc<Self>, lane: Lane, permit: tokio::sync::OwnedSemaphorePermit) {
        let mut next = lock(&self.next);
        let next = next.entry(lane).or_default();
        let first = *next;
        let count = lane.count(first);
        *next += u64::from(count);
        let this = self.clone();
        let done = move |outcome: Result<tidings::protocol::data::Published, ApiError>| {
            this.answered(lane, first, count, outcome);
            drop(permit);
        };
        self.store
            .append(lane.topic.0, EPOCH, lane.batch(first), Box::new(done));
    }

    fn answered(
        &self,
        lane: Lane,
        first: u64,
        count: u32,
        outcome: Result<tidings::protocol::data::Published, ApiError>,
    ) {
        match outcome {
            Ok(published) => say(&Said::Acknowledged {
                id: lane.topic,
                producer: lane.producer,
                first,
                count,
                base: published.base_offset.get(),
                end: published.end_offset.get(),
                os: published.durability == Durability::Os,
                duplicate: published.duplicate,
            }),
            Err(error) => {
                // What was sent behind it is refused as well; one answer tells the story.
                if lock(&self.closed).insert(lane) {
                    say(&Said::Refused {
                        id: lane.topic,
                        producer: lane.producer,
                        first,
                        why: format!("{}: {error}", error.name()),
                    });
                }
            }
        }
    }

    /// Makes changes of state, one after the other, telling each before and after.
    async fn changer(self: Arc<Self>) {
        let mut dice = Dice(self.plan.seed ^ 0xc4a9);
        for _ in 0..self.plan.changes {
            let Some(change) = self.think(&mut dice).await else {
                continue;
            };
            say(&Said::Intends(change.clone()));
            if let Change::Delete { id, .. } = &change {
                // Nobody sends to it any more; what is on the way may be refused.
                lock(&self.topics).remove(id);
            }
            match self.make(&change).await {
                Ok((a, b)) => {
                    // Told first: what others do with a new topic is told after it.
                    say(&Said::Done(a, b));
                    self.follow(&change, a);
                }
                Err(error) => {
                    say(&Said::NotDone(format!("{}: {error}", error.name())));
                    // Nobody knows what became of it: one such thing at a time.
                    if matches!(error, ApiError::StorageStopped { .. }) {
                        return;
                    }
                }
            }
        }
    }

    /// A change that makes sense now.
    async fn think(&self, dice: &mut Dice) -> Option<Change> {
        let topics = self.open_topics();
        if topics.len() < TOPICS_WANTED || (topics.len() < TOPICS_MAX && dice.percent(6)) {
            let id = Id(TopicId::from_bytes(random_id()));
            return Some(Change::Create {
                id,
                name: format!("t.{id:?}"),
                os: dice.percent(35),
            });
        }
        let topic = dice.pick(&topics)?.clone();
        let (id, name) = (topic.id, topic.name.clone());
        let (delete, purge) = if self.plan.discards { (12, 18) } else { (4, 4) };
        match dice.below(100) {
            roll if roll < delete => return Some(Change::Delete { id, name }),
            roll if roll < delete + 4 => {
                let to = format!("t.{id:?}.{}", dice.below(1000));
                return Some(Change::Rename { id, name, to });
            }
            roll if roll < delete + 10 => {
                let os = topic.os ^ dice.percent(30);
                let retain_records = dice.percent(50).then(|| 50 + dice.below(400));
                return Some(Change::Set {
                    id,
                    name,
                    os,
                    retain_records,
                });
            }
            roll if roll < delete + 10 + purge => {
                let (start, end) = self.place(&name, Position::Beginning).await?;
                let most = if self.plan.discards { 1 } else { 2 };
                let to = start + dice.below((end - start) / most + 1);
                return Some(Change::Purge { id, name, to });
            }
            _ => {}
        }
        self.think_of_subscriptions(topic, dice).await
    }

    async fn place(&self, topic: &str, position: Position) -> Option<(u64, u64)> {
        let name: TopicName = topic.parse().ok()?;
        let found = self.store.find_offset(name, position).await.ok()?;
        Some((found.start_offset.get(), found.end_offset.get()))
    }

    async fn think_of_subscriptions(&self, topic: Known, dice: &mut Dice) -> Option<Change> {
        let id = topic.id;
        let name: TopicName = topic.name.parse().ok()?;
        let page = self.store.list_subscriptions(Some(name), None, 50).await;
        let subscriptions = page.ok()?.subscriptions;
        if subscriptions.is_empty() || (subscriptions.len() < 3 && dice.percent(10)) {
            return Some(Change::Subscribe {
                id,
                topic: topic.name,
                name: format!("s{}", dice.below(3)),
            });
        }
        let chosen = dice.pick(&subscriptions)?;
        let (start, end) = (chosen.start_offset.get(), chosen.end_offset.get());
        let committed = chosen.committed_offset.get().max(start);
        let name = chosen.name.to_string();
        Some(match dice.below(20) {
            0 => Change::Unsubscribe {
                id,
                topic: topic.name,
                name,
            },
            1 | 2 => Change::Seek {
                id,
                topic: topic.name,
                name,
                to: start + dice.below(end - start + 1),
            },
            _ => Change::Commit {
                id,
                name,
                generation: chosen.generation.get(),
                offset: committed + dice.below(end.saturating_sub(committed) + 1),
            },
        })
    }

    async fn make(&self, change: &Change) -> Result<(u64, u64), ApiError> {
        match change.clone() {
            Change::Create { id, name, os } => {
                let new = NewTopic {
                    name: topic_name(&name),
                    id: id.0,
                    epoch: EPOCH,
                    settings: TopicSettings {
                        durability: durability(os),
                        ..TopicSettings::default()
                    },
                };
                let made = self.store.create_topic(new).await?;
                Ok((made.start_offset.get(), made.end_offset.get()))
            }
            Change::Delete { id, name } => {
                let id = Some(id.0);
                self.store.delete_topic(topic_name(&name), id).await?;
                Ok((0, 0))
            }
            Change::Rename { name, to, .. } => {
                let names = (topic_name(&name), topic_name(&to));
                let info = self.store.rename_topic(names.0, names.1).await?;
                Ok((info.start_offset.get(), 0))
            }
            Change::Set {
                name,
                os,
                retain_records,
                ..
            } => {
                let changes = TopicChanges {
                    durability: Some(durability(os)),
                    retain_records: Some(retain_records),
                    ..TopicChanges::default()
                };
                let info = self.store.set_topic(topic_name(&name), changes).await?;
                Ok((info.start_offset.get(), 0))
            }
            Change::Purge { name, to, .. } => {
                let to = Position::Offset(Offset::new(to));
                let info = self.store.purge_topic(topic_name(&name), to).await?;
                Ok((info.start_offset.get(), 0))
            }
            other => self.make_of_subscriptions(other).await,
        }
    }

    async fn make_of_subscriptions(&self, change: Change) -> Result<(u64, u64), ApiError> {
        match change {
            Change::Subscribe { topic, name, .. } => {
                let (topic, name) = (topic_name(&topic), subscription_name(&name));
                let from = Position::Beginning;
                let made = self.store.create_subscription(topic, name, from, false);
                let made = made.await?;
                Ok((made.generation.get(), made.committed_offset.get()))
            }
            Change::Commit {
                id,
                name,
                generation,
                offset,
            } => {
                let commit = Commit {
                    topic: id.0,
                    name: subscription_name(&name),
                    generation: Generation::new(generation),
                    offset: Offset::new(offset),
                };
                let committed = self.store.commit(commit).await?;
                Ok((generation, committed.offset.get()))
            }
            Change::Seek {
                topic, name, to, ..
            } => {
                let to = Position::Offset(Offset::new(to));
                let (topic, name) = (topic_name(&topic), subscription_name(&name));
                let sought = self.store.seek(topic, name, to, false).await?;
                let found = sought.subscription;
                Ok((found.generation.get(), found.committed_offset.get()))
            }
            Change::Unsubscribe { topic, name, .. } => {
                let (topic, name) = (topic_name(&topic), subscription_name(&name));
                self.store.delete_subscription(topic, name).await?;
                Ok((0, 0))
            }
            _ => unreachable!("changes of topics are made elsewhere"),
        }
    }

    /// Keeps the driver's own list of topics up to date.
    fn follow(&self, change: &Change, start: u64) {
        let mut topics = lock(&self.topics);
        match change {
            Change::Create { id, name, os } => {
                let known = Known {
                    id: *id,
                    name: name.clone(),
                    os: *os,
                    retain_records: None,
                    start,
                    end: 0,
                    quarantined: false,
                };
                topics.insert(*id, known);
            }
            Change::Rename { id, to, .. } => {
                if let Some(topic) = topics.get_mut(id) {
                    topic.name.clone_from(to);
                }
            }
            Change::Set { id, os, .. } => {
                if let Some(topic) = topics.get_mut(id) {
                    topic.os = *os;
                }
            }
            _ => {}
        }
    }
}

fn topic_name(text: &str) -> TopicName {
    text.parse().expect("the driver makes good names")
}

fn subscription_name(text: &str) -> SubscriptionName {
    text.parse().expect("the driver makes good names")
}

fn durability(os: bool) -> Durability {
    if os {
        Durability::Os
    } else {
        Durability::Fsync
    }
}

fn fetch(topic: Id, at: u64, max_wait_ms: u32) -> Fetch {
    Fetch {
        topic: topic.0,
        epoch: EPOCH,
        offset: Offset::new(at),
        max_bytes: 256 << 10,
        min_bytes: 1,
        max_wait_ms,
        pass_damage: false,
    }
}
