//! `group`: members that share messages published before, and acknowledge each of them.

use std::sync::Arc;

use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::cli::bench::ledger::Ledger;
use crate::cli::bench::load::Loaded;
use crate::cli::bench::messages::{Bench, Crew, FILL_BYTES_MAX, Outcome};
use crate::cli::bench::progress::{Counter, Goal, Progress};
use crate::cli::bench::report::{Latencies, Measured};
use crate::cli::bench::sampler::Sampler;
use crate::cli::fail::{Failure, Result};
use crate::cli::output;
use crate::client::{Member, MemberOptions, NewGroup};
use crate::limits;
use crate::protocol::api::{ConsumerGroupChanges, Position};
use crate::types::{SubscriptionName, TopicName};

/// Messages that a member takes from its buffer at once.
const MESSAGES_AT_ONCE: usize = 1024;

/// What all members know.
#[derive(Clone)]
struct Crowd {
    /// Acknowledged, though perhaps not durably yet.
    counter: Counter,
    /// How many there are.
    target: u64,
    /// All are.
    done: CancellationToken,
}

impl Bench<'_> {
    pub(super) async fn group(&self, crew: &Crew) -> Outcome {
        let mut load = self.load(self.shape.rate(), Some(FILL_BYTES_MAX));
        let progress = self.watch(&mut load, "publishing what will be shared");
        let loaded = load.run().await?;
        drop(progress);
        let sampler = Sampler::start(self.client.clone()).await;
        let began = Instant::now();
        let (ledger, latencies) = self.share(crew, &loaded).await?;
        let elapsed = began.elapsed();
        let server = sampler.stop(0).await;
        let is_checked = self.shape.verify();
        let measured = Measured {
            elapsed,
            records: ledger.records,
            bytes: ledger.records * self.shape.size(),
            acknowledged: loaded.acknowledged(),
            latencies,
            latency_of: "an acknowledgement of a member",
            server,
            verdict: is_checked.then(|| ledger.verdict(&loaded.acknowledged)),
        };
        Ok((measured, loaded))
    }

    async fn share(&self, crew: &Crew, loaded: &Loaded) -> Result<(Ledger, Latencies)> {
        let goal = ("settled", Goal::Count(loaded.acknowledged()));
        let progress = Progress::start(&self.context.output, "sharing it", goal);
        let crowd = Crowd {
            counter: progress.counter(),
            target: loaded.acknowledged(),
            done: CancellationToken::new(),
        };
        let name: SubscriptionName = "bench".parse().expect("a good name");
        let mut members = JoinSet::new();
        for topic in &self.topics.names {
            for _ in 0..crew.members {
                let member = self.join(topic, &name, crew.max_unacked).await?;
                members.spawn(work(member, self.ledger(), crowd.clone()));
            }
        }
        if crowd.target == 0 {
            crowd.done.cancel();
        }
        let mut ledger = self.ledger();
        let mut latencies = Latencies::new();
        loop {
            let worked = tokio::select! {
                // What is not shared by now stays.
                () = self.stop.cancelled(), if !crowd.done.is_cancelled() => {
                    crowd.done.cancel();
                    continue;
                }
                worked = members.join_next() => worked,
            };
            let Some(worked) = worked else {
                return Ok((ledger, latencies));
            };
            let (part, some) = worked.map_err(|error| Failure::server(error.to_string()))??;
            ledger.add(part);
            latencies.add(&some);
        }
    }

    async fn join(
        &self,
        topic: &TopicName,
        name: &SubscriptionName,
        unacked_max: u32,
    ) -> Result<Arc<Member>> {
        let options = ConsumerGroupChanges {
            unacked_max: Some(unacked_max),
            ..ConsumerGroupChanges::default()
        };
        let from = Position::Beginning;
        let half = (unacked_max as usize / 2).max(1);
        let options = MemberOptions {
            create: Some(NewGroup { from, options }),
            buffer_records: half.min(4 * limits::MEMBER_BUFFER_RECORDS_DEFAULT),
            ..MemberOptions::default()
        };
        Ok(Arc::new(
            self.client.join_group(topic, name, options).await?,
        ))
    }
}

/// Acknowledges each message that comes, until all are. Meanwhile the time of one settlement after the other is taken.
async fn work(
    member: Arc<Member>,
    mut ledger: Ledger,
    crowd: Crowd,
) -> Result<(Ledger, Latencies)> {
    let mut latencies = Latencies::new();
    let mut settling = None;
    loop {
        let given = tokio::select! {
            biased;
            settled = ended(&mut settling) => {
                latencies.record(settled?);
                continue;
            }
            () = crowd.done.cancelled() => break,
            given = member.next_many(MESSAGES_AT_ONCE) => given?,
        };
        for given in &given {
            ledger.read_in_any_order(&given.record.value);
            member.ack(given);
        }
        crowd.counter.add(given.len() as u64);
        if crowd.counter.get() >= crowd.target {
            crowd.done.cancel();
        }
        if settling.is_none() {
            settling = Some(tokio::spawn(settle(member.clone())));
        }
    }
    latencies.record(settle(member).await?);
    Ok((ledger, latencies))
}

type Settling = tokio::task::JoinHandle<Result<std::time::Duration>>;

/// The end of a settlement; for ever, if there is none.
async fn ended(settling: &mut Option<Settling>) -> Result<std::time::Duration> {
    let Some(task) = settling else {
        return std::future::pending().await;
    };
    let settled = task
        .await
        .map_err(|error| Failure::server(error.to_string()));
    *settling = None;
    settled?
}

/// How long it takes until everything said so far is durable. Everything has to count.
async fn settle(member: Arc<Member>) -> Result<std::time::Duration> {
    let began = Instant::now();
    let missed = member.settle().await?;
    let missed: u64 = missed.iter().map(|missed| u64::from(missed.count)).sum();
    match missed {
        0 => Ok(began.elapsed()),
        missed => Err(Failure::check(format!(
            "{} did not count",
            output::count(missed, "acknowledgement")
        ))),
    }
}
