//! Consumer groups whose members come, go, die and say whatever they like, while their peer is killed.
//!
//! Two topics with a group of eight members each; one group is ordered by key. A member lives for some seconds, then
//! leaves, or drops everything as a crash does; one in eight is `tidings sub --group` and ends by SIGKILL. Most records it
//! acknowledges; some it refuses, rejects, or holds until their deadline has passed. What has to hold is in `ledger`.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tidings::client::{
    Client, ConnectOptions, Delivery, Message, NewGroup, NewTopic, PublisherOptions,
    SubscriberOptions,
};
use tidings::protocol::api::{ConsumerGroupChanges, Position};
use tidings::protocol::dead::Obituary;
use tidings::types::{SubscriptionName, TopicName};
use tokio::task::JoinHandle;

use super::Options;
use super::cluster::{Outcome, PATIENCE, Stage, in_runtime, text};
use super::ledger::{Counts, Ledger, Who};
use super::member::Life;
use super::server::Server;
use crate::words::{Dice, mix};

const MEMBERS: u64 = 8;
const KEYS: u64 = 24;
/// Records of each topic in a second: well below what the members can settle, so that nothing waits for want of them.
const RECORDS_PER_SECOND: u64 = 150;
const ACK_DEADLINE: Duration = Duration::from_millis(1500);
const BACKOFF_MS: [u64; 3] = [50, 200, 500];
/// The longest that a member asks to wait before a record comes again.
pub(super) const NAK_DELAY_MS: u64 = 600;
const DELIVERIES_MAX: u32 = 6;
/// What may be had waits for no longer than this beyond its deadline and its back-off.
pub(super) const STALL: Duration = Duration::from_secs(5);

/// One topic with its group.
pub(super) struct Scene {
    pub(super) topic: TopicName,
    pub(super) group: SubscriptionName,
    dead_letters: TopicName,
    pub(super) ledger: Ledger,
    pub(super) index: String,
    client: Client,
    dir: PathBuf,
    /// Nothing more is published.
    is_full: AtomicBool,
    /// Members behave from now on.
    pub(super) is_calm: AtomicBool,
    pub(super) is_over: AtomicBool,
    lives: AtomicU64,
    pub(super) killed: AtomicU64,
}

pub fn run(options: Options) -> Outcome<String> {
    in_runtime(async {
        let dir = Stage::clear("groups", options.seed)?;
        let kept = |why: String| format!("{why}; kept in {}", dir.display());
        let told = play(&dir, &options).await.map_err(kept)?;
        let _ = std::fs::remove_dir_all(&dir);
        Ok(told)
    })
}

async fn play(dir: &Path, options: &Options) -> Outcome<String> {
    let index = Server::new("index", dir, &["--lease", "2s"], None)?;
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
    let mut peer = Server::new("peer", dir, &more, None)?;
    let mut scenes = Vec::new();
    for is_ordered in [false, true] {
        scenes.push(Scene::set(dir, &index.listen, is_ordered).await?);
    }
    let mut tasks = Vec::new();
    for scene in &scenes {
        tasks.push(tokio::spawn(scene.clone().publish()));
        tasks.push(tokio::spawn(scene.clone().follow_the_dead()));
        for member in 0..MEMBERS {
            tasks.push(tokio::spawn(scene.clone().live(member, options.seed)));
        }
    }
    let kills = disturb(&mut peer, &scenes, options).await?;
    let mut told = format!("{kills} kills and stops of the peer");
    for scene in &scenes {
        told += &format!("; {}", scene.settle().await?);
    }
    for scene in &scenes {
        scene.is_over.store(true, Ordering::Relaxed);
    }
    for task in tasks {
        let ended = tokio::time::timeout(PATIENCE, task).await;
        ended
            .map_err(|_| "a member or publisher does not end")?
            .map_err(text)?;
    }
    for scene in &scenes {
        scene.ledger.check()?;
    }
    Ok(format!("{told}; verdict: sound"))
}

/// Kills the peer, or stops it, so many times or so long.
async fn disturb(peer: &mut Server, scenes: &[Arc<Scene>], options: &Options) -> Outcome<u64> {
    let mut dice = Dice(options.seed);
    let (begun, mut round) = (Instant::now(), 0);
    let time = options.time;
    let mut calm = Instant::now();
    loop {
        let is_over = match time {
            Some(time) => begun.elapsed() >= time,
            None => round >= options.rounds,
        };
        if is_over {
            return Ok(round);
        }
        // In the long form mostly long enough for a stall to show.
        let rest = match time {
            Some(_) if dice.percent(70) => 8_000 + dice.below(12_000),
            _ => 500 + dice.below(2_500),
        };
        let until = Instant::now() + Duration::from_millis(rest);
        while Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(250)).await;
            for scene in scenes {
                scene
                    .check(calm)
                    .map_err(|why| format!("round {round}: {why}"))?;
            }
        }
        let is_kill = dice.percent(75);
        if is_kill {
            peer.kill()?;
        } else {
            peer.signal(Signal::TERM)?;
            let ended = peer.ends_within(PATIENCE).await?;
            ended.ok_or("the peer does not end")?;
        }
        tokio::time::sleep(Duration::from_millis(dice.below(400))).await;
        peer.start()?;
        calm = Instant::now();
        round += 1;
        if time.is_some() {
            let lives: Vec<String> = scenes.iter().map(|scene| scene.news()).collect();
            let how = if is_kill { "killed" } else { "stopped" };
            println!("  round {round}, {how}: {}", lives.join("; "));
        }
    }
}

