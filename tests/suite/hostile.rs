//! Clients that break the rules, against real servers: each is told what it did, and nobody else notices.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::{Duration, Instant};

use tidings::limits;
use tidings::protocol::api::{
    Api, Commit, CreateSubscription, CreateTopic, DescribeTopic, FindOffset, Position, PurgeTopic,
    SeekSubscription, TopicInfo,
};
use tidings::protocol::batch::{BatchBuilder, Compression, RecordToSend};
use tidings::protocol::data::{Fetch, Publish, Published};
use tidings::protocol::error::ApiError;
use tidings::protocol::frame::FrameHeader;
use tidings::time::Timestamp;
use tidings::types::{Generation, Offset, ProducerId, Sequence};

use crate::cluster::{Cluster, Server, Steady, peer_command};
use crate::wire::{Wire, frame, hello};

/// Slower than this is not only noise: two processors may have many tests at once.
const UNDISTURBED: Duration = Duration::from_secs(3);
/// What a server may hold more than it did, whatever is done to it: what it may have in flight, as many reads for
/// clients that have gone as there may be readers, a thousand connections, and what the allocator keeps.
const MORE_MIB_MAX: u64 = (limits::PROCESS_BYTES_IN_FLIGHT_MAX / limits::MIB) as u64 + 16 * 8 + 64;
/// Bytes of garbage follow from it.
const SEED: u64 = 0x7469_6469_6e67_7331;

/// The bodies of all requests, as the golden vectors have them, by name.
fn golden_requests() -> BTreeMap<String, Vec<u8>> {
    let vectors = include_str!("../../data/fixtures/protocol/vectors.txt");
    let mut bodies = BTreeMap::<String, Vec<u8>>::new();
    let mut name = String::new();
    for line in vectors.lines().filter(|line| !line.starts_with('#')) {
        if let Some(rest) = line.strip_prefix('[') {
            name = rest.trim_end_matches(']').to_owned();
        } else if let Some(of) = name.strip_suffix(".request") {
            let digits = line.trim();
            let bytes = (0..digits.len()).step_by(2);
            let bytes = bytes.map(|at| u8::from_str_radix(&digits[at..at + 2], 16));
            let bytes: Result<Vec<u8>, _> = bytes.collect();
            let body = bodies.entry(of.to_owned()).or_default();
            body.extend(bytes.expect("hexadecimal"));
        }
    }
    bodies
}

/// The requests there are, by name.
fn apis() -> BTreeMap<&'static str, u16> {
    let known = (0..1000).filter_map(|number| Some((Api::from_number(number)?.name(), number)));
    known.collect()
}

/// Pseudo-random bytes (splitmix64).
struct Garbage(u64);

impl Garbage {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn bytes(&mut self, most: u64) -> Vec<u8> {
        let count = self.next() % (most + 1);
        (0..count).map(|_| self.next() as u8).collect()
    }
}

fn info_of(wire: &mut Wire, topic: &str) -> TopicInfo {
    let name = topic.parse().expect("a name");
    wire.ask(&DescribeTopic { name })
        .expect("the topic is here")
}

fn fetch_of(topic: &TopicInfo, offset: u64) -> Fetch {
    Fetch {
        topic: topic.id,
        epoch: topic.epoch,
        offset: Offset::new(offset),
        max_bytes: limits::FETCH_BYTES_MAX as u32,
        min_bytes: 1,
        max_wait_ms: 0,
        pass_damage: false,
    }
}

fn publish_body(topic: &TopicInfo, payload: &[u8]) -> Vec<u8> {
    let mut builder = BatchBuilder::new(Compression::None);
    let record = RecordToSend {
        timestamp: Timestamp::now(),
        key: None,
        headers: &[],
        value: payload,
    };
    builder.try_push(&record).expect("it fits");
    let batch = builder.build(ProducerId::zero(), Sequence::ZERO);
    let mut body = Publish::header(topic.id, topic.epoch).to_vec();
    body.extend_from_slice(&batch.expect("a batch"));
    body
}

