//! The bodies that are drawn byte by byte: the frame, publish, fetch and stream, what is taken, the header of a batch.

use std::collections::BTreeMap;

use super::{PAGE, number_at, take};
use crate::protocol::golden::vectors;

/// The line over a drawing, bytes that it describes, and what they hold by name.
type Drawing<'a> = (&'static str, &'a [u8], Vec<(&'static str, u128)>);

type Vectors = BTreeMap<String, Vec<u8>>;

/// Milliseconds in many of the vectors.
const AT: u128 = 1_517_363_399_650;

/// What the bytes hold by a drawing of the page: the rows after the line that begins with `title`,
/// `offset  size  name  …`, each name with its number. A last row of size `…` takes the rest.
fn drawn(title: &str, mut rest: &[u8]) -> Vec<(&'static str, u128)> {
    let start = PAGE.find(title).expect("the drawing is on the page");
    let lines = PAGE[start..].lines().skip(1);
    let mut at = 0;
    let mut found = Vec::new();
    for line in lines.take_while(|line| !line.trim().is_empty()) {
        let columns = line.trim().split("  ").map(str::trim);
        let columns: Vec<&str> = columns.filter(|column| !column.is_empty()).collect();
        // What begins with no number goes on with the row before.
        let Ok(offset) = columns[0].parse::<usize>() else {
            continue;
        };
        assert_eq!(offset, at, "{title}: {line}");
        if columns[1] == "…" {
            return found;
        }
        let size = columns[1].parse().expect("a size");
        let digits = take(&mut rest, size).iter().rev();
        let value = digits.fold(0, |sum, &byte| sum << 8 | u128::from(byte));
        found.push((columns[2], value));
        at += size;
    }
    assert!(rest.is_empty(), "{title}: bytes left over");
    found
}

fn id_from(first: u8) -> u128 {
    u128::from_le_bytes(std::array::from_fn(|n| first + n as u8))
}

fn length(bytes: &[u8], without: usize) -> u128 {
    (bytes.len() - without) as u128
}

fn headers(vectors: &Vectors) -> Vec<Drawing<'_>> {
    let (frame, batch) = (&vectors["frame.error"], &vectors["batch.none"]);
    let of_frame = vec![
        ("length", length(frame, 4)),
        ("api", 10),
        ("version", 1),
        ("flags", 3),
        ("correlation", 0x0102_0304),
    ];
    let of_batch = vec![
        ("crc", u128::from(number_at(batch))),
        ("magic", 0x4254),
        ("format version", 1),
        ("attributes", 0),
        ("length", length(batch, 64)),
        ("record count", 3),
        ("unpacked length", length(batch, 64)),
        ("producer epoch", 0),
        ("base timestamp", AT),
        ("max timestamp", AT + 200),
        ("producer id", id_from(0x40)),
        ("first sequence", 7),
    ];
    vec![
        (
            "    offset  size\n    0       4     length",
            frame,
            of_frame,
        ),
        ("    offset  size\n    0       4     crc", batch, of_batch),
    ]
}

fn publishing(vectors: &Vectors) -> Vec<Drawing<'_>> {
    let request = vec![("topic id", id_from(0x10)), ("leader epoch", 4)];
    let expecting = [&request[..], &[("expected end", 1_707)]].concat();
    let answer = vec![
        ("base offset", 1_707),
        ("end offset", 1_710),
        ("durability", 1),
        ("duplicate", 1),
    ];
    vec![
        (
            "    Publish (50), request",
            &vectors["Publish.request"],
            request,
        ),
        (
            "    PublishExpecting (57), request",
            &vectors["PublishExpecting.request"],
            expecting,
        ),
        (
            "    Publish (50), answer, 18 bytes",
            &vectors["Publish.answer"],
            answer,
        ),
    ]
}

fn fetching(vectors: &Vectors) -> Vec<Drawing<'_>> {
    let request = vec![
        ("topic id", id_from(0x10)),
        ("leader epoch", 4),
        ("offset", 20),
        ("max bytes", 1 << 20),
        ("min bytes", 1),
        ("max wait", 5_000),
        ("flags", 1),
    ];
    let fetched = &vectors["Fetch.answer"];
    let answer = vec![
        ("start offset", 10),
        ("end offset", 40),
        ("next offset", 33),
    ];
    let gap = vec![("kind", 2), ("from", 20), ("to", 30), ("reason", 3)];
    let batch = vec![
        ("kind", 1),
        ("base offset", 30),
        ("leader epoch", 4),
        ("append time", AT + 500),
        ("length", length(&vectors["batch.none"], 0)),
    ];
    let of_request = &vectors["Fetch.request"];
    vec![
        ("    Fetch (51), request, 41 bytes", of_request, request),
        ("    Fetch (51), answer", fetched, answer),
        ("    an item that is a gap, 18 bytes", &fetched[24..42], gap),
        (
            "    an item that is a batch, 25 bytes",
            &fetched[42..],
            batch,
        ),
    ]
}

fn streaming(vectors: &Vectors) -> Vec<Drawing<'_>> {
    let request = vec![
        ("topic id", id_from(0x10)),
        ("leader epoch", 4),
        ("offset", 20),
        ("max bytes", 1 << 20),
        ("credit bytes", 1 << 22),
        ("credit records", 1 << 16),
        ("keep-alive", 300),
        ("flags", 1),
    ];
    let of_request = &vectors["Stream.request"];
    vec![("    Stream (52), request, 53 bytes", of_request, request)]
}
fn taking(vectors: &Vectors) -> Vec<Drawing<'_>> {
    let taken = &vectors["TakeRecords.answer"];
    let answer = vec![("ack deadline", 30_000), ("number", 6)];
    let item = vec![
        ("append time", AT + 500),
        ("runs", 2),
        ("length", length(&vectors["batch.none"], 0)),
    ];
    let run = vec![("first offset", 42), ("count", 2), ("delivery", 1)];
    vec![
        ("    TakeRecords (77), answer", taken, answer),
        (
            "    an item with its runs and its batch",
            &taken[16..],
            item,
        ),
        ("    a run of an item, 16 bytes", &taken[32..48], run),
    ]
}

#[test]
fn the_drawings_are_the_code() {
    let vectors = vectors();
    let drawings = [
        headers(&vectors),
        publishing(&vectors),
        fetching(&vectors),
        streaming(&vectors),
        taking(&vectors),
    ];
    for (title, bytes, expected) in drawings.into_iter().flatten() {
        assert_eq!(drawn(title, bytes), expected, "{title}");
    }
}
