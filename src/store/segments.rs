//! The segments readers may look into, and the cache of footers.
//!
//! A reader holds an `Arc` of the segment while it reads: that is the pin. A
//! segment that is put again (it was sealed, or found damaged) hands its pin on,
//! so readers of the older entry count as well. A slot is released only after its
//! segment was taken out of this table and nobody holds it any more (J7).

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};

use crate::journal::{
    Footer, JournalDir, JournalError, Listed, Listing, SlotHandle, SlotHeader, Via,
};
use crate::limits;
use crate::topic::SegmentRow;
use crate::types::TopicId;

/// A segment that can be read.
pub(super) struct Segment {
    pub number: u64,
    pub slot_id: u32,
    pub header: SlotHeader,
    /// Set once sealed.
    pub row: Option<SegmentRow>,
    /// Bytes of it that were read around the page cache since it was sealed.
    read_around: AtomicU64,
    /// How often its footer was read in part since it was last read as a whole.
    parts: AtomicU32,
    pin: Arc<()>,
}

/// Tells when nobody reads a segment any more that was taken out of the table.
pub(super) struct Pin(Weak<()>);

impl Pin {
    /// Whether somebody still reads.
    pub fn is_held(&self) -> bool {
        self.0.strong_count() > 0
    }
}

impl Segment {
    /// A segment whose slot is described by `header`.
    pub fn new(header: SlotHeader, row: Option<SegmentRow>) -> Self {
        Self {
            number: header.segment,
            slot_id: header.slot,
            header,
            row,
            read_around: AtomicU64::new(0),
            parts: AtomicU32::new(0),
            pin: Arc::new(()),
        }
    }

    /// How `length` bytes of it are to be read.
    ///
    /// What was written around the page cache is read around it until it is sealed. A sealed segment is read
    /// around it once: most of what is caught up on is not read again soon, and to fill pages that nobody wants
    /// costs more than the disk. What is read a second time may be wanted a third: it goes through the page cache.
    pub fn via(&self, length: u32) -> Via {
        let Some(row) = &self.row else {
            return Via::Direct;
        };
        if length < limits::READ_AROUND_BYTES_MIN {
            return Via::Cached;
        }
        let before = self
            .read_around
            .fetch_add(u64::from(length), Ordering::Relaxed);
        if before < u64::from(row.footer_position) {
            Via::Direct
        } else {
            Via::Cached
        }
    }

    /// Its slot.
    pub fn slot(&self, dir: &JournalDir) -> Result<SlotHandle, JournalError> {
        dir.slot(self.slot_id)
    }
}

#[derive(Default)]
struct Cache {
    footers: HashMap<u64, (Arc<Footer>, u64)>,
    bytes: usize,
    clock: u64,
}

/// All segments that hold something, by number.
#[derive(Default)]
pub(super) struct Segments {
    table: RwLock<BTreeMap<u64, Arc<Segment>>>,
    /// Counts changes of the table.
    version: AtomicU64,
    cache: Mutex<Cache>,
}

impl Segments {
    /// Adds or replaces a segment.
    pub fn put(&self, mut segment: Segment) {
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(before) = table.get(&segment.number) {
            segment.pin = before.pin.clone();
        }
        table.insert(segment.number, Arc::new(segment));
        self.version.fetch_add(1, Ordering::AcqRel);
    }

