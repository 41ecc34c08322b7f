//! Checking a whole export: that the sections make sense together.

use std::collections::BTreeSet;
use std::io::Read;

use super::{
    ExportFault, ExportInfo, ExportReader, ExportedBatch, ExportedGroup, ExportedHistory,
    ExportedPage, ExportedSubscription, ExportedTopic, Field, PREAMBLE_BYTES, Section, TopicTotals,
};
use crate::limits;
use crate::protocol::api::{ConsumerGroupChanges, PlaceChange};
use crate::protocol::batch::{CheckedBatch, Piece, expand};
use crate::time::Timestamp;
use crate::topic::consumers::{changed_options, page_start};
use crate::types::{Offset, SubscriptionName};

/// A topic of a checked export.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckedTopic {
    /// The topic.
    pub topic: ExportedTopic,
    /// Its subscriptions.
    pub subscriptions: Vec<ExportedSubscription>,
    /// What moved them, of those of which it is known.
    pub histories: Vec<(SubscriptionName, ExportedHistory)>,
    /// Its consumer groups with their pages.
    pub groups: Vec<(ExportedGroup, Vec<ExportedPage>)>,
    /// What its records come to.
    pub totals: TopicTotals,
    /// Bytes of its largest batch.
    pub largest_batch: usize,
    /// What was taken out of its batches.
    pub thinned: ThinnedTopic,
}

/// What was taken out of the batches of a topic, and what will be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ThinnedTopic {
    /// Offsets that lie in its batches, not below its first, and have no record.
    pub removed: u64,
    /// The end of its last thinned batch.
    pub end: Offset,
    /// A batch has a time to live.
    pub has_ttl: bool,
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
            (Section::History(found), Some(open)) => {
                open.history(found).map_err(|what| malformed(at, what))?;
            }
            (Section::ConsumerGroup(found), Some(open)) => {
                open.group(found).map_err(|what| malformed(at, what))?;
            }
            (Section::ConsumerPage(found), Some(open)) => {
                open.page(found).map_err(|what| malformed(at, what))?;
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
                histories: Vec::new(),
                groups: Vec::new(),
                totals: TopicTotals::default(),
                largest_batch: 0,
                thinned: ThinnedTopic::default(),
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
        if self.found.subscriptions.len() >= limits::SUBSCRIPTIONS_PER_TOPIC_MAX {
            return Err("too many subscriptions".to_owned());
        }
        self.found.totals.subscriptions += 1;
        self.found.subscriptions.push(found);
        Ok(())
    }

    /// A history follows the subscription it is of.
    fn history(&mut self, found: ExportedHistory) -> Field<()> {
        let of = self.found.subscriptions.last();
        let of = of.filter(|_| self.found.totals.batches == 0);
        let before = self.found.histories.last().map(|(name, _)| name);
        let of = of.filter(|of| before != Some(&of.name));
        let of = of.ok_or_else(|| "a history follows no subscription".to_owned())?;
        let is_kept = |change: &PlaceChange| {
            change.author.client.len() <= limits::AUTHOR_BYTES_MAX
                && change.author.address.len() <= limits::AUTHOR_BYTES_MAX
        };
        let count = found.changes.len();
        let is_bounded = (1..=limits::HISTORY_CHANGES_MAX).contains(&count);
        let mut given = found.changes.iter().map(|change| change.generation);
        let leads_there = given.clone().is_sorted() && given.next_back() == Some(of.generation);
        if !is_bounded || !leads_there || !found.changes.iter().all(is_kept) {
            return Err(format!("the history of subscription {} is none", of.name));
        }
        self.found.histories.push((of.name.clone(), found));
        Ok(())
    }
    fn group(&mut self, found: ExportedGroup) -> Field<()> {
        if self.found.totals.batches > 0 {
            return Err("consumer groups come before records".to_owned());
        }
        let (topic, row, name) = (&self.found.topic, &found.row, &found.name);
        if row.floor > topic.end || row.generation > topic.generation {
            return Err(format!(
                "consumer group {name} is beyond the end or the generation of its topic"
            ));
        }
        let none = ConsumerGroupChanges::default();
        changed_options(&topic.name, &row.options, none).map_err(|error| error.to_string())?;
        if !self.names.insert(found.name.clone()) {
            return Err(format!("the name {name} comes twice"));
        }
        if self.found.groups.len() >= limits::CONSUMER_GROUPS_PER_TOPIC_MAX {
            return Err("too many consumer groups".to_owned());
        }
        self.found.groups.push((found, Vec::new()));
        Ok(())
    }

    fn page(&mut self, found: ExportedPage) -> Field<()> {
        let Some((group, pages)) = self.found.groups.last_mut() else {
            return Err("a page belongs to a consumer group".to_owned());
        };
        let after = pages
            .last()
            .map_or(group.row.floor_page(), |last| last.page + 1);
        let places = found.row.failed.windows(2);
        let rising = places.into_iter().all(|pair| pair[0].at < pair[1].at);
        let is_beyond = page_start(found.page) >= self.found.topic.end;
        if found.page < after || is_beyond || !rising || self.found.totals.batches > 0 {
            return Err(format!(
                "page {} of {} is out of place",
                found.page, group.name
            ));
        }
        pages.push(found);
        Ok(())
    }

    fn batch(&mut self, found: ExportedBatch) -> Field<()> {
        let bytes = found.batch.len();
        let checked = CheckedBatch::check_stored(found.batch, limits::MESSAGE_BYTES_MAX);
        let checked = checked.map_err(|error| error.to_string())?;
        let records = checked.header().record_count;
        let end = found.base.checked_add(checked.header().span().into());
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
        self.thinned(found.base, &checked)?;
        self.at = end;
        self.found.largest_batch = self.found.largest_batch.max(bytes);
        self.found.totals.batches += 1;
        self.found.totals.records += u64::from(records);
        self.found.totals.bytes += bytes as u64;
        Ok(())
    }

    /// Counts what a batch lacks.
    fn thinned(&mut self, base: Offset, batch: &CheckedBatch) -> Field<()> {
        let thinned = &mut self.found.thinned;
        thinned.has_ttl |= batch.header().has_ttl;
        if batch.header().thinned.is_none() {
            return Ok(());
        }
        thinned.end = base.saturating_add(batch.header().span().into());
        for piece in expand(base, batch).map_err(|error| error.to_string())? {
            if let Piece::Gap(gap) = piece {
                let from = gap.from.max(self.found.topic.start);
                thinned.removed += gap.to.since(from);
            }
        }
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
