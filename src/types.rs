//! The vocabulary: validated newtypes that every layer shares.
//!
//! A value of one of these types has been checked. What a person typed or a
//! socket delivered is a `&str` or a number until one of the constructors here
//! accepted it; after that nobody checks again. Deserialising goes through the
//! same constructors, so a frame or a stored row cannot smuggle in a bad name.
//!
//! Offsets are half-open everywhere: `[start, end)`.

mod digest;
mod text;

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use thiserror::Error;

use crate::limits;
use text::Text;

/// Why a value was refused, with what was expected and what was found.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("invalid {what} {found:?}: {expected}")]
pub struct Invalid {
    /// What kind of value it was to be ("topic name", "address").
    pub what: &'static str,
    /// The refused text, shortened and with control characters escaped on display.
    pub found: String,
    /// What would have been accepted.
    pub expected: &'static str,
}

impl Invalid {
    /// Builds the error; `found` is cut to 80 characters.
    pub fn new(what: &'static str, found: &str, expected: &'static str) -> Self {
        let found = match found.char_indices().nth(80) {
            Some((cut, _)) => format!("{}…", &found[..cut]),
            None => found.to_owned(),
        };
        Self {
            what,
            found,
            expected,
        }
    }
}

macro_rules! id128 {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, Default)]
        pub struct $name([u8; 16]);

        impl $name {
            /// Number of bytes of the binary form.
            pub const LEN: usize = 16;

            /// Wraps 16 bytes, most significant first.
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(bytes)
            }

            /// The 16 bytes, most significant first: byte order is sort order.
            pub const fn to_bytes(self) -> [u8; 16] {
                self.0
            }

            /// The all-zero id, which names nothing.
            pub const fn zero() -> Self {
                Self([0; 16])
            }

            /// Whether this is the all-zero id.
            pub fn is_zero(self) -> bool {
                self == Self::zero()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                for byte in self.0 {
                    write!(f, "{byte:02x}")?;
                }
                Ok(())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{self}")
            }
        }

        impl FromStr for $name {
            type Err = Invalid;

            fn from_str(text: &str) -> Result<Self, Invalid> {
                let bad = || Invalid::new($what, text, "32 hexadecimal digits");
                if text.len() != 32 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
                    return Err(bad());
                }
                u128::from_str_radix(text, 16)
                    .map(|n| Self(n.to_be_bytes()))
                    .map_err(|_| bad())
            }
        }
    };
}

id128!(
    /// The identity of a topic: random, made once, never reused. A topic that is
    /// deleted and created again under the same name has another id.
    TopicId, "topic id"
);
id128!(
    /// The identity of a peer: random, made when its data directory is made. Never an address.
    PeerId, "peer id"
);
id128!(
    /// The identity of a publisher session; with a sequence it makes retries harmless.
    /// The zero id stands for "not idempotent".
    ProducerId, "producer id"
);

id128!(
    /// One membership of a consumer group: random, made by the client for each.
    MemberId, "member id"
);

id128!(
    /// What stands for the id of a message: a hash of it.
    IdDigest, "digest of a message id"
);

