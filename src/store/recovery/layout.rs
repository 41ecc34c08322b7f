//! What the slot headers say, before any group is looked at.
//!
//! Voids come first: what a recovery declared void is not looked at by anything
//! that follows, neither by the walk nor by the search for groups.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::journal::{Kind, ListedSlot, Place, Resume, SlotHeader, SnapshotAt};
use crate::types::PeerId;

use super::RecoveryError;

/// The segments by number, and how the stream runs through them.
#[derive(Debug, Default)]
pub(crate) struct Layout {
    /// Every slot with a readable header, by segment number.
    pub segments: BTreeMap<u64, SlotHeader>,
    /// Slots without a readable header that were used: never touched.
    pub unreadable: Vec<u32>,
    /// Slots that never held anything.
    pub blank: BTreeSet<u32>,
    /// Where the stream jumps after a recovery, and the segment that said so.
    resumes: HashMap<Place, (u64, Resume)>,
}

impl Layout {
    /// Sorts the slots.
    pub fn new(slots: &[ListedSlot]) -> Self {
        let mut layout = Self::default();
        for slot in slots {
            match slot.header.header() {
                Some(header) => _ = layout.segments.insert(header.segment, *header),
                None if slot.is_unused() => _ = layout.blank.insert(slot.id),
                None => layout.unreadable.push(slot.id),
            }
        }
        for (&number, header) in &layout.segments {
            if let Some(resume) = header.resume {
                // Of several from one place the last one counts: the others were never built upon.
                layout.resumes.insert(resume.void_from, (number, resume));
            }
        }
        layout
    }

    /// Whether no slot ever became part of a stream.
    pub fn is_fresh(&self) -> bool {
        self.unreadable.is_empty()
            && !self
                .segments
                .values()
                .any(|header| header.kind != Kind::Recovery)
    }

    /// Refuses slots of another peer.
    pub fn check_owner(&self, peer: PeerId) -> Result<(), RecoveryError> {
        let stranger = self
            .segments
            .values()
            .find(|header| header.peer != peer && header.kind != Kind::Recovery);
        match stranger {
            None => Ok(()),
            Some(header) => Err(RecoveryError::OtherPeer {
                slot: header.slot,
                found: header.peer,
                expected: peer,
            }),
        }
    }

    /// The peer the stream's slots belong to.
    pub fn owner(&self) -> Option<PeerId> {
        self.segments
            .values()
            .find(|header| header.kind == Kind::Stream)
            .map(|header| header.peer)
    }

    /// Where the stream goes on from `place`, if a recovery said so: a segment's first position.
    pub fn resume_at(&self, place: Place) -> Option<u64> {
        let (segment, resume) = self.resumes.get(&place)?;
        Some(resume.recovery.map_or(*segment, |(first, _)| first))
    }

    /// Everything up to these groups was durable when a recovery ended.
    pub fn durable_groups(&self) -> impl Iterator<Item = u64> + '_ {
        self.resumes.values().map(|(_, resume)| resume.first_group)
    }

    /// Whether a segment belongs to the stream: ordinary ones outside voids, and recoveries that count.
    pub fn is_stream(&self, number: u64) -> bool {
        let Some(header) = self.segments.get(&number) else {
            return false;
        };
        match header.kind {
            Kind::Cold => false,
            Kind::Recovery => self.is_named(number),
            Kind::Stream => !self.is_void(number),
        }
    }

    /// Whether a recovery segment is named by a resume that counts itself.
    pub fn is_named(&self, number: u64) -> bool {
        self.resumes.values().any(|(segment, resume)| {
            resume
                .recovery
                .is_some_and(|(first, last)| (first..=last).contains(&number))
                && !self.is_void(*segment)
        })
    }

    fn is_void(&self, number: u64) -> bool {
        self.resumes.values().any(|(segment, resume)| {
            let replaced = resume
                .recovery
                .is_some_and(|(first, last)| (first..=last).contains(&number));
            resume.void_from.segment < number && number < *segment && !replaced
        })
    }

    /// Where the contents of a segment end because a void begins there.
    pub fn limit(&self, number: u64) -> Option<u32> {
        self.resumes
            .keys()
            .filter(|place| place.segment == number)
            .map(|place| place.position)
            .min()
    }

    /// The stream's segments from `number` on, in order.
    pub fn stream_from(&self, number: u64) -> Vec<u64> {
        self.segments
            .range(number..)
            .map(|(&number, _)| number)
            .filter(|&number| self.is_stream(number))
            .collect()
    }

    /// The highest segment number any slot was given.
    pub fn last_segment(&self) -> u64 {
        self.segments.keys().next_back().copied().unwrap_or(0)
    }

    /// The latest state snapshot that any slot's header names. Headers name usable ones only, so it does
    /// not matter what for the slot was prepared, or whether it ever was used.
    pub fn snapshot(&self) -> Option<SnapshotAt> {
        let named = self.segments.values().filter_map(|header| header.snapshot);
        named.max_by_key(|at| at.group)
    }
}
