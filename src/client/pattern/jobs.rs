//! What is done beside the one task that follows: asking and waiting. A job holds nothing that is
//! lost with it; whoever started it may drop it at any moment.

use std::time::Duration;

use crate::client::cluster::Lane;
use crate::client::{Client, ClientError, Delivery, Subscriber, SubscriberOptions};
use crate::limits;
use crate::net::{CallError, Connection};
use crate::protocol::api::{
    Changes, ListTopics, Position, SubscriptionInfo, TopicEnd, TopicLocation, WatchEnds,
    WatchSubscriptions,
};
use crate::protocol::error::ApiError;
use crate::types::{Address, Offset, SubscriptionName, TopicId, TopicName, TopicPattern};

/// What a job came back with.
pub(super) enum Outcome {
    /// What the index, or somebody in its place, says there is.
    Found(Discovery),
    /// What a host says of its topics' ends.
    Ends(Address, Result<Ends, ClientError>),
    /// On which topics of a host the durable subscription is paused.
    Attended(Address, Result<Vec<TopicId>, ClientError>),
    /// Where reading of a topic begins.
    Placed(TopicId, Result<Placed, ClientError>),
    /// What came of a topic, and its reader.
    Read(TopicId, Box<Subscriber>, Result<Vec<Delivery>, ClientError>),
    /// The host of a topic that was being read, or was to be, is away.
    Away(TopicId),
    /// A topic cannot be read.
    NotOpened(TopicId, ClientError),
    /// What became of a topic that may be gone.
    Looked(TopicId, Looked),
}

/// Where a topic is, and whether its host itself says so.
pub(super) type Looked = (Result<TopicLocation, ClientError>, bool);

/// What there is.
pub(super) enum Discovery {
    /// Everything that matches, as of that version of the index.
    All(u64, Vec<TopicLocation>),
    /// What changed since the version that was known.
    Changed(Changes),
    /// No index answers; a peer told what it knows.
    Some(Vec<TopicLocation>),
    /// Nobody answers.
    Nothing,
}

/// The ends of topics at a host.
pub(super) struct Ends {
    /// The connection on which the version means something.
    pub connection: Connection,
    pub version: u64,
    /// Whether these are all topics of the host that match.
    pub all: bool,
    pub ends: Vec<TopicEnd>,
}

/// Where a topic's reading begins.
pub(super) enum Placed {
    /// Through this subscription.
    Durable(SubscriptionInfo),
    /// At this offset; and where the topic ends.
    Passing(Offset, Offset),
}

/// What there is that matches, as told by an index server.
async fn list(client: &Client, pattern: &TopicPattern) -> Result<Vec<TopicLocation>, ClientError> {
    let mut all: Vec<TopicLocation> = Vec::new();
    loop {
        let request = ListTopics {
            pattern: pattern.clone(),
            after: all.last().map(|topic| topic.name.clone()),
            limit: limits::PAGE_ENTRIES_MAX as u32,
        };
        let asked = client.cluster.ask_index(&request, limits::ANSWER_TIMEOUT);
        let page = asked.await?;
        let is_last = !page.more || page.topics.is_empty();
        all.extend(page.topics);
        if is_last {
            return Ok(all);
        }
    }
}

/// Waits for news of the index after a version, or asks for everything.
pub(super) async fn discover(
    client: Client,
    pattern: TopicPattern,
    (version, pause): (Option<u64>, Duration),
) -> Discovery {
    tokio::time::sleep(pause).await;
    let wait = match version {
        Some(_) => limits::PATTERN_WAIT,
        None => Duration::ZERO,
    };
    let told = client.watch(version.unwrap_or(0), &pattern, wait).await;
    if let Ok(changes) = &told
        && (changes.reset || version.is_none())
    {
        // Listed after the version was told, so that nothing falls between the two.
        if let Ok(all) = list(&client, &pattern).await {
            return Discovery::All(changes.version, all);
        }
    } else if let Ok(changes) = told {
        return Discovery::Changed(changes);
    }
    match client.list_topics(&pattern).await {
        Ok(some) => Discovery::Some(some),
        Err(_) => Discovery::Nothing,
    }
}

/// Waits for ends at a host to move; without a connection asks for all ends.
pub(super) async fn watch_ends(
    client: Client,
    (host, pattern): (Address, TopicPattern),
    known: Option<(Connection, u64)>,
    pause: Duration,
) -> Result<Ends, ClientError> {
    tokio::time::sleep(pause).await;
    let (connection, version) = match known.filter(|(connection, _)| !connection.is_closed()) {
        Some(known) => known,
        None => {
            let dialled = client.cluster.connection(&host, Lane::Control).await;
            (dialled.map_err(ClientError::of_read)?, 0)
        }
    };
    // All ends are told at once.
    let wait = match version {
        0 => Duration::ZERO,
        _ => limits::PATTERN_WAIT,
    };
    let mut asked = WatchEnds {
        version,
        pattern,
        after: None,
        max_wait_ms: wait.as_millis() as u32,
    };
    let mut told = Ends {
        connection,
        version,
        all: false,
        ends: Vec::new(),
    };
    loop {
        let answer = told
            .connection
            .call(&asked, wait + limits::PATTERN_PATIENCE);
        let answer = answer.await.map_err(|error| {
            if matches!(error, CallError::TimedOut { .. }) {
                told.connection.close();
            }
            ClientError::of_read(error)
        })?;
        if asked.after.is_none() {
            (told.version, told.all) = (answer.version, answer.all);
        }
        told.ends.extend(answer.ends);
        match answer.next {
            // The pages of a listing are of no version.
            Some(next) if answer.all => (asked.version, asked.after) = (0, Some(next)),
            _ => return Ok(told),
        }
    }
}

