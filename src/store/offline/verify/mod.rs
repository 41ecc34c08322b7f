//! Every checksum and every cross-reference of a directory.
//!
//! ```text
//!   slots      both copies of every header, sizes, identity            slots.rs
//!   segments   groups and their chain, entries, payloads, footers,     segments.rs
//!              each against the row and against each other
//!   topics     records dense between log start and end, once each,     topics.rs
//!              append times, subscriptions
//!   state      the catalog's own checksums, its position, and its      here
//!              rows against the journal's; claims against both
//! ```
//!
//! What is merely unfinished (a torn tail, groups nobody claimed, no mark of a
//! clean stop) is a note: the next start deals with it and nothing is lost.
//! Free slots, padding and what lies in a void belong to nobody and are not read.

mod segments;
mod slots;
mod topics;

use std::collections::BTreeSet;
use std::path::Path;

use super::OfflineError;
use super::image::{Image, SegmentView, Walked, walk_journal};
use super::report::{Verified, topic_text};
use crate::topic::RowKey;

/// Verifies a peer's directory.
///
/// # Errors
/// If it cannot be read, or a server works there. Whatever is wrong with its contents is a finding.
pub(super) fn verify(dir: &Path) -> Result<Verified, OfflineError> {
    let image = Image::open(dir)?;
    let mut report = Verified::default();
    slots::check(&image, &mut report);
    let found = segments::check(&image, &mut report)?;
    topics::check(&image, found, &mut report);
    check_state(&image, &mut report);
    note_unfinished(&image, &mut report);
    image.check_undisturbed()?;
    Ok(report)
}

/// Verifies what one segment holds, its header excluded.
pub(super) fn check_segment(
    image: &Image,
    segment: &SegmentView,
    report: &mut Verified,
) -> Result<(), OfflineError> {
    segments::check_one(image, segment, report, &mut segments::Found::default())
}

fn check_state(image: &Image, report: &mut Verified) {
    report.checked.rows = image.state().all_keys().len() as u64;
    for fault in &image.catalog.faults {
        report.add("catalog", fault.clone());
    }
    for line in &image.walked.damage {
        report.add("journal", line.clone());
    }
    if !image.from_catalog {
        return;
    }
    match walk_journal(&image.path, &image.journal, &image.layout) {
        Ok(by_journal) => compare(image, &by_journal, report),
        Err(error) => _ = report.add("journal", format!("{error} (the catalog itself is sound)")),
    }
}

/// The rows of the catalog, brought to the stream's end, against those the journal gives by itself.
fn compare(image: &Image, by_journal: &Walked, report: &mut Verified) {
    let told: BTreeSet<&String> = image.walked.damage.iter().collect();
    for line in &by_journal.damage {
        if !told.contains(line) {
            report.add("journal", line.clone());
        }
    }
    if !by_journal.damage.is_empty() {
        report.notes.push(
            "the catalog's rows were not compared with the journal's, which is damaged".to_owned(),
        );
        return;
    }
    let (left, right) = (image.state(), &by_journal.state);
    let keys: BTreeSet<RowKey> = left
        .all_keys()
        .into_iter()
        .chain(right.all_keys())
        .collect();
    for key in keys {
        let what = match (left.row(&key), right.row(&key)) {
            (Some(left), Some(right)) if left == right => continue,
            (Some(_), Some(_)) => "is not what the journal says",
            (Some(_), None) => "is not in the journal",
            (None, _) => "is in the journal only",
        };
        let finding = report.add("catalog", format!("{} {what}", row_text(&key)));
        if !key.topic().is_zero() {
            finding.topic = Some(topic_text(left, key.topic()));
        }
    }
}

fn row_text(key: &RowKey) -> String {
    match key {
        RowKey::Peer => "the row of the peer".to_owned(),
        RowKey::Topic(_) => "the row of the topic".to_owned(),
        RowKey::Subscription(_, name) => format!("the row of subscription {name}"),
        RowKey::Producer(_, id) => format!("the row of producer {id}"),
        RowKey::History(_, name) => format!("the history of subscription {name}"),
        RowKey::Purge(_, number) => format!("purge {number} of a key of a topic"),
        RowKey::Ids(_, page) => format!("page {page} of the message ids of a topic"),
        RowKey::Segment(number) => format!("the row of segment {number}"),
        RowKey::ConsumerGroup(_, name) => format!("the row of consumer group {name}"),
        RowKey::ConsumerPage(_, generation, page) => {
            format!("page {page} of the consumer group with generation {generation}")
        }
    }
}

fn note_unfinished(image: &Image, report: &mut Verified) {
    let walked = &image.walked;
    if let Some(torn) = &walked.torn {
        report
            .notes
            .push(format!("torn tail, cut at the next start: {torn}"));
    }
    if walked.unclaimed > 0 && !walked.clean_stop {
        let groups = match walked.unclaimed {
            1 => "1 group at the end is".to_owned(),
            n => format!("{n} groups at the end are"),
        };
        report.notes.push(format!(
            "{groups} not claimed by a later one; the next start copies and keeps what is there"
        ));
    }
    if !walked.clean_stop {
        report.notes.push(
            "the last process did not stop cleanly, or this is a copy of a running store"
                .to_owned(),
        );
    }
    for entry in std::fs::read_dir(&image.path)
        .into_iter()
        .flatten()
        .flatten()
    {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with("catalog.ruined-") {
            report.notes.push(format!("{name} was set aside earlier"));
        }
    }
}
