//! An empty peer, and one that stores much: the same loads, and starting again after SIGKILL.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::pair::Pair;
use super::peer::{OTHERS, Peer};
use super::report::{Report, Side, Unit};
use super::{Options, size_text};
use crate::load::Window;
use crate::work::{Name, Work};

/// How long a load runs before its peer is killed.
const KILLED_AFTER: Duration = Duration::from_secs(2);
/// A load that is killed before it ends.
const LONG: Duration = Duration::from_secs(3600);

pub async fn measure(options: &Options, report: &mut Report) -> Result<()> {
    report.between(
        "empty",
        format!("{} stored", size_text(options.sizes.stored)),
    );
    let pair = Pair::start(options).await?;
    let work = Work::new(Name::Publish1k, options.sizes.in_flight as usize);
    pair.with.make_topics(OTHERS..OTHERS + 1, None).await?;
    let stored = pair.with.fill(&work, OTHERS, options.sizes.stored).await?;
    pair.peaks("rss, the most, after filling", report)?;
    pair.compare(options, report).await?;
    let Pair { without, with } = pair;
    let without = restarts(without, options, (Side::Without, report)).await?;
    let with = restarts(with, options, (Side::With, report)).await?;
    with.check(OTHERS, stored).await?;
    let pair = Pair { without, with };
    pair.peaks("rss, the most, after the last start", report)?;
    for (side, peer) in pair.sides() {
        report.note(side, "on the disk", peer.disk());
    }
    pair.end().await
}

/// Kills it under load and starts it again, in each round.
async fn restarts(
    mut peer: Peer,
    options: &Options,
    (side, report): (Side, &mut Report),
) -> Result<Peer> {
    let work = Work::new(Name::Publish1k, options.sizes.in_flight as usize);
    for _ in options.rounds() {
        let crew = peer.crew(&work, 0).await?;
        let load = tokio::spawn(crew.publish(Window::starting(Duration::ZERO, LONG)));
        tokio::time::sleep(KILLED_AFTER).await;
        ensure!(
            !load.is_finished(),
            "the load ended by itself before its peer was killed"
        );
        let (restarted, took) = peer.restart().await?;
        load.abort();
        let figure = (took.as_secs_f64(), Unit::Seconds);
        report.note(side, "ready after SIGKILL under load", figure);
        peer = restarted;
    }
    Ok(peer)
}
