//! Where settings come from: the flag beats the environment beats the file.
//!
//! The file is `tidings.toml` in the working directory, or what `--config` or
//! `TIDINGS_CONFIG` names. Each verb that runs a server has a table named after
//! it, with a key for every flag of that verb:
//!
//! ```toml
//! index = "10.0.0.1:7400"          # for every client command and for peers
//!
//! [serve.peer]
//! listen = "0.0.0.0:7401"
//! advertise = "node-7:7401"
//! data-dir = "/var/lib/tidings"
//! ```
//!
//! Keys and flags cannot drift apart, because one struct is both. A key nobody
//! knows is an error: a misspelt setting must not pass for a default.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::cli::fail::{Failure, Result};
use crate::cli::flags::{IndexFlags, PeerFlags, UpFlags};
use crate::types::Address;

/// Environment variable with the addresses of the index servers.
pub const INDEX_VARIABLE: &str = "TIDINGS_INDEX";
/// Environment variable with the address of a peer to go in through.
pub const PEER_VARIABLE: &str = "TIDINGS_PEER";
/// Environment variable with the path of the configuration file.
pub const CONFIG_VARIABLE: &str = "TIDINGS_CONFIG";

const FILE_DEFAULT: &str = "tidings.toml";
const INDEX_DEFAULT: &str = "127.0.0.1:7400";

/// The configuration file.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct File {
    index: Option<Addresses>,
    peer: Option<Address>,
    /// What is logged.
    pub log: Option<String>,
    /// How it is logged.
    pub log_format: Option<String>,
    /// Flags of `tidings up`.
    pub up: UpFlags,
    /// Flags of `tidings serve`.
    pub serve: Serve,
}

/// Flags of `tidings serve`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Serve {
    /// Flags of `tidings serve index`.
    pub index: IndexFlags,
    /// Flags of `tidings serve peer`.
    pub peer: PeerFlags,
}

/// One address, several with commas between them, or an array.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum Addresses {
    Text(String),
    Array(Vec<Address>),
}

/// The way into a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// These index servers.
    Index(Vec<Address>),
    /// This peer.
    Peer(Address),
}

impl Entry {
    /// Its addresses.
    pub fn addresses(&self) -> Vec<Address> {
        match self {
            Self::Index(addresses) => addresses.clone(),
            Self::Peer(address) => vec![address.clone()],
        }
    }
}

impl File {
    /// Reads the file the flag names, else the one the environment names, else
    /// `tidings.toml` if there is one.
    pub fn load(flag: Option<&Path>) -> Result<Self> {
        let named = match flag {
            Some(path) => Some(path.to_owned()),
            None => variable(CONFIG_VARIABLE)?.map(PathBuf::from),
        };
        let path = named.clone().unwrap_or_else(|| FILE_DEFAULT.into());
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if named.is_none() && error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Self::default());
            }
            Err(error) => {
                return Err(Failure::config(format!("{}: {error}", path.display())));
            }
        };
        Self::parse(&text)
            .map_err(|reason| Failure::config(format!("{}: {reason}", path.display())))
    }

    pub(super) fn parse(text: &str) -> std::result::Result<Self, String> {
        toml::from_str(text).map_err(|error| error.to_string().trim_end().to_owned())
    }

    /// The way in: flags, else environment, else this file, else the default.
    pub fn entry(&self, index: &[Address], peer: Option<&Address>) -> Result<Entry> {
        let named = self.entry_named(index, peer)?;
        Ok(named.unwrap_or_else(|| {
            Entry::Index(vec![
                INDEX_DEFAULT.parse().expect("the default is an address"),
            ])
        }))
    }

    /// The index servers of a peer: as above, but a peer to go in through is no concern of it.
    pub fn indexes(&self, index: &[Address]) -> Result<Vec<Address>> {
        if !index.is_empty() {
            return Ok(index.to_vec());
        }
        let from_environment = Self::of_environment(INDEX_VARIABLE)?;
        let known = match from_environment {
            Some(known) => Some(known),
            None => self.index_of_file()?,
        };
        Ok(known.unwrap_or_else(|| vec![INDEX_DEFAULT.parse().expect("it is an address")]))
    }

    /// The same without the default.
    pub fn entry_named(&self, index: &[Address], peer: Option<&Address>) -> Result<Option<Entry>> {
        choose([
            ((!index.is_empty()).then(|| index.to_vec()), peer.cloned()),
            (
                Self::of_environment(INDEX_VARIABLE)?,
                Self::of_environment(PEER_VARIABLE)?.and_then(|mut all| all.pop()),
            ),
            (self.index_of_file()?, self.peer.clone()),
        ])
    }
}

