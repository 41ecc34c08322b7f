//! Every verb in every form: table, JSON, YAML and names, right and wrong.
//!
//! One table of what is right and one of what is wrong. A last test reads the
//! program's own help and insists that no verb is missing in either.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::groups::bury;
use crate::support::{Ran, Up, command, ready, run_with, signal, tidings};

const FORMS: [&str; 4] = ["table", "json", "yaml", "name"];

/// What `-o json` prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// One object.
    Object,
    /// An array, not empty.
    Array,
    /// An object a line.
    Lines,
    /// Nothing: `-o` is refused.
    Refused,
}

use Shape::{Array, Lines, Object, Refused};

/// What is asked, what comes as JSON, and what as names (`-`: refused).
/// `{}` is the form, so that every form has topics and peers of its own.
type Right = (&'static str, Shape, &'static str);

const RIGHT_AT_A_CLUSTER: &[Right] = &[
    ("topic create new.{}", Array, "new.{}"),
    ("topic ls a.{}", Array, "a.{}"),
    ("topic info a.{}", Object, "a.{}"),
    ("topic set a.{} durability=os", Object, "a.{}"),
    ("topic rename b.{} c.{}", Object, "c.{}"),
    ("topic purge a.{} --before 1", Object, "a.{}"),
    ("topic rm d.{}", Array, "d.{}"),
    ("peer ls", Array, "p-table"),
    ("peer info p-{}", Object, "p-{}"),
    ("peer retire p-{}", Object, "p-{}"),
    ("subscription create a.{} --as n", Object, "n"),
    ("subscription ls a.{}", Array, "s"),
    ("subscription info a.{} s", Object, "s"),
    ("subscription seek a.{} s --to 2 --dry-run", Object, "s"),
    ("subscription seek a.{} s --to 2", Object, "s"),
    ("subscription history a.{} s", Array, "1"),
    ("subscription undo a.{} s --dry-run", Object, "s"),
    ("subscription undo a.{} s", Object, "s"),
    ("subscription pause a.{} s", Object, "s"),
    ("subscription resume a.{} s", Object, "s"),
    ("subscription set a.{} s expire=1h", Object, "s"),
    ("subscription rm a.{} n", Object, "n"),
    ("group create a.{} n", Object, "n"),
    ("group ls a.{}", Array, "g"),
    ("group info a.{} g", Object, "g"),
    ("group set a.{} g --max-unacked 5", Object, "g"),
    ("group seek a.{} g --to 1 --dry-run", Object, "g"),
    ("group seek a.{} g --to 1", Object, "g"),
    ("sub a.{} --group g -n 1", Lines, "-"),
    ("group rm a.{} n", Object, "n"),
    ("dlq ls e.{}", Array, "g"),
    ("dlq show e.{} g", Lines, "-"),
    ("dlq replay e.{} g -n 1", Object, "g"),
    ("dlq drop e.{} g -n 1 --dry-run", Object, "g"),
    ("dlq drop e.{} g -n 1", Object, "g"),
    ("later ls a.{}", Array, "0"),
    ("later cancel a.{} --offset 0", Object, "a.{}"),
    ("pub a.{} x", Object, "a.{}"),
    ("sub a.{} --from -1 --until-end", Lines, "-"),
    ("pull a.{} --as s -n 1", Lines, "-"),
    ("bench publish --duration 100ms", Object, "-"),
    ("bench read --duration 100ms", Object, "-"),
    ("bench latency --duration 100ms", Object, "-"),
    ("bench group --duration 100ms --verify", Object, "-"),
    ("bench lookup --topics 10 --duration 100ms", Object, "-"),
    (
        "bench connections --connections 3 --duration 100ms",
        Object,
        "-",
    ),
];

