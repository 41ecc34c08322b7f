//! `tidings data`: what is in a data directory in which no server runs.
//!
//! The work is done in [`crate::store::offline`]; here it gets arguments and a
//! form. Nothing here talks to a cluster, so `--index` and `--peer` are refused.

mod index;
mod rows;
mod show;

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Seek, SeekFrom};
use std::os::fd::AsFd;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::catalog::{self, DirLock};
use crate::cli::Global;
use crate::cli::fail::{Failure, Result};
use crate::cli::message::{Message, Printer};
use crate::cli::output::{self, Format, Output};
use crate::cli::values::{self, Template};
use crate::store::StoreOptions;
use crate::store::offline::{
    self, DirKind, DumpOptions, Dumped, ExportOptions, OfflineError, list_registry,
};
use crate::types::{GapReason, Offset, TopicName};

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// List topics, subscriptions, segments and formats of a directory
    #[command(
        visible_alias = "list",
        after_help = "\
Examples:
  tidings data ls data/peer
  tidings data ls data/index -o json"
    )]
    Ls(Dir),
    /// Print stored messages
    #[command(after_help = "\
Examples:
  tidings data dump data/peer quakes.ci
  tidings data dump data/peer quakes.ci --from 100 --to 200 -o json
  tidings data dump data/peer quakes.ci -f '%o %k %p%n'")]
    Dump(Dump),
    /// Check every checksum and every cross-reference; status 1 if anything is wrong
    #[command(after_help = "\
Examples:
  tidings data verify data/peer
  tidings data verify data/peer -o json")]
    Verify(Dir),
    /// Show where the bytes are: live and dead, by topic and segment
    #[command(after_help = "\
Examples:
  tidings data stats data/peer
  tidings data stats data/peer -o json")]
    Stats(Dir),
    /// Write topics with offsets and subscriptions to stdout
    #[command(after_help = "\
Examples:
  tidings data export data/peer quakes.ci quakes.nc > quakes.tdx
  tidings data export data/peer quakes.ci --pass-damage > quakes.tdx")]
    Export(Export),
    /// Bring exported topics from stdin into a peer's directory
    #[command(after_help = "\
Examples:
  tidings data import data/peer-2 < quakes.tdx")]
    Import(Dir),
    /// Make a damaged directory usable again; deletes nothing
    #[command(after_help = "\
Examples:
  tidings data repair data/peer --dry-run
  tidings data repair data/peer")]
    Repair(DryRun),
    /// Bring a directory to the format of this program
    #[command(after_help = "\
Examples:
  tidings data migrate data/peer --dry-run
  tidings data migrate data/peer")]
    Migrate(DryRun),
}

/// Only a directory.
#[derive(Debug, Args)]
pub struct Dir {
    /// The data directory
    dir: PathBuf,
}

/// A directory, and whether to change it.
#[derive(Debug, Args)]
pub struct DryRun {
    /// The data directory
    dir: PathBuf,
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
}

/// Arguments of `dump`.
#[derive(Debug, Args)]
pub struct Dump {
    /// The data directory
    dir: PathBuf,
    /// Only this topic
    topic: Option<TopicName>,
    /// First offset
    #[arg(long, value_name = "OFFSET", value_parser = values::offset)]
    from: Option<Offset>,
    /// Offset to stop before
    #[arg(long, value_name = "OFFSET", value_parser = values::offset)]
    to: Option<Offset>,
    /// How each message looks: %t topic, %o offset, %T time, %k key, %h headers, %p payload, %n newline
    #[arg(short = 'f', value_name = "FORMAT", value_parser = values::template)]
    template: Option<Template>,
}

/// Arguments of `export`.
#[derive(Debug, Args)]
pub struct Export {
    /// The data directory
    dir: PathBuf,
    /// The topics
    #[arg(required = true, value_name = "TOPIC")]
    topics: Vec<TopicName>,
    /// Leave out what cannot be read; those offsets become gaps
    #[arg(long)]
    pass_damage: bool,
}

/// How dumped messages look for people, unless they say otherwise.
const DUMP_LINE: &str = "%t %o %T %k %h %p%n";

