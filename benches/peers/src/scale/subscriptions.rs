//! A peer without subscriptions, and one with many: durable ones of the topic that is published to, and
//! readers that wait at the end of other topics, each with connections of its own.

use anyhow::{Result, bail};
use futures_util::{StreamExt, TryStreamExt, stream};
use tidings::client::{Client, SubscriberOptions};
use tidings::protocol::api::Position;
use tokio::task::JoinSet;

use super::Options;
use super::pair::Pair;
use super::peer::{OTHERS, Peer};
use super::report::Report;
use crate::report::grouped;
use crate::systems::tidings::{connect, name};

/// Subscriptions that are made at the same time.
const AT_ONCE: usize = 64;

pub async fn measure(options: &Options, report: &mut Report) -> Result<()> {
    let count = options.sizes.subscriptions;
    let text = grouped(f64::from(count));
    report.between("none", format!("{text} durable, {text} waiting"));
    let pair = Pair::start(options).await?;
    pair.with.make_topics(OTHERS..OTHERS + count, None).await?;
    stream::iter(0..count)
        .map(|number| make_durable(pair.with.client(), number))
        .buffer_unordered(AT_ONCE)
        .try_collect::<()>()
        .await?;
    let mut waiting = wait_for_nothing(&pair.with, count).await?;
    pair.peaks("rss, the most, before the loads", report)?;
    pair.compare(options, report).await?;
    if let Some(ended) = waiting.try_join_next() {
        let error = ended?;
        bail!("a reader that was to wait ended: {error:#}");
    }
    // None of them outlives its peer, which it would try to reach again.
    waiting.shutdown().await;
    pair.end().await
}

async fn make_durable(client: &Client, number: u32) -> Result<()> {
    let subscription = format!("reader-{number}").parse()?;
    let topic = name(0)?;
    let made = client.create_subscription(&topic, &subscription, Position::End, false);
    made.await?;
    Ok(())
}

/// Readers, each at the end of a topic that nobody writes to. One that ends has failed.
async fn wait_for_nothing(peer: &Peer, count: u32) -> Result<JoinSet<anyhow::Error>> {
    let mut waiting = JoinSet::new();
    for topic in OTHERS..OTHERS + count {
        let client = connect(peer.door.index()).await?;
        let options = SubscriberOptions::passing(Position::End);
        let mut subscriber = client.subscriber(&name(topic)?, options).await?;
        waiting.spawn(async move {
            match subscriber.next().await {
                Ok(delivery) => anyhow::anyhow!("nobody published {delivery:?}"),
                Err(error) => error.into(),
            }
        });
    }
    Ok(waiting)
}
