//! `docs/protocol.md` agrees with the code: its tables with the numbers, its
//! layouts with the bytes. The layouts are interpreted: each decodes the body
//! that the code encodes, to the last byte, into the same field names and values.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use serde::{Serialize, de::DeserializeOwned};

use super::api::{
    AnsweredBy, Api, ChangeKind, Instead, LaterChoice, MetricKind, PeerState, Position, Role,
    Verdict,
};
use super::codec;
use super::error::{ApiError, ErrorBody};
use super::golden::{errors, samples};
use crate::limits;
use crate::time::Timestamp;
use crate::types::{Durability, GapReason, Offset, WhenFull};

mod drawings;

const PAGE: &str = include_str!("../../docs/protocol.md");

/// A layout of the page.
enum Layout {
    /// Fields: name and type.
    Struct(Vec<(String, String)>),
    /// Variants: number, name, and the type of what they carry.
    Enum(Vec<(u32, String, Option<String>)>),
}

/// The layouts by name, and for each request the type of its answer.
#[derive(Default)]
struct Page {
    layouts: HashMap<String, Layout>,
    answers: HashMap<String, String>,
}

impl Page {
    fn read() -> Self {
        let mut page = Self::default();
        let blocks = PAGE.split("```layout\n").skip(1);
        for block in blocks.filter_map(|block| block.split("```").next()) {
            page.read_block(block);
        }
        page
    }

    fn read_block(&mut self, block: &str) {
        let (mut request, mut name) = (String::new(), String::new());
        for line in block.lines().filter(|line| !line.is_empty()) {
            let is_field = line.starts_with(' ');
            let words: Vec<&str> = line.split_whitespace().collect();
            match (words[0], is_field) {
                ("answer", false) => {
                    name = words[1].to_owned();
                    self.answers.insert(request.clone(), name.clone());
                }
                (kind, false) => {
                    name = words[1].to_owned();
                    let layout = match kind {
                        "enum" => Layout::Enum(Vec::new()),
                        _ => Layout::Struct(Vec::new()),
                    };
                    let twice = self.layouts.insert(name.clone(), layout);
                    assert!(twice.is_none(), "{name} is defined twice");
                    if kind == "request" {
                        request.clone_from(&name);
                    }
                }
                (_, true) => self.read_field(&name, line),
            }
        }
    }

    /// Reads `field  type  meaning`, or `number  variant  type  meaning` with
    /// two spaces or more between the columns.
    fn read_field(&mut self, name: &str, line: &str) {
        let columns = line.trim().split("  ").map(str::trim);
        let columns: Vec<&str> = columns.filter(|column| !column.is_empty()).collect();
        let fields = || Layout::Struct(Vec::new());
        match self.layouts.entry(name.to_owned()).or_insert_with(fields) {
            Layout::Struct(fields) => fields.push((columns[0].to_owned(), columns[1].to_owned())),
            Layout::Enum(variants) => {
                let carried = columns.get(2).filter(|column| is_type(column));
                variants.push((
                    columns[0].parse().expect("a variant's number"),
                    columns[1].to_owned(),
                    carried.map(|&column| column.to_owned()),
                ));
            }
        }
    }

    fn decode(&self, what: &str, rest: &mut &[u8]) -> Value {
        if let Some(inner) = what.strip_suffix('?') {
            return match take(rest, 1) {
                [0] => Value::Null,
                [1] => self.decode(inner, rest),
                other => panic!("option tag {other:?}"),
            };
        }
        if let Some(inner) = what.strip_prefix('[') {
            let inner = inner.trim_end_matches(']');
            return (0..number(rest, 8))
                .map(|_| self.decode(inner, rest))
                .collect();
        }
        if let Some(inner) = what.strip_prefix('(') {
            let parts = inner.trim_end_matches(')').split(',');
            return parts.map(|part| self.decode(part, rest)).collect();
        }
        match what {
            "u8" => json!(number(rest, 1)),
            "u16" => json!(number(rest, 2)),
            "u32" => json!(number(rest, 4)),
            "u64" => json!(number(rest, 8)),
            "i64" | "time" => json!(number(rest, 8).cast_signed()),
            "bool" => json!([false, true][take(rest, 1)[0] as usize]),
            "id" => json!(take(rest, 16)),
            "magic" => json!(take(rest, 4)),
            "bytes" => json!(counted(rest)),
            text if is_text(text) => {
                json!(std::str::from_utf8(counted(rest)).expect("a text is UTF-8"))
            }
            name => self.decode_layout(name, rest),
        }
    }

