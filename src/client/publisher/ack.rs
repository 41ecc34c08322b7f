//! Acknowledgements: one shared outcome per batch, one small handle per message, or
//! one for a run of messages that were sent together.

use std::ops::Range;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::client::ClientError;
use crate::types::{Durability, Offset};

/// A message is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Acked {
    /// Its offset.
    pub offset: Offset,
    /// What this acknowledgement means.
    pub durability: Durability,
    /// It was there before this publisher sent it, as a message of the same id. Not told where an attempt of its
    /// own was not answered: then nobody knows whose it was.
    pub duplicate: bool,
}

/// Messages are stored, one after the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AckedRun {
    /// Their offsets.
    pub offsets: Range<Offset>,
    /// What this acknowledgement means.
    pub durability: Durability,
}

/// What became of a batch: the offset of its first record, or why it is not (known to be) stored.
pub(super) type Outcome = Result<Acked, ClientError>;

/// What the messages of one batch wait for.
#[derive(Debug, Default)]
pub(super) struct Receipt {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    outcome: Option<Outcome>,
    /// At most one per message of the batch.
    wakers: Vec<Waker>,
}

impl Receipt {
    /// One whose outcome is known.
    pub fn settled(outcome: Outcome) -> Self {
        let receipt = Self::default();
        receipt.settle(outcome);
        receipt
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells all who wait, once.
    pub fn settle(&self, outcome: Outcome) {
        let wakers = {
            let mut state = self.lock();
            state.outcome.get_or_insert(outcome);
            std::mem::take(&mut state.wakers)
        };
        wakers.into_iter().for_each(Waker::wake);
    }
}

/// A place among those who wait for a receipt.
#[derive(Debug)]
struct Waiting {
    receipt: Arc<Receipt>,
    /// Place of its waker.
    waker: Option<usize>,
}

impl Waiting {
    fn new(receipt: Arc<Receipt>) -> Self {
        Self {
            receipt,
            waker: None,
        }
    }

    fn is_settled(&self) -> bool {
        self.receipt.lock().outcome.is_some()
    }

    /// What became of the batch.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Outcome> {
        let mut state = self.receipt.lock();
        if let Some(outcome) = &state.outcome {
            return Poll::Ready(outcome.clone());
        }
        match self.waker {
            Some(place) => state.wakers[place].clone_from(context.waker()),
            None => {
                self.waker = Some(state.wakers.len());
                state.wakers.push(context.waker().clone());
            }
        }
        Poll::Pending
    }
}

/// The acknowledgement of one message to come. Await it to know offset and durability; drop it if
/// [`flush`](crate::client::Publisher::flush) is enough.
#[derive(Debug)]
pub struct Ack {
    waiting: Waiting,
    /// Place of the message in its batch.
    index: u32,
}

impl Ack {
    pub(super) fn new(receipt: Arc<Receipt>, index: u32) -> Self {
        Self {
            waiting: Waiting::new(receipt),
            index,
        }
    }

    /// Whether awaiting it would return at once.
    pub fn is_settled(&self) -> bool {
        self.waiting.is_settled()
    }
}

impl Future for Ack {
    type Output = Result<Acked, ClientError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let index = u64::from(self.index);
        let settled = self.waiting.poll(context);
        settled.map_ok(|first| Acked {
            offset: first.offset.saturating_add(index),
            ..first
        })
    }
}

/// The acknowledgement to come of a run of messages that share their fate: they follow one another
/// in one batch.
#[derive(Debug)]
pub struct RunAck {
    waiting: Waiting,
    /// Places of the messages in their batch.
    places: Range<u32>,
}

impl RunAck {
    pub(super) fn new(receipt: Arc<Receipt>, places: Range<u32>) -> Self {
        Self {
            waiting: Waiting::new(receipt),
            places,
        }
    }

    /// Takes in the message at `place` of a batch if it follows in this run.
    pub(super) fn extend(&mut self, receipt: &Arc<Receipt>, place: u32) -> bool {
        let follows = self.places.end == place && Arc::ptr_eq(&self.waiting.receipt, receipt);
        if follows {
            self.places.end += 1;
        }
        follows
    }

    /// That of the first message alone.
    pub(super) fn of_first(self) -> Ack {
        Ack {
            index: self.places.start,
            waiting: self.waiting,
        }
    }

    /// Number of messages.
    pub fn count(&self) -> usize {
        self.places.len()
    }

    /// Whether awaiting it would return at once.
    pub fn is_settled(&self) -> bool {
        self.waiting.is_settled()
    }
}

impl Future for RunAck {
    type Output = Result<AckedRun, ClientError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let places = self.places.clone();
        let settled = self.waiting.poll(context);
        settled.map_ok(|first| {
            let at = |place: u32| first.offset.saturating_add(place.into());
            AckedRun {
                offsets: at(places.start)..at(places.end),
                durability: first.durability,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_message_of_a_batch_gets_its_own_offset() {
        let receipt = Arc::new(Receipt::default());
        let waiting: Vec<_> = (0..3)
            .map(|index| tokio::spawn(Ack::new(receipt.clone(), index)))
            .collect();
        tokio::task::yield_now().await;
        receipt.settle(Ok(Acked {
            offset: Offset::new(10),
            durability: Durability::Os,
            duplicate: false,
        }));
        receipt.settle(Err(ClientError::Closed));
        for (index, ack) in waiting.into_iter().enumerate() {
            let acked = ack.await.expect("no panic").expect("the first outcome");
            assert_eq!(acked.offset.get(), 10 + index as u64);
            assert_eq!(acked.durability, Durability::Os);
        }
    }
}
