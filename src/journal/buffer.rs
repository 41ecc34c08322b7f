//! Memory for the disk: aligned as O_DIRECT demands, shared without copying, used again.
//!
//! A [`AlignedBuffer`] is filled by one owner and then *frozen*: behind an `Arc`, never written
//! again while anybody reads it. Slices handed to clients keep it alive. The [`BufferPool`] takes
//! frozen buffers back and gives out those nobody else holds any more, so a steady writer
//! allocates nothing.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use memmap2::MmapMut;

use crate::limits::{BUFFER_BYTES_MIN, SECTOR_BYTES_MAX};

/// What a large page has, and what large buffers are multiples of, in bytes.
const LARGE_PAGE_BYTES: usize = 2 << 20;

/// Buffers from this on are made of large pages: below, more would be left empty than is gained.
const LARGE_BYTES_MIN: usize = LARGE_PAGE_BYTES / 2;

/// Alignment of memory, in bytes: at least every sector there is.
const ALIGNMENT: usize = SECTOR_BYTES_MAX as usize;

/// A piece of memory at an address that is a multiple of 4096, as long as a multiple of 4096.
pub struct AlignedBuffer {
    memory: Memory,
    start: usize,
    capacity: usize,
    /// Counts it among the large ones of its pool.
    _counted: Option<Counted>,
}

/// Counts a buffer for as long as it is there.
struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Longer than the capacity by one alignment; never resized, so it never moves.
enum Memory {
    Heap(Vec<u8>),
    /// In pages of 2 MiB, if the system has some. The disk reads and writes it in one piece instead of one for every
    /// 4 KiB, which makes it twice as fast where pieces cost (docs/adr/0001).
    Large(MmapMut),
}

impl Memory {
    fn as_slice(&self) -> &[u8] {
        match self {
            Self::Heap(memory) => memory,
            Self::Large(memory) => memory,
        }
    }
}

impl AlignedBuffer {
    /// Zeroed memory of at least `capacity` bytes, rounded up to a multiple of 4096, or of 2 MiB from half of that up.
    pub fn new(capacity: usize) -> Self {
        let large = (capacity >= LARGE_BYTES_MIN).then(|| Self::large(capacity));
        large.flatten().unwrap_or_else(|| Self::small(capacity))
    }

    /// The same in pages of the usual size, whatever its length.
    fn small(capacity: usize) -> Self {
        let capacity = capacity.max(1).next_multiple_of(ALIGNMENT);
        // Zeroed by the allocator: fresh pages come without a pass over them.
        Self::within(
            Memory::Heap(vec![0; capacity + ALIGNMENT]),
            capacity,
            ALIGNMENT,
        )
    }

    /// `None`: the system has none to give.
    fn large(capacity: usize) -> Option<Self> {
        let capacity = capacity.next_multiple_of(LARGE_PAGE_BYTES);
        let memory = MmapMut::map_anon(capacity + LARGE_PAGE_BYTES).ok()?;
        // A wish. Without large pages it is memory like any other.
        #[cfg(target_os = "linux")]
        let _ = memory.advise(memmap2::Advice::HugePage);
        Some(Self::within(
            Memory::Large(memory),
            capacity,
            LARGE_PAGE_BYTES,
        ))
    }

    fn within(memory: Memory, capacity: usize, alignment: usize) -> Self {
        let start = memory.as_slice().as_ptr().align_offset(alignment);
        assert!(start <= alignment, "an aligned address within the reserve");
        Self {
            memory,
            start,
            capacity,
            _counted: None,
        }
    }

    /// Length, in bytes.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// All of it.
    pub fn as_slice(&self) -> &[u8] {
        &self.memory.as_slice()[self.start..self.start + self.capacity]
    }

    /// All of it, to write.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        let memory: &mut [u8] = match &mut self.memory {
            Memory::Heap(memory) => memory,
            Memory::Large(memory) => memory,
        };
        &mut memory[self.start..self.start + self.capacity]
    }

    /// Ends writing: from now on it is shared and read only.
    pub fn freeze(self) -> SharedBuffer {
        SharedBuffer(Arc::new(self))
    }
}

impl fmt::Debug for AlignedBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AlignedBuffer({} bytes)", self.capacity)
    }
}

/// A buffer that is no longer written, held by any number of readers.
#[derive(Clone, Debug)]
pub struct SharedBuffer(Arc<AlignedBuffer>);