#[test]
fn whoever_breaks_the_rules_is_told_and_nobody_else_notices() {
    tidings::net::budget::raise_descriptor_limit();
    let mut cluster = Cluster::start();
    cluster
        .run(&["topic", "create", "steady", "bulk", "edge"])
        .ok();
    let payload = "x".repeat(64 << 10);
    let bulk = ["pub", "bulk", &payload, "--count", "320", "-q"];
    cluster.run(&bulk).ok();
    let steady = Steady::start(&cluster.index.address, "steady");
    let before = [cluster.index.rss_mib(), cluster.peer.rss_mib()];
    std::thread::scope(|scope| {
        for (server, before) in [&cluster.index, &cluster.peer].into_iter().zip(before) {
            scope.spawn(move || silence_before_the_hello(server));
            scope.spawn(move || one_byte_a_second(server));
            scope.spawn(move || a_thousand_idle_connections(server, before));
            scope.spawn(move || frames_that_are_none(server));
            scope.spawn(move || bodies_cut_at_every_byte(server));
            scope.spawn(move || garbage(server));
        }
        scope.spawn(|| readers_that_never_read(&cluster, before));
        scope.spawn(|| names_that_are_none(&cluster));
        scope.spawn(|| places_past_the_end(&cluster));
        scope.spawn(|| the_largest_message_and_one_byte_more(&cluster));
    });
    let after = [cluster.index.rss_mib(), cluster.peer.rss_mib()];
    is_bounded(&cluster.index, before[0]);
    is_bounded(&cluster.peer, before[1]);
    let report = steady.stop();
    println!("{report:?}; MiB resident {before:?} -> {after:?}");
    assert!(report.slowest < UNDISTURBED, "{report:?}");
    assert!(report.messages > 100, "{report:?}");
    cluster.peer.stop();
    cluster.index.stop();
    for name in ["index", "peer"] {
        let log = cluster.log(name);
        assert!(!log.contains("ERROR") && !log.contains("panicked"), "{log}");
    }
}

/// More of those who wait for news than the memory for requests has room for: nobody else waits until they have it.
#[test]
fn whoever_waits_for_news_keeps_nobody_else_waiting() {
    const CLIENTS: usize = 280;
    tidings::net::budget::raise_descriptor_limit();
    let mut cluster = Cluster::start();
    cluster.run(&["topic", "create", "steady", "edge"]).ok();
    let steady = Steady::start(&cluster.index.address, "steady");
    let before = cluster.peer.rss_mib();
    let mut asking = Wire::greet(&cluster.peer.address);
    let poll = Fetch {
        max_wait_ms: 60_000,
        ..fetch_of(&info_of(&mut asking, "edge"), 0)
    };
    let polls = frame(Api::Fetch as u16, 1, &poll.encode()).repeat(limits::REQUESTS_UNANSWERED_MAX);
    const {
        assert!(
            CLIENTS * limits::REQUESTS_UNANSWERED_MAX * limits::REQUEST_BYTES_MIN
                > limits::PROCESS_REQUEST_BYTES_MAX
        );
    }
    let mut waiting = Vec::new();
    let mut most = 0;
    for _ in 0..CLIENTS {
        let mut wire = Wire::greet(&cluster.peer.address);
        wire.send(&polls);
        waiting.push(wire);
        most = most.max(cluster.peer.rss_mib());
    }
    for _ in 0..20 {
        Wire::greet(&cluster.peer.address).is_alive();
        most = most.max(cluster.peer.rss_mib());
        std::thread::sleep(Duration::from_millis(100));
    }
    // Whoever had room waits on.
    assert!(!waiting[0].has_answer());
    let report = steady.stop();
    println!("{report:?}; MiB resident {before} -> {most} at most");
    assert!(report.slowest < UNDISTURBED, "{report:?}");
    assert!(report.messages > 20, "{report:?}");
    drop(waiting);
    cluster.peer.stop();
}

/// Insists that the server holds no more than it may; said while somebody tries to make it hold more.
#[track_caller]
fn is_bounded(server: &Server, before: u64) {
    let now = server.rss_mib();
    assert!(now <= before + MORE_MIB_MAX, "{before} -> {now} MiB");
}

fn silence_before_the_hello(server: &Server) {
    let began = Instant::now();
    let mut silent = Wire::connect(&server.address);
    let mut half = Wire::connect(&server.address);
    half.send(&hello()[..20]);
    assert_eq!(silent.refusal(), ApiError::HelloRequired);
    assert_eq!(half.refusal(), ApiError::HelloRequired);
    let waited = began.elapsed();
    let least = limits::HELLO_TIMEOUT - Duration::from_millis(500);
    assert!(
        waited > least && waited < 2 * limits::HELLO_TIMEOUT,
        "{waited:?}"
    );
}

