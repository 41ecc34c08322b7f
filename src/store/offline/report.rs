//! What verifying and repairing tell.

use std::fmt;

use crate::topic::State;
use crate::types::{Offset, TopicId};

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The file or directory, as seen from the data directory.
    pub file: String,
    /// Where in it.
    pub position: Option<u32>,
    /// The topic it concerns: its name, or its id where no name is known.
    pub topic: Option<String>,
    /// Its offsets, `[from, to)`.
    pub offsets: Option<(Offset, Offset)>,
    /// What was expected and what was found.
    pub what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some(position) = self.position {
            write!(f, " at {position}")?;
        }
        if let Some(topic) = &self.topic {
            write!(f, ", topic {topic}")?;
        }
        if let Some((from, to)) = self.offsets {
            write!(f, ", offsets {from}..{to}")?;
        }
        write!(f, ": {}", self.what)
    }
}

/// How much was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Checked {
    /// Slots.
    pub slots: u64,
    /// Segments that hold something.
    pub segments: u64,
    /// Groups.
    pub groups: u64,
    /// Entries.
    pub entries: u64,
    /// Bytes of their payloads.
    pub payload_bytes: u64,
    /// Rows of the catalog or the registry.
    pub rows: u64,
    /// Topics.
    pub topics: u64,
}

/// What was found.
#[derive(Debug, Clone, Default)]
pub struct Verified {
    /// What is wrong.
    pub findings: Vec<Finding>,
    /// What is unfinished or out of the ordinary, and harmless.
    pub notes: Vec<String>,
    /// How much was looked at.
    pub checked: Checked,
}

impl Verified {
    /// Whether nothing is wrong.
    pub fn is_sound(&self) -> bool {
        self.findings.is_empty()
    }

    pub(in crate::store::offline) fn add(
        &mut self,
        file: impl Into<String>,
        what: impl Into<String>,
    ) -> &mut Finding {
        self.findings.push(Finding {
            file: file.into(),
            position: None,
            topic: None,
            offsets: None,
            what: what.into(),
        });
        self.findings.last_mut().expect("pushed just now")
    }
}

impl Finding {
    pub(in crate::store::offline) fn at(&mut self, position: u32) -> &mut Self {
        self.position = Some(position);
        self
    }

    pub(in crate::store::offline) fn of(&mut self, state: &State, topic: TopicId) -> &mut Self {
        self.topic = Some(topic_text(state, topic));
        self
    }

    pub(in crate::store::offline) fn offsets(&mut self, from: Offset, to: Offset) -> &mut Self {
        self.offsets = Some((from, to));
        self
    }
}

/// Its name, or its id where no name is known.
pub(super) fn topic_text(state: &State, id: TopicId) -> String {
    match state.topic(id) {
        Ok(topic) => topic.row.name.to_string(),
        Err(_) => format!("id {id}"),
    }
}

/// What a repair did, or would do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Repaired {
    /// What was done, in order, one line each.
    pub steps: Vec<String>,
    /// What is lost: one line each.
    pub lost: Vec<String>,
    /// What is still wrong and why it was left.
    pub left: Vec<String>,
}

impl Repaired {
    /// Whether there was nothing to do.
    pub fn is_nothing(&self) -> bool {
        self == &Self::default()
    }
}