    /// Rises whenever a segment is put or removed.
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Pins a segment.
    pub fn get(&self, number: u64) -> Option<Arc<Segment>> {
        self.table
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&number)
            .cloned()
    }

    /// Takes a segment out; the pin tells when its last reader is gone.
    pub fn remove(&self, number: u64) -> Option<Pin> {
        let removed = self
            .table
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&number)?;
        self.version.fetch_add(1, Ordering::AcqRel);
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((footer, _)) = cache.footers.remove(&number) {
            cache.bytes -= footer.as_bytes().len();
        }
        Some(Pin(Arc::downgrade(&removed.pin)))
    }

    /// All of them, in the order of numbers.
    pub fn all(&self) -> Vec<Arc<Segment>> {
        self.table
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
            .cloned()
            .collect()
    }

    /// The highest number; 0 if there is none.
    pub fn newest(&self) -> u64 {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        table.last_key_value().map_or(0, |(number, _)| *number)
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.table
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .len()
    }

    /// The footer of a sealed segment, from the cache or the disk. `Ok(None)`: it is not sealed.
    pub fn footer(
        &self,
        segment: &Segment,
        dir: &JournalDir,
    ) -> Result<Option<Arc<Footer>>, JournalError> {
        let footer = self.footer_once(segment, dir)?;
        if let Some(footer) = &footer {
            self.keep(segment.number, footer.clone());
        }
        Ok(footer)
    }

    /// What a sealed segment holds of `topic`; `None`: it is not sealed.
    ///
    /// A long footer is not read for a single topic until that was done some times: then more are likely to come, and the whole
    /// is read and kept.
    pub fn listing(
        &self,
        segment: &Segment,
        dir: &JournalDir,
        topic: TopicId,
    ) -> Result<Option<Listing>, JournalError> {
        if segment.row.is_none() {
            return Ok(None);
        }
        if let Some(footer) = self.cached(segment.number) {
            return Ok(Some(footer.listing(topic)));
        }
        if segment.parts.fetch_add(1, Ordering::Relaxed) < limits::FOOTER_PARTS_MAX
            && let Some(listing) = self.part(segment, dir, topic)
        {
            return Ok(Some(listing));
        }
        segment.parts.store(0, Ordering::Relaxed);
        let footer = self.footer(segment, dir)?;
        Ok(footer.map(|footer| footer.listing(topic)))
    }

    /// The same out of as little of the footer as can be. `None`: whoever reads all of it is told why.
    pub fn part(&self, segment: &Segment, dir: &JournalDir, topic: TopicId) -> Option<Listing> {
        let (row, slot) = (segment.row?, segment.slot(dir).ok()?);
        let position = row.footer_position;
        let listed = slot.read_listing(&segment.header, position, topic, Via::Cached);
        match listed.ok()?.ok()? {
            Listed::Part(listing) => Some(listing),
            Listed::Whole(footer) => {
                let listing = footer.listing(topic);
                self.keep(segment.number, Arc::new(footer));
                Some(listing)
            }
        }
    }

    /// The same, for looking at many footers once each: what is read from the disk is not kept.
    pub fn footer_once(
        &self,
        segment: &Segment,
        dir: &JournalDir,
    ) -> Result<Option<Arc<Footer>>, JournalError> {
        let Some(row) = segment.row else {
            return Ok(None);
        };
        if let Some(footer) = self.cached(segment.number) {
            return Ok(Some(footer));
        }
        let slot = segment.slot(dir)?;
        let footer = match slot.read_footer(&segment.header, row.footer_position, Via::Cached)? {
            Ok(footer) => Arc::new(footer),
            Err(fault) => {
                return Err(JournalError::Unsuitable {
                    path: slot.path().to_owned(),
                    what: fault.to_string(),
                });
            }
        };
        Ok(Some(footer))
    }

    /// Whether the footer of a segment is kept.
    #[cfg(test)]
    pub fn is_kept(&self, number: u64) -> bool {
        self.cached(number).is_some()
    }

    /// Keeps no footer any more, as if it had been long ago that one was read.
    #[cfg(test)]
    pub fn forget_footers(&self) {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        *cache = Cache::default();
        for segment in self.all() {
            segment.parts.store(0, Ordering::Relaxed);
        }
    }

    fn cached(&self, number: u64) -> Option<Arc<Footer>> {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        cache.clock += 1;
        let now = cache.clock;
        let (footer, used) = cache.footers.get_mut(&number)?;
        *used = now;
        Some(footer.clone())
    }

    /// Keeps a footer, letting the longest unused go beyond the limit.
    pub fn keep(&self, number: u64, footer: Arc<Footer>) {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        cache.clock += 1;
        let now = cache.clock;
        cache.bytes += footer.as_bytes().len();
        if let Some((old, _)) = cache.footers.insert(number, (footer, now)) {
            cache.bytes -= old.as_bytes().len();
        }
        while cache.bytes > limits::FOOTER_CACHE_BYTES && cache.footers.len() > 1 {
            let Some(oldest) = cache
                .footers
                .iter()
                .min_by_key(|(_, (_, used))| *used)
                .map(|(&number, _)| number)
            else {
                break;
            };
            if let Some((footer, _)) = cache.footers.remove(&oldest) {
                cache.bytes -= footer.as_bytes().len();
            }
        }
    }
}
