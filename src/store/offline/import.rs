//! From an export to a store.
//!
//! The file is read twice. First all of it is checked, so that a file that was
//! cut or changed is refused before the directory is touched. Then its records
//! are written into cold segments, append times and batches unchanged, which
//! count for nothing until one state entry names them together with the topics
//! and subscriptions: a crash in between leaves free slots, and an import that
//! never happened.
//!
//! An imported topic gets a new id. Its offsets may go on differently from those
//! of the topic it was exported from, and an offset of a topic never has two
//! contents. So publishers begin anew too: what they had in flight elsewhere
//! cannot be told apart here.

use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use super::image::Image;
use super::tdx::{
    self, CheckedExport, CheckedTopic, ExportFault, ExportReader, ExportedBatch, ExportedGroup,
    ExportedPage, Section,
};
use super::work::{ColdFill, Written, change, state_bytes_max, stop};
use super::{DirKind, OfflineError, kind_of, refuse_if_used};
use crate::journal::{ENTRY_HEADER_BYTES, EntryKind, EntryToWrite, StateOp};
use crate::limits;
use crate::protocol::batch::BatchHeader;
use crate::protocol::error::ApiError;
use crate::store::command::Context;
use crate::store::{Store, StoreOptions, is_peer_dir, random_id};
use crate::topic::{
    HistoryRow, Row, RowChange, RowKey, State, SubscriptionRow, ThinnedRow, TopicRow,
};
use crate::types::{Gap, Offset, SubscriptionName, TopicId, TopicName};

/// A topic that was imported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imported {
    /// Its name.
    pub name: TopicName,
    /// The id it got.
    pub id: TopicId,
    /// First offset and end.
    pub offsets: (Offset, Offset),
    /// How much.
    pub totals: tdx::TopicTotals,
    /// Gaps that are not remembered as such, because a topic has at most so many: those offsets read as damaged.
    pub gaps_dropped: usize,
}

/// Brings the topics of an export into the store in `options.data_dir`, which is made if it is not there.
///
/// # Errors
/// If the file is not whole, a topic of that name exists, the disk has no room, or the store does not
/// open. Nothing of the import is visible then.
pub fn import(
    options: &StoreOptions,
    mut from: impl Read + Seek,
) -> Result<Vec<Imported>, OfflineError> {
    let begin = from.stream_position().map_err(ExportFault::Io)?;
    let checked = tdx::check(&mut from)?;
    refuse_unsuitable(options, &checked)?;
    from.seek(SeekFrom::Start(begin)).map_err(ExportFault::Io)?;
    let (store, _) = Store::open(&StoreOptions {
        reclaim: false,
        ..options.clone()
    })?;
    let imported = bring_in(&store, checked, from);
    let stopped = stop(&store);
    let imported = imported?;
    stopped?;
    Ok(imported)
}

/// All that can be told before anything is written.
fn refuse_unsuitable(options: &StoreOptions, export: &CheckedExport) -> Result<(), OfflineError> {
    let dir = &options.data_dir;
    refuse_if_used(dir)?;
    let mut slot_bytes = u32::try_from(options.slot_bytes).unwrap_or(u32::MAX);
    if is_peer_dir(dir) {
        let image = Image::open(dir)?;
        slot_bytes = image.journal.slot_bytes();
        for topic in &export.topics {
            let name = &topic.topic.name;
            if image.state().id_of(name).is_ok() {
                return Err(OfflineError::Refused(format!(
                    "topic {name} exists in {} already: rename one of the two, or import into another directory",
                    dir.display()
                )));
            }
        }
    } else {
        refuse_foreign(dir)?;
    }
    let bytes: u64 = export.topics.iter().map(|t| t.totals.bytes).sum();
    let batches: u64 = export.topics.iter().map(|t| t.totals.batches).sum();
    let needed = bytes + batches * ENTRY_HEADER_BYTES as u64 + 4 * u64::from(slot_bytes);
    let free = free_bytes(dir)?;
    if free < needed {
        return Err(OfflineError::Refused(format!(
            "{} has {free} bytes free, the import needs {needed}",
            dir.display()
        )));
    }
    let state: usize = export.topics.iter().map(state_bytes).sum();
    let segments = needed / u64::from(slot_bytes) + 1;
    let state = state
        + usize::try_from(segments)
            .unwrap_or(usize::MAX)
            .saturating_mul(256);
    if state > state_bytes_max(slot_bytes) {
        return Err(OfflineError::Refused(format!(
            "topics and subscriptions of the export take {state} bytes, one import into this store at most {}: export fewer topics at a time",
            state_bytes_max(slot_bytes)
        )));
    }
    Ok(())
}

