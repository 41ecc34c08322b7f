//! Requests to the index server: reading ones are answered from the directory,
//! all others go to the keeper.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::figures::IndexFigures;
use super::keeper::Waiting;
use super::published::Published;
use crate::limits;
use crate::net::{Call, Handling, Reply, Service, figures};
use crate::protocol::api::{
    Api, Changes, Done, Figures, HelloAnswer, ListPeers, ListTopics, Lookup, Metrics, PROTOCOL_MAX,
    Ping, Role, TopicPage, Watch,
};
use crate::protocol::codec;
use crate::protocol::error::ApiError;
use crate::protocol::frame::FrameHeader;
use crate::registry::Command;
use crate::types::{Address, PeerId};

/// Longest location in an answer, in bytes: what a long poll reserves for each.
const LOCATION_BYTES_MAX: usize =
    3 * 8 + 48 + limits::NAME_BYTES_MAX + limits::PEER_NAME_BYTES_MAX + limits::ADDRESS_BYTES_MAX;

pub(super) struct IndexService {
    published: Arc<Published>,
    figures: Arc<IndexFigures>,
    commands: mpsc::Sender<Waiting>,
    hello: HelloAnswer,
}

impl IndexService {
    pub(super) fn new(
        figures: Arc<IndexFigures>,
        commands: mpsc::Sender<Waiting>,
        indexes: Vec<Address>,
    ) -> Self {
        let small = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
        Self {
            published: figures.published.clone(),
            figures,
            commands,
            hello: HelloAnswer {
                protocol: PROTOCOL_MAX,
                role: Role::Index,
                node: PeerId::zero(),
                name: "index".to_owned(),
                server: concat!("tidings ", env!("CARGO_PKG_VERSION")).to_owned(),
                features: 0,
                frame_bytes_max: small(limits::FRAME_BYTES_MAX),
                message_bytes_max: small(limits::MESSAGE_BYTES_DEFAULT),
                requests_unanswered_max: small(limits::REQUESTS_UNANSWERED_MAX),
                publishes_unanswered_max: small(limits::PUBLISHES_UNANSWERED_MAX),
                indexes,
            },
        }
    }

    fn lookup(&self, call: &Call, reply: Reply) {
        let name = match call.decode() {
            Ok(Lookup { name, .. }) => name,
            Err(error) => return reply.error(&error),
        };
        let mut reply = Some(reply);
        let answer = |parts: &[&[u8]]| reply.take().map(|reply| reply.answer_copied(parts));
        self.published.read().answer(&name, answer);
        if let Some(reply) = reply {
            reply.error(&ApiError::TopicNotFound { name });
        }
    }

    /// Hands a command to the keeper, waiting in line where the queue is full.
    fn command(&self, command: Command, reply: Reply) -> Handling {
        match self.commands.try_send(Waiting::new(command, reply)) {
            Ok(()) => Handling::Answered,
            Err(mpsc::error::TrySendError::Closed(waiting)) => {
                waiting.refuse(&ApiError::ShuttingDown);
                Handling::Answered
            }
            Err(mpsc::error::TrySendError::Full(waiting)) => {
                let commands = self.commands.clone();
                Handling::Finish(Box::pin(async move {
                    if let Err(refused) = commands.send(waiting).await {
                        refused.0.refuse(&ApiError::ShuttingDown);
                    }
                }))
            }
        }
    }

    fn watch(&self, request: Watch, mut reply: Reply) -> Handling {
        let Ok(permit) = self.figures.watchers.clone().try_acquire_owned() else {
            reply.error(&ApiError::TooManyConnections {
                max: limits::WATCHERS_MAX as u64,
            });
            return Handling::Answered;
        };
        let published = self.published.clone();
        Handling::Wait(Box::pin(async move {
            let answer = changes(&published, request, &mut reply).await;
            reply.send::<Watch>(Ok(answer));
            drop(permit);
        }))
    }
}

impl Service for IndexService {
    const FORESEES: bool = true;

    fn foresee(&self, requests: &[(FrameHeader, &[u8])]) {
        let lookups = requests
            .iter()
            .filter(|(header, _)| header.api == Api::Lookup as u16);
        // A lookup begins with the name, if it is one.
        let texts = lookups.filter_map(|(_, body)| codec::text_at_front(body));
        let names = texts.filter(|name| name.len() <= limits::NAME_BYTES_MAX);
        self.published.read().foresee(names);
    }

    fn hello(&self) -> HelloAnswer {
        self.hello.clone()
    }

