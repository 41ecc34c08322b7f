//! What a peer tells of itself: to the index with every heartbeat, to who measures it, to who watches it.
//!
//! All of it comes from the store's registry, the connections' counts, and the state of the moment.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::consumers::Desks;
use super::later::Later;
use super::registrar::Registrar;
use crate::figures::{Collected, Collecting, Source, Together, catalogue as all};
use crate::limits;
use crate::net::shutdown::CancellationToken;
use crate::net::{Surroundings, Traffic, figures};
use crate::process;
use crate::protocol::api::{FiguresAnswer, Metrics, MetricsPage, PeerStatusAnswer};
use crate::protocol::error::ApiError;
use crate::store::{GroupStanding, Standing, Store, TopicFigures};
use crate::time::Timestamp;
use crate::types::{SubscriptionName, TopicId};

/// How a peer is called among the nodes of its process.
pub(super) const ROLE: &str = "peer";

/// The figures of a peer.
pub(super) struct PeerFigures {
    store: Store,
    registrar: Arc<Registrar>,
    traffic: Arc<Traffic>,
    surroundings: Surroundings,
    /// What was told last, page by page.
    told: Together<Arc<Collected>>,
    role: Arc<str>,
    started: Timestamp,
    stop: CancellationToken,
    /// Where the subscriptions stood when the writer last told.
    standings: Mutex<Arc<Vec<Standing>>>,
    /// The same of consumer groups.
    group_standings: Mutex<Arc<Vec<GroupStanding>>>,
    consumers: Arc<Desks>,
    later: Arc<Later>,
}

/// What a peer's figures are made of.
pub(super) struct Parts {
    pub store: Store,
    pub registrar: Arc<Registrar>,
    pub consumers: Arc<Desks>,
    pub later: Arc<Later>,
    pub traffic: Arc<Traffic>,
    pub surroundings: Surroundings,
    pub stop: CancellationToken,
}

impl PeerFigures {
    pub fn new(parts: Parts) -> Self {
        Self {
            store: parts.store,
            registrar: parts.registrar,
            traffic: parts.traffic,
            surroundings: parts.surroundings,
            told: Together::default(),
            role: ROLE.into(),
            started: Timestamp::now(),
            stop: parts.stop,
            standings: Mutex::default(),
            group_standings: Mutex::default(),
            consumers: parts.consumers,
            later: parts.later,
        }
    }

    /// When it began to serve.
    pub fn started(&self) -> Timestamp {
        self.started
    }

    /// For who measures.
    pub fn answer(&self) -> FiguresAnswer {
        let store = self.store.figures();
        let mut answer = figures::of_process();
        answer.add("payload_bytes", store.payload_bytes);
        answer.add("syncs", store.syncs);
        answer.add("sync_us", store.sync_micros);
        for (micros, count) in self.store.syncs_within() {
            answer.add(&format!("syncs_within_{micros}_us"), count);
        }
        answer
    }

    /// For `peer info`.
    pub fn status(&self) -> PeerStatusAnswer {
        let process = process::figures();
        let figures = self.store.figures();
        PeerStatusAnswer {
            id: self.store.peer(),
            name: self.store.name().clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started: self.started,
            load: self.registrar.load(),
            rss_bytes: process.rss_bytes,
            cpu_ms: process.cpu_ms,
            payload_bytes: figures.payload_bytes,
            disk_written_bytes: process.disk_written_bytes,
            segments: figures.segments,
            journal_bytes: figures.journal_bytes,
            damage: self.store.damage(),
            index_reachable: self.registrar.is_reachable(),
        }
    }

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

    fn collect_node(&self, into: &mut Collected) {
        self.store.registry().collect(into);
        self.traffic.collect(&self.role, into);
        let build = [
            self.role.clone(),
            env!("CARGO_PKG_VERSION").into(),
            self.store.name().as_str().into(),
        ];
        into.family(&all::BUILD).number(build, 1);
        let is_ready = self.unready().is_none();
        let ready = into.family(&all::READY);
        ready.number([self.role.clone()], is_ready.into());
        let mut tell = |metric, number| into.number(metric, number);
        let figures = self.store.figures();
        tell(&all::TOPICS, self.store.topic_count() as u64);
        tell(&all::SUBSCRIPTIONS, figures.subscriptions);
        tell(&all::GROUPS, figures.consumer_groups);
        tell(&all::PRODUCERS, figures.producers);
        tell(&all::ENDS_WATCHERS, self.store.ends_watchers() as u64);
        tell(&all::MESSAGE_IDS, figures.message_ids);
        tell(&all::TAIL_BYTES, figures.tail_cache_bytes);
        tell(&all::WINDOWS_BYTES, figures.read_windows_bytes);
        let (pending, blocked) = self.later.standing();
        tell(&all::DELAYED_PENDING, pending);
        tell(&all::DELAYED_BLOCKED, blocked);
        tell(&all::STORED, figures.live_bytes);
        tell(&all::JOURNAL_BYTES, figures.journal_bytes);
        tell(&all::SEGMENTS, figures.segments);
        tell(&all::FREE_SLOTS, figures.free_slots);
        tell(&all::DISK_FREE, figures.disk_free_bytes);
        tell(&all::DAMAGE, self.store.damage().len() as u64);
        tell(&all::REFUSING, self.store.refusal().is_some().into());
        tell(&all::INDEX_REACHABLE, self.registrar.is_reachable().into());
        tell(&all::REGISTRATIONS, self.registrar.registrations());
        let reclaimed = figures.reclaimed;
        tell(&all::SNAPSHOTS, reclaimed.snapshots);
        tell(&all::SEGMENTS_FREED, reclaimed.segments_freed);
        tell(&all::SEGMENTS_COPIED, reclaimed.segments_copied);
        tell(&all::COLD_SEGMENTS, reclaimed.cold_segments);
        tell(&all::BYTES_COPIED, reclaimed.bytes_copied);
        tell(&all::COMPACTIONS, reclaimed.compactions);
        tell(&all::RECORDS_REMOVED, reclaimed.records_removed);
        tell(&all::BYTES_REMOVED, reclaimed.bytes_removed);
        tell(&all::SLOTS_REUSED, reclaimed.slots_reused);
        tell(&all::SLOTS_DELETED, reclaimed.slots_deleted);
    }

