//! Where the bytes are: live and dead, per topic and per segment.
//!
//! To the precision of an extent, as reclaiming counts: an extent lives as long
//! as any of its records does. Bytes are those of entries, headers included.

use std::collections::BTreeMap;
use std::path::Path;

use super::OfflineError;
use super::image::Image;
use super::list::{ListedSegment, SegmentUse, segments};
use crate::topic::State;
use crate::types::{TopicId, TopicName};

/// Bytes in use, and bytes that only wait to be reclaimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Weight {
    /// Of records that can still be read.
    pub live_bytes: u64,
    /// Of records that were discarded.
    pub dead_bytes: u64,
}

impl Weight {
    fn add(&mut self, bytes: u64, live: bool) {
        match live {
            true => self.live_bytes += bytes,
            false => self.dead_bytes += bytes,
        }
    }
}

/// A topic's share.
#[derive(Debug, Clone)]
pub struct TopicStats {
    /// Its id.
    pub id: TopicId,
    /// Its name; `None` for topics that were deleted.
    pub name: Option<TopicName>,
    /// Its records.
    pub records: u64,
    /// Its bytes.
    pub weight: Weight,
    /// How many segments have some of it.
    pub segments: u64,
}

/// A segment's share.
#[derive(Debug, Clone)]
pub struct SegmentStats {
    /// The slot and what is in it.
    pub segment: ListedSegment,
    /// Bytes of records.
    pub weight: Weight,
    /// How many topics have records in it.
    pub topics: u64,
}

/// Where the bytes of a peer's directory are.
#[derive(Debug, Clone)]
pub struct Stats {
    /// By name, deleted ones last.
    pub topics: Vec<TopicStats>,
    /// By slot.
    pub segments: Vec<SegmentStats>,
    /// Sum over all topics.
    pub weight: Weight,
    /// Bytes of the journal's files.
    pub journal_bytes: u64,
    /// Bytes of slots that hold nothing.
    pub free_slot_bytes: u64,
    /// Bytes of the catalog's files.
    pub catalog_bytes: u64,
}

impl Stats {
    /// Bytes on the disk per live byte; `None` where nothing lives.
    pub fn amplification(&self) -> Option<f64> {
        let disk = self.journal_bytes + self.catalog_bytes;
        (self.weight.live_bytes > 0).then(|| disk as f64 / self.weight.live_bytes as f64)
    }
}

/// Measures a peer's directory.
///
/// # Errors
/// If it cannot be read, or a server works there.
pub fn stats(dir: &Path) -> Result<Stats, OfflineError> {
    let image = Image::open(dir)?;
    let mut of_topics: BTreeMap<TopicId, TopicStats> = image
        .topics()
        .map(|topic| (topic.id, topic_stats(image.state(), topic.id)))
        .collect();
    let mut listed = Vec::new();
    let mut total = Weight::default();
    for segment in segments(&image) {
        let mut stats = SegmentStats {
            segment,
            weight: Weight::default(),
            topics: 0,
        };
        let number = stats
            .segment
            .segment
            .filter(|_| stats.segment.used != SegmentUse::Free);
        if let Some(view) = number.and_then(|number| image.segments.get(&number)) {
            let mut last = None;
            for (id, extent) in image.extents(view)? {
                let live = image
                    .state()
                    .topic(id)
                    .is_ok_and(|topic| extent.end() > topic.row.start);
                let bytes = u64::from(extent.length);
                let of_topic = of_topics
                    .entry(id)
                    .or_insert_with(|| topic_stats(image.state(), id));
                of_topic.weight.add(bytes, live);
                stats.weight.add(bytes, live);
                total.add(bytes, live);
                if last.replace(id) != Some(id) {
                    stats.topics += 1;
                    of_topic.segments += 1;
                }
            }
        }
        listed.push(stats);
    }
    let mut topics: Vec<TopicStats> = of_topics.into_values().collect();
    topics
        .sort_by(|a, b| (a.name.is_none(), &a.name, a.id).cmp(&(b.name.is_none(), &b.name, b.id)));
    let free = listed
        .iter()
        .filter(|s| s.segment.used == SegmentUse::Free)
        .count() as u64;
    let stats = Stats {
        topics,
        segments: listed,
        weight: total,
        journal_bytes: image.slots.iter().map(|slot| slot.file_bytes).sum(),
        free_slot_bytes: free * u64::from(image.journal.slot_bytes()),
        catalog_bytes: size_of(&dir.join("catalog")),
    };
    image.check_undisturbed()?;
    Ok(stats)
}

fn topic_stats(state: &State, id: TopicId) -> TopicStats {
    let topic = state.topic(id).ok();
    TopicStats {
        id,
        name: topic.map(|topic| topic.row.name.clone()),
        records: topic.map_or(0, |topic| topic.row.records()),
        weight: Weight::default(),
        segments: 0,
    }
}

/// Bytes of all files in a directory; what vanishes meanwhile does not count.
pub(super) fn size_of(dir: &Path) -> u64 {
    let mut bytes = 0;
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        bytes += match entry.metadata() {
            Ok(found) if found.is_dir() => size_of(&entry.path()),
            Ok(found) => found.len(),
            Err(_) => 0,
        };
    }
    bytes
}
