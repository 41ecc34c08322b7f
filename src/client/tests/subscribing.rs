//! Subscribers: every record once, in order, or a reason.

use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};

use super::node::{FetchFault, Running, SOON, name};
use crate::client::{
    Client, ClientError, Compression, Delivery, DeliveryRef, Message, PublisherOptions, Subscriber,
    SubscriberOptions,
};
use crate::limits;
use crate::protocol::api::{Position, Role};
use crate::types::{Address, Gap, GapReason, LeaderEpoch, Offset, SubscriptionName};

async fn publish(client: &Client, range: std::ops::Range<usize>) {
    let options = PublisherOptions {
        compression: Compression::Lz4,
        batch_bytes: 300,
        ..PublisherOptions::default()
    };
    let publisher = client.publisher(&name("t"), options).await.expect("there");
    for n in range {
        let message = Message::new(format!("{n}")).with_key(format!("key {}", n % 3));
        publisher.send(message).await.expect("taken");
    }
    publisher.close().await.expect("stored");
}

async fn subscriber(client: &Client, options: SubscriberOptions) -> Subscriber {
    let subscriber = client.subscriber(&name("t"), options).await;
    subscriber.expect("the topic is there")
}

fn from_beginning() -> SubscriberOptions {
    SubscriberOptions {
        max_bytes: 1_000,
        ..SubscriberOptions::passing(Position::Beginning)
    }
}

fn durable(from: Option<Position>) -> SubscriberOptions {
    SubscriberOptions::durable(subscription(), from)
}

fn subscription() -> SubscriptionName {
    "billing".parse().expect("a good name")
}

async fn next(subscriber: &mut Subscriber) -> Result<Delivery, ClientError> {
    let next = tokio::time::timeout(SOON, subscriber.next());
    next.await.expect("in time")
}

/// The next records are these, at these offsets.
async fn expect(subscriber: &mut Subscriber, range: std::ops::Range<usize>) {
    for n in range {
        match next(subscriber).await.expect("a record") {
            Delivery::Record(record) => {
                assert_eq!(record.offset.get(), n as u64);
                assert_eq!(record.value, format!("{n}"));
                assert_eq!(record.key, Some(format!("key {}", n % 3).into()));
            }
            Delivery::Gap(gap) => panic!("{gap:?} instead of record {n}"),
        }
        assert_eq!(subscriber.position().get(), n as u64 + 1);
    }
}

#[tokio::test]
async fn records_come_in_order_and_followers_get_new_ones() {
    for window_bytes in [1, 2_000, limits::SUBSCRIBER_WINDOW_BYTES_DEFAULT] {
        let host = Running::peer("a", &["t"]).await;
        let client = host.client().await;
        publish(&client, 0..500).await;
        let options = SubscriberOptions {
            window_bytes,
            ..from_beginning()
        };
        let mut reader = subscriber(&client, options).await;
        expect(&mut reader, 0..500).await;
        assert_eq!(reader.end_offset().get(), 500);
        let nothing = reader.next_within(Duration::from_millis(30)).await;
        assert_eq!(nothing, Ok(None));
        let writing = tokio::spawn({
            let client = client.clone();
            async move { publish(&client, 500..600).await }
        });
        expect(&mut reader, 500..600).await;
        writing.await.expect("no panic");
    }
}

#[tokio::test]
async fn without_a_place_only_new_records_come() {
    let host = Running::peer("a", &["t"]).await;
    let client = host.client().await;
    publish(&client, 0..10).await;
    let mut reader = subscriber(&client, SubscriberOptions::default()).await;
    assert_eq!(reader.position().get(), 10);
    publish(&client, 10..20).await;
    expect(&mut reader, 10..20).await;
}

#[tokio::test]
async fn a_place_inside_a_batch_drops_what_was_not_asked_for() {
    let host = Running::peer("a", &["t"]).await;
    let client = host.client().await;
    publish(&client, 0..100).await;
    for start in [1, 2, 17, 55, 99] {
        let from = Position::Offset(Offset::new(start as u64));
        let mut reader = subscriber(&client, SubscriberOptions::passing(from)).await;
        expect(&mut reader, start..100).await;
    }
}

#[tokio::test]
async fn what_is_at_hand_comes_at_once() {
    let host = Running::peer("a", &["t"]).await;
    let client = host.client().await;
    publish(&client, 0..1_000).await;
    let options = SubscriberOptions::passing(Position::Beginning);
    let mut reader = subscriber(&client, options).await;
    let mut seen = 0;
    while seen < 1_000 {
        let deliveries = reader.next_many(300).await.expect("records");
        assert!((1..=300).contains(&deliveries.len()));
        for delivery in deliveries {
            assert!(matches!(delivery, Delivery::Record(r) if r.offset.get() == seen));
            seen += 1;
        }
    }
}

