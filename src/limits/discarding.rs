//! What is given up, and when.

use std::time::Duration;

use super::*;

/// Retention, freeing and copying are looked at so often, and a state snapshot is written no more often, unless segments
/// fill faster.
pub const RECLAIM_EVERY_DEFAULT: Duration = Duration::from_secs(1);
/// And at least so often while something of it waits for the disk.
pub const RECLAIM_EVERY_BUSY: Duration = Duration::from_millis(50);
/// Where so many segments were filled since the last look, or so many could be given up by a snapshot, it is done sooner:
/// what is not given back in time is made anew, and written twice.
pub const RECLAIM_SEGMENTS_PRESSED: u64 = 3;
/// So many times sooner at the most.
pub const RECLAIM_PRESSED_SPEED: u32 = 10;
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
/// Deletions are kept so long in a compacted topic unless set otherwise: who reads on within it sees each.
pub const TOMBSTONES_KEPT_FOR: Duration = Duration::from_hours(24);
/// And so long at least.
pub const TOMBSTONES_KEPT_FOR_MIN: Duration = Duration::from_secs(1);
/// Keys that one pass of compaction remembers: some 64 MiB.
pub const COMPACTION_KEYS_MAX: usize = 1_500_000;
/// A topic is compacted when so much of what may be is new since the last time, in percent of its bytes.
pub const COMPACTION_DIRTY_PERCENT: u64 = 50;
/// Or when something of it has been for so long.
pub const COMPACTION_DIRTY_FOR: Duration = Duration::from_hours(1);
/// How often is looked which topics that are.
pub const COMPACTION_LOOK_EVERY: Duration = Duration::from_secs(2);
/// What is noted of records that one copy takes away, in entries of some 24 bytes: beyond it no more are.
pub const SIFTED_MAX: usize = 1 << 20;
/// Purges of keys that are under way in one topic: each is looked at for each record of what it concerns.
pub const PURGES_PER_TOPIC_MAX: usize = 64;
/// Topics of which one copy takes records away: their rows stand in one group.
pub const SIFTED_TOPICS_MAX: usize = 256;
/// Moments at which something of a segment is over that are told apart.
pub const LIFETIME_MOMENTS_MAX: usize = 64;
/// Holes that a batch is handed by those before it, of which nothing is left; beyond it they stand alone.
pub const LEADING_HOLES_MAX: usize = 1024;
/// Segments freed by one state entry.
pub const SEGMENTS_FREED_AT_ONCE: usize = 256;
/// Rows in one state entry of a snapshot: bounds the entry to some 90 KiB of the largest rows but topics' and pages of
/// consumer groups in which everything failed, which are 250 KiB at the very most.
pub const SNAPSHOT_ENTRY_ROWS: usize = 64;
/// What a snapshot adds to one group, in bytes: publishers share the group, so it is kept small against it.
pub const SNAPSHOT_GROUP_BYTES: usize = 128 * KIB;
/// A snapshot is written where it lets go of so many times its own size.
pub const SNAPSHOT_GAIN_MIN: u64 = 8;
/// Time from one snapshot to the next at the least, for each row: writing, applying and reading it back take some 15 µs
/// of a processor.
pub const SNAPSHOT_REST_PER_ROW: Duration = Duration::from_micros(100);
/// But no more than this.
pub const SNAPSHOT_REST_MAX: Duration = Duration::from_secs(4);
/// After so many segments a snapshot is written although it lets go of nothing, where they are worth it: a rebuild of the
/// catalog reads hardly more than these.
pub const SNAPSHOT_SEGMENTS_MAX: u64 = 64;
/// Size of a row before any snapshot was written, in bytes: a guess on the large side.
pub const SNAPSHOT_ROW_BYTES: u64 = 512;
/// Free slots kept for the segments to come, beside the one that is ready.
pub const FREE_SLOTS_KEPT: usize = 2;
/// Further ones are deleted when nobody took them between so many looks of the reclaimer, or so many snapshots where these
/// are rarer: a busy peer uses them before, and one that is busy every few seconds need not make them anew.
pub const FREE_SLOT_KEPT_LOOKS: u32 = 4;
/// With room for so many slots and no more above the reserve space is short: what would keep slots waiting does not.
pub const SHORT_OF_SPACE_SLOTS: u64 = 8;
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
