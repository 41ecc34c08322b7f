//! Fetching: records from an offset on, now or when there are some.
//!
//! Memory is looked at first, on the thread that asks; only what is not there goes to a thread that may block. A
//! reader that catches up finds its next answer [read ahead](super::ahead).

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::Store;
use super::ahead::Source;
use super::reader::{self, ReadError, ReadRequest, ReadResult};
use super::shared::{Shared, TopicShared};
use super::told;
use crate::limits;
use crate::protocol::data::{Fetch, FetchItem, Fetched};
use crate::protocol::error::ApiError;
use crate::types::Offset;

impl Store {
    /// Reads record batches from an offset on, waiting for some to come if the request says so.
    ///
    /// # Errors
    /// `UnknownTopicId`, `StaleEpoch`, `OffsetOutOfRange`, `Damaged`.
    pub async fn fetch(&self, fetch: Fetch) -> Result<Fetched, ApiError> {
        let topic = self.topic_to_fetch(&fetch)?;
        let wait = Duration::from_millis(u64::from(fetch.max_wait_ms)).min(limits::FETCH_WAIT_MAX);
        let deadline = Instant::now() + wait;
        let mut end = topic.watch_end();
        loop {
            end.mark_unchanged();
            let result = match self.read(&topic, &fetch).await {
                Err(ApiError::OffsetOutOfRange { .. }) if fetch.offset > topic.readable_end() => {
                    return Err(self.past_the_end(&topic, fetch.offset).await);
                }
                result => result?,
            };
            let enough = result.bytes >= fetch.min_bytes as usize
                || result.is_full
                || !is_only_batches(&result.items);
            if enough || wait.is_zero() || !self.wait_for_more(&topic, &mut end, deadline).await {
                // What lay here while more was waited for may be over by now, purged or discarded.
                let is_old = || {
                    topic.start() > fetch.offset
                        || !topic.has_purges(&result.purges)
                        || self.some_is_over(&result.items)
                };
                let result = match !enough && is_old() {
                    true => self.read(&topic, &fetch).await?,
                    false => result,
                };
                self.shared_topic(fetch.topic)?;
                let read = (result.records, result.bytes as u64);
                self.shared.meters.fetched(&topic.through, read);
                return Ok(Fetched {
                    start_offset: topic.start(),
                    end_offset: topic.readable_end(),
                    next_offset: result.next,
                    items: result.items,
                });
            }
        }
    }

    fn topic_to_fetch(&self, fetch: &Fetch) -> Result<Arc<TopicShared>, ApiError> {
        let topic = self.shared_topic(fetch.topic)?;
        if topic.epoch() != fetch.epoch {
            return Err(ApiError::StaleEpoch {
                given: fetch.epoch,
                current: topic.epoch(),
            });
        }
        Ok(topic)
    }

    /// Whether that can be fetched, as far as can be told without reading.
    ///
    /// # Errors
    /// `UnknownTopicId`, `StaleEpoch`, `OffsetOutOfRange`.
    pub async fn check_fetch(&self, fetch: &Fetch) -> Result<(), ApiError> {
        let topic = self.topic_to_fetch(fetch)?;
        match fetch.offset > topic.readable_end() {
            true => Err(self.past_the_end(&topic, fetch.offset).await),
            false => Ok(()),
        }
    }

    /// Why there is nothing at an offset past the end: in quarantine it may have been lost, which is another
    /// error than one that never was.
    async fn past_the_end(&self, topic: &TopicShared, offset: Offset) -> ApiError {
        let (id, start, end) = (topic.id, topic.start(), topic.readable_end());
        let of_state = self.change(id, move |context| {
            let topic = context.state.topic(id)?;
            let claimed = topic
                .row
                .quarantine
                .map(|quarantine| quarantine.claimed_end);
            if claimed.is_some_and(|claimed| offset <= claimed) {
                topic.check_writable()?;
            }
            Ok(((), Vec::new()))
        });
        of_state.await.err().unwrap_or(ApiError::OffsetOutOfRange {
            requested: offset,
            start,
            end,
        })
    }

