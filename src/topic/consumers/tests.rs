mod model;

use super::*;
use crate::limits;
use crate::protocol::api::{ConsumerGroupChanges, ConsumerGroupOptions, SettledRun, Verdict};
use crate::time::Timestamp;
use crate::types::{Generation, MemberId, Offset};

fn now(steady: Millis) -> Now {
    Now {
        steady,
        wall: Timestamp::from_millis(1_000_000 + steady as i64),
    }
}

fn options() -> ConsumerGroupOptions {
    let (topic, group) = ("t".parse().expect("good"), "g".parse().expect("good"));
    new_options(&topic, &group, ConsumerGroupChanges::default()).expect("the defaults are good")
}

fn group(options: ConsumerGroupOptions) -> Group {
    let row = ConsumerGroupRow::new(Generation::new(1), Offset::ZERO, options, now(0).wall);
    Group::load(row, std::iter::empty(), now(0))
}

fn give(group: &mut Group, member: Slot, (base, count): (u64, u32), records: u64) -> u64 {
    let taker = Taker {
        member,
        records,
        now: now(1),
    };
    let keys = vec![None; count as usize];
    let offer = Offer {
        base: Offset::new(base),
        count,
        keys: &keys,
    };
    let given = group.give_new(offer, taker);
    given.iter().map(|run| u64::from(run.count)).sum()
}

fn ack(group: &mut Group, member: Slot, first: u64, count: u32) {
    let said = SettledRun {
        first: Offset::new(first),
        count,
        delivery: 1,
        verdict: Verdict::Ack,
    };
    let mut not_held = Vec::new();
    group.settle(member, &said, now(2), &mut not_held);
    assert_eq!(not_held, []);
}

/// Where dead letters could not be written a member that rejects all it gets filled the memory with its reasons.
#[test]
fn so_many_reasons_are_kept_and_no_more() {
    let mut group = group(options());
    let member = group.join(MemberId::from_bytes([1; 16]), now(0));
    let kept = limits::REJECT_REASONS_KEPT;
    for first in 0..kept + 9 {
        assert_eq!(give(&mut group, member, (first, 1), 1), 1);
        let said = SettledRun {
            first: Offset::new(first),
            count: 1,
            delivery: 1,
            verdict: Verdict::Reject {
                reason: format!("no {first}"),
            },
        };
        group.settle(member, &said, now(2), &mut Vec::new());
    }
    let dying = group.dying(usize::MAX);
    let reasons = dying.iter().filter(|dying| dying.reason.is_some());
    assert_eq!(
        (dying.len() as u64, reasons.count() as u64),
        (kept + 9, kept)
    );
    // Room comes with each letter that is written.
    group.bury(Offset::ZERO, now(3));
    assert_eq!(group.tally(Offset::new(kept + 9)).dying, kept + 8);
}

#[test]
fn options_out_of_bounds_are_refused_by_name() {
    let topic = "t".parse().expect("good");
    let good = ConsumerGroupChanges::default;
    let bad = [
        ConsumerGroupChanges {
            ack_deadline_ms: Some(0),
            ..good()
        },
        ConsumerGroupChanges {
            ack_deadline_ms: Some(u64::MAX),
            ..good()
        },
        ConsumerGroupChanges {
            deliveries_max: Some(u32::MAX),
            ..good()
        },
        ConsumerGroupChanges {
            backoff_ms: Some(vec![1; 17]),
            ..good()
        },
        ConsumerGroupChanges {
            backoff_ms: Some(vec![u64::MAX]),
            ..good()
        },
        ConsumerGroupChanges {
            unacked_max: Some(0),
            ..good()
        },
        ConsumerGroupChanges {
            unacked_max: Some(u32::MAX),
            ..good()
        },
        ConsumerGroupChanges {
            ordered_by_key: Some(true),
            ..good()
        },
        ConsumerGroupChanges {
            dead_letters: Some("t".parse().expect("good")),
            ..good()
        },
    ];
    for changes in bad {
        let error = changed_options(&topic, &options(), changes.clone());
        assert_eq!(
            error.expect_err("bad").name(),
            "InvalidArgument",
            "{changes:?}"
        );
    }
    let long = "t".repeat(limits::NAME_BYTES_MAX).parse().expect("good");
    assert!(new_options(&long, &"g".parse().expect("good"), good()).is_err());
}

