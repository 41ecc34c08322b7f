//! The programs: what is done to stores, how often, and what must hold afterwards.

mod cluster;
mod compaction;
mod control;
mod faults;
mod flips;
mod groups;
mod ledger;
mod member;
mod power;
mod server;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::disk::{Disk, Survives, calls_made};
use crate::model::{Event, Figures};
use crate::run::{Kill, Subject, Work, disk, memory, shim};
use crate::words::{Dice, End, mix};

pub use compaction::live as live_keyed;
pub use faults::Mix;

/// What a program is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    pub rounds: u64,
    pub seed: u64,
    /// Which faults, for a program that has several.
    pub mix: Mix,
    /// Faults last as long as they may, and the one that takes more than a minute is among them.
    pub is_long: bool,
    /// How long to go on instead of so many rounds, for a program that [fills time](Program::fills_time).
    pub time: Option<Duration>,
}

/// One way to break a store.
pub struct Program {
    pub name: &'static str,
    /// Rounds in the test suite.
    pub rounds_short: u64,
    /// It takes [`Options::time`] instead of rounds.
    pub fills_time: bool,
    pub run: fn(Options) -> Result<String, String>,
}

pub const PROGRAMS: &[Program] = &[
    Program {
        name: "kill",
        rounds_short: 20,
        fills_time: false,
        run: kill,
    },
    Program {
        name: "calls",
        rounds_short: 200,
        fills_time: false,
        run: calls,
    },
    Program {
        name: "compaction",
        rounds_short: 12,
        fills_time: false,
        run: compaction::run,
    },
    Program {
        name: "images",
        rounds_short: 2000,
        fills_time: false,
        run: images,
    },
    Program {
        name: "power",
        rounds_short: 5,
        fills_time: false,
        run: power::run,
    },
    Program {
        name: "flips",
        rounds_short: 300,
        fills_time: false,
        run: flips::run,
    },
    Program {
        name: "peers",
        rounds_short: 12,
        fills_time: false,
        run: cluster::peers,
    },
    Program {
        name: "index",
        rounds_short: 14,
        fills_time: false,
        run: cluster::index,
    },
    Program {
        name: "faults",
        rounds_short: 6,
        fills_time: true,
        run: faults::run,
    },
    Program {
        name: "groups",
        rounds_short: 6,
        fills_time: true,
        run: groups::run,
    },
];

/// In so many of a hundred rounds the catalog is gone as well.
const CATALOG_LOST_PERCENT: u64 = 12;

const SKIPPED: &str = "!!! SKIPPED for want of a C compiler";

/// SIGKILL at random moments under load, one directory.
fn kill(options: Options) -> Result<String, String> {
    let mut subject = Subject::new("kill", &disk(), options.seed);
    let work = Work {
        publishers: 8,
        batches: u32::MAX,
        changes: u32::MAX,
        readers: 2,
        end: End::Abrupt,
    };
    let mut event = Event::default();
    for round in 0..options.rounds {
        let mut plan = subject.plan(work);
        if round % 25 != 24 {
            plan.from = subject.model.tail(500);
        }
        let kill = Kill::After {
            after: Duration::from_millis(5 + subject.dice.below(400)),
            working: subject.dice.percent(70),
        };
        let life = subject.round(&plan, kill, false, event)?;
        event = Event {
            clean: false,
            ..event
        };
        if subject.dice.percent(CATALOG_LOST_PERCENT) {
            subject.lose_catalog();
        }
        if !life.killed {
            return Err(format!(
                "round {round}: the driver ended by itself: {}",
                life.errors
            ));
        }
    }
    let plan = subject.plan(Work::LOOK);
    subject.round(&plan, Kill::Never, false, event)?;
    Ok(report(options.rounds, &subject.done()))
}

