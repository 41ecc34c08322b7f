//! Patterns: all topics that match, each in order, those made later too, and nobody starves.

use std::collections::BTreeMap;
use std::time::Duration;

use super::node::{Running, SOON, name};
use crate::client::{
    Client, ClientError, Delivery, Message, NewTopic, PatternEvent, PatternOptions,
    PatternSubscriber, PublisherOptions,
};
use crate::limits;
use crate::protocol::api::{Position, Role};
use crate::types::{Address, Offset, SubscriptionName, TopicName};

async fn publish(client: &Client, topic: &str, range: std::ops::Range<u64>) {
    let options = PublisherOptions {
        batch_bytes: 300,
        ..PublisherOptions::default()
    };
    let publisher = client.publisher(&name(topic), options).await;
    let publisher = publisher.expect("there");
    for n in range {
        let message = Message::new(format!("{topic} {n}"));
        publisher.send(message).await.expect("taken");
    }
    publisher.close().await.expect("stored");
}

async fn follow(client: &Client, pattern: &str, options: PatternOptions) -> PatternSubscriber {
    let pattern = pattern.parse().expect("a pattern");
    let following = client.pattern_subscriber(&pattern, options);
    let following = tokio::time::timeout(SOON, following).await;
    following.expect("in time").expect("it follows")
}

fn from(place: Position) -> PatternOptions {
    PatternOptions {
        from: Some(place),
        ..PatternOptions::default()
    }
}

fn durable(from: Option<Position>) -> PatternOptions {
    PatternOptions {
        name: Some(subscription()),
        from,
        ..PatternOptions::default()
    }
}

fn subscription() -> SubscriptionName {
    "map".parse().expect("a good name")
}

async fn next(subscriber: &mut PatternSubscriber) -> PatternEvent {
    let next = tokio::time::timeout(SOON, subscriber.next_event(100));
    next.await.expect("in time").expect("an event")
}

/// Where each topic is expected to go on.
type Positions = BTreeMap<TopicName, u64>;

/// Takes a record or gap and checks that it goes on where its topic stood.
fn take(event: &PatternEvent, positions: &mut Positions) -> usize {
    let PatternEvent::Deliveries(some) = event else {
        return 0;
    };
    for delivery in &some.deliveries {
        let at = positions.entry(some.topic.clone()).or_default();
        match delivery {
            Delivery::Record(record) => {
                assert_eq!(record.offset.get(), *at, "{}", some.topic);
                assert_eq!(record.value, format!("{} {at}", some.topic));
                *at += 1;
            }
            Delivery::Gap(gap) => {
                assert_eq!(gap.from.get(), *at, "{}", some.topic);
                *at = gap.to.get();
            }
        }
    }
    some.deliveries.len()
}

/// Follows until every topic stands there.
async fn until(
    subscriber: &mut PatternSubscriber,
    positions: &mut Positions,
    goals: &[(&str, u64)],
) {
    let is_there = |positions: &Positions| {
        let at = |topic: &str| positions.get(&name(topic)).copied().unwrap_or(0);
        goals.iter().all(|(topic, goal)| at(topic) >= *goal)
    };
    let deadline = std::time::Instant::now() + SOON;
    while !is_there(positions) {
        assert!(std::time::Instant::now() < deadline, "{positions:?}");
        let event = next(subscriber).await;
        take(&event, positions);
    }
}

async fn index_of(peers: &[&Running]) -> Running {
    let index = Running::start(Role::Index, "index", &[], Vec::new()).await;
    tell(&index, peers, &[]);
    index
}

/// The index hears what the peers host now, and its watchers of what is new.
fn tell(index: &Running, peers: &[&Running], news: &[&str]) {
    let mut disk = index.disk();
    disk.peers = peers.iter().map(|peer| peer.info.clone()).collect();
    disk.elsewhere.clear();
    for peer in peers {
        let names: Vec<TopicName> = peer.disk().topics.keys().cloned().collect();
        for topic in names {
            let location = peer.location(&topic).expect("it hosts it");
            disk.elsewhere.insert(topic, location);
        }
    }
    drop(disk);
    index.tell_news(news);
}

