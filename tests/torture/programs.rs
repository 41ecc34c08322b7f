//! The programs: what is done to stores, how often, and what must hold afterwards.

mod cluster;
mod flips;
mod power;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::disk::{Disk, Survives, calls_made};
use crate::model::{Event, Model};
use crate::run::{Kill, Subject, Work, disk, memory, shim};
use crate::words::{Dice, End, mix};

/// What a program is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    pub rounds: u64,
    pub seed: u64,
}

/// One way to break a store.
pub struct Program {
    pub name: &'static str,
    /// Rounds in the test suite.
    pub rounds_short: u64,
    pub run: fn(Options) -> Result<String, String>,
}

pub const PROGRAMS: &[Program] = &[
    Program {
        name: "kill",
        rounds_short: 20,
        run: kill,
    },
    Program {
        name: "calls",
        rounds_short: 150,
        run: calls,
    },
    Program {
        name: "images",
        rounds_short: 2000,
        run: images,
    },
    Program {
        name: "power",
        rounds_short: 5,
        run: power::run,
    },
    Program {
        name: "flips",
        rounds_short: 300,
        run: flips::run,
    },
    Program {
        name: "peers",
        rounds_short: 12,
        run: cluster::peers,
    },
    Program {
        name: "index",
        rounds_short: 14,
        run: cluster::index,
    },
];

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

/// SIGKILL at one call after the other: over making a store, working and every later opening.
fn calls(options: Options) -> Result<String, String> {
    if shim().is_none() {
        return Ok(SKIPPED.to_owned());
    }
    let mut subject = Subject::new("calls", &memory(), options.seed);
    // How many calls there are, and from where on the numbers are those of the work.
    let plan = subject.plan(Work::SMALL);
    subject.round(&plan, Kill::Never, true, Event::default())?;
    let all = calls_made(&subject.log()) + 40;
    subject.done();
    let mut total = Model::default();
    let tasks = options.rounds;
    parallel(tasks, &mut total, |task| {
        let seed = mix(options.seed ^ task);
        let mut subject = Subject::new("calls", &memory(), seed);
        // Evenly spread, or every one and again from the start.
        let number = 1 + if tasks < all {
            task * all / tasks
        } else {
            task % all
        };
        for deep in 0..3 {
            let torn = subject.dice.percent(50);
            let number = if deep == 0 {
                number
            } else {
                1 + subject.dice.below(60)
            };
            let plan = subject.plan(Work::SMALL);
            subject.round(
                &plan,
                Kill::AtCall { number, torn },
                false,
                Event::default(),
            )?;
        }
        let plan = subject.plan(Work {
            end: End::Clean,
            ..Work::SMALL
        });
        subject.round(&plan, Kill::Never, false, Event::default())?;
        let plan = subject.plan(Work::LOOK);
        subject.round(
            &plan,
            Kill::Never,
            false,
            Event {
                clean: true,
                ..Event::default()
            },
        )?;
        Ok(subject.done())
    })?;
    Ok(format!(
        "{} of some {all} calls; {}",
        options.rounds,
        report(options.rounds * 3, &total)
    ))
}

/// Images per directory.
const IMAGES_PER_STORE: u64 = 16;

/// Power cuts in a model of the disk: one image after the other is opened, worked on, and cut again.
fn images(options: Options) -> Result<String, String> {
    if shim().is_none() {
        return Ok(SKIPPED.to_owned());
    }
    let mut total = Model::default();
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
    let work = if dice.percent(10) {
        Work::LONG
    } else {
        Work::SMALL
    };
    (Work { end, ..work }, kill)
}

pub fn report(rounds: u64, model: &Model) -> String {
    format!(
        "{rounds} rounds, {} records acknowledged ({} batches again after a restart), {} batches and gaps found, \
         {} deaths during recovery, {} torn tails, {} catalogs rebuilt",
        model.acknowledged,
        model.duplicates,
        model.found,
        model.in_recovery,
        model.torn,
        model.rebuilt
    )
}

/// Runs tasks on two threads; the first failure ends it.
pub fn parallel(
    tasks: u64,
    total: &mut Model,
    work: impl Fn(u64) -> Result<Model, String> + Sync,
) -> Result<(), String> {
    let (next, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let run = || {
        let mut sum = Model::default();
        loop {
            let task = next.fetch_add(1, Ordering::Relaxed);
            if task >= tasks || stop.load(Ordering::Relaxed) {
                return Ok(sum);
            }
            match work(task) {
                Ok(model) => sum.add(&model),
                Err(why) => {
                    stop.store(true, Ordering::Relaxed);
                    return Err(why);
                }
            }
        }
    };
    let outcomes: Vec<Result<Model, String>> = std::thread::scope(|scope| {
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