#[tokio::test]
async fn what_is_at_hand_is_looked_at_in_place() {
    let host = Running::peer("a", &["t"]).await;
    let client = host.client().await;
    publish(&client, 0..1_000).await;
    // Inside a batch, as far as there is one.
    let options = SubscriberOptions::passing(Position::Offset(Offset::new(7)));
    let mut reader = subscriber(&client, options).await;
    assert_eq!(reader.next_at_hand().expect("no error"), None);
    let mut seen = 7;
    while seen < 1_000 {
        reader.ready().await.expect("records");
        while seen % 100 != 0
            && let Some(delivery) = reader.next_at_hand().expect("no error")
        {
            let DeliveryRef::Record(received) = delivery else {
                panic!("{delivery:?}: nothing is missing");
            };
            assert_eq!(received.offset.get(), seen);
            assert_eq!(received.record.value, format!("{seen}").as_bytes());
            seen += 1;
            assert_eq!(reader.position().get(), seen);
        }
        if seen % 100 == 0 && seen < 1_000 {
            // Both ways of reading go on where the other was.
            let delivery = reader.next().await.expect("records");
            assert!(matches!(delivery, Delivery::Record(r) if r.offset.get() == seen));
            seen += 1;
        }
    }
    assert_eq!(seen, 1_000);
}

#[tokio::test]
async fn waiting_may_be_given_up_at_any_time() {
    let host = Running::peer("a", &["t"]).await;
    let client = host.client().await;
    let mut reader = subscriber(&client, from_beginning()).await;
    let writing = tokio::spawn({
        let client = client.clone();
        async move { publish(&client, 0..2_000).await }
    });
    let mut seen = 0;
    while seen < 2_000 {
        let within = Duration::from_micros(seen % 300);
        if let Some(delivery) = reader.next_within(within).await.expect("no error") {
            assert!(matches!(delivery, Delivery::Record(r) if r.offset.get() == seen));
            seen += 1;
        }
    }
    writing.await.expect("no panic");
}

#[tokio::test]
async fn a_durable_subscription_goes_on_where_it_was_committed() {
    let host = Running::peer("a", &["t"]).await;
    let client = host.client().await;
    publish(&client, 0..50).await;
    let missing = client.subscriber(&name("t"), durable(None)).await;
    let error = missing.expect_err("it was not made");
    assert_eq!(error.name(), "SubscriptionNotFound");
    let mut reader = subscriber(&client, durable(Some(Position::Beginning))).await;
    expect(&mut reader, 0..20).await;
    assert_eq!(reader.commit().await, Ok(Offset::new(20)));
    expect(&mut reader, 20..30).await;
    drop(reader);
    let mut reader = subscriber(&client, durable(None)).await;
    expect(&mut reader, 20..50).await;
    assert_eq!(reader.commit_to(Offset::new(25)).await, Ok(Offset::new(25)));
    let committed = reader.subscription().map(|s| s.committed_offset);
    assert_eq!(committed, Some(Offset::new(25)));
    let mut passing = subscriber(&client, from_beginning()).await;
    assert_eq!(
        passing.commit().await.expect_err("no name").name(),
        "InvalidArgument"
    );
}

#[tokio::test]
async fn seeking_moves_the_reader_and_the_subscription() {
    let host = Running::peer("a", &["t"]).await;
    let client = host.client().await;
    publish(&client, 0..50).await;
    for options in [durable(Some(Position::Beginning)), from_beginning()] {
        let mut reader = subscriber(&client, options).await;
        expect(&mut reader, 0..30).await;
        assert_eq!(reader.seek(Position::Back(45)).await, Ok(Offset::new(5)));
        expect(&mut reader, 5..50).await;
        if reader.subscription().is_some() {
            assert_eq!(reader.commit().await, Ok(Offset::new(50)));
        }
    }
}

