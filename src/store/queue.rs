//! What waits for the writer: one lock to put something in, one to take all of it.
//!
//! Bounded twice. The bytes of record batches are bounded by whoever admits
//! requests (they hold part of the process' budget until they are answered);
//! the number of commands from outside is bounded here: beyond it a command is
//! refused. What the store asks of itself (seals, swaps, snapshots, the first
//! entries of a life) comes in numbers bounded by segments and topics and is
//! always taken: a refusal would lose it.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use super::command::Command;
use crate::limits;

#[derive(Default)]
struct Inner {
    commands: VecDeque<Command>,
    stopping: bool,
    waiting: bool,
}

/// The queue in front of the writer.
#[derive(Default)]
pub(super) struct Queue {
    inner: Mutex<Inner>,
    arrived: Condvar,
}

/// Why a command was not taken.
#[allow(clippy::large_enum_variant)] // handed back once, where the caller answers it
pub(super) enum Refused {
    /// The writer has stopped or is stopping.
    Stopped(Command),
    /// Too many wait.
    Full(Command),
}

/// What a wait brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    /// Commands, perhaps none if the time was over.
    Some,
    /// Nothing will come any more.
    Stopped,
}

impl Queue {
    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        // A panic while holding the lock cannot leave a half-done change: each change is one push or one swap.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a command in.
    #[allow(clippy::result_large_err)]
    pub fn push(&self, command: Command) -> Result<(), Refused> {
        self.put(command, limits::APPEND_COMMANDS_WAITING_MAX)
    }

    /// Puts a command of the store's own in. False: the writer takes no more.
    pub fn push_own(&self, command: Command) -> bool {
        self.put(command, usize::MAX).is_ok()
    }

    #[allow(clippy::result_large_err)]
    fn put(&self, command: Command, room: usize) -> Result<(), Refused> {
        let mut inner = self.lock();
        if inner.stopping {
            return Err(Refused::Stopped(command));
        }
        if inner.commands.len() >= room {
            return Err(Refused::Full(command));
        }
        inner.commands.push_back(command);
        let wake = std::mem::take(&mut inner.waiting);
        drop(inner);
        if wake {
            self.arrived.notify_one();
        }
        Ok(())
    }

    /// Moves everything that waits behind what is in `into`; waits for something to come, at most `wait`, when both are empty.
    pub fn take(&self, into: &mut VecDeque<Command>, wait: Duration) -> Taken {
        let mut inner = self.lock();
        if into.is_empty() && inner.commands.is_empty() && !inner.stopping && !wait.is_zero() {
            inner.waiting = true;
            let (guard, _) = self
                .arrived
                .wait_timeout_while(inner, wait, |inner| inner.waiting && !inner.stopping)
                .unwrap_or_else(PoisonError::into_inner);
            inner = guard;
            inner.waiting = false;
        }
        if into.is_empty() {
            std::mem::swap(into, &mut inner.commands);
        } else {
            into.append(&mut inner.commands);
        }
        if inner.stopping && into.is_empty() {
            Taken::Stopped
        } else {
            Taken::Some
        }
    }

    /// Takes no more; the writer finishes what is in and ends.
    pub fn stop(&self) {
        self.lock().stopping = true;
        self.arrived.notify_all();
    }

    /// Takes no more and hands back what waits, for a writer that failed.
    pub fn drain(&self) -> VecDeque<Command> {
        let mut inner = self.lock();
        inner.stopping = true;
        std::mem::take(&mut inner.commands)
    }
}
