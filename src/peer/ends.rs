//! Telling where topics end to those who follow many of them.

use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::limits;
use crate::net::{Handling, Reply};
use crate::protocol::api::{TopicEnd, TopicEnds, WatchEnds};
use crate::protocol::error::ApiError;
use crate::store::Store;

/// Bytes of a topic in an answer.
const END_BYTES: usize = size_of::<TopicEnd>();

/// Answers watchers of ends.
pub(super) struct EndsService {
    store: Store,
    watchers: Arc<Semaphore>,
}

impl EndsService {
    pub fn new(store: Store) -> Self {
        let watchers = Arc::new(Semaphore::new(limits::MOVES_WATCHERS_MAX));
        Self { store, watchers }
    }

    pub fn watch(&self, asked: WatchEnds, mut reply: Reply) -> Handling {
        let Ok(permit) = self.watchers.clone().try_acquire_owned() else {
            reply.error(&ApiError::TooManyConnections {
                max: limits::MOVES_WATCHERS_MAX as u64,
            });
            return Handling::Answered;
        };
        let store = self.store.clone();
        Handling::Wait(Box::pin(async move {
            let deadline = Instant::now() + reply.may_wait(asked.max_wait_ms);
            let answer = news(&store, asked, deadline).await;
            reply.restart_clock();
            reply.reserve(answer.ends.len() * END_BYTES).await;
            reply.send::<WatchEnds>(Ok(answer));
            drop(permit);
        }))
    }
}

/// Waits until something moved that the watcher asked for, or its time is up.
async fn news(store: &Store, mut asked: WatchEnds, deadline: Instant) -> TopicEnds {
    loop {
        let answer = store.topic_ends(&asked);
        if answer.all || !answer.ends.is_empty() || Instant::now() >= deadline {
            return answer;
        }
        asked.version = answer.version;
        store.wait_for_moves(asked.version, deadline).await;
    }
}
