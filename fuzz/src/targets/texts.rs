//! What people and programs write: names, addresses, values on the command line, the configuration file.

use std::fmt::{Debug, Display};
use std::str::FromStr;

use clap::Parser;
use tidings::cli::{Cli, reading};
use tidings::protocol::batch::Compression;
use tidings::time::Timestamp;
use tidings::types::{
    Address, Durability, PeerId, PeerName, ProducerId, SubscriptionName, TopicId, TopicName,
    TopicPattern,
};

use super::names_an_error;

/// A text taken for each kind of name there is; behind its first newline a name for a pattern before it.
///
/// What is a name is shown as it was written. Patterns match what a slower, simpler reading of their rule says.
pub fn names(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else {
        return;
    };
    name::<TopicName>(text);
    name::<SubscriptionName>(text);
    name::<PeerName>(text);
    name::<TopicPattern>(text);
    name::<Compression>(text);
    name::<Durability>(text);
    id::<TopicId>(text);
    id::<PeerId>(text);
    id::<ProducerId>(text);
    if let Some(address) = name::<Address>(text) {
        let (host, port) = address.as_str().rsplit_once(':').expect("it has a port");
        assert!(!host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0));
    }
    if let Some((pattern, name)) = text.split_once('\n')
        && let (Ok(pattern), Ok(name)) = (pattern.parse::<TopicPattern>(), name.parse())
    {
        patterns(&pattern, &name);
    }
}

fn patterns(pattern: &TopicPattern, name: &TopicName) {
    fn simply(pattern: &[&str], name: &[&str]) -> bool {
        match (pattern, name) {
            ([], []) => true,
            ([">"], [_, ..]) => true,
            (["*", pattern @ ..], [_, name @ ..]) => simply(pattern, name),
            ([token, pattern @ ..], [same, name @ ..]) => token == same && simply(pattern, name),
            _ => false,
        }
    }
    let tokens = |text: &str| text.split('.').map(str::to_owned).collect::<Vec<_>>();
    let (a, b) = (tokens(pattern.as_str()), tokens(name.as_str()));
    let (a, b): (Vec<_>, Vec<_>) = (
        a.iter().map(String::as_str).collect(),
        b.iter().map(String::as_str).collect(),
    );
    assert_eq!(
        pattern.matches(name),
        simply(&a, &b),
        "{pattern} and {name}"
    );
    if let Some(only) = pattern.as_name() {
        assert_eq!(pattern.matches(name), only == *name);
    }
    assert!(TopicPattern::all().matches(name));
}

fn name<T>(text: &str) -> Option<T>
where
    T: FromStr<Err: Display> + Display,
{
    match text.parse::<T>() {
        Ok(name) => {
            assert_eq!(name.to_string(), text);
            Some(name)
        }
        Err(error) => {
            names_an_error(&error);
            None
        }
    }
}

fn id<T: FromStr<Err: Display> + Display>(text: &str) {
    match text.parse::<T>() {
        Ok(id) => assert_eq!(id.to_string(), text.to_ascii_lowercase()),
        Err(error) => names_an_error(&error),
    }
}

/// Words of a command line, one a line; the first byte asks for other things that are typed or piped in:
/// 0 the words, 1 a value of each kind, 2 what stands on standard input.
pub fn command_line(data: &[u8]) {
    let Some((&what, rest)) = data.split_first() else {
        return;
    };
    if what % 3 == 2 {
        return standard_input(rest);
    }
    let Ok(text) = str::from_utf8(rest) else {
        return;
    };
    if what % 3 == 1 {
        return values(text);
    }
    let words = std::iter::once("tidings").chain(text.split('\n'));
    if let Err(error) = Cli::try_parse_from(words) {
        assert!(!error.to_string().trim().is_empty());
    }
}

fn value<T: Debug>(parsed: Result<T, String>) -> Option<T> {
    match parsed {
        Ok(value) => Some(value),
        Err(reason) => {
            names_an_error(&reason);
            None
        }
    }
}

fn values(text: &str) {
    let padded = format!(" {text}\t");
    if let Some(bytes) = value(reading::size(text)) {
        assert_eq!(reading::size(&padded), Ok(bytes));
        assert_eq!(reading::size(&bytes.to_string()), Ok(bytes));
        assert_eq!(reading::size(&text.to_ascii_lowercase()), Ok(bytes));
    }
    if let Some(length) = value(reading::duration(text)) {
        let ms = format!("{}ms", length.as_millis());
        assert_eq!(reading::duration(&ms), Ok(length));
        assert_eq!(reading::period(text).is_ok(), !length.is_zero());
    }
    if let Some(rate) = value(reading::rate(text)) {
        assert!(rate > 0.0 && rate.is_finite());
    }
    if let Some(listen) = value(reading::listen(text)) {
        assert_eq!(listen, text);
    }
    if let Some((name, contents)) = value(reading::header(text)) {
        assert_eq!(format!("{name}:{contents}"), text);
    }
    if reading::duration(text).is_err()
        && let Some(time) = value(reading::time(text))
    {
        let shown = time.to_string();
        assert_eq!(
            reading::time(&shown),
            Ok(Timestamp::from_millis(time.as_millis()))
        );
    }
    value(reading::position(text));
    value(reading::count(text));
    value(reading::offset(text));
    value(reading::template(text));
}

/// However it arrives, the lines are the bytes between the line ends.
fn standard_input(data: &[u8]) {
    // Room for a large read is made before each: a few hundred small ones are enough.
    let Some((&piece, bytes)) = data
        .get(..data.len().min(512))
        .and_then(<[u8]>::split_first)
    else {
        return;
    };
    let lines = reading::lines(bytes, usize::from(piece).max(1)).expect("shorter than any limit");
    let mut expected: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').collect();
    // What follows the last line end is a line only if there is something.
    if expected.last().is_some_and(|last| last.is_empty()) {
        expected.pop();
    }
    assert_eq!(lines, expected);
}

/// A configuration file: it says the same with a comment and line ends behind it, or is refused with a text.
pub fn config(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else {
        return;
    };
    match reading::config(text) {
        Ok(read) => {
            let more = format!("{text}\n# a comment\n\n");
            assert_eq!(reading::config(&more), Ok(read));
        }
        Err(reason) => assert!(reason.chars().any(char::is_alphabetic)),
    }
}
