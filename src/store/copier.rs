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
use super::copying::{Copied, Pace, copy};
use super::pool::SlotPool;
use super::segments::Segment;
use super::shared::Shared;
use crate::journal::JournalError;

/// Segments to be copied together.
struct Job {
    sources: Vec<Arc<Segment>>,
}

type Outcome = Result<Copied, JournalError>;

/// The copier's side.
pub(super) struct Copier {
    shared: Arc<Shared>,
    pool: Arc<SlotPool>,
    stop: Arc<Stop>,
    rate: Arc<AtomicU64>,
    jobs: Receiver<Job>,
    done: SyncSender<Outcome>,
}

/// The reclaimer's side.
pub(super) struct Copies {
    jobs: SyncSender<Job>,
    done: Receiver<Outcome>,
    /// Bytes per second; the largest number: as fast as the disk.
    rate: Arc<AtomicU64>,
    /// What is copied now.
    sources: Option<Vec<Usage>>,
}

/// Both sides.
pub(super) fn copier(
    shared: Arc<Shared>,
    pool: Arc<SlotPool>,
    stop: Arc<Stop>,
) -> (Copier, Copies) {
    let (to_copier, jobs) = sync_channel(1);
    let (done, outcomes) = sync_channel(1);
    let rate = Arc::new(AtomicU64::new(u64::MAX));
    let copier = Copier {
        shared,
        pool,
        stop,
        rate: rate.clone(),
        jobs,
        done,
    };
    let copies = Copies {
        jobs: to_copier,
        done: outcomes,
        rate,
        sources: None,
    };
    (copier, copies)
}

impl Copier {
    /// Runs until the reclaimer is gone.
    pub fn run(self) {
        while let Ok(job) = self.jobs.recv() {
            let stopping = || self.stop.is_stopped() || self.shared.failure().is_some();
            let pace = Pace {
                bytes_per_second: &self.rate,
                stopping: &stopping,
            };
            let outcome = copy(&self.shared, &self.pool, &job.sources, &pace);
            // The pins go before the reclaimer hears of it: it waits for nothing else to give slots back.
            drop(job);
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

    /// Begins to copy, where nothing is copied now.
    pub fn begin(&mut self, shared: &Shared, usages: Vec<Usage>) {
        let segment = |usage: &Usage| shared.segments.get(usage.number);
        let job = Job {
            sources: usages.iter().filter_map(segment).collect(),
        };
        // A copier that is gone has told why: the store has failed.
        if !self.is_busy() && self.jobs.try_send(job).is_ok() {
            self.sources = Some(usages);
        }
    }

    /// What was copied, and how it went, once it is done.
    pub fn take_done(&mut self) -> Option<(Vec<Usage>, Outcome)> {
        self.sources.as_ref()?;
        match self.done.try_recv() {
            Ok(outcome) => self.sources.take().map(|sources| (sources, outcome)),
            Err(TryRecvError::Empty | TryRecvError::Disconnected) => None,
        }
    }
}