#[tokio::test]
async fn a_subscription_moved_by_somebody_else_says_so() {
    let host = Running::peer("a", &["t"]).await;
    let client = host.client().await;
    publish(&client, 0..20).await;
    let mut reader = subscriber(&client, durable(Some(Position::Beginning))).await;
    expect(&mut reader, 0..20).await;
    let to = Position::Offset(Offset::new(3));
    let (topic, name) = (name("t"), subscription());
    let sought = client.seek_subscription(&topic, &name, to, true);
    assert_eq!(sought.await.expect("a trial").to, Offset::new(3));
    assert_eq!(reader.commit().await, Ok(Offset::new(20)));
    let sought = client.seek_subscription(&topic, &name, to, false);
    sought.await.expect("moved");
    let stale = reader.commit().await.expect_err("it was moved");
    assert_eq!(stale.name(), "StaleGeneration");
    assert_eq!(reader.reload().await, Ok(Offset::new(3)));
    expect(&mut reader, 3..20).await;
    assert_eq!(reader.commit().await, Ok(Offset::new(20)));
}

#[tokio::test]
async fn gaps_are_told_and_jumps_are_errors() {
    let host = Running::peer("a", &["t"]).await;
    let client = host.client().await;
    publish(&client, 0..10).await;
    host.change(&name("t"), |topic| topic.lose(5));
    publish(&client, 15..100).await;
    let mut reader = subscriber(&client, from_beginning()).await;
    expect(&mut reader, 0..10).await;
    let gap = Gap {
        from: Offset::new(10),
        to: Offset::new(15),
        reason: GapReason::Lost,
    };
    assert_eq!(next(&mut reader).await, Ok(Delivery::Gap(gap)));
    expect(&mut reader, 15..100).await;

    host.disk().fetch_fault = Some(FetchFault::LeaveOut);
    let mut reader = subscriber(&client, from_beginning()).await;
    let position = loop {
        let position = reader.position();
        match next(&mut reader).await {
            Ok(_) => assert!(reader.position() > position),
            Err(error) => {
                assert_eq!(error.name(), "UnexplainedGap", "{error}");
                break position;
            }
        }
    };
    assert_eq!(reader.position(), position, "an error moves nothing");
    host.disk().fetch_fault = None;
    while reader.position().get() < 100 {
        next(&mut reader).await.expect("it goes on");
    }
}

#[tokio::test]
async fn a_place_inside_a_gap_tells_the_rest_of_it() {
    let host = Running::peer("a", &["t"]).await;
    let client = host.client().await;
    host.change(&name("t"), |topic| topic.lose(10));
    publish(&client, 10..20).await;
    let from = Position::Offset(Offset::new(4));
    let mut reader = subscriber(&client, SubscriberOptions::passing(from)).await;
    let delivery = next(&mut reader).await.expect("a gap");
    assert!(matches!(delivery, Delivery::Gap(gap) if gap.from.get() == 4 && gap.to.get() == 10));
    expect(&mut reader, 10..20).await;
}

/// A subscriber that retention has overtaken was told "malformed answer" for ever:
/// what is kept began inside a batch, and only the very first item was allowed to.
#[tokio::test]
async fn what_is_kept_may_begin_inside_a_batch() {
    let host = Running::peer("a", &["t"]).await;
    let client = host.client().await;
    publish(&client, 0..100).await;
    let mut reader = subscriber(&client, from_beginning()).await;
    let kept = host.change(&name("t"), |topic| topic.discard_into_a_batch());
    let gap = Gap {
        from: Offset::ZERO,
        to: kept,
        reason: GapReason::Discarded,
    };
    assert_eq!(next(&mut reader).await, Ok(Delivery::Gap(gap)));
    expect(&mut reader, kept.get() as usize..100).await;
}

#[tokio::test]
async fn a_changed_byte_never_comes_out() {
    let host = Running::peer("a", &["t"]).await;
    let client = host.client().await;
    publish(&client, 0..10).await;
    host.disk().fetch_fault = Some(FetchFault::Corrupt);
    let mut reader = subscriber(&client, from_beginning()).await;
    let error = next(&mut reader).await.expect_err("the checksum is wrong");
    assert_eq!(error.name(), "MalformedAnswer", "{error}");
    host.disk().fetch_fault = None;
    expect(&mut reader, 0..10).await;
}

