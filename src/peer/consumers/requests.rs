//! The requests about consumer groups.

use std::sync::Arc;

use crate::net::{Call, Handling, Reply};
use crate::peer::service::PeerService;
use crate::protocol::api::{
    Api, CreateConsumerGroup, DeleteConsumerGroup, DescribeConsumerGroup, JoinConsumerGroup,
    LeaveConsumerGroup, ListConsumerGroups, ReplayDeadLetters, Request, SeekConsumerGroup,
    SetConsumerGroup, TakeRecords,
};
use crate::protocol::error::ApiError;
use crate::types::TopicName;

/// Answers with what the expression makes of a request; where its topic is not here, with where it is.
macro_rules! answer {
    ($call:expr, $reply:expr, $this:expr, $request:ty, |$peer:ident, $asked:ident| $work:expr) => {
        match $call.decode::<$request>() {
            Ok($asked) => {
                let $peer = $this.clone();
                Handling::finish::<$request>($reply, async move {
                    let topic = topic_of(&$asked);
                    let outcome = $work.await;
                    match topic {
                        Some(topic) => $peer.or_redirect(&topic, outcome).await,
                        None => outcome,
                    }
                })
            }
            Err(error) => refuse::<$request>($reply, error),
        }
    };
}

/// Requests that name a topic.
trait OfTopic {
    fn topic(&self) -> Option<TopicName>;
}

macro_rules! of_topic {
    ($($request:ty: |$asked:ident| $topic:expr,)*) => {
        $(impl OfTopic for $request {
            fn topic(&self) -> Option<TopicName> {
                let $asked = self;
                $topic
            }
        })*
    };
}

of_topic! {
    CreateConsumerGroup: |asked| Some(asked.topic.clone()),
    SetConsumerGroup: |asked| Some(asked.topic.clone()),
    DescribeConsumerGroup: |asked| Some(asked.topic.clone()),
    ListConsumerGroups: |asked| asked.topic.clone(),
    DeleteConsumerGroup: |asked| Some(asked.topic.clone()),
    SeekConsumerGroup: |asked| Some(asked.topic.clone()),
    ReplayDeadLetters: |asked| Some(asked.topic.clone()),
}

fn topic_of(request: &impl OfTopic) -> Option<TopicName> {
    request.topic()
}

fn refuse<R: Request>(reply: Reply, error: ApiError) -> Handling {
    Handling::answer::<R>(reply, Err(error))
}

impl PeerService {
    pub(in crate::peer) fn call_about_consumers(
        self: &Arc<Self>,
        call: &Call,
        reply: Reply,
    ) -> Handling {
        match call.api {
            Api::TakeRecords => self.take(call, reply),
            Api::SettleRecords => self.consumers.settle(call, reply),
            Api::JoinConsumerGroup => match call.decode::<JoinConsumerGroup>() {
                Ok(asked) => {
                    let (desks, gone) = (self.consumers.clone(), reply.gone());
                    let from = (call.client.clone(), gone);
                    Handling::finish::<JoinConsumerGroup>(reply, async move {
                        desks.join(asked, from).await
                    })
                }
                Err(error) => refuse::<JoinConsumerGroup>(reply, error),
            },
            Api::LeaveConsumerGroup => match call.decode::<LeaveConsumerGroup>() {
                Ok(asked) => {
                    let (desks, client) = (self.consumers.clone(), call.client.clone());
                    Handling::finish::<LeaveConsumerGroup>(reply, async move {
                        desks.leave(asked, client).await
                    })
                }
                Err(error) => refuse::<LeaveConsumerGroup>(reply, error),
            },
            _ => self.manage(call, reply),
        }
    }

    fn take(self: &Arc<Self>, call: &Call, reply: Reply) -> Handling {
        match TakeRecords::decode(&call.body) {
            Ok(asked) => {
                let (desks, client) = (self.consumers.clone(), call.client.clone());
                Handling::Wait(Box::pin(desks.take(asked, client, reply)))
            }
            Err(error) => {
                reply.error(&error.into());
                Handling::Answered
            }
        }
    }

    fn manage(self: &Arc<Self>, call: &Call, reply: Reply) -> Handling {
        match call.api {
            Api::CreateConsumerGroup => {
                answer!(call, reply, self, CreateConsumerGroup, |peer, asked| peer
                    .consumers
                    .create(asked))
            }
            Api::SetConsumerGroup => {
                answer!(call, reply, self, SetConsumerGroup, |peer, asked| peer
                    .consumers
                    .set(asked))
            }
            Api::DescribeConsumerGroup => {
                answer!(call, reply, self, DescribeConsumerGroup, |peer, asked| peer
                    .consumers
                    .describe(&asked.topic, &asked.name))
            }
            Api::ListConsumerGroups => {
                answer!(call, reply, self, ListConsumerGroups, |peer, asked| peer
                    .consumers
                    .list(asked))
            }
            Api::DeleteConsumerGroup => {
                answer!(call, reply, self, DeleteConsumerGroup, |peer, asked| peer
                    .consumers
                    .delete(asked))
            }
            Api::SeekConsumerGroup => {
                answer!(call, reply, self, SeekConsumerGroup, |peer, asked| peer
                    .consumers
                    .seek(asked))
            }
            _ => answer!(call, reply, self, ReplayDeadLetters, |peer, asked| peer
                .consumers
                .replay(asked)),
        }
    }
}
