//! Making a damaged directory usable again.
//!
//! Two passes, each of which leaves a store that opens:
//!
//! 1. What every start does: the state is brought to the stream's end, a catalog
//!    in doubt is built again from the journal, a torn tail is cut. Unlike a start
//!    this goes on where facts about the peer as a whole are lost, and says so.
//! 2. What no start does: segments in which something cannot be read are replaced
//!    by cold ones that hold every healthy record of theirs, found by looking at
//!    each entry, not by asking footers or groups. The damaged files are moved to
//!    `journal/damaged/`. Offsets that nobody has any more become gaps.
//!
//! Where only the footer or one copy of a header is ruined, it is written again as it was.
//!
//! Order of the second pass, so that a crash at any step costs nothing and the
//! next repair goes on:
//!
//! * cold segments are written and synced; nothing names them: free slots;
//! * the damaged file is moved; its row now names a file that is not there, and
//!   the next repair moves it back before it does anything else;
//! * one state entry removes the row, puts those of the copies, notes the gaps.
//!
//! Invariants
//! 1. Nothing is deleted. What is replaced is renamed.
//! 2. A record that could be read before can be read afterwards, unchanged.
//! 3. A segment of the stream is moved only when a state snapshot that a slot
//!    header names and the catalog's position are past it: no recovery looks for
//!    it any more.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use super::image::{Image, SegmentView};
use super::import::bounded_gaps;
use super::report::{Finding, Repaired, Verified};
use super::verify::{check_segment, verify};
use super::work::{ColdFill, Written, change, let_go_of_the_past, stop};
use super::{OfflineError, refuse_if_used};
use crate::catalog::DirLock;
use crate::journal::{
    EntryHeader, EntryKind, EntryScanner, EntryToWrite, FIRST_POSITION, Footer, FooterBuilder,
    JournalDir, JournalError, JournalOptions, Kind, Passed, SegmentEnd,
};
use crate::store::command::Context;
use crate::store::open::open_accepting;
use crate::store::{Store, StoreOptions};
use crate::topic::RowKey;
use crate::types::{Gap, GapReason, Offset, TopicId};

/// Repairs a peer's directory; with `dry_run` only tells what would be done.
///
/// # Errors
/// If a server works there, or it is beyond repair: the message says what is missing.
pub(super) fn repair(dir: &Path, dry_run: bool) -> Result<Repaired, OfflineError> {
    refuse_if_used(dir)?;
    let mut report = Repaired::default();
    bring_back(dir, dry_run, &mut report)?;
    if dry_run && !report.steps.is_empty() {
        // What else there is to do shows only when those files are back.
        return Ok(report);
    }
    let before = Image::open(dir)?;
    first_pass_plan(&before, &mut report);
    if dry_run {
        plan_segments(&before, &mut report)?;
        plan_headers(&before, &mut report);
        return Ok(report);
    }
    drop(before);
    open_and_stop(dir, &mut report)?;
    let image = Image::open(dir)?;
    let survey = Survey::of(&image)?;
    let headers = plan_headers(&image, &mut report);
    report.steps.extend(survey.footer_steps(&image));
    if !survey.damaged.is_empty() {
        replace_segments(dir, &image, &survey.damaged, &mut report)?;
    }
    drop(image);
    mend(dir, &headers, &survey.footers)?;
    set_unreadable_aside(dir, &mut report)?;
    report.left = verify(dir)?
        .findings
        .iter()
        .map(Finding::to_string)
        .collect();
    Ok(report)
}

// --- the first pass ------------------------------------------------------------

fn first_pass_plan(image: &Image, report: &mut Repaired) {
    for fault in &image.catalog.faults {
        report.steps.push(format!(
            "catalog: set aside and built again from the journal, because {fault}"
        ));
    }
    if let Some(torn) = &image.walked.torn {
        report.steps.push(format!("journal: torn tail cut, {torn}"));
    }
    report.lost.extend(image.walked.damage.iter().cloned());
}

/// A repair discards nothing and moves nothing but what it was asked to.
fn as_it_is(dir: &Path) -> StoreOptions {
    StoreOptions {
        reclaim: false,
        ..StoreOptions::new(dir)
    }
}

fn open_and_stop(dir: &Path, report: &mut Repaired) -> Result<(), OfflineError> {
    let (store, _) = open_accepting(&as_it_is(dir))?;
    for line in store.damage() {
        if !report.lost.contains(&line) {
            report.lost.push(line);
        }
    }
    stop(&store)
}

// --- the second pass: what to do -------------------------------------------------

