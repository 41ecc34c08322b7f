//! The one task of a publisher: batches to the host in order, and what to do when
//! that goes wrong.
//!
//! The host accepts the batches of a producer only in the order of their sequences,
//! without holes, and answers a batch it has with the offsets it got first. So the
//! batches in flight are a queue of which only the *front* is looked at:
//!
//! | the front is | then |
//! |---|---|
//! | acknowledged | settle it |
//! | lost with its connection, or late | send the whole queue again, same id and sequences |
//! | refused for now (redirect, full topic, disk reserve, shutting down) | the same, after a pause or elsewhere |
//! | refused for good (too large, bad batch, the topic ends elsewhere) | fail it; those after it follow by the next line |
//! | refused because of a gap before it | it is not stored, nor is anything after it: give the queue a fresh producer id, number it from 0, send it again |
//! | of an unknown producer | the same if it was sent only once, else its outcome is unknown |
//! | too old to tell | its outcome is unknown |
//!
//! Why a fresh id and not the next free numbers: copies of later batches may still
//! be on their way over an older connection. Under their old id they can never
//! follow on anything (the sequence before them was refused and is never sent
//! again), so they are harmless; renumbered ones under the same id could take a
//! place that an old copy takes as well, and be stored twice.
//!
//! A *named* producer has nothing to go on under but its name. Its numbers say where its input stands, for the
//! process that comes after it, so it ends with the first message that is refused: that one's number goes to no
//! other, nothing behind it is stored (the host misses the number), and whoever starts it again goes on there.
//!
//! A message with an id has no sequence: its host knows it by its id, and answers it when it comes again. It
//! stands in the queue like any other batch.
//!
//! Without progress for the timeout everything fails: what may have reached the host
//! with `OutcomeUnknown`, what has not with the reason. What comes afterwards goes
//! under a fresh id, for the same reason.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::client::ClientError;
use crate::client::publisher::ack::{Acked, Outcome, Receipt};
use crate::client::publisher::buffer::{Batch, Buffer};
use crate::client::route::{Route, is_transient};
use crate::limits;
use crate::net::{CallError, Connection, Pending};
use crate::protocol::api::Api;
use crate::protocol::batch::{BatchError, Origin, renumber};
use crate::protocol::codec::Malformed;
use crate::protocol::data::{Publish, PublishExpecting, Published};
use crate::protocol::error::ApiError;
use crate::types::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, Sequence, TopicId};

/// Talks to the host for one publisher.
pub(super) struct Sender {
    buffer: Arc<Buffer>,
    route: Route,
    /// The one that the batches in flight went over.
    connection: Option<Connection>,
    /// Who it is, and what the next batch begins at.
    next: Origin,
    in_flight: VecDeque<Sent>,
    in_flight_max: usize,
}

/// A batch that has its sequences.
struct Sent {
    batch: Bytes,
    first: Sequence,
    count: u32,
    receipt: Arc<Receipt>,
    room_bytes: usize,
    /// Where the topic has to end for it.
    expected_end: Option<Offset>,
    /// Its message has an id, by which it is known; it has no sequence.
    has_id: bool,
    /// Its answer; `None` before it is sent, or sent again.
    answer: Option<Pending>,
    deadline: Instant,
    /// An attempt under its present sequences ended without saying whether it is stored.
    may_be_stored: bool,
}

impl Sent {
    fn account(&self) -> (u32, usize) {
        (self.count, self.room_bytes)
    }

    /// The request that brings it.
    fn request(&self, topic: TopicId, epoch: LeaderEpoch) -> (Api, Vec<Bytes>) {
        let (api, header) = match self.expected_end {
            None => (
                Api::Publish,
                Bytes::copy_from_slice(&Publish::header(topic, epoch)),
            ),
            Some(end) => (
                Api::PublishExpecting,
                Bytes::copy_from_slice(&PublishExpecting::header(topic, epoch, end)),
            ),
        };
        (api, vec![header, self.batch.clone()])
    }
}

impl Sender {
    /// One that publishes as `origin`.
    pub fn new(buffer: Arc<Buffer>, route: Route, in_flight_max: usize, origin: Origin) -> Self {
        Self {
            buffer,
            route,
            connection: None,
            next: origin,
            in_flight: VecDeque::new(),
            in_flight_max,
        }
    }

    /// Whether it publishes under a name: then its numbers are the places of the messages in somebody's input,
    /// and it ends with the first message that is not stored rather than give a number to another.
    fn is_named(&self) -> bool {
        self.next.epoch != ProducerEpoch::ZERO
    }

