//! The values behind the vectors: one of each control request, answer and error,
//! with every kind of field filled somewhere.

use std::fmt::Debug;

use serde::Serialize;
use serde_json::Value;

use super::{consumers, later};
use crate::protocol::api::*;
use crate::time::Timestamp;
use crate::types::*;

type Decodes = Box<dyn Fn(&[u8]) -> bool>;

/// A control body as the code sees it.
pub(in crate::protocol) struct Sample {
    /// `CreateTopic.request` or `CreateTopic.answer`.
    pub(in crate::protocol) name: String,
    /// As encoded.
    pub(in crate::protocol) bytes: Vec<u8>,
    /// Its fields by name.
    pub(in crate::protocol) value: Value,
    /// Whether bytes decode to it.
    pub(super) decodes: Decodes,
}

pub(super) fn sample<T: Serialize + PartialEq + Debug + 'static, E>(
    name: String,
    value: T,
    encode: impl Fn(&T) -> Result<Vec<u8>, E>,
    decode: impl Fn(&[u8]) -> Result<T, E> + 'static,
) -> Sample {
    Sample {
        name,
        bytes: encode(&value).ok().expect("samples are small"),
        value: serde_json::to_value(&value).expect("it is plain data"),
        decodes: Box::new(move |bytes| decode(bytes).is_ok_and(|found| found == value)),
    }
}

/// A request with its answer.
pub(super) fn pair<R>(request: R, answer: R::Answer) -> Vec<Sample>
where
    R: Request + PartialEq + Debug,
    R::Answer: PartialEq + Debug,
{
    assert_eq!(R::VERSION, 1, "the page says so");
    let name = R::API.name();
    vec![
        sample(format!("{name}.request"), request, R::encode, R::decode),
        sample(
            format!("{name}.answer"),
            answer,
            R::encode_answer,
            R::decode_answer,
        ),
    ]
}

pub(super) fn topic() -> TopicName {
    "quakes.ci".parse().expect("good")
}

pub(super) fn other_topic() -> TopicName {
    "quakes.nc".parse().expect("good")
}

pub(super) fn peer_name() -> PeerName {
    "peer-1".parse().expect("good")
}

pub(super) fn subscription() -> SubscriptionName {
    "billing".parse().expect("good")
}

pub(super) fn address() -> Address {
    "127.0.0.1:7401".parse().expect("good")
}

fn pattern() -> TopicPattern {
    "quakes.*".parse().expect("good")
}

/// `00 01 02 … 0f`, offset by `first`.
pub(super) fn id(first: u8) -> [u8; 16] {
    std::array::from_fn(|at| first + at as u8)
}

pub(super) fn topic_id() -> TopicId {
    TopicId::from_bytes(id(0x10))
}

fn peer_id() -> PeerId {
    PeerId::from_bytes(id(0x20))
}

fn nonce() -> Nonce {
    Nonce(id(0x30))
}

pub(super) fn time(more: i64) -> Timestamp {
    Timestamp::from_millis(1_517_363_399_650 + more)
}

fn load() -> PeerLoad {
    PeerLoad {
        topics: 3,
        stored_bytes: 1 << 30,
        bytes_in_per_second: 1_000,
        bytes_out_per_second: 2_000,
        connections: 7,
        disk_free_bytes: 1 << 40,
    }
}

fn location() -> TopicLocation {
    TopicLocation {
        name: topic(),
        id: topic_id(),
        epoch: LeaderEpoch::new(4),
        peer: peer_id(),
        peer_name: peer_name(),
        address: address(),
        state: PeerState::Down,
        since: time(0),
    }
}

pub(super) fn gap(reason: GapReason) -> Gap {
    Gap {
        from: Offset::new(20),
        to: Offset::new(30),
        reason,
    }
}

fn topic_info() -> TopicInfo {
    TopicInfo {
        name: topic(),
        id: topic_id(),
        epoch: LeaderEpoch::new(4),
        settings: TopicSettings {
            durability: Durability::Os,
            retention: Retention {
                age_ms: Some(86_400_000),
                bytes: None,
                records: Some(1_000_000),
                interest: true,
            },
            when_full: WhenFull::Refuse,
            ids: RememberIds {
                for_ms: Some(3_600_000),
                max: None,
            },
            compaction: Compaction {
                on: true,
                tombstone_age_ms: Some(600_000),
            },
        },
        start_offset: Offset::new(10),
        end_offset: Offset::new(1_707),
        durable_end_offset: Offset::new(1_700),
        bytes: 123_456,
        created: time(-1_000),
        last_append: Some(time(0)),
        subscriptions: 2,
        quarantined: true,
        conflict: false,
        gaps: vec![gap(GapReason::Lost)],
        removed: 33,
        compacted_offset: Offset::new(1_600),
        purges: 1,
    }
}

