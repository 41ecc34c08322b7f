//! `scale`: how Tidings holds up as things grow, each as the ratio of *with* to *without*.
//!
//! ```text
//!   bin/scale.rs ── run ──┬── stored          a store that is full of other things
//!                         ├── topics          many other topics
//!                         ├── subscriptions   durable ones, and many that wait
//!                         ├── connections     many idle ones, many publishers
//!                         ├── slow            readers that are behind
//!                         ├── one_of_many     topics written together, read one by one
//!                         ├── bytes           what reaches the disk, and what stays there
//!                         └── index           a million topics
//!       peer   a peer of ours, and what is done to it       pair    two of them in turns
//!       ours   other commands of the program                report  figures, tables
//! ```
//!
//! Where two peers are compared both are there for the whole scenario, and are loaded in turns: what
//! changes on the machine meets both. What is measured goes to a topic that keeps little and has been
//! written and discarded before, on both sides: so both use slots again, and the disk does not fill.
//!
//! Missing on purpose: several peers, and anything over a network.

mod bytes;
mod connections;
mod index;
mod one_of_many;
mod ours;
mod pair;
mod peer;
pub mod report;
mod slow;
mod stored;
mod subscriptions;
mod topics;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};

use report::Report;

/// What may be measured, as it is called on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Name {
    /// an empty peer, and one that stores much
    Stored,
    /// few topics, and many on the same peer
    Topics,
    /// no subscriptions, and many
    Subscriptions,
    /// no connections, and many; 8 publishers, and many
    Connections,
    /// publishers alone, and beside readers that are behind
    Slow,
    /// one topic of many that were written together, before and after they were copied together
    OneOfMany,
    /// what reaches the disk, with uniform and with mixed retention
    Bytes,
    /// an index with few topics, and with many
    Index,
}

impl Name {
    /// What it is called on the command line.
    pub fn key(self) -> String {
        let value = self.to_possible_value();
        value.map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// One line that tells what it is.
    pub fn title(self) -> String {
        let value = self.to_possible_value();
        let help = value.as_ref().and_then(|value| value.get_help());
        help.map(ToString::to_string).unwrap_or_default()
    }
}

/// How large everything is, and how long it is looked at.
#[derive(Debug, Clone, Args)]
pub struct Sizes {
    /// How often everything is measured that can be repeated
    #[arg(long, value_name = "N", default_value_t = 5)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub rounds: u32,
    /// How long each measurement takes, in seconds
    #[arg(long, value_name = "S", default_value = "3", value_parser = seconds)]
    pub seconds: Duration,
    /// How long the load runs before it is measured, in seconds
    #[arg(long, value_name = "S", default_value = "1", value_parser = seconds)]
    pub warm: Duration,
    /// How long slots are written and discarded before they count as reused, in seconds
    #[arg(long, value_name = "S", default_value = "5", value_parser = seconds)]
    pub churn: Duration,
    /// What the topic keeps that is published to while it is measured
    #[arg(long, value_name = "SIZE", default_value = "128MiB", value_parser = size)]
    pub keep: u64,
    /// Records of one publisher that may be unacknowledged
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    #[arg(value_parser = clap::value_parser!(u32).range(100..=1_000_000))]
    pub in_flight: u32,
    /// stored: payload on the peer that is not empty
    #[arg(long, value_name = "SIZE", default_value = "50GiB", value_parser = size)]
    pub stored: u64,
    /// topics: how many more
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=900_000))]
    pub topics: u32,
    /// subscriptions: durable ones of the topic that is published to, and as many that wait at others
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=5_000))]
    pub subscriptions: u32,
    /// connections: idle ones
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub connections: u32,
    /// connections: publishers at once, compared with 8
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    #[arg(value_parser = clap::value_parser!(u32).range(8..=5_000))]
    pub publishers: u32,
    /// connections: records those send with one call, each with one call unacknowledged
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=2_000))]
    pub batch: u32,
    /// slow: payload that is read from its beginning meanwhile
    #[arg(long, value_name = "SIZE", default_value = "8GiB", value_parser = size)]
    pub behind: u64,
    /// one-of-many: topics that are written together, and readers of all of them
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    #[arg(value_parser = clap::value_parser!(u32).range(10..=5_000))]
    pub together: u32,
    /// one-of-many: their payload
    #[arg(long, value_name = "SIZE", default_value = "2GiB", value_parser = size)]
    pub spread: u64,
    /// one-of-many: records of one call, all of one topic
    #[arg(long, value_name = "N", default_value_t = 10)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub piece: u32,
    /// bytes: what all topics keep together
    #[arg(long, value_name = "SIZE", default_value = "2GiB", value_parser = size)]
    pub kept: u64,
    /// bytes: so many times that is written before it is measured, and again while it is
    #[arg(long, value_name = "N", default_value_t = 4)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub times: u32,
    /// index: topics where there are few
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    #[arg(value_parser = clap::value_parser!(u32).range(1_000..=1_000_000))]
    pub registered_few: u32,
    /// index: topics where there are many
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    #[arg(value_parser = clap::value_parser!(u32).range(1_000..=1_000_000))]
    pub registered: u32,
    /// index: clients at the same time, compared with 1
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    #[arg(value_parser = clap::value_parser!(u32).range(2..=5_000))]
    pub clients: u32,
    /// index: lookups per second of all of them, where 1 and many are compared
    #[arg(long, value_name = "N", default_value_t = 20_000)]
    #[arg(value_parser = clap::value_parser!(u32).range(100..=1_000_000))]
    pub lookup_rate: u32,
}

fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.1..=3600.0).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("0.1 to 3600 expected".to_owned()),
    }
}

fn size(text: &str) -> Result<u64, String> {
    let end = text.find(|c: char| !c.is_ascii_digit());
    let (number, unit) = text.split_at(end.unwrap_or(text.len()));
    let shift = match unit {
        "" | "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        _ => return Err(format!("{unit:?}: KiB, MiB or GiB expected")),
    };
    match number.parse::<u64>() {
        Ok(number) if (1..=(1 << 44) >> shift).contains(&number) => Ok(number << shift),
        _ => Err("a number expected, of 16384 GiB at most".to_owned()),
    }
}

/// A size for people.
fn size_text(bytes: u64) -> String {
    let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
    let whole = |(shift, _): &(u32, &str)| bytes >> shift > 0 && bytes.trailing_zeros() >= *shift;
    match units.into_iter().find(whole) {
        Some((shift, unit)) => format!("{} {unit}", bytes >> shift),
        None => format!("{bytes} B"),
    }
}

/// How it is measured.
#[derive(Debug, Clone)]
pub struct Options {
    /// Our program.
    pub program: PathBuf,
    /// Where the scratch directories are made.
    pub dir: PathBuf,
    /// How large and how long.
    pub sizes: Sizes,
}

/// Bytes per second that are written when much is written, for the estimate: a growing store.
const FILLED_PER_SECOND: f64 = 250e6;
/// And where each call brings few.
const SPREAD_PER_SECOND: f64 = 20e6;
/// Bytes per second that are copied together.
const COPIED_PER_SECOND: f64 = 32e6;
/// Topics or subscriptions that are made in a second.
const MADE_PER_SECOND: f64 = 1_000.0;
/// Starting and ending servers, and opening and closing what they are asked through.
const OVERHEAD: f64 = 5.0;
/// A scenario that takes so many times its estimate, and [`OVERDUE_MIN`] besides, has failed.
const OVERDUE: u32 = 5;
/// See [`OVERDUE`].
const OVERDUE_MIN: Duration = Duration::from_secs(600);

