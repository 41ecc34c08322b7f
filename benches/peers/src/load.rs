//! Publishers that keep a window of unacknowledged records full, and count what is acknowledged.
//!
//! ```text
//!    start      begin                         end
//!      |  warm    |         measured            |  what is under way
//!   ───┴──────────┴─────────────────────────────┴────────────────────►
//! ```
//!
//! Only acknowledgements that come between `begin` and `end` count, so neither the
//! start nor the end of the load colours the figure.

use anyhow::{Context, Result};
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use hdrhistogram::Histogram;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::systems::{Publisher, Running, Turn};
use crate::work::Work;

/// Random bytes that payloads are cut from: more than any cache of a processor core that is near.
const POOL_BYTES: usize = 4 << 20;
/// Pools that publishers share where there are more publishers.
const POOLS_MAX: u32 = 8;
/// The longest latency that is told apart from longer ones.
const LATENCY_MAX: Duration = Duration::from_secs(600);

/// When it is measured.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    /// What is acknowledged before does not count.
    pub begin: Instant,
    /// Nothing is sent from here on.
    pub end: Instant,
    /// Nor more than so many records of all publishers.
    pub records_max: u64,
}

impl Window {
    /// From now on.
    pub fn starting(warm: Duration, measured: Duration) -> Self {
        let begin = Instant::now() + warm;
        Self {
            begin,
            end: begin + measured,
            records_max: u64::MAX,
        }
    }

    /// Whether it is open at that moment.
    pub fn holds(&self, moment: Instant) -> bool {
        (self.begin..self.end).contains(&moment)
    }
}

/// Latencies, in nanoseconds.
#[derive(Debug, Clone)]
pub struct Latencies(Histogram<u64>);

impl Default for Latencies {
    fn default() -> Self {
        let most = LATENCY_MAX.as_nanos() as u64;
        Self(Histogram::new_with_bounds(1, most, 3).expect("these bounds are in order"))
    }
}

impl Latencies {
    /// Notes that so many records took so long.
    pub fn note(&mut self, latency: Duration, records: u64) {
        let nanos = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        self.0.saturating_record_n(nanos.max(1), records);
    }

    fn add(&mut self, other: &Self) {
        self.0.add(&other.0).expect("the bounds are the same");
    }

    /// A percentile in milliseconds; `None` of nothing.
    pub fn millis(&self, percent: f64) -> Option<f64> {
        (!self.0.is_empty()).then(|| self.0.value_at_percentile(percent) as f64 / 1e6)
    }
}

/// What came of it.
#[derive(Debug, Clone, Default)]
pub struct Published {
    /// Acknowledged in all.
    pub acknowledged: u64,
    /// Acknowledged in the window.
    pub in_window: u64,
    /// Of those in the window: from sending to acknowledgement.
    pub latencies: Latencies,
}

impl Published {
    fn note(&mut self, began: Instant, records: u64, window: &Window) {
        let now = Instant::now();
        self.acknowledged += records;
        if window.holds(now) {
            self.in_window += records;
            self.latencies.note(now - began, records);
        }
    }

    fn add(&mut self, other: &Self) {
        self.acknowledged += other.acknowledged;
        self.in_window += other.in_window;
        self.latencies.add(&other.latencies);
    }
}

/// Random payloads, cut one after the other from a pool of random bytes: they cost the client
/// nothing, and nothing on the way can be clever about them.
#[derive(Debug, Clone)]
pub struct Payloads {
    pool: Bytes,
    at: usize,
}

impl Payloads {
    /// A pool of its own.
    pub fn new() -> Result<Self> {
        let mut pool = vec![0; POOL_BYTES];
        getrandom::fill(&mut pool).context("no randomness")?;
        let pool = pool.into();
        Ok(Self { pool, at: 0 })
    }

    /// From the same pool, beginning elsewhere.
    fn share(&self, number: usize) -> Self {
        // A prime, so that few begin at the same place.
        let at = number * 104_729 % self.pool.len();
        Self {
            pool: self.pool.clone(),
            at,
        }
    }

    /// The next one.
    pub fn cut(&mut self, size: usize) -> Bytes {
        if self.at + size > self.pool.len() {
            // Begins elsewhere than the round before.
            self.at = (self.at + size) % size.min(61);
        }
        let payload = self.pool.slice(self.at..self.at + size);
        self.at += size;
        payload
    }
}

