//! Who moves the messages of one companion, and when.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::Later;
use crate::limits;
use crate::protocol::error::ApiError;
use crate::store::ConsumerRows;
use crate::time::Timestamp;
use crate::topic::later::{Due, Schedule, StepBounds};
use crate::types::{SubscriptionName, TopicId};

/// What keeps due messages from being delivered.
#[derive(Debug, Clone)]
pub(super) struct Trouble {
    /// Its kind: told in the log when it changes.
    kind: &'static str,
    /// For people.
    pub text: String,
}

/// What the lock is around.
pub(super) struct Inner {
    pub schedule: Schedule,
    pub trouble: Option<Trouble>,
    /// Messages in a step: fewer where the target takes only few at once.
    pub step_records: usize,
    /// Nothing is delivered before, because it could not be just now.
    retry_at: Option<Instant>,
    retry_pause: Duration,
    /// When those that were set aside are tried again.
    aside_until: Instant,
}

/// Who moves the messages of one companion.
pub(super) struct Mover {
    pub companion: TopicId,
    pub target: TopicId,
    pub group: SubscriptionName,
    inner: Mutex<Inner>,
    /// Whatever changes what is pending, one after the other.
    pub turn: tokio::sync::Mutex<()>,
    wake: Notify,
    /// As in the schedule, for those who only look.
    cursor: AtomicU64,
    /// How many of it are counted among all that are pending.
    counted: AtomicU64,
}

impl Mover {
    pub fn new(
        (companion, target): (TopicId, TopicId),
        group: SubscriptionName,
        rows: ConsumerRows,
    ) -> Self {
        let schedule = Schedule::load(rows.row, rows.pages.into_iter());
        Self {
            cursor: AtomicU64::new(schedule.cursor().get()),
            companion,
            target,
            group,
            inner: Mutex::new(Inner {
                schedule,
                trouble: None,
                step_records: limits::DELAYED_STEP_RECORDS_MAX,
                retry_at: None,
                retry_pause: limits::DELAYED_RETRY_MIN,
                aside_until: Instant::now(),
            }),
            turn: tokio::sync::Mutex::default(),
            wake: Notify::new(),
            counted: AtomicU64::new(0),
        }
    }

    /// For decisions only, never over a wait.
    pub fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first offset that was not taken in.
    pub fn cursor(&self) -> u64 {
        self.cursor.load(Ordering::Relaxed)
    }

    /// Notes how far it was taken in, and how many are pending among those of `all`.
    pub fn note(&self, inner: &Inner, all: &AtomicU64) {
        let cursor = inner.schedule.cursor().get();
        self.cursor.store(cursor, Ordering::Relaxed);
        self.count(inner.schedule.len() as u64, all);
    }

    /// So many are counted among `all` from now on.
    pub fn count(&self, pending: u64, all: &AtomicU64) {
        let before = self.counted.swap(pending, Ordering::Relaxed);
        all.fetch_add(pending, Ordering::Relaxed);
        all.fetch_sub(before, Ordering::Relaxed);
    }

    /// Looks again at once.
    pub fn wake(&self) {
        self.lock().retry_at = None;
        self.wake.notify_one();
    }

    /// What a step may take now.
    pub fn bounds(&self) -> StepBounds {
        StepBounds {
            records: self.lock().step_records,
            bytes: limits::BATCH_BYTES_TARGET,
        }
    }

    fn is_to_wait(&self) -> bool {
        let retry_at = self.lock().retry_at;
        retry_at.is_some_and(|at| at > Instant::now())
    }

    /// It could not be done: when it is tried again, and whether that is news.
    fn failed(&self, error: &ApiError) {
        let mut inner = self.lock();
        let pause = inner.retry_pause;
        inner.retry_at = Some(Instant::now() + pause);
        inner.retry_pause = (pause * 2).min(limits::DELAYED_RETRY_MAX);
        drop(inner);
        self.tell(error.name(), error.to_string());
    }

    fn tell(&self, kind: &'static str, text: String) {
        let mut inner = self.lock();
        if inner.trouble.as_ref().is_none_or(|told| told.kind != kind) {
            let (target, companion) = (self.target, self.companion);
            tracing::warn!(%target, %companion, reason = %text, "delayed messages cannot be delivered");
        }
        inner.trouble = Some(Trouble { kind, text });
    }

    /// A step went well: the next may be larger. What keeps others is still so, for all that is known.
    pub fn went_well(&self) {
        let mut inner = self.lock();
        inner.retry_at = None;
        inner.retry_pause = limits::DELAYED_RETRY_MIN;
        inner.step_records = (inner.step_records * 2).min(limits::DELAYED_STEP_RECORDS_MAX);
    }

