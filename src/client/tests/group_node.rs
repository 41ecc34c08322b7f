//! The consumer groups of a node in memory: the rules of the wire, without a clock and without a disk.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::node::{Node, Topic};
use crate::limits;
use crate::net::{Call, Reply};
use crate::protocol::api::*;
use crate::protocol::batch::{BatchBuilder, CheckedBatch, Compression, Record, RecordToSend};
use crate::protocol::error::ApiError;
use crate::protocol::taken::{Taken, TakenItem, TakenRun};
use crate::time::Timestamp;
use crate::types::{
    Generation, MemberId, Offset, ProducerId, Sequence, SubscriptionName, TopicName,
};

/// A consumer group.
pub struct Group {
    pub options: ConsumerGroupOptions,
    pub generation: Generation,
    pub members: BTreeSet<MemberId>,
    /// How many takes of each were answered.
    answers: BTreeMap<MemberId, u64>,
    /// By offset: who holds it, and by which delivery.
    pub in_flight: BTreeMap<Offset, (MemberId, u32)>,
    /// How often each was given out.
    pub deliveries: BTreeMap<Offset, u32>,
    pub settled: BTreeMap<Offset, Verdict>,
    /// Every run that came, in order.
    pub said: Vec<SettledRun>,
    /// Everything before it is settled.
    floor: Offset,
}

impl Group {
    fn new(topic: &TopicName, name: &SubscriptionName, floor: Offset) -> Self {
        Self {
            options: ConsumerGroupOptions {
                ack_deadline_ms: limits::ACK_DEADLINE_DEFAULT.as_millis() as u64,
                deliveries_max: limits::DELIVERIES_DEFAULT,
                backoff_ms: Vec::new(),
                unacked_max: limits::UNACKED_DEFAULT,
                ordered_by_key: false,
                dead_letters: format!("dead.{topic}.{name}").parse().expect("a good name"),
            },
            generation: Generation::new(1),
            members: BTreeSet::new(),
            answers: BTreeMap::new(),
            in_flight: BTreeMap::new(),
            deliveries: BTreeMap::new(),
            settled: BTreeMap::new(),
            said: Vec::new(),
            floor,
        }
    }

    /// Everybody is gone, and nothing counts as failed: the node was killed, or the group moved.
    pub fn clear(&mut self) {
        self.members.clear();
        self.answers.clear();
        self.in_flight.clear();
    }

    /// As after a seek: nobody is a member any more, and everything comes again.
    pub fn move_to(&mut self, floor: Offset) {
        self.clear();
        self.settled.clear();
        self.floor = floor;
        self.generation = self.generation.next();
    }

    /// How many were acknowledged.
    pub fn acked(&self) -> usize {
        self.settled
            .values()
            .filter(|verdict| **verdict == Verdict::Ack)
            .count()
    }

    fn settle(&mut self, member: MemberId, run: &SettledRun) -> Vec<NotHeld> {
        self.said.push(run.clone());
        let mut not_held = Vec::new();
        for n in 0..run.count {
            let offset = run.first.saturating_add(n.into());
            if self.in_flight.get(&offset) != Some(&(member, run.delivery)) {
                let instead = match (
                    self.settled.contains_key(&offset),
                    self.in_flight.contains_key(&offset),
                ) {
                    (true, _) => Instead::Settled,
                    (_, true) => Instead::Elsewhere,
                    _ => Instead::Waiting,
                };
                not_held.push(NotHeld {
                    first: offset,
                    count: 1,
                    instead,
                });
                continue;
            }
            match &run.verdict {
                Verdict::Extend => continue,
                Verdict::Nak { .. } => {}
                verdict => _ = self.settled.insert(offset, verdict.clone()),
            }
            self.in_flight.remove(&offset);
        }
        not_held
    }

