//! The command line: `tidings NOUN VERB`, and `pub`, `sub`, `pull` at the top.
//!
//! One file per noun. What people type is parsed in `values`, where settings
//! come from is decided in `config`, what is printed goes through `output`,
//! and how a command fails is `fail`'s. A verb is a function from its
//! arguments and a [`Context`] to `fail::Result`; it does not look at the
//! environment, print to stdout by itself or end the process.
//!
//! Invariants:
//!
//! 1. Data goes to stdout, everything else to stderr.
//! 2. A reader that closes its end of a pipe ends the command in silence.
//! 3. Nothing asks a question unless stdin and stdout are terminals.
//! 4. No flag is accepted where it would do nothing.
//!
//! Patience: `pub` and `sub` try for a first connection as long as their
//! `--timeout` says (60 s), like for every later one. All other verbs fail as soon
//! as no address is left to try: at once where connections are refused, after 5 s
//! for an address that does not answer. An answer may take 30 s.
//!
//! Missing on purpose: paging, colours in tables, aliases to configure.

mod bench;
mod completions;
mod config;
mod confirm;
mod data;
mod dlq;
mod fail;
mod flags;
mod following;
mod format;
mod group;
mod in_file;
mod input;
mod later;
mod log;
mod member;
mod message;
mod metrics;
mod output;
mod peer;
mod publish;
#[doc(hidden)] // for the programs in fuzz/
pub mod reading;
mod serve;
mod signals;
mod subscribe;
mod subscription;
mod tally;
#[cfg(test)]
mod tests;
mod topic;
mod values;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::client::{Client, ClientError, ConnectOptions};
use crate::types::Address;
use fail::{Failure, Result};
use output::{Format, Output};

const ABOUT: &str = "A publish/subscribe broker that keeps what it is told";

const EXAMPLES: &str = "\
Examples:
  tidings up                                      an index and a peer, right here
  tidings topic create quakes.ci
  tidings pub quakes.ci 'a first message'
  tidings pull quakes.ci --as me --from beginning

Exit status: 0 done, 1 failed, 2 wrong usage.";

/// The whole command line.
#[derive(Debug, Parser)]
#[command(name = "tidings", version, about = ABOUT, after_help = EXAMPLES)]
#[command(propagate_version = false, disable_help_subcommand = true)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Flags that go anywhere on the line.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Index servers to go in through [env: TIDINGS_INDEX] [default: 127.0.0.1:7400]
    #[arg(long, global = true, value_name = "ADDR[,ADDR]", value_delimiter = ',')]
    index: Vec<Address>,
    /// Any peer to go in through instead [env: TIDINGS_PEER]
    #[arg(long, global = true, value_name = "ADDR")]
    peer: Option<Address>,
    /// Configuration file [env: TIDINGS_CONFIG] [default: tidings.toml if it is there]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// How results are printed
    #[arg(short, long, global = true, value_name = "FORMAT", value_enum)]
    #[arg(hide_possible_values = true)]
    #[arg(help = "How results are printed: table, json, yaml or name [default: table]")]
    output: Option<Format>,
    /// No notes and no progress on stderr
    #[arg(short, long, global = true)]
    quiet: bool,
    /// What is logged to stderr: error, warn, info, debug, trace, or off [default: info for servers]
    #[arg(long, global = true, value_name = "LEVEL")]
    log: Option<String>,
    /// How it is logged: text or json [default: text]
    #[arg(long, global = true, value_name = "FORMAT")]
    log_format: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Create, list, change and remove topics
    #[command(
        subcommand,
        after_help = "\
Examples:
  tidings topic create quakes.ci
  tidings topic ls 'quakes.*'
  tidings topic rm quakes.ci --force"
    )]
    Topic(topic::Verb),
    /// List, inspect and retire peers
    #[command(
        subcommand,
        after_help = "\
Examples:
  tidings peer ls
  tidings peer info peer-1 -o json"
    )]
    Peer(peer::Verb),
    /// Create, list, move and remove durable subscriptions
    #[command(
        subcommand,
        visible_alias = "subs",
        after_help = "\
Examples:
  tidings subscription create quakes.ci --as map --from beginning
  tidings subscription ls
  tidings subscription seek quakes.ci map --to -100"
    )]
    Subscription(subscription::Verb),
    /// Create, list, change, move and remove groups, whose members share the messages of a topic
    #[command(
        subcommand,
        visible_alias = "groups",
        after_help = "\
Examples:
  tidings group create orders billing --from beginning --ordered-by key
  tidings group ls
  tidings group info orders billing"
    )]
    Group(group::Verb),
    /// List, show, replay and discard what groups gave up
    #[command(
        subcommand,
        after_help = "\
Examples:
  tidings dlq ls
  tidings dlq show orders billing
  tidings dlq replay orders billing --all"
    )]
    Dlq(dlq::Verb),
    /// List and cancel messages that are to be delivered later ('pub --deliver-at')
    #[command(
        subcommand,
        after_help = "\
Examples:
  tidings later ls
  tidings later ls orders -o json
  tidings later cancel orders reminder-17"
    )]
    Later(later::Verb),
    /// Run an index server and a peer in one process
    #[command(after_help = "\
