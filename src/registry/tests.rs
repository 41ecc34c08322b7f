//! The registry in a story, and in the corners the story does not reach.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use super::rows::{Changes, Layout, Loaded, Loader};
use super::*;
use crate::protocol::api::{
    ClaimTopic, ConfirmTopic, Depart, DropTopic, Heartbeat, Nonce, PeerInfo, PeerLoad, PlaceTopic,
    RegisterPeer, RegisterTopics, RetirePeer, StoredTopic, TopicLocation,
};
use crate::protocol::error::ApiError;
use crate::types::{LeaderEpoch, PeerId, TopicId, TopicName, TopicPattern};

pub(super) const SETTINGS: Settings = Settings {
    lease: Duration::from_secs(10),
    claim_kept: Duration::from_secs(10),
    stall: Duration::from_secs(3),
    step_entries: 2,
};

/// A registry with its directory and its store, the store being a map.
pub(super) struct Bench {
    settings: Settings,
    pub(super) state: State,
    pub(super) directory: Directory,
    pub(super) stored: BTreeMap<Vec<u8>, Vec<u8>>,
    layout: Layout,
    pub(super) now: Now,
    pub(super) events: Vec<Event>,
    /// What jobs ended with, until somebody asks.
    pub(super) done: Vec<(JobNumber, Result<Answer, ApiError>)>,
}

impl Bench {
    pub(super) fn new() -> Self {
        Self::stepping(SETTINGS.step_entries)
    }

    /// One whose steps are so long.
    pub(super) fn stepping(step_entries: usize) -> Self {
        let now = Now {
            ticks: Millis::new(0),
            wall: Timestamp::from_millis(0),
        };
        let settings = Settings {
            step_entries,
            ..SETTINGS
        };
        let state = State::new(settings, now);
        Self {
            settings,
            directory: Directory::new(&state, 1),
            state,
            stored: BTreeMap::new(),
            layout: Layout::new(),
            now,
            events: Vec::new(),
            done: Vec::new(),
        }
    }

    /// Applies the command and, if it begins a job, goes on with that to its end.
    pub(super) fn apply(&mut self, command: Command) -> Result<Answer, ApiError> {
        match self.begin(command) {
            Ok(Answer::Later(job)) => self.finish(job),
            answer => answer,
        }
    }

    /// Applies the command alone.
    pub(super) fn begin(&mut self, command: Command) -> Result<Answer, ApiError> {
        let mut effects = Effects::default();
        let answer = self.state.apply(command, self.now, &mut effects);
        if answer.is_err() {
            assert!(!effects.need_disk(), "a refused command changed something");
        }
        self.state.check();
        self.settle(effects);
        answer
    }

    /// One step of what is under way; how many buckets it changed.
    pub(super) fn step(&mut self) -> usize {
        let mut effects = Effects::default();
        self.state.step(self.now, &mut effects);
        let buckets = effects.buckets.len();
        self.state.check();
        self.settle(effects);
        buckets
    }

    fn finish(&mut self, job: JobNumber) -> Result<Answer, ApiError> {
        loop {
            if let Some(at) = self.done.iter().position(|(done, _)| *done == job) {
                return self.done.swap_remove(at).1;
            }
            assert!(self.state.has_jobs(), "a job ends with an answer");
            self.step();
        }
    }

    fn settle(&mut self, effects: Effects) {
        for batch in self.layout.changed(&self.state, &effects) {
            self.store(batch);
        }
        self.directory.show(&self.state, &effects);
        self.events.extend(effects.events);
        self.done.extend(effects.done);
    }

    fn store(&mut self, batch: Changes) {
        for key in batch.deletes {
            assert!(self.stored.remove(&key).is_some(), "removes what is there");
        }
        for (key, value) in batch.puts {
            assert!(value.len() <= crate::limits::REGISTRY_ROW_BYTES_MAX);
            self.stored.insert(key, value);
        }
    }

