//! `connections`: what many of them cost the server, and those who work beside them.
//!
//! ```text
//!   acknowledgements of a publisher | open N, rest | the same again | close | 8 publishers | N publishers
//! ```

use std::time::Duration;

use clap::Args;
use serde::Serialize;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::cli::bench::ledger::STAMP_BYTES;
use crate::cli::bench::line::Line;
use crate::cli::bench::load::{Load, Loaded};
use crate::cli::bench::progress::{Counter, Goal, Progress};
use crate::cli::bench::report::{self, Latencies, LatencySummary, ServerUse};
use crate::cli::bench::sampler::Sampler;
use crate::cli::bench::topics::Topics;
use crate::cli::fail::{Failure, Result};
use crate::cli::{Context, output, values};
use crate::client::{Client, ConnectOptions};
use crate::limits;
use crate::types::{Address, Durability};

/// How many are opened at the same time.
const OPENED_AT_ONCE: u32 = 32;
/// How long nothing happens between opening and measuring. Opening keeps this process busy, and where the
/// system then lets its threads run differs for some seconds from where they ran before: without the rest
/// a message takes a tenth longer, even if all connections are closed again.
const REST: Duration = Duration::from_secs(4);
/// So many publishers the others are compared with.
const FEW_PUBLISHERS: u32 = 8;

/// What is opened.
#[derive(Debug, Clone, Args)]
pub struct Crowd {
    /// Number of idle connections, opened 32 at a time: they say hello, and nothing more
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    #[arg(value_parser = values::number_up_to::<100_000>)]
    connections: u32,
    /// Compare so many publishers at once, each with connections of its own, with 8
    #[arg(long, value_name = "N", value_parser = values::number_up_to::<10_000>)]
    publishers: Option<u32>,
    /// Number of topics the publishers share
    #[arg(long, value_name = "N", default_value_t = 1)]
    #[arg(value_parser = values::number_up_to::<100_000>)]
    topics: u32,
    /// Size of a message
    #[arg(long, value_name = "SIZE", default_value = "100", value_parser = values::size)]
    size: u64,
    /// Messages the compared publishers send with one call
    #[arg(long, value_name = "N", default_value_t = 1)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=65_536))]
    batch: u32,
    /// Messages of one of the compared publishers that may be unacknowledged
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    #[arg(value_parser = values::number_up_to::<1_000_000>)]
    in_flight: u32,
    /// How long each measurement takes; there are two, and two more with --publishers
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = values::duration)]
    duration: Duration,
    /// Durability of the topics: fsync or os
    #[arg(long, value_name = "DURABILITY", default_value = "fsync")]
    durability: Durability,
}

#[derive(Debug, Serialize)]
struct Report {
    connections: u32,
    open_seconds: f64,
    /// From connecting to the answer to the hello.
    accept_us: LatencySummary,
    rss_bytes_before: u64,
    rss_bytes_with: u64,
    rss_bytes_per_connection: f64,
    /// Of an acknowledgement, without the connections.
    latency_us_before: LatencySummary,
    /// Of an acknowledgement, with them.
    latency_us: LatencySummary,
    /// The few and the many; `null` if that was not asked for.
    publishers: Option<[Crew; 2]>,
    server: ServerUse,
}

/// Publishers that worked at the same time.
#[derive(Debug, Serialize)]
struct Crew {
    publishers: u32,
    records_per_second: f64,
    acknowledged: u64,
    latency_us: LatencySummary,
}

/// Measures and prints what was found.
pub async fn run(crowd: Crowd, context: &Context, stop: CancellationToken) -> Result {
    let most = limits::MESSAGE_BYTES_MAX as u64;
    if !(STAMP_BYTES as u64..=most).contains(&crowd.size) {
        let size = crowd.size;
        return Err(Failure::usage(format!(
            "--size {size}: expected {STAMP_BYTES} to {most} bytes"
        )));
    }
    let made = (crowd.topics, crowd.durability);
    let topics = Topics::create(&context.client, &context.output, made).await?;
    let measurement = Measurement {
        crowd: &crowd,
        context,
        topics: &topics,
        stop,
    };
    let report = measurement.measure().await;
    topics.remove(&context.output).await;
    let report = report?;
    let lines = output::card(&lines(&report));
    context.output.value(&report, &lines)
}

