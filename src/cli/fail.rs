//! How a command fails: exit status, text for people, object for programs.
//!
//! Every failure has the number and name that the protocol gives it. What only
//! the command line can run into has numbers from 900 on. A message says what
//! happened; a hint says what to do next, where that is not obvious.
//!
//! A closed pipe is not a failure: whoever reads our output had enough.

use std::io::{self, Write};

use clap::error::ContextValue;
use serde::Serialize;

use crate::cli::format::Format;
use crate::client::ClientError;
use crate::protocol::error::ApiError;

/// Why a command did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Exit status: 1 failed, 2 wrong usage, 0 for a closed pipe.
    pub status: u8,
    /// Stable number.
    pub code: u16,
    /// Stable name.
    pub name: String,
    /// What happened.
    pub message: String,
    /// Whether the same command may succeed later.
    pub retryable: bool,
    /// What to do next.
    pub hint: Option<String>,
}

/// What commands return.
pub type Result<T = ()> = std::result::Result<T, Failure>;

const USAGE: (u16, &str) = (900, "Usage");
const INPUT_OUTPUT: (u16, &str) = (901, "InputOutput");
const INTERRUPTED: (u16, &str) = (902, "Interrupted");
const CONFIG: (u16, &str) = (903, "Config");
const SERVER: (u16, &str) = (904, "ServerFailed");
const CHECK: (u16, &str) = (905, "CheckFailed");
const DATA: (u16, &str) = (906, "DataDirectory");
const NOT_PENDING: (u16, &str) = (907, "NotPending");

impl Failure {
    fn new((code, name): (u16, &str), message: impl Into<String>) -> Self {
        Self {
            status: 1,
            code,
            name: name.to_owned(),
            message: message.into(),
            retryable: false,
            hint: None,
        }
    }

    /// The command line makes no sense.
    pub fn usage(message: impl Into<String>) -> Self {
        Self {
            status: 2,
            ..Self::new(USAGE, message)
        }
    }

    /// The configuration makes no sense.
    pub fn config(message: impl Into<String>) -> Self {
        Self {
            status: 2,
            ..Self::new(CONFIG, message)
        }
    }

    /// A file or stream of ours failed.
    pub fn io(what: &str, error: &io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::closed_pipe();
        }
        Self::new(INPUT_OUTPUT, format!("{what}: {error}"))
    }

    /// Nobody reads our output any more; nothing is said about it.
    fn closed_pipe() -> Self {
        Self {
            status: 0,
            ..Self::new(INPUT_OUTPUT, "")
        }
    }

    /// Ctrl-C came before the work was done.
    pub fn interrupted(message: impl Into<String>) -> Self {
        Self::new(INTERRUPTED, message)
    }

    /// A server could not start, or stopped by itself.
    pub fn server(message: impl Into<String>) -> Self {
        Self::new(SERVER, message)
    }

    /// A check that was asked for found something.
    pub fn check(message: impl Into<String>) -> Self {
        Self::new(CHECK, message)
    }

    /// What was to be cancelled is not to be delivered any more, or never was.
    pub fn not_pending(message: impl Into<String>) -> Self {
        Self::new(NOT_PENDING, message)
    }

    /// A data directory cannot be used as asked.
    pub fn data(message: impl Into<String>) -> Self {
        Self::new(DATA, message)
    }

    /// The same with a hint.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Tells it on stderr: an object for `-o json`, lines for people otherwise.
    pub fn tell(&self, format: Format) {
        if self.status == 0 {
            return;
        }
        let message = visible(&self.message);
        let text = match (format, &self.hint) {
            (Format::Json, _) => self.to_json(),
            (_, Some(hint)) => format!("error: {message}\nhint: {}", visible(hint)),
            (_, None) => format!("error: {message}"),
        };
        // If stderr is closed, the exit status still tells.
        let _ = writeln!(io::stderr().lock(), "{text}");
    }

    fn to_json(&self) -> String {
        #[derive(Serialize)]
        struct Outer<'a> {
            error: Inner<'a>,
        }
        #[derive(Serialize)]
        struct Inner<'a> {
            code: u16,
            name: &'a str,
            message: &'a str,
            retryable: bool,
            #[serde(skip_serializing_if = "Option::is_none")]
            hint: Option<&'a str>,
        }
        let object = Outer {
            error: Inner {
                code: self.code,
                name: &self.name,
                message: &self.message,
                retryable: self.retryable,
                hint: self.hint.as_deref(),
            },
        };
        serde_json::to_string(&object).expect("strings and numbers always encode")
    }
}

