//! A topic as it is shown: who hosts it, and what the host tells if it answers.

use serde::Serialize;

use crate::cli::output::{self, Column, Row, left, right};
use crate::client::TopicReport;
use crate::protocol::api::{PeerState, TopicInfo, TopicLocation};
use crate::time::Timestamp;
use crate::types::{
    Address, Compaction, Durability, Gap, LeaderEpoch, Offset, PeerName, RememberIds, Retention,
    TopicId, TopicName, TopicSettings, WhenFull,
};

/// A topic: who hosts it, and what the host tells if it answers.
#[derive(Debug, Serialize)]
pub struct TopicRow {
    /// Its name.
    pub name: TopicName,
    /// Its id.
    #[serde(serialize_with = "output::as_text")]
    pub id: TopicId,
    /// Its host.
    pub peer: PeerName,
    address: Address,
    epoch: LeaderEpoch,
    state: PeerState,
    #[serde(serialize_with = "output::as_text")]
    since: Timestamp,
    start_offset: Option<Offset>,
    end_offset: Option<Offset>,
    durable_end_offset: Option<Offset>,
    /// Messages in it, if its host tells.
    pub records: Option<u64>,
    bytes: Option<u64>,
    durability: Option<Durability>,
    retention: Option<Retention>,
    when_full: Option<WhenFull>,
    remember_ids: Option<RememberIds>,
    compaction: Option<Compaction>,
    /// Offsets without a message: it was compacted, expired or purged.
    removed: Option<u64>,
    compacted_offset: Option<Offset>,
    purges: Option<u32>,
    #[serde(serialize_with = "output::as_text_or_null")]
    created: Option<Timestamp>,
    #[serde(serialize_with = "output::as_text_or_null")]
    last_append: Option<Timestamp>,
    subscriptions: Option<u64>,
    quarantined: Option<bool>,
    conflict: bool,
    gaps: Vec<Gap>,
}

impl From<TopicReport> for TopicRow {
    fn from(report: TopicReport) -> Self {
        Self::new(report.location, report.info.ok())
    }
}

impl TopicRow {
    /// Puts together what the index and what the host say.
    pub fn new(location: TopicLocation, info: Option<TopicInfo>) -> Self {
        let known = info.as_ref();
        Self {
            name: location.name,
            id: location.id,
            peer: location.peer_name,
            address: location.address,
            epoch: location.epoch,
            state: location.state,
            since: location.since,
            start_offset: known.map(|info| info.start_offset),
            end_offset: known.map(|info| info.end_offset),
            durable_end_offset: known.map(|info| info.durable_end_offset),
            records: known.map(records),
            bytes: known.map(|info| info.bytes),
            durability: known.map(|info| info.settings.durability),
            retention: known.map(|info| info.settings.retention),
            when_full: known.map(|info| info.settings.when_full),
            remember_ids: known.map(|info| info.settings.ids),
            compaction: known.map(|info| info.settings.compaction),
            removed: known.map(|info| info.removed),
            compacted_offset: known.map(|info| info.compacted_offset),
            purges: known.map(|info| info.purges),
            created: known.map(|info| info.created),
            last_append: known.and_then(|info| info.last_append),
            subscriptions: known.map(|info| info.subscriptions),
            quarantined: known.map(|info| info.quarantined),
            conflict: known.is_some_and(|info| info.conflict),
            gaps: info.map(|info| info.gaps).unwrap_or_default(),
        }
    }

    /// What was, and is to be, taken out of its middle.
    fn thinned_lines(&self) -> Vec<(&'static str, String)> {
        let mut lines = Vec::new();
        lines.extend(
            self.compaction
                .and_then(|compaction| compaction_text(compaction, self.compacted_offset))
                .map(|text| ("compacted", text)),
        );
        lines.extend(
            self.removed
                .filter(|removed| *removed > 0)
                .map(|removed| ("taken away", output::count(removed, "message"))),
        );
        lines.extend(self.purges.filter(|purges| *purges > 0).map(|purges| {
            let purges = output::count(purges.into(), "key");
            ("erasing", format!("{purges}, read by nobody any more"))
        }));
        lines
    }

