//! Rules about the source text that no compiler checks, kept true by reading
//! the source.
//!
//! 1. The modules stand on floors. A module names only modules of lower floors
//!    (or its own), so there are no circles between them.
//! 2. A file holds at most 800 lines of code, its tests not counted; a function
//!    at most 70 lines.
//! 3. Some calls are made in few places or nowhere: see `BANNED`.
//! 4. There is one integration binary.
//! 5. Notes to oneself and places on one person's machine do not go in.
//!
//! Comments and the contents of string literals are blanked before the rules
//! look, and so are items under `#[cfg(test)]`; files called `tests.rs` are
//! test code as a whole. It is no parser: a macro that writes half a function
//! could deceive it, and nobody here writes one.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// From the ground up. A module may use those of the floors below its own;
/// those of one floor do not know each other, except on the ground floor.
const FLOORS: &[&[&str]] = &[
    &["buffers", "limits", "process", "time", "types"],
    &["figures"],
    &["protocol"],
    &["topic", "registry"],
    &["journal"],
    &["catalog"],
    &["store"],
    &["net"],
    &["http"],
    &["client"],
    &["index", "peer"],
    &["demo"],
    &["cli"],
    &["main"],
];

/// The packages in there have directories of build products of their own, which are nobody's source.
const BUILT: &[&str] = &["benches/peers/target", "fuzz/target"];

const FILE_LINES_MAX: usize = 800;
const FUNCTION_LINES_MAX: usize = 70;

/// A text that may occur as a whole word only in files whose path starts with one of `allowed`.
struct Ban {
    text: &'static str,
    allowed: &'static [&'static str],
    instead: &'static str,
}

const PRINTING: &[&str] = &["src/cli/", "src/demo", "src/main.rs", "benches/"];
const FILES: &[&str] = &[
    "src/process.rs",
    "src/journal/",
    "src/catalog/",
    "src/store/",
    "src/cli/",
    "src/demo",
    "migrations/",
    "benches/",
    "fuzz/",
];

const BANNED: &[Ban] = &[
    ban(
        ".unwrap()",
        &[],
        "expect(\"why it cannot be\"), or an error",
    ),
    ban("unsafe", &[], "rustix"),
    ban("todo!", &[], "the thing itself"),
    ban("unimplemented!", &[], "the thing itself"),
    ban("dbg!", &[], "tracing"),
    ban("println!", PRINTING, "tracing"),
    ban("eprintln!", PRINTING, "tracing"),
    ban("print!", PRINTING, "tracing"),
    ban("eprint!", PRINTING, "tracing"),
    ban("std::fs", FILES, "the module that owns the files"),
    ban("tokio::fs", FILES, "a thread that may block"),
    ban("sled", &["src/catalog/sled_db.rs"], "catalog"),
    ban("unbounded_channel", &[], "a bounded channel"),
    ban("mpsc::channel()", &[], "a bounded channel"),
    ban("#[ignore", &[], "a test that runs"),
    ban(
        "anyhow",
        &["src/cli/", "src/demo", "src/main.rs", "benches/"],
        "an error enum",
    ),
];