Examples:
  tidings up
  tidings up --data-dir /var/lib/tidings --listen 0.0.0.0:7401 --advertise node-7:7401")]
    Up(flags::UpFlags),
    /// Watch the main job on real data, with servers that are killed; proves that nothing was lost
    #[command(after_help = "\
Examples:
  tidings demo")]
    Demo,
    /// Publish messages: arguments, the lines of a file, or the lines of stdin
    #[command(
        name = "pub",
        visible_alias = "publish",
        after_help = "\
Examples:
  tidings pub quakes.ci 'a first message'
  tidings pub quakes.ci --create -k ci38 -H source:usgs '{\"magnitude\":4.1}'
  tidings pub quakes.ci --file earthquakes.ndjson --compress zstd
  tidings pub logs < app.log
  tidings pub quakes.ci --file all.ndjson --producer import    goes on where it stopped
  tidings pub quakes.ci --file all.ndjson --id-from json:id    what is there is not stored again
  tidings pub fleet --file gps.ndjson --key-from json:truck    the key is in each message
  tidings pub prices --key-from before:= < prices.txt          rye is the key of rye=17.20
  tidings pub orders --file order.ndjson --atomic              all of its lines, or none
  tidings pub ledger 'paid 17' --expect-end 42                 unless somebody was faster
  tidings pub orders 'remind them' --deliver-at +10m           stored now, visible then
  tidings pub offers 'half the price' --ttl 1h                 gone for every reader an hour later
  tidings pub quakes.ci ping --count 100 --rate 10/s"
    )]
    Pub(publish::Publish),
    /// Print messages as they come
    #[command(
        name = "sub",
        visible_alias = "subscribe",
        after_help = "\
Examples:
  tidings sub quakes.ci
  tidings sub quakes.ci --as map                    durable: goes on where it stopped
  tidings sub orders --group billing                each message to one member of the group
  tidings sub orders --group billing --from beginning --ordered-by key --ack-deadline 1m --backoff 1s,5s,1m
  tidings sub quakes.ci --from -10 --until-end      the last ten
  tidings sub quakes.ci --from 2h -o json
  tidings sub quakes.ci -f '%o %k %p%n'
  tidings sub 'quakes.*' -f '%t %p%n'               all that match, and those made later
  tidings sub 'orders.>' --as billing -o json       durable: one place on each topic"
    )]
    Sub(subscribe::Subscribe),
    /// Print what is new for a durable subscription, then exit
    #[command(after_help = "\
