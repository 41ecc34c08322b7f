//! What is counted.

use std::time::Duration;

use super::*;

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
