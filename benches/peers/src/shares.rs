//! What part of the limits of the machine a figure of ours reaches. Arithmetic, nothing else.
//!
//! | | amount | limit |
//! |---|---|---|
//! | payload | records/s x size; end to end twice, since it comes and goes | one connection over the loopback |
//! | written | records/s x size x bytes the server wrote for each byte of payload | 1 MiB and its fdatasync, one after the other |
//! | read | records/s x size x bytes the server read from the disk for each byte of payload | 1 MiB after the other |
//! | cores | records/s x processor time of the server for one record | all of the machine's |
//! | lone | records/s of a publisher that waits for each acknowledgement | one in the time of a sync and a round trip |
//! | end to end | a sync and a round trip; where nobody waits for the disk, a round trip | (the p50 is what it is a share of) |
//!
//! 1. No share says that the rest can be had: clients have the same cores and the same loopback, and
//!    who uses all of one limit cannot use all of another.
//! 2. A share may be above 1 where the limit was measured in a simpler way than the server works: it has
//!    several connections, writes pieces larger than 1 MiB, and reads while others wait.

use serde::Serialize;

use crate::limits::Limits;
use crate::report::{Measured, Report};
use crate::systems::System;
use crate::work::{Kind, Work};

/// So much, and what part of the limit that is.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Share {
    /// In the unit that the field is named after.
    pub amount: f64,
    /// 1: all of it.
    pub share: f64,
}

impl Share {
    fn of(amount: f64, limit: f64) -> Self {
        Self {
            amount,
            share: amount / limit,
        }
    }
}

/// One system of ours at one work. `None` where a limit does not apply, or nothing was measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Shares {
    /// The work, as on the command line.
    pub work: String,
    /// The system, as on the command line.
    pub system: String,
    /// Payload over the loopback.
    pub payload_bytes_per_second: Share,
    /// Written to the disk by the server, publishing and end to end.
    pub written_bytes_per_second: Option<Share>,
    /// Read from the disk by the server, catching up.
    pub read_bytes_per_second: Option<Share>,
    /// Cores the server keeps busy.
    pub cores: Option<Share>,
    /// Records of one publisher with 1 in flight.
    pub lone_records_per_second: Option<Wait>,
    /// Milliseconds from the moment a message was due until its reader has it, p50.
    pub latency_ms: Option<Wait>,
}

/// Where one waits for the other, and nothing but time is used.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Wait {
    /// What a sync and a round trip allow.
    pub best: f64,
    /// How near the measured value comes: 1 is the best.
    pub share: f64,
}

impl Shares {
    /// From the medians of a system.
    pub fn new(work: &Work, system: System, median: &Measured, limits: &Limits) -> Self {
        let rate = median.records_per_second;
        let payload = rate * work.size as f64;
        let directions = if work.kind == Kind::Latency { 2.0 } else { 1.0 };
        let written = median.written_per_payload_byte;
        let read = median.read_per_payload_byte;
        let is_read = work.kind == Kind::Read;
        let busy = median.cpu_us_per_record.map(|micros| rate * micros / 1e6);
        Self {
            work: work.key(),
            system: system.key(),
            payload_bytes_per_second: Share::of(
                payload * directions,
                limits.loopback_bytes_per_second,
            ),
            written_bytes_per_second: written
                .filter(|_| !is_read)
                .map(|bytes| Share::of(payload * bytes, limits.write_bytes_per_second)),
            read_bytes_per_second: read
                .filter(|_| is_read)
                .map(|bytes| Share::of(payload * bytes, limits.read_bytes_per_second)),
            cores: busy.map(|busy| Share::of(busy, limits.cores)),
            lone_records_per_second: lone(work, rate, limits),
            latency_ms: latency(work, system, median, limits),
        }
    }
}

fn lone(work: &Work, rate: f64, limits: &Limits) -> Option<Wait> {
    let waits = work.kind == Kind::Publish && work.in_flight == 1;
    let best = 1e6 / (limits.sync_us + limits.round_trip_us);
    waits.then(|| Wait {
        best,
        share: rate / f64::from(work.publishers) / best,
    })
}

fn latency(work: &Work, system: System, median: &Measured, limits: &Limits) -> Option<Wait> {
    let p50 = median.p50_ms.filter(|_| work.kind == Kind::Latency)?;
    let sync_us = match system {
        System::TidingsOs => 0.0,
        _ => limits.sync_us,
    };
    let best = (sync_us + limits.round_trip_us) / 1e3;
    Some(Wait {
        best,
        share: best / p50,
    })
}

