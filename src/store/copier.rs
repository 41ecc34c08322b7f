//! The copier: a thread that copies segments together, so that nothing waits for it.
//!
//! ```text
//!   reclaimer --- sources ---> copier      reads them, writes cold segments that nothing names
//!             <-- outputs ----             and asks nobody
//!   expires, frees, lets segments be swapped meanwhile
//! ```
//!
//! Copying takes as long as its bytes take at the rate it is held to. Expiry and
//! the freeing of what is wholly dead go on meanwhile, sources included:
//!
//! 1. The copier only reads sources and writes slots that it took out of the pool
//!    and that nothing names. It changes neither the state nor any index nor the
//!    table of segments: those change by what the reclaimer asks for, one thing
//!    after the other, as without it.
//! 2. It holds its sources: a source that is freed meanwhile keeps its slot until
//!    the copier is done with it (J7). So what it reads is what was written.
//! 3. A source that was freed had nothing that lived. What was copied of it is dead
//!    in the copy too, since what is dead stays dead. The others are swapped without
//!    it, if that still gives back more than it takes.
//! 4. A source whose row changed otherwise (it was found damaged) is not swapped.
//! 5. There is one copy at a time: it takes at most so many slots before they are
//!    swapped or given back (J15).
//! 6. A crash at any time leaves slots that nothing names, which are free; or the
//!    one entry that swaps, whole. That a source was freed stands earlier in the
//!    stream than the swap that does without it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};

use super::asker::Stop;
use super::cold::Usage;
use super::copying::{Copied, Job, Pace, copy};
use super::lifetimes::{Moments, Unread};
use super::pool::SlotPool;
use super::shared::Shared;
use super::sieve::Sieve;
use super::survey::{Surveyed, Surveying, lifetimes, survey};
use crate::journal::JournalError;

/// What the copier does.
enum Task {
    /// Copies segments together.
    Copy(Job),
    /// Reads what is to be cleaned of a topic.
    Survey(Surveying),
    /// Reads when what of a segment is over.
    Lifetimes(Unread),
}

/// How it went.
pub(super) enum Outcome {
    /// What was copied, and from where.
    Copied(Vec<Usage>, Result<Copied, JournalError>),
    /// What was read.
    Surveyed(Result<Surveyed, JournalError>),
    /// When what of a segment is over.
    Lifetimes(u64, Moments),
}

/// The same on the way back.
enum Done {
    Copied(Result<Copied, JournalError>),
    Surveyed(Result<Surveyed, JournalError>),
    Lifetimes(u64, Moments),
}

/// The copier's side.
pub(super) struct Copier {
    shared: Arc<Shared>,
    pool: Arc<SlotPool>,
    stop: Arc<Stop>,
    rate: Arc<AtomicU64>,
    tasks: Receiver<Task>,
    done: SyncSender<Done>,
}

/// The reclaimer's side.
pub(super) struct Copies {
    tasks: SyncSender<Task>,
    done: Receiver<Done>,
    /// Bytes per second; the largest number: as fast as the disk.
    rate: Arc<AtomicU64>,
    /// What is copied now, if anything is done; none while a topic is read.
    sources: Option<Vec<Usage>>,
}

/// Both sides.
pub(super) fn copier(
    shared: Arc<Shared>,
    pool: Arc<SlotPool>,
    stop: Arc<Stop>,
) -> (Copier, Copies) {
    let (to_copier, tasks) = sync_channel(1);
    let (done, outcomes) = sync_channel(1);
    let rate = Arc::new(AtomicU64::new(u64::MAX));
    let copier = Copier {
        shared,
        pool,
        stop,
        rate: rate.clone(),
        tasks,
        done,
    };
    let copies = Copies {
        tasks: to_copier,
        done: outcomes,
        rate,
        sources: None,
    };
    (copier, copies)
}

impl Copier {
    /// Runs until the reclaimer is gone.
    pub fn run(self) {
        while let Ok(task) = self.tasks.recv() {
            let stopping = || self.stop.is_stopped() || self.shared.failure().is_some();
            let pace = Pace {
                bytes_per_second: &self.rate,
                stopping: &stopping,
            };
            let outcome = match &task {
                Task::Copy(job) => Done::Copied(copy(&self.shared, &self.pool, job, &pace)),
                Task::Survey(what) => Done::Surveyed(survey(&self.shared, what, &pace)),
                Task::Lifetimes(of) => {
                    Done::Lifetimes(of.segment, lifetimes(&self.shared, of, &pace))
                }
            };
            // The pins go before the reclaimer hears of it: it waits for nothing else to give slots back.
            drop(task);
            if self.done.send(outcome).is_err() {
                return;
            }
        }
    }
}

impl Copies {
    /// Whether something is copied now.
    pub fn is_busy(&self) -> bool {
        self.sources.is_some()
    }

    /// How many bytes may be copied per second from now on; `None`: as many as the disk can.
    pub fn set_rate(&self, bytes_per_second: Option<u64>) {
        let rate = bytes_per_second.unwrap_or(u64::MAX);
        self.rate.store(rate, Ordering::Relaxed);
    }

    /// Begins to copy through a sieve, where nothing is done now.
    pub fn begin(
        &mut self,
        shared: &Shared,
        usages: Vec<Usage>,
        (sieve, may_be_even): (Sieve, bool),
    ) {
        let segment = |usage: &Usage| shared.segments.get(usage.number);
        let job = Job {
            sources: usages.iter().filter_map(segment).collect(),
            sieve,
            may_be_even,
        };
        self.send(Task::Copy(job), usages);
    }

    /// Begins to read a topic, where nothing is done now.
    pub fn begin_survey(&mut self, what: Surveying) {
        self.send(Task::Survey(what), Vec::new());
    }

    /// Begins to read when what of a segment is over, where nothing is done now.
    pub fn begin_lifetimes(&mut self, of: Unread) {
        self.send(Task::Lifetimes(of), Vec::new());
    }

    fn send(&mut self, task: Task, sources: Vec<Usage>) {
        // A copier that is gone has told why: the store has failed.
        if !self.is_busy() && self.tasks.try_send(task).is_ok() {
            self.sources = Some(sources);
        }
    }

    /// What was done, and how it went.
    pub fn take_done(&mut self) -> Option<Outcome> {
        self.sources.as_ref()?;
        let done = match self.done.try_recv() {
            Ok(done) => done,
            Err(TryRecvError::Empty | TryRecvError::Disconnected) => return None,
        };
        let sources = self.sources.take()?;
        Some(match done {
            Done::Copied(how) => Outcome::Copied(sources, how),
            Done::Surveyed(how) => Outcome::Surveyed(how),
            Done::Lifetimes(segment, moments) => Outcome::Lifetimes(segment, moments),
        })
    }
}
