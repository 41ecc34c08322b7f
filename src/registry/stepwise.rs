//! Lists and removals that take many steps: what is true between two of them.
//!
//! The model does a list as one command, and the tests with it go on with a job to its end. Here other
//! commands, ticks and crashes come in between; the invariants of `jobs` have to hold all the same.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::model::{Random, seeds};
use super::tests::{Bench, nonce, peer_id, process_command, topic_id};
use super::{Answer, Command, Kind, bucket_of};
use crate::protocol::api::{PeerState, RegisterTopics, RetirePeer, StoredTopic};
use crate::protocol::error::ApiError;
use crate::types::{LeaderEpoch, TopicId, TopicName};

fn topic(name: &str, id: u8) -> StoredTopic {
    StoredTopic {
        name: name.parse().expect("good"),
        id: topic_id(id),
        epoch: LeaderEpoch::new(1),
    }
}

fn topics(ids: impl Iterator<Item = u8>) -> Vec<StoredTopic> {
    ids.map(|id| topic(&format!("t{id}"), id)).collect()
}

fn list(peer: &str, process: u8, topics: &[StoredTopic]) -> Command {
    Command::RegisterTopics(RegisterTopics {
        peer: peer_id(peer),
        nonce: nonce(process),
        part: 0,
        last: true,
        topics: topics.to_vec(),
    })
}

fn say(peer: &str, process: u8, verb: &str, rest: &[&str]) -> Command {
    process_command((peer, nonce(process)), verb, rest)
}

/// A peer with those topics.
fn with(step_entries: usize, topics: &[StoredTopic]) -> Bench {
    let mut bench = Bench::stepping(step_entries);
    bench.apply(say("alpha", 1, "registers", &[])).expect("in");
    bench.apply(list("alpha", 1, topics)).expect("taken");
    bench
}

fn begin(bench: &mut Bench, command: Command) {
    let answer = bench.begin(command).expect("begun");
    assert!(matches!(answer, Answer::Later(_)), "{answer:?}");
}

fn steps(bench: &mut Bench, count: usize) {
    for _ in 0..count {
        bench.step();
    }
}

fn assert_listed(bench: &Bench, expected: &[StoredTopic]) {
    let all = bench
        .directory
        .list(&">".parse().expect("all"), None, 1_000);
    let told = all.topics.iter().map(|topic| (&topic.name, topic.id));
    let expected = expected.iter().map(|topic| (&topic.name, topic.id));
    let order = |topics: &mut dyn Iterator<Item = (&TopicName, TopicId)>| {
        topics
            .map(|(name, id)| (name.clone(), id))
            .collect::<BTreeMap<_, _>>()
    };
    assert_eq!(
        order(&mut told.into_iter()),
        order(&mut expected.into_iter())
    );
}

/// Invariants 1 to 3: between any two steps what stays is there, a renamed topic has one of its names, the
/// peer lives, and a crash leaves a peer that has to tell its list again, which then is all that there is.
#[test]
fn between_two_steps_nothing_that_stays_is_missing_and_a_crash_is_told_again() {
    let before = topics(1..60);
    let mut after = topics(30..120);
    for topic in &mut after[..10] {
        topic.name = format!("renamed.{}", topic.name).parse().expect("good");
    }
    for crash in 0.. {
        let mut bench = with(4, &before);
        begin(&mut bench, list("alpha", 1, &after));
        let mut steps = 0;
        while bench.state.has_jobs() && steps < crash {
            let buckets = bench.step();
            assert!(
                (1..=5).contains(&buckets.max(1)),
                "{buckets} rows in one step"
            );
            steps += 1;
            for (old, new) in before[29..].iter().zip(&after) {
                let found = [&old.name, &new.name].map(|name| bench.directory.lookup(name));
                let mut found = found.into_iter().flatten();
                assert!(found.any(|found| found.id == old.id), "{}", new.name);
            }
            if bench.state.has_jobs() {
                bench.begin(say("alpha", 1, "beats", &[])).expect("lives");
            }
        }
        let is_done = !bench.state.has_jobs();
        assert_eq!(
            bench.done.len(),
            usize::from(is_done),
            "answered at the end"
        );
        bench.restart();
        let beat = bench.apply(say("alpha", 1, "beats", &[]));
        assert_eq!(beat.is_ok(), is_done, "{beat:?} after {steps} steps");
        if is_done {
            assert!(steps > 20, "{steps} steps");
            assert_listed(&bench, &after);
            return;
        }
        bench.apply(say("alpha", 1, "registers", &[])).expect("in");
        bench.apply(list("alpha", 1, &after)).expect("taken");
        assert_listed(&bench, &after);
    }
}

