//! Breaking the store on purpose. `docs/testing.md` says what each program does and how to run the long forms.
//!
//!     cargo test --test torture                            all of them, short
//!     cargo test --release --test torture -- images --rounds 20000 --seed 7
//!     cargo test --release --test torture -- faults --mix kill,stop,slow --minutes 10 --seed 7
//!
//! One process runs the programs; each runs drivers, which are this program again (`driver`), and
//! checks what they say. There is no test harness around it because of that.
#![allow(missing_docs)]

mod disk;
mod driver;
mod model;
mod programs;
mod run;
mod words;

use std::process::ExitCode;
use std::time::{Instant, SystemTime};

use programs::{Mix, Options, PROGRAMS};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == "driver") {
        driver::main();
        return ExitCode::SUCCESS;
    }
    if let [first, dir] = &arguments[..]
        && first == "keyed"
    {
        programs::live_keyed(dir);
        return ExitCode::SUCCESS;
    }
    match parse(&arguments) {
        Ok(asked) => run_all(&asked),
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

struct Asked {
    programs: Vec<String>,
    rounds: Option<u64>,
    minutes: Option<u64>,
    mix: Mix,
    seed: u64,
    list: bool,
}

fn parse(arguments: &[String]) -> Result<Asked, String> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let mut asked = Asked {
        programs: Vec::new(),
        rounds: None,
        minutes: None,
        mix: Mix::ALL,
        seed: now.map_or(1, |now| now.as_millis() as u64 % 1_000_000_000),
        list: false,
    };
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let mut value = || {
            let value = rest.next();
            value.ok_or_else(|| format!("{argument} needs a value"))
        };
        let mut number = || {
            let value = value()?;
            value
                .parse::<u64>()
                .map_err(|error| format!("{argument} {value}: {error}"))
        };
        match argument.as_str() {
            "--rounds" => asked.rounds = Some(number()?),
            "--minutes" => asked.minutes = Some(number()?),
            "--mix" => asked.mix = Mix::parse(value()?)?,
            "--seed" => asked.seed = number()?,
            "--list" => asked.list = true,
            // What cargo hands to every test program, of no meaning here.
            "--test-threads" => _ = number()?,
            flag if flag.starts_with('-') => {}
            name => asked.programs.push(name.to_owned()),
        }
    }
    Ok(asked)
}

fn run_all(asked: &Asked) -> ExitCode {
    let wanted = |name: &str| {
        asked.programs.is_empty()
            || asked
                .programs
                .iter()
                .any(|part| name.contains(part.as_str()))
    };
    let mut failed = false;
    for program in PROGRAMS.iter().filter(|program| wanted(program.name)) {
        if asked.list {
            println!("{}: test", program.name);
            continue;
        }
        let rounds = asked.rounds.unwrap_or(program.rounds_short);
        let (name, seed) = (program.name, asked.seed);
        match asked.minutes {
            Some(minutes) => println!("torture {name} --minutes {minutes} --seed {seed}"),
            None => println!("torture {name} --rounds {rounds} --seed {seed}"),
        }
        let start = Instant::now();
        let outcome = (program.run)(Options {
            rounds,
            seed,
            mix: asked.mix,
            minutes: asked.minutes,
        });
        let seconds = start.elapsed().as_secs_f32();
        match outcome {
            Ok(report) => println!("torture {name}: {report}, seed {seed}, {seconds:.1} s"),
            Err(why) => {
                println!("torture {name} FAILED with seed {seed} after {seconds:.1} s: {why}");
                failed = true;
            }
        }
    }
    if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}
