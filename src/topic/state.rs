//! Everything a peer knows: itself, its topics, its sealed segments.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Bound;

use super::consumers::ConsumerGroupRow;
use super::model::Topic;
use super::producers;
use super::rows::{PeerRow, Row, RowKey, SegmentRow, TopicRow};
use crate::limits;
use crate::protocol::error::ApiError;
use crate::time::Timestamp;
use crate::types::{RememberIds, StateNumber, SubscriptionName, TopicId, TopicName};

/// A row as it is now, or that it is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowChange {
    /// Its name.
    pub key: RowKey,
    /// Its value; `None` deletes it.
    pub row: Option<Row>,
}

/// How many rows of each kind a state has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stock {
    /// Sealed and cold segments.
    pub segments: u64,
    /// Topics.
    pub topics: u64,
    /// Subscriptions of all topics.
    pub subscriptions: u64,
    /// Producers of all topics.
    pub producers: u64,
    /// Subscriptions of which it is known what moved them.
    pub histories: u64,
    /// Consumer groups of all topics.
    pub consumer_groups: u64,
    /// Pages of them.
    pub consumer_pages: u64,
    /// Pages of message ids of all topics.
    pub id_pages: u64,
    /// Message ids in them.
    pub ids: u64,
    /// Purges of keys that are under way.
    pub purges: u64,
}

impl Stock {
    /// All rows, that of the peer included.
    pub fn rows(&self) -> u64 {
        let of_topics = self.topics + self.subscriptions + self.producers + self.histories;
        let of_groups = self.consumer_groups + self.consumer_pages;
        1 + self.segments + of_topics + of_groups + self.id_pages + self.purges
    }
}

/// The whole state. Every change notes its row as *dirty*, for the catalog.
#[derive(Debug, Clone)]
pub struct State {
    peer: PeerRow,
    topics: HashMap<TopicId, Topic>,
    names: BTreeMap<TopicName, TopicId>,
    segments: BTreeMap<u64, SegmentRow>,
    dirty: HashSet<RowKey>,
}

impl State {
    /// The state of a peer that stores nothing yet.
    pub fn new(peer: PeerRow) -> Self {
        Self {
            peer,
            topics: HashMap::new(),
            names: BTreeMap::new(),
            segments: BTreeMap::new(),
            dirty: HashSet::from([RowKey::Peer]),
        }
    }

    /// Facts about the peer.
    pub fn peer(&self) -> &PeerRow {
        &self.peer
    }

    /// Changes facts about the peer.
    pub fn peer_mut(&mut self) -> &mut PeerRow {
        self.dirty.insert(RowKey::Peer);
        &mut self.peer
    }

    /// A topic by its id.
    pub fn topic(&self, id: TopicId) -> Result<&Topic, ApiError> {
        self.topics.get(&id).ok_or(ApiError::UnknownTopicId { id })
    }

    /// A topic by its id, to be changed; notes its row as dirty.
    pub fn topic_mut(&mut self, id: TopicId) -> Result<&mut Topic, ApiError> {
        let topic = self
            .topics
            .get_mut(&id)
            .ok_or(ApiError::UnknownTopicId { id })?;
        self.dirty.insert(RowKey::Topic(id));
        Ok(topic)
    }

    /// The id of the topic of that name.
    pub fn id_of(&self, name: &TopicName) -> Result<TopicId, ApiError> {
        self.names
            .get(name)
            .copied()
            .ok_or_else(|| ApiError::TopicNotFound { name: name.clone() })
    }

    /// All names in order, beginning there.
    pub fn names_from(
        &self,
        from: Bound<&TopicName>,
    ) -> impl Iterator<Item = (&TopicName, TopicId)> {
        self.names
            .range::<TopicName, _>((from, Bound::Unbounded))
            .map(|(name, &id)| (name, id))
    }

    /// All topics, in no order.
    pub fn topics(&self) -> impl Iterator<Item = &Topic> {
        self.topics.values()
    }

    /// Since when a producer must have published to be remembered, so that at most `max` of all topics are.
    /// `None` while there is room for all.
    pub fn producers_kept_since(&self, max: usize) -> Option<Timestamp> {
        let topics = self.topics.values().map(|topic| &topic.producers);
        producers::kept_since(topics, max)
    }

