//! Topics: every offset between log start and end has its record once, or is a known gap.

use super::segments::{Found, FoundEntry};
use crate::store::offline::image::Image;
use crate::store::offline::report::Verified;
use crate::topic::Topic;
use crate::types::Offset;

/// Checks every topic of the state.
pub(super) fn check(image: &Image, mut found: Found, report: &mut Verified) {
    for topic in image.topics() {
        report.checked.topics += 1;
        let mut entries = found.entries.remove(&topic.id).unwrap_or_default();
        entries.retain(|entry| entry.end > topic.row.start);
        entries.sort_by_key(|entry| (entry.base, entry.segment, entry.position));
        let told = found.told.remove(&topic.id).unwrap_or_default();
        rows(image, topic, report);
        records(image, topic, &entries, &told, report);
    }
}

fn rows(image: &Image, topic: &Topic, report: &mut Verified) {
    let row = &topic.row;
    let mut add = |what: String| {
        report.add("catalog", what).of(image.state(), topic.id);
    };
    if row.start > row.end {
        add(format!(
            "it begins at {} and ends at {}",
            row.start, row.end
        ));
    }
    if let Some(quarantine) = row.quarantine {
        add(format!(
            "it is quarantined: intact up to {}, durable once up to {}; 'tidings topic accept-loss' ends that",
            quarantine.intact_end, quarantine.claimed_end
        ));
    }
    for pair in row.gaps.windows(2) {
        if pair[0].to > pair[1].from {
            add(format!("its gaps overlap at {}", pair[1].from));
        }
    }
    for gap in row
        .gaps
        .iter()
        .filter(|gap| gap.from >= gap.to || gap.to > row.end)
    {
        add(format!(
            "its gap {}..{} lies outside of it",
            gap.from, gap.to
        ));
    }
    for (name, subscription) in &topic.subscriptions {
        if subscription.committed > row.end {
            add(format!(
                "subscription {name} has confirmed up to {}, the topic ends at {}",
                subscription.committed, row.end
            ));
        }
        if subscription.generation > row.generation {
            add(format!(
                "subscription {name} has generation {}, the topic has given {}",
                subscription.generation, row.generation
            ));
        }
    }
    for (name, group) in topic.consumers.groups() {
        if group.floor > row.end {
            add(format!(
                "consumer group {name} has settled everything up to {}, the topic ends at {}",
                group.floor, row.end
            ));
        }
        if group.generation > row.generation {
            add(format!(
                "consumer group {name} has generation {}, the topic has given {}",
                group.generation, row.generation
            ));
        }
        if topic.subscriptions.contains_key(name) {
            add(format!(
                "consumer group {name} has the name of a subscription"
            ));
        }
    }
    histories(topic, add);
}

/// What moved a subscription: of one that is there, in the order of time, and not beyond what it is at now.
fn histories(topic: &Topic, mut add: impl FnMut(String)) {
    for (name, history) in &topic.histories {
        let Some(subscription) = topic.subscriptions.get(name) else {
            add(format!(
                "there is a history of subscription {name}, which is not there"
            ));
            continue;
        };
        let mut given = history.changes.iter().map(|change| change.generation);
        if !given.clone().is_sorted() || given.next_back() != Some(subscription.generation) {
            add(format!(
                "the history of subscription {name} does not lead to its generation {}",
                subscription.generation
            ));
        }
    }
}

fn records(
    image: &Image,
    topic: &Topic,
    entries: &[FoundEntry],
    told: &[(Offset, Offset)],
    report: &mut Verified,
) {
    let mut at = topic.row.start;
    let mut last_time = None;
    for entry in entries {
        if entry.base >= topic.row.end {
            if topic.row.quarantine.is_none() {
                twice_or_beyond(
                    image,
                    topic,
                    entry,
                    "records lie beyond the end of the topic",
                    report,
                );
            }
            continue;
        }
        missing(image, topic, (at, entry.base), told, report);
        if entry.base < at && entry.base >= topic.row.start {
            twice_or_beyond(image, topic, entry, "records that are stored twice", report);
        }
        if last_time.is_some_and(|last| entry.append_time < last) {
            twice_or_beyond(image, topic, entry, "the append time falls", report);
        }
        last_time = last_time.max(Some(entry.append_time));
        at = at.max(entry.end);
    }
    missing(image, topic, (at, topic.row.end), told, report);
}

fn twice_or_beyond(
    image: &Image,
    topic: &Topic,
    entry: &FoundEntry,
    what: &str,
    report: &mut Verified,
) {
    let segment = &image.segments[&entry.segment];
    report
        .add(image.slot_name(segment.header.slot), what)
        .at(entry.position)
        .of(image.state(), topic.id)
        .offsets(entry.base, entry.end);
}

/// Offsets without an entry: neither a known gap nor told as damage already.
fn missing(
    image: &Image,
    topic: &Topic,
    (mut at, to): (Offset, Offset),
    told: &[(Offset, Offset)],
    report: &mut Verified,
) {
    while at < to {
        let gaps = topic.row.gaps.iter().map(|gap| (gap.from, gap.to));
        let known: Vec<(Offset, Offset)> = gaps.chain(told.iter().copied()).collect();
        if let Some((_, end)) = known.iter().find(|(from, to)| *from <= at && at < *to) {
            at = *end;
            continue;
        }
        let next = known
            .iter()
            .map(|(from, _)| *from)
            .filter(|from| *from > at)
            .min();
        let end = next.unwrap_or(to).min(to);
        report
            .add("journal", "no segment has these records")
            .of(image.state(), topic.id)
            .offsets(at, end);
        at = end;
    }
}
