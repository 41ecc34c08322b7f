//! One fault after the other at a real peer, while real clients go on.
//!
//! A round strikes with one fault, heals it, and then wants everything: each publisher and each
//! subscriber gets on, commits are kept, and what was acknowledged since the last round is read back.
//! In the end everything is read once more and compared with all that was told and seen.

use std::collections::BTreeMap;
use std::process::ExitStatus;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tidings::client::SubscriberOptions;
use tidings::limits;
use tidings::protocol::api::{PeerState, Position};
use tidings::types::{Offset, TopicName};

use super::cluster::{Outcome, PATIENCE, Pressure, Records, Stage, TOPICS, in_runtime, lock, text};
use super::control::{CATALOG, Control, JOURNAL, NAMES, WRITES, Word};
use super::{Options, SKIPPED, not_exercised};
use crate::run::shim;
use crate::words::Dice;

/// What can be done to a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// SIGKILL.
    Kill,
    /// SIGSTOP for a while; half of the time a sync is under way.
    Stop,
    /// Syncs that take 300 ms, and one that takes long.
    Slow,
    /// A sync that takes too long.
    Stuck,
    /// A sync or a write that fails.
    Fail,
    /// Nothing can be made or grow.
    Full,
    /// The wall clock jumps.
    Clock,
}

impl Fault {
    pub const ALL: [(&str, Self); 7] = [
        ("kill", Self::Kill),
        ("stop", Self::Stop),
        ("slow", Self::Slow),
        ("stuck", Self::Stuck),
        ("fail", Self::Fail),
        ("full", Self::Full),
        ("clock", Self::Clock),
    ];
}

/// The faults to choose from, as positions in [`Fault::ALL`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mix(u8);

impl Mix {
    pub const ALL: Self = Self((1 << Fault::ALL.len()) - 1);

    /// From names with commas between them.
    pub fn parse(names: &str) -> Outcome<Self> {
        let mut mix = 0;
        for name in names.split(',') {
            let at = Fault::ALL.iter().position(|(known, _)| *known == name);
            mix |= 1
                << at.ok_or_else(|| {
                    let known = Fault::ALL.map(|(known, _)| known).join(", ");
                    format!("--mix: there is no fault {name:?}, but {known}")
                })?;
        }
        Ok(Self(mix))
    }

    pub fn is_all(self) -> bool {
        self == Self::ALL
    }

    /// With commas between them.
    pub fn names(self) -> String {
        let names: Vec<&str> = self.positions().map(|at| Fault::ALL[at].0).collect();
        names.join(",")
    }

    fn positions(self) -> impl Iterator<Item = usize> {
        (0..Fault::ALL.len()).filter(move |at| self.0 & (1 << at) != 0)
    }
}

/// How long things take.
struct Times {
    long: bool,
}

impl Times {
    fn choose(&self, dice: &mut Dice, short: (u64, u64), long: (u64, u64)) -> Duration {
        let (least, more) = if self.long { long } else { short };
        Duration::from_millis(least + dice.below(more))
    }
}

/// Longer than anybody waits: such a hold is ended by whoever asked for it.
const FOR_EVER: Duration = Duration::from_secs(3600);
/// The 300 ms of the shorter slow syncs.
const SLOW: Duration = Duration::from_millis(300);
/// What was acknowledged before a sync began has arrived after so long.
const ON_THE_WAY: Duration = Duration::from_secs(2);
/// The longest that a process stands still.
const STANDSTILL: Duration = Duration::from_secs(limits::SYNC_TIMEOUT.as_secs() + 3);
/// A peer that may no longer write ends within this.
const ENDING: Duration = Duration::from_secs(20);
/// And one with a stuck sync within this, from the begin of the sync.
const STUCK: Duration = Duration::from_secs(90);
/// What such a server exits with.
const SERVER_ENDED: i32 = 1;

/// Everything one run needs.
struct Scene {
    stage: Stage,
    peer: Control,
    index: Control,
    dice: Dice,
    times: Times,
    counts: [u64; Fault::ALL.len()],
    /// What was read in earlier rounds, and up to where.
    seen: BTreeMap<TopicName, Records>,
    seen_to: BTreeMap<TopicName, u64>,
}