    /// Sends until the publisher is closed and everything is settled.
    pub async fn run(mut self) {
        loop {
            if let Err(error) = self.send().await {
                self.recover(error).await;
                continue;
            }
            let buffer = self.buffer.clone();
            let Some(front) = self.in_flight.front_mut() else {
                if buffer.is_done() {
                    return;
                }
                buffer.work.notified().await;
                continue;
            };
            let deadline = front.deadline;
            let Some(answer) = &mut front.answer else {
                continue;
            };
            tokio::select! {
                biased;
                answer = tokio::time::timeout_at(deadline, answer) => match answer {
                    Ok(answer) => self.settle_front(answer).await,
                    Err(_) => self.front_is_late().await,
                },
                () = buffer.work.notified() => {}
            }
        }
    }

    // --- sending -------------------------------------------------------------

    /// Sends everything that may be sent now.
    async fn send(&mut self) -> Result<(), CallError> {
        let mut index = 0;
        while index < self.in_flight.len() {
            if self.in_flight[index].answer.is_some() || self.submit(index).await? {
                index += 1;
            }
        }
        while self.in_flight.len() < self.in_flight_max {
            let partial = self.in_flight.len() < limits::PUBLISHER_BATCHES_SMALL;
            let Some(batch) = self.buffer.take(partial) else {
                break;
            };
            if self.seal(batch) {
                self.submit(self.in_flight.len() - 1).await?;
            }
        }
        Ok(())
    }

    /// Sends one of the batches in flight. A batch that no frame of the host can hold fails and is
    /// taken out: then this is `false`.
    async fn submit(&mut self, index: usize) -> Result<bool, CallError> {
        let connection = match &self.connection {
            Some(connection) => connection.clone(),
            None => self.connect().await?,
        };
        let location = self.route.location();
        let sent = &mut self.in_flight[index];
        let (api, body) = sent.request(location.id, location.epoch);
        let timeout = self.route.answer_timeout();
        let submitted = tokio::time::timeout(timeout, connection.submit(api, body));
        match submitted.await {
            Ok(Ok(answer)) => {
                sent.answer = Some(answer);
                sent.deadline = Instant::now() + timeout;
                Ok(true)
            }
            Ok(Err(CallError::Api(error @ ApiError::FrameTooLarge { .. }))) => {
                let outcome = match sent.may_be_stored {
                    true => unknown(&error),
                    false => error.into(),
                };
                self.finish(index, Err(outcome));
                Ok(false)
            }
            Ok(Err(error)) => Err(error),
            Err(_) => {
                // Others filled the connection and nothing of it is answered.
                connection.close();
                Err(CallError::TimedOut {
                    address: connection.address().clone(),
                    after: timeout,
                    may_be_sent: false,
                })
            }
        }
    }

    async fn connect(&mut self) -> Result<Connection, CallError> {
        let connection = self.route.connection().await?;
        let hello = connection.hello();
        self.in_flight_max = self
            .in_flight_max
            .min((hello.publishes_unanswered_max as usize).max(1));
        self.buffer
            .set_message_bytes_max(hello.message_bytes_max as usize);
        self.connection = Some(connection.clone());
        Ok(connection)
    }

    /// Gives a batch its sequences and puts it behind those in flight; a batch that cannot be made
    /// fails, and takes none.
    fn seal(&mut self, batch: Batch) -> bool {
        let Batch {
            mut builder,
            receipt,
            room_bytes,
            whole,
            ttl,
        } = batch;
        let count = builder.count();
        let has_id = whole.is_some_and(|whole| whole.has_id);
        let origin = match has_id {
            true => WITH_ID,
            false => self.next,
        };
        let origin = Origin {
            ttl: ttl.map(Duration::from),
            ..origin
        };
        let bytes = builder.len_bytes();
        let built = builder.build_as(&origin);
        builder.clear();
        self.buffer.reuse(builder, bytes);
        let built = built.map_err(refused).and_then(|batch| match whole {
            Some(_) => self.buffer.check_whole(count, batch.len()).map(|()| batch),
            None => Ok(batch),
        });
        match built {
            Ok(batch) => {
                let first = origin.first;
                if !has_id {
                    self.next.first = first.saturating_add(count.into());
                }
                self.in_flight.push_back(Sent {
                    batch,
                    first,
                    count,
                    receipt,
                    room_bytes,
                    expected_end: whole.and_then(|whole| whole.expected_end),
                    has_id,
                    answer: None,
                    deadline: Instant::now(),
                    may_be_stored: false,
                });
                true
            }
            Err(error) => {
                if self.is_named() {
                    self.buffer.close(error.clone());
                    self.buffer.fail_waiting(&error);
                }
                self.buffer
                    .settle(&receipt, (count, room_bytes), Err(error));
                false
            }
        }
    }

