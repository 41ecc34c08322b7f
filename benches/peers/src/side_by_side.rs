//! The run: rounds of all works, each on every system in turn.
//!
//! A round begins with the limits of the machine, where a system of ours is measured: shares are of the limits
//! as they were that hour.
//!
//! Each measurement has a server of its own, started for it in an empty directory
//! and killed after it: nothing else runs meanwhile, and nothing is left from the
//! one before. The systems take turns within each work of each round, and another
//! one begins in each round, so that what changes on the machine meets all of them.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::limits::{self, Limits, Rounds};
use crate::load::{Crew, Published, Window};
use crate::reading;
use crate::report::{Measured, Report, Row, grouped, told};
use crate::server::{Used, Watched};
use crate::shares::{self, Shares};
use crate::systems::{Programs, Running, System};
use crate::work::{Kind, Work};

/// What a measurement may take beside the time it measures: then it has failed.
const OVERHEAD_MAX: Duration = Duration::from_secs(180);
/// What a measurement usually takes beside the time it measures.
const OVERHEAD_USUAL: Duration = Duration::from_millis(1500);
/// Payload below which nothing is said of bytes on the disk: what every store has to begin with
/// would count more.
const DISK_PAYLOAD_MIN: u64 = 32 << 20;

/// How it is measured.
#[derive(Debug, Clone)]
pub struct Options {
    /// Which works.
    pub works: Vec<Work>,
    /// Which systems.
    pub systems: Vec<System>,
    /// How often.
    pub rounds: u32,
    /// How long each.
    pub measured: Duration,
    /// How long the load runs before.
    pub warm: Duration,
    /// How long slots are written and discarded before they count as reused.
    pub churn: Duration,
    /// Bytes of payload that are written to be read back.
    pub fill_bytes: u64,
    /// Messages per second of the end to end measurement.
    pub rate: f64,
    /// Where the scratch directories are made.
    pub dir: PathBuf,
}

impl Options {
    /// About how long all of it will take.
    pub fn estimate(&self) -> Duration {
        let mut whole = Duration::ZERO;
        for work in &self.works {
            for system in self.systems.iter().filter(|system| system.does(work)) {
                let before = match work.kind {
                    _ if system.is_churned() => self.churn,
                    Kind::Read => self.fill_time(),
                    _ => Duration::ZERO,
                };
                whole += before + self.warm + self.measured + OVERHEAD_USUAL;
            }
        }
        if self.has_ours() {
            whole += limits::TAKE;
        }
        whole * self.rounds
    }

    /// How long what will be read is written at most.
    fn fill_time(&self) -> Duration {
        self.measured * 3
    }

    /// Whether there is anything whose share can be told.
    fn has_ours(&self) -> bool {
        let ours = |work| (self.systems.iter()).any(|system| system.is_ours() && system.does(work));
        self.works.iter().any(ours)
    }

    /// The systems of a round: in each another one begins.
    fn order(&self, round: u32, work: &Work) -> Vec<System> {
        let mut order = self.systems.clone();
        order.retain(|system| system.does(work));
        let count = order.len().max(1);
        order.rotate_left(round as usize % count);
        order
    }
}

/// What came of a run.
#[derive(Debug)]
pub struct Outcome {
    /// One a work.
    pub reports: Vec<Report>,
    /// What the machine does at best.
    pub limits: Rounds,
    /// What part of that ours reach.
    pub shares: Vec<Shares>,
    /// How many measurements failed.
    pub failed: u32,
}

/// One measurement of the work that stands there among the works.
type Outcomes = Vec<(usize, System, Option<Measured>)>;

/// Measures everything.
pub async fn run(options: &Options, programs: &Programs) -> Outcome {
    let mut results = Outcomes::new();
    let mut limits = Vec::new();
    for round in 0..options.rounds {
        if options.has_ours() {
            limits.push(measure_limits(options, round).await);
        }
        for (place, work) in options.works.iter().enumerate() {
            for system in options.order(round, work) {
                let what = format!("round {}, {}, {}", round + 1, work.key(), system.key());
                let measured = measure_bounded(options, programs, system, work).await;
                match &measured {
                    Ok(measured) => eprintln!("{what}: {}", brief(measured)),
                    Err(error) => eprintln!("{what}: failed: {error:#}"),
                }
                results.push((place, system, measured.ok()));
            }
        }
    }
    let failures = results.iter().filter(|one| one.2.is_none()).count()
        + limits.iter().filter(|one| one.is_none()).count();
    let (reports, limits) = (reports(options, &results), Rounds::new(limits));
    let shares = limits.median.as_ref();
    Outcome {
        shares: shares.map_or_else(Vec::new, |limits| shares::of_ours(&reports, limits)),
        reports,
        limits,
        failed: u32::try_from(failures).unwrap_or(u32::MAX),
    }
}

fn reports(options: &Options, results: &Outcomes) -> Vec<Report> {
    let reports = options.works.iter().enumerate().map(|(place, work)| {
        let systems = options.systems.iter().filter(|system| system.does(work));
        let rows = systems.map(|system| {
            let own = results
                .iter()
                .filter(|one| (one.0, one.1) == (place, *system));
            Row::new(*system, own.map(|one| one.2.clone()).collect())
        });
        Report::new(work, rows.collect())
    });
    reports
        .filter(|report| !report.systems.is_empty())
        .collect()
}

async fn measure_limits(options: &Options, round: u32) -> Option<Limits> {
    let above = options.dir.clone();
    let measuring = tokio::task::spawn_blocking(move || limits::measure(&above));
    let limits = measuring.await.context("measuring").flatten();
    match &limits {
        Ok(limits) => eprintln!("round {}, limits: {}", round + 1, told(limits)),
        Err(error) => eprintln!("round {}, limits: failed: {error:#}", round + 1),
    }
    limits.ok()
}

