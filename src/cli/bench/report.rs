//! What a measurement found, as a table and as JSON.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::cli::fail::Result;
use crate::cli::output::{self, Output};

/// Longest latency that is told apart, in microseconds.
const LATENCY_US_MAX: u64 = 600_000_000;

/// Latencies in microseconds, with three significant digits.
#[derive(Debug, Clone)]
pub struct Latencies(Histogram<u64>);

impl Latencies {
    /// None yet.
    pub fn new() -> Self {
        let bounds = Histogram::new_with_bounds(1, LATENCY_US_MAX, 3);
        Self(bounds.expect("the bounds are in order"))
    }

    /// Adds one.
    pub fn record(&mut self, latency: Duration) {
        self.record_many(latency, 1);
    }

    /// Adds the same one so many times.
    pub fn record_many(&mut self, latency: Duration, count: u64) {
        let us = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.0.saturating_record_n(us.max(1), count);
    }

    /// Adds those of another one.
    pub fn add(&mut self, other: &Self) {
        self.0.add(&other.0).expect("all have the same bounds");
    }

    /// Its percentiles.
    pub fn summary(&self) -> LatencySummary {
        LatencySummary {
            p50: self.0.value_at_quantile(0.5),
            p99: self.0.value_at_quantile(0.99),
            p999: self.0.value_at_quantile(0.999),
            max: self.0.max(),
        }
    }
}

/// Percentiles in microseconds.
#[derive(Debug, Serialize)]
pub struct LatencySummary {
    /// Half of all took at most this.
    pub p50: u64,
    /// 99 of 100.
    pub p99: u64,
    /// 999 of 1,000.
    pub p999: u64,
    /// All.
    pub max: u64,
}

impl LatencySummary {
    /// Its lines of a table.
    pub fn lines(&self) -> [(&'static str, String); 4] {
        let us = |n: u64| output::number(n) + " µs";
        [
            ("  p50", us(self.p50)),
            ("  p99", us(self.p99)),
            ("  p99.9", us(self.p999)),
            ("  max", us(self.max)),
        ]
    }
}

/// How many there were in a second, to one decimal.
pub fn per_second(count: u64, elapsed: Duration) -> f64 {
    let rate = count as f64 / elapsed.as_secs_f64().max(1e-9);
    (rate * 10.0).round() / 10.0
}

/// Seconds, to the microsecond.
pub fn seconds(length: Duration) -> f64 {
    length.as_micros() as f64 / 1e6
}

/// What the servers used during the measurement, all together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct ServerUse {
    /// Most resident memory seen, in bytes.
    pub rss_bytes_max: u64,
    /// Processor time, in seconds.
    pub cpu_seconds: f64,
    /// Bytes written to the disk for each byte of the payloads that were acknowledged meanwhile; `null` if nothing was.
    pub disk_bytes_per_payload_byte: Option<f64>,
    /// How often a journal was synced.
    pub syncs: u64,
    /// How long one sync took on average, in microseconds; `null` if there was none.
    pub sync_us_mean: Option<f64>,
    /// Half of them took at most so many microseconds, as exactly as the server counts them; `null` if there was none.
    pub sync_us_p50: Option<u64>,
    /// 99 of 100, likewise; also `null` where it took longer than the server tells apart.
    pub sync_us_p99: Option<u64>,
}

impl ServerUse {
    /// Its lines of a table.
    pub fn lines(&self) -> Vec<(&'static str, String)> {
        let memory = output::bytes(self.rss_bytes_max);
        let mut lines = vec![(
            "servers",
            format!(
                "{memory} of memory at most, {:.1} s of processor time",
                self.cpu_seconds
            ),
        )];
        if let Some(ratio) = self.disk_bytes_per_payload_byte {
            lines.push((
                "disk",
                format!("{ratio:.2} bytes written for each byte of payload"),
            ));
        }
        if let Some(mean) = self.sync_us_mean {
            let (syncs, mean) = (output::number(self.syncs), output::number(mean as u64));
            let mut told = format!("{syncs}, {mean} µs each on average");
            for (share, micros) in [("half", self.sync_us_p50), ("99 %", self.sync_us_p99)] {
                if let Some(micros) = micros {
                    told += &format!(", {share} within {}", output::number(micros));
                }
            }
            lines.push(("syncs", told));
        }
        lines
    }
}

