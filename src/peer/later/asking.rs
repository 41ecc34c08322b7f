//! What is pending, and cancelling it.

use std::sync::Arc;

use super::Later;
use super::mover::Mover;
use super::reading::Letter;
use crate::limits;
use crate::protocol::api::{
    CancelLater, CancelledLater, LaterChoice, LaterMessage, LaterPage, LaterPlace, LaterTopic,
    ListLater,
};
use crate::protocol::error::ApiError;
use crate::topic::later::{COMPANION, Due};
use crate::types::{IdDigest, Offset, TopicName};

/// A companion and its target by their names.
struct Names {
    topic: TopicName,
    stored_in: TopicName,
    is_gone: bool,
}

/// A message of a list before it is read.
struct Chosen {
    due: Due,
    from: usize,
}

impl Later {
    /// The movers a request is about.
    async fn asked(
        self: &Arc<Self>,
        topic: Option<&TopicName>,
    ) -> Result<Vec<Arc<Mover>>, ApiError> {
        self.discover().await?;
        Ok(match topic {
            Some(name) => {
                let id = self.store.id_of(name)?;
                self.mover(id).into_iter().collect()
            }
            None => self.all(),
        })
    }

    async fn names(&self, mover: &Mover) -> Result<Names, ApiError> {
        let stored_in = self.store.topic_name(mover.companion).await?;
        let target = self.store.topic_name(mover.target).await;
        let is_gone = target.is_err();
        let topic = target.or_else(|_| {
            let name = stored_in.as_str();
            let name = name.strip_prefix(COMPANION).unwrap_or(name);
            name.parse().map_err(ApiError::from)
        })?;
        Ok(Names {
            topic,
            stored_in,
            is_gone,
        })
    }

