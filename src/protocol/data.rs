//! The requests whose bodies are raw: those that publish, `Fetch` and `Stream`.
//!
//! ```text
//! Publish        topic id 16 | leader epoch u32 | record batch
//! PublishExpecting
//!                topic id 16 | leader epoch u32 | expected end u64 | record batch
//! answer of both
//!               base offset u64 | end offset u64 | durability u8 (0 fsync, 1 os) | duplicate u8
//!
//! Fetch          topic id 16 | leader epoch u32 | offset u64 | max bytes u32 | min bytes u32
//!                | max wait u32 (ms) | flags u8 (bit 0: pass over damage)
//! answer         log start u64 | readable end u64 | next offset u64 | item*
//!
//! Stream         topic id 16 | leader epoch u32 | offset u64 | max bytes u32 | credit bytes u64
//!                | credit records u64 | keep-alive u32 (ms) | flags u8 (bit 0: pass over damage)
//! answers        as that to a fetch, or no byte at all: a keep-alive
//!
//! item: batch    1 u8 | base offset u64 | leader epoch u32 | append time i64 | length u32 | record batch
//! item: gap      2 u8 | from u64 | to u64 | reason u8 (1 discarded, 2 lost, 3 damaged)
//! ```
//!
//! Items come in the order of offsets without holes: where records are missing
//! stands a gap. The first batch may begin before the offset asked for; the
//! client drops what it did not ask for. `next offset` is where to go on.

use bytes::{Buf, BufMut, Bytes};

use crate::protocol::batch::BatchHeader;
use crate::protocol::codec::Malformed;
use crate::time::Timestamp;
use crate::types::{Durability, Gap, GapReason, LeaderEpoch, Offset, TopicId};

/// Bytes of a publish request before the record batch.
pub const PUBLISH_HEADER_BYTES: usize = 20;
/// Bytes of a batch item before the record batch.
pub const BATCH_ITEM_HEADER_BYTES: usize = 25;

fn short(what: &'static str) -> Malformed {
    Malformed {
        what,
        reason: "it ends too early".to_owned(),
    }
}

fn need(body: &Bytes, bytes: usize, what: &'static str) -> Result<(), Malformed> {
    if body.len() < bytes {
        Err(short(what))
    } else {
        Ok(())
    }
}

fn exactly(body: &Bytes, bytes: usize, what: &'static str) -> Result<(), Malformed> {
    if body.len() == bytes {
        return Ok(());
    }
    Err(Malformed {
        what,
        reason: format!("{} bytes instead of {bytes}", body.len()),
    })
}

/// A flag of a later version is refused: to ignore it would be to answer another question.
fn get_pass_damage(body: &mut Bytes, what: &'static str) -> Result<bool, Malformed> {
    match body.get_u8() {
        flags @ (0 | 1) => Ok(flags == 1),
        flags => Err(Malformed {
            what,
            reason: format!("flags {flags:#04x}, only bit 0 has a meaning"),
        }),
    }
}

fn get_id(body: &mut Bytes) -> TopicId {
    let mut id = [0; 16];
    body.copy_to_slice(&mut id);
    TopicId::from_bytes(id)
}

/// A request to append one record batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publish {
    /// The topic.
    pub topic: TopicId,
    /// The leader epoch the client knows.
    pub epoch: LeaderEpoch,
    /// The record batch, unchecked.
    pub batch: Bytes,
}

impl Publish {
    /// The bytes that go before the batch.
    pub fn header(topic: TopicId, epoch: LeaderEpoch) -> [u8; PUBLISH_HEADER_BYTES] {
        let mut header = [0; PUBLISH_HEADER_BYTES];
        header[..16].copy_from_slice(&topic.to_bytes());
        header[16..].copy_from_slice(&epoch.get().to_le_bytes());
        header
    }

    /// Splits a body; the batch shares its memory.
    pub fn decode(mut body: Bytes) -> Result<Self, Malformed> {
        need(&body, PUBLISH_HEADER_BYTES, "Publish")?;
        let topic = get_id(&mut body);
        let epoch = LeaderEpoch::new(body.get_u32_le());
        Ok(Self {
            topic,
            epoch,
            batch: body,
        })
    }
}

/// Bytes of a request that expects an end before the record batch.
pub const PUBLISH_EXPECTING_HEADER_BYTES: usize = PUBLISH_HEADER_BYTES + 8;

