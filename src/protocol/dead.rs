//! The headers that tell where a dead letter came from, and why.
//!
//! A dead letter is the record as it was, with these in front of its own headers. All values are texts: names as they are,
//! numbers in decimal digits, the time in milliseconds since 1970. A record may have been a dead letter before; then the
//! first header of a name counts, for it is the newest.

use crate::time::Timestamp;
use crate::types::{Offset, SubscriptionName, TopicName};

/// Why it could not be consumed: what its consumer said, or that it was delivered too often.
pub const REASON: &str = "tidings-dead-reason";
/// How often it was delivered.
pub const DELIVERIES: &str = "tidings-dead-deliveries";
/// The topic it was in.
pub const TOPIC: &str = "tidings-dead-topic";
/// Its offset there.
pub const OFFSET: &str = "tidings-dead-offset";
/// The consumer group that gave it up.
pub const GROUP: &str = "tidings-dead-group";
/// When it was given up.
pub const TIME: &str = "tidings-dead-time";

/// All of them, in the order in which they stand.
pub const NAMES: [&str; 6] = [REASON, DELIVERIES, TOPIC, OFFSET, GROUP, TIME];

/// What the headers of a dead letter say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Obituary {
    /// See [`REASON`].
    pub reason: String,
    /// See [`DELIVERIES`].
    pub deliveries: u32,
    /// See [`TOPIC`].
    pub topic: TopicName,
    /// See [`OFFSET`].
    pub offset: Offset,
    /// See [`GROUP`].
    pub group: SubscriptionName,
    /// See [`TIME`].
    pub time: Timestamp,
}

impl Obituary {
    /// Reads the headers of a record; `None` if it is no dead letter.
    pub fn of<'a>(headers: impl Iterator<Item = (&'a str, &'a [u8])> + Clone) -> Option<Self> {
        let text = |name: &str| {
            let (_, value) = headers.clone().find(|(found, _)| *found == name)?;
            std::str::from_utf8(value).ok()
        };
        Some(Self {
            reason: text(REASON)?.to_owned(),
            deliveries: text(DELIVERIES)?.parse().ok()?,
            topic: text(TOPIC)?.parse().ok()?,
            offset: Offset::new(text(OFFSET)?.parse().ok()?),
            group: text(GROUP)?.parse().ok()?,
            time: Timestamp::from_millis(text(TIME)?.parse().ok()?),
        })
    }

    /// The topic that a dead letter came from, if it says that: the header that is left out last.
    pub fn origin_of<'a>(
        mut headers: impl Iterator<Item = (&'a str, &'a [u8])>,
    ) -> Option<TopicName> {
        let (_, value) = headers.find(|(name, _)| *name == TOPIC)?;
        std::str::from_utf8(value).ok()?.parse().ok()
    }

    /// The headers, in the order of [`NAMES`].
    pub fn headers(&self) -> [(&'static str, String); 6] {
        [
            (REASON, self.reason.clone()),
            (DELIVERIES, self.deliveries.to_string()),
            (TOPIC, self.topic.to_string()),
            (OFFSET, self.offset.to_string()),
            (GROUP, self.group.to_string()),
            (TIME, self.time.as_millis().to_string()),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn obituary() -> Obituary {
        Obituary {
            reason: "größer als erlaubt".to_owned(),
            deliveries: 3,
            topic: "quakes.ci".parse().expect("good"),
            offset: Offset::new(1_707),
            group: "billing".parse().expect("good"),
            time: Timestamp::from_millis(-5),
        }
    }

    fn borrowed(headers: &[(&'static str, String)]) -> Vec<(&'static str, Vec<u8>)> {
        let bytes = |(name, value): &(&'static str, String)| (*name, value.clone().into_bytes());
        headers.iter().map(bytes).collect()
    }

    fn read(headers: &[(&'static str, Vec<u8>)]) -> Option<Obituary> {
        Obituary::of(headers.iter().map(|(name, value)| (*name, &value[..])))
    }

    #[test]
    fn what_is_written_is_read_and_the_newest_counts() {
        let (newer, older) = (
            obituary(),
            Obituary {
                deliveries: 9,
                ..obituary()
            },
        );
        let all = [newer.headers(), older.headers()].concat();
        assert_eq!(read(&borrowed(&all)), Some(newer.clone()));
        let names: Vec<_> = newer.headers().iter().map(|(name, _)| *name).collect();
        assert_eq!(names, NAMES);
    }

    #[test]
    fn where_one_is_missing_or_senseless_it_is_no_dead_letter() {
        let whole = borrowed(&obituary().headers());
        for at in 0..whole.len() {
            let mut fewer = whole.clone();
            fewer.remove(at);
            assert_eq!(read(&fewer), None, "without {}", whole[at].0);
        }
        for (name, value) in [
            (DELIVERIES, "many"),
            (OFFSET, "-1"),
            (TOPIC, ""),
            (TIME, "now"),
        ] {
            let mut bad = whole.clone();
            for header in bad.iter_mut().filter(|(found, _)| *found == name) {
                header.1 = value.as_bytes().to_vec();
            }
            assert_eq!(read(&bad), None, "{name}: {value}");
        }
    }
}
