//! Acknowledgements: one shared outcome per batch, one small handle per message.

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

/// The acknowledgement of one message to come. Await it to know offset and durability; drop it if
/// [`flush`](crate::client::Publisher::flush) is enough.
#[derive(Debug)]
pub struct Ack {
    receipt: Arc<Receipt>,
    /// Place of the message in its batch.
    index: u32,
    /// Place of its waker.
    waker: Option<usize>,
}

impl Ack {
    pub(super) fn new(receipt: Arc<Receipt>, index: u32) -> Self {
        Self {
            receipt,
            index,
            waker: None,
        }
    }

    /// Whether awaiting it would return at once.
    pub fn is_settled(&self) -> bool {
        self.receipt.lock().outcome.is_some()
    }
}

impl Future for Ack {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Outcome> {
        let receipt = self.receipt.clone();
        let mut state = receipt.lock();
        if let Some(outcome) = &state.outcome {
            let index = self.index.into();
            return Poll::Ready(outcome.clone().map(|first| Acked {
                offset: first.offset.saturating_add(index),
                ..first
            }));
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
        }));
        receipt.settle(Err(ClientError::Closed));
        for (index, ack) in waiting.into_iter().enumerate() {
            let acked = ack.await.expect("no panic").expect("the first outcome");
            assert_eq!(acked.offset.get(), 10 + index as u64);
            assert_eq!(acked.durability, Durability::Os);
        }
    }
}