    /// Where the subscriptions of these topics stand, or stood when the writer last had time to tell.
    async fn standings(&self, topics: &[TopicFigures]) -> Arc<Vec<Standing>> {
        let ids: Vec<TopicId> = topics.iter().map(|topic| topic.id).collect();
        let asked = self
            .store
            .standings(&ids, limits::METRICS_SUBSCRIPTIONS_MAX);
        let told = tokio::time::timeout(limits::STANDINGS_PATIENCE, asked).await;
        let mut known = self
            .standings
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Ok(Ok(standings)) = told {
            *known = Arc::new(standings);
        }
        known.clone()
    }

    /// The same of the consumer groups.
    async fn group_standings(&self, topics: &[TopicFigures]) -> Arc<Vec<GroupStanding>> {
        let ids: Vec<TopicId> = topics.iter().map(|topic| topic.id).collect();
        let asked = (self.store).group_standings(&ids, limits::METRICS_GROUPS_MAX);
        let told = tokio::time::timeout(limits::STANDINGS_PATIENCE, asked).await;
        let known = self.group_standings.lock();
        let mut known = known.unwrap_or_else(PoisonError::into_inner);
        if let Ok(Ok(standings)) = told {
            *known = Arc::new(standings);
        }
        known.clone()
    }

    async fn collect_topics(&self) -> Collected {
        let store = self.store.clone();
        // Ten thousand topics take some milliseconds, which no connection should wait for.
        let listing = move || store.topic_figures(limits::METRICS_TOPICS_MAX);
        let topics = tokio::task::spawn_blocking(listing)
            .await
            .unwrap_or_default();
        let standings = self.standings(&topics).await;
        let groups = self.group_standings(&topics).await;
        let in_flight = self.consumers.in_flight();
        let figures = self.store.figures();
        let untold = [
            (self.store.topic_count() as u64).saturating_sub(topics.len() as u64),
            figures.subscriptions.saturating_sub(standings.len() as u64),
            figures.consumer_groups.saturating_sub(groups.len() as u64),
        ];
        let telling = move || {
            let mut collected = of_topics(&topics, &standings);
            of_groups(&topics, &groups, &in_flight, &mut collected);
            collected
        };
        let mut collected = tokio::task::spawn_blocking(telling)
            .await
            .unwrap_or_default();
        collected.number(&all::TOPICS_UNTOLD, untold[0]);
        collected.number(&all::SUBSCRIPTIONS_UNTOLD, untold[1]);
        collected.number(&all::GROUPS_UNTOLD, untold[2]);
        collected
    }
}

impl Source for PeerFigures {
    fn collect(&self) -> Collecting<'_> {
        Box::pin(async {
            let mut collected = self.collect_topics().await;
            self.collect_node(&mut collected);
            collected
        })
    }

    fn unready(&self) -> Option<String> {
        if let Some(reason) = self.store.failure() {
            Some(format!("storage stopped: {reason}"))
        } else if self.stop.is_cancelled() {
            Some("shutting down".to_owned())
        } else if self.registrar.is_displaced() {
            Some("another process registered as this peer, publishing stopped here".to_owned())
        } else {
            None
        }
    }
}

