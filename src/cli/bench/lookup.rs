//! `lookup`: how fast the index says who hosts a topic.
//!
//! The topics are those of an [impostor](super::impostor), or those that are
//! there already. Every client has a connection of its own and asks for topics
//! in no order.

use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::cli::bench::alarm::{Clock, Due};
use crate::cli::bench::asking::{Asked, Client, Plan, Questions};
use crate::cli::bench::impostor::Impostor;
use crate::cli::bench::line::Line;
use crate::cli::bench::progress::{Goal, Progress};
use crate::cli::bench::report::{self, LatencySummary, ServerUse};
use crate::cli::bench::sampler::Sampler;
use crate::cli::bench::topics;
use crate::cli::fail::{Failure, Result};
use crate::cli::{Context, output, values};
use crate::limits;
use crate::types::{Address, TopicName, TopicPattern};

/// How long clients may take to be ready to ask, and each of them on top. Who is late would be counted as
/// answered late.
const READY_AFTER: Duration = Duration::from_millis(100);
const READY_AFTER_EACH: Duration = Duration::from_micros(500);

/// What is asked.
#[derive(Debug, Clone, Args)]
pub struct Lookups {
    /// Number of topics to register for it, as a peer that stores them would; nothing is stored
    #[arg(
        long,
        value_name = "N",
        default_value_t = 10_000,
        conflicts_with = "existing"
    )]
    #[arg(value_parser = values::number_up_to::<{ limits::TOPICS_PER_PEER_MAX as u32 }>)]
    topics: u32,
    /// Register nothing, look up the topics that are there
    #[arg(long)]
    existing: bool,
    /// Number of clients, each with a connection of its own
    #[arg(long, value_name = "N", default_value_t = 8)]
    #[arg(value_parser = values::number_up_to::<{ limits::CONNECTIONS_MAX as u32 }>)]
    clients: u32,
    /// Lookups of one client that may be unanswered
    #[arg(long, value_name = "N", default_value_t = 64)]
    #[arg(value_parser = values::number_up_to::<{ limits::REQUESTS_UNANSWERED_MAX as u32 }>)]
    in_flight: u32,
    /// Lookups per second, all clients together [default: as fast as it goes]
    #[arg(long, value_name = "N/s", value_parser = values::rate)]
    rate: Option<f64>,
    /// How long to ask
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = values::duration)]
    duration: Duration,
}

#[derive(Debug, Serialize)]
struct Report {
    lookups_per_second: f64,
    latency_us: LatencySummary,
    lookups: u64,
    answered: u64,
    topics: usize,
    /// How long the index took to register them; `null` if they were there.
    registration_seconds: Option<f64>,
    clients: u32,
    server: ServerUse,
}

/// Measures and prints what was found.
pub async fn run(lookups: Lookups, context: &Context, stop: CancellationToken) -> Result {
    let (index, in_flight_max) = reach(&context.client.index_addresses()).await?;
    let in_flight = lookups.in_flight.min(in_flight_max) as usize;
    let measurement = Measurement {
        lookups: &lookups,
        context,
        stop: &stop,
        index: &index,
        in_flight,
    };
    if lookups.existing {
        let pattern: TopicPattern = ">".parse().expect("all topics");
        let topics = context.client.list_topics(&pattern).await?;
        let names: Vec<TopicName> = topics.into_iter().map(|topic| topic.name).collect();
        if names.is_empty() {
            let hint = "without --existing some are registered for it";
            return Err(Failure::check("there is no topic to look up").hint(hint));
        }
        return measurement.measure(&names, None).await;
    }
    let run = u64::from_le_bytes(topics::random()?);
    let names: Vec<TopicName> = (0..lookups.topics).map(|n| topics::name(run, n)).collect();
    let impostor = Impostor::introduce(&index, run).await?;
    let what = format!("registering {}", output::count(names.len() as u64, "topic"));
    let goal = ("registered", Goal::Count(names.len() as u64));
    let progress = Progress::start(&context.output, &what, goal);
    let registered = impostor.register(&names, (progress.counter(), &stop)).await;
    drop(progress);
    let measured = match registered {
        Ok(took) => measurement.measure(&names, Some(took)).await,
        Err(failure) => Err(failure),
    };
    measured.and(impostor.leave().await)
}

