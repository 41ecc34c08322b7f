//! Little-endian fields at fixed places. The callers have checked the lengths; a place outside is a bug and panics.

pub(super) fn get_u32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array(bytes, at))
}

pub(super) fn get_u64(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array(bytes, at))
}

pub(super) fn get_i64(bytes: &[u8], at: usize) -> i64 {
    i64::from_le_bytes(array(bytes, at))
}

pub(super) fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("a slice of N bytes")
}

pub(super) fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

pub(super) fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|b| *b == 0)
}

/// A length or position in memory as the 32 bits it has on the disk.
pub(super) fn to_u32(length: usize) -> u32 {
    u32::try_from(length).expect("lengths in a slot fit into 32 bits")
}

/// A length or position on the disk as an index into memory.
pub(super) fn to_usize(length: u32) -> usize {
    usize::try_from(length).expect("an index has at least 32 bits")
}
