//! When messages are due, and waking up at that moment to some microseconds.
//!
//! The runtime's own timer counts in milliseconds, which is more than most of
//! what is measured here takes.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use tokio::io::unix::AsyncFd;
use tokio::time::Instant;

use crate::cli::fail::{Failure, Result};

/// A timer of the operating system.
#[derive(Debug)]
pub struct Alarm {
    timer: AsyncFd<OwnedFd>,
    set: Option<Instant>,
}

impl Alarm {
    /// One that is not set.
    pub fn new() -> Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        #[expect(
            deprecated,
            reason = "unsound for owners that name another descriptor than theirs; this one does not"
        )]
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)
            .map_err(io::Error::from)
            .and_then(AsyncFd::new)
            .map_err(|error| Failure::io("a timer", &error))?;
        Ok(Self { timer, set: None })
    }

    /// Waits until that moment. It may be given up and called again, for the same moment or another one.
    pub async fn at(&mut self, moment: Instant) -> Result {
        self.wait(moment)
            .await
            .map_err(|error| Failure::io("a timer", &error))
    }

    async fn wait(&mut self, moment: Instant) -> io::Result<()> {
        while let Some(left) = moment.checked_duration_since(Instant::now()) {
            if left.is_zero() {
                break;
            }
            if self.set != Some(moment) {
                self.set(left)?;
                self.set = Some(moment);
            }
            let mut rung = self.timer.readable().await?;
            let read = rung.try_io(|timer| {
                let mut times = [0; 8];
                rustix::io::read(timer, &mut times).map_err(io::Error::from)
            });
            // Otherwise it was for a moment before this one.
            if let Ok(read) = read {
                read?;
                self.set = None;
            }
        }
        Ok(())
    }

    fn set(&self, left: Duration) -> io::Result<()> {
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
        let mut alarm = Alarm::new().expect("a timer");
        for us in [0, 1, 300, 2_000] {
            let moment = Instant::now() + Duration::from_micros(us);
            alarm.at(moment).await.expect("it rings");
            assert!(Instant::now() >= moment, "{us}");
        }
    }

    #[tokio::test]
    async fn it_can_be_given_up_for_another_moment() {
        let mut alarm = Alarm::new().expect("a timer");
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
}
