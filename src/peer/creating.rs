//! Creating a topic: the index grants the name, the store keeps the topic, the index is told.
//!
//! Whoever asked may go away at any moment. What was begun goes on, as every request that is to be finished does: a
//! topic that the store has and the index was not told of would be found by nobody.

use super::directory::Directory;
use super::registrar::Registrar;
use crate::protocol::api::{CreateTopic, TopicInfo};
use crate::protocol::error::ApiError;
use crate::store::{NewTopic, Store, random_id};
use crate::types::TopicId;

/// Makes a topic that is not stored here.
pub(super) async fn create_topic(
    (store, registrar, directory): (&Store, &Registrar, &Directory),
    request: CreateTopic,
) -> Result<TopicInfo, ApiError> {
    let id = TopicId::from_bytes(random_id());
    let epoch = match registrar.claim(&request.name, id).await {
        Ok(epoch) => epoch,
        Err(ApiError::TopicExists { name }) if request.if_not_exists => {
            return Err(directory.redirect(&name).await);
        }
        Err(error) => return Err(error),
    };
    let name = request.name.clone();
    let new = NewTopic {
        name: request.name,
        id,
        epoch,
        settings: request.settings,
    };
    let topic = match store.create_topic(new).await {
        Ok(topic) => topic,
        Err(error) => {
            registrar.release(&name, id).await;
            return Err(error);
        }
    };
    if let Err(error) = registrar.confirm(&name, id, epoch).await {
        // Take it back rather than leave a topic that may lose its name; but not from somebody who found it
        // here meanwhile: what was acknowledged to them stays, and is told to the index again.
        match store.take_back_topic(id).await {
            Ok(false) => registrar.tell_again(),
            Ok(true) | Err(_) => registrar.release(&name, id).await,
        }
        if matches!(error, ApiError::IndexUnavailable { .. }) {
            // It may get to hear of the topic late: the next list has the last word.
            registrar.tell_again();
        }
        return Err(error);
    }
    Ok(topic)
}