/// Strikes and heals, for so many rounds or minutes.
pub fn run(options: Options) -> Outcome<String> {
    let Some(shim) = shim() else {
        return Ok(SKIPPED.to_owned());
    };
    in_runtime(async {
        let dir = Stage::clear("faults", options.seed)?;
        let (peer, index) = (Control::new(&dir, "peer")?, Control::new(&dir, "index")?);
        // Nobody gives up, so nothing stays unknown; and not so much is sent that reading it takes all the time.
        let pressure = Pressure {
            timeout: FOR_EVER,
            rest: Duration::from_millis(100),
            age: Some(Duration::from_secs(3600)),
        };
        let mut scene = Scene {
            stage: Stage::set_in(dir.clone(), Some(shim), &pressure).await?,
            peer,
            index,
            dice: Dice(options.seed),
            times: Times {
                long: options.is_long,
            },
            counts: [0; Fault::ALL.len()],
            seen: BTreeMap::new(),
            seen_to: BTreeMap::new(),
        };
        let kept = |why: String| format!("{why}; kept in {}", dir.display());
        scene.play(&options).await.map_err(kept)?;
        let counts = scene.counts(options.mix);
        let report = scene.stage.end(&scene.seen).await.map_err(kept)?;
        Ok(format!("{counts}; {report}; verdict: sound"))
    })
}

impl Scene {
    async fn play(&mut self, options: &Options) -> Outcome<()> {
        let begun = Instant::now();
        let mut deck = Vec::new();
        for round in 0.. {
            let is_over = match options.time {
                Some(time) => begun.elapsed() >= time,
                // In the long form each fault of the mix has its turn.
                None => round >= options.rounds && (!self.times.long || deck.is_empty()),
            };
            if is_over {
                break;
            }
            let at = self.draw(&mut deck, options.mix);
            let (name, fault) = Fault::ALL[at];
            let start = Instant::now();
            let told = match self.strike(fault).await {
                Ok(told) => self.settle().await.map(|news| format!("{told}; {news}")),
                Err(why) => Err(why),
            };
            let told = told.map_err(|why| format!("round {round}, {name}: {why}"))?;
            self.counts[at] += 1;
            let seconds = start.elapsed().as_secs_f32();
            println!("  round {round}, {name}: {told} ({seconds:.1} s)");
        }
        Ok(())
    }

    /// One after the other of the mix, in a new order each time.
    fn draw(&mut self, deck: &mut Vec<usize>, mix: Mix) -> usize {
        if deck.is_empty() {
            deck.extend(mix.positions());
            if !self.times.long && deck.len() > 1 {
                // It takes more than a minute and cannot take less: the limit is the product's.
                deck.retain(|at| Fault::ALL[*at].1 != Fault::Stuck);
            }
        }
        let at = self.dice.below(deck.len() as u64) as usize;
        deck.swap_remove(at)
    }

    /// How often each fault of the mix struck, and which of them never did.
    fn counts(&self, mix: Mix) -> String {
        let all: Vec<(&str, u64)> = mix
            .positions()
            .map(|at| (Fault::ALL[at].0, self.counts[at]))
            .collect();
        let told: Vec<String> = all
            .iter()
            .map(|(name, count)| format!("{name} {count}"))
            .collect();
        told.join(", ") + &not_exercised(all)
    }

    async fn strike(&mut self, fault: Fault) -> Outcome<String> {
        self.rest(200, 600).await;
        match fault {
            Fault::Kill => {
                self.stage.peer.kill()?;
                self.stage.peer.start()?;
                Ok("killed".to_owned())
            }
            Fault::Stop => self.stop().await,
            Fault::Slow => self.slow().await,
            Fault::Stuck => self.stuck().await,
            Fault::Fail => self.fail().await,
            Fault::Full => self.full().await,
            Fault::Clock => self.clock().await,
        }
    }

    async fn rest(&mut self, least: u64, more: u64) {
        let time = least + self.dice.below(more);
        tokio::time::sleep(Duration::from_millis(time)).await;
    }

    // --- healed: everything goes on --------------------------------------------

