//! What commands print: one place for tables, JSON, YAML and bare names.
//!
//! A command hands over rows that know their names, their columns and their
//! JSON form. Data goes to stdout through one locked, buffered writer; notes go
//! to stderr and are silent with `-q`. Tables have no borders, are never cut to
//! the width of a terminal, and end no line in spaces, so they can be piped.
//!
//! Missing on purpose: colours and paging.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use serde::{Serialize, Serializer};

use crate::cli::fail::{Failure, Result};
pub use crate::cli::format::Format;
use crate::cli::log;
use crate::time::Timestamp;

/// A column of a table.
#[derive(Debug, Clone, Copy)]
pub struct Column {
    head: &'static str,
    right: bool,
}

/// A column of text.
pub const fn left(head: &'static str) -> Column {
    Column { head, right: false }
}

/// A column of numbers.
pub const fn right(head: &'static str) -> Column {
    Column { head, right: true }
}

/// Something that can be listed and shown.
pub trait Row: Serialize {
    /// Columns of the listing.
    const COLUMNS: &'static [Column];

    /// What `-o name` prints.
    fn name(&self) -> String;

    /// One cell for each column.
    fn cells(&self) -> Vec<String>;

    /// Label and value, one a line, when it is shown alone.
    fn card(&self) -> Vec<(&'static str, String)>;
}

/// Where results and notes go.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    /// How results are printed.
    pub format: Format,
    /// Whether notes are suppressed.
    pub quiet: bool,
}

impl Output {
    /// Prints a listing.
    pub fn list<R: Row>(&self, rows: &[R]) -> Result {
        match self.format {
            Format::Table => self.text(&table(rows)),
            Format::Name => self.text(&names(rows)),
            Format::Json | Format::Yaml => self.document(&rows),
        }
    }

    /// Prints one thing.
    pub fn one<R: Row>(&self, row: &R) -> Result {
        match self.format {
            Format::Table => self.text(&card(&row.card())),
            Format::Name => self.text(&format!("{}\n", row.name())),
            Format::Json | Format::Yaml => self.document(row),
        }
    }

    /// Prints what a change left behind, where a program asked for it; people
    /// have read a note.
    pub fn done<R: Row>(&self, rows: &[R]) -> Result {
        match self.format {
            Format::Table => Ok(()),
            _ => self.list(rows),
        }
    }

    /// The same of a verb that changes one thing.
    pub fn done_one<R: Row>(&self, row: &R) -> Result {
        match self.format {
            Format::Table => Ok(()),
            _ => self.one(row),
        }
    }

    /// Prints a value as JSON or YAML, and otherwise `text`.
    pub fn value<T: Serialize>(&self, value: &T, text: &str) -> Result {
        match self.format {
            Format::Table | Format::Name => self.text(text),
            Format::Json | Format::Yaml => self.document(value),
        }
    }

    /// What `-o name` prints of something that has no row; nothing for people.
    pub fn name_line(&self, name: impl Display) -> String {
        match self.format {
            Format::Name => format!("{name}\n"),
            _ => String::new(),
        }
    }

    fn document<T: Serialize>(&self, value: &T) -> Result {
        let text = match self.format {
            Format::Yaml => serde_yaml_ng::to_string(value).map_err(|e| e.to_string()),
            _ => serde_json::to_string_pretty(value)
                .map(|text| text + "\n")
                .map_err(|e| e.to_string()),
        };
        self.text(&text.expect("our own types always encode"))
    }

    fn text(&self, text: &str) -> Result {
        self.raw(text.as_bytes())
    }

    /// Prints bytes as they are.
    pub fn raw(&self, bytes: &[u8]) -> Result {
        let mut out = io::stdout().lock();
        out.write_all(bytes)
            .and_then(|()| out.flush())
            .map_err(|error| Failure::io("stdout", &error))
    }

    /// Whether a progress bar may be drawn on stderr.
    pub fn shows_progress(&self) -> bool {
        io::stderr().is_terminal() && !self.quiet && !log::no_colour()
    }

    /// A note for people, on stderr.
    pub fn note(&self, text: impl Display) {
        if !self.quiet {
            self.warn(text);
        }
    }

    /// What must not go unnoticed, on stderr even with `-q`.
    pub fn warn(&self, text: impl Display) {
        // Nobody is told that telling failed.
        let _ = writeln!(io::stderr().lock(), "{text}");
    }
}

fn names<R: Row>(rows: &[R]) -> String {
    rows.iter().map(|row| row.name() + "\n").collect()
}

fn bare_table() -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled);
    table
}

/// A table with its heads; nothing where there are no rows.
pub fn table<R: Row>(rows: &[R]) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let mut table = bare_table();
    table.set_header(R::COLUMNS.iter().map(|column| column.head));
    table.add_rows(rows.iter().map(R::cells));
    for (at, column) in R::COLUMNS.iter().enumerate() {
        if let Some(of_table) = table.column_mut(at)
            && column.right
        {
            of_table.set_cell_alignment(CellAlignment::Right);
        }
    }
    finished(&mut table)
}

