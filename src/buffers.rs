//! Buffers of frames and batches that are used again.
//!
//! A frame is a slice of the buffer it was received into, so the buffer is free when the last frame of it is. The reader
//! is done with it long before: it leaves it here, and the next reader that needs one takes it if no frame of it is held
//! by then. Otherwise a busy server would have its pages from the system and give them back thousands of times a second,
//! and each is zeroed on the way. The same with batches: a publisher writes the next one where one was that is acknowledged.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::BytesMut;

use crate::limits;

/// A buffer to fill, and how long it is as a whole.
#[derive(Debug, Default)]
pub(crate) struct Buffer {
    /// What is in it and was not taken yet; its capacity is what is left.
    pub bytes: BytesMut,
    whole: usize,
}

impl Buffer {
    /// An empty one of that length.
    pub fn new(whole: usize) -> Self {
        Self {
            bytes: BytesMut::with_capacity(whole),
            whole,
        }
    }

    /// Takes all that is in it.
    pub fn split(&mut self) -> BytesMut {
        // It may have grown.
        self.whole = self.whole.max(self.bytes.capacity());
        self.bytes.split()
    }

    /// Makes room for more in place, or elsewhere.
    pub fn grow(&mut self, room: usize) {
        self.bytes.reserve(room);
        self.whole = self.whole.max(self.bytes.capacity());
    }

    /// Makes all of it writable again, if nobody holds a frame of it.
    fn reclaim(&mut self) -> bool {
        self.bytes.clear();
        self.bytes.try_reclaim(self.whole)
    }
}

/// Buffers whose content was taken, in part still held by others. What is kept is bounded.
#[derive(Debug)]
pub(crate) struct Buffers {
    left: Mutex<Left>,
    bytes_max: usize,
}

#[derive(Debug, Default)]
struct Left {
    /// In the order in which they were left.
    buffers: VecDeque<Buffer>,
    /// Their whole lengths.
    bytes: usize,
}

impl Left {
    fn remove(&mut self, at: usize) -> Option<Buffer> {
        let buffer = self.buffers.remove(at)?;
        self.bytes -= buffer.whole;
        Some(buffer)
    }
}

