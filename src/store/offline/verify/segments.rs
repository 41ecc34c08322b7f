//! What is in segments: groups, entries, payloads, footers.
//!
//! Each segment is gone through twice: from group to group, for the headers and
//! how they follow each other; and from entry to entry, for what readers get. A
//! bad group header does not hide the entries behind it from the second look.

use std::collections::HashMap;

use bytes::Bytes;

use crate::journal::{
    EntryHeader, EntryKind, EntryScanner, Extent, FIRST_POSITION, Footer, Kind, Passed, Payloads,
    Place, ScannedGroup, SegmentReader, StateOp, Step, Via,
};
use crate::limits;
use crate::protocol::batch::{BatchHeader, CheckedBatch};
use crate::store::offline::OfflineError;
use crate::store::offline::image::{Image, SegmentView, footer_extents, join};
use crate::store::offline::report::Verified;
use crate::time::Timestamp;
use crate::types::{Offset, TopicId};

/// Records of a topic that one entry holds.
#[derive(Debug, Clone, Copy)]
pub(super) struct FoundEntry {
    pub segment: u64,
    pub position: u32,
    pub base: Offset,
    pub end: Offset,
    pub append_time: Timestamp,
}

/// All record entries by topic, and what was told as damaged already.
#[derive(Default)]
pub(super) struct Found {
    pub entries: HashMap<TopicId, Vec<FoundEntry>>,
    pub told: HashMap<TopicId, Vec<(Offset, Offset)>>,
    /// The catalog's position is where a group ends.
    pub applied: bool,
}

/// Checks every segment that holds something.
pub(super) fn check(image: &Image, report: &mut Verified) -> Result<Found, OfflineError> {
    let mut found = Found::default();
    for segment in image.segments.values() {
        if image.has_file(segment) {
            check_one(image, segment, report, &mut found)?;
        }
    }
    if let Some(applied) = image.catalog.applied
        && image.from_catalog
        && !found.applied
    {
        let place = Place::new(applied.segment, applied.position);
        let what = format!(
            "its position is the end of group {} at {place}, where no group ends",
            applied.group
        );
        report.add("catalog", what);
    }
    Ok(found)
}

/// Checks one segment, whose file is there.
pub(super) fn check_one(
    image: &Image,
    segment: &SegmentView,
    report: &mut Verified,
    found: &mut Found,
) -> Result<(), OfflineError> {
    report.checked.segments += 1;
    let mut check = SegmentCheck {
        image,
        segment,
        name: image.slot_name(segment.header.slot),
        report,
        extents: Vec::new(),
        broken: 0,
    };
    if segment.header.kind != Kind::Cold {
        check.groups(found)?;
    }
    check.entries(found)?;
    check.footer(found)
}

struct SegmentCheck<'a> {
    image: &'a Image,
    segment: &'a SegmentView,
    name: String,
    report: &'a mut Verified,
    /// The record entries whose headers can be read.
    extents: Vec<(TopicId, Extent)>,
    /// Places where something should be and cannot be read.
    broken: usize,
}