/// Invariant 4: the list that is told to its end last counts, and who waited for the other is told.
#[test]
fn a_second_registration_ends_the_first_at_any_step() {
    let (first, second) = (topics(1..40), topics(20..60));
    for done in 0..30 {
        for process in [1, 2] {
            let mut bench = with(2, &[]);
            begin(&mut bench, list("alpha", 1, &first));
            steps(&mut bench, done);
            if bench.state.has_jobs() {
                bench
                    .apply(say("alpha", process, "registers", &[]))
                    .expect("in");
                let [(_, Err(ApiError::NotRegistered))] = bench.done.as_slice() else {
                    panic!("{:?}", bench.done);
                };
            } else {
                bench
                    .apply(say("alpha", process, "registers", &[]))
                    .expect("in");
            }
            bench.apply(list("alpha", process, &second)).expect("taken");
            assert_listed(&bench, &second);
            bench
                .apply(say("alpha", process, "beats", &[]))
                .expect("listed");
        }
    }
    // The same process begins its list again, without saying who it is.
    let mut bench = with(2, &[]);
    begin(&mut bench, list("alpha", 1, &first));
    bench.step();
    let late = bench.begin(say("alpha", 1, "part", &["1", "x=99@1"]));
    assert_eq!(late, Err(ApiError::NotRegistered), "it is complete");
    bench.apply(list("alpha", 1, &second)).expect("taken");
    assert_listed(&bench, &second);
}

/// Invariant 5: what is created and deleted between two steps counts, wherever the list's steps are.
#[test]
fn what_happens_meanwhile_counts_at_every_step() {
    let listed = topics(1..40);
    for done in 0..25 {
        let mut bench = with(2, &topics(1..20));
        begin(&mut bench, list("alpha", 1, &listed));
        steps(&mut bench, done);
        for (verb, what) in [
            ("drops", "t3=3"),
            ("claims", "new=77"),
            ("confirms", "new=77@1"),
        ] {
            bench.begin(say("alpha", 1, verb, &[what])).expect(verb);
        }
        // A topic with another name than the list says.
        for (verb, what) in [("claims", "moved=5"), ("confirms", "moved=5@2")] {
            bench.begin(say("alpha", 1, verb, &[what])).expect(verb);
        }
        while bench.state.has_jobs() {
            bench.step();
        }
        let mut expected = listed.clone();
        expected.retain(|topic| ![topic_id(3), topic_id(5)].contains(&topic.id));
        expected.extend([topic("new", 77), topic("moved", 5)]);
        assert_listed(&bench, &expected);
    }
}

/// Jobs take turns: a short list does not wait for a long one, and time does not end the lease of who waits.
#[test]
fn a_short_list_overtakes_a_long_one() {
    let mut bench = with(8, &[]);
    bench.apply(say("beta", 1, "registers", &[])).expect("in");
    begin(&mut bench, list("alpha", 1, &topics(1..200)));
    bench.step();
    begin(&mut bench, list("beta", 1, &[topic("b", 250)]));
    bench.step();
    bench.step();
    assert_eq!(bench.done.len(), 1, "beta's");
    assert!(bench.state.has_jobs());
    assert!(
        bench
            .directory
            .lookup(&"b".parse().expect("good"))
            .is_some()
    );
    bench.pass(30);
    let peers = bench.directory.list_peers();
    let states = peers.iter().map(|peer| peer.state).collect::<Vec<_>>();
    assert_eq!(states, [PeerState::Online, PeerState::Down]);
    while bench.state.has_jobs() {
        bench.step();
    }
    bench.apply(say("alpha", 1, "beats", &[])).expect("lives");
}

