//! The command line as a person or a script meets it.

use std::process::Stdio;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::support::{command, ready, run_with, signal, tidings};

#[test]
fn without_a_command_it_shows_what_there_is_and_fails() {
    let ran = tidings(&[]);
    assert_eq!(ran.stdout, "");
    let help = ran.fails(2);
    for word in ["Usage: tidings", "topic", "Examples:", "Exit status"] {
        assert!(help.contains(word), "{word} is missing in {help}");
    }
}

#[test]
fn help_and_version_are_data() {
    let help = tidings(&["--help"]).ok();
    assert!(help.contains("tidings up"), "{help}");
    let help = tidings(&["topic", "create", "--help"]).ok();
    assert!(help.contains("--if-not-exists") && help.contains("Examples:"));
    let version = tidings(&["--version"]).ok();
    assert_eq!(version, format!("tidings {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn wrong_usage_is_status_2_with_a_hint() {
    let text = tidings(&["topic", "creat"]).fails(2);
    assert!(text.starts_with("error: unrecognized subcommand 'creat'\n"));
    assert!(
        text.contains("\nhint: ") && text.contains("create"),
        "{text}"
    );
    for wrong in [
        &["topic", "create"][..],
        &["topic", "create", "a/b"],
        &["topic", "create", "a", "--durability", "maybe"],
        &["topic", "create", "a", "--retain-age", "7"],
        &["topic", "set", "a", "retain-bytes=0"],
        &["topic", "purge", "a", "--before", "yesterday"],
        &["topic", "ls", "-o", "csv"],
        &["subscription", "seek", "a", "b"],
        &["--index", "nowhere", "topic", "ls"],
        &["completions", "tcsh"],
    ] {
        let ran = tidings(wrong);
        assert_eq!(ran.stdout, "", "{wrong:?}");
        let text = ran.fails(2);
        assert!(text.starts_with("error: "), "{wrong:?}: {text}");
        assert!(!text.contains("panicked"), "{wrong:?}: {text}");
    }
}

/// What was typed comes back in the message, and must not steer the terminal it is shown on.
#[test]
fn control_characters_are_shown_and_not_sent() {
    for name in [
        "a\tb",
        "a\nb",
        "a\n\nhint: b",
        "\x1b[31mred",
        "a\x07b",
        "\u{9b}31m",
        "a\rb",
    ] {
        for args in [
            &["topic", "info", name][..],
            &["pub", name, "x"],
            &["pull", "t", "--as", name],
            &["serve", "peer", "--name", name],
            &["topic", "creat", name],
            &["topic", name],
            &[name],
        ] {
            let text = tidings(args).fails(2);
            let lines: Vec<&str> = text.lines().collect();
            assert!(lines.len() <= 2, "{args:?}: {text:?}");
            assert!(
                lines.iter().all(|line| !line.contains(char::is_control)),
                "{text:?}"
            );
            assert!(lines[0].starts_with("error: "), "{text:?}");
        }
    }
}

#[test]
fn with_json_a_failure_is_one_object_on_stderr() {
    let ran = tidings(&["topic", "create", "a/b", "-o", "json"]);
    assert_eq!((ran.status, ran.stdout.as_str()), (2, ""));
    let error = ran.json_error();
    assert_eq!(error["name"], "Usage");
    assert_eq!(error["retryable"], false);
    assert!(error["code"].is_u64());
    assert!(
        error["message"]
            .as_str()
            .is_some_and(|text| text.contains("topic name"))
    );
}

#[test]
fn settings_are_listed_in_every_format() {
    let table = tidings(&["topic", "options"]).ok();
    assert!(table.starts_with("SETTING "), "{table}");
    assert!(table.lines().all(|line| line.trim_end() == line), "{table}");
    let json = tidings(&["topic", "options", "-o", "json"]).json();
    assert_eq!(json[0]["name"], "durability");
    assert_eq!(json[0]["default"], "fsync");
    let yaml = tidings(&["topic", "options", "-o", "yaml"]).ok();
    assert!(yaml.starts_with("- name: durability\n"), "{yaml}");
    let names = tidings(&["topic", "options", "-o", "name"]).ok();
    assert_eq!(
        names,
        "durability\nretain-age\nretain-bytes\nretain-records\nretain-interest\nwhen-full\nremember-ids-for\nremember-ids-max\ncompact\ntombstone-age\n"
    );
}

#[test]
fn completions_are_scripts() {
    let markers = [
        ("bash", "_tidings()"),
        ("zsh", "#compdef tidings"),
        ("fish", "complete -c tidings"),
    ];
    for (shell, marker) in markers {
        let script = tidings(&["completions", shell]).ok();
        assert!(script.contains(marker), "{shell}");
        assert!(script.contains("subscription"), "{shell}");
    }
}

#[test]
fn a_reader_that_leaves_ends_it_in_silence() {
    let dir = TempDir::new().expect("a scratch directory");
    for args in [
        &["completions", "zsh"][..],
        &["topic", "options"],
        &["--help"],
    ] {
        let mut child = command(dir.path())
            .args(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        drop(child.stdout.take());
        let output = child.wait_with_output().expect("it ends");
        assert!(output.status.success(), "{args:?}: {output:?}");
        assert!(output.stderr.is_empty(), "{args:?}: {output:?}");
    }
}

#[test]
fn an_index_server_says_when_it_is_ready_and_ends_well() {
    let dir = TempDir::new().expect("a scratch directory");
    let mut serve = command(dir.path());
    serve.args(["serve", "index", "--listen", "127.0.0.1:0", "--log", "warn"]);
    let (mut child, lines) = ready(serve, 1);
    let address = lines[0].strip_prefix("ready index ").expect("its address");
    let run = |args: &[&str]| {
        let mut command = command(dir.path());
        command.args(args).env("TIDINGS_INDEX", address);
        run_with(command, b"")
    };
    let none = run(&["topic", "ls"]);
    assert!(none.stderr.contains("no topics yet"), "{none:?}");
    assert_eq!(
        run(&["peer", "ls", "-o", "json"]).json(),
        serde_json::json!([])
    );
    let error = run(&["topic", "create", "t", "-o", "json"]).json_error();
    assert_eq!(
        (&error["name"], &error["retryable"]),
        (&"NoPeerOnline".into(), &true.into())
    );
    let text = run(&["pub", "t", "x"]).fails(1);
    assert!(
        text.contains("error: topic t does not exist\nhint: "),
        "{text}"
    );
    let text = run(&["serve", "index", "--listen", address]).fails(1);
    assert!(
        text.contains("cannot listen") && text.contains("hint: "),
        "{text}"
    );
    let text = run(&["serve", "index", "--listen", "127.0.0.1:0"]).fails(1);
    assert!(text.contains("in use by process"), "{text}");
    signal(&child, Signal::TERM);
    assert!(child.wait().expect("it ends").success());
    let gone = run(&["topic", "ls", "-o", "json"]).json_error();
    assert_eq!(gone["name"], "Unreachable");
}

#[test]
fn a_bad_configuration_is_named_with_its_file() {
    let dir = TempDir::new().expect("a scratch directory");
    let file = dir.path().join("tidings.toml");
    std::fs::write(&file, "indx = \"127.0.0.1:7400\"\n").expect("writable");
    let ls = || {
        let mut ls = command(dir.path());
        ls.args(["topic", "ls"]);
        ls
    };
    let text = run_with(ls(), b"").fails(2);
    assert!(
        text.contains("tidings.toml") && text.contains("indx"),
        "{text}"
    );
    let mut absent = ls();
    absent.args(["--config", "absent.toml"]);
    let text = run_with(absent, b"").fails(2);
    assert!(text.contains("absent.toml"), "{text}");
    std::fs::write(&file, "").expect("writable");
    let mut wrong = ls();
    wrong.env("TIDINGS_INDEX", "nowhere");
    let text = run_with(wrong, b"").fails(2);
    assert!(text.contains("TIDINGS_INDEX"), "{text}");
}