/// Each byte is progress, and yet both end: the hello after 5 s, a frame after 30 s.
fn one_byte_a_second(server: &Server) {
    let mut greeting = Wire::connect(&server.address);
    let mut sending = Wire::greet(&server.address);
    let length = 300 << 10;
    let header = FrameHeader::request(Api::Publish as u16, 1, 7).encode(length);
    sending.send(&header);
    let began = Instant::now();
    let mut greeted_for = None;
    let greeting_bytes = hello();
    let patience = limits::FRAME_TIMEOUT + Duration::from_secs(5);
    sending.patience(Duration::from_secs(1));
    greeting.patience(Duration::from_millis(1));
    let error = loop {
        assert!(began.elapsed() < patience, "a slow frame is not cut off");
        let second = began.elapsed().as_secs() as usize;
        if greeted_for.is_none() {
            greeting.drip(greeting_bytes[second]);
            if greeting.has_answer() {
                assert_eq!(greeting.refusal(), ApiError::HelloRequired);
                greeted_for = Some(began.elapsed());
            }
        }
        sending.drip(0);
        // Waits a second for an answer.
        if sending.has_answer() {
            break sending.refusal();
        }
    };
    assert_eq!(error.name(), "BadFrame", "{error}");
    let greeted_for = greeted_for.expect("the slow hello is cut off");
    assert!(greeted_for < 2 * limits::HELLO_TIMEOUT, "{greeted_for:?}");
}

fn a_thousand_idle_connections(server: &Server, before: u64) {
    let greeted: Vec<Wire> = (0..500).map(|_| Wire::greet(&server.address)).collect();
    let silent: Vec<Wire> = (0..500).map(|_| Wire::connect(&server.address)).collect();
    Wire::greet(&server.address).is_alive();
    is_bounded(server, before);
    for mut wire in silent {
        assert_eq!(wire.refusal(), ApiError::HelloRequired);
    }
    // Who has said hello may be silent as long as it likes.
    for mut wire in greeted {
        wire.is_alive();
    }
}

fn frames_that_are_none(server: &Server) {
    let address = &server.address;
    let apis = apis();
    let mut wire = Wire::greet(address);
    for api in (0..=u16::MAX)
        .step_by(7)
        .filter(|api| Api::from_number(*api).is_none())
    {
        let error = wire.ask_raw(api, b"what?").expect_err("no such request");
        assert_eq!(error, ApiError::UnknownApi { api });
    }
    for (name, api) in apis.iter().filter(|(name, _)| **name != "Hello") {
        wire.send(&frame(*api, 2, b""));
        let error = wire.answer().expect_err("no such version");
        assert_eq!(error.name(), "UnsupportedVersion", "{name}");
    }
    wire.is_alive();

    let with_length = |length: u32| {
        let mut bytes = frame(Api::Ping as u16, 1, b"");
        bytes[..4].copy_from_slice(&length.to_le_bytes());
        bytes
    };
    for (length, name) in [
        (0, "BadFrame"),
        (1, "BadFrame"),
        (7, "BadFrame"),
        (limits::FRAME_BYTES_MAX as u32 + 1, "FrameTooLarge"),
        (u32::MAX, "FrameTooLarge"),
    ] {
        let mut greeted = Wire::greet(address);
        greeted.send(&with_length(length));
        assert_eq!(greeted.refusal().name(), name, "{length}");
        let mut first = Wire::connect(address);
        first.send(&with_length(length));
        assert_eq!(first.refusal().name(), name, "{length} before the hello");
    }
    let mut wrong_magic = hello();
    wrong_magic[12] ^= 1;
    let mut as_an_answer = hello();
    as_an_answer[7] = 1;
    for (bytes, name) in [
        (wrong_magic, "BadFrame"),
        (as_an_answer, "BadFrame"),
        (b"GET / HTTP/1.1\r\n\r\n".to_vec(), "FrameTooLarge"),
        (
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
            "FrameTooLarge",
        ),
    ] {
        let mut wire = Wire::connect(address);
        wire.send(&bytes);
        assert_eq!(wire.refusal().name(), name, "{bytes:?}");
    }
}

