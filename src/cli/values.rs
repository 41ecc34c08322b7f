//! What people type, turned into what the program runs on.
//!
//! One function per kind of value, each `&str -> Result<T, String>`, so clap
//! prefixes the name of the flag and the value. A text is either understood
//! whole or refused with an example of what would have been; nothing is
//! guessed, and a number whose unit matters needs its unit.

use std::time::Duration;

use crate::client::TimeToLive;
use crate::protocol::api::Position;
use crate::time::Timestamp;
use crate::types::{Address, Offset};

const SIZE_UNITS: &[(&str, u64)] = &[
    ("", 1),
    ("B", 1),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];

const DURATION_UNITS_MS: &[(&str, u64)] = &[
    ("ms", 1),
    ("s", 1_000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
    ("w", 604_800_000),
];

/// Splits the leading decimal number off `text`: `1.5GiB` is `1.5` and `GiB`.
fn split_number(text: &str) -> (&str, &str) {
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    text.split_at(end)
}

/// `number` times `unit`, exactly, or `None` if that is no whole number of 64 bits.
fn scaled(number: &str, unit: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let plain = |digits: &str| digits.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || !plain(whole) || !plain(fraction) || fraction.len() > 9 {
        return None;
    }
    if number.ends_with('.') {
        return None;
    }
    let parts = 10_u128.pow(fraction.len() as u32);
    let digits: u128 = format!("{whole}{fraction}").parse().ok()?;
    let product = digits.checked_mul(u128::from(unit))?;
    u64::try_from(product / parts).ok()
}

/// A number of bytes: `64KiB`, `10GiB`, `1.5GB`, `4096`.
pub fn size(text: &str) -> Result<u64, String> {
    let (number, unit) = split_number(text.trim());
    SIZE_UNITS
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(unit.trim()))
        .and_then(|(_, bytes)| scaled(number, *bytes))
        .ok_or_else(|| "expected a size such as 64KiB, 10GiB or 4096".to_owned())
}

/// A length of time: `250ms`, `10s`, `1h30m`, `7d`.
pub fn duration(text: &str) -> Result<Duration, String> {
    let refuse = || "expected a duration such as 250ms, 10s, 1h30m or 7d".to_owned();
    let mut rest = text.trim();
    let mut total_ms: u64 = 0;
    if rest.is_empty() {
        return Err(refuse());
    }
    while !rest.is_empty() {
        let (number, tail) = split_number(rest);
        let unit_end = tail
            .find(|c: char| !c.is_ascii_alphabetic())
            .unwrap_or(tail.len());
        let (unit, after) = tail.split_at(unit_end);
        let part = DURATION_UNITS_MS
            .iter()
            .find(|(name, _)| *name == unit)
            .and_then(|(_, ms)| scaled(number, *ms))
            .ok_or_else(refuse)?;
        total_ms = total_ms.checked_add(part).ok_or_else(refuse)?;
        rest = after;
    }
    Ok(Duration::from_millis(total_ms))
}

/// A length of time that is not zero: how often, or how long at most.
pub fn period(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err("expected more than no time, such as 250ms or 10s".to_owned()),
        period => Ok(period),
    }
}

/// When a message is to be delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// At that moment.
    At(Timestamp),
    /// So long after it was read.
    After(Duration),
}

/// A moment to come: RFC 3339, a date, or `+` and a duration.
pub fn when(text: &str) -> Result<When, String> {
    let refuse = || {
        "expected a time such as 2026-03-01T12:00:00Z, or how long from now, such as +10m"
            .to_owned()
    };
    match text.trim().strip_prefix('+') {
        Some(after) => duration(after).map(When::After).map_err(|_| refuse()),
        None if duration(text).is_ok() => Err(refuse()),
        None => time(text).map(When::At).map_err(|_| refuse()),
    }
}

/// How long a message lives.
pub fn time_to_live(text: &str) -> Result<TimeToLive, String> {
    duration(text)?
        .try_into()
        .map_err(|_| "expected 1ms to ten years, such as 30s, 10m or 7d".to_owned())
}

/// A moment: RFC 3339, a date, or a duration back from now.
pub fn time(text: &str) -> Result<Timestamp, String> {
    if let Ok(back) = duration(text) {
        return Ok(Timestamp::now().before(back));
    }
    let refuse = || {
        "expected a time such as 2026-03-01T12:00:00Z, or a duration back from now such as 2h"
            .to_owned()
    };
    if let Ok(date) = text.trim().parse::<jiff::civil::Date>()
        && text.trim().len() == "2026-03-01".len()
    {
        return date
            .to_zoned(jiff::tz::TimeZone::UTC)
            .map(|zoned| Timestamp::from_millis(zoned.timestamp().as_millisecond()))
            .map_err(|_| refuse());
    }
    text.trim()
        .parse::<jiff::Timestamp>()
        .map(|moment| Timestamp::from_millis(moment.as_millisecond()))
        .map_err(|_| refuse())
}

