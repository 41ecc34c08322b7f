//! What a member knows, without a host: whatever happens, each verdict counts or is named, once.

use super::state::{Bounds, Run, State, Terms};
use super::*;
use crate::protocol::api::{NotHeld, SettledRun};
use crate::protocol::batch::{BatchBuilder, Compression, RecordToSend};
use crate::protocol::taken::{Taken, TakenItem, TakenRun};
use crate::time::Timestamp;
use crate::types::{ProducerId, Sequence};

const DEADLINE: Duration = Duration::from_secs(10);

fn state(keep: bool, ordered_by_key: bool) -> State {
    let bounds = Bounds {
        records: 100,
        bytes: 1 << 20,
        keep,
    };
    let mut state = State::new(bounds, Instant::now());
    state.begin(Terms {
        ack_deadline: DEADLINE,
        ordered_by_key,
    });
    state
}

/// Records that follow each other; the key is the last digit of the offset.
fn taken(first: u64, count: u32, delivery: u32) -> Taken {
    let mut builder = BatchBuilder::new(Compression::None);
    for n in 0..u64::from(count) {
        let key = ((first + n) % 10).to_string();
        let record = RecordToSend {
            timestamp: Timestamp::default(),
            key: Some(key.as_bytes()),
            headers: &[],
            value: b"value",
        };
        builder.try_push(&record).expect("it fits");
    }
    let batch = builder.build(ProducerId::zero(), Sequence::ZERO);
    Taken {
        ack_deadline_ms: DEADLINE.as_millis() as u64,
        number: 0,
        items: vec![TakenItem {
            append_time: Timestamp::default(),
            runs: vec![TakenRun {
                first: Offset::new(first),
                count,
                delivery,
            }],
            batch: batch.expect("there are records"),
        }],
    }
}

/// Admits answers in the order in which the host made them.
fn admit(state: &mut State, mut all: Vec<Taken>, now: Instant) -> Result<(), ClientError> {
    for (number, taken) in (state.admitted() + 1..).zip(&mut all) {
        taken.number = number;
    }
    state.admit(all, now)
}

/// Admits records and hands all of them out.
fn give(state: &mut State, first: u64, count: u32, now: Instant) -> Vec<MemberDelivery> {
    admit(state, vec![taken(first, count, 1)], now).expect("whole");
    let given = state.hand_out(usize::MAX, now).expect("it lives");
    assert_eq!(given.len(), count as usize);
    given
}

fn runs(runs: &[Run]) -> Vec<(u64, u32, Verdict)> {
    let told = |run: &Run| (run.run.first.get(), run.run.count, run.run.verdict.clone());
    runs.iter().map(told).collect()
}

#[test]
fn what_is_said_first_is_sent_first_and_only_acknowledgements_are_put_in_order() {
    let now = Instant::now();
    let mut state = state(false, true);
    let given = give(&mut state, 0, 10, now);
    let nak = Verdict::Nak { delay_ms: None };
    for at in [3, 1, 2] {
        state.say(&given[at], Verdict::Ack, now);
    }
    state.say(&given[5], nak.clone(), now);
    for at in [6, 0, 4] {
        state.say(&given[at], Verdict::Ack, now);
    }
    let sent = state.take_runs(now);
    let expected = [
        (1, 3, Verdict::Ack),
        (5, 1, nak),
        (0, 1, Verdict::Ack),
        (4, 1, Verdict::Ack),
        (6, 1, Verdict::Ack),
    ];
    assert_eq!(runs(&sent), expected);
}

#[test]
fn verdicts_wait_a_little_unless_somebody_waits_for_them() {
    let now = Instant::now();
    let mut state = state(false, false);
    assert_eq!(state.due(), None);
    let given = give(&mut state, 0, 3, now);
    state.say(&given[0], Verdict::Ack, now);
    assert!(state.take_news(), "the first is news");
    assert_eq!(state.due(), Some(now + limits::MEMBER_GATHER));
    state.say(&given[1], Verdict::Ack, now);
    assert!(!state.take_news(), "the second is none");
    assert_eq!(state.hurry(), 2);
    assert_eq!(state.due(), Some(now));
    let sent = state.take_runs(now);
    assert_eq!(state.due(), None);
    assert_eq!(state.settled_up_to(2), Ok(None));
    state.answer(&sent, &[], now);
    assert_eq!(state.settled_up_to(2), Ok(Some(Vec::new())));
    assert_eq!(state.hurry(), 2, "nothing more to wait for");
}

