//! How to connect.

use std::time::Duration;

use crate::limits;
use crate::types::Address;

/// How a [`Client`](crate::client::Client) connects.
#[derive(Debug, Clone)]
pub struct ConnectOptions {
    /// Index servers or any peers; asked in this order.
    pub seeds: Vec<Address>,
    /// What the client calls itself in the logs of servers, at most 255 bytes.
    pub name: String,
    /// Without progress for so long, publishers, subscribers and calls give up.
    pub timeout: Duration,
}

impl ConnectOptions {
    /// Through these seeds, otherwise as usual.
    pub fn new(seeds: Vec<Address>) -> Self {
        Self {
            seeds,
            name: concat!("tidings ", env!("CARGO_PKG_VERSION")).to_owned(),
            timeout: limits::NO_PROGRESS_TIMEOUT_DEFAULT,
        }
    }

    /// Under another name.
    #[must_use]
    pub fn with_name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// With another patience.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }
}
