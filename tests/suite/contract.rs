//! The names of JSON fields are a contract: here it stands, word for word.
//!
//! A field may be added (and is added here then); one that goes or changes its
//! name breaks somebody's script.

use serde_json::Value;
use tempfile::TempDir;

use tidings::protocol::dead::NAMES;

use crate::groups::bury;
use crate::support::{Up, command, run_with};

/// Names of the fields, in order, those of inner objects behind a dot.
fn fields(value: &Value) -> Vec<String> {
    fn walk(value: &Value, path: &str, found: &mut Vec<String>) {
        match value {
            Value::Object(fields) => {
                for (name, value) in fields {
                    let path = format!("{path}{name}");
                    found.push(path.clone());
                    walk(value, &format!("{path}."), found);
                }
            }
            Value::Array(items) => {
                if let Some(first) = items.first() {
                    walk(first, path, found);
                }
            }
            _ => {}
        }
    }
    let mut found = Vec::new();
    walk(value, "", &mut found);
    found.sort();
    found
}

#[track_caller]
fn assert_fields(value: &Value, expected: &str) {
    let mut expected: Vec<&str> = expected.split_whitespace().collect();
    expected.sort_unstable();
    assert_eq!(fields(value), expected, "{value}");
}

const TOPIC: &str = "name id peer address epoch state since start_offset end_offset \
    durable_end_offset records bytes durability retention retention.age_ms retention.bytes \
    retention.records retention.interest when_full remember_ids remember_ids.for_ms \
    remember_ids.max compaction compaction.on compaction.tombstone_age_ms removed \
    compacted_offset purges created last_append subscriptions quarantined conflict gaps";
const SUBSCRIPTION: &str = "topic name committed_offset start_offset end_offset lag_records \
    lag_seconds generation created last_commit paused expire_ms expires_in_ms readers";
const GROUP: &str = "topic name generation options options.ack_deadline_ms options.max_deliveries \
    options.backoff_ms options.max_unacked options.ordered_by options.dead_letters created start_offset \
    end_offset floor unsettled in_flight failed dying lag_seconds acknowledged dead skipped last_settled stuck \
    members";
const PEER: &str = "name id address state since topics conflicts load load.topics \
    load.stored_bytes load.bytes_in_per_second load.bytes_out_per_second load.connections \
    load.disk_free_bytes";
const PROCESS: &str = "process process.version process.started process.rss_bytes process.cpu_ms \
    process.payload_bytes process.disk_written_bytes process.segments process.journal_bytes \
    process.index_reachable process.damage";

fn cluster() -> Up {
    let up = Up::start();
    up.run(&["topic", "create", "t", "-q"]).ok();
    up.feed(&["pub", "t", "-q"], b"one\ntwo\n").ok();
    up.run(&["pull", "t", "--as", "s", "--from", "beginning", "-n", "1"])
        .ok();
    up
}

#[test]
fn what_a_cluster_tells() {
    let up = cluster();
    let json = |args: &[&str]| up.run(&[args, &["-o", "json"]].concat()).json();
    assert_fields(&json(&["topic", "info", "t"]), TOPIC);
    for list in [
        &["topic", "ls"][..],
        &["topic", "create", "u"],
        &["topic", "rm", "u"],
    ] {
        assert_fields(&json(list), TOPIC);
    }
    for one in [
        &["topic", "set", "t", "durability=os"][..],
        &["topic", "rename", "t", "v"],
        &["topic", "rename", "v", "t"],
        &["topic", "purge", "t", "--before", "0"],
    ] {
        assert_fields(&json(one), TOPIC);
    }
    assert_fields(&json(&["topic", "options"]), "name default values meaning");
    for verb in [
        &["subscription", "info", "t", "s"][..],
        &["subscription", "ls"],
        &["subscription", "create", "t", "--as", "r"],
        &["subscription", "seek", "t", "r", "--to", "0"],
        &["subscription", "undo", "t", "r"],
        &["subscription", "pause", "t", "r"],
        &["subscription", "resume", "t", "r"],
        &["subscription", "set", "t", "r", "expire=1h"],
        &["subscription", "rm", "t", "r"],
    ] {
        assert_fields(&json(verb), SUBSCRIPTION);
    }
    let dry = json(&["subscription", "seek", "t", "s", "--to", "0", "--dry-run"]);
    assert_fields(&dry, "topic name from to dry_run");
    up.run(&["subscription", "seek", "t", "s", "--to", "0"])
        .ok();
    let change = "when change from to generation client address";
    let history = json(&["subscription", "history", "t", "s"]);
    assert_fields(&history, change);
    let dry = json(&["subscription", "undo", "t", "s", "--dry-run"]);
    let undoes = change.split(' ').map(|field| format!("undoes.{field}"));
    let undoes: Vec<_> = undoes.collect();
    assert_fields(
        &dry,
        &format!("topic name from to undoes {} dry_run", undoes.join(" ")),
    );
    up.run(&["subscription", "undo", "t", "s"]).ok();
    for verb in [
        &["group", "create", "t", "g"][..],
        &["group", "info", "t", "g"],
        &["group", "ls"],
        &["group", "set", "t", "g", "--max-unacked", "9"],
        &["group", "seek", "t", "g", "--to", "0"],
    ] {
        assert_fields(&json(verb), GROUP);
    }
    let dry = json(&["group", "seek", "t", "g", "--to", "0", "--dry-run"]);
    assert_fields(&dry, "topic name from to dry_run");
    let given = json(&["sub", "t", "--group", "g", "-n", "1", "-q"]);
    assert_fields(
        &given,
        "topic offset timestamp key headers payload delivery",
    );
    for (verb, done) in [("replay", "replayed"), ("drop", "dropped")] {
        let told = json(&["dlq", verb, "t", "g", "--all"]);
        assert_fields(&told, &format!("topic group dead_letters {done} left"));
    }
    bury(&up, "e", 1);
    assert_fields(
        &json(&["dlq", "ls"]),
        "topic group dead_letters messages since",
    );
    let shown = json(&["dlq", "show", "e", "g"]);
    let headers = NAMES.map(|name| format!("headers.{name}")).join(" ");
    assert_fields(
        &shown,
        &format!(
            "topic offset timestamp key headers {headers} payload died reason deliveries \
             origin_topic origin_offset group"
        ),
    );
    assert_fields(&json(&["group", "rm", "t", "g"]), GROUP);
    assert_fields(&json(&["peer", "ls"]), PEER);
    let info = json(&["peer", "info", &up.peer_name]);
    assert_fields(&info, &format!("{PEER} {PROCESS}"));

    let published = json(&["pub", "t", "three"]);
    assert_fields(
        &published,
        "topic records duplicates first_offset end_offset durability",
    );
    for read in [
        &["sub", "t", "--from", "-1", "--until-end"][..],
        &["pull", "t", "--as", "s", "-n", "1"],
    ] {
        assert_fields(&json(read), "topic offset timestamp key headers payload");
    }
    up.feed(&["pub", "t", "--whole", "-q"], &[0xff]).ok();
    let binary = json(&["sub", "t", "--from", "-1", "--until-end"]);
    assert_fields(&binary, "topic offset timestamp key headers payload_base64");
    let measured = json(&["bench", "publish", "--duration", "100ms"]);
    assert_fields(
        &measured,
        "records_per_second bytes_per_second latency_us latency_us.p50 latency_us.p99 \
         latency_us.p999 latency_us.max records acknowledged lost duplicated out_of_order server \
         server.rss_bytes_max server.cpu_seconds server.disk_bytes_per_payload_byte server.syncs \
         server.sync_us_mean server.sync_us_p50 server.sync_us_p99",
    );
    let error = up
        .run(&["topic", "info", "nothing", "-o", "json"])
        .json_error();
    assert_fields(&error, "code name message retryable hint");
    assert_eq!(error["code"], 20);
}

