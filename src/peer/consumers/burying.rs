//! Dead letters: the records that die, written to their topic in the same step that settles them (C6).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use super::Desks;
use super::desk::Desk;
use super::reading::span;
use crate::limits;
use crate::peer::creating::create_topic;
use crate::protocol::api::CreateTopic;
use crate::protocol::batch::{
    BatchBuilder, CheckedBatch, Compression, HEADER_BYTES, Header, OpenedBatch, RecordRef,
    RecordToSend,
};
use crate::protocol::data::FetchItem;
use crate::protocol::dead::Obituary;
use crate::protocol::error::ApiError;
use crate::topic::consumers::Dying;
use crate::types::{Offset, ProducerId, Sequence, TopicId, TopicName, TopicSettings};

/// What is dropped of a dead letter's own headers where they do not fit, in this order.
const DROPPED_IN_ORDER: [&str; 6] = [
    crate::protocol::dead::TIME,
    crate::protocol::dead::REASON,
    crate::protocol::dead::DELIVERIES,
    crate::protocol::dead::GROUP,
    crate::protocol::dead::OFFSET,
    crate::protocol::dead::TOPIC,
];

impl Desks {
    /// Begins to write dead letters, unless that is under way, or failed just now.
    pub(super) fn bury_at(self: &Arc<Self>, desk: &Arc<Desk>) {
        let mut inner = desk.lock();
        if inner.burying || !inner.group.has_dying() || Instant::now() < inner.bury_after {
            return;
        }
        inner.burying = true;
        drop(inner);
        let (desks, desk) = (self.clone(), desk.clone());
        tokio::spawn(async move {
            let outcome = loop {
                match desks.bury(&desk).await {
                    Ok(true) => {}
                    Ok(false) => break None,
                    Err(error) => break Some(error),
                }
            };
            let mut inner = desk.lock();
            inner.burying = false;
            if let Some(error) = outcome {
                let name = inner.group.options().dead_letters.clone();
                let (topic, group) = (desk.topic, &desk.name);
                tracing::warn!(%topic, %group, dead_letters = %name, %error, "dead letters cannot be written");
                inner.bury_after = Instant::now() + limits::DEAD_LETTERS_RETRIED_EVERY;
                inner.trouble = Some(format!("dead letters cannot be written to {name}: {error}"));
            } else {
                inner.trouble = None;
            }
        });
    }

    /// Writes some dead letters; whether there may be more.
    async fn bury(&self, desk: &Desk) -> Result<bool, ApiError> {
        let (dying, name) = {
            let inner = desk.open()?;
            let dying = inner.group.dying(limits::DEAD_LETTERS_AT_ONCE);
            (dying, inner.group.options().dead_letters.clone())
        };
        if dying.is_empty() {
            return Ok(false);
        }
        self.check_displaced()?;
        let target = self.dead_letter_topic(&name).await?;
        let (mut buried, batch) = self.letters(desk, dying).await?;
        let Some(batch) = batch else {
            return Ok(true);
        };
        buried.sort_unstable();
        let _turn = desk.turn.lock().await;
        let flush = {
            let mut inner = desk.open()?;
            // Some may have been discarded while their letters were made: those are settled and counted.
            if !buried.iter().all(|offset| inner.group.dies(*offset)) {
                return Ok(true);
            }
            inner.group.compose(&buried, desk.clock.now())
        };
        let Some(flush) = flush else {
            return Ok(true);
        };
        let group = (desk.topic, desk.name.clone());
        match self.store.bury(group, flush.clone(), (target, batch)).await {
            Ok(()) => {
                let mut inner = desk.lock();
                let now = desk.clock.now();
                for offset in &buried {
                    inner.group.bury(*offset, now);
                }
                desk.set_durable(flush.through);
                desk.decided(&mut inner);
                self.meters.dead_lettered(buried.len() as u64);
                Ok(true)
            }
            Err(error) => {
                desk.lock().group.undo(&flush);
                desk.flush_wanted.notify_one();
                if is_about_the_group(&error, desk.topic) {
                    desk.close(error.clone());
                }
                Err(error)
            }
        }
    }

    /// The topic dead letters go to, made if it is not there.
    async fn dead_letter_topic(&self, name: &TopicName) -> Result<TopicId, ApiError> {
        if let Ok(id) = self.store.id_of(name) {
            return Ok(id);
        }
        let request = CreateTopic {
            name: name.clone(),
            settings: TopicSettings::default(),
            if_not_exists: true,
        };
        // Two groups may want the same one.
        let _one_at_a_time = self.creating.lock().await;
        if let Ok(id) = self.store.id_of(name) {
            return Ok(id);
        }
        let parts = (&self.store, &*self.registrar, &*self.directory);
        Ok(create_topic(parts, request).await?.id)
    }

