//! Publishing with care: batches that stay whole, ends that are expected.

use super::node::{Fault, Running, SOON, name};
use crate::client::{ClientError, Compression, Message, Publisher, PublisherOptions};
use crate::limits;
use crate::protocol::error::ApiError;
use crate::types::{LeaderEpoch, Offset};

async fn publisher(host: &Running, options: PublisherOptions) -> Publisher {
    let publisher = host.client().await.publisher(&name("t"), options).await;
    publisher.expect("the topic is there")
}

fn messages(range: std::ops::Range<usize>) -> Vec<Message> {
    let message = |n| Message::new(format!("message {n:05}"));
    range.map(message).collect()
}

/// Number of records of each batch that is stored.
fn batches(host: &Running) -> Vec<u64> {
    host.change(&name("t"), |topic| {
        let ends = topic.batches.iter().skip(1).map(|batch| batch.base_offset);
        let ends: Vec<Offset> = ends.chain([topic.end]).collect();
        let bases = topic.batches.iter().map(|batch| batch.base_offset);
        bases.zip(ends).map(|(base, end)| end.since(base)).collect()
    })
}

/// Whatever happens on the way: one batch, once, between what came before it and what comes after.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_sent_as_one_batch_stay_one() {
    let stale = ApiError::StaleEpoch {
        given: LeaderEpoch::new(1),
        current: LeaderEpoch::new(2),
    };
    let faults = [
        Fault::Serve,
        Fault::StoreSilently,
        Fault::Ignore,
        Fault::Refuse(stale),
        Fault::Refuse(ApiError::ShuttingDown),
    ];
    for fault in faults {
        for compression in [Compression::None, Compression::Lz4, Compression::Zstd] {
            let mut host = Running::peer("a", &["t"]).await;
            let options = PublisherOptions {
                compression,
                // Far less than what is sent as one.
                batch_bytes: 200,
                ..PublisherOptions::default()
            };
            let publisher = publisher(&host, options).await;
            let before = publisher.send(Message::new("before")).await.expect("taken");
            before.await.expect("stored");
            host.plan([fault.clone()]);
            let ack = publisher.send_all(messages(0..1000)).await.expect("taken");
            let after = publisher.send(Message::new("after")).await.expect("taken");
            if matches!(fault, Fault::StoreSilently | Fault::Ignore) {
                while host.disk().publishes < 2 {
                    tokio::task::yield_now().await;
                }
                host = Running::restart(host.kill().await).await;
            }
            let run = tokio::time::timeout(SOON, ack).await.expect("in time");
            let run = run.expect("stored");
            assert_eq!(run.offsets, Offset::new(1)..Offset::new(1001), "{fault:?}");
            let acked = tokio::time::timeout(SOON, after).await.expect("in time");
            assert_eq!(acked.expect("stored").offset, Offset::new(1001));
            assert_eq!(batches(&host), [1, 1000, 1], "{fault:?}");
        }
    }
}

#[tokio::test]
async fn what_is_more_than_one_batch_is_refused_and_nothing_of_it_is_sent() {
    let host = Running::peer("a", &["t"]).await;
    let publisher = publisher(&host, PublisherOptions::default()).await;
    let large = || Message::new(vec![b'x'; limits::MESSAGE_BYTES_DEFAULT / 2]);
    for (refused, reason) in [
        (Vec::new(), "holds no message"),
        (vec![large(), large(), large()], "send fewer at once"),
        (
            vec![Message::new(""); limits::BATCH_RECORDS_MAX as usize + 1],
            "65536 messages",
        ),
    ] {
        let error = publisher.send_all(refused).await.expect_err("too much");
        assert!(error.to_string().contains(reason), "{error}");
    }
    let ack = publisher.send_all(vec![large(), large()]).await;
    ack.expect("taken").await.expect("they fit");
    assert_eq!(batches(&host), [2]);
}

