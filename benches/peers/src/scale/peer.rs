//! A peer of ours with its index, `tidings up`, and what is done to it.

use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use tidings::client::{Client, PublisherOptions};
use tidings::protocol::api::FiguresAnswer;
use tidings::types::{Address, Retention, TopicSettings};
use tokio::time::Instant;

use super::Options;
use super::report::Unit;
use crate::load::{Crew, Published, Window};
use crate::server::{self, Server};
use crate::systems::Publisher;
use crate::systems::tidings::{Door, launch};
use crate::work::{Name, Work};

/// Numbers of topics that are there beside those that are measured begin here.
pub const OTHERS: u32 = 1_000_000;
/// A load without an end.
const ENDLESS: Duration = Duration::from_secs(24 * 3600);
/// How often one hears that much is still being written.
const TOLD_EVERY_BYTES: u64 = 8 << 30;

/// A running peer.
#[derive(Debug)]
pub struct Peer {
    /// The process.
    pub server: Server,
    /// The way in.
    pub door: Door,
    program: PathBuf,
}

/// Topics that keep everything, or at most so many bytes.
pub fn keeping(bytes: Option<u64>) -> TopicSettings {
    TopicSettings {
        retention: Retention {
            bytes,
            ..Retention::default()
        },
        ..TopicSettings::default()
    }
}

impl Peer {
    /// Starts an empty one.
    pub async fn start(options: &Options) -> Result<Self> {
        let (server, index) = launch(&options.program, server::scratch(&options.dir)?).await?;
        Ok(Self {
            server,
            door: Door::open(index).await?,
            program: options.program.clone(),
        })
    }

    /// Kills it and starts it again with what it left; how long the start took until it was ready.
    pub async fn restart(self) -> Result<(Self, Duration)> {
        let Self {
            server, program, ..
        } = self;
        let dir = server.kill().await?;
        let began = Instant::now();
        let (server, index) = launch(&program, dir).await?;
        let took = began.elapsed();
        let door = Door::open(index).await?;
        let peer = Self {
            server,
            door,
            program,
        };
        Ok((peer, took))
    }

    /// Ends it and removes what it stored.
    pub async fn end(self) -> Result<()> {
        self.server.end().await
    }

    /// The administering client.
    pub fn client(&self) -> &Client {
        self.door.client()
    }

    /// Makes topics that keep everything, or at most so many bytes each.
    pub async fn make_topics(&self, topics: Range<u32>, keeps: Option<u64>) -> Result<()> {
        self.door.make_topics(topics, keeping(keeps)).await
    }

    /// Publishers of a work whose topics are numbered from `first` on.
    pub async fn crew(&self, work: &Work, first: u32) -> Result<Crew> {
        self.crew_with(work, first, &PublisherOptions::default())
            .await
    }

    /// The same with other options.
    pub async fn crew_with(
        &self,
        work: &Work,
        first: u32,
        options: &PublisherOptions,
    ) -> Result<Crew> {
        let mut publishers = Vec::new();
        for number in 0..work.publishers {
            let topics: Vec<u32> = work.topics_of(number).iter().map(|n| n + first).collect();
            let publisher = self.door.publisher_with(&topics, options).await?;
            publishers.push((Publisher::Tidings(publisher), topics.len()));
        }
        Crew::new(work, publishers)
    }

    /// Loads the first topics as long as the options say.
    pub async fn load(&self, work: &Work, options: &Options) -> Result<Published> {
        let crew = self.crew(work, 0).await?;
        self.measured(crew, options).await
    }

    /// Publishes as long as the options say. Nothing acknowledged in the measured time is a failure.
    pub async fn measured(&self, crew: Crew, options: &Options) -> Result<Published> {
        let window = Window::starting(options.sizes.warm, options.sizes.seconds);
        let published = self.said(crew.publish(window).await)?;
        let seconds = options.sizes.seconds;
        ensure!(
            published.in_window > 0,
            "nothing was acknowledged in {seconds:?}"
        );
        Ok(published)
    }