const fn ban(text: &'static str, allowed: &'static [&'static str], instead: &'static str) -> Ban {
    Ban {
        text,
        allowed,
        instead,
    }
}

/// Texts that belong in no file, split so that this one does not hold them.
const FOREIGN: &[(&str, &str)] = &[
    ("/ho", "me/"),
    ("/ro", "ot/"),
    ("/wo", "rk/"),
    ("FIX", "ME"),
    ("TO", "DO"),
    ("XX", "X:"),
];

/// One source file, as read and with everything blanked that is not code.
struct Source {
    path: String,
    text: String,
    /// `text` without comments, literals and tests; the same lines.
    code: String,
}

impl Source {
    fn read(root: &Path, path: &Path) -> Self {
        let text = fs::read_to_string(path).expect("source files are readable text");
        let path = path
            .strip_prefix(root)
            .expect("below the root")
            .to_string_lossy()
            .into_owned();
        let mut code = blank_literals(&text);
        if path.ends_with("/tests.rs") || path.contains("/tests/") || path.starts_with("tests/") {
            code = code.replace(|c| c != '\n', " ");
        } else {
            blank_tests(&mut code);
        }
        Self { path, text, code }
    }

    /// The module of `src` it belongs to; migrations belong to the catalog.
    fn module(&self) -> Option<&str> {
        if self.path.starts_with("migrations/") {
            return Some("catalog");
        }
        let rest = self.path.strip_prefix("src/")?;
        let first = rest.split('/').next()?.trim_end_matches(".rs");
        (first != "lib").then_some(first)
    }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn files_below(dir: &Path, wanted: &dyn Fn(&Path) -> bool, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(dir) else {
        return;
    };
    for entry in entries {
        let path = entry.expect("a readable directory").path();
        if path.is_dir() && BUILT.iter().any(|built| path.ends_with(built)) {
            continue;
        }
        if path.is_dir() {
            files_below(&path, wanted, found);
        } else if wanted(&path) {
            found.push(path);
        }
    }
    found.sort();
}

fn sources() -> Vec<Source> {
    let root = root();
    let mut paths = Vec::new();
    for dir in ["src", "migrations", "tests", "benches", "fuzz"] {
        files_below(&root.join(dir), &has_suffix(&["rs"]), &mut paths);
    }
    assert!(paths.len() > 10, "the source was not found below {root:?}");
    paths.iter().map(|path| Source::read(&root, path)).collect()
}

fn has_suffix(suffixes: &'static [&'static str]) -> impl Fn(&Path) -> bool {
    move |path| {
        path.extension()
            .is_some_and(|found| suffixes.iter().any(|suffix| found == *suffix))
    }
}

/// Replaces comments and the contents of literals by spaces, keeping the lines.
fn blank_literals(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let end = literal_end(&chars, at);
        if end > at {
            out.extend(chars[at..end].iter().map(|&c| blanked(c)));
            at = end;
        } else {
            out.push(chars[at]);
            at += 1;
        }
    }
    out
}

fn blanked(c: char) -> char {
    if c == '\n' { '\n' } else { ' ' }
}

/// Where the comment or literal that begins at `at` ends; `at` if none begins there.
fn literal_end(chars: &[char], at: usize) -> usize {
    let next = chars.get(at + 1).copied();
    let in_word = at > 0 && is_word(chars[at - 1]);
    match chars[at] {
        '/' if next == Some('/') => find(chars, at, &['\n']).unwrap_or(chars.len()),
        '/' if next == Some('*') => block_comment_end(chars, at),
        '"' => quoted_end(chars, at),
        'r' if !in_word || chars[at - 1] == 'b' => raw_end(chars, at).unwrap_or(at),
        '\'' if next == Some('\\') => find(chars, at + 3, &['\'']).map_or(at, |end| end + 1),
        '\'' if chars.get(at + 2) == Some(&'\'') => at + 3,
        _ => at,
    }
}

fn find(chars: &[char], from: usize, wanted: &[char]) -> Option<usize> {
    (from..chars.len()).find(|&at| chars[at..].starts_with(wanted))
}

fn block_comment_end(chars: &[char], at: usize) -> usize {
    let (mut depth, mut at) = (0, at);
    while at < chars.len() {
        if chars[at..].starts_with(&['/', '*']) {
            (depth, at) = (depth + 1, at + 2);
        } else if chars[at..].starts_with(&['*', '/']) {
            (depth, at) = (depth - 1, at + 2);
        } else {
            at += 1;
        }
        if depth == 0 {
            break;
        }
    }
    at
}

fn quoted_end(chars: &[char], at: usize) -> usize {
    let mut at = at + 1;
    while at < chars.len() && chars[at] != '"' {
        at += if chars[at] == '\\' { 2 } else { 1 };
    }
    (at + 1).min(chars.len())
}