    fn decode_layout(&self, name: &str, rest: &mut &[u8]) -> Value {
        let layout = self.layouts.get(name);
        match layout.unwrap_or_else(|| panic!("{name} is not on the page")) {
            Layout::Struct(fields) => self.decode_fields(fields, rest),
            Layout::Enum(variants) => {
                let index = number(rest, 4);
                let variant = variants.iter().find(|(i, ..)| u64::from(*i) == index);
                let (_, variant, carried) = variant.expect("the variant is on the page");
                match carried {
                    None => json!(variant),
                    Some(what) => json!({ variant: self.decode(what, rest) }),
                }
            }
        }
    }

    fn decode_fields(&self, fields: &[(String, String)], rest: &mut &[u8]) -> Value {
        let mut values = Map::new();
        for (name, what) in fields {
            values.insert(name.clone(), self.decode(what, rest));
        }
        values.into()
    }
}

fn is_text(what: &str) -> bool {
    let texts = "string topic-name subscription-name peer-name pattern address";
    texts.split(' ').any(|text| text == what)
}

/// Whether a variant's column is the type of what it carries; a layout's name is one word with a capital.
fn is_type(column: &str) -> bool {
    let is_layout = column.starts_with(|c: char| c.is_ascii_uppercase()) && !column.contains(' ');
    is_text(column) || is_layout || ["u32", "u64", "time", "id", "bytes"].contains(&column)
}

fn take<'a>(rest: &mut &'a [u8], bytes: usize) -> &'a [u8] {
    let (head, tail) = rest.split_at(bytes);
    *rest = tail;
    head
}

fn number(rest: &mut &[u8], bytes: usize) -> u64 {
    let digits = take(rest, bytes).iter().rev();
    digits.fold(0, |sum, &byte| sum << 8 | u64::from(byte))
}

fn counted<'a>(rest: &mut &'a [u8]) -> &'a [u8] {
    let bytes = number(rest, 8) as usize;
    take(rest, bytes)
}

/// The rows of the table whose first row begins with `first`, cells trimmed.
fn table(first: &str) -> Vec<Vec<&'static str>> {
    let start = PAGE.find(first).expect("the table is on the page");
    let lines = PAGE[start..].lines().skip(2);
    lines
        .take_while(|line| line.starts_with('|'))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect()
}

#[test]
fn every_layout_decodes_what_the_code_encodes() {
    let page = Page::read();
    for sample in samples() {
        let (request, kind) = sample.name.split_once('.').expect("two parts");
        let what = match kind {
            "request" => request,
            _ => &page.answers[request],
        };
        let mut rest = &sample.bytes[..];
        let found = page.decode(what, &mut rest);
        let empty = json!({});
        let expected = if sample.value.is_null() {
            &empty
        } else {
            &sample.value
        };
        assert_eq!(&found, expected, "{}", sample.name);
        assert!(rest.is_empty(), "{}: bytes left over", sample.name);
    }
}

#[test]
fn the_table_of_requests_is_the_code() {
    let rows = table("| Number | Name |");
    let found: Vec<_> = rows
        .iter()
        .map(|row| (row[0], row[1], row[2], row[4]))
        .collect();
    let numbers: Vec<_> = Api::ALL
        .iter()
        .map(|&api| (api as u16).to_string())
        .collect();
    let expected: Vec<_> = Api::ALL
        .iter()
        .zip(&numbers)
        .map(|(api, number)| {
            let by = match api.answered_by() {
                AnsweredBy::Both => "both",
                AnsweredBy::Index => "index",
                AnsweredBy::Peer => "peer",
            };
            (number.as_str(), api.name(), "1", by)
        })
        .collect();
    assert_eq!(found, expected);
}

#[test]
fn the_table_of_errors_is_the_code() {
    let page = Page::read();
    let rows = table("| Code | Index |");
    assert_eq!(rows.len(), errors().len());
    for (row, error) in rows.iter().zip(errors()) {
        let bytes = error.encode();
        let mut rest = &bytes[..];
        let body = page.decode("ErrorBody", &mut rest);
        assert!(rest.is_empty(), "{}", error.name());
        let retry = if error.is_retryable() { "yes" } else { "no" };
        assert_eq!(row[..1], [error.code().to_string()]);
        assert_eq!(row[2..4], [error.name(), retry]);
        assert_eq!(body["code"], error.code());
        assert_eq!(body["retryable"], error.is_retryable());
        assert_eq!(body["message"], error.to_string());
        check_detail(&page, row, &error, &bytes);
    }
}