/// A segment in which something cannot be read.
struct Damaged {
    view: SegmentView,
    findings: Vec<Finding>,
    /// Its record entries that are healthy and live, by topic and offset.
    healthy: Vec<(EntryHeader, u32)>,
    /// Its file is there.
    file: bool,
}

impl Damaged {
    fn is_stream(&self) -> bool {
        self.view.header.kind != Kind::Cold
    }
}

/// What is wrong with segments.
struct Survey {
    /// Those that have to be replaced.
    damaged: Vec<Damaged>,
    /// Those of which only the footer is ruined, which follows from the entries.
    footers: Vec<(SegmentView, Footer)>,
}

impl Survey {
    fn of(image: &Image) -> Result<Self, OfflineError> {
        let mut survey = Self {
            damaged: Vec::new(),
            footers: Vec::new(),
        };
        for segment in find_damaged(image)? {
            match footer_again(image, &segment)? {
                Some(footer) => survey.footers.push((segment.view, footer)),
                None => survey.damaged.push(segment),
            }
        }
        let numbers = survey.damaged.iter().map(|d| d.view.number).collect();
        let mut covered = covered_elsewhere(image, &numbers)?;
        for segment in &mut survey.damaged {
            segment.healthy.retain(|(entry, _)| {
                let ranges = covered.entry(entry.topic).or_default();
                ranges.add(Offset::new(entry.number), Offset::new(entry.end_number()))
            });
        }
        Ok(survey)
    }

    fn footer_steps(&self, image: &Image) -> Vec<String> {
        let names = self.footers.iter();
        let names = names.map(|(view, _)| image.slot_name(view.header.slot));
        names
            .map(|name| format!("{name}: the footer written again from the entries"))
            .collect()
    }
}

/// The footer as it was, if nothing else of the segment is damaged.
fn footer_again(image: &Image, segment: &Damaged) -> Result<Option<Footer>, OfflineError> {
    let view = &segment.view;
    let Some(row) = view.row.filter(|row| segment.file && !row.damaged) else {
        return Ok(None);
    };
    let mut findings = segment.findings.iter();
    if !findings.all(|finding| finding.position == Some(row.footer_position)) {
        return Ok(None);
    }
    let slot = image.journal.slot(view.header.slot)?;
    let mut scanner = EntryScanner::new(slot, &view.header, FIRST_POSITION..view.end);
    let mut footer = FooterBuilder::default();
    while let Some(passed) = scanner.step()? {
        if let Passed::Entry(entry) = passed {
            footer.add(&entry.header, entry.position);
        }
    }
    let end = SegmentEnd {
        contents_end: row.end,
        groups: (row.first_group, row.last_group),
    };
    let footer = footer.finish(&end, &view.header.seed(), row.footer_position);
    Ok((footer.as_bytes().len() == row.footer_length as usize).then_some(footer))
}

/// Every segment with something wrong in it.
fn find_damaged(image: &Image) -> Result<Vec<Damaged>, OfflineError> {
    let mut damaged = Vec::new();
    for view in image.segments.values() {
        let file = image.has_file(view);
        let mut report = Verified::default();
        if file {
            check_segment(image, view, &mut report)?;
        } else {
            let name = image.slot_name(view.header.slot);
            report.add(name, "the file is missing");
        }
        if view.row.is_some_and(|row| row.damaged) && report.findings.is_empty() {
            let name = image.slot_name(view.header.slot);
            report.add(name, "it was found damaged at an earlier start");
        }
        if report.findings.is_empty() {
            continue;
        }
        damaged.push(Damaged {
            view: *view,
            findings: report.findings,
            healthy: match file {
                true => healthy_entries(image, view)?,
                false => Vec::new(),
            },
            file,
        });
    }
    Ok(damaged)
}

/// Offsets of a topic that some segment has.
#[derive(Default)]
struct Ranges(BTreeMap<Offset, Offset>);

impl Ranges {
    /// Adds a range; false if all of it was there.
    fn add(&mut self, from: Offset, to: Offset) -> bool {
        if self.missing(from, to).is_empty() {
            return false;
        }
        let (mut from, mut to) = (from, to);
        let before = self.0.range(..=from).next_back().map(|(a, b)| (*a, *b));
        if let Some((a, b)) = before.filter(|(_, b)| *b >= from) {
            (from, to) = (a, to.max(b));
        }
        let inside: Vec<Offset> = self.0.range(from..=to).map(|(a, _)| *a).collect();
        for a in inside {
            let b = self.0.remove(&a).unwrap_or(to);
            to = to.max(b);
        }
        self.0.insert(from, to);
        true
    }