struct Measurement<'a> {
    crowd: &'a Crowd,
    context: &'a Context,
    topics: &'a Topics,
    stop: CancellationToken,
}

impl Measurement<'_> {
    async fn measure(&self) -> Result<Report> {
        let host = self.context.client.lookup(&self.topics.names[0]).await?;
        let peer = host.address;
        let sampler = Sampler::start(self.context.client.clone()).await;
        let before = self.one_publisher("publishing").await?;
        let rss_bytes_before = self.rss_bytes(&peer).await?;
        let began = Instant::now();
        let (lines, accepted) = self.open(&peer).await?;
        let open_seconds = report::seconds(began.elapsed());
        self.rest().await;
        let rss_bytes_with = self.rss_bytes(&peer).await?;
        let with = self.one_publisher("publishing beside them").await?;
        let closed = lines.iter().filter(|line| !line.is_idle()).count();
        if closed > 0 {
            let all = lines.len();
            let text = format!("{closed} of {all} idle connections were closed by {peer}");
            return Err(Failure::check(text));
        }
        drop(lines);
        let publishers = match self.crowd.publishers {
            Some(many) => Some([
                self.crew(&peer, FEW_PUBLISHERS).await?,
                self.crew(&peer, many).await?,
            ]),
            None => None,
        };
        let crews = publishers.iter().flatten().map(|crew| crew.acknowledged);
        let acknowledged = before.acknowledged() + with.acknowledged() + crews.sum::<u64>();
        let grown = rss_bytes_with.saturating_sub(rss_bytes_before) as f64;
        let each = grown / f64::from(self.crowd.connections);
        Ok(Report {
            connections: self.crowd.connections,
            open_seconds,
            accept_us: accepted.summary(),
            rss_bytes_before,
            rss_bytes_with,
            rss_bytes_per_connection: each.round(),
            latency_us_before: before.latencies.summary(),
            latency_us: with.latencies.summary(),
            publishers,
            server: sampler.stop(acknowledged * self.crowd.size).await,
        })
    }

    async fn rss_bytes(&self, peer: &Address) -> Result<u64> {
        let figures = self.context.client.figures(peer).await?;
        Ok(figures.get("rss_bytes").unwrap_or(0))
    }

    async fn rest(&self) {
        self.context.output.note("resting");
        tokio::select! {
            () = tokio::time::sleep(REST) => {}
            () = self.stop.cancelled() => {}
        }
    }

    fn load(&self, publishers: u32, clients: Vec<Client>) -> Load {
        Load {
            clients,
            run: self.topics.run,
            topics: self.topics.names.clone(),
            publishers,
            size: self.crowd.size as usize,
            batch: self.crowd.batch as usize,
            in_flight: self.crowd.in_flight as usize,
            rate: None,
            duration: self.crowd.duration,
            messages_max: None,
            stop: self.stop.clone(),
            counter: Counter::default(),
        }
    }

    /// A publisher that waits for each acknowledgement.
    async fn one_publisher(&self, what: &str) -> Result<Loaded> {
        let load = self.load(1, vec![self.context.client.clone()]);
        let load = Load {
            topics: load.topics[..1].to_vec(),
            batch: 1,
            in_flight: 1,
            ..load
        };
        self.publish(load, what).await
    }

    async fn publish(&self, mut load: Load, what: &str) -> Result<Loaded> {
        let goal = ("acknowledged", Goal::Time(load.duration));
        let progress = Progress::start(&self.context.output, what, goal);
        load.counter = progress.counter();
        let mut loaded = load.run_from(load.soon()).await?;
        if self.stop.is_cancelled() {
            return Err(Failure::interrupted("interrupted"));
        }
        match loaded.first_error.take() {
            Some(error) => Err(error.into()),
            None => Ok(loaded),
        }
    }

    /// Opens all connections, some at a time; also how long each took to be accepted.
    async fn open(&self, peer: &Address) -> Result<(Vec<Line>, Latencies)> {
        let goal = ("opened", Goal::Count(self.crowd.connections.into()));
        let progress = Progress::start(&self.context.output, "opening connections", goal);
        let (peer, counter) = (peer.clone(), progress.counter());
        let opened = counter.clone();
        let all = at_once(self.crowd.connections, &self.stop, move || {
            let (peer, opened) = (peer.clone(), opened.clone());
            async move {
                let began = Instant::now();
                let (line, _) = Line::open(&peer).await?;
                opened.add(1);
                Ok((line, began.elapsed()))
            }
        })
        .await
        .map_err(|failure| not_all_opened(failure, (counter.get(), self.crowd.connections)))?;
        let mut latencies = Latencies::new();
        let mut lines = Vec::new();
        for (line, took) in all {
            latencies.record(took);
            lines.push(line);
        }
        Ok((lines, latencies))
    }

    /// So many publishers at once, each with connections of its own.
    async fn crew(&self, peer: &Address, publishers: u32) -> Result<Crew> {
        let options = ConnectOptions::new(vec![peer.clone()]);
        let clients = at_once(publishers, &self.stop, move || {
            let options = options.clone();
            async move { Ok(Client::connect(options).await?) }
        })
        .await?;
        let what = format!("publishing from {publishers} at once");
        let loaded = self.publish(self.load(publishers, clients), &what).await?;
        Ok(Crew {
            publishers,
            records_per_second: report::per_second(loaded.acknowledged(), loaded.elapsed),
            acknowledged: loaded.acknowledged(),
            latency_us: loaded.latencies.summary(),
        })
    }
}

