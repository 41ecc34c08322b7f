//! What was measured, as tables and as JSON: medians over the rounds, and ratios.

use std::fmt::Display;

use comfy_table::{Table, presets};
use serde::Serialize;

use crate::limits::{Limits, Rounds};
use crate::shares::{Share, Shares, Wait};
use crate::systems::System;
use crate::work::{Kind, Work};

/// One measurement.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Measured {
    /// Records per second.
    pub records_per_second: f64,
    /// Milliseconds: of an acknowledgement, or end to end.
    pub p50_ms: Option<f64>,
    /// The same, 99th percentile.
    pub p99_ms: Option<f64>,
    /// Resident memory of the server, the most that was seen, in MiB.
    pub rss_mib: f64,
    /// Processor time of the server for one record, in microseconds.
    pub cpu_us_per_record: Option<f64>,
    /// Bytes the server made the kernel write, for each byte of payload.
    pub written_per_payload_byte: Option<f64>,
    /// Bytes the server made the kernel read from disks, for each byte of payload.
    pub read_per_payload_byte: Option<f64>,
    /// Bytes of disk the directory took at the end, for each byte of payload.
    pub disk_per_payload_byte: Option<f64>,
}

/// All rounds of one system at one work.
#[derive(Debug, Serialize)]
pub struct Row {
    /// The system, as on the command line.
    pub system: String,
    /// What came of each; `None` if it failed.
    pub rounds: Vec<Option<Measured>>,
    /// The medians, each by itself.
    pub median: Option<Measured>,
    /// Better than the best of the others by so much: records per second, or 1 / p50 end to end.
    pub ratio: Option<f64>,
    /// The same.
    #[serde(skip)]
    pub of: System,
}

/// One table.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The work, as on the command line.
    pub work: String,
    /// What it is.
    pub title: String,
    /// One row a system.
    pub systems: Vec<Row>,
    /// The shape of the work.
    #[serde(skip)]
    pub of: Work,
}

/// Everything, as JSON.
#[derive(Debug, Serialize)]
pub struct Document<'a> {
    /// What was measured with what.
    pub versions: &'a [String],
    /// How many rounds.
    pub rounds: u32,
    /// Seconds of a measurement.
    pub seconds: f64,
    /// One a work.
    pub works: &'a [Report],
    /// What the machine does at best.
    pub limits: &'a Rounds,
    /// What part of that ours reach.
    pub shares: &'a [Shares],
}

/// The middle of an odd number of values, the mean of the two in the middle of an even number.
pub fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let (low, high) = (values.len().checked_sub(1)? / 2, values.len() / 2);
    Some(f64::midpoint(values[low], values[high]))
}

impl Row {
    /// From what came of each round.
    pub fn new(system: System, rounds: Vec<Option<Measured>>) -> Self {
        let good: Vec<&Measured> = rounds.iter().flatten().collect();
        let of = |get: &dyn Fn(&Measured) -> Option<f64>| {
            median(good.iter().filter_map(|one| get(one)).collect())
        };
        let middle = (!good.is_empty()).then(|| Measured {
            records_per_second: of(&|one| Some(one.records_per_second)).unwrap_or_default(),
            p50_ms: of(&|one| one.p50_ms),
            p99_ms: of(&|one| one.p99_ms),
            rss_mib: of(&|one| Some(one.rss_mib)).unwrap_or_default(),
            cpu_us_per_record: of(&|one| one.cpu_us_per_record),
            written_per_payload_byte: of(&|one| one.written_per_payload_byte),
            read_per_payload_byte: of(&|one| one.read_per_payload_byte),
            disk_per_payload_byte: of(&|one| one.disk_per_payload_byte),
        });
        Self {
            system: system.key(),
            of: system,
            median: middle,
            rounds,
            ratio: None,
        }
    }

    /// More is better.
    fn score(&self, kind: Kind) -> Option<f64> {
        let median = self.median.as_ref()?;
        match kind {
            Kind::Latency => median.p50_ms.map(|p50| 1.0 / p50),
            Kind::Publish | Kind::Read => Some(median.records_per_second),
        }
    }

    fn range(&self) -> String {
        let rates = self
            .rounds
            .iter()
            .flatten()
            .map(|one| one.records_per_second);
        let (low, high) = rates.fold((f64::MAX, 0.0_f64), |(low, high), rate| {
            (low.min(rate), high.max(rate))
        });
        format!("{} – {}", grouped(low), grouped(high))
    }

    fn cells(&self) -> Vec<String> {
        let ratio = self.ratio.map(|ratio| format!("{ratio:.2}"));
        let Some(median) = &self.median else {
            return vec![self.system.clone(), "failed".to_owned()];
        };
        let both = median.p50_ms.zip(median.p99_ms);
        vec![
            self.system.clone(),
            grouped(median.records_per_second),
            self.range(),
            or_dash(ratio),
            or_dash(both.map(|(p50, p99)| format!("{p50:.2} / {p99:.2}"))),
            format!("{:.0}", median.rss_mib),
            or_dash(
                median
                    .cpu_us_per_record
                    .map(|micros| format!("{micros:.2}")),
            ),
            or_dash(
                median
                    .written_per_payload_byte
                    .map(|bytes| format!("{bytes:.2}")),
            ),
            or_dash(
                median
                    .disk_per_payload_byte
                    .map(|bytes| format!("{bytes:.2}")),
            ),
        ]
    }
}