impl SharedBuffer {
    /// The whole buffer as bytes that keep it alive; slicing them copies nothing.
    pub fn bytes(&self) -> Bytes {
        Bytes::from_owner(self.clone())
    }

    /// Length, in bytes.
    pub fn capacity(&self) -> usize {
        self.0.capacity
    }

    /// The memory to write again, if nobody else holds it; else the buffer back.
    ///
    /// # Errors
    /// The buffer itself, still shared.
    pub fn reclaim(self) -> Result<AlignedBuffer, Self> {
        Arc::try_unwrap(self.0).map_err(Self)
    }

    fn is_held_elsewhere(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }
}

impl AsRef<[u8]> for SharedBuffer {
    fn as_ref(&self) -> &[u8] {
        self.0.as_slice()
    }
}

/// Buffers to use again. What it keeps is bounded; above the bound those go that were returned first.
#[derive(Debug)]
pub struct BufferPool {
    returned: Mutex<Returned>,
    bytes_max: usize,
    /// Buffers of large pages that are out or kept: such a page takes all its memory, however little of it is used.
    large: Arc<AtomicUsize>,
    large_max: usize,
}

#[derive(Debug, Default)]
struct Returned {
    /// In the order in which they were returned.
    buffers: VecDeque<SharedBuffer>,
    /// What they take. There may be thousands: they are not asked each time.
    bytes: usize,
}

impl BufferPool {
    /// A pool that keeps at most `bytes_max` of returned buffers.
    pub fn new(bytes_max: usize) -> Self {
        Self {
            returned: Mutex::default(),
            bytes_max,
            large: Arc::default(),
            large_max: usize::MAX,
        }
    }

    /// At most so many buffers of large pages, above that of pages of the usual size.
    pub fn with_large_max(mut self, large_max: usize) -> Self {
        self.large_max = large_max;
        self
    }

    fn lock(&self) -> MutexGuard<'_, Returned> {
        self.returned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A buffer of at least `bytes_min`, one of a few sizes so that it can be used again.
    ///
    /// Its content is arbitrary: zeros if it is new, an earlier group if not.
    pub fn take(&self, bytes_min: usize) -> AlignedBuffer {
        let class = size_class(bytes_min);
        // The last returned first: the processor may still have it. One that is up to half as large again serves
        // as well.
        let fits = |b: &SharedBuffer| {
            (class..=class + class / 2).contains(&b.capacity()) && !b.is_held_elsewhere()
        };
        let mut returned = self.lock();
        if let Some(at) = returned.buffers.iter().rposition(fits)
            && let Some(found) = returned.buffers.remove(at)
        {
            match found.reclaim() {
                Ok(buffer) => {
                    returned.bytes -= buffer.capacity();
                    return buffer;
                }
                Err(shared) => returned.buffers.push_back(shared),
            }
        }
        drop(returned);
        if class < LARGE_BYTES_MIN {
            return AlignedBuffer::small(class);
        }
        // A large one counts from before it is made, so that many threads together keep the bound.
        let counted = Counted(self.large.clone());
        match self.large.fetch_add(1, Ordering::Relaxed) < self.large_max {
            true => AlignedBuffer {
                _counted: Some(counted),
                ..AlignedBuffer::new(class)
            },
            false => AlignedBuffer::small(class),
        }
    }

    /// Takes a buffer back. Readers may still hold it; it is given out again when none does.
    ///
    /// Above the bound those go that were returned first: nobody has asked for their size since, or a slow reader holds
    /// them.
    pub fn give(&self, buffer: SharedBuffer) {
        let bytes = buffer.capacity();
        if bytes > self.bytes_max {
            return;
        }
        let mut gone = Vec::new();
        let mut returned = self.lock();
        while returned.bytes + bytes > self.bytes_max
            && let Some(first) = returned.buffers.pop_front()
        {
            returned.bytes -= first.capacity();
            gone.push(first);
        }
        returned.bytes += bytes;
        returned.buffers.push_back(buffer);
        drop(returned);
        // Their memory goes back to the system, which takes a while: not before others may go on.
        drop(gone);
    }
}

