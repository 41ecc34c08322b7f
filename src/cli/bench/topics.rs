//! The topics of a run: made for it, and removed after it.

use crate::cli::fail::{Failure, Result};
use crate::cli::output::Output;
use crate::client::{Client, NewTopic};
use crate::types::{Durability, TopicName, TopicSettings};

/// A number nobody else has.
pub fn random<const BYTES: usize>() -> Result<[u8; BYTES]> {
    let mut random = [0; BYTES];
    getrandom::fill(&mut random)
        .map_err(|error| Failure::server(format!("no randomness: {error}")))?;
    Ok(random)
}

/// The name of a topic of the run.
pub fn name(run: u64, number: u32) -> TopicName {
    let name = format!("bench.{run:016x}.{number}");
    name.parse().expect("made of tokens")
}

/// Topics that exist.
#[derive(Debug)]
pub struct Topics {
    client: Client,
    /// Tells the run from others.
    pub run: u64,
    /// Their names.
    pub names: Vec<TopicName>,
}

impl Topics {
    /// Makes so many; none stays behind if that fails.
    pub async fn create(
        client: &Client,
        output: &Output,
        (count, durability): (u32, Durability),
    ) -> Result<Self> {
        let mut topics = Self {
            client: client.clone(),
            run: u64::from_le_bytes(random()?),
            names: Vec::new(),
        };
        for number in 0..count {
            let name = name(topics.run, number);
            let mut topic = NewTopic::new(name.clone());
            topic.settings = TopicSettings {
                durability,
                ..TopicSettings::default()
            };
            if let Err(error) = client.create_topic(&topic).await {
                topics.remove(output).await;
                return Err(error.into());
            }
            topics.names.push(name);
        }
        Ok(topics)
    }

    /// Removes them; what stays because of a failure is said.
    pub async fn remove(&self, output: &Output) {
        for topic in &self.names {
            if let Err(error) = self.client.delete_topic(topic).await {
                output.warn(format!("topic {topic} stays behind: {error}"));
            }
        }
    }
}
