//! What is purged while a group has it.

use super::*;
use crate::protocol::api::PurgeKey;

#[tokio::test]
async fn what_is_purged_by_its_key_is_no_dead_letter() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let (peer, topic) = begin(dir.path()).await;
    peer.make_group(options()).await;
    peer.put(topic, &["a", "b", "c"]).await;
    let member = peer.member(1).await;
    // A part of the batch: it is unpacked for that, and kept for the rest.
    let got = member.takes(2).await;
    let purge = PurgeKey {
        name: name("t"),
        key: b"b".to_vec(),
    };
    peer.ask(purge).await.expect("purged");
    let reason = "bad".to_owned();
    assert_eq!(member.say(&got, Verdict::Reject { reason }).await, []);
    eventually("one letter, and nobody waits", async || {
        let info = peer.info().await;
        (info.dead, info.dying, info.unsettled) == (1, 0, 1)
    })
    .await;
    let letters = peer.read_all("dead.t.g").await;
    let values: Vec<_> = letters.into_iter().map(|letter| letter.value).collect();
    assert_eq!(values, [&b"a0"[..]]);
    let rest = member.takes(1).await;
    assert_eq!(offsets(&rest), [(2, 1)]);
    peer.stop().await;
}
