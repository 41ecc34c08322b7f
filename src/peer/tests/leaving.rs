//! Clients that go away in the middle of what they asked for, and others who are there meanwhile.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;
use crate::protocol::frame::FrameHeader;

/// A connection that can be broken off.
struct Raw(TcpStream);

impl Raw {
    async fn connect(peer: &Running) -> Self {
        let stream = TcpStream::connect(peer.address.as_str()).await;
        let mut raw = Self(stream.expect("it listens"));
        let hello = Hello {
            magic: MAGIC,
            protocol_min: PROTOCOL_MIN,
            protocol_max: PROTOCOL_MAX,
            client: "a test".to_owned(),
            features: 0,
        };
        raw.ask(&hello).await;
        raw.0.read_u8().await.expect("an answer");
        raw
    }

    async fn ask<R: Request>(&mut self, request: &R) {
        let body = request.encode().expect("small");
        let header = FrameHeader::request(R::API as u16, 1, 0).encode(body.len());
        let frame = [&header[..], &body].concat();
        self.0.write_all(&frame).await.expect("it reads");
    }

    /// As if the client's machine had failed.
    async fn break_off(self, peer: &Running) {
        let connections = || peer.index.lock().connections;
        eventually("a heartbeat", async || connections() == 2).await;
        self.0.set_zero_linger().expect("a socket");
        drop(self);
        eventually("seen to be gone", async || connections() == 1).await;
    }
}

/// From now on the index does not answer what is said of a name; when told, it refuses all that waits.
fn hold_names(peer: &Running) -> Arc<Notify> {
    let held: Arc<Notify> = Arc::default();
    peer.index.lock().hold_names = Some(held.clone());
    peer.index.lock().asked.clear();
    held
}

/// The index went on listing the topic, and gave its name to nobody.
#[tokio::test]
async fn a_deletion_is_told_although_its_client_has_gone() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let peer = start(dir.path(), |_| ()).await;
    peer.create("quakes.ci").await.expect("made");
    let held = hold_names(&peer);
    let mut client = Raw::connect(&peer).await;
    let delete = DeleteTopic {
        name: name("quakes.ci"),
        id: None,
    };
    client.ask(&delete).await;
    let dropped = || peer.index.count(Api::DropTopic);
    eventually("deleted", async || dropped() == 1).await;
    client.break_off(&peer).await;
    held.notify_one();
    let told = || peer.index.count(Api::RegisterTopics);
    eventually("told with the list", async || told() == 1).await;
    peer.stop().await;
}

#[tokio::test]
async fn a_new_name_is_told_although_its_client_has_gone() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let peer = start(dir.path(), |_| ()).await;
    peer.create("quakes.ci").await.expect("made");
    let held = hold_names(&peer);
    let mut client = Raw::connect(&peer).await;
    let rename = RenameTopic {
        name: name("quakes.ci"),
        new: name("quakes.old"),
    };
    client.ask(&rename).await;
    let confirmed = || peer.index.count(Api::ConfirmTopic);
    eventually("renamed", async || confirmed() == 1).await;
    client.break_off(&peer).await;
    held.notify_one();
    let told = || peer.index.count(Api::RegisterTopics);
    eventually("told with the list", async || told() == 1).await;
    peer.stop().await;
}

/// The topic stayed, known to nobody, and its name with it.
#[tokio::test]
async fn a_topic_that_gets_no_name_is_taken_back_although_its_client_has_gone() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let peer = start(dir.path(), |_| ()).await;
    eventually("registered", async || peer.index.lock().registered).await;
    let held = hold_names(&peer);
    let mut client = Raw::connect(&peer).await;
    let create = CreateTopic {
        name: name("quakes.ci"),
        settings: TopicSettings::default(),
        if_not_exists: false,
    };
    client.ask(&create).await;
    let confirmed = || peer.index.count(Api::ConfirmTopic);
    eventually("stored", async || confirmed() == 1).await;
    client.break_off(&peer).await;
    held.notify_one();
    let is_there = || peer.store.id_of(&name("quakes.ci")).is_ok();
    eventually("taken back", async || !is_there()).await;
    peer.index.lock().hold_names = None;
    held.notify_one();
    peer.create("quakes.ci").await.expect("made");
    peer.stop().await;
}

