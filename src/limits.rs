//! Every bound of the system, with its unit and its reason.
//!
//! A bound that is not here does not exist. What belongs together is related
//! by the constant assertions at the end, so a changed number that breaks a
//! relation does not compile.

use std::time::Duration;

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

// --- messages --------------------------------------------------------------

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

// --- frames and connections --------------------------------------------------

/// Largest frame, in bytes, its length field excluded: one largest batch and its request around it.
pub const FRAME_BYTES_MAX: usize = BATCH_BYTES_MAX + 64 * KIB;
/// Largest frame before a successful hello, in bytes.
pub const HELLO_FRAME_BYTES_MAX: usize = 4 * KIB;
/// How long a new connection may take to say hello.
pub const HELLO_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a frame may take from its first to its last byte.
pub const FRAME_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a peer of ours may fail to take a byte of an answer before it is cut off.
pub const WRITE_STALL_TIMEOUT: Duration = Duration::from_secs(30);
/// Largest control body (everything but publish and fetch), in bytes.
pub const CONTROL_BYTES_MAX: usize = 8 * MIB;
/// Most requests of one connection that may be unanswered; beyond it the server stops reading.
pub const REQUESTS_UNANSWERED_MAX: usize = 1024;
/// Most publishes of one producer that may be unanswered, told in the hello answer.
pub const PUBLISHES_UNANSWERED_MAX: usize = 64;
/// Bytes of requests in flight on one connection before the server stops reading from it.
pub const CONNECTION_BYTES_IN_FLIGHT_MAX: usize = 2 * FRAME_BYTES_MAX;
/// Bytes of requests and answers in flight in the whole process before it stops reading.
pub const PROCESS_BYTES_IN_FLIGHT_MAX: usize = 128 * MIB;
/// The part of it for requests: from the admission of a request until its answer is written.
pub const PROCESS_REQUEST_BYTES_MAX: usize = PROCESS_BYTES_IN_FLIGHT_MAX / 2;
/// The part of it for answers: from the moment a large one is asked for until it is written.
/// Apart from the requests' part, so that a request holding memory never waits for another request's.
pub const PROCESS_ANSWER_BYTES_MAX: usize =
    PROCESS_BYTES_IN_FLIGHT_MAX - PROCESS_REQUEST_BYTES_MAX - PROCESS_SPARE_BYTES_MAX;
/// The part of it for short answers while that for answers is used up, by clients that do not take theirs perhaps.
pub const PROCESS_SPARE_BYTES_MAX: usize = 16 * MIB;
/// One such answer, in bytes.
pub const SPARE_ANSWER_BYTES: usize = 128 * KIB;
/// How many of them a connection may have: a reader that asks ahead has two on the way, and the ones before may
/// not be let go yet. So it takes 32 clients that take nothing to keep the others waiting.
pub const SPARE_ANSWERS_MAX: usize = 4;
/// Bytes of answers reserved or queued on one connection before it takes no further request.
pub const CONNECTION_ANSWER_BYTES_MAX: usize = FRAME_BYTES_MAX;
/// An answer up to this size needs no reservation: its request's covers it.
pub const ANSWER_BYTES_UNRESERVED_MAX: usize = 64 * KIB;
/// What a request costs at least while it is unanswered, in bytes: its bookkeeping.
pub const REQUEST_BYTES_MIN: usize = 256;
/// Most connections at once; one more is answered with `TooManyConnections`.
pub const CONNECTIONS_MAX: usize = 12_000;
/// File descriptors that connections leave to the rest of the process: slots, the database, what is about to be
/// refused. Where a process may have fewer than these and [`CONNECTIONS_MAX`], it takes fewer connections.
pub const DESCRIPTORS_KEPT: usize = 2 * SLOTS_OPEN_MAX + 2 * REFUSALS_MAX;
/// But never fewer than these.
pub const CONNECTIONS_MIN: usize = 16;
/// Refused connections that are still being told why; one more is closed without a word.
pub const REFUSALS_MAX: usize = 64;
/// Longest client name in a hello, in bytes.
pub const CLIENT_NAME_BYTES_MAX: usize = 255;
/// A frame up to this size is held by its connection alone; a larger one is admitted before it is
/// received. Also the smallest read buffer, in bytes. An idle connection has none.
pub const READ_BUFFER_BYTES_MIN: usize = 16 * KIB;
/// Largest read buffer beyond the frame being received, in bytes: one read of a busy connection.
pub const READ_BUFFER_BYTES_MAX: usize = 256 * KIB;
/// A piece of an answer up to this size is copied next to its neighbours instead of being written
/// from where it is, in bytes.
pub const COALESCE_BYTES_MAX: usize = 4 * KIB;
/// Copied pieces become one that is written from where it lies when they are this long together, in bytes.
pub const COPIED_BYTES_MAX: usize = 64 * KIB;
/// Bytes of queued answers that are gathered for one round of writing.
pub const WRITE_ROUND_BYTES: usize = MIB;
/// Pieces given to one vectored write.
pub const WRITE_PIECES_MAX: usize = 64;
/// How often the pace of a transfer is looked at while it holds memory.
pub const PACE_EVERY: Duration = Duration::from_secs(1);
/// What must move in that time while others wait for memory, in bytes; who moves less is cut off.
pub const PACE_BYTES_MIN: usize = 64 * KIB;
/// How long the other side may go on sending after it was told that the connection ends.
pub const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// How long requests are finished for a client that has closed its sending side.
pub const HALF_CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long requests in flight may take to finish when a server ends.
pub const SHUTDOWN_GRACE: Duration = Duration::from_secs(10);
/// A silent connection is probed by the operating system after so long.
pub const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
/// And then so often.
pub const KEEPALIVE_EVERY: Duration = Duration::from_secs(10);
/// And given up after so many probes.
pub const KEEPALIVE_PROBES: u32 = 3;
/// Most streams of one connection; one more is refused. They are not counted among its unanswered requests.
pub const STREAMS_PER_CONNECTION_MAX: usize = 1024;
/// Most streams of one server: each takes some two KiB.
pub const STREAMS_MAX: usize = 65_536;
/// Shortest time a client may ask for between signs of life of a node.
pub const KEEP_ALIVE_MIN: Duration = Duration::from_millis(100);
/// Longest such time.
pub const KEEP_ALIVE_MAX: Duration = Duration::from_secs(10);
/// What our clients ask for.
pub const KEEP_ALIVE_WANTED: Duration = Duration::from_millis(300);
/// Our clients look so often whether something came on a connection with streams.
pub const STREAMS_WATCHED_EVERY: Duration = Duration::from_millis(400);
/// After so many looks that found nothing the node is taken for dead: within two seconds, and a node that is
/// only slow has missed several signs of life by then.
pub const STREAMS_SILENT_LOOKS: u32 = 3;
/// Our clients give a node a sign of life so often while they have streams.
pub const CLIENT_ALIVE_EVERY: Duration = Duration::from_secs(5);
/// A node that hears nothing for so long on a connection with streams ends them.
pub const CLIENT_SILENCE_MAX: Duration = Duration::from_secs(30);
/// A stream that finds nothing where something is to be read looks again after this: its place was being
/// moved just then.
pub const STREAM_LOOKS_AGAIN: Duration = Duration::from_millis(10);
/// Longest long poll a fetch may ask for.
pub const FETCH_WAIT_MAX: Duration = Duration::from_secs(60);
/// Most bytes of batches in one fetch answer, unless the first batch alone is larger.
pub const FETCH_BYTES_MAX: usize = 8 * MIB;
/// Most entries in one page of a listing.
pub const PAGE_ENTRIES_MAX: usize = 10_000;

