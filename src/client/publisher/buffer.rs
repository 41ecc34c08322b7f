//! Messages on their way into batches: what those who send and the one task that
//! talks to the host share.
//!
//! Whoever sends writes its record into the open batch itself; no task is woken
//! for a message, only when a batch begins to wait or is full. Room is taken before
//! and given back when the batch is settled.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, watch};

use crate::buffers::Buffers;
use crate::client::ClientError;
use crate::client::publisher::ack::{Ack, Outcome, Receipt, RunAck};
use crate::client::publisher::{Message, PublisherOptions, TimeToLive, invalid};
use crate::limits;
use crate::net::budget::Pool;
use crate::protocol::batch::{BatchBuilder, Compression, RecordToSend, TTL_BYTES};
use crate::protocol::error::ApiError;
use crate::time::Timestamp;
use crate::types::Offset;

/// Builders kept for reuse: compression has large working memory.
const BUILDERS_KEPT: usize = 4;

/// The messages of a publisher that are not sent yet, and its accounts.
#[derive(Debug)]
pub(super) struct Buffer {
    state: Mutex<State>,
    options: PublisherOptions,
    /// Bytes of messages waiting or unanswered.
    pub room: Pool,
    /// There is something new to send, or it ends.
    pub work: Notify,
    /// The topic is full, and the host refuses more.
    full: watch::Sender<bool>,
    progress: watch::Sender<Progress>,
}

/// How far it is.
#[derive(Debug, Clone, Copy, Default)]
struct Progress {
    /// Messages acknowledged or failed.
    settled: u64,
    /// The task has ended.
    is_over: bool,
}

struct State {
    full: VecDeque<Batch>,
    open: Option<Batch>,
    builders: Builders,
    accepted: u64,
    message_bytes_max: usize,
    /// The first failure that no flush has told yet.
    failure: Option<ClientError>,
    /// Why nothing more is taken in.
    closed: Option<ClientError>,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State")
            .field("full", &self.full.len())
            .field("accepted", &self.accepted)
            .field("closed", &self.closed)
            .finish_non_exhaustive()
    }
}

/// Builders that have nothing to build, and the memory of batches that are acknowledged.
struct Builders {
    spare: Vec<BatchBuilder>,
    buffers: Buffers,
    /// Length of the last batch before it was packed: the next one will be about as long.
    usual_bytes: usize,
}

impl Builders {
    fn new(buffer_bytes: usize) -> Self {
        Self {
            spare: Vec::new(),
            buffers: Buffers::new(buffer_bytes),
            usual_bytes: 0,
        }
    }

    fn take(&mut self, compression: Compression) -> BatchBuilder {
        let spare = self.spare.pop();
        let mut builder = spare.unwrap_or_else(|| BatchBuilder::new(compression));
        let bytes = self.usual_bytes + self.usual_bytes / 8;
        builder.build_in(self.buffers.take(bytes));
        builder
    }

    /// Takes an empty one back.
    fn keep(&mut self, mut builder: BatchBuilder, bytes: usize) {
        self.buffers.give(builder.take_buffer());
        self.usual_bytes = bytes.min(limits::BATCH_BYTES_USUAL);
        if self.spare.len() < BUILDERS_KEPT {
            self.spare.push(builder);
        }
    }
}

/// A batch that takes messages in, or waits to be sent.
pub(super) struct Batch {
    pub builder: BatchBuilder,
    pub receipt: Arc<Receipt>,
    /// Room it holds.
    pub room_bytes: usize,
    /// It was asked for as one.
    pub whole: Option<Whole>,
    /// How long all its messages live.
    pub ttl: Option<TimeToLive>,
}

/// What is special of a batch that was asked for as one: what does not fit into a batch is refused, not cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Whole {
    /// Its one message has an id.
    pub has_id: bool,
    /// Where the topic has to end for it.
    pub expected_end: Option<Offset>,
}

