//! The index server loses its directory while messages flow.

use std::time::{Duration, Instant};

use tidings::client::{Client, ConnectOptions};
use tidings::limits;
use tidings::types::Address;

use crate::cluster::{Cluster, Steady};

/// What a busy machine adds to a time.
const NOISE: Duration = Duration::from_millis(1500);

/// How long after `since` a lookup by a client that knows nothing yet succeeds.
fn found_after(index: &str, topic: &str, since: Instant) -> Duration {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let index: Address = index.parse().expect("an address");
    let topic = topic.parse().expect("a name");
    runtime.block_on(async {
        loop {
            let options = ConnectOptions::new(vec![index.clone()]);
            let client = Client::connect(options).await.expect("the index is there");
            if client.lookup(&topic).await.is_ok() {
                return since.elapsed();
            }
            assert!(since.elapsed() < Duration::from_secs(20), "never found");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
}

#[test]
fn an_index_that_loses_its_directory_is_missed_by_nobody_who_knows_the_way() {
    let mut cluster = Cluster::start();
    let topics = ["topic", "create", "one", "two", "idle"];
    cluster.run(&topics).ok();
    let index = cluster.index.address.clone();
    let publishing = [Steady::start(&index, "one"), Steady::start(&index, "two")];

    cluster.index.kill();
    std::fs::remove_dir_all(cluster.dir.path().join("index")).expect("removed");
    // A while without any index, longer than a heartbeat.
    std::thread::sleep(limits::HEARTBEAT_EVERY_DEFAULT + Duration::from_millis(500));
    cluster.restart_index();
    let ready = Instant::now();
    let found = ["one", "two", "idle"].map(|topic| found_after(&index, topic, ready));
    // Made anew, at once: whoever may host it is known again as well.
    cluster.run(&["topic", "create", "three"]).ok();
    let created = ready.elapsed();
    let again = cluster.run(&["topic", "create", "one", "-o", "json"]);
    assert_eq!(again.json_error()["name"], "TopicExists");

    let reports = publishing.map(Steady::stop);
    println!("found after {found:?}, created after {created:?}, meanwhile {reports:?}");
    let heartbeat = limits::HEARTBEAT_EVERY_DEFAULT + NOISE;
    assert!(found.iter().all(|after| *after < heartbeat), "{found:?}");
    assert!(created < heartbeat + NOISE, "{created:?}");
    for report in reports {
        assert!(report.slowest < NOISE, "{report:?}");
    }
    let listed = cluster.run(&["topic", "ls", "-o", "name"]).ok();
    assert_eq!(listed, "idle\none\nthree\ntwo\n");
}
