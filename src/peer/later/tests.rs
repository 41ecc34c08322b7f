//! Delayed messages at a real store, with clocks and bounds that a test chooses.

use bytes::Bytes;
use tempfile::TempDir;

use super::*;
use crate::net::Traffic;
use crate::peer::registrar::RegistrarOptions;
use crate::protocol::api::{CancelLater, LaterChoice, ListLater, OpenLater, Position};
use crate::protocol::batch::{BatchBuilder, CheckedBatch, Compression, Header, RecordToSend};
use crate::store::{NewTopic, StoreOptions, random_id};
use crate::topic::later::DELIVER_AT;
use crate::types::{
    LeaderEpoch, Offset, ProducerId, Retention, Sequence, TopicName, TopicSettings, WhenFull,
};

/// Longest wait of a test for anything.
const SOON: Duration = Duration::from_secs(20);

struct Bench {
    later: Arc<Later>,
    store: Store,
    target: TopicId,
    companion: TopicId,
    stop: CancellationToken,
    _dir: TempDir,
}

fn name(text: &str) -> TopicName {
    text.parse().expect("a good name")
}

/// Movers over a store, whose clocks began there.
fn later_over(store: &Store, clocks: Clocks, stop: &CancellationToken) -> Arc<Later> {
    let address: crate::types::Address = "127.0.0.1:1".parse().expect("an address");
    let registrar = Registrar::new(RegistrarOptions {
        store: store.clone(),
        traffic: Arc::<Traffic>::default(),
        advertise: address.clone(),
        indexes: Vec::new(),
        heartbeat: Duration::from_secs(60),
    });
    let directory = Directory::new(store.clone(), registrar.clone(), address);
    let of_index = (registrar, Arc::new(directory));
    let later = Later::new(store.clone(), of_index, stop.clone());
    let mut later = Arc::into_inner(later).expect("nobody else has it yet");
    later.clocks = clocks;
    Arc::new(later)
}

fn clocks() -> Clocks {
    Clocks::new(Timestamp::now(), steady())
}

async fn create(store: &Store, named: &str, settings: TopicSettings) -> TopicId {
    let id = TopicId::from_bytes(random_id());
    let new = NewTopic {
        name: name(named),
        id,
        epoch: LeaderEpoch::new(1),
        settings,
    };
    store.create_topic(new).await.expect("made");
    id
}

async fn begin(settings: TopicSettings, clocks: Clocks) -> Bench {
    let dir = TempDir::new().expect("a scratch directory");
    let options = StoreOptions {
        slot_bytes: 1 << 20,
        reserve_bytes: Some(0),
        ..StoreOptions::new(dir.path())
    };
    let (store, _) = Store::open(&options).expect("it opens");
    let target = create(&store, "t", settings).await;
    // No index grants a name here; one that was made and never used is taken.
    let companion = create(&store, "later.t", TopicSettings::default()).await;
    let stop = CancellationToken::new();
    let later = later_over(&store, clocks, &stop);
    let opened = later.open(OpenLater { topic: target }).await;
    assert_eq!(opened.expect("it is free").id, companion);
    Bench {
        later,
        store,
        target,
        companion,
        stop,
        _dir: dir,
    }
}

impl Bench {
    /// Stores messages that are due at these times.
    async fn put(&self, messages: &[(i64, Vec<u8>)]) {
        self.put_of_key(None, messages).await;
    }

    async fn put_of_key(&self, key: Option<&[u8]>, messages: &[(i64, Vec<u8>)]) {
        let mut builder = BatchBuilder::new(Compression::None);
        for (at, value) in messages {
            let header = Header {
                name: DELIVER_AT.to_owned(),
                value: Bytes::from(at.to_string()),
            };
            let record = RecordToSend {
                timestamp: Timestamp::from_millis(7),
                key,
                headers: &[header],
                value,
            };
            builder.try_push(&record).expect("it fits");
        }
        let built = builder.build(ProducerId::zero(), Sequence::ZERO);
        let batch = CheckedBatch::check(built.expect("it builds"), limits::MESSAGE_BYTES_MAX);
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let done = Box::new(|outcome| drop(sender.send(outcome)));
        let terms: crate::topic::Terms = LeaderEpoch::new(1).into();
        let batch = batch.expect("good");
        self.store.append(self.companion, terms, batch, done);
        receiver.await.expect("answered").expect("stored");
    }

