//! Idle connections, and many publishers at once.
//!
//! The idle ones are those of `tidings bench connections`, which opens them from a process of its own and
//! measures a publisher before and beside them. The publishers are ours: the few and the many have the same
//! number of calls unacknowledged in all, and no call shares its batch with another.

use anyhow::Result;
use tidings::client::PublisherOptions;
use tidings::protocol::batch::{HEADER_BYTES, RecordToSend};
use tidings::time::Timestamp;

use super::Options;
use super::ours::{bench, number};
use super::peer::{Peer, mib};
use super::report::{Report, Side, Unit};
use crate::report::grouped;
use crate::server::Used;
use crate::work::{Name, Work};

/// So many publishers the others are compared with.
const FEW: u32 = 8;
/// Most batches of one publisher on their way: what a host allows.
const BATCHES_MAX: usize = 64;
/// What a batch may be longer than a call of its size usually is: less than one more record takes.
const BATCH_BYTES_MORE: usize = 64;

pub async fn measure(options: &Options, report: &mut Report) -> Result<()> {
    let sizes = &options.sizes;
    let idle = grouped(f64::from(sizes.connections));
    let many = grouped(f64::from(sizes.publishers));
    report.between(
        format!("none / {FEW} publishers"),
        format!("{idle} idle / {many} publishers"),
    );
    for round in options.rounds() {
        let peer = Peer::start(options).await?;
        let measured = beside_idle(&peer, options, report).await;
        peer.said(measured)?;
        peer.make_topics(0..1, Some(sizes.keep)).await?;
        peer.churn(options).await?;
        let mut crews = [(Side::Without, FEW), (Side::With, sizes.publishers)];
        crews.rotate_left(round as usize % 2);
        for (side, publishers) in crews {
            let measured = at_once(&peer, publishers, options, (side, report)).await;
            peer.said(measured)?;
        }
        report.note(Side::With, "rss, the most", peer.peak()?);
        peer.end().await?;
    }
    Ok(())
}

async fn beside_idle(peer: &Peer, options: &Options, report: &mut Report) -> Result<()> {
    let connections = options.sizes.connections.to_string();
    let duration = format!("{}ms", options.sizes.seconds.as_millis());
    let arguments = [
        "connections",
        "--connections",
        &connections,
        "--duration",
        &duration,
    ];
    let found = bench(options, peer.door.index(), &arguments).await?;
    for (side, of) in [(Side::Without, "_before"), (Side::With, "")] {
        for percent in ["p50", "p99"] {
            let micros = number(&found, &format!("/latency_us{of}/{percent}"))?;
            let what = format!("1 publisher x 100 B, 1 in flight: {percent}");
            report.note(side, &what, (micros / 1e3, Unit::Millis));
        }
    }
    for (side, of) in [(Side::Without, "before"), (Side::With, "with")] {
        let bytes = number(&found, &format!("/rss_bytes_{of}"))?;
        report.note(side, "rss", (mib(bytes as u64), Unit::Mib));
    }
    let each = number(&found, "/rss_bytes_per_connection")? / 1024.0;
    report.note(Side::With, "rss of one connection", (each, Unit::Kib));
    Ok(())
}

async fn at_once(
    peer: &Peer,
    publishers: u32,
    options: &Options,
    (side, report): (Side, &mut Report),
) -> Result<()> {
    let sizes = &options.sizes;
    let batch = sizes.batch as usize;
    let calls = (sizes.publishers / publishers) as usize;
    let work = Work {
        publishers,
        batch,
        turn: batch,
        in_flight: batch * calls,
        ..Work::new(Name::Publish100, batch)
    };
    let own_batch = PublisherOptions {
        batch_bytes: batch_bytes(&work),
        batches_in_flight_max: calls.min(BATCHES_MAX),
        ..PublisherOptions::default()
    };
    let crew = peer.crew_with(&work, 0, &own_batch).await?;
    let cpu_of = || anyhow::Ok([peer.server.used()?, Used::own()?].map(|used| used.cpu_seconds));
    let before = cpu_of()?;
    let published = peer.measured(crew, options).await?;
    let cpu = cpu_of()?;
    let rate = published.in_window as f64 / sizes.seconds.as_secs_f64();
    let total = grouped(f64::from(sizes.publishers));
    let what = format!("100 B, batches of {batch}, {total} calls in flight");
    report.note(side, &what, (rate, Unit::PerSecond));
    let millis = published.latencies.millis(99.0).unwrap_or(f64::NAN);
    report.note(side, &format!("{what}: p99"), (millis, Unit::Millis));
    for (place, who) in ["server", "clients"].into_iter().enumerate() {
        let micros = (cpu[place] - before[place]) * 1e6 / published.acknowledged as f64;
        let what = format!("{what}: cpu of the {who} by record");
        report.note(side, &what, (micros, Unit::Micros));
    }
    Ok(())
}

/// What one call takes as a batch.
fn batch_bytes(work: &Work) -> usize {
    let now = Timestamp::now();
    let record = RecordToSend {
        timestamp: now,
        key: None,
        headers: &[],
        value: &vec![0; work.size],
    };
    HEADER_BYTES + work.batch * record.encoded_bytes(now) + BATCH_BYTES_MORE
}