// --- storage -----------------------------------------------------------------

/// Size of a journal slot unless set otherwise, in bytes.
pub const SLOT_BYTES_DEFAULT: u64 = 64 * MIB as u64;
/// Smallest slot, in bytes. Batches must fit into a slot with their headers and a footer, so small slots mean small messages.
pub const SLOT_BYTES_MIN: u64 = MIB as u64;
/// Largest slot, in bytes: positions in a slot are 32 bits.
pub const SLOT_BYTES_MAX: u64 = 1024 * MIB as u64;
/// Positions before this hold the two copies of a slot's header, in bytes.
pub const SLOT_HEADERS_BYTES: u32 = 8192;
/// Smallest sector groups are aligned to, in bytes: what every disk writes whole.
pub const SECTOR_BYTES_MIN: u32 = 512;
/// Largest sector, in bytes: also the alignment of memory, and that of every slot's size.
pub const SECTOR_BYTES_MAX: u32 = 4096;
/// Open slots kept for readers and the writer; each has at most two descriptors.
pub const SLOTS_OPEN_MAX: usize = 256;
/// Bytes read at once when a segment is walked from end to end.
pub const SCAN_BYTES: usize = 4 * MIB;
/// Bytes read when a segment is first looked at: most looks end with its first group.
pub const SCAN_BYTES_FIRST: usize = 64 * KIB;
/// Bytes written at once when a new slot is filled with zeros.
pub const ZERO_FILL_BYTES: usize = 2 * MIB;
/// Neighbouring entries are joined into one extent up to this, in bytes: what one read of a client costs at most.
pub const EXTENT_BYTES_MAX: usize = MIB;
/// Extents for which a footer's room is kept beyond those it needs: each damaged entry may split one in two.
pub const FOOTER_SPARE_EXTENTS: usize = 16;
/// Smallest buffer of the writer's pool, in bytes.
pub const BUFFER_BYTES_MIN: usize = 4 * KIB;
/// Bytes of returned buffers the pool keeps for the next group; above it they go back to the allocator.
pub const BUFFERS_KEPT_BYTES: usize = 4 * MIB;
/// The same for memory that was read into for readers; most of it is held by answers on their way.
pub const READ_BUFFERS_KEPT_BYTES: usize = 4 * MIB;
/// Buffers of large pages among it, used or kept: a small extent would take as much memory as a large one.
pub const READ_BUFFERS_LARGE_MAX: usize = 16;
/// Smallest extent of a sealed segment that is read around the page cache, in bytes: small ones lie together in pages that
/// their neighbours' readers want as well.
pub const READ_AROUND_BYTES_MIN: u32 = 128 * 1024;
/// Read at once for a reader of one topic whose records follow one another there, in bytes: a large page.
pub const READ_WINDOW_BYTES: u32 = 2 * 1024 * 1024;
/// What was read that way and is kept, in bytes: the rest of it is asked for next, by the same reader or one beside it.
pub const READ_WINDOWS_KEPT_BYTES: usize = 16 * MIB;
/// How long they are kept when nobody reads from the disk any more.
pub const READ_WINDOWS_KEPT: Duration = Duration::from_secs(10);
/// Most batches and gaps in an answer with any out of thinned batches: of those there may be one for each offset.
pub const READ_ITEMS_MAX: usize = 16_384;
/// Batches that a reader is told as gaps, because their time is over or nothing of them is left, in bytes: after so many it is
/// answered, and asks for more.
pub const READ_PASSED_BYTES_MAX: usize = 4 * MIB;
/// Answers read before they were asked for, in bytes, all readers together.
pub const READ_AHEAD_BYTES_MAX: usize = 8 * MIB;
/// How long such an answer waits for its reader.
pub const READ_AHEAD_KEPT: Duration = Duration::from_secs(2);
/// Readers in order that are remembered, to know them by where they go on.
pub const READ_AHEAD_READERS_MAX: usize = 64;
/// Largest batch that is copied for a reader instead of handed out as a part of what it was read or written with, in bytes.
pub const SLICE_COPIED_BYTES_MAX: usize = 16 * KIB;
/// Largest answer to a fetch whose batches are all copied: what a larger one keeps in memory beside itself is a few times
/// its own bytes at the most, for windows and groups are some 2 MiB. In bytes.
pub const ANSWER_COPIED_BYTES_MAX: usize = 512 * KIB;
/// Longest key of a state row, in bytes: it ends up in sled.
pub const STATE_KEY_BYTES_MAX: usize = SLED_KEY_BYTES_MAX;
/// Largest value of a state row, in bytes: it ends up in sled.
pub const STATE_VALUE_BYTES_MAX: usize = SLED_VALUE_BYTES_MAX;
/// Most operations in one state entry: deleting a topic deletes all its subscriptions and producers at once.
pub const STATE_OPERATIONS_MAX: usize = 65_536;
/// Largest payload of one journal entry, in bytes.
pub const ENTRY_BYTES_MAX: usize = BATCH_BYTES_MAX;
/// Payload the writer gathers into one group before it writes, in bytes: with one more batch and what is written around
/// them they fill a large page.
pub const GROUP_BYTES_TARGET: usize = 1792 * KIB;
/// Claims in one group: as many topics as a full group of small messages touches, and 512 KiB at most.
pub const CLAIMS_PER_GROUP_MAX: usize = 16_384;
/// Bytes handed to the writer and not yet durable, before appending waits.
pub const APPEND_BYTES_WAITING_MAX: usize = 64 * MIB;
/// Commands handed to the writer and not yet taken by it.
pub const APPEND_COMMANDS_WAITING_MAX: usize = 65_536;
/// Recently written groups kept in memory for readers at the tail, in bytes.
pub const TAIL_CACHE_BYTES_DEFAULT: usize = 16 * MIB;
/// Footers of sealed segments kept in memory, in bytes.
pub const FOOTER_CACHE_BYTES: usize = 16 * MIB;
/// Largest section of an export, in bytes: a largest batch and its place, or a topic with very many gaps.
pub const EXPORT_SECTION_BYTES_MAX: usize = BATCH_BYTES_MAX + 64 * KIB;
/// Cache given to sled, in bytes; sled treats it as a wish and takes a multiple.
pub const SLED_CACHE_BYTES: u64 = 16 * MIB as u64;
/// Largest value in sled, in bytes: a leaf page of larger ones becomes a file that sled never syncs.
pub const SLED_VALUE_BYTES_MAX: usize = 4 * KIB;
/// Longest key in sled, in bytes: an inner page holds some 256 of them and must not become such a file either.
pub const SLED_KEY_BYTES_MAX: usize = 320;
/// A page of sled larger than this becomes a file of its own, in bytes: a quarter of its 512 KiB segment, less headers.
pub const SLED_PAGE_BYTES_MAX: usize = 131_052;
/// Most rows of one leaf page of sled: it splits above 16, and takes up to 3 more when it is merged with its neighbour.
pub const SLED_LEAF_ROWS_MAX: usize = 20;
/// Most keys of one inner page of sled: it splits above 256, and a merge adds up to 63.
pub const SLED_INNER_KEYS_MAX: usize = 320;
/// How often sled's own thread writes, collects garbage and syncs. Never off: nothing else collects.
pub const SLED_FLUSH_EVERY: Duration = Duration::from_millis(1000);
/// Opening sled that takes longer counts as a database that cannot be opened.
pub const SLED_OPEN_TIMEOUT: Duration = Duration::from_secs(120);
/// Free space wanted before sled is opened, in bytes: opening writes a snapshot and may fill a segment.
pub const SLED_FREE_BYTES_MIN: u64 = 4 * MIB as u64;
/// Ruined databases kept beside the one that replaced them, the newest ones: for a person to look at. Two, so that
/// a second replacement soon after the first does not take away what the first was about.
pub const RUINED_STORES_KEPT: usize = 2;
/// Largest change of a store applied at once, keys and values together, in bytes. Until it is applied sled keeps
/// a copy of the whole leaf page for every row of it, so it lies in memory some twenty times.
pub const STORE_DELTA_BYTES_MAX: usize = 4 * MIB;
/// Rows of a new store written at once while it is built, in bytes.
pub const STORE_BUILD_BYTES: usize = MIB / 4;
/// Rows of a store read at once while it is loaded, in bytes.
pub const STORE_SCAN_BYTES: usize = MIB;
/// One step of a migration that takes longer is given up.
pub const MIGRATION_TIMEOUT: Duration = Duration::from_secs(600);
/// Reasons told about one unsound store; further ones are counted.
pub const UNSOUND_REASONS_MAX: usize = 16;
/// A write or sync that takes longer stops the process. Time in which the process itself was stopped does not count.
pub const SYNC_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a store that has failed waits for its threads: one that hangs in the disk may never end.
pub const STOP_AFTER_FAILURE: Duration = Duration::from_secs(2);
/// Without a write for so long, a mark claims what was written.
pub const IDLE_MARK_AFTER: Duration = Duration::from_millis(200);
/// An `os` topic is synced at least so often.
pub const OS_SYNC_EVERY: Duration = Duration::from_millis(200);
/// How far the recorded bound of an `os` topic runs ahead of its offsets, in records.
pub const OS_BOUND_AHEAD: u64 = 1 << 20;
/// Batches remembered per producer and topic to answer a retry.
pub const PRODUCER_BATCHES_KEPT: usize = PUBLISHES_UNANSWERED_MAX;
/// A producer that has not published for so long is forgotten.
pub const PRODUCER_KEPT_FOR: Duration = Duration::from_secs(7 * 24 * 3600);
/// Most producers remembered per topic; beyond it the longest unused is forgotten.
pub const PRODUCERS_PER_TOPIC_MAX: usize = 10_000;
/// Producers remembered in all topics of a peer, from one look to the next: some 100 MiB of memory and catalog.
pub const PRODUCERS_PER_PEER_MAX: usize = 100_000;
/// Producers forgotten at once when a topic has too many, so that a flood of new ones is not searched through for each.
pub const PRODUCERS_FORGOTTEN_AT_ONCE: usize = PRODUCERS_PER_TOPIC_MAX / 16;
/// All topics are looked through for producers to forget so often.
pub const PRODUCERS_LOOKED_AT_EVERY: Duration = Duration::from_secs(3600);
/// Most subscriptions of one topic.
pub const SUBSCRIPTIONS_PER_TOPIC_MAX: usize = 10_000;
/// Changes of a subscription's place that are kept, the newest: as many as go into one value.
pub const HISTORY_CHANGES_MAX: usize = 20;
/// What is kept there of a client's name and of its address, in bytes each: an address with a zone has 58.
pub const AUTHOR_BYTES_MAX: usize = 64;
/// Most consumer groups of one topic.
pub const CONSUMER_GROUPS_PER_TOPIC_MAX: usize = 4_000;
/// Offsets that one row says of which are settled, and which failed: all of them failed are little less than a value.
pub const CONSUMER_PAGE_OFFSETS: u64 = 256;
/// Pages between the oldest open record of a consumer group and the newest one that it looked at: 1,048,576 offsets.
pub const CONSUMER_PAGES_MAX: u64 = 4_096;
/// Most records of a consumer group that wait for older ones of their keys: some 25 MiB.
pub const CONSUMER_PARKED_MAX: u64 = 262_144;
/// What all consumer groups of a peer may remember, in runs of offsets and pages: some 200 MiB. With more, none looks at
/// new records; those that were given out come again as ever.
pub const CONSUMER_PIECES_MAX: usize = 2_000_000;
/// Batches that are read for one take to give out records again: they may lie far from each other.
pub const CONSUMER_READS_MAX: usize = 16;
/// Batches that were unpacked to give out a part of them and are kept for the next part, of all groups, in bytes.
pub const CONSUMER_UNPACKED_BYTES: usize = 32 * MIB;
/// A consumer group that nobody uses is let go of after so long.
pub const CONSUMER_DESK_KEPT: Duration = Duration::from_secs(10);
/// Dead letters that could not be written are tried again so often.
pub const DEAD_LETTERS_RETRIED_EVERY: Duration = Duration::from_secs(5);
/// Most dead letters in one batch.
pub const DEAD_LETTERS_AT_ONCE: usize = 256;
/// Rows of a consumer group in one change, in bytes: publishers share the group of the journal.
pub const CONSUMER_FLUSH_BYTES: usize = 128 * KIB;
/// And most pages in it.
pub const CONSUMER_FLUSH_PAGES_MAX: usize = 1_024;
/// Most delayed messages that are pending on one peer: some 200 MiB. With more, publishers of delayed messages wait.
pub const DELAYED_MAX: u64 = 1_000_000;
/// What a step counts for each delayed message beside its bytes.
pub const DELAYED_OVERHEAD_BYTES: usize = 32;
/// Pages of which one step of delayed messages writes rows.
pub const DELAYED_STEP_PAGES_MAX: usize = CONSUMER_FLUSH_PAGES_MAX;
/// Most delayed messages in one step.
pub const DELAYED_STEP_RECORDS_MAX: usize = BATCH_RECORDS_MAX as usize;
/// Old delayed messages are moved to the end of their companion where fewer than one of so many offsets is pending,
pub const DELAYED_SPAN_FACTOR: u64 = 4;
/// and there are more offsets than this: 256 pages of rows.
pub const DELAYED_SPAN_MIN: u64 = 65_536;
/// The wall clock is looked at so often while delayed messages are pending: it may have been set.
pub const DELAYED_CLOCK_EVERY: Duration = Duration::from_secs(5);
/// First pause after delayed messages could not be delivered; each is twice the one before.
pub const DELAYED_RETRY_MIN: Duration = Duration::from_millis(100);
/// The longest one.
pub const DELAYED_RETRY_MAX: Duration = Duration::from_secs(5);
/// A delayed message that its topic refuses for good is tried again after so long: the topic may have other bounds then.
pub const DELAYED_ASIDE_FOR: Duration = Duration::from_secs(60);
/// Most that are set aside of one topic: with more, the others wait too.
pub const DELAYED_ASIDE_MAX: usize = 1_000;
/// What is shown of key and payload of a delayed message in a list, in bytes.
pub const DELAYED_SHOWN_BYTES: usize = 256;
/// What is told of what keeps delayed messages of a topic, in bytes.
pub const ERROR_SHOWN_BYTES: usize = 1_024;
/// Most delayed messages in one page of a list, and most topics told with it.
pub const DELAYED_PER_PAGE_MAX: usize = 1_000;
/// Most members of one consumer group at a time; all of them are told.
pub const CONSUMER_MEMBERS_MAX: usize = 1_000;
/// Shortest time that a member may hold a record without a word about it: the clock of a group ticks so often.
pub const ACK_DEADLINE_MIN: Duration = CONSUMER_TICK;
/// Longest one.
pub const ACK_DEADLINE_MAX: Duration = Duration::from_secs(24 * 3600);
/// The one of a group for which none was named.
pub const ACK_DEADLINE_DEFAULT: Duration = Duration::from_secs(30);
/// How often a consumer group looks for deadlines and back-offs that have passed.
pub const CONSUMER_TICK: Duration = Duration::from_millis(100);
/// Most failed deliveries that can be asked for before a record goes to the dead letters.
pub const DELIVERIES_MAX: u32 = 10_000;
/// Those of a group for which none was named.
pub const DELIVERIES_DEFAULT: u32 = 10;
/// Most steps of a group's back-off: they lie in its row.
pub const BACKOFF_STEPS_MAX: usize = 16;
/// Longest step, and longest delay of a record that was refused.
pub const BACKOFF_MAX: Duration = Duration::from_secs(7 * 24 * 3600);
/// The steps of a group for which none were named, in milliseconds.
pub const BACKOFF_MS_DEFAULT: &[u64] = &[1_000, 5_000, 30_000, 60_000];
/// Most records that one member may be allowed to hold.
pub const UNACKED_MAX: u32 = 65_536;
/// Those of a group for which none was named.
pub const UNACKED_DEFAULT: u32 = 1_000;
/// Most runs of offsets in one settlement.
pub const SETTLED_RUNS_MAX: usize = 4_096;
/// Longest reason of a rejected record, in bytes: it becomes a header of the dead letter.
pub const REJECT_REASON_BYTES_MAX: usize = KIB;
/// Shortest time after which an unused subscription may expire: whoever reads through it reconnects sooner.
pub const SUBSCRIPTION_EXPIRE_MIN: Duration = Duration::from_secs(1);
/// Subscriptions that expire at once, at most; the next look goes on.
pub const SUBSCRIPTIONS_EXPIRED_AT_ONCE: usize = 1_024;
/// When nothing was looked at for so long beyond the time set for it, the process stood still, and so did its readers.
pub const STOOD_STILL_AFTER: Duration = Duration::from_secs(5);
/// Moves of topics' readable ends that are kept for those who follow many topics, while anybody does: who is further
/// behind is told all ends. 1 MiB.
pub const MOVES_KEPT: usize = 65_536;
/// Those who may wait for moves at one peer at once; one more is refused.
pub const MOVES_WATCHERS_MAX: usize = 4_096;
/// Most topics of one peer.
pub const TOPICS_PER_PEER_MAX: usize = 1_000_000;
/// Gaps remembered per topic (lost or accepted as lost) from which on an `os` topic gets no new bound, so that
/// no unclean stop adds one. A topic's row has room for more than twice as many.
pub const GAPS_PER_TOPIC_MAX: usize = 64;
/// Generations that subscriptions of a topic may have got in state entries that were lost to damage: more than a
/// host can give in its life, and few enough for a damage each day.
pub const GENERATIONS_LOST_MAX: u64 = 1 << 32;