/// Whoever finds a topic before its maker was answered may publish to it.
#[tokio::test]
async fn what_was_acknowledged_in_a_topic_that_gets_no_name_is_kept() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let peer = start(dir.path(), |_| ()).await;
    eventually("registered", async || peer.index.lock().registered).await;
    let held = hold_names(&peer);
    let publish = async {
        let confirmed = || peer.index.count(Api::ConfirmTopic);
        eventually("stored", async || confirmed() == 1).await;
        let found = CreateTopic {
            name: name("quakes.ci"),
            settings: TopicSettings::default(),
            if_not_exists: true,
        };
        let id = peer.ask(found).await.expect("it is there").topic.id;
        peer.publish(id, &batch(0, 10)).await.expect("acknowledged");
        held.notify_one();
    };
    let (made, ()) = tokio::join!(peer.create("quakes.ci"), publish);
    assert!(matches!(made, Err(ApiError::ShuttingDown)), "{made:?}");
    let kept = peer.describe("quakes.ci").await.expect("it is there");
    assert_eq!(kept.end_offset, Offset::new(1));
    let told = || peer.index.count(Api::RegisterTopics);
    eventually("told with the list", async || told() == 1).await;
    peer.stop().await;
}

/// Whoever finds a topic before its maker was answered may delete it too. The index was told so first, and then that
/// the topic is there: its name was nobody's, and led to this peer.
#[tokio::test]
async fn the_name_of_a_topic_that_was_deleted_before_it_was_confirmed_is_free() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let peer = start(dir.path(), |_| ()).await;
    eventually("registered", async || peer.index.lock().registered).await;
    let held = hold_names(&peer);
    let deleted = async {
        let confirmed = || peer.index.count(Api::ConfirmTopic);
        eventually("stored", async || confirmed() == 1).await;
        peer.index.lock().hold_names = None;
        let delete = DeleteTopic {
            name: name("quakes.ci"),
            id: None,
        };
        peer.ask(delete).await.expect("it is there");
        assert_eq!(peer.index.count(Api::DropTopic), 1);
        held.notify_one();
    };
    let (made, ()) = tokio::join!(peer.create("quakes.ci"), deleted);
    made.expect("it was made");
    assert_eq!(
        peer.index.count(Api::DropTopic),
        2,
        "again, behind the other"
    );
    assert_eq!(peer.index.count(Api::RegisterTopics), 0, "that was enough");
    peer.stop().await;
}

/// The index gave the topic back a name that it has no more, and took away the one that it has.
#[tokio::test]
async fn a_name_that_comes_behind_a_later_one_is_mended() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let peer = start(dir.path(), |_| ()).await;
    peer.create("quakes.ci").await.expect("made");
    let held = hold_names(&peer);
    let rename = |old, new| RenameTopic {
        name: name(old),
        new: name(new),
    };
    let again = async {
        let confirmed = || peer.index.count(Api::ConfirmTopic);
        eventually("renamed", async || confirmed() == 1).await;
        peer.index.lock().hold_names = None;
        let renamed = peer.ask(rename("quakes.old", "quakes.older")).await;
        renamed.expect("it has that name");
        held.notify_one();
    };
    let (renamed, ()) = tokio::join!(peer.ask(rename("quakes.ci", "quakes.old")), again);
    renamed.expect("it was renamed");
    assert_eq!(peer.index.count(Api::DropTopic), 1);
    let told = || peer.index.count(Api::RegisterTopics);
    eventually("told with the list", async || told() == 1).await;
    peer.stop().await;
}