/// Those of all systems of ours, in the order of the tables. What failed has none.
pub fn of_ours(reports: &[Report], limits: &Limits) -> Vec<Shares> {
    let of = |report: &Report| {
        let ours = report.systems.iter().filter(|row| row.of.is_ours());
        let shares = ours.filter_map(|row| {
            let median = row.median.as_ref()?;
            Some(Shares::new(&report.of, row.of, median, limits))
        });
        shares.collect::<Vec<_>>()
    };
    reports.iter().flat_map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Row;
    use crate::work::Name;

    const LIMITS: Limits = Limits {
        cores: 2.0,
        loopback_bytes_per_second: 2e9,
        round_trip_us: 100.0,
        sync_us: 150.0,
        write_bytes_per_second: 1e9,
        read_bytes_per_second: 4e9,
    };

    fn shares(name: Name, system: System, median: &Measured) -> Shares {
        Shares::new(&Work::new(name, 10_000), system, median, &LIMITS)
    }

    fn share(amount: f64, share: f64) -> Share {
        Share { amount, share }
    }

    #[test]
    fn publishing_uses_loopback_disk_and_cores() {
        let median = Measured {
            records_per_second: 5e6,
            cpu_us_per_record: Some(0.125),
            written_per_payload_byte: Some(1.5),
            read_per_payload_byte: Some(0.1),
            p50_ms: Some(10.0),
            ..Measured::default()
        };
        // 5,000,000 x 100 B = 0.5 GB/s, of which 1.5 times as much is written; 5,000,000 x 0.125 µs = 0.625 s.
        let expected = Shares {
            work: "publish-100".to_owned(),
            system: "tidings".to_owned(),
            payload_bytes_per_second: share(0.5e9, 0.25),
            written_bytes_per_second: Some(share(0.75e9, 0.75)),
            read_bytes_per_second: None,
            cores: Some(share(0.625, 0.3125)),
            lone_records_per_second: None,
            latency_ms: None,
        };
        assert_eq!(shares(Name::Publish100, System::Tidings, &median), expected);
    }

    #[test]
    fn catching_up_reads_from_the_disk() {
        let median = Measured {
            records_per_second: 1e6,
            read_per_payload_byte: Some(1.25),
            ..Measured::default()
        };
        // 1,000,000 x 1,024 B = 1.024 GB/s, of which 1.25 times as much is read.
        let shares = shares(Name::Read1k, System::Tidings, &median);
        assert_eq!(shares.payload_bytes_per_second, share(1.024e9, 0.512));
        assert_eq!(shares.read_bytes_per_second, Some(share(1.28e9, 0.32)));
        assert_eq!(shares.written_bytes_per_second, None);
        assert_eq!(shares.cores, None);
    }

    #[test]
    fn who_waits_for_each_has_one_in_the_time_of_a_sync_and_a_round_trip() {
        let at = |records_per_second| Measured {
            records_per_second,
            ..Measured::default()
        };
        let lone = |name, rate| shares(name, System::Tidings, &at(rate)).lone_records_per_second;
        // 150 and 100 µs: 4,000 in a second, for each publisher.
        let wait = |share| {
            Some(Wait {
                best: 4000.0,
                share,
            })
        };
        assert_eq!(lone(Name::Lone1, 3000.0), wait(0.75));
        assert_eq!(lone(Name::Lone8, 16_000.0), wait(0.5));
        assert_eq!(lone(Name::Single1, 3000.0), None);
        let one_at_a_time = Shares::new(
            &Work::new(Name::Read100, 1),
            System::Tidings,
            &at(1.0),
            &LIMITS,
        );
        assert_eq!(one_at_a_time.lone_records_per_second, None);
    }

    #[test]
    fn end_to_end_goes_both_ways_and_waits_for_what_its_durability_says() {
        let median = Measured {
            records_per_second: 5000.0,
            p50_ms: Some(0.5),
            written_per_payload_byte: Some(20.0),
            ..Measured::default()
        };
        let synced = shares(Name::Latency, System::Tidings, &median);
        // 5,000 x 100 B = 0.5 MB/s, there and on; 20 times as much is written.
        assert_eq!(synced.payload_bytes_per_second, share(1e6, 0.0005));
        assert_eq!(synced.written_bytes_per_second, Some(share(1e7, 0.01)));
        let wait = |best, share| Some(Wait { best, share });
        assert_eq!(synced.latency_ms, wait(0.25, 0.5));
        let left_to_the_system = shares(Name::Latency, System::TidingsOs, &median);
        assert_eq!(left_to_the_system.latency_ms, wait(0.1, 0.2));
        assert_eq!(
            shares(Name::Latency, System::Tidings, &Measured::default()).latency_ms,
            None
        );
    }

    #[test]
    fn only_ours_that_did_not_fail_have_shares() {
        let row = |system| Row::new(system, vec![Some(Measured::default())]);
        let rows = vec![
            row(System::Nats),
            row(System::Tidings),
            Row::new(System::TidingsReused, vec![None]),
        ];
        let report = Report::new(&Work::new(Name::Publish100, 1), rows);
        let all = of_ours(&[report], &LIMITS);
        let systems: Vec<&str> = all.iter().map(|one| &one.system[..]).collect();
        assert_eq!(systems, ["tidings"]);
    }
}