#[test]
fn more_runs_than_a_request_takes_go_in_several() {
    let now = Instant::now();
    let mut state = state(false, false);
    let count = 2 * limits::SETTLED_RUNS_MAX as u32 + 10;
    let given = give(&mut state, 0, count, now);
    // Every other one: none is joined.
    for given in given.iter().step_by(2) {
        state.say(given, Verdict::Ack, now);
    }
    let first = state.take_runs(now);
    assert_eq!(first.len(), limits::SETTLED_RUNS_MAX);
    assert!(state.due().is_some());
    assert_eq!(state.take_runs(now).len(), 5);
    assert_eq!(state.due(), None);
}

/// The host refuses a settlement of more records than anybody may hold, and one that is refused ends the member. What is
/// extended and acknowledged soon after was counted twice.
#[test]
fn more_records_than_a_request_takes_go_in_several() {
    let now = Instant::now();
    let mut state = state(true, false);
    let count = limits::UNACKED_MAX * 2 / 3;
    give(&mut state, 0, count, now);
    state.renew(now + DEADLINE / 2);
    assert_eq!(
        state.ack_up_to(Offset::new(u64::MAX), now),
        u64::from(count)
    );
    let mut sent = Vec::new();
    while state.due().is_some() {
        let runs = state.take_runs(now);
        let records: u32 = runs.iter().map(|run| run.run.count).sum();
        assert!(records <= limits::UNACKED_MAX, "{records} in one request");
        sent.extend(runs);
    }
    let total = |verdict: Verdict| -> u32 {
        let of = sent.iter().filter(|run| run.run.verdict == verdict);
        of.map(|run| run.run.count).sum()
    };
    assert_eq!(
        (total(Verdict::Extend), total(Verdict::Ack)),
        (count, count)
    );
}

/// Acknowledgements are put in order before they are sent, and of very many not all go at once. Those that were said
/// after somebody began to wait went before those he waits for, and he was told that these are durable.
#[test]
fn what_is_said_later_does_not_go_before_what_somebody_waits_for() {
    let now = Instant::now();
    let mut state = state(false, false);
    let most = limits::SETTLED_RUNS_MAX;
    let given = give(&mut state, 0, 2 * most as u32 + 20, now);
    // Every other one: none is joined.
    let (later, first) = given.split_at(20);
    for given in first.iter().step_by(2) {
        state.say(given, Verdict::Ack, now);
    }
    let target = state.hurry();
    assert_eq!(target, most as u64);
    for given in later.iter().step_by(2) {
        state.say(given, Verdict::Ack, now);
    }
    let sent = state.take_runs(now);
    state.answer(&sent, &[], now);
    assert_eq!(state.settled_up_to(target), Ok(Some(Vec::new())));
    let is_first = |run: &Run| run.run.first >= first[0].offset();
    assert!(sent.iter().all(is_first), "something else went before");
    let rest = state.take_runs(now);
    assert_eq!(rest.len(), 10);
    assert_eq!(state.due(), None);
}

#[test]
fn only_a_delivery_that_is_held_can_be_spoken_of() {
    let now = Instant::now();
    let mut state = state(false, false);
    let given = give(&mut state, 0, 2, now);
    state.say(&given[0], Verdict::Nak { delay_ms: None }, now);
    let sent = state.take_runs(now);
    state.answer(&sent, &[], now);
    // Given again: what was said of the first delivery is not about the second.
    admit(&mut state, vec![taken(0, 1, 2)], now).expect("whole");
    let again = state.hand_out(1, now).expect("it lives");
    state.say(&given[0], Verdict::Ack, now);
    assert_eq!(state.take_runs(now), []);
    state.say(&again[0], Verdict::Ack, now);
    assert_eq!(runs(&state.take_runs(now)), [(0, 1, Verdict::Ack)]);
    // Another membership has the same offsets and other deliveries.
    state.lapse(&[]);
    state.begin(state.terms());
    let later = give(&mut state, 1, 1, now);
    state.say(&given[1], Verdict::Ack, now);
    assert_eq!(state.take_runs(now), []);
    state.say(&later[0], Verdict::Ack, now);
    assert_eq!(runs(&state.take_runs(now)), [(1, 1, Verdict::Ack)]);
}