    /// Lets time pass, with a tick in every second of it.
    pub(super) fn pass(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.jump(1);
        }
    }

    /// Lets time pass without a tick in it, but one at the end.
    pub(super) fn jump(&mut self, seconds: u64) {
        let duration = Duration::from_secs(seconds);
        self.now.ticks = self.now.ticks.after(duration);
        self.now.wall = self.now.wall.after(duration);
        self.apply(Command::Tick).expect("time passes");
    }

    /// The process ends and another begins on the stored rows.
    pub(super) fn restart(&mut self) -> Loaded {
        let mut loader = Loader::new(self.settings, self.now);
        self.stored
            .clone()
            .into_iter()
            .for_each(|row| loader.take(row));
        let (state, layout, loaded) = loader.finish();
        state.check();
        let version = self.directory.version() + 1_000;
        self.directory = Directory::new(&state, version);
        (self.state, self.layout) = (state, layout);
        self.settle(loaded.effects.clone());
        loaded
    }
}

pub(super) fn peer_id(name: &str) -> PeerId {
    let mut bytes = [0; 16];
    bytes[..name.len()].copy_from_slice(name.as_bytes());
    PeerId::from_bytes(bytes)
}

pub(super) fn topic_id(n: u8) -> TopicId {
    TopicId::from_bytes([n; 16])
}

pub(super) fn nonce(n: u8) -> Nonce {
    Nonce([n; 16])
}

/// `a.b=7@2`: name, id, epoch (0 if left out).
fn stored_topic(text: &str) -> StoredTopic {
    let (name, rest) = text.split_once('=').expect("name=id");
    let (id, epoch) = rest.split_once('@').unwrap_or((rest, "0"));
    StoredTopic {
        name: name.parse().expect("a topic name"),
        id: topic_id(id.parse().expect("an id")),
        epoch: LeaderEpoch::new(epoch.parse().expect("an epoch")),
    }
}

/// One line of a story as a command, or as what it asks to be shown.
fn run_line(bench: &mut Bench, line: &str, seen: &mut u64) -> String {
    let words: Vec<&str> = line.split(' ').collect();
    match *words.as_slice() {
        ["after", seconds] => {
            bench.pass(seconds.parse().expect("seconds"));
            String::new()
        }
        ["stopped", "for", seconds] => {
            bench.jump(seconds.parse().expect("seconds"));
            String::new()
        }
        ["restart"] => {
            assert_eq!(bench.restart(), Loaded::default());
            String::new()
        }
        ["lose", "everything"] => {
            bench.stored.clear();
            bench.restart();
            String::new()
        }
        ["lookup", name] => match bench.directory.lookup(&name.parse().expect("name")) {
            Some(location) => show_location(&location),
            None => "nowhere".to_owned(),
        },
        ["list", pattern] => show_list(bench, pattern),
        ["peers"] => bench
            .directory
            .list_peers()
            .iter()
            .map(show_peer)
            .collect::<Vec<_>>()
            .join("\n"),
        ["watch", pattern] => show_changes(bench, pattern, seen),
        ["events"] => {
            let events = std::mem::take(&mut bench.events);
            events
                .iter()
                .map(|event| format!("{event:?}"))
                .collect::<Vec<_>>()
                .join("\n")
        }
        _ => show_answer(bench.apply(command(&words))),
    }
}

fn command(words: &[&str]) -> Command {
    match *words {
        ["retire", name] => Command::RetirePeer(RetirePeer {
            name: name.parse().expect("a peer name"),
        }),
        ["place", name] => place(name, None),
        ["place", name, "on", peer] => place(name, Some(peer)),
        [process, verb, ref rest @ ..] => {
            let (peer, number) = process.split_once('/').expect("peer/process");
            let nonce = nonce(number.parse().expect("a process number"));
            process_command((peer, nonce), verb, rest)
        }
        _ => panic!("not a command: {words:?}"),
    }
}

