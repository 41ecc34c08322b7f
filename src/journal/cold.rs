//! Writing a cold segment: entries one after the other, then the footer (section 5 of `docs/storage-format.md`).
//!
//! The entries come by topic and offset, so each topic ends up in a few long extents. Until a
//! state entry puts the segment's row the slot is as good as free, so nothing here is atomic: the
//! caller starts again on another life of a slot if anything fails.

use super::buffer::AlignedBuffer;
use super::compose::EntryToWrite;
use super::directory::SlotHandle;
use super::entry::ENTRY_HEADER_BYTES;
use super::error::JournalError;
use super::fields::{to_u32, to_usize};
use super::footer::{Footer, SegmentEnd};
use super::gather::FooterBuilder;
use super::header::{FIRST_POSITION, Kind, SlotHeader};
use super::place::round_up;
use crate::limits::ZERO_FILL_BYTES;

/// Bytes written at once.
const CHUNK_BYTES: usize = ZERO_FILL_BYTES;

/// Writes entries into a prepared cold slot.
#[derive(Debug)]
pub struct ColdWriter {
    slot: SlotHandle,
    header: SlotHeader,
    footer: FooterBuilder,
    chunk: AlignedBuffer,
    /// Where in the slot the chunk begins.
    chunk_position: u32,
    /// How much of the chunk is filled.
    filled: usize,
}

/// A written cold segment.
#[derive(Debug, Clone)]
pub struct ColdSegment {
    /// Its footer.
    pub footer: Footer,
    /// Where the footer lies.
    pub footer_position: u32,
}

impl ColdWriter {
    /// Begins at the first position of `slot`, which was prepared with `header`.
    pub fn new(slot: SlotHandle, header: &SlotHeader) -> Self {
        assert_eq!(header.kind, Kind::Cold, "a slot prepared as cold");
        Self {
            slot,
            header: *header,
            footer: FooterBuilder::default(),
            chunk: AlignedBuffer::new(CHUNK_BYTES),
            chunk_position: FIRST_POSITION,
            filled: 0,
        }
    }

    fn position(&self) -> u32 {
        self.chunk_position + to_u32(self.filled)
    }

    /// Whether the slot holds one more entry of so large a payload and the footer it then needs.
    pub fn has_room_for(&self, payload_bytes: usize) -> bool {
        let sector = to_usize(self.header.sector);
        let contents = to_usize(self.position()) + ENTRY_HEADER_BYTES + payload_bytes;
        let footer = self.footer.length_after(1);
        let end = contents.next_multiple_of(sector) + footer.next_multiple_of(sector);
        end <= to_usize(self.header.slot_bytes)
    }

    /// Appends an entry and tells the position of its header. Without room it panics: the caller has asked.
    ///
    /// # Errors
    /// If a write fails.
    pub fn push(&mut self, entry: &EntryToWrite<'_>) -> Result<u32, JournalError> {
        assert!(
            self.has_room_for(entry.payload_bytes()),
            "room was asked for"
        );
        let position = self.position();
        let header = entry.header();
        self.append(&header.encode(&self.header.seed(), position))?;
        for piece in entry.payload {
            self.append(piece)?;
        }
        self.footer.add(&header, position);
        Ok(position)
    }

    fn append(&mut self, mut bytes: &[u8]) -> Result<(), JournalError> {
        while !bytes.is_empty() {
            let room = &mut self.chunk.as_mut_slice()[self.filled..];
            let taken = room.len().min(bytes.len());
            room[..taken].copy_from_slice(&bytes[..taken]);
            bytes = &bytes[taken..];
            self.filled += taken;
            if self.filled == CHUNK_BYTES {
                self.write_chunk()?;
            }
        }
        Ok(())
    }

    fn write_chunk(&mut self) -> Result<(), JournalError> {
        let length = self.filled.next_multiple_of(to_usize(self.header.sector));
        self.chunk.as_mut_slice()[self.filled..length].fill(0);
        self.slot
            .write_at(&self.chunk.as_slice()[..length], self.chunk_position)?;
        self.chunk_position += to_u32(length);
        self.filled = 0;
        Ok(())
    }

    /// Writes what is left and the footer, and syncs all of it.
    ///
    /// # Errors
    /// If a write or the sync fails.
    pub fn finish(mut self) -> Result<ColdSegment, JournalError> {
        let sector = self.header.sector;
        let end = SegmentEnd {
            contents_end: round_up(self.position(), sector),
            groups: (0, 0),
        };
        self.write_chunk()?;
        let footer_position = end.contents_end;
        let footer = self
            .footer
            .finish(&end, &self.header.seed(), footer_position);
        self.slot
            .write_padded(footer.as_bytes(), footer_position, sector)?;
        self.slot.sync_data()?;
        Ok(ColdSegment {
            footer,
            footer_position,
        })
    }
}