#[test]
fn what_waits_is_extended_while_the_application_lives_and_what_it_holds_if_wanted() {
    for keep in [false, true] {
        let begun = Instant::now();
        let mut state = state(keep, false);
        admit(&mut state, vec![taken(0, 4, 1)], begun).expect("whole");
        let given = state.hand_out(1, begun).expect("it lives");
        state.renew(begun + DEADLINE / 4);
        assert_eq!(state.take_runs(begun), [], "it is early");
        let late = begun + DEADLINE * 3 / 4;
        state.renew(late);
        let expected = match keep {
            true => (0, 4, Verdict::Extend),
            false => (1, 3, Verdict::Extend),
        };
        let sent = state.take_runs(late);
        assert_eq!(runs(&sent), [expected]);
        state.renew(late);
        assert_eq!(state.take_runs(late), [], "one on the way is enough");
        // The host does not hold the last one for this member any more.
        let lost = NotHeld {
            first: Offset::new(3),
            count: 1,
            instead: Instead::Elsewhere,
        };
        state.answer(&sent, &[lost], late);
        let rest = state
            .hand_out(9, begun + DEADLINE * 3 / 2)
            .expect("it lives");
        assert_eq!(offsets(&rest), [1, 2]);
        assert_eq!(rest[0].deadline, late + DEADLINE);
        assert_eq!(
            state.settled_up_to(0),
            Ok(Some(Vec::new())),
            "nobody said anything"
        );
        // Long overdue: forgotten, unless it was kept.
        state.renew(begun + DEADLINE * 5 / 2);
        state.take_runs(late);
        state.say(&given[0], Verdict::Ack, late);
        assert_eq!(state.take_runs(late).is_empty(), !keep);
    }
}

#[test]
fn an_application_that_says_nothing_loses_what_waits_for_it() {
    let begun = Instant::now();
    let mut state = state(false, false);
    admit(&mut state, vec![taken(0, 3, 1)], begun).expect("whole");
    let later = begun + DEADLINE + Duration::from_secs(1);
    state.renew(later);
    assert_eq!(state.take_runs(later), []);
    assert_eq!(state.hand_out(9, later), Ok(Vec::new()));
}

/// What nobody takes fails at its deadline, and fails again at the next if the same member takes it again: an application
/// that hung sent records to the dead letters which nobody had ever looked at.
#[test]
fn for_an_application_that_is_not_there_nothing_more_is_taken() {
    let begun = Instant::now();
    let late = begun + DEADLINE + Duration::from_secs(1);
    for returns in 0..3 {
        let mut state = state(false, false);
        let given = give(&mut state, 0, 1, begun);
        state.renew(late);
        assert!(state.wants_more(), "nothing that waited was let go");
        state.asked();
        admit(&mut state, vec![taken(1, 3, 1)], begun).expect("whole");
        state.renew(late);
        assert!(!state.wants_more(), "nobody takes what is here");
        match returns {
            0 => assert_eq!(state.hand_out(1, late), Ok(Vec::new())),
            1 => state.say(&given[0], Verdict::Ack, late),
            _ => _ = state.ack_up_to(Offset::ZERO, late),
        }
        assert!(state.wants_more(), "it is there again");
    }
}

#[test]
fn room_is_for_two_takes_and_never_for_more_than_asked() {
    let now = Instant::now();
    let mut state = state(false, false);
    assert_eq!(state.share(), (50, 1 << 19));
    for _ in 0..2 {
        assert!(state.wants_more());
        state.asked();
    }
    assert!(!state.wants_more());
    admit(&mut state, vec![taken(0, 50, 1)], now).expect("whole");
    assert!(!state.wants_more(), "50 are here and 50 on the way");
    state.hand_out(50, now).expect("it lives");
    assert!(state.wants_more());
    state.end(ClientError::Closed);
    assert!(!state.wants_more());
}

