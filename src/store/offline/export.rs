//! From a store to an export.

use std::io::Write;
use std::path::Path;

use super::OfflineError;
use super::image::Image;
use super::read::{Index, Item, TopicReader};
use super::tdx::{
    ExportInfo, ExportWriter, ExportedBatch, ExportedGroup, ExportedHistory, ExportedPage,
    ExportedSubscription, ExportedTopic, Section, TopicTotals,
};
use crate::journal::StoredEntry;
use crate::protocol::batch::BatchHeader;
use crate::time::Timestamp;
use crate::topic::Topic;
use crate::types::{Gap, GapReason, Offset, TopicName};

/// What to export.
#[derive(Debug, Clone, Default)]
pub struct ExportOptions {
    /// The topics.
    pub topics: Vec<TopicName>,
    /// Go on over records that cannot be read; they become gaps.
    pub pass_damage: bool,
}

/// What was exported of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportedSummary {
    /// Its name.
    pub name: TopicName,
    /// First offset and end.
    pub offsets: (Offset, Offset),
    /// How much.
    pub totals: TopicTotals,
    /// Offsets that could not be read.
    pub damaged: Vec<Gap>,
}

/// Writes topics with all that belongs to them.
///
/// # Errors
/// If a topic does not exist, the directory cannot be read, a server works there, records are
/// damaged and that is not to be passed over, or `out` fails. Nothing is written before all topics
/// were found sound.
pub fn export(
    dir: &Path,
    options: &ExportOptions,
    out: impl Write,
) -> Result<Vec<ExportedSummary>, OfflineError> {
    let image = Image::open(dir)?;
    let index = Index::of(&image)?;
    let mut plans = Vec::new();
    for name in &options.topics {
        if plans
            .iter()
            .any(|plan: &Plan<'_>| plan.topic.row.name == *name)
        {
            return Err(OfflineError::Refused(format!(
                "topic {name} is named twice"
            )));
        }
        plans.push(Plan::new(&image, &index, image.topic(name)?)?);
    }
    if !options.pass_damage {
        plans.iter().try_for_each(Plan::refuse_damage)?;
    }
    let written = write(&image, &index, &plans, out)?;
    image.check_undisturbed()?;
    Ok(written)
}

/// A topic that is going to be exported: it was read once.
struct Plan<'a> {
    topic: &'a Topic,
    end: Offset,
    gaps: Vec<Gap>,
}

impl<'a> Plan<'a> {
    fn new(image: &Image, index: &Index, topic: &'a Topic) -> Result<Self, OfflineError> {
        let row = &topic.row;
        let mut gaps: Vec<Gap> = Vec::new();
        let mut reader = TopicReader::new(image, index, topic, (row.start, row.end));
        while let Some(item) = reader.next()? {
            match (item, gaps.last_mut()) {
                (Item::Batch(_), _) => {}
                (Item::Missing(gap), Some(last))
                    if last.to == gap.from && last.reason == gap.reason =>
                {
                    last.to = gap.to;
                }
                (Item::Missing(gap), _) => gaps.push(gap),
            }
        }
        // What was durable and is lost at the end, and what was confirmed beyond it, keeps its offsets.
        let claimed = row.quarantine.map(|quarantine| quarantine.claimed_end);
        let confirmed = topic.subscriptions.values().map(|s| s.committed);
        let groups = topic.consumers.groups();
        let confirmed = confirmed.chain(groups.map(|(_, group)| group.floor));
        let end = confirmed.chain(claimed).fold(row.end, Offset::max);
        if end > row.end {
            gaps.push(Gap {
                from: row.end,
                to: end,
                reason: GapReason::Damaged,
            });
        }
        Ok(Self { topic, end, gaps })
    }

