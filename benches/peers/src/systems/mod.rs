//! The systems: how each is started, and how one publishes to it and reads from it.
//!
//! Each is used the way its users do it through its usual client, so that it is as
//! fast as it can be made without giving up the acknowledgement of each record:
//!
//! | | a batch | single records | a topic | 1,000 topics | reading |
//! |---|---|---|---|---|---|
//! | Redis | a pipeline of `XADD` | a pipeline of 64, each with its reply | a stream | 1,000 streams | `XREAD COUNT BLOCK` |
//! | NATS | publishes, acknowledgements awaited later | the same | a stream | 1,000 subjects of one stream, which is cheaper than 1,000 streams | a pull consumer without acknowledgements, thousands asked for at once |
//! | Tidings | `send_batch` | `send`, each with its `Ack` | a topic | 1,000 topics | a passing subscriber |
//!
//! Every publisher has a connection of its own.

mod nats;
mod redis;
pub mod tidings;

use std::path::{Path, PathBuf};

use anyhow::Result;
use bytes::Bytes;
use clap::ValueEnum;
use futures_util::future::BoxFuture;

use crate::install;
use crate::server::{self, Server};
use crate::work::{Kind, Work};

/// A system in one of its settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum System {
    /// Redis Streams, appendonly, appendfsync always
    RedisAlways,
    /// Redis Streams, appendonly, appendfsync everysec
    RedisEverysec,
    /// NATS JetStream, file storage, its default sync
    Nats,
    /// Tidings, fsync, a growing store
    Tidings,
    /// Tidings, fsync, a store whose slots are reused: retention has been at work
    TidingsReused,
    /// Tidings, durability os (latency only)
    TidingsOs,
}

impl System {
    /// What it is called on the command line.
    pub fn key(self) -> String {
        let value = self.to_possible_value();
        value.map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// Whether it is one of ours.
    pub fn is_ours(self) -> bool {
        matches!(self, Self::Tidings | Self::TidingsReused | Self::TidingsOs)
    }

    /// Whether the work says anything about this setting.
    pub fn does(self, work: &Work) -> bool {
        match self {
            Self::TidingsReused => work.kind == Kind::Publish,
            Self::TidingsOs => work.kind == Kind::Latency,
            _ => true,
        }
    }

    /// Whether its topics are to be written and discarded before anything is measured.
    pub fn is_churned(self) -> bool {
        self == Self::TidingsReused
    }
}

/// Where the programs are.
#[derive(Debug, Clone, Default)]
pub struct Programs {
    redis: PathBuf,
    nats: PathBuf,
    tidings: PathBuf,
}

impl Programs {
    /// Finds, installs or builds what those systems need.
    pub fn ready(systems: &[System], tidings: Option<&Path>) -> Result<Self> {
        let mut programs = Self::default();
        for system in systems {
            let place = programs.place(*system);
            if place.as_os_str().is_empty() {
                *place = match system {
                    System::RedisAlways | System::RedisEverysec => {
                        install::program("redis-server")?
                    }
                    System::Nats => install::program("nats-server")?,
                    _ => install::tidings(tidings)?,
                };
            }
        }
        Ok(programs)
    }

    fn place(&mut self, system: System) -> &mut PathBuf {
        match system {
            System::RedisAlways | System::RedisEverysec => &mut self.redis,
            System::Nats => &mut self.nats,
            _ => &mut self.tidings,
        }
    }

