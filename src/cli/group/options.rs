//! The options of a group as flags: of `group create` and `group set`, and of `sub` where it makes one.

use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::cli::values;
use crate::limits;
use crate::protocol::api::ConsumerGroupChanges;
use crate::types::TopicName;

/// Options that can be changed later.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Options of a group")]
pub struct OptionFlags {
    /// How long a member may hold a message without a word about it [default: 30s]
    #[arg(long, value_name = "DURATION", value_parser = values::period)]
    ack_deadline: Option<Duration>,
    /// Failed deliveries after which a message goes to the dead letters; 0: never [default: 10]
    #[arg(long, value_name = "N", value_parser = deliveries)]
    max_deliveries: Option<u32>,
    /// How long a message waits after its first, second, ... failed delivery, the last of them after all further
    /// ones; none: not at all [default: 1s,5s,30s,1m]
    #[arg(long, value_name = "DURATION[,DURATION]...", value_parser = backoff)]
    backoff: Option<Backoff>,
    /// Most messages that one member holds [default: 1000]
    #[arg(long, value_name = "N", value_parser = values::number_up_to::<{ limits::UNACKED_MAX }>)]
    max_unacked: Option<u32>,
    /// Where dead letters go: a topic on the same peer, made for the first one [default: dead.TOPIC.GROUP]
    #[arg(long, value_name = "TOPIC")]
    dead_letters: Option<TopicName>,
}

/// All options of a new group.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Options of a group")]
pub struct NewFlags {
    /// Messages of one key are never at two members, and settled in their order
    #[arg(long, value_name = "WHAT", value_enum, hide_possible_values = true)]
    #[arg(
        help = "key: messages of one key are never at two members, and are settled in their order"
    )]
    ordered_by: Option<OrderedBy>,
    #[command(flatten)]
    others: OptionFlags,
}

/// What order holds within a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum OrderedBy {
    Key,
}

/// Steps of a back-off, in milliseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Backoff(Vec<u64>);

impl OptionFlags {
    /// What they change.
    pub fn changes(&self) -> ConsumerGroupChanges {
        ConsumerGroupChanges {
            ack_deadline_ms: self.ack_deadline.map(millis),
            deliveries_max: self.max_deliveries,
            backoff_ms: self.backoff.clone().map(|Backoff(steps)| steps),
            unacked_max: self.max_unacked,
            ordered_by_key: None,
            dead_letters: self.dead_letters.clone(),
        }
    }
}

impl NewFlags {
    /// What they say of a new group.
    pub fn changes(&self) -> ConsumerGroupChanges {
        ConsumerGroupChanges {
            ordered_by_key: self.ordered_by.map(|OrderedBy::Key| true),
            ..self.others.changes()
        }
    }

    /// The first of them that was given.
    pub fn first_given(&self) -> Option<&'static str> {
        let others = &self.others;
        let given = [
            ("--ordered-by", self.ordered_by.is_some()),
            ("--ack-deadline", others.ack_deadline.is_some()),
            ("--max-deliveries", others.max_deliveries.is_some()),
            ("--backoff", others.backoff.is_some()),
            ("--max-unacked", others.max_unacked.is_some()),
            ("--dead-letters", others.dead_letters.is_some()),
        ];
        given
            .iter()
            .find(|(_, given)| *given)
            .map(|(flag, _)| *flag)
    }
}

fn millis(length: Duration) -> u64 {
    u64::try_from(length.as_millis()).unwrap_or(u64::MAX)
}

fn deliveries(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(number) if number <= limits::DELIVERIES_MAX => Ok(number),
        _ => Err(format!(
            "expected a number from 0 to {}",
            limits::DELIVERIES_MAX
        )),
    }
}

fn backoff(text: &str) -> Result<Backoff, String> {
    if text == "none" {
        return Ok(Backoff(Vec::new()));
    }
    let steps = text
        .split(',')
        .map(|step| values::duration(step).map(millis));
    let steps: Vec<u64> = steps.collect::<Result<_, _>>()?;
    match steps.len() <= limits::BACKOFF_STEPS_MAX {
        true => Ok(Backoff(steps)),
        false => Err(format!(
            "expected at most {} steps",
            limits::BACKOFF_STEPS_MAX
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_durations_with_commas() {
        assert_eq!(backoff("1s,5s,1m"), Ok(Backoff(vec![1_000, 5_000, 60_000])));
        assert_eq!(backoff("0ms"), Ok(Backoff(vec![0])));
        assert_eq!(backoff("none"), Ok(Backoff(Vec::new())));
        let many = vec!["1s"; limits::BACKOFF_STEPS_MAX + 1].join(",");
        for bad in ["", "1", "1s,", "1s 5s", many.as_str()] {
            assert!(backoff(bad).is_err(), "{bad}");
        }
        assert_eq!(deliveries("0"), Ok(0));
        assert!(deliveries("10001").is_err() && deliveries("-1").is_err());
    }
}
