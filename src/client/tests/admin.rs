//! Finding one's way, and the calls that go through the directory.

use std::time::Duration;

use super::node::{Running, SOON, name};
use crate::client::{Client, ClientError, ConnectOptions, Message, NewTopic, PublisherOptions};
use crate::protocol::api::{PeerState, Position, Role};
use crate::types::{Address, TopicPattern};

fn nowhere() -> Address {
    // The discard port: nobody listens there.
    "127.0.0.1:9".parse().expect("an address")
}

/// An index server that knows what `peers` host.
async fn index_of(peers: &[&Running]) -> Running {
    let index = Running::start(Role::Index, "index", &[], Vec::new()).await;
    tell(&index, peers);
    index
}

fn tell(index: &Running, peers: &[&Running]) {
    let mut disk = index.disk();
    disk.peers = peers.iter().map(|peer| peer.info.clone()).collect();
    for peer in peers {
        let names: Vec<_> = peer.disk().topics.keys().cloned().collect();
        for topic in names {
            let location = peer.location(&topic).expect("it is there");
            disk.elsewhere.insert(topic, location);
        }
    }
}

#[tokio::test]
async fn seeds_are_tried_one_after_the_other() {
    let peer = Running::peer("a", &["t"]).await;
    let options = ConnectOptions::new(vec![nowhere(), peer.address()]);
    let client = Client::connect(options).await.expect("the second is there");
    assert_eq!(
        (client.seed().role, client.seed().name),
        (Role::Peer, "a".to_owned())
    );
    client.lookup(&name("t")).await.expect("it hosts it");
    for seeds in [vec![], vec![nowhere()], vec![nowhere(), nowhere()]] {
        let error = Client::connect(ConnectOptions::new(seeds)).await;
        assert_eq!(error.expect_err("nobody is there").code(), 90);
    }
}

#[tokio::test]
async fn a_topic_is_found_through_the_index_and_used_without_it() {
    let peer = Running::peer("a", &["t"]).await;
    let index = index_of(&[&peer]).await;
    let client = index.client_with(SOON).await;
    assert_eq!(client.seed().role, Role::Index);
    let publisher = client
        .publisher(&name("t"), PublisherOptions::default())
        .await
        .expect("found");
    let lookups = index.disk().lookups;
    assert_eq!(lookups, 1);
    let node = index.kill().await;
    let ack = publisher.send(Message::new("x")).await.expect("taken");
    ack.await.expect("the host is there");
    let found = client.find_offset(&name("t"), Position::End).await;
    assert_eq!(found.expect("known").end_offset.get(), 1);
    // A restart of the host needs nobody's help either, and a host answers lookups.
    let peer = Running::restart(peer.kill().await).await;
    let ack = publisher.send(Message::new("y")).await.expect("taken");
    ack.await.expect("the host is back");
    client.lookup(&name("t")).await.expect("the host knows");
    assert_eq!(
        client
            .lookup(&name("u"))
            .await
            .expect_err("nobody knows")
            .name(),
        "TopicNotFound"
    );
    drop((node, peer));
}

#[tokio::test]
async fn lists_come_whole_however_they_are_paged() {
    let names: Vec<String> = (0..10).map(|n| format!("q.{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let (a, b) = (
        Running::peer("a", &names[..5]).await,
        Running::peer("bb", &names[5..]).await,
    );
    let index = index_of(&[&a, &b]).await;
    let client = index.client().await;
    let all = TopicPattern::all();
    let listed = client.list_topics(&all).await.expect("listed");
    let found: Vec<&str> = listed.iter().map(|topic| topic.name.as_str()).collect();
    assert_eq!(found, names);
    assert_eq!(client.list_peers().await.expect("listed").len(), 2);

    let reports = client.describe_topics(&all).await.expect("described");
    assert_eq!(reports.len(), 10);
    assert!(reports.iter().all(|report| report.info.is_ok()));
    // A peer that is away is told with its topics, and one that stores more than the index lists.
    b.kill().await;
    index.disk().elsewhere.remove(&name("q.0"));
    index.disk().peers[1].state = PeerState::Down;
    let reports = client.describe_topics(&all).await.expect("described");
    let found: Vec<&str> = reports.iter().map(|r| r.location.name.as_str()).collect();
    assert_eq!(found, names);
    assert_eq!(
        reports.iter().filter(|report| report.info.is_err()).count(),
        5
    );
}

#[tokio::test]
async fn changes_are_watched_at_the_index_that_a_peer_tells_of() {
    let all = TopicPattern::all();
    let lonely = Running::peer("a", &["t"]).await;
    let client = lonely.client().await;
    let watched = client.watch(7, &all, Duration::ZERO).await;
    assert_eq!(
        watched.expect_err("no index is known").name(),
        "IndexUnavailable"
    );
    let index = index_of(&[&lonely]).await;
    let peer = Running::start(Role::Peer, "bb", &[], vec![index.address()]).await;
    let client = peer.client().await;
    assert_eq!(client.seed().indexes, [index.address()]);
    let changes = client.watch(7, &all, Duration::ZERO).await;
    assert!(changes.expect("the index answers").reset);
}

#[tokio::test]
async fn topics_are_created_where_the_index_says() {
    let peer = Running::peer("a", &["t"]).await;
    let index = index_of(&[&peer]).await;
    let client = index.client().await;
    let created = client.create_topic(&NewTopic::new(name("u"))).await;
    assert!(created.expect("created").created);
    tell(&index, &[&peer]);
    let error = client.create_topic(&NewTopic::new(name("u"))).await;
    assert_eq!(error.expect_err("it is there").name(), "TopicExists");
    let again = NewTopic {
        if_not_exists: true,
        ..NewTopic::new(name("u"))
    };
    let existing = client.create_topic(&again).await.expect("it is there");
    assert!(!existing.created);
    assert_eq!(existing.topic.name, name("u"));
    let report = client.describe_topic(&name("u")).await.expect("described");
    assert_eq!(report.location.peer_name, peer.info.name);
}

#[tokio::test]
async fn a_change_whose_answer_is_lost_is_unknown_and_a_question_is_not() {
    let peer = Running::peer("a", &["t"]).await;
    let client = peer.client_with(Duration::from_millis(200)).await;
    let topic = name("t");
    client.describe_topic(&topic).await.expect("it is there");
    peer.disk().is_silent = true;
    let error = client.delete_topic(&topic).await.expect_err("no answer");
    assert_eq!(error.name(), "OutcomeUnknown", "{error}");
    let error = client.describe_topic(&topic).await.expect_err("no answer");
    assert_eq!(error.name(), "TimedOut", "{error}");
    peer.kill().await;
    for error in [
        client.delete_topic(&topic).await.expect_err("it is away"),
        client.describe_topic(&topic).await.expect_err("it is away"),
    ] {
        assert!(matches!(error, ClientError::Unreachable { .. }), "{error}");
    }
}
