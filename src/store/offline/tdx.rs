//! The export format: topics with everything that belongs to them, in one stream of bytes.
//!
//! `docs/export-format.md` draws every byte. In short: sixteen bytes that say what it is and in
//! which version, then sections, each with its own checksum that covers its place in the file as
//! well, then a last section without which the file is not whole.
//!
//! ```text
//!   preamble | Export | (Topic Subscription* Batch* TopicEnd)* | End
//! ```
//!
//! The format knows nothing of slots, groups, rows or sled, so it outlives all of them. Record
//! batches are carried as they were published; their own format has a version of its own.
//!
//! Invariants
//! 1. Every byte is covered by a checksum, or is compared with the only value it may have.
//! 2. A file that was cut anywhere, or whose sections were reordered, left out or repeated, is not
//!    taken for a whole one.
//! 3. Nothing in the file decides what is reserved: lengths are bounded before they are believed.
//! 4. [`check`] accepts only what can be imported: offsets dense up to gaps, names once, bounds kept.

use std::collections::BTreeSet;
use std::io::{self, Read, Write};

use bytes::Bytes;
use thiserror::Error;

use crate::journal::crc32c;
use crate::limits;
use crate::protocol::batch::CheckedBatch;
use crate::time::Timestamp;
use crate::types::{
    Durability, Gap, GapReason, Generation, LeaderEpoch, Offset, PeerId, Retention,
    SubscriptionName, TopicId, TopicName, TopicSettings,
};

/// What an export begins with: a byte no text has, its name, and line ends that a transfer as text would change.
const MAGIC: &[u8; 8] = b"\x89TDX\r\n\x1a\n";
/// The version written, and the only one read.
pub const EXPORT_VERSION: u32 = 1;
const PREAMBLE_BYTES: u64 = 16;
const SECTION_HEADER_BYTES: usize = 12;

const EXPORT: u8 = 1;
const TOPIC: u8 = 2;
const SUBSCRIPTION: u8 = 3;
const BATCH: u8 = 4;
const TOPIC_END: u8 = 5;
const END: u8 = 6;

/// Why a file is no export, or not a whole one.
#[derive(Debug, Error)]
pub enum ExportFault {
    /// Something else.
    #[error("the file is no export: it does not begin like one")]
    Magic,
    /// Written by another version of the program.
    #[error(
        "the file has export format {found}, this program reads {EXPORT_VERSION}: use a program that knows {found}"
    )]
    Version {
        /// The version found.
        found: u32,
    },
    /// It ends too early.
    #[error("the file was cut: it ends at byte {at}, in the middle of an export")]
    Truncated {
        /// How long it is.
        at: u64,
    },
    /// Bytes changed, or sections are not where they were written.
    #[error("the checksum of the section at byte {at} does not match: the file was changed")]
    Checksum {
        /// Where the section begins.
        at: u64,
    },
    /// The checksum is right and what it says makes no sense.
    #[error("the section at byte {at} makes no sense: {what}")]
    Malformed {
        /// Where the section begins.
        at: u64,
        /// What is wrong.
        what: String,
    },
    /// Bytes after the end.
    #[error("there are bytes after the end of the export, from byte {at} on")]
    LeftOver {
        /// Where the export ends.
        at: u64,
    },
    /// The file could not be read.
    #[error("cannot read the export: {0}")]
    Io(#[from] io::Error),
}

/// Where an export comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportInfo {
    /// When it was made.
    pub created: Timestamp,
    /// The peer that held the topics.
    pub peer: PeerId,
    /// Its name.
    pub peer_name: String,
    /// The program that wrote it.
    pub program: String,
    /// Number of topics.
    pub topics: u32,
}

/// A topic without its records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportedTopic {
    /// Its id where it was; an import gives a new one.
    pub id: TopicId,
    /// Its name.
    pub name: TopicName,
    /// Leader epoch.
    pub epoch: LeaderEpoch,
    /// When it was created.
    pub created: Timestamp,
    /// Settings.
    pub settings: TopicSettings,
    /// First offset kept.
    pub start: Offset,
    /// Next offset to be given.
    pub end: Offset,
    /// Last generation given to a subscription.
    pub generation: Generation,
    /// When its last record was appended.
    pub last_append: Option<Timestamp>,
    /// Offsets in `[start, end)` without records, in order.
    pub gaps: Vec<Gap>,
}

