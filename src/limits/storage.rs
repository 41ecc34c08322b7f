//! What a peer stores, and how.

use std::time::Duration;

use super::*;

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
/// What is read of a footer first, in bytes: all of one with few topics, and the rows of eighteen hundred.
pub const FOOTER_BYTES_FIRST: u32 = 128 * 1024;
/// How often what a footer lists of single topics is read without the rest of it, before it is read as a whole and kept: a footer of
/// a thousand topics has two MiB, of which one topic needs a thirtieth.
pub const FOOTER_PARTS_MAX: u32 = 16;
/// A read of a small extent that takes so long came from the disk: the ones after it are read at the same time.
pub const READ_TAKES_A_DISK: Duration = Duration::from_micros(50);
/// Small extents of a topic that are read at the same time, for one answer.
pub const READ_TOGETHER_MAX: usize = 64;
/// Threads that help a reader with that: a disk that is asked for eight pieces at once gives three to four times as many a second.
pub const READ_HELPERS_OF_ONE_MAX: usize = 7;
/// Those of all readers together.
pub const READ_HELPERS_MAX: usize = 14;
/// Most batches and gaps in an answer with any out of thinned batches: of those there may be one for each offset.
pub const READ_ITEMS_MAX: usize = 16_384;
/// Batches that a reader is told as gaps, because their time is over or nothing of them is left, in bytes: after so many it is
/// answered, and asks for more.
pub const READ_PASSED_BYTES_MAX: usize = 4 * MIB;
/// Answers read before they were asked for, in bytes, all readers together.
pub const READ_AHEAD_BYTES_MAX: usize = 8 * MIB;
/// Most of them for one reader that comes for them.
pub const READ_AHEAD_ANSWERS_MAX: usize = 3;
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
/// Commands handed to the writer and not yet taken by it; one more is refused. How many bytes they have is bounded by
/// [`PROCESS_REQUEST_BYTES_MAX`].
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
/// A larger change is applied in pieces of so many bytes where that is allowed. 10,000 subscriptions made within a second
/// take 39 MiB of memory so, and 107 MiB in pieces of 2 MiB; smaller pieces take as much.
pub const STORE_PIECE_BYTES: usize = MIB / 8;
/// So many pieces are synced together: what a segment of sled holds. The segments it frees it overwrites in place.
pub const STORE_PIECES_SYNCED: usize = 4;
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
/// Reasons that a group keeps until their dead letters are written; of further records only how often they were delivered.
pub const REJECT_REASONS_KEPT: u64 = 16_384;
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
/// no unclean stop adds one.
pub const GAPS_PER_TOPIC_MAX: usize = 64;
/// Gaps from which on no further loss is accepted: a topic's row has no room for many more.
pub const GAPS_ACCEPTED_MAX: usize = 2 * GAPS_PER_TOPIC_MAX;
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
/// The same by one change of a topic's settings, of which there are as many as it takes.
pub const ID_PAGES_FORGOTTEN_BY_A_CHANGE: usize = 4_096;
/// Epochs that named producers of a topic may have got in state entries that were lost to damage.
pub const PRODUCER_EPOCHS_LOST_MAX: u32 = 1 << 16;

/// Most topics or subscriptions in one page that a peer's writer puts together: publishers wait meanwhile.
pub const DESCRIBED_PER_PAGE_MAX: usize = 500;
/// Names of topics looked at at once for such a page, whether they match or not: in slices, so that nobody waits for a walk
/// over a million.
pub const NAMES_LOOKED_AT_ONCE: usize = 1_024;
/// Lines of damage kept to be told; the log has them all.
pub const DAMAGE_LINES_MAX: usize = 1_000;
/// Longest of them, in bytes.
pub const DAMAGE_LINE_BYTES_MAX: usize = KIB;