#[test]
fn what_comes_again_takes_the_place_of_what_is_over() {
    let now = Instant::now();
    for is_ordered in [false, true] {
        let mut state = state(false, is_ordered);
        admit(&mut state, vec![taken(0, 25, 1)], now).expect("whole");
        admit(&mut state, vec![taken(4, 1, 2)], now).expect("whole");
        let given = state.hand_out(99, now).expect("it lives");
        let told = |given: &MemberDelivery| (given.offset().get(), given.delivery);
        let given: Vec<_> = given.iter().map(told).collect();
        // Those of key 4 behind it are taken back by the host, where order by key holds.
        let is_there = |n: &u64| n % 10 != 4 || (!is_ordered && *n != 4);
        let mut expected: Vec<_> = (0..25).filter(is_there).map(|n| (n, 1)).collect();
        expected.insert(4, (4, 2));
        assert_eq!(given, expected);
    }
}

fn offsets(given: &[MemberDelivery]) -> Vec<u64> {
    given.iter().map(|given| given.offset().get()).collect()
}

#[test]
fn an_answer_that_overtook_another_waits_for_it() {
    let now = Instant::now();
    let numbered = |number, taken| Taken { number, ..taken };
    let mut state = state(false, true);
    for _ in 0..3 {
        state.asked();
    }
    // What failed before and comes again, and what was given out behind it.
    let late = numbered(1, taken(3, 1, 2));
    let early = vec![numbered(3, taken(23, 1, 1)), numbered(2, taken(13, 1, 2))];
    state.admit(early, now).expect("one is on its way");
    assert_eq!(state.hand_out(99, now), Ok(Vec::new()));
    state.admit(vec![late], now).expect("all are here");
    let given = state.hand_out(99, now).expect("it lives");
    assert_eq!(offsets(&given), [3, 13, 23]);
}

#[test]
fn an_answer_twice_or_never_is_an_error() {
    let now = Instant::now();
    let numbered = |number| Taken {
        number,
        ..taken(0, 1, 1)
    };
    for (asked, numbers) in [(1, vec![2]), (3, vec![1, 1]), (3, vec![2, 2]), (1, vec![0])] {
        let mut state = state(false, false);
        (0..asked).for_each(|_| state.asked());
        let admitted = state.admit(numbers.iter().copied().map(numbered).collect(), now);
        assert!(admitted.is_err(), "{numbers:?}");
    }
    let mut state = state(false, false);
    (0..4).for_each(|_| state.asked());
    state
        .admit(vec![numbered(1), numbered(3)], now)
        .expect("one more comes");
    assert!(state.admit(vec![numbered(1)], now).is_err());
    // Another membership counts anew.
    state.lapse(&[]);
    state.begin(state.terms());
    state.asked();
    state.admit(vec![numbered(1)], now).expect("the first");
}

#[test]
fn a_word_of_a_delivery_that_came_again_drops_nothing() {
    let now = Instant::now();
    let mut state = state(false, true);
    let first = give(&mut state, 3, 1, now);
    // Its deadline passed at the host; it comes again with those behind it.
    admit(&mut state, vec![taken(3, 1, 2), taken(13, 1, 2)], now).expect("whole");
    state.say(&first[0], Verdict::Nak { delay_ms: None }, now);
    assert_eq!(state.take_runs(now), []);
    let given = state.hand_out(99, now).expect("it lives");
    assert_eq!(offsets(&given), [3, 13]);
}

#[test]
fn a_batch_that_is_not_whole_is_refused() {
    let mut broken = taken(0, 3, 1);
    let mut bytes = broken.items[0].batch.to_vec();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    broken.items[0].batch = bytes.into();
    let refused = admit(&mut state(false, false), vec![broken], Instant::now());
    assert_eq!(
        refused.expect_err("its checksum is wrong").name(),
        "MalformedAnswer"
    );
}