/// Cut where the frame says it goes on, the connection ends; cut with a length that fits, the body is malformed.
fn bodies_cut_at_every_byte(server: &Server) {
    let apis = apis();
    for (name, body) in golden_requests() {
        let Some(&api) = apis.get(name.as_str()).filter(|_| name != "Hello") else {
            continue;
        };
        let mut wire = Wire::greet(&server.address);
        for length in 0..body.len() {
            let error = wire.ask_raw(api, &body[..length]);
            let error = error.expect_err("a part of a body is none");
            let expected = ["Malformed", "WrongRole", "BadBatch", "UnknownTopicId"];
            assert!(
                expected.contains(&error.name()),
                "{name}, {length}: {error}"
            );
        }
        if !["Publish", "PublishExpecting"].contains(&name.as_str()) {
            let error = wire.ask_raw(api, &[&body[..], b"!"].concat());
            let name_of = error.expect_err("more than a body is none");
            assert!(
                ["Malformed", "WrongRole"].contains(&name_of.name()),
                "{name}"
            );
        }
        wire.is_alive();
    }
    let lookup = frame(Api::Lookup as u16, 1, &golden_requests()["Lookup"]);
    for stream in [hello(), [hello(), lookup].concat()] {
        for length in 0..stream.len() {
            let mut wire = Wire::connect(&server.address);
            wire.send(&stream[..length]);
            wire.finish();
            // The hello's answer, if it was whole; nothing else, and no waiting.
            let hello_bytes = hello().len();
            if length >= hello_bytes {
                wire.answer().expect("the hello is answered");
            }
            assert_eq!(wire.frame(), None, "{length} bytes");
        }
    }
}

fn garbage(server: &Server) {
    println!("seed {SEED:#x}");
    let mut garbage = Garbage(SEED);
    for round in 0..150 {
        let mut wire = match round % 2 {
            0 => Wire::connect(&server.address),
            _ => Wire::greet(&server.address),
        };
        wire.send(&garbage.bytes(2000));
        wire.finish();
        while let Some(frame) = wire.frame() {
            assert!(
                frame.header.is_error(),
                "seed {SEED:#x}, round {round}: {frame:?}"
            );
        }
    }
    let mut wire = Wire::greet(&server.address);
    for (name, api) in apis() {
        // These ask for nothing, or are the garbage's own business.
        let harmless = ["Hello", "Ping", "Figures", "ListPeers", "PeerStatus"].contains(&name);
        for round in (0..20).filter(|_| !harmless) {
            let answer = wire.ask_raw(api, &garbage.bytes(300));
            assert!(
                answer.is_err(),
                "seed {SEED:#x}, {name}, {round}: {answer:?}"
            );
        }
    }
    wire.is_alive();
}

/// Hundreds of the largest answers are asked for and none is taken.
fn readers_that_never_read(cluster: &Cluster, before: [u64; 2]) {
    let (index, peer) = (&cluster.index, &cluster.peer);
    let bulk = info_of(&mut Wire::greet(&peer.address), "bulk");
    let fetch = frame(Api::Fetch as u16, 1, &fetch_of(&bulk, 0).encode()).repeat(200);
    let list = frame(Api::ListTopics as u16, 1, &golden_requests()["ListTopics"]).repeat(900);
    let mut deaf: Vec<Wire> = Vec::new();
    for _ in 0..12 {
        for (server, requests) in [(peer, &fetch), (index, &list)] {
            let mut wire = Wire::greet(&server.address);
            wire.send(requests);
            deaf.push(wire);
        }
        is_bounded(index, before[0]);
        is_bounded(peer, before[1]);
    }
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(10) {
        is_bounded(index, before[0]);
        is_bounded(peer, before[1]);
        std::thread::sleep(Duration::from_millis(50));
    }
    // They leave, all at once, and what they asked for is not read for nobody.
    drop(deaf);
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(3) {
        is_bounded(peer, before[1]);
        std::thread::sleep(Duration::from_millis(50));
    }
    // Somebody who reads gets what the deaf ask for.
    let mut wire = Wire::greet(&peer.address);
    let answer = wire.ask_raw(Api::Fetch as u16, &fetch_of(&bulk, 0).encode());
    assert!(answer.expect("it is served").len() > limits::MIB);
}