/// A request to append one record batch to a topic that ends at a certain offset. What is expected belongs to
/// the request and not into the batch: those who read it later have no use for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishExpecting {
    /// Where to, and what.
    pub publish: Publish,
    /// The offset its first record is to get.
    pub expected_end: Offset,
}

impl PublishExpecting {
    /// The bytes that go before the batch.
    pub fn header(
        topic: TopicId,
        epoch: LeaderEpoch,
        expected_end: Offset,
    ) -> [u8; PUBLISH_EXPECTING_HEADER_BYTES] {
        let mut header = [0; PUBLISH_EXPECTING_HEADER_BYTES];
        header[..PUBLISH_HEADER_BYTES].copy_from_slice(&Publish::header(topic, epoch));
        header[PUBLISH_HEADER_BYTES..].copy_from_slice(&expected_end.get().to_le_bytes());
        header
    }

    /// Splits a body; the batch shares its memory.
    pub fn decode(body: Bytes) -> Result<Self, Malformed> {
        need(&body, PUBLISH_EXPECTING_HEADER_BYTES, "PublishExpecting")?;
        let mut publish = Publish::decode(body)?;
        let expected_end = Offset::new(publish.batch.get_u64_le());
        Ok(Self {
            publish,
            expected_end,
        })
    }
}

/// Where a batch was stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Published {
    /// Offset of its first record.
    pub base_offset: Offset,
    /// Offset after its last record.
    pub end_offset: Offset,
    /// What this acknowledgement means.
    pub durability: Durability,
    /// It was stored before; these are its first offsets.
    pub duplicate: bool,
}

impl Published {
    /// Encodes the answer.
    pub fn encode(&self) -> [u8; 18] {
        let mut body = [0; 18];
        body[..8].copy_from_slice(&self.base_offset.get().to_le_bytes());
        body[8..16].copy_from_slice(&self.end_offset.get().to_le_bytes());
        body[16] = matches!(self.durability, Durability::Os).into();
        body[17] = self.duplicate.into();
        body
    }

    /// Decodes the answer.
    pub fn decode(mut body: Bytes) -> Result<Self, Malformed> {
        exactly(&body, 18, "Published")?;
        let (base_offset, end_offset) = (
            Offset::new(body.get_u64_le()),
            Offset::new(body.get_u64_le()),
        );
        let durability = match body.get_u8() {
            0 => Durability::Fsync,
            1 => Durability::Os,
            other => {
                return Err(Malformed {
                    what: "Published",
                    reason: format!("durability {other}"),
                });
            }
        };
        let duplicate = match body.get_u8() {
            0 => false,
            1 => true,
            other => {
                return Err(Malformed {
                    what: "Published",
                    reason: format!("duplicate {other}"),
                });
            }
        };
        Ok(Self {
            base_offset,
            end_offset,
            durability,
            duplicate,
        })
    }
}

/// A request to read from an offset on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fetch {
    /// The topic.
    pub topic: TopicId,
    /// The leader epoch the client knows.
    pub epoch: LeaderEpoch,
    /// First offset wanted.
    pub offset: Offset,
    /// Most bytes of batches wanted; the first batch comes whatever its size.
    pub max_bytes: u32,
    /// Wait until so many bytes are there, or `max_wait_ms` is over.
    pub min_bytes: u32,
    /// Longest wait, in milliseconds.
    pub max_wait_ms: u32,
    /// Answer damaged offsets with a gap instead of an error.
    pub pass_damage: bool,
}

impl Fetch {
    /// Length of the encoded request, in bytes.
    pub const BYTES: usize = 41;

    /// Encodes the request.
    pub fn encode(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(Self::BYTES);
        body.put_slice(&self.topic.to_bytes());
        body.put_u32_le(self.epoch.get());
        body.put_u64_le(self.offset.get());
        body.put_u32_le(self.max_bytes);
        body.put_u32_le(self.min_bytes);
        body.put_u32_le(self.max_wait_ms);
        body.put_u8(self.pass_damage.into());
        body
    }

