//! The samples of consumer groups.

use bytes::Bytes;

use super::samples::{ConcatAll, Sample, id, other_topic, pair, sample, subscription, time};
use super::samples::{topic, topic_id};
use crate::protocol::api::*;
use crate::protocol::error::ApiError;
use crate::protocol::taken::{Taken, TakenItem, TakenRun};
use crate::types::{Generation, LeaderEpoch, MemberId, Offset};

fn member() -> MemberId {
    MemberId::from_bytes(id(0x50))
}

fn group() -> ConsumerGroupInfo {
    ConsumerGroupInfo {
        topic: topic(),
        topic_id: topic_id(),
        epoch: LeaderEpoch::new(4),
        name: subscription(),
        generation: Generation::new(5),
        options: ConsumerGroupOptions {
            ack_deadline_ms: 30_000,
            deliveries_max: 10,
            backoff_ms: vec![1_000, 60_000],
            unacked_max: 1_000,
            ordered_by_key: true,
            dead_letters: other_topic(),
        },
        created: time(-1_000),
        start_offset: Offset::new(10),
        end_offset: Offset::new(1_707),
        floor: Offset::new(42),
        unsettled: 1_600,
        in_flight: 12,
        failed: 3,
        dying: 1,
        lag_ms: 1_500,
        acknowledged: 90,
        dead: 7,
        skipped: 2,
        last_settled: Some(time(0)),
        stuck: Some("no index server answers".to_owned()),
        members: vec![ConsumerMemberInfo {
            id: member(),
            client: "example 1.0".to_owned(),
            since: time(-500),
            in_flight: 12,
        }],
    }
}

pub(super) fn samples() -> Vec<Sample> {
    [making(), looking(), belonging(), settling()].concat_all()
}

fn making() -> Vec<Sample> {
    let create = CreateConsumerGroup {
        topic: topic(),
        name: subscription(),
        from: Position::Back(100),
        options: ConsumerGroupChanges {
            ack_deadline_ms: Some(30_000),
            deliveries_max: None,
            backoff_ms: Some(vec![1_000, 60_000]),
            unacked_max: Some(1_000),
            ordered_by_key: Some(true),
            dead_letters: Some(other_topic()),
        },
        if_not_exists: true,
    };
    let set = SetConsumerGroup {
        topic: topic(),
        name: subscription(),
        changes: ConsumerGroupChanges {
            deliveries_max: Some(0),
            ..ConsumerGroupChanges::default()
        },
    };
    let delete = DeleteConsumerGroup {
        topic: topic(),
        name: subscription(),
    };
    let seek = SeekConsumerGroup {
        topic: topic(),
        name: subscription(),
        to: Position::Time(time(0)),
        dry_run: true,
    };
    let sought = SoughtConsumerGroup {
        from: Offset::new(42),
        to: Offset::new(40),
        group: group(),
    };
    [
        pair(create, group()),
        pair(set, group()),
        pair(delete, Done {}),
        pair(seek, sought),
    ]
    .concat_all()
}

fn looking() -> Vec<Sample> {
    let describe = DescribeConsumerGroup {
        topic: topic(),
        name: subscription(),
    };
    let list = ListConsumerGroups {
        topic: Some(topic()),
        after: Some((topic(), subscription())),
        limit: 50,
    };
    let page = ConsumerGroupPage {
        groups: vec![group()],
        more: true,
    };
    [pair(describe, group()), pair(list, page)].concat_all()
}

fn belonging() -> Vec<Sample> {
    let join = JoinConsumerGroup {
        topic: topic_id(),
        name: subscription(),
        generation: Generation::new(5),
        member: member(),
    };
    let leave = LeaveConsumerGroup {
        topic: topic_id(),
        name: subscription(),
        member: member(),
    };
    let take = TakeRecords {
        topic: topic_id(),
        name: subscription(),
        generation: Generation::new(5),
        member: member(),
        records: 100,
        bytes: 1 << 20,
        wait_ms: 5_000,
    };
    let take = sample(
        "TakeRecords.request".to_owned(),
        take,
        TakeRecords::encode,
        TakeRecords::decode,
    );
    [pair(join, Done {}), pair(leave, Done {}), vec![take]].concat_all()
}

fn settling() -> Vec<Sample> {
    let run = |first, verdict| SettledRun {
        first: Offset::new(first),
        count: 2,
        delivery: 1,
        verdict,
    };
    let reason = "no such quake".to_owned();
    let settle = SettleRecords {
        topic: topic_id(),
        name: subscription(),
        generation: Generation::new(5),
        member: member(),
        runs: vec![
            run(42, Verdict::Ack),
            run(44, Verdict::Nak { delay_ms: None }),
            run(
                46,
                Verdict::Nak {
                    delay_ms: Some(250),
                },
            ),
            run(48, Verdict::Reject { reason }),
            run(50, Verdict::Extend),
        ],
    };
    let settled = SettledRecords {
        not_held: vec![NotHeld {
            first: Offset::new(50),
            count: 2,
            instead: Instead::Elsewhere,
        }],
    };
    let replay = ReplayDeadLetters {
        topic: other_topic(),
        before: Offset::new(7),
    };
    let replayed = ReplayedDeadLetters {
        next: Offset::new(5),
        replayed: 4,
    };
    [pair(settle, settled), pair(replay, replayed)].concat_all()
}

/// An answer with three records of that batch.
pub(super) fn taken(batch: Bytes) -> Taken {
    let run = |first, count, delivery| TakenRun {
        first: Offset::new(first),
        count,
        delivery,
    };
    Taken {
        ack_deadline_ms: 30_000,
        number: 6,
        items: vec![TakenItem {
            append_time: time(500),
            runs: vec![run(42, 2, 1), run(45, 1, 3)],
            batch,
        }],
    }
}

pub(super) fn errors() -> Vec<ApiError> {
    vec![
        ApiError::ConsumerGroupNotFound {
            topic: topic(),
            name: subscription(),
        },
        ApiError::ConsumerGroupExists {
            topic: topic(),
            name: subscription(),
        },
        ApiError::TooManyConsumerGroups { max: 4_000 },
        ApiError::TooManyMembers { max: 1_000 },
        ApiError::NotAMember {
            name: subscription(),
            member: member(),
        },
        ApiError::NotReplayable {
            offset: Offset::new(5),
            reason: "it names no topic that it came from".to_owned(),
        },
    ]
}
