//! The requests about delayed messages.

use std::sync::Arc;

use crate::net::{Call, Handling, Reply};
use crate::peer::service::PeerService;
use crate::protocol::api::{Api, CancelLater, ListLater, OpenLater};

impl PeerService {
    pub(in crate::peer) fn call_about_later(
        self: &Arc<Self>,
        call: &Call,
        reply: Reply,
    ) -> Handling {
        let peer = self.clone();
        match call.api {
            Api::OpenLater => match call.decode::<OpenLater>() {
                Ok(asked) => {
                    Handling::finish::<OpenLater>(
                        reply,
                        async move { peer.later.open(asked).await },
                    )
                }
                Err(error) => Handling::answer::<OpenLater>(reply, Err(error)),
            },
            Api::ListLater => match call.decode::<ListLater>() {
                Ok(asked) => Handling::finish::<ListLater>(reply, async move {
                    let topic = asked.topic.clone();
                    let listed = peer.later.list(asked).await;
                    match topic {
                        Some(topic) => peer.or_redirect(&topic, listed).await,
                        None => listed,
                    }
                }),
                Err(error) => Handling::answer::<ListLater>(reply, Err(error)),
            },
            _ => match call.decode::<CancelLater>() {
                Ok(asked) => Handling::finish::<CancelLater>(reply, async move {
                    let topic = asked.topic.clone();
                    let cancelled = peer.later.cancel(asked).await;
                    peer.or_redirect(&topic, cancelled).await
                }),
                Err(error) => Handling::answer::<CancelLater>(reply, Err(error)),
            },
        }
    }
}