macro_rules! number {
    ($(#[$doc:meta])* $name:ident, $repr:ty) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, Default,
        )]
        #[serde(transparent)]
        pub struct $name($repr);

        impl $name {
            /// The smallest value.
            pub const ZERO: Self = Self(0);

            /// Wraps a plain number.
            pub const fn new(value: $repr) -> Self {
                Self(value)
            }

            /// The plain number.
            pub const fn get(self) -> $repr {
                self.0
            }

            /// This plus `n`, or `None` on overflow.
            pub const fn checked_add(self, n: $repr) -> Option<Self> {
                match self.0.checked_add(n) {
                    Some(sum) => Some(Self(sum)),
                    None => None,
                }
            }

            /// This plus `n`, staying at the largest value on overflow.
            #[must_use]
            pub const fn saturating_add(self, n: $repr) -> Self {
                Self(self.0.saturating_add(n))
            }

            /// The next value, staying at the largest one on overflow.
            #[must_use]
            pub const fn next(self) -> Self {
                self.saturating_add(1)
            }

            /// How far this lies above `lower`, or zero if it does not.
            pub const fn since(self, lower: Self) -> $repr {
                self.0.saturating_sub(lower.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number!(
    /// The place of a record in its topic: dense from 0, given by the host, never given twice.
    Offset, u64
);
number!(
    /// Numbers the state changes of one topic (or of the peer) in the journal, dense from 1;
    /// 0 means "none yet".
    StateNumber, u64
);
number!(
    /// A publisher's own numbering of its records per topic, dense from 0.
    Sequence, u64
);
number!(
    /// Tells the processes apart that publish under one producer's name, one after the other: the newest has the
    /// highest. 0 is that of producers without a name.
    ProducerEpoch, u32
);
number!(
    /// Tells lives of a subscription or consumer group apart: raised by seek and re-creation, so that a late commit misses.
    Generation, u64
);
number!(
    /// Raised by the index each time a topic changes host; stale ones are refused.
    LeaderEpoch, u32
);

/// What stands in front of a producer's name in what its id is made of.
const NAMED_PRODUCER: &[u8] = b"tidings producer\0";

impl ProducerId {
    /// The id of a named producer, the same wherever it is computed.
    pub fn of_name(name: &ProducerName) -> Self {
        Self(digest::fnv128(&[NAMED_PRODUCER, name.as_str().as_bytes()]))
    }
}

impl IdDigest {
    /// That of a message's id.
    pub fn of(id: &[u8]) -> Self {
        Self::salted(b"", id)
    }

    /// What stands for a text behind a salt.
    pub fn salted(salt: &[u8], id: &[u8]) -> Self {
        Self(digest::fnv128(&[salt, id]))
    }
}

fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-'
}

fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(is_token_byte)
}

macro_rules! text_type {
    ($(#[$doc:meta])* $name:ident in $place:ty, $what:literal, $expected:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name($place);

        impl $name {
            /// The text.
            pub fn as_str(&self) -> &str {
                self.0.as_ref()
            }

            fn check(text: &str) -> Result<(), Invalid> {
                let check: fn(&str) -> bool = $check;
                match check(text) {
                    true => Ok(()),
                    false => Err(Invalid::new($what, text, $expected)),
                }
            }
        }

        impl TryFrom<String> for $name {
            type Error = Invalid;

            fn try_from(text: String) -> Result<Self, Invalid> {
                Self::check(&text).map(|()| Self(text.into()))
            }
        }

        impl FromStr for $name {
            type Err = Invalid;

            fn from_str(text: &str) -> Result<Self, Invalid> {
                Self::check(text).map(|()| Self(text.into()))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                /// Takes the text where it lies, without a copy to check it in.
                struct Checked;

                impl de::Visitor<'_> for Checked {
                    type Value = $name;

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($expected)
                    }

                    fn visit_str<E: de::Error>(self, text: &str) -> Result<$name, E> {
                        text.parse().map_err(E::custom)
                    }
                }

                deserializer.deserialize_str(Checked)
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> String {
                value.0.into()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
    };
}

text_type!(
    /// A topic's name: dot-separated tokens of letters, digits, `_` and `-`, unique in the cluster.
    TopicName in Text,
    "topic name",
    "dot-separated tokens of letters, digits, '_' and '-', at most 255 bytes, such as quakes.ci",
    is_name
);
text_type!(
    /// A subscription's name: one to 255 letters, digits, `_`, `-` and dots.
    SubscriptionName in Box<str>,
    "subscription name",
    "dot-separated tokens of letters, digits, '_' and '-', at most 255 bytes, such as billing",
    is_name
);
text_type!(
    /// What a publisher calls itself to go on where it stopped: one to 255 letters, digits, `_`, `-` and dots.
    ProducerName in Box<str>,
    "producer name",
    "dot-separated tokens of letters, digits, '_' and '-', at most 255 bytes, such as nightly-import",
    is_name
);
text_type!(
    /// What people call a peer: one token, unique among the peers of an index.
    PeerName in Box<str>,
    "peer name",
    "letters, digits, '_' and '-', at most 64 bytes, such as peer-1",
    |text| text.len() <= limits::PEER_NAME_BYTES_MAX && is_token(text)
);
text_type!(
    /// Where a process can be reached: `host:port`, the host a name, an IPv4 address or `[IPv6]`.
    Address in Box<str>,
    "address",
    "host:port with a port from 1 to 65535, such as 127.0.0.1:7401",
    is_address
);
text_type!(
    /// A pattern over topic names: `*` stands for one token, a last `>` for one or more.
    TopicPattern in Box<str>,
    "topic pattern",
    "a topic name in which '*' stands for one token and a last '>' for one or more, such as quakes.*",
    is_pattern
);

/// Tokens with a dot between any two.
fn is_name(text: &str) -> bool {
    let mut last = b'.';
    for byte in text.bytes() {
        let fits = is_token_byte(byte) || (byte == b'.' && last != b'.');
        if !fits {
            return false;
        }
        last = byte;
    }
    last != b'.' && text.len() <= limits::NAME_BYTES_MAX
}

fn is_address(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else {
        return false;
    };
    let host_is_fine = match host.strip_prefix('[') {
        Some(rest) => rest
            .strip_suffix(']')
            .is_some_and(|ip| ip.parse::<std::net::Ipv6Addr>().is_ok()),
        None => !host.is_empty() && host.bytes().all(|b| is_token_byte(b) || b == b'.'),
    };
    host_is_fine
        && text.len() <= limits::ADDRESS_BYTES_MAX
        && port.bytes().all(|b| b.is_ascii_digit())
        && port.parse::<u16>().is_ok_and(|p| p != 0)
}

impl From<std::net::SocketAddr> for Address {
    fn from(addr: std::net::SocketAddr) -> Self {
        Self(addr.to_string().into_boxed_str())
    }
}

fn is_pattern(text: &str) -> bool {
    let mut tokens = text.split('.').peekable();
    let mut fine = text.len() <= limits::NAME_BYTES_MAX;
    while let Some(token) = tokens.next() {
        let last = tokens.peek().is_none();
        fine &= is_token(token) || token == "*" || (token == ">" && last);
    }
    fine
}

impl TopicName {
    /// The bytes of the text, in whose order names are.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl TopicPattern {
    /// The pattern that every topic matches.
    pub fn all() -> Self {
        Self(">".into())
    }

    /// Whether `name` matches.
    pub fn matches(&self, name: &TopicName) -> bool {
        let mut tokens = name.as_str().split('.');
        for part in self.0.split('.') {
            match (part, tokens.next()) {
                (">", Some(_)) => return true,
                ("*", Some(_)) => {}
                (part, Some(token)) if part == token => {}
                _ => return false,
            }
        }
        tokens.next().is_none()
    }

    /// The topic this names, if it holds no wildcard.
    pub fn as_name(&self) -> Option<TopicName> {
        self.0.parse().ok()
    }
}

/// What an acknowledgement means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// The bytes are on the disk: a power cut cannot take them.
    #[default]
    Fsync,
    /// The operating system has the bytes: a crash of the process cannot take them, a power cut can.
    Os,
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fsync => "fsync",
            Self::Os => "os",
        })
    }
}

