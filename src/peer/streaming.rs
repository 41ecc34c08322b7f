//! Streams of a topic: pushing what there is, and what comes, against a client's credit.
//!
//! One task for each stream, which does one thing after the other:
//!
//! ```text
//!   credit? ──► something to tell? ──► memory? ──► read ──► push ──┐
//!      ▲                                                           │
//!      └───────────────────────────────────────────────────────────┘
//! ```
//!
//! Nothing is held while it waits for credit or for records. Memory is taken for a usual batch at least, and a larger one that
//! turns out not to fit is let go and read again once there is memory for all of it: however little a client asks for
//! at once, what is sent is paid for. Only where memory is used up, and a stream gets the little that is kept for
//! that, a usual batch comes all the same, as it does to a fetch.
//!
//! Records, gaps and errors are those of a fetch from where the stream stands, in the same order: offsets that
//! are missing are told before the next record, also where they went missing while the stream waited. The end of the
//! topic, another epoch and damage end the stream with the error that a fetch would meet.

use std::sync::Arc;
use std::time::Duration;

use super::service::PeerService;
use crate::limits;
use crate::net::{Outlet, Place, Reply};
use crate::protocol::data::{Fetch, FetchItem, Fetched, Stream};
use crate::protocol::error::ApiError;

/// Where a stream stands, and how it goes on.
struct Course {
    fetch: Fetch,
    /// The largest batch of the last answer, in bytes: the next is likely as large.
    largest: usize,
}

impl Course {
    /// Bytes of memory to take for the next answer.
    fn bytes(&self) -> usize {
        let wanted = self.fetch.max_bytes as usize;
        wanted.max(limits::BATCH_BYTES_USUAL).max(self.largest)
    }
}

impl PeerService {
    /// Answers with a stream, or with the error that it would begin with.
    pub(super) async fn stream(self: Arc<Self>, stream: Stream, reply: Reply) {
        let bytes = (stream.max_bytes as usize).clamp(1, limits::FETCH_BYTES_MAX);
        let fetch = Fetch {
            topic: stream.topic,
            epoch: stream.epoch,
            offset: stream.offset,
            max_bytes: bytes as u32,
            min_bytes: 1,
            max_wait_ms: 0,
            pass_damage: stream.pass_damage,
        };
        if let Err(error) = self.store.check_fetch(&fetch).await {
            return reply.error(&error);
        }
        let keep_alive = Duration::from_millis(stream.keep_alive_ms.into());
        let Some(outlet) = reply.into_outlet(stream.credit, keep_alive) else {
            return;
        };
        let mut course = Course { fetch, largest: 0 };
        loop {
            let next = self.next_part(&mut course, &outlet);
            match outlet.unless_ended(next).await {
                Ok(Ok((place, fetched, records))) => outlet.push(place, fetched.encode(), records),
                Ok(Err(error)) => return outlet.error(&error),
                Err(ending) => return outlet.end(ending),
            }
            // Where everything is at hand, others have their turn all the same.
            tokio::task::coop::consume_budget().await;
        }
    }

    /// Waits for something to send, and reads it.
    async fn next_part(
        &self,
        course: &mut Course,
        outlet: &Outlet,
    ) -> Result<(Place, Fetched, u64), ApiError> {
        loop {
            let credit = outlet.credit().await;
            self.store.until_readable(&course.fetch).await;
            let mut place = outlet.place();
            let granted = place.reserve_up_to(course.bytes()).await;
            let mut fetched = self.fetch_within(course, granted).await?;
            let mut records = fetched.keep_records(credit);
            let largest = largest_batch(&fetched);
            course.largest = largest;
            if largest > granted.max(limits::BATCH_BYTES_USUAL) {
                // Only a first batch can be that large. Whoever holds memory does not wait for more, and so begins anew.
                drop(fetched);
                place.reserve(largest).await;
                fetched = self.fetch_within(course, largest).await?;
                records = fetched.keep_records(credit);
            }
            if fetched.items.is_empty() {
                drop(place);
                tokio::time::sleep(limits::STREAM_LOOKS_AGAIN).await;
                continue;
            }
            course.fetch.offset = fetched.next_offset;
            return Ok((place, fetched, records));
        }
    }

    async fn fetch_within(&self, course: &Course, granted: usize) -> Result<Fetched, ApiError> {
        let granted = u32::try_from(granted).unwrap_or(u32::MAX);
        let fetch = Fetch {
            max_bytes: course.fetch.max_bytes.min(granted),
            ..course.fetch
        };
        self.store.fetch(fetch).await
    }
}

fn largest_batch(fetched: &Fetched) -> usize {
    let bytes = fetched.items.iter().map(|item| match item {
        FetchItem::Batch(stored) => stored.batch.len(),
        FetchItem::Gap(_) => 0,
    });
    bytes.max().unwrap_or(0)
}
