//! The forms in which results are printed.

use clap::ValueEnum;

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Default)]
pub enum Format {
    /// For people
    #[default]
    Table,
    /// One JSON document; for messages one object a line
    Json,
    /// One YAML document
    Yaml,
    /// Only the names, one a line
    Name,
}
