//! Batches that a topic with little room can take.
//!
//! A topic that refuses when it is full takes a batch whole or not at all, and one that
//! is larger than its bounds never. So whoever begins to publish looks at the bounds, and
//! makes batches of a fraction of them: they fill it to the last message but a few, and
//! room that comes is used soon. A topic whose bounds change later is looked at by the
//! next publisher.

use crate::client::publisher::PublisherOptions;
use crate::limits;
use crate::net::Connection;
use crate::protocol::api::DescribeTopic;
use crate::types::{TopicName, TopicSettings, WhenFull};

/// A batch takes at most one part in so many of the room there may be.
const PARTS: u64 = 4;

/// Looks at the topic's bounds, for a moment at most: without them everything goes on as ever, only that a batch may be
/// refused which smaller ones had passed.
pub(super) async fn fit(
    options: PublisherOptions,
    connection: &Connection,
    topic: &TopicName,
) -> PublisherOptions {
    let request = DescribeTopic {
        name: topic.clone(),
    };
    match connection.call(&request, limits::BOUNDS_PATIENCE).await {
        Ok(info) => fitting(options, &info.settings),
        Err(_) => options,
    }
}

fn fitting(options: PublisherOptions, settings: &TopicSettings) -> PublisherOptions {
    if settings.when_full == WhenFull::DiscardOldest {
        return options;
    }
    let part = |bound: u64| usize::try_from(bound / PARTS).unwrap_or(usize::MAX).max(1);
    let of = |bound: Option<u64>, wanted: usize| bound.map_or(wanted, |b| part(b).min(wanted));
    PublisherOptions {
        batch_bytes: of(settings.retention.bytes, options.batch_bytes),
        batch_records_max: of(settings.retention.records, options.batch_records_max),
        ..options
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Retention;

    #[test]
    fn batches_are_a_part_of_the_room_where_a_full_topic_refuses() {
        let settings = |when_full, bytes, records| TopicSettings {
            when_full,
            retention: Retention {
                bytes,
                records,
                ..Retention::default()
            },
            ..TopicSettings::default()
        };
        let of = |settings: &TopicSettings| {
            let options = fitting(PublisherOptions::default(), settings);
            (options.batch_bytes, options.batch_records_max)
        };
        let usual = of(&TopicSettings::default());
        let (refuse, discard) = (WhenFull::Refuse, WhenFull::DiscardOldest);
        assert_eq!(of(&settings(discard, Some(10), Some(10))), usual);
        assert_eq!(of(&settings(refuse, None, None)), usual);
        assert_eq!(of(&settings(refuse, None, Some(3))), (usual.0, 1));
        assert_eq!(of(&settings(refuse, Some(4_000), None)), (1_000, usual.1));
        assert_eq!(of(&settings(refuse, Some(u64::MAX), Some(u64::MAX))), usual);
    }
}