const RIGHT_ALONE: &[Right] = &[
    ("topic options", Array, "durability"),
    ("data ls data/peer", Object, "a.json"),
    ("data ls data/index", Object, "a.json"),
    ("data dump data/peer a.{}", Lines, "-"),
    ("data dump data/index", Lines, "a.json"),
    ("data stats data/peer", Object, "a.json"),
    ("data stats data/index", Object, "a.json"),
    ("data verify data/peer", Object, "-"),
    ("data verify data/index", Object, "-"),
    ("data repair data/peer --dry-run", Object, "-"),
    ("data repair data/peer", Object, "-"),
    ("data repair data/index", Object, "-"),
    ("data migrate data/peer --dry-run", Array, "-"),
    ("data migrate data/index", Array, "-"),
    ("data export data/peer a.json", Refused, "-"),
    ("completions bash", Refused, "-"),
];

/// What is asked, the exit status, and the name of the error.
type Wrong = (&'static str, i32, &'static str);

const WRONG_AT_A_CLUSTER: &[Wrong] = &[
    ("topic create a.json", 1, "TopicExists"),
    ("topic create x --on nobody", 1, "PeerNotFound"),
    ("topic create a/b", 2, "Usage"),
    ("topic ls a*", 2, "Usage"),
    ("topic info nothing", 1, "TopicNotFound"),
    ("topic set nothing durability=os", 1, "TopicNotFound"),
    ("topic set a.json colour=blue", 2, "Usage"),
    ("topic rename nothing x", 1, "TopicNotFound"),
    ("topic rename a.json a.yaml", 1, "TopicExists"),
    ("topic purge a.json --before 1000", 1, "OffsetOutOfRange"),
    ("topic purge a.json", 2, "Usage"),
    ("topic rm nothing", 1, "TopicNotFound"),
    ("topic accept-loss a.json", 1, "NotQuarantined"),
    ("topic accept-loss nothing", 1, "TopicNotFound"),
    ("topic options x", 2, "Usage"),
    ("peer ls x", 2, "Usage"),
    ("peer info nobody", 1, "PeerNotFound"),
    ("peer retire nobody", 1, "PeerNotFound"),
    ("subscription create a.json --as s", 1, "SubscriptionExists"),
    (
        "subscription create a.json --as t --from 99",
        1,
        "OffsetOutOfRange",
    ),
    ("subscription create a.json", 2, "Usage"),
    ("subscription ls nothing", 1, "TopicNotFound"),
    ("subscription info a.json t", 1, "SubscriptionNotFound"),
    (
        "subscription seek a.json t --to end",
        1,
        "SubscriptionNotFound",
    ),
    ("subscription seek a.json s", 2, "Usage"),
    ("subscription history a.json t", 1, "SubscriptionNotFound"),
    ("subscription undo a.json t", 1, "SubscriptionNotFound"),
    ("subscription undo a.json s", 1, "NothingToUndo"),
    ("subscription pause a.json t", 1, "SubscriptionNotFound"),
    ("subscription resume a.json t", 1, "SubscriptionNotFound"),
    (
        "subscription set a.json t expire=1h",
        1,
        "SubscriptionNotFound",
    ),
    ("subscription set a.json s expire=", 2, "Usage"),
    ("subscription rm a.json t", 1, "SubscriptionNotFound"),
    ("group create a.json g", 1, "ConsumerGroupExists"),
    ("group create a.json s", 1, "SubscriptionExists"),
    (
        "group create a.json x --ack-deadline 1ms",
        1,
        "InvalidArgument",
    ),
    ("group create nothing g", 1, "TopicNotFound"),
    ("group ls nothing", 1, "TopicNotFound"),
    ("group info a.json x", 1, "ConsumerGroupNotFound"),
    (
        "group set a.json x --max-unacked 1",
        1,
        "ConsumerGroupNotFound",
    ),
    ("group set a.json g", 2, "Usage"),
    ("group seek a.json x --to end", 1, "ConsumerGroupNotFound"),
    ("group rm a.json x", 1, "ConsumerGroupNotFound"),
    ("dlq ls nothing", 1, "TopicNotFound"),
    ("later ls nothing", 1, "TopicNotFound"),
    ("later cancel a.json --offset 99", 1, "NotPending"),
    ("later cancel a.json", 2, "Usage"),
    ("dlq show a.json x", 1, "ConsumerGroupNotFound"),
    ("dlq replay a.json x --all", 1, "ConsumerGroupNotFound"),
    ("dlq replay a.json g", 2, "Usage"),
    ("dlq drop a.json x --all", 1, "ConsumerGroupNotFound"),
    ("dlq drop a.json g -n 1 --all", 2, "Usage"),
    ("sub nothing --group g --until-end", 1, "TopicNotFound"),
    ("sub a.json --group s --until-end", 1, "SubscriptionExists"),
    ("sub a.json --max-unacked 1", 2, "Usage"),
    ("pub nothing x", 1, "TopicNotFound"),
    ("pub a.json x --count 0", 2, "Usage"),
    ("pub a.json --file absent", 1, "InputOutput"),
    ("sub nothing --until-end", 1, "TopicNotFound"),
    ("sub a.json --from 99 --until-end", 1, "OffsetOutOfRange"),
    ("sub a.json -n x", 2, "Usage"),
    ("pull a.json --as t", 1, "SubscriptionNotFound"),
    ("pull a.json", 2, "Usage"),
    ("bench publish --topics 0", 2, "Usage"),
    (
        "bench publish --size 2MiB --duration 9s",
        1,
        "MessageTooLarge",
    ),
    ("bench publish --size 100MiB", 2, "Usage"),
    ("bench read --duration 1", 2, "Usage"),
    ("bench latency --rate 0/s", 2, "Usage"),
    ("bench group --members 0", 2, "Usage"),
    ("bench lookup --clients 0", 2, "Usage"),
    ("bench lookup --existing --topics 5", 2, "Usage"),
    ("bench connections --connections 0", 2, "Usage"),
    ("bench connections --size 1", 2, "Usage"),
];