Examples:
  tidings pull quakes.ci --as billing --from beginning
  tidings pull quakes.ci --as billing -n 100 --wait 10s -o json
  tidings pull quakes.ci --as billing --no-commit")]
    Pull(subscribe::Pull),
    /// Look into data directories of stopped servers, move topics, repair damage
    #[command(
        subcommand,
        after_help = "\
Examples:
  tidings data ls data/peer
  tidings data verify data/peer
  tidings data repair data/peer --dry-run"
    )]
    Data(data::Verb),
    /// Measure a cluster, or one in a scratch directory
    #[command(
        subcommand,
        after_help = "\
Examples:
  tidings bench publish --verify
  tidings bench latency --index 127.0.0.1:7400"
    )]
    Bench(bench::Verb),
    /// Run an index server or a peer
    #[command(
        subcommand,
        after_help = "\
Examples:
  tidings serve index
  tidings serve peer --index 127.0.0.1:7400"
    )]
    Serve(Server),
    /// Print a script that completes these commands in a shell
    #[command(after_help = "\
Examples:
  tidings completions bash > /etc/bash_completion.d/tidings
  tidings completions zsh > ~/.zfunc/_tidings
  tidings completions fish > ~/.config/fish/completions/tidings.fish")]
    Completions(completions::Completions),
}

/// The servers.
#[derive(Debug, Subcommand)]
enum Server {
    /// Run an index server, which knows who hosts what
    #[command(after_help = "\
Examples:
  tidings serve index
  tidings serve index --listen 0.0.0.0:7400 --data-dir /var/lib/tidings/index --lease 20s")]
    Index(flags::IndexFlags),
    /// Run a peer, which hosts topics
    #[command(after_help = "\
Examples:
  tidings serve peer
  tidings serve peer --index 10.0.0.1:7400 --listen 0.0.0.0:7401 --advertise node-7:7401
  tidings serve peer --name peer-2 --listen 127.0.0.1:0 --data-dir data/peer-2")]
    Peer(flags::PeerFlags),
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let args = help_as_flag(std::env::args_os().collect());
    let format = format_asked_for(&args);
    match parse(args, format).and_then(run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.tell(format);
            ExitCode::from(failure.status)
        }
    }
}

/// `tidings help topic create` is what people try: the same as with `--help`.
fn help_as_flag(mut args: Vec<OsString>) -> Vec<OsString> {
    if args.get(1).is_some_and(|arg| arg == "help") {
        args.remove(1);
        args.push("--help".into());
    }
    args
}

/// The output format, found without understanding the rest: errors in the rest
/// are told in it.
fn format_asked_for(args: &[OsString]) -> Format {
    let args: Vec<_> = args.iter().filter_map(|arg| arg.to_str()).collect();
    // Short flags may stand together: `-qo json`.
    let takes_format = |arg: &str| arg == "--output" || is_short(arg) && arg.ends_with('o');
    let has_format = |arg: &str| {
        arg == "--output=json"
            || is_short(arg) && (arg.ends_with("ojson") || arg.ends_with("o=json"))
    };
    let json = args.iter().any(|arg| has_format(arg))
        || args
            .windows(2)
            .any(|pair| takes_format(pair[0]) && pair[1] == "json");
    if json { Format::Json } else { Format::Table }
}

fn is_short(arg: &str) -> bool {
    arg.starts_with('-') && !arg.starts_with("--")
}

/// The verb a line is about, as far as it is one: `tidings topic create`.
fn verb_of(args: &[OsString]) -> String {
    let mut command = Cli::command();
    let mut path = "tidings".to_owned();
    for arg in args.iter().skip(1) {
        if let Some(next) = command.find_subcommand(arg) {
            path = format!("{path} {}", next.get_name());
            command = next.clone();
        }
    }
    path
}

/// Parses the line. Help and version are printed here and end the process.
fn parse(args: Vec<OsString>, format: Format) -> Result<Cli> {
    let matches = Cli::command().try_get_matches_from(&args);
    match matches.and_then(|found| Cli::from_arg_matches(&found)) {
        Ok(cli) => Ok(cli),
        Err(error) if !error.use_stderr() => {
            // A closed pipe is all that can go wrong here, and it is no failure.
            let _ = error.print();
            std::process::exit(0);
        }
        Err(error) => {
            use clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand as Incomplete;
            if error.kind() == Incomplete && format == Format::Table {
                let _ = error.print();
                std::process::exit(2);
            }
            Err(Failure::from_line(&error, &verb_of(&args)))
        }
    }
}