/// What a batch is packed to is known when it is packed.
#[tokio::test]
async fn compressed_a_batch_may_hold_more_than_the_host_takes_unpacked() {
    let host = Running::peer("a", &["t"]).await;
    let options = PublisherOptions {
        compression: Compression::Zstd,
        ..PublisherOptions::default()
    };
    let publisher = publisher(&host, options).await;
    let message = || Message::new(vec![b'x'; limits::MESSAGE_BYTES_DEFAULT]);
    let ack = publisher.send_all(vec![message(), message(), message()]);
    ack.await.expect("taken").await.expect("small when packed");
    let mut seed = 1_u32;
    let mut noise = || {
        let mut bytes = vec![0; limits::MESSAGE_BYTES_DEFAULT];
        bytes.iter_mut().for_each(|byte| {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            *byte = (seed >> 24) as u8;
        });
        Message::new(bytes)
    };
    let refused = publisher.send_all(vec![noise(), noise()]).await;
    let error = refused.expect("taken").await.expect_err("too large");
    assert!(error.to_string().contains("the host takes"), "{error}");
    let ack = publisher.send(Message::new("after")).await.expect("taken");
    assert_eq!(ack.await.expect("stored").offset, Offset::new(3));
    assert_eq!(batches(&host), [3, 1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expected_end_is_met_or_told() {
    let mut host = Running::peer("a", &["t"]).await;
    let publisher = publisher(&host, PublisherOptions::default()).await;
    let expecting = async |end, range| {
        let ack = publisher.send_expecting(Offset::new(end), messages(range));
        let acked = tokio::time::timeout(SOON, ack.await.expect("taken")).await;
        acked.expect("in time").map(|run| run.offsets)
    };
    let unexpected = |expected, found| {
        Err(ClientError::Api(ApiError::UnexpectedEnd {
            expected: Offset::new(expected),
            found: Offset::new(found),
        }))
    };
    assert_eq!(expecting(0, 0..2).await, Ok(Offset::ZERO..Offset::new(2)));
    assert_eq!(expecting(0, 2..3).await, unexpected(0, 2));
    assert_eq!(expecting(9, 2..3).await, unexpected(9, 2));
    let after = publisher.send(Message::new("after")).await.expect("taken");
    assert_eq!(after.await.expect("stored").offset, Offset::new(2));
    // The acknowledgement is lost: sent again it is known, though the topic does not end there any more.
    host.plan([Fault::StoreSilently]);
    let again = tokio::spawn({
        let publisher = publisher.clone();
        async move {
            let ack = publisher.send_expecting(Offset::new(3), messages(3..5));
            ack.await.expect("taken").await
        }
    });
    let stored = |host: &Running| host.change(&name("t"), |topic| topic.end);
    while stored(&host) < Offset::new(5) {
        tokio::task::yield_now().await;
    }
    host = Running::restart(host.kill().await).await;
    let acked = tokio::time::timeout(SOON, again).await.expect("in time");
    let acked = acked.expect("no panic").expect("it is stored");
    assert_eq!(acked.offsets, Offset::new(3)..Offset::new(5));
    assert_eq!(batches(&host), [2, 1, 2]);
}

/// Each alone in its batch, in the order of sending, and sent again as it was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_with_ids_are_stored_once_each_among_others() {
    for fault in [Fault::Serve, Fault::StoreSilently, Fault::Ignore] {
        let mut host = Running::peer("a", &["t"]).await;
        let publisher = publisher(&host, PublisherOptions::default()).await;
        host.plan([Fault::Serve, fault.clone()]);
        let mut acks = Vec::new();
        for n in 0..200_u64 {
            let message = Message::new(format!("{n}"));
            // Every third has no id; the last ones have those of the first.
            let message = match n % 3 {
                0 => message,
                _ => message.with_id(format!("id {}", n % 150)),
            };
            acks.push(publisher.send(message).await.expect("taken"));
        }
        if !matches!(fault, Fault::Serve) {
            while host.disk().publishes < 2 {
                tokio::task::yield_now().await;
            }
            host = Running::restart(host.kill().await).await;
        }
        let mut offsets = Vec::new();
        for ack in acks {
            let acked = tokio::time::timeout(SOON, ack).await.expect("in time");
            offsets.push(acked.expect("stored"));
        }
        let values = host.change(&name("t"), |topic| topic.values());
        for (n, acked) in offsets.iter().enumerate() {
            let first = match n {
                150.. if n % 3 > 0 => n - 150,
                _ => n,
            };
            assert_eq!(values[acked.offset.get() as usize], first.to_string());
            assert!(first == n || acked.duplicate, "{n}");
        }
        assert_eq!(values.len(), 200 - 33, "{fault:?}");
    }
}

#[tokio::test]
async fn ids_are_refused_where_they_would_mean_nothing() {
    let host = Running::peer("a", &["t"]).await;
    let publisher = publisher(&host, PublisherOptions::default()).await;
    for id in ["", &"x".repeat(limits::MESSAGE_ID_BYTES_MAX + 1)] {
        let refused = publisher
            .send(Message::new("x").with_id(id.to_owned()))
            .await;
        let error = refused.expect_err("no id");
        assert!(error.to_string().contains("1 to 255"), "{error}");
    }
    let with_id = || vec![Message::new("x").with_id("1")];
    let error = publisher.send_all(with_id()).await.expect_err("alone");
    assert!(error.to_string().contains("sent alone"), "{error}");
    let error = publisher.send_batch(&with_id()).await.expect_err("alone");
    assert!(error.to_string().contains("sent alone"), "{error}");
    // Whatever header of that name there was: its own id counts.
    let message = Message::new("x").with_header("tidings-id", "other");
    let ack = publisher
        .send(message.with_id("mine"))
        .await
        .expect("taken");
    ack.await.expect("stored");
    let again = publisher.send(Message::new("y").with_id("mine")).await;
    assert!(again.expect("taken").await.expect("known").duplicate);
}
