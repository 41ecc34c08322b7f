//! What the servers use while something is measured: asked every half second.

use std::collections::HashMap;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::cli::bench::report::ServerUse;
use crate::client::Client;
use crate::protocol::api::{FiguresAnswer, Nonce, PeerState};
use crate::types::Address;

const SAMPLE_EVERY: Duration = Duration::from_millis(500);

/// Asks in the background until it is stopped.
#[derive(Debug)]
pub struct Sampler {
    stop: CancellationToken,
    task: JoinHandle<Samples>,
}

impl Sampler {
    /// Takes a first sample and goes on.
    pub async fn start(client: Client) -> Self {
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let first = sample(&client).await;
        let task = tokio::spawn(async move {
            let mut samples = Samples::new(first);
            while !stopped.is_cancelled() {
                tokio::select! {
                    () = stopped.cancelled() => {}
                    () = tokio::time::sleep(SAMPLE_EVERY) => {}
                }
                samples.add(sample(&client).await);
            }
            samples
        });
        Self { stop, task }
    }

    /// Takes a last sample; what the peers used in between, and for each of so many payload bytes that were published.
    pub async fn stop(self, published: u64) -> ServerUse {
        self.stop.cancel();
        let samples = self.task.await.unwrap_or_default();
        samples.sum(published)
    }
}

/// All nodes that answer. Who does not is left out: a measurement goes on when a peer goes away.
async fn sample(client: &Client) -> Vec<(Address, FiguresAnswer)> {
    let mut nodes = client.index_addresses();
    let peers = client.list_peers().await.unwrap_or_default();
    let online = peers
        .into_iter()
        .filter(|peer| peer.state == PeerState::Online);
    nodes.extend(online.map(|peer| peer.address));
    let mut answers = Vec::new();
    for node in nodes {
        if let Ok(figures) = client.figures(&node).await {
            answers.push((node, figures));
        }
    }
    answers
}

/// First and last sample of each node.
#[derive(Debug, Default)]
struct Samples {
    of_node: HashMap<(Address, Nonce), (FiguresAnswer, FiguresAnswer)>,
    rss_bytes_max: u64,
}

impl Samples {
    fn new(first: Vec<(Address, FiguresAnswer)>) -> Self {
        let mut samples = Self::default();
        samples.add(first);
        samples
    }

    fn add(&mut self, answers: Vec<(Address, FiguresAnswer)>) {
        let used: HashMap<Nonce, u64> = answers
            .iter()
            .map(|(_, answer)| (answer.process, answer.get("rss_bytes").unwrap_or(0)))
            .collect();
        self.rss_bytes_max = self.rss_bytes_max.max(used.values().sum());
        for (node, answer) in answers {
            // A node that started anew is another process, and counts from there.
            let both = self
                .of_node
                .entry((node, answer.process))
                .or_insert_with(|| (answer.clone(), answer.clone()));
            both.1 = answer;
        }
    }

    fn sum(&self, published: u64) -> ServerUse {
        let share = |part: u64, of: u64| {
            (of > 0).then(|| (part as f64 / of as f64 * 1000.0).round() / 1000.0)
        };
        let syncs = self.grown("syncs");
        ServerUse {
            rss_bytes_max: self.rss_bytes_max,
            cpu_seconds: self.grown("cpu_ms") as f64 / 1000.0,
            disk_bytes_per_payload_byte: share(self.grown("disk_written_bytes"), published),
            syncs,
            sync_us_mean: share(self.grown("sync_us"), syncs),
            sync_us_p50: self.sync_us_of(syncs, 50),
            sync_us_p99: self.sync_us_of(syncs, 99),
        }
    }

    /// How much that figure grew, all processes together.
    fn grown(&self, name: &str) -> u64 {
        let mut of_process = HashMap::<Nonce, u64>::new();
        for ((_, process), (first, last)) in &self.of_node {
            let count = |answer: &FiguresAnswer| answer.get(name).unwrap_or(0);
            let more = count(last).saturating_sub(count(first));
            // Nodes of one process tell the same, or nothing.
            let most = of_process.entry(*process).or_default();
            *most = more.max(*most);
        }
        of_process.values().sum()
    }

    /// What so many of a hundred syncs stayed below: a bound of their classes, in microseconds.
    fn sync_us_of(&self, syncs: u64, percent: u64) -> Option<u64> {
        let wanted = (syncs * percent).div_ceil(100);
        let last = self.of_node.values().map(|(_, last)| last);
        let mut bounds: Vec<u64> = last
            .flat_map(|answer| &answer.figures)
            .filter_map(|figure| figure.name.strip_prefix("syncs_within_"))
            .filter_map(|bound| bound.strip_suffix("_us")?.parse().ok())
            .collect();
        bounds.sort_unstable();
        let enough = |bound: &u64| self.grown(&format!("syncs_within_{bound}_us")) >= wanted;
        bounds.into_iter().find(enough).filter(|_| wanted > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(process: u8, figures: &[(&str, u64)]) -> FiguresAnswer {
        let mut answer = FiguresAnswer {
            process: Nonce([process; 16]),
            figures: Vec::new(),
        };
        for (name, value) in figures {
            answer.add(name, *value);
        }
        answer
    }

    #[test]
    fn nodes_of_one_process_count_once() {
        let address =
            |port: u16| -> Address { format!("127.0.0.1:{port}").parse().expect("an address") };
        let at = |cpu: u64, syncs: u64| {
            vec![
                (address(1), told(1, &[("rss_bytes", 50), ("cpu_ms", cpu)])),
                (
                    address(2),
                    told(1, &[("rss_bytes", 50), ("cpu_ms", cpu), ("syncs", syncs)]),
                ),
                (address(3), told(2, &[("rss_bytes", 7), ("syncs", syncs)])),
            ]
        };
        let mut samples = Samples::new(at(1_000, 10));
        samples.add(at(3_500, 14));
        let used = samples.sum(0);
        assert_eq!((used.rss_bytes_max, used.syncs), (57, 8));
        assert_eq!((used.cpu_seconds, used.sync_us_mean), (2.5, Some(0.0)));
        assert_eq!(used.disk_bytes_per_payload_byte, None);
        assert_eq!((used.sync_us_p50, used.sync_us_p99), (None, None));
    }

    #[test]
    fn syncs_are_those_in_between() {
        let address: Address = "127.0.0.1:1".parse().expect("an address");
        let at = |written: u64, counts: [u64; 3]| {
            let [quick, slow, all] = counts;
            let figures = [
                ("disk_written_bytes", written),
                ("syncs", all),
                ("syncs_within_200_us", quick),
                ("syncs_within_1000_us", slow),
            ];
            vec![(address.clone(), told(1, &figures))]
        };
        let mut samples = Samples::new(at(1_000, [5, 5, 50]));
        samples.add(at(4_000, [55, 104, 150]));
        let used = samples.sum(2_000);
        assert_eq!(used.disk_bytes_per_payload_byte, Some(1.5));
        assert_eq!(
            (used.sync_us_p50, used.sync_us_p99),
            (Some(200), Some(1_000))
        );
        samples.add(at(4_000, [55, 104, 152]));
        assert_eq!(samples.sum(0).sync_us_p99, None, "above all bounds");
    }
}
