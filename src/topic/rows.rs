//! The rows of the catalog: what they are called and how they become bytes.
//!
//! A row is a fact in absolute form. State entries of the journal carry rows,
//! the catalog stores them, a snapshot is all of them: one encoding for the
//! three. Keys begin with a kind byte; integers in them are big endian, so that
//! byte order is number order. Values begin with a version byte; what was written
//! in a [former](super::former) version is read, and written anew in the present one
//! when the row changes.

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::consumers::{ConsumerGroupRow, ConsumerPageRow};
use super::former;
use super::ids::IdPage;
use super::purges::PurgeRow;
use crate::limits;
use crate::protocol::api::{Nonce, PlaceChange};
use crate::protocol::codec::{self, Malformed};
use crate::time::Timestamp;
use crate::types::{
    Gap, Generation, LeaderEpoch, Offset, PeerId, PeerName, ProducerEpoch, ProducerId, Sequence,
    StateNumber, SubscriptionName, TopicId, TopicName, TopicSettings,
};

/// Version byte in front of a value.
const VALUE_VERSION: u8 = 1;
/// That of a row which got further fields.
const VALUE_VERSION_2: u8 = 2;
/// And of one that got more.
const VALUE_VERSION_3: u8 = 3;

/// The name of a row.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RowKey {
    /// The peer itself.
    Peer,
    /// A topic.
    Topic(TopicId),
    /// A subscription of a topic.
    Subscription(TopicId, SubscriptionName),
    /// A producer that published to a topic.
    Producer(TopicId, ProducerId),
    /// A sealed or cold segment.
    Segment(u64),
    /// What moved a subscription of a topic.
    History(TopicId, SubscriptionName),
    /// A consumer group of a topic.
    ConsumerGroup(TopicId, SubscriptionName),
    /// A page of offsets of the consumer group with that generation.
    ConsumerPage(TopicId, Generation, u64),
    /// A page of the message ids that a topic remembers.
    Ids(TopicId, u64),
    /// A purge of a key that is under way in a topic, by number.
    Purge(TopicId, u64),
}

impl RowKey {
    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Peer => vec![1],
            Self::Topic(id) => [&[2][..], &id.to_bytes()].concat(),
            Self::Subscription(id, name) => {
                [&[3][..], &id.to_bytes(), name.as_str().as_bytes()].concat()
            }
            Self::Producer(id, producer) => {
                [&[4][..], &id.to_bytes(), &producer.to_bytes()].concat()
            }
            Self::Segment(number) => [&[5][..], &number.to_be_bytes()].concat(),
            Self::History(id, name) => {
                [&[6][..], &id.to_bytes(), name.as_str().as_bytes()].concat()
            }
            Self::ConsumerGroup(id, name) => {
                [&[7][..], &id.to_bytes(), name.as_str().as_bytes()].concat()
            }
            Self::ConsumerPage(id, generation, page) => {
                let (generation, page) = (generation.get().to_be_bytes(), page.to_be_bytes());
                [&[8][..], &id.to_bytes(), &generation, &page].concat()
            }
            Self::Ids(id, page) => [&[9][..], &id.to_bytes(), &page.to_be_bytes()].concat(),
            Self::Purge(id, number) => [&[10][..], &id.to_bytes(), &number.to_be_bytes()].concat(),
        }
    }

    /// Reads the bytes back.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let bad = || Malformed {
            what: "row key",
            reason: format!("{} bytes that name no row", bytes.len()),
        };
        let (&kind, rest) = bytes.split_first().ok_or_else(bad)?;
        let id = || -> Option<(TopicId, &[u8])> {
            let (id, rest) = rest.split_first_chunk::<16>()?;
            Some((TopicId::from_bytes(*id), rest))
        };
        let named = || -> Option<(TopicId, SubscriptionName)> {
            let (id, rest) = id()?;
            Some((id, std::str::from_utf8(rest).ok()?.parse().ok()?))
        };
        let key = match kind {
            1 if rest.is_empty() => Some(Self::Peer),
            2 => id()
                .filter(|(_, rest)| rest.is_empty())
                .map(|(id, _)| Self::Topic(id)),
            3 => named().map(|(id, name)| Self::Subscription(id, name)),
            4 => id().and_then(|(id, rest)| {
                let producer = ProducerId::from_bytes(rest.try_into().ok()?);
                Some(Self::Producer(id, producer))
            }),
            5 => rest
                .try_into()
                .ok()
                .map(|number| Self::Segment(u64::from_be_bytes(number))),
            6 => named().map(|(id, name)| Self::History(id, name)),
            7 => id().and_then(|(id, rest)| {
                let name = std::str::from_utf8(rest).ok()?.parse().ok()?;
                Some(Self::ConsumerGroup(id, name))
            }),
            8 => id().and_then(|(id, rest)| {
                let (generation, page) = rest.split_first_chunk()?;
                let generation = Generation::new(u64::from_be_bytes(*generation));
                let page = u64::from_be_bytes(page.try_into().ok()?);
                Some(Self::ConsumerPage(id, generation, page))
            }),
            9 => id().and_then(|(id, rest)| {
                let page = u64::from_be_bytes(rest.try_into().ok()?);
                Some(Self::Ids(id, page))
            }),
            10 => id().and_then(|(id, rest)| {
                let number = u64::from_be_bytes(rest.try_into().ok()?);
                Some(Self::Purge(id, number))
            }),
            _ => None,
        };
        key.ok_or_else(bad)
    }

    /// Whether its row says how far somebody is in a topic: see [`Topic::lowest_position`](super::Topic::lowest_position).
    pub fn holds_a_position(&self) -> bool {
        matches!(self, Self::Subscription(..) | Self::ConsumerGroup(..))
    }

    /// The topic this row belongs to; the zero id for facts about the peer.
    pub fn topic(&self) -> TopicId {
        match self {
            Self::Peer | Self::Segment(_) => TopicId::zero(),
            Self::Topic(id)
            | Self::Subscription(id, _)
            | Self::Producer(id, _)
            | Self::History(id, _)
            | Self::ConsumerGroup(id, _)
            | Self::ConsumerPage(id, ..)
            | Self::Ids(id, _)
            | Self::Purge(id, _) => *id,
        }
    }
}