#[test]
fn what_a_directory_tells() {
    let up = cluster();
    up.run(&["group", "create", "t", "g", "-q"]).ok();
    let kept = TempDir::new().expect("a scratch directory");
    let data = up.dir.path().join("data");
    up.stop_with(|| std::fs::rename(&data, kept.path().join("data")).expect("moved"));
    let json = |args: &[&str]| {
        let mut command = command(kept.path());
        command.arg("data").args(args).args(["-o", "json"]);
        run_with(command, b"").json()
    };
    let segment = "slot segment kind use contents_bytes groups damaged";
    let inner = |of: &str, names: &str| -> String {
        let names = names.split_whitespace();
        names.map(|name| format!(" {of}.{name}")).collect()
    };
    let topic = "name id epoch start_offset end_offset records bytes durability retention \
        retention.age_ms retention.bytes retention.records retention.interest when_full created \
        last_append subscriptions quarantined gaps";
    let subscription = "topic name committed_offset end_offset lag_records generation created \
        last_commit paused expire_ms history history.when history.change history.from history.to \
        history.generation history.client history.address";
    let group = "topic name floor unsettled acknowledged dead skipped generation created";
    let head = "kind id name created journal_format catalog_format catalog_faults applied \
        applied.group applied.segment applied.position slot_bytes clean_stop torn damage topics \
        subscriptions groups segments";
    let expected = head.to_owned()
        + &inner("topics", topic)
        + &inner("subscriptions", subscription)
        + &inner("groups", group)
        + &inner("segments", segment);
    assert_fields(&json(&["ls", "data/peer"]), &expected);

    let weight = "live_bytes dead_bytes topics";
    let expected = "kind live_bytes dead_bytes journal_bytes free_slot_bytes catalog_bytes \
        amplification topics segments"
        .to_owned()
        + &inner("topics", "name id records live_bytes dead_bytes segments")
        + &inner("segments", segment)
        + &inner("segments", weight);
    assert_fields(&json(&["stats", "data/peer"]), &expected);

    let checked = "slots segments groups entries payload_bytes rows topics";
    let expected = "findings notes checked".to_owned() + &inner("checked", checked);
    assert_fields(&json(&["verify", "data/peer"]), &expected);
    let repaired = json(&["repair", "data/peer"]);
    assert_fields(&repaired, "dry_run steps lost left");
    let migrated = json(&["migrate", "data/peer"]);
    assert_fields(&migrated, "path kind format steps");
    assert_fields(
        &json(&["dump", "data/peer", "--to", "1"]),
        "topic offset timestamp key headers payload",
    );

    let entry = "name id epoch peer address state";
    let expected = "kind registry_format registry_faults peers topics".to_owned()
        + &inner("peers", "name id address state since topics")
        + &inner("topics", entry);
    assert_fields(&json(&["ls", "data/index"]), &expected);
    assert_fields(&json(&["dump", "data/index"]), entry);
    assert_fields(
        &json(&["stats", "data/index"]),
        "kind peers topics rows registry_bytes",
    );

    std::fs::remove_dir_all(kept.path().join("data/peer/catalog")).expect("removed");
    let mut verify = command(kept.path());
    verify.args(["data", "verify", "data/peer", "-o", "json"]);
    let ran = run_with(verify, b"");
    let found: Value = serde_json::from_str(&ran.stdout).expect("a document in spite of findings");
    assert_fields(&found["findings"], "file position topic offsets what");
    assert_eq!(ran.status, 1);
}
