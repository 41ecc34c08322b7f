//! The walk along the stream: which groups there are, which of them are known
//! to have been durable, and where it ends.
//!
//! A group is handed on as *claimed* as soon as some later group, header or
//! the catalog says that it was on the disk; what is left at the end is the
//! unclaimed tail. Evidence of durability counts from any group header with a
//! right checksum outside voids, also after an unreadable group: it speaks of
//! the past. A torn tail is what nobody claimed and cannot be read, and
//! everything after it.

use std::collections::VecDeque;

use super::layout::Layout;
use crate::journal::{
    Claim, EntryHeader, FIRST_POSITION, FoundGroup, GroupHeader, JournalDir, JournalError,
    Payloads, Place, ScannedGroup, SegmentReader, SlotHeader, Step, Unreadable,
};

/// An entry, read and kept.
#[derive(Debug, Clone)]
pub(crate) struct KeptEntry {
    pub position: u32,
    pub header: EntryHeader,
    pub payload: Vec<u8>,
    pub payload_ok: bool,
}

/// A group, read and kept until it is known what it is.
#[derive(Debug, Clone)]
pub(crate) struct KeptGroup {
    pub place: Place,
    pub end: Place,
    pub header: GroupHeader,
    pub claims: Vec<Claim>,
    pub entries: Vec<KeptEntry>,
    pub whole: bool,
}

/// What a group says of those before it.
#[derive(Debug, Clone)]
pub(crate) struct Claims {
    /// It speaks of the groups up to this one.
    pub synced: u64,
    pub claims: Vec<Claim>,
}

impl KeptGroup {
    /// What it says of the groups before it.
    pub fn into_claims(self) -> Claims {
        Claims {
            synced: self.header.synced,
            claims: self.claims,
        }
    }

    /// A group with everything in it.
    pub fn keep(group: &ScannedGroup<'_>) -> Self {
        Self {
            place: group.place,
            end: group.end,
            header: group.header,
            claims: group.claims.clone(),
            whole: group.is_whole(),
            entries: group
                .entries
                .iter()
                .map(|entry| KeptEntry {
                    position: entry.position,
                    header: entry.header,
                    payload: entry.payload.to_vec(),
                    payload_ok: entry.payload_ok,
                })
                .collect(),
        }
    }
}

/// Something the walk came upon, in stream order.
#[derive(Debug)]
pub(crate) enum Found {
    /// A group that was durable. Its broken entries, if any, are damage.
    Claimed(KeptGroup),
    /// Groups that were durable and cannot be read.
    Missing {
        /// First of them.
        first: u64,
        /// First after them.
        next: u64,
        /// Where the first was to be.
        place: Place,
        /// The segments that may hold them: the one of `place` and those up to the group after them.
        segments: Vec<u64>,
    },
}

/// Where the stream ended, and what lies there.
#[derive(Debug)]
pub(crate) struct End {
    /// Number of the last group known to be durable.
    pub durable: u64,
    /// Where that group ends.
    pub durable_end: Place,
    /// Whole groups after it, one following the other, that nobody claimed.
    pub tail: Vec<KeptGroup>,
    /// Claims of groups that are cut: what they say of earlier groups holds all the same.
    pub cut_claims: Vec<Claims>,
    /// Why the walk ended, if something unreadable was cut.
    pub torn: Option<String>,
    /// The last group said that the process stopped cleanly.
    pub clean_stop: bool,
}

/// Walks the stream from a segment on.
pub(crate) struct Walk<'a> {
    dir: &'a JournalDir,
    layout: &'a Layout,
    reader: SegmentReader,
    at: Place,
    next: Option<u64>,
    /// Every group up to this number was durable.
    durable: u64,
    durable_end: Place,
    held: VecDeque<KeptGroup>,
    clean_stop: bool,
    cut_claims: Vec<Claims>,
    /// The device could not read where the walk stands: whether a group was there is not known.
    device_failed: bool,
}

