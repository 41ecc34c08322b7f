//! What an index server tells to whoever watches it.

use std::sync::Arc;

use tokio::sync::{Semaphore, mpsc};

use super::keeper::Waiting;
use super::published::Published;
use crate::figures::{Collected, Collecting, Registry, Source, Together, catalogue as all};
use crate::limits;
use crate::net::shutdown::CancellationToken;
use crate::net::{Surroundings, Traffic, figures};
use crate::protocol::api::{Metrics, MetricsPage};
use crate::protocol::error::ApiError;

/// How an index server is called among the nodes of its process.
pub(super) const ROLE: &str = "index";

/// The figures of an index server.
pub(super) struct IndexFigures {
    pub published: Arc<Published>,
    pub registry: Arc<Registry>,
    pub traffic: Arc<Traffic>,
    pub surroundings: Surroundings,
    /// What was told last, page by page.
    pub told: Together<Arc<Collected>>,
    pub watchers: Arc<Semaphore>,
    /// To the keeper, which it must not keep from ending.
    pub commands: mpsc::WeakSender<Waiting>,
    pub stop: CancellationToken,
}

impl IndexFigures {
    /// One page of everything. Pages after the first are of what the first was of, if they come soon enough.
    pub async fn page(self: &Arc<Self>, request: Metrics) -> Result<MetricsPage, ApiError> {
        let this = self.clone();
        let collecting = async move {
            let mut collected = this.collect().await;
            collected.merge(this.surroundings.collect());
            Arc::new(collected)
        };
        figures::page_of(&self.told, collecting, &request).await
    }

    fn collect_node(&self) -> Collected {
        let mut collected = Collected::default();
        let role: Arc<str> = ROLE.into();
        self.registry.collect(&mut collected);
        self.traffic.collect(&role, &mut collected);
        let build = [role.clone(), env!("CARGO_PKG_VERSION").into(), role.clone()];
        collected.family(&all::BUILD).number(build, 1);
        let is_ready = self.unready().is_none();
        let ready = collected.family(&all::READY);
        ready.number([role], is_ready.into());
        let (topics, conflicts, peers) = {
            let directory = self.published.read();
            (
                directory.topics(),
                directory.conflicts(),
                directory.peers_by_state(),
            )
        };
        collected.number(&all::INDEX_TOPICS, topics as u64);
        collected.number(&all::INDEX_CONFLICTS, conflicts as u64);
        let family = collected.family(&all::INDEX_PEERS);
        for (state, count) in peers {
            family.number([state.to_string().into()], count);
        }
        let watchers = limits::WATCHERS_MAX - self.watchers.available_permits();
        collected.number(&all::INDEX_WATCHERS, watchers as u64);
        collected
    }
}

impl Source for IndexFigures {
    fn collect(&self) -> Collecting<'_> {
        Box::pin(async { self.collect_node() })
    }

    fn unready(&self) -> Option<String> {
        let is_kept = |commands: mpsc::Sender<_>| !commands.is_closed();
        if self.stop.is_cancelled() {
            Some("shutting down".to_owned())
        } else if self.commands.upgrade().is_some_and(is_kept) {
            None
        } else {
            Some("the registry can no longer be kept".to_owned())
        }
    }
}
