//! Random walks beside a model: worlds that begin with a seed each and go so many steps.
//!
//! `TIDINGS_MODEL_STEPS` says how many steps to go over all worlds (a million takes minutes), `TIDINGS_MODEL_SEED` where
//! to begin. The seed of a world that fails is printed; with it as the first one the same world comes first.

use std::collections::BTreeMap;

/// Numbers from a seed.
pub(crate) struct Random(u64);

impl Random {
    pub fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }

    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    pub fn between(&mut self, from: u64, to: u64) -> u64 {
        from + self.below(to - from + 1)
    }

    /// One of these; none of none.
    pub fn of<'a, T>(&mut self, all: &'a [T]) -> Option<&'a T> {
        match all.len() as u64 {
            0 => None,
            count => all.get(self.below(count) as usize),
        }
    }
}

/// How often what happened: a walk in which something never does says nothing about it.
#[derive(Default)]
pub(crate) struct Seen(BTreeMap<&'static str, u64>);

impl Seen {
    pub fn note(&mut self, what: &'static str) {
        self.count(what, 1);
    }

    pub fn count(&mut self, what: &'static str, times: u64) {
        *self.0.entry(what).or_default() += times;
    }
}

/// The real thing and its model, side by side.
pub(crate) trait World {
    /// Steps of one world.
    const STEPS: u64 = 500;
    /// What has to happen in a walk of the default length.
    const WANTED: &'static [&'static str] = &[];

    fn new(random: Random) -> Self;

    /// Does something to both, and compares them.
    fn step(&mut self);

    /// Whether it has grown too large to be quick.
    fn is_full(&self) -> bool {
        false
    }

    fn seen(&self) -> Option<&Seen> {
        None
    }
}

fn number(name: &str, default: u64) -> u64 {
    let set = std::env::var(name).ok();
    set.map_or(default, |text| text.parse().expect("a number"))
}

/// What a world prints when it fails.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("TIDINGS_MODEL_SEED={}", self.0);
        }
    }
}

/// Goes through worlds until there were so many steps.
pub(crate) fn walk<W: World>(default: u64) {
    let steps = number("TIDINGS_MODEL_STEPS", default);
    let first = number("TIDINGS_MODEL_SEED", 1);
    let (mut gone, mut worlds) = (0, 0);
    let mut seen = Seen::default();
    while gone < steps {
        let seed = Seed(first + worlds);
        let mut world = W::new(Random(seed.0));
        for _ in 0..W::STEPS {
            if world.is_full() {
                break;
            }
            world.step();
            gone += 1;
        }
        worlds += 1;
        let of_world = world.seen().into_iter().flat_map(|seen| &seen.0);
        of_world.for_each(|(what, times)| seen.count(what, *times));
    }
    let last = first + worlds - 1;
    eprintln!(
        "{gone} steps in {worlds} worlds, seeds {first} to {last}: {:?}",
        seen.0
    );
    let missed = W::WANTED.iter().filter(|what| !seen.0.contains_key(*what));
    let missed: Vec<_> = missed.collect();
    assert!(
        missed.is_empty() || steps < default,
        "never happened: {missed:?}"
    );
}