fn subscription_info() -> SubscriptionInfo {
    SubscriptionInfo {
        topic: topic(),
        topic_id: topic_id(),
        epoch: LeaderEpoch::new(4),
        name: subscription(),
        committed_offset: Offset::new(42),
        generation: Generation::new(5),
        start_offset: Offset::new(10),
        end_offset: Offset::new(1_707),
        lag_ms: 1_500,
        created: time(-1_000),
        last_commit: None,
        paused: true,
        expire_ms: Some(300_000),
        expires_in_ms: Some(299_000),
        readers: 0,
    }
}

pub(super) fn hello() -> Hello {
    Hello {
        magic: MAGIC,
        protocol_min: PROTOCOL_MIN,
        protocol_max: PROTOCOL_MAX,
        client: "example 1.0".to_owned(),
        features: 0,
    }
}

pub(super) fn hello_answer() -> HelloAnswer {
    HelloAnswer {
        protocol: 1,
        role: Role::Peer,
        node: peer_id(),
        name: "peer-1".to_owned(),
        server: "tidings 0.1.0".to_owned(),
        features: 0,
        frame_bytes_max: 16_908_288,
        message_bytes_max: 1_048_576,
        requests_unanswered_max: 1_024,
        publishes_unanswered_max: 64,
        indexes: vec!["127.0.0.1:7400".parse().expect("good")],
    }
}

fn finding() -> Vec<Sample> {
    let info = PeerInfo {
        id: peer_id(),
        name: peer_name(),
        address: address(),
        state: PeerState::Offline,
        since: time(0),
        topics: 3,
        conflicts: vec![other_topic()],
        load: load(),
    };
    let placement = Placement {
        peer: peer_id(),
        name: peer_name(),
        address: address(),
    };
    let list = ListTopics {
        pattern: pattern(),
        after: Some(topic()),
        limit: 100,
    };
    let page = TopicPage {
        topics: vec![location()],
        more: true,
    };
    let lookup = Lookup {
        name: topic(),
        local_only: true,
    };
    let place = PlaceTopic {
        name: topic(),
        on: Some(peer_name()),
    };
    let retire = RetirePeer { name: peer_name() };
    let mut figures = FiguresAnswer {
        process: nonce(),
        figures: Vec::new(),
    };
    figures.add("rss_bytes", 50_000_000);
    figures.add("syncs", 12);
    [
        pair(hello(), hello_answer()),
        pair(Ping {}, Done {}),
        pair(Figures {}, figures),
        metrics(),
        pair(lookup, location()),
        pair(list, page),
        pair(ListPeers {}, vec![info]),
        pair(place, placement),
        pair(retire, Retired { topics: 3 }),
    ]
    .concat_all()
}

fn metrics() -> Vec<Sample> {
    let request = Metrics {
        after: Some(MetricPlace {
            figure: "tidings_journal_sync_seconds".to_owned(),
            labels: Vec::new(),
        }),
        limit: 2,
    };
    let sample = |label: &str, value| MetricSample {
        labels: vec![label.to_owned()],
        value,
        classes: Vec::new(),
    };
    let end = MetricFamily {
        name: "tidings_topic_end_offset".to_owned(),
        kind: MetricKind::Gauge,
        help: "First offset that readers cannot have yet".to_owned(),
        ticks: 1,
        labels: vec!["topic".to_owned()],
        bounds: Vec::new(),
        samples: vec![sample("logs", 3), sample("quakes.ci", 1_707)],
    };
    let publish = MetricFamily {
        name: "tidings_publish_seconds".to_owned(),
        kind: MetricKind::Histogram,
        help: "Latency".to_owned(),
        ticks: 1_000_000,
        labels: Vec::new(),
        bounds: vec![500, 1_000],
        samples: vec![MetricSample {
            labels: Vec::new(),
            value: 2_750,
            classes: vec![3, 0, 1],
        }],
    };
    let page = MetricsPage {
        families: vec![publish, end],
        more: true,
    };
    pair(request, page)
}

fn registering() -> Vec<Sample> {
    let register = RegisterPeer {
        peer: peer_id(),
        name: peer_name(),
        address: address(),
        nonce: nonce(),
        load: load(),
    };
    let topics = RegisterTopics {
        peer: peer_id(),
        nonce: nonce(),
        part: 1,
        last: true,
        topics: vec![StoredTopic {
            name: topic(),
            id: topic_id(),
            epoch: LeaderEpoch::new(4),
        }],
    };
    let conflicts = vec![Conflict {
        name: topic(),
        id: topic_id(),
        holder: "peer-2".parse().expect("good"),
    }];
    let heartbeat = Heartbeat {
        peer: peer_id(),
        nonce: nonce(),
        load: load(),
    };
    let depart = Depart {
        peer: peer_id(),
        nonce: nonce(),
        leave: true,
    };
    [
        pair(register, Registered { lease_ms: 10_000 }),
        pair(topics, RegisteredTopics { conflicts }),
        pair(heartbeat, Done {}),
        pair(depart, Done {}),
    ]
    .concat_all()
}