    /// A batch of dead letters, and whose they are: as many as fit. One that fits into none holds up no other.
    async fn letters(
        &self,
        desk: &Desk,
        dying: Vec<Dying>,
    ) -> Result<(Vec<Offset>, Option<CheckedBatch>), ApiError> {
        let topic = self.store.topic_name(desk.topic).await?;
        let mut builder = BatchBuilder::new(Compression::None);
        let mut buried = Vec::new();
        let mut batches = HashMap::new();
        let mut unwritable = None;
        let room = self.store.batch_bytes_max();
        for dead in dying {
            let found = self.record_at(desk, dead.offset, &mut batches).await?;
            let place = |base| u32::try_from(dead.offset.since(base)).unwrap_or(u32::MAX);
            let record = found
                .as_ref()
                .and_then(|(base, opened)| opened.record(place(*base)));
            let Some(record) = record else {
                // It was discarded, or is damaged: there is nothing to write.
                let piece = (dead.offset, dead.offset.next());
                desk.lock().group.lose(piece, desk.clock.now());
                continue;
            };
            let obituary = Obituary {
                reason: reason_of(&dead),
                deliveries: dead.deliveries,
                topic: topic.clone(),
                offset: dead.offset,
                group: desk.name.clone(),
                time: desk.clock.now().wall,
            };
            match push(&mut builder, &record, &obituary, room) {
                Pushed::In => buried.push(dead.offset),
                Pushed::Full => break,
                Pushed::Never(reason) => unwritable = Some(ApiError::BadBatch { reason }),
            }
        }
        if builder.is_empty() {
            return unwritable.map_or(Ok((buried, None)), Err);
        }
        let built = builder.build(ProducerId::zero(), Sequence::ZERO);
        let batch = built.and_then(|bytes| CheckedBatch::check(bytes, limits::MESSAGE_BYTES_MAX));
        Ok((buried, Some(batch?)))
    }

    /// The batch a record lies in, unpacked. None: it is gone.
    async fn record_at(
        &self,
        desk: &Desk,
        offset: Offset,
        batches: &mut HashMap<Offset, (u32, Arc<OpenedBatch>)>,
    ) -> Result<Option<(Offset, Arc<OpenedBatch>)>, ApiError> {
        let holds = |(base, (count, _)): &(&Offset, &(u32, Arc<OpenedBatch>))| {
            (**base..base.saturating_add((*count).into())).contains(&offset)
        };
        if let Some((base, (_, opened))) = batches.iter().find(holds) {
            return Ok(Some((*base, opened.clone())));
        }
        let as_of = self.unpacked.as_of();
        let read = self.store.stretch(desk.topic, offset, 1).await?;
        let Some(item @ FetchItem::Batch(stored)) = read.items.first() else {
            return Ok(None);
        };
        // One that was unpacked before may have more records than are left of it.
        let (first, end) = span(item);
        let count = u32::try_from(end.since(first)).unwrap_or(u32::MAX);
        let Some(opened) = self.opened(desk, (stored, as_of)) else {
            return Ok(None);
        };
        let base = stored.base_offset;
        // Those of the last few batches: dead letters often come from the same one.
        batches.clear();
        batches.insert(base, (count, opened.clone()));
        Ok(Some((base, opened)))
    }
}

fn reason_of(dead: &Dying) -> String {
    match (&dead.reason, dead.deliveries) {
        (Some(reason), _) => reason.to_string(),
        (None, 1) => "delivered once".to_owned(),
        (None, times) => format!("delivered {times} times"),
    }
}

/// Whether an error says that the group is not what it was, rather than where its dead letters go.
fn is_about_the_group(error: &ApiError, topic: TopicId) -> bool {
    match error {
        ApiError::UnknownTopicId { id } => *id == topic,
        ApiError::StaleGeneration { .. } | ApiError::ConsumerGroupNotFound { .. } => true,
        _ => false,
    }
}

enum Pushed {
    In,
    Full,
    Never(String),
}

/// Adds a dead letter: the record as it was, behind headers of its own. Where those do not fit, some are left out.
fn push(
    builder: &mut BatchBuilder,
    record: &RecordRef<'_>,
    obituary: &Obituary,
    room: usize,
) -> Pushed {
    let own = record.headers().map(|(name, value)| Header {
        name: name.to_owned(),
        value: Bytes::copy_from_slice(value),
    });
    let own: Vec<Header> = own.collect();
    let all = obituary.headers();
    let mut why = String::new();
    for dropped in 0..=DROPPED_IN_ORDER.len() {
        let without = &DROPPED_IN_ORDER[..dropped];
        let kept = all.iter().filter(|(name, _)| !without.contains(name));
        let kept = kept.map(|(name, value)| Header {
            name: (*name).to_owned(),
            value: Bytes::from(value.clone()),
        });
        let headers: Vec<Header> = kept.chain(own.iter().cloned()).collect();
        let letter = RecordToSend {
            timestamp: record.timestamp,
            key: record.key,
            headers: &headers,
            value: record.value,
        };
        let alone = HEADER_BYTES + letter.encoded_bytes(letter.timestamp);
        match letter.check(builder.count()) {
            Ok(()) if alone > room => why = format!("{alone} bytes, at most {room} can be stored"),
            Ok(()) if builder.push_within(&letter, limits::BATCH_BYTES_TARGET) => {
                return Pushed::In;
            }
            Ok(()) => return Pushed::Full,
            Err(error) => why = error.to_string(),
        }
    }
    Pushed::Never(why)
}