impl<'a> Walk<'a> {
    /// A walk from the first group of `segment`; `durable` is what is known already to be on the disk.
    pub fn new(
        dir: &'a JournalDir,
        layout: &'a Layout,
        segment: u64,
        durable: u64,
    ) -> Result<Self, JournalError> {
        let header = layout.segments[&segment];
        let durable = layout.durable_groups().chain([durable]).max().unwrap_or(0);
        let reader = SegmentReader::new(dir.slot(header.slot)?, &header, Payloads::Verify);
        let at = Place::new(segment, FIRST_POSITION);
        Ok(Self {
            dir,
            layout,
            reader,
            at,
            next: None,
            durable,
            durable_end: at,
            held: VecDeque::new(),
            clean_stop: false,
            cut_claims: Vec::new(),
            device_failed: false,
        })
    }

    /// Walks to the end, handing on what it finds.
    pub fn run(mut self, found: &mut dyn FnMut(Found)) -> Result<End, JournalError> {
        let torn = loop {
            if let Some(segment) = self.layout.resume_at(self.at) {
                self.go_to(segment)?;
            }
            if self.step(found)? || self.hop()? {
                continue;
            }
            match self.bridge(found)? {
                Bridge::Over => {}
                Bridge::End(why) => break why,
            }
        };
        self.hand_on_durable(found);
        let clean_stop = self.clean_stop && self.held.iter().all(|group| group.whole);
        let tail = self.whole_tail();
        Ok(End {
            durable: self.durable,
            durable_end: self.durable_end,
            clean_stop,
            tail,
            cut_claims: self.cut_claims,
            torn,
        })
    }

    fn go_to(&mut self, segment: u64) -> Result<(), JournalError> {
        let header: SlotHeader = self.layout.segments[&segment];
        self.reader.switch(self.dir.slot(header.slot)?, &header);
        self.at = Place::new(segment, FIRST_POSITION);
        Ok(())
    }

    /// Reads the group that is next where the walk stands. False: there is none.
    fn step(&mut self, found: &mut dyn FnMut(Found)) -> Result<bool, JournalError> {
        if self
            .layout
            .limit(self.at.segment)
            .is_some_and(|limit| self.at.position >= limit)
        {
            return Ok(false);
        }
        self.reader.seek(self.at.position, self.next);
        let kept = match self.reader.step()? {
            Step::Group(group) => {
                self.device_failed |= group.device_failed;
                KeptGroup::keep(&group)
            }
            Step::Unreadable { why, .. } => {
                self.device_failed |= why == Unreadable::Device;
                return Ok(false);
            }
            Step::EndOfSlot => return Ok(false),
        };
        self.take(kept, found);
        Ok(true)
    }

    fn take(&mut self, group: KeptGroup, found: &mut dyn FnMut(Found)) {
        self.at = group.end;
        self.next = Some(group.header.number + 1);
        self.clean_stop = group.header.clean_stop;
        self.durable = self.durable.max(group.header.synced);
        self.held.push_back(group);
        self.hand_on_durable(found);
    }

    fn hand_on_durable(&mut self, found: &mut dyn FnMut(Found)) {
        while self
            .held
            .front()
            .is_some_and(|group| group.header.number <= self.durable)
        {
            if let Some(group) = self.held.pop_front() {
                self.durable_end = group.end;
                found(Found::Claimed(group));
            }
        }
    }