    /// What of a range is not there.
    fn missing(&self, from: Offset, to: Offset) -> Vec<(Offset, Offset)> {
        let mut missing = Vec::new();
        let mut at = from;
        let first = self.0.range(..=from).next_back().map(|(a, _)| *a);
        for (&a, &b) in self.0.range(first.unwrap_or(from)..) {
            if a >= to || at >= to {
                break;
            }
            if a > at {
                missing.push((at, a));
            }
            at = at.max(b);
        }
        if at < to {
            missing.push((at, to));
        }
        missing
    }
}

fn covered_elsewhere(
    image: &Image,
    damaged: &BTreeSet<u64>,
) -> Result<BTreeMap<TopicId, Ranges>, OfflineError> {
    let mut covered: BTreeMap<TopicId, Ranges> = BTreeMap::new();
    for view in image.segments.values() {
        if damaged.contains(&view.number) {
            continue;
        }
        for (topic, extent) in image.extents(view)? {
            covered
                .entry(topic)
                .or_default()
                .add(extent.base, extent.end());
        }
    }
    Ok(covered)
}

fn healthy_entries(
    image: &Image,
    view: &SegmentView,
) -> Result<Vec<(EntryHeader, u32)>, OfflineError> {
    let slot = image.journal.slot(view.header.slot)?;
    let mut scanner = EntryScanner::new(slot, &view.header, FIRST_POSITION..view.end);
    let mut healthy = Vec::new();
    while let Some(passed) = scanner.step()? {
        let Passed::Entry(entry) = passed else {
            continue;
        };
        let lives = image.state().topic(entry.header.topic).is_ok_and(|topic| {
            entry.header.end_number() > topic.row.start.get()
                && entry.header.number < topic.row.end.get()
        });
        if entry.header.kind == EntryKind::Records && entry.payload_ok && lives {
            healthy.push((entry.header, entry.position));
        }
    }
    healthy.sort_by_key(|(entry, position)| (entry.topic, entry.number, *position));
    Ok(healthy)
}

fn plan_segments(image: &Image, report: &mut Repaired) -> Result<(), OfflineError> {
    let survey = Survey::of(image)?;
    report.steps.extend(survey.footer_steps(image));
    let Survey { damaged, .. } = &survey;
    for segment in damaged {
        report.steps.push(step_text(image, segment));
    }
    if !damaged.is_empty() {
        for (topic, gaps) in lost_offsets(image, damaged)? {
            note_lost(image, topic, &gaps, report);
        }
    }
    Ok(())
}