/// A row's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Row {
    /// See [`PeerRow`].
    Peer(PeerRow),
    /// See [`TopicRow`].
    Topic(Box<TopicRow>),
    /// See [`SubscriptionRow`].
    Subscription(SubscriptionRow),
    /// See [`ProducerRow`].
    Producer(ProducerRow),
    /// See [`SegmentRow`].
    Segment(SegmentRow),
    /// See [`HistoryRow`].
    History(HistoryRow),
    /// See [`ConsumerGroupRow`].
    ConsumerGroup(ConsumerGroupRow),
    /// See [`ConsumerPageRow`].
    ConsumerPage(ConsumerPageRow),
    /// See [`IdPage`].
    Ids(IdPage),
    /// See [`PurgeRow`].
    Purge(PurgeRow),
}

impl Row {
    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Peer(row) => encode_value(row),
            Self::Topic(row) => encode_as(VALUE_VERSION_3, row),
            Self::Subscription(row) => encode_as(VALUE_VERSION_2, row),
            Self::Producer(row) => row.encode(),
            Self::Segment(row) => encode_value(row),
            Self::History(row) => encode_value(row),
            Self::ConsumerGroup(row) => encode_value(row),
            Self::ConsumerPage(row) => encode_value(row),
            Self::Ids(row) => encode_value(row),
            Self::Purge(row) => encode_value(row),
        }
    }

    /// Reads the value of the row that `key` names.
    pub fn decode(key: &RowKey, bytes: &[u8]) -> Result<Self, Malformed> {
        Ok(match key {
            RowKey::Peer => Self::Peer(decode_value(bytes, "peer row")?),
            RowKey::Topic(_) => Self::Topic(TopicRow::decode(bytes)?.into()),
            RowKey::Subscription(..) => {
                Self::Subscription(decode_since::<former::SubscriptionRow, _>(
                    bytes,
                    "subscription row",
                )?)
            }
            RowKey::Producer(..) => Self::Producer(ProducerRow::decode(bytes)?),
            RowKey::Segment(_) => Self::Segment(decode_value(bytes, "segment row")?),
            RowKey::History(..) => Self::History(decode_value(bytes, "history row")?),
            RowKey::ConsumerGroup(..) => {
                Self::ConsumerGroup(decode_value(bytes, "consumer group row")?)
            }
            RowKey::ConsumerPage(..) => {
                Self::ConsumerPage(decode_value(bytes, "consumer page row")?)
            }
            RowKey::Ids(..) => Self::Ids(decode_value(bytes, "page of ids")?),
            RowKey::Purge(..) => Self::Purge(decode_value(bytes, "purge row")?),
        })
    }
}

