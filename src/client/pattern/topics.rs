//! The topics that are followed: what is known of each, found by id and by name. Pure.

use std::collections::{BTreeMap, HashMap, VecDeque};

use crate::limits;
use crate::protocol::api::{Position, TopicEnd, TopicLocation};
use crate::types::{Address, Generation, Offset, TopicId, TopicName};

/// Where reading goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// There, as soon as its host has told where that is.
    Wanted(Position),
    /// At this offset: everything before it was handed out.
    At(Offset),
}

/// What is being done about a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Activity {
    /// Nothing: its host tells when there is more.
    Resting,
    /// It waits for its turn.
    Queued,
    /// A job works on it, or what the job brought is being handed out.
    Working,
    /// It cannot be read on.
    Stopped,
}

/// The durable subscription on a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cursor {
    pub generation: Generation,
    pub committed: Offset,
}

/// One topic.
#[derive(Debug, Clone)]
pub(super) struct Followed {
    pub name: TopicName,
    pub host: Address,
    pub place: Place,
    /// Where it ended when somebody last told.
    pub end: Offset,
    /// Where reading stops, if it does.
    pub goal: Option<Offset>,
    /// It was counted among those that reached it, or never will.
    pub is_counted: bool,
    pub cursor: Option<Cursor>,
    pub activity: Activity,
    /// It may be gone: that is found out first.
    pub is_doubted: bool,
    /// Its durable subscription is paused.
    pub is_paused: bool,
}

impl Followed {
    /// Whether there is something to be read, or to be found out first.
    pub fn wants_turn(&self) -> bool {
        match self.place {
            _ if self.is_doubted => true,
            Place::Wanted(_) => true,
            Place::At(_) if self.is_paused => false,
            Place::At(position) => position < self.goal.unwrap_or(self.end).min(self.end),
        }
    }

    /// Whether everything up to its goal was handed out.
    pub fn has_reached_goal(&self) -> bool {
        match (self.place, self.goal) {
            (Place::At(position), Some(goal)) => position >= goal,
            _ => false,
        }
    }

    /// Takes over what its host told. `finds`: a place that is still wanted is found by it, if that is possible.
    pub fn learn_end(&mut self, told: &TopicEnd, finds: bool) {
        self.end = self.end.max(told.end_offset);
        if finds
            && let Place::Wanted(position) = self.place
            && let Some(offset) = resolve(position, told)
        {
            self.place = Place::At(offset);
        }
    }
}

/// The place in a topic that holds so much; `None` if its host has to look.
fn resolve(position: Position, told: &TopicEnd) -> Option<Offset> {
    let (start, end) = (told.start_offset, told.end_offset);
    match position {
        Position::Beginning => Some(start),
        Position::End => Some(end),
        Position::Offset(offset) => Some(offset.clamp(start, end)),
        Position::Back(0) => Some(end),
        Position::Back(n) if n >= end.since(start) => Some(start),
        // An offset without a record is not counted.
        Position::Back(_) | Position::Time(_) => None,
    }
}

/// What a location said that was not known.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum News {
    /// Nothing.
    Known,
    /// A topic.
    New,
    /// It has another name, or another host.
    Changed,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Topics {
    by_id: HashMap<TopicId, Followed>,
    by_name: BTreeMap<TopicName, TopicId>,
    /// Where topics stood that are gone, the latest last: one may come back with a peer that was retired.
    left: HashMap<TopicId, Offset>,
    leaving: VecDeque<TopicId>,
}

impl Topics {
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    pub fn get(&self, id: TopicId) -> Option<&Followed> {
        self.by_id.get(&id)
    }

    pub fn get_mut(&mut self, id: TopicId) -> Option<&mut Followed> {
        self.by_id.get_mut(&id)
    }

    pub fn id_of(&self, name: &TopicName) -> Option<TopicId> {
        self.by_name.get(name).copied()
    }