/// A directory that holds something else is not to become a store by a slip of the hand.
fn refuse_foreign(dir: &Path) -> Result<(), OfflineError> {
    if !dir.exists() {
        return Ok(());
    }
    if let Ok(found @ DirKind::Index) = kind_of(dir) {
        return Err(OfflineError::WrongKind {
            dir: dir.to_owned(),
            found,
            what: "topics are imported into a peer's directory",
        });
    }
    let entries =
        std::fs::read_dir(dir).map_err(OfflineError::io(format!("read {}", dir.display())))?;
    let foreign = entries
        .flatten()
        .find(|entry| entry.file_name() != crate::catalog::LOCK_FILE);
    match foreign {
        None => Ok(()),
        Some(entry) => Err(OfflineError::Refused(format!(
            "{} holds no store and is not empty ({}): expected a peer's directory, an empty one, or none",
            dir.display(),
            entry.file_name().to_string_lossy()
        ))),
    }
}

fn free_bytes(dir: &Path) -> Result<u64, OfflineError> {
    let there = dir.ancestors().find(|path| path.exists());
    let there = there
        .filter(|path| *path != Path::new(""))
        .unwrap_or(Path::new("."));
    let stat = rustix::fs::statvfs(there)
        .map_err(|errno| OfflineError::io("ask for free space")(errno.into()))?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Bytes the rows of a topic take in the state entry, at most.
fn state_bytes(checked: &CheckedTopic) -> usize {
    let (row, subscriptions, _) = rows_of(checked);
    let groups: usize = (checked.groups.iter())
        .map(|(group, pages)| group_bytes(group, pages))
        .sum();
    let topic = put(RowKey::Topic(TopicId::zero()), Row::Topic(row.into()));
    let subscriptions = subscriptions.into_iter().map(|(name, row)| {
        let key = RowKey::Subscription(TopicId::zero(), name);
        put(key, Row::Subscription(row)).encoded_bytes()
    });
    let histories = histories_of(checked).map(|(name, row)| {
        let key = RowKey::History(TopicId::zero(), name);
        put(key, Row::History(row)).encoded_bytes()
    });
    let rest = histories.sum::<usize>() + groups;
    topic.encoded_bytes() + subscriptions.sum::<usize>() + rest
}

fn histories_of(
    checked: &CheckedTopic,
) -> impl Iterator<Item = (SubscriptionName, HistoryRow)> + '_ {
    checked.histories.iter().map(|(name, history)| {
        let changes = history.changes.clone();
        (name.clone(), HistoryRow { changes })
    })
}

fn group_bytes(group: &ExportedGroup, pages: &[ExportedPage]) -> usize {
    let (id, generation) = (TopicId::zero(), group.row.generation);
    let key = RowKey::ConsumerGroup(id, group.name.clone());
    let row = put(key, Row::ConsumerGroup(group.row.clone()));
    let pages = pages.iter().map(|page| {
        let key = RowKey::ConsumerPage(id, generation, page.page);
        put(key, Row::ConsumerPage(page.row.clone())).encoded_bytes()
    });
    row.encoded_bytes() + pages.sum::<usize>()
}

fn put(key: RowKey, row: Row) -> StateOp {
    StateOp::Put {
        key: key.encode(),
        value: row.encode(),
    }
}

/// The rows of an imported topic, and how many gaps did not fit.
fn rows_of(checked: &CheckedTopic) -> (TopicRow, Vec<(SubscriptionName, SubscriptionRow)>, usize) {
    let topic = &checked.topic;
    let (gaps, dropped) = bounded_gaps(&topic.gaps);
    let name = topic.name.clone();
    let row = TopicRow {
        start: topic.start,
        end: topic.end,
        bytes: checked.totals.bytes,
        generation: topic.generation,
        gaps,
        last_append: topic.last_append,
        thinned: ThinnedRow {
            removed: checked.thinned.removed,
            end: checked.thinned.end,
            has_ttl: checked.thinned.has_ttl,
            ..ThinnedRow::default()
        },
        ..TopicRow::new(name, topic.epoch, topic.settings, topic.created)
    };
    let subscriptions = checked.subscriptions.iter().map(|found| {
        let row = SubscriptionRow {
            generation: found.generation,
            committed: found.committed,
            created: found.created,
            last_commit: found.last_commit,
            paused: found.paused,
            expire_ms: found.expire_ms,
        };
        (found.name.clone(), row)
    });
    (row, subscriptions.collect(), dropped)
}

/// As many gaps as a topic remembers, the largest ones; the others are found when they are read.
pub(super) fn bounded_gaps(gaps: &[Gap]) -> (Vec<Gap>, usize) {
    let mut kept = gaps.to_vec();
    kept.sort_by_key(|gap| std::cmp::Reverse(gap.to.since(gap.from)));
    kept.truncate(limits::GAPS_PER_TOPIC_MAX);
    kept.sort_by_key(|gap| gap.from);
    let dropped = gaps.len() - kept.len();
    (kept, dropped)
}

