//! Breaking the store on purpose. `docs/testing.md` says what each program does and how to run the long forms.
//!
//!     cargo test --test torture                            all of them, short
//!     cargo test --release --test torture -- images --rounds 20000 --seed 7
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

use programs::{Options, PROGRAMS};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == "driver") {
        driver::main();
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
    seed: u64,
    list: bool,
}

fn parse(arguments: &[String]) -> Result<Asked, String> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let mut asked = Asked {
        programs: Vec::new(),
        rounds: None,
        seed: now.map_or(1, |now| now.as_millis() as u64 % 1_000_000_000),
        list: false,
    };
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let mut number = || {
            let value = rest
                .next()
                .ok_or_else(|| format!("{argument} needs a number"))?;
            value
                .parse::<u64>()
                .map_err(|error| format!("{argument} {value}: {error}"))
        };
        match argument.as_str() {
            "--rounds" => asked.rounds = Some(number()?),
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
        println!(
            "torture {} --rounds {rounds} --seed {}",
            program.name, asked.seed
        );
        let start = Instant::now();
        let outcome = (program.run)(Options {
            rounds,
            seed: asked.seed,
        });
        let seconds = start.elapsed().as_secs_f32();
        match outcome {
            Ok(report) => println!("torture {}: {report}, {seconds:.1} s", program.name),
            Err(why) => {
                println!(
                    "torture {} FAILED after {seconds:.1} s: {why}",
                    program.name
                );
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