    /// The state, and what else a person must know at first sight.
    fn state_text(&self) -> String {
        if self.conflict {
            "conflict".to_owned()
        } else if self.quarantined == Some(true) {
            "quarantined".to_owned()
        } else {
            self.state.to_string()
        }
    }
}

/// Messages that readers can have: the offsets kept, without the gaps among them and what was taken away.
fn records(info: &TopicInfo) -> u64 {
    let missing: u64 = info
        .gaps
        .iter()
        .map(|gap| {
            let to = gap.to.min(info.end_offset);
            to.since(gap.from.max(info.start_offset))
        })
        .sum();
    info.end_offset
        .since(info.start_offset)
        .saturating_sub(missing.saturating_add(info.removed))
}

/// How a compacted topic is compacted, in words.
fn compaction_text(compaction: Compaction, to: Option<Offset>) -> Option<String> {
    let kept = output::duration(compaction.tombstone_age());
    let to = to.filter(|to| *to > Offset::ZERO);
    let to = to.map_or_else(|| "not yet".to_owned(), |to| format!("up to {to}"));
    (compaction.on).then(|| format!("{to}; deletions are kept for {kept}"))
}

/// Which message ids are remembered, in words; `None`: none.
fn ids_text(ids: RememberIds) -> Option<String> {
    let most = output::number(ids.most());
    let age = ids.for_ms.map(std::time::Duration::from_millis);
    ids.is_on().then(|| match age.map(output::duration) {
        Some(age) => format!("for {age}, of the last {most} at least"),
        None => format!("of the last {most} at least"),
    })
}

/// What is kept, in words.
pub fn retention_text(settings: TopicSettings) -> String {
    let retention = settings.retention;
    let mut bounds = Vec::new();
    if let Some(ms) = retention.age_ms {
        bounds.push(output::duration(std::time::Duration::from_millis(ms)));
    }
    if let Some(bytes) = retention.bytes {
        bounds.push(output::bytes(bytes));
    }
    if let Some(records) = retention.records {
        bounds.push(output::count(records, "message"));
    }
    let mut text = match (bounds.is_empty(), retention.interest) {
        (true, false) => "everything".to_owned(),
        (true, true) => "what is not confirmed".to_owned(),
        (false, false) => format!("at most {}", bounds.join(", ")),
        (false, true) => format!("what is not confirmed, at most {}", bounds.join(", ")),
    };
    if settings.when_full == WhenFull::Refuse {
        text += "; refuses more when full";
    }
    text
}

