//! An index with few topics, and one with many: registering, looking up, starting again.
//!
//! `tidings bench lookup` registers the topics, as a peer would that stores them, and asks for them.

use anyhow::{Result, ensure};
use tokio::time::Instant;

use super::Options;
use super::ours::{Holder, Index, bench, number};
use super::peer::mib;
use super::report::{Report, Side, Unit};
use crate::report::grouped;
use crate::server;

/// Clients that ask as fast as it goes.
const CLIENTS: &str = "4";
/// Questions of one of them that may be unanswered.
const IN_FLIGHT: &str = "256";

pub async fn measure(options: &Options, report: &mut Report) -> Result<()> {
    let sizes = &options.sizes;
    let [few, many] = [sizes.registered_few, sizes.registered].map(|n| grouped(f64::from(n)));
    let clients = grouped(f64::from(sizes.clients));
    report.between(
        format!("{few} topics / 1 client"),
        format!("{many} topics / {clients} clients"),
    );
    register(options, report).await?;
    let (small, held) = filled(options, sizes.registered_few, (Side::Without, report)).await?;
    let (large, held_too) = filled(options, sizes.registered, (Side::With, report)).await?;
    for round in options.rounds() {
        let mut sides = [(Side::Without, &small), (Side::With, &large)];
        sides.rotate_left(round as usize % 2);
        for (side, index) in sides {
            look_up(options, index, (side, report)).await?;
        }
        crowd(options, &large, report).await?;
    }
    for (side, index) in [(Side::Without, &small), (Side::With, &large)] {
        report.note(side, "rss, the most, after looking up", peak(index)?);
    }
    // Killed like this they do not take leave: what they registered stays.
    drop((held, held_too));
    let (small_topics, large_topics) = (sizes.registered_few, sizes.registered);
    restarts(small, small_topics, options, (Side::Without, report)).await?;
    restarts(large, large_topics, options, (Side::With, report)).await?;
    Ok(())
}

fn peak(index: &Index) -> Result<(f64, Unit)> {
    Ok((mib(index.server.peak_bytes()?), Unit::Mib))
}

/// How long the index takes with what a peer registers that starts.
async fn register(options: &Options, report: &mut Report) -> Result<()> {
    let index = Index::start(options, server::scratch(&options.dir)?).await?;
    let topics = options.sizes.registered_few.to_string();
    for _ in options.rounds() {
        let arguments = ["lookup", "--topics", &topics, "--duration", "100ms"];
        let found = bench(options, &index.address, &arguments).await?;
        let seconds = number(&found, "/registration_seconds")?;
        let what = "registering them";
        report.note(Side::Without, what, (seconds, Unit::Seconds));
    }
    index.server.end().await
}

/// An index with so many topics, and who registered them.
async fn filled(
    options: &Options,
    topics: u32,
    (side, report): (Side, &mut Report),
) -> Result<(Index, Holder)> {
    let index = Index::start(options, server::scratch(&options.dir)?).await?;
    let began = Instant::now();
    let holder = Holder::register(options, &index, topics).await?;
    let seconds = began.elapsed().as_secs_f64();
    let what = "registering them, until they are told of";
    report.note(side, what, (seconds, Unit::Seconds));
    report.note(side, "rss, the most, after registering", peak(&index)?);
    Ok((index, holder))
}

/// As fast as it goes.
async fn look_up(
    options: &Options,
    index: &Index,
    (side, report): (Side, &mut Report),
) -> Result<()> {
    let duration = duration(options);
    let arguments = [
        "lookup",
        "--existing",
        "--clients",
        CLIENTS,
        "--in-flight",
        IN_FLIGHT,
        "--duration",
        &duration,
    ];
    let found = bench(options, &index.address, &arguments).await?;
    let rate = number(&found, "/lookups_per_second")?;
    let what = format!("lookups, {CLIENTS} clients x {IN_FLIGHT}");
    report.note(side, &what, (rate, Unit::PerSecond));
    Ok(())
}

/// One client and many at the same rate in all, where there are many topics.
async fn crowd(options: &Options, index: &Index, report: &mut Report) -> Result<()> {
    let (duration, rate) = (duration(options), options.sizes.lookup_rate);
    let what = format!("lookup p99, {}/s in all", grouped(f64::from(rate)));
    let what = format!(
        "{what}, {} topics",
        grouped(f64::from(options.sizes.registered))
    );
    let rate = rate.to_string();
    for (side, clients) in [(Side::Without, 1), (Side::With, options.sizes.clients)] {
        let clients = clients.to_string();
        let arguments = [
            "lookup",
            "--existing",
            "--clients",
            &clients,
            "--rate",
            &rate,
            "--duration",
            &duration,
        ];
        let found = bench(options, &index.address, &arguments).await?;
        let millis = number(&found, "/latency_us/p99")? / 1e3;
        report.note(side, &what, (millis, Unit::Millis));
    }
    Ok(())
}

fn duration(options: &Options) -> String {
    format!("{}ms", options.sizes.seconds.as_millis())
}

/// Kills it and starts it again, in each round.
async fn restarts(
    mut index: Index,
    topics: u32,
    options: &Options,
    (side, report): (Side, &mut Report),
) -> Result<()> {
    for _ in options.rounds() {
        let (restarted, took) = index.restart(options).await?;
        index = restarted;
        let figure = (took.as_secs_f64(), Unit::Seconds);
        report.note(side, "ready after SIGKILL", figure);
        let found = index.topics().await?;
        ensure!(
            found == u64::from(topics),
            "{topics} topics were registered and {found} are there after the start"
        );
    }
    report.note(side, "rss, the most, after the last start", peak(&index)?);
    let disk = mib(index.server.disk_bytes());
    report.note(side, "on the disk", (disk, Unit::Mib));
    index.server.end().await
}
