//! Every bound of the system, with its unit and its reason.
//!
//! A bound that is not here does not exist. What belongs together is related
//! by the constant assertions at the end, so a changed number that breaks a
//! relation does not compile.

mod clients;
mod connections;
mod discarding;
mod figures;
mod index;
mod messages;
mod storage;

pub use clients::*;
pub use connections::*;
pub use discarding::*;
pub use figures::*;
pub use index::*;
pub use messages::*;
pub use storage::*;

/// One kibibyte, in bytes.
pub const KIB: usize = 1024;
/// One mebibyte, in bytes.
pub const MIB: usize = 1024 * KIB;

// --- names -----------------------------------------------------------------

/// Longest topic name, pattern or subscription name, in bytes.
pub const NAME_BYTES_MAX: usize = 255;
/// Longest peer name, in bytes.
pub const PEER_NAME_BYTES_MAX: usize = 64;
/// Longest `host:port`, in bytes: the longest DNS name, a colon and five digits.
pub const ADDRESS_BYTES_MAX: usize = 259;

const _: () = {
    assert!(PATTERN_READERS_MAX * 4 <= REQUESTS_UNANSWERED_MAX);
    assert!(PUBLISHER_BATCHES_IN_FLIGHT_DEFAULT <= PUBLISHES_UNANSWERED_MAX);
    assert!(PUBLISHER_BATCHES_SMALL <= PUBLISHER_BATCHES_IN_FLIGHT_DEFAULT);
    assert!(SUBSCRIBER_ANSWER_BYTES_DEFAULT <= FETCH_BYTES_MAX);
    assert!(2 * SUBSCRIBER_ANSWER_BYTES_DEFAULT <= SUBSCRIBER_WINDOW_BYTES_DEFAULT);
    assert!(SUBSCRIBER_WINDOW_RECORDS >= 2 * BATCH_RECORDS_MAX as u64);
    assert!(KEEP_ALIVE_MIN.as_millis() < KEEP_ALIVE_WANTED.as_millis());
    assert!(KEEP_ALIVE_WANTED.as_millis() < KEEP_ALIVE_MAX.as_millis());
    // A node that has just sent something is silent for twice the time it was asked for.
    assert!(
        2 * KEEP_ALIVE_WANTED.as_millis()
            < STREAMS_WATCHED_EVERY.as_millis() * STREAMS_SILENT_LOOKS as u128
    );
    assert!(STREAMS_WATCHED_EVERY.as_millis() * (STREAMS_SILENT_LOOKS + 1) as u128 <= 2_000);
    assert!(CLIENT_ALIVE_EVERY.as_millis() * 3 <= CLIENT_SILENCE_MAX.as_millis());
    assert!(KEEP_ALIVE_MAX.as_millis() <= CLIENT_SILENCE_MAX.as_millis());
    assert!(STREAMS_PER_CONNECTION_MAX <= STREAMS_MAX);
    assert!(MEMBER_BUFFER_RECORDS_DEFAULT <= UNACKED_MAX as usize);
    assert!(MEMBER_WAIT.as_millis() <= FETCH_WAIT_MAX.as_millis());
    assert!(MESSAGE_BYTES_DEFAULT <= MESSAGE_BYTES_MAX);
    assert!(MESSAGE_BYTES_MAX < BATCH_BYTES_MAX);
    assert!(batch_bytes_max(MESSAGE_BYTES_MAX) == BATCH_BYTES_MAX);
    assert!(BATCH_BYTES_MAX < FRAME_BYTES_MAX);
    assert!(BATCH_BYTES_UNPACKED_MAX as u64 <= ZSTD_WINDOW_BYTES_MAX);
    assert!(BATCH_BYTES_UNPACKED_MAX <= u32::MAX as usize);
    assert!(FRAME_BYTES_MAX <= CONNECTION_BYTES_IN_FLIGHT_MAX);
    assert!(CONNECTION_BYTES_IN_FLIGHT_MAX < PROCESS_BYTES_IN_FLIGHT_MAX);
    assert!(CONTROL_BYTES_MAX < FRAME_BYTES_MAX);
    assert!(CONNECTION_BYTES_IN_FLIGHT_MAX < PROCESS_REQUEST_BYTES_MAX);
    assert!(CONNECTION_ANSWER_BYTES_MAX < PROCESS_ANSWER_BYTES_MAX);
    assert!(SPARE_ANSWER_BYTES > ANSWER_BYTES_UNRESERVED_MAX);
    assert!(SPARE_ANSWER_BYTES * SPARE_ANSWERS_MAX * 32 <= PROCESS_SPARE_BYTES_MAX);
    assert!(FETCH_BYTES_MAX <= CONNECTION_ANSWER_BYTES_MAX);
    assert!(CONTROL_BYTES_MAX <= CONNECTION_ANSWER_BYTES_MAX);
    assert!(READ_BUFFER_BYTES_MIN <= READ_BUFFER_BYTES_MAX);
    assert!(HELLO_FRAME_BYTES_MAX <= READ_BUFFER_BYTES_MIN);
    assert!(HELLO_FRAME_BYTES_MAX < CONTROL_BYTES_MAX);
    assert!(BATCH_BYTES_TARGET <= GROUP_BYTES_TARGET);
    assert!(FRAME_BYTES_MAX as u64 + MIB as u64 <= SLOT_BYTES_DEFAULT);
    assert!(FRAME_BYTES_MAX < PROCESS_REQUEST_BYTES_MAX);
    // Polls leave room for everything else.
    assert!(CONNECTIONS_MAX * POLLS_KEPT * POLL_BYTES_MIN < PROCESS_REQUEST_BYTES_MAX / 2);
    assert!(SLOT_BYTES_MAX <= u32::MAX as u64);
    assert!(
        SLED_LEAF_ROWS_MAX * (SLED_VALUE_BYTES_MAX + SLED_KEY_BYTES_MAX + 32) < SLED_PAGE_BYTES_MAX
    );
    assert!(SLED_INNER_KEYS_MAX * (SLED_KEY_BYTES_MAX + 32) < SLED_PAGE_BYTES_MAX);
    assert!(NAME_BYTES_MAX + 32 < SLED_KEY_BYTES_MAX);
    assert!(SLED_VALUE_BYTES_MAX + SLED_KEY_BYTES_MAX < STORE_SCAN_BYTES);
    assert!(STORE_SCAN_BYTES < STORE_DELTA_BYTES_MAX);
    assert!(SECTOR_BYTES_MIN <= SECTOR_BYTES_MAX);
    assert!(SLOT_HEADERS_BYTES.is_multiple_of(SECTOR_BYTES_MAX));
    assert!(SLOT_BYTES_MIN.is_multiple_of(SECTOR_BYTES_MAX as u64));
    assert!(SLOT_BYTES_DEFAULT.is_multiple_of(SECTOR_BYTES_MAX as u64));
    assert!(SLOTS_OPEN_MAX * 2 <= 512);
    assert!(SCAN_BYTES.is_multiple_of(SECTOR_BYTES_MAX as usize));
    assert!(SCAN_BYTES_FIRST.is_multiple_of(SECTOR_BYTES_MAX as usize));
    assert!(SCAN_BYTES_FIRST <= SCAN_BYTES);
    assert!(ZERO_FILL_BYTES.is_multiple_of(SECTOR_BYTES_MAX as usize));
    assert!(BUFFER_BYTES_MIN.is_power_of_two() && BUFFER_BYTES_MIN >= SECTOR_BYTES_MAX as usize);
    assert!(NAME_BYTES_MAX + 17 <= STATE_KEY_BYTES_MAX);
    // A subscription is two rows: its own and its history.
    assert!(2 * SUBSCRIPTIONS_PER_TOPIC_MAX + PRODUCERS_PER_TOPIC_MAX < STATE_OPERATIONS_MAX);
    assert!(
        (2 * SUBSCRIPTIONS_PER_TOPIC_MAX + PRODUCERS_PER_TOPIC_MAX) * (NAME_BYTES_MAX + 20)
            < ENTRY_BYTES_MAX
    );
    assert!(
        8 + HISTORY_CHANGES_MAX * (37 + 2 * (8 + AUTHOR_BYTES_MAX)) < SLED_VALUE_BYTES_MAX - 64
    );
    assert!(STORE_BUILD_BYTES + SLED_VALUE_BYTES_MAX + SLED_KEY_BYTES_MAX < STORE_DELTA_BYTES_MAX);
    assert!(PRODUCERS_FORGOTTEN_AT_ONCE < STATE_OPERATIONS_MAX);
    assert!(ID_PAGES_FORGOTTEN_AT_ONCE < ID_PAGES_FORGOTTEN_BY_A_CHANGE);
    assert!(ID_PAGES_FORGOTTEN_BY_A_CHANGE < STATE_OPERATIONS_MAX);
    assert!(PRODUCERS_PER_TOPIC_MAX <= PRODUCERS_PER_PEER_MAX);
    assert!(SNAPSHOT_ENTRY_ROWS < STATE_OPERATIONS_MAX);
    assert!(SNAPSHOT_GROUP_BYTES < GROUP_BYTES_TARGET);
    assert!(COLD_LIVE_PERCENT < COLD_LIVE_PERCENT_TIGHT && COLD_LIVE_PERCENT_TIGHT < 100);
    assert!(SPACE_PERCENT > 100);
    assert!(PRODUCER_BATCHES_KEPT >= PUBLISHES_UNANSWERED_MAX);
    assert!(PUBLISHES_UNANSWERED_MAX <= REQUESTS_UNANSWERED_MAX);
    assert!(HEARTBEAT_EVERY_DEFAULT.as_millis() * 3 < LEASE_DEFAULT.as_millis());
    assert!(PEERS_MAX < u16::MAX as usize);
    assert!(TOPICS_PER_PEER_MAX <= INDEX_ENTRIES_MAX);
    assert!(INDEX_ENTRIES_MAX < u32::MAX as usize);
    assert!(REGISTRY_BUCKETS == 1 << 16);
    // The last batch carries the peers' rows as well.
    assert!(REGISTRY_BATCH_BYTES_MAX + 2 * INDEX_BATCH_MAX * 1_024 < STORE_DELTA_BYTES_MAX);
    assert!(INDEX_BATCH_MAX <= INDEX_COMMANDS_WAITING_MAX);
    assert!(
        16 * (NONCES_KEPT_MAX + 4) + PEER_NAME_BYTES_MAX + ADDRESS_BYTES_MAX
            < REGISTRY_ROW_BYTES_MAX
    );
    // Largest possible answers: a conflict, a location, a peer with its names.
    assert!(
        CONFLICTS_TOLD_MAX * (2 * 8 + NAME_BYTES_MAX + 16 + PEER_NAME_BYTES_MAX)
            < CONTROL_BYTES_MAX
    );
    assert!(
        PAGE_ENTRIES_MAX * (3 * 8 + NAME_BYTES_MAX + 48 + PEER_NAME_BYTES_MAX + ADDRESS_BYTES_MAX)
            < CONTROL_BYTES_MAX
    );
    // Two labels, the classes of a histogram, and their lengths.
    assert!(
        PAGE_ENTRIES_MAX * (2 * (8 + NAME_BYTES_MAX) + 24 * 8 + 3 * 8) + 64 * KIB
            < CONTROL_BYTES_MAX
    );
    assert!(STANDINGS_TOPICS_AT_ONCE <= METRICS_TOPICS_MAX);
    assert!(HTTP_HEAD_TIMEOUT.as_millis() < HTTP_TIMEOUT.as_millis());
    // A topic as it is told is little more than its row; a subscription is two names and some numbers.
    assert!(DESCRIBED_PER_PAGE_MAX <= PAGE_ENTRIES_MAX);
    assert!(DESCRIBED_PER_PAGE_MAX * 2 * SLED_VALUE_BYTES_MAX < CONTROL_BYTES_MAX);
    assert!(DESCRIBED_PER_PAGE_MAX * 2 * (NAME_BYTES_MAX + 128) < CONTROL_BYTES_MAX);
    assert!(CONSUMER_FLUSH_PAGES_MAX + 256 < STATE_OPERATIONS_MAX);
    assert!(DELAYED_STEP_PAGES_MAX <= CONSUMER_FLUSH_PAGES_MAX);
    assert!(
        DELAYED_PER_PAGE_MAX * (4 * NAME_BYTES_MAX + 3 * DELAYED_SHOWN_BYTES + ERROR_SHOWN_BYTES)
            < CONTROL_BYTES_MAX
    );
    assert!(CONSUMER_FLUSH_BYTES + SLED_VALUE_BYTES_MAX < SLOT_BYTES_MIN as usize / 4);
    assert!(CONSUMER_PAGE_OFFSETS * 15 + 128 < SLED_VALUE_BYTES_MAX as u64);
    assert!(SETTLED_RUNS_MAX * (REJECT_REASON_BYTES_MAX + 64) < CONTROL_BYTES_MAX);
    assert!(ACK_DEADLINE_MIN.as_millis() < ACK_DEADLINE_DEFAULT.as_millis());
    assert!(ACK_DEADLINE_DEFAULT.as_millis() < ACK_DEADLINE_MAX.as_millis());
    assert!(DELIVERIES_DEFAULT <= DELIVERIES_MAX && UNACKED_DEFAULT <= UNACKED_MAX);
    assert!(BACKOFF_MS_DEFAULT.len() <= BACKOFF_STEPS_MAX);
    assert!(DAMAGE_LINES_MAX * (DAMAGE_LINE_BYTES_MAX + 8) + 4 * KIB < CONTROL_BYTES_MAX);
    assert!(
        PEERS_MAX * (10 * 8 + PEER_NAME_BYTES_MAX + ADDRESS_BYTES_MAX + 32)
            + 2 * CONFLICTS_SHOWN_MAX * (8 + NAME_BYTES_MAX)
            < CONTROL_BYTES_MAX
    );
};
