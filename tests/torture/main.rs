//! Breaking the store on purpose. `docs/testing.md` says what each program does and how to run the long forms.
//!
//!     cargo test --test torture                            all of them, short
//!     cargo test --release --test torture -- images --rounds 20000 --seed 7
//!     cargo test --release --test torture -- faults --mix kill,stop,slow --minutes 10 --seed 7
//!     cargo test --release --test torture -- kill power flips faults --minutes 60
//!
//! One process runs the programs; each runs drivers, which are this program again (`driver`), and
//! checks what they say. There is no test harness around it because of that.
#![allow(missing_docs)]

mod disk;
mod driver;
mod model;
mod programs;
mod run;
mod turns;
mod words;

use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};

use programs::{Mix, Options, PROGRAMS, Program};

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
    skipped: Vec<String>,
    rounds: Option<u64>,
    time: Option<Duration>,
    mix: Mix,
    is_long: bool,
    seed: u64,
    list: bool,
}

/// What cargo hands to every test program of a package at once, of no meaning here.
const OF_CARGO: [&str; 8] = [
    "--nocapture",
    "--no-capture",
    "--show-output",
    "--quiet",
    "-q",
    "--exact",
    "--ignored",
    "--include-ignored",
];
/// The same, with a value behind it.
const OF_CARGO_WITH_VALUE: [&str; 4] = ["--test-threads", "--format", "--color", "-Z"];

fn parse(arguments: &[String]) -> Result<Asked, String> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let mut asked = Asked {
        programs: Vec::new(),
        skipped: Vec::new(),
        rounds: None,
        time: None,
        mix: Mix::ALL,
        is_long: false,
        seed: now.map_or(1, |now| now.as_millis() as u64 % 1_000_000_000),
        list: false,
    };
    // As `--flag value` or as `--flag=value`.
    let words = arguments
        .iter()
        .flat_map(|argument| match argument.split_once('=') {
            Some((flag, value)) if flag.starts_with("--") => {
                vec![flag.to_owned(), value.to_owned()]
            }
            _ => vec![argument.clone()],
        });
    let words: Vec<String> = words.collect();
    let mut rest = words.iter();
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
            "--minutes" => asked.time = Some(Duration::from_secs(60 * number()?)),
            "--mix" => asked.mix = Mix::parse(value()?)?,
            "--long" => asked.is_long = true,
            "--seed" => asked.seed = number()?,
            "--list" => asked.list = true,
            "--skip" => asked.skipped.push(value()?.clone()),
            flag if OF_CARGO.contains(&flag) => {}
            flag if OF_CARGO_WITH_VALUE.contains(&flag) => _ = value()?,
            flag if flag.starts_with('-') => {
                return Err(format!(
                    "{flag} is not known; there are --rounds, --minutes, --mix, --long, --seed, --list and --skip"
                ));
            }
            name => asked.programs.push(name.to_owned()),
        }
    }
    if asked.rounds.is_some() && asked.time.is_some() {
        return Err("--rounds says how often, --minutes how long: one of them".to_owned());
    }
    Ok(asked)
}

impl Asked {
    fn chosen(&self) -> Vec<&'static Program> {
        let is_in = |name: &str, parts: &[String]| parts.iter().any(|part| name.contains(&**part));
        let wanted = |program: &&Program| {
            (self.programs.is_empty() || is_in(program.name, &self.programs))
                && !is_in(program.name, &self.skipped)
        };
        PROGRAMS.iter().filter(wanted).collect()
    }
}

fn run_all(asked: &Asked) -> ExitCode {
    let chosen = asked.chosen();
    if asked.list {
        chosen
            .iter()
            .for_each(|program| println!("{}: test", program.name));
        return ExitCode::SUCCESS;
    }
    let outcome = match asked.time {
        Some(time) => turns::run(&chosen, time, asked.mix, asked.seed),
        None => run_each(&chosen, asked),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failed) => ExitCode::FAILURE,
    }
}

/// A program found something; it was told.
struct Failed;

fn run_each(chosen: &[&Program], asked: &Asked) -> Result<(), Failed> {
    let mut all = Ok(());
    for program in chosen {
        let options = Options {
            rounds: asked.rounds.unwrap_or(program.rounds_short),
            seed: asked.seed,
            mix: asked.mix,
            is_long: asked.is_long,
            time: None,
        };
        if run_one(program, options).is_err() {
            all = Err(Failed);
        }
    }
    all
}

/// Runs a program and tells how it went, and before that how to have the same again.
fn run_one(program: &Program, options: Options) -> Result<(), Failed> {
    let (name, seed) = (program.name, options.seed);
    let how_much = match options.time {
        Some(time) => format!("--minutes {}", time.as_secs() / 60),
        None => format!("--rounds {}", options.rounds),
    };
    let long = if options.is_long { " --long" } else { "" };
    let mix = match options.mix.is_all() {
        true => String::new(),
        false => format!(" --mix {}", options.mix.names()),
    };
    println!("torture {name} {how_much}{long}{mix} --seed {seed}");
    let start = Instant::now();
    let outcome = (program.run)(options);
    let seconds = start.elapsed().as_secs_f32();
    match outcome {
        Ok(report) => {
            println!("torture {name}: {report}, seed {seed}, {seconds:.1} s");
            Ok(())
        }
        Err(why) => {
            println!("torture {name} FAILED with seed {seed} after {seconds:.1} s: {why}");
            Err(Failed)
        }
    }
}