/// SIGKILL at one call after the other: over making a store, working and every later opening; and over the life
/// of a store that has a past, with something to give back.
fn calls(options: Options) -> Result<String, String> {
    if shim().is_none() {
        return Ok(SKIPPED.to_owned());
    }
    let mut subject = Subject::new("calls", &memory(), options.seed);
    // How many calls there are, and from where on the numbers are those of the work.
    let plan = subject.plan(Work::SMALL);
    subject.round(&plan, Kill::Never, true, Event::default())?;
    let all_of_new = calls_made(&subject.log()) + 40;
    subject.done();
    let (grown, disk) = grown("calls", options.seed, &[End::Abrupt; 6])?;
    let mut copy = grown.copy(&disk, u64::MAX);
    let plan = copy.plan(Work::RECLAIMING);
    copy.round(&plan, Kill::Never, true, Event::default())?;
    let all_of_grown = calls_made(&copy.log()) + 40;
    copy.done();
    let mut total = Figures::default();
    let tasks = options.rounds;
    parallel(tasks, &mut total, |task| {
        let seed = mix(options.seed ^ task);
        // Evenly spread, or every one and again from the start.
        let spread = |task: u64, tasks: u64, all: u64| {
            1 + if tasks < all {
                task * all / tasks
            } else {
                task % all
            }
        };
        let (mut subject, number, work) = if task % 2 == 0 {
            let number = spread(task / 2, tasks.div_ceil(2), all_of_new);
            (Subject::new("calls", &memory(), seed), number, Work::SMALL)
        } else {
            let number = spread(task / 2, tasks / 2, all_of_grown);
            (grown.copy(&disk, seed), number, Work::RECLAIMING)
        };
        kill_at(&mut subject, number, work)?;
        Ok(subject.done())
    })?;
    total.add(&grown.done());
    Ok(format!(
        "{} of some {all_of_new} + {all_of_grown} calls; {}",
        options.rounds,
        report(options.rounds * 3, &total)
    ))
}

/// A store that lived for a while, each life with its end, and what its disk holds.
fn grown(program: &'static str, seed: u64, lives: &[End]) -> Result<(Subject, Disk), String> {
    let mut subject = Subject::new(program, &memory(), mix(seed ^ 0x960));
    for &end in lives {
        let mut plan = subject.plan(Work { end, ..Work::LONG });
        plan.discards = true;
        subject.round(&plan, Kill::Never, false, Event::default())?;
    }
    let disk = Disk::take(&subject.dir);
    Ok((subject, disk))
}

/// Killed at this call, then early in two openings that follow.
fn kill_at(subject: &mut Subject, number: u64, work: Work) -> Result<(), String> {
    for deep in 0..3 {
        let torn = subject.dice.percent(50);
        let number = if deep == 0 {
            number
        } else {
            1 + subject.dice.below(60)
        };
        let plan = subject.plan(work);
        let kill = Kill::AtCall { number, torn };
        subject.round(&plan, kill, false, Event::default())?;
        if subject.dice.percent(CATALOG_LOST_PERCENT) {
            subject.lose_catalog();
        }
    }
    let plan = subject.plan(Work {
        end: End::Clean,
        ..work
    });
    subject.round(&plan, Kill::Never, false, Event::default())?;
    let plan = subject.plan(Work::LOOK);
    let event = Event {
        clean: true,
        ..Event::default()
    };
    subject.round(&plan, Kill::Never, false, event)?;
    Ok(())
}

/// Images per directory.
const IMAGES_PER_STORE: u64 = 16;

/// Power cuts in a model of the disk: one image after the other is opened, worked on, and cut again.
fn images(options: Options) -> Result<String, String> {
    if shim().is_none() {
        return Ok(SKIPPED.to_owned());
    }
    let mut total = Figures::default();
    let stores = options.rounds.div_ceil(IMAGES_PER_STORE);
    parallel(stores, &mut total, |task| {
        let seed = mix(options.seed ^ task);
        let mut subject = Subject::new("images", &memory(), seed);
        let mut disk = Disk::take(&subject.dir);
        let mut event = Event::default();
        for _ in 0..IMAGES_PER_STORE.min(options.rounds) {
            let (work, kill) = any_end(&mut subject.dice);
            let plan = subject.plan(work);
            let life = subject.round(&plan, kill, true, event)?;
            let clean = !life.killed && work.end == End::Clean;
            let survives = Survives::any(&mut subject.dice);
            let log = subject.log();
            disk.cut_power(&log, survives, &mut subject.dice);
            event = Event {
                power_cut: true,
                clean,
                damaged: false,
            };
            if subject.dice.percent(CATALOG_LOST_PERCENT) {
                subject.lose_catalog();
                disk.forget("catalog");
            }
        }
        let plan = subject.plan(Work::LOOK);
        subject.round(&plan, Kill::Never, false, event)?;
        Ok(subject.done())
    })?;
    Ok(report(options.rounds, &total))
}

