//! Frames, connections, and what one client may take of a server.

use std::time::Duration;

use super::*;

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
/// What a request that waits for news counts as at least, in bytes: it is a task by then.
pub const POLL_BYTES_MIN: usize = KIB;
/// So many small requests of each connection may wait for news whatever others do: a reader and its watch, say.
pub const POLLS_KEPT: usize = 2;
/// How long a request waits for news at most where those that wait hold all they may. Not at all would have it sent again
/// without end.
pub const POLL_WAIT_CROWDED: Duration = Duration::from_millis(50);
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
/// Largest read buffer beyond the frame being received, in bytes: one read of a busy connection. One that is used again
/// may be half as large again.
pub const READ_BUFFER_BYTES_MAX: usize = 256 * KIB;
/// Smallest buffer of frames or batches that is used again, in bytes; less is cheap to have anew.
pub const BUFFER_KEPT_BYTES_MIN: usize = 64 * KIB;
/// Largest of them, in bytes.
pub const BUFFER_KEPT_BYTES_MAX: usize = MIB;
/// What the servers of a process keep of buffers they received into, in bytes, with those of which frames are still held.
pub const RECEIVE_BUFFERS_KEPT_BYTES: usize = 4 * MIB;
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
