//! Dead letters that cannot be written, and others.

use super::*;

/// A message that was stored compressed may be larger unpacked than what can be stored. It held up all letters of its group.
#[tokio::test]
async fn a_dead_letter_that_fits_nowhere_holds_up_no_other() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let peer = start(dir.path(), |options| options.message_bytes_max = 600_000).await;
    let topic = peer.create("t").await.expect("made").topic.id;
    peer.make_group(options()).await;
    let mut builder = BatchBuilder::new(Compression::Zstd);
    let large = RecordToSend {
        timestamp: Timestamp::from_millis(7),
        key: None,
        headers: &[],
        value: &vec![0; 550_000],
    };
    builder.try_push(&large).expect("it fits");
    let built = builder.build(ProducerId::zero(), Sequence::ZERO);
    let built = built.expect("it builds");
    assert!(large.value.len() > peer.store.batch_bytes_max());
    peer.publish(topic, &built).await.expect("stored");
    peer.put(topic, &["a", "b"]).await;
    let member = peer.member(1).await;
    let got = member.takes(3).await;
    let reason = "bad".to_owned();
    assert_eq!(member.say(&got, Verdict::Reject { reason }).await, []);
    eventually("the others are written", async || {
        let info = peer.info().await;
        (info.dead, info.dying) == (2, 1) && info.stuck.is_some()
    })
    .await;
    assert_eq!(peer.read_all("dead.t.g").await.len(), 2);
    peer.stop().await;
}
