//! The beginning: which topics there are, where they end, and where reading each begins.

use tokio::task::JoinSet;

use super::jobs::{self, Discovery};
use super::topics::{Cursor, Place};
use super::{PatternStart, PatternSubscriber, Phase};
use crate::client::ClientError;
use crate::client::backoff::Backoff;
use crate::limits;
use crate::protocol::api::{PeerState, Position, SubscriptionInfo, TopicLocation};
use crate::time::Timestamp;
use crate::types::{Offset, SubscriptionName, TopicId, TopicName};

impl PatternSubscriber {
    pub(super) async fn start(&mut self) -> Result<(), ClientError> {
        let found = self.first_listing().await?;
        let place = self.options.from.unwrap_or(Position::End);
        for location in &found {
            self.take_in(location, place);
            if location.state != PeerState::Online
                && let Some(host) = self.hosts.get_mut(&location.address)
            {
                host.trouble.get_or_insert_with(Backoff::new);
            }
        }
        self.hear_all_hosts().await;
        if let Some(name) = self.options.name.clone() {
            self.resume(name).await;
        }
        self.place_unreached();
        self.phase = Phase::Placing;
        self.place_all().await;
        self.place_lost();
        self.phase = Phase::Following;
        let all: Vec<TopicId> = self.topics.iter().map(|(id, _)| id).collect();
        self.started.topics = all.len();
        let unreached = self.topics.iter().filter(|(_, topic)| !topic.is_counted);
        self.unreached = unreached.count();
        for id in all {
            self.set_goal(id);
            self.enqueue(id);
        }
        self.tell_away();
        Ok(())
    }

    async fn first_listing(&mut self) -> Result<Vec<TopicLocation>, ClientError> {
        let told = jobs::discover(
            self.client.clone(),
            self.pattern.clone(),
            (None, std::time::Duration::ZERO),
        );
        match told.await {
            Discovery::All(version, all) => {
                self.index.version = Some(version);
                self.index.knows_all = true;
                Ok(all)
            }
            Discovery::Some(some) => Ok(some),
            Discovery::Changed(_) | Discovery::Nothing => {
                self.client.list_topics(&self.pattern).await
            }
        }
    }

    /// Hears from each host where its topics end, or that it is away.
    async fn hear_all_hosts(&mut self) {
        let here = self.hosts.iter().filter(|(_, host)| !host.is_away());
        let mut waiting: Vec<_> = here.map(|(address, _)| address.clone()).collect();
        let mut asked = JoinSet::new();
        loop {
            while asked.len() < limits::PEERS_ASKED_AT_ONCE
                && let Some(address) = waiting.pop()
            {
                let (client, pattern) = (self.client.clone(), self.pattern.clone());
                asked.spawn(async move {
                    let of = (address.clone(), pattern);
                    let telling = jobs::watch_ends(client, of, None, std::time::Duration::ZERO);
                    let after = limits::PATTERN_PATIENCE;
                    let told = tokio::time::timeout(after, telling).await;
                    let told = told.unwrap_or_else(|_| {
                        let what = address.to_string();
                        Err(ClientError::TimedOut { what, after })
                    });
                    (address, told)
                });
            }
            match asked.join_next().await {
                Some(Ok((address, told))) => self.heard(&address, told),
                Some(Err(_)) => {}
                None => return,
            }
        }
    }

    /// Goes on where durable subscriptions of the name stand. Topics that have none begin where they were told to, or
    /// with what was stored since the name was first used: they were made since, or could not be reached then.
    async fn resume(&mut self, name: SubscriptionName) {
        let here = self.topics.iter().filter(|(_, topic)| {
            let host = self.hosts.get(&topic.host);
            host.is_some_and(|host| !host.is_away())
        });
        let mut waiting: Vec<(TopicId, TopicName)> =
            here.map(|(id, topic)| (id, topic.name.clone())).collect();
        let mut asked = JoinSet::new();
        let mut oldest: Option<Timestamp> = None;
        let mut lacking = Vec::new();
        loop {
            while asked.len() < limits::PATTERN_READERS_MAX
                && let Some(topic) = waiting.pop()
            {
                let (client, name, id) = (self.client.clone(), name.clone(), topic.0);
                asked.spawn(async move { (id, jobs::existing(client, topic, name).await) });
            }
            match asked.join_next().await {
                Some(Ok((id, Ok(Some(found))))) => {
                    let created = found.created;
                    oldest = Some(oldest.map_or(created, |oldest| oldest.min(created)));
                    self.started.resumed += 1;
                    self.go_on(id, &found);
                }
                Some(Ok((id, Ok(None)))) => lacking.push(id),
                Some(Ok((id, Err(error)))) => self.trouble_with(id, error),
                Some(Err(_)) => {}
                None => break,
            }
        }
        if let Some(oldest) = oldest {
            self.since = oldest;
            for id in lacking {
                if let Some(topic) = self.topics.get_mut(id) {
                    let place = of_unreached(self.options.from, oldest);
                    topic.place = Place::Wanted(place);
                }
            }
        }
    }