    fn give(&mut self, member: MemberId, wanted: u32, end: Offset) -> Vec<TakenRun> {
        let mut runs: Vec<TakenRun> = Vec::new();
        let held = self
            .in_flight
            .values()
            .filter(|(by, _)| *by == member)
            .count() as u32;
        let mut left = wanted.min(self.options.unacked_max.saturating_sub(held));
        let mut offset = self.floor;
        while offset < end && left > 0 {
            if !self.settled.contains_key(&offset) && !self.in_flight.contains_key(&offset) {
                let delivery = self.deliveries.entry(offset).or_default();
                *delivery += 1;
                self.in_flight.insert(offset, (member, *delivery));
                left -= 1;
                match runs.last_mut() {
                    Some(last) if last.end() == offset && last.delivery == *delivery => {
                        last.count += 1
                    }
                    _ => runs.push(TakenRun {
                        first: offset,
                        count: 1,
                        delivery: *delivery,
                    }),
                }
            }
            offset = offset.next();
        }
        runs
    }
}

/// All records of a topic, by offset.
fn records(topic: &Topic) -> BTreeMap<Offset, Record> {
    let mut all = BTreeMap::new();
    for stored in &topic.batches {
        let batch = CheckedBatch::check_crc(stored.batch.clone()).expect("whole");
        for (n, record) in (0..).zip(batch.records().expect("readable")) {
            let offset = stored.base_offset.saturating_add(n);
            all.insert(offset, record.expect("readable"));
        }
    }
    all
}

fn item(runs: Vec<TakenRun>, records: &BTreeMap<Offset, Record>) -> TakenItem {
    let mut builder = BatchBuilder::new(Compression::None);
    for run in &runs {
        for (_, record) in records.range(run.first..run.end()) {
            let record = RecordToSend {
                timestamp: record.timestamp,
                key: record.key.as_deref(),
                headers: &record.headers,
                value: &record.value,
            };
            builder.try_push(&record).expect("it fits");
        }
    }
    let batch = builder.build(ProducerId::zero(), Sequence::ZERO);
    TakenItem {
        append_time: Timestamp::now(),
        runs,
        batch: batch.expect("there are records"),
    }
}

fn not_found(topic: &TopicName, name: &SubscriptionName) -> ApiError {
    ApiError::ConsumerGroupNotFound {
        topic: topic.clone(),
        name: name.clone(),
    }
}

fn info(name: (&TopicName, &SubscriptionName), topic: &Topic, group: &Group) -> ConsumerGroupInfo {
    ConsumerGroupInfo {
        topic: name.0.clone(),
        topic_id: topic.id,
        epoch: topic.epoch,
        name: name.1.clone(),
        generation: group.generation,
        options: group.options.clone(),
        created: Timestamp::default(),
        start_offset: topic.start,
        end_offset: topic.end,
        floor: group.floor,
        unsettled: topic.end.since(group.floor) - group.settled.len() as u64,
        in_flight: group.in_flight.len() as u64,
        failed: 0,
        dying: 0,
        lag_ms: 0,
        acknowledged: group.acked() as u64,
        dead: 0,
        skipped: 0,
        last_settled: None,
        stuck: None,
        members: Vec::new(),
    }
}

impl Node {
    /// Answers requests about groups; the others come back.
    pub(super) fn consumers(&self, call: &Call, reply: Reply) -> Option<Reply> {
        match call.api {
            Api::CreateConsumerGroup => self.answer(call, reply, Self::create_group),
            Api::DescribeConsumerGroup => self.answer(call, reply, Self::describe_group),
            Api::JoinConsumerGroup => {
                self.answer(call, reply, |node, request: JoinConsumerGroup| {
                    let of = (request.topic, &request.name, request.generation);
                    node.with_group(of, |_, group| _ = group.members.insert(request.member))?;
                    Ok(Done {})
                })
            }
            Api::SettleRecords => self.answer(call, reply, |node, request: SettleRecords| {
                let of = (request.topic, &request.name, request.generation);
                node.of_member(of, request.member, |_, group| SettledRecords {
                    not_held: request
                        .runs
                        .iter()
                        .flat_map(|run| group.settle(request.member, run))
                        .collect(),
                })
            }),
            Api::LeaveConsumerGroup => {
                self.answer(call, reply, |node, request: LeaveConsumerGroup| {
                    node.with_group(
                        (request.topic, &request.name, Generation::new(0)),
                        |_, group| {
                            group.members.remove(&request.member);
                            group.in_flight.retain(|_, (by, _)| *by != request.member);
                        },
                    )?;
                    Ok(Done {})
                })
            }
            _ => return Some(reply),
        }
        self.changed.notify_waiters();
        None
    }