/// Message ids a topic remembers where only a time is set.
pub const IDS_REMEMBERED_DEFAULT: u64 = 100_000;
/// Most that can be set, of one topic.
pub const IDS_PER_TOPIC_MAX: u64 = 1_000_000;
/// And of all topics of a peer together: some 200 MiB of memory, and half of that in the catalog.
pub const IDS_PER_PEER_MAX: u64 = 2_000_000;
/// Least time that can be set: longer than a publisher tries to get an answer.
pub const IDS_REMEMBERED_FOR_MIN: Duration = Duration::from_secs(60);
/// Offsets whose ids share a row: 24 bytes each, and the row below the largest value.
pub const IDS_PER_PAGE: u64 = 128;
/// Rows of ids forgotten by one state entry.
pub const ID_PAGES_FORGOTTEN_AT_ONCE: usize = 16;
/// Epochs that named producers of a topic may have got in state entries that were lost to damage.
pub const PRODUCER_EPOCHS_LOST_MAX: u32 = 1 << 16;

/// Most topics or subscriptions in one page that a peer's writer puts together: publishers wait meanwhile.
pub const DESCRIBED_PER_PAGE_MAX: usize = 500;
/// Lines of damage kept to be told; the log has them all.
pub const DAMAGE_LINES_MAX: usize = 1_000;
/// Longest of them, in bytes.
pub const DAMAGE_LINE_BYTES_MAX: usize = KIB;