impl Global {
    fn output(&self) -> Output {
        Output {
            format: self.output.unwrap_or_default(),
            quiet: self.quiet,
        }
    }

    /// Refuses flags that would do nothing at `place`.
    fn refuse(&self, place: &str, flags: &[&str]) -> Result {
        let given = [
            ("--index", !self.index.is_empty()),
            ("--peer", self.peer.is_some()),
            ("--output", self.output.is_some()),
        ];
        match given
            .iter()
            .find(|(flag, given)| *given && flags.contains(flag))
        {
            Some((flag, _)) => Err(Failure::usage(format!("{flag} does nothing at '{place}'"))),
            None => Ok(()),
        }
    }

    /// Refuses `-o name` where what is printed has no names.
    fn refuse_names(&self, place: &str) -> Result {
        match self.output {
            Some(Format::Name) => Err(Failure::usage(format!(
                "'{place}' has no names to print: -o table, json or yaml"
            ))),
            _ => Ok(()),
        }
    }

    /// Logging of a client: none unless asked for, because stderr is for notes and errors.
    fn log_as_client(&self) -> Result {
        match &self.log {
            Some(level) => log::start(level, self.log_format.as_deref().unwrap_or("text")),
            None => Ok(()),
        }
    }

    /// Logging of a server.
    fn log_as_server(&self, file: &config::File) -> Result {
        let level = self.log.as_ref().or(file.log.as_ref());
        let format = self.log_format.as_ref().or(file.log_format.as_ref());
        log::start(
            level.map_or("info", |level| level),
            format.map_or("text", |format| format),
        )
    }
}

/// What a verb that talks to a cluster works with.
#[derive(Debug)]
pub struct Context {
    output: Output,
    client: Client,
}

/// A person who waits wants to know for what: so long without an answer is told.
const STALL_TOLD_AFTER: Duration = Duration::from_secs(3);

/// How long a verb waits for a first connection, if it does.
type Patience = Option<Duration>;

impl Context {
    /// The same, going on for a while when nobody answers: a script that starts servers and then
    /// publishes need not know when they are ready.
    async fn connect_within(
        global: &Global,
        addresses: Vec<Address>,
        patience: Duration,
    ) -> Result<Self> {
        let output = global.output();
        let options = ConnectOptions::new(addresses);
        let waiting = |error: &ClientError| note_waiting(&output, error, patience);
        let client = Client::connect_within(options, patience, waiting).await;
        let client = client.map_err(Failure::no_way_in)?;
        Ok(Self { output, client })
    }

    async fn connect(global: &Global, addresses: Vec<Address>) -> Result<Self> {
        Ok(Self {
            output: global.output(),
            client: Client::connect(ConnectOptions::new(addresses))
                .await
                .map_err(Failure::no_way_in)?,
        })
    }
}

fn note_waiting(output: &Output, error: &ClientError, patience: Duration) {
    let patience = output::duration(patience);
    output.note(format!(
        "{error}: trying for up to {patience}, Ctrl-C gives up"
    ));
    if let Some(hint) = Failure::no_way_in(error.clone()).hint {
        output.note(format!("hint: {hint}"));
    }
}

