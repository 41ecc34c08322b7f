//! What the tools found, as tables, cards and documents.

use serde_json::{Value, json};

use super::rows::{GroupLine, SegmentLine, SubscriptionLine, TopicLine, TopicWeight};
use crate::catalog::{FORMAT, Plan, StoreKind};
use crate::cli::fail::Result;
use crate::cli::output::{self, Format, Output, Row, card, table};
use crate::store::offline::{Imported, Listing, Repaired, Stats, Verified};

/// Several tables, one after the other; empty ones are left out.
pub(super) fn sections(parts: &[String]) -> String {
    let full: Vec<&str> = parts
        .iter()
        .filter(|part| !part.is_empty())
        .map(String::as_str)
        .collect();
    full.join("\n")
}

/// Each on a line of its own.
pub(super) fn lines(names: impl Iterator<Item = String>) -> String {
    names.map(|name| name + "\n").collect()
}

/// `data ls` of a peer.
pub fn listing(listing: &Listing, output: &Output) -> Result {
    let topics: Vec<TopicLine> = listing.topics.iter().map(TopicLine::from).collect();
    let (mut subscriptions, mut groups) = (Vec::new(), Vec::new());
    for topic in &listing.topics {
        let of_topic = topic.subscriptions.iter();
        subscriptions.extend(of_topic.map(|found| SubscriptionLine::new(topic, found)));
        let of_topic = topic.consumer_groups.iter();
        groups.extend(of_topic.map(|found| GroupLine::new(topic, found)));
    }
    let segments: Vec<SegmentLine> = listing.segments.iter().map(SegmentLine::from).collect();
    for fault in &listing.catalog_faults {
        output.warn(format!(
            "the catalog is not to be believed, this is what the journal says: {fault}"
        ));
    }
    for damage in &listing.damage {
        output.warn(format!("damage: {damage}"));
    }
    if output.format == Format::Name {
        return output.raw(lines(topics.iter().map(Row::name)).as_bytes());
    }
    let document = json!({
        "kind": "peer",
        "id": listing.peer.id.to_string(),
        "name": listing.peer.name,
        "created": listing.peer.created.to_string(),
        "journal_format": listing.journal_format,
        "catalog_format": listing.catalog_format,
        "catalog_faults": listing.catalog_faults,
        "applied": listing.applied,
        "slot_bytes": listing.slot_bytes,
        "clean_stop": listing.clean_stop,
        "torn": listing.torn,
        "damage": listing.damage,
        "topics": topics,
        "subscriptions": subscriptions,
        "groups": groups,
        "segments": segments,
    });
    let text = sections(&[
        card(&head(listing)),
        table(&topics),
        table(&subscriptions),
        table(&groups),
        table(&segments),
    ]);
    output.value(&document, &text)
}

fn head(listing: &Listing) -> Vec<(&'static str, String)> {
    let format = match listing.catalog_format {
        Some(catalog) => format!("journal {}, catalog {catalog}", listing.journal_format),
        None => format!("journal {}, catalog unknown", listing.journal_format),
    };
    let mut head = vec![
        ("peer", listing.peer.name.to_string()),
        ("id", listing.peer.id.to_string()),
        ("created", listing.peer.created.to_string()),
        ("format", format),
        ("slot size", output::bytes(u64::from(listing.slot_bytes))),
    ];
    if let Some(applied) = listing.applied {
        let at = format!(
            "group {} at {}:{}",
            applied.group, applied.segment, applied.position
        );
        head.push(("catalog at", at));
    }
    head.push((
        "last stop",
        match listing.clean_stop {
            true => "clean".to_owned(),
            false => "not clean, or a copy of a running store".to_owned(),
        },
    ));
    if let Some(torn) = &listing.torn {
        head.push(("torn tail", format!("{torn}; cut at the next start")));
    }
    head
}

