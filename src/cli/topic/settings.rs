//! What can be set on a topic: by flags when it is made, by name later.

use clap::Args;
use serde::Serialize;

use crate::cli::fail::Result;
use crate::cli::output::{Column, Output, Row, left};
use crate::cli::values;
use crate::limits;
use crate::protocol::api::TopicChanges;
use crate::types::{Compaction, Durability, RememberIds, Retention, TopicSettings, WhenFull};

/// Settings of a new topic.
#[derive(Debug, Clone, Copy, Args)]
pub struct SettingsFlags {
    /// What an acknowledgement means: fsync or os [default: fsync]
    #[arg(long, value_name = "DURABILITY")]
    durability: Option<Durability>,
    /// Discard messages older than this [default: none]
    #[arg(long, value_name = "DURATION", value_parser = retain_age)]
    retain_age: Option<u64>,
    /// Discard the oldest messages beyond so many bytes [default: none]
    #[arg(long, value_name = "SIZE", value_parser = retain_bytes)]
    retain_bytes: Option<u64>,
    /// Discard the oldest messages beyond so many [default: none]
    #[arg(long, value_name = "N", value_parser = retain_records)]
    retain_records: Option<u64>,
    /// Discard messages that every subscription has confirmed
    #[arg(long)]
    retain_interest: bool,
    /// Where bytes or number leave no room: discard-oldest or refuse [default: discard-oldest]
    #[arg(long, value_name = "CHOICE")]
    when_full: Option<WhenFull>,
    /// Remember message ids for so long, to know messages that come again [default: none]
    #[arg(long, value_name = "DURATION", value_parser = remember_for)]
    remember_ids_for: Option<u64>,
    /// Remember at least the last so many message ids [default: 100000 with --remember-ids-for]
    #[arg(long, value_name = "N", value_parser = remember_max)]
    remember_ids_max: Option<u64>,
    /// Keep only the newest message of each key
    #[arg(long)]
    compact: bool,
    /// Keep deletions (a key without a payload) for so long [default: 1d with --compact]
    #[arg(long, value_name = "DURATION", value_parser = tombstone_age)]
    tombstone_age: Option<u64>,
}

impl SettingsFlags {
    /// The settings they make.
    pub fn settings(&self) -> TopicSettings {
        TopicSettings {
            durability: self.durability.unwrap_or_default(),
            retention: Retention {
                age_ms: self.retain_age,
                bytes: self.retain_bytes,
                records: self.retain_records,
                interest: self.retain_interest,
            },
            when_full: self.when_full.unwrap_or_default(),
            ids: RememberIds {
                for_ms: self.remember_ids_for,
                max: self.remember_ids_max,
            },
            compaction: Compaction {
                on: self.compact,
                tombstone_age_ms: self.tombstone_age,
            },
        }
    }
}

/// A setting as `topic options` shows it.
#[derive(Debug, Serialize)]
struct Setting {
    name: &'static str,
    default: &'static str,
    values: &'static str,
    meaning: &'static str,
}

