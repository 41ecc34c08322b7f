//! `tidings peer info --metrics`: everything a peer counts, one series a row.

use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::cli::Context;
use crate::cli::fail::{Failure, Result};
use crate::cli::output::{self, Column, Row, left, right};
use crate::figures::amount;
use crate::protocol::api::{MetricFamily, MetricKind, MetricSample, PeerInfo};
use crate::types::PeerName;

/// One series.
#[derive(Debug, Serialize)]
struct Series {
    name: String,
    #[serde(rename = "type")]
    kind: MetricKind,
    labels: Map<String, Value>,
    /// `value`, or `count`, `sum` and `buckets` of a histogram.
    #[serde(flatten)]
    value: Map<String, Value>,
    #[serde(skip)]
    text: String,
}

impl Series {
    fn new(family: &MetricFamily, sample: &MetricSample) -> Self {
        let labels = family.labels.iter().zip(&sample.labels);
        let (value, text) = match family.kind {
            MetricKind::Histogram => (histogram(family, sample), histogram_text(family, sample)),
            MetricKind::Counter | MetricKind::Gauge => {
                let value = in_unit(sample.value, family.ticks);
                let value = Map::from_iter([("value".to_owned(), value)]);
                (value, number_text(&family.name, sample.value, family.ticks))
            }
        };
        Self {
            name: family.name.clone(),
            kind: family.kind,
            labels: labels
                .map(|(name, value)| (name.clone(), value.clone().into()))
                .collect(),
            value,
            text,
        }
    }

    fn labels_text(&self) -> String {
        let labels = self.labels.iter();
        // Without the quotes of JSON.
        let labels = labels.map(|(name, value)| format!("{name}={}", value.as_str().unwrap_or("")));
        labels.collect::<Vec<_>>().join(",")
    }
}

impl Row for Series {
    const COLUMNS: &'static [Column] = &[left("METRIC"), left("LABELS"), right("VALUE")];

    fn name(&self) -> String {
        let labels = self.labels.iter();
        let labels: Vec<_> = labels
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        match labels.is_empty() {
            true => self.name.clone(),
            false => format!("{}{{{}}}", self.name, labels.join(",")),
        }
    }

    fn cells(&self) -> Vec<String> {
        vec![self.name.clone(), self.labels_text(), self.text.clone()]
    }

    fn card(&self) -> Vec<(&'static str, String)> {
        vec![("metric", self.name()), ("value", self.text.clone())]
    }
}

/// Shows what a peer counts: the one of that name, or the only one.
pub async fn show(name: Option<PeerName>, context: &Context) -> Result {
    let name = match name {
        Some(name) => name,
        None => only(&context.client.list_peers().await?)?,
    };
    let families = context.client.metrics(&name).await?;
    let series = families.iter().flat_map(|family| {
        let samples = family.samples.iter();
        samples.map(move |sample| Series::new(family, sample))
    });
    context.output.list(&series.collect::<Vec<_>>())
}

fn only(peers: &[PeerInfo]) -> Result<PeerName> {
    match peers {
        [] => Err(Failure::check("there are no peers").hint("'tidings serve peer' starts one")),
        [peer] => Ok(peer.name.clone()),
        peers => Err(Failure::usage(format!(
            "there are {} peers, {} among them: name the one you mean",
            peers.len(),
            peers[0].name
        ))
        .hint("'tidings peer ls' lists them")),
    }
}

/// A number in its unit: whole where it is counted in whole ones.
fn in_unit(number: u64, ticks: u64) -> Value {
    match ticks {
        0 | 1 => json!(number),
        ticks => json!(number as f64 / ticks as f64),
    }
}

/// As Prometheus has it: each class counts all up to its bound.
fn histogram(family: &MetricFamily, sample: &MetricSample) -> Map<String, Value> {
    let mut count = 0;
    let buckets: Vec<Value> = sample
        .classes
        .iter()
        .enumerate()
        .map(|(class, more)| {
            count += more;
            let bound = family.bounds.get(class);
            let bound = bound.map_or(json!("+Inf"), |&bound| in_unit(bound, family.ticks));
            json!({ "le": bound, "count": count })
        })
        .collect();
    Map::from_iter([
        ("count".to_owned(), json!(count)),
        ("sum".to_owned(), in_unit(sample.value, family.ticks)),
        ("buckets".to_owned(), buckets.into()),
    ])
}