impl Scene {
    async fn set(dir: &Path, index: &str, is_ordered: bool) -> Outcome<Arc<Self>> {
        let client = connect(index).await?;
        let name = if is_ordered { "g.keys" } else { "g.plain" };
        let topic: TopicName = name.parse().map_err(text)?;
        let group: SubscriptionName = "workers".parse().map_err(text)?;
        client
            .create_topic(&NewTopic::new(topic.clone()))
            .await
            .map_err(text)?;
        let new = NewGroup {
            from: Position::Beginning,
            options: ConsumerGroupChanges {
                ack_deadline_ms: Some(ACK_DEADLINE.as_millis() as u64),
                deliveries_max: Some(DELIVERIES_MAX),
                backoff_ms: Some(BACKOFF_MS.to_vec()),
                unacked_max: Some(100),
                ordered_by_key: Some(is_ordered),
                dead_letters: None,
            },
        };
        let made = client
            .create_group(&topic, &group, &new, false)
            .await
            .map_err(text)?;
        let longest = NAK_DELAY_MS.max(BACKOFF_MS[BACKOFF_MS.len() - 1]);
        let patience = ACK_DEADLINE + Duration::from_millis(longest) + STALL;
        Ok(Arc::new(Self {
            topic,
            group,
            dead_letters: made.options.dead_letters,
            ledger: Ledger::new(is_ordered, patience),
            index: index.to_owned(),
            client,
            dir: dir.to_owned(),
            is_full: AtomicBool::new(false),
            is_calm: AtomicBool::new(false),
            is_over: AtomicBool::new(false),
            lives: AtomicU64::new(0),
            killed: AtomicU64::new(0),
        }))
    }

    pub(super) fn is(&self, flag: &AtomicBool) -> bool {
        flag.load(Ordering::Relaxed)
    }

    fn check(&self, calm: Instant) -> Outcome<()> {
        let named = |why| format!("{}: {why}", self.topic);
        self.ledger.check().map_err(named)?;
        self.ledger.check_stalls(calm).map_err(named)
    }

    fn news(&self) -> String {
        let (lives, killed) = (
            self.lives.load(Ordering::Relaxed),
            self.killed.load(Ordering::Relaxed),
        );
        format!(
            "{} {lives} memberships, {killed} of them killed",
            self.topic
        )
    }

    // --- records -------------------------------------------------------------

    async fn publish(self: Arc<Self>) {
        if let Err(why) = self.try_publish().await {
            self.ledger
                .wrong(format!("publishing to {}: {why}", self.topic));
        }
    }

