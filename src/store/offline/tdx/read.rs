//! Reading an export: sections as they come, each checked by itself.

use std::io::{self, Read};

use bytes::Bytes;

use super::{
    BATCH, CONSUMER_GROUP, CONSUMER_PAGE, END, EXPORT, EXPORT_VERSION, ExportFault, ExportInfo,
    ExportedBatch, ExportedGroup, ExportedHistory, ExportedPage, ExportedSubscription,
    ExportedTopic, Field, HISTORY, MAGIC, PREAMBLE_BYTES, SECTION_HEADER_BYTES, SUBSCRIPTION,
    Section, TOPIC, TOPIC_END, TopicTotals, section_crc,
};
use crate::limits;
use crate::protocol::api::{Author, ChangeKind, ConsumerGroupOptions, PlaceChange};
use crate::time::Timestamp;
use crate::topic::consumers::{ConsumerGroupRow, ConsumerPageRow, FailedRow};
use crate::types::{
    Compaction, Durability, Gap, GapReason, Generation, LeaderEpoch, Offset, PeerId, RememberIds,
    Retention, TopicId, TopicSettings, WhenFull,
};

/// Reads an export, section by section.
pub struct ExportReader<R> {
    from: R,
    pub(super) ordinal: u64,
    at: u64,
}

impl<R: Read> ExportReader<R> {
    /// Begins with the preamble.
    pub fn new(from: R) -> Result<Self, ExportFault> {
        let mut this = Self {
            from,
            ordinal: 0,
            at: 0,
        };
        let mut preamble = [0; PREAMBLE_BYTES as usize];
        let got = this.fill(&mut preamble)?;
        let known = got.min(MAGIC.len());
        if preamble[..known] != MAGIC[..known] || got == 0 {
            return Err(ExportFault::Magic);
        }
        if got < preamble.len() {
            return Err(ExportFault::Truncated { at: got as u64 });
        }
        let [.., a, b, c, d, e, f, g, h] = preamble;
        let found = u32::from_le_bytes([a, b, c, d]);
        if found != EXPORT_VERSION {
            return Err(ExportFault::Version { found });
        }
        if [e, f, g, h] != [0; 4] {
            return Err(ExportFault::Malformed {
                at: 0,
                what: "its zero field is not zero".to_owned(),
            });
        }
        this.at = PREAMBLE_BYTES;
        Ok(this)
    }

    /// Where the next section begins.
    pub fn at(&self) -> u64 {
        self.at
    }

    /// The next section. The last one is [`Section::End`]; that nothing follows it is checked here.
    pub fn section(&mut self) -> Result<Section, ExportFault> {
        let at = self.at;
        let mut header = [0; SECTION_HEADER_BYTES];
        self.fill_whole(&mut header, at)?;
        let [kind, zeros @ .., _, _, _, _, _, _, _, _] = header;
        let length = u32::from_le_bytes([header[4], header[5], header[6], header[7]]);
        let crc = u32::from_le_bytes([header[8], header[9], header[10], header[11]]);
        if zeros != [0; 3] || length as usize > limits::EXPORT_SECTION_BYTES_MAX {
            return Err(ExportFault::Checksum { at });
        }
        let mut body = vec![0; length as usize];
        self.fill_whole(&mut body, at + SECTION_HEADER_BYTES as u64)?;
        if section_crc(self.ordinal, kind, &[&body]) != crc {
            return Err(ExportFault::Checksum { at });
        }
        let mut fields = Fields {
            rest: Bytes::from(body),
        };
        let section = fields.section(kind).and_then(|section| {
            let left = fields.rest.len();
            match left {
                0 => Ok(section),
                _ => Err(format!("{left} bytes are left over")),
            }
        });
        let section = section.map_err(|what| ExportFault::Malformed { at, what })?;
        self.ordinal += 1;
        self.at = at + SECTION_HEADER_BYTES as u64 + u64::from(length);
        if matches!(section, Section::End { .. }) && self.fill(&mut [0])? > 0 {
            return Err(ExportFault::LeftOver { at: self.at });
        }
        Ok(section)
    }