    /// Nothing that is due waits.
    fn caught_up(&self) {
        self.went_well();
        if self.lock().trouble.take().is_some() {
            let (target, companion) = (self.target, self.companion);
            tracing::info!(%target, %companion, "delayed messages are delivered again");
        }
    }

    /// One is set aside, because its target refuses it for good.
    pub fn set_aside(&self, due: Due, error: &ApiError) {
        let (number, at) = (due.number, due.at);
        let (target, companion) = (self.target, self.companion);
        tracing::warn!(%target, %companion, %number, %at, %error, "a delayed message is refused by its topic");
        let mut inner = self.lock();
        if inner.schedule.aside() == 0 {
            inner.aside_until = Instant::now() + limits::DELAYED_ASIDE_FOR;
        }
        inner.schedule.set_aside(due);
    }

    /// How long there is nothing to do.
    fn rests_for(&self, now: Timestamp) -> Option<Duration> {
        let inner = self.lock();
        let aside = (inner.schedule.aside() > 0)
            .then(|| inner.aside_until.saturating_duration_since(Instant::now()));
        let next = inner.schedule.next_due().map(|at| at.since(now));
        let retry = inner
            .retry_at
            .map(|at| at.saturating_duration_since(Instant::now()));
        // Nothing is tried before it may be.
        let next = next.map(|next| next.max(retry.unwrap_or_default()));
        let first = next.into_iter().chain(aside).min();
        first.map(|first| first.min(limits::DELAYED_CLOCK_EVERY))
    }
}

impl Later {
    /// Delivers what is due in one companion, until that is gone or the peer ends.
    pub(super) async fn tend(self: Arc<Self>, mover: Arc<Mover>) {
        let Ok(mut end) = self.store.watch_end(mover.companion) else {
            return self.forget(&mover).await;
        };
        loop {
            end.mark_unchanged();
            let rest = match self.look(&mover).await {
                Ok(()) => mover.rests_for(Timestamp::now()),
                Err(error) if self.is_over(&error, &mover) => return self.forget(&mover).await,
                Err(error) => {
                    mover.failed(&error);
                    mover.rests_for(Timestamp::now())
                }
            };
            let sleep = async {
                match rest {
                    Some(rest) => tokio::time::sleep(rest).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = mover.wake.notified() => {}
                changed = end.changed() => if changed.is_err() {
                    return self.forget(&mover).await;
                },
                () = sleep => {}
            }
        }
    }

    /// One look: takes in what is new, delivers what is due, moves what is old.
    async fn look(&self, mover: &Mover) -> Result<(), ApiError> {
        loop {
            let _turn = mover.turn.lock().await;
            self.take_in(mover).await?;
            if self.stop.is_cancelled() || mover.is_to_wait() {
                return Ok(());
            }
            let now = match self.believed_now() {
                Ok(now) => now,
                Err(ahead) => return self.tell_clock(mover, ahead),
            };
            {
                let mut inner = mover.lock();
                if inner.schedule.aside() > 0 && inner.aside_until <= Instant::now() {
                    inner.schedule.try_all();
                }
            }
            let bounds = mover.bounds();
            let chosen = mover.lock().schedule.due(now, bounds);
            if chosen.is_empty() {
                mover.caught_up();
                if self.pending.load(Ordering::Relaxed) == 0 {
                    self.unpacked.clear();
                }
                return self.move_old(mover).await;
            }
            self.deliver(mover, &chosen).await?;
        }
    }

    /// Nothing is due by a clock that jumped (the page on delayed messages, "Clocks").
    fn tell_clock(&self, mover: &Mover, ahead: Duration) -> Result<(), ApiError> {
        let is_pending = !mover.lock().schedule.is_empty();
        if is_pending {
            let minutes = ahead.as_secs() / 60;
            let text = format!(
                "the wall clock is {minutes} minutes ahead of the monotonic one: nothing is delivered until they agree \
                 again or the peer is restarted"
            );
            mover.tell("clock", text);
            mover.lock().retry_at = Some(Instant::now() + limits::DELAYED_CLOCK_EVERY);
        }
        Ok(())
    }

    /// Whether the companion is gone, or the peer.
    pub(super) fn is_over(&self, error: &ApiError, mover: &Mover) -> bool {
        match error {
            ApiError::UnknownTopicId { id } => *id == mover.companion,
            ApiError::ConsumerGroupNotFound { .. } | ApiError::StaleGeneration { .. } => true,
            ApiError::StorageStopped { .. } => true,
            _ => self.stop.is_cancelled(),
        }
    }
}
