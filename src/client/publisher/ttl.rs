//! How long a message lives.

use std::num::NonZeroU64;
use std::time::Duration;

use super::invalid;
use crate::client::ClientError;
use crate::limits;

/// How long a message lives, from when its host stored it: from a millisecond to ten years.
///
/// ```
/// # use std::time::Duration;
/// # use tidings::client::{Message, TimeToLive};
/// let hour: TimeToLive = Duration::from_secs(3600).try_into().expect("neither nothing nor for ever");
/// let offer = Message::new("half the price").with_ttl(hour);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
// A number that is not zero, so that in every message it takes no more than its eight bytes.
pub struct TimeToLive(NonZeroU64);

impl TryFrom<Duration> for TimeToLive {
    type Error = ClientError;

    /// Fails with what is too short or too long. Parts of a millisecond are cut off.
    fn try_from(ttl: Duration) -> Result<Self, ClientError> {
        let (least, most) = (limits::TTL_MIN, limits::TTL_MAX);
        let millis = u64::try_from(ttl.as_millis()).ok();
        let millis = millis.filter(|_| (least..=most).contains(&ttl));
        let millis = millis.and_then(NonZeroU64::new).ok_or_else(|| {
            let reason = format!("{ttl:?}: 1 ms to ten years expected");
            invalid("time to live", reason)
        });
        millis.map(Self)
    }
}

impl From<TimeToLive> for Duration {
    fn from(ttl: TimeToLive) -> Self {
        Self::from_millis(ttl.0.get())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_message_lives_for_no_time_or_for_ever() {
        for good in [
            limits::TTL_MIN,
            limits::TTL_MAX,
            Duration::from_millis(1500),
        ] {
            let ttl = TimeToLive::try_from(good).expect("within the bounds");
            assert_eq!(Duration::from(ttl), good);
        }
        let over = limits::TTL_MAX + Duration::from_millis(1);
        for bad in [
            Duration::ZERO,
            Duration::from_micros(999),
            over,
            Duration::MAX,
        ] {
            let error = TimeToLive::try_from(bad).expect_err("out of bounds");
            assert!(error.to_string().contains("1 ms to ten years"), "{error}");
        }
    }
}
