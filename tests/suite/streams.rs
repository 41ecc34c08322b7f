//! Streams between real processes: peers that die, stall and come back, clients that do not take what they
//! asked for, topics that go away meanwhile.

use std::io::{BufRead, BufReader};
use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tidings::client::{Client, ConnectOptions, Delivery, Subscriber, SubscriberOptions};
use tidings::limits;
use tidings::protocol::api::{
    Api, DescribeTopic, Metrics, Position, Request, StreamCredit, TopicInfo,
};
use tidings::protocol::data::{Credit, Fetched, Stream};
use tidings::protocol::error::ApiError;
use tidings::protocol::frame::{Frame, FrameHeader};
use tidings::types::Offset;

use crate::cluster::{Cluster, Server, Steady};
use crate::support::signal;
use crate::wire::Wire;

const SOON: Duration = Duration::from_secs(30);
/// What is promised of a peer that dies without a word.
const NOTICED: Duration = Duration::from_secs(2);
/// Far more than there is.
const MUCH: Credit = Credit {
    bytes: u64::MAX,
    records: u64::MAX,
};

fn run<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.expect("a runtime").block_on(work)
}

async fn client(cluster: &Cluster) -> Client {
    let index = cluster.index.address.parse().expect("an address");
    let client = Client::connect(ConnectOptions::new(vec![index])).await;
    client.expect("the index is there")
}

async fn follow(client: &Client, topic: &str, options: SubscriberOptions) -> Subscriber {
    let topic = topic.parse().expect("a name");
    let subscriber = client.subscriber(&topic, options).await;
    subscriber.expect("the topic is there")
}

fn from_beginning() -> SubscriberOptions {
    SubscriberOptions::passing(Position::Beginning)
}

async fn next(subscriber: &mut Subscriber) -> Delivery {
    let next = tokio::time::timeout(SOON, subscriber.next()).await;
    next.expect("in time").expect("no error")
}

/// The next records are those of these offsets.
async fn records(subscriber: &mut Subscriber, offsets: std::ops::Range<u64>) {
    for offset in offsets {
        match next(subscriber).await {
            Delivery::Record(record) => assert_eq!(record.offset.get(), offset),
            Delivery::Gap(gap) => panic!("{gap:?} instead of record {offset}"),
        }
    }
}

/// Follows until the host is told to be away; how long that took.
async fn until_away(subscriber: &mut Subscriber) -> Duration {
    let began = Instant::now();
    let mut away = subscriber.watch_absence();
    tokio::select! {
        delivery = next(subscriber) => panic!("{delivery:?}"),
        told = away.wait_for(|away| *away) => {
            told.expect("the subscriber lives");
        }
    }
    began.elapsed()
}

fn tell(server: &Server, signal: Signal) {
    let pid = i32::try_from(server.pid()).expect("a process id");
    let pid = Pid::from_raw(pid).expect("a process id");
    kill_process(pid, signal).expect("it is ours");
}

#[test]
fn a_peer_that_is_killed_is_noticed_and_reading_goes_on_where_it_was() {
    let mut cluster = Cluster::start();
    cluster.run(&["topic", "create", "t"]).ok();
    let publish = ["pub", "t", "message", "--count", "30000", "-q"];
    cluster.run(&publish).ok();
    run(async {
        let client = client(&cluster).await;
        let mut reader = follow(&client, "t", from_beginning()).await;
        let mut slow = follow(
            &client,
            "t",
            SubscriberOptions {
                window_bytes: 2_000,
                max_bytes: 1_000,
                ..from_beginning()
            },
        )
        .await;
        records(&mut reader, 0..30_000).await;
        records(&mut slow, 0..7_000).await;
        cluster.peer.kill();
        let noticed = until_away(&mut reader).await;
        assert!(noticed < NOTICED, "{noticed:?}");
        // At another address, which the index tells.
        cluster.restart_peer();
        records(&mut slow, 7_000..30_000).await;
        cluster.run(&publish).ok();
        records(&mut reader, 30_000..60_000).await;
        records(&mut slow, 30_000..60_000).await;
    });
    cluster.peer.stop();
}

