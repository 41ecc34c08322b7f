//! The index server and its registry.

use std::time::Duration;

use super::*;

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
