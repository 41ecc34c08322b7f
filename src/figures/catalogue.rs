//! Everything there is to be counted.
//!
//! Names follow the conventions of Prometheus: the unit at the end, base units,
//! `_total` for what only grows. `role` tells an index and a peer of one process apart.

use metrics::{Counter, Histogram, Key, Level, Metadata, Recorder};

/// What kind of figure it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows, from the start of the process on.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Values counted by size; the upper bounds of the classes, in ticks of the unit.
    Histogram(&'static [u64]),
}

impl Kind {
    /// Its name, as Prometheus has it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram(_) => "histogram",
        }
    }
}

/// What a figure is measured in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Things.
    One,
    /// Bytes.
    Bytes,
    /// Seconds, counted in microseconds.
    Seconds,
}

impl Unit {
    /// Its name for people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::One => "number",
            Self::Bytes => "bytes",
            Self::Seconds => "seconds",
        }
    }

    /// How many of what is counted make one.
    pub const fn ticks(self) -> u64 {
        match self {
            Self::One | Self::Bytes => 1,
            Self::Seconds => 1_000_000,
        }
    }
}

/// A figure: what it is called and what it means.
#[derive(Debug, PartialEq, Eq)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// Its kind.
    pub kind: Kind,
    /// Its unit.
    pub unit: Unit,
    /// What distinguishes its series.
    pub labels: &'static [&'static str],
    /// What it means.
    pub help: &'static str,
}

/// Where it is counted does not matter to our recorder, which knows the catalogue.
const METADATA: Metadata<'static> = Metadata::new("tidings", Level::INFO, None);

impl Metric {
    /// Upper bounds of the classes of a histogram, in ticks; none of anything else.
    pub fn bounds(&self) -> &'static [u64] {
        match self.kind {
            Kind::Histogram(bounds) => bounds,
            Kind::Counter | Kind::Gauge => &[],
        }
    }

    /// A handle to count with.
    pub fn counter(&self, recorder: &dyn Recorder) -> Counter {
        recorder.register_counter(&Key::from_static_name(self.name), &METADATA)
    }

    /// A handle to record values with, in the base unit.
    pub fn histogram(&self, recorder: &dyn Recorder) -> Histogram {
        recorder.register_histogram(&Key::from_static_name(self.name), &METADATA)
    }

    /// The figure of that name.
    pub fn find(name: &str) -> Option<&'static Self> {
        ALL.iter().find(|metric| metric.name == name).copied()
    }
}

/// Latencies, in microseconds: from a round trip on one machine to a sync that is given up.
const LATENCIES: &[u64] = &[
    50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000,
    1_000_000, 2_000_000, 5_000_000, 10_000_000, 30_000_000, 60_000_000,
];
/// Syncs, in microseconds: fine where a disk is, so that its median can be read from them, then as [`LATENCIES`].
const SYNCS: &[u64] = &[
    50, 100, 150, 200, 250, 300, 400, 500, 750, 1_000, 1_500, 2_000, 3_000, 5_000, 10_000, 20_000,
    50_000, 100_000, 200_000, 500_000, 1_000_000, 5_000_000, 10_000_000, 30_000_000, 60_000_000,
];
/// Sizes, in bytes: from one message to a slot.
const SIZES: &[u64] = &[
    512,
    1 << 10,
    4 << 10,
    16 << 10,
    64 << 10,
    128 << 10,
    256 << 10,
    512 << 10,
    1 << 20,
    2 << 20,
    4 << 20,
    16 << 20,
];
/// Numbers of things that go together.
const COUNTS: &[u64] = &[1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096];

macro_rules! metrics {
    ($($constant:ident = $name:literal, $kind:expr, $unit:ident, [$($label:literal),*], $help:literal;)*) => {
        $(
            #[doc = $help]
            pub static $constant: Metric = Metric {
                name: $name,
                kind: $kind,
                unit: Unit::$unit,
                labels: &[$($label),*],
                help: $help,
            };
        )*

        /// All of them, in the order in which they are told.
        pub static ALL: &[&Metric] = &[$(&$constant),*];
    };
}

use Kind::{Counter as COUNTER, Gauge as GAUGE, Histogram as HISTOGRAM};