    /// Decodes the request.
    pub fn decode(mut body: Bytes) -> Result<Self, Malformed> {
        exactly(&body, Self::BYTES, "Fetch")?;
        Ok(Self {
            topic: get_id(&mut body),
            epoch: LeaderEpoch::new(body.get_u32_le()),
            offset: Offset::new(body.get_u64_le()),
            max_bytes: body.get_u32_le(),
            min_bytes: body.get_u32_le(),
            max_wait_ms: body.get_u32_le(),
            pass_damage: get_pass_damage(&mut body, "Fetch")?,
        })
    }
}

/// A request to be sent what there is and what comes, from an offset on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stream {
    /// The topic.
    pub topic: TopicId,
    /// The leader epoch the client knows.
    pub epoch: LeaderEpoch,
    /// First offset wanted.
    pub offset: Offset,
    /// Most bytes of batches wanted in one answer; its first batch comes whatever its size.
    pub max_bytes: u32,
    /// What may be sent before more is given.
    pub credit: Credit,
    /// How long nothing may be sent, in milliseconds.
    pub keep_alive_ms: u32,
    /// Answer damaged offsets with a gap instead of an error.
    pub pass_damage: bool,
}

/// What the other side may send of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Credit {
    /// Bytes of the bodies of answers.
    pub bytes: u64,
    /// Records in their batches.
    pub records: u64,
}

impl Stream {
    /// Length of the encoded request, in bytes.
    pub const BYTES: usize = 53;

    /// Encodes the request.
    pub fn encode(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(Self::BYTES);
        body.put_slice(&self.topic.to_bytes());
        body.put_u32_le(self.epoch.get());
        body.put_u64_le(self.offset.get());
        body.put_u32_le(self.max_bytes);
        body.put_u64_le(self.credit.bytes);
        body.put_u64_le(self.credit.records);
        body.put_u32_le(self.keep_alive_ms);
        body.put_u8(self.pass_damage.into());
        body
    }

    /// Decodes the request.
    pub fn decode(mut body: Bytes) -> Result<Self, Malformed> {
        exactly(&body, Self::BYTES, "Stream")?;
        Ok(Self {
            topic: get_id(&mut body),
            epoch: LeaderEpoch::new(body.get_u32_le()),
            offset: Offset::new(body.get_u64_le()),
            max_bytes: body.get_u32_le(),
            credit: Credit {
                bytes: body.get_u64_le(),
                records: body.get_u64_le(),
            },
            keep_alive_ms: body.get_u32_le(),
            pass_damage: get_pass_damage(&mut body, "Stream")?,
        })
    }
}

/// One thing in the answer to a fetch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FetchItem {
    /// A record batch as it is stored.
    Batch(StoredBatch),
    /// Missing offsets.
    Gap(Gap),
}

/// A record batch with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredBatch {
    /// Offset of its first record.
    pub base_offset: Offset,
    /// Leader epoch it was appended under.
    pub epoch: LeaderEpoch,
    /// When the host appended it.
    pub append_time: Timestamp,
    /// The batch.
    pub batch: Bytes,
}

/// The answer to a fetch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// First offset the topic keeps.
    pub start_offset: Offset,
    /// First offset not readable yet.
    pub end_offset: Offset,
    /// Where to go on reading.
    pub next_offset: Offset,
    /// Batches and gaps.
    pub items: Vec<FetchItem>,
}

impl StoredBatch {
    /// How many records its header says it has.
    fn record_count(&self) -> u64 {
        BatchHeader::parse_prefix(&self.batch).map_or(0, |header| header.record_count.into())
    }
}

impl Fetched {
    /// Leaves out the batches, and what follows them, that have more than so many records together; the first one
    /// stays however many it has. Tells how many there are now.
    pub fn keep_records(&mut self, max: u64) -> u64 {
        let (mut records, mut end) = (0, Offset::ZERO);
        for (at, item) in self.items.iter().enumerate() {
            let (count, item_end) = match item {
                FetchItem::Batch(stored) => {
                    let count = stored.record_count();
                    (count, stored.base_offset.saturating_add(count))
                }
                FetchItem::Gap(gap) => (0, gap.to),
            };
            if records > 0 && count > 0 && records + count > max {
                self.items.truncate(at);
                self.next_offset = end;
                break;
            }
            (records, end) = (records + count, item_end);
        }
        records
    }