/// A subscription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportedSubscription {
    /// Its name.
    pub name: SubscriptionName,
    /// Generation.
    pub generation: Generation,
    /// Next offset to read.
    pub committed: Offset,
    /// When it was made.
    pub created: Timestamp,
    /// When it was last committed.
    pub last_commit: Option<Timestamp>,
}

/// A record batch and where it stood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportedBatch {
    /// Offset of its first record.
    pub base: Offset,
    /// Leader epoch under which it was appended.
    pub epoch: LeaderEpoch,
    /// When it was appended.
    pub append_time: Timestamp,
    /// The batch as published.
    pub batch: Bytes,
}

/// What a topic's records come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TopicTotals {
    /// Subscriptions.
    pub subscriptions: u64,
    /// Batches.
    pub batches: u64,
    /// Records.
    pub records: u64,
    /// Bytes of the batches.
    pub bytes: u64,
}

/// One section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Section {
    /// First of all.
    Export(ExportInfo),
    /// A topic begins.
    Topic(ExportedTopic),
    /// A subscription of that topic.
    Subscription(ExportedSubscription),
    /// Some of its records.
    Batch(ExportedBatch),
    /// The topic ends.
    TopicEnd(TopicTotals),
    /// The export ends: how many topics and sections came before.
    End {
        /// Topics.
        topics: u32,
        /// Sections.
        sections: u64,
    },
}

// --- writing -------------------------------------------------------------------

/// Writes an export.
pub struct ExportWriter<W> {
    out: W,
    ordinal: u64,
}

impl<W: Write> ExportWriter<W> {
    /// Begins with the preamble.
    pub fn new(mut out: W) -> io::Result<Self> {
        out.write_all(MAGIC)?;
        out.write_all(&EXPORT_VERSION.to_le_bytes())?;
        out.write_all(&[0; 4])?;
        Ok(Self { out, ordinal: 0 })
    }

    /// Writes the next section.
    pub fn section(&mut self, section: &Section) -> io::Result<()> {
        let (kind, head) = encode(section);
        let batch: &[u8] = match section {
            Section::Batch(batch) => &batch.batch,
            _ => &[],
        };
        let length = u32::try_from(head.len() + batch.len()).expect("sections are bounded");
        let crc = section_crc(self.ordinal, kind, &[&head, batch]);
        self.out.write_all(&[kind, 0, 0, 0])?;
        self.out.write_all(&length.to_le_bytes())?;
        self.out.write_all(&crc.to_le_bytes())?;
        self.out.write_all(&head)?;
        self.out.write_all(batch)?;
        self.ordinal += 1;
        Ok(())
    }

    /// Writes the last section and hands everything on.
    pub fn finish(mut self, topics: u32) -> io::Result<W> {
        let sections = self.ordinal;
        self.section(&Section::End { topics, sections })?;
        self.out.flush()?;
        Ok(self.out)
    }
}

/// CRC-32C over the place in the file, the kind, the length and the body.
fn section_crc(ordinal: u64, kind: u8, pieces: &[&[u8]]) -> u32 {
    let length: usize = pieces.iter().map(|piece| piece.len()).sum();
    let mut covered = Vec::with_capacity(13 + length);
    covered.extend(ordinal.to_le_bytes());
    covered.push(kind);
    covered.extend(
        u32::try_from(length)
            .expect("sections are bounded")
            .to_le_bytes(),
    );
    pieces
        .iter()
        .for_each(|piece| covered.extend_from_slice(piece));
    crc32c(&covered)
}

/// The kind and the body; of a batch all but the batch itself.
fn encode(section: &Section) -> (u8, Vec<u8>) {
    let mut to = Vec::new();
    let kind = match section {
        Section::Export(info) => {
            to.extend(info.created.as_millis().to_le_bytes());
            to.extend(info.topics.to_le_bytes());
            to.extend(info.peer.to_bytes());
            put_text(&mut to, &info.peer_name);
            put_text(&mut to, &info.program);
            EXPORT
        }
        Section::Topic(topic) => {
            put_topic(&mut to, topic);
            TOPIC
        }
        Section::Subscription(subscription) => {
            put_text(&mut to, subscription.name.as_str());
            to.extend(subscription.generation.get().to_le_bytes());
            to.extend(subscription.committed.get().to_le_bytes());
            to.extend(subscription.created.as_millis().to_le_bytes());
            put_time(&mut to, subscription.last_commit);
            SUBSCRIPTION
        }
        Section::Batch(batch) => {
            to.extend(batch.base.get().to_le_bytes());
            to.extend(batch.epoch.get().to_le_bytes());
            to.extend(batch.append_time.as_millis().to_le_bytes());
            BATCH
        }
        Section::TopicEnd(totals) => {
            for number in [
                totals.subscriptions,
                totals.batches,
                totals.records,
                totals.bytes,
            ] {
                to.extend(number.to_le_bytes());
            }
            TOPIC_END
        }
        Section::End { topics, sections } => {
            to.extend(topics.to_le_bytes());
            to.extend(sections.to_le_bytes());
            END
        }
    };
    (kind, to)
}