    /// Pending messages, the earliest first.
    pub async fn list(self: &Arc<Self>, request: ListLater) -> Result<LaterPage, ApiError> {
        let limit = (request.limit as usize).min(limits::DELAYED_PER_PAGE_MAX);
        let mut known = Vec::new();
        for mover in self.asked(request.topic.as_ref()).await? {
            let taken_in = {
                // What was acknowledged a moment ago is told of, too.
                let _turn = mover.turn.lock().await;
                self.take_in(&mover).await
            };
            match taken_in {
                Ok(()) => known.push((self.names(&mover).await?, mover)),
                // It went meanwhile.
                Err(ApiError::UnknownTopicId { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        known.sort_by(|(a, _), (b, _)| a.topic.cmp(&b.topic));
        let topics = match request.after {
            Some(_) => Vec::new(),
            None => {
                let told = known.iter().map(|(names, mover)| told_of(names, mover));
                let told = told.filter(|told| {
                    request.topic.is_some() || told.pending > 0 || told.kept_by.is_some()
                });
                told.take(limits::DELAYED_PER_PAGE_MAX).collect()
            }
        };
        let (mut after, mut window) = (request.after, limit);
        loop {
            let mut chosen = choose(&known, after.as_ref(), window + 1);
            let more = limit > 0 && chosen.len() > window;
            chosen.truncate(window);
            let last = chosen
                .last()
                .map(|last| place(&known[last.from].0, &last.due));
            let mut messages = self.messages(&known, chosen).await?;
            if more && messages.is_empty() {
                // None of these is there to be read, nor perhaps of many behind them; whoever asks goes on behind what
                // he was told.
                (after, window) = (last, limits::DELAYED_PER_PAGE_MAX);
                continue;
            }
            let more = more || messages.len() > limit;
            messages.truncate(limit);
            return Ok(LaterPage {
                messages,
                topics,
                more,
            });
        }
    }

    async fn messages(
        &self,
        known: &[(Names, Arc<Mover>)],
        chosen: Vec<Chosen>,
    ) -> Result<Vec<LaterMessage>, ApiError> {
        let mut messages = Vec::with_capacity(chosen.len());
        for Chosen { due, from } in chosen {
            let (names, mover) = &known[from];
            let (letters, _) = match self.letters(mover, &[due]).await {
                // It was delivered meanwhile, and its topic is gone.
                Err(ApiError::UnknownTopicId { .. }) => continue,
                read => read?,
            };
            messages.extend(letters.iter().map(|letter| shown(names, letter)));
        }
        Ok(messages)
    }

    /// Cancels pending messages, durably.
    pub async fn cancel(
        self: &Arc<Self>,
        request: CancelLater,
    ) -> Result<CancelledLater, ApiError> {
        if self.registrar.is_displaced() {
            return Err(ApiError::Displaced);
        }
        let mover = self.asked(Some(&request.topic)).await?.pop();
        let Some(mover) = mover else {
            return Ok(CancelledLater {
                cancelled: 0,
                too_late: false,
            });
        };
        let _turn = mover.turn.lock().await;
        self.take_in(&mover).await?;
        let wanted = {
            let inner = mover.lock();
            match &request.which {
                LaterChoice::Id(id) => inner.schedule.of_id(IdDigest::of(id)),
                LaterChoice::Number(number) => inner.schedule.of_number(*number),
                LaterChoice::All => inner.schedule.after(None).map(|(due, _)| *due).collect(),
            }
        };
        let cancelled = self.cancel_pending(&mover, &wanted).await?;
        let too_late = cancelled == 0 && self.was_there(&mover, &request.which).await?;
        Ok(CancelledLater {
            cancelled,
            too_late,
        })
    }

    /// Whether one that is not pending was stored before.
    async fn was_there(&self, mover: &Mover, which: &LaterChoice) -> Result<bool, ApiError> {
        match which {
            LaterChoice::Id(id) => {
                let digest = IdDigest::of(id);
                self.store.remembers_id(mover.companion, digest).await
            }
            LaterChoice::Number(number) => Ok(number.get() < mover.cursor()),
            LaterChoice::All => Ok(false),
        }
    }
}

/// The first messages behind a place, of all these.
fn choose(known: &[(Names, Arc<Mover>)], after: Option<&LaterPlace>, count: usize) -> Vec<Chosen> {
    let mut chosen = Vec::new();
    for (from, (names, mover)) in known.iter().enumerate() {
        let begin = after.map(|after| Due {
            at: after.at,
            number: Offset::ZERO,
            offset: Offset::ZERO,
        });
        let inner = mover.lock();
        // The very first place of that time is looked at again.
        let first = begin.and_then(|begin| inner.schedule.at(begin));
        let behind = first
            .into_iter()
            .chain(inner.schedule.after(begin).map(|(due, _)| *due));
        let behind = behind.filter(|due| after.is_none_or(|after| place(names, due) > *after));
        chosen.extend(behind.take(count).map(|due| Chosen { due, from }));
    }
    chosen.sort_by(|a, b| {
        let of = |chosen: &Chosen| place(&known[chosen.from].0, &chosen.due);
        of(a).cmp(&of(b))
    });
    chosen.truncate(count);
    chosen
}

fn place(names: &Names, due: &Due) -> LaterPlace {
    LaterPlace {
        at: due.at,
        stored_in: names.stored_in.clone(),
        number: due.number,
    }
}

fn told_of(names: &Names, mover: &Mover) -> LaterTopic {
    let inner = mover.lock();
    let schedule = &inner.schedule;
    let aside = match schedule.aside() {
        0 => None,
        aside => Some(format!(
            "its topic refuses {aside} of them for good, as it is now"
        )),
    };
    let kept_by = match (&inner.trouble, names.is_gone && !schedule.is_empty()) {
        (_, true) => Some("the topic was deleted".to_owned()),
        (Some(trouble), _) => Some(trouble.text.clone()),
        (None, _) => aside,
    };
    LaterTopic {
        topic: names.topic.clone(),
        topic_id: mover.target,
        stored_in: names.stored_in.clone(),
        pending: schedule.len() as u64,
        next: schedule.after(None).map(|(due, _)| due.at).next(),
        kept_by: kept_by.map(|mut text| {
            text.truncate(text.floor_char_boundary(limits::ERROR_SHOWN_BYTES));
            text
        }),
    }
}

fn shown(names: &Names, letter: &Letter) -> LaterMessage {
    let beginning = |bytes: &[u8]| bytes[..bytes.len().min(limits::DELAYED_SHOWN_BYTES)].to_vec();
    LaterMessage {
        topic: names.topic.clone(),
        stored_in: names.stored_in.clone(),
        number: letter.due.number,
        at: letter.due.at,
        timestamp: letter.timestamp,
        id: letter.id().map(beginning),
        key: letter.key.as_deref().map(beginning),
        payload: beginning(&letter.value),
        payload_bytes: letter.value.len() as u64,
    }
}
