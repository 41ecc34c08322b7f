//! Delayed messages: what of a companion topic is pending, and what is due. What is promised, and why it holds, is in
//! `docs/delayed.md`; D1 to D9 below refer to it.
//!
//! ```text
//!        floor                            cursor            end
//!          |                                |                |
//!  --------[ pending, settled, pending, ... )----------------)--->
//!  settled                                    not taken in yet
//! ```
//!
//! Whoever delivers makes a [`Schedule`] of the rows of the companion's consumer group, and takes in the companion's
//! records in order. Between floor and cursor, what is not pending is settled: that is what the pages are composed of.
//!
//! Absent on purpose: the messages themselves, waiting, and the clock.

mod clocks;
mod schedule;
#[cfg(test)]
mod tests;

pub use clocks::{Clocks, Steady};
pub use schedule::{Due, Pending, Schedule, StepBounds};

use crate::time::Timestamp;
use crate::types::{Offset, SubscriptionName, TopicId};

/// Header that says when a message is to be delivered: milliseconds since 1970, in decimal digits.
pub const DELIVER_AT: &str = "tidings-deliver-at";
/// Header of a message that was moved to the end of its companion: the number it has.
pub const NUMBER: &str = "tidings-later-number";
/// What stands in front of a target's name in that of its companion.
pub const COMPANION: &str = "later.";
/// What stands in front of a target's id in the name of the companion's group.
const GROUP: &str = "tidings-later-";

/// The group that says what is settled of the companion of that target.
pub fn group_of(target: TopicId) -> SubscriptionName {
    let name = format!("{GROUP}{target}").parse();
    name.expect("letters, digits and dashes, and short")
}

/// The target, if that is the name of such a group.
pub fn target_of(group: &SubscriptionName) -> Option<TopicId> {
    group.as_str().strip_prefix(GROUP)?.parse().ok()
}

/// What the headers of a message in a companion say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Told {
    /// When it is due; the beginning of time if it does not say.
    pub at: Timestamp,
    /// The number it has, if it is not the offset it lies at.
    pub number: Option<Offset>,
}

impl Told {
    /// Reads headers. Of each name the first one counts, for it is the newest.
    pub fn of<'a>(headers: impl Iterator<Item = (&'a str, &'a [u8])> + Clone) -> Self {
        let digits = |name: &str| {
            let (_, value) = headers.clone().find(|(found, _)| *found == name)?;
            std::str::from_utf8(value).ok()?.parse::<i64>().ok()
        };
        let number = digits(NUMBER).and_then(|number| u64::try_from(number).ok());
        Self {
            at: Timestamp::from_millis(digits(DELIVER_AT).unwrap_or(i64::MIN)),
            number: number.map(Offset::new),
        }
    }
}