fn put_topic(to: &mut Vec<u8>, topic: &ExportedTopic) {
    to.extend(topic.id.to_bytes());
    put_text(to, topic.name.as_str());
    to.extend(topic.epoch.get().to_le_bytes());
    to.extend(topic.created.as_millis().to_le_bytes());
    to.push(u8::from(topic.settings.durability == Durability::Os));
    let retention = topic.settings.retention;
    for bound in [retention.age_ms, retention.bytes, retention.records] {
        to.push(u8::from(bound.is_some()));
        to.extend(bound.unwrap_or(0).to_le_bytes());
    }
    to.extend(topic.start.get().to_le_bytes());
    to.extend(topic.end.get().to_le_bytes());
    to.extend(topic.generation.get().to_le_bytes());
    put_time(to, topic.last_append);
    let gaps = u32::try_from(topic.gaps.len()).expect("gaps are bounded by the section");
    to.extend(gaps.to_le_bytes());
    for gap in &topic.gaps {
        to.extend(gap.from.get().to_le_bytes());
        to.extend(gap.to.get().to_le_bytes());
        to.push(match gap.reason {
            GapReason::Discarded => 1,
            GapReason::Lost => 2,
            GapReason::Damaged => 3,
        });
    }
}

fn put_text(to: &mut Vec<u8>, text: &str) {
    let length = u16::try_from(text.len()).expect("names are short");
    to.extend(length.to_le_bytes());
    to.extend(text.as_bytes());
}

fn put_time(to: &mut Vec<u8>, time: Option<Timestamp>) {
    to.push(u8::from(time.is_some()));
    to.extend(time.unwrap_or_default().as_millis().to_le_bytes());
}

// --- reading -------------------------------------------------------------------