    /// Goes on in the later segment that says the group before its first one ended here.
    fn hop(&mut self) -> Result<bool, JournalError> {
        let Some(next) = self.next else {
            return Ok(false);
        };
        for number in self.layout.stream_from(self.at.segment + 1) {
            let Some(first) = self.first_group(number)? else {
                continue;
            };
            if first.number == next && first.previous_end == self.at {
                self.go_to(number)?;
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn first_group(&self, number: u64) -> Result<Option<GroupHeader>, JournalError> {
        let header = self.layout.segments[&number];
        let mut reader = SegmentReader::new(self.dir.slot(header.slot)?, &header, Payloads::Trust);
        Ok(match reader.step()? {
            Step::Group(group) => Some(group.header),
            Step::Unreadable { .. } | Step::EndOfSlot => None,
        })
    }

    /// The next group cannot be read. Says whether that is the end of the stream, or damage with more behind it.
    fn bridge(&mut self, found: &mut dyn FnMut(Found)) -> Result<Bridge, JournalError> {
        let later = self.groups_after(self.next.unwrap_or(1))?;
        // Where the walk begins no number is known: the lowest one found is the next.
        let lowest = later
            .first()
            .map_or(self.durable + 1, |group| group.header.number);
        let next = self.next.unwrap_or(lowest);
        let evidence = later
            .iter()
            .map(|group| group.header.synced)
            .max()
            .unwrap_or(0);
        self.durable = self.durable.max(evidence);
        self.hand_on_durable(found);
        if self.durable < next {
            self.refuse_to_guess()?;
            self.cut_claims = later
                .iter()
                .map(|group| Claims {
                    synced: group.header.synced,
                    claims: group.claims.clone(),
                })
                .collect();
            let why = (!later.is_empty())
                .then(|| format!("group {next} at {} was not completed", self.at));
            return Ok(Bridge::End(why));
        }
        let at = self.at;
        let all = self.layout.stream_from(at.segment);
        let missing = |to: u64, last: u64| Found::Missing {
            first: next,
            next: to,
            place: at,
            segments: all.iter().copied().filter(|n| *n <= last).collect(),
        };
        match later
            .into_iter()
            .find(|group| group.header.number > next || group.place != self.at)
        {
            Some(group) if group.header.number <= self.durable + 1 => {
                found(missing(group.header.number, group.place.segment));
                self.durable_end = group.header.previous_end;
                if group.place.segment != self.at.segment {
                    self.go_to(group.place.segment)?;
                }
                self.at = group.place;
                self.next = Some(group.header.number);
                Ok(Bridge::Over)
            }
            _ => {
                found(missing(self.durable + 1, u64::MAX));
                self.durable_end = self.at;
                Ok(Bridge::End(None))
            }
        }
    }

    /// A device that does not read is no proof that nothing was written.
    fn refuse_to_guess(&self) -> Result<(), JournalError> {
        if !self.device_failed {
            return Ok(());
        }
        let header = self.layout.segments[&self.at.segment];
        Err(JournalError::Unsuitable {
            path: self.dir.slot(header.slot)?.path().to_owned(),
            what: format!(
                "the device cannot read the end of the journal near position {}: \
                 copy the directory to a disk that can be read, as far as it goes, and start there",
                self.at.position
            ),
        })
    }

    /// Every group with a number from `next` on that can be found outside voids from here on, by number.
    fn groups_after(&self, next: u64) -> Result<Vec<FoundGroup>, JournalError> {
        let mut all = Vec::new();
        for number in self.layout.stream_from(self.at.segment) {
            let header = self.layout.segments[&number];
            let limit = self.layout.limit(number).unwrap_or(header.slot_bytes);
            let mut from = if number == self.at.segment {
                self.at.position
            } else {
                FIRST_POSITION
            };
            let mut reader =
                SegmentReader::new(self.dir.slot(header.slot)?, &header, Payloads::Trust);
            while from < limit {
                let Some(group) = reader.find_after(from, next - 1)? else {
                    break;
                };
                if group.place.position >= limit {
                    break;
                }
                from = group.place.position + header.sector;
                all.push(group);
            }
        }
        all.sort_by_key(|group| group.header.number);
        Ok(all)
    }

    /// What of the held groups is whole and follows the durable part without a hole.
    fn whole_tail(&mut self) -> Vec<KeptGroup> {
        let mut tail = Vec::new();
        let mut cut = Vec::new();
        let mut next = self.durable + 1;
        for group in self.held.drain(..) {
            if group.header.number == next && group.whole {
                next += 1;
                tail.push(group);
            } else {
                cut.push(group.into_claims());
            }
        }
        cut.append(&mut self.cut_claims);
        self.cut_claims = cut;
        tail
    }
}

enum Bridge {
    Over,
    End(Option<String>),
}
