//! Requests about streams; [`Stream`](crate::protocol::data::Stream) itself is raw.

use serde::{Deserialize, Serialize};

use super::{Api, Done, Request, request};

/// Lets more of a stream come, or ends it. With nothing in it, it tells that the client lives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamCredit {
    /// Correlation of the `Stream` request, of the same connection.
    pub stream: u32,
    /// Bytes of answers that may come beyond those allowed before.
    pub bytes: u64,
    /// Records in them, likewise.
    pub records: u64,
    /// Nothing more is wanted: the stream ends with a last, empty answer.
    pub end: bool,
}
request!(StreamCredit => Done);