    async fn page(&self) -> crate::protocol::api::LaterPage {
        let request = ListLater {
            topic: Some(name("t")),
            after: None,
            limit: 10,
        };
        self.later.list(request).await.expect("listed")
    }

    fn end(&self) -> Offset {
        self.store.range_of(self.target).expect("it is there").1
    }

    async fn until(&self, what: &str, mut holds: impl AsyncFnMut(&Self) -> bool) {
        let waiting = async {
            while !holds(self).await {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let in_time = tokio::time::timeout(SOON, waiting).await;
        in_time.unwrap_or_else(|_| panic!("not in time: {what}"));
    }

    async fn stop(self) {
        self.stop.cancel();
        let store = self.store.clone();
        let stopped = tokio::task::spawn_blocking(move || store.stop()).await;
        stopped.expect("no panic").expect("a clean stop");
    }
}

/// A clock that was set forward by hours delivers nothing, until it agrees again, or the peer has begun with it.
#[tokio::test]
async fn a_clock_that_jumped_delivers_nothing_early() {
    let before = Clocks::new(
        Timestamp::now().before(3 * limits::CLOCKS_APART_MAX),
        steady(),
    );
    let bench = begin(TopicSettings::default(), before).await;
    let overdue = Timestamp::now().as_millis() - 1_000;
    bench.put(&[(overdue, b"x".to_vec())]).await;
    bench
        .until("it says so", async |bench| {
            let kept_by = bench.page().await.topics[0].kept_by.clone();
            kept_by.is_some_and(|text| text.contains("180 minutes ahead"))
        })
        .await;
    assert_eq!(bench.end(), Offset::ZERO);
    assert_eq!(bench.later.standing(), (1, 1));
    // Publishing, listing and cancelling go on.
    bench.put(&[(overdue, b"y".to_vec())]).await;
    let cancel = CancelLater {
        topic: name("t"),
        which: LaterChoice::Number(Offset::new(1)),
    };
    let cancelled = bench.later.cancel(cancel).await.expect("cancelled");
    assert_eq!((cancelled.cancelled, cancelled.too_late), (1, false));
    bench.stop.cancel();

    let stop = CancellationToken::new();
    let later = later_over(&bench.store, clocks(), &stop);
    let again = Bench {
        later,
        stop,
        store: bench.store.clone(),
        _dir: bench._dir,
        ..bench
    };
    tokio::spawn(again.later.clone().run());
    again
        .until("it is delivered", async |bench| {
            bench.end() == Offset::new(1)
        })
        .await;
    again.stop().await;
}

/// One message that its topic never takes does not hold up the others.
#[tokio::test]
async fn what_is_refused_for_good_is_set_aside() {
    let settings = TopicSettings {
        retention: Retention {
            bytes: Some(600),
            ..Retention::default()
        },
        when_full: WhenFull::Refuse,
        ..TopicSettings::default()
    };
    let bench = begin(settings, clocks()).await;
    let (small, large) = (vec![b's'; 20], vec![b'l'; 900]);
    bench
        .put(&[(1, small.clone()), (2, large), (3, small)])
        .await;
    bench
        .until("the small ones are delivered", async |bench| {
            bench.end() == Offset::new(2)
        })
        .await;
    let page = bench.page().await;
    assert_eq!((page.messages.len(), page.topics[0].pending), (1, 1));
    assert_eq!(page.messages[0].payload_bytes, 900);
    let kept_by = page.topics[0].kept_by.clone().expect("told");
    assert!(kept_by.contains("refuses 1 of them for good"), "{kept_by}");
    let cancel = CancelLater {
        topic: name("later.t"),
        which: LaterChoice::All,
    };
    let cancelled = bench.later.cancel(cancel).await.expect("cancelled");
    assert_eq!(cancelled.cancelled, 1);
    bench.stop().await;
}

#[tokio::test]
async fn no_more_come_where_as_many_as_can_be_remembered_wait() {
    let bench = begin(TopicSettings::default(), clocks()).await;
    let later = bench.later.clone();
    assert_eq!(later.admits(bench.companion, false), Ok(()));
    let mortal = later.admits(bench.companion, true);
    assert!(matches!(mortal, Err(ApiError::InvalidArgument { .. })));
    later.pending.store(limits::DELAYED_MAX, Ordering::Relaxed);
    let refused = later.admits(bench.companion, false);
    let max = limits::DELAYED_MAX;
    assert_eq!(refused, Err(ApiError::TooManyDelayed { max }));
    assert_eq!(later.admits(bench.target, true), Ok(()), "all else goes on");
    bench.stop().await;
}

/// The queue in front of the disk may be full: the companion was forgotten for that, and nothing of it delivered until the
/// peer was started again.
#[tokio::test]
async fn a_store_that_takes_no_more_for_now_ends_no_deliveries() {
    let bench = begin(TopicSettings::default(), clocks()).await;
    let mover = bench.later.mover(bench.companion).expect("it began");
    let full = ApiError::Busy { max: 1 };
    assert!(!bench.later.is_over(&full, &mover));
    let gone = ApiError::UnknownTopicId {
        id: bench.companion,
    };
    assert!(bench.later.is_over(&gone, &mover));
    bench.stop.cancel();
    assert!(bench.later.is_over(&full, &mover));
    bench.stop().await;
}

/// A search for companions that failed is done again. Those that it had found before were begun twice, and each of the
/// two would have delivered every message.
#[tokio::test]
async fn a_search_that_is_done_again_begins_nothing_twice() {
    let bench = begin(TopicSettings::default(), clocks()).await;
    bench.stop.cancel();
    let stop = CancellationToken::new();
    let later = later_over(&bench.store, clocks(), &stop);
    let begun = later.begin(bench.companion, bench.target).await;
    begun.expect("it is there");
    let before = later.mover(bench.companion).expect("it began");
    later.discover().await.expect("found");
    let after = later.mover(bench.companion).expect("it goes on");
    assert!(Arc::ptr_eq(&before, &after));
    stop.cancel();
    bench.stop().await;
}

/// A page of messages none of which can be read any more was the end of the list, whatever came after it.
#[tokio::test]
async fn what_cannot_be_read_does_not_end_a_list() {
    let bench = begin(TopicSettings::default(), clocks()).await;
    let far = Timestamp::now().as_millis() + 3_600_000;
    let erased: Vec<_> = (0..3).map(|n| (far + n, b"a".to_vec())).collect();
    bench.put_of_key(Some(b"k"), &erased).await;
    bench.put(&[(far + 3, b"b".to_vec())]).await;
    bench.put(&[(far + 4, b"c".to_vec())]).await;
    let purged = bench.store.purge_key(name("later.t"), b"k".to_vec()).await;
    purged.expect("purged");
    bench.later.forget_unpacked();
    let request = ListLater {
        topic: Some(name("t")),
        after: None,
        limit: 1,
    };
    let page = bench.later.list(request).await.expect("listed");
    let listed: Vec<_> = page.messages.iter().map(|one| &one.payload[..]).collect();
    assert_eq!((listed, page.more), (vec![&b"b"[..]], true));
    bench.stop().await;
}

/// What is purged from the companion is gone, counted, and holds up nothing.
#[tokio::test]
async fn what_is_gone_from_the_companion_is_not_waited_for() {
    let bench = begin(TopicSettings::default(), clocks()).await;
    let far = Timestamp::now().as_millis() + 3_600_000;
    bench.put(&[(far, b"a".to_vec())]).await;
    bench
        .put(&[(far, b"b".to_vec()), (far + 1, b"c".to_vec())])
        .await;
    assert_eq!(bench.page().await.topics[0].pending, 3);
    let before = Position::Offset(Offset::new(1));
    let purged = bench.store.purge_topic(name("later.t"), before).await;
    purged.expect("purged");
    assert_eq!(bench.page().await.topics[0].pending, 2);
    let now = Timestamp::now().as_millis();
    bench.put(&[(now, b"d".to_vec())]).await;
    bench
        .until("the next one is delivered", async |bench| {
            bench.end() == Offset::new(1)
        })
        .await;
    assert_eq!(bench.later.standing(), (2, 0));
    bench.stop().await;
}