fn place(name: &str, on: Option<&str>) -> Command {
    Command::PlaceTopic(PlaceTopic {
        name: name.parse().expect("a topic name"),
        on: on.map(|peer| peer.parse().expect("a peer name")),
    })
}

pub(super) fn process_command((name, nonce): (&str, Nonce), verb: &str, rest: &[&str]) -> Command {
    let peer = peer_id(name);
    let topic = || stored_topic(rest[0]);
    let part = |part, last, topics: &[&str]| {
        Command::RegisterTopics(RegisterTopics {
            peer,
            nonce,
            part,
            last,
            topics: topics.iter().map(|text| stored_topic(text)).collect(),
        })
    };
    match verb {
        "registers" => Command::RegisterPeer(RegisterPeer {
            peer,
            name: rest.get(1).unwrap_or(&name).parse().expect("a peer name"),
            address: format!("{name}:7401").parse().expect("an address"),
            nonce,
            load: PeerLoad::default(),
        }),
        "lists" => part(0, true, rest),
        "part" => part(rest[0].parse().expect("a number"), false, &rest[1..]),
        "last-part" => part(rest[0].parse().expect("a number"), true, &rest[1..]),
        "beats" => Command::Heartbeat(Heartbeat {
            peer,
            nonce,
            load: PeerLoad {
                stored_bytes: rest
                    .first()
                    .map_or(0, |gib| gib.parse::<u64>().expect("GiB") << 30),
                disk_free_bytes: 1 << 40,
                ..PeerLoad::default()
            },
        }),
        "departs" | "leaves" => Command::Depart(Depart {
            peer,
            nonce,
            leave: verb == "leaves",
        }),
        "claims" => Command::ClaimTopic(ClaimTopic {
            peer,
            nonce,
            name: topic().name,
            id: topic().id,
        }),
        "confirms" => Command::ConfirmTopic(ConfirmTopic {
            peer,
            nonce,
            name: topic().name,
            id: topic().id,
            epoch: topic().epoch,
        }),
        "drops" => Command::DropTopic(DropTopic {
            peer,
            nonce,
            name: topic().name,
            id: topic().id,
        }),
        _ => panic!("not a verb: {verb}"),
    }
}

fn show_answer(answer: Result<Answer, ApiError>) -> String {
    match answer {
        Ok(Answer::Done(_)) => "done".to_owned(),
        Ok(Answer::Registered(answer)) => format!("lease {} ms", answer.lease_ms),
        Ok(Answer::Claimed(answer)) => format!("epoch {}", answer.epoch),
        Ok(Answer::Retired(answer)) => format!("{} names free", answer.topics),
        Ok(Answer::Placement(answer)) => format!("on {}", answer.name),
        Ok(Answer::Later(_)) => "later".to_owned(),
        Ok(Answer::RegisteredTopics(answer)) => {
            let mut text = "taken".to_owned();
            for conflict in answer.conflicts {
                let id = conflict.id.to_bytes()[0];
                let (name, holder) = (conflict.name, conflict.holder);
                write!(text, "; {name}={id} belongs to {holder}").expect("a string");
            }
            text
        }
        Err(error) => format!("{}: {error}", error.name()),
    }
}

fn show_location(location: &TopicLocation) -> String {
    format!(
        "{}={}@{} on {} {} since {} s",
        location.name,
        location.id.to_bytes()[0],
        location.epoch,
        location.peer_name,
        location.state,
        location.since.as_millis() / 1_000,
    )
}

fn show_peer(peer: &PeerInfo) -> String {
    let mut text = format!(
        "{} {} since {} s, {} topics",
        peer.name,
        peer.state,
        peer.since.as_millis() / 1_000,
        peer.topics
    );
    for name in &peer.conflicts {
        write!(text, ", conflict {name}").expect("a string");
    }
    text
}