/// Where a name stands in a body, other texts of any length.
fn names_that_are_none(cluster: &Cluster) {
    let mut long = vec![b'a'; 256];
    long[100] = b'.';
    let names: [&[u8]; 12] = [
        b"",
        b"a/b",
        b"/",
        b"../up",
        b"a b",
        b"a\tb",
        b"a\nb",
        b"a\0b",
        b"\x1b[31m",
        b".a",
        b"a..b",
        &long,
    ];
    let not_utf8: [&[u8]; 2] = [b"\xff\xfe", b"a\xc3"];
    for address in [&cluster.index.address, &cluster.peer.address] {
        let mut wire = Wire::greet(address);
        for name in names.iter().chain(&not_utf8) {
            let mut text = (name.len() as u64).to_le_bytes().to_vec();
            text.extend_from_slice(name);
            let lookup = [&text[..], &[0]].concat();
            let error = wire.ask_raw(Api::Lookup as u16, &lookup);
            let error = error.expect_err("no name of a topic");
            assert_eq!(error.name(), "Malformed", "{name:?}: {error}");
            let shown = error.to_string();
            assert!(!shown.contains(char::is_control), "{shown:?}");
        }
        wire.is_alive();
    }
    let mut wire = Wire::greet(&cluster.peer.address);
    for name in names.iter().chain(&not_utf8) {
        let mut text = (name.len() as u64).to_le_bytes().to_vec();
        text.extend_from_slice(name);
        // An `fsync` topic that keeps everything.
        let create = [&text[..], &[0, 0, 0, 0, 0, 0, 0, 0]].concat();
        let error = wire.ask_raw(Api::CreateTopic as u16, &create);
        assert_eq!(error.expect_err("no name").name(), "Malformed", "{name:?}");
        let mut topic = 4_u64.to_le_bytes().to_vec();
        topic.extend_from_slice(b"edge");
        let describe = [&topic[..], &text[..]].concat();
        let error = wire.ask_raw(Api::DescribeSubscription as u16, &describe);
        assert_eq!(error.expect_err("no name").name(), "Malformed", "{name:?}");
    }
    // As good a name as the rules allow, to see that the body above is one.
    let create = CreateTopic {
        name: format!("{}.{}", "a".repeat(127), "b".repeat(127))
            .parse()
            .expect("255 bytes"),
        settings: Default::default(),
        if_not_exists: false,
    };
    wire.ask(&create).expect("the longest name is one");
}

fn places_past_the_end(cluster: &Cluster) {
    let mut wire = Wire::greet(&cluster.peer.address);
    let bulk = info_of(&mut wire, "bulk");
    let end = bulk.end_offset;
    let (topic, name) = (bulk.name.clone(), "s".parse().expect("a name"));
    let create = |from| CreateSubscription {
        topic: bulk.name.clone(),
        name: "s".parse().expect("a name"),
        from,
        if_not_exists: false,
        expire_ms: None,
    };
    let created = wire.ask(&create(Position::Beginning)).expect("it is made");
    for past in [end.get() + 1, u64::MAX - 1, u64::MAX] {
        let position = Position::Offset(Offset::new(past));
        let mut refused = Vec::new();
        // At once, whatever it would wait for.
        let patient = Fetch {
            max_wait_ms: 60_000,
            ..fetch_of(&bulk, past)
        };
        refused.push(wire.ask_raw(Api::Fetch as u16, &patient.encode()).err());
        let find = FindOffset {
            topic: topic.clone(),
            position,
        };
        refused.push(wire.ask(&find).err());
        refused.push(wire.ask(&create(position)).err());
        let seek = SeekSubscription {
            topic: topic.clone(),
            name: created.name.clone(),
            to: position,
            dry_run: false,
        };
        refused.push(wire.ask(&seek).err());
        let purge = PurgeTopic {
            name: topic.clone(),
            before: position,
        };
        refused.push(wire.ask(&purge).err());
        for error in refused {
            let expected = ApiError::OffsetOutOfRange {
                requested: Offset::new(past),
                start: Offset::ZERO,
                end,
            };
            assert_eq!(error, Some(expected));
        }
        let commit = |generation, offset| Commit {
            topic: bulk.id,
            name: created.name.clone(),
            generation,
            offset: Offset::new(offset),
        };
        let error = wire.ask(&commit(created.generation, past)).err();
        assert_eq!(error.map(|error| error.name()), Some("CommitPastEnd"));
        let error = wire.ask(&commit(Generation::new(u64::MAX), 1)).err();
        assert_eq!(error.map(|error| error.name()), Some("StaleGeneration"));
    }
    // At the end there is nothing yet, which is no error.
    let fetched = wire.ask_raw(Api::Fetch as u16, &fetch_of(&bulk, end.get()).encode());
    assert_eq!(fetched.expect("the end is a place").len(), 24);
    let back = FindOffset {
        topic,
        position: Position::Back(u64::MAX),
    };
    let found = wire.ask(&back).expect("as far back as there is");
    assert_eq!((found.offset, name), (Offset::ZERO, created.name));
}