metrics! {
    // The process.
    PROCESS_MEMORY = "process_resident_memory_bytes", GAUGE, Bytes, [], "Resident memory of the process";
    PROCESS_CPU = "process_cpu_seconds_total", COUNTER, Seconds, [], "Processor time used, of programs and system together";
    PROCESS_START = "process_start_time_seconds", GAUGE, Seconds, [], "When the process started, since 1970";
    PROCESS_FDS = "process_open_fds", GAUGE, One, [], "File descriptors in use";
    PROCESS_FDS_MAX = "process_max_fds", GAUGE, One, [], "File descriptors the process may have";
    PROCESS_WRITTEN = "tidings_process_disk_written_bytes_total", COUNTER, Bytes, [], "Bytes the process caused to be written to a disk";
    MEMORY_LIMIT = "tidings_memory_limit_bytes", GAUGE, Bytes, ["pool"], "Memory set aside for requests and answers on their way";
    MEMORY_USED = "tidings_memory_used_bytes", GAUGE, Bytes, ["pool"], "How much of it is taken";
    MEMORY_WAITING = "tidings_memory_waiting", GAUGE, One, ["pool"], "Connections that wait for such memory";
    CONNECTIONS_MAX = "tidings_connections_limit", GAUGE, One, [], "Connections the process takes";

    // Every node.
    BUILD = "tidings_build_info", GAUGE, One, ["role", "version", "name"], "Always 1: which program it is, and the name of the node";
    READY = "tidings_ready", GAUGE, One, ["role"], "Whether the node serves: what /readyz tells";
    CONNECTIONS = "tidings_connections", GAUGE, One, ["role"], "Connections open now";
    ACCEPTED = "tidings_connections_accepted_total", COUNTER, One, ["role"], "Connections accepted";
    REFUSED = "tidings_connections_refused_total", COUNTER, One, ["role"], "Connections refused, or closed because of a bad frame";
    RECEIVED = "tidings_received_bytes_total", COUNTER, Bytes, ["role"], "Bytes received on connections";
    SENT = "tidings_sent_bytes_total", COUNTER, Bytes, ["role"], "Bytes sent on connections";
    STREAMS = "tidings_streams", GAUGE, One, ["role"], "Streams open now";
    KEEP_ALIVES_MISSED = "tidings_keep_alives_missed_total", COUNTER, One, ["role"], "Streams ended because nothing was heard of their clients";
    REQUESTS = "tidings_requests_total", COUNTER, One, ["role", "request"], "Requests that were taken in, by kind";
    ERRORS = "tidings_errors_total", COUNTER, One, ["role", "code", "error"], "Requests answered with an error, by its number and name";

    // A peer: what goes through it.
    RECORDS_IN = "tidings_records_in_total", COUNTER, One, [], "Records stored, of all topics";
    BYTES_IN = "tidings_bytes_in_total", COUNTER, Bytes, [], "Bytes of their batches";
    RECORDS_OUT = "tidings_records_out_total", COUNTER, One, [], "Records handed to readers, of all topics";
    BYTES_OUT = "tidings_bytes_out_total", COUNTER, Bytes, [], "Bytes of their batches";
    PUBLISH = "tidings_publish_seconds", HISTOGRAM(LATENCIES), Seconds, [], "From taking a batch in to its acknowledgement";
    FETCH = "tidings_fetch_seconds", HISTOGRAM(LATENCIES), Seconds, [], "From when there is something to answer a fetch with, or to send on a stream, until that is queued";
    REPEATED = "tidings_batches_repeated_total", COUNTER, One, [], "Batches that were stored before and came again, known by their producer's sequences";
    KNOWN_IDS = "tidings_message_ids_repeated_total", COUNTER, One, [], "Messages that were stored before and came again, known by their ids";
    GROUP_BYTES = "tidings_group_bytes", HISTOGRAM(SIZES), Bytes, [], "Size of the groups written to the journal";
    GROUP_ENTRIES = "tidings_group_entries", HISTOGRAM(COUNTS), One, [], "Batches and changes of state in a group";
    SYNC = "tidings_journal_sync_seconds", HISTOGRAM(SYNCS), Seconds, [], "How long the journal's fdatasync took";
    TAIL_HITS = "tidings_tail_cache_hits_total", COUNTER, One, [], "Pieces of topics read from the memory of the last groups";
    TAIL_MISSES = "tidings_tail_cache_misses_total", COUNTER, One, [], "Pieces of topics read from files";
    READ_AHEAD = "tidings_reads_ahead_total", COUNTER, One, [], "Answers to readers in order that were read before they were asked for";
    TAIL_BYTES = "tidings_tail_cache_bytes", GAUGE, Bytes, [], "Memory of the last groups";
    WINDOWS_BYTES = "tidings_read_windows_bytes", GAUGE, Bytes, [], "Memory of what was read from files lately";

    // A peer: what it holds.
    TOPICS = "tidings_topics", GAUGE, One, [], "Topics stored";
    TOPICS_UNTOLD = "tidings_topics_untold", GAUGE, One, [], "Topics beyond those told one by one";
    SUBSCRIPTIONS = "tidings_subscriptions", GAUGE, One, [], "Durable subscriptions";
    SUBSCRIPTIONS_EXPIRED = "tidings_subscriptions_expired_total", COUNTER, One, [], "Subscriptions removed because nobody used them for their time";
    SUBSCRIPTIONS_UNTOLD = "tidings_subscriptions_untold", GAUGE, One, [], "Subscriptions beyond those told one by one";
    GROUPS = "tidings_consumer_groups", GAUGE, One, [], "Consumer groups";
    GROUPS_UNTOLD = "tidings_consumer_groups_untold", GAUGE, One, [], "Consumer groups beyond those told one by one";
    REDELIVERED = "tidings_redelivered_records_total", COUNTER, One, [], "Records given to members of consumer groups that had been given out before";
    DEAD_LETTERED = "tidings_dead_letters_total", COUNTER, One, [], "Records that consumer groups moved to dead-letter topics";
    DELAYED_PENDING = "tidings_delayed_pending", GAUGE, One, [], "Messages that are to be delivered later";
    DELAYED_BLOCKED = "tidings_delayed_blocked_topics", GAUGE, One, [], "Topics to which delayed messages that are due cannot be delivered";
    DELAYED_DELIVERED = "tidings_delayed_delivered_total", COUNTER, One, [], "Delayed messages delivered";
    DELAYED_CANCELLED = "tidings_delayed_cancelled_total", COUNTER, One, [], "Delayed messages cancelled";
    DELAYED_LOST = "tidings_delayed_lost_total", COUNTER, One, [], "Delayed messages that were purged or damaged before they were due";
    DELAYED_LATENESS = "tidings_delayed_lateness_seconds", HISTOGRAM(LATENCIES), Seconds, [], "How late the most overdue message of each step that delivered was";
    ENDS_WATCHERS = "tidings_ends_watchers", GAUGE, One, [], "Clients that follow many topics and wait for ends to move";
    PRODUCERS = "tidings_producers", GAUGE, One, [], "Publishers remembered, to know their repetitions";
    MESSAGE_IDS = "tidings_message_ids", GAUGE, One, [], "Message ids remembered, to know their repetitions";
    STORED = "tidings_stored_bytes", GAUGE, Bytes, [], "Bytes of record batches that live";
    JOURNAL_BYTES = "tidings_journal_bytes", GAUGE, Bytes, [], "Bytes of all journal files";
    SEGMENTS = "tidings_journal_segments", GAUGE, One, [], "Journal files that hold something";
    FREE_SLOTS = "tidings_journal_free_slots", GAUGE, One, [], "Journal files that are ready to be written";
    DISK_FREE = "tidings_disk_free_bytes", GAUGE, Bytes, [], "Free bytes of the journal's file system";
    SNAPSHOTS = "tidings_snapshots_total", COUNTER, One, [], "State snapshots that came to be relied on";
    SEGMENTS_FREED = "tidings_segments_freed_total", COUNTER, One, [], "Journal files given up because nothing in them lived";
    SEGMENTS_COPIED = "tidings_segments_copied_total", COUNTER, One, [], "Journal files given up after what lived was copied";
    COLD_SEGMENTS = "tidings_cold_segments_total", COUNTER, One, [], "Journal files written for those copies";
    BYTES_COPIED = "tidings_copied_bytes_total", COUNTER, Bytes, [], "Bytes of records copied into them";
    COMPACTIONS = "tidings_compactions_total", COUNTER, One, [], "Passes over a topic that left one record of each key";
    RECORDS_REMOVED = "tidings_records_removed_total", COUNTER, One, [], "Records that were taken out of topics while their files were copied";
    BYTES_REMOVED = "tidings_removed_bytes_total", COUNTER, Bytes, [], "By how much record batches became smaller by that";
    SLOTS_REUSED = "tidings_slots_reused_total", COUNTER, One, [], "Journal files used again";
    SLOTS_DELETED = "tidings_slots_deleted_total", COUNTER, One, [], "Journal files deleted";
    DAMAGE = "tidings_damage_findings", GAUGE, One, [], "Findings of damage since the start";
    REFUSING = "tidings_publishing_refused", GAUGE, One, [], "1 while the disk is too full to publish";
    INDEX_REACHABLE = "tidings_index_reachable", GAUGE, One, [], "1 while the index answers this peer";
    REGISTRATIONS = "tidings_registrations_total", COUNTER, One, [], "How often this peer told the index everything";

    // A peer: topic by topic.
    TOPIC_RECORDS_IN = "tidings_topic_records_in_total", COUNTER, One, ["topic"], "Records stored";
    TOPIC_BYTES_IN = "tidings_topic_bytes_in_total", COUNTER, Bytes, ["topic"], "Bytes of their batches";
    TOPIC_RECORDS_OUT = "tidings_topic_records_out_total", COUNTER, One, ["topic"], "Records handed to readers";
    TOPIC_BYTES_OUT = "tidings_topic_bytes_out_total", COUNTER, Bytes, ["topic"], "Bytes of their batches";
    TOPIC_STORED = "tidings_topic_stored_bytes", GAUGE, Bytes, ["topic"], "Bytes of its record batches that live";
    TOPIC_START = "tidings_topic_start_offset", GAUGE, One, ["topic"], "First offset kept";
    TOPIC_END = "tidings_topic_end_offset", GAUGE, One, ["topic"], "First offset that readers cannot have yet";
    LAG = "tidings_subscription_lag_records", GAUGE, One, ["topic", "subscription"], "Records between what was committed and the end";
    GROUP_UNSETTLED = "tidings_group_unsettled_records", GAUGE, One, ["topic", "group"], "Records of a consumer group that nobody has settled";
    GROUP_IN_FLIGHT = "tidings_group_in_flight_records", GAUGE, One, ["topic", "group"], "Records that members of a consumer group hold";
    PAUSED = "tidings_subscription_paused", GAUGE, One, ["topic", "subscription"], "1 for a subscription that is paused; the others are not told";

    // An index server.
    INDEX_TOPICS = "tidings_index_topics", GAUGE, One, [], "Topics registered";
    INDEX_PEERS = "tidings_index_peers", GAUGE, One, ["state"], "Peers registered, by their state";
    INDEX_CONFLICTS = "tidings_index_conflicts", GAUGE, One, [], "Stored topics whose names belong to others";
    INDEX_WATCHERS = "tidings_index_watchers", GAUGE, One, [], "Clients that wait for changes of the registry";
    INDEX_COMMIT = "tidings_index_commit_seconds", HISTOGRAM(LATENCIES), Seconds, [], "How long a change of the registry took to be on the disk";
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_follow_the_conventions() {
        let mut names = HashSet::new();
        for metric in ALL {
            let name = metric.name;
            assert!(names.insert(name), "{name} is there twice");
            let good = |c: char| c.is_ascii_lowercase() || c == '_';
            assert!(name.chars().all(good), "{name}");
            let total = name.ends_with("_total");
            assert_eq!(total, metric.kind == Kind::Counter, "{name}");
            let base = name.trim_end_matches("_total");
            match metric.unit {
                Unit::Bytes => assert!(
                    base.ends_with("_bytes") || base.contains("_bytes_"),
                    "{name}"
                ),
                Unit::Seconds => assert!(base.ends_with("_seconds"), "{name}"),
                Unit::One => assert!(!base.ends_with("_bytes"), "{name}"),
            }
            assert!(
                name.starts_with("tidings_") || name.starts_with("process_"),
                "{name}"
            );
            assert_eq!(Metric::find(name), Some(*metric));
        }
        assert_eq!(Metric::find("tidings_nothing"), None);
    }

    #[test]
    fn classes_of_histograms_rise() {
        for bounds in [LATENCIES, SYNCS, SIZES, COUNTS] {
            assert!(bounds.is_sorted_by(|a, b| a < b), "{bounds:?}");
        }
    }
}
