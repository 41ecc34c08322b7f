//! Values in the configuration file, read as the flags of the same names are.

use std::time::Duration;

use serde::{Deserialize, Deserializer};

use crate::cli::values;

/// A period in the file, written as in a flag.
pub fn period_text<'de, D: Deserializer<'de>>(
    from: D,
) -> std::result::Result<Option<Duration>, D::Error> {
    parsed(from, values::period)
}

/// A size in the file, written as in a flag.
pub fn size_text<'de, D: Deserializer<'de>>(from: D) -> std::result::Result<Option<u64>, D::Error> {
    parsed(from, values::size)
}

/// A place to listen on in the file, written as in a flag.
pub fn listen_text<'de, D: Deserializer<'de>>(
    from: D,
) -> std::result::Result<Option<String>, D::Error> {
    parsed(from, values::listen)
}

fn parsed<'de, T, D: Deserializer<'de>>(
    from: D,
    parse: fn(&str) -> std::result::Result<T, String>,
) -> std::result::Result<Option<T>, D::Error> {
    let text = String::deserialize(from)?;
    parse(&text)
        .map(Some)
        .map_err(|reason| serde::de::Error::custom(format!("{text:?}: {reason}")))
}
