//! Power cuts of a real file system: ext4 on a loop device, shut down under the working store.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::{CATALOG_LOST_PERCENT, Options, report};
use crate::model::Event;
use crate::run::{Kill, Subject, Work, compile, disk};
use crate::words::End;

const FILE_SYSTEM_BYTES: &str = "1536M";

/// A file system of its own, gone with the value.
struct LoopFs {
    image: PathBuf,
    mount: PathBuf,
}

fn run_quietly(command: &mut Command) -> Result<(), String> {
    let output = command
        .output()
        .map_err(|error| format!("{command:?}: {error}"))?;
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() {
        Ok(())
    } else {
        Err(format!("{command:?}: {told}"))
    }
}

impl LoopFs {
    fn make(scratch: &Path) -> Result<Self, String> {
        fs::create_dir_all(scratch).map_err(|error| error.to_string())?;
        let this = Self {
            image: scratch.join("ext4.img"),
            mount: scratch.join("mount"),
        };
        fs::create_dir_all(&this.mount).map_err(|error| error.to_string())?;
        run_quietly(
            Command::new("truncate")
                .args(["-s", FILE_SYSTEM_BYTES])
                .arg(&this.image),
        )?;
        run_quietly(Command::new("mkfs.ext4").arg("-qF").arg(&this.image))?;
        this.attach()?;
        Ok(this)
    }

    fn attach(&self) -> Result<(), String> {
        run_quietly(
            Command::new("mount")
                .args(["-o", "loop"])
                .arg(&self.image)
                .arg(&self.mount),
        )
    }

    fn detach(&self) -> Result<(), String> {
        // The driver is dead, but its last call may still be returning.
        let mut tries = 0;
        loop {
            match run_quietly(Command::new("umount").arg(&self.mount)) {
                Ok(()) => return Ok(()),
                Err(why) if tries == 50 => return Err(why),
                Err(_) => tries += 1,
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for LoopFs {
    fn drop(&mut self) {
        let _ = self.detach();
        let _ = fs::remove_file(&self.image);
    }
}

/// The power goes while a store works, again and again, on one file system.
pub fn run(options: Options) -> Result<String, String> {
    let scratch = disk().join("power");
    let Some(cut) = compile("power_cut.c", "power-cut", &[]) else {
        return Ok(super::SKIPPED.to_owned());
    };
    let system = match LoopFs::make(&scratch) {
        Ok(system) => system,
        Err(why) => return Ok(format!("!!! SKIPPED: no file system of our own: {why}")),
    };
    let mut subject = Subject::new("power", &system.mount, options.seed);
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
        if round % 10 != 9 {
            plan.from = subject.model.tail(500);
        }
        let working = subject.dice.percent(70);
        let after = Duration::from_millis(10 + subject.dice.below(500));
        let kill = Kill::WithDisk {
            after,
            working,
            cut: &cut,
            mount: &system.mount,
        };
        let life = subject.round(&plan, kill, false, event)?;
        event.power_cut = true;
        if !life.killed {
            return Err(format!(
                "round {round}: the driver ended by itself: {}",
                life.errors
            ));
        }
        system.detach()?;
        system.attach()?;
        if subject.dice.percent(CATALOG_LOST_PERCENT) {
            subject.lose_catalog();
        }
    }
    let plan = subject.plan(Work::LOOK);
    subject.round(&plan, Kill::Never, false, event)?;
    Ok(report(options.rounds, &subject.done()))
}