fn check_detail(page: &Page, row: &[&str], error: &ApiError, bytes: &[u8]) {
    let body: ErrorBody = codec::decode(bytes, bytes.len(), "error").expect("whole");
    let mut rest = &body.detail[..];
    assert_eq!(row[1], number(&mut rest, 4).to_string(), "{}", error.name());
    let fields = row[4].trim_matches('`').split(", ");
    let fields: Vec<_> = fields
        .filter_map(|field| field.split_once(' '))
        .map(|(name, what)| (name.to_owned(), what.to_owned()))
        .collect();
    let found = match fields.is_empty() {
        true => json!(error.name()),
        false => json!({ error.name(): page.decode_fields(&fields, &mut rest) }),
    };
    assert_eq!(found, serde_json::to_value(error).expect("plain data"));
    assert!(rest.is_empty(), "{}: bytes left over", error.name());
}

/// Compares these variants of enums with those on the page; tells how many enums that were.
macro_rules! check_enums {
    ($page:ident, $($name:ident: $($variant:expr),+;)+) => {{
        $(check_variants(&$page, stringify!($name), &[$($variant),+]);)+
        [$(stringify!($name)),+].len()
    }};
}

/// The samples hold some variants of an enum; the page has to have them all.
#[test]
fn every_variant_is_on_the_page() {
    let page = Page::read();
    let reason = "bad".to_owned();
    let (offset, time) = (Offset::new(3), Timestamp::from_millis(-5));
    let compared = check_enums!(page,
        Role: Role::Index, Role::Peer;
        Durability: Durability::Fsync, Durability::Os;
        WhenFull: WhenFull::DiscardOldest, WhenFull::Refuse;
        PeerState: PeerState::Online, PeerState::Offline, PeerState::Down;
        GapReason: GapReason::Discarded, GapReason::Lost, GapReason::Damaged,
            GapReason::Compacted, GapReason::Expired, GapReason::Purged;
        Position: Position::Beginning, Position::End, Position::Offset(offset), Position::Back(4), Position::Time(time);
        MetricKind: MetricKind::Counter, MetricKind::Gauge, MetricKind::Histogram;
        ChangeKind: ChangeKind::Created, ChangeKind::Seek, ChangeKind::Undo;
        Verdict: Verdict::Ack, Verdict::Nak { delay_ms: Some(9) }, Verdict::Reject { reason }, Verdict::Extend;
        Instead: Instead::Settled, Instead::Waiting, Instead::Elsewhere, Instead::Untouched;
        LaterChoice: LaterChoice::Id(b"x".to_vec()), LaterChoice::Number(offset), LaterChoice::All;
    );
    let enums = |layout: &&Layout| matches!(layout, Layout::Enum(_));
    let on_page = page.layouts.values().filter(enums).count();
    assert_eq!(on_page, compared, "one is not compared");
}

fn check_variants<T: Serialize + DeserializeOwned>(page: &Page, name: &str, all: &[T]) {
    let Some(Layout::Enum(told)) = page.layouts.get(name) else {
        panic!("{name} is not an enum on the page");
    };
    assert_eq!(told.len(), all.len(), "variants of {name}");
    for (variant, (number, told, _)) in all.iter().zip(told) {
        let bytes = codec::encode(variant, 100, "variant").expect("small");
        assert_eq!(number_at(&bytes), *number, "{name}: {told}");
        let mut rest = &bytes[..];
        let found = page.decode(name, &mut rest);
        assert_eq!(found, serde_json::to_value(variant).expect("plain data"));
        assert!(rest.is_empty(), "{name}: {told}: bytes left over");
    }
    let mut beyond = (all.len() as u32).to_le_bytes().to_vec();
    beyond.resize(12, 0);
    let beyond = codec::decode::<T>(&beyond, 100, "variant").map(|_| ());
    let reason = beyond.expect_err("there is no such variant").reason;
    assert!(reason.contains("variant index"), "{name}: {reason}");
}

fn number_at(bytes: &[u8]) -> u32 {
    u32::try_from(number(&mut &bytes[..4], 4)).expect("four bytes")
}

/// The samples and `Other` are all the variants there are.
#[test]
fn no_error_is_missing() {
    let other = ApiError::Other {
        code: 999,
        message: String::new(),
        retryable: false,
    };
    let bytes = codec::encode(&other, 100, "error").expect("small");
    let index = number(&mut &bytes[..], 4);
    assert!(PAGE.contains(&format!("Index {index} never travels")));
    let rows = table("| Code | Index |");
    assert!(rows.iter().all(|row| row[1] != index.to_string()));
    let mut beyond = (rows.len() as u32 + 1).to_le_bytes().to_vec();
    beyond.resize(100, 0);
    let beyond = codec::decode::<ApiError>(&beyond, 100, "error");
    let reason = beyond.expect_err("there is no such variant").reason;
    assert!(reason.contains("variant index"), "{reason}");
}

fn seconds(time: std::time::Duration) -> String {
    format!("{} s", time.as_secs())
}

