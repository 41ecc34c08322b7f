//! An index and a peer as processes of their own, and somebody who uses them all the while.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tempfile::TempDir;
use tidings::client::{
    Client, ConnectOptions, Delivery, Message, Publisher, Subscriber, SubscriberOptions,
};
use tidings::protocol::api::Position;

use crate::support::{Ran, command, ready, run_with, signal};

/// A server in a process of its own.
#[derive(Debug)]
pub struct Server {
    child: Child,
    /// Where it accepts connections.
    pub address: String,
}

impl Server {
    /// Starts it and waits for its ready line.
    pub fn start(command: Command) -> Self {
        let (child, lines) = ready(command, 1);
        let address = lines[0].rsplit(' ').next().expect("an address").to_owned();
        Self { child, address }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The memory it holds, in MiB.
    pub fn rss_mib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()));
        let status = status.expect("it runs");
        let line = status.lines().find(|line| line.starts_with("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
        kib.expect("a number of kB") / 1024
    }

    /// Ends it at once.
    pub fn kill(&mut self) {
        signal(&self.child, Signal::KILL);
        self.child.wait().expect("it ends");
    }

    /// Ends it as Ctrl-C would, and insists that it ends well.
    pub fn stop(&mut self) {
        signal(&self.child, Signal::TERM);
        let status = self.child.wait().expect("it ends");
        assert!(status.success(), "{status}");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An index and a peer with small files, in a directory that is thrown away.
#[derive(Debug)]
pub struct Cluster {
    /// Holds `index`, `peer` and their logs.
    pub dir: TempDir,
    /// The index server.
    pub index: Server,
    /// The peer.
    pub peer: Server,
}

impl Cluster {
    /// Starts both.
    pub fn start() -> Self {
        Self::start_on(TempDir::new().expect("a scratch directory"))
    }

    /// Starts both on what is in that directory.
    pub fn start_on(dir: TempDir) -> Self {
        let index = Server::start(index_command(dir.path(), "127.0.0.1:0"));
        let peer = Server::start(peer_command(dir.path(), &index.address));
        Self { dir, index, peer }
    }

    /// Starts the index again, where it was before.
    pub fn restart_index(&mut self) {
        let address = self.index.address.clone();
        self.index = Server::start(index_command(self.dir.path(), &address));
    }

    /// Starts the peer again on its directory.
    pub fn restart_peer(&mut self) {
        self.peer = Server::start(peer_command(self.dir.path(), &self.index.address));
    }

    /// Runs a command that goes in through the index.
    pub fn run(&self, args: &[&str]) -> Ran {
        self.feed(args, b"")
    }

    /// The same with that on stdin.
    pub fn feed(&self, args: &[&str], input: &[u8]) -> Ran {
        run_with(self.command(args), input)
    }

    /// A command that goes in through the index.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = command(self.dir.path());
        command.args(args).env("TIDINGS_INDEX", &self.index.address);
        command
    }

    /// What a server has logged: that of the index, or of the peer.
    pub fn log(&self, name: &str) -> String {
        std::fs::read_to_string(self.dir.path().join(format!("{name}.log"))).unwrap_or_default()
    }
}

/// `tidings serve index` in the directory `index`.
fn index_command(dir: &Path, listen: &str) -> Command {
    let mut serve = command(dir);
    serve.args(["serve", "index", "--data-dir", "index", "--log", "warn"]);
    serve.args(["--listen", listen]).stderr(log(dir, "index"));
    serve
}

/// `tidings serve peer` in the directory `peer`.
pub fn peer_command(dir: &Path, index: &str) -> Command {
    let mut serve = command(dir);
    serve.args(["serve", "peer", "--data-dir", "peer", "--log", "warn"]);
    serve.args(["--listen", "127.0.0.1:0", "--index", index]);
    serve.args(["--slot-size", "4MiB"]).stderr(log(dir, "peer"));
    serve
}

fn log(dir: &Path, name: &str) -> File {
    let path = dir.join(format!("{name}.log"));
    let file = File::options().create(true).append(true).open(path);
    file.expect("writable")
}

/// A publisher and a subscriber that behave, until they are stopped.
#[derive(Debug)]
pub struct Steady {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Report>,
}

/// What they have seen.
#[derive(Debug)]
pub struct Report {
    /// Messages published, acknowledged and received, each once and in order.
    pub messages: u64,
    /// The longest time from handing a message over to receiving it.
    pub slowest: Duration,
}

impl Steady {
    /// Begins on a topic that is there and empty; returns after the first message has gone through.
    pub fn start(index: &str, topic: &str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (begun, first) = std::sync::mpsc::channel();
        let (index, topic) = (index.to_owned(), topic.to_owned());
        let stopping = stop.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(async move {
                let (publisher, mut subscriber) = connect(&index, &topic).await;
                let (mut messages, mut slowest) = (0, Duration::ZERO);
                while !stopping.load(Ordering::Relaxed) {
                    slowest = slowest.max(through(messages, &publisher, &mut subscriber).await);
                    messages += 1;
                    // Whoever waits may have given up.
                    let _ = begun.send(());
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                publisher
                    .close()
                    .await
                    .expect("everything was acknowledged");
                Report { messages, slowest }
            })
        });
        first.recv().expect("a first message goes through");
        Self { stop, thread }
    }

    /// Ends them and insists that nothing went wrong.
    pub fn stop(self) -> Report {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("nothing went wrong")
    }
}

async fn connect(index: &str, topic: &str) -> (Publisher, Subscriber) {
    let index = index.parse().expect("an address");
    let topic = topic.parse().expect("a topic name");
    let client = Client::connect(ConnectOptions::new(vec![index])).await;
    let client = client.expect("the index is there");
    let publisher = client.publisher(&topic, Default::default()).await;
    let from = SubscriberOptions::passing(Position::Beginning);
    let subscriber = client.subscriber(&topic, from).await;
    (
        publisher.expect("the topic is there"),
        subscriber.expect("the topic is there"),
    )
}

/// Publishes the n-th message and receives it; how long that took.
async fn through(n: u64, publisher: &Publisher, subscriber: &mut Subscriber) -> Duration {
    let began = Instant::now();
    let payload = format!("steady message {n}");
    let sent = publisher.send(Message::new(payload.clone())).await;
    let acked = sent.expect("it is taken").await.expect("it is stored");
    assert_eq!(acked.offset.get(), n);
    match subscriber.next().await.expect("it is readable") {
        Delivery::Record(record) => {
            assert_eq!(record.offset.get(), n);
            assert_eq!(record.value, payload.as_bytes());
        }
        gap => panic!("{gap:?}"),
    }
    began.elapsed()
}
