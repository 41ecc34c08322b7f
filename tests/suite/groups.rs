//! Consumer groups from outside: members share, die, refuse; what nobody can use lies among the dead letters.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};
use tidings::client::{
    Client, ConnectOptions, Member, MemberDelivery, MemberOptions, Message, NewGroup,
    PublisherOptions,
};
use tidings::protocol::api::{ConsumerGroupChanges, Position};
use tidings::types::{Offset, SubscriptionName, TopicName};

use crate::cluster::Cluster;
use crate::support::{Up, signal};

const SOON: Duration = Duration::from_secs(30);

fn json_lines(text: &str) -> Vec<Value> {
    let parse = |line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e} in {line}"));
    text.lines().map(parse).collect()
}

fn lines(range: std::ops::Range<usize>) -> Vec<u8> {
    let lines: Vec<String> = range.map(|n| format!("{n}\n")).collect();
    lines.concat().into_bytes()
}

/// Waits for a condition, but not for ever.
fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < SOON, "{what}: not in time");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn info(up: &Up, topic: &str, group: &str) -> Value {
    up.run(&["group", "info", topic, group, "-o", "json"])
        .json()
}

/// A new topic with group `g`, and so many dead letters.
pub fn bury(up: &Up, topic: &str, count: usize) {
    up.feed(&["pub", topic, "--create", "-q"], &lines(0..count))
        .ok();
    let runtime = tokio::runtime::Runtime::new().expect("threads");
    runtime.block_on(async {
        let client = client(&up.index).await;
        let (topic, group) = (topic.parse().expect("good"), "g".parse().expect("good"));
        let options = MemberOptions::creating(Position::Beginning);
        let member = client
            .join_group(&topic, &group, options)
            .await
            .expect("the topic is there");
        for _ in 0..count {
            member.reject(&next(&member).await, "of no use");
        }
        assert_eq!(member.leave().await, Ok(Vec::new()));
    });
    eventually("they are buried", || info(up, topic, "g")["dead"] == count);
}

/// A `tidings sub --group` whose lines come one by one.
struct Process {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Process {
    fn start(up: &Up, args: &[&str]) -> Self {
        let mut command = up.command(args);
        let mut child = command.stdout(Stdio::piped()).spawn().expect("it starts");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        Self { child, lines }
    }

