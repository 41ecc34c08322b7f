//! Redis Streams through `redis`.

use std::future::ready;
use std::path::Path;
use std::task::Poll;

use anyhow::{Result, bail};
use futures_util::poll;
use redis::aio::MultiplexedConnection;
use redis::io::tcp::TcpSettings;
use redis::{AsyncConnectionConfig, IntoConnectionInfo, Value};
use tempfile::TempDir;
use tokio::process::Command;

use super::{Acknowledged, Turn};
use crate::server::{self, Server};
use crate::work::Work;

/// Records asked for at once.
const READ_COUNT: usize = 5000;
/// How long a read waits for a first record, in milliseconds; then it asks again.
const READ_WAIT_MS: usize = 1000;
/// Calls that may wait in the client: more than any publisher has on the way.
const CLIENT_QUEUE: usize = 4096;

/// The way in.
#[derive(Debug)]
pub struct Door {
    client: redis::Client,
}

/// Starts `redis-server`. Snapshots are off: they would be a second copy beside the append-only file.
pub async fn start(program: &Path, dir: TempDir, sync: &str) -> Result<(Server, Door)> {
    let port = server::free_port()?;
    let mut command = Command::new(program);
    command
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
        .args(["--appendonly", "yes", "--appendfsync", sync, "--save", ""])
        .args(["--daemonize", "no", "--loglevel", "warning", "--dir"])
        .arg(dir.path());
    let mut server = Server::start(command, dir)?;
    server.accepts(port).await?;
    // The client leaves Nagle's algorithm on unless told: it would hold back what follows a pipeline.
    let settings = TcpSettings::default().set_nodelay(true);
    let address = format!("redis://127.0.0.1:{port}/").into_connection_info()?;
    let client = redis::Client::open(address.set_tcp_settings(settings))?;
    Ok((server, Door { client }))
}

fn key(topic: u32) -> String {
    format!("bench.{topic}")
}

impl Door {
    async fn connection(&self) -> Result<MultiplexedConnection> {
        let config = AsyncConnectionConfig::new()
            .set_response_timeout(None)
            .set_pipeline_buffer_size(CLIENT_QUEUE);
        let client = &self.client;
        Ok(client
            .get_multiplexed_async_connection_with_config(&config)
            .await?)
    }

    /// A publisher with a connection of its own.
    pub async fn publisher(&self, topics: &[u32]) -> Result<Publisher> {
        Ok(Publisher {
            connection: self.connection().await?,
            keys: topics.iter().map(|topic| key(*topic)).collect(),
        })
    }

    /// A reader of the first stream.
    pub async fn reader(&self) -> Result<Reader> {
        Ok(Reader {
            connection: self.connection().await?,
            last: b"0".to_vec(),
        })
    }

    /// The lengths of all streams.
    pub async fn stored(&self, work: &Work) -> Result<u64> {
        let mut lengths = redis::pipe();
        for topic in 0..work.topics {
            lengths.cmd("XLEN").arg(key(topic));
        }
        let lengths: Vec<u64> = lengths.query_async(&mut self.connection().await?).await?;
        Ok(lengths.iter().sum())
    }
}

/// A publisher.
pub struct Publisher {
    connection: MultiplexedConnection,
    keys: Vec<String>,
}

impl Publisher {
    /// Sends a pipeline.
    pub async fn send(&mut self, turn: Turn) -> Acknowledged {
        let mut pipeline = redis::Pipeline::with_capacity(turn.payloads.len());
        for payload in &turn.payloads {
            pipeline
                .cmd("XADD")
                .arg(&self.keys[turn.topic])
                .arg("*")
                .arg("p")
                .arg(&payload[..]);
        }
        let mut connection = self.connection.clone();
        let mut acknowledged: Acknowledged = Box::pin(async move {
            let ids: Vec<Value> = pipeline.query_async(&mut connection).await?;
            match ids.len() == turn.payloads.len() {
                true => Ok(()),
                false => bail!("{} of {} replies came", ids.len(), turn.payloads.len()),
            }
        });
        // The client queues it when it is first polled: now, so that order is kept.
        match poll!(&mut acknowledged) {
            Poll::Ready(outcome) => Box::pin(ready(outcome)),
            Poll::Pending => acknowledged,
        }
    }
}

/// A reader.
pub struct Reader {
    connection: MultiplexedConnection,
    /// The id of the last record that was shown.
    last: Vec<u8>,
}

impl Reader {
    /// Shows the records after the last one.
    pub async fn next(&mut self, seen: &mut (dyn FnMut(&[u8]) + Send)) -> Result<()> {
        let mut read = redis::cmd("XREAD");
        read.arg("COUNT").arg(READ_COUNT);
        read.arg("BLOCK").arg(READ_WAIT_MS);
        read.arg("STREAMS").arg(key(0)).arg(&self.last);
        loop {
            // [[key, [[id, [field, payload]], ...]]], or nothing.
            let streams: Value = read.query_async(&mut self.connection).await?;
            let Some(records) = nested(&streams, &[0, 1]) else {
                continue;
            };
            let Value::Array(records) = records else {
                bail!("an array of records was expected, found {records:?}");
            };
            for record in records {
                match (nested(record, &[0]), nested(record, &[1, 1])) {
                    (Some(Value::BulkString(id)), Some(Value::BulkString(payload))) => {
                        seen(payload);
                        self.last.clone_from(id);
                    }
                    _ => bail!("a record was expected, found {record:?}"),
                }
            }
            return Ok(());
        }
    }
}

/// The value at that place in arrays of arrays.
fn nested<'a>(value: &'a Value, places: &[usize]) -> Option<&'a Value> {
    places.iter().try_fold(value, |value, place| match value {
        Value::Array(values) => values.get(*place),
        _ => None,
    })
}