impl Buffer {
    pub fn new(options: PublisherOptions, message_bytes_max: usize) -> Self {
        Self {
            state: Mutex::new(State {
                full: VecDeque::new(),
                open: None,
                builders: Builders::new(options.memory_bytes_max / limits::PUBLISHER_BUFFERS_PART),
                accepted: 0,
                message_bytes_max,
                failure: None,
                closed: None,
            }),
            room: Pool::new(options.memory_bytes_max.min(u32::MAX as usize)),
            options,
            work: Notify::new(),
            full: watch::Sender::new(false),
            progress: watch::Sender::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The host's limit, as its hello told.
    pub fn set_message_bytes_max(&self, bytes: usize) {
        self.lock().message_bytes_max = bytes;
    }

    /// Whether the topic is full, as it changes.
    pub fn watch_full(&self) -> watch::Receiver<bool> {
        self.full.subscribe()
    }

    /// Tells those who watch whether the topic is full.
    pub fn tell_full(&self, is_full: bool) {
        self.full
            .send_if_modified(|told| std::mem::replace(told, is_full) != is_full);
    }

    // --- sending -------------------------------------------------------------

    /// Takes a message into the open batch, for which `room_bytes` were taken.
    pub fn push(&self, message: &Message, room_bytes: usize) -> Result<Ack, ClientError> {
        let record = message.to_send(Timestamp::now);
        let mut state = self.lock();
        state.admit(&record)?;
        let (receipt, place, has_news) =
            state.push(&record, (room_bytes, message.ttl), &self.options);
        let ack = Ack::new(receipt.clone(), place);
        drop(state);
        if has_news {
            self.work.notify_one();
        }
        Ok(ack)
    }

    /// Whether messages would be taken in now.
    pub fn admit_all(&self, messages: &[Message]) -> Result<(), ClientError> {
        let state = self.lock();
        let mut records = messages
            .iter()
            .map(|message| message.to_send(Timestamp::default));
        records.try_for_each(|record| state.admit(&record))
    }

    /// Takes several messages in, as [`push`](Self::push) would one after the other, at the cost of one:
    /// all of them, or none. `room_bytes` were taken for all together.
    pub fn push_all(
        &self,
        messages: &[Message],
        room_bytes: usize,
        acks: &mut Vec<RunAck>,
    ) -> Result<(), ClientError> {
        let now = Timestamp::now();
        let mut state = self.lock();
        for message in messages {
            state.admit(&message.to_send(|| now))?;
        }
        let mut news = false;
        // What is over when the last one was taken in belongs to nobody else.
        let mut room_left = room_bytes;
        for (message, left) in messages.iter().zip((0..messages.len()).rev()) {
            let record = message.to_send(|| now);
            let room = match left {
                0 => room_left,
                _ => message.room_bytes().min(room_left),
            };
            room_left -= room;
            let (receipt, place, has_news) =
                state.push(&record, (room, message.ttl), &self.options);
            news |= has_news;
            if !acks
                .last_mut()
                .is_some_and(|ack| ack.extend(receipt, place))
            {
                acks.push(RunAck::new(receipt.clone(), place..place + 1));
            }
        }
        drop(state);
        if news {
            self.work.notify_one();
        }
        Ok(())
    }

    /// Takes messages in as one batch, behind everything taken in before. `room_bytes` were taken for it.
    pub fn push_whole(
        &self,
        messages: &[Message],
        whole: Whole,
        room_bytes: usize,
    ) -> Result<RunAck, ClientError> {
        let now = Timestamp::now();
        let ttl = one_ttl(messages)?;
        let mut state = self.lock();
        for message in messages {
            state.admit(&message.to_send(|| now))?;
        }
        let mut builder = state.builders.take(self.options.compression);
        let unpacked_max = state.unpacked_bytes_max(self.options.compression);
        let mut records = messages.iter().map(|message| message.to_send(|| now));
        let fits = records.all(|record| {
            // Any record fits into an empty batch.
            builder.push_within(&record, unpacked_max) && builder.len_bytes() <= unpacked_max
        });
        if !fits || builder.is_empty() {
            builder.clear();
            state.builders.keep(builder, 0);
            return Err(not_one_batch(messages.len(), None, unpacked_max));
        }
        let count = builder.count();
        let batch = Batch {
            builder,
            receipt: Arc::default(),
            room_bytes,
            whole: Some(whole),
            ttl,
        };
        let ack = RunAck::new(batch.receipt.clone(), 0..count);
        let open = state.open.take();
        state.full.extend(open);
        state.full.push_back(batch);
        state.accepted += u64::from(count);
        drop(state);
        self.work.notify_one();
        Ok(ack)
    }

    /// Why a batch that was asked for as one cannot be sent, if the host takes none of so many bytes.
    pub fn check_whole(&self, count: u32, packed_bytes: usize) -> Result<(), ClientError> {
        let max = limits::batch_bytes_max(self.lock().message_bytes_max);
        match packed_bytes > max {
            true => Err(not_one_batch(count as usize, Some(packed_bytes), max)),
            false => Ok(()),
        }
    }

    /// The next batch to send: a full one, or with `partial` whatever there is.
    pub fn take(&self, partial: bool) -> Option<Batch> {
        let mut state = self.lock();
        let full = state.full.pop_front();
        full.or_else(|| state.open.take_if(|_| partial))
    }

    /// Takes a builder back, whose last batch had so many bytes before it was packed.
    pub fn reuse(&self, builder: BatchBuilder, bytes: usize) {
        self.lock().builders.keep(builder, bytes);
    }

    // --- accounts ------------------------------------------------------------

    /// Settles a batch of `count` messages.
    pub fn settle(&self, receipt: &Receipt, (count, room_bytes): (u32, usize), outcome: Outcome) {
        if let Err(error) = &outcome {
            self.lock().failure.get_or_insert_with(|| error.clone());
        }
        receipt.settle(outcome);
        self.room.give(room_bytes);
        self.progress
            .send_modify(|progress| progress.settled += u64::from(count));
    }

    /// Fails everything that is not sent yet.
    pub fn fail_waiting(&self, error: &ClientError) {
        while let Some(batch) = self.take(true) {
            let account = (batch.builder.count(), batch.room_bytes);
            self.settle(&batch.receipt, account, Err(error.clone()));
        }
    }

    /// Waits until everything taken in so far is settled; tells the first failure since the last flush.
    pub async fn flush(&self) -> Result<(), ClientError> {
        let accepted = self.lock().accepted;
        let mut progress = self.progress.subscribe();
        // The sender of the progress is this, so it cannot be gone.
        let _ = progress
            .wait_for(|progress| progress.settled >= accepted || progress.is_over)
            .await;
        match self.lock().failure.take() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// Takes nothing more in; what is here is still sent.
    pub fn close(&self, error: ClientError) {
        self.lock().closed.get_or_insert(error);
        self.work.notify_one();
    }

    /// Whether it is closed and everything it took in was taken out. Asked under one lock: a message may come, and
    /// the closing after it, while nobody looks.
    pub fn is_done(&self) -> bool {
        let state = self.lock();
        state.closed.is_some() && state.full.is_empty() && state.open.is_none()
    }

    /// The task has ended: nothing will be settled any more.
    pub fn end(&self) {
        self.close(ClientError::Closed);
        self.fail_waiting(&ClientError::Closed);
        self.progress
            .send_modify(|progress| progress.is_over = true);
    }

    /// Waits until the task has ended.
    pub async fn ended(&self) {
        let mut progress = self.progress.subscribe();
        let _ = progress.wait_for(|progress| progress.is_over).await;
    }
}

/// How long messages that are to be one batch live.
fn one_ttl(messages: &[Message]) -> Result<Option<TimeToLive>, ClientError> {
    let ttl = messages.first().and_then(|message| message.ttl);
    match messages.iter().all(|message| message.ttl == ttl) {
        true => Ok(ttl),
        false => Err(invalid(
            "atomic batch",
            "its messages live for different times: give all of them the same time to live"
                .to_owned(),
        )),
    }
}

/// The refusal of messages that are to be one batch, of so many bytes if that is known.
fn not_one_batch(count: usize, bytes: Option<usize>, max: usize) -> ClientError {
    let reason = match (count, bytes) {
        (0, _) => "it holds no message: give one at least".to_owned(),
        (_, None) => format!(
            "{count} messages are more than one batch takes, {max} bytes and {} messages: \
             send fewer at once, or smaller ones",
            limits::BATCH_RECORDS_MAX
        ),
        (_, Some(bytes)) => format!(
            "{count} messages make a batch of {bytes} bytes, and the host takes {max}: send fewer at once, \
             compress them, or let the host take larger messages"
        ),
    };
    let what = "atomic batch".to_owned();
    ApiError::InvalidArgument { what, reason }.into()
}

impl State {
    /// Most bytes of one batch before it is packed.
    fn unpacked_bytes_max(&self, compression: Compression) -> usize {
        match compression {
            Compression::None => {
                limits::batch_bytes_max(self.message_bytes_max).min(limits::BATCH_BYTES_MAX)
            }
            Compression::Lz4 | Compression::Zstd => limits::BATCH_BYTES_UNPACKED_MAX,
        }
    }

    /// Whether a message is taken in: then pushing it cannot fail.
    fn admit(&self, record: &RecordToSend<'_>) -> Result<(), ClientError> {
        if let Some(error) = &self.closed {
            return Err(error.clone());
        }
        let (bytes, max) = (record.message_bytes(), self.message_bytes_max);
        if bytes > max {
            let (bytes, max) = (bytes as u64, max as u64);
            return Err(ApiError::MessageTooLarge { bytes, max }.into());
        }
        record
            .check(0)
            .map_err(|error| ApiError::from(error).into())
    }

    /// Answers with the batch's receipt, the place in it, and whether there is something new to send.
    fn push(
        &mut self,
        record: &RecordToSend<'_>,
        (room_bytes, ttl): (usize, Option<TimeToLive>),
        options: &PublisherOptions,
    ) -> (&Arc<Receipt>, u32, bool) {
        let bytes_max = options
            .batch_bytes
            .min(limits::batch_bytes_max(self.message_bytes_max))
            .min(limits::BATCH_BYTES_MAX)
            .saturating_sub(ttl.map_or(0, |_| TTL_BYTES));
        let mut has_news = self.open.is_none();
        let records_max = options.batch_records_max;
        let is_full = |open: &mut Batch| {
            open.ttl != ttl
                || open.builder.count() as usize >= records_max
                || !open.builder.push_within(record, bytes_max)
        };
        if let Some(full) = self.open.take_if(is_full) {
            self.full.push_back(full);
            has_news = true;
        }
        self.accepted += 1;
        let open = self.open.get_or_insert_with(|| {
            let mut builder = self.builders.take(options.compression);
            let fits = builder.push_within(record, bytes_max);
            debug_assert!(fits, "any record fits into an empty batch");
            Batch {
                builder,
                receipt: Arc::default(),
                room_bytes: 0,
                whole: None,
                ttl,
            }
        });
        open.room_bytes += room_bytes;
        (&open.receipt, open.builder.count() - 1, has_news)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;

    use super::*;
    use crate::protocol::batch::{CheckedBatch, Origin};

    /// A batch that is sent goes on being what it was; once it is acknowledged the next but one is built where it lay.
    #[test]
    fn batches_are_built_where_earlier_ones_were() {
        let mut builders = Builders::new(2 * limits::MIB);
        let mut sent: VecDeque<Bytes> = VecDeque::new();
        let mut kept = Vec::new();
        for number in 0..20 {
            let mut builder = builders.take(Compression::None);
            let room = builder.take_buffer();
            assert!(number == 0 || room.bytes.capacity() > 100_000);
            builder.build_in(room);
            for _ in 0..100 {
                let record = RecordToSend {
                    timestamp: Timestamp::default(),
                    key: None,
                    headers: &[],
                    value: &[number; 1_000],
                };
                assert!(builder.push_within(&record, limits::BATCH_BYTES_TARGET));
            }
            let bytes = builder.len_bytes();
            sent.push_back(builder.build_as(&Origin::default()).expect("records"));
            builders.keep(builder, bytes);
            if sent.len() > 3 {
                let batch = CheckedBatch::check(sent.pop_front().expect("four"), 1_000);
                let batch = batch.expect("as it was built");
                let mut records = batch.records().expect("not packed");
                assert!(
                    records.all(|record| record.expect("whole").value == [number - 3; 1_000][..])
                );
            }
            kept.push(builders.buffers.kept_bytes().0);
        }
        assert_eq!(kept[5], kept[19], "no further buffers: {kept:?}");
    }

    /// Whatever batches were asked for: what the host would refuse is not made.
    #[test]
    fn batches_are_no_larger_than_the_host_takes() {
        let message_bytes_max = 1_000;
        let options = PublisherOptions {
            batch_bytes: usize::MAX,
            ..PublisherOptions::default()
        };
        let buffer = Buffer::new(options, message_bytes_max);
        for _ in 0..1_000 {
            let message = Message::new(vec![b'x'; message_bytes_max]);
            buffer.push(&message, message_bytes_max).expect("taken");
        }
        let mut batches = 0;
        while let Some(batch) = buffer.take(true) {
            let bytes = batch.builder.len_bytes();
            assert!(
                bytes <= limits::batch_bytes_max(message_bytes_max),
                "{bytes} bytes"
            );
            batches += 1;
        }
        assert!(batches > 1);
    }

    /// A batch has one time to live: messages with another lie in another, in their order.
    #[test]
    fn messages_lie_together_as_long_as_they_live_for_the_same_time() {
        let ttl = |millis| Duration::from_millis(millis).try_into().expect("good");
        let message = |ttl: Option<TimeToLive>| Message {
            ttl,
            ..Message::new("x")
        };
        let messages = [None, None, Some(ttl(1)), Some(ttl(1)), Some(ttl(2)), None].map(message);
        let buffer = Buffer::new(PublisherOptions::default(), 1_000);
        let mut acks = Vec::new();
        buffer.push_all(&messages, 600, &mut acks).expect("taken");
        for message in &messages {
            buffer.push(message, 100).expect("taken");
        }
        let taken = std::iter::from_fn(|| buffer.take(true));
        let taken: Vec<_> = taken
            .map(|batch| (batch.ttl, batch.builder.count()))
            .collect();
        let (once, two) = (Some(ttl(1)), Some(ttl(2)));
        let last = [(None, 3), (once, 2), (two, 1), (None, 1)];
        assert_eq!(taken[..3], [(None, 2), (once, 2), (two, 1)]);
        assert_eq!(taken[3..], last);
        assert_eq!(acks.len(), 4);
        let whole = Whole {
            has_id: false,
            expected_end: None,
        };
        let error = buffer.push_whole(&messages, whole, 600).err();
        let error = error.expect("one batch cannot live for several times");
        assert!(error.to_string().contains("different times"), "{error}");
        let batch = buffer.push_whole(&messages[2..4], whole, 600);
        batch.expect("they live for the same time");
        assert_eq!(buffer.take(true).expect("a batch").ttl, once);
    }

    #[test]
    fn a_closed_buffer_is_done_only_when_its_last_batch_was_taken() {
        let buffer = Buffer::new(PublisherOptions::default(), 1_000);
        assert!(!buffer.is_done());
        buffer.push(&Message::new("last"), 4).expect("taken");
        buffer.close(ClientError::Closed);
        assert!(!buffer.is_done(), "the last message is still to be sent");
        assert!(buffer.take(true).is_some());
        assert!(buffer.is_done());
    }
}
