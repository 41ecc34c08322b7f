//! Writing an export.

use std::io::{self, Write};

use super::{
    BATCH, CONSUMER_GROUP, CONSUMER_PAGE, END, EXPORT, EXPORT_VERSION, ExportedGroup, ExportedPage,
    ExportedTopic, HISTORY, MAGIC, SUBSCRIPTION, Section, TOPIC, TOPIC_END, section_crc,
};
use crate::protocol::api::{ChangeKind, PlaceChange};
use crate::time::Timestamp;
use crate::types::{Durability, WhenFull};

/// Writes an export.
pub struct ExportWriter<W> {
    out: W,
    ordinal: u64,
}

impl<W: Write> ExportWriter<W> {
    /// Begins with the preamble.
    pub fn new(mut out: W) -> io::Result<Self> {
        out.write_all(MAGIC)?;
        out.write_all(&EXPORT_VERSION.to_le_bytes())?;
        out.write_all(&[0; 4])?;
        Ok(Self { out, ordinal: 0 })
    }

    /// Writes the next section.
    pub fn section(&mut self, section: &Section) -> io::Result<()> {
        let (kind, head) = encode(section);
        let batch: &[u8] = match section {
            Section::Batch(batch) => &batch.batch,
            _ => &[],
        };
        let length = u32::try_from(head.len() + batch.len()).expect("sections are bounded");
        let crc = section_crc(self.ordinal, kind, &[&head, batch]);
        self.out.write_all(&[kind, 0, 0, 0])?;
        self.out.write_all(&length.to_le_bytes())?;
        self.out.write_all(&crc.to_le_bytes())?;
        self.out.write_all(&head)?;
        self.out.write_all(batch)?;
        self.ordinal += 1;
        Ok(())
    }

    /// Writes the last section and hands everything on.
    pub fn finish(mut self, topics: u32) -> io::Result<W> {
        let sections = self.ordinal;
        self.section(&Section::End { topics, sections })?;
        self.out.flush()?;
        Ok(self.out)
    }
}

/// The kind and the body; of a batch all but the batch itself.
fn encode(section: &Section) -> (u8, Vec<u8>) {
    let mut to = Vec::new();
    let kind = match section {
        Section::Export(info) => {
            to.extend(info.created.as_millis().to_le_bytes());
            to.extend(info.topics.to_le_bytes());
            to.extend(info.peer.to_bytes());
            put_text(&mut to, &info.peer_name);
            put_text(&mut to, &info.program);
            EXPORT
        }
        Section::Topic(topic) => {
            put_topic(&mut to, topic);
            TOPIC
        }
        Section::Subscription(subscription) => {
            put_text(&mut to, subscription.name.as_str());
            to.extend(subscription.generation.get().to_le_bytes());
            to.extend(subscription.committed.get().to_le_bytes());
            to.extend(subscription.created.as_millis().to_le_bytes());
            put_time(&mut to, subscription.last_commit);
            to.push(u8::from(subscription.paused));
            put_number(&mut to, subscription.expire_ms);
            SUBSCRIPTION
        }
        Section::History(history) => {
            put_history(&mut to, &history.changes);
            HISTORY
        }
        Section::ConsumerGroup(group) => {
            put_group(&mut to, group);
            CONSUMER_GROUP
        }
        Section::ConsumerPage(page) => {
            put_page(&mut to, page);
            CONSUMER_PAGE
        }
        Section::Batch(batch) => {
            to.extend(batch.base.get().to_le_bytes());
            to.extend(batch.epoch.get().to_le_bytes());
            to.extend(batch.append_time.as_millis().to_le_bytes());
            BATCH
        }
        Section::TopicEnd(totals) => {
            for number in [
                totals.subscriptions,
                totals.batches,
                totals.records,
                totals.bytes,
            ] {
                to.extend(number.to_le_bytes());
            }
            TOPIC_END
        }
        Section::End { topics, sections } => {
            to.extend(topics.to_le_bytes());
            to.extend(sections.to_le_bytes());
            END
        }
    };
    (kind, to)
}