/// A place in a topic: `beginning`, `end`, an offset, `-N`, `2h`, a time.
pub fn position(text: &str) -> Result<Position, String> {
    let text = text.trim();
    match text {
        "beginning" => return Ok(Position::Beginning),
        "end" => return Ok(Position::End),
        _ => {}
    }
    let all_digits =
        |digits: &str| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    let refuse = || {
        "expected beginning, end, an offset such as 1200, -N for the last N, a duration back from \
         now such as 2h, or a time such as 2026-03-01T12:00:00Z"
            .to_owned()
    };
    if let Some(back) = text.strip_prefix('-') {
        return Some(back)
            .filter(|digits| all_digits(digits))
            .and_then(|digits| digits.parse().ok())
            .map(Position::Back)
            .ok_or_else(refuse);
    }
    if all_digits(text) {
        return text
            .parse()
            .map(|n| Position::Offset(Offset::new(n)))
            .map_err(|_| refuse());
    }
    time(text).map(Position::Time).map_err(|_| refuse())
}

/// A rate: `500/s`, `0.5/s`, `10000`.
pub fn rate(text: &str) -> Result<f64, String> {
    let number = text.trim().strip_suffix("/s").unwrap_or(text.trim());
    let plain = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    match number.parse::<f64>() {
        Ok(rate) if plain && rate > 0.0 && rate <= 1e9 => Ok(rate),
        _ => Err("expected a number of messages per second such as 500/s".to_owned()),
    }
}

/// How many messages: at least one.
pub fn count(text: &str) -> Result<u64, String> {
    match text.parse() {
        Ok(count) if count > 0 => Ok(count),
        _ => Err("expected a number of messages, 1 or more".to_owned()),
    }
}

/// A number from 1 to `MOST`.
pub fn number_up_to<const MOST: u32>(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(number) if (1..=MOST).contains(&number) => Ok(number),
        _ => Err(format!("expected a number from 1 to {MOST}")),
    }
}

/// An offset.
pub fn offset(text: &str) -> Result<Offset, String> {
    text.parse()
        .map(Offset::new)
        .map_err(|_| "expected an offset such as 1200".to_owned())
}

/// A header: `NAME:VALUE`, cut at the first colon.
pub fn header(text: &str) -> Result<(String, String), String> {
    match text.split_once(':') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("expected NAME:VALUE such as source:ci".to_owned()),
    }
}

/// A place to listen on: `HOST:PORT`, where port 0 picks a free one.
pub fn listen(text: &str) -> Result<String, String> {
    let refuse = || "expected HOST:PORT such as 127.0.0.1:7401; port 0 picks a free one".to_owned();
    let (host, port) = text.rsplit_once(':').ok_or_else(refuse)?;
    if !port.bytes().all(|b| b.is_ascii_digit()) || port.parse::<u16>().is_err() {
        return Err(refuse());
    }
    // The host obeys the rules of an address; a port that one accepts stands in for 0.
    match format!("{host}:1").parse::<Address>() {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => Err(refuse()),
    }
}

/// One piece of a format string.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// Bytes as they are.
    Text(String),
    /// `%t`: the topic.
    Topic,
    /// `%o`: the offset.
    Offset,
    /// `%T`: the publisher's time.
    Time,
    /// `%k`: the key.
    Key,
    /// `%h`: the headers, `name:value` separated by commas.
    Headers,
    /// `%p`: the payload.
    Payload,
}

/// A parsed format string.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(pub Vec<Piece>);

/// A format string: `%t %o %T %k %h %p`, `%n` a newline, `%%` a percent sign; `\n`, `\t`, `\\`.
pub fn template(text: &str) -> Result<Template, String> {
    let mut pieces = Vec::new();
    let mut plain = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        let piece = match (c, c == '%' || c == '\\') {
            (_, false) => {
                plain.push(c);
                continue;
            }
            ('\\', _) => {
                plain.push(escaped(chars.next())?);
                continue;
            }
            _ => match chars.next() {
                Some('n') => {
                    plain.push('\n');
                    continue;
                }
                Some('%') => {
                    plain.push('%');
                    continue;
                }
                Some(letter) => field(letter)?,
                None => return Err("a format cannot end in a single %".to_owned()),
            },
        };
        if !plain.is_empty() {
            pieces.push(Piece::Text(std::mem::take(&mut plain)));
        }
        pieces.push(piece);
    }
    if !plain.is_empty() {
        pieces.push(Piece::Text(plain));
    }
    Ok(Template(pieces))
}

fn escaped(c: Option<char>) -> Result<char, String> {
    match c {
        Some('n') => Ok('\n'),
        Some('t') => Ok('\t'),
        Some('\\') => Ok('\\'),
        _ => Err("expected \\n, \\t or \\\\ after a backslash".to_owned()),
    }
}

