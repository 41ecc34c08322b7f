//! Attending a durable subscription: a long poll at its host that stays open beside
//! the reading.
//!
//! It tells the reader when the subscription is paused or resumed, and the host that
//! somebody reads. It goes on over reconnects and restarts of the host for as long as
//! the reader lives; while the host is away, what it said last holds.
//!
//! Absent on purpose: telling why a subscription is gone. Whoever reads through it
//! learns that from its own requests.

use std::time::Duration;

use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use crate::client::Subscriber;
use crate::client::cluster::Lane;
use crate::client::route::Route;
use crate::limits;
use crate::net::CallError;
use crate::protocol::api::{SubscriptionInfo, WatchSubscription, WatchedSubscription};
use crate::types::SubscriptionName;

/// Attends a subscription until it is dropped.
#[derive(Debug)]
pub(super) struct Attendance {
    /// Whether it is paused. Those who watch it stay when the task is another one.
    paused: watch::Sender<bool>,
    told: watch::Receiver<bool>,
    is_paused: bool,
    task: AbortOnDropHandle<()>,
}

impl Attendance {
    /// Begins with what the host at the end of the route just told.
    pub fn begin(route: &Route, subscription: &SubscriptionInfo) -> Self {
        let paused = watch::Sender::new(subscription.paused);
        Self {
            told: paused.subscribe(),
            is_paused: subscription.paused,
            task: Attending::begin(route, subscription, paused.clone()),
            paused,
        }
    }

    /// The same for a subscription that was read anew: it may have been gone in between, and is attended again.
    pub fn go_on(&mut self, route: &Route, subscription: &SubscriptionInfo) {
        if self.task.is_finished() {
            self.paused.send_replace(subscription.paused);
            self.task = Attending::begin(route, subscription, self.paused.clone());
        }
    }

    /// Whether the subscription is paused, as far as is known here. Costs next to nothing while that does not change.
    pub fn is_paused(&mut self) -> bool {
        if let Ok(true) = self.told.has_changed() {
            self.is_paused = *self.told.borrow_and_update();
        }
        self.is_paused
    }

    /// The same, as it changes.
    pub fn watch(&self) -> watch::Receiver<bool> {
        self.told.clone()
    }

    /// Waits until it is not paused.
    pub async fn resumed(&mut self) {
        if self.is_paused() {
            // Ended, there is nothing to wait for.
            let _ = self.told.wait_for(|paused| !paused).await;
            self.is_paused = false;
        }
    }
}

impl Subscriber {
    /// Whether the durable subscription is paused, as it changes; `None` without one. Reading goes on by itself
    /// when it is resumed; this is for telling somebody who waits.
    pub fn watch_pause(&self) -> Option<watch::Receiver<bool>> {
        self.attendance.as_ref().map(Attendance::watch)
    }

    pub(super) fn is_paused(&mut self) -> bool {
        self.attendance.as_mut().is_some_and(Attendance::is_paused)
    }

    /// Waits while the subscription is paused.
    pub(super) async fn resumed(&mut self) {
        if let Some(attendance) = &mut self.attendance {
            attendance.resumed().await;
        }
    }
}

/// A time as requests carry it.
pub(super) fn in_millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// The task's side.
struct Attending {
    route: Route,
    name: SubscriptionName,
    paused: watch::Sender<bool>,
}

impl Attending {
    fn begin(
        route: &Route,
        subscription: &SubscriptionInfo,
        paused: watch::Sender<bool>,
    ) -> AbortOnDropHandle<()> {
        let attending = Self {
            route: route.beside(Lane::Attend),
            name: subscription.name.clone(),
            paused,
        };
        AbortOnDropHandle::new(tokio::spawn(attending.run()))
    }

    fn tell(&self, paused: bool) {
        self.paused
            .send_if_modified(|told| std::mem::replace(told, paused) != paused);
    }

    /// Ends when the subscription or its topic is gone, or the host does not know what is asked.
    async fn run(mut self) {
        loop {
            match self.ask().await {
                Ok(WatchedSubscription { paused }) => {
                    self.route.progress();
                    self.tell(paused);
                }
                Err(error) => match self.route.recover(error).await {
                    Ok(()) => {}
                    // The reader may be more patient, or not read at all just now.
                    Err(error) if error.is_retryable() => {}
                    Err(error) => {
                        tracing::debug!(subscription = %self.name, %error, "not attended any more");
                        // Whoever reads learns from its own requests why there is nothing.
                        self.tell(false);
                        return;
                    }
                },
            }
        }
    }

    async fn ask(&self) -> Result<WatchedSubscription, CallError> {
        let connection = self.route.connection().await?;
        let answer_timeout = self.route.answer_timeout();
        let wait = limits::ATTENDANCE_WAIT
            .min(answer_timeout)
            .max(limits::RETRY_PAUSE_MIN);
        let request = WatchSubscription {
            topic: self.route.location().id,
            name: self.name.clone(),
            paused: *self.paused.borrow(),
            max_wait_ms: wait.as_millis() as u32,
        };
        let answer = connection.call(&request, wait + answer_timeout).await;
        if matches!(answer, Err(CallError::TimedOut { .. })) {
            // Whoever does not even answer a long poll is asked anew over another connection.
            connection.close();
        }
        answer
    }
}