    /// Takes over where a durable subscription stands.
    pub(super) fn go_on(&mut self, id: TopicId, found: &SubscriptionInfo) {
        if let Some(topic) = self.topics.get_mut(id) {
            topic.cursor = Some(Cursor {
                generation: found.generation,
                committed: found.committed_offset,
            });
            topic.place = Place::At(found.committed_offset);
            topic.end = topic.end.max(found.end_offset);
            self.pause(id, found.paused);
        }
    }

    /// Topics of hosts that are away begin later, but where they would have now.
    fn place_unreached(&mut self) {
        let away = self.topics.iter().filter(|(_, topic)| {
            let host = self.hosts.get(&topic.host);
            matches!(topic.place, Place::Wanted(_)) && host.is_none_or(|host| host.is_away())
        });
        let away: Vec<TopicId> = away.map(|(id, _)| id).collect();
        self.started.away = away.len();
        for id in away {
            if let Some(topic) = self.topics.get_mut(id) {
                topic.place = Place::Wanted(of_unreached(self.options.from, self.since));
            }
        }
    }

    /// So do those whose hosts went away meanwhile.
    fn place_lost(&mut self) {
        let (from, since) = (self.options.from, self.since);
        for topic in self.topics.iter_mut() {
            topic.place = match topic.place {
                // As far back as it would have begun.
                Place::Wanted(Position::Back(n)) if topic.end > Offset::ZERO => {
                    let back = topic.end.get().saturating_sub(n);
                    Place::Wanted(Position::Offset(Offset::new(back)))
                }
                Place::Wanted(_) => Place::Wanted(of_unreached(from, since)),
                place => place,
            };
        }
    }

    /// Finds every place that can be found now.
    async fn place_all(&mut self) {
        let unplaced = self.topics.iter();
        let unplaced = unplaced.filter(|(_, topic)| matches!(topic.place, Place::Wanted(_)));
        let unplaced: Vec<TopicId> = unplaced.map(|(id, _)| id).collect();
        unplaced.into_iter().for_each(|id| self.enqueue(id));
        loop {
            self.fill_slots();
            if self.busy.is_empty() {
                return;
            }
            match self.jobs.join_next_with_id().await {
                Some(Ok((job, outcome))) => self.settle(job, outcome),
                Some(Err(error)) if error.is_panic() => {
                    std::panic::resume_unwind(error.into_panic())
                }
                Some(Err(_)) => {}
                None => return,
            }
        }
    }

    /// Where a topic begins that was not known at the start.
    pub(super) fn place_of_late(&self) -> Position {
        match self.index.knows_all {
            true => Position::Beginning,
            false => of_unknown(self.options.from, self.since),
        }
    }
}

/// Where a topic begins that was there at the start and could not be reached then.
fn of_unreached(from: Option<Position>, since: Timestamp) -> Position {
    match from {
        None | Some(Position::End) => Position::Time(well_before(since)),
        Some(place) => place,
    }
}

/// Where a topic begins of which it is not known whether it was there at the start.
fn of_unknown(from: Option<Position>, since: Timestamp) -> Position {
    match from {
        None | Some(Position::End) => Position::Time(well_before(since)),
        Some(Position::Time(time)) => Position::Time(time.min(well_before(since))),
        Some(Position::Beginning | Position::Offset(_) | Position::Back(_)) => Position::Beginning,
    }
}

/// So long before that no clock of the cluster takes a later record for an earlier one.
fn well_before(since: Timestamp) -> Timestamp {
    let apart = limits::PATTERN_CLOCKS_APART.as_millis() as i64;
    Timestamp::from_millis(since.as_millis().saturating_sub(apart))
}

impl PatternStart {
    /// Topics that had no subscription of the name and got one.
    pub fn made(&self) -> usize {
        self.topics.saturating_sub(self.resumed + self.away)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Offset;

    #[test]
    fn what_was_not_reached_begins_where_it_would_have() {
        let since = Timestamp::from_millis(1_000_000);
        let before = Position::Time(Timestamp::from_millis(940_000));
        assert_eq!(of_unreached(None, since), before);
        assert_eq!(of_unreached(Some(Position::End), since), before);
        let beginning = Position::Beginning;
        assert_eq!(of_unreached(Some(beginning), since), beginning);
        let offset = Position::Offset(Offset::new(3));
        assert_eq!(of_unreached(Some(offset), since), offset);
        // It may have been made since: then all of it counts.
        assert_eq!(of_unknown(Some(offset), since), beginning);
        assert_eq!(of_unknown(None, since), before);
        let early = Position::Time(Timestamp::from_millis(5));
        assert_eq!(of_unknown(Some(early), since), early);
        let late = Position::Time(since);
        assert_eq!(of_unknown(Some(late), since), before);
    }
}