/// What reading everything back found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Acknowledged and not there.
    pub lost: u64,
    /// There more than once.
    pub duplicated: u64,
    /// There after a later one of the same publisher and topic.
    pub out_of_order: u64,
}

impl Verdict {
    /// Whether nothing is wrong.
    pub fn is_clean(&self) -> bool {
        *self == Self::default()
    }
}

/// What was measured.
#[derive(Debug)]
pub struct Measured {
    /// How long it took.
    pub elapsed: Duration,
    /// Records sent or read.
    pub records: u64,
    /// Payload bytes of those.
    pub bytes: u64,
    /// Records acknowledged.
    pub acknowledged: u64,
    /// Latencies of what was measured.
    pub latencies: Latencies,
    /// What latency means here.
    pub latency_of: &'static str,
    /// What the servers used.
    pub server: ServerUse,
    /// What reading back found, if it was asked for.
    pub verdict: Option<Verdict>,
}

#[derive(Debug, Serialize)]
struct Report {
    records_per_second: f64,
    bytes_per_second: f64,
    latency_us: LatencySummary,
    records: u64,
    acknowledged: u64,
    lost: Option<u64>,
    duplicated: Option<u64>,
    out_of_order: Option<u64>,
    server: ServerUse,
}

impl Measured {
    fn report(&self) -> Report {
        Report {
            records_per_second: per_second(self.records, self.elapsed),
            bytes_per_second: per_second(self.bytes, self.elapsed),
            latency_us: self.latencies.summary(),
            records: self.records,
            acknowledged: self.acknowledged,
            lost: self.verdict.map(|verdict| verdict.lost),
            duplicated: self.verdict.map(|verdict| verdict.duplicated),
            out_of_order: self.verdict.map(|verdict| verdict.out_of_order),
            server: self.server,
        }
    }

    /// Prints it.
    pub fn print(&self, output: &Output) -> Result {
        let report = self.report();
        output.value(&report, &output::card(&self.lines(&report)))
    }

    fn lines(&self, report: &Report) -> Vec<(&'static str, String)> {
        let rate = output::number(report.records_per_second as u64);
        let payload = output::bytes(report.bytes_per_second as u64);
        let mut lines = vec![
            ("records", format!("{rate}/s")),
            ("payload", format!("{payload}/s")),
            ("latency of", self.latency_of.to_owned()),
        ];
        lines.extend(report.latency_us.lines());
        let total = format!(
            "{} records in {}, {} acknowledged",
            output::number(report.records),
            output::duration(self.elapsed),
            output::number(report.acknowledged)
        );
        lines.push(("total", total));
        lines.extend(report.server.lines());
        if let Some(verdict) = &self.verdict {
            lines.push((
                "verified",
                match verdict.is_clean() {
                    true => "everything acknowledged is there, once and in order".to_owned(),
                    false => format!(
                        "{} LOST, {} DUPLICATED, {} OUT OF ORDER",
                        verdict.lost, verdict.duplicated, verdict.out_of_order
                    ),
                },
            ));
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_json_has_the_promised_fields() {
        let mut latencies = Latencies::new();
        for ms in 1..=100 {
            latencies.record(Duration::from_millis(ms));
        }
        let measured = Measured {
            elapsed: Duration::from_secs(2),
            records: 200,
            bytes: 20_000,
            acknowledged: 200,
            latencies,
            latency_of: "a publish",
            server: ServerUse::default(),
            verdict: None,
        };
        let json = serde_json::to_value(measured.report()).expect("encodes");
        assert_eq!(json["records_per_second"], 100.0);
        assert_eq!(json["bytes_per_second"], 10_000.0);
        assert!(json["lost"].is_null() && json["duplicated"].is_null());
        let p50 = json["latency_us"]["p50"].as_u64().expect("a number");
        assert!((49_900..50_100).contains(&p50), "{p50}");
        for field in [
            "rss_bytes_max",
            "cpu_seconds",
            "disk_bytes_per_payload_byte",
            "syncs",
            "sync_us_mean",
            "sync_us_p50",
            "sync_us_p99",
        ] {
            assert!(json["server"].get(field).is_some(), "{field} is missing");
        }
    }
}