/// Runs a verb.
pub fn run(verb: Verb, global: &Global) -> Result {
    global.refuse("tidings data", &["--index", "--peer"])?;
    let output = global.output();
    match verb {
        Verb::Ls(args) => ls(&args, &output),
        Verb::Dump(args) => dump(args, &output),
        Verb::Verify(args) => {
            global.refuse_names("tidings data verify")?;
            verify(&args, &output)
        }
        Verb::Stats(args) => stats(&args, &output),
        Verb::Export(args) => {
            global.refuse("tidings data export", &["--output"])?;
            export(args, &output)
        }
        Verb::Import(args) => import(&args, &output),
        Verb::Repair(args) => {
            global.refuse_names("tidings data repair")?;
            repair(&args, &output)
        }
        Verb::Migrate(args) => {
            global.refuse_names("tidings data migrate")?;
            migrate(&args, &output)
        }
    }
}

impl From<OfflineError> for Failure {
    fn from(error: OfflineError) -> Self {
        match error {
            // A closed pipe, above all.
            OfflineError::Io { action, source } => Self::io(&format!("cannot {action}"), &source),
            error => Self::data(error.to_string()),
        }
    }
}

fn ls(args: &Dir, output: &Output) -> Result {
    match offline::kind_of(&args.dir)? {
        DirKind::Peer => show::listing(&offline::list(&args.dir)?, output),
        DirKind::Index => index::registry(&list_registry(&args.dir)?, output),
    }
}

fn stats(args: &Dir, output: &Output) -> Result {
    match offline::kind_of(&args.dir)? {
        DirKind::Peer => show::stats(&offline::stats(&args.dir)?, output),
        DirKind::Index => index::registry_stats(&list_registry(&args.dir)?, output),
    }
}

fn dump(args: Dump, output: &Output) -> Result {
    if offline::kind_of(&args.dir)? == DirKind::Index {
        if args.topic.is_some() || args.from.is_some() || args.to.is_some() {
            let what = "an index server's directory holds no messages: only DIR is taken";
            return Err(Failure::usage(what));
        }
        return index::entries(&list_registry(&args.dir)?, output);
    }
    if let (Some(from), Some(to)) = (args.from, args.to)
        && from > to
    {
        let what = format!("--from {from} is behind --to {to}");
        return Err(Failure::usage(what));
    }
    let template = match (args.template, output.format) {
        (None, Format::Table) => values::template(DUMP_LINE).ok(),
        (given, _) => given,
    };
    let mut printer = Printer::new(output.format, template)?;
    let options = DumpOptions {
        topic: args.topic,
        from: args.from,
        to: args.to,
    };
    let mut failed = None;
    let summary = offline::dump(&args.dir, &options, &mut |item| match item {
        Dumped::Record {
            topic,
            offset,
            append_time,
            ttl,
            record,
        } => {
            let printed = printer.print(&Message {
                topic,
                offset,
                timestamp: record.timestamp,
                key: record.key.as_deref(),
                headers: &record.headers,
                payload: &record.value,
                delivery: None,
                expires: ttl.map(|ttl| append_time.after(ttl)),
            });
            printed.map_err(|failure| {
                failed = Some(failure);
                io::Error::other("the output was closed")
            })
        }
        Dumped::Missing { topic, gap } => {
            if gap.reason == GapReason::Damaged {
                output.warn(format!("{topic} {}..{}: damaged", gap.from, gap.to));
            } else {
                output.note(format!("{topic} {}..{}: {}", gap.from, gap.to, gap.reason));
            }
            Ok(())
        }
    });
    if let Some(failure) = failed {
        return Err(failure);
    }
    let summary = summary?;
    printer.flush()?;
    match summary.damaged {
        0 => Ok(()),
        n => Err(Failure::check(format!(
            "{} cannot be read",
            output::count(n, "message")
        ))),
    }
}

