//! Watching servers from outside: what they tell over HTTP and on the command line is what they did.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;
use tidings::figures::catalogue;
use tidings::limits;
use tidings::protocol::api::{
    Api, ConsumerGroupChanges, CreateConsumerGroup, DescribeTopic, Position,
};
use tidings::protocol::data::Fetch;
use tidings::types::Offset;

use crate::cluster::Steady;
use crate::support::{Ran, Reserved, command, ready, run_with, signal};
use crate::wire::{Wire, frame};

/// What takes longer does not happen.
const SOON: Duration = Duration::from_secs(20);

/// Servers of one process that can be watched.
struct Watched {
    dir: TempDir,
    child: Child,
    http: String,
    lines: Vec<String>,
}

impl Watched {
    /// Starts a command that has `--http 127.0.0.1:0` in it and prints so many ready lines.
    fn start(dir: TempDir, args: &[&str], lines: usize) -> Self {
        let mut servers = command(dir.path());
        servers.args(args).args(["--http", "127.0.0.1:0"]);
        servers.args(["--log", "error"]);
        let (child, lines) = ready(servers, lines);
        let http = lines[0]
            .strip_prefix("ready http ")
            .expect("it comes first");
        Self {
            dir,
            child,
            http: http.to_owned(),
            lines,
        }
    }

    /// An index and a peer.
    fn up() -> Self {
        let dir = TempDir::new().expect("a scratch directory");
        let args = [
            "up",
            "--listen",
            "127.0.0.1:0",
            "--index-listen",
            "127.0.0.1:0",
        ];
        Self::start(dir, &args, 3)
    }

    fn address_of(&self, role: &str) -> &str {
        let line = self.lines.iter().find(|line| line.contains(role));
        let line = line.unwrap_or_else(|| panic!("no {role} in {:?}", self.lines));
        line.rsplit(' ').next().expect("an address")
    }

    fn run(&self, args: &[&str]) -> Ran {
        let mut client = command(self.dir.path());
        client
            .args(args)
            .env("TIDINGS_INDEX", self.address_of(" index "));
        run_with(client, b"")
    }

    fn scrape(&self) -> Scrape {
        let (status, text) = get(&self.http, "/metrics");
        assert_eq!(status, 200, "{text}");
        Scrape::parse(&text)
    }