fn encode_value<T: Serialize>(row: &T) -> Vec<u8> {
    encode_as(VALUE_VERSION, row)
}

fn encode_as<T: Serialize>(version: u8, row: &T) -> Vec<u8> {
    let mut bytes = vec![version];
    let body = codec::encode(row, limits::SLED_VALUE_BYTES_MAX, "row").expect(
        "rows are bounded well below the largest value: names, gaps and batches have limits",
    );
    bytes.extend_from_slice(&body);
    bytes
}

fn decode_value<T: DeserializeOwned>(bytes: &[u8], what: &'static str) -> Result<T, Malformed> {
    let (_, body) = split_version(bytes, VALUE_VERSION, what)?;
    decode_body(body, what)
}

fn decode_body<T: DeserializeOwned>(body: &[u8], what: &'static str) -> Result<T, Malformed> {
    codec::decode(body, limits::SLED_VALUE_BYTES_MAX, what)
}

/// The version of a value, at most `newest`, and what comes after it.
fn split_version<'a>(
    bytes: &'a [u8],
    newest: u8,
    what: &'static str,
) -> Result<(u8, &'a [u8]), Malformed> {
    match bytes.split_first() {
        Some((&version, body)) if (VALUE_VERSION..=newest).contains(&version) => {
            Ok((version, body))
        }
        Some((version, _)) => Err(Malformed {
            what,
            reason: format!("version {version}, this program knows up to {newest}"),
        }),
        None => Err(Malformed {
            what,
            reason: "no bytes".to_owned(),
        }),
    }
}

/// Reads a value of which there are two versions, 1 and 2.
fn decode_since<Former, T>(bytes: &[u8], what: &'static str) -> Result<T, Malformed>
where
    Former: DeserializeOwned + Into<T>,
    T: DeserializeOwned,
{
    match split_version(bytes, VALUE_VERSION_2, what)? {
        (VALUE_VERSION, body) => decode_body::<Former>(body, what).map(Into::into),
        (_, body) => decode_body(body, what),
    }
}

/// Facts about the peer as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerRow {
    /// Identity, made with the directory.
    pub id: PeerId,
    /// Name.
    pub name: PeerName,
    /// When the directory was made.
    pub created: Timestamp,
    /// Last state number of the peer itself.
    pub state_number: StateNumber,
    /// State numbers up to here are settled: what was lost among them was accepted.
    pub accepted_state: StateNumber,
    /// The latest usable state snapshot.
    pub snapshot: Option<SnapshotRow>,
}

/// Where a state snapshot begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotRow {
    /// Segment.
    pub segment: u64,
    /// Position of the group in it.
    pub position: u32,
    /// Number of that group.
    pub group: u64,
}

/// Facts about a topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicRow {
    /// Name.
    pub name: TopicName,
    /// Leader epoch.
    pub epoch: LeaderEpoch,
    /// Settings.
    pub settings: TopicSettings,
    /// When it was created.
    pub created: Timestamp,
    /// First offset kept.
    pub start: Offset,
    /// Next offset to be given.
    pub end: Offset,
    /// Live bytes of record batches.
    pub bytes: u64,
    /// Last state number.
    pub state_number: StateNumber,
    /// State numbers up to here are settled: what was lost among them was accepted.
    pub accepted_state: StateNumber,
    /// Last generation given to a subscription.
    pub generation: Generation,
    /// `os` topics: no offset at or above this has been given.
    pub bound: Option<Offset>,
    /// Set when the end is uncertain after damage.
    pub quarantine: Option<QuarantineRow>,
    /// Missing offsets inside `[start, end)`, in order.
    pub gaps: Vec<Gap>,
    /// When its last record was appended.
    pub last_append: Option<Timestamp>,
    /// Records below may be lost: a producer whose last batch lies below goes on at any higher sequence.
    pub jump_before: Option<Offset>,
    /// Last epoch given to a named producer.
    pub producer_epoch: ProducerEpoch,
    /// A named producer was forgotten: one that is not known need not be new.
    pub names_forgotten: bool,
    /// What was taken out of its middle.
    pub thinned: ThinnedRow,
}

