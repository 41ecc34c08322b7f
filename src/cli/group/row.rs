//! A group as it is shown.

use serde::Serialize;

use crate::cli::output::{self, Column, Row, left, right};
use crate::protocol::api::{ConsumerGroupInfo, ConsumerGroupOptions, ConsumerMemberInfo};
use crate::time::Timestamp;
use crate::types::{Generation, MemberId, Offset, SubscriptionName, TopicName};

/// A group.
#[derive(Debug, Serialize)]
pub struct GroupRow {
    topic: TopicName,
    name: SubscriptionName,
    generation: Generation,
    options: OptionsRow,
    #[serde(serialize_with = "output::as_text")]
    created: Timestamp,
    start_offset: Offset,
    end_offset: Offset,
    floor: Offset,
    unsettled: u64,
    in_flight: u64,
    failed: u64,
    dying: u64,
    lag_seconds: f64,
    acknowledged: u64,
    dead: u64,
    skipped: u64,
    #[serde(serialize_with = "output::as_text_or_null")]
    last_settled: Option<Timestamp>,
    stuck: Option<String>,
    members: Vec<MemberRow>,
}

#[derive(Debug, Serialize)]
struct OptionsRow {
    ack_deadline_ms: u64,
    max_deliveries: u32,
    backoff_ms: Vec<u64>,
    max_unacked: u32,
    ordered_by: Option<&'static str>,
    dead_letters: TopicName,
}

#[derive(Debug, Serialize)]
struct MemberRow {
    #[serde(serialize_with = "output::as_text")]
    id: MemberId,
    client: String,
    #[serde(serialize_with = "output::as_text")]
    since: Timestamp,
    in_flight: u64,
}

impl From<ConsumerGroupInfo> for GroupRow {
    fn from(info: ConsumerGroupInfo) -> Self {
        Self {
            topic: info.topic,
            name: info.name,
            generation: info.generation,
            options: info.options.into(),
            created: info.created,
            start_offset: info.start_offset,
            end_offset: info.end_offset,
            floor: info.floor,
            unsettled: info.unsettled,
            in_flight: info.in_flight,
            failed: info.failed,
            dying: info.dying,
            lag_seconds: info.lag_ms as f64 / 1000.0,
            acknowledged: info.acknowledged,
            dead: info.dead,
            skipped: info.skipped,
            last_settled: info.last_settled,
            stuck: info.stuck,
            members: info.members.into_iter().map(MemberRow::from).collect(),
        }
    }
}

impl From<ConsumerGroupOptions> for OptionsRow {
    fn from(options: ConsumerGroupOptions) -> Self {
        Self {
            ack_deadline_ms: options.ack_deadline_ms,
            max_deliveries: options.deliveries_max,
            backoff_ms: options.backoff_ms,
            max_unacked: options.unacked_max,
            ordered_by: options.ordered_by_key.then_some("key"),
            dead_letters: options.dead_letters,
        }
    }
}

impl From<ConsumerMemberInfo> for MemberRow {
    fn from(info: ConsumerMemberInfo) -> Self {
        Self {
            id: info.id,
            client: info.client,
            since: info.since,
            in_flight: info.in_flight,
        }
    }
}

fn duration_of(ms: u64) -> String {
    output::duration(std::time::Duration::from_millis(ms))
}

impl OptionsRow {
    fn deliveries(&self) -> String {
        match self.max_deliveries {
            0 => "never given up".to_owned(),
            most => format!(
                "{}, then to {}",
                output::count(most.into(), "failed delivery").replace("deliverys", "deliveries"),
                self.dead_letters
            ),
        }
    }

    fn backoff(&self) -> String {
        let steps: Vec<String> = self.backoff_ms.iter().map(|ms| duration_of(*ms)).collect();
        match steps.is_empty() {
            true => "none".to_owned(),
            false => steps.join(", "),
        }
    }
}

impl GroupRow {
    /// The first offset that is not settled.
    pub const fn floor(&self) -> Offset {
        self.floor
    }

    fn behind(&self) -> String {
        match self.unsettled {
            0 => "-".to_owned(),
            _ => output::duration(std::time::Duration::from_secs_f64(self.lag_seconds)),
        }
    }

    fn waits(&self) -> String {
        let waiting = self
            .unsettled
            .saturating_sub(self.in_flight + self.failed + self.dying);
        let mut parts = vec![format!("{} waiting", output::number(waiting))];
        for (count, what) in [
            (self.in_flight, "at members"),
            (self.failed, "to be delivered again"),
            (self.dying, "on their way to the dead letters"),
        ] {
            if count > 0 {
                parts.push(format!("{} {what}", output::number(count)));
            }
        }
        parts.join(", ")
    }
}

impl Row for GroupRow {
    const COLUMNS: &'static [Column] = &[
        left("TOPIC"),
        left("NAME"),
        right("MEMBERS"),
        right("UNSETTLED"),
        right("AT MEMBERS"),
        right("FAILED"),
        right("DEAD"),
        right("BEHIND"),
        left("LAST SETTLED"),
    ];

    fn name(&self) -> String {
        self.name.to_string()
    }

    fn cells(&self) -> Vec<String> {
        vec![
            self.topic.to_string(),
            self.name(),
            output::number(self.members.len() as u64),
            output::number(self.unsettled),
            output::number(self.in_flight),
            output::number(self.failed),
            output::number(self.dead),
            self.behind(),
            self.last_settled
                .map_or_else(|| "never".to_owned(), output::ago),
        ]
    }

    fn card(&self) -> Vec<(&'static str, String)> {
        let with_age = |time: Timestamp| format!("{time} ({})", output::ago(time));
        let options = &self.options;
        let mut lines = vec![
            ("topic", self.topic.to_string()),
            ("name", self.name()),
            ("settled up to", format!("offset {}", self.floor)),
            (
                "topic holds",
                format!("{}..{}", self.start_offset, self.end_offset),
            ),
            (
                "unsettled",
                format!(
                    "{}: {}",
                    output::count(self.unsettled, "message"),
                    self.waits()
                ),
            ),
            ("behind", self.behind()),
            ("acknowledged", output::number(self.acknowledged)),
            ("dead letters", output::number(self.dead)),
            ("skipped", output::number(self.skipped)),
            (
                "ordered by",
                options.ordered_by.unwrap_or("nothing").to_owned(),
            ),
            ("ack deadline", duration_of(options.ack_deadline_ms)),
            ("at most", options.deliveries()),
            ("back-off", options.backoff()),
            (
                "unacknowledged",
                format!(
                    "at most {} a member",
                    output::number(options.max_unacked.into())
                ),
            ),
            ("generation", self.generation.to_string()),
            ("created", with_age(self.created)),
            (
                "last settled",
                self.last_settled
                    .map_or_else(|| "never".to_owned(), with_age),
            ),
        ];
        if let Some(stuck) = &self.stuck {
            lines.push(("stuck", stuck.clone()));
        }
        for member in &self.members {
            let holds = output::count(member.in_flight, "message");
            let since = output::ago(member.since);
            lines.push((
                "member",
                format!("{}, joined {since}, holds {holds}", member.client),
            ));
        }
        lines
    }
}