fn run(cli: Cli) -> Result {
    let global = cli.global;
    match cli.command {
        Command::Completions(args) => {
            global.refuse("tidings completions", &["--index", "--peer", "--output"])?;
            completions::run(&args, &global.output())
        }
        Command::Topic(topic::Verb::Options) => {
            global.refuse("tidings topic options", &["--index", "--peer"])?;
            topic::options(&global.output())
        }
        Command::Serve(Server::Index(flags)) => {
            let useless = ["--index", "--peer", "--output"];
            global.refuse("tidings serve index", &useless)?;
            let file = config::File::load(global.config.as_deref())?;
            global.log_as_server(&file)?;
            on_runtime(serve::index(flags.over(file.serve.index)))
        }
        Command::Serve(Server::Peer(flags)) => {
            global.refuse("tidings serve peer", &["--peer", "--output"])?;
            let file = config::File::load(global.config.as_deref())?;
            let indexes = file.indexes(&global.index)?;
            global.log_as_server(&file)?;
            on_runtime(serve::peer(flags.over(file.serve.peer), indexes))
        }
        Command::Up(flags) => {
            global.refuse("tidings up", &["--index", "--peer", "--output"])?;
            let file = config::File::load(global.config.as_deref())?;
            global.log_as_server(&file)?;
            on_runtime(serve::up(flags.over(file.up)))
        }
        Command::Demo => {
            global.refuse("tidings demo", &["--index", "--peer", "--output"])?;
            global.log_as_client()?;
            on_runtime(demo())
        }
        Command::Data(verb) => {
            global.log_as_client()?;
            data::run(verb, &global)
        }
        Command::Bench(verb) => bench(verb, &global),
        Command::Pub(args) => {
            let patience = Some(args.timeout);
            at_cluster(&global, patience, async |c| publish::run(args, c).await)
        }
        Command::Sub(args) => {
            let patience = Some(args.timeout);
            at_cluster(&global, patience, async |c| subscribe::sub(args, c).await)
        }
        Command::Pull(args) => at_cluster(&global, None, async |c| subscribe::pull(args, c).await),
        Command::Topic(verb) => at_cluster(&global, None, async |c| topic::run(verb, c).await),
        Command::Peer(verb) => at_cluster(&global, None, async |c| peer::run(verb, c).await),
        Command::Subscription(verb) => {
            at_cluster(&global, None, async |c| subscription::run(verb, c).await)
        }
        Command::Group(verb) => at_cluster(&global, None, async |c| group::run(verb, c).await),
        Command::Dlq(verb) => at_cluster(&global, None, async |c| dlq::run(verb, c).await),
        Command::Later(verb) => at_cluster(&global, None, async |c| later::run(verb, c).await),
    }
}

/// Runs a verb that talks to a cluster.
fn at_cluster(
    global: &Global,
    patience: Patience,
    verb: impl AsyncFnOnce(&Context) -> Result,
) -> Result {
    let file = config::File::load(global.config.as_deref())?;
    let entry = file.entry(&global.index, global.peer.as_ref())?;
    global.log_as_client()?;
    on_runtime(async {
        let addresses = entry.addresses();
        let context = match patience {
            Some(patience) => Context::connect_within(global, addresses, patience).await?,
            None => Context::connect(global, addresses).await?,
        };
        verb(&context).await
    })
}

/// Runs the demo; a signal ends its servers with it.
async fn demo() -> Result {
    let stop = signals::listen()?;
    tokio::select! {
        biased;
        () = stop.cancelled() => Err(Failure::interrupted("interrupted")),
        proved = crate::demo::run() => match proved {
            Ok(true) => Ok(()),
            Ok(false) => Err(Failure::check("something was lost, doubled or out of order")),
            // Nobody reads the story any more: that ends it, and is no failure.
            Err(error) if crate::demo::is_closed_pipe(&error) => Ok(()),
            Err(error) => Err(Failure::server(format!("{error:#}"))),
        },
    }
}

/// Measures the cluster that is named, or one of its own.
fn bench(verb: bench::Verb, global: &Global) -> Result {
    global.refuse_names("tidings bench")?;
    let file = config::File::load(global.config.as_deref())?;
    let entry = file.entry_named(&global.index, global.peer.as_ref())?;
    global.log_as_client()?;
    on_runtime(async {
        if let Some(entry) = entry {
            let context = Context::connect(global, entry.addresses()).await?;
            return bench::run(verb, &context).await;
        }
        let output = global.output();
        output.note("starting a cluster in a scratch directory");
        let scratch = bench::Scratch::start().await?;
        let context = Context::connect(global, vec![scratch.index.clone()]).await?;
        let measured = bench::run(verb, &context).await;
        measured.and(scratch.stop().await)
    })
}

fn on_runtime(work: impl Future<Output = Result>) -> Result {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::server(format!("threads cannot be started: {error}")))?;
    let result = runtime.block_on(work);
    // A name being resolved, say, must not keep a finished command from ending.
    runtime.shutdown_background();
    result
}