const WRONG_ALONE: &[Wrong] = &[
    ("data ls nowhere", 1, "DataDirectory"),
    ("data dump data/peer --from x", 2, "Usage"),
    ("data dump data/peer --from 2 --to 1", 2, "Usage"),
    ("data dump data/peer nothing", 1, "DataDirectory"),
    ("data verify nowhere", 1, "DataDirectory"),
    ("data stats nowhere", 1, "DataDirectory"),
    ("data export data/peer", 2, "Usage"),
    ("data import data/peer", 1, "DataDirectory"),
    ("data repair nowhere", 1, "DataDirectory"),
    ("data migrate nowhere", 1, "DataDirectory"),
    ("serve index --lease 10", 2, "Usage"),
    ("serve index --lease 0s", 2, "Usage"),
    ("serve peer --heartbeat 0s", 2, "Usage"),
    ("serve peer --listen 0.0.0.0:0", 2, "Usage"),
    ("up --listen 0.0.0.0:0", 2, "Usage"),
    ("demo now", 2, "Usage"),
    ("completions tcsh", 2, "Usage"),
    ("topic ls --index 127.0.0.1:9", 1, "Unreachable"),
    ("topic ls --config absent.toml", 2, "Config"),
];

fn split(line: &str, form: &str) -> Vec<String> {
    line.replace("{}", form)
        .split(' ')
        .map(str::to_owned)
        .collect()
}

/// Runs every right line in every form.
fn all_right(lines: &[Right], run: impl Fn(&[&str]) -> Ran) {
    for &(line, shape, names) in lines {
        for form in FORMS {
            let words = split(line, form);
            let mut args: Vec<&str> = words.iter().map(String::as_str).collect();
            args.extend(["-o", form]);
            let ran = run(&args);
            if shape == Refused || form == "name" && names == "-" {
                assert_eq!(
                    (ran.status, ran.stdout.as_str()),
                    (2, ""),
                    "{line} -o {form}"
                );
                continue;
            }
            let text = ran.ok();
            match form {
                "json" => assert_shape(line, shape, &text),
                "yaml" => assert_yaml(line, shape, &text),
                "name" => {
                    let name = names.replace("{}", form);
                    assert!(text.lines().any(|l| l == name), "{line}: {name} in {text}");
                }
                _ => assert!(!text.contains('{'), "{line}: {text}"),
            }
        }
    }
}