#[tokio::test]
async fn all_that_match_are_followed_at_all_peers_and_nothing_else() {
    let peers = [
        Running::peer("a", &["q.a", "q.b", "other"]).await,
        Running::peer("bb", &["q.c", "q.d.e"]).await,
    ];
    let index = index_of(&[&peers[0], &peers[1]]).await;
    let client = index.client().await;
    for topic in ["q.a", "q.b", "other", "q.c", "q.d.e"] {
        publish(&client, topic, 0..50).await;
    }
    let mut positions = Positions::new();
    let mut all = follow(&client, "q.>", from(Position::Beginning)).await;
    assert_eq!((all.topics(), all.started().topics), (4, 4));
    let goals = [("q.a", 50), ("q.b", 50), ("q.c", 50), ("q.d.e", 50)];
    until(&mut all, &mut positions, &goals).await;
    assert_eq!(positions.len(), 4);
    publish(&client, "q.c", 50..60).await;
    publish(&client, "other", 50..60).await;
    until(&mut all, &mut positions, &[("q.c", 60)]).await;
    assert_eq!(positions.len(), 4);

    let mut new = follow(&client, "q.*", PatternOptions::default()).await;
    publish(&client, "q.a", 50..51).await;
    let (topic, delivery) = new.next().await.expect("a record");
    assert_eq!(topic, name("q.a"));
    assert!(matches!(delivery, Delivery::Record(record) if record.offset.get() == 50));
}

#[tokio::test]
async fn what_is_to_end_ends_where_the_topics_ended() {
    let peer = Running::peer("a", &["q.a", "q.b", "q.c"]).await;
    let index = index_of(&[&peer]).await;
    let client = index.client().await;
    publish(&client, "q.a", 0..20).await;
    publish(&client, "q.b", 0..5).await;
    let options = PatternOptions {
        until_end: true,
        ..from(Position::Beginning)
    };
    let mut some = follow(&client, "q.*", options.clone()).await;
    publish(&client, "q.a", 20..40).await;
    let mut positions = Positions::new();
    loop {
        match next(&mut some).await {
            PatternEvent::Ended => break,
            event => _ = take(&event, &mut positions),
        }
    }
    let told: Vec<_> = positions.into_iter().collect();
    assert_eq!(told, [(name("q.a"), 20), (name("q.b"), 5)]);
    assert_eq!(some.next().await, Err(ClientError::Closed));
    let mut none = follow(&client, "nothing.*", options).await;
    assert_eq!(next(&mut none).await, PatternEvent::Ended);
}

#[tokio::test]
async fn topics_made_later_are_found_from_their_beginning_and_deleted_ones_let_go() {
    let peer = Running::peer("a", &["q.a"]).await;
    let index = index_of(&[&peer]).await;
    let client = index.client().await;
    let mut all = follow(&client, "q.*", PatternOptions::default()).await;
    let made = client.create_topic(&NewTopic::new(name("q.b"))).await;
    made.expect("made");
    tell(&index, &[&peer], &[]);
    // It is full before anybody hears of it.
    publish(&client, "q.b", 0..30).await;
    index.tell_news(&["q.b"]);
    let mut positions = Positions::new();
    assert_eq!(next(&mut all).await, PatternEvent::Found(name("q.b")));
    until(&mut all, &mut positions, &[("q.b", 30)]).await;
    publish(&client, "q.b", 30..40).await;
    until(&mut all, &mut positions, &[("q.b", 40)]).await;

    peer.disk().topics.remove(&name("q.b"));
    tell(&index, &[&peer], &["q.b"]);
    assert_eq!(next(&mut all).await, PatternEvent::Gone(name("q.b")));
    assert_eq!(all.topics(), 1);
    // Made anew it is another topic.
    let made = client.create_topic(&NewTopic::new(name("q.b"))).await;
    made.expect("made");
    tell(&index, &[&peer], &[]);
    publish(&client, "q.b", 0..3).await;
    index.tell_news(&["q.b"]);
    assert_eq!(next(&mut all).await, PatternEvent::Found(name("q.b")));
    positions.clear();
    until(&mut all, &mut positions, &[("q.b", 3)]).await;
}