const SETTINGS: &[Setting] = &[
    Setting {
        name: "durability",
        default: "fsync",
        values: "fsync, os",
        meaning: "an acknowledged message is on the disk (fsync) or with the operating system (os)",
    },
    Setting {
        name: "retain-age",
        default: "none",
        values: "1ms or more, none",
        meaning: "messages older than this are discarded",
    },
    Setting {
        name: "retain-bytes",
        default: "none",
        values: "1 or more bytes, none",
        meaning: "the oldest messages beyond so many stored bytes are discarded",
    },
    Setting {
        name: "retain-records",
        default: "none",
        values: "1 or more, none",
        meaning: "the oldest messages beyond so many are discarded",
    },
    Setting {
        name: "retain-interest",
        default: "off",
        values: "on, off",
        meaning: "messages that every subscription has confirmed are discarded; without a subscription all are kept",
    },
    Setting {
        name: "when-full",
        default: "discard-oldest",
        values: "discard-oldest, refuse",
        meaning: "where retain-bytes or retain-records leave no room: discard the oldest, or refuse the new",
    },
    Setting {
        name: "remember-ids-for",
        default: "none",
        values: "1m or more, none",
        meaning: "a message whose id was seen within this time is a duplicate, as far as remember-ids-max goes",
    },
    Setting {
        name: "remember-ids-max",
        default: "none, 100000 with remember-ids-for",
        values: "1 to 1000000, none",
        meaning: "at least the last so many message ids are remembered",
    },
    Setting {
        name: "compact",
        default: "off",
        values: "on, off",
        meaning: "of the messages of a key only the newest is kept; those without a key stay",
    },
    Setting {
        name: "tombstone-age",
        default: "1d",
        values: "1s or more, none",
        meaning: "with compact=on a deletion (a key without a payload) is kept so long; none: as by default",
    },
];

impl Row for &Setting {
    const COLUMNS: &'static [Column] = &[
        left("SETTING"),
        left("DEFAULT"),
        left("VALUES"),
        left("MEANING"),
    ];

    fn name(&self) -> String {
        self.name.to_owned()
    }

    fn cells(&self) -> Vec<String> {
        [self.name, self.default, self.values, self.meaning]
            .map(str::to_owned)
            .to_vec()
    }

    fn card(&self) -> Vec<(&'static str, String)> {
        vec![(self.name, self.meaning.to_owned())]
    }
}

/// One change of a setting.
pub type Change = TopicChanges;

fn at_least_one(value: u64) -> std::result::Result<u64, String> {
    match value {
        0 => Err("0 would keep nothing: 'none' keeps everything, 'topic purge' empties".to_owned()),
        n => Ok(n),
    }
}

fn retain_age(text: &str) -> std::result::Result<u64, String> {
    let age = values::duration(text)?;
    at_least_one(u64::try_from(age.as_millis()).map_err(|e| e.to_string())?)
}

fn retain_bytes(text: &str) -> std::result::Result<u64, String> {
    at_least_one(values::size(text)?)
}

fn retain_records(text: &str) -> std::result::Result<u64, String> {
    let records = text.parse::<u64>();
    at_least_one(records.map_err(|_| "expected a number of messages".to_owned())?)
}

/// On or off; none, which removes bounds, is off.
fn switch(text: &str) -> std::result::Result<bool, String> {
    match text {
        "on" => Ok(true),
        "off" | "none" => Ok(false),
        _ => Err("expected on or off".to_owned()),
    }
}

fn remember_for(text: &str) -> std::result::Result<u64, String> {
    let kept = values::duration(text)?;
    match kept < limits::IDS_REMEMBERED_FOR_MIN {
        true => Err("expected 1m or more: a publisher may try for so long".to_owned()),
        false => u64::try_from(kept.as_millis()).map_err(|e| e.to_string()),
    }
}

fn remember_max(text: &str) -> std::result::Result<u64, String> {
    match text.parse() {
        Ok(count) if (1..=limits::IDS_PER_TOPIC_MAX).contains(&count) => Ok(count),
        _ => Err(format!(
            "expected a number of ids from 1 to {}",
            limits::IDS_PER_TOPIC_MAX
        )),
    }
}

fn tombstone_age(text: &str) -> std::result::Result<u64, String> {
    let kept = values::duration(text)?;
    match kept < limits::TOMBSTONES_KEPT_FOR_MIN {
        true => {
            Err("expected 1s or more: readers have to see a deletion before it goes".to_owned())
        }
        false => u64::try_from(kept.as_millis()).map_err(|e| e.to_string()),
    }
}