fn assert_shape(line: &str, shape: Shape, text: &str) {
    let parse = |text: &str| -> Value {
        serde_json::from_str(text).unwrap_or_else(|error| panic!("{line}: {error} in {text}"))
    };
    match shape {
        Lines => assert!(text.lines().count() > 0 && text.lines().all(|l| parse(l).is_object())),
        Object => assert!(parse(text).is_object(), "{line}: {text}"),
        _ => assert!(
            parse(text).as_array().is_some_and(|all| !all.is_empty()),
            "{line}: {text}"
        ),
    }
}

fn assert_yaml(line: &str, shape: Shape, text: &str) {
    if shape == Lines {
        assert!(
            text.starts_with("---\n") || text.starts_with("- "),
            "{line}: {text}"
        );
        return;
    }
    let value: Value =
        serde_yaml_ng::from_str(text).unwrap_or_else(|error| panic!("{line}: {error} in {text}"));
    assert_eq!(value.is_array(), shape == Array, "{line}: {text}");
}

/// Runs every wrong line for people and for programs.
fn all_wrong(lines: &[Wrong], run: impl Fn(&[&str]) -> Ran) {
    for &(line, status, name) in lines {
        let words = split(line, "");
        let args: Vec<&str> = words.iter().map(String::as_str).collect();
        let ran = run(&args);
        assert_eq!(ran.stdout, "", "{line}");
        let text = ran.fails(status);
        assert!(
            text.lines().any(|l| l.starts_with("error: ")),
            "{line}: {text}"
        );
        // Without the notes the object is all there is.
        let ran = run(&[&args[..], &["-q", "-o", "json"]].concat());
        assert_eq!((ran.status, ran.stdout.as_str()), (status, ""), "{line}");
        assert_eq!(ran.json_error()["name"], name, "{line}");
    }
}

/// Five topics and a stopped peer for each form.
fn prepare(up: &Up) {
    for form in FORMS {
        let names = ["a", "b", "d"].map(|letter| format!("{letter}.{form}"));
        let [a, b, d] = names.each_ref().map(String::as_str);
        up.run(&["topic", "create", a, b, d, "-q", "--on", &up.peer_name])
            .ok();
        up.feed(&["pub", a, "-q"], b"one\ntwo\nthree\n").ok();
        let of_a = [
            "subscription",
            "create",
            a,
            "-q",
            "--from",
            "beginning",
            "--as",
            "s",
        ];
        up.run(&of_a).ok();
        up.run(&["group", "create", a, "g", "-q", "--from", "beginning"])
            .ok();
        up.run(&["pub", a, "x", "-q", "--deliver-at", "+1h"]).ok();
        bury(up, &format!("e.{form}"), 4);
        let name = format!("p-{form}");
        let mut serve = command(up.dir.path());
        serve.args(["serve", "peer", "--name", &name, "--data-dir", &name]);
        serve.args(["--listen", "127.0.0.1:0", "--index", &up.index]);
        serve.args(["--slot-size", "4MiB", "--log", "warn"]);
        let (mut child, _) = ready(serve, 1);
        signal(&child, Signal::TERM);
        assert!(child.wait().expect("it ends").success(), "{name}");
    }
}

#[test]
fn every_verb_at_a_cluster() {
    let up = Up::start();
    prepare(&up);
    let run = |args: &[&str]| up.run(args);
    all_wrong(WRONG_AT_A_CLUSTER, run);
    all_right(RIGHT_AT_A_CLUSTER, run);
    up.stop();
}

