//! Topics that were written together, read one by one and all at once; and again when most of them are
//! gone and what remains was copied together.
//!
//! ```text
//!   1,000 topics written in turn ─> read ─> 600 deleted ─> until nothing is copied any more ─> read again
//! ```
//!
//! A segment is copied when at most half of its slot lives, so deleting six of ten brings it about within
//! seconds; how much was copied is told. Before it is read what lies in the page cache is let go, but for the
//! second of two readings of the same topic.

use std::fs::{self, File};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures_util::{StreamExt, TryStreamExt, stream};
use rustix::fs::{Advice, fadvise};
use tidings::client::{Subscriber, SubscriberOptions};
use tidings::protocol::api::Position;
use tidings::types::Address;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::peer::Peer;
use super::report::{Report, Side, Unit};
use super::slow::take;
use super::{Options, size_text};
use crate::report::grouped;
use crate::systems::tidings::{connect, name};
use crate::work::{Name, Work};

/// Of ten topics so many stay.
const KEPT_OF_TEN: u32 = 4;
/// Topics deleted at the same time.
const AT_ONCE: usize = 16;
/// What each of many readers asks for at once, in bytes.
const MANY_FETCH_BYTES: usize = 128 << 10;
/// How long all readers together may take.
const PATIENCE: Duration = Duration::from_secs(600);
/// How often it is looked at how far copying is.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Copying has ended when nothing was copied for so long.
const QUIET: Duration = Duration::from_secs(20);

pub async fn measure(options: &Options, report: &mut Report) -> Result<()> {
    let (topics, spread) = (options.sizes.together, options.sizes.spread);
    let many = grouped(f64::from(topics));
    report.between(
        format!("{} in {many} topics", size_text(spread)),
        "copied together",
    );
    let peer = Peer::start(options).await?;
    let measured = before_and_after(&peer, options, report).await;
    peer.said(measured)?;
    report.note(Side::With, "rss, the most", peer.peak()?);
    peer.end().await
}

async fn before_and_after(peer: &Peer, options: &Options, report: &mut Report) -> Result<()> {
    let topics = options.sizes.together;
    peer.make_topics(0..topics, None).await?;
    let piece = options.sizes.piece as usize;
    let work = Work {
        topics,
        batch: piece,
        turn: piece,
        ..Work::new(Name::Topics1000, piece)
    };
    // One call of each topic at a time, so that no calls are joined: a group holds as many topics as it can.
    let in_flight = piece * work.topics_of(0).len();
    let work = Work { in_flight, ..work };
    let began = Instant::now();
    let written = peer.fill(&work, 0, options.sizes.spread).await?;
    let rate = written as f64 / began.elapsed().as_secs_f64();
    let what = format!("writing, batches of {piece}, records");
    report.note(Side::Without, &what, (rate, Unit::PerSecond));
    read(peer, topics, options, (Side::Without, report)).await?;
    report.note(Side::Without, "on the disk", peer.disk());
    let kept = topics * KEPT_OF_TEN / 10;
    delete(peer, kept..topics).await?;
    let (copied, seconds) = until_copied(peer).await?;
    report.note(Side::With, "segments copied", (copied as f64, Unit::Count));
    report.note(
        Side::With,
        "until all were copied",
        (seconds, Unit::Seconds),
    );
    report.note(Side::With, "on the disk", peer.disk());
    ensure!(
        copied > 0,
        "nothing was copied together: is it more than a few slots? (--spread)"
    );
    read(peer, kept, options, (Side::With, report)).await
}

async fn delete(peer: &Peer, topics: std::ops::Range<u32>) -> Result<()> {
    stream::iter(topics)
        .map(|topic| async move { Ok(peer.client().delete_topic(&name(topic)?).await?) })
        .buffer_unordered(AT_ONCE)
        .try_collect::<()>()
        .await
}

/// Waits until nothing is copied any more: how many segments were, and how long the last one took.
async fn until_copied(peer: &Peer) -> Result<(u64, f64)> {
    let began = Instant::now();
    let (mut copied, mut last) = (0, began);
    while last.elapsed() < QUIET {
        tokio::time::sleep(LOOK_EVERY).await;
        let now = peer.metric("tidings_segments_copied_total").await?;
        if now != copied {
            (copied, last) = (now, Instant::now());
        }
    }
    Ok((copied, (last - began).as_secs_f64()))
}

/// Reads single topics, another one in each round, and all of them at once.
async fn read(
    peer: &Peer,
    topics: u32,
    options: &Options,
    (side, report): (Side, &mut Report),
) -> Result<()> {
    let index = peer.door.index();
    let rounds = options.sizes.rounds;
    for round in options.rounds() {
        let topic = (u64::from(topics) * u64::from(round) / u64::from(rounds)) as u32;
        let_go(peer.server.dir());
        for what in ["one topic, from the disk", "one topic, again"] {
            let mut readers = readers(index, &[topic], None).await?;
            let began = Instant::now();
            let count = read_to_end(readers.remove(0)).await?;
            let rate = count as f64 / began.elapsed().as_secs_f64();
            report.note(side, &format!("{what}, records"), (rate, Unit::PerSecond));
        }
        let (text, rate) = all_at_once(peer, topics, options).await?;
        report.note(side, &text, (rate, Unit::PerSecond));
    }
    Ok(())
}

/// As many readers as there were topics: records per second of all.
async fn all_at_once(peer: &Peer, topics: u32, options: &Options) -> Result<(String, f64)> {
    let many = options.sizes.together;
    let numbers: Vec<u32> = (0..many).map(|number| number % topics).collect();
    let readers = readers(peer.door.index(), &numbers, Some(MANY_FETCH_BYTES)).await?;
    let_go(peer.server.dir());
    let began = Instant::now();
    let mut reading = JoinSet::new();
    readers.into_iter().for_each(|reader| {
        reading.spawn(read_to_end(reader));
    });
    let mut count = 0;
    while let Some(read) = tokio::time::timeout_at(began + PATIENCE, reading.join_next())
        .await
        .with_context(|| format!("not all was read within {PATIENCE:?}"))?
    {
        count += read??;
    }
    let rate = count as f64 / began.elapsed().as_secs_f64();
    let text = format!("{} readers at once, records", grouped(f64::from(many)));
    Ok((text, rate))
}

/// Readers at the beginning of topics, each with connections of its own.
async fn readers(
    index: &Address,
    topics: &[u32],
    fetch_bytes: Option<usize>,
) -> Result<Vec<Subscriber>> {
    let mut readers = Vec::with_capacity(topics.len());
    for topic in topics {
        let mut options = SubscriberOptions::passing(Position::Beginning);
        options.max_bytes = fetch_bytes.unwrap_or(options.max_bytes);
        let client = connect(index).await?;
        readers.push(client.subscriber(&name(*topic)?, options).await?);
    }
    Ok(readers)
}

async fn read_to_end(mut subscriber: Subscriber) -> Result<u64> {
    let mut count = 0;
    while subscriber.position() < subscriber.end_offset() {
        count += take(&mut subscriber).await?;
    }
    Ok(count)
}

/// Lets go of what the page cache has of the files below a directory; what goes away meanwhile has nothing there.
fn let_go(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            let_go(&entry.path());
        } else if let Ok(file) = File::open(entry.path()) {
            // A hint: where it is not taken, the figures are those of a warm cache.
            let _ = fadvise(file, 0, None, Advice::DontNeed);
        }
    }
}
