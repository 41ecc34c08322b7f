//! When messages are due, and waking up at that moment to some microseconds.
//!
//! The runtime's own timer counts in milliseconds, which is more than most of
//! what is measured here takes. A [`Clock`] is a timer of the operating system
//! that counts in nanoseconds. All who wait share it: with a timer each, a
//! thousand clients would cost the machine as much for being woken as for what
//! they ask, and nobody who is late would be woken together with others.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use tokio::io::unix::AsyncFd;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use crate::cli::fail::{Failure, Result};

/// Wakes all who wait for a moment.
#[derive(Debug, Clone)]
pub struct Clock {
    face: Arc<Face>,
    _ticking: Arc<AbortOnDropHandle<()>>,
}

#[derive(Debug)]
struct Face {
    timer: AsyncFd<OwnedFd>,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    /// By moment, and by the alarm that is set for it.
    alarms: BTreeMap<(Instant, u64), Waker>,
    /// Alarms made.
    made: u64,
    failed: bool,
}

impl Clock {
    /// Starts it.
    pub fn start() -> Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        #[expect(
            deprecated,
            reason = "unsound for owners that name another descriptor than theirs; this one does not"
        )]
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)
            .map_err(io::Error::from)
            .and_then(AsyncFd::new)
            .map_err(|error| failure(&error))?;
        let face = Arc::new(Face {
            timer,
            waiting: Mutex::default(),
        });
        let ticking = tokio::spawn(tick(face.clone()));
        Ok(Self {
            face,
            _ticking: Arc::new(AbortOnDropHandle::new(ticking)),
        })
    }

    /// An alarm that is not set.
    pub fn alarm(&self) -> Alarm {
        let mut waiting = self.face.lock();
        waiting.made += 1;
        Alarm {
            number: waiting.made,
            clock: self.clone(),
            set: None,
        }
    }
}

fn failure(error: &io::Error) -> Failure {
    Failure::io("a timer", error)
}

/// Wakes whoever's moment has come.
async fn tick(face: Arc<Face>) {
    while let Ok(mut rung) = face.timer.readable().await {
        // It is not read: to set it anew takes back that it has rung.
        rung.clear_ready();
        let (due, set) = face.lock().take_due(&face);
        due.into_iter().for_each(Waker::wake);
        if set.is_err() {
            break;
        }
    }
    let alarms = {
        let mut waiting = face.lock();
        waiting.failed = true;
        std::mem::take(&mut waiting.alarms)
    };
    alarms.into_values().for_each(Waker::wake);
}

impl Face {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, moment: Instant) -> io::Result<()> {
        // Zero would switch it off.
        let left = moment
            .saturating_duration_since(Instant::now())
            .max(Duration::from_nanos(1));
        let zero = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let after = Itimerspec {
            it_interval: zero,
            it_value: Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: left.subsec_nanos().into(),
            },
        };
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &after)?;
        Ok(())
    }
}

impl Waiting {
    /// Takes the alarms out whose moment has come, and sets the timer for the next.
    fn take_due(&mut self, face: &Face) -> (Vec<Waker>, io::Result<()>) {
        let now = Instant::now();
        let later = self.alarms.split_off(&(now, u64::MAX));
        let due = std::mem::replace(&mut self.alarms, later);
        let next = self.alarms.first_key_value();
        let set = next.map_or(Ok(()), |(&(moment, _), _)| face.set(moment));
        (due.into_values().collect(), set)
    }
}

/// Waits for one moment after the other.
#[derive(Debug)]
pub struct Alarm {
    clock: Clock,
    number: u64,
    /// For when, and who is woken.
    set: Option<(Instant, Waker)>,
}

impl Alarm {
    /// Waits until that moment. It may be given up and called again, for the same moment or another one.
    pub async fn at(&mut self, moment: Instant) -> Result {
        poll_fn(|context| self.poll(moment, context))
            .await
            .map_err(|error| failure(&error))
    }

    fn poll(&mut self, moment: Instant, context: &Context<'_>) -> Poll<io::Result<()>> {
        if Instant::now() >= moment {
            self.unset();
            return Poll::Ready(Ok(()));
        }
        let waker = context.waker();
        let is_set = |(at, woken): &(Instant, Waker)| *at == moment && woken.will_wake(waker);
        if self.set.as_ref().is_some_and(is_set) {
            return Poll::Pending;
        }
        self.unset();
        let mut waiting = self.clock.face.lock();
        if waiting.failed {
            return Poll::Ready(Err(io::Error::other("it does not ring any more")));
        }
        waiting.alarms.insert((moment, self.number), waker.clone());
        self.set = Some((moment, waker.clone()));
        let first = waiting.alarms.first_key_value();
        let is_first = first.is_some_and(|(&(_, number), _)| number == self.number);
        match is_first.then(|| self.clock.face.set(moment)) {
            Some(Err(error)) => Poll::Ready(Err(error)),
            _ => Poll::Pending,
        }
    }

    fn unset(&mut self) {
        if let Some((moment, _)) = self.set.take() {
            let mut waiting = self.clock.face.lock();
            waiting.alarms.remove(&(moment, self.number));
        }
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        self.unset();
    }
}

/// When a message is due.
#[derive(Debug, Clone, Copy)]
pub struct Due {
    /// The first one's moment.
    pub began: Instant,
    /// So far apart.
    pub every: Duration,
    /// So many are due together, with the first of them.
    pub batch: u64,
}

impl Due {
    /// When that message of a publisher is due.
    pub fn of(self, number: u64) -> Instant {
        let first = number - number % self.batch;
        self.began + self.every.mul_f64(first as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_rings_at_the_moment_and_not_before() {
        let mut alarm = Clock::start().expect("a timer").alarm();
        for us in [0, 1, 300, 2_000] {
            let moment = Instant::now() + Duration::from_micros(us);
            alarm.at(moment).await.expect("it rings");
            assert!(Instant::now() >= moment, "{us}");
        }
    }

    #[tokio::test]
    async fn it_can_be_given_up_for_another_moment() {
        let mut alarm = Clock::start().expect("a timer").alarm();
        let soon = Instant::now() + Duration::from_millis(2);
        let late = soon + Duration::from_secs(3600);
        tokio::select! {
            biased;
            _ = alarm.at(late) => panic!("it rang too early"),
            () = std::future::ready(()) => {}
        }
        alarm.at(soon).await.expect("it rings");
        assert!((soon..late).contains(&Instant::now()));
    }

    #[tokio::test]
    async fn one_clock_wakes_everybody_at_their_moment() {
        let clock = Clock::start().expect("a timer");
        let began = Instant::now();
        let mut waiting = tokio::task::JoinSet::new();
        for number in 0..100_u64 {
            let mut alarm = clock.alarm();
            // Set in no order, and some for the same moment.
            let moment = began + Duration::from_micros(number * 37 % 50 * 100);
            waiting.spawn(async move {
                alarm.at(moment).await.expect("it rings");
                (number, Instant::now() >= moment)
            });
        }
        let mut woken = Vec::new();
        while let Some(rung) = waiting.join_next().await {
            let (number, is_in_time) = rung.expect("it ends");
            assert!(is_in_time, "{number}");
            woken.push(number);
        }
        woken.sort_unstable();
        assert_eq!(woken, (0..100).collect::<Vec<_>>());
        assert!(clock.face.lock().alarms.is_empty());
    }
}
