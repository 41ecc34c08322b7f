//! A mix of programs for a chosen time: one after the other has a turn, in a new order each time around, until the time
//! is over; then one verdict about all of them.

use std::time::{Duration, Instant};

use crate::programs::{Mix, Options, Program};
use crate::words::{Dice, mix};
use crate::{Failed, run_one};

/// Runs `chosen` in turns, each as long as it is in the suite, with faults as long as they get. A program that is alone and
/// can fill the time by itself is given all of it. The first failure ends everything.
pub fn run(chosen: &[&Program], time: Duration, faults: Mix, seed: u64) -> Result<(), Failed> {
    if let [program] = chosen
        && program.fills_time
    {
        let options = Options {
            rounds: 0,
            seed,
            mix: faults,
            is_long: true,
            time: Some(time),
        };
        return run_one(program, options);
    }
    let begun = Instant::now();
    let mut dice = Dice(seed);
    let mut turns = vec![0_u64; chosen.len()];
    let mut deck = Vec::new();
    let mut outcome = Ok(());
    while begun.elapsed() < time && outcome.is_ok() && !chosen.is_empty() {
        if deck.is_empty() {
            deck.extend(0..chosen.len());
        }
        let at = deck.swap_remove(dice.below(deck.len() as u64) as usize);
        let program = chosen[at];
        let options = Options {
            rounds: program.rounds_short,
            // One that can be asked for again by itself.
            seed: mix(dice.roll()) % 1_000_000_000,
            mix: faults,
            is_long: true,
            time: None,
        };
        outcome = run_one(program, options);
        turns[at] += 1;
    }
    if turns.iter().all(|turns| *turns == 0) {
        println!("torture: no program had a turn: nothing was broken, and nothing is known");
        return Err(Failed);
    }
    let told: Vec<String> = chosen
        .iter()
        .zip(&turns)
        .filter(|(_, turns)| **turns > 0)
        .map(|(program, turns)| format!("{turns} x {}", program.name))
        .collect();
    let verdict = if outcome.is_ok() {
        "sound"
    } else {
        "NOT SOUND"
    };
    println!(
        "torture: {} in {:.1} min; verdict: {verdict}, seed {seed}{}",
        told.join(", "),
        begun.elapsed().as_secs_f32() / 60.0,
        crate::programs::not_exercised(
            chosen
                .iter()
                .zip(&turns)
                .map(|(program, turns)| (program.name, *turns))
        )
    );
    outcome
}
