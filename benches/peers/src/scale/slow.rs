//! Publishers alone, beside a subscriber that takes one record a second of what they publish, and beside a
//! reader that reads everything else there is, from its beginning, as fast as it goes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use tidings::client::{DeliveryRef, Subscriber, SubscriberOptions};
use tidings::protocol::api::Position;
use tidings::types::Address;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::peer::{OTHERS, Peer};
use super::report::{Report, Side, Unit};
use super::{Options, size_text};
use crate::load::Window;
use crate::systems::tidings::{connect, name};
use crate::work::{Name, Work};

/// The slow one takes a record this often.
const SLOW_EVERY: Duration = Duration::from_secs(1);

/// Who is there besides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Beside {
    Nobody,
    Slow,
    CatchUp,
}

pub async fn measure(options: &Options, report: &mut Report) -> Result<()> {
    let behind = size_text(options.sizes.behind);
    report.between("alone", format!("beside (catch-up over {behind})"));
    let peer = Peer::start(options).await?;
    peer.make_topics(0..1, Some(options.sizes.keep)).await?;
    peer.make_topics(OTHERS..OTHERS + 1, None).await?;
    let work = Work::new(Name::Publish1k, options.sizes.in_flight as usize);
    peer.fill(&work, OTHERS, options.sizes.behind).await?;
    peer.churn(options).await?;
    let measured = in_turns(&peer, options, report).await;
    peer.said(measured)?;
    report.note(Side::With, "rss, the most", peer.peak()?);
    peer.end().await
}

async fn in_turns(peer: &Peer, options: &Options, report: &mut Report) -> Result<()> {
    for round in options.rounds() {
        let mut order = [Beside::Nobody, Beside::Slow, Beside::CatchUp];
        order.rotate_left(round as usize % 3);
        for beside in order {
            publish(peer, options, (beside, report)).await?;
        }
        let window = Window::starting(options.sizes.warm, options.sizes.seconds);
        let reader = CatchUp::start(peer.door.index(), window);
        tokio::time::sleep_until(window.end).await;
        let rate = reader.end().await? as f64 / options.sizes.seconds.as_secs_f64();
        report.note(Side::Without, READER, (rate, Unit::PerSecond));
    }
    Ok(())
}

const READER: &str = "the catch-up reader itself, records";

async fn publish(
    peer: &Peer,
    options: &Options,
    (beside, report): (Beside, &mut Report),
) -> Result<()> {
    let work = Work::new(Name::Publish1k, options.sizes.in_flight as usize);
    let crew = peer.crew(&work, 0).await?;
    let window = Window::starting(options.sizes.warm, options.sizes.seconds);
    let index = peer.door.index();
    let catch_up = (beside == Beside::CatchUp).then(|| CatchUp::start(index, window));
    let slow = (beside == Beside::Slow).then(|| tokio::spawn(read_slowly(index.clone())));
    let published = crew.publish(window).await?;
    ensure!(
        published.in_window > 0,
        "nothing was acknowledged meanwhile"
    );
    let seconds = options.sizes.seconds.as_secs_f64();
    if let Some(catch_up) = catch_up {
        let rate = catch_up.end().await? as f64 / seconds;
        report.note(Side::With, READER, (rate, Unit::PerSecond));
    }
    if let Some(slow) = slow {
        ended_early(slow).await?;
    }
    let rate = (published.in_window as f64 / seconds, Unit::PerSecond);
    let title = work.title();
    let [by_slow, by_catch_up] =
        ["a slow subscriber", "a catch-up"].map(|who| format!("{title}: beside {who}"));
    match beside {
        // What both are compared with.
        Beside::Nobody => {
            report.note(Side::Without, &by_slow, rate);
            report.note(Side::Without, &by_catch_up, rate);
        }
        Beside::Slow => report.note(Side::With, &by_slow, rate),
        Beside::CatchUp => report.note(Side::With, &by_catch_up, rate),
    }
    Ok(())
}

/// Ends a reader that goes on for ever, unless it has failed.
async fn ended_early(reader: JoinHandle<Result<()>>) -> Result<()> {
    if reader.is_finished() {
        return reader.await?;
    }
    reader.abort();
    Ok(())
}

/// One record, its commit, and a pause.
async fn read_slowly(index: Address) -> Result<()> {
    let client = connect(&index).await?;
    let options = SubscriberOptions::durable("slow".parse()?, Some(Position::Beginning));
    let mut subscriber = client.subscriber(&name(0)?, options).await?;
    loop {
        // What was discarded before it was read comes as a gap.
        subscriber.next().await?;
        subscriber.commit().await?;
        tokio::time::sleep(SLOW_EVERY).await;
    }
}

/// A reader that begins again when it is at the end.
struct CatchUp {
    /// Records that came in the window.
    count: Arc<AtomicU64>,
    reading: JoinHandle<Result<()>>,
}

impl CatchUp {
    fn start(index: &Address, window: Window) -> Self {
        let count = Arc::new(AtomicU64::new(0));
        let reading = tokio::spawn(read_again(index.clone(), window, count.clone()));
        Self { count, reading }
    }

    /// How many records came in the window.
    async fn end(self) -> Result<u64> {
        ended_early(self.reading).await?;
        match self.count.load(Ordering::Relaxed) {
            0 => bail!("the catch-up reader read nothing"),
            count => Ok(count),
        }
    }
}

async fn read_again(index: Address, window: Window, count: Arc<AtomicU64>) -> Result<()> {
    let client = connect(&index).await?;
    loop {
        let options = SubscriberOptions::passing(Position::Beginning);
        let mut subscriber = client.subscriber(&name(OTHERS)?, options).await?;
        while subscriber.position() < subscriber.end_offset() {
            let came = take(&mut subscriber).await?;
            if window.holds(Instant::now()) {
                count.fetch_add(came, Ordering::Relaxed);
            }
        }
    }
}

/// What is at hand next: how many records.
pub async fn take(subscriber: &mut Subscriber) -> Result<u64> {
    subscriber.ready().await?;
    let mut count = 0;
    while let Some(delivery) = subscriber.next_at_hand()? {
        match delivery {
            DeliveryRef::Record(_) => count += 1,
            DeliveryRef::Gap(gap) => bail!("records are missing: {gap:?}"),
        }
    }
    Ok(count)
}
