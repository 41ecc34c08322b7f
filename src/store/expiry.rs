//! What becomes superfluous: records by retention, subscriptions nobody uses, producers nobody heard of for long.
//!
//! Runs on the reclaimer's thread, looks at one topic after the other, and asks
//! the writer for what [`retention`](super::retention) says. A topic is looked at
//! again when something was published, when its settings changed, when its
//! oldest batch comes of age, or when positions in it moved and what is confirmed
//! goes; otherwise it costs nothing. Positions are the writer's: it is asked for
//! the lowest one of each such topic, many at a time.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use super::asker::Asker;
use super::command::Context;
use super::retention::{ClockWatch, Plan, Terms, discard, holds, plan};
use super::shared::TopicShared;
use crate::journal::JournalError;
use crate::limits;
use crate::protocol::error::ApiError;
use crate::time::Timestamp;
use crate::topic::RowKey;
use crate::types::{Offset, ProducerId, Retention, SubscriptionName, TopicId, TopicName};

/// The topic as it was when it was last looked at.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    range: (Offset, Offset),
    bytes: u64,
    retention: Retention,
    /// How often positions had moved.
    moves: u64,
    due: Option<Timestamp>,
}

impl Seen {
    /// Whether what it begins with was looked at, and is not over yet.
    fn is_head_known(&self, start: Offset, now: Option<Timestamp>) -> bool {
        let is_over = self.due.zip(now).is_some_and(|(due, now)| due <= now);
        self.range.0 == start && self.range.1 > start && !is_over
    }
}

/// A topic that is to be looked at.
struct Looked {
    topic: Arc<TopicShared>,
    retention: Retention,
    /// As of before its lowest position was asked for.
    moves: u64,
    /// When the first batch that is there is over, if it has a time to live and was seen; it was not, at another start.
    seen: Option<Seen>,
}

/// What is remembered from one look to the next.
pub(super) struct Expiry {
    clocks: ClockWatch,
    seen: HashMap<TopicId, Seen>,
    /// Topics whose producers are still to be looked at in this pass.
    producers: Vec<TopicId>,
    pass_begun: Option<Instant>,
    topics_per_look: usize,
    last_look: Instant,
    /// The first topic of this look that could not be looked up to its end, and why.
    failed: Option<(TopicName, JournalError)>,
    /// In this pass: there are so many of them that only those used since then are kept.
    kept_since: Option<Timestamp>,
}

impl Expiry {
    pub fn new() -> Self {
        Self {
            clocks: ClockWatch::new(Timestamp::now(), Instant::now()),
            seen: HashMap::new(),
            producers: Vec::new(),
            pass_begun: None,
            topics_per_look: 0,
            last_look: Instant::now(),
            failed: None,
            kept_since: None,
        }
    }

    /// One look at everything that is due.
    pub fn look(&mut self, asker: &mut Asker) {
        let now = self.trusted_now(asker);
        if self.stood_still(asker) {
            asker.shared.attendance.all_used();
        }
        // Before the records: what a subscription that expires held back goes with this look.
        if now.is_some() {
            expire_subscriptions(asker);
        }
        self.records(asker, now);
        if let Some(now) = now {
            self.producers(asker, now);
        }
        self.last_look = Instant::now();
    }

    /// One look at records alone.
    pub fn look_at_records(&mut self, asker: &mut Asker) {
        let now = self.trusted_now(asker);
        self.records(asker, now);
        // However long it took: this was no standing still.
        self.last_look = Instant::now();
    }

    /// Whether nothing was looked at for much longer than it should have been.
    fn stood_still(&self, asker: &Asker) -> bool {
        self.last_look.elapsed() > asker.shared.reclaim_every + limits::STOOD_STILL_AFTER
    }

    /// The wall clock, unless it jumped.
    fn trusted_now(&self, asker: &Asker) -> Option<Timestamp> {
        let now = Timestamp::now();
        let apart = self.clocks.apart(now, Instant::now());
        let line = apart.map(|apart| {
            format!(
                "the wall clock moved by {} minutes against the monotonic one: nothing expires by age \
                 until they agree again or the peer is restarted",
                apart.as_secs() / 60
            )
        });
        let are_apart = apart.is_some();
        (asker.shared.clocks_apart).store(are_apart, std::sync::atomic::Ordering::Relaxed);
        asker.shared.notice("clock", line);
        apart.is_none().then_some(now)
    }