    fn call(self: &Arc<Self>, call: Call, reply: Reply) -> Handling {
        macro_rules! command {
            ($name:ident) => {
                match call.decode() {
                    Ok(request) => self.command(Command::$name(request), reply),
                    Err(error) => refuse(reply, &error),
                }
            };
        }
        match call.api {
            Api::Lookup => {
                self.lookup(&call, reply);
                Handling::Answered
            }
            Api::Heartbeat => command!(Heartbeat),
            Api::Figures => {
                let tell = |Figures {}| figures::of_process();
                Handling::answer::<Figures>(reply, call.decode().map(tell))
            }
            Api::Metrics => match call.decode() {
                Ok(request) => {
                    let figures = self.figures.clone();
                    let telling = async move { figures.page(request).await };
                    Handling::finish::<Metrics>(reply, telling)
                }
                Err(error) => refuse(reply, &error),
            },
            Api::Ping => Handling::answer::<Ping>(reply, call.decode().map(|Ping {}| Done {})),
            Api::ListPeers => {
                let list = |ListPeers {}| self.published.read().list_peers();
                Handling::answer::<ListPeers>(reply, call.decode().map(list))
            }
            Api::ListTopics => match call.decode() {
                Ok(request) => list_topics(self.published.clone(), request, reply),
                Err(error) => refuse(reply, &error),
            },
            Api::Watch => match call.decode() {
                Ok(request) => self.watch(request, reply),
                Err(error) => refuse(reply, &error),
            },
            Api::RegisterPeer => command!(RegisterPeer),
            Api::RegisterTopics => command!(RegisterTopics),
            Api::Depart => command!(Depart),
            Api::ClaimTopic => command!(ClaimTopic),
            Api::ConfirmTopic => command!(ConfirmTopic),
            Api::DropTopic => command!(DropTopic),
            Api::PlaceTopic => command!(PlaceTopic),
            Api::RetirePeer => command!(RetirePeer),
            other => refuse(
                reply,
                &ApiError::WrongRole {
                    request: other.name().to_owned(),
                    answered_by: "a peer".to_owned(),
                    this_is: "an index server".to_owned(),
                },
            ),
        }
    }
}

fn refuse(reply: Reply, error: &ApiError) -> Handling {
    reply.error(error);
    Handling::Answered
}

/// One page, slice by slice: a pattern that hardly matches walks along a million
/// names, and must neither keep the lock nor the worker so long.
fn list_topics(published: Arc<Published>, request: ListTopics, reply: Reply) -> Handling {
    Handling::Wait(Box::pin(async move {
        let limit = usize::try_from(request.limit).unwrap_or(usize::MAX);
        let limit = limit.clamp(1, limits::PAGE_ENTRIES_MAX);
        let mut topics = Vec::new();
        let mut after = request.after;
        // One more than wanted, to know whether there is more.
        loop {
            let wanted = limit + 1 - topics.len();
            let slice = published
                .read()
                .list(&request.pattern, after.as_ref(), wanted);
            topics.extend(slice.topics);
            after = slice.next;
            if after.is_none() || topics.len() > limit {
                break;
            }
            tokio::task::yield_now().await;
        }
        let more = topics.len() > limit;
        topics.truncate(limit);
        reply.send::<ListTopics>(Ok(TopicPage { topics, more }));
    }))
}

/// Waits until something changed that the watcher asked for, or its time is up.
async fn changes(published: &Published, request: Watch, reply: &mut Reply) -> Changes {
    let deadline = Instant::now() + reply.may_wait(request.max_wait_ms);
    let mut versions = published.versions();
    let mut seen = request.version;
    loop {
        versions.borrow_and_update();
        let (news, version) = {
            let directory = published.read();
            let news = directory.count_changes(seen, &request.pattern);
            (news, directory.version())
        };
        // Memory for the answer is asked for when there is one, and then used at once.
        if news != Some(0) {
            let bytes = news.unwrap_or(0) * LOCATION_BYTES_MAX;
            reply.reserve(bytes).await;
            return published.read().changes(seen, &request.pattern);
        }
        seen = version;
        if tokio::time::timeout_at(deadline, versions.changed())
            .await
            .is_err()
        {
            return published.read().changes(seen, &request.pattern);
        }
        // Changes come in bursts; a moment later they are one answer.
        let moment = Instant::now() + limits::WATCH_GATHER;
        tokio::time::sleep_until(moment.min(deadline)).await;
    }
}