    fn damaged(&self) -> impl Iterator<Item = Gap> + '_ {
        let gaps = self.gaps.iter().copied();
        // A gap of that kind which the topic knows of was accepted before.
        gaps.filter(|gap| gap.reason == GapReason::Damaged && !self.topic.row.gaps.contains(gap))
    }

    fn refuse_damage(&self) -> Result<(), OfflineError> {
        let ranges: Vec<String> = self
            .damaged()
            .map(|gap| format!("{}..{}", gap.from, gap.to))
            .collect();
        match ranges.is_empty() {
            true => Ok(()),
            false => Err(OfflineError::Refused(format!(
                "topic {}: offsets {} cannot be read; 'tidings data repair' may bring some back, --pass-damage exports the rest with a gap",
                self.topic.row.name,
                ranges.join(", ")
            ))),
        }
    }

    fn section(&self) -> Section {
        let row = &self.topic.row;
        Section::Topic(ExportedTopic {
            id: self.topic.id,
            name: row.name.clone(),
            epoch: row.epoch,
            created: row.created,
            settings: row.settings,
            start: row.start,
            end: self.end,
            generation: row.generation,
            last_append: row.last_append,
            gaps: self.gaps.clone(),
        })
    }
}

fn write(
    image: &Image,
    index: &Index,
    plans: &[Plan<'_>],
    out: impl Write,
) -> Result<Vec<ExportedSummary>, OfflineError> {
    let failed = || OfflineError::io("write the export");
    let topics = u32::try_from(plans.len()).expect("a command line names few topics");
    let mut writer = ExportWriter::new(out).map_err(failed())?;
    let peer = image.state().peer();
    let info = ExportInfo {
        created: Timestamp::now(),
        peer: peer.id,
        peer_name: peer.name.to_string(),
        program: concat!("tidings ", env!("CARGO_PKG_VERSION")).to_owned(),
        topics,
    };
    writer.section(&Section::Export(info)).map_err(failed())?;
    let mut written = Vec::new();
    for plan in plans {
        let mut totals = TopicTotals::default();
        writer.section(&plan.section()).map_err(failed())?;
        for section in subscriptions(plan.topic) {
            totals.subscriptions += u64::from(matches!(section, Section::Subscription(_)));
            writer.section(&section).map_err(failed())?;
        }
        for section in groups(plan.topic) {
            writer.section(&section).map_err(failed())?;
        }
        let row = &plan.topic.row;
        let mut reader = TopicReader::new(image, index, plan.topic, (row.start, row.end));
        while let Some(item) = reader.next()? {
            let Item::Batch(entry) = item else { continue };
            totals.batches += 1;
            totals.records += u64::from(records_of(&entry));
            totals.bytes += entry.payload.len() as u64;
            let batch = ExportedBatch {
                base: Offset::new(entry.header.number),
                epoch: entry.header.epoch,
                append_time: entry.header.append_time,
                batch: entry.payload,
            };
            writer.section(&Section::Batch(batch)).map_err(failed())?;
        }
        writer
            .section(&Section::TopicEnd(totals))
            .map_err(failed())?;
        written.push(ExportedSummary {
            name: row.name.clone(),
            offsets: (row.start, plan.end),
            totals,
            damaged: plan.damaged().collect(),
        });
    }
    writer.finish(topics).map_err(failed())?;
    Ok(written)
}

/// How many records a batch has; a thinned one takes more offsets.
fn records_of(entry: &StoredEntry) -> u32 {
    BatchHeader::parse(&entry.payload).map_or(entry.header.records, |header| header.record_count)
}

/// The consumer groups, each before its pages.
fn groups(topic: &Topic) -> impl Iterator<Item = Section> + '_ {
    topic.consumers.groups().flat_map(|(name, row)| {
        let group = Section::ConsumerGroup(ExportedGroup {
            name: name.clone(),
            row: row.clone(),
        });
        let pages = topic.consumers.pages_of(row.generation);
        let pages = pages.map(|(page, row)| {
            let row = row.clone();
            Section::ConsumerPage(ExportedPage { page, row })
        });
        std::iter::once(group).chain(pages)
    })
}

fn subscriptions(topic: &Topic) -> impl Iterator<Item = Section> + '_ {
    topic.subscriptions.iter().flat_map(|(name, row)| {
        let subscription = Section::Subscription(ExportedSubscription {
            name: name.clone(),
            generation: row.generation,
            committed: row.committed,
            created: row.created,
            last_commit: row.last_commit,
            paused: row.paused,
            expire_ms: row.expire_ms,
        });
        let history = topic.histories.get(name).map(|history| {
            Section::History(ExportedHistory {
                changes: history.changes.clone(),
            })
        });
        std::iter::once(subscription).chain(history)
    })
}