    fn records(&mut self, asker: &mut Asker, now: Option<Timestamp>) {
        let topics = asker.shared.topics_with_retention();
        let mut before = std::mem::take(&mut self.seen);
        let mut due = Vec::new();
        for (topic, retention) in topics {
            let looked = Looked {
                moves: topic.moves(),
                retention,
                topic,
                seen: None,
            };
            match before.remove(&looked.topic.id) {
                Some(seen) if !is_due(&seen, &looked, now) => {
                    self.seen.insert(looked.topic.id, seen);
                }
                seen => due.push(Looked { seen, ..looked }),
            }
            if due.len() >= limits::RETENTION_STEPS_AT_ONCE {
                self.step(asker, std::mem::take(&mut due), now);
            }
        }
        self.step(asker, due, now);
        let line = self.failed.take().map(|(topic, error)| {
            format!(
                "what may go of topic {topic} cannot be looked up now, it stays until it can: {error}"
            )
        });
        asker.shared.notice("retention", line);
    }

    /// Plans for some topics, and has done what was planned.
    fn step(&mut self, asker: &mut Asker, due: Vec<Looked>, now: Option<Timestamp>) {
        let lowest = lowest_positions(asker, &due);
        let expiring = asker.shared.expiring();
        let mut steps = Vec::new();
        for looked in due {
            let Looked {
                topic, retention, ..
            } = &looked;
            let terms = Terms {
                retention: *retention,
                confirmed: lowest.get(&topic.id).copied(),
                now,
                may_be_over: expiring.contains(&topic.id)
                    && !(looked.seen.as_ref())
                        .is_some_and(|seen| seen.is_head_known(topic.start(), now)),
            };
            let (plan, failed) = plan(&asker.shared, topic, terms);
            let is_all = failed.is_none();
            if let Some(error) = failed {
                self.failed.get_or_insert((topic.name(), error));
            }
            if plan.to > plan.from {
                // Looked at again when this is done: there may be more.
                steps.push((topic.id, *retention, plan));
            } else if is_all {
                // Who was not looked at for it is over when it was before.
                let known = looked.seen.as_ref().filter(|_| !terms.may_be_over);
                let due = plan.due.into_iter().chain(known.and_then(|seen| seen.due));
                self.seen.insert(topic.id, seen_now(&looked, due.min()));
            }
        }
        discard_all(asker, steps);
    }

    /// Some topics at a time, so that all are looked through in about the time set for it.
    fn producers(&mut self, asker: &mut Asker, now: Timestamp) {
        if self.producers.is_empty() {
            let resting = self.pass_begun.map(|begun| begun.elapsed());
            if resting.is_some_and(|rested| rested < limits::PRODUCERS_LOOKED_AT_EVERY) {
                return;
            }
            self.producers = asker.shared.topics().by_id.keys().copied().collect();
            self.pass_begun = Some(Instant::now());
            let every = asker.shared.reclaim_every.as_micros();
            let looks = limits::PRODUCERS_LOOKED_AT_EVERY.as_micros() / every;
            let looks = usize::try_from(looks).unwrap_or(usize::MAX);
            let share = self.producers.len().div_ceil(looks);
            self.topics_per_look = share.max(limits::RETENTION_STEPS_AT_ONCE);
            self.kept_since = too_many(asker);
        }
        // By the time that was looked at: the clock may jump before the writer gets to it.
        let expired = now.before(limits::PRODUCER_KEPT_FOR);
        let before = self.kept_since.map_or(expired, |since| since.max(expired));
        let left = self.producers.len().saturating_sub(self.topics_per_look);
        let waiting: Vec<_> = self
            .producers
            .split_off(left)
            .into_iter()
            .filter_map(|id| {
                asker.push(id, move |context| {
                    Ok(((), forget_unused(context, id, before)))
                })
            })
            .collect();
        waiting.into_iter().for_each(|reply| _ = asker.wait(reply));
    }
}

fn is_due(seen: &Seen, looked: &Looked, now: Option<Timestamp>) -> bool {
    let came_of_age = seen.due.zip(now).is_some_and(|(due, now)| due < now);
    came_of_age || *seen != seen_now(looked, seen.due)
}

fn seen_now(looked: &Looked, due: Option<Timestamp>) -> Seen {
    let topic = &looked.topic;
    Seen {
        range: (topic.start(), topic.durable_end()),
        bytes: topic.bytes(),
        retention: looked.retention,
        moves: looked.moves,
        due,
    }
}

