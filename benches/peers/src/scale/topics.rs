//! A peer with one topic, and one with many others beside it.

use anyhow::Result;
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use tidings::client::{Client, Message, PublisherOptions};

use super::Options;
use super::pair::Pair;
use super::peer::{OTHERS, Peer};
use super::report::{Report, Side, Unit};
use crate::load::Payloads;
use crate::report::grouped;
use crate::systems::tidings::name;

/// Messages in each of the others.
const MESSAGES: usize = 10;
/// Their size.
const MESSAGE_BYTES: usize = 100;
/// Topics that are written to at the same time.
const AT_ONCE: usize = 64;

pub async fn measure(options: &Options, report: &mut Report) -> Result<()> {
    let topics = options.sizes.topics;
    let many = format!("{} others", grouped(f64::from(topics)));
    report.between("one topic", many);
    let pair = Pair::start(options).await?;
    let began = tokio::time::Instant::now();
    pair.with.make_topics(OTHERS..OTHERS + topics, None).await?;
    let seconds = began.elapsed().as_secs_f64();
    report.note(Side::With, "making them", (seconds, Unit::Seconds));
    write_some(&pair.with, topics).await?;
    pair.peaks("rss, the most, before the loads", report)?;
    pair.compare(options, report).await?;
    for (side, peer) in pair.sides() {
        report.note(side, "on the disk", peer.disk());
    }
    pair.end().await
}

/// A few messages into each.
async fn write_some(peer: &Peer, topics: u32) -> Result<()> {
    let mut payloads = Payloads::new()?;
    let payloads: Vec<Bytes> = (0..MESSAGES).map(|_| payloads.cut(MESSAGE_BYTES)).collect();
    stream::iter(OTHERS..OTHERS + topics)
        .map(|topic| write(peer.client(), topic, &payloads))
        .buffer_unordered(AT_ONCE)
        .try_collect::<()>()
        .await
}

async fn write(client: &Client, topic: u32, payloads: &[Bytes]) -> Result<()> {
    let name = name(topic)?;
    let publisher = client.publisher(&name, PublisherOptions::default()).await?;
    let messages: Vec<Message> = payloads.iter().cloned().map(Message::new).collect();
    for ack in publisher.send_batch(&messages).await? {
        ack.await?;
    }
    publisher.close().await?;
    Ok(())
}
