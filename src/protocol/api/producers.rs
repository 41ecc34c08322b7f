//! Named producers at the host of a topic.

use serde::{Deserialize, Serialize};

use super::{Api, Nonce, Request, request};
use crate::time::Timestamp;
use crate::types::{Offset, ProducerEpoch, ProducerId, Sequence, TopicId};

/// What is remembered of a producer?
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DescribeProducer {
    /// Id of the topic.
    pub topic: TopicId,
    /// The producer; that of a name is made of it.
    pub producer: ProducerId,
}
request!(DescribeProducer => ProducerInfo);

/// What a topic remembers of a producer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProducerInfo {
    /// The newest process under its name; zero if it has none, or is not known.
    pub epoch: ProducerEpoch,
    /// The sequence its next batch begins at.
    pub next_sequence: Sequence,
    /// The offset of the last record of it that is known.
    pub last_offset: Option<Offset>,
    /// When it last published or began to; `None`: nothing is known of it.
    pub last_used: Option<Timestamp>,
    /// The topic has forgotten named producers: one that is not known may be one of them.
    pub names_forgotten: bool,
}

/// Goes on under a producer's name: from now on nobody else does. Answered again to the same process, the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenProducer {
    /// Id of the topic.
    pub topic: TopicId,
    /// The producer, by the id that is made of its name.
    pub producer: ProducerId,
    /// Random: tells the process from others.
    pub nonce: Nonce,
    /// Go on at this sequence, whatever is known of the producer, and forget its batches.
    pub at: Option<Sequence>,
}
request!(OpenProducer => ProducerInfo);
