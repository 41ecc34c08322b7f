//! The one question this program asks: whether to destroy something.
//!
//! It is asked only where stdin and stdout are terminals; a script is taken at
//! its word. `--force` answers it beforehand.

use std::io::{self, BufRead, IsTerminal, Write};

use crate::cli::fail::{Failure, Result};

/// Goes on if `force` is given, if nobody is there to ask, or if the answer is yes.
pub fn destruction(force: bool, what: &str) -> Result {
    if force || !io::stdin().is_terminal() || !io::stdout().is_terminal() {
        return Ok(());
    }
    let mut answer = String::new();
    let mut screen = io::stderr().lock();
    write!(screen, "{what} This cannot be undone. Go on? [y/N] ")
        .and_then(|()| screen.flush())
        .and_then(|()| io::stdin().lock().read_line(&mut answer))
        .map_err(|error| Failure::io("terminal", &error))?;
    match answer.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => {
            Err(Failure::interrupted("nothing was changed").hint("--force goes on without asking"))
        }
    }
}