fn show_list(bench: &Bench, pattern: &str) -> String {
    let pattern = pattern.parse().expect("a pattern");
    let slice = bench.directory.list(&pattern, None, 100);
    let names: Vec<_> = slice
        .topics
        .iter()
        .map(|topic| topic.name.to_string())
        .collect();
    names.join(" ")
}

fn show_changes(bench: &Bench, pattern: &str, seen: &mut u64) -> String {
    let changes = bench
        .directory
        .changes(*seen, &pattern.parse().expect("a pattern"));
    *seen = changes.version;
    let mut lines: Vec<String> = Vec::new();
    if changes.reset {
        lines.push("list anew".to_owned());
    }
    lines.extend(changes.changed.iter().map(show_location));
    lines.extend(changes.dropped.iter().map(|name| format!("{name} gone")));
    lines.join("\n")
}

/// Runs every story: what stands below a `>` line is what that line must give.
#[test]
fn stories() {
    for (story, text) in [
        ("life", include_str!("stories/life.txt")),
        ("names", include_str!("stories/names.txt")),
        ("processes", include_str!("stories/processes.txt")),
        ("conflicts", include_str!("stories/conflicts.txt")),
    ] {
        let mut bench = Bench::new();
        let mut seen = 0;
        let mut told = String::new();
        for line in text.lines() {
            if let Some(command) = line.strip_prefix("> ") {
                let shown = run_line(&mut bench, command, &mut seen);
                writeln!(told, "{line}").expect("a string");
                if !shown.is_empty() {
                    writeln!(told, "{shown}").expect("a string");
                }
            } else if line.is_empty() || line.starts_with('#') {
                writeln!(told, "{line}").expect("a string");
            }
        }
        assert!(text == told, "the story {story} went another way:\n{told}");
    }
}

fn told(bench: &mut Bench, lines: &[&str]) {
    for line in lines {
        run_line(bench, line, &mut 0);
    }
}

/// What is lost is told again by who stores it; nothing is made up for it.
#[test]
fn a_registry_with_a_damaged_row_asks_every_peer_again() {
    let mut bench = Bench::new();
    let before = [
        "alpha/1 registers",
        "alpha/1 lists a=1@1 b=2@1",
        "beta/1 registers",
        "beta/1 lists c=3@1",
    ];
    told(&mut bench, &before);
    for key in bench.stored.keys().cloned().collect::<Vec<_>>() {
        let mut bench = Bench::new();
        told(&mut bench, &before);
        bench.stored.get_mut(&key).expect("a row").pop();
        let loaded = bench.restart();
        assert_eq!(loaded.unreadable.len(), 1, "{loaded:?}");
        let again = bench.restart();
        assert_eq!(again, Loaded::default(), "a damaged row is reported once");
        for peer in ["alpha/1", "beta/1"] {
            let answer = run_line(&mut bench, &format!("{peer} beats"), &mut 0);
            assert!(answer.starts_with("NotRegistered"), "{answer}");
        }
        told(&mut bench, &before);
        assert_eq!(run_line(&mut bench, "list >", &mut 0), "a b c");
        assert_eq!(run_line(&mut bench, "alpha/1 beats", &mut 0), "done");
    }
}

/// A key says which part of a bucket its row is. Whatever it says, only what is there is removed, and its entries count.
#[test]
fn a_part_out_of_its_place_is_put_right_in_one_step() {
    let mut bench = Bench::new();
    told(
        &mut bench,
        &["alpha/1 registers", "alpha/1 lists a=1@1 b=2@1"],
    );
    let key = bench.stored.keys().last().expect("rows").clone();
    let value = bench.stored.remove(&key).expect("it is there");
    let far = [&key[..3], &3_000_000_u32.to_be_bytes()].concat();
    bench.stored.insert(far, value);
    let loaded = bench.restart();
    assert_eq!(loaded.unreadable.len(), 1, "{loaded:?}");
    assert_eq!(bench.restart(), Loaded::default(), "it is reported once");
    assert!(bench.stored.contains_key(&key));
    assert_eq!(run_line(&mut bench, "list >", &mut 0), "a b");
    assert!(run_line(&mut bench, "alpha/1 beats", &mut 0).starts_with("NotRegistered"));
}