fn the_largest_message_and_one_byte_more(cluster: &Cluster) {
    let mut wire = Wire::greet(&cluster.peer.address);
    let largest = wire.hello.as_ref().expect("said").message_bytes_max as usize;
    assert_eq!(largest, limits::MESSAGE_BYTES_DEFAULT);
    let edge = info_of(&mut wire, "edge");
    let mut payload = vec![b'x'; largest];
    let answer = wire.ask_raw(Api::Publish as u16, &publish_body(&edge, &payload));
    let published = Published::decode(answer.expect("the largest message fits"));
    assert_eq!(published.expect("an answer").base_offset, Offset::ZERO);
    payload.push(b'x');
    let error = wire.ask_raw(Api::Publish as u16, &publish_body(&edge, &payload));
    let (bytes, max) = (largest as u64 + 1, largest as u64);
    assert_eq!(error, Err(ApiError::MessageTooLarge { bytes, max }));
    assert_eq!(info_of(&mut wire, "edge").end_offset, Offset::new(1));
    // Larger than any batch may be: the frame alone says so.
    let error = wire.ask_raw(Api::Publish as u16, &vec![0; limits::FRAME_BYTES_MAX - 8]);
    let name = error.expect_err("no batch").name();
    assert!(["BadBatch", "UnknownTopicId"].contains(&name), "{name}");
    wire.is_alive();
}

/// With few file descriptors there are few connections, and none of them costs a file its descriptor.
#[test]
fn connections_end_before_file_descriptors_do() {
    let cluster = Cluster::start();
    let mut peer = peer_command(cluster.dir.path(), &cluster.index.address);
    peer.args(["--name", "few"]);
    let words: Vec<_> = peer.get_args().map(|word| word.to_string_lossy()).collect();
    let words = words.join(" ").replace("--data-dir peer", "--data-dir few");
    let allowed = limits::DESCRIPTORS_KEPT + 40;
    let program = env!("CARGO_BIN_EXE_tidings");
    let mut shell = Command::new("sh");
    shell.args([
        "-c",
        &format!("ulimit -n {allowed} && exec {program} {words}"),
    ]);
    shell.env_clear().current_dir(cluster.dir.path());
    let few = Server::start(shell);
    cluster
        .run(&["topic", "create", "t", "u", "--on", "few"])
        .ok();
    let steady = Steady::start(&cluster.index.address, "t");
    let mut held = Vec::new();
    let mut refused = 0;
    for _ in 0..200 {
        match Wire::try_greet(&few.address) {
            Ok(wire) => held.push(wire),
            Err(error) => {
                assert_eq!(error, ApiError::TooManyConnections { max: 40 });
                refused += 1;
            }
        }
    }
    assert!(held.len() < 40 && refused > 160, "{} held", held.len());
    // Files are still opened: topics are made, and what is published needs new ones.
    let payload = "x".repeat(64 << 10);
    let mut wire = held.pop().expect("some");
    let u = info_of(&mut wire, "u");
    for _ in 0..150 {
        let answer = wire.ask_raw(Api::Publish as u16, &publish_body(&u, payload.as_bytes()));
        answer.expect("it is stored");
    }
    let report = steady.stop();
    assert!(report.slowest < UNDISTURBED, "{report:?}");
    drop(held);
}