    async fn try_publish(&self) -> Outcome<()> {
        let publisher = self
            .client
            .publisher(&self.topic, PublisherOptions::default());
        let publisher = publisher.await.map_err(text)?;
        let burst = RECORDS_PER_SECOND / 10;
        let mut number = 0;
        while !self.is(&self.is_full) {
            let mut acks = Vec::new();
            for _ in 0..burst {
                let key = mix(number) % KEYS;
                let message = Message::new(format!("{key} {number}")).with_key(key.to_string());
                acks.push((key, publisher.send(message).await.map_err(text)?));
                number += 1;
            }
            for (key, ack) in acks {
                let acked = ack.await.map_err(text)?;
                self.ledger.published((acked.offset.get(), key));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        publisher.close().await.map_err(text)
    }

    /// Notes every dead letter as it comes.
    async fn follow_the_dead(self: Arc<Self>) {
        if let Err(why) = self.try_follow_the_dead().await {
            self.ledger
                .wrong(format!("reading {}: {why}", self.dead_letters));
        }
    }

    async fn try_follow_the_dead(&self) -> Outcome<()> {
        let mut subscriber = loop {
            let options = SubscriberOptions::passing(Position::Beginning);
            match self.client.subscriber(&self.dead_letters, options).await {
                Ok(subscriber) => break subscriber,
                Err(error) if error.name() == "TopicNotFound" || error.is_retryable() => {
                    if self.is(&self.is_over) {
                        return Ok(());
                    }
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                Err(error) => return Err(text(error)),
            }
        };
        while !self.is(&self.is_over) {
            let next = subscriber.next_within(Duration::from_millis(100)).await;
            let record = match next.map_err(text)? {
                None => continue,
                Some(Delivery::Record(record)) => record,
                Some(Delivery::Gap(gap)) => return Err(format!("{gap:?}")),
            };
            let headers = record.headers.iter();
            let told =
                Obituary::of(headers.map(|header| (header.name.as_str(), &header.value[..])));
            let told = told.ok_or_else(|| format!("{record:?} tells not where it is from"))?;
            if told.topic != self.topic || told.group != self.group {
                return Err(format!("{told:?} is not from here"));
            }
            self.ledger
                .died((told.offset.get(), key_of(&record.value)?));
        }
        Ok(())
    }

    // --- members -------------------------------------------------------------

    async fn live(self: Arc<Self>, member: u64, seed: u64) {
        let mut life = 0;
        while !self.is(&self.is_over) {
            life += 1;
            let ordered = u64::from(self.ledger.is_ordered);
            let mut dice = Dice(mix(seed ^ mix(life) ^ mix(2 * member + ordered)));
            self.lives.fetch_add(1, Ordering::Relaxed);
            let is_process = member == 0 && !self.ledger.is_ordered && !self.is(&self.is_calm);
            let lived = match is_process {
                true => self.live_as_process((member, life), &mut dice).await,
                false => Life::run(&self, (member, life), &mut dice).await,
            };
            if let Err(why) = lived {
                return self.ledger.wrong(format!(
                    "{}, member {member}, life {life}: {why}",
                    self.topic
                ));
            }
        }
    }

    /// A member as people start one; it prints and acknowledges, and is killed in the middle.
    async fn live_as_process(&self, who: Who, dice: &mut Dice) -> Outcome<()> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidings"));
        command
            .current_dir(&self.dir)
            .args([
                "sub",
                self.topic.as_str(),
                "--group",
                &self.group.to_string(),
            ])
            .args(["-f", "%o %p%n", "-q", "--index", &self.index])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut child = command.spawn().map_err(text)?;
        let out = BufReader::new(child.stdout.take().expect("piped"));
        let reading: JoinHandle<Vec<String>> = tokio::task::spawn_blocking(move || {
            // A last line may be cut off, and is no news then: nobody acknowledged what was not written.
            out.lines().map_while(Result::ok).collect()
        });
        tokio::time::sleep(Duration::from_millis(200 + dice.below(2_000))).await;
        child.kill().map_err(text)?;
        child.wait().map_err(text)?;
        self.killed.fetch_add(1, Ordering::Relaxed);
        for line in reading.await.map_err(text)? {
            let mut words = line.split(' ').map(str::parse::<u64>);
            if let (Some(Ok(offset)), Some(Ok(key)), Some(Ok(_))) =
                (words.next(), words.next(), words.next())
            {
                self.ledger.given((offset, key), who);
                self.ledger.unknown((offset, key), who);
            }
        }
        Ok(())
    }

    // --- the end -------------------------------------------------------------

    /// Lets everything be settled, and compares.
    async fn settle(&self) -> Outcome<String> {
        self.is_full.store(true, Ordering::Relaxed);
        self.is_calm.store(true, Ordering::Relaxed);
        let begun = Instant::now();
        let group = loop {
            self.check(begun)?;
            let told = self.client.describe_group(&self.topic, &self.group).await;
            match told {
                Ok(group) if group.unsettled == 0 => break group,
                Ok(group) if begun.elapsed() > PATIENCE => {
                    return Err(format!(
                        "{}: {} are never settled: {group:?}",
                        self.topic, group.unsettled
                    ));
                }
                Ok(_) => {}
                Err(error) if error.is_retryable() => {}
                Err(error) => return Err(text(error)),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        let end = group.end_offset.get();
        // What was said last is entered, and the last dead letters are read, a moment later.
        let counts = loop {
            match self.ledger.check_all(end) {
                Ok(counts) if counts.dead == group.dead => break counts,
                Err(why) if begun.elapsed() > PATIENCE => {
                    return Err(format!("{}: {why}", self.topic));
                }
                Ok(counts) if begun.elapsed() > PATIENCE => {
                    return Err(format!("{}: {counts:?}, but {group:?}", self.topic));
                }
                _ => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        };
        if group.floor.get() != end || group.skipped != 0 || group.acknowledged + group.dead != end
        {
            return Err(format!("{}: it counts otherwise: {group:?}", self.topic));
        }
        let Counts {
            given,
            again,
            acked,
            rejected,
            dead,
            unknown,
        } = counts;
        Ok(format!(
            "{}: {end} records given {given} times, {again} of them again, {acked} acknowledged, {rejected} rejected, \
             {dead} dead letters, {unknown} settled by somebody who does not know it",
            self.news()
        ))
    }
}

/// Of a connection of its own, as a process has it.
pub(super) async fn connect(index: &str) -> Outcome<Client> {
    let seeds = vec![index.parse().map_err(text)?];
    Client::connect(ConnectOptions::new(seeds))
        .await
        .map_err(text)
}

pub(super) fn key_of(value: &[u8]) -> Outcome<u64> {
    let value = String::from_utf8_lossy(value);
    let key = value.split(' ').next().and_then(|word| word.parse().ok());
    key.ok_or_else(|| format!("{value:?} is none of ours"))
}