    /// Publishes so many bytes of payload, or for so long, whichever ends first; how many records were acknowledged.
    pub async fn write(
        &self,
        (work, first): (&Work, u32),
        bytes: u64,
        within: Duration,
    ) -> Result<u64> {
        let crew = self.crew(work, first).await?;
        let window = Window {
            records_max: bytes / work.size as u64,
            ..Window::starting(Duration::ZERO, within)
        };
        Ok(self.said(crew.publish(window).await)?.acknowledged)
    }

    /// Fills topics from `first` on with so many bytes of payload; how many records that took.
    pub async fn fill(&self, work: &Work, first: u32, bytes: u64) -> Result<u64> {
        let (mut records, began) = (0, Instant::now());
        let total = bytes / work.size as u64;
        while records < total {
            let left = (total - records) * work.size as u64;
            let part = left.min(TOLD_EVERY_BYTES);
            let written = self.write((work, first), part, ENDLESS).await?;
            // Whole turns of every publisher may be a little less.
            if written == 0 {
                break;
            }
            records += written;
            let gib = (records * work.size as u64) as f64 / f64::from(1 << 30);
            let seconds = began.elapsed().as_secs_f64();
            eprintln!("  written: {gib:.2} GiB in {seconds:.0} s");
        }
        Ok(records)
    }

    /// Writes the measured topic and discards it, until its slots are used again.
    pub async fn churn(&self, options: &Options) -> Result<()> {
        let work = Work::new(Name::Publish1k, options.sizes.in_flight as usize);
        let churned = self.write((&work, 0), u64::MAX, options.sizes.churn);
        churned.await.map(drop)
    }

    /// Adds the end of the log to a failure.
    pub fn said<T>(&self, outcome: Result<T>) -> Result<T> {
        outcome.map_err(|error| {
            let log = self.server.last_words();
            anyhow!("{error:#}; the peer's log ends with: {log}")
        })
    }

    /// Resident memory, the most there was since it started, as a figure.
    pub fn peak(&self) -> Result<(f64, Unit)> {
        Ok((mib(self.server.peak_bytes()?), Unit::Mib))
    }

    /// What its directory takes of the disk, as a figure.
    pub fn disk(&self) -> (f64, Unit) {
        (mib(self.server.disk_bytes()), Unit::Mib)
    }

    /// Where the peer is, beside its index.
    async fn address(&self) -> Result<Address> {
        let peers = self.client().list_peers().await?;
        let peer = peers.into_iter().next();
        Ok(peer.context("the index knows no peer")?.address)
    }

    /// What the peer counts, in short.
    pub async fn figures(&self) -> Result<FiguresAnswer> {
        let address = self.address().await?;
        Ok(self.client().figures(&address).await?)
    }

    /// One of the things that the peer counts, summed over its series.
    pub async fn metric(&self, name: &str) -> Result<u64> {
        let peers = self.client().list_peers().await?;
        let peer = peers.first().context("the index knows no peer")?;
        let families = self.client().metrics(&peer.name).await?;
        let family = families.iter().find(|family| family.name == name);
        let family = family.with_context(|| format!("the peer does not count {name}"))?;
        Ok(family.samples.iter().map(|sample| sample.value).sum())
    }

    /// Bytes of record batches that live, of all topics.
    pub async fn live_bytes(&self) -> Result<u64> {
        let all = "bench.*".parse()?;
        let mut bytes = 0;
        for report in self.client().describe_topics(&all).await? {
            bytes += report.info?.bytes;
        }
        Ok(bytes)
    }

    /// Fails if a topic does not have so many records.
    pub async fn check(&self, topic: u32, records: u64) -> Result<()> {
        let name = crate::systems::tidings::name(topic)?;
        let info = self.client().describe_topic(&name).await?.info?;
        let found = info.end_offset.get();
        ensure!(
            found >= records,
            "{records} records of {name} were acknowledged and {found} are stored"
        );
        Ok(())
    }
}

/// Bytes as MiB.
pub fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