/// Reads an export, section by section.
pub struct ExportReader<R> {
    from: R,
    ordinal: u64,
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

type Field<T> = Result<T, String>;

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
            }),
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
            },
            start,
            end,
            generation,
            last_append,
            gaps,
        })
    }

    fn gap(&mut self) -> Field<Gap> {
        Ok(Gap {
            from: Offset::new(self.u64()?),
            to: Offset::new(self.u64()?),
            reason: match self.take(1)?[0] {
                1 => GapReason::Discarded,
                2 => GapReason::Lost,
                3 => GapReason::Damaged,
                other => return Err(format!("gap reason {other}")),
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

// --- checking ------------------------------------------------------------------

/// A topic of a checked export.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckedTopic {
    /// The topic.
    pub topic: ExportedTopic,
    /// Its subscriptions.
    pub subscriptions: Vec<ExportedSubscription>,
    /// What its records come to.
    pub totals: TopicTotals,
    /// Bytes of its largest batch.
    pub largest_batch: usize,
}

/// Everything in an export but the records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckedExport {
    /// Where it comes from.
    pub info: ExportInfo,
    /// Its topics.
    pub topics: Vec<CheckedTopic>,
}

/// Reads a whole export and checks all of it, records included.
///
/// # Errors
/// If anything in it is not as it should be.
pub fn check(from: impl Read) -> Result<CheckedExport, ExportFault> {
    let mut reader = ExportReader::new(from)?;
    let malformed = |at, what: String| ExportFault::Malformed { at, what };
    let Section::Export(info) = reader.section()? else {
        let what = "an export was expected to begin here".to_owned();
        return Err(malformed(PREAMBLE_BYTES, what));
    };
    let mut topics: Vec<CheckedTopic> = Vec::new();
    let mut names = BTreeSet::new();
    let mut open: Option<Checking> = None;
    loop {
        let (at, before) = (reader.at(), reader.ordinal);
        let fail = |what: &str| malformed(at, what.to_owned());
        match (reader.section()?, &mut open) {
            (Section::Topic(topic), None) => {
                if !names.insert(topic.name.clone()) {
                    return Err(fail("this topic came before"));
                }
                open = Some(Checking::begin(topic).map_err(|what| malformed(at, what))?);
            }
            (Section::Subscription(found), Some(open)) => {
                open.subscription(found)
                    .map_err(|what| malformed(at, what))?;
            }
            (Section::Batch(found), Some(open)) => {
                open.batch(found).map_err(|what| malformed(at, what))?;
            }
            (Section::TopicEnd(totals), Some(_)) => {
                let checked = open.take().expect("matched as open").end(totals);
                topics.push(checked.map_err(|what| malformed(at, what))?);
            }
            (
                Section::End {
                    topics: told,
                    sections,
                },
                None,
            ) => {
                let found = (topics.len(), topics.len(), before);
                if (told as usize, info.topics as usize, sections) != found {
                    return Err(fail("topics or sections are missing"));
                }
                return Ok(CheckedExport { info, topics });
            }
            _ => return Err(fail("it does not belong here")),
        }
    }
}

/// A topic while its sections come.
struct Checking {
    found: CheckedTopic,
    names: BTreeSet<SubscriptionName>,
    /// Every offset below is accounted for.
    at: Offset,
    last_time: Option<Timestamp>,
}

impl Checking {
    fn begin(topic: ExportedTopic) -> Field<Self> {
        if topic.start > topic.end {
            return Err(format!(
                "it begins at {} and ends at {}",
                topic.start, topic.end
            ));
        }
        let mut at = topic.start;
        for gap in &topic.gaps {
            if gap.from < at || gap.from >= gap.to || gap.to > topic.end {
                return Err(format!("the gap {}..{} is out of place", gap.from, gap.to));
            }
            at = gap.to;
        }
        Ok(Self {
            at: topic.start,
            found: CheckedTopic {
                topic,
                subscriptions: Vec::new(),
                totals: TopicTotals::default(),
                largest_batch: 0,
            },
            names: BTreeSet::new(),
            last_time: None,
        })
    }

    fn subscription(&mut self, found: ExportedSubscription) -> Field<()> {
        if self.found.totals.batches > 0 {
            return Err("subscriptions come before records".to_owned());
        }
        let topic = &self.found.topic;
        if found.committed > topic.end || found.generation > topic.generation {
            return Err(format!(
                "subscription {} is beyond the end or the generation of its topic",
                found.name
            ));
        }
        if !self.names.insert(found.name.clone()) {
            return Err(format!("subscription {} comes twice", found.name));
        }
        if self.names.len() > limits::SUBSCRIPTIONS_PER_TOPIC_MAX {
            return Err("too many subscriptions".to_owned());
        }
        self.found.totals.subscriptions += 1;
        self.found.subscriptions.push(found);
        Ok(())
    }

    fn batch(&mut self, found: ExportedBatch) -> Field<()> {
        let bytes = found.batch.len();
        let checked = CheckedBatch::check(found.batch, limits::MESSAGE_BYTES_MAX);
        let checked = checked.map_err(|error| error.to_string())?;
        let records = checked.header().record_count;
        let end = found.base.checked_add(u64::from(records));
        let end = end.ok_or_else(|| "the offsets overflow".to_owned())?;
        // The first batch may begin before the log start: it is kept whole.
        let first = self.found.totals.batches == 0 && found.base < self.found.topic.start;
        if !first {
            self.pass_gaps(found.base)?;
        }
        if end <= self.at || end > self.found.topic.end {
            return Err(format!("the batch {}..{end} is out of place", found.base));
        }
        if self.last_time.is_some_and(|last| found.append_time < last) {
            return Err("the append time falls".to_owned());
        }
        self.last_time = Some(found.append_time);
        self.at = end;
        self.found.largest_batch = self.found.largest_batch.max(bytes);
        self.found.totals.batches += 1;
        self.found.totals.records += u64::from(records);
        self.found.totals.bytes += bytes as u64;
        Ok(())
    }

    /// Goes on to `to`; what lies between must be gaps.
    fn pass_gaps(&mut self, to: Offset) -> Field<()> {
        while self.at < to {
            let gap = self.found.topic.gaps.iter().find(|gap| gap.from == self.at);
            match gap {
                Some(gap) => self.at = gap.to,
                None => return Err(format!("offsets {}..{to} are missing", self.at)),
            }
        }
        if self.at > to {
            return Err(format!("offset {to} comes twice"));
        }
        Ok(())
    }

    fn end(mut self, told: TopicTotals) -> Field<CheckedTopic> {
        self.pass_gaps(self.found.topic.end)?;
        if told != self.found.totals {
            return Err("parts of the topic are missing".to_owned());
        }
        Ok(self.found)
    }
}