#[test]
fn a_peer_that_is_suspended_is_noticed_within_two_seconds() {
    let cluster = Cluster::start();
    cluster.run(&["topic", "create", "t"]).ok();
    cluster.run(&["pub", "t", "one"]).ok();
    run(async {
        let client = client(&cluster).await;
        let mut reader = follow(&client, "t", from_beginning()).await;
        records(&mut reader, 0..1).await;
        // A machine that has much to do may be late once.
        let mut quickest = SOON;
        for round in 1..=3 {
            let nothing = reader.next_within(Duration::from_millis(700)).await;
            assert_eq!(nothing, Ok(None), "there is nothing");
            assert!(!*reader.watch_absence().borrow(), "it lives");
            tell(&cluster.peer, Signal::STOP);
            let noticed = until_away(&mut reader).await;
            tell(&cluster.peer, Signal::CONT);
            quickest = quickest.min(noticed);
            cluster.run(&["pub", "t", "more"]).ok();
            records(&mut reader, round..round + 1).await;
        }
        assert!(quickest < NOTICED, "{quickest:?}");
    });
}

#[test]
fn streams_end_when_their_peer_is_stopped_and_when_their_topic_is_deleted() {
    let mut cluster = Cluster::start();
    cluster.run(&["topic", "create", "gone", "t"]).ok();
    cluster.run(&["pub", "gone", "one"]).ok();
    run(async {
        let client = client(&cluster).await;
        let options = SubscriberOptions {
            timeout: Some(Duration::from_secs(1)),
            ..from_beginning()
        };
        let mut reader = follow(&client, "gone", options).await;
        records(&mut reader, 0..1).await;
        cluster.run(&["topic", "rm", "gone", "--force"]).ok();
        let ended = tokio::time::timeout(SOON, reader.next()).await;
        let error = ended.expect("in time").expect_err("it is gone");
        let names = ["UnknownTopicId", "TopicNotFound"];
        assert!(names.contains(&error.name()), "{error}");
    });
    let mut wire = Raw::open(&cluster, "t", 0, MUCH);
    let began = Instant::now();
    cluster.peer.stop();
    assert!(
        began.elapsed() < limits::SHUTDOWN_GRACE / 2,
        "streams hold it up"
    );
    assert_eq!(wire.part(), Err(ApiError::ShuttingDown));
    assert_eq!(wire.wire.frame(), None, "nothing follows");
}

/// A stream of which every frame is looked at.
struct Raw {
    wire: Wire,
}

impl Raw {
    fn open(cluster: &Cluster, topic: &str, offset: u64, credit: Credit) -> Self {
        let mut wire = Wire::greet(&cluster.peer.address);
        let name = topic.parse().expect("a name");
        let info = wire.ask(&DescribeTopic { name }).expect("it is here");
        let mut raw = Self { wire };
        raw.ask(&info, offset, credit);
        let first = raw.wire.frame().expect("an answer");
        assert!(
            first.header.has_more() && first.body.is_empty(),
            "{first:?}"
        );
        raw
    }

    fn ask(&mut self, topic: &TopicInfo, offset: u64, credit: Credit) {
        let stream = Stream {
            topic: topic.id,
            epoch: topic.epoch,
            offset: Offset::new(offset),
            max_bytes: limits::FETCH_BYTES_MAX as u32,
            credit,
            keep_alive_ms: 100,
            pass_damage: false,
        };
        self.send(Api::Stream, stream.encode());
    }

    fn send(&mut self, api: Api, body: Vec<u8>) {
        let header = FrameHeader::request(api as u16, 1, 5);
        let body = body.into();
        self.wire.send(&Frame { header, body }.encode());
    }

    fn credit(&mut self, bytes: u64, records: u64) {
        let credit = StreamCredit {
            stream: 5,
            bytes,
            records,
            end: false,
        };
        self.send(Api::StreamCredit, credit.encode().expect("small"));
    }

    /// What is sent next, or the error that ends it.
    fn part(&mut self) -> Result<Fetched, ApiError> {
        loop {
            let frame = self.wire.frame().expect("an answer");
            if frame.header.is_error() {
                return Err(ApiError::decode(&frame.body).expect("an error"));
            }
            if frame.header.api == Api::Stream as u16 && !frame.body.is_empty() {
                return Ok(Fetched::decode(frame.body).expect("an answer to a fetch"));
            }
        }
    }
}

fn figure(wire: &mut Wire, name: &str) -> u64 {
    let (after, limit) = (None, 10_000);
    let page = wire.ask(&Metrics { after, limit }).expect("figures");
    let family = page.families.iter().find(|family| family.name == name);
    let samples = &family.expect("it is counted").samples;
    samples.iter().map(|sample| sample.value).sum()
}

