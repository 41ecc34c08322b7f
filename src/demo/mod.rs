//! The demo: the main job on real data, end to end, with proof.
//!
//! An index server and two peers run as processes of their own. A week of
//! earthquakes goes into one topic per seismic network while a peer and then
//! the index are killed with SIGKILL and started again. At the end everything
//! that was acknowledged is compared with the input, for each of two durable
//! subscribers: exactly once, in order, nothing else.

mod processes;
mod readers;

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::client::{Ack, Client, ConnectOptions, Message, NewTopic, Publisher, PublisherOptions};
use crate::types::{Address, TopicName};
use processes::ServerProcess;
use readers::{Diary, Reader, Reading};

/// USGS, one week, public domain: one event a line.
const EARTHQUAKES: &str = include_str!("../../data/samples/earthquakes.ndjson");
/// Between two events, so that there is something to watch.
const EVENT_EVERY: Duration = Duration::from_millis(2);
/// How long a killed server stays away.
const AWAY: Duration = Duration::from_millis(1500);
/// The slow subscriber takes so long over each record.
const SLOW_PACE: Duration = Duration::from_millis(8);
/// Subscribers that have not caught up after so long will not.
const CATCH_UP_WITHIN: Duration = Duration::from_secs(60);

#[derive(Deserialize)]
struct Event {
    id: String,
    network: String,
}

/// One line of the input.
struct Input {
    topic: TopicName,
    key: String,
    line: &'static str,
}

/// What was acknowledged: keys by topic, in the order they were sent, with their offsets.
type Acknowledged = BTreeMap<TopicName, Vec<(u64, String)>>;

/// Runs the demo. `Ok(false)`: it ran, and something was lost, doubled or out of order.
pub async fn run() -> Result<bool> {
    let begun = Instant::now();
    let scratch = tempfile::Builder::new()
        .prefix("tidings-demo-")
        .tempdir()
        .context("no scratch directory")?;
    let outcome = tell_story(scratch.path(), begun).await;
    match &outcome {
        Ok(true) => {}
        Err(error) if is_closed_pipe(error) => {}
        _ => {
            let kept = scratch.keep();
            let kept = format!("everything is kept for a look: {}", kept.display());
            // What is wrong is told in any case.
            let _ = say(&kept);
        }
    }
    outcome
}

/// Tells a line. Fails when nobody listens any more, which ends the demo.
fn say(line: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}

/// Whether the demo ended because whoever read its story had enough of it (`| head`).
pub fn is_closed_pipe(error: &anyhow::Error) -> bool {
    let is_closed = |error: &std::io::Error| error.kind() == std::io::ErrorKind::BrokenPipe;
    error
        .downcast_ref::<std::io::Error>()
        .is_some_and(is_closed)
}

struct Cluster {
    index: ServerProcess,
    peers: [ServerProcess; 2],
    client: Client,
}

async fn tell_story(scratch: &std::path::Path, begun: Instant) -> Result<bool> {
    say("Tidings demo: a week of earthquakes through a cluster that is killed in the middle\n")?;
    let inputs = read_inputs()?;
    let mut cluster = start_cluster(scratch).await?;
    let topics = create_topics(&cluster, &inputs).await?;
    let diaries: [Arc<Mutex<Diary>>; 2] = Default::default();
    let fast = start_reader(
        &cluster,
        "dashboard",
        Duration::ZERO,
        (&topics, &diaries[0]),
    )?;
    let slow = start_reader(&cluster, "archive", SLOW_PACE, (&topics, &diaries[1]))?;
    say("3. two durable subscribers follow all topics: 'dashboard' at once, 'archive' slowly\n")?;

    let (acknowledged, fast) =
        publish_through_crashes(&mut cluster, &inputs, (fast, &topics, &diaries[0])).await?;
    let total: usize = acknowledged.values().map(Vec::len).sum();
    say(&format!(
        "\n7. all {total} events are acknowledged; waiting for the subscribers to catch up"
    ))?;
    catch_up(&[&fast, &slow], total).await?;
    fast.stop().await?;
    slow.stop().await?;
    say("   both have everything and committed where they are\n")?;

    let locations = locate(&cluster.client, &topics).await?;
    let fine = report(&inputs, &acknowledged, &diaries, &locations)?;
    for server in cluster.peers.iter_mut().chain([&mut cluster.index]) {
        server.stop().await?;
    }
    let told = say(&format!(
        "\n{} in {:.1} s",
        verdict(fine),
        begun.elapsed().as_secs_f64()
    ));
    proved(fine, told)
}