    async fn settle(&mut self) -> Outcome<String> {
        self.peer.reset()?;
        self.index.reset()?;
        let load = self.stage.load.clone();
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let read = || [0, TOPICS as usize - 1].map(|at| of(&load.delivered[at]));
        let now = || {
            load.acked
                .iter()
                .map(of)
                .chain(read())
                .collect::<Vec<u64>>()
        };
        // Something that is sent from now on has to be acknowledged, and all before it.
        let sent = load.sent.iter().map(of);
        let before: Vec<u64> = sent.chain(read()).collect();
        let start = Instant::now();
        while now().iter().zip(&before).any(|(now, before)| now <= before) {
            if let Some(status) = self.stage.peer.ended()? {
                return Err(format!("the peer has ended afterwards: {status}"));
            }
            load.check()?;
            if start.elapsed() > PATIENCE {
                let now = now();
                return Err(format!(
                    "not everybody goes on: sent and read were {before:?}, then acknowledged and read {now:?}"
                ));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let after = start.elapsed().as_secs_f32();
        load.check_committed().await?;
        let read = self.look().await?;
        load.check()?;
        Ok(format!("all go on after {after:.1} s, {read} read back"))
    }

    /// Reads what came since the last look and compares it with what was told.
    async fn look(&mut self) -> Outcome<u64> {
        let load = self.stage.load.clone();
        let mut count = 0;
        for topic in &load.names {
            let from = self.seen_to.get(topic).copied().unwrap_or(0);
            let position = Position::Offset(Offset::new(from));
            let all = load.read(topic, position).await?;
            let told = lock(&load.told);
            let acknowledged = told.acknowledged.get(topic).into_iter();
            for (offset, sent) in acknowledged.flat_map(|acked| acked.range(from..all.end)) {
                load.check_acked(topic, (*offset, sent), &all, told.may_lose_os)?;
            }
            count += all.records.len() as u64;
            self.seen_to.insert(topic.clone(), all.end);
            let seen = self.seen.entry(topic.clone()).or_default();
            seen.extend(all.records);
        }
        Ok(count)
    }

    // --- faults ------------------------------------------------------------------

    async fn wait_for(&mut self, word: Word) -> Outcome<()> {
        let start = Instant::now();
        while self.peer.get(word)? == 0 {
            if start.elapsed() > PATIENCE {
                return Err(format!("{word:?} stays 0: the fault does not take place"));
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    /// Holds every sync that begins from now on; on return one is held.
    async fn hold(&mut self, place: u64) -> Outcome<()> {
        self.peer.set(Word::Where, place)?;
        self.peer.set(Word::Holds, 0)?;
        self.peer.set(Word::Hold, FOR_EVER.as_micros() as u64)?;
        self.wait_for(Word::Holds).await
    }

    /// `None` if it cannot be asked now.
    async fn is_online(&self) -> Option<bool> {
        let asked = self.stage.load.client.list_peers();
        let peers = tokio::time::timeout(Duration::from_secs(5), asked).await;
        let peers = peers.ok()?.ok()?;
        Some(peers.iter().any(|peer| peer.state == PeerState::Online))
    }

    async fn comes_online(&mut self) -> Outcome<()> {
        let start = Instant::now();
        while self.is_online().await != Some(true) {
            if let Some(status) = self.stage.peer.ended()? {
                let said = self.stage.peer.said()?;
                return Err(format!("the peer has ended: {status}: {said}"));
            }
            if start.elapsed() > PATIENCE {
                return Err("the index does not list the peer as online again".to_owned());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    async fn stop(&mut self) -> Outcome<String> {
        let time = self
            .times
            .choose(&mut self.dice, (4500, 1000), (5000, 60_000));
        // Often longer than a sync may take: the time of a process that stands still is not the disk's.
        let is_longest = self.times.long && self.dice.percent(30);
        let time = if is_longest { STANDSTILL } else { time };
        let in_a_sync = is_longest || self.dice.percent(50);
        if in_a_sync {
            self.hold(JOURNAL | CATALOG).await?;
        }
        self.stage.peer.signal(Signal::STOP)?;
        let start = Instant::now();
        tokio::time::sleep(time.mul_f32(0.9)).await;
        let noticed = self.is_online().await == Some(false);
        tokio::time::sleep(time.saturating_sub(start.elapsed())).await;
        self.stage.peer.signal(Signal::CONT)?;
        if in_a_sync {
            self.rest(300, 700).await;
            self.peer.set(Word::Hold, 0)?;
        }
        if !noticed {
            return Err("the index did not notice that the peer stands still".to_owned());
        }
        self.comes_online().await?;
        let seconds = start.elapsed().as_secs_f32();
        let during = if in_a_sync { " during a sync" } else { "" };
        Ok(format!("stood still for {seconds:.1} s{during}"))
    }

    async fn slow(&mut self) -> Outcome<String> {
        let time = self.times.choose(&mut self.dice, (1500, 500), (5000, 5000));
        self.peer.set(Word::Where, JOURNAL | CATALOG)?;
        self.peer.set(Word::Hold, SLOW.as_micros() as u64)?;
        tokio::time::sleep(time).await;
        self.peer.set(Word::Hold, 0)?;
        let syncs = self.peer.get(Word::Holds)?;
        self.rest(100, 200).await;
        // Each sync that begins is held: nothing can be acknowledged on an `fsync` topic.
        self.hold(JOURNAL).await?;
        let long = if self.times.long { 30 } else { 4 };
        let (start, long) = (Instant::now(), Duration::from_secs(long));
        let acked = self.acked_after_a_while().await;
        tokio::time::sleep(long.saturating_sub(start.elapsed())).await;
        self.none_acked_since(acked)?;
        self.peer.set(Word::Hold, 0)?;
        if let Some(status) = self.stage.peer.ended()? {
            return Err(format!("a sync held for {long:?} ended the peer: {status}"));
        }
        Ok(format!(
            "{syncs} syncs held for {SLOW:?}, then all for {long:?}"
        ))
    }

    async fn acked_after_a_while(&self) -> u64 {
        tokio::time::sleep(ON_THE_WAY).await;
        self.stage.load.acked_durably()
    }

    fn none_acked_since(&self, before: u64) -> Outcome<()> {
        let early = self.stage.load.acked_durably() - before;
        if early == 0 {
            return Ok(());
        }
        Err(format!("J1: {early} messages acknowledged before a sync"))
    }

    async fn stuck(&mut self) -> Outcome<String> {
        let (what, place) = match self.dice.below(4) {
            0 => ("syncs of the journal", JOURNAL),
            1 => ("writes and syncs of the journal", JOURNAL | WRITES),
            2 => ("syncs of the journal's directory", NAMES),
            _ => ("syncs of the catalog", CATALOG),
        };
        self.hold(place).await?;
        let start = Instant::now();
        let acked = self.acked_after_a_while().await;
        let status = self.stage.peer.ends_within(STUCK).await?;
        let took = start.elapsed();
        let status = status.ok_or_else(|| format!("{what} held for {STUCK:?}: it goes on"))?;
        if took < limits::SYNC_TIMEOUT {
            return Err(format!("it ended after {took:?} already: {status}"));
        }
        if place & JOURNAL != 0 {
            self.none_acked_since(acked)?;
        }
        self.explained(status, &["60 s"])?;
        self.peer.reset()?;
        self.stage.peer.start()?;
        let seconds = took.as_secs_f32();
        Ok(format!(
            "{what} held: it ended after {seconds:.1} s and said why"
        ))
    }

    /// It ended as a server does that has to, and said why.
    fn explained(&self, status: ExitStatus, words: &[&str]) -> Outcome<()> {
        let said = self.stage.peer.said()?;
        let stopped = said.contains("storage stopped");
        if status.code() == Some(SERVER_ENDED) && stopped && words.iter().any(|w| said.contains(w))
        {
            return Ok(());
        }
        Err(format!(
            "it ended with {status} and should say one of {words:?}: {said}"
        ))
    }

    async fn fail(&mut self) -> Outcome<String> {
        let (what, place, word) = match self.dice.below(10) {
            0..4 => ("a sync of the journal", JOURNAL, Word::FailSyncs),
            4 => ("a sync of the journal's directory", NAMES, Word::FailSyncs),
            5..7 => ("a write of the journal", JOURNAL, Word::FailWrites),
            7..9 => ("a sync of the catalog", CATALOG, Word::FailSyncs),
            _ => ("a write of the catalog", CATALOG, Word::FailWrites),
        };
        lock(&self.stage.load.told).may_lose_os |= place == JOURNAL;
        self.peer.set(Word::Where, place)?;
        self.peer.set(word, 1)?;
        self.wait_for(Word::Failed).await?;
        let Some(status) = self.stage.peer.ends_within(ENDING).await? else {
            // The one failure that may be tried again: a new file that could not be filled is thrown away.
            let said = self.stage.peer.said()?;
            let goes_on =
                word == Word::FailWrites && said.contains("cannot prepare a journal slot");
            return match goes_on {
                true => Ok(format!("{what} failed while a slot was made: another was")),
                false => Err(format!("{what} failed, and it goes on: {said}")),
            };
        };
        self.explained(status, &["Input/output error", "os error 5", "IO error"])?;
        let again = self.peer.get(Word::Again)?;
        if place != CATALOG && again > 0 {
            return Err(format!("{what} failed, and the file was synced again"));
        }
        let lost = self.peer.get(Word::Lost)?;
        self.peer.reset()?;
        self.stage.peer.start()?;
        Ok(format!(
            "{what} failed, {lost} bytes went with it: it ended and said why"
        ))
    }

    async fn full(&mut self) -> Outcome<String> {
        let time = self
            .times
            .choose(&mut self.dice, (5000, 1000), (8000, 20_000));
        self.peer.set(Word::Full, 1)?;
        self.wait_for(Word::Refused).await?;
        let start = Instant::now();
        let mut ended = self.stage.peer.ends_within(time / 2).await?;
        let mut read = 0;
        if ended.is_none() {
            let reading = tokio::time::timeout(ENDING, self.read_some()).await;
            ended = self.stage.peer.ended()?;
            match reading {
                Ok(Ok(records)) => read = records,
                _ if ended.is_some() => {}
                Ok(Err(why)) => return Err(format!("reading from a full disk: {why}")),
                Err(_) => return Err("reading from a full disk takes for ever".to_owned()),
            }
        }
        let left = time.saturating_sub(start.elapsed());
        if ended.is_none() {
            ended = self.stage.peer.ends_within(left).await?;
        }
        let refused = self.peer.get(Word::Refused)?;
        let Some(status) = ended else {
            self.peer.set(Word::Full, 0)?;
            return Ok(format!(
                "{refused} calls found no space for {time:.1?}, {read} records read meanwhile"
            ));
        };
        let words = ["No space left", "os error 28", "disk is full"];
        self.explained(status, &words)?;
        // As a supervisor would: as long as there is no space it may refuse to start.
        let early = self.stage.peer.start();
        if early.is_err() {
            let status = self.stage.peer.ends_within(ENDING).await?;
            status.ok_or("a peer that does not start on a full disk does not end either")?;
        }
        tokio::time::sleep(left).await;
        self.peer.reset()?;
        let status = self.stage.peer.ended()?;
        if early.is_err() || status.is_some() {
            self.stage.peer.start()?;
        }
        let started = match early {
            Ok(()) => "and started again at once",
            Err(_) => "and started when there was space",
        };
        Ok(format!(
            "{refused} calls found no space: it ended, said why, {started}"
        ))
    }

    /// Reads the beginning of each topic, as somebody who comes now.
    async fn read_some(&self) -> Outcome<u64> {
        let load = &self.stage.load;
        let mut count = 0;
        for topic in &load.names {
            let options = SubscriberOptions::passing(Position::Beginning);
            let mut subscriber = load.client.subscriber(topic, options).await.map_err(text)?;
            for _ in 0..20 {
                subscriber.next().await.map_err(text)?;
                count += 1;
            }
        }
        Ok(count)
    }

    async fn clock(&mut self) -> Outcome<String> {
        let time = self
            .times
            .choose(&mut self.dice, (3000, 500), (5000, 10_000));
        // Beyond what retention keeps, and at times beyond what producers are remembered for.
        let hours = match self.dice.below(4) {
            0 => 240,
            _ => 2 + self.dice.below(46),
        } as i64;
        let hours = if self.dice.percent(50) { hours } else { -hours };
        let nanos = (hours * 3600 * 1_000_000_000) as u64;
        let whose = self.dice.below(3);
        if whose != 1 {
            self.peer.set(Word::Clock, nanos)?;
        }
        if whose != 0 {
            self.index.set(Word::Clock, nanos)?;
        }
        let start = Instant::now();
        let (mut looks, mut away) = (0, 0);
        while start.elapsed() < time {
            looks += 1;
            away += u64::from(self.is_online().await != Some(true));
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        let read = self.peer.get(Word::Clocks)? + self.index.get(Word::Clocks)?;
        if read == 0 {
            return Err("nobody looked at the clock".to_owned());
        }
        // A machine that is busy with other things may delay a heartbeat.
        if away > looks / 2 {
            return Err(format!(
                "the peer was not online at {away} of {looks} looks"
            ));
        }
        let whose = ["the peer's", "the index server's", "both"][whose as usize];
        Ok(format!("{whose} clock off by {hours} h for {time:.1?}"))
    }
}