fn kib(bytes: usize) -> String {
    format!("{} KiB", bytes / limits::KIB)
}

fn thousands(n: usize) -> String {
    match n / 1_000_000 {
        0 => format!("{},{:03}", n / 1_000, n % 1_000),
        millions => format!("{millions},{:03},{:03}", n / 1_000 % 1_000, n % 1_000),
    }
}

/// Limits of connections and waits as the page tells them, and words of the paragraph in which they stand.
fn limits_of_connections() -> Vec<(String, &'static str)> {
    vec![
        (
            limits::HELLO_FRAME_BYTES_MAX.to_string(),
            "until the hello is",
        ),
        (seconds(limits::HELLO_TIMEOUT), "of connecting"),
        (seconds(limits::FRAME_TIMEOUT), "of its first byte"),
        (seconds(limits::WRITE_STALL_TIMEOUT), "is cut off"),
        (kib(limits::PACE_BYTES_MIN), "in a second of a large frame"),
        (seconds(limits::HALF_CLOSE_TIMEOUT), "for up to 5 s"),
        (
            seconds(limits::FETCH_WAIT_MAX),
            "takes at most 60 s for it), then with what there",
        ),
        (
            seconds(limits::FETCH_WAIT_MAX),
            "the index takes at most 60 s for it",
        ),
        (seconds(limits::CLAIM_KEPT_FOR), "within 10 s of the claim"),
        (
            format!(
                "{} to {}",
                limits::KEEP_ALIVE_MIN.as_millis(),
                thousands(limits::KEEP_ALIVE_MAX.as_millis() as usize)
            ),
            "and may let twice as long pass",
        ),
        (
            seconds(limits::CLIENT_SILENCE_MAX),
            "its streams end with `ClientSilent`",
        ),
        (
            limits::STREAMS_PER_CONNECTION_MAX.to_string(),
            "and a node 65536: one more is",
        ),
        (limits::STREAMS_MAX.to_string(), "is `TooManyStreams`"),
    ]
}

/// The same, of bytes and counts.
fn limits_of_sizes() -> Vec<(String, &'static str)> {
    vec![
        (
            thousands(limits::BATCH_BYTES_MAX),
            "bytes (16 MiB + 64 KiB)",
        ),
        (thousands(limits::batch_bytes_max(1)), "or 327,680 bytes"),
        (
            kib(limits::batch_bytes_max(limits::MIB) - limits::MIB),
            "has at most 64 KiB more than that",
        ),
        (limits::BATCH_RECORDS_MAX.to_string(), "record count"),
        (limits::PAGE_ENTRIES_MAX.to_string(), "`limit`"),
        (
            format!("last {} batches", limits::PRODUCER_BATCHES_KEPT),
            "for each topic",
        ),
        (
            format!("{} days", limits::PRODUCER_KEPT_FOR.as_secs() / 86_400),
            "after the last one",
        ),
        (
            limits::PRODUCERS_PER_TOPIC_MAX.to_string(),
            "producers for each topic",
        ),
        (format!("at most {}", limits::HEADERS_MAX), "header count"),
        (kib(limits::KEY_BYTES_MAX), "A key has at most"),
        (
            format!("{} MiB for it", limits::FETCH_BYTES_MAX / limits::MIB),
            "max bytes",
        ),
        (
            format!("at most {} MiB", limits::CONTROL_BYTES_MAX / limits::MIB),
            "control bodies",
        ),
        (
            format!("window at most {} MiB", limits::ZSTD_WINDOW_BYTES_MAX >> 20),
            "zstd",
        ),
        (limits::NAME_BYTES_MAX.to_string(), "`topic-name` | at most"),
        (
            limits::PEER_NAME_BYTES_MAX.to_string(),
            "`peer-name` | at most",
        ),
        (limits::ADDRESS_BYTES_MAX.to_string(), "`address` | at most"),
        (
            limits::CLIENT_NAME_BYTES_MAX.to_string(),
            "program and version, for logs, at most",
        ),
    ]
}

#[test]
fn the_limits_on_the_page_are_those_of_the_code() {
    for (told, by) in limits_of_connections().into_iter().chain(limits_of_sizes()) {
        let stands = PAGE.match_indices(told.as_str()).any(|(at, _)| {
            let (before, after) = PAGE.split_at(at);
            let paragraph = [before.rsplit("\n\n").next(), after.split("\n\n").next()];
            let paragraph = paragraph.map(Option::unwrap_or_default).concat();
            let words: Vec<&str> = paragraph.split_whitespace().collect();
            words.join(" ").contains(by)
        });
        assert!(stands, "{told:?} … {by:?} is not on the page");
    }
}