fn verify(args: &Dir, output: &Output) -> Result {
    let report = offline::verify(&args.dir)?;
    show::verified(&report, output)?;
    match report.findings.len() as u64 {
        0 => Ok(()),
        n => {
            let failure = Failure::check(format!(
                "{} in {}",
                output::count(n, "finding"),
                args.dir.display()
            ));
            Err(failure.hint("'tidings data repair DIR --dry-run' says what can be done"))
        }
    }
}

fn export(args: Export, output: &Output) -> Result {
    if io::stdout().is_terminal() {
        let failure = Failure::usage("an export is no text: it does not go to a terminal");
        return Err(failure.hint("tidings data export DIR TOPIC... > FILE.tdx"));
    }
    let options = ExportOptions {
        topics: args.topics,
        pass_damage: args.pass_damage,
    };
    let out = BufWriter::with_capacity(1 << 20, io::stdout().lock());
    for topic in offline::export(&args.dir, &options, out)? {
        output.note(format!(
            "exported {}, offsets {}..{}, {}, {}",
            topic.name,
            topic.offsets.0,
            topic.offsets.1,
            output::count(topic.totals.records, "message"),
            output::count(topic.totals.subscriptions, "subscription"),
        ));
        for gap in &topic.damaged {
            output.warn(format!(
                "{} {}..{}: damaged, not in the export",
                topic.name, gap.from, gap.to
            ));
        }
    }
    Ok(())
}

fn import(args: &Dir, output: &Output) -> Result {
    if io::stdin().is_terminal() {
        let failure = Failure::usage("an export is expected on stdin");
        return Err(failure.hint("tidings data import DIR < FILE.tdx"));
    }
    let options = StoreOptions::new(&args.dir);
    let imported = offline::import(&options, rewindable_stdin()?)?;
    for topic in &imported {
        output.note(format!(
            "imported {}, offsets {}..{}, {}, {}",
            topic.name,
            topic.offsets.0,
            topic.offsets.1,
            output::count(topic.totals.records, "message"),
            output::count(topic.totals.subscriptions, "subscription"),
        ));
        if topic.gaps_dropped > 0 {
            output.warn(format!(
                "{}: {} gaps are more than a topic remembers, their offsets read as damaged",
                topic.name, topic.gaps_dropped
            ));
        }
    }
    show::imported(&imported, output)
}

/// Standard input as a file: itself if it is one, else a copy in a scratch file.
fn rewindable_stdin() -> Result<File> {
    let failed = |error: io::Error| Failure::io("stdin", &error);
    let fd = io::stdin().as_fd().try_clone_to_owned().map_err(failed)?;
    let mut stdin = File::from(fd);
    if stdin.metadata().map_err(failed)?.is_file() {
        return Ok(stdin);
    }
    let scratch = |error: io::Error| Failure::io("a scratch file for stdin", &error);
    let mut copy = tempfile::tempfile().map_err(scratch)?;
    io::copy(&mut stdin, &mut copy).map_err(scratch)?;
    copy.seek(SeekFrom::Start(0)).map_err(scratch)?;
    Ok(copy)
}

fn repair(args: &DryRun, output: &Output) -> Result {
    let report = offline::repair(&args.dir, args.dry_run)?;
    show::repaired(&report, args.dry_run, output)?;
    match report.left.len() as u64 {
        0 => Ok(()),
        n => Err(Failure::check(format!(
            "{} left",
            output::count(n, "finding")
        ))),
    }
}

fn migrate(args: &DryRun, output: &Output) -> Result {
    if offline::kind_of(&args.dir)? == DirKind::Peer && args.dir.join("journal").exists() {
        offline::check_journal_format(&args.dir)?;
    }
    let plans = if args.dry_run {
        if let Some(holder) = DirLock::holder(&args.dir) {
            let dir = args.dir.clone();
            return Err(OfflineError::InUse { dir, holder }.into());
        }
        catalog::plan(&args.dir).map_err(OfflineError::from)?
    } else {
        let lock = DirLock::acquire(&args.dir).map_err(OfflineError::from)?;
        catalog::run(&lock).map_err(OfflineError::from)?
    };
    show::plans(&plans, args.dry_run, output)
}
