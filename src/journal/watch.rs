//! Which writes and syncs are running, for somebody who looks whether they come to an end.
//!
//! A call that hangs in the disk cannot tell, and whoever made it cannot either. So each thread
//! enters here what it does, and another, which touches no disk, looks from time to time.
//!
//! Time is counted by those looks and not read from a clock: a process that was stopped, or a
//! machine that was suspended, finds its calls where they were, and their age as well.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What runs on the disk now.
#[derive(Debug, Default)]
pub struct DiskWatch(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    last_id: u64,
    running: Vec<Running>,
}

#[derive(Debug)]
struct Running {
    id: u64,
    action: &'static str,
    age: Duration,
}

/// A call that has been running for so long, as far as was looked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LongestCall {
    /// What it does: "sync", "write".
    pub action: &'static str,
    /// For how long.
    pub age: Duration,
}

impl DiskWatch {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `call`, seen by those who look.
    pub(super) fn during<T>(&self, action: &'static str, call: impl FnOnce() -> T) -> T {
        let entered = self.enter(action);
        let outcome = call();
        drop(entered);
        outcome
    }

    fn enter(&self, action: &'static str) -> Entered<'_> {
        let mut inner = self.lock();
        inner.last_id += 1;
        let id = inner.last_id;
        inner.running.push(Running {
            id,
            action,
            age: Duration::ZERO,
        });
        Entered { watch: self, id }
    }

    /// Lets time pass for all that runs, and tells what has been running for longest.
    pub fn look(&self, passed: Duration) -> Option<LongestCall> {
        let mut inner = self.lock();
        for call in &mut inner.running {
            call.age += passed;
        }
        let longest = inner.running.iter().max_by_key(|call| call.age)?;
        Some(LongestCall {
            action: longest.action,
            age: longest.age,
        })
    }
}

/// A call that runs.
struct Entered<'a> {
    watch: &'a DiskWatch,
    id: u64,
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        self.watch.lock().running.retain(|call| call.id != self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn what_runs_ages_with_each_look() {
        let watch = DiskWatch::default();
        assert_eq!(watch.look(SECOND), None);
        watch.during("write", || {
            watch.look(SECOND);
            watch.during("sync", || {
                let action = "write";
                let age = SECOND * 3;
                assert_eq!(watch.look(SECOND * 2), Some(LongestCall { action, age }));
            });
        });
        assert_eq!(watch.look(SECOND), None);
        watch.during("sync", || {
            let (action, age) = ("sync", SECOND);
            assert_eq!(watch.look(SECOND), Some(LongestCall { action, age }));
        });
    }
}
