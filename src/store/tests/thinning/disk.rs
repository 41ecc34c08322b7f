//! What stands in the place of the disk: entries in lists.

use super::*;

/// Entries in segments, in the place of the disk.
#[derive(Clone, Default)]
pub struct Disk {
    pub sealed: BTreeMap<u64, Vec<StoredEntry>>,
    pub open: Vec<StoredEntry>,
    last: u64,
}

impl Disk {
    pub fn next(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    pub fn seal(&mut self) {
        if !self.open.is_empty() {
            let number = self.next();
            self.sealed.insert(number, std::mem::take(&mut self.open));
        }
    }

    /// What lives of a topic, in order.
    pub fn of(&self, topic: TopicId, start: Offset) -> Vec<&StoredEntry> {
        let all = self.sealed.values().flatten().chain(&self.open);
        let lives = |entry: &&StoredEntry| {
            entry.header.topic == topic && entry.header.end_number() > start.get()
        };
        let mut all: Vec<_> = all.filter(lives).collect();
        all.sort_by_key(|entry| entry.header.number);
        all
    }

    /// Where the topic lies in the sealed segments.
    pub fn runs(&self, topic: TopicId, segments: &[u64]) -> Vec<Run> {
        let mut all: Vec<(u64, Extent)> = Vec::new();
        for number in segments {
            let mut extents: Vec<Extent> = Vec::new();
            let mut position = 0;
            for entry in self.sealed.get(number).into_iter().flatten() {
                let next = Extent::of_entry(&entry.header, position);
                position += next.length;
                if entry.header.topic != topic {
                    continue;
                }
                if !extents.last_mut().is_some_and(|last| last.join(&next)) {
                    extents.push(next);
                }
            }
            all.extend(extents.into_iter().map(|extent| (*number, extent)));
        }
        runs_of(all)
    }

    /// First offset of the topic that is not sealed.
    pub fn sealed_end(&self, topic: TopicId) -> u64 {
        let all = self.sealed.values().flatten();
        let of_topic = all.filter(|entry| entry.header.topic == topic);
        let ends = of_topic.map(|entry| entry.header.end_number());
        ends.max().unwrap_or(0)
    }
}

/// A topic on it.
pub struct Reading<'a> {
    pub disk: &'a Disk,
    pub topic: &'a Topic,
}

impl Source for Reading<'_> {
    fn batches(
        &mut self,
        run: &Run,
        from: Offset,
        take: &mut Take<'_>,
    ) -> Result<ControlFlow<()>, Ended> {
        let from = from.max(self.topic.row.start);
        for extent in run.extents.iter().filter(|extent| extent.end() > from) {
            let lies_in = |entry: &&StoredEntry| {
                let number = Offset::new(entry.header.number);
                let is_in = extent.base <= number && number < extent.end();
                entry.header.topic == self.topic.id
                    && is_in
                    && entry.header.end_number() > from.get()
            };
            for entry in self.disk.sealed[&run.segment].iter().filter(lies_in) {
                let batch = CheckedBatch::check_crc(entry.payload.clone()).expect("sound");
                if take(&entry.header, &batch).is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
        }
        Ok(ControlFlow::Continue(()))
    }
}