#[test]
fn every_verb_without_a_cluster() {
    let up = Up::start();
    prepare(&up);
    let kept = TempDir::new().expect("a scratch directory");
    let data = up.dir.path().join("data");
    up.stop_with(|| std::fs::rename(&data, kept.path().join("data")).expect("moved"));
    let run = |args: &[&str]| {
        let mut command = command(kept.path());
        command.args(args);
        run_with(command, b"")
    };
    let (changing, reading): (Vec<Right>, Vec<Right>) =
        RIGHT_ALONE.iter().partition(|(line, ..)| changes(line));
    let before = contents(kept.path());
    all_wrong(WRONG_ALONE, run);
    all_right(&reading, run);
    let after = contents(kept.path());
    assert_eq!(
        before.keys().collect::<Vec<_>>(),
        after.keys().collect::<Vec<_>>()
    );
    let is_other = |(path, bytes): &(&PathBuf, &Vec<u8>)| after.get(*path) != Some(bytes);
    let changed: Vec<_> = before
        .iter()
        .filter(is_other)
        .map(|(path, _)| path)
        .collect();
    assert!(changed.is_empty(), "{changed:?}");
    all_right(&changing, run);
    imports_in_every_form(kept.path());
}

/// Whether a verb may write into the directory it is given.
fn changes(line: &str) -> bool {
    let writes = line.starts_with("data repair ") || line.starts_with("data migrate ");
    writes && !line.ends_with(" --dry-run")
}

/// Every file below a directory, with its bytes.
fn contents(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in dir.read_dir().expect("readable") {
        let path = entry.expect("readable").path();
        match path.is_dir() {
            true => found.extend(contents(&path)),
            false => {
                let bytes = std::fs::read(&path).expect("readable");
                found.insert(path, bytes);
            }
        }
    }
    found
}

fn imports_in_every_form(dir: &Path) {
    let export = ["data", "export", "data/peer", "a.json", "a.yaml"];
    let exported = command(dir).args(export).output().expect("it runs");
    assert!(exported.status.success(), "{exported:?}");
    let import = |form: &str| {
        let mut import = command(dir);
        import.args(["data", "import", form, "-o", form]);
        run_with(import, &exported.stdout)
    };
    assert!(
        import("table")
            .stderr
            .contains("imported a.json, offsets 0..3, 3 messages")
    );
    assert_shape("data import", Array, &import("json").ok());
    assert_yaml("data import", Array, &import("yaml").ok());
    assert_eq!(import("name").ok(), "a.json\na.yaml\n");
}

/// The verbs below a noun, from the help of the program itself.
fn verbs(noun: &[&str], found: &mut BTreeSet<String>) {
    let help = tidings(&[noun, &["--help"]].concat()).ok();
    let listed = help
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty())
        // Descriptions that go on are indented further.
        .filter(|line| !line.starts_with("   "));
    let names: Vec<&str> = listed
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    if names.is_empty() {
        found.insert(noun.join(" "));
    }
    for name in names {
        verbs(&[noun, &[name]].concat(), found);
    }
}

#[test]
fn no_verb_is_forgotten() {
    let mut all = BTreeSet::new();
    verbs(&[], &mut all);
    assert!(
        all.contains("topic accept-loss") && all.len() > 30,
        "{all:?}"
    );
    // Tried elsewhere: servers and the demo in every module, losses in `quarantine`.
    let elsewhere = [
        "demo",
        "up",
        "serve index",
        "serve peer",
        "topic accept-loss",
        "data import",
    ];
    let right: Vec<&str> = [RIGHT_AT_A_CLUSTER, RIGHT_ALONE]
        .concat()
        .iter()
        .map(|(line, ..)| *line)
        .collect();
    let wrong: Vec<&str> = [WRONG_AT_A_CLUSTER, WRONG_ALONE]
        .concat()
        .iter()
        .map(|(line, ..)| *line)
        .collect();
    for verb in &all {
        let of_it = |line: &&&str| line.starts_with(verb.as_str());
        assert!(
            elsewhere.contains(&verb.as_str()) || right.iter().find(of_it).is_some(),
            "nothing right is tried with '{verb}'"
        );
        assert!(
            wrong.iter().find(of_it).is_some(),
            "nothing wrong is tried with '{verb}'"
        );
    }
}
