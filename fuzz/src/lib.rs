//! Hostile bytes for everything in Tidings that reads bytes from outside. `README.md` says how to run it.
//!
//! `targets` says what is asked; each program in `fuzz_targets/` asks one of them of what the fuzzer comes up with, and
//! `tests/suite/corpora.rs` of the project asks all of them of the inputs in `corpus/`.

pub mod targets;

use std::panic;
use std::sync::Once;

use peak_alloc::PeakAlloc;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

const MIB: usize = 1 << 20;

/// Asks a target, and that it stays within its memory.
pub fn run(name: &str, data: &[u8]) {
    static PREPARED: Once = Once::new();
    PREPARED.call_once(tell_panics_apart);
    let target = targets::named(name).expect("every program is named after a target");
    let before = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    (target.run)(data);
    let taken = MEMORY.peak_usage().saturating_sub(before);
    assert!(
        taken <= target.memory * MIB,
        "{taken} bytes of memory for {} of input: at most {} MiB expected",
        data.len(),
        target.memory
    );
}

/// The database panics on some damaged files. That is expected, and caught where it is used: `catalog::watched`. All other
/// panics end the program, on whatever thread.
fn tell_panics_apart() {
    let abort = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        let of_database = |file: &str| file.contains("/sled-0.34");
        if !info.location().is_some_and(|at| of_database(at.file())) {
            abort(info);
        }
    }));
}