/// How a driver ends: mostly in the middle of something, often while it recovers.
fn any_end(dice: &mut Dice) -> (Work, Kill<'static>) {
    let torn = dice.percent(30);
    let number = match dice.below(100) {
        0..45 => 1 + dice.below(90),
        45..75 => 40 + dice.below(200),
        75..90 => 100 + dice.below(900),
        _ => 0,
    };
    let end = match dice.below(3) {
        0 => End::Clean,
        1 => End::Abrupt,
        _ => End::Idle,
    };
    let kill = if number == 0 {
        Kill::Never
    } else {
        Kill::AtCall { number, torn }
    };
    let work = match dice.below(10) {
        0 => Work::LONG,
        1..4 => Work::RECLAIMING,
        _ => Work::SMALL,
    };
    (Work { end, ..work }, kill)
}

pub fn report(rounds: u64, figures: &Figures) -> String {
    format!(
        "{rounds} rounds, {} records acknowledged ({} batches again after a restart), {} batches and gaps found, \
         {} deaths during recovery, {} torn tails; {}",
        figures.acknowledged,
        figures.duplicates,
        figures.found,
        figures.in_recovery,
        figures.torn,
        reclaiming(figures)
    )
}

/// What was done to give space back, and what of it did not occur at all.
fn reclaiming(figures: &Figures) -> String {
    let done = &figures.reclaimed;
    let counts = [
        ("snapshots relied on", done.snapshots),
        ("segments freed", done.freed),
        ("segments copied", done.copied),
        ("cold segments", done.cold),
        ("slots used again", done.reused),
        ("slots deleted", done.deleted),
        ("catalogs rebuilt", figures.rebuilt),
        ("of them from a snapshot", figures.from_snapshot),
    ];
    let told: Vec<String> = counts
        .iter()
        .map(|(what, count)| format!("{count} {what}"))
        .collect();
    let mut told = told.join(", ");
    // Not every program loses them.
    told += &format!(", {} catalogs lost", figures.catalogs_lost);
    told + &not_exercised(counts)
}

/// What of it did not occur at all, to be put behind a report; nothing if all did.
pub fn not_exercised<'a>(counts: impl IntoIterator<Item = (&'a str, u64)>) -> String {
    let missing: Vec<&str> = counts
        .into_iter()
        .filter(|(_, count)| *count == 0)
        .map(|(what, _)| what)
        .collect();
    if missing.is_empty() {
        return String::new();
    }
    format!(" (!!! NOT EXERCISED: {})", missing.join(", "))
}

/// Runs tasks on two threads; the first failure ends it.
pub fn parallel(
    tasks: u64,
    total: &mut Figures,
    work: impl Fn(u64) -> Result<Figures, String> + Sync,
) -> Result<(), String> {
    let (next, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let run = || {
        let mut sum = Figures::default();
        loop {
            let task = next.fetch_add(1, Ordering::Relaxed);
            if task >= tasks || stop.load(Ordering::Relaxed) {
                return Ok(sum);
            }
            match work(task) {
                Ok(figures) => sum.add(&figures),
                Err(why) => {
                    stop.store(true, Ordering::Relaxed);
                    return Err(why);
                }
            }
        }
    };
    let outcomes: Vec<Result<Figures, String>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..2).map(|_| scope.spawn(run)).collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, _>| {
            thread.join().expect("a checker does not panic")
        };
        threads.into_iter().map(join).collect()
    });
    for outcome in outcomes {
        total.add(&outcome?);
    }
    let _ = std::fs::remove_dir_all(memory());
    Ok(())
}