    // --- answers -------------------------------------------------------------

    async fn settle_front(&mut self, answer: Result<Bytes, CallError>) {
        self.in_flight[0].answer = None;
        let error = match answer {
            Ok(body) => match self.read(body) {
                Ok(acked) => {
                    self.route.progress();
                    self.buffer.tell_full(false);
                    self.finish_front(Ok(acked));
                    return;
                }
                Err(error) => error,
            },
            Err(CallError::Api(error)) => return self.front_is_refused(error).await,
            Err(error) => error,
        };
        self.in_flight[0].may_be_stored |= error.may_have_taken_effect();
        self.forget_answers();
        self.recover(error).await;
    }

    fn read(&self, body: Bytes) -> Result<Acked, CallError> {
        let malformed = |error| CallError::Malformed {
            address: self.route.location().address.clone(),
            error,
        };
        let published = Published::decode(body).map_err(malformed)?;
        let expected = u64::from(self.in_flight[0].count);
        let found = published.end_offset.since(published.base_offset);
        if found != expected {
            return Err(malformed(Malformed {
                what: "Published",
                reason: format!("offsets for {found} records, {expected} were sent"),
            }));
        }
        Ok(Acked {
            offset: published.base_offset,
            durability: published.durability,
            duplicate: published.duplicate && !self.in_flight[0].may_be_stored,
        })
    }

    /// Takes the front out of the queue and tells those who wait for it.
    fn finish_front(&mut self, outcome: Outcome) {
        self.finish(0, outcome);
    }

    fn finish(&mut self, index: usize, outcome: Outcome) {
        if let Some(sent) = self.in_flight.remove(index) {
            self.buffer.settle(&sent.receipt, sent.account(), outcome);
        }
    }

    async fn front_is_late(&mut self) {
        let error = CallError::TimedOut {
            address: self.route.location().address.clone(),
            after: self.route.answer_timeout(),
            may_be_sent: true,
        };
        if let Some(connection) = &self.connection {
            connection.close();
        }
        self.forget_answers();
        self.recover(error).await;
    }

    async fn front_is_refused(&mut self, error: ApiError) {
        let front = &self.in_flight[0];
        let may_be_stored = front.may_be_stored;
        let is_missing = matches!(error, ApiError::SequenceGap { .. });
        if self.is_named() && (is_missing || !is_transient(&error)) {
            return self.end(error).await;
        }
        match error {
            // Nothing comes before sequence 0: a host that misses something there is beyond help.
            ApiError::SequenceGap { .. } | ApiError::UnknownProducer
                if front.first == Sequence::ZERO =>
            {
                self.finish_front(Err(match may_be_stored {
                    true => unknown(&error),
                    false => error.into(),
                }));
            }
            ApiError::SequenceGap { .. } => self.renumber().await,
            ApiError::UnknownProducer if !may_be_stored => self.renumber().await,
            ApiError::UnknownProducer | ApiError::DuplicateTooOld { .. } => {
                self.finish_front(Err(unknown(&error)));
            }
            error if is_transient(&error) => {
                let is_full = matches!(error, ApiError::TopicFull { .. });
                self.buffer.tell_full(is_full);
                let error = CallError::Api(error);
                self.in_flight[0].may_be_stored |= error.may_have_taken_effect();
                self.await_answers().await;
                self.recover(error).await;
            }
            // The end is beyond the one that was expected: no copy of it can be stored any more, and none was.
            ApiError::UnexpectedEnd { expected, found } if found > expected => {
                self.finish_front(Err(error.into()));
                self.begin_anew_if_idle().await;
            }
            error if may_be_stored => self.finish_front(Err(unknown(&error))),
            error => self.finish_front(Err(error.into())),
        }
    }

    /// After a refusal with nothing behind it: what comes next need not run into the missing number first.
    async fn begin_anew_if_idle(&mut self) {
        if self.in_flight.is_empty() {
            self.renumber().await;
        }
    }

    /// Gives everything in flight, none of which is stored, a fresh producer id and numbers from 0.
    async fn renumber(&mut self) {
        self.await_answers().await;
        let fresh = fresh_producer().and_then(|producer| {
            self.next = unnamed(producer);
            for sent in self.in_flight.iter_mut().filter(|sent| !sent.has_id) {
                let batch = std::mem::take(&mut sent.batch);
                sent.first = self.next.first;
                sent.batch = renumber(batch, producer, sent.first).map_err(refused)?;
                self.next.first = sent.first.saturating_add(sent.count.into());
                sent.may_be_stored = false;
            }
            Ok(())
        });
        if let Err(error) = fresh {
            self.give_up(&error);
        }
    }

