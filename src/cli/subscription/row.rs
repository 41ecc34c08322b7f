//! A subscription as it is named on the command line and as it is shown.

use std::time::Duration;

use clap::Args;
use serde::Serialize;

use crate::cli::output::{self, Column, Row, left, right};
use crate::protocol::api::SubscriptionInfo;
use crate::time::Timestamp;
use crate::types::{Generation, Offset, SubscriptionName, TopicName};

/// One subscription.
#[derive(Debug, Args)]
pub struct One {
    /// The topic
    pub(in crate::cli) topic: TopicName,
    /// Name of the subscription
    pub(in crate::cli) name: SubscriptionName,
}

/// A subscription as it is shown.
#[derive(Debug, Serialize)]
pub(super) struct SubscriptionRow {
    topic: TopicName,
    name: SubscriptionName,
    committed_offset: Offset,
    start_offset: Offset,
    end_offset: Offset,
    lag_records: u64,
    lag_seconds: f64,
    generation: Generation,
    #[serde(serialize_with = "output::as_text")]
    created: Timestamp,
    #[serde(serialize_with = "output::as_text_or_null")]
    last_commit: Option<Timestamp>,
    paused: bool,
    expire_ms: Option<u64>,
    expires_in_ms: Option<u64>,
    readers: u64,
}

impl From<SubscriptionInfo> for SubscriptionRow {
    fn from(info: SubscriptionInfo) -> Self {
        Self {
            lag_records: info.end_offset.since(info.committed_offset),
            lag_seconds: info.lag_ms as f64 / 1000.0,
            topic: info.topic,
            name: info.name,
            committed_offset: info.committed_offset,
            start_offset: info.start_offset,
            end_offset: info.end_offset,
            generation: info.generation,
            created: info.created,
            last_commit: info.last_commit,
            paused: info.paused,
            expire_ms: info.expire_ms,
            expires_in_ms: info.expires_in_ms,
            readers: info.readers,
        }
    }
}

impl SubscriptionRow {
    fn lag_time(&self) -> String {
        match self.lag_records {
            0 => "-".to_owned(),
            _ => output::duration(Duration::from_secs_f64(self.lag_seconds)),
        }
    }

    /// When it vanishes, if it ever does.
    pub fn expiry(&self) -> Option<String> {
        let time = |ms| output::duration(Duration::from_millis(ms));
        let after = time(self.expire_ms?);
        Some(match self.expires_in_ms {
            Some(left) => format!("when unused for {after}, in {}", time(left)),
            None => format!("when unused for {after}"),
        })
    }

    fn note(&self) -> String {
        let paused = self.paused.then(|| "paused".to_owned());
        let left = self
            .expires_in_ms
            .map(|ms| format!("expires in {}", output::duration(Duration::from_millis(ms))));
        let notes: Vec<String> = paused.into_iter().chain(left).collect();
        notes.join(", ")
    }
}

impl Row for SubscriptionRow {
    const COLUMNS: &'static [Column] = &[
        left("TOPIC"),
        left("NAME"),
        right("COMMITTED"),
        right("END"),
        right("LAG"),
        right("BEHIND"),
        left("LAST COMMIT"),
        left("NOTE"),
    ];

    fn name(&self) -> String {
        self.name.to_string()
    }

    fn cells(&self) -> Vec<String> {
        vec![
            self.topic.to_string(),
            self.name(),
            self.committed_offset.to_string(),
            self.end_offset.to_string(),
            output::number(self.lag_records),
            self.lag_time(),
            self.last_commit
                .map_or_else(|| "never".to_owned(), output::ago),
            self.note(),
        ]
    }

    fn card(&self) -> Vec<(&'static str, String)> {
        let with_age = |time: Timestamp| format!("{time} ({})", output::ago(time));
        let mut lines = vec![
            ("topic", self.topic.to_string()),
            ("name", self.name()),
            ("committed", format!("offset {}", self.committed_offset)),
            (
                "topic holds",
                format!("{}..{}", self.start_offset, self.end_offset),
            ),
            ("lag", output::count(self.lag_records, "message")),
            ("behind", self.lag_time()),
            ("generation", self.generation.to_string()),
            ("created", with_age(self.created)),
            (
                "last commit",
                self.last_commit
                    .map_or_else(|| "never".to_owned(), with_age),
            ),
            ("readers", output::number(self.readers)),
        ];
        if self.paused {
            lines.push(("paused", "until 'tidings subscription resume'".to_owned()));
        }
        lines.extend(self.expiry().map(|expiry| ("expires", expiry)));
        lines
    }
}
