//! The client's side of a stream: what came and was not taken yet.
//!
//! Invariants:
//!
//! 1. What is held is bounded by the credit that was given: a node that sends something when none is left
//!    breaks the protocol, and the connection ends. An answer without a byte is a sign of life and is not kept.
//! 2. Who takes is told of the end after everything that came before it.
//! 3. A stream that nobody takes from any more is ended at the node; what still comes of it is dropped.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;

use crate::limits;
use crate::net::dial::{CallError, Connection};
use crate::protocol::api::StreamCredit;
use crate::protocol::data::Credit;

/// What is kept of a body, for as long as the application takes. A small one is copied: as a slice it would keep the whole
/// buffer it was read into, and a window full of small answers would be a hundred times what was given.
fn kept(body: Bytes) -> Bytes {
    match body.len() {
        small if small <= limits::READ_BUFFER_BYTES_MIN => Bytes::copy_from_slice(&body),
        _ => body,
    }
}

/// What the connection's task and the taker share.
#[derive(Debug, Default)]
pub(super) struct Incoming {
    queue: Mutex<Queue>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    bodies: VecDeque<Bytes>,
    /// Bytes that may still come; below zero after an answer that was larger.
    credit: i64,
    /// The node has answered.
    is_open: bool,
    is_unwanted: bool,
    end: Option<Result<(), CallError>>,
}

impl Incoming {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets more come.
    pub fn allow(&self, bytes: u64) {
        let mut queue = self.lock();
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        queue.credit = queue.credit.saturating_add(bytes);
    }

    /// Takes in an answer that more follow; or tells what is wrong with it.
    pub fn add(&self, body: Bytes) -> Result<(), String> {
        let mut queue = self.lock();
        let is_new = !std::mem::replace(&mut queue.is_open, true);
        if !body.is_empty() {
            if queue.credit <= 0 {
                return Err(format!(
                    "{} bytes of a stream came without credit for them",
                    body.len()
                ));
            }
            queue.credit = queue.credit.saturating_sub_unsigned(body.len() as u64);
            if queue.is_unwanted {
                return Ok(());
            }
            queue.bodies.push_back(kept(body));
        } else if !is_new {
            return Ok(());
        }
        drop(queue);
        self.changed.notify_one();
        Ok(())
    }

    /// Takes in the last answer.
    pub fn finish(&self, answer: Result<Bytes, CallError>) {
        let mut queue = self.lock();
        if let Ok(body) = &answer
            && !body.is_empty()
            && !queue.is_unwanted
        {
            queue.bodies.push_back(kept(body.clone()));
        }
        queue.end = Some(answer.map(|_| ()));
        drop(queue);
        self.changed.notify_one();
    }

    async fn until<T>(&self, found: impl Fn(&mut Queue) -> Option<T>) -> T {
        loop {
            let found = found(&mut self.lock());
            match found {
                Some(found) => return found,
                None => self.changed.notified().await,
            }
        }
    }
}

/// The taking end of a stream; made by [`Connection::open_stream`]. Dropping it ends the stream.
#[derive(Debug)]
pub struct Inlet {
    connection: Connection,
    correlation: u32,
    incoming: Arc<Incoming>,
}

impl Inlet {
    pub(super) fn new(connection: Connection, correlation: u32, incoming: Arc<Incoming>) -> Self {
        Self {
            connection,
            correlation,
            incoming,
        }
    }

    /// The connection it is on.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Whether the node has said that the stream stands.
    pub fn is_open(&self) -> bool {
        self.incoming.lock().is_open
    }

    /// Waits until the node has answered, or the stream has ended. May be dropped while it waits.
    pub async fn answered(&mut self) {
        let answered = |queue: &mut Queue| (queue.is_open || queue.end.is_some()).then_some(());
        self.incoming.until(answered).await;
    }

    /// Waits for the next answer; `None` at a good end. May be dropped while it waits: nothing is lost.
    pub async fn next(&mut self) -> Result<Option<Bytes>, CallError> {
        let next = |queue: &mut Queue| match queue.bodies.pop_front() {
            Some(body) => Some(Ok(Some(body))),
            None => queue.end.clone().map(|end| end.map(|()| None)),
        };
        self.incoming.until(next).await
    }

    /// Lets more come. Never waits.
    pub fn give(&self, credit: Credit) {
        self.incoming.allow(credit.bytes);
        self.tell(credit, false);
    }

    fn tell(&self, Credit { bytes, records }: Credit, end: bool) {
        self.connection.link().credit(&StreamCredit {
            stream: self.correlation,
            bytes,
            records,
            end,
        });
    }
}

impl Drop for Inlet {
    fn drop(&mut self) {
        let mut queue = self.incoming.lock();
        queue.is_unwanted = true;
        let forgotten = std::mem::take(&mut queue.bodies);
        let has_ended = queue.end.is_some();
        drop(queue);
        drop(forgotten);
        if !has_ended {
            self.tell(Credit::default(), true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A slow subscriber of a topic with small messages held 16 KiB for each of them.
    #[test]
    fn a_small_answer_does_not_keep_what_it_was_read_with() {
        let buffer = Bytes::from(vec![7; 2 * limits::READ_BUFFER_BYTES_MIN]);
        let incoming = Incoming::default();
        incoming.allow(u64::MAX);
        let small = buffer.slice(..100);
        let large = buffer.slice(..limits::READ_BUFFER_BYTES_MIN + 1);
        for body in [&small, &large] {
            incoming.add(body.clone()).expect("there is credit");
        }
        let queue = incoming.lock();
        assert_eq!(queue.bodies, [small, large]);
        assert_ne!(queue.bodies[0].as_ptr(), buffer.as_ptr());
        assert_eq!(queue.bodies[1].as_ptr(), buffer.as_ptr(), "not copied");
    }
}