/// Waits until the subscriptions are paused on other topics of a host than is known.
pub(super) async fn attend(
    client: Client,
    host: &Address,
    watch: WatchSubscriptions,
    pause: Duration,
) -> Result<Vec<TopicId>, ClientError> {
    tokio::time::sleep(pause).await;
    let dialled = client.cluster.connection(host, Lane::Attend).await;
    let connection = dialled.map_err(ClientError::of_read)?;
    let wait = Duration::from_millis(watch.max_wait_ms.into());
    let answer = connection.call(&watch, wait + limits::PATTERN_PATIENCE);
    let answer = answer.await.map_err(|error| {
        if matches!(error, CallError::TimedOut { .. }) {
            connection.close();
        }
        ClientError::of_read(error)
    })?;
    Ok(answer.paused)
}

/// Finds where the reading of a topic begins, making the durable subscription if there is none.
pub(super) async fn place(
    client: Client,
    (id, topic): (TopicId, TopicName),
    name: Option<SubscriptionName>,
    position: Position,
) -> Result<Placed, ClientError> {
    let working = async {
        let (found, placed) = match &name {
            Some(name) => {
                let made = client.create_subscription(&topic, name, position, true);
                let made = made.await?;
                (made.topic_id, Placed::Durable(made))
            }
            None => {
                let found = client.find_offset(&topic, position).await?;
                (found.id, Placed::Passing(found.offset, found.end_offset))
            }
        };
        match found == id {
            true => Ok(placed),
            false => Err(ApiError::UnknownTopicId { id }.into()),
        }
    };
    within_patience(&topic, working).await
}

/// The subscription of that name, if the topic has one.
pub(super) async fn existing(
    client: Client,
    (id, topic): (TopicId, TopicName),
    name: SubscriptionName,
) -> Result<Option<SubscriptionInfo>, ClientError> {
    let asked = client.describe_subscription(&topic, &name);
    match within_patience(&topic, asked).await {
        Ok(found) if found.topic_id == id => Ok(Some(found)),
        Ok(_) => Err(ApiError::UnknownTopicId { id }.into()),
        Err(ClientError::Api(ApiError::SubscriptionNotFound { .. })) => Ok(None),
        Err(error) => Err(error),
    }
}

async fn within_patience<T>(
    topic: &TopicName,
    working: impl Future<Output = Result<T, ClientError>>,
) -> Result<T, ClientError> {
    let after = limits::PATTERN_PATIENCE;
    let timed_out = |_| ClientError::TimedOut {
        what: format!("the host of {topic}"),
        after,
    };
    let outcome = tokio::time::timeout(after, working).await;
    outcome.map_err(timed_out)?
}

/// What to read.
pub(super) struct Reading {
    pub id: TopicId,
    pub name: TopicName,
    /// The reader, if it is there already.
    pub reader: Option<Box<Subscriber>>,
    pub options: SubscriberOptions,
    /// Most records and gaps at once.
    pub max: usize,
}

/// Reads a topic from an offset on: waits for something, as long as its host is there.
pub(super) async fn read(client: Client, reading: Reading) -> Outcome {
    let id = reading.id;
    let mut reader = match reading.reader {
        Some(reader) => reader,
        None => {
            let opening = client.subscriber(&reading.name, reading.options);
            match tokio::time::timeout(limits::PATTERN_PATIENCE, opening).await {
                Ok(Ok(reader)) if reader.topic_id() == id => Box::new(reader),
                Ok(Ok(_)) => {
                    return Outcome::NotOpened(id, ApiError::UnknownTopicId { id }.into());
                }
                Ok(Err(error)) => return Outcome::NotOpened(id, error),
                Err(_) => return Outcome::Away(id),
            }
        }
    };
    let mut absence = reader.watch_absence();
    tokio::select! {
        biased;
        found = reader.next_many(reading.max) => Outcome::Read(id, reader, found),
        Ok(_) = absence.wait_for(|is_away| *is_away) => Outcome::Away(id),
    }
}

/// Looks for a topic that may be gone: its host knows best, then whoever answers lookups.
pub(super) async fn look(
    client: Client,
    id: TopicId,
    (name, host): (TopicName, Address),
) -> Outcome {
    let at_host = client.cluster.lookup_at(&name, &host);
    let found = match tokio::time::timeout(limits::PATTERN_PATIENCE, at_host).await {
        Ok(Ok(found)) if found.id == id => (Ok(found), true),
        _ => (client.lookup(&name).await, false),
    };
    Outcome::Looked(id, found)
}