#[tokio::test]
async fn an_offset_past_the_end_is_an_error() {
    let host = Running::peer("a", &["t"]).await;
    let client = host.client().await;
    publish(&client, 0..10).await;
    let mut reader = subscriber(&client, SubscriberOptions::default()).await;
    host.change(&name("t"), |topic| topic.end = Offset::new(5));
    let error = next(&mut reader).await.expect_err("past the end");
    assert_eq!(error.name(), "OffsetOutOfRange");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restarts_and_moves_of_the_host_are_not_noticed() {
    let host = Running::peer("a", &["t"]).await;
    let client = host.client().await;
    publish(&client, 0..100).await;
    let mut reader = subscriber(&client, durable(Some(Position::Beginning))).await;
    expect(&mut reader, 0..50).await;
    let node = host.kill().await;
    let restarting = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(100)).await;
        Running::restart(node).await
    });
    // What is at hand needs no host; then it waits for it.
    expect(&mut reader, 50..100).await;
    assert_eq!(reader.commit().await, Ok(Offset::new(100)));
    let old = restarting.await.expect("no panic");
    publish(&client, 100..150).await;
    expect(&mut reader, 100..150).await;

    let new = Running::peer("newer", &["t"]).await;
    let epoch = LeaderEpoch::new(2);
    old.change(&name("t"), |from| {
        new.change(&name("t"), |to| std::mem::swap(from, to));
        from.id = new.change(&name("t"), |to| to.id);
        from.moved = Some((new.info.clone(), epoch));
    });
    new.change(&name("t"), |topic| topic.epoch = epoch);
    publish(&client, 150..200).await;
    expect(&mut reader, 150..200).await;
    assert_eq!(reader.commit().await, Ok(Offset::new(200)));
}

/// Whoever waits for a little at a time never came so far as to ask where the topic is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_for_a_little_at_a_time_finds_a_host_that_moved() {
    const LITTLE: Duration = Duration::from_millis(50);
    let index = Running::start(Role::Index, "index", &[], Vec::new()).await;
    let old = Running::peer("a", &["t"]).await;
    let here = |host: &Running| {
        let location = host.location(&name("t")).expect("it hosts it");
        index.disk().elsewhere.insert(name("t"), location);
    };
    here(&old);
    let client = index.client().await;
    publish(&client, 0..10).await;
    let mut reader = subscriber(&client, from_beginning()).await;
    expect(&mut reader, 0..10).await;
    let old = old.kill().await;
    // Until it tries again more seldom than it is waited for.
    let lookups = index.disk().lookups;
    for _ in 0..20 {
        assert_eq!(reader.next_within(LITTLE).await, Ok(None));
    }
    assert!(index.disk().lookups > lookups);
    let new = Running::peer("newer", &["t"]).await;
    old.change(&name("t"), |from| {
        new.change(&name("t"), |to| std::mem::swap(from, to));
    });
    here(&new);
    publish(&new.client().await, 10..20).await;
    let deadline = std::time::Instant::now() + SOON;
    let mut seen = 10;
    while seen < 20 {
        assert!(std::time::Instant::now() < deadline, "it is not found");
        if let Some(delivery) = reader.next_within(LITTLE).await.expect("no error") {
            assert!(matches!(delivery, Delivery::Record(r) if r.offset.get() == seen));
            seen += 1;
        }
    }
}

/// A way to a node on which the hello takes that long.
async fn long_way_to(host: &Running, delay: Duration) -> Address {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound").into();
    let host = host.address();
    tokio::spawn(async move {
        while let Ok((mut from, _)) = listener.accept().await {
            let host = host.clone();
            tokio::spawn(async move {
                tokio::time::sleep(delay).await;
                let mut to = TcpStream::connect(host.as_str()).await.expect("it runs");
                let _ = tokio::io::copy_bidirectional(&mut from, &mut to).await;
            });
        }
    });
    address
}

/// Each wait began to dial anew.
#[tokio::test]
async fn who_waits_for_a_little_at_a_time_gets_over_a_long_way() {
    let host = Running::peer("a", &["t"]).await;
    publish(&host.client().await, 0..10).await;
    let mut location = host.location(&name("t")).expect("it hosts it");
    location.address = long_way_to(&host, Duration::from_millis(300)).await;
    let client = host.client().await;
    client.cluster.learn(location);
    let mut reader = subscriber(&client, from_beginning()).await;
    let deadline = std::time::Instant::now() + SOON;
    let mut seen = 0;
    while seen < 10 {
        assert!(
            std::time::Instant::now() < deadline,
            "it does not get there"
        );
        let within = Duration::from_millis(50);
        if let Some(delivery) = reader.next_within(within).await.expect("no error") {
            assert!(matches!(delivery, Delivery::Record(r) if r.offset.get() == seen));
            seen += 1;
        }
    }
}

