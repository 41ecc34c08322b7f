//! A thread that owns something which may hang or panic, and a watch over it.
//!
//! The database can wait for ever inside a flush (its condition variable has no
//! timeout and is not always notified of an error), can panic on damaged files,
//! and can wait for ever in its destructor for a thread that has panicked. So
//! nobody but this thread touches it. Callers hand over a closure, wait for its
//! result at most so long, and are told what came instead.
//!
//! Invariants:
//!
//! 1. After a timeout, a panic or an error that [stops](CatalogError::stops),
//!    the owned thing is never touched again, not even dropped: its destructor
//!    would write, or hang. It is leaked, and the process is about to end or to
//!    build a new one beside it.
//! 2. At most one closure is outstanding, so the queue of one never fills.
//!
//! Deliberately missing: killing the thread. There is no safe way.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use super::error::CatalogError;

type Job<S> = Box<dyn FnOnce(&mut Option<S>) + Send>;

/// Owns an `S` on a thread of its own.
pub(super) struct Watched<S> {
    jobs: SyncSender<Job<S>>,
    /// Set once `S` must not be touched any more (invariant 1).
    abandoned: Arc<AtomicBool>,
    path: PathBuf,
    limit: Duration,
}

impl<S> Watched<S> {
    /// Starts the thread and makes the `S` on it. `limit` is the watch over the
    /// making and, later, over closing; `path` is what errors name.
    pub(super) fn start<F>(path: &Path, limit: Duration, make: F) -> Result<Self, CatalogError>
    where
        S: Send + 'static,
        F: FnOnce() -> Result<S, CatalogError> + Send + 'static,
    {
        let (jobs, waiting) = sync_channel(1);
        let abandoned = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&abandoned);
        thread::Builder::new()
            .name("catalog".to_owned())
            .spawn(move || serve(&waiting, &seen))
            .map_err(|source| CatalogError::io("start a thread for", path, source))?;
        let mut this = Self {
            jobs,
            abandoned,
            path: path.to_path_buf(),
            limit,
        };
        this.ask("opening", limit, move |owned| {
            *owned = Some(make()?);
            Ok(())
        })?;
        Ok(this)
    }

    /// Runs `work` on the owned thing and waits for it at most `limit`.
    pub(super) fn run<T, F>(
        &mut self,
        action: &'static str,
        limit: Duration,
        work: F,
    ) -> Result<T, CatalogError>
    where
        T: Send + 'static,
        F: FnOnce(&mut S) -> Result<T, CatalogError> + Send + 'static,
    {
        let path = self.path.clone();
        self.ask(action, limit, move |owned| match owned {
            Some(owned) => work(owned),
            None => Err(CatalogError::Stopped { path }),
        })
    }

    /// Drops the owned thing and waits for that, so that its files are closed.
    pub(super) fn close(mut self) -> Result<(), CatalogError> {
        self.drop_owned()
    }

    fn drop_owned(&mut self) -> Result<(), CatalogError> {
        if self.abandoned.load(Ordering::Acquire) {
            return Ok(());
        }
        self.ask("closing", self.limit, |owned| {
            drop(owned.take());
            Ok(())
        })
    }

    fn ask<T, F>(
        &mut self,
        action: &'static str,
        limit: Duration,
        work: F,
    ) -> Result<T, CatalogError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Option<S>) -> Result<T, CatalogError> + Send + 'static,
    {
        if self.abandoned.load(Ordering::Acquire) {
            return Err(self.stopped());
        }
        let (answer, answered) = sync_channel(1);
        let abandoned = Arc::clone(&self.abandoned);
        let job: Job<S> = Box::new(move |owned| {
            let result = catch_unwind(AssertUnwindSafe(|| work(owned)));
            if !matches!(&result, Ok(Ok(_))) && stops(&result) {
                abandoned.store(true, Ordering::Release);
            }
            // Nobody listening means the watch ran out; it has said so.
            let _ = answer.send(result);
        });
        if self.jobs.send(job).is_err() {
            return Err(self.stopped());
        }
        match wait(&answered, limit) {
            Ok(Ok(result)) => result,
            Ok(Err(panic)) => Err(CatalogError::Panicked {
                path: self.path.clone(),
                message: message_of(panic.as_ref()),
            }),
            Err(RecvTimeoutError::Timeout) => {
                self.abandoned.store(true, Ordering::Release);
                Err(CatalogError::SyncTimedOut {
                    path: self.path.clone(),
                    action,
                    after: limit,
                })
            }
            Err(RecvTimeoutError::Disconnected) => Err(self.stopped()),
        }
    }

    fn stopped(&self) -> CatalogError {
        CatalogError::Stopped {
            path: self.path.clone(),
        }
    }
}

/// Waits in pieces: a process that was stopped meanwhile, and with it whoever should answer, loses one of them.
fn wait<T>(answered: &Receiver<T>, limit: Duration) -> Result<T, RecvTimeoutError> {
    let piece = limit / PIECES;
    for _ in 1..PIECES {
        match answered.recv_timeout(piece) {
            Err(RecvTimeoutError::Timeout) => {}
            outcome => return outcome,
        }
    }
    answered.recv_timeout(piece)
}

/// Pieces that a wait is made of.
const PIECES: u32 = 100;