fn put_topic(to: &mut Vec<u8>, topic: &ExportedTopic) {
    to.extend(topic.id.to_bytes());
    put_text(to, topic.name.as_str());
    to.extend(topic.epoch.get().to_le_bytes());
    to.extend(topic.created.as_millis().to_le_bytes());
    to.push(u8::from(topic.settings.durability == Durability::Os));
    let retention = topic.settings.retention;
    for bound in [retention.age_ms, retention.bytes, retention.records] {
        put_number(to, bound);
    }
    to.push(u8::from(retention.interest));
    to.push(u8::from(topic.settings.when_full == WhenFull::Refuse));
    let (ids, compaction) = (topic.settings.ids, topic.settings.compaction);
    put_number(to, ids.for_ms);
    put_number(to, ids.max);
    to.push(u8::from(compaction.on));
    put_number(to, compaction.tombstone_age_ms);
    to.extend(topic.start.get().to_le_bytes());
    to.extend(topic.end.get().to_le_bytes());
    to.extend(topic.generation.get().to_le_bytes());
    put_time(to, topic.last_append);
    let gaps = u32::try_from(topic.gaps.len()).expect("gaps are bounded by the section");
    to.extend(gaps.to_le_bytes());
    for gap in &topic.gaps {
        to.extend(gap.from.get().to_le_bytes());
        to.extend(gap.to.get().to_le_bytes());
        to.push(gap.reason.number());
    }
}

fn put_history(to: &mut Vec<u8>, changes: &[PlaceChange]) {
    let count = u32::try_from(changes.len()).expect("few are kept");
    to.extend(count.to_le_bytes());
    for change in changes {
        to.extend(change.when.as_millis().to_le_bytes());
        to.push(match change.kind {
            ChangeKind::Created => 1,
            ChangeKind::Seek => 2,
            ChangeKind::Undo => 3,
        });
        to.push(u8::from(change.from.is_some()));
        to.extend(change.from.unwrap_or_default().get().to_le_bytes());
        to.extend(change.to.get().to_le_bytes());
        to.extend(change.generation.get().to_le_bytes());
        put_text(to, &change.author.client);
        put_text(to, &change.author.address);
    }
}
fn put_group(to: &mut Vec<u8>, group: &ExportedGroup) {
    let (row, options) = (&group.row, &group.row.options);
    put_text(to, group.name.as_str());
    for number in [row.generation.get(), row.floor.get()] {
        to.extend(number.to_le_bytes());
    }
    to.extend(row.created.as_millis().to_le_bytes());
    put_time(to, row.last_settled);
    for number in [
        row.acknowledged,
        row.dead,
        row.skipped,
        options.ack_deadline_ms,
    ] {
        to.extend(number.to_le_bytes());
    }
    to.extend(options.deliveries_max.to_le_bytes());
    to.extend(options.unacked_max.to_le_bytes());
    to.push(options.ordered_by_key.into());
    put_text(to, options.dead_letters.as_str());
    to.push(u8::try_from(options.backoff_ms.len()).expect("few steps"));
    for step in &options.backoff_ms {
        to.extend(step.to_le_bytes());
    }
}

fn put_page(to: &mut Vec<u8>, page: &ExportedPage) {
    to.extend(page.page.to_le_bytes());
    for word in page.row.settled {
        to.extend(word.to_le_bytes());
    }
    let failed = u16::try_from(page.row.failed.len()).expect("no more than offsets in a page");
    to.extend(failed.to_le_bytes());
    for failed in &page.row.failed {
        to.push(failed.at);
        to.push(failed.dies().into());
        to.extend(failed.times().to_le_bytes());
        to.extend(failed.until.as_millis().to_le_bytes());
        to.extend(failed.delay_ms.to_le_bytes());
    }
}

fn put_text(to: &mut Vec<u8>, text: &str) {
    let length = u16::try_from(text.len()).expect("names are short");
    to.extend(length.to_le_bytes());
    to.extend(text.as_bytes());
}

fn put_number(to: &mut Vec<u8>, number: Option<u64>) {
    to.push(u8::from(number.is_some()));
    to.extend(number.unwrap_or(0).to_le_bytes());
}

fn put_time(to: &mut Vec<u8>, time: Option<Timestamp>) {
    to.push(u8::from(time.is_some()));
    to.extend(time.unwrap_or_default().as_millis().to_le_bytes());
}