// --- figures -------------------------------------------------------------------

/// Topics whose figures are told one by one, the first by name; the others are counted. Seven series each: at 10,000
/// the text is some 5 MiB with usual names, 20 MiB with the longest.
pub const METRICS_TOPICS_MAX: usize = 10_000;
/// Subscriptions of those topics whose lag is told.
pub const METRICS_SUBSCRIPTIONS_MAX: usize = 10_000;
/// Consumer groups of those topics that are told one by one.
pub const METRICS_GROUPS_MAX: usize = 10_000;
/// Topics whose subscriptions the writer is asked for in one command.
pub const STANDINGS_TOPICS_AT_ONCE: usize = 1_000;
/// How long the writer may take to tell; where it waits for the disk, what it told last is told again.
pub const STANDINGS_PATIENCE: Duration = Duration::from_secs(1);
/// How long figures that were collected are kept for whoever goes on with their pages.
pub const FIGURES_KEPT: Duration = Duration::from_secs(5);
/// Connections of the listener for figures; one more costs the oldest one its place.
pub const HTTP_CONNECTIONS_MAX: usize = 16;
/// How long one of them may take to send its request.
pub const HTTP_HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// And from its first to its last byte, the answer included. No connection is used twice.
pub const HTTP_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest head of a request, in bytes.
pub const HTTP_HEAD_BYTES_MAX: usize = 8 * KIB;
/// Most header lines of a request.
pub const HTTP_HEADERS_MAX: usize = 64;
/// Requests of a connection that a service is told of before it is called with each: what they need of its memory
/// stays in the nearest cache until then.
pub const REQUESTS_FORESEEN_MAX: usize = 32;
/// Requests counted on a connection before they are added to those of the server.
pub const REQUESTS_TALLIED_MAX: u64 = 256;