fn claiming() -> Vec<Sample> {
    let claim = ClaimTopic {
        peer: peer_id(),
        nonce: nonce(),
        name: topic(),
        id: topic_id(),
    };
    let epoch = LeaderEpoch::new(4);
    let confirm = ConfirmTopic {
        peer: peer_id(),
        nonce: nonce(),
        name: topic(),
        id: topic_id(),
        epoch,
    };
    let drop = DropTopic {
        peer: peer_id(),
        nonce: nonce(),
        name: topic(),
        id: topic_id(),
    };
    let watch = Watch {
        version: 9,
        pattern: pattern(),
        max_wait_ms: 5_000,
    };
    let changes = Changes {
        version: 11,
        reset: false,
        changed: vec![location()],
        dropped: vec![other_topic()],
    };
    [
        pair(claim, Claimed { epoch }),
        pair(confirm, Done {}),
        pair(drop, Done {}),
        pair(watch, changes),
    ]
    .concat_all()
}

fn topics() -> Vec<Sample> {
    let create = CreateTopic {
        name: topic(),
        settings: TopicSettings::default(),
        if_not_exists: true,
    };
    let created = CreatedTopic {
        topic: topic_info(),
        created: true,
    };
    let delete = DeleteTopic {
        name: topic(),
        id: Some(topic_id()),
    };
    let list = DescribeTopics {
        pattern: TopicPattern::all(),
        after: None,
        limit: 10_000,
    };
    let page = TopicInfoPage {
        topics: vec![topic_info()],
        more: false,
    };
    let changes = TopicChanges {
        durability: Some(Durability::Fsync),
        retain_age_ms: Some(Some(1_000)),
        retain_bytes: Some(None),
        retain_records: None,
        retain_interest: Some(false),
        when_full: Some(WhenFull::DiscardOldest),
        remember_ids_for_ms: Some(Some(60_000)),
        remember_ids_max: Some(None),
        compact: Some(true),
        tombstone_age_ms: Some(None),
    };
    let set = SetTopic {
        name: topic(),
        changes,
    };
    let rename = RenameTopic {
        name: topic(),
        new: other_topic(),
    };
    [
        pair(create, created),
        pair(delete, Done {}),
        pair(DescribeTopic { name: topic() }, topic_info()),
        pair(list, page),
        pair(set, topic_info()),
        pair(rename, topic_info()),
    ]
    .concat_all()
}

fn places() -> Vec<Sample> {
    let purge = PurgeTopic {
        name: topic(),
        before: Position::Time(time(0)),
    };
    let purge_key = PurgeKey {
        name: topic(),
        key: b"ci38110719".to_vec(),
    };
    let gap = gap(GapReason::Damaged);
    let find = FindOffset {
        topic: topic(),
        position: Position::Back(10),
    };
    let found = FoundOffset {
        id: topic_id(),
        epoch: LeaderEpoch::new(4),
        offset: Offset::new(1_697),
        start_offset: Offset::new(10),
        end_offset: Offset::new(1_707),
    };
    let watch_ends = WatchEnds {
        version: 9,
        pattern: pattern(),
        after: Some(topic()),
        max_wait_ms: 5_000,
    };
    let end = TopicEnd {
        id: topic_id(),
        start_offset: Offset::new(10),
        end_offset: Offset::new(1_707),
    };
    let ends = TopicEnds {
        version: 11,
        all: true,
        ends: vec![end],
        next: Some(other_topic()),
    };
    let status = PeerStatusAnswer {
        id: peer_id(),
        name: peer_name(),
        version: "0.1.0".to_owned(),
        started: time(0),
        load: load(),
        rss_bytes: 50_000_000,
        cpu_ms: 1_234,
        payload_bytes: 5_678,
        disk_written_bytes: 9_999,
        segments: 12,
        journal_bytes: 64 << 20,
        damage: vec!["segment 3: größer".to_owned()],
        index_reachable: true,
    };
    [
        pair(purge, topic_info()),
        pair(purge_key, topic_info()),
        pair(AcceptLoss { name: topic() }, AcceptedLoss { gap }),
        pair(find, found),
        pair(PeerStatus {}, status),
        pair(watch_ends, ends),
    ]
    .concat_all()
}