    /// The versions of those that were made ready.
    pub fn versions(&self) -> Vec<String> {
        let all = [&self.redis, &self.nats, &self.tidings];
        let some = all.into_iter().filter(|path| !path.as_os_str().is_empty());
        some.map(|path| install::version(path)).collect()
    }
}

/// A running system and the way in.
#[derive(Debug)]
pub struct Running {
    /// The process.
    pub server: Server,
    door: Door,
}

#[derive(Debug)]
enum Door {
    Redis(redis::Door),
    Nats(nats::Door),
    Tidings(tidings::Door),
}

/// One publisher with its connection.
pub enum Publisher {
    /// Of Redis.
    Redis(redis::Publisher),
    /// Of NATS.
    Nats(nats::Publisher),
    /// Ours.
    Tidings(tidings::Publisher),
}

/// One reader of the first topic, from its beginning.
pub enum Reader {
    /// Of Redis.
    Redis(redis::Reader),
    /// Of NATS.
    Nats(Box<nats::Reader>),
    /// Ours.
    Tidings(Box<tidings::Reader>),
}

/// Resolves when all records of one call are acknowledged.
pub type Acknowledged = BoxFuture<'static, Result<()>>;

/// Records that are handed over together.
#[derive(Debug)]
pub struct Turn {
    /// Which of the publisher's topics.
    pub topic: usize,
    /// The payloads.
    pub payloads: Vec<Bytes>,
    /// As one batch; otherwise each by itself.
    pub together: bool,
}

impl Running {
    /// Starts a system in a new directory below `above`, with the topics of the work.
    pub async fn start(
        programs: &Programs,
        system: System,
        work: &Work,
        above: &Path,
    ) -> Result<Self> {
        let dir = server::scratch(above)?;
        let (server, door) = match system {
            System::RedisAlways | System::RedisEverysec => {
                let sync = if system == System::RedisAlways {
                    "always"
                } else {
                    "everysec"
                };
                let (server, door) = redis::start(&programs.redis, dir, sync).await?;
                (server, Door::Redis(door))
            }
            System::Nats => {
                let (server, door) = nats::start(&programs.nats, dir).await?;
                (server, Door::Nats(door))
            }
            System::Tidings | System::TidingsReused | System::TidingsOs => {
                let (server, door) = tidings::start(&programs.tidings, dir, system, work).await?;
                (server, Door::Tidings(door))
            }
        };
        Ok(Self { server, door })
    }

    /// A publisher to those topics, over a connection of its own.
    pub async fn publisher(&self, topics: &[u32], work: &Work) -> Result<Publisher> {
        Ok(match &self.door {
            Door::Redis(door) => Publisher::Redis(door.publisher(topics).await?),
            Door::Nats(door) => Publisher::Nats(door.publisher(topics, work).await?),
            Door::Tidings(door) => Publisher::Tidings(door.publisher(topics).await?),
        })
    }

    /// A reader of the first topic, from its beginning.
    pub async fn reader(&self) -> Result<Reader> {
        Ok(match &self.door {
            Door::Redis(door) => Reader::Redis(door.reader().await?),
            Door::Nats(door) => Reader::Nats(Box::new(door.reader().await?)),
            Door::Tidings(door) => Reader::Tidings(Box::new(door.reader().await?)),
        })
    }

    /// How many records the system says were ever stored in all topics of the work.
    pub async fn stored(&self, work: &Work) -> Result<u64> {
        match &self.door {
            Door::Redis(door) => door.stored(work).await,
            Door::Nats(door) => door.stored().await,
            Door::Tidings(door) => door.stored().await,
        }
    }
}

impl Publisher {
    /// Hands records over, waiting only for room; the answer resolves when all are acknowledged.
    pub async fn send(&mut self, turn: Turn) -> Result<Acknowledged> {
        match self {
            Self::Redis(publisher) => Ok(publisher.send(turn).await),
            Self::Nats(publisher) => publisher.send(turn).await,
            Self::Tidings(publisher) => publisher.send(turn).await,
        }
    }
}

impl Reader {
    /// Waits for records and shows the payload of each that has come, at least one.
    pub async fn next(&mut self, seen: &mut (dyn FnMut(&[u8]) + Send)) -> Result<()> {
        match self {
            Self::Redis(reader) => reader.next(seen).await,
            Self::Nats(reader) => reader.next(seen).await,
            Self::Tidings(reader) => reader.next(seen).await,
        }
    }
}
