//! The rows on the database's own thread: deltas in, one atomic batch each.
//!
//! Invariants:
//!
//! 1. Every batch that changes rows carries the meta row that counts and sums
//!    them afterwards.
//! 2. The totals in memory are those of the last batch that was written. A batch
//!    of which that is not known is the last one: its error stops the store.

use std::collections::BTreeMap;
use std::path::Path;

use super::error::CatalogError;
use super::kind::StoreKind;
use super::meta::{self, Applied, FORMAT, Head, Totals};
use super::sled_db::{Batch, Chunk, SledDb};
use super::value::Key;
use crate::limits;

/// A row: key and value, opaque to the store.
pub type Row = (Vec<u8>, Vec<u8>);

/// Changes to apply together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Delta {
    /// Rows to set. Of two with the same key the later counts.
    pub puts: Vec<Row>,
    /// Keys of rows to remove, before the puts. A key that is not there does no harm.
    pub deletes: Vec<Vec<u8>>,
    /// Up to where the journal is applied afterwards; `None` leaves it as it was.
    pub applied: Option<Applied>,
}

impl Delta {
    /// The same in steps small enough for `apply`, to be applied in this order.
    /// Only the last carries the position: rows hold absolute values, so being
    /// ahead of the position after a crash does them no harm.
    pub fn into_pieces(self) -> Vec<Self> {
        self.cut(limits::STORE_PIECE_BYTES)
    }

    pub(super) fn cut(self, piece_bytes: usize) -> Vec<Self> {
        let mut pieces = vec![Self::default()];
        let mut bytes = 0;
        let deletes = self.deletes.into_iter().map(|key| (key, None));
        let puts = self.puts.into_iter().map(|(key, value)| (key, Some(value)));
        for (key, value) in deletes.chain(puts) {
            if bytes >= piece_bytes {
                bytes = 0;
                pieces.push(Self::default());
            }
            bytes += key.len() + value.as_ref().map_or(0, Vec::len);
            let piece = pieces.last_mut().expect("never empty");
            match value {
                Some(value) => piece.puts.push((key, value)),
                None => piece.deletes.push(key),
            }
        }
        pieces.last_mut().expect("never empty").applied = self.applied;
        pieces
    }

    pub(super) fn check_size(&self) -> Result<(), CatalogError> {
        let puts: usize = self.puts.iter().map(|(k, v)| k.len() + v.len()).sum();
        let deletes: usize = self.deletes.iter().map(Vec::len).sum();
        let (bytes, limit) = (puts + deletes, limits::STORE_DELTA_BYTES_MAX);
        if bytes > limit {
            return Err(CatalogError::TooLarge {
                what: "change",
                bytes,
                limit,
            });
        }
        Ok(())
    }
}

/// The rows and their totals. Lives on the watched thread.
pub(super) struct Rows {
    db: SledDb,
    head: Head,
    totals: Totals,
    /// Something was applied that need not be on the disk.
    is_unsynced: bool,
}

/// The meta row, as far as it can be read.
pub(super) enum MetaRow {
    Missing,
    Found(Head, Totals),
    /// Intact, but of a format this program does not know.
    Newer(u32),
    Damaged(String),
}

impl Rows {
    pub(super) fn new(db: SledDb, kind: StoreKind) -> Self {
        Self {
            db,
            head: Head { kind, format: 0 },
            totals: Totals::default(),
            is_unsynced: false,
        }
    }

    pub(super) fn head(&self) -> Head {
        self.head
    }

    /// How many changes were applied since the store was made.
    pub(super) fn changes(&self) -> u64 {
        self.totals.changes
    }

    pub(super) fn path(&self) -> &Path {
        self.db.path()
    }

    /// Whether there is no row at all, the meta row not counted.
    pub(super) fn is_empty(&self) -> bool {
        let chunk = self.db.scan(Some(&Key::Meta.encode()), 1);
        chunk.rows.is_empty() && chunk.broken.is_none()
    }

    /// Writes the meta row of a store of this format with these rows in it.
    pub(super) fn set_meta(&mut self, format: u32, totals: Totals) -> Result<(), CatalogError> {
        let head = Head {
            format,
            ..self.head
        };
        let mut batch = Batch::default();
        batch.put(&Key::Meta.encode(), &meta::encode(head, &totals))?;
        self.db.commit(batch)?;
        self.head = head;
        self.totals = totals;
        Ok(())
    }

    /// Some [`limits::STORE_SCAN_BYTES`] of what comes after that key of the database.
    pub(super) fn scan(&self, after: Option<&[u8]>) -> Chunk {
        self.db.scan(after, limits::STORE_SCAN_BYTES)
    }

    pub(super) fn flush_durable(&mut self) -> Result<(), CatalogError> {
        self.db.flush_durable()?;
        self.is_unsynced = false;
        Ok(())
    }

    /// Reads the meta row and remembers it.
    pub(super) fn read_meta(&mut self) -> MetaRow {
        let key = Key::Meta.encode();
        let payload = match self.db.get(&key) {
            Ok(Some(payload)) => payload,
            Ok(None) => return MetaRow::Missing,
            Err(CatalogError::Newer { found, .. }) => return MetaRow::Newer(found),
            Err(error) => return MetaRow::Damaged(error.to_string()),
        };
        let head = match Head::decode(&payload) {
            Ok(head) if head.format > FORMAT => return MetaRow::Newer(head.format),
            Ok(head) => head,
            Err(error) => return MetaRow::Damaged(error.to_string()),
        };
        match meta::decode_totals(&payload) {
            Ok(totals) => {
                self.head = head;
                self.totals = totals;
                MetaRow::Found(head, totals)
            }
            Err(error) => MetaRow::Damaged(error.to_string()),
        }
    }

    /// Applies `delta` and the meta row for it as one batch; durably, together with what was applied before.
    pub(super) fn apply(&mut self, delta: Delta, durably: bool) -> Result<(), CatalogError> {
        self.put(delta)?;
        match durably && self.is_unsynced {
            true => self.flush_durable(),
            false => Ok(()),
        }
    }

    fn put(&mut self, delta: Delta) -> Result<(), CatalogError> {
        let applied = delta.applied;
        let mut totals = self.totals;
        let mut batch = Batch::default();
        let mut changed = false;
        for (key, new) in last_of_each(delta) {
            let key = Key::Row(&key).encode();
            let old = self.db.get(&key)?;
            if old == new {
                continue;
            }
            changed = true;
            if let Some(old) = &old {
                totals.remove(&key, old);
            }
            match &new {
                Some(new) => {
                    totals.add(&key, new);
                    batch.put(&key, new)?;
                }
                None => batch.delete(&key),
            }
        }
        totals.applied = applied.or(totals.applied);
        if !changed && totals.applied == self.totals.applied {
            return Ok(());
        }
        totals.changes = totals.changes.wrapping_add(1);
        batch.put(&Key::Meta.encode(), &meta::encode(self.head, &totals))?;
        self.db.write(batch)?;
        self.is_unsynced = true;
        self.totals = totals;
        Ok(())
    }
}

/// The last word of the delta on each key.
fn last_of_each(delta: Delta) -> BTreeMap<Vec<u8>, Option<Vec<u8>>> {
    let deletes = delta.deletes.into_iter().map(|key| (key, None));
    let puts = delta
        .puts
        .into_iter()
        .map(|(key, value)| (key, Some(value)));
    deletes.chain(puts).collect()
}