// --- discarding ----------------------------------------------------------------

/// Retention, freeing and copying are looked at so often, and a state snapshot is written no more often.
pub const RECLAIM_EVERY_DEFAULT: Duration = Duration::from_secs(1);
/// And at least so often while something of it waits for the disk.
pub const RECLAIM_EVERY_BUSY: Duration = Duration::from_millis(50);
/// Looking more often than this is looking all the time.
pub const RECLAIM_EVERY_MIN: Duration = Duration::from_millis(1);
/// A repair waits so long for its state snapshot to be relied on.
pub const SNAPSHOT_PATIENCE: Duration = Duration::from_secs(600);
/// Extents one step of a topic's retention passes over; the next step goes on.
pub const RETENTION_EXTENTS_MAX: usize = 65_536;
/// Steps of retention handed to the writer before their outcome is waited for.
pub const RETENTION_STEPS_AT_ONCE: usize = 64;
/// Where wall clock and monotonic clock have parted by more, nothing expires by age.
pub const CLOCKS_APART_MAX: Duration = Duration::from_secs(3600);
/// Segments freed by one state entry.
pub const SEGMENTS_FREED_AT_ONCE: usize = 256;
/// Rows in one state entry of a snapshot: bounds the entry to some 90 KiB of the largest rows but topics' and pages of
/// consumer groups in which everything failed, which are 250 KiB at the very most.
pub const SNAPSHOT_ENTRY_ROWS: usize = 64;
/// What a snapshot adds to one group, in bytes: publishers share the group, so it is kept small against it.
pub const SNAPSHOT_GROUP_BYTES: usize = 128 * KIB;
/// A snapshot is written where it lets go of so many times its own size.
pub const SNAPSHOT_GAIN_MIN: u64 = 8;
/// A snapshot is written at the latest after so many segments: a rebuild of the catalog reads no more than these.
pub const SNAPSHOT_SEGMENTS_MAX: u64 = 64;
/// Size of a row before any snapshot was written, in bytes: a guess on the large side.
pub const SNAPSHOT_ROW_BYTES: u64 = 512;
/// Free slots kept for the segments to come, beside the one that is ready.
pub const FREE_SLOTS_KEPT: usize = 2;
/// Further ones are deleted when nobody took them between so many looks of the reclaimer: a busy peer uses
/// them before.
pub const FREE_SLOT_KEPT_LOOKS: u32 = 2;
/// A segment is copied together with others when at most so much of its slot is live, in percent.
pub const COLD_LIVE_PERCENT: u64 = 50;
/// The same while the store takes more space than it should: beyond this copying moves more than it frees.
pub const COLD_LIVE_PERCENT_TIGHT: u64 = 80;
/// A segment of which at least one part in so many of what lives is to go soon is not copied.
pub const COLD_GOING_SHARE: u64 = 8;
/// While there is space enough, copying gives back at least so many times what it copies.
pub const COLD_GAIN_MIN: u64 = 4;
/// Space on disk above this part of the live bytes is more than it should be, in percent.
pub const SPACE_PERCENT: u64 = 140;
/// Beside so many slots: a cold one that is not full, and one that waits for the next snapshot.
pub const SPACE_SLOTS: u64 = 2;
/// Segments copied into one cold segment at once: bounds the footers in memory.
pub const COLD_SOURCES_MAX: usize = 64;
/// Slots one step of copying takes before it gives any back: as many as the reserve has room for.
pub const COLD_OUTPUTS_MAX: u64 = 2;
/// Bytes copied per second while there is space enough, so that publishers hardly notice.
pub const COLD_BYTES_PER_SECOND: u64 = 32 * MIB as u64;
/// Bytes read at once for copying.
pub const COLD_READ_BYTES: u32 = MIB as u32;
/// Extents up to this are read for copying together with others that lie near, in bytes; larger ones one by one.
pub const COLD_SMALL_BYTES: u32 = 64 * KIB as u32;
/// What lies between two of them is read along up to this, in bytes: it takes no longer than a read of its own.
pub const COLD_SKIP_BYTES: u32 = 64 * KIB as u32;
/// Bytes of such extents that are kept until they are written in their order.
pub const COLD_GATHER_BYTES: usize = 32 * MIB;
/// A cold segment is synced every so many bytes, so that its last sync does not hold up the writer's.
pub const COLD_SYNC_BYTES: u64 = 8 * MIB as u64;
/// Opening waits for reclaiming when this many segments could be given up: a peer that is killed again
/// and again leaves one or two behind at each start.
pub const OPEN_RECLAIM_SEGMENTS: u64 = 8;
/// But not longer than this.
pub const OPEN_RECLAIM_PATIENCE: Duration = Duration::from_secs(10);