    pub fn iter(&self) -> impl Iterator<Item = (TopicId, &Followed)> {
        self.by_id.iter().map(|(id, followed)| (*id, followed))
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Followed> {
        self.by_id.values_mut()
    }

    /// The topics at a host.
    pub fn at(&self, host: &Address) -> Vec<TopicId> {
        let there = self.by_id.iter().filter(|(_, topic)| topic.host == *host);
        there.map(|(id, _)| *id).collect()
    }

    /// Takes in where a topic is. One that was not followed begins at `place`, or where it was left.
    /// Whoever else had the name has lost it: that is the caller's to remove first.
    pub fn see(&mut self, location: &TopicLocation, place: Position) -> News {
        let (id, name) = (location.id, &location.name);
        if let Some(known) = self.by_id.get_mut(&id) {
            let is_renamed = known.name != *name;
            if is_renamed {
                let old = std::mem::replace(&mut known.name, name.clone());
                self.by_name.remove(&old);
                self.by_name.insert(name.clone(), id);
            }
            let is_moved = known.host != location.address;
            known.host = location.address.clone();
            return match is_renamed || is_moved {
                true => News::Changed,
                false => News::Known,
            };
        }
        let place = match self.left.remove(&id) {
            Some(offset) => Place::At(offset),
            None => Place::Wanted(place),
        };
        let followed = Followed {
            name: name.clone(),
            host: location.address.clone(),
            place,
            end: Offset::ZERO,
            goal: None,
            is_counted: false,
            cursor: None,
            activity: Activity::Resting,
            is_doubted: false,
            is_paused: false,
        };
        self.by_name.insert(name.clone(), id);
        self.by_id.insert(id, followed);
        News::New
    }

    /// Follows a topic no longer, and keeps its place for a while.
    pub fn remove(&mut self, id: TopicId) -> Option<Followed> {
        let gone = self.by_id.remove(&id)?;
        if self.by_name.get(&gone.name) == Some(&id) {
            self.by_name.remove(&gone.name);
        }
        // A durable place is kept by its subscription.
        if let Place::At(offset) = gone.place
            && gone.cursor.is_none()
        {
            self.left.insert(id, offset);
            self.leaving.push_back(id);
            if self.leaving.len() > limits::PATTERN_LEFT_MAX
                && let Some(first) = self.leaving.pop_front()
            {
                self.left.remove(&first);
            }
        }
        Some(gone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::api::PeerState;
    use crate::time::Timestamp;
    use crate::types::{LeaderEpoch, PeerId};

    fn location(name: &str, id: u8, port: u16) -> TopicLocation {
        TopicLocation {
            name: name.parse().expect("good"),
            id: TopicId::from_bytes([id; 16]),
            epoch: LeaderEpoch::new(1),
            peer: PeerId::from_bytes([1; 16]),
            peer_name: "p".parse().expect("good"),
            address: format!("127.0.0.1:{port}").parse().expect("good"),
            state: PeerState::Online,
            since: Timestamp::default(),
        }
    }

    fn told(id: u8, start: u64, end: u64) -> TopicEnd {
        TopicEnd {
            id: TopicId::from_bytes([id; 16]),
            start_offset: Offset::new(start),
            end_offset: Offset::new(end),
        }
    }

    #[test]
    fn a_topic_is_known_by_its_id_under_whatever_name_and_wherever() {
        let mut topics = Topics::default();
        let id = TopicId::from_bytes([1; 16]);
        let end = Position::End;
        assert_eq!(topics.see(&location("a", 1, 1), end), News::New);
        assert_eq!(topics.see(&location("a", 1, 1), end), News::Known);
        assert_eq!(topics.see(&location("b", 1, 1), end), News::Changed);
        assert_eq!(topics.see(&location("b", 1, 2), end), News::Changed);
        assert_eq!(topics.id_of(&"b".parse().expect("good")), Some(id));
        assert_eq!(topics.id_of(&"a".parse().expect("good")), None);
        assert_eq!(topics.len(), 1);
        assert_eq!(topics.at(&location("b", 1, 2).address), [id]);
    }

    #[test]
    fn what_comes_back_goes_on_where_it_was_left_and_what_is_made_anew_does_not() {
        let mut topics = Topics::default();
        let id = TopicId::from_bytes([1; 16]);
        topics.see(&location("a", 1, 1), Position::Beginning);
        topics.get_mut(id).expect("there").place = Place::At(Offset::new(7));
        topics.remove(id);
        topics.see(&location("a", 2, 1), Position::Beginning);
        let anew = topics.get(TopicId::from_bytes([2; 16])).expect("there");
        assert_eq!(anew.place, Place::Wanted(Position::Beginning));
        topics.remove(TopicId::from_bytes([2; 16]));
        topics.see(&location("a", 1, 1), Position::Beginning);
        let back = topics.get(id).expect("there");
        assert_eq!(back.place, Place::At(Offset::new(7)));
    }

    #[test]
    fn the_first_listing_finds_places_and_later_ends_do_not() {
        let mut topics = Topics::default();
        for (n, position, expected) in [
            (1, Position::Beginning, Some(10)),
            (2, Position::End, Some(50)),
            (3, Position::Back(5), None),
            (8, Position::Back(0), Some(50)),
            (4, Position::Back(99), Some(10)),
            (5, Position::Offset(Offset::new(3)), Some(10)),
            (6, Position::Offset(Offset::new(30)), Some(30)),
            (7, Position::Time(Timestamp::default()), None),
        ] {
            let id = TopicId::from_bytes([n; 16]);
            topics.see(&location(&format!("t{n}"), n, 1), position);
            let topic = topics.get_mut(id).expect("there");
            topic.learn_end(&told(n, 10, 40), false);
            assert_eq!(topic.place, Place::Wanted(position));
            topic.learn_end(&told(n, 10, 50), true);
            let found = match topic.place {
                Place::At(offset) => Some(offset.get()),
                Place::Wanted(_) => None,
            };
            assert_eq!(found, expected, "{position:?}");
            assert_eq!(topic.wants_turn(), expected != Some(50));
        }
    }

    #[test]
    fn a_goal_ends_reading() {
        let mut topics = Topics::default();
        topics.see(&location("a", 1, 1), Position::Beginning);
        let topic = topics.get_mut(TopicId::from_bytes([1; 16])).expect("there");
        topic.learn_end(&told(1, 0, 10), true);
        topic.goal = Some(topic.end);
        topic.learn_end(&told(1, 0, 20), false);
        assert!(topic.wants_turn() && !topic.has_reached_goal());
        topic.place = Place::At(Offset::new(10));
        assert!(!topic.wants_turn() && topic.has_reached_goal());
    }
}