/// What of a topic was taken out of its middle, and how far that got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct ThinnedRow {
    /// Offsets inside `[start, end)` whose records were taken away.
    pub removed: u64,
    /// No batch at or above this offset is thinned.
    pub end: Offset,
    /// Below this offset each key has one record, and no deletion has anything in front of it.
    pub compacted: Offset,
    /// Append time of the newest deletion left below it.
    pub tombstones: Option<Timestamp>,
    /// Messages with a time to live were published.
    pub has_ttl: bool,
}

impl TopicRow {
    /// Reads any version.
    fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let what = "topic row";
        match split_version(bytes, VALUE_VERSION_3, what)? {
            (VALUE_VERSION, body) => decode_body::<former::TopicRow>(body, what).map(Self::from),
            (VALUE_VERSION_2, body) => decode_body::<former::TopicRow2>(body, what).map(Self::from),
            (_, body) => decode_body(body, what),
        }
    }

    /// That of a topic that is made now.
    pub fn new(
        name: TopicName,
        epoch: LeaderEpoch,
        settings: TopicSettings,
        created: Timestamp,
    ) -> Self {
        Self {
            name,
            epoch,
            settings,
            created,
            start: Offset::ZERO,
            end: Offset::ZERO,
            bytes: 0,
            state_number: StateNumber::ZERO,
            accepted_state: StateNumber::ZERO,
            generation: Generation::ZERO,
            bound: None,
            quarantine: None,
            gaps: Vec::new(),
            last_append: None,
            jump_before: None,
            producer_epoch: ProducerEpoch::ZERO,
            names_forgotten: false,
            thinned: ThinnedRow::default(),
        }
    }

    /// Records kept: the offsets without the gaps among them and without what was taken away.
    pub fn records(&self) -> u64 {
        let missing = self.gaps.iter().map(|gap| {
            let (from, to) = (gap.from.max(self.start), gap.to.min(self.end));
            to.since(from)
        });
        let missing = missing.sum::<u64>().saturating_add(self.thinned.removed);
        self.end.since(self.start).saturating_sub(missing)
    }
}

/// What is known of a topic whose end is uncertain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuarantineRow {
    /// Everything below is intact.
    pub intact_end: Offset,
    /// It was durable up to here.
    pub claimed_end: Offset,
    /// Its state was durable up to this number.
    pub claimed_state: StateNumber,
}

/// Facts about a subscription.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubscriptionRow {
    /// Generation.
    pub generation: Generation,
    /// Next offset to read.
    pub committed: Offset,
    /// When it was made.
    pub created: Timestamp,
    /// When it was last committed.
    pub last_commit: Option<Timestamp>,
    /// Nothing is handed out through it for now.
    pub paused: bool,
    /// It vanishes when nobody uses it for so many milliseconds.
    pub expire_ms: Option<u64>,
}

/// What moved a subscription.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct HistoryRow {
    /// The changes that were not ordinary commits, oldest first, at most
    /// [`limits::HISTORY_CHANGES_MAX`], at least one.
    pub changes: Vec<PlaceChange>,
}

/// What a producer published last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProducerRow {
    /// When it last published.
    pub last_used: Timestamp,
    /// Its last batches, oldest first, at most [`limits::PRODUCER_BATCHES_KEPT`]; none only of a named producer.
    pub batches: Vec<ProducerBatch>,
    /// What else is known of one that has a name.
    #[serde(skip)]
    pub named: Option<Box<NamedProducer>>,
}

/// A batch as it is remembered to answer a retry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProducerBatch {
    /// Sequence of its first record.
    pub first: Sequence,
    /// Number of records.
    pub count: u32,
    /// Which process of a named producer sent it.
    #[serde(skip)]
    pub epoch: ProducerEpoch,
    /// Offset of its first record.
    pub base: Offset,
}