/// A change that takes several batches and of which a crash left only some is
/// noticed, wherever it was cut: what is there holds together, and the peers tell
/// the rest again.
#[test]
fn a_change_that_was_written_in_part_is_told_again() {
    let topics: Vec<String> = (1..60).map(|n| format!("t{n}={n}@1")).collect();
    let list = format!("alpha/1 lists {}", topics.join(" "));
    let prepared = || {
        let mut bench = Bench::new();
        told(
            &mut bench,
            &["alpha/1 registers", "alpha/1 lists a=90@1 b=91@1 c=92@1"],
        );
        bench.layout.cut_batches_at(200);
        bench
    };
    let words: Vec<&str> = list.split(' ').collect();
    for written in 0.. {
        let mut bench = prepared();
        let mut effects = Effects::default();
        let answer = bench.state.apply(command(&words), bench.now, &mut effects);
        answer.expect("taken");
        while bench.state.has_jobs() {
            bench.state.step(bench.now, &mut effects);
        }
        let batches = bench.layout.changed(&bench.state, &effects);
        assert!(batches.len() > 10, "{} batches", batches.len());
        let all = written >= batches.len();
        for batch in batches.into_iter().take(written) {
            bench.store(batch);
        }
        let loaded = bench.restart();
        let partly = written > 0 && !all;
        assert_eq!(loaded.unfinished, partly, "after {written} batches");
        let beat = run_line(&mut bench, "alpha/1 beats", &mut 0);
        assert_eq!(beat.starts_with("NotRegistered"), partly, "{beat}");
        assert!(!bench.restart().unfinished, "it is said once");
        told(&mut bench, &["alpha/1 registers", &list]);
        assert_eq!(bench.directory.topics(), 59);
        if all {
            return;
        }
    }
}

/// A name that falls into the given bucket, long so that few fill a row.
fn names_in_bucket(bucket: u32, count: usize) -> Vec<TopicName> {
    let mut name = "x".repeat(200);
    let mut names = Vec::new();
    for n in 0.. {
        name.truncate(200);
        write!(name, "{n}").expect("a string");
        if super::table::bucket_of_text(&name) == bucket {
            names.push(name.parse().expect("good"));
        }
        if names.len() == count {
            break;
        }
    }
    names
}

#[test]
fn a_full_bucket_takes_several_rows_and_gives_them_back() {
    let mut bench = Bench::new();
    told(&mut bench, &["alpha/1 registers"]);
    let names = names_in_bucket(7, 20);
    let topic = |(n, name): (usize, &TopicName)| StoredTopic {
        name: name.clone(),
        id: topic_id(u8::try_from(n + 1).expect("few")),
        epoch: LeaderEpoch::new(1),
    };
    let list = |count: usize| {
        Command::RegisterTopics(RegisterTopics {
            peer: peer_id("alpha"),
            nonce: nonce(1),
            part: 0,
            last: true,
            topics: names.iter().enumerate().take(count).map(topic).collect(),
        })
    };
    for (count, rows) in [(20, 2), (16, 1), (17, 2), (1, 1), (0, 0)] {
        bench.apply(list(count)).expect("taken");
        assert_eq!(bench.stored.len(), rows + 1, "{count} topics and a peer");
        assert_eq!(bench.restart(), Loaded::default());
        assert_eq!(bench.directory.topics(), count);
    }
}