#[test]
fn a_million_records_settled_in_order_leave_nothing_behind() {
    let mut group = group(ConsumerGroupOptions {
        unacked_max: 1_000,
        ..options()
    });
    let member = group.join(MemberId::zero(), now(0));
    for batch in 0..1_000 {
        let base = batch * 1_000;
        assert_eq!(give(&mut group, member, (base, 1_000), 5_000), 1_000);
        ack(&mut group, member, base, 1_000);
    }
    assert_eq!(group.floor(), Offset::new(1_000_000));
    assert_eq!((group.weight(), group.pages()), (0, 0));
    let flush = group.compose(&[], now(3)).expect("it changed");
    assert_eq!((flush.pages.len(), flush.row.acknowledged), (0, 1_000_000));
    assert!(group.compose(&[], now(3)).is_none());
}

#[test]
fn one_open_record_keeps_a_bounded_window() {
    let mut group = group(options());
    let member = group.join(MemberId::zero(), now(0));
    let mut base = 0;
    while group.fresh(Offset::new(u64::MAX)) == Fresh::There {
        assert_eq!(give(&mut group, member, (base, 999), 999), 999);
        ack(
            &mut group,
            member,
            base + u64::from(base == 0),
            999 - u32::from(base == 0),
        );
        base += 999;
    }
    assert_eq!(group.fresh(Offset::new(u64::MAX)), Fresh::FarAhead);
    assert!(base >= limits::CONSUMER_PAGES_MAX * limits::CONSUMER_PAGE_OFFSETS - 999);
    assert!(group.weight() <= 2, "runs, not records");
    // The rows come in steps of a bounded size, and all of them in the end.
    let mut through = 0;
    while let Some(flush) = group.compose(&[], now(3)) {
        assert!(flush.bytes() < limits::CONSUMER_FLUSH_BYTES + limits::SLED_VALUE_BYTES_MAX);
        assert!(flush.through >= through);
        through = flush.through;
    }
    assert_eq!(through, group.version());
    ack(&mut group, member, 0, 1);
    assert_eq!(group.floor().get(), base);
    assert_eq!(group.fresh(Offset::new(u64::MAX)), Fresh::There);
}

#[test]
fn a_gap_uses_up_no_window() {
    let mut group = group(options());
    let member = group.join(MemberId::zero(), now(0));
    assert_eq!(give(&mut group, member, (0, 1), 1), 1);
    group.pass(Offset::new(10_000_000));
    assert_eq!(group.fresh(Offset::new(u64::MAX)), Fresh::There);
    assert_eq!(group.row().skipped, 9_999_999);
    let flush = group.compose(&[], now(3)).expect("it changed");
    assert!(flush.pages.len() <= 2, "nothing of the middle is written");
}

/// Dead letters of records that are gone were tried for ever: a group that was read back did not let go of them.
#[test]
fn a_record_that_dies_and_is_gone_is_settled_also_ahead_of_the_cursor() {
    let page = ConsumerPageRow {
        failed: vec![FailedRow::new(3, 1, true), FailedRow::new(5, 1, false)],
        ..ConsumerPageRow::default()
    };
    let row = ConsumerGroupRow::new(Generation::new(1), Offset::ZERO, options(), now(0).wall);
    let mut group = Group::load(row, std::iter::once((0, &page)), now(0));
    assert_eq!(group.dying(9).len(), 1);
    let dies = |group: &Group| [3, 4, 5].map(|at| group.dies(Offset::new(at)));
    assert_eq!(dies(&group), [true, false, false]);
    group.lose((Offset::new(3), Offset::new(4)), now(1));
    assert!(group.dying(9).is_empty() && !group.has_dying());
    assert_eq!(dies(&group), [false; 3]);
    assert_eq!(
        (group.row().skipped, group.tally(Offset::new(10)).unsettled),
        (1, 9)
    );
    let flush = group.compose(&[], now(2)).expect("it changed");
    let (number, row) = &flush.pages[0];
    let row = row.as_ref().expect("it says something");
    assert!(*number == 0 && row.is_settled(3) && row.failed.len() == 1);
}
