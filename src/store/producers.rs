//! Named producers: what is asked of the writer beside appending their batches.

use super::Store;
use crate::protocol::api::ProducerInfo;
use crate::protocol::error::ApiError;
use crate::topic::{Opening, RowKey, Topic};
use crate::types::{ProducerEpoch, ProducerId, Sequence, TopicId};

impl Store {
    /// What a topic remembers of a producer.
    ///
    /// # Errors
    /// `UnknownTopicId`.
    pub async fn describe_producer(
        &self,
        topic: TopicId,
        producer: ProducerId,
    ) -> Result<ProducerInfo, ApiError> {
        self.change(topic, move |context| {
            Ok((info(context.state.topic(topic)?, producer), Vec::new()))
        })
        .await
    }

    /// Lets a process go on under a producer's name, and nobody else. Answered when it is durable: what others
    /// sent under the name before is stored by then or never.
    ///
    /// # Errors
    /// `UnknownTopicId`, `TopicQuarantined`, `ProducerForgotten`, `DiskReserve`, `InvalidArgument`.
    pub async fn open_producer(
        &self,
        topic: TopicId,
        opening: Opening,
    ) -> Result<ProducerInfo, ApiError> {
        let id = opening.producer;
        if id.is_zero() {
            let (what, reason) = ("producer", "the zero id is nobody's");
            return Err(ApiError::InvalidArgument {
                what: what.to_owned(),
                reason: reason.to_owned(),
            });
        }
        if let Some(refusal) = self.refusal() {
            return Err(refusal);
        }
        self.change(topic, move |context| {
            let now = context.now;
            let found = context.state.topic_mut(topic)?;
            let mut keys = Vec::new();
            if found.open_producer(&opening, now)? {
                keys = vec![RowKey::Topic(topic), RowKey::Producer(topic, id)];
                let surplus = found.surplus_producers();
                found.forget_producers(&surplus);
                keys.extend(surplus.into_iter().map(|id| RowKey::Producer(topic, id)));
            }
            Ok((info(found, id), keys))
        })
        .await
    }
}

fn info(topic: &Topic, producer: ProducerId) -> ProducerInfo {
    let known = topic.producers.get(&producer);
    ProducerInfo {
        epoch: known.map_or(ProducerEpoch::ZERO, |row| row.epoch()),
        next_sequence: known.map_or(Sequence::ZERO, |row| row.next_sequence()),
        last_offset: known.and_then(|row| row.last_offset()),
        last_used: known.map(|row| row.last_used),
        names_forgotten: topic.row.names_forgotten,
    }
}