fn bring_in(
    store: &Store,
    checked: CheckedExport,
    from: impl Read,
) -> Result<Vec<Imported>, OfflineError> {
    let mut ids: Vec<TopicId> = checked
        .topics
        .iter()
        .map(|_| TopicId::from_bytes(random_id()))
        .collect();
    // Cold segments hold topics in the order of their ids.
    ids.sort_unstable();
    let segments = write_records(store, &ids, &checked, from)?;
    let imported = ids.iter().zip(&checked.topics).map(|(id, topic)| Imported {
        name: topic.topic.name.clone(),
        id: *id,
        offsets: (topic.topic.start, topic.topic.end),
        totals: topic.totals,
        gaps_dropped: rows_of(topic).2,
    });
    let imported: Vec<Imported> = imported.collect();
    let topics: Vec<(TopicId, CheckedTopic)> = ids.into_iter().zip(checked.topics).collect();
    change(store, move |context| {
        let keys = put_all(context, &topics, &segments)?;
        Ok(((), keys))
    })?;
    Ok(imported)
}

fn write_records(
    store: &Store,
    ids: &[TopicId],
    checked: &CheckedExport,
    from: impl Read,
) -> Result<Vec<Written>, OfflineError> {
    let mut reader = ExportReader::new(from)?;
    let mut fill = ColdFill::new(store);
    let mut expected = ids.iter().zip(&checked.topics);
    let mut present: Option<(TopicId, Offset)> = None;
    loop {
        // The file was checked a moment ago; if it is another one now, it is not imported.
        let other = ExportFault::Checksum { at: reader.at() };
        match reader.section()? {
            Section::Topic(topic) => {
                let same = expected.next().filter(|(_, of)| of.topic == topic);
                let (id, _) = same.ok_or(other)?;
                present = Some((*id, Offset::ZERO));
            }
            Section::Batch(batch) => {
                let header = BatchHeader::parse(&batch.batch).ok();
                let (Some((topic, at)), Some(header)) = (present.as_mut(), header) else {
                    return Err(other.into());
                };
                if batch.base < *at {
                    return Err(other.into());
                }
                *at = batch.base.saturating_add(header.span().into());
                fill.push(&entry(*topic, &batch, &header, &[&batch.batch]))?;
            }
            Section::End { .. } => return fill.finish(),
            Section::Export(_)
            | Section::Subscription(_)
            | Section::History(_)
            | Section::ConsumerGroup(_)
            | Section::ConsumerPage(_)
            | Section::TopicEnd(_) => {}
        }
    }
}

fn entry<'a>(
    topic: TopicId,
    batch: &ExportedBatch,
    header: &BatchHeader,
    payload: &'a [&'a [u8]],
) -> EntryToWrite<'a> {
    EntryToWrite {
        kind: EntryKind::Records,
        topic,
        number: batch.base.get(),
        epoch: batch.epoch,
        records: header.span(),
        append_time: batch.append_time,
        payload,
        payload_crc: header.crc,
    }
}

/// A consumer group with its pages; the names of their rows, the group's first.
fn put_group(
    state: &mut State,
    id: TopicId,
    group: &ExportedGroup,
    pages: &[ExportedPage],
) -> Vec<RowKey> {
    state.put_consumer_group(id, &group.name, Some(group.row.clone()));
    let mut keys = vec![RowKey::ConsumerGroup(id, group.name.clone())];
    for page in pages {
        let key = RowKey::ConsumerPage(id, group.row.generation, page.page);
        let row = Some(Row::ConsumerPage(page.row.clone()));
        keys.push(key.clone());
        state.apply(RowChange { key, row });
    }
    keys
}

/// Topics, subscriptions, consumer groups and segments, all of them or none.
fn put_all(
    context: &mut Context<'_>,
    topics: &[(TopicId, CheckedTopic)],
    segments: &[Written],
) -> Result<Vec<RowKey>, ApiError> {
    for (_, topic) in topics {
        let name = &topic.topic.name;
        if context.state.id_of(name).is_ok() {
            return Err(ApiError::TopicExists { name: name.clone() });
        }
    }
    let there = context.state.topics().count();
    if there + topics.len() > limits::TOPICS_PER_PEER_MAX {
        return Err(ApiError::TooManyTopics {
            max: limits::TOPICS_PER_PEER_MAX as u64,
        });
    }
    let mut keys = Vec::new();
    for (id, checked) in topics {
        let (row, subscriptions, _) = rows_of(checked);
        context.state.create_topic(*id, row)?;
        keys.push(RowKey::Topic(*id));
        let topic = context.state.topic_mut(*id)?;
        for (name, row) in subscriptions {
            keys.push(RowKey::Subscription(*id, name.clone()));
            topic.subscriptions.insert(name, row);
        }
        for (name, row) in histories_of(checked) {
            keys.push(RowKey::History(*id, name.clone()));
            topic.histories.insert(name, row);
        }
        context.shared.publish_topic(topic, None);
        for (group, pages) in &checked.groups {
            keys.extend(put_group(context.state, *id, group, pages));
        }
    }
    keys.extend(segments.iter().map(|segment| segment.put(context)));
    Ok(keys)
}