impl FromStr for Durability {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        match text {
            "fsync" => Ok(Self::Fsync),
            "os" => Ok(Self::Os),
            _ => Err(Invalid::new("durability", text, "fsync or os")),
        }
    }
}

/// How long a topic keeps its records. `None` everywhere, the default, keeps everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Retention {
    /// Oldest age kept, in milliseconds of the host's append time.
    pub age_ms: Option<u64>,
    /// Most stored bytes kept.
    pub bytes: Option<u64>,
    /// Most records kept.
    pub records: Option<u64>,
    /// What every subscription has confirmed is discarded; while there is none, nothing is on that account.
    pub interest: bool,
}

impl Retention {
    /// Whether nothing is ever discarded.
    pub fn keeps_everything(&self) -> bool {
        *self == Self::default()
    }
}

/// What happens when a record batch would pass the most bytes or records that a topic keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
pub enum WhenFull {
    /// It is stored, and the oldest ones are discarded soon after.
    #[default]
    DiscardOldest,
    /// It is refused, until something else made room.
    Refuse,
}

impl fmt::Display for WhenFull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::DiscardOldest => "discard-oldest",
            Self::Refuse => "refuse",
        })
    }
}

impl FromStr for WhenFull {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        match text {
            "discard-oldest" => Ok(Self::DiscardOldest),
            "refuse" => Ok(Self::Refuse),
            _ => Err(Invalid::new(
                "choice for a full topic",
                text,
                "discard-oldest or refuse",
            )),
        }
    }
}

/// How long a topic remembers the ids of messages. `None` in both, the default: it remembers none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct RememberIds {
    /// At least so long, in milliseconds of the host's append time, as far as `max` allows.
    pub for_ms: Option<u64>,
    /// At least the newest so many.
    pub max: Option<u64>,
}

impl RememberIds {
    /// Whether any is remembered.
    pub const fn is_on(&self) -> bool {
        self.for_ms.is_some() || self.max.is_some()
    }

    /// How many are remembered at least, if there are so many.
    pub fn most(&self) -> u64 {
        match self.is_on() {
            true => self.max.unwrap_or(limits::IDS_REMEMBERED_DEFAULT),
            false => 0,
        }
    }
}

/// Whether of the messages of a key only the newest is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Compaction {
    /// Older messages of a key go once a newer one of that key is stored.
    pub on: bool,
    /// A deletion (a key without a payload) is kept so long, in milliseconds of the host's append time; `None`:
    /// [`limits::TOMBSTONES_KEPT_FOR`].
    pub tombstone_age_ms: Option<u64>,
}

