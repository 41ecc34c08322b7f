//! What the peers use while something is measured: asked every half second.

use std::collections::HashMap;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::cli::bench::report::ServerUse;
use crate::client::Client;
use crate::protocol::api::{PeerState, PeerStatusAnswer};
use crate::types::{PeerId, PeerName};

const SAMPLE_EVERY: Duration = Duration::from_millis(500);

/// Asks in the background until it is stopped.
#[derive(Debug)]
pub struct Sampler {
    stop: CancellationToken,
    task: JoinHandle<ServerUse>,
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
            samples.sum()
        });
        Self { stop, task }
    }

    /// Takes a last sample; what the peers used in between.
    pub async fn stop(self) -> ServerUse {
        self.stop.cancel();
        self.task.await.unwrap_or_default()
    }
}

/// All peers that answer. Who does not is left out: a measurement goes on when a peer goes away.
async fn sample(client: &Client) -> Vec<PeerStatusAnswer> {
    let peers = client.list_peers().await.unwrap_or_default();
    let online = peers
        .into_iter()
        .filter(|peer| peer.state == PeerState::Online);
    let names: Vec<PeerName> = online.map(|peer| peer.name).collect();
    let mut answers = Vec::new();
    for name in names {
        answers.extend(client.peer_status(&name).await.ok());
    }
    answers
}

/// First and last sample of each peer.
#[derive(Debug, Default)]
struct Samples {
    of_peer: HashMap<PeerId, (PeerStatusAnswer, PeerStatusAnswer)>,
    rss_bytes_max: u64,
}

impl Samples {
    fn new(first: Vec<PeerStatusAnswer>) -> Self {
        let mut samples = Self::default();
        samples.add(first);
        samples
    }

    fn add(&mut self, answers: Vec<PeerStatusAnswer>) {
        let rss_bytes = answers.iter().map(|answer| answer.rss_bytes).sum();
        self.rss_bytes_max = self.rss_bytes_max.max(rss_bytes);
        for answer in answers {
            let both = self
                .of_peer
                .entry(answer.id)
                .or_insert_with(|| (answer.clone(), answer.clone()));
            // A peer that started anew counts from there.
            if both.0.started != answer.started {
                both.0 = answer.clone();
            }
            both.1 = answer;
        }
    }

    fn sum(&self) -> ServerUse {
        let grown = |count: fn(&PeerStatusAnswer) -> u64| -> u64 {
            let peers = self.of_peer.values();
            peers
                .map(|(first, last)| count(last).saturating_sub(count(first)))
                .sum()
        };
        let payload = grown(|answer| answer.payload_bytes);
        let written = grown(|answer| answer.disk_written_bytes);
        ServerUse {
            rss_bytes_max: self.rss_bytes_max,
            cpu_seconds: grown(|answer| answer.cpu_ms) as f64 / 1000.0,
            disk_bytes_per_payload_byte: (payload > 0)
                .then(|| (written as f64 / payload as f64 * 1000.0).round() / 1000.0),
        }
    }
}
