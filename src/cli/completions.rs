//! `tidings completions`: what a shell needs to complete our commands.

use clap::{Args, CommandFactory, ValueEnum};
use clap_complete::{Shell, generate};

use crate::cli::Cli;
use crate::cli::fail::Result;
use crate::cli::output::Output;

/// Shells that are known.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Known {
    Bash,
    Zsh,
    Fish,
}

/// Arguments of `tidings completions`.
#[derive(Debug, Args)]
pub struct Completions {
    /// The shell
    shell: Known,
}

/// Prints the script.
pub fn run(args: &Completions, output: &Output) -> Result {
    let shell = match args.shell {
        Known::Bash => Shell::Bash,
        Known::Zsh => Shell::Zsh,
        Known::Fish => Shell::Fish,
    };
    // Into memory first: the generator panics where a pipe was closed.
    let mut script = Vec::new();
    generate(shell, &mut Cli::command(), "tidings", &mut script);
    output.raw(&script)
}