fn not_all_opened(failure: Failure, (opened, wanted): (u64, u32)) -> Failure {
    let (opened, wanted) = (output::number(opened), output::number(wanted.into()));
    let reason = &failure.message;
    let message = format!("{opened} of {wanted} connections were opened: {reason}");
    let hint = failure.hint.clone().unwrap_or_else(|| {
        "'ulimit -Hn' tells how many a process may have at most, here and at the server".to_owned()
    });
    Failure { message, ..failure }.hint(hint)
}

/// Makes so many of something, some at the same time, until one fails.
async fn at_once<T, F>(
    count: u32,
    stop: &CancellationToken,
    make: impl Fn() -> F + Clone + Send + 'static,
) -> Result<Vec<T>>
where
    T: Send + 'static,
    F: Future<Output = Result<T>> + Send,
{
    let mut makers = JoinSet::new();
    for first in 0..OPENED_AT_ONCE.min(count) {
        let (make, stop) = (make.clone(), stop.clone());
        makers.spawn(async move {
            let mut made = Vec::new();
            for _ in (first..count).step_by(OPENED_AT_ONCE as usize) {
                if stop.is_cancelled() {
                    return Err(Failure::interrupted("interrupted"));
                }
                made.push(make().await?);
            }
            Ok(made)
        });
    }
    let mut all = Vec::new();
    while let Some(made) = makers.join_next().await {
        all.extend(made.map_err(|error| Failure::server(error.to_string()))??);
    }
    Ok(all)
}

fn lines(report: &Report) -> Vec<(&'static str, String)> {
    let both = |latency: &LatencySummary| {
        let (p50, p99) = (output::number(latency.p50), output::number(latency.p99));
        format!("p50 {p50} µs, p99 {p99} µs")
    };
    let opened = format!(
        "{} opened in {:.3} s",
        output::number(report.connections.into()),
        report.open_seconds
    );
    let grown = report
        .rss_bytes_with
        .saturating_sub(report.rss_bytes_before);
    let memory = format!(
        "{} more than {}: {} each",
        output::bytes(grown),
        output::bytes(report.rss_bytes_before),
        output::bytes(report.rss_bytes_per_connection as u64)
    );
    let mut lines = vec![
        ("connections", opened),
        ("accepted in", both(&report.accept_us)),
        ("memory", memory),
        ("acknowledged before", both(&report.latency_us_before)),
        ("acknowledged beside", both(&report.latency_us)),
    ];
    if let Some(crews) = &report.publishers {
        for crew in crews {
            let publishers = output::count(crew.publishers.into(), "publisher");
            let rate = output::number(crew.records_per_second as u64);
            let latency = both(&crew.latency_us);
            lines.push((
                "at once",
                format!("{publishers}: {rate} records/s, {latency}"),
            ));
        }
        let [few, many] = crews;
        let percent = 100.0 * many.records_per_second / few.records_per_second.max(1e-9);
        lines.push(("many by few", format!("{percent:.0} %")));
    }
    lines.extend(report.server.lines());
    lines
}