    fn create_group(&self, request: CreateConsumerGroup) -> Result<ConsumerGroupInfo, ApiError> {
        let (topic, name) = (&request.topic, &request.name);
        self.named(topic, |found| {
            let floor = found.find(request.from);
            let fresh = || Group::new(topic, name, floor);
            found.groups.entry(name.clone()).or_insert_with(fresh);
            info((topic, name), found, &found.groups[name])
        })
    }

    fn describe_group(
        &self,
        request: DescribeConsumerGroup,
    ) -> Result<ConsumerGroupInfo, ApiError> {
        let (topic, name) = (&request.topic, &request.name);
        self.named(topic, |found| match found.groups.get(name) {
            Some(group) => Ok(info((topic, name), found, group)),
            None => Err(not_found(topic, name)),
        })?
    }

    fn with_group<T>(
        &self,
        (id, name, generation): (crate::types::TopicId, &SubscriptionName, Generation),
        use_it: impl FnOnce(&BTreeMap<Offset, Record>, &mut Group) -> T,
    ) -> Result<T, ApiError> {
        let mut disk = self.disk();
        let (topic, found) =
            super::node::check_topic(&mut disk, id, crate::types::LeaderEpoch::new(0))?;
        let records = records(found);
        let group = found
            .groups
            .get_mut(name)
            .ok_or_else(|| not_found(&topic, name))?;
        if generation.get() != 0 && generation != group.generation {
            return Err(ApiError::StaleGeneration {
                given: generation,
                current: group.generation,
            });
        }
        Ok(use_it(&records, group))
    }

    fn of_member<T>(
        &self,
        of: (crate::types::TopicId, &SubscriptionName, Generation),
        member: MemberId,
        use_it: impl FnOnce(&BTreeMap<Offset, Record>, &mut Group) -> T,
    ) -> Result<T, ApiError> {
        let name = of.1.clone();
        self.with_group(of, |records, group| match group.members.contains(&member) {
            true => Ok(use_it(records, group)),
            false => Err(ApiError::NotAMember { name, member }),
        })?
    }

    fn numbered(
        &self,
        of: (crate::types::TopicId, &SubscriptionName, Generation),
        member: MemberId,
        taken: Taken,
    ) -> Result<Taken, ApiError> {
        self.of_member(of, member, |_, group| {
            let number = group.answers.entry(member).or_default();
            *number += 1;
            Taken {
                number: *number,
                ..taken
            }
        })
    }

    pub(super) async fn take(self: Arc<Self>, call: Call, reply: Reply) {
        let request = TakeRecords::decode(&call.body).expect("well-formed");
        let wait = Duration::from_millis(request.wait_ms.into());
        let deadline = tokio::time::Instant::now() + wait;
        loop {
            let changed = self.changed.notified();
            let mut changed = std::pin::pin!(changed);
            changed.as_mut().enable();
            let of = (request.topic, &request.name, request.generation);
            let taken = self.of_member(of, request.member, |records, group| {
                let end = records
                    .keys()
                    .next_back()
                    .map_or(Offset::ZERO, |last| last.next());
                let runs = group.give(request.member, request.records, end);
                let items = (!runs.is_empty()).then(|| item(runs, records));
                Taken {
                    ack_deadline_ms: group.options.ack_deadline_ms,
                    number: 0,
                    items: items.into_iter().collect(),
                }
            });
            let is_empty = matches!(&taken, Ok(taken) if taken.items.is_empty());
            if !is_empty || tokio::time::Instant::now() >= deadline {
                let numbered = taken.and_then(|taken| self.numbered(of, request.member, taken));
                return reply.send_raw(numbered.map(|taken| taken.encode()));
            }
            let _ = tokio::time::timeout_at(deadline, changed).await;
        }
    }
}
