//! The steps: delivering, moving old messages to the end, cancelling. Each is one durable change.

use super::Later;
use super::mover::Mover;
use super::reading::Letter;
use crate::limits;
use crate::protocol::batch::{BatchBuilder, CheckedBatch, Compression, HEADER_BYTES};
use crate::protocol::error::ApiError;
use crate::time::Timestamp;
use crate::topic::later::{Due, StepBounds};
use crate::types::{ProducerId, Sequence, TopicId};

/// Messages in a batch of their own, and which they are.
struct Packed {
    batch: Option<CheckedBatch>,
    which: Vec<Due>,
}

impl Later {
    /// Delivers what was chosen, as far as one batch takes it. The caller has the turn.
    pub(super) async fn deliver(&self, mover: &Mover, chosen: &[Due]) -> Result<(), ApiError> {
        self.check(mover)?;
        let (letters, lost) = self.letters(mover, chosen).await?;
        let letters = letters.into_iter().map(Letter::delivered);
        let packed = match self.pack(letters) {
            Ok(packed) => packed,
            Err((due, error)) => return self.refused(mover, &[due], error),
        };
        let count = packed.which.len() as u64;
        let first = packed.which.first().map(|due| due.at);
        let settling = [&packed.which[..], &lost].concat();
        let batch = packed.batch.map(|batch| (mover.target, batch));
        match self.settle(mover, &settling, batch).await {
            Ok(()) => {
                if !lost.is_empty() {
                    let (companion, messages) = (mover.companion, lost.len());
                    tracing::error!(%companion, messages, "delayed messages were gone when they were due");
                    self.meters.lost(messages as u64);
                }
                // One without a time was published past the client library.
                let first = first.filter(|at| at.as_millis() > 0);
                let late = first.map(|at| Timestamp::now().since(at));
                self.meters.delivered(count, late);
                mover.went_well();
                Ok(())
            }
            Err(error) => self.refused(mover, &packed.which, error),
        }
    }

    /// What keeps everything of a companion, whatever is in it.
    fn check(&self, mover: &Mover) -> Result<(), ApiError> {
        if self.registrar.is_displaced() {
            return Err(ApiError::Displaced);
        }
        match self.registrar.conflict(mover.target) {
            Some(conflict) => Err(ApiError::NameConflict {
                name: conflict.name,
                holder: conflict.holder,
            }),
            None => Ok(()),
        }
    }

    /// The target does not take them: fewer are tried, or one is set aside, or all wait.
    fn refused(&self, mover: &Mover, which: &[Due], error: ApiError) -> Result<(), ApiError> {
        let is_forever = matches!(
            error,
            ApiError::BadBatch { .. } | ApiError::MessageTooLarge { .. }
        );
        let is_size = is_forever || matches!(error, ApiError::TopicFull { .. });
        match which {
            [only] if is_forever && mover.lock().schedule.aside() < limits::DELAYED_ASIDE_MAX => {
                mover.set_aside(*only, &error);
                Ok(())
            }
            [_, _, ..] if is_size => {
                mover.lock().step_records = which.len() / 2;
                Ok(())
            }
            _ => Err(error),
        }
    }

    /// Moves the oldest messages to the end of their companion, where they hold too much (D8).
    pub(super) async fn move_old(&self, mover: &Mover) -> Result<(), ApiError> {
        let bounds = StepBounds {
            records: limits::DELAYED_STEP_RECORDS_MAX,
            bytes: limits::BATCH_BYTES_TARGET,
        };
        loop {
            let chosen = (mover.lock().schedule).to_move(bounds, limits::DELAYED_SPAN_MIN);
            if chosen.is_empty() {
                return Ok(());
            }
            self.check(mover)?;
            let (letters, lost) = self.letters(mover, &chosen).await?;
            self.meters.lost(lost.len() as u64);
            let Ok(packed) = self.pack(letters.into_iter().map(Letter::moved)) else {
                // One that has no room for its number stays where it is.
                return Ok(());
            };
            let settling = [&packed.which[..], &lost].concat();
            let batch = packed.batch.map(|batch| (mover.companion, batch));
            if let Err(error) = self.settle(mover, &settling, batch).await {
                let companion = mover.companion;
                tracing::debug!(%companion, %error, "old delayed messages stay where they are for now");
                return Ok(());
            }
            self.take_in(mover).await?;
        }
    }

    /// Settles those, and appends the batch in the same step: both or neither (D2).
    async fn settle(
        &self,
        mover: &Mover,
        settling: &[Due],
        batch: Option<(TopicId, CheckedBatch)>,
    ) -> Result<(), ApiError> {
        let flush = mover.lock().schedule.compose(settling, Timestamp::now());
        let group = (mover.companion, mover.group.clone());
        match batch {
            Some(batch) => self.store.bury(group, flush.clone(), batch).await?,
            None => {
                let (id, name) = group;
                self.store.settle_consumers(id, name, flush.clone()).await?;
            }
        }
        let mut inner = mover.lock();
        inner.schedule.settled(settling, &flush);
        mover.note(&inner, &self.pending);
        Ok(())
    }

    /// Cancels what `choose` finds among the pending ones; how many that were.
    pub(super) async fn cancel_pending(
        &self,
        mover: &Mover,
        wanted: &[Due],
    ) -> Result<u64, ApiError> {
        let mut left = wanted;
        while !left.is_empty() {
            let now = mover.lock().schedule.fitting(left);
            if now.is_empty() {
                break;
            }
            let settled = self.settle(mover, &now, None).await;
            if let Err(error) = settled {
                return Err(match left.len() < wanted.len() {
                    true => error.after_a_change(),
                    false => error,
                });
            }
            self.meters.cancelled(now.len() as u64);
            left = &left[now.len()..];
        }
        Ok((wanted.len() - left.len()) as u64)
    }

    /// A batch of messages, in their order: as many as fit. The one that fits into none is the error, if it is the first.
    fn pack(&self, letters: impl Iterator<Item = Letter>) -> Result<Packed, (Due, ApiError)> {
        let mut builder = BatchBuilder::new(Compression::None);
        let mut which = Vec::new();
        let room = self.store.batch_bytes_max();
        for letter in letters {
            let record = letter.to_send();
            let alone = HEADER_BYTES + record.encoded_bytes(record.timestamp);
            let checked = record.check(builder.count()).map_err(ApiError::from);
            let checked = checked.and_then(|()| match alone > room {
                true => Err(ApiError::BadBatch {
                    reason: format!("{alone} bytes, at most {room} can be stored"),
                }),
                false => Ok(()),
            });
            match checked {
                Ok(()) if builder.push_within(&record, limits::BATCH_BYTES_TARGET) => {
                    which.push(letter.due);
                }
                Err(error) if which.is_empty() => return Err((letter.due, error)),
                // It is the first one of another step.
                Ok(()) | Err(_) => break,
            }
        }
        if builder.is_empty() {
            return Ok(Packed { batch: None, which });
        }
        let built = builder.build(ProducerId::zero(), Sequence::ZERO);
        let batch = built.and_then(|bytes| CheckedBatch::check(bytes, limits::MESSAGE_BYTES_MAX));
        match batch {
            Ok(batch) => Ok(Packed {
                batch: Some(batch),
                which,
            }),
            Err(error) => Err((which[0], error.into())),
        }
    }
}
