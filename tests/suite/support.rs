//! Running the program.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

/// What a command did.
#[derive(Debug)]
pub struct Ran {
    /// Its exit status.
    pub status: i32,
    /// What it printed on stdout.
    pub stdout: String,
    /// What it printed on stderr.
    pub stderr: String,
}

impl Ran {
    /// Insists on status 0 and returns stdout.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.status, 0, "it failed: {self:?}");
        self.stdout
    }

    /// Insists on that status and returns stderr.
    #[track_caller]
    pub fn fails(self, status: i32) -> String {
        assert_eq!(self.status, status, "{self:?}");
        self.stderr
    }

    /// Stdout as one JSON document.
    #[track_caller]
    pub fn json(self) -> Value {
        let text = self.ok();
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e} in {text}"))
    }

    /// The error object on stderr, which must be all there is.
    #[track_caller]
    pub fn json_error(self) -> Value {
        assert_ne!(self.status, 0, "{self:?}");
        let value: Value =
            serde_json::from_str(&self.stderr).unwrap_or_else(|e| panic!("{e} in {self:?}"));
        value["error"].clone()
    }
}

/// The program in a directory of its own, with nothing of ours in its environment.
pub fn command(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidings"));
    command.current_dir(dir).stdin(Stdio::null());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("TIDINGS_") {
            command.env_remove(name);
        }
    }
    command
}

/// Runs a prepared command with that input.
pub fn run_with(mut command: Command, input: &[u8]) -> Ran {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut stdin = child.stdin.take().expect("it is piped");
    let input = input.to_vec();
    // It may end without reading everything, which is its right.
    let feeder = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().expect("it ends");
    let _ = feeder.join().expect("feeding does not panic");
    Ran {
        status: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Runs the program in an empty directory.
pub fn tidings(args: &[&str]) -> Ran {
    let dir = TempDir::new().expect("a scratch directory");
    let mut command = command(dir.path());
    command.args(args);
    run_with(command, b"")
}

/// An index and a peer in one process, in a directory that is thrown away.
#[derive(Debug)]
pub struct Up {
    /// Address of the index.
    pub index: String,
    /// Name of the peer.
    pub peer_name: String,
    /// Address of the peer.
    pub peer: String,
    /// Where everything is stored.
    pub dir: TempDir,
    child: Child,
}

impl Up {
    /// Starts it and waits until both accept connections.
    pub fn start() -> Self {
        let dir = TempDir::new().expect("a scratch directory");
        let mut command = command(dir.path());
        command.args([
            "up",
            "--listen",
            "127.0.0.1:0",
            "--index-listen",
            "127.0.0.1:0",
        ]);
        command.args(["--log", "warn"]);
        let (child, lines) = ready(command, 2);
        let of = |kind: &str| {
            let line = lines.iter().find(|line| line.starts_with(kind));
            let line = line.unwrap_or_else(|| panic!("no '{kind}' in {lines:?}"));
            line.split(' ').map(str::to_owned).collect::<Vec<_>>()
        };
        let (index, peer) = (of("ready index "), of("ready peer "));
        Self {
            index: index[2].clone(),
            peer_name: peer[2].clone(),
            peer: peer[3].clone(),
            dir,
            child,
        }
    }

    /// A command that goes in through the index.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = command(self.dir.path());
        command.args(args).env("TIDINGS_INDEX", &self.index);
        command
    }

    /// Runs a command that goes in through the index.
    pub fn run(&self, args: &[&str]) -> Ran {
        run_with(self.command(args), b"")
    }

    /// The same with that on stdin.
    pub fn feed(&self, args: &[&str], input: &[u8]) -> Ran {
        run_with(self.command(args), input)
    }

    /// Ends it as Ctrl-C would, and insists that it ends well.
    pub fn stop(self) {
        self.stop_with(|| {});
    }

    /// The same, and then something while its directory is still there.
    pub fn stop_with(mut self, then: impl FnOnce()) {
        signal(&self.child, Signal::TERM);
        let status = self.child.wait().expect("it ends");
        assert!(status.success(), "{status}");
        then();
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts a server and reads its first lines on stdout, which must be `ready` lines.
pub fn ready(mut command: Command, lines: usize) -> (Child, Vec<String>) {
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let stdout = child.stdout.take().expect("it is piped");
    let found: Vec<String> = BufReader::new(stdout)
        .lines()
        .take(lines)
        .map(|line| line.expect("text"))
        .collect();
    assert_eq!(found.len(), lines, "it ended early: {:?}", child.wait());
    (child, found)
}

/// Sends a signal to a child that has not been waited for.
pub fn signal(child: &Child, signal: Signal) {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    kill_process(pid.expect("a process id"), signal).expect("it is there");
}

/// A port of the loopback interface at which nobody listens, and which nobody else is given meanwhile: it is
/// bound and no more.
pub struct Reserved {
    address: SocketAddrV4,
    _held: rustix::fd::OwnedFd,
}

impl Reserved {
    /// Any port.
    pub fn new() -> Self {
        use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, getsockname, socket_with};
        let any = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0);
        // Not for the processes that other tests start meanwhile.
        let flags = SocketFlags::CLOEXEC;
        let held = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None);
        let held = held.expect("a socket");
        bind(&held, &any).expect("a port");
        let address = getsockname(&held).expect("it is bound");
        let address = SocketAddrV4::try_from(address).expect("it was made as such");
        let _held = held;
        Self { address, _held }
    }

    /// Where nobody listens.
    pub fn address(&self) -> String {
        self.address.to_string()
    }
}
