//! The watchdog: notices that the disk hangs.
//!
//! A thread that does nothing else and waits for nobody: everybody else may
//! be the one who hangs, the keeper and the thread of the slots included. It
//! ends when nobody has the store any more.

use std::sync::Weak;
use std::time::{Duration, Instant};

use super::shared::Shared;
use crate::journal::LongestCall;
use crate::limits;

/// How often it looks.
const TICK: Duration = Duration::from_millis(200);
/// What one look counts at most: a process that was stopped for long was not waiting for its disk.
const TICK_MAX: Duration = Duration::from_secs(1);

/// Runs until the store is gone.
pub(super) fn run(shared: &Weak<Shared>) {
    let mut looked = Instant::now();
    loop {
        std::thread::sleep(TICK);
        let Some(shared) = shared.upgrade() else {
            return;
        };
        let passed = looked.elapsed().min(TICK_MAX);
        looked = Instant::now();
        if let Some(reason) = shared.dir.watch().look(passed).and_then(too_long) {
            shared.fail(&reason);
        }
    }
}

fn too_long(call: LongestCall) -> Option<String> {
    (call.age > limits::SYNC_TIMEOUT).then(|| {
        format!(
            "a {} of the journal has been running for {} s, more than the {} s allowed: is the disk stuck?",
            call.action,
            call.age.as_secs(),
            limits::SYNC_TIMEOUT.as_secs()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_more_than_the_limit_is_too_long() {
        let call = |age| LongestCall {
            action: "write",
            age,
        };
        assert_eq!(too_long(call(limits::SYNC_TIMEOUT)), None);
        let reason = too_long(call(limits::SYNC_TIMEOUT + TICK)).expect("too long");
        assert!(reason.contains("a write of the journal"), "{reason}");
    }
}