/// Sizes in steps of an eighth, or of large pages: few enough to be used again, close enough to waste little.
fn size_class(bytes: usize) -> usize {
    let bytes = bytes.max(BUFFER_BYTES_MIN);
    let class = bytes.next_multiple_of((bytes.next_power_of_two() / 8).max(ALIGNMENT));
    match class {
        small if small < LARGE_BYTES_MIN => small,
        _ => bytes.next_multiple_of(LARGE_PAGE_BYTES),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_aligned_and_zero() {
        for capacity in [0, 1, 4096, 4097, 1 << 20, 5 << 20] {
            let buffer = AlignedBuffer::new(capacity);
            let slice = buffer.as_slice();
            assert!(slice.len() >= capacity && slice.len().is_multiple_of(4096));
            assert!((slice.as_ptr() as usize).is_multiple_of(4096));
            assert!(slice.iter().all(|b| *b == 0));
        }
    }

    #[test]
    fn what_a_reader_holds_is_not_given_out() {
        let pool = BufferPool::new(1 << 20);
        let mut buffer = pool.take(20_000);
        buffer.as_mut_slice()[5] = 77;
        let shared = buffer.freeze();
        let reader = shared.bytes().slice(5..6);
        let address = shared.as_ref().as_ptr();
        pool.give(shared);
        assert_ne!(pool.take(20_000).as_slice().as_ptr(), address);
        assert_eq!(&reader[..], &[77]);
        drop(reader);
        let again = pool.take(20_000);
        assert_eq!(again.as_slice().as_ptr(), address);
        assert_eq!(again.as_slice()[5], 77, "its content is arbitrary");
    }

    #[test]
    fn keeps_no_more_than_it_may() {
        let pool = BufferPool::new(BUFFER_BYTES_MIN * 2);
        for buffer in [1, 2, 3].map(|_| pool.take(1)) {
            pool.give(buffer.freeze());
        }
        assert_eq!(pool.lock().buffers.len(), 2);
        assert_eq!(pool.lock().bytes, BUFFER_BYTES_MIN * 2);
    }

    #[test]
    fn sizes_that_nobody_asks_for_any_more_make_room() {
        let pool = BufferPool::new(4 << 20);
        let small = [(); 64].map(|()| pool.take(60_000).freeze());
        small.into_iter().for_each(|buffer| pool.give(buffer));
        assert!(pool.lock().bytes > 3 << 20);
        // As a writer does whose groups have become larger: each buffer comes back a few groups later.
        let mut cached = VecDeque::new();
        let mut fresh = 0;
        for _ in 0..50 {
            let mut buffer = pool.take(1_800_000);
            fresh += usize::from(buffer.as_slice()[0] == 0);
            buffer.as_mut_slice()[0] = 1;
            cached.push_back(buffer.freeze());
            if cached.len() > 4 {
                cached.drain(..1).for_each(|oldest| pool.give(oldest));
            }
        }
        assert!(fresh <= 6, "{fresh} of 50 were made anew");
    }

    #[test]
    fn large_ones_are_bounded_and_counted() {
        let pool = BufferPool::new(8 << 20).with_large_max(2);
        let is_large = |buffer: &AlignedBuffer| matches!(buffer.memory, Memory::Large(_));
        let out = [1, 2, 3].map(|_| pool.take(3 << 19));
        assert_eq!(out.each_ref().map(is_large), [true, true, false]);
        assert!(out.iter().all(|buffer| buffer.capacity() == 2 << 20));
        assert_eq!(pool.large.load(Ordering::Relaxed), 2);
        drop(out);
        assert_eq!(pool.large.load(Ordering::Relaxed), 0);

        let again = pool.take(1 << 20);
        assert!(is_large(&again));
        let address = again.as_slice().as_ptr();
        assert!((address as usize).is_multiple_of(LARGE_PAGE_BYTES));
        pool.give(again.freeze());
        assert_eq!(pool.take(2 << 20).as_slice().as_ptr(), address);
    }

    #[test]
    fn classes_waste_little() {
        for bytes in [1, 16_384, 20_000, 100_000, 900_000] {
            let class = size_class(bytes);
            assert!(class >= bytes && class.is_multiple_of(4096));
            assert!(bytes < BUFFER_BYTES_MIN || class <= bytes + bytes / 4 + 4096);
        }
        for bytes in [(1 << 20) - 1, 1 << 20, (1 << 20) + 5000, 17 << 20] {
            let class = size_class(bytes);
            assert!(class >= bytes && class.is_multiple_of(2 << 20));
            assert!(class < bytes + (2 << 20));
            assert_eq!(AlignedBuffer::new(class).capacity(), class);
        }
    }
}