    /// Whether a topic may remember so many message ids, beside what the others do: what was promised to them is
    /// kept.
    pub fn check_ids(&self, id: TopicId, ids: RememberIds) -> Result<(), ApiError> {
        let refuse = |what: &str, reason: String| {
            let what = what.to_owned();
            Err(ApiError::InvalidArgument { what, reason })
        };
        let least_ms = limits::IDS_REMEMBERED_FOR_MIN.as_millis() as u64;
        if let Some(ms) = ids.for_ms.filter(|&ms| ms < least_ms) {
            let reason = format!("{ms} ms: {least_ms} ms or more are expected");
            return refuse("remember-ids-for", reason);
        }
        let most = limits::IDS_PER_TOPIC_MAX;
        if let Some(max) = ids.max.filter(|max| !(1..=most).contains(max)) {
            let reason = format!("{max}: 1 to {most} are expected");
            return refuse("remember-ids-max", reason);
        }
        if !ids.is_on() {
            return Ok(());
        }
        let others = self.topics.values().filter(|topic| topic.id != id);
        let others: u64 = others.map(|topic| topic.row.settings.ids.most()).sum();
        let room = limits::IDS_PER_PEER_MAX;
        match others + ids.most() > room {
            true => refuse(
                "remember-ids-max",
                format!(
                    "{} ids are wanted and {others} are promised to other topics: this peer remembers {room}",
                    ids.most()
                ),
            ),
            false => Ok(()),
        }
    }

    /// Sealed and cold segments by number.
    pub fn segments(&self) -> &BTreeMap<u64, SegmentRow> {
        &self.segments
    }

    /// Notes that a row not reached through [`topic_mut`](Self::topic_mut) changed.
    pub fn mark_dirty(&mut self, key: RowKey) {
        self.dirty.insert(key);
    }

    /// Adds a topic.
    pub fn create_topic(&mut self, id: TopicId, row: TopicRow) -> Result<(), ApiError> {
        if self.names.contains_key(&row.name) || self.topics.contains_key(&id) {
            return Err(ApiError::TopicExists { name: row.name });
        }
        if self.topics.len() >= limits::TOPICS_PER_PEER_MAX {
            return Err(ApiError::TooManyTopics {
                max: limits::TOPICS_PER_PEER_MAX as u64,
            });
        }
        self.put_topic(id, row);
        Ok(())
    }

    /// Gives a topic another name.
    pub fn rename_topic(&mut self, id: TopicId, new: TopicName) -> Result<(), ApiError> {
        if self.names.get(&new).is_some_and(|&holder| holder != id) {
            return Err(ApiError::TopicExists { name: new });
        }
        let mut row = self.topic(id)?.row.clone();
        row.name = new;
        self.put_topic(id, row);
        Ok(())
    }

    /// Removes a topic with all its rows.
    pub fn delete_topic(&mut self, id: TopicId) -> Result<Topic, ApiError> {
        let topic = self
            .topics
            .remove(&id)
            .ok_or(ApiError::UnknownTopicId { id })?;
        self.release_name(&topic.row.name, id);
        self.dirty.insert(RowKey::Topic(id));
        self.dirty.extend(topic.keys());
        Ok(topic)
    }

    /// Adds or replaces a segment.
    pub fn put_segment(&mut self, number: u64, row: SegmentRow) {
        self.segments.insert(number, row);
        self.dirty.insert(RowKey::Segment(number));
    }

    /// Removes a segment.
    pub fn remove_segment(&mut self, number: u64) -> Option<SegmentRow> {
        self.dirty.insert(RowKey::Segment(number));
        self.segments.remove(&number)
    }

    /// Takes the next state number of a topic, or of the peer for the zero id.
    pub fn take_state_number(&mut self, id: TopicId) -> StateNumber {
        let slot = match self.topics.get_mut(&id) {
            Some(topic) => &mut topic.row.state_number,
            None => &mut self.peer.state_number,
        };
        *slot = slot.next();
        let number = *slot;
        self.dirty.insert(if self.topics.contains_key(&id) {
            RowKey::Topic(id)
        } else {
            RowKey::Peer
        });
        number
    }

