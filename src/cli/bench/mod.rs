//! `tidings bench`: how fast, how late, and whether all of it is there.
//!
//! Against a cluster that is named, or against one of its own in a scratch
//! directory. The load is made of publishers that share out the topics among
//! them; with a rate it is an open loop: each message has a moment at which it
//! is due, and its latency counts from there, so that a stalled server shows in
//! the numbers instead of slowing the load down.
//!
//! The topics are called `bench.RUN.N`, made for the run and removed after it.
//! `lookup` and `connections` speak to the servers below the client library, so
//! that what they measure is the server.

mod alarm;
mod asking;
mod connections;
mod group;
mod impostor;
mod ledger;
mod line;
mod load;
mod lookup;
mod messages;
mod progress;
mod report;
mod sampler;
mod scratch;
mod topics;

use clap::Subcommand;

use crate::cli::fail::Result;
use crate::cli::{Context, signals};
use crate::net::budget::raise_descriptor_limit;
use connections::Crowd;
use lookup::Lookups;
use messages::Crew;
use messages::{Kind, Shape};
pub use scratch::Scratch;

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// How fast messages are published, and how long an acknowledgement takes
    #[command(after_help = "\
Examples:
  tidings bench publish
  tidings bench publish --topics 100 --publishers 8 --size 1KiB --duration 30s --verify
  tidings bench publish --publishers 8 --size 100 --batch 1000
  tidings bench publish --rate 5000/s -o json
  tidings bench publish --index 10.0.0.1:7400")]
    Publish(Shape),
    /// How fast messages are read back, after publishing them
    #[command(after_help = "\
Examples:
  tidings bench read --topics 4 --size 1KiB --duration 5s --verify")]
    Read(Shape),
    /// How long a message takes from its publisher to a subscriber
    #[command(after_help = "\
Examples:
  tidings bench latency --rate 2000/s
  tidings bench latency --durability os --publishers 4 -o json")]
    Latency(Shape),
    /// How fast members of a group share messages published before, and acknowledge each of them
    #[command(after_help = "\
Examples:
  tidings bench group
  tidings bench group --members 8 --size 100 --batch 1000 --verify
  tidings bench group --topics 4 --members 2 --max-unacked 1000 -o json")]
    Group(Crew),
    /// How fast the index says who hosts a topic, and how long registering topics takes
    #[command(after_help = "\
Examples:
  tidings bench lookup
  tidings bench lookup --topics 1000000 --clients 4 --in-flight 256
  tidings bench lookup --clients 1000 --rate 20000/s -o json
  tidings bench lookup --existing --index 10.0.0.1:7400")]
    Lookup(Lookups),
    /// What many connections cost the server, and those who publish beside them
    #[command(after_help = "\
Examples:
  tidings bench connections
  tidings bench connections --connections 10000 --duration 10s
  tidings bench connections --publishers 1000 --in-flight 100 -o json")]
    Connections(Crowd),
}

/// Runs a verb against the cluster of the context.
pub async fn run(verb: Verb, context: &Context) -> Result {
    let stop = signals::listen()?;
    // Many clients in one process need as much as a server.
    raise_descriptor_limit();
    match verb {
        Verb::Publish(shape) => messages::run((Kind::Publish, shape), context, stop).await,
        Verb::Read(shape) => messages::run((Kind::Read, shape), context, stop).await,
        Verb::Latency(shape) => messages::run((Kind::Latency, shape), context, stop).await,
        Verb::Group(crew) => {
            let shape = crew.shape.clone();
            messages::run((Kind::Group(crew), shape), context, stop).await
        }
        Verb::Lookup(lookups) => lookup::run(lookups, context, stop).await,
        Verb::Connections(crowd) => connections::run(crowd, context, stop).await,
    }
}