#[tokio::test]
async fn a_topic_with_another_name_goes_on_where_it_was() {
    let peer = Running::peer("a", &["q.a"]).await;
    let index = index_of(&[&peer]).await;
    let client = index.client().await;
    publish(&client, "q.a", 0..10).await;
    let mut all = follow(&client, "q.*", from(Position::Beginning)).await;
    let mut positions = Positions::new();
    until(&mut all, &mut positions, &[("q.a", 10)]).await;
    let topic = peer.disk().topics.remove(&name("q.a")).expect("there");
    peer.disk().topics.insert(name("q.z"), topic);
    tell(&index, &[&peer], &["q.a", "q.z"]);
    // The first of them may be read before its new name is heard of; none is missing, and soon they come under it.
    let mut heard_as = name("q.a");
    for n in 10.. {
        publish(&client, "q.z", n..n + 1).await;
        let some = loop {
            if let PatternEvent::Deliveries(some) = next(&mut all).await {
                break some;
            }
        };
        let [Delivery::Record(record)] = &some.deliveries[..] else {
            panic!("one was published: {some:?}");
        };
        assert_eq!(record.offset, Offset::new(n));
        assert_eq!(record.value, format!("q.z {n}"));
        if heard_as == name("q.z") && n >= 20 {
            break;
        }
        heard_as = some.topic;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(all.topics(), 1);
}

#[tokio::test]
async fn a_busy_topic_does_not_keep_others_waiting() {
    let count = limits::PATTERN_READERS_MAX + 20;
    let topics: Vec<String> = (0..count).map(|n| format!("q.{n}")).collect();
    let names: Vec<&str> = topics.iter().map(String::as_str).collect();
    let peer = Running::peer("a", &names).await;
    let index = index_of(&[&peer]).await;
    let client = index.client().await;
    publish(&client, "q.0", 0..5_000).await;
    for topic in &names[1..] {
        publish(&client, topic, 0..10).await;
    }
    let mut all = follow(&client, "q.*", from(Position::Beginning)).await;
    let mut positions = Positions::new();
    let goals: Vec<(&str, u64)> = names[1..].iter().map(|topic| (*topic, 10)).collect();
    until(&mut all, &mut positions, &goals).await;
    assert!(all.readers() <= limits::PATTERN_READERS_MAX);
    until(&mut all, &mut positions, &[("q.0", 5_000)]).await;
    // At rest, one of those without a reader has more.
    for topic in [names[count - 1], names[1], names[40]] {
        publish(&client, topic, 10..11).await;
        until(&mut all, &mut positions, &[(topic, 11)]).await;
    }
}

#[tokio::test]
async fn what_rests_costs_a_request_at_a_time() {
    let topics: Vec<String> = (0..200).map(|n| format!("q.{n}")).collect();
    let names: Vec<&str> = topics.iter().map(String::as_str).collect();
    let peer = Running::peer("a", &names).await;
    let index = index_of(&[&peer]).await;
    let client = index.client().await;
    let mut all = follow(&client, "q.*", PatternOptions::default()).await;
    publish(&client, "q.7", 0..1).await;
    let mut positions = Positions::new();
    until(&mut all, &mut positions, &[("q.7", 1)]).await;
    let disk = peer.disk();
    // All ends once, then the one that moved; one topic was read.
    assert!(disk.ends_told <= 201, "{}", disk.ends_told);
    assert!(disk.streams <= 3, "{}", disk.streams);
}

#[tokio::test]
async fn a_peer_that_is_killed_is_followed_again_and_others_meanwhile() {
    let peers = [
        Running::peer("a", &["q.a", "q.b"]).await,
        Running::peer("bb", &["q.c"]).await,
    ];
    let index = index_of(&[&peers[0], &peers[1]]).await;
    let client = index.client().await;
    publish(&client, "q.a", 0..10).await;
    let mut all = follow(&client, "q.*", from(Position::Beginning)).await;
    let mut away = all.watch_away();
    let mut positions = Positions::new();
    until(&mut all, &mut positions, &[("q.a", 10)]).await;
    let [a, b] = peers;
    let dead = a.kill().await;
    publish(&client, "q.c", 0..5).await;
    until(&mut all, &mut positions, &[("q.c", 5)]).await;
    // It is noticed while others are followed.
    let noticing = async {
        loop {
            all.next_event(1).await.expect("nothing fails");
        }
    };
    tokio::select! {
        () = noticing => {}
        told = away.wait_for(|away| !away.is_empty()) => assert_eq!(told.expect("told").len(), 1),
    }
    let a = Running::restart(dead).await;
    publish(&client, "q.a", 10..20).await;
    publish(&client, "q.b", 0..20).await;
    until(&mut all, &mut positions, &[("q.a", 20), ("q.b", 20)]).await;
    assert!(away.borrow_and_update().is_empty());
    drop((a, b));
}

#[tokio::test]
async fn without_an_index_a_peer_is_asked_and_nothing_is_let_go() {
    let peer = Running::peer("a", &["q.a"]).await;
    let index = index_of(&[&peer]).await;
    let through = Running::start(Role::Peer, "bb", &["q.b"], vec![index.address()]).await;
    tell(&index, &[&peer, &through], &[]);
    let client = through.client().await;
    publish(&index.client().await, "q.a", 0..5).await;
    let mut all = follow(&client, "q.*", from(Position::Beginning)).await;
    assert_eq!(all.topics(), 2, "the index is found through the peer");
    let mut positions = Positions::new();
    until(&mut all, &mut positions, &[("q.a", 5)]).await;
    let dead = index.kill().await;
    publish(&peer.client().await, "q.a", 5..10).await;
    publish(&through.client().await, "q.b", 0..10).await;
    until(&mut all, &mut positions, &[("q.a", 10), ("q.b", 10)]).await;
    // Without any index at all, what the peer knows is followed.
    let mut alone = follow(&client, "q.*", from(Position::Beginning)).await;
    until(&mut alone, &mut Positions::new(), &[("q.b", 10)]).await;
    assert_eq!(alone.topics(), 1);
    // The index is back, without anything at first.
    dead.disk().elsewhere.clear();
    let index = Running::restart(dead).await;
    publish(&peer.client().await, "q.a", 10..11).await;
    until(&mut all, &mut positions, &[("q.a", 11)]).await;
    assert_eq!(all.topics(), 2);
    tell(&index, &[&peer, &through], &["q.a", "q.b"]);
    until(&mut alone, &mut Positions::new(), &[("q.a", 11)]).await;
}

#[tokio::test]
async fn durable_ones_go_on_where_they_were_and_take_in_what_was_made_meanwhile() {
    let peer = Running::peer("a", &["q.a", "q.b"]).await;
    let index = index_of(&[&peer]).await;
    let client = index.client().await;
    publish(&client, "q.a", 0..10).await;
    publish(&client, "q.b", 0..10).await;
    let mut first = follow(&client, "q.*", durable(Some(Position::Beginning))).await;
    let started = first.started();
    assert_eq!((started.topics, started.resumed, started.made()), (2, 0, 2));
    let mut positions = Positions::new();
    until(&mut first, &mut positions, &[("q.a", 10), ("q.b", 10)]).await;
    assert_eq!(first.commit().await, Ok(0));
    publish(&client, "q.a", 10..20).await;
    until(&mut first, &mut positions, &[("q.a", 20)]).await;
    // What was handed out and not confirmed comes again.
    drop(first);
    let made = client.create_topic(&NewTopic::new(name("q.c"))).await;
    made.expect("made");
    tell(&index, &[&peer], &["q.c"]);
    publish(&client, "q.c", 0..5).await;
    let mut second = follow(&client, "q.*", durable(None)).await;
    let started = second.started();
    assert_eq!((started.topics, started.resumed, started.made()), (3, 2, 1));
    let mut positions = Positions::from([(name("q.a"), 10), (name("q.b"), 10)]);
    until(&mut second, &mut positions, &[("q.a", 20), ("q.c", 5)]).await;
    assert_eq!(second.commit().await, Ok(0));
    assert_eq!(second.commit().await, Ok(0), "nothing is left");
    let committed = |topic: &str| {
        let disk = peer.disk();
        let found = disk.topics[&name(topic)].subscriptions.get(&subscription());
        found.map(|found| found.committed_offset.get())
    };
    let all = ["q.a", "q.b", "q.c"].map(committed);
    assert_eq!(all, [Some(20), Some(10), Some(5)]);
}

#[tokio::test]
async fn a_subscription_that_somebody_moves_is_followed_there() {
    let peer = Running::peer("a", &["q.a"]).await;
    let index = index_of(&[&peer]).await;
    let client = index.client().await;
    publish(&client, "q.a", 0..10).await;
    let mut all = follow(&client, "q.*", durable(Some(Position::Beginning))).await;
    let mut positions = Positions::new();
    until(&mut all, &mut positions, &[("q.a", 10)]).await;
    let to = Position::Offset(Offset::new(4));
    let moved = client
        .seek_subscription(&name("q.a"), &subscription(), to, false)
        .await;
    moved.expect("moved");
    assert_eq!(all.commit().await, Ok(0));
    let event = next(&mut all).await;
    let offset = Offset::new(4);
    let topic = name("q.a");
    assert_eq!(event, PatternEvent::Moved { topic, offset });
    positions.insert(name("q.a"), 4);
    until(&mut all, &mut positions, &[("q.a", 10)]).await;
}

#[tokio::test]
async fn what_is_damaged_is_given_up_and_told_and_others_go_on() {
    let peer = Running::peer("a", &["q.a", "q.b"]).await;
    let index = index_of(&[&peer]).await;
    let client = index.client().await;
    publish(&client, "q.a", 0..10).await;
    peer.disk().fetch_fault = Some(super::node::FetchFault::Corrupt);
    let mut all = follow(&client, "q.*", from(Position::Beginning)).await;
    match next(&mut all).await {
        PatternEvent::Failed { topic, .. } => assert_eq!(topic, name("q.a")),
        event => panic!("{event:?}"),
    }
    peer.disk().fetch_fault = None;
    publish(&client, "q.b", 0..10).await;
    until(&mut all, &mut Positions::new(), &[("q.b", 10)]).await;
}

/// What came before the damage was forgotten, and came again each time.
#[tokio::test]
async fn what_was_handed_out_of_a_topic_that_is_given_up_can_be_confirmed() {
    let peer = Running::peer("a", &["q.a"]).await;
    let index = index_of(&[&peer]).await;
    let client = index.client().await;
    publish(&client, "q.a", 0..10).await;
    let mut all = follow(&client, "q.*", durable(Some(Position::Beginning))).await;
    until(&mut all, &mut Positions::new(), &[("q.a", 10)]).await;
    peer.disk().fetch_fault = Some(super::node::FetchFault::Corrupt);
    publish(&client, "q.a", 10..20).await;
    let event = next(&mut all).await;
    assert!(matches!(event, PatternEvent::Failed { .. }), "{event:?}");
    assert_eq!(all.commit().await, Ok(0));
    let disk = peer.disk();
    let committed = &disk.topics[&name("q.a")].subscriptions[&subscription()];
    assert_eq!(committed.committed_offset, Offset::new(10));
}

/// What was published between the start and the return of such a peer was passed over without a word.
#[tokio::test]
async fn a_peer_that_goes_away_while_it_begins_is_followed_from_then_on() {
    let peer = Running::peer("a", &["q.a"]).await;
    let index = index_of(&[&peer]).await;
    let client = index.client().await;
    peer.disk().makes_no_subscriptions = true;
    let mut all = follow(&client, "q.*", durable(None)).await;
    publish(&client, "q.a", 0..10).await;
    peer.disk().makes_no_subscriptions = false;
    until(&mut all, &mut Positions::new(), &[("q.a", 10)]).await;
}

/// Records behind the end came along with a gap in front of it.
#[tokio::test]
async fn what_is_to_end_ends_there_behind_a_gap_too() {
    let peer = Running::peer("a", &["q.a"]).await;
    let index = index_of(&[&peer]).await;
    let client = index.client().await;
    publish(&client, "q.a", 0..5).await;
    peer.change(&name("q.a"), |topic| topic.lose(10));
    publish(&client, "q.a", 15..20).await;
    let options = PatternOptions {
        until_end: true,
        ..from(Position::Beginning)
    };
    let mut some = follow(&client, "q.*", options).await;
    publish(&client, "q.a", 20..40).await;
    let mut positions = Positions::new();
    loop {
        match next(&mut some).await {
            PatternEvent::Ended => break,
            event => _ = take(&event, &mut positions),
        }
    }
    assert_eq!(positions[&name("q.a")], 20);
}

/// The one made anew was counted in the place of one that was still to be read.
#[tokio::test]
async fn what_is_to_end_waits_for_all_of_its_topics_where_one_is_made_anew() {
    let peer = Running::peer("a", &["q.a"]).await;
    let other = Running::peer("bb", &["q.b"]).await;
    let index = index_of(&[&peer, &other]).await;
    let client = index.client().await;
    publish(&client, "q.a", 0..5).await;
    publish(&client, "q.b", 0..5).await;
    let other = other.kill().await;
    let options = PatternOptions {
        until_end: true,
        ..from(Position::Beginning)
    };
    let mut all = follow(&client, "q.*", options).await;
    peer.disk().topics.remove(&name("q.a"));
    let made = peer.client().await;
    let made = made.create_topic(&NewTopic::new(name("q.a"))).await;
    made.expect("made");
    tell(&index, &[&peer], &[]);
    let location = other.location(&name("q.b")).expect("it hosts it");
    index.disk().elsewhere.insert(name("q.b"), location);
    let mut events = Vec::new();
    while let Ok(event) = tokio::time::timeout(Duration::from_secs(2), all.next_event(100)).await {
        let event = event.expect("an event");
        assert_ne!(event, PatternEvent::Ended, "after {events:?}");
        events.push(event);
    }
    assert_eq!(events, [PatternEvent::Gone(name("q.a"))]);
    let _other = Running::restart(other).await;
    let mut positions = Positions::new();
    until(&mut all, &mut positions, &[("q.b", 5)]).await;
    assert_eq!(next(&mut all).await, PatternEvent::Ended);
}

#[tokio::test]
async fn what_has_to_end_does_not_wait_for_a_peer_for_ever() {
    let peer = Running::peer("a", &["q.a"]).await;
    let index = index_of(&[&peer]).await;
    let client = index.client().await;
    publish(&client, "q.a", 0..10).await;
    let address: Address = peer.address();
    peer.kill().await;
    let options = PatternOptions {
        until_end: true,
        timeout: Some(Duration::from_millis(300)),
        ..from(Position::Beginning)
    };
    let mut all = follow(&client, "q.*", options).await;
    assert_eq!(all.started().away, 1, "{address}");
    let waiting = tokio::time::timeout(SOON, all.next_event(1)).await;
    let error = waiting.expect("in time").expect_err("it is away");
    assert!(error.to_string().contains("peer a"), "{error}");
}

#[tokio::test]
async fn what_is_paused_waits_and_the_others_go_on() {
    let peer = Running::peer("a", &["q.a", "q.b"]).await;
    let index = index_of(&[&peer]).await;
    let client = index.client().await;
    let mut positions = Positions::new();
    let mut all = follow(&client, "q.*", durable(Some(Position::Beginning))).await;
    publish(&client, "q.a", 0..10).await;
    until(&mut all, &mut positions, &[("q.a", 10)]).await;

    pause(&peer, "q.a", true);
    wait_for(&mut all, &PatternEvent::Paused(name("q.a"))).await;
    publish(&client, "q.a", 10..20).await;
    publish(&client, "q.b", 0..10).await;
    until(&mut all, &mut positions, &[("q.b", 10)]).await;
    let quiet = Duration::from_millis(100);
    let nothing = tokio::time::timeout(quiet, all.next_event(100)).await;
    assert!(nothing.is_err(), "{nothing:?}");

    // Whoever comes while it is paused waits from the start.
    all.commit().await.expect("committed");
    let mut new = follow(&client, "q.*", durable(None)).await;
    assert_eq!(next(&mut new).await, PatternEvent::Paused(name("q.a")));
    let nothing = tokio::time::timeout(quiet, new.next_event(100)).await;
    assert!(nothing.is_err(), "{nothing:?}");

    pause(&peer, "q.a", false);
    wait_for(&mut all, &PatternEvent::Resumed(name("q.a"))).await;
    until(&mut all, &mut positions, &[("q.a", 20)]).await;
    let mut positions = BTreeMap::from([(name("q.a"), 10), (name("q.b"), 10)]);
    until(&mut new, &mut positions, &[("q.a", 20)]).await;
}

/// Pauses the subscription on a topic, or lets it go on.
fn pause(host: &Running, topic: &str, paused: bool) {
    host.change(&name(topic), |topic| {
        let found = topic.subscriptions.get_mut(&subscription());
        found.expect("it is there").paused = paused;
    });
}

/// Nothing but that is told.
async fn wait_for(subscriber: &mut PatternSubscriber, expected: &PatternEvent) {
    assert_eq!(next(subscriber).await, *expected);
}
