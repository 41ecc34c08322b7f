//! The definitions of the verbs, and what is written about them, hold together.

use super::*;

/// Every noun and verb with its whole path: `topic create`.
fn verbs(command: &clap::Command, path: &str, found: &mut Vec<(String, clap::Command)>) {
    for child in command.get_subcommands() {
        let path = format!("{path} {}", child.get_name()).trim().to_owned();
        verbs(child, &path, found);
        found.push((path, child.clone()));
    }
}

fn all_verbs() -> Vec<(String, clap::Command)> {
    let mut found = Vec::new();
    verbs(&Cli::command(), "", &mut found);
    found
}

#[test]
fn the_definitions_hold_together() {
    Cli::command().debug_assert();
}

#[test]
fn every_verb_shows_examples_that_parse() {
    for (path, verb) in all_verbs() {
        let help = verb.get_after_help().map(ToString::to_string);
        let help = help.unwrap_or_default();
        let examples: Vec<_> = help
            .lines()
            .filter_map(|line| line.trim().strip_prefix("tidings "))
            .collect();
        assert!(!examples.is_empty(), "'{path}' shows no example");
        for example in examples {
            assert!(example.starts_with(&path), "'{path}' shows '{example}'");
            let words = std::iter::once("tidings".to_owned()).chain(words(example));
            if let Err(error) = Cli::try_parse_from(words) {
                panic!("'{example}' does not parse: {error}");
            }
        }
    }
}

/// Splits as a shell would, as far as the examples need it: single quotes,
/// redirections and what follows two spaces (an explanation) cut off.
fn words(line: &str) -> Vec<String> {
    let line = line.split("  ").next().unwrap_or_default();
    let (mut words, mut word, mut quoted) = (Vec::new(), String::new(), false);
    for c in line.chars().chain([' ']) {
        match c {
            '\'' => quoted = !quoted,
            '<' | '>' | '|' if !quoted => break,
            ' ' if !quoted => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
            }
            c => word.push(c),
        }
    }
    words
}

#[test]
fn every_verb_says_what_it_does() {
    for (path, verb) in all_verbs() {
        let about = verb
            .get_about()
            .map(ToString::to_string)
            .unwrap_or_default();
        assert!(!about.is_empty(), "'{path}' has no description");
        assert!(!about.ends_with('.'), "'{path}': no full stop, please");
    }
}

#[test]
fn the_verb_a_line_is_about_is_found() {
    let find = |line: &str| {
        let args: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        verb_of(&args)
    };
    for (line, verb) in [
        ("tidings", "tidings"),
        ("tidings -q topic create a/b", "tidings topic create"),
        ("tidings subs ls", "tidings subscription ls"),
        ("tidings topic creat x", "tidings topic"),
    ] {
        assert_eq!(find(line), verb, "{line}");
    }
}

#[test]
fn the_format_of_errors_is_found_in_any_spelling() {
    let find = |line: &str| {
        let args: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        format_asked_for(&args)
    };
    for json in [
        "t -o json",
        "t --output json x",
        "t -ojson",
        "t --output=json",
        "t -qo json",
        "t -qojson",
    ] {
        assert_eq!(find(json), Format::Json, "{json}");
    }
    for table in ["t", "t -o table", "t -o", "t json", "t --no json"] {
        assert_eq!(find(table), Format::Table, "{table}");
    }
}

/// A manual that shows lines that do not work is worse than none.
#[test]
fn what_the_manuals_show_parses() {
    for (page, least) in [
        ("README.md", 10),
        ("docs/operations.md", 25),
        ("docs/consuming.md", 8),
    ] {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(page);
        let text = std::fs::read_to_string(path).expect("the page is there");
        let shown = shown_lines(&text);
        assert!(shown.len() >= least, "{page}: only {} found", shown.len());
        for line in shown {
            // Help, and a noun alone, are shown rightly too.
            let is_wrong = |error: &clap::Error| {
                use clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand as Incomplete;
                error.use_stderr() && error.kind() != Incomplete
            };
            if let Some(error) = Cli::try_parse_from(words(&line)).err().filter(is_wrong) {
                panic!("{page} shows '{line}', which does not parse: {error}");
            }
        }
    }
}

/// Every line of code that runs the program, and every piece of code in running text that does.
/// Three dots stand for what is left out: such a piece is no whole line.
fn shown_lines(text: &str) -> Vec<String> {
    let mut shown = Vec::new();
    let mut prose = String::new();
    let mut is_fenced = false;
    for line in text.replace("\\\n", " ").lines() {
        if line.starts_with("```") {
            is_fenced = !is_fenced;
        } else if is_fenced || line.starts_with("    ") {
            let line = line.trim_start().trim_start_matches("$ ");
            if line.starts_with("tidings ") {
                shown.push(line.to_owned());
            }
        } else {
            prose = prose + line + " ";
        }
    }
    // Code may go on in the next line.
    let code = prose.split('`').skip(1).step_by(2);
    let whole = code.filter(|code| code.starts_with("tidings ") && !code.contains("..."));
    shown.extend(whole.map(str::to_owned));
    shown
}