fn step_text(image: &Image, segment: &Damaged) -> String {
    let name = image.slot_name(segment.view.header.slot);
    let records: u64 = segment
        .healthy
        .iter()
        .map(|(entry, _)| u64::from(entry.records))
        .sum();
    let first = &segment.findings[0];
    let more = match segment.findings.len() - 1 {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!(
        "{name}: {records} healthy records copied to a cold segment, the file moved to {} ({first}{more})",
        aside_name(&segment.view)
    )
}

fn aside_name(view: &SegmentView) -> String {
    format!(
        "journal/damaged/slot-{:08}.segment-{}",
        view.header.slot, view.number
    )
}

/// Offsets between log start and end that neither a healthy segment nor a salvaged entry nor a known gap has.
fn lost_offsets(
    image: &Image,
    damaged: &[Damaged],
) -> Result<BTreeMap<TopicId, Vec<Gap>>, OfflineError> {
    let numbers = damaged.iter().map(|d| d.view.number).collect();
    let mut covered = covered_elsewhere(image, &numbers)?;
    for (entry, _) in damaged.iter().flat_map(|segment| &segment.healthy) {
        let ranges = covered.entry(entry.topic).or_default();
        ranges.add(Offset::new(entry.number), Offset::new(entry.end_number()));
    }
    let mut lost = BTreeMap::new();
    for topic in image.topics() {
        let ranges = covered.entry(topic.id).or_default();
        for gap in &topic.row.gaps {
            ranges.add(gap.from, gap.to);
        }
        let missing = ranges.missing(topic.row.start, topic.row.end);
        let gaps: Vec<Gap> = missing
            .into_iter()
            .map(|(from, to)| Gap {
                from,
                to,
                reason: GapReason::Damaged,
            })
            .collect();
        if !gaps.is_empty() {
            lost.insert(topic.id, gaps);
        }
    }
    Ok(lost)
}

fn note_lost(image: &Image, topic: TopicId, gaps: &[Gap], report: &mut Repaired) {
    let Ok(topic) = image.state().topic(topic) else {
        return;
    };
    for gap in gaps {
        report.lost.push(format!(
            "topic {}, offsets {}..{}",
            topic.row.name, gap.from, gap.to
        ));
    }
}

// --- the second pass: doing it ---------------------------------------------------

fn replace_segments(
    dir: &Path,
    image: &Image,
    damaged: &[Damaged],
    report: &mut Repaired,
) -> Result<(), OfflineError> {
    let mut lost = lost_offsets(image, damaged)?;
    let (store, _) = open_accepting(&as_it_is(dir))?;
    let mut done = match damaged.iter().any(|segment| segment.is_stream()) {
        true => let_go_of_the_past(&store),
        false => Ok(u64::MAX),
    };
    for segment in damaged {
        let Ok(horizon) = done else { break };
        // The segment the snapshot lies in was begun after all of these.
        assert!(
            !segment.is_stream() || segment.view.number < horizon,
            "invariant 3"
        );
        done = replace_segment(&store, image, segment, &mut lost).map(|()| horizon);
        if done.is_ok() {
            report.steps.push(step_text(image, segment));
        }
    }
    let stopped = stop(&store);
    done?;
    stopped?;
    for (topic, gaps) in lost_offsets(image, damaged)? {
        note_lost(image, topic, &gaps, report);
    }
    Ok(())
}

fn replace_segment(
    store: &Store,
    image: &Image,
    segment: &Damaged,
    lost: &mut BTreeMap<TopicId, Vec<Gap>>,
) -> Result<(), OfflineError> {
    let copies = copy_healthy(store, image, segment)?;
    let moved = match segment.file {
        true => Some(move_aside(&image.path, &segment.view)?),
        false => None,
    };
    // The gaps go with the first segment: they are those of all together.
    let gaps = std::mem::take(lost);
    let number = segment.view.number;
    let changed = change(store, move |context| {
        Ok(((), swap(context, number, &copies, &gaps)))
    });
    if let (Err(_), Some((from, to))) = (&changed, moved) {
        fs::rename(&to, &from).map_err(OfflineError::io(format!("move back {}", to.display())))?;
    }
    changed
}

fn copy_healthy(
    store: &Store,
    image: &Image,
    segment: &Damaged,
) -> Result<Vec<Written>, OfflineError> {
    let mut fill = ColdFill::new(store);
    let header = &segment.view.header;
    for (entry, position) in &segment.healthy {
        let slot = image.journal.slot(header.slot)?;
        let end = position + entry.entry_bytes();
        let mut scanner = EntryScanner::new(slot, header, *position..end);
        let Some(Passed::Entry(found)) = scanner.step()? else {
            return Err(changed_meanwhile(image));
        };
        if found.header != *entry || !found.payload_ok {
            return Err(changed_meanwhile(image));
        }
        fill.push(&EntryToWrite {
            kind: entry.kind,
            topic: entry.topic,
            number: entry.number,
            epoch: entry.epoch,
            records: entry.records,
            append_time: entry.append_time,
            payload: &[found.payload],
            payload_crc: entry.payload_crc,
        })?;
    }
    fill.finish()
}

fn changed_meanwhile(image: &Image) -> OfflineError {
    OfflineError::Refused(format!(
        "what lies in {} changes while it is read: is the disk failing? copy the directory elsewhere first",
        image.path.display()
    ))
}

/// One state entry: the copies instead of the segment, and gaps for what nobody has.
fn swap(
    context: &mut Context<'_>,
    number: u64,
    copies: &[Written],
    gaps: &BTreeMap<TopicId, Vec<Gap>>,
) -> Vec<RowKey> {
    context.state.remove_segment(number);
    context.shared.segments.remove(number);
    let mut keys = vec![RowKey::Segment(number)];
    keys.extend(copies.iter().map(|copy| copy.put(context)));
    for (id, lost) in gaps {
        let Ok(topic) = context.state.topic_mut(*id) else {
            continue;
        };
        let all = [&topic.row.gaps[..], lost].concat();
        topic.row.gaps = bounded_gaps(&all).0;
        keys.push(RowKey::Topic(*id));
    }
    keys
}

// --- files -----------------------------------------------------------------------

fn move_aside(dir: &Path, view: &SegmentView) -> Result<(PathBuf, PathBuf), OfflineError> {
    let from = dir.join(format!("journal/slot-{:08}", view.header.slot));
    let to = dir.join(aside_name(view));
    rename(dir, &from, &to)?;
    Ok((from, to))
}

/// Renames a file of the journal to or from `journal/damaged/`, durably.
fn rename(dir: &Path, from: &Path, to: &Path) -> Result<(), OfflineError> {
    let damaged = dir.join("journal/damaged");
    fs::create_dir_all(&damaged)
        .map_err(OfflineError::io(format!("make {}", damaged.display())))?;
    if to.exists() {
        return Err(OfflineError::Refused(format!(
            "{} is in the way: move it elsewhere and repair again",
            to.display()
        )));
    }
    fs::rename(from, to).map_err(OfflineError::io(format!("move {}", from.display())))?;
    for path in [damaged, dir.join("journal")] {
        fs::File::open(&path)
            .and_then(|dir| dir.sync_all())
            .map_err(OfflineError::io(format!("sync {}", path.display())))?;
    }
    Ok(())
}

/// Files that an earlier repair moved and whose rows are still there go back: that repair did not end.
fn bring_back(dir: &Path, dry_run: bool, report: &mut Repaired) -> Result<(), OfflineError> {
    let damaged = dir.join("journal/damaged");
    if !damaged.is_dir() {
        return Ok(());
    }
    let image = Image::open(dir)?;
    for view in image.segments.values() {
        let there = image.has_file(view);
        let aside = dir.join(aside_name(view));
        if there || !aside.exists() {
            continue;
        }
        report.steps.push(format!(
            "{}: moved back, an earlier repair did not end",
            aside_name(view)
        ));
        if !dry_run {
            let _lock = DirLock::acquire(dir)?;
            let slot = dir.join(format!("journal/slot-{:08}", view.header.slot));
            rename(dir, &aside, &slot)?;
        }
    }
    Ok(())
}

/// Slots of which one copy of the header is ruined and the other is not.
fn plan_headers(image: &Image, report: &mut Repaired) -> Vec<u32> {
    let mut slots = Vec::new();
    for slot in &image.slots {
        let ruined = slot.header.copies.iter().any(Result::is_err);
        if ruined && slot.header.header().is_some() {
            let name = image.slot_name(slot.id);
            report.steps.push(format!(
                "{name}: the ruined copy of its header written again from the other"
            ));
            slots.push(slot.id);
        }
    }
    slots
}

/// Writes what is known to be right again, where it was.
fn mend(
    dir: &Path,
    headers: &[u32],
    footers: &[(SegmentView, Footer)],
) -> Result<(), OfflineError> {
    if headers.is_empty() && footers.is_empty() {
        return Ok(());
    }
    let _lock = DirLock::acquire(dir)?;
    let (journal, listed) = open_journal(dir)?;
    for slot in listed.iter().filter(|slot| headers.contains(&slot.id)) {
        if let Some(header) = slot.header.header() {
            let file = journal.slot(slot.id)?;
            file.write_header(header)?;
            file.sync_data()?;
        }
    }
    for (view, footer) in footers {
        let held = listed.iter().find(|slot| slot.id == view.header.slot);
        let (Some(row), Some(slot)) = (view.row, held) else {
            continue;
        };
        // Only into the life of the slot that was looked at.
        if slot
            .header
            .header()
            .is_none_or(|header| header.segment == view.number)
        {
            let file = journal.slot(slot.id)?;
            let bytes = footer.as_bytes();
            file.write_padded(bytes, row.footer_position, view.header.sector)?;
            file.sync_data()?;
        }
    }
    Ok(())
}

fn open_journal(dir: &Path) -> Result<(JournalDir, Vec<crate::journal::ListedSlot>), JournalError> {
    JournalDir::open(&dir.join("journal"), &JournalOptions::default())
}

/// Slots whose header nobody can read and that no row names.
fn set_unreadable_aside(dir: &Path, report: &mut Repaired) -> Result<(), OfflineError> {
    let image = Image::open(dir)?;
    let held: BTreeSet<u32> = image
        .segments
        .values()
        .map(|view| view.header.slot)
        .collect();
    let unreadable = image
        .layout
        .unreadable
        .iter()
        .filter(|slot| !held.contains(slot));
    for slot in unreadable {
        let _lock = DirLock::acquire(dir)?;
        let to = format!("journal/damaged/slot-{slot:08}.unreadable");
        rename(dir, &dir.join(image.slot_name(*slot)), &dir.join(&to))?;
        report.steps.push(format!(
            "{}: moved to {to}, neither copy of its header can be read",
            image.slot_name(*slot)
        ));
    }
    Ok(())
}