/// What is known of a named producer beside its last batches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedProducer {
    /// The newest process of that name.
    pub epoch: ProducerEpoch,
    /// Tells it apart from others: the same process may ask twice.
    pub nonce: Nonce,
    /// Where the topic ended when it began.
    pub opened: Offset,
    /// The sequence its first batch begins at, as long as there is none.
    pub at: Sequence,
}

/// Version 2 of a producer's row: that of one with a name.
#[derive(Serialize, Deserialize)]
struct NamedProducerRow {
    row: ProducerRow,
    named: NamedProducer,
    /// Of each batch.
    epochs: Vec<ProducerEpoch>,
}

impl ProducerRow {
    fn encode(&self) -> Vec<u8> {
        match &self.named {
            None => encode_value(self),
            Some(named) => encode_as(
                VALUE_VERSION_2,
                &NamedProducerRow {
                    row: self.clone(),
                    named: (**named).clone(),
                    epochs: self.batches.iter().map(|batch| batch.epoch).collect(),
                },
            ),
        }
    }

    fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let what = "producer row";
        let (version, body) = split_version(bytes, VALUE_VERSION_2, what)?;
        if version == VALUE_VERSION {
            return decode_body(body, what);
        }
        let NamedProducerRow {
            mut row,
            named,
            epochs,
        } = decode_body(body, what)?;
        if epochs.len() != row.batches.len() {
            let reason = format!("{} epochs of {} batches", epochs.len(), row.batches.len());
            return Err(Malformed { what, reason });
        }
        for (batch, epoch) in row.batches.iter_mut().zip(epochs) {
            batch.epoch = epoch;
        }
        row.named = Some(Box::new(named));
        Ok(row)
    }
}

/// A sealed or cold segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentRow {
    /// The slot it lies in.
    pub slot: u32,
    /// 1 stream, 2 recovery, 3 cold.
    pub kind: u8,
    /// Its salt.
    pub salt: [u8; 16],
    /// End of its contents.
    pub end: u32,
    /// Position of the footer.
    pub footer_position: u32,
    /// Length of the footer, in bytes.
    pub footer_length: u32,
    /// Number of its first group; 0 in a cold segment.
    pub first_group: u64,
    /// Number of its last group; 0 in a cold segment.
    pub last_group: u64,
    /// Something in it cannot be read: it is never reused or rewritten by the running peer.
    pub damaged: bool,
}

#[cfg(test)]
mod tests {
    use super::super::ids::IdSeen;
    use super::*;
    use crate::protocol::api::{Author, ChangeKind};
    use crate::types::IdDigest;