fn raw_end(chars: &[char], at: usize) -> Option<usize> {
    let hashes = chars[at + 1..].iter().take_while(|&&c| c == '#').count();
    let open = at + 1 + hashes;
    if chars.get(open) != Some(&'"') {
        return None;
    }
    let mut close = vec!['"'];
    close.extend(std::iter::repeat_n('#', hashes));
    find(chars, open + 1, &close).map(|end| end + close.len())
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Blanks every item under `#[cfg(test)]`.
fn blank_tests(code: &mut String) {
    const MARK: &str = "#[cfg(test)]";
    while let Some(start) = code.find(MARK) {
        let rest = &code[start + MARK.len()..];
        let length = match rest.find(['{', ';']) {
            Some(at) if rest[at..].starts_with('{') => at + block_length(&rest[at..]),
            Some(at) => at + 1,
            None => rest.len(),
        };
        let end = start + MARK.len() + length;
        let blank: String = code[start..end].chars().map(blanked).collect();
        code.replace_range(start..end, &blank);
    }
}

/// Bytes from the opening brace that `code` begins with to the closing one, both included.
fn block_length(code: &str) -> usize {
    let mut depth = 0;
    for (at, c) in code.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at + 1;
        }
    }
    code.len()
}

fn line_of(code: &str, at: usize) -> usize {
    code[..at].matches('\n').count() + 1
}

/// Every place where `text` stands in `code` as a whole word.
fn places<'a>(code: &'a str, text: &'a str) -> impl Iterator<Item = usize> + 'a {
    let word_before = text.starts_with(is_word);
    let word_after = text.ends_with(is_word);
    code.match_indices(text)
        .map(|(at, _)| at)
        .filter(move |&at| {
            let before = code[..at].chars().next_back().is_some_and(is_word);
            let after = code[at + text.len()..].chars().next().is_some_and(is_word);
            !((word_before && before) || (word_after && after))
        })
}

/// The modules that `code` names as `crate::x` or `crate::{x, y::z}`, each with its place.
fn modules_named(code: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for at in places(code, "crate::") {
        if code[..at].ends_with('$') {
            continue;
        }
        let rest = &code[at + "crate::".len()..];
        if rest.starts_with('{') {
            let inside = &rest[1..block_length(rest) - 1];
            found.extend(group_heads(inside).into_iter().map(|name| (at, name)));
        } else {
            found.push((at, head(rest)));
        }
    }
    found
}

fn head(path: &str) -> String {
    path.trim_start()
        .chars()
        .take_while(|&c| is_word(c))
        .collect()
}

/// First words of the entries of an import group, looking at its outermost level only.
fn group_heads(inside: &str) -> Vec<String> {
    let (mut depth, mut start, mut heads) = (0, 0, Vec::new());
    for (at, c) in inside.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                heads.push(head(&inside[start..at]));
                start = at + 1;
            }
            _ => {}
        }
    }
    heads.push(head(&inside[start..]));
    heads.retain(|name| !name.is_empty());
    heads
}

fn floor(module: &str) -> Option<usize> {
    FLOORS.iter().position(|floor| floor.contains(&module))
}

/// Whether `user` may name `used`.
fn may_use(user: &str, used: &str) -> bool {
    match (floor(user), floor(used)) {
        (Some(user_floor), Some(used_floor)) => {
            user == used || used_floor < user_floor || (user_floor, used_floor) == (0, 0)
        }
        _ => false,
    }
}

/// Where the body of the function with that signature opens; `None` if it has none.
fn body_start(signature: &str) -> Option<usize> {
    let mut depth = 0;
    for (at, c) in signature.char_indices() {
        match c {
            '(' | '[' => depth += 1,
            ')' | ']' => depth -= 1,
            '{' if depth == 0 => return Some(at),
            ';' if depth == 0 => return None,
            _ => {}
        }
    }
    None
}

/// The functions of `code`: place, name, number of lines.
fn functions(code: &str) -> Vec<(usize, String, usize)> {
    let mut found = Vec::new();
    for at in places(code, "fn") {
        let rest = &code[at + 2..];
        let name = head(rest);
        let Some(open) = body_start(rest).filter(|_| !name.is_empty()) else {
            continue;
        };
        let end = open + block_length(&rest[open..]);
        found.push((at, name, rest[..end].matches('\n').count() + 1));
    }
    found
}

#[derive(Default)]
struct Findings(String);

impl Findings {
    fn add(&mut self, source: &Source, at: usize, what: impl std::fmt::Display) {
        let line = line_of(&source.code, at);
        writeln!(self.0, "{}:{line}: {what}", source.path).expect("a string takes it");
    }

    fn check(self) {
        assert!(self.0.is_empty(), "\n{}", self.0);
    }
}

