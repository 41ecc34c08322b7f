//! The flags of the servers, on the command line and in the file.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde::Deserialize;

use crate::cli::{in_file, values};
use crate::types::{Address, PeerName};

/// Flags of `tidings up`.
#[derive(Debug, Clone, Default, Args, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct UpFlags {
    /// Where everything is stored [default: data]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Where the index accepts connections [default: 127.0.0.1:7400]
    #[arg(long, value_name = "HOST:PORT", value_parser = values::listen)]
    #[serde(deserialize_with = "in_file::listen_text")]
    pub index_listen: Option<String>,
    /// Where the peer accepts connections [default: 127.0.0.1:7401]
    #[arg(long, value_name = "HOST:PORT", value_parser = values::listen)]
    #[serde(deserialize_with = "in_file::listen_text")]
    pub listen: Option<String>,
    /// Where clients reach the peer [default: the listen address]
    #[arg(long, value_name = "HOST:PORT")]
    pub advertise: Option<Address>,
    /// What people call the peer [default: the name it had, or one made from its id]
    #[arg(long, value_name = "NAME")]
    pub name: Option<PeerName>,
    /// Where to answer GET /metrics, /healthz and /readyz, to anybody who can reach it; port 7480 is usual
    /// [default: nowhere]
    #[arg(long, value_name = "HOST:PORT", value_parser = values::listen)]
    #[serde(deserialize_with = "in_file::listen_text")]
    pub http: Option<String>,
}

/// Flags of `tidings serve index`.
#[derive(Debug, Clone, Default, Args, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct IndexFlags {
    /// Where to accept connections [default: 127.0.0.1:7400]
    #[arg(long, value_name = "HOST:PORT", value_parser = values::listen)]
    #[serde(deserialize_with = "in_file::listen_text")]
    pub listen: Option<String>,
    /// Where the registry is stored [default: data/index]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// How long a peer may be silent before it counts as down [default: 10s]
    #[arg(long, value_name = "DURATION", value_parser = values::period)]
    #[serde(deserialize_with = "in_file::period_text")]
    pub lease: Option<Duration>,
    /// Where to answer GET /metrics, /healthz and /readyz, to anybody who can reach it; port 7480 is usual
    /// [default: nowhere]
    #[arg(long, value_name = "HOST:PORT", value_parser = values::listen)]
    #[serde(deserialize_with = "in_file::listen_text")]
    pub http: Option<String>,
}

/// Flags of `tidings serve peer`; its `--index` is the one of every command.
#[derive(Debug, Clone, Default, Args, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct PeerFlags {
    /// Where to accept connections [default: 127.0.0.1:7401]
    #[arg(long, value_name = "HOST:PORT", value_parser = values::listen)]
    #[serde(deserialize_with = "in_file::listen_text")]
    pub listen: Option<String>,
    /// Where clients reach this peer [default: the listen address]
    #[arg(long, value_name = "HOST:PORT")]
    pub advertise: Option<Address>,
    /// What people call it [default: the name it had, or one made from its id]
    #[arg(long, value_name = "NAME")]
    pub name: Option<PeerName>,
    /// Where topics are stored [default: data/peer]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// When it ends, unregister it and free the names of its topics
    #[arg(long)]
    pub leave: bool,
    /// How often it tells the index that it lives [default: 2s]
    #[arg(long, value_name = "DURATION", value_parser = values::period)]
    #[serde(deserialize_with = "in_file::period_text")]
    pub heartbeat: Option<Duration>,
    /// Largest message taken, at most 16MiB [default: 1MiB]
    #[arg(long, value_name = "SIZE", value_parser = values::size)]
    #[serde(deserialize_with = "in_file::size_text")]
    pub message_max: Option<u64>,
    /// Size of a journal file, for a new data directory [default: 64MiB]
    #[arg(long, value_name = "SIZE", value_parser = values::size)]
    #[serde(deserialize_with = "in_file::size_text")]
    pub slot_size: Option<u64>,
    /// Memory for what was published last [default: 16MiB]
    #[arg(long, value_name = "SIZE", value_parser = values::size)]
    #[serde(deserialize_with = "in_file::size_text")]
    pub tail_cache: Option<u64>,
    /// Free disk space below which publishing is refused [default: two journal files and 64MiB]
    #[arg(long, value_name = "SIZE", value_parser = values::size)]
    #[serde(deserialize_with = "in_file::size_text")]
    pub reserve: Option<u64>,
    /// Where to answer GET /metrics, /healthz and /readyz, to anybody who can reach it; port 7480 is usual
    /// [default: nowhere]
    #[arg(long, value_name = "HOST:PORT", value_parser = values::listen)]
    #[serde(deserialize_with = "in_file::listen_text")]
    pub http: Option<String>,
}

impl UpFlags {
    /// The flags where given, the file elsewhere.
    pub fn over(self, file: Self) -> Self {
        Self {
            data_dir: self.data_dir.or(file.data_dir),
            index_listen: self.index_listen.or(file.index_listen),
            listen: self.listen.or(file.listen),
            advertise: self.advertise.or(file.advertise),
            name: self.name.or(file.name),
            http: self.http.or(file.http),
        }
    }
}

impl IndexFlags {
    /// The flags where given, the file elsewhere.
    pub fn over(self, file: Self) -> Self {
        Self {
            listen: self.listen.or(file.listen),
            data_dir: self.data_dir.or(file.data_dir),
            lease: self.lease.or(file.lease),
            http: self.http.or(file.http),
        }
    }
}

impl PeerFlags {
    /// The flags where given, the file elsewhere.
    pub fn over(self, file: Self) -> Self {
        Self {
            listen: self.listen.or(file.listen),
            advertise: self.advertise.or(file.advertise),
            name: self.name.or(file.name),
            data_dir: self.data_dir.or(file.data_dir),
            leave: self.leave || file.leave,
            heartbeat: self.heartbeat.or(file.heartbeat),
            message_max: self.message_max.or(file.message_max),
            slot_size: self.slot_size.or(file.slot_size),
            tail_cache: self.tail_cache.or(file.tail_cache),
            reserve: self.reserve.or(file.reserve),
            http: self.http.or(file.http),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_beat_the_file_one_by_one() {
        let flags = PeerFlags {
            listen: Some("127.0.0.1:1".to_owned()),
            ..PeerFlags::default()
        };
        let file = PeerFlags {
            listen: Some("127.0.0.1:2".to_owned()),
            leave: true,
            data_dir: Some("d".into()),
            ..PeerFlags::default()
        };
        let both = flags.over(file);
        assert_eq!(both.listen.as_deref(), Some("127.0.0.1:1"));
        assert!(both.leave && both.data_dir.is_some() && both.name.is_none());
    }
}
