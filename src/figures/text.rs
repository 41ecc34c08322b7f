//! The text format of Prometheus, version 0.0.4.
//!
//! ```text
//!   # HELP name meaning
//!   # TYPE name counter
//!   name{label="value"} 12
//! ```
//!
//! A class of a histogram counts all values up to its bound: `name_bucket{le="0.5"}`.

use std::fmt::Write;

use super::catalogue::Metric;
use super::sample::{Collected, Family, Label, Value};

/// What the text is, to whoever asks over HTTP.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

impl Collected {
    /// All of it as text.
    pub fn to_text(&self) -> String {
        let mut out = String::new();
        for family in self.families() {
            write_family(&mut out, family);
        }
        out
    }
}

fn write_family(out: &mut String, family: &Family) {
    let metric = family.metric;
    let (name, kind) = (metric.name, metric.kind.name());
    out.push_str("# HELP ");
    out.push_str(name);
    out.push(' ');
    escape(out, metric.help, false);
    let _ = write!(out, "\n# TYPE {name} {kind}\n");
    for sample in &family.samples {
        match &sample.value {
            Value::Number(number) => {
                let told = amount(*number, metric.unit.ticks());
                write_line(out, (name, ""), (&sample.labels, None), &told);
            }
            Value::Histogram { counts, sum } => {
                write_classes(out, metric, &sample.labels, (counts, *sum));
            }
        }
    }
}

fn write_classes(
    out: &mut String,
    metric: &Metric,
    labels: &[Label],
    (counts, sum): (&[u64], u64),
) {
    let ticks = metric.unit.ticks();
    let mut count = 0;
    for (class, more) in counts.iter().enumerate() {
        count += more;
        let bound = metric
            .bounds()
            .get(class)
            .map_or_else(|| "+Inf".to_owned(), |bound| amount(*bound, ticks));
        let labels = (labels, Some(bound.as_str()));
        write_line(out, (metric.name, "_bucket"), labels, &count.to_string());
    }
    let plain = (labels, None);
    write_line(out, (metric.name, "_sum"), plain, &amount(sum, ticks));
    write_line(out, (metric.name, "_count"), plain, &count.to_string());
}

fn write_line(
    out: &mut String,
    (name, suffix): (&str, &str),
    (labels, bound): (&[Label], Option<&str>),
    value: &str,
) {
    out.push_str(name);
    out.push_str(suffix);
    let own = labels.iter().map(|(name, value)| (*name, &**value));
    let mut before = '{';
    for (label, value) in own.chain(bound.map(|bound| ("le", bound))) {
        out.push(before);
        out.push_str(label);
        out.push_str("=\"");
        escape(out, value, true);
        out.push('"');
        before = ',';
    }
    if before == ',' {
        out.push('}');
    }
    out.push(' ');
    out.push_str(value);
    out.push('\n');
}

/// Quotes are escaped in labels only.
fn escape(out: &mut String, text: &str, quotes: bool) {
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '"' if quotes => out.push_str("\\\""),
            c => out.push(c),
        }
    }
}

/// A number of ticks in the unit they are of, exactly: `1500` of a million to one are `0.0015`.
pub fn amount(number: u64, ticks: u64) -> String {
    let (whole, rest) = (number / ticks, number % ticks);
    if rest == 0 {
        return whole.to_string();
    }
    let digits = ticks.ilog10() as usize;
    let text = format!("{whole}.{rest:0digits$}");
    text.trim_end_matches('0').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::catalogue::{LAG, SYNC, TOPIC_END};

    #[test]
    fn amounts_are_exact() {
        for (micros, told) in [
            (0, "0"),
            (1, "0.000001"),
            (1_500, "0.0015"),
            (60_000_000, "60"),
            (1_000_001, "1.000001"),
            (u64::MAX, "18446744073709.551615"),
        ] {
            assert_eq!(amount(micros, 1_000_000), told);
        }
        assert_eq!(amount(7, 1), "7");
    }

    #[test]
    fn labels_are_escaped() {
        let mut collected = Collected::default();
        let hostile = "a\"b\\c\nd} 7";
        collected
            .family(&LAG)
            .number([hostile.into(), "größe".into()], 3);
        assert_eq!(
            collected.to_text(),
            "# HELP tidings_subscription_lag_records Records between what was committed and the end\n\
             # TYPE tidings_subscription_lag_records gauge\n\
             tidings_subscription_lag_records{topic=\"a\\\"b\\\\c\\nd} 7\",subscription=\"größe\"} 3\n"
        );
    }

    #[test]
    fn classes_add_up_and_families_stay_together() {
        let mut first = Collected::default();
        let above = SYNC.bounds().len();
        let mut counts = vec![0; above + 1];
        (counts[0], counts[2], counts[above]) = (2, 1, 1);
        let sum = 70_000_300;
        first
            .family(&SYNC)
            .add([], Value::Histogram { counts, sum });
        first.family(&TOPIC_END).number(["a".into()], 1);
        let mut second = Collected::default();
        second.family(&TOPIC_END).number(["b".into()], 2);
        second.merge(first);
        let text = second.to_text();
        for line in [
            "tidings_journal_sync_seconds_bucket{le=\"0.00005\"} 2\n",
            "tidings_journal_sync_seconds_bucket{le=\"0.0002\"} 3\n",
            "tidings_journal_sync_seconds_bucket{le=\"60\"} 3\n",
            "tidings_journal_sync_seconds_bucket{le=\"+Inf\"} 4\n",
            "tidings_journal_sync_seconds_sum 70.0003\n",
            "tidings_journal_sync_seconds_count 4\n",
            "# TYPE tidings_topic_end_offset gauge\ntidings_topic_end_offset{topic=\"b\"} 2\ntidings_topic_end_offset{topic=\"a\"} 1\n",
        ] {
            assert!(text.contains(line), "{line} is not in {text}");
        }
        assert_eq!(text.matches("# TYPE").count(), 2);
    }
}