impl Buffers {
    /// Keeps at most `bytes_max`.
    pub fn new(bytes_max: usize) -> Self {
        Self {
            left: Mutex::default(),
            bytes_max,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Left> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How much it keeps, with what is still held by others, and at most, in bytes.
    pub fn kept_bytes(&self) -> (usize, usize) {
        (self.lock().bytes, self.bytes_max)
    }

    /// An empty one with room for at least `bytes_min`.
    pub fn take(&self, bytes_min: usize) -> Buffer {
        let whole = size_class(bytes_min);
        if !is_kept(whole) {
            return Buffer::new(bytes_min);
        }
        let mut left = self.lock();
        // The last left first: the processor may still have it.
        let fits = |buffer: &mut Buffer| {
            (whole..=whole + whole / 2).contains(&buffer.whole) && buffer.reclaim()
        };
        if let Some(at) = (0..left.buffers.len())
            .rev()
            .find(|at| fits(&mut left.buffers[*at]))
            && let Some(buffer) = left.remove(at)
        {
            return buffer;
        }
        drop(left);
        Buffer::new(whole)
    }

    /// Takes one back; what was taken of it may still be held. What is still in it is forgotten.
    pub fn give(&self, mut buffer: Buffer) {
        if !is_kept(buffer.whole) {
            return;
        }
        buffer.bytes.clear();
        let mut gone = Vec::new();
        let mut left = self.lock();
        left.bytes += buffer.whole;
        left.buffers.push_back(buffer);
        // Those left first are those that somebody holds for long, or that nobody needed.
        while left.bytes > self.bytes_max
            && let Some(first) = left.remove(0)
        {
            gone.push(first);
        }
        drop(left);
        drop(gone);
    }
}

/// Sizes in steps of an eighth: few enough to be used again, close enough to waste little.
fn size_class(bytes: usize) -> usize {
    bytes.next_multiple_of((bytes.next_power_of_two() / 8).max(1))
}

/// Small ones are cheap to make; very large ones are rare, and much to keep.
fn is_kept(bytes: usize) -> bool {
    (limits::BUFFER_KEPT_BYTES_MIN..=limits::BUFFER_KEPT_BYTES_MAX).contains(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEPT: usize = limits::BUFFER_KEPT_BYTES_MIN;

    /// Its address, before something is put into it and taken.
    fn filled(buffers: &Buffers, bytes: usize) -> (*const u8, bytes::Bytes, Buffer) {
        let mut buffer = buffers.take(bytes);
        buffer.bytes.extend_from_slice(&vec![7; bytes]);
        let address = buffer.bytes.as_ptr();
        let held = buffer.bytes.split().freeze();
        (address, held, buffer)
    }

    #[test]
    fn is_used_again_when_nobody_holds_any_of_it() {
        let buffers = Buffers::new(8 * KEPT);
        let (first, mut held, buffer) = filled(&buffers, KEPT + 1);
        let whole = buffer.whole;
        assert!(whole > KEPT && whole <= KEPT + KEPT / 4);
        buffers.give(buffer);
        assert_eq!(buffers.lock().bytes, whole);
        let last = held.split_off(KEPT - 10);
        drop(held);
        let (second, _, _) = filled(&buffers, KEPT + 1);
        assert_ne!(second, first, "the end of it is still held");
        assert_eq!(buffers.lock().bytes, whole);
        assert!(last.iter().all(|byte| *byte == 7));
        drop(last);
        let again = buffers.take(KEPT + 1);
        assert_eq!(again.bytes.as_ptr(), first);
        assert!(again.bytes.is_empty() && again.bytes.capacity() == whole);
        assert_eq!(buffers.lock().bytes, 0);
    }

    #[test]
    fn only_one_of_nearly_that_length() {
        let buffers = Buffers::new(8 * KEPT);
        buffers.give(filled(&buffers, 4 * KEPT).2);
        assert_eq!(buffers.take(2 * KEPT).bytes.capacity(), 2 * KEPT);
        assert_eq!(buffers.take(5 * KEPT).bytes.capacity(), 5 * KEPT);
        assert_eq!(buffers.lock().bytes, 4 * KEPT);
        assert_eq!(buffers.take(3 * KEPT).bytes.capacity(), 4 * KEPT);
        assert_eq!(buffers.lock().bytes, 0);
    }

    #[test]
    fn what_was_left_in_it_is_forgotten() {
        let buffers = Buffers::new(8 * KEPT);
        let mut buffer = buffers.take(KEPT);
        buffer.bytes.extend_from_slice(b"secret");
        buffers.give(buffer);
        assert!(buffers.lock().buffers[0].bytes.is_empty());
        assert!(buffers.take(KEPT).bytes.is_empty());
    }

    #[test]
    fn one_that_grew_counts_as_what_it_is() {
        let buffers = Buffers::new(8 * KEPT);
        let mut buffer = buffers.take(KEPT);
        buffer.grow(3 * KEPT);
        buffer.bytes.extend_from_slice(&[7; 2 * KEPT]);
        drop(buffer.split());
        buffers.give(buffer);
        assert!(buffers.lock().bytes >= 3 * KEPT);
        assert!(buffers.take(2 * KEPT).bytes.capacity() >= 3 * KEPT);
        assert_eq!(buffers.lock().bytes, 0);
    }

    #[test]
    fn above_the_bound_the_first_one_goes() {
        let buffers = Buffers::new(2 * KEPT);
        let (_, held, oldest) = filled(&buffers, KEPT);
        buffers.give(oldest);
        let out = [(); 2].map(|()| filled(&buffers, KEPT));
        let addresses = out.each_ref().map(|(address, ..)| *address);
        for (_, held, buffer) in out {
            drop(held);
            buffers.give(buffer);
        }
        assert_eq!(buffers.lock().bytes, 2 * KEPT);
        drop(held);
        // Both of them are there, the one left last at first; a third one is new.
        assert_eq!(buffers.take(KEPT).bytes.as_ptr(), addresses[1]);
        assert_eq!(buffers.take(KEPT).bytes.as_ptr(), addresses[0]);
        assert_eq!(buffers.lock().bytes, 0);
    }

    #[test]
    fn small_and_very_large_ones_are_not_kept() {
        let buffers = Buffers::new(64 << 20);
        for bytes in [1, KEPT / 2, limits::BUFFER_KEPT_BYTES_MAX + 1] {
            let (_, _, buffer) = filled(&buffers, bytes);
            buffers.give(buffer);
            assert_eq!(buffers.lock().bytes, 0);
        }
    }
}
