//! Messages and the batches they travel in.

use std::time::Duration;

use super::*;

/// Largest message (key, headers and value together) unless set otherwise, in bytes.
pub const MESSAGE_BYTES_DEFAULT: usize = MIB;
/// Upper bound of that setting, in bytes.
pub const MESSAGE_BYTES_MAX: usize = 16 * MIB;
/// Longest message key, in bytes.
pub const KEY_BYTES_MAX: usize = 64 * KIB;
/// Most headers of one message.
pub const HEADERS_MAX: usize = 256;
/// Longest id of a message, in bytes.
pub const MESSAGE_ID_BYTES_MAX: usize = 255;
/// The header that holds it.
pub const MESSAGE_ID_HEADER: &str = "tidings-id";
/// Most records in one batch: keeps offset arithmetic and duplicate tracking in 32 bits.
pub const BATCH_RECORDS_MAX: u32 = 65_536;
/// Most topics on which subscriptions of one name are told to be paused.
pub const PAUSED_TOLD_MAX: usize = 16_384;
/// Most offsets that one thinned batch spans, with and without a record.
pub const THINNED_SPAN_MAX: u32 = 1 << 24;
/// Shortest and longest time to live of a message.
pub const TTL_MIN: Duration = Duration::from_millis(1);
/// The longest: ten years.
pub const TTL_MAX: Duration = Duration::from_hours(10 * 365 * 24);
/// Largest record batch on the wire and on disk, in bytes, headers included.
pub const BATCH_BYTES_MAX: usize = MESSAGE_BYTES_MAX + 64 * KIB;
/// Largest record batch after decompression, in bytes: a bomb costs no more than a batch.
pub const BATCH_BYTES_UNPACKED_MAX: usize = BATCH_BYTES_MAX;
/// Largest window a zstd frame may declare, in bytes: a reader that unpacks piecewise reserves it.
/// The power of two above the largest batch, so every ordinary encoder stays below it.
pub const ZSTD_WINDOW_BYTES_MAX: u64 = 32 * MIB as u64;
/// What a publisher of ours puts into one batch unless a single message is larger, in bytes.
pub const BATCH_BYTES_TARGET: usize = 256 * KIB;

/// Largest batch that is sent for small messages, in bytes: the target with what is around it.
pub const BATCH_BYTES_USUAL: usize = BATCH_BYTES_TARGET + 64 * KIB;

/// Largest batch that a peer with such a largest message takes, packed, in bytes: one such message
/// with what is around it, or what publishers usually send.
pub const fn batch_bytes_max(message_bytes_max: usize) -> usize {
    let usual = match message_bytes_max < BATCH_BYTES_TARGET {
        true => BATCH_BYTES_TARGET,
        false => message_bytes_max,
    };
    usual + 64 * KIB
}
