//! The stream a subscriber reads by, and the credit it gives for it.
//!
//! Credit is given back answer by answer, when one has been handed out to its last record, and told once that is half of
//! the window: the host hears of it while it may still send the other half. An answer may be larger than what is left
//! of the credit; then as much more has to be handed out before the next comes.

use bytes::Bytes;
use tokio::time::Instant;

use super::SubscriberOptions;
use crate::client::route::Route;
use crate::limits;
use crate::net::{CallError, Inlet};
use crate::protocol::data::{Credit, Stream};
use crate::protocol::error::ApiError;
use crate::types::Offset;

/// A stream from a topic's host.
#[derive(Debug)]
pub(super) struct Feed {
    inlet: Inlet,
    /// When the host must have said whether the stream stands.
    deadline: Instant,
    patience: std::time::Duration,
    window: Credit,
    /// The answer that is being handed out.
    held: Credit,
    /// What was handed out, and the host was not told of.
    owed: Credit,
}

impl Feed {
    /// Asks the host for what comes from an offset on.
    pub async fn open(
        route: &Route,
        options: &SubscriberOptions,
        offset: Offset,
    ) -> Result<Self, CallError> {
        let connection = route.connection().await?;
        let patience = route.answer_timeout();
        let location = route.location();
        let window = Credit {
            bytes: options.window_bytes.max(1) as u64,
            records: limits::SUBSCRIBER_WINDOW_RECORDS,
        };
        let stream = Stream {
            topic: location.id,
            epoch: location.epoch,
            offset,
            max_bytes: options.max_bytes.clamp(1, limits::FETCH_BYTES_MAX) as u32,
            credit: window,
            keep_alive_ms: limits::KEEP_ALIVE_WANTED.as_millis() as u32,
            pass_damage: options.pass_damage,
        };
        Ok(Self {
            inlet: connection.open_stream(&stream).await?,
            deadline: Instant::now() + patience,
            patience,
            window,
            held: Credit::default(),
            owed: Credit::default(),
        })
    }

    /// Whether the host has answered.
    pub fn is_open(&self) -> bool {
        self.inlet.is_open()
    }

    /// Waits for the next answer. What came before has been handed out. May be dropped while it waits.
    pub async fn next(&mut self) -> Result<Bytes, CallError> {
        self.give_back();
        if !self.inlet.is_open() {
            let answered = tokio::time::timeout_at(self.deadline, self.inlet.answered()).await;
            if answered.is_err() {
                // Whoever does not even say that a stream stands is asked anew over another connection.
                self.inlet.connection().close();
                return Err(CallError::TimedOut {
                    address: self.inlet.connection().address().clone(),
                    after: self.patience,
                    may_be_sent: true,
                });
            }
        }
        match self.inlet.next().await? {
            Some(body) => {
                self.held.bytes = body.len() as u64;
                Ok(body)
            }
            // Only this side ends a stream without an error.
            None => Err(ApiError::Unanswered.into()),
        }
    }

    /// So many records are in what came last.
    pub fn holds(&mut self, records: u64) {
        self.held.records = records;
    }

    fn give_back(&mut self) {
        let Credit { bytes, records } = std::mem::take(&mut self.held);
        self.owed.bytes += bytes;
        self.owed.records += records;
        let is_much = self.owed.bytes >= self.window.bytes.div_ceil(2)
            || self.owed.records >= self.window.records.div_ceil(2);
        if is_much {
            self.inlet.give(std::mem::take(&mut self.owed));
        }
    }
}
