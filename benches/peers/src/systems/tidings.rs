//! Ours, through `tidings::client`.

use std::ops::Range;
use std::path::Path;

use anyhow::{Context as _, Result};
use futures_util::{StreamExt, TryStreamExt, stream};
use tempfile::TempDir;
use tidings::client::{
    Client, ConnectOptions, DeliveryRef, Message, NewTopic, PublisherOptions, Subscriber,
    SubscriberOptions,
};
use tidings::protocol::api::Position;
use tidings::types::{Address, Durability, Retention, TopicName, TopicSettings};
use tokio::process::Command;

use super::{Acknowledged, System, Turn};
use crate::server::Server;
use crate::work::Work;

/// What all topics together keep where slots are to be reused: two slots' worth.
const RETAINED_BYTES: u64 = 128 << 20;
/// Topics made at once.
const MADE_AT_ONCE: usize = 64;

/// The way in.
#[derive(Debug)]
pub struct Door {
    index: Address,
    client: Client,
}

/// Starts `tidings up` and makes the topics of the work.
pub async fn start(
    program: &Path,
    dir: TempDir,
    system: System,
    work: &Work,
) -> Result<(Server, Door)> {
    let (server, index) = launch(program, dir).await?;
    let door = Door::open(index).await?;
    door.make_topics(0..work.topics, settings(system, work))
        .await?;
    Ok((server, door))
}

/// A command of ours that no configuration around us reaches: an empty file in `dir` is its own.
pub fn command(program: &Path, dir: &Path) -> Result<Command> {
    let config = dir.join("tidings.toml");
    std::fs::write(&config, "")?;
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("TIDINGS_") {
            command.env_remove(name);
        }
    }
    command.arg("--config").arg(&config);
    Ok(command)
}

/// Starts `tidings up` with its data in `dir`; also the address of its index, when both are ready.
pub async fn launch(program: &Path, dir: TempDir) -> Result<(Server, Address)> {
    let mut command = command(program, dir.path())?;
    command
        .args([
            "up",
            "--listen",
            "127.0.0.1:0",
            "--index-listen",
            "127.0.0.1:0",
        ])
        .args(["--log", "warn", "--data-dir"])
        .arg(dir.path().join("data"));
    let mut server = Server::start(command, dir)?;
    let index = server.says(ready_index).await?;
    Ok((server, index.parse()?))
}

/// The index's address, when the peer is ready too.
fn ready_index(log: &str) -> Option<String> {
    let (mut index, mut peer) = (None, false);
    for line in log.lines() {
        match line.split(' ').collect::<Vec<_>>()[..] {
            ["ready", "index", address] => index = Some(address.to_owned()),
            ["ready", "peer", _, _] => peer = true,
            _ => {}
        }
    }
    index.filter(|_| peer)
}

fn settings(system: System, work: &Work) -> TopicSettings {
    let durability = match system {
        System::TidingsOs => Durability::Os,
        _ => Durability::Fsync,
    };
    let bytes = system
        .is_churned()
        .then_some(RETAINED_BYTES / u64::from(work.topics));
    TopicSettings {
        durability,
        retention: Retention {
            bytes,
            ..Retention::default()
        },
        ..TopicSettings::default()
    }
}

async fn make_topic(client: &Client, topic: u32, settings: TopicSettings) -> Result<()> {
    let topic = NewTopic {
        settings,
        ..NewTopic::new(name(topic)?)
    };
    client.create_topic(&topic).await?;
    Ok(())
}

/// What a topic is called.
pub fn name(topic: u32) -> Result<TopicName> {
    Ok(format!("bench.{topic}").parse()?)
}

/// A client with connections of its own.
pub async fn connect(index: &Address) -> Result<Client> {
    Ok(Client::connect(ConnectOptions::new(vec![index.clone()])).await?)
}

impl Door {
    /// Through an index.
    pub async fn open(index: Address) -> Result<Self> {
        let client = connect(&index).await?;
        Ok(Self { index, client })
    }

    /// Where its index is.
    pub fn index(&self) -> &Address {
        &self.index
    }

    /// The client that administers.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Makes topics, by number, some at the same time.
    pub async fn make_topics(&self, topics: Range<u32>, settings: TopicSettings) -> Result<()> {
        stream::iter(topics)
            .map(|topic| make_topic(&self.client, topic, settings))
            .buffer_unordered(MADE_AT_ONCE)
            .try_collect::<()>()
            .await
    }

    /// A publisher with a connection of its own.
    pub async fn publisher(&self, topics: &[u32]) -> Result<Publisher> {
        self.publisher_with(topics, &PublisherOptions::default())
            .await
    }

    /// The same with other options.
    pub async fn publisher_with(
        &self,
        topics: &[u32],
        options: &PublisherOptions,
    ) -> Result<Publisher> {
        let client = connect(&self.index).await?;
        let mut lanes = Vec::with_capacity(topics.len());
        for topic in topics {
            lanes.push(client.publisher(&name(*topic)?, options.clone()).await?);
        }
        Ok(Publisher { lanes })
    }

    /// A reader of the first topic.
    pub async fn reader(&self) -> Result<Reader> {
        let client = connect(&self.index).await?;
        let options = SubscriberOptions::passing(Position::Beginning);
        Ok(Reader {
            subscriber: client.subscriber(&name(0)?, options).await?,
        })
    }

    /// The sum of the ends of all topics: their offsets begin at 0 and are dense.
    pub async fn stored(&self) -> Result<u64> {
        let all = "bench.*".parse()?;
        let mut stored = 0;
        for report in self.client.describe_topics(&all).await? {
            stored += report.info?.end_offset.get();
        }
        Ok(stored)
    }
}

/// A publisher.
pub struct Publisher {
    lanes: Vec<tidings::client::Publisher>,
}

impl Publisher {
    /// Sends them as one batch or each by itself.
    pub async fn send(&mut self, turn: Turn) -> Result<Acknowledged> {
        let lane = &self.lanes[turn.topic];
        let messages = turn.payloads.into_iter().map(Message::new);
        if turn.together {
            let messages: Vec<Message> = messages.collect();
            let acks = lane.send_batch(&messages).await?;
            return Ok(Box::pin(async move {
                for ack in acks {
                    ack.await?;
                }
                Ok(())
            }));
        }
        let mut acks = Vec::with_capacity(messages.len());
        for message in messages {
            acks.push(lane.send(message).await?);
        }
        Ok(Box::pin(async move {
            for ack in acks {
                ack.await?;
            }
            Ok(())
        }))
    }
}

/// A reader.
pub struct Reader {
    subscriber: Subscriber,
}

impl Reader {
    /// Shows what is at hand.
    pub async fn next(&mut self, seen: &mut (dyn FnMut(&[u8]) + Send)) -> Result<()> {
        self.subscriber.ready().await.context("reading")?;
        while let Some(delivery) = self.subscriber.next_at_hand().context("reading")? {
            match delivery {
                DeliveryRef::Record(received) => seen(received.record.value),
                DeliveryRef::Gap(gap) => anyhow::bail!("records are missing: {gap:?}"),
            }
        }
        Ok(())
    }
}