impl Report {
    /// Works the ratios out.
    pub fn new(work: &Work, mut systems: Vec<Row>) -> Self {
        let others = systems.iter().filter(|row| !row.of.is_ours());
        let best = others
            .filter_map(|row| row.score(work.kind))
            .reduce(f64::max);
        for row in &mut systems {
            row.ratio = row.score(work.kind).zip(best).map(|(own, best)| own / best);
        }
        Self {
            work: work.key(),
            title: work.title(),
            systems,
            of: *work,
        }
    }

    /// The table, for people.
    pub fn table(&self) -> String {
        let (latency, ratio) = match self.of.kind {
            Kind::Latency => ("end to end p50 / p99 ms", "x best other (p50)"),
            _ => ("ack p50 / p99 ms", "x best other"),
        };
        let mut table = new_table(&[
            "system",
            "records/s",
            "lowest – highest",
            ratio,
            latency,
            "rss MiB",
            "server cpu µs/record",
            "written/payload",
            "on disk/payload",
        ]);
        for row in &self.systems {
            table.add_row(row.cells());
        }
        format!("{} ({})\n\n{table}\n", self.title, self.work)
    }
}

/// The table of shares, for people.
pub fn shares_table(limits: &Limits, shares: &[Shares]) -> String {
    let mut table = new_table(&[
        "work",
        "system",
        "payload GB/s (of the loopback)",
        "written GB/s (of the disk)",
        "read GB/s (of the disk)",
        "server cores (of all)",
        "sync + round trip, at best (reached)",
    ]);
    for one in shares {
        table.add_row(share_cells(one));
    }
    format!("Share of the limits\n\n{}\n\n{table}\n", told(limits))
}

fn share_cells(one: &Shares) -> Vec<String> {
    let giga = |share: Share| percent(format!("{:.3}", share.amount / 1e9), share.share);
    let cores = |share: Share| percent(format!("{:.2}", share.amount), share.share);
    let lone = |wait: Wait| {
        let best = format!("{} records/s", grouped(wait.best));
        percent(best, wait.share)
    };
    let latency = |wait: Wait| percent(format!("{:.2} ms", wait.best), wait.share);
    let wait = one.lone_records_per_second.map(lone);
    vec![
        one.work.clone(),
        one.system.clone(),
        giga(one.payload_bytes_per_second),
        or_dash(one.written_bytes_per_second.map(giga)),
        or_dash(one.read_bytes_per_second.map(giga)),
        or_dash(one.cores.map(cores)),
        or_dash(wait.or(one.latency_ms.map(latency))),
    ]
}

fn percent(text: String, share: f64) -> String {
    format!("{text} ({:.1} %)", share * 100.0)
}

/// One line that tells the limits.
pub fn told(limits: &Limits) -> String {
    format!(
        "loopback {:.2} GB/s, round trip {:.0} µs; 4 KiB and fdatasync {:.0} µs, 1 MiB and fdatasync {:.2} GB/s, \
         reading {:.2} GB/s; {:.0} cores",
        limits.loopback_bytes_per_second / 1e9,
        limits.round_trip_us,
        limits.sync_us,
        limits.write_bytes_per_second / 1e9,
        limits.read_bytes_per_second / 1e9,
        limits.cores,
    )
}

fn new_table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header(header.iter().copied());
    table
}

fn or_dash(text: Option<impl Display>) -> String {
    text.map_or_else(|| "-".to_owned(), |text| text.to_string())
}

/// A whole number with its thousands apart.
pub fn grouped(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::work::Name;

    fn row(system: System, rates: &[f64]) -> Row {
        let rounds = rates.iter().map(|rate| {
            Some(Measured {
                records_per_second: *rate,
                p50_ms: Some(1000.0 / rate),
                ..Measured::default()
            })
        });
        Row::new(system, rounds.collect())
    }

    #[test]
    fn the_best_other_is_the_measure() {
        for name in [Name::Publish100, Name::Latency] {
            let rows = vec![
                row(System::RedisAlways, &[100.0, 300.0, 200.0]),
                row(System::Nats, &[400.0, 50.0, 40.0]),
                row(System::Tidings, &[1000.0]),
                Row::new(System::TidingsOs, vec![None]),
            ];
            let report = Report::new(&Work::new(name, 10), rows);
            let ratios: Vec<Option<f64>> = report.systems.iter().map(|row| row.ratio).collect();
            assert_eq!(ratios, [Some(1.0), Some(0.25), Some(5.0), None]);
            assert!(report.table().contains("failed"));
        }
    }

    #[test]
    fn a_share_is_told_with_what_it_is_of() {
        let limits = Limits {
            cores: 2.0,
            loopback_bytes_per_second: 2.5e9,
            round_trip_us: 100.0,
            sync_us: 150.0,
            write_bytes_per_second: 1e9,
            read_bytes_per_second: 4e9,
        };
        let median = Measured {
            records_per_second: 16_000.0,
            cpu_us_per_record: Some(50.0),
            written_per_payload_byte: Some(12.5),
            ..Measured::default()
        };
        let work = Work::new(Name::Lone8, 10);
        let shares = Shares::new(&work, System::Tidings, &median, &limits);
        assert_eq!(
            share_cells(&shares),
            [
                "lone-8",
                "tidings",
                "0.002 (0.1 %)",
                "0.020 (2.0 %)",
                "-",
                "0.80 (40.0 %)",
                "4,000 records/s (50.0 %)"
            ]
        );
        let table = shares_table(&limits, &[shares]);
        assert!(table.contains("round trip 100 µs; 4 KiB and fdatasync 150 µs"));
    }

    #[test]
    fn medians_and_thousands() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 9.0]), Some(3.0));
        assert_eq!(grouped(1_234_567.4), "1,234,567");
        assert_eq!(grouped(123.0), "123");
    }
}