fn brief(measured: &Measured) -> String {
    let rate = grouped(measured.records_per_second);
    match measured.p50_ms.zip(measured.p99_ms) {
        Some((p50, p99)) => format!("{rate} records/s, p50 {p50:.2} ms, p99 {p99:.2} ms"),
        None => format!("{rate} records/s"),
    }
}

async fn measure_bounded(
    options: &Options,
    programs: &Programs,
    system: System,
    work: &Work,
) -> Result<Measured> {
    let most = OVERHEAD_MAX + options.measured * 4 + options.warm + options.churn;
    let measuring = measure(options, programs, system, work);
    tokio::time::timeout(most, measuring)
        .await
        .with_context(|| format!("not done after {most:?}"))?
}

async fn measure(
    options: &Options,
    programs: &Programs,
    system: System,
    work: &Work,
) -> Result<Measured> {
    let running = Running::start(programs, system, work, &options.dir).await?;
    let measuring = Measuring {
        options,
        work,
        running: &running,
    };
    let outcome = match work.kind {
        Kind::Publish => measuring.publish(system).await,
        Kind::Read => measuring.read().await,
        Kind::Latency => measuring.latency().await,
    };
    let measured = outcome.map_err(|error| {
        let log = running.server.last_words();
        anyhow!("{error:#}; the server's log ends with:\n{log}")
    });
    running.server.end().await?;
    measured
}

struct Measuring<'a> {
    options: &'a Options,
    work: &'a Work,
    running: &'a Running,
}

impl Measuring<'_> {
    async fn publish(&self, system: System) -> Result<Measured> {
        let mut before = 0;
        if system.is_churned() {
            let churn = self.options.churn;
            let filled = reading::fill(self.running, self.work, u64::MAX, churn).await?;
            before = filled.acknowledged;
        }
        let crew = Crew::ready(self.running, self.work).await?;
        let window = Window::starting(self.options.warm, self.options.measured);
        let (published, used) = self.watched(window, crew.publish(window)).await?;
        let all = before + published.acknowledged;
        reading::check_stored(self.running, self.work, all).await?;
        Ok(Measured {
            // What was discarded takes no space, so there is nothing to compare with.
            disk_per_payload_byte: self.on_disk(all).filter(|_| !system.is_churned()),
            ..self.of_window(&published, used)
        })
    }

    async fn latency(&self) -> Result<Measured> {
        let window = Window::starting(self.options.warm, self.options.measured);
        let load = reading::end_to_end(self.running, self.work, self.options.rate, window);
        let (published, used) = self.watched(window, load).await?;
        Ok(self.of_window(&published, used))
    }

    async fn read(&self) -> Result<Measured> {
        let (bytes, within) = (self.options.fill_bytes, self.options.fill_time());
        let filled = reading::fill(self.running, self.work, bytes, within).await?;
        let stored = reading::check_stored(self.running, self.work, filled.acknowledged).await?;
        let now = Instant::now();
        let (stop, stopped) = oneshot::channel();
        let window = Window::starting(Duration::ZERO, OVERHEAD_MAX);
        let watched = Watched {
            begin: now,
            end: window.end,
            stopped,
        };
        let watch = self.running.server.watch(watched);
        let took = reading::catch_up(self.running, self.work, stored).await?;
        // It has ended by itself if this arrives too late.
        let _ = stop.send(());
        let used = watch.await??;
        Ok(Measured {
            records_per_second: stored as f64 / took.as_secs_f64(),
            rss_mib: mib(used.rss_bytes),
            cpu_us_per_record: per(used.cpu_seconds * 1e6, stored),
            read_per_payload_byte: per(used.read_bytes as f64, stored * self.work.size as u64),
            disk_per_payload_byte: self.on_disk(stored),
            ..Measured::default()
        })
    }

    /// Runs a load and watches the server in the window.
    async fn watched(
        &self,
        window: Window,
        load: impl Future<Output = Result<Published>>,
    ) -> Result<(Published, Used)> {
        let (_stop, stopped) = oneshot::channel();
        let Window { begin, end, .. } = window;
        let watch = self.running.server.watch(Watched {
            begin,
            end,
            stopped,
        });
        let published = load.await?;
        Ok((published, watch.await??))
    }

    fn of_window(&self, published: &Published, used: Used) -> Measured {
        let records = published.in_window;
        let payload = records * self.work.size as u64;
        Measured {
            records_per_second: records as f64 / self.options.measured.as_secs_f64(),
            p50_ms: published.latencies.millis(50.0),
            p99_ms: published.latencies.millis(99.0),
            rss_mib: mib(used.rss_bytes),
            cpu_us_per_record: per(used.cpu_seconds * 1e6, records),
            written_per_payload_byte: per(used.written_bytes as f64, payload),
            read_per_payload_byte: per(used.read_bytes as f64, payload),
            disk_per_payload_byte: None,
        }
    }

    /// What the directory takes, for each byte of payload that was ever stored. Slots of ours that are
    /// prepared for what comes next are in it.
    fn on_disk(&self, records: u64) -> Option<f64> {
        let payload = records * self.work.size as u64;
        let taken = self.running.server.disk_bytes() as f64;
        per(taken, payload).filter(|_| payload >= DISK_PAYLOAD_MIN)
    }
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

fn per(amount: f64, count: u64) -> Option<f64> {
    (count > 0).then(|| amount / count as f64)
}