    /// The last state number of a topic, or of the peer for the zero id.
    pub fn state_number(&self, id: TopicId) -> Option<StateNumber> {
        if id.is_zero() {
            return Some(self.peer.state_number);
        }
        self.topics.get(&id).map(|topic| topic.row.state_number)
    }

    /// Sets the last state number, at replay: it never falls.
    pub fn set_state_number(&mut self, id: TopicId, number: StateNumber) {
        if id.is_zero() {
            self.peer.state_number = self.peer.state_number.max(number);
            self.dirty.insert(RowKey::Peer);
        } else if let Some(topic) = self.topics.get_mut(&id) {
            topic.row.state_number = topic.row.state_number.max(number);
            self.dirty.insert(RowKey::Topic(id));
        }
    }

    /// The value a row has now.
    pub fn row(&self, key: &RowKey) -> Option<Row> {
        match key {
            RowKey::Peer => Some(Row::Peer(self.peer.clone())),
            RowKey::Topic(id) => self
                .topics
                .get(id)
                .map(|topic| Row::Topic(topic.row.clone().into())),
            RowKey::Subscription(id, name) => self
                .topics
                .get(id)?
                .subscriptions
                .get(name)
                .cloned()
                .map(Row::Subscription),
            RowKey::Producer(id, producer) => self
                .topics
                .get(id)?
                .producers
                .get(producer)
                .cloned()
                .map(Row::Producer),
            RowKey::Segment(number) => self.segments.get(number).copied().map(Row::Segment),
            RowKey::History(id, name) => self
                .topics
                .get(id)?
                .histories
                .get(name)
                .cloned()
                .map(Row::History),
            RowKey::ConsumerGroup(id, name) => {
                let group = self.topics.get(id)?.consumers.group(name)?;
                Some(Row::ConsumerGroup(group.clone()))
            }
            RowKey::ConsumerPage(id, generation, page) => {
                let page = self.topics.get(id)?.consumers.page(*generation, *page)?;
                Some(Row::ConsumerPage(page.clone()))
            }
            RowKey::Ids(id, page) => self.topics.get(id)?.ids.page(*page).cloned().map(Row::Ids),
            RowKey::Purge(id, number) => {
                let purge = self.topics.get(id)?.purges.get(number);
                purge.copied().map(Row::Purge)
            }
        }
    }

    /// Applies a row of the journal or of the catalog. A deleted topic takes along what belongs to it,
    /// the row of a consumer group the pages that say nothing beside it.
    pub fn apply(&mut self, change: RowChange) {
        let RowChange { key, row } = change;
        match (&key, row) {
            (RowKey::Peer, Some(Row::Peer(row))) => self.peer = row,
            (RowKey::Topic(id), Some(Row::Topic(row))) => self.put_topic(*id, *row),
            (RowKey::Topic(id), None) => _ = self.delete_topic(*id),
            (RowKey::Subscription(id, name), row) => {
                if let Some(topic) = self.topics.get_mut(id) {
                    match row {
                        Some(Row::Subscription(row)) => {
                            _ = topic.subscriptions.insert(name.clone(), row)
                        }
                        _ => _ = topic.subscriptions.remove(name),
                    }
                }
            }
            (RowKey::History(id, name), row) => {
                if let Some(topic) = self.topics.get_mut(id) {
                    match row {
                        Some(Row::History(row)) => _ = topic.histories.insert(name.clone(), row),
                        _ => _ = topic.histories.remove(name),
                    }
                }
            }
            (RowKey::Producer(id, producer), row) => {
                if let Some(topic) = self.topics.get_mut(id) {
                    match row {
                        Some(Row::Producer(row)) => _ = topic.producers.insert(*producer, row),
                        _ => _ = topic.producers.remove(producer),
                    }
                }
            }
            (RowKey::ConsumerGroup(id, name), row) => {
                let row = match row {
                    Some(Row::ConsumerGroup(row)) => Some(row),
                    _ => None,
                };
                self.put_consumer_group(*id, name, row);
            }
            (RowKey::ConsumerPage(id, generation, page), row) => {
                if let Some(topic) = self.topics.get_mut(id) {
                    match row {
                        Some(Row::ConsumerPage(row)) => {
                            topic.consumers.put_page(*generation, *page, row)
                        }
                        _ => topic.consumers.remove_page(*generation, *page),
                    }
                }
            }
            (RowKey::Ids(id, page), row) => {
                if let Some(topic) = self.topics.get_mut(id) {
                    match row {
                        Some(Row::Ids(row)) => topic.ids.put(*page, row),
                        _ => topic.ids.forget(*page),
                    }
                }
            }
            (RowKey::Purge(id, number), row) => self.put_purge(*id, *number, row),
            (RowKey::Segment(number), Some(Row::Segment(row))) => self.put_segment(*number, row),
            (RowKey::Segment(number), None) => _ = self.remove_segment(*number),
            _ => {}
        }
        self.dirty.insert(key);
    }