/// The text with control characters made visible: what somebody typed, or a node said, must not steer a terminal.
fn visible(text: &str) -> String {
    let mut visible = String::with_capacity(text.len());
    for character in text.chars() {
        match character.is_control() {
            true => visible.extend(character.escape_default()),
            false => visible.push(character),
        }
    }
    visible
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        let hint = hint_for(&error);
        Self {
            // What only a server can tell is no wrong usage, even where it is an argument.
            status: 1,
            code: error.code(),
            name: error.name().to_owned(),
            message: message_of(&error),
            retryable: error.is_retryable(),
            hint,
        }
    }
}

/// The error's own words, with ranges of offsets as they are written everywhere else.
fn message_of(error: &ApiError) -> String {
    match error {
        ApiError::OffsetOutOfRange {
            requested,
            start,
            end,
        } => format!("offset {requested} is out of range: the topic holds {start}..{end}"),
        ApiError::Damaged { from, to } => format!("offsets {from}..{to} are damaged on disk"),
        // The reason names the one it is about.
        ApiError::InvalidArgument { what, reason } if matches!(what.as_str(), "peer" | "topic") => {
            reason.clone()
        }
        // It may stand in the middle of a sentence.
        ApiError::Displaced => "displaced: another process registered as this peer, perhaps on a \
                                copy of its data directory"
            .to_owned(),
        error => error.to_string(),
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let hint = match error {
            ClientError::Api(error) => return error.into(),
            ClientError::Unreachable { .. } => {
                Some("'tidings peer ls' shows which peers there are, and which are online")
            }
            ClientError::OutcomeUnknown { .. } => {
                Some("look whether it was done before doing it again")
            }
            _ => None,
        };
        Self {
            status: 1,
            code: error.code(),
            name: error.name().to_owned(),
            message: error.to_string(),
            retryable: error.is_retryable(),
            hint: hint.map(str::to_owned),
        }
    }
}

impl Failure {
    /// There is no way into the cluster.
    pub fn no_way_in(error: ClientError) -> Self {
        let is_unreachable = matches!(error, ClientError::Unreachable { .. });
        let failure = Self::from(error);
        match is_unreachable {
            true => failure.hint(
                "is it running? 'tidings up' starts a cluster here; --index or --peer name \
                 another way in",
            ),
            false => failure,
        }
    }

    /// Cuts clap's text, which is made of paragraphs, into what is wrong and what
    /// to do: its tip if it has one, else the usage line, else the help of the verb.
    pub fn from_line(error: &clap::Error, verb: &str) -> Self {
        let mut text = error.render().to_string();
        for (_, value) in error.context() {
            // What was typed may hold line ends, which would be taken for clap's own.
            if let ContextValue::String(typed) = value
                && typed.contains(char::is_control)
            {
                text = text.replace(typed.as_str(), &visible(typed));
            }
        }
        let mut paragraphs = text.split("\n\n").map(|paragraph| {
            let lines: Vec<_> = paragraph.lines().map(str::trim).collect();
            lines.join(" ")
        });
        let message = paragraphs.next().unwrap_or_default();
        let message = message.strip_prefix("error: ").unwrap_or(&message);
        let (mut tip, mut usage) = (None, None);
        for paragraph in paragraphs {
            if let Some(rest) = paragraph.strip_prefix("tip: ") {
                tip = Some(rest.to_owned());
            } else if let Some(rest) = paragraph.strip_prefix("Usage: ") {
                usage = Some(rest.trim().to_owned());
            }
        }
        let failure = Self::usage(message);
        // The usage of a noun says only that a verb is expected.
        let usage = usage.filter(|_| error.kind() != clap::error::ErrorKind::InvalidSubcommand);
        match tip.or(usage) {
            Some(hint) => failure.hint(hint),
            None => failure.hint(format!(
                "'{verb} --help' shows what is expected, with examples"
            )),
        }
    }
}