#[tokio::test]
async fn a_host_that_is_away_at_the_beginning_is_waited_for() {
    let host = Running::peer("a", &["t"]).await;
    let client = host.client().await;
    publish(&client, 0..10).await;
    let node = host.kill().await;
    let restarting = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(100)).await;
        Running::restart(node).await
    });
    let mut reader = subscriber(&client, durable(Some(Position::Beginning))).await;
    expect(&mut reader, 0..10).await;
    restarting.await.expect("no panic");
}

#[tokio::test]
async fn a_host_that_stays_away_is_an_error_and_the_reader_stays_usable() {
    let host = Running::peer("a", &["t"]).await;
    let client = host.client_with(Duration::from_millis(300)).await;
    publish(&client, 0..10).await;
    let mut reader = subscriber(&client, from_beginning()).await;
    expect(&mut reader, 0..10).await;
    let node = host.kill().await;
    let error = next(&mut reader).await.expect_err("it is away");
    assert!(error.is_retryable(), "{error}");
    let host = Running::restart(node).await;
    publish(&host.client().await, 10..20).await;
    expect(&mut reader, 10..20).await;
}

/// Pauses the subscription at the host, or lets it go on.
fn pause(host: &Running, paused: bool) {
    host.change(&name("t"), |topic| {
        let subscription = topic.subscriptions.get_mut(&subscription());
        subscription.expect("it is there").paused = paused;
    });
}

async fn until_paused(subscriber: &Subscriber, wanted: bool) {
    let mut told = subscriber.watch_pause().expect("it is durable");
    let is_so = tokio::time::timeout(SOON, told.wait_for(|paused| *paused == wanted)).await;
    is_so.expect("in time").expect("it is attended");
}

/// Nothing comes, for long enough to tell.
async fn expect_nothing(subscriber: &mut Subscriber) {
    let quiet = Duration::from_millis(100);
    let nothing = subscriber.next_within(quiet).await;
    assert_eq!(nothing.expect("no error"), None);
}

#[tokio::test]
async fn a_paused_subscription_hands_out_nothing_until_it_is_resumed() {
    let host = Running::peer("a", &["t"]).await;
    let client = host.client().await;
    publish(&client, 0..40).await;
    let options = SubscriberOptions {
        max_bytes: 1_000,
        ..durable(Some(Position::Beginning))
    };
    let mut reader = subscriber(&client, options.clone()).await;
    expect(&mut reader, 0..3).await;
    pause(&host, true);
    until_paused(&reader, true).await;
    // There is something at hand, and more at the host.
    expect_nothing(&mut reader).await;
    assert_eq!(reader.next_at_hand().expect("no error"), None);
    let waiting = tokio::time::timeout(Duration::from_millis(50), reader.ready()).await;
    waiting.expect_err("nothing is to be handed out");
    // What was handed out counts.
    assert_eq!(reader.commit().await.expect("committed").get(), 3);
    // Who comes while it is paused waits from the start; and so it is after the host was away.
    let mut late = subscriber(&client, durable(None)).await;
    expect_nothing(&mut late).await;
    let host = Running::restart(host.kill().await).await;
    expect_nothing(&mut reader).await;
    publish(&client, 40..50).await;
    expect_nothing(&mut late).await;
    pause(&host, false);
    expect(&mut reader, 3..50).await;
    expect(&mut late, 3..50).await;
}

#[tokio::test]
async fn many_at_once_stop_at_a_pause_too() {
    let host = Running::peer("a", &["t"]).await;
    let client = host.client().await;
    publish(&client, 0..40).await;
    let mut reader = subscriber(&client, durable(Some(Position::Beginning))).await;
    pause(&host, true);
    until_paused(&reader, true).await;
    let none = tokio::time::timeout(Duration::from_millis(50), reader.next_many(100)).await;
    none.expect_err("nothing is to be handed out");
    pause(&host, false);
    until_paused(&reader, false).await;
    let all = tokio::time::timeout(SOON, reader.next_many(100)).await;
    assert!(!all.expect("in time").expect("records").is_empty());
}

#[tokio::test]
async fn a_subscription_that_is_gone_is_told_by_the_commit() {
    let host = Running::peer("a", &["t"]).await;
    let client = host.client().await;
    publish(&client, 0..10).await;
    let mut reader = subscriber(&client, durable(Some(Position::Beginning))).await;
    pause(&host, true);
    until_paused(&reader, true).await;
    host.change(&name("t"), |topic| topic.subscriptions.clear());
    expect(&mut reader, 0..10).await;
    let refused = reader.commit().await.expect_err("it is gone");
    assert_eq!(refused.name(), "SubscriptionNotFound");
}