fn stops<T>(result: &thread::Result<Result<T, CatalogError>>) -> bool {
    match result {
        Ok(Ok(_)) => false,
        Ok(Err(error)) => error.stops(),
        Err(_) => true,
    }
}

impl<S> Drop for Watched<S> {
    fn drop(&mut self) {
        // Waits, so that a store opened next does not meet this one still closing.
        if let Err(error) = self.drop_owned() {
            tracing::warn!(path = %self.path.display(), %error, "a store was not closed cleanly");
        }
    }
}

fn serve<S>(waiting: &Receiver<Job<S>>, abandoned: &AtomicBool) {
    let mut owned = None;
    while let Ok(job) = waiting.recv() {
        job(&mut owned);
        if abandoned.load(Ordering::Acquire) {
            break;
        }
    }
    if abandoned.load(Ordering::Acquire) {
        std::mem::forget(owned);
    } else if catch_unwind(AssertUnwindSafe(|| drop(owned))).is_err() {
        tracing::error!("the database panicked while it was closed");
    }
}

fn message_of(panic: &(dyn Any + Send)) -> String {
    if let Some(text) = panic.downcast_ref::<&str>() {
        (*text).to_owned()
    } else if let Some(text) = panic.downcast_ref::<String>() {
        text.clone()
    } else {
        "no message".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::time::Instant;

    use super::*;

    const PATIENT: Duration = Duration::from_secs(60);

    /// Says when it is dropped.
    struct Thing(Arc<Mutex<Vec<&'static str>>>);

    impl Drop for Thing {
        fn drop(&mut self) {
            self.0.lock().expect("not poisoned").push("dropped");
        }
    }

    fn watched() -> (Watched<Thing>, Arc<Mutex<Vec<&'static str>>>) {
        let events = Arc::default();
        let thing = Thing(Arc::clone(&events));
        let made = Watched::start(Path::new("thing"), PATIENT, move || Ok(thing));
        (made.expect("starts"), events)
    }

    fn events(of: &Mutex<Vec<&'static str>>) -> Vec<&'static str> {
        of.lock().expect("not poisoned").clone()
    }

    #[test]
    fn closing_waits_for_the_drop() {
        let (mut watched, seen) = watched();
        let answer = watched.run("work", PATIENT, |_| Ok(42)).expect("works");
        assert_eq!(answer, 42);
        watched.close().expect("closes");
        assert_eq!(events(&seen), ["dropped"]);
    }

    #[test]
    fn what_hangs_is_given_up_and_never_touched_again() {
        let (mut watched, seen) = watched();
        let (release, released) = sync_channel::<()>(0);
        let started = Instant::now();
        let limit = Duration::from_millis(50);
        let result = watched.run("a flush", limit, move |_| {
            let _ = released.recv();
            Ok(())
        });
        match result {
            Err(error @ CatalogError::SyncTimedOut { .. }) => {
                assert!(error.stops());
                assert!(error.to_string().contains("a flush"), "{error}");
            }
            other => panic!("{other:?}"),
        }
        assert!(started.elapsed() >= limit);
        assert!(matches!(
            watched.run("work", PATIENT, |_| Ok(())),
            Err(CatalogError::Stopped { .. })
        ));
        // Dropping does not wait for what hangs, and what hangs is not dropped
        // even when it comes back.
        drop(watched);
        drop(release);
        let deadline = Instant::now() + PATIENT;
        while Arc::strong_count(&seen) > 2 && Instant::now() < deadline {
            thread::yield_now();
        }
        assert_eq!(events(&seen), [""; 0]);
    }

    #[test]
    fn a_panic_is_an_answer() {
        let (mut watched, seen) = watched();
        let result = watched.run("work", PATIENT, |_| -> Result<(), CatalogError> {
            panic!("page {} is gone", 7)
        });
        match result {
            Err(CatalogError::Panicked { message, .. }) => assert_eq!(message, "page 7 is gone"),
            other => panic!("{other:?}"),
        }
        assert!(matches!(
            watched.run("work", PATIENT, |_| Ok(())),
            Err(CatalogError::Stopped { .. })
        ));
        drop(watched);
        assert_eq!(events(&seen), [""; 0]);
    }

    #[test]
    fn an_error_that_stops_stops() {
        let (mut watched, _) = watched();
        let harmless = watched.run("work", PATIENT, |_| -> Result<(), CatalogError> {
            Err(CatalogError::TooLarge {
                what: "value",
                bytes: 2,
                limit: 1,
            })
        });
        assert!(!harmless.expect_err("too large").stops());
        watched.run("work", PATIENT, |_| Ok(())).expect("goes on");
        let failed = watched.run("work", PATIENT, |_| -> Result<(), CatalogError> {
            Err(CatalogError::SyncFailed {
                path: PathBuf::from("thing"),
                reason: "no".to_owned(),
            })
        });
        assert!(failed.expect_err("failed").stops());
        assert!(matches!(
            watched.run("work", PATIENT, |_| Ok(())),
            Err(CatalogError::Stopped { .. })
        ));
    }

    #[test]
    fn what_cannot_be_made_is_an_error() {
        let made = Watched::<Thing>::start(Path::new("thing"), PATIENT, || {
            Err(CatalogError::ruined(Path::new("thing"), "no"))
        });
        assert!(matches!(made.err(), Some(CatalogError::Ruined { .. })));
    }
}