/// Chance, the same each time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

/// A host that answers as it likes, and what came of each verdict.
#[derive(Default)]
struct Play {
    next: u64,
    in_hand: Vec<MemberDelivery>,
    sent: Vec<Vec<Run>>,
    said: u64,
    counted: u64,
    named: u64,
}

impl Play {
    fn step(&mut self, state: &mut State, dice: &mut Dice, now: Instant) {
        match dice.below(20) {
            0..4 => {
                let count = 1 + dice.below(5) as u32;
                admit(state, vec![taken(self.next, count, 1)], now).expect("whole");
                self.next += u64::from(count);
            }
            4..8 => self.in_hand.extend(
                state
                    .hand_out(1 + dice.below(4) as usize, now)
                    .expect("it lives"),
            ),
            8..14 if !self.in_hand.is_empty() => {
                let at = dice.below(self.in_hand.len() as u64) as usize;
                let given = self.in_hand[at].clone();
                let verdict = match dice.below(4) {
                    0 => Verdict::Nak { delay_ms: Some(5) },
                    1 => Verdict::Reject {
                        reason: String::new(),
                    },
                    _ => Verdict::Ack,
                };
                state.say(&given, verdict, now);
                self.said += 1;
                // Now and then twice.
                if dice.below(10) > 0 {
                    self.in_hand.swap_remove(at);
                }
            }
            14 => {
                let up_to = Offset::new(dice.below(self.next + 1));
                self.said += state.ack_up_to(up_to, now);
            }
            15..17 => self.sent.push(state.take_runs(now)),
            17 | 18 if !self.sent.is_empty() => {
                let runs = self.sent.remove(0);
                let lost = lost(&runs, dice);
                state.answer(&runs, &lost, now);
                let all: u64 = runs.iter().map(|run| u64::from(run.run.count)).sum();
                let missed: u64 = lost.iter().map(|lost| u64::from(lost.count)).sum();
                self.counted += all - missed;
            }
            _ if dice.below(10) == 0 => {
                let sent: Vec<Run> = self.sent.drain(..).flatten().collect();
                state.lapse(&sent);
                state.begin(state.terms());
            }
            _ => self.name(state),
        }
    }

    fn name(&mut self, state: &mut State) {
        if let Some(missed) = state.settled_up_to(0).expect("it lives") {
            self.named += missed
                .iter()
                .map(|missed| u64::from(missed.count))
                .sum::<u64>();
        }
    }
}

/// Some of what was sent, as not held.
fn lost(runs: &[Run], dice: &mut Dice) -> Vec<NotHeld> {
    let mut lost = Vec::new();
    for Run {
        run: SettledRun { first, count, .. },
        ..
    } in runs
    {
        if dice.below(3) == 0 {
            let skipped = dice.below(u64::from(*count)) as u32;
            lost.push(NotHeld {
                first: first.saturating_add(skipped.into()),
                count: 1 + dice.below(u64::from(count - skipped)) as u32,
                instead: Instead::Waiting,
            });
        }
    }
    lost
}

#[test]
fn whatever_happens_each_verdict_counts_or_is_named_once() {
    for seed in 0..200 {
        let mut dice = Dice(seed);
        let (mut play, mut state, now) =
            (Play::default(), state(false, seed % 2 == 0), Instant::now());
        for _ in 0..400 {
            play.step(&mut state, &mut dice, now);
        }
        let target = state.hurry();
        while state.due().is_some() {
            play.sent.push(state.take_runs(now));
        }
        for runs in std::mem::take(&mut play.sent) {
            state.answer(&runs, &[], now);
            play.counted += runs.iter().map(|run| u64::from(run.run.count)).sum::<u64>();
        }
        assert!(
            state
                .settled_up_to(target)
                .expect("it lives")
                .is_some_and(|missed| {
                    play.named += missed
                        .iter()
                        .map(|missed| u64::from(missed.count))
                        .sum::<u64>();
                    true
                })
        );
        assert_eq!(play.said, play.counted + play.named, "seed {seed}");
    }
}