/// What was proved. That something is wrong is the outcome also where nobody listens.
fn proved(fine: bool, told: Result<()>) -> Result<bool> {
    match fine {
        true => told.map(|()| true),
        false => Ok(false),
    }
}

fn verdict(fine: bool) -> &'static str {
    if fine {
        "Nothing was lost, nothing was doubled, nothing was out of order"
    } else {
        "SOMETHING IS WRONG: see the table"
    }
}

fn read_inputs() -> Result<Vec<Input>> {
    EARTHQUAKES
        .lines()
        .map(|line| {
            let event: Event =
                serde_json::from_str(line).context("the sample data is not as expected")?;
            Ok(Input {
                topic: format!("quakes.{}", event.network).parse()?,
                key: event.id,
                line,
            })
        })
        .collect()
}

async fn start_cluster(scratch: &std::path::Path) -> Result<Cluster> {
    let index = ServerProcess::index(scratch).await?;
    let peers = [
        ServerProcess::peer(scratch, "harbour", index.address()).await?,
        ServerProcess::peer(scratch, "lighthouse", index.address()).await?,
    ];
    say("1. three processes are running, each with a directory of its own:")?;
    say(&format!(
        "   index       {:<18} keeps the registry: who hosts which topic",
        index.address()
    ))?;
    for (name, peer) in ["harbour", "lighthouse"].iter().zip(&peers) {
        say(&format!(
            "   {name:<11} {:<18} a peer: stores topics and serves them",
            peer.address()
        ))?;
    }
    let seed: Address = index.address().parse()?;
    let client = Client::connect(ConnectOptions::new(vec![seed]).with_name("tidings-demo")).await?;
    Ok(Cluster {
        index,
        peers,
        client,
    })
}

async fn create_topics(cluster: &Cluster, inputs: &[Input]) -> Result<Vec<TopicName>> {
    let mut topics: Vec<TopicName> = inputs.iter().map(|input| input.topic.clone()).collect();
    topics.sort();
    topics.dedup();
    for topic in &topics {
        cluster
            .client
            .create_topic(&NewTopic::new(topic.clone()))
            .await?;
    }
    let locations = locate(&cluster.client, &topics).await?;
    let mut hosts: BTreeMap<&str, usize> = BTreeMap::new();
    for host in locations.values() {
        *hosts.entry(host).or_default() += 1;
    }
    ensure!(
        hosts.len() == 2,
        "all topics were placed on one peer: {hosts:?}"
    );
    let spread: Vec<String> = hosts
        .iter()
        .map(|(host, count)| format!("{count} on {host}"))
        .collect();
    say(&format!(
        "\n2. one topic for each of {} seismic networks, placed by load: {}",
        topics.len(),
        spread.join(", ")
    ))?;
    Ok(topics)
}

async fn locate(client: &Client, topics: &[TopicName]) -> Result<BTreeMap<TopicName, String>> {
    let mut locations = BTreeMap::new();
    for topic in topics {
        locations.insert(
            topic.clone(),
            client.lookup(topic).await?.peer_name.to_string(),
        );
    }
    Ok(locations)
}

fn start_reader(
    cluster: &Cluster,
    name: &str,
    pace: Duration,
    (topics, diary): (&[TopicName], &Arc<Mutex<Diary>>),
) -> Result<Reader> {
    let reading = Reading {
        client: cluster.client.clone(),
        name: name.parse()?,
        pace,
    };
    Ok(Reader::start(reading, topics, diary.clone()))
}