    /// Encodes the answer as pieces to be written one after the other; the
    /// batches are not copied.
    pub fn encode(&self) -> Vec<Bytes> {
        let mut pieces = Vec::with_capacity(1 + 2 * self.items.len());
        let mut head = Vec::with_capacity(64);
        head.put_u64_le(self.start_offset.get());
        head.put_u64_le(self.end_offset.get());
        head.put_u64_le(self.next_offset.get());
        for item in &self.items {
            match item {
                FetchItem::Gap(gap) => put_gap(&mut head, gap),
                FetchItem::Batch(stored) => {
                    put_batch_header(&mut head, stored);
                    pieces.push(Bytes::from(std::mem::take(&mut head)));
                    pieces.push(stored.batch.clone());
                }
            }
        }
        if !head.is_empty() {
            pieces.push(Bytes::from(head));
        }
        pieces
    }

    /// Decodes the answer; the batches share its memory.
    pub fn decode(mut body: Bytes) -> Result<Self, Malformed> {
        need(&body, 24, "Fetched")?;
        let start_offset = Offset::new(body.get_u64_le());
        let end_offset = Offset::new(body.get_u64_le());
        let next_offset = Offset::new(body.get_u64_le());
        let mut items = Vec::new();
        while !body.is_empty() {
            items.push(get_item(&mut body)?);
        }
        Ok(Self {
            start_offset,
            end_offset,
            next_offset,
            items,
        })
    }
}

fn put_gap(out: &mut Vec<u8>, gap: &Gap) {
    out.put_u8(2);
    out.put_u64_le(gap.from.get());
    out.put_u64_le(gap.to.get());
    out.put_u8(gap.reason.number());
}

fn put_batch_header(out: &mut Vec<u8>, stored: &StoredBatch) {
    out.put_u8(1);
    out.put_u64_le(stored.base_offset.get());
    out.put_u32_le(stored.epoch.get());
    out.put_i64_le(stored.append_time.as_millis());
    out.put_u32_le(u32::try_from(stored.batch.len()).expect("a batch is far below 4 GiB"));
}