fn number_text(name: &str, number: u64, ticks: u64) -> String {
    if ticks > 1 {
        format!("{} s", amount(number, ticks))
    } else if is_bytes(name) {
        output::bytes(number)
    } else {
        output::number(number)
    }
}

fn is_bytes(name: &str) -> bool {
    name.contains("_bytes")
}

/// How many, how large on average, and below what nearly all of them are.
fn histogram_text(family: &MetricFamily, sample: &MetricSample) -> String {
    let count: u64 = sample.classes.iter().sum();
    if count == 0 {
        return "none".to_owned();
    }
    let mean = match value_text(family, sample.value / count) {
        whole if family.ticks == 1 && !is_bytes(&family.name) => {
            let tenths = sample.value.saturating_mul(10) / count;
            format!("{whole}.{}", tenths % 10)
        }
        text => text,
    };
    let mut below = 0;
    let class = sample.classes.iter().position(|more| {
        below += more;
        // In 99 of 100, without a product that could be too large.
        below >= count - count / 100
    });
    let most = match class.and_then(|class| family.bounds.get(class)) {
        Some(&bound) => format!("p99 up to {}", value_text(family, bound)),
        None => "p99 above all classes".to_owned(),
    };
    format!("{} x, mean {mean}, {most}", output::number(count))
}

fn value_text(family: &MetricFamily, value: u64) -> String {
    match family.ticks {
        1_000_000 => micros(value),
        _ if is_bytes(&family.name) => output::bytes(value),
        _ => output::number(value),
    }
}

fn micros(micros: u64) -> String {
    match micros {
        0..1_000 => format!("{micros}µs"),
        1_000..1_000_000 => format!("{}ms", amount(micros / 100 * 100, 1_000)),
        _ => format!("{}s", amount(micros / 100_000 * 100_000, 1_000_000)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn family(name: &str, kind: MetricKind) -> MetricFamily {
        MetricFamily {
            name: name.to_owned(),
            kind,
            help: String::new(),
            ticks: 1_000_000,
            labels: vec!["topic".to_owned()],
            bounds: vec![500, 2_500_000],
            samples: Vec::new(),
        }
    }

    fn sample(value: u64, classes: &[u64]) -> MetricSample {
        MetricSample {
            labels: vec!["a".to_owned()],
            value,
            classes: classes.to_vec(),
        }
    }

    #[test]
    fn a_histogram_is_told_in_few_words() {
        let family = family("x_seconds", MetricKind::Histogram);
        let text = |classes: &[u64]| Series::new(&family, &sample(1_234_567, classes)).text;
        assert_eq!(text(&[99, 1, 0]), "100 x, mean 12.3ms, p99 up to 500µs");
        assert_eq!(text(&[9, 1, 0]), "10 x, mean 123.4ms, p99 up to 2.5s");
        assert_eq!(text(&[0, 0, 1]), "1 x, mean 1.2s, p99 above all classes");
        assert_eq!(text(&[0, 0, 0]), "none");
    }

    #[test]
    fn programs_get_numbers_in_base_units() {
        let histogram = family("x_seconds", MetricKind::Histogram);
        let series = Series::new(&histogram, &sample(1_500, &[2, 0, 1]));
        let told = serde_json::to_value(&series).expect("plain data");
        let buckets = json!([
            {"le": 0.0005, "count": 2}, {"le": 2.5, "count": 2}, {"le": "+Inf", "count": 3},
        ]);
        let expected = json!({
            "name": "x_seconds", "type": "histogram", "labels": {"topic": "a"},
            "count": 3, "sum": 0.0015, "buckets": buckets,
        });
        assert_eq!(told, expected);
        assert_eq!(series.name(), "x_seconds{topic=\"a\"}");
        let counter = MetricFamily {
            ticks: 1,
            ..family("x_bytes_total", MetricKind::Counter)
        };
        let series = Series::new(&counter, &sample(2_048, &[]));
        let told = serde_json::to_value(&series).expect("plain data");
        assert_eq!(told["value"], 2_048);
        assert_eq!(series.cells()[2], "2 KiB");
    }
}