// --- the index ---------------------------------------------------------------

/// A peer tells the index that it lives, every so often.
pub const HEARTBEAT_EVERY_DEFAULT: Duration = Duration::from_secs(2);
/// A peer asks the index for all peers this often; besides, when it comes back to an index or meets one it does not
/// know. Every answer names all of them, so asking at each heartbeat would cost the square of their number.
pub const PEERS_LISTED_EVERY: Duration = Duration::from_secs(30);
/// Names in conflict that a peer looks up beside a heartbeat, to see whether they are free.
pub const CONFLICTS_LOOKED_AT_ONCE: usize = 16;
/// A peer that told everything anew for a free name, and did not get it, does so again after this.
pub const CONFLICT_RETRIED_EVERY: Duration = Duration::from_secs(30);
/// The rates a peer tells are over at least so long.
pub const RATES_OVER: Duration = Duration::from_secs(1);
/// A peer that did not for so long is down.
pub const LEASE_DEFAULT: Duration = Duration::from_secs(10);
/// A granted name that is not confirmed for so long is free again.
pub const CLAIM_KEPT_FOR: Duration = Duration::from_secs(10);
/// Other peers asked for a topic while no index answers.
pub const PEERS_ASKED_MAX: usize = 64;
/// Most peers of one index.
pub const PEERS_MAX: usize = 10_000;
/// Most names held, claimed or in conflict at one index, and most topics in lists
/// that are coming in: entries are numbered in 32 bits and cost about 200 bytes.
pub const INDEX_ENTRIES_MAX: usize = 8_000_000;
/// Values of the store that a registry's entries are spread over: at a million
/// topics each holds 15, which is well below the largest value.
pub const REGISTRY_BUCKETS: usize = 65_536;
/// Largest value of a registry's row, in bytes: what sled takes, less its checksum's envelope.
pub const REGISTRY_ROW_BYTES_MAX: usize = SLED_VALUE_BYTES_MAX - 64;
/// Changed rows of the registry written at once, in bytes. What waits is nearly always one
/// batch; a peer that registers tens of thousands of topics takes several.
pub const REGISTRY_BATCH_BYTES_MAX: usize = MIB;
/// Displaced processes remembered per peer: far more than can be displaced before
/// the next heartbeat of each tells it.
pub const NONCES_KEPT_MAX: usize = 32;
/// Most conflicts told to a registering peer; they have to fit into one answer.
pub const CONFLICTS_TOLD_MAX: usize = 10_000;
/// Most names in conflict shown with one peer in a list of peers.
pub const CONFLICTS_SHOWN_PER_PEER_MAX: usize = 100;
/// Most conflicts shown in a list of peers, over all of them.
pub const CONFLICTS_SHOWN_MAX: usize = 2_000;
/// Last changes of the registry that watchers can ask for; who is further behind lists everything.
pub const WATCH_CHANGES_KEPT: usize = 65_536;
/// Watches that may wait at once at one index; one more is refused.
pub const WATCHERS_MAX: usize = 4_096;
/// A watcher that is woken gathers changes for so long before it is answered.
pub const WATCH_GATHER: Duration = Duration::from_millis(10);
/// Commands that wait for the registry's keeper; beyond it their connections wait. Their bodies
/// are paid for out of the process's budget for requests.
pub const INDEX_COMMANDS_WAITING_MAX: usize = 4_096;
/// Commands that the keeper applies before it writes and answers.
pub const INDEX_BATCH_MAX: usize = 1_024;
/// Topics in the parts of lists that the keeper takes in before it goes on with anything else; one part may come on top.
pub const INDEX_BATCH_TOPICS_MAX: usize = 2 * PAGE_ENTRIES_MAX;
/// Entries that one step of taking a list or removing a peer meets: some ten milliseconds' work, and, at a
/// million topics, little less than a batch of rows.
pub const INDEX_STEP_ENTRIES: usize = 8_192;
/// Buckets whose changes are shown to readers under one lock: well below a millisecond's work
/// at a million topics.
pub const SHOW_BUCKETS_MAX: usize = 256;
/// Conflicts logged one by one when a peer registers; the others are counted.
pub const CONFLICTS_LOGGED_MAX: usize = 20;
/// Time passes in the registry at most so often.
pub const TICK_EVERY_MIN: Duration = Duration::from_millis(10);
/// And at least so often.
pub const TICK_EVERY_MAX: Duration = Duration::from_millis(250);
/// A peer whose file system has less free space is not chosen for a new topic, in bytes.
pub const PLACE_DISK_FREE_BYTES: u64 = 512 * MIB as u64;