fn get_item(body: &mut Bytes) -> Result<FetchItem, Malformed> {
    match body.get_u8() {
        1 => {
            need(body, BATCH_ITEM_HEADER_BYTES - 1, "Fetched")?;
            let base_offset = Offset::new(body.get_u64_le());
            let epoch = LeaderEpoch::new(body.get_u32_le());
            let append_time = Timestamp::from_millis(body.get_i64_le());
            let length = body.get_u32_le() as usize;
            need(body, length, "Fetched")?;
            let batch = body.split_to(length);
            Ok(FetchItem::Batch(StoredBatch {
                base_offset,
                epoch,
                append_time,
                batch,
            }))
        }
        2 => {
            need(body, 17, "Fetched")?;
            let (from, to) = (
                Offset::new(body.get_u64_le()),
                Offset::new(body.get_u64_le()),
            );
            let number = body.get_u8();
            let reason = GapReason::numbered(number).ok_or_else(|| Malformed {
                what: "Fetched",
                reason: format!("gap reason {number}"),
            })?;
            Ok(FetchItem::Gap(Gap { from, to, reason }))
        }
        other => Err(Malformed {
            what: "Fetched",
            reason: format!("item kind {other}"),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fetch_answer_round_trips_and_refuses_truncation() {
        let fetched = Fetched {
            start_offset: Offset::new(1),
            end_offset: Offset::new(30),
            next_offset: Offset::new(20),
            items: vec![
                FetchItem::Gap(Gap {
                    from: Offset::new(1),
                    to: Offset::new(3),
                    reason: GapReason::Lost,
                }),
                FetchItem::Batch(StoredBatch {
                    base_offset: Offset::new(3),
                    epoch: LeaderEpoch::new(7),
                    append_time: Timestamp::from_millis(99),
                    batch: Bytes::from_static(b"not looked at"),
                }),
            ],
        };
        let bytes: Vec<u8> = fetched.encode().concat();
        assert_eq!(
            Fetched::decode(Bytes::from(bytes.clone())),
            Ok(fetched.clone())
        );
        let whole_items = [24, 24 + 18, bytes.len()];
        for cut in (0..=bytes.len()).filter(|cut| !whole_items.contains(cut)) {
            assert!(
                Fetched::decode(Bytes::copy_from_slice(&bytes[..cut])).is_err(),
                "cut at {cut}"
            );
        }
    }

    #[test]
    fn bits_without_a_meaning_are_refused() {
        let fetch = Fetch {
            topic: TopicId::from_bytes([7; 16]),
            epoch: LeaderEpoch::new(3),
            offset: Offset::new(5),
            max_bytes: 1,
            min_bytes: 2,
            max_wait_ms: 3,
            pass_damage: true,
        };
        let mut body = fetch.encode();
        assert_eq!(Fetch::decode(Bytes::from(body.clone())), Ok(fetch));
        for flags in 2..=255 {
            body[Fetch::BYTES - 1] = flags;
            assert!(
                Fetch::decode(Bytes::from(body.clone())).is_err(),
                "flags {flags}"
            );
        }
        let published = Published {
            base_offset: Offset::new(5),
            end_offset: Offset::new(9),
            durability: Durability::Os,
            duplicate: false,
        };
        for at in [16, 17] {
            for byte in 2..=255 {
                let mut body = published.encode();
                body[at] = byte;
                assert!(
                    Published::decode(Bytes::copy_from_slice(&body)).is_err(),
                    "{byte} at {at}"
                );
            }
        }
    }

    #[test]
    fn a_stream_is_what_it_was_and_nothing_else() {
        let stream = Stream {
            topic: TopicId::from_bytes([7; 16]),
            epoch: LeaderEpoch::new(3),
            offset: Offset::new(5),
            max_bytes: 1,
            credit: Credit {
                bytes: u64::MAX,
                records: 9,
            },
            keep_alive_ms: 300,
            pass_damage: true,
        };
        let body = stream.encode();
        assert_eq!(Stream::decode(Bytes::from(body.clone())), Ok(stream));
        for cut in 0..body.len() {
            assert!(Stream::decode(Bytes::copy_from_slice(&body[..cut])).is_err());
        }
        for flags in 2..=255 {
            let mut body = body.clone();
            body[Stream::BYTES - 1] = flags;
            assert!(Stream::decode(Bytes::from(body)).is_err(), "{flags}");
        }
    }

    #[test]
    fn an_answer_is_cut_between_batches_but_has_one() {
        let stored = |base: u64, count: u32| {
            let mut batch = vec![0; 64];
            batch[4..6].copy_from_slice(&0x4254_u16.to_le_bytes());
            batch[6] = 1;
            batch[12..16].copy_from_slice(&count.to_le_bytes());
            batch[8..12].copy_from_slice(&(count * 16).to_le_bytes());
            batch[16..20].copy_from_slice(&(count * 16).to_le_bytes());
            FetchItem::Batch(StoredBatch {
                base_offset: Offset::new(base),
                epoch: LeaderEpoch::new(1),
                append_time: Timestamp::from_millis(0),
                batch: batch.into(),
            })
        };
        let gap = FetchItem::Gap(Gap {
            from: Offset::new(10),
            to: Offset::new(22),
            reason: GapReason::Discarded,
        });
        // What is kept after a gap may begin inside a batch.
        let items = vec![stored(0, 10), gap, stored(20, 5), stored(25, 5)];
        for (max, records, next, count) in [
            (0, 10, 22, 2),
            (14, 10, 22, 2),
            (15, 15, 25, 3),
            (19, 15, 25, 3),
            (20, 20, 30, 4),
        ] {
            let mut fetched = Fetched {
                start_offset: Offset::ZERO,
                end_offset: Offset::new(40),
                next_offset: Offset::new(30),
                items: items.clone(),
            };
            assert_eq!(fetched.keep_records(max), records, "{max}");
            let kept = (fetched.next_offset.get(), fetched.items.len());
            assert_eq!(kept, (next, count), "{max}");
        }
    }

    #[test]
    fn publish_and_its_answer_round_trip() {
        let id = TopicId::from_bytes([7; 16]);
        let mut body = Publish::header(id, LeaderEpoch::new(3)).to_vec();
        body.extend_from_slice(b"batch");
        let publish = Publish::decode(Bytes::from(body)).expect("whole");
        assert_eq!(
            (publish.topic, publish.epoch.get(), &publish.batch[..]),
            (id, 3, &b"batch"[..])
        );
        let answer = Published {
            base_offset: Offset::new(5),
            end_offset: Offset::new(9),
            durability: Durability::Os,
            duplicate: true,
        };
        assert_eq!(
            Published::decode(Bytes::copy_from_slice(&answer.encode())),
            Ok(answer)
        );
    }
}