    fn line(&mut self) -> String {
        self.lines.next().expect("a line").expect("text")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_group_from_creation_to_removal() {
    let up = Up::start();
    up.feed(&["pub", "t", "--create", "-q"], &lines(0..10)).ok();
    let made = up.run(&[
        "group",
        "create",
        "t",
        "g",
        "--from",
        "beginning",
        "--ack-deadline",
        "5s",
        "--max-deliveries",
        "3",
        "--backoff",
        "0ms,1s",
        "--max-unacked",
        "7",
        "--ordered-by",
        "key",
        "-o",
        "json",
    ]);
    assert!(
        made.stderr.contains("group g on t stands at offset 0"),
        "{made:?}"
    );
    let options = json!({"ack_deadline_ms": 5000, "max_deliveries": 3, "backoff_ms": [0, 1000], "max_unacked": 7,
                         "ordered_by": "key", "dead_letters": "dead.t.g"});
    assert_eq!(made.json()["options"], options);
    let again = up
        .run(&["group", "create", "t", "g", "-o", "json"])
        .json_error();
    assert_eq!(
        (&again["code"], &again["name"]),
        (&json!(71), &json!("ConsumerGroupExists"))
    );
    up.run(&["group", "create", "t", "g", "--if-not-exists"])
        .ok();
    // A subscription and a group do not share a name.
    let error = up
        .run(&["subscription", "create", "t", "--as", "g", "-o", "json"])
        .json_error();
    assert_eq!(error["name"], "ConsumerGroupExists");
    up.run(&[
        "group",
        "set",
        "t",
        "g",
        "--max-unacked",
        "100",
        "--backoff",
        "none",
    ])
    .ok();
    let told = info(&up, "t", "g");
    assert_eq!(
        (
            &told["options"]["max_unacked"],
            &told["options"]["backoff_ms"]
        ),
        (&json!(100), &json!([]))
    );
    assert_eq!(
        (&told["unsettled"], &told["floor"], &told["dead"]),
        (&json!(10), &json!(0), &json!(0))
    );
    let mut listed = up.run(&["group", "ls", "-o", "json"]).json();
    listed[0]["lag_seconds"] = told["lag_seconds"].clone();
    assert_eq!(listed, json!([told]));
    assert_eq!(up.run(&["group", "ls", "t", "-o", "name"]).ok(), "g\n");

    let read = up.run(&["sub", "t", "--group", "g", "--until-end", "-o", "json"]);
    let read = json_lines(&read.ok());
    assert_eq!(read.len(), 10);
    for (n, line) in read.iter().enumerate() {
        assert_eq!(
            (&line["offset"], &line["payload"], &line["delivery"]),
            (&json!(n), &json!(n.to_string()), &json!(1))
        );
    }
    let told = info(&up, "t", "g");
    assert_eq!(
        (&told["unsettled"], &told["acknowledged"], &told["members"]),
        (&json!(0), &json!(10), &json!([]))
    );

    let dry = up.run(&[
        "group",
        "seek",
        "t",
        "g",
        "--to",
        "4",
        "--dry-run",
        "-o",
        "json",
    ]);
    assert_eq!(
        dry.json(),
        json!({"topic": "t", "name": "g", "from": 10, "to": 4, "dry_run": true})
    );
    assert_eq!(info(&up, "t", "g")["floor"], 10);
    up.run(&["group", "seek", "t", "g", "--to", "-3"]).ok();
    let note = up.run(&["sub", "t", "--group", "g", "--from", "beginning", "-n", "2"]);
    assert!(
        note.stderr
            .contains("group g exists and goes on at offset 7, --from does nothing"),
        "{note:?}"
    );
    assert_eq!(note.ok(), "7\n8\n");
    assert_eq!(
        up.run(&["sub", "t", "--group", "g", "--until-end", "-q"])
            .ok(),
        "9\n"
    );
    let removed = up.run(&["group", "rm", "t", "g", "--force"]);
    assert!(
        removed.stderr.contains("removed group g from t"),
        "{removed:?}"
    );
    let error = up
        .run(&["group", "info", "t", "g", "-o", "json"])
        .json_error();
    assert_eq!(
        (&error["code"], &error["name"]),
        (&json!(70), &json!("ConsumerGroupNotFound"))
    );
    up.stop();
}

#[test]
fn members_share_and_what_a_killed_one_held_goes_to_another() {
    let up = Up::start();
    // Large enough for the first to get stuck with what nobody reads from it.
    let text: Vec<String> = (0..400)
        .map(|n| format!("{n} {}\n", "x".repeat(1000)))
        .collect();
    up.feed(&["pub", "t", "--create", "-q"], text.concat().as_bytes())
        .ok();
    let args = [
        "sub",
        "t",
        "--group",
        "g",
        "--from",
        "beginning",
        "--ack-deadline",
        "1h",
        "--max-unacked",
        "50",
        "-f",
        "%o%n%p%n",
        "-q",
    ];
    let mut stuck = Process::start(&up, &args);
    let first = stuck.line();
    let held = || info(&up, "t", "g")["in_flight"].as_u64().expect("a number");
    eventually("it holds what it could not print", || held() > 0);
    let mut other = Process::start(&up, &args);
    assert_ne!(other.line(), first, "no record goes to two");
    eventually("both are told", || {
        info(&up, "t", "g")["members"]
            .as_array()
            .is_some_and(|members| members.len() == 2)
    });
    signal(&stuck.child, Signal::KILL);
    let reader = std::thread::spawn(move || {
        let mut seen = BTreeSet::new();
        // The line after its offset, that of the first included.
        while let Some(Ok(line)) = other.lines.next() {
            seen.extend(line.parse::<u64>().ok());
        }
        seen
    });
    eventually("everything is settled", || {
        info(&up, "t", "g")["unsettled"] == 0
    });
    let told = info(&up, "t", "g");
    assert_eq!(
        (&told["acknowledged"], &told["dead"]),
        (&json!(400), &json!(0))
    );
    assert_eq!(told["members"].as_array().map(Vec::len), Some(1));
    up.stop();
    drop(reader);
}

#[test]
fn ctrl_c_settles_what_was_printed() {
    let up = Up::start();
    up.feed(&["pub", "t", "--create", "-q"], &lines(0..5)).ok();
    let mut process = Process::start(
        &up,
        &["sub", "t", "--group", "g", "--from", "beginning", "-q"],
    );
    for n in 0..5 {
        assert_eq!(process.line(), n.to_string());
    }
    signal(&process.child, Signal::INT);
    let status = process.child.wait().expect("it ends");
    assert!(status.success(), "{status}");
    let told = info(&up, "t", "g");
    assert_eq!(
        (&told["unsettled"], &told["acknowledged"], &told["members"]),
        (&json!(0), &json!(5), &json!([]))
    );
    up.stop();
}

// --- through the library ------------------------------------------------------

async fn client(index: &str) -> Client {
    let options = ConnectOptions::new(vec![index.parse().expect("an address")]);
    Client::connect(options).await.expect("it runs")
}

async fn join(client: &Client, options: MemberOptions) -> Member {
    let (topic, group) = ("t".parse().expect("good"), "g".parse().expect("good"));
    client
        .join_group(&topic, &group, options)
        .await
        .expect("the topic is there")
}

async fn next(member: &Member) -> MemberDelivery {
    let next = tokio::time::timeout(SOON, member.next()).await;
    next.expect("in time").expect("the member lives")
}

/// Everything said counts.
async fn settle(member: &Member) {
    let settled = tokio::time::timeout(SOON, member.settle()).await;
    assert_eq!(settled.expect("in time"), Ok(Vec::new()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_refused_comes_again_and_what_is_rejected_is_a_dead_letter() {
    let up = Up::start();
    up.feed(
        &["pub", "t", "--create", "-q", "-k", "k", "-H", "a:1"],
        &lines(0..4),
    )
    .ok();
    let make = [
        "group",
        "create",
        "t",
        "g",
        "--from",
        "beginning",
        "--max-deliveries",
        "2",
        "--backoff",
        "0ms",
        "-q",
    ];
    up.run(&make).ok();
    let client = client(&up.index).await;
    let member = join(&client, MemberOptions::default()).await;
    let mut all = Vec::new();
    for n in 0..4 {
        let given = next(&member).await;
        assert_eq!((given.offset().get(), given.delivery), (n, 1));
        all.push(given);
    }
    member.ack(&all[0]);
    member.reject(&all[1], "not a number");
    let asked = Instant::now();
    member.nak(&all[2], Some(Duration::from_millis(700)));
    member.nak(&all[3], None);
    settle(&member).await;
    let again = next(&member).await;
    assert_eq!((again.offset().get(), again.delivery), (3, 2));
    member.nak(&again, None);
    let again = next(&member).await;
    assert_eq!((again.offset().get(), again.delivery), (2, 2));
    assert!(
        asked.elapsed() >= Duration::from_millis(700),
        "{:?}",
        asked.elapsed()
    );
    member.ack(&again);
    settle(&member).await;
    member.leave().await.expect("it left");
    eventually("both are buried", || info(&up, "t", "g")["unsettled"] == 0);
    let told = info(&up, "t", "g");
    assert_eq!(
        (&told["acknowledged"], &told["dead"]),
        (&json!(2), &json!(2))
    );
    dead_letters_are_shown_replayed_and_dropped(&up);
    up.stop();
}

fn dead_letters_are_shown_replayed_and_dropped(up: &Up) {
    let listed = up.run(&["dlq", "ls", "-o", "json"]).json();
    assert_eq!(listed.as_array().map(Vec::len), Some(1));
    assert_eq!(
        (&listed[0]["topic"], &listed[0]["group"]),
        (&json!("t"), &json!("g"))
    );
    assert_eq!(
        (&listed[0]["dead_letters"], &listed[0]["messages"]),
        (&json!("dead.t.g"), &json!(2))
    );
    let shown = json_lines(&up.run(&["dlq", "show", "t", "g", "-o", "json"]).ok());
    let by_origin: BTreeMap<u64, &Value> = shown
        .iter()
        .map(|letter| (letter["origin_offset"].as_u64().expect("a number"), letter))
        .collect();
    assert_eq!(by_origin.keys().copied().collect::<Vec<_>>(), [1, 3]);
    assert_eq!(by_origin[&1]["reason"], "not a number");
    assert_eq!(
        (&by_origin[&1]["deliveries"], &by_origin[&3]["deliveries"]),
        (&json!(1), &json!(2))
    );
    for (offset, letter) in &by_origin {
        assert_eq!(
            (&letter["payload"], &letter["key"]),
            (&json!(offset.to_string()), &json!("k"))
        );
        assert_eq!(
            (&letter["headers"]["a"], &letter["origin_topic"]),
            (&json!("1"), &json!("t"))
        );
        assert_eq!(
            (&letter["topic"], &letter["group"]),
            (&json!("dead.t.g"), &json!("g"))
        );
    }
    let table = up.run(&["dlq", "show", "t", "g", "-n", "1"]).ok();
    assert_eq!(table.lines().count(), 2, "{table}");
    // Ordinary in every way.
    assert_eq!(
        up.run(&["topic", "info", "dead.t.g", "-o", "json"]).json()["records"],
        2
    );

    let dry = up
        .run(&[
            "dlq",
            "replay",
            "t",
            "g",
            "--all",
            "--dry-run",
            "-o",
            "json",
        ])
        .json();
    assert_eq!(
        dry,
        json!({"topic": "t", "group": "g", "dead_letters": "dead.t.g", "replayed": 2, "left": 0, "dry_run": true})
    );
    let replayed = up
        .run(&["dlq", "replay", "t", "g", "-n", "1", "-o", "json"])
        .json();
    assert_eq!(
        (&replayed["replayed"], &replayed["left"]),
        (&json!(1), &json!(1))
    );
    let first = shown[0]["payload"].as_str().expect("text");
    let again = json_lines(
        &up.run(&[
            "sub",
            "t",
            "--group",
            "g",
            "--until-end",
            "-o",
            "json",
            "-q",
        ])
        .ok(),
    );
    assert_eq!(again.len(), 1);
    assert_eq!(
        (&again[0]["offset"], &again[0]["payload"]),
        (&json!(4), &json!(first))
    );
    assert_eq!(
        again[0]["headers"],
        json!({"a": "1"}),
        "as it was published"
    );

    let dry = up
        .run(&["dlq", "drop", "t", "g", "--all", "--dry-run", "-o", "json"])
        .json();
    assert_eq!(
        (&dry["dropped"], &dry["dry_run"]),
        (&json!(1), &json!(true))
    );
    let dropped = up
        .run(&["dlq", "drop", "t", "g", "--all", "--force", "-o", "json"])
        .json();
    assert_eq!(
        (&dropped["dropped"], &dropped["left"]),
        (&json!(1), &json!(0))
    );
    assert_eq!(up.run(&["dlq", "ls", "-o", "json"]).json(), json!([]));
    let nothing = up
        .run(&["dlq", "replay", "t", "g", "--all", "-o", "json"])
        .json();
    assert_eq!(nothing["replayed"], 0);
}

/// Works as it should, and notes for each record who was given it when: the members together see each key in order.
async fn work(client: &Client, seen: &std::sync::Mutex<Vec<(String, u64)>>, count: usize) {
    let options = MemberOptions {
        buffer_records: 8,
        ..MemberOptions::default()
    };
    let member = join(client, options).await;
    while seen.lock().expect("no panic").len() < count {
        let given = member
            .next_within(Duration::from_millis(50))
            .await
            .expect("it lives");
        let Some(given) = given else { continue };
        let key =
            String::from_utf8_lossy(given.record.key.as_ref().expect("all have one")).into_owned();
        // Somewhat slow, so that all have something to do.
        tokio::time::sleep(Duration::from_millis(given.offset().get() % 3)).await;
        seen.lock()
            .expect("no panic")
            .push((key, given.offset().get()));
        member.ack(&given);
    }
    assert_eq!(member.leave().await, Ok(Vec::new()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ordered_by_key_holds_among_three_members_that_come_one_by_one() {
    let up = Up::start();
    up.run(&["topic", "create", "t", "-q"]).ok();
    up.run(&["group", "create", "t", "g", "--ordered-by", "key", "-q"])
        .ok();
    let client = client(&up.index).await;
    let publisher = client
        .publisher(&"t".parse().expect("good"), PublisherOptions::default())
        .await;
    let publisher = publisher.expect("the topic is there");
    for n in 0..600 {
        let message = Message::new(format!("{n}")).with_key(format!("{}", n * n % 11));
        publisher.send(message).await.expect("taken");
    }
    publisher.flush().await.expect("stored");
    let seen = std::sync::Mutex::new(Vec::new());
    let late = async |pause: u64| {
        tokio::time::sleep(Duration::from_millis(pause)).await;
        work(&client, &seen, 600).await;
    };
    tokio::join!(late(0), late(100), late(200));
    let seen = seen.into_inner().expect("no panic");
    assert_eq!(seen.len(), 600);
    let mut last: BTreeMap<&str, u64> = BTreeMap::new();
    for (key, offset) in &seen {
        if let Some(before) = last.insert(key, *offset) {
            assert!(before < *offset, "key {key}: {before} before {offset}");
        }
    }
    assert_eq!(info(&up, "t", "g")["acknowledged"], 600);
    up.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_and_a_stopped_peer_lose_nothing_of_a_group() {
    let mut cluster = Cluster::start();
    cluster.run(&["topic", "create", "t", "-q"]).ok();
    let client = client(&cluster.index.address).await;
    let publisher = client
        .publisher(&"t".parse().expect("good"), PublisherOptions::default())
        .await;
    let publisher = publisher.expect("the topic is there");
    let member = join(&client, MemberOptions::creating(Position::Beginning)).await;
    let mut confirmed = BTreeSet::new();
    for life in 0..4_u64 {
        for n in 0..50 {
            publisher
                .send(Message::new(format!("{}", 50 * life + n)))
                .await
                .expect("taken");
        }
        publisher.flush().await.expect("stored");
        // The first half counts, and never comes again.
        let mut said = Vec::new();
        for _ in 0..25 {
            let given = next(&member).await;
            assert!(
                !confirmed.contains(&given.offset()),
                "{} comes again",
                given.offset()
            );
            member.ack(&given);
            said.push(given.offset());
        }
        settle(&member).await;
        confirmed.extend(said);
        match life % 2 {
            0 => cluster.peer.kill(),
            _ => cluster.peer.stop(),
        }
        cluster.restart_peer();
    }
    while confirmed.len() < 200 {
        let given = next(&member).await;
        member.ack(&given);
        let missed = member.settle().await.expect("it lives");
        if missed.is_empty() {
            assert!(
                confirmed.insert(given.offset()),
                "{} was settled twice",
                given.offset()
            );
        }
    }
    assert_eq!(confirmed.first().copied(), Some(Offset::ZERO));
    assert_eq!(member.leave().await, Ok(Vec::new()));
    let told = cluster
        .run(&["group", "info", "t", "g", "-o", "json"])
        .json();
    assert_eq!(
        (&told["unsettled"], &told["acknowledged"], &told["dead"]),
        (&json!(0), &json!(200), &json!(0))
    );
}

/// Takes everything there is for each group, a hundred records, and acknowledges it; all at the same time.
async fn work_off(client: &Client, groups: &[SubscriptionName]) {
    let mut all = tokio::task::JoinSet::new();
    for group in groups {
        let (client, group) = (client.clone(), group.clone());
        all.spawn(async move {
            let (topic, options) = ("t".parse().expect("good"), MemberOptions::default());
            let member = client.join_group(&topic, &group, options).await;
            let member = member.expect("the group is there");
            for _ in 0..100 {
                member.ack(&next(&member).await);
            }
            let left = tokio::time::timeout(SOON, member.leave()).await;
            assert_eq!(left.expect("in time"), Ok(Vec::new()), "{group}");
        });
    }
    all.join_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_groups_share_a_topic_and_each_gets_all_of_it() {
    let mut cluster = Cluster::start();
    cluster.run(&["topic", "create", "t", "-q"]).ok();
    let client = client(&cluster.index.address).await;
    let topic: TopicName = "t".parse().expect("good");
    let publisher = client.publisher(&topic, PublisherOptions::default()).await;
    let publisher = publisher.expect("the topic is there");
    for n in 0..100 {
        let message = Message::new(format!("{n}"));
        publisher.send(message).await.expect("taken");
    }
    publisher.flush().await.expect("stored");
    let names: Vec<SubscriptionName> = (0..1000)
        .map(|n| format!("g{n:03}").parse().expect("good"))
        .collect();
    // Half of them are worked off before the peer dies, the others at a peer that was not there when they were made.
    for name in &names {
        let new = NewGroup {
            from: Position::Beginning,
            options: ConsumerGroupChanges::default(),
        };
        let made = client.create_group(&topic, name, &new, false).await;
        made.expect("there is none of that name");
    }
    for names in names[..500].chunks(20) {
        work_off(&client, names).await;
    }
    cluster.peer.kill();
    cluster.restart_peer();
    for names in names[500..].chunks(20) {
        work_off(&client, names).await;
    }
    let groups = client.list_groups(&topic).await.expect("the peer is there");
    assert_eq!(groups.len(), 1000);
    for group in groups {
        let told = (group.unsettled, group.acknowledged, group.floor.get());
        assert_eq!(told, (0, 100, 100), "{}", group.name);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_that_is_slow_and_alive_keeps_what_it_has() {
    let up = Up::start();
    up.feed(&["pub", "t", "--create", "-q"], &lines(0..2)).ok();
    let make = [
        "group",
        "create",
        "t",
        "g",
        "--from",
        "beginning",
        "--ack-deadline",
        "2s",
        "--backoff",
        "0ms",
        "-q",
    ];
    up.run(&make).ok();
    let client = client(&up.index).await;
    let keep = MemberOptions {
        keep: true,
        buffer_records: 1,
        ..MemberOptions::default()
    };
    let member = join(&client, keep).await;
    let (first, second) = (next(&member).await, next(&member).await);
    let other = join(&client, MemberOptions::default()).await;
    let nothing = other.next_within(Duration::from_secs(5)).await;
    assert_eq!(nothing, Ok(None), "two deadlines and a half");
    member.ack(&first);
    settle(&member).await;
    // One that is gone keeps nothing.
    drop(member);
    let again = next(&other).await;
    assert_eq!((again.offset(), again.delivery), (second.offset(), 2));
    other.ack(&again);
    settle(&other).await;
    up.stop();
}

/// An application hangs, its process lives, and its member took what came, let it fail, and took it again: after ten
/// times all of that lay among the dead letters, and nobody had looked at it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_that_hangs_buries_nothing_it_did_not_look_at() {
    let up = Up::start();
    up.feed(&["pub", "t", "--create", "-q"], &lines(0..40)).ok();
    let make = [
        "group",
        "create",
        "t",
        "g",
        "--from",
        "beginning",
        "--ack-deadline",
        "200ms",
        "--backoff",
        "0ms",
        "--max-deliveries",
        "20",
        "-q",
    ];
    up.run(&make).ok();
    let client = client(&up.index).await;
    let hangs = join(&client, MemberOptions::default()).await;
    let first = next(&hangs).await;
    let mut at_rest = Instant::now();
    eventually("nothing more is taken, for several deadlines", || {
        let told = info(&up, "t", "g");
        assert_eq!(told["dead"], 0);
        if told["in_flight"] != 0 {
            at_rest = Instant::now();
        }
        at_rest.elapsed() > Duration::from_millis(1_500)
    });
    // Whoever is alive has time for them.
    up.run(&["group", "set", "t", "g", "--ack-deadline", "30s", "-q"])
        .ok();
    let other = join(&client, MemberOptions::default()).await;
    for n in 0..40 {
        let given = next(&other).await;
        assert_eq!(given.offset(), Offset::new(n));
        other.ack(&given);
    }
    settle(&other).await;
    // It is back.
    up.feed(&["pub", "t", "-q"], &lines(40..41)).ok();
    drop(other);
    assert_eq!(next(&hangs).await.offset(), Offset::new(40));
    hangs.ack(&first);
    up.stop();
}

#[test]
fn options_without_a_group_do_nothing_and_are_refused() {
    let up = Up::start();
    for (line, text) in [
        ("sub t --ordered-by key", "--ordered-by is for a group"),
        ("sub t --backoff 1s,5s", "--backoff is for a group"),
        ("sub t --group g --as s", "cannot be used with"),
        ("sub t --group g --ordered-by value", "invalid value"),
        ("sub t --group g --backoff 1", "expected a duration"),
        ("group set t g", "no option to change"),
        (
            "group create t g --max-unacked 0",
            "expected a number from 1",
        ),
        ("dlq replay t g", "required"),
        ("dlq drop t g -n 1 --all", "cannot be used with"),
    ] {
        let words: Vec<&str> = line.split(' ').collect();
        let said = up.run(&words).fails(2);
        assert!(said.contains(text), "{line}: {said}");
    }
    up.stop();
}