// --- clients -----------------------------------------------------------------

/// How long connecting and the hello may take.
pub const DIAL_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a client waits for the answer to a request that is not a long poll.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Without progress for so long, a client gives up, unless set otherwise.
pub const NO_PROGRESS_TIMEOUT_DEFAULT: Duration = Duration::from_secs(60);
/// First pause before something is tried again; it doubles each time.
pub const RETRY_PAUSE_MIN: Duration = Duration::from_millis(20);
/// Longest such pause.
pub const RETRY_PAUSE_MAX: Duration = Duration::from_secs(1);
/// Most redirects followed for one request: hosts change rarely, circles must end.
pub const REDIRECTS_MAX: usize = 5;
/// Locations of topics kept by a client; beyond it all are forgotten and asked for again.
pub const LOCATIONS_CACHED_MAX: usize = 100_000;
/// Connections a client keeps per kind of traffic before closed ones are looked for and dropped.
pub const CONNECTIONS_POOLED_CHECK: usize = 64;
/// Peers a client asks at the same time for a report over all of them.
pub const PEERS_ASKED_AT_ONCE: usize = 16;
/// How long a topic that the index does not know (any more) is still waited for: an index that
/// lost its directory is told everything again within one lease.
pub const TOPIC_MISSING_GRACE: Duration = LEASE_DEFAULT;
/// Bytes of messages a publisher holds, waiting or unanswered, unless set otherwise.
pub const PUBLISHER_BYTES_DEFAULT: usize = 32 * MIB;
/// What a message costs there beside its bytes.
pub const MESSAGE_BYTES_OVERHEAD: usize = 64;
/// Batches of a publisher that may be unanswered, unless set otherwise.
pub const PUBLISHER_BATCHES_IN_FLIGHT_DEFAULT: usize = 8;
/// With so many unanswered, a batch that is not full waits for more messages.
pub const PUBLISHER_BATCHES_SMALL: usize = 2;
/// How long a publisher that begins waits to hear the bounds of its topic.
pub const BOUNDS_PATIENCE: Duration = Duration::from_secs(1);
/// What a subscriber takes in one answer, in bytes, unless set otherwise.
pub const SUBSCRIBER_ANSWER_BYTES_DEFAULT: usize = MIB;
/// What may be on its way to a subscriber or held by it before one more answer, in bytes, unless set otherwise: one
/// answer that is handed out, and one that comes while the host is told of that.
pub const SUBSCRIBER_WINDOW_BYTES_DEFAULT: usize = 2 * MIB;
/// The same in records: batches that pack very well must not become more than an application can take.
pub const SUBSCRIBER_WINDOW_RECORDS: u64 = 1 << 20;
/// How long one question of a durable subscriber, whether its subscription is paused, waits at the host for news.
pub const ATTENDANCE_WAIT: Duration = Duration::from_secs(30);
/// Records that a member of a consumer group has taken and not handed out, unless set otherwise.
pub const MEMBER_BUFFER_RECORDS_DEFAULT: usize = 512;
/// Bytes of them, unless set otherwise.
pub const MEMBER_BUFFER_BYTES_DEFAULT: usize = 4 * MIB;
/// Takes of a member on the way: one while the records of the other are handed out.
pub const MEMBER_TAKES: usize = 2;
/// How long a member's host waits for records before it answers that there are none.
pub const MEMBER_WAIT: Duration = Duration::from_secs(10);
/// Settlements of a member that may be unanswered: they share syncs at the host.
pub const MEMBER_SETTLES_UNANSWERED: usize = 4;
/// How long a member gathers verdicts before it sends them.
pub const MEMBER_GATHER: Duration = Duration::from_millis(2);
/// So many verdicts are sent at once.
pub const MEMBER_VERDICTS_AT_ONCE: u64 = 256;
/// Runs of records whose verdicts did not count that a member remembers until somebody asks; then the oldest is forgotten.
pub const MEMBER_NOT_SETTLED_MAX: usize = 10_000;
/// A member looks for deadlines to extend at most so often.
pub const MEMBER_TICK_MIN: Duration = Duration::from_millis(10);
/// And at least so often.
pub const MEMBER_TICK_MAX: Duration = Duration::from_secs(1);