/// What to do about an error, where its own text does not say it.
fn hint_for(error: &ApiError) -> Option<String> {
    Some(match error {
        ApiError::TopicNotFound { name } => {
            format!(
                "'tidings topic ls' shows what there is, 'tidings topic create {name}' makes it"
            )
        }
        ApiError::TopicExists { name } => {
            format!(
                "'tidings topic info {name}' shows it; where it is as good as a new one, --if-not-exists accepts it"
            )
        }
        ApiError::SubscriptionNotFound { topic, name } => {
            format!("'tidings subscription create {topic} --as {name} --from beginning' makes it")
        }
        ApiError::SubscriptionExists { topic, name } => {
            format!("'tidings subscription seek {topic} {name} --to ...' moves it")
        }
        ApiError::ConsumerGroupNotFound { topic, name } => {
            format!("'tidings group create {topic} {name} --from beginning' makes it")
        }
        ApiError::ConsumerGroupExists { topic, name } => {
            format!("'tidings group info {topic} {name}' shows it, 'tidings group set' changes it")
        }
        ApiError::PeerNotFound { .. } => "'tidings peer ls' shows the peers".to_owned(),
        ApiError::PeerNotOnline { .. } => "start the peer again on its data directory".to_owned(),
        ApiError::IndexUnavailable { .. } => {
            "start one with 'tidings serve index', or name another with --index".to_owned()
        }
        ApiError::NameConflict { name, .. } => {
            format!(
                "'tidings topic ls {name}' shows both topics, 'tidings topic rename {name} NEW --on PEER' gives one of them another name"
            )
        }
        ApiError::DiskReserve { .. } => {
            "free space on that disk: a peer's with 'tidings topic purge' or 'tidings topic rm'"
                .to_owned()
        }
        ApiError::TopicFull { name, .. } => format!(
            "room comes when subscriptions confirm (retain-interest), with age (retain-age), by 'tidings topic purge {name}', or with higher bounds"
        ),
        ApiError::Damaged { .. } => {
            "--pass-damage reads on behind them; 'tidings data verify DIR' on the stopped peer names every finding".to_owned()
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_json_object_is_the_promised_one() {
        let error = ApiError::TopicNotFound {
            name: "quakes.ci".parse().expect("good"),
        };
        let failure = Failure::from(error);
        assert_eq!(failure.status, 1);
        let value: serde_json::Value =
            serde_json::from_str(&failure.to_json()).expect("valid JSON");
        let error = &value["error"];
        assert_eq!(error["code"], 20);
        assert_eq!(error["name"], "TopicNotFound");
        assert_eq!(error["message"], "topic quakes.ci does not exist");
        assert_eq!(error["retryable"], false);
        assert!(
            error["hint"]
                .as_str()
                .is_some_and(|hint| hint.contains("create quakes.ci"))
        );
    }

    #[test]
    fn a_closed_pipe_is_no_failure() {
        let closed = io::Error::from(io::ErrorKind::BrokenPipe);
        assert_eq!(Failure::io("stdout", &closed).status, 0);
        let full = io::Error::from(io::ErrorKind::StorageFull);
        assert_eq!(Failure::io("stdout", &full).status, 1);
    }
}