impl Row for TopicRow {
    const COLUMNS: &'static [Column] = &[
        left("NAME"),
        left("PEER"),
        left("STATE"),
        right("MESSAGES"),
        right("SIZE"),
        right("SUBS"),
        left("DURABILITY"),
        left("LAST MESSAGE"),
    ];

    fn name(&self) -> String {
        self.name.to_string()
    }

    fn cells(&self) -> Vec<String> {
        let last = match (self.records, self.last_append) {
            (Some(_), None) => "never".to_owned(),
            (_, last) => output::or_dash(last, output::ago),
        };
        vec![
            self.name(),
            self.peer.to_string(),
            self.state_text(),
            output::or_dash(self.records, output::number),
            output::or_dash(self.bytes, output::bytes),
            output::or_dash(self.subscriptions, output::number),
            output::or_dash(self.durability, |durability| durability.to_string()),
            last,
        ]
    }

    fn card(&self) -> Vec<(&'static str, String)> {
        let mut lines = vec![
            ("name", self.name()),
            ("id", self.id.to_string()),
            ("peer", format!("{} at {}", self.peer, self.address)),
            (
                "state",
                format!(
                    "{} since {} ({})",
                    self.state_text(),
                    self.since,
                    output::ago(self.since)
                ),
            ),
            ("epoch", self.epoch.to_string()),
        ];
        if let (Some(start), Some(end), Some(records)) =
            (self.start_offset, self.end_offset, self.records)
        {
            lines.push(("offsets", format!("{start}..{end}")));
            lines.push(("messages", output::number(records)));
        }
        lines.extend(self.bytes.map(|bytes| ("size", output::bytes(bytes))));
        lines.extend(
            self.durability
                .map(|durability| ("durability", durability.to_string())),
        );
        if let (Some(durability), Some(retention), Some(when_full)) =
            (self.durability, self.retention, self.when_full)
        {
            let settings = TopicSettings {
                durability,
                retention,
                when_full,
                ..TopicSettings::default()
            };
            lines.push(("keeps", retention_text(settings)));
        }
        lines.extend(
            self.remember_ids
                .and_then(ids_text)
                .map(|text| ("remembers ids", text)),
        );
        lines.extend(self.thinned_lines());
        lines.extend(
            self.subscriptions
                .map(|n| ("subscriptions", output::number(n))),
        );
        lines.extend(self.created.map(|time| ("created", with_age(time))));
        lines.extend(
            self.last_append
                .map(|time| ("last message", with_age(time))),
        );
        for gap in &self.gaps {
            lines.push(("gap", format!("{}..{} {}", gap.from, gap.to, gap.reason)));
        }
        lines
    }
}

fn with_age(time: Timestamp) -> String {
    format!("{time} ({})", output::ago(time))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn location() -> TopicLocation {
        TopicLocation {
            name: "quakes.ci".parse().expect("good"),
            id: TopicId::from_bytes([1; 16]),
            epoch: LeaderEpoch::new(2),
            peer: crate::types::PeerId::from_bytes([2; 16]),
            peer_name: "peer-1".parse().expect("good"),
            address: "127.0.0.1:7401".parse().expect("good"),
            state: PeerState::Down,
            since: Timestamp::from_millis(0),
        }
    }

    #[test]
    fn a_topic_of_an_absent_peer_shows_what_the_index_knows() {
        let row = TopicRow::new(location(), None);
        let json = serde_json::to_value(&row).expect("encodes");
        for field in [
            "start_offset",
            "end_offset",
            "records",
            "bytes",
            "durability",
            "created",
        ] {
            assert!(json[field].is_null(), "{field} is {}", json[field]);
        }
        assert_eq!(json["state"], "down");
        assert_eq!(json["peer"], "peer-1");
        assert_eq!(json["id"], "01".repeat(16));
        assert_eq!(
            row.cells()[3..],
            ["-", "-", "-", "-", "-"].map(str::to_owned)
        );
    }

    #[test]
    fn a_topic_of_a_present_peer_shows_everything_promised() {
        let gap = Gap {
            from: Offset::new(0),
            to: Offset::new(6),
            reason: crate::types::GapReason::Lost,
        };
        let info = TopicInfo {
            name: location().name,
            id: location().id,
            epoch: location().epoch,
            settings: TopicSettings::default(),
            start_offset: Offset::new(4),
            end_offset: Offset::new(10),
            durable_end_offset: Offset::new(10),
            bytes: 2048,
            created: Timestamp::from_millis(0),
            last_append: None,
            subscriptions: 3,
            quarantined: false,
            conflict: false,
            gaps: vec![gap],
            removed: 1,
            compacted_offset: Offset::new(7),
            purges: 0,
        };
        let row = TopicRow::new(location(), Some(info));
        let json = serde_json::to_value(&row).expect("encodes");
        assert_eq!(json["records"], 3);
        assert_eq!(json["created"], "1970-01-01T00:00:00.000Z");
        assert_eq!(json["retention"]["age_ms"], serde_json::Value::Null);
        assert_eq!(json["retention"]["interest"], false);
        assert_eq!(json["when_full"], "discard-oldest");
        assert_eq!(json["subscriptions"], 3);
        assert_eq!(json["durability"], "fsync");
    }
}