impl Options {
    /// About how long a scenario will take.
    pub fn estimate(&self, name: Name) -> Duration {
        let sizes = &self.sizes;
        let (rounds, seconds) = (f64::from(sizes.rounds), sizes.seconds.as_secs_f64());
        let one = seconds + sizes.warm.as_secs_f64();
        let filled = |bytes: u64| bytes as f64 / FILLED_PER_SECOND;
        // Three loads for each of two peers.
        let pair = 2.0 * sizes.churn.as_secs_f64() + rounds * 6.0 * one;
        let whole = match name {
            Name::Stored => filled(sizes.stored) + pair + rounds * 8.0,
            Name::Topics => f64::from(sizes.topics) * 2.0 / MADE_PER_SECOND + pair,
            Name::Subscriptions => f64::from(sizes.subscriptions) * 4.0 / MADE_PER_SECOND + pair,
            Name::Connections => {
                let opened = f64::from(sizes.connections + 4 * sizes.publishers) / 5_000.0;
                rounds * (2.0 * seconds + 2.0 * one + opened + OVERHEAD)
            }
            Name::Slow => filled(sizes.behind) + sizes.churn.as_secs_f64() + rounds * 4.0 * one,
            Name::OneOfMany => {
                let spread = sizes.spread as f64;
                let read = spread / 50e6 * 2.0 * rounds;
                spread / SPREAD_PER_SECOND + read + 0.4 * spread / COPIED_PER_SECOND + 40.0
            }
            Name::Bytes => {
                let written = sizes.kept * u64::from(sizes.times) * 2;
                2.0 * (filled(written) + sizes.seconds.as_secs_f64() * 4.0 + 15.0)
            }
            Name::Index => {
                let both = f64::from(sizes.registered + sizes.registered_few);
                let listed = both / 100_000.0 + f64::from(sizes.registered) / 50_000.0;
                both / 50_000.0 + rounds * (4.0 * seconds + listed + OVERHEAD)
            }
        };
        Duration::from_secs_f64(whole + OVERHEAD)
    }

    /// What a scenario takes of the disk at the most, about.
    fn disk_bytes(&self, name: Name) -> u64 {
        let sizes = &self.sizes;
        let grown = match name {
            Name::Stored => sizes.stored + sizes.stored / 32,
            Name::Slow => sizes.behind + sizes.behind / 32,
            Name::OneOfMany => sizes.spread * 2,
            Name::Bytes => sizes.kept * 2,
            Name::Topics | Name::Subscriptions | Name::Connections | Name::Index => 0,
        };
        // Two topics that are written meanwhile, slots that are prepared, and what is discarded late under load.
        grown + 4 * sizes.keep + (3 << 30)
    }

    /// Fails where the disk has no room for a scenario.
    fn check_room(&self, name: Name) -> Result<()> {
        let disk = rustix::fs::statvfs(&self.dir)?;
        let (free, needed) = (disk.f_bavail * disk.f_frsize, self.disk_bytes(name));
        let [free_mib, needed_mib] = [free, needed].map(|bytes| bytes >> 20);
        let dir = self.dir.display();
        ensure!(
            free >= needed,
            "{dir} has {free_mib} MiB free where about {needed_mib} are needed: make it smaller, or name another \
             directory with --dir"
        );
        Ok(())
    }

    /// How often what can be repeated is.
    fn rounds(&self) -> impl Iterator<Item = u32> {
        0..self.sizes.rounds
    }
}

/// Measures one after the other. What was found before a failure is in the report too.
pub async fn run(options: &Options, names: &[Name]) -> Vec<Report> {
    let mut reports = Vec::new();
    for name in names {
        let most = options.estimate(*name) * OVERDUE + OVERDUE_MIN;
        let mut report = Report::new(&name.key(), &name.title());
        let measured = tokio::time::timeout(most, measure(options, *name, &mut report)).await;
        let measured = measured.with_context(|| format!("not done after {most:?}"));
        if let Err(error) = measured.and_then(|measured| measured) {
            eprintln!("{}: failed: {error:#}", name.key());
            report.failed = Some(format!("{error:#}"));
        }
        reports.push(report);
    }
    reports
}

async fn measure(options: &Options, name: Name, report: &mut Report) -> Result<()> {
    options.check_room(name)?;
    match name {
        Name::Stored => stored::measure(options, report).await,
        Name::Topics => topics::measure(options, report).await,
        Name::Subscriptions => subscriptions::measure(options, report).await,
        Name::Connections => connections::measure(options, report).await,
        Name::Slow => slow::measure(options, report).await,
        Name::OneOfMany => one_of_many::measure(options, report).await,
        Name::Bytes => bytes::measure(options, report).await,
        Name::Index => index::measure(options, report).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_told() {
        assert_eq!(size("50GiB"), Ok(50 << 30));
        assert_eq!(size("512MiB").map(size_text).as_deref(), Ok("512 MiB"));
        assert_eq!(size_text(1536 << 20), "1536 MiB");
        assert_eq!(size_text(1000), "1000 B");
        for bad in ["", "GiB", "1GB", "-1MiB", "99999999GiB", "1.5GiB"] {
            assert!(size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn every_scenario_has_a_name_and_a_title() {
        for name in Name::value_variants() {
            assert!(!name.key().is_empty() && !name.title().is_empty());
        }
    }
}
