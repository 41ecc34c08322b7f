//! One bit of a stopped store is changed; then it is opened, used, and opened again.
//!
//! What must hold (J9, J11, J14): exactly what was published is served, or the damage is named; no
//! subscription is lost; topics that are not named are as they were; the second opening is like the first.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::Mutex;

use super::{Options, parallel, report};
use crate::disk::Disk;
use crate::model::{Event, Figures};
use crate::run::{Kill, Subject, Work, memory};
use crate::words::{Dice, End};

/// Flips of one store, before another is made.
const FLIPS_PER_STORE: u64 = 75;

/// A byte to be changed.
#[derive(Debug, Clone)]
struct Flip {
    file: PathBuf,
    position: u64,
    bit: u8,
}

/// Journal and catalog in equal parts; mostly where something was written.
fn choose(disk: &Disk, dice: &mut Dice) -> Option<Flip> {
    let part = if dice.percent(60) {
        "journal"
    } else {
        "catalog"
    };
    let mut files: Vec<_> = disk.files().iter().collect();
    files.retain(|(path, bytes)| disk.below(path).starts_with(part) && !bytes.is_empty());
    let structure = part == "journal" && dice.percent(40);
    for attempt in 0..200 {
        let (path, bytes) = dice.pick(&files)?;
        let position = match structure_in(bytes, dice) {
            Some(position) if structure => position,
            _ => dice.below(bytes.len() as u64),
        };
        let at = usize::try_from(position).expect("small");
        let around = &bytes[at / 64 * 64..(at / 64 * 64 + 64).min(bytes.len())];
        if attempt == 199 || dice.percent(3) || around.iter().any(|byte| *byte != 0) {
            return Some(Flip {
                file: disk.below(path).to_owned(),
                position,
                bit: 1 << dice.below(8),
            });
        }
    }
    None
}

/// A place in the header of a slot, a group with its first entry, or a footer: few bytes, much depends on them.
fn structure_in(bytes: &[u8], dice: &mut Dice) -> Option<u64> {
    const MAGICS: [&[u8]; 3] = [b"TIDSLOT1", b"TGRP", b"TFTR"];
    let begins = |at: &usize| MAGICS.iter().any(|magic| bytes[*at..].starts_with(magic));
    let found: Vec<usize> = (0..bytes.len()).step_by(512).filter(begins).collect();
    let at = *dice.pick(&found)? as u64 + dice.below(200);
    (at < bytes.len() as u64).then_some(at)
}

/// A store that ended abruptly, recovered, and was filled before it was stopped, or before it was killed
/// with everything claimed and the catalog behind.
fn prepare(seed: u64) -> Result<(Subject, Disk), String> {
    let mut subject = Subject::new("flips", &memory(), seed);
    let last = if subject.dice.percent(50) {
        End::Clean
    } else {
        End::Idle
    };
    let lives = [
        (Work::LONG, End::Abrupt),
        (Work::SMALL, End::Idle),
        (Work::SMALL, End::Abrupt),
        (Work::SMALL, last),
    ];
    for (work, end) in lives {
        let plan = subject.plan(Work { end, ..work });
        subject.round(&plan, Kill::Never, false, Event::default())?;
    }
    let disk = Disk::take(&subject.dir);
    // What is there is learnt from a copy: looking moves the catalog to the end.
    let mut copy = subject.copy(&disk, u64::MAX);
    let plan = copy.plan(Work::LOOK);
    let event = Event {
        clean: last == End::Clean,
        ..Event::default()
    };
    copy.round(&plan, Kill::Never, false, event)?;
    copy.model.begins_as(&subject.model);
    copy.model.figures = subject.model.figures.clone();
    subject.model = copy.model.clone();
    copy.done();
    Ok((subject, disk))
}

fn flip(subject: &mut Subject, flip: &Flip) -> Result<(), String> {
    let path = subject.dir.join(&flip.file);
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(&path)
        .expect("a file of the store");
    let mut byte = [0];
    file.read_exact_at(&mut byte, flip.position).expect("read");
    byte[0] ^= flip.bit;
    file.write_all_at(&byte, flip.position).expect("written");
    drop(file);
    let event = Event {
        damaged: true,
        ..Event::default()
    };
    for work in [
        Work {
            end: End::Clean,
            ..Work::SMALL
        },
        Work::LOOK,
    ] {
        let mut plan = subject.plan(work);
        plan.damaged = true;
        subject
            .round(&plan, Kill::Never, false, event)
            .map_err(|why| format!("{flip:?}: {why}"))?;
    }
    Ok(())
}

pub fn run(options: Options) -> Result<String, String> {
    let mut total = Figures::default();
    let mut dice = Dice(options.seed);
    let mut left = options.rounds;
    while left > 0 {
        let (subject, disk) = prepare(dice.roll())?;
        let dice = Mutex::new(Dice(dice.roll()));
        let flips = left.min(FLIPS_PER_STORE);
        parallel(flips, &mut total, |task| {
            let chosen = choose(&disk, &mut dice.lock().expect("no checker panics"));
            let mut copy = subject.copy(&disk, task);
            flip(&mut copy, &chosen.ok_or("nothing to flip")?)?;
            Ok(copy.done())
        })?;
        total.add(&subject.done());
        left -= flips;
    }
    let _ = fs::remove_dir_all(memory());
    let told = format!(
        "{} quarantines, {} lines of damage, {} starts refused",
        total.quarantines, total.named, total.refused_to_open
    );
    Ok(format!("{told}; {}", report(options.rounds, &total)))
}