/// Topics of a pattern that are read at the same time: as many long polls at most, and as many turns between two of
/// a topic that is always busy.
pub const PATTERN_READERS_MAX: usize = 64;
/// Bytes that the readers of a pattern fetch ahead of the application, all together.
pub const PATTERN_BYTES: usize = 16 * MIB;
/// Records of one topic in a row while others wait.
pub const PATTERN_TURN_RECORDS: usize = 1024;
/// A reader that gets nothing for so long although there is something makes room for others.
pub const PATTERN_TURN_PATIENCE: Duration = Duration::from_secs(2);
/// How long a pattern's subscriber waits for an answer that need not wait itself before it takes the peer for away.
pub const PATTERN_PATIENCE: Duration = Duration::from_secs(5);
/// How long a peer waits for ends to move before it answers that none did: one that is frozen is noticed so much later.
pub const PATTERN_WAIT: Duration = Duration::from_secs(10);
/// A pattern's subscriber lets so much time go by between two questions to a peer which ends moved: the first move
/// after a rest is told at once, of many at a time a few hundred times a second.
pub const PATTERN_GATHER: Duration = Duration::from_millis(5);
/// While no index answers, peers are asked so often which topics they know.
pub const PATTERN_LIST_EVERY: Duration = Duration::from_secs(2);
/// And so long again for every so many topics.
pub const PATTERN_LISTED_AT_ONCE: usize = 1_000;
/// A pattern's subscriber that waits looks so often whether its patience is over.
pub const PATTERN_LOOK_EVERY: Duration = Duration::from_secs(1);
/// Topics that are gone whose places are kept in case they come back.
pub const PATTERN_LEFT_MAX: usize = 10_000;
/// Topics found and gone that are told; when nobody takes the news, further ones go untold.
pub const PATTERN_NOTES_MAX: usize = 1_024;
/// How far the clocks of a cluster may be apart where a record's time decides whether it is new: rather some old ones
/// than one too few.
pub const PATTERN_CLOCKS_APART: Duration = Duration::from_secs(60);

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
    assert!(BATCH_BYTES_MAX < APPEND_BYTES_WAITING_MAX);
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
