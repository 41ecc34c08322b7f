//! The records of one topic, in order, with everything that is missing between them.

use std::collections::VecDeque;

use super::OfflineError;
use super::image::Image;
use crate::journal::{BufferPool, Extent, ExtentRead, Piece, StoredEntry, Via, read_extent};
use crate::limits;
use crate::topic::Topic;
use crate::types::{Gap, GapReason, Offset, TopicId};

/// A part of a topic.
#[derive(Debug, Clone)]
pub(super) enum Item {
    /// A batch, checked. It may begin before the offset asked for.
    Batch(StoredEntry),
    /// Offsets without records.
    Missing(Gap),
}

/// Where the records of every topic lie, over all segments.
pub(super) struct Index {
    by_topic: std::collections::HashMap<TopicId, Vec<(Extent, u64)>>,
}

impl Index {
    /// Asks every segment.
    pub fn of(image: &Image) -> Result<Self, OfflineError> {
        let mut index = Self {
            by_topic: std::collections::HashMap::new(),
        };
        for segment in image.segments.values() {
            for (topic, extent) in image.extents(segment)? {
                let of_topic = index.by_topic.entry(topic).or_default();
                of_topic.push((extent, segment.number));
            }
        }
        for extents in index.by_topic.values_mut() {
            extents.sort_by_key(|(extent, segment)| (extent.base, *segment));
        }
        Ok(index)
    }

    /// The extents of a topic with their segments, by offset.
    pub fn extents(&self, topic: TopicId) -> &[(Extent, u64)] {
        self.by_topic.get(&topic).map_or(&[], Vec::as_slice)
    }
}

/// Reads a topic from an offset on: batches and gaps that cover every offset once.
pub(super) struct TopicReader<'a> {
    image: &'a Image,
    topic: &'a Topic,
    extents: std::slice::Iter<'a, (Extent, u64)>,
    at: Offset,
    end: Offset,
    ready: VecDeque<Item>,
    buffers: BufferPool,
}

impl<'a> TopicReader<'a> {
    /// A reader of `[from, to)` as far as the topic has it.
    pub fn new(
        image: &'a Image,
        index: &'a Index,
        topic: &'a Topic,
        (from, to): (Offset, Offset),
    ) -> Self {
        Self {
            image,
            topic,
            extents: index.extents(topic.id).iter(),
            at: from.max(topic.row.start),
            end: to.min(topic.row.end),
            ready: VecDeque::new(),
            buffers: BufferPool::new(limits::READ_BUFFERS_KEPT_BYTES),
        }
    }

    /// The next part; `None` at the end.
    pub fn next(&mut self) -> Result<Option<Item>, OfflineError> {
        loop {
            if let Some(item) = self.ready.pop_front() {
                return Ok(Some(item));
            }
            if self.at >= self.end {
                return Ok(None);
            }
            match self
                .extents
                .by_ref()
                .find(|(extent, _)| extent.end() > self.at)
            {
                Some((extent, segment)) => self.read(*extent, *segment)?,
                None => self.missing_until(self.end),
            }
        }
    }

    fn read(&mut self, extent: Extent, segment: u64) -> Result<(), OfflineError> {
        self.missing_until(extent.base.min(self.end));
        if self.at >= self.end {
            return Ok(());
        }
        let segment = &self.image.segments[&segment];
        let slot = self.image.journal.slot(segment.header.slot)?;
        let read = ExtentRead {
            topic: self.topic.id,
            extent,
            from: self.at,
        };
        let how = (Via::Cached, &self.buffers);
        for piece in read_extent(&slot, &segment.header, &read, how)? {
            if self.at >= self.end {
                break;
            }
            match piece {
                Piece::Entry(entry) => {
                    self.at = self.at.max(Offset::new(entry.header.end_number()));
                    self.ready.push_back(Item::Batch(entry));
                }
                // Perhaps another segment has them: only what no extent gives is missing.
                Piece::Damaged { to, .. } => self.missing_until(to.min(self.end)),
            }
        }
        Ok(())
    }

    /// Tells the offsets up to `to` as missing: gaps the topic knows of as such, the rest as damage.
    fn missing_until(&mut self, to: Offset) {
        while self.at < to {
            let known = self.topic.gap_at(self.at);
            let gap = match known {
                Some(gap) => Gap {
                    from: self.at,
                    to: gap.to.min(to),
                    reason: gap.reason,
                },
                None => {
                    let gaps = self.topic.row.gaps.iter().map(|gap| gap.from);
                    let next = gaps.filter(|from| *from > self.at).min().unwrap_or(to);
                    Gap {
                        from: self.at,
                        to: next.min(to),
                        reason: GapReason::Damaged,
                    }
                }
            };
            self.at = gap.to;
            self.push_gap(gap);
        }
    }

    fn push_gap(&mut self, gap: Gap) {
        match self.ready.back_mut() {
            Some(Item::Missing(last)) if last.to == gap.from && last.reason == gap.reason => {
                last.to = gap.to;
            }
            _ => self.ready.push_back(Item::Missing(gap)),
        }
    }
}
