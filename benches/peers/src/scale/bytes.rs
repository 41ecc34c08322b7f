//! What reaches the disk for each byte of payload, and what stays there, in the everyday state: topics keep a
//! bounded amount, and so many times that has been written before anything is counted.
//!
//! Uniform: 8 topics keep the same. Mixed: 2 of the 8 keep ten times as much as the others, all of them as
//! much together as where it is uniform. All are written to alike.

use std::time::Duration;

use anyhow::{Context, Result};
use tokio::time::Instant;

use super::peer::Peer;
use super::report::{Report, Side, Unit};
use super::{Options, size_text};
use crate::work::{Name, Work};

/// How many topics.
const TOPICS: u32 = 8;
/// The last so many of them keep more, where it is mixed.
const LONG: u32 = 2;
/// So many times as much.
const LONGER: u64 = 10;
/// Records of a call where groups are to be small: 16 KiB of payload.
const SMALL_BATCH: usize = 16;
/// Small groups are counted for so many times as long as other measurements take.
const SMALL_TIMES: u32 = 4;
/// What the server counts of its slots meanwhile.
const COUNTS: [(&str, &str); 3] = [
    ("tidings_slots_reused_total", "slots used again"),
    ("tidings_segments_freed_total", "segments freed"),
    ("tidings_segments_copied_total", "segments copied together"),
];
/// How often it is looked whether the space on the disk still changes.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// It does not when it was the same for so long,
const QUIET: Duration = Duration::from_secs(5);
/// but for so many bytes: the catalog never rests.
const NOISE_BYTES: u64 = 8 << 20;
/// Looking ends after so long.
const PATIENCE: Duration = Duration::from_secs(60);
/// Longer than writing takes.
const ENDLESS: Duration = Duration::from_secs(24 * 3600);

pub async fn measure(options: &Options, report: &mut Report) -> Result<()> {
    let kept = size_text(options.sizes.kept);
    report.between(format!("uniform, {kept} kept"), "mixed");
    for side in [Side::Without, Side::With] {
        let peer = Peer::start(options).await?;
        let measured = one(&peer, options, (side, report)).await;
        peer.said(measured)?;
        peer.end().await?;
    }
    Ok(())
}

async fn one(peer: &Peer, options: &Options, (side, report): (Side, &mut Report)) -> Result<()> {
    let sizes = &options.sizes;
    let short = TOPICS - LONG;
    match side {
        Side::Without => {
            let each = sizes.kept / u64::from(TOPICS);
            peer.make_topics(0..TOPICS, Some(each)).await?;
        }
        Side::With => {
            let each = sizes.kept / (u64::from(short) + u64::from(LONG) * LONGER);
            peer.make_topics(0..short, Some(each)).await?;
            let longer = Some(each * LONGER);
            peer.make_topics(short..TOPICS, longer).await?;
        }
    }
    let large = Work {
        topics: TOPICS,
        ..Work::new(Name::Publish1k, sizes.in_flight as usize)
    };
    let bytes = sizes.kept * u64::from(sizes.times);
    peer.fill(&large, 0, bytes).await?;
    count(peer, &large, (bytes, ENDLESS), ("large", side, report)).await?;
    space(peer, "large", (side, report)).await?;
    let small = Work {
        publishers: 1,
        batch: SMALL_BATCH,
        turn: SMALL_BATCH,
        in_flight: SMALL_BATCH,
        ..large
    };
    let within = sizes.seconds * SMALL_TIMES;
    count(peer, &small, (u64::MAX, within), ("16 KiB", side, report)).await?;
    space(peer, "16 KiB", (side, report)).await?;
    report.note(side, "rss, the most", peer.peak()?);
    Ok(())
}

/// Publishes, and notes what that made the server write.
async fn count(
    peer: &Peer,
    work: &Work,
    (bytes, within): (u64, Duration),
    (groups, side, report): (&str, Side, &mut Report),
) -> Result<()> {
    let counts_before = counts(peer).await?;
    let before = (peer.server.used()?, peer.figures().await?);
    let records = peer.write((work, 0), bytes, within).await?;
    let after = (peer.server.used()?, peer.figures().await?);
    let payload = (records * work.size as u64) as f64;
    let written = after.0.since(&before.0).written_bytes as f64;
    let grown = |name: &str| {
        let both = after.1.get(name).zip(before.1.get(name));
        let both = both.with_context(|| format!("the peer tells nothing of {name}"));
        both.map(|(after, before)| after.saturating_sub(before) as f64)
    };
    let group = grown("payload_bytes")? / grown("syncs")?.max(1.0) / 1024.0;
    let mut note = |what: &str, figure| {
        report.note(side, &format!("{groups} groups: {what}"), figure);
    };
    note("bytes of a group, mean", (group, Unit::Kib));
    note("written by payload", (written / payload, Unit::BytePerByte));
    let counts = counts(peer).await?.into_iter().zip(counts_before);
    for ((_, what), (after, before)) in COUNTS.iter().zip(counts) {
        note(what, ((after - before) as f64, Unit::Count));
    }
    Ok(())
}

async fn counts(peer: &Peer) -> Result<Vec<u64>> {
    let mut counts = Vec::new();
    for (name, _) in COUNTS {
        counts.push(peer.metric(name).await?);
    }
    Ok(counts)
}

/// Notes what is on the disk against what topics keep: at once, and when nothing changes any more.
async fn space(peer: &Peer, groups: &str, (side, report): (Side, &mut Report)) -> Result<()> {
    let what = |when: &str| format!("{groups} groups: on the disk by live, {when}");
    let ratio = async || {
        let live = peer.live_bytes().await?.max(1);
        let disk = peer.server.disk_bytes();
        anyhow::Ok((disk as f64 / live as f64, Unit::BytePerByte))
    };
    report.note(side, &what("at once"), ratio().await?);
    let began = Instant::now();
    let (mut bytes, mut last) = (peer.server.disk_bytes(), began);
    while last.elapsed() < QUIET && began.elapsed() < PATIENCE {
        tokio::time::sleep(LOOK_EVERY).await;
        let now = peer.server.disk_bytes();
        if now.abs_diff(bytes) > NOISE_BYTES {
            (bytes, last) = (now, Instant::now());
        }
    }
    report.note(side, &what("at rest"), ratio().await?);
    Ok(())
}