fn field(letter: char) -> Result<Piece, String> {
    Ok(match letter {
        't' => Piece::Topic,
        'o' => Piece::Offset,
        'T' => Piece::Time,
        'k' => Piece::Key,
        'h' => Piece::Headers,
        'p' => Piece::Payload,
        other => {
            return Err(format!(
                "%{} is unknown: %t topic, %o offset, %T time, %k key, %h headers, \
                 %p payload, %n newline, %% percent",
                other.escape_debug()
            ));
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units_of_two_kinds() {
        let good = [
            ("4096", 4096),
            ("64KiB", 65_536),
            ("64kib", 65_536),
            ("10GiB", 10 << 30),
            ("1.5KB", 1_500),
            ("1 MB", 1_000_000),
            ("0", 0),
        ];
        for (text, bytes) in good {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for bad in [
            "",
            "KiB",
            "-1",
            "1K",
            "1.KiB",
            "1e3",
            "99999999999TiB",
            "1.2.3",
        ] {
            assert!(size(bad).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn durations_need_units() {
        let good = [
            ("250ms", 250),
            ("10s", 10_000),
            ("1h30m", 5_400_000),
            ("7d", 604_800_000),
            ("0.5s", 500),
        ];
        for (text, ms) in good {
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for bad in [
            "",
            "10",
            "s",
            "10 s",
            "-1s",
            "1y",
            "1h30",
            "99999999999999w",
        ] {
            assert!(duration(bad).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn times_are_absolute_or_back_from_now() {
        let exact = time("2018-01-31T01:49:59.650Z").expect("RFC 3339");
        assert_eq!(exact.as_millis(), 1_517_363_399_650);
        assert_eq!(time("2018-01-31T02:49:59.650+01:00"), Ok(exact));
        assert_eq!(time("1970-01-02"), Ok(Timestamp::from_millis(86_400_000)));
        let hour_ago = time("1h").expect("a duration");
        let off = Timestamp::now().since(hour_ago).as_secs();
        assert!((3600..3660).contains(&off), "{off}");
        for bad in [
            "",
            "yesterday",
            "2018-13-01",
            "12:00",
            "2018-01-31T01:49:59",
        ] {
            assert!(time(bad).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn positions_are_what_the_hands_type() {
        assert_eq!(position("beginning"), Ok(Position::Beginning));
        assert_eq!(position("end"), Ok(Position::End));
        assert_eq!(position("12"), Ok(Position::Offset(Offset::new(12))));
        assert_eq!(position("-12"), Ok(Position::Back(12)));
        assert!(matches!(position("2h"), Ok(Position::Time(_))));
        assert_eq!(
            position("1970-01-01T00:00:01Z"),
            Ok(Position::Time(Timestamp::from_millis(1000)))
        );
        for bad in [
            "",
            "-",
            "-x",
            "--1",
            "+1",
            "last",
            "18446744073709551616",
            "-2h",
        ] {
            assert!(position(bad).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn rates_headers_and_listen_addresses() {
        assert_eq!(rate("500/s"), Ok(500.0));
        assert_eq!(rate("0.5"), Ok(0.5));
        for bad in ["", "0/s", "-1/s", "1/m", "inf", "nan", "1e3"] {
            assert!(rate(bad).is_err(), "{bad:?} was accepted");
        }
        assert_eq!(header("a:b:c"), Ok(("a".into(), "b:c".into())));
        assert_eq!(header("a: b"), Ok(("a".into(), " b".into())));
        assert_eq!(header("a:"), Ok(("a".into(), String::new())));
        assert!(header(":b").is_err() && header("b").is_err());
        for good in ["127.0.0.1:0", "[::]:7401", "localhost:65535"] {
            assert_eq!(listen(good), Ok(good.to_owned()));
        }
        for bad in ["7401", ":7401", "a:65536", "a:+1", "a b:1", "::1:80"] {
            assert!(listen(bad).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn templates_are_parsed_whole() {
        let parsed = template("%o\\t%k: %p%n").expect("good");
        assert_eq!(
            parsed.0,
            [
                Piece::Offset,
                Piece::Text("\t".into()),
                Piece::Key,
                Piece::Text(": ".into()),
                Piece::Payload,
                Piece::Text("\n".into()),
            ]
        );
        assert_eq!(
            template("100%%").expect("good").0,
            [Piece::Text("100%".into())]
        );
        for bad in ["%", "%x", "\\q", "\\", "%\u{1b}", "%\n"] {
            let refused = template(bad).expect_err(bad);
            // What is typed may come from anywhere: nothing of it steers a terminal.
            assert!(!refused.contains(char::is_control), "{refused:?}");
        }
    }
}
