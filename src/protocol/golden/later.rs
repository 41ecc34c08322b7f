//! The samples of delayed messages.

use super::samples::{ConcatAll, Sample, pair, time, topic, topic_id};
use crate::protocol::api::*;
use crate::types::{Offset, TopicId, TopicName};

fn stored_in() -> TopicName {
    "later.quakes.ci".parse().expect("a good name")
}

pub(super) fn samples() -> Vec<Sample> {
    let open = OpenLater { topic: topic_id() };
    let opened = OpenedLater {
        id: TopicId::from_bytes([0x60; 16]),
        name: stored_in(),
    };
    let list = ListLater {
        topic: Some(topic()),
        after: Some(LaterPlace {
            at: time(60_000),
            stored_in: stored_in(),
            number: Offset::new(4),
        }),
        limit: 100,
    };
    let page = LaterPage {
        topics: vec![LaterTopic {
            topic: topic(),
            topic_id: topic_id(),
            stored_in: stored_in(),
            pending: 2,
            next: Some(time(60_000)),
            kept_by: Some("the topic was deleted".to_owned()),
        }],
        messages: vec![LaterMessage {
            topic: topic(),
            stored_in: stored_in(),
            number: Offset::new(5),
            at: time(60_000),
            timestamp: time(0),
            id: Some(b"reminder-17".to_vec()),
            key: None,
            payload: b"remind".to_vec(),
            payload_bytes: 6,
        }],
        more: true,
    };
    let cancel = CancelLater {
        topic: topic(),
        which: LaterChoice::Id(b"reminder-17".to_vec()),
    };
    let cancelled = CancelledLater {
        cancelled: 0,
        too_late: true,
    };
    [
        pair(open, opened),
        pair(list, page),
        pair(cancel, cancelled),
    ]
    .concat_all()
}
