//! The same load on two peers in turns: how fast, and how late.

use anyhow::{Context, Result};

use super::Options;
use super::peer::Peer;
use super::report::{Report, Side, Unit};
use crate::work::{Name, Work};

/// Throughput of large and of small records, and latency.
const WORKS: [Name; 3] = [Name::Publish1k, Name::Publish100, Name::Lone1];

/// Two peers, one of which has what the other has not.
#[derive(Debug)]
pub struct Pair {
    /// The one that has nothing.
    pub without: Peer,
    /// The one that has it.
    pub with: Peer,
}

impl Pair {
    /// Starts two that are empty but for the topic that is measured.
    pub async fn start(options: &Options) -> Result<Self> {
        let pair = Self {
            without: Peer::start(options).await?,
            with: Peer::start(options).await?,
        };
        for (_, peer) in pair.sides() {
            peer.make_topics(0..1, Some(options.sizes.keep)).await?;
        }
        Ok(pair)
    }

    /// Both of them.
    pub fn sides(&self) -> [(Side, &Peer); 2] {
        [(Side::Without, &self.without), (Side::With, &self.with)]
    }

    /// Loads both in turns and notes what was found; memory at the end of it.
    pub async fn compare(&self, options: &Options, report: &mut Report) -> Result<()> {
        for (_, peer) in self.sides() {
            peer.churn(options).await?;
        }
        for round in options.rounds() {
            let mut sides = self.sides();
            sides.rotate_left(round as usize % 2);
            for name in WORKS {
                let work = Work::new(name, options.sizes.in_flight as usize);
                for (side, peer) in sides {
                    one(peer, &work, options, (side, report)).await?;
                }
            }
        }
        self.peaks("rss, the most, after the loads", report)
    }

    /// Notes what they took of memory at the most up to now.
    pub fn peaks(&self, what: &str, report: &mut Report) -> Result<()> {
        for (side, peer) in self.sides() {
            report.note(side, what, peer.peak()?);
        }
        Ok(())
    }

    /// Ends both.
    pub async fn end(self) -> Result<()> {
        self.without.end().await?;
        self.with.end().await
    }
}

async fn one(
    peer: &Peer,
    work: &Work,
    options: &Options,
    (side, report): (Side, &mut Report),
) -> Result<()> {
    let before = peer.server.used()?;
    let published = peer.load(work, options).await?;
    let used = peer.server.used()?.since(&before);
    let title = work.title();
    if work.in_flight == 1 {
        for (percent, name) in [(50.0, "p50"), (99.0, "p99")] {
            let millis = published.latencies.millis(percent);
            let millis = millis.with_context(|| format!("{title}: nothing was acknowledged"))?;
            report.note(side, &format!("{title}: {name}"), (millis, Unit::Millis));
        }
        return Ok(());
    }
    let rate = published.in_window as f64 / options.sizes.seconds.as_secs_f64();
    report.note(side, &title, (rate, Unit::PerSecond));
    let records = published.acknowledged as f64;
    let micros = (used.cpu_seconds * 1e6 / records, Unit::Micros);
    report.note(
        side,
        &format!("{title}: cpu of the server by record"),
        micros,
    );
    let written = used.written_bytes as f64 / (records * work.size as f64);
    let written = (written, Unit::BytePerByte);
    report.note(side, &format!("{title}: written by payload"), written);
    Ok(())
}
