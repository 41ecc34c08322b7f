//! Two topics of one name: a peer comes back after its topic's name was taken.

use std::process::Child;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use tidings::client::{Client, ConnectOptions};

use crate::support::{Ran, Up, command, ready, run_with, signal};

/// An index and peers as processes of their own.
struct Cluster {
    dir: TempDir,
    index: String,
    children: Vec<(String, Child)>,
}

impl Cluster {
    fn start() -> Self {
        let dir = TempDir::new().expect("a scratch directory");
        let mut index = command(dir.path());
        index.args(["serve", "index", "--listen", "127.0.0.1:0"]);
        index.args(["--data-dir", "index", "--lease", "1s", "--log", "error"]);
        let (child, lines) = ready(index, 1);
        let address = lines[0].rsplit(' ').next().expect("an address").to_owned();
        let children = vec![("index".to_owned(), child)];
        Self {
            dir,
            index: address,
            children,
        }
    }

    fn log(&self, name: &str) -> String {
        std::fs::read_to_string(self.dir.path().join(format!("{name}.log"))).unwrap_or_default()
    }

    fn start_peer(&mut self, name: &str) {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.dir.path().join(format!("{name}.log")))
            .expect("writable");
        let mut peer = command(self.dir.path());
        peer.args(["serve", "peer", "--name", name, "--listen", "127.0.0.1:0"]);
        peer.args(["--index", &self.index, "--data-dir", name]);
        peer.args(["--heartbeat", "100ms", "--slot-size", "4MiB"]);
        peer.stderr(log);
        let (child, _) = ready(peer, 1);
        self.children.push((name.to_owned(), child));
        self.eventually("the peer is online", || {
            self.run(&["peer", "info", name, "-o", "json"])
                .status
                .eq(&0)
                && self.peer(name)["state"] == "online"
        });
    }

    fn stop(&mut self, name: &str) {
        let at = self.children.iter().position(|(of, _)| of == name);
        let (_, mut child) = self.children.remove(at.expect("it was started"));
        signal(&child, Signal::TERM);
        assert!(child.wait().expect("it ends").success(), "{name}");
    }

    fn run(&self, args: &[&str]) -> Ran {
        self.feed(args, b"")
    }

    fn feed(&self, args: &[&str], input: &[u8]) -> Ran {
        let mut command = command(self.dir.path());
        command.args(args).env("TIDINGS_INDEX", &self.index);
        run_with(command, input)
    }

    fn peer(&self, name: &str) -> Value {
        self.run(&["peer", "info", name, "-o", "json"]).json()
    }

    fn eventually(&self, what: &str, mut condition: impl FnMut() -> bool) {
        let began = Instant::now();
        while !condition() {
            assert!(began.elapsed() < Duration::from_secs(20), "{what}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn read(&self, topic: &str) -> String {
        self.run(&["sub", topic, "--from", "beginning", "--until-end"])
            .ok()
    }

    /// `quakes.ci` on both: it was alder's, alder was retired, and birch made another.
    fn in_conflict() -> Self {
        let mut cluster = Self::start();
        cluster.start_peer("alder");
        cluster
            .run(&["topic", "create", "quakes.ci", "--on", "alder"])
            .ok();
        cluster.feed(&["pub", "quakes.ci"], b"old\n").ok();
        cluster.stop("alder");
        cluster.run(&["peer", "retire", "alder", "--force"]).ok();
        cluster.start_peer("birch");
        cluster
            .run(&["topic", "create", "quakes.ci", "--on", "birch"])
            .ok();
        cluster.feed(&["pub", "quakes.ci"], b"new\n").ok();
        cluster.start_peer("alder");
        cluster
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for (_, child) in &mut self.children {
            // It may have ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[test]
fn a_conflict_is_told_by_both_sides_and_ended_by_renaming() {
    let cluster = Cluster::in_conflict();
    for peer in ["alder", "birch"] {
        assert_eq!(
            cluster.peer(peer)["conflicts"],
            json!(["quakes.ci"]),
            "{peer}"
        );
    }
    let text = cluster.run(&["peer", "info", "alder"]).ok();
    assert!(
        text.contains(
            "quakes.ci belongs to a topic on birch: 'tidings topic rename quakes.ci NEW --on alder'"
        ),
        "{text}"
    );
    let text = cluster.run(&["peer", "info", "birch"]).ok();
    assert!(
        text.contains("quakes.ci is here, and another peer"),
        "{text}"
    );
    assert!(
        cluster.log("alder").contains("belongs to another topic"),
        "{}",
        cluster.log("alder")
    );
    // Both are listed; the name leads to one of them, through any node.
    let listed = cluster.run(&["topic", "ls"]);
    assert!(listed.stderr.contains("--on alder"), "{listed:?}");
    let table = listed.ok();
    assert_eq!(table.matches("quakes.ci ").count(), 2, "{table}");
    assert_eq!(table.matches(" conflict ").count(), 1, "{table}");
    let address = |peer: &str| cluster.peer(peer)["address"].as_str().map(str::to_owned);
    for peer in ["alder", "birch"] {
        let mut info = command(cluster.dir.path());
        info.args(["topic", "info", "quakes.ci", "-o", "json", "--peer"])
            .arg(address(peer).expect("an address"));
        assert_eq!(
            run_with(info, b"").json()["peer"],
            "birch",
            "through {peer}"
        );
    }
    assert_eq!(cluster.read("quakes.ci"), "new\n");

    let on_alder = cluster.run(&["topic", "info", "quakes.ci", "--on", "alder", "-o", "json"]);
    let on_alder = on_alder.json();
    assert_eq!(
        (&on_alder["peer"], &on_alder["conflict"]),
        (&json!("alder"), &json!(true))
    );
    let absent = cluster.run(&["topic", "info", "quakes.nc", "--on", "alder", "-o", "json"]);
    assert_eq!(absent.json_error()["name"], "TopicNotFound");

    let taken = ["topic", "rename", "quakes.ci", "quakes.ci", "--on", "alder"];
    assert_ne!(cluster.run(&taken).status, 0, "a name that is not free");
    let rename = [
        "topic",
        "rename",
        "quakes.ci",
        "quakes.old",
        "--on",
        "alder",
    ];
    let renamed = cluster.run(&rename);
    assert!(
        renamed.stderr.contains("renamed quakes.ci to quakes.old"),
        "{renamed:?}"
    );
    renamed.ok();

    // Both can be used, at once and by their names alone.
    cluster.feed(&["pub", "quakes.old"], b"more\n").ok();
    cluster.feed(&["pub", "quakes.ci"], b"more\n").ok();
    assert_eq!(cluster.read("quakes.old"), "old\nmore\n");
    assert_eq!(cluster.read("quakes.ci"), "new\nmore\n");
    for peer in ["alder", "birch"] {
        assert_eq!(cluster.peer(peer)["conflicts"], json!([]), "{peer}");
    }
    assert!(
        cluster.log("alder").contains("is over"),
        "{}",
        cluster.log("alder")
    );
}

#[test]
fn the_name_goes_back_when_its_holder_drops_it() {
    let cluster = Cluster::in_conflict();
    assert_eq!(cluster.peer("alder")["conflicts"], json!(["quakes.ci"]));
    cluster
        .run(&["topic", "rm", "quakes.ci", "--on", "birch", "--force"])
        .ok();
    cluster.eventually("the name is alder's again", || {
        let info = cluster.run(&["topic", "info", "quakes.ci", "-o", "json"]);
        info.status == 0 && info.json()["peer"] == "alder"
    });
    cluster.feed(&["pub", "quakes.ci"], b"more\n").ok();
    assert_eq!(cluster.read("quakes.ci"), "old\nmore\n");
}

/// Whoever was asked about a topic deletes that one, and not one that got its name meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_was_made_anew_is_not_deleted_for_the_old_one() {
    let up = Up::start();
    let id = || up.run(&["topic", "info", "t", "-o", "json"]).json()["id"].clone();
    up.run(&["topic", "create", "t"]).ok();
    let old = id();
    up.run(&["topic", "rm", "t", "--force"]).ok();
    up.run(&["topic", "create", "t"]).ok();
    let new = id();
    let options = ConnectOptions::new(vec![up.index.parse().expect("an address")]);
    let client = Client::connect(options).await.expect("it runs");
    let (topic, of) = ("t".parse().expect("good"), |id: &Value| {
        id.as_str().and_then(|id| id.parse().ok()).expect("an id")
    });
    let error = client.delete_topic_of(&topic, of(&old)).await;
    let error = error.expect_err("it is gone");
    assert!(
        ["TopicNotFound", "UnknownTopicId"].contains(&error.name()),
        "{error}"
    );
    assert_eq!(id(), new);
    client
        .delete_topic_of(&topic, of(&new))
        .await
        .expect("it is that one");
    up.run(&["topic", "info", "t"]).fails(1);
    up.stop();
}