impl SegmentCheck<'_> {
    fn groups(&mut self, found: &mut Found) -> Result<(), OfflineError> {
        let slot = self.image.journal.slot(self.segment.header.slot)?;
        let mut reader = SegmentReader::new(slot, &self.segment.header, Payloads::Trust);
        let mut numbers: Option<(u64, u64)> = None;
        while reader.place().position < self.segment.end {
            match reader.step()? {
                Step::Group(group) => {
                    let number = group.header.number;
                    numbers = Some((numbers.map_or(number, |(first, _)| first), number));
                    self.group(&group, found);
                }
                Step::Unreadable { position, why } => {
                    self.broken += 1;
                    self.report
                        .add(&self.name, format!("no group that could come next: {why}"))
                        .at(position);
                    let above = numbers.map_or(0, |(_, last)| last);
                    let from = position + self.segment.header.sector;
                    match reader.find_after(from, above)? {
                        Some(next) => reader.seek(next.place.position, None),
                        None => break,
                    }
                }
                Step::EndOfSlot => break,
            }
        }
        self.numbers(numbers);
        Ok(())
    }

    fn group(&mut self, group: &ScannedGroup<'_>, found: &mut Found) {
        self.report.checked.groups += 1;
        for range in &group.broken {
            self.broken += 1;
            let what = format!(
                "{} bytes in group {} hold no entry that can be read",
                range.len(),
                group.header.number
            );
            self.report.add(&self.name, what).at(range.start);
        }
        if let Some(applied) = self.image.catalog.applied {
            let place = Place::new(applied.segment, applied.position);
            found.applied |= group.end == place && group.header.number == applied.group;
        }
    }

    fn numbers(&mut self, found: Option<(u64, u64)>) {
        let Some(row) = self.segment.row else { return };
        let expected = (row.first_group, row.last_group);
        if self.broken == 0 && found.is_some_and(|found| found != expected) {
            let (first, last) = found.unwrap_or_default();
            let what = format!(
                "it holds groups {first} to {last}, its row says {} to {}",
                expected.0, expected.1
            );
            self.report.add(&self.name, what);
        }
    }

    fn entries(&mut self, found: &mut Found) -> Result<(), OfflineError> {
        let slot = self.image.journal.slot(self.segment.header.slot)?;
        let range = FIRST_POSITION..self.segment.end;
        let mut scanner = EntryScanner::new(slot, &self.segment.header, range);
        while let Some(passed) = scanner.step()? {
            match passed {
                Passed::Entry(entry) => {
                    self.report.checked.entries += 1;
                    self.report.checked.payload_bytes += u64::from(entry.header.payload_bytes);
                    self.entry(entry.position, &entry.header, entry.payload_ok, found);
                    if entry.header.kind == EntryKind::Records && entry.payload_ok {
                        self.batch(entry.position, &entry.header, entry.payload, found);
                    }
                    let is_state = entry.header.kind == EntryKind::State && entry.payload_ok;
                    if is_state && let Err(fault) = StateOp::decode_all(entry.payload) {
                        let finding = self.report.add(&self.name, fault.to_string());
                        finding.at(entry.position);
                    }
                }
                // What lies behind the last entry of a cold segment is padding.
                Passed::NoEntry(range)
                    if self.segment.header.kind == Kind::Cold && range.end < self.segment.end =>
                {
                    self.broken += 1;
                    let what = format!("{} bytes hold no entry that can be read", range.len());
                    self.report.add(&self.name, what).at(range.start);
                }
                Passed::NoEntry(_) => {}
            }
        }
        Ok(())
    }

    fn entry(&mut self, position: u32, header: &EntryHeader, good: bool, found: &mut Found) {
        let records = header.kind == EntryKind::Records;
        let (from, to) = (Offset::new(header.number), Offset::new(header.end_number()));
        if !good {
            self.broken += 1;
            let what = match records {
                true => "the batch's checksum does not match".to_owned(),
                false => format!("the checksum of state entry {from} does not match"),
            };
            let finding = self.report.add(&self.name, what);
            finding.at(position);
            if !header.topic.is_zero() {
                finding.of(self.image.state(), header.topic);
            }
            if records {
                finding.offsets(from, to);
                found.told.entry(header.topic).or_default().push((from, to));
            }
        }
        if records {
            self.extents
                .push((header.topic, Extent::of_entry(header, position)));
            found
                .entries
                .entry(header.topic)
                .or_default()
                .push(FoundEntry {
                    segment: self.segment.number,
                    position,
                    base: from,
                    end: to,
                    append_time: header.append_time,
                });
        }
    }

    /// Whether a batch takes the offsets that its entry tells. One that this peer thinned is looked at whole: no
    /// publisher's checksum vouches for it.
    fn batch(&mut self, position: u32, header: &EntryHeader, bytes: &[u8], found: &mut Found) {
        let max = limits::MESSAGE_BYTES_MAX;
        let batch = BatchHeader::parse(bytes).and_then(|batch| match batch.thinned {
            None => Ok(batch),
            Some(_) => CheckedBatch::check_stored(Bytes::copy_from_slice(bytes), max)
                .map(|batch| *batch.header()),
        });
        let what = match batch {
            Ok(batch) if batch.span() == header.records => return,
            Ok(batch) => format!(
                "the batch takes {} offsets, its entry {}",
                batch.span(),
                header.records
            ),
            Err(error) => format!("the batch: {error}"),
        };
        self.broken += 1;
        let (from, to) = (Offset::new(header.number), Offset::new(header.end_number()));
        let finding = self.report.add(&self.name, what).at(position);
        finding
            .of(self.image.state(), header.topic)
            .offsets(from, to);
        let told = found.told.entry(header.topic).or_default();
        told.push((from, to));
    }

    fn footer(&mut self, found: &mut Found) -> Result<(), OfflineError> {
        let Some(row) = self.segment.row else {
            return Ok(());
        };
        let slot = self.image.journal.slot(self.segment.header.slot)?;
        let position = row.footer_position;
        let footer = match slot.read_footer(&self.segment.header, position, Via::Cached)? {
            Ok(footer) => footer,
            Err(fault) => {
                self.report
                    .add(&self.name, format!("the footer: {fault}"))
                    .at(position);
                return Ok(());
            }
        };
        let end = footer.segment_end();
        let length = u32::try_from(footer.as_bytes().len()).unwrap_or(u32::MAX);
        let by_footer = (end.contents_end, end.groups, length);
        let by_row = (
            row.end,
            (row.first_group, row.last_group),
            row.footer_length,
        );
        if by_footer != by_row {
            let what = format!(
                "the footer says (end, groups, length) {by_footer:?}, the row of segment {} {by_row:?}",
                self.segment.number
            );
            self.report.add(&self.name, what).at(position);
        }
        self.compare(&footer, position, found);
        Ok(())
    }

    /// What the footer names against what is there.
    fn compare(&mut self, footer: &Footer, position: u32, found: &mut Found) {
        let named = footer_extents(footer);
        let there = join(std::mem::take(&mut self.extents));
        if named == there {
            return;
        }
        let holes = holes(&named, &there);
        for (topic, at, from, to) in &holes {
            let finding = self
                .report
                .add(&self.name, "the footer names records that are not there");
            finding
                .at(*at)
                .of(self.image.state(), *topic)
                .offsets(*from, *to);
            found.told.entry(*topic).or_default().push((*from, *to));
        }
        let unnamed = self::holes(&there, &named);
        for (topic, at, from, to) in &unnamed {
            let finding = self.report.add(
                &self.name,
                "records can be read that the footer does not name: 'tidings data repair' brings them back",
            );
            finding
                .at(*at)
                .of(self.image.state(), *topic)
                .offsets(*from, *to);
            found.told.entry(*topic).or_default().push((*from, *to));
        }
        if holes.is_empty() && unnamed.is_empty() && self.broken == 0 {
            let what = "the footer's extents are not those of the entries";
            self.report.add(&self.name, what).at(position);
        }
    }
}

/// Offsets of `these` that `those` do not have, with the position of the extent they are in.
fn holes(
    these: &[(TopicId, Extent)],
    those: &[(TopicId, Extent)],
) -> Vec<(TopicId, u32, Offset, Offset)> {
    let mut covering: HashMap<TopicId, Vec<Extent>> = HashMap::new();
    for (topic, extent) in those {
        covering.entry(*topic).or_default().push(*extent);
    }
    let mut holes = Vec::new();
    for (topic, extent) in these {
        let mut at = extent.base;
        let of_topic = covering.get(topic).map_or(&[][..], Vec::as_slice);
        let first = of_topic.partition_point(|other| other.end() <= at);
        for other in &of_topic[first..] {
            if other.base >= extent.end() {
                break;
            }
            if other.base > at {
                holes.push((*topic, extent.position, at, other.base));
            }
            at = at.max(other.end());
        }
        if at < extent.end() {
            holes.push((*topic, extent.position, at, extent.end()));
        }
    }
    holes
}