/// Parses `SETTING=VALUE`.
pub fn change(text: &str) -> std::result::Result<Change, String> {
    let Some((name, value)) = text.split_once('=') else {
        return Err("expected SETTING=VALUE such as retain-age=7d".to_owned());
    };
    let or_none = |parse: fn(&str) -> std::result::Result<u64, String>| match value {
        "none" => Ok(Some(None)),
        value => parse(value).map(|value| Some(Some(value))),
    };
    let mut change = TopicChanges::default();
    match name {
        "durability" => {
            change.durability = Some(value.parse::<Durability>().map_err(|e| e.to_string())?);
        }
        "retain-age" => change.retain_age_ms = or_none(retain_age)?,
        "retain-bytes" => change.retain_bytes = or_none(retain_bytes)?,
        "retain-records" => change.retain_records = or_none(retain_records)?,
        "retain-interest" => change.retain_interest = Some(switch(value)?),
        "when-full" => {
            change.when_full = Some(value.parse::<WhenFull>().map_err(|e| e.to_string())?);
        }
        "remember-ids-for" => change.remember_ids_for_ms = or_none(remember_for)?,
        "remember-ids-max" => change.remember_ids_max = or_none(remember_max)?,
        "compact" => change.compact = Some(switch(value)?),
        "tombstone-age" => change.tombstone_age_ms = or_none(tombstone_age)?,
        _ => {
            let known: Vec<_> = SETTINGS.iter().map(|setting| setting.name).collect();
            return Err(format!(
                "no such setting: expected one of {}",
                known.join(", ")
            ));
        }
    }
    Ok(change)
}

/// All changes as one; of two for the same setting the last counts.
pub fn merged(changes: &[Change]) -> TopicChanges {
    changes
        .iter()
        .fold(TopicChanges::default(), |all, one| TopicChanges {
            durability: one.durability.or(all.durability),
            retain_age_ms: one.retain_age_ms.or(all.retain_age_ms),
            retain_bytes: one.retain_bytes.or(all.retain_bytes),
            retain_records: one.retain_records.or(all.retain_records),
            retain_interest: one.retain_interest.or(all.retain_interest),
            when_full: one.when_full.or(all.when_full),
            remember_ids_for_ms: one.remember_ids_for_ms.or(all.remember_ids_for_ms),
            remember_ids_max: one.remember_ids_max.or(all.remember_ids_max),
            compact: one.compact.or(all.compact),
            tombstone_age_ms: one.tombstone_age_ms.or(all.tombstone_age_ms),
        })
}

/// Shows every setting.
pub fn options(output: &Output) -> Result {
    let settings: Vec<&Setting> = SETTINGS.iter().collect();
    output.list(&settings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_changed_by_name() {
        let parse = |text| change(text).expect(text);
        assert_eq!(parse("durability=os").durability, Some(Durability::Os));
        assert_eq!(parse("retain-age=1s").retain_age_ms, Some(Some(1000)));
        assert_eq!(parse("retain-bytes=1KiB").retain_bytes, Some(Some(1024)));
        assert_eq!(parse("retain-records=none").retain_records, Some(None));
        assert_eq!(parse("retain-interest=on").retain_interest, Some(true));
        assert_eq!(parse("retain-interest=none").retain_interest, Some(false));
        assert_eq!(parse("when-full=refuse").when_full, Some(WhenFull::Refuse));
        for bad in [
            "durability",
            "durability=none",
            "retain-age=7",
            "retain-bytes=0",
            "retain-records=-1",
            "retain-interest=yes",
            "when-full=none",
            "remember-ids-for=59s",
            "remember-ids-max=0",
            "remember-ids-max=1000001",
            "compact=yes",
            "tombstone-age=999ms",
            "colour=blue",
        ] {
            assert!(change(bad).is_err(), "{bad} was accepted");
        }
        let all = merged(&[
            parse("retain-age=1s"),
            parse("retain-age=none"),
            parse("durability=os"),
        ]);
        assert_eq!(all.retain_age_ms, Some(None));
        assert_eq!(all.durability, Some(Durability::Os));
        assert_eq!(all.retain_bytes, None);
    }
}