/// Label and value, one a line.
pub fn card(lines: &[(&'static str, String)]) -> String {
    let mut table = bare_table();
    table.add_rows(lines.iter().map(|(label, value)| [*label, value.as_str()]));
    finished(&mut table)
}

/// Two spaces between columns, none at the ends of lines.
fn finished(table: &mut Table) -> String {
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table
        .lines()
        .map(|line| line.trim_end().to_owned() + "\n")
        .collect()
}

// --- values as people read them ------------------------------------------------

/// A number with separators: `1,234,567`.
pub fn number(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// So many things: `1 message`, `2,000 messages`.
pub fn count(n: u64, thing: &str) -> String {
    match n {
        1 => format!("1 {thing}"),
        n => format!("{} {thing}s", number(n)),
    }
}

/// A number of bytes in the largest unit that leaves it at least 1: `64 KiB`, `1.5 GiB`.
pub fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut unit = 0;
    let mut scaled = n as f64;
    while scaled >= 1024.0 && unit + 1 < UNITS.len() {
        scaled /= 1024.0;
        unit += 1;
    }
    if unit == 0 || scaled >= 100.0 || scaled.fract() < 0.05 {
        format!("{scaled:.0} {}", UNITS[unit])
    } else {
        format!("{scaled:.1} {}", UNITS[unit])
    }
}

/// A length of time in at most two units: `250ms`, `9.5s`, `3m12s`, `2d4h`.
pub fn duration(length: Duration) -> String {
    let secs = length.as_secs();
    match secs {
        0 => format!("{}ms", length.as_millis()),
        1..60 if length.subsec_millis() >= 50 => format!("{:.1}s", length.as_secs_f64()),
        1..60 => format!("{secs}s"),
        60..3_600 => two_units((secs / 60, "m"), (secs % 60, "s")),
        3_600..86_400 => two_units((secs / 3_600, "h"), (secs / 60 % 60, "m")),
        _ => two_units((secs / 86_400, "d"), (secs / 3_600 % 24, "h")),
    }
}

fn two_units(large: (u64, &str), small: (u64, &str)) -> String {
    match small.0 {
        0 => format!("{}{}", large.0, large.1),
        n => format!("{}{}{n}{}", large.0, large.1, small.1),
    }
}

/// How long ago: `3m12s ago`.
pub fn ago(moment: Timestamp) -> String {
    match Timestamp::now().since(moment) {
        past if past < Duration::from_secs(1) => "just now".to_owned(),
        past => format!("{} ago", duration(Duration::from_secs(past.as_secs()))),
    }
}

/// `-` for what is not known.
pub fn or_dash<T>(value: Option<T>, show: impl FnOnce(T) -> String) -> String {
    value.map_or_else(|| "-".to_owned(), show)
}

/// Serialises with `Display`: times as RFC 3339, ids as hexadecimal digits.
pub fn as_text<T: Display, S: Serializer>(
    value: &T,
    to: S,
) -> std::result::Result<S::Ok, S::Error> {
    to.collect_str(value)
}

/// The same for what may be missing.
pub fn as_text_or_null<T: Display, S: Serializer>(
    value: &Option<T>,
    to: S,
) -> std::result::Result<S::Ok, S::Error> {
    match value {
        Some(value) => to.collect_str(value),
        None => to.serialize_none(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize)]
    struct Fruit {
        name: &'static str,
        count: u64,
    }

    impl Row for Fruit {
        const COLUMNS: &'static [Column] = &[left("NAME"), right("COUNT"), left("NOTE")];

        fn name(&self) -> String {
            self.name.to_owned()
        }

        fn cells(&self) -> Vec<String> {
            vec![self.name(), number(self.count), String::new()]
        }

        fn card(&self) -> Vec<(&'static str, String)> {
            vec![("name", self.name()), ("count", number(self.count))]
        }
    }

    #[test]
    fn tables_are_aligned_and_bare() {
        let rows = [
            Fruit {
                name: "fig",
                count: 7,
            },
            Fruit {
                name: "mulberry",
                count: 12_000,
            },
        ];
        assert_eq!(
            table(&rows),
            "NAME       COUNT  NOTE\nfig            7\nmulberry  12,000\n"
        );
        assert_eq!(card(&rows[0].card()), "name   fig\ncount  7\n");
        assert_eq!(names(&rows), "fig\nmulberry\n");
        assert_eq!(table::<Fruit>(&[]), "");
    }

    #[test]
    fn numbers_read_well() {
        assert_eq!(number(0), "0");
        assert_eq!(number(999), "999");
        assert_eq!(number(1_234_567), "1,234,567");
        assert_eq!(count(1, "message"), "1 message");
        assert_eq!(count(2000, "message"), "2,000 messages");
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(65_536), "64 KiB");
        assert_eq!(bytes(1_610_612_736), "1.5 GiB");
        assert_eq!(bytes(u64::MAX), "16777216 TiB");
    }

    #[test]
    fn durations_read_well() {
        let cases = [
            (0, "0ms"),
            (250, "250ms"),
            (9_500, "9.5s"),
            (60_000, "1m"),
            (192_000, "3m12s"),
            (7_200_000, "2h"),
            (187_200_000, "2d4h"),
        ];
        for (ms, text) in cases {
            assert_eq!(duration(Duration::from_millis(ms)), text);
        }
        assert_eq!(ago(Timestamp::now()), "just now");
    }
}