#[test]
fn who_takes_nothing_of_a_stream_costs_little_and_holds_up_nobody() {
    let cluster = Cluster::start();
    cluster.run(&["topic", "create", "steady", "bulk"]).ok();
    let payload = "x".repeat(64 << 10);
    let bulk = ["pub", "bulk", &payload, "--count", "640", "-q"];
    cluster.run(&bulk).ok();
    let steady = Steady::start(&cluster.index.address, "steady");
    let before = cluster.peer.rss_mib();
    // Some take all they can be sent and read none of it, some give hardly any credit.
    let deaf: Vec<Raw> = (0..30)
        .map(|_| Raw::open(&cluster, "bulk", 0, MUCH))
        .collect();
    let little = Credit {
        bytes: 1,
        records: 1,
    };
    let mut poor = Raw::open(&cluster, "bulk", 0, little);
    assert!(poor.part().is_ok());
    let mut looking = Wire::greet(&cluster.peer.address);
    let until = Instant::now() + Duration::from_secs(3);
    while Instant::now() < until {
        let most = (limits::PROCESS_BYTES_IN_FLIGHT_MAX / limits::MIB) as u64 + 64;
        let now = cluster.peer.rss_mib();
        assert!(now <= before + most, "{before} -> {now} MiB");
        looking.is_alive();
        std::thread::sleep(Duration::from_millis(50));
    }
    let report = steady.stop();
    assert!(report.slowest < Duration::from_secs(3), "{report:?}");
    // Who was poor all the while was not forgotten.
    poor.credit(u64::MAX, u64::MAX);
    let mut at = 0;
    while at < 640 {
        at = poor.part().expect("the rest").next_offset.get();
    }
    drop(deaf);
}

#[test]
fn a_slow_application_holds_its_window_and_one_answer() {
    let cluster = Cluster::start();
    cluster.run(&["topic", "create", "t"]).ok();
    let payload = "x".repeat(1 << 10);
    cluster
        .run(&["pub", "t", &payload, "--count", "40000", "-q"])
        .ok();
    run(async {
        let client = client(&cluster).await;
        let mut reader = follow(&client, "t", from_beginning()).await;
        records(&mut reader, 0..1).await;
        let mut wire = Wire::greet(&cluster.peer.address);
        let mut out = 0;
        // Until nothing more comes.
        loop {
            tokio::time::sleep(Duration::from_millis(300)).await;
            let now = figure(&mut wire, "tidings_bytes_out_total");
            if now == std::mem::replace(&mut out, now) {
                break;
            }
        }
        let window = limits::SUBSCRIBER_WINDOW_BYTES_DEFAULT as u64;
        let most = window + limits::SUBSCRIBER_ANSWER_BYTES_DEFAULT as u64;
        assert!((window - (64 << 10)..=most).contains(&out), "{out} bytes");
        assert_eq!(figure(&mut wire, "tidings_streams"), 1);
        records(&mut reader, 1..40_000).await;
    });
}

#[test]
fn batches_larger_than_an_answer_come_whole_and_one_by_one() {
    let cluster = Cluster::start();
    cluster.run(&["topic", "create", "t"]).ok();
    for size in [900 << 10, 10, 700 << 10, 1_000 << 10, 10] {
        let message = vec![b'x'; size];
        cluster.feed(&["pub", "t", "--whole", "-q"], &message).ok();
    }
    run(async {
        let client = client(&cluster).await;
        let options = SubscriberOptions {
            window_bytes: 1,
            max_bytes: 1,
            ..from_beginning()
        };
        let mut reader = follow(&client, "t", options).await;
        records(&mut reader, 0..5).await;
    });
}