/// Publishes everything, killing a peer after a third and the index after two thirds.
async fn publish_through_crashes(
    cluster: &mut Cluster,
    inputs: &[Input],
    (fast, topics, diary): (Reader, &[TopicName], &Arc<Mutex<Diary>>),
) -> Result<(Acknowledged, Reader)> {
    let mut publishing = Publishing::start(&cluster.client, topics).await?;
    let (first, rest) = inputs.split_at(inputs.len() / 3);
    let (second, third) = rest.split_at(rest.len() / 2);

    publishing.send(first).await?;
    let pid = cluster.peers[0].pid().unwrap_or_default();
    cluster.peers[0].kill().await?;
    say(&format!(
        "4. {} events are sent; SIGKILL to peer harbour (pid {pid}), and publishing goes on",
        first.len()
    ))?;
    let harbour = &mut cluster.peers[0];
    let back = async {
        tokio::time::sleep(AWAY).await;
        harbour.launch().await
    };
    let (sent, took) = tokio::join!(publishing.send(second), back);
    sent?;
    say(&format!(
        "   harbour is back on the same directory, recovered and serving after {} ms; what was on its way is sent again, once",
        took?.as_millis()
    ))?;

    let reading = fast.stop().await?;
    let fast = Reader::start(reading, topics, diary.clone());
    say("5. 'dashboard' is stopped and started again: it goes on where it had committed")?;

    cluster.index.kill().await?;
    say("6. SIGKILL to the index: publishers and subscribers know their peers and do not notice")?;
    let index = &mut cluster.index;
    let back = async {
        tokio::time::sleep(AWAY).await;
        index.launch().await
    };
    let (sent, took) = tokio::join!(publishing.send(third), back);
    sent?;
    say(&format!(
        "   the index is back after {} ms with its registry",
        took?.as_millis()
    ))?;
    Ok((publishing.finish().await?, fast))
}

/// One publisher for each topic, and what it was promised.
struct Publishing {
    publishers: BTreeMap<TopicName, Publisher>,
    acks: Vec<(TopicName, String, Ack)>,
}

impl Publishing {
    async fn start(client: &Client, topics: &[TopicName]) -> Result<Self> {
        let mut publishers = BTreeMap::new();
        for topic in topics {
            let publisher = client.publisher(topic, PublisherOptions::default()).await?;
            publishers.insert(topic.clone(), publisher);
        }
        Ok(Self {
            publishers,
            acks: Vec::new(),
        })
    }

    async fn send(&mut self, inputs: &[Input]) -> Result<()> {
        for input in inputs {
            let publisher = self
                .publishers
                .get(&input.topic)
                .context("every topic has a publisher")?;
            let message = Message::new(input.line).with_key(input.key.clone());
            let ack = publisher.send(message).await?;
            self.acks
                .push((input.topic.clone(), input.key.clone(), ack));
            tokio::time::sleep(EVENT_EVERY).await;
        }
        Ok(())
    }

    async fn finish(self) -> Result<Acknowledged> {
        let mut acknowledged = Acknowledged::new();
        for (topic, key, ack) in self.acks {
            let acked = ack.await?;
            acknowledged
                .entry(topic)
                .or_default()
                .push((acked.offset.get(), key));
        }
        for publisher in self.publishers.into_values() {
            publisher.close().await?;
        }
        Ok(acknowledged)
    }
}

async fn catch_up(readers: &[&Reader], total: usize) -> Result<()> {
    let deadline = Instant::now() + CATCH_UP_WITHIN;
    while readers.iter().any(|reader| reader.count() < total) && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // A moment more: what comes now would be one too many, and the table would show it.
    tokio::time::sleep(Duration::from_millis(300)).await;
    Ok(())
}

/// Compares input, acknowledgements and both diaries, and shows it. True if all is well.
fn report(
    inputs: &[Input],
    acknowledged: &Acknowledged,
    diaries: &[Arc<Mutex<Diary>>; 2],
    locations: &BTreeMap<TopicName, String>,
) -> Result<bool> {
    let mut expected: BTreeMap<&TopicName, Vec<(u64, String)>> = BTreeMap::new();
    for input in inputs {
        let events = expected.entry(&input.topic).or_default();
        events.push((events.len() as u64, input.key.clone()));
    }
    let diaries = diaries
        .each_ref()
        .map(|diary| diary.lock().unwrap_or_else(PoisonError::into_inner).clone());
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header([
        "topic",
        "peer",
        "events",
        "acknowledged",
        "dashboard",
        "archive",
        "",
    ]);
    let mut all_fine = true;
    for (topic, events) in &expected {
        let seen = [Some(acknowledged), Some(&diaries[0]), Some(&diaries[1])]
            .map(|of| of.and_then(|of| of.get(*topic)));
        let fine = seen.iter().all(|seen| *seen == Some(events));
        all_fine &= fine;
        let count = |n: usize| seen[n].map_or(0, Vec::len).to_string();
        let host = locations.get(*topic).cloned().unwrap_or_default();
        let mark = if fine {
            "exactly once, in order"
        } else {
            "DIFFERS FROM THE INPUT"
        };
        table.add_row([
            topic.to_string(),
            host,
            events.len().to_string(),
            count(0),
            count(1),
            count(2),
            mark.to_owned(),
        ]);
    }
    proved(all_fine, say(&table.trim_fmt()))
}