    /// Puts the row of a consumer group, or removes it. Pages that say nothing beside it go with it.
    pub fn put_consumer_group(
        &mut self,
        id: TopicId,
        name: &SubscriptionName,
        row: Option<ConsumerGroupRow>,
    ) {
        if let Some(topic) = self.topics.get_mut(&id) {
            let gone = topic.consumers.put_group(name, row);
            let keys = gone.into_iter();
            let keys = keys.map(|(generation, page)| RowKey::ConsumerPage(id, generation, page));
            self.dirty.extend(keys);
            self.dirty.insert(RowKey::ConsumerGroup(id, name.clone()));
        }
    }

    fn put_purge(&mut self, id: TopicId, number: u64, row: Option<Row>) {
        if let Some(topic) = self.topics.get_mut(&id) {
            match row {
                Some(Row::Purge(row)) => _ = topic.purges.insert(number, row),
                _ => _ = topic.purges.remove(&number),
            }
        }
    }

    fn put_topic(&mut self, id: TopicId, row: TopicRow) {
        if let Some(old) = self.topics.get(&id) {
            let old = old.row.name.clone();
            self.release_name(&old, id);
        }
        self.names.insert(row.name.clone(), id);
        self.dirty.insert(RowKey::Topic(id));
        match self.topics.get_mut(&id) {
            Some(topic) => topic.row = row,
            None => _ = self.topics.insert(id, Topic::new(id, row)),
        }
    }

    /// Frees a name, unless another topic of the same group of entries has it already.
    fn release_name(&mut self, name: &TopicName, id: TopicId) {
        if self.names.get(name) == Some(&id) {
            self.names.remove(name);
        }
    }

    /// The names of all rows, a topic before what belongs to it.
    pub fn all_keys(&self) -> Vec<RowKey> {
        let mut keys = vec![RowKey::Peer];
        keys.extend(self.segments.keys().map(|&number| RowKey::Segment(number)));
        for topic in self.topics.values() {
            keys.push(RowKey::Topic(topic.id));
            keys.extend(topic.keys());
        }
        keys
    }

    /// How many rows there are.
    pub fn row_count(&self) -> u64 {
        self.stock().rows()
    }

    /// How many of what there are.
    pub fn stock(&self) -> Stock {
        let mut stock = Stock {
            segments: self.segments.len() as u64,
            topics: self.topics.len() as u64,
            ..Stock::default()
        };
        for topic in self.topics.values() {
            stock.subscriptions += topic.subscriptions.len() as u64;
            stock.producers += topic.producers.len() as u64;
            stock.histories += topic.histories.len() as u64;
            let (groups, pages) = topic.consumers.count();
            stock.consumer_groups += groups as u64;
            stock.consumer_pages += pages as u64;
            stock.id_pages += topic.ids.page_count() as u64;
            stock.ids += topic.ids.count();
            stock.purges += topic.purges.len() as u64;
        }
        stock
    }

    /// The rows that changed since the last call, as they are now.
    pub fn take_dirty(&mut self) -> Vec<RowChange> {
        let keys = std::mem::take(&mut self.dirty);
        keys.into_iter()
            .map(|key| RowChange {
                row: self.row(&key),
                key,
            })
            .collect()
    }

    /// Whether anything changed since the last [`take_dirty`](Self::take_dirty).
    pub fn is_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }
}