#[test]
fn a_thousand_streams_share_a_connection() {
    let cluster = Cluster::start();
    cluster.run(&["topic", "create", "t"]).ok();
    run(async {
        let client = client(&cluster).await;
        let mut readers = Vec::new();
        for _ in 0..1_000 {
            let mut reader = follow(&client, "t", from_beginning()).await;
            let nothing = reader.next_within(Duration::from_millis(1)).await;
            assert_eq!(nothing, Ok(None));
            readers.push(reader);
        }
        let mut wire = Wire::greet(&cluster.peer.address);
        let deadline = Instant::now() + SOON;
        while figure(&mut wire, "tidings_streams") < 1_000 {
            assert!(Instant::now() < deadline, "they do not stand");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        // Control, streams, and the one that looks.
        assert!(figure(&mut wire, "tidings_connections") <= 4);
        for round in 0..3 {
            cluster.run(&["pub", "t", "for everybody"]).ok();
            for reader in &mut readers {
                records(reader, round..round + 1).await;
            }
        }
        drop(readers);
        while figure(&mut wire, "tidings_streams") > 0 {
            assert!(Instant::now() < deadline, "they do not end");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(figure(&mut wire, "tidings_keep_alives_missed_total"), 0);
    });
}

#[test]
fn what_goes_missing_under_a_waiting_stream_is_told_before_the_next_record() {
    let cluster = Cluster::start();
    cluster.run(&["topic", "create", "t", "kept"]).ok();
    let lines: String = (0..100).map(|n| format!("{n}\n")).collect();
    for topic in ["t", "kept"] {
        for _ in 0..6 {
            cluster.feed(&["pub", topic, "-q"], lines.as_bytes()).ok();
        }
    }
    run(async {
        let client = client(&cluster).await;
        let mut readers = Vec::new();
        for topic in ["t", "kept"] {
            let options = SubscriberOptions {
                window_bytes: 1,
                max_bytes: 1,
                ..from_beginning()
            };
            let mut reader = follow(&client, topic, options).await;
            records(&mut reader, 0..1).await;
            readers.push(reader);
        }
        cluster
            .run(&["topic", "purge", "t", "--before", "405", "--force"])
            .ok();
        let retain = ["topic", "set", "kept", "retain-records=10"];
        cluster.run(&retain).ok();
        // Retention takes its time.
        let mut wire = Wire::greet(&cluster.peer.address);
        let deadline = Instant::now() + SOON;
        let kept_from = loop {
            let name = "kept".parse().expect("a name");
            let info = wire.ask(&DescribeTopic { name }).expect("it is here");
            if info.start_offset > Offset::ZERO {
                break info.start_offset.get();
            }
            assert!(Instant::now() < deadline, "nothing is discarded");
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        for (mut reader, start) in readers.into_iter().zip([405, kept_from]) {
            let mut at = 1;
            loop {
                match next(&mut reader).await {
                    // What was under way already.
                    Delivery::Record(record) => {
                        assert_eq!(record.offset.get(), at);
                        at += 1;
                    }
                    Delivery::Gap(gap) => {
                        assert_eq!((gap.from.get(), gap.to.get()), (at, start));
                        break;
                    }
                }
            }
            assert!(at <= 200, "the stream waited: {at}");
            records(&mut reader, start..600).await;
        }
    });
}

/// Whether a process catches SIGTERM by now.
fn catches_term(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let caught = u64::from_str_radix(caught.expect("Linux tells").trim(), 16).expect("a mask");
    caught & 1 << (Signal::TERM.as_raw() - 1) != 0
}

fn ends_within(mut child: Child, patience: Duration) -> ExitStatus {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(status) = child.try_wait().expect("it can be asked") {
            return status;
        }
        if Instant::now() >= deadline {
            child.kill().expect("killed");
            child.wait().expect("it ends");
            panic!("it goes on");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Ctrl-C went unheard for as long as the peer was waited for.
#[test]
fn who_stops_a_sub_that_has_not_begun_is_heard() {
    let mut cluster = Cluster::start();
    cluster.run(&["topic", "create", "t", "-q"]).ok();
    cluster.peer.kill();
    for args in [
        &["sub", "t"][..],
        &["pull", "t", "--as", "map", "--timeout", "1m"],
    ] {
        let child = cluster.command(args).spawn().expect("it starts");
        let deadline = Instant::now() + SOON;
        while !catches_term(child.id()) {
            assert!(Instant::now() < deadline, "{args:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
        signal(&child, Signal::TERM);
        let status = ends_within(child, Duration::from_secs(10));
        assert!(status.success(), "{args:?}: {status}");
    }
}

/// It tried to confirm for as long as it should, and then once more.
#[test]
fn a_sub_whose_peer_stays_away_waits_for_it_once() {
    const TIMEOUT: Duration = Duration::from_secs(8);
    let mut cluster = Cluster::start();
    cluster.run(&["topic", "create", "t", "-q"]).ok();
    cluster.run(&["pub", "t", "one", "-q"]).ok();
    let args = [
        "sub",
        "t",
        "--as",
        "map",
        "--from",
        "beginning",
        "--timeout",
        "8s",
    ];
    let mut child = cluster
        .command(&args)
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut out = BufReader::new(child.stdout.take().expect("it is piped"));
    let mut line = String::new();
    out.read_line(&mut line).expect("it is written");
    assert_eq!(line, "one\n");
    let began = Instant::now();
    cluster.peer.kill();
    let status = ends_within(child, 2 * TIMEOUT);
    assert!(!status.success(), "the peer is away");
    let took = began.elapsed();
    assert!(took >= TIMEOUT && took < 2 * TIMEOUT, "{took:?}");
}