    /// The front is refused to a named producer: nothing behind it is stored, and nothing more is sent.
    async fn end(&mut self, error: ApiError) {
        self.await_answers().await;
        // The end is beyond the one that was expected: no copy of it can be stored any more, and none was.
        let was_late =
            matches!(error, ApiError::UnexpectedEnd { expected, found } if found > expected);
        self.in_flight[0].may_be_stored &= !was_late;
        self.fail_all(&error.into());
    }

    // --- trouble -------------------------------------------------------------

    /// Waits for the answers behind a refused front, to know as much as can be known: they are sent
    /// again with it whatever they say.
    async fn await_answers(&mut self) {
        for sent in &mut self.in_flight {
            let Some(answer) = sent.answer.take() else {
                continue;
            };
            sent.may_be_stored |= match tokio::time::timeout_at(sent.deadline, answer).await {
                Ok(Ok(_)) | Err(_) => true,
                Ok(Err(error)) => error.may_have_taken_effect(),
            };
        }
    }

    /// The connection is gone: nobody will say what became of what was sent over it.
    fn forget_answers(&mut self) {
        for sent in &mut self.in_flight {
            sent.may_be_stored |= sent.answer.take().is_some();
        }
    }

    /// Waits and finds the host again, or gives up.
    async fn recover(&mut self, error: CallError) {
        if error.as_api().is_none() {
            self.forget_answers();
        }
        self.connection = None;
        if let Err(error) = self.route.recover(error).await {
            self.give_up(&error);
        }
    }

    /// Fails everything, and begins afresh with what comes then; ends if the topic is gone.
    fn give_up(&mut self, error: &ClientError) {
        self.forget_answers();
        self.fail_all(error);
        if self.is_named() {
            return;
        }
        let is_gone = matches!(
            error.as_api(),
            Some(ApiError::TopicNotFound { .. } | ApiError::UnknownTopicId { .. })
        );
        if is_gone {
            self.buffer.close(error.clone());
        }
        self.buffer.fail_waiting(error);
        match fresh_producer() {
            Ok(producer) => self.next = unnamed(producer),
            Err(error) => self.buffer.close(error),
        }
    }

    /// Fails what is in flight; under a name everything, for good.
    fn fail_all(&mut self, error: &ClientError) {
        if self.is_named() {
            self.buffer.close(error.clone());
            self.buffer.fail_waiting(error);
        }
        while let Some(sent) = self.in_flight.front() {
            let outcome = match sent.may_be_stored {
                true => unknown(error),
                false => error.clone(),
            };
            self.finish_front(Err(outcome));
        }
    }
}

impl Drop for Sender {
    /// However the task ends, nobody waits for ever.
    fn drop(&mut self) {
        while !self.in_flight.is_empty() {
            self.finish_front(Err(unknown(&"the publisher ended")));
        }
        self.buffer.end();
    }
}

fn unknown(reason: &impl ToString) -> ClientError {
    ClientError::OutcomeUnknown {
        reason: reason.to_string(),
    }
}

fn refused(error: BatchError) -> ClientError {
    ApiError::from(error).into()
}

/// The beginning of a producer without a name.
pub(super) const fn unnamed(producer: ProducerId) -> Origin {
    Origin {
        producer,
        ..WITHOUT
    }
}

/// Nobody's.
const WITHOUT: Origin = Origin {
    producer: ProducerId::zero(),
    epoch: ProducerEpoch::ZERO,
    first: Sequence::ZERO,
    has_id: false,
    ttl: None,
};

/// That of a message which is known by its id.
const WITH_ID: Origin = Origin {
    has_id: true,
    ..WITHOUT
};

/// An id that nobody has.
pub(super) fn fresh_producer() -> Result<ProducerId, ClientError> {
    random_id().map(ProducerId::from_bytes)
}

/// 16 random bytes.
pub(super) fn random_id() -> Result<[u8; 16], ClientError> {
    let mut id = [0; 16];
    match getrandom::fill(&mut id) {
        Ok(()) => Ok(id),
        Err(error) => Err(ClientError::Api(ApiError::InvalidArgument {
            what: "producer id".to_owned(),
            reason: format!("this system gives no random bytes: {error}"),
        })),
    }
}