#[test]
fn who_would_have_to_be_told_too_much_is_told_to_list() {
    let mut bench = Bench::stepping(100_000);
    told(&mut bench, &["alpha/1 registers"]);
    let version = bench.directory.version();
    let all = TopicPattern::all();
    let topic = |n: usize| {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&(n + 1).to_be_bytes());
        StoredTopic {
            name: format!("t{n}").parse().expect("good"),
            id: TopicId::from_bytes(id),
            epoch: LeaderEpoch::new(1),
        }
    };
    let part = |part: usize, last| {
        let size = crate::limits::PAGE_ENTRIES_MAX;
        Command::RegisterTopics(RegisterTopics {
            peer: peer_id("alpha"),
            nonce: nonce(1),
            part: u32::try_from(part).expect("few"),
            last,
            topics: (part * size..(part + 1) * size).map(topic).collect(),
        })
    };
    bench.apply(part(0, true)).expect("taken");
    let changes = bench.directory.changes(version, &all);
    assert_eq!((changes.reset, changes.changed.len()), (false, 10_000));
    bench.apply(part(0, false)).expect("taken");
    bench.apply(part(1, true)).expect("taken");
    assert!(bench.directory.changes(version, &all).reset);
    let narrow = "t1500".parse().expect("good");
    assert_eq!(bench.directory.changes(version, &narrow).changed.len(), 1);
    // The peer goes down, and with it more topics than one answer takes.
    let version = bench.directory.version();
    bench.pass(10);
    assert!(bench.directory.changes(version, &all).reset);

    // A listing is walked in slices, and sees every topic once.
    let mut after = None;
    let mut seen = Vec::new();
    loop {
        let slice = bench.directory.list(&all, after.as_ref(), 700);
        assert!(slice.topics.len() <= 700);
        seen.extend(slice.topics.into_iter().map(|topic| topic.name));
        after = slice.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(seen.len(), 20_000);
    assert!(seen.is_sorted_by(|a, b| a < b));
}

#[test]
fn only_so_many_displaced_processes_are_remembered() {
    let mut bench = Bench::new();
    let count = u8::try_from(crate::limits::NONCES_KEPT_MAX).expect("few") + 2;
    for n in 0..count {
        told(&mut bench, &[&format!("alpha/{n} registers")]);
    }
    let beat = |bench: &mut Bench, n: u8| run_line(bench, &format!("alpha/{n} beats"), &mut 0);
    assert!(beat(&mut bench, 0).starts_with("NotRegistered"));
    for n in 1..count - 1 {
        assert!(beat(&mut bench, n).starts_with("Displaced"), "{n}");
    }
    assert_eq!(beat(&mut bench, count - 1), "done");
}

#[test]
fn an_id_of_nobody_is_refused() {
    let mut bench = Bench::new();
    let introduction = |peer| {
        Command::RegisterPeer(RegisterPeer {
            peer,
            name: "north".parse().expect("a peer name"),
            address: "north:1".parse().expect("an address"),
            nonce: nonce(1),
            load: PeerLoad::default(),
        })
    };
    let peer = peer_id("north");
    let (name, zero): (TopicName, _) = ("a".parse().expect("a name"), TopicId::zero());
    let claim = ClaimTopic {
        peer,
        nonce: nonce(1),
        name: name.clone(),
        id: zero,
    };
    let confirm = ConfirmTopic {
        peer,
        nonce: nonce(1),
        name: name.clone(),
        id: zero,
        epoch: LeaderEpoch::new(1),
    };
    let list = RegisterTopics {
        peer,
        nonce: nonce(1),
        part: 0,
        last: true,
        topics: vec![StoredTopic {
            name,
            id: zero,
            epoch: LeaderEpoch::new(1),
        }],
    };
    bench
        .apply(introduction(peer))
        .expect("a peer with an identity");
    for command in [
        introduction(PeerId::zero()),
        Command::ClaimTopic(claim),
        Command::ConfirmTopic(confirm),
        Command::RegisterTopics(list),
    ] {
        let answer = bench.apply(command.clone());
        let refused = matches!(answer, Err(ApiError::InvalidArgument { .. }));
        assert!(refused, "{command:?}: {answer:?}");
    }
}