    fn fill_whole(&mut self, target: &mut [u8], at: u64) -> Result<(), ExportFault> {
        let got = self.fill(target)?;
        if got < target.len() {
            return Err(ExportFault::Truncated {
                at: at + got as u64,
            });
        }
        Ok(())
    }

    fn fill(&mut self, target: &mut [u8]) -> io::Result<usize> {
        let mut got = 0;
        while got < target.len() {
            match self.from.read(&mut target[got..]) {
                Ok(0) => break,
                Ok(n) => got += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(got)
    }
}

/// Takes fields off a body.
struct Fields {
    rest: Bytes,
}

impl Fields {
    fn section(&mut self, kind: u8) -> Field<Section> {
        Ok(match kind {
            EXPORT => {
                let created = self.time()?;
                let topics = self.u32()?;
                Section::Export(ExportInfo {
                    created,
                    topics,
                    peer: PeerId::from_bytes(self.id()?),
                    peer_name: self.text()?,
                    program: self.text()?,
                })
            }
            TOPIC => Section::Topic(self.topic()?),
            SUBSCRIPTION => Section::Subscription(ExportedSubscription {
                name: self.text()?.parse().map_err(|e| format!("{e}"))?,
                generation: Generation::new(self.u64()?),
                committed: Offset::new(self.u64()?),
                created: self.time()?,
                last_commit: self.optional_time()?,
                paused: self.flag()?,
                expire_ms: self.optional()?,
            }),
            HISTORY => {
                let count = self.u32()?;
                let changes = (0..count).map(|_| self.change()).collect::<Field<_>>()?;
                Section::History(ExportedHistory { changes })
            }
            CONSUMER_GROUP => Section::ConsumerGroup(self.group()?),
            CONSUMER_PAGE => Section::ConsumerPage(self.page()?),
            BATCH => Section::Batch(ExportedBatch {
                base: Offset::new(self.u64()?),
                epoch: LeaderEpoch::new(self.u32()?),
                append_time: self.time()?,
                batch: std::mem::take(&mut self.rest),
            }),
            TOPIC_END => Section::TopicEnd(TopicTotals {
                subscriptions: self.u64()?,
                batches: self.u64()?,
                records: self.u64()?,
                bytes: self.u64()?,
            }),
            END => Section::End {
                topics: self.u32()?,
                sections: self.u64()?,
            },
            other => return Err(format!("unknown kind {other}")),
        })
    }

    fn topic(&mut self) -> Field<ExportedTopic> {
        let id = TopicId::from_bytes(self.id()?);
        let name = self.text()?.parse().map_err(|error| format!("{error}"))?;
        let epoch = LeaderEpoch::new(self.u32()?);
        let created = self.time()?;
        let durability = match self.flag()? {
            false => Durability::Fsync,
            true => Durability::Os,
        };
        let retention = Retention {
            age_ms: self.optional()?,
            bytes: self.optional()?,
            records: self.optional()?,
            interest: self.flag()?,
        };
        let when_full = match self.flag()? {
            false => WhenFull::DiscardOldest,
            true => WhenFull::Refuse,
        };
        let ids = RememberIds {
            for_ms: self.optional()?,
            max: self.optional()?,
        };
        let compaction = Compaction {
            on: self.flag()?,
            tombstone_age_ms: self.optional()?,
        };
        let (start, end) = (Offset::new(self.u64()?), Offset::new(self.u64()?));
        let generation = Generation::new(self.u64()?);
        let last_append = self.optional_time()?;
        let count = self.u32()?;
        let gaps = (0..count).map(|_| self.gap()).collect::<Field<_>>()?;
        Ok(ExportedTopic {
            id,
            name,
            epoch,
            created,
            settings: TopicSettings {
                durability,
                retention,
                when_full,
                ids,
                compaction,
            },
            start,
            end,
            generation,
            last_append,
            gaps,
        })
    }

    fn group(&mut self) -> Field<ExportedGroup> {
        let name = self.text()?.parse().map_err(|error| format!("{error}"))?;
        let (generation, floor) = (Generation::new(self.u64()?), Offset::new(self.u64()?));
        let (created, last_settled) = (self.time()?, self.optional_time()?);
        let (acknowledged, dead, skipped) = (self.u64()?, self.u64()?, self.u64()?);
        let ack_deadline_ms = self.u64()?;
        let (deliveries_max, unacked_max) = (self.u32()?, self.u32()?);
        let ordered_by_key = self.flag()?;
        let dead_letters = self.text()?.parse().map_err(|error| format!("{error}"))?;
        let steps = self.take(1)?[0];
        let backoff_ms = (0..steps).map(|_| self.u64()).collect::<Field<_>>()?;
        let options = ConsumerGroupOptions {
            ack_deadline_ms,
            deliveries_max,
            backoff_ms,
            unacked_max,
            ordered_by_key,
            dead_letters,
        };
        let row = ConsumerGroupRow {
            acknowledged,
            dead,
            skipped,
            last_settled,
            ..ConsumerGroupRow::new(generation, floor, options, created)
        };
        Ok(ExportedGroup { name, row })
    }

    fn page(&mut self) -> Field<ExportedPage> {
        let page = self.u64()?;
        let settled = [self.u64()?, self.u64()?, self.u64()?, self.u64()?];
        let count = u16::from_le_bytes(self.array()?);
        let failed = (0..count).map(|_| self.failed()).collect::<Field<_>>()?;
        let row = ConsumerPageRow { settled, failed };
        Ok(ExportedPage { page, row })
    }

    fn failed(&mut self) -> Field<FailedRow> {
        let (at, dies, times) = (self.take(1)?[0], self.flag()?, self.u32()?);
        let mut failed = FailedRow::new(at, times, dies);
        failed.until = self.time()?;
        failed.delay_ms = self.u32()?;
        match failed.times() == times {
            true => Ok(failed),
            false => Err(format!("it failed {times} times")),
        }
    }

    fn gap(&mut self) -> Field<Gap> {
        Ok(Gap {
            from: Offset::new(self.u64()?),
            to: Offset::new(self.u64()?),
            reason: {
                let number = self.take(1)?[0];
                let reason = GapReason::numbered(number);
                reason.ok_or_else(|| format!("gap reason {number}"))?
            },
        })
    }

    fn change(&mut self) -> Field<PlaceChange> {
        Ok(PlaceChange {
            when: self.time()?,
            kind: match self.take(1)?[0] {
                1 => ChangeKind::Created,
                2 => ChangeKind::Seek,
                3 => ChangeKind::Undo,
                other => return Err(format!("kind of change {other}")),
            },
            from: self.optional()?.map(Offset::new),
            to: Offset::new(self.u64()?),
            generation: Generation::new(self.u64()?),
            author: Author {
                client: self.text()?,
                address: self.text()?,
            },
        })
    }

    fn take(&mut self, bytes: usize) -> Field<Bytes> {
        if bytes > self.rest.len() {
            return Err("it ends too early".to_owned());
        }
        Ok(self.rest.split_to(bytes))
    }

    fn array<const N: usize>(&mut self) -> Field<[u8; N]> {
        let bytes = self.take(N)?;
        Ok(bytes[..].try_into().expect("as many as were taken"))
    }

    fn id(&mut self) -> Field<[u8; 16]> {
        self.array()
    }

    fn u32(&mut self) -> Field<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Field<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn time(&mut self) -> Field<Timestamp> {
        Ok(Timestamp::from_millis(i64::from_le_bytes(self.array()?)))
    }

    fn flag(&mut self) -> Field<bool> {
        match self.take(1)?[0] {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(format!("flag {other}")),
        }
    }

    fn optional(&mut self) -> Field<Option<u64>> {
        let (there, value) = (self.flag()?, self.u64()?);
        match (there, value) {
            (false, 1..) => Err("a value that is said not to be there".to_owned()),
            _ => Ok(there.then_some(value)),
        }
    }

    fn optional_time(&mut self) -> Field<Option<Timestamp>> {
        let (there, value) = (self.flag()?, self.time()?);
        if !there && value != Timestamp::default() {
            return Err("a time that is said not to be there".to_owned());
        }
        Ok(there.then_some(value))
    }

    fn text(&mut self) -> Field<String> {
        let length = u16::from_le_bytes(self.array()?);
        let bytes = self.take(usize::from(length))?;
        String::from_utf8(bytes.to_vec()).map_err(|_| "a text that is not UTF-8".to_owned())
    }
}