impl File {
    pub(super) fn index_of_file(&self) -> Result<Option<Vec<Address>>> {
        match &self.index {
            Some(Addresses::Text(text)) => addresses(text)
                .map(Some)
                .map_err(|reason| Failure::config(format!("index: {reason}"))),
            Some(Addresses::Array(array)) => Ok(Some(array.clone())),
            None => Ok(None),
        }
    }

    fn of_environment(name: &str) -> Result<Option<Vec<Address>>> {
        let Some(text) = variable(name)? else {
            return Ok(None);
        };
        addresses(&text)
            .map(Some)
            .map_err(|reason| Failure::config(format!("{name}: {reason}")))
    }
}

/// The first level that names a way in decides; naming two on one level is a mistake.
fn choose(levels: [(Option<Vec<Address>>, Option<Address>); 3]) -> Result<Option<Entry>> {
    for level in levels {
        match level {
            (Some(_), Some(_)) => {
                return Err(Failure::usage(
                    "both an index and a peer are given as the way in: give one of them",
                ));
            }
            (Some(index), None) => return Ok(Some(Entry::Index(index))),
            (None, Some(peer)) => return Ok(Some(Entry::Peer(peer))),
            (None, None) => {}
        }
    }
    Ok(None)
}

fn addresses(text: &str) -> std::result::Result<Vec<Address>, String> {
    text.split(',')
        .map(|part| part.trim().parse::<Address>().map_err(|e| e.to_string()))
        .collect()
}

/// An environment variable; an empty one counts as absent.
fn variable(name: &str) -> Result<Option<String>> {
    match std::env::var(name) {
        Ok(text) if text.is_empty() => Ok(None),
        Ok(text) => Ok(Some(text)),
        Err(std::env::VarError::NotPresent) => Ok(None),
        Err(std::env::VarError::NotUnicode(_)) => {
            Err(Failure::config(format!("{name} is not valid UTF-8")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Address {
        text.parse().expect("a good address")
    }

    #[test]
    fn every_level_beats_the_next() {
        let (a, b, c) = (address("a:1"), address("b:1"), address("c:1"));
        let none = || (None, None);
        let index = |x: &Address| (Some(vec![x.clone()]), None);
        let entry = |x: &Address| Some(Entry::Index(vec![x.clone()]));
        assert_eq!(choose([index(&a), index(&b), index(&c)]), Ok(entry(&a)));
        assert_eq!(choose([none(), index(&b), index(&c)]), Ok(entry(&b)));
        assert_eq!(choose([none(), none(), index(&c)]), Ok(entry(&c)));
        assert_eq!(
            choose([(None, Some(a.clone())), index(&b), none()]),
            Ok(Some(Entry::Peer(a.clone())))
        );
        assert_eq!(choose([none(), none(), none()]), Ok(None));
        let flagged = File::default().entry(std::slice::from_ref(&a), None);
        assert_eq!(flagged, Ok(Entry::Index(vec![a.clone()])));
        let both = (Some(vec![a.clone()]), Some(a));
        assert!(choose([both, none(), none()]).is_err());
    }

    #[test]
    fn the_file_has_the_names_of_the_flags() {
        let text = "index = \"a:1,b:2\"\nlog = \"debug\"\n\
             [serve.peer]\nlisten = \"0.0.0.0:7401\"\nadvertise = \"node:7401\"\n\
             data-dir = \"d\"\nleave = true\n\
             [serve.index]\nlease = \"20s\"\n[up]\nindex-listen = \"127.0.0.1:0\"\n";
        let file = File::parse(text).expect("good");
        assert_eq!(
            file.serve.index.lease,
            Some(std::time::Duration::from_secs(20))
        );
        assert!(file.serve.peer.leave);
        assert_eq!(file.serve.peer.listen.as_deref(), Some("0.0.0.0:7401"));
        assert_eq!(
            addresses("a:1, b:2"),
            Ok(vec![address("a:1"), address("b:2")])
        );
    }

    #[test]
    fn misspelt_and_senseless_settings_are_refused() {
        for bad in [
            "indx = \"a:1\"",
            "[serve.peer]\nlistn = \"a:1\"",
            "[serve.index]\nlease = \"10\"",
            "[serve.peer]\nheartbeat = \"0s\"",
            "[up]\nlisten = \"nowhere\"",
            "peer = \"nowhere\"",
            "[bench]",
        ] {
            assert!(File::parse(bad).is_err(), "{bad:?} was accepted");
        }
    }
}
