//! NATS JetStream through `async-nats`.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use async_nats::Client;
use async_nats::jetstream::consumer::pull;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy};
use async_nats::jetstream::context::ContextBuilder;
use async_nats::jetstream::stream::{Config, StorageType, Stream};
use async_nats::jetstream::{self, Context};
use futures_util::StreamExt;
use tempfile::TempDir;
use tokio::process::Command;

use super::{Acknowledged, Turn};
use crate::server::{self, Server};
use crate::work::Work;

/// Records asked for at once.
const READ_COUNT: usize = 20_000;
/// Records shown at once at most.
const SHOWN_AT_ONCE: usize = 4096;
/// How long an acknowledgement may take.
const ACK_TIMEOUT: Duration = Duration::from_secs(60);
/// How long requests to the server's interface may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// The stream that holds all subjects.
const STREAM: &str = "bench";

/// The way in.
#[derive(Debug)]
pub struct Door {
    address: String,
    context: Context,
}

/// Starts `nats-server` with JetStream and makes the stream: file storage, all else as it comes.
pub async fn start(program: &Path, dir: TempDir) -> Result<(Server, Door)> {
    let port = server::free_port()?;
    let mut command = Command::new(program);
    command
        .args(["-js", "-a", "127.0.0.1", "-p", &port.to_string(), "-sd"])
        .arg(dir.path().join("jetstream"));
    let mut server = Server::start(command, dir)?;
    server.accepts(port).await?;
    server
        .says(|log| log.contains("Server is ready").then_some(()))
        .await?;
    let address = format!("nats://127.0.0.1:{port}");
    let context = jetstream::new(connect(&address).await?);
    let config = Config {
        name: STREAM.to_owned(),
        subjects: vec![format!("{STREAM}.*")],
        storage: StorageType::File,
        ..Config::default()
    };
    context.create_stream(config).await?;
    Ok((server, Door { address, context }))
}

async fn connect(address: &str) -> Result<Client> {
    let options = async_nats::ConnectOptions::new()
        .request_timeout(Some(CALL_TIMEOUT))
        // More than is ever asked for: what does not fit would be dropped.
        .subscription_capacity(READ_COUNT * 4);
    Ok(options.connect(address).await?)
}

impl Door {
    /// A publisher with a connection of its own.
    pub async fn publisher(&self, topics: &[u32], work: &Work) -> Result<Publisher> {
        let context = ContextBuilder::new()
            .timeout(ACK_TIMEOUT)
            .ack_timeout(ACK_TIMEOUT)
            // The window of the work is the only one.
            .max_ack_inflight(work.in_flight + work.turn)
            .build(connect(&self.address).await?);
        let subjects = topics.iter().map(|topic| format!("{STREAM}.{topic}"));
        Ok(Publisher {
            context,
            subjects: subjects.map(async_nats::Subject::from).collect(),
        })
    }

    async fn stream(&self) -> Result<Stream> {
        let context = jetstream::new(connect(&self.address).await?);
        Ok(context.get_stream(STREAM).await?)
    }

    /// A reader of the stream.
    pub async fn reader(&self) -> Result<Reader> {
        let config = pull::Config {
            ack_policy: AckPolicy::None,
            deliver_policy: DeliverPolicy::All,
            ..pull::Config::default()
        };
        let consumer = self.stream().await?.create_consumer(config).await?;
        let messages = consumer.stream().max_messages_per_batch(READ_COUNT);
        Ok(Reader {
            messages: messages.messages().await?,
        })
    }

    /// How many messages the stream holds.
    pub async fn stored(&self) -> Result<u64> {
        let mut stream = self.context.get_stream(STREAM).await?;
        Ok(stream.info().await?.state.messages)
    }
}

/// A publisher.
pub struct Publisher {
    context: Context,
    subjects: Vec<async_nats::Subject>,
}

impl Publisher {
    /// Publishes each; the answer awaits all acknowledgements.
    pub async fn send(&mut self, turn: Turn) -> Result<Acknowledged> {
        let subject = &self.subjects[turn.topic];
        let mut acks = Vec::with_capacity(turn.payloads.len());
        for payload in turn.payloads {
            acks.push(self.context.publish(subject.clone(), payload).await?);
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
    messages: pull::Stream,
}

impl Reader {
    /// Shows what has come.
    pub async fn next(&mut self, seen: &mut (dyn FnMut(&[u8]) + Send)) -> Result<()> {
        let mut ready = (&mut self.messages).ready_chunks(SHOWN_AT_ONCE);
        let messages = ready.next().await.context("the consumer has ended")?;
        for message in messages {
            let message = message.map_err(|error| anyhow!("reading: {error}"))?;
            seen(&message.payload);
        }
        Ok(())
    }
}