/// The lowest position of each of these topics in which what is confirmed goes and somebody holds one. What is told
/// is durable: a commit that a power cut could take back lets nothing go.
fn lowest_positions(asker: &mut Asker, looked: &[Looked]) -> HashMap<TopicId, Offset> {
    let asked: Vec<_> = looked
        .iter()
        .filter(|looked| looked.retention.interest)
        .filter_map(|looked| {
            let id = looked.topic.id;
            let telling = move |context: &mut Context<'_>| {
                Ok((context.state.topic(id)?.lowest_position(), Vec::new()))
            };
            Some((id, asker.push(id, telling)?))
        })
        .collect();
    let mut lowest = HashMap::new();
    for (id, reply) in asked {
        if let Some((Ok(Some(position)), _)) = asker.wait(reply) {
            lowest.insert(id, position);
        }
    }
    lowest
}

fn discard_all(asker: &mut Asker, steps: Vec<(TopicId, Retention, Plan)>) {
    let waiting: Vec<_> = steps
        .into_iter()
        .filter_map(|(id, retention, plan)| {
            asker.push(id, move |context| decide(context, id, retention, &plan))
        })
        .collect();
    waiting.into_iter().for_each(|reply| _ = asker.wait(reply));
}

/// On the writer's thread: the plan holds, if nothing it was made from changed.
fn decide(
    context: &mut Context<'_>,
    id: TopicId,
    retention: Retention,
    plan: &Plan,
) -> Result<((), Vec<RowKey>), ApiError> {
    let topic = context.state.topic(id)?;
    let row = &topic.row;
    let is_still_confirmed = plan
        .confirmed
        .is_none_or(|below| topic.is_still_confirmed(below));
    // While the end of a topic is uncertain nothing of it is discarded.
    let holds = holds(plan, topic, context.shared)
        && row.settings.discards() == retention
        && row.quarantine.is_none()
        && is_still_confirmed;
    if !holds {
        return Ok(((), Vec::new()));
    }
    let topic = context.state.topic_mut(id)?;
    discard(topic, plan);
    context.shared.publish_topic(topic, None);
    Ok(((), vec![RowKey::Topic(id)]))
}

/// Removes subscriptions that nobody used for their time.
fn expire_subscriptions(asker: &mut Asker) {
    let expired = asker
        .shared
        .attendance
        .expired(limits::SUBSCRIPTIONS_EXPIRED_AT_ONCE);
    let waiting: Vec<_> = expired
        .into_iter()
        .filter_map(|(id, name)| asker.push(id, move |context| Ok(((), expire(context, id, name)))))
        .collect();
    waiting.into_iter().for_each(|reply| _ = asker.wait(reply));
}

/// On the writer's thread: the subscription goes, if nobody used it meanwhile.
fn expire(context: &mut Context<'_>, id: TopicId, name: SubscriptionName) -> Vec<RowKey> {
    let attendance = &context.shared.attendance;
    let Ok(topic) = context.state.topic(id) else {
        return Vec::new();
    };
    let expires = topic
        .subscription(&name)
        .is_ok_and(|row| row.expire_ms.is_some());
    if !expires || !attendance.is_expired(id, &name) {
        return Vec::new();
    }
    let Ok(topic) = context.state.topic_mut(id) else {
        return Vec::new();
    };
    if topic.delete_subscription(&name).is_err() {
        return Vec::new();
    }
    attendance.forget(id, &name);
    context.shared.meters.subscription_expired();
    tracing::info!(topic = %topic.row.name, subscription = %name, "a subscription that nobody used expired");
    let history = RowKey::History(id, name.clone());
    vec![RowKey::Subscription(id, name), history]
}

/// Since when producers must have published to be kept, where all topics together have too many.
fn too_many(asker: &mut Asker) -> Option<Timestamp> {
    let count = |context: &mut Context<'_>| {
        let since = context
            .state
            .producers_kept_since(limits::PRODUCERS_PER_PEER_MAX);
        Ok((since, Vec::new()))
    };
    let (answer, _) = asker.ask(TopicId::zero(), count)?;
    answer.ok().flatten()
}

/// On the writer's thread: forgets producers that did not publish for long; so many at once, the next pass goes on.
fn forget_unused(context: &mut Context<'_>, id: TopicId, before: Timestamp) -> Vec<RowKey> {
    let Ok(topic) = context.state.topic(id) else {
        return Vec::new();
    };
    let unused: Vec<ProducerId> =
        topic.unused_producers(before, limits::PRODUCERS_FORGOTTEN_AT_ONCE);
    let mut keys = Vec::new();
    if !unused.is_empty()
        && let Ok(topic) = context.state.topic_mut(id)
        && topic.forget_producers(&unused)
    {
        keys.push(RowKey::Topic(id));
    }
    let key = |producer| RowKey::Producer(id, producer);
    keys.extend(unused.into_iter().map(key));
    keys
}
