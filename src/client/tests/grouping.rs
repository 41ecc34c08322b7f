//! Members of consumer groups: every record to one of them until somebody settles it, and what was said is never lost
//! in silence.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::group_node::Group;
use super::node::{Running, SOON, name};
use crate::client::{
    Client, ClientError, Member, MemberDelivery, MemberOptions, Message, Missed, NotSettled,
    PublisherOptions,
};
use crate::limits;
use crate::protocol::api::{Instead, Position, Verdict};
use crate::types::{LeaderEpoch, Offset, SubscriptionName};

async fn publish(client: &Client, range: std::ops::Range<usize>) {
    let options = PublisherOptions {
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

fn billing() -> SubscriptionName {
    "billing".parse().expect("a good name")
}

async fn join_with(client: &Client, options: MemberOptions) -> Member {
    let joined = client.join_group(&name("t"), &billing(), options).await;
    joined.expect("the topic is there")
}

async fn join(client: &Client) -> Member {
    join_with(client, MemberOptions::creating(Position::Beginning)).await
}

async fn next(member: &Member) -> Result<MemberDelivery, ClientError> {
    let next = tokio::time::timeout(SOON, member.next());
    next.await.expect("in time")
}

/// The next records are these, given for that time.
async fn expect(
    member: &Member,
    range: std::ops::Range<usize>,
    delivery: u32,
) -> Vec<MemberDelivery> {
    let mut all = Vec::new();
    for n in range {
        let given = next(member).await.expect("a record");
        assert_eq!((given.offset().get(), given.delivery), (n as u64, delivery));
        assert_eq!(given.record.value, format!("{n}"));
        assert!(given.deadline > Instant::now());
        all.push(given);
    }
    all
}

async fn settle(member: &Member) -> Vec<NotSettled> {
    let settled = tokio::time::timeout(SOON, member.settle()).await;
    settled.expect("in time").expect("the member lives")
}

/// Looks at the group, and may change it.
fn group<T>(host: &Running, look: impl FnOnce(&mut Group) -> T) -> T {
    host.change(&name("t"), |topic| {
        look(topic.groups.get_mut(&billing()).expect("it was made"))
    })
}

async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < SOON, "{what}: not in time");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

fn missed(first: u64, count: u32, why: Missed) -> NotSettled {
    let first = Offset::new(first);
    NotSettled { first, count, why }
}

async fn cluster(records: usize) -> (Running, Client) {
    let host = Running::peer("a", &["t"]).await;
    let client = host.client().await;
    publish(&client, 0..records).await;
    (host, client)
}

#[tokio::test]
async fn records_come_and_what_is_said_of_them_goes_in_runs() {
    let (host, client) = cluster(500).await;
    let member = join(&client).await;
    for given in expect(&member, 0..500, 1).await {
        member.ack(&given);
    }
    assert_eq!(settle(&member).await, []);
    let (acked, runs) = group(&host, |group| (group.acked(), group.said.len()));
    assert_eq!(acked, 500);
    assert!(runs < 100, "{runs} runs");
    publish(&client, 500..510).await;
    expect(&member, 500..510, 1).await;
}

#[tokio::test]
async fn acknowledgements_out_of_order_are_joined() {
    let (host, client) = cluster(100).await;
    let member = join(&client).await;
    let all = expect(&member, 0..100, 1).await;
    for given in all.iter().rev() {
        member.ack(given);
    }
    assert_eq!(settle(&member).await, []);
    let (acked, runs) = group(&host, |group| (group.acked(), group.said.len()));
    assert_eq!((acked, runs), (100, 1));
}

#[tokio::test]
async fn a_slow_application_holds_a_bounded_buffer() {
    for room in [1, 2, 3, 10] {
        let (host, client) = cluster(100).await;
        let options = MemberOptions {
            buffer_records: room,
            ..MemberOptions::creating(Position::Beginning)
        };
        let member = join_with(&client, options).await;
        for handed in 0..20 {
            until("the buffer is full", || {
                group(&host, |group| group.in_flight.len()) >= handed + room / 2
            })
            .await;
            let in_flight = group(&host, |group| group.in_flight.len());
            assert!(
                in_flight <= handed + room,
                "{in_flight} with {handed} handed out, room {room}"
            );
            expect(&member, handed..handed + 1, 1).await;
        }
    }
}

#[tokio::test]
async fn what_is_refused_comes_again_and_what_is_rejected_does_not() {
    let (host, client) = cluster(3).await;
    let member = join(&client).await;
    let all = expect(&member, 0..3, 1).await;
    member.nak(&all[0], Some(Duration::from_millis(1500)));
    member.reject(&all[1], "é".repeat(2000));
    member.nak(&all[2], None);
    assert_eq!(settle(&member).await, []);
    let said = group(&host, |group| {
        group
            .said
            .iter()
            .map(|run| run.verdict.clone())
            .collect::<Vec<_>>()
    });
    assert_eq!(
        said[0],
        Verdict::Nak {
            delay_ms: Some(1500)
        }
    );
    assert!(
        matches!(&said[1], Verdict::Reject { reason } if reason.len() == 1024),
        "{said:?}"
    );
    assert_eq!(said[2], Verdict::Nak { delay_ms: None });
    for offset in [0, 2] {
        let again = next(&member).await.expect("it comes again");
        assert_eq!((again.offset().get(), again.delivery), (offset, 2));
        member.ack(&again);
    }
    assert_eq!(settle(&member).await, []);
    assert_eq!(group(&host, |group| group.settled.len()), 3);
}

/// The host refuses a longer one, with all that was said beside it, and the member had ended.
#[tokio::test]
async fn a_delay_is_no_longer_than_the_host_takes() {
    let (host, client) = cluster(2).await;
    let member = join(&client).await;
    let all = expect(&member, 0..2, 1).await;
    member.nak(&all[0], Some(Duration::MAX));
    member.ack(&all[1]);
    assert_eq!(settle(&member).await, []);
    let said = group(&host, |group| group.said[0].verdict.clone());
    let delay_ms = Some(limits::BACKOFF_MAX.as_millis() as u64);
    assert_eq!(said, Verdict::Nak { delay_ms });
}

#[tokio::test]
async fn what_is_not_held_any_more_is_named() {
    let (host, client) = cluster(6).await;
    let member = join_with(
        &client,
        MemberOptions {
            buffer_records: 6,
            ..MemberOptions::creating(Position::Beginning)
        },
    )
    .await;
    let all = expect(&member, 0..6, 1).await;
    // Overdue at the host, one of them settled by somebody else meanwhile.
    group(&host, |group| {
        group.options.unacked_max = 0;
        for offset in 1..4 {
            group.in_flight.remove(&Offset::new(offset));
        }
        group.settled.insert(Offset::new(3), Verdict::Ack);
    });
    all.iter().for_each(|given| member.ack(given));
    // And one twice.
    member.ack(&all[5]);
    let expected = [
        missed(5, 1, Missed::Over),
        missed(1, 2, Missed::NotHeld(Instead::Waiting)),
        missed(3, 1, Missed::NotHeld(Instead::Settled)),
    ];
    assert_eq!(settle(&member).await, expected);
    assert_eq!(settle(&member).await, [], "told once");
    assert_eq!(group(&host, |group| group.acked()), 4);
}

#[tokio::test]
async fn up_to_an_offset_means_what_was_handed_out() {
    let (host, client) = cluster(100).await;
    let member = join(&client).await;
    let all = expect(&member, 0..10, 1).await;
    member.nak(&all[3], Some(Duration::from_secs(1000)));
    assert_eq!(member.ack_up_to(Offset::new(7)), 7);
    assert_eq!(member.ack_up_to(Offset::new(7)), 0);
    assert_eq!(member.ack_up_to(Offset::new(90)), 2);
    assert_eq!(settle(&member).await, []);
    assert_eq!(group(&host, |group| group.acked()), 9);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_restart_of_the_host_what_was_held_comes_again() {
    let (host, client) = cluster(50).await;
    let member = join(&client).await;
    let all = expect(&member, 0..10, 1).await;
    all[..5].iter().for_each(|given| member.ack(given));
    assert_eq!(settle(&member).await, []);
    let node = host.kill().await;
    let away = member.watch_absence();
    until("its absence is noticed", || *away.borrow()).await;
    let host = Running::restart(node).await;
    // What was handed out before is held no more; nothing of it is at hand either.
    let again = expect(&member, 5..50, 2).await;
    all[5..].iter().for_each(|given| member.ack(given));
    assert_eq!(settle(&member).await, [missed(5, 5, Missed::Over)]);
    again.iter().for_each(|given| member.ack(given));
    assert_eq!(settle(&member).await, []);
    assert_eq!(group(&host, |group| group.acked()), 50);
}

#[tokio::test]
async fn what_was_said_and_not_answered_is_unknown() {
    let (host, client) = cluster(10).await;
    let member = join(&client).await;
    let all = expect(&member, 0..10, 1).await;
    host.disk().is_silent = true;
    all.iter().for_each(|given| member.ack(given));
    let settling = tokio::spawn(async move { (settle(&member).await, member) });
    until("it was sent", || host.disk().is_waited_for()).await;
    let node = host.kill().await;
    node.disk().is_silent = false;
    let _host = Running::restart(node).await;
    let (settled, _member) = settling.await.expect("no panic");
    assert_eq!(settled, [missed(0, 10, Missed::Unknown)]);
}

#[tokio::test]
async fn a_move_of_the_topic_is_followed() {
    let (old, client) = cluster(10).await;
    let member = join(&client).await;
    let before = expect(&member, 0..10, 1).await;
    let new = Running::peer("newer", &["t"]).await;
    let epoch = LeaderEpoch::new(2);
    old.change(&name("t"), |from| {
        new.change(&name("t"), |to| std::mem::swap(from, to));
        from.id = new.change(&name("t"), |to| to.id);
        from.moved = Some((new.info.clone(), epoch));
    });
    new.change(&name("t"), |topic| {
        topic.epoch = epoch;
        topic.groups.values_mut().for_each(Group::clear);
    });
    let again = expect(&member, 0..10, 2).await;
    member.ack(&before[0]);
    again.iter().for_each(|given| member.ack(given));
    assert_eq!(settle(&member).await, [missed(0, 1, Missed::Over)]);
    assert_eq!(group(&new, |group| group.acked()), 10);
}

/// The group is described by the topic's name, and a member that had lost its connection ended when the topic had got
/// another one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_was_renamed_keeps_its_members() {
    for is_moved in [false, true] {
        let (host, client) = cluster(10).await;
        let member = join(&client).await;
        let before = expect(&member, 0..10, 1).await;
        let node = host.kill().await;
        {
            let mut disk = node.disk();
            let mut topic = disk.topics.remove(&name("t")).expect("it is there");
            if is_moved {
                let group = topic.groups.get_mut(&billing()).expect("it was made");
                group.move_to(Offset::ZERO);
            }
            disk.topics.insert(name("renamed"), topic);
        }
        let host = Running::restart(node).await;
        let again = expect(&member, 0..10, 2).await;
        member.ack(&before[0]);
        again.iter().for_each(|given| member.ack(given));
        assert_eq!(settle(&member).await, [missed(0, 1, Missed::Over)]);
        let acked = host.change(&name("renamed"), |topic| topic.groups[&billing()].acked());
        assert_eq!(acked, 10);
    }
}

#[tokio::test]
async fn a_group_that_was_moved_is_joined_anew() {
    let (host, client) = cluster(10).await;
    let member = join(&client).await;
    for given in expect(&member, 0..10, 1).await {
        member.ack(&given);
    }
    assert_eq!(settle(&member).await, []);
    group(&host, |group| group.move_to(Offset::new(4)));
    let again = expect(&member, 4..10, 2).await;
    again.iter().for_each(|given| member.ack(given));
    assert_eq!(settle(&member).await, []);
    assert_eq!(group(&host, |group| group.acked()), 6);
}

#[tokio::test]
async fn a_group_that_is_gone_ends_its_members() {
    let (host, client) = cluster(3).await;
    let missing = client
        .join_group(&name("t"), &billing(), MemberOptions::default())
        .await;
    assert_eq!(
        missing.expect_err("it was not made").name(),
        "ConsumerGroupNotFound"
    );
    let member = join(&client).await;
    let all = expect(&member, 0..3, 1).await;
    host.change(&name("t"), |topic| topic.groups.clear());
    assert_eq!(
        next(&member).await.expect_err("it is gone").name(),
        "ConsumerGroupNotFound"
    );
    // Nothing is held any more: there is nothing to wait for.
    member.ack(&all[0]);
    assert_eq!(settle(&member).await, [missed(0, 1, Missed::Over)]);
    let left = member.leave().await;
    assert_eq!(
        left.expect_err("it had ended").name(),
        "ConsumerGroupNotFound"
    );
}

#[tokio::test]
async fn who_leaves_settles_and_gives_back() {
    let (host, client) = cluster(300).await;
    let member = join(&client).await;
    let all = expect(&member, 0..10, 1).await;
    all[..6].iter().for_each(|given| member.ack(given));
    let left = tokio::time::timeout(SOON, member.leave())
        .await
        .expect("in time");
    assert_eq!(left, Ok(Vec::new()));
    let (acked, held, members) = group(&host, |group| {
        (group.acked(), group.in_flight.len(), group.members.len())
    });
    assert_eq!((acked, held, members), (6, 0, 0));
    let other = join(&client).await;
    expect(&other, 6..10, 2).await;
}

#[tokio::test]
async fn what_is_worked_on_is_extended_if_it_is_to_be_kept() {
    for keep in [false, true] {
        let (host, client) = cluster(2).await;
        let making = join(&client).await;
        making.leave().await.expect("it left");
        group(&host, |group| group.options.ack_deadline_ms = 800);
        let options = MemberOptions {
            keep,
            buffer_records: 2,
            ..MemberOptions::default()
        };
        let member = join_with(&client, options).await;
        let given = next(&member).await.expect("a record");
        let extended = |offset: Offset| {
            group(&host, |group| {
                let is_it = |run: &&crate::protocol::api::SettledRun| {
                    run.verdict == Verdict::Extend
                        && (run.first..run.first.saturating_add(run.count.into())).contains(&offset)
                };
                group.said.iter().filter(is_it).count()
            })
        };
        // What waits in the buffer is extended either way while the application lives.
        let buffered = given.offset().next();
        until("the buffer is extended", || {
            member.extend(&given);
            extended(buffered) >= 2
        })
        .await;
        assert!(extended(given.offset()) >= 1);
        let before = extended(given.offset());
        if keep {
            until("it is kept", || extended(given.offset()) > before + 2).await;
        } else {
            // Somebody who says nothing for a whole deadline is not kept alive.
            until("it is overdue", || {
                Instant::now() > given.deadline + Duration::from_millis(600)
            })
            .await;
            let later = extended(given.offset());
            tokio::time::sleep(Duration::from_millis(900)).await;
            assert_eq!(extended(given.offset()), later);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_tasks_share_a_member() {
    let (host, client) = cluster(300).await;
    let member = Arc::new(join(&client).await);
    let mut tasks = Vec::new();
    for _ in 0..4 {
        let member = member.clone();
        tasks.push(tokio::spawn(async move {
            let mut count = 0;
            while let Some(given) = member
                .next_within(Duration::from_millis(300))
                .await
                .expect("it lives")
            {
                member.ack(&given);
                count += 1;
            }
            count
        }));
    }
    let mut count = 0;
    for task in tasks {
        count += task.await.expect("no panic");
    }
    assert_eq!(count, 300);
    assert_eq!(settle(&member).await, []);
    assert_eq!(group(&host, |group| group.acked()), 300);
}

#[tokio::test]
async fn later_records_of_a_failed_key_are_not_handed_out() {
    let (host, client) = cluster(9).await;
    let making = join(&client).await;
    making.leave().await.expect("it left");
    group(&host, |group| group.options.ordered_by_key = true);
    let member = join_with(&client, MemberOptions::default()).await;
    let first = next(&member).await.expect("a record");
    group(&host, |group| group.options.unacked_max = 0);
    member.nak(&first, None);
    // The key of the first is that of every third.
    for offset in [1, 2, 4, 5, 7, 8] {
        assert_eq!(
            next(&member).await.expect("a record").offset().get(),
            offset
        );
    }
    assert_eq!(
        member.next_within(Duration::from_millis(50)).await,
        Ok(None)
    );
}

#[tokio::test]
async fn a_host_that_stays_away_ends_the_member() {
    let host = Running::peer("a", &["t"]).await;
    let client = host.client_with(Duration::from_millis(300)).await;
    publish(&client, 0..3).await;
    let member = join(&client).await;
    let all = expect(&member, 0..3, 1).await;
    let mut away = member.watch_absence();
    host.kill().await;
    let error = next(&member).await.expect_err("it is away");
    assert!(error.is_retryable(), "{error}");
    assert!(*away.borrow_and_update());
    member.ack(&all[0]);
    assert_eq!(settle(&member).await, [missed(0, 1, Missed::Over)]);
}

/// Its task went with the runtime it ran on, and whoever waited on another one waited for ever.
#[test]
fn who_waits_hears_of_it_however_a_member_ends() {
    let start = || tokio::runtime::Runtime::new().expect("threads");
    let (outer, inner) = (start(), start());
    let (_host, client) = outer.block_on(cluster(1));
    let member = inner.block_on(join(&client));
    let given = inner.block_on(next(&member)).expect("a record");
    let waiting = outer.spawn(async move {
        let ended = next(&member).await;
        member.ack(&given);
        (ended, settle(&member).await)
    });
    inner.shutdown_background();
    let (ended, settled) = outer.block_on(waiting).expect("it hears of it");
    assert_eq!(ended, Err(ClientError::Closed));
    assert_eq!(settled, [missed(0, 1, Missed::Over)]);
}

#[tokio::test]
async fn room_for_nothing_is_refused() {
    let (_host, client) = cluster(1).await;
    for (records, bytes) in [(0, 1), (1, 0), (65_537, 1)] {
        let options = MemberOptions {
            buffer_records: records,
            buffer_bytes: bytes,
            ..MemberOptions::creating(Position::Beginning)
        };
        let refused = client.join_group(&name("t"), &billing(), options).await;
        assert_eq!(refused.expect_err("no room").name(), "InvalidArgument");
    }
}
