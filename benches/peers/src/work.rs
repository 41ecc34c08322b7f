//! What is measured: the same for every system.

use clap::ValueEnum;

/// Topics of the work that is spread out.
const MANY_TOPICS: u32 = 1000;
/// Single messages that a publisher hands over between two looks at the clock.
const SINGLES_PER_TURN: usize = 64;

/// A measurement, as it is called on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Name {
    /// 8 publishers x 100 B, batches of 1,000
    #[value(name = "publish-100")]
    Publish100,
    /// 8 publishers x 1 KiB, batches of 100
    #[value(name = "publish-1k")]
    Publish1k,
    /// 1 publisher x 100 B, batches of 1,000
    #[value(name = "one-100")]
    One100,
    /// 8 publishers x 100 B, single sends, pipelined
    #[value(name = "single-8")]
    Single8,
    /// 1 publisher x 100 B, single sends, pipelined
    #[value(name = "single-1")]
    Single1,
    /// 1 publisher x 100 B, 1 in flight
    #[value(name = "lone-1")]
    Lone1,
    /// 8 publishers x 100 B, 1 in flight each
    #[value(name = "lone-8")]
    Lone8,
    /// 8 publishers x 100 B over 1,000 topics, batches of 1,000
    #[value(name = "topics-1000")]
    Topics1000,
    /// catch-up read, 100 B
    #[value(name = "read-100")]
    Read100,
    /// catch-up read, 1 KiB
    #[value(name = "read-1k")]
    Read1k,
    /// end to end, open loop at a fixed rate, 100 B
    #[value(name = "latency")]
    Latency,
}

/// What kind of measurement it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Acknowledged records per second.
    Publish,
    /// Records per second of one reader, from the beginning to the end.
    Read,
    /// From the moment a message was due until its reader has it.
    Latency,
}

/// The shape of a measurement.
#[derive(Debug, Clone, Copy)]
pub struct Work {
    /// Its name.
    pub name: Name,
    /// What is measured.
    pub kind: Kind,
    /// How many publishers.
    pub publishers: u32,
    /// Bytes of a payload.
    pub size: usize,
    /// Records sent with one call; 1: each by itself, acknowledged by itself.
    pub batch: usize,
    /// Records of one publisher between two looks at the clock.
    pub turn: usize,
    /// Records of one publisher that may be unacknowledged.
    pub in_flight: usize,
    /// How many topics, shared out among the publishers.
    pub topics: u32,
}

impl Work {
    /// The shape behind a name; `in_flight` where the work does not say it.
    pub fn new(name: Name, in_flight: usize) -> Self {
        let (publishers, size, batch) = match name {
            Name::Publish100 | Name::Topics1000 | Name::Read100 => (8, 100, 1000),
            Name::Publish1k | Name::Read1k => (8, 1024, 100),
            Name::One100 => (1, 100, 1000),
            Name::Single8 | Name::Lone8 => (8, 100, 1),
            Name::Single1 | Name::Lone1 | Name::Latency => (1, 100, 1),
        };
        let kind = match name {
            Name::Read100 | Name::Read1k => Kind::Read,
            Name::Latency => Kind::Latency,
            _ => Kind::Publish,
        };
        let is_lone = matches!(name, Name::Lone1 | Name::Lone8);
        let in_flight = if is_lone { 1 } else { in_flight.max(batch) };
        Self {
            name,
            kind,
            publishers,
            size,
            batch,
            turn: match batch {
                1 => SINGLES_PER_TURN.min(in_flight),
                batch => batch,
            },
            in_flight,
            topics: if name == Name::Topics1000 {
                MANY_TOPICS
            } else {
                1
            },
        }
    }

    /// The fastest way of filling the topics of this work: large batches of 8 publishers.
    pub fn filling(self) -> Self {
        let batch = if self.size < 1024 { 1000 } else { 100 };
        Self {
            kind: Kind::Publish,
            publishers: 8,
            batch,
            turn: batch,
            in_flight: batch * 10,
            ..self
        }
    }

    /// One line that tells what it is.
    pub fn title(&self) -> String {
        let value = self.name.to_possible_value();
        let help = value.as_ref().and_then(|value| value.get_help());
        help.map(ToString::to_string).unwrap_or_default()
    }

    /// What it is called on the command line.
    pub fn key(&self) -> String {
        let value = self.name.to_possible_value();
        value.map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// The topics of one publisher, by number: each has one at least.
    pub fn topics_of(&self, publisher: u32) -> Vec<u32> {
        match self.topics >= self.publishers {
            true => (publisher..self.topics)
                .step_by(self.publishers as usize)
                .collect(),
            false => vec![publisher % self.topics],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_topic_has_a_publisher_and_every_publisher_a_topic() {
        for name in Name::value_variants() {
            let work = Work::new(*name, 10_000);
            assert!(!work.title().is_empty() && !work.key().is_empty());
            assert!(work.turn <= work.in_flight && work.turn.is_multiple_of(work.batch));
            let each = (0..work.publishers).map(|publisher| work.topics_of(publisher));
            let mut all: Vec<u32> = each
                .inspect(|some| assert!(!some.is_empty()))
                .flatten()
                .collect();
            all.sort_unstable();
            all.dedup();
            assert_eq!(all, (0..work.topics).collect::<Vec<_>>());
        }
    }
}
