//! What a client holds, and how long it waits.

use std::time::Duration;

use super::*;

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
/// What a publisher keeps beside that to build further batches in: this part of it.
pub const PUBLISHER_BUFFERS_PART: usize = 16;
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