    /// Scrapes until a condition holds: some figures are as of a moment ago.
    fn scrape_until(&self, what: &str, holds: impl Fn(&Scrape) -> bool) -> Scrape {
        let deadline = Instant::now() + SOON;
        loop {
            let scrape = self.scrape();
            if holds(&scrape) {
                return scrape;
            }
            assert!(
                Instant::now() < deadline,
                "{what} never held: {:#?}",
                scrape.series
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn stop(mut self) {
        signal(&self.child, Signal::TERM);
        let status = self.child.wait().expect("it ends");
        assert!(status.success(), "{status}");
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Asks for a path; status and body of the answer.
fn get(address: &str, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).expect("it listens");
    stream.set_read_timeout(Some(SOON)).expect("a socket");
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("taken");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("an answer");
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    (status.expect("a status"), body.to_owned())
}

/// Waits until a path is answered with that status and text.
fn wait_for(address: &str, path: &str, wanted: (u16, &str)) {
    let deadline = Instant::now() + SOON;
    loop {
        let (status, text) = get(address, path);
        if (status, text.as_str()) == wanted {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "{path} says {status} {text}, not {wanted:?}"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// What was scraped, read as strictly as the format is written down.
struct Scrape {
    /// Kinds by name.
    kinds: BTreeMap<String, String>,
    /// Values by series.
    series: BTreeMap<String, f64>,
}

impl Scrape {
    fn parse(text: &str) -> Self {
        assert!(text.ends_with('\n'));
        let (mut kinds, mut series) = (BTreeMap::new(), BTreeMap::new());
        let mut family = String::new();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                family = rest.split(' ').next().expect("a name").to_owned();
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').expect("a name and a kind");
                assert_eq!(name, family, "help and kind belong together");
                let twice = kinds.insert(name.to_owned(), kind.to_owned());
                assert!(twice.is_none(), "{name} is there twice");
            } else {
                let (name, value) = line.rsplit_once(' ').expect("a series and a value");
                let base = name.split('{').next().expect("a name");
                let suffixes = ["_bucket", "_sum", "_count"];
                let of = |suffix: &&str| base == format!("{family}{suffix}");
                let belongs = base == family || suffixes.iter().any(of);
                assert!(belongs, "{line} stands below {family}");
                let value: f64 = value.parse().expect("a number");
                let twice = series.insert(name.to_owned(), value);
                assert!(twice.is_none(), "{name} is there twice");
            }
        }
        Self { kinds, series }
    }

    fn get(&self, series: &str) -> Option<f64> {
        self.series.get(series).copied()
    }

    #[track_caller]
    fn value(&self, series: &str) -> f64 {
        let found = self.get(series);
        found.unwrap_or_else(|| panic!("no {series} in {:#?}", self.series))
    }

    fn has(&self, part: &str) -> bool {
        self.series.keys().any(|series| series.contains(part))
    }
}

fn sample() -> String {
    let root = env!("CARGO_MANIFEST_DIR");
    format!("{root}/data/samples/earthquakes.ndjson")
}

#[test]
fn what_is_told_is_what_was_published_and_fetched() {
    let watched = Watched::up();
    assert_eq!(get(&watched.http, "/readyz"), (200, "ready\n".to_owned()));
    watched
        .run(&["pub", "quakes.ci", "--create", "--file", &sample()])
        .ok();
    let pulled = watched.run(&[
        "pull",
        "quakes.ci",
        "--as",
        "map",
        "--from",
        "beginning",
        "-n",
        "1000",
    ]);
    assert_eq!(pulled.ok().lines().count(), 1000);

    let scrape = watched.scrape_until("what there is", |scrape| {
        scrape.get("tidings_subscriptions") == Some(1.0)
            && scrape.get("tidings_producers") == Some(1.0)
    });
    let of_topic = |name: &str| scrape.value(&format!("{name}{{topic=\"quakes.ci\"}}"));
    assert_eq!(of_topic("tidings_topic_records_in_total"), 1707.0);
    assert_eq!(of_topic("tidings_topic_start_offset"), 0.0);
    assert_eq!(of_topic("tidings_topic_end_offset"), 1707.0);
    let handed_out = of_topic("tidings_topic_records_out_total");
    assert!(handed_out >= 1000.0, "{handed_out}");
    let lag = "tidings_subscription_lag_records{topic=\"quakes.ci\",subscription=\"map\"}";
    assert_eq!(scrape.value(lag), 707.0);

    let info = watched
        .run(&["topic", "info", "quakes.ci", "-o", "json"])
        .json();
    let bytes = info["bytes"].as_f64().expect("a number");
    assert_eq!(of_topic("tidings_topic_stored_bytes"), bytes);
    assert_eq!(
        of_topic("tidings_topic_bytes_in_total"),
        bytes,
        "it was stored as it came"
    );
    for (all, one) in [
        ("tidings_records_in_total", "tidings_topic_records_in_total"),
        ("tidings_bytes_in_total", "tidings_topic_bytes_in_total"),
        (
            "tidings_records_out_total",
            "tidings_topic_records_out_total",
        ),
        ("tidings_bytes_out_total", "tidings_topic_bytes_out_total"),
        ("tidings_stored_bytes", "tidings_topic_stored_bytes"),
    ] {
        assert_eq!(
            scrape.value(all),
            of_topic(one),
            "{all}: there is one topic"
        );
    }
    let publishes = scrape.value("tidings_requests_total{role=\"peer\",request=\"Publish\"}");
    assert_eq!(scrape.value("tidings_publish_seconds_count"), publishes);
    assert!(publishes >= 1.0 && scrape.value("tidings_publish_seconds_sum") > 0.0);
    assert!(scrape.value("tidings_fetch_seconds_count") >= 1.0);
    assert!(scrape.value("tidings_journal_sync_seconds_count") >= 1.0);
    assert!(
        scrape.value("tidings_group_bytes_sum") > bytes,
        "payload and what is around it"
    );
    assert!(scrape.value("tidings_tail_cache_hits_total") >= 1.0);
    for (role, request) in [
        ("peer", "Commit"),
        ("peer", "CreateTopic"),
        ("index", "Lookup"),
        ("index", "RegisterPeer"),
        ("index", "ClaimTopic"),
    ] {
        let series = format!("tidings_requests_total{{role=\"{role}\",request=\"{request}\"}}");
        assert!(scrape.value(&series) >= 1.0);
    }
    assert_eq!(scrape.value("tidings_index_topics"), 1.0);
    assert_eq!(scrape.value("tidings_index_peers{state=\"online\"}"), 1.0);
    assert_eq!(scrape.value("tidings_index_peers{state=\"down\"}"), 0.0);
    assert_eq!(scrape.value("tidings_index_reachable"), 1.0);
    assert!(scrape.value("tidings_index_commit_seconds_count") >= 1.0);
    assert!(scrape.value("process_resident_memory_bytes") > 1e6);
    watched.stop();
}

#[test]
fn topics_that_are_renamed_or_removed_are_told_no_more() {
    let watched = Watched::up();
    watched
        .run(&["pub", "first", "--create", "one", "two"])
        .ok();
    watched
        .run(&["subscription", "create", "first", "--as", "reader"])
        .ok();
    let scrape = watched.scrape();
    assert_eq!(
        scrape.value("tidings_topic_records_in_total{topic=\"first\"}"),
        2.0
    );
    assert!(scrape.has("subscription=\"reader\""));

    watched.run(&["topic", "rename", "first", "second"]).ok();
    let scrape = watched.scrape();
    assert_eq!(
        scrape.value("tidings_topic_records_in_total{topic=\"second\"}"),
        2.0
    );
    assert!(!scrape.has("topic=\"first\""));

    watched.run(&["topic", "rm", "second", "--force"]).ok();
    let scrape = watched.scrape();
    assert!(
        !scrape.has("topic=") && !scrape.has("subscription="),
        "{:#?}",
        scrape.series
    );
    assert_eq!(scrape.value("tidings_topics"), 0.0);
    assert_eq!(
        scrape.value("tidings_records_in_total"),
        2.0,
        "the sum only grows"
    );
}

/// The page of the figures, the catalogue and a running process tell the same, in both directions.
#[test]
fn the_page_tells_what_a_running_process_does() {
    let page = include_str!("../../docs/metrics.md");
    let rows = page.lines().filter(|line| line.starts_with("| `"));
    let told: Vec<Vec<String>> = rows
        .map(|row| {
            let cells = row.trim_matches('|').split('|');
            cells.map(|cell| cell.trim().replace('`', "")).collect()
        })
        .collect();
    let known: Vec<Vec<String>> = catalogue::ALL
        .iter()
        .map(|metric| {
            vec![
                metric.name.to_owned(),
                metric.kind.name().to_owned(),
                metric.unit.name().to_owned(),
                metric.labels.join(", "),
                metric.help.to_owned(),
            ]
        })
        .collect();
    assert_eq!(told, known);

    let watched = Watched::up();
    watched.run(&["pub", "quakes.ci", "--create", "one"]).ok();
    watched
        .run(&["pull", "quakes.ci", "--as", "map", "--from", "beginning"])
        .ok();
    watched
        .run(&["subscription", "pause", "quakes.ci", "map"])
        .ok();
    watched.run(&["topic", "info", "nothing.here"]).fails(1);
    let group = CreateConsumerGroup {
        topic: "quakes.ci".parse().expect("good"),
        name: "workers".parse().expect("good"),
        from: Position::Beginning,
        options: ConsumerGroupChanges::default(),
        if_not_exists: false,
    };
    let made = Wire::greet(watched.address_of(" peer ")).ask(&group);
    made.expect("a group");
    let scrape = watched.scrape();
    let unsettled = "tidings_group_unsettled_records{topic=\"quakes.ci\",group=\"workers\"}";
    assert_eq!(scrape.value(unsettled), 1.0, "nobody took it");
    let with_series: BTreeSet<&str> = scrape
        .series
        .keys()
        .map(|series| series.split('{').next().expect("a name"))
        .collect();
    for row in &told {
        let (name, kind) = (row[0].as_str(), row[1].as_str());
        assert_eq!(
            scrape.kinds.get(name).map(String::as_str),
            Some(kind),
            "{name}"
        );
        let count = format!("{name}_count");
        let has = with_series.contains(name) || with_series.contains(count.as_str());
        assert!(has, "{name} has no series");
    }
    assert_eq!(
        scrape.kinds.len(),
        told.len(),
        "something is told that is not on the page"
    );
}

#[test]
fn the_command_line_shows_the_same() {
    let watched = Watched::up();
    watched
        .run(&["pub", "quakes.ci", "--create", "one", "two", "three"])
        .ok();
    let peer = watched.lines[2]
        .split(' ')
        .nth(2)
        .expect("a name")
        .to_owned();
    let list = |args: &[&str]| {
        let listed = watched.run(args).json();
        let rows = listed.as_array().expect("an array").clone();
        let name = |row: &Value| row["name"].as_str().expect("a name").to_owned();
        rows.into_iter()
            .map(|row| (name(&row), row))
            .collect::<Vec<_>>()
    };
    let rows = list(&["peer", "info", &peer, "--metrics", "-o", "json"]);
    let find = |wanted: &str| {
        let found = rows.iter().find(|(name, _)| name == wanted);
        &found
            .unwrap_or_else(|| panic!("no {wanted} in {rows:#?}"))
            .1
    };
    let records = find("tidings_topic_records_in_total");
    assert_eq!(records["value"], 3);
    assert_eq!(records["labels"]["topic"], "quakes.ci");
    assert_eq!(records["type"], "counter");
    let publish = find("tidings_publish_seconds");
    let scrape = watched.scrape();
    let published = scrape.value("tidings_publish_seconds_count");
    assert_eq!(publish["count"].as_f64(), Some(published));
    assert!(
        publish["sum"].as_f64().is_some_and(|sum| sum > 0.0),
        "{publish}"
    );
    let buckets = publish["buckets"].as_array().expect("an array");
    assert_eq!(buckets.last().expect("one at least")["le"], "+Inf");

    // The only peer need not be named; the peer's figures and the process's are all there.
    let names = |rows: &[(String, Value)]| -> BTreeSet<String> {
        rows.iter().map(|(name, _)| name.clone()).collect()
    };
    let unnamed = list(&["peer", "info", "--metrics", "-o", "json"]);
    assert_eq!(names(&unnamed), names(&rows));
    for (name, row) in &rows {
        assert_eq!(
            scrape.kinds.get(name).map(String::as_str),
            row["type"].as_str(),
            "{name}"
        );
    }
    let table = watched.run(&["peer", "info", "--metrics"]).ok();
    let line = table
        .lines()
        .find(|line| line.starts_with("tidings_topic_end_offset"));
    let words: Vec<_> = line.expect("it is there").split_whitespace().collect();
    assert_eq!(words, ["tidings_topic_end_offset", "topic=quakes.ci", "3"]);
    let missing = watched.run(&["peer", "info"]).fails(2);
    assert!(missing.contains("tidings peer info"), "{missing}");
}

#[test]
fn an_index_alone_is_watched_too() {
    let dir = TempDir::new().expect("a scratch directory");
    let args = ["serve", "index", "--listen", "127.0.0.1:0"];
    let index = Watched::start(dir, &args, 2);
    let scrape = index.scrape();
    assert_eq!(scrape.value("tidings_ready{role=\"index\"}"), 1.0);
    assert_eq!(scrape.value("tidings_index_topics"), 0.0);
    assert!(!scrape.has("role=\"peer\"") && !scrape.has("tidings_topics"));
    let lookup = index.run(&["topic", "info", "quakes.ci"]);
    lookup.fails(1);
    let scrape = index.scrape();
    let lookups = "tidings_requests_total{role=\"index\",request=\"Lookup\"}";
    assert!(scrape.value(lookups) >= 1.0);
    let errors = "tidings_errors_total{role=\"index\",code=\"20\",error=\"TopicNotFound\"}";
    assert!(scrape.value(errors) >= 1.0);
    index.stop();
}

/// A file that is a pipe nobody writes to: opening it waits, and with it whoever wants to read the stored state.
fn never_opens(path: &Path) {
    std::fs::remove_file(path).expect("it was there");
    let made = Command::new("mkfifo")
        .arg(path)
        .status()
        .expect("mkfifo is there");
    assert!(made.success());
}

#[test]
fn a_server_that_recovers_says_so() {
    let dir = TempDir::new().expect("a scratch directory");
    let peer = [
        "serve",
        "peer",
        "--listen",
        "127.0.0.1:0",
        "--data-dir",
        "peer",
    ];
    let nobody = Reserved::new();
    let index = nobody.address();
    let with_index = [&peer[..], &["--index", &index]].concat();
    let first = Watched::start(
        dir,
        &[
            "up",
            "--data-dir",
            ".",
            "--listen",
            "127.0.0.1:0",
            "--index-listen",
            "127.0.0.1:0",
        ],
        3,
    );
    signal(&first.child, Signal::TERM);
    let dir = {
        let mut first = first;
        first.child.wait().expect("it ends");
        std::mem::replace(&mut first.dir, TempDir::new().expect("a scratch directory"))
    };
    never_opens(&dir.path().join("peer/catalog/conf"));
    let recovering = Watched::start(dir, &with_index, 1);
    let (status, why) = get(&recovering.http, "/readyz");
    assert_eq!(
        (status, why.as_str()),
        (503, "peer: recovering: its stored state is being read\n")
    );
    assert_eq!(
        get(&recovering.http, "/healthz"),
        (200, "alive\n".to_owned())
    );
    let scrape = recovering.scrape();
    assert!(scrape.has("process_cpu_seconds_total") && !scrape.has("tidings_ready"));
}

#[test]
fn a_server_that_ends_says_so_until_it_has_ended() {
    let watched = Watched::up();
    let payload = watched.dir.path().join("payload");
    std::fs::write(&payload, vec![b'x'; 1_000_000]).expect("room");
    let payload = payload.to_str().expect("text").to_owned();
    watched.run(&["topic", "create", "large"]).ok();
    for _ in 0..24 {
        watched
            .run(&["pub", "large", "--whole", "--file", &payload])
            .ok();
    }
    let mut wire = Wire::greet(watched.address_of(" peer "));
    let name = "large".parse().expect("a name");
    let topic = wire.ask(&DescribeTopic { name }).expect("it is here");
    let fetch = Fetch {
        topic: topic.id,
        epoch: topic.epoch,
        offset: Offset::new(0),
        max_bytes: limits::FETCH_BYTES_MAX as u32,
        min_bytes: 1,
        max_wait_ms: 0,
        pass_damage: false,
    };
    // More than the sockets hold, and none of it is taken.
    for _ in 0..3 {
        wire.send(&frame(Api::Fetch as u16, 1, &fetch.encode()));
    }
    watched.scrape_until("the fetches", |scrape| {
        scrape
            .get("tidings_fetch_seconds_count")
            .is_some_and(|count| count >= 1.0)
    });
    signal(&watched.child, Signal::TERM);
    // The index goes on until the peer has told it that it ends.
    wait_for(&watched.http, "/readyz", (503, "peer: shutting down\n"));
    assert_eq!(get(&watched.http, "/healthz"), (200, "alive\n".to_owned()));
    assert_eq!(watched.scrape().value("tidings_ready{role=\"peer\"}"), 0.0);
    drop(wire);
    let mut watched = watched;
    let status = watched.child.wait().expect("it ends");
    assert!(status.success(), "{status}");
}

#[test]
fn a_port_that_is_taken_is_named() {
    let watched = Watched::up();
    for args in [
        &[
            "serve",
            "index",
            "--listen",
            "127.0.0.1:0",
            "--data-dir",
            "other",
        ][..],
        &[
            "serve",
            "peer",
            "--listen",
            "127.0.0.1:0",
            "--data-dir",
            "other",
        ],
        &[
            "up",
            "--listen",
            "127.0.0.1:0",
            "--index-listen",
            "127.0.0.1:0",
            "--data-dir",
            "other",
        ],
    ] {
        let mut second = command(watched.dir.path());
        second
            .args(args)
            .args(["--http", &watched.http, "--log", "off"]);
        let told = run_with(second, b"").fails(1);
        let expected = format!("error: cannot listen on {}: ", watched.http);
        assert!(told.starts_with(&expected), "{told}");
        assert!(
            told.contains("hint: another process uses that port"),
            "{told}"
        );
        assert_eq!(told.lines().count(), 2, "{told}");
    }
}

#[test]
fn the_listener_is_off_unless_asked_for_and_can_be_in_the_file() {
    let dir = TempDir::new().expect("a scratch directory");
    std::fs::write(
        dir.path().join("tidings.toml"),
        "[serve.index]\nhttp = \"127.0.0.1:0\"\n",
    )
    .expect("room");
    let mut index = command(dir.path());
    index.args([
        "serve",
        "index",
        "--listen",
        "127.0.0.1:0",
        "--log",
        "error",
    ]);
    let (child, lines) = ready(index, 2);
    let http = lines[0]
        .strip_prefix("ready http ")
        .expect("it comes first")
        .to_owned();
    assert_eq!(get(&http, "/healthz").0, 200);
    let watched = Watched {
        dir,
        child,
        http,
        lines,
    };
    watched.stop();

    let bad = command_fails(&["serve", "index", "--http", "7480"]);
    assert!(bad.contains("--http"), "{bad}");
}

fn command_fails(args: &[&str]) -> String {
    let dir = TempDir::new().expect("a scratch directory");
    let mut command = command(dir.path());
    command.args(args).stdout(Stdio::null());
    run_with(command, b"").fails(2)
}

/// Connections that never ask, that ask for nonsense and that ask for everything, while others publish and read.
#[test]
fn nobody_notices_who_abuses_the_listener() {
    let watched = Watched::up();
    watched.run(&["topic", "create", "steady"]).ok();
    let steady = Steady::start(watched.address_of(" index "), "steady");
    let mut held = Vec::new();
    for round in 0..300_usize {
        let Ok(mut stream) = TcpStream::connect(&watched.http) else {
            continue;
        };
        let sent: &[u8] = match round % 5 {
            0 => b"",
            1 => b"GET /met",
            2 => &[0xff; 4096],
            3 => b"POST /metrics HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n",
            _ => b"GET /metrics HTTP/1.1\r\n\r\n",
        };
        // It may be closed by now, to make room for the next.
        let _ = stream.write_all(sent);
        held.push(stream);
        if round % 20 == 0 {
            assert_eq!(get(&watched.http, "/readyz"), (200, "ready\n".to_owned()));
        }
    }
    let report = steady.stop();
    assert!(report.slowest < SOON, "{report:?}");
    let scrape = watched.scrape();
    let records = scrape.value("tidings_topic_records_in_total{topic=\"steady\"}");
    assert_eq!(records, report.messages as f64);
    assert!(
        scrape.value("process_open_fds") < 200.0,
        "connections are let go"
    );
    drop(held);
    watched.stop();
}