    /// Waits until the fetch has something to be answered with: records, a gap or an error.
    pub async fn until_readable(&self, fetch: &Fetch) {
        let Some(topic) = self.shared.topic(fetch.topic) else {
            return;
        };
        if topic.readable_end() != fetch.offset {
            return;
        }
        let mut end = topic.watch_end();
        while topic.epoch() == fetch.epoch
            && topic.readable_end() == fetch.offset
            && self.shared.topic(topic.id).is_some()
            && end.changed().await.is_ok()
        {}
    }

    /// False when the time is over or the topic is gone.
    async fn wait_for_more(
        &self,
        topic: &TopicShared,
        end: &mut watch::Receiver<u64>,
        deadline: Instant,
    ) -> bool {
        let changed = tokio::time::timeout_at(deadline, end.changed()).await;
        matches!(changed, Ok(Ok(()))) && self.shared.topic(topic.id).is_some()
    }

    pub(super) async fn read(
        &self,
        topic: &Arc<TopicShared>,
        fetch: &Fetch,
    ) -> Result<ReadResult, ApiError> {
        let request = ReadRequest {
            from: fetch.offset,
            max_bytes: (fetch.max_bytes as usize).clamp(1, limits::FETCH_BYTES_MAX),
            pass_damage: fetch.pass_damage,
            memory_only: true,
            as_stored: false,
        };
        match reader::read(&self.shared, topic, request) {
            Ok(result) => Ok(result),
            Err(ReadError::Api(error)) => Err(error),
            Err(ReadError::NotInMemory) => {
                let request = ReadRequest {
                    memory_only: false,
                    ..request
                };
                let ahead = self.ahead.take(topic, &request).await;
                let ahead = ahead.filter(|result| !self.some_is_over(&result.items));
                let was_ahead = ahead.is_some();
                let result = match ahead {
                    Some(result) => {
                        self.shared.meters.was_ahead();
                        result
                    }
                    None => {
                        self.on_disk(topic, move |shared, topic| {
                            reader::read(shared, topic, request)
                        })
                        .await?
                    }
                };
                let source = Source {
                    shared: self.shared.clone(),
                    topic: topic.clone(),
                    readers: self.readers.clone(),
                };
                self.ahead.read_on(source, &request, &result, was_ahead);
                Ok(result)
            }
        }
    }

    /// Whether the time of something that was read before is over.
    fn some_is_over(&self, items: &[FetchItem]) -> bool {
        let is_over = |item: &FetchItem| match item {
            FetchItem::Batch(batch) if !told::is_plain(&batch.batch) => {
                told::is_over(batch.append_time, &batch.batch, || {
                    self.shared.trusted_now()
                })
            }
            FetchItem::Batch(_) | FetchItem::Gap(_) => false,
        };
        items.iter().any(is_over)
    }

    /// Runs something that reads the disk on a thread that may block; only so many at once. Whoever waits for it
    /// may give up; the work goes on, so its place among the readers is its own.
    pub(super) async fn on_disk<T, F>(
        &self,
        topic: &Arc<TopicShared>,
        work: F,
    ) -> Result<T, ApiError>
    where
        T: Send + 'static,
        F: FnOnce(&Shared, &TopicShared) -> Result<T, ReadError> + Send + 'static,
    {
        let permit = self
            .readers
            .clone()
            .acquire_owned()
            .await
            .map_err(|_| self.stopped_error())?;
        let (shared, topic) = (self.shared.clone(), topic.clone());
        let working = move || {
            let _permit = permit;
            work(&shared, &topic)
        };
        match tokio::task::spawn_blocking(working).await {
            Ok(Ok(result)) => Ok(result),
            Ok(Err(ReadError::Api(error))) => Err(error),
            Ok(Err(ReadError::NotInMemory)) | Err(_) => Err(self.stopped_error()),
        }
    }
}

/// Whether nothing but batches was read: a gap is told at once, however little there is.
fn is_only_batches(items: &[FetchItem]) -> bool {
    items.iter().all(|item| matches!(item, FetchItem::Batch(_)))
}