impl Compaction {
    /// How long a deletion is kept.
    pub fn tombstone_age(&self) -> Duration {
        let age = self.tombstone_age_ms.map(Duration::from_millis);
        age.unwrap_or(limits::TOMBSTONES_KEPT_FOR)
    }
}

/// What can be set on a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct TopicSettings {
    /// What an acknowledgement of this topic means.
    pub durability: Durability,
    /// What is kept.
    pub retention: Retention,
    /// What happens where the bytes or records kept leave no room.
    pub when_full: WhenFull,
    /// Which message ids are remembered.
    pub ids: RememberIds,
    /// Whether older messages of a key go.
    pub compaction: Compaction,
}

impl TopicSettings {
    /// What is discarded by itself: where a full topic refuses, its bytes and records are no reason to discard.
    pub fn discards(&self) -> Retention {
        match self.when_full {
            WhenFull::DiscardOldest => self.retention,
            WhenFull::Refuse => Retention {
                bytes: None,
                records: None,
                ..self.retention
            },
        }
    }
}

/// Why offsets are missing where a reader expected records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GapReason {
    /// Retention or a purge discarded them.
    Discarded,
    /// An unclean stop took records of an `os` topic, at most these.
    Lost,
    /// The stored bytes changed after they were durable.
    Damaged,
    /// Newer messages of the same keys stand behind it.
    Compacted,
    /// Their time to live was over.
    Expired,
    /// Their key was purged.
    Purged,
}

impl GapReason {
    /// All of them, by number from 1.
    pub const ALL: [Self; 6] = [
        Self::Discarded,
        Self::Lost,
        Self::Damaged,
        Self::Compacted,
        Self::Expired,
        Self::Purged,
    ];

    /// What stands for it in messages and files.
    pub const fn number(self) -> u8 {
        self as u8 + 1
    }

    /// The one with that number.
    pub fn numbered(number: u8) -> Option<Self> {
        let index = usize::from(number).checked_sub(1)?;
        Self::ALL.get(index).copied()
    }
}

impl fmt::Display for GapReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Discarded => "discarded",
            Self::Lost => "lost",
            Self::Damaged => "damaged",
            Self::Compacted => "compacted",
            Self::Expired => "expired",
            Self::Purged => "purged",
        })
    }
}

/// Offsets `[from, to)` that a reader will never see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// First missing offset.
    pub from: Offset,
    /// First offset after the gap.
    pub to: Offset,
    /// Why.
    pub reason: GapReason,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_tokens_between_dots() {
        for good in ["a", "quakes.ci", "A_b-9.x.y"] {
            assert_eq!(good.parse::<TopicName>().expect(good).as_str(), good);
        }
        let long = "a".repeat(256);
        for bad in [
            "", ".", "a.", ".a", "a..b", "a/b", "a b", "a\nb", "ä", "*", &long,
        ] {
            assert!(bad.parse::<TopicName>().is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn patterns_match_whole_tokens() {
        let yes = [
            ("*", "a"),
            (">", "a.b"),
            ("a.*", "a.b"),
            ("a.>", "a.b.c"),
            ("a.b", "a.b"),
            ("*.b", "x.b"),
        ];
        let no = [
            ("*", "a.b"),
            ("a.*", "a"),
            ("a.>", "a"),
            ("a.*", "a.b.c"),
            ("a", "b"),
            ("a.b", "a"),
        ];
        for (pattern, name) in yes {
            assert!(matches(pattern, name), "{pattern} should match {name}");
        }
        for (pattern, name) in no {
            assert!(!matches(pattern, name), "{pattern} should not match {name}");
        }
        for bad in ["", ">.a", "a.>b", "a*", "a..*"] {
            assert!(bad.parse::<TopicPattern>().is_err(), "{bad:?} was accepted");
        }
    }

    fn matches(pattern: &str, name: &str) -> bool {
        let pattern: TopicPattern = pattern.parse().expect("a good pattern");
        pattern.matches(&name.parse().expect("a good name"))
    }

    #[test]
    fn addresses_need_a_host_and_a_port() {
        for good in ["127.0.0.1:7400", "localhost:1", "[::1]:65535"] {
            assert!(good.parse::<Address>().is_ok(), "{good} was refused");
        }
        for bad in [
            "",
            "localhost",
            ":1",
            "a:0",
            "a:65536",
            "a:+1",
            "[zz]:1",
            "a b:1",
            "::1:80",
        ] {
            assert!(bad.parse::<Address>().is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn ids_round_trip_through_text() {
        let id = TopicId::from_bytes(*b"0123456789abcdef");
        assert_eq!(id.to_string().parse::<TopicId>(), Ok(id));
        for bad in ["", "12", "+0000000000000000000000000000001"] {
            assert!(bad.parse::<TopicId>().is_err());
        }
    }
}