/// Invariant 6: a peer that is removed is offline from the beginning, and who removes it again ends that.
#[test]
fn a_removal_that_breaks_off_can_be_told_again() {
    for done in 0..12 {
        let mut bench = with(2, &topics(1..20));
        begin(&mut bench, say("alpha", 1, "leaves", &[]));
        steps(&mut bench, done);
        if !bench.state.has_jobs() {
            assert!(done > 5 && bench.directory.list_peers().is_empty());
            return;
        }
        let refused = bench.begin(say("alpha", 1, "beats", &[]));
        assert_eq!(refused, Err(ApiError::NotRegistered));
        bench.restart();
        assert_eq!(bench.directory.list_peers()[0].state, PeerState::Offline);
        let retire = || {
            Command::RetirePeer(RetirePeer {
                name: "alpha".parse().expect("good"),
            })
        };
        begin(&mut bench, retire());
        bench
            .apply(say("alpha", 1, "registers", &[]))
            .expect("it is back");
        let Some((_, Err(ApiError::InvalidArgument { .. }))) = bench.done.pop() else {
            panic!("{:?}", bench.done);
        };
        bench
            .apply(list("alpha", 1, &topics(1..20)))
            .expect("taken");
        assert_listed(&bench, &topics(1..20));
        bench
            .apply(say("alpha", 1, "departs", &[]))
            .expect("offline");
        bench.apply(retire()).expect("retired");
        assert_listed(&bench, &[]);
    }
    panic!("twelve steps of two topics should do for twenty");
}

/// Names that topics of one peer exchange: each leads to one of them all the time.
#[test]
fn exchanged_names_lead_somewhere_all_the_time() {
    let (one, other) = (
        [topic("a", 1), topic("b", 2)],
        [topic("b", 1), topic("a", 2)],
    );
    assert_ne!(bucket_of(&one[0].name), bucket_of(&one[1].name));
    let mut bench = with(1, &one);
    begin(&mut bench, list("alpha", 1, &other));
    let mut seen = BTreeSet::new();
    while bench.state.has_jobs() {
        bench.step();
        let found = one
            .each_ref()
            .map(|topic| bench.directory.lookup(&topic.name));
        seen.insert(found.iter().flatten().count());
    }
    assert!(!seen.contains(&0), "{seen:?}");
    assert_listed(&bench, &other);
}

/// Random commands between random steps: the registry's invariants hold after each (the bench looks), and
/// a peer whose list was answered has what it listed and did since, and nothing else.
#[test]
fn random_commands_between_steps_leave_what_was_told() {
    for seed in seeds() {
        let outcome = std::panic::catch_unwind(|| run(seed));
        assert!(outcome.is_ok(), "repeat it with TIDINGS_SEED={seed}");
    }
}

fn run(seed: u64) {
    let mut random = Random::new(seed);
    let mut bench = Bench::stepping(1);
    let mut newest = BTreeMap::new();
    for _ in 0..300 {
        match random.below(12) {
            0 => {
                bench.restart();
            }
            1 => {
                let second = Duration::from_secs(1);
                bench.now.ticks = bench.now.ticks.after(second);
                drop(bench.begin(Command::Tick));
            }
            2..=5 => steps(&mut bench, 1),
            _ => drop(bench.begin(random.command(&mut newest))),
        }
    }
    let jobs = bench.state.jobs.len();
    bench.done.clear();
    while bench.state.has_jobs() {
        bench.step();
    }
    assert_eq!(bench.done.len(), jobs, "every job ends with an answer");
    for name in ["p", "q", "r"] {
        let process = newest.get(&peer_id(name)).copied().unwrap_or(0) + 1;
        let told = topics(1..5);
        if bench.apply(say(name, process, "registers", &[])).is_err() {
            continue;
        }
        bench.apply(list(name, process, &told)).expect("taken");
        let number = bench.state.peers.by_id(peer_id(name)).expect("registered");
        let entries = bench.state.topics.of_peer(number);
        let entries = entries.map(|slot| bench.state.topics.get(slot));
        let stored: BTreeSet<_> = entries
            .filter(|entry| entry.kind != Kind::Claim)
            .map(|entry| (entry.id, entry.name.clone()))
            .collect();
        let expected = told.into_iter().map(|topic| (topic.id, topic.name));
        assert_eq!(stored, expected.collect(), "held or in a conflict");
    }
}