fn of_topics(topics: &[TopicFigures], standings: &[Standing]) -> Collected {
    let mut collected = Collected::default();
    type Of = fn(&TopicFigures) -> u64;
    let figures: [(_, Of); 7] = [
        (&all::TOPIC_RECORDS_IN, |topic| topic.records_in),
        (&all::TOPIC_BYTES_IN, |topic| topic.bytes_in),
        (&all::TOPIC_RECORDS_OUT, |topic| topic.records_out),
        (&all::TOPIC_BYTES_OUT, |topic| topic.bytes_out),
        (&all::TOPIC_STORED, |topic| topic.bytes),
        (&all::TOPIC_START, |topic| topic.start.get()),
        (&all::TOPIC_END, |topic| topic.end.get()),
    ];
    for (metric, of) in figures {
        let family = collected.family(metric);
        for topic in topics {
            family.number([topic.name.clone()], of(topic));
        }
    }
    let known = topics
        .iter()
        .map(|topic| (topic.id, topic))
        .collect::<HashMap<_, _>>();
    let lags = collected.family(&all::LAG);
    for standing in standings {
        // A topic that was removed meanwhile, or since the writer told, is not told of.
        if let Some(topic) = known.get(&standing.topic) {
            let lag = topic.end.get().saturating_sub(standing.committed.get());
            lags.number([topic.name.clone(), standing.name.as_str().into()], lag);
        }
    }
    let paused = collected.family(&all::PAUSED);
    for standing in standings.iter().filter(|standing| standing.paused) {
        if let Some(topic) = known.get(&standing.topic) {
            paused.number([topic.name.clone(), standing.name.as_str().into()], 1);
        }
    }
    collected
}

fn of_groups(
    topics: &[TopicFigures],
    groups: &[GroupStanding],
    in_flight: &HashMap<(TopicId, SubscriptionName), u64>,
    collected: &mut Collected,
) {
    let named = topics.iter().map(|topic| (topic.id, &topic.name));
    let named: HashMap<_, _> = named.collect();
    type Of<'a> = &'a dyn Fn(&GroupStanding) -> u64;
    let holds = |group: &GroupStanding| {
        let place = (group.topic, group.name.clone());
        in_flight.get(&place).copied().unwrap_or(0)
    };
    let figures: [(_, Of<'_>); 2] = [
        (&all::GROUP_UNSETTLED, &|group| group.unsettled),
        (&all::GROUP_IN_FLIGHT, &holds),
    ];
    for (metric, of) in figures {
        let family = collected.family(metric);
        for group in groups {
            if let Some(topic) = named.get(&group.topic) {
                family.number([(*topic).clone(), group.name.as_str().into()], of(group));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::directory::Directory;
    use super::super::registrar::RegistrarOptions;
    use super::*;
    use crate::protocol::api::Position;
    use crate::store::{NewTopic, StoreOptions, random_id};
    use crate::types::{LeaderEpoch, TopicSettings};

    fn figures_of(store: &Store) -> PeerFigures {
        let traffic: Arc<Traffic> = Arc::default();
        let registrar = Registrar::new(RegistrarOptions {
            store: store.clone(),
            traffic: traffic.clone(),
            advertise: "127.0.0.1:1".parse().expect("an address"),
            indexes: Vec::new(),
            heartbeat: std::time::Duration::from_secs(60),
        });
        let advertise = "127.0.0.1:1".parse().expect("an address");
        let directory = Directory::new(store.clone(), registrar.clone(), advertise);
        let of_index = (registrar.clone(), Arc::new(directory));
        PeerFigures::new(Parts {
            store: store.clone(),
            later: Later::new(store.clone(), of_index.clone(), CancellationToken::new()),
            consumers: Desks::new(store.clone(), of_index, CancellationToken::new()),
            registrar,
            traffic,
            surroundings: Surroundings::default(),
            stop: CancellationToken::new(),
        })
    }

    async fn lag(figures: &PeerFigures) -> String {
        let text = figures.collect().await.to_text();
        let mut lines = text.lines();
        let line = lines.find(|line| line.starts_with("tidings_subscription_lag_records{"));
        line.unwrap_or("none").to_owned()
    }

    /// A writer that waits for the disk, or has ended, keeps nobody from seeing what is known.
    #[tokio::test]
    async fn lag_is_told_when_the_writer_tells_nothing() {
        let dir = tempfile::TempDir::new().expect("a scratch directory");
        let options = StoreOptions {
            slot_bytes: 1 << 20,
            reserve_bytes: Some(0),
            ..StoreOptions::new(dir.path())
        };
        let (store, _) = Store::open(&options).expect("it opens");
        let name: crate::types::TopicName = "quakes.ci".parse().expect("good");
        let new = NewTopic {
            name: name.clone(),
            id: TopicId::from_bytes(random_id()),
            epoch: LeaderEpoch::new(1),
            settings: TopicSettings::default(),
        };
        store.create_topic(new).await.expect("made");
        let map = "map".parse().expect("good");
        let made = store.create_subscription(name, map, Position::Beginning, false);
        made.await.expect("made");

        let figures = figures_of(&store);
        let told = "tidings_subscription_lag_records{topic=\"quakes.ci\",subscription=\"map\"} 0";
        assert_eq!(lag(&figures).await, told);
        assert_eq!(figures.unready(), None);
        figures.stop.cancel();
        assert_eq!(figures.unready().as_deref(), Some("shutting down"));
        let stopping = store.clone();
        let stopped = tokio::task::spawn_blocking(move || stopping.stop()).await;
        stopped.expect("no panic").expect("a clean stop");
        assert_eq!(lag(&figures).await, told);
    }
}
