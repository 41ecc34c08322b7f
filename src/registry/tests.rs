//! The registry in a story, and in the corners the story does not reach.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use super::rows::{self, Layout, Loaded};
use super::*;
use crate::protocol::api::{
    ClaimTopic, ConfirmTopic, Depart, DropTopic, Heartbeat, Nonce, PeerInfo, PeerLoad, PlaceTopic,
    RegisterPeer, RegisterTopics, RetirePeer, StoredTopic, TopicLocation,
};
use crate::protocol::error::ApiError;
use crate::types::{LeaderEpoch, PeerId, TopicId};

pub(super) const SETTINGS: Settings = Settings {
    lease: Duration::from_secs(10),
    claim_kept: Duration::from_secs(10),
    stall: Duration::from_secs(3),
};

/// A registry with its directory and its store, the store being a map.
pub(super) struct Bench {
    pub(super) state: State,
    pub(super) directory: Directory,
    pub(super) stored: BTreeMap<Vec<u8>, Vec<u8>>,
    layout: Layout,
    pub(super) now: Now,
    pub(super) events: Vec<Event>,
}

impl Bench {
    pub(super) fn new() -> Self {
        let now = Now {
            ticks: Millis::new(0),
            wall: Timestamp::from_millis(0),
        };
        let state = State::new(SETTINGS, now);
        Self {
            directory: Directory::new(&state, 1),
            state,
            stored: BTreeMap::new(),
            layout: Layout::new(),
            now,
            events: Vec::new(),
        }
    }

    pub(super) fn apply(&mut self, command: Command) -> Result<Answer, ApiError> {
        let mut effects = Effects::default();
        let answer = self.state.apply(command, self.now, &mut effects);
        if answer.is_err() {
            assert!(!effects.need_disk(), "a refused command changed something");
        }
        self.state.check();
        self.settle(effects);
        answer
    }

    fn settle(&mut self, effects: Effects) {
        for batch in self.layout.changed(&self.state, &effects) {
            for key in batch.deletes {
                assert!(self.stored.remove(&key).is_some(), "removes what is there");
            }
            for (key, value) in batch.puts {
                assert!(value.len() <= crate::limits::REGISTRY_ROW_BYTES_MAX);
                self.stored.insert(key, value);
            }
        }
        self.directory.show(&self.state, &effects);
        self.events.extend(effects.events);
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
        let rows = self.stored.clone().into_iter().collect();
        let (state, layout, loaded) = rows::load(rows, SETTINGS, self.now);
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

fn process_command((name, nonce): (&str, Nonce), verb: &str, rest: &[&str]) -> Command {
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