/// The first index that answers, and how many requests it lets be unanswered.
async fn reach(indexes: &[Address]) -> Result<(Address, u32)> {
    let mut failure = Failure::server("the peer knows no index");
    for index in indexes {
        match Line::open(index).await {
            Ok((_, hello)) => return Ok((index.clone(), hello.requests_unanswered_max.max(1))),
            Err(why) => failure = why,
        }
    }
    Err(failure)
}

struct Measurement<'a> {
    lookups: &'a Lookups,
    context: &'a Context,
    stop: &'a CancellationToken,
    index: &'a Address,
    in_flight: usize,
}

impl Measurement<'_> {
    async fn measure(&self, names: &[TopicName], registration: Option<Duration>) -> Result {
        let sampler = Sampler::start(self.context.client.clone()).await;
        let (asked, elapsed) = self.ask(names).await?;
        let server = sampler.stop(0).await;
        let report = Report {
            lookups_per_second: report::per_second(asked.answered, elapsed),
            latency_us: asked.latencies.summary(),
            lookups: asked.asked,
            answered: asked.answered,
            topics: names.len(),
            registration_seconds: registration.map(report::seconds),
            clients: self.lookups.clients,
            server,
        };
        if asked.answered > 0 {
            let lines = lines(&report, elapsed);
            self.context.output.value(&report, &output::card(&lines))?;
        }
        judge(asked)
    }

    /// Asks for the time that was given; also how long it took until everything was answered.
    async fn ask(&self, names: &[TopicName]) -> Result<(Asked, Duration)> {
        let mut lines = Vec::new();
        for _ in 0..self.lookups.clients {
            let (line, _) = Line::open(self.index).await?;
            lines.push(line);
        }
        let seed = u64::from_le_bytes(topics::random()?);
        let questions = Arc::new(Questions::new(names, seed)?);
        let goal = ("answered", Goal::Time(self.lookups.duration));
        let progress = Progress::start(&self.context.output, "looking up", goal);
        let began = Instant::now() + READY_AFTER + READY_AFTER_EACH * self.lookups.clients;
        let plan = Plan {
            questions,
            in_flight: self.in_flight,
            time: (began, began + self.lookups.duration),
            clock: Clock::start()?,
            stop: self.stop.clone(),
            counter: progress.counter(),
        };
        let mut clients = JoinSet::new();
        for (number, line) in lines.into_iter().enumerate() {
            let first = number * names.len() / self.lookups.clients as usize;
            let client = Client::new(plan.clone(), self.due(began, number), first);
            clients.spawn(client.run(line));
        }
        let mut all = Asked::new();
        while let Some(asked) = clients.join_next().await {
            all.add(asked.map_err(|error| Failure::server(error.to_string()))??);
        }
        let last = all.last.unwrap_or_else(Instant::now);
        Ok((all, last.saturating_duration_since(began)))
    }

    /// When the lookups of a client are due: in turn with those of the others.
    fn due(&self, began: Instant, client: usize) -> Option<Due> {
        self.lookups.rate.map(|rate| Due {
            began: began + Duration::from_secs_f64(client as f64 / rate),
            every: Duration::from_secs_f64(f64::from(self.lookups.clients) / rate),
            batch: 1,
        })
    }
}

fn judge(asked: Asked) -> Result {
    let missing = asked.asked - asked.answered;
    let what = format!("{missing} of {} lookups were not answered", asked.asked);
    match asked.refused {
        Some(refused) => {
            let failure = Failure::from(refused);
            let message = format!("{what}: {}", failure.message);
            Err(Failure { message, ..failure })
        }
        None if missing > 0 => Err(Failure::check(what)),
        None => Ok(()),
    }
}

fn lines(report: &Report, elapsed: Duration) -> Vec<(&'static str, String)> {
    let rate = output::number(report.lookups_per_second as u64);
    let mut lines = vec![
        ("lookups", format!("{rate}/s")),
        ("latency of", "a lookup".to_owned()),
    ];
    lines.extend(report.latency_us.lines());
    let total = format!(
        "{} lookups in {}, {} answered",
        output::number(report.lookups),
        output::duration(elapsed),
        output::number(report.answered)
    );
    let topics = output::count(report.topics as u64, "topic");
    lines.extend([
        ("total", total),
        ("clients", output::number(report.clients.into())),
        (
            "topics",
            match report.registration_seconds {
                Some(seconds) => format!("{topics}, registered in {seconds:.3} s"),
                None => format!("{topics} that were there"),
            },
        ),
    ]);
    lines.extend(report.server.lines());
    lines
}