#[test]
fn modules_use_only_what_stands_below_them() {
    let mut findings = Findings::default();
    for source in sources() {
        let Some(module) = source.module() else {
            continue;
        };
        if floor(module).is_none() {
            findings.add(&source, 0, format!("module {module} has no floor"));
        }
        for (at, used) in modules_named(&source.code) {
            if !may_use(module, &used) {
                findings.add(&source, at, format!("{module} must not use {used}"));
            }
        }
    }
    findings.check();
}

#[test]
fn files_and_functions_stay_small() {
    let mut findings = Findings::default();
    for source in sources() {
        let lines = source.code.lines().filter(|line| !line.trim().is_empty());
        let count = lines.count();
        if count > FILE_LINES_MAX {
            findings.add(&source, 0, format!("{count} lines of code: split it"));
        }
        for (at, name, lines) in functions(&source.code) {
            if lines > FUNCTION_LINES_MAX {
                findings.add(&source, at, format!("{name} has {lines} lines"));
            }
        }
    }
    findings.check();
}

#[test]
fn banned_calls_stay_where_they_are_allowed() {
    let mut findings = Findings::default();
    for source in sources() {
        for ban in BANNED {
            if ban.allowed.iter().any(|path| source.path.starts_with(path)) {
                continue;
            }
            for at in places(&source.code, ban.text) {
                findings.add(&source, at, format!("{}: use {}", ban.text, ban.instead));
            }
        }
        // The one rule that tests obey too.
        let text = blank_literals(&source.text);
        for at in places(&text, "#[ignore") {
            findings.add(&source, at, "an ignored test proves nothing");
        }
    }
    findings.check();
}

#[test]
fn there_is_one_integration_binary() {
    let tests = root().join("tests");
    let entries = fs::read_dir(tests).expect("this file is in it");
    let mut names: Vec<_> = entries
        .map(|entry| entry.expect("readable").file_name())
        .filter(|name| Path::new(name).extension().is_some_and(|e| e == "rs"))
        .collect();
    names.sort();
    assert_eq!(names, ["tidy.rs"], "put it into tests/suite/ as a module");
}

#[test]
fn foreign_words_stay_out() {
    let root = root();
    let mut paths = Vec::new();
    for dir in [
        "src",
        "migrations",
        "tests",
        "benches",
        "fuzz",
        "docs",
        ".ci",
    ] {
        files_below(&root.join(dir), &|_| true, &mut paths);
    }
    paths.extend(["README.md", "CHANGELOG.md", "Cargo.toml"].map(|name| root.join(name)));
    let mut findings = String::new();
    for path in paths {
        let bytes = fs::read(&path).expect("readable");
        let text = String::from_utf8_lossy(&bytes);
        for (first, second) in FOREIGN {
            let word = format!("{first}{second}");
            for at in places(&text, &word) {
                let line = line_of(&text, at);
                writeln!(findings, "{}:{line}: {word}", path.display()).expect("a string");
            }
        }
    }
    assert!(findings.is_empty(), "\n{findings}");
}

#[test]
fn the_reader_of_this_file_sees_what_it_should() {
    let code = "fn a(x: [u8; 4]) { let x = \"// unsafe {\"; /* dbg! /* } */ */ 'x: loop {} }\n\
                #[cfg(test)]\nmod tests { fn b() { x.unwrap() } }\n\
                use crate::{types::{A, B}, net};\nlet r = r#\"sled \" \"#; let c = '\\''; sled\n";
    let mut blank = blank_literals(code);
    blank_tests(&mut blank);
    assert_eq!(blank.lines().count(), code.lines().count());
    for hidden in ["unsafe", "dbg", "unwrap"] {
        assert!(!blank.contains(hidden), "{hidden} is visible in {blank}");
    }
    assert_eq!(places(&blank, "sled").count(), 1);
    let names: Vec<_> = modules_named(&blank).into_iter().map(|(_, n)| n).collect();
    assert_eq!(names, ["types", "net"]);
    assert_eq!(functions(&blank).len(), 1);
    assert!(may_use("peer", "store") && may_use("types", "limits"));
    assert!(!may_use("store", "peer") && !may_use("peer", "index") && !may_use("cli", "x"));
}
