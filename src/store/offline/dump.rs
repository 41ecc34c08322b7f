//! Records one by one, as a reader would get them; those whose time is over as well, as long as they are there.

use std::io;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;

use super::OfflineError;
use super::image::Image;
use super::read::{Index, Item, TopicReader};
use crate::journal::StoredEntry;
use crate::protocol::batch::{CheckedBatch, Piece, Record, time_to_live};
use crate::store::told;
use crate::time::Timestamp;
use crate::topic::Topic;
use crate::types::{Gap, GapReason, Offset, TopicName};

/// What to dump.
#[derive(Debug, Clone, Default)]
pub struct DumpOptions {
    /// Only this topic.
    pub topic: Option<TopicName>,
    /// From this offset on.
    pub from: Option<Offset>,
    /// Up to this offset, excluded.
    pub to: Option<Offset>,
}

/// A part of a dump.
#[derive(Debug, Clone)]
pub enum Dumped<'a> {
    /// A record.
    Record {
        /// Its topic.
        topic: &'a TopicName,
        /// Its offset.
        offset: Offset,
        /// When its host appended it.
        append_time: Timestamp,
        /// How long it lives from then on, if it is not kept for as long as the topic keeps it.
        ttl: Option<Duration>,
        /// What was published.
        record: Record,
    },
    /// Offsets without records.
    Missing {
        /// The topic.
        topic: &'a TopicName,
        /// Which, and why.
        gap: Gap,
    },
}

/// How much a dump gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DumpSummary {
    /// Records.
    pub records: u64,
    /// Offsets that are damaged.
    pub damaged: u64,
}

/// Hands the records of a topic, or of all topics by name, to `visit`, in the order of offsets.
///
/// # Errors
/// If the directory cannot be read, a server works there, there is no such topic, or `visit` fails.
pub fn dump(
    dir: &Path,
    options: &DumpOptions,
    visit: &mut dyn FnMut(Dumped<'_>) -> io::Result<()>,
) -> Result<DumpSummary, OfflineError> {
    let image = Image::open(dir)?;
    let topics: Vec<&Topic> = match &options.topic {
        Some(name) => vec![image.topic(name)?],
        None => image.topics().collect(),
    };
    let index = Index::of(&image)?;
    let range = (
        options.from.unwrap_or(Offset::ZERO),
        options.to.unwrap_or(Offset::new(u64::MAX)),
    );
    let mut dumping = Dumping {
        range,
        summary: DumpSummary::default(),
        gap: None,
        visit,
    };
    for topic in topics {
        // A batch may begin before the log start; those records are discarded all the same.
        dumping.range.0 = range.0.max(topic.row.start);
        let mut reader = TopicReader::new(&image, &index, topic, range);
        while let Some(item) = reader.next()? {
            dumping
                .item(&topic.row.name, item)
                .map_err(OfflineError::io("write"))?;
        }
        dumping
            .tell_gap(&topic.row.name)
            .map_err(OfflineError::io("write"))?;
    }
    image.check_undisturbed()?;
    Ok(dumping.summary)
}

struct Dumping<'a> {
    range: (Offset, Offset),
    summary: DumpSummary,
    /// What is missing, not told yet: more may follow for the same reason.
    gap: Option<Gap>,
    visit: &'a mut dyn FnMut(Dumped<'_>) -> io::Result<()>,
}

impl Dumping<'_> {
    fn item(&mut self, topic: &TopicName, item: Item) -> io::Result<()> {
        match item {
            Item::Missing(gap) => self.missing(topic, gap),
            Item::Batch(entry) => self.batch(topic, &entry),
        }
    }

    fn missing(&mut self, topic: &TopicName, gap: Gap) -> io::Result<()> {
        let (from, to) = (gap.from.max(self.range.0), gap.to.min(self.range.1));
        match &mut self.gap {
            _ if from >= to => {}
            Some(last) if last.to == from && last.reason == gap.reason => last.to = to,
            _ => {
                self.tell_gap(topic)?;
                self.gap = Some(Gap { from, to, ..gap });
            }
        }
        Ok(())
    }

    fn tell_gap(&mut self, topic: &TopicName) -> io::Result<()> {
        let Some(gap) = self.gap.take() else {
            return Ok(());
        };
        if gap.reason == GapReason::Damaged {
            self.summary.damaged += gap.to.since(gap.from);
        }
        (self.visit)(Dumped::Missing { topic, gap })
    }

    fn batch(&mut self, topic: &TopicName, entry: &StoredEntry) -> io::Result<()> {
        let mut at = Offset::new(entry.header.number);
        let end = Offset::new(entry.header.end_number());
        for piece in told::parts(entry).into_iter().flatten() {
            match piece {
                Piece::Gap(gap) => {
                    self.missing(topic, gap)?;
                    at = gap.to;
                }
                Piece::Batch(base, batch) => at = self.records(topic, entry, (base, batch))?,
            }
        }
        let gap = Gap {
            from: at,
            to: end.max(at),
            reason: GapReason::Damaged,
        };
        self.missing(topic, gap)
    }

    /// The records of a plain batch. Tells how far they could be read.
    fn records(
        &mut self,
        topic: &TopicName,
        entry: &StoredEntry,
        (mut offset, batch): (Offset, Bytes),
    ) -> io::Result<Offset> {
        let ttl = time_to_live(&batch);
        let records = CheckedBatch::check_crc(batch).and_then(|batch| batch.records());
        for record in records.into_iter().flatten() {
            let Ok(record) = record else { break };
            if self.range.0 <= offset && offset < self.range.1 {
                self.tell_gap(topic)?;
                self.summary.records += 1;
                (self.visit)(Dumped::Record {
                    topic,
                    offset,
                    append_time: entry.header.append_time,
                    ttl,
                    record,
                })?;
            }
            offset = offset.next();
        }
        Ok(offset)
    }
}
