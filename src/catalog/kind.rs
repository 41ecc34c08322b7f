//! The two kinds of stores.

use std::fmt;

/// Whose store it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreKind {
    /// A peer's catalog, derived from its journal.
    Peer,
    /// An index server's registry, which its peers can fill again.
    Index,
}

impl StoreKind {
    /// All kinds.
    pub const ALL: [Self; 2] = [Self::Peer, Self::Index];

    /// Name of the store's directory inside the data directory.
    pub const fn dir_name(self) -> &'static str {
        match self {
            Self::Peer => "catalog",
            Self::Index => "registry",
        }
    }

    pub(super) const fn code(self) -> u8 {
        match self {
            Self::Peer => 1,
            Self::Index => 2,
        }
    }

    pub(super) fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.code() == code)
    }
}

impl fmt::Display for StoreKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Peer => "a peer's catalog",
            Self::Index => "an index server's registry",
        })
    }
}