/// Publishers, connected and ready.
pub struct Crew {
    work: Work,
    publishers: Vec<(Publisher, usize)>,
    pools: Vec<Payloads>,
}

impl Crew {
    /// Connects them all.
    pub async fn ready(running: &Running, work: &Work) -> Result<Self> {
        let mut publishers = Vec::new();
        for number in 0..work.publishers {
            let topics = work.topics_of(number);
            let publisher = running.publisher(&topics, work).await?;
            publishers.push((publisher, topics.len()));
        }
        Self::new(work, publishers)
    }

    /// Of publishers that are connected, each with the number of its topics.
    pub fn new(work: &Work, publishers: Vec<(Publisher, usize)>) -> Result<Self> {
        // Now: it takes some processor time, and the load is to begin when its window does.
        let pools = (0..work.publishers.min(POOLS_MAX)).map(|_| Payloads::new());
        Ok(Self {
            work: *work,
            publishers,
            pools: pools.collect::<Result<_>>()?,
        })
    }

    /// Publishes until the window closes and all is acknowledged.
    pub async fn publish(self, window: Window) -> Result<Published> {
        let mut tasks = JoinSet::new();
        let share = window.records_max / u64::from(self.work.publishers);
        for (number, (publisher, topics)) in self.publishers.into_iter().enumerate() {
            let one = OnePublisher {
                publisher,
                topics,
                work: self.work,
                window,
                share,
                payloads: self.pools[number % self.pools.len()].share(number),
            };
            tasks.spawn(one.run());
        }
        let mut all = Published::default();
        while let Some(one) = tasks.join_next().await {
            all.add(&one??);
        }
        Ok(all)
    }
}

struct OnePublisher {
    publisher: Publisher,
    /// How many topics it has.
    topics: usize,
    work: Work,
    window: Window,
    /// Records it may send.
    share: u64,
    payloads: Payloads,
}

impl OnePublisher {
    async fn run(mut self) -> Result<Published> {
        let records = self.work.turn;
        let (mut turns, mut in_flight) = (0, 0);
        let mut published = Published::default();
        let mut pending = FuturesUnordered::new();
        loop {
            while in_flight + records <= self.work.in_flight && self.goes_on(turns) {
                let began = Instant::now();
                let turn = self.turn(turns as usize % self.topics);
                let acknowledged = self.publisher.send(turn).await?;
                pending.push(async move { acknowledged.await.map(|()| began) });
                in_flight += records;
                turns += 1;
            }
            let Some(began) = pending.next().await else {
                return Ok(published);
            };
            published.note(began?, records as u64, &self.window);
            in_flight -= records;
        }
    }

    fn goes_on(&self, turns: u64) -> bool {
        turns * (self.work.turn as u64) < self.share && Instant::now() < self.window.end
    }

    fn turn(&mut self, topic: usize) -> Turn {
        let (work, payloads) = (&self.work, &mut self.payloads);
        Turn {
            topic,
            payloads: (0..work.turn).map(|_| payloads.cut(work.size)).collect(),
            together: work.batch > 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_have_their_size_and_differ() {
        let mut payloads = Payloads::new().expect("there is randomness");
        let first: Vec<Bytes> = (0..POOL_BYTES / 1000).map(|_| payloads.cut(1000)).collect();
        let again: Vec<Bytes> = (0..first.len()).map(|_| payloads.cut(1000)).collect();
        assert!(
            first
                .iter()
                .chain(&again)
                .all(|payload| payload.len() == 1000)
        );
        assert!(first.iter().zip(&again).all(|(a, b)| a != b));
    }

    #[test]
    fn only_what_comes_in_the_window_counts() {
        let now = Instant::now();
        let second = Duration::from_secs(1);
        let mut published = Published::default();
        for (begin, end) in [
            (now - second, now + second),
            (now + second, now + 2 * second),
        ] {
            let records_max = u64::MAX;
            let window = Window {
                begin,
                end,
                records_max,
            };
            published.note(now, 10, &window);
        }
        assert_eq!((published.acknowledged, published.in_window), (20, 10));
    }
}