    #[test]
    fn keys_round_trip_and_sort_by_number() {
        let id = TopicId::from_bytes([3; 16]);
        let keys = [
            RowKey::Peer,
            RowKey::Topic(id),
            RowKey::Subscription(id, "billing".parse().expect("good")),
            RowKey::Producer(id, ProducerId::from_bytes([9; 16])),
            RowKey::Segment(255),
            RowKey::Segment(256),
            RowKey::History(id, "billing".parse().expect("good")),
            RowKey::ConsumerGroup(id, "billing".parse().expect("good")),
            RowKey::ConsumerPage(id, Generation::new(7), 255),
            RowKey::ConsumerPage(id, Generation::new(7), 256),
            RowKey::Ids(id, 255),
            RowKey::Ids(id, 256),
            RowKey::Purge(id, 255),
            RowKey::Purge(id, 256),
        ];
        for pair in keys.windows(2) {
            assert!(
                pair[0].encode() < pair[1].encode(),
                "{:?} sorts after {:?}",
                pair[0],
                pair[1]
            );
        }
        for key in keys {
            assert_eq!(RowKey::decode(&key.encode()), Ok(key));
        }
        for bad in [
            &b""[..],
            b"\x01x",
            b"\x02short",
            b"\x09",
            b"\x05\0\0",
            b"\x08short",
            b"\x63",
            b"\x05\0\0",
        ] {
            assert!(RowKey::decode(bad).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn the_largest_rows_fit_into_a_value() {
        let name = "a".repeat(limits::NAME_BYTES_MAX).parse().expect("good");
        let gap = Gap {
            from: Offset::ZERO,
            to: Offset::new(1),
            reason: crate::types::GapReason::Lost,
        };
        let (settings, created) = (TopicSettings::default(), Timestamp::default());
        let topic = TopicRow {
            bound: Some(Offset::ZERO),
            gaps: vec![gap; limits::GAPS_ACCEPTED_MAX + 1],
            last_append: Some(Timestamp::default()),
            jump_before: Some(Offset::ZERO),
            ..TopicRow::new(name, LeaderEpoch::ZERO, settings, created)
        };
        let producer = Row::Producer(named_producer(limits::PRODUCER_BATCHES_KEPT));
        let seen = IdSeen {
            id: IdDigest::zero(),
            offset: Offset::ZERO,
        };
        let ids = Row::Ids(IdPage {
            newest: Timestamp::default(),
            ids: vec![seen; limits::IDS_PER_PAGE as usize],
        });
        let change = PlaceChange {
            when: created,
            kind: ChangeKind::Seek,
            from: Some(Offset::ZERO),
            to: Offset::ZERO,
            generation: Generation::ZERO,
            author: Author::new(&"n".repeat(300), "a".repeat(300)),
        };
        let history = Row::History(HistoryRow {
            changes: vec![change; limits::HISTORY_CHANGES_MAX],
        });
        let name: TopicName = "a".repeat(limits::NAME_BYTES_MAX).parse().expect("good");
        let options = crate::protocol::api::ConsumerGroupOptions {
            ack_deadline_ms: 1,
            deliveries_max: 1,
            backoff_ms: vec![1; limits::BACKOFF_STEPS_MAX],
            unacked_max: 1,
            ordered_by_key: true,
            dead_letters: name,
        };
        let group = ConsumerGroupRow {
            last_settled: Some(created),
            ..ConsumerGroupRow::new(Generation::ZERO, Offset::ZERO, options, created)
        };
        let failed = (0..=255).map(|at| super::super::consumers::FailedRow::new(at, 1, true));
        let page = ConsumerPageRow {
            settled: [u64::MAX; 4],
            failed: failed.collect(),
        };
        let consumers = [Row::ConsumerGroup(group), Row::ConsumerPage(page)];
        let others = [Row::Topic(topic.into()), producer, ids, history];
        for row in others.into_iter().chain(consumers) {
            assert!(row.encode().len() < limits::SLED_VALUE_BYTES_MAX - 64);
        }
    }

    fn named_producer(batches: usize) -> ProducerRow {
        let batch = |n| ProducerBatch {
            first: Sequence::new(n),
            count: 1,
            epoch: ProducerEpoch::new(2),
            base: Offset::new(10 + n),
        };
        ProducerRow {
            last_used: Timestamp::from_millis(7),
            batches: (0..batches as u64).map(batch).collect(),
            named: Some(Box::new(NamedProducer {
                epoch: ProducerEpoch::new(3),
                nonce: Nonce([5; 16]),
                opened: Offset::new(9),
                at: Sequence::ZERO,
            })),
        }
    }

    #[test]
    fn a_producer_without_a_name_has_a_row_as_before() {
        let key = RowKey::Producer(
            TopicId::from_bytes([3; 16]),
            ProducerId::from_bytes([9; 16]),
        );
        for batches in [0, 1, 3] {
            let named = Row::Producer(named_producer(batches));
            assert_eq!(named.encode()[0], VALUE_VERSION_2);
            assert_eq!(Row::decode(&key, &named.encode()), Ok(named));
        }
        let mut plain = named_producer(1);
        plain.named = None;
        plain.batches[0].epoch = ProducerEpoch::ZERO;
        let bytes = Row::Producer(plain.clone()).encode();
        let expected = [
            &[1, 7][..],
            &[0; 7],
            &[1],
            &[0; 7],
            &[0; 8],
            &[1, 0, 0, 0],
            &[10],
            &[0; 7],
        ];
        assert_eq!(bytes, expected.concat());
        assert_eq!(Row::decode(&key, &bytes), Ok(Row::Producer(plain)));
    }
}