fn producers() -> Vec<Sample> {
    let producer = ProducerId::from_bytes(id(0x40));
    let describe = DescribeProducer {
        topic: topic_id(),
        producer,
    };
    let open = OpenProducer {
        topic: topic_id(),
        producer,
        nonce: nonce(),
        at: Some(Sequence::new(1_000)),
    };
    let known = ProducerInfo {
        epoch: ProducerEpoch::new(3),
        next_sequence: Sequence::new(1_234),
        last_offset: Some(Offset::new(1_706)),
        last_used: Some(time(0)),
        names_forgotten: true,
    };
    let new = ProducerInfo {
        epoch: ProducerEpoch::new(4),
        next_sequence: Sequence::new(1_000),
        last_offset: None,
        last_used: Some(time(1)),
        names_forgotten: false,
    };
    [pair(describe, known), pair(open, new)].concat_all()
}

fn subscriptions() -> Vec<Sample> {
    let (topic, name) = (topic(), subscription());
    let create = CreateSubscription {
        topic: topic.clone(),
        name: name.clone(),
        from: Position::Beginning,
        if_not_exists: false,
        expire_ms: Some(300_000),
    };
    let delete = DeleteSubscription {
        topic: topic.clone(),
        name: name.clone(),
    };
    let describe = DescribeSubscription {
        topic: topic.clone(),
        name: name.clone(),
    };
    let list = ListSubscriptions {
        topic: Some(topic.clone()),
        after: Some((topic.clone(), name.clone())),
        limit: 50,
    };
    let page = SubscriptionPage {
        subscriptions: vec![subscription_info()],
        more: false,
    };
    let seek = SeekSubscription {
        topic: topic.clone(),
        name: name.clone(),
        to: Position::Offset(Offset::new(40)),
        dry_run: true,
    };
    let sought = Sought {
        from: Offset::new(42),
        to: Offset::new(40),
        subscription: subscription_info(),
    };
    let offset = Offset::new(42);
    let commit = Commit {
        topic: topic_id(),
        name: name.clone(),
        generation: Generation::new(5),
        offset,
    };
    let set = SetSubscription {
        topic,
        name,
        changes: SubscriptionChanges {
            paused: Some(true),
            expire_ms: Some(None),
        },
    };
    [
        pair(create, subscription_info()),
        pair(delete, Done {}),
        pair(describe, subscription_info()),
        pair(list, page),
        pair(seek, sought),
        pair(commit, Committed { offset }),
        pair(set, subscription_info()),
    ]
    .concat_all()
}

fn attending() -> Vec<Sample> {
    let name = subscription();
    let watch = WatchSubscription {
        topic: topic_id(),
        name: name.clone(),
        paused: false,
        max_wait_ms: 30_000,
    };
    let watch_all = WatchSubscriptions {
        name,
        pattern: "orders.*".parse().expect("good"),
        paused: vec![topic_id()],
        max_wait_ms: 30_000,
    };
    let watched_all = WatchedSubscriptions { paused: Vec::new() };
    [
        pair(watch, WatchedSubscription { paused: true }),
        pair(watch_all, watched_all),
    ]
    .concat_all()
}

fn histories() -> Vec<Sample> {
    let (topic, name) = (topic(), subscription());
    let author = Author {
        client: "billing 2.1".to_owned(),
        address: "127.0.0.1:52100".to_owned(),
    };
    let change = |kind, from, to| PlaceChange {
        when: time(5),
        kind,
        from,
        to: Offset::new(to),
        generation: Generation::new(5),
        author: author.clone(),
    };
    let ask = SubscriptionHistory {
        topic: topic.clone(),
        name: name.clone(),
    };
    let from = Some(Offset::new(40));
    let told = HistoryOfSubscription {
        subscription: subscription_info(),
        changes: vec![
            change(ChangeKind::Created, None, 0),
            change(ChangeKind::Seek, from, 42),
        ],
    };
    let undo = UndoSubscription {
        topic,
        name,
        generation: Some(Generation::new(5)),
        dry_run: true,
    };
    let undone = Undone {
        change: change(ChangeKind::Undo, from, 42),
        from: Offset::new(42),
        to: Offset::new(40),
        subscription: subscription_info(),
    };
    [pair(ask, told), pair(undo, undone)].concat_all()
}

pub(super) trait ConcatAll {
    fn concat_all(self) -> Vec<Sample>;
}

impl<const N: usize> ConcatAll for [Vec<Sample>; N] {
    fn concat_all(self) -> Vec<Sample> {
        self.into_iter().flatten().collect()
    }
}

fn of_streams() -> Vec<Sample> {
    let credit = StreamCredit {
        stream: 0x0102_0304,
        bytes: 1 << 21,
        records: 1 << 19,
        end: false,
    };
    pair(credit, Done {})
}

/// Every control body.
pub(in crate::protocol) fn samples() -> Vec<Sample> {
    [
        finding(),
        registering(),
        claiming(),
        topics(),
        places(),
        of_streams(),
        producers(),
        subscriptions(),
        attending(),
        histories(),
        consumers::samples(),
        later::samples(),
    ]
    .concat_all()
}