/// `data stats` of a peer.
pub fn stats(stats: &Stats, output: &Output) -> Result {
    let topics: Vec<TopicWeight> = stats.topics.iter().map(TopicWeight::from).collect();
    let segments: Vec<SegmentLine> = stats.segments.iter().map(SegmentLine::from).collect();
    if output.format == Format::Name {
        // A topic that was deleted has none any more.
        let named = topics.iter().filter(|topic| topic.is_named());
        return output.raw(lines(named.map(Row::name)).as_bytes());
    }
    let amplification = stats.amplification();
    let document = json!({
        "kind": "peer",
        "live_bytes": stats.weight.live_bytes,
        "dead_bytes": stats.weight.dead_bytes,
        "journal_bytes": stats.journal_bytes,
        "free_slot_bytes": stats.free_slot_bytes,
        "catalog_bytes": stats.catalog_bytes,
        "amplification": amplification,
        "topics": topics,
        "segments": segments,
    });
    let head = [
        ("live", output::bytes(stats.weight.live_bytes)),
        ("dead", output::bytes(stats.weight.dead_bytes)),
        ("journal", output::bytes(stats.journal_bytes)),
        ("of it free slots", output::bytes(stats.free_slot_bytes)),
        ("catalog", output::bytes(stats.catalog_bytes)),
        (
            "on disk per live byte",
            output::or_dash(amplification, |times| format!("{times:.2}")),
        ),
    ];
    output.value(
        &document,
        &sections(&[card(&head), table(&topics), table(&segments)]),
    )
}

/// `data verify`.
pub fn verified(report: &Verified, output: &Output) -> Result {
    for note in &report.notes {
        output.note(format!("note: {note}"));
    }
    let checked = report.checked;
    let rows = output::count(checked.rows, "row");
    let topics = output::count(checked.topics, "topic");
    output.note(match checked.slots {
        0 => format!("checked {rows}, {topics}"),
        slots => format!(
            "checked {}, {}, {}, {} of payload, {rows}, {topics}",
            output::count(slots, "slot"),
            output::count(checked.segments, "segment"),
            output::count(checked.groups, "group"),
            output::bytes(checked.payload_bytes),
        ),
    });
    let findings: Vec<Value> = report
        .findings
        .iter()
        .map(|finding| {
            json!({
                "file": finding.file,
                "position": finding.position,
                "topic": finding.topic,
                "offsets": finding.offsets,
                "what": finding.what,
            })
        })
        .collect();
    let document = json!({
        "findings": findings,
        "notes": report.notes,
        "checked": {
            "slots": checked.slots,
            "segments": checked.segments,
            "groups": checked.groups,
            "entries": checked.entries,
            "payload_bytes": checked.payload_bytes,
            "rows": checked.rows,
            "topics": checked.topics,
        },
    });
    let text = lines(report.findings.iter().map(ToString::to_string));
    output.value(&document, &text)
}

/// `data import`, for programs; people have read notes.
pub fn imported(imported: &[Imported], output: &Output) -> Result {
    let topics: Vec<Value> = imported
        .iter()
        .map(|topic| {
            json!({
                "name": topic.name,
                "id": topic.id.to_string(),
                "start_offset": topic.offsets.0,
                "end_offset": topic.offsets.1,
                "records": topic.totals.records,
                "subscriptions": topic.totals.subscriptions,
            })
        })
        .collect();
    match output.format {
        Format::Table => Ok(()),
        Format::Name => output.raw(lines(imported.iter().map(|t| t.name.to_string())).as_bytes()),
        Format::Json | Format::Yaml => output.value(&topics, ""),
    }
}

/// `data repair`.
pub fn repaired(report: &Repaired, dry_run: bool, output: &Output) -> Result {
    if report.is_nothing() {
        output.note("there is nothing to repair");
    }
    let document = json!({
        "dry_run": dry_run,
        "steps": report.steps,
        "lost": report.lost,
        "left": report.left,
    });
    let done = if dry_run { "would do" } else { "done" };
    let of = |what: &'static str, lines: &[String]| -> String {
        lines
            .iter()
            .map(|line| format!("{what}: {line}\n"))
            .collect()
    };
    let text = of(done, &report.steps) + &of("lost", &report.lost) + &of("left", &report.left);
    output.value(&document, &text)
}

/// `data migrate`.
pub fn plans(plans: &[Plan], dry_run: bool, output: &Output) -> Result {
    let mut text = String::new();
    let mut stores = Vec::new();
    for plan in plans {
        let steps: Vec<Value> = plan
            .steps
            .iter()
            .map(|step| json!({"format": step.number, "description": step.description}))
            .collect();
        text += &match (plan.steps.is_empty(), dry_run) {
            (true, _) => format!("{} has format {FORMAT}, the newest\n", plan.path.display()),
            (false, true) => format!("would migrate: {plan}\n"),
            (false, false) => format!("migrated: {plan}\n"),
        };
        stores.push(json!({
            "path": plan.path,
            "kind": match plan.kind {
                StoreKind::Peer => "peer",
                StoreKind::Index => "index",
            },
            "format": plan.format,
            "steps": steps,
        }));
    }
    output.value(&stores, &text)
}
