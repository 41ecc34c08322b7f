//! What the tools that change a store have in common: an open store, cold segments, one change.

use std::sync::Arc;
use std::sync::mpsc::sync_channel;

use super::OfflineError;
use crate::journal::{ColdWriter, EntryToWrite, Footer, JournalError, Kind};
use crate::protocol::error::ApiError;
use crate::store::Store;
use crate::store::asker::Asker;
use crate::store::command::{Change, Command, Context};
use crate::store::keeper::publish_sealed;
use crate::store::pool::Prepared;
use crate::store::reclaim::snapshot_now;
use crate::store::segments::Segment;
use crate::topic::{RowKey, SegmentRow};
use crate::types::TopicId;

/// Byte of a cold segment in its row.
const COLD: u8 = 3;

/// A cold segment that is durable and that nothing names yet.
pub(super) struct Written {
    pub number: u64,
    pub row: SegmentRow,
    pub footer: Arc<Footer>,
    pub prepared: Prepared,
}

impl Written {
    /// Lets the running store read it; the state gets its row.
    pub fn put(&self, context: &mut Context<'_>) -> RowKey {
        context.state.put_segment(self.number, self.row);
        let segment = Segment::new(self.prepared.header, Some(self.row));
        publish_sealed(context.shared, segment, self.footer.clone());
        RowKey::Segment(self.number)
    }
}

/// Fills cold segments, one slot after the other.
pub(super) struct ColdFill<'a> {
    store: &'a Store,
    open: Option<(Prepared, ColdWriter)>,
    written: Vec<Written>,
}

impl<'a> ColdFill<'a> {
    /// Nothing is written yet.
    pub fn new(store: &'a Store) -> Self {
        Self {
            store,
            open: None,
            written: Vec::new(),
        }
    }

    /// Appends an entry, in a new slot if the present one is full.
    pub fn push(&mut self, entry: &EntryToWrite<'_>) -> Result<(), OfflineError> {
        let bytes = entry.payload_bytes();
        if self
            .open
            .as_ref()
            .is_some_and(|(_, writer)| !writer.has_room_for(bytes))
        {
            self.seal()?;
        }
        if self.open.is_none() {
            let prepared = self.store.pool.prepare(Kind::Cold, None)?;
            let writer = ColdWriter::new(prepared.slot.clone(), &prepared.header);
            if !writer.has_room_for(bytes) {
                return Err(OfflineError::Refused(format!(
                    "a batch of {bytes} bytes does not fit into a slot of {} bytes: the store was made with slots too small for it",
                    prepared.header.slot_bytes
                )));
            }
            self.open = Some((prepared, writer));
        }
        let (_, writer) = self.open.as_mut().expect("opened just now");
        writer.push(entry)?;
        Ok(())
    }

    fn seal(&mut self) -> Result<(), JournalError> {
        let Some((prepared, writer)) = self.open.take() else {
            return Ok(());
        };
        let cold = writer.finish()?;
        let row = SegmentRow {
            slot: prepared.header.slot,
            kind: COLD,
            salt: prepared.header.salt.to_bytes(),
            end: cold.footer.segment_end().contents_end,
            footer_position: cold.footer_position,
            footer_length: u32::try_from(cold.footer.as_bytes().len())
                .expect("a footer lies in a slot"),
            first_group: 0,
            last_group: 0,
            damaged: false,
        };
        self.written.push(Written {
            number: prepared.header.segment,
            row,
            footer: Arc::new(cold.footer),
            prepared,
        });
        Ok(())
    }

    /// Seals the last one. All are durable, and free slots until their rows are put.
    pub fn finish(mut self) -> Result<Vec<Written>, OfflineError> {
        self.seal()?;
        Ok(self.written)
    }
}

/// Runs `decide` on the writer's thread; returns when what it changed is durable.
pub(super) fn change<T, F>(store: &Store, decide: F) -> Result<T, OfflineError>
where
    T: Send + 'static,
    F: FnOnce(&mut Context<'_>) -> Result<(T, Vec<RowKey>), ApiError> + Send + 'static,
{
    let (sender, receiver) = sync_channel(1);
    let done = Box::new(move |outcome| drop(sender.send(outcome)));
    store.push(Command::Change(Change::new(TopicId::zero(), decide, done)));
    let outcome = receiver
        .recv()
        .map_err(|_| OfflineError::Refused("the store stopped".to_owned()))?;
    outcome.map_err(|error| OfflineError::Refused(error.to_string()))
}

/// Largest state entry of a store with slots of that size that fits into one group beside everything else in it.
pub(super) fn state_bytes_max(slot_bytes: u32) -> usize {
    (slot_bytes as usize / 2).min(crate::limits::ENTRY_BYTES_MAX / 2)
}

/// Stops the store and tells how that went.
pub(super) fn stop(store: &Store) -> Result<(), OfflineError> {
    let stopped = store.stop();
    stopped.map_err(|reason| OfflineError::Refused(format!("the store failed: {reason}")))
}

/// Writes a state snapshot, so that recovery needs nothing of the stream so far. Returns the horizon:
/// segments of the stream below are walked through by no recovery any more (J7).
pub(super) fn let_go_of_the_past(store: &Store) -> Result<u64, OfflineError> {
    let asker = Asker::new(
        store.shared.clone(),
        store.pool.clone(),
        store.applier.clone(),
        store.queue.clone(),
    );
    let horizon = snapshot_now(asker);
    horizon.map_err(|reason| OfflineError::Refused(format!("the store failed: {reason}")))
}
