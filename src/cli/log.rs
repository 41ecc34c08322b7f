//! Where logs go: stderr, as text for people or JSON for collectors.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;

use crate::cli::fail::{Failure, Result};

/// Starts logging. `level` is a level or a filter such as `info,tidings::net=debug`.
pub fn start(level: &str, format: &str) -> Result {
    let refuse = || {
        Failure::usage(format!(
            "--log {level:?}: expected error, warn, info, debug, trace, off, or a list such as \
             info,tidings::net=debug"
        ))
    };
    if !is_filter(level) {
        return Err(refuse());
    }
    let filter = EnvFilter::try_new(level).map_err(|_| refuse())?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr);
    match format {
        "text" => builder
            .with_ansi(io::stderr().is_terminal() && !no_colour())
            .init(),
        "json" => builder.json().flatten_event(true).init(),
        other => {
            return Err(Failure::usage(format!(
                "--log-format {other:?}: expected text or json"
            )));
        }
    }
    Ok(())
}

/// Whether the environment forbids colour.
pub fn no_colour() -> bool {
    std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
}

/// The filter's own parser takes any word for the name of a module; a misspelt
/// level would then pass.
fn is_filter(text: &str) -> bool {
    const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];
    text.split(',').all(|part| {
        let level = part.rsplit_once('=').map_or(part, |(_, level)| level);
        LEVELS.contains(&level.to_ascii_lowercase().as_str())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_filters_are_told_from_misspellings() {
        for good in ["info", "OFF", "warn,tidings::net=debug"] {
            assert!(is_filter(good), "{good} was refused");
        }
        for bad in ["", "verbose", "info,", "tidings=loud", "infos"] {
            assert!(!is_filter(bad), "{bad:?} was accepted");
        }
    }
}
